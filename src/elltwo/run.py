"""One fit, from its checked arguments to the result: read the rows, choose alpha, refine, certify."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, one_blas_thread
from elltwo.data.weights import meaning
from elltwo.diagnostics import Interpolation, Optimum, correct_digits, refine
from elltwo.errors import InputError, Status, did_you_mean, name_some
from elltwo.folds import FoldPlan
from elltwo.moments import Moments
from elltwo.problem import Problem
from elltwo.rescaling import OutOfReachError, look_for_tiny, scaled, unscaled
from elltwo.results import Certificate, Fit, Path
from elltwo.selection import (
    GCV,
    LOO,
    REML,
    Context,
    KFold,
    Rule,
    Scores,
    best_index,
    check_alphas,
    interpolated,
    merge,
    spectrum_grid,
)
from elltwo.selection import refine as refine_alpha
from elltwo.solvers.auto import escalate
from elltwo.solvers.base import Outcome, State, df_at, models, targets_as_given, unexplained
from elltwo.solvers.certificate import told
from elltwo.solvers.cholesky import Cholesky, NotPositiveDefinite

Array = npt.NDArray[Any]
#: What looks at held-out rows: targets (m, T), their η (m, T) by a model that did not see them, weights (m,).
Watch = Callable[[Array, Array, Array], None]

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
#: the moments alone would leave an error above `tol`; a source with `few_passes` only for the latter.
CHEAP_REREAD = 1 << 22
#: Targets with an alpha of their own beyond this many keep the grid's alphas unrefined.
REFINED_TARGETS = 16
ALPHA_SCALES = ("sum", "mean")
#: Smallest average weight; its inverse is the largest.
LIGHTEST = 1e-100
#: Below this κ̂², scaling the columns would not tell anything new.
WELL_CONDITIONED = 100.0
#: Decimal digits of float64.
MOST_DIGITS = 15.9
#: Standard deviations from here on overflow when they are squared and summed; NaN and inf are no smaller.
LARGEST = 1e150
#: Sizes of a target below which its squared errors underflow.
SMALLEST_TARGET = 1e-150


@dataclass(frozen=True)
class Choice:
    """The alpha of each target, and the path it was chosen from."""

    alpha: Array
    path: Path
    text: str
    cv_deviance: Array | None
    notes: tuple[Status, ...]
    criterion: Any = None


@dataclass(frozen=True)
class Run:
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
    watch: Watch | None = None

    def __post_init__(self) -> None:
        if self.alpha_scale not in ALPHA_SCALES:
            hint = did_you_mean(str(self.alpha_scale), ALPHA_SCALES)
            raise InputError(f"alpha_scale must be 'sum' or 'mean'; got {self.alpha_scale!r}.{hint}")
        if not isinstance(self.tol, (int, float, np.number)) or not (np.isfinite(self.tol) and self.tol > 0):
            raise InputError(f"tol must be a positive number; got {self.tol!r}.")
        if isinstance(self.rule, (GCV, REML)) and not self.problem.squared:
            raise InputError(
                f"'{self.rule.name}' is defined for squared error; for {self.problem.loss.name} loss "
                "use 'loo' or 'kfold'."
            )

    def fit(self, solver: Any, why: str, atoms: list[Any] | None = None) -> Fit:
        """Read the rows, choose alpha, refine, certify; switch to an orthogonal method where needed.

        Columns that are too small to be squared are fitted in other units.
        """
        try:
            context, solver, why = self.context(solver, why, atoms)
        except OutOfReachError as tiny:
            inside = replace(self, problem=scaled(self.problem, tiny.unit))
            return unscaled(inside.fit(solver, why), tiny.unit)
        choice = self.choose(context)
        if self._must_switch(context.state, float(choice.alpha.min()), chosen=True):
            solver, why = escalate(self.problem, solver, _condition(context.state, float(choice.alpha.min())))
            context = self._read(solver, None)
            choice = self.choose(context)
        return self.finish(context, choice, solver, why)

    def _show(self, watch: Watch, choice: Choice) -> None:
        """Show the predictions of held-out rows at the chosen alphas."""
        unique, index = np.unique(choice.alpha, return_inverse=True)
        for held in choice.criterion.predictions(unique):
            watch(held.y, held.eta[:, index, np.arange(len(index))], held.weights)

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
            largest = np.maximum(statistic.x_scale.max(), statistic.y_scale.max())  # NaN where one is
            finite = np.isfinite(statistic.x_mean).all() and np.isfinite(statistic.y_mean).all()
        if not (finite and largest < LARGEST):
            raise self.problem.source.why_not_finite()
        if self.problem.squared:
            _check_targets(self.problem, statistic)
        if not LIGHTEST <= statistic.weight / max(statistic.rows, 1) <= 1 / LIGHTEST:
            raise InputError(
                f"the weights average {statistic.weight / max(statistic.rows, 1):.3g}, so small or "
                "large that squares under- or overflow. Divide them, and alpha with them, by a constant."
            )
        if self.rule is not None and statistic.rows < 2:
            raise InputError(
                "choosing alpha needs at least 2 rows; there is 1 (n_samples=1). "
                "Add rows, or give a number as alpha."
            )
        if self.problem.source.n_rows != 0:  # their moments may be all that is left
            unpenalised = self.fixed is not None and not self.fixed.any()
            look_for_tiny(self.problem, statistic.x_mean, statistic.x_scale, unpenalised=unpenalised)
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
        return context.state.grid() if hasattr(context.state, "grid") else spectrum_grid(context.state)

    def _smallest_alpha(self, context: Context) -> float:
        if self.fixed is not None:
            return float(self.fixed.min()) * self._scale(context)
        return float(self._grid(context).min())

    def _must_switch(self, state: State, alpha: float, *, chosen: bool = False) -> bool:
        """Return whether squaring the data costs too many digits at this alpha, and we may do otherwise."""
        if np.isinf(state.condition_limit) or self.solver is None:
            return False
        condition = _condition(state, alpha)
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

    def choose(self, context: Context) -> Choice:
        """Return the alpha of each target and the path it was chosen from."""
        if self.rule is None:
            assert self.fixed is not None
            alpha = self.fixed * self._scale(context)
            state: Any = context.state
            if hasattr(state, "joint"):
                state.outcome(alpha, self.tol)  # the path then holds the model as it is returned
            unique, index = np.unique(alpha, return_inverse=True)
            path = self._path(context, unique, None, index)
            return Choice(alpha, path, "given", None, ())
        grid = self._grid(context)
        criterion = self.rule.criterion(context)
        scores = criterion(grid)
        undefined, telling = scores.undefined, self._telling(context, scores)
        if self.per_target and scores.value.shape[1] < self.problem.n_scores:
            raise InputError(
                "the scoring gives one score for all targets, and alpha_per_target=True needs one for each. "
                "Use alpha_per_target=False, or a scoring that looks at each target (for classes 'roc_auc')."
            )
        smooth = not hasattr(context.state, "grid")  # with an L1 part, scores have kinks between the alphas
        if self.rule.alphas is None and not self.rule.one_se and smooth:
            grid, scores = self._refined(grid, scores, criterion, telling)
        lowest = self._best(grid, scores, telling, one_se=False)
        best = self._best(grid, scores, telling, one_se=True) if self.rule.one_se else lowest
        chosen = np.full(scores.value.shape[1] if self.per_target else 1, int(np.argmax(grid)))
        chosen[telling if self.per_target else [True]] = best
        index = np.broadcast_to(chosen, (self.problem.source.n_targets,))
        path = self._path(context, grid, self._pooled(scores, telling), index)
        held_out = isinstance(self.rule, (LOO, KFold)) and self.rule.scoring is None
        each = np.arange(self.problem.n_scores)
        deviance = scores.value[index[each], each] if held_out else None
        notes = self._edges(grid, lowest)
        if self.rule.one_se and len(grid) > 1 and np.any(grid[best] == grid.max()) and not notes:
            notes = (Status.ONE_SE_EDGE,)
        text = self._text(grid, notes)
        if undefined:
            notes += (Status.UNDEFINED_FOLDS,)
            text += f"; {undefined} fold{'s' * (undefined > 1)} without a score left out"
        if not telling.all():
            notes += (Status.TARGET_WITHOUT_SAY,)
            names = [n for n, t in zip(self.problem.source.target_names, telling, strict=True) if not t]
            text += f"; without a say: {name_some(names)}"
        return Choice(grid[index], path, text, deviance, notes, criterion)

    def _telling(self, context: Context, scores: Scores) -> Array:
        """Return which columns of the scores say something on alpha, (S,): all of them if none does.

        A target that the intercept explains, or that has no score at any alpha, says nothing: its scores are
        zero, minus infinity, rounding noise or NaN, and pooled they would speak for the other targets.
        """
        telling = np.asarray(np.isfinite(scores.value).any(axis=0))
        if len(telling) == self.problem.source.n_targets > 1:
            telling &= unexplained(self.problem, context.statistic)
        return telling if telling.any() else np.ones_like(telling)

    def _pooled(self, scores: Scores, telling: Array) -> Scores:
        """Return scores per choice to be made: (A, T), or for one alpha the telling ones' mean (A, 1)."""
        if self.per_target:
            return scores

        def mean(values: Array) -> Array:
            return np.asarray(values[:, telling].mean(axis=1, keepdims=True))

        return Scores(mean(scores.value), None if scores.se is None else mean(scores.se))

    def _best(self, grid: Array, scores: Scores, telling: Array, *, one_se: bool) -> Array:
        """Return the grid's index of each choice to be made: for the telling targets, or one in all."""
        pooled = self._pooled(scores, telling)
        columns = np.flatnonzero(telling) if self.per_target else [0]
        return np.array(
            [
                best_index(pooled.value[:, t], None if pooled.se is None else pooled.se[:, t], grid, one_se)
                for t in columns
            ]
        )

    def _refined(
        self, grid: Array, scores: Scores, criterion: Callable[[Array], Scores], telling: Array
    ) -> tuple[Array, Scores]:
        """Return grid and scores with the refined optimum of each choice put in its place."""
        best = self._best(grid, scores, telling, one_se=False)
        if len(best) > REFINED_TARGETS:
            return grid, scores
        value = self._pooled(scores, telling).value
        value = value[:, telling] if self.per_target else value
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
        """Return the path of these alphas, with the scores of each choice that was made."""
        value, se = (None, None) if scores is None else (scores.value, scores.se)
        if not self.per_target and value is not None:
            value, se = value[:, 0], None if se is None else se[:, 0]
        state = context.state

        def solve(at: Array) -> tuple[Array, Array]:
            return self.problem.restore(*models(state, at, self.problem.fit_intercept))

        size = len(alphas) * self.problem.source.n_features * self.problem.source.n_targets
        solved, later = (solve(alphas), None) if size <= KEPT_PATH else (None, solve)
        cheap = self.problem.squared or not (hasattr(state, "joint") or hasattr(state, "inner"))
        df = state.df(alphas) if cheap else None
        return Path(alphas, df, value, se, chosen, solved, later, None if cheap else state.df)

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
        where = "optimum inside the grid"
        if edge:
            where = "choice" if edge == (Status.ONE_SE_EDGE,) else "optimum"
            where += " on the edge of the grid"
        if len(grid) == 1:
            where = "nothing to choose from"
        how = "given" if self.rule.alphas is not None else "automatic"
        span = f"{grid.min():.3g} to {grid.max():.3g}"
        text = f"{self.rule.describe()} over {len(grid)} alphas ({how}, {span}); {where}"
        return text + ("; largest alpha within one standard error of the best" if self.rule.one_se else "")

    def finish(self, context: Context, choice: Choice, solver: Any, why: str) -> Fit:
        """Return the fit at the chosen alphas, refined and certified."""
        if self.watch is not None and hasattr(choice.criterion, "predictions"):
            self._show(self.watch, choice)
        problem, statistic, state = self.problem, context.statistic, context.state
        outcome: Outcome
        if hasattr(state, "outcome"):
            outcome = state.outcome(choice.alpha, self.tol)
        else:
            form = problem.form(statistic.x_scale)
            outcome = self._refine(Optimum(problem, statistic, state, form, choice.alpha))
        coef, intercept = outcome.coef, outcome.intercept
        source = problem.source
        most = getattr(source, "digits", np.inf)
        if most < MOST_DIGITS:
            certificate = replace(outcome.certificate, digits=min(most, outcome.certificate.digits))
            outcome = replace(outcome, certificate=certificate, notes=(*outcome.notes, Status.ROUNDED_INPUT))
        target_means, target_scales = targets_as_given(problem, statistic)
        return Fit(
            coef=coef,
            intercept=intercept,
            alpha=choice.alpha,
            df=df_at(state, choice.alpha),
            rule="fixed" if self.rule is None else self.rule.name,
            rule_text=choice.text,
            path=choice.path,
            certificate=outcome.certificate,
            status=self._status(context, choice, outcome),
            solver=solver.name,
            solver_reason=why,
            objective=problem.objective(),
            n_rows=statistic.rows,
            rows_dropped=int(getattr(source, "rows_dropped", 0)),
            n_observations=statistic.observations,
            sum_weights=statistic.weight,
            weights=meaning(source),
            feature_names=source.feature_names,
            target_names=source.target_names,
            feature_means=statistic.x_mean,
            feature_scales=statistic.x_scale,
            target_means=target_means,
            target_scales=target_scales,
            standardize=hasattr(problem.penalty, "base"),
            fit_intercept=problem.fit_intercept,
            deviance=outcome.deviance,
            null_deviance=outcome.null_deviance,
            cv_deviance=choice.cv_deviance,
            loss=problem.loss,
        )

    def _refine(self, optimum: Optimum) -> Outcome:
        """Refine a closed form on the rows, or on the moments where reading rows again would cost more."""
        problem, statistic = self.problem, optimum.statistic
        condition = max(_sharp_condition(optimum, a) for a in np.unique(optimum.alpha))
        loss = ROUNDOFF * condition
        gone = problem.source.n_rows == 0
        few = statistic.rows * problem.source.n_features <= CHEAP_REREAD
        few = few and not getattr(problem.source, "few_passes", False)
        needed = loss > self.tol or not isinstance(statistic, Moments)  # nothing stands in for the rows
        on_rows = not gone and (problem.source.in_memory or few or needed)
        optimum = Interpolation.of(optimum) if on_rows else optimum
        solution = refine(optimum, on_rows=on_rows, tol=self.tol)
        certificate = Certificate(
            residual=solution.residual,
            measured_on=solution.measured_on,
            condition=float(np.sqrt(condition)),
            digits=correct_digits(optimum, solution),
            refinements=solution.refinements,
        )
        spread = targets_as_given(problem, statistic)[1] ** 2 * statistic.weight
        return Outcome(solution.coef, solution.intercept, solution.rss, spread, certificate)

    def _status(self, context: Context, choice: Choice, outcome: Outcome) -> tuple[Status, ...]:
        notes = [*self.notes, *choice.notes, *outcome.notes]
        state, certificate = context.state, outcome.certificate
        constant = context.statistic.x_scale == 0
        if self.problem.fit_intercept and constant.any():
            notes.append(Status.CONSTANT_COLUMNS)
        short = np.any(choice.alpha == 0) and getattr(state, "rank", constant.size) < np.sum(~constant)
        if short or getattr(state, "unresolved", 0) > 0:
            notes.append(Status.RANK_DEFICIENT)
        lost = ROUNDOFF * certificate.condition**2 > PATH_LOSS
        if self.solver == "auto" and lost and np.isinf(state.condition_limit) and self.problem.squared:
            notes.append(Status.ORTHOGONAL)
        return tuple(dict.fromkeys([*notes, *told(certificate)]))


