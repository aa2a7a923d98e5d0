"""Stochastic gradient descent on exactly the objective, for rows that come in small batches.

Divided by W = Σw the objective is the mean (1/W)Σ wᵢℓᵢ + (λ/2)(θ − θ₀)ᵀP(θ − θ₀) with λ = α/W. A step with a
batch B of the n rows goes, for δ = θ − θ₀ in the coordinates u = cδ of `first_order.Frame`,

    u ← (1 − η·r)·u − η·(n/W)·mean_B(wᵢℓ'ᵢzᵢ)/c,        b ← b − (η/c₀²)·(n/W)·mean_B(wᵢℓ'ᵢ),

where r = λP/c² is the decay of each coefficient towards θ₀; the intercept does not decay. The expectation
of a step is η times the gradient of the objective, so what is approached is its minimum, and nothing near it.

With sparse rows a step touches only the columns that the batch has. Decay and centring reach every column,
and are kept aside: u = s·v + (x̄/c)·k, where a step multiplies the numbers s and k (Bottou, 2012, "Stochastic
gradient descent tricks", section 5.1), and v is brought up to date when s is below 1e-9. The scales c are
such that few different decays r occur (powers of 4), one s and k for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block
from elltwo.data.memory import canonical_rows
from elltwo.errors import InputError
from elltwo.losses import Gaussian, Loss
from elltwo.penalties import Identity, Penalty, QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.first_order import (
    POWER_MARGIN,
    POWER_PASSES,
    Chunk,
    Descent,
    Frame,
    Objective,
    Recorder,
    Rows,
    Spread,
    check_alpha,
    check_count,
    check_one_of,
    check_start,
    check_targets,
    check_tolerance,
    curvature_bound,
    is_sparse,
    survey,
    with_loss,
)
from elltwo.solvers.first_order_state import DescentState, Gathered, gather_spreads

Array = npt.NDArray[Any]

SCHEDULES = ("constant", "inverse", "averaging")
#: Exponents of the schedules: η₀, η₀/(1 + at), η₀/(1 + at)^¾.
POWERS = {"constant": 0.0, "inverse": 1.0, "averaging": 0.75}
#: Ways to reduce the variance of a step.
REDUCTIONS = ("none", "svrg")
#: The scale s of lazily decayed coefficients is made one again below this.
RESCALE = 1e-9
#: Blocks of a stream among which the next is drawn at random.
SHUFFLED_BLOCKS = 4
#: Rows from which the step is chosen.
SAMPLE = 4096
#: An epoch has diverged if the objective exceeds this multiple of that at the start and without features.
DIVERGED = 2.0
#: How often the automatic step is halved before it is given up.
HALVINGS = 40


@dataclass(frozen=True)
class Schedule:
    """Step sizes η_t, t = 0, 1, … over the batches: constant η₀, η₀/(1 + at), or η₀/(1 + at)^¾.

    "inverse" with a = η₀λ is Bottou's γ₀/(1 + γ₀λt), which is also 1/(λ(t₀ + t)) with t₀ = 1/(λη₀), known as
    "optimal". "averaging" falls more slowly, for use with averaged iterates (Xu, 2011, "Towards optimal one
    pass large scale learning with averaged stochastic gradient descent"; Bottou, 2012, section 5.3).

    Parameters
    ----------
    name : {"constant", "inverse", "averaging"}
    step : float, optional
        η₀, without unit: in the coordinates of the steps the Hessian's diagonal is about 1. If None it is
        chosen from the curvature of the rows and halved (an epoch begun anew) if an epoch diverges.
    decay : float, optional
        a. If None, η₀ times the smallest decay r of the penalised coefficients, which is how convex the
        objective is at least.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> Schedule("inverse", step=0.5, decay=0.1).at(10, 0.5, 0.0)
    0.25
    """

    name: str = "averaging"
    step: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        if self.name == "optimal":
            raise InputError(
                "schedule='optimal' is not known. Did you mean 'inverse'? It is 1/(λ(t0 + t)), with t0 from "
                "the first step."
            )
        check_one_of("schedule", self.name, SCHEDULES)
        for what, least in (("step", "> 0"), ("decay", "≥ 0")):
            value = getattr(self, what)
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            good = number and 0 <= value < np.inf and (value > 0 or what == "decay")
            if value is not None and not good:
                raise InputError(f"schedule: {what} must be a finite number {least}, or None; got {value!r}.")
        if self.name == "constant" and self.decay is not None:
            raise InputError(
                "schedule 'constant' has no decay; use 'inverse' or 'averaging', or leave it out."
            )

    def at(self, t: int, first: float, strength: float) -> float:
        """Return η_t for η₀ = `first` and strong convexity `strength`."""
        decay = first * strength if self.decay is None else self.decay
        return float(first / (1.0 + decay * t) ** POWERS[self.name])


def as_schedule(schedule: Any, *, average: bool, reduction: str) -> Schedule:
    """Return a schedule for a name, an object, or None: what goes with averaging or reduced variance."""
    if isinstance(schedule, Schedule):
        return schedule
    if schedule is None:
        return Schedule("constant" if reduction == "svrg" else "averaging" if average else "inverse")
    return Schedule(schedule)


class Eager:
    """The iterate of dense rows: every step reaches every coefficient."""

    def __init__(self, u: Array, v: Array, frame: Frame) -> None:
        self.c, self.c0 = frame.scale[:-1], float(frame.scale[-1, 0])
        self.mean, self.centre = frame.mean, frame.centre
        self.decay = decays(frame)[:, None]
        self.u, self.v = u, v
        self.sum_u, self.sum_v, self.count = np.zeros_like(u), np.zeros_like(v), 0
        self.direction: tuple[Array, Array] | None = None

    def begin(self, direction: tuple[Array, Array] | None) -> None:
        """Begin an epoch whose steps have this direction in common: for u and for v."""
        self.direction = direction

    def eta(self, X: Any) -> tuple[Any, Array]:
        """Return what `move` wants of a batch's rows, and η without offset."""
        Z = X - self.mean if self.centre else X
        return Z, Z @ (self.u / self.c) + self.v / self.c0

    def move(self, Z: Any, q: Array, step: float, average: bool) -> None:
        """Take a step of this size with Σ z qᵀ."""
        self.u *= 1.0 - step * self.decay
        self.u -= (step / self.c) * (Z.T @ q)
        if self.centre:
            self.v -= (step / self.c0) * q.sum(axis=0)
        if self.direction is not None:
            self.u -= step * self.direction[0]
            self.v -= step * self.direction[1]
        if average:
            self.sum_u += self.u
            self.sum_v += self.v
            self.count += 1

    def now(self) -> tuple[Array, Array]:
        """Return the last iterate (u, v), a copy."""
        return self.u.copy(), self.v.copy()

    def averaged(self) -> tuple[Array, Array]:
        """Return the mean of the iterates that were averaged, the last one if none was."""
        if self.count == 0:
            return self.now()
        return self.sum_u / self.count, self.sum_v / self.count


class Lazy:
    """The iterate of sparse rows: a step reaches the columns that the batch has, and numbers for the rest.

    In group g of columns, those of one decay r_g, u = s_g·v + h·k_g + d·m_g with h = x̄/c and d the direction
    that all steps of an epoch have in common. The running sums of the iterates are kept likewise, as
    a + C_g·v − e + h·K_g + d·M_g.
    """

    def __init__(self, u: Array, v: Array, frame: Frame) -> None:
        self.c, self.c0, self.centre = frame.scale[:-1, 0], float(frame.scale[-1, 0]), frame.centre
        self.h = (frame.mean / self.c)[:, None]
        self.rate, self.group = np.unique(decays(frame), return_inverse=True)
        self.v0 = v
        self.sum_u, self.sum_v, self.count = np.zeros_like(u), np.zeros_like(v), 0
        self.base, self.d = u.copy(), np.zeros_like(u)
        self.free: tuple[Array, Array] | None = None
        self._reset()

    def _reset(self) -> None:
        G, T = len(self.rate), self.base.shape[1]
        self.s, self.k, self.m = np.ones((G, 1)), np.zeros((G, T)), np.zeros((G, 1))
        self.C, self.K, self.M = np.zeros((G, 1)), np.zeros((G, T)), np.zeros((G, 1))
        self.e = np.zeros_like(self.base)
        self.hv, self.hh, self.hd = (self._grouped(self.h * x) for x in (self.base, self.h, self.d))

    def _grouped(self, values: Array) -> Array:
        """Return the sums over each group's columns, shape (G, …)."""
        total = np.zeros((len(self.rate), values.shape[1]))
        np.add.at(total, self.group, values)
        return total

    def _update(self) -> None:
        """Bring every coefficient and sum up to date."""
        g = self.group
        self.sum_u += self.C[g] * self.base - self.e + self.h * self.K[g] + self.d * self.M[g]
        self.base = self.s[g] * self.base + self.h * self.k[g] + self.d * self.m[g]
        self._reset()

    def begin(self, direction: tuple[Array, Array] | None) -> None:
        """Begin an epoch whose steps have this direction in common: for u and for v."""
        self._update()
        self.d = np.zeros_like(self.base) if direction is None else direction[0]
        self.free = direction
        self._reset()

    def eta(self, X: Any) -> tuple[Any, Array]:
        """Return what `move` wants of a batch's rows, and η without offset."""
        columns, place = np.unique(X.indices, return_inverse=True)
        small = type(X)((X.data, place.ravel(), X.indptr), shape=(X.shape[0], len(columns)))
        g = self.group[columns]
        u = self.s[g] * self.base[columns] + self.h[columns] * self.k[g] + self.d[columns] * self.m[g]
        eta = np.asarray(small @ (u / self.c[columns, None])) + self.v0 / self.c0
        if self.centre:
            eta -= np.sum(self.s * self.hv + self.k * self.hh + self.m * self.hd, axis=0)
        return (small, columns), eta

    def move(self, rows: Any, q: Array, step: float, average: bool) -> None:
        """Take a step of this size with Σ z qᵀ."""
        small, columns = rows
        total = q.sum(axis=0)
        factor = (1.0 - step * self.rate)[:, None]
        self.s *= factor
        self.k *= factor
        self.m *= factor
        g = self.group[columns]
        change = (-step / self.c[columns, None]) * np.asarray(small.T @ q) / self.s[g]
        self.base[columns] += change
        self.e[columns] += self.C[g] * change
        if self.centre:
            np.add.at(self.hv, g, self.h[columns] * change)
            self.k += step * total
            self.v0 = self.v0 - (step / self.c0) * total
        if self.free is not None:
            self.m -= step
            self.v0 = self.v0 - step * self.free[1]
        if average:
            self.C += self.s
            self.K += self.k
            self.M += self.m
            self.sum_v += self.v0
            self.count += 1
        if self.s.min() < RESCALE:
            self._update()

    def now(self) -> tuple[Array, Array]:
        """Return the last iterate (u, v), a copy."""
        self._update()
        return self.base.copy(), np.array(self.v0)

    def averaged(self) -> tuple[Array, Array]:
        """Return the mean of the iterates that were averaged, the last one if none was."""
        self._update()
        if self.count == 0:
            return self.now()
        return self.sum_u / self.count, self.sum_v / self.count


def decays(frame: Frame) -> Array:
    """Return r = (α/W)·d/c² for each coefficient, shape (p,)."""
    c = frame.scale[:-1, 0]
    return np.asarray(frame.alpha[0] / frame.spread.weight * frame.form.d / c / c)


def few_decays(frame: Frame) -> Frame:
    """Return the frame with scales rounded to √d times a power of two, so that few decays occur."""
    d = frame.form.d
    c = frame.scale[:-1, 0]
    root = np.sqrt(np.where(d > 0, d, 1.0))
    rounded = root * 2.0 ** np.round(np.log2(c / root))
    scale = np.append(np.where(d > 0, rounded, c), frame.scale[-1, 0])[:, None]
    return replace(frame, scale=scale)


def automatic_step(frame: Frame, chunk: Chunk, batch: int, reduction: str) -> float:
    """Return 1/(2ℒ), or 1/(2(ℒ + 2ρ)) with reduced variance, measured on a sample of the rows.

    ℒ = (n(b−1)/(b(n−1)))·L + ρ is the expected smoothness of batches of b, and ρ = ((n−b)/(b(n−1)))·max Lᵢ,
    with L the curvature of the mean loss and Lᵢ those of the rows (Gower et al., 2019, "SGD: general analysis
    and improved rates"; Sebbouh et al., 2019, "Towards closing the gap between the theory and practice of
    SVRG"). Where the loss's curvature has no bound, it is taken at the model without features.
    """
    X, c, h = chunk.X[:SAMPLE], frame.scale[:-1, 0], frame.mean / frame.scale[:-1, 0]
    constant = 1.0 / frame.scale[-1, 0] if frame.centre else 0.0
    y, w = chunk.y[:SAMPLE], chunk.w[:SAMPLE] * (frame.spread.n / frame.spread.weight)
    curve = curvature_bound(frame.loss, y)
    if curve is None:
        eta = np.broadcast_to(frame.null(), y.shape)
        curve = frame.loss.curvature(y, eta if chunk.offset is None else eta + chunk.offset[:SAMPLE])
    curve = curve.max(axis=1) * w
    if is_sparse(X):
        squares = X.power(2) @ c**-2 - 2 * (X @ (h / c)) + h @ h
    else:
        squares = np.sum(((X - frame.mean) / c) ** 2, axis=1)
    each = float(np.max(curve * (np.maximum(squares, 0.0) + constant**2), initial=0.0))
    v, L = np.random.default_rng(0).normal(size=frame.p + 1), 0.0
    for _ in range(POWER_PASSES):
        v = v / np.linalg.norm(v)
        q = curve * (X @ (v[:-1] / c) - h @ v[:-1] + constant * v[-1]) / len(y)
        v = np.append((X.T @ q) / c - h * q.sum(), constant * q.sum())
        L = float(np.linalg.norm(v))
        if L == 0.0:
            break
    n = max(frame.spread.n, 2)
    b = min(batch, n)
    rho = (n - b) / (b * (n - 1)) * each
    smooth = n * (b - 1) / (b * (n - 1)) * POWER_MARGIN * L + rho + float(decays(frame).max(initial=0.0))
    smooth += 2 * rho if reduction == "svrg" else 0.0
    return 1.0 / (2.0 * smooth) if smooth > 0 else 1.0


class SGDState:
    """Coefficients that learn from blocks of rows as they come, each seen once and let go.

    The objective is that of `sum_weights`, the Σw of all the rows to come (over one epoch): it sets
    λ = α/Σw. The origin and the scales of the columns, and the first step, come from the first block.

    Parameters
    ----------
    alpha : float
        Sum scale.
    sum_weights : float
        Σw of the rows that the objective is about.
    n_features, n_targets : int
    loss : Loss
    rows : float, optional
        Their number n; `sum_weights` if None, which is right where the weights average one.
    penalty : Penalty
        Diagonal.
    prior : array, shape (p,), optional
        θ₀.
    fit_intercept : bool
    batch_size : int
    schedule : str or Schedule, optional
    average : int or bool
        Average the iterates after so many blocks (True: one); False: not.
    random_state : None, int or numpy.random.Generator
        For the order of the rows within a block.

    Raises
    ------
    InputError
        For arguments that cannot be used.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> state = SGDState(0.0, sum_weights=4000, n_features=2, schedule=Schedule("constant"), random_state=0)
    >>> for start in range(0, 4000, 1000):
    ...     X = rng.normal(size=(1000, 2))
    ...     state.update(Block(X, X @ [[1.0], [2.0]] + 3, None, start))
    >>> state.coef[:, 0].round(3), state.intercept.round(3)
    (array([1., 2.]), array([3.]))
    """

    def __init__(
        self,
        alpha: float,
        *,
        sum_weights: float,
        n_features: int,
        n_targets: int = 1,
        loss: Loss | None = None,
        rows: float | None = None,
        penalty: Penalty | None = None,
        prior: Any = None,
        fit_intercept: bool = True,
        batch_size: int = 32,
        schedule: Any = None,
        average: int | bool = True,
        random_state: Any = None,
    ) -> None:
        self.alpha = check_alpha(alpha, n_targets, shared=True)
        for name, value in (("sum_weights", sum_weights), ("rows", rows)):
            if value is not None and not (isinstance(value, (int, float, np.number)) and 0 < value < np.inf):
                raise InputError(f"{name} must be a finite number > 0; got {value!r}.")
        self.weight, self.n = float(sum_weights), sum_weights if rows is None else rows
        self.p, self.T = check_count("n_features", n_features), check_count("n_targets", n_targets)
        self.loss: Any = Gaussian() if loss is None else loss
        self.penalty = Identity() if penalty is None else penalty
        self.penalty.check(self.p)
        self.prior = np.zeros(self.p) if prior is None else np.asarray(prior, dtype=np.float64)
        if self.prior.shape != (self.p,) or not np.isfinite(self.prior).all():
            raise InputError(f"prior must be {self.p} finite numbers, one per feature.")
        self.centre, self.batch = fit_intercept, check_count("batch_size", batch_size)
        self.average = check_average(average)
        self.schedule = as_schedule(schedule, average=self.average is not None, reduction="none")
        self.rng = check_random_state(random_state)
        self.blocks = 0
        self.steps: Steps | None = None

    def update(self, block: Block) -> None:
        """Take steps with the rows of a block, in random order; nothing of the block is kept or changed.

        Raises
        ------
        InputError
            If the block does not fit, or a value is not one that the loss is made for.
        """
        if block.X.shape[1:] != (self.p,) or block.y.shape[1:] != (self.T,) or len(block.y) == 0:
            raise InputError(
                f"the block has X of shape {block.X.shape} and y of shape {block.y.shape}; they must be "
                f"(m, {self.p}) and (m, {self.T}) with m ≥ 1."
            )
        X = canonical_rows(block.X) if hasattr(block.X, "tocsr") else block.X
        values = X.data if is_sparse(X) else X
        if not np.isfinite(values).all():
            raise InputError("the block's X contains NaN or infinity; repair or leave out those rows.")
        names = ["y"] if self.T == 1 else [f"y{t}" for t in range(self.T)]
        check_targets(self.loss, block.y, names, block.start)
        w = np.ones(len(block.y)) if block.weights is None else block.weights
        if not (np.isfinite(w).all() and (w >= 0).all()):
            raise InputError("the block's weights must be finite and not negative.")
        if self.steps is None:
            self.steps = self._begin(Chunk(X, block.y, w, block.offset, block.start))
        if isinstance(self.steps.iterate, Lazy) != is_sparse(X):
            raise InputError("the first block and this one must be both dense or both sparse; convert one.")
        own = np.asarray(X @ self.prior[:, None]) - self.frame.mean @ self.prior
        offset = own if block.offset is None else block.offset + own
        average = self.average is not None and self.blocks >= self.average
        order = self.rng.permutation(len(block.y))
        for i in range(0, len(order), self.batch):
            part = order[i : i + self.batch]
            self.steps.take(X[part], block.y[part], w[part], offset[part], average)
        self.blocks += 1

    def _begin(self, chunk: Chunk) -> Steps:
        source = _Shape(self.p, self.T)
        problem = Problem(source, self.penalty, None, self.centre, self.loss)  # type: ignore[arg-type]
        seen = Spread.of(chunk)
        share = self.weight / seen.weight if seen.weight > 0 else 1.0
        spread = Spread(round(self.n), seen.rows, self.weight, seen.mean, seen.squares * share)
        form = self.penalty.form(spread.scale[: self.p])
        check_form(form)
        check_decay(self.schedule, self.alpha)
        frame = Frame.of(Rows(problem), spread, form, self.alpha, self.centre)
        self.frame = few_decays(frame)
        first = self.schedule.step or automatic_step(self.frame, chunk, self.batch, "none")
        u, v = np.zeros((self.p, self.T)), self.frame.null() * self.frame.scale[-1, 0]
        return Steps(self.frame, u, v, self.schedule, first, is_sparse(chunk.X))

    @property
    def coef(self) -> Array:
        """θ so far, (p, T): averaged if asked for."""
        return self._outside()[0]

    @property
    def intercept(self) -> Array:
        """Intercepts so far, (T,)."""
        return self._outside()[1]

    def _outside(self) -> tuple[Array, Array]:
        prior = np.broadcast_to(self.prior[:, None], (self.p, self.T))
        if self.steps is None:
            return prior.copy(), np.zeros(self.T)
        u, v = self.steps.iterate.averaged()
        delta, b = u / self.frame.scale[:-1], v / self.frame.scale[-1, 0]
        coef = delta + prior
        return coef, b - self.frame.mean @ coef


@dataclass(frozen=True)
class _Shape:
    """A source of nothing but its shape."""

    n_features: int
    n_targets: int


class Steps:
    """The iterate with its step sizes: takes one step per batch."""

    def __init__(
        self, frame: Frame, u: Array, v: Array, schedule: Schedule, first: float, sparse: bool
    ) -> None:
        self.frame, self.schedule, self.first = frame, schedule, first
        self.iterate = (Lazy if sparse else Eager)(u, v, frame)
        rate = decays(frame)
        self.strength = float(rate[rate > 0].min(initial=np.inf)) if (rate > 0).any() else 0.0
        largest = float(rate.max(initial=0.0))
        if first * largest >= 1.0:
            raise InputError(
                f"schedule: a first step of {first:g} would turn the decay of a coefficient over "
                f"(step × decay = {first * largest:.3g} must be below 1). "
                f"Give a step below {1 / largest:.3g}."
            )
        self.t = 0
        self.anchor: tuple[Array, Array] | None = None

    def epoch(self, anchor: tuple[Array, Array] | None, direction: tuple[Array, Array] | None) -> None:
        """Begin an epoch; with reduced variance about the anchor (δ, b), where the gradient is known."""
        self.anchor = anchor
        self.iterate.begin(direction)

    def take(self, X: Any, y: Array, w: Array, offset: Array | None, average: bool) -> None:
        """Take a step with a batch of rows."""
        frame = self.frame
        loss = frame.loss
        rows, eta = self.iterate.eta(X)
        slope = loss.gradient(y, eta if offset is None else eta + offset)
        if self.anchor is not None:
            at = np.asarray(X @ self.anchor[0]) + self.anchor[1]
            slope = slope - loss.gradient(y, at if offset is None else at + offset)
        q = slope * (w * (frame.spread.n / (frame.spread.weight * len(y))))[:, None]
        step = self.schedule.at(self.t, self.first, self.strength)
        self.iterate.move(rows, q, step, average)
        self.t += 1


def check_form(form: QuadraticForm) -> None:
    """Refuse a penalty matrix: decay is coefficient by coefficient."""
    if form.rotation is not None:
        raise InputError(
            "stochastic gradient descent decays each coefficient on its own, so penalty must be None or one "
            "multiplier per feature. Use gradient_descent for a penalty matrix."
        )


def check_decay(schedule: Schedule, alpha: Array) -> None:
    """Refuse steps that are to fall with alpha if alpha is 0."""
    if POWERS[schedule.name] and schedule.decay is None and not alpha.any():
        raise InputError(
            f"schedule '{schedule.name}' falls at the rate of alpha, which is 0. Give it a decay, as in "
            f"Schedule('{schedule.name}', decay=0.01), or use schedule='constant' with "
            "variance_reduction='svrg'."
        )


def check_average(average: Any, epochs: int | None = None) -> int | None:
    """Return the epoch (or block) from which iterates are averaged, or None."""
    if average is False or average is None:
        return None
    if average is True:
        return 1 if epochs is None else min(1, epochs - 1)
    first = check_count("average", average, 0)
    if epochs is not None and first >= epochs:
        raise InputError(
            f"average={first} begins after the last of {epochs} epochs (they count from 0). "
            "Begin earlier, or give more epochs."
        )
    return first


def check_random_state(random_state: Any) -> np.random.Generator:
    """Return a generator for a seed, a generator (used as it is), or None: a fresh one."""
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError):
        raise InputError(
            f"random_state must be None, a whole number ≥ 0 or a numpy Generator; got {random_state!r}."
        ) from None


