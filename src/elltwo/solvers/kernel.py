"""Kernel ridge: minimise Σ wᵢ(yᵢ − b − f(xᵢ))² + α‖f‖²_H over functions f of a kernel's space and free b.

The minimiser is f = Σ aⱼ k(xⱼ, ·), with (K + αW⁻¹)a + b1 = y and, when b is free, 1ᵀa = 0.

With Kw = √W·K·√W, restricted to the complement of √w when b is free, and Kw = U·diag(g)·Uᵀ, the
rows of Φ = W^{-½}·U·diag(√g) are features whose inner products are the kernel's (up to a shift that b takes
up): kernel ridge is ridge on Φ with the identity penalty, and ΦᵀWΦ = diag(g). So LOO, GCV, REML, K-fold and
refinement are those of any other ridge; a training set of K-fold is a set of rows of Φ.
Saunders, Gammerman and Vovk (1998), "Ridge regression learning algorithm in dual variables".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.memory import check_weights
from elltwo.errors import InputError
from elltwo.moments import drop_noise
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate
from elltwo.solvers.base import CHUNK, Outcome, intercepts, rank_cutoff
from elltwo.solvers.dual import DualState
from elltwo.solvers.kernel_dual import (
    dual_digits,
    dual_residual,
    relative_residual,
    symmetric_product,
    symmetric_rows,
)

Array = npt.NDArray[Any]

#: A negative eigenvalue beyond so many times the rounding level means that the kernel is none.
NEGATIVE = 1e3
#: Most steps of refinement.
MOST_REFINEMENTS = 2


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Kw = U·diag(g)·Uᵀ on some rows of positive weight, U orthogonal to √w when b is free.

    Attributes
    ----------
    index : array of int, shape (m,)
        The rows, ascending.
    U : array, shape (m, q)
        q = m, or m − 1 when b is free.
    g : array, shape (q,)
        Ascending; exactly 0 at the rounding level.
    floor : float
    """

    index: Array
    U: Array
    g: Array
    floor: float

    @property
    def unseen(self) -> int:
        """Number of directions with g = 0; they come first."""
        return int(np.count_nonzero(self.g == 0))

    @cached_property
    def spectrum(self) -> Array:
        """The positive g, (r,), or a single 0 when the kernel matrix is constant."""
        return self.g[self.unseen :] if self.unseen < len(self.g) else np.zeros(1)

    @cached_property
    def directions(self) -> Array:
        """The columns of U that belong to `spectrum`, (m, r); a column of 0 for a constant kernel matrix."""
        some = self.unseen < len(self.g)
        return self.U[:, self.unseen :] if some else np.zeros((len(self.index), 1))


