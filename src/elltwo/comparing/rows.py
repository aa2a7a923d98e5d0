"""The rows that take part, held in memory as a table, and encoded anew for every training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elltwo.data.checks import all_finite
from elltwo.data.classes import ClassTarget
from elltwo.data.encode import Encoder
from elltwo.data.memory import MemorySource
from elltwo.data.offsets import Offsets
from elltwo.data.reading import ArrowTable, Table
from elltwo.data.table import TableSource
from elltwo.data.weights import meaning, weight_notes
from elltwo.errors import InputError, Status
from elltwo.models import refuse_empty

Array = npt.NDArray[Any]

#: Largest table, in encoded rows × features, that is held in memory.
MOST_ELEMENTS = 200_000_000


@dataclass(frozen=True)
class Roles:
    """Which column is what."""

    target: str
    features: tuple[str, ...]
    weights: str | None
    weights_are: str
    key: str | None
    classes: ClassTarget | None
    offsets: Offsets
    missing: str

    def source(
        self, table: Table, encoder: Encoder, *, key: str | None = None, check: Any = None
    ) -> TableSource:
        """Return the rows of a table, encoded."""
        return TableSource(
            table,
            encoder,
            self.target,
            weights=self.weights,
            weights_are=self.weights_are,
            key=key,
            classes=self.classes,
            offsets=self.offsets,
            check=check,
        )


def hold(table: Table, columns: Sequence[str], width: int) -> ArrowTable:
    """Return the columns of a table in memory; refuse one that is too large."""
    columns = list(dict.fromkeys(columns))
    schema = pa.schema([table.schema.field(name) for name in columns])
    batches, rows = [], 0
    for batch in table.batches(columns):
        rows += batch.num_rows
        if rows * width > MOST_ELEMENTS:
            total = f"{table.n_rows:,}" if table.n_rows is not None else f"more than {rows - 1:,}"
            raise InputError(
                f"{table.name} has {total} rows and {width:,} encoded features, and compare holds at most "
                f"{MOST_ELEMENTS:,} numbers (rows × features) in memory. Compare on some of the rows, with "
                '--sql (sql=) "SELECT * FROM data USING SAMPLE 100000 ROWS", or on fewer columns '
                "(--features, --drop)."
            )
        batches.append(batch if batch.schema.equals(schema) else _cast(batch, schema, table.name))
    return ArrowTable(table.name, pa.Table.from_batches(batches, schema))


def _cast(batch: Any, schema: Any, name: str) -> Any:
    try:
        return batch.cast(schema)
    except pa.ArrowException as error:
        raise InputError(
            f"{name} changes the type of a column on the way ({error}). Convert the column with a query "
            "(--sql, sql=)."
        ) from error


@dataclass(frozen=True)
class DataSet:
    """The rows that take part: as a table, with their targets, weights and groups or times."""

    table: Any
    name: str
    roles: Roles
    y: Array
    weights: Array
    meaning: str
    notes: tuple[Status, ...]
    keys: Array | None

    @classmethod
    def of(cls, held: ArrowTable, roles: Roles, encoder: Encoder, check: Any) -> DataSet:
        """Read all rows once, so that what is wrong is said with the row numbers of the user's table.

        The encoder is that of all rows; here it only finds which rows lack a value.
        """
        number = "row"
        while number in held.columns:
            number += "_"
        numbered = held.table.append_column(number, pa.array(np.arange(held.n_rows or 0)))
        source = roles.source(ArrowTable(held.name, numbered), encoder, key=number, check=check)
        y, w = [], []
        for block in source.blocks():
            if not (all_finite(block.X) and all_finite(block.y)):
                raise source.why_not_finite()
            y.append(block.y)
            w.append(np.ones(len(block.y)) if block.weights is None else block.weights.copy())
        targets, weights = np.concatenate(y), np.concatenate(w)
        rows = source.keys()
        assert rows is not None
        used = weights > 0
        rows, targets, weights = rows.astype(np.int64)[used], targets[used], weights[used]
        if roles.classes is not None:
            here = np.bincount(roles.classes.codes(targets), minlength=len(roles.classes.classes))
            refuse_empty(here, roles.classes)
        elif (targets == targets[0]).all():
            raise InputError(
                f"target '{roles.target}' has the same value ({targets[0, 0]:g}) in all {len(targets)} rows, "
                "so there is nothing to explain. Check the column, or the rows that were selected."
            )
        table = held.table.take(pa.array(rows))
        keys = None
        if roles.key is not None:
            keys = roles.source(ArrowTable(held.name, table), encoder, key=roles.key).keys()
        return cls(table, held.name, roles, targets, weights, meaning(source), weight_notes(source), keys)

    @property
    def codes(self) -> Array | None:
        """The class of every row, (n,), or None."""
        return None if self.roles.classes is None else self.roles.classes.codes(self.y)

    def part(self, rows: Array) -> ArrowTable:
        """Return some rows as a table."""
        return ArrowTable(self.name, self.table.take(pa.array(rows)))

    def encoded(self, rows: Array, encoder: Encoder) -> MemorySource:
        """Return some rows as numbers."""
        blocks = list(self.roles.source(self.part(rows), encoder).blocks())
        weights = None if blocks[0].weights is None else np.concatenate([b.weights for b in blocks])
        return MemorySource(
            np.concatenate([b.X for b in blocks]),
            np.concatenate([b.y for b in blocks]),
            weights,
            weights_are=self.roles.weights_are,
            feature_names=encoder.feature_names,
            target_names=(self.roles.target,)
            if self.roles.classes is None
            else self.roles.classes.target_names,
            keys=None if self.keys is None else self.keys[rows],
            offset=None if blocks[0].offset is None else np.concatenate([b.offset for b in blocks]),
        )
