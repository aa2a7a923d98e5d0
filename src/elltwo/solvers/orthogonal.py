"""Where normal equations would lose digits: QR of the rows themselves, merged like moments.

R is the triangular factor of √w·[1, X − s, y − t]; factors of two sets of rows merge by a QR of
the stacked factors (TSQR: Demmel, Grigori, Hoemmen and Langou, 2012). The squared error of any
model on those rows is ‖R·(1, −θ, 1)ᵀ‖², with nothing to cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, accurate_svd, solve_upper, triangular_factor
from elltwo.margins import drop_noise
from elltwo.moments import BUFFER_BYTES
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import Split, rank_cutoff
from elltwo.solvers.spectral import Spectral

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class TriangularFactor:
    """R of √w·[1, X − shift, y − shift], square and upper triangular, p + T + 1 columns."""

    R: Array
    shift: Array
    rows: int
    observations: float
    n_targets: int

    def merge(self, other: TriangularFactor) -> TriangularFactor:
        """Return the factor of both sets of rows."""
        theirs = other.R
        if not np.array_equal(self.shift, other.shift):
            theirs = theirs.copy()
            theirs[:, 1:] += np.outer(theirs[:, 0], other.shift - self.shift)
        return TriangularFactor(
            R=triangular_factor(np.vstack([self.R, theirs])),
            shift=self.shift,
            rows=self.rows + other.rows,
            observations=self.observations + other.observations,
            n_targets=self.n_targets,
        )

    @property
    def weight(self) -> float:
        """W = Σw."""
        return float(self.R[0, 0] ** 2)

    @cached_property
    def _mean(self) -> Array:
        return self.shift + (self.R[0, 1:] / self.R[0, 0] if self.weight > 0 else 0.0)

    @property
    def _p(self) -> int:
        return len(self.shift) - self.n_targets

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return self._mean[: self._p]

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return self._mean[self._p :]

    @cached_property
    def _scale(self) -> Array:
        sizes = np.linalg.norm(self.R[1:, 1:], axis=0)
        if self.weight == 0:
            return np.zeros_like(sizes)
        level = np.abs(self._mean) + np.abs(self._mean - self.shift)
        return drop_noise(sizes / np.sqrt(self.weight), level)

    @property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column."""
        return self._scale[: self._p]

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return self._scale[self._p :]

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return ‖R·(t − b − sᵀθ, −θ, 1)‖² for θ (A, p, T) and b (A, T), shape (A, T)."""
        A, p, T = coef.shape
        model = np.zeros((A, 1 + p + T, T))
        model[:, 0] = self.shift[p:] - intercept - np.einsum("j,ajt->at", self.shift[:p], coef)
        model[:, 1 : 1 + p] = -coef
        model[:, 1 + p :] = np.eye(T)
        return np.asarray(np.sum((self.R @ model) ** 2, axis=1))

    def about(self, centre: bool) -> tuple[Array, Array, Array]:
        """Return (R, Qᵀy, RSS) of the rows about the means, or about zero: (p, p), (p, T), (T,)."""
        p = self._p
        if centre:
            inner = self.R[1:, 1:]
            varies = np.concatenate([self.x_scale > 0, np.ones(self.n_targets, dtype=bool)])
            if not varies.all():
                inner = triangular_factor(inner * varies)
        else:
            raw = self.R[:, 1:] + np.outer(self.R[:, 0], self.shift)
            inner = triangular_factor(raw)
        return inner[:p, :p], inner[:p, p:], np.sum(inner[p:, p:] ** 2, axis=0)


def gather_factors(problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[TriangularFactor]:
    """Return the triangular factor of each atom of rows in one pass."""
    shift, factors, rows, observations = None, [], [0] * n_atoms, [0.0] * n_atoms
    for block in problem.blocks():
        if shift is None:
            k = 1 + block.X.shape[1] + block.y.shape[1]
            shift = np.concatenate([block.X[:4096].mean(axis=0), block.y[:4096].mean(axis=0)])
            factors = [np.zeros((k, k)) for _ in range(n_atoms)]
        label = np.zeros(len(block.y), dtype=np.int64) if labels is None else labels(block)
        for atom in range(n_atoms):
            chosen = np.flatnonzero(label == atom)
            weights = np.ones(len(chosen)) if block.weights is None else block.weights[chosen]
            factors[atom] = _absorb(factors[atom], block.X, block.y, chosen, np.sqrt(weights), shift)
            rows[atom] += int(np.count_nonzero(weights))
            observations[atom] += (
                float(weights.sum()) if problem.source.counts else float(np.count_nonzero(weights))
            )
    T = problem.source.n_targets
    assert shift is not None
    return [TriangularFactor(R, shift, rows[i], observations[i], T) for i, R in enumerate(factors)]


def _absorb(R: Array, X: Array, y: Array, chosen: Array, root: Array, shift: Array) -> Array:
    """Return the factor of R stacked on the chosen rows, a buffer at a time."""
    k, p = len(R), X.shape[1]
    step = max(2 * k, BUFFER_BYTES // (8 * k))
    for i in range(0, len(chosen), step):
        part = chosen[i : i + step]
        rows = np.empty((k + len(part), k), order="F")
        rows[:k] = R
        rows[k:, 0] = 1.0
        np.subtract(X[part], shift[:p], out=rows[k:, 1 : 1 + p])
        np.subtract(y[part], shift[p:], out=rows[k:, 1 + p :])
        rows[k:] *= root[i : i + step, None]
        R = triangular_factor(rows)
    return R


def from_factor(factor: TriangularFactor, form: QuadraticForm, centre: bool) -> OrthogonalState:
    """Diagonalise (RᵀR, P) by singular value decompositions; small singular values keep their digits."""
    R, qy, rss = factor.about(centre)
    return OrthogonalState.build(factor, form, centre, R, qy, rss)


@dataclass(frozen=True, eq=False)
class OrthogonalState(Spectral):
    """A `Spectral` made from R by SVD; one alpha is solved by a QR of [R; √α·P^½] instead."""

    R: Array | None = None
    qy: Array | None = None
    form: QuadraticForm | None = None

    @classmethod
    def build(
        cls, statistic: Any, form: QuadraticForm, centre: bool, rows: Array, qy: Array, rss: Array
    ) -> OrthogonalState:
        """Return the state for any rows (m, p) and right-hand sides (m, T) with ZᵀWZ = rowsᵀrows."""
        split = Split.of(form)
        turned = split.rotate(rows)
        level = split.level(np.linalg.norm(rows, axis=0))
        own, projection = free_part(turned[:, split.free], level)
        through = own @ (projection.T @ turned[:, split.held])
        rest = turned[:, split.held] - projection @ (projection.T @ turned[:, split.held])
        left, s, right, seen = resolved_svd(rest / split.root, rows)
        floor = rank_cutoff(max(rows.shape), float(s[0] ** 2) if len(s) else 0.0, squared=False)
        g = np.concatenate([np.ones(own.shape[1]), s**2])
        directions = np.hstack([projection, left * seen])
        along = directions.T @ qy
        beyond = qy - directions @ along
        return cls(
            statistic=statistic,
            centre=centre,
            basis=split.basis(own, through, right.T),
            g=g,
            d=np.concatenate([np.zeros(own.shape[1]), np.ones(len(s))]),
            cross=np.sqrt(g)[:, None] * along,
            rss0=rss + np.sum(beyond**2, axis=0),
            smallest=float(s[seen][-1] ** 2) if seen.any() else 0.0,
            floor=floor,
            unresolved=int(np.count_nonzero(level)) - own.shape[1],
            condition_limit=np.inf,
            R=rows,
            qy=qy,
            form=form,
        )

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), by QR for one alpha and by the SVD for many."""
        return (
            self.coef_at(np.repeat(alphas, self.cross.shape[1]))[None]
            if len(alphas) == 1
            else super().coef(alphas)
        )

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target.

        By QR for a single small alpha, unless [R; √α·P^½] is rank-deficient; where α dominates, the SVD
        keeps the digits that rows of size √α would drown.
        """
        triangle = self._triangle(alpha)
        return super().coef_at(alpha) if triangle is None else solve_upper(*triangle)

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (G + α_t P)⁻¹ rhs_t, from the same factor."""
        triangle = self._triangle(alpha)
        if triangle is None:
            return super().solve(rhs, alpha)
        return solve_upper(triangle[0], solve_upper(triangle[0], rhs, transposed=True))

    def _triangle(self, alpha: Array) -> tuple[Array, Array] | None:
        """Return (U, v) with Uθ = v, or None where the singular value decomposition is to be used."""
        dominates = alpha[0] >= self.g[self.d > 0].max(initial=0.0)
        if len(np.unique(alpha)) > 1 or dominates or self.unresolved > 0:
            return None
        return self._factor(float(alpha[0]))  # type: ignore[attr-defined,no-any-return]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_factor", lru_cache(maxsize=1)(self._make_factor))

    def _make_factor(self, alpha: float) -> tuple[Array, Array] | None:
        assert self.R is not None
        assert self.qy is not None
        assert self.form is not None
        upper, rhs = augmented_triangle(self.R, self.qy, self.form, alpha)
        return None if upper is None else (upper, rhs)


