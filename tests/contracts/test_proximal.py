"""The elastic net of every loss: optimality, duality gaps, and agreement with brute force and with peers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import LogisticRegression as PeerLogistic

from elltwo.conventions import convert
from elltwo.data.memory import MemorySource
from elltwo.errors import InputError, Status
from elltwo.losses import Binomial, Tweedie, as_loss
from elltwo.losses.base import FromDerivatives, IdentityLink
from elltwo.penalties import Diagonal, Identity, Matrix
from elltwo.problem import Problem
from elltwo.solvers import coordinate, proximal
from elltwo.solvers.base import models
from elltwo.solvers.coordinate import CoordinateSolver, kkt_residual
from elltwo.solvers.duality import conjugate_excess, feasible_slopes, loss_gap
from elltwo.solvers.loss_rows import LossRows
from elltwo.solvers.proximal_state import ProximalSolver, ProximalState
from shapes import dealt, weights_kind

Array = npt.NDArray[Any]

NAMES = (
    "binomial",
    "poisson",
    "gamma",
    "tweedie",
    "negative-binomial",
    "huber",
    "squared-epsilon-insensitive",
    "squared-hinge",
)
every_loss = pytest.mark.parametrize("name", NAMES)


def draw(name: str, eta: Array, rng: np.random.Generator) -> Array:
    """Targets with this linear predictor."""
    n = len(eta)
    if name == "binomial":
        return (eta + rng.logistic(size=n) > 0).astype(np.float64)
    if name in ("poisson", "negative-binomial"):
        return rng.poisson(np.exp(eta)).astype(np.float64)
    if name in ("gamma", "tweedie"):
        kept = rng.random(n) < 0.8 if name == "tweedie" else 1.0
        return np.exp(eta) * rng.gamma(2.0, 0.5, size=n) * kept
    if name == "squared-hinge":
        return np.sign(eta + rng.logistic(size=n))
    return eta + rng.normal(size=n)


def state_of(
    X: Any,
    y: Array,
    name: Any,
    *,
    w: Array | None = None,
    d: Array | None = None,
    offset: Array | None = None,
    l1_ratio: float = 1.0,
    centre: bool = True,
    **options: Any,
) -> ProximalState:
    loss = as_loss(name) if isinstance(name, str) else name
    penalty: Any = Identity() if d is None else Diagonal.of(d)
    problem = Problem(
        MemorySource(X, y, w, weights_are=weights_kind(w), offset=offset), penalty, None, centre, loss
    )
    solver = ProximalSolver(l1_ratio, **options)
    (rows,) = solver.gather(problem)
    return solver.state(rows, problem.form(rows.x_scale), centre)


def objective(state: ProximalState, theta: Array, b: float, alpha: float) -> float:
    rows, d, ratio = state.statistic, state.form.d, state.l1_ratio
    X = rows.X.toarray() if rows.sparse else rows.X
    eta = X @ theta + b + (0.0 if rows.offset is None else rows.offset[:, 0])
    value = rows.w @ rows.problem.loss.value(rows.y[:, 0], eta)
    penalty = ratio * np.sqrt(d) @ np.abs(theta) + (1 - ratio) / 2 * d @ theta**2
    return float(value + alpha * penalty)


def violation(state: ProximalState, alpha: float) -> float:
    """Largest violation of a condition, from its definition, as a share of ‖√w·x̃_j‖·‖√w·ℓ′(null)‖."""
    rows, loss, d = state.statistic, state.statistic.problem.loss, state.form.d
    X = (rows.X.toarray() if rows.sparse else rows.X) + rows.origin
    y, w = rows.y[:, 0], rows.w
    offset = np.zeros(len(y)) if rows.offset is None else rows.offset[:, 0]
    theta, b = (part[0, ..., 0] for part in state.solved(np.array([alpha])))
    slope = w * loss.gradient(y, X @ theta + b + offset)
    centre = w @ X / w.sum() if state.centre else 0.0
    Z = X - centre
    null = minimize_scalar(lambda b: w @ loss.value(y, b + offset), tol=1e-14).x if state.centre else 0.0
    size = np.sqrt(w @ Z**2) * np.sqrt(w @ loss.gradient(y, null + offset) ** 2)
    each = kkt_residual(-(Z.T @ slope)[:, None], theta[:, None], d, np.array([alpha]), state.l1_ratio)[:, 0]
    own = abs(slope.sum()) / np.sqrt(w.sum() * (w @ loss.gradient(y, null + offset) ** 2))
    return max(float((np.abs(each) / size).max()), float(own) if state.centre else 0.0)


@pytest.mark.parametrize(
    ("name", "shape", "terms"),
    dealt(NAMES, [(80, 6, "dense"), (40, 60, "sparse")], [(1.0, True), (0.4, False)]),
)
def test_every_model_of_a_path_is_optimal(
    name: str, shape: tuple[int, int, str], terms: tuple[float, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinate, "GRID", 34)
    (n, p, kind), (l1_ratio, centre) = shape, terms
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.5)
    y, w = draw(name, X[:, 0] - 0.7 * X[:, 2], rng), rng.uniform(0.5, 2.0, size=n)
    d = rng.uniform(0.5, 2.0, size=p)
    d[1] = 0.0
    data = X if kind == "dense" else sparse.csr_matrix(X)
    offset = 0.3 * rng.normal(size=n)
    state = state_of(data, y, name, w=w, d=d, offset=offset, l1_ratio=l1_ratio, centre=centre)
    grid = state.grid()
    assert len(grid) == 34
    theta, _ = state.solved(grid)
    assert state.converged(grid).all()
    assert not np.delete(theta[-1, :, 0], 1).any()  # at α_max
    assert np.delete(theta[-2, :, 0], 1).any()
    for alpha in grid[::11]:
        assert violation(state, float(alpha)) <= 2e-8
    assert np.nanmax(state.gap(grid[::11])) <= 1e-6
    outcome = state.outcome(grid[[13]], 1e-10)
    assert outcome.notes == ()
    assert outcome.certificate.residual <= 1e-10
    assert outcome.certificate.gap is not None
    assert outcome.certificate.gap <= 1e-8
    assert violation(state, float(grid[13])) <= 2e-10


def brute_force(state: ProximalState, alpha: float) -> float:
    """Least objective, by L-BFGS-B on θ = u − v with u, v ≥ 0, several times over."""
    rows, loss, ratio = state.statistic, state.statistic.problem.loss, state.l1_ratio
    X, y, w, root = rows.X, rows.y[:, 0], rows.w, np.sqrt(state.form.d)
    offset = np.zeros(len(y)) if rows.offset is None else rows.offset[:, 0]
    p = X.shape[1]

    def both(x: Array) -> tuple[float, Array]:
        theta = x[:p] - x[p : 2 * p]
        eta = X @ theta + x[-1] + offset
        g = X.T @ (w * loss.gradient(y, eta)) + alpha * (1 - ratio) * state.form.d * theta
        value = w @ loss.value(y, eta) + alpha * (1 - ratio) / 2 * state.form.d @ theta**2
        lasso = alpha * ratio * root
        slope = w @ loss.gradient(y, eta)
        return value + lasso @ (x[:p] + x[p : 2 * p]), np.concatenate([g + lasso, -g + lasso, [slope]])

    x = np.zeros(2 * p + 1)
    bounds = [(0, None)] * (2 * p) + [(None, None)]
    options = {"maxiter": 3000, "maxfun": 10_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 40}
    for _ in range(2):
        x = minimize(both, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return float(both(x)[0])


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@every_loss
def test_the_objective_is_as_low_as_brute_force_gets_it(name: str, l1_ratio: float) -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 5)) @ (np.eye(5) + 0.8)
    y, w = draw(name, 0.4 * X[:, 0], rng), rng.uniform(0.2, 3.0, size=60)
    d = np.array([1.0, 0.0, 2.0, 0.5, 1.0])
    state = state_of(X, y, name, w=w, d=d, offset=0.2 * rng.normal(size=60), l1_ratio=l1_ratio)
    for share in (0.4, 0.02):
        alpha = share * state.largest_alpha
        outcome = state.outcome(np.array([alpha]), 1e-12)
        ours = objective(state, outcome.coef[:, 0], float(outcome.intercept[0]), alpha)
        assert abs(ours - brute_force(state, alpha)) <= 1e-8 * abs(ours)


@pytest.mark.parametrize("solver", ["liblinear", "saga"])
def test_logistic_is_scikit_learns(solver: str) -> None:
    """liblinear penalises the intercept, so it is compared without one; saga does not."""
    rng = np.random.default_rng(9)
    X = rng.normal(size=(120, 7))
    y = (X[:, 0] - X[:, 1] + rng.logistic(size=120) > 0).astype(np.float64)
    alpha, centre, l1_ratio = 4.0, solver == "saga", 0.5 if solver == "saga" else 1.0
    C = convert(alpha, from_="sum", to="C", loss="logistic")
    peer = PeerLogistic(
        C=C, l1_ratio=l1_ratio, fit_intercept=centre, solver=solver, tol=1e-12, max_iter=10**5, random_state=0
    ).fit(X, y)
    state = state_of(X, y, "binomial", l1_ratio=l1_ratio, centre=centre)
    outcome = state.outcome(np.array([alpha]), 1e-12)
    assert np.abs(outcome.coef[:, 0] - peer.coef_[0]).max() <= 1e-6
    assert abs(outcome.intercept[0] - (peer.intercept_[0] if centre else 0.0)) <= 1e-6


def test_gaussian_loss_is_the_coordinate_solver() -> None:
    rng = np.random.default_rng(8)
    X, w = rng.normal(size=(40, 8)) + 3, rng.uniform(0.5, 2.0, size=40)
    y = X[:, 0] + rng.normal(size=40)
    state = state_of(X, y, "gaussian", w=w, l1_ratio=0.7)
    solver = CoordinateSolver(0.7)
    problem = state.statistic.problem
    (moments,) = solver.gather(problem)
    other = solver.state(moments, state.form, True)
    alphas = other.grid()
    assert state.largest_alpha == pytest.approx(other.largest_alpha, rel=1e-12)
    for found, expected in zip(models(state, alphas, True), models(other, alphas, True), strict=True):
        assert np.abs(found - expected).max() <= 1e-9
    assert np.abs(state.df(alphas) - other.df(alphas)).max() <= 1e-8


def test_weights_are_repetitions_and_zero_weights_are_absent_rows() -> None:
    rng = np.random.default_rng(10)
    X, counts = rng.normal(size=(50, 5)), rng.integers(0, 4, size=50)
    y = draw("poisson", X[:, 0], rng)
    alphas = np.array([2.0, 8.0])
    weighted = state_of(X, y, "poisson", w=counts)
    repeated = state_of(X.repeat(counts, axis=0), y.repeat(counts), "poisson")
    for ours, theirs in zip(weighted.solved(alphas), repeated.solved(alphas), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-8
    assert np.abs(weighted.deviance(alphas) - repeated.deviance(alphas)).max() <= 1e-7
    assert weighted.statistic.observations == repeated.statistic.observations == counts.sum()


def test_duplicated_columns_share_and_the_gap_closes() -> None:
    rng = np.random.default_rng(11)
    X = rng.normal(size=(60, 4))
    y = draw("binomial", X[:, 0], rng)
    single = state_of(X, y, "binomial")
    double = state_of(np.hstack([X, X]), y, "binomial")
    for alpha in (5.0, 0.5, 0.01):
        a, b = (s.outcome(np.array([alpha]), 1e-10) for s in (single, double))
        assert b.certificate.gap is not None
        assert b.certificate.gap <= 1e-9
        assert np.abs(b.coef[:4] + b.coef[4:] - a.coef).max() <= 1e-6


def test_separable_classes_have_a_finite_path() -> None:
    rng = np.random.default_rng(12)
    X = rng.normal(size=(60, 3))
    y = (X[:, 0] > 0).astype(np.float64)
    state = state_of(X, y, "binomial")
    grid = state.grid()
    theta, _ = state.solved(grid)
    assert state.converged(grid).all()
    assert theta[0, 0, 0] > 20
    outcome = state.outcome(grid[[0]], 1e-10)
    assert outcome.notes == ()


@pytest.mark.parametrize("name", ["binomial", "poisson", "gamma"])
def test_badly_scaled_columns_give_the_scaled_solution(name: str) -> None:
    """With P = diag(s²) the model does not depend on the columns' units, nor on where their 0 is."""
    rng = np.random.default_rng(13)
    X = rng.normal(size=(150, 6))
    y = draw(name, X[:, 0], rng)
    units, shift = 10.0 ** np.array([-6, 4, 0, 6, -3, 0]), np.array([0, 0, 1e5, 1e3, 0, -1e4])
    plain = state_of(X, y, name, d=X.var(axis=0))
    moved = state_of((X + shift) * units, y, name, d=X.var(axis=0) * units**2)
    for alpha in plain.grid()[[10, 50, 80]]:
        a, b = (s.outcome(np.array([alpha]), 1e-10) for s in (plain, moved))
        assert np.abs(b.coef * units[:, None] - a.coef).max() <= 1e-6
        assert b.certificate.residual <= 1e-8
        assert b.intercept[0] + (b.coef * (shift * units)[:, None]).sum() == pytest.approx(
            a.intercept[0], abs=1e-5
        )


