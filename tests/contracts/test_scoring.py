"""Scores of held-out rows: what a scoring sees, where it is not defined, what leave-one-out does to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model as peers
from sklearn.datasets import load_iris
from sklearn.metrics import (
    accuracy_score,
    make_scorer,
    max_error,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV, LeaveOneOut, StratifiedKFold
from sklearn.model_selection import KFold as Parts

import elltwo
from elltwo import (
    GLM,
    LOO,
    InputError,
    KFold,
    LinearSVC,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    Status,
)
from elltwo.data.memory import MemorySource
from elltwo.engine import fit_source

Array = np.ndarray
ALPHAS = np.array([0.1, 10.0, 1000.0])
CLASSIFIERS = (LogisticRegression, LinearSVC, RidgeClassifier)
iris = pytest.fixture(scope="module")(lambda: load_iris(return_X_y=True))


@pytest.fixture(scope="module")
def rows() -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(60, 4))
    return X, X @ [1.0, -1.0, 0.5, 0.0] + rng.normal(size=60)


# ------------------------------------------------------------------------------------ classes


@pytest.mark.parametrize("K", [2, 3])
def test_accuracy_and_auc_of_a_ridge_classifier_are_those_of_refits(iris: Any, K: int) -> None:
    X, y = iris
    X, y = X[y < K], y[y < K]
    X = X + 2 * np.random.default_rng(0).normal(size=X.shape)
    splits = list(StratifiedKFold(3).split(X, y))
    accuracy, auc = np.zeros((2, 3, len(ALPHAS)))
    for k, (train, test) in enumerate(splits):
        for a, alpha in enumerate(ALPHAS):
            model = peers.RidgeClassifier(alpha).fit(X[train], y[train])
            accuracy[k, a] = model.score(X[test], y[test])
            margin = model.decision_function(X[test]).reshape(len(test), -1)
            columns = [1] if K == 2 else range(K)
            each = [roc_auc_score(y[test] == c, margin[:, i]) for i, c in enumerate(columns)]
            auc[k, a] = np.mean(each)
    for scoring, want in (("accuracy", accuracy), ("roc_auc", auc)):
        fit = RidgeClassifier(KFold(splits, ALPHAS, scoring=scoring)).fit(X, y)
        np.testing.assert_allclose(-fit.path_.score, want.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_a_function_sees_a_column_for_each_of_several_classes(iris: Any, make: Any) -> None:
    X, y = iris
    seen = []

    def right(truth: Array, prediction: Array, weights: Array) -> float:
        seen.append((truth, prediction, weights))
        return accuracy_score(truth.argmax(axis=1), prediction.argmax(axis=1))

    by_name, by_hand = (make(KFold(3, ALPHAS, scoring=s)).fit(X, y) for s in ("accuracy", right))
    np.testing.assert_allclose(by_hand.path_.score, by_name.path_.score, rtol=1e-12)
    assert all(truth.shape == prediction.shape == (50, 3) for truth, prediction, _ in seen)
    assert all(set(np.unique(truth)) == {0.0, 1.0} for truth, _, _ in seen)


@pytest.mark.parametrize("make", [LinearSVC, RidgeClassifier])
def test_one_score_for_all_classes_cannot_choose_an_alpha_for_each(iris: Any, make: Any) -> None:
    with pytest.raises(InputError, match="alpha_per_target=False"):
        make(KFold(3, scoring="accuracy"), alpha_per_target=True).fit(*iris)
    assert len(make(KFold(3, ALPHAS, scoring="roc_auc"), alpha_per_target=True).fit(*iris).alpha_) == 3


def test_several_labels_per_row_are_scikit_learns(rows: Any) -> None:
    X, y = rows
    Y = np.column_stack([y > 0, X[:, 0] > 0.3, X[:, 1] > 0]).astype(int)
    ours, theirs = (make(2.0).fit(X, Y) for make in (RidgeClassifier, peers.RidgeClassifier))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    assert ours.score(X, Y) == theirs.score(X, Y)
    folds = Parts(4)
    want = [
        np.mean([peers.RidgeClassifier(a).fit(X[i], Y[i]).score(X[j], Y[j]) for i, j in folds.split(X)])
        for a in ALPHAS
    ]
    scored = RidgeClassifier(KFold(4, ALPHAS, scoring="accuracy")).fit(X, Y)
    np.testing.assert_allclose(-scored.path_.score, want, rtol=1e-12)
    assert RidgeClassifier(alpha_per_target=True).fit(X, Y).alpha_.shape == (3,)
    dead = RidgeClassifier("reml").fit(X, np.column_stack([Y, np.zeros(60, dtype=int)]))
    np.testing.assert_allclose(dead.alpha_, RidgeClassifier("reml").fit(X, Y).alpha_, rtol=1e-9)
    with pytest.raises(InputError, match="sample_weight"):
        RidgeClassifier(1.0, class_weight="balanced").fit(X, Y)
    for make in (LogisticRegression, LinearSVC):
        with pytest.raises(InputError, match="MultiOutputClassifier"):
            make(1.0).fit(X, Y)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1] * 10, [0, 1]),
        ([True, False] * 10, [False, True]),
        ([np.int8(3), np.int64(1)] * 10, [1, 3]),
        (["b", "a"] * 10, ["a", "b"]),
        ([1.0, 2.0] * 10, [1.0, 2.0]),
    ],
)
@pytest.mark.parametrize("make", CLASSIFIERS)
def test_objects_are_labels_like_others(rows: Any, make: Any, labels: list[Any], classes: list[Any]) -> None:
    X = rows[0][:20]
    model = make(1.0).fit(X, pd.Series(labels, dtype=object))
    assert model.classes_.tolist() == classes
    np.testing.assert_allclose(model.coef_, make(1.0).fit(X, np.array(labels)).coef_, rtol=1e-12)
    assert set(model.predict(X)) <= set(labels)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_a_missing_label_is_named_by_its_row(rows: Any, missing: Any) -> None:
    labels = np.array(["a", "b"] * 10, dtype=object)
    labels[7] = missing
    with pytest.raises(InputError, match=r"lacks a label in row 7 .*missing.*Leave out"):
        LogisticRegression(1.0).fit(rows[0][:20], labels)


# ------------------------------------------------------------------------------------ leave-one-out


def test_accuracy_by_leave_one_out_holds_the_shares_of_the_classes(rows: Any) -> None:
    """Refits by hand, their intercepts moved back by what the row's absence does to the mean of y = ±1."""
    X, y = rows
    sign = np.where(y > 0.3, 1.0, -1.0)
    n, mean = len(sign), sign.mean()
    want = []
    for alpha in ALPHAS:
        eta = np.empty(n)
        for i in range(n):
            keep = np.arange(n) != i
            model = peers.Ridge(alpha).fit(X[keep], sign[keep])
            eta[i] = model.predict(X[[i]])[0] + mean - sign[keep].mean()
        want.append([np.mean((eta > 0) == (sign > 0)), roc_auc_score(sign > 0, eta)])
    for scoring, values in zip(("accuracy", "roc_auc"), np.transpose(want), strict=True):
        model = RidgeClassifier(LOO(ALPHAS, scoring=scoring)).fit(X, sign)
        np.testing.assert_allclose(-model.path_.score, values, rtol=1e-12)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("make", CLASSIFIERS)
