"""Digits that are claimed are there: random problems of every kind and solver, solved again in mpmath.

Condition numbers from 1 to 1e14, columns from 1e-8 to 1e8, weights, n ≤ p and n > p. Coefficients below 1e-9
of the largest effect are left out, as the certificate leaves out those below 1e-10.
"""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import numpy.typing as npt
import pytest

from elltwo import KernelRidge
from elltwo.data.memory import MemorySource
from elltwo.elasticnet import fit_elastic_net
from elltwo.engine import fit_source, make_problem
from elltwo.errors import Status
from elltwo.kernels import RBF
from elltwo.results import Fit
from elltwo.run import Run
from elltwo.solvers.gradient import GradientSolver
from elltwo.solvers.nystrom import NystromMap, solve_nystrom
from elltwo.solvers.sgd import SGDSolver

Array = npt.NDArray[Any]

FAMILIES = ("binomial", "poisson", "gamma")
#: Beyond a digit less than claimed, a certificate is wrong; beyond these more, on easy data, it is of no use.
OPTIMISTIC, PESSIMISTIC = 1.0, 4.0


def derivatives(family: str, y: Any, eta: Any) -> tuple[Any, Any]:
    """Return dℓ/dη and d²ℓ/dη² of half the unit deviance."""
    if family == "gaussian":
        return eta - y, mp.mpf(1)
    if family == "gamma":
        ratio = y * mp.exp(-eta)
        return 1 - ratio, ratio
    mu = mp.exp(eta) if family == "poisson" else 1 / (1 + mp.exp(-eta))
    return mu - y, mu if family == "poisson" else mu * (1 - mu)


def exact(
    family: str, X: Array, y: Array, w: Array, pull: tuple[Array, Array], start: Array
) -> list[Any] | None:
    """Minimise Σ w·½dev + Σ l₁θ + ½Σ l₂θ² from (θ, b) in 60 digits, `pull` = (l₁, l₂); None: not found."""
    k = X.shape[1] + 1
    A = [[mp.mpf(float(v)) for v in (*row, 1.0)] for row in X]
    l1, l2 = ([mp.mpf(v) for v in (*part, 0)] for part in pull)
    x = [mp.mpf(float(v)) for v in start]
    for _ in range(40):
        g = [l1[a] + l2[a] * x[a] for a in range(k)]
        H = mp.diag(l2)
        for row, target, weight in zip(A, y, w, strict=True):
            one, two = derivatives(family, mp.mpf(float(target)), mp.fdot(row, x))
            one, two = weight * one, weight * two
            for a in range(k):
                g[a] += one * row[a]
                along = two * row[a]
                for c in range(a + 1):
                    H[a, c] += along * row[c]
        for a in range(k):
            for c in range(a):
                H[c, a] = H[a, c]
        step = mp.lu_solve(H, mp.matrix(g))
        most = max(abs(mp.fdot(row, list(step))) for row in A)
        share = 1 if most < 2 else 2 / most
        x = [a - share * d for a, d in zip(x, step, strict=True)]
        if share == 1 and all(abs(d) <= abs(a) * mp.mpf(10) ** -22 for a, d in zip(x, step, strict=True)):
            return x
    return None


def draw(seed: int, family: str, wide: bool) -> tuple[Array, Array, Array | None, float, bool]:
    """Return X, y, weights, alpha and whether to standardise."""
    rng = np.random.default_rng(seed)
    n, p = (int(rng.integers(5, 8)), int(rng.integers(7, 10))) if wide else (14, int(rng.integers(2, 5)))
    rank = min(n, p)
    U, V = (np.linalg.qr(rng.normal(size=(m, rank)))[0] for m in (n, p))
    hard = rng.random() < 0.7
    X = (U * np.geomspace(1, 10.0 ** -rng.uniform(1, 14 if hard else 2), rank)) @ V.T * np.sqrt(n)
    eta = X @ rng.normal(size=p)
    eta = eta / eta.std() * rng.choice([0.5, 1.0]) + 0.3 * rng.normal()
    size = 10.0 ** rng.uniform(-8, 8, size=p) if rng.random() < 0.5 else np.ones(p)
    X = (X + rng.choice([0.0, 0.0, 1.0]) * rng.normal(size=p)) * size
    w = None if rng.random() < 0.5 else 10.0 ** rng.uniform(-2, 2, size=n)
    y = {
        "binomial": (np.arange(n) % 2 == (rng.random(n) < 0.3)).astype(float),
        "poisson": rng.poisson(np.exp(eta)) + (np.arange(n) == 0.0),
        "gamma": np.exp(eta) * rng.gamma(2, size=n),
        "gaussian": eta + rng.normal(size=n),
    }[family].astype(float)
    standardize = bool(rng.random() < 0.5)
    unit = 1.0 if standardize else float(np.median(X.std(axis=0) ** 2))
    alpha = 10.0 ** rng.uniform(-8, 1) * unit * (1.0 if w is None else float(w.mean()))
    return X, y, w, alpha, standardize


