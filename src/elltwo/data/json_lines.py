"""JSON lines, or one array of objects, through DuckDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elltwo.data.query import QueryTable
from elltwo.data.reading import Table
from elltwo.data.remedies import quoted
from elltwo.data.remedies import text as literal
from elltwo.data.sql import (
    ISO,
    connect,
    explained,
    is_whole,
    reader,
    sample,
    sql_names,
    stay_text,
    widened,
)
from elltwo.errors import InputError, name_some

# What DuckDB makes of some strings, and no model reads.
_STRINGS = ("TIME", "UUID")


def json_table(path: Path) -> Table:
    """Open a file of JSON lines, or of one JSON array of objects.

    Raises
    ------
    InputError
        If it is something else, or keys cannot be columns.
    """
    name = f"'{path}'"
    connection = connect()
    _refuse_keys(connection, path)
    with explained(name):
        described = connection.sql(
            f"DESCRIBE FROM {reader('read_json', path, sample(path) | ISO)}"
        ).fetchall()
    columns = {row[0]: "VARCHAR" if row[1] in _STRINGS else row[1] for row in described}
    if list(columns) == ["json"]:
        raise InputError(f"{name} does not hold one JSON object per line, so it has no columns.")
    columns |= stay_text(connection, path, _typed(path, dict.fromkeys(columns, "VARCHAR")), columns)

    def typed(as_text: Sequence[str]) -> Table:
        types = columns | dict.fromkeys(as_text, "VARCHAR")
        wide = types if is_whole(path) else widened(types)
        return QueryTable(
            connection,
            name,
            _typed(path, wide),
            _typed(path, types),
            typed=typed,
            written=_typed(path, dict.fromkeys(columns, "VARCHAR")),
        )

    return typed([])


def _typed(path: Path, columns: dict[str, str]) -> str:
    types = ", ".join(f"{quoted(c)}: {literal(t)}" for c, t in columns.items())
    return reader("read_json", path, {"columns": f"{{{types}}}"})


def _refuse_keys(connection: Any, path: Path) -> None:
    """Refuse keys that SQL cannot tell apart: DuckDB would rename them, and then find no values."""
    objects = reader("read_json_objects", path, {})
    with explained(f"'{path}'"):
        found = connection.sql(f"SELECT DISTINCT unnest(json_keys(json)) FROM (FROM {objects} LIMIT 1000)")
        keys = [row[0] for row in found.fetchall()]
    if odd := [key for key, known in zip(keys, sql_names(keys), strict=True) if key != known]:
        raise InputError(
            f"The keys of '{path}' cannot all be columns: {name_some(odd)} is empty, or differs from another "
            "one only in capital letters. Rename it."
        )
