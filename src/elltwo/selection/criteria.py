"""What every rule shares: scores, and what a rule may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.folds import FoldPlan
from elltwo.problem import Problem
from elltwo.solvers.base import State, Statistic, models

Array = npt.NDArray[Any]
Criterion = Callable[[Array], "Scores"]


@dataclass(frozen=True)
class Scores:
    """A criterion at some alphas, smaller is better, with its standard error where there is one: (A, T).

    `undefined` counts the folds that were left out of it, since the scoring is not defined on them.
    """

    value: Array
    se: Array | None = None
    undefined: int = 0


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
