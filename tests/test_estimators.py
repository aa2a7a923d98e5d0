"""Classifiers, GLM and support vector regression: scikit-learn's calls, with its estimators beside ours."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import sparse
from sklearn import config_context
from sklearn import linear_model as peer
from sklearn import svm as peer_svm
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.model_selection import KFold as PlainKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import elltwo
from elltwo import (
    GLM,
    LOO,
    InputError,
    KFold,
    LinearSVC,
    LinearSVR,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
)
from elltwo.losses import Gamma, Huber, Multinomial, SquaredHinge, Tweedie
from elltwo.selection import grid
from sklearn_checks import assert_checks_pass

Array = np.ndarray
NAMES = ["age", "income", "debt", "children"]
CLASSIFIERS = (LogisticRegression, LinearSVC, RidgeClassifier)
REGRESSORS = (GLM, LinearSVR)


def rng_for(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


def features(n: int = 90, p: int = 4, seed: str = "features") -> Array:
    return rng_for(seed).normal(size=(n, p)) * [1.0, 2.0, 0.5, 1.0][:p] + [0.0, 1.0, -1.0, 0.5][:p]


def labels(X: Array, K: int = 2, seed: str = "labels") -> Array:
    """Return classes 0 … K − 1 that X tells apart in part."""
    eta = X @ rng_for(seed).normal(size=(X.shape[1], K)) + rng_for(seed + "noise").gumbel(size=(len(X), K))
    return eta.argmax(axis=1)


def weights_for(n: int = 90) -> Array:
    return rng_for("weights").uniform(0.3, 3.0, size=n)


X = features()
W = weights_for()
NUMBERS = X @ [1.0, -0.5, 2.0, 0.0] + 3 + rng_for("numbers").normal(size=90)
COUNTS = rng_for("counts").poisson(np.exp(0.4 * X[:, 0] - 0.3 * X[:, 1] + 1))
AMOUNTS = rng_for("amounts").gamma(2.0, np.exp(0.4 * X[:, 0] + 0.2 * X[:, 2]))
CLAIMS = np.where(rng_for("claims").uniform(size=90) < 0.4, 0.0, AMOUNTS)
DAYS = rng_for("days").uniform(0.5, 20.0, size=90)


def assert_close(found: Any, want: Any, rtol: float = 1e-8) -> None:
    """Compare arrays of one shape, relative to the largest entry."""
    found, want = np.asarray(found), np.asarray(want)
    assert found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=0, atol=rtol * max(1e-300, np.abs(want).max()))


def assert_same(found: Any, want: Any, rtol: float = 1e-8) -> None:
    for name in ("coef_", "intercept_"):
        assert_close(getattr(found, name), getattr(want, name), rtol)


def assert_alike(found: Array, want: Array) -> None:
    """Compare labels exactly, and numbers up to the order of their sums."""
    if found.dtype.kind == "f":
        assert_close(found, want, 1e-13)
    else:
        np.testing.assert_array_equal(found, want)


# ------------------------------------------------------------------------------- scikit-learn's own checks


@pytest.mark.parametrize("name", [c.__name__ for c in (*CLASSIFIERS, *REGRESSORS)])
def test_scikit_learns_checks_pass_without_exceptions_or_skips(name: str) -> None:
    assert_checks_pass(rules=(f"{name}()",), least=55)


def test_estimators_say_what_they_are() -> None:
    assert all(is_classifier(c()) for c in CLASSIFIERS)
    assert all(is_regressor(c()) for c in REGRESSORS)


# ------------------------------------------------------------------------------------------------ logistic


def peer_logistic(**options: Any) -> Any:
    return peer.LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000, **options)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weights", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("K", [2, 3, 5])
def test_logistic_is_the_peers(K: int, weights: Array | None, fit_intercept: bool) -> None:
    y = labels(X, K)
    ours = LogisticRegression(C=0.3, fit_intercept=fit_intercept).fit(X, y, sample_weight=weights)
    theirs = peer_logistic(C=0.3, fit_intercept=fit_intercept).fit(X, y, sample_weight=weights)
    assert_same(ours, theirs)
    assert ours.alpha_ == pytest.approx(1 / 0.3)
    assert isinstance(ours.alpha_, float)
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        assert_close(getattr(ours, method)(X), getattr(theirs, method)(X))
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == theirs.score(X, y)


@pytest.mark.parametrize("K", [2, 3])
def test_probabilities_stay_accurate_far_from_the_boundary(K: int) -> None:
    y = labels(X, K)
    model = LogisticRegression(1.0).fit(X, y)
    far = X * 1e4
    eta = model.decision_function(far)
    logs, shares = model.predict_log_proba(far), model.predict_proba(far)
    assert np.isfinite(logs).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-14)
    stacked = np.column_stack([np.zeros(len(far)), eta]) if K == 2 else eta
    want = stacked - np.logaddexp.reduce(stacked, axis=1, keepdims=True)
    near = np.abs(want) < 250
    np.testing.assert_allclose(logs[near], want[near], rtol=1e-9, atol=1e-12)
    assert (logs[~near] < -200).all()


@pytest.mark.parametrize("weights", [None, W], ids=["unweighted", "weighted"])
def test_multinomial_is_symmetric(weights: Array | None) -> None:
    y = labels(X, 4)
    model = LogisticRegression(2.0).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(model.coef_.sum(axis=0), 0.0, atol=1e-10)
    assert abs(model.intercept_.sum()) < 1e-9
    # The fitted probabilities of a class sum to its rows: the intercept is free.
    w = np.ones(90) if weights is None else weights
    np.testing.assert_allclose(w @ model.predict_proba(X), np.bincount(y, w), rtol=1e-9)


# -------------------------------------------------------------------------------------------------- labels

LABELS: dict[str, Callable[[Array], Any]] = {
    "integers": lambda y: y * 7 - 3,
    "booleans": lambda y: y == 1,
    "text": lambda y: np.array(["ant", "bee", "cat"])[y],
    "objects": lambda y: np.array(["ant", "bee", "cat"], dtype=object)[y],
    "whole floats": lambda y: y.astype(np.float32),
    "list": lambda y: np.array(["ant", "bee", "cat"])[y].tolist(),
    "pandas": lambda y: pd.Series(np.array(["ant", "bee", "cat"])[y]),
    "pandas category": lambda y: pd.Series(np.array(["ant", "bee", "cat"])[y], dtype="category"),
    "pandas Int64": lambda y: pd.Series(y).astype("Int64"),
    "pandas boolean": lambda y: pd.Series(y == 1).astype("boolean"),
    "polars": lambda y: pl.Series(np.array(["ant", "bee", "cat"])[y].tolist()),
}


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("make", CLASSIFIERS)
def test_labels_of_every_kind(make: Any, kind: str, K: int) -> None:
    codes = labels(X, K)
    given = LABELS[kind](codes)
    model = make(1.0).fit(X, given)
    plain = np.asarray(given.to_list() if hasattr(given, "to_list") else given)
    np.testing.assert_array_equal(model.classes_, np.unique(plain))
    found = model.predict(X)
    assert set(found) <= set(model.classes_)
    assert model.score(X, plain) == np.mean(found == plain) > 1 / K
    two = len(model.classes_) == 2
    assert model.coef_.shape == ((1 if two else K), 4)
    assert model.intercept_.shape == ((1 if two else K),)
    assert model.decision_function(X).shape == ((90,) if two else (90, K))
    assert model.fit_.classes == tuple(model.classes_.tolist())
    if not two:
        assert model.fit_.target_names == tuple(str(c) for c in model.classes_)


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_a_saved_model_keeps_its_classes(make: Any, tmp_path: Any) -> None:
    model = make(1.0).fit(X, np.array(["ant", "bee", "cat"])[labels(X, 3)])
    model.fit_.save(tmp_path / "model.l2")
    again = elltwo.load(tmp_path / "model.l2")
    assert again.classes == ("ant", "bee", "cat")
    np.testing.assert_array_equal(again.coef, model.fit_.coef)


BAD_LABELS: dict[str, tuple[Any, Any, str]] = {
    "one class": (np.full(90, "ant"), None, r"only one class, 'ant'; .* at least 2 classes"),
    "one class of positive weight": (
        labels(X),
        labels(X).astype(float),
        r"only one class, 1 in the rows of positive weight",
    ),
    "numbers": (NUMBERS, None, "Unknown label type"),
    "mixed": (np.array(["ant", 1] * 45, dtype=object), None, "labels|Unknown label type"),
    "None": (np.array(["ant", None, "bee"] * 30, dtype=object), None, "labels|Unknown label type"),
    "NaN": (np.where(X[:, 0] > 0, 1.0, np.nan), None, "NaN"),
    "several columns": (np.column_stack([labels(X, 3), labels(X, 3)]), None, "1d array|shape"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
@pytest.mark.parametrize("make", CLASSIFIERS)
def test_labels_that_cannot_be_used_are_refused(make: Any, name: str) -> None:
    y, weights, message = BAD_LABELS[name]
    with pytest.raises(ValueError, match=message):
        make(1.0).fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_rows_of_weight_zero_are_rows_left_out(make: Any) -> None:
    y = labels(X, 3)
    some = (y != 2) & (np.arange(90) % 7 > 0)
    for alpha in (1.0, "kfold"):
        found = make(alpha).fit(X, y, sample_weight=some)
        want = make(alpha).fit(X[some], y[some])
        np.testing.assert_array_equal(found.classes_, [0, 1])
        np.testing.assert_allclose(found.alpha_, want.alpha_, rtol=2e-5)
        assert_same(make(want.alpha_).fit(X, y, sample_weight=some), want)


# ------------------------------------------------------------------------------------------- class weights


@pytest.mark.parametrize("weights", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("make", CLASSIFIERS)
def test_class_weights_are_row_weights(make: Any, K: int, weights: Array | None) -> None:
    names = np.array(["ant", "bee", "cat"])
    y = labels(X, K)
    w = np.ones(90) if weights is None else weights
    each = {"ant": 3, "bee": 0.5}
    found = make(1.0, class_weight=each).fit(X, names[y], sample_weight=weights)
    want = make(1.0).fit(X, names[y], sample_weight=w * np.array([3.0, 0.5, 1.0])[y])
    assert_same(found, want, 1e-11)
    balanced = make("loo", class_weight="balanced").fit(X, names[y], sample_weight=weights)
    share = w.sum() / (K * np.bincount(y, w))
    want = make("loo").fit(X, names[y], sample_weight=w * share[y])
    assert balanced.alpha_ == want.alpha_
    assert_same(balanced, want, 1e-11)
    assert balanced.fit_.sum_weights == pytest.approx(w.sum())
    assert balanced.fit_.weights == "analytic"


@pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0, 1: 0.5, 2: 4.0}], ids=str)
def test_class_weights_are_the_peers(class_weight: Any) -> None:
    y = labels(X, 3)
    ours = LogisticRegression(C=0.5, class_weight=class_weight).fit(X, y)
    assert_same(ours, peer_logistic(C=0.5, class_weight=class_weight).fit(X, y))
    ours = RidgeClassifier(3.0, class_weight=class_weight).fit(X, y)
    assert_same(ours, peer.RidgeClassifier(3.0, class_weight=class_weight, solver="cholesky").fit(X, y))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("even", "class_weight must be None, 'balanced' or a dict; got 'even'"),
        (
            {"ant": 1.0, "bea": 2.0},
            "names 'bea', which is no class of y, and leaves out 'bee'. Did you mean 'bee'",
        ),
        ({"ant": 0.0}, "class_weight of 'ant' is 0.0; it must be a number above 0"),
        ({"ant": "much"}, "class_weight of 'ant' is 'much'"),
    ],
    ids=str,
)
def test_class_weights_without_meaning_are_refused(class_weight: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RidgeClassifier(1.0, class_weight=class_weight).fit(X, np.array(["ant", "bee"])[labels(X)])


# --------------------------------------------------------------------------------- support vector machines


def svc_objective(coef: Array, intercept: Array, y: Array, C: float, w: Array) -> float:
    short = np.maximum(0, 1 - y * (X @ coef + intercept))
    return float(0.5 * coef @ coef + C * w @ short**2)


@pytest.mark.parametrize("weights", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("K", [2, 3])
def test_svc_without_intercept_is_the_peers(K: int, weights: Array | None) -> None:
    y = labels(X, K)
    theirs = peer_svm.LinearSVC(C=0.2, fit_intercept=False, dual=False, tol=1e-12, max_iter=100_000)
    theirs.fit(X, y, sample_weight=weights)
    ours = LinearSVC(C=0.2, fit_intercept=False).fit(X, y, sample_weight=weights)
    assert ours.alpha_ == pytest.approx(1 / (2 * 0.2))
    assert_close(ours.coef_, theirs.coef_, 1e-6)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.intercept_, np.zeros(len(ours.coef_)))


def test_svc_with_a_free_intercept_reaches_a_lower_objective_than_the_peer() -> None:
    """liblinear penalises the intercept, so its optimum is another one; ours must beat it at its own C."""
    y = np.where(labels(X) == 1, 1.0, -1.0)
    theirs = peer_svm.LinearSVC(C=0.2, dual=False, tol=1e-12, max_iter=100_000).fit(X, y)
    ours = LinearSVC(C=0.2).fit(X, y)
    best = svc_objective(ours.coef_[0], ours.intercept_, y, 0.2, np.ones(90))
    assert best < svc_objective(theirs.coef_[0], theirs.intercept_, y, 0.2, np.ones(90))
    # As the constant column grows, its coefficient costs less and less.
    wide = peer_svm.LinearSVC(C=0.2, dual=False, tol=1e-13, intercept_scaling=1e3, max_iter=10**6).fit(X, y)
    assert best == pytest.approx(svc_objective(wide.coef_[0], wide.intercept_, y, 0.2, np.ones(90)), rel=1e-6)
    # No step from it leads lower.
    for j in range(5):
        for step in (1e-4, -1e-4):
            coef, intercept = ours.coef_[0].copy(), ours.intercept_.copy()
            (coef if j < 4 else intercept)[j % 4 if j < 4 else 0] += step
            assert svc_objective(coef, intercept, y, 0.2, np.ones(90)) > best


@pytest.mark.parametrize("weights", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_svr_without_intercept_is_the_peers(epsilon: float, weights: Array | None) -> None:
    theirs = peer_svm.LinearSVR(
        C=0.2, epsilon=epsilon, fit_intercept=False, dual=False, tol=1e-12, max_iter=100_000,
        loss="squared_epsilon_insensitive",
    ).fit(X, NUMBERS, sample_weight=weights)  # fmt: skip
    ours = LinearSVR(C=0.2, epsilon=epsilon, fit_intercept=False).fit(X, NUMBERS, sample_weight=weights)
    assert ours.alpha_ == pytest.approx(2.5)
    assert_close(ours.coef_, theirs.coef_, 1e-6)
    assert ours.intercept_ == 0.0


def test_svr_without_a_tube_is_ridge() -> None:
    assert_same(LinearSVR(3.0).fit(X, NUMBERS), Ridge(3.0).fit(X, NUMBERS), 1e-10)
    both = np.column_stack([NUMBERS, -2 * NUMBERS + X[:, 0]])
    found = LinearSVR(3.0, epsilon=0.5).fit(X, both)
    assert found.coef_.shape == (2, 4)
    for t in range(2):
        alone = LinearSVR(3.0, epsilon=0.5).fit(X, both[:, t])
        assert_close(found.coef_[t], alone.coef_, 1e-10)
        assert_close(found.predict(X)[:, t], alone.predict(X), 1e-10)
    with pytest.raises(InputError, match=r"epsilon=-1.0 must be a finite number ≥ 0"):
        LinearSVR(1.0, epsilon=-1.0).fit(X, NUMBERS)


C_ESTIMATORS = [(LogisticRegression, 1.0), (LinearSVC, 0.5), (LinearSVR, 0.5)]


@pytest.mark.parametrize(("make", "product"), C_ESTIMATORS)
def test_C_is_an_inverse_alpha(make: Any, product: float) -> None:
    y = labels(X)
    assert_same(make(C=4.0).fit(X, y), make(product / 4.0).fit(X, y), 1e-12)
    free = make(C=np.inf).fit(X, y)
    assert free.alpha_ == 0
    assert_same(free, make(0.0).fit(X, y), 1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 1.0}, "C=2.0 and alpha=1.0 both set the penalty"),
        ({"alpha": "kfold"}, "both set the penalty"),
        ({"alpha_scale": "mean"}, "C is on the sum scale"),
        ({"C": 0.0}, "C=0.0 must be a number above 0"),
        ({"C": -1}, "C=-1 must be a number above 0"),
        ({"C": float("nan")}, "C=nan must be"),
        ({"C": "1"}, "C='1' must be"),
        ({"C": True}, "C=True must be"),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [make for make, _ in C_ESTIMATORS])
def test_C_that_cannot_be_honoured_is_refused(make: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**{"C": 2.0, **given}).fit(X, labels(X))


# ---------------------------------------------------------------------------------------- ridge classifier


@pytest.mark.parametrize("weights", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("K", [2, 4])
def test_ridge_classifier_is_the_peers(K: int, weights: Array | None) -> None:
    y = labels(X, K)
    ours = RidgeClassifier(3.0).fit(X, y, sample_weight=weights)
    theirs = peer.RidgeClassifier(3.0, solver="cholesky").fit(X, y, sample_weight=weights)
    # For two classes scikit-learn documents (1, p), and some releases return (p,).
    assert_close(ours.coef_, np.atleast_2d(theirs.coef_), 1e-10)
    assert_close(ours.intercept_, theirs.intercept_, 1e-10)
    assert_close(ours.decision_function(X), theirs.decision_function(X), 1e-10)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_ridge_classifier_leaves_one_out_exactly() -> None:
    y = labels(X, 3)
    alphas = np.logspace(-1, 3, 5)
    model = RidgeClassifier(LOO(alphas=alphas)).fit(X, y)
    coded = np.where(y[:, None] == np.arange(3), 1.0, -1.0)
    squares = np.zeros(5)
    for a, alpha in enumerate(alphas):
        for i in range(0, 90, 1):
            rest = np.arange(90) != i
            one = peer.Ridge(alpha, solver="cholesky").fit(X[rest], coded[rest])
            squares[a] += np.mean((one.predict(X[[i]])[0] - coded[i]) ** 2)
    np.testing.assert_allclose(model.path_.score, squares / 90, rtol=1e-9)
    assert model.alpha_ == alphas[squares.argmin()]


# ------------------------------------------------------------------------------------------------ families

PEERS: dict[str, tuple[GLM, Any, Array]] = {
    "poisson": (GLM("poisson"), peer.PoissonRegressor, COUNTS),
    "gamma": (GLM("gamma"), peer.GammaRegressor, AMOUNTS),
    "tweedie": (GLM("tweedie", power=1.3), lambda **o: peer.TweedieRegressor(power=1.3, **o), CLAIMS),
    "gaussian": (GLM(), lambda **o: peer.TweedieRegressor(power=0, **o), NUMBERS),
}  # fmt: skip


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weights", [None, W], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("family", PEERS)
def test_families_are_the_peers(family: str, weights: Array | None, fit_intercept: bool) -> None:
    """Theirs divides the deviance by 2Σw, so that their alpha is ours over Σw."""
    ours, make, y = PEERS[family]
    total = 90.0 if weights is None else weights.sum()
    theirs = make(
        alpha=5.0 / total, fit_intercept=fit_intercept, solver="newton-cholesky", tol=1e-12, max_iter=1000
    ).fit(X, y, sample_weight=weights)
    ours = clone(ours).set_params(alpha=5.0, fit_intercept=fit_intercept).fit(X, y, sample_weight=weights)
    assert_same(ours, theirs)
    mean = clone(ours).set_params(alpha=5.0 / total, alpha_scale="mean").fit(X, y, sample_weight=weights)
    assert_same(mean, theirs)
    assert_close(ours.predict(X), theirs.predict(X))
    for w in (None, W):
        want = theirs.score(X, y, sample_weight=w)
        assert ours.score(X, y, sample_weight=w) == pytest.approx(want, rel=1e-8)
    if fit_intercept:
        assert ours.fit_.r2[0] == pytest.approx(theirs.score(X, y, sample_weight=weights), rel=1e-8)


def test_gaussian_family_is_ridge() -> None:
    for alpha in (2.0, "loo", "gcv", "reml", "kfold"):
        found, want = GLM(alpha=alpha).fit(X, NUMBERS, W), Ridge(alpha).fit(X, NUMBERS, W)
        assert found.alpha_ == want.alpha_
        assert_same(found, want, 1e-12)
        assert found.score(X, NUMBERS) == pytest.approx(want.score(X, NUMBERS), rel=1e-10)


SM = {
    "poisson": (sm.families.Poisson(), COUNTS),
    "gamma": (sm.families.Gamma(sm.families.links.Log()), AMOUNTS),
    "negative-binomial": (sm.families.NegativeBinomial(alpha=0.7), COUNTS),
}


@pytest.mark.parametrize("family", SM)
@pytest.mark.parametrize("known", ["offset", "exposure", "both"])
def test_offset_and_exposure_are_those_of_statsmodels(known: str, family: str) -> None:
    theirs, y = SM[family]
    shift = 0.3 * rng_for("shift").normal(size=90)
    given: dict[str, Any] = {}
    if known != "exposure":
        given["offset"] = shift
    if known != "offset":
        given["exposure"] = DAYS
    model = GLM(family, 0.0, dispersion=0.7 if family == "negative-binomial" else None).fit(X, y, **given)
    want = sm.GLM(y, sm.add_constant(X), family=theirs, **given).fit(tol=1e-14, maxiter=200)
    assert_close(np.r_[model.intercept_, model.coef_], want.params, 1e-7)
    assert_close(model.predict(X, **given), want.fittedvalues, 1e-7)
    assert model.fit_.deviance[0] == pytest.approx(want.deviance, rel=1e-8)
    assert model.fit_.null_deviance[0] == pytest.approx(want.null_deviance, rel=1e-6)
    assert model.score(X, y, **given) == pytest.approx(1 - want.deviance / want.null_deviance, rel=1e-6)
    # Without what was known, the rate of one unit of exposure.
    rate = model.predict(X, **given) / np.exp(given.get("offset", 0.0)) / given.get("exposure", 1.0)
    np.testing.assert_allclose(model.predict(X), rate, rtol=1e-12)


def test_exposure_is_the_weight_of_a_rate() -> None:
    for alpha in (3.0, "loo"):
        counts = GLM("poisson", alpha).fit(X, COUNTS, exposure=DAYS)
        rates = GLM("poisson", alpha).fit(X, COUNTS / DAYS, sample_weight=DAYS)
        if alpha != "loo":
            assert_same(counts, rates, 1e-9)


def test_an_offset_of_the_gaussian_is_taken_off_the_target() -> None:
    shift = rng_for("shift").normal(size=90)
    for alpha in (2.0, "loo", "kfold", "gcv"):
        found = GLM(alpha=alpha).fit(X, NUMBERS, offset=shift)
        want = Ridge(alpha).fit(X, NUMBERS - shift)
        np.testing.assert_allclose(found.alpha_, want.alpha_, rtol=2e-5)
        assert_same(GLM(alpha=want.alpha_).fit(X, NUMBERS, offset=shift), want, 1e-9)
    both = np.column_stack([NUMBERS, 2 * NUMBERS])
    shifts = np.column_stack([shift, -shift])
    found = GLM(alpha=2.0).fit(X, both, offset=shifts)
    assert_same(found, Ridge(2.0).fit(X, both - shifts), 1e-9)
    assert_close(found.predict(X, offset=shifts), found.predict(X) + shifts, 1e-12)


def test_proportions_are_weighted_by_their_trials() -> None:
    trials = 1 + rng_for("trials").integers(0, 12, size=90)
    share = rng_for("share").binomial(trials, 1 / (1 + np.exp(-X[:, 0]))) / trials
    model = GLM("binomial", 0.0).fit(X, share, sample_weight=trials)
    want = sm.GLM(share, sm.add_constant(X), sm.families.Binomial(), var_weights=trials).fit(tol=1e-14)
    assert_close(np.r_[model.intercept_, model.coef_], want.params, 1e-7)
    assert_close(model.predict(X), want.fittedvalues, 1e-8)
    # The same, one row for each trial and each of its outcomes.
    y = np.r_[np.ones(90), np.zeros(90)]
    rows = LogisticRegression(2.0).fit(np.r_[X, X], y, np.r_[trials * share, trials * (1 - share)])
    again = GLM("binomial", 2.0).fit(X, share, sample_weight=trials)
    assert_close(again.coef_, rows.coef_[0])


def test_huber_is_robust_and_loss_objects_are_families() -> None:
    y = NUMBERS.copy()
    y[:3] += 1e4
    model = GLM("huber", 1.0, epsilon=2.0).fit(X, y)
    slope = np.clip(model.predict(X) - y, -2.0, 2.0)
    np.testing.assert_allclose(X.T @ slope + 1.0 * model.coef_, 0.0, atol=1e-8)
    assert abs(slope.sum()) < 1e-8
    assert_same(GLM(Huber(2.0), 1.0).fit(X, y), model, 1e-12)
    assert_same(GLM(Tweedie(1.3), 1.0).fit(X, CLAIMS), GLM("tweedie", 1.0, power=1.3).fit(X, CLAIMS), 1e-12)
    assert_same(GLM(Gamma(), 1.0).fit(X, AMOUNTS), GLM("gamma", 1.0).fit(X, AMOUNTS), 1e-12)


def test_several_targets_are_fitted_as_each_alone() -> None:
    both = np.column_stack([COUNTS, COUNTS[::-1]])
    model = GLM("poisson", 2.0).fit(X, both)
    assert model.coef_.shape == (2, 4)
    alone = [GLM("poisson", 2.0).fit(X, both[:, t]) for t in range(2)]
    for t in range(2):
        assert_close(model.coef_[t], alone[t].coef_, 1e-9)
        assert_close(model.predict(X)[:, t], alone[t].predict(X), 1e-9)
    scores = [m.score(X, both[:, t]) for t, m in enumerate(alone)]
    assert model.score(X, both) == pytest.approx(np.mean(scores), rel=1e-9)
    own = GLM("poisson", alpha_per_target=True).fit(X, both)
    assert own.alpha_.shape == (2,)
    for t in range(2):
        assert own.alpha_[t] == pytest.approx(GLM("poisson").fit(X, both[:, t]).alpha_, rel=2e-5)
    assert isinstance(GLM("poisson").fit(X, both).alpha_, float)


def test_score_where_a_constant_is_right() -> None:
    model = GLM("poisson", 1.0).fit(X, COUNTS)
    assert model.score(X, np.full(90, 3.0)) == 0.0
    flat = GLM("gaussian", 1.0).fit(X, np.full(90, 3.0))
    assert flat.score(X, np.full(90, 3.0)) == 1.0


BAD_GLM: dict[str, tuple[Callable[[], Any], str]] = {
    "classes": (lambda: GLM("multinomial").fit(X, labels(X)), "use LogisticRegression"),
    "classes as object": (lambda: GLM(Multinomial()).fit(X, labels(X)), "use LogisticRegression"),
    "margins": (lambda: GLM("squared-hinge").fit(X, labels(X)), "use LinearSVC"),
    "margins as object": (lambda: GLM(SquaredHinge()).fit(X, labels(X)), "use LinearSVC"),
    "misspelt family": (lambda: GLM("posson").fit(X, COUNTS), "Did you mean 'poisson'"),
    "power of another family": (lambda: GLM("poisson", power=1.5).fit(X, COUNTS), "no parameter 'power'"),
    "dispersion of the gaussian": (lambda: GLM(dispersion=1.5).fit(X, COUNTS), "no parameter 'dispersion'"),
    "power beside an object": (lambda: GLM(Tweedie(1.2), power=1.5).fit(X, COUNTS), "beside it"),
    "power out of range": (lambda: GLM("tweedie", power=3.0).fit(X, COUNTS), "power=3.0 must be"),
    "negative counts": (
        lambda: GLM("poisson").fit(X, pd.Series(COUNTS - 1.0, name="claims")),
        "target 'claims' has the value -1 in row .* poisson needs y ≥ 0",
    ),
    "zero amounts": (
        lambda: GLM("gamma").fit(X, CLAIMS),
        "target 'y' has the value 0 .* use family='tweedie'",
    ),
    "share above 1": (lambda: GLM("binomial").fit(X, 1.5 * labels(X)), "target 'y' has the value 1.5"),
    "second target": (
        lambda: GLM("poisson").fit(X, np.column_stack([COUNTS, -COUNTS])),
        "target 'y1' has the value -",
    ),
    "negative counts in score": (
        lambda: GLM("poisson", 1.0).fit(X, COUNTS).score(X, -COUNTS),
        "poisson needs y ≥ 0",
    ),
    "exposure without a log link": (
        lambda: GLM("binomial").fit(X, labels(X), exposure=DAYS),
        "exposure needs a log link.*binomial has the link 'logit'. Use offset",
    ),
    "exposure of the gaussian": (lambda: GLM().fit(X, NUMBERS, exposure=DAYS), "exposure needs a log link"),
    "exposure of 0": (
        lambda: GLM("poisson").fit(X, COUNTS, exposure=np.where(np.arange(90) == 4, 0, DAYS)),
        "exposure has the value 0 in row 5",
    ),
    "exposure as a table": (
        lambda: GLM("poisson").fit(X, COUNTS, exposure=np.c_[DAYS, DAYS]),
        r"exposure has shape \(90, 2\)",
    ),
    "too little exposure": (
        lambda: GLM("poisson").fit(X, COUNTS, exposure=DAYS[:5]),
        r"offset has shape \(5,\)",
    ),
    "exposure and offset apart": (
        lambda: GLM("poisson").fit(X, COUNTS, exposure=DAYS[:5], offset=DAYS),
        "offset has 90 rows and exposure 5",
    ),
    "NaN offset": (
        lambda: GLM("poisson").fit(X, COUNTS, offset=np.where(np.arange(90) == 4, np.nan, 1.0)),
        "offset is NaN or infinite in row 5",
    ),
    "text as offset": (lambda: GLM("poisson").fit(X, COUNTS, offset=["a"] * 90), "offset must hold numbers"),
    "offset as a number": (lambda: GLM("poisson").fit(X, COUNTS, offset=1.0), r"offset has shape \(\)"),
    "offset of another length in predict": (
        lambda: GLM("poisson", 1.0).fit(X, COUNTS).predict(X, offset=DAYS[:5]),
        r"offset has shape \(5,\) for predictions of shape \(90,\)",
    ),
    "gcv": (lambda: GLM("poisson", "gcv").fit(X, COUNTS), "defined for squared error"),
    "aic of a margin": (lambda: LinearSVC("aic").fit(X, labels(X)), "needs a likelihood"),
    "alphas of classes": (lambda: LogisticRegression([1.0, 2.0]).fit(X, labels(X)), "share one alpha"),
    "another number of targets in score": (
        lambda: GLM("poisson", 1.0).fit(X, COUNTS).score(X, np.c_[COUNTS, COUNTS]),
        r"y has 2 target\(s\); the model has 1",
    ),
    "infinity in predict": (
        lambda: LogisticRegression(1.0).fit(X, labels(X)).predict_proba(np.where(X > 1, np.inf, X)),
        "X contains NaN or infinity",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_GLM)
def test_bad_input_is_refused_with_a_message(name: str) -> None:
    call, message = BAD_GLM[name]
    with pytest.raises(InputError, match=message):
        call()


def test_predicting_before_fitting_is_scikit_learns_error() -> None:
    for make in (*CLASSIFIERS, *REGRESSORS):
        with pytest.raises(NotFittedError):
            make().predict(X)
    with pytest.raises(NotFittedError):
        LogisticRegression().predict_proba(X)


# ---------------------------------------------------------------------------------- choosing alpha by classes


def test_folds_of_sorted_classes_hold_every_class() -> None:
    """scikit-learn#32828: consecutive folds of sorted labels lack a class; an integer keeps their shares."""
    order = np.argsort(labels(X, 3), kind="stable")
    Z, y = X[order], labels(X, 3)[order]
    alphas = [0.1, 1.0, 10.0]
    for make in CLASSIFIERS:
        for rule in (KFold(4, alphas=alphas), KFold(StratifiedKFold(4), alphas=alphas)):
            found = make(rule).fit(Z, y)
            splits = list(StratifiedKFold(4).split(Z, y))
            np.testing.assert_allclose(
                found.path_.score, make(KFold(splits, alphas=alphas)).fit(Z, y).path_.score, rtol=1e-9
            )
        with pytest.raises(InputError, match="training rows of fold 0 lack the class '0'"):
            make(KFold(PlainKFold(3), alphas=alphas)).fit(Z, np.repeat([0, 1, 2], 30))
        with pytest.raises(InputError, match=r"12 folds .* the largest class has 8. Use fewer folds"):
            make(KFold(12)).fit(Z[:12], np.r_[np.zeros(8), np.ones(4)])


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_class_of_one_row_cannot_be_left_out() -> None:
    y = np.r_[2, labels(X)[1:]]
    for make in CLASSIFIERS:
        with pytest.raises(InputError, match="lack the class '2'"):
            make("kfold").fit(X, y)
        assert make("loo").fit(X, y).alpha_ > 0


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_random_state_shuffles_the_folds(make: Any) -> None:
    y = labels(X, 3)
    a, b, c, none = (make(KFold(5, alphas=[0.1, 10.0]), random_state=s).fit(X, y) for s in (0, 0, 1, None))
    np.testing.assert_array_equal(a.path_.score, b.path_.score)
    assert not np.allclose(a.path_.score, c.path_.score, rtol=1e-6)
    assert not np.allclose(a.path_.score, none.path_.score, rtol=1e-6)
    splits = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    again = make(KFold(splits, alphas=[0.1, 10.0])).fit(X, y)
    np.testing.assert_allclose(a.path_.score, again.path_.score, rtol=1e-9)
    with pytest.raises(InputError, match="random_state must be"):
        make("kfold", random_state="a").fit(X, y)


