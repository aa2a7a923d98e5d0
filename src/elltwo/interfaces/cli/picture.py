"""The option --plot of `elltwo fit` and `elltwo show`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from elltwo.errors import InputError
from elltwo.files import replacing
from elltwo.interfaces.cli.shared import check_output

if TYPE_CHECKING:
    from elltwo.results import Fit

F = TypeVar("F", bound=Callable[..., Any])


def plot_option(command: F) -> F:
    """Add --plot to a command."""
    return click.option(
        "--plot",
        metavar="FILE",
        help="Draw the score and the coefficients against the penalty (.png, .svg, .pdf).",
    )(command)


def check_plot(plot: str, output: str | None, *inputs: str) -> None:
    """Refuse a plot that could not be drawn or written, before any work is done.

    Raises
    ------
    InputError
        The name has another ending, the folder does not exist, or the plot would replace another file.
    MissingPackageError
        matplotlib is not installed.
    """
    from elltwo.plot import FORMATS, require_matplotlib

    if _format(plot) not in FORMATS:
        endings = ", ".join(f".{ending}" for ending in FORMATS)
        raise InputError(
            f"--plot '{plot}' does not say which format to draw. End its name with one of {endings}."
        )
    check_output(plot, *inputs, option="--plot")
    if output is not None and os.path.realpath(output) == os.path.realpath(plot):
        raise InputError(f"--plot and --output both name '{plot}'. Give two names.")
    require_matplotlib()


def write_plot(fit: Fit, plot: str) -> None:
    """Draw a fit into a file, whole or not at all, and say on stderr what the picture leaves out."""
    from elltwo.plot import save_figure

    with replacing(plot) as file:
        remarks = save_figure(fit, file, _format(plot))
    for remark in remarks:
        click.echo(remark, err=True)


def _format(plot: str) -> str:
    return Path(plot).suffix.lower().removeprefix(".")
