"""Mergeable sufficient statistics of weighted rows: means and centred second moments.

For rows xᵢ (p), yᵢ (T) with weights wᵢ, W = Σw and means x̄, ȳ:

    gram  = Σ wᵢ (xᵢ − x̄)(xᵢ − x̄)ᵀ        (p, p)
    cross = Σ wᵢ (xᵢ − x̄)(yᵢ − ȳ)ᵀ        (p, T)
    yy    = Σ wᵢ (yᵢ − ȳ)²                 (T,)

Streaming, distribution, cross-validation and online updating all merge such moments
(Chan, Golub and LeVeque, 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from elltwo.array import cross_product
from elltwo.margins import NOISE, deviation

Array = npt.NDArray[Any]

#: Bytes of the scratch buffer that centred or weighted rows pass through.
BUFFER_BYTES = 1 << 22
#: Rows that the first shift is chosen from.
HEAD_ROWS = 256
#: A column whose mean exceeds this many standard deviations is shifted before it is squared.
#: Without a shift, the variance loses (mean/sd)² roundoffs: at most two digits here.
SHIFT_ABOVE = 8.0


class RowBlock(Protocol):
    """What `gather` reads of a block of rows."""

    @property
    def X(self) -> Array:
        """Features, shape (m, p)."""
        ...

    @property
    def y(self) -> Array:
        """Targets, shape (m, T)."""
        ...

    @property
    def weights(self) -> Array | None:
        """Row weights, shape (m,), or None."""
        ...

    @property
    def start(self) -> int:
        """Position of the first row."""
        ...


@dataclass(frozen=True)
class Moments:
    """Means and centred second moments of weighted rows.

    Attributes
    ----------
    rows : int
        Rows of positive weight.
    observations : float
        Σw if the weights are frequencies, otherwise `rows`.
    weight : float
        W = Σ wᵢ.
    x_mean, y_mean : arrays, shapes (p,) and (T,)
    gram, cross, yy : arrays, shapes (p, p), (p, T) and (T,)
        Centred second moments.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.arange(8.0).reshape(4, 2), np.array([[1.0], [2.0], [2.0], [5.0]])
    >>> whole = Moments.of(X, y)
    >>> merged = Moments.of(X[:1], y[:1]).merge(Moments.of(X[1:], y[1:]))
    >>> bool(np.allclose(whole.gram, merged.gram))
    True
    """

    rows: int
    observations: float
    weight: float
    x_mean: Array
    y_mean: Array
    gram: Array
    cross: Array
    yy: Array

    @classmethod
    def of(cls, X: Array, y: Array, weights: Array | None = None, *, counts: bool = False) -> Moments:
        """Return the moments of X (m, p), y (m, T) and weights (m,)."""
        sums = _Sums(X.shape[1], y.shape[1], counts)
        sums.add(X, y, weights)
        return sums.moments()

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows together; associative up to rounding.

        The arrays may also be tensors, all on one device.
        """
        W = self.weight + other.weight
        if other.weight == 0 or self.weight == 0:
            return self if other.weight == 0 else other
        share = other.weight / W
        dx, dy = other.x_mean - self.x_mean, other.y_mean - self.y_mean
        between = self.weight * share
        return Moments(
            rows=self.rows + other.rows,
            observations=self.observations + other.observations,
            weight=W,
            x_mean=self.x_mean + share * dx,
            y_mean=self.y_mean + share * dy,
            gram=self.gram + other.gram + between * (dx[:, None] * dx),
            cross=self.cross + other.cross + between * (dx[:, None] * dy),
            yy=self.yy + other.yy + between * dy * dy,
        )

    def less(self, prior: Array, origin: Array) -> Moments:
        """Return the moments of the same rows with y − (X − origin)θ₀ in place of y, θ₀ as (p, 1)."""
        moved = self.gram @ prior
        return replace(
            self,
            y_mean=self.y_mean - (self.x_mean - origin) @ prior,
            cross=self.cross - moved,
            yy=np.maximum(self.yy - 2 * (prior.T @ self.cross)[0] + (prior.T @ moved)[0], 0.0),
        )

    @cached_property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the columns, shape (p,); 0 for a constant column.

        A deviation that is rounding noise of the mean counts as 0.
        """
        return deviation(self.gram.diagonal(), self.x_mean, self.weight)

    @cached_property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets, shape (T,)."""
        return deviation(self.yy, self.y_mean, self.weight)

    def about(self, centre: bool) -> tuple[Array, Array, Array]:
        """Return (gram, cross, yy) about the means, or about zero if not `centre`."""
        if centre:
            varies = self.x_scale > 0
            if varies.all():
                return self.gram, self.cross, self.yy
            return self.gram * varies * varies[:, None], self.cross * varies[:, None], self.yy
        W, mx, my = self.weight, self.x_mean, self.y_mean
        return self.gram + W * np.outer(mx, mx), self.cross + W * np.outer(mx, my), self.yy + W * my * my

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ wᵢ (yᵢ − b − xᵢᵀθ)² for θ (A, p, T) and b (A, T), shape (A, T), without the rows.

        With d = ȳ − b − x̄ᵀθ: SSE = yy − 2θᵀcross + θᵀ gram θ + W d².
        """
        gap = self.y_mean - intercept - np.einsum("j,ajt->at", self.x_mean, coef)
        linear = np.einsum("jt,ajt->at", self.cross, coef)
        quadratic = np.einsum("ajt,ajt->at", coef, np.einsum("ij,ajt->ait", self.gram, coef, optimize=True))
        return np.asarray(np.maximum(self.yy - 2 * linear + quadratic + self.weight * gap * gap, 0.0))


class _Sums:
    """Running sums about a shift near the current rows; the only mutable state of the pass.

    Squares are summed about `shift`. A slice of rows whose mean strays from it by more than SHIFT_ABOVE
    standard deviations starts new sums about its own mean, and the old ones are merged into `done`: so
    the variance never loses more than two digits, however the rows drift.
    """

    def __init__(self, p: int, n_targets: int, counts: bool) -> None:
        self.counts = counts
        self.done: Moments | None = None
        self.x_shift, self.y_shift = np.zeros(p), np.zeros(n_targets)
        self._start()

    def _start(self) -> None:
        p, T = len(self.x_shift), len(self.y_shift)
        self.rows, self.weight = 0, 0.0
        self.gram, self.cross = np.zeros((p, p)), np.zeros((p, T))
        self.x, self.y, self.yy = np.zeros(p), np.zeros(T), np.zeros(T)

    def add(self, X: Array, y: Array, weights: Array | None) -> None:
        """Add rows; a buffer of bounded size is used when they must be shifted, weighted or converted."""
        direct = X.itemsize in X.strides and X.dtype == np.float64  # BLAS takes it as it lies in memory
        whole = weights is None and direct and not self.x_shift.any()
        step = max(1, BUFFER_BYTES // (8 * max(1, X.shape[1])))
        if self.weight == 0 and self.done is None:
            head = slice(0, HEAD_ROWS)
            self._aim(X[head], y[head], None if weights is None else weights[head])
            whole = whole and not self.x_shift.any()
        step = len(y) if whole else step
        for i in range(0, len(y), step):
            part = slice(i, i + step)
            w = None if weights is None else weights[part]
            self._add(X[part], y[part], w)

    def _add(self, X: Array, y: Array, w: Array | None) -> None:
        """Add a slice, about a new shift if the present one is too far from its means."""
        if w is not None and not w.any():
            return
        sums = self._slice(X, y, w)
        weight, x, squares, e, yy = sums[0], sums[1], sums[2].diagonal(), sums[3], sums[5]
        if self._strays(weight, x, squares, self.x, self.gram.diagonal(), self.x_shift) or self._strays(
            weight, e, yy, self.y, self.yy, self.y_shift
        ):
            self._finish()
            self.x_shift, self.y_shift = self.x_shift + x / weight, self.y_shift + e / weight
            self._start()
            sums = self._slice(X, y, w)
        self.rows += len(y) if w is None else int(np.count_nonzero(w))
        self.weight += sums[0]
        self.x += sums[1]
        self.gram += sums[2]
        self.y += sums[3]
        self.cross += sums[4]
        self.yy += sums[5]

    def _slice(self, X: Array, y: Array, w: Array | None) -> tuple[Any, ...]:
        """Return Σw, Σwz, Σwzzᵀ, Σwe, Σwzeᵀ, Σwe² of a slice, with z = x − shift and e = y − shift."""
        Z = X - self.x_shift if self.x_shift.any() or X.dtype != np.float64 else X
        e = y - self.y_shift
        root = np.ones(len(e)) if w is None else np.sqrt(w)
        if w is not None:
            Z, e = Z * root[:, None], e * root[:, None]
        # NumPy hands a product with its own transpose to BLAS syrk: half the work.
        return (
            float(root @ root),
            root @ Z,
            Z.T @ Z,
            root @ e,
            cross_product(Z, e),
            np.einsum("it,it->t", e, e),
        )

    def _aim(self, X: Array, y: Array, w: Array | None) -> None:
        """Choose the first shift from the first rows, so that their products need not be made twice."""
        root = np.ones(len(y)) if w is None else np.sqrt(w)
        weight = float(root @ root)
        if weight == 0:
            return
        Z, e = X * root[:, None], y * root[:, None]
        x, squares = root @ Z, np.einsum("ij,ij->j", Z, Z)
        if _far(weight, x, squares).any():
            self.x_shift = x / weight
        self.y_shift = (root @ e) / weight

    def _strays(self, weight: float, s: Array, ss: Array, total: Array, squares: Array, shift: Array) -> bool:
        """Return whether a slice's means are far from the shift, for its spread and that of earlier rows."""
        far = _far(weight, s, ss)
        if not far.any():
            return False
        far &= np.abs(s / weight) > NOISE * np.abs(shift)
        if self.weight > 0:
            variance = np.maximum(squares / self.weight - (total / self.weight) ** 2, 0.0)
            far &= np.abs(s / weight) > SHIFT_ABOVE * np.sqrt(variance)
        return bool(far.any())

    def _finish(self) -> None:
        """Merge the sums so far into `done`."""
        if self.weight > 0:
            now = self._moments()
            self.done = now if self.done is None else self.done.merge(now)

    def moments(self) -> Moments:
        """Return the moments of all rows added."""
        now = self._moments()
        return now if self.done is None else self.done.merge(now)

    def _moments(self) -> Moments:
        W = self.weight
        dx, dy = (self.x / W, self.y / W) if W > 0 else (np.zeros_like(self.x), np.zeros_like(self.y))
        gram = self.gram - W * np.outer(dx, dx)
        np.fill_diagonal(gram, np.maximum(gram.diagonal(), 0.0))
        return Moments(
            rows=self.rows,
            observations=W if self.counts else float(self.rows),
            weight=W,
            x_mean=self.x_shift + dx,
            y_mean=self.y_shift + dy,
            gram=gram,
            cross=self.cross - W * np.outer(dx, dy),
            yy=np.maximum(self.yy - W * dy * dy, 0.0),
        )


