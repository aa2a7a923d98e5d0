"""The elastic net on a working set: exact on the features that are in, checked on all the others.

In scaled coordinates (columns z_j = √w·x_j/√d_j, centred and freed of the unpenalised features) the
problem is, with λ₁ = α·l1_ratio and λ₂ = α·(1 − l1_ratio),

    minimise ½‖y − Zu‖² + λ₁‖u‖₁ + (λ₂/2)‖u‖².

On the active set S with signs s the solution is linear, u = (Z_SᵀZ_S + λ₂I)⁻¹(Z_Sᵀy − λ₁s). Its inverse is
kept and updated as features come and go; a pass over all features then shows which ones violate
|z_jᵀr| ≤ λ₁. Along a path the next set is predicted from the last two, so that one pass per α mostly does
(Osborne, Presnell and Turlach, 2000; Lee, Battle, Raina and Ng, 2007, "Efficient sparse coding
algorithms", whose one-feature-at-a-time step is the safe fallback and ends after finitely many steps).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: A feature depends on the active ones if its part outside their span is below this share of it (squared).
DEPENDENT = 1e-11
#: |z_jᵀr| may exceed λ₁ by this share, and by this share of ‖z_j‖·‖y‖, before feature j enters.
SLACK, NOISE = 1e-11, 1e-14
#: Rounds in which all violators enter at once; from then on one enters at a time.
FAST_ROUNDS = 40
#: Changes of the inverse are carried along as a product of thin factors up to this rank, then added to it in
#: strips of so many rows, which stay in cache.
DELAYED, STRIP = 96, 128
#: Up to so many slots the inverse is factorised afresh after every change: it costs next to nothing.
FRESH = 128
#: Steps of conjugate gradients at most, and the ratio of two λ₂ from which the inverse is made anew.
CONJUGATE, STALE = 16, 0.6
#: Residual, as a share of the right-hand side, that tells signs.
SIGNS = 1e-7
#: Steps of refinement at most, each time the active set has changed.
MENDS = 3
#: Slots to begin with, at most; memory that is not touched costs nothing.
SLOTS = 4096
#: A start that is not on a path goes down to its alpha by this factor per step.
DESCENT = 0.6


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


@dataclass(frozen=True, eq=False)
class GramDesign:
    """All inner products are at hand: gram (p, p), cross = Zᵀy (p, T), yy = ‖y‖² (T,)."""

    gram: Array
    cross: Array
    yy: Array
    rank: int

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.gram)

    @cached_property
    def norms(self) -> Array:
        """Return ‖z_j‖, shape (p,)."""
        return np.sqrt(np.maximum(self.gram.diagonal(), 0.0))

    def columns(self, features: Array) -> Array:
        """Return the columns of the Gram matrix."""
        return np.asarray(self.gram[features].T)

    def products(self, features: Array, columns: Array, others: Array, kept: Array) -> Array:  # noqa: ARG002
        """Return rows of the kept columns."""
        return np.asarray(kept[features])

    def image(self, features: Array, kept: Array, u: Array) -> Array:  # noqa: ARG002
        """Return ZᵀZu."""
        return np.asarray(kept @ u)

    def back(self, features: Array, kept: Array, image: Array) -> Array:  # noqa: ARG002
        """Return the features' share of ZᵀZu."""
        return np.where(features < 0, 0.0, image[features])

    def gradient(self, target: int, features: Array, u: Array) -> Array:
        """Return Zᵀy − Gu."""
        return np.asarray(self.cross[:, target] - self.gram[:, features] @ u)

    def correlations(self, target: int, active: ActiveSet, known: Known | None, level: float) -> Known:  # noqa: ARG002
        """Return Zᵀy − Gu, and ‖r‖² = yy − uᵀ(Zᵀy + g)."""
        u, alive = active.u[: active.m], active.alive
        g = self.cross[:, target] - active.kept @ u
        f = active.feature[alive]
        explained = float(u[alive] @ (self.cross[f, target] + g[f]))
        return Known(g, None, max(float(self.yy[target]) - explained, 0.0))


