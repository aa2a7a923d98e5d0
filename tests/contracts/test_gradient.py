"""First-order methods reach the optimum that closed forms and peers give, and say how far off they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.linear_model import LogisticRegression, PoissonRegressor

import oracles
from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.memory import MemorySource
from elltwo.errors import InputError
from elltwo.losses import (
    LOSSES,
    Binomial,
    Gamma,
    Gaussian,
    Multinomial,
    NegativeBinomial,
    Poisson,
    SquaredHinge,
    Tweedie,
)
from elltwo.penalties import as_penalty
from elltwo.problem import Problem
from elltwo.run import Run
from elltwo.selection import KFold
from elltwo.solvers.first_order import Descent, Frame, Rows, distance, survey
from elltwo.solvers.gradient import METHODS, GradientSolver, gradient_descent
from elltwo.solvers.sgd import RESCALE, Eager, Lazy, Schedule, SGDSolver, SGDState, few_decays, sgd
from elltwo.solvers.spectral import SpectralSolver
from shapes import problem as shaped

every_method = pytest.mark.parametrize("method", METHODS)
every_loss = pytest.mark.parametrize("loss_type", LOSSES, ids=lambda loss: loss.name)


class Stream(BlockwiseSource):
    """Rows on which only one block at a time can be seen."""

    in_memory = False

    def __init__(self, memory: MemorySource, size: int) -> None:
        self.memory, self.size = memory, size
        self.n_features, self.n_targets, self.n_rows = memory.n_features, memory.n_targets, None
        self.feature_names, self.target_names = memory.feature_names, memory.target_names
        self.counts, self.weighted = memory.counts, memory.weighted

    def blocks(self) -> Any:
        m = self.memory
        for start in range(0, len(m.y), self.size):
            rows = slice(start, start + self.size)
            yield Block(m.dense(rows), m.y[rows], None if m.weights is None else m.weights[rows], start)

    def keys(self) -> None:
        return None


def targets(loss_type: Any, n: int = 120, p: int = 4, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return X, y and a loss: rows that the loss is made for, with a signal."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 0.3
    eta = X @ rng.normal(size=p) * 0.5
    loss = loss_type()
    mean = np.exp(eta)
    draw = {
        "gaussian": lambda: eta + rng.normal(size=n),
        "huber": lambda: eta + rng.standard_t(2, size=n),
        "squared-epsilon-insensitive": lambda: eta + rng.normal(size=n),
        "squared-hinge": lambda: np.where(eta + rng.normal(size=n) > 0, 1.0, -1.0),
        "binomial": lambda: (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(float),
        "poisson": lambda: rng.poisson(mean).astype(float),
        "negative-binomial": lambda: rng.poisson(mean * rng.gamma(1.0, 1.0, size=n)).astype(float),
        "gamma": lambda: rng.gamma(2.0, mean / 2),
        "tweedie": lambda: rng.poisson(mean) * rng.gamma(2.0, 1.0, size=n),
        "multinomial": lambda: np.eye(3)[
            np.argmax(np.stack([eta, -eta, 0 * eta], 1) + rng.gumbel(size=(n, 3)), axis=1)
        ],
    }
    return X, draw[loss.name](), loss


def full_objective(X: Any, y: Any, w: Any, loss: Any, alpha: float, d: Any) -> Any:
    """Return (θ, b) ↦ (f, ∂f/∂θ, ∂f/∂b), the formula as it stands."""

    def at(theta: Any, b: Any) -> tuple[float, Any, Any]:
        eta = X @ theta + b
        q = w[:, None] * loss.gradient(y, eta)
        value = np.sum(w @ loss.value(y, eta)) + alpha / 2 * np.sum(d[:, None] * theta**2)
        return float(value), X.T @ q + alpha * d[:, None] * theta, q.sum(axis=0)

    return at


def peer(X: Any, y: Any, w: Any, loss: Any, alpha: float, d: Any) -> tuple[Any, Any]:
    """Return SciPy's minimiser."""
    f, p, T = full_objective(X, y, w, loss, alpha, d), X.shape[1], y.shape[1]

    def flat(x: Any) -> tuple[float, Any]:
        value, g, gb = f(x[: p * T].reshape(p, T), x[p * T :])
        return value, np.concatenate([g.ravel(), gb])

    found = optimize.minimize(flat, np.zeros((p + 1) * T), jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x[: p * T].reshape(p, T), found.x[p * T :]


def model_of(name: str, variation: str) -> tuple[Any, Problem]:
    m = shaped(name, variation)
    made = Problem(
        MemorySource(m.X, m.y, m.weights),
        as_penalty(m.penalty, standardize=m.standardize),
        m.prior,
        m.fit_intercept,
    )
    return m, made


def p_norm(result: Descent, coef: Any) -> Any:
    """‖θ − θ*‖_P, per target."""
    gap = result.coef - coef
    return np.sqrt(np.maximum(np.einsum("jt,jt->t", gap, result.form.apply(gap)), 0.0))


# --- full gradients -------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize(
    ("name", "variation"),
    [
        ("tall", "plain"),
        ("tall", "everything"),
        ("tall", "no_intercept"),
        ("wide", "plain"),
        ("multi_target", "prior"),
        ("multi_target", "weighted"),
        ("one_hot_and_constant", "counted"),
        ("tall", "tikhonov"),
        ("badly_scaled", "standardised"),
        ("badly_scaled", "plain"),
        ("offset", "plain"),
        ("wide_badly_scaled", "standardised"),
    ],
)
def test_equals_the_closed_form_within_the_bound(name: str, variation: str, method: str) -> None:
    model, made = model_of(name, variation)
    scale = np.sqrt(model.w @ (model.X - model.w @ model.X / model.w.sum()) ** 2)
    alpha = 0.5 if model.standardize else 0.05 * float(np.median(scale) ** 2)
    result = gradient_descent(made, alpha, method=method, tol=1e-10, max_passes=20_000)
    coef, intercept = oracles.solve(model, alpha)
    bound = distance(result).coef
    assert result.converged
    error = p_norm(result, np.asarray(coef, dtype=float))
    rounding = 1e-12 * np.sqrt(np.einsum("jt,jt->t", coef, result.form.apply(np.asarray(coef, dtype=float))))
    assert np.all(error <= bound + rounding)
    if np.isfinite(bound).all():
        assert np.all(bound <= 1e-3 * (1e-300 + np.linalg.norm(model.y, axis=0) / np.sqrt(alpha)))
    spread = np.abs(model.y).max()
    shift = np.abs(np.asarray(intercept, dtype=float) - result.intercept)
    assert np.all(shift <= 1e-8 * (spread + np.abs(model.X).mean(axis=0) @ np.abs(result.coef)))


