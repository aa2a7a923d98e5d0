"""Sparse rows as a statistic from which conjugate gradients take products.

Columns are centred implicitly, so that the rows stay sparse.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import on_cores, own_threads
from elltwo.margins import Margins
from elltwo.problem import Problem
from elltwo.solvers.base import Weighted
from elltwo.solvers.null import curvature_at
from elltwo.solvers.row_products import Curvature, Slopes, curved, times

Array = npt.NDArray[Any]

#: Parts that a matrix is cut into for its products, of about as many non-zeros each, and the least of them.
PARTS, LEAST = 16, 1 << 14


class RowParts:
    """A sparse matrix (CSR) whose products with dense ones run on all cores, by parts of its rows.

    The parts are views: nothing is copied.
    """

    def __init__(self, matrix: Any) -> None:
        from scipy import sparse

        starts, count = matrix.indptr, int(matrix.indptr[-1])
        wanted = np.linspace(0, count, max(1, min(PARTS, count // LEAST)) + 1)
        cuts = np.unique([0, *np.searchsorted(starts, wanted[1:-1]), matrix.shape[0]]).tolist()
        self.parts = [
            sparse.csr_matrix(
                (
                    matrix.data[starts[a] : starts[b]],
                    matrix.indices[starts[a] : starts[b]],
                    starts[a : b + 1] - starts[a],
                ),
                shape=(b - a, matrix.shape[1]),
                copy=False,
            )
            for a, b in pairwise(cuts)
        ]

    def squared(self) -> RowParts:
        """Return the matrix with its entries squared."""
        from scipy import sparse

        new = copy(self)
        new.parts = [
            sparse.csr_matrix((part.data**2, part.indices, part.indptr), shape=part.shape, copy=False)
            for part in self.parts
        ]
        return new

    def __matmul__(self, right: Array) -> Array:
        """Return the product with a dense vector or matrix."""
        return np.concatenate(on_cores(lambda part: np.asarray(part @ right), self.parts))


@dataclass(frozen=True, eq=False)
class SparseRows(Weighted):
    """Sparse rows as a statistic: X (n, p) in CSR, y (n, T), w (n,), offset (n, T) or None."""

    X: Any
    y: Array
    w: Array
    offset: Array | None
    counts: bool
    problem: Problem

    def merge(self, other: SparseRows) -> SparseRows:
        """Return both sets of rows, one after the other."""
        from scipy import sparse

        return SparseRows(
            sparse.vstack([self.X, other.X], format="csr"),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.w, other.w]),
            _joined(self.offset, other.offset),
            self.counts,
            self.problem,
        )

    def pick(self, which: Array) -> SparseRows:
        """Return some of the rows."""
        offset = None if self.offset is None else self.offset[which]
        return SparseRows(self.X[which], self.y[which], self.w[which], offset, self.counts, self.problem)

    @cached_property
    def by_rows(self) -> RowParts:
        """X for products."""
        return RowParts(self.X)

    @cached_property
    def transposed(self) -> RowParts:
        """Xᵀ in CSR, whose products gather instead of scatter."""
        return RowParts(self.X.T.tocsr())

    @cached_property
    def squares(self) -> RowParts:
        """Xᵀ with its entries squared."""
        return self.transposed.squared()

    @cached_property
    def margins(self) -> Margins:
        """Means and variances of the columns."""
        return Margins.of(self.X, self.y, self.w, counts=self.counts)

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return self.margins.x_mean

    @property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column."""
        return self.margins.x_scale

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return self.margins.y_mean

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return self.margins.y_scale

    def calm(self) -> AbstractContextManager[None]:
        """Return the context of a whole iteration: products run on all cores."""
        return own_threads()

    @property
    def shifted(self) -> bool:
        """Whether the rows have an offset."""
        return self.offset is not None

    def _eta(self, theta: Array, b: Array) -> Array:
        """Return b + Xθ + offset for θ (p, T) and b (T,), shape (n, T)."""
        eta = (self.by_rows @ theta) + b
        return eta if self.offset is None else eta + self.offset

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ w·dev(y, b + Xθ + o) for θ (A, p, T), b (A, T): shape (A, T), (A, 1) for classes."""
        loss = self.problem.loss
        each = [loss.value(self.y, self._eta(theta, b)) for theta, b in zip(coef, intercept, strict=True)]
        return np.array([2 * np.atleast_1d(self.w @ value) for value in each])

    def at_null(self, b: Array) -> tuple[Array, Array]:
        """Return Σ wℓ' (T,) and the matrix of Σ wℓ'' (T, T) without features."""
        eta = np.broadcast_to(b, self.y.shape)
        return curvature_at(
            self.problem.loss, self.y, eta if self.offset is None else eta + self.offset, self.w
        )

    def slopes(self, theta: Array, b: Array, mean: Array) -> Slopes:
        """Return the slopes at (θ, b) about the means."""
        eta, loss = self._eta(theta, b - mean @ theta), self.problem.loss
        each = loss.gradient(self.y, eta)
        slope = each * self.w[:, None]
        gb = slope.sum(axis=0)
        g = (self.transposed @ slope) - np.outer(mean, gb)
        value = float(np.sum(self.w @ loss.value(self.y, eta)))
        return Slopes(g, gb, np.einsum("ij,ij->j", slope, each), value)

    def curvature(self, theta: Array, b: Array, mean: Array, near: Curvature | None = None) -> Curvature:
        """Return the curvature at (θ, b) about the means; its diagonal is that of one nearby, if any."""
        eta = self._eta(theta, b - mean @ theta)
        h, p = curved(self.problem.loss, self.y, eta, self.w)
        total = h.sum(axis=0)
        if near is None:
            cross, column = self.transposed @ h, mean[:, None]
            diagonal = self.squares @ h - 2 * column * cross + column**2 * total
        else:
            diagonal = near.diagonal

        def apply(v: Array, vb: Array) -> tuple[Array, Array]:
            u = times(h, p, self.w, (self.by_rows @ v) + (vb - mean @ v))
            ub = u.sum(axis=0)
            return (self.transposed @ u) - np.outer(mean, ub), ub

        return Curvature(diagonal, total, apply)


def _joined(first: Array | None, second: Array | None) -> Array | None:
    return None if first is None or second is None else np.concatenate([first, second])


def gather_sparse(problem: Problem, labels: Any, n_atoms: int) -> list[SparseRows]:
    """Return the sparse rows of each atom, the prior in their offset."""
    source: Any = problem.source
    w = np.ones(source.n_rows) if source.weights is None else source.weights
    given = source.given_offset
    offset, y = given, source.y
    if problem.prior is not None:
        own = source.X @ problem.prior_column - problem.origin @ problem.prior_column
        offset = np.broadcast_to(own + (0.0 if given is None else given), y.shape)
    everything = SparseRows(source.X, y, w, offset, source.counts, problem)
    if labels is None:
        return [everything]
    label = np.concatenate([labels(block) for block in source.row_blocks()])
    return [everything.pick(label == atom) for atom in range(n_atoms)]
