"""How alpha is chosen: rules, and the grid they choose from.

A rule reads what it needs and nothing more: GCV, REML, AIC and BIC only the state's spectrum,
KFold the statistics of atoms of rows, LOO one more pass over the rows.
"""

from __future__ import annotations

from typing import Any

from elltwo.errors import InputError, did_you_mean
from elltwo.selection.criteria import Context, Rule, Scores, merge
from elltwo.selection.grid import best_index, check_alphas, interpolated, refine, spectrum_grid
from elltwo.selection.held_out import LOO, KFold, held_out_errors
from elltwo.selection.scoring import (
    OF_NUMBERS,
    SCORINGS,
    HeldRows,
    Metric,
    OfClasses,
    Scoring,
    UndefinedScore,
    as_scoring,
)
from elltwo.selection.spectrum import AIC, BIC, GCV, REML

__all__ = [
    "AIC", "BIC", "GCV", "LOO", "OF_NUMBERS", "REML", "RULES", "SCORINGS", "Context", "HeldRows", "KFold",
    "Metric", "OfClasses", "Rule", "Scores", "Scoring", "UndefinedScore", "as_rule", "as_scoring",
    "best_index", "check_alphas", "held_out_errors", "interpolated", "merge", "refine", "spectrum_grid",
]  # fmt: skip

#: Every rule of the package.
RULES = (LOO, GCV, KFold, REML, AIC, BIC)


def as_rule(rule: Any) -> Rule:
    """Return the rule object for a rule's name or a rule object.

    Raises
    ------
    InputError
        If no rule has that name.
    """
    if isinstance(rule, RULES):
        return rule
    names = {r.name: r for r in RULES}
    if isinstance(rule, str) and rule in names:
        return names[rule]()
    hint = did_you_mean(rule, names) if isinstance(rule, str) else ""
    raise InputError(f"alpha={rule!r} is neither a number nor a rule.{hint} Rules: {', '.join(names)}.")
