"""Rows as a statistic of the elastic net: wide dense ones, and sparse ones that stay sparse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block
from elltwo.margins import Margins, mean_and_deviation
from elltwo.solvers.base import Weighted
from elltwo.solvers.dual import Rows

Array = npt.NDArray[Any]

#: Numbers that means and deviations of dense rows are taken of at a time, so that they stay in cache.
CHUNK = 1 << 17
#: Rows of a sparse matrix that labels are asked for at a time.
SPARSE_STEP = 1 << 16


@dataclass(frozen=True, eq=False)
class WideRows(Rows):
    """Dense rows whose means and deviations are taken some columns at a time: no temporary copy of X."""

    @cached_property
    def _x(self) -> tuple[Array, Array]:
        step = max(1, CHUNK // max(1, len(self.w)))
        starts = range(0, self.X.shape[1], step)
        parts = [mean_and_deviation(self.X[:, i : i + step], self.w) for i in starts]
        mean, scale = zip(*parts, strict=True)
        return np.concatenate(mean), np.concatenate(scale)


@dataclass(frozen=True, eq=False)
class SparseRows(Weighted):
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

    @cached_property
    def margins(self) -> Margins:
        """Means and variances of the columns."""
        return Margins.of(self.X, self.y, self.w, counts=self.counts)

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return self.margins.x_mean

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return self.margins.y_mean

    @property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column."""
        return self.margins.x_scale

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return self.margins.y_scale

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ wᵢ(yᵢ − b − xᵢᵀθ)² for θ (A, p, T) and b (A, T), shape (A, T)."""
        return np.stack(
            [self.w @ (self.y - self.X @ c - b) ** 2 for c, b in zip(coef, intercept, strict=True)]
        )


def gather_sparse(source: Any, labels: Any = None, n_atoms: int = 1) -> list[SparseRows]:
    """Return the rows of each atom of a source whose `X` is a sparse matrix, never dense."""
    X, y = source.X, source.y
    if source.given_offset is not None:
        y = y - source.given_offset
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