def test_leave_one_out_near_the_mean_is_as_right_as_the_mean(make: Any, K: int) -> None:
    """Each row moves the mean against itself: without care, accuracy and AUC are 0 there."""
    rng = np.random.default_rng(2)
    X, sizes = rng.normal(size=(60, 3)), [31, 29] if K == 2 else [22, 19, 19]
    y = np.empty(60, dtype=int)
    y[np.argsort(X[:, 0] + 0.5 * rng.normal(size=60))] = np.repeat(np.arange(K), sizes)
    share = np.bincount(y).max() / 60
    accuracy, auc = (
        -make(LOO([1e7, 1e8], scoring=scoring)).fit(X, y).path_.score for scoring in ("accuracy", "roc_auc")
    )
    np.testing.assert_allclose(accuracy, share, rtol=1e-12)
    assert (auc > 0.6).all()


def test_held_out_accuracy_of_noise_is_reported_as_the_share_of_the_larger_class() -> None:
    rng = np.random.default_rng(2)
    table = {"x": rng.normal(size=60), "y": rng.permutation(np.repeat(["a", "b"], [31, 29]))}
    fit = elltwo.fit(table, "y", family="binomial", select=LOO(alphas=[1e8]))
    assert fit.quality is not None
    assert fit.quality["held_out"]["accuracy"] == pytest.approx(31 / 60)


