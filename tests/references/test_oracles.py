"""The oracles themselves, against rational arithmetic, mpmath, NumPy and scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import oracles
from oracles import Model
from shapes import VARIATIONS, alphas_for, problem

LONG = float(np.finfo(np.longdouble).eps)
rng = np.random.default_rng(7)
SMALL = Model(rng.integers(-9, 10, size=(6, 3)) / 4, rng.integers(-9, 10, size=(6, 1)) / 8)


def _fractions(a: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(v)) for v in column] for column in np.atleast_2d(a.T)]


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("name", ["tall", "wide", "badly_scaled", "offset", "near_collinear", "multi_target"])
def test_solve_agrees_with_sixty_digits(name: str, variation: str) -> None:
    """To the forward error κ² of least squares in long double."""
    model = problem(name, variation)
    alpha = float(alphas_for(model, low=-4)[0])
    coef, intercept = oracles.solve_exact(model, alpha)
    found, b = oracles.solve(model, alpha)
    allowed = 100 * LONG * oracles.condition(model, alpha) ** 2
    assert oracles.coefficient_error(model, alpha, found, coef) <= allowed
    assert oracles.intercept_error(model, found, b, intercept) <= allowed


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [Fraction(0), Fraction(1, 1024), Fraction(3)])
def test_solve_is_the_rational_solution(alpha: Fraction, fit_intercept: bool) -> None:
    model = replace(SMALL, fit_intercept=fit_intercept)
    exact = oracles.ridge_exact(_fractions(model.X), _fractions(model.y)[0], alpha, fit_intercept)
    coef, intercept = oracles.solve(model, float(alpha))
    found = [*intercept, *coef[:, 0]] if fit_intercept else list(coef[:, 0])
    want = [np.longdouble(v.numerator) / np.longdouble(v.denominator) for v in exact]
    kappa = oracles.condition(model, float(alpha))
    np.testing.assert_allclose(found, want, rtol=0, atol=100 * LONG * kappa * max(abs(v) for v in want))


def test_leave_one_out_is_the_rational_one() -> None:
    alpha, X, y = Fraction(1, 2), _fractions(SMALL.X), _fractions(SMALL.y)[0]
    total = Fraction(0)
    for i in range(6):
        others = [j for j in range(6) if j != i]
        b, *theta = oracles.ridge_exact([[c[j] for j in others] for c in X], [y[j] for j in others], alpha)
        total += (y[i] - b - sum((t * c[i] for t, c in zip(theta, X, strict=True)), Fraction(0))) ** 2
    np.testing.assert_allclose(float(oracles.loo(SMALL, np.array([0.5]))[0, 0]), float(total / 6), rtol=1e-14)


def test_reml_is_the_likelihood_of_error_contrasts() -> None:
    """−2ℓ of Kᵀy, K an orthonormal basis of the contrasts (KᵀF = 0), in 40 digits, up to a constant."""
    model = replace(SMALL, penalty=np.array([0.0, 1.0, 2.5]), weights=np.array([1, 2, 0.5, 1, 3, 1.5]))
    alphas = np.array([1e-4, 0.1, 2.0, 50.0])
    F = np.column_stack([np.ones(6), model.X[:, 0]])
    contrasts = np.linalg.svd(F)[0][:, 2:].T
    with mpmath.workdps(40):
        # Contrasts are made exact: project them off F in 40 digits.
        Fm = mpmath.matrix(F.tolist())
        K = mpmath.matrix(contrasts.tolist())
        K = K - K * Fm * mpmath.inverse(Fm.T * Fm) * Fm.T
        Xp, y = mpmath.matrix(model.X[:, 1:].tolist()), mpmath.matrix(model.y.tolist())
        W = mpmath.diag([1 / mpmath.mpf(w) for w in model.w])
        want = []
        for alpha in alphas:
            V = W + Xp * mpmath.diag([1, 1 / mpmath.mpf(2.5)]) * Xp.T / mpmath.mpf(alpha)
            S = K * V * K.T
            z = K * y
            quadratic = (z.T * mpmath.lu_solve(S, z))[0]
            want.append(float(mpmath.log(mpmath.det(S)) + 4 * mpmath.log(quadratic)))
    found = oracles.reml(model, alphas)[:, 0].astype(float)
    np.testing.assert_allclose(found - found[0], np.array(want) - want[0], rtol=0, atol=1e-12)


def test_hat_matrix_is_the_textbook_one() -> None:
    X = np.column_stack([np.ones(6), SMALL.X])
    D = np.diag([0.0, 1.0, 1.0, 1.0])
    want = X @ np.linalg.solve(X.T @ X + 0.7 * D, X.T)
    H = oracles.hat_matrix(SMALL, np.array([0.7]))[0].astype(float)
    np.testing.assert_allclose(H, want, rtol=0, atol=1e-13)


def test_kfold_is_a_pipeline_of_scaler_and_ridge() -> None:
    """Scaling refitted in each fold: α on standardised columns of scikit-learn is P = diag(s²)."""
    X, y = rng.normal(size=(20, 4)) * [1, 5, 0.1, 30] + 2, rng.normal(size=(20, 1))
    splits = list(KFold(4, shuffle=True, random_state=0).split(X))
    errors = []
    for train, test in splits:
        pipe = make_pipeline(StandardScaler(), Ridge(alpha=3.0, solver="svd")).fit(X[train], y[train, 0])
        errors.append((y[test, 0] - pipe.predict(X[test])) ** 2)
    found = oracles.kfold(Model(X, y, standardize=True), splits, np.array([3.0]))
    np.testing.assert_allclose(float(found[0, 0]), np.concatenate(errors).mean(), rtol=1e-12)


def test_counts_are_repetition() -> None:
    counts = np.array([1, 3, 2, 1, 1, 2])
    rows = np.repeat(np.arange(6), counts)
    counted = replace(SMALL, weights=counts, counts=True, standardize=True)
    repeated = replace(SMALL, X=SMALL.X[rows], y=SMALL.y[rows], standardize=True)
    alphas = np.array([0.01, 1.0, 30.0])
    for name, criterion in oracles.CRITERIA.items():
        a, b = criterion(counted, alphas).astype(float), criterion(repeated, alphas).astype(float)
        np.testing.assert_allclose(a, b, rtol=1e-13, err_msg=name)


def test_kkt_residual_is_at_rounding_for_the_oracle_and_not_for_a_wrong_solution() -> None:
    coef, intercept = oracles.solve(SMALL, 0.3)
    assert oracles.kkt_residual(SMALL, 0.3, coef, intercept) < 100 * LONG
    assert oracles.kkt_residual(SMALL, 0.3, coef * 1.0001, intercept) > 1e-6
