"""How alpha is chosen: rules, their criteria, folds of rows, the automatic grid and its refinement.

A rule reads what it needs and nothing more: GCV, REML, AIC and BIC only the state's spectrum,
KFold the statistics of atoms of rows, LOO one more pass over the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial

from elltwo.data.base import Source
from elltwo.errors import InputError, did_you_mean
from elltwo.folds import FoldPlan, plan_folds
from elltwo.problem import Problem
from elltwo.solvers.base import State, Statistic, intercepts

Array = npt.NDArray[Any]
Criterion = Callable[[Array], "Scores"]
#: A scoring function (y (n,), prediction (n,), weights (n,)) -> float, larger is better.
Metric = Callable[[Array, Array, Array], float]


@dataclass(frozen=True)
class Scores:
    """A criterion at some alphas, smaller is better, with its standard error where there is one: (A, T)."""

    value: Array
    se: Array | None = None


@dataclass(frozen=True)
class Context:
    """What a rule may look at once the rows have been read.

    Attributes
    ----------
    problem : Problem
    solver : solver
        Makes statistics and states for training sets.
    statistic, state
        Of all rows.
    atoms : list of Statistic
        Statistics of the atoms of the fold plan's first pass.
    plan : FoldPlan or None
    """

    problem: Problem
    solver: Any
    statistic: Statistic
    state: State
    atoms: list[Any]
    plan: FoldPlan | None

    def model(self, state: State, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T) of a state."""
        coef = state.coef(alphas)
        return coef, intercepts(state.statistic, coef, self.problem.fit_intercept)

    def train(self, statistic: Statistic) -> State:
        """Return the state of a training set, with its own centring and scaling."""
        form = self.problem.form(statistic.x_scale)
        state: State = self.solver.state(statistic, form, self.problem.fit_intercept)
        return state


class Rule(Protocol):
    """A way to choose alpha."""

    name: ClassVar[str]

    @property
    def alphas(self) -> Any:
        """The alphas to try, or None for the automatic grid."""
        ...

    @property
    def one_se(self) -> bool:
        """Whether the largest alpha within one standard error of the best is taken."""
        ...

    def plan(self, source: Source) -> FoldPlan | None:
        """Return the folds the rule needs before the rows are read, if any."""
        ...

    def criterion(self, context: Context) -> Criterion:
        """Return the function alphas -> Scores."""
        ...

    def describe(self) -> str:
        """Return the rule in words."""
        ...


@dataclass(frozen=True)
class _SpectrumRule:
    """A rule that reads only the spectrum: no folds, no second pass, no standard error."""

    alphas: Any = None
    one_se: ClassVar[bool] = False

    def plan(self, source: Source) -> None:
        """Need no folds."""

    def _mse_and_dof(self, context: Context, alphas: Array) -> tuple[Array, Array, float]:
        """Return RSS/n (A, T), df with the intercept (A, 1) and n."""
        n = context.statistic.observations
        df = context.state.df(alphas)[:, None] + context.problem.fit_intercept
        return context.state.rss(alphas), df, n


@dataclass(frozen=True)
class GCV(_SpectrumRule):
    """Generalised cross-validation: leave-one-out with every leverage replaced by their mean.

    GCV(α) = (RSS/Σw) / (1 − (df + 1)/n)²   (df alone without an intercept), in units of y².
    Golub, Heath and Wahba (1979).

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import GCV, Ridge
    >>> X = np.random.default_rng(0).normal(size=(50, 3))
    >>> model = Ridge(GCV(alphas=[0.1, 1, 10])).fit(X, X @ [1, 2, 3])
    >>> model.path_.score.shape
    (3,)
    """

    name: ClassVar[str] = "gcv"

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ GCV."""

        def score(alphas: Array) -> Scores:
            rss, df, n = self._mse_and_dof(context, alphas)
            room = 1 - df / n
            with np.errstate(divide="ignore"):
                value = (rss / context.statistic.weight) / np.where(room > 0, room, np.nan) ** 2
            return Scores(value)

        return score

    def describe(self) -> str:
        """Return the rule in words."""
        return "generalised cross-validation"


class _Information(_SpectrumRule):
    """n·log(2π·RSS/n) + n + price·(df + 2): df, the intercept and the error variance."""

    def _price(self, n: float) -> float:
        raise NotImplementedError

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ the information criterion."""

        def score(alphas: Array) -> Scores:
            rss, df, n = self._mse_and_dof(context, alphas)
            return Scores(n * np.log(2 * np.pi * rss / n) + n + self._price(n) * (df + 1))

        return score


