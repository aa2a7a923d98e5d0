"""Columns that look like the number or the key of a row rather than a feature."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elltwo.data.reading import Table
from elltwo.data.remedies import leave_out

#: Fewer rows say little: in them the values of many columns differ.
FEW_ROWS = 20
_KEY = re.compile(r"(^|[_\W])(id|key|idx|index|row|rownum|no|nr|uuid|guid)$|Id$|ID$|^Unnamed: \d+$", re.I)


@dataclass
class _Whole:
    """What was seen of a column of whole numbers, as long as it may be a row number or a key."""

    named: bool
    rows: int = 0
    low: int = 0
    high: int = 0
    total: int = 0
    squares: int = 0
    parts: list[npt.NDArray[Any]] = field(default_factory=list)

    def add(self, values: npt.NDArray[Any]) -> bool:
        """Take note of the values of a batch; return False once the column is neither."""
        if len(np.unique(values)) < len(values):
            return False
        low, high = int(values.min()), int(values.max())
        self.low, self.high = (min(self.low, low), max(self.high, high)) if self.rows else (low, high)
        self.rows += len(values)
        self.total += int(values.sum(dtype=object))
        self.squares += int((values.astype(object) ** 2).sum())
        if self.named:
            self.parts.append(values)
        return self.named or self.low in (0, 1)

    @property
    def counts(self) -> bool:
        """Whether the values are 0, 1, 2, … or 1, 2, 3, …, in any order."""
        n, first = self.rows, self.low
        last = first + n - 1
        if first not in (0, 1) or self.high != last:
            return False
        return (
            self.total == n * (first + last) // 2 and self.squares == last * (last + 1) * (2 * last + 1) // 6
        )

    @property
    def unique(self) -> bool:
        """Whether every row has another value."""
        return bool(self.parts) and len(np.unique(np.concatenate(self.parts))) == self.rows


def notes(table: Table, features: Sequence[str], levels: Mapping[str, dict[str, int]]) -> Iterator[str]:
    """Yield a note for every feature that is likely to number or to name the rows.

    Whole numbers that count the rows; text that differs in every row; and whole numbers that do, in a column
    with the name of a key. A column is read as long as it may be one: mostly one batch.

    Parameters
    ----------
    table : Table
        The training data.
    features : sequence of str
        Columns to look at.
    levels : mapping
        The levels of the text columns, with their numbers of rows.

    Examples
    --------
    >>> from elltwo.data.opening import open_table
    >>> next(notes(open_table({"x": list(range(1, 31))}), ["x"], {})).partition(". ")[0]
    "Column 'x' counts the rows from 1, so it is likely a row number"
    """
    found = {
        name: _Whole(bool(_KEY.search(name)))
        for name in features
        if pa.types.is_integer(table.schema.field(name).type)
    }
    for batch in table.batches(list(found)) if found else ():
        for name in list(found):
            array = batch.column(batch.schema.get_field_index(name))
            if array.null_count or not found[name].add(array.to_numpy()):
                del found[name]
        if not found:
            break
    for name in features:
        if name in found and found[name].rows >= FEW_ROWS and found[name].counts:
            what = f"counts the rows from {found[name].low}, so it is likely a row number"
        elif name in found and found[name].rows >= FEW_ROWS and found[name].unique:
            what = "has another whole number in every row, so it is likely a key"
        elif len(levels.get(name, ())) >= FEW_ROWS and max(levels[name].values()) == 1:
            what = "has another text in every row, so it is likely a key"
        else:
            continue
        yield f"Column '{name}' {what}. It is used; {leave_out(name)} leaves it out."
