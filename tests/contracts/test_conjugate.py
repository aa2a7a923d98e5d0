"""Newton by conjugate gradients: dense and streamed rows, many classes, large offsets, no leave-one-out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.model_selection import StratifiedKFold

import elltwo
from elltwo import GLM, LOO, KFold, LogisticRegression, Ridge
from elltwo.data.memory import MemorySource
from elltwo.errors import InputError, Status
from elltwo.fitting import fit_source
from elltwo.losses import Gamma, Huber, Multinomial
from elltwo.problem import Problem
from elltwo.selection import grid
from elltwo.solvers import auto, coupled, dense_rows
from elltwo.solvers.null import best_intercept, curvature_at

Array = Any


class Pieces(MemorySource):
    """The same rows in copied blocks of a prime number of rows, as if they were read from a file."""

    in_memory = False

    def blocks(self) -> Any:
        for block in super().blocks():
            for i in range(0, len(block.y), 37):
                rows = slice(i, i + 37)
                w = None if block.weights is None else block.weights[rows]
                offset = None if block.offset is None else block.offset[rows]
                yield type(block)(block.X[rows].copy(), block.y[rows], w, block.start + i, offset)


def classes(n: int, p: int, K: int, seed: int = 0) -> tuple[Array, Array]:
    """Return features of sizes 0.1 to 10 about means of 3, and classes that depend on them."""
    rng = np.random.default_rng([seed, n, p, K])
    X = rng.normal(size=(n, p)) * 10.0 ** rng.uniform(-1, 1, p) + 3
    eta = (X - 3) / X.std(axis=0) @ rng.normal(size=(p, K)) / np.sqrt(p)
    return X, np.eye(K)[(eta + rng.gumbel(size=(n, K))).argmax(axis=1)]


VARIATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "counts": ({"weights": np.arange(150) % 3, "weights_are": "frequency"}, {"standardize": True}),
    "precisions": ({"weights": np.linspace(0, 2, 150)}, {"prior": np.linspace(-0.1, 0.1, 7)}),
    "offset": ({"offset": np.sin(np.arange(450.0)).reshape(150, 3)}, {"fit_intercept": False}),
    "multipliers": ({}, {"penalty": np.array([0.0, 1, 2, 3, 4, 5, 6])}),
    "matrix": ({}, {"penalty": np.eye(7) + 0.5, "standardize": False}),
}


@pytest.mark.parametrize("kept", [True, False], ids=["curvatures kept", "curvatures made again"])
@pytest.mark.parametrize("variation", VARIATIONS)
def test_dense_rows_give_what_the_factorised_matrix_does(
    variation: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = classes(150, 7, 3)
    rows, options = VARIATIONS[variation]
    direct = fit_source(MemorySource(X, y, **rows), 2.0, loss="multinomial", solver="newton", **options)
    if not kept:
        monkeypatch.setattr(dense_rows, "KEPT_BYTES", 0)
    for source in (
        MemorySource(X, y, **rows),
        Pieces(X, y, **rows),
        MemorySource(sparse.csr_array(X), y, **rows),
    ):
        fit = fit_source(source, 2.0, loss="multinomial", solver="newton-cg", **options)
        size = np.abs(direct.coef).max()
        np.testing.assert_allclose(fit.coef, direct.coef, rtol=0, atol=1e-7 * size)
        # With a prior, what all intercepts have in common depends on the first rows that are read.
        apart, expected = (b - b.mean() for b in (fit.intercept, direct.intercept))
        np.testing.assert_allclose(apart, expected, rtol=0, atol=1e-7 * (3 * size + 1))
        assert fit.deviance[0] == pytest.approx(direct.deviance[0], rel=1e-9)
        assert fit.null_deviance[0] == pytest.approx(direct.null_deviance[0], rel=1e-9)
        assert fit.certificate.residual < 1e-9
        assert fit.certificate.digits > 6
        assert Status.ESTIMATED_DF in fit.status
        # Random signs: an error of a few percent, whatever the units of the features.
        assert fit.df[0] == pytest.approx(direct.df[0], rel=0.1)


@pytest.mark.parametrize("loss", ["binomial", "poisson", "gaussian"])
def test_dense_rows_of_other_losses(loss: str) -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(90, 6)) + 50
    y = rng.poisson(np.exp(X[:, :2] - 50)).astype(float)
    y = np.minimum(y, 1) if loss == "binomial" else y
    named = "newton" if loss != "gaussian" else "cholesky"
    direct = fit_source(MemorySource(X, y), np.array([0.5, 4.0]), loss=loss, solver=named)
    for source in (MemorySource(X, y), Pieces(X, y)):
        fit = fit_source(source, np.array([0.5, 4.0]), loss=loss, solver="newton-cg")
        np.testing.assert_allclose(fit.coef, direct.coef, rtol=0, atol=1e-7 * np.abs(direct.coef).max())


@pytest.mark.parametrize("shape", [(200, 40, 5), (60, 90, 5)], ids=["tall", "wide"])
def test_beyond_the_limit_equal_to_scikit_learn(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the order that is factorised, "auto" takes conjugate gradients; the limit is lowered here."""
    monkeypatch.setattr(coupled, "MOST_ORDER", 200)
    monkeypatch.setattr(auto, "MOST_COUPLED", 200)
    X, y = classes(*shape)
    X = (X - 3) / X.std(axis=0)
    fit = fit_source(MemorySource(X, y), 1.5, loss="multinomial")
    assert fit.solver == "newton-cg"
    assert "many classes times features" in fit.solver_reason
    peer = Peer(C=1 / 1.5, tol=1e-12, max_iter=100_000).fit(X, y.argmax(axis=1))
    np.testing.assert_allclose(fit.coef.T, peer.coef_, rtol=0, atol=1e-5 * np.abs(peer.coef_).max())
    eta = X @ fit.coef + fit.intercept
    slope = np.exp(eta - eta.max(axis=1, keepdims=True))
    slope = slope / slope.sum(axis=1, keepdims=True) - y
    assert np.abs(X.T @ slope + 1.5 * fit.coef).max() < 1e-8 * np.abs(X.T @ y).max()
    assert np.abs(fit.coef.sum(axis=1)).max() < 1e-8 * np.abs(fit.coef).max()
    with pytest.raises(InputError, match="newton-cg"):
        fit_source(MemorySource(X, y), 1.5, loss="multinomial", solver="newton")


