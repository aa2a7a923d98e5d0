"""More features than rows, for every loss: solve in the space of the rows, and take the solution back.

The penalised optimum lies in the span of the rows and of the unpenalised features: a part of θ that no row
sees only costs penalty. With the basis B of the dual solver, θ = Bv, the rows are Z = (X − x̄)B, at most as many
columns as rows, and θᵀPθ = vᵀ diag(d) v with d of zeros and ones (Hastie and Tibshirani, 2004, "Efficient
quadratic regularization for expression arrays"). In v it is a problem with n ≥ p, which Newton's method solves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.memory import MemorySource
from elltwo.losses import Loss
from elltwo.penalties import Diagonal, QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import HeldOut, Outcome
from elltwo.solvers.dual import Rows, from_rows, gather_rows
from elltwo.solvers.newton import NewtonSolver, NewtonState

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LossRows(Rows):
    """The rows themselves, and the loss they are fitted with."""

    loss: Loss | None = None
    problem: Problem | None = None

    def sse(self, coef: Array, intercept: Array) -> Array:
        """Return Σ w·dev(y, b + Xθ + o) for θ (A, p, T), b (A, T): shape (A, T), (A, 1) for classes."""
        assert self.loss is not None
        eta = np.einsum("ij,ajt->iat", self.X, coef, optimize=True) + intercept
        if self.offset is not None:
            eta += self.offset[:, None, :]
        value = self.loss.value(self.y[:, None, :], eta)
        value = value[:, :, None] if self.loss.coupled else value
        return np.asarray(2 * np.einsum("i,ias->as", self.w, value))


@dataclass(frozen=True, eq=False)
class ReducedState:
    """Models of one training set, solved in the space of its rows."""

    statistic: LossRows
    form: QuadraticForm
    centre: bool
    condition_limit: float = np.inf

    @cached_property
    def mean(self) -> Array:
        """What the rows are centred at."""
        return self.statistic.x_mean if self.centre else np.zeros_like(self.statistic.x_mean)

    @cached_property
    def _dual(self) -> Any:
        return from_rows(self.statistic, self.form, self.centre)

    @cached_property
    def inner(self) -> NewtonState:
        """The same problem in the coordinates v."""
        rows, dual = self.statistic, self._dual
        weights = rows.w.astype(np.int64) if rows.counts else rows.w
        source = MemorySource((rows.X - self.mean) @ dual.basis, rows.y, weights, offset=rows.offset)
        assert rows.loss is not None
        problem = Problem(source, Diagonal.of(dual.d), None, self.centre, rows.loss)
        solver = NewtonSolver()
        (everything,) = solver.gather(problem)
        return solver.state(everything, QuadraticForm(dual.d), self.centre)

    def _back(self, v: Array, b: Array) -> tuple[Array, Array]:
        """Return θ (…, p, T) and b (…, T) of v (…, r, T)."""
        theta = self._dual.basis @ v
        return theta, b - np.einsum("j,...jt->...t", self.mean, theta)

    def solved(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T)."""
        return self._back(*self.inner.solved(alphas))

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        return self.solved(alphas)[0]

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        return np.asarray(self._dual.basis @ self.inner.coef_at(alpha))

    def df(self, alphas: Array) -> Array:
        """Return the effective degrees of freedom."""
        return self.inner.df(alphas)

    def rss(self, alphas: Array) -> Array:
        """Return the deviance in sample."""
        return self.inner.rss(alphas)

    def spectrum(self) -> Array:
        """Return the positive squared singular values at the null model."""
        return self.inner.spectrum()

    def condition(self, alpha: float) -> float:
        """Return κ̂² of the curvature at the optimum, in the space of the rows."""
        return self.inner.condition(alpha)

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return the step in the span of the rows for a gradient (p, T)."""
        return np.asarray(self._dual.basis @ self.inner.solve(self._dual.basis.T @ rhs, alpha))

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:  # noqa: ARG002
        """Yield η without each row, as Newton's state does."""
        yield from self.inner.influence(self.inner.statistic.book.problem, alphas)

    def outcome(self, alpha: Array) -> Outcome:
        """Return the model at one alpha per target; its residual is measured on the rows, for all p features."""
        inner = self.inner.outcome(alpha)
        theta, b = self._back(inner.coef, inner.intercept)
        rows = self.statistic
        assert rows.loss is not None
        assert rows.problem is not None
        eta = rows.X @ theta + b + (0.0 if rows.offset is None else rows.offset)
        slope = rows.loss.gradient(rows.y, eta) * rows.w[:, None]
        gradient = (rows.X - self.mean).T @ slope + alpha * self.form.apply(theta)
        null = rows.loss.gradient(rows.y, np.broadcast_to(rows.loss.null(rows.y_mean), rows.y.shape))
        spread = rows.x_scale if self.centre else np.sqrt(rows.x_scale**2 + rows.x_mean**2)
        size = np.outer(spread, np.sqrt(rows.weight * (rows.w @ null**2)))
        left = float(np.max(np.abs(gradient) / np.where(size > 0, size, np.inf), initial=0.0))
        certificate = replace(inner.certificate, residual=left)
        theta, b = rows.problem.restore(theta, b)
        return replace(inner, coef=theta, intercept=b, certificate=certificate)


@dataclass(frozen=True)
class ReducedSolver:
    """Newton's method in the space of the rows, for p > n."""

    name: str = "newton-dual"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[LossRows]:
        """Return the rows of each atom."""
        plain = gather_rows(problem, False, labels, n_atoms)
        own = [{f.name: getattr(rows, f.name) for f in fields(rows)} for rows in plain]
        return [LossRows(**rows, loss=problem.loss, problem=problem) for rows in own]

    def state(self, rows: LossRows, form: QuadraticForm, centre: bool) -> ReducedState:
        """Return a state that is solved when it is asked."""
        return ReducedState(rows, form, centre)
