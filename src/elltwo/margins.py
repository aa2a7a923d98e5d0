"""Means and spreads of columns, dense and sparse, mergeable: the only ones.

For values v (m, k) with weights w, W = Σw:

    mean = Σ w·v / W        squares = Σ w·(v − mean)²        sd = √(squares / W)

The values are centred before they are squared, so that a mean that is large beside the spread costs no
digits. What rounding left in the mean is taken out once more: of a column that holds one number, however
large, however often and with whatever weights, nothing but rounding noise remains. What is noise is decided
here and nowhere else (`drop_noise`): a column whose spread counts as 0 is constant.

Source: Chan, Golub and LeVeque, 1983, "Algorithms for computing the sample variance".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF

Array = npt.NDArray[Any]

#: A standard deviation below this fraction of the mean is rounding noise: the column is constant.
NOISE = 64 * ROUNDOFF


def mean_and_squares(values: Any, weights: Array | None = None) -> tuple[Array, Array]:
    """Return the weighted means (k,) of the columns, and Σ w(v − mean)² (k,).

    Parameters
    ----------
    values : array, shape (m, k)
        Or a scipy sparse matrix, CSR or CSC, without duplicates.
    weights : array, shape (m,), optional
        Not negative; 1 each if left out. If all are 0, means and squares are 0.

    Examples
    --------
    >>> mean_and_squares(np.array([[1e9], [1e9 + 1], [1e9 + 2]]))
    (array([1.e+09]), array([2.]))
    """
    w = np.ones(values.shape[0]) if weights is None else weights
    W = float(w.sum())
    if W == 0:
        return np.zeros(values.shape[1]), np.zeros(values.shape[1])
    if hasattr(values, "indptr"):
        return _of_sparse(values, w, W)
    mean = (w / W) @ values
    d = values - mean
    left = (w / W) @ d
    squares = np.einsum("ij,ij->j", d, d) if weights is None else np.einsum("i,ij,ij->j", w, d, d)
    return mean + left, np.maximum(squares - W * left**2, 0.0)


def _of_sparse(X: Any, w: Array, W: float) -> tuple[Array, Array]:
    """Return means and squares of sparse columns: the stored values are centred, and each zero adds mean²."""

    def summed(data: Array, each: Array) -> Array:
        return np.asarray(type(X)((data, X.indices, X.indptr), shape=X.shape, copy=False).T @ each)

    stored = summed(np.ones(len(X.data)), np.stack([w, w > 0], axis=1))
    # Where there is no zero, no difference of two sums: its rounding, times mean², would look like a spread.
    full = stored[:, 1] == np.count_nonzero(w)
    empty = np.where(full, 0.0, np.maximum(W - stored[:, 0], 0.0))
    mean = summed(X.data, w) / W
    d = X.data - (mean[X.indices] if X.format == "csr" else np.repeat(mean, np.diff(X.indptr)))
    left = (summed(d, w) - empty * mean) / W
    return mean + left, np.maximum(summed(d * d, w) + empty * mean**2 - W * left**2, 0.0)


def mean_and_deviation(values: Any, weights: Array | None = None) -> tuple[Array, Array]:
    """Return weighted means and population standard deviations (0: constant) of the columns, (k,) each.

    >>> mean_and_deviation(np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 2.0]]), np.array([1.0, 1.0, 0.0]))
    (array([0.1, 2. ]), array([0., 1.]))
    """
    mean, squares = mean_and_squares(values, weights)
    return mean, deviation(squares, mean, float(values.shape[0] if weights is None else weights.sum()))


def deviation(squares: Array, mean: Array, weight: float) -> Array:
    """Return √(squares / weight), 0 where that is rounding noise of the mean, and without any weight."""
    return drop_noise(np.sqrt(squares / weight), mean) if weight > 0 else np.zeros_like(mean)


def drop_noise(scale: Array, mean: Array) -> Array:
    """Return the standard deviations with those at the rounding level of their mean set to 0."""
    return np.where(scale <= NOISE * np.abs(mean), 0.0, scale)


@dataclass(frozen=True)
class Margins:
    """Means and variances of the columns of weighted rows: what moments cost p times less without.

    Attributes
    ----------
    rows : int
        Rows of positive weight.
    observations : float
        Σw if the weights are frequencies, otherwise `rows`.
    weight : float
        W = Σ wᵢ.
    x_mean, y_mean : arrays, shapes (p,) and (T,)
    xx, yy : arrays, shapes (p,) and (T,)
        Σ w(x − x̄)² and Σ w(y − ȳ)².

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.arange(8.0).reshape(4, 2), np.array([[1.0], [2.0], [2.0], [5.0]])
    >>> merged = Margins.of(X[:1], y[:1]).merge(Margins.of(X[1:], y[1:]))
    >>> merged.x_mean, merged.xx
    (array([3., 4.]), array([20., 20.]))
    """

    rows: int
    observations: float
    weight: float
    x_mean: Array
    y_mean: Array
    xx: Array
    yy: Array

    @classmethod
    def of(cls, X: Any, y: Array, weights: Array | None = None, *, counts: bool = False) -> Margins:
        """Return the margins of X (m, p), dense or sparse, y (m, T) and weights (m,)."""
        rows = len(y) if weights is None else int(np.count_nonzero(weights))
        W = float(rows if weights is None else weights.sum())
        x_mean, xx = mean_and_squares(X, weights)
        y_mean, yy = mean_and_squares(y, weights)
        return cls(rows, W if counts else float(rows), W, x_mean, y_mean, xx, yy)

    def merge(self, other: Margins) -> Margins:
        """Return the margins of both sets of rows together; associative up to rounding."""
        W = self.weight + other.weight
        if other.weight == 0 or self.weight == 0:
            return self if other.weight == 0 else other
        share = other.weight / W
        dx, dy = other.x_mean - self.x_mean, other.y_mean - self.y_mean
        between = self.weight * share
        return Margins(
            rows=self.rows + other.rows,
            observations=self.observations + other.observations,
            weight=W,
            x_mean=self.x_mean + share * dx,
            y_mean=self.y_mean + share * dy,
            xx=self.xx + other.xx + between * dx * dx,
            yy=self.yy + other.yy + between * dy * dy,
        )

    @cached_property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features, shape (p,); 0 for a constant column."""
        return deviation(self.xx, self.x_mean, self.weight)

    @cached_property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets, shape (T,)."""
        return deviation(self.yy, self.y_mean, self.weight)
