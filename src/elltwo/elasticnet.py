"""Elastic net and lasso of a source: the same run as ridge, with the path of an L1 penalty."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.data.weights import weight_notes
from elltwo.engine import make_problem, rule_or_number
from elltwo.errors import InputError, enough_memory
from elltwo.problem import Problem
from elltwo.rescaling import OutOfReachError, scaled, unscaled
from elltwo.results import Fit
from elltwo.run import Run, Watch
from elltwo.selection import AIC, BIC, GCV, LOO, REML
from elltwo.solvers.coordinate import CoordinateSolver
from elltwo.solvers.proximal_state import ProximalSolver

Array = npt.NDArray[Any]


#: Share of the L1 penalty that "elastic net" means where none is given.
HALF = 0.5
#: What the models of these losses are called, after "lasso" or "elastic net".
_KINDS = {
    "gaussian": "",
    "binomial": " logistic",
    "poisson": " Poisson",
    "gamma": " Gamma",
    "tweedie": " Tweedie",
    "negative-binomial": " negative binomial",
    "huber": " Huber",
    "squared-hinge": " support vector",
    "squared-epsilon-insensitive": " support vector",
}


@dataclass(frozen=True)
class Solved:
    """How the chosen models were solved: relative duality gaps (T,), and passes or Newton steps."""

    gap: Array
    rounds: int


@enough_memory()
def fit_elastic_net(
    source: Source,
    alpha: Any = "kfold",
    *,
    l1_ratio: float,
    fit_intercept: bool = True,
    standardize: bool = False,
    penalty: Any = None,
    alpha_per_target: bool = False,
    alpha_scale: str = "sum",
    max_iter: int = 1000,
    tol: float = 1e-10,
    loss: Any = "gaussian",
    watch: Watch | None = None,
) -> tuple[Fit, Solved]:
    """Fit Σ wᵢ·½dev(yᵢ, ηᵢ) + α·[l1_ratio·Σ √dⱼ|θⱼ| + (1 − l1_ratio)/2·Σ dⱼθⱼ²], 0 < l1_ratio ≤ 1.

    Parameters are those of `elltwo.engine.fit_source`, alpha on the sum scale, and of `CoordinateSolver`
    (squared error) or `ProximalSolver` (any other loss that is not coupled).

    Raises
    ------
    InputError
        For data or arguments that cannot be used, alpha = 0 among them.
    """
    problem = make_problem(
        source, fit_intercept=fit_intercept, standardize=standardize, penalty=penalty, prior=None, loss=loss
    )
    rule, fixed = _rule_or_numbers(alpha, source.n_targets)
    plan = None if rule is None else rule.plan(source)
    run = Run(problem, rule, fixed, plan, alpha_per_target, alpha_scale, tol, None, watch=watch)
    solver, why = _solver(problem, l1_ratio, tol, max_iter)
    fit, solved = _fit(run, solver, why)
    text = fit.rule_text
    if isinstance(rule, LOO):
        text = text.replace("leave-one-out", "approximate leave-one-out (non-zero coefficients held)")
    fit = replace(
        fit,
        objective=_objective(fit.objective, l1_ratio),
        rule_text=text,
        model=_name(l1_ratio, problem.loss),
        status=(*fit.status, *weight_notes(source)),
    )
    return fit, solved


def _fit(run: Run, solver: Any, why: str) -> tuple[Fit, Solved]:
    """Return the fit and how it was solved, in other units where columns are too small to be squared."""
    try:
        context, _, _ = run.context(solver, "")
    except OutOfReachError as tiny:
        fit, solved = _fit(replace(run, problem=scaled(run.problem, tiny.unit)), solver, why)
        return unscaled(fit, tiny.unit), solved
    state: Any = context.state
    choice = run.choose(context)
    fit = run.finish(context, choice, solver, why)
    gap = np.array([state.gap(choice.alpha[[t]])[0, t] for t in range(run.problem.source.n_targets)])
    return fit, Solved(gap, max(state.rounds(t, float(a)) for t, a in enumerate(choice.alpha)))


def _solver(problem: Problem, l1_ratio: float, tol: float, max_iter: int) -> tuple[Any, str]:
    """Return the solver, and why it is that one."""
    if problem.squared:
        why = "an L1 penalty: active sets, all alphas from large to small"
        return CoordinateSolver(l1_ratio, tol, max_iter), why
    why = "an L1 penalty, another loss: Newton steps on active sets, from large alphas to small"
    return ProximalSolver(l1_ratio, tol, max_iter), why


def _rule_or_numbers(alpha: Any, n_targets: int) -> tuple[Any, Array | None]:
    """Return (rule, None) or (None, alphas (T,)); refuse rules that are not defined here."""
    rule, fixed = rule_or_number(alpha, n_targets, False)
    if fixed is not None and np.any(fixed == 0):
        raise InputError("alpha must be above 0 for an L1 penalty; Ridge and GLM take alpha=0, for none.")
    if isinstance(rule, REML):
        raise InputError("'reml' is defined for ridge only; use 'kfold', 'gcv', 'aic' or 'bic'.")
    if isinstance(rule, (GCV, AIC, BIC)) and n_targets > 1:
        raise InputError(
            f"'{rule.name}' needs the degrees of freedom, which differ between targets here; use "
            "'kfold', or fit one target at a time."
        )
    return rule, fixed


def _objective(ridge: str, ratio: float) -> str:
    """Return the objective in words, from that of ridge with the same penalty."""
    errors, rest = ridge.split(" + alpha * ", 1)
    term, end = rest.split("; ", 1)
    if ratio == 1:
        return f"1/2 {errors} + alpha * {term.replace('squared', 'absolute')}; {end}"
    mixed = f"({ratio:g} * {term.replace('squared', 'absolute')} + {(1 - ratio) / 2:g} * {term})"
    return f"1/2 {errors} + alpha * {mixed}; {end}"


def _name(ratio: float, loss: Any) -> str:
    """Return what the model is called."""
    kind = _KINDS.get(loss.name, f" {loss.name}")
    return f"Lasso (L1){kind}" if ratio == 1 else f"Elastic net (L1 and L2){kind}"