def metric_by_hand(scoring: str, y: Array, shares: Array) -> float:
    if scoring == "accuracy":
        return float(np.mean(shares.argmax(axis=1) == y))
    if scoring == "neg_log_loss":
        return -log_loss(y, shares)
    if scoring == "neg_brier_score":
        squares = (shares - (y[:, None] == np.arange(shares.shape[1]))) ** 2
        return -float(np.mean(squares.sum(axis=1) if shares.shape[1] > 2 else squares[:, 1]))
    return float(roc_auc_score(y, shares if shares.shape[1] > 2 else shares[:, 1], multi_class="ovr"))


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "neg_brier_score", "roc_auc"])
@pytest.mark.parametrize("K", [2, 3])
def test_held_out_rows_are_scored_with_the_models_own_probabilities(K: int, scoring: str) -> None:
    """scikit-learn#8720: a multinomial model was scored with one-versus-rest probabilities."""
    y, alphas = labels(X, K), [0.3, 30.0]
    model = LogisticRegression(KFold(4, alphas=alphas, scoring=scoring)).fit(X, y)
    want = []
    for alpha in alphas:
        scores = []
        for train, test in StratifiedKFold(4).split(X, y):
            fold = peer_logistic(C=1 / alpha).fit(X[train], y[train])
            scores.append(metric_by_hand(scoring, y[test], fold.predict_proba(X[test])))
        want.append(-np.mean(scores))
    np.testing.assert_allclose(model.path_.score, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "K", "scoring"),
    [
        (LinearSVC, 2, "neg_log_loss"),
        (LinearSVC, 3, "r2"),
        (RidgeClassifier, 2, "neg_brier_score"),
        (RidgeClassifier, 3, "neg_log_loss"),
        (LogisticRegression, 2, "r2"),
        (LogisticRegression, 3, "acuracy"),
    ],
)
@pytest.mark.parametrize("rule", [LOO, KFold])
def test_scorings_without_meaning_are_refused(rule: Any, make: Any, K: int, scoring: str) -> None:
    with pytest.raises(InputError, match=f"scoring='{scoring}' has no meaning for {make.__name__}"):
        make(rule(scoring=scoring)).fit(X, labels(X, K))


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_noisy_labels_are_not_predicted_perfectly(make: Any) -> None:
    """scikit-learn#34942: leave-one-out accuracy on coin flips was 1.0."""
    rng = rng_for("coins")
    Z, y = rng.normal(size=(60, 80)), rng.integers(0, 2, size=60)
    for rule in (LOO, KFold):
        model = make(rule(alphas=[1e-3, 1.0, 100.0], scoring="accuracy")).fit(Z, y)
        assert (-model.path_.score < 0.75).all()
        assert (-model.path_.score > 0.25).all()