def correlation(y: Array, prediction: Array, weights: Array) -> float:
    return float(np.corrcoef(y, prediction)[0, 1])


@pytest.mark.parametrize("scoring", [correlation, lambda y, f, w: np.mean((y > y.mean()) == (f > y.mean()))])
def test_functions_that_rank_or_decide_are_refused_by_leave_one_out(rows: Any, scoring: Any) -> None:
    X, y = rows
    with pytest.raises(InputError, match=r"KFold\(scoring"):
        Ridge(LOO(scoring=scoring)).fit(X, y)
    with pytest.raises(InputError, match=r"KFold\(scoring"):
        elltwo.fit(pd.DataFrame(X).rename(columns=str).assign(y=y), "y", scoring=scoring)
    with pytest.raises(InputError, match="cv=5"):
        RidgeCV(scoring=lambda model, X, y: correlation(y, model.predict(X), y)).fit(X, y)
    splits = list(Parts(4).split(X))
    model = Ridge(KFold(splits, ALPHAS, scoring=scoring)).fit(X, y)
    for alpha, score in zip(ALPHAS, model.path_.score, strict=True):
        each = [scoring(y[j], peers.Ridge(alpha).fit(X[i], y[i]).predict(X[j]), y[j]) for i, j in splits]
        assert -score == pytest.approx(np.mean(each), rel=1e-9)


@pytest.mark.parametrize(
    "scoring",
    [
        lambda y, f, w: r2_score(y, f, sample_weight=w),
        lambda y, f, w: -mean_absolute_error(y, f),
        lambda y, f, w: -max_error(y, f),
        lambda y, f, w: -np.mean(np.where(y > f, 3 * (y - f), f - y)),
        lambda y, f, w: np.mean(np.abs(y - f) < 0.7),
    ],
)
def test_smooth_functions_are_not(rows: Any, scoring: Any) -> None:
    X, y = rows
    model = Ridge(LOO(ALPHAS, scoring=scoring)).fit(X, y)
    for alpha, score in zip(ALPHAS, model.path_.score, strict=True):
        eta = [peers.Ridge(alpha).fit(X[i], y[i]).predict(X[j])[0] for i, j in LeaveOneOut().split(X)]
        assert -score == pytest.approx(scoring(y, np.array(eta), np.ones(60)), rel=1e-9)


# ------------------------------------------------------------------------------------ folds without a score


def test_a_fold_of_one_class_has_no_auc_and_is_told(rows: Any) -> None:
    X, y = rows
    label = y > 0
    alone = np.flatnonzero(label)[:5]
    rest = np.setdiff1d(np.arange(60), alone)
    splits = [(np.setdiff1d(np.arange(60), part), part) for part in (alone, rest[:28], rest[28:])]
    model = LogisticRegression(KFold(splits, ALPHAS, scoring="roc_auc", one_se=True)).fit(X, label)
    values = np.array(
        [
            [
                roc_auc_score(
                    label[j], peers.LogisticRegression(C=1 / a).fit(X[i], label[i]).decision_function(X[j])
                )
                for a in ALPHAS
            ]
            for i, j in splits[1:]
        ]
    )
    np.testing.assert_allclose(-model.path_.score, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.path_.score_se, values.std(axis=0, ddof=1) / np.sqrt(2), atol=1e-12)
    assert Status.UNDEFINED_FOLDS in model.fit_.status
    assert "1 fold without a score left out" in model.fit_.rule_text
    whole = LogisticRegression(KFold(3, ALPHAS, scoring="roc_auc")).fit(X, label)
    assert Status.UNDEFINED_FOLDS not in whole.fit_.status


