"""From checked arguments to a `KernelFit`: which solver, which parameters of the kernel, which alpha."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.memory import MemorySource
from elltwo.engine import fit_source, make_problem
from elltwo.errors import InputError, did_you_mean
from elltwo.kernels import Precomputed, median_gamma
from elltwo.results import Certificate, Fit, Path
from elltwo.run import KEPT_PATH, Run
from elltwo.selection import Rule, as_rule, check_alphas
from elltwo.solvers.kernel import KernelSolver, KernelSource
from elltwo.solvers.kernel_dual import dual_digits, dual_residual, relative_residual, solve_dual
from elltwo.solvers.kernel_fit import KernelFit
from elltwo.solvers.nystrom import MANY_CENTERS, NystromMap, pick_centers, solve_nystrom

Array = npt.NDArray[Any]

SOLVERS = ("auto", "exact", "cg", "cholesky", "nystrom")
#: Most rows whose kernel matrix is diagonalised, and most whose kernel matrix is held.
MOST_DIAGONALISED, MOST_HELD = 20_000, 40_000
#: Where conjugate gradients stop: ‖y − b − (K + αW⁻¹)a‖/‖y − ȳ‖, and the normal equations of Nyström.
TOL, NYSTROM_TOL = 2e-15, 1e-10
#: The search over a kernel's width: steps of this factor either way from the median distance, and how
#: finely log γ is refined between the best of them and its neighbours.
TUNE_FACTOR, TUNE_STEPS, TUNE_TOL = 4.0, 3, 0.05


@dataclass(frozen=True, eq=False)
class KernelTask:
    """What is to be fitted, checked: rows in memory, alpha by a rule or given, and how to solve."""

    source: MemorySource
    X: Array
    rule: Rule | None
    fixed: Array | None
    fit_intercept: bool
    per_target: bool
    alpha_scale: str
    solver: str
    n_centers: int | None
    tol: float | None
    seed: int

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            hint = did_you_mean(str(self.solver), SOLVERS)
            raise InputError(f"solver {self.solver!r} is not known.{hint} Choose from: {', '.join(SOLVERS)}.")
        if self.alpha_scale not in ("sum", "mean"):
            raise InputError(f"alpha_scale must be 'sum' or 'mean'; got {self.alpha_scale!r}.")
        n, m, tol = len(self.X), self.n_centers, self.tol
        if m is not None:
            if isinstance(m, bool) or not isinstance(m, (int, np.integer)) or not 1 <= m <= n:
                raise InputError(f"n_centers must be a whole number from 1 to the {n} rows; got {m!r}.")
            if self.solver != "nystrom":
                raise InputError(f"n_centers needs solver='nystrom'; solver is {self.solver!r}.")
        if tol is not None and not (isinstance(tol, (int, float, np.number)) and 0 < tol < 1):
            raise InputError(f"tol must be a number between 0 and 1; got {tol!r}.")
        direct = self.solver in ("exact", "cholesky") or (self.solver == "auto" and self.rule is not None)
        if tol is not None and direct:
            raise InputError(f"tol is where iterations stop, and solver={self.solver!r} has none here.")

    @property
    def alpha(self) -> Array:
        """The given alphas on the sum scale, (T,)."""
        assert self.fixed is not None
        weights = self.source.weights
        total = len(self.X) if weights is None else float(weights.sum())
        return self.fixed * (total if self.alpha_scale == "mean" else 1.0)

    @property
    def method(self) -> tuple[str, str]:
        """The solver and the reason."""
        n, solver, why = len(self.X), self.solver, "asked for"
        if solver == "auto":
            if self.rule is not None:
                solver, why = "exact", "one eigendecomposition of the kernel matrix serves every alpha"
            elif np.any(self.alpha == 0):
                solver, why = "exact", "alpha = 0 needs the rank of the kernel matrix"
            else:
                solver, why = "dual", ""
        elif solver in ("cg", "cholesky") and (self.rule is not None or np.any(self.alpha == 0)):
            raise InputError(
                f"solver={solver!r} solves for one positive alpha; a rule, or alpha = 0, needs 'exact'."
            )
        most = MOST_DIAGONALISED if solver == "exact" else MOST_HELD
        if solver != "nystrom" and n > most:
            what = "diagonalise" if solver == "exact" else "hold"
            raise InputError(
                f"{n:,} rows are too many to {what} their kernel matrix (the limit is {most:,}). "
                "Use solver='nystrom', which needs a few thousand centres only."
            )
        return solver, why

    @property
    def objective(self) -> str:
        """The minimised objective in words."""
        errors = "weighted sum" if self.source.weighted else "sum"
        rest = "intercept not penalised" if self.fit_intercept else "no intercept"
        return f"{errors} of squared errors + alpha * squared norm of f in the kernel's space; {rest}"


def alpha_or_rule(alpha: Any, n_targets: int, per_target: bool) -> tuple[Rule | None, Array | None]:
    """Return (rule, None), or (None, one alpha per target)."""
    if isinstance(alpha, str) or hasattr(alpha, "criterion"):
        return as_rule(alpha), None
    values = check_alphas(alpha)
    if len(values) not in (1, n_targets):
        raise InputError(
            f"alpha has {len(values)} values for {n_targets} target(s); give one, or one per target."
        )
    if per_target and len(values) == 1 and n_targets > 1:
        raise InputError("alpha_per_target=True needs a rule, or an array with one alpha per target.")
    return None, np.broadcast_to(values, (n_targets,)).copy()


def fit_kernel(task: KernelTask, kernel: Any) -> KernelFit:
    """Fit kernel ridge, choosing the kernel's width by the same criterion as alpha where several are given.

    Raises
    ------
    InputError
        For data or arguments that cannot be used.
    """
    widths = None if kernel.scale is None else getattr(kernel, kernel.scale)
    if isinstance(widths, str) and widths == "tune":
        return _tuned(task, kernel)
    if widths is None or np.ndim(widths) == 0:
        return _fit(task, kernel.resolve(task.X), "parameters as given")
    values = list(widths)
    if not values:
        raise InputError(f"{kernel.scale} is an empty list; give at least one value.")
    _needs_rule(task, kernel.scale)
    best = _best(task, [replace(kernel, **{kernel.scale: v}).resolve(task.X) for v in values])
    how = f"{kernel.scale} chosen from {len(values)} values by the same criterion"
    return replace(best, kernel_text=how)


def _needs_rule(task: KernelTask, name: str) -> None:
    if task.rule is None:
        raise InputError(
            f"choosing {name} needs a criterion, and alpha is a number. Use a rule: alpha='loo', "
            "or alpha=LOO(alphas=[…]) to keep to alphas of your own."
        )


def criterion(fit: KernelFit) -> float:
    """Return the rule's criterion at what it chose, its mean over targets; smaller is better."""
    score = fit.path.score
    assert score is not None
    chosen = score[fit.path.chosen]
    return float(np.mean(chosen if chosen.ndim == 1 else np.diagonal(chosen)))


