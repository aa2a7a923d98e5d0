"""First-order methods as solvers: which rows a model is trained on, and its solutions along alphas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.errors import InputError, Status
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate
from elltwo.solvers.base import HeldOut, Influence, Outcome, rank_cutoff, varying
from elltwo.solvers.first_order import (
    Descent,
    Frame,
    Objective,
    Recorder,
    Rows,
    Spread,
    hessian_weights,
    is_sparse,
)

Array = npt.NDArray[Any]

#: Largest order of a Hessian that is formed, for effective degrees of freedom and condition numbers.
MOST_ORDER = 10_000


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
        if not self.centre:
            return list(H)
        parts = zip(H, side, corner, strict=True)
        return [h - s @ np.linalg.pinv(c, hermitian=True) @ s.T for h, s, c in parts]

    def _at(self, alpha: float) -> tuple[Array, Array]:
        """Return δ and the centred rows' b at an alpha."""
        delta, b = (part[0] for part in self.solved(np.array([alpha])))
        return delta, b + (self.statistic.x_mean @ delta if self.centre else 0.0)

    def _penalty(self, order: int) -> Array:
        return np.kron(np.eye(order // len(self.form.d)), self.form.matrix())

    def _factors(self, alpha: float) -> list[tuple[Array, Array, Array, Array]]:
        """Return, for each Hessian, itself, scales that make the diagonal of H + αP one, and that matrix's
        eigenvalues and eigenvectors.
        """
        found = []
        for H in self.hessians(*self._at(alpha)):
            M = H + alpha * self._penalty(len(H))
            scale = np.sqrt(np.where(M.diagonal() > 0, M.diagonal(), 1.0))
            values, vectors = np.linalg.eigh(M / scale / scale[:, None])
            found.append((H, scale, values, vectors))
        return found

    def df(self, alphas: Array) -> Array:
        """Return tr[(H + αP)⁻¹H] with the data's Hessian H at the optimum, shape (A,): mean over targets."""
        result = []
        for alpha in alphas:
            each = []
            for H, scale, values, vectors in self._factors(float(alpha)):
                keep = values > rank_cutoff(len(H), float(values[-1]), squared=True)
                inner = vectors.T @ (H / scale / scale[:, None]) @ vectors
                each.append(np.sum(inner.diagonal()[keep] / values[keep]))
            result.append(np.mean(each))
        return np.array(result)

    def condition(self, alpha: float) -> float:
        """Return κ̂² of H + αP, its columns scaled; columns without curvature are left out."""
        worst = 1.0
        for H, scale, values, _ in self._factors(alpha):
            live = int(np.count_nonzero(H.diagonal() + scale**2 * (alpha > 0) > 0))
            positive = values[len(values) - live :]
            worst = max(worst, float(values[-1] / positive[0]) if positive[0] > 0 else np.inf)
        return worst

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_t P)⁻¹ rhs_t at the optimum; classes have one alpha."""
        coupled, T = self.problem.loss.coupled, rhs.shape[1]
        result = np.empty_like(rhs)
        for t in (0,) if coupled else range(T):
            H, scale, values, vectors = self._factors(float(alpha[t]))[t]
            keep = values > rank_cutoff(len(H), float(values[-1]), squared=True)
            right = (rhs.T.ravel() if coupled else rhs[:, t]) / scale
            along = np.where(keep, vectors.T @ right / np.where(keep, values, 1.0), 0.0)
            solution = vectors @ along / scale
            if coupled:
                return solution.reshape(T, -1).T
            result[:, t] = solution
        return result

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

    def outcome(self, alpha: Array, tol: float) -> Outcome:  # noqa: ARG002
        """Return the chosen models, and how right they are.

        The correct digits are those that the Newton step from there, not taken, would leave as they are;
        coefficients whose effect is a 1e-10 of the largest count as 0.
        """
        results = [self.result(float(a)) for a in alpha]
        coef = np.stack([r.coef[:, t] for t, r in enumerate(results)], axis=1)
        b = np.array([r.intercept[t] for t, r in enumerate(results)])
        gradient = np.stack([r.gradient[:, t] for t, r in enumerate(results)], axis=1)
        condition = max(self.condition(float(a)) for a in np.unique(alpha))
        effect = np.abs(coef) * self.statistic.x_scale[:, None]
        real = effect > 1e-10 * effect.max(initial=0.0)
        step = np.abs(self.solve(gradient, alpha)[real] / coef[real]).max(initial=0.0)
        floor = ROUNDOFF * np.sqrt(condition) if np.isfinite(condition) else 1.0
        certificate = Certificate(
            residual=max(r.relative for r in results),
            measured_on="rows",
            condition=float(np.sqrt(condition)),
            digits=float(np.clip(-np.log10(max(step, floor, 1e-300)), 0.0, 15.9)),
            refinements=max(int(r.trace.passes[-1]) for r in results),
        )
        reduced = (part[None] for part in self.problem.reduce(coef, b))
        reached = all(r.converged and r.profiled for r in results)
        notes = () if reached else (Status.NOT_CONVERGED,)
        return Outcome(
            coef, b, self.statistic.deviance(*reduced)[0], self.null_deviance(), certificate, notes
        )

    def null_deviance(self) -> Array:
        """Return the deviance of the best intercept alone, (T,) or (1,)."""
        objective = Objective.of(self.frame(0.0), Recorder())
        prior = np.broadcast_to(self.problem.prior_column, self.null[0].shape)
        sums, _, _ = objective.settle(-prior, self.null[1])
        return 2 * sums.value
