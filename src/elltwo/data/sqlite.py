"""SQLite databases through Python's own sqlite3, so that nothing has to be downloaded.

SQLite types each value, not each column. The type of a column is found from all its values:
text that is a date throughout becomes a date, text beside numbers makes the column text; words for a
missing value, and an empty text, are missing there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from elltwo.data.columns import MISSING_WORDS
from elltwo.data.parquet import ParquetTable
from elltwo.data.query import choose_table
from elltwo.data.reading import BATCH_ROWS, Table, refuse_repeats
from elltwo.data.remedies import quoted, text
from elltwo.data.spool import spooled
from elltwo.data.sql import bare, not_one_select
from elltwo.errors import InputError

_TABLES = (
    "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
    "AND name NOT LIKE 'sqlite_%' ORDER BY name"
)
_SELECT = (
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
)
_DATE = (
    "({c} GLOB '????-??-??' OR {c} GLOB '????-??-??[ T]??:??:??' OR {c} GLOB '????-??-??[ T]??:??:??.*')"
    " AND datetime({c}) IS NOT NULL AND length({c}) <= 26"
)


def sqlite_table(path: Path, table: str | None, sql: str | None) -> Table:
    """Open a table of an SQLite database, or the result of a query on it.

    The rows are kept in a temporary Parquet file, so that every pass over them is quick.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.set_authorizer(_reading_only)
            if sql is None:
                only = choose_table(path, [row[0] for row in connection.execute(_TABLES)], table)
                return _spool(connection, f"SELECT * FROM {quoted(only)}", f"'{path}::{only}'")
            name = f"the query on '{path}'"
            return _spool(connection, _only_select(connection, sql, name), name)
    except sqlite3.Error as error:
        raise InputError(
            f"The SQLite database '{path}' cannot be read: {error}. Check the query and the file."
        ) from error


def _reading_only(action: int, *_: str | None) -> int:
    """Tell SQLite which actions of a statement are allowed: those of a SELECT."""
    return sqlite3.SQLITE_OK if action in _SELECT else sqlite3.SQLITE_DENY


def _only_select(connection: sqlite3.Connection, sql: str, name: str) -> str:
    """Return a query without what may follow it, if SQLite finds that it is one SELECT."""
    query = bare(sql)
    if not query:
        raise not_one_select(name)
    try:
        connection.execute(f"EXPLAIN {query}")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.ProgrammingError) or "not authorized" in str(error):
            raise not_one_select(name) from error
        raise
    return query


def _spool(connection: sqlite3.Connection, query: str, name: str) -> Table:
    # SELECT * FROM (query) would rename columns called "true" or "false".
    columns = [entry[0] for entry in connection.execute(query).description]
    refuse_repeats(name, columns)
    schema = pa.schema([(column, _type(connection, query, columns, column)) for column in columns])

    def write(path: Path) -> None:
        with pq.ParquetWriter(path, schema) as file:
            for batch in _batches(connection, query, schema):
                file.write_batch(batch)

    return spooled(write, lambda path: ParquetTable(path, name))


def _type(connection: sqlite3.Connection, query: str, columns: list[str], column: str) -> Any:
    """Return the type of a column, found from all its values.

    The columns get names of ours: to SQLite, "true" can be the column or the value 1.
    """
    names = [f"c{i}" for i in range(len(columns))]
    c = names[columns.index(column)]
    rows = f"WITH result({', '.join(names)}) AS ({query}\n)"
    kinds = {kind for (kind,) in connection.execute(f"{rows} SELECT DISTINCT typeof({c}) FROM result")}
    kinds -= {"null"}
    if "blob" in kinds:
        return pa.binary()
    if kinds == {"text"}:
        odd = f"{rows} SELECT 1 FROM result WHERE {c} IS NOT NULL AND NOT ({_DATE.format(c=c)}) LIMIT 1"
        return pa.string() if connection.execute(odd).fetchone() else pa.timestamp("us")
    if "text" in kinds:
        words = ", ".join(map(text, MISSING_WORDS))
        odd = f"{rows} SELECT 1 FROM result WHERE typeof({c}) = 'text' AND trim({c}) NOT IN ({words}) LIMIT 1"
        if connection.execute(odd).fetchone():
            return pa.string()
    return pa.int64() if kinds <= {"integer", "text"} else pa.float64()


def _batches(connection: sqlite3.Connection, query: str, schema: Any) -> Iterator[Any]:
    cursor = connection.execute(query)
    while rows := cursor.fetchmany(BATCH_ROWS):
        columns = zip(*rows, strict=True)
        yield pa.record_batch(
            [_array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )


def _array(values: tuple[Any, ...], type_: Any) -> Any:
    if pa.types.is_timestamp(type_):
        return pa.array(values, pa.string()).cast(type_)
    if pa.types.is_string(type_):
        return pa.array([value if value is None else str(value) for value in values], type_)
    if pa.types.is_binary(type_):
        return pa.array([value if isinstance(value, bytes) else None for value in values], type_)
    return pa.array([None if isinstance(value, str) else value for value in values], type_)
