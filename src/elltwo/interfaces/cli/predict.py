"""`elltwo predict`: apply a saved model to a table, as a stream."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from elltwo.errors import InputError, name_some
from elltwo.files import replacing
from elltwo.interfaces.cli.progress import Progress, progress
from elltwo.interfaces.cli.shared import check_output, one_table, split_names, sql_option

if TYPE_CHECKING:
    from elltwo.data.encode import Encoder
    from elltwo.data.reading import Table
    from elltwo.results import Fit

CHUNK_ROWS = 131_072
"""Rows that are written at a time: also the size of a Parquet row group."""

EXAMPLES = """\b
Examples:
  elltwo predict houses.safetensors new.csv -o predictions.csv
  elltwo predict houses.safetensors 'new/*.parquet' --keep id,street -o predictions.parquet
  elltwo predict houses.safetensors new.csv --interval 0.9 | head
"""


@click.command(epilog=EXAMPLES, short_help="Apply a saved model to a table.")
@click.argument("model")
@click.argument("data", nargs=-1)
@click.option(
    "-o", "--output", metavar="FILE", help="CSV or Parquet file to write; without it, CSV on stdout."
)
@click.option(
    "--keep", multiple=True, metavar="COLS", help="Columns of DATA to carry along, a,b; repeatable."
)
@click.option(
    "--interval",
    type=float,
    metavar="LEVEL",
    help="Add the interval of the mean at this level, such as 0.95, of a model fitted with --inference.",
)
@sql_option
def predict(
    model: str,
    data: tuple[str, ...],
    output: str | None,
    keep: tuple[str, ...],
    interval: float | None,
    sql: str | None,
) -> None:
    """Predict every row of the table DATA with the saved MODEL, in the order of the rows.

    The columns are found by name. Text values that training did not see count as none of the known ones,
    and their rows are reported. A row with missing values has an empty prediction if the model was fitted
    with --missing drop. A model of classes gives the label and the probability of each; a model with an
    --offset or --exposure column needs that column in DATA.

    --keep writes what DATA holds: to CSV, the fields of a text file as they are written, 1.10 and NA too.

    --interval adds two columns for each prediction, NAME_low and NAME_high: between them lies the expected
    value or the probability, not a new observation, in the sense that the summary of the model states.
    """
    source, sql = one_table(data, sql)
    if output is not None:
        _writer(output)
        check_output(output, source, model)
    from elltwo.data.opening import open_table
    from elltwo.fitting import load

    kept = split_names(keep, "--keep") or []
    written = output is None or _writer(output) is write_csv
    predictions = Predictions(load(model), open_table(source, sql=sql), kept, interval, written=written)
    with progress("Predicting") as report:
        if output is None:
            write_csv(sys.stdout.buffer, predictions.chunks(report))
        else:
            with replacing(output) as file:
                _writer(output)(file, predictions.chunks(report))
    for line in predictions.remarks():
        click.echo(line, err=True)
    if output is not None:
        click.echo(f"{predictions.rows:,} predictions written to {output}", err=True)


class Predictions:
    """The predictions of a model for a table, chunk by chunk, and what was noticed on the way.

    Parameters
    ----------
    fit : Fit
        The model; one that was fitted on arrays finds its features as columns of numbers.
    table : Table
        The rows.
    keep : sequence of str
        Columns of the table to carry along.
    level : float, optional
        Level of the intervals to give; None gives none.
    written : bool
        Carry the fields of a text file along as they are written ("1.10", "NA"), not as what they mean.

    Raises
    ------
    InputError
        A column to keep does not exist, or has the name of a column of predictions; or there are no
        intervals.
    """

    def __init__(
        self,
        fit: Fit,
        table: Table,
        keep: Sequence[str],
        level: float | None = None,
        *,
        written: bool = False,
    ) -> None:
        self._level = level
        self._written = written
        if level is not None:  # an interval of no rows, to hear now what would be wrong with those of all
            fit.interval(fit.coef[:, :0].T, level)
        table.require(keep, "column to keep")
        self._fit = fit
        self._table = table = _encoder(fit).adapted(table)
        self._keep = list(dict.fromkeys(keep))
        self._labelled = fit.classes is not None
        self._names = predicted_names(fit)
        if level is not None:
            self._names += [
                f"{name}_{end}" for name in self._names[self._labelled :] for end in ("low", "high")
            ]
        if taken := set(self._keep) & set(self._names):
            raise InputError(
                f"{name_some(sorted(taken))} would be there twice: kept from the data, and as predictions. "
                "Leave it out of --keep."
            )
        self.rows = 0
        self.empty = 0
        self.unseen: Counter[tuple[str, str]] = Counter()

    def chunks(self, report: Progress | None = None) -> Iterator[Any]:
        """Yield Arrow tables: the kept columns, then those of `predicted_names`."""
        import pyarrow as pa

        waiting: list[Any] = []
        for part in self._parts():
            waiting.append(part)
            self.rows += part.num_rows
            if report is not None:
                report(self.rows, self._table.n_rows)
            if sum(p.num_rows for p in waiting) >= CHUNK_ROWS:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def remarks(self) -> list[str]:
        """Return what the user should know about the rows that were read."""
        from elltwo.data.encode import unseen_remarks

        lines = []
        if self.empty:
            lines.append(f"{self.empty:,} of the rows lack a value and have an empty prediction.")
        return [*lines, *unseen_remarks(self.unseen)]

    def _parts(self) -> Iterator[Any]:
        import numpy as np
        import pyarrow as pa

        from elltwo.data.aside import Aside

        aside = Aside(self._table, self._keep, written=self._written)
        schema = self._schema(aside.kept_schema)
        for X, offset, unseen in _blocks(_encoder(self._fit), aside):
            self.unseen.update(unseen)
            eta = self._fit.decision(X, offset=offset)
            self.empty += int(np.isnan(eta).any(axis=1).sum())
            columns = self._predicted(eta)
            if self._level is not None:
                bounds = self._fit.interval(X, self._level, offset=offset)
                columns += list(bounds.reshape(len(X), -1).T)
            predicted = [pa.array(column, from_pandas=True) for column in columns]
            yield pa.table([*aside.take(len(X)).columns, *predicted], names=schema.names).cast(schema)

    def _predicted(self, eta: Any) -> list[Any]:
        """Return the columns that `predicted_names` names."""
        import numpy as np

        fit = self._fit
        response = fit.predictions(eta)
        if not self._labelled:
            return list(response.T) if response.ndim > 1 else [response]
        labels = response.tolist()
        if not _probable(fit):
            return [labels, *eta.T]
        return [labels, *np.ascontiguousarray(fit.predictions(eta, "probability").T)]

    def _schema(self, kept: Any) -> Any:
        """Return the columns to write; text in any of Arrow's encodings becomes plain text."""
        import pyarrow as pa

        from elltwo.data.columns import kind_of

        fields = [
            field.with_type(pa.large_string()) if kind_of(field.type) == "string" else field
            for field in map(pa.field, kept.names, kept.types)
        ]
        types = [pa.float64()] * len(self._names)
        if self._fit.classes is not None:
            types[0] = _label_type(self._fit.classes)
        return pa.schema([*fields, *map(pa.field, self._names, types)])