def decompose(lower: Array, w: Array, index: Array, centre: bool) -> Decomposition:
    """Diagonalise Kw on the rows `index`, all of positive weight.

    A Householder reflection takes √w/‖√w‖ to the first unit vector, so that the rest is exactly orthogonal to
    it however small its eigenvalues.

    Raises
    ------
    InputError
        If K has an eigenvalue that is negative beyond rounding.
    """
    root = np.sqrt(w[index])
    whole = len(index) == len(lower)
    A = lower.copy() if whole else lower[np.ix_(index, index)]
    if np.any(root != 1.0):
        A *= root
        A *= root[:, None]
    m, u, beta = len(index), np.zeros(0), 0.0
    if centre:
        u = root / np.linalg.norm(root)
        u[0] += 1.0
        beta = 2.0 / float(u @ u)
        image = beta * symmetric_product(A, u[:, None])[:, 0]
        q = image - (0.5 * beta * float(u @ image)) * u
        step = max(1, CHUNK // m)
        for i in range(0, m, step):
            j = min(m, i + step)
            A[i:j, :j] -= u[i:j, None] * q[:j]
            A[i:j, :j] -= q[i:j, None] * u[:j]
        A = A[1:, 1:]
    if len(A) == 0:
        return Decomposition(index, np.zeros((m, 0)), np.zeros(0), 0.0)
    g, V = np.linalg.eigh(A)  # reads what is on and below the diagonal
    floor = rank_cutoff(m, float(g[-1]), squared=True)
    if g[0] < -NEGATIVE * max(floor, rank_cutoff(m, -float(g[0]), squared=True)):
        raise InputError(
            f"the kernel matrix has the negative eigenvalue {g[0]:.3g} (largest: {g[-1]:.3g}), so it is "
            "not positive semi-definite and the objective has no minimum. Use a proper kernel."
        )
    if centre:
        U = np.empty((m, m - 1))
        along = u[1:] @ V
        U[0] = -beta * u[0] * along
        step = max(1, CHUNK // m)
        for i in range(1, m, step):
            j = min(m, i + step)
            np.subtract(V[i - 1 : j - 1], (beta * u[i:j, None]) * along, out=U[i:j])
    else:
        U = V
    return Decomposition(index, U, np.where(g > floor, g, 0.0), floor)


class KernelSource(BlockwiseSource):
    """Rows as coordinates Φ in the kernel's own principal directions.

    Parameters
    ----------
    lower : array, shape (n, n)
        K on and below the diagonal.
    y : array, shape (n, T)
    weights : array, shape (n,), optional
        Integers are counts, real numbers are precisions.
    centre : bool
        Whether b is free.
    target_names : tuple of str, optional
    keys : array, shape (n,), optional

    Raises
    ------
    InputError
        For a matrix that is no kernel matrix, or weights that cannot be used.

    Examples
    --------
    >>> from elltwo.kernels import RBF
    >>> X = np.arange(4.0)[:, None]
    >>> source = KernelSource(RBF(1.0).lower(X), X**2, None, centre=True)
    >>> source.n_rows, source.n_features
    (4, 3)
    """

    in_memory = True

    def __init__(
        self,
        lower: Array,
        y: Array,
        weights: Any = None,
        *,
        centre: bool,
        target_names: tuple[str, ...] | None = None,
        keys: Array | None = None,
    ) -> None:
        self.lower, self.y = lower, y
        n, T = y.shape
        self.weights, self.counts = check_weights(weights, n)
        self.weighted = self.weights is not None
        self.w = np.ones(n) if self.weights is None else self.weights
        self.centre = centre
        self.whole = decompose(lower, self.w, np.flatnonzero(self.w > 0), centre)
        self.g = self.whole.spectrum
        self.n_rows: int | None = n
        self.n_features, self.n_targets = len(self.g), T
        self.feature_names = tuple(f"direction {j}" for j in range(self.n_features))
        self.target_names = target_names or (("y",) if T == 1 else tuple(f"y{t}" for t in range(T)))
        self._keys = keys
        self._position = np.cumsum(self.w > 0) - 1

    def keys(self) -> Array | None:
        """Return the group or time values given at construction."""
        return self._keys

    def left(self, rows: Any) -> Array:
        """Return the rows of U that belong to rows of positive weight, shape (m, r)."""
        return np.asarray(self.whole.directions[self._position[rows]])

    def features(self, rows: Array) -> Array:
        """Return Φ for some rows (indices), shape (m, r)."""
        positive = self.w[rows] > 0
        if positive.all():
            return self.left(rows) * np.sqrt(self.g) / np.sqrt(self.w[rows])[:, None]
        out = np.zeros((len(rows), self.n_features))
        out[positive] = self.left(rows[positive]) * np.sqrt(self.g) / np.sqrt(self.w[rows[positive], None])
        if self.g.any():
            K = symmetric_rows(self.lower, rows[~positive]) - self.column_means
            root = np.sqrt(self.w[self.whole.index])
            out[~positive] = K[:, self.whole.index] @ (root[:, None] * self.whole.directions)
            out[~positive] /= np.sqrt(self.g)
        return out

    @cached_property
    def column_means(self) -> Array:
        """Weighted means of the columns of K, shape (n,), or zeros without an intercept."""
        if not self.centre:
            return np.zeros(len(self.w))
        return np.asarray(symmetric_product(self.lower, self.w[:, None])[:, 0] / self.w.sum())

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows of Φ."""
        n = len(self.y)
        step = max(1, 4 * CHUNK // self.n_features)
        for i in range(0, n, step):
            rows = np.arange(i, min(n, i + step))
            weights = None if self.weights is None else self.weights[rows]
            yield Block(self.features(rows), self.y[rows], weights, i)

    def dual(self, coef: Array, intercept: Array, alpha: Array) -> tuple[Array, Array]:
        """Return (a, b) of f = Σ aⱼ k(xⱼ, ·) + b for coefficients of Φ.

        `coef` (…, r, T), `intercept` and `alpha` (…, T) give shapes (…, n, T) and (…, T). Directions
        that the kernel does not see belong to no function, but to the solution of the dual system.
        """
        whole, index = self.whole, self.whole.index
        root = np.sqrt(self.w[index])[:, None]
        safe = np.sqrt(np.where(self.g > 0, self.g, 1.0))[:, None]
        a = np.zeros((*coef.shape[:-2], len(self.w), coef.shape[-1]))
        inside = whole.directions @ (coef / safe)
        unseen = whole.U[:, : whole.unseen]
        if unseen.shape[1] and np.all(alpha > whole.floor):
            inside = inside + (unseen @ (unseen.T @ (root * self.y[index]))) / alpha[..., None, :]
        a[..., index, :] = root * inside
        return a, intercept - np.einsum("i,...it->...t", self.column_means, a)


@dataclass(frozen=True, eq=False)
class KernelRows:
    """Some rows of a `KernelSource` as a statistic."""

    source: KernelSource
    index: Array

    def merge(self, other: KernelRows) -> KernelRows:
        """Return both sets of rows."""
        return KernelRows(self.source, np.sort(np.concatenate([self.index, other.index])))

    @property
    def y(self) -> Array:
        """Targets, (m, T)."""
        return np.asarray(self.source.y[self.index])

    @property
    def w(self) -> Array:
        """Weights, (m,)."""
        return np.asarray(self.source.w[self.index])

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return int(np.count_nonzero(self.w))

    @property
    def observations(self) -> float:
        """Σw for counts, else `rows`."""
        return self.weight if self.source.counts else float(self.rows)

    @property
    def weight(self) -> float:
        """Σw."""
        return float(self.w.sum())

    @property
    def positive(self) -> Array:
        """The rows of positive weight."""
        return np.asarray(self.index[self.w > 0])

    @property
    def is_whole(self) -> bool:
        """Whether these are all rows that count."""
        return len(self.positive) == len(self.source.whole.index)

    @cached_property
    def x_mean(self) -> Array:
        """Weighted means of Φ, (r,): zero for all rows when they are centred."""
        if self.weight == 0 or (self.is_whole and self.source.centre):
            return np.zeros_like(self.source.g)
        root = np.sqrt(self.source.w[self.positive])
        return np.asarray((root @ self.source.left(self.positive)) * np.sqrt(self.source.g) / self.weight)

    @cached_property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of Φ, (r,)."""
        if self.weight == 0:
            return np.zeros_like(self.source.g)
        share: Any = 1.0  # U has orthonormal columns
        if not self.is_whole:
            left = self.source.left(self.positive)
            share = np.einsum("ij,ij->j", left, left)
        return np.asarray(np.sqrt(np.maximum(share * self.source.g / self.weight - self.x_mean**2, 0.0)))

    @cached_property
    def y_mean(self) -> Array:
        """Weighted means of the targets, (T,)."""
        if self.weight == 0:
            return np.zeros(self.source.n_targets)
        y, w = self.y, self.w
        return np.asarray(y[0] + (w @ (y - y[0])) / self.weight)

    @cached_property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets, (T,)."""
        if self.weight == 0:
            return np.zeros_like(self.y_mean)
        return drop_noise(np.sqrt((self.w @ (self.y - self.y_mean) ** 2) / self.weight), self.y_mean)

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ wᵢ(yᵢ − b − φᵢᵀθ)² for θ (A, r, T) and b (A, T), shape (A, T)."""
        A, r, T = coef.shape
        flat = coef.swapaxes(0, 1).reshape(r, A * T)
        total, y, w = np.zeros((A, T)), self.y, self.w
        step = max(16, CHUNK // max(r, A * T))
        for i in range(0, len(y), step):
            part = slice(i, i + step)
            fitted = (self.source.features(self.index[part]) @ flat).reshape(-1, A, T) + intercept
            total += np.einsum("i,iat->at", w[part], (y[part, None] - fitted) ** 2)
        return total


@dataclass(frozen=True, eq=False)
class KernelState(DualState):
    """All alphas of kernel ridge on some rows; θ are coefficients of the source's Φ.

    For all rows ΦᵀWΦ is diagonal. For a training set S with its own decomposition U_S·diag(g_S)·U_Sᵀ the
    eigenvectors in the space of Φ are B = diag(√g)·U[S]ᵀ·U_S·diag(g_S)^{-½}.
    """

    own: Decomposition | None = None

    def _from_own(self, z: Array) -> Array:
        """Return Bz."""
        rows: KernelRows = self.statistic  # type: ignore[assignment]
        if rows.is_whole:
            return z
        assert self.own is not None
        safe = np.sqrt(np.where(self.g > 0, self.g, 1.0))[:, None]
        moved = self.own.directions @ (z / safe)
        return np.asarray(np.sqrt(rows.source.g)[:, None] * (rows.source.left(rows.positive).T @ moved))

    def _to_own(self, rhs: Array) -> Array:
        """Return Bᵀ rhs."""
        rows: KernelRows = self.statistic  # type: ignore[assignment]
        if rows.is_whole:
            return rhs
        assert self.own is not None
        safe = np.sqrt(np.where(self.g > 0, self.g, 1.0))[:, None]
        moved = rows.source.left(rows.positive) @ (np.sqrt(rows.source.g)[:, None] * rhs)
        return np.asarray((self.own.directions.T @ moved) / safe)

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, r, T)."""
        k, A, T = len(self.g), len(alphas), self.cross.shape[1]
        reduced = self._shrink(alphas).T[:, :, None] * self.cross[:, None, :]
        coef = self._from_own(reduced.reshape(k, A * T))
        return np.ascontiguousarray(coef.reshape(-1, A, T).swapaxes(0, 1))

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (r, T)."""
        return self._from_own(self._shrink(alpha).T * self.cross)

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (ΦᵀWΦ + α_t I)⁻¹ rhs_t, on the range of B where α_t is at the rounding level."""
        down = self._to_own(rhs)
        inside = self._from_own(self._shrink(alpha).T * down)
        if self.statistic.is_whole or np.any(alpha <= self.floor):  # type: ignore[attr-defined]
            return inside
        return inside + (rhs - self._from_own(down)) / alpha

    def outcome(self, alpha: Array, tol: float) -> Outcome:  # noqa: ARG002
        """Return the model at an alpha of its own for each target, refined, with its certificate.

        Residuals are those of the dual system, r = y − b − Ka − αa/w, on the kernel matrix itself.
        """
        rows: KernelRows = self.statistic  # type: ignore[assignment]
        source = rows.source
        coef, b = self.coef_at(alpha), rows.y_mean if self.centre else np.zeros(len(alpha))
        size = np.linalg.norm(rows.y - b, axis=0)
        best: tuple[float, Array, Array, Array] | None = None
        refinements = 0
        for step in range(MOST_REFINEMENTS + 1):
            a, shift = source.dual(coef, b, alpha)
            residual, fitted = dual_residual(source.lower, source.y, source.w, alpha, a, shift)
            index = source.whole.index
            root, left = np.sqrt(source.w[index])[:, None], source.whole.directions
            along = left.T @ (root * residual[index])
            if np.any(alpha <= self.floor):  # then what the kernel does not see is not fitted
                residual[index] = (left @ along) / root
            worst = relative_residual(residual, size)
            if best is not None and worst >= 0.5 * best[0]:
                break
            best, refinements = (worst, coef, a, fitted), step
            coef = coef + self._shrink(alpha).T * (np.sqrt(self.g)[:, None] * along)
        assert best is not None
        worst, coef, a, fitted = best
        condition = max(self.condition(float(v)) for v in alpha)
        certificate = Certificate(
            residual=worst,
            measured_on="rows",
            condition=float(np.sqrt(condition)),
            digits=dual_digits(worst, size, alpha, a, source.w, condition),
            refinements=refinements,
        )
        rss = np.asarray(source.w @ (source.y - fitted) ** 2)
        null = rows.weight * rows.y_scale**2 + (0.0 if self.centre else rows.weight * rows.y_mean**2)
        return Outcome(coef, b, rss, np.asarray(null), certificate)

    def _residuals(self, which: Array, alphas: Array) -> Array:
        """Return y − ŷ (m, A, T) of rows that had no weight in the fit."""
        rows: KernelRows = self.statistic  # type: ignore[assignment]
        if not which.any():
            return np.zeros((0, len(alphas), rows.y.shape[1]))
        coef = self.coef(alphas)
        b = intercepts(rows, coef, self.centre)
        fitted = np.einsum("ij,ajt->iat", rows.source.features(rows.index[which]), coef, optimize=True)
        return np.asarray(rows.y[which][:, None, :] - b - fitted)


@dataclass(frozen=True)
class KernelSolver:
    """One eigendecomposition of the kernel matrix serves every alpha; one more for each training set."""

    name: str = "exact"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[KernelRows]:
        """Return the rows of each atom."""
        source: Any = problem.source
        every = np.arange(source.n_rows)
        if labels is None:
            return [KernelRows(source, every)]
        # The labels of a row depend on its position only.
        label = np.asarray(labels(Block(np.zeros((len(every), 0)), source.y, source.weights, 0)))
        return [KernelRows(source, every[label == atom]) for atom in range(n_atoms)]

    def state(self, rows: KernelRows, form: QuadraticForm, centre: bool) -> KernelState:
        """Diagonalise; the decomposition of all rows is already there."""
        if form.rotation is not None or np.any(form.d != 1):
            raise InputError("kernel ridge takes no penalty but the norm of the kernel's space.")
        source, whole = rows.source, rows.source.whole
        own = whole if rows.is_whole else decompose(source.lower, source.w, rows.positive, centre)
        positive = rows.w > 0
        root = np.sqrt(rows.w[positive])
        y = np.zeros_like(rows.y)
        y[positive] = root[:, None] * (rows.y[positive] - (rows.y_mean if centre else 0.0))
        left, g, outside = own.directions, own.spectrum, own.U[:, : own.unseen]
        if not positive.all():
            left, outside = _spread(left, positive), _spread(outside, positive)
        complete = len(own.g) > 0 and own.unseen == 0
        return KernelState(
            statistic=rows,
            centre=centre,
            basis=np.zeros((source.n_features, 0)),
            g=g,
            d=np.ones(len(g)),
            cross=np.sqrt(g)[:, None] * (left.T @ y),
            rss0=np.sum((outside.T @ y) ** 2, axis=0),
            smallest=float(g[0]) if complete else 0.0,
            floor=own.floor,
            condition_limit=np.inf,
            left=left,
            outside=outside,
            y=y,
            own=own,
        )


def _spread(rows: Array, positive: Array) -> Array:
    out = np.zeros((len(positive), rows.shape[1]))
    out[positive] = rows
    return out
