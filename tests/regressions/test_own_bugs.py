"""Bugs that we had: each was a failing test before it was mended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.linear_model import Ridge as PeerRidge
from sklearn.model_selection import KFold as PlainKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

import elltwo
from elltwo import AIC, GCV, LOO, KFold, Lasso, Ridge, Status
from elltwo.errors import InputError

SOLVERS = ("auto", "spectral", "cholesky", "orthogonal", "dual")


def standardised_cv(X: Any, y: Any, alpha: float, splits: Any) -> float:
    """Pooled squared error of scikit-learn's scaler and ridge, refitted in each fold."""
    errors = []
    for train, test in splits:
        model = make_pipeline(StandardScaler(), PeerRidge(alpha)).fit(X[train], y[train])
        errors.append((y[test] - model.predict(X[test])) ** 2)
    return float(np.concatenate(errors).mean())


def test_a_level_that_is_absent_from_a_training_set_is_constant_there() -> None:
    """Rounding of a shift that other rows had needed made its deviation 1e-17 instead of 0."""
    rng = np.random.default_rng(0)
    town = rng.choice(["a", "b", "c"], 400).astype(object)
    town[10] = "rare"
    x = rng.normal(size=400)
    data = {"x": x, "town": town.tolist(), "y": x + (town == "a") + rng.normal(size=400)}
    fit = elltwo.fit(data, "y", select="kfold")
    assert fit.r2_cv is not None
    assert 0.55 < fit.r2_cv[0] < 0.65
    assert fit.status == ()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_column_constant_in_a_training_set_only(solver: str) -> None:
    """One shift for all atoms left noise in the variance of a column that is 7.3 in every other fold."""
    rng = np.random.default_rng(19)
    c = np.full(1000, 7.3)
    c[:200] += rng.normal(size=200)
    X = np.c_[rng.normal(size=1000) + 100, c]
    y = X[:, 0] - 100 + 3 * c / c.std() + rng.normal(size=1000)
    fit = Ridge(KFold(5, [1.0]), standardize=True, solver=solver).fit(X, y)
    want = standardised_cv(X, y, 1.0, PlainKFold(5).split(X))
    assert fit.path_.score == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("jump", [1e5, 1e7])
def test_levels_may_jump_between_rows(jump: float, solver: str) -> None:
    """A shift from the first rows cost (jump/sd)² roundoffs in the variance of the later ones."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=1000)
    x[:100] += jump
    weights = np.ones(1000)
    weights[:100] = 0.0
    y = x + rng.normal(size=1000)
    one = Ridge(1.0, standardize=True, solver=solver).fit(x[:, None], y, sample_weight=weights)
    two = Ridge(1.0, standardize=True, solver=solver).fit(x[100:, None], y[100:])
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=1e-12)


def test_a_column_that_varies_only_where_weights_are_zero_is_constant() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    X[:, 1] = 0
    X[:2, 1] = 1, 3
    weights = np.ones(400)
    weights[:2] = 0
    fit = Ridge(standardize=True).fit(X, X[:, 0] + rng.normal(size=400), sample_weight=weights)
    assert fit.coef_[1] == 0
    assert Status.CONSTANT_COLUMNS in fit.fit_.status


@pytest.mark.parametrize("size", [0.0, 1e-200])
@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_rows_of_weight_zero_have_no_say_in_whether_a_column_is_tiny(form: Any, size: float) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 3))
    y, weights = X[:, 0] + X[:, 1] + rng.normal(size=30), np.repeat([1.0, 0.0], [28, 2])
    X[:, 1] *= size
    X[28:, 1] = 1, 3
    for model in (Ridge(1.0, standardize=True), Lasso(0.01, standardize=True)):
        left_out = clone(model).fit(X[:28], y[:28]).predict(X[:28])
        weightless = model.fit(form(X), y, sample_weight=weights).predict(form(X[:28]))
        assert weightless == pytest.approx(left_out, rel=1e-8)


@pytest.mark.parametrize("n", [100, 400])
@pytest.mark.parametrize("solver", ["auto", "orthogonal"])
def test_penalty_whose_null_space_is_the_intercept(solver: str, n: int) -> None:
    """Difference penalty on splines that sum to one: the free direction is rounding noise once centred."""
    rng = np.random.default_rng(0)
    x = rng.random(n)
    y = np.sin(6 * x) + 0.3 * rng.normal(size=n)
    B = SplineTransformer(n_knots=10).fit_transform(x[:, None])
    D = np.diff(np.eye(B.shape[1]), axis=0)
    P = D.T @ D
    fit = Ridge(1.0, penalty=P, solver=solver).fit(B, y)
    Z = B - B.mean(axis=0)
    hat = Z @ np.linalg.pinv(Z.T @ Z + P, rcond=1e-10, hermitian=True) @ Z.T
    np.testing.assert_allclose(fit.predict(B), y.mean() + hat @ y, atol=1e-9)
    assert fit.fit_.df[0] == pytest.approx(np.trace(hat), rel=1e-9)
    assert Status.RANK_DEFICIENT in fit.fit_.status
    assert np.abs(fit.coef_).max() < 10


def test_a_row_that_alone_determines_a_free_coefficient_has_no_held_out_prediction() -> None:
    """0/0 was noise/noise, and chose alpha."""
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(size=(200, 3)), np.arange(200) == 7]
    y = X[:, :3].sum(axis=1) + rng.normal(size=200)
    with pytest.raises(InputError, match="by themselves"):
        Ridge(penalty=[1, 1, 1, 0]).fit(X, y)
    score = Ridge(LOO([0.0, 1.0])).fit(X, y).path_.score
    assert np.isnan(score[0])
    assert 0.5 < score[1] < 2


@pytest.mark.parametrize("rule", ["loo", "gcv", "kfold", "reml", "aic", "bic"])
def test_the_scale_of_weights_only_scales_alpha(rule: str) -> None:
    """cross²/g underflowed for small weights, and the spectrum rules chose noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    y = X.sum(axis=1) + rng.normal(size=50)
    one = Ridge(rule).fit(X, y, sample_weight=np.ones(50) * 1.0)
    small = Ridge(rule).fit(X, y, sample_weight=np.full(50, 1e-90))
    assert small.alpha_ == pytest.approx(one.alpha_ * 1e-90, rel=1e-4)
    with pytest.raises(InputError, match="weights average 1e-200"):
        Ridge(rule).fit(X, y, sample_weight=np.full(50, 1e-200))


