"""What must hold for any data: limits, invariances and equivalences of ridge regression.

Hypothesis draws shapes and seeds; the examples are the same in every run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold as PlainKFold

import oracles
from elltwo import AIC, BIC, GCV, LOO, REML, KFold
from elltwo.fitting import fit_source
from elltwo.results import Fit
from oracles import Model
from shapes import options, source

deterministic = settings(
    derandomize=True,
    deadline=None,
    max_examples=25,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@st.composite
def models(draw: st.DrawFn, tall: bool = False, targets: int = 2) -> Model:
    """Random normal features with mixed units and means, and a noisy linear response."""
    n = draw(st.integers(3, 14))
    p = draw(st.integers(1, n - 2 if tall else 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    units = 10.0 ** rng.integers(-2, 3, size=p)
    X = (rng.normal(size=(n, p)) + draw(st.sampled_from([0.0, 5.0]))) * units
    y = X / units @ rng.normal(size=(p, targets)) + rng.normal(size=(n, targets)) + 2.0
    weights = rng.uniform(0.5, 2.0, size=n) if draw(st.booleans()) else None
    return Model(X, y[:, : draw(st.integers(1, targets))], weights)


alphas = st.sampled_from([1e-3, 0.1, 1.0, 30.0, 1e4])


def run(model: Model, alpha: Any, **more: Any) -> Fit:
    return fit_source(source(model), alpha, **options(model), **more)


def assert_same_fit(model: Model, alpha: float, fit: Fit, coef: np.ndarray, intercept: np.ndarray) -> None:
    """Equal up to the forward error of two backward-stable solutions, SAFETY·u·κ² (normal equations)."""
    tolerance = max(1e-12, oracles.SAFETY * oracles.UNIT * oracles.condition(model, alpha) ** 2)
    assert oracles.coefficient_error(model, alpha, fit.coef, coef) <= tolerance
    assert oracles.intercept_error(model, fit.coef, fit.intercept, intercept) <= tolerance


@deterministic
@given(models())
def test_alpha_zero_is_the_least_squares_solution_of_smallest_norm(model: Model) -> None:
    root = np.sqrt(model.w)[:, None]
    mean_x, mean_y = model.w @ model.X / model.w.sum(), model.w @ model.y / model.w.sum()
    Z = root * (model.X - mean_x)
    s = np.linalg.svd(Z, compute_uv=False)
    rank = min(len(Z) - 1, Z.shape[1])
    want = np.linalg.pinv(Z, rcond=s[rank - 1] / s[0] / 1e3) @ (root * (model.y - mean_y))
    fit = run(model, 0.0)
    # Minimum norm is not invariant to units, so the raw condition number counts.
    kappa = s[0] / s[rank - 1]
    tolerance = max(1e-12, oracles.SAFETY * oracles.UNIT * kappa**2)
    np.testing.assert_allclose(fit.coef, want, rtol=0, atol=tolerance * np.abs(want).max())


@deterministic
@given(models())
def test_small_alpha_tends_to_alpha_zero(model: Model) -> None:
    """θ(α) − θ(0) = −αG⁺θ(α) to first order, so a hundred times smaller α comes a hundred times nearer."""
    Z = np.sqrt(model.w)[:, None] * (model.X - model.w @ model.X / model.w.sum())
    smallest = np.linalg.svd(Z, compute_uv=False)[min(len(Z) - 1, Z.shape[1]) - 1] ** 2
    limit = run(model, 0.0).coef
    far, near = (np.abs(run(model, smallest * a).coef - limit).max() for a in (1e-2, 1e-4))
    assert near <= 0.02 * far + 1e-9 * np.abs(limit).max()


@deterministic
@given(models())
def test_infinite_alpha_gives_the_weighted_mean(model: Model) -> None:
    mean = model.w @ model.y / model.w.sum()
    Z = np.sqrt(model.w)[:, None] * (model.X - model.w @ model.X / model.w.sum())
    alpha = 1e12 * float(np.linalg.norm(Z) ** 2)
    fit = run(model, alpha)
    prediction = fit.decision(model.X)
    # |Zθ| ≤ ‖Z‖²·‖y‖/α
    assert (
        np.abs(prediction - mean).max() <= 1e-11 * np.linalg.norm(np.sqrt(model.w)[:, None] * model.y) + 1e-12
    )


@deterministic
@given(models(), alphas, st.integers(0, 2**16), st.booleans())
def test_permuting_columns_permutes_coefficients(
    model: Model, alpha: float, seed: int, standardize: bool
) -> None:
    model = replace(model, standardize=standardize)
    order = np.random.default_rng(seed).permutation(model.X.shape[1])
    permuted = run(replace(model, X=model.X[:, order]), alpha)
    coef = np.empty_like(permuted.coef)
    coef[order] = permuted.coef
    assert_same_fit(model, alpha, run(model, alpha), coef, permuted.intercept)


@deterministic
@given(models(), alphas, st.integers(0, 2**16))
def test_permuting_rows_changes_nothing(model: Model, alpha: float, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(model.X))
    weights = None if model.weights is None else model.weights[order]
    permuted = run(replace(model, X=model.X[order], y=model.y[order], weights=weights), alpha)
    assert_same_fit(model, alpha, run(model, alpha), permuted.coef, permuted.intercept)


@deterministic
@given(models(), alphas, st.integers(0, 2**16))
def test_units_do_not_matter_when_standardised(model: Model, alpha: float, seed: int) -> None:
    """x → x·c + d with standardisation: coefficients are divided by c, predictions stay."""
    model = replace(model, standardize=True)
    rng = np.random.default_rng(seed)
    p = model.X.shape[1]
    units, shift = 2.0 ** rng.integers(-12, 13, size=p), rng.integers(-3, 4, size=p)
    scaled = replace(model, X=model.X * units + shift * units)
    fit, other = run(model, alpha), run(scaled, alpha)
    coef = other.coef * units[:, None]
    intercept = other.intercept + (shift * units) @ other.coef
    # Adding the shift rounds each entry by u·|x|, which acts on a coefficient like an error of u·|x|/s.
    rounded = np.max(np.abs(model.X) + np.abs(shift), axis=0) / np.asarray(model.scales(), dtype=float)
    allowed = oracles.SAFETY * oracles.UNIT * oracles.condition(model, alpha) ** 2 * rounded.max()
    assert oracles.coefficient_error(model, alpha, fit.coef, coef) <= max(1e-12, allowed)
    assert oracles.intercept_error(model, fit.coef, fit.intercept, intercept) <= max(1e-12, allowed)


@deterministic
@given(models(), st.sampled_from([LOO(), GCV(), REML(), KFold(cv=3)]), st.integers(-20, 20))
def test_units_of_the_target_only_scale_the_model(model: Model, rule: Any, exponent: int) -> None:
    """y → y·c with c a power of two is exact: the same alpha, coefficients times c."""
    factor = 2.0**exponent
    fit, scaled = run(model, rule), run(replace(model, y=model.y * factor), rule)
    np.testing.assert_allclose(scaled.alpha, fit.alpha, rtol=1e-6)
    again = run(replace(model, y=model.y * factor), float(fit.alpha[0]))
    np.testing.assert_allclose(
        again.coef, fit.coef * factor, rtol=1e-9, atol=1e-12 * np.abs(fit.coef).max() * factor
    )


@deterministic
@given(models(), alphas, st.sampled_from([-3.0, 1024.0, 1e6]))
def test_shifting_the_target_moves_only_the_intercept(model: Model, alpha: float, shift: float) -> None:
    fit, shifted = run(model, alpha), run(replace(model, y=model.y + shift), alpha)
    # y + shift is rounded to u·|shift|, which the coefficients see relative to the spread of y.
    spread = np.sqrt(((model.y - model.y.mean(axis=0)) ** 2).mean(axis=0)).min()
    lost = oracles.SAFETY * oracles.UNIT * abs(shift) / spread
    tolerance = max(1e-12, oracles.SAFETY * oracles.UNIT * oracles.condition(model, alpha) ** 2) + lost
    assert oracles.coefficient_error(model, alpha, shifted.coef, fit.coef) <= tolerance
    X = model.X
    np.testing.assert_allclose(
        shifted.decision(X) - shift, fit.decision(X), rtol=0, atol=tolerance * np.ptp(model.y) * 10
    )


RULES = {
    "loo": LOO,
    "gcv": GCV,
    "reml": REML,
    "aic": AIC,
    "bic": BIC,
}


@pytest.mark.parametrize("rule", RULES)
@deterministic
@given(models(), st.integers(0, 2**16), st.booleans())
def test_integer_weights_are_repetition(rule: str, model: Model, seed: int, standardize: bool) -> None:
    """For the coefficients, the degrees of freedom, the score of every alpha and the chosen alpha."""
    counts = np.random.default_rng(seed).integers(0, 4, size=len(model.X))
    counts[:3] = [1, 2, 1]
    rows = np.repeat(np.arange(len(counts)), counts)
    counted = replace(model, weights=counts, counts=True, standardize=standardize)
    repeated = replace(model, X=model.X[rows], y=model.y[rows], weights=None, standardize=standardize)
    scale = (
        oracles.augmented_lengths(repeated, 0.0).astype(float).max() ** 2 if not standardize else len(rows)
    )
    tried = scale * np.array([1e-2, 0.3, 10.0])
    a, b = run(counted, RULES[rule](alphas=tried)), run(repeated, RULES[rule](alphas=tried))
    np.testing.assert_allclose(a.path.df, b.path.df, rtol=1e-9)
    if rule == "reml":
        np.testing.assert_allclose(
            np.diff(a.path.score), np.diff(b.path.score), rtol=1e-8, atol=1e-8 * len(rows)
        )
    else:
        np.testing.assert_allclose(
            a.path.score, b.path.score, rtol=1e-8, atol=1e-9 * len(rows) * (rule in ("aic", "bic"))
        )
    assert_same_fit(
        repeated, float(tried[1]), run(counted, float(tried[1])), *_solution(run(repeated, float(tried[1])))
    )


def _solution(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    return fit.coef, fit.intercept


@deterministic
@given(models(), st.integers(0, 2**16))
def test_integer_weights_are_repetition_in_kfold(model: Model, seed: int) -> None:
    """With copies of a row in the same fold."""
    counts = np.random.default_rng(seed).integers(1, 4, size=len(model.X))
    rows = np.repeat(np.arange(len(counts)), counts)
    splits = list(PlainKFold(3).split(model.X))
    repeated_splits = [tuple(np.flatnonzero(np.isin(rows, part)) for part in split) for split in splits]
    counted = replace(model, weights=counts, counts=True)
    repeated = replace(model, X=model.X[rows], y=model.y[rows], weights=None)
    tried = oracles.augmented_lengths(repeated, 0.0).astype(float).max() ** 2 * np.array([1e-2, 0.3, 10.0])
    a = run(counted, KFold(cv=splits, alphas=tried))
    b = run(repeated, KFold(cv=repeated_splits, alphas=tried))
    np.testing.assert_allclose(a.path.score, b.path.score, rtol=1e-8)


@deterministic
@given(models(), alphas, st.sampled_from([0.125, 3.0, 1e6]))
def test_scaling_weights_and_alpha_together_changes_nothing(
    model: Model, alpha: float, factor: float
) -> None:
    """The objective is on the sum scale: Σ c·w·½e² + cα/2‖θ‖² has the same minimum."""
    fit = run(replace(model, weights=model.w), alpha)
    other = run(replace(model, weights=model.w * factor), alpha * factor)
    assert_same_fit(model, alpha, fit, other.coef, other.intercept)


@deterministic
@given(models(), alphas)
def test_stacking_rows_doubles_the_weight(model: Model, alpha: float) -> None:
    """Two copies of the rows at 2α are one copy at α."""
    stacked = replace(
        model,
        X=np.vstack([model.X, model.X]),
        y=np.vstack([model.y, model.y]),
        weights=None if model.weights is None else np.tile(model.weights, 2),
    )
    other = run(stacked, 2 * alpha)
    assert_same_fit(model, alpha, run(model, alpha), other.coef, other.intercept)


@deterministic
@given(models(), alphas)
def test_stacking_columns_splits_the_coefficient(model: Model, alpha: float) -> None:
    """Two copies of every column at 2α share the coefficient in halves."""
    doubled = run(replace(model, X=np.hstack([model.X, model.X])), 2 * alpha)
    p = model.X.shape[1]
    fit = run(model, alpha)
    assert_same_fit(model, alpha, fit, doubled.coef[:p] + doubled.coef[p:], doubled.intercept)
    assert_same_fit(model, alpha, fit, 2 * doubled.coef[:p], doubled.intercept)


@deterministic
@given(models(), alphas)
def test_augmented_rows_are_the_penalty(model: Model, alpha: float) -> None:
    """Least squares on centred rows with √α·I below them is ridge."""
    p, T = model.X.shape[1], model.y.shape[1]
    Z = model.X - model.w @ model.X / model.w.sum()
    y = model.y - model.w @ model.y / model.w.sum()
    augmented = Model(
        np.vstack([Z, np.sqrt(alpha) * np.eye(p)]),
        np.vstack([y, np.zeros((p, T))]),
        np.concatenate([model.w, np.ones(p)]),
        fit_intercept=False,
    )
    fit = run(model, alpha)
    assert_same_fit(model, alpha, fit, run(augmented, 0.0).coef, fit.intercept)


@deterministic
@given(models(), alphas)
def test_prior_shifts_the_target(model: Model, alpha: float) -> None:
    """Ridge around θ₀ is ridge around 0 of y − Xθ₀, plus θ₀."""
    spread = np.asarray(model.scales(), dtype=float)
    prior = np.linspace(-1, 1, model.X.shape[1]) / spread
    around = run(replace(model, prior=prior), alpha)
    plain = run(replace(model, y=model.y - (model.X @ prior)[:, None]), alpha)
    # Subtracting Xθ₀ rounds y by u·|Xθ₀|, and adding θ₀ rounds θ by u·|θ₀|: both relative to what is fitted.
    size = 1 + np.abs(model.X) @ np.abs(prior) / np.ptp(model.y, axis=0).min()
    allowed = oracles.SAFETY * oracles.UNIT * oracles.condition(model, alpha) ** 2 * size.max()
    want = np.abs(around.coef * spread[:, None]).max() + np.abs(prior * spread).max()
    difference = np.abs(around.coef - plain.coef - prior[:, None]) * spread[:, None]
    assert difference.max() <= max(1e-12, 10 * allowed) * want


@deterministic
@given(models(), alphas)
def test_targets_do_not_influence_each_other(model: Model, alpha: float) -> None:
    together = run(model, alpha)
    for t in range(model.y.shape[1]):
        alone = run(replace(model, y=model.y[:, [t]]), alpha)
        assert_same_fit(
            replace(model, y=model.y[:, [t]]),
            alpha,
            alone,
            together.coef[:, [t]],
            together.intercept[[t]],
        )


@deterministic
@given(models(), alphas)
def test_optimality_residual_is_at_rounding(model: Model, alpha: float) -> None:
    fit = run(model, alpha)
    n, p = model.X.shape
    assert oracles.kkt_residual(model, alpha, fit.coef, fit.intercept) <= 4 * (n + p) * oracles.UNIT


@deterministic
@given(models(), alphas)
def test_no_coefficients_nearby_are_better(model: Model, alpha: float) -> None:
    """The objective itself, evaluated, is smallest at the fit."""
    fit = run(model, alpha)

    def objective(coef: np.ndarray, intercept: np.ndarray) -> float:
        e = model.y - model.X @ coef - intercept
        return float((model.w @ e**2).sum() + alpha * (coef**2).sum())

    best = objective(fit.coef, fit.intercept)
    for j in range(model.X.shape[1]):
        for sign in (-1, 1):
            moved = fit.coef.copy()
            moved[j] += sign * 1e-4 / float(model.scales()[j])
            assert objective(moved, fit.intercept) > best
    assert objective(fit.coef, fit.intercept + 1e-4) > best
    assert objective(fit.coef, fit.intercept - 1e-4) > best


@deterministic
@given(models(), alphas)
def test_every_solver_agrees(model: Model, alpha: float) -> None:
    """Primal = dual = orthogonal = Cholesky."""
    reference = run(model, alpha, solver="orthogonal")
    for solver in ("spectral", "cholesky", "dual"):
        fit = run(model, alpha, solver=solver)
        assert fit.solver == solver
        assert_same_fit(model, alpha, reference, fit.coef, fit.intercept)


@deterministic
@given(models(), st.booleans())
def test_shrinkage_is_monotone(model: Model, standardize: bool) -> None:
    """Penalised norm and df fall, RSS rises with α."""
    model = replace(model, standardize=standardize)
    tried = np.logspace(-3, 5, 9)
    path = run(model, GCV(alphas=tried)).path
    root = np.asarray(model.penalty_root(), dtype=float)
    coef = path.coef.reshape(len(tried), model.X.shape[1], -1)
    norms = np.linalg.norm(root @ coef, axis=1)
    assert (np.diff(norms, axis=0) <= 1e-10 * norms[0]).all()
    assert (np.diff(path.df) <= 1e-10).all()
    e = model.y - model.X @ coef - path.intercept.reshape(len(tried), 1, -1)
    rss = np.einsum("i,ait->at", model.w, e**2)
    assert (np.diff(rss, axis=0) >= -1e-9 * rss[-1]).all()


@deterministic
@given(models(), st.sampled_from([LOO(), GCV(), REML(), BIC(), KFold(cv=3)]))
def test_fit_at_the_chosen_alpha_is_the_fit(model: Model, rule: Any) -> None:
    chosen = run(model, rule)
    alpha = float(chosen.alpha[0])
    fixed = run(model, alpha)
    assert_same_fit(model, alpha, fixed, chosen.coef, chosen.intercept)
    index = chosen.path.chosen[0]
    assert chosen.path.alphas[index] == alpha
    coef = chosen.path.coef[index].reshape(chosen.coef.shape)
    assert_same_fit(model, alpha, fixed, coef, chosen.path.intercept[index].reshape(-1))
