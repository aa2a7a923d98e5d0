"""Encoder: table columns become numeric features with names, fitted once and applied block by block."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elltwo.data.checks import all_finite, good_weights, refused, refused_weights
from elltwo.data.columns import Kind, example, is_plain, kind_of, numbers, text_codes
from elltwo.data.exact import refuse_inexact
from elltwo.data.opening import open_table
from elltwo.data.reading import Table
from elltwo.data.readings import ReadTable
from elltwo.data.remedies import column_sql, leave_out, replacing
from elltwo.data.written import AS_DATES, AS_NUMBERS, AS_ZONED_DATES, Reading
from elltwo.errors import InputError, ModelFileError, UnseenLevelWarning, did_you_mean, name_some

Array = npt.NDArray[Any]
Missing = Literal["error", "mean", "drop"]
Unseen = Counter[tuple[str, str]]
# Writes rows start:stop of a batch into an array of shape (features, stop - start).
Writer = Callable[[int, int, Array], None]

MISSING: tuple[str, ...] = get_args(Missing)
_BLOCK_BYTES = 8 << 20
_UNSEEN, _ABSENT = -1, -2
_WHOLE = re.compile(r"[-+]?\d{1,15}(?:\.0*)?")


def choose_features(
    table: Table,
    *,
    target: str | Sequence[str],
    features: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    weights: str | None = None,
    key: str | None = None,
) -> tuple[str, ...]:
    """Return the columns to use as features: those named, else all that have no other role, less `drop`.

    What pandas stored as an index is none of them unless it is named.

    Raises
    ------
    InputError
        If a name is not a column (the nearest one is suggested), is named twice, is used in
        another role as well, or if no column is left.

    Examples
    --------
    >>> table = open_table({"area": [50.0], "town": ["Ulm"], "rent": [600.0]})
    >>> choose_features(table, target="rent", drop=["town"])
    ('area',)
    """
    if features is not None and not isinstance(features, str) and len(features) == 0:
        raise InputError("features is an empty list. Name the columns to use, or leave features out for all.")
    targets, features, drop = (
        _listed(names, role) for names, role in ((target, "target"), (features, "features"), (drop, "drop"))
    )
    if not targets:
        raise InputError("target is an empty list. Name the column to predict.")
    table.require(targets, "target")
    _refuse_repeated(targets, "target")
    table.require(features, "feature")
    table.require(drop, "column to drop")
    roles = dict.fromkeys(targets, "the target")
    for name, role in ((weights, "the weights"), (key, "the group or time column")):
        if name is not None:
            table.require([name], role.removeprefix("the "))
            roles[name] = role
    for name in features:
        if name in roles:
            raise InputError(
                f"Column '{name}' is {roles[name]}, so it cannot be a feature too. Leave it out."
            )
    _refuse_repeated(features, "features")
    if lost := [name for name in drop if name in targets]:
        raise InputError(
            f"Column '{lost[0]}' is the target, so it cannot be dropped. Leave it out of --drop (drop=)."
        )
    left_out = {*roles, *drop}
    usual = [name for name in table.columns if name not in table.index]
    chosen = tuple(name for name in features or usual if name not in left_out)
    if not chosen:
        raise InputError(
            f"No column of {table.name} is left to be a feature; it has {name_some(table.columns, most=12)}."
        )
    return chosen


def _listed(names: Any, role: str) -> list[str]:
    """Return a name or several names as a list."""
    if names is None or isinstance(names, str):
        return [] if names is None else [names]
    listed = list(names) if isinstance(names, Iterable) else [names]
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in listed):
        raise InputError(f"{role} must be the name of a column or a list of names; got {names!r}.")
    return listed


def _refuse_repeated(names: Sequence[str], role: str) -> None:
    if repeated := [name for name, n in Counter(names).items() if n > 1]:
        verb = "names" if role == "target" else "name"
        raise InputError(f"The {role} {verb} {name_some(repeated)} more than once. Name each column once.")


@dataclass(frozen=True)
class Column:
    """How one column of a table becomes features.

    Attributes
    ----------
    name : str
    kind : {"number", "boolean", "date", "string"}
    levels : tuple of str
        The values of a text column, sorted; each is a feature of zeros and ones.
    means : tuple of float
        Training mean of each feature, for imputation; empty under the other policies.
    zoned : bool, optional
        Whether the times of a column of dates had a time zone; None for other kinds.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    zoned: bool | None = None

    @property
    def usual(self) -> Reading | None:
        """How text is read in the place of the numbers or dates of training."""
        if self.kind == "date":
            return AS_ZONED_DATES if self.zoned else AS_DATES
        return AS_NUMBERS if self.kind == "number" else None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the column's features: its own, or ``colour=red`` for each level."""
        return (
            tuple(f"{self.name}={level}" for level in self.levels) if self.kind == "string" else (self.name,)
        )

    def writer(self, array: Any, unseen: Unseen) -> Writer:
        """Return what writes rows of this Arrow array as features, NaN where missing."""
        if self.kind == "string":
            return self._level_writer(array, unseen)
        if pa.types.is_dictionary(array.type) and kind_of(array.type.value_type) in self._readable:
            array = array.dictionary_decode()
        if self.zoned is not None and (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
            self._check_zone(getattr(array.type, "tz", None))
        if kind_of(array.type) not in self._readable and array.null_count < len(array):
            raise InputError(
                f"Column '{self.name}' held {self.kind} values when the model was fitted, and now holds "
                f"{array.type} values such as {example(array)!r}. Convert it in the data, or with a query "
                "(--sql, sql=)."
            )
        return number_writer(array, self.name)

    def _check_zone(self, tz: str | None) -> None:
        """Refuse times with a zone where training had none, and the other way round."""
        if (tz is not None) == self.zoned:
            return
        c = column_sql(self.name)
        trained, now, pandas = (
            ("with a time zone", "without one", ".dt.tz_localize('Europe/Berlin')")
            if self.zoned
            else ("without a time zone", "with one", f".dt.tz_convert({tz!r}).dt.tz_localize(None)")
        )
        query = replacing(self.name, f"{c} AT TIME ZONE '{tz or 'Europe/Berlin'}'")
        raise InputError(
            f"Column '{self.name}' held times {trained} when the model was fitted, and now holds some {now}: "
            "the same hour on the clock would be another number. Say which zone's clock is meant, in pandas "
            f"with {pandas}, or with --sql (sql=) {query}."
        )

    @property
    def _readable(self) -> tuple[Kind, ...]:
        return ("date",) if self.kind == "date" else ("number", "boolean")

    def _level_writer(self, array: Any, unseen: Unseen) -> Writer:
        codes = self._codes(array, unseen)

        def write(start: int, stop: int, out: Array) -> None:
            part = codes[start:stop]
            known = np.flatnonzero(part >= 0)
            out[:] = 0.0
            out[part[known], known] = 1.0
            out[:, part == _ABSENT] = np.nan

        return write

    def _codes(self, array: Any, unseen: Unseen) -> Array:
        if array.null_count == len(array):
            return np.full(len(array), _ABSENT)
        if kind_of(array.type) != "string":
            raise InputError(
                f"Column '{self.name}' held text when the model was fitted, and now holds {array.type} "
                f"values such as {example(array)!r}. Convert it in the data, or with a query (--sql, sql=)."
            )
        at, names = text_codes(array)
        position: dict[Any, int] = {level: j for j, level in enumerate(self.levels)} | {None: _ABSENT}
        alike = self._alike
        code = np.array(
            [position[name] if name in position else alike.get(_key(name), _UNSEEN) for name in names],
            dtype=np.int64,
        )
        if (code == _UNSEEN).any():
            rows = np.bincount(at[at >= 0], minlength=len(names))
            unseen.update(
                {(self.name, names[j]): int(rows[j]) for j in np.flatnonzero(code == _UNSEEN) if rows[j]}
            )
        return np.where(at < 0, _ABSENT, code[at])

    @cached_property
    def _alike(self) -> dict[Any, int]:
        """Positions of the levels by value, where all levels are whole numbers or booleans; else empty."""
        values = [_key(level) for level in self.levels]
        alike = {value: j for j, value in enumerate(values) if value is not None}
        kinds = {type(value) for value in values}
        return alike if len(alike) == len(values) and len(kinds) == 1 else {}


def _key(level: str) -> int | str | None:
    """Return what a level is whatever its type was: a whole number, or a boolean as text; None for others."""
    text = level.strip().casefold()
    if text in ("true", "false"):
        return text
    return int(float(text)) if _WHOLE.fullmatch(text) else None


def _refused_empty(table: Table, features: Sequence[str], empty: Sequence[str], missing: str) -> InputError:
    """Return the error for text columns without a value in any row."""
    if missing == "error":
        return refused(table, features, missing)
    return InputError(
        f"{name_some(empty)} has no value in any row, so it says nothing. Leave it out "
        f"({leave_out(empty[0])})."
    )


def _zoned(table: Table, name: str) -> bool | None:
    """Return whether the times of a column have a zone; None if it holds none."""
    type_ = table.schema.field(name).type
    return getattr(type_, "tz", None) is not None if kind_of(type_) == "date" else None


def number_writer(array: Any, name: str) -> Writer:
    """Return what writes rows of an Arrow array as numbers, without a copy in between where possible."""
    refuse_inexact(array, name)
    if is_plain(array):
        values = np.from_dlpack(array)  # to_numpy would import pandas

        def write(start: int, stop: int, out: Array) -> None:
            out[:] = values[start:stop]

    else:

        def write(start: int, stop: int, out: Array) -> None:
            out[:] = numbers(array.slice(start, stop - start), name)

    return write


@dataclass(frozen=True)
class Encoder:
    """How the columns of a table become p numeric features.

    Numbers stay as they are, booleans are 0 and 1, dates are days since 1970-01-01, and text
    becomes one feature of zeros and ones for **every** level (an L2 penalty needs no dropped
    level). Constant columns are kept.

    A null and a NaN are both missing. What is done about them:

    - ``"error"``: InputError, with the columns and how many values they lack.
    - ``"mean"``: the weighted training mean of each feature takes their place, in training and in
      prediction. For text, the features of its levels take their training frequencies.
    - ``"drop"``: the row is left out of training. A prediction keeps its place and is NaN.

    An infinite value is always an error. A level that training did not see is encoded as zeros and
    counted, see `blocks`.

    Attributes
    ----------
    columns : tuple of Column
    missing : {"error", "mean", "drop"}
    readings : mapping of str to Reading
        Columns that were text in training and were read as numbers or dates, and how.

    Examples
    --------
    >>> table = open_table({"town": ["Ulm", "Bonn", "Ulm"], "area": [50.0, 80.0, 65.0]})
    >>> encoder = Encoder.fit(table, ["town", "area"])
    >>> encoder.feature_names
    ('town=Bonn', 'town=Ulm', 'area')
    >>> encoder.transform({"area": [70.0], "town": ["Ulm"]})
    array([[ 0.,  1., 70.]])
    """

    columns: tuple[Column, ...]
    missing: Missing
    readings: Mapping[str, Reading] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, table: Table, features: Sequence[str], *, missing: str = "error", weights: str | None = None
    ) -> Self:
        """Learn levels, and under ``"mean"`` the means, from a table.

        The table is read once if there is text among the features, and once more for the means;
        for numbers under ``"error"`` and ``"drop"`` it is not read at all.

        Parameters
        ----------
        table : Table
            The training data.
        features : sequence of str
            Columns to use, in the order of the features.
        missing : {"error", "mean", "drop"}
            Policy for missing values.
        weights : str, optional
            Column of row weights, for the means.

        Raises
        ------
        InputError
            If `missing` is not a policy, or a column is nested, binary, or text with too many levels.
        """
        if missing not in MISSING:
            raise InputError(f"missing='{missing}' is not a policy; use one of {name_some(MISSING)}.")
        table.require(features, "feature")
        for name in features:
            if table.kinds[name] == "other":
                raise InputError(
                    f"Column '{name}' holds {table.schema.field(name).type} values, which cannot be a "
                    f"feature. Leave it out ({leave_out(name)}), or take numbers out of it with a query "
                    "(--sql, sql=)."
                )
        levels = table.levels([name for name in features if table.kinds[name] == "string"])
        if empty := [name for name, found in levels.items() if not found]:
            raise _refused_empty(table, features, empty, missing)
        columns = tuple(
            Column(name, table.kinds[name], tuple(levels.get(name, ())), zoned=_zoned(table, name))
            for name in features
        )
        encoder = cls(columns, missing, table.readings)  # type: ignore[arg-type]
        if repeated := [name for name, n in Counter(encoder.feature_names).items() if n > 1]:
            raise InputError(
                f"Two features would be called {name_some(repeated)}: a column has the name of another one's "
                "level. Rename the column."
            )
        return encoder._with_means(table, weights) if missing == "mean" else encoder

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the p features, in order."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the table's columns that are read."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def means(self) -> Array:
        """Training means of the features, shape (p,); empty unless the policy is "mean"."""
        return np.array([mean for column in self.columns for mean in column.means])

    def writer(self, batch: Any, unseen: Unseen) -> Writer:
        """Return what writes rows of a record batch as features, shape (p, m), NaN where missing."""
        at = 0
        writers: list[tuple[Any, Writer]] = []
        for column in self.columns:
            width = len(column.feature_names)
            place = slice(at, at + width) if column.kind == "string" else at
            writers.append((place, column.writer(batch.column(column.name), unseen)))
            at += width

        def write(start: int, stop: int, out: Array) -> None:
            for place, part in writers:
                part(start, stop, out[place])

        return write

    def transform(self, data: Any) -> Array:
        """Encode a table, shape (n, p); rows with missing values are NaN under the policy "drop".

        Parameters
        ----------
        data : str, path, DataFrame, DuckDB relation, or Table
            Anything that `open_table` reads.

        Raises
        ------
        InputError
            If a column is missing or has changed its type, or a value is infinite or (policy
            "error") missing.

        Warns
        -----
        UnseenLevelWarning
            If a text column holds values that training did not see.
        """
        parts = list(self.blocks(open_table(data)))
        warn_unseen(sum((unseen for _, unseen in parts), Counter()))
        return np.concatenate([X for X, _ in parts])

    def blocks(self, table: Table) -> Iterator[tuple[Array, Unseen]]:
        """Encode a table of any size, block after block, every row in its place.

        Yields
        ------
        X : array, shape (m, p), float64
        unseen : Counter
            Number of rows for each (column, level) that training did not see. A block that ends
            where a batch does brings the counts of that batch.
        """
        table = self.adapted(table)
        for batch in table.batches(self.column_names):
            unseen: Unseen = Counter()
            write = self.writer(batch, unseen)
            rows = block_rows(len(self.feature_names))
            for start in range(0, batch.num_rows, rows):
                stop = min(start + rows, batch.num_rows)
                X = np.empty((len(self.feature_names), stop - start))
                write(start, stop, X)
                if not all_finite(X):
                    self.settle(X, table, predicting=True)
                yield X.T, unseen if stop == batch.num_rows else Counter()

    def adapted(self, table: Table) -> Table:
        """Return the table with text and numbers where training had them.

        Levels such as 7 look like integers in a CSV file. Text is read as numbers and dates as it was in
        training, and plain numbers and ISO dates where training had numbers and dates.

        Raises
        ------
        InputError
            If the table lacks a column.
        """
        self._check(table)
        kinds = table.kinds
        shown = [column.name for column in self.columns if column.kind == "string"]
        if table.written:
            # A number in a text file is the text that it is: 1.200 with a point between thousands is 1200.
            shown += [name for name, reading in self.readings.items() if reading.kind == "number"]
        shown = [name for name in shown if kinds.get(name) in ("number", "boolean")]
        if shown:
            table = table.as_text(shown)
        usual = {column.name: column.usual for column in self.columns if column.usual is not None}
        readings = {
            name: reading
            for name, reading in {**usual, **self.readings}.items()
            if table.kinds.get(name) == "string"
        }
        return ReadTable(table, readings) if readings else table

    def settle(self, X: Array, table: Table, *, predicting: bool = False) -> None:
        """Apply the policy to features of shape (p, m) that are not all finite, in place.

        Under "drop" the NaN stay; the reader leaves their rows out.
        """
        missing = np.isnan(X)
        if np.isinf(X).any() or (missing.any() and self.missing == "error"):
            raise refused(table, self.column_names, self.missing, predicting=predicting)
        if self.missing == "mean":
            np.copyto(X, self.means[:, None], where=missing)

    def _check(self, table: Table) -> None:
        if lost := [name for name in self.column_names if name not in table.kinds]:
            raise InputError(
                f"{table.name} lacks {name_some(lost)}, which the model was fitted on."
                f"{did_you_mean(lost[0], table.columns)} Its columns are {name_some(table.columns, most=12)}."
            )

    def _with_means(self, table: Table, weights: str | None) -> Self:
        p = len(self.feature_names)
        total, present = np.zeros(p), np.zeros(p)
        for X, w in self._weighted(table, weights):
            observed = ~np.isnan(X)
            with np.errstate(invalid="ignore"):
                total += np.where(observed, X, 0.0) @ w
            present += observed @ w
        return self._keep_means(total, present)

    def _weighted(self, table: Table, weights: str | None) -> Iterator[tuple[Array, Array]]:
        """Yield features of shape (p, m), NaN where missing, and their row weights."""
        rows = block_rows(len(self.feature_names))
        columns = dict.fromkeys([*self.column_names, *([weights] if weights else [])])
        for batch in table.batches(list(columns)):
            write = self.writer(batch, Counter())
            for start in range(0, batch.num_rows, rows):
                stop = min(start + rows, batch.num_rows)
                X, w = np.empty((len(self.feature_names), stop - start)), np.ones(stop - start)
                write(start, stop, X)
                if weights is not None:
                    number_writer(batch.column(weights), weights)(start, stop, w)
                    if not good_weights(w, counts=False):
                        raise refused_weights(table, weights, counts=False)
                yield X, w

    def _keep_means(self, total: Array, present: Array) -> Self:
        if empty := [name for name, n in zip(self.feature_names, present, strict=True) if not n > 0]:
            raise InputError(
                f"{name_some(empty)} has no value in any row, so there is no mean to put in. "
                f"Leave it out ({leave_out(empty[0])})."
            )
        means = iter((total / present).tolist())
        columns = tuple(replace(c, means=tuple(next(means) for _ in c.feature_names)) for c in self.columns)
        return replace(self, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as plain JSON values; `from_dict` reads them back."""
        columns = [
            {
                "name": c.name,
                "kind": c.kind,
                "levels": list(c.levels),
                "means": list(c.means),
                "zoned": c.zoned,
            }
            for c in self.columns
        ]
        readings = {name: reading.to_dict() for name, reading in self.readings.items()}
        return {"missing": self.missing, "columns": columns, "readings": readings}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Return the encoder that `to_dict` described.

        Raises
        ------
        ModelFileError
            If the values do not describe an encoder.

        Examples
        --------
        >>> encoder = Encoder((Column("area", "number"),), "drop")
        >>> Encoder.from_dict(encoder.to_dict()) == encoder
        True
        """
        try:
            columns = tuple(
                Column(
                    str(c["name"]),
                    c["kind"],
                    tuple(map(str, c["levels"])),
                    tuple(map(float, c["means"])),
                    c.get("zoned"),
                )
                for c in state["columns"]
            )
            readings = {
                str(name): Reading.from_dict(reading) for name, reading in state.get("readings", {}).items()
            }
            if state["missing"] not in MISSING or any(c.kind not in get_args(Kind) for c in columns):
                raise ValueError("unknown policy or kind")
            return cls(columns, state["missing"], readings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(
                f"The model's description of its columns cannot be read ({error!r})."
            ) from error


def unseen_remarks(unseen: Unseen) -> list[str]:
    """Return a sentence for each column with values that training did not see."""
    by_column: dict[str, Counter[str]] = {}
    for (column, level), rows in unseen.items():
        by_column.setdefault(column, Counter())[level] += rows
    return [
        f"Column '{column}' holds values that training did not see, in {levels.total():,} of the rows: "
        f"{name_some([name for name, _ in levels.most_common()])}. They count as none of the known values."
        for column, levels in by_column.items()
    ]


def warn_unseen(unseen: Unseen) -> None:
    """Warn of values that training did not see; `Fit.predict` calls what calls this."""
    for remark in unseen_remarks(unseen):
        warnings.warn(remark, UnseenLevelWarning, stacklevel=5)


def block_rows(width: int) -> int:
    """Return how many rows of `width` float64 make a block: 8 MB, or up to 32 MB for very wide tables."""
    narrow = _BLOCK_BYTES // (8 * width)
    rows = max(narrow, min(1024, 4 * narrow), 1)
    # An odd number of cache lines per feature: powers of two would crowd the same cache sets.
    return rows // 16 * 16 + 8 if rows > 64 else rows
