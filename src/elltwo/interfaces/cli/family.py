"""The options of `elltwo fit` that say what the target is and which model it gets."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FAMILIES = (
    "gaussian",
    "binomial",
    "multinomial",
    "poisson",
    "gamma",
    "tweedie",
    "negative-binomial",
    "huber",
    "auto",
)
MODELS = ("ridge", "svm", "elasticnet", "lasso", "kernel")
# A family or model is checked by the library, which knows what others call it and suggests the nearest.
_OPTIONS = (
    click.option(
        "--family",
        metavar="NAME",
        help=f"What the target is: {', '.join(FAMILIES)}. [default: gaussian, binomial for two "
        "labels that are text or booleans; auto with --model svm]",
    ),
    click.option(
        "--model",
        metavar="NAME",
        default="ridge",
        show_default=True,
        help="ridge: L2, any family. svm: linear support vector machine. elasticnet, lasso: L1 penalty, any "
        "family but multinomial. kernel: functions of a kernel (--kernel), any family.",
    ),
    click.option(
        "--positive", metavar="LABEL", help="binomial: the label that is the event. [default: the second]"
    ),
    click.option(
        "--class-weight",
        metavar="WEIGHTS",
        help="Weights of the classes: balanced, or LABEL=WEIGHT,LABEL=WEIGHT.",
    ),
    click.option("--offset", metavar="COL", help="Column that is added to the linear predictor."),
    click.option(
        "--exposure", metavar="COL", help="Column whose logarithm is added (families of counts, amounts)."
    ),
    click.option("--power", type=float, help="tweedie: the variance is mean^power. [default: 1.5]"),
    click.option(
        "--dispersion",
        type=float,
        help="negative-binomial: the variance is mean + dispersion × mean². [default: 1]",
    ),
    click.option(
        "--epsilon",
        type=float,
        help="huber, and svm of numbers: the error, in units of the target, from which errors count "
        "differently.",
    ),
)


def family_options(command: F) -> F:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def class_weights(text: str | None) -> Any:
    """Return the class weights that --class-weight gives: None, "balanced", or a weight for each label.

    Raises
    ------
    click.UsageError
        If it is neither, or names a label twice.

    Examples
    --------
    >>> class_weights("balanced"), class_weights("yes=3, no=0.5")
    ('balanced', {'yes': 3.0, 'no': 0.5})
    """
    if text is None or text.strip() == "balanced":
        return None if text is None else "balanced"
    weights: dict[str, float] = {}
    for part in next(csv.reader([text], skipinitialspace=True), []):
        label, equals, weight = part.rpartition("=")
        try:
            number = float(weight)
        except ValueError:
            equals = ""
        if not equals or label in weights:
            raise click.UsageError(
                f"--class-weight '{text}' must be balanced, or a number for each label once: yes=3,no=1."
            )
        weights[label] = number
    return weights