@pytest.mark.parametrize("scoring", ["r2", lambda y, f, w: r2_score(y, f) if np.ptp(y) > 0 else np.nan])
def test_r2_of_one_value_is_left_out_and_not_counted_as_0(rows: Any, scoring: Any) -> None:
    X, y = rows
    y = np.where(np.arange(60) < 20, 1.25, y)
    splits = list(Parts(3).split(X))
    model = Ridge(KFold(3, ALPHAS, scoring=scoring)).fit(X, y)
    want = [
        np.mean([peers.Ridge(a).fit(X[i], y[i]).score(X[j], y[j]) for i, j in splits[1:]]) for a in ALPHAS
    ]
    np.testing.assert_allclose(-model.path_.score, want, rtol=1e-9)
    assert Status.UNDEFINED_FOLDS in model.fit_.status


def test_a_score_that_no_fold_defines_is_refused(rows: Any) -> None:
    X, y = rows
    for make in (RidgeCV(cv=LeaveOneOut()), Ridge(KFold(60, scoring="r2"))):
        with pytest.raises(InputError, match=r"not defined in any of the 60 folds.*fewer folds"):
            make.fit(X, y)


# ------------------------------------------------------------------------------------ scikit-learn's scorers


def test_a_scorer_sees_what_scikit_learn_shows_it(rows: Any) -> None:
    """Rows of X and y as they were given, and an estimator that knows its alpha and predicts any rows."""
    X, y = rows
    table, Y = pd.DataFrame(X, columns=list("abcd")), np.column_stack([y, y**2])

    def scorer(model: Any, part: Any, truth: Any) -> float:
        some = part["a"] < 0.5
        error = ((truth[some] - model.predict(part[some])) ** 2).mean(axis=0)
        return -(error[0] + 0.1 * error[1]) / (1 + 0.01 * np.abs(model.coef_).sum()) - 1e-9 * model.alpha

    ours = RidgeCV(ALPHAS, cv=4, scoring=scorer).fit(table, Y)
    theirs = GridSearchCV(peers.Ridge(), {"alpha": list(ALPHAS)}, cv=4, scoring=scorer).fit(table, Y)
    np.testing.assert_allclose(-ours.path_.score, theirs.cv_results_["mean_test_score"], rtol=1e-9)
    assert ours.alpha_ == theirs.best_params_["alpha"]
    assert ours.best_score_ == pytest.approx(theirs.best_score_, rel=1e-9)


def test_a_scorer_by_leave_one_out_sees_all_rows(rows: Any) -> None:
    X, y = rows
    some = X[:, 0] < 0.5

    def scorer(model: Any, part: Array, truth: Array, sample_weight: Any = None) -> float:
        np.testing.assert_array_equal(part, X)
        return -float(np.average((truth - model.predict(part))[some] ** 2, weights=sample_weight[some]))

    w = np.random.default_rng(1).uniform(0.5, 2.0, 60)
    model = RidgeCV(ALPHAS, scoring=scorer).fit(X, y, sample_weight=w)
    for alpha, score in zip(ALPHAS, model.path_.score, strict=True):
        eta = [
            peers.Ridge(alpha).fit(X[i], y[i], sample_weight=w[i]).predict(X[j])[0]
            for i, j in LeaveOneOut().split(X)
        ]
        assert score == pytest.approx(np.average((y - eta)[some] ** 2, weights=w[some]), rel=1e-9)
    with pytest.raises(InputError, match="cv=5"):
        RidgeCV(scoring=lambda m, part, truth: m.predict(part[:3]).sum()).fit(X, y)


@pytest.mark.parametrize("cv", [None, 4])
def test_a_scorer_sees_one_target_where_each_has_its_alpha(rows: Any, cv: Any) -> None:
    X, y = rows
    Y = np.column_stack([y, X[:, 0] - y])
    scorer = make_scorer(mean_absolute_error, greater_is_better=False)
    both = RidgeCV(ALPHAS, cv=cv, scoring=scorer, alpha_per_target=True).fit(X, Y)
    for t in range(2):
        one = RidgeCV(ALPHAS, cv=cv, scoring=scorer).fit(X, Y[:, t])
        np.testing.assert_allclose(both.path_.score[:, t], one.path_.score, rtol=1e-12)


