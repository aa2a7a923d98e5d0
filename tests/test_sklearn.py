"""The estimators among scikit-learn's own: its checks, its inputs, its tools, and its RidgeCV beside ours."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from itertools import pairwise
from tempfile import NamedTemporaryFile
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn import linear_model as peer
from sklearn.base import clone, is_regressor
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

import elltwo
import oracles
from elltwo import GCV, LOO, InputError, Ridge, RidgeCV, Status
from oracles import Model
from shapes import weights_kind
from sklearn_checks import assert_checks_pass

Array = np.ndarray
NAMES = ["age", "income", "debt", "children", "rent"]


def data(n: int = 60, p: int = 5, targets: int = 1, seed: int = 0) -> tuple[Array, Array]:
    """Return X (n, p) and y (n,) or (n, T) of a noisy linear model with columns of different scales."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * 2.0 ** np.arange(p) + np.arange(p)
    y = X @ rng.normal(size=(p, targets)) / 2.0 ** np.arange(p)[:1] + rng.normal(size=(n, targets)) * 3
    return X, y[:, 0] if targets == 1 else y


def weights_for(n: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).uniform(0.3, 3.0, size=n)


def frame(X: Array) -> pd.DataFrame:
    return pd.DataFrame(X, columns=NAMES)


def assert_same(found: Any, want: Any, tolerance: float = 1e-10) -> None:
    """Compare fitted coefficients and intercepts, relative to the largest."""
    for name in ("coef_", "intercept_"):
        a, b = np.asarray(getattr(found, name)), np.asarray(getattr(want, name))
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-300, np.abs(b).max()))


# ------------------------------------------------------------------------------- scikit-learn's own checks


def test_scikit_learns_checks_pass_without_exceptions_or_skips() -> None:
    assert_checks_pass(
        "Ridge(1.0)",
        "Ridge('gcv', weights_are='frequency')",
        "RidgeCV()",
        "RidgeCV(cv=3)",
        rules=("Ridge()",),
    )


def test_estimators_are_regressors_with_scikit_learns_parameters() -> None:
    assert is_regressor(Ridge())
    assert is_regressor(RidgeCV())
    assert RidgeCV().get_params() == peer.RidgeCV().get_params() | {"weights_are": "analytic"}


# --------------------------------------------------------------------------------------- arrays and tables

WHOLE = np.random.default_rng(3).integers(0, 10, size=(60, 5))
TARGET = WHOLE @ np.array([1.0, 2.0, -1.0, 3.0, 0.5]) + np.random.default_rng(4).normal(size=60)


@pytest.mark.parametrize("alpha", [1.0, "loo", "kfold"])
@pytest.mark.parametrize(
    "dtype", [bool, *"bBhHiIlLqQ", np.float16, np.float32, np.float64, np.longdouble, object]
)
def test_every_dtype_gives_the_answer_of_float64(dtype: Any, alpha: Any) -> None:
    X = (WHOLE > 4 if dtype is bool else WHOLE).astype(dtype)
    want = Ridge(alpha).fit(X.astype(np.float64), TARGET)
    found = Ridge(alpha).fit(X, TARGET)
    assert_same(found, want, 1e-12)
    assert found.alpha_ == want.alpha_
    np.testing.assert_allclose(found.predict(X), want.predict(X.astype(np.float64)), rtol=1e-12)


def backwards(X: Array) -> Array:
    return np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]


def every_other(X: Array) -> Array:
    return np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]


def read_only(X: Array) -> Array:
    X = X.copy()
    X.flags.writeable = False
    return X


LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "backwards": backwards,
    "sliced": every_other,
    "read-only": read_only,
    "big-endian": lambda X: X.astype(">f8"),
    "list": lambda X: X.tolist(),
    "memory-mapped": lambda X: joblib_memmap(X),
}


def joblib_memmap(X: Array) -> Array:
    with NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, X)
        file.flush()
        return np.load(file.name, mmap_mode="r")


@pytest.mark.parametrize("estimator", [Ridge(2.0), Ridge(), Ridge("kfold"), RidgeCV()], ids=repr)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_memory_layout_gives_the_same_answer_and_is_left_alone(layout: str, estimator: Any) -> None:
    X, y = data(targets=2)
    weights = weights_for(60)
    given = [LAYOUTS[layout](X), LAYOUTS[layout](y), read_only(weights)]
    before = copy.deepcopy(given)
    found = clone(estimator).fit(given[0], given[1], sample_weight=given[2])
    assert_same(found, clone(estimator).fit(X, y, sample_weight=weights), 1e-12)
    found.predict(given[0])
    for now, then in zip(given, before, strict=True):
        np.testing.assert_array_equal(now, then)


SPARSE = [
    (kind, layout)
    for kind in ("array", "matrix")
    for layout in ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
]


@pytest.mark.parametrize(("kind", "layout"), SPARSE)
def test_every_sparse_format_is_dense(kind: str, layout: str) -> None:
    dense = np.where(WHOLE > 6, WHOLE, 0)
    X = getattr(sparse, f"coo_{kind}")(dense).asformat(layout)
    for estimator in (Ridge(1.0, standardize=True), Ridge(), RidgeCV(cv=3)):
        found, want = clone(estimator).fit(X, TARGET), clone(estimator).fit(dense, TARGET)
        assert_same(found, want, 1e-12)
        assert isinstance(found.predict(X), np.ndarray)
        np.testing.assert_allclose(found.predict(X), want.predict(dense), rtol=1e-12)
    batches = Ridge(1.0, standardize=True)
    for rows in (slice(0, 25), slice(25, 60)):
        batches.partial_fit(X.tocsr()[rows], TARGET[rows])
    assert_same(batches, Ridge(1.0, standardize=True).fit(dense, TARGET))


TABLES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda table: table,
    "pandas Int64": lambda table: table.astype("Int64"),
    "pandas Float64": lambda table: table.astype("Float64"),
    "pandas float32": lambda table: table.astype("float32"),
    "pandas arrow": lambda table: table.astype("int64[pyarrow]"),
    "pandas mixed": lambda table: table.astype({"age": "Int8", "income": "float32", "debt": "int16"}),
    "pandas category": lambda table: table.astype({"age": "category"}),
    "pandas object": lambda table: table.astype(object),
    "polars": pl.DataFrame,
    "arrow": pa.Table.from_pandas,
    "arrow record batch": lambda table: pa.RecordBatch.from_pandas(table),
}


def columns_of(table: Any, names: list[str]) -> Any:
    return table.select(names) if isinstance(table, (pa.Table, pa.RecordBatch)) else table[names]


