"""Kernel ridge against brute force, definitions and scikit-learn; Nyström and Fourier features likewise."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge as PeerKernelRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from elltwo import AIC, GCV, LOO, REML, InputError, KFold, Ridge, Status
from elltwo.data.memory import MemorySource
from elltwo.data.random_features import FourierMap
from elltwo.engine import fit_source, make_problem
from elltwo.interfaces.sklearn.kernel_ridge import KernelRidge
from elltwo.interfaces.sklearn.random_features import RandomFeatures
from elltwo.kernel_fitting import squared
from elltwo.kernel_fitting import task as kernel_task
from elltwo.kernels import RBF, Laplacian, Linear, Matern
from elltwo.selection import Context
from elltwo.solvers import kernel_dual
from elltwo.solvers.centers import pick_centers
from elltwo.solvers.kernel import KernelRows, KernelSolver, KernelSource
from elltwo.solvers.kernel_dual import careful_product, solve_dual, symmetric_product, symmetric_rows
from elltwo.solvers.nystrom import NystromMap, solve_nystrom
from shapes import weights_kind
from sklearn_checks import assert_checks_pass

Array = np.ndarray
UNIT = float(np.finfo(np.float64).eps) / 2
ALPHAS = np.array([1e-3, 0.1, 1.0, 30.0])


def data(n: int = 30, p: int = 3, targets: int = 2, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    y = np.sin(2 * X[:, :1]) + X[:, -1:] ** 2 * np.arange(1, targets + 1) + 7
    return X, y + 0.1 * rng.normal(size=y.shape)


def weights_for(n: int) -> Array:
    w = np.random.default_rng(1).uniform(0.3, 3.0, size=n)
    w[[2, n - 1]] = 0.0
    return w


def counts_for(n: int) -> Array:
    return np.arange(n) % 4


def brute(K: Array, y: Array, w: Array, alpha: float, centre: bool) -> tuple[Array, Array]:
    """Solve (K + αW⁻¹)a + b1 = y, 1ᵀa = 0 as one bordered system; rows of weight 0 are left out."""
    keep = np.flatnonzero(w > 0)
    n = len(keep)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = K[np.ix_(keep, keep)] + np.diag(alpha / w[keep])
    system[n, n] = 0.0 if centre else 1.0
    if centre:
        system[:n, n] = system[n, :n] = 1.0
    solution = np.linalg.solve(system, np.vstack([y[keep], np.zeros((1, y.shape[1]))]))
    a = np.zeros_like(y)
    a[keep] = solution[:n]
    return a, solution[n]


def refits(K: Array, y: Array, w: Array, alpha: float, centre: bool, sets: list[Array], one: bool) -> Array:
    """Return the pooled weighted mean squared error (T,) of rows predicted by models fitted without them."""
    total, weight = np.zeros(y.shape[1]), 0.0
    for out in sets:
        left = w.copy().astype(float)
        left[out] = left[out] - np.minimum(left[out], 1.0) if one else 0.0
        a, b = brute(K, y, left, alpha, centre)
        total += w[out] @ (y[out] - K[out] @ a - b) ** 2
        weight += w[out].sum()
    return total / weight


KERNELS: dict[str, Any] = {
    "full rank": Matern(1.0, 0.5),
    "numerically low rank": RBF(0.05),
    "fewer features than rows": Linear(),
}
WEIGHTS: dict[str, Any] = {"none": lambda n: None, "precisions": weights_for, "counts": counts_for}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
every_weight = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=list(WEIGHTS))
with_and_without = pytest.mark.parametrize("centre", [True, False], ids=["intercept", "no intercept"])


def condition(K: Array, w: Array, alpha: float) -> float:
    return float((np.linalg.norm(K, 2) * w.max() + alpha) / alpha)


@with_and_without
@every_weight
@every_kernel
def test_loo_and_the_path_equal_brute_force(kernel: Any, weights: Any, centre: bool) -> None:
    X, y = data()
    given = weights(len(X))
    w = np.ones(len(X)) if given is None else given.astype(float)
    K = kernel(X)
    model = KernelRidge(LOO(ALPHAS), kernel=kernel, fit_intercept=centre, alpha_per_target=True)
    model.set_params(weights_are=weights_kind(given)).fit(X, y, given)
    one = given is not None and given.dtype.kind == "i"
    for i, alpha in enumerate(ALPHAS):
        tolerance = 1e4 * UNIT * condition(K, w, alpha)
        a, b = brute(K, y, w, alpha, centre)
        fitted = K @ model.path_.coef[i] + model.path_.intercept[i]
        np.testing.assert_allclose(fitted, K @ a + b, rtol=0, atol=tolerance * np.abs(y).max())
        np.testing.assert_allclose(model.path_.coef[i], a, rtol=0, atol=tolerance * np.abs(a).max())
        want = refits(K, y, w, alpha, centre, [np.array([j]) for j in range(len(X))], one)
        np.testing.assert_allclose(model.path_.score[i], want, rtol=tolerance)
    best = model.path_.score.argmin(axis=0)
    np.testing.assert_array_equal(model.alpha_, ALPHAS[best])
    np.testing.assert_allclose(model.fit_.cv_deviance, model.path_.score.min(axis=0))


@with_and_without
@every_weight
@every_kernel
def test_kfold_equals_brute_force(kernel: Any, weights: Any, centre: bool) -> None:
    X, y = data()
    given = weights(len(X))
    w = np.ones(len(X)) if given is None else given.astype(float)
    K = kernel(X)
    model = KernelRidge(
        KFold(5, ALPHAS), kernel=kernel, fit_intercept=centre, weights_are=weights_kind(given)
    ).fit(X, y, given)
    folds = [np.arange(6 * k, 6 * k + 6) for k in range(5)]
    for i, alpha in enumerate(ALPHAS):
        want = refits(K, y, w, alpha, centre, folds, False).mean()
        np.testing.assert_allclose(model.path_.score[i], want, rtol=1e4 * UNIT * condition(K, w, alpha))


def test_kfold_with_a_metric_of_its_own_and_with_groups() -> None:
    X, y = data(targets=1)
    groups = np.arange(30) // 3
    from sklearn.model_selection import GroupKFold

    rule = KFold(GroupKFold(5), ALPHAS, scoring="neg_mean_absolute_error")
    model = KernelRidge(rule, kernel="rbf").fit(X, y[:, 0], groups=groups)
    K = RBF(1 / 3)(X)
    for i, alpha in enumerate(ALPHAS):
        errors = []
        for train, test in GroupKFold(5).split(X, y, groups):
            w = np.zeros(30)
            w[train] = 1
            a, b = brute(K, y, w, alpha, True)
            errors.append(np.abs(y[test] - K[test] @ a - b).mean())
        np.testing.assert_allclose(model.path_.score[i], np.mean(errors), rtol=1e-9)


@with_and_without
@every_weight
@every_kernel
def test_spectral_rules_equal_their_definitions(kernel: Any, weights: Any, centre: bool) -> None:
    X, y = data(targets=1)
    given = weights(len(X))
    w = np.ones(len(X)) if given is None else given.astype(float)
    K, keep = kernel(X), np.flatnonzero(w > 0)
    n = w.sum() if given is not None and given.dtype.kind == "i" else len(keep)
    paths = {
        rule.name: KernelRidge(rule, kernel=kernel, fit_intercept=centre, weights_are=weights_kind(given))
        .fit(X, y, given)
        .path_
        for rule in (GCV(ALPHAS), REML(ALPHAS), AIC(ALPHAS))
    }
    reml = []
    for i, alpha in enumerate(ALPHAS):
        # The hat matrix column by column, from brute force alone.
        a, b = brute(K, np.eye(len(X)), w, alpha, centre)
        hat = K @ a + b
        df = np.trace(hat[np.ix_(keep, keep)])
        rss = w @ (y[:, 0] - hat @ y[:, 0]) ** 2
        tolerance = 1e4 * UNIT * condition(K, w, alpha)
        np.testing.assert_allclose(paths["gcv"].df[i], df - centre, rtol=tolerance)
        np.testing.assert_allclose(paths["gcv"].score[i], rss / w.sum() / (1 - df / n) ** 2, rtol=tolerance)
        aic = n * np.log(2 * np.pi * rss / n) + n + 2 * (df + 1)
        np.testing.assert_allclose(paths["aic"].score[i], aic, rtol=tolerance)
        # Restricted likelihood of y ~ N(b, σ²(K/α + W⁻¹)) with σ² profiled out.
        V = K[np.ix_(keep, keep)] / alpha + np.diag(1 / w[keep])
        inverse, ones, t = np.linalg.inv(V), np.ones(len(keep)), y[keep, 0]
        logdet = np.linalg.slogdet(V)[1]
        quadratic = t @ inverse @ t
        if centre:
            logdet += np.log(ones @ inverse @ ones)
            quadratic -= (ones @ inverse @ t) ** 2 / (ones @ inverse @ ones)
        reml.append(logdet + (n - centre) * np.log(quadratic))
    # Up to a constant that does not depend on alpha.
    found = paths["reml"].score - paths["reml"].score[-1]
    np.testing.assert_allclose(found, np.array(reml) - reml[-1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", ["auto", "exact", "cg", "cholesky"])
@pytest.mark.parametrize("weighted", [False, True])
@every_kernel
def test_equal_to_scikit_learn_without_an_intercept(kernel: Any, weighted: bool, solver: str) -> None:
    X, y = data(80)
    w = np.random.default_rng(1).uniform(0.3, 3.0, size=80) if weighted else None
    K = kernel(X)
    for alpha in (0.05, 1.0, np.array([0.1, 2.0])):
        peer = PeerKernelRidge(alpha=alpha, kernel="precomputed").fit(K, y, w)
        model = KernelRidge(alpha, kernel=kernel, fit_intercept=False, solver=solver).fit(X, y, w)
        cond = condition(K, np.ones(80) if w is None else w, float(np.min(alpha)))
        scale = np.abs(peer.dual_coef_).max()
        np.testing.assert_allclose(model.dual_coef_, peer.dual_coef_, rtol=0, atol=1e-12 * cond * scale)
        np.testing.assert_allclose(
            model.predict(X), peer.predict(K), rtol=0, atol=1e-12 * cond * np.abs(y).max()
        )
        assert model.fit_.certificate.residual < 1e-12


def test_scikit_learns_call_and_shapes() -> None:
    X, y = data(40)
    for kernel, options in (
        ("linear", {}),
        ("poly", {"degree": 2, "gamma": 0.5, "coef0": 2}),
        ("polynomial", {}),
        ("rbf", {"gamma": 0.3}),
        ("laplacian", {}),
    ):
        for target in (y[:, 0], y[:, :1], y):
            ours = KernelRidge(0.5, kernel=kernel, fit_intercept=False, **options).fit(X, target)
            peer = PeerKernelRidge(alpha=0.5, kernel=kernel, **options).fit(X, target)
            assert ours.dual_coef_.shape == peer.dual_coef_.shape
            assert ours.predict(X).shape == peer.predict(X).shape
            np.testing.assert_allclose(ours.predict(X), peer.predict(X), rtol=1e-9)
            np.testing.assert_array_equal(ours.X_fit_, X)
    defaults = PeerKernelRidge().get_params()
    assert {name: KernelRidge().get_params()[name] for name in defaults} == defaults


@every_weight
@pytest.mark.parametrize("solver", ["exact", "cg", "cholesky"])
def test_one_alpha_with_an_intercept_equals_brute_force(solver: str, weights: Any) -> None:
    X, y = data(60)
    given = weights(60)
    w = np.ones(60) if given is None else given.astype(float)
    K = RBF(0.5)(X)
    alpha = np.array([0.01, 2.0])
    model = KernelRidge(alpha, kernel=RBF(0.5), solver=solver, weights_are=weights_kind(given)).fit(
        X, y, given
    )
    for t in range(2):
        a, b = brute(K, y[:, t : t + 1], w, alpha[t], True)
        tolerance = 1e3 * UNIT * condition(K, w, alpha[t])
        np.testing.assert_allclose(model.dual_coef_[:, t], a[:, 0], rtol=0, atol=tolerance * np.abs(a).max())
        np.testing.assert_allclose(model.intercept_[t], b[0], rtol=tolerance)
    certificate = model.fit_.certificate
    error = max(
        np.linalg.norm(model.dual_coef_[:, t] - brute(K, y[:, t : t + 1], w, alpha[t], True)[0][:, 0])
        / np.linalg.norm(model.dual_coef_[:, t])
        for t in range(2)
    )
    assert error <= 10 ** (1 - certificate.digits)
    exact = KernelRidge(alpha, kernel=RBF(0.5), solver="exact", weights_are=weights_kind(given)).fit(
        X, y, given
    )
    np.testing.assert_allclose(model.fit_.deviance, exact.fit_.deviance, rtol=1e-9)
    np.testing.assert_allclose(model.fit_.r2, exact.fit_.r2, rtol=1e-9)
    if solver == "cholesky":
        np.testing.assert_allclose(model.fit_.df, exact.fit_.df, rtol=1e-9)


def test_the_intercept_is_free_and_a_shift_of_y_changes_nothing_else() -> None:
    X, y = data(50, targets=1)
    for solver in ("exact", "cg", "cholesky", "nystrom"):
        near = KernelRidge(1.0, kernel="rbf", solver=solver).fit(X, y[:, 0])
        far = KernelRidge(1.0, kernel="rbf", solver=solver).fit(X, y[:, 0] + 1e6)
        np.testing.assert_allclose(far.predict(X) - 1e6, near.predict(X), rtol=0, atol=1e-8)
        assert abs(near.dual_coef_.sum()) < 1e-10 or solver == "nystrom"


def test_linear_kernel_ridge_is_ridge() -> None:
    X, y = data(40, p=4, targets=1)
    for alpha in (0.3, "loo", "kfold", "gcv", "reml"):
        primal = Ridge(alpha).fit(X, y[:, 0])
        dual = KernelRidge(alpha, kernel="linear").fit(X, y[:, 0])
        np.testing.assert_allclose(dual.predict(X), primal.predict(X), rtol=1e-6)
        np.testing.assert_allclose(dual.alpha_, primal.alpha_, rtol=1e-4)


def test_weights_are_repetitions() -> None:
    X, y = data(25)
    counts = counts_for(25)
    again = np.repeat(np.arange(25), counts)
    for alpha in (0.5, GCV(ALPHAS), REML(ALPHAS), LOO(ALPHAS)):
        one = KernelRidge(alpha, kernel="rbf", weights_are="frequency").fit(X, y, counts)
        many = KernelRidge(alpha, kernel="rbf").fit(X[again], y[again])
        np.testing.assert_allclose(one.predict(X), many.predict(X), rtol=1e-9)
        np.testing.assert_allclose(one.alpha_, many.alpha_)
        if one.path_.score is not None and not isinstance(alpha, REML):
            np.testing.assert_allclose(one.path_.score, many.path_.score, rtol=1e-8)


def test_alpha_zero_interpolates() -> None:
    X, y = data(20)
    model = KernelRidge(0.0, kernel=Matern(1.0, 0.5)).fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, rtol=1e-9)
    low = KernelRidge(0.0, kernel="linear").fit(X, y)
    np.testing.assert_allclose(low.predict(X), Ridge(0.0).fit(X, y).predict(X), rtol=1e-9)
    assert low.fit_.certificate.residual < 1e-10


def test_alpha_on_the_mean_scale_and_per_target() -> None:
    X, y = data(40)
    w = weights_for(40)
    mean = KernelRidge(0.01, kernel="rbf", alpha_scale="mean").fit(X, y, w)
    np.testing.assert_allclose(mean.alpha_, 0.01 * w.sum())
    np.testing.assert_allclose(
        mean.predict(X), KernelRidge(0.01 * w.sum(), kernel="rbf").fit(X, y, w).predict(X)
    )
    np.testing.assert_allclose(mean.fit_.lambda_, 0.01)
    each = KernelRidge("loo", kernel="rbf", alpha_per_target=True).fit(X, y)
    for t in range(2):
        alone = KernelRidge("loo", kernel="rbf").fit(X, y[:, t])
        np.testing.assert_allclose(each.alpha_[t], alone.alpha_, rtol=1e-5)


def test_gamma_and_alpha_are_chosen_together() -> None:
    X, y = data(60, targets=1)
    gammas = [0.01, 0.3, 10.0]
    for rule in (LOO(ALPHAS), REML(ALPHAS), KFold(5, ALPHAS)):
        model = KernelRidge(rule, kernel="rbf", gamma=gammas).fit(X, y[:, 0])
        scores = [KernelRidge(rule, kernel="rbf", gamma=g).fit(X, y[:, 0]).path_.score.min() for g in gammas]
        assert model.kernel_.gamma == gammas[int(np.argmin(scores))]
        np.testing.assert_allclose(model.path_.score.min(), min(scores))
    tuned = KernelRidge("loo", kernel="rbf", gamma="tune").fit(X, y[:, 0])
    around = tuned.kernel_.gamma * np.geomspace(1 / 30, 30, 41)
    best = min(KernelRidge("loo", kernel="rbf", gamma=g).fit(X, y[:, 0]).path_.score.min() for g in around)
    assert tuned.path_.score.min() <= best * 1.001
    matern = KernelRidge("reml", kernel="matern", kernel_params={"length_scale": "tune", "nu": 2.5})
    assert "tuned" in matern.fit(X, y[:, 0]).fit_.summary()
    with pytest.raises(InputError, match="choosing gamma needs a criterion"):
        KernelRidge(1.0, kernel="rbf", gamma=gammas).fit(X, y)


def test_a_kernel_that_is_none_is_refused() -> None:
    y = data(20)[1]
    bad = -np.eye(20)
    with pytest.raises(InputError, match="negative eigenvalue"):
        KernelRidge("gcv", kernel="precomputed").fit(bad, y)
    with pytest.raises(InputError, match="not positive definite"):
        KernelRidge(0.5, kernel="precomputed").fit(bad, y)


def test_constant_kernels_and_single_rows() -> None:
    y = np.array([1.0, 2.0, 6.0])
    for alpha in (1.0, "gcv", "loo"):
        model = KernelRidge(alpha, kernel="rbf").fit(np.ones((3, 2)), y)
        np.testing.assert_allclose(model.predict(np.ones((1, 2))), 3.0)
    one = KernelRidge(1.0, kernel="rbf").fit([[1.0]], [4.0])
    np.testing.assert_allclose(one.predict([[9.0]]), 4.0)
    two = KernelRidge(1.0, kernel="rbf", solver="exact").fit([[1.0]], [4.0])
    np.testing.assert_allclose(two.predict([[9.0]]), 4.0)


# ------------------------------------------------------------------------------------- the solver's parts


@with_and_without
@every_weight
def test_source_holds_the_rows_of_the_kernel_matrix(weights: Any, centre: bool) -> None:
    """Means, the spread in the kernel's space and squared errors of some rows; rows of weight 0 too."""
    X, y = data(20)
    K = RBF(0.5)(X)
    source = KernelSource(
        RBF(0.5).lower(X), y, weights(20), weights_are=weights_kind(weights(20)), centre=centre
    )
    w = source.w
    rows = np.vstack([block.X for block in source.blocks()])
    np.testing.assert_array_equal(rows, K)
    part = KernelRows(source, np.arange(8, 12)).merge(KernelRows(source, np.arange(3, 8)))
    wp, Kp = w[3:12], K[3:12]
    np.testing.assert_allclose(part.x_mean, wp @ Kp / wp.sum())
    share = np.eye(9) - np.outer(np.ones(9), wp / wp.sum())
    variance = wp @ np.diagonal(share @ K[3:12, 3:12] @ share.T) / wp.sum()
    np.testing.assert_allclose(part.x_scale**2, np.full(20, variance))
    coef, b = np.random.default_rng(0).normal(size=(3, 20, 2)), np.arange(6.0).reshape(3, 2)
    want = [[wp @ (y[3:12, t] - b[a, t] - Kp @ coef[a, :, t]) ** 2 for t in range(2)] for a in range(3)]
    np.testing.assert_allclose(part.deviance(coef, b), want)


