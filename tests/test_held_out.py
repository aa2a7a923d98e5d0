"""The confusion table of held-out rows is that of refits without them."""

import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import GroupKFold, LeaveOneOut
from sklearn.preprocessing import StandardScaler

import elltwo
from elltwo import fitting, quality
from elltwo.interfaces.cli.main import cli

N = 90
FEATURES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(8)
    X = rng.normal(size=(N, 3)) * [1.0, 5.0, 0.1]
    eta = np.stack([X[:, 0], X[:, 1] / 5, 10 * X[:, 2]], axis=1)
    kind = np.array(["x", "y", "z"])[(eta + rng.gumbel(size=(N, 3))).argmax(axis=1)]
    return pl.DataFrame(
        {
            **dict(zip(FEATURES, X.T, strict=True)),
            "kind": kind,
            "pair": np.where(kind == "x", "left", "right"),
            "group": rng.integers(0, 12, N),
            "time": rng.permutation(N),
            "times": rng.integers(1, 4, N),
        }
    )


def refits(table, target, alpha, folds, weights=None):
    """Return label and prediction of every held-out row, from scikit-learn fitted to the other rows."""
    X, y = table.select(FEATURES).to_numpy(), table[target].to_numpy()
    w = np.ones(N) if weights is None else weights
    peer = LogisticRegression(C=1 / alpha, tol=1e-10, max_iter=10_000)
    truth, found, rows = [], [], []
    for train, test in folds:
        scale = StandardScaler().fit(X[train], sample_weight=w[train])
        model = clone(peer).fit(scale.transform(X[train]), y[train], sample_weight=w[train])
        truth += list(y[test])
        found += list(model.predict(scale.transform(X[test])))
        rows += list(test)
    return np.array(truth), np.array(found), np.array(rows)


@pytest.mark.parametrize(("target", "family"), [("pair", "binomial"), ("kind", "multinomial")])
def test_folds_give_the_confusion_of_refits(table, target, family):
    fitted = elltwo.fit(table, target, features=FEATURES, family=family, group="group", folds=4)
    folds = GroupKFold(4).split(table, groups=table["group"].to_numpy())
    truth, found, _ = refits(table, target, fitted.alpha[0], folds)
    held = fitted.quality["held_out"]
    assert held["confusion"] == confusion_matrix(truth, found).tolist()
    assert held["accuracy"] == pytest.approx(np.mean(truth == found))
    assert held["by"] == "kfold"
    assert held["confusion"] != fitted.quality["confusion"]


def test_weights_that_count_and_weights_of_classes(table):
    balance = {"left": 3.0, "right": 0.5}
    options = {"features": FEATURES, "family": "binomial", "group": "group", "folds": 3}
    counted = elltwo.fit(table, "pair", weights="times", weights_are="frequency", **options)
    w = table["times"].to_numpy()
    folds = list(GroupKFold(3).split(table, groups=table["group"].to_numpy()))
    truth, found, rows = refits(table, "pair", counted.alpha[0], folds, w.astype(float))
    expected = confusion_matrix(truth, found, sample_weight=w[rows])
    assert counted.quality["held_out"]["confusion"] == expected.tolist()
    weighted = elltwo.fit(table, "pair", class_weight=balance, **options)
    each = np.array([balance[label] for label in table["pair"]])
    truth, found, rows = refits(table, "pair", weighted.alpha[0], folds, each)
    held = weighted.quality["held_out"]
    assert held["confusion"] == confusion_matrix(truth, found).tolist()
    assert held["accuracy"] == pytest.approx(np.mean(truth == found))


def test_one_row_left_out_at_a_time_is_close_to_the_refits(table):
    fitted = elltwo.fit(table, "kind", features=FEATURES, family="multinomial")
    truth, found, _ = refits(table, "kind", fitted.alpha[0], LeaveOneOut().split(table))
    held = np.array(fitted.quality["held_out"]["confusion"])
    # One Newton step stands for each refit, and standardising keeps the row: single rows may differ.
    assert np.abs(held - confusion_matrix(truth, found)).sum() <= 4
    assert held.sum() == N


def test_only_rows_that_are_held_out_are_counted(table):
    fitted = elltwo.fit(table, "pair", features=FEATURES, family="binomial", time="time", folds=5)
    assert np.sum(fitted.quality["held_out"]["confusion"]) == N * 5 / 6


def test_margins_of_each_class_against_the_rest(table):
    fitted = elltwo.fit(table, "kind", features=FEATURES, model="svm", alpha_per_target=True, folds=3)
    assert np.sum(fitted.quality["held_out"]["confusion"]) == N


def test_the_summary_and_the_model_file_show_what_was_held_out(tmp_path, table, monkeypatch):
    table.write_csv(tmp_path / "t.csv")
    monkeypatch.setattr(fitting, "KEPT_BYTES", 0)  # a file that is streamed
    result = CliRunner().invoke(
        cli,
        [
            "fit",
            str(tmp_path / "t.csv"),
            "-t",
            "kind",
            "--family",
            "multinomial",
            "--features",
            "a,b,c",
            "--seed",
            "3",
            "-o",
            str(tmp_path / "m.safetensors"),
        ],
    )
    assert result.exit_code == 0
    shown = CliRunner().invoke(cli, ["show", str(tmp_path / "m.safetensors"), "--json"])
    held = json.loads(shown.stdout)["quality"]["held_out"]
    text = " ".join(result.stdout.split())
    assert "Held out by cross-validation: rows predicted by a model that did not see them" in text
    assert f"accuracy {held['accuracy']:.4f} by cross-validation" in text
    for label, row in zip("xyz", held["confusion"], strict=True):
        assert " ".join([label, *(f"{count:g}" for count in row)]) in text


def test_without_held_out_rows_the_table_is_in_sample(table):
    for options in ({"alpha": 1.0}, {"select": "aic"}):
        fitted = elltwo.fit(table, "pair", features=FEATURES, family="binomial", **options)
        assert fitted.quality["held_out"] is None
        assert "In sample: rows that the model was fitted to." in fitted.summary()


def test_very_many_rows_on_disk_are_not_predicted_again(tmp_path, table, monkeypatch):
    table.write_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr(quality, "MOST_ROWS", N - 1)
    monkeypatch.setattr(fitting, "KEPT_BYTES", 0)
    fitted = elltwo.fit(tmp_path / "t.parquet", "pair", features=FEATURES, family="binomial", folds=3)
    assert fitted.quality["held_out"] is None
    assert "Accuracy not computed" in " ".join(fitted.summary().split())
