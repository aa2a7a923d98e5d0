"""Bugs that other tools had: one test each, with the report that described it."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.linear_model import RidgeCV as PeerRidgeCV
from sklearn.model_selection import KFold as PlainKFold
from sklearn.model_selection import ShuffleSplit

import oracles
from elltwo import GCV, LOO, KFold, Ridge, RidgeCV
from elltwo.data.memory import MemorySource
from elltwo.fitting import fit_source
from elltwo.results import Fit
from oracles import Model
from shapes import generator, options, shape, source

ROUNDED = 1e-5
"""A refined alpha keeps six digits: two that should agree differ by 2·5e-6, and a coefficient by no more."""


def run(model: Model, alpha: Any, **more: Any) -> Fit:
    return fit_source(source(model), alpha, **options(model), **more)


def regression(n: int, p: int, noise: float = 1.0, name: str = "regression") -> Model:
    rng = generator(f"{name}-{n}-{p}-{noise}")
    X = rng.normal(size=(n, p))
    return Model(X, X @ rng.normal(size=(p, 1)) + noise * rng.normal(size=(n, 1)))


def test_noisy_labels_are_not_predicted_perfectly() -> None:
    """scikit-learn#34942: leave-one-out on pure noise looked perfect; each label leaked into its own fit."""
    rng = generator("noisy labels")
    X, y = rng.normal(size=(40, 60)), rng.integers(0, 2, size=40).astype(float)
    model = Model(X, y[:, None])
    alphas = np.array([1e-8, 1.0, 1e5])
    fit = run(model, LOO(alphas=alphas))
    np.testing.assert_allclose(fit.path.score, oracles.loo(model, alphas)[:, 0].astype(float), rtol=1e-10)
    # Nothing predicts fair coins better than their mean, give or take the standard error of that.
    assert (fit.path.score > 0.7 * y.var()).all()
    assert fit.r2_cv[0] < 0.3


def test_integer_features_give_the_scores_of_floats() -> None:
    """scikit-learn#33020: integer X gave a constant leave-one-out error."""
    rng = generator("integer features")
    X = rng.integers(0, 50, size=(30, 5))
    y = X @ np.array([1, -2, 0, 3, 1]) + rng.integers(-20, 20, size=30)
    alphas = np.array([0.1, 10.0, 1e3, 1e5])
    reference = run(Model(X.astype(float), y[:, None].astype(float)), LOO(alphas=alphas))
    assert np.ptp(reference.path.score) > 0
    for dtype in (np.int8, np.uint8, np.int32, np.int64, np.uint16):
        fit = fit_source(MemorySource(X.astype(dtype), y), LOO(alphas=alphas))
        np.testing.assert_array_equal(fit.path.score, reference.path.score)
        np.testing.assert_array_equal(fit.coef, reference.coef)


def test_boolean_features_are_zeros_and_ones() -> None:
    """scikit-learn#33020, the same with another dtype."""
    rng = generator("boolean features")
    X, y = rng.random((30, 4)) < 0.5, rng.normal(size=30)
    a, b = Ridge().fit(X, y), Ridge().fit(X.astype(float), y)
    np.testing.assert_array_equal(a.coef_, b.coef_)


def test_path_to_tiny_alphas_does_not_diverge() -> None:
    """scikit-learn#32459: 100 × 50 rows without noise, the leave-one-out path blew up near α = 1e-15."""
    model = regression(100, 50, noise=0.0)
    alphas = np.logspace(-15, 0, 16)
    fit = run(model, LOO(alphas=alphas))
    want = oracles.loo(model, alphas[::5])[:, 0].astype(float)
    # Held-out residuals are right to u·κ·‖y‖ each, and here they are no larger than that at the small end.
    rounding = (
        oracles.SAFETY * oracles.UNIT * oracles.condition(model, alphas[0]) * np.sqrt((model.y**2).mean())
    )
    error = np.abs(np.sqrt(fit.path.score[::5]) - np.sqrt(want))
    assert (error <= 1e-10 * np.sqrt(want) + rounding).all()
    # The error only grows with α, and the smallest are as good as noise-free data allow.
    assert fit.path.score[0] <= rounding**2
    assert (np.diff(fit.path.score[8:]) > 0).all()