@with_and_without
@pytest.mark.parametrize("whole", [True, False])
def test_state_satisfies_its_protocol(whole: bool, centre: bool) -> None:
    """Coefficients, residual sums, degrees of freedom and solves against dense algebra."""
    X, y = data(24)
    K = Matern(1.0, 1.5)(X)
    source = KernelSource(Matern(1.0, 1.5).lower(X), y, None, centre=centre)
    problem = make_problem(source, fit_intercept=centre, standardize=False, penalty=None, prior=None)
    index = np.arange(24) if whole else np.arange(5, 21)
    rows = KernelRows(source, index)
    solver = KernelSolver()
    state = solver.state(rows, problem.form(rows.x_scale), centre)
    w = np.isin(np.arange(24), index).astype(float)
    alphas = np.array([0.1, 3.0])
    rhs = np.random.default_rng(0).normal(size=(24, 2))
    for i, alpha in enumerate(alphas):
        a, b = brute(K, y, w, alpha, centre)
        hat = (lambda c, b: K[index] @ c + b)(*brute(K, np.eye(24), w, alpha, centre))
        np.testing.assert_allclose(state.coef(alphas)[i], a, rtol=0, atol=1e-10)
        np.testing.assert_allclose(state.df(alphas)[i], np.trace(hat[:, index]) - centre)
        left = y[index] - K[index] @ a - b
        np.testing.assert_allclose(state.deviance(alphas)[i], np.sum(left**2, axis=0), rtol=1e-9)
        solved = brute(K, rhs, w, alpha, centre)[0]
        np.testing.assert_allclose(state.solve(rhs, np.full(2, alpha)), solved, atol=1e-10)
    np.testing.assert_allclose(
        state.coef_at(alphas), np.stack([state.coef(alphas)[t, :, t] for t in range(2)], axis=1), atol=1e-12
    )
    if whole:
        context = Context(problem, solver, rows, state, [rows], None)
        score = LOO(alphas).criterion(context)(alphas).value
        want = [
            refits(K, y, np.ones(24), a, centre, [np.array([j]) for j in range(24)], False) for a in alphas
        ]
        np.testing.assert_allclose(score, want, rtol=1e-9)


