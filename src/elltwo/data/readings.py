"""Text columns that are numbers or dates: found before a fit, refused where not certain, read in passes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from elltwo.data import rownames
from elltwo.data.columns import MISSING_WORDS, text_codes
from elltwo.data.reading import MOST_LEVELS, Table, too_many_levels
from elltwo.data.remedies import any_of, column_sql, leave_out, replacing, text
from elltwo.data.written import PLAIN, Reading, Tally, strptime_format
from elltwo.errors import InputError, name_some

#: Text of at most so many different plain numbers is categories: grades, or the codes of a few towns.
FEW_LEVELS = 20
_ONE_IN = 10
# Forms that are dates wherever data come from; a text file that holds them holds dates.
_AS_IN_FILES = {"Y-m-d", "Y-m-dz", "Y/m/d", "Y/m/dz"}
# Months, quarters and weeks, which may as well be names.
_PERIODS = {"Y-m", "b Y", "Y q", "q Y", "Y w d"}
Role = Literal["free", "numbers", "time", "parse"]
# Texts after which one that hardly any fitted is looked for no further.
_LOOK_AT = 1000


class ReadTable(Table):
    """A table of which some text columns are read as numbers or dates.

    Attributes
    ----------
    readings : mapping of str to Reading
        How each of these columns is read.
    notes : tuple of str
        What was decided about text, for the user.

    Examples
    --------
    >>> from elltwo.data.opening import open_table
    >>> table = open_table({"share": ["12.5%", "7%"], "town": ["Ulm", "Bonn"]})
    >>> table = settle(table, ["share", "town"], parse=["share"])
    >>> table.kinds, next(table.batches(["share"])).column(0).to_pylist()
    ({'share': 'number', 'town': 'string'}, [12.5, 7.0])
    """

    def __init__(
        self,
        table: Table,
        readings: Mapping[str, Reading],
        levels: Mapping[str, dict[str, int]] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        schema = table.schema
        for name, reading in readings.items():
            schema = schema.set(schema.get_field_index(name), pa.field(name, _arrow_type(reading)))
        super().__init__(table.name, schema, table.n_rows, in_memory=table.in_memory)
        self.readings = {**table.readings, **readings}
        self.notes = (*table.notes, *notes)
        self._table = table
        self._own = dict(readings)
        self._levels = dict(levels or {})

    def levels(self, columns: Sequence[str], most: int = MOST_LEVELS) -> dict[str, dict[str, int]]:
        """Return the levels that were found when the readings were."""
        if all(name in self._levels for name in columns):
            return {name: self._levels[name] for name in columns}
        return super().levels(columns, most)

    def as_text(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns as text."""
        return ReadTable(self._table.as_text(columns), self._own, self._levels)

    def as_written(self) -> Table:
        """Return the table below, as it is written."""
        return self._table.as_written()

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the table's batches, with text turned into numbers and times."""
        own, rows = [name for name in columns if name in self._own], 0
        for batch in self._table.batches(columns):
            if not own:
                yield batch
                continue
            arrays = [
                self._read(name, array, rows) if name in self._own else array
                for name, array in zip(columns, batch.columns, strict=True)
            ]
            rows += batch.num_rows
            yield pa.record_batch(arrays, names=list(columns))

    def _read(self, name: str, array: Any, before: int) -> Any:
        reading = self._own[name]
        if pa.types.is_null(array.type):
            return pa.nulls(len(array), _arrow_type(reading))
        at, texts = text_codes(array)
        values = [np.nan if level is None else reading.value(level) for level in texts]
        for j, value in enumerate(values):
            if value is None and (at == j).any():
                row = before + int((at == j).argmax()) + 1
                raise _unlike(name, reading, texts[j], row)
        stamps = [value if value is not None and value == value else None for value in values]
        return pa.array([*stamps, None], _arrow_type(reading)).take(pa.array(at % (len(stamps) + 1)))


def _arrow_type(reading: Reading) -> Any:
    if reading.kind == "number":
        return pa.float64()
    return pa.timestamp("us", "UTC" if reading.zoned else None)


