"""Columns as they come: sparse ones in any legal state, constant ones, and ones of any size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import sparse

import elltwo
from elltwo.array import solve_upper
from elltwo.data.memory import MemorySource, canonical_rows
from elltwo.elasticnet import fit_elastic_net
from elltwo.engine import fit_source
from elltwo.errors import InputError, Status
from elltwo.losses import as_loss
from elltwo.margins import Margins, mean_and_deviation
from elltwo.moments import Moments
from elltwo.results import Fit
from elltwo.selection import KFold
from elltwo.solvers import coordinate

Array = npt.NDArray[Any]

SQUARED = ("spectral", "cholesky", "orthogonal", "dual")
ANY_LOSS = ("newton", "newton-dual", "newton-cg", "gradient", "sgd")
LOSSES = (
    "gaussian",
    "binomial",
    "multinomial",
    "poisson",
    "gamma",
    "tweedie",
    "negative-binomial",
    "huber",
    "squared-hinge",
    "squared-epsilon-insensitive",
)
#: Every loss and every solver of it, but for pairs that share all their code with another pair.
SOLVED = (
    [("gaussian", solver) for solver in SQUARED + ANY_LOSS]
    + [("binomial", solver) for solver in ANY_LOSS]
    + [("multinomial", solver) for solver in ANY_LOSS[:4]]
    + [("poisson", solver) for solver in ANY_LOSS[:3]]
    + [(loss, "newton") for loss in LOSSES[4:]]
    + [(loss, solver) for loss in LOSSES[7:] for solver in ANY_LOSS[2:4]]
    + [(loss, "lasso") for loss in LOSSES if loss != "multinomial"]
)
cases = pytest.mark.parametrize(("loss", "solver"), SOLVED)


def targets(loss: str, eta: Array, rng: np.random.Generator) -> Array:
    """Draw targets that the loss is made for, shape (n,) or (n, 3)."""
    n = len(eta)
    if loss == "binomial":
        return (eta + rng.logistic(size=n) > 0).astype(float)
    if loss == "squared-hinge":
        return np.where(eta + rng.logistic(size=n) > 0, 1.0, -1.0)
    if loss == "multinomial":
        return np.eye(3)[np.argmax(np.column_stack([eta, -eta, 0 * eta]) + rng.gumbel(size=(n, 3)), axis=1)]
    if loss in ("poisson", "negative-binomial", "tweedie"):
        return rng.poisson(np.exp(0.5 * eta)).astype(float)
    if loss == "gamma":
        return rng.gamma(2.0, np.exp(0.5 * eta))
    return eta + rng.normal(size=n)


def fitted(X: Any, y: Array, loss: str, solver: str, weights: Any = None, **options: Any) -> Fit:
    source, alpha = MemorySource(X, y, weights), options.pop("alpha", 1.0)
    if solver == "lasso":
        return fit_elastic_net(source, alpha, l1_ratio=0.7, loss=loss, **options)[0]
    return fit_source(source, alpha, loss=loss, solver=solver, **options)


# --- Sparse matrices in any legal state ---


def in_parts(D: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return (values, rows, columns) that add up to D: in two parts, in any order, and stored zeros."""
    i, j = np.nonzero(D)
    twice = rng.random(len(i)) < 0.4
    part = np.where(twice, np.rint(D[i, j] / 2), D[i, j])
    zi, zj = (rng.integers(0, size, 8) for size in D.shape)
    rows, columns = (np.concatenate([k, k[twice], zk]) for k, zk in ((i, zi), (j, zj)))
    values = np.concatenate([part, (D[i, j] - part)[twice], np.zeros(8)])
    order = rng.permutation(len(values))
    return values[order], rows[order], columns[order]


def compressed(D: Array, rng: np.random.Generator, kind: Any, index: Any = np.int32) -> Any:
    """Return D in CSR or CSC with duplicates, unsorted indices and stored zeros."""
    values, rows, columns = in_parts(D, rng)
    first, second, size = (rows, columns, len(D)) if "csr" in kind.__name__ else (columns, rows, D.shape[1])
    order = np.argsort(first, kind="stable")
    starts = np.searchsorted(first[order], np.arange(size + 1))
    made = kind((values[order], second[order], starts), shape=D.shape)
    made.indices, made.indptr = second[order].astype(index), starts.astype(index)
    return made


