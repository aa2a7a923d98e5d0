"""The width of a kernel, chosen by the same criterion as alpha."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block
from elltwo.errors import InputError
from elltwo.folds import FoldPass, FoldPlan
from elltwo.kernel_fitting.task import KernelTask
from elltwo.kernels import median_gamma
from elltwo.solvers.centers import take_rows
from elltwo.solvers.kernel_fit import KernelFit

Array = npt.NDArray[Any]
FitOne = Callable[[KernelTask, Any, str], KernelFit]

#: The search over a kernel's width: steps of this factor either way from the median distance, and how
#: finely log γ is refined between the best of them and its neighbours.
TUNE_FACTOR, TUNE_STEPS, TUNE_TOL = 4.0, 3, 0.05
#: Rows that a width is chosen on, a sample if there are more: for squared error, and for other losses.
TUNE_ROWS, TUNE_LOSS_ROWS = 2_000, 400
#: Rows of each class that such a sample holds at least, if there are as many.
OF_EACH = 10
#: Rows of a file that a width taken from the data is measured on.
SAMPLE = 10_000
#: Values of a target up to which they are taken for classes.
MOST_CLASSES = 50
#: Alphas for each power of ten while widths are compared, and where the search over a width stops then.
COARSE, COARSE_TOL = 1.5, 0.2


def criterion(fit: KernelFit) -> float:
    """Return the rule's criterion at what it chose, its mean over targets that vary; smaller is better."""
    score = fit.path.score
    assert score is not None
    chosen = score[fit.path.chosen]
    if chosen.ndim == 1:  # the targets share a score
        return float(chosen[0])
    varies = fit.target_scales > 0
    return float(np.mean(np.diagonal(chosen)[varies if varies.any() else slice(None)]))


def best_of(task: KernelTask, kernel: Any, values: list[Any], fit_one: FitOne) -> KernelFit:
    """Return the fit with the best of several widths.

    Raises
    ------
    InputError
        If there are no values, or no rule to choose with.
    """
    if not values:
        raise InputError(f"{kernel.scale} is an empty list; give at least one value.")
    needs_rule(task, kernel.scale)
    compared, where = _compared(task)
    kernels = [resolved(compared, replace(kernel, **{kernel.scale: v})) for v in values]
    fits = [fit_one(compared, one, "") for one in kernels]
    best = min(range(len(fits)), key=lambda i: criterion(fits[i]))
    how = f"{kernel.scale} chosen from {len(values)} values by the same criterion{where}"
    return _final(task, compared, fits[best], how, fit_one)


def resolved(task: KernelTask, kernel: Any) -> Any:
    """Return the kernel with its parameters as numbers; "scale" by the weighted variance of X."""
    value = None if kernel.scale is None else getattr(kernel, kernel.scale)
    if isinstance(value, str) and value == "scale":
        about = task.about
        means, scales = about.means, about.scales
        if task.standardize:
            means, scales = np.zeros_like(means), (scales > 0) * 1.0
        spread = float(np.mean(scales**2 + (means - means.mean()) ** 2)) * len(means)
        gamma = 1 / spread if spread > 0 else 1.0
        value = float(np.sqrt(0.5 / gamma)) if kernel.scale == "length_scale" else gamma
        kernel = replace(kernel, **{kernel.scale: value})
    measures = isinstance(value, str) or value is None
    return kernel.resolve(task.sample(SAMPLE) if measures else np.zeros((1, task.source.n_features)))