@pytest.mark.parametrize("rule", [LOO, GCV, lambda **o: KFold(cv=5, **o)], ids=["loo", "gcv", "kfold"])
def test_huge_weights_give_the_same_fit_by_either_way(rule: Any) -> None:
    """scikit-learn#26848: with weights of 2e5 to 2e11, selected and plain fit differed at the same α."""
    plain = regression(60, 8)
    weights = 10.0 ** generator("huge weights").uniform(np.log10(2e5), np.log10(2e11), size=60)
    model = replace(plain, weights=weights)
    alphas = np.logspace(3, 13, 11)
    chosen = run(model, rule(alphas=alphas))
    alpha = float(chosen.alpha[0])
    coef, intercept = oracles.solve(model, alpha)
    fixed = run(model, alpha)
    for fit in (chosen, fixed):
        assert oracles.coefficient_error(model, alpha, fit.coef, coef) <= oracles.tolerance(
            model, alpha, 1e-10
        )
        assert oracles.intercept_error(model, fit.coef, fit.intercept, intercept) <= 1e-10


def test_leave_one_out_at_alpha_zero_is_a_number() -> None:
    """scikit-learn#4781: α = 0 gave NaN; it is ordinary least squares, or its minimum-norm limit."""
    tall = shape("tall")
    fit = run(tall, LOO(alphas=[0.0, 1.0]))
    want = oracles.loo(tall, np.array([0.0, 1.0]))[:, 0].astype(float)
    np.testing.assert_allclose(fit.path.score, want, rtol=1e-10)
    for name in ("wide", "square", "three_by_four", "rank_deficient"):
        model = shape(name)
        tiny = 1e-10 * float(np.linalg.norm(model.X, 2) ** 2)
        limit = float(oracles.loo(model, np.array([tiny]))[0, 0])
        # The score is a smooth function of α/s_min², which is about 1e-10 times a modest number.
        np.testing.assert_allclose(run(model, LOO(alphas=[0.0])).path.score[0], limit, rtol=1e-5)


def test_three_rows_and_four_columns() -> None:
    """scikit-learn#19153: n = 3, p = 4 with an intercept, closed form and explicit leave-one-out differed."""
    rng = generator("three rows")
    model = Model(rng.normal(size=(3, 4)), rng.normal(size=(3, 1)))
    alphas = np.array([1e-6, 1e-2, 1.0, 100.0])
    fit = run(model, LOO(alphas=alphas))
    np.testing.assert_allclose(fit.path.score, oracles.loo(model, alphas)[:, 0].astype(float), rtol=1e-10)


def test_weighted_selection_returns_the_weighted_fit() -> None:
    """scikit-learn#5364: coefficients of a weighted selection were not those of a fit at the chosen α."""
    model = replace(regression(40, 6), weights=generator("weights").uniform(0.1, 10, size=40))
    for rule in (LOO(), GCV(), KFold(cv=4)):
        chosen = run(model, rule)
        coef, _ = oracles.solve(model, chosen.alpha[0])
        assert oracles.coefficient_error(model, chosen.alpha[0], chosen.coef, coef) <= 1e-10


def test_automatic_grid_knows_the_weights() -> None:
    """scikit-learn#29248: the automatic grid ignored weights. On the sum scale α grows with them."""
    model = regression(40, 6)
    ones, heavy = replace(model, weights=np.ones(40)), replace(model, weights=np.full(40, 1024.0))
    a, b = run(ones, LOO()), run(heavy, LOO())
    np.testing.assert_allclose(b.path.alphas[[0, -1]], 1024 * a.path.alphas[[0, -1]], rtol=ROUNDED)
    np.testing.assert_allclose(b.alpha, 1024 * a.alpha, rtol=ROUNDED)
    counts = 1 + np.arange(40) % 3
    rows = np.repeat(np.arange(40), counts)
    counted = run(replace(model, weights=counts, counts=True), LOO())
    repeated = run(replace(model, X=model.X[rows], y=model.y[rows]), LOO())
    np.testing.assert_allclose(counted.path.alphas[[0, -1]], repeated.path.alphas[[0, -1]], rtol=ROUNDED)
    np.testing.assert_allclose(counted.alpha, repeated.alpha, rtol=2 * ROUNDED)
    # A row of weight 0 is no row.
    weights = np.where(np.arange(40) < 30, 1.0, 0.0)
    outlying = model.X.copy()
    outlying[30:] *= 1e6
    masked = run(replace(model, X=outlying, weights=weights), LOO())
    without = run(replace(model, X=model.X[:30], y=model.y[:30]), LOO())
    np.testing.assert_allclose(masked.path.alphas[[0, -1]], without.path.alphas[[0, -1]], rtol=ROUNDED)
    np.testing.assert_allclose(masked.coef, without.coef, rtol=2 * ROUNDED)


