"""Families and class labels as a user meets them: `elltwo.fit`, the commands, the summary, the model file."""

import csv
import datetime
import io
import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression, TweedieRegressor
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, roc_auc_score

import elltwo
from elltwo import fitting, quality, selection
from elltwo.data.classes import find_class, find_labels
from elltwo.data.opening import open_table
from elltwo.errors import InputError
from elltwo.interfaces.cli import family as family_options
from elltwo.interfaces.cli import fit as fit_command
from elltwo.interfaces.cli.family import class_weights
from elltwo.interfaces.cli.main import cli
from elltwo.quality import auc
from elltwo.selection.scoring import SCORING_LINKS, SCORINGS
from elltwo.summary import WIDTH

N = 240


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


def customers():
    """Two numbers and a text column, and targets of every kind that depend on them."""
    rng = np.random.default_rng(11)
    age, spent = rng.uniform(18, 80, N).round(1), rng.gamma(2.0, 20.0, N).round(2)
    town = rng.choice(["Bonn", "Kiel", "Ulm"], N)
    eta = (age - 45) / 15 + 0.8 * (town == "Ulm") - spent / 60
    days = rng.uniform(1, 30, N).round(1)
    left = rng.uniform(size=N) < 1 / (1 + np.exp(-eta))
    utility = np.stack([eta, np.zeros(N), -eta], axis=1) + rng.gumbel(size=(N, 3))
    return pl.DataFrame(
        {
            "age": age,
            "spent": spent,
            "town": town,
            "days": days,
            "left": np.where(left, "gone", "active"),
            "plan": np.array(["basic", "plus", "super"])[utility.argmax(axis=1)],
            "calls": rng.poisson(days * np.exp(0.4 * eta - 1.5)),
            "amount": (np.exp(0.3 * eta) * rng.gamma(3.0, 1.0, N)).round(4) + 0.001,
            "share": np.clip(1 / (1 + np.exp(-eta)) + rng.normal(0, 0.1, N), 0, 1).round(3),
        }
    )


FEATURES = ["age", "spent", "town"]


@pytest.fixture(scope="module")
def table():
    return customers()


@pytest.fixture
def path(tmp_path, table):
    table.write_csv(tmp_path / "customers.csv")
    return tmp_path / "customers.csv"


def design(table):
    towns = [(table["town"] == t).to_numpy().astype(float) for t in ("Bonn", "Kiel", "Ulm")]
    return np.column_stack([table["age"].to_numpy(), table["spent"].to_numpy(), *towns])


def fit(table, target, **options):
    return elltwo.fit(table, target, features=FEATURES, **options)


# ------------------------------------------------------------------------------------ the same as peers


