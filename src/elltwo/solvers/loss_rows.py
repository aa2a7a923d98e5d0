"""Rows in memory as a statistic for any loss: sets of rows share X and differ in their weights.

A loss other than squared error has no moments that hold all there is to know, and an L1 path reads the rows
many times. A training set is the rows with weight 0 outside it, so that no fold copies X; sparse X stays so.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import one_blas_thread
from elltwo.data.base import Block
from elltwo.data.memory import MemorySource
from elltwo.margins import Margins, deviation, drop_noise
from elltwo.problem import Problem

Array = npt.NDArray[Any]

#: Elements of the largest temporary array in a pass over the rows.
CHUNK = 1 << 20
#: Elements of X below which one core is enough.
SMALL = 1 << 20
#: Rows that tell where columns lie, and standard deviations from 0 beyond which they are moved there.
SAMPLE, FAR = 4096, 100.0


@dataclass(frozen=True, eq=False)
class LossRows:
    """Rows of positive weight w.

    Attributes
    ----------
    problem : Problem
    X : array (n, p), or scipy sparse matrix in CSC form
        The features less `origin`.
    y : array, shape (n, T)
    w : array, shape (n,)
        0 for rows that do not belong to the set.
    offset : array, shape (n, T), or None
    origin : array, shape (p,)
        0, unless columns lie so far from 0 that sums over them would lose digits.
    """

    problem: Problem
    X: Any
    y: Array
    w: Array
    offset: Array | None
    origin: Array

    def merge(self, other: LossRows) -> LossRows:
        """Return the rows of both sets, which have none in common."""
        return replace(self, w=self.w + other.w)

    @property
    def sparse(self) -> bool:
        """Whether X is a sparse matrix."""
        return hasattr(self.X, "tocsc")

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return int(np.count_nonzero(self.w))

    @property
    def observations(self) -> float:
        """Σw for frequencies, else `rows`."""
        return self.weight if self.problem.source.counts else float(self.rows)

    @property
    def weight(self) -> float:
        """Σw."""
        return float(self.w.sum())

    @cached_property
    def margins(self) -> Margins:
        """Means and variances of the columns, those of X about the origin; of dense rows some at a time."""
        step = len(self.w) if self.sparse else max(16, CHUNK // max(1, self.X.shape[1]))
        parts = (slice(i, i + step) for i in range(0, len(self.w), step))
        counts = self.problem.source.counts
        return reduce(
            Margins.merge, (Margins.of(self.X[p], self.y[p], self.w[p], counts=counts) for p in parts)
        )

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return self.margins.x_mean + self.origin

    @cached_property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column."""
        return deviation(self.margins.xx, self.x_mean, self.weight)

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return self.margins.y_mean

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return self.margins.y_scale

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ w·dev(y, b + Xθ + o) for θ (A, p, T) and b (A, T), shape (A, T)."""
        A, _, T = coef.shape
        inside = np.flatnonzero(self.w)
        w, total = self.w[inside], np.zeros((A, T))
        step = max(1, CHUNK // max(1, len(self.w)))
        for t in range(T):
            used = np.flatnonzero(coef[:, :, t].any(axis=0))
            columns = self.columns(used)
            y = self.y[inside, t, None]
            for i in range(0, A, step):
                part = slice(i, i + step)
                own = coef[part][:, used, t].T
                eta = np.asarray(columns @ own)[inside] + (intercept[part, t] + self.origin[used] @ own)
                if self.offset is not None:
                    eta += self.offset[inside, t, None]
                total[part, t] = 2 * (w @ self.problem.loss.value(y, eta))
        return total

    def calm(self) -> AbstractContextManager[Any]:
        """Return the context of a path: few rows are done sooner on one thread, without others that spin."""
        return one_blas_thread() if self.X.shape[0] * self.X.shape[1] < SMALL else nullcontext()

    def columns(self, features: Array) -> Any:
        """Return some columns of X; X itself if these are all."""
        return self.X if len(features) == self.X.shape[1] else self.X[:, features]


def gather_loss_rows(problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[LossRows]:
    """Return the rows of each atom; dense float64 rows in memory, and sparse ones, are not copied."""
    whole, label = _in_memory(problem, labels)
    if labels is None:
        return [whole]
    return [replace(whole, w=np.where(label == k, whole.w, 0.0)) for k in range(n_atoms)]


def _in_memory(problem: Problem, labels: Any) -> tuple[LossRows, Array]:
    """Return all rows, and the atom of each."""
    source = problem.source
    if isinstance(source, MemorySource):
        if hasattr(source.X, "tocsc"):
            X = source.X.tocsc().astype(np.float64)
            if not np.isfinite(X.data).all():
                raise source.why_not_finite()
        else:
            X = source.dense(slice(None))
        blocks = [Block(X, source.y, source.weights, 0, source.given_offset)]
    else:
        blocks = list(source.blocks())
        X = blocks[0].X if len(blocks) == 1 else np.concatenate([block.X for block in blocks])
        X = X.astype(np.float64, copy=False)
    label = np.concatenate([np.zeros(len(b.y)) if labels is None else labels(b) for b in blocks])
    y = np.concatenate([block.y for block in blocks])
    w = np.concatenate([np.ones(len(b.y)) if b.weights is None else b.weights for b in blocks])
    offset = None
    if blocks[0].offset is not None:
        offset = np.concatenate([np.broadcast_to(b.offset, b.y.shape) for b in blocks])  # type: ignore[arg-type]
    if offset is not None and problem.squared:
        y, offset = y - offset, None
    X, origin = _near(X, problem.fit_intercept)
    return LossRows(problem, X, y, w, offset, origin), label


def _near(X: Any, centre: bool) -> tuple[Any, Array]:
    """Return X and 0, or a copy of X about its first rows' means if these are far from 0, and those means."""
    origin = np.zeros(X.shape[1])
    if centre and not hasattr(X, "tocsc"):
        first = X[:SAMPLE]
        mean = first.mean(axis=0)
        spread = drop_noise(first.std(axis=0), mean)
        if np.any((np.abs(mean) > FAR * spread) & (spread > 0)):
            return X - mean, mean
    return X, origin