@pytest.mark.parametrize("rule", [LOO, KFold])
@pytest.mark.parametrize("make", CLASSIFIERS)
def test_one_standard_error_means_more_penalty(make: Any, rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """sparse-lm#96, tune#664: the rule chose less penalty than the minimum."""
    monkeypatch.setattr(grid, "PER_DECADE", 2)
    for K in (2, 3):
        y = labels(X, K)
        assert make(rule(one_se=True)).fit(X, y).alpha_ > make(rule()).fit(X, y).alpha_


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_groups_reach_the_splitter(make: Any) -> None:
    y, groups = labels(X), np.arange(90) // 6
    rule = KFold(GroupKFold(3), alphas=[0.1, 10.0])
    want = make(KFold(list(GroupKFold(3).split(X, y, groups)), alphas=[0.1, 10.0])).fit(X, y)
    found = make(rule).fit(X, y, groups=groups)
    np.testing.assert_allclose(found.path_.score, want.path_.score, rtol=1e-9)
    with pytest.raises(InputError, match="groups"):
        make(rule).fit(X, y)


def test_margins_get_an_alpha_for_each_class() -> None:
    y = labels(X, 3)
    for make in (LinearSVC, RidgeClassifier):
        own = make(alpha_per_target=True).fit(X, y)
        assert own.alpha_.shape == (3,)
        assert np.ptp(own.alpha_) > 0
        again = make(own.alpha_).fit(X, y)
        np.testing.assert_array_equal(again.alpha_, own.alpha_)
        assert_same(again, own)
        for k in range(3):
            alone = make(own.alpha_[k]).fit(X, y == k)
            assert_close(own.coef_[k], alone.coef_[0])


# ------------------------------------------------------------------------------------------------- options

OPTION_CHANGES: dict[str, Any] = {
    "alpha": 50.0,
    "fit_intercept": False,
    "standardize": True,
    "penalty": [0.0, 1.0, 2.0, 5.0],
    "prior": [1.0, 1.0, 1.0, 1.0],
    "alpha_scale": "mean",
    "class_weight": {0: 10.0},
    "epsilon": 1.0,
    "power": 1.2,
    "dispersion": 4.0,
    "family": "gamma",
}
SPECIAL = {"C", "alpha_per_target", "solver", "tol", "random_state", "weights_are"}
BASES: dict[str, tuple[Any, Any]] = {
    "LogisticRegression": (LogisticRegression(3.0), labels(X)),
    "LogisticRegression, 3 classes": (LogisticRegression(3.0), labels(X, 3)),
    "LinearSVC": (LinearSVC(3.0), labels(X)),
    "LinearSVC, 3 classes": (LinearSVC(3.0), labels(X, 3)),
    "RidgeClassifier": (RidgeClassifier(3.0), labels(X)),
    "LinearSVR": (LinearSVR(3.0), NUMBERS),
    "GLM tweedie": (GLM("tweedie", 3.0), AMOUNTS),
    "GLM negative-binomial": (GLM("negative-binomial", 3.0), AMOUNTS),
    "GLM huber": (GLM("huber", 3.0), NUMBERS + np.where(np.arange(90) % 9, 0, 20)),
    "GLM binomial": (GLM("binomial", 3.0), labels(X)),
    "GLM gaussian": (GLM("gaussian", 3.0), NUMBERS),
}


@pytest.mark.parametrize("base", BASES)
def test_every_option_changes_the_fit_or_is_refused(base: str) -> None:
    """dask-glm: options were silently dropped by some solvers."""
    estimator, y = BASES[base]
    plain = clone(estimator).fit(X, y)
    for name in set(inspect.signature(type(estimator)).parameters) - SPECIAL:
        changed = clone(estimator).set_params(**{name: OPTION_CHANGES[name]})
        refused = name in ("power", "dispersion", "epsilon", "family") and name not in {
            "GLM tweedie": ("power",),
            "GLM negative-binomial": ("dispersion",),
            "GLM huber": ("epsilon",),
            "LinearSVR": ("epsilon",),
        }.get(base, ())
        if refused:
            if name == "family":
                continue
            with pytest.raises(InputError, match=name):
                changed.fit(X, y)
            continue
        changed.fit(X, y)
        moved = np.abs(changed.coef_ - plain.coef_).max()
        assert moved > 1e-3 * np.abs(plain.coef_).max(), name


def test_family_changes_the_fit() -> None:
    fits = [GLM(family, 1.0).fit(X, AMOUNTS).coef_ for family in ("gaussian", "gamma", "poisson", "tweedie")]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(fits) for b in fits[:i])