def correct(fit: Fit, X: Array, truth: list[Any]) -> float:
    """Return the correct digits of the worst coefficient that counts."""
    theta, b = fit.coef[:, 0], float(fit.intercept[0])
    effect = np.array([abs(float(t)) for t in truth[:-1]]) * np.sqrt(np.mean(X**2, axis=0))
    pairs = [(theta[j], truth[j]) for j in np.flatnonzero(effect > 1e-9 * effect.max())]
    if abs(float(truth[-1])) > 1e-9 * effect.sum():
        pairs.append((b, truth[-1]))
    worst = max(abs(mp.mpf(float(found)) - right) / abs(right) for found, right in pairs)
    return float(-mp.log10(max(worst, mp.mpf(10) ** -17)))


def fitted(solver: str, source: MemorySource, alpha: float, family: str, standardize: bool) -> Fit:
    """Fit by a solver."""
    if solver not in ("gradient", "sgd"):
        return fit_source(source, alpha, loss=family, standardize=standardize, solver=solver)
    problem = make_problem(
        source, fit_intercept=True, standardize=standardize, penalty=None, prior=None, loss=family
    )
    own = GradientSolver(max_passes=300) if solver == "gradient" else SGDSolver(epochs=50)
    return Run(problem, None, np.array([alpha]), None, False, "sum", 1e-10, None).fit(own, "")


CASES = [
    *(("newton", seed) for seed in range(12)),
    *(("newton-dual", seed) for seed in range(8)),
    *(("newton-cg", seed) for seed in range(6)),
    *(("gradient", seed) for seed in range(6)),
    *(("sgd", seed) for seed in range(2)),
]


@pytest.mark.parametrize("solver", ["newton", "newton-dual", "newton-cg", "gradient", "sgd"])
def test_no_more_digits_of_a_glm_are_claimed_than_there_are(solver: str) -> None:
    gaps = []
    for name, seed in CASES:
        family = FAMILIES[seed % 3]
        if name != solver:
            continue
        X, y, w, alpha, standardize = draw(100 * len(solver) + seed, family, solver == "newton-dual")
        fit = fitted(solver, MemorySource(X, y, w), alpha, family, standardize)
        weights = np.ones(len(y)) if w is None else w
        mean = weights @ X / weights.sum()
        d = weights @ (X - mean) ** 2 / weights.sum() if standardize else np.ones(len(mean))
        with mp.workdps(60):
            truth = exact(
                family, X, y, weights, (0 * d, alpha * d), np.append(fit.coef[:, 0], fit.intercept[0])
            )
            if truth is None:
                assert fit.certificate.digits < 6, (seed, "not even near the optimum")
                continue
            right = correct(fit, X, truth)
        gaps.append(fit.certificate.digits - right)
        assert gaps[-1] <= OPTIMISTIC, (seed, family, fit.certificate, right)
    assert np.median(gaps) > -PESSIMISTIC


@pytest.mark.parametrize("family", ["gaussian", *FAMILIES])
def test_no_more_digits_of_an_l1_model_are_claimed_than_there_are(family: str) -> None:
    """The optimum of the active set with its signs held, in 60 digits."""
    gaps = []
    for seed in range(8):
        X, y, w, _, _ = draw(3000 + seed, family, seed % 3 == 2)
        if seed % 2:
            X[:, 1] = X[:, 0] * (1 + 10.0 ** -(seed + 1) * np.random.default_rng(seed).normal(size=len(X)))
        weights = np.ones(len(y)) if w is None else w
        ratio = [1.0, 0.9, 0.5][seed % 3]
        Z = X - weights @ X / weights.sum()
        alpha = float(np.abs(Z.T @ (weights * (y - weights @ y / weights.sum()))).max()) * 10.0 ** -(
            0.3 + 0.3 * seed
        )
        fit, _ = fit_elastic_net(MemorySource(X, y, w), alpha, l1_ratio=ratio, loss=family)
        theta = fit.coef[:, 0]
        active = np.flatnonzero(theta)
        with mp.workdps(60):
            l1 = [mp.mpf(alpha) * mp.mpf(ratio) * int(np.sign(t)) for t in theta[active]]
            l2 = [mp.mpf(alpha) * (1 - mp.mpf(ratio))] * len(active)
            found = exact(
                family, X[:, active], y, weights, (l1, l2), np.append(theta[active], fit.intercept[0])
            )
            if found is None or any(
                mp.sign(f) != np.sign(t) for f, t in zip(found[:-1], theta[active], strict=True)
            ):
                continue
            truth = [mp.mpf(0)] * len(theta) + [found[-1]]
            for j, value in zip(active, found[:-1], strict=True):
                truth[j] = value
            right = correct(fit, X, truth)
        gaps.append(fit.certificate.digits - right)
        assert gaps[-1] <= OPTIMISTIC, (seed, family, fit.certificate, right)
    assert len(gaps) >= 5
    assert np.median(gaps) > -PESSIMISTIC


