"""Targets that are classes: their labels, found in one pass over the column, and their codes as numbers."""

from __future__ import annotations

import datetime
import decimal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.columns import text_codes
from elltwo.data.encode import Writer
from elltwo.data.reading import Table
from elltwo.errors import InputError, did_you_mean

Array = npt.NDArray[Any]
Label = str | int | float | bool

#: A column with more different values than this does not hold classes.
MOST_LABELS = 1000
# How booleans are written; a CSV column of yes and no, or t and f, is read as booleans.
_TRUTH = {False: ("false", "f", "no", "n", "0"), True: ("true", "t", "yes", "y", "1")}


@dataclass(frozen=True)
class Labels:
    """The different values of a column, sorted, with their numbers of rows.

    Attributes
    ----------
    column : str
    kind : str
        "string", "boolean", "number" or "date".
    counts : dict of label to int
        Text, booleans and whole numbers are their own labels; a date or time is its ISO text.
    complete : bool
        False if the pass ended early, because there are more than `MOST_LABELS` of them.
    """

    column: str
    kind: str
    counts: dict[Any, int]
    complete: bool

    @property
    def values(self) -> tuple[Any, ...]:
        """The labels, sorted."""
        return tuple(self.counts)

    @property
    def fractions(self) -> bool:
        """Whether some values are numbers that are not whole."""
        return any(isinstance(value, float) for value in self.counts)

    def listed(self, most: int = 6) -> str:
        """Return the labels with their numbers of rows, for a message."""
        items = list(self.counts.items())
        told = ", ".join(f"{value!r} ({n:,} row{'s' * (n != 1)})" for value, n in items[:most])
        return told if len(items) <= most else f"{told} and {len(items) - most:,} more"


def find_labels(table: Table, column: str) -> Labels:
    """Return the labels of a column; one pass over this column alone.

    Missing values are no label. The pass ends as soon as there are more than `MOST_LABELS` labels.

    Raises
    ------
    InputError
        If the column is nested or binary.

    Examples
    --------
    >>> from elltwo.data.opening import open_table
    >>> find_labels(open_table({"paid": ["yes", None, "no", "yes"]}), "paid").counts
    {'no': 1, 'yes': 2}
    """
    if table.kinds[column] == "other":
        raise InputError(
            f"The target '{column}' holds {table.schema.field(column).type} values, which cannot name "
            "classes. Name another column, or convert it with a query (--sql, sql=)."
        )
    counts: Counter[Any] = Counter()
    for batch in table.batches([column]):
        codes, labels = label_codes(batch.column(0))
        rows = np.bincount(codes[codes >= 0], minlength=len(labels)).tolist()
        for label, n in zip(labels, rows, strict=True):
            if n and label is not None:
                counts[label] += n
        if len(counts) > MOST_LABELS:
            break
    kind = table.kinds[column]
    ordered = dict(sorted(counts.items(), key=lambda item: item[0]))
    return Labels(column, kind, ordered, len(counts) <= MOST_LABELS)


def label_codes(array: Any) -> tuple[Array, list[Any]]:
    """Return each value's position in a list of the different labels, and that list; missing: −1 or None.

    >>> import pyarrow as pa
    >>> label_codes(pa.array([2.0, None, 1.5, 2.0]))
    (array([ 0, -1,  1,  0], dtype=int32), [2, 1.5])
    """
    import pyarrow as pa

    t = pa.types
    if t.is_null(array.type):
        return np.full(len(array), -1, dtype=np.int32), []
    if t.is_string_view(array.type) or t.is_string(array.type) or t.is_large_string(array.type):
        return text_codes(array)
    if not t.is_dictionary(array.type):
        array = array.dictionary_encode()
    indices = array.indices.cast(pa.int32())
    if indices.null_count:
        indices = indices.fill_null(-1)
    return indices.to_numpy(), [_label(value) for value in array.dictionary.to_pylist()]


