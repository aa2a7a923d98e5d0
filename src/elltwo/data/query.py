"""CSV, JSON lines, DuckDB databases and SQL queries, through DuckDB."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa

from elltwo.data.columns import MISSING_WORDS
from elltwo.data.parquet import ParquetTable
from elltwo.data.reading import BATCH_ROWS, ArrowTable, Parts, Table, no_rows, refuse_repeats, sentence
from elltwo.data.remedies import quoted
from elltwo.data.remedies import text as _text
from elltwo.data.spool import spooled
from elltwo.errors import InputError, did_you_mean, name_some

# Types are found from every row of a file up to this size, else from its first rows.
_WHOLE_BYTES = 32 << 20
_DELIMITERS = ",;\t|"
# Options of read_csv and the columns of sniff_csv that they come from.
_DIALECT = {
    "delim": "Delimiter",
    "quote": "Quote",
    "escape": "Escape",
    "new_line": "NewLineDelimiter",
    "comment": "Comment",
    "dateformat": "DateFormat",
    "timestampformat": "TimestampFormat",
}
# Other ways to write a date are never guessed: another file could be guessed to be written another way.
_ISO = {"dateformat": "'%Y-%m-%d'"}
_DECIMAL_COMMA = {"delim": "';'", "decimal_separator": "','"}


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
    typed : callable, optional
        For a text file: opens it again with some of its columns as text.
    """

    def __init__(
        self,
        connection: Any,
        name: str,
        source: str,
        described: str | None = None,
        typed: Callable[[Sequence[str]], Table] | None = None,
    ) -> None:
        self._connection = connection
        self._typed = typed
        self.source = source
        with _explained(name):
            schema = connection.sql(f"SELECT * FROM {described or source} LIMIT 0").to_arrow_reader().schema
            empty = not connection.sql(f"SELECT 1 FROM {source} LIMIT 1").fetchall()
        if empty:
            raise no_rows(name)
        super().__init__(name, schema, None)

    def as_text(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns as text; those of a text file as they are written, "007"."""
        return super().as_text(columns) if self._typed is None else self._typed(columns)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches; DuckDB keeps the order of the rows."""
        query = f"SELECT {', '.join(map(quoted, columns))} FROM {self.source}"
        with _explained(self.name):
            yield from self._connection.cursor().sql(query).to_arrow_reader(BATCH_ROWS)


def connect(database: str = ":memory:") -> Any:
    """Open DuckDB, a stored database read-only; a query sees data and files, never our variables."""
    stored = database != ":memory:"
    with _explained(f"'{database}'"):
        connection = duckdb.connect(database, read_only=stored, config={"python_enable_replacements": False})
        connection.execute("SET enable_progress_bar = false")  # it would go to stdout
        return connection


_MISSING = {"nullstr": f"[{', '.join(map(_text, MISSING_WORDS))}]"}


def _reader(function: str, path: Path, options: dict[str, str]) -> str:
    """Return the call of a DuckDB table function on one file, taking its name literally."""
    listed = "".join(f", {key} = {value}" for key, value in options.items())
    return f"{function}({_text(escape(str(path)))}{listed})"


def _sample(path: Path) -> dict[str, str]:
    return {"sample_size": "-1"} if path.stat().st_size <= _WHOLE_BYTES else {}


def csv_table(path: Path) -> Table:
    """Open a CSV file: its dialect and types are found by DuckDB.

    Raises
    ------
    InputError
        If the file has a header only, repeats a column name, or a row has too few or too
        many fields (the message names the line).
    """
    connection = connect()
    found = _dialect(connection, path)
    types = {column["name"]: column["type"] for column in found["Columns"]}
    types |= _not_iso(connection, path, types, lambda changed: _typed_csv(path, found, changed))

    def typed(text: Sequence[str]) -> Table:
        as_text = types | dict.fromkeys(text, "VARCHAR")
        read = _typed_csv(path, found, as_text if _sample(path) else _widened(as_text))
        table = QueryTable(connection, f"'{path}'", read, _typed_csv(path, found, as_text), typed)
        table.written = True
        return table

    return typed([])


def _not_iso(
    connection: Any, path: Path, types: dict[str, str], reader: Callable[[dict[str, str]], str]
) -> dict[str, str]:
    """Return the columns that DuckDB takes for dates although the year has no four digits, as text."""
    dates = [name for name, type_ in types.items() if type_ == "DATE" or type_.startswith("TIMESTAMP")]
    if not dates:
        return {}
    source = reader(types | dict.fromkeys(dates, "VARCHAR"))
    odd = (f"count_if(NOT regexp_matches({quoted(name)}, '^\\s*\\d{{4}}[-/]'))" for name in dates)
    with _explained(f"'{path}'"):
        sampled = "" if _sample(path) else " LIMIT 20480"
        counts = connection.sql(f"SELECT {', '.join(odd)} FROM (FROM {source}{sampled})").fetchall()[0]
    return {name: "VARCHAR" for name, n in zip(dates, counts, strict=True) if n}


def _dialect(connection: Any, path: Path) -> dict[str, Any]:
    """Return what DuckDB's sniffer finds, made to agree with the file's first line."""
    header, delimiter = _first_line(path)
    try:
        found = _sniff(connection, path, {})
    except InputError:
        _refuse_ragged(path, delimiter)
        raise
    expected = found["Delimiter"] if found["Delimiter"] in header else delimiter
    if found["SkipRows"] or len(_fields(header, expected)) != len(found["Columns"]):
        # The sniffer passed over lines that do not fit, or took another delimiter because of them.
        _refuse_ragged(path, delimiter)
        found = _sniff(connection, path, {"delim": _text(delimiter), "header": "true", "skip": "0"})
    if found["Delimiter"] == ";":
        found = max((found, _sniff(connection, path, _DECIMAL_COMMA)), key=_count_doubles)
    if found["HasHeader"]:
        names = _fields(header, found["Delimiter"])
        refuse_repeats(f"'{path}'", names)
        _refuse_case_twins(path, names)
    return found


def _sniff(connection: Any, path: Path, options: dict[str, str]) -> dict[str, Any]:
    """Return the sniffer's one row, and the options it was given that are needed again."""
    with _explained(f"'{path}'"):
        call = _reader("sniff_csv", path, _MISSING | _sample(path) | _ISO | options)
        row = connection.sql(f"FROM {call}")
        found = dict(zip(row.columns, row.fetchall()[0], strict=True))
    return found | {"decimal_separator": options.get("decimal_separator", "'.'")}


def _count_doubles(found: dict[str, Any]) -> int:
    return sum(column["type"] == "DOUBLE" for column in found["Columns"])


def _typed_csv(path: Path, found: dict[str, Any], types: dict[str, str]) -> str:
    """Return the call that reads a CSV file with a known dialect and known types."""
    options = {"auto_detect": "false", "header": str(found["HasHeader"]), "skip": str(found["SkipRows"])}
    for option, key in _DIALECT.items():
        if found[key] is not None:
            options[option] = _text(found[key].replace("(empty)", ""))
    columns = ", ".join(f"{_text(name)}: {_text(type_)}" for name, type_ in types.items())
    decimal = {"decimal_separator": found["decimal_separator"]}
    return _reader("read_csv", path, options | decimal | _MISSING | {"columns": f"{{{columns}}}"})


def _widened(types: dict[str, str]) -> dict[str, str]:
    """Read integers as DOUBLE: DuckDB would round a 0.5 that comes after the rows it looked at."""
    return {name: "DOUBLE" if type_ == "BIGINT" else type_ for name, type_ in types.items()}


def _lines(path: Path) -> TextIO:
    """Open a text file that may be compressed."""
    return TextIOWrapper(pa.input_stream(str(path)), encoding="utf-8-sig", errors="replace", newline="")


def _first_line(path: Path) -> tuple[str, str]:
    """Return the first line that is not blank, and the delimiter it seems to use."""
    with _lines(path) as file:
        first = next((line for line in file if line.strip()), None)
    if first is None:
        raise InputError(f"'{path}' holds blank lines only. Check that it was written completely.")
    return first, max(_DELIMITERS, key=first.count)


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _refuse_ragged(path: Path, delimiter: str) -> None:
    with _lines(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        rows = (row for row in reader if row)
        header = next(rows)
        for row in rows:
            if len(row) != len(header):
                raise InputError(
                    f"Line {reader.line_num} of '{path}' has {len(row)} fields and its first line has "
                    f"{len(header)}. Every row needs one field per column name: mend that line, remove lines "
                    "above the header, or put text that contains the delimiter between double quotes."
                )


def _refuse_case_twins(path: Path, header: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for column in header:
        if (twin := seen.setdefault(column.casefold(), column)) != column:
            raise InputError(
                f"The columns '{twin}' and '{column}' of '{path}' differ only in capital letters, which SQL "
                "cannot tell apart. Rename one of them."
            )


def json_table(path: Path) -> Table:
    """Open a file of JSON lines, or of one JSON array of objects."""
    name = f"'{path}'"
    connection = connect()
    with _explained(name):
        described = connection.sql(
            f"DESCRIBE FROM {_reader('read_json', path, _sample(path) | _ISO)}"
        ).fetchall()
    columns = {row[0]: row[1] for row in described}
    if list(columns) == ["json"]:
        raise InputError(f"{name} does not hold one JSON object per line, so it has no columns.")
    columns |= _not_iso(connection, path, columns, lambda changed: _typed_json(path, changed))

    def typed(text: Sequence[str]) -> Table:
        types = columns | dict.fromkeys(text, "VARCHAR")
        wide = types if _sample(path) else _widened(types)
        return QueryTable(connection, name, _typed_json(path, wide), _typed_json(path, types), typed)

    return typed([])


def _typed_json(path: Path, columns: dict[str, str]) -> str:
    types = ", ".join(f"{quoted(c)}: {_text(t)}" for c, t in columns.items())
    return _reader("read_json", path, {"columns": f"{{{types}}}"})


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
    query = query.strip().rstrip(";")
    with _explained(name):
        described = connection.sql(f"DESCRIBE {query}").fetchall()
    refuse_repeats(f"The result of {name}", [row[0] for row in described])

    def write(path: Path) -> None:
        with _explained(name):
            connection.execute(f"COPY ({query}) TO {_text(str(path))} (FORMAT parquet, COMPRESSION lz4_raw)")

    return spooled(write, lambda path: ParquetTable(path, name))


def queried(table: Table, sql: str) -> Table:
    """Run a query on a table, which it calls ``data``."""
    connection = connect()
    if isinstance(table, ArrowTable):
        connection.register("data", table.table)
    else:
        # Without OFFSET the reader of a CSV file does the query's TRY_CAST, and fails where that gives NULL.
        connection.execute(f"CREATE VIEW data AS FROM {_source(table)} OFFSET 0")
    return query_table(connection, sql)


def _source(table: Table) -> str:
    """Return SQL that reads the files of a table."""
    if isinstance(table, Parts):
        return f"({' UNION ALL BY NAME '.join(f'FROM {_source(part)}' for part in table.parts)})"
    if isinstance(table, ParquetTable):
        return _reader("read_parquet", table.path, {})
    if isinstance(table, QueryTable):
        return table.source
    raise InputError(f"A query cannot be run on {table.name}.")


def relation_table(relation: Any) -> Table:
    """Run a DuckDB relation once and keep its rows in a temporary Parquet file."""
    refuse_repeats("The DuckDB relation", relation.columns)

    def write(path: Path) -> None:
        with _explained("the DuckDB relation"):
            relation.write_parquet(str(path), compression="lz4_raw")

    return spooled(write, lambda path: ParquetTable(path, "the DuckDB relation"))


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn DuckDB's errors into ours, with the line and the column they name."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        if "interrupt" in f"{type(error).__name__} {error}".lower():  # Ctrl-C while DuckDB works
            raise KeyboardInterrupt from error
        if type(error) is RuntimeError:
            raise
        raise _reason(name, str(error)) from error


def _reason(name: str, text: str) -> InputError:
    line = re.search(r"CSV Error on Line: (\d+)", text)
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if line and fields:
        return InputError(
            f"Line {line[1]} of {name} has {fields[2]} fields where {fields[1]} were expected. Mend that "
            "line, or put text that contains the delimiter between double quotes."
        )
    if malformed := re.search(r'Malformed JSON in file "(.+)", at byte \d+ in (line \d+)', text):
        return _broken_json(Path(malformed[1]), malformed[2])
    told = " ".join(islice(_told(text), 3)).rstrip(".")
    if not name.startswith("'"):
        return InputError(f"{sentence(name)} failed: {told}. Correct it, or the data it reads.")
    place = f" (line {line[1]})" if line else ""
    return InputError(
        f"{name} cannot be read{place}: {told}. Correct the data, or say how to read them with a query, such "
        "as SELECT * FROM read_csv('FILE', …)."
    )


def _broken_json(path: Path, near: str) -> InputError:
    """Return the error for JSON lines that cannot be parsed, with the first line at fault."""
    with _lines(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not _is_json(line):
                near = f"line {number}"
                break
    return InputError(
        f"{sentence(near)} of '{path}' is not valid JSON. Mend that line; each holds one complete object."
    )


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _told(text: str) -> Iterable[str]:
    """Yield the lines of a DuckDB message that say what is wrong."""
    for line in text.splitlines():
        line = re.sub(r"^(\w+ ){1,3}Error: (CSV Error on Line: \d+)?", "", line).strip()
        if line.startswith(("Possible", "*", "LINE ", "Column ", "The search space")):
            return
        if line and not line.startswith("Original Line"):
            yield line
