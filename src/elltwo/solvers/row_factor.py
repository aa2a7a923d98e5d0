"""Wide rows at an alpha next to nothing: the optimum as an interpolation, by a QR of the transposed rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import pivoted_factor, solve_upper
from elltwo.solvers.base import Split
from elltwo.solvers.dual import Rows

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RowFactor:
    """The optimum as an interpolation: a QR of the transposed rows, which no small alpha makes singular.

    With β = W(y − η)/α, H the penalised features and F the others, the intercept's ones among them, the
    optimum has P(θ − θ₀) = X_Hᵀβ, Fᵀβ = 0 and y = Fφ + X_Hθ + αW⁻¹β. A change of these equations is solved by

        RᵀR = X_HP⁻¹X_Hᵀ + αW⁻¹ + F·diag(extra)·Fᵀ,

    where the last term, of about the size of the first, changes nothing since Fᵀβ = 0. Rows of any weight are
    columns here, and features of any size are rows, neither of which costs the QR digits.

    Attributes
    ----------
    R, E, G : arrays, shapes (m, m), (m, q), (q, q)
        R, and R⁻ᵀF = EG with orthonormal E; m rows have a weight.
    X, F : arrays, shapes (m, p) and (m, q)
        X·Q of the rotated penalty, about the means with an intercept.
    extra : array, shape (q,)
    split : Split
    live : int array, shape (m,)
        The rows of positive weight, in the order of the QR.
    """

    R: Array
    E: Array
    G: Array
    X: Array
    F: Array
    extra: Array
    split: Split
    live: Array

    @classmethod
    def of(cls, rows: Rows, split: Split, alpha: float, centre: bool) -> RowFactor | None:
        """Return the factor, or None where rows or unpenalised columns repeat each other."""
        live = np.flatnonzero(rows.w > 0)
        X = split.rotate((rows.X[live] - rows.x_mean) * (rows.x_scale > 0) if centre else rows.X[live])
        held = X[:, split.held] / split.root
        F = np.hstack([np.ones((len(live), int(centre))), X[:, split.free]])
        size = np.sqrt(np.mean(np.sum(held**2, axis=1)) or 1.0)
        length = np.linalg.norm(F, axis=0)
        extra = size / np.where(length > 0, length, 1.0)
        tall = np.vstack([held.T, (F * extra).T, np.diag(np.sqrt(alpha / rows.w[live]))])
        R, order = pivoted_factor(tall)
        live, X, F = live[order], X[order], F[order]
        if F.shape[1] > len(live) or not R.diagonal().all():
            return None
        E, G = np.linalg.qr(solve_upper(R, F, transposed=True))
        if not G.diagonal().all():
            return None
        return cls(R, E, G, X, F, extra**2, split, live)

    def step(self, on_rows: Array, on_columns: Array, on_ones: Array) -> tuple[Array, Array, Array]:
        """Return (δθ, δb, δβ), b that of centred rows, for y − η − αW⁻¹β, Xᵀβ − P(θ − θ₀) and −1ᵀβ."""
        split = self.split
        turned = split.rotate(on_columns.T).T
        own = turned[split.held] / split.root[:, None]
        held = self.X[:, split.held] / split.root
        free = np.vstack([on_ones[None][: self.F.shape[1] - len(split.free)], -turned[split.free]])
        right = on_rows - held @ own + (self.F * self.extra) @ free
        along = solve_upper(self.R, right, transposed=True)
        phi = solve_upper(self.G, self.E.T @ along - solve_upper(self.G, free, transposed=True))
        beta = solve_upper(self.R, along - self.E @ (self.G @ phi))
        theta = np.zeros_like(on_columns)
        theta[split.held] = (held.T @ beta + own) / split.root[:, None]
        ones = len(phi) - len(split.free)
        theta[split.free] = phi[ones:]
        if split.form.rotation is not None:
            theta = split.form.rotation @ theta
        return theta, phi[:1].ravel() if ones else np.zeros(on_rows.shape[1]), beta
