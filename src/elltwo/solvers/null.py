"""The model without features: its intercept, and its deviance, which every other model is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.losses import FAMILIES, Loss
from elltwo.losses.base import ETA_BOUND
from elltwo.problem import Problem

Array = npt.NDArray[Any]

#: Newton steps for the intercept, and the step, relative to its size, at which it is known.
MOST_STEPS, SMALLEST = 100, 1e-10
#: On a log or logit scale the best intercept is nearer to its start than this, past every offset.
FARTHEST = ETA_BOUND


def null_intercept(loss: Loss, y_mean: Array, centre: bool) -> Array:
    """Return b of the model without features from the means of y, shape (T,): 0 without an intercept.

    Of classes the intercepts sum to 0, as in the symmetric form. Exact for families without an offset, a
    start for other losses.
    """
    if not centre:
        return np.zeros_like(y_mean)
    b = np.broadcast_to(np.asarray(loss.null(y_mean), dtype=np.float64), y_mean.shape).copy()
    return b - b.mean() if loss.coupled else b


def is_exact(loss: Loss, rows: Any) -> bool:
    """Return whether `null_intercept` is the best constant for the rows of a source or problem."""
    return loss.name in FAMILIES and next(rows.blocks()).offset is None


def best_intercept(loss: Loss, b: Array, measure: Callable[[Array], tuple[Array, Array]]) -> Array:
    """Return the b that minimises the deviance, from a start b; `measure(b)` is Σ wℓ' (T,) and Σ wℓ'' (T, T).

    Where there is none, since no row has an event, or all have, it stays within FARTHEST of the start.
    """
    if loss.coupled:
        return _best_of_classes(b, measure)
    # On a log scale, a step of more than a few units is one that a vanishing curvature has made up.
    return _best_of_targets(b, measure, 1.0 if loss.link in ("log", "logit") else np.inf)


def _best_of_targets(b: Array, measure: Callable[[Array], tuple[Array, Array]], longest: float) -> Array:
    """Return each target's minimum, by Newton's method between bounds that the sign of the slope sets.

    Until there are two bounds, steps are at most `longest`, which grows fourfold each time. Between them,
    steps that are not half as long as the last give way to bisection: with offsets that differ by orders of
    magnitude, the curvature may change by a factor e in each unit of b.
    """
    low, high = np.full(len(b), -np.inf), np.full(len(b), np.inf)
    reach, last = np.full(len(b), 0.5), np.full(len(b), np.inf)
    least, most = (b - FARTHEST, b + FARTHEST) if np.isfinite(longest) else (-np.inf, np.inf)
    for _ in range(MOST_STEPS):
        first, second = measure(b)
        low, high = np.where(first < 0, b, low), np.where(first > 0, b, high)
        curvature = second.diagonal()
        step = -first / np.where(curvature > 0, curvature, 1.0)
        between = np.isfinite(low) & np.isfinite(high)
        reach = np.where(between, 1.0, 2 * reach)  # farther each time, until there are two bounds
        step *= reach
        step = np.where(between, step, np.clip(step, -longest, longest))
        longest *= 4
        outside = (b + step <= low) | (b + step >= high)
        halve = between & (outside | (np.abs(step) > 0.5 * last))
        halve &= np.abs(step) > SMALLEST * (1 + np.abs(b))
        step[halve] = (low[halve] + high[halve]) / 2 - b[halve]
        step = np.clip(b + step, least, most) - b
        last = np.where(between, np.abs(step), np.inf)
        b = b + step
        if np.all(np.abs(step) <= SMALLEST * (1 + np.abs(b))):
            break
    return b


def _best_of_classes(b: Array, measure: Callable[[Array], tuple[Array, Array]]) -> Array:
    """Return the classes' minimum, by Newton's method whose steps are cut until the slope is smaller."""
    first, second = measure(b)
    for _ in range(MOST_STEPS):
        step = -np.linalg.pinv(second, hermitian=True) @ first
        tried = measure(b + step)
        while np.linalg.norm(tried[0]) > np.linalg.norm(first) and np.abs(step).max() > SMALLEST:
            step = step / 2
            tried = measure(b + step)
        b, (first, second) = b + step, tried
        if np.all(np.abs(step) <= SMALLEST * (1 + np.abs(b))):
            break
    return b


def curvature_at(loss: Loss, y: Array, eta: Array, w: Array) -> tuple[Array, Array]:
    """Return Σ wℓ' (T,) and the matrix of Σ wℓ'' (T, T) over rows."""
    slope, curvature = loss.derivatives(y, eta)
    if loss.coupled:
        p = loss.mean(eta)
        return w @ slope, np.diag(w @ p) - (p * w[:, None]).T @ p
    total = w @ curvature
    # Where no row has a curvature (hinge, tube, Huber far off), its bound 1 makes a safe step.
    return w @ slope, np.diag(np.where(total > 0, total, w.sum()))


def null_deviance(problem: Problem, y_mean: Array) -> Array:
    """Return Σ w·dev of the best model without features and without a prior, shape (S,)."""
    source: Any = problem.source
    loss = problem.loss

    def rows(b: Array) -> Iterator[tuple[Array, Array, Array]]:
        for block in getattr(source, "row_blocks", source.blocks)():
            w = np.ones(len(block.y)) if block.weights is None else block.weights
            eta = np.broadcast_to(b, block.y.shape)
            yield block.y, eta if block.offset is None else eta + block.offset, w

    def measure(b: Array) -> tuple[Array, Array]:
        parts = [curvature_at(loss, y, eta, w) for y, eta, w in rows(b)]
        return np.sum([g for g, _ in parts], axis=0), np.sum([h for _, h in parts], axis=0)

    b = null_intercept(loss, y_mean, problem.fit_intercept)
    if problem.fit_intercept and not is_exact(loss, source):
        b = best_intercept(loss, b, measure)
    total = np.zeros(problem.n_scores)
    for y, eta, w in rows(b):
        total += 2 * (w @ loss.value(y, eta))
    return total
