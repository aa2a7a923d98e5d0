"""Kernel ridge regression against scikit-learn's, which has no intercept: so none is fitted here either."""

from __future__ import annotations

from typing import Any

import numpy as np

from outcome import Outcome
from timing import best_of

N, P = 8_000, 20


def kernel_one() -> Outcome:
    """8,000 × 20, RBF kernel ridge at one alpha, against scikit-learn's KernelRidge."""
    from sklearn import kernel_ridge

    from elltwo import KernelRidge

    X, y = _waves()
    ours = KernelRidge(1.0, kernel="rbf", fit_intercept=False)
    theirs = kernel_ridge.KernelRidge(alpha=1.0, kernel="rbf")
    mine, other = best_of([lambda: ours.fit(X, y), lambda: theirs.fit(X, y)], 3)
    apart = float(np.abs(ours.dual_coef_ - theirs.dual_coef_).max() / np.abs(theirs.dual_coef_).max())
    if not apart < 1e-8:
        raise AssertionError(f"our coefficients and scikit-learn's differ by {apart:.1e} of the largest")
    return Outcome(other / mine, 3, True, f"{mine:.2f} s against {other:.2f} s; {apart:.0e} apart")


def kernel_loo() -> Outcome:
    """8,000 × 20, RBF, exact leave-one-out over 50 alphas, in fits of scikit-learn's KernelRidge at one."""
    from sklearn import kernel_ridge

    from elltwo import LOO, KernelRidge

    X, y = _waves()
    ours = KernelRidge(LOO(np.geomspace(1e-3, 1e3, 50)), kernel="rbf", fit_intercept=False)
    theirs = kernel_ridge.KernelRidge(alpha=1.0, kernel="rbf")
    mine, other = best_of([lambda: ours.fit(X, y), lambda: theirs.fit(X, y)], 2)
    return Outcome(
        mine / other, 15, False, f"{mine:.1f} s against {other:.2f} s for one; alpha {ours.alpha_:.3g}"
    )


def _waves() -> tuple[Any, Any]:
    """Return Gaussian features and a smooth function of them with noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, P))
    return X, np.sin(X @ rng.standard_normal(P) / 2) + 0.1 * rng.standard_normal(N)


CASES = (kernel_one, kernel_loo)
