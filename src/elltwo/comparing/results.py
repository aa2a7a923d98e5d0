"""What a comparison found: its rows, the differences that its text rests on, and how it is printed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import did_you_mean

Array = npt.NDArray[Any]

#: Probability with which a claim about one difference is allowed to be wrong, by Student's t.
ERROR_RATE = 0.05


@dataclass(frozen=True)
class Row:
    """What a contestant achieved.

    Attributes
    ----------
    key, kind, label : str
        See `Contestant`.
    fold_errors : tuple of float, length K
        Weighted mean deviance (squared error) of the held-out rows of each fold.
    error, se : float
        Over all held-out rows, and its standard error over folds.
    explained : float or None
        1 − error / error of the mean: the share of the deviance that the features explain out of sample;
        None where the mean makes no error.
    behind, behind_se : float
        How much larger the error is than that of the best, on the same folds, and its standard error.
    within : bool
        Whether the error is within one standard error (of the best one's) of the best.
    nonzero, df, alpha : float
        Medians over folds of the number of features with a coefficient other than 0, of the effective
        degrees of freedom, and of alpha (sum scale of the training rows); alpha is None for the mean.
    seconds : float
        Time of all fits.
    """

    key: str
    kind: str
    label: str
    fold_errors: tuple[float, ...]
    error: float
    se: float
    explained: float | None
    behind: float
    behind_se: float
    within: bool
    nonzero: float
    df: float
    alpha: float | None
    seconds: float


@dataclass(frozen=True)
class Claim:
    """A paired difference on the same folds that a sentence rests on.

    Attributes
    ----------
    model, versus : str
        Keys of the two contestants.
    difference, se : float
        Error of `model` less that of `versus`, and its standard error over folds.
    limit : float
        What |difference| has to exceed to be called clear: se times the 97.5 % quantile of Student's t with
        K − 1 degrees of freedom.
    negligible : bool
        Whether |difference| + limit is below 2 % of the error of `versus`.
    """

    model: str
    versus: str
    difference: float
    se: float
    limit: float
    negligible: bool

    @property
    def better(self) -> bool:
        """Whether `model` is clearly better."""
        return self.difference < -self.limit

    @property
    def worse(self) -> bool:
        """Whether `model` is clearly worse."""
        return self.difference > self.limit


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; printing it shows the table.

    Attributes
    ----------
    rows : tuple of Row
        The contestants, smallest error first.
    prefer : str
        Key of the contestant that the text recommends.
    text : str
        The recommendation in words.
    claims : tuple of Claim
        The paired differences behind it.
    left_out : tuple of (label, reason)
        Contestants that could not take part.
    notes : tuple of str
        What else the reader should know.
    target, family : str
        What is predicted, and its family.
    family_reason : str
        Why the family was taken, where that was not said.
    parameters : dict
        Those of the loss.
    classes : tuple or None
        Labels of the classes.
    n_rows, rows_dropped, rows_predicted : int
        Rows used, rows left out for a missing value or weight 0, and rows that were held out in some fold
        (with `time` the first stretch is not).
    n_features, n_columns : int
        Encoded features of all rows, and the columns they come from.
    split : {"dealt", "group", "time"}
        What the folds keep together or in order.
    key : str or None
        The group or time column.
    fold_rows : tuple of int, length K
        Held-out rows of each fold.
    inner_folds : int
        Folds of the rule "kfold" inside a training set.
    weights : {"none", "analytic", "frequency"}
        What the weights are.
    standardize : bool
    missing : str
    seed : int
    """

    rows: tuple[Row, ...]
    prefer: str
    text: str
    claims: tuple[Claim, ...]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    target: str
    family: str
    family_reason: str
    parameters: dict[str, Any]
    classes: tuple[Any, ...] | None
    n_rows: int
    rows_dropped: int
    rows_predicted: int
    n_features: int
    n_columns: int
    split: str
    key: str | None
    fold_rows: tuple[int, ...]
    inner_folds: int
    weights: str
    standardize: bool
    missing: str
    seed: int

    @property
    def measure(self) -> str:
        """What the error is: "squared error", "deviance" (twice the log-loss for labels) or "loss"."""
        return {"gaussian": "squared error", "huber": "loss"}.get(self.family, "deviance")

    def __getitem__(self, key: str) -> Row:
        """Return the row of a contestant; KeyError if there is none of that key."""
        for row in self.rows:
            if row.key == key:
                return row
        keys = [row.key for row in self.rows]
        raise KeyError(f"{key!r} did not take part.{did_you_mean(key, keys)} There are {', '.join(keys)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; the rows are called ``models``, and NaN or inf None."""
        facts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("rows", "claims", "left_out", "n_rows", "n_features", "n_columns")
        }
        models = []
        for row in self.rows:
            model = dataclasses.asdict(row)
            if self.family == "gaussian":
                model["rmse"] = math.sqrt(row.error)
            models.append(model)
        claims = [
            dataclasses.asdict(claim) | {"better": claim.better, "worse": claim.worse}
            for claim in self.claims
        ]
        left_out = [{"label": label, "reason": reason} for label, reason in self.left_out]
        counts = {"rows": self.n_rows, "features": self.n_features, "columns": self.n_columns}
        more = {"measure": self.measure, "models": models, "claims": claims, "left_out": left_out}
        return plain(facts | counts | more)  # type: ignore[no-any-return]

    def summary(self) -> str:
        """Return the table and the recommendation as plain text, at most 96 columns wide."""
        from elltwo.comparing.text import as_text

        return as_text(self)

    def __str__(self) -> str:
        return self.summary()


def mean_se(errors: Any, weights: Array) -> tuple[float, float]:
    """Return the weighted mean over folds and its standard error, the ratio estimator's.

    Cochran (1977), "Sampling Techniques", section 6.4.

    >>> mean_se([1.0, 2.0, 3.0], np.ones(3))
    (2.0, 0.577...)
    """
    errors, share = np.asarray(errors), weights / weights.sum()
    mean, k = float(share @ errors), len(weights)
    return mean, float(np.sqrt(k / (k - 1) * np.sum((share * (errors - mean)) ** 2)))


def plain(value: Any) -> Any:
    """Return plain JSON values; NaN and infinity become None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