@pytest.mark.parametrize("kind", TABLES)
def test_tables_keep_their_names(kind: str) -> None:
    table = TABLES[kind](frame(WHOLE))
    for estimator in (Ridge(1.0), RidgeCV()):
        found = clone(estimator).fit(table, TARGET)
        assert_same(found, clone(estimator).fit(WHOLE, TARGET), 1e-12)
        assert list(found.feature_names_in_) == NAMES
        assert found.n_features_in_ == 5
        assert found.fit_.feature_names == tuple(NAMES)
        np.testing.assert_allclose(found.predict(table), found.predict(frame(WHOLE)), rtol=1e-12)


@pytest.mark.parametrize("kind", ["pandas", "pandas Int64", "polars", "arrow", "arrow record batch"])
def test_columns_in_another_order_or_missing_are_scikit_learns_error(kind: str) -> None:
    table = TABLES[kind](frame(WHOLE))
    model = Ridge(1.0).fit(table, TARGET)
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(columns_of(table, NAMES[::-1]))
    with pytest.raises(ValueError, match="yet now missing:\n- rent"):
        model.predict(columns_of(table, NAMES[:4]))
    with pytest.raises(ValueError, match="must be in the same order"):
        Ridge(1.0).partial_fit(table, TARGET).partial_fit(columns_of(table, NAMES[::-1]), TARGET)


def test_bare_array_after_a_table_is_scikit_learns_warning() -> None:
    model = Ridge(1.0).fit(frame(WHOLE), TARGET)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(WHOLE)


def test_nullable_booleans_are_zeros_and_ones() -> None:
    table = (frame(WHOLE) > 4).astype("boolean")
    assert_same(Ridge(1.0).fit(table, TARGET), Ridge(1.0).fit((WHOLE > 4).astype(float), TARGET), 1e-12)


@pytest.mark.parametrize("column", ["debt", "rent"])
def test_missing_value_in_a_table_is_named_in_fit_and_in_predict(column: str) -> None:
    whole = frame(WHOLE).astype("Float64")
    holes = whole.copy()
    holes.loc[7, column] = pd.NA
    for call in (Ridge(1.0).fit, Ridge().fit, RidgeCV(cv=3).fit, Ridge(1.0).partial_fit):
        with pytest.raises(InputError, match=rf"NaN or infinity: 1 value\(s\) in column\(s\) '{column}'"):
            call(holes, TARGET)
    with pytest.raises(InputError, match=rf"NaN or infinity: 1 value\(s\) in column\(s\) '{column}'"):
        Ridge(1.0).fit(whole, TARGET).predict(holes)


def test_infinite_value_in_predict_is_refused_whatever_its_coefficient() -> None:
    X = np.column_stack([WHOLE, np.ones(60)])
    model = Ridge(1.0).fit(X, TARGET)
    assert model.coef_[5] == 0
    X[2, 5] = np.inf
    with pytest.raises(InputError, match=r"column.*'x5'"):
        model.predict(X)


TARGETS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "array": (TARGET, ("y",)),
    "whole numbers": (WHOLE[:, 0], ("y",)),
    "booleans": (WHOLE[:, 0] > 4, ("y",)),
    "list": (TARGET.tolist(), ("y",)),
    "object": (TARGET.astype(object), ("y",)),
    "series": (pd.Series(TARGET), ("y",)),
    "named series": (pd.Series(TARGET, name="price"), ("price",)),
    "nullable series": (pd.Series(TARGET, name="price").astype("Float64"), ("price",)),
    "polars series": (pl.Series("price", TARGET), ("price",)),
    "arrow array": (pa.chunked_array([TARGET]), ("y",)),
    "pandas frame": (pd.DataFrame({"price": TARGET, "rent": -TARGET}), ("price", "rent")),
    "polars frame": (pl.DataFrame({"price": TARGET, "rent": -TARGET}), ("price", "rent")),
    "arrow table": (pa.table({"price": TARGET, "rent": -TARGET}), ("price", "rent")),
    "frame of numbers": (pd.DataFrame({0: TARGET, 1: -TARGET}), ("y0", "y1")),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_of_every_kind_keep_their_names(name: str) -> None:
    y, names = TARGETS[name]
    model = Ridge(1.0).fit(WHOLE, y)
    assert model.fit_.target_names == names
    single = len(names) == 1
    assert_same(model, Ridge(1.0).fit(WHOLE, np.asarray(y, dtype=np.float64)), 1e-12)
    assert model.predict(WHOLE).shape == ((60,) if single else (60, 2))


# ----------------------------------------------------------------------------------------- weights, shapes

COUNTS = np.arange(60) % 4


@pytest.mark.parametrize(
    "weights",
    [
        COUNTS,
        COUNTS.astype(np.uint8),
        COUNTS.tolist(),
        pd.Series(COUNTS),
        pd.Series(COUNTS).astype("Int64"),
        pl.Series(COUNTS),
        pa.array(COUNTS),
    ],
    ids=lambda w: type(w).__name__,
)
def test_frequencies_of_every_container_are_repeated_rows(weights: Any) -> None:
    X, y = data()
    found = Ridge(weights_are="frequency").fit(X, y, sample_weight=weights)
    assert found.fit_.n_observations == COUNTS.sum()
    want = Ridge().fit(np.repeat(X, COUNTS, axis=0), np.repeat(y, COUNTS))
    np.testing.assert_allclose(found.alpha_, want.alpha_, rtol=1e-5)
    assert_same(Ridge(want.alpha_).fit(X, y, sample_weight=weights), want)


@pytest.mark.parametrize(
    "weights", [2, 2.0, np.full(60, 2.0), pd.Series(np.full(60, 2.0)), np.float32(2)], ids=repr
)
def test_one_weight_for_all_is_a_smaller_alpha(weights: Any) -> None:
    X, y = data()
    assert_same(Ridge(6.0).fit(X, y, sample_weight=weights), Ridge(3.0).fit(X, y))


def test_weights_of_zero_are_rows_left_out() -> None:
    X, y = data()
    some = np.arange(60) % 5 > 0
    for estimator in (Ridge(1.0), Ridge(1.0, standardize=True), Ridge(GCV(alphas=[0.1, 1, 10])), RidgeCV()):
        found = clone(estimator).fit(X, y, sample_weight=some)
        assert_same(found, clone(estimator).fit(X[some], y[some]))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("targets", [None, 1, 3])
@pytest.mark.parametrize(
    "make", [Ridge, lambda **o: RidgeCV([0.1, 1.0, 10.0], **o)], ids=["Ridge", "RidgeCV"]
)
def test_shapes_are_scikit_learns(make: Any, targets: int | None, fit_intercept: bool) -> None:
    X, y = data(targets=3)
    y = y[:, 0] if targets is None else y[:, :targets]
    theirs = peer.RidgeCV([0.1, 1.0, 10.0], fit_intercept=fit_intercept).fit(X, y)
    ours = make(fit_intercept=fit_intercept).fit(X, y)
    for name in ("coef_", "intercept_", "alpha_"):
        assert np.shape(getattr(ours, name)) == np.shape(getattr(theirs, name)), name
    assert isinstance(ours.alpha_, float)
    assert ours.predict(X).shape == theirs.predict(X).shape
    assert ours.n_features_in_ == 5
    path, A, T = ours.path_, len(ours.path_.alphas), targets or 1
    tail = () if T == 1 else (T,)
    assert path.alphas.shape == path.df.shape == path.score.shape == (A,)
    assert path.coef.shape == (A, 5, *tail)
    assert path.intercept.shape == (A, *tail)
    assert path.chosen.shape == (T,)
    assert ours.alpha_ == path.alphas[path.chosen[0]]


