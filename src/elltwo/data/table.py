"""`TableSource`: the rows of a table as a Source of numeric blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.checks import all_finite, census, good_weights, refused, refused_weights
from elltwo.data.classes import ClassTarget
from elltwo.data.columns import kind_of, numbers, text_codes
from elltwo.data.encode import Encoder, Writer, block_rows, number_writer
from elltwo.data.offsets import Offsets
from elltwo.data.opening import open_table
from elltwo.data.reading import Table, no_rows
from elltwo.data.weights import all_whole, as_counts, refuse_class_weight
from elltwo.errors import InputError

__all__ = ["Table", "TableSource", "open_table"]

Array = npt.NDArray[Any]
Progress = Callable[[int, int | None], None]
# Refuses targets (m,) of a name whose first row has so many before it.
Check = Callable[[Array, str, int], None]
#: A target that every loss accepts; stands in for missing ones while the others are looked at.
HARMLESS = 1.0


class TableSource(BlockwiseSource):
    """Rows of a table as blocks of float64 features and targets, in the table's order.

    The blocks have the same rows whatever the table is stored in, so CSV and Parquet give the
    same numbers to the last bit. A row without a target is left out under the policies "mean"
    and "drop"; a row without a feature under "drop". Positions count the rows that are left.

    Parameters
    ----------
    table : Table
    encoder : Encoder
        Turns the feature columns into numbers; its policy for missing values holds here too.
    target : str or sequence of str
        Columns of numbers or booleans to predict, T of them.
    weights : str, optional
        Column of row weights, numbers ≥ 0.
    weights_are : {"analytic", "frequency"}
        "analytic": weights are precisions, and each row is one observation. "frequency": a row of weight 3
        stands for three equal observations; the weights are then whole numbers.
    key : str, optional
        Group or time column, for `keys`.
    classes : ClassTarget, optional
        How the one target, which then holds labels, becomes numbers: T = 1, or one column per class.
    offsets : Offsets, optional
        Columns that are a known part of η.
    check : callable (y (m,), name, rows before), optional
        Raises InputError on a value that is no target of the loss; called for every target and block.
    progress : callable, optional
        Called during a pass with the number of rows read so far and their total, or None.

    Attributes
    ----------
    rows_dropped : int
        Rows that the policy left out, known after a pass over `blocks`.
    n_rows : int or None
        Rows that are left; known from the start if the table knows them and none can be left out.
    class_rows : array of int, shape (K,)
        Rows of each class, known after a pass; empty without classes.

    Raises
    ------
    InputError
        If a column does not exist (the nearest name is suggested) or cannot play its role, and
        during a pass: on missing, infinite or negative values that the roles do not allow.

    Examples
    --------
    >>> table = open_table({"x": [1.0, 2.0, 3.0], "y": [2.0, None, 6.0]})
    >>> source = TableSource(table, Encoder.fit(table, ["x"], missing="drop"), "y")
    >>> [block.y.ravel().tolist() for block in source.blocks()], source.rows_dropped
    ([[2.0, 6.0]], 1)
    """

    def __init__(
        self,
        table: Table,
        encoder: Encoder,
        target: str | Sequence[str],
        *,
        weights: str | None = None,
        weights_are: str = "analytic",
        key: str | None = None,
        classes: ClassTarget | None = None,
        offsets: Offsets | None = None,
        check: Check | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._targets = (target,) if isinstance(target, str) else tuple(target)
        table.require(encoder.column_names, "feature")
        if classes is None:
            self.target_names = self._targets
            _require_numbers(table, self._targets, "target")
        else:
            self.target_names = classes.target_names
            table.require(self._targets, "target")
        self._offsets = Offsets() if offsets is None else offsets
        self._offsets.require(table)
        if weights is not None:
            _require_numbers(table, [weights], "weights column")
        if key is not None:
            table.require([key], "group or time column")
            if table.kinds[key] == "other":
                raise InputError(f"Column '{key}' is nested or binary, so it cannot name groups or times.")
        self.feature_names = encoder.feature_names
        self.n_features = len(self.feature_names)
        self.n_targets = len(self.target_names)
        class_weights = classes is not None and classes.weights is not None
        self.n_rows = table.n_rows if encoder.missing == "error" else None
        self.in_memory = table.in_memory
        self.counts = as_counts(weights_are) and weights is not None
        refuse_class_weight(
            weighted=weights is not None,
            counts=self.counts,
            class_weight=classes.weights if classes is not None else None,
        )
        self.weighted = weights is not None or class_weights
        self.rows_dropped = 0
        self.class_rows = np.zeros(0 if classes is None else len(classes.classes), dtype=np.int64)
        self._table = table
        self._encoder = encoder
        self._weights = weights
        self._key = key
        self._classes = classes
        self._check = check
        self._progress = progress

    @property
    def _columns(self) -> list[str]:
        """Columns that a pass reads, each once."""
        more = () if self._weights is None else (self._weights,)
        names = [*self._encoder.column_names, *self._targets, *self._offsets.columns, *more]
        return list(dict.fromkeys(names))

    @property
    def _has_offset(self) -> bool:
        return bool(self._offsets.columns)

    @property
    def _width(self) -> int:
        """Rows of the buffer: features, targets, offset, weights."""
        return self.n_features + self.n_targets + self._has_offset + self.weighted

    @property
    def _y(self) -> slice:
        """Rows of the buffer that hold the targets."""
        return slice(self.n_features, self.n_features + self.n_targets)

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows from the first to the last, in blocks of 8 MB (32 MB if very wide)."""
        size = block_rows(self._width)
        buffer, filled = np.empty((self._width, size)), 0
        read, kept, tally = 0, 0, _Tally(len(self.class_rows))
        for batch in self._table.batches(self._columns):
            write = self._writer(batch)
            start = 0
            while start < batch.num_rows:
                stop = min(start + size - filled, batch.num_rows)
                filled += self._fill(write, start, stop, buffer[:, filled : filled + stop - start], read)
                start = stop
                if filled == size:
                    yield (block := self._block(buffer, kept))
                    tally.add(block, self._classes)
                    kept, filled, buffer = kept + size, 0, np.empty_like(buffer)
                self._tell(read + start)
            read += batch.num_rows
        if filled:
            yield (block := self._block(np.ascontiguousarray(buffer[:, :filled]), kept))
            tally.add(block, self._classes)
        self._finish(read, kept + filled, tally)

    def _writer(self, batch: Any) -> Writer:
        """Return what writes rows of the batch into the buffer: features, targets, offset, weights."""
        parts: list[tuple[Any, Writer]] = [(slice(self.n_features), self._encoder.writer(batch, Counter()))]
        if self._classes is not None:
            parts.append((self._y, self._classes.writer(batch.column(self._targets[0]))))
        else:
            for j, name in enumerate(self._targets, self.n_features):
                parts.append((j, number_writer(batch.column(name), name)))
        if self._has_offset:
            parts.append((self._y.stop, self._offsets.writer(batch, self._table)))
        if self._weights is not None:
            parts.append((-1, number_writer(batch.column(self._weights), self._weights)))
        elif self.weighted:
            parts.append((-1, _write_ones))

        def write(start: int, stop: int, out: Array) -> None:
            for place, part in parts:
                part(start, stop, out[place])

        return write

    def _fill(self, write: Writer, start: int, stop: int, out: Array, before: int) -> int:
        """Write rows start:stop of a batch, move those that are kept to the front, and count them.

        Where missing values are an error, nothing is looked for: they make the moments NaN, and then
        `why_not_finite` counts them.
        """
        write(start, stop, out)
        if self._weights is not None and not good_weights(out[-1], self.counts):
            raise refused_weights(self._table, self._weights, self.counts)
        y = out[self._y]
        if self._classes is not None:
            self._classes.weigh(y, out[-1])
        elif self._check is not None:
            for name, values in zip(self._targets, y, strict=True):
                missing = np.isnan(values)
                self._check(
                    np.where(missing, HARMLESS, values) if missing.any() else values, name, before + start
                )
        if self._has_offset and self._encoder.missing == "error" and np.isnan(out[self._y.stop]).any():
            error = self._offsets.refused(self._table, missing_too=True)
            assert error is not None
            raise error
        if self._encoder.missing == "error" or all_finite(out):
            return stop - start
        kept = self._kept(out)
        rows = int(kept.sum())
        out[:, :rows] = out[:, kept]
        return rows

    def _kept(self, out: Array) -> Array:
        """Apply the policy to rows with missing values and return which of them stay, shape (m,)."""
        X, y = out[: self.n_features], out[self._y]
        if np.isinf(y).any():
            raise self.why_not_finite()
        self._encoder.settle(X, self._table)
        return np.asarray(~np.isnan(out).any(axis=0))

    def why_not_finite(self) -> InputError:
        """Return the error that counts the missing and infinite values of each column of the table."""
        columns, targets = self._encoder.column_names, self._targets
        error = refused(self._table, columns, self._encoder.missing, targets)
        return error if error.args[0] else super().why_not_finite()

    def _block(self, buffer: Array, start: int) -> Block:
        y = buffer[self._y].T
        weights = buffer[-1] if self.weighted else None
        offset = np.broadcast_to(buffer[self._y.stop][:, None], y.shape) if self._has_offset else None
        return Block(buffer[: self.n_features].T, y, weights, start, offset)

    def _tell(self, rows: int) -> None:
        if self._progress is not None:
            self._progress(rows, self._table.n_rows)

    def _finish(self, read: int, kept: int, tally: _Tally) -> None:
        """Remember what the pass found out about the rows, and refuse an empty result."""
        if not read:
            raise no_rows(self._table.name)
        if not kept:
            raise InputError(
                f"Each of the {read:,} rows of {self._table.name} lacks a value, so none is left. Use "
                "--missing mean (missing='mean'), or leave out the emptiest columns (--drop)."
            )
        if self._weights is not None and tally.largest == 0:
            raise InputError(
                f"The weights in column '{self._weights}' are all zero; at least one must be positive."
            )
        self.n_rows, self.rows_dropped, self.class_rows = kept, read - kept, tally.class_rows
        multiplied = self._classes is not None and self._classes.weights is not None
        self.whole_weights = tally.whole and tally.largest > 1 and not multiplied

    def keys(self) -> Array | None:
        """Return the group or time value of every row that is left, shape (n,), or None without a column.

        Text is given as integer codes in the order of the sorted values, dates as days, and
        numbers as they are.

        Raises
        ------
        InputError
            If a value is missing.
        """
        if self._key is None:
            return None
        every = self._encoder.missing == "error"
        keys = _Keys(self._key)
        for batch in self._table.batches([self._key] if every else [*{*self._columns, self._key}]):
            keys.add(batch.column(self._key), None if every else self._kept_rows(batch))
        values = keys.values()
        if values.dtype.kind == "f" and np.isnan(values).any():
            missing = census(self._table, [self._key])[0][self._key]
            raise InputError(
                f"The group or time column '{self._key}' has {missing:,} missing values; every row needs "
                "one. Fill them, or leave out those rows with a query (--sql, sql=)."
            )
        return values

    def _kept_rows(self, batch: Any) -> Array:
        write, size = self._writer(batch), block_rows(self._width)
        kept = np.ones(batch.num_rows, dtype=bool)
        for start in range(0, batch.num_rows, size):
            stop = min(start + size, batch.num_rows)
            out = np.empty((self._width, stop - start))
            write(start, stop, out)
            if not all_finite(out):
                kept[start:stop] = self._kept(out)
        return kept


