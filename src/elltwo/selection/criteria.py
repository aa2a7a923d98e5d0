"""What every rule shares: scores, what a rule may look at, and scoring functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.errors import InputError, did_you_mean
from elltwo.folds import FoldPlan
from elltwo.problem import Problem
from elltwo.solvers.base import State, Statistic, models

Array = npt.NDArray[Any]
Criterion = Callable[[Array], "Scores"]
#: A scoring function (y (n,), predicted mean (n,), weights (n,)) -> float, larger is better; of classes, y
#: and prediction are (n, K), a column per class.
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
        return models(state, alphas, self.problem.fit_intercept)

    def train(self, statistic: Statistic) -> State:
        """Return the state of a training set, with its own centring and scaling."""
        form = self.problem.form(statistic.x_scale)
        state: State = self.solver.state(statistic, form, self.problem.fit_intercept)
        return state

    def train_all(self, statistics: Sequence[Statistic]) -> list[State]:
        """Return the states of several training sets, solved together by a solver that can."""
        if not hasattr(self.solver, "states"):
            return [self.train(statistic) for statistic in statistics]
        forms = [self.problem.form(statistic.x_scale) for statistic in statistics]
        states: list[State] = self.solver.states(statistics, forms, self.problem.fit_intercept, self.state)
        return states

    def score(self, metric: Metric, y: Array, eta: Array, weights: Array) -> Array:
        """Return −metric of the predictions at η (m, A, T) for targets y (m, T), shape (A, S)."""
        mean = self.problem.loss.mean(eta)
        if self.problem.loss.link == "margin":  # classes −1 and 1 parted at 0 become 0 and 1 parted at ½
            y, mean = (y + 1) / 2, mean + 0.5
        if self.problem.loss.coupled:
            return np.array([[-metric(y, mean[:, a], weights)] for a in range(eta.shape[1])])
        T = y.shape[1]
        return np.array(
            [[-metric(y[:, t], mean[:, a, t], weights) for t in range(T)] for a in range(eta.shape[1])]
        )


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


def merge(statistics: Iterable[Any]) -> Any:
    """Return all statistics merged, in order."""
    total, *rest = statistics
    for statistic in rest:
        total = total.merge(statistic)
    return total


def _weighted_mean(values: Array, weights: Array) -> float:
    return float(weights @ values / weights.sum())


def _r2(y: Array, prediction: Array, weights: Array) -> float:
    spread = _weighted_mean((y - _weighted_mean(y, weights)) ** 2, weights)
    return 1 - _weighted_mean((y - prediction) ** 2, weights) / spread


def _accuracy(y: Array, prediction: Array, weights: Array) -> float:
    if y.ndim == 2:
        return _weighted_mean(y.argmax(axis=1) == prediction.argmax(axis=1), weights)
    return _weighted_mean((y > 0.5) == (prediction > 0.5), weights)


def _log_loss(y: Array, prediction: Array, weights: Array) -> float:
    tiny = np.finfo(np.float64).tiny
    if y.ndim == 2:
        return -_weighted_mean(np.sum(y * np.log(np.maximum(prediction, tiny)), axis=1), weights)
    likelihood = y * np.log(np.maximum(prediction, tiny)) + (1 - y) * np.log(np.maximum(1 - prediction, tiny))
    return -_weighted_mean(likelihood, weights)


def _brier(y: Array, prediction: Array, weights: Array) -> float:
    squares = (y - prediction) ** 2
    return _weighted_mean(squares.sum(axis=1) if y.ndim == 2 else squares, weights)


def _auc(y: Array, prediction: Array, weights: Array) -> float:
    """Return the area under the ROC curve; of several classes, the mean over each against the rest."""
    from sklearn.metrics import roc_auc_score

    if y.ndim == 2:
        return float(np.mean([_auc(y[:, k], prediction[:, k], weights) for k in range(y.shape[1])]))
    positive = y > 0.5
    if positive.all() or not positive.any():
        raise InputError(
            "roc_auc needs rows of both classes among the held-out ones, and some fold has only one. "
            "Use fewer folds, a stratified splitter (StratifiedKFold), or another scoring."
        )
    return float(roc_auc_score(positive, prediction, sample_weight=weights))


#: Named scoring functions, larger is better, with scikit-learn's names.
SCORINGS: dict[str, Metric] = {
    "neg_mean_squared_error": lambda y, f, w: -_weighted_mean((y - f) ** 2, w),
    "neg_root_mean_squared_error": lambda y, f, w: -float(np.sqrt(_weighted_mean((y - f) ** 2, w))),
    "neg_mean_absolute_error": lambda y, f, w: -_weighted_mean(np.abs(y - f), w),
    "r2": _r2,
    "accuracy": _accuracy,
    "neg_log_loss": lambda y, f, w: -_log_loss(y, f, w),
    "neg_brier_score": lambda y, f, w: -_brier(y, f, w),
    "roc_auc": _auc,
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