def test_folds_are_those_of_the_factorised_matrix() -> None:
    X, y = classes(150, 7, 3)
    codes = y.argmax(axis=1)

    class Splits:
        n_splits = 4

        def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
            return StratifiedKFold(4).split(X, codes)

    rule = KFold(Splits(), alphas=[0.1, 1.0, 10.0])
    direct = fit_source(MemorySource(X, y), rule, loss="multinomial", solver="newton", standardize=True)
    for source in (MemorySource(X, y), Pieces(X, y)):
        fit = fit_source(source, rule, loss="multinomial", solver="newton-cg", standardize=True)
        np.testing.assert_allclose(fit.path.score, direct.path.score, rtol=1e-6)
        np.testing.assert_allclose(
            fit.path.coef, direct.path.coef, rtol=0, atol=1e-5 * np.abs(direct.coef).max()
        )
        assert np.isnan(fit.path.df[np.arange(3) != fit.path.chosen[0]]).all()


def test_no_matrix_of_the_coefficients_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """24,000 coefficients of 40 classes in blocks: a matrix of them would take 4.6 GB."""
    import tracemalloc

    rng = np.random.default_rng(1)
    X, codes = rng.normal(size=(500, 600)).astype(np.float32), rng.integers(0, 40, 500)
    codes[:40] = np.arange(40)
    source = Pieces(X, np.eye(40)[codes])
    tracemalloc.start()
    fit = fit_source(source, 300.0, loss="multinomial", tol=1e-6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fit.solver == "newton-cg"
    assert fit.certificate.residual < 1e-6
    assert peak < 1e8


# ------------------------------------------------------------------------------------------ large offsets


@pytest.mark.parametrize("spread", [5.0, 20.0, 40.0])
@pytest.mark.parametrize("compressed", [True, False], ids=["sparse", "dense"])
def test_offsets_of_very_different_size(spread: float, compressed: bool) -> None:
    """The intercept of the null model went off by 33,000, and Newton's method could not come back."""
    rng = np.random.default_rng(0)
    X = sparse.random_array((400, 30), density=0.2, rng=rng, format="csr")
    offset = spread * rng.normal(size=400)
    y = np.exp(X @ rng.normal(size=30) + offset) * rng.gamma(2.0, 0.5, 400)
    known = MemorySource(X if compressed else X.toarray(), y, offset=offset)
    fit = fit_source(known, 1.0, loss="gamma", solver="newton-cg")
    # The same problem without an offset: y·e^(−o) has the same shape and the same deviance.
    plain = fit_source(MemorySource(X.toarray(), y * np.exp(-offset)), 1.0, loss="gamma", solver="newton")
    assert Status.NOT_CONVERGED not in fit.status
    np.testing.assert_allclose(fit.coef, plain.coef, rtol=0, atol=1e-6)
    assert fit.null_deviance[0] == pytest.approx(plain.null_deviance[0], rel=1e-8)


@pytest.mark.parametrize("spread", [1.0, 20.0, 100.0])
@pytest.mark.parametrize("loss", [Gamma(), Multinomial()], ids=lambda loss: loss.name)
def test_the_best_intercept_is_the_minimum(loss: Any, spread: float) -> None:
    rng = np.random.default_rng(4)
    T = 3 if loss.coupled else 1
    offset = spread * rng.normal(size=(60, T))
    y = np.eye(3)[rng.integers(0, 3, 60)] if loss.coupled else np.exp(offset) * rng.gamma(2.0, 0.5, (60, 1))
    w = rng.random(60)

    def measure(b: Array) -> Any:
        return curvature_at(loss, y, offset + b, w)

    def value(b: Array) -> float:
        return float(np.sum(w @ loss.value(y, offset + b)))

    found = best_intercept(loss, np.full(T, np.log(y.mean()) * (T == 1)), measure)
    near = optimize.minimize(value, found, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13})
    assert value(found) <= near.fun * (1 + 1e-9)
    assert np.abs(measure(found)[0]).max() < 1e-6 * w.sum()


