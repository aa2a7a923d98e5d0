"""`ElasticNet` and `Lasso`: scikit-learn's calls and shapes, alpha by rules, certificates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import ElasticNet as PeerNet
from sklearn.linear_model import Lasso as PeerLasso
from sklearn.model_selection import ShuffleSplit

from elltwo import Ridge, Status
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.elastic_net import ElasticNet, Lasso
from elltwo.selection import AIC, BIC, GCV, LOO, KFold

Array = npt.NDArray[Any]


def data(n: int = 80, p: int = 12, targets: int | None = None) -> tuple[Array, Array]:
    rng = np.random.default_rng(n * p)
    X = rng.normal(size=(n, p)) + 2
    y = 3 + X[:, 0] - 2 * X[:, 1] + rng.normal(size=n)
    return X, y if targets is None else np.column_stack([y * (t + 1) + X[:, t] for t in range(targets)])


# With the automatic choice, folds of consecutive rows differ once rows are repeated or left out.
CHECKS = """
import json, sys, warnings
from sklearn.utils.estimator_checks import check_estimator
import elltwo
warnings.simplefilter("ignore")
checks = check_estimator(getattr(elltwo, sys.argv[1])(float(sys.argv[2])), on_fail=None, on_skip=None)
json.dump([(check["check_name"], check["status"], str(check["exception"])) for check in checks], sys.stdout)
"""


@pytest.mark.parametrize(("name", "alpha"), [("ElasticNet", "2.0"), ("Lasso", "1.0")])
def test_scikit_learns_checks_pass_without_exceptions_or_skips(name: str, alpha: str) -> None:
    """In a process of its own, since one check asks for SCIPY_ARRAY_API before scipy is imported."""
    run = subprocess.run(
        [sys.executable, "-c", CHECKS, name, alpha],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    checks = json.loads(run.stdout)
    assert len(checks) > 55
    assert [check for check in checks if check[1] != "passed"] == []


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_alpha_is_on_the_sum_scale_and_scikit_learns_on_the_mean_scale(l1_ratio: float) -> None:
    X, y = data()
    peer = PeerNet(alpha=0.1, l1_ratio=l1_ratio, tol=1e-14, max_iter=100_000).fit(X, y)
    ours = ElasticNet(0.1 * len(y), l1_ratio=l1_ratio).fit(X, y)
    mean = ElasticNet(0.1, l1_ratio=l1_ratio, alpha_scale="mean").fit(X, y)
    assert np.abs(ours.coef_ - peer.coef_).max() <= 1e-6
    assert ours.intercept_ == pytest.approx(peer.intercept_, abs=1e-6)
    assert np.abs(mean.coef_ - ours.coef_).max() <= 1e-12
    assert mean.alpha_ == pytest.approx(8.0)


def test_the_lasso_is_the_elastic_net_at_one() -> None:
    X, y = data()
    lasso = Lasso(6.0).fit(X, y)
    assert np.array_equal(lasso.coef_, ElasticNet(6.0, l1_ratio=1.0).fit(X, y).coef_)
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
    model = ElasticNet(KFold(folds, alphas=alphas), l1_ratio=0.7, standardize=True).fit(X, y)
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
@pytest.mark.parametrize(("n", "p"), [(80, 12), (40, 90)])
def test_rules_choose_from_the_automatic_grid(n: int, p: int, rule: Any) -> None:
    X, y = data(n, p)
    model = Lasso(rule).fit(X, y)
    assert len(model.path_.alphas) == 100
    assert model.path_.coef.shape == (100, p)
    assert not model.path_.coef[-1].any()
    assert set(np.flatnonzero(model.coef_)) >= {0, 1}
    assert model.dual_gap_ <= 1e-10
    assert Status.NOT_CONVERGED not in model.fit_.status


def test_leave_one_out_is_called_approximate_and_is_close() -> None:
    X, y = data()
    alphas = np.array([3.0, 10.0])
    model = Lasso(LOO(alphas=alphas)).fit(X, y)
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


def test_targets_are_fitted_each_by_itself() -> None:
    X, Y = data(targets=3)
    both = ElasticNet(5.0).fit(X, Y)
    assert both.coef_.shape == (3, 12)
    for t in range(3):
        alone = ElasticNet(5.0).fit(X, Y[:, t])
        assert np.abs(both.coef_[t] - alone.coef_).max() <= 1e-12
        assert both.dual_gap_[t] <= 1e-10
    each = ElasticNet("kfold", alpha_per_target=True).fit(X, Y)
    assert each.alpha_.shape == (3,)
    given = ElasticNet(each.alpha_).fit(X, Y)
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
    scaled = Lasso(5.0, standardize=True).fit(X, y)
    by_hand = Lasso(5.0).fit(X / X.std(axis=0), y)
    assert np.abs(scaled.coef_ * X.std(axis=0) - by_hand.coef_).max() <= 1e-10


@pytest.mark.parametrize(("n", "p"), [(60, 8), (20, 60)])
def test_sparse_is_dense(n: int, p: int) -> None:
    rng = np.random.default_rng(p)
    X = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.3)
    y, w = X[:, 0] + rng.normal(size=n), rng.uniform(0.5, 2.0, size=n)
    for alpha in (2.0, "kfold"):
        dense = ElasticNet(alpha, l1_ratio=0.8).fit(X, y, w)
        thin = ElasticNet(alpha, l1_ratio=0.8).fit(sparse.csr_matrix(X), y, w)
        assert thin.alpha_ == pytest.approx(dense.alpha_, rel=1e-9)
        assert np.abs(thin.coef_ - dense.coef_).max() <= 1e-8


def test_no_share_of_l1_is_ridge() -> None:
    X, y = data()
    model = ElasticNet(3.0, l1_ratio=0).fit(X, y)
    assert np.array_equal(model.coef_, Ridge(3.0).fit(X, y).coef_)
    assert model.dual_gap_ == 0.0
    assert np.abs(ElasticNet(3.0, l1_ratio=1e-13).fit(X, y).coef_ - model.coef_).max() <= 1e-9


def test_too_few_passes_are_told() -> None:
    X, y = data(30, 60)
    assert Status.NOT_CONVERGED in Lasso(0.05, max_iter=1).fit(X, y).fit_.status


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
