"""The lines above the tables of a summary: label and text."""

from __future__ import annotations

from typing import Any

from elltwo.summary.layout import NAME, df_text, or_none, printable, quoted, wrap

_MEASURED = {
    "rows": "measured on the rows",
    "moments": "measured on the accumulated moments (the rows were not read again)",
}
HELD_OUT = {"loo": "leave-one-out", "kfold": "cross-validation"}


def facts_lines(facts: dict[str, Any]) -> str:
    """Return the lines of a summary that are label and text."""
    certificate = facts["certificate"]
    quality = facts["quality"] or {}
    lines = [("Objective", facts["objective"])]
    if "family_reason" in quality:
        lines.append(("Family", quality["family_reason"]))
    lines.append(("Rows", _rows_text(facts)))
    if facts["classes"] is not None:
        lines.append(("Classes", _classes_text(facts)))
    lines.append(("Features", _features_text(facts)))
    if facts["kernel"] is not None:
        lines += _kernel(facts["kernel"])
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
        by = HELD_OUT.get(facts["rule"], facts["rule"])
        lines.append(("Held-out score", f"{-facts['targets'][0]['score']:.4f} {quality['scoring']} by {by}"))
    if facts["classes"] is not None and quality:
        lines += _class_quality(facts, quality)
    if facts["inference"] is not None:
        lines.append(("Dispersion", _dispersion_text(facts["inference"])))
    measured = _MEASURED.get(certificate["measured_on"], certificate["measured_on"])
    lines += [
        ("Condition", f"{or_none(certificate['condition'], '.2g')} (penalised, columns scaled)"),
        ("Optimality", f"residual {or_none(certificate['residual'], '.1e')}, {measured}"),
        *_gap(certificate),
        ("Correct digits", f"{or_none(certificate['digits'], '.1f')} expected in the worst coefficient"),
        ("Solver", f"{facts['solver']}: {facts['solver_reason']}"),
    ]
    return "\n".join(wrap(text, label) for label, text in lines)