def _unlike(column: str, reading: Reading, value: str, row: int) -> InputError:
    like = f" from text such as {reading.example!r}" if reading.example else ""
    return InputError(
        f"Column '{column}' held {reading.kind}s{like} when the model was fitted, and row {row:,} now holds "
        f"{value!r}, which cannot be read in the same way with certainty. Correct it, leave it "
        "empty, or convert the column with a query (--sql, sql=)."
    )


# ------------------------------------------------------------------------------------ finding them


_CLOCK = re.compile(r"\s*([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?\s*", re.ASCII)


@dataclass
class _Texts:
    """The different texts of a column, as far as they are needed."""

    levels: Counter[str] = field(default_factory=Counter)
    numbers: Tally = field(default_factory=lambda: Tally("number"))
    dates: Tally = field(default_factory=lambda: Tally("date"))
    different: int = 0
    many: bool = False

    def add(self, texts: Sequence[str], rows: Sequence[int]) -> None:
        for value, n in zip(texts, rows, strict=True):
            if value not in self.levels and value.strip() not in MISSING_WORDS:
                self.different += 1
                for found in (self.numbers, self.dates):
                    if self.different < _LOOK_AT or found.fitting * 2 > self.different:
                        found.add(value)
            if not self.many:
                self.levels[value] += n
        self.many = self.many or len(self.levels) > MOST_LEVELS

    @property
    def plain_text(self) -> bool:
        """Whether this is text, whatever comes."""
        most = max(self.numbers.fitting, self.dates.fitting)
        return most * _ONE_IN < self.different * (_ONE_IN - 1) and 2 * self.dates.fitting <= self.different

    @property
    def rows(self) -> int:
        return sum(self.levels.values())


def settle(
    table: Table,
    features: Sequence[str],
    *,
    numbers: Sequence[str] = (),
    times: Sequence[str] = (),
    parse: Sequence[str] = (),
) -> Table:
    """Decide for every text column among these whether it is numbers, dates or categories; one pass.

    Parameters
    ----------
    table : Table
        The training data.
    features : sequence of str
        Columns that may be categories. Columns that are declared as categories (pandas, Polars, Arrow) are.
    numbers : sequence of str
        Columns that have to be numbers; where their text is not, it stays text.
    times : sequence of str
        Columns whose order matters.
    parse : sequence of str
        Columns that the user says are numbers or dates. Where they, and those of `times`, are not with
        certainty, they are refused.

    Returns
    -------
    Table
        The same rows, with text turned into numbers and times, and notes of what was decided.

    Raises
    ------
    InputError
        If a column is very likely numbers or dates and nobody said so, or it is not certain which; or if it
        has too many levels.
    """
    given: tuple[tuple[Role, Sequence[str]], ...] = (
        ("free", features),
        ("numbers", numbers),
        ("time", times),
        ("parse", parse),
    )
    roles = {name: role for role, names in given for name in names}
    if unused := [name for name in parse if name not in (*features, *numbers, *times)]:
        raise InputError(
            f"{name_some(unused)} is to be read as numbers or dates (--parse, parse=), and plays no part in "
            "the model. Leave it out of one."
        )
    found = {
        name: _Texts()
        for name, role in roles.items()
        if table.kinds.get(name) == "string"
        and not (role == "free" and pa.types.is_dictionary(table.schema.field(name).type))
    }
    for batch in table.batches(list(found)) if found else ():
        for name, texts in found.items():
            codes, names = text_codes(batch.column(name))
            rows = np.bincount(codes[codes >= 0], minlength=len(names)).tolist()
            present = [(level, n) for level, n in zip(names, rows, strict=True) if n and level is not None]
            texts.add([level for level, _ in present], [n for _, n in present])
            if roles[name] == "free" and texts.many and texts.plain_text:
                raise too_many_levels(name)
    readings: dict[str, Reading] = {}
    levels: dict[str, dict[str, int]] = {}
    notes: list[str] = []
    for name, texts in found.items():
        reading = _decide(table, name, texts, roles[name], notes)
        if reading is not None:
            readings[name] = reading
            notes.append(f"Column '{name}': read as {reading.kind}s from text such as {reading.example!r}.")
        elif texts.many and name in features:
            raise too_many_levels(name)
        elif name in features:
            levels[name] = dict(sorted(texts.levels.items()))
    notes += rownames.notes(table, [name for name in features if name in table.kinds], levels)
    return ReadTable(table, readings, levels, notes) if found or notes else table


