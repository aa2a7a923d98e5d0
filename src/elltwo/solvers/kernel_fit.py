"""`KernelFit`: the chosen function f = Σ aⱼ k(zⱼ, ·) + b, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, Status
from elltwo.results import Certificate, Path

Array = npt.NDArray[Any]

#: Elements of the block of the kernel matrix that predictions make at a time: 64 MiB.
PREDICTED = 1 << 23


@dataclass(frozen=True, eq=False)
class KernelFit:
    """A fitted kernel ridge model.

    Attributes
    ----------
    kernel : Kernel
        With all its parameters as numbers.
    centers : array, shape (m, p)
        The training rows, or the Nyström centres.
    dual_coef : array, shape (m, T)
    intercept : array, shape (T,)
    alpha : array, shape (T,)
        On the sum scale.
    df : array, shape (T,)
        Effective degrees of freedom, intercept not counted; NaN where they were not computed (conjugate
        gradients, and Cholesky with many rows).
    rule, rule_text : str
        What chose alpha ("fixed" if it was given), with one line of detail.
    kernel_text : str
        How the kernel's parameters came about.
    path : Path
    certificate : Certificate
        `residual` is ‖y − b − Ka − αW⁻¹a‖/‖y − ȳ‖; for Nyström that of its normal equations.
    status : tuple of Status
    solver, solver_reason, objective : str
    n_rows : int
        Rows of positive weight.
    sum_weights : float
    rss : array, shape (T,)
        Weighted residual sum of squares in sample.
    null_rss : array, shape (T,)
        The same of the intercept alone.
    cv_mse : array, shape (T,), or None
        Weighted mean squared error over held-out rows at alpha (LOO and K-fold only).
    target_names : tuple of str
    """

    kernel: Any
    centers: Array
    dual_coef: Array
    intercept: Array
    alpha: Array
    df: Array
    rule: str
    rule_text: str
    kernel_text: str
    path: Path
    certificate: Certificate
    status: tuple[Status, ...]
    solver: str
    solver_reason: str
    objective: str
    n_rows: int
    sum_weights: float
    rss: Array
    null_rss: Array
    cv_mse: Array | None
    target_names: tuple[str, ...]

    @property
    def lambda_(self) -> Array:
        """Penalty on the mean scale, λ = α/Σw, as in MSE + λ‖f‖²."""
        return self.alpha / self.sum_weights

    @property
    def r2(self) -> Array:
        """Share of the target's variance explained in sample, shape (T,)."""
        return self._explained(self.rss)

    @property
    def r2_cv(self) -> Array | None:
        """Share explained in held-out rows (LOO, K-fold), shape (T,), or None for other rules."""
        return None if self.cv_mse is None else self._explained(self.cv_mse * self.sum_weights)

    def _explained(self, rss: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.null_rss > 0, 1 - rss / self.null_rss, np.nan)

    def decision(self, X: Any) -> Array:
        """Return b + Σ aⱼ k(zⱼ, x) for rows X (n, p), shape (n, T), a block of rows at a time.

        Raises
        ------
        InputError
            If X does not have the columns of the fit.
        """
        X = np.asarray(X, dtype=np.float64)
        m, p = self.centers.shape
        if X.ndim != 2 or X.shape[1] != p:
            raise InputError(f"X has shape {X.shape}; this model needs (n, {p}).")
        step = max(1, PREDICTED // m)
        out = np.empty((len(X), len(self.intercept)))
        for i in range(0, len(X), step):
            out[i : i + step] = self.kernel(X[i : i + step], self.centers) @ self.dual_coef
        return out + self.intercept

    def predict(self, X: Any) -> Array:
        """Return b + f(x), shape (n,) for one target, (n, T) otherwise."""
        eta = self.decision(X)
        return eta[:, 0] if eta.shape[1] == 1 else eta

    def summary(self) -> str:
        """Return what was fitted, how and how well, as text."""
        c, cv = self.certificate, self.r2_cv
        lines = [
            ("objective", self.objective),
            ("kernel", f"{self.kernel}; {self.kernel_text}"),
            (
                "rows",
                f"{self.n_rows:,}" + ("" if self.solver != "nystrom" else f", {len(self.centers):,} centres"),
            ),
            ("alpha", f"{self.rule}: {self.rule_text}"),
            ("solver", f"{self.solver} ({self.solver_reason})"),
            ("certificate", f"residual {c.residual:.1e}, condition {c.condition:.1e}, {c.digits:.1f} digits"),
        ]
        for t, name in enumerate(self.target_names):
            df = "" if np.isnan(self.df[t]) else f", df {self.df[t]:.4g}"
            held = "" if cv is None else f", held-out R² {cv[t]:.4f}"
            lines.append((name, f"alpha {self.alpha[t]:.6g}{df}, R² {self.r2[t]:.4f}{held}"))
        lines += [("note", status.value) for status in self.status]
        width = max(len(label) for label, _ in lines)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)
