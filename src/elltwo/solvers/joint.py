"""Training sets that are solved together, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.losses import FAMILIES
from elltwo.moments import Moments
from elltwo.penalties import QuadraticForm
from elltwo.solvers.base import column_size
from elltwo.solvers.columns import Columns, gradients
from elltwo.solvers.curvature import MANY_ALPHAS, Curved, Quadratic, quadratics
from elltwo.solvers.descent import solve
from elltwo.solvers.null import best_intercept, curvature_at, null_intercept
from elltwo.solvers.rowset import Chunk, RowSet

Array = npt.NDArray[Any]

#: Relative gradient at which the models of a path count as solved.
PATH_TOL = 1e-11


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
        self.p, self.T = len(sets[0].x_mean), len(sets[0].y_mean)
        self.group = self.T if self.book.problem.loss.coupled else 1
        self.passes = 0

    @cached_property
    def null(self) -> Array:
        """Intercepts of the models without features, (K, T): the best ones."""
        loss = self.book.problem.loss
        start = [null_intercept(loss, s.y_mean, self.centre) for s in self.sets]
        exact = loss.name in FAMILIES and next(self.book.problem.blocks()).offset is None
        if not self.centre or exact:
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
                w = chunk.w if chunk.label is None else chunk.w * member[chunk.label]
                eta = b if chunk.offset is None else b + chunk.offset
                one, two = curvature_at(loss, chunk.y, np.broadcast_to(eta, chunk.y.shape), w)
                first, second = first + one, second + two
            return first, second

        found: tuple[Array, Array] = self.book.total(part, self.p)
        return found

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
            forms=[self.forms[int(i)] for i in k],
            size=size[:, k * T + np.tile(np.arange(T), K * A)],
            mean=np.stack([s.x_mean for s in self.sets], axis=1)[:, k],
            group=self.group,
        )

    @cached_property
    def sizes(self) -> Array:
        """What gradients are relative to, shape (p + 1, K·T): see `Columns`."""
        K, T = len(self.sets), self.T
        columns = self.columns(np.zeros(1), np.ones((self.p + 1, K * T)))
        _, _, squares = gradients(self.book, columns, np.zeros((self.p, K * T)), self.null.reshape(-1))
        spread = np.stack([column_size(s, self.centre) for s in self.sets], axis=1)
        root = np.sqrt(np.array([s.weight for s in self.sets]))
        each = np.vstack([root * spread, root])
        return np.repeat(each, T, axis=1) * np.sqrt(squares)

    @cached_property
    def first(self) -> list[Quadratic]:
        """The quadratic models at the null models, for each set and model at an alpha."""
        if self.group > 1:
            columns = self.columns(np.zeros(1))
            b = self.null.reshape(-1)
            return quadratics(self.book, columns, np.zeros((self.p, len(b))), b, self.centre, sample=True)
        return [
            Curved.of(null, self.forms[k], self.centre, s.weight, MANY_ALPHAS)
            for k, s in enumerate(self.sets)
            for null in self.null_moments(k)
        ]

    def null_moments(self, k: int) -> list[Moments]:
        """Return the moments of a set under a mean curvature at the null model, one for each target."""
        s = self.sets[k]
        curvature = self._at_null(s, self.null[k])[1].diagonal() / s.weight
        flat = [float(c) if c > 0 else 1.0 for c in curvature]
        return [replace(s.moments, gram=c * s.moments.gram, weight=c * s.weight) for c in flat]

    def solve(self, alphas: Array, tol: float = PATH_TOL) -> None:
        """Solve at these alphas, all sets together, unless they are known."""
        new = np.array([a for a in dict.fromkeys(alphas.tolist()) if a not in self.known])
        if len(new) == 0:
            return
        K, T = len(self.sets), self.T
        theta, b, first = self._start(new)
        columns = self.columns(new)
        with self.book.calm():
            found = solve(self.book, columns, theta, b, first, centre=self.centre, tol=tol)
        self.passes += found.passes
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

    def _start(self, alphas: Array) -> tuple[Array, Array, list[Quadratic]]:
        """Return where to begin: at the solution of all rows, at the nearest known alpha, or at nothing."""
        K, T = len(self.sets), self.T
        per = T // self.group
        if self.start is not None:
            self.start.joint.solve(alphas)
        known = self.known if self.start is None else self.start.joint.known
        if not known:
            b = np.repeat(self.null[:, None], len(alphas), axis=1)
            first = [self.first[k * per + t] for k in range(K) for _ in alphas for t in range(per)]
            return np.zeros((self.p, b.size)), b.reshape(-1), first
        keys = np.array(list(known))
        logs = np.log(np.maximum(keys, np.finfo(float).tiny))
        nearest = [np.argmin(np.abs(logs - np.log(max(a, np.finfo(float).tiny)))) for a in alphas]
        near = [known[float(keys[i])] for i in nearest]
        theta = np.stack([np.broadcast_to(t, (self.p, K, T)) for t, *_ in near], axis=2).reshape(self.p, -1)
        b = np.stack([np.broadcast_to(b, (K, T)) for _, b, *_ in near], axis=1).reshape(-1)
        models = np.stack([np.broadcast_to(m, (K, per)) for *_, m in near], axis=1).reshape(-1)
        return theta, b, list(models)
