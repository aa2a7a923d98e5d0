"""Newton's method for every convex loss, for all alphas and all training sets at once.

The optimum at (α, training set) is a zero of the gradient

    g_θ = Σ wᵢℓ'(yᵢ, ηᵢ)xᵢ + αPθ,      g_b = Σ wᵢℓ'(yᵢ, ηᵢ),

and a Newton step solves a ridge problem whose rows have the weights h = w·ℓ''(y, η): a GLM is a loop of
weighted moments. A pass over the rows serves the gradients of all models, as the columns of one matrix; the
curvature of one model serves its neighbours too (a chord step), for as long as their gradients fall by the
factor FALLS each time. Models whose gradient falls more slowly get a curvature of their own, which is Newton's
method. A step is taken back as far as the slope along it says that it went beyond the minimum, so that the
method converges from anywhere for a convex loss (Boyd and Vandenberghe, 2004, "Convex optimization", ch. 9).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, on_cores
from elltwo.data.base import Block
from elltwo.errors import Status
from elltwo.moments import Moments, gather
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate
from elltwo.solvers.base import UNDETERMINED, HeldOut, Outcome, Statistic, leave_out_weight
from elltwo.solvers.cholesky import Cholesky, CholeskySolver, NotPositiveDefinite
from elltwo.solvers.rowset import Book, Chunk, RowSet, gather_rowsets
from elltwo.solvers.spectral import Spectral, SpectralSolver

Array = npt.NDArray[Any]

#: A chord step is good while it shrinks the gradient by this factor; else the curvature is renewed.
FALLS = 0.25
#: Relative gradient at which the models of a path count as solved, and the chosen model.
PATH_TOL, FINAL_TOL = 1e-9, 1e-13
#: Passes over the rows after which a model is given up.
MOST_PASSES = 200
#: Steps without progress after which a model is as good as rounding lets it be, near the optimum or far away.
PATIENCE, MOST_PATIENCE, NEAR = 2, 20, 1e-6
#: Bytes of quadratic models that are kept for effective degrees of freedom and leave-one-out.
KEPT_BYTES = 1 << 28
#: A relative gradient above this is no optimum; a deviance below this share of the null deviance is none.
NOT_REACHED, SEPARATED = 1e-6, 1e-6
#: A step is shortened when the slope at its end exceeds this share of the slope at its start.
OVERSHOOT = 0.5
#: Rows per feature in a sample that a curvature is first taken from: it errs by about √(1/SAMPLE).
SAMPLE = 300
#: Features from which one eigendecomposition for many alphas beats a Cholesky factorisation for each.
MANY_FEATURES, MANY_ALPHAS = 192, 12


@dataclass(frozen=True)
class Columns:
    """Models to be solved, one per column: α, target, and which atoms each is trained on.

    Attributes
    ----------
    alpha, target : arrays, shape (C,)
    member : array of bool, shape (n_atoms + 1, C)
    weight : array, shape (C,)
        Σw of the training rows.
    forms : sequence of QuadraticForm, one per column
    size : array, shape (p + 1, C)
        What a relative gradient is relative to: ‖z_j‖·‖ℓ'‖ at the null model, and √W·‖ℓ'‖ for b.
    mean : array, shape (p, C)
        Means of the features in the training rows.
    """

    alpha: Array
    target: Array
    member: Array
    weight: Array
    forms: Sequence[QuadraticForm]
    size: Array
    mean: Array

    def take(self, which: Array) -> Columns:
        """Return some of the columns."""
        return Columns(
            self.alpha[which],
            self.target[which],
            self.member[:, which],
            self.weight[which],
            [self.forms[c] for c in which],
            self.size[:, which],
            self.mean[:, which],
        )

    def pull(self, theta: Array) -> Array:
        """Return αPθ for each column, shape (p, C)."""
        result = np.empty_like(theta)
        for form, inside in _by_form(self.forms):
            result[:, inside] = self.alpha[inside] * form.apply(theta[:, inside])
        return result


def _by_form(forms: Sequence[QuadraticForm]) -> list[tuple[QuadraticForm, Array]]:
    """Return each distinct form with the columns that it belongs to."""
    distinct = {id(form): form for form in forms}
    ids = np.array([id(form) for form in forms])
    return [(form, np.flatnonzero(ids == key)) for key, form in distinct.items()]


@dataclass(frozen=True, eq=False)
class Curved:
    """A quadratic model of some rows: Moments under the weights h = w·ℓ'', as a ridge state.

    Attributes
    ----------
    moments : Moments
    state : Cholesky or Spectral
    weight : float
        Σw of the rows it was measured on.
    """

    moments: Moments
    state: Cholesky | Spectral
    weight: float
    centre: bool

    @classmethod
    def of(
        cls, moments: Moments, form: QuadraticForm, centre: bool, weight: float, n_alphas: int
    ) -> Curved:
        """Return the model for so many alphas."""
        many = n_alphas >= MANY_ALPHAS and len(form.d) >= MANY_FEATURES
        solver: Any = SpectralSolver() if many else CholeskySolver()
        return cls(moments, solver.state(moments, form, centre), weight, centre)

    def _solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_c P)⁻¹ rhs_c, by an eigendecomposition where Cholesky finds the matrix singular."""
        try:
            return self.state.solve(rhs, alpha)
        except NotPositiveDefinite:
            assert isinstance(self.state, Cholesky)
            return SpectralSolver().state(self.moments, self.state.form, self.centre).solve(rhs, alpha)

    def step(self, g: Array, gb: Array, alpha: Array, weight: Array) -> tuple[Array, Array]:
        """Return the steps (δθ (p, C), δb (C,)) to the minimum, for training sets of these weights.

        The curvature of the data is taken to be proportional to the weight of the training set.
        """
        share = weight / self.weight
        mean = self.moments.x_mean if self.centre else np.zeros_like(self.moments.x_mean)
        rhs = -(g - np.multiply.outer(mean, gb)) / share
        d_theta = self._solve(rhs, alpha / share)
        if not self.centre:
            return d_theta, np.zeros(len(gb))
        total = self.moments.weight * share
        d_b = -np.where(total > 0, gb / np.where(total > 0, total, 1.0), 0.0) - mean @ d_theta
        return d_theta, d_b


