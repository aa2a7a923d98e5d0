"""First-order minimisation of the objective with full gradients: plain, accelerated, and L-BFGS.

Nothing is factorised: a step costs one pass over the rows, dense, sparse or streamed. The methods check the
closed forms and Newton's method with code that shares nothing with them, and they show what those save.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.losses import Loss
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.first_order import (
    Descent,
    Frame,
    Objective,
    Recorder,
    Rows,
    check_alpha,
    check_count,
    check_one_of,
    check_scales,
    check_start,
    check_tolerance,
    survey,
    with_loss,
)
from elltwo.solvers.first_order_state import DescentState, Gathered, gather_spreads

Array = npt.NDArray[Any]

#: Every method, by name.
METHODS = ("lbfgs", "accelerated", "plain")
#: Pairs of steps and gradient changes that L-BFGS remembers.
MEMORY = 10
#: A step is shortened when the slope at its end exceeds this share of the slope at its start.
OVERSHOOT = 0.5
#: Where the curvature has no bound, 1/L grows by this factor with every step that needed no shortening.
GROW = 1.1


def gradient_descent(
    problem: Problem,
    alpha: Any,
    *,
    loss: Loss | None = None,
    scales: Array | None = None,
    method: str = "lbfgs",
    tol: float = 1e-8,
    max_passes: int = 1000,
    start: Any = None,
    callback: Callable[[int, float, float], Any] | None = None,
) -> Descent:
    """Minimise Σ wᵢ·½dev(yᵢ, ηᵢ) + (α/2)(θ − θ₀)ᵀP(θ − θ₀) with full gradients, one pass each.

    "plain" goes by u ← u − ∇/L, with L from power iteration on the Gram weighted by the loss's largest
    curvature (by backtracking where there is none). "accelerated" adds Nesterov's momentum, begun anew
    whenever it points uphill (O'Donoghue and Candès, 2015, "Adaptive restart for accelerated gradient
    schemes"). "lbfgs" keeps ten pairs (Nocedal and Wright, 2006, algorithm 7.4). It is written here rather
    than taken from SciPy because targets are independent columns that share each pass, with a step length
    of their own, and because its line search goes by slopes: values agree to rounding, and stop telling
    points apart, while gradients are still 1e-8.

    Parameters
    ----------
    problem : Problem
        Rows in memory (dense or sparse) or streamed, penalty, prior and whether there is an intercept.
    alpha : float or array, shape (T,)
        Sum scale; 0 is allowed. Classes (multinomial) share one.
    loss : Loss, optional
        Other than the problem's own.
    scales : array, shape (p,), optional
        Standard deviations that a standardising penalty refers to; those of the rows if None.
    method : str
        "lbfgs", "accelerated" or "plain".
    tol : float
        Stop at max |gⱼ| / (‖zⱼ‖·‖√w ℓ'₀‖) ≤ tol, ℓ'₀ at the model without features.
    max_passes : int
        Begin no step after so many passes over the rows; `converged` is False then.
    start : Descent or pair (coef (p, T), intercept (T,)), optional
        Where to begin; at θ₀ and the best intercept for it if None.
    callback : callable (passes, objective, relative gradient), optional
        Called with every entry of the trace; returning True stops.

    Returns
    -------
    Descent
        `distance` bounds how far it is from the optimum.

    Raises
    ------
    InputError
        For data or arguments that cannot be used.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> X = np.array([[-1e6, 2.0], [0.0, -1.0], [1e6, 0.0], [0.0, 3.0]])
    >>> result = gradient_descent(Problem(MemorySource(X, X @ [3e-6, 1.0])), 1e-3)
    >>> result.converged, (result.coef[:, 0] * [1e6, 1]).round(3)
    (True, array([3., 1.]))
    """
    check_options(method, tol, max_passes)
    problem = with_loss(problem, loss)
    alphas = check_alpha(alpha, problem.source.n_targets, shared=problem.loss.coupled)
    begin = check_start(start, problem)
    recorder = Recorder(callback)
    rows = Rows(problem)
    spread = survey(rows)
    recorder.passes += 1
    form = problem.form(check_scales(scales, spread, problem))
    frame = Frame.of(rows, spread, form, alphas, problem.fit_intercept)
    return descend(frame, method, float(tol), max_passes, begin, recorder)


def check_options(method: str, tol: float, max_passes: int) -> None:
    """Raise InputError unless the options can be used."""
    check_one_of("method", method, METHODS)
    check_tolerance(tol)
    check_count("max_passes", max_passes)


def descend(
    frame: Frame,
    method: str,
    tol: float,
    max_passes: int,
    begin: tuple[Array, Array] | None,
    recorder: Recorder,
) -> Descent:
    """Minimise in the coordinates of the frame, from (δ, b) of the reduced problem."""
    objective = Objective.of(frame, recorder)
    if begin is None:
        begin = np.zeros((frame.p, len(frame.alpha))), frame.null()
    x = objective.inside(*begin)
    run = {"lbfgs": lbfgs, "accelerated": accelerated, "plain": plain}[method]
    # Half of it, since the gradient changes once more when the intercept is minimised over at the end.
    return objective.finish(run(objective, x, 0.5 * tol, max_passes), method, tol)


def plain(objective: Objective, x: Array, tol: float, max_passes: int) -> Array:
    """Return the end of x ← x − ∇/L.

    A step is taken back, and L doubled, if the slope at its end is positive: by convexity the value has
    fallen if it is not.
    """
    L, bounded = objective.lipschitz(x)
    value, g, relative = objective(x)
    while not objective.record(value, relative) and (relative > tol).any():
        if objective.recorder.passes >= max_passes:
            break
        step = np.where(relative > tol, -g / L, 0.0)
        new_value, new_g, new_relative = objective(x + step)
        slope = objective.dot(new_g, step)
        # Beyond ∇'∇ = 0 by rounding only is not beyond.
        slack = 1e-10 * np.sqrt(objective.dot(new_g, new_g) * objective.dot(step, step))
        good = np.isfinite(new_value) & (slope <= slack)
        x = np.where(good, x + step, x)
        value, g = np.where(good, new_value, value), np.where(good, new_g, g)
        relative = np.where(good, new_relative, relative)
        L = np.where(good, L if bounded else L / GROW, 2.0 * L)
    return x


def accelerated(objective: Objective, x: Array, tol: float, max_passes: int) -> Array:
    """Return the end of Nesterov's method with adaptive restart, begun anew where ⟨∇, x⁺ − x⟩ > 0.

    Where the curvature has no bound, the value at x⁺ is measured, too, and L doubled if it is above the
    parabola that L promises.
    """
    L, bounded = objective.lipschitz(x)
    ahead, t = x, np.ones_like(L)
    while True:
        value, g, relative = objective(ahead)
        if objective.record(value, relative) or (relative <= tol).all():
            return ahead
        if objective.recorder.passes >= max_passes:
            return ahead
        todo = relative > tol
        step = np.where(todo, -g / L, 0.0)
        if not bounded:
            new_value, new_g, _ = objective(ahead + step)
            square = objective.dot(step, step)
            promised = value + objective.dot(g, step) + 0.5 * L * square
            # Where values agree to rounding, the change of the gradient decides.
            curve = objective.dot(new_g - g, step) <= L * square
            bad = todo & ~((new_value <= promised) | (np.isfinite(new_value) & curve))
            L = np.where(bad, 2.0 * L, L / GROW)
            step = np.where(bad, 0.0, step)
        new = ahead + step
        change = new - x
        uphill = objective.dot(g, change) > 0
        t = np.where(uphill, 1.0, t)
        t_next = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t**2))
        momentum = np.where(uphill, 0.0, (t - 1.0) / t_next)
        ahead = np.where(todo, new + momentum * change, ahead)
        x, t = np.where(todo, new, x), t_next


def lbfgs(objective: Objective, x: Array, tol: float, max_passes: int) -> Array:
    """Return the end of limited-memory BFGS, each target with a step length of its own.

    A step is shortened to the secant's root where the slope at its end is more than half of that at its
    start, or positive with a value that has risen. By convexity the value falls where the slope is negative.
    """
    pairs: list[tuple[Array, Array, Array]] = []
    value, g, relative = objective(x)
    while not objective.record(value, relative) and (relative > tol).any():
        todo = relative > tol
        direction = np.where(todo, _two_loops(objective, pairs, g), 0.0)
        slope = objective.dot(g, direction)
        uphill = slope > 0
        if uphill.any():  # rounding has spoilt what is remembered
            pairs = [(s, y, np.where(uphill, 0.0, rho)) for s, y, rho in pairs]
            direction = np.where(uphill, -g, direction)
            slope = objective.dot(g, direction)
        length, found = np.ones_like(slope), ~todo
        new_x, new_value, new_g, new_relative = x, value, g, relative
        while not found.all():
            if objective.recorder.passes >= max_passes:
                return np.where(found, new_x, x)
            at = np.where(found, new_x, x + length * direction)
            f, gradient, rel = objective(at)
            end = objective.dot(gradient, direction)
            finite = np.isfinite(f) & np.isfinite(end)
            risen = f > value + 8 * ROUNDOFF * np.abs(value)
            beyond = ~finite | ((end > 0) & (risen | (end > -OVERSHOOT * slope)))
            fits = ~found & (~beyond | (length < 1e-12))
            stuck = fits & beyond
            accept = fits & ~beyond
            new_x = np.where(accept, at, new_x)
            new_value, new_g = np.where(accept, f, new_value), np.where(accept, gradient, new_g)
            new_relative = np.where(accept, rel, new_relative)
            with np.errstate(invalid="ignore", divide="ignore"):
                secant = np.where(finite, slope / (slope - end), 0.1)
            shorter = length * np.clip(np.nan_to_num(secant, nan=0.1), 0.1, 0.9)
            length = np.where(found | fits, length, shorter)
            found = found | fits
            if stuck.all():
                return x
        step, change = new_x - x, new_g - g
        curve = objective.dot(step, change)
        tiny = ROUNDOFF * np.sqrt(objective.dot(step, step) * objective.dot(change, change))
        pairs.append((step, change, np.where(curve > tiny, 1.0 / np.where(curve > tiny, curve, 1.0), 0.0)))
        del pairs[:-MEMORY]
        if not np.any(step):
            break
        x, value, g, relative = new_x, new_value, new_g, new_relative
    return x


def _two_loops(objective: Objective, pairs: list[tuple[Array, Array, Array]], g: Array) -> Array:
    """Return −Hg with the remembered inverse Hessian; pairs with ρ = 0 are passed over."""
    q, shares = g, []
    for s, y, rho in reversed(pairs):
        share = rho * objective.dot(s, q)
        q = q - share * y
        shares.append(share)
    scale = np.ones_like(objective.dot(g, g))
    for _, y, rho in pairs:
        square = objective.dot(y, y)
        usable = (rho > 0) & (square > 0)
        scale = np.where(usable, 1.0 / np.where(usable, np.where(rho > 0, rho, 1.0) * square, 1.0), scale)
    q = scale * q
    for (s, y, rho), share in zip(pairs, reversed(shares), strict=True):
        q = q + (share - rho * objective.dot(y, q)) * s
    return -q


@dataclass(frozen=True)
class GradientSolver:
    """`gradient_descent` as a solver: every alpha from the next larger one's solution.

    Parameters
    ----------
    method : {"lbfgs", "accelerated", "plain"}
    tol : float
        Relative gradient of a solved model.
    max_passes : int
        For each alpha.

    Raises
    ------
    InputError
        If an option cannot be used.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> problem = Problem(MemorySource([[-1.0], [0.0], [1.0]], [0.0, 1.0, 5.0]))
    >>> solver = GradientSolver()
    >>> (statistic,) = solver.gather(problem)
    >>> state = solver.state(statistic, problem.form(statistic.x_scale), True)
    >>> state.coef(np.array([1.0, 2.0]))[:, 0, 0].round(6)
    array([1.666667, 1.25    ])
    """

    method: str = "lbfgs"
    tol: float = 1e-10
    max_passes: int = 1000
    name: str = "gradient"

    def __post_init__(self) -> None:
        check_options(self.method, self.tol, self.max_passes)

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[Gathered]:
        """Return the rows of each atom, by name, with their means and scales; one pass."""
        return gather_spreads(problem, labels, n_atoms)

    def state(self, statistic: Gathered, form: QuadraticForm, centre: bool) -> DescentState:
        """Return a state whose models are solved when they are asked for."""
        return DescentState(statistic, form, centre, self._descend)

    def _descend(self, frame: Frame, start: tuple[Array, Array] | None) -> Descent:
        return descend(frame, self.method, self.tol, self.max_passes, start, Recorder())
