"""What every rule shares: scores, what a rule may look at, and scoring functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.errors import InputError, did_you_mean
from elltwo.folds import FoldPlan
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