@pytest.mark.parametrize(
    "make", [Ridge, lambda **o: RidgeCV([0.1, 1.0, 10.0], **o)], ids=["Ridge", "RidgeCV"]
)
@pytest.mark.parametrize("targets", [None, 1, 3])
def test_shapes_with_an_alpha_per_target_are_scikit_learns(make: Any, targets: int | None) -> None:
    X, y = data(targets=3)
    y = y[:, 0] if targets is None else y[:, :targets]
    theirs = peer.RidgeCV([0.1, 1.0, 10.0], alpha_per_target=True).fit(X, y)
    ours = make(alpha_per_target=True).fit(X, y)
    for name in ("coef_", "intercept_", "alpha_"):
        assert np.shape(getattr(ours, name)) == np.shape(getattr(theirs, name)), name
    assert ours.path_.score.shape == (len(ours.path_.alphas), targets or 1)


def test_given_alphas_per_target_are_fits_of_each_target() -> None:
    X, y = data(targets=3)
    alphas = [0.5, 20.0, 300.0]
    together = Ridge(alphas).fit(X, y)
    theirs = peer.Ridge(alphas, tol=1e-12).fit(X, y)
    np.testing.assert_array_equal(together.alpha_, alphas)
    np.testing.assert_allclose(together.coef_, theirs.coef_, rtol=1e-9)
    for t, alpha in enumerate(alphas):
        alone = Ridge(alpha).fit(X, y[:, t])
        np.testing.assert_allclose(together.coef_[t], alone.coef_, rtol=1e-10)


# ------------------------------------------------------------------------------------ scikit-learn's tools


def test_parameters_survive_clone_and_representation() -> None:
    model = Ridge(LOO(alphas=[1.0, 2.0]), standardize=True, penalty=[1, 2, 3, 4, 5], prior=np.zeros(5))
    again = clone(model)
    assert again.alpha == model.alpha
    assert again.get_params().keys() == model.get_params().keys()
    assert "standardize=True" in repr(model)
    assert "standardize" in model._repr_html_()
    X, y = data()
    assert_same(clone(model.fit(X, y)).fit(X, y), model, 1e-12)
    assert not hasattr(clone(model), "coef_")


@pytest.mark.parametrize(
    "model",
    [Ridge(1.0), Ridge(), Ridge("kfold", random_state=0), RidgeCV(cv=3), Ridge(elltwo.KFold(KFold(3)))],
)
def test_pickle_copy_and_joblib_keep_the_model(model: Any) -> None:
    X, y = data()
    model = clone(model).fit(frame(X), y)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), joblib.load(file)):
        np.testing.assert_array_equal(again.predict(frame(X)), model.predict(frame(X)))
        np.testing.assert_array_equal(again.path_.coef, model.path_.coef)
        assert again.fit_.summary() == model.fit_.summary()


def test_pickled_half_way_through_batches_goes_on() -> None:
    X, y = data()
    for carry in (lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy):
        model = carry(Ridge(1.0).partial_fit(X[:20], y[:20])).partial_fit(X[20:], y[20:])
        assert_same(model, Ridge(1.0).fit(X, y))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_pipeline_with_set_output_hands_names_on(library: str) -> None:
    X, y = data()
    pipe = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), Ridge())
    pipe.set_output(transform=library).fit(frame(X), y)
    assert pipe[-1].n_features_in_ == 20
    assert list(pipe[-1].feature_names_in_) == list(pipe[:-1].get_feature_names_out())
    assert "age income" in pipe[-1].fit_.feature_names
    assert pipe.predict(frame(X)).shape == (60,)


def test_column_transformer_makes_a_sparse_table_for_it() -> None:
    X, y = data()
    table = frame(X).assign(town=[("Bonn", "Jena", "Ulm")[i % 3] for i in range(60)])
    encode = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough", sparse_threshold=1)
    found = make_pipeline(encode, Ridge(2.0)).fit(table, y)
    hot = np.column_stack([np.eye(3)[np.arange(60) % 3], X])
    assert_same(found[-1], Ridge(2.0).fit(hot, y))


