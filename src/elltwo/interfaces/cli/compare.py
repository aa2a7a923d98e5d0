"""`elltwo compare`: which model predicts a table best, on the same held-out rows."""

from __future__ import annotations

from typing import Any

import click

from elltwo.interfaces.cli.family import FAMILIES, family_options
from elltwo.interfaces.cli.fit import MISSING, WAYS
from elltwo.interfaces.cli.progress import progress
from elltwo.interfaces.cli.shared import echo_json, one_table, split_names, sql_option, weights_options

EXAMPLES = """\b
Examples:
  elltwo compare houses.csv --target price
  elltwo compare churn.csv --target churned --family binomial --positive yes --folds 5
  elltwo compare 'sales/*.parquet' --target amount --group customer --missing mean
  elltwo compare houses.csv --target price --json | jq .prefer
"""

# Options shared with `elltwo fit` whose help there speaks of models that can be chosen.
HELP = {
    "family": f"What the target is: {', '.join(FAMILIES)}. [default: gaussian, binomial for two "
    "labels that are text or booleans]",
    "epsilon": "huber: the error, in units of the target, from which errors count in proportion.",
}


@click.command(epilog=EXAMPLES, short_help="Compare models on the same held-out rows; say which to prefer.")
@click.argument("data", nargs=-1)
@click.option("-t", "--target", required=True, metavar="COL", help="Column to predict.")
@family_options
@click.option("--folds", type=int, default=10, show_default=True, help="Number of outer folds.")
@click.option("--group", metavar="COL", help="Keep the rows of a group in the same fold.")
@click.option("--time", metavar="COL", help="Predict each fold from its past only.")
@click.option("--seed", type=int, help="Which rows go to which fold. [default: 0]")
@click.option(
    "--standardize/--no-standardize",
    default=True,
    show_default=True,
    help="Penalise coefficients of standardised columns.",
)
@weights_options
@click.option("--features", multiple=True, metavar="COLS", help="Columns to use, a,b,c; repeatable.")
@click.option("--drop", multiple=True, metavar="COLS", help="Columns to leave out, a,b,c; repeatable.")
@click.option(
    "--parse",
    multiple=True,
    metavar="COLS",
    help="Text columns to read as numbers or dates, a,b,c; repeatable.",
)
@click.option(
    "--missing",
    type=click.Choice(MISSING),
    default="error",
    show_default=True,
    help="Missing values: stop, put in the column's mean of the training rows, or drop the row.",
)
@sql_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, every fold included.")
def compare(
    data: tuple[str, ...],
    features: tuple[str, ...],
    drop: tuple[str, ...],
    parse: tuple[str, ...],
    sql: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare models for the table DATA on the same held-out rows, and say which to prefer.

    The mean, the fit without a penalty, ridge with the penalty chosen by each rule, the elastic net and the
    lasso (neither of them for multinomial) predict every outer fold from the other rows. Encoding and penalty
    are found anew in each training set (nested cross-validation), so the errors are honest.

    DATA is what `elltwo fit` takes, up to 200 million encoded numbers (rows × features).
    """
    table, sql = one_table(data, sql)
    given = [option for option in WAYS if options[option.removeprefix("--")] is not None]
    if len(given) > 1:
        raise click.UsageError(
            f"{', '.join(given[:-1])} and {given[-1]} deal rows to folds in different ways. Keep one of them."
        )
    from elltwo.comparing import compare as compare_models

    with progress("Comparing") as report:
        found = compare_models(
            table,
            features=split_names(features, "--features"),
            drop=split_names(drop, "--drop"),
            parse=split_names(parse, "--parse"),
            sql=sql,
            progress=report,
            **options,
        )
    if as_json:
        echo_json(found.to_dict())
    else:
        click.echo(found.summary())


# Models are what is compared, and weights of classes would change what is measured.
compare.params = [option for option in compare.params if option.name not in ("model", "class_weight")]
for option in compare.params:
    if isinstance(option, click.Option) and option.name in HELP:
        option.help = HELP[option.name]
