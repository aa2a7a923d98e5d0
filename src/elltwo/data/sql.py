"""DuckDB as it is used here: opened safely, files named literally, and its errors in our words.

A query is one SELECT. It reads files of this machine and nothing else: DuckDB loads and fetches no
extension, opens a stored database read-only, and what it may do cannot be changed by a query.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa

from elltwo.data.columns import MISSING_WORDS
from elltwo.data.reading import sentence
from elltwo.data.remedies import quoted
from elltwo.data.remedies import text as literal
from elltwo.errors import InputError

# Types are found from every row of a file up to this size, else from its first rows.
WHOLE_BYTES = 32 << 20
FIRST_ROWS = 20_480
# Other ways to write a date are never guessed: another file could be guessed to be written another way.
ISO = {"dateformat": "'%Y-%m-%d'"}
_SETTINGS: dict[str, Any] = {
    "python_enable_replacements": False,  # a query sees data and files, never our variables
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
}


def connect(database: str = ":memory:") -> Any:
    """Open DuckDB, a stored database read-only, such that a query cannot change how it works."""
    with explained(f"'{database}'"):
        connection = duckdb.connect(database, read_only=database != ":memory:", config=_SETTINGS)
        if connection.execute("SELECT NOT current_setting('lock_configuration')").fetchall()[0][0]:
            connection.execute("SET enable_progress_bar = false")  # it would go to stdout
            connection.execute(f"SET temp_directory = {literal(tempfile.gettempdir())}")
            connection.execute("SET lock_configuration = true")  # also of what opens the same file again
        return connection


def sql_names(names: Sequence[str]) -> list[str]:
    """Return names that SQL can tell apart: it has none that is empty, and sees no capital letters.

    >>> sql_names(["x", "X", ""])
    ['x', 'X_1', 'column2']
    """
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    found = []
    for j, name in enumerate(names):
        if not name or name.casefold() in seen:
            name = f"{name}_{j}" if name else f"column{j}"
            while name.casefold() in taken:
                name += "_"
            taken.add(name.casefold())
        seen.add(name.casefold())
        found.append(name)
    return found


MISSING = {"nullstr": f"[{', '.join(map(literal, MISSING_WORDS))}]"}

_TOKEN = re.compile(
    r"""(?P<skipped>\s+|;|--[^\n]*|/\*.*?\*/)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\$(\w*)\$.*?\$\2\$|.""",
    re.DOTALL,
)


def bare(query: str) -> str:
    """Return a query without the semicolons and comments at its end.

    >>> bare("SELECT '-- no comment; none' AS x; -- one")
    "SELECT '-- no comment; none' AS x"
    """
    ends = [token.end() for token in _TOKEN.finditer(query) if token["skipped"] is None]
    return query[: max(ends, default=0)]


def only_select(connection: Any, query: str, name: str) -> str:
    """Return the one SELECT statement that a query is, bare.

    Raises
    ------
    InputError
        If it is another statement, several, or none.
    """
    query = bare(query)
    with explained(name):
        statements = connection.extract_statements(query)
    if [statement.type.name for statement in statements] != ["SELECT"]:
        raise not_one_select(name)
    return query


def not_one_select(name: str) -> InputError:
    """Return the error for a query that does something else than read, or that is several."""
    return InputError(
        f"{sentence(name)} must be one SELECT statement, because it is data to read. Leave only the SELECT "
        "(WITH may begin it), and run what else it does in the database first."
    )


def reader(function: str, path: Path, options: Mapping[str, str]) -> str:
    """Return the call of a DuckDB table function on one file, taking its name literally."""
    listed = "".join(f", {key} = {value}" for key, value in options.items())
    return f"{function}({literal(escape(str(path)))}{listed})"


def is_whole(path: Path) -> bool:
    """Return whether the types of a text file are found from all of its rows."""
    return path.stat().st_size <= WHOLE_BYTES


def sample(path: Path) -> dict[str, str]:
    """Return the option that makes DuckDB look at all rows of a file that is not large."""
    return {"sample_size": "-1"} if is_whole(path) else {}


def widened(types: Mapping[str, str]) -> dict[str, str]:
    """Read integers as DOUBLE: DuckDB would round a 0.5 that comes after the rows it looked at."""
    return {name: "DOUBLE" if type_ == "BIGINT" else type_ for name, type_ in types.items()}


def text_lines(path: Path) -> TextIO:
    """Open a text file that may be compressed."""
    return TextIOWrapper(pa.input_stream(str(path)), encoding="utf-8-sig", errors="replace", newline="")


def stay_text(connection: Any, path: Path, source: str, types: Mapping[str, str]) -> dict[str, str]:
    """Return, as text, the columns that DuckDB takes for more than is certain.

    That are dates whose year has not four digits, and booleans written in other words than true and false.
    `source` reads these columns as text.
    """
    certain = {}
    for name, type_ in types.items():
        if type_ == "DATE" or type_.startswith("TIMESTAMP"):
            certain[name] = f"regexp_matches({quoted(name)}, '^\\s*\\d{{4}}[-/]')"
        elif type_ == "BOOLEAN":
            certain[name] = f"lower({quoted(name)}) IN ('true', 'false')"
    odd = ", ".join(f"count_if(NOT {condition})" for condition in certain.values())
    first = "" if is_whole(path) else f" LIMIT {FIRST_ROWS}"
    with explained(f"'{path}'"):
        counts = connection.sql(f"SELECT {odd} FROM (FROM {source}{first})").fetchall()[0] if odd else ()
    return {name: "VARCHAR" for name, n in zip(certain, counts, strict=True) if n}


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn DuckDB's errors into ours, with the line and the column they name."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        if "interrupt" in f"{type(error).__name__} {error}".lower():  # Ctrl-C while DuckDB works
            raise KeyboardInterrupt from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise MemoryError(str(error).partition("\n")[0]) from error
        if type(error) is RuntimeError or isinstance(error, MemoryError):
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
    if remote := re.search(r"(\w+://\S+) requires the extension", text):
        return InputError(
            f"{sentence(name)} reads '{remote[1]}', and only files of this machine are read. Download it, "
            "and name the file."
        )
    if "must be at the top level" in text:
        return InputError(
            f"{sentence(name)} changes or writes data inside a WITH clause; only reading is possible. Leave "
            "only SELECT statements in it."
        )
    if extension := re.search(r"exists in the (\w+) extension", text):
        return InputError(
            f"{sentence(name)} needs DuckDB's extension '{extension[1]}', and none is loaded here. Run it in "
            "DuckDB, and save its result as a Parquet file."
        )
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
    with text_lines(path) as file:
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
