"""The options of `elltwo fit` that say which kernel `--model kernel` uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

KERNELS = ("rbf", "laplacian", "matern", "polynomial", "linear")
CENTERS = ("uniform", "leverage")
#: Words that stand for a width.
WIDTHS = ("tune", "median", "scale")
#: Options that are parameters of the kernel.
PARAMETERS = ("gamma", "length_scale", "nu", "degree", "coef0")

_OPTIONS = (
    click.option(
        "--kernel",
        type=click.Choice(KERNELS),
        help="kernel: which one. [default: rbf]",
    ),
    click.option(
        "--gamma",
        metavar="GAMMA",
        help="rbf, laplacian, polynomial: a number, several to choose from (0.1,1,10), tune, median, scale. "
        "[default: tune, median with --alpha; polynomial: 1 / features]",
    ),
    click.option(
        "--length-scale",
        metavar="WIDTH",
        help="matern: a number, several to choose from, tune, median or scale. [default: as --gamma]",
    ),
    click.option("--nu", type=click.Choice(["0.5", "1.5", "2.5"]), help="matern: smoothness. [default: 1.5]"),
    click.option("--degree", type=int, help="polynomial: degree. [default: 3]"),
    click.option("--coef0", type=float, help="polynomial: added to the inner product. [default: 1]"),
    click.option(
        "--n-centers",
        type=int,
        help="kernel: rows that the function is built on (Nyström), an approximation.",
    ),
    click.option(
        "--centers", type=click.Choice(CENTERS), help="kernel: how these rows are chosen. [default: uniform]"
    ),
)


def kernel_options(command: F) -> F:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def kernel_params(options: dict[str, Any]) -> dict[str, Any] | None:
    """Take the parameters of the kernel out of the options of a command; None if none was given.

    Raises
    ------
    click.UsageError
        If a width is neither a number, nor numbers, nor one of the words.

    Examples
    --------
    >>> kernel_params({"gamma": "0.1,1", "length_scale": None, "nu": None, "degree": None, "coef0": None})
    {'gamma': [0.1, 1.0]}
    """
    given = {name: value for name in PARAMETERS if (value := options.pop(name)) is not None}
    for name in ("gamma", "length_scale"):
        if name in given:
            given[name] = _width(given[name], "--" + name.replace("_", "-"))
    if "nu" in given:
        given["nu"] = float(given["nu"])
    return given or None


def _width(text: str, option: str) -> Any:
    text = text.strip()
    if text in WIDTHS:
        return text
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(
            f"{option} '{text}' must be a number, several of them (0.1,1,10), or one of {', '.join(WIDTHS)}."
        ) from None
    return values[0] if len(values) == 1 else values
