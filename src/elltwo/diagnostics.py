"""Is the answer right? Residuals measured on the data, refinement, and the expected correct digits.

The gradient of the objective at (θ, b), with residuals r = y − b − Xθ and centred rows Z,

    g = ZᵀWr − αPθ,

is zero at the optimum, and (G + αP)⁻¹g is the step to it: iterative refinement (Björck, 1967; Higham,
2002, ch. 20). Small problems measure g in twice the working precision, so that refinement ends with
correctly rounded coefficients even where the normal equations alone would lose digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, cross_product
from elltwo.extended import Extended
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import State, Statistic, targets_as_given

Array = npt.NDArray[Any]

#: Largest n·p·T whose residuals are measured in twice the working precision.
EXTENDED_SIZE = 200_000
#: Refinement stops when a step no longer shrinks by this factor, or after so many steps.
SHRINKS_BY, MOST_STEPS = 0.25, 8
#: Elements of the data that each rounding probe perturbs, and the number of probes.
PROBE_SIZE, PROBES = 100_000, 8


@dataclass(frozen=True)
class Measured:
    """What one pass over the rows says about (θ, b): gradient (p, T), Σwr/W (T,) and RSS (T,)."""

    gradient: Array
    mean_residual: Array
    rss: Array


@dataclass(frozen=True)
class Solution:
    """Refined coefficients and what is known of their accuracy.

    Attributes
    ----------
    coef, intercept : arrays, shapes (p, T) and (T,)
    rss : array, shape (T,)
    residual : float
        max |gⱼ| / (‖z_j‖·‖y − ȳ‖).
    step : arrays (p, T) and (T,)
        The next refinement step, not taken: an estimate of the remaining error.
    refinements : int
    measured_on : str
    """

    coef: Array
    intercept: Array
    rss: Array
    residual: float
    step: tuple[Array, Array]
    refinements: int
    measured_on: str


@dataclass(frozen=True)
class Optimum:
    """The problem at one alpha per target, with the state that can solve it."""

    problem: Problem
    statistic: Statistic
    state: State
    form: QuadraticForm
    alpha: Array

    @property
    def x_mean(self) -> Array:
        """Means the rows are centred at: zero without an intercept."""
        return self.statistic.x_mean if self.problem.fit_intercept else np.zeros_like(self.statistic.x_mean)

    def start(self) -> tuple[Array, Array]:
        """Return the solver's own (θ, b)."""
        coef = self.state.coef_at(self.alpha)
        centre = self.problem.fit_intercept
        b = self.statistic.y_mean - self.statistic.x_mean @ coef if centre else np.zeros(coef.shape[1])
        return self.problem.restore(coef, b)

    def step(self, measured: Measured) -> tuple[Array, Array]:
        """Return the refinement step (δθ, δb) for a measured gradient."""
        d_coef = self.state.solve(measured.gradient, self.alpha)
        if not self.problem.fit_intercept:
            return d_coef, np.zeros(d_coef.shape[1])
        return d_coef, measured.mean_residual - self.statistic.x_mean @ d_coef

    def size(self) -> Array:
        """Return ‖z_j‖·‖y_t − ȳ_t‖, shape (p, T), for relative residuals."""
        centre = self.problem.fit_intercept
        s = self.statistic
        x2 = s.x_scale**2 + (0 if centre else s.x_mean**2)
        y2 = s.y_scale**2 + (0 if centre else s.y_mean**2)
        return np.asarray(s.weight * np.sqrt(np.outer(x2, y2)))


def measure(optimum: Optimum, coef: Array, intercept: Array) -> Measured:
    """Measure the gradient at (θ, b) on the rows, in twice the working precision if they are few."""
    problem, W = optimum.problem, optimum.statistic.weight
    n = optimum.statistic.rows
    extended = n * coef.size <= EXTENDED_SIZE
    weighted_x = np.zeros_like(coef)
    weighted_1, rss = np.zeros_like(intercept), np.zeros_like(intercept)
    for block in problem.source.blocks():
        for part in _cached_slices(block.X):
            X, y = block.X[part], block.y[part]
            y = y if block.offset is None else y - block.offset[part]
            w = None if block.weights is None else block.weights[part]
            if extended:
                gx, g1, r = _products_extended(X, y, w, coef, intercept, optimum.x_mean)
            else:
                r = y - X @ coef - intercept
                wr = r if w is None else w[:, None] * r
                g1 = wr.sum(axis=0)
                gx = cross_product(X, wr) - np.outer(optimum.x_mean, g1)
            weighted_x += gx
            weighted_1 += g1
            rss += np.einsum("it,it->t", r, r) if w is None else np.einsum("i,it,it->t", w, r, r)
    gradient = weighted_x - optimum.alpha * optimum.form.apply(coef - problem.prior_column)
    if problem.fit_intercept:
        gradient[optimum.statistic.x_scale == 0] = 0.0
    return Measured(gradient, weighted_1 / W, rss)