def test_grid_search_over_alphas_and_rules() -> None:
    X, y = data()
    grid = {"ridge__alpha": [0.1, 10.0, "loo", GCV()], "ridge__standardize": [True, False]}
    with joblib.parallel_config(backend="threading"):
        search = GridSearchCV(make_pipeline(StandardScaler(), Ridge()), grid, n_jobs=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = clone(search.best_estimator_).fit(X, y)
    np.testing.assert_allclose(search.predict(X), best.predict(X), rtol=1e-12)


def test_cross_validation_scores_are_those_of_the_peer() -> None:
    X, y = data()
    for ours, theirs in ((Ridge(2.0), peer.Ridge(2.0)), (RidgeCV(), peer.RidgeCV())):
        np.testing.assert_allclose(cross_val_score(ours, X, y), cross_val_score(theirs, X, y), rtol=1e-9)
        np.testing.assert_allclose(cross_val_predict(ours, X, y), cross_val_predict(theirs, X, y), rtol=1e-9)


def test_score_takes_weights() -> None:
    X, y = data()
    w = weights_for(60)
    ours, theirs = (
        m.fit(X, y, sample_weight=w).score(X, y, sample_weight=w) for m in (Ridge(2.0), peer.Ridge(2.0))
    )
    assert abs(ours - theirs) < 1e-12


def test_transformed_target() -> None:
    X, y = data()
    y = np.exp(y / 50)
    ours, theirs = (
        TransformedTargetRegressor(m, func=np.log, inverse_func=np.exp).fit(X, y).predict(X)
        for m in (Ridge(2.0), peer.Ridge(2.0))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


GROUPS = np.random.default_rng(9).integers(0, 6, size=60)


def test_groups_reach_our_splitter() -> None:
    X, y = data()
    alphas = [0.1, 1.0, 10.0, 100.0]
    rule = elltwo.KFold(GroupKFold(3), alphas=alphas)
    want = Ridge(elltwo.KFold(list(GroupKFold(3).split(X, y, GROUPS)), alphas=alphas)).fit(X, y)
    text = np.array(["a", "b", "c", "d", "e", "f"])[GROUPS]
    for groups in (GROUPS, GROUPS.tolist(), text, pd.Series(text), pd.Series(text, dtype="category")):
        found = Ridge(rule).fit(X, y, groups=groups)
        np.testing.assert_allclose(found.path_.score, want.path_.score, rtol=1e-10)
    with pytest.raises(InputError, match="groups"):
        Ridge(rule).fit(X, y)
    for groups in (GROUPS[:5], np.c_[GROUPS, GROUPS]):
        with pytest.raises(InputError, match=r"groups has shape .* one value per row is needed: \(60,\)"):
            Ridge(1.0).fit(X, y, groups=groups)


def test_metadata_is_routed_through_a_pipeline() -> None:
    X, y = data()
    w = weights_for(60)
    with config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        pipe = make_pipeline(scaler, Ridge(2.0).set_fit_request(sample_weight=True))
        pipe.fit(X, y, sample_weight=w)
        with pytest.raises(ValueError, match="not explicitly set as requested"):
            make_pipeline(StandardScaler(), Ridge()).fit(X, y, sample_weight=w)
        unweighted = make_pipeline(scaler, Ridge(2.0).set_fit_request(sample_weight=False))
        unweighted.fit(X, y, sample_weight=w)
    Z = X - np.average(X, axis=0, weights=w)
    Z /= np.sqrt(np.average(Z**2, axis=0, weights=w))
    assert_same(pipe[-1], Ridge(2.0).fit(Z, y, sample_weight=w))
    assert_same(unweighted[-1], Ridge(2.0).fit(Z, y))


@pytest.mark.parametrize("outer", ["pipeline", "search"])
def test_groups_are_routed_to_the_splitter_without_asking(outer: str) -> None:
    """As to scikit-learn's RidgeCV: whoever passes groups means them for the splitter."""
    X, y = data()
    with config_context(enable_metadata_routing=True):
        if outer == "pipeline":
            ours, theirs = (
                make_pipeline(StandardScaler(), m(cv=GroupKFold(3))).fit(X, y, groups=GROUPS)[-1]
                for m in (RidgeCV, peer.RidgeCV)
            )
            assert ours.alpha_ == theirs.alpha_
            assert_same(ours, theirs)
            direct = Ridge(elltwo.KFold(GroupKFold(3))).fit(X, y, groups=GROUPS)
            through = make_pipeline("passthrough", Ridge(elltwo.KFold(GroupKFold(3)))).fit(
                X, y, groups=GROUPS
            )
            assert through[-1].alpha_ == direct.alpha_
        else:
            grid = {"alpha": [1.0, elltwo.KFold(GroupKFold(2))]}
            search = GridSearchCV(Ridge(), grid, cv=GroupKFold(3)).fit(X, y, groups=GROUPS)
            assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_weights_and_groups_are_routed_through_a_search() -> None:
    X, y = data()
    w = weights_for(60)
    with config_context(enable_metadata_routing=True):
        ours, theirs = (
            GridSearchCV(
                m().set_fit_request(sample_weight=True).set_score_request(sample_weight=True),
                {"alpha": [0.1, 10.0, 1000.0]},
                cv=GroupKFold(3),
            ).fit(X, y, sample_weight=w, groups=GROUPS)
            for m in (Ridge, peer.Ridge)
        )
        scores = cross_validate(
            Ridge(2.0).set_fit_request(sample_weight=True).set_score_request(sample_weight=True),
            X,
            y,
            params={"sample_weight": w, "groups": GROUPS},
            cv=GroupKFold(3),
        )["test_score"]
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], rtol=1e-9)
    for (train, test), score in zip(GroupKFold(3).split(X, y, GROUPS), scores, strict=True):
        model = peer.Ridge(2.0).fit(X[train], y[train], sample_weight=w[train])
        np.testing.assert_allclose(score, model.score(X[test], y[test], sample_weight=w[test]), rtol=1e-9)


def test_groups_without_routing_go_to_the_splitter_of_the_search_alone() -> None:
    X, y = data()
    scores = cross_validate(Ridge(1.0), X, y, groups=GROUPS, cv=GroupKFold(3))["test_score"]
    want = cross_validate(peer.Ridge(1.0), X, y, groups=GROUPS, cv=GroupKFold(3))["test_score"]
    np.testing.assert_allclose(scores, want, rtol=1e-9)


@pytest.mark.parametrize("seed", [3, np.int64(3), np.random.RandomState(3)], ids=["int", "numpy", "state"])
def test_random_state_deals_the_folds(seed: Any) -> None:
    X, y = data()
    scores = [Ridge("kfold", random_state=copy.deepcopy(s)).fit(X, y).path_.score for s in (seed, seed, None)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2], rtol=1e-6)


# ------------------------------------------------------------------------------------------------- batches

VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no intercept": {"fit_intercept": False},
    "standardised": {"standardize": True},
    "multipliers": {"penalty": np.array([0.0, 1.0, 10.0, 0.1, 2.0])},
    "matrix": {"penalty": np.diff(np.eye(5), axis=0).T @ np.diff(np.eye(5), axis=0) + 0.1 * np.eye(5)},
    "prior": {"prior": np.array([1.0, -1.0, 0.5, 0.0, 2.0])},
    "prior, no intercept": {"prior": np.array([1.0, -1.0, 0.5, 0.0, 2.0]), "fit_intercept": False},
    "everything": {
        "prior": np.array([1.0, -1.0, 0.5, 0.0, 2.0]),
        "standardize": True,
        "penalty": np.array([0.0, 1.0, 10.0, 0.1, 2.0]),
    },
}
WEIGHTS = {"none": None, "precisions": weights_for(80), "counts": 1 + np.arange(80) % 3}


def drifting(targets: int) -> tuple[Array, Array]:
    """Return rows whose means move, so that batches differ: 80 rows, 5 columns."""
    X, y = data(80, targets=targets, seed=5)
    drift = np.linspace(0, 20, 80)
    return X + drift[:, None] * [1.0, 0.0, -2.0, 0.5, 0.0], (y.T + drift).T


def cuts(n: int, seed: int) -> list[slice]:
    """Cut n rows into batches of random sizes, some of one row."""
    rng = np.random.default_rng(seed)
    edges = [0]
    while edges[-1] < n:
        edges.append(min(n, edges[-1] + int(rng.choice([1, 1, 2, 5, 17, 30]))))
    return [slice(a, b) for a, b in pairwise(edges)]