def _decide(table: Table, name: str, texts: _Texts, role: Role, notes: list[str]) -> Reading | None:
    """Return how the column is read; None for text that stays text."""
    n, number, date = texts.different, texts.numbers, texts.dates
    free = role == "free"
    if not n:
        return None
    if free and not texts.many and all(map(_CLOCK.fullmatch, texts.levels.keys() - MISSING_WORDS)):
        raise _refused_clock(table, name, next(iter(texts.levels.keys() - MISSING_WORDS)))
    if (reading := date.reading()) is not None and role != "numbers":
        if not free or _AS_IN_FILES.issuperset(reading.forms):
            return reading
        if n <= FEW_LEVELS and _PERIODS.issuperset(reading.forms):
            return None
        raise _refused_unsaid(table, name, date)
    if 2 * date.fitting > n and role != "numbers":
        raise _refused_dates(table, name, date)
    if number.complete:
        if free and not number.marked and (n <= FEW_LEVELS or number.padded):
            return None
        if free and not number.marked and not number.fractions:
            if texts.many or texts.rows < 2 * n:
                raise _refused_codes(table, name, texts)
            notes.append(
                f"Column '{name}' is text, and its {n:,} different values are whole numbers such as "
                f"{number.example!r}: they are used as categories; {_parse(name)} makes them numbers."
            )
            return None
        if (reading := number.reading()) is None:
            raise _refused_numbers(table, name, number)
        if free and number.decorated:
            raise _refused_unsaid(table, name, number)
        return reading
    if role in ("time", "parse"):
        raise _refused_text(name, role, number)
    if n > FEW_LEVELS and number.fitting and not number.padded and number.odd_count * _ONE_IN <= n:
        raise _refused_odd(table, name, n, number)
    return None


def _refused_clock(table: Table, column: str, example: str) -> InputError:
    hours = replacing(column, f"epoch(CAST(trim({column_sql(column)}) AS TIME)) / 3600")
    return InputError(
        f"Column '{column}' holds times of day as text, such as {example!r}, which no model reads: each "
        f"would become a feature. Turn them into hours, with {_where(table)} {hours}, or leave the "
        f"column out ({leave_out(column)})."
    )


def _parse(column: str) -> str:
    return leave_out(column).replace("drop", "parse")


def _refused_text(column: str, role: Role, numbers: Tally) -> InputError:
    why, remedy = (
        ("orders the rows in time, and the order of the alphabet is not that of time", "Name another column")
        if role == "time"
        else ("is to be read as numbers or dates (--parse, parse=)", "Leave it out of --parse")
    )
    return InputError(
        f"Column '{column}' {why}; its text, such as {numbers.odd[0]!r}, cannot be read as either with "
        f"certainty. {remedy}, correct the values, or turn them into numbers or times with a query (--sql, "
        "sql=)."
    )


def _refused_unsaid(table: Table, column: str, found: Tally) -> InputError:
    """Return the error for text that is certainly numbers or dates, and written as files do not hold them."""
    c, form = column_sql(column), next(iter(found.certain))
    if found.kind == "number":
        query = replacing(column, _number_sql(column, form, found.negative))
    else:
        written = strptime_format(form, found.example)
        query = replacing(column, f"strptime({c}, {text(written)})") if written else ""
    asked = f", or with {_where(table)} {query}" if query else ""
    return InputError(
        f"Column '{column}' is text, such as {found.example!r}, and all of it can be read as {found.kind}s: "
        f"as text, each of its values would become a feature. Have it read as {found.kind}s with "
        f"{_parse(column)}{asked}, or leave it out ({leave_out(column)})."
    )


def _where(table: Table) -> str:
    """Return how a query on the table is given; one table of a database has to be named for it."""
    return f"--sql (sql=) on {table.name}" if "::" in table.name else "--sql (sql=)"


