"""Numbers that float64 cannot hold: whole numbers beyond 2⁵³, decimals and long doubles of that kind.

Identifiers, nanoseconds since 1970 and the like may differ in digits that float64 has not, so that neighbours
become equal before anything is computed. In a table they are refused, with the remedy; arrays are converted,
and the certificate knows how many digits of their differences that left.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.remedies import column_sql, leave_out, replacing
from elltwo.errors import InputError

Array = npt.NDArray[Any]

#: From here on float64 leaves out whole numbers.
WHOLE = 2**53


def digits_left(columns: Iterable[Array]) -> float:
    """Return how many digits of the differences within a column float64 keeps, at the worst of the columns.

    That is log₁₀ of the column's range over the largest rounding error; infinite without an error.

    >>> ids = np.arange(40) + 2**53 - 40
    >>> digits_left([ids, np.arange(40.0)]), round(digits_left([ids + 1000]), 1)
    (inf, 1.6)
    """
    return min((_digits_left(values) for values in columns), default=np.inf)


def _digits_left(values: Array) -> float:
    if len(values) == 0 or not is_wide(values):
        return np.inf
    if values.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            span, error = np.ptp(values), np.abs(values - values.astype(np.float64)).max()
        return np.inf if not error > 0 else float(np.log10(max(span / error, 1.0)))
    largest = max((abs(value - int(float(value))) for value in _beyond(values)), default=0)
    span = int(values.max()) - int(values.min())
    return float(np.log10(max(span / largest, 1.0))) if largest else np.inf


def is_wide(values: Array) -> bool:
    """Return whether numbers of this type may have more digits than float64."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    return (kind in "iu" and size > 4) or (kind == "f" and size > 8)


def _beyond(values: Array) -> Iterable[Any]:
    """Return the values beyond 2⁵³, as Python's own numbers."""
    if values.dtype.kind == "O":
        return (v for v in values if isinstance(v, (int, Decimal)) and v == v and not -WHOLE <= v <= WHOLE)
    if values.dtype.kind not in "iu":
        return ()
    far: list[Any] = values[(values > WHOLE) | (values < -WHOLE)].tolist()
    return far


def _is_inexact(value: Any) -> bool:
    try:
        return bool(float(value) != value)
    except OverflowError:
        return True


def refuse_inexact(array: Any, name: str) -> None:
    """Raise InputError if a column of a table, an Arrow array, holds a number that float64 cannot hold."""
    import pyarrow as pa

    t = pa.types
    if t.is_int64(array.type) or t.is_uint64(array.type):
        far = _beyond(array.drop_null().to_numpy())
    elif t.is_decimal(array.type):
        large = np.abs(array.cast(pa.float64()).to_numpy(zero_copy_only=False)) > WHOLE
        far = array.filter(pa.array(large)).to_pylist()
    else:
        return
    value = next((v for v in far if _is_inexact(v)), None)
    if value is not None:
        query = replacing(name, f"{column_sql(name)} - {value}")
        raise InputError(
            f"{_told(name, value)} ({leave_out(name)}). Otherwise subtract a constant first, with --sql "
            f"(sql=) {query}."
        )


def refuse_inexact_columns(columns: Iterable[Array], names: Iterable[str]) -> None:
    """Raise InputError if a column, as an array of its own type, holds a number that float64 cannot hold.

    >>> refuse_inexact_columns([np.array([2**60, 2**60 + 1])], ["id"])
    Traceback (most recent call last):
        ...
    elltwo.errors.InputError: Column 'id' holds numbers that float64 cannot hold, such as ...
    """
    for values, name in zip(columns, names, strict=True):
        value = next((v for v in _beyond(values) if _is_inexact(v)), None)
        if value is not None:
            raise InputError(
                f"{_told(name, value)}. Otherwise subtract a constant first, such as {value}, while the "
                "column still holds whole numbers."
            )


def _told(name: str, value: Any) -> str:
    return (
        f"Column '{name}' holds numbers that float64 cannot hold, such as {value}: neighbours would become "
        "equal. Leave it out if it is an identifier"
    )
