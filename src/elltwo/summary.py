"""What a fit has to say, as a dictionary of plain JSON values and as a table of plain text.

Symbols: n observations, p features, T targets, sⱼ the (weighted, population) standard deviation of
feature j. A standardised coefficient θⱼsⱼ is the change of the target, in its own units (of η, where the link
is not the identity), when feature j rises by one standard deviation; features are listed by its size.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from elltwo.errors import Status

if TYPE_CHECKING:
    from elltwo.results import Fit

WIDTH = 96
"""Columns of the text summary."""

_LABEL = 18
_NAME = 36
_TARGETS_SHOWN = 6
_NAME_BESIDE_TARGETS = 20
_MEASURED = {
    "rows": "measured on the rows",
    "moments": "measured on the accumulated moments (the rows were not read again)",
}
_HELD_OUT = {"loo": "leave-one-out", "kfold": "cross-validation"}
_CONFUSED = 8
#: What a fit is called, by the name of its loss; {} takes the loss's parameters.
_HEADINGS = {
    "gaussian": "Ridge (L2) regression",
    "binomial": "Logistic regression (L2)",
    "multinomial": "Multinomial logistic regression (L2)",
    "poisson": "Poisson regression (L2)",
    "gamma": "Gamma regression (L2)",
    "tweedie": "Tweedie regression (L2, power {power:g})",
    "negative-binomial": "Negative binomial regression (L2, dispersion {dispersion:g})",
    "huber": "Robust regression (L2, Huber's loss, ε = {epsilon:g})",
    "squared-hinge": "Support vector classification (squared hinge, L2)",
    "squared-epsilon-insensitive": "Support vector regression (squared, L2, ε = {epsilon:g})",
}
#: What e^θ is for a loss: the key in the dictionary, the head of the column, and what it multiplies.
_RATIOS = {
    "binomial": ("odds_ratio", "Odds ratio", "the odds"),
    "poisson": ("rate_ratio", "Rate ratio", "the expected count"),
    "negative-binomial": ("rate_ratio", "Rate ratio", "the expected count"),
    "gamma": ("mean_ratio", "Mean ratio", "the expected value"),
    "tweedie": ("mean_ratio", "Mean ratio", "the expected value"),
}


def as_dict(fit: Fit) -> dict[str, Any]:
    """Return everything that `as_text` shows, for every feature and target, as plain JSON values.

    Numbers that do not exist (the R² of a held-out sample under GCV, the residual standard error of
    a model with as many effective parameters as observations) are None; there is no NaN or infinity.

    Parameters
    ----------
    fit : Fit
        A fitted model.

    Returns
    -------
    dict
        ``family`` (the name of the loss), ``parameters`` of the loss, ``title``, ``classes`` (None for
        numbers), ``event`` (of two classes), ``offset``, ``quality`` (see `elltwo.quality`), ``objective``,
        ``rows``, ``rows_dropped``, ``observations``, ``sum_weights``, ``weights``, ``standardize``,
        ``fit_intercept``; ``rule``, ``rule_text``; ``alphas``: smallest, largest and number of those tried;
        ``edge``: "low", "high" or "both" where the optimum is not inside them, else None; ``columns`` of the
        table with name and kind (None for a model of arrays); ``features`` with name, mean and sd;
        ``targets``, each with name, mean, sd, alpha (sum scale), lambda (mean scale, α/Σw), score, df, r2,
        r2_cv, for squared error rss, cv_mse, residual_standard_error and else deviance, null_deviance,
        cv_deviance, then residual_df, intercept and ``coefficients`` by decreasing size of the standardised
        one: feature, coef, standardized, and for a logit or log link e^coef and e^standardized as
        odds_ratio, rate_ratio or mean_ratio, and with _sd; ``certificate``; ``solver``, ``solver_reason``;
        ``status`` with name and message.
    """
    certificate = fit.certificate
    features = zip(fit.feature_names, fit.feature_means, fit.feature_scales, strict=True)
    return {
        "family": fit.loss.name,
        "parameters": dataclasses.asdict(fit.loss),
        "title": _title(fit),
        "classes": None if fit.classes is None else list(fit.classes),
        "event": fit.classes[1] if fit.classes is not None and fit.coef.shape[1] == 1 else None,
        "offset": _offset(fit),
        "quality": None if fit.quality is None else dict(fit.quality),
        "objective": fit.objective,
        "rows": int(fit.n_rows),
        "rows_dropped": int(fit.rows_dropped),
        "observations": _number(fit.n_observations),
        "sum_weights": _number(fit.sum_weights),
        "weights": fit.weights,
        "standardize": bool(fit.standardize),
        "fit_intercept": bool(fit.fit_intercept),
        "rule": fit.rule,
        "rule_text": fit.rule_text,
        "alphas": _alphas(fit),
        "edge": _edge(fit),
        "columns": _columns(fit),
        "features": [{"name": n, "mean": _number(m), "sd": _number(s)} for n, m, s in features],
        "targets": [_target(fit, t) for t in range(len(fit.target_names))],
        "certificate": {
            "residual": _number(certificate.residual),
            "measured_on": certificate.measured_on,
            "condition": _number(certificate.condition),
            "digits": _number(certificate.digits),
            "refinements": int(certificate.refinements),
        },
        "solver": fit.solver,
        "solver_reason": fit.solver_reason,
        "status": [{"name": s.name, "message": s.value} for s in fit.status],
    }


def as_text(fit: Fit, *, most: int | None = 30) -> str:
    """Return the summary as a table of plain text, at most 96 columns wide.

    Parameters
    ----------
    fit : Fit
        A fitted model.
    most : int or None
        How many features to list, those with the largest standardised coefficients first; None lists
        all. What is left out is counted below the table. `as_dict` always holds every feature.

    Returns
    -------
    str
        Several lines, without a trailing newline.
    """
    facts = as_dict(fit)
    one = len(fit.target_names) == 1
    parts = [facts["title"], _facts(facts)]
    if table := _confusion(facts):
        parts.append(table)
    if one:
        parts.append(_coefficients(facts, most))
    else:
        if not fit.loss.coupled:
            parts.append(_targets(facts))
        parts.append(_coefficients_by_target(fit, most))
    notes = [s for s in fit.status if s is not Status.MOMENTS_ONLY]  # the line "Optimality" says it already
    if notes:
        parts.append("\n".join(_wrap(f"Note: {s.value}", "") for s in notes))
    return "\n\n".join(parts)


# ------------------------------------------------------------------------------------ the facts


def _target(fit: Fit, t: int) -> dict[str, Any]:
    s = 0 if fit.loss.coupled else t  # classes that share one deviance
    intercepts = fit.fit_intercept * (len(fit.target_names) - 1 if fit.loss.coupled else 1)
    residual_df = fit.n_observations - float(fit.df[t]) - intercepts
    # fewer than a millionth of an observation left over is rounding, not information about the noise
    saturated = residual_df <= 1e-6 * fit.n_observations
    score = fit.path.score
    if score is not None:
        score = score[fit.path.chosen[t]]
        score = score[t] if np.ndim(score) else score
    cv = None if fit.cv_deviance is None else _number(fit.cv_deviance[s])
    if fit.loss.name == "gaussian":
        error = None if saturated else _number(math.sqrt(fit.deviance[s] / residual_df))
        size = {"rss": _number(fit.deviance[s]), "cv_mse": cv, "residual_standard_error": error}
    else:
        null = _number(fit.null_deviance[s])
        size = {"deviance": _number(fit.deviance[s]), "null_deviance": null, "cv_deviance": cv}
    return {
        "name": fit.target_names[t],
        "mean": _number(fit.target_means[t]),
        "sd": _number(fit.target_scales[t]),
        "alpha": _number(fit.alpha[t]),
        "lambda": _number(fit.lambda_[t]),
        "score": None if score is None else _number(score),
        "df": _number(fit.df[t]),
        "r2": _number(fit.r2[s]),
        "r2_cv": None if fit.r2_cv is None else _number(fit.r2_cv[s]),
        **size,
        "residual_df": _number(max(residual_df, 0.0)),
        "intercept": _number(fit.intercept[t]),
        "coefficients": [
            _coefficient(fit, j, t) for j in _by_importance(np.abs(fit.coef[:, t] * fit.feature_scales))
        ],
    }


def _coefficient(fit: Fit, j: int, t: int) -> dict[str, Any]:
    coef, standard = fit.coef[j, t], fit.coef[j, t] * fit.feature_scales[j]
    row = {"feature": fit.feature_names[j], "coef": _number(coef), "standardized": _number(standard)}
    if fit.loss.name not in _RATIOS:
        return row
    key = _RATIOS[fit.loss.name][0]
    with np.errstate(over="ignore"):
        return row | {key: _number(np.exp(coef)), f"{key}_sd": _number(np.exp(standard))}


def _title(fit: Fit) -> str:
    """Name the model and its target in one line."""
    title = (
        f"{fit.model} regression"
        if fit.model != "Ridge (L2)"
        else _HEADINGS.get(fit.loss.name, f"L2-regularised regression ({fit.loss.name} loss)")
    )
    title = title.format(**dataclasses.asdict(fit.loss))
    if fit.classes is None:
        names = [printable(name, _NAME) for name in fit.target_names]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more targets" if len(names) > 3 else "")
        return f"{title} of {'the proportion ' * (fit.loss.name == 'binomial')}{shown}"
    target = (fit.quality or {}).get("target", fit.target_names[0] if len(fit.target_names) == 1 else None)
    of = "" if target is None else f" of {printable(target, _NAME)}"
    labels = [_quoted(label) for label in fit.classes]
    if fit.coef.shape[1] == 1:
        against = f"{labels[1]} against {labels[0]}"
        return f"{title}{of}: " + (f"event {labels[1]}" if fit.loss.link == "logit" else against)
    each = "" if fit.loss.coupled else ", each against the rest"
    return f"{title}{of}: {len(labels)} classes{each}"


def _quoted(label: Any) -> str:
    return f"'{printable(label, _NAME)}'" if isinstance(label, str) else str(label)


def _offset(fit: Fit) -> dict[str, str] | None:
    """Name the columns of the offset; None without any."""
    return None if fit.encoder is None else fit.encoder.to_dict().get("offsets")


def _by_importance(size: Any) -> list[int]:
    return [int(j) for j in np.argsort(-size, kind="stable")]


def _columns(fit: Fit) -> list[dict[str, str]] | None:
    """Name the table's columns behind the features; None for a model of arrays."""
    if fit.encoder is None:
        return None
    return [{"name": c["name"], "kind": c["kind"]} for c in fit.encoder.to_dict()["columns"]]