def _check_targets(problem: Problem, statistic: Any) -> None:
    """Raise InputError for targets whose squared errors underflow: no alpha would be better than another."""
    for mean, scale, name in zip(
        statistic.y_mean, statistic.y_scale, problem.source.target_names, strict=True
    ):
        size = max(float(scale), abs(float(mean)))
        if 0 < size < SMALLEST_TARGET:
            raise InputError(
                f"target '{name}' is of the size {size:.3g}, so small that its squares underflow. Multiply "
                "it by a constant, which multiplies the coefficients likewise."
            )


def _condition(state: State, alpha: float) -> float:
    """Return κ̂² of G + αP as the state sees it; infinite if it cannot be factorised."""
    try:
        return state.condition(alpha)
    except NotPositiveDefinite:
        return float("inf")


def _sharp_condition(optimum: Optimum, alpha: float) -> float:
    """Return κ̂² of the column-scaled matrix where its Gram is at hand, else the state's own."""
    own = _condition(optimum.state, alpha)
    fine = own < WELL_CONDITIONED or isinstance(optimum.state, Cholesky)
    if fine or not isinstance(optimum.statistic, Moments):
        return own
    gram, _, _ = optimum.statistic.about(optimum.problem.fit_intercept)
    matrix = gram + alpha * optimum.form.matrix()
    live = np.flatnonzero(matrix.diagonal() > 0)
    scale = np.sqrt(matrix.diagonal()[live])
    values = np.linalg.eigvalsh(matrix[np.ix_(live, live)] / scale / scale[:, None])
    return min(own, float(values[-1] / values[0])) if len(live) and values[0] > 0 else own
