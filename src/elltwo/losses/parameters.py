"""The parameters of losses."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from elltwo.errors import InputError


def number(name: str, value: Any, what: str, fits: Callable[[float], bool]) -> float:
    """Return the value as a float, or raise InputError saying what the parameter must be."""
    if isinstance(value, bool) or not isinstance(value, Real) or not fits(float(value)):
        raise InputError(f"{name}={value!r} must be {what}.")
    return float(value)