def _alphas(fit: Fit) -> dict[str, Any] | None:
    if fit.path.score is None:
        return None
    alphas = fit.path.alphas
    return {"smallest": _number(alphas.min()), "largest": _number(alphas.max()), "number": len(alphas)}


def _edge(fit: Fit) -> str | None:
    low, high = Status.EDGE_LOW in fit.status, Status.EDGE_HIGH in fit.status
    return "both" if low and high else "low" if low else "high" if high else None


def _number(value: Any) -> float | int | None:
    """Return a plain number, an int where that is exact for a count, or None for NaN and infinity."""
    value = float(value)
    return value if math.isfinite(value) else None


# ------------------------------------------------------------------------------------- the text


def _facts(facts: dict[str, Any]) -> str:
    certificate = facts["certificate"]
    quality = facts["quality"] or {}
    lines = [("Objective", facts["objective"])]
    if "family_reason" in quality:
        lines.append(("Family", quality["family_reason"]))
    lines.append(("Rows", _rows_text(facts)))
    if facts["classes"] is not None:
        lines.append(("Classes", _classes_text(facts)))
    lines.append(("Features", _features_text(facts)))
    if facts["offset"]:
        lines.append(("Offset", _offset_text(facts["offset"])))
    if facts["weights"] != "none":
        lines.append(("Weights", _weights_text(facts)))
    scored = f"; scored by {quality['scoring']}" if "scoring" in quality else ""
    lines += [("Penalty", _penalty_text(facts)), ("Chosen by", facts["rule_text"] + scored)]
    if len(facts["targets"]) == 1 or facts["family"] == "multinomial":
        lines += _quality(facts) if facts["family"] == "gaussian" else _deviances(facts)
    if (
        scored
        and facts["targets"][0]["score"] is not None
        and len({t["score"] for t in facts["targets"]}) == 1
    ):
        by = _HELD_OUT.get(facts["rule"], facts["rule"])
        lines.append(("Held-out score", f"{-facts['targets'][0]['score']:.4f} {quality['scoring']} by {by}"))
    if facts["classes"] is not None and quality:
        lines += _class_quality(facts, quality)
    measured = _MEASURED.get(certificate["measured_on"], certificate["measured_on"])
    lines += [
        ("Condition", f"{_or_none(certificate['condition'], '.2g')} (penalised, columns scaled)"),
        ("Optimality", f"residual {_or_none(certificate['residual'], '.1e')}, {measured}"),
        ("Correct digits", f"{_or_none(certificate['digits'], '.1f')} expected in the worst coefficient"),
        ("Solver", f"{facts['solver']}: {facts['solver_reason']}"),
    ]
    return "\n".join(_wrap(text, label) for label, text in lines)


