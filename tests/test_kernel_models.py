"""Kernel models of every loss: against brute force, explicit features and peers; files, tables, centres."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression as PeerLogisticRegression
from sklearn.preprocessing import StandardScaler

import elltwo
from elltwo import LOO, InputError, KernelLogisticRegression, KernelRidge, KFold, LogisticRegression
from elltwo.data.memory import MemorySource
from elltwo.engine import fit_source
from elltwo.errors import ModelFileError
from elltwo.interfaces.cli.main import cli
from elltwo.kernel_fitting import KernelTask, features, fit_kernel, width
from elltwo.kernel_fitting import task as kernel_task
from elltwo.kernels import RBF, Laplacian, Linear, Matern, Polynomial
from elltwo.kernels.distances import TILE
from elltwo.losses import Poisson, SquaredHinge
from elltwo.modelfile import read, write
from elltwo.plot import plot_coefficients, save_figure
from elltwo.solvers.centers import leverage_centers, leverage_scores, pick_centers, take_rows, uniform_rows
from elltwo.solvers.kernel_coordinates import Coordinates
from sklearn_checks import assert_checks_pass

Array = np.ndarray
ALPHAS = np.array([1e-2, 0.3, 10.0])


def data(n: int = 60, p: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """Return rows and η of a function that is not linear."""
    X = np.random.default_rng(seed).normal(size=(n, p))
    return X, np.sin(2 * X[:, 0]) * 2 + X[:, -1] ** 2 - 1


def labels(n: int = 60, K: int = 2, seed: int = 0) -> tuple[Array, Array]:
    X, eta = data(n, seed=seed)
    noisy = eta + np.random.default_rng(seed + 1).logistic(size=n) * 0.6
    if K == 2:
        return X, np.where(noisy > 0, "yes", "no")
    cuts = np.quantile(noisy, np.arange(1, K) / K)
    return X, np.array(["low", "middle", "top", "over"])[np.searchsorted(cuts, noisy)]


def weights_for(n: int) -> Array:
    w = np.random.default_rng(2).uniform(0.3, 3.0, size=n)
    w[[1, n - 1]] = 0.0
    return w


def brute(K: Array, codes: Array, w: Array, alpha: float, centre: bool, classes: int) -> Array:
    """Return η at the minimum over (a, b) of the penalised log-loss, by a quasi-Newton method."""
    n, T = len(K), 1 if classes == 2 else classes
    root = np.linalg.cholesky(K + 1e-10 * np.trace(K) / n * np.eye(n))  # f = root·v, ‖f‖² = ‖v‖²
    member = np.eye(classes)[codes]

    def objective(flat: Array) -> tuple[float, Array]:
        v, b = flat[: n * T].reshape(n, T), flat[n * T :]
        eta = root @ v + b * centre
        if T == 1:
            y = codes[:, None]
            value = np.logaddexp(0, eta) - y * eta
            slope = 1 / (1 + np.exp(-eta)) - y
        else:
            top = eta.max(axis=1, keepdims=True)
            log_sum = top + np.log(np.exp(eta - top).sum(axis=1, keepdims=True))
            value = log_sum - (member * eta).sum(axis=1, keepdims=True)
            slope = np.exp(eta - log_sum) - member
        slope = w[:, None] * slope
        g_v = root.T @ slope + alpha * v
        total = float(w @ value[:, 0] if T == 1 else (w[:, None] * value).sum())
        return total + alpha / 2 * float(np.sum(v**2)), np.r_[g_v.ravel(), slope.sum(axis=0) * centre]

    found = scipy.optimize.minimize(
        objective, np.zeros(n * T + T), jac=True, method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 50},
    )  # fmt: skip
    v, b = found.x[: n * T].reshape(n, T), found.x[n * T :]
    eta = root @ v + b * centre
    return eta if T == 1 else eta - eta.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("centre", [True, False], ids=["intercept", "no intercept"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("kernel", [RBF(0.5), Matern(1.0, 0.5)], ids=["low rank", "full rank"])
def test_equal_to_the_minimum_by_brute_force(kernel: Any, K: int, weighted: bool, centre: bool) -> None:
    X, y = labels(40, K)
    w = weights_for(40) if weighted else np.ones(40)
    codes = np.unique(y, return_inverse=True)[1]
    for alpha in (0.05, 3.0):
        model = KernelLogisticRegression(alpha, kernel=kernel, fit_intercept=centre)
        model.fit(X, y, w if weighted else None)
        eta = model.decision_function(X).reshape(40, -1)
        if K > 2:
            eta = eta - eta.mean(axis=1, keepdims=True)
        want = brute(kernel(X), codes, w, alpha, centre, K)
        np.testing.assert_allclose(eta, want, rtol=0, atol=3e-5)
        certificate = model.fit_.certificate
        assert certificate.residual < 1e-10
        assert certificate.digits > 8
        if centre:
            np.testing.assert_allclose(model.dual_coef_.sum(axis=0), 0.0, atol=1e-9)
        if weighted:
            assert not model.dual_coef_[[1, 39]].any()
            assert len(model.fit_.coef) == 38


def polynomial_features(X: Array) -> Array:
    """Return φ with φ(x)ᵀφ(z) = (xᵀz + 1)²."""
    p = X.shape[1]
    cross = [np.sqrt(2) * X[:, i] * X[:, j] for i in range(p) for j in range(i)]
    return np.column_stack([X**2, *cross, np.sqrt(2) * X, np.ones(len(X))])


@pytest.mark.parametrize("K", [2, 3])
def test_equal_to_scikit_learn_on_the_explicit_features_of_a_polynomial_kernel(K: int) -> None:
    X, y = labels(80, K)
    phi = polynomial_features(X)
    np.testing.assert_allclose(phi @ phi.T, Polynomial(2, 1.0, 1.0)(X), atol=1e-11)
    for C in (0.1, 10.0):
        peer = PeerLogisticRegression(C=C, solver="newton-cg", tol=1e-12, max_iter=10_000).fit(phi, y)
        model = KernelLogisticRegression(C=C, kernel="poly", degree=2, gamma=1.0).fit(X, y)
        np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(phi), atol=1e-6)
        np.testing.assert_array_equal(model.predict(X), peer.predict(phi))
        np.testing.assert_array_equal(model.classes_, peer.classes_)


@pytest.mark.parametrize("rule", [LOO(ALPHAS), KFold(4, ALPHAS), LOO(ALPHAS, one_se=True)], ids=repr)
@pytest.mark.parametrize("K", [2, 3])
def test_rules_with_the_linear_kernel_are_those_of_logistic_regression(rule: Any, K: int) -> None:
    X, y = labels(70, K)
    w = weights_for(70)
    model = KernelLogisticRegression(rule, kernel="linear").fit(X, y, w)
    linear = LogisticRegression(rule).fit(X, y, w)
    assert model.alpha_ == linear.alpha_
    np.testing.assert_allclose(model.path_.score, linear.path_.score, rtol=1e-7)
    np.testing.assert_allclose(model.path_.df, linear.path_.df, rtol=1e-6)
    np.testing.assert_allclose(model.fit_.df, linear.fit_.df, rtol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), linear.predict_proba(X), atol=1e-8)
    np.testing.assert_allclose(model.predict_log_proba(X), linear.predict_log_proba(X), atol=1e-7)
    np.testing.assert_allclose(model.fit_.deviance, linear.fit_.deviance, rtol=1e-8)
    np.testing.assert_allclose(model.fit_.cv_deviance, linear.fit_.cv_deviance, rtol=1e-7)


@pytest.mark.parametrize("name", ["aic", "bic"])
def test_criteria_and_the_path_of_a_kernel(name: str) -> None:
    X, y = labels(60)
    model = KernelLogisticRegression(name, gamma=0.5).fit(X, y)
    assert model.fit_.rule == name
    at = int(model.path_.chosen[0])
    eta = RBF(0.5)(X) @ model.path_.coef[at] + model.path_.intercept[at]
    np.testing.assert_allclose(eta, model.decision_function(X), atol=1e-6)


def test_leave_one_out_is_close_to_refits() -> None:
    X, y = labels(50)
    model = KernelLogisticRegression(LOO([0.5, 5.0]), gamma=0.3).fit(X, y)
    for i, alpha in enumerate((0.5, 5.0)):
        losses = []
        for row in range(50):
            rest = np.arange(50) != row
            fit = KernelLogisticRegression(alpha, gamma=0.3).fit(X[rest], y[rest])
            losses.append(-fit.predict_log_proba(X[[row]])[0, list(fit.classes_).index(y[row])])
        np.testing.assert_allclose(model.path_.score[i], 2 * np.mean(losses), rtol=0.02)


def test_counts_are_repetitions_and_class_weights_are_weights() -> None:
    X, y = labels(40)
    counts = np.arange(40) % 4
    one = KernelLogisticRegression(0.5, gamma=0.3, weights_are="frequency").fit(X, y, counts)
    many = KernelLogisticRegression(0.5, gamma=0.3).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(one.decision_function(X), many.decision_function(X), atol=1e-8)
    assert one.fit_.n_observations == counts.sum()
    balanced = KernelLogisticRegression(0.5, gamma=0.3, class_weight="balanced").fit(X, y)
    by_hand = np.where(y == "yes", 40 / 2 / (y == "yes").sum(), 40 / 2 / (y == "no").sum())
    weighted = KernelLogisticRegression(0.5, gamma=0.3).fit(X, y, by_hand)
    np.testing.assert_allclose(balanced.decision_function(X), weighted.decision_function(X), atol=1e-9)


@pytest.mark.parametrize("alpha", [1.0, LOO(ALPHAS)], ids=repr)
def test_other_losses_on_explicit_features(alpha: Any) -> None:
    """Counts with an offset, and a support vector machine whose coefficients are 0 off the margin."""
    X, eta = data(60)
    counts = np.random.default_rng(3).poisson(np.exp(eta / 3)).astype(float)
    offset = np.linspace(-0.5, 0.5, 60)
    rule, fixed = (None, np.array([alpha])) if isinstance(alpha, float) else (alpha, None)
    source = MemorySource(X, counts, offset=offset)
    fit = fit_kernel(KernelTask(source, rule, fixed, loss=Poisson()), Polynomial(2, 1.0, 1.0))
    phi = polynomial_features(X)[:, :-1]
    linear = fit_source(MemorySource(phi, counts, offset=offset), alpha, loss="poisson")
    np.testing.assert_allclose(fit.alpha, linear.alpha)
    np.testing.assert_allclose(fit.decision(X, offset=offset), linear.decision(phi, offset=offset), atol=1e-7)
    classes = np.where(eta > 0, 1.0, -1.0)
    svm = fit_kernel(
        KernelTask(MemorySource(X, classes), rule, fixed, loss=SquaredHinge()), Polynomial(2, 1.0, 1.0)
    )
    linear = fit_source(MemorySource(phi, classes), alpha, loss="squared-hinge")
    np.testing.assert_allclose(svm.decision(X), linear.decision(phi), atol=1e-7)
    margin = classes * linear.decision(phi)[:, 0]
    np.testing.assert_array_equal(svm.support, np.flatnonzero(margin < 1))


# ----------------------------------------------------------------------------------------------- coordinates


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("kernel", [RBF(0.5), Linear(), Matern(1.0, 0.5)], ids=str)
def test_coordinates_have_the_inner_products_of_the_kernel(kernel: Any, centre: bool) -> None:
    X, _ = data(30)
    K = kernel(X)
    at = Coordinates.of(kernel.lower(X), centre=centre)
    H = np.eye(30) - np.full((30, 30), 1 / 30) * centre
    size = np.linalg.norm(K, 2)
    np.testing.assert_allclose(at.features @ at.features.T, H @ K @ H, atol=1e-13 * 30 * size)
    beta = np.random.default_rng(0).normal(size=(len(at.g), 2))
    a, b = at.dual(beta, np.array([1.0, 2.0]))
    np.testing.assert_allclose(K @ a + b, at.features @ beta + [1.0, 2.0], atol=1e-6)
    with pytest.raises(InputError, match="negative eigenvalue"):
        Coordinates.of(-K, centre=centre)
    flat = Coordinates.of(np.ones((4, 4)), centre=True)
    assert flat.g.tolist() == [0.0]
    assert Coordinates.of(np.ones((1, 1)), centre=True).features.shape == (1, 1)


def test_a_constant_kernel_gives_the_shares_of_the_classes() -> None:
    X, y = labels(30)
    model = KernelLogisticRegression(1.0, gamma=1.0).fit(np.ones_like(X), y)
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], np.mean(y == "yes"), atol=1e-9)


def test_standardising_is_that_of_scikit_learn() -> None:
    X, y = labels(50)
    X = X * [1.0, 100.0, 0.01] + [0.0, 5.0, -3.0]
    Z = StandardScaler().fit_transform(X)
    one = KernelLogisticRegression(0.3, gamma=0.4, standardize=True).fit(X, y)
    two = KernelLogisticRegression(0.3, gamma=0.4).fit(Z, y)
    np.testing.assert_allclose(one.decision_function(X), two.decision_function(Z), atol=1e-9)
    ridge = KernelRidge(0.3, kernel="poly", standardize=True).fit(X, X[:, 0])
    plain = KernelRidge(0.3, kernel="poly").fit(Z, X[:, 0])
    np.testing.assert_allclose(ridge.predict(X), plain.predict(Z), atol=1e-9)
    with pytest.raises(InputError, match="standardize needs the columns"):
        KernelLogisticRegression(1.0, kernel="precomputed", standardize=True).fit(Z @ Z.T, y)


# --------------------------------------------------------------------------------------------------- centres


@pytest.mark.parametrize("K", [2, 3])
def test_every_row_as_a_centre_is_exact(K: int) -> None:
    X, y = labels(50, K)
    exact = KernelLogisticRegression(LOO(ALPHAS), gamma=0.5).fit(X, y)
    model = KernelLogisticRegression(LOO(ALPHAS), gamma=0.5, solver="nystrom", n_centers=50).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), exact.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(model.path_.score, exact.path_.score, rtol=1e-4)


@pytest.mark.parametrize("loss", ["binomial", "gaussian"])
def test_features_that_are_computed_anew_give_the_same_model(loss: str, monkeypatch: Any) -> None:
    """And the optimum over functions of the centres is a linear model of K_nm K_mm^{-½}."""
    X, y = labels(120)
    target = (y == "yes") * 1.0
    fits = []
    for kept in (1 << 26, 0):
        monkeypatch.setattr(features, "KEPT", kept)
        task = KernelTask(
            MemorySource(X, target), None, np.array([0.5]), solver="nystrom", n_centers=20,
            loss=elltwo.losses.as_loss(loss),
        )  # fmt: skip
        fits.append(fit_kernel(task, RBF(0.3)))
    np.testing.assert_allclose(fits[0].decision(X), fits[1].decision(X), atol=1e-9)
    C = fits[0].centers
    values, vectors = np.linalg.eigh(RBF(0.3)(C))
    phi = RBF(0.3)(X, C) @ vectors / np.sqrt(values)
    linear = fit_source(MemorySource(phi, target), 0.5, loss=loss)
    np.testing.assert_allclose(fits[0].decision(X), linear.decision(phi), atol=1e-7)


def test_many_rows_go_to_centres_by_themselves_and_say_so(monkeypatch: Any) -> None:
    X, y = labels(120)
    monkeypatch.setattr(kernel_task, "MOST_NEWTON", 100)
    fit = KernelLogisticRegression(1.0).fit(X, y).fit_
    assert fit.solver == "nystrom"
    assert "120 rows are more than the 100 of an exact solution" in fit.summary().replace(
        "\n" + " " * 18, " "
    )
    assert KernelLogisticRegression(1.0, solver="exact").fit(X, y).fit_.solver == "exact"
    monkeypatch.setattr(kernel_task, "MOST_DIAGONALISED", 100)
    assert KernelRidge("loo", kernel="rbf").fit(X, X[:, 0]).fit_.solver == "nystrom"


def exact_leverage(K: Array, w: Array, alpha: float) -> Array:
    root = np.sqrt(w)
    Kw = root[:, None] * K * root
    return np.diag(Kw @ np.linalg.inv(Kw + alpha * np.eye(len(K))))


@pytest.mark.parametrize("weighted", [True, False])
def test_leverage_scores_approximate_the_exact_ones(weighted: bool) -> None:
    X, _ = data(800, 2)
    w = np.random.default_rng(4).uniform(0.5, 2.0, size=800) if weighted else None
    source, kernel = MemorySource(X, np.zeros(800), w), RBF(0.5)
    every = take_rows(source, np.arange(800))
    one = np.ones(800) if w is None else w
    for alpha in (0.3, 3.0):
        want = exact_leverage(kernel(X), one, alpha)
        np.testing.assert_allclose(leverage_scores(source, kernel, every, alpha), want, rtol=1e-8)
        sketch = take_rows(source, uniform_rows(source, 400, 0))
        ratio = leverage_scores(source, kernel, sketch, alpha) / want
        low, middle, high = np.quantile(ratio, [0.02, 0.5, 0.98])
        assert low > 0.5
        assert 0.8 < middle < 1.25
        assert high < 3.0


def rare_cluster(seed: int) -> tuple[Array, Array]:
    """Return 3,000 rows, 12 of which lie apart from the others, where the function is another."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3000, 2))
    rare = np.arange(12) * 250
    X[rare] = [30.0, 30.0] + 0.5 * rng.normal(size=(12, 2))
    y = np.sin(X[:, 0])
    y[rare] = 5.0
    return X, y


