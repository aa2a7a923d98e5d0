"""The straight line from rows to a fit: Source → Problem → Solver → Path → Rule → Fit.

`fit_source` fits any source of rows, `fit_moments` statistics that were gathered earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource, Source
from elltwo.data.weights import WEIGHTS_ARE, weight_notes
from elltwo.errors import InputError, Status, enough_memory
from elltwo.folds import FoldPass, FoldPlan
from elltwo.losses import as_loss
from elltwo.moments import Moments
from elltwo.penalties import as_numbers, as_penalty
from elltwo.problem import Problem
from elltwo.results import Fit
from elltwo.run import Run, Watch
from elltwo.selection import (
    GCV,
    LOO,
    KFold,
    Rule,
    as_rule,
    check_alphas,
    held_out_errors,
)
from elltwo.solvers.auto import choose, limited
from elltwo.solvers.spectral import SpectralSolver

Array = npt.NDArray[Any]


@enough_memory()
def fit_source(
    source: Source,
    alpha: Any = "loo",
    *,
    fit_intercept: bool = True,
    standardize: bool = False,
    penalty: Any = None,
    prior: Any = None,
    alpha_per_target: bool = False,
    alpha_scale: str = "sum",
    solver: str = "auto",
    tol: float = 1e-10,
    loss: Any = "gaussian",
    max_iter: int | None = None,
    watch: Watch | None = None,
) -> Fit:
    """Fit the L2-regularised linear model of a source.

    Parameters
    ----------
    source : Source
        The rows.
    alpha : float, array of shape (T,), str or rule
        A number is used as it is; a rule chooses.
    fit_intercept : bool
        Whether b is free; it is never penalised.
    standardize : bool
        Penalise the coefficients of standardised columns: P = diag(sⱼ²).
    penalty : None, array (p,), array (p, p) or penalty object
        Multipliers (0 = unpenalised), a Tikhonov matrix P, or None for the identity.
    prior : array, shape (p,), optional
        θ₀, towards which the coefficients shrink.
    alpha_per_target : bool
        Choose an alpha for each target, rather than one for all.
    alpha_scale : {"sum", "mean"}
        "mean" reads alpha as the λ of MSE + λ‖θ‖², so that α = Σw·λ.
    solver : str
        "auto" or a solver's name.
    tol : float
        Largest relative step of iterative refinement that may be left untaken.
    loss : str or Loss
        A family's name or a loss object.
    max_iter : int, optional
        Most rounds of an iterative solver for each alpha; by default its own limit.
    watch : callable, optional
        Called with the targets (m, T), the η (m, T) and the weights (m,) of held-out rows, part by part, at
        the chosen alpha, if the rule holds rows out ("loo", "kfold"). Leave-one-out holds the means of the
        targets at those of all rows: see `docs/selection.md`.

    Raises
    ------
    InputError
        For data or arguments that cannot be used.
    """
    problem = make_problem(
        source, fit_intercept=fit_intercept, standardize=standardize, penalty=penalty, prior=prior, loss=loss
    )
    rule, fixed = rule_or_number(alpha, source.n_targets, alpha_per_target)
    if problem.loss.coupled and fixed is not None and len(np.unique(fixed)) > 1:
        raise InputError("alpha has a value for each class, but the classes are one model; give one number.")
    plan = None if rule is None else rule.plan(source)
    one_alpha = fixed is not None and len(np.unique(fixed)) == 1
    chosen, why = choose(problem, solver, one_alpha=one_alpha)
    chosen = limited(chosen, max_iter)
    run = Run(problem, rule, fixed, plan, alpha_per_target, alpha_scale, tol, solver, watch=watch)
    fit = run.fit(chosen, why)
    return replace(fit, status=(*fit.status, *weight_notes(source)))


def held_out(source: Source, alphas: Array, *, fit_intercept: bool = True, solver: str = "auto") -> Array:
    """Return the leave-one-out errors yᵢ − ŷ₋ᵢ of every row at each alpha, shape (n, A, T)."""
    problem = make_problem(source, fit_intercept=fit_intercept, standardize=False, penalty=None, prior=None)
    chosen, why = choose(problem, solver, one_alpha=False)
    run = Run(problem, LOO(alphas), None, None, False, "sum", 1e-10, solver)
    return held_out_errors(run.context(chosen, why)[0], alphas)


@enough_memory()
def fit_moments(
    atoms: Sequence[Moments],
    alpha: Any,
    *,
    feature_names: Sequence[str],
    target_names: Sequence[str],
    fit_intercept: bool = True,
    standardize: bool = False,
    penalty: Any = None,
    prior: Any = None,
    alpha_per_target: bool = False,
    alpha_scale: str = "sum",
    tol: float = 1e-10,
    weights: str = "none",
) -> Fit:
    """Fit moments gathered earlier, one per batch of rows.

    K-fold leaves out one atom at a time. LOO needs the rows, which are gone; GCV replaces it and the
    status says so. What weights were in the moments, "none", "analytic" or "frequency", is for the summary:
    how many observations there are the moments know.
    """
    source = _NoRows(tuple(feature_names), tuple(target_names), weights)
    problem = make_problem(
        source, fit_intercept=fit_intercept, standardize=standardize, penalty=penalty, prior=prior
    )
    if problem.prior is not None:
        centre = atoms[0].x_mean if fit_intercept else np.zeros(source.n_features)
        problem = replace(problem, centre=centre)
        atoms = [atom.less(problem.prior_column, centre) for atom in atoms]
    rule, fixed = rule_or_number(alpha, source.n_targets, alpha_per_target)
    notes: tuple[Status, ...] = ()
    if isinstance(rule, LOO):
        if rule.one_se or rule.scoring is not None:
            raise InputError(
                "leave-one-out with one_se or scoring needs the rows; partial_fit keeps only moments."
            )
        rule, notes = GCV(rule.alphas), (Status.RULE_REPLACED,)
    plan = None
    if isinstance(rule, KFold):
        if rule.scoring is not None:
            raise InputError(
                "KFold(scoring=…) needs the rows; partial_fit keeps only moments. Use scoring=None."
            )
        if len(atoms) < 2:
            rule, notes = GCV(rule.alphas), (Status.RULE_REPLACED,)
        else:
            k = len(atoms)
            folds = tuple((tuple(j for j in range(k) if j != i), (i,)) for i in range(k))
            plan = FoldPlan((FoldPass(lambda block: np.zeros(len(block.y)), k, folds),), shared=True)
    run = Run(problem, rule, fixed, plan, alpha_per_target, alpha_scale, tol, None, notes)
    return run.fit(SpectralSolver(), "works on moments alone", list(atoms))


def make_problem(
    source: Source,
    *,
    fit_intercept: bool,
    standardize: bool,
    penalty: Any,
    prior: Any,
    loss: Any = "gaussian",
) -> Problem:
    """Return the problem for the arguments that estimators and `fit_source` share."""
    return Problem(
        source=source,
        penalty=as_penalty(penalty, standardize=standardize),
        prior=None if prior is None else as_numbers(prior, "prior"),
        fit_intercept=fit_intercept,
        loss=as_loss(loss),
    )


class _NoRows(BlockwiseSource):
    """A source whose rows are gone: only their moments were kept."""

    in_memory = False
    n_rows: int | None = 0

    def __init__(self, feature_names: tuple[str, ...], target_names: tuple[str, ...], weights: str) -> None:
        self.counts, self.weighted = weights == WEIGHTS_ARE[True], weights != "none"
        self.feature_names, self.target_names = feature_names, target_names
        self.n_features, self.n_targets = len(feature_names), len(target_names)

    def blocks(self) -> Iterator[Block]:
        """Yield nothing."""
        return iter(())

    def keys(self) -> None:
        """Return None."""


def rule_or_number(alpha: Any, n_targets: int, per_target: bool) -> tuple[Rule | None, Array | None]:
    """Return (rule, None) or (None, alphas (T,))."""
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
