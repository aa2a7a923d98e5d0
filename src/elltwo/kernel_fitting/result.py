"""A fit in other coordinates, or of given alphas, as a `KernelFit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.weights import meaning, weight_notes
from elltwo.kernel_fitting.task import KernelTask
from elltwo.kernels import Precomputed
from elltwo.results import Fit, Path
from elltwo.run import KEPT_PATH
from elltwo.solvers.kernel_fit import KernelFit

Array = npt.NDArray[Any]
#: (θ (…, r, T), b (…, T), alpha (…, T)) in other coordinates -> (a (…, n, T), b (…, T))
Dual = Callable[[Array, Array, Array], tuple[Array, Array]]


def kernel_fit(
    task: KernelTask, kernel: Any, text: str, *, centers: Array, coef: Array, **known: Any
) -> KernelFit:
    """Return the result for coefficients (n, T) of rows or centres (n, p); those that are 0 are left out."""
    support = np.flatnonzero((coef != 0).any(axis=1))
    own = isinstance(kernel, Precomputed)  # new rows bring a value for every training row
    if own or len(support) == 0:
        support = np.arange(len(coef) if own else 1)
    kept = centers[support] if len(support) < len(centers) else centers
    about, source = task.about, task.source
    common: dict[str, Any] = {
        "rows_dropped": int(getattr(source, "rows_dropped", 0)),
        "n_rows": about.rows,
        "n_observations": about.weight if source.counts else float(about.rows),
        "sum_weights": about.weight,
        "weights": meaning(source),
        "feature_names": tuple(source.feature_names),
        "target_names": tuple(source.target_names),
        "feature_means": about.means,
        "feature_scales": about.scales,
        "target_means": about.target_means,
        "target_scales": about.target_scales,
        "standardize": task.standardize,
        "fit_intercept": task.fit_intercept,
        "loss": task.loss,
        "objective": task.objective,
        "model": "Kernel (L2)",
    }
    known["status"] = (*known["status"], *weight_notes(source))
    return KernelFit(
        **common | known,
        kernel=kernel,
        centers=np.zeros((len(coef), 0)) if own else np.ascontiguousarray(kept),
        coef=np.ascontiguousarray(coef[support]),
        support=support,
        n_centers=len(coef),
        kernel_text=text,
    )


def from_coordinates(
    task: KernelTask,
    kernel: Any,
    text: str,
    inner: Fit,
    *,
    centers: Array,
    a: Array,
    b: Array,
    dual: Dual,
    **known: Any,
) -> KernelFit:
    """Return the result for a fit in other coordinates, which `dual` turns into (a, b)."""
    path = inner.path

    def solve(alphas: Array) -> tuple[Array, Array]:
        coef, intercept = path.solved or path.solve(alphas)  # type: ignore[misc]
        return dual(coef, intercept, np.broadcast_to(alphas[:, None], intercept.shape))

    small = len(path.alphas) * a.size <= KEPT_PATH
    path = replace(path, solved=solve(path.alphas) if small else None, solve=None if small else solve)
    taken = (
        "alpha", "df", "rule", "rule_text", "certificate", "status", "solver", "solver_reason", "deviance",
        "null_deviance", "cv_deviance",
    )  # fmt: skip
    assert {*taken} < {f.name for f in fields(Fit)}
    own = {name: getattr(inner, name) for name in taken} | known
    return kernel_fit(task, kernel, text, centers=centers, coef=a, intercept=b, path=path, **own)


def path_of_given(alpha: Array, df: Array, a: Array, b: Array) -> Path:
    """Return the path of given alphas."""
    unique, index = np.unique(alpha, return_inverse=True)
    if len(unique) == 1:
        return Path(unique, df[:1], None, None, index, solved=(a[None], b[None]))
    first = [int(np.argmax(index == i)) for i in range(len(unique))]
    return Path(unique, df[first], None, None, index)
