"""Elastic net and lasso: a whole path of sparse models, each with its duality gap.

The objective, on the sum scale, with d the diagonal of the penalty matrix:

    Σᵢ wᵢ·½(yᵢ − b − xᵢᵀθ)² + α·[l1_ratio·Σⱼ √dⱼ·|θⱼ| + (1 − l1_ratio)/2·Σⱼ dⱼθⱼ²]

A feature with dⱼ = 0 is not penalised at all. With moments the rows are read once, whatever the number of
alphas and folds; wide problems keep their rows, sparse ones as they are. The work is done in
`elltwo.solvers.working_set`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.data.base import Block
from elltwo.errors import InputError, Status
from elltwo.moments import Moments, drop_noise, gather
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate
from elltwo.solvers.base import (
    UNDETERMINED,
    Influence,
    Outcome,
    intercepts,
    leave_out_weight,
    rank_cutoff,
    row_chunks,
)
from elltwo.solvers.dual import Rows, gather_rows
from elltwo.solvers.orthogonal import free_part
from elltwo.solvers.working_set import Design, GramDesign, PathRunner, Point, RowDesign, SparseDesign

Array = npt.NDArray[Any]

#: Rows in memory with so many features or more keep to their rows unless there are many more rows than
#: features: a Gram matrix would cost more than the few columns that a sparse model needs.
MANY_FEATURES, MANY_ROWS = 3000, 10
#: A larger tolerance than this is where to stop; a smaller one asks for rounding level.
EXACT = 1e-8
#: Alphas of the automatic grid, and its span below α_max when n ≥ p and when n < p.
GRID, SPAN_TALL, SPAN_WIDE = 100, 1e-3, 1e-2
#: Numbers that means and deviations of dense rows are taken of at a time, so that they stay in cache.
CHUNK = 1 << 17
#: Rows of a sparse matrix that labels are asked for at a time.
SPARSE_STEP = 1 << 16


@dataclass(frozen=True, eq=False)
class WideRows(Rows):
    """Dense rows whose means and deviations are taken some columns at a time: no temporary copy of X."""

    @cached_property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return np.concatenate([part.x_mean for part in self._parts()])

    @cached_property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column."""
        return np.concatenate([part.x_scale for part in self._parts()])

    def _parts(self) -> Iterator[Rows]:
        step = max(1, CHUNK // max(1, len(self.w)))
        for start in range(0, self.X.shape[1], step):
            yield Rows(self.X[:, start : start + step], self.y, self.w, self.counts)


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Sparse rows as a statistic: X (n, p) in CSR form, y (n, T), w (n,)."""

    X: Any
    y: Array
    w: Array
    counts: bool

    def merge(self, other: SparseRows) -> SparseRows:
        """Return both sets of rows, one after the other."""
        from scipy import sparse

        X = sparse.vstack([self.X, other.X], format="csr")
        return SparseRows(X, np.vstack([self.y, other.y]), np.concatenate([self.w, other.w]), self.counts)

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return int(np.count_nonzero(self.w))

    @property
    def observations(self) -> float:
        """Σw for counts, else `rows`."""
        return self.weight if self.counts else float(self.rows)

    @property
    def weight(self) -> float:
        """Σw."""
        return float(self.w.sum())

    @cached_property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return np.asarray(self.X.T @ self.w) / self.weight

    @cached_property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return np.asarray(self.w @ self.y) / self.weight

    @cached_property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column.

        The stored values are centred before they are squared; the zeros add mean² each.
        """
        X = self.X.tocsc()
        column = np.repeat(np.arange(X.shape[1]), np.diff(X.indptr))
        w = self.w[X.indices]
        squares = np.bincount(column, w * (X.data - self.x_mean[column]) ** 2, X.shape[1])
        empty = np.maximum(self.weight - np.bincount(column, w, X.shape[1]), 0.0)
        return drop_noise(np.sqrt((squares + empty * self.x_mean**2) / self.weight), self.x_mean)

    @cached_property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return drop_noise(np.sqrt(self.w @ (self.y - self.y_mean) ** 2 / self.weight), self.y_mean)

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ wᵢ(yᵢ − b − xᵢᵀθ)² for θ (A, p, T) and b (A, T), shape (A, T)."""
        return np.stack(
            [self.w @ (self.y - self.X @ c - b) ** 2 for c, b in zip(coef, intercept, strict=True)]
        )


@dataclass(frozen=True, eq=False)
class Reduced:
    """The problem freed of its unpenalised features: θ_held = u/root, θ_free = own·along − through·θ_held."""

    design: Design
    held: Array
    free: Array
    root: Array
    own: Array
    along: Array
    through: Array
    unresolved: int

    def expand(self, features: Array, u: Array, target: int) -> Array:
        """Return θ (p,) for the u of some penalised features."""
        theta = np.zeros(len(self.held) + len(self.free))
        part = u / self.root[features]
        theta[self.held[features]] = part
        if len(self.free):
            theta[self.free] = self.own @ self.along[:, target] - self.through[:, features] @ part
        return theta


def reduce_gram(moments: Moments, d: Array, centre: bool) -> Reduced:
    """Take the intercept and the unpenalised features out of moments, and scale by √d."""
    gram, cross, yy = moments.about(centre)
    free, held = np.flatnonzero(d == 0), np.flatnonzero(d > 0)
    root = np.sqrt(d[held])
    size = np.sqrt(gram.diagonal()[free])
    scale = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(gram[np.ix_(free, free)] / scale / scale[:, None])
    keep = values > rank_cutoff(max(1, len(free)), float(values.max(initial=0.0)), squared=True)
    own = vectors[:, keep] / np.sqrt(values[keep]) / scale[:, None]
    along = own.T @ cross[free]
    project = own.T @ gram[np.ix_(free, held)]
    rest = gram if len(free) == 0 else gram[np.ix_(held, held)] - project.T @ project
    if np.any(root != 1):
        rest = rest / root / root[:, None]
    design = GramDesign(
        gram=np.ascontiguousarray(rest),
        cross=(cross[held] - project.T @ along) / root[:, None],
        yy=np.maximum(yy - np.sum(along**2, axis=0), ROUNDOFF**2 * yy),
        rank=max(min(moments.rows - int(centre) - own.shape[1], len(held)), 0),
    )
    unresolved = int(np.count_nonzero(size)) - own.shape[1]
    return Reduced(design, held, free, root, own, along, own @ project, unresolved)


def reduce_rows(rows: Rows, d: Array, centre: bool) -> Reduced:
    """Take the intercept and the unpenalised features out of rows, and scale by √d: one copy of X."""
    free, held = np.flatnonzero(d == 0), np.flatnonzero(d > 0)
    root, weigh = np.sqrt(d[held]), np.sqrt(rows.w)
    mean = rows.x_mean if centre else np.zeros_like(rows.x_mean)
    varies = rows.x_scale > 0 if centre else np.ones(len(mean), dtype=bool)
    y = weigh[:, None] * (rows.y - (rows.y_mean if centre else 0.0))
    F = (rows.X[:, free] - mean[free]) * (weigh[:, None] * varies[free])
    level = np.linalg.norm(F, axis=0)
    own, basis = free_part(F, level)
    Z = np.empty((len(weigh), len(held)), order="F")
    np.subtract(rows.X if len(free) == 0 else rows.X[:, held], mean[held], out=Z)
    if np.any(rows.w != 1):
        Z *= weigh[:, None]
    if not varies[held].all():
        Z[:, ~varies[held]] = 0.0
    project, along = basis.T @ Z, basis.T @ y
    if len(free):
        Z -= basis @ project
        y = y - basis @ along
    if np.any(root != 1):
        Z /= root
    rank = max(min(rows.rows - int(centre) - own.shape[1], len(held)), 0)
    unresolved = int(np.count_nonzero(level)) - own.shape[1]
    return Reduced(RowDesign(y, rank, Z), held, free, root, own, along, own @ project, unresolved)


def reduce_sparse(rows: SparseRows, d: Array, centre: bool) -> Reduced:
    """Say what is to be taken out of sparse rows, and scale by √d."""
    from scipy import sparse

    free, held = np.flatnonzero(d == 0), np.flatnonzero(d > 0)
    root, weigh = np.sqrt(d[held]), np.sqrt(rows.w)
    mean = rows.x_mean if centre else np.zeros_like(rows.x_mean)
    varies = rows.x_scale > 0 if centre else np.ones(len(mean), dtype=bool)
    ones = (weigh / np.sqrt(rows.weight))[:, None] if centre else np.zeros((len(weigh), 0))
    y = weigh[:, None] * (rows.y - (rows.y_mean if centre else 0.0))
    F = (rows.X[:, free].toarray() - mean[free]) * (weigh[:, None] * varies[free])
    F -= ones @ (ones.T @ F)  # what rounding of the means leaves, X's own means would blow up
    level = np.linalg.norm(F, axis=0)
    own, basis = free_part(F, level)
    basis = basis - ones @ (ones.T @ basis)
    fixed = np.hstack([ones, basis])
    X = sparse.csc_matrix(sparse.diags(weigh) @ rows.X[:, held] @ sparse.diags(varies[held] / root))
    through = np.asarray(X.T @ fixed).T
    project, along = through[ones.shape[1] :] * root, basis.T @ y
    y = y - fixed @ (fixed.T @ y)
    rank = max(min(rows.rows - int(centre) - own.shape[1], len(held)), 0)
    design = SparseDesign(y, rank, X, fixed, through)
    unresolved = int(np.count_nonzero(level)) - own.shape[1]
    return Reduced(design, held, free, root, own, along, own @ project, unresolved)


@dataclass(frozen=True, eq=False)
class CoordinateState:
    """Solutions at any alpha, kept once they have been computed.

    Attributes
    ----------
    statistic : Moments, Rows or SparseRows
    form : QuadraticForm
    centre : bool
        Whether the rows are centred (an intercept is fitted).
    l1_ratio : float
    tol : float
        Duality gap, as a share of ½Σw(y − ȳ)², that counts as solved.
    max_rounds : int
        Passes over all features per alpha at most.
    reduced : Reduced
    """

    statistic: Any
    form: QuadraticForm
    centre: bool
    l1_ratio: float
    tol: float
    max_rounds: int
    reduced: Reduced
    condition_limit: float = np.inf
    _points: dict[tuple[int, float], Point] = field(default_factory=dict, repr=False)
    _shares: dict[tuple[int, float], Array] = field(default_factory=dict, repr=False)

    @property
    def n_targets(self) -> int:
        """T."""
        return len(self.statistic.y_mean)

    @property
    def unresolved(self) -> int:
        """Unpenalised directions that the data do not determine; their coefficients are 0."""
        return self.reduced.unresolved

    def points(self, target: int, alphas: Array) -> list[Point]:
        """Return the solutions for a target at each alpha, computing those that are missing downwards."""
        if np.any(alphas <= 0):
            raise InputError(
                "alpha must be above 0 for an L1 penalty; without any penalty, fit Ridge(alpha=0)."
            )
        missing = sorted({float(a) for a in alphas if (target, float(a)) not in self._points}, reverse=True)
        if missing:
            design = self.reduced.design
            cross = design.cross[:, target]
            enough = self.tol * self._size(target) if self.tol > EXACT else 0.0
            runner = PathRunner(design, target, cross, self.l1_ratio, self.max_rounds, enough)
            above = [a for t, a in self._points if t == target and a > missing[0]]
            if above:
                runner.start(min(above), self._points[target, min(above)])
            for alpha, point in zip(missing, runner.points(np.array(missing)), strict=True):
                self._points[target, alpha] = point
        return [self._points[target, float(a)] for a in alphas]

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T), exact zeros included."""
        coef = np.zeros((len(alphas), len(self.form.d), self.n_targets))
        for t in range(self.n_targets):
            for a, point in enumerate(self.points(t, alphas)):
                coef[a, :, t] = self.reduced.expand(point.features, point.values, t)
        return coef

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target (T,), shape (p, T)."""
        return np.stack([self.coef_of(t, float(a)) for t, a in enumerate(alpha)], axis=1)

    def coef_of(self, target: int, alpha: float) -> Array:
        """Return θ of one target at one alpha, shape (p,)."""
        (point,) = self.points(target, np.array([alpha]))
        return self.reduced.expand(point.features, point.values, target)

    def gap(self, alphas: Array) -> Array:
        """Return the duality gap as a share of ½Σw(y − ȳ)², shape (A, T): the certificate.

        The objective exceeds its minimum by no more than that.
        """
        gaps = np.zeros((len(alphas), self.n_targets))
        for t in range(self.n_targets):
            size = self._size(t)
            for a, point in enumerate(self.points(t, alphas)):
                gaps[a, t] = point.gap / size if size > 0 else 0.0
        return gaps

    def _size(self, target: int) -> float:
        """Return ½Σw(y − ȳ)²."""
        s = self.statistic
        mean = 0.0 if self.centre else float(s.y_mean[target])
        return float(0.5 * s.weight * (float(s.y_scale[target]) ** 2 + mean**2))

    def converged(self, alphas: Array) -> Array:
        """Return whether the gap is at most `tol`, shape (A, T)."""
        return np.asarray(self.gap(alphas) <= self.tol)

    def deviance(self, alphas: Array) -> Array:
        """Return the weighted residual sum of squares in sample, shape (A, T)."""
        each = [[point.rss for point in self.points(t, alphas)] for t in range(self.n_targets)]
        return np.array(each).T

    def _spectrum(self, target: int, alpha: float) -> Array:
        """Return the eigenvalues of the active columns' Gram matrix."""
        key = (target, alpha)
        if key not in self._shares:
            (point,) = self.points(target, np.array([alpha]))
            columns = self.reduced.design.columns(point.features)
            gram = self.reduced.design.products(point.features, columns, point.features, columns)
            self._shares[key] = np.maximum(np.linalg.eigvalsh((gram + gram.T) / 2), 0.0)
        return self._shares[key]

    def df_of(self, target: int, alpha: float) -> float:
        """Return the degrees of freedom of one target at one alpha, without the intercept.

        tr G_S(G_S + λ₂I)⁻¹ over the active set S (Tibshirani and Taylor, 2012), which for the lasso is the
        number of non-zero coefficients (Zou, Hastie and Tibshirani, 2007); unpenalised features add one each.
        """
        fixed = float(self.reduced.own.shape[1])
        if self.l1_ratio == 1:
            (point,) = self.points(target, np.array([alpha]))
            return fixed + len(point.features)
        g = self._spectrum(target, alpha)
        return fixed + float(np.sum(g / (g + alpha * (1 - self.l1_ratio))))

    def df(self, alphas: Array) -> Array:
        """Return the degrees of freedom, shape (A,): the mean over targets, each of which has its own."""
        each = np.array([[self.df_of(t, float(a)) for t in range(self.n_targets)] for a in alphas])
        return np.asarray(each.mean(axis=1))

    def df_at(self, alpha: Array) -> Array:
        """Return the degrees of freedom with an alpha of its own for each target, shape (T,)."""
        return np.array([self.df_of(t, float(a)) for t, a in enumerate(alpha)])

    @property
    def largest_alpha(self) -> float:
        """α_max: from here on every penalised coefficient is 0, for all targets.

        max |Σ wᵢx̃ᵢⱼỹᵢ|/(l1_ratio·√dⱼ), x̃ and ỹ freed of the intercept and of unpenalised features.
        """
        return float(np.abs(self.reduced.design.cross).max(initial=0.0)) / self.l1_ratio

    def grid(self) -> Array:
        """Return 100 alphas, ascending to α_max from 10⁻³ of it, from 10⁻² if n < p."""
        top = self.largest_alpha
        if top == 0:
            return np.array([1.0])
        wide = self.statistic.rows < len(self.form.d)
        grid = top * np.geomspace(SPAN_WIDE if wide else SPAN_TALL, 1.0, GRID)
        grid[-1] = top
        return grid

    def condition(self, alpha: float, target: int | None = None) -> float:
        """Return κ̂² = (g_max + λ₂)/(g_min + λ₂) of the active columns, of one target or the worst of all."""
        worst, l2 = 1.0, alpha * (1 - self.l1_ratio)
        for t in range(self.n_targets) if target is None else (target,):
            g = self._spectrum(t, float(alpha))
            if len(g):
                low = float(g.min()) + l2
                worst = max(worst, (float(g.max()) + l2) / low if low > 0 else np.inf)
        return worst

    def residual(self, target: int, alpha: float) -> float:
        """Return the largest violation of an optimality condition, as a share of ‖z_j‖·‖y − ȳ‖."""
        (point,) = self.points(target, np.array([alpha]))
        design = self.reduced.design
        g = design.gradient(target, point.features, point.values)
        u = np.zeros(design.size)
        u[point.features] = point.values
        violation = kkt_residual(g[:, None], u[:, None], np.ones(len(u)), np.array([alpha]), self.l1_ratio)[
            :, 0
        ]
        size = design.norms * np.sqrt(float(design.yy[target]))
        return float((np.abs(violation)[size > 0] / size[size > 0]).max(initial=0.0))

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model with an alpha of its own for each target (T,), and its certificate.

        A duality gap above `tol` or the solver's own, whichever is larger, is told by the status.
        """
        s, targets = self.statistic, [(t, float(a)) for t, a in enumerate(alpha)]
        coef = self.coef_at(alpha)
        condition = max(self.condition(a, t) for t, a in targets)
        certificate = Certificate(
            residual=max(self.residual(t, a) for t, a in targets),
            measured_on="moments" if isinstance(s, Moments) else "rows",
            condition=float(np.sqrt(condition)),
            digits=float(np.clip(-np.log10(ROUNDOFF * condition), 0.0, 15.9)),
            refinements=0,
        )
        solved = all(self.gap(np.array([a]))[0, t] <= max(tol, self.tol) for t, a in targets)
        return Outcome(
            coef=coef,
            intercept=intercepts(s, coef[None], self.centre)[0],
            deviance=np.array([self.deviance(np.array([a]))[0, t] for t, a in targets]),
            null_deviance=s.weight * (s.y_scale**2 + (0.0 if self.centre else s.y_mean**2)),
            certificate=certificate,
            notes=() if solved else (Status.NOT_CONVERGED,),
        )

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (G + λ₂P)⁻¹rhs on the active set, 0 elsewhere, for rhs (p, T) and alpha (T,)."""
        out, r = np.zeros_like(rhs), self.reduced
        for t, a in enumerate(alpha):
            (point,) = self.points(t, np.array([float(a)]))
            S = point.features
            inside = np.zeros(0)
            if len(S):
                own = (rhs[r.held[S], t] - r.through[:, S].T @ rhs[r.free, t]) / r.root[S]
                inside = np.linalg.lstsq(self._active_matrix(t, float(a)), own)[0] / r.root[S]
            out[r.held[S], t] = inside
            out[r.free, t] = r.own @ (r.own.T @ rhs[r.free, t]) - r.through[:, S] @ inside
        return out

    def _active_matrix(self, target: int, alpha: float) -> Array:
        """Return G_S + λ₂I in scaled coordinates."""
        (point,) = self.points(target, np.array([alpha]))
        columns = self.reduced.design.columns(point.features)
        H = self.reduced.design.products(point.features, columns, point.features, columns)
        H.flat[:: len(H) + 1] += alpha * (1 - self.l1_ratio)
        return np.asarray((H + H.T) / 2)

    def influence(self, problem: Problem, alphas: Array) -> Iterator[Influence]:
        """Yield residuals and approximate leave-one-out divisors of all rows.

        Approximate: as if leaving the row out changed neither the active set nor the signs. Then the model is
        linear in y, with leverages of the active columns and the L2 part (Rad and Maleki, 2020; Wang et al.,
        2018, "Approximate leave-one-out for fast parameter tuning in high dimensions").
        """
        r, s = self.reduced, self.statistic
        coef = self.coef(alphas)
        x_mean = s.x_mean if self.centre else np.zeros_like(s.x_mean)
        y_mean = s.y_mean if self.centre else np.zeros_like(s.y_mean)
        share = 1.0 / s.weight if self.centre else 0.0
        for t in range(self.n_targets):
            points = self.points(t, alphas)
            roots = [
                np.linalg.cholesky(np.linalg.pinv(self._active_matrix(t, float(a)), hermitian=True))
                for a in alphas
            ]
            for rows, X, y, weights in row_chunks(problem, coef.shape[1]):
                Z = X - x_mean
                w = np.ones(len(y)) if weights is None else weights
                free = Z[:, r.free]
                level = share + np.sum((free @ r.own) ** 2, axis=1)
                keep = np.empty((len(y), len(alphas)))
                for a, point in enumerate(points):
                    S = point.features
                    own = (Z[:, r.held[S]] - free @ r.through[:, S]) / r.root[S]
                    keep[:, a] = level + np.sum((own @ roots[a]) ** 2, axis=1)
                keep *= -leave_out_weight(problem, w)[:, None]
                keep += 1.0
                keep[keep < UNDETERMINED] = np.nan
                residual = (y[:, t] - y_mean[t])[:, None] - Z @ coef[:, :, t].T
                yield Influence(rows, slice(t, t + 1), residual[:, :, None], keep, w)


def kkt_residual(correlation: Array, coef: Array, d: Array, alpha: Array, l1_ratio: float) -> Array:
    """Return how far θ is from optimal, per coefficient: 0 at the optimum, shape (p, T).

    With c = Xᵀw(y − b − Xθ) of shape (p, T): c − λ₁√d·sign(θ) − λ₂dθ where θ ≠ 0, and the excess of |c| over
    λ₁√d where θ = 0.

    >>> kkt_residual(np.array([[3.0], [1.0]]), np.array([[2.0], [0.0]]), np.ones(2), np.array([2.0]), 1.0)
    array([[1.],
           [0.]])
    """
    l1, l2 = alpha * l1_ratio * np.sqrt(d)[:, None], alpha * (1 - l1_ratio) * d[:, None]
    active = correlation - l1 * np.sign(coef) - l2 * coef
    idle = np.sign(correlation) * np.maximum(np.abs(correlation) - l1, 0.0)
    return np.where(coef != 0, active, idle)


@dataclass(frozen=True)
class CoordinateSolver:
    """Elastic net by working sets: on moments where they are small, else on the rows.

    Parameters
    ----------
    l1_ratio : float
        Share of the L1 penalty, above 0 and at most 1 (the lasso). At 0 the problem is ridge, which other
        solvers solve in one step.
    tol : float
        Duality gap, as a share of ½Σw(y − ȳ)², that counts as solved. Above 1e-8 the work stops there; else
        it goes on until no feature violates its condition by more than rounding, which costs little more.
    max_rounds : int
        Passes over all features per alpha at most.
    """

    l1_ratio: float = 0.5
    tol: float = 1e-10
    max_rounds: int = 1000
    name: str = "coordinate"

    def __post_init__(self) -> None:
        """Refuse an l1_ratio outside its range."""
        if not isinstance(self.l1_ratio, (int, float, np.number)) or not 0 < self.l1_ratio <= 1:
            raise InputError(
                f"l1_ratio must be above 0 and at most 1; got {self.l1_ratio!r}. For 0 use Ridge: it is the "
                "same model, solved in one step."
            )

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[Any]:
        """Return the statistic of each atom of rows: `Moments`, `Rows` or `SparseRows`."""
        source = problem.source
        n, p = source.n_rows, source.n_features
        wide = n is not None and (n < p or (source.in_memory and p > MANY_FEATURES and n < MANY_ROWS * p))
        if problem.prior is not None:
            raise InputError(
                "prior: an L1 penalty shrinks towards 0; subtract X @ prior from y for another centre."
            )
        X = getattr(source, "X", None)
        if X is not None and hasattr(X, "tocsr") and p > min(MANY_FEATURES, n or p):
            return gather_sparse(source, labels, n_atoms)
        if wide:
            found = gather_rows(problem, False, labels, n_atoms)
            return [WideRows(r.X, r.y, r.w, r.counts) for r in found]
        return list(gather(problem.blocks(), counts=source.counts, labels=labels, n_atoms=n_atoms))

    def state(self, statistic: Any, form: QuadraticForm, centre: bool) -> CoordinateState:
        """Take off the intercept and unpenalised features, and scale by the penalty."""
        if form.rotation is not None:
            raise InputError(
                "penalty: an L1 penalty needs one multiplier per feature (0 = unpenalised); a penalty matrix "
                "couples coefficients. Use Ridge for a matrix."
            )
        if isinstance(statistic, Moments):
            reduced = reduce_gram(statistic, form.d, centre)
        elif isinstance(statistic, SparseRows):
            reduced = reduce_sparse(statistic, form.d, centre)
        else:
            reduced = reduce_rows(statistic, form.d, centre)
        return CoordinateState(
            statistic, form, centre, float(self.l1_ratio), self.tol, self.max_rounds, reduced
        )


def gather_sparse(source: Any, labels: Any = None, n_atoms: int = 1) -> list[SparseRows]:
    """Return the rows of each atom of a source whose `X` is a sparse matrix, never dense."""
    X, y = source.X, source.y
    if getattr(source, "offset", None) is not None:
        y = y - source.offset
    w = np.ones(len(y)) if source.weights is None else source.weights
    if not np.isfinite(X.data).all():
        raise source.why_not_finite()
    label = np.zeros(len(y), dtype=np.int64)
    if labels is not None:
        for start in range(0, len(y), SPARSE_STEP):
            rows = slice(start, min(len(y), start + SPARSE_STEP))
            label[rows] = labels(Block(X[rows], y[rows], w[rows], start))
    picks: list[Any] = [np.flatnonzero(label == k) for k in range(n_atoms)]
    if labels is None:
        picks = [slice(None)]
    return [SparseRows(X[pick].astype(np.float64), y[pick], w[pick], source.counts) for pick in picks]
