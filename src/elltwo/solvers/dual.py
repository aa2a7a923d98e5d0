"""More features than rows: work with the n × n matrix of inner products between rows.

With Z̃ = M√W·(X)P^{-½} (rows weighted, projected on the complement of the unpenalised part,
columns scaled) and K = Z̃Z̃ᵀ = U·diag(g)·Uᵀ, residuals and leave-one-out divisors are sums over
the columns of U, and the basis B = P^{-½}Z̃ᵀU·g^{-½} takes any solution back to p dimensions
(Saunders, Gammerman and Vovk, 1998, "Ridge regression learning algorithm in dual variables").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, accurate_svd, eigh_descending
from elltwo.margins import mean_and_deviation
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import (
    UNDETERMINED,
    Influence,
    Split,
    Weighted,
    intercepts,
    leave_out_weight,
    rank_cutoff,
)
from elltwo.solvers.orthogonal import free_part
from elltwo.solvers.spectral import Spectral

Array = npt.NDArray[Any]
AnyRows = TypeVar("AnyRows", bound="Rows")


@dataclass(frozen=True, eq=False)
class Rows(Weighted):
    """The rows themselves as a statistic, for n < p: (n, p), (n, T), (n,)."""

    X: Array
    y: Array
    w: Array
    counts: bool
    exact: bool = False
    offset: Array | None = None

    def merge(self, other: Self) -> Self:
        """Return both sets of rows, one after the other."""
        return _joined([self, other])

    @cached_property
    def _x(self) -> tuple[Array, Array]:
        return mean_and_deviation(self.X, self.w)

    @cached_property
    def _y(self) -> tuple[Array, Array]:
        return mean_and_deviation(self.y, self.w)

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return self._x[0]

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return self._y[0]

    @property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column."""
        return self._x[1]

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return self._y[1]

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ wᵢ(yᵢ − b − xᵢᵀθ)² for θ (A, p, T) and b (A, T), shape (A, T)."""
        fitted = np.einsum("ij,ajt->ait", self.X, coef, optimize=True) + intercept[:, None, :]
        return np.asarray(np.einsum("i,ait->at", self.w, (self.y - fitted) ** 2))


def gather_rows(problem: Problem, exact: bool, labels: Any = None, n_atoms: int = 1) -> list[Rows]:
    """Return the rows of each atom."""
    counts = problem.source.counts
    parts: list[list[Rows]] = [[] for _ in range(n_atoms)]
    for block in problem.blocks():
        label = np.zeros(len(block.y), dtype=np.int64) if labels is None else labels(block)
        w = np.ones(len(block.y)) if block.weights is None else block.weights
        for atom, part in enumerate(parts):
            chosen: Any = label == atom
            if chosen.all():
                chosen = slice(None)  # a view: no copy of X
            offset = None if block.offset is None else block.offset[chosen]
            part.append(Rows(block.X[chosen], block.y[chosen], w[chosen], counts, exact, offset))
    return [_joined(part) for part in parts if part]


def _joined(parts: list[AnyRows]) -> AnyRows:
    if len(parts) == 1:
        return parts[0]
    X, y, w = (np.concatenate(a) for a in zip(*((r.X, r.y, r.w) for r in parts), strict=True))
    offset = None if parts[0].offset is None else np.concatenate([r.offset for r in parts])
    return replace(parts[0], X=X, y=y, w=w, offset=offset)


@dataclass(frozen=True, eq=False)
class DualState(Spectral):
    """A `Spectral` that also knows its rows: left singular vectors and the fixed part's basis.

    Attributes
    ----------
    left : array, shape (n, r)
        Left singular vectors of the penalised part.
    outside : array, shape (n, m)
        Orthonormal basis of what no coefficient can explain: the complement of `left` and of √w·[1, X_free].
    y : array, shape (n, T)
        √w·(y − ȳ).
    """

    left: Array | None = None
    outside: Array | None = None
    y: Array | None = None
    split: Split | None = None
    through: Array | None = None
    vectors: Array | None = None

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (G + α_t P)⁻¹ rhs_t; beyond the range of B, where G vanishes, that is P⁻¹ rhs_t/α_t."""
        assert self.split is not None
        assert self.through is not None
        assert self.vectors is not None
        inside = super().solve(rhs, alpha)
        if np.any(alpha <= self.floor):
            return inside
        turned = self.split.rotate(rhs.T).T
        held = (turned[self.split.held] - self.through.T @ turned[self.split.free]) / self.split.root[:, None]
        beyond = (held - self.vectors @ (self.vectors.T @ held)) / alpha
        no_own = np.zeros((len(self.split.free), 0))
        return inside + self.split.basis(no_own, self.through, beyond)

    def influence(self, problem: Problem, alphas: Array) -> Iterator[Influence]:
        """Yield residuals and divisors without cancellation, as sums over U of α/(g + α) and over N of 1.

        When the rows' whole space is used up (N is empty) the common factor α is
        taken out of both, so that the ratio has its limit at α → 0.
        """
        assert self.left is not None
        assert self.outside is not None
        assert self.y is not None
        U, N, y = self.left, self.outside, self.y
        w = self.statistic.w  # type: ignore[attr-defined]
        root, positive = np.sqrt(np.where(w > 0, w, 1.0)), w > 0
        factor = self._shrink(alphas)[:, self.d > 0]
        keep = U**2 @ factor.T
        scale = 1.0 / np.maximum(alphas, np.finfo(np.float64).tiny)
        if N.shape[1] > 0:
            factor, keep, scale = factor * alphas[:, None], keep * alphas, np.ones(len(alphas))
            keep += np.sum(N**2, axis=1)[:, None]
            keep[keep < UNDETERMINED] = np.nan
        share = (leave_out_weight(problem, w) / np.where(positive, w, 1.0))[:, None]
        keep = np.where(positive[:, None], (1 - share) * scale + share * keep, 1.0)
        unseen = self._residuals(~positive, alphas)
        for t in range(y.shape[1]):
            along = U.T @ y[:, t]
            residual = U @ (factor * along).T
            if N.shape[1] > 0:
                residual += (N @ (N.T @ y[:, t]))[:, None]
            residual /= root[:, None]
            residual[~positive] = unseen[:, :, t]
            yield Influence(slice(0, len(w)), slice(t, t + 1), residual[:, :, None], keep, w)

    def _residuals(self, which: Array, alphas: Array) -> Array:
        """Return y − ŷ (m, A, T) of rows that had no weight in the fit."""
        rows: Any = self.statistic
        coef = self.coef(alphas) if which.any() else np.zeros((len(alphas), rows.X.shape[1], rows.y.shape[1]))
        b = intercepts(rows, coef, self.centre)
        return np.asarray(
            (rows.y[which] - b[:, None, :]).swapaxes(0, 1) - (rows.X[which] @ coef).swapaxes(0, 1)
        )