@pytest.mark.parametrize(
    ("solver", "alpha"), [("exact", 1e-3), ("exact", 1e-9), ("cholesky", 1e-6), ("cg", 1.0)]
)
def test_residual_and_digits_of_kernel_ridge_are_those_of_sixty_digits(solver: str, alpha: float) -> None:
    """‖y − b − Ka − αa‖ of the returned numbers, exactly, and ‖δa‖/‖a‖, for K as float64 holds it."""
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    fit = KernelRidge(alpha, kernel=RBF(0.3), solver=solver).fit(X, y).fit_
    certificate, n = fit.certificate, len(y)
    K = RBF(0.3)(X, X)
    a = np.zeros(n)
    a[fit.support] = fit.coef[:, 0]
    with mp.workdps(60):
        M = mp.matrix(n + 1, n + 1)
        for i in range(n):
            M[n, i] = M[i, n] = 1
            for j in range(n):
                M[i, j] = mp.mpf(float(K[i, j])) + (mp.mpf(alpha) if i == j else 0)
        mine = mp.matrix([*map(float, a), float(fit.intercept[0])])
        right = mp.matrix([*map(float, y), 0.0])
        left = (right - M * mine)[:n]
        residual = float(mp.norm(mp.matrix(left)) / np.linalg.norm(y - y.mean()))
        truth = mp.lu_solve(M, right)
        error = float(mp.norm((truth - mine)[:n]) / mp.norm(truth[:n]))
    assert residual / 10 - 1e-17 <= certificate.residual <= 10 * residual + 1e-17
    assert certificate.digits <= -np.log10(max(error, 1e-17)) + OPTIMISTIC


def test_nystrom_takes_the_offset_off_and_claims_no_more_digits_than_there_are() -> None:
    """The normal equations of the features, (FᵀWF + αI)β = FᵀW(y − o) about the means, in 60 digits."""
    rng = np.random.default_rng(2)
    X, y, offset = rng.normal(size=(60, 2)), rng.normal(size=60), rng.normal(size=60)
    w, m = rng.uniform(0.5, 2.0, size=60), 8
    found_map = NystromMap.of(RBF(1.0), X[:m])
    F = found_map(X)
    for alpha in (1e-7, 1e-3, 1.0):
        found = solve_nystrom(
            MemorySource(X, y, w, offset=offset), found_map, np.array([alpha]), centre=True, tol=1e-9
        )
        plain = solve_nystrom(
            MemorySource(X, y - offset, w), found_map, np.array([alpha]), centre=True, tol=1e-9
        )
        np.testing.assert_allclose(found.coef, plain.coef, rtol=0, atol=1e-6 * np.abs(plain.coef).max())
        np.testing.assert_allclose(found.rss, plain.rss, rtol=1e-9)
        with mp.workdps(60):
            A = mp.matrix(F.tolist())
            weights, target = (
                [mp.mpf(v) for v in w],
                [mp.mpf(a) - mp.mpf(b) for a, b in zip(y, offset, strict=True)],
            )
            total = mp.fsum(weights)
            for j in range(A.cols):
                mean = mp.fdot(weights, A[:, j]) / total
                for i in range(A.rows):
                    A[i, j] -= mean
            left = mp.matrix(A.cols, A.cols)
            right = mp.matrix(A.cols, 1)
            for j in range(A.cols):
                own = [v * a for v, a in zip(weights, A[:, j], strict=True)]
                right[j] = mp.fdot(own, target)
                for k in range(A.cols):
                    left[j, k] = mp.fdot(own, A[:, k]) + (mp.mpf(alpha) if j == k else 0)
            truth = mp.lu_solve(left, right)
            error = float(mp.norm(truth - mp.matrix(found.coef[:, 0].tolist())) / mp.norm(truth))
        assert found.certificate.digits <= -np.log10(error) + OPTIMISTIC
        assert found.certificate.digits > -np.log10(error) - 2 * PESSIMISTIC


def test_easy_data_keep_their_digits() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 5))
    y = rng.poisson(np.exp(0.4 * X[:, 0])).astype(float)
    for solver, least in (("newton", 13), ("newton-dual", 13), ("newton-cg", 9), ("gradient", 8)):
        fit = fitted(solver, MemorySource(X, y), 1.0, "poisson", True)
        assert fit.certificate.digits > least, solver
        assert not {Status.LOST_DIGITS, Status.NOT_CONVERGED} & set(fit.status)
