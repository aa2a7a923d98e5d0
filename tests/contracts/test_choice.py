"""What the choice of alpha for several targets may and may not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elltwo import AIC, BIC, GCV, GLM, LOO, REML, InputError, KernelRidge, KFold, Lasso, Ridge, Status
from elltwo.comparing.split import Split
from elltwo.data.memory import MemorySource
from elltwo.engine import fit_source
from elltwo.folds import StratifiedFolds, TimeFolds

ALPHAS = np.logspace(-2, 4, 13)
GIVEN: dict[str, Any] = {
    "loo": LOO(ALPHAS), "gcv": GCV(ALPHAS), "kfold": KFold(4, ALPHAS), "reml": REML(ALPHAS),
    "aic": AIC(ALPHAS), "bic": BIC(ALPHAS), "loo-1se": LOO(ALPHAS, one_se=True),
    "loo-auto-1se": LOO(one_se=True), "kfold-1se": KFold(4, one_se=True), "loo-r2": LOO(scoring="r2"),
    "kfold-r2": KFold(4, scoring="r2"), "kfold-mae": KFold(4, scoring="neg_mean_absolute_error"),
}  # fmt: skip
RULES: dict[str, Any] = {**GIVEN, **{name: name for name in ("loo", "gcv", "kfold", "reml", "aic", "bic")}}


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features, and two targets with an alpha inside the grid by every rule."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 8))
    return X, X @ rng.normal(size=(8, 2)) + [[2.0, 3.0]] * rng.normal(size=(60, 2))


def beside(Y: np.ndarray, dead: float) -> np.ndarray:
    return np.column_stack([Y[:, 0], np.full(len(Y), dead), Y[:, 1:]])


@pytest.mark.parametrize("per_target", [False, True], ids=["shared", "each"])
@pytest.mark.parametrize("rule", RULES)
def test_a_constant_target_has_no_say(rows: Any, rule: str, per_target: bool) -> None:
    X, Y = rows
    alone = Ridge(RULES[rule], alpha_per_target=per_target).fit(X, Y)
    both = Ridge(RULES[rule], alpha_per_target=per_target).fit(X, beside(Y, 4.1))
    np.testing.assert_allclose(both.fit_.alpha[[0, 2]], alone.fit_.alpha, rtol=1e-9)
    np.testing.assert_allclose(both.coef_[[0, 2]], alone.coef_, rtol=1e-9)
    assert Status.TARGET_WITHOUT_SAY in both.fit_.status
    assert set(both.fit_.status) - {Status.TARGET_WITHOUT_SAY} == set(alone.fit_.status)
    assert "without a say: 'y1'" in both.fit_.rule_text
    assert Status.TARGET_WITHOUT_SAY not in alone.fit_.status


@pytest.mark.parametrize("rule", ["loo", "kfold", "aic", "bic", "loo-auto-1se"])
@pytest.mark.parametrize("dead", [0.0, 1.0, 900.0])
def test_nor_has_one_of_another_loss(rows: Any, rule: str, dead: float) -> None:
    X, Y = rows
    counts = np.random.default_rng(1).poisson(np.exp(Y / 5))
    alone, both = (GLM("poisson", RULES[rule]).fit(X, y) for y in (counts, beside(counts, dead)))
    np.testing.assert_allclose(both.alpha_, alone.alpha_, rtol=1e-7)
    assert "without a say: 'y1'" in both.fit_.rule_text


def test_nor_has_one_beside_an_l1_penalty(rows: Any) -> None:
    X, Y = rows
    alone, both = (Lasso("kfold").fit(X, y) for y in (Y, beside(Y, 4.1)))
    np.testing.assert_allclose(both.alpha_, alone.alpha_, rtol=1e-9)
    assert Status.TARGET_WITHOUT_SAY in both.fit_.status


@pytest.mark.parametrize("per_target", [False, True], ids=["shared", "each"])
def test_nor_on_the_width_of_a_kernel(rows: Any, per_target: bool) -> None:
    X, Y = rows
    kernel: dict[str, Any] = {"kernel": "rbf", "gamma": "tune", "alpha_per_target": per_target}
    alone, both = (KernelRidge("reml", **kernel).fit(X[:, :3], y) for y in (Y, beside(Y, 4.1)))
    np.testing.assert_allclose(both.fit_.alpha[[0, 2]], alone.fit_.alpha, rtol=1e-9)
    assert both.fit_.kernel == alone.fit_.kernel


def test_without_an_intercept_only_zeros_have_no_say(rows: Any) -> None:
    X, Y = rows
    alone, zeros, ones = (
        Ridge("reml", fit_intercept=False).fit(X, y) for y in (Y, beside(Y, 0.0), beside(Y, 1.0))
    )
    np.testing.assert_allclose(zeros.alpha_, alone.alpha_, rtol=1e-9)
    assert Status.TARGET_WITHOUT_SAY in zeros.fit_.status
    assert Status.TARGET_WITHOUT_SAY not in ones.fit_.status


def test_a_target_that_the_prior_explains_has_no_say(rows: Any) -> None:
    X, Y = rows
    prior = np.ones(8)
    alone, both = (
        Ridge("reml", prior=prior).fit(X, y) for y in (Y, np.column_stack([Y, X.sum(axis=1) + 2.0]))
    )
    np.testing.assert_allclose(both.alpha_, alone.alpha_, rtol=1e-9)
    assert "'y2'" in both.fit_.rule_text


def test_a_constant_count_beside_an_exposure_has_a_say(rows: Any) -> None:
    X, Y = rows
    counts = np.column_stack([np.random.default_rng(1).poisson(np.exp(Y[:, 0] / 5)), np.full(60, 2)])
    fit = fit_source(MemorySource(X, counts, offset=X[:, 0]), "loo", loss="poisson")
    assert Status.TARGET_WITHOUT_SAY not in fit.status


def test_targets_that_are_all_constant_have_the_largest_alpha(rows: Any) -> None:
    X, _ = rows
    for rule in ("loo", "reml", "aic"):
        model = Ridge(rule).fit(X, np.tile([1.0, 2.0], (60, 1)))
        assert model.alpha_ == model.path_.alphas.max()
        assert Status.TARGET_WITHOUT_SAY not in model.fit_.status


@pytest.mark.parametrize("per_target", [False, True], ids=["shared", "each"])
def test_a_target_without_any_score_has_no_say(rows: Any, per_target: bool) -> None:
    X, Y = rows

    def picky(y: np.ndarray, prediction: np.ndarray, weights: np.ndarray) -> float:
        return np.nan if abs(y).max() > 100 else -float(weights @ (y - prediction) ** 2)

    rule = KFold(4, scoring=picky)
    alone, both = (
        Ridge(rule, alpha_per_target=per_target).fit(X, y) for y in (Y, np.column_stack([Y, 1000 * Y[:, 0]]))
    )
    np.testing.assert_allclose(both.fit_.alpha[:2], alone.fit_.alpha, rtol=1e-9)
    assert "without a say: 'y2'" in both.fit_.rule_text
    with pytest.raises(InputError, match="not defined"):
        Ridge(rule).fit(X, 1000 * Y)


# ------------------------------------------------------------------------------------ folds and edges


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [4, 0, 5, 2, 1, 3]])
def test_folds_forward_in_time_train_on_all_that_came_before(order: list[int]) -> None:
    time = np.array([10, 20, 30, 40, 50, 60])[order]
    folds = [(time[i].tolist(), time[j].tolist()) for i, j in TimeFolds(2).split(np.zeros(6), groups=time)]
    found = [(sorted(train), sorted(test)) for train, test in folds]
    assert found == [([10, 20], [30, 40]), ([10, 20, 30, 40], [50, 60])]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_odd_rows_of_small_classes_go_to_different_folds(seed: int) -> None:
    codes = np.repeat(np.arange(30), 4)
    fold = StratifiedFolds.of(codes, 3, seed).fold
    for c in range(30):
        assert sorted(np.bincount(fold[codes == c], minlength=3)) == [1, 1, 2]
    assert np.ptp(np.bincount(fold)) <= 20  # 60, 30, 30 if they all went to the same


@pytest.mark.parametrize(("times", "folds"), [(2, None), (3, 2), (5, 4), (9, 5)])
def test_folds_forward_in_time_inside_a_training_set_are_one_fewer_than_the_times(
    times: int, folds: int | None
) -> None:
    train = MemorySource(np.zeros((18, 1)), np.arange(18.0), keys=np.arange(18) % times)
    inner = Split.of(3, None, "when", None).inner(train, None)
    if folds is None:
        assert inner == "k-fold needs at least 3 different values of 'when'"
    else:
        assert isinstance(inner, KFold)
        assert len(list(inner.cv.split(train.X, train.y, train.keys()))) == folds


def test_one_standard_error_that_reaches_the_largest_alpha_is_told(rows: Any) -> None:
    X, Y = rows
    faint = 0.3 * Y[:, 0] + 3 * np.random.default_rng(0).normal(size=60)
    for y, told in ((faint, True), (Y[:, 0], False)):
        model = Ridge(LOO(ALPHAS, one_se=True)).fit(X, y)
        score, error = model.path_.score, model.path_.score_se
        best = int(np.argmin(score))
        assert 0 < best < len(ALPHAS) - 1
        assert (score[-1] <= score[best] + error[best]) == told
        assert (model.alpha_ == ALPHAS[-1]) == told
        assert model.fit_.status == ((Status.ONE_SE_EDGE,) if told else ())


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_penalty_matrix_with_a_negative_eigenvalue_is_refused(rows: Any, size: float) -> None:
    X, Y = rows
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    for least, right in ((-1e-6, False), (-1e-15, True), (0.0, True)):
        P = size * (Q * np.r_[np.linspace(0.1, 1, 7), least]) @ Q.T
        if right:
            Ridge(1.0, penalty=(P + P.T) / 2).fit(X, Y)
        else:
            with pytest.raises(InputError, match="penalty"):
                Ridge(1.0, penalty=(P + P.T) / 2).fit(X, Y)
