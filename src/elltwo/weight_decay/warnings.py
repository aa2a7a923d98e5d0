"""What is wrong with a run's weight decay, one sentence each and once, judged from its record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elltwo.errors import name_some
from elltwo.weight_decay.records import DecayRecord, Layer

#: The roles that decay is not for, as a sentence calls them.
PLURALS = {"bias": "biases", "norm": "normalisations", "exempt": "parameters that the model itself exempts"}
#: A total decay below this leaves more than 99.9 % of every weight, so it changes nothing.
NO_EFFECT = 1e-3
#: A layer has collapsed once its total decay is above this …
MUCH = 3.0
#: … and its norm below this share of the first.
LITTLE = 0.01
#: Decay must be zero in this many sampled steps before it counts as ignored.
SURE = 3
#: The share of the planned steps after which their total decay is judged.
EARLY = 0.1


class WeightDecayWarning(UserWarning):
    """Weight decay that does not do what its setting says, or that does harm."""


@dataclass
class Watch:
    """Reads the rows of a record as they come, and says once what is wrong with them.

    Parameters
    ----------
    record : DecayRecord
        The rows so far.
    steps : int or None
        The number of optimiser steps that are planned, if known.

    Attributes
    ----------
    messages : list of str
        Every sentence given, in order; each was also given as a `WeightDecayWarning`.
    """

    record: DecayRecord
    steps: int | None = None
    messages: list[str] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)
    _zeros: dict[str, int] = field(default_factory=dict)
    _decayed: set[str] = field(default_factory=set)
    _first: dict[str, float] = field(default_factory=dict)

    def say(self, subject: str, sentence: str) -> None:
        """Give a sentence, unless one on this subject was given before."""
        if subject in self._said:
            return
        self._said.add(subject)
        self.messages.append(sentence)
        warnings.warn(sentence, WeightDecayWarning, stacklevel=3)

    def roles(self, decayed: Mapping[str, str], remedy: str) -> None:
        """Say that parameters are decayed which should not be; `decayed` maps their names to their roles.

        Those that were named before are left out.
        """
        new = {name: role for name, role in decayed.items() if f"role of {name}" not in self._said}
        self._said.update(f"role of {name}" for name in new)
        if new:
            roles = " and ".join(sorted({PLURALS[role] for role in new.values()}))
            self.say(
                f"roles of {sorted(new)}",
                f"Weight decay is on for {roles} ({name_some(new, most=3)}), which it pulls towards 0 "
                f"without making the model simpler: {remedy}",
            )

    def see(self, step: int, rows: list[Layer], optimizer: str, reason: str = "") -> None:
        """Judge the rows of one sampled step of one optimiser.

        Parameters
        ----------
        step : int
            Its number; the rows are in the record already.
        rows : list of Layer
            One for each layer.
        optimizer : str
            The name of its class.
        reason : str
            Why the step was not made again; empty if it was.
        """
        zero, totals = [], self.record.totals()
        for row in rows:
            self._count(row)
            if self._zeros[row.layer] >= SURE and row.layer not in self._decayed:
                zero.append(row)
            if row.decay >= 1 or self._gone(row, totals[row.layer]):
                self.say("collapse", _collapse(row, totals[row.layer]))
        if zero:
            self.say(f"ignored by {optimizer}", _ignored(zero, optimizer))
        if reason:
            self.say(
                f"not replayed by {optimizer}",
                f"The step of {optimizer} is not made again, so its decay is not measured (nan in the "
                f"record): {reason}.",
            )
        elif any(row.weight_decay and row.weight_norm and math.isnan(row.decay) for row in rows):
            self.say(
                f"not replayed by {optimizer}",
                f"The step of {optimizer} came out differently when it was made again from the same state, "
                "so its decay is not measured (nan in the record): it depends on more than its settings and "
                "state.",
            )
        done = step + 1
        if self.steps and done >= EARLY * self.steps:
            self._judge_total(self.steps / done)

    def finish(self) -> None:
        """Judge the run as a whole, at its end."""
        self._judge_total(1.0)

    def state_dict(self) -> dict[str, Any]:
        """Return what was said, as plain values for a checkpoint."""
        return {"messages": list(self.messages), "said": sorted(self._said)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was said, and the sums over the rows that the record has now."""
        self.messages[:] = state["messages"]
        self._said = set(state["said"])
        for kept in (self._zeros, self._first, self._decayed):
            kept.clear()
        for row in self.record.rows():
            self._count(row)

    def _count(self, row: Layer) -> None:
        """Take a row into the sums, without judging it."""
        self._first.setdefault(row.layer, row.weight_norm)
        idle = bool(row.weight_decay and row.lr and row.weight_norm) and row.decay == 0
        self._zeros[row.layer] = self._zeros.get(row.layer, 0) + idle
        if row.decay:
            self._decayed.add(row.layer)

    def _gone(self, row: Layer, total: float) -> bool:
        return total > MUCH and row.weight_norm < LITTLE * self._first[row.layer]

    def _judge_total(self, factor: float) -> None:
        """Say that decay adds up to nothing, where `factor` leads from the sum so far to that of the run."""
        totals = [total * factor for total in self.record.totals().values() if total > 0]
        if totals and max(totals) < NO_EFFECT:
            self.say(
                "no effect",
                f"Weight decay adds up to {max(totals):.1g} over this run, so it leaves at least "
                f"{1 - max(totals):.2%} of every weight and changes next to nothing: raise weight_decay "
                "(or the learning rate, or the number of steps) until the sum of lr·weight_decay is about 1.",
            )


def _collapse(row: Layer, total: float) -> str:
    if row.decay >= 1:
        return (
            f"Weight decay takes away {row.decay:.3g} times the weight of '{row.layer}' in a single step "
            f"(lr {row.lr:g}, weight_decay {row.weight_decay:g}), where 1 sets it to 0 and more turns its "
            "sign: lower one of the two."
        )
    return (
        f"Weight decay adds up to {total:.3g} and the norm of '{row.layer}' has fallen below "
        f"{LITTLE:.0%} of its first value: lower weight_decay (or the learning rate), or take the layer out "
        "of it."
    )


def _ignored(rows: list[Layer], optimizer: str) -> str:
    names = name_some([row.layer for row in rows], most=3)
    return (
        f"{optimizer} subtracts nothing for decay from {names}, although weight_decay is "
        f"{rows[0].weight_decay:g}: it does not read that setting, or lr·weight_decay is lost to rounding in "
        "the precision of these weights."
    )