def _label(value: Any) -> Any:
    """Return a value as a label: a whole number as an int, a date as ISO text, NaN as None."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, decimal.Decimal)):
        if value != value:
            return None
        return int(value) if abs(value) != np.inf and value == int(value) else float(value)
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else str(value)


def find_class(value: Any, classes: Sequence[Any], what: str) -> int:
    """Return the position of the class that a user means; text such as "1" also means the label 1.

    Raises
    ------
    InputError
        If there is no such label; the nearest one is suggested.

    Examples
    --------
    >>> find_class("yes", ["no", "yes"], "positive"), find_class("1", [0, 1], "positive")
    (1, 1)
    """
    value = value.item() if isinstance(value, np.generic) else value
    for j, label in enumerate(classes):
        if type(label) is type(value) and label == value:
            return j
    alike = [j for j, label in enumerate(classes) if _means(value, label)]
    if len(alike) == 1:
        return alike[0]
    known = ", ".join(repr(label) for label in classes[:8]) + (", …" if len(classes) > 8 else "")
    raise InputError(
        f"{what}: {value!r} is not a label of the target.{did_you_mean(str(value), map(str, classes))} "
        f"Its labels are {known}."
    )


def _means(value: Any, label: Any) -> bool:
    if isinstance(label, str):
        return str(value) == label
    if isinstance(label, bool):
        return str(value).strip().casefold() in _TRUTH[label]
    if str(value).strip().casefold() == str(label).casefold():
        return True
    try:
        return float(value) == float(label)
    except (TypeError, ValueError):
        return False


@dataclass(frozen=True)
class ClassTarget:
    """How a column of labels becomes the numbers that a loss needs.

    Attributes
    ----------
    column : str
    classes : tuple
        The labels; of two, the second is the event.
    low : float
        What stands for "is not this class": 0, or −1 for a margin. "Is" is 1.
    each : bool
        True: one row of numbers per class, shape (K, m). False: one in all, for the second of two classes.
    weights : tuple of float, or None
        What the weight of a row of each class is multiplied by.
    """

    column: str
    classes: tuple[Any, ...]
    low: float = 0.0
    each: bool = False
    weights: tuple[float, ...] | None = None

    @property
    def target_names(self) -> tuple[str, ...]:
        """One name per row of numbers: ``species=setosa``, or the column's name."""
        if not self.each:
            return (self.column,)
        return tuple(f"{self.column}={label}" for label in self.classes)

    def writer(self, array: Any) -> Writer:
        """Return what writes rows of an Arrow array as numbers, shape (1 or K, m), NaN where missing."""
        at, labels = label_codes(array)
        position: dict[Any, float] = {label: float(j) for j, label in enumerate(self.classes)} | {
            None: np.nan
        }
        found = set(np.unique(at[at >= 0]).tolist())
        if unknown := [label for j, label in enumerate(labels) if j in found and label not in position]:
            raise InputError(
                f"The target '{self.column}' held {unknown[0]!r} on a later reading, and did not on the "
                "first: the data changed meanwhile. Fit again when they are complete."
            )
        # The last entry is what −1 (missing) points at.
        code = np.array([*(position.get(label, np.nan) for label in labels), np.nan])[at]

        def write(start: int, stop: int, out: Array) -> None:
            part = code[start:stop]
            if self.each:
                out[:] = self.low
                known = np.flatnonzero(~np.isnan(part))
                out[part[known].astype(np.intp), known] = 1.0
                out[:, np.isnan(part)] = np.nan
            else:
                out[0] = self.low + (1.0 - self.low) * part

        return write

    def codes(self, y: Array) -> Array:
        """Return the position of the class of each row of numbers y, shape (m, 1 or K)."""
        return np.asarray(y.argmax(axis=1) if self.each else (y[:, 0] > 0).astype(np.intp))

    def weigh(self, y: Array, weights: Array) -> None:
        """Multiply row weights (m,) by those of the classes, in place; y has shape (1 or K, m)."""
        if self.weights is None:
            return
        by_class = np.array(self.weights)
        missing = np.isnan(y[0])
        at = y.argmax(axis=0) if self.each else (y[0] > 0).astype(np.intp)
        weights *= np.where(missing, 1.0, by_class[at])


def balanced(rows: Array) -> tuple[float, ...]:
    """Return the class weights Σ/(K·Σₖ) that give every class the same weight in all, as scikit-learn's.

    >>> balanced(np.array([30.0, 10.0]))
    (0.6666666666666666, 2.0)
    """
    return tuple((rows.sum() / (len(rows) * rows)).tolist())


def given_weights(given: Mapping[Any, Any], classes: Sequence[Any]) -> tuple[float, ...]:
    """Return the class weights that a user gave by label; classes that are not named have weight 1.

    Raises
    ------
    InputError
        If a label does not exist, or a weight is not a positive number.
    """
    weights = [1.0] * len(classes)
    for label, weight in given.items():
        j = find_class(label, classes, "class_weight (--class-weight)")
        number = isinstance(weight, (int, float, np.number)) and not isinstance(weight, bool)
        if not (number and 0 < weight < np.inf):
            raise InputError(f"class_weight of {label!r} must be a positive number; got {weight!r}.")
        weights[j] = float(weight)
    return tuple(weights)
