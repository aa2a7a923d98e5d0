"""Every solver gives the same answer: the oracle's, each other's, and scikit-learn's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge as PeerRidge

import oracles
from elltwo import GCV, LOO, REML, KFold, Ridge, Status
from elltwo.errors import InputError
from elltwo.fitting import fit_source
from elltwo.results import Fit
from oracles import Model
from shapes import SHAPES, VARIATIONS, alphas_for, dealt, options, problem, shape, source

SOLVERS = ("spectral", "cholesky", "orthogonal", "dual")

every_solver = pytest.mark.parametrize("solver", SOLVERS)
every_shape = pytest.mark.parametrize("shape_name", SHAPES)
every_variation = pytest.mark.parametrize("variation", VARIATIONS)


def run(model: Model, alpha: Any, solver: str = "auto") -> Fit:
    return fit_source(source(model), alpha, solver=solver, **options(model))


def assert_solves(model: Model, alpha: float, fit: Fit, tolerance: float) -> None:
    coef, intercept = oracles.solve(model, alpha)
    assert oracles.coefficient_error(model, alpha, fit.coef, coef) <= tolerance
    assert oracles.intercept_error(model, fit.coef, fit.intercept, intercept) <= tolerance


def moderate_alphas(model: Model) -> list[float]:
    """Alphas at which any stable method has the promised 1e-9: SAFETY·u·κ² < 1e-9, that is κ < 300."""
    alphas = [float(a) for a in alphas_for(model, low=-6, high=1, count=8)]
    moderate = [a for a in alphas if oracles.SAFETY * oracles.UNIT * oracles.condition(model, a) ** 2 < 1e-9]
    assert len(moderate) >= 4
    return moderate


@pytest.mark.parametrize(("shape_name", "variation", "solver"), dealt(SHAPES, VARIATIONS, SOLVERS))
def test_named_solver_gives_the_oracles_coefficients(shape_name: str, variation: str, solver: str) -> None:
    model = problem(shape_name, variation)
    for alpha in moderate_alphas(model):
        fit = run(model, alpha, solver)
        assert fit.solver == solver
        assert_solves(model, alpha, fit, 1e-9)


@pytest.mark.parametrize(
    ("shape_name", "variation", "solver"), dealt(SHAPES, VARIATIONS, ["auto", "orthogonal"])
)
def test_small_alphas_cost_no_more_than_the_condition_number(
    shape_name: str, variation: str, solver: str
) -> None:
    """Forward error of least squares: SAFETY·u·(κ + κ²·‖r‖/‖y‖), with alphas down to 1e-11 of the largest."""
    model = problem(shape_name, variation)
    for alpha in alphas_for(model, low=-11, high=-7, count=3):
        kappa = oracles.condition(model, alpha)
        share = min(
            1.0, float(np.sqrt(oracles.rss(model, np.array([alpha])).max() / (model.w @ model.y**2).min()))
        )
        tolerance = max(1e-9, oracles.SAFETY * oracles.UNIT * (kappa + kappa**2 * share))
        assert_solves(model, float(alpha), run(model, alpha, solver), tolerance)


@every_variation
@every_shape
def test_automatic_choice_satisfies_the_optimality_condition(shape_name: str, variation: str) -> None:
    """The backward error is at rounding level, whatever the condition number."""
    model = problem(shape_name, variation)
    n, p = model.X.shape
    for alpha in alphas_for(model, low=-9, high=2, count=5):
        fit = run(model, alpha)
        # Sums of n products in each component, p components in each residual.
        assert oracles.kkt_residual(model, alpha, fit.coef, fit.intercept) <= 4 * (n + p) * oracles.UNIT


def true_digits(model: Model, alpha: float, fit: Fit) -> float:
    """Correct digits of the worst coefficient, intercept included."""
    coef, intercept = oracles.solve_exact(model, alpha)
    truth = np.concatenate([coef.ravel(), intercept.ravel() if model.fit_intercept else []])
    found = np.concatenate([fit.coef.ravel(), fit.intercept.ravel() if model.fit_intercept else []])
    known = np.abs(truth) > 1e-30 * np.abs(truth).max()  # the rest are constant columns, at exactly 0
    error = float((np.abs(found - truth)[known] / np.abs(truth[known])).max())
    return 16.0 if error == 0 else -np.log10(error)


@pytest.mark.parametrize("variation", ["plain", "weighted", "standardised", "everything"])
@every_shape
def test_certificate_bounds_the_true_error(shape_name: str, variation: str) -> None:
    """Claimed digits are never more than one above the worst coefficient's true digits."""
    model = problem(shape_name, variation)
    for alpha in alphas_for(model, low=-7, high=0, count=2):
        fit = run(model, float(alpha))
        assert fit.certificate.digits <= true_digits(model, float(alpha), fit) + 1


