"""What a benchmark returns, or raises where this machine lacks what it compares with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A measured ratio and what it has to be: at least (`more`) or at most the bar."""

    ratio: float
    bar: float
    more: bool
    detail: str

    @property
    def met(self) -> bool:
        return self.ratio >= self.bar if self.more else self.ratio <= self.bar


class Unmeasured(Exception):
    """The peer is not installed; the message says which."""