def _encoder(fit: Fit) -> Encoder:
    """Return the model's encoder; a model of arrays reads columns of numbers by its feature names."""
    from elltwo.data.encode import Column, Encoder

    if isinstance(fit.encoder, Encoder):
        return fit.encoder
    return Encoder(tuple(Column(name, "number") for name in fit.feature_names), "error")


def _blocks(encoder: Encoder, table: Table) -> Iterator[tuple[Any, Any, Any]]:
    """Yield features, offset (None without one) and unseen levels, block after block."""
    from elltwo.data.offsets import OffsetEncoder

    if isinstance(encoder, OffsetEncoder):
        yield from encoder.blocks_with_offset(table)
    else:
        yield from ((X, None, unseen) for X, unseen in encoder.blocks(table))


def predicted_names(fit: Fit) -> list[str]:
    """Return the names of the columns of predictions.

    ``predicted_<target>`` for each target; for classes its label, then ``probability_<label>`` for each, or
    ``margin_<label>`` where the model gives margins (of two classes, that of the second).
    """
    if fit.classes is None:
        return [f"predicted_{name}" for name in fit.target_names]
    target = (fit.quality or {}).get("target", fit.target_names[0])
    labels = fit.classes if _probable(fit) or fit.coef.shape[1] > 1 else fit.classes[1:]
    what = "probability" if _probable(fit) else "margin"
    return [f"predicted_{target}", *(f"{what}_{label}" for label in labels)]


def _probable(fit: Fit) -> bool:
    return fit.loss.link in ("logit", "softmax")


def _label_type(classes: tuple[Any, ...]) -> Any:
    """Return the Arrow type of labels."""
    import pyarrow as pa

    kinds = {type(label) for label in classes}
    known = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return known.get(kinds.pop(), pa.large_string()) if len(kinds) == 1 else pa.large_string()


def write_csv(file: BinaryIO, chunks: Iterator[Any]) -> None:
    """Write Arrow tables as CSV with one header; a missing value is an empty field.

    Text is quoted where it has to be, so that a kept field comes out as it was.
    """
    import pyarrow as pa

    for number, chunk in enumerate(chunks):
        try:
            lines = _lines(chunk)
        except pa.ArrowException as error:
            raise InputError(
                f"A column to keep has a type that CSV cannot hold ({error}). Leave it out of --keep, or "
                "write Parquet: -o FILE.parquet."
            ) from error
        if number == 0:
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(chunk.schema.names)
            file.write(header.getvalue().encode())
        file.write(lines)


def _lines(chunk: Any) -> bytes:
    """Return the rows of an Arrow table as lines of CSV."""
    import pyarrow as pa
    import pyarrow.compute as pc

    mark, comma, nothing = (pa.scalar(text, pa.large_string()) for text in ('"', ",", ""))
    fields: list[Any] = []
    for column in chunk.columns:
        shown = column.cast(pa.large_string())
        if pa.types.is_large_string(column.type):
            doubled = pc.replace_substring(shown, '"', '""')
            quoted = pc.binary_join_element_wise(mark, doubled, mark, nothing)
            shown = pc.if_else(pc.match_substring_regex(shown, '^$|[",\r\n]'), quoted, shown)
        fields.append(shown.fill_null(""))
    lines = pc.binary_join_element_wise(*fields, comma) if len(fields) > 1 else fields[0]
    return ("\n".join(lines.to_pylist()) + "\n").encode()


def write_parquet(file: BinaryIO, chunks: Iterator[Any]) -> None:
    """Write Arrow tables as the row groups of one Parquet file."""
    from pyarrow.parquet import ParquetWriter

    first = next(chunks)
    with ParquetWriter(file, first.schema) as writer:
        for chunk in chain([first], chunks):
            writer.write_table(chunk)


WRITERS: dict[str, Callable[[BinaryIO, Iterator[Any]], None]] = {
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".pq": write_parquet,
}


def _writer(output: str) -> Callable[[BinaryIO, Iterator[Any]], None]:
    suffix = Path(output).suffix.lower()
    if suffix not in WRITERS:
        raise InputError(
            f"--output '{output}' does not say which format to write. End its name with .csv or .parquet."
        )
    return WRITERS[suffix]