@dataclass(frozen=True, eq=False)
class _Residuals:
    """Designs that have the rows, and so the residuals: y (n, T)."""

    y: Array
    rank: int

    @cached_property
    def yy(self) -> Array:
        """Return ‖y‖², shape (T,)."""
        return np.asarray(np.einsum("it,it->t", self.y, self.y))

    @cached_property
    def cross(self) -> Array:
        """Return Zᵀy, shape (p, T)."""
        return np.stack([self.product(slice(None), y) for y in self.y.T], axis=1)

    @property
    def norms(self) -> Array:
        """Return ‖z_j‖, shape (p,)."""
        raise NotImplementedError

    def product(self, features: Any, r: Array) -> Array:
        """Return z_jᵀr of some features."""
        raise NotImplementedError

    def image(self, features: Array, kept: Array, u: Array) -> Array:
        """Return Zu."""
        raise NotImplementedError

    def back(self, features: Array, kept: Array, image: Array) -> Array:
        """Return z_jᵀ(Zu)."""
        raise NotImplementedError

    def columns(self, features: Array) -> Array:
        """Return what is kept of these features."""
        raise NotImplementedError

    def gradient(self, target: int, features: Array, u: Array) -> Array:
        """Return Zᵀ(y − Zu)."""
        r = self.y[:, target] - self.image(features, self.columns(features), u)
        return self.product(slice(None), r)

    def correlations(self, target: int, active: ActiveSet, known: Known | None, level: float) -> Known:
        """Return Zᵀr, only for features that may have reached the level: g_j moves by ‖z_j‖·‖Δr‖ at most."""
        feature = active.slots
        r = self.y[:, target] - self.image(feature, active.kept, active.u[: active.m])
        if known is not None and known.r is not None:
            moved = float(np.linalg.norm(r - known.r))
            able = np.abs(known.g) + self.norms * moved > level
            slots = active.alive
            able[feature[slots]] = False
            near = np.flatnonzero(able)
            if len(near) * 4 < len(able):
                g = known.g.copy()
                g[near] = self.product(near, r)
                g[feature[slots]] = self.back(feature, active.kept, r)[slots]
                return Known(g, r, float(r @ r))
        return Known(self.product(slice(None), r), r, float(r @ r))


@dataclass(frozen=True, eq=False)
class RowDesign(_Residuals):
    """The rows themselves: Z (n, p) in Fortran order."""

    Z: Array

    @property
    def size(self) -> int:
        """Number of features."""
        return int(self.Z.shape[1])

    @cached_property
    def norms(self) -> Array:
        """Return ‖z_j‖, shape (p,)."""
        return np.asarray(np.sqrt(np.einsum("ij,ij->j", self.Z, self.Z)))

    def product(self, features: Any, r: Array) -> Array:
        """Return z_jᵀr of some features."""
        return np.asarray(self.Z[:, features].T @ r)

    def columns(self, features: Array) -> Array:
        """Return the columns themselves."""
        return np.asarray(self.Z[:, features])

    def products(self, features: Array, columns: Array, others: Array, kept: Array) -> Array:  # noqa: ARG002
        """Return columnsᵀ·kept."""
        return np.asarray(columns.T @ kept)

    def image(self, features: Array, kept: Array, u: Array) -> Array:  # noqa: ARG002
        """Return Zu."""
        return np.asarray(kept @ u)

    def back(self, features: Array, kept: Array, image: Array) -> Array:  # noqa: ARG002
        """Return z_jᵀ(Zu)."""
        return np.asarray(kept.T @ image)