def test_leverage_finds_rare_rows_that_uniform_draws_miss() -> None:
    options: dict[str, Any] = {"kernel": "rbf", "gamma": 0.1, "solver": "nystrom", "n_centers": 100}
    found, errors = [], {"uniform": 0.0, "leverage": 0.0}
    for seed in range(5):
        X, y = rare_cluster(seed)
        for way in errors:
            model = KernelRidge(1.0, centers=way, random_state=seed, **options).fit(X, y)
            errors[way] += float(np.mean((model.predict(X) - y) ** 2))
            if way == "leverage":
                found.append(int(np.sum(model.X_fit_[:, 0] > 20)))
    assert min(found) >= 1
    assert errors["leverage"] < 0.5 * errors["uniform"]


def test_centres_are_different_rows_and_follow_the_seed() -> None:
    X, _ = data(200)
    source = MemorySource(X, np.zeros(200))
    for pick in (
        lambda seed: pick_centers(source, 30, seed),
        lambda seed: leverage_centers(source, RBF(0.5), 30, seed),
        lambda seed: leverage_centers(source, RBF(0.5), 30, seed, 0.5),
    ):
        one, two, other = pick(1), pick(1), pick(2)
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)
        assert len(np.unique(one, axis=0)) == 30
        assert {tuple(row) for row in one} <= {tuple(row) for row in X}
    np.testing.assert_array_equal(leverage_centers(source, RBF(0.5), 200, 0), X)
    with pytest.raises(InputError, match="more than the 200 rows"):
        leverage_centers(source, RBF(0.5), 201, 0)


