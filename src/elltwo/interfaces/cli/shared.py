"""What several commands need: the group that turns errors into messages, and option helpers."""

from __future__ import annotations

import csv
import errno
import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from elltwo.errors import ElltwoError, InputError


class UserError(click.ClickException):
    """A mistake that the user can mend: a message on stderr, no traceback, exit status 2."""

    exit_code = 2


class Commands(click.Group):
    """The commands, with every error that elltwo raises on purpose shown as one message."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ElltwoError as error:
            raise UserError(str(error)) from error
        except MemoryError as error:
            raise UserError(
                f"Not enough memory: {error or 'no detail is known'}. Memory grows with the square of the number of "
                "features, and text columns make one for each level: leave columns out with --drop."
            ) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone, as in `elltwo show m | head`
                raise
            raise UserError(f"{error}. Check the file or disk that is named, then run again.") from error
        except KeyboardInterrupt:
            ctx.exit(130)


def split_names(values: Sequence[str]) -> list[str] | None:
    """Return the column names of a repeatable option that also takes commas; None if it was not given.

    >>> split_names(["age,bmi", 'bp,"price, net"'])
    ['age', 'bmi', 'bp', 'price, net']
    """
    names = [name.strip() for row in csv.reader(values, skipinitialspace=True) for name in row]
    return [name for name in names if name] or None


def refuse_to_overwrite_input(output: str, data: Sequence[str]) -> None:
    """Raise InputError if the output is one of the data files."""
    for pattern in data:
        for name in glob.glob(pattern) or [pattern]:
            if Path(name).exists() and Path(output).exists() and os.path.samefile(name, output):
                raise InputError(
                    f"--output '{output}' is also the data file '{name}', which would be lost. "
                    "Give another name."
                )


def echo_json(value: Any) -> None:
    """Print strict JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