def test_halves_of_symmetric_matrices() -> None:
    rng = np.random.default_rng(0)
    K = rng.normal(size=(9, 9))
    K = K + K.T
    lower = np.tril(K) + np.triu(np.full((9, 9), np.nan), 1)
    for T in (1, 3, 6):
        V = rng.normal(size=(9, T))
        np.testing.assert_allclose(symmetric_product(lower, V), K @ V)
    K = rng.normal(size=(600, 600))
    K = K + K.T
    lower = np.tril(K) + np.triu(np.full((600, 600), np.nan), 1)
    V = rng.normal(size=(600, 2))
    found = careful_product(lower, V)
    exact = K.astype(np.longdouble) @ V
    np.testing.assert_allclose(found.astype(float), exact.astype(float), rtol=0, atol=1e-12)
    K, lower = K[:9, :9], lower[:9, :9]
    np.testing.assert_array_equal(symmetric_rows(lower, np.array([0, 4, 8])), K[[0, 4, 8]])


def test_conjugate_gradients_give_way_to_cholesky_where_they_are_slow(monkeypatch: Any) -> None:
    X, y = data(300, p=2)
    lower = Matern(0.05, 0.5).lower(X)
    monkeypatch.setattr(kernel_dual, "MANY_ROWS", 100)
    easy = solve_dual(RBF(0.5).lower(X), y, None, np.full(2, 1.0), centre=True)
    assert easy.method == "cg"
    monkeypatch.setattr(kernel_dual, "LOOK", 3)
    monkeypatch.setattr(kernel_dual, "MOST_STEPS", 4)
    hard = solve_dual(lower, y, None, np.full(2, 1e-9), centre=True)
    assert hard.method == "cholesky"
    assert "conjugate gradients were still far off" in hard.why
    a = brute(Matern(0.05, 0.5)(X), y, np.ones(300), 1e-9, True)[0]
    np.testing.assert_allclose(hard.a, a, rtol=0, atol=1e-8 * np.abs(a).max())
    monkeypatch.setattr(kernel_dual, "MOST_STEPS", 0)
    with pytest.raises(InputError, match="did not reach tol"):
        solve_dual(lower, y, None, np.full(2, 1e-9), centre=True, method="cg")