@pytest.mark.parametrize("make", [*CLASSIFIERS, *REGRESSORS])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -1.0),
        ("alpha", "lov"),
        ("alpha", None),
        ("penalty", [1.0, 2.0]),
        ("penalty", "l2"),
        ("prior", [1.0]),
        ("alpha_scale", "median"),
        ("solver", "lbfgs"),
        ("tol", -1.0),
        ("fit_intercept", "no"),
        ("standardize", 1),
    ],
)
def test_option_that_means_nothing_is_refused_by_name(make: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        make(**{name: value}).fit(X, labels(X))


@pytest.mark.parametrize("solver", ["spectral", "cholesky", "orthogonal", "dual"])
def test_solvers_of_squared_error_are_refused_for_other_losses(solver: str) -> None:
    for model in (LogisticRegression(1.0, solver=solver), LinearSVC(1.0, solver=solver)):
        with pytest.raises(InputError, match=solver):
            model.fit(X, labels(X))
    with pytest.raises(InputError, match=solver):
        GLM("poisson", 1.0, solver=solver).fit(X, COUNTS)
    assert RidgeClassifier(1.0, solver=solver).fit(X, labels(X)).fit_.solver == solver
    assert GLM(alpha=1.0, solver=solver).fit(X, NUMBERS).fit_.solver == solver


def test_tolerance_decides_when_to_stop() -> None:
    for make, y in ((LogisticRegression, labels(X)), (LogisticRegression, labels(X, 3)), (GLM, COUNTS)):
        given = {"family": "poisson"} if make is GLM else {}
        fine, coarse = (make(alpha=0.01, tol=tol, **given).fit(X, y).fit_ for tol in (1e-13, 0.3))
        assert fine.certificate.residual < coarse.certificate.residual


# ------------------------------------------------------------------------------------ scikit-learn's tools

FITS: dict[str, tuple[Any, Any]] = {
    "logistic": (LogisticRegression(), labels(X)),
    "multinomial": (LogisticRegression(1.0), np.array(["ant", "bee", "cat"])[labels(X, 3)]),
    "svc": (LinearSVC("kfold", random_state=0), labels(X, 3)),
    "ridge": (RidgeClassifier(standardize=True), labels(X)),
    "svr": (LinearSVR(epsilon=0.2), NUMBERS),
    "poisson": (GLM("poisson"), COUNTS),
}
fits = pytest.mark.parametrize("name", FITS)


@fits
def test_tables_keep_their_names(name: str) -> None:
    estimator, y = FITS[name]
    table = pd.DataFrame(X, columns=NAMES)
    plain = clone(estimator).fit(X, y)
    for kind in (table, pl.DataFrame(table)):
        found = clone(estimator).fit(kind, y)
        assert_same(found, plain, 1e-12)
        assert list(found.feature_names_in_) == NAMES
        assert found.fit_.feature_names == tuple(NAMES)
        assert_alike(found.predict(kind), plain.predict(X))
    with pytest.raises(ValueError, match="same order"):
        found.predict(pl.DataFrame(table[NAMES[::-1]]))


@fits
def test_sparse_is_dense(name: str) -> None:
    estimator, y = FITS[name]
    dense = np.where(X > 0.3, X, 0.0)
    want = clone(estimator).fit(dense, y, sample_weight=W)
    for layout in ("csr", "csc", "coo"):
        S = sparse.coo_array(dense).asformat(layout)
        found = clone(estimator).fit(S, y, sample_weight=W)
        np.testing.assert_allclose(found.alpha_, want.alpha_, rtol=2e-5)
        assert_same(clone(estimator).set_params(alpha=want.alpha_).fit(S, y, sample_weight=W), want)
        assert isinstance(found.predict(S), np.ndarray)
        assert_alike(want.predict(S), want.predict(dense))


@fits
def test_pickle_and_clone(name: str) -> None:
    estimator, y = FITS[name]
    model = clone(estimator).fit(X, y)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), clone(model).fit(X, y)):
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
        np.testing.assert_array_equal(again.path_.coef, model.path_.coef)
    assert not hasattr(clone(model), "coef_")
    assert vars(clone(model)) == vars(estimator)