def _far(weight: float, s: Array, ss: Array) -> Array:
    """Return where |mean| > SHIFT_ABOVE·sd, from Σw, Σwz and Σwz²: without a root or a division."""
    return (1 + SHIFT_ABOVE**2) * s * s > SHIFT_ABOVE**2 * weight * ss


def gather(
    blocks: Iterable[RowBlock],
    *,
    counts: bool = False,
    labels: Callable[[RowBlock], Array] | None = None,
    n_atoms: int = 1,
) -> list[Moments]:
    """Return the moments of each atom of rows in one pass.

    Parameters
    ----------
    blocks : iterable of blocks
        The rows.
    counts : bool
        Whether weights count observations.
    labels : callable block -> int array (m,), optional
        The atom of each row, in 0 … n_atoms − 1; a negative label leaves the row out.
    n_atoms : int
        Number of atoms.
    """
    sums: list[_Sums] = []
    for block in blocks:
        if not sums:
            sums = [_Sums(block.X.shape[1], block.y.shape[1], counts) for _ in range(n_atoms)]
        if labels is None:
            sums[0].add(block.X, block.y, block.weights)
        else:
            _add_by_label(sums, block, labels(block))
    return [s.moments() for s in sums]


def _add_by_label(sums: list[_Sums], block: RowBlock, label: Array) -> None:
    """Add each run of equal labels as a slice, or gather rows by label when the runs are short."""
    changes = np.flatnonzero(np.diff(label)) + 1
    if len(changes) <= 4 * len(sums):
        edges = [0, *changes.tolist(), len(label)]
        runs: list[tuple[int, Any]] = [(int(label[a]), slice(a, b)) for a, b in pairwise(edges) if b > a]
    else:
        order = np.argsort(label, kind="stable")
        edges = np.searchsorted(label[order], np.arange(len(sums) + 1)).tolist()
        runs = [(k, order[a:b]) for k, (a, b) in enumerate(pairwise(edges)) if b > a]
    for atom, rows in runs:
        if atom >= 0:
            weights = None if block.weights is None else block.weights[rows]
            sums[atom].add(_take(block.X, rows), block.y[rows], weights)


def _take(X: Array, rows: Any) -> Array:
    """Return the rows of X in the memory order of X."""
    if isinstance(rows, slice) or X.flags.c_contiguous:
        return np.asarray(X[rows])
    return np.asarray(np.take(X.T, rows, axis=1).T)
