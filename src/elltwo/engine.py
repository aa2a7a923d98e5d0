"""The straight line from rows to a fit: Source → Problem → Solver → Path → Rule → Fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, one_blas_thread
from elltwo.data.base import Block, BlockwiseSource, Source
from elltwo.diagnostics import Optimum, correct_digits, refine
from elltwo.errors import InputError, Status, did_you_mean
from elltwo.folds import FoldPass, FoldPlan
from elltwo.moments import Moments
from elltwo.penalties import as_penalty
from elltwo.problem import Problem, explain_not_finite
from elltwo.results import Certificate, Fit, Path
from elltwo.selection import (
    GCV,
    LOO,
    REML,
    Context,
    KFold,
    Rule,
    Scores,
    as_rule,
    best_index,
    check_alphas,
    held_out_errors,
    interpolated,
    merge,
    spectrum_grid,
)
from elltwo.selection import refine as refine_alpha
from elltwo.solvers.auto import choose, escalate
from elltwo.solvers.base import State, intercepts, targets_as_given
from elltwo.solvers.cholesky import Cholesky, NotPositiveDefinite
from elltwo.solvers.spectral import SpectralSolver

Array = npt.NDArray[Any]

#: Largest u·κ̂² at the smallest alpha of a path for which squared data still give every score to
#: about ten digits; beyond it rows in memory are factorised orthogonally.
PATH_LOSS = 1e-11
#: The same where the orthogonal factorisation costs next to nothing: up to so many n·p².
CHEAP_LOSS, CHEAP_WORK = 1e-14, 1e8
#: The same for rows that would have to be read again from disk, at the chosen alpha.
STREAM_LOSS = 1e-4
#: Coefficients of a whole path are computed at once up to this many; a longer path computes them when
#: asked, and for that holds on to its factorisation (and, with p ≥ n, to the rows).
KEPT_PATH = 1 << 20
#: Rows on disk are read again for the certificate if there are at most so many numbers in them, or if
#: the moments alone would leave an error above `tol`.
CHEAP_REREAD = 1 << 22
#: Targets with an alpha of their own beyond this many keep the grid's alphas unrefined.
REFINED_TARGETS = 16
ALPHA_SCALES = ("sum", "mean")


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

    Raises
    ------
    InputError
        For data or arguments that cannot be used.
    """
    problem = make_problem(
        source, fit_intercept=fit_intercept, standardize=standardize, penalty=penalty, prior=prior
    )
    rule, fixed = _rule_or_number(alpha, source.n_targets, alpha_per_target)
    plan = None if rule is None else rule.plan(source)
    one_alpha = fixed is not None and len(np.unique(fixed)) == 1
    chosen, why = choose(problem, solver, one_alpha=one_alpha)
    run = _Run(problem, rule, fixed, plan, alpha_per_target, alpha_scale, tol, solver)
    return run.fit(chosen, why)


def held_out(source: Source, alphas: Array, *, fit_intercept: bool = True, solver: str = "auto") -> Array:
    """Return the leave-one-out errors yᵢ − ŷ₋ᵢ of every row at each alpha, shape (n, A, T)."""
    problem = make_problem(source, fit_intercept=fit_intercept, standardize=False, penalty=None, prior=None)
    chosen, why = choose(problem, solver, one_alpha=False)
    run = _Run(problem, LOO(alphas), None, None, False, "sum", 1e-10, solver)
    return held_out_errors(run.context(chosen, why)[0], alphas)[0]


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
) -> Fit:
    """Fit moments gathered earlier, one per batch of rows.

    K-fold leaves out one atom at a time. LOO needs the rows, which are gone; GCV replaces it and the
    status says so.
    """
    source = _NoRows(tuple(feature_names), tuple(target_names))
    problem = make_problem(
        source, fit_intercept=fit_intercept, standardize=standardize, penalty=penalty, prior=prior
    )
    if problem.prior is not None:
        centre = atoms[0].x_mean if fit_intercept else np.zeros(source.n_features)
        problem = replace(problem, centre=centre)
        atoms = [atom.less(problem.prior_column, centre) for atom in atoms]
    rule, fixed = _rule_or_number(alpha, source.n_targets, alpha_per_target)
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
    run = _Run(problem, rule, fixed, plan, alpha_per_target, alpha_scale, tol, None, notes)
    return run.fit(SpectralSolver(), "works on moments alone", list(atoms))


def make_problem(
    source: Source, *, fit_intercept: bool, standardize: bool, penalty: Any, prior: Any
) -> Problem:
    """Return the problem for the arguments that estimators and `fit_source` share."""
    return Problem(
        source=source,
        penalty=as_penalty(penalty, standardize=standardize),
        prior=None if prior is None else np.asarray(prior, dtype=np.float64),
        fit_intercept=fit_intercept,
    )