@fits
def test_inputs_are_left_alone(name: str) -> None:
    estimator, y = FITS[name]
    given = [X.copy(), np.array(y), W.copy()]
    for array in given:
        array.flags.writeable = False
    model = clone(estimator).fit(given[0], given[1], sample_weight=given[2])
    model.predict(given[0])
    np.testing.assert_array_equal(given[0], X)


def test_grid_search_over_C_and_alpha() -> None:
    y = labels(X)
    grid = {"C": [0.01, 1.0, 100.0], "class_weight": [None, "balanced"]}
    ours = GridSearchCV(LogisticRegression(), grid, scoring="neg_log_loss").fit(X, y)
    theirs = GridSearchCV(peer_logistic(), grid, scoring="neg_log_loss").fit(X, y)
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-8
    )
    assert ours.best_params_ == theirs.best_params_
    scores = cross_val_score(GLM("poisson", 5.0, alpha_scale="sum"), X, COUNTS, cv=3)
    want = cross_val_score(
        peer.PoissonRegressor(alpha=5.0 / 60, solver="newton-cholesky", tol=1e-12), X, COUNTS, cv=3
    )
    np.testing.assert_allclose(scores, want, rtol=1e-8)
    search = GridSearchCV(LinearSVC(), {"alpha": [1.0, "loo", KFold(3)]}, cv=3).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_pipeline_hands_names_on() -> None:
    table = pd.DataFrame(X, columns=NAMES)
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    pipe.set_output(transform="pandas").fit(table, labels(X, 3))
    assert pipe[-1].fit_.feature_names == tuple(NAMES)
    assert pipe.predict_proba(table).shape == (90, 3)