@every_solver
@pytest.mark.parametrize("shape_name", ["badly_scaled", "wide_badly_scaled", "wide_offset", "near_collinear"])
def test_certificate_of_a_named_solver_bounds_the_true_error(shape_name: str, solver: str) -> None:
    """Also where the named solver is not the one that the automatic choice would take."""
    for variation in ("plain", "penalised"):
        model = problem(shape_name, variation)
        for alpha in moderate_alphas(model)[::2]:
            fit = run(model, alpha, solver)
            assert fit.certificate.digits <= true_digits(model, alpha, fit) + 1


@every_shape
def test_equal_to_scikit_learn_at_the_same_alpha(shape_name: str) -> None:
    """To 1e-9, or to the digits that the peer loses by centring columns of large mean: u·κ·max|x̄|/s."""
    for variation in ("plain", "weighted", "no_intercept"):
        model = problem(shape_name, variation)
        mean_over_spread = np.max(np.abs(model.X.mean(axis=0)) / np.asarray(model.scales(), dtype=float))
        for alpha in moderate_alphas(model):
            peer = PeerRidge(alpha=alpha, fit_intercept=model.fit_intercept, solver="svd", tol=1e-15)
            peer.fit(model.X, model.y, sample_weight=model.weights)
            ours = Ridge(alpha=alpha, fit_intercept=model.fit_intercept)
            ours.fit(model.X, model.y, sample_weight=model.weights)
            lost = (
                oracles.SAFETY * oracles.UNIT * oracles.condition(model, alpha) * max(1.0, mean_over_spread)
            )
            tolerance = max(1e-9, lost)
            coef = np.atleast_2d(ours.coef_).T
            assert oracles.coefficient_error(model, alpha, coef, np.atleast_2d(peer.coef_).T) <= tolerance
            found, want = np.atleast_1d(ours.intercept_), np.atleast_1d(peer.intercept_)
            assert oracles.intercept_error(model, coef, found, want) <= tolerance


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("targets", [None, 1, 2])
def test_shapes_are_scikit_learns(targets: int | None, fit_intercept: bool) -> None:
    """Of coefficients, intercept and prediction, for y of shape (n,), (n, 1) and (n, 2)."""
    model = shape("multi_target")
    y = model.y[:, 0] if targets is None else model.y[:, :targets]
    peer = PeerRidge(alpha=1.0, fit_intercept=fit_intercept).fit(model.X, y)
    ours = Ridge(alpha=1.0, fit_intercept=fit_intercept).fit(model.X, y)
    assert ours.coef_.shape == peer.coef_.shape
    assert np.shape(ours.intercept_) == np.shape(peer.intercept_)
    assert ours.predict(model.X).shape == peer.predict(model.X).shape


RULES = ("loo", "gcv", "reml", "aic", "bic", "kfold")


# A Cholesky factorisation has no spectrum, from which the restricted likelihood is made.
REFUSED = {("cholesky", "reml")}
SERVED = [(solver, alpha) for solver in SOLVERS for alpha in RULES if (solver, alpha) not in REFUSED]


@pytest.mark.parametrize(("solver", "alpha"), SERVED)
def test_named_solver_serves_every_rule(solver: str, alpha: str) -> None:
    # Dealt so that every solver and every rule meets every shape.
    shapes = ("tall", "wide", "multi_target")
    model = problem(shapes[(SOLVERS.index(solver) + RULES.index(alpha)) % 3], "weighted")
    auto = Ridge(alpha=alpha).fit(model.X, model.y, sample_weight=model.weights)
    named = Ridge(alpha=alpha, solver=solver).fit(model.X, model.y, sample_weight=model.weights)
    assert named.fit_.solver == solver
    # The optimum of a smooth criterion is known to about the square root of rounding.
    np.testing.assert_allclose(named.alpha_, auto.alpha_, rtol=1e-6)
    np.testing.assert_allclose(named.coef_, auto.coef_, rtol=0, atol=1e-6 * np.abs(auto.coef_).max())


