"""The block-tridiagonal form and the resolvent of kernel ridge, against dense algebra and refits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from elltwo import AIC, GCV, LOO, REML, InputError, KernelRidge, KFold, array
from elltwo.kernels import RBF, Linear, Matern, Polynomial
from elltwo.solvers import block_tridiagonal as form_module
from elltwo.solvers import resolvent as resolvent_module
from elltwo.solvers.block_tridiagonal import block_tridiagonal
from elltwo.solvers.resolvent import Resolvent
from shapes import weights_kind

Array = np.ndarray
UNIT = float(np.finfo(np.float64).eps) / 2
ALPHAS = np.array([1e-3, 0.1, 1.0, 30.0])


@pytest.fixture
def blocks(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, so that a few rows have several of everything, and block-tridiagonal for any size."""
    band, tile, together = request.param
    monkeypatch.setattr(form_module, "BAND", band)
    monkeypatch.setattr(form_module, "TILE", tile)
    monkeypatch.setattr(form_module, "TOGETHER", together)
    monkeypatch.setattr(form_module, "HELD", 2 * 30 * band * 3)  # a few alphas at a time
    monkeypatch.setattr(resolvent_module, "MANY_ROWS", 1)


every_block = pytest.mark.parametrize(
    "blocks", [(4, 8, 8), (3, 7, 4), (1, 4, 2), (32, 256, 128)], ids=str, indirect=True
)
small_blocks = pytest.mark.parametrize("blocks", [(4, 8, 8)], ids=[""], indirect=True)


def without_upper(A: Array) -> Array:
    """Return A with NaN above the diagonal, which nothing may read."""
    return np.tril(A) + np.triu(np.full_like(A, np.nan), 1)


def weights_for(n: int) -> Array:
    w = np.random.default_rng(1).uniform(0.3, 3.0, size=n)
    w[[2, n - 1]] = 0.0
    return w


WEIGHTS: dict[str, Any] = {
    "none": lambda n: None,
    "precisions": weights_for,
    "counts": lambda n: np.arange(n) % 4,
}
KERNELS: dict[str, Any] = {
    "full rank": Matern(1.0, 0.5),
    "numerically low rank": RBF(0.05),
    "linear": Linear(),
    "polynomial": Polynomial(degree=2, gamma=1.0),
}
every_weight = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=list(WEIGHTS))
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
with_and_without = pytest.mark.parametrize("centre", [True, False], ids=["intercept", "no intercept"])


