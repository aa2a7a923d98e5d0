"""Numbers and dates that are written as text: the forms they may have, and which of them a column has.

A form says what each sign of a text means: which character is the decimal one, which number is the month.
A text fits a form if it can be read by it. A column is read if every text of it fits a form, and all forms
that are left read every text as the same value; the model keeps those forms, and reads new texts by them.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Self

from elltwo.data.columns import MISSING_WORDS, is_number
from elltwo.data.exact import WHOLE

Value = float | datetime.datetime

# ------------------------------------------------------------------------------------ numbers

_SAME = str.maketrans({"−": "-", "–": "-", "－": "-", "’": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " "})
_CURRENCIES = (
    "AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW MXN MYR "
    "NGN NOK NZD PEN PHP PKR PLN RMB RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR "
    "euros euro dollars dollar pounds pound yen yuan kr zł kč ft lei fr sfr rs"
).replace(" ", "|")
_UNIT = rf"(?:%|‰|[A-Z]{{0,3}}[$€£¥¢฿\u20a0-\u20cf]|(?:{_CURRENCIES})\b\.?)"
_PARTS = re.compile(
    rf"(\()?\s*([-+])?\s*({_UNIT})?\s*([-+])?\s*"
    r"([\d.,](?:[\d.,']| (?=\d))*(?:e[-+]?\d+)?)"
    rf"\s*({_UNIT})?\s*(-)?\s*(\))?",
    re.IGNORECASE,
)
# A form is the decimal character and the one between thousands; PLAIN has neither doubt nor thousands.
PLAIN = "plain"
_GROUPED = (".,", ".'", ". ", ",.", ",'", ", ")


def _body(form: str) -> re.Pattern[str]:
    if form == PLAIN:
        return re.compile(r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE | re.ASCII)
    decimal, group = map(re.escape, form)
    indian = r"|[1-9]\d?(?:,\d\d)+,\d{3}" if form[1] == "," else ""
    whole = rf"(?:\d+|[1-9]\d{{0,2}}(?:{group}\d{{3}})+{indian})"
    return re.compile(rf"(?:{whole}(?:{decimal}\d+)?|{decimal}\d+)(?:e[-+]?\d+)?", re.IGNORECASE | re.ASCII)


_BODIES = {form: _body(form) for form in (PLAIN, *_GROUPED)}


def numbers_in(text: str) -> tuple[dict[str, float], str]:
    """Return what a text is as a number, by each form that it fits, and the unit beside it.

    >>> numbers_in("(1,200.50)"), numbers_in("1,200 EUR")
    (({'.,': -1200.5}, ''), ({'.,': 1200.0, ',.': 1.2, ",'": 1.2, ', ': 1.2}, 'eur'))
    """
    parts = _PARTS.fullmatch(text.translate(_SAME).strip())
    if parts is None:
        return {}, ""
    opened, lead, before, second, body, after, trail, closed = parts.groups()
    signs = [sign for sign in (lead, second, trail, opened) if sign]
    if bool(opened) != bool(closed) or len(signs) > 1 or (before and after):
        return {}, ""
    if trail and not body[-1].isdigit():  # "12,-" is a price without cents
        return {}, ""
    factor = -1.0 if signs and signs[0] != "+" else 1.0
    unit = (before or after or "").rstrip(".").casefold()
    found = {}
    for form, pattern in _BODIES.items():
        if pattern.fullmatch(body) and not (form == PLAIN and unit):
            digits = body if form == PLAIN else body.replace(form[1], "").replace(form[0], ".")
            if not (digits.isdecimal() and int(digits) > WHOLE):  # float64 would lose digits: not certain
                found[form] = factor * float(digits)
    return found, unit


# ------------------------------------------------------------------------------------ dates

_MONTH_NAMES = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTHS = {name[:length]: j for j, name in enumerate(_MONTH_NAMES, 1) for length in (3, len(name))} | {
    "sept": 9
}
_MONTH = rf"({'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?,? )?"
_TH = r"(?:st|nd|rd|th)?"
_TIME = re.compile(
    r"(?:T|,? +)(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?: ?([ap])\.?m\.?)?"
    r" ?(z|utc|gmt|[-+]\d\d(?::?\d\d)?)?",
    re.IGNORECASE | re.ASCII,
)
# The date's form by the order of its parts: a pattern, and the orders that its groups may have. A year of two
# digits is known as a date, and never read: nobody knows its century, nor always that it is the year.
_DATES = tuple(
    (re.compile(rf"{_WEEKDAY}{pattern}", re.IGNORECASE | re.ASCII), orders)
    for pattern, orders in (
        (r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", ("Y?m?d",)),
        (r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})", ("d?m?Y", "m?d?Y")),
        (r"(\d{1,2})([-/.])(\d{1,2})\2(\d{2})", ("d?m?y", "m?d?y", "y?m?d")),
        (rf"(\d{{1,2}}){_TH}()[-/. ]{{0,2}}{_MONTH}[-/., ]{{0,2}}(\d{{4}})", ("d b Y",)),
        (rf"(\d{{1,2}}){_TH}()[-/. ]{_MONTH}[-/ ](\d{{2}})", ("d b y",)),
        (rf"{_MONTH}()[-/ ]{{0,2}}(\d{{1,2}}){_TH}(?:, ?|[-/ ])(\d{{4}})", ("b d Y",)),
        (rf"(\d{{4}})()[-/. ]?{_MONTH}[-/. ]?(\d{{1,2}})", ("Y b d",)),
        (r"(\d{4})()-(\d\d)", ("Y-m",)),
        (rf"{_MONTH}()[-/. ]{{0,2}}(\d{{4}})", ("b Y",)),
        (r"(\d{4})()[- ]?q([1-4])", ("Y q",)),
        (r"q([1-4])()[- /]?(\d{4})", ("q Y",)),
        (r"(\d{4})()-?w(\d\d)(?:-?([1-7]))?", ("Y w d",)),
    )
)


def dates_in(text: str) -> dict[str, datetime.datetime]:
    """Return what a text is as a time, by each form that it fits; a form ends in "z" if a zone is given.

    >>> dates_in("03/04/2024")
    {'d/m/Y': datetime.datetime(2024, 4, 3, 0, 0), 'm/d/Y': datetime.datetime(2024, 3, 4, 0, 0)}
    """
    text = text.translate(_SAME).strip()
    if len(text) < 6 or not any(map(str.isdigit, text)):
        return {}
    for pattern, orders in _DATES:
        match = pattern.match(text)
        rest = "" if match is None else text[match.end() :]
        clock = _clock(rest) if rest else (0.0, None)
        if match is None or clock is None:
            continue
        seconds, shift = clock
        first, separator, *others = match.groups()
        found = {}
        for order in orders:
            if (day := _day(order, [first, *others])) is not None:
                form = order.replace("?", separator) + ("" if shift is None else "z")
                found[form] = day + datetime.timedelta(seconds=seconds, minutes=-(shift or 0))
        return found
    return {}


def _day(order: str, groups: list[str | None]) -> datetime.datetime | None:
    parts = dict(zip(re.sub(r"[^a-zA-Z]", "", order), groups, strict=True))
    year = int(parts.get("Y") or f"20{parts.get('y')}")
    try:
        if "w" in parts:
            return datetime.datetime.fromisocalendar(year, int(parts["w"] or 0), int(parts["d"] or 1))
        if "q" in parts:
            return datetime.datetime(year, 3 * int(parts["q"] or 0) - 2, 1)
        month = _MONTHS[(parts["b"] or "").casefold()] if "b" in parts else int(parts["m"] or 0)
        return datetime.datetime(year, month, int(parts.get("d") or 1))
    except ValueError:
        return None


def _clock(text: str) -> tuple[float, int | None] | None:
    """Return seconds since midnight and the zone's minutes east (None without a zone); None if no time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minute, second, fraction, half, zone = match.groups()
    h, m, s = int(hour), int(minute), int(second or 0)
    if h > (12 if half else 23) or m > 59 or s > 59 or (half and not h):
        return None
    if half:
        h = h % 12 + 12 * (half.casefold() == "p")
    shift = None
    if zone:
        digits = re.sub(r"\D", "", zone).ljust(4, "0")
        shift = (60 * int(digits[:2]) + int(digits[2:])) * (-1 if zone[0] == "-" else 1)
    return 3600 * h + 60 * m + s + float(f"0.{fraction or 0}"), shift


