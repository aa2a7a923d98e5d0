"""A table that keeps some columns of the rows just read, for whoever reads the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from elltwo.data.reading import Table


class Aside(Table):
    """A table from which further columns of the rows that were just read can be taken.

    >>> from elltwo.data.opening import open_table
    >>> aside = Aside(open_table({"x": [1, 2], "id": [7, 8]}), ["id"])
    >>> _ = next(aside.batches(["x"]))
    >>> aside.take(1).column(0).to_pylist(), aside.take(1).column(0).to_pylist()
    ([7], [8])
    """

    def __init__(self, table: Table, keep: Sequence[str]) -> None:
        super().__init__(table.name, table.schema, table.n_rows, in_memory=table.in_memory)
        self._table, self._keep = table, list(keep)
        self._kept: Any = None

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the batches of the table, and set aside what is to be kept of each."""
        for batch in self._table.batches(list(dict.fromkeys([*columns, *self._keep]))):
            self._kept = batch.select(self._keep)
            yield batch

    def take(self, rows: int) -> Any:
        """Return the kept columns of the next rows of the last batch."""
        taken, self._kept = self._kept.slice(0, rows), self._kept.slice(rows)
        return taken