def test_a_training_fold_without_weight_is_refused() -> None:
    rng = np.random.default_rng(0)
    X, weights = rng.normal(size=(40, 2)), np.zeros(40)
    weights[32:] = 1.0
    with pytest.raises(InputError, match="training rows of fold 0 all have weight 0"):
        Ridge(KFold(5, [1.0])).fit(X, X[:, 0], sample_weight=weights)


@pytest.mark.parametrize(
    ("cv", "words"),
    [
        ([([0, 0, 1, 2], [3, 4])], "more than once"),
        ([([0, 1], [40])], "row positions from 0 to 39"),
        ([(np.ones(3, dtype=bool), [1])], "mask of 40"),
        ("loo", "must be an integer, a splitter"),
    ],
)
def test_folds_that_make_no_sense_are_refused(cv: Any, words: str) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(InputError, match=words):
        Ridge(KFold(cv, [1.0])).fit(X, X[:, 0])


def test_a_generator_of_folds_serves_more_than_one_fit() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    model = Ridge(KFold(PlainKFold(4).split(X), [1.0, 2.0]))
    first = model.fit(X, X[:, 0]).path_.score
    np.testing.assert_array_equal(model.fit(X, X[:, 0]).path_.score, first)


def test_the_range_of_alphas_is_named_whatever_their_order() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    facts = Ridge(LOO([100, 1, 0.01])).fit(X, X[:, 0]).fit_.to_dict()
    assert (facts["alphas"]["smallest"], facts["alphas"]["largest"]) == (0.01, 100.0)


def test_an_intercept_that_is_zero_but_for_rounding_costs_no_digits() -> None:
    rng = np.random.default_rng(0)
    X = StandardScaler().fit_transform(rng.normal(size=(100, 4)))
    y = X.sum(axis=1) + rng.normal(size=100)
    fit = Ridge().fit(X, y - y.mean()).fit_
    assert fit.certificate.digits > 10
    assert Status.LOST_DIGITS not in fit.status