@pytest.mark.parametrize("rule", [LOO, lambda **o: KFold(cv=5, **o)], ids=["loo", "kfold"])
@pytest.mark.parametrize("alphas", [None, np.logspace(-3, 5, 80)], ids=["automatic", "given"])
def test_one_standard_error_means_more_penalty(rule: Any, alphas: Any) -> None:
    """sparse-lm#96, tune#664: the rule chose a smaller penalty than the minimum's."""
    model = regression(50, 10, noise=4.0)
    assert run(model, rule(alphas=alphas, one_se=True)).alpha[0] > run(model, rule(alphas=alphas)).alpha[0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("rule", [None, LOO, GCV, KFold])
def test_sparse_is_dense(rule: Any, shifted: bool, weighted: bool) -> None:
    """scikit-learn#4710, #13325, #22899, #1389: sparse X with intercept, weights or shifts differed."""
    rng = generator("sparse")
    X = rng.normal(size=(60, 7)) * (rng.random((60, 7)) < 0.3)
    if shifted:
        X[:, ::2] += 100.0
    y = X @ rng.normal(size=7) + rng.normal(size=60) + 5
    weights = rng.uniform(0.5, 2, size=60) if weighted else None
    alpha = 1.0 if rule is None else rule(alphas=[0.01, 1.0, 100.0])
    dense = Ridge(alpha=alpha).fit(X, y, sample_weight=weights)
    fit = Ridge(alpha=alpha).fit(sparse.csr_array(X), y, sample_weight=weights)
    np.testing.assert_allclose(fit.coef_, dense.coef_, rtol=0, atol=1e-10 * np.abs(dense.coef_).max())
    np.testing.assert_allclose(fit.intercept_, dense.intercept_, rtol=1e-9)
    np.testing.assert_allclose(fit.predict(sparse.csr_array(X)), dense.predict(X), rtol=1e-9)


def test_same_call_same_bits() -> None:
    """scikit-learn#23180: results differed from run to run with a fixed seed."""
    model = regression(50, 8)
    for alpha in ("loo", "kfold", KFold(cv=ShuffleSplit(3, random_state=5)), 0.5):
        a = Ridge(alpha=alpha, random_state=0).fit(model.X, model.y[:, 0])
        b = Ridge(alpha=alpha, random_state=0).fit(model.X.copy(), model.y[:, 0].copy())
        np.testing.assert_array_equal(a.coef_, b.coef_)
        assert a.alpha_ == b.alpha_
        assert a.intercept_ == b.intercept_


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("alpha", [1.0, 0.0, "loo", "kfold"])
def test_inputs_are_not_changed(alpha: Any, dtype: Any, order: Any) -> None:
    """cuml#7410: the caller's arrays were overwritten. Ours may even be read-only."""
    rng = generator("inputs")
    X = np.asarray(rng.normal(size=(30, 4)) * 10, dtype=dtype, order=order)
    y, w = rng.normal(size=30), rng.uniform(1, 2, size=30)
    copies = X.copy(), y.copy(), w.copy()
    for array in (X, y, w):
        array.flags.writeable = False
    model = Ridge(alpha=alpha, standardize=True, penalty=np.ones(4), prior=np.ones(4))
    model.fit(X, y, sample_weight=w).predict(X)
    for array, copy in zip((X, y, w), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("alpha", [1.0, 0.0, "loo", "gcv", "reml", "aic", "bic"])
def test_four_by_ten(alpha: Any) -> None:
    """cuml#7198: a 4 × 10 matrix crashed."""
    model = shape("four_by_ten")
    fit = Ridge(alpha=alpha).fit(model.X, model.y[:, 0])
    assert fit.coef_.shape == (10,)
    assert np.isfinite(fit.coef_).all()
    if isinstance(alpha, float) and alpha > 0:
        coef, _ = oracles.solve(model, alpha)
        assert oracles.coefficient_error(model, alpha, fit.coef_[:, None], coef) <= 1e-12


def test_intercept_does_not_shrink() -> None:
    """polars_ols#49: y = 50 + 2x with α = 100 must keep ȳ = b + x̄·θ, whatever θ shrinks to."""
    x = np.arange(10.0)
    model = Ridge(alpha=100.0).fit(x[:, None], 50 + 2 * x)
    slope = 2 * 82.5 / (82.5 + 100)  # Σ(x − x̄)² = 82.5
    np.testing.assert_allclose(model.coef_, [slope], rtol=1e-14)
    np.testing.assert_allclose(model.intercept_, 50 + (2 - slope) * 4.5, rtol=1e-14)
    huge = Ridge(alpha=1e20).fit(x[:, None], 50 + 2 * x)
    np.testing.assert_allclose(huge.intercept_, 59.0, rtol=1e-14)


def test_near_collinear_columns_survive() -> None:
    """fracridge#48: a decomposition of XᵀX loses directions of relative size below 1e-8; X still has them."""
    rng = generator("near collinear")
    X = rng.normal(size=(50, 3))
    X[:, 2] = X[:, 0] + 1e-9 * rng.normal(size=50)
    y = X @ np.array([1.0, 1.0, 1.0]) + 1e-9 * rng.normal(size=50)
    model = Model(X, y[:, None])
    for alpha in (0.0, 1e-18, 1e-16):
        fit = run(model, alpha)
        coef, _ = oracles.solve_exact(model, alpha)
        kappa = oracles.condition(model, alpha)
        share = float(np.sqrt(oracles.rss(model, np.array([alpha]))[0, 0] / (y @ y)))
        tolerance = oracles.SAFETY * oracles.UNIT * (kappa + kappa**2 * share)
        assert oracles.coefficient_error(model, alpha, fit.coef, coef) <= tolerance


def test_single_precision_input_keeps_its_rank() -> None:
    """scikit-learn#33032: with many float32 rows the cut-off n·eps dropped real singular values."""
    rng = generator("single precision rank")
    n = 30_000
    X = rng.normal(size=(n, 3))
    X[:, 2] = X[:, 0] + 1e-3 * X[:, 2]
    X = X.astype(np.float32)
    # The peer's cut-off, max(n, p)·eps(float32)·s_max, lies above the smallest singular value.
    s = np.linalg.svd(X.astype(float), compute_uv=False)
    assert s[-1] < n * np.finfo(np.float32).eps * s[0]
    y = X.astype(float) @ [1.0, 2.0, 3.0] + 0.01 * rng.normal(size=n)
    fit = fit_source(MemorySource(X, y), 0.0)
    reference = np.linalg.lstsq(np.column_stack([np.ones(n), X.astype(float)]), y, rcond=None)[0]
    np.testing.assert_allclose(fit.coef[:, 0], reference[1:], rtol=1e-9)
    np.testing.assert_allclose(fit.intercept, reference[:1], rtol=0, atol=1e-10)


def test_single_precision_features_of_thousands_keep_the_intercept() -> None:
    """scikit-learn#23376: float32 features of 1e3 to 1e4 over many rows gave a wrong intercept."""
    rng = generator("single precision intercept")
    n = 100_000
    X = rng.uniform(1e3, 1e4, size=(n, 3)).astype(np.float32)
    y = 7.0 + X.astype(float) @ [0.5, -0.25, 1.0]
    fit = fit_source(MemorySource(X, y), 0.0)
    np.testing.assert_allclose(fit.coef[:, 0], [0.5, -0.25, 1.0], rtol=1e-12)
    np.testing.assert_allclose(fit.intercept, 7.0, rtol=0, atol=oracles.SAFETY * oracles.UNIT * 1e4)
    single = Ridge(alpha=0.0).fit(X, y)
    np.testing.assert_allclose(single.intercept_, 7.0, rtol=1e-6)


def test_large_targets_scale_the_coefficients() -> None:
    """scikit-learn#17624: y ≈ 1e6 gave coefficients ≈ 1e-6."""
    model = regression(50, 5)
    for alpha in (1.0, 0.0, "loo", "gcv", "reml"):
        small = run(model, alpha)
        large = run(replace(model, y=model.y * 2.0**20), alpha)
        np.testing.assert_allclose(large.alpha, small.alpha, rtol=ROUNDED)
        np.testing.assert_allclose(large.coef, small.coef * 2.0**20, rtol=2 * ROUNDED)


def test_objective_with_a_vector_penalty_is_minimised() -> None:
    """statsmodels#6441: with one penalty per coefficient, objective and gradient disagreed."""
    base = regression(30, 4)
    model = replace(base, penalty=np.array([0.0, 0.5, 2.0, 10.0]))
    fit = run(model, 3.0)

    def objective(theta: np.ndarray) -> float:
        e = base.y[:, 0] - fit.intercept[0] - base.X @ theta
        return float(e @ e + 3.0 * (model.penalty * theta**2).sum())

    theta, step = fit.coef[:, 0], 1e-5
    for direction in np.eye(4):
        slope = objective(theta + step * direction) - objective(theta - step * direction)
        assert abs(slope / (2 * step)) <= 1e-6


def test_large_constant_column_is_harmless() -> None:
    """statsmodels#6431: a constant column of about 1000 spoilt the fit."""
    model = regression(30, 3)
    wide = np.column_stack([np.full(30, 1000.1), model.X])
    for alpha in (0.0, 1e-6, 1.0, "loo"):
        with_constant, without = (Ridge(alpha=alpha).fit(X, model.y[:, 0]) for X in (wide, model.X))
        assert with_constant.coef_[0] == 0
        np.testing.assert_allclose(
            with_constant.coef_[1:], without.coef_, rtol=2 * ROUNDED if alpha == "loo" else 1e-12
        )
        np.testing.assert_allclose(
            with_constant.intercept_, without.intercept_, rtol=2 * ROUNDED if alpha == "loo" else 1e-12
        )


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frame_in_names_kept(frame: Any) -> None:
    """statsmodels#10262: a data frame went in, bare arrays came out."""
    model = regression(30, 3)
    table = frame({name: model.X[:, j] for j, name in enumerate(["age", "income", "debt"])})
    fitted = Ridge(alpha=1.0).fit(table, model.y[:, 0])
    assert list(fitted.feature_names_in_) == ["age", "income", "debt"]
    assert fitted.fit_.feature_names == ("age", "income", "debt")
    for name in ("age", "income", "debt"):
        assert name in fitted.fit_.summary()
    np.testing.assert_array_equal(fitted.coef_, Ridge(alpha=1.0).fit(model.X, model.y[:, 0]).coef_)


def test_score_is_r_squared() -> None:
    """dask-ml#507: `score` returned the mean squared error and documented R²."""
    model = regression(40, 4)
    fitted = Ridge(alpha=1.0).fit(model.X, model.y[:, 0])
    e, y = model.y[:, 0] - fitted.predict(model.X), model.y[:, 0]
    np.testing.assert_allclose(
        fitted.score(model.X, y), 1 - (e @ e) / ((y - y.mean()) @ (y - y.mean())), rtol=1e-12
    )


def test_intercept_is_not_mistaken_for_a_column() -> None:
    """dask-ml#860: the intercept's column was put first and sliced off last."""
    rng = generator("slicing")
    X = rng.normal(size=(50, 3))
    fitted = Ridge(alpha=1e-10).fit(X, 100.0 + X @ [1.0, 20.0, 3.0])
    np.testing.assert_allclose(fitted.coef_, [1.0, 20.0, 3.0], rtol=1e-9)
    np.testing.assert_allclose(fitted.intercept_, 100.0, rtol=1e-9)


def test_kfold_chooses_one_alpha_per_target() -> None:
    """scikit-learn#17574, #33819: one α per target was refused unless by leave-one-out."""
    rng = generator("per target")
    X = rng.normal(size=(60, 10))
    y = np.column_stack([X @ rng.normal(size=10), rng.normal(size=60)])
    fit = fit_source(MemorySource(X, y), KFold(cv=5), alpha_per_target=True)
    assert fit.alpha[1] > 100 * fit.alpha[0]


# One change of every option, and whether it changes the fit. A new option must be added here.
OPTION_CHANGES: dict[str, Any] = {
    "alpha": 50.0,
    "fit_intercept": False,
    "standardize": True,
    "penalty": [0.0, 1.0, 2.0, 5.0],
    "prior": [1.0, 1.0, 1.0, 1.0],
    "alpha_scale": "mean",
}


def _two_targets() -> tuple[np.ndarray, np.ndarray]:
    rng = generator("options")
    X = rng.normal(size=(30, 4)) * [1, 2, 3, 4] + 1
    return X, np.column_stack([X @ [1.0, -1.0, 0.5, 0.0], np.zeros(30)]) + rng.normal(size=(30, 2))


@pytest.mark.parametrize("name", OPTION_CHANGES)
def test_every_option_changes_the_fit(name: str) -> None:
    """dask-glm: options were silently dropped by some solvers."""
    X, y = _two_targets()
    for solver in ("auto", "spectral", "cholesky", "orthogonal", "dual"):
        base = Ridge(alpha=3.0, solver=solver).fit(X, y)
        changed = Ridge(**{"alpha": 3.0, "solver": solver, name: OPTION_CHANGES[name]}).fit(X, y)
        assert np.abs(changed.coef_ - base.coef_).max() > 1e-3 * np.abs(base.coef_).max(), solver


def test_alpha_per_target_changes_the_fit() -> None:
    X, y = _two_targets()
    for rule in ("loo", "gcv", "reml", "aic", "bic", "kfold"):
        one = Ridge(alpha=rule).fit(X, y)
        many = Ridge(alpha=rule, alpha_per_target=True).fit(X, y)
        assert np.shape(many.alpha_) == (2,)
        assert np.ptp(many.alpha_) > 0
        assert np.abs(one.coef_ - many.coef_).max() > 1e-6, rule


def test_solver_changes_how_and_says_so() -> None:
    X, y = _two_targets()
    for solver in ("spectral", "cholesky", "orthogonal", "dual"):
        assert Ridge(alpha=3.0, solver=solver).fit(X, y).fit_.solver == solver


def test_tolerance_decides_how_far_to_refine() -> None:
    """On rows too many for extended precision; κ of 2e4 leaves an error of about 1e-8 unrefined."""
    rng = generator("tolerance")
    X = rng.normal(size=(60_000, 4))
    X[:, 3] = X[:, 0] + 1e-4 * X[:, 3]
    y = X.sum(axis=1) + rng.normal(size=60_000)
    fine, coarse = (Ridge(alpha=0.0, tol=tol).fit(X, y).fit_ for tol in (1e-13, 1e-2))
    assert fine.certificate.refinements > coarse.certificate.refinements
    assert np.abs(fine.coef - coarse.coef).max() > 0
    np.testing.assert_allclose(fine.coef, coarse.coef, rtol=1e-2)


def test_random_state_changes_the_folds() -> None:
    X, y = _two_targets()
    scores = [Ridge(alpha="kfold", random_state=seed).fit(X, y).path_.score.min() for seed in (0, 1, 0)]
    assert scores[0] == scores[2]
    assert scores[0] != scores[1]


def test_no_option_is_untested() -> None:
    named = set(inspect.signature(Ridge).parameters)
    elsewhere = {"copy_X", "max_iter", "positive", "weights_are"}  # test_sklearn.py, test_weights.py
    assert named == set(OPTION_CHANGES) | {"alpha_per_target", "solver", "tol", "random_state"} | elsewhere


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -1.0),
        ("alpha", float("nan")),
        ("alpha", "lov"),
        ("alpha", None),
        ("alpha", [1.0, 2.0, 3.0]),
        ("penalty", [1.0, 2.0]),
        ("penalty", [1.0, -2.0, 1.0, 1.0]),
        ("penalty", "l1"),
        ("prior", [1.0]),
        ("prior", [1.0, float("nan"), 0.0, 0.0]),
        ("alpha_scale", "median"),
        ("solver", "lbfgs"),
        ("tol", -1.0),
    ],
)
def test_option_that_means_nothing_is_refused_by_name(name: str, value: Any) -> None:
    """dask-glm: see above; what cannot be honoured raises and names the option."""
    X, y = _two_targets()
    with pytest.raises(ValueError, match=name):
        Ridge(**{"alpha": "loo", name: value}).fit(X, y)


@pytest.mark.parametrize("cv", [None, 4, PlainKFold(3, shuffle=True, random_state=0)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_cv_is_a_drop_in(weighted: bool, cv: Any) -> None:
    """scikit-learn#26848 and #5364 from the outside: the peer's arguments mean what they mean there."""
    model = regression(40, 5, noise=3.0)
    y, alphas = model.y[:, 0], [0.1, 1.0, 10.0, 100.0]
    weights = generator("drop-in").uniform(0.5, 2.0, size=40) if weighted else None
    ours = RidgeCV(alphas=alphas, cv=cv).fit(model.X, y, sample_weight=weights)
    if cv is None:
        problem = replace(model, weights=weights)
        assert ours.alpha_ == alphas[int(np.argmin(oracles.loo(problem, np.array(alphas))[:, 0]))]
    else:
        assert ours.alpha_ == PeerRidgeCV(alphas=alphas, cv=cv).fit(model.X, y, sample_weight=weights).alpha_
    coef, intercept = oracles.solve(replace(model, weights=weights), ours.alpha_)
    np.testing.assert_allclose(ours.coef_, coef[:, 0].astype(float), rtol=1e-10)
    np.testing.assert_allclose(ours.intercept_, float(intercept[0]), rtol=1e-9)
