"""The summary says every fact of a fit, in plain JSON and in aligned plain text."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from elltwo.errors import Status
from elltwo.losses import Gaussian
from elltwo.results import Certificate, Fit, Path
from elltwo.summary import WIDTH, as_dict, as_text


def make_fit(p=4, targets=1, names=None, weights=None, rule="loo", status=(), **changes):
    """Solve a small ridge problem with NumPy alone and dress it as a Fit."""
    rng = np.random.default_rng(p + targets)
    n, alpha = 60, 7.5
    w = np.ones(n) if weights is None else weights(n, rng)
    counts = np.issubdtype(w.dtype, np.integer)
    X = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-3, 4, size=p) + 5
    y = X / X.std(0) @ rng.normal(size=(p, targets)) + rng.normal(size=(n, targets)) + 100
    x_mean, y_mean = w @ X / w.sum(), w @ y / w.sum()
    scale = np.sqrt(w @ (X - x_mean) ** 2 / w.sum())
    Z, r = (X - x_mean) * np.sqrt(w)[:, None], (y - y_mean) * np.sqrt(w)[:, None]
    A = Z.T @ Z + alpha * np.diag(scale**2)
    coef = np.linalg.solve(A, Z.T @ r)
    df = np.trace(np.linalg.solve(A, Z.T @ Z))
    rss = ((r - Z @ coef) ** 2).sum(0)
    alphas = np.array([0.1, alpha, 1000.0])
    score = None if rule == "fixed" else np.array([2.0, 1.0, 3.0])
    fit = Fit(
        coef=coef,
        intercept=y_mean - x_mean @ coef,
        alpha=np.full(targets, alpha),
        df=np.full(targets, df),
        rule=rule,
        rule_text="leave-one-out over 3 alphas; optimum inside the grid" if rule == "loo" else "given",
        path=Path(alphas, np.array([p, df, 0.1]), score, None, np.ones(targets, dtype=int)),
        certificate=Certificate(2e-16, "rows", 123.4, 13.6, 1),
        status=status,
        solver="spectral",
        solver_reason="many alphas at once",
        objective="sum of squared errors / 2 + alpha / 2 * sum of squared standardised coefficients",
        n_rows=n,
        rows_dropped=3,
        n_observations=float(w.sum()) if counts else float(n),
        sum_weights=float(w.sum()),
        weights="none" if weights is None else "frequency" if counts else "analytic",
        feature_names=tuple(names or (f"x{j}" for j in range(p))),
        target_names=tuple(f"y{t}" for t in range(targets)),
        feature_means=x_mean,
        feature_scales=scale,
        target_means=y_mean,
        target_scales=np.sqrt(w @ (y - y_mean) ** 2 / w.sum()),
        standardize=True,
        fit_intercept=True,
        deviance=rss,
        null_deviance=w @ (y - y_mean) ** 2,
        loss=Gaussian(),
        cv_deviance=rss / w.sum() * 1.2 if rule == "loo" else None,
    )
    return replace(fit, **changes)


def test_the_dictionary_is_strict_json_and_holds_the_numbers_of_the_fit():
    fit = make_fit()
    facts = json.loads(json.dumps(as_dict(fit), allow_nan=False))
    target = facts["targets"][0]
    assert target["alpha"] == 7.5
    assert target["lambda"] == 7.5 / 60
    assert (facts["rows"], facts["rows_dropped"], facts["weights"]) == (60, 3, "none")
    assert facts["alphas"] == {"smallest": 0.1, "largest": 1000.0, "number": 3}
    assert target["score"] == 1.0
    assert facts["edge"] is None
    by_name = {row["feature"]: row for row in target["coefficients"]}
    for j, name in enumerate(fit.feature_names):
        assert by_name[name]["coef"] == fit.coef[j, 0]
        assert by_name[name]["standardized"] == fit.coef[j, 0] * fit.feature_scales[j]


def test_coefficients_are_sorted_by_the_size_of_the_standardised_one():
    rows = as_dict(make_fit(p=8))["targets"][0]["coefficients"]
    sizes = [abs(row["standardized"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert len(rows) == 8


def test_r2_and_residual_standard_error_follow_their_definitions():
    fit = make_fit()
    target = as_dict(fit)["targets"][0]
    tss = 60 * fit.target_scales[0] ** 2
    assert target["r2"] == pytest.approx(1 - fit.deviance[0] / tss, rel=1e-12)
    assert target["r2_cv"] == pytest.approx(1 - fit.cv_deviance[0] * 60 / tss, rel=1e-12)
    left = 60 - fit.df[0] - 1
    assert target["residual_df"] == pytest.approx(left, rel=1e-12)
    assert target["residual_standard_error"] == pytest.approx(math.sqrt(fit.deviance[0] / left), rel=1e-12)


def test_a_saturated_model_has_no_residual_standard_error():
    fit = make_fit(df=np.array([59.0]), deviance=np.array([0.0]))
    assert as_dict(fit)["targets"][0]["residual_standard_error"] is None
    assert "as many effective parameters as observations" in as_text(fit)


def test_what_does_not_exist_is_none_and_never_nan():
    constant = make_fit(
        null_deviance=np.zeros(1), certificate=Certificate(math.nan, "moments", math.inf, 0.0, 0)
    )
    facts = json.loads(json.dumps(as_dict(constant), allow_nan=False))
    assert facts["targets"][0]["r2"] is None
    assert facts["certificate"]["condition"] is None
    text = as_text(constant)
    assert "not defined" in text
    assert "nan" not in text.lower().split()


@pytest.mark.parametrize(
    ("weights", "kind", "words"),
    [
        (
            lambda n, rng: 1 + np.arange(n) % 4,
            "frequency",
            "column copies, frequency: 150 observations in",
        ),
        (
            lambda n, rng: rng.uniform(0.5, 2, size=n),
            "analytic",
            "analytic (precision): 60 observations whose weights",
        ),
    ],
)
def test_the_meaning_of_the_weights_is_said(weights, kind, words):
    facts = as_dict(make_fit(weights=weights, weights_column="copies"))
    assert (facts["weights"], facts["weights_column"]) == (kind, "copies")
    for column in ("copies", None):
        text = " ".join(as_text(make_fit(weights=weights, weights_column=column)).split())
        assert (words if column else words.removeprefix("column copies, ")) in text


@pytest.mark.parametrize(
    ("status", "edge"),
    [
        ((), None),
        ((Status.EDGE_LOW,), "low"),
        ((Status.EDGE_HIGH,), "high"),
        ((Status.EDGE_LOW, Status.EDGE_HIGH), "both"),
    ],
)
def test_an_optimum_on_the_edge_is_reported(status, edge):
    fit = make_fit(status=status)
    facts = as_dict(fit)
    assert facts["edge"] == edge
    assert facts["status"] == [{"name": s.name, "message": s.value} for s in status]
    text = " ".join(as_text(fit).split())
    assert [f"Note: {s.value}" in text for s in Status] == [s in status for s in Status]


def test_where_optimality_was_measured_is_said_once():
    certificate = Certificate(1e-15, "moments", 10.0, 14.0, 0)
    text = as_text(make_fit(certificate=certificate, status=(Status.MOMENTS_ONLY,)))
    assert text.count("moments") == 1
    assert "measured on the accumulated moments (the rows were not read again)" in " ".join(text.split())


def test_a_given_alpha_has_no_grid():
    fit = make_fit(rule="fixed")
    assert as_dict(fit)["alphas"] is None
    text = as_text(fit)
    assert "Chosen by         given\n" in text
    assert "leave-one-out" not in text


def test_the_text_shows_both_scales_in_aligned_columns():
    text = as_text(make_fit())
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("Feature "))
    rows = lines[head + 2 : head + 7]
    assert [row.split()[0] for row in rows][-1] == "(intercept)"
    assert len({row.index(".") for row in rows}) == 1
    assert all(len(line) <= WIDTH for line in lines)
    for word in (
        "Objective",
        "leave-one-out over 3 alphas; optimum inside",
        "60 used, 3 dropped",
        "α = 7.5 ",
        "λ = 0.125 ",
        "13.6 expected",
        "spectral",
    ):
        assert word in text


def test_many_features_are_cut_in_the_text_and_counted():
    fit = make_fit(p=45)
    text = as_text(fit)
    assert "… and 15 more features with smaller standardised coefficients" in text
    assert "more features" not in as_text(fit, most=None)
    assert len(as_dict(fit)["targets"][0]["coefficients"]) == 45


@pytest.mark.parametrize("targets", [2, 5, 9])
def test_several_targets_get_one_column_each_as_far_as_there_is_room(targets):
    fit = make_fit(targets=targets, alpha=np.linspace(1, 2, targets))
    text = as_text(fit)
    assert "one α for each target, 1 to 2" in text
    head = next(line for line in text.splitlines() if line.startswith("Coefficients"))
    shown = head.split()[1:]
    assert shown == [f"y{t}" for t in range(min(targets, 6))]
    assert ("3 more targets" in text) == (targets == 9)
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert [t["alpha"] for t in as_dict(fit)["targets"]] == list(np.linspace(1, 2, targets))


def test_targets_that_need_wide_columns_leave_room_for_fewer():
    fit = make_fit(targets=5)
    fit = replace(
        fit,
        coef=fit.coef * np.array([1e-9, 1e5, 1e-3, 1, 1e-9]),
        feature_names=tuple(f"a long name of feature {j}" for j in range(4)),
        target_names=tuple(f"a long name {t}" for t in range(5)),
    )
    text = as_text(fit)
    assert "… and 1 more target; the JSON form lists all." in text
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_names_that_are_long_wide_or_hostile_do_not_break_the_table():
    names = ("plain", "x" * 200, "\x1b[31mred\nline", "価格")
    text = as_text(make_fit(names=names))
    assert "\x1b" not in text
    assert "red?line" in text
    assert "xxx…xxx" in text
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_constant_columns_are_named():
    fit = make_fit()
    scales = fit.feature_scales.copy()
    scales[2] = 0.0
    assert "of which constant, coefficient 0: x2" in as_text(replace(fit, feature_scales=scales))


class Columns:
    """The part of an encoder that the summary reads."""

    feature_names = ("area", "town=Bonn", "town=Ulm", "built")

    def to_dict(self):
        kinds = {"area": "number", "town": "string", "built": "date"}
        return {"columns": [{"name": n, "kind": k, "levels": [], "means": []} for n, k in kinds.items()]}


def test_the_columns_behind_the_features_are_said():
    fit = make_fit(names=Columns.feature_names, encoder=Columns())
    assert [c["name"] for c in as_dict(fit)["columns"]] == ["area", "town", "built"]
    assert "4 from 3 columns, 1 of them text" in as_text(fit)
