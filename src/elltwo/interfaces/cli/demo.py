"""`elltwo demo`: fit, read and apply a model on real data, with the commands a user would type."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import chdir
from importlib.resources import as_file, files
from pathlib import Path
from shutil import copyfile

import click

from elltwo.errors import InputError

DATA = "diabetes.csv"
MODEL = "diabetes.safetensors"
PREDICTIONS = "predictions.csv"
SHOWN_ROWS = 6


@click.command(short_help="Fit and predict real data, step by step.")
@click.option("--folder", metavar="FOLDER", help="Leave the data, the model and the predictions here.")
@click.pass_context
def demo(ctx: click.Context, folder: str | None) -> None:
    """Fit a real data set that ships with elltwo, and predict with the model.

    The data are 442 diabetes patients with ten measurements each and the progression of the disease one
    year later (Efron, Hastie, Johnstone and Tibshirani, "Least angle regression", Annals of Statistics
    32, 2004, 407-499).
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            _run(ctx, temporary)
        click.echo("\nTo try these commands yourself: elltwo demo --folder . leaves the files here.")
    elif Path(folder).is_dir():
        _run(ctx, folder)
    else:
        raise InputError(f"--folder '{folder}' does not exist. Create it first, or name another one.")


def _run(ctx: click.Context, folder: str) -> None:
    with as_file(files("elltwo.data") / DATA) as shipped:
        copyfile(shipped, Path(folder) / DATA)
    click.echo("Ten measurements of 442 diabetes patients, and the progression of the disease a year later.")
    with chdir(folder):
        _step(ctx, f"elltwo fit {DATA} --target progression -o {MODEL}")
        _step(ctx, f"elltwo predict {MODEL} {DATA} --keep age,bmi,progression -o {PREDICTIONS}")
        _type(f"head -{SHOWN_ROWS} {PREDICTIONS}")
        for line in Path(PREDICTIONS).read_text(encoding="utf-8").splitlines()[:SHOWN_ROWS]:
            click.echo(line)


def _step(ctx: click.Context, line: str) -> None:
    """Show a command and run it."""
    _type(line)
    program, *arguments = shlex.split(line)
    ctx.find_root().command.main(arguments, prog_name=program, standalone_mode=False)


def _type(line: str) -> None:
    click.secho(f"\n$ {line}\n", bold=True)
