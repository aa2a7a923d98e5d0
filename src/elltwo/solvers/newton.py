"""The state and solver of Newton's method: what rules and results ask of a GLM's path. See `descent`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import HeldOut, Outcome, column_size, leave_out_weight, varying
from elltwo.solvers.certificate import SINGULAR, Reached, Rounding, certified, dependent
from elltwo.solvers.columns import Columns
from elltwo.solvers.curvature import Quadratic, quadratics
from elltwo.solvers.descent import solve, steps
from elltwo.solvers.joint import Joint
from elltwo.solvers.rowset import RowSet, gather_rowsets
from elltwo.solvers.spectral import SpectralSolver

Array = npt.NDArray[Any]

#: Relative gradient to which a model is solved before its exact curvature takes over.
ROUGH = 1e-6
#: The chosen model is solved to this share of the tolerance asked for.
BEYOND = 1e-4
#: Bytes of quadratic models that are kept for effective degrees of freedom and leave-one-out.
KEPT_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class NewtonState:
    """Models of one training set; solved, with those it shares a `Joint` with, when they are asked for."""

    statistic: RowSet
    form: QuadraticForm
    centre: bool
    joint: Joint
    index: int
    condition_limit: float = np.inf
    outcomes: dict[tuple[bytes, float], Outcome] = field(default_factory=dict)

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
        return self._at(alpha)[0]

    def _at(self, alpha: Array) -> tuple[Array, Array]:
        """Return (θ (p, T), b (T,)) with an alpha of its own for each target."""
        unique, index = np.unique(alpha, return_inverse=True)
        theta, b = self.solved(unique)
        t = np.arange(len(alpha))
        return theta[index, :, t].T, b[index, t]

    def _columns(self, alpha: Array) -> Columns:
        """Return this training set's models with these alphas, one for each target."""
        T = len(alpha)
        all_sets = self.joint.columns(np.zeros(1)).take(self.index * T + np.arange(T))
        return replace(all_sets, alpha=alpha)

    def quadratic(self, alpha: float) -> list[Quadratic]:
        """Return the quadratic models at the optimum, one for each target; small ones are kept."""
        kept = self.joint.quadratics
        key = (self.index, float(alpha))
        if key in kept:
            return kept[key]
        theta, b = self.solved(np.array([alpha]))
        columns = self._columns(np.full(theta.shape[2], alpha))
        made = quadratics(self.statistic.book, columns, theta[0], b[0], self.centre)
        if len(kept) * 32 * (len(self.form.d) * columns.group) ** 2 < KEPT_BYTES:
            kept[key] = made
        return made

    def df(self, alphas: Array) -> Array:
        """Return the mean over targets of `df_each`, shape (A,)."""
        return np.asarray(self.df_each(alphas).mean(axis=1))

    def df_each(self, alphas: Array) -> Array:
        """Return tr[(G_h + αP)⁻¹G_h], G_h the Gram of the rows under w·ℓ'', for each target: (A, S)."""
        with self.statistic.book.calm():
            return np.array([[q.df(float(a)) for q in self.quadratic(a)] for a in alphas])

    def deviance(self, alphas: Array) -> Array:
        """Return the deviance in sample, shape (A, S)."""
        return self.statistic.deviance(*self.solved(alphas))

    def spectrum(self) -> Array:
        """Return the positive squared singular values at the null model, for a grid of alphas."""
        nulls = self.joint.null_moments(self.index)
        each = [nulls[t][0] for t in varying(self.statistic)]
        states = [SpectralSolver().state(moments, self.form, self.centre) for moments in each]
        return max((state.spectrum() for state in states), key=np.sum)  # of the target that asks for most

    def condition(self, alpha: float) -> float:
        """Return κ̂² of the curvature at the optimum, columns scaled."""
        return max(q.condition(alpha) for q in self.quadratic(alpha))

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (G_h + α_t P)⁻¹ rhs_t at the optimum."""
        columns = self._columns(alpha)
        theta, b = self._at(alpha)
        models = quadratics(self.statistic.book, columns, theta, b, self.centre)
        every = np.arange(len(models))
        return steps(models, columns, every, -rhs, np.zeros(len(alpha)))[0]

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:
        """Yield η without each row, to first order in its weight (approximate leave-one-out).

        With a = x̃ᵀH⁻¹x̃ and v the weight that is left out: η₋ᵢ = η + vℓ'a/(1 − vℓ''a), exact for squared error
        (Rad and Maleki, 2020, "A scalable estimate of the out-of-sample prediction error").
        """
        theta, b = self.solved(alphas)
        A, p, T = theta.shape
        group, loss = self.joint.group, problem.loss
        with self.statistic.book.calm():
            models = [self.quadratic(a) for a in alphas]
        for groups in self.statistic.book.groups(p + A * T):
            for chunk in (chunk for part in groups for chunk in part):
                eta = np.empty((len(chunk.y), A, T))
                v = leave_out_weight(problem, chunk.w)
                for i, alpha in enumerate(alphas):
                    at = chunk.eta(theta[i], b[i], np.arange(T))
                    for m, model in enumerate(models[i]):
                        own = slice(m * group, (m + 1) * group)
                        eta[:, i, own] = model.left_out(
                            chunk.X, chunk.y[:, own], at[:, own], v, float(alpha), loss
                        )
                rows = slice(chunk.start, chunk.start + len(chunk.y))
                yield HeldOut(rows, slice(0, problem.n_scores), chunk.w, chunk.y, eta, loss)

    def final(self, alpha: Array, tol: float) -> Final:
        """Return the model at one alpha per target, solved to a relative gradient of `tol`; once."""
        key = (self.index, alpha.tobytes(), tol)
        if key not in self.joint.finals:
            with self.statistic.book.calm():
                self.joint.finals[key] = self._solve_finally(alpha, tol)
        made: Final = self.joint.finals[key]
        return made

    def _solve_finally(self, alpha: Array, tol: float) -> Final:
        book = self.statistic.book
        columns = self._columns(alpha)
        self.joint.solve(alpha, ROUGH)
        theta, b = self._at(alpha)
        same = len(np.unique(alpha)) == 1
        models = self.quadratic(alpha[0]) if same else quadratics(book, columns, theta, b, self.centre)
        # With the curvature at hand, which the certificate needs anyway, further digits cost a pass each.
        solved = solve(book, columns, theta, b, models, centre=self.centre, tol=BEYOND * tol, measured=True)
        left = float(solved.relative.max())
        if bool((alpha == 0).any() or (self.form.d == 0).any()) and not book.problem.squared:
            # A coefficient that grows for ever leaves the curvature that it had behind.
            models = quadratics(book, columns, solved.theta, solved.b, self.centre)
        if same and len(self.joint.sets) == 1:  # what the path holds is the same model
            self.joint.improve(float(alpha[0]), solved.theta, solved.b)
        firsts = alpha[:: self.joint.group]
        condition = max(q.condition(float(a)) for q, a in zip(models, firsts, strict=True))
        deviance = self.statistic.deviance(solved.theta[None], solved.b[None])[0]
        return Final(
            solved.theta, solved.b, solved.gradient, models, columns, left, condition, deviance, solved.passes
        )

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model at one alpha per target, and measure how right it is; once."""
        key = (alpha.tobytes(), tol)
        if key not in self.outcomes:
            problem = self.statistic.book.problem
            with self.statistic.book.calm():
                reached = self._reached(self.final(alpha, tol), alpha)
            self.outcomes[key] = certified(reached, problem, self.statistic, self.form, alpha, tol)
        return self.outcomes[key]

    def _reached(self, final: Final, alpha: Array) -> Reached:
        """Return what the certificate is made from."""
        rows, problem = self.statistic, self.statistic.book.problem
        pull = alpha * self.form.apply(final.theta)
        rounding = Rounding.of(problem, rows.rows, final.theta, final.b, pull)
        deficient = final.condition >= SINGULAR
        varies = np.flatnonzero(column_size(rows, self.centre) > 0)
        return Reached(
            theta=final.theta,
            b=final.b,
            step=final.solve(final.gradient[:-1], final.gradient[-1]),
            noise=rounding.spread(final.solve),
            residual=final.left,
            condition=final.condition,
            deviance=final.deviance,
            passes=final.passes,
            known=not deficient or dependent(problem, rows, varies),
            deficient=deficient,
        )


