"""The tables of a summary: confusion, coefficients, targets."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from elltwo.summary.facts import RATIOS, by_importance
from elltwo.summary.layout import NAME, WIDTH, lay_out, note_left_out, or_none, printable, quoted, width_of
from elltwo.summary.lines import HELD_OUT

if TYPE_CHECKING:
    from elltwo.results import Fit

_TARGETS_SHOWN = 6
_NAME_BESIDE_TARGETS = 20
_CONFUSED = 8
_SYMMETRIC = textwrap.fill(
    "Symmetric form: every class has coefficients, which sum to 0 over the classes. The difference of two of "
    "them is the change of the log odds of one class against the other when the feature rises by one unit.",
    WIDTH,
)


def confusion(facts: dict[str, Any]) -> str:
    """Lay out the confusion table of a few classes, or return nothing."""
    quality = facts["quality"] or {}
    held = quality.get("held_out")
    table = quality.get("confusion") if held is None else held["confusion"]
    if table is None or len(table) > _CONFUSED:
        return ""
    names = [printable(str(label), 14) for label in facts["classes"]]
    columns = [[f"{row[k]:,.10g}" for row in table] for k in range(len(names))]
    text = lay_out(["True \\ predicted", *names], [names], columns)
    if held is None:
        return text + "\nIn sample: rows that the model was fitted to."
    note = (
        f"Held out by {HELD_OUT[held['by']]}: rows predicted by a model that did not see them, at the alpha "
        "that all of them together chose."
    )
    return text + "\n" + textwrap.fill(note, WIDTH)


def coefficients(facts: dict[str, Any], most: int | None) -> str:
    """Lay out the coefficients of one target."""
    if facts["inference"] is not None:
        return "\n".join([_with_errors(facts, facts["targets"][0], most), *_error_notes(facts)])
    target = facts["targets"][0]
    rows = target["coefficients"]
    shown = rows[:most]
    bottom = [None] * facts["fit_intercept"]
    heads = ["Feature", "Coefficient", "Standardised"]
    columns = [
        [r["coef"] for r in shown] + [target["intercept"]] * facts["fit_intercept"],
        [r["standardized"] for r in shown] + bottom,
    ]
    note = _standardised(facts["family"])
    if facts["family"] in RATIOS:
        key, head, _ = RATIOS[facts["family"]]
        heads += [head, "per s.d."]
        columns += [[r[key] for r in shown] + bottom, [r[f"{key}_sd"] for r in shown] + bottom]
        note += "\n" + _ratio_note(facts)
    table = lay_out(heads, [_feature_names(shown, facts["fit_intercept"], NAME)], columns)
    return "\n".join([table, *note_left_out(len(rows) - len(shown)), note])


def _feature_names(rows: list[dict[str, Any]], fit_intercept: bool, width: int) -> list[str]:
    return [printable(r["feature"], width) for r in rows] + ["(intercept)"] * fit_intercept


def _ratio_note(facts: dict[str, Any]) -> str:
    _, head, what = RATIOS[facts["family"]]
    event = f" of {quoted(facts['event'])}" if facts["event"] is not None else ""
    each = f"{head}: factor of {what}{event} per unit of the feature, and per standard deviation."
    return textwrap.fill(each, WIDTH)


def _with_errors(facts: dict[str, Any], target: dict[str, Any], most: int | None) -> str:
    """Lay out the coefficients of a target with standard errors, and their ratios below."""
    rows, inference, b = target["coefficients"], facts["inference"], facts["fit_intercept"]
    shown, percent = rows[:most], f"{100 * inference['level']:.6g} % from"
    tested = "t" if inference["dispersion_estimated"] else "z"
    keys = {"coef": "Coefficient", "std_error": "Std. error", "low": percent, "high": "to"}
    keys |= {"statistic": tested, "p_value": "p"} if rows and "p_value" in rows[0] else {}
    columns = [
        [_known(r[key]) for r in shown] + [target["intercept" if key == "coef" else f"intercept_{key}"]] * b
        for key in keys
    ]
    standard = [[r["standardized"] for r in shown] + [None] * b]
    parts = [_fitted(["Feature", *keys.values(), "Standardised"], shown, b, columns + standard)]
    parts += note_left_out(len(rows) - len(shown))
    if facts["family"] in RATIOS:
        key, head, _ = RATIOS[facts["family"]]
        ratios = [[_known(r[k]) for r in shown] for k in (key, f"{key}_low", f"{key}_high", f"{key}_sd")]
        parts += ["", _fitted(["Feature", head, percent, "to", "per s.d."], shown, False, ratios)]
    return "\n".join(parts)


def _known(value: float | None) -> float | str:
    """Return a number of a feature, or what stands for none: constant features have no standard error."""
    return "–" if value is None else value


def _error_notes(facts: dict[str, Any]) -> list[str]:
    """Say what the columns of `_with_errors` are."""
    ratio = [_ratio_note(facts)] if facts["family"] in RATIOS else []
    symmetric = [_SYMMETRIC] if facts["family"] == "multinomial" else []
    meaning = textwrap.fill(facts["inference"]["meaning"], WIDTH)
    return [_standardised(facts["family"]), *ratio, *symmetric, meaning]


def _fitted(heads: list[str], shown: list[dict[str, Any]], b: bool, columns: list[list[Any]]) -> str:
    """Lay out a table of features, with their names cut as far as the width asks for it."""
    for width in (NAME, 28, 20, 12):
        table = lay_out(heads, [_feature_names(shown, b, width)], columns)
        if width_of(table.split("\n", 1)[0]) <= WIDTH:
            break
    return table


def _standardised(family: str) -> str:
    """Say what a standardised coefficient is the change of."""
    what = {
        "binomial": "the log odds",
        "multinomial": "the linear predictor",
        "squared-hinge": "the margin",
        "poisson": "the log expected count",
        "negative-binomial": "the log expected count",
        "gamma": "the log expected value",
        "tweedie": "the log expected value",
    }.get(family, "the target")
    return textwrap.fill(
        f"Standardised: change of {what} when the feature rises by one standard deviation.", WIDTH
    )


def targets_table(facts: dict[str, Any]) -> str:
    """Lay out a line for each target."""
    shown = facts["targets"][:30]
    numbers = {"α": "alpha", "λ": "lambda", "df": "df"}
    columns = {head: [t[key] for t in shown] for head, key in numbers.items()}
    share = "R²" if facts["family"] == "gaussian" else "explained"
    columns[share] = [or_none(t["r2"], ".4f") for t in shown]
    if any(t["r2_cv"] is not None for t in shown):
        columns[f"{share} held out"] = [or_none(t["r2_cv"], ".4f") for t in shown]
    if facts["family"] == "gaussian":
        columns["residual s.e."] = [t["residual_standard_error"] for t in shown]
    else:
        columns["deviance"] = [t["deviance"] for t in shown]
    names = [printable(name, NAME) for name in _target_labels(facts)[:30]]
    what = "Target" if facts["classes"] is None else "Class"
    table = lay_out([what, *columns], [names], list(columns.values()))
    return "\n".join([table, *note_left_out(len(facts["targets"]) - len(shown), what.lower())])


def _target_labels(facts: dict[str, Any]) -> list[str]:
    """Return what columns of several targets are called: the labels, where they are classes."""
    if facts["classes"] is not None and len(facts["classes"]) == len(facts["targets"]):
        return [str(label) for label in facts["classes"]]
    return [t["name"] for t in facts["targets"]]


def errors_by_target(facts: dict[str, Any], most: int | None) -> str:
    """Lay out the coefficients of several targets with standard errors, one table after the other."""
    what = "Target" if facts["classes"] is None else "Class"
    names = [printable(name, NAME) for name in _target_labels(facts)[:_TARGETS_SHOWN]]
    parts = [
        f"{what} {name}\n{_with_errors(facts, target, most)}"
        for name, target in zip(names, facts["targets"], strict=False)
    ]
    left = note_left_out(len(facts["targets"]) - len(names), what.lower())
    return "\n\n".join([*parts, "\n".join([*left, *_error_notes(facts)])])


def coefficients_by_target(fit: Fit, most: int | None) -> str:
    """Two tables with one column per target: coefficients, and standardised coefficients."""
    targets = len(fit.target_names)
    scaled = fit.coef * fit.feature_scales[:, None]
    spread = np.where(fit.target_scales > 0, fit.target_scales, 1)
    order = by_importance(np.max(np.abs(scaled) / spread, axis=1))
    for beside in range(min(targets, _TARGETS_SHOWN), 0, -1):  # as many targets as the width has room for
        tables = _two_tables(fit, scaled, order[:most], beside)
        if max(width_of(line) for table in tables for line in table.splitlines()) <= WIDTH:
            break
    what = "target" if fit.classes is None else "class"
    left_out = note_left_out(len(order) - len(order[:most])) + note_left_out(targets - beside, what)
    note = _standardised(fit.loss.name)
    if fit.loss.coupled:
        note += "\n" + _SYMMETRIC
    return "\n".join([tables[0], "", tables[1], *left_out, note])


def _two_tables(fit: Fit, scaled: Any, shown: list[int], beside: int) -> tuple[str, str]:
    names = [printable(fit.feature_names[j], _NAME_BESIDE_TARGETS) for j in shown]
    labels = (
        fit.target_names if fit.classes is None or len(fit.classes) != len(fit.target_names) else fit.classes
    )
    heads = [printable(str(n), 14) for n in labels[:beside]]
    bottom = ["(intercept)"] * fit.fit_intercept
    original = [
        [fit.coef[j, t] for j in shown] + [fit.intercept[t]] * fit.fit_intercept for t in range(beside)
    ]
    standard = [[scaled[j, t] for j in shown] for t in range(beside)]
    return (
        lay_out(["Coefficients", *heads], [names + bottom], original),
        lay_out(["Standardised", *heads], [names], standard),
    )
