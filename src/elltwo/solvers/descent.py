"""Newton's method for every convex loss, for all alphas and all training sets at once.

The optimum at (α, training set) is a zero of the gradient

    g_θ = Σ wᵢℓ'(yᵢ, ηᵢ)xᵢ + αPθ,      g_b = Σ wᵢℓ'(yᵢ, ηᵢ),

and a Newton step solves a ridge problem whose rows have the weights h = w·ℓ''(y, η): a GLM is a loop of
weighted moments. A pass over the rows serves the gradients of all models, as the columns of one matrix; the
curvature of one model serves its neighbours too (a chord step), corrected by what the last steps told
(`secants`), for as long as that is cheaper than a curvature of their own. A step that went beyond the
minimum along it, and left the objective higher, is taken back, so that the method converges
from anywhere for a convex loss (Boyd and Vandenberghe, 2004, "Convex optimization", ch. 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.solvers.columns import Columns, gradients, objectives
from elltwo.solvers.curvature import Quadratic, quadratics
from elltwo.solvers.rowset import Book
from elltwo.solvers.secants import Secants, inner

Array = npt.NDArray[Any]

#: A step is good while it shrinks the gradient by FALLS; near the optimum by as little as LEAST, where a new
#: curvature would cost more than the passes that it saves.
FALLS, LEAST = 0.25, 0.6
#: Passes that a model with a new curvature of its own still needs near the optimum.
FEW = 3
#: Share of the null model's gradient below which gradients are rounding noise.
SMALLEST = 1e-8
#: Steps after which a model is given up.
MOST_TRIES = 200
#: Steps without progress after which a model is as good as rounding lets it be, near the optimum or far away.
PATIENCE, MOST_PATIENCE, NEAR = 2, 60, 1e-9
#: Relative gradient below which a step that shrinks it by FALLS needs no look at the objective.
CLOSE = 5e-2
#: Multiplications that take no longer than what a pass over few rows costs besides.
LITTLE = 1e8
#: Relative gradient that is rounding.
ROUNDING = 1e-13
#: Share of the fall that the slope promises which a step must bring (Armijo's condition).
ARMIJO = 1e-4


@dataclass(frozen=True)
class Solved:
    """Solutions: θ (p, C), b (C,), relative gradients (M,), the last quadratic models, passes.

    `gradient` (p + 1, C) is as it was measured last, before any step after the last pass.
    """

    theta: Array
    b: Array
    relative: Array
    models: list[Quadratic]
    passes: int
    gradient: Array


def solve(
    book: Book,
    columns: Columns,
    theta: Array,
    b: Array,
    first: Sequence[Quadratic],
    *,
    centre: bool,
    tol: float,
    measured: bool = False,
) -> Solved:
    """Minimise the objective of every model, starting from (θ, b) and first quadratic models.

    Parameters
    ----------
    book, columns
        The rows and the models.
    theta, b : arrays, shapes (p, C) and (C,)
        Starting values.
    first : sequence of Quadratic
        A quadratic model for each model, to begin with.
    centre : bool
        Whether there is an intercept.
    tol : float
        Largest relative gradient of a solved column.
    measured : bool
        Return the solutions as they were measured. Otherwise they are moved once more, at no cost.
    """
    descent = _Descent(book, columns, np.vstack([theta, b]), first, centre, tol, measured)
    while descent.left.any():
        descent.turn()
    x = descent.x
    return Solved(x[:-1], x[-1], descent.relative, descent.quadratic, descent.passes, descent.gradient)


class _Descent:
    """All models on their way; their unknowns x are θ with b below it, (p + 1, C)."""

    def __init__(
        self,
        book: Book,
        columns: Columns,
        x: Array,
        first: Sequence[Quadratic],
        centre: bool,
        tol: float,
        measured: bool,
    ) -> None:
        self.book, self.columns, self.centre, self.tol, self.measured = book, columns, centre, tol, measured
        self.p, M = len(x) - 1, len(columns.alpha) // columns.group
        # What a start has learnt from other rows of a feature that is constant here goes to the intercept.
        told = np.where(columns.constant, x[:-1], 0.0)
        x = x - np.vstack([told, -np.sum(columns.mean * told, axis=0)])
        self.x, self.quadratic = x, list(first)
        # Where the last step began, the step and its slope; the gradient where it was measured last.
        self.base, self.step, self.gradient = x.copy(), np.zeros_like(x), np.zeros_like(x)
        self.slope, self.length = np.zeros(M), np.ones(M)
        self.secants = Secants(x.shape, columns.group)
        self.relative, self.before = np.full(M, np.inf), np.full(M, np.inf)
        self.idle, self.waits, self.tries = np.zeros((3, M), dtype=int)
        self.own, self.parked = np.zeros((2, M), dtype=bool)
        self.left = np.ones(M, dtype=bool)
        self.passes = 0

    def turn(self) -> None:
        """Measure the models that are left, and move them."""
        self.passes += 1
        waiting = np.flatnonzero(self.left & self.parked)
        live = int(np.count_nonzero(self.left & ~self.parked))
        self.parked[waiting[: self._room(live)]] = False
        todo = np.flatnonzero(self.left & ~self.parked)
        self.tries[todo] += 1
        part = self.columns.take(self.columns.of(todo))
        g, found = self._measure(todo, part)
        beyond = self._backtrack(todo, g, found)
        given_up = self.tries[todo] >= MOST_TRIES
        self.left[todo[given_up]] = False
        fine = np.flatnonzero(~beyond)
        todo, found, g = todo[fine], found[fine], g[:, part.of(fine)]
        c, last = self.columns.of(todo), self.relative[todo]
        self.secants.add(todo, self.x[:, c] - self.base[:, c], g - self.gradient[:, c])
        self.gradient[:, c] = g
        self._judge(todo, found)
        done = ~self.left[todo]
        again = (found <= LEAST * last) & np.isfinite(last) & (found > ROUNDING) & (not self.measured)
        move = np.flatnonzero(~done | again)
        self._move(todo[move])

    def _measure(self, todo: Array, part: Columns) -> tuple[Array, Array]:
        """Return the gradients (p + 1, C) and the relative gradients (M,) of these models."""
        x = self.x[:, self.columns.of(todo)]
        g, gb, squares = gradients(self.book, part, x[:-1], x[-1])
        g = g + part.pull(x[:-1])
        gb = gb if self.centre else np.zeros_like(gb)
        g = np.where(part.constant, part.mean * gb, g)
        each = relative_gradient(part, g, gb, squares, self.centre)
        return np.vstack([g, gb]), each.reshape(-1, part.group).max(axis=1)

    def _backtrack(self, todo: Array, g: Array, found: Array) -> Array:
        """Put models that went beyond the minimum along their step where a secant puts it; return which."""
        close = (found <= FALLS * self.relative[todo]) & (self.relative[todo] < CLOSE)
        end = inner(g, self.step[:, self.columns.of(todo)], self.columns.group)
        beyond = (self.slope[todo] < 0) & (end > 0) & ~close
        if beyond.any():
            beyond[beyond] = self._rose(todo[beyond])
        for m, steep in zip(todo[beyond], end[beyond], strict=True):
            self.length[m] *= min(0.7, max(0.05, -self.slope[m] / (-self.slope[m] + steep)))
            c = self.columns.of(np.array([m]))
            self.x[:, c] = self.base[:, c] + self.length[m] * self.step[:, c]
            self.waits[m] += 1
        return beyond

    def _rose(self, which: Array) -> Array:
        """Return whether the objective of each model did not fall as its slope promised."""
        at, G = self.columns.of(which), self.columns.group
        part = self.columns.take(at)
        now, then = (
            objectives(self.book, part, x[:-1, at], x[-1, at]).reshape(-1, G).sum(axis=1)
            for x in (self.x, self.base)
        )
        promised = ARMIJO * self.length[which] * self.slope[which]
        return np.asarray(now > then + promised + 1e-13 * np.abs(then))

    def _judge(self, todo: Array, found: Array) -> None:
        """Note how far these models have come: who is done, and who needs another curvature."""
        last, before = self.relative[todo], self.before[todo]
        worth = FEW + 1 / _share(self.columns, self.p)
        allowed = np.clip((self.tol / last) ** (1 / worth), FALLS, LEAST)
        slow = np.where(last < CLOSE, found > allowed**2 * before, found > FALLS * last)
        self.waits[todo] = np.where(slow, self.waits[todo] + 1, 0)
        stuck = self.own[todo] & (found > 0.9 * last)
        self.idle[todo] = np.where(stuck, self.idle[todo] + 1, 0)
        patience = np.where(found < NEAR, PATIENCE, MOST_PATIENCE)
        self.left[todo[(found <= self.tol) | (self.idle[todo] >= patience)]] = False
        self.relative[todo], self.before[todo] = found, last

    def _move(self, which: Array) -> None:
        """Take a step with these models; those that wait for a curvature stay where they are."""
        if len(which) == 0:
            return
        self._renew(which[self.waits[which] > 0])
        self.parked[which] = (self.waits[which] > 1) & ~self.own[which]
        which = which[~self.parked[which]]
        c = self.columns.of(which)

        def newton(right: Array) -> Array:
            return np.vstack(steps(self.quadratic, self.columns, which, right[:-1], right[-1]))

        self.base[:, c] = self.x[:, c]
        self.step[:, c] = self.secants.direction(which, self.gradient[:, c], newton)
        self.slope[which] = inner(self.gradient[:, c], self.step[:, c], self.columns.group)
        self.length[which] = 1.0
        self.x[:, c] += self.step[:, c]

    def _room(self, live: int) -> int:
        """Return how many curvatures cost about as much as the pass for `live` models, but at least one."""
        rows = self.book.problem.source.n_rows or np.inf
        each = rows * self.p**2 * (self.columns.group + 1) / 2
        return max(1, int(np.ceil(live * _share(self.columns, self.p))), int(LITTLE // max(each, 1.0)))

    def _renew(self, which: Array) -> None:
        """Give models whose gradient falls slowly a new quadratic model, their own or a neighbour's.

        As many are made as cost no more than the pass over the rows. At the first slow step the nearest in
        log α, measured on a sample of the rows, has to do; at the second, a model gets its own, or waits.
        """
        self.own[which] = False
        if len(which) == 0:
            return
        columns = self.columns
        first = which * columns.group
        most = self._room(len(which))
        alphas = np.log(np.maximum(columns.alpha[first], np.finfo(float).tiny))
        again = np.flatnonzero(self.waits[which] > 1)
        if len(again):
            picked = again[:most]
        else:
            order = np.argsort(alphas, kind="stable")
            spread = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)
            picked = order[np.unique(spread)]
        n_alphas = len(np.unique(columns.alpha[first])) // len(picked)
        x, sample = self.x[:, columns.of(which[picked])], len(again) == 0
        part = columns.take(columns.of(which[picked]))
        made = quadratics(self.book, part, x[:-1], x[-1], self.centre, n_alphas=n_alphas, sample=sample)
        self.own[which[picked]] = not sample
        target, member = columns.target[first], columns.member[:, first]
        for position, m in enumerate(which):
            same = np.flatnonzero(target[picked] == target[position])
            if len(same) and (self.waits[m] == 1 or position in picked):
                apart = np.abs(alphas[picked[same]] - alphas[position])
                apart = apart + 1e-6 * (member[:, picked[same]] != member[:, [position]]).any(axis=0)
                self.quadratic[m] = made[int(same[np.argmin(apart)])]
                self.secants.forget(np.array([m]))


def relative_gradient(columns: Columns, g: Array, gb: Array, squares: Array, centre: bool) -> Array:
    """Return the largest relative gradient of each column, the intercept profiled out of the slopes.

    It is relative to ‖z_j‖·‖ℓ'‖ at the null model or here, whichever is smaller: where the null model fits
    badly by many orders of magnitude, its gradient is no measure. Below SMALLEST of it is rounding.
    """
    centred = g - columns.mean * gb if centre else g
    everything = np.vstack([centred, gb]) if centre else centred
    null = np.where(columns.size[-1] > 0, columns.size[-1], 1.0)
    size = (columns.size if centre else columns.size[:-1]) * np.clip(
        np.sqrt(columns.weight * squares) / null, SMALLEST, 1.0
    )
    size = np.where(size > 0, size, np.inf)
    return np.asarray(np.max(np.abs(everything) / size, axis=0))


def _share(columns: Columns, p: int) -> float:
    """Return the curvatures that cost as much as the gradient of one model.

    A curvature costs as much as the gradients of about p/6 models, or (K + 1)/2 times that with K classes.
    """
    return 12 / p / (columns.group + 1)


def steps(
    quadratic: Sequence[Quadratic], columns: Columns, which: Array, g: Array, gb: Array
) -> tuple[Array, Array]:
    """Return the steps of these models, those with the same quadratic model together."""
    d_theta, d_b = np.zeros_like(g), np.zeros_like(gb)
    ids = np.array([id(quadratic[m]) for m in which])
    spots = np.arange(len(gb)).reshape(len(which), columns.group)
    for key in np.unique(ids):
        same = np.flatnonzero(ids == key)
        at, own = columns.of(which[same]), spots[same].reshape(-1)
        d_theta[:, own], d_b[own] = quadratic[which[same[0]]].step(
            g[:, own], gb[own], columns.alpha[at], columns.weight[at], columns.constant[:, at]
        )
    return d_theta, d_b
