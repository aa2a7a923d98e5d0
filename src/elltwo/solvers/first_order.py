"""What first-order methods share: the objective measured on the rows, and the distance from its optimum.

With the rows centred at the weighted means, z = x − x̄, and δ = θ − θ₀, the objective and its gradient are

    f(δ, b) = Σ wᵢℓ(yᵢ, b + zᵢᵀδ + oᵢ) + (α/2)δᵀPδ,    g = Σ wᵢℓ'ᵢzᵢ + αPδ,    g_b = Σ wᵢℓ'ᵢ.

The rows may be dense, sparse or streamed; nothing is factorised.

The columns are neither copied nor changed; the steps are taken in u = cⱼδⱼ with cⱼ² = ℎ̄sⱼ² + (α/W)Pⱼⱼ (sⱼ the
standard deviation, ℎ̄ a mean curvature, W = Σw), in which the Hessian has about a unit diagonal, so that the
units of the columns do not matter. α, θ and everything that is reported is in the units of the data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.data.base import Block
from elltwo.data.memory import MemorySource
from elltwo.errors import InputError, did_you_mean
from elltwo.losses import Loss
from elltwo.margins import deviation, mean_and_squares
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem

Array = npt.NDArray[Any]

#: Elements of X in a chunk of rows, so that a centred copy of it stays in a core's cache.
CHUNK = 1 << 17
#: Power iteration: most passes, the change at which it ends, and the margin for what it has not found.
POWER_PASSES, POWER_CHANGE, POWER_MARGIN = 20, 1e-3, 1.1
#: The intercept counts as minimised at this relative gradient; passes for that, and the largest step there
#: on a log or logit scale.
SETTLED, SETTLE_PASSES, SETTLE_STEP = 1e-14, 60, 8.0
#: Scale of the coordinate of a constant column: no step, divided by it twice, is more than 0.
UNREACHED = 2.0**1000


class Chunk(NamedTuple):
    """Some rows: X (m, p) dense or CSR, y (m, T), w (m,), offset (m, T) or None, position of the first."""

    X: Any
    y: Array
    w: Array
    offset: Array | None
    start: int


def is_sparse(X: Any) -> bool:
    """Return whether X is a matrix of compressed sparse rows."""
    return hasattr(X, "indptr")


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a problem, with (X − origin)θ₀ as part of the offset; sparse rows stay sparse.

    Attributes
    ----------
    problem : Problem
    labels : callable block -> int array (m,), or None
        The atom of each row; None: all rows.
    atoms : tuple of int
        The atoms that are read.
    """

    problem: Problem
    labels: Callable[[Any], Array] | None = None
    atoms: tuple[int, ...] = (0,)

    @property
    def by_index(self) -> bool:
        """Whether single rows can be read: those of arrays in memory."""
        return isinstance(self.problem.source, MemorySource)

    def blocks(self) -> Iterator[Block]:
        """Iterate over the blocks of the source, whole."""
        source: Any = self.problem.source
        X: Any = getattr(source, "X", None)
        if not (self.by_index and is_sparse(X)):
            yield from self.problem.blocks()
            return
        step = max(1, 64 * CHUNK // (1 + X.nnz // X.shape[0]))
        for start in range(0, X.shape[0], step):
            part = self.pick(slice(start, min(X.shape[0], start + step)))
            yield Block(part.X, part.y, None if source.weights is None else part.w, start, part.offset)

    def pick(self, rows: Any) -> Chunk:
        """Return rows of arrays in memory, by slice or indices."""
        source: Any = self.problem.source
        X, y = source.X[rows], source.y[rows]
        X = X.astype(np.float64, copy=False) if is_sparse(X) else np.asarray(X, dtype=np.float64)
        w = np.ones(len(y)) if source.weights is None else source.weights[rows]
        offset = None if source.given_offset is None else source.given_offset[rows]
        if self.problem.prior is not None:
            prior, origin = self.problem.prior_column, self.problem.origin
            own = X @ prior - origin @ prior if is_sparse(X) else (X - origin) @ prior
            offset = own if offset is None else offset + own
        return Chunk(X, y, w, None if offset is None else np.broadcast_to(offset, y.shape), 0)

    def own(self, block: Block) -> Array:
        """Return the positions in a block of the rows that belong."""
        if self.labels is None:
            return np.arange(len(block.y))
        return np.flatnonzero(np.isin(self.labels(block), self.atoms))

    def indices(self) -> Array:
        """Return the positions of the rows that belong, of arrays in memory."""
        source: Any = self.problem.source
        return self.own(Block(source.X, source.y, source.weights, 0))

    def chunks(self) -> Iterator[Chunk]:
        """Iterate over the rows that belong, in chunks that fit the cache."""
        for block in self.blocks():
            yield from self.cut(block)

    def cut(self, block: Block) -> Iterator[Chunk]:
        """Yield chunks of a block's own rows."""
        label = None if self.labels is None else self.labels(block)
        X: Any = block.X
        each = X.nnz / max(1, len(block.y)) if is_sparse(X) else X.shape[1]
        step = max(64, int(CHUNK // max(1, each)))
        for start in range(0, len(block.y), step):
            rows: Any = slice(start, start + step)
            if label is not None:
                inside = np.isin(label[rows], self.atoms)
                if not inside.any():
                    continue
                if not inside.all():
                    rows = start + np.flatnonzero(inside)
            y = block.y[rows]
            w = np.ones(len(y)) if block.weights is None else block.weights[rows]
            offset = None if block.offset is None else block.offset[rows]
            yield Chunk(X[rows], y, w, offset, block.start + start)


@dataclass(frozen=True, eq=False)
class Spread:
    """Counts, means and squared deviations of rows, column by column; mergeable (Chan et al., 1983).

    Attributes
    ----------
    n, rows : int
        Rows, and those of positive weight.
    weight : float
        Σw.
    mean, squares : arrays, shape (p + T,)
        Weighted means of [X, y], and Σ w(x − x̄)².
    """

    n: int
    rows: int
    weight: float
    mean: Array
    squares: Array

    @classmethod
    def of(cls, chunk: Chunk) -> Spread:
        """Measure some rows."""
        w = chunk.w
        both = [mean_and_squares(values, w) for values in (chunk.X, chunk.y)]
        mean, squares = (np.concatenate(each) for each in zip(*both, strict=True))
        return cls(len(w), int(np.count_nonzero(w)), float(w.sum()), mean, squares)

    def merge(self, other: Spread) -> Spread:
        """Return the spread of both sets of rows."""
        weight = self.weight + other.weight
        share = other.weight / weight if weight > 0 else 0.0
        gap = other.mean - self.mean
        squares = self.squares + other.squares + gap**2 * (self.weight * share)
        return Spread(self.n + other.n, self.rows + other.rows, weight, self.mean + share * gap, squares)

    @property
    def scale(self) -> Array:
        """Weighted population standard deviations of [X, y]; 0 for a constant column."""
        return deviation(self.squares, self.mean, self.weight)


def survey(rows: Rows) -> Spread:
    """Measure all rows in one pass, and look whether the loss is made for their targets.

    Raises
    ------
    InputError
        If a value is not finite, or a target not one that the loss is made for.
    """
    problem, total = rows.problem, None
    names = problem.source.target_names
    with np.errstate(invalid="ignore", over="ignore"):
        for chunk in rows.chunks():
            check_targets(problem.loss, chunk.y, names, chunk.start)
            part = Spread.of(chunk)
            total = part if total is None else total.merge(part)
    if total is None:
        raise InputError("the data have no rows.")
    if not np.isfinite(total.squares).all():
        raise problem.source.why_not_finite()
    return total


def check_targets(loss: Loss, y: Array, names: Sequence[str], start: int) -> None:
    """Raise InputError if a target is not one that the loss is made for."""
    if loss.coupled:
        loss.check(y, ", ".join(names), start)
        return
    for t, name in enumerate(names):
        loss.check(y[:, t], name, start)


#: Largest d²loss/dη² over all y and η, of losses that have one. Of multinomial: the eigenvalues of
#: diag(p) − ppᵀ are at most ½ (Böhning, 1992).
CURVATURE_BOUNDS = {
    "gaussian": 1.0,
    "squared-hinge": 1.0,
    "squared-epsilon-insensitive": 1.0,
    "huber": 1.0,
    "binomial": 0.25,
    "multinomial": 0.5,
}


def curvature_bound(loss: Any, y: Array) -> Array | None:
    """Return an upper bound of d²loss/dη² over all η, shape of y, or None where there is none.

    Of the log links only the negative binomial has one: (1 + φy)/(4φ), at μ = 1/φ.
    """
    if loss.name in CURVATURE_BOUNDS:
        return np.full(y.shape, CURVATURE_BOUNDS[loss.name])
    if loss.name == "negative-binomial":
        return np.asarray((1.0 + loss.dispersion * y) / (4.0 * loss.dispersion))
    return None


@dataclass(frozen=True)
class Sums:
    """One pass: Σwℓ (T,) or (1,), Σwℓ'z (p, T), Σwℓ' (T,), Σwℓ'² (T,)."""

    value: Array
    gradient: Array
    intercept: Array
    squares: Array


@dataclass(frozen=True, eq=False)
class Frame:
    """The rows with the coordinates u = cδ and v = c₀b in which steps are taken; b is of the centred rows.

    Attributes
    ----------
    rows : Rows
    spread : Spread
    form : QuadraticForm
        The penalty for δ.
    alpha : array, shape (T,)
        Sum scale.
    centre : bool
        Whether there is an intercept.
    scale : array, shape (p + 1, 1)
        c, and c₀ in the last row.
    """

    rows: Rows
    spread: Spread
    form: QuadraticForm
    alpha: Array
    centre: bool
    scale: Array

    @classmethod
    def of(cls, rows: Rows, spread: Spread, form: QuadraticForm, alpha: Array, centre: bool) -> Frame:
        """Choose the coordinates."""
        p, loss = len(form.d), rows.problem.loss
        y_mean = spread.mean[p:]
        null = loss.null(y_mean) if centre else np.zeros(len(y_mean))
        h = float(np.mean(loss.curvature(y_mean, null)))
        h = h if np.isfinite(h) and h > 0 else 1.0
        squares = h * root_mean_square(spread, p, centre) ** 2
        diagonal = form.d if form.rotation is None else form.rotation**2 @ form.d
        scale = np.sqrt(np.append(squares + float(np.mean(alpha)) / spread.weight * diagonal, h))
        scale = np.where(scale > 0, scale, 1.0)
        if centre and form.rotation is None:
            scale[:-1][spread.scale[:p] == 0] = UNREACHED
        return cls(rows, spread, form, alpha, centre, scale[:, None])

    @property
    def p(self) -> int:
        """Number of features."""
        return len(self.form.d)

    @property
    def mean(self) -> Array:
        """What the rows are centred at, shape (p,): zero without an intercept."""
        return self.spread.mean[: self.p] if self.centre else np.zeros(self.p)

    @property
    def varies(self) -> Array:
        """Whether each column has anything to tell, shape (p, 1): not a constant one beside an intercept."""
        return np.asarray((self.spread.scale[: self.p, None] > 0) | (not self.centre))

    @property
    def loss(self) -> Loss:
        """The loss."""
        return self.rows.problem.loss

    def null(self) -> Array:
        """Return b of the model without features, shape (T,)."""
        y_mean = self.spread.mean[self.p :]
        if not self.centre:
            return np.zeros(len(y_mean))
        return np.broadcast_to(self.loss.null(y_mean), y_mean.shape).astype(np.float64)

    def products(self, delta: Array, b: Array) -> Iterator[tuple[Chunk, Any, Array]]:
        """Yield chunks, their centred rows if dense, and η for δ (p, T) and the centred rows' b (T,)."""
        mean = self.mean
        shift = b - mean @ delta
        for chunk in self.rows.chunks():
            if is_sparse(chunk.X):
                Z, eta = chunk.X, np.asarray(chunk.X @ delta) + shift
            else:
                Z = chunk.X - mean if self.centre else chunk.X
                eta = Z @ delta + b
            if chunk.offset is not None:
                eta += chunk.offset
            yield chunk, Z, eta

    def cross(self, Z: Any, q: Array) -> Array:
        """Return Σ z qᵀ, shape (p, T), for what `products` yielded."""
        product = np.asarray(Z.T @ q)
        if is_sparse(Z) and self.centre:
            product -= np.multiply.outer(self.mean, q.sum(axis=0))
        return product

    def sums(self, delta: Array, b: Array) -> Sums:
        """Return value and gradient of Σwℓ at δ (p, T) and b (T,)."""
        T = len(b)
        value, g = np.zeros(1 if self.loss.coupled else T), np.zeros((self.p, T))
        gb, squares = np.zeros(T), np.zeros(T)
        with np.errstate(over="ignore", invalid="ignore"):
            for chunk, Z, eta in self.products(delta, b):
                slope = self.loss.gradient(chunk.y, eta)
                q = slope * chunk.w[:, None]
                value += chunk.w @ self.loss.value(chunk.y, eta)
                g += self.cross(Z, q)
                gb += q.sum(axis=0)
                squares += np.einsum("it,it->t", q, slope)
        return Sums(value, g * self.varies, gb, squares)

    def curved(self, weights: Callable[[Chunk], Array], x: Array) -> Array:
        """Return [Z, 1]ᵀ·diag(h)·[Z, 1]·x for x of shape (p + 1, T) and h = `weights`(chunk), (m, T)."""
        result = np.zeros_like(x)
        for chunk, Z, eta in self.products(x[:-1], x[-1] if self.centre else np.zeros(x.shape[1])):
            q = weights(chunk) * (eta if chunk.offset is None else eta - chunk.offset)
            result[:-1] += self.cross(Z, q)
            result[-1] += q.sum(axis=0)
        if not self.centre:
            result[-1] = 0.0
        return result

    def penalised(self, delta: Array) -> tuple[Array, Array]:
        """Return (α/2)δᵀPδ per target (T,) and αPδ (p, T)."""
        pull = self.alpha * self.form.apply(delta)
        return 0.5 * np.einsum("jt,jt->t", delta, pull), pull

    def sizes(self, squares: Array) -> Array:
        """Return ‖z_j‖·‖√w ℓ'‖ and √W·‖√w ℓ'‖, shape (p + 1, T); infinite for a column of zeros.

        If the model without features leaves nothing, slopes of 1 stand for ℓ'.
        """
        squares = np.where(squares > 0, squares, self.spread.weight)
        columns = np.append(root_mean_square(self.spread, self.p, self.centre), 1.0)
        size = np.sqrt(self.spread.weight) * np.multiply.outer(columns, np.sqrt(squares))
        return np.where(size > 0, size, np.inf)


def root_mean_square(spread: Spread, p: int, centre: bool) -> Array:
    """Return the root mean squares of the columns, about their means with an intercept, shape (p,)."""
    scale, mean = spread.scale[:p], spread.mean[:p]
    return scale if centre else np.sqrt(scale**2 + mean**2)


@dataclass(frozen=True, eq=False)
class Trace:
    """What was measured on the way, one entry per record (an iteration, or an epoch).

    Attributes
    ----------
    passes : array of int, shape (k,)
        Passes over the rows so far, those before the first step included.
    objective : array, shape (k,)
        The objective, summed over targets.
    gradient : array, shape (k,)
        Largest relative gradient max |gⱼ| / (‖zⱼ‖·‖√w ℓ'₀‖), with ℓ'₀ at the model without features.
    seconds : array, shape (k,)
        Since the start.
    """

    passes: Array
    objective: Array
    gradient: Array
    seconds: Array


@dataclass
class Recorder:
    """Collects a `Trace` and tells the callback."""

    callback: Callable[[int, float, float], Any] | None = None
    passes: int = 0
    entries: list[tuple[int, float, float, float]] = field(default_factory=list)
    begun: float = field(default_factory=time.perf_counter)

    def add(self, objective: float, relative: float) -> bool:
        """Add an entry; return whether the callback asks to stop."""
        self.entries.append((self.passes, objective, relative, time.perf_counter() - self.begun))
        return self.callback is not None and self.callback(self.passes, objective, relative) is True

    def trace(self) -> Trace:
        """Return what was collected."""
        passes, *others = (np.array(column) for column in zip(*self.entries, strict=True))
        return Trace(passes.astype(np.int64), *others)


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a first-order method arrived.

    Attributes
    ----------
    coef, intercept : arrays, shapes (p, T) and (T,)
        On the original scale. The intercept is the exact minimiser for these coefficients; those of classes
        sum to 0.
    alpha : array, shape (T,)
        Sum scale.
    relative : float
        The largest relative gradient there, see `Trace`.
    converged : bool
        Whether `relative` is at most the tolerance that was asked for.
    method : str
    trace : Trace
    gradient : array, shape (p, T)
        ∂f/∂θ with the intercept profiled out, measured in a pass at the end.
    form : QuadraticForm
        The penalty matrix P.
    coupled : bool
        Whether the targets are classes of one loss.
    profiled : bool
        Whether the intercept has been minimised over.
    """

    coef: Array
    intercept: Array
    alpha: Array
    relative: float
    converged: bool
    method: str
    trace: Trace
    gradient: Array = field(repr=False)
    form: QuadraticForm = field(repr=False)
    coupled: bool
    profiled: bool


@dataclass(frozen=True, eq=False)
class Distance:
    """Upper bounds on the distance from the optimum.

    Attributes
    ----------
    coef : array, shape (T,), or (1,) for classes
        Of ‖θ − θ*‖_P = √((θ − θ*)ᵀP(θ − θ*)).
    objective : array, shape (T,) or (1,)
        Of f − f*.
    """

    coef: Array
    objective: Array


def distance(result: Descent) -> Distance:
    """Bound the distance of a result from the optimum, without knowing the optimum.

    With the intercept profiled out, F(θ) = min_b f(θ, b) is convex plus (α/2)‖θ − θ₀‖²_P, so that

        ‖θ − θ*‖_P ≤ ‖∇F‖_{P⁻¹}/α,        f − f* ≤ ‖∇F‖²_{P⁻¹}/(2α),

    whatever the loss and however ill-conditioned the rows. The gradient is the one that was measured on
    the rows at the end, in float64; near its rounding level the bound is no better than that.

    The bound is infinite where nothing but the data holds a coefficient, so that their curvature would
    have to be known: if α = 0, if a direction that P leaves free (multiplier 0) has a gradient other
    than 0, or if the best intercept was not found (`profiled` is False).

    Source: strong convexity; Nesterov, "Lectures on Convex Optimization", 2018, theorem 2.1.10.

    Parameters
    ----------
    result : Descent
        What `gradient_descent` or `sgd` returned.

    Returns
    -------
    Distance

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> from elltwo.solvers.gradient import gradient_descent
    >>> X, y = np.array([[-1.0], [0.0], [1.0]]), np.array([0.0, 1.0, 5.0])
    >>> result = gradient_descent(Problem(MemorySource(X, y)), 1.0, tol=1e-10)
    >>> result.coef.round(6), bool(distance(result).coef[0] < 1e-8)
    (array([[1.666667]]), True)
    """
    rotation, d = result.form.rotation, result.form.d[:, None]
    g = result.gradient if rotation is None else rotation.T @ result.gradient
    held = np.where(d > 0, g, 0.0) / np.sqrt(np.where(d > 0, d, 1.0))
    squares = np.sum(held**2, axis=0)
    lost = np.any((d == 0) & (g != 0), axis=0) | (result.alpha == 0) | (not result.profiled)
    alpha = np.where(result.alpha > 0, result.alpha, 1.0)
    if result.coupled:
        squares, lost, alpha = squares.sum(keepdims=True), lost.any(keepdims=True), alpha[:1]
    return Distance(
        np.where(lost, np.inf, np.sqrt(squares) / alpha), np.where(lost, np.inf, squares / (2 * alpha))
    )


def check_alpha(alpha: Any, n_targets: int, *, shared: bool) -> Array:
    """Return alpha as (T,), one for all if it must be shared, or raise InputError."""
    try:
        values = np.asarray(alpha, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"alpha must be a number ≥ 0, or one per target; got {alpha!r}.") from None
    if values.shape not in ((), (1,), (n_targets,)):
        raise InputError(f"alpha has shape {values.shape} for {n_targets} target(s); give one, or one each.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"alpha must be finite and ≥ 0 (sum scale); got {alpha!r}.")
    values = np.broadcast_to(values, (n_targets,)).copy()
    if shared and np.ptp(values) > 0:
        raise InputError(
            "alpha must be one number here: classes share one objective, and the targets of stochastic "
            "gradient descent share the scales of a step."
        )
    return values


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least `least`, or raise InputError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)


def check_one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """Return a known name, or raise InputError with a hint."""
    if value not in known:
        raise InputError(
            f"{name}={value!r} is not known.{did_you_mean(str(value), known)} "
            f"Choose from: {', '.join(known)}."
        )
    return str(value)


def check_tolerance(tol: Any) -> None:
    """Raise InputError unless tol is a positive number."""
    if not isinstance(tol, (int, float, np.number)) or isinstance(tol, bool) or not 0 < tol < np.inf:
        raise InputError(f"tol must be a positive number; got {tol!r}.")


def check_start(start: Any, problem: Problem) -> tuple[Array, Array] | None:
    """Return (δ, b) of the reduced problem for (θ, b), a result, or None; else raise InputError."""
    if start is None:
        return None
    p, T = problem.source.n_features, problem.source.n_targets
    try:
        pair = (start.coef, start.intercept) if hasattr(start, "coef") else tuple(start)
        coef, b = (np.asarray(part, dtype=np.float64) for part in pair)
    except (TypeError, ValueError):
        raise InputError("start must be an earlier result or a pair (coef, intercept).") from None
    if coef.shape != (p, T) or b.shape != (T,):
        raise InputError(
            f"start has shapes {coef.shape} and {b.shape}; coef must be ({p}, {T}) and intercept ({T},)."
        )
    if not (np.isfinite(coef).all() and np.isfinite(b).all()):
        raise InputError("start must be finite.")
    return problem.reduce(coef, b)


def check_scales(scales: Any, spread: Spread, problem: Problem) -> Array:
    """Return the standard deviations that a standardising penalty refers to."""
    p = problem.source.n_features
    if scales is None:
        return spread.scale[:p]
    values = np.asarray(scales, dtype=np.float64)
    if values.shape != (p,) or not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"scales must be {p} finite numbers ≥ 0, one per feature; got shape {values.shape}.")
    return values


def with_loss(problem: Problem, loss: Loss | None) -> Problem:
    """Return the problem with another loss, if one is given."""
    return problem if loss is None else replace(problem, loss=loss)


@dataclass(frozen=True, eq=False)
class Objective:
    """f/W and its gradient in the coordinates of a frame, x = (u, v) of shape (p + 1, T); counts passes.

    Attributes
    ----------
    frame : Frame
    recorder : Recorder
    size : array, shape (p + 1, T)
        What a gradient is relative to.
    null : float
        Σwℓ of the model without features, all targets together.
    """

    frame: Frame
    recorder: Recorder
    size: Array
    null: float

    @classmethod
    def of(cls, frame: Frame, recorder: Recorder) -> Objective:
        """Measure the residuals of the model without features, in one pass."""
        null = frame.sums(np.zeros((frame.p, len(frame.alpha))), frame.null())
        recorder.passes += 1
        return cls(frame, recorder, frame.sizes(null.squares), float(null.value.sum()))

    def dot(self, a: Array, b: Array) -> Array:
        """Return the inner products, one per target, or one in all for classes; shape (1, T) or (1, 1)."""
        each = np.einsum("jt,jt->t", a, b)[None]
        return np.asarray(each.sum(axis=1, keepdims=True)) if self.frame.loss.coupled else each

    def inside(self, delta: Array, b: Array) -> Array:
        """Return x for δ and the b of the rows as they are."""
        b = b + self.frame.mean @ delta if self.frame.centre else np.zeros_like(b)
        return np.vstack([delta * self.frame.varies, b]) * self.frame.scale

    def outside(self, x: Array) -> tuple[Array, Array]:
        """Return δ and the b of the centred rows."""
        y = x / self.frame.scale
        return y[:-1], y[-1]

    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        """Return f/W, its gradient (p + 1, T), the relative gradient; the first and last (1, T) or (1, 1)."""
        frame = self.frame
        delta, b = self.outside(x)
        sums = frame.sums(delta, b)
        self.recorder.passes += 1
        energy, pull = frame.penalised(delta)
        g = np.vstack([sums.gradient + pull, sums.intercept if frame.centre else np.zeros_like(b)])
        coupled = frame.loss.coupled
        value = (sums.value + (energy.sum(keepdims=True) if coupled else energy))[None]
        relative = np.max(np.abs(g) / self.size, axis=0, keepdims=True)
        relative = relative.max(axis=1, keepdims=True) if coupled else relative
        relative = np.where(np.isfinite(relative), relative, np.inf)
        W = frame.spread.weight
        return value / W, g / (W * frame.scale), relative

    def record(self, value: Array, relative: Array) -> bool:
        """Add to the trace; return whether to stop."""
        return self.recorder.add(float(value.sum() * self.frame.spread.weight), float(relative.max()))

    def lipschitz(self, x: Array) -> tuple[Array, bool]:
        """Return L, the largest curvature in these coordinates, (1, T) or (1, 1), and whether it is a bound.

        Power iteration on [Z, 1]ᵀdiag(w·h)[Z, 1] + αP with the bounds h of the loss's curvature, or, where it
        has none, with the curvature at x.
        """
        frame = self.frame
        delta, b = self.outside(x)
        b = b - frame.mean @ delta
        bounded = curvature_bound(frame.loss, np.zeros((1, x.shape[1]))) is not None

        def weights(chunk: Chunk) -> Array:
            h = curvature_bound(frame.loss, chunk.y)
            if h is None:
                eta = np.asarray(chunk.X @ delta) + b
                h = frame.loss.curvature(chunk.y, eta if chunk.offset is None else eta + chunk.offset)
            return np.asarray(h * chunk.w[:, None])

        v = np.random.default_rng(0).normal(size=x.shape)
        v[-1] *= frame.centre
        L = np.zeros_like(self.dot(v, v))
        for _ in range(POWER_PASSES):
            v = v / np.sqrt(self.dot(v, v))
            inner = v / frame.scale
            w = frame.curved(weights, inner)
            w[:-1] += frame.penalised(inner[:-1])[1]
            w = w / (frame.spread.weight * frame.scale)
            self.recorder.passes += 1
            last, L = L, np.sqrt(self.dot(w, w))
            v = np.where(L > 0, w, v)
            if np.all(np.abs(L - last) <= POWER_CHANGE * L):
                break
        return np.where(L > 0, POWER_MARGIN * L, 1.0), bounded

    def finish(self, x: Array, method: str, tol: float) -> Descent:
        """Minimise over the intercept at these coefficients, and measure the gradient there."""
        frame = self.frame
        delta, b = self.outside(x)
        sums, b, profiled = self.settle(delta, b)
        energy, pull = frame.penalised(delta)
        g = sums.gradient + pull
        gb = sums.intercept if frame.centre else np.zeros_like(b)
        relative = float(np.max(np.abs(np.vstack([g, gb])) / self.size))
        self.recorder.add(float(sums.value.sum() + energy.sum()), relative)
        b = b - frame.mean @ delta if frame.centre else np.zeros_like(b)
        coef, intercept = frame.rows.problem.restore(delta, b)
        if frame.loss.link == "softmax" and frame.centre:
            intercept = intercept - intercept.mean()  # which is up to us: the same number for every class
        return Descent(
            coef=coef,
            intercept=intercept,
            alpha=frame.alpha,
            relative=relative,
            converged=relative <= tol,
            method=method,
            trace=self.recorder.trace(),
            gradient=g,
            form=frame.form,
            coupled=frame.loss.coupled,
            profiled=profiled,
        )

    def settle(self, delta: Array, b: Array) -> tuple[Sums, Array, bool]:
        """Return the sums at the best b of the centred rows for δ, that b, and whether it was found.

        Newton's method; each target's root is kept between bounds, and a step that leaves them is replaced by
        their middle.
        """
        frame = self.frame
        low, high = np.full(len(b), -np.inf), np.full(len(b), np.inf)
        most = np.inf if frame.loss.link in ("identity", "margin") else SETTLE_STEP
        stretch = 1.0
        for _ in range(SETTLE_PASSES):
            sums = frame.sums(delta, b)
            self.recorder.passes += 1
            gb = sums.intercept
            # The sum of n terms has this much rounding in it, whatever b.
            noise = 4 * ROUNDOFF * np.sqrt(frame.spread.weight * sums.squares)
            if not frame.centre or np.all(np.abs(gb) <= np.maximum(SETTLED * self.size[-1], noise)):
                return sums, b, True
            low, high = np.where(gb < 0, b, low), np.where(gb > 0, b, high)
            step = np.clip(self._newton_step(delta, b, gb), -most, most)
            flat = ~np.isfinite(step) | (step == 0)
            step = np.where(flat, -np.sign(gb) * stretch, step)
            stretch *= 2.0
            new = b + step
            if not frame.loss.coupled:
                left = (new <= low) | (new >= high)
                bracketed = np.isfinite(low) & np.isfinite(high)
                middle = 0.5 * (np.where(bracketed, low, 0.0) + np.where(bracketed, high, 0.0))
                new = np.where(left & bracketed, middle, new)
            if np.all(new == b):
                return sums, b, True
            b = new
        return sums, b, False

    def _newton_step(self, delta: Array, b: Array, gb: Array) -> Array:
        """Return −H⁻¹g of the intercepts; one pass."""
        frame, T = self.frame, len(b)
        H = np.zeros((T, T))
        for chunk, _, eta in frame.products(delta, b):
            H += hessian_weights(frame.loss, chunk.y, eta, chunk.w).sum(axis=0)
        self.recorder.passes += 1
        if frame.loss.coupled:
            return np.asarray(np.linalg.lstsq(H, -gb, rcond=1e-12)[0])
        h = H.diagonal()
        return np.asarray(np.where(h > 0, -gb / np.where(h > 0, h, 1.0), 0.0))


def hessian_weights(loss: Loss, y: Array, eta: Array, w: Array) -> Array:
    """Return w·d²ℓ/dη_k dη_l, shape (m, T, T): diagonal, but for classes w·(diag(p) − ppᵀ)."""
    H = np.zeros((*eta.shape, eta.shape[1]))
    diagonal = np.arange(eta.shape[1])
    if loss.coupled:
        mu = loss.mean(eta)
        H -= mu[:, :, None] * mu[:, None, :]
    H[:, diagonal, diagonal] = loss.curvature(y, eta)
    return np.asarray(H * w[:, None, None])