@pytest.mark.parametrize("name", ["binomial", "poisson"])
def test_one_column_and_constant_columns(name: str) -> None:
    rng = np.random.default_rng(14)
    x = rng.normal(size=(80, 1))
    y = draw(name, x[:, 0], rng)
    one = state_of(x, y, name)
    padded = state_of(np.hstack([np.full((80, 1), 3.0), x]), y, name)
    alphas = one.grid()[[0, 50, 99]]
    assert not padded.coef(alphas)[:, 0].any()
    assert np.abs(padded.coef(alphas)[:, 1] - one.coef(alphas)[:, 0]).max() <= 1e-7
    nothing = state_of(np.full((80, 1), 3.0), y, name)
    assert nothing.grid().tolist() == [1.0]
    assert not nothing.coef(np.array([1.0])).any()
    assert nothing.gap(np.array([1.0])).max() <= 1e-12


def test_many_features_are_screened(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(15)
    X = rng.normal(size=(60, 150))
    y = draw("binomial", X[:, 0] - X[:, 1], rng)
    whole = state_of(X, y, "binomial", l1_ratio=0.9)
    grid = whole.grid()[::9]
    expected = whole.coef(grid)
    monkeypatch.setattr(proximal, "FEW", 8)
    screened = state_of(X, y, "binomial", l1_ratio=0.9)
    assert np.abs(screened.coef(grid) - expected).max() <= 1e-6
    monkeypatch.setattr(proximal, "CHEAP", 0)
    kept = state_of(X, y, "binomial", l1_ratio=0.9)
    assert np.abs(kept.coef(grid) - expected).max() <= 1e-6


# Duality.


def supremum(loss: Any, y: Array, v: float) -> float:
    """Return ℓ*(v), by a search."""

    def below(z: float) -> float:
        return float(loss.value(y, np.array([z]))[0] - v * z)

    return -float(minimize_scalar(below, bounds=(-60, 60), method="bounded", options={"xatol": 1e-10}).fun)


@every_loss
def test_the_conjugates_are_those_of_the_losses(name: str) -> None:
    """ℓ + ℓ* − vη against the supremum that defines ℓ*, by a search over z."""
    rng = np.random.default_rng(16)
    loss = as_loss(name)
    eta = rng.normal(size=12)
    y = draw(name, rng.normal(size=12), rng)
    if name == "tweedie":
        y[0] = 0.0
    slope = loss.gradient(y, eta)
    for share in (1.0, 0.9, 0.3):
        v = share * slope
        excess = conjugate_excess(loss, y, eta, v)
        for i in range(len(y)):
            least = -supremum(loss, y[[i]], float(v[i]))
            direct = float(loss.value(y[[i]], eta[[i]])[0]) - least - v[i] * eta[i]
            assert excess[i] == pytest.approx(direct, abs=1e-7)
        if share == 1.0:
            assert np.abs(excess).max() <= 1e-12
    beyond = {"binomial": 2.0, "gamma": 2.0, "huber": 2.0, "negative-binomial": 2.0}
    if name in beyond:
        assert np.isinf(conjugate_excess(loss, y, eta, np.full(12, beyond[name]))).all()


@pytest.mark.parametrize("power", [1.0, 1.1, 1.5, 1.9, 2.0])
def test_tweedie_powers(power: float) -> None:
    loss, rng = Tweedie(power), np.random.default_rng(17)
    y, eta = rng.gamma(2.0, 1.0, size=40), rng.normal(size=40)
    slope = loss.gradient(y, eta)
    near = conjugate_excess(loss, y, eta, (1 - 1e-5) * slope)
    expected = 0.5 * (1e-5 * slope) ** 2 / loss.curvature(y, eta)  # its quadratic part
    assert near == pytest.approx(expected, rel=1e-2, abs=1e-13 * float(np.abs(loss.value(y, eta)).max()))


@pytest.mark.parametrize("l1_ratio", [1.0, 0.6, 0.01])
@every_loss
def test_the_gap_bounds_how_far_the_objective_is_from_its_minimum(name: str, l1_ratio: float) -> None:
    rng = np.random.default_rng(18)
    X = rng.normal(size=(70, 6)) + 1
    y, w = draw(name, X[:, 0] - 1, rng), rng.uniform(0.5, 2.0, size=70)
    d = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 1.0])
    state = state_of(X, y, name, w=w, d=d, l1_ratio=l1_ratio)
    alpha = 0.2 * state.largest_alpha
    best = state.outcome(np.array([alpha]), 1e-13)
    theta, b = best.coef[:, 0], float(best.intercept[0])
    least = objective(state, theta, b, alpha)
    loss, held, rows = state.statistic.problem.loss, d > 0, state.statistic
    l1, l2 = alpha * l1_ratio * np.sqrt(d[held]), alpha * (1 - l1_ratio) * d[held]
    fixed = np.column_stack([np.ones(70), X[:, 1]])
    gaps = []
    for size in (1.0, 1e-2, 1e-4, 1e-6):
        for _ in range(5):
            near = theta * (1 + size * rng.normal(size=6)) + size * 0.1 * rng.normal(size=6)
            own = b + size * rng.normal()
            eta = X @ near + own
            slope, curvature = loss.derivatives(rows.y[:, 0], eta)
            v = feasible_slopes(fixed, w, slope, curvature)
            assert v is not None
            assert np.abs(fixed.T @ (w * v)).max() <= 1e-9 * np.abs(w * v).sum() * 3
            gap = loss_gap(
                loss, rows.y[:, 0], eta, w, v, lambda v: -(X[:, held].T @ (w * v)), near[held], l1, l2
            )
            assert gap >= objective(state, near, own, alpha) - least - 1e-12 * abs(least)
        gaps.append(gap)
    assert gaps[-1] <= 1e-3 * float(rows.w @ loss.value(rows.y[:, 0], np.zeros(70)))
    assert state.gap(np.array([alpha])).max() <= 1e-9