# ---------------------------------------------------------------------------------------------------- widths


def test_a_width_of_many_rows_is_chosen_on_some(monkeypatch: Any) -> None:
    X, y = labels(150, 3)
    monkeypatch.setattr(width, "TUNE_LOSS_ROWS", 60)
    for rule in (LOO(ALPHAS), KFold(3, ALPHAS)):
        fit = KernelLogisticRegression(rule, gamma=[0.01, 0.3, 50.0], random_state=0).fit(X, y).fit_
        assert fit.kernel.gamma == 0.3
        assert " of the rows" in fit.kernel_text
        assert fit.n_centers == 150
    with pytest.raises(InputError, match="choosing gamma needs a criterion"):
        KernelLogisticRegression(1.0, gamma="tune").fit(X, y)


def test_the_width_by_the_variance_is_that_of_repeated_rows() -> None:
    X, y = labels(40)
    counts = np.arange(40) % 4
    one = KernelLogisticRegression(0.5, weights_are="frequency").fit(X, y, counts)
    many = KernelLogisticRegression(0.5).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    plain = KernelLogisticRegression(0.5).fit(X, y)
    assert one.kernel_.gamma == pytest.approx(many.kernel_.gamma)  # type: ignore[attr-defined]
    assert plain.kernel_.gamma == pytest.approx(1 / (3 * X.var()))  # type: ignore[attr-defined]
    ours = KernelRidge("loo", kernel="matern", kernel_params={"length_scale": "scale"}, standardize=True)
    assert ours.fit(X, X[:, 0]).kernel_.length_scale == pytest.approx(np.sqrt(1.5))  # type: ignore[attr-defined]


