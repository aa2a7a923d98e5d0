"""How the checks compare, and what they say when something is off."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Relative error that rounding may leave in the small, well-conditioned problems of these checks.
ROUNDING = 1e-9


def require(condition: Any, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def close(what: str, found: Any, want: Any, tolerance: float = ROUNDING) -> None:
    """Require equal shapes, and errors below `tolerance` times the largest wanted value."""
    found, want = np.asarray(found), np.asarray(want)
    require(found.shape == want.shape, f"{what} has shape {found.shape}; it must have {want.shape}.")
    error = np.abs(found - want)
    allowed = tolerance * max(1.0, float(np.abs(want).max(initial=0.0)))
    bad = np.argwhere(~(error <= allowed))
    if len(bad):
        at = tuple(bad[0].tolist())
        where = f" at {list(at)}" if at else ""
        raise AssertionError(
            f"{what}{where} is {found[at]:.9g}; it must be {want[at]:.9g} (error {error[at]:.1e}, "
            f"allowed {allowed:.1e}; {len(bad)} of {want.size} value(s) are off)."
        )


def equal(what: str, found: Any, want: Any) -> None:
    """Require the same shape and the same values, NaN where NaN is wanted."""
    if found is None or want is None:
        require(found is want, f"{what} is {found!r}; it must be {want!r}.")
        return
    found, want = np.asarray(found), np.asarray(want)
    require(found.shape == want.shape, f"{what} has shape {found.shape}; it must have {want.shape}.")
    nan = want.dtype.kind == "f" and found.dtype.kind == "f"
    require(np.array_equal(found, want, equal_nan=nan), f"{what} differs: {found!r} instead of {want!r}.")


def read_only(array: Array) -> Array:
    """Return a copy that cannot be written to."""
    array = np.array(array)
    array.flags.writeable = False
    return array
