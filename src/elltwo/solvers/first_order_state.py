"""First-order methods as solvers: which rows a model is trained on, and its solutions along alphas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import HeldOut, Influence, Outcome, column_size, rank_cutoff, varying
from elltwo.solvers.certificate import SINGULAR, Reached, Rounding, certified, dependent
from elltwo.solvers.first_order import (
    Descent,
    Frame,
    Rows,
    Spread,
    hessian_weights,
    is_sparse,
)

Array = npt.NDArray[Any]

#: Largest order of a Hessian that is formed, for effective degrees of freedom and condition numbers.
MOST_ORDER = 10_000
#: Bytes of factorised Hessians that are kept.
KEPT_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Gathered:
    """A set of rows by the names of its atoms, with means and scales of its columns; no Gram."""

    source: Rows
    spread: Spread

    def merge(self, other: Gathered) -> Gathered:
        """Return the rows of both."""
        atoms = self.source.atoms + other.source.atoms
        return Gathered(Rows(self.source.problem, self.source.labels, atoms), self.spread.merge(other.spread))

    @property
    def p(self) -> int:
        """Number of features."""
        return self.source.problem.source.n_features

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return self.spread.rows

    @property
    def observations(self) -> float:
        """Σw for frequencies, else `rows`."""
        return self.weight if self.source.problem.source.counts else float(self.rows)

    @property
    def weight(self) -> float:
        """Σw."""
        return self.spread.weight

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return self.spread.mean[: self.p]

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return self.spread.mean[self.p :]

    @property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features; 0 for a constant column."""
        return self.spread.scale[: self.p]

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return self.spread.scale[self.p :]

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ w·dev(y, b + Xθ + o) for θ (A, p, T), b (A, T): (A, T), or (A, 1) for classes."""
        A, p, T = coef.shape
        loss = self.source.problem.loss
        total = np.zeros((A, self.source.problem.n_scores))
        theta = coef.swapaxes(0, 1).reshape(p, A * T)
        for chunk in self.source.chunks():
            eta = np.asarray(chunk.X @ theta).reshape(-1, A, T) + intercept
            if chunk.offset is not None:
                eta += chunk.offset[:, None, :]
            value = loss.value(chunk.y[:, None, :], eta)
            total += 2 * np.einsum("i,ias->as", chunk.w, value[:, :, None] if loss.coupled else value)
        return total


def gather_spreads(problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[Gathered]:
    """Return the rows of each atom, in one pass."""
    each = [Rows(problem, labels, (k,)) for k in range(n_atoms)]
    found: list[Spread | None] = [None] * n_atoms
    width = problem.source.n_features + problem.source.n_targets
    for block in each[0].blocks():
        for k, rows in enumerate(each):
            for chunk in rows.cut(block):
                part, known = Spread.of(chunk), found[k]
                found[k] = part if known is None else known.merge(part)
    if all(spread is None for spread in found):
        return []
    empty = Spread(0, 0, 0.0, np.zeros(width), np.zeros(width))
    return [Gathered(rows, spread or empty) for rows, spread in zip(each, found, strict=True)]


@dataclass(frozen=True, eq=False)
class DescentState:
    """Models of one training set, solved when they are asked for, each from the nearest larger alpha's.

    Attributes
    ----------
    statistic : Gathered
    form : QuadraticForm
    centre : bool
    descend : callable (frame, start) -> Descent
        The method.
    """

    statistic: Gathered
    form: QuadraticForm
    centre: bool
    descend: Callable[[Frame, tuple[Array, Array] | None], Descent]
    condition_limit: float = np.inf
    known: dict[float, Descent] = field(default_factory=dict, repr=False)
    _kept: dict[float, list[_Factor]] = field(default_factory=dict, repr=False)

    @property
    def problem(self) -> Problem:
        """The problem."""
        return self.statistic.source.problem

    def frame(self, alpha: float) -> Frame:
        """Return the rows with the coordinates for this alpha."""
        alphas = np.full(len(self.statistic.y_mean), alpha)
        return Frame.of(self.statistic.source, self.statistic.spread, self.form, alphas, self.centre)

    def result(self, alpha: float) -> Descent:
        """Return the model at an alpha, with its trace and what bounds its distance from the optimum."""
        self._solve(np.array([alpha]))
        return self.known[float(alpha)]

    def _solve(self, alphas: Array) -> None:
        for alpha in sorted({float(a) for a in alphas} - set(self.known), reverse=True):
            above = [a for a in self.known if a > alpha]
            near = self.known[min(above)] if above else None
            start = None if near is None else self.problem.reduce(near.coef, near.intercept)
            self.known[alpha] = self.descend(self.frame(alpha), start)

    def solved(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T) of the problem less its prior."""
        self._solve(alphas)
        pairs = [self.problem.reduce(r.coef, r.intercept) for r in (self.known[float(a)] for a in alphas)]
        return np.stack([coef for coef, _ in pairs]), np.stack([b for _, b in pairs])

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        return self.solved(alphas)[0]

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        return np.stack([self.coef(np.array([a]))[0, :, t] for t, a in enumerate(alpha)], axis=1)

    def deviance(self, alphas: Array) -> Array:
        """Return the deviance in sample, shape (A, T)."""
        return self.statistic.deviance(*self.solved(alphas))

    def _order(self) -> int:
        """Return the order of one Hessian, or raise InputError if it is not to be formed."""
        blocks = len(self.statistic.y_mean) if self.problem.loss.coupled else 1
        order = len(self.form.d) * blocks
        if order > MOST_ORDER:
            raise InputError(
                f"effective degrees of freedom need a Hessian of order {order:,}, and the limit is "
                f"{MOST_ORDER:,}. Call gradient_descent or sgd, which form none, or use fewer features."
            )
        return order

    def hessians(self, delta: Array, b: Array) -> list[Array]:
        """Return Σ w·∇²ℓ in δ at (δ, b), the intercept profiled out: one for each target, or one for classes.

        `b` is that of the centred rows. For classes the order of the coordinates is (class, feature).
        """
        return [H for H, _, _ in self._bordered(delta, b)]

    def _bordered(self, delta: Array, b: Array) -> list[tuple[Array, Array, Array]]:
        """Return the same, with C⁻¹sᵀ and C⁻¹ for the blocks s and C of the intercept, profiled out."""
        self._order()
        frame = self.frame(0.0)
        p, T = delta.shape
        coupled = self.problem.loss.coupled
        k, groups = (T, 1) if coupled else (1, T)
        H: Array = np.zeros((groups, k, p, k, p))
        side: Array = np.zeros((groups, k, p, k))
        corner = np.zeros((groups, k, k))
        for chunk, Z, eta in frame.products(delta, b):
            dense = Z.toarray() - frame.mean if is_sparse(Z) else Z
            weights = hessian_weights(self.problem.loss, chunk.y, eta, chunk.w)
            for s in range(T):
                for t in range(T) if coupled else (s,):
                    g, i, j = (0, s, t) if coupled else (s, 0, 0)
                    q = weights[:, s, t]
                    H[g, i, :, j] += dense.T @ (q[:, None] * dense)
                    side[g, i, :, j] += dense.T @ q
                    corner[g, i, j] += q.sum()
        H, side = H.reshape(groups, k * p, k * p), side.reshape(groups, k * p, k)
        inverse = np.linalg.pinv(corner, hermitian=True) * self.centre
        through = inverse @ side.swapaxes(1, 2)
        return list(zip(H - side @ through, through, inverse, strict=True))

    def _at(self, alpha: float) -> tuple[Array, Array]:
        """Return δ and the centred rows' b at an alpha."""
        delta, b = (part[0] for part in self.solved(np.array([alpha])))
        return delta, b + (self.statistic.x_mean @ delta if self.centre else 0.0)

    def _penalty(self, order: int) -> Array:
        return np.kron(np.eye(order // len(self.form.d)), self.form.matrix())

    def _factors(self, alpha: float) -> list[_Factor]:
        """Return H + αP, factorised, for each target, or one for classes; small ones are kept."""
        if alpha not in self._kept:
            if 16 * (len(self._kept) + 1) * self._order() ** 2 > KEPT_BYTES:
                self._kept.clear()
            self._kept[alpha] = [
                _Factor.of(*parts, alpha * self._penalty(len(parts[0])))
                for parts in self._bordered(*self._at(alpha))
            ]
        return self._kept[alpha]

    def df(self, alphas: Array) -> Array:
        """Return tr[(H + αP)⁻¹H] with the data's Hessian H at the optimum, shape (A,): mean over targets."""
        return np.array([np.mean([factor.df() for factor in self._factors(float(a))]) for a in alphas])

    def condition(self, alpha: float) -> float:
        """Return κ̂² of H + αP, its columns scaled; columns without curvature are left out."""
        return max(factor.condition for factor in self._factors(alpha))

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_t P)⁻¹ rhs_t at the optimum; classes have one alpha."""
        return -self._newton(rhs, np.zeros(rhs.shape[1]), alpha)[0]

    def _newton(self, g: Array, gb: Array, alpha: Array) -> tuple[Array, Array]:
        """Return the Newton step (δθ, δb of the centred rows) for a gradient about the means."""
        T = g.shape[1]
        if self.problem.loss.coupled:
            step, level = self._factors(float(alpha[0]))[0].newton(g.T.ravel(), gb)
            return step.reshape(T, -1).T, level
        found = [self._factors(float(a))[t].newton(g[:, t], gb[t : t + 1]) for t, a in enumerate(alpha)]
        return np.stack([step for step, _ in found], axis=1), np.concatenate([level for _, level in found])

    @cached_property
    def null(self) -> tuple[Array, Array]:
        """δ = 0 and the b of the model without features."""
        frame = self.frame(0.0)
        return np.zeros((frame.p, len(frame.alpha))), frame.null()

    def spectrum(self) -> Array:
        """Return the positive squared singular values at the null model, for a grid of alphas.

        They are the eigenvalues of the Hessian relative to P; what P leaves free is minimised over.
        """
        found = []
        rotation = self.form.rotation
        hessians = self.hessians(*self.null)
        for H in hessians if self.problem.loss.coupled else [hessians[t] for t in varying(self.statistic)]:
            k = len(H) // len(self.form.d)
            d = np.tile(self.form.d, k)
            Q = np.eye(len(H)) if rotation is None else np.kron(np.eye(k), rotation)
            turned = Q.T @ H @ Q
            free, held = d == 0, d > 0
            through = np.linalg.pinv(turned[np.ix_(free, free)], hermitian=True) @ turned[np.ix_(free, held)]
            inner = turned[np.ix_(held, held)] - turned[np.ix_(held, free)] @ through
            root = np.sqrt(d[held])
            values = np.linalg.eigvalsh(inner / root / root[:, None])
            found.append(values[values > rank_cutoff(len(d), float(values.max(initial=0.0)), squared=True)])
        return np.concatenate(found)

    def influence(self, problem: Problem, alphas: Array) -> Iterator[Influence | HeldOut]:  # noqa: ARG002
        """Refuse: leave-one-out goes by leverages, and those need a factorisation."""
        raise InputError(
            "leave-one-out needs a factorisation, which first-order solvers do without. "
            "Use solver='auto' or 'newton', or choose alpha with 'kfold'."
        )

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the chosen models, and how right they are.

        What the method's own tolerance allows counts as reached, whatever `tol`.
        """
        rows, problem = self.statistic, self.problem
        results = [self.result(float(a)) for a in alpha]
        coef = np.stack([r.coef[:, t] for t, r in enumerate(results)], axis=1)
        b = np.array([r.intercept[t] for t, r in enumerate(results)])
        gradient = np.stack([r.gradient[:, t] for t, r in enumerate(results)], axis=1)
        theta, b = problem.reduce(coef, b)
        mean = self.frame(0.0).mean

        def newton(g: Array, gb: Array) -> tuple[Array, Array]:
            step, level = self._newton(g - np.multiply.outer(mean, gb), gb, alpha)
            return step, level - mean @ step

        condition = max(self.condition(float(a)) for a in np.unique(alpha))
        singular = condition >= SINGULAR
        varies = np.flatnonzero(column_size(rows, self.centre) > 0)
        rounding = Rounding.of(problem, rows.rows, theta, b, alpha * self.form.apply(theta))
        residual = max(r.relative for r in results)
        reached = Reached(
            theta=theta,
            b=b,
            step=newton(gradient, np.zeros_like(b)),
            noise=rounding.spread(newton),
            residual=residual,
            condition=condition,
            deviance=rows.deviance(theta[None], b[None])[0],
            passes=max(int(r.trace.passes[-1]) for r in results),
            known=not singular or dependent(problem, rows, varies),
            deficient=singular,
        )
        own = residual if all(r.converged for r in results) else tol
        return certified(reached, problem, rows, self.form, alpha, max(tol, own))


@dataclass(frozen=True, eq=False)
class _Factor:
    """M = H + αP of one target, or of all classes: its eigenvectors with columns scaled to a unit diagonal.

    `through` and `inverse` are C⁻¹sᵀ and C⁻¹ of the intercepts that are profiled out of H; `live` counts the
    columns that have any curvature.
    """

    H: Array
    through: Array
    inverse: Array
    scale: Array
    values: Array
    vectors: Array
    live: int

    @classmethod
    def of(cls, H: Array, through: Array, inverse: Array, pull: Array) -> _Factor:
        M = H + pull
        live = int(np.count_nonzero(M.diagonal() > 0))
        scale = np.sqrt(np.where(M.diagonal() > 0, M.diagonal(), 1.0))
        values, vectors = np.linalg.eigh(M / scale / scale[:, None])
        return cls(H, through, inverse, scale, values, vectors, live)

    @property
    def keep(self) -> Array:
        """Which eigenvalues are no rounding noise."""
        return np.asarray(self.values > rank_cutoff(len(self.H), float(self.values[-1]), squared=True))

    @property
    def condition(self) -> float:
        """κ̂² over columns with curvature; infinite if M is singular there."""
        if self.live == 0:
            return 1.0
        first = len(self.values) - self.live
        return float(self.values[-1] / self.values[first]) if self.keep[first] else np.inf

    def df(self) -> float:
        """Return tr[M⁻¹H]."""
        inner = self.vectors.T @ (self.H / self.scale / self.scale[:, None]) @ self.vectors
        return float(np.sum(inner.diagonal()[self.keep] / self.values[self.keep]))

    def newton(self, g: Array, gb: Array) -> tuple[Array, Array]:
        """Return the Newton step for a gradient: of δ, and of the intercepts."""
        right = (g - self.through.T @ gb) / self.scale
        along = np.where(self.keep, self.vectors.T @ right / np.where(self.keep, self.values, 1.0), 0.0)
        step = -(self.vectors @ along) / self.scale
        return step, -self.inverse @ gb - self.through @ step
