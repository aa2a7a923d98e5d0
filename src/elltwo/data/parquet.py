"""Parquet files through pyarrow: row groups decoded in order, one ahead of the consumer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from elltwo.data.columns import is_text
from elltwo.data.reading import BATCH_ROWS, Table, ahead, no_rows, sentence
from elltwo.errors import InputError

# Decoded bytes of the row groups that are read at once. Two such pieces are alive at a time.
PIECE_BYTES = 192 << 20
# Column chunks are read through a buffer of this size: quicker, and never the whole chunk at once.
_BUFFER_BYTES = 1 << 18


class ParquetTable(Table):
    """A Parquet file. The file is read, not mapped, so that its pages never count as our memory."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self._name = name or f"'{path}'"
        with self._open() as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
        if not n_rows:
            raise no_rows(self._name)
        self._text = [field.name for field in schema if is_text(field.type)]
        super().__init__(self._name, schema, n_rows)

    def _open(self, text: Sequence[str] = ()) -> Any:
        try:
            return pq.ParquetFile(
                self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES, read_dictionary=list(text)
            )
        except MemoryError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self._name, error) from error

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches; the next row group is decoded while the consumer works."""
        return ahead(self._decoded(list(columns)))

    def _decoded(self, columns: list[str]) -> Iterator[Any]:
        row_bytes = sum(_width(self.schema.field(column).type) for column in columns)
        with self._open([column for column in columns if column in self._text]) as file:
            try:
                for groups in _pieces(file.metadata, PIECE_BYTES // max(row_bytes, 1)):
                    yield from _read(file, groups, columns, row_bytes)
            except MemoryError:
                raise
            except (OSError, pa.ArrowException) as error:
                raise _unreadable(self._name, error) from error


def _read(file: Any, groups: list[int], columns: list[str], row_bytes: int) -> Iterator[Any]:
    if len(groups) == 1 and file.metadata.row_group(groups[0]).num_rows * row_bytes > PIECE_BYTES:
        yield from file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns)
    else:
        yield from file.read_row_groups(groups, columns=columns).select(columns).to_batches()


def _pieces(metadata: Any, most_rows: int) -> Iterator[list[int]]:
    """Yield runs of row groups that together have at most `most_rows` rows, or a single one with more."""
    piece: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        more = metadata.row_group(group).num_rows
        if piece and rows + more > most_rows:
            yield piece
            piece, rows = [], 0
        piece.append(group)
        rows += more
    yield piece


def _width(type_: Any) -> int:
    """Bytes of one decoded value; text is counted as its code and a share of its dictionary."""
    try:
        return int(type_.bit_width) // 8 or 1
    except ValueError:
        return 16


def _unreadable(name: str, error: Exception) -> InputError:
    cause = str(error).splitlines()[0].rstrip(".")
    return InputError(
        f"{sentence(name)} cannot be read as Parquet ({cause}). It may be truncated, damaged or another "
        "format; write or download it again."
    )
