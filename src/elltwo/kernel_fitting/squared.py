"""Kernel ridge: squared error, by one factorisation for every alpha, for one alpha, or on centres."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.weights import weights_are
from elltwo.engine import make_problem
from elltwo.kernel_fitting.features import centers_of, dual_of, features_of, fit_features
from elltwo.kernel_fitting.result import from_coordinates, kernel_fit, path_of_given
from elltwo.kernel_fitting.task import NYSTROM_TOL, TOL, KernelTask
from elltwo.results import Certificate
from elltwo.run import Run
from elltwo.solvers.certificate import dual_notes
from elltwo.solvers.kernel import KernelSolver, KernelSource
from elltwo.solvers.kernel_dual import (
    dual_digits,
    dual_residual,
    dual_rounding,
    relative_residual,
    solve_dual,
)
from elltwo.solvers.kernel_fit import KernelFit
from elltwo.solvers.nystrom import MANY_CENTERS, solve_nystrom

Array = npt.NDArray[Any]


def targets_of(task: KernelTask) -> Array:
    """Return y less the offset, (n, T)."""
    rows = task.held
    return rows.y if rows.given_offset is None else rows.y - rows.given_offset


def fit_exact(task: KernelTask, kernel: Any, text: str, lower: Array, why: str) -> KernelFit:
    """Return the fit for any rule, and for alpha = 0."""
    rows = task.held
    source = KernelSource(
        lower,
        targets_of(task),
        rows.weights,
        weights_are=weights_are(rows),
        centre=task.fit_intercept,
        target_names=rows.target_names,
        keys=rows.keys(),
    )
    problem = make_problem(
        source, fit_intercept=task.fit_intercept, standardize=False, penalty=None, prior=None
    )
    run = Run(
        problem,
        task.rule,
        task.fixed,
        task.plan,
        task.per_target,
        task.alpha_scale,
        1e-10,
        "exact",
        watch=task.watch,
    )
    fit = run.fit(KernelSolver(), why)
    a, b = source.dual(fit.coef, fit.intercept, fit.alpha)
    return from_coordinates(
        task, kernel, text, fit, centers=rows.X, a=a, b=b, dual=source.dual, solver="exact"
    )


def fit_one_alpha(task: KernelTask, kernel: Any, text: str, lower: Array) -> KernelFit:
    """Return the fit at one positive alpha for each target."""
    y, weights, alpha = targets_of(task), task.held.weights, task.alpha
    found = solve_dual(
        lower,
        y,
        weights,
        alpha,
        centre=task.fit_intercept,
        method=task.solver,
        tol=task.tol or TOL,
        seed=task.seed,
    )
    w = np.ones(len(y)) if weights is None else weights
    mean = (w @ y) / float(w.sum()) if task.fit_intercept else np.zeros(len(alpha))
    size = np.linalg.norm(y - mean, axis=0)
    residual, fitted = dual_residual(lower, y, w, alpha, found.a, found.b)
    worst = relative_residual(residual, size)
    condition = float((found.largest + alpha.max()) / alpha.min())
    digits = dual_digits(worst, size, alpha, found.a, w, condition)
    certificate = Certificate(worst, "rows", float(np.sqrt(condition)), digits, 0)
    rounding = dual_rounding(size, found.a, found.largest)
    return kernel_fit(
        task,
        kernel,
        text,
        centers=task.held.X,
        coef=found.a,
        intercept=found.b,
        alpha=alpha,
        df=found.df,
        rule="fixed",
        rule_text="given",
        path=path_of_given(alpha, found.df, found.a, found.b),
        certificate=certificate,
        status=dual_notes(certificate, task.tol or TOL, rounding),
        solver=found.method,
        solver_reason=f"{found.why}; {found.steps} steps" if found.steps else found.why,
        deviance=np.asarray(w @ (y - fitted) ** 2),
        null_deviance=np.asarray(w @ (y - mean) ** 2),
        cv_deviance=None,
    )


def fit_on_centers(task: KernelTask, kernel: Any, text: str, why: str) -> KernelFit:
    """Return the fit of functions of the centres alone."""
    map = centers_of(task, kernel)
    m = len(map.centers)
    if task.rule is not None or m < MANY_CENTERS or np.any(task.alpha == 0):
        fit = fit_features(task, features_of(task, map), NYSTROM_TOL)

        reason = f"{why}; {m:,} centres, {map.root.shape[1]:,} features; {fit.solver}: {fit.solver_reason}"
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
    alpha = task.alpha
    found = solve_nystrom(task.scaled, map, alpha, centre=task.fit_intercept, tol=task.tol or NYSTROM_TOL)
    a, df = map.dual(found.coef), np.full(len(alpha), np.nan)
    return kernel_fit(
        task,
        kernel,
        text,
        centers=map.centers,
        coef=a,
        intercept=found.intercept,
        alpha=alpha,
        df=df,
        rule="fixed",
        rule_text="given",
        path=path_of_given(alpha, df, a, found.intercept),
        certificate=found.certificate,
        status=found.notes,
        solver="nystrom",
        solver_reason=f"{why}; {m:,} centres; conjugate gradients over blocks of rows, {found.steps} steps",
        deviance=found.rss,
        null_deviance=found.null_rss,
        cv_deviance=None,
    )