class Pseudo(FromDerivatives, IdentityLink):
    """The square root of 1 + (y − η)², a loss that the package does not know."""

    name = "pseudo"

    def value(self, y: Array, eta: Array) -> Array:
        return np.sqrt(1 + (eta - y) ** 2) - 1

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        r = np.asarray(eta - y, dtype=np.float64)
        return r / np.sqrt(1 + r**2), (1 + r**2) ** -1.5


def test_a_loss_without_a_known_conjugate_has_the_residual_alone() -> None:
    rng = np.random.default_rng(19)
    X = rng.normal(size=(60, 4))
    state = state_of(X, X[:, 0] + rng.normal(size=60), Pseudo())
    alpha = 0.1 * state.largest_alpha
    outcome = state.outcome(np.array([alpha]), 1e-10)
    assert np.isnan(outcome.certificate.gap)
    assert outcome.certificate.residual <= 1e-10
    assert violation(state, alpha) <= 1e-9
    assert outcome.notes == ()


# What rules ask for.


def test_degrees_of_freedom_are_the_trace_over_the_active_set() -> None:
    rng = np.random.default_rng(20)
    X = rng.normal(size=(90, 7))
    y, d = draw("poisson", X[:, 0], rng), np.array([1.0, 0.0, 1.0, 2.0, 1.0, 1.0, 0.5])
    for l1_ratio in (1.0, 0.3):
        state = state_of(X, y, "poisson", d=d, l1_ratio=l1_ratio)
        alpha = 0.1 * state.largest_alpha
        theta, b = (part[0, ..., 0] for part in state.solved(np.array([alpha])))
        S = np.flatnonzero((theta != 0) | (d == 0))
        mu = np.exp(X @ theta + b)
        Z = X[:, S] - mu @ X[:, S] / mu.sum()
        G = Z.T @ (mu[:, None] * Z)
        H = G + alpha * (1 - l1_ratio) * np.diag(d[S])
        assert state.df(np.array([alpha]))[0] == pytest.approx(np.trace(np.linalg.solve(H, G)), rel=1e-9)
        rhs = rng.normal(size=(7, 1))
        expected = np.zeros(7)
        expected[S] = np.linalg.solve(H, rhs[S, 0])
        assert state.solve(rhs, np.array([alpha]))[:, 0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("name", "counts"), [("binomial", True), ("poisson", False)])
