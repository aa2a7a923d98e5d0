"""What several commands need: the group that turns errors into messages, and option helpers."""

from __future__ import annotations

import csv
import errno
import glob
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from elltwo.errors import ElltwoError, InputError, enough_memory, name_some
from elltwo.files import check_writable

F = TypeVar("F", bound=Callable[..., Any])


class UserError(click.ClickException):
    """A mistake that the user can mend: a message on stderr, no traceback, exit status 2."""

    exit_code = 2


class Commands(click.Group):
    """The commands, with every error that elltwo raises on purpose shown as one message."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with enough_memory():
                return super().invoke(ctx)
        except ElltwoError as error:
            raise UserError(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone, as in `elltwo show m | head`
                raise
            raise UserError(f"{error}. Check the file or disk that is named, then run again.") from error
        except KeyboardInterrupt:
            ctx.exit(130)
        except Exception as error:
            if not interrupted(error):
                raise
            ctx.exit(130)


def interrupted(error: Exception) -> bool:
    """Return whether an error is what DuckDB makes of Ctrl-C."""
    return type(error).__name__ == "InterruptException" or (
        isinstance(error, RuntimeError) and "interrupted" in str(error).lower()
    )


def split_names(values: Sequence[str], option: str) -> list[str] | None:
    """Return the column names of a repeatable option that also takes commas; None if it was not given.

    >>> split_names(["age,bmi", 'bp,"price, net"'], "--keep")
    ['age', 'bmi', 'bp', 'price, net']
    """
    names = [name.strip() for row in csv.reader(values, skipinitialspace=True) for name in row]
    names = [name for name in names if name]
    if values and not names:
        raise click.UsageError(f"{option} names no column. Name one, or leave out {option}.")
    return names or None


def one_table(data: Sequence[str], sql: str | None) -> tuple[str, str | None]:
    """Return the data and the query for `open_table`; --sql may stand alone, with file names inside.

    Raises
    ------
    click.UsageError
        There are no data, or several arguments where one table is needed.
    """
    if len(data) > 1:
        raise click.UsageError(
            f"DATA is one argument, and {len(data)} were given: {name_some(data, most=3)}. If the shell "
            "expanded a pattern, put the pattern between quotes: 'data/*.csv'."
        )
    if data:
        return data[0], sql
    if sql is None:
        raise click.UsageError("DATA is missing: give a file, a quoted pattern, a query, or --sql.")
    return sql, None


def sql_option(command: F) -> F:
    """Add --sql to a command."""
    return click.option(
        "--sql",
        metavar="QUERY",
        help="Query to run on DATA, which it calls data (a database: its own tables).",
    )(command)


def weights_options(command: F) -> F:
    """Add --weights and --weights-are to a command."""
    add = (
        click.option("--weights", metavar="COL", help="Row weights, numbers ≥ 0."),
        click.option(
            "--weights-are",
            type=click.Choice(("analytic", "frequency")),
            default="analytic",
            show_default=True,
            help="analytic: each row is one observation of that precision. frequency: a row stands for that "
            "many observations.",
        ),
    )
    for option in reversed(add):
        command = option(command)
    return command


def check_output(output: str, *inputs: str, option: str = "--output") -> None:
    """Refuse an output that could not be written or is one of the inputs, before any work is done.

    Raises
    ------
    InputError
        The folder does not exist, or the output would replace the data or the model.
    """
    check_writable(output)
    for text in inputs:
        path = text.partition("::")[0]
        for name in glob.glob(path) or [path]:
            if os.path.exists(name) and os.path.exists(output) and os.path.samefile(name, output):
                raise InputError(f"{option} '{output}' would replace the input '{name}'. Give another name.")


def echo_json(value: Any) -> None:
    """Print strict JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