@dataclass(frozen=True)
class AIC(_Information):
    """Akaike's information criterion with effective degrees of freedom.

    AIC(α) = n·log(2π·RSS/n) + n + 2·(df + 2), the 2 for the intercept and the error variance.

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.
    """

    name: ClassVar[str] = "aic"

    def _price(self, n: float) -> float:  # noqa: ARG002
        return 2.0

    def describe(self) -> str:
        """Return the rule in words."""
        return "Akaike's information criterion"


@dataclass(frozen=True)
class BIC(_Information):
    """Bayesian (Schwarz) information criterion with effective degrees of freedom.

    BIC(α) = n·log(2π·RSS/n) + n + log(n)·(df + 2), the 2 for the intercept and the error variance.

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.
    """

    name: ClassVar[str] = "bic"

    def _price(self, n: float) -> float:
        return float(np.log(n))

    def describe(self) -> str:
        """Return the rule in words."""
        return "Bayesian information criterion"


@dataclass(frozen=True)
class REML(_SpectrumRule):
    """Restricted maximum likelihood of y ~ N(1b + X_free·u + Xθ, σ²I), θ ~ N(θ₀, (σ²/α)·P⁻¹).

    −2ℓ(α) = Σ log(1 + s²/α) + m·log[RSS₀ + Σ ỹ²·α/(s² + α)] up to a constant, with m = n less the
    intercept and the unpenalised features, and σ² profiled out (Patterson and Thompson, 1971).

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale, positive; the automatic grid if None.
    """

    name: ClassVar[str] = "reml"

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ −2ℓ(α)."""
        from elltwo.solvers.spectral import Spectral

        state = context.state
        if not isinstance(state, Spectral):
            raise InputError("solver 'cholesky' has no spectrum, which REML needs; use 'auto' or 'spectral'.")
        held = state.d > 0
        g, energy = state.g[held], state.energy[held]
        dof = context.statistic.observations - context.problem.fit_intercept - np.count_nonzero(~held)

        def score(alphas: Array) -> Scores:
            ratio = g / np.where(alphas > 0, alphas, np.nan)[:, None]
            left = state.rss0 + (1 / (1 + ratio)) @ energy
            return Scores(np.sum(np.log1p(ratio), axis=1)[:, None] + dof * np.log(left))

        return score

    def describe(self) -> str:
        """Return the rule in words."""
        return "restricted maximum likelihood"


@dataclass(frozen=True)
class LOO:
    """Exact leave-one-out: each row predicted by the model fitted on the others.

    score(α) = Σ wᵢ (eᵢ/(1 − hᵢ))² / Σ wᵢ with residuals eᵢ and leverages hᵢ of the one fit. The
    intercept is refitted without the row; the penalty matrix, and with it the scaling of
    standardised features, is held. Count weights leave out one observation of a row. Where a row
    determines a coefficient all by itself (1 − h near 0), about log₁₀ 1/(1 − h) digits are lost.
    Allen (1974), "The relationship between variable selection and data augmentation".

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.
    one_se : bool
        Take the largest alpha whose score is within one standard error of the best.
    scoring : str or callable, optional
        None for squared error, a name in `SCORINGS`, or (y, prediction, weights) -> float, larger better.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import LOO, Ridge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(40, 5)); y = X[:, 0] + rng.normal(size=40)
    >>> Ridge(LOO(one_se=True)).fit(X, y).alpha_ > Ridge(LOO()).fit(X, y).alpha_
    True
    """

    alphas: Any = None
    one_se: bool = False
    scoring: str | Metric | None = None
    name: ClassVar[str] = "loo"

    def plan(self, source: Source) -> None:
        """Need no folds."""

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ mean squared leave-one-out error, one pass over the rows per call."""
        if self.scoring is not None:
            metric = as_metric(self.scoring)
            return lambda alphas: Scores(_score_rows(metric, context, *held_out_errors(context, alphas)))
        return lambda alphas: _loo_mse(context, alphas)

    def describe(self) -> str:
        """Return the rule in words."""
        return "leave-one-out"


def _loo_mse(context: Context, alphas: Array) -> Scores:
    """Return the weighted mean of squared held-out errors and its standard error."""
    shape = (len(alphas), context.problem.source.n_targets)
    first, second, cross = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    total, squares = 0.0, 0.0
    counts = context.problem.source.counts
    for part in context.state.influence(context.problem, alphas):
        error = part.residual
        error /= part.keep[:, :, None]
        error *= error
        w = part.weights
        w2 = w if counts else w * w
        flat = error.reshape(len(w), -1)
        first[:, part.targets] += (w @ flat).reshape(len(alphas), -1)
        cross[:, part.targets] += (w2 @ flat).reshape(len(alphas), -1)
        flat *= flat
        second[:, part.targets] += (w2 @ flat).reshape(len(alphas), -1)
        if part.targets.start == 0:
            total += float(w.sum())
            squares += float(w2.sum())
    mean = first / total
    variance = np.maximum(second - 2 * mean * cross + mean**2 * squares, 0.0)
    return Scores(mean, np.sqrt(variance) / total)