def _best(task: KernelTask, kernels: list[Any]) -> KernelFit:
    best: KernelFit | None = None
    for kernel in kernels:
        fit = _fit(task, kernel, "")
        if best is None or criterion(fit) < criterion(best):
            best = fit
    assert best is not None
    return best


def _tuned(task: KernelTask, kernel: Any) -> KernelFit:
    """Return the fit at the best width: a coarse grid about the median distance, refined in log γ."""
    from scipy.optimize import minimize_scalar

    _needs_rule(task, kernel.scale)
    start = median_gamma(task.X)
    if kernel.scale == "length_scale":
        start = float(np.sqrt(0.5 / start))
    step = float(np.log(TUNE_FACTOR)) / (2 if kernel.scale == "length_scale" else 1)
    known: dict[float, float] = {}
    best: list[KernelFit] = []

    def score(t: float) -> float:
        if t not in known:
            fit = _fit(task, replace(kernel, **{kernel.scale: start * float(np.exp(t))}).resolve(task.X), "")
            known[t] = criterion(fit)
            if known[t] <= min(known.values()):
                best[:] = [fit]
        return known[t]

    grid = [step * k for k in range(-TUNE_STEPS, TUNE_STEPS + 1)]
    at = min(grid, key=score)
    bounds = (at - step, at + step)
    minimize_scalar(score, bounds=bounds, method="bounded", options={"xatol": TUNE_TOL * step})
    text = f"{kernel.scale} tuned by the same criterion, {len(known)} values tried"
    edge = "" if abs(at) < grid[-1] else "; the best is at the end of the range that was searched"
    return replace(best[0], kernel_text=text + edge)