# --------------------------------------------------------------------------------------- Nyström, Fourier


@with_and_without
@pytest.mark.parametrize("alpha", [0.1, GCV(ALPHAS), LOO(ALPHAS), KFold(5, ALPHAS), REML(ALPHAS)])
def test_nystrom_with_every_row_as_a_centre_is_exact(alpha: Any, centre: bool) -> None:
    X, y = data(60)
    w = np.random.default_rng(1).uniform(0.3, 3.0, size=60)
    options: dict[str, Any] = {"kernel": RBF(0.5), "fit_intercept": centre}
    exact = KernelRidge(alpha, **options).fit(X, y, w)
    full = KernelRidge(alpha, **options, solver="nystrom", n_centers=60).fit(X, y, w)
    np.testing.assert_allclose(full.predict(X), exact.predict(X), rtol=0, atol=1e-7)
    if exact.path_.score is not None:
        np.testing.assert_allclose(full.path_.score, exact.path_.score, rtol=1e-6)


@with_and_without
def test_nystrom_minimises_over_its_centres(centre: bool) -> None:
    """Against dense least squares on [√w·K_nm; √α·K_mm^½], from moments and by conjugate gradients."""
    X, y = data(200)
    w = np.random.default_rng(1).uniform(0.3, 3.0, size=200)
    source = MemorySource(X, y, w)
    kernel = Matern(1.0, 1.5)
    centers = pick_centers(source, 30, 0)
    map = NystromMap.of(kernel, centers)
    alpha = np.array([0.1, 2.0])
    found = solve_nystrom(source, map, alpha, centre=centre, tol=1e-13)
    values, vectors = np.linalg.eigh(kernel(centers))
    for t in range(2):
        top = np.hstack([kernel(X, centers), np.ones((200, 1))[:, : int(centre)]]) * np.sqrt(w)[:, None]
        root = np.hstack([np.sqrt(alpha[t] * values)[:, None] * vectors.T, np.zeros((30, int(centre)))])
        rhs = np.concatenate([np.sqrt(w) * y[:, t], np.zeros(30)])
        theta = np.linalg.lstsq(np.vstack([top, root]), rhs, rcond=None)[0]
        np.testing.assert_allclose(
            map.dual(found.coef)[:, t], theta[:30], rtol=0, atol=1e-8 * np.abs(theta).max()
        )
        if centre:
            np.testing.assert_allclose(found.intercept[t], theta[30], rtol=1e-9)
        fitted = kernel(X, centers) @ theta[:30] + (theta[30] if centre else 0.0)
        np.testing.assert_allclose(found.rss[t], w @ (y[:, t] - fitted) ** 2, rtol=1e-9)
    assert found.certificate.residual < 1e-11
    moments = fit_source(map.source(source), alpha, fit_intercept=centre)
    np.testing.assert_allclose(found.coef, moments.coef, rtol=0, atol=1e-9 * np.abs(moments.coef).max())


