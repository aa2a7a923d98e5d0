"""The elastic net for any smooth convex loss: proximal Newton on a working set.

    minimise Σᵢ wᵢ·½dev(yᵢ, ηᵢ) + α·[l1_ratio·Σⱼ √dⱼ|θⱼ| + (1 − l1_ratio)/2·Σⱼ dⱼθⱼ²]    ηᵢ = b + xᵢᵀθ + oᵢ

Each step replaces the loss by a quadratic model at the present η, with curvatures hᵢ = wᵢ·ℓ″ᵢ, whose elastic
net `elltwo.solvers.working_set` solves exactly; a line search on the objective guards the step (Lee, Sun and
Saunders, 2014, "Proximal Newton-type methods"). Where the model's Gram matrix costs more than a few steps, it
is kept while steps with it converge fast. If there are many features, only those that the sequential strong
rule lets through take part (Tibshirani et al., 2012); a pass over all then finds those it missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.solvers.dual import Rows
from elltwo.solvers.loss_rows import LossRows
from elltwo.solvers.null import best_intercept, curvature_at, null_intercept
from elltwo.solvers.quadratic_model import GramModel, curvature_moments, runner_at, solved
from elltwo.solvers.reduced_design import reduce_rows, reduce_sparse
from elltwo.solvers.wide_rows import SparseRows
from elltwo.solvers.working_set import DESCENT

Array = npt.NDArray[Any]

#: Curvatures below this share of the largest count as that much: the quadratic model then has a minimum.
LEAST_CURVATURE = 1e-10
#: Halvings per step, and working sets per alpha, at most.
HALVINGS, SETS = 40, 50
#: Share of the predicted decrease that a step must bring; changes of the objective below this are rounding.
ARMIJO, FLAT = 1e-4, 1e-13
#: Steps that do not halve the residual, after which it is taken to be at its rounding level.
STALLED = 8
#: Up to so many features all take part, and a Gram matrix serves.
FEW = 512
#: Multiplications up to which a new Gram matrix is not worth saving; else it is kept while a step leaves at
#: most this share of the residual.
CHEAP, FAST = 2_000_000, 0.2
#: Residual of the models on the way to an alpha that is far below the last.
ON_THE_WAY = 1e-2


@dataclass(frozen=True, eq=False)
class LossPoint:
    """A model of one target, and what the rows say there.

    Attributes
    ----------
    theta : array, shape (p,)
    b : float
        For columns less the rows' origin.
    eta, score, curvature : arrays, shape (n,)
        η, wℓ′ and wℓ″.
    residual : float
        Largest violation of an optimality condition, relative.
    steps : int
        Newton steps from the model before.
    """

    theta: Array
    b: float
    eta: Array
    score: Array
    curvature: Array
    residual: float = np.inf
    steps: int = 0


@dataclass(eq=False)
class _Working:
    """The features that take part: columns (n, k), their means, d, and the quadratic model if it is kept."""

    chosen: Array
    columns: Any
    mean: Array
    d: Array
    by_gram: bool
    kept: bool
    quadratic: GramModel | None = None


def violations(correlation: Array, theta: Array, l1: Array, l2: Array) -> Array:
    """Return how far each coefficient is from optimal, for c = −Σ wℓ′x̃ (k,), θ, λ₁ and λ₂.

    |c − λ₁·sign(θ) − λ₂θ| where θ ≠ 0, and the excess of |c| over λ₁ where θ = 0.

    >>> violations(np.array([3.0, 1.0]), np.array([2.0, 0.0]), np.full(2, 2.0), np.zeros(2))
    array([1., 0.])
    """
    active = np.abs(correlation - l1 * np.sign(theta) - l2 * theta)
    return np.asarray(np.where(theta != 0, active, np.maximum(np.abs(correlation) - l1, 0.0)))


class ProximalPath:
    """Goes down a path for one target of a training set, each model started from the last.

    Parameters
    ----------
    rows : LossRows
    target : int
    d : array, shape (p,)
        Diagonal of the penalty; 0 = unpenalised.
    centre : bool
        Whether there is an intercept.
    l1_ratio : float
        Above 0 and at most 1.
    tol : float
        Relative residual at which a model counts as solved.
    most_steps : int
        Newton steps per working set, at most.
    """

    def __init__(
        self,
        rows: LossRows,
        target: int,
        d: Array,
        centre: bool,
        l1_ratio: float,
        tol: float,
        most_steps: int,
    ) -> None:
        self.X, self.w, self.loss = rows.X, rows.w, rows.problem.loss
        self.y = rows.y[:, target]
        self.offset: Any = 0.0 if rows.offset is None else rows.offset[:, target]
        self.d, self.centre, self.l1_ratio, self.tol = d, centre, l1_ratio, tol
        self.most_steps = most_steps
        p = len(d)
        mean = rows.x_mean - rows.origin
        self.mean = mean if centre else np.zeros(p)
        spread = rows.x_scale if centre else np.hypot(rows.x_scale, mean)
        self.varies = spread > 0
        #: The model without features.
        self.bare = self._point(np.zeros(p), self._null_intercept(float(rows.y_mean[target])), 0.0)
        slope = self.loss.gradient(self.y, self.bare.eta)
        #: What residuals are relative to: ‖√w·x̃ⱼ‖·‖√w·ℓ′‖ at the model without features, and so for b.
        self.size = np.sqrt(rows.weight * (self.w @ slope**2)) * np.append(spread, 1.0)
        self._last: _Working | None = None
        self.null = self._newton(self.bare, self._working(np.flatnonzero(self._free)), 0.0)
        held = self.varies & (d > 0)
        steep = np.abs(self.correlation(self.null))[held] / np.sqrt(d[held])
        #: α_max: from here on every penalised coefficient is 0.
        self.largest = float(steep.max(initial=0.0)) / l1_ratio
        self.alpha, self.point = self.largest, self.null

    def start(self, alpha: float, point: LossPoint) -> None:
        """Take up a known model."""
        self.alpha, self.point = alpha, point

    def points(self, alphas: Array) -> Iterator[LossPoint]:
        """Yield the models at descending alphas, with their residuals over all features."""
        for alpha in alphas:
            while alpha < self.alpha * DESCENT**2:
                self.move(self.alpha * DESCENT, ON_THE_WAY)
            yield self.move(float(alpha), self.tol)

    @property
    def _free(self) -> Array:
        return np.asarray(self.varies & (self.d == 0))

    def _null_intercept(self, mean_y: float) -> float:
        """Return the best b without features."""
        y, w, zero = self.y[:, None], self.w, np.zeros((len(self.y), 1))
        b = null_intercept(self.loss, np.array([mean_y]), self.centre)
        if self.centre:
            offset = zero + np.reshape(self.offset, (-1, 1))
            b = best_intercept(self.loss, b, lambda at: curvature_at(self.loss, y, offset + at, w))
        return float(b[0])

    def _point(self, theta: Array, b: float, image: Any) -> LossPoint:
        """Return the model with Xθ given."""
        eta = np.broadcast_to(image + b + self.offset, self.y.shape)
        slope, bend = self.loss.derivatives(self.y, eta)
        return LossPoint(theta, b, eta, self.w * slope, self.w * bend)

    def at(self, theta: Array, b: float) -> LossPoint:
        """Return the model with these coefficients."""
        some = np.flatnonzero(theta)
        return self._point(theta, b, np.asarray(self.X[:, some] @ theta[some]))

    def correlation(self, point: LossPoint) -> Array:
        """Return −Σ wℓ′x̃, shape (p,): minus the gradient of the loss, columns centred."""
        return np.asarray(self.mean * point.score.sum() - self.X.T @ point.score)

    def weights(self, alpha: float, d: Array) -> tuple[Array, Array]:
        """Return λ₁ and λ₂ of features with these d."""
        l1: Array = alpha * self.l1_ratio * np.sqrt(d)
        return l1, alpha * (1 - self.l1_ratio) * d

    def _relative(self, violation: Array, size: Array) -> Array:
        return np.where(size > 0, violation / np.where(size > 0, size, 1.0), 0.0)

    def idle(self, point: LossPoint, alpha: float) -> float:
        """Return the largest relative violation of a penalised coefficient that is 0."""
        violation = violations(self.correlation(point), point.theta, *self.weights(alpha, self.d))
        still = (point.theta == 0) & (self.d > 0)
        return float(self._relative(violation, self.size[:-1])[still].max(initial=0.0))

    def _own(self, point: LossPoint) -> float:
        """Return the relative violation of the intercept's condition."""
        own = abs(float(point.score.sum())) if self.centre else 0.0
        return own / float(self.size[-1]) if self.size[-1] > 0 else 0.0

    def _objective(self, point: LossPoint, alpha: float) -> float:
        l1, l2 = self.weights(alpha, self.d)
        with np.errstate(over="ignore"):
            penalty = l1 @ np.abs(point.theta) + 0.5 * (l2 @ point.theta**2)
            return float(self.w @ self.loss.value(self.y, point.eta) + penalty)

    def move(self, alpha: float, tol: float) -> LossPoint:
        """Move on to the solution at another alpha, and return it with its residual over all features."""
        point, c = self.point, np.abs(self.correlation(self.point))
        l1, l2 = self.weights(alpha, self.d)
        strong = c >= np.sqrt(self.d) * self.l1_ratio * (2 * alpha - self.alpha)
        needed = strong | (point.theta != 0) | (len(self.d) <= FEW)
        chosen, steps = np.flatnonzero((needed | self._free) & self.varies), 0
        for _ in range(SETS):
            point = self._newton(point, self._working(chosen), alpha, tol)
            steps += point.steps
            violation = violations(self.correlation(point), point.theta, l1, l2)
            residual = self._relative(violation, self.size[:-1])
            missed = np.setdiff1d(np.flatnonzero(residual > tol), chosen)
            if len(missed) == 0:
                break
            chosen = np.union1d(chosen, missed)
        worst = max(float(residual.max(initial=0.0)), self._own(point))
        self.alpha, self.point = alpha, replace(point, residual=worst, steps=steps)
        return self.point

    def _working(self, chosen: Array) -> _Working:
        """Return the working set of these features; the last one if it is the same."""
        if self._last is not None and np.array_equal(self._last.chosen, chosen):
            return self._last
        n, k = self.X.shape[0], len(chosen)
        columns = self.X if k == self.X.shape[1] else self.X[:, chosen]
        by_gram = k <= FEW or 2 * k <= n
        made = _Working(chosen, columns, self.mean[chosen], self.d[chosen], by_gram, n * k * k > CHEAP)
        self._last = made
        return made

    def _newton(self, point: LossPoint, work: _Working, alpha: float, tol: float | None = None) -> LossPoint:
        """Return the solution on a working set."""
        goal = (self.tol if tol is None else tol) / 10
        best, stalled, slow, steps = np.inf, 0, False, 0
        c, worst = self._measure(point, work, alpha)
        while worst > goal and steps < self.most_steps:
            stalled = stalled + 1 if worst > 0.5 * best else 0
            best = min(best, worst)
            if stalled >= STALLED and worst <= 10 * goal:
                break
            fresh = work.quadratic is None or slow or not work.kept
            if fresh and work.by_gram:
                work.quadratic = self._model(point, work)
            theta, b = (self._by_gram if work.by_gram else self._by_rows)(point, work, alpha, c)
            found = self._search(point, theta, b, work, alpha, worst)
            if found is None:
                if fresh:
                    break
                slow = True
                continue
            steps += 1
            point, c, now = found
            slow, worst = now > FAST * worst, now
        return replace(point, steps=steps, residual=worst)

    def _measure(self, point: LossPoint, work: _Working, alpha: float) -> tuple[Array, float]:
        """Return −Σ wℓ′x̃ of the working set's features, and its largest relative violation."""
        c = np.asarray(work.mean * point.score.sum() - work.columns.T @ point.score)
        each = violations(c, point.theta[work.chosen], *self.weights(alpha, work.d))
        worst = float(self._relative(each, self.size[:-1][work.chosen]).max(initial=0.0))
        return c, max(worst, self._own(point))

    def _bend(self, point: LossPoint) -> Array:
        """Return h = wℓ″, but a little everywhere."""
        return np.asarray(np.maximum(point.curvature, LEAST_CURVATURE * point.curvature.max() * (self.w > 0)))

    def _model(self, point: LossPoint, work: _Working) -> GramModel:
        """Return the quadratic model of the working set's columns, as inner products."""
        gram, mean, total = curvature_moments(work.columns, self._bend(point), self.centre)
        return GramModel(gram, mean, total, work.d, len(self.y) - int(self.centre))

    def _by_gram(self, point: LossPoint, work: _Working, alpha: float, c: Array) -> tuple[Array, float]:
        """Return the minimiser (θ of the working set, b) of the quadratic model, from its Gram matrix.

        b′ = b − Σwℓ′/Σh − x̄ᵀ(θ′ − θ), with x̄ the means under h.
        """
        model, own, slope = work.quadratic, point.theta[work.chosen], float(point.score.sum())
        assert model is not None
        theta = model.minimum((work.mean - model.mean) * slope - c, own, alpha, self.l1_ratio)
        if not self.centre:
            return theta, 0.0
        moved = slope / model.total if model.total > 0 else 0.0
        return theta, float(point.b - moved - model.mean @ (theta - own))

    def _by_rows(self, point: LossPoint, work: _Working, alpha: float, c: Array) -> tuple[Array, float]:  # noqa: ARG002
        """Return the minimiser (θ of the working set, b) of the quadratic model: weighted least squares."""
        bend = self._bend(point)
        used = bend > 0
        target = (point.eta - self.offset - np.where(used, point.score / np.where(used, bend, 1.0), 0.0))[
            :, None
        ]
        rows: Any = (SparseRows if hasattr(work.columns, "tocsc") else Rows)(
            work.columns, target, bend, False
        )
        reduced = (reduce_sparse if isinstance(rows, SparseRows) else reduce_rows)(rows, work.d, self.centre)
        runner = runner_at(reduced, point.theta[work.chosen], alpha, self.l1_ratio)
        theta = solved(reduced, runner, alpha)
        return theta, float(rows.y_mean[0] - rows.x_mean @ theta) if self.centre else 0.0

    def _search(
        self, point: LossPoint, theta: Array, b: float, work: _Working, alpha: float, worst: float
    ) -> tuple[LossPoint, Array, float] | None:
        """Return the model at the first of 1, ½, ¼ … of the step that lowers the objective, or None.

        With it come what `_measure` says of it.
        """
        full = np.zeros_like(point.theta)
        full[work.chosen] = theta
        image, before = np.asarray(work.columns @ theta), point.eta - self.offset - point.b
        l1, l2 = self.weights(alpha, self.d)
        penalty = l1 @ (np.abs(full) - np.abs(point.theta)) + 0.5 * (l2 @ (full**2 - point.theta**2))
        slope = float(point.score @ (image + b - before - point.b))
        decrease, here, t = min(slope + float(penalty), 0.0), self._objective(point, alpha), 1.0
        for _ in range(HALVINGS):
            new = full if t == 1 else point.theta + t * (full - point.theta)
            at = image if t == 1 else before + t * (image - before)
            found = self._point(new, b if t == 1 else point.b + t * (b - point.b), at)
            value = self._objective(found, alpha)
            if value <= here + FLAT * abs(here):
                c, left = self._measure(found, work, alpha)
                # The objective's rounding may hide what the step brings; the residual shows it.
                if value <= here + ARMIJO * t * decrease < here or left < worst:
                    return found, c, left
            t /= 2
        return None