def in_batches(model: Ridge, X: Any, y: Any, batches: list[slice], weights: Any = None) -> Ridge:
    for rows in batches:
        model.partial_fit(X[rows], y[rows], None if weights is None else weights[rows])
    return model


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("variation", VARIATIONS)
def test_batches_give_the_coefficients_of_one_fit(variation: str, weights: str, targets: int) -> None:
    X, y = drifting(targets)
    w, given = WEIGHTS[weights], VARIATIONS[variation]
    model = Model(X, y.reshape(80, -1), w, weights == "counts", **given)
    given = {**given, "weights_are": weights_kind(w)}
    for seed, alpha in enumerate((0.3, 30.0)):
        one = Ridge(alpha, **given).fit(X, y, sample_weight=w)
        many = in_batches(Ridge(alpha, **given), X, y, cuts(80, seed), w)
        assert_same(many, one)
        coef, intercept = oracles.solve(model, alpha)
        assert oracles.coefficient_error(model, alpha, many.fit_.coef, coef) <= 1e-10
        assert oracles.intercept_error(model, many.fit_.coef, many.fit_.intercept, intercept) <= 1e-10
        for name in ("n_rows", "n_observations", "sum_weights"):
            np.testing.assert_allclose(getattr(many.fit_, name), getattr(one.fit_, name), rtol=1e-12)
        for name in ("df", "deviance", "feature_means", "feature_scales", "target_means", "target_scales"):
            a, b = getattr(many.fit_, name), getattr(one.fit_, name)
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


def test_batches_are_in_no_order() -> None:
    X, y = drifting(1)
    batches = cuts(80, 3)
    assert_same(in_batches(Ridge(1.0), X, y, batches[::-1]), in_batches(Ridge(1.0), X, y, batches))


@pytest.mark.parametrize("alpha_per_target", [False, True])
@pytest.mark.parametrize("rule", ["gcv", "reml", "aic", "bic"])
@pytest.mark.parametrize("variation", ["plain", "standardised", "prior", "everything"])
def test_batches_choose_the_alpha_of_one_fit(variation: str, rule: str, alpha_per_target: bool) -> None:
    X, y = drifting(3)
    w = WEIGHTS["counts"]
    given = {"alpha_per_target": alpha_per_target, "weights_are": "frequency", **VARIATIONS[variation]}
    one = Ridge(rule, **given).fit(X, y, sample_weight=w)
    many = in_batches(Ridge(rule, **given), X, y, [slice(0, 30), slice(30, 31), slice(31, 80)], w)
    # Refined alphas have six significant digits; the last may round either way.
    np.testing.assert_allclose(many.alpha_, one.alpha_, rtol=2e-5)
    assert np.shape(many.alpha_) == ((3,) if alpha_per_target else ())
    assert_same(many, Ridge(many.alpha_, **VARIATIONS[variation]).fit(X, y, sample_weight=w))
    assert many.fit_.rule == rule
    assert Status.RULE_REPLACED not in many.fit_.status
    assert Status.MOMENTS_ONLY in many.fit_.status


def batch_folds(batches: list[slice], k: int) -> list[tuple[Array, Array]]:
    """Return (train, test) with batch i in fold i mod k."""
    fold = np.concatenate([np.full(b.stop - b.start, i % k) for i, b in enumerate(batches)])
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(min(k, len(batches)))]


@pytest.mark.parametrize("k", [2, 4, 5, 9])
@pytest.mark.parametrize("variation", ["plain", "standardised", "no intercept", "prior", "everything"])
def test_kfold_by_batch_is_kfold_with_the_batches_as_folds(variation: str, k: int) -> None:
    X, y = drifting(2)
    batches = [slice(0, 11), slice(11, 30), slice(30, 42), slice(42, 60), slice(60, 80)]
    alphas, given, w = np.logspace(-2, 4, 7), VARIATIONS[variation], WEIGHTS["precisions"]
    many = in_batches(Ridge(elltwo.KFold(k, alphas=alphas), **given), X, y, batches, w)
    folds = batch_folds(batches, k)
    one = Ridge(elltwo.KFold(folds, alphas=alphas), **given).fit(X, y, sample_weight=w)
    np.testing.assert_allclose(many.path_.score, one.path_.score, rtol=1e-9)
    np.testing.assert_allclose(many.path_.score_se, one.path_.score_se, rtol=1e-7)
    assert many.alpha_ == one.alpha_
    assert_same(many, one)
    model = Model(X, y, w, **given)
    want = oracles.kfold(model, folds, alphas).mean(axis=1).astype(float)
    np.testing.assert_allclose(many.path_.score, want, rtol=1e-9)


def test_kfold_by_batch_without_noise() -> None:
    """Squared errors at the rounding level must not be taken for none at all."""
    X, _ = drifting(1)
    alphas = [1e-9, 1.0, 10.0]
    many = in_batches(Ridge(elltwo.KFold(4, alphas=alphas)), X, X.sum(axis=1), cuts(80, 1))
    assert many.alpha_ == 1e-9
    assert (many.path_.score[1:] > 0).all()


def test_leave_one_out_by_batches_is_replaced_by_gcv_and_says_so() -> None:
    X, y = drifting(1)
    loo = in_batches(Ridge(), X, y, cuts(80, 0)[::-1])
    gcv = in_batches(Ridge("gcv"), X, y, cuts(80, 0)[::-1])
    assert loo.fit_.rule == "gcv"
    assert Status.RULE_REPLACED in loo.fit_.status
    assert loo.alpha_ == gcv.alpha_
    assert "partial_fit" in loo.fit_.summary()


def test_kfold_of_a_single_batch_is_replaced_by_gcv_and_says_so() -> None:
    X, y = drifting(1)
    model = Ridge("kfold").partial_fit(X, y)
    assert model.fit_.rule == "gcv"
    assert Status.RULE_REPLACED in model.fit_.status
    model.partial_fit(X, y)
    assert model.fit_.rule == "kfold"
    assert Status.RULE_REPLACED not in model.fit_.status


@pytest.mark.parametrize("alpha", [0.5, "gcv", "loo", "reml"])
def test_one_row_at_a_time(alpha: Any) -> None:
    X, y = drifting(1)
    model = Ridge(alpha)
    for i in range(80):
        model.partial_fit(X[[i]], y[[i]])
    assert model.fit_.n_rows == 80
    assert_same(model, Ridge(model.alpha_).fit(X, y))


def test_a_single_row_chooses_no_alpha_but_is_kept() -> None:
    X, y = drifting(1)
    model = Ridge("gcv").partial_fit(X[:1], y[:1])
    with pytest.raises(NotFittedError):
        model.predict(X)
    model.partial_fit(X[1:], y[1:])
    assert_same(model, Ridge(model.alpha_).fit(X, y))
    fixed = Ridge(1.0).partial_fit(X[:1], y[:1])
    np.testing.assert_array_equal(fixed.coef_, np.zeros(5))
    assert fixed.intercept_ == y[0]


def with_value(array: Array, value: float) -> Array:
    array = array.copy()
    array.flat[3] = value
    return array