def _fit(task: KernelTask, kernel: Any, text: str) -> KernelFit:
    method, why = task.method
    if method == "nystrom":
        return _nystrom(task, kernel, text)
    with np.errstate(over="ignore", invalid="ignore"):
        lower = kernel.lower(task.X)
    if not np.isfinite(lower[np.diag_indices(len(lower))]).all():
        raise InputError("the kernel matrix overflows; rescale the columns of X or lower the degree.")
    if method == "exact":
        return _exact(task, kernel, text, lower, why)
    return _one_alpha(task, kernel, text, lower)


def _exact(task: KernelTask, kernel: Any, text: str, lower: Array, why: str) -> KernelFit:
    rows = task.source
    weights = rows.weights
    if weights is not None and rows.counts:
        weights = weights.astype(np.int64)
    source = KernelSource(
        lower, rows.y, weights, centre=task.fit_intercept, target_names=rows.target_names, keys=rows.keys()
    )
    problem = make_problem(
        source, fit_intercept=task.fit_intercept, standardize=False, penalty=None, prior=None
    )
    plan = None if task.rule is None else task.rule.plan(source)
    run = Run(problem, task.rule, task.fixed, plan, task.per_target, task.alpha_scale, 1e-10, "exact")
    fit = run.fit(KernelSolver(), why)
    a, b = source.dual(fit.coef, fit.intercept, fit.alpha)
    return _result(task, kernel, text, fit, task.X, a, b, source.dual, "exact")


def _result(
    task: KernelTask,
    kernel: Any,
    text: str,
    fit: Fit,
    centers: Array,
    a: Array,
    b: Array,
    dual: Callable[[Array, Array, Array], tuple[Array, Array]],
    solver: str,
) -> KernelFit:
    """Return the result for a fit in other coordinates, which `dual` turns into (a, b)."""
    inner = fit.path

    def solve(alphas: Array) -> tuple[Array, Array]:
        coef, intercept = inner.solved or inner.solve(alphas)  # type: ignore[misc]
        return dual(coef, intercept, np.broadcast_to(alphas[:, None], intercept.shape))

    small = len(inner.alphas) * a.size <= KEPT_PATH
    path = replace(inner, solved=solve(inner.alphas) if small else None, solve=None if small else solve)
    return KernelFit(
        kernel=kernel,
        centers=centers,
        dual_coef=a,
        intercept=b,
        alpha=fit.alpha,
        df=fit.df,
        rule=fit.rule,
        rule_text=fit.rule_text,
        kernel_text=text,
        path=path,
        certificate=fit.certificate,
        status=fit.status,
        solver=solver,
        solver_reason=fit.solver_reason,
        objective=task.objective,
        n_rows=fit.n_rows,
        sum_weights=fit.sum_weights,
        rss=fit.deviance,
        null_rss=fit.null_deviance,
        cv_mse=fit.cv_deviance,
        target_names=task.source.target_names,
    )


def _given(alpha: Array, df: Array, a: Array, b: Array) -> Path:
    """Return the path of given alphas."""
    unique, index = np.unique(alpha, return_inverse=True)
    if len(unique) == 1:
        return Path(unique, df[:1], None, None, index, solved=(a[None], b[None]))
    first = [int(np.argmax(index == i)) for i in range(len(unique))]
    return Path(unique, df[first], None, None, index)