@pytest.mark.parametrize(("solver", "alpha"), sorted(REFUSED))
def test_rule_that_a_solver_cannot_serve_is_refused(solver: str, alpha: str) -> None:
    for rule in (alpha, REML(alphas=[1.0, 2.0])):
        with pytest.raises(InputError, match=solver):
            run(shape("tall"), rule, solver)


@pytest.mark.parametrize(
    ("shape_name", "solver", "variation"),
    dealt(
        ["tall", "wide", "badly_scaled", "one_hot_and_constant"],
        SOLVERS,
        ["plain", "standardised", "everything"],
    ),
)
def test_named_solver_gives_the_same_path(shape_name: str, variation: str, solver: str) -> None:
    """To 1e-9, or the error u·κ² of a leverage relative to what is left, 1 − h."""
    model = problem(shape_name, variation)
    alphas = alphas_for(model, low=-4, high=2, count=5)
    left = 1 - np.diagonal(oracles.hat_matrix(model, alphas), axis1=1, axis2=2)[:, model.w > 0].max(axis=1)
    kappa = np.array([oracles.condition(model, a) for a in alphas])
    rtol = np.maximum(1e-9, oracles.SAFETY * oracles.UNIT * kappa**2 / left.astype(float))
    for rule in (LOO(alphas=alphas), GCV(alphas=alphas), KFold(cv=3, alphas=alphas)):
        auto, named = run(model, rule), run(model, rule, solver)
        assert (np.abs(named.path.score - auto.path.score) <= rtol * np.abs(auto.path.score)).all()
        np.testing.assert_allclose(named.path.df, auto.path.df, rtol=1e-9)
        assert named.alpha[0] == auto.alpha[0]


@every_solver
@pytest.mark.parametrize("shape_name", ["tall", "wide", "square"])
def test_penalty_matrix_that_leaves_a_direction_free(shape_name: str, solver: str) -> None:
    """P = DᵀD of first differences does not penalise a common shift of all coefficients."""
    model = shape(shape_name)
    n, p = model.X.shape
    differences = np.diff(np.eye(p), axis=0)
    for alpha in (0.5, 20.0):
        rows = np.column_stack([np.ones(n), model.X])
        below = np.column_stack([np.zeros(p - 1), np.sqrt(alpha) * differences])
        want = oracles.least_squares(np.vstack([rows, below]), np.vstack([model.y, np.zeros((p - 1, 1))]))
        fit = fit_source(source(model), alpha, penalty=differences.T @ differences, solver=solver)
        np.testing.assert_allclose(fit.coef, want[1:].astype(float), rtol=0, atol=1e-9)
        np.testing.assert_allclose(fit.intercept, want[0].astype(float), rtol=0, atol=1e-9)
        assert 1 < fit.df[0] < min(n - 1, p)


@pytest.mark.parametrize("alpha", [0.0, 1.0, *RULES])
def test_nothing_but_constant_columns_gives_the_mean(alpha: Any) -> None:
    y = np.array([1.0, 2.0, 6.0, 3.0, 4.0, 2.0])
    fit = run(Model(np.ones((6, 2)) * [3.0, 0.0], y[:, None]), alpha)
    np.testing.assert_array_equal(fit.coef, np.zeros((2, 1)))
    np.testing.assert_allclose(fit.intercept, [3.0], rtol=1e-15)
    assert Status.CONSTANT_COLUMNS in fit.status


@pytest.mark.parametrize("solver", ["svd", "", "AUTO", None, 3])
def test_unknown_solver_is_refused(solver: Any) -> None:
    model = shape("tall")
    with pytest.raises(ValueError, match="solver"):
        run(model, 1.0, solver)


