"""What a fit has to say, as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elltwo.errors import Status
from elltwo.summary.facts import as_dict
from elltwo.summary.layout import printable, wrap
from elltwo.summary.lines import facts_lines
from elltwo.summary.tables import (
    coefficients,
    coefficients_by_target,
    confusion,
    errors_by_target,
    targets_table,
)

if TYPE_CHECKING:
    from elltwo.results import Fit


def as_text(fit: Fit, *, most: int | None = 30) -> str:
    """Return the summary as a table of plain text, at most 96 columns wide.

    Parameters
    ----------
    fit : Fit
        A fitted model.
    most : int or None
        How many features to list, those with the largest standardised coefficients first; None lists
        all. What is left out is counted below the table. `as_dict` always holds every feature.

    Returns
    -------
    str
        Several lines, without a trailing newline.
    """
    facts = as_dict(fit)
    one = len(fit.target_names) == 1
    parts = [facts["title"], facts_lines(facts)]
    if table := confusion(facts):
        parts.append(table)
    if facts["kernel"] is not None:
        if not one and not fit.loss.coupled:
            parts.append(targets_table(facts))
    elif one:
        parts.append(coefficients(facts, most))
    else:
        if not fit.loss.coupled:
            parts.append(targets_table(facts))
        errors = fit.inference is not None
        parts.append(errors_by_target(facts, most) if errors else coefficients_by_target(fit, most))
    # the line "Optimality" says MOMENTS_ONLY already
    notes = [s.value for s in fit.status if s is not Status.MOMENTS_ONLY]
    notes += [printable(note, 1000) for note in (fit.quality or {}).get("notes", ())]
    if notes:
        parts.append("\n".join(wrap(f"Note: {note}", "") for note in notes))
    return "\n\n".join(parts)