def test_every_class_is_in_the_sample_of_a_rare_one(monkeypatch: Any) -> None:
    X, _ = data(300)
    y = np.array(["common"] * 297 + ["rare"] * 3)
    monkeypatch.setattr(width, "TUNE_LOSS_ROWS", 40)
    fit = KernelLogisticRegression(LOO([1.0]), gamma=[0.1, 1.0]).fit(X, y).fit_
    assert "of the rows" in fit.kernel_text


def test_tuning_is_no_worse_than_the_median() -> None:
    X, y = labels(80)
    tuned = KernelLogisticRegression("loo", gamma="tune").fit(X, y).fit_
    median = KernelLogisticRegression("loo", gamma="median").fit(X, y).fit_
    assert width.criterion(tuned) <= width.criterion(median) * 1.001
    assert "tuned by the same criterion" in tuned.kernel_text


# ----------------------------------------------------------------------------------------- files and batches

SAVED: list[Any] = [
    RBF(0.4),
    Laplacian(0.4),
    Matern(1.3, 2.5),
    Polynomial(2, 0.5, 1.0),
    Linear(),
    "precomputed",
]


@pytest.mark.parametrize("kernel", SAVED, ids=str)
@pytest.mark.parametrize("K", [1, 2, 3], ids=["regression", "binomial", "multinomial"])
def test_a_saved_model_predicts_the_same_bits(kernel: Any, K: int, tmp_path: Path) -> None:
    X, y = data(45) if K == 1 else labels(45, K)
    new = X[:7]
    if kernel == "precomputed":
        X, new = RBF(0.4)(X), RBF(0.4)(X)[:7]
    make: Any = KernelRidge if K == 1 else KernelLogisticRegression
    model = make(0.5, kernel=kernel).fit(X, y)
    model.fit_.save(tmp_path / "model.safetensors")
    loaded = elltwo.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(new), model.predict(new))
    if K > 1:
        np.testing.assert_array_equal(loaded.predict_proba(new), model.predict_proba(new))
    assert loaded.summary() == model.fit_.summary()
    assert loaded.to_dict() == model.fit_.to_dict()
    assert loaded.kernel == model.fit_.kernel
    np.testing.assert_array_equal(loaded.support, model.fit_.support)


