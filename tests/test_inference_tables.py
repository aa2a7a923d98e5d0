"""Standard errors as a user of tables meets them: `elltwo.fit`, the commands, the summary, the model file."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from click.testing import CliRunner
from scipy import stats
from sklearn.preprocessing import StandardScaler

import elltwo
from elltwo import Ridge, RidgeCV, inference
from elltwo.errors import InputError, ModelFileError
from elltwo.inference import stored
from elltwo.interfaces.cli import fit as fit_command
from elltwo.interfaces.cli.main import cli
from elltwo.summary import WIDTH
from shapes import weights_kind

N = 160
FAMILIES = {
    "gaussian": sm.families.Gaussian(),
    "binomial": sm.families.Binomial(),
    "poisson": sm.families.Poisson(),
}
TARGETS = {"gaussian": "number", "binomial": "label", "poisson": "calls"}
RATIO = {"binomial": "odds_ratio", "poisson": "rate_ratio"}
FEATURES = ["a", "b", "c"]


def run(*arguments):
    """Run a command that must succeed and return its result."""
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="elltwo")
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    """Run a command that must be refused and return its message."""
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="elltwo")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(N, 3)) * [1.0, 3.0, 0.2] + [0.0, 20.0, -1.0]
    eta = 0.8 * X[:, 0] - 0.3 * (X[:, 1] - 20) + X[:, 2] + 1
    kinds = np.stack([eta, np.zeros(N), -eta], axis=1) + rng.gumbel(size=(N, 3))
    return pl.DataFrame(
        {
            **dict(zip(FEATURES, X.T, strict=True)),
            "number": eta + rng.normal(size=N),
            "second": -eta + rng.normal(size=N),
            "label": np.where(rng.random(N) < 1 / (1 + np.exp(-eta)), "good", "bad"),
            "calls": rng.poisson(np.exp(0.4 * eta)),
            "kind": np.array(["x", "y", "z"])[kinds.argmax(axis=1)],
            "size": rng.integers(1, 4, N),
        }
    )


@pytest.fixture
def path(tmp_path, table):
    table.write_csv(tmp_path / "table.csv")
    return tmp_path / "table.csv"


def fit(table, target, **options):
    return elltwo.fit(table, target, features=FEATURES, **options)


def response(table, family):
    y = table[TARGETS[family]].to_numpy()
    return (y == "good").astype(float) if family == "binomial" else y.astype(float)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_without_a_penalty_gives_what_statsmodels_does(path, table, family):
    given = ["--family", family, "--alpha", 0, "--inference", "model", "--level", 0.9, "--features", "a,b,c"]
    facts = json.loads(run("fit", path, "-t", TARGETS[family], *given, "--json").stdout)
    X = sm.add_constant(table.select(FEATURES).to_numpy(), prepend=False)
    peer = sm.GLM(response(table, family), X, FAMILIES[family]).fit(
        tol=1e-14, maxiter=100, use_t=family == "gaussian"
    )
    rows = {row["feature"]: row for row in facts["targets"][0]["coefficients"]}
    bounds = peer.conf_int(0.1)
    for j, name in enumerate(FEATURES):
        row = rows[name]
        found = [row[key] for key in ("coef", "std_error", "low", "high", "statistic", "p_value")]
        expected = [peer.params[j], peer.bse[j], *bounds[j], peer.tvalues[j], peer.pvalues[j]]
        assert found == pytest.approx(expected, rel=1e-6)
        if family in RATIO:
            ratios = [row[f"{RATIO[family]}_{end}"] for end in ("low", "high")]
            assert ratios == pytest.approx(np.exp(bounds[j]), rel=1e-6)
    target = facts["targets"][0]
    assert target["intercept_std_error"] == pytest.approx(peer.bse[-1], rel=1e-6)
    assert [target["intercept_low"], target["intercept_high"]] == pytest.approx(bounds[-1], rel=1e-6)
    assert facts["inference"]["dispersion"] == pytest.approx([peer.scale], rel=1e-6)


def test_the_bayesian_standard_errors_of_standardised_ridge_are_those_of_its_posterior(table):
    fitted = fit(table, "number", alpha=30.0, inference="bayes")
    scaler = StandardScaler().fit(table.select(FEATURES).to_numpy())
    Z = scaler.transform(table.select(FEATURES).to_numpy())
    y = table["number"].to_numpy()
    inverse = np.linalg.inv(Z.T @ Z + 30 * np.eye(3))
    theta = inverse @ Z.T @ (y - y.mean())
    F = inverse @ Z.T @ Z
    left = N - 1 - np.trace(F)
    phi = ((y - y.mean() - Z @ theta) ** 2).sum() / left
    se = np.sqrt(phi * inverse.diagonal()) / scaler.scale_
    assert fitted.inference.standard_errors().coef[:, 0] == pytest.approx(se, rel=1e-9)
    half = stats.t.ppf(0.975, left) * se
    row = {r["feature"]: r for r in fitted.to_dict()["targets"][0]["coefficients"]}["b"]
    assert [row["low"], row["high"]] == pytest.approx([row["coef"] - half[1], row["coef"] + half[1]])
    assert "p_value" not in row
    facts = fitted.to_dict()  # one residual scale in one summary, with inference and without
    assert facts["targets"][0]["residual_df"] == pytest.approx(left, rel=1e-9)
    assert facts["targets"][0]["residual_standard_error"] == pytest.approx(phi**0.5, rel=1e-9)
    assert facts["inference"]["residual_df"] == pytest.approx([left], rel=1e-9)
    assert facts["inference"]["dispersion"] == pytest.approx([phi], rel=1e-9)


@pytest.mark.parametrize("kind", inference.KINDS)
@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("number", {}),
        (["number", "second"], {"alpha_per_target": True}),
        ("label", {"family": "binomial"}),
        ("calls", {"family": "negative-binomial", "dispersion": 0.5, "weights": "size"}),
        ("kind", {"family": "multinomial"}),
        ("calls", {"family": "poisson", "exposure": "size"}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_model_file_keeps_what_its_intervals_need(tmp_path, table, target, options, kind):
    fitted = fit(table, target, inference=kind, level=0.8, **options)
    fitted.save(tmp_path / "m.safetensors")
    loaded = elltwo.load(tmp_path / "m.safetensors")
    assert loaded.summary() == fitted.summary()
    assert loaded.to_dict() == fitted.to_dict()
    for level in (None, 0.5):
        mine, kept = (f.predict_interval(table, level) for f in (fitted, loaded))
        np.testing.assert_allclose(mine, kept, rtol=1e-9)
        mean = fitted.predict_proba(table) if fitted.classes else fitted.predict(table)
        assert ((mine[..., 0] < mean) & (mean < mine[..., 1])).all()
    np.testing.assert_allclose(
        loaded.inference.covariance(), fitted.inference.covariance(kind), rtol=1e-9, atol=1e-15
    )
    other = next(k for k in inference.KINDS if k != kind)
    with pytest.raises(InputError, match=f"keeps the kind '{kind}' only"):
        loaded.inference.standard_errors(other)


def test_intervals_of_predictions_are_those_of_the_delta_method(table):
    fitted = fit(table, "label", family="binomial", alpha=2.0, inference="bayes")
    X = np.column_stack([table.select(FEATURES).to_numpy(), np.ones(N)])
    V = fitted.inference.covariance()[0]
    eta = X @ np.append(fitted.coef, fitted.intercept)
    half = stats.norm.ppf(0.9) * np.sqrt(np.einsum("ij,jk,ik->i", X, V, X))
    found = fitted.predict_interval(table, 0.8)
    assert found.shape == (N, 2, 2)
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-eta[:, None] + half[:, None] * [1, -1])))
    np.testing.assert_allclose(found[:, 0, ::-1], 1 - found[:, 1], rtol=1e-12)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(17)
    X = rng.normal(size=(80, 3))
    mean, hits = X @ [1.0, -0.5, 0.3], []
    for _ in range(150):
        data = {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": mean + rng.normal(size=80)}
        interval = elltwo.fit(data, "y", alpha=1e-6, inference="model").predict_interval(data, 0.9)
        hits.append(np.mean((interval[:, 0] < mean) & (mean < interval[:, 1])))
    # 150 independent samples of a share whose rows move together: at most 4 standard errors of one row.
    assert np.mean(hits) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 150))


def test_the_command_predicts_with_intervals(tmp_path, path, table):
    model = tmp_path / "m.safetensors"
    run(
        "fit",
        path,
        "-t",
        "label",
        "--family",
        "binomial",
        "--features",
        "a,b,c",
        "--inference",
        "bayes",
        "-o",
        model,
    )
    rows = list(csv.DictReader(io.StringIO(run("predict", model, path, "--interval", 0.9).stdout)))
    interval = elltwo.load(model).predict_interval(table, 0.9)
    names = ["probability_bad_low", "probability_bad_high", "probability_good_low", "probability_good_high"]
    found = np.array([[float(row[name]) for name in names] for row in rows])
    np.testing.assert_allclose(found, interval.reshape(N, 4), rtol=1e-12)
    names = ["predicted_label", "probability_bad", "probability_good", *names]
    assert list(rows[0]) == names


def test_rows_that_lack_a_value_have_no_interval(tmp_path, path, table):
    holes = table.with_columns(pl.when(pl.col("a") > 1).then(None).otherwise(pl.col("a")).alias("a"))
    holes.write_csv(path)
    model = tmp_path / "m.safetensors"
    run(
        "fit",
        path,
        "-t",
        "number",
        "--features",
        "a,b,c",
        "--missing",
        "drop",
        "--inference",
        "model",
        "-o",
        model,
    )
    rows = list(csv.DictReader(io.StringIO(run("predict", model, path, "--interval", 0.9).stdout)))
    empty = [row["predicted_number"] == "" for row in rows]
    assert [row["predicted_number_low"] == row["predicted_number_high"] == "" for row in rows] == empty
    assert sum(empty) == holes["a"].null_count() > 0


@pytest.mark.parametrize("target", ["number", "label", "calls", "kind", ["number", "second"]], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_the_summary_says_what_the_columns_mean_and_fits(table, target, alpha):
    family = {"label": "binomial", "calls": "poisson", "kind": "multinomial"}.get(str(target), "gaussian")
    long = table.rename({"a": "a rather long name of a feature that says it all"})
    fitted = elltwo.fit(
        long, target, features=[long.columns[0], "b", "c"], family=family, alpha=alpha, inference="sandwich"
    )
    text = fitted.summary()
    assert max(map(len, text.splitlines())) <= WIDTH
    flat = " ".join(text.split())
    assert "Std. error" in text
    assert "95 % from" in text
    assert fitted.inference.meaning() in flat
    assert ("The penalty's bias is not in them" in flat) == (alpha > 0)
    assert ("test of 0: the usual ones" in flat) == (alpha == 0)
    assert (" p " in text) == (alpha == 0)
    assert ("Odds ratio" in text) == (target == "label")


def test_a_fit_without_inference_says_nothing_of_it(table):
    fitted = fit(table, "number")
    assert "Std. error" not in fitted.summary()
    assert fitted.to_dict()["inference"] is None
    with pytest.raises(InputError, match="inference='bayes'"):
        fitted.predict_interval(table)


def test_a_covariance_that_is_too_large_is_left_out_of_the_file_and_said(tmp_path, path, table, monkeypatch):
    monkeypatch.setattr(stored, "MOST_STORED", 8 * 9)
    model = tmp_path / "m.safetensors"
    given = ["-t", "number", "--features", "a,b,c", "--inference", "model", "-o", model]
    assert "not kept in the file" in run("fit", path, *given).stderr
    shown = json.loads(run("show", model, "--json").stdout)
    fitted = fit(table, "number", inference="model")
    found = {row["feature"]: row["std_error"] for row in shown["targets"][0]["coefficients"]}
    assert [found[name] for name in FEATURES] == pytest.approx(fitted.inference.standard_errors().coef[:, 0])
    assert "too large to be kept" in refused("predict", model, path, "--interval", 0.9)


def test_a_damaged_covariance_is_noticed(table):
    fitted = fit(table, "number", inference="model")
    arrays, metadata = fitted.to_state()
    for name in ("inference.covariance", "inference.se", "inference.centres"):
        with pytest.raises(ModelFileError, match=r"do(es)? not match"):
            stored.from_state(fitted, arrays | {name: arrays[name][:, :-1]}, metadata["inference"])
    with pytest.raises(ModelFileError, match="cannot be read"):
        stored.from_state(fitted, arrays, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inference": "bayesian"}, "inference='bayesian' is not known; use one of"),
        ({"inference": "bayes", "level": 95}, "level must be a number between 0 and 1"),
        ({"inference": "bayes", "model": "lasso"}, "is for model 'ridge'; 'lasso' has no standard errors"),
        ({"inference": "bayes", "model": "svm"}, "is for model 'ridge'; 'svm' has no standard errors"),
        ({"inference": "model", "family": "huber", "epsilon": 1.0}, "not the deviance of a distribution"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_answered_is_refused_before_the_fit(table, options, message):
    with pytest.raises(InputError, match=message):
        fit(table, "number", progress=lambda *_: pytest.fail("rows were read"), **options)


def test_a_fit_without_anything_left_over_says_how_to_go_on(table):
    with pytest.raises(InputError, match=r"standard errors cannot be had: .* Raise alpha"):
        fit(table[:4], "number", alpha=0.0, inference="model")


def test_the_options_of_the_command(path):
    assert fit_command.INFERENCE == inference.KINDS
    assert "--level is that of the intervals of --inference" in refused(
        "fit", path, "-t", "number", "--level", 0.9
    )
    assert "between 0 and 1" in refused("fit", path, "-t", "number", "--inference", "bayes", "--level", 90)


@pytest.mark.parametrize("weights", [None, "counts", "precisions"])
def test_the_estimators_of_ridge_infer_as_the_table_does(table, weights):
    rng = np.random.default_rng(0)
    X, Y = table.select(FEATURES).to_numpy(), table.select(["number", "second"]).to_numpy()
    w = {None: None, "counts": rng.integers(1, 4, N), "precisions": rng.random(N)}[weights]
    data = table if w is None else table.with_columns(w=w)
    fitted = fit(
        data,
        ["number", "second"],
        alpha=3.0,
        standardize=False,
        inference="bayes",
        weights=None if w is None else "w",
        weights_are=weights_kind(w),
    )
    for model in (Ridge(3.0, weights_are=weights_kind(w)), RidgeCV([3.0], weights_are=weights_kind(w))):
        found = model.fit(X, Y, w).infer(X, Y, w)
        for kind in inference.KINDS:
            np.testing.assert_allclose(found.covariance(kind), fitted.inference.covariance(kind), rtol=1e-9)
    with pytest.raises(InputError, match="do not minimise this problem"):
        Ridge(3.0).fit(X, Y).infer(X, Y + X[:, :1])


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    page = (root / "docs" / "inference.md").read_text(encoding="utf-8")
    lines = [line.split()[1:] for line in page.splitlines() if line.startswith("    elltwo ")]
    shutil.copytree(root / "src" / "elltwo" / "data", tmp_path / "src" / "elltwo" / "data")
    monkeypatch.chdir(tmp_path)
    fitted, predicted = (run(*arguments).stdout for arguments in lines)
    assert "90 % from" in fitted
    assert predicted.startswith(
        "predicted_progression,predicted_progression_low,predicted_progression_high\n"
    )