@every_loss
@every_method
def test_every_loss_satisfies_its_optimality_condition(loss_type: Any, method: str) -> None:
    X, y, loss = targets(loss_type)
    w = np.random.default_rng(1).uniform(0.5, 2, size=len(X))
    d = np.array([1.0, 0.5, 2.0, 1.0])
    result = gradient_descent(
        Problem(MemorySource(X, y, w), as_penalty(d, standardize=False), loss=loss),
        2.0,
        method=method,
        tol=1e-9,
        max_passes=5000,
    )
    y = y.reshape(len(X), -1)
    value, g, gb = full_objective(X, y, w, loss, 2.0, d)(result.coef, result.intercept)
    assert result.converged
    size = np.sqrt(w.sum()) * np.sqrt(np.max(w @ loss.gradient(y, loss.null(w @ y / w.sum())[None]) ** 2))
    assert np.abs(g).max() <= 1e-9 * size * np.sqrt((X**2).mean(axis=0)).max()
    assert np.abs(gb).max() <= 1e-12 * size
    np.testing.assert_allclose(g, result.gradient, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(result.trace.objective[-1], value, rtol=1e-12)


@every_loss
def test_every_loss_equals_scipy_and_the_bounds_hold(loss_type: Any) -> None:
    X, y, loss = targets(loss_type, seed=3)
    y = y.reshape(len(X), -1)
    w, d = np.ones(len(X)), np.ones(X.shape[1])
    coef, b = peer(X, y, w, loss, 1.0, d)
    f = full_objective(X, y, w, loss, 1.0, d)
    best, theirs, at_b = f(coef, b)
    # Their own distance, by the same bound with the intercept's gradient beside it.
    slack = np.linalg.norm(theirs) + 10 * np.linalg.norm(at_b)
    assert slack < 1e-4
    for tol in (1e-1, 1e-3, 1e-8):
        made = Problem(MemorySource(X, y), loss=loss)
        result = gradient_descent(made, 1.0, tol=tol)
        bound = distance(result)
        assert np.linalg.norm(result.coef - coef) <= np.linalg.norm(bound.coef) + slack
        value = f(result.coef, result.intercept)[0]
        assert value - best <= bound.objective.sum() + 1e-10 * best
    assert bound.coef.max() < 1e-4


def test_logistic_equals_scikit_learn() -> None:
    X, y, loss = targets(Binomial, n=300)
    theirs = LogisticRegression(C=1 / 0.7, tol=1e-13, max_iter=200, solver="newton-cholesky").fit(X, y)
    result = gradient_descent(Problem(MemorySource(X, y), loss=loss), 0.7, tol=1e-11)
    np.testing.assert_allclose(result.coef[:, 0], theirs.coef_[0], rtol=1e-8)
    np.testing.assert_allclose(result.intercept, theirs.intercept_, rtol=1e-8)


def test_multinomial_equals_scikit_learn() -> None:
    X, y, loss = targets(Multinomial, n=300)
    theirs = LogisticRegression(C=1 / 0.7, tol=1e-10, max_iter=2000).fit(X, y.argmax(axis=1))
    result = gradient_descent(Problem(MemorySource(X, y), loss=loss), 0.7, tol=1e-11)
    np.testing.assert_allclose(result.coef, theirs.coef_.T, atol=1e-5)


def test_poisson_equals_scikit_learn() -> None:
    X, y, loss = targets(Poisson, n=300)
    theirs = PoissonRegressor(alpha=0.7 / 300, tol=1e-13, solver="newton-cholesky").fit(X, y)
    result = gradient_descent(Problem(MemorySource(X, y), loss=loss), 0.7, tol=1e-11)
    np.testing.assert_allclose(result.coef[:, 0], theirs.coef_, rtol=1e-8)


@every_method
@pytest.mark.parametrize("loss_type", [Gaussian, Binomial, Poisson])
def test_badly_scaled_columns_need_no_more_passes(loss_type: Any, method: str) -> None:
    X, y, loss = targets(loss_type, p=5)
    units = 10.0 ** np.array([-6, -3, 0, 3, 6])
    passes = []
    for unit in (np.ones(5), units):
        made = Problem(MemorySource(X * unit, y), as_penalty(None, standardize=True), loss=loss)
        result = gradient_descent(made, 1.0, method=method, tol=1e-9)
        assert result.converged
        passes.append(result.trace.passes[-1])
    assert abs(int(passes[0]) - int(passes[1])) <= 2


@every_method
def test_weights_are_repetition(method: str) -> None:
    X, y, loss = targets(Poisson, n=40)
    counts = np.arange(40) % 4
    once = gradient_descent(Problem(MemorySource(X, y, counts), loss=loss), 1.0, method=method, tol=1e-11)
    rows = np.repeat(np.arange(40), counts)
    many = gradient_descent(Problem(MemorySource(X[rows], y[rows]), loss=loss), 1.0, method=method, tol=1e-11)
    np.testing.assert_allclose(once.coef, many.coef, atol=1e-9)
    np.testing.assert_allclose(once.intercept, many.intercept, atol=1e-9)


@pytest.mark.parametrize("loss_type", [Gaussian, Gamma, Multinomial])
def test_dense_sparse_and_streamed_are_the_same(loss_type: Any) -> None:
    X, y, loss = targets(loss_type, n=150)
    X = X * (np.random.default_rng(5).uniform(size=X.shape) < 0.4)
    w = np.random.default_rng(6).uniform(0.1, 2, size=len(X))
    prior = np.array([0.1, -0.2, 0.0, 0.3])
    dense = MemorySource(X, y, w)
    results = [
        gradient_descent(Problem(source, prior=prior, loss=loss), 1.0, tol=1e-11)
        for source in (dense, MemorySource(sparse.csr_matrix(X), y, w), Stream(dense, 37))
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.coef, results[0].coef, rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.intercept, results[0].intercept, rtol=0, atol=1e-9)


def test_offsets_are_part_of_eta() -> None:
    X, y, loss = targets(Poisson)
    o = 0.3 * np.random.default_rng(7).normal(size=len(X))
    result = gradient_descent(Problem(MemorySource(X, y, offset=o), loss=loss), 1.0, tol=1e-10)
    eta = X @ result.coef + result.intercept + o[:, None]
    g = X.T @ (np.exp(eta) - y[:, None]) + result.coef
    assert np.abs(g).max() < 1e-7
    for rows in (X, sparse.csr_matrix(X)):
        made = Problem(MemorySource(rows, y, offset=o), loss=loss)
        found = sgd(made, 1.0, average=False, variance_reduction="svrg", tol=1e-5, epochs=99, random_state=0)
        assert found.converged
        np.testing.assert_allclose(found.coef, result.coef, atol=1e-3)


def test_a_warm_start_takes_fewer_passes_and_ends_at_the_same_place() -> None:
    X, y, loss = targets(Binomial)
    made = Problem(MemorySource(X, y), prior=np.full(4, 0.2), loss=loss)
    first = gradient_descent(made, 1.0, tol=1e-10)
    cold = gradient_descent(made, 1.1, tol=1e-10)
    warm = gradient_descent(made, 1.1, tol=1e-10, start=first)
    assert warm.trace.passes[-1] < cold.trace.passes[-1]
    np.testing.assert_allclose(warm.coef, cold.coef, atol=1e-9)
    again = gradient_descent(made, 1.0, tol=1e-6, start=(first.coef, first.intercept))
    np.testing.assert_allclose(again.coef, first.coef, rtol=1e-12)


def test_an_alpha_for_each_target() -> None:
    model, made = model_of("multi_target", "plain")
    alphas = np.array([0.1, 1.0, 10.0])
    result = gradient_descent(made, alphas, tol=1e-12)
    for t, alpha in enumerate(alphas):
        coef, _ = oracles.solve(replace(model, y=model.y[:, [t]]), float(alpha))
        np.testing.assert_allclose(result.coef[:, t], np.asarray(coef, dtype=float)[:, 0], rtol=1e-8)


def test_given_scales_are_those_a_standardising_penalty_refers_to() -> None:
    X, y, _ = targets(Gaussian)
    scales = np.array([1.0, 2.0, 3.0, 0.5])
    result = gradient_descent(
        Problem(MemorySource(X, y), as_penalty(None, standardize=True)), 3.0, scales=scales, tol=1e-12
    )
    Z = X - X.mean(axis=0)
    exact = np.linalg.solve(Z.T @ Z + 3.0 * np.diag(scales**2), Z.T @ y)
    np.testing.assert_allclose(result.coef[:, 0], exact, rtol=1e-9)


def test_plain_descent_never_rises() -> None:
    X, y, loss = targets(Poisson)
    made = Problem(MemorySource(X, y), loss=loss)
    far = np.full((4, 1), 2.0), np.array([1.0])
    trace = gradient_descent(made, 1.0, method="plain", start=far, tol=1e-9, max_passes=5000).trace
    assert np.all(np.diff(trace.objective) <= 1e-12 * trace.objective[:-1])
    assert trace.gradient[-1] <= 1e-9
    assert np.all(np.diff(trace.passes) > 0)


def test_the_callback_sees_the_trace_and_can_stop() -> None:
    X, y, loss = targets(Gaussian)
    seen: list[Any] = []

    def callback(*entry: Any) -> bool:
        seen.append(entry)
        return len(seen) == 3

    result = gradient_descent(
        Problem(MemorySource(X, y), loss=loss), 1.0, method="plain", tol=1e-12, callback=callback
    )
    assert not result.converged
    assert [entry[0] for entry in seen] == result.trace.passes.tolist()
    assert len(seen) == 4  # the third, and the measurement at the end


def test_running_out_of_passes_is_told() -> None:
    X, y, loss = targets(Binomial)
    for method in METHODS:
        result = gradient_descent(
            Problem(MemorySource(X, y), loss=loss), 1.0, method=method, tol=1e-12, max_passes=8
        )
        assert not result.converged
        assert np.isfinite(distance(result).coef).all()


# --- the bound ------------------------------------------------------------------------------------------


def test_the_bound_is_infinite_where_nothing_holds_a_coefficient() -> None:
    X, y, loss = targets(Binomial)
    free = gradient_descent(Problem(MemorySource(X, y), loss=loss), 0.0, tol=1e-9)
    assert np.isinf(distance(free).coef).all()
    assert np.isinf(distance(free).objective).all()
    partly = Problem(MemorySource(X, y), as_penalty([0.0, 1, 1, 1], standardize=False), loss=loss)
    assert np.isinf(distance(gradient_descent(partly, 1.0)).coef).all()


@pytest.mark.parametrize("loss", [SquaredHinge(), Binomial()])
def test_where_no_finite_intercept_is_best_the_coefficients_are_still_bounded(loss: Any) -> None:
    """One class only: the intercept takes the loss to 0, and the penalty the coefficients."""
    made = Problem(MemorySource(np.array([[-1.0], [0.5], [2.0]]), np.ones(3)), loss=loss)
    result = gradient_descent(made, 1.0, start=(np.ones((1, 1)), np.zeros(1)))
    assert np.abs(result.coef[0, 0]) <= distance(result).coef[0] <= 1e-6


@pytest.mark.parametrize("kappa", [1e0, 1e4, 1e8])
def test_the_bound_holds_far_from_the_optimum_however_ill_conditioned(kappa: float) -> None:
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.normal(size=(60, 5)))
    X = U * np.geomspace(1, 1 / np.sqrt(kappa), 5) * 10
    y = rng.normal(size=60)
    model = oracles.Model(X, y[:, None])
    coef, _ = oracles.solve(model, 1e-3)
    for start in (np.zeros((5, 1)), rng.normal(size=(5, 1)) * 100):
        for passes in (3, 6, 12):
            result = gradient_descent(
                Problem(MemorySource(X, y)), 1e-3, max_passes=passes, start=(start, np.zeros(1)), tol=1e-14
            )
            assert p_norm(result, np.asarray(coef, dtype=float))[0] <= distance(result).coef[0] * (1 + 1e-9)