def _rows_text(facts: dict[str, Any]) -> str:
    dropped = facts["rows_dropped"]
    used = "used" if facts["weights"] == "none" else "of positive weight used"
    return f"{facts['rows']:,} {used}, {dropped:,} dropped" + (" (missing values)" if dropped else "")


def _features_text(facts: dict[str, Any]) -> str:
    constant = [f["name"] for f in facts["features"] if f["sd"] == 0]
    text = f"{len(facts['features']):,}"
    columns = facts["columns"] or []
    if texts := sum(column["kind"] == "string" for column in columns):
        text += f" from {len(columns):,} columns, {texts:,} of them text (one feature for each value)"
    if constant:
        shown = ", ".join(printable(n, _NAME) for n in constant[:3])
        rest = f" and {len(constant) - 3:,} more" if len(constant) > 3 else ""
        text += f", of which constant, coefficient 0: {shown}{rest}"
    return text


def _weights_text(facts: dict[str, Any]) -> str:
    total, n = f"{facts['sum_weights']:,.10g}", f"{facts['observations']:,.10g}"
    if facts["weights"] == "counts":
        return f"counts: the rows stand for {n} observations"
    return f"precisions: {n} observations whose weights sum to {total}"


def _penalty_text(facts: dict[str, Any]) -> str:
    alphas = [t["alpha"] for t in facts["targets"]]
    if min(alphas) < max(alphas):
        return f"one α for each target, {min(alphas):.5g} to {max(alphas):.5g} (sum scale)"
    text = f"α = {alphas[0]:.5g} (sum scale), λ = {facts['targets'][0]['lambda']:.5g} (mean scale)"
    return text + (", on standardised columns" if facts["standardize"] else ", on the columns as they are")


