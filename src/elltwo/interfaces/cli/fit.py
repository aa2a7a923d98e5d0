"""`elltwo fit`: fit a table, print the summary, save the model."""

from __future__ import annotations

from typing import Any

import click

from elltwo.interfaces.cli.family import class_weights, family_options
from elltwo.interfaces.cli.kernel import kernel_options, kernel_params
from elltwo.interfaces.cli.picture import check_plot, plot_option, write_plot
from elltwo.interfaces.cli.progress import progress
from elltwo.interfaces.cli.shared import (
    check_output,
    echo_json,
    one_table,
    split_names,
    sql_option,
    weights_options,
)

RULES = ("loo", "gcv", "kfold", "reml", "aic", "bic")
MISSING = ("error", "mean", "drop")
CHOOSING = {
    "--select": "select",
    "--folds": "folds",
    "--group": "group",
    "--time": "time",
    "--seed": "seed",
    "--one-se": "one_se",
    "--scoring": "scoring",
    "--alpha-per-target": "alpha_per_target",
}
WAYS = ("--group", "--time", "--seed")
FOLDING = ("--folds", *WAYS)
SCORINGS = (
    "neg_mean_squared_error",
    "neg_root_mean_squared_error",
    "neg_mean_absolute_error",
    "r2",
    "accuracy",
    "neg_log_loss",
    "neg_brier_score",
    "roc_auc",
)
SOLVERS = (
    "auto",
    "spectral",
    "cholesky",
    "orthogonal",
    "dual",
    "newton",
    "newton-dual",
    "newton-cg",
    "gradient",
    "sgd",
    "exact",
    "cg",
    "nystrom",
)

INFERENCE = ("bayes", "model", "sandwich")

EXAMPLES = """\b
Examples:
  elltwo fit houses.csv --target price -o houses.safetensors --plot houses.png
  elltwo fit churn.csv --target churned --family binomial --positive yes --scoring roc_auc
  elltwo fit claims.csv --target claims --family poisson --exposure days --inference sandwich
  elltwo fit waves.csv --target height --model kernel --kernel rbf -o waves.safetensors
  elltwo fit 'sales/*.parquet' --target amount --select kfold --group customer
  elltwo fit shop.duckdb --sql 'SELECT * FROM orders WHERE year > 2020' --target amount
  elltwo fit houses.csv --target price --drop id,url --missing mean --json | jq .alphas
"""