def batches(rows: Rows, batch: int, rng: np.random.Generator) -> Iterator[Chunk]:
    """Yield every row once, in random order, in batches.

    Rows of arrays in memory are shuffled as a whole. Of a stream a few blocks are held, the next one drawn
    from among them at random, and its rows shuffled.
    """
    if rows.by_index:
        order = rng.permutation(rows.indices())
        for i in range(0, len(order), batch):
            yield rows.pick(order[i : i + batch])
        return
    held: list[Block] = []
    for block in rows.blocks():
        held.append(block)
        if len(held) == SHUFFLED_BLOCKS:
            yield from _shuffled(rows, held.pop(int(rng.integers(len(held)))), batch, rng)
    while held:
        yield from _shuffled(rows, held.pop(int(rng.integers(len(held)))), batch, rng)


def _shuffled(rows: Rows, block: Block, batch: int, rng: np.random.Generator) -> Iterator[Chunk]:
    order = rng.permutation(rows.own(block))
    for i in range(0, len(order), batch):
        part = order[i : i + batch]
        y = block.y[part]
        w = np.ones(len(y)) if block.weights is None else block.weights[part]
        yield Chunk(block.X[part], y, w, None if block.offset is None else block.offset[part], block.start)


def some_rows(rows: Rows, rng: np.random.Generator) -> Chunk:
    """Return a sample of the rows: random ones of arrays in memory, the first ones of a stream."""
    if rows.by_index:
        own = rows.indices()
        return rows.pick(own if len(own) <= SAMPLE else np.sort(rng.choice(own, SAMPLE, replace=False)))
    return next(rows.chunks())