def _quality(facts: dict[str, Any]) -> list[tuple[str, str]]:
    target = facts["targets"][0]
    r2 = f"{_or_none(target['r2'], '.4f')} in sample"
    if target["r2_cv"] is not None:
        r2 += f", {target['r2_cv']:.4f} by {_HELD_OUT.get(facts['rule'], facts['rule'])}"
    error = target["residual_standard_error"]
    residual = (
        "none: as many effective parameters as observations"
        if error is None
        else f"{error:.5g} on {_degrees(target['residual_df'])} degrees of freedom"
    )
    count = len(facts["features"])
    return [
        ("Effective df", f"{target['df']:.2f} of {count:,}" + (" + intercept" * facts["fit_intercept"])),
        ("R²", r2),
        ("Residual s.e.", residual),
    ]


def _classes_text(facts: dict[str, Any]) -> str:
    """List the classes with their rows, or how many there are where they are many."""
    quality = facts["quality"] or {}
    rows, weights = quality.get("class_rows"), quality.get("class_weights")
    parts = []
    for k, label in enumerate(facts["classes"][:12]):
        about = [] if rows is None else [f"{rows[k]:,} row{'s' * (rows[k] != 1)}"]
        about += [] if weights is None else [f"weight {weights[k]:.4g}"]
        parts.append(_quoted(label) + (f" ({', '.join(about)})" if about else ""))
    more = len(facts["classes"]) - len(parts)
    return ", ".join(parts) + (f" and {more:,} more" if more else "")


def _offset_text(columns: dict[str, str]) -> str:
    parts = {"offset": "{}", "exposure": "log of {}"}
    terms = [parts[role].format(printable(name, _NAME)) for role, name in columns.items()]
    return f"{' + '.join(terms)}, added to the linear predictor"