class _Tally:
    """What a pass counts: rows of each class, and what the weights are like."""

    def __init__(self, n_classes: int) -> None:
        self.class_rows = np.zeros(n_classes, dtype=np.int64)
        self.largest, self.whole = 0.0, True

    def add(self, block: Block, classes: ClassTarget | None) -> None:
        if classes is not None:
            self.class_rows += np.bincount(classes.codes(block.y), minlength=len(self.class_rows))
        if block.weights is not None:
            self.largest = max(self.largest, float(block.weights.max()))
            self.whole = self.whole and all_whole(block.weights)


class _Keys:
    """The values of a key column, gathered batch by batch."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts: list[Array] = []
        self._names: dict[str, int] = {}

    def add(self, array: Any, kept: Array | None) -> None:
        part = self._text(array) if kind_of(array.type) == "string" else numbers(array, self._name)
        self._parts.append(part if kept is None else part[kept])

    def _text(self, array: Any) -> Array:
        """Return codes in the order of appearance, NaN where missing."""
        at, names = text_codes(array)
        codes = [np.nan if name is None else self._names.setdefault(name, len(self._names)) for name in names]
        return np.array([*codes, np.nan])[at]

    def values(self) -> Array:
        values = np.concatenate(self._parts)
        if not self._names or np.isnan(values).any():
            return values
        sorted_code = np.empty(len(self._names), dtype=np.int64)
        sorted_code[[self._names[name] for name in sorted(self._names)]] = np.arange(len(self._names))
        return sorted_code[values.astype(np.int64)]


def _require_numbers(table: Table, names: Sequence[str], role: str) -> None:
    table.require(names, role)
    for name in names:
        if table.kinds[name] not in ("number", "boolean"):
            raise InputError(
                f"The {role} '{name}' must hold numbers and holds {table.schema.field(name).type} values, "
                f"such as {table.example(name)!r}. Name another column, or convert it with a query "
                "(--sql, sql=)."
            )


def _write_ones(start: int, stop: int, out: Array) -> None:  # noqa: ARG001
    out[:] = 1.0
