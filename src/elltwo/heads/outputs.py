"""What the outputs of a last layer stand for: targets as numbers, a linear model as weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, did_you_mean, name_some
from elltwo.heads.batches import Batch
from elltwo.losses import Binomial, Gaussian, Loss, Multinomial
from elltwo.selection import OF_NUMBERS

Array = npt.NDArray[Any]

TASKS = ("regression", "classification")
LOSSES = ("squared", "logistic")
#: Scorings by name that say something of scores ±1 of classes, and of probabilities.
OF_SCORES = ("accuracy", "roc_auc", *OF_NUMBERS)
OF_PROBABILITIES = ("accuracy", "neg_brier_score", "neg_log_loss", "roc_auc")


@dataclass(frozen=True)
class Outputs:
    """What the outputs of the layer stand for, and how targets become numbers.

    Attributes
    ----------
    task : {"regression", "classification"}
    units : int
        Outputs of the layer: targets, or classes; two classes may share one output.
    loss : Loss
    """

    task: str
    units: int
    loss: Loss

    @property
    def classes(self) -> tuple[int, ...] | None:
        """Labels 0 … K − 1, or None for a regression."""
        return tuple(range(max(2, self.units))) if self.task == "classification" else None

    @property
    def n_targets(self) -> int:
        """Columns of the linear model: two classes need one."""
        return 1 if self.classes is not None and len(self.classes) == 2 else self.units

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the columns."""
        if self.n_targets == 1:
            return ("y",)
        return tuple(f"class {c}" if self.classes else f"y{c}" for c in range(self.units))

    def code(self, y: Array, number: int) -> Array:
        """Return the targets of batch `number` as numbers (m, T): ±1 for classes, 0 or 1 for the log-loss."""
        if self.classes is None:
            return _numbers(y, self.units, number)
        labels = as_labels(y, number)
        if labels.max(initial=0) >= len(self.classes):
            row = int(np.argmax(labels >= len(self.classes)))
            raise InputError(
                f"the label {labels[row]} in row {row} of batch {number} is too large for a layer of "
                f"{self.units} output(s), which tells the classes 0 … {len(self.classes) - 1} apart. Give a "
                "layer with more outputs or correct the labels; for numbers, task='regression'."
            )
        return self.members(labels)

    def members(self, labels: Array) -> Array:
        """Return classes (m,) as numbers (m, T): ±1 for squared error, 0 or 1 for the log-loss."""
        member = labels[:, None] == (np.array([1]) if self.n_targets == 1 else np.arange(self.units))
        return np.where(member, 1.0, -1.0) if self.squared else member.astype(np.float64)

    def labels(self, y: Array) -> Array:
        """Return the classes (m,) of which these are the numbers (m, T)."""
        return np.asarray((y[:, 0] > 0.5).astype(np.int64) if self.n_targets == 1 else y.argmax(axis=1))

    @property
    def squared(self) -> bool:
        """Whether the loss is squared error."""
        return isinstance(self.loss, Gaussian)

    def check_scoring(self, scoring: Any) -> None:
        """Raise InputError for the name of a scoring that says nothing of these outputs."""
        if self.classes is None or not isinstance(scoring, str):
            return
        known = OF_SCORES if self.squared else OF_PROBABILITIES
        if scoring not in known:
            raise InputError(
                f"scoring={scoring!r} has no meaning for {len(self.classes)} classes and "
                f"{'squared' if self.squared else 'logistic'} loss.{did_you_mean(scoring, known)} Choose "
                f"from {name_some(known)}, or None for the loss itself."
            )

    def layer(self, coef: Array, intercept: Array) -> tuple[Array, Array]:
        """Return the layer's weight (units, p) and bias (units,) for θ (p, T) and b (T,).

        Two classes on two outputs share what one output would hold: −½η and ½η for the log-loss, whose
        softmax then is the probability; −η and η for the squared error, which fits ±1 to each.
        """
        weight, bias = coef.T, intercept
        if self.units == self.n_targets:
            return weight, bias
        share = 1.0 if self.squared else 0.5
        return share * np.vstack([-weight, weight]), share * np.concatenate([-bias, bias])


