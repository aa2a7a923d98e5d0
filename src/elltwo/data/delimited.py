"""CSV files: which line is the header and how fields are set apart is found here, types by DuckDB.

The first line that is not blank names the columns, whatever it says. Text stays text: a column is
boolean only if every value is true or false, and never because of a yes or a t.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from elltwo.data.columns import is_number
from elltwo.data.query import QueryTable
from elltwo.data.reading import Table, no_rows, refuse_repeats
from elltwo.data.remedies import quoted
from elltwo.data.remedies import text as literal
from elltwo.data.sql import (
    FIRST_ROWS,
    ISO,
    MISSING,
    connect,
    explained,
    is_whole,
    reader,
    sample,
    sql_names,
    stay_text,
    text_lines,
    widened,
)
from elltwo.errors import InputError

_DELIMITERS = ",;\t|"
# The lines of a file that its layout is found from.
_LOOKED_AT = 1000
# Options of read_csv and the columns of sniff_csv that they come from.
_FOUND = {
    "dateformat": "DateFormat",
    "timestampformat": "TimestampFormat",
}
# DuckDB's own, but for the time of day, which no model reads.
_TYPES = "['BOOLEAN', 'BIGINT', 'DOUBLE', 'DATE', 'TIMESTAMP', 'TIMESTAMPTZ', 'VARCHAR']"


@dataclass(frozen=True)
class _Layout:
    """How the fields of a CSV file are set apart, and its header.

    Attributes
    ----------
    delimiter, quote, new_line : str
    names : tuple of str
        The fields of the header.
    agrees : bool
        Whether all records looked at have as many fields as the header.
    numbers : float
        Share of the fields below the header that are numbers.
    mixed : bool
        Whether lines end in several ways.
    skip : int
        Blank lines above the header.
    """

    delimiter: str
    quote: str
    new_line: str
    names: tuple[str, ...]
    agrees: bool
    numbers: float
    mixed: bool
    skip: int = 0

    @property
    def rank(self) -> tuple[bool, int, float]:
        """What the right layout has most of."""
        return self.agrees and len(self.names) > 1, len(self.names), self.numbers


def csv_table(path: Path) -> Table:
    """Open a CSV file; its columns have the names in its first line.

    Raises
    ------
    InputError
        If the file has a header only, repeats a column name, or a row has too few or too
        many fields (the message names the line).
    """
    connection = connect()
    layout = _layout(path)
    refuse_repeats(f"'{path}'", layout.names)
    found = _sniff(connection, path, layout)
    columns = sql_names(layout.names)
    types = dict(zip(columns, found["types"], strict=True))

    def read(types: dict[str, str], missing: dict[str, str] = MISSING) -> str:
        return _reading(path, layout, found, types, missing)

    types |= stay_text(connection, path, read(dict.fromkeys(columns, "VARCHAR")), types)

    def typed(as_text: Sequence[str]) -> Table:
        own = dict(zip(layout.names, columns, strict=True))
        now = types | {own[name]: "VARCHAR" for name in as_text}
        table = QueryTable(
            connection,
            f"'{path}'",
            read(now if is_whole(path) else widened(now)),
            read(now),
            names=layout.names,
            typed=typed,
            written=read(dict.fromkeys(columns, "VARCHAR"), {"nullstr": "''"}),
        )
        table.written = True
        return table

    return typed([])


def _layout(path: Path) -> _Layout:
    """Find the layout in which most of the file's first records have as many fields as its header."""
    with explained(f"'{path}'"), text_lines(path) as file:
        blank, first = next(((i, line) for i, line in enumerate(file) if line.strip()), (0, None))
        if first is None:
            raise InputError(f"'{path}' holds blank lines only. Check that it was written completely.")
        lines = [first, *islice(file, _LOOKED_AT)]
    if not any(line.strip() for line in lines[1:]):
        raise no_rows(f"'{path}'")
    try:
        layouts = [
            max((_laid_out(lines, delimiter, quote) for delimiter in _DELIMITERS), key=lambda x: x.rank)
            for quote in ('"', "'")
        ]
    except csv.Error as error:
        raise InputError(
            f"'{path}' cannot be read as CSV ({error}). A double quote that is never closed takes in all the "
            "rest: close it, or write it twice."
        ) from error
    best = layouts[1] if layouts[1].rank[0] and not layouts[0].rank[0] else layouts[0]
    return replace(best, skip=blank)


def _laid_out(lines: Sequence[str], delimiter: str, quote: str) -> _Layout:
    records = csv.reader(lines, delimiter=delimiter, quotechar=quote)
    header = next(records)
    end = lines[records.line_num - 1]
    new_line = _line_end(end).replace("\r", "\\r").replace("\n", "\\n")
    rows = [row for row in records if row]
    if len(lines) > _LOOKED_AT:  # the last record may go on beyond them
        rows = rows[:-1]
    numbers = [is_number(cell.replace(",", ".")) for row in rows for cell in row]
    return _Layout(
        delimiter,
        quote,
        new_line,
        tuple(header),
        all(len(row) == len(header) for row in rows),
        sum(numbers) / max(len(numbers), 1),
        len({_line_end(line) for line in lines} - {""}) > 1,
    )


