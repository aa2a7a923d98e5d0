"""Scores of held-out rows other than the loss: by name, by a function, and what they see.

A scoring sees rows that a model did not see, all targets and all alphas at once (`HeldRows`), and gives a
number for each alpha, larger is better, NaN where it is not defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, did_you_mean, name_some
from elltwo.losses import Loss

Array = npt.NDArray[Any]
#: A scoring function (y (n,), predicted mean (n,), weights (n,)) -> float, larger is better, NaN where it is
#: not defined; called for each target. Of classes y is 0 or 1 and the prediction above ½ for a row of the
#: class, a probability if the model has some; of more than two, both are (n, K), a column per class.
Metric = Callable[[Array, Array, Array], float]


class UndefinedScore(InputError):
    """A scoring that is not defined on the held-out rows of any fold."""


@dataclass(frozen=True)
class HeldRows:
    """Rows that a model did not see, and what it makes of them at each alpha.

    Attributes
    ----------
    rows : array of int, shape (m,)
        Their positions in the source.
    y : array, shape (m, T)
    eta : array, shape (m, A, T)
    weights : array, shape (m,)
    alphas : array, shape (A,)
    loss : Loss
    models : (θ (A, p, T), b (A, T)) or None
        None where each row was predicted by a model of its own (leave-one-out).
    """

    rows: Array
    y: Array
    eta: Array
    weights: Array
    alphas: Array
    loss: Loss
    models: tuple[Array, Array] | None = None

    @property
    def members(self) -> tuple[Array, Array]:
        """Targets as 0 or 1 (m, T), and predictions that are above ½ for the class (m, A, T)."""
        if self.loss.link in ("margin", "identity"):  # classes are −1 and 1, parted at 0
            return (self.y + 1) / 2, (self.eta + 1) / 2
        return self.y, self.loss.mean(self.eta)


class Scoring:
    """What can be asked about held-out rows."""

    @property
    def ranks(self) -> bool:
        """Whether it ranks or decides by name, and so tells predictions apart that hardly differ."""
        return False

    def of(self, held: HeldRows) -> Array:
        """Return the scores, larger is better: (A, T), or (A, 1) for one score of all targets."""
        raise NotImplementedError


@dataclass(frozen=True)
class EachTarget(Scoring):
    """A function that is asked for each target, on the scale of y."""

    metric: Metric

    def of(self, held: HeldRows) -> Array:
        """Return the scores (A, T)."""
        return _columns(self.metric, held.y, held.loss.mean(held.eta), held.weights)


@dataclass(frozen=True)
class OfClasses(Scoring):
    """A scoring of classes that targets of 0 and 1, or of −1 and 1, stand for.

    Parameters
    ----------
    scoring : str or callable
        "accuracy", "roc_auc", "neg_log_loss", "neg_brier_score" or a function.
    exclusive : bool
        Whether a row is of one class only; otherwise each target says of a label whether the row has it.
    """

    scoring: str | Metric
    exclusive: bool = True

    @property
    def ranks(self) -> bool:
        """Whether it ranks or decides."""
        return self.scoring in RANKINGS

    def of(self, held: HeldRows) -> Array:
        """Return the scores: (A, T) of classes told from the rest one by one, else (A, 1)."""
        y, prediction = held.members
        metric = metric_of(self.scoring)
        if self.scoring == "roc_auc" and not held.loss.coupled:
            return _columns(metric, y, prediction, held.weights)
        if y.shape[1] == 1:
            y, prediction = y[:, 0], prediction[:, :, 0]
        elif self.scoring == "accuracy" and not self.exclusive:
            metric = _all_right
        return np.array([[metric(y, prediction[:, a], held.weights)] for a in range(prediction.shape[1])])


def _columns(metric: Metric, y: Array, prediction: Array, weights: Array) -> Array:
    """Return a metric of each target at each alpha, (A, T)."""
    return np.array(
        [
            [metric(y[:, t], prediction[:, a, t], weights) for t in range(y.shape[1])]
            for a in range(prediction.shape[1])
        ]
    )


def _weighted_mean(values: Array, weights: Array) -> float:
    return float(weights @ values / weights.sum())


def _r2(y: Array, prediction: Array, weights: Array) -> float:
    if np.ptp(y[weights > 0]) == 0:
        return float("nan")
    spread = _weighted_mean((y - _weighted_mean(y, weights)) ** 2, weights)
    return 1 - _weighted_mean((y - prediction) ** 2, weights) / spread


def _accuracy(y: Array, prediction: Array, weights: Array) -> float:
    if y.ndim == 2:
        return _weighted_mean(y.argmax(axis=1) == prediction.argmax(axis=1), weights)
    return _weighted_mean((y > 0.5) == (prediction > 0.5), weights)


def _all_right(y: Array, prediction: Array, weights: Array) -> float:
    """Return the share of rows of which every label is right."""
    return _weighted_mean(((y > 0.5) == (prediction > 0.5)).all(axis=1), weights)


def _log_loss(y: Array, prediction: Array, weights: Array) -> float:
    tiny = np.finfo(np.float64).tiny
    if y.ndim == 2:
        return -_weighted_mean(np.sum(y * np.log(np.maximum(prediction, tiny)), axis=1), weights)
    likelihood = y * np.log(np.maximum(prediction, tiny)) + (1 - y) * np.log(np.maximum(1 - prediction, tiny))
    return -_weighted_mean(likelihood, weights)


def _brier(y: Array, prediction: Array, weights: Array) -> float:
    squares = (y - prediction) ** 2
    return _weighted_mean(squares.sum(axis=1) if y.ndim == 2 else squares, weights)


def _auc(y: Array, prediction: Array, weights: Array) -> float:
    """Return the area under the ROC curve; of several classes, the mean over each against the rest.

    It is not defined unless rows of positive weight are in the class and outside.
    """
    from sklearn.metrics import roc_auc_score

    if y.ndim == 2:
        return float(np.mean([_auc(y[:, k], prediction[:, k], weights) for k in range(y.shape[1])]))
    positive = y > 0.5
    if len(np.unique(positive[weights > 0])) < 2:
        return float("nan")
    return float(roc_auc_score(positive, prediction, sample_weight=weights))


#: Named scoring functions, larger is better, with scikit-learn's names.
SCORINGS: dict[str, Metric] = {
    "neg_mean_squared_error": lambda y, f, w: -_weighted_mean((y - f) ** 2, w),
    "neg_root_mean_squared_error": lambda y, f, w: -float(np.sqrt(_weighted_mean((y - f) ** 2, w))),
    "neg_mean_absolute_error": lambda y, f, w: -_weighted_mean(np.abs(y - f), w),
    "r2": _r2,
    "accuracy": _accuracy,
    "neg_log_loss": lambda y, f, w: -_log_loss(y, f, w),
    "neg_brier_score": lambda y, f, w: -_brier(y, f, w),
    "roc_auc": _auc,
}
#: Those that rank rows or decide between classes.
RANKINGS = ("accuracy", "roc_auc")
#: Links of the losses for whose predictions a scoring is defined.
_NUMBERS = ("identity", "log", "logit")
SCORING_LINKS: dict[str, tuple[str, ...]] = {
    "neg_mean_squared_error": _NUMBERS,
    "neg_root_mean_squared_error": _NUMBERS,
    "neg_mean_absolute_error": _NUMBERS,
    "r2": _NUMBERS,
    "accuracy": ("logit", "softmax", "margin"),
    "neg_log_loss": ("logit", "softmax"),
    "neg_brier_score": ("logit", "softmax"),
    "roc_auc": ("logit", "softmax", "margin"),
}
#: Scorings by name that say something of predicted numbers.
OF_NUMBERS = tuple(name for name, links in SCORING_LINKS.items() if "identity" in links)


def metric_of(scoring: str | Metric) -> Metric:
    """Return the scoring function for a name or a function.

    Raises
    ------
    InputError
        If no scoring has that name, or the function is a scorer of scikit-learn.
    """
    if hasattr(scoring, "_score_func"):
        raise InputError(
            f"scoring={scoring!r} is a scorer of (estimator, X, y), and rules take a function of (y, "
            "prediction, weights) -> float, larger is better. Wrap its metric in one, or use RidgeCV, which "
            "takes scorers."
        )
    if callable(scoring):
        return scoring
    if scoring not in SCORINGS:
        known = ", ".join(SCORINGS)
        raise InputError(
            f"scoring '{scoring}' is not known.{did_you_mean(str(scoring), SCORINGS)} Choose from: {known}."
        )
    return SCORINGS[scoring]


def as_scoring(scoring: str | Metric | Scoring, loss: Loss) -> Scoring:
    """Return the scoring for a name, a function or a scoring, of predictions by a loss.

    Raises
    ------
    InputError
        If no scoring has that name, or it says nothing of what the loss predicts.
    """
    if isinstance(scoring, Scoring):
        return scoring
    metric = metric_of(scoring)
    if isinstance(scoring, str) and loss.link not in SCORING_LINKS[scoring]:
        fits = [name for name, links in SCORING_LINKS.items() if loss.link in links]
        raise InputError(
            f"scoring='{scoring}' says nothing of the predictions by {loss.name} loss. "
            f"Choose from {name_some(fits, len(fits))}, or None for the loss itself."
        )
    if loss.coupled or loss.link == "margin":
        return OfClasses(scoring)
    if scoring in RANKINGS:
        return _EachLabel(metric)
    return EachTarget(metric)


@dataclass(frozen=True)
class _EachLabel(EachTarget):
    """A metric of 0 and 1 that ranks or decides, asked for each target."""

    @property
    def ranks(self) -> bool:
        """Whether it ranks or decides: it does."""
        return True


#: How far predictions are moved off the mean, as shares of y − mean; what share of a score is no rounding.
_OFF, _REAL = (1e-6, 1e-8), 1e-9


def refuse_rankings(scoring: Scoring, held: HeldRows, mean: Array) -> None:
    """Refuse a function that jumps between predictions next to the mean (T,), for leave-one-out.

    Without a row the mean moves against it, by (y − mean)/(n − 1). A score that asks for ranks, signs or a
    correlation then finds a model near the mean wrong on every row, however little the predictions differ.
    A smooth score differs in proportion to them.
    """
    means = np.stack([mean + side * off * (held.y - mean) for off in _OFF for side in (-1, 1)], axis=1)
    scores = scoring.of(replace(held, eta=held.loss.null(means), alphas=np.zeros(4)))
    with np.errstate(invalid="ignore"):
        far, near = np.abs(scores[0] - scores[1]), np.abs(scores[2] - scores[3])
        jumps = (near > 0.5 * far) & (near > _REAL * np.abs(scores).max(axis=0))
    if jumps.any():
        raise InputError(
            "the function given as scoring jumps between predictions that differ by next to nothing, as "
            "ranks, signs and correlations do. By leave-one-out it would find a model near the mean wrong on "
            "every row, since the mean without a row moves against it. Use KFold(scoring=…) "
            "(select='kfold'; for RidgeCV cv=5)."
        )