def from_rows(rows: Rows, form: QuadraticForm, centre: bool) -> DualState:
    """Diagonalise through the n × n matrix K (or an SVD of the rows when `exact`)."""
    split = Split.of(form)
    root = np.sqrt(rows.w)
    mean = rows.x_mean if centre else np.zeros_like(rows.x_mean)
    varies = rows.x_scale > 0 if centre else np.ones(len(mean), dtype=bool)
    Z = split.rotate((rows.X - mean) * varies) * root[:, None]
    ones = (root / np.sqrt(rows.weight))[:, None] if centre else np.zeros((len(root), 0))
    y = root[:, None] * (rows.y - (rows.y_mean if centre else 0.0))
    level = split.level(np.linalg.norm((rows.X - mean) * varies * root[:, None], axis=0))
    own, free = free_part(Z[:, split.free], level)
    through = own @ (free.T @ Z[:, split.held])
    fixed = np.hstack([ones, free])
    scaled = (Z[:, split.held] - free @ (free.T @ Z[:, split.held])) / split.root
    if rows.exact:
        U, s, right = accurate_svd(scaled)
        g = s**2
    else:
        g, U = eigh_descending(scaled @ scaled.T)
    largest = float(g[0]) if len(g) else 0.0
    room = int(np.count_nonzero(root)) - fixed.shape[1]
    floor = rank_cutoff(max(scaled.shape), largest, squared=not rows.exact)
    keep = g > floor
    keep[max(room, 0) :] = False
    g, U = g[keep], U[:, keep]
    vectors = right[keep].T if rows.exact else scaled.T @ (U / np.sqrt(g))
    U, outside = _orthonormal(fixed, U, root > 0)
    along = np.vstack([free.T @ y, U.T @ y])
    size = np.concatenate([np.ones(own.shape[1]), g])
    return DualState(
        statistic=rows,
        centre=centre,
        basis=split.basis(own, through, vectors),
        g=size,
        d=np.concatenate([np.zeros(own.shape[1]), np.ones(len(g))]),
        cross=np.sqrt(size)[:, None] * along,
        rss0=np.sum((outside.T @ y) ** 2, axis=0),
        smallest=float(g[-1]) if len(g) and (rows.exact or len(g) == min(room, len(split.held))) else 0.0,
        floor=floor,
        unresolved=int(np.count_nonzero(level)) - own.shape[1],
        condition_limit=np.inf if rows.exact else 1e-2 / ROUNDOFF,
        left=U,
        outside=outside,
        y=y,
        split=split,
        through=through,
        vectors=vectors,
    )


def _orthonormal(fixed: Array, U: Array, positive: Array) -> tuple[Array, Array]:
    """Return U made exactly orthogonal to `fixed`, and a basis of the rest of the rows of positive weight.

    Directions of small singular values carry rounding noise that need not be orthogonal to the intercept.
    """
    inside, q, k = np.flatnonzero(positive), fixed.shape[1], fixed.shape[1] + U.shape[1]
    Q, R = np.linalg.qr(np.hstack([fixed, U])[inside], mode="complete")
    spread = np.zeros((len(positive), len(inside)))
    spread[inside] = Q
    return spread[:, q:k] * np.sign(R.diagonal()[q:k]), spread[:, k:]


@dataclass(frozen=True)
class DualSolver:
    """One eigendecomposition of the n × n matrix of inner products, for p > n."""

    name: str = "dual"
    exact: bool = False

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[Rows]:
        """Return the rows of each atom."""
        return gather_rows(problem, self.exact, labels, n_atoms)

    def state(self, rows: Rows, form: QuadraticForm, centre: bool) -> DualState:
        """Diagonalise in n dimensions."""
        return from_rows(rows, form, centre)
