"""`open_table`: recognise what the user gave and open it as a `Table`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import pyarrow as pa

from elltwo.data.reading import ArrowTable, Parts, Table, refuse_repeats
from elltwo.errors import InputError, did_you_mean
from elltwo.files import named

_CSV = (".csv", ".tsv", ".txt")
_JSON = (".json", ".jsonl", ".ndjson")
# What files that cannot be read start with.
_FOREIGN = {
    "an Arrow or Feather file": (b"ARROW1", b"FEA1"),
    "an Excel workbook, or another zip archive": (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"),
    "a Python pickle": (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
    "an HDF5 file": (b"\x89HDF",),
    "a NumPy array": (b"\x93NUMPY",),
}
_PARQUET = (".parquet", ".pq")


def open_table(data: Any, *, sql: str | None = None) -> Table:
    """Open a table for reading, block after block.

    Parameters
    ----------
    data : str, path, DataFrame, mapping or DuckDB relation
        - a CSV, Parquet or JSON-lines file, or a glob such as ``"sales/*.parquet"`` (read in
          the order of the names; the files need the same columns);
        - a DuckDB or SQLite database, ``"shop.duckdb"`` or ``"shop.duckdb::orders"``;
        - a query: text that starts with SELECT, WITH or FROM;
        - a pandas, Polars or Arrow table, a mapping of names to columns, or
          anything that narwhals or the Arrow C stream reads;
        - a DuckDB relation.
    sql : str, optional
        A query run on the data, which it calls ``data``; in a database, its own table names.

    Returns
    -------
    Table
        Files are never loaded whole. The result of a query is kept in a temporary Parquet
        file until the table is no longer used, because SQL promises no order of rows.

    Raises
    ------
    InputError
        If the data cannot be found or read, are empty, or repeat a column name.

    Notes
    -----
    Types of text files are found from all rows of files up to 32 MB, and else from the first
    20,480 rows. An empty field, NA, N/A, NaN, null and None are missing values.

    Examples
    --------
    >>> table = open_table(pa.table({"area": [50.0, 80.0], "town": ["Ulm", None]}))
    >>> table.kinds, table.n_rows
    ({'area': 'number', 'town': 'string'}, 2)
    >>> open_table("SELECT i, i % 2 = 0 AS even FROM range(10) t(i)").kinds
    {'i': 'number', 'even': 'boolean'}
    """
    if isinstance(data, os.PathLike) or (isinstance(data, str) and not _is_query(data)):
        return _open_path(os.fspath(data), sql)
    if isinstance(data, str):
        from elltwo.data.query import query_table
        from elltwo.data.sql import connect

        if sql is not None:
            raise InputError("The data are a query already, and sql= is a second one; pass one of them.")
        return query_table(connect(), data)
    return _open_object(data, sql)


def _is_query(text: str) -> bool:
    return bool(re.match(r"\s*(select|with|from)\s", text, re.IGNORECASE)) and not os.path.exists(text)


def _open_path(text: str, sql: str | None) -> Table:
    if not text.strip():
        raise InputError("The data are an empty text. Name a file, a quoted pattern or a query.")
    if text in ("-", "/dev/stdin", "/dev/fd/0"):
        raise InputError(
            "The data are read more than once, and standard input can be read only once. Save it to a file "
            "first, and name that file."
        )
    base, _, table = text.partition("::")
    paths = _find(base)
    if len(paths) == 1 and (database := _database(paths[0], table or None, sql)):
        return database
    if table:
        raise InputError(f"'{base}' is not a DuckDB or SQLite database, so it has no table '{table}'.")
    parts = [_open_file(path) for path in paths]
    opened = parts[0] if len(parts) == 1 else Parts(f"'{text}'", parts)
    return _open_object(opened, sql)


def _find(text: str) -> list[Path]:
    """Return the files a path or a glob names, in the order of their names."""
    path = named(text)
    if path.is_dir():
        raise InputError(f"'{text}' is a folder. Name its files with a glob, such as '{text}/*.parquet'.")
    if path.exists():
        return [path]
    if has_magic(text):
        if found := sorted(named(name) for name in glob(str(path), recursive=True)):
            return found
        raise InputError(f"No file matches '{text}'. Check the folder and the pattern.")
    if not path.parent.is_dir():
        raise InputError(f"There is no file '{text}': the folder '{path.parent}' does not exist.")
    near = did_you_mean(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    raise InputError(f"There is no file '{text}'.{near}")


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(f"'{path}' cannot be opened: {error.strerror}.") from error
    if not start:
        raise InputError(f"'{path}' is empty. Check that it was written completely.")
    return start


def _database(path: Path, table: str | None, sql: str | None) -> Table | None:
    start = _magic(path)
    if start == b"SQLite format 3\0":
        from elltwo.data.sqlite import sqlite_table

        return sqlite_table(path, table, sql)
    if start[8:12] == b"DUCK":
        from elltwo.data.query import database_table, query_table
        from elltwo.data.sql import connect

        return database_table(path, table) if sql is None else query_table(connect(str(path)), sql)
    return None


def _open_file(path: Path) -> Table:
    """Open one file by what it is called, else by how it starts."""
    start = _magic(path)
    _refuse_format(path, start)
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith(_PARQUET) or start[:4] == b"PAR1":
        from elltwo.data.parquet import ParquetTable

        return ParquetTable(path)
    if name.endswith(_JSON) or (not name.endswith(_CSV) and start.lstrip().startswith((b"{", b"["))):
        from elltwo.data.json_lines import json_table

        return json_table(path)
    from elltwo.data.delimited import csv_table

    return csv_table(path)


def _refuse_format(path: Path, start: bytes) -> None:
    """Refuse a file that is known to be neither text nor Parquet."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(
            f"'{path}' is UTF-16 text, and UTF-8 is needed. Convert it: iconv -f UTF-16 -t UTF-8 "
            f"'{path.name}' > utf8.csv, or save it as \"CSV UTF-8\" in the spreadsheet."
        )
    kinds = (format for format, known in _FOREIGN.items() if start.startswith(known))
    if kind := next(kinds, None):
        raise InputError(
            f"'{path}' is {kind}, which is not read here. Save it as CSV, Parquet or JSON lines; a DuckDB or "
            "SQLite database will do, too."
        )