def test_scorings_that_say_nothing_of_the_predictions_are_refused(rows: Any) -> None:
    X, y = rows
    with pytest.raises(InputError, match=r"accuracy.*gaussian.*'r2'"):
        Ridge(KFold(scoring="accuracy")).fit(X, y)
    with pytest.raises(InputError, match=r"scorer.*RidgeCV"):
        Ridge(KFold(scoring=make_scorer(r2_score))).fit(X, y)


@pytest.mark.parametrize("alphas", [(1, 1.0, "2"), ["1"], "2", np.array([1, "2"], dtype=object)])
def test_text_is_no_alpha(rows: Any, alphas: Any) -> None:
    with pytest.raises(InputError, match="alpha must be"):
        RidgeCV(alphas).fit(*rows)
    with pytest.raises(InputError, match="alpha must be"):
        Ridge(LOO(alphas)).fit(*rows)


@pytest.mark.parametrize("intercept", [False, True])
def test_the_intercept_of_one_target_is_a_numpy_scalar(rows: Any, intercept: bool) -> None:
    X, y = rows
    makes = [Ridge, RidgeCV, elltwo.Lasso, elltwo.ElasticNet, elltwo.LinearSVR, elltwo.KernelRidge]
    for make in (*makes, GLM):
        model = make(fit_intercept=intercept).fit(X, y)
        assert isinstance(model.intercept_, np.float64), make


# ------------------------------------------------------------------------------------ offsets


def logistic(X: Array, y: Array, offset: Array, alpha: float) -> Array:
    """The intercept and coefficients with Σ logloss + α/2‖θ‖² least, by Newton's method."""
    Z, theta = np.column_stack([np.ones(len(y)), X]), np.zeros(X.shape[1] + 1)
    P = alpha * np.diag(np.r_[0.0, np.ones(X.shape[1])])
    for _ in range(50):
        p = 1 / (1 + np.exp(-(Z @ theta + offset)))
        H = (Z.T * (p * (1 - p))) @ Z + P
        theta = theta - np.linalg.solve(H, Z.T @ (p - y) + P @ theta)
    return theta


def test_scores_and_accuracy_of_folds_know_the_offset(rows: Any) -> None:
    X, signal = rows
    rng = np.random.default_rng(4)
    offset = 2.0 * rng.normal(size=60)
    y = (signal + offset + rng.logistic(size=60) > 0).astype(float)
    splits = [
        (np.flatnonzero(np.arange(60) % 3 != k), np.flatnonzero(np.arange(60) % 3 == k)) for k in range(3)
    ]
    log_loss, right = np.zeros((2, 3, len(ALPHAS)))
    for k, (i, j) in enumerate(splits):
        for a, alpha in enumerate(ALPHAS):
            theta = logistic(X[i], y[i], offset[i], alpha)
            eta = theta[0] + X[j] @ theta[1:] + offset[j]
            log_loss[k, a] = np.mean(np.logaddexp(0, eta) - y[j] * eta)
            right[k, a] = np.mean((eta > 0) == (y[j] > 0))
    source = MemorySource(X, y, offset=offset)
    for scoring, want in (("neg_log_loss", log_loss), ("accuracy", 1 - right)):
        score = fit_source(source, KFold(splits, ALPHAS, scoring=scoring), loss="binomial").path.score
        assert score is not None
        shift = 0 if scoring == "neg_log_loss" else 1
        np.testing.assert_allclose(score + shift, want.mean(axis=0), rtol=1e-9, atol=1e-12)
    table = pd.DataFrame(X, columns=list("abcd")).assign(y=y.astype(int), o=offset)
    for a, alpha in enumerate(ALPHAS):
        fit = elltwo.fit(
            table, "y", family="binomial", offset="o", standardize=False, select=KFold(splits, [alpha])
        )
        assert fit.quality is not None
        assert fit.quality["held_out"]["accuracy"] == pytest.approx(right[:, a].mean())
