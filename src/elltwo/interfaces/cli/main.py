"""`elltwo`: the group of commands and the program's entry point."""

from __future__ import annotations

import signal
import sys

import click

from elltwo import __version__
from elltwo.interfaces.cli.compare import compare
from elltwo.interfaces.cli.convert import convert
from elltwo.interfaces.cli.demo import demo
from elltwo.interfaces.cli.fit import fit
from elltwo.interfaces.cli.predict import predict
from elltwo.interfaces.cli.shared import Commands
from elltwo.interfaces.cli.show import show

COMMANDS = (fit, compare, predict, show, convert, demo)


EPILOG = """\b
Examples:
  elltwo demo
  elltwo fit data.csv --target price -o model.safetensors
  elltwo predict model.safetensors new.csv -o predictions.csv
  elltwo fit --help

\b
Exit status:
  0    done
  2    something in the data or the options has to be changed; the message says what
  130  interrupted
"""


@click.group(
    cls=Commands,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="elltwo")
def cli() -> None:
    """L2-regularised models: from a table to a tuned, certified model."""


def main() -> None:
    """Run the program; a request to terminate removes half-written files first."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks α or λ shows ? instead of failing
            stream.reconfigure(errors="replace")
    cli(prog_name="elltwo")
