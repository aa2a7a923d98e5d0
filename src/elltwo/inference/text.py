"""Inference as a table: dictionaries, and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from elltwo.summary import printable

if TYPE_CHECKING:
    from elltwo.inference.result import Inference

_RATIOS = {"binomial": "Odds ratio", "poisson": "Rate ratio", "negative-binomial": "Rate ratio"}
_MEANING = {
    "bayes": "Bayesian: posterior under the penalty as a prior",
    "model": "frequentist, if the model holds; the penalty's bias is not in them",
    "sandwich": "frequentist, robust (sandwich); the penalty's bias is not in them",
}


def meaning(kind: str, level: float, penalised: bool) -> str:
    """Say what a standard error and an interval are."""
    interval = f"{100 * level:.6g} % interval"
    trust = "whatever the variances are" if kind == "sandwich" else "if the model holds"
    if not penalised:
        return f"Std. error, {interval} and test of 0: the usual ones, as there is no penalty, {trust}."
    if kind == "bayes":
        return (
            f"Std. error and {interval}: the posterior with the penalty as a prior. It covers that often on "
            "average over the coefficients, not for each; alpha counts as known."
        )
    return (
        f"Std. error and {interval}: how the penalised estimate varies about its own mean, {trust}. The "
        "penalty's bias is not in them, so they are no test of 0; alpha counts as known."
    )


def table(result: Inference, level: float | None, kind: str | None) -> list[dict[str, Any]]:
    """Return the dictionaries of `Inference.as_table`."""
    se, interval = result.standard_errors(kind), result.intervals(level, kind)
    rows: list[dict[str, Any]] = []
    for t, target in enumerate(result.target_names):
        names = [*result.feature_names, *["(intercept)"] * result.fit_intercept]
        columns = {
            "coef": np.append(result.coef[:, t], result.intercept[t]),
            "se": np.append(se.coef[:, t], se.intercept[t]),
            "low": np.append(interval.coef[:, t, 0], interval.intercept[t, 0]),
            "high": np.append(interval.coef[:, t, 1], interval.intercept[t, 1]),
            "bias": np.append(result.bias.coef[:, t], result.bias.intercept[t]),
        }
        if result.loss.link in ("logit", "log"):
            with np.errstate(over="ignore"):
                columns |= {
                    "ratio": np.exp(columns["coef"]),
                    "ratio_low": np.exp(columns["low"]),
                    "ratio_high": np.exp(columns["high"]),
                }
        for j, name in enumerate(names):
            rows.append({"target": target, "feature": name, **{k: float(v[j]) for k, v in columns.items()}})
    return rows


def summary(result: Inference, level: float, kind: str, most: int | None) -> str:
    """Return the text of `Inference.summary`."""
    rows = table(result, level, kind)
    percent = f"{100 * level:.6g} %"
    each = len(rows) // len(result.target_names)
    parts = []
    for t, target in enumerate(result.target_names):
        s = 0 if result.loss.coupled else t
        phi = "estimated" if result.estimated else "known"
        lines = [
            f"{printable(target, 36)}: {result.loss.name}, {result.loss.link} link, "
            f"α = {result.alpha[t]:.5g} (sum scale)",
            f"Standard errors   {_MEANING[kind]}",
            f"Dispersion        {result.dispersion[s]:.5g} ({phi})",
            f"Effective df      {result.df[s]:.2f} of {len(result.coef) * max(1, result.classes - 1):,}"
            + " + intercept" * result.fit_intercept
            + f"; residual df {max(result.residual_df[s], 0.0):,.2f}",
            "",
        ]
        own = rows[t * each : (t + 1) * each]
        ratio = _RATIOS.get(result.loss.name, "Ratio")
        lines += _text_table(own, len(result.coef), percent, ratio, most)
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _text_table(rows: list[dict[str, Any]], p: int, percent: str, ratio: str, most: int | None) -> list[str]:
    """Return the lines of one target's table: features in their order, the intercept below."""
    listed = list(range(p))
    if most is not None and p > most:
        strength = [-abs(rows[j]["coef"]) / (rows[j]["se"] or np.inf) for j in listed]
        listed = sorted(np.argsort(strength, kind="stable")[:most].tolist())
    shown = [rows[j] for j in listed] + rows[p:]
    columns = [["Feature", *(printable(r["feature"], 28) for r in shown)]]
    heads = {"coef": "Coefficient", "se": "Std. error", "low": f"{percent} from", "high": "to"}
    if "ratio" in rows[0]:
        heads |= {"ratio": ratio, "ratio_low": "from", "ratio_high": "to"}
    for key, head in heads.items():
        columns.append([head, *(_short(r[key]) for r in shown)])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *rest]))
    lines.insert(1, "-" * len(lines[0]))
    if len(listed) < p:
        lines.append(f"… and {p - len(listed):,} more features, smaller beside their standard errors.")
    return lines


def _short(value: float) -> str:
    """Return four significant digits, with trailing zeros so that columns can be compared."""
    if np.isnan(value):
        return "–"
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    decimals = 3 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{max(decimals, 0)}f}" if -5 < decimals < 9 else f"{value:.3e}"
