"""Columns that are a known part of η: offsets, and exposures of which the logarithm is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from elltwo.data.aside import Aside
from elltwo.data.columns import numbers
from elltwo.data.encode import Encoder, Unseen, Writer, number_writer, warn_unseen
from elltwo.data.exact import refuse_inexact
from elltwo.data.opening import open_table
from elltwo.data.reading import Table
from elltwo.errors import InputError, ModelFileError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Offsets:
    """Which columns are added to η: `offset` as it is, `exposure` by its logarithm.

    Attributes
    ----------
    offset, exposure : str or None
        Column names.
    """

    offset: str | None = None
    exposure: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        named = (self.offset, self.exposure)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def require(self, table: Table, why: str = "") -> None:
        """Raise InputError unless the columns are there and hold numbers."""
        for name, role in ((self.offset, "offset"), (self.exposure, "exposure")):
            if name is None:
                continue
            if name not in table.kinds and why:
                raise InputError(f"The {role} column '{name}' is missing in {table.name}: {why}")
            table.require([name], f"{role} column")
            if table.kinds[name] not in ("number", "boolean"):
                raise InputError(
                    f"The {role} column '{name}' must hold numbers and holds {table.schema.field(name).type} "
                    f"values, such as {table.example(name)!r}. Name another column, or convert it with a "
                    "query (--sql, sql=)."
                )

    def writer(self, batch: Any, table: Table) -> Writer:
        """Return what writes the offset of rows of a batch, shape (m,), NaN where it is missing."""
        plain = None if self.offset is None else number_writer(batch.column(self.offset), self.offset)
        rate = None if self.exposure is None else number_writer(batch.column(self.exposure), self.exposure)

        def write(start: int, stop: int, out: Array) -> None:
            values = np.empty((2, stop - start))
            values[0], values[1] = 0.0, 1.0
            for row, part in zip(values, (plain, rate), strict=True):
                if part is not None:
                    part(start, stop, row)
            if np.isinf(values).any() or (values[1] <= 0).any():
                error = self.refused(table, missing_too=False)
                assert error is not None
                raise error
            np.log(values[1], out=out)
            out += values[0]

        return write

    def refused(self, table: Table, *, missing_too: bool) -> InputError | None:
        """Return the error that names the first value that cannot be used, and counts them; or None."""
        checks = [(self.offset, "offset", False), (self.exposure, "exposure", True)]
        for name, role, positive in checks:
            if name is None:
                continue
            first, count, done = None, 0, 0
            for batch in table.batches([name]):
                refuse_inexact(batch.column(0), name)
                values = numbers(batch.column(0), name).astype(np.float64)
                bad = np.isinf(values) | (positive & (values <= 0)) | (missing_too & np.isnan(values))
                if bad.any() and first is None:
                    at = int(bad.argmax())
                    first = (done + at + 1, float(values[at]))
                count += int(bad.sum())
                done += len(values)
            if first is not None:
                return InputError(_refusal(role, name, positive, *first, count))
        return None

    def to_dict(self) -> dict[str, str]:
        """Return the roles that are filled, as plain JSON."""
        named = {"offset": self.offset, "exposure": self.exposure}
        return {role: name for role, name in named.items() if name is not None}


def _refusal(role: str, name: str, positive: bool, row: int, value: float, count: int) -> str:
    more = f" ({count:,} such rows in all)" if count > 1 else ""
    if np.isnan(value):
        return (
            f"The {role} column '{name}' has no value in row {row:,}{more}. Fill it, or leave out such rows "
            "(--missing drop, missing='drop')."
        )
    need = (
        "finite and positive, because its logarithm is added to the linear predictor"
        if positive
        else "finite"
    )
    return (
        f"The {role} column '{name}' has the value {value:g} in row {row:,}{more}; it must be {need}. "
        "Correct such rows, or leave them out with a query (--sql, sql=)."
    )


@dataclass(frozen=True)
class OffsetEncoder(Encoder):
    """An encoder of a model with offsets: it knows their columns too.

    >>> table = open_table({"x": [5.0, 6.0], "days": [1.0, 2.0]})
    >>> encoder = OffsetEncoder.of(Encoder.fit(table, ["x"]), Offsets(exposure="days"))
    >>> encoder.transform_with_offset(table)[1].round(3)
    array([0.   , 0.693])
    """

    offsets: Offsets = Offsets()

    @classmethod
    def of(cls, encoder: Encoder, offsets: Offsets) -> Self:
        """Return an encoder that also knows the columns of the offset."""
        return cls(encoder.columns, encoder.missing, encoder.readings, offsets)

    def transform_with_offset(self, data: Any) -> tuple[Array, Array]:
        """Encode a table: features of shape (n, p), and the offset of every row, shape (n,).

        Raises
        ------
        InputError
            If a column is not there, or a value cannot be used.
        """
        parts = list(self.blocks_with_offset(open_table(data)))
        warn_unseen(sum((unseen for _, _, unseen in parts), Counter()))
        return np.concatenate([X for X, _, _ in parts]), np.concatenate([offset for _, offset, _ in parts])

    def blocks_with_offset(self, table: Table) -> Iterator[tuple[Array, Array, Unseen]]:
        """Yield features (m, p), offset (m,) and unseen levels, block after block."""
        table = self.adapted(table)
        self.offsets.require(table, "the model was fitted with it, and its predictions depend on it. Add it.")
        aside = Aside(table, self.offsets.columns)
        for X, unseen in super().blocks(aside):
            batch = aside.take(len(X))
            out = np.empty(len(X))
            self.offsets.writer(batch, table)(0, len(X), out)
            if self.missing == "error" and np.isnan(out).any():
                error = self.offsets.refused(table, missing_too=True)
                assert error is not None
                raise error
            yield X, out, unseen

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as plain JSON values; `encoder_from_dict` reads them back."""
        return super().to_dict() | {"offsets": self.offsets.to_dict()}


def encoder_from_dict(state: Mapping[str, Any]) -> Encoder:
    """Return the encoder that `to_dict` described, with its offsets if it has any.

    Raises
    ------
    ModelFileError
        If the values do not describe an encoder.
    """
    encoder = Encoder.from_dict(state)
    named = state.get("offsets")
    if named is None:
        return encoder
    if not isinstance(named, Mapping) or not set(named) <= {"offset", "exposure"}:
        raise ModelFileError(f"The model's description of its offset cannot be read ({named!r}).")
    return OffsetEncoder.of(encoder, Offsets(**{role: str(name) for role, name in named.items()}))
