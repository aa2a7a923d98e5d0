"""What weights of rows are: frequencies against the rows repeated, and nothing that hangs on a data type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from click.testing import CliRunner

import elltwo
from elltwo import (
    AIC,
    BIC,
    GCV,
    GLM,
    LOO,
    REML,
    ElasticNet,
    InputError,
    KernelLogisticRegression,
    KernelRidge,
    KFold,
    LinearSVC,
    LinearSVR,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    SparseLogisticRegression,
    Status,
)
from elltwo.data.weights import WEIGHTS_ARE, as_counts
from elltwo.interfaces.cli.main import cli
from elltwo.modelfile import read, write

Array = np.ndarray
RNG = np.random.default_rng(8)
N, P = 36, 3
X = RNG.normal(size=(N, P)) + 1.0
ETA = (X - 1) @ [1.0, -0.7, 0.0]
W = np.arange(N) % 4
TIMES = np.repeat(np.arange(N), W)
Y: dict[str, Array] = {
    "numbers": ETA + RNG.normal(size=N),
    "counts": RNG.poisson(np.exp(ETA / 2)),
    "two": np.where(ETA + RNG.logistic(size=N) > 0, "yes", "no"),
    "three": np.array(["a", "b", "c"])[(RNG.gumbel(size=(N, 3)) + np.outer(ETA, [0, 1, -1])).argmax(axis=1)],
}
ALPHAS = np.array([0.1, 1.0, 10.0, 100.0])
#: Folds of rows, and the same folds of the repeated rows.
FOLDS = [(np.flatnonzero(np.arange(N) % 3 != k), np.flatnonzero(np.arange(N) % 3 == k)) for k in range(3)]
AGAIN = [tuple(np.flatnonzero(np.isin(TIMES, part)) for part in pair) for pair in FOLDS]

#: name: (target, estimator of a rule, rules)
SPECTRAL = (LOO(ALPHAS), GCV(ALPHAS), REML(ALPHAS), AIC(ALPHAS), BIC(ALPHAS), KFold(FOLDS, ALPHAS), 2.0)
LIKELIHOOD = (LOO(ALPHAS), AIC(ALPHAS), KFold(FOLDS, ALPHAS))
MODELS: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
    "ridge": ("numbers", Ridge, SPECTRAL),
    "orthogonal": ("numbers", lambda a, **k: Ridge(a, solver="orthogonal", standardize=True, **k), SPECTRAL),
    "cholesky": ("numbers", lambda a, **k: Ridge(a, solver="cholesky", **k), (LOO(ALPHAS), GCV(ALPHAS))),
    "dual": ("numbers", lambda a, **k: Ridge(a, solver="dual", **k), SPECTRAL),
    "kernel": ("numbers", lambda a, **k: KernelRidge(a, kernel="rbf", standardize=True, **k), SPECTRAL),
    "poisson": ("counts", lambda a, **k: GLM("poisson", a, **k), LIKELIHOOD),
    "negative binomial": ("counts", lambda a, **k: GLM("negative-binomial", a, **k), LIKELIHOOD),
    "huber": ("numbers", lambda a, **k: GLM("huber", a, epsilon=1.0, **k), (LOO(ALPHAS),)),
    "svr": ("numbers", lambda a, **k: LinearSVR(a, epsilon=0.2, **k), (LOO(ALPHAS),)),
    "logistic": ("two", LogisticRegression, LIKELIHOOD),
    "multinomial": ("three", LogisticRegression, LIKELIHOOD),
    "svc": ("two", LinearSVC, (LOO(ALPHAS),)),
    "ridge of classes": ("three", RidgeClassifier, (LOO(ALPHAS), GCV(ALPHAS))),
    "kernel logistic": ("two", KernelLogisticRegression, LIKELIHOOD),
    "elastic net": ("numbers", ElasticNet, (LOO(ALPHAS), GCV(ALPHAS), AIC(ALPHAS), KFold(FOLDS, ALPHAS))),
    "sparse poisson": ("counts", lambda a, **k: ElasticNet(a, family="poisson", **k), LIKELIHOOD[1:]),
    "sparse logistic": ("two", SparseLogisticRegression, LIKELIHOOD[:1]),
}


@pytest.mark.parametrize("name", MODELS)
def test_frequencies_are_repeated_rows_for_every_model_and_rule(name: str) -> None:
    target, make, rules = MODELS[name]
    y = Y[target]
    for rule in rules:
        again = KFold(AGAIN, ALPHAS) if isinstance(rule, KFold) else rule
        one = make(rule, weights_are="frequency").fit(X, y, sample_weight=W.astype(float))
        many = make(again).fit(X[TIMES], y[TIMES])
        assert one.alpha_ == many.alpha_
        if one.path_.score is not None:
            np.testing.assert_allclose(one.path_.score, many.path_.score, rtol=1e-6)
        if isinstance(rule, LOO):
            np.testing.assert_allclose(one.path_.score_se, many.path_.score_se, rtol=1e-6)
        np.testing.assert_allclose(one.fit_.df, many.fit_.df, rtol=1e-7)
        np.testing.assert_allclose(one.fit_.n_observations, len(TIMES), rtol=1e-12)
        both = [m.decision_function(X) if hasattr(m, "classes_") else m.predict(X) for m in (one, many)]
        np.testing.assert_allclose(*both, rtol=0, atol=1e-7 * np.abs(both[1]).max())
        assert one.fit_.weights == "frequency"


def test_frequencies_are_repeated_rows_for_ridge_cv_and_batches() -> None:
    y = Y["numbers"]
    one = RidgeCV(ALPHAS, weights_are="frequency").fit(X, y, W)
    many = RidgeCV(ALPHAS).fit(X[TIMES], y[TIMES])
    assert (one.alpha_, one.best_score_) == (many.alpha_, pytest.approx(many.best_score_))
    part = Ridge(BIC(ALPHAS), weights_are="frequency")
    for rows in (slice(0, 20), slice(20, N)):
        part.partial_fit(X[rows], y[rows], W[rows])
    whole = Ridge(BIC(ALPHAS)).fit(X[TIMES], y[TIMES])
    np.testing.assert_allclose(part.coef_, whole.coef_, rtol=1e-9)
    assert (part.alpha_, part.fit_.weights) == (whole.alpha_, "frequency")
    assert Status.WHOLE_WEIGHTS not in part.fit_.status
    analytic = Ridge(2.0).partial_fit(X[:20], y[:20], W[:20])
    assert Status.WHOLE_WEIGHTS in analytic.fit_.status
    assert Status.WHOLE_WEIGHTS not in analytic.partial_fit(X[20:], y[20:], W[20:] / 2).fit_.status
    with pytest.raises(InputError, match="is now 'analytic', but weights of earlier batches were 'freq"):
        part.set_params(weights_are="analytic").partial_fit(X, y, W)


TYPES: dict[str, Callable[[Array], Any]] = {
    "uint8": lambda w: w.astype(np.uint8),
    "float": lambda w: w.astype(float),
    "float32": lambda w: w.astype(np.float32),
    "object": lambda w: w.astype(object),
    "nullable": lambda w: pd.Series(w).astype("Int64"),
    "beside a gap": lambda w: pd.Series([*w.tolist(), None]).iloc[:-1],
    "polars": lambda w: pl.Series(w, dtype=pl.Float32),
}


@pytest.mark.parametrize("weights_are", WEIGHTS_ARE)
@pytest.mark.parametrize("name", ["ridge", "poisson", "three", "kernel", "elastic net"])
def test_the_type_of_weights_changes_no_bit(name: str, weights_are: str) -> None:
    target, make, (rule, *_) = MODELS["ridge of classes" if name == "three" else name]
    want = make(rule, weights_are=weights_are).fit(X, Y[target], sample_weight=W)
    kept = "dual_coef_" if name == "kernel" else "coef_"
    for convert in TYPES.values():
        found = make(rule, weights_are=weights_are).fit(X, Y[target], sample_weight=convert(W))
        for attribute in (kept, "intercept_", "alpha_"):
            np.testing.assert_array_equal(getattr(found, attribute), getattr(want, attribute))
        np.testing.assert_array_equal(found.path_.score, want.path_.score)


def test_leave_one_out_leaves_an_analytic_row_out_whole() -> None:
    """By definition, with weights of an integer type."""
    y = Y["numbers"]
    errors = [
        Ridge(1.0).fit(np.delete(X, i, 0), np.delete(y, i), np.delete(W, i)).predict(X[[i]])[0] - y[i]
        for i in range(N)
    ]
    model = Ridge(LOO([1.0])).fit(X, y, W)
    np.testing.assert_allclose(model.path_.score[0], W @ np.square(errors) / W.sum(), rtol=1e-10)
    assert model.fit_.n_observations == np.count_nonzero(W)


# ---------------------------------------------------------------------------------------------- tables

TABLE = pd.DataFrame(X, columns=["a", "b", "c"]).assign(**Y, copies=W)


@pytest.mark.parametrize("kind", ["bayes", "model", "sandwich"])
@pytest.mark.parametrize(
    ("target", "family", "alpha"),
    [("numbers", "gaussian", None), ("counts", "poisson", 2.0), ("two", "binomial", 2.0)],
)
def test_a_table_of_frequencies_says_what_the_repeated_rows_say(
    target: str, family: str, alpha: float | None, kind: str
) -> None:
    options: dict[str, Any] = {
        "features": ["a", "b", "c"],
        "family": family,
        "inference": kind,
        "alpha": alpha,
    }
    one = elltwo.fit(TABLE, target, weights="copies", weights_are="frequency", **options).to_dict()
    many = elltwo.fit(TABLE.iloc[TIMES], target, **options).to_dict()
    assert (one["weights"], one["weights_column"], one["observations"]) == ("frequency", "copies", len(TIMES))
    assert many["weights"] == "none"
    mine, theirs = one["targets"][0], many["targets"][0]
    assert mine["residual_df"] == pytest.approx(W.sum() - mine["df"] - 1, rel=1e-9)
    close(mine, theirs)
    for name in ("dispersion", "residual_df"):
        close(one["inference"][name], many["inference"][name])
    if family == "binomial":
        for name in ("accuracy", "auc", "confusion", "log_loss"):
            close(one["quality"][name], many["quality"][name])


def close(found: Any, want: Any) -> None:
    """Compare plain JSON values, numbers to what a refined alpha's six digits leave."""
    if isinstance(want, dict):
        assert found.keys() == want.keys()
        for key in want:
            close(found[key], want[key])
    elif isinstance(want, list):
        assert len(found) == len(want)
        for a, b in zip(found, want, strict=True):
            close(a, b)
    else:
        assert found == (pytest.approx(want, rel=1e-5, abs=1e-8) if isinstance(want, float) else want)


