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
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.data.base import Block
from elltwo.errors import InputError
from elltwo.losses import Gaussian
from elltwo.moments import Moments, gather
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import (
    UNDETERMINED,
    Influence,
    Outcome,
    column_size,
    intercepts,
    leave_out_weight,
    row_chunks,
)
from elltwo.solvers.certificate import FEWEST, ROUNDINGS, SAMPLE, SINGULAR, Reached, Rounding, judged
from elltwo.solvers.dual import gather_rows
from elltwo.solvers.reduced_design import Reduced, reduce_gram, reduce_rows, reduce_sparse
from elltwo.solvers.wide_rows import SparseRows, WideRows, gather_sparse
from elltwo.solvers.working_set import PathRunner, Point

Array = npt.NDArray[Any]

#: Rows in memory with so many features or more keep to their rows unless there are many more rows than
#: features: a Gram matrix would cost more than the few columns that a sparse model needs.
MANY_FEATURES, MANY_ROWS = 3000, 10
#: A larger tolerance than this is where to stop; a smaller one asks for rounding level.
EXACT = 1e-8
#: Alphas of the automatic grid, and its span below α_max when n ≥ p and when n < p.
GRID, SPAN_TALL, SPAN_WIDE = 100, 1e-4, 1e-2


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
    _inverses: dict[tuple[int, float], Array] = field(default_factory=dict, repr=False)

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
            raise InputError("alpha must be above 0 for an L1 penalty; Ridge and GLM take alpha=0, for none.")
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

    def rounds(self, target: int, alpha: float) -> int:
        """Return the passes over all features that one model took."""
        return self.points(target, np.array([alpha]))[0].rounds

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
        """Return the automatic grid, ascending to α_max; see `l1_grid`."""
        return l1_grid(self.largest_alpha, self.statistic.rows, len(self.form.d))

    def condition(self, alpha: float, target: int | None = None) -> float:
        """Return κ̂² of the active columns' G_S + λ₂I, columns scaled, of one target or the worst of all."""
        worst = 1.0
        for t in range(self.n_targets) if target is None else (target,):
            H = self._active_matrix(t, float(alpha))
            if len(H):
                g = np.linalg.eigvalsh(_scaled(H)[0])
                worst = max(worst, float(g[-1] / g[0]) if g[0] > 0 else np.inf)
        return worst

    def violation(self, target: int, alpha: float) -> tuple[Array, Array]:
        """Return the violation of each optimality condition, in scaled coordinates, and as a share.

        That is of ‖z_j‖·‖y − ȳ‖.
        """
        (point,) = self.points(target, np.array([alpha]))
        design = self.reduced.design
        g = design.gradient(target, point.features, point.values)
        u = np.zeros(design.size)
        u[point.features] = point.values
        each = kkt_residual(g[:, None], u[:, None], np.ones(len(u)), np.array([alpha]), self.l1_ratio)[:, 0]
        size = design.norms * np.sqrt(float(design.yy[target]))
        return each, np.divide(np.abs(each), size, out=np.zeros(len(u)), where=size > 0)

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model with an alpha of its own for each target (T,), and its certificate.

        Its digits are those of the active set's system, signs held. A duality gap above `tol` or the solver's
        own, whichever is larger, is told by the status.
        """
        s, targets = self.statistic, [(t, float(a)) for t, a in enumerate(alpha)]
        coef = self.coef_at(alpha)
        b = intercepts(s, coef[None], self.centre)[0]
        condition = max(self.condition(a, t) for t, a in targets)
        left, worst, idle = np.zeros_like(coef), 0.0, 0.0
        for t, a in targets:
            each, share = self.violation(t, a)
            inside = self.points(t, np.array([a]))[0].features
            left[self.reduced.held[inside], t] = each[inside] * self.reduced.root[inside]
            worst = max(worst, float(share.max(initial=0.0)))
            idle = max(idle, float(np.delete(share, inside).max(initial=0.0)))

        def newton(g: Array, gb: Array) -> tuple[Array, Array]:
            mean = s.x_mean * self.centre
            step = self.solve(g - np.multiply.outer(mean, gb), alpha)
            return step, gb / s.weight * self.centre - mean @ step

        deviance = np.array([self.deviance(np.array([a]))[0, t] for t, a in targets])
        reached = Reached(
            theta=coef,
            b=b,
            step=newton(left, np.zeros(len(alpha))),
            noise=self._rounding(coef, b, alpha, deviance).spread(newton),
            residual=worst,
            condition=condition,
            deviance=deviance,
            passes=0,
            known=condition < SINGULAR,
            deficient=self.unresolved > 0,
            gap=max(float(self.gap(np.array([a]))[0, t]) for t, a in targets),
            idle=idle,
        )
        from_moments = isinstance(s, Moments)
        certificate, notes = judged(
            reached, s, Gaussian(), max(tol, self.tol), measured_on="moments" if from_moments else "rows"
        )
        null = s.weight * (s.y_scale**2 + (0.0 if self.centre else s.y_mean**2))
        return Outcome(coef, b, deviance, null, certificate, notes)

    def _rounding(self, coef: Array, b: Array, alpha: Array, deviance: Array) -> Rounding:
        """Return how uncertain rounding leaves the gradient: on rows, or what it makes of moments.

        Σ wzⱼzₖ and Σ wzⱼy are known to u‖zⱼ‖‖zₖ‖ and u‖zⱼ‖‖y‖, and each number of the data to u of its size.
        """
        s, root = self.statistic, np.sqrt(self.form.d)[:, None]
        pull = alpha * (self.l1_ratio * root * np.sign(coef) + (1 - self.l1_ratio) * root**2 * coef)
        if not isinstance(s, Moments):
            step = max(1, len(s.w) // max(FEWEST, SAMPLE // s.X.shape[1]))
            few = Block(s.X[::step], s.y[::step], s.w[::step], 0)
            return Rounding.on(few, Gaussian(), s.rows, coef, b, pull)
        spread, size = (
            scale[:, None] for scale in (column_size(s, self.centre), np.hypot(s.x_scale, s.x_mean))
        )
        terms = np.sqrt(s.weight) * (s.y_scale + spread.T @ np.abs(coef))
        terms = terms + np.hypot(s.y_mean, s.y_scale) + np.sqrt(size.T**2 @ coef**2)
        unit, weigh = ROUNDINGS * ROUNDOFF, np.sqrt(s.weight)
        own = weigh * (size * np.sqrt(deviance) + spread * terms) + np.abs(pull)
        return Rounding(
            np.zeros((0, len(coef))), np.zeros((0, len(alpha))), unit * own, unit * weigh * terms[0], 1.0
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
                inside = self._inverse(t, float(a)) @ own / r.root[S]
            out[r.held[S], t] = inside
            out[r.free, t] = r.own @ (r.own.T @ rhs[r.free, t]) - r.through[:, S] @ inside
        return out

    def _inverse(self, target: int, alpha: float) -> Array:
        """Return (G_S + λ₂I)⁻¹ on its range, columns scaled before it is found; kept."""
        key = (target, alpha)
        if key not in self._inverses:
            matrix, size = _scaled(self._active_matrix(target, alpha))
            noise = 2 * ROUNDOFF * len(matrix)
            self._inverses[key] = np.linalg.pinv(matrix, rcond=noise, hermitian=True) / size / size[:, None]
        return self._inverses[key]

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


def _scaled(H: Array) -> tuple[Array, Array]:
    """Return a matrix with a unit diagonal, and the sizes that its rows and columns were divided by."""
    size = np.sqrt(np.where(H.diagonal() > 0, H.diagonal(), 1.0))
    return H / size / size[:, None], size


def l1_grid(top: float, rows: int, features: int) -> Array:
    """Return 100 alphas, ascending to α_max = `top` from 10⁻⁴ of it, from 10⁻² if there are fewer rows.

    >>> l1_grid(2.0, 50, 10)[[0, -1]]
    array([2.e-04, 2.e+00])
    """
    if top == 0:
        return np.array([1.0])
    grid = top * np.geomspace(SPAN_WIDE if rows < features else SPAN_TALL, 1.0, GRID)
    grid[-1] = top
    return np.asarray(grid)


def check_l1_ratio(l1_ratio: Any) -> None:
    """Raise InputError unless the share of the L1 penalty is above 0 and at most 1."""
    if not isinstance(l1_ratio, (int, float, np.number)) or not 0 < l1_ratio <= 1:
        raise InputError(
            f"l1_ratio must be above 0 and at most 1; got {l1_ratio!r}. For 0 use Ridge: it is the "
            "same model, solved in one step."
        )


def check_form(form: QuadraticForm) -> None:
    """Raise InputError unless the penalty has one multiplier per feature."""
    if form.rotation is not None:
        raise InputError(
            "penalty: an L1 penalty needs one multiplier per feature (0 = unpenalised); a penalty matrix "
            "couples coefficients. Use Ridge for a matrix."
        )


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
        check_l1_ratio(self.l1_ratio)

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
        check_form(form)
        if isinstance(statistic, Moments):
            reduced = reduce_gram(statistic, form.d, centre)
        elif isinstance(statistic, SparseRows):
            reduced = reduce_sparse(statistic, form.d, centre)
        else:
            reduced = reduce_rows(statistic, form.d, centre)
        return CoordinateState(
            statistic, form, centre, float(self.l1_ratio), self.tol, self.max_rounds, reduced
        )
