"""Kernel models: functions of a kernel's space in place of linear ones, for every loss and rule.

`fit_kernel` goes from a checked `KernelTask` to a `KernelFit`: which solver, which parameters of the kernel,
which alpha.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elltwo.errors import InputError, enough_memory
from elltwo.kernel_fitting import losses, squared
from elltwo.kernel_fitting.task import KernelTask
from elltwo.kernel_fitting.width import best_of, resolved, tuned
from elltwo.kernels import Precomputed
from elltwo.solvers.kernel_fit import KernelFit

__all__ = ["KernelFit", "KernelTask", "fit_kernel"]


@enough_memory()
def fit_kernel(task: KernelTask, kernel: Any) -> KernelFit:
    """Fit a kernel model, choosing the kernel's width by the same criterion as alpha where several are given.

    Minimises Σ wᵢ·½dev(yᵢ, b + f(xᵢ) + offset) + (α/2)‖f‖²_H over functions f of the kernel's space and,
    unless told otherwise, a free intercept b.

    Parameters
    ----------
    task : KernelTask
        What is to be fitted, and how.
    kernel : Kernel
        Its width a number, a word for one, a list of them, or "tune".

    Raises
    ------
    InputError
        For data or arguments that cannot be used.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> from elltwo.kernels import RBF
    >>> x = np.linspace(0, 6, 40)[:, None]
    >>> fit = fit_kernel(KernelTask(MemorySource(x, np.sin(x)), None, np.array([1e-3])), RBF(0.5))
    >>> fit.predict(np.array([[np.pi / 2]])).round(2)
    array([1.])
    """
    if task.standardize and isinstance(kernel, Precomputed):
        raise InputError("standardize needs the columns of X, and kernel='precomputed' has none.")
    _ = task.about  # refuses rows that are not finite before anything is measured on them
    widths = None if kernel.scale is None else getattr(kernel, kernel.scale)
    if isinstance(widths, str) and widths == "tune":
        return tuned(task, kernel, fit_one)
    if widths is None or np.ndim(widths) == 0:
        words = f"{kernel.scale} by '{widths}'" if isinstance(widths, str) else "parameters as given"
        return fit_one(task, resolved(task, kernel), words)
    return best_of(task, kernel, list(widths), fit_one)


def fit_one(task: KernelTask, kernel: Any, text: str) -> KernelFit:
    """Return the fit with one kernel, its parameters numbers."""
    method, why = task.method
    if method == "nystrom":
        on_centers = squared.fit_on_centers if task.squared else losses.fit_on_centers
        return on_centers(task, kernel, text, why)
    with np.errstate(over="ignore", invalid="ignore"):
        lower = kernel.lower(task.held.X)
    if not np.isfinite(lower[np.diag_indices(len(lower))]).all():
        raise InputError("the kernel matrix overflows; rescale the columns of X or lower the degree.")
    if method == "exact":
        exact = squared.fit_exact if task.squared else losses.fit_exact
        return exact(task, kernel, text, lower, why)
    return squared.fit_one_alpha(task, kernel, text, lower)
