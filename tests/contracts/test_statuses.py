"""Every solver × every hard case: the same statuses, and none of them on the easy data beside it.

Each case has a neighbour that differs in the one thing that makes it hard. `ESTIMATED_DF` and `MOMENTS_ONLY`
say how something was measured, and are left out; so is `LOST_DIGITS` where another status says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from elltwo import GLM, KernelRidge
from elltwo.data.memory import MemorySource
from elltwo.elasticnet import fit_elastic_net
from elltwo.engine import fit_source, make_problem
from elltwo.errors import Status
from elltwo.results import Fit
from elltwo.run import Run
from elltwo.solvers import descent, reduced
from elltwo.solvers.gradient import GradientSolver
from elltwo.solvers.newton_cg import NewtonCGSolver
from elltwo.solvers.sgd import SGDSolver

Array = npt.NDArray[Any]

RNG = np.random.default_rng(0)
N = 60
x, z, other = RNG.normal(size=(3, N))
NOISY = (x + RNG.logistic(size=N) > 0).astype(float)
COUNTS = RNG.poisson(np.exp(0.5 * x)).astype(float)
STEEP = RNG.poisson(np.exp(2.5 * x)).astype(float)
MARK = (np.arange(N) < 4).astype(float)
REAL = x + RNG.normal(size=N)

#: What it is, features, target, loss, multipliers of the penalty: hard, and the neighbour.
CASES: dict[str, tuple[Status, tuple[list[Array], Array], tuple[list[Array], Array], str, Any]] = {
    "separated": (Status.SEPARATED, ([z, x], (x > 0) * 1.0), ([z, x], NOISY), "binomial", [1, 0]),
    "no event at a level": (
        Status.UNBOUNDED,
        ([x, MARK], np.where(MARK > 0, 0.0, COUNTS)),
        ([x, MARK], COUNTS + MARK),
        "poisson",
        [1, 0],
    ),
    "no event": (Status.UNBOUNDED, ([x, z], 0 * COUNTS), ([x, z], COUNTS), "poisson", None),
    "nothing but events": (Status.UNBOUNDED, ([x, z], 1 + 0 * COUNTS), ([x, z], NOISY), "binomial", None),
    "dependent columns": (
        Status.RANK_DEFICIENT,
        ([other, x, z, x + z], COUNTS),
        ([other, x, z, x * z], COUNTS),
        "poisson",
        [1, 0, 0, 0],
    ),
    "few digits": (Status.LOST_DIGITS, ([x, 1e11 + z], COUNTS), ([x, 1e2 + z], COUNTS), "poisson", None),
    "dependent columns, squares": (
        Status.RANK_DEFICIENT,
        ([other, x, z, x + z], REAL),
        ([other, x, z, x * z], REAL),
        "gaussian",
        [1, 0, 0, 0],
    ),
    "few digits, squares": (
        Status.LOST_DIGITS, ([x, 1e11 + z], REAL), ([x, 1e2 + z], REAL), "gaussian", None
    ),
}  # fmt: skip
SOLVERS = ("newton", "newton-dual", "newton-cg", "gradient", "l1")
ABOUT = {Status.ESTIMATED_DF, Status.MOMENTS_ONLY, Status.LOO_UNAVAILABLE, Status.ORTHOGONAL}


def by_name(solver: str, columns: list[Array], y: Array, loss: str, penalty: Any, **options: Any) -> Fit:
    """Fit at α = 1 by a solver."""
    source = MemorySource(np.column_stack(columns), y)
    if solver == "l1":
        return fit_elastic_net(source, 1.0, l1_ratio=0.5, loss=loss, penalty=penalty, **options)[0]
    own = {"gradient": GradientSolver, "sgd": SGDSolver, "newton-cg": NewtonCGSolver}
    if loss != "gaussian" and solver not in own:
        return fit_source(source, 1.0, loss=loss, penalty=penalty, solver=solver)
    problem = make_problem(
        source, fit_intercept=True, standardize=False, penalty=penalty, prior=None, loss=loss
    )
    run = Run(problem, None, np.array([1.0]), None, False, "sum", 1e-10, None)
    return run.fit(own[solver](**options), "")


def pairs() -> list[tuple[str, str]]:
    """Return (case, solver); squared error has closed forms, which have a contract of their own."""
    iterated = {"gaussian": ("gradient", "l1")}
    return [(case, solver) for case in CASES for solver in iterated.get(CASES[case][3], SOLVERS)]


@pytest.mark.parametrize(("case", "solver"), pairs())
def test_statuses_mean_the_same_in_every_solver(case: str, solver: str) -> None:
    status, hard, easy, loss, penalty = CASES[case]
    found = set(by_name(solver, *hard, loss, penalty).status) - ABOUT
    assert found - {Status.LOST_DIGITS} == {status} - {Status.LOST_DIGITS}
    assert status in found
    assert set(by_name(solver, *easy, loss, penalty).status) - ABOUT == set()


@pytest.mark.parametrize("solver", [*SOLVERS, "sgd"])
def test_what_was_not_reached_is_told(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, (y, loss) = [x, z], ((STEEP > 0) * 1.0, "binomial") if solver == "l1" else (COUNTS, "poisson")
    short: dict[str, dict[str, Any]] = {
        "newton-cg": {"max_steps": 1}, "gradient": {"max_passes": 3}, "sgd": {"epochs": 1},
        "l1": {"max_iter": 1},
    }  # fmt: skip
    assert set(by_name(solver, columns, y, loss, None).status) - ABOUT == set()
    monkeypatch.setattr(descent, "MOST_TRIES", 1)
    monkeypatch.setattr(reduced, "MOST_REFINEMENTS", 0)
    found = by_name(solver, columns, y, loss, None, **short.get(solver, {}))
    assert Status.NOT_CONVERGED in found.status
    assert found.certificate.digits < 6


def test_a_fit_that_is_worse_than_no_features_was_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its gradient says: with a penalty towards 0 the optimum is never above the model without."""
    source = MemorySource(np.column_stack([x, z]), COUNTS)
    monkeypatch.setattr("elltwo.solvers.rowset.RowSet.deviance", lambda self, coef, b: np.full((1, 1), 1e6))
    fit = fit_source(source, 1.0, loss="poisson", solver="newton")
    assert fit.certificate.residual < 1e-10
    assert Status.NOT_CONVERGED in fit.status
    assert fit.certificate.digits == 0


@pytest.mark.parametrize("solver", ["exact", "cholesky", "auto", "cg"])
def test_kernel_ridge_tells_lost_digits_whichever_solver(solver: str) -> None:
    X = np.column_stack([x, z])
    hard, easy = (
        KernelRidge(alpha, kernel="rbf", gamma=0.01, solver=solver).fit(X, REAL).fit_
        for alpha in (1e-11, 1.0)
    )
    assert Status.LOST_DIGITS in hard.status
    assert easy.status == ()


def test_kernel_ridge_tells_a_singular_kernel_matrix() -> None:
    X = np.column_stack([x, z])
    for rows, status in ((np.vstack([X[:10], X[:10]]), (Status.RANK_DEFICIENT,)), (X[:20], ())):
        fit = KernelRidge(0.0, kernel="rbf", gamma=5.0, solver="exact").fit(rows, REAL[:20]).fit_
        assert tuple(s for s in fit.status if s is Status.RANK_DEFICIENT) == status


def test_the_default_of_huber_is_the_documented_one() -> None:
    """95 % efficient for normal errors (Huber, 1964)."""
    assert GLM("huber").fit(x[:, None], z).fit_.loss.epsilon == 1.35