@dataclass(frozen=True)
class Solved:
    """Solutions of all columns: θ (p, C), b (C,), relative gradients (C,), the last quadratic models, passes."""

    theta: Array
    b: Array
    relative: Array
    models: list[Curved]
    passes: int


def gradients(book: Book, columns: Columns, theta: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return Σ wℓ'x (p, C), Σ wℓ' (C,) and Σ wℓ'² (C,) over each column's training rows, in one pass."""
    loss, C = book.problem.loss, len(columns.alpha)
    one_target = book.problem.source.n_targets == 1
    everyone = bool(columns.member[:-1].all())

    def part(group: list[Chunk]) -> tuple[Array, Array, Array]:
        g, gb, squares = np.zeros((len(theta), C)), np.zeros(C), np.zeros(C)
        for chunk in group:
            eta = chunk.eta(theta, b, columns.target)
            y = chunk.y if one_target else chunk.y[:, columns.target]
            slope = loss.gradient(y, eta)
            weighted = slope * chunk.w[:, None]
            if not everyone:
                assert chunk.label is not None
                weighted *= columns.member[chunk.label]
            g += chunk.X.T @ weighted
            gb += weighted.sum(axis=0)
            squares += np.einsum("ic,ic->c", weighted, slope)
        return g, gb, squares

    g, gb, squares = book.total(part, len(theta) + C)
    return g, gb, squares


def curvatures(
    book: Book, columns: Columns, theta: Array, b: Array, *, sample: bool = False
) -> list[tuple[Moments, float]]:
    """Return for each column the moments of its rows under the weights w·ℓ''(y, η), and Σw of these rows.

    With `sample`, chunks of rows spread over the whole are enough: SAMPLE·p rows.
    """
    return [_curvature(book, columns, theta, b, c, sample) for c in range(len(columns.alpha))]


def _curvature(
    book: Book, columns: Columns, theta: Array, b: Array, c: int, sample: bool
) -> tuple[Moments, float]:
    loss, member = book.problem.loss, columns.member[:, c]
    everyone = bool(member[:-1].all())
    target = columns.target[c : c + 1]
    weights: list[float] = []

    def blocks(group: list[Chunk]) -> Iterator[Block]:
        for chunk in group:
            w = chunk.w
            if not everyone:
                assert chunk.label is not None
                w = w * member[chunk.label]
            eta = chunk.eta(theta[:, c : c + 1], b[c : c + 1], target)
            weights.append(float(w.sum()))
            yield Block(chunk.X, np.zeros((len(w), 1)), loss.curvature(chunk.y[:, target], eta)[:, 0] * w, 0)

    moments = merged(book, blocks, len(theta), SAMPLE * len(theta) if sample else None)
    return moments, sum(sorted(weights))


def merged(book: Book, blocks: Any, p: int, rows: int | None) -> Moments:
    """Return the moments of `blocks(group)` over all groups of chunks, or over about so many rows."""
    total: Moments | None = None
    with book.cores():
        for groups in book.groups(4 * p, rows):
            for (part,) in on_cores(lambda group: gather(blocks(group)), groups):
                total = part if total is None else total.merge(part)
    assert total is not None
    return total


def solve(
    book: Book,
    columns: Columns,
    theta: Array,
    b: Array,
    first: Sequence[Curved],
    *,
    centre: bool,
    tol: float,
) -> Solved:
    """Minimise the objective of every column, starting from (θ, b) and first quadratic models.

    Parameters
    ----------
    book, columns
        The rows and the models.
    theta, b : arrays, shapes (p, C) and (C,)
        Starting values.
    first : sequence of Curved
        A quadratic model for each column, to begin with.
    centre : bool
        Whether there is an intercept.
    tol : float
        Largest relative gradient of a solved column.
    """
    C = len(columns.alpha)
    theta, b = theta.copy(), b.copy()
    model: list[Curved] = list(first)
    relative, idle, waits = np.full(C, np.inf), np.zeros(C, dtype=int), np.zeros(C, dtype=int)
    base_theta, base_b = theta.copy(), b.copy()
    step_theta, step_b = np.zeros_like(theta), np.zeros_like(b)
    slope, length = np.zeros(C), np.ones(C)
    todo = np.arange(C)
    passes = 0
    while len(todo) and passes < MOST_PASSES:
        passes += 1
        part = columns.take(todo)
        g, gb, _ = gradients(book, part, theta[:, todo], b[todo])
        g += part.pull(theta[:, todo])
        gb = gb if centre else np.zeros_like(gb)
        # Columns that went beyond the minimum along their step go back to where a secant puts it.
        now = np.einsum("jc,jc->c", g, step_theta[:, todo]) + gb * step_b[todo]
        before = -slope[todo]
        beyond = (before > 0) & (now > OVERSHOOT * before)
        for c, at in zip(todo[beyond], now[beyond], strict=True):
            length[c] *= max(0.05, -slope[c] / (-slope[c] + at))
            theta[:, c] = base_theta[:, c] + length[c] * step_theta[:, c]
            b[c] = base_b[c] + length[c] * step_b[c]
            waits[c] += 1
        fine = ~beyond
        found = _relative(part, g, gb, centre)
        last = relative[todo]
        relative[todo[fine]] = found[fine]
        slow = fine & (found > FALLS * last)
        waits[todo[fine]] = np.where(slow[fine], waits[todo[fine]] + 1, 0)
        idle[todo[fine]] = np.where(found[fine] > 0.9 * last[fine], idle[todo[fine]] + 1, 0)
        patience = np.where(found < NEAR, PATIENCE, MOST_PATIENCE)
        done = fine & ((found <= tol) | (idle[todo] >= patience))
        move = np.flatnonzero(fine & ~done)
        if len(move):
            which = todo[move]
            stale = waits[which] > 0
            _renew(book, columns, theta, b, model, which[stale], waits, centre)
            d_theta, d_b = _steps(model, columns, which, g[:, move], gb[move])
            base_theta[:, which], base_b[which] = theta[:, which], b[which]
            step_theta[:, which], step_b[which] = d_theta, d_b
            slope[which] = np.einsum("jc,jc->c", g[:, move], d_theta) + gb[move] * d_b
            length[which] = 1.0
            theta[:, which] += d_theta
            b[which] += d_b
        todo = todo[~done]
    return Solved(theta, b, relative, model, passes)


def _relative(columns: Columns, g: Array, gb: Array, centre: bool) -> Array:
    """Return the largest relative gradient of each column, the intercept profiled out of the slopes."""
    centred = g - columns.mean * gb if centre else g
    everything = np.vstack([centred, gb]) if centre else centred
    size = columns.size if centre else columns.size[:-1]
    size = np.where(size > 0, size, np.inf)
    return np.asarray(np.max(np.abs(everything) / size, axis=0))


def _renew(
    book: Book,
    columns: Columns,
    theta: Array,
    b: Array,
    model: list[Curved],
    which: Array,
    waits: Array,
    centre: bool,
) -> None:
    """Give columns whose gradient falls slowly a new quadratic model, their own or a neighbour's.

    A curvature costs about as much as gradients of p/6 columns, and so many are made at a time; the
    columns that have waited longest are served first, and the others take the nearest in log α.
    """
    if len(which) == 0:
        return
    most = max(1, int(np.ceil(6 * len(which) / len(theta))))
    alphas = np.log(np.maximum(columns.alpha[which], np.finfo(float).tiny))
    order = np.lexsort((alphas, -waits[which]))
    if len(which) > most:
        longest = order[: np.count_nonzero(waits[which] >= 2)] if (waits[which] >= 2).any() else order
        longest = longest[np.argsort(alphas[longest], kind="stable")]
        spots = np.linspace(0, len(longest) - 1, min(most, len(longest))).round().astype(int)
        picked = longest[np.unique(spots)]
    else:
        picked = np.arange(len(which))
    chosen = which[picked]
    part = columns.take(chosen)
    n_alphas = len(np.unique(columns.alpha[which])) // len(chosen)
    sample = bool((waits[chosen] < 2).all())
    measured = curvatures(book, part, theta[:, chosen], b[chosen], sample=sample)
    made = [
        Curved.of(moments, columns.forms[c], centre, weight, n_alphas)
        for (moments, weight), c in zip(measured, chosen, strict=True)
    ]
    for position, c in enumerate(which):
        same = np.flatnonzero(columns.target[chosen] == columns.target[c])
        if len(same) == 0:
            continue
        apart = np.abs(alphas[picked[same]] - alphas[position])
        apart = apart + 1e-6 * (columns.member[:, chosen[same]] != columns.member[:, [c]]).any(axis=0)
        model[c] = made[int(same[np.argmin(apart)])]


def _steps(
    model: list[Curved], columns: Columns, which: Array, g: Array, gb: Array
) -> tuple[Array, Array]:
    """Return the steps of these columns, those with the same quadratic model together."""
    d_theta, d_b = np.zeros_like(g), np.zeros_like(gb)
    ids = np.array([id(model[c]) for c in which])
    for key in np.unique(ids):
        same = np.flatnonzero(ids == key)
        at = which[same]
        d_theta[:, same], d_b[same] = model[at[0]].step(
            g[:, same], gb[same], columns.alpha[at], columns.weight[at]
        )
    return d_theta, d_b


class Joint:
    """Training sets that are solved together: what has been solved is kept, and near solutions start the next.

    Parameters
    ----------
    sets : sequence of RowSet
        Training sets of the same book.
    forms : sequence of QuadraticForm
        The penalty of each, for the scales of its own columns.
    centre : bool
    start : NewtonState, optional
        The state of all rows; its solutions are where those of the training sets begin.
    """

    def __init__(
        self, sets: Sequence[RowSet], forms: Sequence[QuadraticForm], centre: bool, start: Any = None
    ) -> None:
        self.sets, self.forms, self.centre, self.start = sets, forms, centre, start
        self.book = sets[0].book
        self.quadratics: dict[tuple[int, float], list[Spectral]] = {}
        self.known: dict[float, tuple[Array, Array, Array, list[Curved]]] = {}
        self.p, self.T = len(sets[0].x_mean), len(sets[0].y_mean)
        self.passes = 0

    def null(self) -> Array:
        """Return b of the model without features for each set and target, shape (K, T)."""
        loss = self.book.problem.loss
        if not self.centre:
            return np.zeros((len(self.sets), self.T))
        return np.stack([np.broadcast_to(loss.null(s.y_mean), (self.T,)) for s in self.sets])

    def columns(self, alphas: Array, sizes: Array | None = None) -> Columns:
        """Return the models of all sets, alphas and targets, in this order."""
        K, A, T = len(self.sets), len(alphas), self.T
        k = np.repeat(np.arange(K), A * T)
        size = self.sizes if sizes is None else sizes
        return Columns(
            alpha=np.tile(np.repeat(alphas, T), K),
            target=np.tile(np.arange(T), K * A),
            member=np.stack([s.member for s in self.sets], axis=1)[:, k],
            weight=np.array([s.weight for s in self.sets])[k],
            forms=[self.forms[i] for i in k],
            size=size[:, k * T + np.tile(np.arange(T), K * A)],
            mean=np.stack([s.x_mean for s in self.sets], axis=1)[:, k],
        )

    @cached_property
    def sizes(self) -> Array:
        """What gradients are relative to, shape (p + 1, K·T): see `Columns`."""
        K, T = len(self.sets), self.T
        columns = self.columns(np.zeros(1), np.ones((self.p + 1, K * T)))
        _, _, squares = gradients(self.book, columns, np.zeros((self.p, K * T)), self.null().reshape(-1))
        spread = np.stack([_spread(s.moments, self.centre) for s in self.sets], axis=1)
        root = np.sqrt(np.array([s.weight for s in self.sets]))
        each = np.vstack([root * spread, root])
        return np.repeat(each, T, axis=1) * np.sqrt(squares)

    @cached_property
    def first(self) -> list[Curved]:
        """The quadratic models at the null models, one per set and target: the Gram times a mean curvature."""
        loss, b = self.book.problem.loss, self.null()
        models = []
        for k, s in enumerate(self.sets):
            mean = np.asarray(loss.curvature(s.y_mean, b[k] if not loss.coupled else b[k]))
            for t in range(self.T):
                c = float(mean[t]) if mean[t] > 0 else 1.0
                m = replace(s.moments, gram=c * s.moments.gram, weight=c * s.weight)
                models.append(Curved.of(m, self.forms[k], self.centre, s.weight, MANY_ALPHAS))
        return models

    def solve(self, alphas: Array, tol: float = PATH_TOL) -> None:
        """Solve at these alphas, all sets together, unless they are known."""
        new = np.array([a for a in dict.fromkeys(alphas.tolist()) if a not in self.known])
        if len(new) == 0:
            return
        K, T = len(self.sets), self.T
        theta, b, first = self._start(new)
        columns = self.columns(new)
        found = solve(self.book, columns, theta, b, first, centre=self.centre, tol=tol)
        self.passes += found.passes
        shape = (K, len(new), T)
        theta = found.theta.reshape(self.p, *shape)
        b, relative = found.b.reshape(shape), found.relative.reshape(shape)
        models = np.array(found.models, dtype=object).reshape(shape)
        for i, alpha in enumerate(new):
            self.known[float(alpha)] = (theta[:, :, i], b[:, i], relative[:, i], models[:, i])

    def _start(self, alphas: Array) -> tuple[Array, Array, list[Curved]]:
        """Return where to begin: the solution of all rows, or at the nearest known alpha, or the null model."""
        K, T = len(self.sets), self.T
        if self.start is not None:
            self.start.joint.solve(alphas)
            known = self.start.joint.known
        else:
            known = self.known
        if not known:
            b = np.repeat(self.null()[:, None], len(alphas), axis=1)
            first = [self.first[k * T + t] for k in range(K) for _ in alphas for t in range(T)]
            return np.zeros((self.p, b.size)), b.reshape(-1), first
        logs = np.log(np.maximum(list(known), np.finfo(float).tiny))
        keys = list(known)
        thetas, bs, models = [], [], []
        for alpha in alphas:
            near = known[keys[int(np.argmin(np.abs(logs - np.log(max(alpha, np.finfo(float).tiny)))))]]
            thetas.append(np.broadcast_to(near[0], (self.p, K, T)))
            bs.append(np.broadcast_to(near[1], (K, T)))
            models.append(np.broadcast_to(near[3], (K, T)))
        theta = np.stack(thetas, axis=2).reshape(self.p, -1)
        b = np.stack(bs, axis=1).reshape(-1)
        return theta, b, list(np.stack(models, axis=1).reshape(-1))


def _spread(moments: Moments, centre: bool) -> Array:
    """Return the root mean square of the columns, about their means with an intercept."""
    return moments.x_scale if centre else np.sqrt(moments.x_scale**2 + moments.x_mean**2)


@dataclass(frozen=True, eq=False)
class NewtonState:
    """Models of one training set; solved, with those it shares a `Joint` with, when they are asked for."""

    statistic: RowSet
    form: QuadraticForm
    centre: bool
    joint: Joint
    index: int
    condition_limit: float = np.inf

    def solved(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T)."""
        self.joint.solve(alphas)
        known = [self.joint.known[float(a)] for a in alphas]
        return (
            np.stack([theta[:, self.index] for theta, *_ in known]),
            np.stack([b[self.index] for _, b, *_ in known]),
        )

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        return self.solved(alphas)[0]

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        return np.stack([self.coef(np.array([a]))[0, :, t] for t, a in enumerate(alpha)], axis=1)

    def curved(self, alpha: float) -> list[tuple[Moments, float]]:
        """Return the rows' moments under the weights w·ℓ'' at the optimum, one for each target."""
        theta, b = self.solved(np.array([alpha]))
        columns = self._columns(np.full(theta.shape[2], alpha))
        return curvatures(self.statistic.book, columns, theta[0], b[0])

    def _columns(self, alpha: Array) -> Columns:
        """Return this training set's models with these alphas, one for each target."""
        T = len(alpha)
        all_sets = self.joint.columns(np.zeros(1)).take(self.index * T + np.arange(T))
        return replace(all_sets, alpha=alpha)

    def quadratic(self, alpha: float) -> list[Spectral]:
        """Return the diagonalised quadratic models at the optimum, one for each target; small ones are kept."""
        kept = self.joint.quadratics
        key = (self.index, float(alpha))
        if key in kept:
            return kept[key]
        solver = SpectralSolver()
        made = [solver.state(m, self.form, self.centre) for m, _ in self.curved(alpha)]
        if len(kept) * 24 * len(self.form.d) ** 2 < KEPT_BYTES:
            kept[key] = made
        return made

    def df(self, alphas: Array) -> Array:
        """Return tr[(G_h + αP)⁻¹G_h] with the Gram G_h of the rows under the weights w·ℓ'' (mean over targets)."""
        return np.array([np.mean([q.df(np.array([a]))[0] for q in self.quadratic(a)]) for a in alphas])

    def rss(self, alphas: Array) -> Array:
        """Return the deviance in sample, shape (A, T)."""
        return self.statistic.sse(*self.solved(alphas))

    def spectrum(self) -> Array:
        """Return the positive squared singular values at the null model, for a grid of alphas."""
        values = []
        for curved in self.joint.first[self.index * self.joint.T :][: self.joint.T]:
            values.append(SpectralSolver().state(curved.moments, self.form, self.centre).spectrum())
        return np.concatenate(values)

    def condition(self, alpha: float) -> float:
        """Return κ̂² of the curvature at the optimum, columns scaled."""
        return max(_condition(moments, self.form, self.centre, alpha) for moments, _ in self.curved(alpha))

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (G_h + α_t P)⁻¹ rhs_t at the optimum."""
        parts = [self.quadratic(a)[t].solve(rhs[:, [t]], alpha[[t]]) for t, a in enumerate(alpha)]
        return np.hstack(parts)

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:
        """Yield η without each row, to first order in its weight (approximate leave-one-out).

        With a = x̃ᵀH⁻¹x̃ and v the weight that is left out: η₋ᵢ = η + vℓ'a/(1 − vℓ''a), exact for squared error
        (Beirami et al., 2017; Rad and Maleki, 2020, "A scalable estimate of the out-of-sample prediction error").
        """
        theta, b = self.solved(alphas)
        A, p, T = theta.shape
        quadratic = [self.quadratic(a) for a in alphas]
        loss = problem.loss
        for groups in self.statistic.book.groups(p + A * T):
            for chunk in (chunk for group in groups for chunk in group):
                eta = np.empty((len(chunk.y), A, T))
                v = leave_out_weight(problem, chunk.w)
                for i, alpha in enumerate(alphas):
                    at = chunk.eta(theta[i], b[i], np.arange(T))
                    slope, curvature = loss.derivatives(chunk.y, at)
                    for t in range(T):
                        a = v * quadratic[i][t].leverage(chunk.X, alpha)
                        keep = 1.0 - curvature[:, t] * a
                        keep[keep < UNDETERMINED] = np.nan
                        eta[:, i, t] = at[:, t] + slope[:, t] * a / keep
                rows = slice(chunk.start, chunk.start + len(chunk.y))
                yield HeldOut(rows, slice(0, T), chunk.w, chunk.y, eta, loss)


    def outcome(self, alpha: Array) -> Outcome:
        """Return the model at one alpha per target, solved until rounding stops it, and measured."""
        book, T = self.statistic.book, len(alpha)
        columns = self._columns(alpha)
        theta = self.coef_at(alpha)
        b = np.array([self.solved(np.array([a]))[1][0, t] for t, a in enumerate(alpha)])
        found = self._curved_at(columns, theta, b)
        solved = solve(book, columns, theta, b, found, centre=self.centre, tol=FINAL_TOL)
        g, gb, _ = gradients(book, columns, solved.theta, solved.b)
        g += columns.pull(solved.theta)
        left = _relative(columns, g, gb if self.centre else np.zeros(T), self.centre)
        d_theta, d_b = _steps(found, columns, np.arange(T), g, gb)
        theta, b = book.problem.restore(solved.theta, solved.b)
        condition = max(_condition(m.moments, self.form, self.centre, a) for m, a in zip(found, alpha, strict=True))
        certificate = Certificate(
            residual=float(left.max()),
            measured_on="rows",
            condition=float(np.sqrt(condition)),
            digits=_digits(self.statistic, theta, b, d_theta, d_b, condition),
            refinements=solved.passes,
        )
        deviance = self.statistic.sse(solved.theta[None], solved.b[None])[0]
        null = null_deviance(self.statistic, self.centre)
        return Outcome(theta, b, deviance, null, certificate, self._notes(alpha, left, deviance, null))

    def _curved_at(self, columns: Columns, theta: Array, b: Array) -> list[Curved]:
        """Return the exact quadratic model of each column."""
        measured = curvatures(self.statistic.book, columns, theta, b)
        return [Curved.of(m, self.form, self.centre, weight, 1) for m, weight in measured]

    def _notes(self, alpha: Array, left: Array, deviance: Array, null: Array) -> tuple[Status, ...]:
        """Say where there is no optimum, or where it was not reached."""
        if (left > NOT_REACHED).any():
            return (Status.NOT_CONVERGED,)
        loss = self.statistic.book.problem.loss
        free = (alpha == 0) | (self.form.d == 0).any()
        if loss.link in ("logit", "softmax") and np.any(free & (deviance < SEPARATED * null)):
            return (Status.SEPARATED,)
        return ()


def _condition(moments: Moments, form: QuadraticForm, centre: bool, alpha: float) -> float:
    """Return κ̂² of the column-scaled G_h + αP, infinite if it is singular."""
    try:
        return Cholesky(moments, form, centre).condition(float(alpha))
    except NotPositiveDefinite:
        return float("inf")


def _digits(
    statistic: Statistic, theta: Array, b: Array, d_theta: Array, d_b: Array, condition: float
) -> float:
    """Return the digits of the worst coefficient that the next step, not taken, would leave as they are.

    Coefficients whose effect is a 1e-10 of the largest count as 0. The step itself is known to rounding of
    the rows times the condition number, which limits what it can promise.
    """
    effect = np.abs(theta) * statistic.x_scale[:, None]
    real = effect > 1e-10 * effect.max(initial=0.0)
    worst = np.max(np.abs(d_theta[real] / theta[real]), initial=0.0)
    size = np.abs(b) + np.abs(statistic.x_mean) @ np.abs(theta)
    worst = max(worst, float(np.max(np.abs(d_b) / np.where(size > 0, size, 1.0), initial=0.0)))
    floor = ROUNDOFF * np.sqrt(condition) if np.isfinite(condition) else 1.0
    return float(np.clip(-np.log10(max(worst, floor, 1e-300)), 0.0, 15.9))


def null_deviance(rows: RowSet, centre: bool) -> Array:
    """Return the deviance of the best model without features, shape (S,)."""
    book, T = rows.book, len(rows.y_mean)
    loss, member = book.problem.loss, rows.member
    b = np.broadcast_to(np.asarray(loss.null(rows.y_mean), dtype=np.float64), (T,)).copy()
    b = b if centre else np.zeros(T)

    def part(group: list[Chunk]) -> tuple[Array, Array]:
        first, second = np.zeros(T), np.zeros(T)
        for chunk in group:
            w = chunk.w if chunk.label is None else chunk.w * member[chunk.label]
            eta = np.broadcast_to(b, chunk.y.shape)
            eta = eta if chunk.offset is None else eta + chunk.offset
            slope, curvature = loss.derivatives(chunk.y, eta)
            first += w @ slope
            second += w @ curvature
        return first, second

    for _ in range(50 if centre else 0):
        first, second = book.total(part, 1 + T)
        step = np.where(second > 0, -first / np.where(second > 0, second, 1.0), 0.0)
        b += np.clip(step, -5.0, 5.0)
        if np.abs(step).max() < 1e-9:
            break
    return rows.sse(np.zeros((1, len(rows.x_mean), T)), b[None])[0]


@dataclass(frozen=True)
class NewtonSolver:
    """Newton's method on weighted moments: dense rows, in memory or streamed, with n > p."""

    name: str = "newton"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[RowSet]:
        """Return the set of rows of each atom."""
        return gather_rowsets(problem, labels, n_atoms)

    def state(self, rows: RowSet, form: QuadraticForm, centre: bool) -> NewtonState:
        """Return a state whose models are solved when they are asked for."""
        return NewtonState(rows, form, centre, Joint([rows], [form], centre), 0)

    def states(
        self, sets: Sequence[RowSet], forms: Sequence[QuadraticForm], centre: bool, start: NewtonState
    ) -> list[NewtonState]:
        """Return states of training sets that are solved together, beginning at the solutions of all rows."""
        joint = Joint(sets, forms, centre, start)
        pairs = zip(sets, forms, strict=True)
        return [NewtonState(s, form, centre, joint, k) for k, (s, form) in enumerate(pairs)]