def _line_end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _sniff(connection: Any, path: Path, layout: _Layout) -> dict[str, Any]:
    """Return what DuckDB finds about the values of a CSV file: their types, and how they are written."""
    own = {
        "header": "true",
        "skip": str(layout.skip),
        "delim": literal(layout.delimiter),
        "quote": literal(layout.quote),
        "comment": "''",
        "auto_type_candidates": _TYPES,
    }

    def sniffed(written: dict[str, str], decimal: str = ".") -> dict[str, Any]:
        written = written | {"decimal_separator": literal(decimal)}
        with explained(f"'{path}'"):
            row = connection.sql(
                f"FROM {reader('sniff_csv', path, MISSING | sample(path) | ISO | own | written)}"
            )
            found = dict(zip(row.columns, row.fetchall()[0], strict=True))
        if "strict_mode" not in written:
            written.setdefault("new_line", literal(found["NewLineDelimiter"]))
        return found | {"types": [column["type"] for column in found["Columns"]], "written": written}

    doubled = {"escape": literal(layout.quote)}
    attempts = [doubled | {"new_line": literal(layout.new_line)}, doubled, {"escape": "'\\'"}]
    if layout.mixed:  # lines that end in several ways are no standard CSV
        attempts.append(doubled | {"strict_mode": "false"})
    while True:
        written = attempts.pop(0)
        try:
            found = sniffed(written)
            break
        except InputError:
            if not attempts:
                _refuse_ragged(path, layout)
                raise
    if len(found["types"]) != len(layout.names):
        _refuse_ragged(path, layout)
        raise InputError(
            f"The rows of '{path}' have not as many fields as its first line, {len(layout.names)}. Check "
            "which character sets the fields apart, and put text that contains it between double quotes."
        )
    if layout.delimiter != "," and "VARCHAR" in found["types"]:
        comma = sniffed(written, ",")
        if comma["types"].count("DOUBLE") > found["types"].count("DOUBLE") and (
            layout.delimiter == ";" or _decimal_commas(connection, path, layout, found, comma)
        ):
            return comma
    return found


def _decimal_commas(
    connection: Any, path: Path, layout: _Layout, found: dict[str, Any], comma: dict[str, Any]
) -> bool:
    """Return whether some comma can only be a decimal one: those of 1,200 may part thousands."""
    columns = sql_names(layout.names)
    source = _reading(path, layout, found, dict.fromkeys(columns, "VARCHAR"), MISSING)
    changed = [
        f"coalesce(bool_or({quoted(c)} LIKE '%,%' AND NOT regexp_matches({quoted(c)}, "
        "'^\\s*[+-]?[1-9]\\d{0,2}(,\\d{3})+\\s*$')), false)"
        for c, now, then in zip(columns, comma["types"], found["types"], strict=True)
        if now == "DOUBLE" != then
    ]
    with explained(f"'{path}'"):
        first = "" if is_whole(path) else f" LIMIT {FIRST_ROWS}"
        found_any = connection.sql(f"SELECT {' OR '.join(changed)} FROM (FROM {source}{first})").fetchall()
    return bool(found_any[0][0])


def _refuse_ragged(path: Path, layout: _Layout) -> None:
    with text_lines(path) as file:
        records = csv.reader(file, delimiter=layout.delimiter, quotechar=layout.quote)
        rows = (row for row in records if row)
        next(rows)
        for row in rows:
            if len(row) != len(layout.names):
                raise InputError(
                    f"Line {records.line_num} of '{path}' has {len(row)} fields and its first line has "
                    f"{len(layout.names)}. Every row needs one field per column name: mend that line, remove "
                    "lines above the header, or put text that contains the delimiter between double quotes."
                )


def _reading(
    path: Path, layout: _Layout, found: dict[str, Any], types: dict[str, str], missing: dict[str, str]
) -> str:
    """Return SQL that reads a CSV file with a known layout and known types."""
    booleans = [name for name, type_ in types.items() if type_ == "BOOLEAN"]
    stored = ", ".join(
        f"{literal(name)}: {literal('VARCHAR' if name in booleans else type_)}"
        for name, type_ in types.items()
    )
    options = {
        "auto_detect": "false",
        "header": "true",
        "skip": str(layout.skip),
        "delim": literal(layout.delimiter),
        "quote": literal(layout.quote),
        "comment": "''",
        "columns": f"{{{stored}}}",
    }
    for option, key in _FOUND.items():
        if found[key] is not None:
            options[option] = literal(found[key])
    call = reader("read_csv", path, options | found["written"] | missing)
    if not booleans:
        return call
    return f"(SELECT * REPLACE ({', '.join(map(_boolean, booleans))}) FROM {call})"


def _boolean(name: str) -> str:
    """Return SQL for a column of true and false; its cast would take a yes or a 1 that comes later, too."""
    c = quoted(name)
    odd = f"error({literal(f'its column {name!r} holds true and false at first, and then ')} || {c})"
    return (
        f"CASE WHEN lower({c}) = 'true' THEN true WHEN lower({c}) = 'false' THEN false "
        f"WHEN {c} IS NOT NULL THEN {odd} END AS {c}"
    )