def test_nystrom_by_conjugate_gradients_from_the_estimator(monkeypatch: Any) -> None:
    X, y = data(300)
    kwargs: dict[str, Any] = {"kernel": "rbf", "solver": "nystrom", "n_centers": 50, "random_state": 3}
    direct = KernelRidge(0.5, **kwargs).fit(X, y)
    monkeypatch.setattr(squared, "MANY_CENTERS", 10)
    iterative = KernelRidge(0.5, **kwargs).fit(X, y)
    assert "conjugate gradients" in iterative.fit_.solver_reason
    np.testing.assert_allclose(iterative.predict(X), direct.predict(X), rtol=0, atol=1e-7)
    np.testing.assert_allclose(iterative.fit_.deviance, direct.fit_.deviance, rtol=1e-6)
    np.testing.assert_array_equal(iterative.X_fit_, direct.X_fit_)
    exact = KernelRidge(0.5, kernel="rbf").fit(X, y)
    assert np.all(np.abs(direct.fit_.r2 - exact.fit_.r2) < 0.2)
    assert direct.dual_coef_.shape == (50, 2)


def test_nystrom_predictions_approach_the_exact_ones_with_the_centres() -> None:
    X, y = data(300, p=2)
    X = np.tanh(X)  # no outlying rows, each of which would need a centre of its own
    exact = KernelRidge(0.1, kernel="rbf").fit(X, y).predict(X)
    gaps = []
    for m in (10, 40, 150):
        model = KernelRidge(0.1, kernel="rbf", solver="nystrom", n_centers=m).fit(X, y)
        gaps.append(np.linalg.norm(model.predict(X) - exact) / np.linalg.norm(y - y.mean(axis=0)))
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2]
    assert gaps[2] < 1e-6