def _deviances(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how much is explained, and what is left, in units of the loss."""
    target, count = facts["targets"][0], len(facts["features"])
    margin = facts["family"] in ("squared-hinge", "squared-epsilon-insensitive", "huber")
    explained = f"{_or_none(target['r2'], '.4f')} explained in sample"
    if target["r2_cv"] is not None:
        explained += f", {target['r2_cv']:.4f} by {_HELD_OUT.get(facts['rule'], facts['rule'])}"
    df = f"{target['df']:.2f}"
    if facts["family"] == "multinomial":
        df += f" of {count * (len(facts['targets']) - 1):,}" + " + intercepts" * facts["fit_intercept"]
    else:
        df += f" of {count:,}" + " + intercept" * facts["fit_intercept"]
    lines = [("Effective df", df), ("Loss" if margin else "Deviance", explained)]
    if margin or facts["classes"] is not None:
        return lines
    left, degrees = target["deviance"], target["residual_df"]
    if left is not None:
        ratio = f" ({left / degrees:.4g} each)" if degrees else ""
        null = _or_none(target["null_deviance"], ",.5g")
        text = f"{left:,.5g} on {_degrees(degrees)} degrees of freedom{ratio}, null {null}"
        lines.append(("Residual deviance", text))
    return lines


def _class_quality(facts: dict[str, Any], quality: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how well the classes are told apart."""
    lines = []
    if facts["family"] in ("binomial", "multinomial"):
        cv = facts["targets"][0]["cv_deviance"]
        parts = [f"{quality['log_loss']:.4f} in sample"] if "log_loss" in quality else []
        # The deviance of a label is twice its log-loss.
        if cv is not None:
            weighted = " (class-weighted)" if "class_weights" in quality else ""
            parts.append(f"{cv / 2:.4f} by {_HELD_OUT.get(facts['rule'], facts['rule'])}{weighted}")
        if parts:
            lines.append(("Log-loss", ", ".join(parts)))
    if "not_computed" in quality:
        return [*lines, ("Accuracy", f"not computed: {quality['not_computed']}")]
    if "accuracy" in quality:
        text = f"{quality['accuracy']:.4f}"
        text += f", AUC {quality['auc']:.4f}" if "auc" in quality else ""
        text += f", Brier score {quality['brier']:.4f}" if "brier" in quality else ""
        lines.append(("Accuracy", f"{text} (in sample)"))
    return lines


def _confusion(facts: dict[str, Any]) -> str:
    """Lay out the confusion table of a few classes, or return nothing."""
    table = (facts["quality"] or {}).get("confusion")
    if table is None or len(table) > _CONFUSED:
        return ""
    names = [printable(str(label), 14) for label in facts["classes"]]
    columns = [[f"{row[k]:,.10g}" for row in table] for k in range(len(names))]
    text = _table(["True \\ predicted", *names], [names], columns)
    return text + "\nIn sample: rows that the model was fitted to."


def _coefficients(facts: dict[str, Any], most: int | None) -> str:
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
    if facts["family"] in _RATIOS:
        key, head, what = _RATIOS[facts["family"]]
        heads += [head, "per s.d."]
        columns += [[r[key] for r in shown] + bottom, [r[f"{key}_sd"] for r in shown] + bottom]
        event = f" of {_quoted(facts['event'])}" if facts["event"] is not None else ""
        each = f"{head}: factor of {what}{event} per unit of the feature, and per standard deviation."
        note += "\n" + textwrap.fill(each, WIDTH)
    names = [printable(r["feature"], _NAME) for r in shown] + ["(intercept)"] * facts["fit_intercept"]
    return "\n".join([_table(heads, [names], columns), *_left_out(len(rows) - len(shown)), note])


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


def _targets(facts: dict[str, Any]) -> str:
    shown = facts["targets"][:30]
    numbers = {"α": "alpha", "λ": "lambda", "df": "df"}
    columns = {head: [t[key] for t in shown] for head, key in numbers.items()}
    share = "R²" if facts["family"] == "gaussian" else "explained"
    columns[share] = [_or_none(t["r2"], ".4f") for t in shown]
    if any(t["r2_cv"] is not None for t in shown):
        columns[f"{share} held out"] = [_or_none(t["r2_cv"], ".4f") for t in shown]
    if facts["family"] == "gaussian":
        columns["residual s.e."] = [t["residual_standard_error"] for t in shown]
    else:
        columns["deviance"] = [t["deviance"] for t in shown]
    names = [printable(name, _NAME) for name in _target_labels(facts)[:30]]
    what = "Target" if facts["classes"] is None else "Class"
    table = _table([what, *columns], [names], list(columns.values()))
    return "\n".join([table, *_left_out(len(facts["targets"]) - len(shown), what.lower())])


def _target_labels(facts: dict[str, Any]) -> list[str]:
    """Return what columns of several targets are called: the labels, where they are classes."""
    if facts["classes"] is not None and len(facts["classes"]) == len(facts["targets"]):
        return [str(label) for label in facts["classes"]]
    return [t["name"] for t in facts["targets"]]


def _coefficients_by_target(fit: Fit, most: int | None) -> str:
    """Two tables with one column per target: coefficients, and standardised coefficients."""
    targets = len(fit.target_names)
    scaled = fit.coef * fit.feature_scales[:, None]
    spread = np.where(fit.target_scales > 0, fit.target_scales, 1)
    order = _by_importance(np.max(np.abs(scaled) / spread, axis=1))
    for beside in range(min(targets, _TARGETS_SHOWN), 0, -1):  # as many targets as the width has room for
        tables = _two_tables(fit, scaled, order[:most], beside)
        if max(_cells(line) for table in tables for line in table.splitlines()) <= WIDTH:
            break
    what = "target" if fit.classes is None else "class"
    left_out = _left_out(len(order) - len(order[:most])) + _left_out(targets - beside, what)
    note = _standardised(fit.loss.name)
    if fit.loss.coupled:
        note += "\n" + textwrap.fill(
            "Symmetric form: every class has coefficients, which sum to 0 over the classes. The difference "
            "of two columns is the change of the log odds of one class against the other when the feature "
            "rises by one unit.",
            WIDTH,
        )
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
        _table(["Coefficients", *heads], [names + bottom], original),
        _table(["Standardised", *heads], [names], standard),
    )