def sgd(
    problem: Problem,
    alpha: Any,
    *,
    loss: Loss | None = None,
    batch_size: int = 32,
    epochs: int = 20,
    schedule: Any = None,
    average: int | bool = True,
    variance_reduction: str = "none",
    tol: float = 1e-8,
    random_state: Any = None,
    start: Any = None,
    callback: Callable[[int, float, float], Any] | None = None,
) -> Descent:
    """Minimise Σ wᵢ·½dev(yᵢ, ηᵢ) + (α/2)(θ − θ₀)ᵀP(θ − θ₀) by steps on small random batches of rows.

    Every epoch sees each row once, in an order drawn anew, and is followed by a pass that measures the
    objective and its gradient for the trace. Averaged iterates converge faster than the last one (Polyak
    and Juditsky, 1992). With "svrg" a step takes the difference of the batch's gradients here and at the
    epoch's start, plus the full gradient there (Johnson and Zhang, 2013), and converges to the optimum
    with a constant step.

    Where no step is given and an epoch diverges, all begins anew with half the step; the passes of the trace
    count that, too.

    Parameters
    ----------
    problem : Problem
        Rows in memory (dense or sparse) or streamed; the penalty None or one multiplier per feature.
    alpha : float
        Sum scale.
    loss : Loss, optional
        Other than the problem's own.
    batch_size : int
        Rows in a step.
    epochs : int
        Most often that each row is seen.
    schedule : {"constant", "inverse", "averaging"} or Schedule, optional
        None: "constant" with variance reduction, else "averaging" with averages and "inverse" without.
    average : int or bool
        Average the iterates from this epoch on; 0 is the first, True the second if there is one. False:
        return the last iterate.
        Variance reduction and averaging exclude each other, so with "svrg" it must be False.
    variance_reduction : str
        "none" or "svrg".
    tol : float
        Stop before the last epoch at a relative gradient of at most `tol`.
    random_state : None, int or numpy.random.Generator
        The same seed gives the same result.
    start : Descent or pair (coef (p, T), intercept (T,)), optional
        Where to begin; at θ₀ and the best intercept for it if None.
    callback : callable (passes, objective, relative gradient), optional
        Called with every entry of the trace; returning True stops.

    Returns
    -------
    Descent
        `distance` bounds how far it is from the optimum. Its intercept is the best for its coefficients.

    Raises
    ------
    InputError
        For data or arguments that cannot be used, and if the given step makes an epoch diverge.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> problem = Problem(MemorySource(X, X @ [1.0, 2.0] + 3))
    >>> result = sgd(problem, 1.0, average=False, variance_reduction="svrg", tol=1e-10, random_state=0)
    >>> gram = 500 * np.cov(X.T, bias=True)
    >>> exact = np.linalg.solve(gram + np.eye(2), gram @ [1, 2])
    >>> result.converged, bool(np.abs(result.coef[:, 0] - exact).max() < 1e-8)
    (True, True)
    """
    problem = with_loss(problem, loss)
    options = Options(batch_size, epochs, schedule, average, variance_reduction, tol)
    alphas = check_alpha(alpha, problem.source.n_targets, shared=True)
    begin = check_start(start, problem)
    rng = check_random_state(random_state)
    check_form(problem.form(np.ones(problem.source.n_features)))
    recorder = Recorder(callback)
    rows = Rows(problem)
    spread = survey(rows)
    recorder.passes += 1
    form = problem.form(spread.scale[: problem.source.n_features])
    frame = Frame.of(rows, spread, form, alphas, problem.fit_intercept)
    return options.run(frame, begin, recorder, rng)