def test_rows_of_weight_zero_are_not_in_the_file(tmp_path: Path) -> None:
    X, y = labels(40)
    KernelLogisticRegression(0.5).fit(X, y, weights_for(40)).fit_.save(tmp_path / "m")
    assert read(tmp_path / "m")[0]["centers"].shape == (38, 3)


def test_a_function_as_kernel_is_not_saved(tmp_path: Path) -> None:
    X, y = labels(40)
    model = KernelLogisticRegression(0.5, kernel=lambda A, B: A @ B.T).fit(X, y)
    with pytest.raises(InputError, match=r"nothing that could be executed.*kernel='precomputed'"):
        model.fit_.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    X, y = labels(40)
    path = tmp_path / "m"
    KernelLogisticRegression(0.5).fit(X, y).fit_.save(path)
    whole = path.read_bytes()
    arrays, metadata = read(path)
    for cut in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelFileError):
            elltwo.load(path)
    kernel = metadata["kernel"]
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"kernel": {"name": "of tomorrow", "parameters": {}}}),
        ({}, {"kernel": {**kernel, "parameters": {"gamma": "tune"}}}),
        ({}, {"kernel": {**kernel, "parameters": {"gamma": -1.0}}}),
        ({}, {"kernel": {**kernel, "parameters": {"gamma": None}}}),
        ({}, {"kernel": {}}),
        ({}, {"kernel": "rbf"}),
        ({"centers": arrays["centers"][:-1]}, {}),
        ({"centers": arrays["centers"][:, :-1]}, {}),
        ({"centers": np.full_like(arrays["centers"], np.nan)}, {}),
        ({"coef": arrays["coef"][:-1]}, {}),
    ]
    for changed, meta in changes:
        write(path, arrays | changed, metadata | meta)
        with pytest.raises(ModelFileError, match="cannot be read"):
            elltwo.load(path)
    write(path, {name: a for name, a in arrays.items() if name != "centers"}, metadata)
    with pytest.raises(ModelFileError, match="cannot be read"):
        elltwo.load(path)