@pytest.mark.parametrize("epsilon", [1e-3, 1e-4, 1e-5])
def test_huber_with_an_epsilon_far_below_the_spread(epsilon: float) -> None:
    """A line search at every step finds an optimum that jumps of the curvature hide from chord steps."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 5))
    y = X @ rng.normal(size=5) + rng.standard_t(3, size=500)
    fit = fit_source(MemorySource(X, y), epsilon, loss=Huber(epsilon), solver="newton-cg")
    assert Status.NOT_CONVERGED not in fit.status
    pull = np.clip(X @ fit.coef[:, 0] + fit.intercept[0] - y, -epsilon, epsilon)
    assert np.abs(X.T @ pull + epsilon * fit.coef[:, 0]).max() < 1e-8 * epsilon * len(y)
    assert np.abs(pull.sum()) < 1e-8 * epsilon * len(y)


# ------------------------------------------------------------------------- leave-one-out that is not there


@pytest.fixture
def many_columns(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Array]:
    """Sparse rows of more features than the limit, which is lowered here."""
    monkeypatch.setattr(auto, "SPARSE_FEATURES", 40)
    monkeypatch.setattr(grid, "PER_DECADE", 2)
    rng = np.random.default_rng(9)
    X = sparse.random_array((120, 41), density=0.2, rng=rng, format="csr")
    return X, rng.random(120) < 0.5


@pytest.mark.parametrize(
    "model", [LogisticRegression(), GLM("binomial"), LogisticRegression(standardize=True)], ids=repr
)
def test_the_default_of_estimators_gives_way_to_folds_and_says_so(model: Any, many_columns: Any) -> None:
    X, y = many_columns
    fit = model.fit(X, y).fit_
    assert fit.rule == "kfold"
    assert Status.LOO_UNAVAILABLE in fit.status
    assert "5-fold" in fit.rule_text
    asked = type(model)(**{**model.get_params(), "alpha": "kfold"}).fit(X, y)
    assert asked.fit_.alpha == fit.alpha
    assert Status.LOO_UNAVAILABLE not in asked.fit_.status


def test_a_rule_object_is_taken_at_its_word(many_columns: Any) -> None:
    X, y = many_columns
    with pytest.raises(InputError, match=r"41 features make too costly\. Use 'kfold'"):
        LogisticRegression(LOO()).fit(X, y)
    assert LogisticRegression().fit(X[:, :5], y).fit_.rule == "loo"
    assert Ridge().fit(X, y).fit_.rule == "loo"  # squared error keeps its leverages up to 20,000 features


@pytest.mark.parametrize("one_se", [False, True])
def test_the_default_of_tables_gives_way_to_folds_that_share_the_classes(
    one_se: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "MOST_COUPLED", 10)
    monkeypatch.setattr(grid, "PER_DECADE", 2)
    X, y = classes(150, 7, 3)
    order = np.argsort(y.argmax(axis=1))  # sorted by class: consecutive folds would lack one
    table = {f"x{j}": X[order, j] for j in range(7)} | {
        "k": np.array(["a", "b", "c"])[y[order].argmax(axis=1)]
    }
    fitted = elltwo.fit(table, "k", family="multinomial", one_se=one_se)
    assert (fitted.rule, fitted.solver) == ("kfold", "newton-cg")
    assert Status.LOO_UNAVAILABLE in fitted.status
    assert "Leave-one-out, the default" in fitted.summary()
    folds = elltwo.fit(table, "k", family="multinomial", select="kfold", one_se=one_se)
    np.testing.assert_array_equal(fitted.alpha, folds.alpha)
    with pytest.raises(InputError, match="3 classes of 7 features make too costly"):
        elltwo.fit(table, "k", family="multinomial", select="loo")


def test_a_source_without_leave_one_out_gives_way_too(many_columns: Any) -> None:
    X, y = many_columns
    fitted = elltwo.fit(MemorySource(X, y.astype(float)), family="binomial")
    assert fitted.rule == "kfold"
    assert Status.LOO_UNAVAILABLE in fitted.status


def test_the_table_of_solvers_knows_which_have_leverages() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(40, 3)), (rng.random(40) < 0.5).astype(float)
    for solver in auto.SOLVERS:
        loss = "gaussian" if solver.name in ("spectral", "cholesky", "orthogonal", "dual") else "binomial"
        problem = Problem(MemorySource(X, y))
        assert auto.leaves_one_out(problem)
        if solver.name in auto.WITHOUT_LEVERAGES:
            with pytest.raises(InputError, match="kfold"):
                fit_source(MemorySource(X, y), "loo", loss=loss, solver=solver.name)
        else:
            assert fit_source(MemorySource(X, y), "loo", loss=loss, solver=solver.name).rule == "loo"


@pytest.mark.parametrize("penalty", [None, [1.0, 0.0, 1.0]])
@pytest.mark.parametrize("constant", [False, True])
def test_df_of_classes_leave_out_what_no_coefficient_tells(penalty: Any, constant: bool) -> None:
    """tr[(H + αP)⁺H] of the dense matrix of all classes, less K − 1 intercepts.

    What all classes have in common in a free column, and a constant column, count nothing.
    """
    rng = np.random.default_rng(4)
    K, alpha, X = 3, 2.0, rng.normal(size=(90, 3))
    X[:, 1] = 5.0 if constant else X[:, 1]
    y = np.eye(K)[rng.integers(0, K, size=90)]
    fit = fit_source(MemorySource(X, y), alpha, loss="multinomial", solver="newton-cg", penalty=penalty)
    eta = X @ fit.coef + fit.intercept
    p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    rows = np.column_stack([np.ones(90), X - X.mean(axis=0)])
    bend = np.einsum("ik,kl->ikl", p, np.eye(K)) - np.einsum("ik,il->ikl", p, p)
    H = np.einsum("ia,ikl,ib->kalb", rows, bend, rows).reshape(4 * K, 4 * K)
    d = np.tile(np.append(0.0, np.ones(3) if penalty is None else penalty), K)
    expected = np.trace(np.linalg.pinv(H + alpha * np.diag(d), rcond=1e-10) @ H) - (K - 1)
    assert fit.df[0] == pytest.approx(expected, abs=0.15)