@pytest.mark.parametrize(
    ("name", "kernel", "options"),
    [
        ("rbf", RBF(0.4), {"gamma": 0.4}),
        ("laplacian", Laplacian(0.4), {"gamma": 0.4}),
        *[("matern", Matern(1.3, nu), {"length_scale": 1.3, "nu": nu}) for nu in (0.5, 1.5, 2.5)],
    ],
)
def test_fourier_features_are_unbiased(name: str, kernel: Any, options: dict[str, Any]) -> None:
    """The mean over many draws is the kernel to five standard errors (a cosine's variance is at most 1/2)."""
    X = data(12)[0]
    features = 40_000
    map = FourierMap.draw(name, 3, features, np.random.default_rng(0), **options)
    phi = map(X)
    np.testing.assert_allclose(np.sum(phi**2, axis=1), 1.0)
    # Orthogonal directions correlate frequencies within groups of three, to their advantage.
    assert np.abs(phi @ phi.T - kernel(X)).max() < 5 * np.sqrt(0.5 / (features / 2))


def test_fourier_features_stream_into_any_rule() -> None:
    X, y = data(150, p=2, targets=1)
    map = FourierMap.draw("rbf", 2, 400, np.random.default_rng(0), gamma=0.5)
    exact = KernelRidge("loo", kernel="rbf", gamma=0.5).fit(X, y[:, 0])
    fit = fit_source(map.source(MemorySource(X, y)), "loo")
    np.testing.assert_allclose(fit.decision(map(X))[:, 0], exact.predict(X), rtol=0, atol=0.2)
    direct = fit_source(MemorySource(map(X), y), "loo")
    np.testing.assert_allclose(fit.coef, direct.coef, rtol=0, atol=1e-8 * np.abs(direct.coef).max())
    for arguments, message in (
        (("rbf", 2, 401), "must be even"),
        (("linear", 2, 400), "random Fourier features exist for"),
        (("rbf", 2, 0), "at least 2"),
    ):
        with pytest.raises(InputError, match=message):
            FourierMap.draw(*arguments, np.random.default_rng(0), gamma=1.0)


