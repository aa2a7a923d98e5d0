"""The optimum of squared error: residuals measured on the data, and refinement by the steps they ask for.

The gradient of the objective at (θ, b), with residuals r = y − b − Xθ and centred rows Z,

    g = ZᵀWr − αPθ,

is zero at the optimum, and (G + αP)⁻¹g is the step to it: iterative refinement (Björck, 1967; Higham,
2002, ch. 20). Small problems measure g in twice the working precision, so that refinement ends with
correctly rounded coefficients even where the normal equations alone would lose digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, cross_product
from elltwo.extended import Extended
from elltwo.moments import Moments
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import State, Statistic
from elltwo.solvers.cholesky import Cholesky, NotPositiveDefinite

Array = npt.NDArray[Any]

#: Largest n·p·T whose residuals are measured in twice the working precision.
EXTENDED_SIZE = 200_000
#: Refinement stops when a step no longer shrinks by this factor, or after so many steps.
SHRINKS_BY, MOST_STEPS = 0.25, 8
#: Distinct alphas whose Cholesky factors are made for the refinement of moments.
KEPT = 4


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
    beta : array, shape (n, T), or None
        Of an `Interpolation`.
    """

    coef: Array
    intercept: Array
    rss: Array
    residual: float
    step: tuple[Array, ...]
    refinements: int
    measured_on: str
    beta: Array | None = None


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

    def start(self) -> tuple[Array, ...]:
        """Return the solver's own (θ, b)."""
        coef = self.state.coef_at(self.alpha)
        centre = self.problem.fit_intercept
        b = self.statistic.y_mean - self.statistic.x_mean @ coef if centre else np.zeros(coef.shape[1])
        return self.problem.restore(coef, b)

    @cached_property
    def scaled(self) -> Cholesky | None:
        """Factors of G + αP with its columns scaled, None where there are no moments or they are singular."""
        if not isinstance(self.statistic, Moments):
            return None
        factors = self.state
        if not isinstance(factors, Cholesky):
            factors = Cholesky(self.statistic, self.form, self.problem.fit_intercept)
        try:
            factors.factor(float(self.alpha.min()))
        except NotPositiveDefinite:
            return None
        return factors

    @property
    def factors(self) -> State:
        """What solves for steps: Cholesky factors where moments have some, else the state.

        Eigenvectors know the entries of small columns only to the rounding level of the large ones.
        """
        few = len(np.unique(self.alpha)) <= KEPT
        return self.scaled if self.scaled is not None and few else self.state

    def solve(self, rhs: Array) -> Array:
        """Return (G + α_t P)⁻¹ rhs_t, shape (p, T)."""
        return self.factors.solve(rhs, self.alpha)

    def look(self, at: tuple[Array, ...], on_rows: bool) -> Any:
        """Measure how far (θ, b) is from the optimum."""
        return measure(self, at[0], at[1]) if on_rows else measure_moments(self, at[0], at[1])

    def step(self, measured: Any) -> tuple[Array, ...]:
        """Return the refinement step (δθ, δb) for a measured gradient."""
        d_coef = self.solve(measured.gradient)
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
    at = optimum.start()
    measured = optimum.look(at, on_rows)
    step = optimum.step(measured)
    size, taken = _relative_step(step, at), 0
    small = on_rows and optimum.statistic.rows * at[0].size <= EXTENDED_SIZE
    goal = ROUNDOFF if small else tol
    while size > goal and taken < MOST_STEPS:
        better = tuple(a + b for a, b in zip(at, step, strict=True))
        again = optimum.look(better, on_rows)
        next_step = optimum.step(again)
        next_size = _relative_step(next_step, better)
        if not next_size < size:
            break
        taken += 1
        stalled = next_size > SHRINKS_BY * size
        at, measured, step, size = better, again, next_step, next_size
        if stalled:
            break
    coef, intercept, *beta = at
    if beta:
        measured = measure(optimum, coef, intercept)
    scale = optimum.size()
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(scale > 0, np.abs(measured.gradient) / scale, 0.0)
    return Solution(
        coef=coef,
        intercept=intercept,
        rss=measured.rss,
        residual=float(relative.max(initial=0.0)),
        step=step[:2],
        refinements=taken,
        measured_on="rows" if on_rows else "moments",
        beta=beta[0] if beta else None,
    )


def _relative_step(step: tuple[Array, ...], at: tuple[Array, ...]) -> float:
    return worst_share(np.abs(step[0]), np.abs(step[1]), at[0], at[1])


def worst_share(d_coef: Array, d_intercept: Array, coef: Array, intercept: Array) -> float:
    """Return the largest error relative to its own coefficient; coefficients that are 0 are exact."""
    error = np.concatenate([d_coef.ravel(), d_intercept.ravel()])
    value = np.abs(np.concatenate([coef.ravel(), intercept.ravel()]))
    some = value > 0
    return float((error[some] / value[some]).max(initial=0.0))
