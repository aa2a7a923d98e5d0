"""`ElasticNet` and `Lasso`: scikit-learn's calls and shapes, alpha by rules, certificates."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import ElasticNet as PeerNet
from sklearn.linear_model import Lasso as PeerLasso
from sklearn.linear_model import LogisticRegression as PeerLogistic
from sklearn.linear_model import Ridge as PeerRidge
from sklearn.model_selection import ShuffleSplit, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier

import elltwo
from elltwo import GLM, LogisticRegression, Ridge, SparseLogisticRegression, Status, load
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.elastic_net import ElasticNet, Lasso
from elltwo.selection import AIC, BIC, GCV, LOO, KFold
from elltwo.solvers import coordinate
from sklearn_checks import assert_checks_pass

Array = npt.NDArray[Any]


@pytest.fixture
def few_alphas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the automatic grid short, where a test does not ask how close its alphas lie."""
    monkeypatch.setattr(coordinate, "GRID", 12)


def data(n: int = 80, p: int = 12, targets: int | None = None) -> tuple[Array, Array]:
    rng = np.random.default_rng(n * p)
    X = rng.normal(size=(n, p)) + 2
    y = 3 + X[:, 0] - 2 * X[:, 1] + rng.normal(size=n)
    return X, y if targets is None else np.column_stack([y * (t + 1) + X[:, t] for t in range(targets)])


# With the automatic choice, folds of consecutive rows differ once rows are repeated or left out.
@pytest.mark.parametrize(
    "estimator",
    [
        "ElasticNet(2.0)",
        "Lasso(1.0)",
        "ElasticNet(2.0, family='huber', epsilon=5.0)",
        "SparseLogisticRegression(1.0)",
        "SparseLogisticRegression(1.0, l1_ratio=0.5)",
    ],
)
def test_scikit_learns_checks_pass_without_exceptions_or_skips(estimator: str) -> None:
    assert_checks_pass(estimator, least=55)