@pytest.mark.parametrize("solver", ["auto", "orthogonal"])
@pytest.mark.parametrize("alpha", [1e20, 1e100, 1e155, 1e300])
def test_an_alpha_that_dominates_costs_no_digits(alpha: float, solver: str) -> None:
    """Rows of size √α drowned the data in the QR of [R; √α·P^½]."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    y = X.sum(axis=1) + rng.normal(size=60)
    fit = Ridge(alpha, solver=solver).fit(X, y)
    want = (X - X.mean(axis=0)).T @ (y - y.mean()) / alpha
    np.testing.assert_allclose(fit.coef_, want, rtol=1e-12)


def test_duplicated_free_columns_are_reported() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    X[:, 1] = X[:, 0]
    fit = Ridge(1.0, penalty=[0, 0, 1]).fit(X, X.sum(axis=1)).fit_
    assert Status.RANK_DEFICIENT in fit.status


def test_a_perfect_fit_has_an_infinitely_good_information_criterion() -> None:
    X = np.random.default_rng(0).normal(size=(10, 20))
    fit = Ridge(AIC([0.0, 1.0, 10.0])).fit(X, X[:, 0])
    assert fit.alpha_ == 0
    assert Status.EDGE_LOW in fit.fit_.status


@pytest.mark.parametrize("rule", [LOO([0.0, 1.0]), GCV([0.0, 1.0]), KFold(5, [0.0, 1.0])])
def test_cholesky_says_why_it_cannot(rule: Any) -> None:
    X = np.random.default_rng(0).normal(size=(50, 2))[:, [0, 1, 1]]
    with pytest.raises(InputError, match=r"columns (nearly )?repeat each other"):
        Ridge(rule, solver="cholesky").fit(X, X[:, 0])


@pytest.mark.parametrize("name", ["standardize", "one_se", "alpha_per_target"])
def test_flags_are_booleans(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be True or False"):
        elltwo.fit({"x": [1.0, 2, 4], "y": [1.0, 2, 3]}, "y", **{name: "no"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 2.5}, "folds must be a whole number"),
        ({"select": "kfold", "seed": -1}, "seed must be a whole number"),
        ({"tol": "x"}, "tol must be a positive number"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: Any, words: str) -> None:
    table = {"x": [1.0, 2, 4, 3, 5, 7], "y": [1.0, 2, 3, 4, 4, 6]}
    with pytest.raises(InputError, match=words):
        elltwo.fit(table, "y", **options)


@pytest.mark.parametrize("name", ["penalty", "prior"])
def test_text_instead_of_numbers_is_refused(name: str) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(InputError, match=f"{name} must hold numbers"):
        Ridge(1.0, **{name: ["a", "b"]}).fit(X, X[:, 0])


@pytest.mark.parametrize("size", [1e155, 1e300, 1.5e308])
@pytest.mark.parametrize("alpha", ["loo", 1.0])
def test_numbers_whose_squares_overflow_are_refused(alpha: Any, size: float) -> None:
    """The fit was NaN, with 15.9 digits claimed."""
    X = np.c_[np.random.default_rng(0).normal(size=60), np.where(np.arange(60) % 2, size, -size)]
    with pytest.raises(InputError, match="overflow"):
        Ridge(alpha).fit(X, X[:, 0])


def test_one_se_that_takes_the_largest_alpha_says_what_that_means() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 3))
    y = 0.1 * X[:, 0] + rng.standard_t(2.5, size=300)
    fit = Ridge(LOO(one_se=True)).fit(X, y).fit_
    assert fit.alpha[0] == fit.path.alphas.max()
    assert Status.ONE_SE_EDGE in fit.status or Status.EDGE_HIGH in fit.status
    assert "edge of the grid" in fit.rule_text


def test_folds_are_named_in_words() -> None:
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=60), "g": np.arange(60) % 6, "y": rng.normal(size=60)}
    for options, words in (
        ({"select": "kfold"}, "5-fold cross-validation, rows dealt by a fixed shuffle"),
        ({"group": "g"}, "5-fold cross-validation that keeps groups together"),
        ({"time": "g"}, "5-fold cross-validation forward in time"),
    ):
        assert elltwo.fit(data, "y", **options).rule_text.startswith(words)


@pytest.mark.parametrize(("groups", "words"), [(3, "Use at most 3 folds"), (1, "Use another column")])
def test_too_few_groups_are_counted(groups: int, words: str) -> None:
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=60), "g": np.arange(60) % groups, "y": rng.normal(size=60)}
    with pytest.raises(InputError, match=f"{groups} distinct value.*too few for 5 folds. {words}"):
        elltwo.fit(data, "y", group="g")