def test_leave_one_out_is_close_to_refits(name: str, counts: bool) -> None:
    rng = np.random.default_rng(21)
    X = rng.normal(size=(60, 5))
    y = draw(name, X[:, 0], rng)
    w: Array = rng.integers(1, 4, size=60) if counts else rng.uniform(0.5, 2.0, size=60)
    state = state_of(X, y, name, w=w, l1_ratio=0.8)
    alphas = np.array([0.05, 0.3]) * state.largest_alpha
    (part,) = state.influence(state.statistic.problem, alphas)
    theta, b = state.solved(alphas)
    moved, wrong = 0.0, 0.0
    for i in range(60):
        left = w.copy()
        left[i] = left[i] - 1 if counts else 0
        coef, own = state_of(X, y, name, w=left, l1_ratio=0.8).solved(alphas)
        exact = coef[:, :, 0] @ X[i] + own[:, 0]
        here = theta[:, :, 0] @ X[i] + b[:, 0]
        moved += float(np.abs(exact - here).sum())
        wrong += float(np.abs(exact - part.eta[i, :, 0]).sum())
    assert wrong <= 0.12 * moved


def test_atoms_merge_to_all_rows_and_share_them() -> None:
    rng = np.random.default_rng(22)
    X = rng.normal(size=(50, 4))
    y = draw("gamma", X[:, 0], rng)
    problem = Problem(MemorySource(X, y, offset=rng.normal(size=50)), loss=as_loss("gamma"))
    label = rng.integers(0, 3, size=50)
    atoms: list[LossRows] = ProximalSolver().gather(problem, lambda b: label[b.start : b.stop], 3)
    (whole,) = ProximalSolver().gather(problem)
    merged = atoms[0].merge(atoms[1]).merge(atoms[2])
    assert all(np.shares_memory(atom.X, X) for atom in atoms)
    assert np.array_equal(merged.w, whole.w)
    two = atoms[0].merge(atoms[1])
    inside = label < 2
    assert two.rows == inside.sum()
    assert two.x_mean == pytest.approx(X[inside].mean(axis=0), abs=1e-14)
    assert two.x_scale == pytest.approx(X[inside].std(axis=0), rel=1e-13)
    coef, b = rng.normal(size=(3, 4, 1)), rng.normal(size=(3, 1))
    offset = problem.source.given_offset  # type: ignore[attr-defined]
    for a in range(3):
        eta = X[inside] @ coef[a, :, 0] + b[a, 0] + offset[inside, 0]
        expected = 2 * problem.loss.value(y[inside], eta).sum()
        assert two.deviance(coef, b)[a, 0] == pytest.approx(expected, rel=1e-12)