def test_random_features_as_a_transformer() -> None:
    X, y = data(200, p=2, targets=1)
    for options in (
        {"gamma": 0.5},
        {"kernel": "laplacian", "gamma": "median"},
        {"kernel": "matern", "kernel_params": {"length_scale": 2.0, "nu": 1.5}},
    ):
        features = RandomFeatures(**options, n_features=4000, random_state=0).fit(X)
        phi = features.transform(X)
        assert phi.shape == (200, 4000)
        assert len(features.get_feature_names_out()) == 4000
        assert np.abs(phi @ phi.T - features.kernel_(X)).max() < 5 / np.sqrt(4000)
    again = clone(features).fit(X).transform(X)
    np.testing.assert_array_equal(again, phi)
    source = features.source(MemorySource(X, y))
    np.testing.assert_allclose(np.vstack([b.X for b in source.blocks()]), phi, rtol=0, atol=1e-12)
    for bad, message in (
        ({"kernel": "linear"}, "random Fourier features exist for"),
        ({"n_features": 3}, "must be even"),
        ({"kernel": "matern", "gamma": 1.0}, "no parameter 'gamma'"),
        ({"random_state": -1}, "random_state"),
    ):
        with pytest.raises(InputError, match=message):
            RandomFeatures(**bad).fit(X)
    with pytest.raises(InputError, match="these were made for 2"):
        features.source(MemorySource(data(5)[0], data(5)[1]))


# ------------------------------------------------------------------------------------------ the estimator


def test_scikit_learns_checks_pass_without_exceptions_or_skips() -> None:
    assert_checks_pass(
        "KernelRidge()",
        "KernelRidge('loo', kernel='rbf', weights_are='frequency')",
        "KernelRidge(kernel='rbf', solver='nystrom')",
        "KernelRidge(kernel='rbf', solver='cg', fit_intercept=False)",
        "RandomFeatures(n_features=6, random_state=0)",
        least=40,
    )


def test_precomputed_kernels_and_grid_search() -> None:
    X, y = data(40, targets=1)
    K = RBF(0.5)(X)
    ours = cross_val_score(KernelRidge(0.1, kernel="precomputed"), K, y[:, 0], cv=4)
    direct = cross_val_score(KernelRidge(0.1, kernel=RBF(0.5)), X, y[:, 0], cv=4)
    np.testing.assert_allclose(ours, direct, rtol=1e-9)
    grid = {"alpha": [0.01, 1.0, 100.0]}
    search = GridSearchCV(KernelRidge(kernel="precomputed"), grid, cv=4).fit(K, y[:, 0])
    assert (
        search.best_params_
        == GridSearchCV(KernelRidge(kernel=RBF(0.5)), grid, cv=4).fit(X, y[:, 0]).best_params_
    )
    rule = KernelRidge("loo", kernel="precomputed").fit(K, y[:, 0])
    np.testing.assert_allclose(rule.alpha_, KernelRidge("loo", kernel=RBF(0.5)).fit(X, y[:, 0]).alpha_)
    pipeline = make_pipeline(StandardScaler(), KernelRidge("gcv", kernel="rbf")).fit(X, y[:, 0])
    assert pipeline.score(X, y[:, 0]) > 0.5