def _open_object(data: Any, sql: str | None) -> Table:
    opened = data if isinstance(data, Table) else _object_table(data)
    if sql is None:
        return opened
    from elltwo.data.query import queried

    return queried(opened, sql)


def _object_table(data: Any) -> Table:
    package = type(data).__module__.partition(".")[0]
    kind = type(data).__name__ if package == "builtins" else f"{package} {type(data).__name__}"
    if package in ("duckdb", "_duckdb"):
        from elltwo.data.query import relation_table

        return relation_table(data)
    try:
        return ArrowTable(f"the {kind}", _arrow(data, kind))
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, (InputError, MemoryError)):
            raise
        cause = " ".join(str(part) for part in error.args)
        raise InputError(
            f"The {kind} cannot be read as a table: {cause}. Give each column one type."
        ) from error


def _dense(frame: Any) -> Any:
    """Return a pandas frame with its sparse columns dense, which Arrow cannot hold."""
    sparse = {name: type_.subtype for name, type_ in frame.dtypes.items() if hasattr(type_, "fill_value")}
    return frame.astype(sparse) if sparse else frame


def _arrow(data: Any, kind: str) -> Any:
    """Return a DataFrame as an Arrow table, without a copy where its memory allows."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, Mapping):
        return pa.table({str(name): column for name, column in data.items()})
    import narwhals as nw

    try:
        frame = nw.from_native(data, pass_through=True)
        if isinstance(frame, nw.LazyFrame):
            frame = frame.collect()
    except nw.exceptions.DuplicateError:
        refuse_repeats(f"the {kind}", [str(column) for column in data.columns])
        raise
    if isinstance(frame, nw.DataFrame):
        if not all(isinstance(column, str) for column in frame.columns):
            frame = nw.from_native(data.rename(columns=str))
        native = frame.to_native()
        if nw.dependencies.is_pandas_dataframe(native):
            return pa.Table.from_pandas(_dense(native), preserve_index=False)
        return frame.to_arrow()
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data).read_all()
    raise InputError(
        f"Data of the type {kind} are not a table with named columns. Pass a path, a glob, a query, a "
        "pandas, Polars or Arrow table, or a DuckDB relation; for NumPy arrays there is elltwo.Ridge."
    )