@dataclass(frozen=True)
class Options:
    """Checked options of `sgd`."""

    batch_size: int = 32
    epochs: int = 20
    schedule: Any = None
    average: int | bool = True
    variance_reduction: str = "none"
    tol: float = 1e-8

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        check_count("epochs", self.epochs)
        check_one_of("variance_reduction", self.variance_reduction, REDUCTIONS)
        first = check_average(self.average, self.epochs)
        if first is not None and self.variance_reduction == "svrg":
            raise InputError(
                "average must be False with variance_reduction='svrg': its last iterate converges, and "
                "earlier ones would hold it back."
            )
        check_tolerance(self.tol)
        as_schedule(self.schedule, average=first is not None, reduction=self.variance_reduction)

    def run(
        self,
        frame: Frame,
        begin: tuple[Array, Array] | None,
        recorder: Recorder,
        rng: np.random.Generator,
    ) -> Descent:
        """Minimise in the coordinates of the frame, from (δ, b) of the reduced problem."""
        check_form(frame.form)
        average = check_average(self.average, self.epochs)
        schedule = as_schedule(self.schedule, average=average is not None, reduction=self.variance_reduction)
        check_decay(schedule, frame.alpha)
        frame = few_decays(frame)
        objective = Objective.of(frame, recorder)
        if begin is None:
            begin = np.zeros((frame.p, len(frame.alpha))), frame.null()
        x = objective.inside(*begin)
        sample = some_rows(frame.rows, rng)
        step = schedule.step or automatic_step(frame, sample, self.batch_size, self.variance_reduction)
        for _ in range(HALVINGS):
            end = self._attempt(objective, x, schedule, step, is_sparse(sample.X), rng)
            if end is not None:
                return objective.finish(end, "sgd", self.tol)
            if schedule.step is not None:
                raise InputError(
                    f"the iterates diverged with a first step of {step:g}. Give the schedule a smaller one, "
                    "or none: then it is found."
                )
            step *= 0.5
            recorder.entries.clear()
        raise InputError("no step is small enough for this loss on these rows; rescale y, or raise alpha.")

    def _attempt(
        self,
        objective: Objective,
        x: Array,
        schedule: Schedule,
        first: float,
        sparse: bool,
        rng: np.random.Generator,
    ) -> Array | None:
        """Return the end of all epochs, or None if an epoch diverges."""
        frame, average = objective.frame, check_average(self.average, self.epochs)
        steps = Steps(frame, x[:-1].copy(), x[-1].copy(), schedule, first, sparse)
        value, g, relative = objective(x)
        ceiling = DIVERGED * max(float(value.sum()), objective.null / frame.spread.weight)
        stop = objective.record(value, relative)
        end = x
        for epoch in range(self.epochs):
            if stop or (relative <= 0.5 * self.tol).all():
                break
            averaging = average is not None and epoch >= average
            if self.variance_reduction == "svrg":
                delta, b = objective.outside(x)
                direction = g[:-1] - decays(frame)[:, None] * x[:-1], g[-1]
                steps.epoch((delta, b - frame.mean @ delta), direction)
            else:
                steps.epoch(None, None)
            with np.errstate(over="ignore", invalid="ignore"):
                for batch in batches(frame.rows, self.batch_size, rng):
                    steps.take(batch.X, batch.y, batch.w, batch.offset, averaging)
                objective.recorder.passes += 1 + (self.variance_reduction == "svrg")
                x = np.vstack(steps.iterate.now())
                value, g, relative = objective(x)
            if not (np.isfinite(x).all() and np.isfinite(g).all() and float(value.sum()) <= ceiling):
                return None
            end = x
            if averaging:
                end = np.vstack(steps.iterate.averaged())
                value, _, relative = objective(end)
            stop = objective.record(value, relative)
        return end


