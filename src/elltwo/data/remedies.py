"""What messages propose: queries that can be run as they stand, and the options that leave a column out."""

from __future__ import annotations

from collections.abc import Sequence


def quoted(name: str) -> str:
    """Return a name as an SQL identifier.

    >>> print(quoted('a "wide" net'))
    "a ""wide"" net"
    """
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text as an SQL literal.

    >>> print(text("it's"))
    'it''s'
    """
    return "'" + value.replace("'", "''") + "'"


def column_sql(name: str) -> str:
    """Return a column of `data` in SQL; after the table's name even a keyword needs no quotes.

    A message puts its query between double quotes, for the shell: a name needs them only if it is no word.

    >>> column_sql("order"), column_sql("unit price")
    ('data.order', 'data."unit price"')
    """
    return f"data.{name if name.isidentifier() and name.isascii() else quoted(name)}"


def replacing(column: str, expression: str) -> str:
    """Return the query that puts an expression in the place of a column, as a message gives it.

    >>> replacing("order", "TRY_CAST(data.order AS DOUBLE)")
    '"SELECT * REPLACE (TRY_CAST(data.order AS DOUBLE) AS data.order) FROM data"'
    """
    return f'"SELECT * REPLACE ({expression} AS {column_sql(column)}) FROM data"'


def leave_out(column: str) -> str:
    r"""Return how a column is left out, for the command line and for Python.

    >>> leave_out("id"), leave_out("row id")
    ("--drop id, drop=['id']", '--drop "row id", drop=[\'row id\']')
    """
    shell = column if column.isidentifier() else '"' + column + '"'
    return f"--drop {shell}, drop=[{column!r}]"


def any_of(values: Sequence[str]) -> str:
    """Return texts as an SQL list."""
    return f"({', '.join(map(text, values))})"