# --- stochastic gradients -------------------------------------------------------------------------------


@every_loss
def test_reduced_variance_reaches_the_optimum(loss_type: Any) -> None:
    X, y, loss = targets(loss_type)
    d = np.array([1.0, 0.5, 2.0, 1.0])
    prior = np.array([0.1, 0.0, -0.2, 0.3])
    made = Problem(MemorySource(X, y), as_penalty(d, standardize=False), prior, loss=loss)
    exact = gradient_descent(made, 2.0, tol=1e-11)
    for batch in (1, 16) if loss.name == "gaussian" else (16,):
        found = sgd(
            made, 2.0, batch_size=batch, epochs=400, average=False, variance_reduction="svrg", random_state=0
        )
        assert found.converged
        np.testing.assert_allclose(
            found.coef, exact.coef, atol=1.001 * (distance(found).coef.max() / np.sqrt(0.5)) + 1e-9
        )
        assert distance(found).coef.max() < 1e-4


def test_weights_prior_multipliers_and_standardisation_give_the_closed_form() -> None:
    model, made = model_of("tall", "everything")
    coef, intercept = oracles.solve(model, 2.0)
    found = sgd(
        made,
        2.0,
        batch_size=4,
        epochs=1000,
        average=False,
        variance_reduction="svrg",
        tol=1e-10,
        random_state=1,
    )
    assert found.converged
    np.testing.assert_allclose(found.coef, np.asarray(coef, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(found.intercept, np.asarray(intercept, dtype=float), rtol=1e-6)


def test_the_bound_holds_for_noisy_iterates() -> None:
    model, made = model_of("tall", "plain")
    coef, _ = oracles.solve(model, 1.0)
    for seed in range(5):
        for average in (False, 1):
            found = sgd(made, 1.0, batch_size=4, epochs=4, average=average, random_state=seed)
            error = p_norm(found, np.asarray(coef, dtype=float))[0]
            assert 0 < error <= distance(found).coef[0]


def test_averages_are_closer_than_the_last_iterate() -> None:
    X, y, _ = targets(Gaussian, n=2000, p=8)
    made = Problem(MemorySource(X, y))
    exact = gradient_descent(made, 1.0, tol=1e-12).coef
    errors = np.array(
        [
            [
                np.linalg.norm(
                    sgd(
                        made,
                        1.0,
                        batch_size=8,
                        epochs=5,
                        schedule="constant",
                        average=average,
                        random_state=s,
                    ).coef
                    - exact
                )
                for average in (False, 1)
            ]
            for s in range(3)
        ]
    )
    assert np.all(errors[:, 1] < errors[:, 0] / 2)


@pytest.mark.parametrize("reduction", ["none", "svrg"])
@pytest.mark.parametrize("multipliers", [None, [1.0, 0.0, 3.0, 100.0, 0.01, 1.0]])
def test_lazy_steps_are_the_dense_ones(multipliers: Any, reduction: str) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(80, 6)) * (rng.uniform(size=(80, 6)) < 0.3) * 10.0 ** np.arange(-1, 5)
    y = np.stack([X @ (1 / 10.0 ** np.arange(-1, 5)), rng.normal(size=80)], axis=1)
    options: dict[str, Any] = {
        "batch_size": 5,
        "epochs": 3,
        "average": False if reduction == "svrg" else 1,
        "variance_reduction": reduction,
        "random_state": 4,
    }
    prior = np.full(6, 0.01)
    results = [
        sgd(Problem(MemorySource(rows, y), as_penalty(multipliers, standardize=False), prior), 3.0, **options)
        for rows in (X, sparse.csr_matrix(X))
    ]
    scale = X.std(axis=0)[:, None]
    np.testing.assert_allclose(results[1].coef * scale, results[0].coef * scale, rtol=0, atol=1e-11)
    np.testing.assert_allclose(results[1].trace.objective, results[0].trace.objective, rtol=1e-11)


def test_lazy_coefficients_survive_being_rescaled() -> None:
    """Decay by a factor of 1/2 for 200 steps passes the limit of 1e-9 many times."""
    rng = np.random.default_rng(0)
    X = sparse.random(50, 7, density=0.3, random_state=1, format="csr")
    problem = Problem(MemorySource(X, rng.normal(size=50)))
    rows = Rows(problem)
    spread = survey(rows)
    form = problem.form(spread.scale[:7])
    frame = few_decays(Frame.of(rows, spread, form, np.array([1e6]), True))
    start = rng.normal(size=(7, 1)), np.zeros(1)
    dense, lazy = (
        Eager(start[0].copy(), start[1].copy(), frame),
        Lazy(start[0].copy(), start[1].copy(), frame),
    )
    rate = lazy.rate.max()
    assert RESCALE > 0.5**200
    for k in range(200):
        part = X[[k % 50, (7 * k) % 50]]
        for iterate, batch in ((dense, part.toarray()), (lazy, part)):
            kept, eta = iterate.eta(batch)
            iterate.move(kept, eta - 1.0, 0.5 / rate, average=k >= 100)
    for one, other in zip(dense.now() + dense.averaged(), lazy.now() + lazy.averaged(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


def test_one_epoch_is_averaged_from_its_beginning() -> None:
    X, y, loss = targets(Binomial)
    made = Problem(MemorySource(X, y), loss=loss)
    short = sgd(made, 1.0, epochs=1, random_state=0)
    assert np.array_equal(short.coef, sgd(made, 1.0, epochs=1, average=0, random_state=0).coef)


def test_seeds_reproduce_and_differ() -> None:
    X, y, loss = targets(Binomial)
    made = Problem(MemorySource(X, y), loss=loss)
    one, same, other = (sgd(made, 1.0, epochs=3, random_state=s).coef for s in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    generator = np.random.default_rng(0)
    assert np.array_equal(sgd(made, 1.0, epochs=3, random_state=generator).coef, one)


def test_dtype_and_order_do_not_matter() -> None:
    X = np.random.default_rng(0).integers(-4, 5, size=(60, 3))
    y = X @ [1, -1, 2] + np.arange(60) % 3
    results = [
        sgd(Problem(MemorySource(rows, y)), 1.0, epochs=2, random_state=0).coef
        for rows in (X, X.astype(np.float32), np.asfortranarray(X, dtype=np.float64))
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-12)


def test_streamed_rows_reach_the_same_optimum() -> None:
    X, y, loss = targets(Poisson, n=200)
    memory = MemorySource(X, y)
    exact = gradient_descent(Problem(memory, loss=loss), 1.0, tol=1e-11)
    made = Problem(Stream(memory, 23), loss=loss)
    found = sgd(made, 1.0, average=False, variance_reduction="svrg", epochs=300, random_state=0)
    assert found.converged
    np.testing.assert_allclose(found.coef, exact.coef, atol=1e-5)
    again = sgd(made, 1.0, epochs=2, random_state=0)
    assert np.array_equal(again.coef, sgd(made, 1.0, epochs=2, random_state=0).coef)


@pytest.mark.parametrize("loss_type", [Poisson, Gamma, Tweedie, NegativeBinomial])
def test_an_epoch_that_diverges_is_begun_anew_with_a_smaller_step(loss_type: Any) -> None:
    """One row far out, whose curvature the model without features does not show."""
    X, y, loss = targets(loss_type)
    X[7] *= 12
    made = Problem(MemorySource(X, y), loss=loss)
    found = sgd(made, 1.0, epochs=3, random_state=0)
    assert found.trace.objective[-1] <= found.trace.objective[0]


def test_the_state_learns_from_blocks_as_they_come() -> None:
    X, y, loss = targets(Binomial, n=6000, seed=2)
    prior = np.array([0.5, 0, 0, 0])
    exact = gradient_descent(Problem(MemorySource(X, y), prior=prior, loss=loss), 5.0, tol=1e-10)
    states = []
    for rows in (X, sparse.csr_matrix(X)):
        state = SGDState(
            5.0, sum_weights=6000, n_features=4, loss=loss, prior=prior, average=3, random_state=0
        )
        assert np.array_equal(state.coef[:, 0], prior)
        for start in range(0, 6000, 500):
            part = slice(start, start + 500)
            state.update(Block(rows[part], y[part, None], None, start))
        states.append(state)
    np.testing.assert_allclose(states[1].coef, states[0].coef, atol=1e-10)
    np.testing.assert_allclose(states[1].intercept, states[0].intercept, atol=1e-10)
    # Rows seen once: a few standard errors of the estimate.
    eta = X @ exact.coef[:, 0] + exact.intercept
    h = np.exp(eta) / (1 + np.exp(eta)) ** 2
    error = np.sqrt(np.diag(np.linalg.inv((X * h[:, None]).T @ X)))
    assert np.all(np.abs(states[0].coef - exact.coef)[:, 0] < 3 * error)


def test_inputs_are_not_written_to() -> None:
    X, y, loss = targets(Binomial)
    for array in (X, y):
        array.flags.writeable = False
    made = Problem(MemorySource(X, y), loss=loss)
    start = gradient_descent(made, 1.0)
    start.coef.flags.writeable = False
    start.intercept.flags.writeable = False
    sgd(made, 1.0, epochs=2, start=start)


# --- as solvers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variation", "solver"),
    [
        ("plain", GradientSolver(tol=1e-12)),
        ("everything", GradientSolver(tol=1e-12)),
        ("weighted", SGDSolver(batch_size=8, tol=1e-9)),
    ],
)
def test_solvers_run_with_a_fixed_alpha_and_with_folds(variation: str, solver: Any) -> None:
    model, made = model_of("tall", variation)
    fits = {}
    for name, chosen in (("first-order", solver), ("spectral", SpectralSolver())):
        fixed = Run(made, None, np.array([2.0]), None, False, "sum", 1e-10, None).fit(chosen, "")
        rule = KFold(4, alphas=[0.5, 2.0, 8.0])
        folds = Run(made, rule, None, rule.plan(made.source), False, "sum", 1e-10, None).fit(chosen, "")
        fits[name] = fixed, folds
    (one, folds_one), (two, folds_two) = fits.values()
    scale = model.X.std(axis=0)[:, None]
    np.testing.assert_allclose(one.coef * scale, two.coef * scale, atol=1e-7)
    np.testing.assert_allclose(one.intercept, two.intercept, atol=1e-7)
    for name in ("df", "deviance", "null_deviance"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-8)
    np.testing.assert_allclose(folds_one.path.score, folds_two.path.score, rtol=1e-6)
    assert one.solver in ("gradient", "sgd")
    assert one.status == ()
    assert one.certificate.residual <= solver.tol
    truth = np.abs(one.coef - two.coef).max() / np.abs(two.coef).max()
    assert -np.log10(truth + 1e-16) >= one.certificate.digits - 1.5


def test_the_automatic_grid_is_that_of_the_spectrum() -> None:
    for variation in ("plain", "penalised", "tikhonov"):
        _, made = model_of("tall", variation)
        grids = []
        for solver in (GradientSolver(), SpectralSolver()):
            (statistic,) = solver.gather(made)
            state = solver.state(statistic, made.form(statistic.x_scale), True)
            grids.append(np.sort(state.spectrum()))
        np.testing.assert_allclose(grids[0], grids[1], rtol=1e-9)


def test_the_state_shows_its_results() -> None:
    X, y, loss = targets(Poisson)
    made = Problem(MemorySource(X, y), loss=loss)
    solver = GradientSolver("accelerated")
    (statistic,) = solver.gather(made)
    state = solver.state(statistic, made.form(statistic.x_scale), True)
    path = state.coef(np.array([0.1, 1.0]))
    alone = gradient_descent(made, 0.1, tol=1e-10)
    np.testing.assert_allclose(path[0], alone.coef, atol=1e-8)
    assert state.result(0.1).trace.gradient[-1] <= 1e-10
    with pytest.raises(InputError, match="kfold"):
        state.influence(made, np.ones(1))


# --- bad arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lbgfs"}, "Did you mean 'lbfgs'"),
        ({"tol": 0}, "tol must be a positive number"),
        ({"max_passes": 0}, "max_passes must be a whole number"),
        ({"start": (np.zeros(3), np.zeros(1))}, r"coef must be \(4, 1\)"),
        ({"start": 3}, "start must be an earlier result"),
        ({"start": (np.full((4, 1), np.nan), np.zeros(1))}, "start must be finite"),
        ({"scales": np.ones(3)}, "scales must be 4 finite numbers"),
        ({"alpha": -1.0}, "alpha must be finite and ≥ 0"),
        ({"alpha": "big"}, "alpha must be a number"),
        ({"alpha": [1.0, 2.0]}, "alpha has shape"),
        ({"loss": Gamma()}, "gamma needs y > 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    X, y, _ = targets(Binomial)
    options = {"alpha": 1.0, **options}
    with pytest.raises(InputError, match=message):
        gradient_descent(Problem(MemorySource(X, y)), options.pop("alpha"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "optimal"}, "Did you mean 'inverse'"),
        ({"schedule": "constnat"}, "Did you mean 'constant'"),
        ({"schedule": Schedule("constant", step=50.0), "average": False}, "must be below 1"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"average": 20}, "begins after the last"),
        ({"average": 1, "variance_reduction": "svrg"}, "average must be False"),
        ({"variance_reduction": "saga"}, "Choose from: none, svrg"),
        ({"random_state": "seed"}, "random_state must be"),
        ({"alpha": 0.0}, "falls at the rate of alpha"),
        ({"tol": -1}, "tol must be a positive number"),
    ],
)
def test_bad_arguments_of_sgd_are_refused(options: dict[str, Any], message: str) -> None:
    X, y, _ = targets(Binomial)
    options = {"alpha": 100.0, **options}
    with pytest.raises(InputError, match=message):
        sgd(Problem(MemorySource(X, y)), options.pop("alpha"), **options)


def test_what_cannot_be_decayed_or_read_is_refused() -> None:
    _, tikhonov = model_of("tall", "tikhonov")
    with pytest.raises(InputError, match="Use gradient_descent for a penalty matrix"):
        sgd(tikhonov, 1.0)
    X, y, loss = targets(Multinomial)
    with pytest.raises(InputError, match="alpha must be one number"):
        gradient_descent(Problem(MemorySource(X, y), loss=loss), [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="NaN or infinity"):
        gradient_descent(Problem(MemorySource(np.array([[1.0], [np.nan]]), [1.0, 2.0])), 1.0)
    wild = Problem(MemorySource(X * 50, y[:, 0]))
    with pytest.raises(InputError, match="diverged with a first step of 10"):
        sgd(wild, 0.01, schedule=Schedule("constant", step=10.0), average=False, batch_size=1, random_state=0)
    state = SGDState(1.0, sum_weights=10, n_features=2)
    with pytest.raises(InputError, match=r"they must be \(m, 2\)"):
        state.update(Block(np.ones((3, 3)), np.ones((3, 1)), None, 0))
    state.update(Block(np.arange(6.0).reshape(3, 2), np.ones((3, 1)), None, 0))
    with pytest.raises(InputError, match="both dense or both sparse"):
        state.update(Block(sparse.csr_matrix(np.ones((3, 2))), np.ones((3, 1)), None, 3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sum_weights must be a finite number > 0"):
        SGDState(1.0, sum_weights=0, n_features=2)
    with pytest.raises(InputError, match="step must be a finite number > 0"):
        Schedule(step=0.0)
