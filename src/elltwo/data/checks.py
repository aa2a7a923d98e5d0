"""Values that are refused: found block by block, then counted over the whole table for the message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.columns import kind_of, numbers, text_codes
from elltwo.data.reading import Table
from elltwo.data.weights import all_whole
from elltwo.errors import InputError

Array = npt.NDArray[Any]


_PREDICTING = (
    "Fill them, or fit the model again such that it puts in the mean of the feature (--missing mean, "
    "missing='mean')."
)

#: What is wrong with a weight of 1.5 that is said to be a frequency.
NOT_WHOLE = "not whole"


def all_finite(values: Array) -> bool:
    """Return False where values of shape (q, m) may hold a NaN or an infinity; an overflow counts too.

    >>> all_finite(np.ones((2, 3))), all_finite(np.array([[1.0, np.nan]]))
    (True, False)
    """
    # A sum, not a BLAS product: threads of BLAS would wait for the cores that decode the next rows.
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.isfinite(values.sum()))


def refused(
    table: Table,
    columns: Sequence[str],
    missing: str,
    targets: Sequence[str] = (),
    *,
    predicting: bool = False,
) -> InputError:
    """Return the error that counts what the policy refuses in these columns, over the whole table."""
    absent, infinite = census(table, [*targets, *columns])
    parts = []
    if infinite:
        parts.append(
            f"There are infinite values in {_counted(infinite)}. Correct them, or turn them into missing "
            "values with a query (--sql, sql=)."
        )
    if absent and missing == "error":
        remedy = _PREDICTING if predicting else _remedy(set(absent) - {*targets})
        parts.append(f"There are missing values in {_counted(absent)}. {remedy}")
    return InputError(" ".join(parts))


def _remedy(features: set[str]) -> str:
    if not features:
        return "Leave out the rows without a target (--missing drop, missing='drop')."
    return (
        "Put in the mean of the feature (--missing mean, missing='mean'), leave out the rows "
        "(--missing drop, missing='drop'), or leave out the columns (--drop, drop=)."
    )


def _counted(counts: Mapping[str, int], most: int = 8) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    told = ", ".join(f"'{name}' ({n:,} row{'s' if n > 1 else ''})" for name, n in ordered[:most])
    return told if len(ordered) <= most else f"{told} and {len(ordered) - most} more columns"


def census(table: Table, columns: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Count the missing and the infinite values of the columns that have any."""
    absent: Counter[str] = Counter()
    infinite: Counter[str] = Counter()
    for batch in table.batches(columns):
        for name in columns:
            array = batch.column(name)
            if kind_of(array.type) == "string":
                absent[name] += _missing_text(array)
            else:
                values = numbers(array, name)
                absent[name] += int(np.isnan(values).sum())
                infinite[name] += int(np.isinf(values).sum())
    return +absent, +infinite


def _missing_text(array: Any) -> int:
    codes, names = text_codes(array)
    none = [j for j, name in enumerate(names) if name is None]
    return int(np.isin(codes, [-1, *none]).sum())


def good_weights(weights: Array, counts: bool) -> bool:
    """Return whether all weights are finite, not negative and, if they are frequencies, whole."""
    with np.errstate(invalid="ignore"):
        good = bool(np.isfinite(weights.sum()) and weights.min(initial=0.0) >= 0)
    return good and not (counts and not all_whole(weights))


def refused_weights(table: Table, column: str, counts: bool) -> InputError:
    """Return the error that says what is wrong with the weights, how often, and where first."""
    found: Counter[str] = Counter()
    first: dict[str, int] = {}
    done = 0
    for batch in table.batches([column]):
        values = numbers(batch.column(0), column).astype(np.float64)
        faults = {
            "negative": values < 0,
            "missing (or NaN)": np.isnan(values),
            "infinite": np.isinf(values),
            NOT_WHOLE: counts & np.isfinite(values) & (values != np.floor(values)),
        }
        for fault, rows in faults.items():
            if rows.any():
                first.setdefault(fault, done + int(rows.argmax()) + 1)
                found[fault] += int(rows.sum())
        done += batch.num_rows
    told = "; ".join(f"{n:,} {fault}, first in row {first[fault]:,}" for fault, n in found.items())
    needed = "finite, not negative and, as frequencies, whole" if counts else "finite and not negative"
    other = (
        " If they are precisions, use weights_are='analytic' (--weights-are analytic)."
        if NOT_WHOLE in found
        else ""
    )
    return InputError(
        f"The weights in column '{column}' must be {needed}: {told}. Correct them, or leave out those rows "
        f"with a query (--sql, sql=).{other}"
    )