def strptime_format(form: str, text: str) -> str:
    """Return the format by which DuckDB's strptime reads this text, of this form; empty if there is none.

    >>> strptime_format("d/m/Y", "03/04/2024 10:30 pm"), strptime_format("d b Y", "3. March 2024")
    ('%d/%m/%Y %I:%M %p', '%d. %B %Y')
    """
    parts = {"Y": r"\d{4}", "y": r"\d\d", "m": r"\d{1,2}", "d": r"\d{1,2}", "b": _MONTH}
    letters = [letter for letter in form if letter in parts]
    if len(letters) < 3:
        return ""
    pattern = re.compile("(.*?)" + "(.*?)".join(f"({parts[letter]})" for letter in letters) + "(.*)", re.I)
    match = pattern.fullmatch(text.strip())
    if match is None:
        return ""
    # groups: before, part, between, part, …, rest; a month's pattern has a group of its own
    pieces, at = "", 1
    for letter in letters:
        before, part = match[at], match[at + 1]
        at += 3 if letter == "b" else 2
        long = letter == "b" and len(part.rstrip(".")) > 3
        pieces += (
            before + ("%B" if long else f"%{letter}") + ("." if letter == "b" and part[-1] == "." else "")
        )
    return pieces + _clock_format(match[at])


def _clock_format(rest: str) -> str:
    match = _TIME.fullmatch(rest)
    if match is None:
        return rest
    _, _, second, fraction, half, zone = match.groups()
    lead = rest[: match.start(1)]
    told = f"{lead}{'%I' if half else '%H'}:%M" + (":%S" if second else "") + (".%f" if fraction else "")
    told += (" %p" if " " in rest[match.end(2) :] else "%p") if half else ""
    return told + ("%z" if zone and zone[0] in "+-" else zone or "")