def test_frequencies_leave_one_residual_degree_of_freedom_for_each_observation() -> None:
    """600 rows that stand for 1,200 observations, as text files and data frames store them."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(600, 2)), columns=["a", "b"])
    table = table.assign(y=table["a"] + rng.normal(size=600), n=np.tile([1, 2, 3], 200))
    fitted = elltwo.fit(table, "y", weights="n", weights_are="frequency", alpha=5.0)
    target = fitted.to_dict()["targets"][0]
    assert target["residual_df"] == pytest.approx(1200 - target["df"] - 1, rel=1e-12)
    same = elltwo.fit(table.astype({"n": float}), "y", weights="n", weights_are="frequency", alpha=5.0)
    assert same.to_dict() == fitted.to_dict()
    analytic = elltwo.fit(table, "y", weights="n", alpha=5.0)
    df = analytic.to_dict()["targets"][0]
    assert df["residual_df"] == pytest.approx(600 - df["df"] - 1, rel=1e-12)
    np.testing.assert_allclose(analytic.coef, fitted.coef, rtol=1e-12)


def test_files_give_the_same_model_however_they_write_the_weights(tmp_path: Path) -> None:
    found = []
    for text in (str, lambda w: f"{w}.0", lambda w: f"{w:.3e}"):
        path = tmp_path / "t.csv"
        rows = [f"{a},{y},{text(w)}" for a, y, w in zip(X[:, 0], Y["numbers"], W, strict=True)]
        path.write_text("\n".join(["a,y,w", *rows]))
        found.append(
            {
                k: elltwo.fit(str(path), "y", weights="w", weights_are=k, select=GCV(ALPHAS))
                for k in WEIGHTS_ARE
            }
        )
    for one in found[1:]:
        for weights_are in WEIGHTS_ARE:
            assert one[weights_are].to_dict() == found[0][weights_are].to_dict()
    assert found[0]["analytic"].alpha != found[0]["frequency"].alpha


def test_the_summary_says_what_the_weights_were_taken_for(tmp_path: Path) -> None:
    def line(label: str, text: str) -> str:
        return next(line for line in text.splitlines() if line.startswith(label))

    path = tmp_path / "t.csv"
    TABLE[["a", "numbers", "copies"]].to_csv(path, index=False)
    run = ["fit", str(path), "-t", "numbers", "--weights", "copies"]
    shown = CliRunner().invoke(cli, run).output
    assert line("Weights", shown).split(None, 1)[1].startswith("column copies, analytic (precision): 27 obs")
    assert "use weights_are='frequency'" in " ".join(shown.split())
    shown = CliRunner().invoke(cli, [*run, "--weights-are", "frequency"]).output
    assert line("Weights", shown).split(None, 1)[1] == "column copies, frequency: 54 observations in 27 rows"
    assert "weights_are" not in shown
    facts = json.loads(CliRunner().invoke(cli, [*run, "--weights-are", "frequency", "--json"]).stdout)
    assert (facts["weights"], facts["weights_column"]) == ("frequency", "copies")


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_the_command_line_offers_every_kind(command: str) -> None:
    (option,) = (o for o in cli.commands[command].params if o.name == "weights_are")
    assert (tuple(option.type.choices), option.default) == (WEIGHTS_ARE, "analytic")


# ------------------------------------------------------------------------------------- notes and refusals


@pytest.mark.parametrize("name", ["ridge", "poisson", "logistic", "kernel", "kernel logistic", "elastic net"])
def test_a_note_says_when_analytic_weights_look_like_frequencies(name: str) -> None:
    target, make, _ = MODELS[name]

    def noted(weights: Array | None, **options: Any) -> bool:
        fit = make(1.0, **options).fit(X, Y[target], sample_weight=weights).fit_
        assert fit.status.count(Status.WHOLE_WEIGHTS) <= 1
        return Status.WHOLE_WEIGHTS in fit.status

    assert noted(W)
    assert noted(W.astype(float))
    assert not noted(None)
    assert not noted(W > 0)
    assert not noted(W + 0.5)
    assert not noted(W, weights_are="frequency")
    if target == "two":
        assert not noted(None, class_weight={"yes": 3.0})


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "not whole": (
        lambda: Ridge(weights_are="frequency").fit(X, Y["numbers"], np.where(np.arange(N) == 7, 1.5, W)),
        "needs whole numbers.*row 7 has weight 1.5.*use weights_are='analytic'",
    ),
    "not whole, classes": (
        lambda: LogisticRegression(weights_are="frequency").fit(X, Y["two"], W / 2),
        "needs whole numbers.*row 1 has weight 0.5",
    ),
    "negative": (
        lambda: Ridge(weights_are="frequency").fit(X, Y["numbers"], W - 1.0),
        "must not be negative; row 0 has weight -1",
    ),
    "no such kind": (
        lambda: Ridge(weights_are="frequencies").fit(X, Y["numbers"]),
        "weights_are must be 'analytic'.*got 'frequencies'. Did you mean 'frequency'",
    ),
    "not text": (lambda: as_counts(True), "weights_are must be 'analytic'.*got True"),
    "class weights": (
        lambda: LogisticRegression(weights_are="frequency", class_weight="balanced").fit(X, Y["two"], W),
        "class_weight multiplies.*Give every observation a row of its own, or use weights_are='analytic'",
    ),
    "class weights of a table": (
        lambda: elltwo.fit(
            TABLE, "two", family="auto", weights="copies", weights_are="frequency", class_weight="balanced"
        ),
        "class_weight multiplies",
    ),
    "a column that is not whole": (
        lambda: elltwo.fit(TABLE.assign(copies=W / 2), "numbers", weights="copies", weights_are="frequency"),
        "column 'copies' must be.*whole: 18 not whole, first in row 2.*weights_are='analytic'",
    ),
    "a gap": (
        lambda: elltwo.fit(
            TABLE.assign(copies=TABLE["copies"].where(W < 3)),
            "numbers", features=["a"], weights="copies", weights_are="frequency",
        ),
        r"'copies' must be.*9 missing \(or NaN\), first in row 4",
    ),
    "no weights": (
        lambda: elltwo.fit(TABLE, "numbers", features=["a"], weights_are="frequency"),
        "says what weights are, and there are none. Name their column",
    ),
    "no weights to compare": (
        lambda: elltwo.compare(TABLE, "numbers", features=["a"], weights_are="frequency"),
        "there are none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_weights_that_cannot_be_what_they_are_said_to_be(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(InputError, match=message):
        make()


def test_what_the_messages_advise_works() -> None:
    halves = np.where(np.arange(N) == 7, 1.5, W)
    assert Ridge(weights_are="analytic").fit(X, Y["numbers"], halves).fit_.weights == "analytic"
    options: dict[str, Any] = {"class_weight": "balanced"}
    analytic = LogisticRegression(1.0, weights_are="analytic", **options).fit(X, Y["two"], W)
    rows = LogisticRegression(1.0, weights_are="frequency", **options).fit(X[TIMES], Y["two"][TIMES])
    np.testing.assert_allclose(analytic.coef_, rows.coef_, rtol=1e-8)
    assert rows.fit_.weights == "analytic"


def test_scores_take_weights_of_any_kind() -> None:
    y = Y["counts"]
    model = GLM("poisson", 1.0, weights_are="frequency").fit(X, y, W)
    assert model.score(X, y, W / 2) == pytest.approx(model.score(X[TIMES], y[TIMES]), rel=1e-9)


@pytest.mark.parametrize(("old", "new"), [("counts", "frequency"), ("precisions", "analytic")])
def test_model_files_of_earlier_versions_keep_their_meaning(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "m.safetensors"
    fitted = elltwo.fit(TABLE, "numbers", features=["a", "b"], weights="copies", weights_are=new, alpha=1.0)
    fitted.save(path)
    again = elltwo.load(path)
    assert (again.weights, again.weights_column, again.summary()) == (new, "copies", fitted.summary())
    arrays, metadata = read(path)
    del metadata["weights_column"]
    write(path, arrays, metadata | {"weights": old})
    found = elltwo.load(path)
    assert (found.weights, found.weights_column) == (new, None)
    assert found.n_observations == fitted.n_observations
    assert found.to_dict() == fitted.to_dict() | {"weights_column": None}
