"""Kernel models of any loss: logistic regression and its like, by Newton's method.

The minimiser of Σ wᵢℓ(yᵢ, b + f(xᵢ)) + (α/2)‖f‖²_H is f = Σ aⱼ k(xⱼ, ·) with αaᵢ = −wᵢℓ'(yᵢ, ηᵢ), by the
representer theorem, and Σaᵢ = 0 when b is free. In the coordinates Φ of
`solvers/kernel_coordinates.py` it is the linear model of Φ with the penalty (α/2)‖β‖².
Schölkopf and Smola (2002), "Learning with kernels", section 4.2. Zhu and Hastie (2005), "Kernel logistic
regression and the import vector machine".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.data.memory import MemorySource
from elltwo.data.weights import weights_are
from elltwo.errors import Status
from elltwo.kernel_fitting.features import centers_of, dual_of, features_of, fit_features
from elltwo.kernel_fitting.result import from_coordinates
from elltwo.kernel_fitting.task import KernelTask
from elltwo.results import Certificate, Fit
from elltwo.solvers.certificate import told
from elltwo.solvers.kernel_coordinates import Coordinates
from elltwo.solvers.kernel_dual import symmetric_product
from elltwo.solvers.kernel_fit import KernelFit

Array = npt.NDArray[Any]

#: Relative gradient at which Newton's method stops, unless `tol` says otherwise.
TOL = 1e-10
#: A residual at this level is as good as any: then coefficients that the loss makes 0 are exactly 0.
GOOD = 1e-9


def fit_exact(task: KernelTask, kernel: Any, text: str, lower: Array, why: str) -> KernelFit:
    """Return the fit of functions of all rows."""
    rows = task.held
    at = Coordinates.of(lower, centre=task.fit_intercept)
    features = at.features
    inner = MemorySource(
        features,
        rows.y,
        rows.weights,
        weights_are=weights_are(rows),
        feature_names=[f"direction {j}" for j in range(len(at.g))],
        target_names=rows.target_names,
        keys=rows.keys(),
        offset=rows.given_offset,
    )
    fit = fit_features(task, inner, TOL)

    def dual(coef: Array, intercept: Array, alpha: Array) -> tuple[Array, Array]:  # noqa: ARG001
        return at.dual(coef, intercept)

    a, b, certificate = _Solution(task, lower, at).chosen(features, fit)
    return from_coordinates(
        task,
        kernel,
        text,
        fit,
        centers=rows.X,
        a=a,
        b=b,
        dual=dual,
        certificate=certificate,
        status=tuple(
            dict.fromkeys([s for s in fit.status if s is not Status.LOST_DIGITS] + [*told(certificate)])
        ),
        solver="exact",
        solver_reason=f"{why}, {len(at.g):,} of them",
    )


def fit_on_centers(task: KernelTask, kernel: Any, text: str, why: str) -> KernelFit:
    """Return the fit of functions of the centres alone."""
    map = centers_of(task, kernel)
    fit = fit_features(task, features_of(task, map), TOL)
    reason = f"{why}; {len(map.centers):,} centres, {map.root.shape[1]:,} features; {fit.solver_reason}"
    return from_coordinates(
        task,
        kernel,
        text,
        fit,
        centers=map.centers,
        a=map.dual(fit.coef),
        b=fit.intercept,
        dual=dual_of(map),
        solver="nystrom",
        solver_reason=reason,
    )


@dataclass(frozen=True, eq=False)
class _Solution:
    """A model in coordinates as one of the rows, and how right it is."""

    task: KernelTask
    lower: Array
    at: Coordinates

    @property
    def _weights(self) -> Array:
        w = self.task.held.weights
        return np.ones((self.task.n, 1)) if w is None else w[:, None]

    def _slope(self, eta: Array) -> Array:
        """Return wℓ'(y, η + offset), (n, T)."""
        rows, w = self.task.held, self._weights
        known = 0.0 if rows.given_offset is None else rows.given_offset
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(w > 0, w * self.task.loss.gradient(rows.y, eta + known), 0.0)

    def from_slopes(self, features: Array, fit: Fit) -> tuple[Array, Array]:
        """Return (a, b) with a = −wℓ'/α: exactly 0 for rows whose slope is."""
        a = -self._slope(features @ fit.coef + fit.intercept) / fit.alpha
        return a, fit.intercept - self.at.column_means @ a

    def residual(self, a: Array, b: Array, alpha: Array) -> tuple[float, float]:
        """Return ‖αa + wℓ'(y, Ka + b)‖, the largest of the targets', relative to wℓ' at f = 0 and to αa."""
        rows, w = self.task.held, self._weights
        mean = (w[:, 0] @ rows.y) / w.sum()
        null = self.task.loss.null(mean) if self.task.fit_intercept else np.zeros_like(mean)
        left = alpha * a + self._slope(symmetric_product(self.lower, a) + b)
        error = np.linalg.norm(left, axis=0)
        size = np.linalg.norm(self._slope(np.broadcast_to(null, rows.y.shape)), axis=0)
        norm = np.linalg.norm(alpha * a, axis=0)
        return (
            float(np.divide(error, size, out=error.copy(), where=size > 0).max()),
            float(np.divide(error, norm, out=np.zeros_like(error), where=norm > 0).max()),
        )

    def chosen(self, features: Array, fit: Fit) -> tuple[Array, Array, Certificate]:
        """Return the coefficients of the chosen model and their certificate, measured on K itself.

        ‖δa‖ ≤ ‖αa + wℓ'‖/α in the norm that the curvature gives, since K is positive semi-definite. For small
        alphas −wℓ'/α magnifies the rounding of ℓ', and the directions of K do not.
        """
        a, b = self.at.dual(fit.coef, fit.intercept)
        left, relative = self.residual(a, b, fit.alpha)
        if np.all(fit.alpha > 0):
            other = self.from_slopes(features, fit)
            measured = self.residual(*other, fit.alpha)
            if measured[0] <= max(left, GOOD):
                (a, b), (left, relative) = other, measured
        certificate = fit.certificate
        floor = ROUNDOFF * certificate.condition**2
        digits = float(np.clip(-np.log10(max(relative, floor, 1e-300)), 0.0, 15.9))
        digits = digits if np.all(fit.alpha > 0) else certificate.digits
        if certificate.digits == 0.0:  # no optimum was reached
            digits = 0.0
        return a, b, replace(certificate, residual=left, digits=digits)
