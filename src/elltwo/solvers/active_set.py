"""The features that are in, with the inverse of their Gram matrix, updated as they come and go.

On the active set S with signs s the elastic net is linear, u = (Z_SᵀZ_S + λ₂I)⁻¹(Z_Sᵀy − λ₁s). The inverse is
kept; changes of it are products of thin matrices, which are carried along and added to it in batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: A feature depends on the active ones if its part outside their span is below this share of it (squared).
DEPENDENT = 1e-11
#: Changes of the inverse are carried along as a product of thin factors up to this rank, then added to it in
#: strips of so many rows, which stay in cache.
DELAYED, STRIP = 96, 128
#: Up to so many slots the inverse is factorised afresh after every change: it costs next to nothing.
FRESH = 128
#: Steps of conjugate gradients at most, and the ratio of two λ₂ from which the inverse is made anew.
CONJUGATE, STALE = 16, 0.6
#: Residual, as a share of the right-hand side, that tells signs.
SIGNS = 1e-7
#: Slots to begin with, at most; memory that is not touched costs nothing.
SLOTS = 4096


class Design(Protocol):
    """The columns z_j, in whatever form they are at hand.

    For active features it may keep a column each, in slots; a feature of −1 is an empty slot, whose kept
    column is 0.
    """

    @property
    def size(self) -> int:
        """Number of features."""
        ...

    @property
    def rank(self) -> int:
        """No more than this many columns are independent."""
        ...

    @property
    def norms(self) -> Array:
        """‖z_j‖, shape (p,)."""
        ...

    @property
    def cross(self) -> Array:
        """Zᵀy, shape (p, T)."""
        ...

    @property
    def yy(self) -> Array:
        """‖y‖², shape (T,)."""
        ...

    def columns(self, features: Array) -> Array:
        """Return what is kept of these features, a column each."""
        ...

    def products(self, features: Array, columns: Array, others: Array, kept: Array) -> Array:
        """Return the inner products of some features with others, each given with what is kept of it."""
        ...

    def image(self, features: Array, kept: Array, u: Array) -> Array:
        """Return Zu, or what stands for it."""
        ...

    def back(self, features: Array, kept: Array, image: Array) -> Array:
        """Return z_jᵀ(Zu) for the features with a kept column, from what `image` returned."""
        ...

    def gradient(self, target: int, features: Array, u: Array) -> Array:
        """Return Zᵀ(y − Zu), shape (p,), for the u of some features."""
        ...

    def correlations(self, target: int, active: ActiveSet, known: Known | None, level: float) -> Known:
        """Return g = Zᵀr and ‖r‖² at r = y − Zu.

        With `known` from a nearby u, features that then cannot reach `level` may keep their old g.
        """
        ...


@dataclass(frozen=True, eq=False)
class Known:
    """Correlations g = Zᵀr (p,), residuals r (n,) where there are rows, ‖r‖², at one u."""

    g: Array
    r: Array | None
    rss: float


class ActiveSet:
    """Active features in slots: kept columns, M = (Z_SᵀZ_S + λ₂I)⁻¹, values u and signs s.

    Rows and columns of empty slots are zero, so that products need not skip them. This is the only
    mutable state of the method.
    """

    def __init__(self, design: Design, ridge: float) -> None:
        self.design, self.ridge = design, ridge
        self.inverse_ridge = ridge
        self.m = 0
        self.where = np.full(design.size, -1)
        height = len(design.columns(np.zeros(0, dtype=np.int64)))
        self._kept = np.zeros((height, 0), order="F")
        self._inverse, self._gram = np.zeros((0, 0)), np.zeros((0, 0))
        self._left, self._right, self.late = np.zeros((0, DELAYED)), np.zeros((0, DELAYED)), 0
        self.fresh = True
        self.feature = np.zeros(0, dtype=np.int64)
        self.u, self.s = np.zeros(0), np.zeros(0)

    @property
    def alive(self) -> Array:
        """Slots in use."""
        return np.flatnonzero(self.feature[: self.m] >= 0)

    @property
    def slots(self) -> Array:
        """The feature in each slot, −1 where it is empty."""
        return self.feature[: self.m]

    @property
    def kept(self) -> Array:
        """Kept columns, zero where a slot is empty."""
        return self._kept[:, : self.m]

    def _slots(self, k: int) -> Array:
        """Return k empty slots, making room for them."""
        empty = np.flatnonzero(self.feature[: self.m] < 0)[:k]
        more = k - len(empty)
        if self.m + more > len(self.feature):
            self._grow(max(min(self.design.rank + 64, SLOTS), 2 * (self.m + more)))
        slots = np.concatenate([empty, np.arange(self.m, self.m + more)])
        self.m += more
        return slots

    def _grow(self, size: int) -> None:
        size = min(size, self.design.size)
        kept = np.zeros((len(self._kept), size), order="F")
        kept[:, : self.m] = self.kept
        inverse = np.zeros((size, size))
        gram = np.zeros((size, size))
        inverse[: self.m, : self.m] = self._inverse[: self.m, : self.m]
        gram[: self.m, : self.m] = self._gram[: self.m, : self.m]
        left, right = np.zeros((size, DELAYED)), np.zeros((size, DELAYED))
        left[: self.m], right[: self.m] = self._left[: self.m], self._right[: self.m]
        self._kept, self._inverse, self._gram, self._left, self._right = kept, inverse, gram, left, right
        self.feature = np.concatenate([self.feature, np.full(size - len(self.feature), -1)])
        self.u = np.concatenate([self.u, np.zeros(size - len(self.u))])
        self.s = np.concatenate([self.s, np.zeros(size - len(self.s))])

    def times(self, v: Array) -> Array:
        """Return M·v for v of shape (m,) or (m, k)."""
        m, late = self.m, slice(0, self.late)
        product = self._inverse[:m, :m] @ v
        if self.late:
            product += self._left[:m, late] @ (self._right[:m, late].T @ v)
        return np.asarray(product)

    def _update(self, left: Array, right: Array) -> None:
        """Add left·rightᵀ to M: later, together with other changes."""
        k, self.fresh = left.shape[1], False
        if self.late + k > DELAYED:
            self._flush()
        if k > DELAYED:
            self._add_product(left, right)
            return
        part = slice(self.late, self.late + k)
        self._left[: self.m, part], self._right[: self.m, part] = left, right
        self.late += k

    def _flush(self) -> None:
        """Carry out the delayed changes."""
        if self.late:
            late = slice(0, self.late)
            self._add_product(self._left[: self.m, late], self._right[: self.m, late])
            self._left[: self.m], self._right[: self.m] = 0.0, 0.0
            self.late = 0

    def _add_product(self, left: Array, right: Array) -> None:
        M, other = self._inverse[: self.m, : self.m], right.T
        for i in range(0, self.m, STRIP):
            M[i : i + STRIP] += left[i : i + STRIP] @ other

    def _set(self, slots: Array, rows: Array) -> None:
        """Write these rows (and columns) of M, shape (m, k)."""
        M = self._inverse[: self.m, : self.m]
        M[:, slots] = rows
        M[slots] = rows.T
        self._left[slots], self._right[slots] = 0.0, 0.0

    def add(self, features: Array, signs: Array) -> Array:
        """Let features in with u = 0 and these signs; return those left out because they depend on others."""
        if self.m == 0:
            return self._begin(features, signs)
        if self.m <= FRESH and not self.fresh:
            self.rebuild()
        columns = self.design.columns(features)
        cross = self.design.products(features, columns, self.slots, self.kept)
        own = self.design.products(features, columns, features, columns)
        through = self.times(cross.T)
        rest = own - cross @ through
        size = own.diagonal().copy()
        rest.flat[:: len(rest) + 1] += self.inverse_ridge
        independent = _independent(rest, size + self.inverse_ridge)
        outside = np.setdiff1d(np.arange(len(features)), independent)
        if len(independent) == 0:
            return np.asarray(features[outside])
        pick = np.sort(independent)
        small = np.linalg.inv(rest[np.ix_(pick, pick)])
        small = (small + small.T) / 2
        through = through[:, pick]
        half = through @ small
        self._update(half, through)
        slots = self._slots(len(pick))
        rows = np.zeros((self.m, len(pick)))
        rows[: len(half)] = -half
        rows[slots] = small
        self._set(slots, rows)
        rows[: len(half)] = cross[pick].T
        rows[slots] = own[np.ix_(pick, pick)]
        self._gram[: self.m, slots] = rows
        self._gram[slots, : self.m] = rows.T
        self._kept[:, slots] = columns[:, pick]
        self.feature[slots], self.where[features[pick]] = features[pick], slots
        self.u[slots], self.s[slots] = 0.0, signs[pick]
        return np.asarray(features[outside])

    def _begin(self, features: Array, signs: Array) -> Array:
        """Let the first features in: one factorisation does."""
        columns = self.design.columns(features)
        slots = self._slots(len(features))
        self._gram[np.ix_(slots, slots)] = self.design.products(features, columns, features, columns)
        self._kept[:, slots] = columns
        self.feature[slots], self.where[features] = features, slots
        self.u[slots], self.s[slots] = 0.0, signs
        self.rebuild()
        return np.asarray(features[self.where[features] < 0])

    def drop(self, slots: Array) -> None:
        """Let the features in these slots go."""
        late = slice(0, self.late)
        if self.m <= FRESH:
            self._set(slots, np.zeros((self.m, len(slots))))
            self._empty(slots)
            self.fresh = False
            return
        block = self._inverse[: self.m, slots] + self._left[: self.m, late] @ self._right[slots, late].T
        try:
            self._update(-block @ np.linalg.inv(block[slots]), block)
        except np.linalg.LinAlgError:  # the inverse has drifted beyond use
            self._empty(slots)
            self.rebuild()
            return
        self._set(slots, np.zeros((self.m, len(slots))))
        self._empty(slots)

    def _empty(self, slots: Array) -> None:
        self._kept[:, slots] = 0.0
        self._gram[slots] = 0.0
        self._gram[:, slots] = 0.0
        self.where[self.feature[slots]] = -1
        self.feature[slots], self.u[slots], self.s[slots] = -1, 0.0, 0.0

    def rebuild(self) -> None:
        """Factorise afresh; features that turn out to depend on others leave their slots."""
        from scipy.linalg import lapack

        alive = self.alive
        if len(alive) == 0:
            self.inverse_ridge, self.fresh = self.ridge, True
            return
        H = self._gram[np.ix_(alive, alive)]
        H.flat[:: len(H) + 1] += self.ridge
        factor, failed = lapack.dpotrf(H, lower=1)
        if failed != 0 or np.any(factor.diagonal() ** 2 <= DEPENDENT * H.diagonal()):
            inside = np.sort(_independent(H, H.diagonal().copy()))
            self._empty(np.delete(alive, inside))
            alive = alive[inside]
            factor, failed = lapack.dpotrf(H[np.ix_(inside, inside)], lower=1)
        # Of order 0, where every feature has left, LAPACK's complaint goes to the terminal.
        inverse = lapack.dpotri(factor, lower=1)[0] if len(alive) else factor
        lower = np.tril(inverse)
        self._inverse[: self.m, : self.m] = 0.0
        self._left[: self.m], self._right[: self.m], self.late = 0.0, 0.0, 0
        self._inverse[np.ix_(alive, alive)] = lower + np.tril(lower, -1).T
        self.inverse_ridge, self.fresh = self.ridge, True

    def solve(self, rhs: Array, start: Array | None = None, tol: float = 1e-14) -> Array:
        """Return H⁻¹rhs, H = Z_SᵀZ_S + λ₂I.

        Where M belongs to another λ₂ it preconditions conjugate gradients from `start`, down to a residual of
        `tol` times the right-hand side: eigenvalues of MH lie between the ratio of the two λ₂ and 1.
        """
        other = self.inverse_ridge != self.ridge
        if (self.m <= FRESH and not self.fresh) or (other and self._stale):
            self.rebuild()
            other = False
        if not other:
            return self.times(rhs)
        rhs = np.where(self.slots < 0, 0.0, rhs)
        gram, goal = self._gram[: self.m, : self.m], tol * float(np.abs(rhs).max(initial=0.0))
        v = self.times(rhs) if start is None else start.copy()
        left = rhs - gram @ v - self.ridge * v
        direction, before = np.zeros(self.m), 1.0
        for _ in range(CONJUGATE):
            if float(np.abs(left).max(initial=0.0)) <= goal:
                return v
            pre = self.times(left)
            size = float(left @ pre)
            direction = pre + (size / before) * direction
            image = gram @ direction + self.ridge * direction
            step = size / float(direction @ image)
            v += step * direction
            left -= step * image
            before = size
        if tol > 1e-12:
            return v
        self.rebuild()
        return self.times(rhs)

    @property
    def _stale(self) -> bool:
        """Whether M belongs to a λ₂ so far off, or to a set so small, that it is better made anew."""
        return self.m <= FRESH or not STALE < self.ridge / self.inverse_ridge < 1 / STALE


def _independent(matrix: Array, size: Array) -> Array:
    """Return which columns of a positive semi-definite matrix to keep, so that the rest depends on them."""
    from scipy.linalg import lapack

    scale = np.sqrt(np.where(size > 0, size, 1.0))
    scaled = matrix / scale / scale[:, None]
    some = np.flatnonzero((size > 0) & (scaled.diagonal() > DEPENDENT))
    if len(some) < 2:
        return some
    _, pivots, rank, _ = lapack.dpstrf(scaled[np.ix_(some, some)], tol=DEPENDENT, lower=1)
    return np.asarray(some[pivots[:rank] - 1])
