"""Arrow columns as numbers: which kind a column is of, and its values as a NumPy vector.

Dates become days since 1970-01-01 (a float: six hours are 0.25), booleans 0 and 1, decimals
float64. A missing value (null) becomes NaN.
"""

from __future__ import annotations

import decimal
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elltwo.errors import InputError

Array = npt.NDArray[Any]
Kind = Literal["number", "boolean", "date", "string", "other"]

# What counts as missing in a text file; the same list as elsewhere in the Python world.
MISSING_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>", "#N/A")

_TICKS_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def kind_of(type_: Any) -> Kind:
    """Return what an Arrow type means to a model; a column of nulls alone counts as numbers.

    >>> kind_of(pa.decimal128(10, 2)), kind_of(pa.timestamp("us")), kind_of(pa.list_(pa.int8()))
    ('number', 'date', 'other')
    """
    t = pa.types
    if t.is_integer(type_) or t.is_floating(type_) or t.is_decimal(type_) or t.is_null(type_):
        return "number"
    if t.is_boolean(type_):
        return "boolean"
    if t.is_date(type_) or t.is_timestamp(type_) or t.is_duration(type_):
        return "date"
    if is_text(type_) or t.is_dictionary(type_):
        return "string"
    return "other"


def is_text(type_: Any) -> bool:
    """Return whether the type is one of Arrow's three string types."""
    t = pa.types
    return bool(t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_))


def is_plain(array: Any) -> bool:
    """Return whether the values can be viewed as a NumPy vector without a copy."""
    number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    return bool(number and array.null_count == 0)


def numbers(array: Any, column: str) -> Array:
    """Return a column's values as a vector of numbers, shape (m,), NaN where missing.

    Parameters
    ----------
    array : pyarrow.Array
        Its values.
    column : str
        Its name, for the message.

    Raises
    ------
    InputError
        If the column holds text or something nested.

    Examples
    --------
    >>> import datetime
    >>> numbers(pa.array([datetime.datetime(1970, 1, 2, 6), None]), "sold")
    array([1.25,  nan])
    """
    t = pa.types
    type_ = array.type
    if t.is_boolean(type_):
        array = array.cast(pa.uint8())
    elif t.is_decimal(type_):
        array = array.cast(pa.float64())
    elif t.is_date32(type_):
        array = array.cast(pa.int32())
    elif t.is_date64(type_):
        return _values(array.cast(pa.int64())) / _TICKS_PER_DAY["ms"]
    elif t.is_timestamp(type_) or t.is_duration(type_):
        return _values(array.cast(pa.int64())) / _TICKS_PER_DAY[type_.unit]
    elif array.null_count == len(array):
        return np.full(len(array), np.nan)
    elif kind_of(type_) != "number":
        raise InputError(
            f"Column '{column}' must hold numbers and holds {type_} values, such as {example(array)!r}. "
            "Convert it in the data, or say how with a query (--sql, sql=)."
        )
    return _values(array)


def _values(array: Any) -> Array:
    values: Array = array.to_numpy(zero_copy_only=False)
    return values


def example(array: Any) -> Any:
    """Return the first value that is not missing, or None."""
    present = array.drop_null()
    return present[0].as_py() if len(present) else None


def text_codes(array: Any) -> tuple[Array, list[Any]]:
    """Return each value's position in a list of the different values, and that list.

    A missing value has the position of a None in the list, or −1.

    >>> text_codes(pa.array(["red", None, "blue", "red"]))
    (array([ 0, -1,  1,  0], dtype=int32), ['red', 'blue'])
    """
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    indices = array.indices.cast(pa.int32())
    if indices.null_count:
        indices = indices.fill_null(-1)
    levels = array.dictionary.to_pylist()
    return indices.to_numpy(), [level if level is None else level_text(level) for level in levels]


def level_text(value: Any) -> str:
    """Return a value as the name of a level: whole numbers are named alike, whatever their type.

    >>> level_text(1.0), level_text(0.5), level_text("1.0"), level_text(True)
    ('1', '0.5', '1.0', 'True')
    """
    if isinstance(value, (float, decimal.Decimal)) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def is_number(text: str) -> bool:
    """Return whether a text is written as a number.

    >>> is_number("1e3"), is_number("n.a."), is_number("$1,200")
    (True, False, False)
    """
    try:
        float(text)
    except ValueError:
        return False
    return True