def _one_alpha(task: KernelTask, kernel: Any, text: str, lower: Array) -> KernelFit:
    source, alpha = task.source, task.alpha
    found = solve_dual(
        lower,
        source.y,
        source.weights,
        alpha,
        centre=task.fit_intercept,
        method=task.solver,
        tol=task.tol or TOL,
        seed=task.seed,
    )
    w = np.ones(len(task.X)) if source.weights is None else source.weights
    W = float(w.sum())
    mean = (w @ source.y) / W if task.fit_intercept else np.zeros(len(alpha))
    size = np.linalg.norm(source.y - mean, axis=0)
    residual, fitted = dual_residual(lower, source.y, w, alpha, found.a, found.b)
    worst = relative_residual(residual, size)
    condition = float((found.largest + alpha.max()) / alpha.min())
    digits = dual_digits(worst, size, alpha, found.a, w, condition)
    return KernelFit(
        kernel=kernel,
        centers=task.X,
        dual_coef=found.a,
        intercept=found.b,
        alpha=alpha,
        df=found.df,
        rule="fixed",
        rule_text="given",
        kernel_text=text,
        path=_given(alpha, found.df, found.a, found.b),
        certificate=Certificate(worst, "rows", float(np.sqrt(condition)), digits, 0),
        status=(),
        solver=found.method,
        solver_reason=f"{found.why}; {found.steps} steps" if found.steps else found.why,
        objective=task.objective,
        n_rows=int(np.count_nonzero(w)),
        sum_weights=W,
        rss=np.asarray(w @ (source.y - fitted) ** 2),
        null_rss=np.asarray(w @ (source.y - mean) ** 2),
        cv_mse=None,
        target_names=source.target_names,
    )


def _nystrom(task: KernelTask, kernel: Any, text: str) -> KernelFit:
    if isinstance(kernel, Precomputed):
        raise InputError(
            "solver='nystrom' evaluates the kernel itself; kernel='precomputed' leaves no way to."
        )
    n, source = len(task.X), task.source
    m = task.n_centers if task.n_centers is not None else min(n, max(100, int(np.ceil(5 * np.sqrt(n)))))
    centers = pick_centers(source, m, task.seed)
    map = NystromMap.of(kernel, centers)
    if task.rule is not None or m < MANY_CENTERS or np.any(task.alpha == 0):
        given = task.fixed if task.fixed is None or len(np.unique(task.fixed)) > 1 else task.fixed[:1]
        fit = fit_source(
            map.source(source),
            task.rule if given is None else given,
            fit_intercept=task.fit_intercept,
            alpha_per_target=task.per_target,
            alpha_scale=task.alpha_scale,
            tol=task.tol or NYSTROM_TOL,
        )

        def dual(coef: Array, intercept: Array, alpha: Array) -> tuple[Array, Array]:  # noqa: ARG001
            return map.dual(coef), intercept

        text_of = f"{m:,} centres, {map.root.shape[1]:,} features; {fit.solver}: {fit.solver_reason}"
        fit = replace(fit, solver_reason=text_of)
        return _result(task, kernel, text, fit, centers, map.dual(fit.coef), fit.intercept, dual, "nystrom")
    alpha = task.alpha
    found = solve_nystrom(source, map, alpha, centre=task.fit_intercept, tol=task.tol or NYSTROM_TOL)
    a, df = map.dual(found.coef), np.full(len(alpha), np.nan)
    return KernelFit(
        kernel=kernel,
        centers=centers,
        dual_coef=a,
        intercept=found.intercept,
        alpha=alpha,
        df=df,
        rule="fixed",
        rule_text="given",
        kernel_text=text,
        path=_given(alpha, df, a, found.intercept),
        certificate=found.certificate,
        status=(),
        solver="nystrom",
        solver_reason=f"{m:,} centres; conjugate gradients over blocks of rows, {found.steps} steps",
        objective=task.objective,
        n_rows=found.rows,
        sum_weights=found.weight,
        rss=found.rss,
        null_rss=found.null_rss,
        cv_mse=None,
        target_names=source.target_names,
    )
