"""How well a model tells classes apart: on the rows that it was fitted to, and on rows that were held out.

Symbols: y the class of a row, p the predicted probabilities, w the weight of the row (without class weights,
which say what a mistake costs and not how often the row is there).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.data.classes import ClassTarget
from elltwo.results import Fit

Array = npt.NDArray[Any]

#: Up to so many classes the confusion table is kept.
MOST_CONFUSED = 50
#: Rows on disk are read once more up to so many; the fit itself reads them dozens of times, but keeps nothing
#: for each row, and the area under the curve needs three numbers.
MOST_ROWS = 10_000_000


def measure(fit: Fit, source: Source, target: ClassTarget, class_rows: Array) -> dict[str, Any]:
    """Return what is known about the classes and, unless there are too many rows, about their predictions.

    Parameters
    ----------
    fit : Fit
        The model.
    source : Source
        The rows that it was fitted to.
    target : ClassTarget
        How its targets code the classes.
    class_rows : array of int, shape (K,)
        Number of rows of each class.

    Returns
    -------
    dict
        ``class_rows``; then either ``not_computed``, the reason, or ``accuracy`` and ``confusion`` (one list
        for each true class, over the predicted ones; rows, or observations if weights are frequencies; None
        for more than 50 classes). For probabilities ``log_loss`` = −Σ w·log p_y/Σw and ``brier`` =
        Σ w·Σₖ(pₖ − yₖ)²/Σw (of two classes, over the event alone). Of two classes ``auc``.
    """
    facts: dict[str, Any] = {"class_rows": class_rows.tolist()}
    if too_many(source, fit.n_rows):
        return facts | {"not_computed": f"more than {MOST_ROWS:,} rows, on disk"}
    K = len(target.classes)
    probable = fit.loss.link in ("logit", "softmax")
    confusion = np.zeros((K, K))
    weight, right, log_loss, brier = 0.0, 0.0, 0.0, 0.0
    scores: list[tuple[Array, Array, Array]] = []
    for y, eta, w in _rows(fit, source, target):
        best = predicted(target, eta)
        np.add.at(confusion, (y, best), w if source.counts else w > 0)
        weight, right = weight + float(w.sum()), right + float(w[best == y].sum())
        if probable:
            losses, squares = _of_probabilities(fit.loss, y, eta, target.each)
            log_loss, brier = log_loss + float(w @ losses), brier + float(w @ squares)
        if not target.each:
            scores.append((y, eta[:, 0], w))
    facts["accuracy"] = right / weight
    if probable:
        facts |= {"log_loss": log_loss / weight, "brier": brier / weight}
    if scores:
        y, score, w = (np.concatenate(part) for part in zip(*scores, strict=True))
        facts["auc"] = auc(y == 1, score, w)
    facts["confusion"] = confusion.tolist() if K <= MOST_CONFUSED else None
    return facts


def too_many(source: Source, rows: int | None) -> bool:
    """Return whether rows on disk are known to be so many that their predictions are not looked at."""
    return not source.in_memory and rows is not None and rows > MOST_ROWS


@dataclass
class HeldOutQuality:
    """What predictions of held-out rows say on the classes, added up part by part.

    A row that several folds hold out counts as often. Rows whose prediction is not determined are left out.

    Parameters
    ----------
    target : ClassTarget
        How the targets code the classes.
    counts : bool
        Whether the weights are frequencies.
    """

    target: ClassTarget
    counts: bool
    confusion: Array = field(init=False)
    right: float = 0.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        K = len(self.target.classes)
        self.confusion = np.zeros((K, K))

    def __call__(self, y: Array, eta: Array, w: Array) -> None:
        """Add rows: targets (m, T), η (m, T), weights (m,)."""
        known = np.isfinite(eta).all(axis=1)
        codes, eta = self.target.codes(y[known]), eta[known]
        w = _without_class_weights(self.target, codes, w[known])
        best = predicted(self.target, eta)
        np.add.at(self.confusion, (codes, best), w if self.counts else w > 0)
        self.right += float(w[best == codes].sum())
        self.weight += float(w.sum())

    def facts(self, by: str) -> dict[str, Any] | None:
        """Return ``by`` (the rule), ``accuracy`` and ``confusion`` as `measure` does; None without rows."""
        if self.weight == 0:
            return None
        few = len(self.confusion) <= MOST_CONFUSED
        return {
            "by": by,
            "accuracy": self.right / self.weight,
            "confusion": self.confusion.tolist() if few else None,
        }


def predicted(target: ClassTarget, eta: Array) -> Array:
    """Return the class with the largest η, of two classes that of its sign, shape (m,)."""
    return eta.argmax(axis=1) if target.each else (eta[:, 0] > 0).astype(np.intp)


def _without_class_weights(target: ClassTarget, codes: Array, w: Array) -> Array:
    """Return the weights without those of the classes."""
    return w if target.weights is None else w / np.array(target.weights)[codes]


def _rows(fit: Fit, source: Source, target: ClassTarget) -> Iterator[tuple[Array, Array, Array]]:
    """Yield the class, η and weight of the rows, block after block."""
    for block in source.blocks():
        y = target.codes(block.y)
        w = np.ones(len(y)) if block.weights is None else block.weights
        yield y, fit.decision(block.X, offset=block.offset), _without_class_weights(target, y, w)


def _of_probabilities(loss: Any, y: Array, eta: Array, each: bool) -> tuple[Array, Array]:
    """Return −log p_y and the Brier score of every row."""
    coded = np.eye(eta.shape[1])[y] if each else y[:, None].astype(np.float64)
    squares = (loss.mean(eta) - coded) ** 2
    value = loss.value(coded, eta)
    return (value if each else value[:, 0]), squares.sum(axis=1)


def auc(event: Array, score: Array, weights: Array) -> float:
    """Return the area under the ROC curve: P(score of an event > score of another row), ties count half.

    Mann and Whitney (1947); with weights w the share of pairs is that of the products of their weights.

    >>> auc(np.array([False, True, True]), np.array([0.1, 0.1, 0.7]), np.ones(3))
    0.75
    """
    distinct, at = np.unique(score, return_inverse=True)
    yes = np.bincount(at, weights * event, minlength=len(distinct))
    no = np.bincount(at, weights * ~event, minlength=len(distinct))
    below = np.cumsum(no) - no
    return float(yes @ (below + 0.5 * no) / (yes.sum() * no.sum()))
