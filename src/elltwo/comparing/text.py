"""A comparison as plain text: what was compared, the table, and the recommendation."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from scipy.special import stdtrit

from elltwo.comparing.results import ERROR_RATE
from elltwo.summary import WIDTH, printable

if TYPE_CHECKING:
    from elltwo.comparing.results import Comparison, Row

_SPLIT_WORDS = {
    "dealt": "rows dealt by a fixed shuffle",
    "group": "the rows of each '{key}' kept together",
    "time": "each predicted from its past by '{key}'",
}


def as_text(found: Comparison) -> str:
    """Return the table and the recommendation, wrapped to 96 columns."""
    parts = [_wrapped(_heading(found)), _table(found), _wrapped(_legend(found)), _wrapped(found.text)]
    out = [f"Not in the table: {label}. {reason}" for label, reason in found.left_out]
    if more := [*out, *(f"Note: {note}" for note in found.notes)]:
        parts.append("\n".join(_wrapped(line) for line in more))
    return "\n\n".join(parts)


def _heading(found: Comparison) -> str:
    target = printable(found.target, 36)
    parameters = ", ".join(f"{name} {value:g}" for name, value in found.parameters.items())
    family = found.family + (f" ({parameters})" if parameters else "")
    reason = f", because {found.family_reason}" if found.family_reason else ""
    n, k = found.n_rows, len(found.fold_rows)
    split = _SPLIT_WORDS[found.split].format(key=printable(found.key or "", 36))
    why = "missing values" if found.weights == "none" else "missing values or weight 0"
    dropped = f" ({found.rows_dropped:,} left out: {why})" if found.rows_dropped else ""
    weights = "" if found.weights == "none" else f" Weights: {found.weights}."
    predicted = "" if found.rows_predicted == n else f", {found.rows_predicted:,} of the rows predicted"
    return (
        f"Prediction of {target}, family {family}{reason}: {n:,} rows{dropped}, {found.n_features:,} "
        f"features from {found.n_columns:,} columns. {k} outer folds, {split}{predicted}; alpha is chosen "
        f"anew inside each (k-fold: {found.inner_folds} inner folds).{weights}"
    )


def _table(found: Comparison) -> str:
    best = found.rows[0]
    unit = _unit(best.error)
    per = "" if unit == 1 else f"/1e{round(math.log10(unit))}"
    coarsest = best.se / unit

    def behind(row: Row) -> str:
        if row is best:
            return ""
        return " ± ".join(plus_minus(row.behind / unit, row.behind_se / unit, coarsest=coarsest / 20))

    name = {"gaussian": "MSE", "huber": "Loss"}.get(found.family, "Deviance")
    columns = [
        ("  Model", [("* " if r is best else "+ " if r.within else "  ") + r.label for r in found.rows]),
        (
            f"{name}{per} ± s.e.",
            [" ± ".join(plus_minus(r.error / unit, r.se / unit, coarsest=coarsest)) for r in found.rows],
        ),
        *([("RMSE", [f"{math.sqrt(r.error):.4g}" for r in found.rows])] if name == "MSE" else []),
        ("Explained", ["" if r.explained is None else percent(r.explained) for r in found.rows]),
        (f"Behind best{per}", [behind(r) for r in found.rows]),
        ("Coefs", [f"{r.nonzero:.5g}" for r in found.rows]),
        ("df", [f"{r.df:.1f}" for r in found.rows]),
        ("Alpha", ["" if r.alpha is None else f"{r.alpha:.3g}" for r in found.rows]),
        ("Time", [f"{r.seconds:.2f} s" if r.seconds < 10 else f"{r.seconds:.0f} s" for r in found.rows]),
    ]

    def widths() -> list[int]:
        return [max(map(len, [head, *cells])) for head, cells in columns]

    if name == "MSE" and sum(widths()) + 2 * (len(columns) - 1) > WIDTH:
        del columns[2]  # numbers of an unusual size; the root is the easiest to do without
    lines = [[head for head, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    first, *rest = widths()
    text = [
        "  ".join([line[0].ljust(first), *(c.rjust(w) for c, w in zip(line[1:], rest, strict=True))]).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def _unit(error: float) -> float:
    """Return the power of a thousand in which errors that are long to write are shown, else 1.

    >>> _unit(2986.4), _unit(164_441.0), _unit(2.5e-6)
    (1.0, 1000.0, 1e-06)
    """
    if not error > 0 or 1e-3 <= error < 1e5:
        return 1.0
    return float(f"1e{3 * math.floor(math.log10(error) / 3)}")


def _legend(found: Comparison) -> str:
    what = {
        "gaussian": "MSE: mean squared error of held-out rows",
        "huber": "Loss: twice the mean Huber loss of held-out rows",
        "binomial": "Deviance: of held-out rows, twice their mean log-loss",
        "multinomial": "Deviance: of held-out rows, twice their mean log-loss",
    }.get(found.family, "Deviance: mean of held-out rows")
    k = len(found.fold_rows)
    t = float(stdtrit(k - 1, 1 - ERROR_RATE / 2))
    keys = [row.key for row in found.rows]
    by_folds = (
        "Elastic net and lasso choose alpha by k-fold. " if "lasso" in keys or "elasticnet" in keys else ""
    )
    return (
        f"* the best, + within one standard error of it. {what}. Explained: share of the mean's error "
        "that is gone. Behind best: difference on the same folds. Coefs: how many are not 0. Coefs, df and "
        f"alpha are medians over folds; every ± is one standard error over the {k} folds. {by_folds}Below, "
        f"'clear' means beyond the 95 % limits: {t:.1f} standard errors."
    )


def plus_minus(value: float, se: float, *, coarsest: float = 0.0) -> tuple[str, str]:
    """Return a number and its standard error with the decimals that two digits of the latter need.

    Where the standard error is below `coarsest`, this decides.

    >>> plus_minus(2986.4, 183.6), plus_minus(0.031234, 0.00421), plus_minus(3.2e9, 1e8)
    (('2,986', '184'), ('0.0312', '0.0042'), ('3.2e+09', '1e+08'))
    """
    unit = max(se, coarsest)
    if not unit > 0:
        return f"{value:.4g}", f"{se:.2g}"
    if max(abs(value), se) >= 1e7 or unit < 1e-7:
        return f"{value:.3g}", f"{se:.2g}"
    decimals = max(0, 1 - math.floor(math.log10(unit)))
    return f"{value:,.{decimals}f}", f"{se:,.{decimals}f}"


def percent(share: float) -> str:
    """Write a share in percent.

    >>> [percent(share) for share in (0.4935, 0.00312, -2.5, -3e-6)]
    ['49.4 %', '0.3 %', '-250.0 %', '0.0 %']
    """
    return f"{round(100 * share, 1) + 0.0:.1f} %" if abs(share) < 100 else f"{100 * share:.3g} %"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
