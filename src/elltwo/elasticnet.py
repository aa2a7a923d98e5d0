"""Elastic net and lasso of a source: the same run as ridge, with the coordinate solver's path."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.engine import make_problem
from elltwo.errors import InputError
from elltwo.results import Fit
from elltwo.run import Run
from elltwo.selection import AIC, BIC, GCV, LOO, REML, as_rule, check_alphas
from elltwo.solvers.coordinate import CoordinateSolver, CoordinateState

Array = npt.NDArray[Any]


#: Share of the L1 penalty that "elastic net" means where none is given.
HALF = 0.5


@dataclass(frozen=True)
class Solved:
    """How the chosen models were solved: relative duality gaps (T,), and passes over the features."""

    gap: Array
    rounds: int


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
) -> tuple[Fit, Solved]:
    """Fit ½Σ wᵢ(yᵢ − b − xᵢᵀθ)² + α·[l1_ratio·Σ √dⱼ|θⱼ| + (1 − l1_ratio)/2·Σ dⱼθⱼ²], 0 < l1_ratio ≤ 1.

    Parameters are those of `elltwo.engine.fit_source`, alpha on the sum scale, and of `CoordinateSolver`.

    Raises
    ------
    InputError
        For data or arguments that cannot be used, alpha = 0 among them.
    """
    problem = make_problem(
        source, fit_intercept=fit_intercept, standardize=standardize, penalty=penalty, prior=None
    )
    rule: Any = None
    fixed: Array | None = None
    if isinstance(alpha, str) or hasattr(alpha, "criterion"):
        rule = as_rule(alpha)
    else:
        fixed = _numbers_per_target(alpha, source.n_targets)
    if isinstance(rule, REML):
        raise InputError("'reml' is defined for ridge only; use 'kfold', 'gcv', 'aic' or 'bic'.")
    if isinstance(rule, (GCV, AIC, BIC)) and source.n_targets > 1:
        raise InputError(
            f"'{rule.name}' needs the degrees of freedom, which differ between targets here; use "
            "'kfold', or fit one target at a time."
        )
    plan = None if rule is None else rule.plan(source)
    run = Run(problem, rule, fixed, plan, alpha_per_target, alpha_scale, tol, None)
    solver = CoordinateSolver(l1_ratio, tol, max_iter)
    context, _, _ = run.context(solver, "")
    state: Any = context.state
    assert isinstance(state, CoordinateState)
    choice = run.choose(context)
    fit = run.finish(context, choice, solver, "an L1 penalty: active sets, all alphas from large to small")
    targets = range(source.n_targets)
    gap = np.array([state.gap(choice.alpha[[t]])[0, t] for t in targets])
    rounds = max(state.points(t, choice.alpha[[t]])[0].rounds for t in targets)
    text = fit.rule_text
    if isinstance(rule, LOO):
        text = text.replace("leave-one-out", "approximate leave-one-out (non-zero coefficients held)")
    name = "Lasso (L1)" if l1_ratio == 1 else "Elastic net (L1 and L2)"
    fit = replace(fit, objective=_objective(fit.objective, l1_ratio), rule_text=text, model=name)
    return fit, Solved(gap, rounds)


def _numbers_per_target(alpha: Any, n_targets: int) -> Array:
    values = check_alphas(alpha)
    if np.any(values == 0):
        raise InputError("alpha must be above 0 for an L1 penalty; without any penalty, fit Ridge(alpha=0).")
    if len(values) not in (1, n_targets):
        raise InputError(f"alpha has {len(values)} values for {n_targets} target(s); give one, or one each.")
    return np.broadcast_to(values, (n_targets,)).copy()


def _objective(ridge: str, ratio: float) -> str:
    """Return the objective in words, from that of ridge with the same penalty."""
    errors, rest = ridge.split(" + alpha * ", 1)
    term, end = rest.split("; ", 1)
    if ratio == 1:
        return f"1/2 {errors} + alpha * {term.replace('squared', 'absolute')}; {end}"
    mixed = f"({ratio:g} * {term.replace('squared', 'absolute')} + {(1 - ratio) / 2:g} * {term})"
    return f"1/2 {errors} + alpha * {mixed}; {end}"