def coordinates(D: Array, rng: np.random.Generator, kind: Any) -> Any:
    values, rows, columns = in_parts(D, rng)
    return kind((values, (rows, columns)), shape=D.shape)


STATES: dict[str, Callable[[Array, np.random.Generator], Any]] = {
    "CSR": partial(compressed, kind=sparse.csr_matrix),
    "CSR, 64-bit indices": partial(compressed, kind=sparse.csr_matrix, index=np.int64),
    "CSR array": partial(compressed, kind=sparse.csr_array),
    "CSC": partial(compressed, kind=sparse.csc_matrix),
    "CSC array": partial(compressed, kind=sparse.csc_array),
    "COO": partial(coordinates, kind=sparse.coo_matrix),
    "COO array": partial(coordinates, kind=sparse.coo_array),
    "DIA": lambda D, rng: sparse.dia_matrix(D),
    "BSR": lambda D, rng: sparse.bsr_matrix(D, blocksize=(2, 3)),
    "LIL": lambda D, rng: sparse.lil_matrix(D),
}


def arrays_of(X: Any) -> dict[str, Array]:
    return {
        name: getattr(X, name) for name in ("data", "indices", "indptr", "row", "col") if hasattr(X, name)
    }


@pytest.mark.parametrize("state", STATES)
def test_a_sparse_matrix_is_made_canonical_and_left_as_it_was(state: str) -> None:
    rng = np.random.default_rng(3)
    D = rng.integers(-3, 4, (20, 12)) * (rng.random((20, 12)) < 0.5) * 1.0
    X = STATES[state](D, rng)
    before = {name: array.copy() for name, array in arrays_of(X).items()}
    rows = canonical_rows(X)
    assert type(rows) is sparse.csr_matrix
    assert rows.indices.dtype == np.int32
    assert rows.has_canonical_format
    np.testing.assert_array_equal(rows.toarray(), D)
    for name, array in arrays_of(X).items():
        np.testing.assert_array_equal(array, before[name])