def held_out_errors(context: Context, alphas: Array) -> tuple[Array, Array]:
    """Return leave-one-out errors y − ŷ₋ᵢ, shape (n, A, T), and the row weights (n,)."""
    parts = list(context.state.influence(context.problem, alphas))
    n = max(part.rows.stop for part in parts)
    errors = np.empty((n, len(alphas), context.problem.source.n_targets))
    weights = np.empty(n)
    for part in parts:
        errors[part.rows, :, part.targets] = part.residual / part.keep[:, :, None]
        weights[part.rows] = part.weights
    return errors, weights


def _score_rows(metric: Metric, context: Context, errors: Array, weights: Array) -> Array:
    """Return −metric for held-out errors (n, A, T), shape (A, T)."""
    y = np.concatenate(list(context.problem.source.map(lambda block: block.y)))
    return np.array(
        [
            [-metric(y[:, t], y[:, t] - errors[:, a, t], weights) for t in range(y.shape[1])]
            for a in range(errors.shape[1])
        ]
    )


@dataclass(frozen=True)
class KFold:
    """K-fold cross-validation with any splitter; centring and scaling are refitted in each training set.

    score(α) = Σ over all held-out rows of wᵢ(yᵢ − ŷᵢ)² / Σ wᵢ. The rows are read once, whatever the
    number of folds: training statistics are merged from those of the other folds.

    Parameters
    ----------
    cv : int, splitter, or iterable of (train, test)
        An integer k means k consecutive parts, as scikit-learn's `KFold(k)`. A splitter is an object with
        scikit-learn's `split`; group and time splitters read the group or time column given to the fit.
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.
    one_se : bool
        Take the largest alpha whose score is within one standard error (over folds) of the best.
    scoring : str or callable, optional
        None for squared error, a name in `SCORINGS`, or (y, prediction, weights) -> float, larger better;
        the score is then minus its mean over folds.
    """

    cv: Any = 5
    alphas: Any = None
    one_se: bool = False
    scoring: str | Metric | None = None
    name: ClassVar[str] = "kfold"

    def plan(self, source: Source) -> FoldPlan:
        """Return the atoms of rows and the folds made of them."""
        return plan_folds(self.cv, source)

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ pooled mean squared error over the held-out rows."""
        assert context.plan is not None
        folds: list[_Fold] = []
        for index, step in enumerate(context.plan.passes):
            atoms = context.atoms
            if index > 0 or not context.plan.shared:
                atoms = context.solver.gather(context.problem, step.labels, step.n_atoms)
            for train, test in step.folds:
                tested = merge(atoms[i] for i in test)
                if tested.weight > 0:
                    state = context.train(merge(atoms[i] for i in train))
                    folds.append(_Fold(state, tested, step.labels, np.array(test)))
        if self.scoring is None or self.scoring in ("neg_mean_squared_error", "r2"):
            return lambda alphas: _scores_from_sse(context, folds, alphas, self.scoring)
        metric = as_metric(self.scoring)
        return lambda alphas: _mean_metric(metric, context, folds, alphas)

    def describe(self) -> str:
        """Return the rule in words."""
        if isinstance(self.cv, int):
            return f"{self.cv}-fold cross-validation"
        k = getattr(self.cv, "n_splits", None)
        return f"cross-validation by {type(self.cv).__name__}" + (
            f" ({k} folds)" if isinstance(k, int) else ""
        )


@dataclass(frozen=True)
class _Fold:
    """A trained fold: its state, the statistic of its held-out rows, and how to find those rows."""

    state: State
    held: Any
    labels: Callable[[Any], Array]
    test: Array

    def pick(self, block: Any) -> Array:
        """Return which rows of a block are held out."""
        return np.isin(self.labels(block), self.test)


def merge(statistics: Iterable[Any]) -> Any:
    """Return all statistics merged, in order."""
    total, *rest = statistics
    for statistic in rest:
        total = total.merge(statistic)
    return total


def _standard_error(values: Array) -> Array:
    """Return the standard error over folds of per-fold scores (K, A, T)."""
    k = len(values)
    if k < 2:
        return np.zeros(values.shape[1:])
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(k))


#: Below this share of the target's variance, squared errors from moments are rounding noise.
_TRUST_MOMENTS = 1e-7


def _scores_from_sse(context: Context, folds: list[_Fold], alphas: Array, scoring: Any) -> Scores:
    """Return the pooled mean squared error, or the mean over folds of MSE or −R², without reading rows."""
    errors, weights, variances = [], [], []
    for fold in folds:
        held = fold.held
        coef, intercept = context.model(fold.state, alphas)
        sse = held.sse(coef, intercept)
        spread = held.weight * (held.y_scale**2 + (held.y_mean - context.statistic.y_mean) ** 2)
        if type(held).__name__ == "Moments" and np.any(sse < _TRUST_MOMENTS * spread):
            sse = _sse_on_rows(context, fold, coef, intercept)
        errors.append(sse)
        weights.append(held.weight)
        variances.append(held.y_scale**2)
    share = np.array(weights)
    each = np.array(errors) / share[:, None, None]
    if scoring is None:
        return Scores(np.sum(errors, axis=0) / share.sum(), _standard_error(each))
    if scoring == "r2":
        variance = np.array(variances)[:, None, :]
        flat = np.where(each > 0, 0.0, -1.0)
        each = np.where(variance > 0, each / np.where(variance > 0, variance, 1.0) - 1, flat)
    return Scores(each.mean(axis=0), _standard_error(each))


def _sse_on_rows(context: Context, fold: _Fold, coef: Array, intercept: Array) -> Array:
    """Return the squared error of the picked rows, row by row: the moments would cancel."""
    total = np.zeros(intercept.shape)
    for block in context.problem.blocks():
        chosen = fold.pick(block)
        fitted = np.einsum("ij,ajt->ait", block.X[chosen], coef, optimize=True) + intercept[:, None, :]
        w = np.ones(int(chosen.sum())) if block.weights is None else block.weights[chosen]
        total += np.einsum("i,ait->at", w, (block.y[chosen] - fitted) ** 2)
    return total


def _mean_metric(metric: Metric, context: Context, folds: list[_Fold], alphas: Array) -> Scores:
    values = []
    for fold in folds:
        coef, intercept = context.problem.restore(*context.model(fold.state, alphas))
        rows = [(b, fold.pick(b)) for b in context.problem.source.blocks()]
        y = np.concatenate([b.y[c] for b, c in rows])
        w = np.concatenate([np.ones(int(c.sum())) if b.weights is None else b.weights[c] for b, c in rows])
        fitted = (
            np.concatenate([np.einsum("ij,ajt->iat", b.X[c], coef, optimize=True) for b, c in rows])
            + intercept
        )
        values.append(
            [[-metric(y[:, t], fitted[:, a, t], w) for t in range(y.shape[1])] for a in range(len(alphas))]
        )
    scores = np.array(values)
    return Scores(scores.mean(axis=0), _standard_error(scores))


def _weighted_mean(values: Array, weights: Array) -> float:
    return float(weights @ values / weights.sum())


def _r2(y: Array, prediction: Array, weights: Array) -> float:
    spread = _weighted_mean((y - _weighted_mean(y, weights)) ** 2, weights)
    return 1 - _weighted_mean((y - prediction) ** 2, weights) / spread


#: Named scoring functions, larger is better, with scikit-learn's names.
SCORINGS: dict[str, Metric] = {
    "neg_mean_squared_error": lambda y, f, w: -_weighted_mean((y - f) ** 2, w),
    "neg_root_mean_squared_error": lambda y, f, w: -float(np.sqrt(_weighted_mean((y - f) ** 2, w))),
    "neg_mean_absolute_error": lambda y, f, w: -_weighted_mean(np.abs(y - f), w),
    "r2": _r2,
}


def as_metric(scoring: str | Metric) -> Metric:
    """Return the scoring function for a name or a function.

    Raises
    ------
    InputError
        If no scoring has that name.
    """
    if callable(scoring):
        return scoring
    if scoring not in SCORINGS:
        known = ", ".join(SCORINGS)
        raise InputError(
            f"scoring '{scoring}' is not known.{did_you_mean(scoring, SCORINGS)} Choose from: {known}."
        )
    return SCORINGS[scoring]


#: Every rule of the package.
RULES = (LOO, GCV, KFold, REML, AIC, BIC)


def as_rule(rule: Any) -> Rule:
    """Return the rule object for a rule's name or a rule object.

    Raises
    ------
    InputError
        If no rule has that name.
    """
    if isinstance(rule, RULES):
        return rule
    names = {r.name: r for r in RULES}
    if isinstance(rule, str) and rule in names:
        return names[rule]()
    hint = did_you_mean(rule, names) if isinstance(rule, str) else ""
    raise InputError(f"alpha={rule!r} is neither a number nor a rule.{hint} Rules: {', '.join(names)}.")


def check_alphas(alphas: Any, *, positive: bool = False) -> Array:
    """Return alphas as a float64 vector.

    Raises
    ------
    InputError
        For alphas that are negative, NaN or infinite, or none at all.
    """
    try:
        values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    except (TypeError, ValueError):
        raise InputError(
            f"alpha must be a number ≥ 0, an array of numbers or a rule; got {alphas!r}."
        ) from None
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"alpha must be a number or a vector of numbers; got shape {values.shape}.")
    bad = values[~(np.isfinite(values) & (values >= 0))]
    if len(bad):
        raise InputError(f"alpha must be finite and not negative; got {bad[0]:g}. Use 0 for no penalty.")
    if positive and not values.all():
        raise InputError("alpha = 0 has no restricted likelihood; REML needs positive alphas.")
    return values


#: Points per decade of the automatic grid.
PER_DECADE = 6


def spectrum_grid(state: State) -> Array:
    """Return the automatic grid: from next to no shrinkage to next to no effect.

    From 10⁻³ of the smallest squared singular value (but not below 10⁻¹⁰ of the largest), where df is
    within a thousandth of its maximum, to 100·Σs², where df is below 0.01; six alphas per decade.
    """
    g = state.spectrum()
    if len(g) == 0:
        return np.array([1.0])
    low = max(1e-3 * float(g.min()), 1e-10 * float(g.max()))
    decades = np.log10(100 * float(g.sum()) / low)
    return np.asarray(low * 10 ** np.linspace(0, decades, int(np.ceil(PER_DECADE * decades)) + 1))


def best_index(value: Array, se: Array | None, alphas: Array, one_se: bool) -> int:
    """Return the index of the smallest score (largest alpha among ties), or the one-standard-error choice."""
    value = np.where(np.isnan(value), np.inf, value)
    if not np.isfinite(value).any():
        raise InputError(
            "the criterion is not defined at any alpha tried (fewer rows than effective parameters?). "
            "Try larger alphas or another rule, for example 'loo'."
        )
    lowest = value.min()
    at_best = np.flatnonzero(value <= lowest + 1e-12 * abs(lowest))
    best = int(at_best[np.argmax(alphas[at_best])])
    if not one_se or se is None:
        return best
    within = np.flatnonzero(value <= lowest + se[best])
    return int(within[np.argmax(alphas[within])])


#: Points that the criterion is interpolated through.
NEAREST = 11


def _curve(alphas: Array, value: Array, index: int) -> Polynomial | None:
    """Return the polynomial in log α through the nearest points of the grid, None if they are not finite.

    The criterion is analytic in t = log α in the strip |Im t| < π, so the polynomial through the eleven
    nearest points of a uniform grid with spacing h errs by O((h/π)¹¹): about 1e-10 at six points per decade.
    """
    first = max(0, min(index - NEAREST // 2, len(alphas) - NEAREST))
    t, v = np.log(alphas[first : first + NEAREST]), value[first : first + NEAREST]
    return Polynomial.fit(t, v, len(t) - 1) if np.isfinite(v).all() else None


def refine(alphas: Array, value: Array, index: int) -> float:
    """Return the minimiser of the criterion near a grid point, between its neighbours.

    Six significant digits are kept: more would be rounding noise, since the criterion is flat there.
    """
    if index in (0, len(alphas) - 1) or (curve := _curve(alphas, value, index)) is None:
        return float(alphas[index])
    low, high = np.log(alphas[index - 1]), np.log(alphas[index + 1])
    flat = curve.deriv().roots()
    inside = flat[(np.abs(flat.imag) < 1e-9) & (flat.real > low) & (flat.real < high)].real
    if len(inside) == 0:
        return float(alphas[index])
    return float(f"{np.exp(inside[np.argmin(curve(inside))]):.6g}")


def interpolated(alphas: Array, scores: Scores, at: Array) -> Scores:
    """Return the scores at alphas between the points of a grid, without another pass over the rows."""
    nearest = [int(np.argmin(np.abs(np.log(alphas / a)))) for a in at]

    def through(values: Array) -> Array:
        curves = [[_curve(alphas, column, i) for column in values.T] for i in nearest]
        return np.array(
            [
                [values[i, t] if c is None else c(np.log(a)) for t, c in enumerate(row)]
                for a, i, row in zip(at, nearest, curves, strict=True)
            ]
        )

    return Scores(through(scores.value), None if scores.se is None else through(scores.se))