def _left_out(count: int, what: str = "feature") -> list[str]:
    if count <= 0:
        return []
    order = " with smaller standardised coefficients" if what == "feature" else ""
    plural = "" if count == 1 else "es" if what == "class" else "s"
    return [f"… and {count:,} more {what}{plural}{order}; the JSON form lists all."]


def _table(heads: Sequence[str], names: Sequence[Sequence[str]], numbers: Sequence[Sequence[Any]]) -> str:
    """Lay out one column of names and columns of numbers that are aligned at the decimal point."""
    columns = [_pad([heads[0], *names[0]], right=False)]
    columns += [
        _pad([head, *_align(column)], right=True) for head, column in zip(heads[1:], numbers, strict=True)
    ]
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    rule = "-" * max(_cells(line) for line in lines)
    return "\n".join([lines[0], rule, *lines[1:]])


def _align(values: Sequence[Any]) -> list[str]:
    """Format numbers to five significant digits, or take text as it is, decimal points below one another."""
    texts = ["" if v is None else v if isinstance(v, str) else _short(v) for v in values]
    tails = [len(text) - text.index(".") if "." in text else 0 for text in texts]
    most = max(tails, default=0)
    return [text + " " * (most - tail) for text, tail in zip(texts, tails, strict=True)]


def _degrees(df: float) -> str:
    return f"{df:,.1f}" if df >= 10 else f"{df:.3g}"


def _short(value: float) -> str:
    """Format to five significant digits, without an exponent where that is readable.

    >>> [_short(v) for v in (0.0, 1234567.0, -0.0123456, 3.2e-9, 15.0)]
    ['0', '1234567', '-0.012346', '3.2000e-09', '15.000']
    """
    if value == 0:
        return "0"
    size = abs(value)
    if not 1e-4 <= size < 1e7:
        return f"{value:.4e}"
    return f"{value:.{max(0, 4 - math.floor(math.log10(size)))}f}"


def _or_none(value: float | None, spec: str) -> str:
    return "not defined" if value is None else format(value, spec)


def _pad(cells: Iterable[str], *, right: bool) -> list[str]:
    cells = list(cells)
    width = max(map(_cells, cells))
    return [" " * (width - _cells(c)) + c if right else c + " " * (width - _cells(c)) for c in cells]


def _cells(text: str) -> int:
    """Columns that a text takes on a terminal: East Asian wide characters take two."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def printable(name: str, width: int) -> str:
    """Return a name on one line, without control characters, cut in the middle if it is long."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= width else f"{name[: width // 2]}…{name[-(width - width // 2 - 1) :]}"


def _wrap(text: str, label: str) -> str:
    first = label.ljust(_LABEL) if label else ""
    rest = " " * _LABEL if label else "      "
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest)
