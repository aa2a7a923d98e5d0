"""How many digits of the coefficients are right: an estimate, by the last step and rounding of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, pivoted_factor
from elltwo.diagnostics.interpolation import multiplies_noise
from elltwo.diagnostics.optimum import Measured, Optimum, Solution, worst_share
from elltwo.extended import Extended
from elltwo.margins import NOISE
from elltwo.moments import SHIFT_ABOVE, Moments
from elltwo.penalties import Standardized
from elltwo.problem import Problem
from elltwo.solvers.base import column_size, targets_as_given
from elltwo.solvers.certificate import ZERO
from elltwo.solvers.spectral import Spectral

Array = npt.NDArray[Any]

#: Elements of the data that each rounding probe perturbs, and the number of probes.
PROBE_SIZE, PROBES = 100_000, 8
#: What is left of a column, of size about 1, that is an exact combination of others.
EXACT = 1e-20
#: Makes a random change of what `Optimum.look` returns.
Change = Callable[[np.random.Generator], Any]


def correct_digits(optimum: Optimum, solution: Solution) -> float:
    """Return the expected correct decimal digits of the worst coefficient, at most 15.9.

    Three errors add up: the rounding of each coefficient, the step that refinement left untaken, and the
    change when every number that the coefficients were computed from moves by a random fraction of its own
    rounding error: to first order (G + αP)⁻¹δ for a change δ of the gradient. Its root mean square is taken
    over a few random probes (Chaitin-Chatelin and Frayssé, 1996).
    """
    if not _determined(optimum, solution):
        return 0.0
    noise = _probe(optimum, solution)
    d_coef = np.abs(solution.step[0]) + noise[0] + ROUNDOFF * np.abs(solution.coef)
    d_intercept = np.abs(solution.step[1]) + noise[1] + ROUNDOFF * np.abs(solution.intercept)
    coef, intercept = without_zeros(optimum, solution)
    worst = worst_share(d_coef, d_intercept, coef, intercept)
    if _left_out(optimum):  # the other directions hold those only to u·κ̂², which no step can see
        worst = max(worst, 4 * ROUNDOFF * optimum.state.condition(float(optimum.alpha.min())))
    return float(np.clip(-np.log10(max(worst, 1e-300)), 0.0, 15.9))


def without_zeros(optimum: Optimum, solution: Solution) -> tuple[Array, Array]:
    """Return the coefficients with those that are 0 but for rounding set to 0.

    A slope is compared, times the size of its column, with the largest of its target; an intercept with the
    terms that make it up, ȳ and x̄ⱼθⱼ, and the spread of y. Centred data have an intercept of this kind.
    """
    s, coef = optimum.statistic, solution.coef
    effect = np.abs(coef) * np.sqrt(s.x_scale**2 + s.x_mean**2)[:, None]
    mean, scale = targets_as_given(optimum.problem, s)
    terms = np.abs(mean) + np.abs(s.x_mean) @ np.abs(coef) + scale
    return (
        np.where(effect > ZERO * effect.max(axis=0, initial=0.0), coef, 0.0),
        np.where(np.abs(solution.intercept) > ZERO * terms, solution.intercept, 0.0),
    )


def _determined(optimum: Optimum, solution: Solution) -> bool:
    """Return whether the coefficients are more than rounding noise.

    They are not where moments cannot be factorised, nor where directions were left out that the data do
    determine, though hardly; columns that repeat others exactly may be left out.
    """
    if solution.measured_on == "rows" and _varies(optimum):
        return False
    if isinstance(optimum.statistic, Moments):
        return optimum.scaled is not None
    if _left_out(optimum):
        return exactly_dependent(optimum.problem)
    return solution.beta is not None or not multiplies_noise(optimum)


def _varies(optimum: Optimum) -> bool:
    """Return whether a column that counts as constant varies by more than rounding in rows of low weight."""
    X, _, w, _ = _sample(optimum.problem)
    X = X[:, optimum.statistic.x_scale == 0] if w is None else X[w > 0][:, optimum.statistic.x_scale == 0]
    if not (optimum.problem.fit_intercept and X.size):
        return False
    return bool(np.any(np.ptp(X, axis=0) > NOISE * np.abs(X).max(axis=0)))


def _left_out(optimum: Optimum) -> bool:
    """Return whether directions that rows of this shape could tell apart were left out as rounding noise."""
    state = optimum.state
    if not isinstance(state, Spectral) or (state.unresolved == 0 and optimum.alpha.min() > state.floor):
        return False
    if state.unresolved > 0:
        return True
    centre = optimum.problem.fit_intercept
    live = int(np.count_nonzero(column_size(optimum.statistic, centre)))
    return state.rank < min(live, optimum.statistic.rows - centre)


def exactly_dependent(problem: Problem) -> bool:
    """Return whether the columns of [1, X] beyond its numerical rank are exact combinations of the others.

    On a sample of the rows, in twice the working precision: what rounding makes of a dependence leaves at
    least 1e-17 of a column, one that holds exactly nothing.
    """
    X, _, w, _ = _sample(problem)
    X = X if w is None else X[w > 0]
    A = np.hstack([np.ones((len(X), int(problem.fit_intercept))), X[:, np.any(X != 0, axis=0)]])
    A = A / np.exp2(np.rint(np.log2(np.abs(A).max(axis=0))))
    R, order = pivoted_factor(A)
    size = np.abs(R.diagonal()[: min(A.shape)])
    rank = int(np.count_nonzero(size > max(A.shape) * 4 * ROUNDOFF * size[0]))
    if rank == min(A.shape):
        return bool(A.shape[1] > len(A))
    C = A[:, order[:rank]]
    for column in A[:, order[rank:]].T:
        left = Extended.of(column)
        for _ in range(3):
            share = np.linalg.lstsq(C, left.value(), rcond=None)[0]
            left = left.minus(Extended.product(C, share).sum(axis=1))
        if np.abs(left.value()).max() > EXACT:
            return False
    return True


def _probe(optimum: Optimum, solution: Solution) -> tuple[Array, Array]:
    """Return the root mean square change of (θ, b) under random changes of what they were computed from."""
    if solution.beta is not None:
        change = _interpolation_change(optimum, solution)
    else:
        change = (_rows_change if solution.measured_on == "rows" else _moments_change)(optimum, solution)
    rng = np.random.default_rng(0)
    total_coef, total_intercept = np.zeros_like(solution.coef), np.zeros_like(solution.intercept)
    for _ in range(PROBES):
        step = optimum.step(change(rng))
        total_coef += step[0] ** 2
        total_intercept += step[1] ** 2
    return np.sqrt(total_coef / PROBES), np.sqrt(total_intercept / PROBES)


def _penalty_noise(optimum: Optimum, coef: Array) -> Array:
    """Return how far P(θ − θ₀) may be off (p, T): nothing for the identity.

    Products are rounded, and so are the variances that a standardising penalty has from moments; the
    eigenvalues that stand for a penalty matrix are known to the rounding level of the largest.
    """
    form, theta = optimum.form, coef - optimum.problem.prior_column
    s = optimum.statistic
    products: Any = 4 * ROUNDOFF
    if isinstance(s, Moments) and isinstance(optimum.problem.penalty, Standardized):
        spread = np.where(s.x_scale > 0, s.x_scale, 1.0)
        sums = _sum_noise(s) * (_near(s.x_scale, s.x_mean) / spread) ** 2
        products = products + (sums + ROUNDOFF * np.abs(s.x_mean) / spread)[:, None]
    if form.rotation is None:
        return np.zeros_like(theta) if np.all(form.d == 1) else products * np.abs(form.apply(theta))
    worst: Array = np.ones_like(theta) * np.max(products) * form.d.max() * np.linalg.norm(theta, axis=0)
    return worst


def _sum_noise(moments: Moments) -> float:
    """Return how far a sum of n products may be off, relative to the sum of their sizes."""
    return float(ROUNDOFF * (2 + np.sqrt(moments.rows) / 8))


def _near(scale: Array, mean: Array) -> Array:
    """Return the root mean square of columns about the shift of moments, off by SHIFT_ABOVE at most."""
    return np.hypot(scale, np.minimum(np.abs(mean), SHIFT_ABOVE * scale))


def _rows_change(optimum: Optimum, solution: Solution) -> Change:
    """Return changes ΔXᵀWr − ZᵀW(ΔXθ − Δy) by rounding of the data, on a sample if the rows are many."""
    statistic = optimum.statistic
    X, y, w, scale = _sample(optimum.problem, statistic.rows)
    coef = solution.coef
    r = y - X @ coef - solution.intercept
    Z = X - optimum.x_mean
    ulp_x, ulp_y = _rounding(X), _rounding(y)
    wr = r if w is None else w[:, None] * r
    pull = optimum.alpha * _penalty_noise(optimum, coef)

    def change(rng: np.random.Generator) -> Measured:
        dX = ulp_x * rng.uniform(-1, 1, X.shape)
        dr = ulp_y * rng.uniform(-1, 1, y.shape) - dX @ coef
        wdr = dr if w is None else w[:, None] * dr
        gradient = scale * (dX.T @ wr + Z.T @ wdr) + pull * rng.uniform(-1, 1, pull.shape)
        return Measured(gradient, scale * wdr.sum(axis=0) / statistic.weight, solution.rss)

    return change


def _interpolation_change(optimum: Optimum, solution: Solution) -> Change:
    """Return the same changes as Δy − ΔXθ, ΔXᵀβ and 0."""
    assert solution.beta is not None
    coef, beta = solution.coef, solution.beta
    X, y, _, scale = _sample(optimum.problem, optimum.statistic.rows)
    chosen = np.arange(0, len(beta), max(1, len(beta) // len(y)))[: len(y)]
    ulp_x, ulp_y = _rounding(X), _rounding(y)
    pull = _penalty_noise(optimum, coef)

    def change(rng: np.random.Generator) -> tuple[Array, Array, Array]:
        dX, left = scale * ulp_x * rng.uniform(-1, 1, X.shape), np.zeros_like(beta)
        left[chosen] = scale * ulp_y * rng.uniform(-1, 1, y.shape) - dX @ coef
        across = dX.T @ beta[chosen] + pull * rng.uniform(-1, 1, pull.shape)
        return left, across, np.zeros(beta.shape[1])

    return change


def _moments_change(optimum: Optimum, solution: Solution) -> Change:
    """Return changes Δc − ΔGθ by rounding of the data and of the sums of n products that moments are.

    A sum of products about a shift near the means errs by about √n of u·‖z̃ᵢ‖·‖z̃ⱼ‖; with z̃ the rows about that
    shift, which may be SHIFT_ABOVE standard deviations off.
    """
    m: Any = optimum.statistic
    centre = optimum.problem.fit_intercept
    coef, intercept = optimum.problem.reduce(solution.coef, solution.intercept)

    def level(scale: Array, mean: Array) -> Array:
        size = np.hypot(scale, mean)
        near, spread = (_near(scale, mean), scale) if centre else (size, size)
        sums = _sum_noise(m) * np.outer(x_near, near)
        return np.asarray(
            m.weight * (sums + ROUNDOFF * (np.outer(x_size, spread) + np.outer(x_spread, size)))
        )

    x_size = np.hypot(m.x_scale, m.x_mean)
    x_near, x_spread = (_near(m.x_scale, m.x_mean), m.x_scale) if centre else (x_size, x_size)
    of_gram, of_cross = level(m.x_scale, m.x_mean), level(m.y_scale, m.y_mean)
    of_mean = 2 * ROUNDOFF * (np.abs(m.y_mean) + np.abs(m.x_mean) @ np.abs(coef) + np.abs(intercept)) * centre

    pull = optimum.alpha * _penalty_noise(optimum, solution.coef)

    def change(rng: np.random.Generator) -> Measured:
        E = np.triu(rng.uniform(-1, 1, of_gram.shape))
        d_gram = of_gram * (E + np.triu(E, 1).T)
        d_cross = of_cross * rng.uniform(-1, 1, of_cross.shape)
        gradient = d_cross - d_gram @ coef + pull * rng.uniform(-1, 1, pull.shape)
        return Measured(gradient, of_mean * rng.uniform(-1, 1, of_mean.shape), solution.rss)

    return change


def _sample(problem: Problem, rows: int = 0) -> tuple[Array, Array, Array | None, float]:
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