def measure_moments(optimum: Optimum, coef: Array, intercept: Array) -> Measured:
    """Measure the gradient on the moments: exact only up to the rounding of the moments themselves."""
    moments: Any = optimum.statistic
    coef, intercept = optimum.problem.reduce(coef, intercept)
    gram, cross, _ = moments.about(optimum.problem.fit_intercept)
    gradient = cross - gram @ coef - optimum.alpha * optimum.form.apply(coef)
    return Measured(gradient, np.zeros_like(intercept), moments.deviance(coef[None], intercept[None])[0])


def _cached_slices(X: Array) -> Iterator[slice]:
    step = max(1, (1 << 19) // max(1, X.shape[1]))
    for start in range(0, len(X), step):
        yield slice(start, start + step)


def _products_extended(
    X: Array, y: Array, w: Array | None, coef: Array, intercept: Array, mean: Array
) -> tuple[Array, Array, Array]:
    """Return (ZᵀWr, 1ᵀWr, r) with residuals and sums in twice the working precision."""
    gx, g1, residual = np.empty_like(coef), np.empty_like(intercept), np.empty_like(y)
    for t in range(y.shape[1]):
        fitted = Extended.product(X, coef[:, t]).sum(axis=1)
        r = Extended.of(y[:, t]).minus(intercept[t]).minus(fitted)
        wr = r if w is None else r.times(w)
        total = wr.sum(axis=0)
        gx[:, t] = Extended.outer(X, wr).sum(axis=0).minus(total.times(mean)).value()
        g1[t], residual[:, t] = total.value(), r.value()
    return gx, g1, residual


def refine(optimum: Optimum, *, on_rows: bool, tol: float) -> Solution:
    """Refine the solver's coefficients until the step is below `tol` or no longer shrinks.

    Parameters
    ----------
    optimum : Optimum
        Problem, state and alpha.
    on_rows : bool
        Measure on the rows (one pass each); otherwise on the moments, which takes away what the
        factorisation lost and leaves what the moments did.
    tol : float
        Largest remaining step, relative to the coefficients, that is left untaken.
    """
    look = measure if on_rows else measure_moments
    coef, intercept = optimum.start()
    measured = look(optimum, coef, intercept)
    step = optimum.step(measured)
    size, taken = _relative_step(step, coef, intercept), 0
    small = on_rows and optimum.statistic.rows * coef.size <= EXTENDED_SIZE
    goal = ROUNDOFF if small else tol
    while size > goal and taken < MOST_STEPS:
        better = coef + step[0], intercept + step[1]
        again = look(optimum, *better)
        next_step = optimum.step(again)
        next_size = _relative_step(next_step, *better)
        if not next_size < size:
            break
        taken += 1
        stalled = next_size > SHRINKS_BY * size
        (coef, intercept), measured, step, size = better, again, next_step, next_size
        if stalled:
            break
    scale = optimum.size()
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(scale > 0, np.abs(measured.gradient) / scale, 0.0)
    return Solution(
        coef=coef,
        intercept=intercept,
        rss=measured.rss,
        residual=float(relative.max(initial=0.0)),
        step=step,
        refinements=taken,
        measured_on="rows" if on_rows else "moments",
    )


def _relative_step(step: tuple[Array, Array], coef: Array, intercept: Array) -> float:
    return _worst(np.abs(step[0]), np.abs(step[1]), coef, intercept)


def _worst(d_coef: Array, d_intercept: Array, coef: Array, intercept: Array) -> float:
    """Return the largest error relative to its own coefficient; coefficients that are 0 are exact."""
    error = np.concatenate([d_coef.ravel(), d_intercept.ravel()])
    value = np.abs(np.concatenate([coef.ravel(), intercept.ravel()]))
    some = value > 0
    return float((error[some] / value[some]).max(initial=0.0))


def correct_digits(optimum: Optimum, solution: Solution) -> float:
    """Return the expected correct decimal digits of the worst coefficient, at most 15.9.

    Two errors add up: the step that refinement left untaken, and the change in the coefficients when
    every number in the data that is not an integer moves by a random fraction of its own rounding error.
    A penalty other than the identity moves likewise. To first order that change is
    (G + αP)⁻¹(ΔXᵀWr − ZᵀW(ΔXθ − Δy)); its root mean square is taken over a few random probes, on a sample
    of the rows when there are many (Chaitin-Chatelin and Frayssé, 1996).
    """
    noise = _probe(optimum, solution)
    d_coef = np.abs(solution.step[0]) + noise[0] + ROUNDOFF * np.abs(solution.coef)
    d_intercept = np.abs(solution.step[1]) + noise[1] + ROUNDOFF * np.abs(solution.intercept)
    coef, intercept = without_zeros(optimum, solution)
    worst = _worst(d_coef, d_intercept, coef, intercept)
    return float(np.clip(-np.log10(max(worst, 1e-300)), 0.0, 15.9))


#: A coefficient below this share of the largest counts as 0, which no relative error can describe.
ZERO = 1e-10


def without_zeros(optimum: Optimum, solution: Solution) -> tuple[Array, Array]:
    """Return the coefficients with those that are 0 but for rounding set to 0.

    A slope is compared on the standardised scale with the largest; an intercept with the terms that make
    it up, ȳ and x̄ⱼθⱼ, and the spread of y. Centred data have an intercept of this kind.
    """
    s, coef = optimum.statistic, solution.coef
    effect = np.abs(coef) * np.sqrt(s.x_scale**2 + s.x_mean**2)[:, None]
    mean, scale = targets_as_given(optimum.problem, s)
    terms = np.abs(mean) + np.abs(s.x_mean) @ np.abs(coef) + scale
    return (
        np.where(effect > ZERO * effect.max(initial=0.0), coef, 0.0),
        np.where(np.abs(solution.intercept) > ZERO * terms, solution.intercept, 0.0),
    )


def _probe(optimum: Optimum, solution: Solution) -> tuple[Array, Array]:
    """Return the root mean square change of (θ, b) under random rounding of the data."""
    problem, statistic = optimum.problem, optimum.statistic
    X, y, w, scale = _sample(problem, statistic.rows)
    rng = np.random.default_rng(0)
    coef, intercept = solution.coef, solution.intercept
    r = y - X @ coef - intercept
    Z = X - optimum.x_mean
    ulp_x, ulp_y = _rounding(X), _rounding(y)
    pull = 4 * ROUNDOFF * optimum.alpha * optimum.form.apply(coef - problem.prior_column)
    pull = pull if np.any(optimum.form.d != 1) else np.zeros_like(pull)
    total_coef, total_intercept = np.zeros_like(coef), np.zeros_like(intercept)
    for _ in range(PROBES):
        dX = ulp_x * rng.uniform(-1, 1, X.shape)
        dr = ulp_y * rng.uniform(-1, 1, y.shape) - dX @ coef
        wr = r if w is None else w[:, None] * r
        wdr = dr if w is None else w[:, None] * dr
        gradient = scale * (dX.T @ wr + Z.T @ wdr) + pull * rng.uniform(-1, 1, pull.shape)
        change = Measured(gradient, scale * wdr.sum(axis=0) / statistic.weight, r[0])
        step = optimum.step(change)
        total_coef += step[0] ** 2
        total_intercept += step[1] ** 2
    return np.sqrt(total_coef / PROBES), np.sqrt(total_intercept / PROBES)


def _sample(problem: Problem, rows: int) -> tuple[Array, Array, Array | None, float]:
    """Return evenly spaced rows of the first block, and the factor from a random sum over them to all."""
    block = next(problem.source.blocks())
    most = max(32, PROBE_SIZE // block.X.shape[1])
    step = max(1, len(block.y) // most)
    w = None if block.weights is None else block.weights[::step]
    X = block.X[::step]
    y = block.y if block.offset is None else block.y - block.offset
    return X, y[::step], w, float(np.sqrt(max(1.0, rows / len(X))))


def _rounding(values: Array) -> Array:
    """Return half a unit in the last place of each value; integers were not rounded.

    From 2⁵² on float64 holds whole numbers only, so that being whole says nothing.
    """
    exact = (values == np.rint(values)) & (np.abs(values) < 2.0**52)
    return np.where(exact, 0.0, np.spacing(np.abs(values)) / 2)