@dataclass(frozen=True)
class SGDSolver:
    """`sgd` as a solver: every alpha from the next larger one's solution, with the same seed.

    Parameters
    ----------
    batch_size, epochs, schedule, average, variance_reduction, tol
        As in `sgd`; by default with reduced variance, so that the optimum is reached.
    random_state : int
        Seed of every model.

    Raises
    ------
    InputError
        If an option cannot be used.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> problem = Problem(MemorySource([[-1.0], [0.0], [1.0]], [0.0, 1.0, 5.0]))
    >>> solver = SGDSolver(batch_size=1)
    >>> (statistic,) = solver.gather(problem)
    >>> state = solver.state(statistic, problem.form(statistic.x_scale), True)
    >>> state.coef(np.array([1.0, 2.0]))[:, 0, 0].round(6)
    array([1.666667, 1.25    ])
    """

    batch_size: int = 32
    epochs: int = 500
    schedule: Any = None
    average: int | bool = False
    variance_reduction: str = "svrg"
    tol: float = 1e-10
    random_state: int = 0
    name: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        check_count("random_state", self.random_state, 0)
        self._options()

    def _options(self) -> Options:
        return Options(
            self.batch_size, self.epochs, self.schedule, self.average, self.variance_reduction, self.tol
        )

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[Gathered]:
        """Return the rows of each atom, by name, with their means and scales; one pass."""
        return gather_spreads(problem, labels, n_atoms)

    def state(self, statistic: Gathered, form: QuadraticForm, centre: bool) -> DescentState:
        """Return a state whose models are solved when they are asked for."""
        check_form(form)
        return DescentState(statistic, form, centre, self._descend)

    def _descend(self, frame: Frame, start: tuple[Array, Array] | None) -> Descent:
        rng = np.random.default_rng(self.random_state)
        return self._options().run(frame, start, Recorder(), rng)