def test_logistic_regression_is_that_of_scikit_learn(table):
    fitted = fit(table, "left", family="binomial", alpha=2.0, standardize=False)
    X, y = design(table), table["left"].to_numpy()
    theirs = LogisticRegression(C=0.5, tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(X, y)
    assert fitted.classes == tuple(theirs.classes_)
    assert fitted.coef[:, 0] == pytest.approx(theirs.coef_[0], rel=1e-5, abs=1e-7)
    assert fitted.predict_proba(table) == pytest.approx(theirs.predict_proba(X), abs=1e-6)
    assert np.array_equal(fitted.predict(table), theirs.predict(X))


def test_multinomial_regression_is_that_of_scikit_learn(table):
    fitted = fit(table, "plan", family="multinomial", alpha=2.0, standardize=False)
    X, y = design(table), table["plan"].to_numpy()
    theirs = LogisticRegression(C=0.5, tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(X, y)
    assert pytest.approx(theirs.coef_, rel=1e-4, abs=1e-6) == fitted.coef.T
    assert fitted.predict_proba(table) == pytest.approx(theirs.predict_proba(X), abs=1e-6)
    assert np.array_equal(fitted.predict(table), theirs.predict(X))


@pytest.mark.parametrize(
    ("target", "options", "power"),
    [
        ("calls", {"family": "poisson"}, 1),
        ("amount", {"family": "gamma"}, 2),
        ("calls", {"family": "tweedie", "power": 1.3}, 1.3),
    ],
)
def test_families_of_amounts_are_those_of_scikit_learn(table, target, options, power):
    fitted = fit(table, target, alpha=3.0, standardize=False, **options)
    X, y = design(table), table[target].to_numpy()
    theirs = TweedieRegressor(
        power=power, link="log", alpha=3.0 / N, tol=1e-12, solver="newton-cholesky"
    ).fit(X, y)
    assert fitted.coef[:, 0] == pytest.approx(theirs.coef_, rel=1e-4, abs=1e-6)
    assert fitted.predict(table) == pytest.approx(theirs.predict(X), rel=1e-5)
    assert fitted.r2[0] == pytest.approx(theirs.score(X, y), rel=1e-7)


def test_exposure_is_an_offset_of_its_logarithm_and_scales_predictions(table):
    by_days = fit(table, "calls", family="poisson", exposure="days", alpha=3.0)
    logged = table.with_columns(pl.col("days").log().alias("log_days"))
    by_log = fit(logged, "calls", family="poisson", offset="log_days", alpha=3.0)
    assert by_days.coef == pytest.approx(by_log.coef, rel=1e-12)
    twice = table.with_columns(pl.col("days") * 2)
    assert by_days.predict(twice) == pytest.approx(2 * by_days.predict(table), rel=1e-12)
    y, mu = table["calls"].to_numpy(), by_days.predict(table)
    assert mu.sum() == pytest.approx(y.sum(), rel=1e-10)  # the intercept's equation
    assert by_days.predict(table, "link") == pytest.approx(np.log(mu), rel=1e-12)


def test_an_offset_of_a_gaussian_model_is_known(table):
    plain = elltwo.fit(
        table.with_columns(z=pl.col("amount") - pl.col("days")), "z", features=FEATURES, alpha=2.0
    )
    known = fit(table, "amount", offset="days", alpha=2.0)
    assert known.coef == pytest.approx(plain.coef, rel=1e-10)
    assert known.predict(table) == pytest.approx(plain.predict(table) + table["days"].to_numpy(), rel=1e-10)


def test_a_proportion_is_modelled_without_classes(table):
    fitted = fit(table, "share", family="binomial", alpha=1.0)
    assert fitted.classes is None
    assert "of the proportion share" in fitted.summary()
    assert ((fitted.predict(table) > 0) & (fitted.predict(table) < 1)).all()
    with pytest.raises(InputError, match="no classes apart"):
        fitted.predict_proba(table)


# ------------------------------------------------------------------------------------ labels


DAY = datetime.date(2024, 1, 1)
LABELS = {
    "text": ("yes", "no", ("no", "yes"), "yes"),
    "booleans": (True, False, (False, True), True),
    "whole numbers": (1, 0, (0, 1), 1),
    "numbers written as 1.0": (1.0, 0.0, (0, 1), 1),
    "other numbers": (5, -2, (-2, 5), 5),
    "dates": (DAY.replace(month=3), DAY, ("2024-01-01", "2024-03-01"), "2024-03-01"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind_give_the_same_model(table, kind):
    event, other, classes, predicted = LABELS[kind]
    is_event = [label == "gone" for label in table["left"]]
    coded = table.with_columns(pl.Series("left", [event if yes else other for yes in is_event]))
    text, fitted = (fit(t, "left", family="binomial", alpha=1.0) for t in (table, coded))
    assert fitted.classes == classes
    assert np.array_equal(fitted.coef, text.coef)
    assert (fitted.predict(coded) == predicted).tolist() == (text.predict(table) == "gone").tolist()


def test_positive_says_which_label_is_the_event(table):
    yes = fit(table, "left", family="binomial", alpha=1.0)
    no = fit(table, "left", family="binomial", alpha=1.0, positive="active")
    assert no.classes == ("gone", "active")
    assert no.coef == pytest.approx(-yes.coef, rel=1e-8)
    assert no.predict_proba(table)[:, ::-1] == pytest.approx(yes.predict_proba(table), rel=1e-8)
    assert no.predict(table).tolist() == yes.predict(table).tolist()
    assert "event 'active'" in no.summary()


def test_class_weights_are_weights_of_the_rows(table):
    y = table["left"].to_numpy()
    share = {label: N / (2 * (y == label).sum()) for label in ("active", "gone")}
    by_hand = table.with_columns(w=pl.Series([share[label] for label in y]))
    options = {"family": "binomial", "alpha": 1.0}
    balanced = fit(table, "left", class_weight="balanced", **options)
    assert balanced.coef == pytest.approx(fit(by_hand, "left", weights="w", **options).coef, rel=1e-10)
    given = fit(table, "left", class_weight=share, **options)
    assert given.coef == pytest.approx(balanced.coef, rel=1e-12)
    plain = fit(table, "left", **options)
    # The quality is measured without class weights.
    truth = (y == "gone").astype(int)
    p = balanced.predict_proba(table)[:, 1]
    assert balanced.quality["accuracy"] == pytest.approx(((p > 0.5) == truth).mean())
    assert balanced.quality["class_weights"] == pytest.approx([share["active"], share["gone"]])
    assert plain.quality["log_loss"] < balanced.quality["log_loss"]


def test_balanced_classes_count_what_is_used(table):
    holes = table.with_columns(
        age=pl.when(pl.int_range(N) % 3 == 0).then(None).otherwise(pl.col("age")), copies=pl.int_range(N) % 4
    )
    fitted = fit(
        holes, "left", family="binomial", alpha=1.0, class_weight="balanced", weights="copies", missing="drop"
    )
    used = holes.filter(pl.col("age").is_not_null())
    total = [used.filter(pl.col("left") == label)["copies"].sum() for label in ("active", "gone")]
    assert fitted.quality["class_weights"] == pytest.approx([sum(total) / (2 * t) for t in total])
    assert fitted.quality["class_rows"] == [
        used["left"].to_list().count(label) for label in ("active", "gone")
    ]
    assert fitted.weights == "analytic"


@pytest.mark.parametrize("missing", ["mean", "drop"])
def test_rows_without_a_label_are_left_out(table, missing):
    holes = table.with_columns(left=pl.when(pl.int_range(N) % 5 == 0).then(None).otherwise(pl.col("left")))
    fitted = fit(holes, "left", family="binomial", alpha=1.0, missing=missing)
    whole = fit(holes.filter(pl.col("left").is_not_null()), "left", family="binomial", alpha=1.0)
    assert fitted.rows_dropped == N // 5
    assert fitted.coef == pytest.approx(whole.coef, rel=1e-10)
    with pytest.raises(InputError, match=r"missing values in 'left' \(48 rows\)"):
        fit(holes, "left", family="binomial", alpha=1.0)


def test_rows_without_an_exposure_are_left_out_or_refused(table):
    holes = table.with_columns(days=pl.when(pl.int_range(N) % 5 == 1).then(None).otherwise(pl.col("days")))
    options = {"family": "poisson", "exposure": "days", "alpha": 1.0}
    fitted = fit(holes, "calls", missing="drop", **options)
    assert fitted.rows_dropped == N // 5
    assert np.isnan(fitted.predict(holes)).sum() == N // 5
    with pytest.raises(InputError, match=r"'days' has no value in row 2 \(48 such rows in all\)"):
        fit(holes, "calls", **options)
    with pytest.raises(InputError, match="no value in row 2"):
        fit(table, "calls", **options).predict(holes)


def test_yes_and_no_in_a_csv_file_are_labels_that_can_be_named(tmp_path, table):
    word = pl.when(pl.col("left") == "gone").then(pl.lit("yes")).otherwise(pl.lit("no"))
    table.with_columns(left=word).write_csv(tmp_path / "t.csv")
    fitted = fit(str(tmp_path / "t.csv"), "left", family="binomial", positive="no", class_weight={"yes": 2})
    assert fitted.classes == ("yes", "no")
    assert fitted.quality["class_weights"] == [2.0, 1.0]


def test_labels_are_found_and_counted():
    found = find_labels(open_table({"x": [2.0, None, 1.0, 2.0]}), "x")
    assert (found.counts, found.fractions, found.complete) == ({1: 1, 2: 2}, False, True)
    assert not find_labels(open_table({"x": list(range(1001))}), "x").complete


def test_a_label_may_be_given_as_text():
    assert find_class("true", (False, True), "positive") == 1
    assert find_class("1", (0, 1), "positive") == 1
    assert find_class(1.0, (0, 1), "positive") == 1
    assert find_class("1", ("01", "1"), "positive") == 1


# ------------------------------------------------------------------------------------ family and model


AUTO = [
    ("left", {}, "binomial", "holds two labels"),
    ("plan", {}, "multinomial", "holds 3 labels"),
    ("amount", {}, "gaussian", "holds numbers"),
    ("flag", {}, "binomial", "holds 0 and 1 alone"),
    ("left", {"model": "svm"}, "squared-hinge", "holds two labels"),
    ("amount", {"model": "svm", "epsilon": 0.1}, "squared-epsilon-insensitive", "holds numbers"),
]


@pytest.mark.parametrize(("target", "options", "loss", "why"), AUTO, ids=[f"{a[0]}, {a[2]}" for a in AUTO])
def test_auto_says_what_it_took_and_why(table, target, options, loss, why):
    flagged = table.with_columns(flag=(pl.col("left") == "gone").cast(pl.Int64))
    fitted = fit(flagged, target, alpha=1.0, **({"family": "auto"} | options))
    assert fitted.loss.name == loss
    assert why in fitted.quality["family_reason"]
    assert why in " ".join(fitted.summary().split())


def test_the_default_family_is_gaussian_and_says_nothing_new(table):
    fitted = fit(table, "amount", alpha=1.0)
    assert (fitted.loss.name, fitted.quality) == ("gaussian", None)
    assert fitted.summary().startswith("Ridge (L2) regression of amount\n")


def test_support_vectors_of_several_classes_are_one_against_the_rest(table):
    fitted = fit(table, "plan", model="svm", alpha=1.0)
    assert fitted.coef.shape == (5, 3)
    for k, label in enumerate(fitted.classes):
        alone = table.with_columns(is_it=pl.col("plan") == label)
        one = fit(alone, "is_it", model="svm", alpha=1.0)
        assert fitted.coef[:, k] == pytest.approx(one.coef[:, 0], rel=1e-7)
    margins = fitted.predict(table, "link")
    assert fitted.predict(table).tolist() == [fitted.classes[k] for k in margins.argmax(axis=1)]
    with pytest.raises(InputError, match="margins, not probabilities"):
        fitted.predict_proba(table)


def test_support_vector_machines_minimise_their_loss(table):
    fitted = fit(table, "left", model="svm", alpha=1.0, standardize=False)
    X, y = design(table), np.where(table["left"].to_numpy() == "gone", 1.0, -1.0)
    short = np.maximum(0, 1 - y * fitted.decision(X)[:, 0])
    gradient = -X.T @ (y * short) + fitted.coef[:, 0]
    assert np.abs(gradient).max() < 1e-8 * np.abs(X).sum(axis=0).max()
    assert abs((y * short).sum()) < 1e-8 * N


def test_folds_share_every_class(table):
    rare = table.with_columns(
        plan=pl.when(pl.int_range(N) < 7).then(pl.lit("rare")).otherwise(pl.col("plan"))
    )
    fitted = fit(rare, "plan", family="multinomial", folds=3)
    assert "3-fold cross-validation" in fitted.rule_text
    codes = np.repeat([0, 1, 2], [7, 100, 1000])
    folds = fitting.StratifiedFolds.of(codes, 3, 0).deal(0, len(codes))
    counts = np.array([np.bincount(folds[codes == c], minlength=3) for c in range(3)])
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()


def test_the_options_of_the_command_are_those_of_the_library():
    assert family_options.FAMILIES == fitting.FAMILIES
    assert tuple(fitting.MODELS) == family_options.MODELS
    assert set(fit_command.SCORINGS) == set(SCORINGS) == set(SCORING_LINKS)


# ------------------------------------------------------------------------------------ the summary


def test_the_quality_is_that_of_scikit_learn(table):
    y = table["left"].to_numpy()
    fitted = fit(table, "left", family="binomial")
    p = fitted.predict_proba(table)
    assert fitted.quality["accuracy"] == pytest.approx(accuracy_score(y, fitted.predict(table)))
    assert fitted.quality["auc"] == pytest.approx(roc_auc_score(y, p[:, 1]), rel=1e-12)
    assert fitted.quality["log_loss"] == pytest.approx(log_loss(y, p), rel=1e-10)
    assert fitted.quality["brier"] == pytest.approx(((p[:, 1] - (y == "gone")) ** 2).mean(), rel=1e-10)
    assert fitted.quality["confusion"] == confusion_matrix(y, fitted.predict(table)).tolist()
    assert fitted.deviance[0] == pytest.approx(2 * N * fitted.quality["log_loss"], rel=1e-8)


def test_the_quality_of_several_classes_is_that_of_scikit_learn(table):
    y = table["plan"].to_numpy()
    fitted = fit(table, "plan", family="multinomial")
    p = fitted.predict_proba(table)
    assert fitted.quality["log_loss"] == pytest.approx(log_loss(y, p), rel=1e-10)
    squares = (p - (y[:, None] == np.array(fitted.classes))) ** 2
    assert fitted.quality["brier"] == pytest.approx(squares.sum(axis=1).mean(), rel=1e-10)
    assert fitted.quality["confusion"] == confusion_matrix(y, fitted.predict(table)).tolist()


def test_the_area_under_the_curve_takes_weights_and_ties():
    rng = np.random.default_rng(0)
    event, score, w = rng.random(60) < 0.4, rng.integers(0, 9, 60) / 8, rng.random(60)
    assert auc(event, score, w) == pytest.approx(roc_auc_score(event, score, sample_weight=w), rel=1e-12)


def test_a_file_that_is_streamed_gives_the_same_as_one_that_is_kept(path, monkeypatch):
    options = {"family": "poisson", "exposure": "days", "folds": 4}
    kept = fit(str(path), "calls", **options)
    monkeypatch.setattr(fitting, "KEPT_BYTES", 0)
    streamed = fit(str(path), "calls", **options)
    assert streamed.coef == pytest.approx(kept.coef, rel=1e-8)
    assert streamed.alpha == pytest.approx(kept.alpha, rel=1e-6)


def test_what_is_not_computed_for_very_many_rows_is_said(path, monkeypatch):
    monkeypatch.setattr(quality, "MOST_ROWS", 100)
    monkeypatch.setattr(fitting, "KEPT_BYTES", 0)
    fitted = fit(str(path), "left", family="binomial")
    assert "accuracy" not in fitted.quality
    text = " ".join(fitted.summary().split())
    assert "Accuracy not computed: more than 100 rows, on disk" in text
    assert f"Log-loss {fitted.cv_deviance[0] / 2:.4f} by leave-one-out" in text
    assert sum(fitted.quality["class_rows"]) == N


TITLES = [
    ("left", {"family": "binomial"}, "Logistic regression (L2) of left: event 'gone'", "Odds ratio"),
    (
        "plan",
        {"family": "multinomial"},
        "Multinomial logistic regression (L2) of plan: 3 classes",
        "Symmetric",
    ),
    ("calls", {"family": "poisson"}, "Poisson regression (L2) of calls", "Rate ratio"),
    ("amount", {"family": "gamma"}, "Gamma regression (L2) of amount", "Mean ratio"),
    ("calls", {"family": "tweedie"}, "Tweedie regression (L2, power 1.5) of calls", "Mean ratio"),
    (
        "calls",
        {"family": "negative-binomial", "dispersion": 0.5},
        "Negative binomial regression (L2, dispersion 0.5) of calls",
        "Rate ratio",
    ),
    ("amount", {"family": "huber", "epsilon": 1.5}, "Robust regression (L2, Huber's loss, ε = 1.5)", "Loss"),
    ("left", {"model": "svm"}, "(squared hinge, L2) of left: 'gone' against 'active'", "Accuracy"),
    ("plan", {"model": "svm"}, "of plan: 3 classes, each against the rest", "explained held out"),
    ("amount", {"model": "svm", "epsilon": 0.5}, "Support vector regression (squared, L2, ε = 0.5)", "Loss"),
]


@pytest.mark.parametrize(("target", "options", "title", "words"), TITLES, ids=[t[2][:30] for t in TITLES])
def test_the_summary_is_that_of_the_family(tmp_path, table, target, options, title, words):
    fitted = fit(table, target, **options)
    text = fitted.summary()
    assert title in text.splitlines()[0]
    assert words in text
    assert all(len(line) <= WIDTH for line in text.splitlines())
    facts = json.loads(json.dumps(fitted.to_dict(), allow_nan=False))
    assert (facts["family"], facts["title"]) == (fitted.loss.name, text.splitlines()[0])
    fitted.save(tmp_path / "m.safetensors")
    loaded = elltwo.load(tmp_path / "m.safetensors")
    assert loaded.summary() == text
    assert loaded.to_dict() == fitted.to_dict()
    assert loaded.classes == fitted.classes
    assert np.array_equal(loaded.predict(table), fitted.predict(table))


def test_ratios_stand_beside_the_coefficients(table):
    fitted = fit(table, "left", family="binomial", alpha=1.0)
    rows = {row["feature"]: row for row in fitted.to_dict()["targets"][0]["coefficients"]}
    for j, name in enumerate(fitted.feature_names):
        assert rows[name]["odds_ratio"] == pytest.approx(np.exp(fitted.coef[j, 0]))
        assert rows[name]["odds_ratio_sd"] == pytest.approx(
            np.exp(fitted.coef[j, 0] * fitted.feature_scales[j])
        )


def test_the_scoring_is_said(table):
    fitted = fit(table, "left", family="binomial", scoring="roc_auc")
    text = " ".join(fitted.summary().split())
    assert "scored by roc_auc" in text
    best = -fitted.path.score[fitted.path.chosen[0]]
    assert f"Held-out score {best:.4f} roc_auc by leave-one-out" in text
    assert 0.5 < best < 1


# ------------------------------------------------------------------------------------ the commands


REQUESTS = [
    ("left", ["--family", "binomial", "--positive", "active"], {"family": "binomial", "positive": "active"}),
    (
        "left",
        ["--family", "binomial", "--class-weight", "gone=2,active=0.5", "--scoring", "accuracy"],
        {"family": "binomial", "class_weight": {"gone": 2.0, "active": 0.5}, "scoring": "accuracy"},
    ),
    (
        "plan",
        ["--family", "multinomial", "--class-weight", "balanced", "--folds", "4"],
        {"family": "multinomial", "class_weight": "balanced", "folds": 4},
    ),
    ("calls", ["--family", "poisson", "--exposure", "days"], {"family": "poisson", "exposure": "days"}),
    ("calls", ["--family", "tweedie", "--power", "1.2"], {"family": "tweedie", "power": 1.2}),
    (
        "calls",
        ["--family", "negative-binomial", "--dispersion", "0.4", "--offset", "days"],
        {"family": "negative-binomial", "dispersion": 0.4, "offset": "days"},
    ),
    ("amount", ["--family", "huber", "--epsilon", "2"], {"family": "huber", "epsilon": 2.0}),
    ("left", ["--model", "svm"], {"model": "svm"}),
]


@pytest.mark.parametrize(
    ("target", "arguments", "keywords"), REQUESTS, ids=[" ".join(r[1]) for r in REQUESTS]
)
def test_every_option_reaches_the_fit(path, target, arguments, keywords):
    shown = json.loads(
        run("fit", path, "-t", target, "--features", ",".join(FEATURES), *arguments, "--json").stdout
    )
    asked = fit(str(path), target, **keywords).to_dict()
    for name in ("title", "rule_text", "classes", "offset", "parameters"):
        assert shown[name] == asked[name]
    for ours, theirs in zip(shown["targets"], asked["targets"], strict=True):
        assert ours["alpha"] == pytest.approx(theirs["alpha"], rel=1e-9)
        assert ours["intercept"] == pytest.approx(theirs["intercept"], rel=1e-9)


def predictions(path, target, tmp_path, *options):
    model = tmp_path / "model.safetensors"
    run("fit", path, "-t", target, "--features", ",".join(FEATURES), *options, "-o", model)
    return elltwo.load(model), list(csv.DictReader(io.StringIO(run("predict", model, path).stdout)))


def test_predictions_of_classes_are_labels_and_probabilities(path, table, tmp_path):
    model, rows = predictions(path, "plan", tmp_path, "--family", "multinomial")
    names = ["probability_basic", "probability_plus", "probability_super"]
    assert list(rows[0]) == ["predicted_plan", *names]
    assert [row["predicted_plan"] for row in rows] == model.predict(table).tolist()
    p = np.array([[float(row[name]) for name in names] for row in rows])
    assert p == pytest.approx(model.predict_proba(table), rel=1e-12)
    assert p.sum(axis=1) == pytest.approx(1.0, rel=1e-12)


def test_predictions_of_margins_and_counts(path, table, tmp_path):
    model, rows = predictions(path, "left", tmp_path, "--model", "svm")
    assert list(rows[0]) == ["predicted_left", "margin_gone"]
    assert [float(row["margin_gone"]) for row in rows] == pytest.approx(model.predict(table, "link"))
    model, rows = predictions(path, "calls", tmp_path, "--family", "poisson", "--exposure", "days")
    assert [float(row["predicted_calls"]) for row in rows] == pytest.approx(model.predict(table), rel=1e-12)


def test_predicted_labels_keep_their_type_and_rows_without_a_value_stay_empty(table, tmp_path):
    coded = table.with_columns(left=pl.col("left") == "gone")
    fit(coded, "left", family="binomial", missing="drop").save(tmp_path / "m.safetensors")
    holes = coded.with_columns(age=pl.when(pl.int_range(N) == 1).then(None).otherwise(pl.col("age")))
    holes.write_parquet(tmp_path / "new.parquet")
    out = tmp_path / "out.parquet"
    result = run("predict", tmp_path / "m.safetensors", tmp_path / "new.parquet", "-o", out, "--keep", "town")
    assert "1 of the rows lack a value" in result.stderr
    written = pl.read_parquet(out)
    assert written.schema["predicted_left"] == pl.Boolean
    assert written["predicted_left"].null_count() == written["probability_True"].null_count() == 1
    assert written["predicted_left"][1] is None


def test_a_model_of_arrays_takes_an_offset(table):
    source = elltwo.data.memory.MemorySource(
        design(table), table["calls"].to_numpy(), offset=np.log(table["days"].to_numpy())
    )
    fitted = fitting.fit_source(source, 2.0, loss="poisson")
    X, o = design(table), np.log(table["days"].to_numpy())
    assert fitted.predict(X, offset=o).sum() == pytest.approx(table["calls"].sum(), rel=1e-9)
    with pytest.raises(InputError, match=r"offset has shape \(3,\)"):
        fitted.predict(X, offset=np.zeros(3))
    with pytest.raises(InputError, match="Did you mean 'probability'"):
        fitted.predict(X, "probabilities")


# ------------------------------------------------------------------------------------ what is refused


REFUSED = [
    (
        "left",
        ["--family", "gaussian"],
        ["'left' must hold numbers", "'active'", "family='binomial'", "--family binomial"],
    ),
    ("plan", [], ["'plan' must hold numbers", "3 labels", "--family multinomial"]),
    ("left", ["--family", "binominal"], ["'binominal'", "Did you mean 'binomial'?", "Available"]),
    ("left", ["--family", "logistic"], ["Did you mean 'binomial'?"]),
    ("left", ["--family", "squared-hinge"], ["model='svm'"]),
    ("left", ["--model", "swm"], ["'swm'", "Did you mean 'svm'?", "ridge"]),
    ("calls", ["--model", "svm", "--family", "poisson"], ["no family 'poisson'", "model='ridge'"]),
    ("plan", ["--family", "binomial"], ["3 labels", "'basic' (", "--family multinomial"]),
    ("town_only", ["--family", "binomial"], ["one label only", "'Ulm'", "Check the column"]),
    ("amount", ["--family", "multinomial"], ["fractions", "gaussian"]),
    ("amount", ["--family", "binomial"], ["'amount'", "row 1", "0 ≤ y ≤ 1"]),
    ("number", ["--family", "multinomial"], ["more than 1,000", "too many"]),
    ("left", ["--family", "binomial", "--positive", "gon"], ["'gon'", "Did you mean 'gone'?", "'active'"]),
    ("plan", ["--family", "multinomial", "--positive", "plus"], ["--positive", "binomial"]),
    ("amount", ["--positive", "1"], ["--positive", "labels", "Leave it out"]),
    ("share", ["--family", "binomial", "--class-weight", "balanced"], ["proportions", "--class-weight"]),
    ("left", ["--family", "binomial", "--class-weight", "ja=2"], ["'ja'", "labels are 'active', 'gone'"]),
    ("left", ["--family", "binomial", "--class-weight", "gone=-2"], ["'gone'", "positive number"]),
    ("left", ["--family", "binomial", "--class-weight", "even"], ["--class-weight", "balanced"]),
    ("signed", ["--family", "poisson"], ["'signed'", "-1", "row 3", "y ≥ 0"]),
    ("calls", ["--family", "gamma"], ["'calls'", "y > 0"]),
    ("calls", ["--exposure", "days"], ["log link", "'poisson'", "--offset"]),
    ("left", ["--family", "binomial", "--exposure", "days"], ["log link", "'binomial'"]),
    ("calls", ["--family", "poisson", "--exposure", "signed"], ["'signed'", "-1", "row 3", "positive"]),
    ("calls", ["--family", "poisson", "--exposure", "dais"], ["exposure", "Did you mean 'days'?"]),
    ("calls", ["--family", "poisson", "--offset", "town"], ["offset column 'town'", "numbers"]),
    ("calls", ["--family", "poisson", "--exposure", "calls"], ["'calls' is the exposure", "target"]),
    ("calls", ["--family", "poisson", "--offset", "age"], ["'age' is the offset", "feature"]),
    ("plan", ["--family", "multinomial", "--offset", "days"], ["same for every class", "Leave it out"]),
    ("calls", ["--family", "poisson", "--power", "1.5"], ["--power", "'tweedie'", "'poisson'"]),
    ("calls", ["--dispersion", "1"], ["--dispersion", "'negative-binomial'"]),
    ("calls", ["--epsilon", "1"], ["--epsilon", "'huber'"]),
    ("calls", ["--family", "huber"], ["--epsilon", "missing", "units of the target"]),
    ("calls", ["--family", "tweedie", "--power", "4"], ["power", "2"]),
    ("calls", ["--family", "poisson", "--scoring", "roc_auc"], ["roc_auc", "poisson", "'r2'"]),
    ("plan", ["--family", "multinomial", "--scoring", "r2"], ["'r2'", "multinomial", "'accuracy'"]),
    ("calls", ["--family", "poisson", "--select", "gcv"], ["gcv", "squared error", "loo"]),
    ("calls", ["--scoring", "r2", "--select", "bic"], ["--scoring", "held-out", "bic"]),
    ("calls", ["--scoring", "r2", "--alpha", "1"], ["--alpha", "--scoring"]),
    ("once", ["--family", "binomial", "--folds", "3"], ["'rare'", "one row", "--select loo"]),
    ("block", ["--family", "binomial", "--time", "number"], ["fold 1", "label", "--time"]),
]


@pytest.mark.parametrize(
    ("target", "arguments", "words"), REFUSED, ids=[" ".join([r[0], *r[1]]) for r in REFUSED]
)
def test_what_cannot_be_is_refused_with_a_reason(tmp_path, target, arguments, words):
    table = pl.concat([customers()] * 5).with_columns(
        town_only=pl.lit("Ulm"),
        number=pl.int_range(5 * N),
        signed=pl.when(pl.int_range(5 * N) == 2).then(-1).otherwise(pl.int_range(5 * N) % 4 + 1),
        once=pl.when(pl.int_range(5 * N) == 5).then(pl.lit("rare")).otherwise(pl.lit("usual")),
        block=pl.int_range(5 * N) > 4 * N,
    )
    table.write_csv(tmp_path / "t.csv")
    message = refused(
        "fit", tmp_path / "t.csv", "-t", target, "--features", "age,spent", *arguments, "-o", tmp_path / "m"
    )
    for word in words:
        assert word in message
    assert not (tmp_path / "m").exists()


def test_predicting_without_the_exposure_is_refused(path, table, tmp_path):
    model = tmp_path / "m.safetensors"
    run(
        "fit",
        path,
        "-t",
        "calls",
        "--family",
        "poisson",
        "--exposure",
        "days",
        "--features",
        "age",
        "-o",
        model,
    )
    table.drop("days").write_csv(tmp_path / "new.csv")
    message = refused("predict", model, tmp_path / "new.csv")
    assert "exposure column 'days' is missing" in message
    table.with_columns(days=pl.lit(0.0)).write_csv(tmp_path / "new.csv")
    assert "'days' has the value 0 in row 1 (240 such rows in all)" in refused(
        "predict", model, tmp_path / "new.csv"
    )


def test_labels_of_several_targets_are_refused(table):
    with pytest.raises(InputError, match="one target at a time"):
        fit(table, ["left", "plan"], family="binomial")


def test_class_weights_are_read():
    assert class_weights("yes=2, no=1") == {"yes": 2.0, "no": 1.0}
    assert class_weights('"a, b"=2') == {"a, b": 2.0}
    assert class_weights(None) is None


def test_a_rule_object_brings_its_own_scoring(table):
    with pytest.raises(InputError, match="scoring belongs in the rule object"):
        fit(table, "left", family="binomial", select=selection.LOO(), scoring="accuracy")


@pytest.mark.parametrize(
    ("target", "family", "extra"),
    [("won", "binomial", ()), ("calls", "poisson", ("--exposure", "days")), ("cost", "gamma", ())],
)
def test_an_l1_penalty_of_another_family_from_fit_to_predictions(tmp_path, target, family, extra):
    rng = np.random.default_rng(3)
    X, days = rng.normal(size=(90, 3)), rng.uniform(1, 9, size=90)
    columns = {f"x{j}": X[:, j] for j in range(3)} | {"days": days}
    columns[target] = {
        "won": np.where(X[:, 0] + rng.logistic(size=90) > 0, "yes", "no"),
        "calls": rng.poisson(days * np.exp(0.5 * X[:, 0] - 1)),
        "cost": np.exp(0.5 * X[:, 0]) * rng.gamma(3.0, 1 / 3, size=90),
    }[target]
    data, model, out = (tmp_path / name for name in ("data.csv", "m.safetensors", "p.csv"))
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    asked = ["fit", str(data), "-t", target, "--model", "lasso", "--family", family, *extra, "-o", str(model)]
    fitted = CliRunner().invoke(cli, asked)
    assert fitted.exit_code == 0, fitted.output
    assert "5-fold cross-validation" in fitted.output
    assert "Duality gap" in fitted.output
    assert ("predicted" in fitted.output) == (family == "binomial")
    shown = CliRunner().invoke(cli, ["show", str(model)])
    assert shown.exit_code == 0
    assert "Lasso (L1)" in shown.output
    predicted = CliRunner().invoke(cli, ["predict", str(model), str(data), "-o", str(out)])
    assert predicted.exit_code == 0, predicted.output
    assert len(out.read_text(encoding="utf-8").splitlines()) == 91


def test_an_l1_penalty_of_several_classes_is_refused_with_a_way_out(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("x,kind\n" + "".join(f"{i},{'abc'[i % 3]}\n" for i in range(12)), encoding="utf-8")
    for family in ("multinomial", "auto"):
        asked = ["fit", str(data), "-t", "kind", "--model", "lasso", "--family", family]
        refused = CliRunner().invoke(cli, asked)
        assert refused.exit_code != 0
        assert "Fit each class against the rest" in refused.output