X_BATCH, Y_BATCH = data(12, seed=6)
BAD_BATCHES: dict[str, tuple[tuple[Any, ...], str]] = {
    "NaN in X": (
        (with_value(X_BATCH, np.nan), Y_BATCH),
        r"NaN or infinity: 1 value\(s\) in column\(s\) 'children'",
    ),
    "infinity in X": (
        (with_value(X_BATCH, np.inf), Y_BATCH),
        r"NaN or infinity: 1 value\(s\) in column\(s\) 'children'",
    ),
    "NaN in y": ((X_BATCH, with_value(Y_BATCH, np.nan)), "y contains NaN"),
    "another number of columns": ((X_BATCH[:, :3], Y_BATCH), "3 features, but Ridge is expecting 5"),
    "another number of targets": (
        (X_BATCH, np.c_[Y_BATCH, Y_BATCH]),
        r"y has 2 target\(s\), but earlier batches had 1",
    ),
    "another number of rows": ((X_BATCH, Y_BATCH[:5]), "inconsistent numbers of samples"),
    "no rows": ((X_BATCH[:0], Y_BATCH[:0]), "0 sample"),
    "one dimension": ((X_BATCH[:, 0], Y_BATCH), "Expected 2D array"),
    "text": ((np.full((12, 5), "a"), Y_BATCH), "could not convert string to float|dtype"),
    "negative weight": ((X_BATCH, Y_BATCH, with_value(np.ones(12), -1.0)), "row 3 has weight -1"),
    "NaN weight": ((X_BATCH, Y_BATCH, with_value(np.ones(12), np.nan)), "weights contain 1 NaN"),
    "no positive weight": ((X_BATCH, Y_BATCH, np.zeros(12)), "all weights are zero"),
    "one weight too few": ((X_BATCH, Y_BATCH, np.ones(11)), r"sample_weight has shape \(11,\)"),
    "numbers too large": ((with_value(X_BATCH, 1e200), Y_BATCH), "so large that their squares overflow"),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("alpha", [1.0, "gcv", "kfold"])
@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batch_is_refused_and_changes_nothing(name: str, alpha: Any) -> None:
    arguments, message = BAD_BATCHES[name]
    X, y = drifting(1)
    model = Ridge(alpha)
    for rows in (slice(0, 20), slice(20, 50)):
        model.partial_fit(frame(X[rows]), y[rows])
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.partial_fit(*arguments)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[attribute] is value for attribute, value in before.items())
    model.partial_fit(frame(X[50:]), y[50:])
    never = Ridge(alpha)
    for rows in (slice(0, 20), slice(20, 50), slice(50, 80)):
        never.partial_fit(frame(X[rows]), y[rows])
    assert_same(model, never, 1e-14)


def test_bad_first_batch_leaves_the_estimator_as_new() -> None:
    model = Ridge(1.0)
    with pytest.raises(InputError, match=r"column.*'x3'"):
        model.partial_fit(with_value(X_BATCH, np.nan), Y_BATCH)
    assert vars(model) == vars(Ridge(1.0))
    assert_same(model.partial_fit(X_BATCH[:, :2], Y_BATCH), Ridge(1.0).fit(X_BATCH[:, :2], Y_BATCH))


def test_bad_batch_leaves_an_earlier_fit_alone() -> None:
    X, y = drifting(1)
    model = Ridge(1.0).fit(X, y)
    with pytest.raises(InputError, match="NaN"):
        model.partial_fit(np.full((3, 2), np.nan), np.ones(3))
    assert model.n_features_in_ == 5
    np.testing.assert_array_equal(model.predict(X), Ridge(1.0).fit(X, y).predict(X))


def test_fit_forgets_the_batches_and_the_first_batch_forgets_the_fit() -> None:
    X, y = drifting(1)
    model = Ridge(1.0).partial_fit(X[:30], y[:30])
    assert_same(model.fit(X[:, :3], y), Ridge(1.0).fit(X[:, :3], y), 1e-12)
    assert_same(model.partial_fit(X[30:], y[30:]), Ridge(1.0).fit(X[30:], y[30:]))


def test_options_may_change_between_batches() -> None:
    X, y = drifting(1)
    model = Ridge(1.0).partial_fit(X[:30], y[:30])
    changes = {"alpha": 20.0, "standardize": True, "prior": np.ones(5), "penalty": [1, 2, 3, 4, 5.0]}
    assert_same(model.set_params(**changes).partial_fit(X[30:], y[30:]), Ridge(**changes).fit(X, y))


def test_batches_are_not_kept() -> None:
    X, y = drifting(1)
    sizes = []
    model = Ridge("gcv")
    for _ in range(3):
        sizes.append(len(pickle.dumps(model.partial_fit(np.tile(X, (20, 1)), np.tile(y, 20)))))
    assert sizes[-1] < sizes[0] * 1.5 < X.nbytes * 20


def test_batches_given_to_the_model_are_left_alone() -> None:
    X, y = drifting(1)
    given = [read_only(X), read_only(y), read_only(WEIGHTS["precisions"])]
    in_batches(Ridge(1.0, prior=np.ones(5)), *given[:2], cuts(80, 0), given[2])


OPTIONS_WITHOUT_MEANING: dict[str, tuple[dict[str, Any], str]] = {
    "a solver of rows": ({"alpha": 1.0, "solver": "orthogonal"}, "solver='orthogonal' needs rows"),
    "an unknown solver": ({"alpha": 1.0, "solver": "magic"}, "solver='magic'"),
    "a splitter": ({"alpha": elltwo.KFold(KFold(3))}, "integer above 1; got KFold"),
    "one fold": ({"alpha": elltwo.KFold(1)}, "integer above 1; got 1"),
    "no folds": ({"alpha": elltwo.KFold(0)}, "integer above 1; got 0"),
    "a scoring": ({"alpha": elltwo.KFold(3, scoring="r2")}, "scoring"),
    "a seed for the folds": ({"alpha": "kfold", "random_state": 0}, "random_state must be None"),
    "leave-one-out by one standard error": ({"alpha": LOO(one_se=True)}, "one_se"),
}


@pytest.mark.parametrize("name", OPTIONS_WITHOUT_MEANING)
def test_option_that_batches_cannot_honour_is_refused(name: str) -> None:
    given, message = OPTIONS_WITHOUT_MEANING[name]
    model = Ridge(**given)
    with pytest.raises(InputError, match=message):
        model.partial_fit(X_BATCH, Y_BATCH)
    assert not hasattr(model, "coef_")


# ------------------------------------------------------------------------------------------ beside RidgeCV

ALPHAS = [0.1, 1.0, 10.0, 100.0, 1000.0]


def both(y: Array, weights: Array | None = None, **given: Any) -> tuple[RidgeCV, Any]:
    X, _ = data(targets=3)
    return tuple(m(ALPHAS, **given).fit(X, y, sample_weight=weights) for m in (RidgeCV, peer.RidgeCV))


def assert_alike(ours: RidgeCV, theirs: Any, *, score: bool = True) -> None:
    np.testing.assert_array_equal(ours.alpha_, theirs.alpha_)
    assert np.shape(ours.alpha_) == np.shape(theirs.alpha_)
    assert_same(ours, theirs, 1e-9)
    if score:
        np.testing.assert_allclose(ours.best_score_, theirs.best_score_, rtol=1e-9)
        assert np.shape(ours.best_score_) == np.shape(theirs.best_score_)


