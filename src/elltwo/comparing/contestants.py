"""What is compared: every model, with every way of choosing its alpha that applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elltwo.models import MODELS


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    Attributes
    ----------
    key : str
        Its name in JSON.
    kind : str
        What the last paragraph calls it: contestants of a kind differ in how alpha is chosen.
    label : str
        Its name in the table.
    model : str or None
        One of `elltwo.fitting.MODELS`; None for the mean.
    rule : str or float or None
        The rule that chooses alpha, or alpha itself.
    """

    key: str
    kind: str
    label: str
    model: str | None
    rule: str | float | None = None

    def takes(self, family: str, loss: Any) -> bool:
        """Return whether the model is made for the family, and the rule for its loss."""
        if self.model is None:
            return True
        lacking = () if loss.name == "gaussian" else SQUARED_ONLY
        if not hasattr(loss, "minus_two_loglik"):
            lacking = (*lacking, *LIKELIHOOD)
        return family in MODELS[self.model].losses and self.rule not in lacking


#: Rules that are defined for squared error alone, and those that need a likelihood.
SQUARED_ONLY, LIKELIHOOD = ("gcv", "reml"), ("aic", "bic")
#: Everything that is compared; a line more is a contestant more.
CONTESTANTS = (
    Contestant("mean", "the mean", "Mean alone", None),
    Contestant("unpenalised", "the unpenalised fit", "No penalty", "ridge", 0.0),
    Contestant("ridge-loo", "ridge", "Ridge, LOO", "ridge", "loo"),
    Contestant("ridge-gcv", "ridge", "Ridge, GCV", "ridge", "gcv"),
    Contestant("ridge-kfold", "ridge", "Ridge, k-fold", "ridge", "kfold"),
    Contestant("ridge-reml", "ridge", "Ridge, REML", "ridge", "reml"),
    Contestant("ridge-aic", "ridge", "Ridge, AIC", "ridge", "aic"),
    Contestant("ridge-bic", "ridge", "Ridge, BIC", "ridge", "bic"),
    Contestant("elasticnet", "the elastic net", "Elastic net", "elasticnet", "kfold"),
    Contestant("lasso", "the lasso", "Lasso", "lasso", "kfold"),
)
#: Speaks for all of ridge, so that no rule is picked for having been lucky; with groups or times the other.
SPOKESMAN = {"dealt": "ridge-loo", "group": "ridge-kfold", "time": "ridge-kfold"}

#: Contestants by key.
BY_KEY = {c.key: c for c in CONTESTANTS}

#: What rules are called in a sentence.
RULE_WORDS = {
    "loo": "leave-one-out",
    "gcv": "GCV",
    "kfold": "k-fold",
    "reml": "REML",
    "aic": "AIC",
    "bic": "BIC",
}


def label_of(contestant: Contestant, loss: Any) -> str:
    """Return the name for the table, which says so where leave-one-out is approximate."""
    squared = loss.name == "gaussian"
    if contestant.rule == "loo" and not squared:
        return "Ridge, approx. LOO"
    return "Least squares" if contestant.key == "unpenalised" and squared else contestant.label


def name_of(key: str) -> str:
    """Return what a contestant is called in a sentence."""
    contestant = BY_KEY[key]
    if contestant.kind == "ridge":
        return f"ridge with alpha by {RULE_WORDS[str(contestant.rule)]}"
    return contestant.kind


def whose(key: str) -> str:
    """Return the possessive of what a contestant is called."""
    return "ridge's" if BY_KEY[key].kind == "ridge" else f"{BY_KEY[key].kind}'s"