def test_inputs_of_every_kind_give_the_same_answer_and_are_left_alone() -> None:
    X, y = data(30, targets=1)
    X = np.round(4 * X)
    want = KernelRidge("gcv", kernel="rbf", gamma=0.1).fit(X, y[:, 0]).predict(X)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    for given in (
        X.astype(np.float32),
        X.astype(int),
        np.asfortranarray(X),
        X.tolist(),
        frame,
        X[::-1][::-1],
    ):
        before = clone(KernelRidge("gcv", kernel="rbf", gamma=0.1))
        model = before.fit(given, y[:, 0])
        np.testing.assert_allclose(model.predict(given), want, rtol=1e-10)
    assert list(KernelRidge().fit(frame, y[:, 0]).feature_names_in_) == ["a", "b", "c"]
    frozen, target = X.copy(), y.copy()
    frozen.flags.writeable = target.flags.writeable = False
    for solver in ("exact", "cg", "cholesky", "nystrom"):
        KernelRidge(1.0, kernel="rbf", solver=solver).fit(frozen, target)


def test_models_pickle() -> None:
    X, y = data(30)
    model = KernelRidge("loo", kernel="rbf").fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.path_.coef, model.path_.coef)


def test_the_summary_says_what_was_done() -> None:
    X, y = data(40)
    text = KernelRidge("loo", kernel="rbf", gamma="median").fit(X, y).fit_.summary()
    for part in (
        "squared norm of f",
        "rbf, gamma = ",
        "leave-one-out",
        "exact",
        "residual",
        "R² held out",
        "df",
    ):
        assert part in text
    low = KernelRidge(LOO([1e3, 1e4]), kernel="rbf").fit(X, y).fit_
    assert Status.EDGE_LOW in low.status
    assert Status.EDGE_LOW.value in " ".join(low.summary().split())


def test_seeds_make_the_random_parts_reproducible() -> None:
    X, y = data(120)
    options: dict[str, Any] = {"kernel": "rbf", "solver": "nystrom", "n_centers": 20}
    one, two, other = (KernelRidge(1.0, **options, random_state=s).fit(X, y).X_fit_ for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    shuffled = KernelRidge(KFold(5, ALPHAS), kernel="rbf", random_state=0).fit(X, y)
    straight = KernelRidge(KFold(5, ALPHAS), kernel="rbf").fit(X, y)
    assert not np.array_equal(shuffled.path_.score, straight.path_.score)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "rfb"}, "Did you mean 'rbf'"),
        ({"kernel": "linear", "gamma": 0.5}, "gamma=0.5 is no parameter of this kernel"),
        ({"kernel": "rbf", "degree": 2}, "degree=2 is no parameter"),
        ({"kernel": RBF(1.0), "gamma": 0.5}, "gamma=0.5 is no parameter"),
        ({"kernel": "rbf", "gamma": 0.5, "kernel_params": {"gamma": 1.0}}, "kernel_params too"),
        ({"kernel": "rbf", "gamma": []}, "empty list"),
        ({"kernel": "rbf", "gamma": -1.0}, "positive number"),
        ({"solver": "cgg"}, "Did you mean 'cg'"),
        ({"solver": "cg", "alpha": "loo"}, "needs 'exact'"),
        ({"solver": "cholesky", "alpha": 0.0}, "needs 'exact'"),
        ({"n_centers": 5}, "needs solver='nystrom'"),
        ({"solver": "nystrom", "n_centers": 500}, "from 1 to the 30 rows"),
        ({"tol": 0.0}, "tol must be"),
        ({"tol": 1e-6, "solver": "exact"}, "tol is where iterations stop"),
        ({"alpha": -1.0}, "not negative"),
        ({"alpha": [1.0, 2.0, 3.0]}, "3 values for 2 target"),
        ({"alpha_scale": "median"}, "alpha_scale"),
        ({"alpha": 1.0, "alpha_per_target": True}, "needs a rule"),
        ({"fit_intercept": "no"}, "must be True or False"),
        ({"kernel": lambda x, z: 1.0}, "not one number for two rows"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    X, y = data(30)
    with pytest.raises(InputError, match=message):
        KernelRidge(**options).fit(X, y)


def test_bad_data_are_refused_by_name(monkeypatch: Any) -> None:
    X, y = data(30)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame.loc[3, "b"] = np.nan
    with pytest.raises(InputError, match=r"NaN.*'b'"):
        KernelRidge().fit(frame, y)
    with pytest.raises(InputError, match="sparse"):
        KernelRidge().fit(sparse.csr_array(X), y)
    model = KernelRidge().fit(X, y)
    with pytest.raises(InputError, match="NaN"):
        model.predict(np.full((1, 3), np.nan))
    with pytest.raises(InputError, match="precomputed"):
        KernelRidge(kernel="precomputed", solver="nystrom").fit(np.eye(30), y)
    with pytest.raises(InputError, match="overflows"):
        KernelRidge(kernel="poly", degree=9).fit(1e60 * X, y)
    monkeypatch.setattr(kernel_task, "MOST_DIAGONALISED", 20)
    with pytest.raises(InputError, match="solver='nystrom'"):
        KernelRidge("loo", solver="exact").fit(X, y)
    assert KernelRidge("loo").fit(X, y).fit_.solver == "nystrom"
