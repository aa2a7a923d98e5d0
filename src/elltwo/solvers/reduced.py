"""More features than rows, for every loss: solve in the space of the rows, and take the solution back.

In the penalty's own coordinates, the penalised optimum lies in the span of the rows: a part of θ that no row
sees only costs penalty. With the QR factorisation of the penalised columns, (X − x̄)D^{-½} = RᵀQᵀ, the rows
become [X_free, Rᵀ], at most n columns more than there are unpenalised features, the penalty ‖v‖², and
θ = D^{-½}Qv (Hastie and Tibshirani, 2004, "Efficient quadratic regularization for expression arrays").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.memory import MemorySource
from elltwo.losses import Loss
from elltwo.penalties import Diagonal, QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import HeldOut, Outcome, Split, column_size, rank_cutoff
from elltwo.solvers.curvature import Curved
from elltwo.solvers.dual import Rows, gather_rows
from elltwo.solvers.newton import NewtonSolver, NewtonState, certified, refuse_absent

Array = npt.NDArray[Any]


#: Columns are faint below this share of the largest column's sum of squares, and of the penalty.
FAINT = 1e-9


@dataclass(frozen=True, eq=False)
class LossRows(Rows):
    """The rows themselves, and the loss they are fitted with."""

    loss: Loss | None = None
    problem: Problem | None = None

    def deviance(self, coef: Array, intercept: Array) -> Array:
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
    shared: Array | None = None
    condition_limit: float = np.inf

    @cached_property
    def mean(self) -> Array:
        """What the rows are centred at."""
        return self.statistic.x_mean if self.centre else np.zeros_like(self.statistic.x_mean)

    @cached_property
    def _split(self) -> Split:
        return Split.of(self.form)

    @cached_property
    def _factors(self) -> tuple[Array, Array]:
        """Q (r, k) of the penalised columns, and the rows in the coordinates (u, v), (n, q + k)."""
        rows, split = self.statistic, self._split
        varies = rows.x_scale > 0 if self.centre else np.ones(len(self.mean), dtype=bool)
        Z = split.rotate((rows.X - self.mean) * varies)
        if self.shared is not None:
            return self.shared, np.hstack([Z[:, split.free], (Z[:, split.held] / split.root) @ self.shared])
        Q, R = np.linalg.qr((Z[:, split.held] / split.root).T)
        U, s, Vt = np.linalg.svd(R, full_matrices=False)
        seen = s > rank_cutoff(max(Z.shape), float(s.max(initial=0.0)), squared=True)
        return Q @ U[:, seen], np.hstack([Z[:, split.free], Vt[seen].T * s[seen]])

    @property
    def basis(self) -> Array:
        """Q, shape (r, k)."""
        return self._factors[0]

    @cached_property
    def inner(self) -> NewtonState:
        """The same problem in the coordinates (u, v)."""
        rows, (Q, reduced) = self.statistic, self._factors
        weights = rows.w.astype(np.int64) if rows.counts else rows.w
        d = np.concatenate([np.zeros(len(self._split.free)), np.ones(Q.shape[1])])
        source = MemorySource(reduced, rows.y, weights, offset=rows.offset)
        assert rows.loss is not None
        problem = Problem(source, Diagonal.of(d), None, self.centre, rows.loss)
        solver = NewtonSolver()
        (everything,) = solver.gather(problem)
        return solver.state(everything, QuadraticForm(d), self.centre)

    def _theta(self, inner: Array) -> Array:
        """Return θ (…, p, T) of (u, v) (…, q + k, T)."""
        split = self._split
        q = len(split.free)
        theta = np.zeros((*inner.shape[:-2], len(self.mean), inner.shape[-1]))
        theta[..., split.free, :] = inner[..., :q, :]
        theta[..., split.held, :] = (self._factors[0] @ inner[..., q:, :]) / split.root[:, None]
        return theta if self.form.rotation is None else np.asarray(self.form.rotation @ theta)

    def _back(self, v: Array, b: Array) -> tuple[Array, Array]:
        """Return θ (…, p, T) and b (…, T) of a solution in the coordinates (u, v)."""
        theta = self._theta(v)
        return theta, b - np.einsum("j,...jt->...t", self.mean, theta)

    def solved(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T)."""
        return self._back(*self.inner.solved(alphas))

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        return self.solved(alphas)[0]

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        return self._theta(self.inner.coef_at(alpha))

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
        worst = 1.0
        for q in self.inner.quadratic(alpha):
            if not isinstance(q, Curved):
                return self.inner.condition(alpha)
            worst = max(worst, q.spectral.condition(alpha))
            if len(self._split.held) > self._factors[0].shape[1] and alpha > 0:
                worst = max(worst, float(q.spectral.g.max(initial=0.0) / alpha))
        return worst

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_t P)⁻¹ rhs_t; beyond the span of the rows, where H is 0, that is P⁻¹ rhs_t/α_t."""
        split, Q = self._split, self._factors[0]
        turned = split.rotate(rhs.T).T
        held = turned[split.held] / split.root[:, None]
        inside = self.inner.solve(np.vstack([turned[split.free], Q.T @ held]), alpha)
        beyond = np.divide(held - Q @ (Q.T @ held), alpha, out=np.zeros_like(held), where=alpha > 0)
        theta = self._theta(inside)
        more = np.zeros_like(theta)
        more[split.held] = beyond / split.root[:, None]
        return theta + (more if self.form.rotation is None else self.form.rotation @ more)

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:  # noqa: ARG002
        """Yield η without each row, as Newton's state does."""
        yield from self.inner.influence(self.inner.statistic.book.problem, alphas)

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model at one alpha per target; its residual is measured for all p features."""
        inner = self.inner.final(alpha, tol)
        theta, b = self._back(inner.theta, inner.b)
        rows = self.statistic
        assert rows.loss is not None
        assert rows.problem is not None
        eta = rows.X @ theta + b + (0.0 if rows.offset is None else rows.offset)
        slope = rows.loss.gradient(rows.y, eta) * rows.w[:, None]
        theta = self._faint(theta, slope, alpha)
        gradient = (rows.X - self.mean).T @ slope + alpha * self.form.apply(theta)
        size = np.outer(column_size(rows, self.centre), self.inner.joint.sizes[-1])
        left = float(np.max(np.abs(gradient) / np.where(size > 0, size, np.inf), initial=0.0))
        final = replace(inner, theta=theta, b=b, step=self._back(*inner.step), left=left)
        return certified(final, rows.problem, rows, self.form, alpha)

    def _faint(self, theta: Array, slope: Array, alpha: Array) -> Array:
        """Return θ with columns so small that the factorisation lost them as the optimum has them.

        There αdⱼθⱼ = −zⱼᵀwℓ', and what θⱼ adds to η is too little to change the right side.
        """
        d = self.form.d
        if self.form.rotation is not None or not (alpha > 0).all():
            return theta
        size = self.statistic.weight * column_size(self.statistic, self.centre) ** 2
        faint = (d > 0) & (size < FAINT * size.max(initial=0.0)) & (size < FAINT * alpha.min() * d)
        own = (self.statistic.X[:, faint] - self.mean[faint]).T @ slope
        theta = theta.copy()
        theta[faint] = -own / (alpha * d[faint, None])
        return theta


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
        refuse_absent(rows)
        return ReducedState(rows, form, centre)

    def states(
        self, sets: Sequence[LossRows], forms: Sequence[QuadraticForm], centre: bool, start: ReducedState
    ) -> list[ReducedState]:
        """Return states of training sets; with the same penalty, all rows' basis Q spans theirs too."""
        for rows in sets:
            refuse_absent(rows)
        own = start.form
        same = [f.rotation is None and own.rotation is None and np.array_equal(f.d, own.d) for f in forms]
        return [
            ReducedState(rows, form, centre, start.basis if alike else None)
            for rows, form, alike in zip(sets, forms, same, strict=True)
        ]