@cases
def test_sparse_rows_give_the_model_of_dense_ones(
    loss: str, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word counts, stored as one entry per occurrence; standardised, with weights."""
    monkeypatch.setattr(coordinate, "MANY_FEATURES", 4)  # the lasso keeps sparse rows sparse from here on
    seed = SOLVED.index((loss, solver))
    rng = np.random.default_rng(seed)
    n, p = 40, 12
    D = np.minimum(rng.poisson(0.7, (n, p)), 4) * 1.0
    y = targets(loss, 0.5 * (D[:, 0] - D[:, 1]), rng)
    w = rng.uniform(0.5, 2.0, n)
    state = list(STATES)[seed % len(STATES)]
    tol = 1e-6 if solver == "sgd" else 1e-10
    dense, thin = (
        fitted(X, y, loss, solver, w, standardize=True, tol=tol) for X in (D, STATES[state](D, rng))
    )
    size = np.abs(dense.coef).max()
    np.testing.assert_allclose(thin.coef, dense.coef, rtol=0, atol=max(10 * tol, 1e-8) * size)
    mean = w @ D / w.sum()
    np.testing.assert_allclose(thin.feature_scales, np.sqrt(w @ (D - mean) ** 2 / w.sum()), rtol=1e-14)


# --- Means and spreads ---


def exact_spread(values: Array, w: Array) -> tuple[float, float]:
    """Return mean and standard deviation, in rational arithmetic up to the root."""
    v, u = [Fraction(float(x)) for x in values], [Fraction(float(x)) for x in w]
    mean = sum(a * b for a, b in zip(u, v, strict=True)) / sum(u)
    variance = sum(a * (b - mean) ** 2 for a, b in zip(u, v, strict=True)) / sum(u)
    return float(mean), math.sqrt(variance)


@pytest.mark.parametrize(
    "kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "CSR", "CSC"]
)
def test_spreads_keep_their_digits_under_large_means(kind: Any) -> None:
    """Centred before they are squared: Σwx² − (Σwx)² would leave 4 digits of a mean of 1e6, none of 1e9."""
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [rng.normal(m, s, 200) for m, s in ((0, 1), (1e6, 1), (1e9, 1), (-3, 1e-7), (5, 1e9))]
    )
    X[::3, 0] = X[::4, 1] = 0.0
    w = rng.integers(0, 4, 200) * rng.uniform(0.5, 2, 200)
    mean, scale = mean_and_deviation(kind(X), w)
    for j, column in enumerate(X.T):
        right = exact_spread(column, w)
        np.testing.assert_allclose((mean[j], scale[j]), right, rtol=1e-13, atol=1e-15 * np.abs(column).max())


@pytest.mark.parametrize("value", [0.1, 1.7e9, -1e15 / 3, 1e-12, 5.0])
def test_the_spread_of_one_number_is_zero(value: float) -> None:
    """However often, whatever the weights, dense, sparse, merged, or as moments."""
    rng = np.random.default_rng(1)
    X, w = np.full((100_003, 1), value), rng.uniform(1e-3, 1e3, 100_003)
    w[:7] = 0.0
    X[:7] = 1e20  # rows without weight
    for weights, rows in ((w, slice(None)), (None, slice(7, None))):
        for kind in (np.asarray, sparse.csr_matrix, sparse.csc_matrix):
            own = None if weights is None else weights[rows]
            mean, scale = mean_and_deviation(kind(X[rows]), own)
            assert scale[0] == 0
            assert mean[0] == pytest.approx(value, rel=1e-15)
    blocks = [slice(i, i + 997) for i in range(0, len(X), 997)]
    merged = reduce(Margins.merge, (Margins.of(X[b], X[b], w[b]) for b in blocks))
    moments = reduce(Moments.merge, (Moments.of(X[b], X[b], w[b]) for b in blocks))
    whole = Moments.of(X, X, w)
    for found in (merged, moments, whole):
        assert found.x_scale[0] == found.y_scale[0] == 0


# --- Numbers that float64 cannot hold ---

IDS = 2**60 + np.arange(40)  # where float64 has steps of 256


@pytest.mark.parametrize("kind", [np.int64, np.uint64, sparse.csr_matrix], ids=["int64", "uint64", "sparse"])
@pytest.mark.parametrize("loss", ["gaussian", "binomial"])
def test_no_digits_are_claimed_of_neighbouring_identifiers(kind: Any, loss: str) -> None:
    y = np.arange(40.0) if loss == "gaussian" else np.arange(40.0) % 3 > 1
    X = kind(IDS[:, None])
    fit = fitted(X, y, loss, "newton")
    assert fit.certificate.digits < 1
    assert {Status.ROUNDED_INPUT, Status.LOST_DIGITS} <= set(fit.status)


def test_digits_that_rounding_of_integers_leaves() -> None:
    """Nanoseconds of a day: a range of 8.64e13, rounded by 128 at most."""
    rng = np.random.default_rng(0)
    t = 1_700_000_000_000_000_000 + np.sort(rng.integers(0, 86_400 * 10**9, 50))
    error = max(abs(int(x) - int(float(x))) for x in t)
    fit = fitted(t[:, None], rng.normal(size=50) + (t - t[0]) * 1e-13, "gaussian", "orthogonal", alpha=0.0)
    assert fit.certificate.digits <= math.log10(int(t.max() - t.min()) / error)
    assert fit.certificate.digits > 6
    assert Status.ROUNDED_INPUT in fit.status
    exact = fitted(t[:, None] // 2**10, t % 97, "gaussian", "orthogonal")
    assert Status.ROUNDED_INPUT not in exact.status


TOO_LONG: dict[str, Callable[[Any], Any]] = {
    "CSV": lambda path: pd.DataFrame({"id": IDS, "y": IDS % 7}).to_csv(path / "t.csv", index=False),
    "Parquet": lambda path: pd.DataFrame({"id": IDS, "y": IDS % 7}).to_parquet(path / "t.parquet"),
    "unsigned": lambda path: pd.DataFrame({"id": IDS.astype(np.uint64), "y": IDS % 7}),
    "decimals": lambda path: {"id": [Decimal(int(i)) for i in IDS], "y": IDS % 7},
    "target": lambda path: {"x": IDS % 7, "y": IDS},
    "offset": lambda path: {"x": IDS % 7, "y": IDS % 5},
}


@pytest.mark.parametrize("form", TOO_LONG)
def test_a_table_with_numbers_that_float64_cannot_hold_is_refused_by_name(form: str, tmp_path: Any) -> None:
    table = TOO_LONG[form](tmp_path)
    data = next(tmp_path.iterdir()) if table is None else table
    column, options = ("y" if form == "target" else "id"), {}
    if form == "offset":
        data, column, options = data | {"o": IDS}, "o", {"offset": "o"}
    with pytest.raises(InputError, match=f"Column '{column}' holds numbers that float64 cannot hold") as told:
        elltwo.fit(data, "y", select=1.0, **options)
    if form == "CSV":  # the remedy, as it is written
        query = re.search(r'"(SELECT .*)"', str(told.value))[1]
        fit = elltwo.fit(data, "y", sql=query, select=1.0)
        assert fit.feature_scales[0] == pytest.approx(np.arange(40).std())


@pytest.mark.parametrize("kind", ["frame", "objects", "decimals"])
def test_an_estimator_refuses_them_where_scikit_learn_would_round_them(kind: str) -> None:
    forms = {
        "frame": pd.DataFrame({"x": np.arange(40) / 7, "id": IDS}),
        "objects": IDS.astype(object)[:, None],
        "decimals": np.array([[Decimal(int(i))] for i in IDS]),
    }
    column = "id" if kind == "frame" else "x0"
    with pytest.raises(InputError, match=f"Column '{column}' holds numbers that float64 cannot hold"):
        elltwo.Ridge(1.0).fit(forms[kind], np.arange(40.0))


# --- Constant columns ---


@cases
def test_a_constant_column_has_the_coefficient_zero(loss: str, solver: str) -> None:
    """Epoch seconds of one day, 0.1, zeros, and one that rounding alone moves; some rows have no weight."""
    rng = np.random.default_rng(SOLVED.index((loss, solver)))
    n = 60
    x = rng.normal(size=(n, 2))
    rounded = np.where(rng.random(n) < 0.5, 0.3, 0.1 + 0.2)
    w = rng.uniform(0.5, 2, n)
    w[:5] = 0.0
    constant = np.column_stack([np.full((n, 1), 1.7e9), np.full((n, 1), 0.1), np.zeros((n, 1)), rounded])
    constant[:5] += 1.0  # in rows without weight
    y = targets(loss, x[:, 0], rng)
    tol = 1e-4 if solver == "sgd" else 1e-8
    for kind in (np.asarray, sparse.csr_matrix):
        fit = fitted(
            kind(np.column_stack([constant[:, :2], x, constant[:, 2:]])), y, loss, solver, w, tol=tol
        )
        np.testing.assert_array_equal(fit.coef[[0, 1, 4, 5]], 0.0)
        assert Status.CONSTANT_COLUMNS in fit.status
        alone = fitted(kind(x), y, loss, solver, w, tol=tol)
        size = np.abs(alone.coef).max()
        np.testing.assert_allclose(fit.coef[2:4], alone.coef, rtol=0, atol=1e3 * tol * size)


@pytest.fixture(scope="module")
def with_constants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    n = 120
    table = pd.DataFrame(
        {"at": [1.7e9] * n, "tenth": [0.1] * n, "x": rng.normal(size=n), "town": ["Ulm"] * n}
    )
    table["y"] = table["x"] + rng.normal(size=n)
    table["won"] = (table["x"] + rng.logistic(size=n) > 0).astype(int)
    folder = tmp_path_factory.mktemp("constants")
    table.to_csv(folder / "t.csv", index=False)
    table.to_parquet(folder / "t.parquet")
    return {"frame": table, "CSV": folder / "t.csv", "Parquet": folder / "t.parquet"}


@pytest.mark.parametrize("form", ["frame", "CSV", "Parquet"])
@pytest.mark.parametrize(
    "options", [{}, {"model": "lasso"}, {"family": "binomial"}, {"select": "gcv"}], ids=str
)
def test_a_constant_column_of_a_table_does_not_move_predictions(
    form: str, options: dict[str, Any], with_constants: dict[str, Any]
) -> None:
    names = ["won", "y"] if "family" in options else ["y", "won"]
    fit = elltwo.fit(with_constants[form], names[0], drop=names[1:], **options)
    coef = dict(zip(fit.feature_names, fit.coef[:, 0], strict=True))
    assert coef.pop("x") != 0
    assert set(coef.values()) == {0.0}
    assert Status.CONSTANT_COLUMNS in fit.status
    now = with_constants["frame"].head(3)
    later = now.assign(at=now["at"] + 86_400, tenth=7.0)
    np.testing.assert_array_equal(fit.predict(now), fit.predict(later))


@pytest.mark.parametrize("family", ["gaussian", "binomial", "multinomial"])
@pytest.mark.parametrize("select", [0.0, 2.0])
def test_a_constant_column_has_no_standard_error(
    family: str, select: float, with_constants: dict[str, Any], tmp_path: Any
) -> None:
    """And those of the others are what they are without it."""
    table = with_constants["frame"].drop(columns="won" if family == "gaussian" else "y")
    if family == "multinomial":
        table["won"] = np.where(table["x"] > 0.8, "b", np.where(np.arange(120) % 3 > 0, "a", "c"))
    target, options = table.columns[-1], {"family": family, "select": select, "inference": "bayes"}
    if family == "multinomial" and select == 0:
        select = options["select"] = 0.1
    fit, alone = (elltwo.fit(t, target, **options) for t in (table, table[["x", target]]))
    found, right = fit.inference, alone.inference
    at = fit.feature_names.index("x")
    se = found.standard_errors()
    np.testing.assert_allclose(se.coef[at], right.standard_errors().coef[0], rtol=1e-6)
    np.testing.assert_allclose(se.intercept, right.standard_errors().intercept, rtol=1e-6)
    assert np.isnan(np.delete(se.coef, at, axis=0)).all()
    assert np.isnan(np.delete(found.intervals().coef, at, axis=0)).all()
    np.testing.assert_allclose(found.df, right.df, rtol=1e-6)
    line = next(line for line in fit.summary().splitlines() if line.startswith("tenth"))
    assert line.split()[1:5] == ["0", "–", "–", "–"]
    fit.save(tmp_path / "m.safetensors")
    kept = elltwo.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(kept.inference.standard_errors().coef, se.coef)
    now = table.head(3)
    later = now.assign(at=now["at"] + 86_400)
    for model in (fit, kept):
        first, second = (model.predict_interval(t) for t in (now, later))
        np.testing.assert_allclose(np.asarray(first), np.asarray(second), rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "solver"), [("gaussian", "spectral"), ("binomial", "newton"), ("multinomial", "newton-cg")]
)
def test_a_column_that_is_constant_in_a_fold_is_left_out_there(loss: str, solver: str) -> None:
    """Folds of ten rows; the column is 1.7e9 but in one of them: the score is that of explicit refits."""
    rng = np.random.default_rng(5)
    n = 50
    X = np.column_stack([rng.normal(size=n), np.full(n, 1.7e9)])
    X[-10:, 1] += 1000 * rng.normal(size=10)
    y = targets(loss, X[:, 0], rng)
    folds = [(np.delete(np.arange(n), test), test) for test in np.arange(n).reshape(5, 10)]
    alpha = np.array([0.5])
    path = fit_source(MemorySource(X, y), KFold(folds, alpha), loss=loss, solver=solver).path
    total = 0.0
    for train, test in folds:
        columns = [0] if test[0] == 40 else [0, 1]
        fit = fit_source(
            MemorySource(X[train][:, columns], y[train]),
            0.5,
            loss=loss,
            solver="newton" if loss != "gaussian" else "orthogonal",
        )
        eta = X[test][:, columns] @ fit.coef + fit.intercept
        total += np.sum(2 * as_loss(loss).value(y[test].reshape(10, -1), eta))
    assert float(np.ravel(path.score)[0]) == pytest.approx(total / n, rel=1e-6)


# --- Columns and targets of any size ---


@pytest.mark.parametrize(
    ("loss", "solver"),
    [c for c in SOLVED if c[0] == "gaussian" or c[1] in ("newton", "lasso")] + [("binomial", "newton-cg")],
)
def test_columns_whose_squares_underflow(loss: str, solver: str) -> None:
    """Times a power of two, which is exact, a standardised problem is the same: coefficients divide by it."""
    rng = np.random.default_rng(SOLVED.index((loss, solver)))
    X = rng.normal(size=(40, 3))
    y = targets(loss, X[:, 0], rng)
    factor = np.array([2.0**-565, 1.0, 2.0**-530])
    tol = 1e-4 if solver == "sgd" else 1e-8
    right = fitted(X, y, loss, solver, standardize=True, tol=tol)
    for kind in (np.asarray, sparse.csr_matrix):
        fit = fitted(kind(X * factor), y, loss, solver, standardize=True, tol=tol)
        size = np.abs(right.coef).max()
        tolerance = {"rtol": 0, "atol": 100 * tol * size}
        np.testing.assert_allclose(fit.coef * factor[:, None], right.coef, **tolerance)
        np.testing.assert_allclose(
            fit.path.coef.ravel() * np.repeat(factor, fit.coef.shape[1]), right.coef.ravel(), **tolerance
        )
        np.testing.assert_allclose(fit.intercept, right.intercept, rtol=100 * tol, atol=100 * tol)
        np.testing.assert_allclose(fit.feature_scales / factor, X.std(axis=0), rtol=1e-13)
        assert Status.CONSTANT_COLUMNS not in fit.status


def test_a_file_with_columns_whose_squares_underflow(tmp_path: Any) -> None:
    """By leave-one-out, on rows that are streamed; and without a penalty."""
    rng = np.random.default_rng(1)
    x, e = rng.normal(size=(60, 2)), 2.0**-600
    y = x @ [1.0, 2.0] + rng.normal(size=60)
    table = pd.DataFrame({"a": x[:, 0] * e, "b": x[:, 1], "y": y})
    table.to_parquet(tmp_path / "t.parquet")
    right = elltwo.fit(table.assign(a=x[:, 0]), "y")
    fit = elltwo.fit(tmp_path / "t.parquet", "y")
    np.testing.assert_allclose(fit.coef[:, 0] * [e, 1.0], right.coef[:, 0], rtol=1e-8)
    assert fit.alpha[0] == pytest.approx(right.alpha[0], rel=1e-6)
    np.testing.assert_allclose(fit.predict(table), right.predict(table.assign(a=x[:, 0])), rtol=1e-8)
    plain = elltwo.Ridge(0.0).fit(x * [e, 1.0], y)
    free = np.linalg.lstsq(np.column_stack([x, np.ones(60)]), y)[0]
    np.testing.assert_allclose(plain.coef_ * [e, 1.0], free[:2], rtol=1e-12)


def test_zero_columns_are_not_taken_for_tiny_ones() -> None:
    X = np.column_stack([np.zeros(20), np.arange(20.0)])
    fit = fitted(X, np.arange(20.0) ** 2, "gaussian", "spectral", standardize=True)
    assert fit.coef[0, 0] == 0
    assert fit.feature_scales[0] == 0


def test_targets_of_any_size_give_a_model_or_an_error_and_no_warning() -> None:
    """Warnings are errors here. An outlier of 1e149 moves the mean and nothing else."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    y = X @ [1.0, 2.0, 3.0]
    for factor, told in ((1e300, "squares overflow"), (1e-160, "squares underflow")):
        for model in (elltwo.Ridge(1.0), elltwo.Ridge("loo"), elltwo.Lasso(1.0)):
            with pytest.raises(InputError, match=told):
                model.fit(X, y * factor)
    for factor in (1e140, 1e-140):
        for rule in ("loo", "kfold", "bic", "reml"):
            model, plain = (
                elltwo.Ridge(rule).fit(X, t) for t in ((y + X[:, 0] ** 2) * factor, y + X[:, 0] ** 2)
            )
            np.testing.assert_allclose(model.coef_ / factor, plain.coef_, rtol=1e-6)


def test_lapack_has_nothing_to_complain_of(capfd: pytest.CaptureFixture[str]) -> None:
    """Its own messages on matrices of order 0 go to the terminal, whatever Python does."""
    table = {"y": [7.0, 2, 1, 4, 0, 2, 6, 9, 2, 7, 8, 6], "f0": list("ccbacbaaabca")}
    elltwo.fit(table, "y", model="lasso", family="huber", epsilon=1.0)
    solve_upper(np.zeros((0, 0)), np.zeros((0, 1)))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