every_target = pytest.mark.parametrize(
    "y",
    [data(targets=3)[1][:, 1], data(targets=3)[1][:, :1], data(targets=3)[1]],
    ids=["y", "column", "three"],
)
weighted = pytest.mark.parametrize("weights", [None, weights_for(60)], ids=["unweighted", "weighted"])
SCORINGS = [
    "r2",
    "neg_mean_squared_error",
    "neg_root_mean_squared_error",
    "neg_mean_absolute_error",
    "neg_median_absolute_error",
    "explained_variance",
    make_scorer(mean_absolute_error, greater_is_better=False),
]
SCORING_NAMES = [*SCORINGS[:-1], "scorer"]


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("gcv_mode", [None, "auto", "svd", "eigen"])
@weighted
@every_target
def test_ridge_cv_leaves_one_out_as_scikit_learn_does(
    y: Array, weights: Array | None, gcv_mode: str | None, fit_intercept: bool
) -> None:
    ours, theirs = both(y, weights, gcv_mode=gcv_mode, fit_intercept=fit_intercept, store_cv_results=True)
    assert_alike(ours, theirs, score=weights is None)
    w = np.ones(60) if weights is None else weights
    # Their errors are times the weights, and their mean divides by n, not by the sum of the weights.
    np.testing.assert_allclose(ours.best_score_ * w.sum() / 60, theirs.best_score_, rtol=1e-9)
    assert ours.cv_results_.shape == theirs.cv_results_.shape
    scaled = ours.cv_results_ * w.reshape(-1, *([1] * (ours.cv_results_.ndim - 1)))
    np.testing.assert_allclose(scaled, theirs.cv_results_, rtol=1e-8, atol=1e-9 * theirs.cv_results_.max())