# Squares of singular values cannot tell a dependent column from a nearly dependent one.
SINGULAR = {
    "rank_deficient": ("auto", "orthogonal"),
    "wide": ("auto", "orthogonal", "dual"),
}


@pytest.mark.parametrize(("shape_name", "solver"), [(s, name) for s in SINGULAR for name in SINGULAR[s]])
def test_dependent_columns_without_penalty_give_the_smallest_norm(shape_name: str, solver: str) -> None:
    model = shape(shape_name)
    Z, y = model.X - model.X.mean(axis=0), model.y - model.y.mean(axis=0)
    want = np.linalg.pinv(Z, rcond=1e-12) @ y
    fit = run(model, 0.0, solver)
    np.testing.assert_allclose(fit.coef, want, rtol=0, atol=1e-9 * np.abs(want).max())
    assert Status.RANK_DEFICIENT in fit.status


@pytest.mark.parametrize(
    ("shape_name", "solver"), [(s, name) for s in SINGULAR for name in SOLVERS if name not in SINGULAR[s]]
)
def test_solver_that_cannot_serve_a_singular_problem_says_so(shape_name: str, solver: str) -> None:
    with pytest.raises(InputError, match=solver):
        run(shape(shape_name), 0.0, solver)


def columns_that_agree_to_nine_digits() -> Model:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(40, 3))
    X[:, 2] = X[:, 0] + 1e-9 * rng.normal(size=40)
    return Model(X, (X.sum(axis=1) + rng.normal(size=40))[:, None])


@pytest.mark.parametrize("solver", ["spectral", "cholesky", "dual"])
def test_solver_that_would_lose_the_answer_says_so(solver: str) -> None:
    with pytest.raises(InputError, match=solver):
        run(columns_that_agree_to_nine_digits(), 0.0, solver)


@pytest.mark.parametrize("solver", ["auto", "orthogonal"])
def test_orthogonal_solver_keeps_nearly_dependent_columns(solver: str) -> None:
    model = columns_that_agree_to_nine_digits()
    coef, _ = oracles.solve_exact(model, 0.0)
    fit = run(model, 0.0, solver)
    kappa = oracles.condition(model, 0.0)
    assert oracles.coefficient_error(model, 0.0, fit.coef, coef) <= oracles.SAFETY * oracles.UNIT * kappa**2
    digits = -np.log10(float((np.abs(fit.coef - coef) / np.abs(coef)).max()))
    assert fit.certificate.digits <= digits + 1
    assert Status.RANK_DEFICIENT not in fit.status


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
@pytest.mark.parametrize("shape_name", ["tall", "wide", "offset", "badly_scaled", "one_hot_and_constant"])
def test_sparse_is_dense(shape_name: str, solver: str) -> None:
    model = problem(shape_name, "weighted")
    alpha = moderate_alphas(model)[0]
    dense = Ridge(alpha=alpha, solver=solver).fit(model.X, model.y, sample_weight=model.weights)
    for make in (sparse.csr_array, sparse.csc_array, sparse.coo_array, sparse.csr_matrix):
        fit = Ridge(alpha=alpha, solver=solver).fit(make(model.X), model.y, sample_weight=model.weights)
        np.testing.assert_allclose(fit.coef_, dense.coef_, rtol=0, atol=1e-10 * np.abs(dense.coef_).max())


def test_no_warning_is_given_by_hard_but_legal_problems() -> None:
    """What is to be known travels as a Status; nothing is printed or warned."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape_name in SHAPES:
            for alpha in (0.0, 1e-300, 1e300, "loo"):
                run(shape(shape_name), alpha)


@every_shape
def test_rank_is_reported_at_alpha_zero(shape_name: str) -> None:
    model = shape(shape_name)
    Z = model.X - model.X.mean(axis=0)
    varying = np.ptp(model.X, axis=0) > 0
    Z = Z[:, varying] / np.linalg.norm(Z[:, varying], axis=0)
    deficient = np.linalg.matrix_rank(Z, tol=1e-8) < varying.sum()
    fit = run(model, 0.0)
    assert (Status.RANK_DEFICIENT in fit.status) == deficient
    assert (Status.CONSTANT_COLUMNS in fit.status) == (not varying.all())
    assert (fit.coef[~varying] == 0).all()