@pytest.mark.parametrize(("n", "p"), [(80, 12), (15, 20)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_scikit_learns_call_gives_scikit_learns_model(
    n: int, p: int, weighted: bool, fit_intercept: bool
) -> None:
    X, y = data(n, p)
    X[:, 2] *= 10.0
    Y = np.column_stack([y + 3, X[:, 3] - y])
    w = np.random.default_rng(9).uniform(0.2, 5.0, size=n) if weighted else None
    total = n if w is None else w.sum()
    tight = {"tol": 1e-14, "max_iter": 100_000}
    for targets in (y, Y):
        for ours, peer in (
            (Lasso(alpha=0.1, fit_intercept=fit_intercept, copy_X=False), PeerLasso),
            (ElasticNet(0.1, l1_ratio=0.6, fit_intercept=fit_intercept, max_iter=500), PeerNet),
            (ElasticNet(0.1, l1_ratio=0, fit_intercept=fit_intercept), PeerNet),
        ):
            shared = {
                k: v for k, v in ours.get_params().items() if k in ("alpha", "l1_ratio", "fit_intercept")
            }
            if shared.get("l1_ratio") == 0:  # where coordinate descent converges slowly: (XᵀWX + Σw·αI)⁻¹XᵀWy
                expected = PeerRidge(0.1 * total, fit_intercept=fit_intercept).fit(X, targets, w)
            else:
                expected = peer(**shared, **tight).fit(X, targets, w)
            ours.fit(X, targets, w)
            np.testing.assert_allclose(ours.coef_, expected.coef_, atol=1e-6)
            np.testing.assert_allclose(ours.intercept_, expected.intercept_, atol=1e-6)
            assert ours.coef_.shape == expected.coef_.shape
            assert ours.alpha_ == pytest.approx(0.1 * total, rel=1e-12)  # on the sum scale, as everywhere
            assert ours.fit_.alpha == pytest.approx(ours.alpha_, rel=1e-15)


def test_alpha_on_the_sum_scale_is_that_of_the_mean_scale_times_the_weights() -> None:
    X, y = data()
    w = np.random.default_rng(9).uniform(0.2, 5.0, size=len(y))
    alphas = np.array([0.5, 0.05])
    mean = Lasso(KFold(3, alphas=alphas)).fit(X, y, w)
    ours = Lasso(KFold(3, alphas=alphas * w.sum()), alpha_scale="sum").fit(X, y, w)
    np.testing.assert_allclose(mean.path_.alphas, alphas * w.sum(), rtol=1e-12)
    np.testing.assert_allclose(ours.path_.alphas, mean.path_.alphas, rtol=1e-12)
    assert np.abs(mean.coef_ - ours.coef_).max() <= 1e-12
    again = Lasso(mean.alpha_, alpha_scale="sum").fit(X, y, w)
    assert np.abs(again.coef_ - mean.coef_).max() <= 1e-12


def test_the_lasso_is_the_elastic_net_at_one() -> None:
    X, y = data()
    lasso = Lasso(6.0, alpha_scale="sum").fit(X, y)
    assert np.array_equal(lasso.coef_, ElasticNet(6.0, l1_ratio=1.0, alpha_scale="sum").fit(X, y).coef_)
    assert lasso.sparse_coef_.shape == (1, 12)
    assert lasso.sparse_coef_.nnz == np.count_nonzero(lasso.coef_) == lasso.fit_.df[0]
    assert lasso.dual_gap_ <= 1e-10
    assert lasso.n_iter_ >= 1
    assert "absolute coefficients" in lasso.fit_.summary()


def test_kfold_is_refitting_every_training_set() -> None:
    X, y = data(50, 8)
    alphas = np.array([1.0, 5.0, 20.0])
    folds = list(ShuffleSplit(4, random_state=0).split(X))
    folds = [(np.setdiff1d(np.arange(50), test), test) for _, test in folds]
    model = ElasticNet(KFold(folds, alphas=alphas), l1_ratio=0.7, alpha_scale="sum", standardize=True).fit(
        X, y
    )
    errors, rows = np.zeros(3), 0
    for train, test in folds:
        scale = X[train].std(axis=0)
        for a, alpha in enumerate(alphas):
            peer = PeerNet(alpha=alpha / len(train), l1_ratio=0.7, tol=1e-14, max_iter=100_000)
            peer.fit(X[train] / scale, y[train])
            errors[a] += np.sum((y[test] - peer.predict(X[test] / scale)) ** 2)
        rows += len(test)
    assert model.path_.score == pytest.approx(errors / rows, rel=1e-6)
    assert model.alpha_ == alphas[np.argmin(errors)]


@pytest.mark.parametrize("rule", ["kfold", "gcv", "aic", "bic", "loo", KFold(3, one_se=True)])
@pytest.mark.parametrize(("n", "p", "length"), [(80, 12, 100), (40, 90, 25)])
def test_rules_choose_from_the_automatic_grid(
    n: int, p: int, length: int, rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if length != coordinate.GRID:
        monkeypatch.setattr(coordinate, "GRID", length)
    X, y = data(n, p)
    model = Lasso(rule).fit(X, y)
    assert len(model.path_.alphas) == length
    assert model.path_.coef.shape == (length, p)
    assert not model.path_.coef[-1].any()
    assert set(np.flatnonzero(model.coef_)) >= {0, 1}
    assert model.dual_gap_ <= 1e-10
    assert Status.NOT_CONVERGED not in model.fit_.status


def test_leave_one_out_is_called_approximate_and_is_close() -> None:
    X, y = data()
    alphas = np.array([3.0, 10.0])
    model = Lasso(LOO(alphas=alphas), alpha_scale="sum").fit(X, y)
    assert "approximate" in model.fit_.rule_text
    truth = []
    for alpha in alphas:
        errors = []
        for i in range(len(y)):
            rest = np.arange(len(y)) != i
            peer = PeerLasso(alpha / rest.sum(), tol=1e-10).fit(X[rest], y[rest])
            errors.append(float(y[i] - peer.predict(X[[i]])[0]) ** 2)
        truth.append(np.mean(errors))
    assert model.path_.score == pytest.approx(truth, rel=0.02)


def test_information_criteria_count_the_coefficients() -> None:
    X, y = data()
    alphas = [2.0, 20.0]
    for rule, price in ((AIC(alphas), 2.0), (BIC(alphas), np.log(80))):
        model = Lasso(rule).fit(X, y)
        k = np.count_nonzero(model.path_.coef, axis=1)
        fitted = X @ model.path_.coef.T + model.path_.intercept
        rss = np.sum((y[:, None] - fitted) ** 2, axis=0)
        expected = 80 * np.log(2 * np.pi * rss / 80) + 80 + price * (k + 2)
        assert model.path_.score == pytest.approx(expected, rel=1e-10)


@pytest.mark.usefixtures("few_alphas")
def test_targets_are_fitted_each_by_itself() -> None:
    X, Y = data(targets=3)
    both = ElasticNet(5.0, alpha_scale="sum").fit(X, Y)
    assert both.coef_.shape == (3, 12)
    for t in range(3):
        alone = ElasticNet(5.0, alpha_scale="sum").fit(X, Y[:, t])
        assert np.abs(both.coef_[t] - alone.coef_).max() <= 1e-12
        assert both.dual_gap_[t] <= 1e-10
    each = ElasticNet("kfold", alpha_per_target=True).fit(X, Y)
    assert each.alpha_.shape == (3,)
    given = ElasticNet(each.alpha_, alpha_scale="sum").fit(X, Y)
    assert np.abs(given.coef_ - each.coef_).max() <= 1e-10
    with pytest.raises(InputError, match="one target at a time"):
        ElasticNet(GCV()).fit(X, Y)


def test_multipliers_and_standardisation() -> None:
    X, y = data()
    X[:, 3] *= 100
    d = np.ones(12)
    d[[4, 5]] = 0.0
    free = Lasso(1e6, penalty=d).fit(X, y)
    assert set(np.flatnonzero(free.coef_)) == {4, 5}
    scaled = Lasso(5.0, standardize=True, alpha_scale="sum").fit(X, y)
    by_hand = Lasso(5.0, alpha_scale="sum").fit(X / X.std(axis=0), y)
    assert np.abs(scaled.coef_ * X.std(axis=0) - by_hand.coef_).max() <= 1e-10


@pytest.mark.usefixtures("few_alphas")
@pytest.mark.parametrize(("n", "p"), [(60, 8), (20, 60)])
def test_sparse_is_dense(n: int, p: int) -> None:
    rng = np.random.default_rng(p)
    X = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.3)
    y, w = X[:, 0] + rng.normal(size=n), rng.uniform(0.5, 2.0, size=n)
    for alpha in (2.0, "kfold"):
        dense = ElasticNet(alpha, l1_ratio=0.8, alpha_scale="sum").fit(X, y, w)
        thin = ElasticNet(alpha, l1_ratio=0.8, alpha_scale="sum").fit(sparse.csr_matrix(X), y, w)
        assert thin.alpha_ == pytest.approx(dense.alpha_, rel=1e-9)
        assert np.abs(thin.coef_ - dense.coef_).max() <= 1e-8


def test_no_share_of_l1_is_ridge() -> None:
    X, y = data()
    model = ElasticNet(3.0, l1_ratio=0, alpha_scale="sum").fit(X, y)
    assert np.array_equal(model.coef_, Ridge(3.0).fit(X, y).coef_)
    assert model.dual_gap_ == 0.0
    assert (
        np.abs(ElasticNet(3.0, l1_ratio=1e-13, alpha_scale="sum").fit(X, y).coef_ - model.coef_).max() <= 1e-9
    )


def test_too_few_passes_are_told() -> None:
    X, y = data(30, 60)
    assert Status.NOT_CONVERGED in Lasso(0.05, max_iter=1, alpha_scale="sum").fit(X, y).fit_.status


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1_ratio": 1.5}, "l1_ratio"),
        ({"l1_ratio": "half"}, "l1_ratio"),
        ({"positive": True}, "positive"),
        ({"max_iter": 0}, "max_iter"),
        ({"alpha": 0.0}, "alpha must be above 0"),
        ({"alpha": -1.0}, "not negative"),
        ({"alpha": [1.0, 2.0]}, "2 values for 1 target"),
        ({"alpha": "reml"}, "ridge only"),
        ({"alpha": "best"}, "neither a number nor a rule"),
        ({"penalty": np.eye(12)}, "one multiplier per feature"),
        ({"alpha_scale": "half"}, "alpha_scale"),
        ({"tol": -1.0}, "tol"),
        ({"standardize": 2}, "standardize must be True or False"),
        ({"copy_X": "no"}, "copy_X must be True or False"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], message: str) -> None:
    X, y = data()
    with pytest.raises(InputError, match=message):
        ElasticNet(**options).fit(X, y)


def test_parameters_survive_cloning() -> None:
    model = clone(ElasticNet(KFold(3), l1_ratio=0.3, penalty=np.arange(3.0)))
    assert model.l1_ratio == 0.3
    assert "l1_ratio" not in Lasso().get_params()


# Other families.


def counts(n: int = 120, p: int = 8) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(n + p)
    X, days = rng.normal(size=(n, p)), rng.uniform(1, 20, size=n)
    return X, rng.poisson(days * np.exp(0.5 * X[:, 0] - 1)).astype(np.float64), days


def labels(n: int = 120, p: int = 8) -> tuple[Array, Array]:
    rng = np.random.default_rng(n * p)
    X = rng.normal(size=(n, p))
    return X, np.where(X[:, 0] - X[:, 1] + rng.logistic(size=n) > 0, "yes", "no")


def test_kfold_of_classes_is_refitting_every_training_set() -> None:
    X, y = labels(90, 5)
    alphas = np.array([1.0, 4.0, 12.0])
    model = SparseLogisticRegression(KFold(3, alphas=alphas), l1_ratio=0.7).fit(X, y)
    losses, right = np.zeros(3), np.zeros(3)
    for train, test in StratifiedKFold(3).split(X, y):
        for a, alpha in enumerate(alphas):
            peer = PeerLogistic(C=1 / alpha, l1_ratio=0.7, solver="saga", tol=1e-9, max_iter=100_000)
            proba = peer.fit(X[train], y[train]).predict_proba(X[test])
            losses[a] += -2 * np.sum(np.log(proba[np.arange(len(test)), (y[test] == "yes").astype(int)]))
            right[a] += np.mean(peer.predict(X[test]) == y[test]) / 3
    assert model.path_.score == pytest.approx(losses / 90, rel=1e-5)
    scored = SparseLogisticRegression(KFold(3, alphas=alphas, scoring="accuracy"), l1_ratio=0.7).fit(X, y)
    assert -scored.path_.score == pytest.approx(right, abs=1e-12)


@pytest.mark.usefixtures("few_alphas")
def test_every_rule_chooses_for_classes_and_the_model_predicts() -> None:
    X, y = labels()
    for rule in ("kfold", "loo", "aic", "bic", KFold(4, scoring="roc_auc", one_se=True)):
        model = SparseLogisticRegression(rule, random_state=1).fit(X, y)
        assert set(np.flatnonzero(model.coef_[0])) >= {0, 1}
        assert model.dual_gap_ <= 1e-9
        assert len(model.path_.alphas) == coordinate.GRID
        assert np.mean(model.predict(X) == y) > 0.65
        proba = model.predict_proba(X)
        assert np.abs(np.exp(model.predict_log_proba(X)) - proba).max() <= 1e-14
        assert proba[:, 1] == pytest.approx(1 / (1 + np.exp(-model.decision_function(X))), rel=1e-12)
    assert "Lasso (L1) logistic regression" in model.fit_.summary()
    assert "Duality gap" in model.fit_.summary()
    sparser = SparseLogisticRegression(KFold(4, one_se=True)).fit(X, y)
    assert sparser.alpha_ >= SparseLogisticRegression(KFold(4)).fit(X, y).alpha_
    assert sparser.sparse_coef_.nnz == np.count_nonzero(sparser.coef_)


def test_class_weights_are_row_weights_and_penalty_multipliers_count() -> None:
    X, y = labels()
    weighted = SparseLogisticRegression(3.0, class_weight={"yes": 2.5}).fit(X, y)
    rows = SparseLogisticRegression(3.0).fit(X, y, sample_weight=np.where(y == "yes", 2.5, 1.0))
    assert np.abs(weighted.coef_ - rows.coef_).max() <= 1e-10
    free = SparseLogisticRegression(1e6, penalty=np.array([1, 1, 0, 1, 1, 1, 1, 1.0])).fit(X, y)
    assert np.flatnonzero(free.coef_[0]).tolist() == [2]
    scaled = SparseLogisticRegression(3.0, standardize=True).fit(X * 100, y)
    by_hand = SparseLogisticRegression(3.0).fit(X / X.std(axis=0), y)
    assert scaled.coef_ * 100 * X.std(axis=0) == pytest.approx(by_hand.coef_, abs=1e-9)


def test_no_share_of_l1_is_logistic_regression() -> None:
    X, y = labels()
    model = SparseLogisticRegression(3.0, l1_ratio=0).fit(X, y)
    assert np.array_equal(model.coef_, LogisticRegression(3.0).fit(X, y).coef_)
    near = SparseLogisticRegression(3.0, l1_ratio=1e-12).fit(X, y)
    assert np.abs(near.coef_ - model.coef_).max() <= 1e-8


def test_more_than_two_classes_are_refused_and_one_against_the_rest_does() -> None:
    X, _ = labels()
    y = np.arange(len(X)) % 3
    with pytest.raises(InputError, match="OneVsRestClassifier"):
        SparseLogisticRegression(1.0).fit(X, y)
    both = OneVsRestClassifier(SparseLogisticRegression(1.0)).fit(X, y)
    assert both.predict_proba(X).shape == (len(X), 3)
    with pytest.raises(InputError, match="use LogisticRegression"):
        ElasticNet(1.0, family="multinomial").fit(X, y)


@pytest.mark.usefixtures("few_alphas")
@pytest.mark.parametrize("family", ["poisson", "gamma", "tweedie", "negative-binomial", "huber", "binomial"])
def test_every_family_by_kfold(family: str) -> None:
    X, y, _ = counts(80, 4)
    y = {"gamma": y + 0.5, "binomial": y / y.max()}.get(family, y)
    model = Lasso(family=family, epsilon=2.0 if family == "huber" else None).fit(X, y)
    assert model.coef_[0] != 0
    assert model.dual_gap_ <= 1e-9
    assert model.fit_.certificate.residual <= 1e-10
    assert model.score(X, y) > 0.02
    assert model.n_iter_ >= 1
    near = GLM(family, alpha=1e-6, epsilon=2.0 if family == "huber" else None).fit(X, y)
    free = Lasso(1e-6, family=family, epsilon=2.0 if family == "huber" else None).fit(X, y)
    assert np.abs(near.coef_ - free.coef_).max() <= 1e-4


@pytest.mark.usefixtures("few_alphas")
def test_offset_and_exposure_go_through_fit_predict_and_score() -> None:
    X, y, days = counts()
    model = ElasticNet("kfold", family="poisson", l1_ratio=0.9).fit(X, y, exposure=days)
    same = ElasticNet(model.alpha_, family="poisson", l1_ratio=0.9, alpha_scale="sum").fit(
        X, y, offset=np.log(days)
    )
    assert np.abs(same.coef_ - model.coef_).max() <= 1e-9
    assert model.predict(X, exposure=2 * days) == pytest.approx(2 * model.predict(X, exposure=days))
    assert model.score(X, y, exposure=days) > 0.2
    assert abs(np.sum(y - model.predict(X, exposure=days))) <= 1e-6  # the intercept's own condition
    thin = ElasticNet(model.alpha_, family="poisson", l1_ratio=0.9, alpha_scale="sum").fit(
        sparse.csr_matrix(X), y, exposure=days
    )
    assert np.abs(thin.coef_ - model.coef_).max() <= 1e-9


@pytest.mark.parametrize("p", [5, 60])
def test_an_offset_of_squared_error_is_taken_off_sparse_and_dense_rows_alike(p: int) -> None:
    """Wide sparse rows once ignored it."""
    rng = np.random.default_rng(p)
    X = rng.normal(size=(30, p)) * (rng.random((30, p)) < 0.4)
    offset = rng.normal(size=30)
    y = X[:, 0] + offset
    expected = Lasso(1.0, alpha_scale="sum").fit(X, y - offset)
    for data in (X, sparse.csr_matrix(X)):
        assert (
            np.abs(Lasso(1.0, alpha_scale="sum").fit(data, y, offset=offset).coef_ - expected.coef_).max()
            <= 1e-10
        )


@pytest.mark.usefixtures("few_alphas")
def test_targets_of_another_family_are_fitted_each_by_itself() -> None:
    X, y, _ = counts()
    Y = np.column_stack([y, y[::-1]])
    both = Lasso(20.0, family="poisson", alpha_scale="sum").fit(X, Y)
    assert both.dual_gap_.shape == (2,)
    for t in range(2):
        alone = Lasso(20.0, family="poisson", alpha_scale="sum").fit(X, Y[:, t])
        assert np.abs(both.coef_[t] - alone.coef_).max() <= 1e-9
    each = Lasso(KFold(3), family="poisson", alpha_per_target=True).fit(X, Y)
    assert each.alpha_.shape == (2,)


def test_a_model_of_another_family_survives_its_file(tmp_path: Any) -> None:
    X, y = labels()
    fit = SparseLogisticRegression(4.0).fit(X, y).fit_
    fit.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.certificate == fit.certificate
    assert loaded.model == fit.model == "Lasso (L1) logistic"
    assert np.array_equal(loaded.predict_proba(X), fit.predict_proba(X))
    assert loaded.summary() == fit.summary()


@pytest.mark.usefixtures("few_alphas")
def test_tables_choose_by_kfold_with_an_l1_penalty_and_by_leave_one_out_without() -> None:
    X, y = labels(60, 4)
    table = {f"x{j}": X[:, j] for j in range(4)} | {"y": y}
    for model in ("lasso", "elasticnet"):
        fitted = elltwo.fit(table, "y", model=model, family="binomial")
        assert fitted.rule == "kfold"
        assert fitted.classes == ("no", "yes")
        assert fitted.quality is not None
        assert fitted.quality["confusion"] is not None
        assert elltwo.fit(table, "y", model=model, family="binomial", select="loo").rule == "loo"
    assert elltwo.fit(table, "y", family="binomial").rule == "loo"
    numbers = {name: table[name] for name in ("x0", "x1", "x2")}
    assert elltwo.fit(numbers, "x2", model="lasso").rule == "kfold"
    with pytest.raises(InputError, match="against the rest, as family 'binomial'"):
        elltwo.fit(table, "y", model="lasso", family="multinomial")


def test_the_grid_goes_down_far_enough_for_collinear_columns() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=(200, 1))
    X = z + 0.2 * rng.normal(size=(200, 6))
    y = X @ [6.0, -6.0, 3.0, -3.0, 1.0, 0.0] + 0.5 * rng.normal(size=200)
    model = Lasso(random_state=0).fit(X, y)
    assert model.path_.alphas[0] == pytest.approx(1e-4 * model.path_.alphas[-1])
    assert model.alpha_ < 1e-3 * model.path_.alphas[-1]
    assert Status.EDGE_LOW not in model.fit_.status