def plan_outputs(
    first: Batch, targets: Iterable[Array], *, task: str | None, loss: str | None, units: int | None
) -> Outputs:
    """Return what the outputs stand for.

    Parameters
    ----------
    first : Batch
        The first batch; with `task=None`, whole numbers or booleans in it mean classes if there is one per
        row, or if all rows are one-hot.
    targets : iterable of arrays
        The targets of all batches; read only where the number of classes is not known otherwise.
    task : {"regression", "classification"} or None
        None: as the targets say.
    loss : {"squared", "logistic"} or None
        None: squared error.
    units : int or None
        Outputs of a layer that is given.

    Raises
    ------
    InputError
        For a task or loss of another name, or targets that do not fit the task or the layer.
    """
    for name, value, known in (("task", task, TASKS), ("loss", loss, LOSSES)):
        if value is not None and value not in known:
            hint = did_you_mean(str(value), known)
            raise InputError(f"{name}={value!r} is not known.{hint} Choose from {name_some(known)}.")
    if task is None:
        single = first.y.ndim == 1 or first.y.shape[1:] == (1,)
        whole = first.y.dtype.kind in "iub" and (single or (first.y.ndim == 2 and one_hot(first.y).all()))
        task = "classification" if whole or loss == "logistic" else "regression"
    if task == "regression":
        if loss == "logistic":
            raise InputError("loss='logistic' tells classes apart; use it with task='classification'.")
        width = 1 if first.y.ndim == 1 else int(np.prod(first.y.shape[1:]))
        if units is not None and units != width:
            raise InputError(
                f"the layer has {units} output(s), but the targets have {width} column(s). Give a layer with "
                f"{width} output(s); for labels of classes, task='classification'."
            )
        return Outputs(task, width, Gaussian())
    if units is None:
        units = 1 + max((int(as_labels(y, i).max(initial=0)) for i, y in enumerate(targets)), default=0)
        if units < 2:
            raise InputError("all labels are 0, so there is only one class; a classifier needs at least 2.")
    logistic: Loss = Binomial() if units <= 2 else Multinomial()
    return Outputs(task, units, logistic if loss == "logistic" else Gaussian())


def as_labels(y: Array, number: int) -> Array:
    """Return the classes (m,) of batch `number`: whole numbers from 0, as (m,), (m, 1) or one-hot (m, K).

    Raises
    ------
    InputError
        If they are something else; the message names batch and row.
    """
    where = f"batch {number}"
    if y.ndim == 2 and y.shape[1] > 1:
        good = one_hot(y)
        if not good.all():
            raise InputError(
                f"the target in row {int(np.argmin(good))} of {where} is not one-hot: one 1 and else 0. "
                "Give labels 0, 1, … or one-hot rows; for numbers, task='regression'."
            )
        return np.asarray(y.argmax(axis=1))
    if y.ndim == 2:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"the labels of {where} have shape {y.shape}; one label per row is needed.")
    whole = np.ones(len(y), dtype=bool) if y.dtype.kind in "iub" else (y == np.rint(y)) & np.isfinite(y)
    good = whole & (y >= 0)
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(
            f"the label in row {row} of {where} is {y[row]!s}; labels are whole numbers 0, 1, …, the "
            "positions of the outputs. Number the classes so (rows to be left out get weight 0 and "
            "any label); for numbers, task='regression'."
        )
    return y.astype(np.int64)


def one_hot(y: Array) -> npt.NDArray[np.bool_]:
    """Return for each row of y (m, K) whether it is one 1 and else 0."""
    return np.asarray(np.isin(y, (0, 1)).all(axis=1) & (y.sum(axis=1) == 1))


def _numbers(y: Array, units: int, number: int) -> Array:
    """Return the targets of a regression as float64 (m, units)."""
    values = y.astype(np.float64).reshape(len(y), -1)
    if values.shape[1] != units:
        raise InputError(
            f"batch {number} has {values.shape[1]} target(s) per row; the first batch has {units}."
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise InputError(
            f"the target in row {int(np.argmax(bad))} of batch {number} is NaN or infinite. Leave out such "
            "rows, or give them weight 0 and a target of 0."
        )
    return values
