"""Training sets that are solved together, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block
from elltwo.moments import Moments
from elltwo.penalties import QuadraticForm
from elltwo.solvers.base import column_size, constant_columns
from elltwo.solvers.columns import Columns
from elltwo.solvers.curvature import MANY_ALPHAS, SAMPLE, Curved, Quadratic, merged, nearby, quadratics
from elltwo.solvers.descent import solve
from elltwo.solvers.null import best_intercept, curvature_at, is_exact, null_intercept
from elltwo.solvers.rowset import Chunk, RowSet, gather_rowsets

Array = npt.NDArray[Any]

#: Relative gradient at which the models of a path, and of training sets, count as solved; one step follows.
PATH_TOL, FOLD_TOL = 1e-8, 1e-7
#: Rows are first solved on a sample if they are so many times more, and X has so many elements; and the
#: relative gradient there: more digits the sample does not tell.
MANY_TIMES, MANY_ELEMENTS, SAMPLE_TOL = 4, 1 << 21, 1e-3
#: Elements of a sample, at most; and share of the null deviance below which it separates its classes.
SAMPLE_ELEMENTS, SEPARATED = 1 << 25, 0.02


class Joint:
    """Training sets that are solved together: what is solved is kept, and near solutions start the next.

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
        self.quadratics: dict[tuple[int, float], list[Quadratic]] = {}
        self.finals: dict[Any, Any] = {}
        self.known: dict[float, tuple[Array, Array, Array, Array]] = {}
        #: For alphas whose models differ little from one in their midst, the alpha of that one.
        self.leaders: dict[float, float] = {}
        self.p, self.T = len(sets[0].x_mean), len(sets[0].y_mean)
        self.group = self.T if self.book.problem.loss.coupled else 1

    @cached_property
    def null(self) -> Array:
        """Intercepts of the models without features, (K, T): the best ones."""
        loss = self.book.problem.loss
        start = [null_intercept(loss, s.y_mean, self.centre) for s in self.sets]
        if not self.centre or is_exact(loss, self.book.problem):
            return np.stack(start)
        return np.stack([self._best(s, b) for s, b in zip(self.sets, start, strict=True)])

    def _best(self, rows: RowSet, b: Array) -> Array:
        """Return the best intercept of a set whose rows have an offset."""
        return best_intercept(self.book.problem.loss, b, lambda at: self._at_null(rows, at))

    def _at_null(self, rows: RowSet, b: Array) -> tuple[Array, Array]:
        """Return Σ wℓ' (T,) and the matrix of Σ wℓ'' (T, T) of a set without features."""
        loss, member = self.book.problem.loss, rows.member

        def part(group: list[Chunk]) -> tuple[Array, Array]:
            first, second = np.zeros(len(b)), np.zeros((len(b), len(b)))
            for chunk in group:
                w = chunk.training(member)
                eta = b if chunk.offset is None else b + chunk.offset
                one, two = curvature_at(loss, chunk.y, np.broadcast_to(eta, chunk.y.shape), w)
                first, second = first + one, second + two
            return first, second

        found: tuple[Array, Array] = self.book.total(part, len(b))
        return found

    def columns(self, alphas: Array) -> Columns:
        """Return the models of all sets, alphas and targets, in this order."""
        K, A, T = len(self.sets), len(alphas), self.T
        k = np.repeat(np.arange(K), A * T)
        return Columns(
            alpha=np.tile(np.repeat(alphas, T), K),
            target=np.tile(np.arange(T), K * A),
            member=np.stack([s.member for s in self.sets], axis=1)[:, k],
            weight=np.array([s.weight for s in self.sets])[k],
            forms=[self.forms[int(i)] for i in k],
            size=self.sizes[:, k * T + np.tile(np.arange(T), K * A)],
            mean=np.stack([s.x_mean for s in self.sets], axis=1)[:, k],
            constant=self.constant[:, k],
            group=self.group,
        )

    @cached_property
    def constant(self) -> Array:
        """The features whose coefficients are 0 in each set, shape (p, K)."""
        pairs = zip(self.sets, self.forms, strict=True)
        return np.stack([constant_columns(s, form, self.centre) for s, form in pairs], axis=1)

    @cached_property
    def sizes(self) -> Array:
        """What gradients are relative to, shape (p + 1, K·T): see `Columns`."""
        K, T = len(self.sets), self.T
        loss = self.book.problem.loss

        def part(group: list[Chunk]) -> tuple[Array]:
            squares = np.zeros((K, T))
            for chunk in group:
                for k, b in enumerate(self.null):
                    eta = b if chunk.offset is None else b + chunk.offset
                    slope = loss.gradient(chunk.y, np.broadcast_to(eta, chunk.y.shape))
                    w = chunk.training(self.sets[k].member)
                    squares[k] += w @ (slope * slope)
            return (squares,)

        squares = self.book.total(part, T)[0].reshape(-1)
        spread = np.stack([column_size(s, self.centre) for s in self.sets], axis=1)
        root = np.sqrt(np.array([s.weight for s in self.sets]))
        each = np.vstack([root * spread, root])
        return np.asarray(np.repeat(each, T, axis=1) * np.sqrt(squares))

    @cached_property
    def first(self) -> list[Quadratic]:
        """The quadratic models at the null models, for each set and model at an alpha."""
        if self.group > 1:
            columns = self.columns(np.zeros(1))
            b = self.null.reshape(-1)
            return quadratics(self.book, columns, np.zeros((self.p, len(b))), b, self.centre, sample=True)
        return [
            Curved.of(null, self.forms[k], self.centre, weight, MANY_ALPHAS)
            for k in range(len(self.sets))
            for null, weight in self.null_moments(k, SAMPLE * self.p)
        ]

    def null_moments(self, k: int, rows: int | None = None) -> list[tuple[Moments, float]]:
        """Return for each target the moments of a set under a mean curvature at the null model, and Σw.

        With `rows`, from a sample of about so many rows.
        """
        s = self.sets[k]
        curvature = self._at_null(s, self.null[k])[1].diagonal() / s.weight
        flat = [float(c) if c > 0 else 1.0 for c in curvature]

        def blocks(group: list[Chunk]) -> Iterator[Block]:
            for chunk in group:
                w = chunk.training(s.member)
                yield Block(chunk.X, np.zeros((len(w), 0)), w, 0)

        of_x = merged(self.book, blocks, self.p, rows)
        return [(replace(of_x, gram=c * of_x.gram, weight=c * of_x.weight), of_x.weight) for c in flat]

    @cached_property
    def sample(self) -> tuple[Joint, float] | None:
        """The same models on a sample of the rows, and its share of the weight; None if it would not help.

        The optima of m rows of n differ from those of all by about √(p/m), at m/n of the cost.
        """
        n, rows = self.book.problem.source.n_rows, self.sets[0]
        wanted = min(SAMPLE * self.p, SAMPLE_ELEMENTS // self.p)
        if len(self.sets) > 1 or n is None or n < MANY_TIMES * wanted or n * self.p < MANY_ELEMENTS:
            return None
        book = rows.sampled(wanted)
        (few,) = gather_rowsets(book.problem)
        if book.problem.loss.coupled and not np.all(few.y_mean > 0):
            return None
        joint = Joint([few], self.forms, self.centre)
        joint.sample = None  # one is enough
        return joint, few.weight / rows.weight

    def solve(self, alphas: Array, tol: float | None = None) -> None:
        """Solve at these alphas, all sets together, unless they are known."""
        new = np.array([a for a in dict.fromkeys(alphas.tolist()) if a not in self.known])
        if len(new) == 0:
            return
        if tol is None:
            tol = PATH_TOL if self.start is None else FOLD_TOL
        near, share = self._near(new)
        leads = np.isin(new, list(self.leaders.values()))
        if leads.any() and not leads.all():
            self._solve(new[leads], near, share, tol)
            new = new[~leads]
        self._solve(new, near, share, tol)

    def _solve(self, new: Array, near: Joint, share: float, tol: float) -> None:
        """Solve at these alphas, beginning near what is known, and keep the solutions."""
        K, T = len(self.sets), self.T
        theta, b, first = self._start(new, near, share)
        columns = self.columns(new)
        with self.book.calm():
            found = solve(self.book, columns, theta, b, first, centre=self.centre, tol=tol)
        shape = (K, len(new), T)
        theta, b = found.theta.reshape(self.p, *shape), found.b.reshape(shape)
        relative = found.relative.reshape(K, len(new), -1)
        last = np.empty(len(found.models), dtype=object)
        last[:] = found.models
        last = last.reshape(relative.shape)
        for i, alpha in enumerate(new):
            self.known[float(alpha)] = (theta[:, :, i], b[:, i], relative[:, i], last[:, i])

    def improve(self, alpha: float, theta: Array, b: Array) -> None:
        """Put a better solution (p, T), (T,) of the only set at a known alpha in its place."""
        _, _, relative, models = self.known[alpha]
        self.known[alpha] = (theta[:, None], b[None], relative, models)

    def _start(self, alphas: Array, near: Joint, share: float) -> tuple[Array, Array, list[Quadratic]]:
        """Return where to begin: at solutions of all rows or of a sample, at a known alpha, or at nothing."""
        K, T = len(self.sets), self.T
        per = T // self.group
        if not near.known:
            b = np.repeat(self.null[:, None], len(alphas), axis=1)
            first = [self.first[k * per + t] for k in range(K) for _ in alphas for t in range(per)]
            return np.zeros((self.p, b.size)), b.reshape(-1), first
        keys = np.array(list(near.known))
        logs = np.log(np.maximum(keys, np.finfo(float).tiny))
        found = [np.argmin(np.abs(logs - np.log(max(a * share, np.finfo(float).tiny)))) for a in alphas]
        starts = [near.known[float(keys[i])] for i in found]
        theta = np.stack([np.broadcast_to(t, (self.p, K, T)) for t, *_ in starts], axis=2)
        b = np.stack([np.broadcast_to(b, (K, T)) for _, b, *_ in starts], axis=1)
        models = np.stack([np.broadcast_to(m, (K, per)) for *_, m in starts], axis=1).reshape(-1)
        for i, alpha in enumerate(alphas):  # these rows differ from those as they do at a near alpha
            lead = self.leaders.get(float(alpha))
            if near is not self and lead in self.known:
                there = near.known[lead * share]
                theta[:, :, i] += self.known[lead][0] - there[0]
                b[:, i] += self.known[lead][1] - there[1]
        return theta.reshape(self.p, -1), b.reshape(-1), list(models)

    def _near(self, alphas: Array) -> tuple[Joint, float]:
        """Return the models to begin at, solved, and how their alphas are scaled: or these."""
        if self.start is not None:
            near: Joint = self.start.joint
            near.solve(alphas)
            self.leaders = near.leaders
            return near, 1.0
        if self.known or self.sample is None:
            return self, 1.0
        near, share = self.sample
        near.solve(alphas * share, SAMPLE_TOL)
        if near.separated(alphas * share):
            return self, 1.0
        leaders = near.sharpen(alphas * share)
        self.leaders |= dict(zip(alphas.tolist(), alphas[leaders].tolist(), strict=True))
        return near, share

    def _solutions(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T) of the only set at known alphas."""
        found = [self.known[float(a)] for a in alphas]
        return np.stack([theta[:, 0] for theta, *_ in found]), np.stack([b[0] for _, b, *_ in found])

    def separated(self, alphas: Array) -> bool:
        """Return whether a model of the only set fits so well that it says little about other rows."""
        (rows,) = self.sets
        null = rows.deviance(np.zeros((1, self.p, self.T)), self.null)
        return bool(np.any(rows.deviance(*self._solutions(alphas)) < SEPARATED * null))

    def sharpen(self, alphas: Array) -> Array:
        """Give the known models of the only set the curvature at their own solution, or at one near it.

        Return which of the alphas that is for each (A,); of several targets, for the first.
        """
        columns = self.columns(alphas)
        theta, b = self._solutions(alphas)
        theta, b = theta.transpose(1, 0, 2).reshape(self.p, -1), b.reshape(-1)
        with self.book.calm():
            serves = nearby(self.book, columns, theta, b)
            which, inverse = np.unique(serves, return_inverse=True)
            at = columns.of(which)
            n_alphas = -(-len(inverse) // len(which))
            made = quadratics(
                self.book, columns.take(at), theta[:, at], b[at], self.centre, n_alphas=n_alphas
            )
        own = np.empty(len(made), dtype=object)
        own[:] = made
        for alpha, models in zip(alphas, own[inverse].reshape(len(alphas), 1, -1), strict=True):
            self.known[float(alpha)] = (*self.known[float(alpha)][:3], models)
        per = self.T // self.group
        return np.asarray(serves[::per] // per)
