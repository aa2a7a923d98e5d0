"""Tables: named, typed columns that are read as Arrow record batches, in the same order on every pass."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from elltwo.data.columns import Kind, example, kind_of, level_text, text_codes
from elltwo.data.remedies import leave_out
from elltwo.data.written import Reading
from elltwo.errors import InputError, did_you_mean, name_some

T = TypeVar("T")

BATCH_ROWS = 65_536
MOST_LEVELS = 5_000
# What pandas calls an index without a name where it is stored as a column.
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


class Table(ABC):
    """A table that can be read again and again.

    Attributes
    ----------
    name : str
        What messages call it: its path, or the kind of object it is.
    schema : pyarrow.Schema
        Column names and types.
    n_rows : int or None
        Number of rows, or None while it is not known without reading them.
    in_memory : bool
        True when another pass costs only memory traffic.
    written : bool
        True when every value is text, of which a number is one reading (CSV).
    readings : mapping of str to Reading
        Text columns that are read as numbers or dates, and how.
    notes : tuple of str
        What was decided about text, for the user.

    Raises
    ------
    InputError
        If two columns have the same name, or the table is known to have no rows.
    """

    written: bool = False
    readings: Mapping[str, Reading] = {}
    notes: tuple[str, ...] = ()

    def __init__(self, name: str, schema: Any, n_rows: int | None, *, in_memory: bool = False) -> None:
        self.name = name
        self.schema = schema
        self.n_rows = n_rows
        self.in_memory = in_memory
        refuse_repeats(name, schema.names)
        if n_rows == 0:
            raise no_rows(name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the table's order."""
        return tuple(self.schema.names)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What each column holds: "number", "boolean", "date", "string" or "other" (nested, binary)."""
        return {field.name: kind_of(field.type) for field in self.schema}

    @property
    def index(self) -> frozenset[str]:
        """Columns that are what pandas calls an index: there, but no features unless they are asked for."""
        stored = json.loads((self.schema.metadata or {}).get(b"pandas", "{}"))
        named = {name for name in stored.get("index_columns", ()) if isinstance(name, str)}
        return frozenset(name for name in self.columns if name in named or _UNNAMED_INDEX.fullmatch(name))

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield pyarrow record batches with these columns, from the first row to the last.

        A batch may be of any length; InputError is raised where the data cannot be read.
        """

    def require(self, names: Iterable[str], role: str) -> None:
        """Raise InputError if a name is not a column; `role` says what it was given as."""
        for name in names:
            if name not in self.kinds:
                raise InputError(
                    f"The {role} '{name}' is not a column of {self.name}."
                    f"{did_you_mean(str(name), self.columns)} "
                    f"Its columns are {name_some(self.columns, most=12)}."
                )

    def as_text(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns as text where they hold numbers or booleans, as in ``"7"``."""
        shown = [name for name in columns if self.kinds[name] in ("number", "boolean")]
        return AsText(self, shown) if shown else self

    def as_written(self) -> Table:
        """Return the table with its values as they are written, where it is a text file; else as it is."""
        return self

    def example(self, column: str) -> Any:
        """Return the column's first value that is not missing, or None."""
        found = (example(batch.column(0)) for batch in self.batches([column]))
        return next((value for value in found if value is not None), None)

    def has_value(self, column: str) -> bool:
        """Return whether a value of the column is there, and is not NaN."""
        for batch in self.batches([column]):
            array = batch.column(0)
            if pa.types.is_floating(array.type):
                array = array.filter(pc.invert(pc.is_nan(array)))
            if array.null_count < len(array):
                return True
        return False

    def levels(self, columns: Sequence[str], most: int = MOST_LEVELS) -> dict[str, dict[str, int]]:
        """Return the different values of some text columns, sorted, with their numbers of rows.

        Raises
        ------
        InputError
            If a column has more than `most` different values.
        """
        counts: dict[str, Counter[str]] = {column: Counter() for column in columns}
        for batch in self.batches(columns) if columns else ():
            for column, count in counts.items():
                codes, names = text_codes(batch.column(column))
                rows = np.bincount(codes[codes >= 0], minlength=len(names)).tolist()
                for name, n in zip(names, rows, strict=True):
                    if n and name is not None:
                        count[name] += n
                if len(count) > most:
                    raise too_many_levels(column)
        return {column: dict(sorted(count.items())) for column, count in counts.items()}


class ArrowTable(Table):
    """An Arrow table in memory."""

    def __init__(self, name: str, table: Any) -> None:
        super().__init__(name, table.schema, table.num_rows, in_memory=True)
        self.table = table

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield views of the table's own memory."""
        return iter(self.table.select(list(columns)).to_batches())


class AsText(Table):
    """A table with some columns of numbers or booleans read as text, as levels are named."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        schema = table.schema
        for name in columns:
            schema = schema.set(schema.get_field_index(name), pa.field(name, pa.string()))
        super().__init__(table.name, schema, table.n_rows, in_memory=table.in_memory)
        self.table = table

    def as_written(self) -> Table:
        """Return the table below, as it is written."""
        return self.table.as_written()

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the table's batches with the types of the schema."""
        changed = [name for name in columns if self.schema.field(name) != self.table.schema.field(name)]
        for batch in self.table.batches(columns):
            arrays = [
                _shown(array) if name in changed else array
                for name, array in zip(columns, batch.columns, strict=True)
            ]
            yield pa.record_batch(arrays, names=list(columns))


def _shown(array: Any) -> Any:
    """Return numbers or booleans as text; NaN is missing."""
    values = array.to_pylist()
    return pa.array(
        [None if value is None or value != value else level_text(value) for value in values], pa.string()
    )


class Parts(Table):
    """Tables of the same columns, one after the other: the files of a glob.

    A column that some part holds as text and another one as numbers or booleans, codes for example, is
    text in all of them. A part in which it is empty has no say.
    """

    def __init__(self, name: str, parts: Sequence[Table]) -> None:
        _refuse_other_columns(parts)
        parts = [part.as_text(_text_elsewhere(part, parts)) for part in parts]
        rows = [part.n_rows for part in parts]
        total = None if None in rows else sum(n for n in rows if n is not None)
        super().__init__(name, _common_schema(parts), total)
        self.parts = parts
        self.written = any(part.written for part in parts)

    def as_text(self, columns: Sequence[str]) -> Table:
        """Return the parts, each with these columns as text."""
        return Parts(self.name, [part.as_text(columns) for part in self.parts])

    def as_written(self) -> Table:
        """Return the parts, each as it is written."""
        return Parts(self.name, [part.as_written() for part in self.parts])

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the batches of the first part, then those of the second, and so on."""
        for part in self.parts:
            yield from part.batches(columns)


def _refuse_other_columns(parts: Sequence[Table]) -> None:
    for part in parts[1:]:
        if apart := set(parts[0].columns).symmetric_difference(part.columns):
            raise InputError(
                f"{part.name} and {parts[0].name} differ in the columns {name_some(sorted(apart))}; "
                "files read together need the same columns. Match fewer files, or combine them with a query."
            )


def _text_elsewhere(part: Table, parts: Sequence[Table]) -> list[str]:
    """Return the columns of a part that are numbers or booleans there, and text in another part."""
    return [
        name
        for name, kind in part.kinds.items()
        if kind in ("number", "boolean")
        and any(other.kinds[name] == "string" and other.example(name) is not None for other in parts)
    ]


def _common_schema(parts: Sequence[Table]) -> Any:
    fields = {field.name: field for field in parts[0].schema}
    for part in parts[1:]:
        for field in part.schema:
            fields[field.name] = _common_field(fields[field.name], field, part.name)
    return pa.schema(list(fields.values()), parts[0].schema.metadata)


def _common_field(first: Any, second: Any, name: str) -> Any:
    kinds = kind_of(first.type), kind_of(second.type)
    if kinds[0] == kinds[1]:
        # An integer column is one in every part.
        return second if pa.types.is_integer(first.type) else first
    if "string" in kinds and "other" not in kinds:
        return second if kinds[0] == "string" else first
    if pa.types.is_null(first.type) or pa.types.is_null(second.type):
        return second if pa.types.is_null(first.type) else first
    raise InputError(
        f"Column '{first.name}' holds {second.type} values in {name} and {first.type} values in the files "
        "before it. Make them the same, or convert them with a query (--sql, sql=)."
    )


def refuse_repeats(name: str, columns: Sequence[str]) -> None:
    """Raise InputError if two columns have the same name."""
    if repeated := [column for column, n in Counter(columns).items() if n > 1]:
        raise InputError(
            f"{sentence(name)} has several columns named {name_some(repeated)}, and a model knows its "
            "columns by name. Rename them so that each name is there once."
        )


def too_many_levels(column: str) -> InputError:
    """Return the error for a text column with too many different values."""
    return InputError(
        f"Column '{column}' has more than {MOST_LEVELS:,} different text values, and each would become a "
        f"feature. If it names rows, leave it out ({leave_out(column)}); otherwise group its values with a "
        "query (--sql, sql=)."
    )


def no_rows(name: str) -> InputError:
    """Return the error for a table without rows."""
    return InputError(f"{sentence(name)} has column names but no rows. Check that the right data were given.")


def sentence(text: str) -> str:
    """Return the text with a capital first letter, to start a sentence with.

    >>> sentence("the query"), sentence("'t.csv'")
    ('The query', "'t.csv'")
    """
    return text[:1].upper() + text[1:]


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, always fetching the next one in a thread while the consumer works.

    >>> list(ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