class _NoRows(BlockwiseSource):
    """A source whose rows are gone: only their moments were kept."""

    in_memory = False
    counts = False
    weighted = False
    n_rows: int | None = None

    def __init__(self, feature_names: tuple[str, ...], target_names: tuple[str, ...]) -> None:
        self.feature_names, self.target_names = feature_names, target_names
        self.n_features, self.n_targets = len(feature_names), len(target_names)

    def blocks(self) -> Iterator[Block]:
        """Yield nothing."""
        return iter(())

    def keys(self) -> None:
        """Return None."""


def _rule_or_number(alpha: Any, n_targets: int, per_target: bool) -> tuple[Rule | None, Array | None]:
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


@dataclass(frozen=True)
class _Choice:
    """The alpha of each target, and the path it was chosen from."""

    alpha: Array
    path: Path
    text: str
    mse: Array | None
    notes: tuple[Status, ...]


@dataclass(frozen=True)
class _Run:
    """One fit, from its checked arguments to the result."""

    problem: Problem
    rule: Rule | None
    fixed: Array | None
    plan: FoldPlan | None
    per_target: bool
    alpha_scale: str
    tol: float
    solver: str | None
    notes: tuple[Status, ...] = ()

    def __post_init__(self) -> None:
        if self.alpha_scale not in ALPHA_SCALES:
            hint = did_you_mean(str(self.alpha_scale), ALPHA_SCALES)
            raise InputError(f"alpha_scale must be 'sum' or 'mean'; got {self.alpha_scale!r}.{hint}")
        if not (np.isfinite(self.tol) and self.tol > 0):
            raise InputError(f"tol must be a positive number; got {self.tol!r}.")

    def fit(self, solver: Any, why: str, atoms: list[Any] | None = None) -> Fit:
        """Read the rows, choose alpha, refine, certify; switch to an orthogonal method where needed."""
        context, solver, why = self.context(solver, why, atoms)
        choice = self._choose(context)
        if self._must_switch(context.state, float(choice.alpha.min()), chosen=True):
            solver, why = escalate(self.problem, solver, _condition(context.state, float(choice.alpha.min())))
            context = self._read(solver, None)
            choice = self._choose(context)
        form = self.problem.form(context.statistic.x_scale)
        optimum = Optimum(self.problem, context.statistic, context.state, form, choice.alpha)
        return self._finish(optimum, choice, solver, why)

    def context(self, solver: Any, why: str, atoms: list[Any] | None = None) -> tuple[Context, Any, str]:
        """Read the rows with a solver that keeps its digits at the smallest alpha to be tried."""
        context = self._read(solver, atoms)
        smallest = self._smallest_alpha(context)
        if self._must_switch(context.state, smallest):
            solver, why = escalate(self.problem, solver, _condition(context.state, smallest))
            context = self._read(solver, None)
        return context, solver, why

    def _read(self, solver: Any, atoms: list[Any] | None) -> Context:
        """Return the statistics of all rows and of the first pass's atoms, and the state."""
        if atoms is None:
            shared = self.plan is not None and self.plan.shared
            step = self.plan.passes[0] if self.plan is not None and shared else None
            alone = nullcontext() if self.problem.source.in_memory else one_blas_thread()
            with alone, np.errstate(invalid="ignore", over="ignore"):
                atoms = solver.gather(self.problem, *((step.labels, step.n_atoms) if step else (None, 1)))
            if not atoms:
                raise InputError("the data have no rows.")
        with np.errstate(invalid="ignore", over="ignore"):
            statistic = merge(atoms)
            finite = np.isfinite(statistic.x_scale).all() and np.isfinite(statistic.y_scale).all()
        if not finite:
            raise explain_not_finite(self.problem.source)
        if self.rule is not None and statistic.rows < 2:
            raise InputError(
                "choosing alpha needs at least 2 rows; there is 1 (n_samples=1). "
                "Add rows, or give a number as alpha."
            )
        form = self.problem.form(statistic.x_scale)
        state = solver.state(statistic, form, self.problem.fit_intercept)
        return Context(self.problem, solver, statistic, state, atoms, self.plan)

    def _scale(self, context: Context) -> float:
        return context.statistic.weight if self.alpha_scale == "mean" else 1.0

    def _grid(self, context: Context) -> Array:
        """Return the alphas to try, on the sum scale."""
        assert self.rule is not None
        if self.rule.alphas is not None:
            return check_alphas(self.rule.alphas, positive=isinstance(self.rule, REML)) * self._scale(context)
        return spectrum_grid(context.state)

    def _smallest_alpha(self, context: Context) -> float:
        if self.fixed is not None:
            return float(self.fixed.min()) * self._scale(context)
        return float(self._grid(context).min())

    def _must_switch(self, state: State, alpha: float, *, chosen: bool = False) -> bool:
        """Return whether squaring the data costs too many digits at this alpha, and we may do otherwise."""
        condition = _condition(state, alpha)
        if np.isinf(state.condition_limit) or self.solver is None:
            return False
        if self.solver != "auto":
            if (chosen or self.fixed is not None) and condition > state.condition_limit:
                raise InputError(
                    f"solver '{self.solver}' squares the data and would lose the answer at "
                    f"alpha = {alpha:g}: columns nearly repeat each other. Use solver='auto', 'orthogonal', "
                    "or a larger alpha."
                )
            return False
        if not self.problem.source.in_memory:
            return (chosen or self.fixed is not None) and ROUNDOFF * condition > STREAM_LOSS
        if self.fixed is not None:
            return condition > state.condition_limit
        cheap = state.statistic.rows * float(self.problem.source.n_features) ** 2 <= CHEAP_WORK
        return ROUNDOFF * condition > (CHEAP_LOSS if cheap else PATH_LOSS)

    def _choose(self, context: Context) -> _Choice:
        if self.rule is None:
            assert self.fixed is not None
            alpha = self.fixed * self._scale(context)
            unique, index = np.unique(alpha, return_inverse=True)
            path = self._path(context, unique, None, index)
            return _Choice(alpha, path, "given", None, ())
        grid = self._grid(context)
        criterion = self.rule.criterion(context)
        scores = criterion(grid)
        if self.rule.alphas is None and not self.rule.one_se:
            grid, scores = self._refined(grid, scores, criterion)
        value, se = self._pooled(scores)
        chosen = np.array(
            [
                best_index(value[:, t], None if se is None else se[:, t], grid, self.rule.one_se)
                for t in range(value.shape[1])
            ]
        )
        index = np.broadcast_to(chosen, (self.problem.source.n_targets,))
        path = self._path(context, grid, scores, index)
        squared = isinstance(self.rule, (LOO, KFold)) and self.rule.scoring is None
        mse = scores.value[index, np.arange(len(index))] if squared else None
        lowest = np.array([best_index(value[:, t], None, grid, False) for t in range(value.shape[1])])
        edge = self._edges(grid, lowest)
        return _Choice(grid[index], path, self._text(grid, edge), mse, edge)

    def _pooled(self, scores: Scores) -> tuple[Array, Array | None]:
        """Return scores per choice to be made: (A, T) for an alpha per target, else their mean (A, 1)."""
        if self.per_target:
            return scores.value, scores.se
        se = None if scores.se is None else scores.se.mean(axis=1, keepdims=True)
        return scores.value.mean(axis=1, keepdims=True), se

    def _refined(
        self, grid: Array, scores: Scores, criterion: Callable[[Array], Scores]
    ) -> tuple[Array, Scores]:
        """Return grid and scores with the refined optimum of each choice put in its place."""
        value, _ = self._pooled(scores)
        if value.shape[1] > REFINED_TARGETS:
            return grid, scores
        best = [best_index(value[:, t], None, grid, False) for t in range(value.shape[1])]
        found = [refine_alpha(grid, value[:, t], i) for t, i in enumerate(best)]
        extra = np.setdiff1d(found, grid)
        if len(extra) == 0:
            return grid, scores
        costly = isinstance(self.rule, LOO) and not self.problem.source.in_memory
        more = interpolated(grid, scores, extra) if costly else criterion(extra)
        order = np.argsort(np.concatenate([grid, extra]))
        se = None if scores.se is None or more.se is None else np.concatenate([scores.se, more.se])[order]
        return np.concatenate([grid, extra])[order], Scores(
            np.concatenate([scores.value, more.value])[order], se
        )

    def _path(self, context: Context, alphas: Array, scores: Scores | None, chosen: Array) -> Path:
        value, se = (None, None) if scores is None else self._pooled(scores)
        if not self.per_target and value is not None:
            value, se = value[:, 0], None if se is None else se[:, 0]
        state = context.state

        def solve(at: Array) -> tuple[Array, Array]:
            coef = state.coef(at)
            return self.problem.restore(coef, intercepts(context.statistic, coef, self.problem.fit_intercept))

        size = len(alphas) * self.problem.source.n_features * self.problem.source.n_targets
        solved, later = (solve(alphas), None) if size <= KEPT_PATH else (None, solve)
        return Path(alphas, state.df(alphas), value, se, chosen, solved, later)

    def _edges(self, grid: Array, index: Array) -> tuple[Status, ...]:
        if len(grid) == 1:
            return ()
        notes = []
        if np.any(grid[index] == grid.min()):
            notes.append(Status.EDGE_LOW)
        if np.any(grid[index] == grid.max()):
            notes.append(Status.EDGE_HIGH)
        return tuple(notes)

    def _text(self, grid: Array, edge: tuple[Status, ...]) -> str:
        assert self.rule is not None
        where = "optimum inside the grid" if not edge else "optimum on the edge of the grid"
        if len(grid) == 1:
            where = "nothing to choose from"
        how = "given" if self.rule.alphas is not None else "automatic"
        span = f"{grid.min():.3g} to {grid.max():.3g}"
        text = f"{self.rule.describe()} over {len(grid)} alphas ({how}, {span}); {where}"
        return text + ("; largest alpha within one standard error of the best" if self.rule.one_se else "")

    def _finish(self, optimum: Optimum, choice: _Choice, solver: Any, why: str) -> Fit:
        problem, statistic = self.problem, optimum.statistic
        condition = max(_sharp_condition(optimum, a) for a in np.unique(choice.alpha))
        loss = ROUNDOFF * condition
        gone = isinstance(problem.source, _NoRows)
        few = statistic.rows * problem.source.n_features <= CHEAP_REREAD
        on_rows = not gone and (problem.source.in_memory or few or loss > self.tol)
        solution = refine(optimum, on_rows=on_rows, tol=self.tol)
        digits = correct_digits(optimum, solution) if on_rows else float(np.clip(-np.log10(loss), 0.0, 15.9))
        certificate = Certificate(
            residual=solution.residual,
            measured_on=solution.measured_on,
            condition=float(np.sqrt(condition)),
            digits=digits,
            refinements=solution.refinements,
        )
        source = problem.source
        target_means, target_scales = targets_as_given(problem, statistic)
        return Fit(
            coef=solution.coef,
            intercept=solution.intercept,
            alpha=choice.alpha,
            df=optimum.state.df(choice.alpha),
            rule="fixed" if self.rule is None else self.rule.name,
            rule_text=choice.text,
            path=choice.path,
            certificate=certificate,
            status=self._status(optimum, choice, certificate),
            solver=solver.name,
            solver_reason=why,
            objective=problem.objective(),
            n_rows=statistic.rows,
            rows_dropped=int(getattr(source, "rows_dropped", 0)),
            n_observations=statistic.observations,
            sum_weights=statistic.weight,
            weights="counts" if source.counts else "precisions" if source.weighted else "none",
            feature_names=source.feature_names,
            target_names=source.target_names,
            feature_means=statistic.x_mean,
            feature_scales=statistic.x_scale,
            target_means=target_means,
            target_scales=target_scales,
            standardize=hasattr(problem.penalty, "base"),
            fit_intercept=problem.fit_intercept,
            rss=solution.rss,
            cv_mse=choice.mse,
        )

    def _status(self, optimum: Optimum, choice: _Choice, certificate: Certificate) -> tuple[Status, ...]:
        notes = [*self.notes, *choice.notes]
        constant = optimum.statistic.x_scale == 0
        if self.problem.fit_intercept and constant.any():
            notes.append(Status.CONSTANT_COLUMNS)
        if np.any(choice.alpha == 0) and getattr(optimum.state, "rank", constant.size) < np.sum(~constant):
            notes.append(Status.RANK_DEFICIENT)
        lost = ROUNDOFF * certificate.condition**2 > PATH_LOSS
        if self.solver == "auto" and lost and np.isinf(optimum.state.condition_limit):
            notes.append(Status.ORTHOGONAL)
        if certificate.digits < 6:
            notes.append(Status.LOST_DIGITS)
        if certificate.measured_on == "moments":
            notes.append(Status.MOMENTS_ONLY)
        return tuple(notes)


def _condition(state: State, alpha: float) -> float:
    """Return κ̂² of G + αP as the state sees it; infinite if it cannot be factorised."""
    try:
        return state.condition(alpha)
    except NotPositiveDefinite:
        return float("inf")


def _sharp_condition(optimum: Optimum, alpha: float) -> float:
    """Return κ̂² of the column-scaled matrix where its Gram is at hand, else the state's own."""
    own = _condition(optimum.state, alpha)
    if not isinstance(optimum.statistic, Moments) or isinstance(optimum.state, Cholesky):
        return own
    gram, _, _ = optimum.statistic.about(optimum.problem.fit_intercept)
    matrix = gram + alpha * optimum.form.matrix()
    scale = np.sqrt(np.where(matrix.diagonal() > 0, matrix.diagonal(), 1.0))
    values = np.linalg.eigvalsh(matrix / scale / scale[:, None])
    values = values[values != 0] if alpha == 0 else values
    return min(own, float(values[-1] / values[0])) if values[0] > 0 else own
