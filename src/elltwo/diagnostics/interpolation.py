"""The optimum of wide rows at an alpha next to nothing, measured and refined in the variables of the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import cross_product
from elltwo.diagnostics.optimum import EXTENDED_SIZE, KEPT, Optimum
from elltwo.extended import Extended
from elltwo.solvers.dual import DualState
from elltwo.solvers.row_factor import RowFactor

Array = npt.NDArray[Any]

#: Below this share of the largest squared singular value of wide rows, alpha is refined by a `RowFactor`.
ACROSS = 1e-10


def multiplies_noise(optimum: Optimum) -> bool:
    """Return whether wide rows have an alpha so small that 1/alpha blows up rounding noise across them."""
    if not isinstance(optimum.state, DualState):
        return False
    return float(optimum.alpha.min()) <= ACROSS * float(optimum.state.spectrum().max(initial=0.0))


@dataclass(frozen=True)
class Interpolation(Optimum):
    """The same with no more rows than features and a small alpha, in the variables (θ, b, β) of `RowFactor`.

    (G + αP)⁻¹ multiplies what rounding leaves across the rows by 1/α; here nothing is multiplied.
    """

    factor: dict[float, RowFactor] = field(default_factory=dict)

    @classmethod
    def of(cls, optimum: Optimum) -> Optimum:
        """Return the optimum in these variables where that is better, else as it is."""
        state: Any = optimum.state
        alphas, centre = np.unique(optimum.alpha), optimum.problem.fit_intercept
        if not multiplies_noise(optimum) or len(alphas) > KEPT:
            return optimum
        made = {float(a): RowFactor.of(state.statistic, state.split, float(a), centre) for a in alphas}
        factor = {a: f for a, f in made.items() if f is not None}
        if len(factor) < len(alphas):
            return optimum
        return cls(optimum.problem, optimum.statistic, state, optimum.form, optimum.alpha, factor)

    @cached_property
    def y(self) -> Array:
        """The targets less their offsets, shape (n, T)."""
        blocks = self.problem.source.blocks()
        return np.concatenate([b.y if b.offset is None else b.y - b.offset for b in blocks])

    def start(self) -> tuple[Array, ...]:
        """Return the solution by the factor from θ₀."""
        shape = len(self.form.d), len(self.alpha)
        begin = np.broadcast_to(self.problem.prior_column, shape), np.zeros(shape[1]), np.zeros(self.y.shape)
        return tuple(a + b for a, b in zip(begin, self.step(self.look(begin, True)), strict=True))

    def look(self, at: tuple[Array, ...], on_rows: bool) -> Any:  # noqa: ARG002
        """Return y − b − Xθ − αW⁻¹β, X_cᵀβ − P(θ − θ₀) and −1ᵀβ, X_c about the means."""
        rows: Any = self.statistic
        coef, intercept, beta = at
        pull = self.form.apply(coef - self.problem.prior_column)
        share = np.divide.outer(self.alpha, np.where(rows.w > 0, rows.w, np.inf)).T
        if self.y.size * len(coef) <= EXTENDED_SIZE:
            left, across = np.empty_like(beta), np.empty_like(coef)
            for t in range(len(intercept)):
                fitted = Extended.product(rows.X, coef[:, t]).sum(axis=1)
                held = Extended.product(share[:, t], beta[:, t])
                left[:, t] = Extended.of(self.y[:, t]).minus(intercept[t]).minus(fitted).minus(held).value()
                b = Extended.of(beta[:, t])
                mean = b.sum(axis=0).times(self.x_mean)
                across[:, t] = Extended.outer(rows.X, b).sum(axis=0).minus(mean).minus(pull[:, t]).value()
        else:
            left = self.y - intercept - rows.X @ coef - share * beta
            across = cross_product(rows.X, beta) - np.outer(self.x_mean, beta.sum(axis=0)) - pull
        left[rows.w == 0] = 0.0
        if self.problem.fit_intercept:
            across[rows.x_scale == 0] = 0.0
        return left, across, -beta.sum(axis=0)

    def step(self, measured: Any) -> tuple[Array, ...]:
        """Return (δθ, δb, δβ)."""
        left, across, total = measured
        coef, intercept, beta = np.zeros_like(across), np.zeros_like(total), np.zeros_like(left)
        for a, factor in self.factor.items():
            t = self.alpha == a
            coef[:, t], intercept[t], beta[np.ix_(factor.live, t)] = factor.step(
                left[np.ix_(factor.live, t)], across[:, t], total[t]
            )
        return coef, intercept - self.x_mean @ coef, beta
