"""What can go wrong, said once: exceptions for bad input, and `Status` for what a result wants you to know.

An exception means that no result exists. A `Status` travels with a result: it says what
was noticed on the way, why it matters and what to do. Predictions are bare arrays, so what they met with is
a warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum


class ElltwoError(Exception):
    """Base class of every error that elltwo raises on purpose."""


class InputError(ElltwoError, ValueError):
    """Data or an argument that cannot be used; the message names it, the cause and the remedy."""


class ModelFileError(ElltwoError, ValueError):
    """A model file that is truncated, foreign, or written by a newer version."""


class OutOfMemoryError(ElltwoError, MemoryError):
    """The memory does not suffice; the message says what was asked for, if that is known, and what to do."""


class MissingPackageError(ElltwoError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class UnseenLevelWarning(UserWarning):
    """New rows hold values of a text column that training did not see; they count as none of the known."""


class Status(Enum):
    """What a fitted result wants its reader to know: cause and remedy in one sentence each.

    The value of each member *is* its message.
    """

    EDGE_LOW = (
        "The best alpha is the smallest one tried. If you gave the alphas, add smaller ones; on the "
        "automatic grid it means that the data ask for next to no penalty (with an L1 penalty, whose grid "
        "does not go down to none, that smaller ones may predict better still)."
    )
    EDGE_HIGH = (
        "The best alpha is the largest one tried. If you gave the alphas, add larger ones; on the "
        "automatic grid it means that the features predict no better than the mean."
    )
    TARGET_WITHOUT_SAY = (
        "Some targets do not vary, or have no score at any alpha tried, so the others alone chose alpha; the "
        'line "Chosen by" (rule_text) names them. Leave such targets out, or correct them.'
    )
    UNDEFINED_FOLDS = (
        "The scoring is not defined on the held-out rows of some folds (R² of one value, AUC of one class, "
        "or a function that gave NaN), and they were left out of the mean. Use fewer or stratified folds."
    )
    ONE_SE_EDGE = (
        "Within one standard error of the best, even the largest alpha tried is as good, so by this rule "
        "the features add nothing to the mean. Leave out one_se to see what the best alpha finds."
    )
    RANK_DEFICIENT = (
        "Some columns are linear combinations of others, so at this alpha the coefficients are not unique; "
        "those of smallest penalty are returned. Drop columns or raise alpha."
    )
    CONSTANT_COLUMNS = (
        "Some columns are constant in these rows; they carry no information and keep the coefficient 0."
    )
    ORTHOGONAL = (
        "The normal equations would have lost the answer, so an orthogonal factorisation (QR, SVD) was used."
    )
    LOST_DIGITS = (
        "Fewer than 6 digits of the worst coefficient can be trusted. "
        "Drop columns that nearly repeat each other, or raise alpha."
    )
    NOT_CONVERGED = (
        "The optimum was not reached: the objective has none at this alpha, or rounding hides it. "
        "Raise alpha, or penalise every feature, so that a unique optimum exists."
    )
    SEPARATED = (
        "The features part the classes without an error, so without a penalty the coefficients grow for "
        "ever; these are where the growth no longer changes the fit. Choose alpha > 0 (for example by 'loo')."
    )
    UNBOUNDED = (
        "A coefficient without a penalty, or the intercept, grows for ever: the rows that it tells apart "
        "have no event, or nothing else. It stands where its growth no longer changes the fit, and its "
        "standard error says nothing. Give the column a penalty (alpha > 0, a multiplier above 0), or leave "
        "it out."
    )
    ESTIMATED_DF = (
        "The effective degrees of freedom are estimated with random probes: with so many coefficients their "
        "exact value would cost far more than the fit."
    )
    LOO_UNAVAILABLE = (
        "Leave-one-out, the default, needs the leverages of rows, which cost too much with so many "
        "coefficients; K-fold cross-validation chose alpha. Pass alpha='kfold' (--select kfold) to say so."
    )
    WHOLE_WEIGHTS = (
        "The weights are whole numbers, and were taken for analytic ones (precisions), each row being one "
        "observation. If a row stands for that many observations, use weights_are='frequency' (--weights-are "
        "frequency)."
    )
    ROUNDED_INPUT = (
        "X or y holds whole numbers beyond 2**53 (or long doubles), which float64 rounds: that takes digits "
        "of the differences within a column, which the certificate counts. Leave the column out if it is an "
        "identifier, or subtract a constant from it before it is converted."
    )
    MOMENTS_ONLY = (
        "The optimality residual was measured on the accumulated moments, "
        "because the rows were not read again."
    )
    RULE_REPLACED = (
        "Leave-one-out needs the rows and K-fold at least two batches, and partial_fit keeps only moments; "
        "generalised cross-validation (GCV) chose alpha. Pass alpha='gcv' to say so, or fit on all rows."
    )


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn what NumPy, Arrow, DuckDB and Python raise when memory is short into `OutOfMemoryError`.

    >>> with enough_memory():
    ...     raise MemoryError("Unable to allocate 3 GiB")
    Traceback (most recent call last):
    elltwo.errors.OutOfMemoryError: Not enough memory: Unable to allocate 3 GiB. Memory grows ...
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except MemoryError as error:
        asked = str(error).partition("\n")[0].strip().rstrip(".")
        raise OutOfMemoryError(
            f"Not enough memory: {asked or 'how much was asked for is not known'}. Memory grows with the "
            "square of the number of features, or of rows where these are fewer, and a text column makes a "
            "feature of each of its values. Leave columns out (--drop, drop=), or take a machine with more."
        ) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string.

    >>> did_you_mean("pirce", ["price", "area"])
    " Did you mean 'price'?"
    """
    folded = {str(k).casefold(): str(k) for k in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[close[0]]}'?" if close else ""


def name_some(names: Iterable[str], most: int = 5) -> str:
    """Join names for a message, at most `most` of them.

    >>> name_some("abcdefg", most=3)
    "'a', 'b', 'c' and 4 more"
    """
    names = list(names)
    shown = ", ".join(f"'{n}'" for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