def resolved_svd(matrix: Array, rows: Array) -> tuple[Array, Array, Array, Array]:
    """Return (U, s, Vᵀ, seen) of a matrix made from `rows`, s being 0 where it is rounding noise: not `seen`.

    Units must not decide what is noise: where the smallest singular value might be, the rows' columns are
    scaled to equal size, and nothing is dropped if they are independent. Else the matrix is scaled likewise,
    and what remains of it is decomposed anew.
    """
    left, s, right = accurate_svd(matrix)
    noise = max((1, *matrix.shape)) * 2 * ROUNDOFF
    if len(s) == 0 or s[-1] > noise * s[0] or independent(rows):
        return left, s, right, s > 0
    size = _sizes(matrix)
    own, t, across = accurate_svd(matrix / size)
    rank = int(np.count_nonzero(t > noise * t[0]))
    inner, s[:rank], right[:rank] = accurate_svd(t[:rank, None] * across[:rank] * size)
    left[:, :rank] = own[:, :rank] @ inner
    seen = np.arange(len(s)) < rank
    return left, np.where(seen, s, 0.0), right, seen


def independent(rows: Array) -> bool:
    """Return whether columns of any size, those of zeros left out, are linearly independent to rounding."""
    live = rows[:, np.any(rows != 0, axis=0)]
    if not 0 < live.shape[1] <= len(rows):
        return not live.shape[1]
    _, s, _ = accurate_svd(live / _sizes(live))
    return bool(s[-1] > max(live.shape) * 2 * ROUNDOFF * s[0])