@dataclass(frozen=True, eq=False)
class SparseDesign(_Residuals):
    """Sparse rows with what is taken off them: Z = X − Q·through, never formed.

    Attributes
    ----------
    X : scipy sparse matrix in CSC form, shape (n, p)
        Rows times √w, columns divided by √d.
    fixed : array, shape (n, q)
        Orthonormal Q: the direction of the intercept, and of unpenalised features.
    through : array, shape (q, p)
        QᵀX.
    y : array, shape (n, T)
        Orthogonal to Q.
    """

    X: Any
    fixed: Array
    through: Array

    @property
    def size(self) -> int:
        """Number of features."""
        return int(self.X.shape[1])

    @cached_property
    def norms(self) -> Array:
        """Return ‖z_j‖, shape (p,)."""
        squares = np.asarray(self.X.multiply(self.X).sum(axis=0)).ravel()
        return np.asarray(np.sqrt(np.maximum(squares - np.sum(self.through**2, axis=0), 0.0)))

    def product(self, features: Any, r: Array) -> Array:
        """Return z_jᵀr of some features; what rounding left of Q in r, large means would blow up."""
        X = self.X if isinstance(features, slice) else self.X[:, features]
        return np.asarray(X.T @ r - self.through[:, features].T @ (self.fixed.T @ r))

    def columns(self, features: Array) -> Array:
        """Return columns without rows: nothing dense is kept."""
        return np.zeros((0, len(features)))

    def products(self, features: Array, columns: Array, others: Array, kept: Array) -> Array:  # noqa: ARG002
        """Return XᵀX less what Q takes off."""
        there = np.flatnonzero(others >= 0)
        result = np.zeros((len(features), len(others)))
        second = others[there]
        result[:, there] = (self.X[:, features].T @ self.X[:, second]).toarray()
        result[:, there] -= self.through[:, features].T @ self.through[:, second]
        return result

    def image(self, features: Array, kept: Array, u: Array) -> Array:  # noqa: ARG002
        """Return Zu."""
        there = np.flatnonzero(features >= 0)
        second, own = features[there], u[there]
        return np.asarray(self.X[:, second] @ own - self.fixed @ (self.through[:, second] @ own))

    def back(self, features: Array, kept: Array, image: Array) -> Array:  # noqa: ARG002
        """Return z_jᵀ(Zu)."""
        result, there = np.zeros(len(features)), np.flatnonzero(features >= 0)
        result[there] = self.product(features[there], image)
        return result


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
        inverse, _ = lapack.dpotri(factor, lower=1)
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


@dataclass(frozen=True, eq=False)
class Point:
    """The solution at one alpha and target.

    Attributes
    ----------
    features, values, signs : arrays, shape (k,)
        The active set: which u are not 0, their values and signs.
    gap : float
        Duality gap, absolute.
    rss : float
        ‖y − Zu‖².
    rounds : int
        Passes over all features.
    settled : bool
        Whether no feature violates the optimality conditions beyond rounding.
    """

    features: Array
    values: Array
    signs: Array
    gap: float
    rss: float
    rounds: int
    settled: bool


def duality_gap(g: Array, features: Array, u: Array, rss: float, l1: float, l2: float) -> float:
    """Return the gap between the objective at u and its dual at (scaled) residuals; at least 0.

    With g = Zᵀr two dual points are at hand. For λ₂ > 0, r itself: the gap is then a sum of terms
    λ₁|u| + (λ₂/2)u² + (|g| − λ₁)₊²/(2λ₂) − ug, none of them negative (Fenchel and Young). Or the residual of
    the augmented rows, shrunk by κ so that |κ(g − λ₂u)| ≤ λ₁, with the gap
    ½(1 − κ)²(‖r‖² + λ₂‖u‖²) + Σ λ₁|u| − κu(g − λ₂u).
    The smaller one counts (Fercoq, Gramfort and Salmon, 2015; Dünner, Forte, Takáč and Jaggi, 2016).
    """
    largest = np.abs(g).max(initial=0.0)
    own = g[features] - l2 * u
    if len(features):
        others = np.abs(g).copy()
        others[features] = np.abs(own)
        largest = others.max(initial=0.0)
    kappa = min(1.0, l1 / largest) if largest > 0 else 1.0
    scaled = 0.5 * (1 - kappa) ** 2 * (rss + l2 * float(u @ u)) + float(
        np.maximum(l1 * np.abs(u) - kappa * u * own, 0.0).sum()
    )
    if l2 == 0:
        return scaled
    over = np.maximum(np.abs(g) - l1, 0.0)
    inactive = float(over @ over) - float(over[features] @ over[features])
    at = g[features]
    terms = l1 * np.abs(u) + 0.5 * l2 * u * u + over[features] ** 2 / (2 * l2) - u * at
    return min(scaled, inactive / (2 * l2) + float(np.maximum(terms, 0.0).sum()))