def test_too_few_steps_are_told() -> None:
    rng = np.random.default_rng(23)
    X = rng.normal(size=(50, 4))
    y = draw("binomial", 3 * X[:, 0], rng)
    outcome = state_of(X, y, "binomial", max_rounds=1).outcome(np.array([0.01]), 1e-10)
    assert outcome.notes[0] is Status.NOT_CONVERGED


def test_what_cannot_be_used_is_refused() -> None:
    X, y = np.eye(4)[:, :3], np.array([0.0, 1.0, 1.0, 0.0])
    classes = Problem(MemorySource(X, np.eye(3)[[0, 1, 2, 0]]), loss=as_loss("multinomial"))
    with pytest.raises(InputError, match="each class against the rest"):
        ProximalSolver().gather(classes)
    with pytest.raises(InputError, match="shrinks towards 0"):
        ProximalSolver().gather(Problem(MemorySource(X, y), prior=np.ones(3), loss=Binomial()))
    with pytest.raises(InputError, match="l1_ratio"):
        ProximalSolver(0.0)
    with pytest.raises(InputError, match="above 0"):
        state_of(X, y, "binomial").coef(np.array([0.0]))
    problem = Problem(MemorySource(X, y), Matrix.of(np.eye(3) + 0.1), loss=Binomial())
    (rows,) = ProximalSolver().gather(problem)
    with pytest.raises(InputError, match="one multiplier per feature"):
        ProximalSolver().state(rows, problem.form(rows.x_scale), True)
