"""A table that keeps some columns of the rows just read, for whoever reads the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from elltwo.data.reading import Table
from elltwo.errors import InputError


class Aside(Table):
    """A table from which further columns of the rows that were just read can be taken.

    Parameters
    ----------
    table : Table
    keep : sequence of str
        The further columns.
    written : bool
        Take them as they are written, where the table is a text file.

    Examples
    --------
    >>> from elltwo.data.opening import open_table
    >>> aside = Aside(open_table({"x": [1, 2], "id": [7, 8]}), ["id"])
    >>> _ = next(aside.batches(["x"]))
    >>> aside.take(1).column(0).to_pylist(), aside.take(1).column(0).to_pylist()
    ([7], [8])
    """

    def __init__(self, table: Table, keep: Sequence[str], *, written: bool = False) -> None:
        super().__init__(table.name, table.schema, table.n_rows, in_memory=table.in_memory)
        self._table, self._keep = table, list(keep)
        self._source = table.as_written() if written and keep else table
        self._kept: Any = None

    @property
    def kept_schema(self) -> Any:
        """Names and types of the further columns."""
        return pa.schema([self._source.schema.field(name) for name in self._keep])

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the batches of the table, and set aside what is to be kept of each."""
        if self._source is not self._table:
            yield from self._side_by_side(columns)
            return
        for batch in self._table.batches(list(dict.fromkeys([*columns, *self._keep]))):
            self._kept = batch.select(self._keep)
            yield batch

    def _side_by_side(self, columns: Sequence[str]) -> Iterator[Any]:
        """Read the file twice at a time: once for its values, and once for how they are written."""
        written = self._source.batches(self._keep)
        waiting: Any = next(written, None)
        for batch in self._table.batches(list(columns)):
            parts, needed = [], batch.num_rows
            while needed:
                while waiting is not None and not waiting.num_rows:
                    waiting = next(written, None)
                if waiting is None:
                    raise InputError(f"{self.name} was changed while it was read. Do it again.")
                parts.append(waiting.slice(0, needed))
                waiting = waiting.slice(parts[-1].num_rows)
                needed -= parts[-1].num_rows
            self._kept = pa.Table.from_batches(parts, self.kept_schema)
            yield batch

    def take(self, rows: int) -> Any:
        """Return the kept columns of the next rows of the last batch."""
        taken, self._kept = self._kept.slice(0, rows), self._kept.slice(rows)
        return taken
