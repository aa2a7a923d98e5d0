"""What the weights of rows mean, and what they must be for that.

With weights wᵢ the objective is Σ wᵢ·½dev(yᵢ, ηᵢ) + penalty whatever they mean, so that coefficients at a
given α are the same. What they mean decides how many observations there are:

    analytic     a row is one observation whose precision (1/variance) is w times that of a row of weight 1:
                 n is the number of rows of positive weight, and leave-one-out leaves a row out whole
    frequency    a row stands for w equal observations: n = Σw, and leave-one-out leaves out one of them

A source says which by its attribute `counts`, True for frequencies; nothing hangs on the weights' data type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.errors import InputError, Status, did_you_mean

Array = npt.NDArray[Any]

#: What weights may be said to be.
WEIGHTS_ARE = ("analytic", "frequency")


def as_counts(weights_are: Any) -> bool:
    """Return whether weights are frequencies.

    Raises
    ------
    InputError
        For anything but "analytic" and "frequency".

    Examples
    --------
    >>> as_counts("analytic"), as_counts("frequency")
    (False, True)
    """
    if not isinstance(weights_are, str) or weights_are not in WEIGHTS_ARE:
        hint = did_you_mean(weights_are, WEIGHTS_ARE) if isinstance(weights_are, str) else ""
        raise InputError(
            f"weights_are must be 'analytic' (precisions) or 'frequency' (each row stands for that many "
            f"observations); got {weights_are!r}.{hint}"
        )
    return weights_are == "frequency"


def weights_are(source: Source) -> str:
    """Return "analytic" or "frequency": what weights of the rows of a source are."""
    return WEIGHTS_ARE[source.counts]


def meaning(source: Source) -> str:
    """Return what a fit says on the weights of a source: "none", "analytic" or "frequency"."""
    return weights_are(source) if source.weighted else "none"


def weight_notes(source: Source) -> tuple[Status, ...]:
    """Return the note on analytic weights that look like frequencies, once a pass has seen them."""
    alike = getattr(source, "whole_weights", False) and not source.counts
    return (Status.WHOLE_WEIGHTS,) if alike else ()


def check_weights(weights: Any, n: int, *, counts: bool = False) -> Array | None:
    """Return weights as float64 (n,), or None for None.

    Parameters
    ----------
    weights : array, shape (n,), or None
        Numbers ≥ 0 of any type, not all 0.
    n : int
        Number of rows.
    counts : bool
        Whether they are frequencies, which must be whole.

    Raises
    ------
    InputError
        For weights that cannot be used; rows are counted from 0.

    Examples
    --------
    >>> check_weights([3, 0], 2, counts=True)
    array([3., 0.])
    """
    if weights is None:
        return None
    w = np.asarray(weights)
    if w.shape != (n,):
        raise InputError(f"weights have shape {w.shape}; one weight per row is needed: ({n},).")
    if w.dtype.kind not in "fiub":
        raise InputError(f"weights have dtype {w.dtype}; they must be numbers.")
    w = w.astype(np.float64)
    if not np.isfinite(w).all():
        raise InputError(
            f"weights contain {np.count_nonzero(~np.isfinite(w))} NaN or inf; give finite weights."
        )
    if (w < 0).any():
        first = int(np.argmax(w < 0))
        raise InputError(f"weights must not be negative; row {first} has weight {w[first]:g}.")
    if counts and not all_whole(w):
        first = int(np.argmax(w != np.floor(w)))
        raise InputError(not_whole(f"row {first} has weight {w[first]:g}"))
    if not (w > 0).any():
        raise InputError("all weights are zero, so no row counts; give at least one positive weight.")
    return w


def not_whole(where: str) -> str:
    """Return the message for frequencies that are not whole; `where` names the first of them."""
    return (
        f"weights_are='frequency' needs whole numbers, of how many observations a row stands for: {where}. "
        "Correct it, or use weights_are='analytic' (--weights-are analytic) if the weights are precisions."
    )


def all_whole(weights: Array) -> bool:
    """Return whether all weights are whole numbers."""
    return bool((weights == np.floor(weights)).all())


def look_like_counts(weights: Array | None) -> bool:
    """Return whether all weights are whole and some are above 1, as frequencies are.

    >>> look_like_counts(np.array([1.0, 3.0])), look_like_counts(np.array([1.0, 0.0]))
    (True, False)
    """
    return weights is not None and bool(weights.max(initial=0.0) > 1) and all_whole(weights)


def refuse_class_weight(*, weighted: bool, counts: bool, class_weight: Any) -> None:
    """Raise InputError for class weights on rows that stand for several observations."""
    if class_weight is not None and weighted and counts:
        raise InputError(
            "class_weight multiplies the weights of rows, which then are no frequencies any more, so it does "
            "not go with weights_are='frequency'. Give every observation a row of its own, or use "
            "weights_are='analytic'."
        )


def check_weights_are(weights_are: Any, column: str | None, class_weight: Any = None) -> None:
    """Raise InputError for a kind of weights that does not exist, or has none to speak of, for a table.

    Examples
    --------
    >>> check_weights_are("frequency", "trials")
    """
    counts = as_counts(weights_are)
    if counts and column is None:
        raise InputError(
            "weights_are='frequency' (--weights-are frequency) says what weights are, and there are none. "
            "Name their column (weights=, --weights), or leave it out; a Source knows what its weights are."
        )
    refuse_class_weight(weighted=column is not None, counts=counts, class_weight=class_weight)
