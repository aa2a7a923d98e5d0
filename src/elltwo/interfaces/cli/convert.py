"""`elltwo convert`: translate a regularisation strength between tools."""

from __future__ import annotations

import re
from typing import Any

import click

from elltwo.errors import InputError

DIALECTS = (
    "sum",
    "mean",
    "half-mean",
    "sklearn",
    "C",
    "sklearn-elasticnet",
    "glmnet",
    "statsmodels",
    "spark",
    "keras",
    "torch",
)
LOSSES = ("gaussian", "logistic", "poisson")


def _list_dialects(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print every dialect with its objective for each loss, and stop."""
    if not wanted:
        return
    from elltwo.conventions import DIALECTS as dialects

    for dialect in dialects:
        click.echo(f"{dialect.name:20}{dialect.tool}")
        for loss, form in dialect.forms.items():
            click.echo(f"{'':20}  {loss:10} {form.objective:40} {form.formula(dialect.parameter)}")
    ctx.exit()


def _with_options(message: str) -> str:
    """Call the quantities in a message of `elltwo.convert` by the names of their options.

    >>> _with_options("'glmnet' needs y_std, the spread: α = n·λ/y_std. Pass y_std.")
    "'glmnet' needs --y-std, the spread: α = n·λ/y_std. Pass --y-std."
    """
    named = re.compile(r"(^|(?<=needs )|(?<=Pass ))(n_targets|y_std|n)(?=[ ,.])")
    return named.sub(lambda match: "--" + match[2].replace("_", "-"), message)


EXAMPLES = """\b
Examples:
  elltwo convert 1.0 --from sklearn --to mean --n 1000
  elltwo convert 0.5 --from C --to glmnet --n 1000 --loss logistic
  elltwo convert 25 --from sum --to glmnet --n 442 --y-std 77 --explain
"""


@click.command(epilog=EXAMPLES, short_help="Convert a penalty between tools.")
@click.argument("value", type=float)
@click.option("--from", "from_", type=click.Choice(DIALECTS), required=True, help="What VALUE is now.")
@click.option("--to", type=click.Choice(DIALECTS), required=True, help="What it is to become.")
@click.option("--n", type=float, help="Number of training rows; with weights, their sum.")
@click.option("--loss", type=click.Choice(LOSSES), default="gaussian", show_default=True, help="Loss.")
@click.option("--y-std", type=float, help="Population sd of the target, np.std(y) (glmnet, spark).")
@click.option(
    "--n-targets", type=int, default=1, show_default=True, help="Outputs averaged over (keras, torch)."
)
@click.option("--explain", is_flag=True, help="Print both objectives as well.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_dialects,
    help="Print every dialect's objective and exit.",
)
def convert(value: float, from_: str, to: str, loss: str, explain: bool, **quantities: Any) -> None:
    """Convert the penalty strength VALUE from one tool's meaning to another's.

    With the converted value the second tool has the same optimal coefficients as the first.
    """
    from elltwo.conventions import DIALECTS as dialects
    from elltwo.conventions import convert as convert_strength

    try:
        converted = convert_strength(value, from_=from_, to=to, loss=loss, **quantities)
    except InputError as error:
        raise InputError(_with_options(str(error))) from error
    click.echo(repr(converted))
    if explain:
        known = {dialect.name: dialect for dialect in dialects}
        for name, number in ((from_, value), (to, converted)):
            dialect, form = known[name], known[name].form(loss)
            click.echo(f"{dialect.tool}: {dialect.parameter} = {number!r}")
            click.echo(f"    minimises {form.objective};  {form.formula(dialect.parameter)}")
