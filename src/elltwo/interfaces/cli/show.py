"""`elltwo show`: print what a model file holds."""

from __future__ import annotations

import click

from elltwo.interfaces.cli.picture import check_plot, plot_option, write_plot
from elltwo.interfaces.cli.shared import echo_json

EXAMPLES = """\b
Examples:
  elltwo show model.safetensors
  elltwo show model.safetensors --json | jq '.targets[0].coefficients'
"""


@click.command(epilog=EXAMPLES, short_help="Print the summary of a saved model.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, every feature included.")
@click.option("--all", "everything", is_flag=True, help="List every feature, not only the 30 largest.")
@plot_option
def show(model: str, as_json: bool, everything: bool, plot: str | None) -> None:
    """Print the summary of the model file MODEL, as `elltwo fit` printed it.

    A model file keeps the score of every penalty tried, but not the coefficients, so --plot draws the score.
    """
    if as_json and everything:
        raise click.UsageError("--all is for the text; --json lists every feature already. Leave out --all.")
    if plot is not None:
        check_plot(plot, None, model)
    from elltwo.fitting import load
    from elltwo.summary import as_dict, as_text

    fit = load(model)
    if plot is not None:
        write_plot(fit, plot)
    if as_json:
        echo_json(as_dict(fit))
    else:
        click.echo(as_text(fit, most=None if everything else 30))
    if plot is not None:
        click.echo(f"Plot written to {plot}", err=True)