@click.command(epilog=EXAMPLES, short_help="Fit a table, print the summary, save the model.")
@click.argument("data", nargs=-1)
@click.option(
    "-t", "--target", multiple=True, required=True, metavar="COL", help="Column to predict; repeatable."
)
@family_options
@kernel_options
@click.option(
    "--select",
    type=click.Choice(RULES),
    help="How the penalty is chosen. [default: loo; kfold with --folds, --group, --time or --seed, and with "
    "--model elasticnet or lasso]",
)
@click.option("--alpha", type=float, help="Use this penalty (sum scale: SSE + α‖θ‖²) and choose none.")
@click.option("--folds", type=int, help="Number of folds of kfold. [default: 5]")
@click.option("--group", metavar="COL", help="kfold that keeps the rows of a group together.")
@click.option("--time", metavar="COL", help="kfold that trains on the past and tests on what follows.")
@click.option("--seed", type=int, help="Which rows go to which fold of kfold. [default: 0]")
@click.option(
    "--one-se", is_flag=True, help="Take the largest penalty within one standard error (loo, kfold)."
)
@click.option(
    "--scoring",
    type=click.Choice(SCORINGS),
    metavar="NAME",
    help="Score held-out rows by this instead of the deviance (loo, kfold): roc_auc, accuracy, neg_log_loss, "
    "neg_brier_score, r2, neg_mean_absolute_error, …",
)
@click.option(
    "--alpha-per-target", is_flag=True, help="Choose a penalty for each target instead of one for all."
)
@click.option(
    "--standardize/--no-standardize",
    default=True,
    show_default=True,
    help="Penalise coefficients of standardised columns; they are reported on the original scale.",
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
    help="Missing values: stop, put in the column's mean, or drop the row.",
)
@sql_option
@click.option("--solver", type=click.Choice(SOLVERS), default="auto", show_default=True, help="Solver.")
@click.option(
    "--inference",
    type=click.Choice(INFERENCE),
    help="Add standard errors and intervals: bayes (the penalty as a prior), model (if the family's "
    "variances hold) or sandwich (whatever the variances are).",
)
@click.option("--level", type=float, help="Level of the intervals of --inference. [default: 0.95]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, every feature included.")
@click.option("-o", "--output", metavar="FILE", help="Save the model here (safetensors).")
@plot_option
def fit(
    data: tuple[str, ...],
    target: tuple[str, ...],
    features: tuple[str, ...],
    drop: tuple[str, ...],
    parse: tuple[str, ...],
    sql: str | None,
    as_json: bool,
    output: str | None,
    plot: str | None,
    **options: Any,
) -> None:
    """Fit an L2-regularised linear model to the table DATA and print its summary.

    DATA is a CSV, Parquet or JSON-lines file, a quoted pattern of such files, a table of a DuckDB or
    SQLite file ('shop.duckdb::orders'), or a query. For ridge, large files are read block by block. Text
    columns become one feature for each value. Every column is a feature unless --features or --drop
    says otherwise.

    The target holds numbers, or with --family binomial or multinomial labels of classes: text, booleans,
    whole numbers or dates. --family auto infers the family from the column.
    """
    table, sql = one_table(data, sql)
    _check_choice(options)
    if options["level"] is not None and options["inference"] is None:
        raise click.UsageError(
            "--level is that of the intervals of --inference. Give --inference bayes, model or sandwich, or "
            "leave out --level."
        )
    options["class_weight"] = class_weights(options["class_weight"])
    options["kernel_params"] = kernel_params(options)
    if output is not None:
        check_output(output, table)
    if plot is not None:
        if options["alpha"] is not None:
            raise click.UsageError(
                "--alpha gives the penalty, so --plot has no choice to draw. Leave out one of the two."
            )
        check_plot(plot, output, table)
    from elltwo.fitting import fit as fit_table
    from elltwo.summary import as_dict, as_text

    with progress("Fitting") as report:
        fitted = fit_table(
            table,
            target[0] if len(target) == 1 else list(target),
            features=split_names(features, "--features"),
            drop=split_names(drop, "--drop"),
            parse=split_names(parse, "--parse"),
            sql=sql,
            progress=report,
            **_given(options),
        )
    if output is not None:
        fitted.save(output)
    if plot is not None:
        write_plot(fitted, plot)
    if as_json:
        echo_json(as_dict(fitted))
    else:
        click.echo(as_text(fitted))
    _say_where(output, plot)
    if output is not None and fitted.inference is not None:
        from elltwo.inference.stored import keeps_covariance

        if not keeps_covariance(fitted.inference):
            click.echo(
                "The covariance of so many coefficients is not kept in the file: it has the standard errors, "
                "but `elltwo predict --interval` will not work with it.",
                err=True,
            )


def _say_where(output: str | None, plot: str | None) -> None:
    if output is None:
        click.echo("\nThe model was not saved; -o model.safetensors saves it.", err=True)
    else:
        click.echo(
            f"\nModel written to {output}. Next: elltwo predict {output} NEW_DATA -o predictions.csv",
            err=True,
        )
    if plot is not None:
        click.echo(f"Plot written to {plot}", err=True)


def _check_choice(options: dict[str, Any]) -> None:
    """Refuse options that the way of choosing the penalty would ignore."""
    given = [option for option, name in CHOOSING.items() if options[name] not in (None, False)]
    if options["alpha"] is not None and given:
        raise click.UsageError(
            f"--alpha gives the penalty, so {_join(given)} would have nothing to choose. Leave out --alpha "
            f"to have it chosen, or leave out {_join(given)}."
        )
    folding = [option for option in given if option in FOLDING]
    usual = "kfold" if options["model"] in ("elasticnet", "lasso") else "loo"
    rule = options["select"] or ("kfold" if folding else usual)
    if folding and rule != "kfold":
        raise click.UsageError(
            f"{_join(folding)} is for k-fold cross-validation, and --select {rule} makes no folds. Use "
            f"--select kfold, or leave out {_join(folding)}."
        )
    if len(ways := [option for option in given if option in WAYS]) > 1:
        raise click.UsageError(f"{_join(ways)} deal rows to folds in different ways. Keep one of them.")
    if "--one-se" in given and rule not in ("loo", "kfold"):
        raise click.UsageError(
            f"--one-se needs a standard error, which --select {rule} does not have. Use loo or kfold, or "
            "leave out --one-se."
        )
    if "--scoring" in given and rule not in ("loo", "kfold"):
        raise click.UsageError(
            f"--scoring needs held-out rows, which --select {rule} does not have. Use loo or kfold, or leave "
            "out --scoring."
        )


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with a value; --seed alone means k-fold, as the other options of folds do."""
    given = {name: value for name, value in options.items() if value is not None}
    return given | {"select": "kfold"} if "seed" in given else given


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
