"""The recommendation in words, with a paired difference on the same folds behind every claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from elltwo.comparing.contestants import BY_KEY, CONTESTANTS, RULE_WORDS, SPOKESMAN, name_of, whose
from elltwo.comparing.race import Outcome
from elltwo.comparing.results import ERROR_RATE, Claim, Row, mean_se
from elltwo.comparing.text import percent, plus_minus

#: Two models are called equally good where even the far limit of their difference is below this share.
NEGLIGIBLE = 0.02
#: Two errors are the same to a reader where even that limit is below this share.
SAME = 0.001
#: A list of features is short if it leaves out at least this share of them.
SHORTER = 0.25


@dataclass
class Judge:
    """Makes the recommendation out of paired differences, and keeps these.

    The limits are those of one difference. With nothing to find (60 rows of noise, 6 features), they let some
    model look clearly better than the mean in 6 % of data sets on 5 folds and in 1 % on 10.
    """

    rows: dict[str, Row]
    outcome: Outcome
    how: str
    loss: str
    p: int
    claims: list[Claim] = dataclasses.field(default_factory=list)

    def verdict(self) -> tuple[str, str]:
        """Return the key of the preferred contestant, and the recommendation."""
        ridge = self._ridge()
        kinds = [key for key in ("unpenalised", ridge, "elasticnet", "lasso") if key in self.rows]
        against_mean = {key: self._claim(key, "mean") for key in self.rows if key != "mean"}
        good = [key for key, claim in against_mean.items() if claim.better]
        if not good:
            return "mean", self._nothing(against_mean)
        # A rule of ridge that is clearly better where its spokesman is not may be lucky: it is not preferred.
        steady = [key for key in good if key in kinds]
        prefer = ridge if ridge in good or not steady else self._least(steady)
        others = [key for key in kinds if key != prefer]
        versus = {key: self._claim(key, prefer) for key in others}
        if ahead := [key for key in others if versus[key].better and key in good]:
            prefer = self._least(ahead)
        rules = self._rules(ridge)
        if prefer == ridge and (ahead := [key for key, claim in rules.items() if claim.better]):
            prefer = self._least(ahead)
        tied = not any(claim.better or claim.worse for claim in (*versus.values(), *rules.values()))
        sentences = [
            self._first(prefer, good, against_mean, tied=tied),
            self._penalty(ridge if prefer in ("unpenalised", ridge) else prefer),
            self._short_list(ridge),
            self._net(prefer, ridge),
            self._choice(ridge, rules),
        ]
        return prefer, " ".join(sentence for sentence in sentences if sentence)

    def _least(self, keys: Sequence[str]) -> str:
        return min(keys, key=lambda key: self.rows[key].error)

    def _ridge(self) -> str:
        """Return the contestant that speaks for ridge: a fixed one, not the luckiest."""
        keys = [SPOKESMAN[self.how], *(c.key for c in CONTESTANTS if c.kind == "ridge")]
        return next((key for key in keys if key in self.rows), "")

    def _claim(self, model: str, versus: str) -> Claim:
        """Return the paired difference with its limit, and remember it."""
        for claim in self.claims:
            if (claim.model, claim.versus) == (model, versus):
                return claim
        one, other = self.rows[model], self.rows[versus]
        difference, se = mean_se(np.subtract(one.fold_errors, other.fold_errors), self.outcome.weights)
        freedom = len(self.outcome.weights) - 1
        limit = se * float(stdtrit(freedom, 1 - ERROR_RATE / 2))
        claim = Claim(
            model, versus, difference, se, limit, abs(difference) + limit < NEGLIGIBLE * other.error
        )
        self.claims.append(claim)
        return claim

    def _size(self, claim: Claim, whose: str = "") -> str:
        """Say how much higher or lower an error is: "lower than ridge's by 12 ± 4 (0.4 %)"."""
        base = self.rows[claim.versus].error
        if abs(claim.difference) + claim.limit <= SAME * base:
            return f"within {100 * SAME:g} % of {whose or 'it'}"
        way = "higher" if claim.difference > 0 else "lower"
        size, se = plus_minus(abs(claim.difference), claim.se, coarsest=self.rows[claim.versus].se / 20)
        if not size.strip("0."):
            return f"no different{f' from {whose}' if whose else ''} ({size} ± {se})"
        than = f" than {whose}" if whose else ""
        share = f" ({percent(abs(claim.difference) / base)})" if base > 0 else ""
        return f"{way}{than} by {size} ± {se}{share}"

    def _nothing(self, against: dict[str, Claim]) -> str:
        if not against:
            return "Only the mean could be used: every model was left out, for the reasons below."
        nearest = self._least(list(against))
        claim, folds = against[nearest], len(self.outcome.weights)
        size = self._size(claim, whose("mean"))
        if claim.difference < -2 * claim.se:
            return (
                "No model predicts clearly better than the mean on these folds, so prefer the mean until "
                f"that is settled. {_sentence(name_of(nearest))} looks better (its error is {size}), but "
                f"{folds} folds do not make it clear. More folds, more rows or other features may."
            )
        text = (
            "No model predicts clearly better than the mean, so prefer the mean. The nearest is "
            f"{name_of(nearest)}: its error is {size}."
        )
        if worse := [key for key, claim in against.items() if claim.worse and key != nearest]:
            worst = max(worse, key=lambda key: self.rows[key].error)
            text += (
                f" {_sentence(name_of(worst))} is clearly worse than the mean: its error is "
                f"{self._size(against[worst], whose('mean'))}."
            )
        return text + " Other features or more rows may say more."

    def _first(self, prefer: str, good: list[str], against: dict[str, Claim], *, tied: bool) -> str:
        """Say what to prefer, what it achieves, and whether that is a clear choice."""
        row, claim = self.rows[prefer], self._claim(prefer, "mean")
        what = {"gaussian": "squared error", "huber": "loss"}.get(self.loss, "deviance")
        size, se = plus_minus(-claim.difference, claim.se)
        achieves = f"its error is lower than the mean's by {size} ± {se}"
        if row.explained is not None:
            achieves += f", so it explains {percent(row.explained)} of the {what} of held-out rows"
        if prefer not in good:
            lucky = "; ".join(
                f"{RULE_WORDS[str(BY_KEY[key].rule)]}, its error {self._size(against[key], whose('mean'))}"
                for key in good
            )
            return f"Prefer {name_of(prefer)}: {achieves}. That is clear only with alpha by {lucky}."
        if len({BY_KEY[key].kind for key in good}) == 1 < len({row.kind for row in self.rows.values()}) - 1:
            alone = "the only kind of model that predicts clearly better than the mean"
            return f"Prefer {name_of(prefer)}, {alone}: {achieves}."
        if tied:
            return (
                f"Among the models with features these folds show no clear difference, so {name_of(prefer)}, "
                f"which is the default, is as good a choice as any: {achieves}."
                if prefer == self._ridge()
                else f"Prefer {name_of(prefer)}, though these folds show no clear difference to the other "
                f"models: {achieves}."
            )
        unbeaten = ", the default, which no other model clearly beats" if prefer == self._ridge() else ""
        return f"Prefer {name_of(prefer)}{unbeaten}: {achieves}."

    def _penalty(self, reference: str) -> str:
        """Say whether the penalty pays."""
        if not reference:
            return ""
        if "unpenalised" not in self.rows:
            return "Without a penalty the fit is not determined (see below), so some penalty is needed."
        claim = self._claim("unpenalised", reference)
        size = self._size(claim, whose(reference))
        if claim.worse:
            return f"The penalty pays: without it the error is {size}."
        if claim.better:
            return f"The penalty does not pay here: without it the error is {size}."
        if claim.negligible:
            return f"The unpenalised fit is as good here: its error is {size}."
        return f"Whether the penalty pays is not clear from these folds: without it the error is {size}."

    def _short_list(self, ridge: str) -> str:
        """Say what the lasso's list of features costs."""
        key = "lasso" if "lasso" in self.rows else "elasticnet"
        if key not in self.rows or not ridge:
            return ""
        row, claim = self.rows[key], self._claim(key, ridge)
        size, name, kept = self._size(claim, whose(ridge)), _sentence(BY_KEY[key].kind), self._kept(key)
        if claim.better:
            return f"{name} predicts clearly better than ridge, from {kept}: its error is {size}."
        if claim.worse:
            return f"{name} keeps {kept} at a price: its error is {size}."
        if row.nonzero > (1 - SHORTER) * self.p:
            return f"{name} keeps {kept}, so it makes no short list; its error is {size}."
        if claim.negligible:
            return f"{name} keeps {kept} at no loss (its error is {size}): prefer it if a short list matters."
        return (
            f"{name} keeps {kept} at no clear loss (its error is {size}): prefer it if a short list matters."
        )

    def _net(self, prefer: str, ridge: str) -> str:
        """Say what the elastic net does, where it is preferred."""
        if prefer != "elasticnet" or not ridge or "lasso" not in self.rows:
            return ""
        size = self._size(self._claim(prefer, ridge), whose(ridge))
        return f"The elastic net keeps {self._kept(prefer)}, and its error is {size}."

    def _kept(self, key: str) -> str:
        return f"{round(self.rows[key].nonzero):,} of {self.p:,} features"

    def _rules(self, ridge: str) -> dict[str, Claim]:
        """Return the claims of the other ways of choosing alpha against ridge's spokesman."""
        keys = [key for key, row in self.rows.items() if row.kind == "ridge" and key != ridge]
        return {key: self._claim(key, ridge) for key in keys}

    def _choice(self, ridge: str, rules: dict[str, Claim]) -> str:
        """Say whether it matters how alpha is chosen."""
        if not rules:
            return ""
        ours = RULE_WORDS[str(BY_KEY[ridge].rule)]
        base = self.rows[ridge].error
        if all(abs(claim.difference) + claim.limit <= SAME * base for claim in rules.values()):
            return f"How ridge's alpha is chosen makes no difference: all errors are within {100 * SAME:g} %."
        clear = [key for key, claim in rules.items() if claim.better or claim.worse]
        if not clear:
            far = max(rules, key=lambda key: abs(rules[key].difference))
            words = RULE_WORDS[str(BY_KEY[far].rule)]
            if abs(rules[far].difference) > 2 * rules[far].se:
                looks = "worse" if rules[far].difference > 0 else "better"
                return (
                    f"How ridge's alpha is chosen makes no clear difference, though {words} "
                    f"looks {looks} than {ours}: its error is {self._size(rules[far])}."
                )
            return (
                f"How ridge's alpha is chosen makes no clear difference; farthest from {ours} is "
                f"{words}, whose error is {self._size(rules[far])}."
            )
        parts = [
            f"{RULE_WORDS[str(BY_KEY[key].rule)]} makes ridge's error {self._size(rules[key])}"
            for key in sorted(clear, key=lambda key: rules[key].difference)
        ]
        return f"Compared with {ours}, choosing alpha by {'; by '.join(parts)}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