@pytest.mark.parametrize("kernel", [RBF(0.4), Laplacian(0.4), Matern(1.3, 1.5), Polynomial(3, 0.5)], ids=str)
@pytest.mark.parametrize("p", [3, 9])
def test_what_a_row_gets_does_not_depend_on_its_batch(kernel: Any, p: int) -> None:
    X, eta = data(50, p)
    fit = KernelRidge(0.5, kernel=kernel).fit(X, eta).fit_
    new = np.random.default_rng(5).normal(size=(3 * TILE + 5, p))
    new[TILE + 1] = 1e4  # so far off that its distances need more care
    whole = fit.decision(new)
    for part in (slice(0, 1), slice(5, 90), slice(TILE + 2, None), slice(None, None, 7)):
        np.testing.assert_array_equal(fit.decision(new[part]), whole[part])


# -------------------------------------------------------------------------------- tables and the command line


@pytest.fixture(scope="module")
def table(tmp_path_factory: Any) -> Path:
    X, eta = data(90)
    rng = np.random.default_rng(6)
    frame = pd.DataFrame(X * [1.0, 100.0, 1.0], columns=["a", "b", "c"])
    frame["colour"] = rng.choice(["red", "green"], 90)
    frame["size"] = eta + 0.1 * rng.normal(size=90)
    frame["won"] = np.where(eta + rng.logistic(size=90) * 0.4 > 0, "yes", "no")
    frame["kind"] = np.array(["x", "y", "z"])[np.clip(np.round(eta), 0, 2).astype(int)]
    frame["claims"] = rng.poisson(np.exp(eta / 3))
    path = tmp_path_factory.mktemp("kernel") / "data.csv"
    frame.to_csv(path, index=False)
    return path


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("target", "family", "more"),
    [
        ("size", None, ["--gamma", "0.01,0.1,1"]),
        ("won", "binomial", ["--kernel", "matern", "--nu", "2.5", "--length-scale", "2"]),
        ("kind", "multinomial", ["--kernel", "polynomial", "--degree", "2", "--coef0", "0.5"]),
        ("claims", "poisson", ["--gamma", "median", "--n-centers", "40", "--centers", "leverage"]),
    ],
)
def test_fit_save_show_and_predict(
    table: Path, target: str, family: str | None, more: list[str], tmp_path: Path
) -> None:
    model = tmp_path / "m.safetensors"
    chosen = ["--features", "a,b,c,colour", "--model", "kernel", "-o", model]
    fitted = run("fit", table, "-t", target, *chosen, *(["--family", family] if family else []), *more)
    assert fitted.exit_code == 0, fitted.output
    for label in ("Kernel ", "Function ", "Penalty ", "Chosen by ", "Effective df ", "Optimality ", "KiB"):
        assert label in fitted.stdout
    assert "Coefficient" not in fitted.stdout
    shown = run("show", model)
    assert shown.stdout == fitted.stdout
    facts = json.loads(run("show", model, "--json").stdout)
    assert facts["kernel"]["kernel"] in fitted.stdout
    fit = elltwo.load(model)
    predicted = pd.read_csv(pd.io.common.StringIO(run("predict", model, table).stdout))
    frame = pd.read_csv(table)
    if family in ("binomial", "multinomial"):
        assert predicted.columns[0] == f"predicted_{target}"
        np.testing.assert_array_equal(predicted.iloc[:, 1:].to_numpy(), fit.predict_proba(frame))
        assert predicted.iloc[:, 0].tolist() == fit.predict(frame).tolist()
    else:
        np.testing.assert_array_equal(predicted.iloc[:, 0].to_numpy(), fit.predict(frame))