def _sizes(columns: Array) -> Array:
    size = np.linalg.norm(columns, axis=0)
    return np.where(size > 0, size, 1.0)


def augmented_triangle(R: Array, qy: Array, form: QuadraticForm, alpha: float) -> tuple[Array | None, Array]:
    """Return (U, v) with Uθ = v the ridge solution from a QR of [R; √α·P^½], U None if singular."""
    p = R.shape[1]
    if alpha > 0:
        root = np.sqrt(alpha) * form.root()
        R, qy = np.vstack([R, root]), np.vstack([qy, np.zeros((len(root), qy.shape[1]))])
    if len(R) < p:
        return None, qy
    upper = triangular_factor(np.hstack([R, qy]))
    size = np.linalg.norm(upper[:p, :p], axis=0)
    diagonal = np.abs(upper.diagonal()[:p])
    if np.any(diagonal <= p * 4 * ROUNDOFF * size):
        return None, qy
    return np.ascontiguousarray(upper[:p, :p]), upper[:p, p:]


def free_part(rows: Array, level: Array) -> tuple[Array, Array]:
    """Return (E, U) with rows·E = U orthonormal: the range of the unpenalised columns.

    Columns at the rounding level of `level`, the size they have without cancellation, are 0.
    """
    size = np.linalg.norm(rows, axis=0)
    real = size > max((1, *rows.shape)) * 2 * ROUNDOFF * level
    scale = np.where(real, size, 1.0)
    left, s, right = accurate_svd(rows * real / scale)
    keep = s**2 > rank_cutoff(max((1, *rows.shape)), float(s[0] ** 2) if len(s) else 0.0, squared=False)
    return (right[keep].T / s[keep]) / scale[:, None], left[:, keep]


@dataclass(frozen=True)
class OrthogonalSolver:
    """QR of the rows and SVD of R: no digits are lost to squaring."""

    name: str = "orthogonal"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[TriangularFactor]:
        """Return the triangular factor of each atom of rows."""
        return gather_factors(problem, labels, n_atoms)

    def state(self, factor: TriangularFactor, form: QuadraticForm, centre: bool) -> OrthogonalState:
        """Diagonalise by SVD."""
        return from_factor(factor, form, centre)
