"""One alpha, one Cholesky factorisation of the column-scaled normal equations.

With D = diag(G + αP): D^{-½}(G + αP)D^{-½} = LLᵀ. Scaling to a unit diagonal is within a
factor p of the best column scaling (van der Sluis, 1969), so units of measurement cost no digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, solve_upper
from elltwo.errors import InputError
from elltwo.moments import Moments
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import UNDETERMINED, Influence, leave_out_weight, row_chunks
from elltwo.solvers.spectral import SpectralSolver, from_gram

Array = npt.NDArray[Any]


class NotPositiveDefinite(InputError):
    """G + αP is singular to working precision; another factorisation is needed."""

    def __init__(self) -> None:
        super().__init__(
            "solver 'cholesky' finds the matrix singular at one of the alphas: columns repeat each other. "
            "Use solver='auto', or larger alphas."
        )


@dataclass(frozen=True, eq=False)
class Factor:
    """D^{-½}(G + αP)D^{-½} = UᵀU, with the reciprocal condition number that LAPACK estimates."""

    upper: Array
    scale: Array
    condition: float

    def solve(self, rhs: Array) -> Array:
        """Return (G + αP)⁻¹ rhs for rhs (p, T)."""
        from scipy.linalg import lapack

        solution, _ = lapack.dpotrs(self.upper, rhs / self.scale[:, None], lower=0)
        return np.asarray(solution) / self.scale[:, None]

    def whiten(self, rows: Array) -> Array:
        """Return rows·(G + αP)^{-½}, shape (m, p): squared row sums are leverages."""
        return solve_upper(self.upper, (rows / self.scale).T, transposed=True).T


@dataclass(frozen=True, eq=False)
class Cholesky:
    """Factors of G + αP, made as alphas are asked for."""

    moments: Moments
    form: QuadraticForm
    centre: bool
    condition_limit: float = 1e-2 / ROUNDOFF

    def __post_init__(self) -> None:
        object.__setattr__(self, "_factor", lru_cache(maxsize=4)(self._make_factor))

    @property
    def statistic(self) -> Moments:
        """The moments it was made from."""
        return self.moments

    def _make_factor(self, alpha: float) -> Factor:
        from scipy.linalg import lapack

        gram, _, _ = self.moments.about(self.centre)
        if self.form.rotation is None:
            matrix = gram.copy()
            matrix[np.diag_indices_from(matrix)] += alpha * self.form.d
        else:
            matrix = gram + alpha * self.form.matrix()
        empty = matrix.diagonal() == 0  # neither data nor a penalty: the coefficient stays 0
        matrix[empty, empty] = 1.0
        scale = np.sqrt(matrix.diagonal())
        matrix /= scale
        matrix /= scale[:, None]
        norm = float(np.abs(matrix).sum(axis=0).max())
        upper, info = lapack.dpotrf(matrix, lower=0, clean=1)
        if info != 0:
            raise NotPositiveDefinite
        reciprocal, _ = lapack.dpocon(upper, norm)
        return Factor(upper, scale, 1.0 / reciprocal if reciprocal > 0 else np.inf)

    def factor(self, alpha: float) -> Factor:
        """Return the factor at one alpha; the last few are kept."""
        made: Factor = self._factor(float(alpha))  # type: ignore[attr-defined]
        return made

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        _, cross, _ = self.moments.about(self.centre)
        return np.stack([self.factor(a).solve(cross) for a in alphas])

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        return self.solve(self.moments.about(self.centre)[1], alpha)

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (G + α_t P)⁻¹ rhs_t, one factorisation per distinct alpha."""
        solution = np.empty_like(rhs)
        for a in np.unique(alpha):
            solution[:, alpha == a] = self.factor(a).solve(rhs[:, alpha == a])
        return solution

    def df(self, alphas: Array) -> Array:
        """Return tr[(G + αP)⁻¹G]."""
        gram, _, _ = self.moments.about(self.centre)
        return np.array([np.trace(self.factor(a).solve(gram)) for a in alphas])

    def deviance(self, alphas: Array) -> Array:
        """Return the weighted residual sum of squares at each alpha."""
        coef = self.coef(alphas)
        shift = np.einsum("j,ajt->at", self.moments.x_mean, coef)
        intercept = self.moments.y_mean - shift if self.centre else np.zeros_like(shift)
        return self.moments.deviance(coef, intercept)

    def spectrum(self) -> Array:
        """Return the positive squared singular values, from an eigendecomposition made for this alone."""
        return from_gram(self.moments, self.form, self.centre).spectrum()

    def condition(self, alpha: float) -> float:
        """Return LAPACK's estimate for the scaled matrix."""
        return self.factor(alpha).condition

    def influence(self, problem: Problem, alphas: Array) -> Iterator[Influence]:
        """Yield residuals and 1 − h, one triangular solve of the rows per alpha."""
        coef = self.coef(alphas)
        x_mean = self.moments.x_mean if self.centre else np.zeros_like(self.moments.x_mean)
        y_mean = self.moments.y_mean if self.centre else np.zeros_like(self.moments.y_mean)
        share = 1.0 / self.moments.weight if self.centre else 0.0
        for rows, X, y, weights in row_chunks(problem, max(coef.shape[1], len(alphas) * y_mean.size)):
            Z = X - x_mean
            w = np.ones(len(y)) if weights is None else weights
            leverage = np.stack([np.sum(self.factor(a).whiten(Z) ** 2, axis=1) for a in alphas], axis=1)
            keep = 1.0 - leave_out_weight(problem, w)[:, None] * (leverage + share)
            residual = (y - y_mean)[:, None, :] - np.einsum("ij,ajt->iat", Z, coef, optimize=True)
            yield Influence(
                rows, slice(0, y.shape[1]), residual, np.where(keep < UNDETERMINED, np.nan, keep), w
            )


@dataclass(frozen=True)
class CholeskySolver(SpectralSolver):
    """One Cholesky factorisation per alpha: the cheapest for one alpha."""

    name: str = "cholesky"

    def state(self, moments: Moments, form: QuadraticForm, centre: bool) -> Cholesky:  # type: ignore[override]
        """Return factors to be made on demand."""
        return Cholesky(moments, form, centre)