def test_the_table_entry_is_the_estimator_on_standardised_columns(table: Path) -> None:
    frame = pd.read_csv(table)
    X = frame[["a", "b", "c"]].to_numpy()
    fit = elltwo.fit(frame, "size", features=["a", "b", "c"], model="kernel", kernel_params={"gamma": 0.2})
    model = KernelRidge("loo", kernel="rbf", gamma=0.2, standardize=True).fit(X, frame["size"])
    np.testing.assert_allclose(fit.alpha, model.alpha_, rtol=1e-5)
    np.testing.assert_allclose(fit.predict(frame), model.predict(X), atol=1e-6)
    tuned = elltwo.fit(frame, "size", features=["a", "b", "c"], model="kernel")
    assert "tuned" in tuned.kernel_text  # type: ignore[attr-defined]
    given = elltwo.fit(frame, "size", features=["a", "b", "c"], model="kernel", alpha=0.1)
    assert "median" in given.kernel_text  # type: ignore[attr-defined]
    plain = elltwo.fit(frame, "size", features=["a"], model="kernel", alpha=0.1, standardize=False)
    assert not plain.standardize


def test_rows_without_a_value_are_dropped_or_have_no_prediction(table: Path) -> None:
    frame = pd.read_csv(table)
    frame.loc[[3, 8], "a"] = np.nan
    options: dict[str, Any] = {"features": ["a", "b"], "model": "kernel", "alpha": 0.1}
    fit = elltwo.fit(frame, "size", missing="drop", **options)
    assert (fit.n_rows, fit.rows_dropped) == (88, 2)
    assert np.flatnonzero(np.isnan(fit.predict(frame))).tolist() == [3, 8]
    with pytest.raises(InputError, match="missing"):
        elltwo.fit(frame, "size", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gamma", "1"], "is for model 'kernel'; the model is 'ridge'"),
        (["--kernel", "rbf"], "is for model 'kernel'; the model is 'ridge'"),
        (["--model", "kernel", "--gamma", "wide"], "must be a number, several of them"),
        (["--model", "kernel", "--degree", "2"], "kernel 'rbf' has no parameter 'degree'"),
        (["--model", "kernel", "--gamma", "-1"], "gamma must be a positive number"),
        (["--model", "kernel", "--gamma", "1,2", "--alpha", "1"], "choosing gamma needs a criterion"),
        (["--model", "kernel", "--n-centers", "1000"], "from 1 to the 90 rows"),
        (["--model", "kernel", "--solver", "spectral"], "solver 'spectral' is not known"),
        (["--model", "kernel", "--inference", "bayes"], "is for model 'ridge'"),
    ],
)
def test_options_that_do_not_fit_are_refused(table: Path, arguments: list[str], message: str) -> None:
    result = run("fit", table, "-t", "size", "--features", "a,b", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "cg"}, "is for squared error"),
        ({"solver": "cholesky"}, "is for squared error"),
        ({"centers": "leverage"}, "needs solver='nystrom'"),
        ({"centers": "random", "solver": "nystrom"}, "must be 'uniform' or 'leverage'"),
        ({"n_centers": 0, "solver": "nystrom"}, "at least 1"),
        ({"alpha": "gcv"}, "defined for squared error"),
        ({"alpha": [1.0, 2.0]}, "give one, or one per target"),
        ({"tol": 2.0}, "tol must be a number between 0 and 1"),
        ({"kernel": "linear", "gamma": 0.5}, "no parameter of this kernel"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    X, y = labels(30)
    with pytest.raises(InputError, match=message):
        KernelLogisticRegression(**{"alpha": 1.0, **options}).fit(X, y)


def test_the_score_of_a_kernel_model_is_drawn_and_its_coefficients_are_not(tmp_path: Path) -> None:
    X, y = labels(40)
    model = KernelLogisticRegression(LOO(ALPHAS)).fit(X, y)
    with open(tmp_path / "p.png", "wb") as file:
        remarks = save_figure(model, file, "png")
    assert "score only" in remarks[0]
    with pytest.raises(InputError, match="not of features"):
        plot_coefficients(model)


# ------------------------------------------------------------------------------------- scikit-learn's checks


def test_scikit_learns_checks_pass_without_exceptions_or_skips() -> None:
    assert_checks_pass(
        "KernelLogisticRegression(1.0, solver='nystrom')", rules=("KernelLogisticRegression()",), least=40
    )