def test_metadata_is_routed() -> None:
    y, groups = labels(X), np.arange(90) // 6
    with config_context(enable_metadata_routing=True):
        model = LogisticRegression(C=1.0).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler, model).fit(X, y, sample_weight=W)
        scores = cross_validate(
            model.set_score_request(sample_weight=True),
            X,
            y,
            params={"sample_weight": W, "groups": groups},
            cv=GroupKFold(3),
        )["test_score"]
        by_groups = make_pipeline(StandardScaler(), LogisticRegression(KFold(GroupKFold(3))))
        by_groups.fit(X, y, groups=groups)
        poisson = GLM("poisson", 1.0).set_fit_request(exposure=True).set_score_request(exposure=True)
        with_exposure = cross_validate(poisson, X, COUNTS, params={"exposure": DAYS}, cv=PlainKFold(3))
    Z = StandardScaler().fit_transform(X)
    assert_same(pipe[-1], LogisticRegression(C=1.0).fit(Z, y, sample_weight=W), 1e-12)
    for (train, test), score in zip(GroupKFold(3).split(X, y, groups), scores, strict=True):
        fold = peer_logistic(C=1.0).fit(X[train], y[train], sample_weight=W[train])
        assert score == pytest.approx(fold.score(X[test], y[test], sample_weight=W[test]))
    direct = LogisticRegression(KFold(GroupKFold(3))).fit(Z, y, groups=groups)
    assert by_groups[-1].alpha_ == direct.alpha_
    for (train, test), score in zip(PlainKFold(3).split(X), with_exposure["test_score"], strict=True):
        fold = GLM("poisson", 1.0).fit(X[train], COUNTS[train], exposure=DAYS[train])
        assert score == pytest.approx(fold.score(X[test], COUNTS[test], exposure=DAYS[test]))