@dataclass(frozen=True, eq=False)
class Final:
    """The chosen model: θ (p, T), b (T,), the gradient there, and the quadratic models that steps take."""

    theta: Array
    b: Array
    gradient: Array
    models: list[Quadratic]
    columns: Columns
    left: float
    condition: float
    deviance: Array
    passes: int

    def solve(self, g: Array, gb: Array) -> tuple[Array, Array]:
        """Return the Newton step for a gradient."""
        return steps(self.models, self.columns, np.arange(len(self.models)), g, gb)


def refuse_absent(rows: Any) -> None:
    """Refuse training rows that lack a class: its probability would go to 0, and its intercept for ever."""
    problem = rows.problem if hasattr(rows, "problem") else rows.book.problem
    if problem.loss.coupled and not np.all(rows.y_mean > 0):
        name = problem.source.target_names[int(np.argmin(rows.y_mean))]
        raise InputError(
            f"class '{name}' has no row (of positive weight) among the training rows. Leave the class out, "
            "or use fewer or stratified folds (StratifiedKFold)."
        )


@dataclass(frozen=True)
class NewtonSolver:
    """Newton's method on weighted moments: dense rows, in memory or streamed, with n > p."""

    name: str = "newton"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[RowSet]:
        """Return the set of rows of each atom."""
        return gather_rowsets(problem, labels, n_atoms)

    def state(self, rows: RowSet, form: QuadraticForm, centre: bool) -> NewtonState:
        """Return a state whose models are solved when they are asked for."""
        refuse_absent(rows)
        return NewtonState(rows, form, centre, Joint([rows], [form], centre), 0)

    def states(
        self, sets: Sequence[RowSet], forms: Sequence[QuadraticForm], centre: bool, start: NewtonState
    ) -> list[NewtonState]:
        """Return states of training sets, beginning at the solutions of all rows.

        Those whose rows are labelled alike are solved together.
        """
        books: dict[int, list[int]] = {}
        for k, rows in enumerate(sets):
            refuse_absent(rows)
            books.setdefault(id(rows.book), []).append(k)
        states: dict[int, NewtonState] = {}
        for ks in books.values():
            joint = Joint([sets[k] for k in ks], [forms[k] for k in ks], centre, start)
            states |= {k: NewtonState(sets[k], forms[k], centre, joint, i) for i, k in enumerate(ks)}
        return [states[k] for k in range(len(sets))]
