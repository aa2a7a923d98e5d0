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
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, cross_product

Array = npt.NDArray[Any]

#: Bytes of the scratch buffer that centred or weighted rows pass through.
BUFFER_BYTES = 1 << 22
#: A column whose mean exceeds this many standard deviations is shifted before it is squared.
#: Without a shift, the variance loses (mean/sd)² roundoffs: at most two digits here.
SHIFT_ABOVE = 8.0
#: A standard deviation below this fraction of the mean is rounding noise: the column is constant.
NOISE = 64 * ROUNDOFF


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
        Σw if the weights are counts, otherwise `rows`.
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
    def of(cls, X: Array, y: Array, weights: Array | None = None, *, counts: bool = False) -> Self:
        """Return the moments of X (m, p), y (m, T) and weights (m,)."""
        scales = _Shift.of(X, y)
        sums = _Sums(scales)
        sums.add(X, y, weights)
        return cls._from_sums(sums, counts)

    @classmethod
    def _from_sums(cls, sums: _Sums, counts: bool) -> Self:
        W = sums.weight
        if W == 0:
            dx, dy = np.zeros_like(sums.x), np.zeros_like(sums.y)
        else:
            dx, dy = sums.x / W, sums.y / W
        gram = sums.gram - W * np.outer(dx, dx)
        np.fill_diagonal(gram, np.maximum(gram.diagonal(), 0.0))
        return cls(
            rows=sums.rows,
            observations=W if counts else float(sums.rows),
            weight=W,
            x_mean=sums.shift.x + dx,
            y_mean=sums.shift.y + dy,
            gram=gram,
            cross=sums.cross - W * np.outer(dx, dy),
            yy=np.maximum(sums.yy - W * dy * dy, 0.0),
        )

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows together; associative up to rounding."""
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
            gram=self.gram + other.gram + between * np.outer(dx, dx),
            cross=self.cross + other.cross + between * np.outer(dx, dy),
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
        return self._scale(self.gram.diagonal(), self.x_mean)

    @cached_property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets, shape (T,)."""
        return self._scale(self.yy, self.y_mean)

    def _scale(self, squares: Array, mean: Array) -> Array:
        return drop_noise(np.sqrt(squares / self.weight), mean) if self.weight > 0 else np.zeros_like(mean)

    def about(self, centre: bool) -> tuple[Array, Array, Array]:
        """Return (gram, cross, yy) about the means, or about zero if not `centre`."""
        if centre:
            varies = self.x_scale > 0
            if varies.all():
                return self.gram, self.cross, self.yy
            return self.gram * varies * varies[:, None], self.cross * varies[:, None], self.yy
        W, mx, my = self.weight, self.x_mean, self.y_mean
        return self.gram + W * np.outer(mx, mx), self.cross + W * np.outer(mx, my), self.yy + W * my * my

    def sse(self, coef: Array, intercept: Array) -> Array:
        """Return Σ wᵢ (yᵢ − b − xᵢᵀθ)² for θ (A, p, T) and b (A, T), shape (A, T), without the rows.

        With d = ȳ − b − x̄ᵀθ: SSE = yy − 2θᵀcross + θᵀ gram θ + W d².
        """
        gap = self.y_mean - intercept - np.einsum("j,ajt->at", self.x_mean, coef)
        linear = np.einsum("jt,ajt->at", self.cross, coef)
        quadratic = np.einsum("ajt,ajt->at", coef, np.einsum("ij,ajt->ait", self.gram, coef, optimize=True))
        return np.asarray(np.maximum(self.yy - 2 * linear + quadratic + self.weight * gap * gap, 0.0))


def drop_noise(scale: Array, mean: Array) -> Array:
    """Return the standard deviations with those at the rounding level of their mean set to 0."""
    return np.where(scale <= NOISE * np.abs(mean), 0.0, scale)


@dataclass(frozen=True)
class _Shift:
    """Constants subtracted from the columns before squaring, near their means when that matters."""

    x: Array
    y: Array
    needed: bool

    @classmethod
    def of(cls, X: Array, y: Array) -> Self:
        head = np.asarray(X[: max(1, BUFFER_BYTES // (8 * max(1, X.shape[1])))], dtype=np.float64)
        mean = head.mean(axis=0)
        needed = bool(np.any(np.abs(mean) > SHIFT_ABOVE * head.std(axis=0)))
        return cls(x=mean if needed else np.zeros_like(mean), y=y[: len(head)].mean(axis=0), needed=needed)


class _Sums:
    """Running sums about a fixed shift; the only mutable state of the pass."""

    def __init__(self, shift: _Shift) -> None:
        p, T = len(shift.x), len(shift.y)
        self.shift = shift
        self.rows, self.weight = 0, 0.0
        self.gram, self.cross = np.zeros((p, p)), np.zeros((p, T))
        self.x, self.y, self.yy = np.zeros(p), np.zeros(T), np.zeros(T)

    def add(self, X: Array, y: Array, weights: Array | None) -> None:
        """Add rows; a buffer of bounded size is used when they must be shifted, weighted or converted."""
        direct = X.itemsize in X.strides and X.dtype == np.float64  # BLAS takes it as it lies in memory
        if weights is None and not self.shift.needed and direct:
            self._add(X, y - self.shift.y, np.ones(len(y)))
            self.rows += len(y)
            return
        step = max(1, BUFFER_BYTES // (8 * max(1, X.shape[1])))
        for i in range(0, len(y), step):
            part = slice(i, i + step)
            Z, e = X[part] - self.shift.x, y[part] - self.shift.y
            if Z.dtype != np.float64:  # pragma: no cover - float32 minus float64 is float64
                Z = Z.astype(np.float64)
            root = np.ones(len(e)) if weights is None else np.sqrt(weights[part])
            if weights is not None:
                Z *= root[:, None]
                e = e * root[:, None]
            self._add(Z, e, root)
            self.rows += int(np.count_nonzero(root))

    def _add(self, Z: Array, e: Array, root: Array) -> None:
        self.gram += Z.T @ Z  # NumPy hands a product with its own transpose to BLAS syrk: half the work
        self.cross += cross_product(Z, e)
        self.x += root @ Z
        self.y += root @ e
        self.yy += np.einsum("it,it->t", e, e)
        self.weight += float(root @ root)


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
            shift = _Shift.of(block.X, block.y)
            sums = [_Sums(shift) for _ in range(n_atoms)]
        if labels is None:
            sums[0].add(block.X, block.y, block.weights)
        else:
            _add_by_label(sums, block, labels(block))
    return [Moments._from_sums(s, counts) for s in sums]


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