def _gap(certificate: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the line of the duality gap, if there is one."""
    if certificate["gap"] is None:
        return []
    return [("Duality gap", f"at most {certificate['gap']:.1e} of the null model's loss")]


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
        shown = ", ".join(printable(n, NAME) for n in constant[:3])
        rest = f" and {len(constant) - 3:,} more" if len(constant) > 3 else ""
        text += f", of which constant, coefficient 0: {shown}{rest}"
    return text


def _kernel(kernel: dict[str, Any]) -> list[tuple[str, str]]:
    """Say which kernel it is, how its parameters came about, and what the function is made of."""
    numbers = ", ".join(f"{name} = {value:.5g}" for name, value in kernel["parameters"].items())
    m, fitted, size = kernel["centers"], kernel["fitted"], kernel["bytes"]
    what = "centres drawn from the training rows" if kernel["nystrom"] else "training rows"
    of = f"{m:,} {what}" if m == fitted else f"{m:,} of {fitted:,} {what}, the others have coefficient 0"
    named = f"{kernel['kernel']}" + f", {numbers}" * bool(numbers)
    return [
        ("Kernel", f"{named}; {kernel['how']}"),
        ("Function", f"f(x) = Σ aⱼ·k(cⱼ, x) over {of}; {_bytes(size)}"),
    ]


def _bytes(size: int) -> str:
    """Return a size in the unit that suits it.

    >>> _bytes(2048), _bytes(3 << 20)
    ('2.0 KiB', '3.0 MiB')
    """
    return f"{size / 2**10:.1f} KiB" if size < 1 << 20 else f"{size / 2**20:,.1f} MiB"


def _weights_text(facts: dict[str, Any]) -> str:
    total, n = f"{facts['sum_weights']:,.10g}", f"{facts['observations']:,.10g}"
    column = "" if facts["weights_column"] is None else f"column {printable(facts['weights_column'], NAME)}, "
    if facts["weights"] == "frequency":
        return f"{column}frequency: {n} observations in {facts['rows']:,} rows"
    return f"{column}analytic (precision): {n} observations whose weights sum to {total}"


def _penalty_text(facts: dict[str, Any]) -> str:
    alphas = [t["alpha"] for t in facts["targets"]]
    if min(alphas) < max(alphas):
        return f"one α for each target, {min(alphas):.5g} to {max(alphas):.5g} (sum scale)"
    text = f"α = {alphas[0]:.5g} (sum scale), λ = {facts['targets'][0]['lambda']:.5g} (mean scale)"
    if facts["kernel"] is not None:
        return text + (", columns standardised for the kernel" if facts["standardize"] else "")
    return text + (", on standardised columns" if facts["standardize"] else ", on the columns as they are")


def _count(facts: dict[str, Any]) -> int:
    """Return the number of coefficients of a target."""
    return len(facts["features"]) if facts["kernel"] is None else int(facts["kernel"]["fitted"])


def _df(df: float | None, count: int) -> str:
    """Return degrees of freedom out of so many, if they are known."""
    return "not computed" if df is None else f"{df:.2f} of {count:,}"


def _quality(facts: dict[str, Any]) -> list[tuple[str, str]]:
    target = facts["targets"][0]
    r2 = f"{or_none(target['r2'], '.4f')} in sample"
    if target["r2_cv"] is not None:
        r2 += f", {target['r2_cv']:.4f} by {HELD_OUT.get(facts['rule'], facts['rule'])}"
    error = target["residual_standard_error"]
    residual = (
        "not computed, as the effective df is not"
        if target["df"] is None
        else "none: as many effective parameters as observations"
        if error is None
        else f"{error:.5g} on {df_text(target['residual_df'])} degrees of freedom"
    )
    count = _count(facts)
    return [
        ("Effective df", _df(target["df"], count) + (" + intercept" * facts["fit_intercept"])),
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
        parts.append(quoted(label) + (f" ({', '.join(about)})" if about else ""))
    more = len(facts["classes"]) - len(parts)
    return ", ".join(parts) + (f" and {more:,} more" if more else "")


def _offset_text(columns: dict[str, str]) -> str:
    parts = {"offset": "{}", "exposure": "log of {}"}
    terms = [parts[role].format(printable(name, NAME)) for role, name in columns.items()]
    return f"{' + '.join(terms)}, added to the linear predictor"


def _deviances(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how much is explained, and what is left, in units of the loss."""
    target, count = facts["targets"][0], _count(facts)
    margin = facts["family"] in ("squared-hinge", "squared-epsilon-insensitive", "huber")
    explained = f"{or_none(target['r2'], '.4f')} explained in sample"
    if target["r2_cv"] is not None:
        explained += f", {target['r2_cv']:.4f} by {HELD_OUT.get(facts['rule'], facts['rule'])}"
    if facts["family"] == "multinomial":
        df = _df(target["df"], count * (len(facts["targets"]) - 1)) + " + intercepts" * facts["fit_intercept"]
    else:
        df = _df(target["df"], count) + " + intercept" * facts["fit_intercept"]
    lines = [("Effective df", df), ("Loss" if margin else "Deviance", explained)]
    if margin or facts["classes"] is not None:
        return lines
    left, degrees = target["deviance"], target["residual_df"]
    if left is not None and degrees is not None:
        ratio = f" ({left / degrees:.4g} each)" if degrees else ""
        null = or_none(target["null_deviance"], ",.5g")
        text = f"{left:,.5g} on {df_text(degrees)} degrees of freedom{ratio}, null {null}"
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
            parts.append(f"{cv / 2:.4f} by {HELD_OUT.get(facts['rule'], facts['rule'])}{weighted}")
        if parts:
            lines.append(("Log-loss", ", ".join(parts)))
    if "not_computed" in quality:
        return [*lines, ("Accuracy", f"not computed: {quality['not_computed']}")]
    if "accuracy" in quality:
        text = f"{quality['accuracy']:.4f}"
        text += f", AUC {quality['auc']:.4f}" if "auc" in quality else ""
        text += f", Brier score {quality['brier']:.4f}" if "brier" in quality else ""
        lines.append(("Accuracy", f"{text} (in sample)"))
    if held := quality.get("held_out"):
        lines.append(("Held-out accuracy", f"{held['accuracy']:.4f} by {HELD_OUT[held['by']]}"))
    return lines


def _dispersion_text(inference: dict[str, Any]) -> str:
    """Say what the standard errors were scaled by."""
    each, df = inference["dispersion"], inference["residual_df"]
    how = "estimated" if inference["dispersion_estimated"] else "known"
    if len(each) > 1:
        return f"φ = {min(each):.5g} to {max(each):.5g} ({how})"
    if not inference["dispersion_estimated"]:
        return f"φ = {each[0]:.5g} (known); intervals by the normal distribution"
    return f"φ = {each[0]:.5g} (estimated); intervals by Student's t on {df_text(df[0])} degrees of freedom"
