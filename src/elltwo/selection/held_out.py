"""Rules that predict rows the model has not seen: leave-one-out and K-fold. The package's only fold loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.errors import InputError
from elltwo.folds import FoldPlan, plan_folds
from elltwo.moments import Moments
from elltwo.selection.criteria import Context, Criterion, Scores, merge
from elltwo.selection.scoring import HeldRows, Metric, Scoring, UndefinedScore, as_scoring, refuse_rankings
from elltwo.solvers.base import State, leave_out_weight, targets_as_given
from elltwo.solvers.spectral import Spectral
from elltwo.solvers.tensors import host, left_out, on_device

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LOO:
    """Leave-one-out: each row predicted by the model fitted on the others; exact for squared error.

    score(α) = Σ wᵢ (eᵢ/(1 − hᵢ))² / Σ wᵢ with residuals eᵢ and leverages hᵢ of the one fit. The
    intercept is refitted without the row; the penalty matrix, and with it the scaling of
    standardised features, is held. Count weights leave out one observation of a row. Where a row
    determines a coefficient all by itself (1 − h near 0), about log₁₀ 1/(1 − h) digits are lost.
    For other losses the deviance takes the place of the square, and the model without a row is reached by one
    Newton step from the fit (approximate leave-one-out, ALO).
    Allen (1974), "The relationship between variable selection and data augmentation".

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.
    one_se : bool
        Take the largest alpha whose score is within one standard error of the best.
    scoring : str or callable, optional
        None for squared error, a name in `SCORINGS`, or (y, prediction, weights) -> float, larger better. A
        function that ranks, decides or correlates is refused: it needs `KFold`.

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
    scoring: str | Metric | Scoring | None = None
    name: ClassVar[str] = "loo"

    def plan(self, source: Source) -> None:
        """Need no folds."""

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ mean leave-one-out deviance (squared error), one pass over the rows per call."""
        return _LeftOut(
            context, None if self.scoring is None else as_scoring(self.scoring, context.problem.loss)
        )

    def describe(self) -> str:
        """Return the rule in words."""
        return "leave-one-out"


@dataclass(frozen=True)
class _LeftOut:
    """The criterion of leave-one-out, and the predictions that it rests on."""

    context: Context
    scoring: Scoring | None

    def __call__(self, alphas: Array) -> Scores:
        if self.scoring is None:
            return _loo_deviance(self.context, alphas)
        held = _left_out_rows(self.context, alphas)
        if self.scoring.ranks:
            return Scores(-self.scoring.of(_means_held(self.context, held)))
        refuse_rankings(self.scoring, held, held.weights @ held.y / held.weights.sum())
        return Scores(-self.scoring.of(held))

    def predictions(self, alphas: Array) -> Iterator[HeldRows]:
        """Yield all rows, each predicted by the model without it, with the means of all rows held."""
        yield _means_held(self.context, _left_out_rows(self.context, alphas))


def _loo_deviance(context: Context, alphas: Array) -> Scores:
    """Return the weighted mean deviance (squared error) of the held-out rows and its standard error."""
    shape = (len(alphas), context.problem.n_scores)
    first, second, cross = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    counts = context.problem.source.counts
    with np.errstate(over="ignore", invalid="ignore"):  # deviances of hopeless alphas: infinite, not chosen
        return _sum_deviances(context, alphas, first, second, cross, counts)


def _sum_deviances(
    context: Context, alphas: Array, first: Array, second: Array, cross: Array, counts: bool
) -> Scores:
    """Add up deviances, their squares and what their standard error needs."""
    total, squares = 0.0, 0.0
    for part in _left_out_parts(context, alphas):
        error = part.deviance()
        w = part.weights
        w2 = w if counts else w * w
        flat = error.reshape(len(w), -1)
        first[:, part.targets] += host(w @ flat).reshape(len(alphas), -1)
        cross[:, part.targets] += host(w2 @ flat).reshape(len(alphas), -1)
        flat *= flat
        second[:, part.targets] += host(w2 @ flat).reshape(len(alphas), -1)
        if part.targets.start == 0:
            total += float(w.sum())
            squares += float(w2.sum())
    mean = first / total
    variance = np.maximum(second - 2 * mean * cross + mean**2 * squares, 0.0)
    return Scores(mean, np.sqrt(variance) / total)


def _left_out_parts(context: Context, alphas: Array) -> Iterator[Any]:
    """Yield what every row would be predicted without it, as tensors if that is how the rows come."""
    if on_device(context.problem.source) and type(context.state) is Spectral:
        return left_out(context.state, context.problem, alphas)
    return context.state.influence(context.problem, alphas)


def held_out_errors(context: Context, alphas: Array) -> Array:
    """Return leave-one-out errors y − ŷ₋ᵢ of squared error, shape (n, A, T)."""
    parts: list[Any] = list(context.state.influence(context.problem, alphas))
    errors = np.empty((max(p.rows.stop for p in parts), len(alphas), context.problem.source.n_targets))
    for part in parts:
        errors[part.rows, :, part.targets] = part.residual / part.keep[:, :, None]
    return errors


def held_out_predictions(context: Context, alphas: Array) -> tuple[Array, Array, Array]:
    """Return leave-one-out predictions on the scale of η (n, A, T), targets (n, T) and weights (n,)."""
    y = np.concatenate([block.y for block in context.problem.blocks()])
    eta, weights = np.empty((len(y), len(alphas), y.shape[1])), np.empty(len(y))
    for part in context.state.influence(context.problem, alphas):
        targets = slice(None) if context.problem.loss.coupled else part.targets
        eta[part.rows, :, targets] = part.prediction(y[part.rows, targets])
        weights[part.rows] = part.weights
    return eta, y, weights


def _left_out_rows(context: Context, alphas: Array) -> HeldRows:
    """Return all rows, each predicted by the model without it."""
    eta, y, weights = held_out_predictions(context, alphas)
    given = np.concatenate(list(context.problem.source.map(lambda block: block.y)))
    eta += (given - y)[:, None, :]
    return HeldRows(np.arange(len(y)), given, eta, weights, alphas, context.problem.loss)


#: A row that moves η of the mean by more than this is most of its class: without it no share is left.
_MOST_OF_CLASS = 1.0


def _means_held(context: Context, held: HeldRows) -> HeldRows:
    """Return the rows with the means of the targets, and so the shares of classes, held at those of all rows.

    Without row i the mean of y is (Wȳ − wᵢyᵢ)/(W − wᵢ), and by that much the intercept moves against the row.
    What ranks rows or decides between classes would find a model near the mean wrong on every row; folds
    that keep the shares of the classes do not have that. The η of the mean takes the move back:
    η₋ᵢ + η(ȳ) − η(ȳ₋ᵢ).
    """
    if not context.problem.fit_intercept:
        return held
    y, w, total = held.y, held.weights[:, None], float(held.weights.sum())
    mean = np.sum(w * y, axis=0) / total
    gone = leave_out_weight(context.problem, w)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (total * mean - gone * y) / (total - gone)
        move = held.loss.null(mean) - held.loss.null(without)
    small = np.abs(move) <= _MOST_OF_CLASS
    if held.loss.coupled:
        small = small.all(axis=1, keepdims=True)
    return replace(held, eta=held.eta + np.where(small, move, 0.0)[:, None, :])


#: What splitters do, in words.
SPLITTERS = {
    "int": "",
    "list": " on given folds",
    "DealtFolds": ", rows dealt by a fixed shuffle",
    "TimeFolds": " forward in time",
    "TimeSeriesSplit": " forward in time",
    "GroupKFold": " that keeps groups together",
    "StratifiedFolds": ", rows of each class dealt by a fixed shuffle",
    "StratifiedKFold": " that keeps the shares of the classes",
}


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
        the score is then minus its mean over the folds on which it is defined (is not NaN).
    """

    cv: Any = 5
    alphas: Any = None
    one_se: bool = False
    scoring: str | Metric | Scoring | None = None
    name: ClassVar[str] = "kfold"

    def __post_init__(self) -> None:
        """Keep the pairs of an iterator, so that a rule can be used more than once."""
        if isinstance(self.cv, Iterator):
            object.__setattr__(self, "cv", list(self.cv))

    def plan(self, source: Source) -> FoldPlan:
        """Return the atoms of rows and the folds made of them."""
        return plan_folds(self.cv, source)

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ pooled mean deviance (squared error) over the held-out rows."""
        assert context.plan is not None
        trains: list[Any] = []
        tests: list[tuple[Any, Any, Array]] = []
        for index, step in enumerate(context.plan.passes):
            atoms = context.atoms
            if index > 0 or not context.plan.shared:
                atoms = context.solver.gather(context.problem, step.labels, step.n_atoms)
            for train, test in step.folds:
                tested = merge(atoms[i] for i in test)
                if tested.weight > 0:
                    trained = merge(atoms[i] for i in train)
                    if trained.weight == 0:
                        raise InputError(
                            f"the training rows of fold {len(trains)} all have weight 0. "
                            "Use fewer folds, or shuffle the rows."
                        )
                    trains.append(trained)
                    tests.append((tested, step.labels, np.array(test)))
        states = context.train_all(trains)
        folds = [_Fold(state, *test) for state, test in zip(states, tests, strict=True)]
        return _Folded(context, folds, self.scoring)

    def describe(self) -> str:
        """Return the rule in words."""
        splitter = getattr(self.cv, "splitter", self.cv)
        name = type(splitter).__name__
        k = self.cv if isinstance(self.cv, int) else getattr(splitter, "n_splits", None)
        folds = f"{k}-fold cross-validation" if isinstance(k, int) else "cross-validation"
        return folds + SPLITTERS.get(name, f" by {name}")


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


@dataclass(frozen=True)
class _Folded:
    """The criterion of K-fold, and the predictions that it rests on."""

    context: Context
    folds: list[_Fold]
    scoring: str | Metric | Scoring | None

    def __call__(self, alphas: Array) -> Scores:
        squares = self.context.problem.squared and self.scoring in ("neg_mean_squared_error", "r2")
        if self.scoring is None or squares:
            return _scores_from_sse(self.context, self.folds, alphas, self.scoring)
        scoring = as_scoring(self.scoring, self.context.problem.loss)
        return _over_folds(np.array([-scoring.of(held) for held in self.predictions(alphas)]))

    def predictions(self, alphas: Array) -> Iterator[HeldRows]:
        """Yield the rows of each fold, predicted by the model of its training rows."""
        for fold in self.folds:
            coef, intercept = self.context.problem.restore(*self.context.model(fold.state, alphas))
            parts = []
            for block in self.context.problem.source.blocks():
                chosen = fold.pick(block)
                eta = np.einsum("ij,ajt->iat", block.X[chosen], coef, optimize=True) + intercept
                if block.offset is not None:
                    eta += block.offset[chosen][:, None, :]
                w = np.ones(len(eta)) if block.weights is None else block.weights[chosen]
                parts.append((block.start + np.flatnonzero(chosen), block.y[chosen], eta, w))
            rows, y, eta, w = (np.concatenate(part) for part in zip(*parts, strict=True))
            yield HeldRows(rows, y, eta, w, alphas, self.context.problem.loss, (coef, intercept))


def _over_folds(values: Array) -> Scores:
    """Return the mean over folds of per-fold scores (K, A, T), without folds whose score is not defined.

    A fold is left out of a target where the score is NaN at every alpha; at single alphas it stays NaN.

    Raises
    ------
    UndefinedScore
        If the score is not defined in any fold.
    """
    gone = np.asarray(np.isnan(values).all(axis=1))
    if gone.all():
        raise UndefinedScore(
            f"the scoring is not defined in any of the {len(values)} folds: R² needs held-out rows of at "
            "least two values of y, AUC rows of both classes, a function must not give NaN. Use fewer folds, "
            "StratifiedKFold for classes, or another scoring."
        )
    kept = (~gone).sum(axis=0)
    parts = np.where(gone[:, None, :], 0.0, values)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = parts.sum(axis=0) / kept
        squares = np.where(gone[:, None, :], 0.0, (values - mean) ** 2).sum(axis=0)
        error = np.where(kept > 1, np.sqrt(squares / (kept - 1) / kept), 0.0)
    undefined = gone[:, kept > 0].any(axis=1).sum()
    return Scores(mean, error, int(undefined))


def _standard_error(values: Array) -> Array:
    """Return the standard error over folds of per-fold scores (K, A, T)."""
    k = len(values)
    if k < 2:
        return np.zeros(values.shape[1:])
    size = np.abs(values).max(axis=0)  # squared errors may be too large, or too small, to be squared
    size = np.where(size > 0, size, 1.0)
    return np.asarray((values / size).std(axis=0, ddof=1) * size / np.sqrt(k))


#: Below this share of the target's variance, squared errors from moments are rounding noise.
_TRUST_MOMENTS = 1e-7


def _scores_from_sse(context: Context, folds: list[_Fold], alphas: Array, scoring: Any) -> Scores:
    """Return the pooled mean squared error, or the mean over folds of MSE or −R², without reading rows."""
    errors, weights, variances = [], [], []
    for fold in folds:
        held = fold.held
        coef, intercept = context.model(fold.state, alphas)
        sse = held.deviance(coef, intercept)
        spread = held.weight * (held.y_scale**2 + (held.y_mean - context.statistic.y_mean) ** 2)
        if isinstance(held, Moments) and np.any(sse < _TRUST_MOMENTS * spread):
            sse = _sse_on_rows(context, fold, coef, intercept, sse)
        errors.append(sse)
        weights.append(held.weight)
        variances.append(targets_as_given(context.problem, held)[1] ** 2)
    share = np.array(weights)
    each = np.array(errors) / share[:, None, None]
    if scoring is None:
        return Scores(np.sum(errors, axis=0) / share.sum(), _standard_error(each))
    if scoring == "r2":
        variance = np.array(variances)[:, None, :]
        each = np.where(variance > 0, each / np.where(variance > 0, variance, 1.0) - 1, np.nan)
    return _over_folds(each)


def _sse_on_rows(context: Context, fold: _Fold, coef: Array, intercept: Array, otherwise: Array) -> Array:
    """Return the squared error of the picked rows, row by row: the moments would cancel.

    Where the rows are gone, `otherwise` (from the moments) has to do.
    """
    total, block = np.zeros(intercept.shape), None
    for block in context.problem.blocks():
        chosen = fold.pick(block)
        fitted = np.einsum("ij,ajt->ait", block.X[chosen], coef, optimize=True) + intercept[:, None, :]
        w = np.ones(int(chosen.sum())) if block.weights is None else block.weights[chosen]
        total += np.einsum("i,ait->at", w, (block.y[chosen] - fitted) ** 2)
    return otherwise if block is None else total