def tuned(task: KernelTask, kernel: Any, fit_one: FitOne) -> KernelFit:
    """Return the fit at the best width: a coarse grid about the median distance, refined in log γ.

    Raises
    ------
    InputError
        If there is no rule to choose with.
    """
    from scipy.optimize import minimize_scalar

    needs_rule(task, kernel.scale)
    compared, where = _compared(task)
    X = compared.sample(SAMPLE)
    start = median_gamma(X)
    if kernel.scale == "length_scale":
        start = float(np.sqrt(0.5 / start))
    step = float(np.log(TUNE_FACTOR)) / (2 if kernel.scale == "length_scale" else 1)
    known: dict[float, float] = {}
    best: list[KernelFit] = []

    def score(t: float) -> float:
        if t not in known:
            one = replace(kernel, **{kernel.scale: start * float(np.exp(t))}).resolve(X)
            fit = fit_one(compared, one, "")
            known[t] = criterion(fit)
            if known[t] <= min(known.values()):
                best[:] = [fit]
        return known[t]

    grid = [step * k for k in range(-TUNE_STEPS, TUNE_STEPS + 1)]
    at = min(grid, key=score)
    tol = TUNE_TOL if task.squared else COARSE_TOL
    minimize_scalar(score, bounds=(at - step, at + step), method="bounded", options={"xatol": tol * step})
    how = f"{kernel.scale} tuned by the same criterion{where}, {len(known)} values tried"
    if abs(at) >= grid[-1]:
        how += "; the best is at the end of the range that was searched"
    return _final(task, compared, best[0], how, fit_one)


def needs_rule(task: KernelTask, name: str) -> None:
    """Raise InputError unless a rule chooses alpha."""
    if task.rule is None:
        raise InputError(
            f"choosing {name} needs a criterion, and alpha is a number. Use a rule: alpha='loo', "
            "or alpha=LOO(alphas=[…]) to keep to alphas of your own."
        )


def _final(task: KernelTask, compared: KernelTask, best: KernelFit, how: str, fit_one: FitOne) -> KernelFit:
    """Return the best fit, made anew where it was of a sample of the rows or of the alphas."""
    if compared is task:
        return replace(best, kernel_text=how)
    return fit_one(task, best.kernel, how)


def _compared(task: KernelTask) -> tuple[KernelTask, str]:
    """Return the task that widths are compared on, and how to say so: the whole, or a sample of its rows."""
    most = TUNE_ROWS if task.squared else TUNE_LOSS_ROWS
    if task.n <= most:
        return (task if task.squared else replace(task, per_decade=COARSE, watch=None)), ""
    index = _sample(task, most)
    plan = None if task.plan is None else _plan_of(task.plan, index, task.n)
    solver = "exact" if task.solver in ("auto", "exact", "nystrom") else task.solver
    small = replace(
        task,
        source=take_rows(task.scaled, index),
        standardize=False,
        solver=solver,
        n_centers=None,
        centers="uniform",
        tol=None,
        given_plan=plan,
        per_decade=COARSE,
        watch=None,
    )
    return small, f" on {len(index):,} of the rows"


def _sample(task: KernelTask, most: int) -> Array:
    """Return numbers of rows, ascending: an even draw, with some of every class."""
    rng = np.random.default_rng([task.seed, 2])
    index = rng.choice(task.n, most, replace=False)
    if task.loss.link not in ("logit", "softmax", "margin"):
        return np.sort(index)
    y = np.concatenate([block.y for block in task.source.blocks()])
    code = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0]
    values = np.unique(code)
    if len(values) > MOST_CLASSES:
        return np.sort(index)
    more = [rng.permutation(np.flatnonzero(code == value))[:OF_EACH] for value in values]
    return np.unique(np.concatenate([index, *more]))


def _plan_of(plan: FoldPlan, index: Array, n: int) -> FoldPlan:
    """Return the folds of some rows; folds whose training or test rows are not among them are left out."""
    passes = []
    for one in plan.passes:
        label = np.asarray(one.labels(Block(np.zeros((n, 0)), np.zeros((n, 1)), None, 0)))[index]
        there = set(np.unique(label).tolist())
        folds = tuple(f for f in one.folds if there & set(f[0]) and there & set(f[1]))

        def labels(block: Block, label: Array = label) -> Array:
            return np.asarray(label[block.start : block.stop])

        if folds:
            passes.append(FoldPass(labels, one.n_atoms, folds))
    return FoldPlan(tuple(passes), plan.shared)