# ------------------------------------------------------------------------------------ what a column is


@dataclass(frozen=True)
class Reading:
    """How the texts of a column are read as numbers or dates.

    Attributes
    ----------
    kind : {"number", "date"}
    forms : tuple of str
        Forms that all texts of the training data fit.
    unit : str
        What stands beside every number: "%", "eur"; numbers are in this unit.
    example : str
        One of the texts.

    Examples
    --------
    >>> reading = Reading("number", (".,",), "%", "12.5%")
    >>> reading.value("1,200.5%"), reading.value("7"), reading.value("NA")
    (1200.5, None, nan)
    """

    kind: Literal["number", "date"]
    forms: tuple[str, ...]
    unit: str = ""
    example: str = ""

    @property
    def zoned(self) -> bool:
        """Whether every text has a time zone."""
        return self.kind == "date" and all(form.endswith("z") for form in self.forms)

    def value(self, text: str) -> Any:
        """Return the number, or the time in UTC; NaN where missing, and None where the text does not fit."""
        if text.strip() in MISSING_WORDS:
            return float("nan")
        return _value(self, text)

    def to_dict(self) -> dict[str, Any]:
        """Return the reading as plain JSON values."""
        return {"kind": self.kind, "forms": list(self.forms), "unit": self.unit, "example": self.example}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Return the reading that `to_dict` described; KeyError, TypeError or ValueError if it is none."""
        forms = tuple(map(str, state["forms"]))
        if state["kind"] not in ("number", "date") or not forms:
            raise ValueError("unknown reading of text")
        return cls(state["kind"], forms, str(state["unit"]), str(state["example"]))


#: How text is read where the model knows numbers and dates.
AS_NUMBERS = Reading("number", (PLAIN,))
AS_DATES = Reading("date", ("Y-m-d",))
AS_ZONED_DATES = Reading("date", ("Y-m-dz",))


@lru_cache(maxsize=65_536)
def _value(reading: Reading, text: str) -> Value | None:
    found: Mapping[str, Value]
    if reading.kind == "number":
        found, unit = numbers_in(text)
        if unit != reading.unit:
            return None
    else:
        found = dates_in(text)
    values = {found[form] for form in reading.forms if form in found}
    return values.pop() if len(values) == 1 else None


_KEPT = 10
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+", re.ASCII)


@dataclass
class Tally:
    """The forms that the texts of one column fit, gathered text by text.

    Attributes
    ----------
    kind : {"number", "date"}
    fitting : int
        Texts that fit some form.
    odd : list of str
        The first texts that fit none, or none of the forms that all others fit.
    forms : dict of str
        Forms that all texts but the odd ones fit, with the first text of each.
    marked, decorated : bool
        Whether some number has more than a decimal point, and more than a decimal point or comma.
    fractions, padded, negative : bool
        Whether some number is not whole or has a sign; has leading zeros; is below 0.
    """

    kind: Literal["number", "date"]
    fitting: int = 0
    odd: list[str] = field(default_factory=list)
    odd_count: int = 0
    forms: dict[str, str] = field(default_factory=dict)
    unit: str = ""
    example: str = ""
    doubtful: dict[str, str] = field(default_factory=dict)
    marked: bool = False
    decorated: bool = False
    fractions: bool = False
    padded: bool = False
    negative: bool = False

    def add(self, text: str) -> None:
        """Take note of a text that is not missing."""
        found: Mapping[str, Value]
        unit = ""
        if self.kind == "number":
            found, unit = numbers_in(text)
        else:
            found = dates_in(text)
        fits = found and (not self.forms or (unit == self.unit and not self.forms.keys().isdisjoint(found)))
        self.fitting += bool(found)
        if not fits:
            self.odd_count += 1
            if len(self.odd) < _KEPT:
                self.odd.append(text)
            return
        if not self.forms:
            self.unit, self.example = unit, text
            self.forms = dict.fromkeys(found, text)
        self.forms = {form: first for form, first in self.forms.items() if form in found}
        if len({found[form] for form in self.forms}) > 1:
            self.doubtful.setdefault(re.sub(r"\d", "", text), text)
        if self.kind == "number":
            self._look(text)

    def _look(self, text: str) -> None:
        bare = text.strip()
        if not is_number(bare):
            decorated = _DECIMAL_COMMA.fullmatch(bare) is None
            if not self.marked or (decorated and not self.decorated):
                self.example = text
            self.marked, self.decorated = True, self.decorated or decorated
        self.fractions |= not bare.isdecimal()
        self.padded |= len(bare) > 1 and bare[0] == "0" and bare.isdecimal()
        self.negative |= any(value < 0 for value in numbers_in(text)[0].values())

    @property
    def complete(self) -> bool:
        """Whether every text fits the forms that are left."""
        return bool(self.forms) and not self.odd_count

    @property
    def certain(self) -> tuple[str, ...]:
        """The forms to read by; empty where texts are odd, or forms disagree on what they mean."""
        if not self.complete:
            return ()
        if PLAIN in self.forms:
            return (PLAIN,)
        if self.short_year or self.doubt is not None:
            return ()
        return tuple(self.forms)

    @property
    def short_year(self) -> bool:
        """Whether dates have a year of two digits."""
        return any("y" in form for form in self.forms)

    @property
    def doubt(self) -> str | None:
        """A text that the forms that are left read differently; None if there is none."""
        if PLAIN in self.forms:
            return None
        for text in self.doubtful.values():
            found: Mapping[str, Value] = numbers_in(text)[0] if self.kind == "number" else dates_in(text)
            if len({found[form] for form in self.forms}) > 1:
                return text
        return None

    def reading(self) -> Reading | None:
        """Return how the column is read; None where that is not certain."""
        forms = self.certain
        return Reading(self.kind, forms, self.unit, self.example) if forms else None


def tally(kind: Literal["number", "date"], texts: Iterable[str]) -> Tally:
    """Return the tally of some texts.

    >>> tally("number", ["1'200.50", "7"]).reading().forms, tally("number", ["1,200", "7"]).doubt
    ((".'",), '1,200')
    """
    found = Tally(kind)
    for text in texts:
        found.add(text)
    return found