class PathRunner:
    """Goes down a path for one target, each point started from the last."""

    def __init__(
        self, design: Any, target: int, cross: Array, l1_ratio: float, max_rounds: int, enough: float = 0.0
    ) -> None:
        self.design, self.target, self.l1_ratio, self.max_rounds = design, target, l1_ratio, max_rounds
        self.enough = enough
        self.cross = cross
        self.noise = NOISE * design.norms * float(np.sqrt(design.yy[target]))
        self.active: ActiveSet | None = None
        self.before: list[tuple[float, Array]] = []

    @property
    def largest(self) -> float:
        """α_max: from here on every u is 0."""
        return float(np.abs(self.cross).max(initial=0.0)) / self.l1_ratio

    def start(self, alpha: float, point: Point) -> None:
        """Take up a known solution."""
        self.active = ActiveSet(self.design, alpha * (1 - self.l1_ratio))
        if len(point.features):
            self.active.add(point.features, point.signs)
            slots = self.active.where[point.features]
            inside = slots >= 0
            self.active.u[slots[inside]] = point.values[inside]
        self.before = []

    def points(self, alphas: Array) -> Iterator[Point]:
        """Yield the solutions at descending alphas."""
        for alpha in alphas:
            last = self.before[-1][0] if self.before else self.largest
            while 0 < alpha < last * DESCENT**2:
                last *= DESCENT
                self.solve(last, rough=True)
            yield self.solve(float(alpha))

    def solve(self, alpha: float, *, rough: bool = False) -> Point:
        """Return the solution at one alpha, started from the last; a rough one after three passes at most."""
        l1, l2 = alpha * self.l1_ratio, alpha * (1 - self.l1_ratio)
        if self.active is None:
            self.active = ActiveSet(self.design, l2)
        active = self.active
        active.ridge = l2
        threshold = l1 * (1 + SLACK) + self.noise
        self._predict(alpha, l1)
        rounds, settled, fixed = 0, False, 0
        known: Known | None = None
        mended = False
        idle: list[int] = []
        while True:
            rounds += 1
            safe = rounds > FAST_ROUNDS
            if rounds <= FAST_ROUNDS + 1 and not mended:
                self._settle(l1)
            mended = False
            known = self.design.correlations(self.target, active, known, l1)
            g, rss, alive = known.g, known.rss, active.alive
            left = np.zeros(active.m)
            left[alive] = g[active.feature[alive]] - l1 * active.s[alive] - l2 * active.u[alive]
            drift = np.abs(left[alive]) > 10 * (SLACK * l1 + self.noise[active.feature[alive]])
            if drift.any() and not active.fresh:
                active.rebuild()
                if not safe:
                    continue
                alive = active.alive
            elif drift.any() and fixed < MENDS:
                # Squares lose digits: a step of refinement on the residuals brings them back.
                fixed += 1
                better = active.u[: active.m] + active.solve(left)
                if np.all(better[alive] * active.s[alive] > 0):
                    active.u[: active.m] = better
                    known, mended = None, True
                    continue
            size = np.abs(g)
            size[active.feature[alive]] = 0.0
            over = np.flatnonzero(size > threshold)
            if len(over) == 0:
                settled = True
                break
            over = np.setdiff1d(over, idle)
            if len(over) == 0:
                break
            if rounds >= self.max_rounds or (rough and rounds >= 3):
                break
            if self.enough and self._gap(g, rss, l1, l2) <= self.enough:
                break
            if safe:
                over = over[[np.argmax(size[over])]]
            else:
                most = max(16, len(alive))
                if len(over) > most:
                    over = over[np.argpartition(-size[over], most)[:most]]
            outside = active.add(over, np.sign(g[over]))
            fixed = 0
            if len(outside) == len(over):
                self._exchange(int(outside[np.argmax(size[outside])]), g)
            if safe:
                self._walk(l1)
                if active.where[over[0]] < 0:  # rounding: it wants in, and at once out again
                    idle.append(int(over[0]))
        self.before = [*self.before[-1:], (alpha, g)]
        alive = active.alive
        features, u = active.feature[alive].copy(), active.u[alive].copy()
        gap = self._gap(g, rss, l1, l2)
        return Point(features, u, active.s[alive].copy(), gap, rss, rounds, settled)

    def _gap(self, g: Array, rss: float, l1: float, l2: float) -> float:
        assert self.active is not None
        alive = self.active.alive
        return duality_gap(g, self.active.feature[alive], self.active.u[alive], rss, l1, l2)

    def _predict(self, alpha: float, l1: float) -> None:
        """Let in what the last two points of the path say will be active here: g is nearly linear in α."""
        assert self.active is not None
        if not self.before:
            return
        (b, g) = self.before[-1]
        if len(self.before) == 2:
            a, f = self.before[0]
            if a != b:
                g = g + (g - f) * ((alpha - b) / (b - a))
        size = np.abs(g)
        alive = self.active.alive
        size[self.active.feature[alive]] = 0.0
        over = np.flatnonzero(size > l1)
        most = max(16, len(alive) // 2)
        if len(over) > most:
            over = over[np.argpartition(-size[over], most)[:most]]
        if len(over):
            self.active.add(over, np.sign(g[over]))

    def _settle(self, l1: float) -> None:
        """Solve on the active set and let go whatever gets the wrong sign, until none does."""
        active = self.active
        assert active is not None
        while True:
            alive = active.alive
            rhs = np.zeros(active.m)
            rhs[alive] = self.cross[active.feature[alive]] - l1 * active.s[alive]
            v = active.solve(rhs, active.u[: active.m], SIGNS)
            alive = active.alive
            wrong = alive[v[alive] * active.s[alive] <= 0]
            if len(wrong) == 0:
                active.u[: active.m] = active.solve(rhs, v) if active.inverse_ridge != active.ridge else v
                return
            active.drop(wrong)

    def _walk(self, l1: float) -> None:
        """Walk from u to the solution on the active set, letting go each feature whose u reaches 0."""
        active = self.active
        assert active is not None
        while True:
            alive = active.alive
            rhs = np.zeros(active.m)
            rhs[alive] = self.cross[active.feature[alive]] - l1 * active.s[alive]
            v, u = active.solve(rhs), active.u[: active.m].copy()
            alive = active.alive
            wrong = alive[v[alive] * active.s[alive] <= 0]
            if len(wrong) == 0:
                active.u[: active.m] = v
                return
            change = u[wrong] - v[wrong]
            step = np.where(change != 0, u[wrong] / np.where(change != 0, change, 1.0), 0.0)
            first = int(np.argmin(step))
            active.u[: active.m] = u + step[first] * (v - u)
            active.drop(wrong[[first]])

    def _exchange(self, feature: int, g: Array) -> None:
        """Bring in a feature that depends on active ones, by the move that leaves the fit as it is.

        Along it u_feature grows and the others give way until the first reaches 0 and goes.
        """
        active = self.active
        assert active is not None
        one = np.array([feature])
        column = self.design.columns(one)
        cross = self.design.products(one, column, active.slots, active.kept)[0]
        sign = float(np.sign(g[feature]))
        change = -sign * (active.times(cross))
        u = active.u[: active.m]
        alive = active.alive
        falls = alive[change[alive] * active.s[alive] < 0]
        if len(falls) == 0:
            return
        step = np.abs(u[falls]) / np.abs(change[falls])
        first = int(np.argmin(step))
        active.u[: active.m] = u + step[first] * change
        active.drop(falls[[first]])
        active.add(one, np.array([sign]))
        slot = active.where[feature]
        if slot >= 0:
            active.u[slot] = sign * step[first]