def data(n: int = 30, targets: int = 2) -> tuple[Array, Array]:
    """Return rows of which some are repeated, and targets far from zero."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    X[n // 2 : n // 2 + 4] = X[:4]
    y = np.sin(2 * X[:, :1]) + X[:, -1:] ** 2 * np.arange(1, targets + 1) + 7
    return X, y + 0.1 * rng.normal(size=y.shape)


def bordered(K: Array, w: Array, alpha: float, centre: bool) -> Array:
    """Return the map y ↦ [a; b] of rows of positive weight, by the inverse of the bordered system."""
    n = len(K)
    system = np.zeros((n + centre, n + centre))
    system[:n, :n] = K + np.diag(alpha / w)
    if centre:
        system[:n, n] = system[n, :n] = 1.0
    return np.linalg.solve(system, np.eye(n + centre)[:, :n])


def predictions(K: Array, y: Array, w: Array, alpha: float, centre: bool) -> Array:
    """Return b + Ka of the fit on the rows of positive weight, for all rows."""
    keep = np.flatnonzero(w > 0)
    found = bordered(K[np.ix_(keep, keep)], w[keep], alpha, centre) @ y[keep]
    return K[:, keep] @ found[: len(keep)] + (found[len(keep)] if centre else 0.0)


# ------------------------------------------------------------------------------- the block-tridiagonal form


@every_block
@pytest.mark.parametrize("rank", [0, 2, None], ids=["zero", "rank 2", "full"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 23, 40])
def test_form_against_dense_algebra(blocks: None, n: int, rank: int | None) -> None:
    rng = np.random.default_rng(n)
    Z = rng.normal(size=(n, n if rank is None else rank)) * 10.0 ** rng.uniform(-3, 3, size=(n, 1))
    A = Z @ Z.T
    form = block_tridiagonal(without_upper(A))
    Q = form.orthogonal()
    np.testing.assert_allclose(Q[:, :n].T @ Q[:, :n], np.eye(n), atol=1e2 * n * UNIT)
    assert not Q[:, n:].any()
    size = max(np.linalg.norm(A, 2), 1e-300)
    B, b = np.zeros((Q.shape[1], Q.shape[1])), form.diagonal.shape[1]
    for i, block in enumerate(form.diagonal):
        B[i * b : i * b + b, i * b : i * b + b] = block
    for i, block in enumerate(form.below):
        B[i * b + b : i * b + 2 * b, i * b : i * b + b] = block
        B[i * b : i * b + b, i * b + b : i * b + 2 * b] = block.T
    np.testing.assert_allclose(Q @ B @ Q.T, A, rtol=0, atol=1e2 * n * UNIT * size)
    g = np.linalg.eigvalsh(A)
    np.testing.assert_allclose(form.eigenvalues(), g, rtol=0, atol=1e2 * n * UNIT * size)
    rhs = rng.normal(size=(n, 2))
    np.testing.assert_allclose(form.rotate(rhs, transposed=True), Q[:, :n].T @ rhs, atol=1e-12)
    np.testing.assert_allclose(form.rotate(rhs), Q[:, :n] @ rhs, atol=1e-12)
    alphas = size * np.array([1e-6, 1e-3, 1.0, 1e3]) if rank != 0 else np.array([1e-3, 1.0])
    solved, diagonal = form.solve(rhs, alphas), form.inverse_diagonal(alphas)
    for i, alpha in enumerate(alphas):
        inverse = np.linalg.inv(A + alpha * np.eye(n))
        close = {"rtol": 0, "atol": 1e3 * n * UNIT * (size + alpha) / alpha / alpha}
        np.testing.assert_allclose(solved[i], inverse @ rhs, **close)
        np.testing.assert_allclose(diagonal[:, i], inverse.diagonal(), **close)


@small_blocks
def test_form_of_what_is_not_positive_definite(blocks: None) -> None:
    form = block_tridiagonal(np.diag(np.arange(-3.0, 17.0)))
    np.testing.assert_allclose(form.eigenvalues(), np.arange(-3.0, 17.0), atol=1e-12)
    with pytest.raises(np.linalg.LinAlgError):
        form.solve(np.ones((20, 1)), np.array([1.0]))
    np.testing.assert_allclose(form.inverse_diagonal(np.array([4.0]))[:, 0], 1 / np.arange(1.0, 21.0))


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    A = RBF(0.1).lower(np.random.default_rng(0).normal(size=(700, 5)))
    alphas = np.array([0.1, 1.0])
    one = block_tridiagonal(A.copy())
    diagonal = one.inverse_diagonal(alphas)
    with ThreadPoolExecutor(3) as pool:
        token = array._POOL.set(pool)
        try:
            three = block_tridiagonal(A.copy())
            np.testing.assert_array_equal(three.diagonal, one.diagonal)
            np.testing.assert_array_equal(three.inverse_diagonal(alphas), diagonal)
        finally:
            array._POOL.reset(token)


# ------------------------------------------------------------------------------------------- the resolvent


@small_blocks
@with_and_without
@every_weight
@every_kernel
def test_both_forms_are_the_same_resolvent(
    blocks: None, kernel: Any, weights: Any, centre: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data()
    K, w = kernel(X), weights(len(X))
    w = np.ones(len(X)) if w is None else w.astype(float)
    index = np.flatnonzero(w > 0)
    banded = Resolvent(without_upper(K), w, index, centre)
    root, m = np.sqrt(w[index]), len(index)
    Kw = root[:, None] * K[np.ix_(index, index)] * root
    M = np.eye(m) - centre * np.outer(root, root) / (root @ root)
    g = np.linalg.eigvalsh(M @ Kw @ M)[1 if centre else 0 :]
    size = g[-1]
    np.testing.assert_allclose(banded.g, g, rtol=0, atol=1e3 * m * UNIT * size)
    solved, diagonal = banded.solve(root[:, None] * y[index], ALPHAS), banded.diagonal(ALPHAS)
    each = banded.solve_each(root[:, None] * y[index], ALPHAS[[2, 1]])
    np.testing.assert_allclose(each, np.stack([solved[2, :, 0], solved[1, :, 1]], axis=1), atol=1e-9)
    monkeypatch.setattr(resolvent_module, "MANY_ROWS", 1000)
    eigen = Resolvent(without_upper(K), w, index, centre)
    others = (eigen.solve(root[:, None] * y[index], ALPHAS), eigen.diagonal(ALPHAS))
    for i, alpha in enumerate(ALPHAS):
        want = M @ np.linalg.inv(M @ Kw @ M + alpha * np.eye(m)) @ M
        level = 1e3 * m * UNIT * (size + alpha) / alpha
        for found in (solved, others[0]):
            right = want @ (root[:, None] * y[index])
            np.testing.assert_allclose(found[i], right, rtol=0, atol=level * np.abs(right).max())
        for found in (diagonal, others[1]):
            np.testing.assert_allclose(found[:, i], want.diagonal(), rtol=level)


@small_blocks
def test_alphas_at_the_rounding_level_take_the_eigendecomposition(blocks: None) -> None:
    """There it matters which directions the kernel does not see; the limit is the pseudo-inverse."""
    X, y = data()
    K = Linear()(X)
    resolvent = Resolvent(without_upper(K), np.ones(30), np.arange(30), False)
    solved = resolvent.solve(y, np.array([0.0, 1e-3 * resolvent.floor]))
    for found in solved:
        np.testing.assert_allclose(found, np.linalg.pinv(K, 1e-10) @ y, rtol=1e-8)
    assert resolvent.unseen == 27
    assert "_eigen" in vars(resolvent)
    above = Resolvent(without_upper(K), np.ones(30), np.arange(30), False)
    above.solve(y, np.array([100 * resolvent.floor]))
    assert "_eigen" not in vars(above)


@small_blocks
def test_what_is_no_kernel_is_refused(blocks: None) -> None:
    X, y = data()
    with pytest.raises(InputError, match="negative eigenvalue"):
        KernelRidge("loo", kernel="precomputed").fit(-Linear()(X), y)


# ---------------------------------------------------------------- rules on many rows, against brute force


@small_blocks
@with_and_without
@every_weight
@every_kernel
def test_loo_equals_refits(blocks: None, kernel: Any, weights: Any, centre: bool) -> None:
    X, y = data()
    given = weights(len(X))
    w = np.ones(len(X)) if given is None else given.astype(float)
    K = kernel(X)
    model = KernelRidge(LOO(ALPHAS), kernel=kernel, fit_intercept=centre, alpha_per_target=True)
    model.set_params(weights_are=weights_kind(given)).fit(X, y, given)
    counts = given is not None and given.dtype.kind == "i"
    for i, alpha in enumerate(ALPHAS):
        level = 1e4 * UNIT * (np.linalg.norm(K, 2) * w.max() + alpha) / alpha
        want = np.zeros(2)
        for j in range(len(X)):
            less = w.copy()
            less[j] -= min(w[j], 1.0) if counts else w[j]
            want += w[j] * (y[j] - predictions(K, y, less, alpha, centre)[j]) ** 2 / w.sum()
        np.testing.assert_allclose(model.path_.score[i], want, rtol=level)
        fitted = K @ model.path_.coef[i] + model.path_.intercept[i]
        right = predictions(K, y, w, alpha, centre)
        np.testing.assert_allclose(fitted, right, rtol=0, atol=level * np.abs(y).max())
    np.testing.assert_array_equal(model.alpha_, ALPHAS[model.path_.score.argmin(axis=0)])


@small_blocks
@with_and_without
@every_weight
@every_kernel
def test_other_rules_equal_their_definitions(blocks: None, kernel: Any, weights: Any, centre: bool) -> None:
    X, y = data(targets=1)
    given = weights(len(X))
    w = np.ones(len(X)) if given is None else given.astype(float)
    K, keep = kernel(X), np.flatnonzero(w > 0)
    n = w.sum() if given is not None and given.dtype.kind == "i" else len(keep)
    path = {
        rule.name: KernelRidge(rule, kernel=kernel, fit_intercept=centre, weights_are=weights_kind(given))
        .fit(X, y, given)
        .path_
        for rule in (GCV(ALPHAS), REML(ALPHAS), AIC(ALPHAS), KFold(5, ALPHAS))
    }
    reml = []
    for i, alpha in enumerate(ALPHAS):
        level = 1e4 * UNIT * (np.linalg.norm(K, 2) * w.max() + alpha) / alpha
        Kk, wk, t = K[np.ix_(keep, keep)], w[keep], y[keep, 0]
        solution = bordered(Kk, wk, alpha, centre)
        hat = Kk @ solution[: len(keep)] + (solution[len(keep)] if centre else 0.0)
        df, rss = np.trace(hat), wk @ (t - hat @ t) ** 2
        np.testing.assert_allclose(path["gcv"].df[i], df - centre, rtol=level)
        np.testing.assert_allclose(path["gcv"].score[i], rss / w.sum() / (1 - df / n) ** 2, rtol=level)
        aic = n * np.log(2 * np.pi * rss / n) + n + 2 * (df + 1)
        np.testing.assert_allclose(path["aic"].score[i], aic, rtol=level)
        # −2·log restricted likelihood of y ~ N(b1, σ²(K/α + W⁻¹)), up to a constant.
        V = Kk / alpha + np.diag(1 / wk)
        quadratic = alpha * t @ solution[: len(keep)] @ t
        determinant = np.linalg.slogdet(V)[1]
        if centre:
            determinant += np.log(np.linalg.inv(V).sum())
        reml.append(determinant + (n - centre) * np.log(quadratic))
        sse = 0.0
        for k in range(5):
            part = np.arange(6 * k, 6 * k + 6)
            less = w.copy()
            less[part] = 0.0
            left = y[part, 0] - predictions(K, y, less, alpha, centre)[part, 0]
            sse += w[part] @ left**2
        np.testing.assert_allclose(path["kfold"].score[i], sse / w.sum(), rtol=level)
    found = path["reml"].score - path["reml"].score[-1]
    np.testing.assert_allclose(found, np.array(reml) - reml[-1], rtol=1e-8, atol=1e-8)


@small_blocks
@every_kernel
def test_the_automatic_grid_and_its_refinement_are_those_of_few_rows(
    blocks: None, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data(targets=1)
    many = KernelRidge("loo", kernel=kernel).fit(X, y)
    monkeypatch.setattr(resolvent_module, "MANY_ROWS", 1000)
    few = KernelRidge("loo", kernel=kernel).fit(X, y)
    np.testing.assert_allclose(many.path_.alphas, few.path_.alphas, rtol=1e-5)
    np.testing.assert_allclose(many.alpha_, few.alpha_, rtol=1e-5)
    np.testing.assert_allclose(many.predict(X), few.predict(X), rtol=1e-6)
    assert many.fit_.certificate.residual < 1e-9
