"""What DuckDB reads: files and stored tables as a `Table`, and the results of SQL queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from elltwo.data.parquet import ParquetTable
from elltwo.data.reading import BATCH_ROWS, ArrowTable, AsText, Parts, Table, no_rows, refuse_repeats
from elltwo.data.remedies import quoted
from elltwo.data.remedies import text as literal
from elltwo.data.spool import spooled
from elltwo.data.sql import connect, explained, only_select, reader, sql_names
from elltwo.errors import InputError, did_you_mean, name_some


class QueryTable(Table):
    """The rows of something that DuckDB reads in the same order every time: a file or a stored table.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    name : str
        What messages call it.
    source : str
        SQL that can stand after FROM.
    described : str, optional
        SQL after FROM whose types are the true ones, where `source` widens them.
    names : sequence of str, optional
        Names of the columns, in the order of `source`, whose own names are those that SQL can tell apart.
    typed : callable, optional
        For a text file: opens it again with some of its columns as text.
    written : str, optional
        SQL after FROM that reads all columns of a text file as they are written.
    """

    def __init__(
        self,
        connection: Any,
        name: str,
        source: str,
        described: str | None = None,
        *,
        names: Sequence[str] | None = None,
        typed: Callable[[Sequence[str]], Table] | None = None,
        written: str | None = None,
    ) -> None:
        self._connection = connection
        self._typed = typed
        self._written = written
        self.source = source
        with explained(name):
            schema = connection.sql(f"SELECT * FROM {described or source} LIMIT 0").to_arrow_reader().schema
            empty = not connection.sql(f"SELECT 1 FROM {source} LIMIT 1").fetchall()
        if empty:
            raise no_rows(name)
        names = schema.names if names is None else names
        self._sql = dict(zip(names, schema.names, strict=True))
        super().__init__(
            name, pa.schema([f.with_name(own) for f, own in zip(schema, names, strict=True)]), None
        )

    def as_text(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns as text; those of a text file as they are written, "007"."""
        return super().as_text(columns) if self._typed is None else self._typed(columns)

    def as_written(self) -> Table:
        """Return the table as it is: the fields of a text file as they are written, "1.10" and "NA" too."""
        if self._written is None:
            return self
        return QueryTable(self._connection, self.name, self._written, names=self.columns)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches; DuckDB keeps the order of the rows."""
        query = f"SELECT {', '.join(quoted(self._sql[name]) for name in columns)} FROM {self.source}"
        with explained(self.name):
            for batch in self._connection.cursor().sql(query).to_arrow_reader(BATCH_ROWS):
                yield batch.rename_columns(columns)


def database_table(path: Path, table: str | None) -> Table:
    """Open a table of a DuckDB database; without a name, its only one."""
    connection = connect(str(path))
    listed = connection.sql(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables ORDER BY ALL"
    ).fetchall()
    # A schema other than the standard one belongs to the name.
    found = {t if schema == "main" else f"{schema}.{t}": (schema, t, kind) for schema, t, kind in listed}
    schema, only, kind = found[choose_table(path, list(found), table)]
    source = f"{quoted(schema)}.{quoted(only)}"
    if kind != "BASE TABLE":
        return query_table(connection, f"FROM {source}", f"'{path}::{only}'")
    return QueryTable(connection, f"'{path}::{only}'", source)


def choose_table(path: Path, tables: Sequence[str], wanted: str | None) -> str:
    """Return the wanted table of a database, or its only one; else say which there are."""
    if wanted in tables or (wanted is None and len(tables) == 1):
        return tables[0] if wanted is None else wanted
    if not tables:
        raise InputError(f"The database '{path}' has no tables.")
    told = "has several tables" if wanted is None else f"has no table '{wanted}'"
    raise InputError(
        f"The database '{path}' {told}.{did_you_mean(wanted or '', tables)} Its tables are "
        f"{name_some(tables, most=12)}: name one, as in '{path}::{tables[0]}', or pass a query (--sql, sql=)."
    )


def query_table(connection: Any, query: str, name: str = "the query") -> Table:
    """Run a query once and keep its rows in a temporary Parquet file.

    SQL promises no order, so another run could give other rows: every pass reads the same file.
    """
    query = only_select(connection, query, name)
    with explained(name):
        described = connection.sql(f"DESCRIBE {query}").fetchall()
    refuse_repeats(f"The result of {name}", [row[0] for row in described])

    def write(path: Path) -> None:
        with explained(name):
            connection.execute(
                f"COPY ({query}\n) TO {literal(str(path))} (FORMAT parquet, COMPRESSION lz4_raw)"
            )

    return spooled(write, lambda path: ParquetTable(path, name))


def queried(table: Table, sql: str) -> Table:
    """Run a query on a table, which it calls ``data``.

    Raises
    ------
    InputError
        If the query is none, or names of columns differ only in capital letters.
    """
    _refuse_case_twins(table)
    connection = connect()
    if isinstance(table, ArrowTable):
        connection.register("data", table.table.rename_columns(sql_names(table.columns)))
    else:
        # Without OFFSET the reader of a CSV file does the query's TRY_CAST, and fails where that gives NULL.
        connection.execute(f"CREATE VIEW data AS FROM {_source(table)} OFFSET 0")
    return query_table(connection, sql)


def _refuse_case_twins(table: Table) -> None:
    seen: dict[str, str] = {}
    for column in table.columns:
        if (twin := seen.setdefault(column.casefold(), column)) != column:
            raise InputError(
                f"The columns '{twin}' and '{column}' of {table.name} differ only in capital letters, which "
                "a query cannot tell apart. Rename one of them, or do without the query."
            )


def _source(table: Table) -> str:
    """Return SQL that reads the files of a table."""
    if isinstance(table, Parts):
        return f"({' UNION ALL BY NAME '.join(f'FROM {_source(part)}' for part in table.parts)})"
    if isinstance(table, ParquetTable):
        return reader("read_parquet", table.path, {})
    if isinstance(table, QueryTable):
        return table.source
    if isinstance(table, AsText):
        return _source(table.table)  # put together with text, it becomes text
    raise InputError(f"A query cannot be run on {table.name}.")


def relation_table(relation: Any) -> Table:
    """Run a DuckDB relation once and keep its rows in a temporary Parquet file."""
    refuse_repeats("The DuckDB relation", relation.columns)

    def write(path: Path) -> None:
        with explained("the DuckDB relation"):
            relation.write_parquet(str(path), compression="lz4_raw")

    return spooled(write, lambda path: ParquetTable(path, "the DuckDB relation"))
