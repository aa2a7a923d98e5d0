"""More features than rows, for every loss: solve in the space of the rows, and take the solution back.

In the penalty's own coordinates, the penalised optimum lies in the span of the rows: a part of θ that no row
sees only costs penalty. With the QR factorisation of the penalised columns, (X − x̄)D^{-½} = RᵀQᵀ, the rows
become [X_free, Rᵀ], at most n columns more than there are unpenalised features, the penalty ‖v‖², and
θ = D^{-½}Qv (Hastie and Tibshirani, 2004, "Efficient quadratic regularization for expression arrays").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.memory import MemorySource
from elltwo.data.weights import weights_are
from elltwo.penalties import Diagonal, QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import HeldOut, Outcome, Split, column_size, rank_cutoff
from elltwo.solvers.certificate import SINGULAR, Reached, Rounding, certified, dependent
from elltwo.solvers.curvature import Curved, Quadratic
from elltwo.solvers.descent import ROUNDING, relative_gradient
from elltwo.solvers.newton import Final, NewtonSolver, NewtonState, refuse_absent
from elltwo.solvers.rowset import Chunk, RowSet, gather_rowsets

Array = npt.NDArray[Any]


#: Most steps in all p features, each of which costs two products with X.
MOST_REFINEMENTS = 20
#: Where a coefficient may grow for ever, a step that changes some η by more is growth, and refines nothing.
SMALL_STEP = 1e-2
#: Share of the largest squared singular value above which all others are known well enough from AAᵀ.
WELL_SEEN = 1e-10


@dataclass(frozen=True, eq=False)
class Reduction:
    """Rows in the coordinates (u, v): unpenalised features, and the penalised space that the rows span.

    Attributes
    ----------
    split : Split
    mean : array, shape (p,)
        What the rows are centred at.
    basis : array, shape (r, k)
        Q, with orthonormal columns.
    rows : array, shape (n, q + k)
    """

    split: Split
    mean: Array
    basis: Array
    rows: Array

    @classmethod
    def of(cls, X: Array, mean: Array, varies: Array, form: QuadraticForm) -> Reduction:
        """Reduce rows X (n, p); columns that do not vary count as 0."""
        split = Split.of(form)
        Z = split.rotate((X - mean) * varies)
        held = Z[:, split.held]
        held /= split.root
        basis, rows = _row_space(held)
        return cls(split, mean, basis, np.hstack([Z[:, split.free], rows]))

    def theta(self, inner: Array) -> Array:
        """Return θ (…, p, T) of (u, v) (…, q + k, T)."""
        split = self.split
        q = len(split.free)
        theta = np.zeros((*inner.shape[:-2], len(self.mean), inner.shape[-1]))
        theta[..., split.free, :] = inner[..., :q, :]
        v = inner[..., q:, :]
        held = self.basis @ np.moveaxis(v, -2, 0).reshape(v.shape[-2], -1)  # one product for all of them
        held /= split.root[:, None]
        theta[..., split.held, :] = np.moveaxis(held.reshape(-1, *v.shape[:-2], v.shape[-1]), 0, -2)
        return theta if split.form.rotation is None else np.asarray(split.form.rotation @ theta)

    def back(self, v: Array, b: Array) -> tuple[Array, Array]:
        """Return θ (…, p, T) and b (…, T) of a solution in the coordinates (u, v)."""
        theta = self.theta(v)
        return theta, b - np.einsum("j,...jt->...t", self.mean, theta)


def _row_space(A: Array) -> tuple[Array, Array]:
    """Return an orthonormal basis Q (r, k) of the space that the rows of A (n, r) span, and AQ (n, k).

    From AAᵀ, twice (CholeskyQR2; Yamamoto et al., 2015, "Roundoff error analysis of the CholeskyQR2
    algorithm"), which is all products of matrices; from a QR factorisation where A is too ill-conditioned.
    """
    g, U = np.linalg.eigh(A @ A.T)
    seen = g > rank_cutoff(max(A.shape), float(g[-1]), squared=True)
    if not seen.any():  # one row, or rows that are all alike
        return np.zeros((A.shape[1], 1)), np.zeros((len(A), 1))
    if g[seen][0] > WELL_SEEN * g[-1]:
        Q = A.T @ (U[:, seen] / np.sqrt(g[seen]))
        Q = Q @ np.linalg.inv(np.linalg.cholesky(Q.T @ Q)).T
        return Q, A @ Q
    Q, R = np.linalg.qr(A.T)
    U, s, Vt = np.linalg.svd(R, full_matrices=False)
    seen = s > rank_cutoff(max(A.shape), float(s.max(initial=0.0)), squared=True)
    return Q @ U[:, seen], Vt[seen].T * s[seen]


@dataclass(frozen=True, eq=False)
class ReducedState:
    """Models of one training set, solved in the space of its rows, or of all rows, which holds it."""

    statistic: RowSet
    form: QuadraticForm
    centre: bool
    shared: tuple[Reduction, NewtonState] | None = None
    condition_limit: float = np.inf

    @cached_property
    def rows(self) -> Chunk:
        """The rows themselves."""
        return self.statistic.collected()

    @cached_property
    def reduction(self) -> Reduction:
        """The rows in as many coordinates as they span."""
        if self.shared is not None:
            return self.shared[0]
        statistic = self.statistic
        varies = statistic.x_scale > 0 if self.centre else np.ones(len(statistic.x_mean), dtype=bool)
        mean = statistic.x_mean if self.centre else np.zeros_like(statistic.x_mean)
        return Reduction.of(self.rows.X, mean, varies, self.form)

    @cached_property
    def inner(self) -> NewtonState:
        """The same problem in the coordinates (u, v)."""
        if self.shared is not None:
            return self.shared[1]
        rows, split, outer = self.rows, self.reduction.split, self.statistic.book.problem
        d = np.concatenate([np.zeros(len(split.free)), np.ones(self.reduction.basis.shape[1])])
        source = MemorySource(
            self.reduction.rows,
            rows.y,
            None if rows.even else rows.w,
            weights_are=weights_are(outer.source),
            offset=rows.offset,
        )
        problem = Problem(source, Diagonal.of(d), None, self.centre, outer.loss)
        solver = NewtonSolver()
        (everything,) = solver.gather(problem)
        return solver.state(everything, QuadraticForm(d), self.centre)

    def solved(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T)."""
        return self.reduction.back(*self.inner.solved(alphas))

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        return self.solved(alphas)[0]

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        return self.reduction.theta(self.inner.coef_at(alpha))

    def df(self, alphas: Array) -> Array:
        """Return the effective degrees of freedom."""
        return self.inner.df(alphas)

    def df_each(self, alphas: Array) -> Array:
        """Return the effective degrees of freedom of each target, (A, S)."""
        return self.inner.df_each(alphas)

    def deviance(self, alphas: Array) -> Array:
        """Return the deviance in sample."""
        return self.inner.deviance(alphas)

    def spectrum(self) -> Array:
        """Return the positive squared singular values at the null model."""
        return self.inner.spectrum()

    def condition(self, alpha: float) -> float:
        """Return κ̂² of the curvature at the optimum, in the penalty's coordinates."""
        return self._condition(self.inner.quadratic(alpha), np.array([alpha]))

    def _condition(self, models: Sequence[Quadratic], alphas: Array) -> float:
        """Return the worst of these models' κ̂², those directions of θ included that no row sees."""
        worst, reduction = 1.0, self.reduction
        q = len(reduction.split.free)
        beyond = len(reduction.split.held) > reduction.basis.shape[1]
        for model, alpha in zip(models, np.broadcast_to(alphas, len(models)), strict=True):
            if not isinstance(model, Curved):
                worst = max(worst, model.condition(float(alpha)))
                continue
            # The coordinates are directions already, so scaling them would hide how they differ.
            worst = max(worst, model.spectral.condition(float(alpha)))
            if beyond and alpha > 0:
                gram = model.moments.about(self.centre)[0][q:, q:]
                worst = max(worst, float(np.linalg.norm(gram) / alpha))
        return worst

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_t P)⁻¹ rhs_t; beyond the span of the rows, where H is 0, that is P⁻¹ rhs_t/α_t."""
        held, inside = self._inside(rhs)
        return self.reduction.theta(self.inner.solve(inside, alpha)) + self._beyond(held, alpha)

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:  # noqa: ARG002
        """Yield η without each row, as Newton's state does."""
        yield from self.inner.influence(self.inner.statistic.book.problem, alphas)

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model at one alpha per target, refined and measured for all p features.

        What is right in the coordinates (u, v) may be far off for a small column, on the way back from them.
        """
        inner, problem, statistic = self.inner.final(alpha, tol), self.statistic.book.problem, self.statistic
        theta, b = self.reduction.back(inner.theta, inner.b)

        def newton(g: Array, gb: Array) -> tuple[Array, Array]:
            return self._step(inner, g, gb, alpha)

        gradient, left = self._measure(theta, b, alpha)
        step, refinements = newton(*gradient), 0
        held = bool((alpha > 0).all())
        most = np.inf if held and (self.form.d > 0).all() else SMALL_STEP
        while left > ROUNDING and refinements < MOST_REFINEMENTS:
            if np.abs(self.rows.X @ step[0] + step[1]).max() > most:
                break
            better = theta + step[0], b + step[1]
            measured, now = self._measure(*better, alpha)
            if not now < left:
                break
            (theta, b), left, step, refinements = better, now, newton(*measured), refinements + 1
        pull = alpha * self.form.apply(theta)
        spanned = len(self.reduction.split.free) + self.reduction.basis.shape[1]
        varies = column_size(statistic, self.centre) > 0
        singular = inner.condition >= SINGULAR
        unsure = np.flatnonzero(varies & ((self.form.d == 0) | (not held)))
        rounding = Rounding.of(problem, statistic.rows, theta, b, pull)
        reached = Reached(
            theta=theta,
            b=b,
            step=step,
            noise=rounding.spread(lambda g, gb: newton(g - np.multiply.outer(self.reduction.mean, gb), gb)),
            residual=left,
            condition=self._condition(inner.models, alpha[:: self.inner.joint.group]),
            deviance=inner.deviance,
            passes=inner.passes + refinements,
            known=not singular or dependent(problem, statistic, unsure),
            deficient=singular or (not held and spanned < np.count_nonzero(varies)),
        )
        return certified(reached, problem, statistic, self.form, alpha, tol)

    def _measure(self, theta: Array, b: Array, alpha: Array) -> tuple[tuple[Array, Array], float]:
        """Return the gradient ((p, T) about the means, (T,)) of all p features, and how large it is."""
        rows, loss, mean = self.rows, self.statistic.book.problem.loss, self.reduction.mean
        slope = loss.gradient(rows.y, rows.eta(theta, b, np.arange(theta.shape[1])))
        weighted = slope * rows.w[:, None]
        spread = column_size(self.statistic, self.centre)
        g = (rows.X - mean).T @ weighted * (spread > 0)[:, None] + alpha * self.form.apply(theta)
        gb = weighted.sum(axis=0) if self.centre else np.zeros_like(b)
        null = self.inner.joint.sizes[-1]
        size = np.vstack([np.outer(spread, null), null])
        columns = replace(self.inner.joint.columns(np.zeros(1)), size=size, mean=np.zeros_like(g))
        squares = np.einsum("it,it->t", weighted, slope)
        return (g, gb), float(relative_gradient(columns, g, gb, squares, self.centre).max())

    def _step(self, inner: Final, g: Array, gb: Array, alpha: Array) -> tuple[Array, Array]:
        """Return the Newton step of all p features for a gradient about the means.

        Beyond the span of the rows, where H is 0, it is −P⁻¹g/α.
        """
        held, inside = self._inside(g)
        beyond = self._beyond(held, alpha)
        v, b = inner.solve(inside, gb)
        theta = self.reduction.theta(v) - beyond
        return theta, (b - self.reduction.mean @ theta if self.centre else b)

    def _inside(self, rhs: Array) -> tuple[Array, Array]:
        """Return the penalised part of a right side (p, T), scaled, and the right side in (u, v)."""
        split, Q = self.reduction.split, self.reduction.basis
        turned = split.rotate(rhs.T).T
        held = turned[split.held] / split.root[:, None]
        return held, np.vstack([turned[split.free], Q.T @ held])

    def _beyond(self, held: Array, alpha: Array) -> Array:
        """Return P⁻¹·held/α (p, T) of the part of a scaled right side that no row sees; 0 at α = 0."""
        split, Q = self.reduction.split, self.reduction.basis
        rest = held - Q @ (Q.T @ held)
        rest -= Q @ (Q.T @ rest)  # what rounding left of the span, large columns would blow up
        rest = np.divide(rest, alpha, out=np.zeros_like(held), where=alpha > 0)
        more = np.zeros((len(self.form.d), held.shape[1]))
        more[split.held] = rest / split.root[:, None]
        return more if self.form.rotation is None else np.asarray(self.form.rotation @ more)


@dataclass(frozen=True)
class ReducedSolver:
    """Newton's method in the space of the rows, for p > n."""

    name: str = "newton-dual"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[RowSet]:
        """Return the set of rows of each atom."""
        return gather_rowsets(problem, labels, n_atoms)

    def state(self, rows: RowSet, form: QuadraticForm, centre: bool) -> ReducedState:
        """Return a state that is solved when it is asked."""
        refuse_absent(rows)
        return ReducedState(rows, form, centre)

    def states(
        self, sets: Sequence[RowSet], forms: Sequence[QuadraticForm], centre: bool, start: ReducedState
    ) -> list[ReducedState]:
        """Return states of training sets.

        With all rows' penalty, their optima lie in the span of all rows, where they are solved together.
        """
        own = start.form
        if any(f.rotation is not None or not np.array_equal(f.d, own.d) for f in (own, *forms)):
            return [self.state(rows, form, centre) for rows, form in zip(sets, forms, strict=True)]
        for rows in sets:
            refuse_absent(rows)
        inside = self._inside(sets, start)
        inner = NewtonSolver().states(inside, [start.inner.form] * len(sets), centre, start.inner)
        return [
            ReducedState(rows, form, centre, (start.reduction, state))
            for rows, form, state in zip(sets, forms, inner, strict=True)
        ]

    def _inside(self, sets: Sequence[RowSet], start: ReducedState) -> list[RowSet]:
        """Return the same sets of rows, of the rows in the coordinates (u, v)."""
        atoms: dict[int, list[RowSet]] = {}
        for rows in sets:
            book = rows.book
            if id(book) not in atoms:
                assert book.labels is not None
                label = np.concatenate([book.labels(block) for block in book.problem.blocks()])
                labels = _lookup(label[start.statistic.kept])
                problem = start.inner.statistic.book.problem
                atoms[id(book)] = gather_rowsets(problem, labels, book.n_atoms)
        return [reduce(RowSet.merge, (atoms[id(rows.book)][k] for k in rows.atoms)) for rows in sets]


def _lookup(label: Array) -> Any:
    return lambda block: label[block.start : block.start + len(block.y)]
