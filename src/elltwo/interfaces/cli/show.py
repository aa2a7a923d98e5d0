"""`elltwo show`: print what a model file holds."""

from __future__ import annotations

import click

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
def show(model: str, as_json: bool, everything: bool) -> None:
    """Print the summary of the model file MODEL, as `elltwo fit` printed it."""
    if as_json and everything:
        raise click.UsageError("--all is for the text; --json lists every feature already. Leave out --all.")
    from elltwo.fitting import load
    from elltwo.summary import as_dict, as_text

    fit = load(model)
    if as_json:
        echo_json(as_dict(fit))
    else:
        click.echo(as_text(fit, most=None if everything else 30))