def _refused_dates(table: Table, column: str, dates: Tally) -> InputError:
    c, how = column_sql(column), "TRY_STRPTIME" if dates.odd_count else "strptime"
    ways = {}
    for form, first in dates.forms.items():
        if written := strptime_format(form, first):
            ways[written] = replacing(column, f"{how}({c}, {text(written)})")
    if dates.odd_count:
        cause = f"and not all of its values are written alike: {name_some(dates.odd, most=3)}"
        remedy = "Correct them, or make what is not like the others a missing value"
    elif dates.short_year:
        cause, remedy = "and the year has two digits", "Say what is meant"
    else:
        cause, remedy = f"and of {dates.doubt!r} nobody knows which is the month", "Say which"
    listed = ", or ".join(
        f"{query} for {written}" if len(ways) > 1 else query for written, query in ways.items()
    )
    told = f", with {_where(table)} {listed}" if ways else ""
    return InputError(
        f"Column '{column}' holds dates as text, such as {dates.example!r}, {cause}. {remedy}{told}, or "
        f"leave the column out ({leave_out(column)})."
    )


def _refused_numbers(table: Table, column: str, numbers: Tally) -> InputError:
    groups: dict[str, str] = {}
    for form in numbers.forms:
        groups.setdefault(form[0], form)
    ways = []
    for decimal, form in groups.items():
        what = "decimal comma" if decimal == "," else "decimal point"
        ways.append(f"{replacing(column, _number_sql(column, form, numbers.negative))} for a {what}")
    return InputError(
        f"Column '{column}' holds numbers as text, such as {numbers.doubt!r}, and nothing shows whether the "
        f"comma or point in it is the decimal one or stands between thousands. Say which, with "
        f"{_where(table)} {', or '.join(ways)}, or leave the column out ({leave_out(column)})."
    )


def _number_sql(column: str, form: str, negative: bool) -> str:
    """Return SQL that reads the texts of a column by a form."""
    c, decimal = column_sql(column), form[0]
    digits = f"regexp_replace({c}, '[^0-9{decimal}]', '', 'g')"
    digits = f"replace({digits}, ',', '.')" if decimal == "," else digits
    sign = f"CASE WHEN regexp_matches({c}, '[-−–(]') THEN -1 ELSE 1 END * " if negative else ""
    return f"{sign}CAST(nullif({digits}, '') AS DOUBLE)"


def _refused_codes(table: Table, column: str, texts: _Texts) -> InputError:
    c, n, example = column_sql(column), texts.different, texts.numbers.example
    as_numbers = replacing(column, f"TRY_CAST({c} AS DOUBLE)")
    as_names = replacing(column, f"{text(column + ' ')} || {c}")
    as_names = f", with {as_names} names, each of which becomes a feature" * (not texts.many)
    many = f"more than {MOST_LEVELS:,}" if texts.many else f"{n:,}"
    return InputError(
        f"Column '{column}' is text, and all of its {many} different values are whole numbers, such as "
        f"{example!r}: they may be numbers, or names. With {_parse(column)}, or {_where(table)} {as_numbers} "
        f"they are numbers{as_names}; or leave the column out ({leave_out(column)})."
    )


def _refused_odd(table: Table, column: str, n: int, numbers: Tally) -> InputError:
    c = column_sql(column)
    if PLAIN in numbers.forms and not numbers.marked:
        expression = f"TRY_CAST({c} AS DOUBLE)"
    elif len(numbers.odd) == numbers.odd_count and numbers.doubt is None:
        value = _number_sql(column, next(iter(numbers.forms)), numbers.negative)
        expression = f"CASE WHEN {c} NOT IN {any_of(numbers.odd)} THEN {value} END"
    else:
        expression = ""
    query = f", with {_where(table)} {replacing(column, expression)}" if expression else ""
    comma = " with a decimal comma" if all(form[0] == "," for form in numbers.forms) else ""
    return InputError(
        f"Column '{column}' is text only because of {name_some(numbers.odd, most=3)}: nearly all of its "
        f"{n:,} different values are numbers{comma}, such as {numbers.example!r}. Correct the data, leave "
        f"the column out ({leave_out(column)}), or make what is no such number a missing value{query}."
    )