@pytest.mark.parametrize("scoring", SCORINGS, ids=SCORING_NAMES)
@weighted
@every_target
def test_ridge_cv_scores_left_out_rows_as_scikit_learn_does(
    y: Array, weights: Array | None, scoring: Any
) -> None:
    ours, theirs = both(y, weights, scoring=scoring, store_cv_results=True)
    assert_alike(ours, theirs)
    np.testing.assert_allclose(ours.cv_results_, theirs.cv_results_, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("scoring", [None, "r2", "neg_mean_squared_error"])
def test_ridge_cv_with_an_alpha_per_target_as_scikit_learn(scoring: str | None) -> None:
    y = data(targets=3)[1]
    y = y + np.random.default_rng(2).normal(size=y.shape) * [0.0, 20.0, 200.0]
    ours, theirs = both(y, scoring=scoring, alpha_per_target=True, store_cv_results=True)
    assert len(set(ours.alpha_)) > 1
    assert_alike(ours, theirs)


CVS: dict[str, Any] = {
    "int": 4,
    "numpy int": np.int64(3),
    "shuffled": KFold(4, shuffle=True, random_state=0),
    "shuffle split": ShuffleSplit(4, random_state=1),
    "repeated": RepeatedKFold(n_splits=3, n_repeats=2, random_state=2),
    "time": TimeSeriesSplit(3),
    "predefined": PredefinedSplit(np.arange(60) % 4 - 1),
    "list": list(KFold(3).split(np.zeros(60))),
}


@pytest.mark.parametrize("scoring", [None, *SCORINGS[:3]])
@pytest.mark.parametrize("cv", CVS)
@every_target
def test_ridge_cv_by_folds_as_scikit_learn(y: Array, cv: str, scoring: Any) -> None:
    assert_alike(*both(y, cv=CVS[cv], scoring=scoring))


def test_ridge_cv_by_folds_with_weights_fits_as_scikit_learn() -> None:
    """Their held-out score is weighted or not, by release; the fit at an only alpha is weighted in all."""
    X, y = data()
    ours, theirs = (m([3.0], cv=4).fit(X, y, sample_weight=weights_for(60)) for m in (RidgeCV, peer.RidgeCV))
    assert_same(ours, theirs, 1e-9)


def test_ridge_cv_of_sparse_rows_as_scikit_learn() -> None:
    X, y = sparse.csr_array(np.where(WHOLE > 6, WHOLE, 0)), TARGET
    ours, theirs = (m(ALPHAS, store_cv_results=True).fit(X, y) for m in (RidgeCV, peer.RidgeCV))
    assert_alike(ours, theirs)
    np.testing.assert_allclose(ours.cv_results_, theirs.cv_results_, rtol=1e-7)


@pytest.mark.parametrize("alphas", [2.0, [2.0], np.array([0.5, 2.0]), (1, 2), range(1, 4)], ids=repr)
def test_ridge_cv_takes_alphas_in_any_form(alphas: Any) -> None:
    X, y = data()
    ours = RidgeCV(alphas).fit(X, y)
    assert isinstance(ours.alpha_, float)
    assert ours.alpha_ in np.atleast_1d(np.asarray(alphas, dtype=float))
    np.testing.assert_allclose(ours.coef_, peer.Ridge(ours.alpha_).fit(X, y).coef_, rtol=1e-9)


def test_ridge_cv_keeps_the_errors_of_rows_of_weight_zero() -> None:
    """They have no say, but what is predicted for them is known, whatever the solver."""
    X, y = data()
    w = weights_for(60)
    w[7] = 0.0
    for mode in ("auto", "svd", "eigen"):
        ours = RidgeCV([2.0], gcv_mode=mode, store_cv_results=True).fit(X, y, sample_weight=w)
        error = y[7] - peer.Ridge(2.0).fit(X, y, sample_weight=w).predict(X[[7]])[0]
        np.testing.assert_allclose(ours.cv_results_[7, 0], error**2, rtol=1e-9)


# ----------------------------------------------------------------------------------------------- bad input

# Good rows, to be spoilt.
GX, GY = data()
TEXT = frame(GX).astype({"debt": object, "rent": object})
TEXT.loc[3, "debt"], TEXT.loc[4, "rent"] = "many", "none"
BAD_FITS: dict[str, tuple[Callable[[], Any], str]] = {
    "text in a pandas column": (lambda: Ridge().fit(TEXT, GY), "do not hold numbers: 'debt', 'rent'. Encode"),
    "text in a Polars column": (
        lambda: Ridge().fit(pl.DataFrame(frame(GX)).with_columns(pl.lit("a").alias("debt")), GY),
        "do not hold numbers: 'debt'",
    ),
    "dates": (lambda: Ridge().fit(pd.DataFrame({"day": pd.date_range("2020", periods=60)}), GY), "'day'"),
    "dates beside numbers": (
        lambda: Ridge().fit(frame(GX).assign(day=pd.date_range("2020", periods=60)), GY),
        "'day'",
    ),
    "repeated names": (lambda: Ridge().fit(pd.DataFrame(GX, columns=list("aabcd")), GY), "'a' 2 times"),
    "text in predict": (lambda: Ridge().fit(frame(GX), GY).predict(TEXT), "'debt', 'rent'"),
    "text in y": (lambda: Ridge().fit(GX, ["a"] * 60), "y has dtype|could not convert"),
    "no y": (lambda: Ridge().fit(GX, None), "requires y"),
    "NaN in y": (lambda: Ridge().fit(GX, with_value(GY, np.nan)), "y contains NaN"),
    "too few y": (lambda: Ridge().fit(GX, GY[:5]), r"inconsistent numbers of samples: \[60, 5\]"),
    "y of three dimensions": (lambda: Ridge().fit(GX, np.zeros((60, 2, 2))), "dim 3"),
    "X of one dimension": (lambda: Ridge().fit(GX[:, 0], GY), "Expected 2D array"),
    "no rows": (lambda: Ridge().fit(GX[:0], GY[:0]), "0 sample"),
    "no columns": (lambda: Ridge().fit(GX[:, :0], GY), "0 feature"),
    "one row": (lambda: Ridge().fit(GX[:1], GY[:1]), "at least 2 rows"),
    "complex": (lambda: Ridge().fit(GX * 1j, GY), "Complex data not supported"),
    "NaN in sparse X": (
        lambda: Ridge().fit(sparse.csr_array(with_value(GX, np.nan)), GY),
        r"1 value\(s\) in column\(s\) 'x3'",
    ),
    "complex weights": (lambda: Ridge().fit(GX, GY, np.ones(60) * 1j), "sample_weight has dtype complex"),
    "text as weights": (lambda: Ridge().fit(GX, GY, ["a"] * 60), "sample_weight has dtype"),
    "objects as weights": (lambda: Ridge().fit(GX, GY, [{}] * 60), "sample_weight holds values"),
    "too few weights": (lambda: Ridge().fit(GX, GY, [1.0, 2.0]), r"sample_weight has shape \(2,\)"),
    "table of weights": (lambda: Ridge().fit(GX, GY, np.ones((60, 1))), r"sample_weight has shape \(60, 1\)"),
    "negative weight": (lambda: Ridge().fit(GX, GY, with_value(np.ones(60), -2)), "row 3 has weight -2"),
    "more folds than rows": (lambda: RidgeCV(cv=100).fit(GX, GY), "100 folds need at least 100 rows"),
    "intercept as text": (
        lambda: Ridge(fit_intercept="no").fit(GX, GY),
        "fit_intercept must be True or False",
    ),
    "standardize as number": (lambda: Ridge(standardize=1).fit(GX, GY), "standardize must be True or False"),
    "per target as text": (lambda: RidgeCV(alpha_per_target="yes").fit(GX, GY), "alpha_per_target must be"),
    "seed as text": (lambda: Ridge("kfold", random_state="a").fit(GX, GY), "random_state must be .* got 'a'"),
    "negative seed": (lambda: Ridge("kfold", random_state=-1).fit(GX, GY), "random_state must be"),
    "unknown gcv_mode": (lambda: RidgeCV(gcv_mode="magic").fit(GX, GY), "gcv_mode must be .* got 'magic'"),
    "negative alphas": (lambda: RidgeCV([-1.0, 1.0]).fit(GX, GY), "alpha must be finite and not negative"),
    "alphas as text": (lambda: RidgeCV("many").fit(GX, GY), "alpha must be .* got 'many'"),
    "no alphas": (lambda: RidgeCV([]).fit(GX, GY), "alpha must be"),
    "unknown scoring": (lambda: RidgeCV(scoring="goodness").fit(GX, GY), "'goodness' is not a valid scoring"),
    "cv as text": (lambda: RidgeCV(cv="five").fit(GX, GY), "Expected `cv` as an integer"),
    "one fold": (lambda: RidgeCV(cv=1).fit(GX, GY), "at least 2 folds"),
    "results of folds": (
        lambda: RidgeCV(cv=3, store_cv_results=True).fit(GX, GY),
        "store_cv_results needs leave-one-out",
    ),
    "other columns in predict": (lambda: Ridge().fit(GX, GY).predict(GX[:, :3]), "3 features, but Ridge"),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_bad_input_is_refused_with_a_message(name: str) -> None:
    call, message = BAD_FITS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_predicting_before_fitting_is_scikit_learns_error() -> None:
    for model in (Ridge(), RidgeCV()):
        with pytest.raises(NotFittedError):
            model.predict(GX)


@pytest.mark.parametrize("solver", ["auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga", "lbfgs"])
def test_the_solvers_and_arguments_of_scikit_learns_ridge_give_its_model(solver: str) -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60, 4))
    y = X @ [1.0, -2.0, 0.5, 0.0] + 3 + rng.normal(size=60)
    w = rng.uniform(0.5, 2.0, size=60)
    kept = X.copy()
    model = Ridge(2.0, copy_X=False, max_iter=2000, positive=False, solver=solver, random_state=0)
    model.fit(X, y, w)
    centred = X - np.average(X, axis=0, weights=w)
    theta = np.linalg.solve(centred.T @ (w[:, None] * centred) + 2 * np.eye(4), centred.T @ (w * y))
    np.testing.assert_allclose(model.coef_, theta, rtol=1e-7, atol=1e-8)
    assert np.array_equal(X, kept)
    assert Status.NOT_CONVERGED not in model.fit_.status


@pytest.mark.parametrize("solver", ["gradient", "sgd", "sparse_cg"])
def test_max_iter_limits_the_solvers_that_iterate(solver: str) -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60, 4)) * [1.0, 30.0, 0.1, 1.0]
    y = X @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=60)
    short, long = (Ridge(0.1, solver=solver, max_iter=most).fit(X, y) for most in (1, 2000))
    exact = np.linalg.solve((X - X.mean(0)).T @ (X - X.mean(0)) + 0.1 * np.eye(4), (X - X.mean(0)).T @ y)
    np.testing.assert_allclose(long.coef_, exact, rtol=1e-6, atol=1e-7)
    assert np.abs(short.coef_ - exact).max() > 10 * np.abs(long.coef_ - exact).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive": True}, r"positive=True is not supported.*sklearn.linear_model.Ridge"),
        ({"max_iter": 0}, "max_iter must be None or a whole number"),
        ({"max_iter": 2.5}, "max_iter must be None or a whole number"),
        ({"copy_X": "no"}, "copy_X must be True or False"),
        ({"solver": "newton_cg"}, "solver 'newton_cg' is not known.*Did you mean 'newton-cg'"),
    ],
)
def test_arguments_of_scikit_learns_ridge_that_cannot_be_used_are_refused(options, message) -> None:
    with pytest.raises(InputError, match=message):
        Ridge(1.0, **options).fit(np.eye(3), np.arange(3.0))
