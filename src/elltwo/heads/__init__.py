"""The last linear layer of a network in closed form: what does not depend on the framework.

A frozen network turns inputs into features, and its last layer η = b + Wx is then a linear model like any
other: `FeatureSource` hands the features out batch by batch, and the same line that fits `Ridge` and
`LogisticRegression` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.engine import fit_source
from elltwo.errors import InputError
from elltwo.folds import DealtFolds, StratifiedFolds
from elltwo.heads.batches import Batch, again, unpack
from elltwo.heads.outputs import LOSSES, TASKS, Outputs, as_labels, plan_outputs
from elltwo.heads.source import FeatureSource
from elltwo.heads.store import StoredFeatures
from elltwo.results import Fit
from elltwo.selection import OF_NUMBERS, KFold, OfClasses

Array = npt.NDArray[Any]

__all__ = [
    "LOSSES", "TASKS", "Batch", "FeatureSource", "HeadFit", "Outputs", "StoredFeatures", "again", "as_labels",
    "check_fits_dtype", "check_layer", "fit_head", "folds_of", "intercept_wanted", "plan_outputs", "unpack",
]  # fmt: skip


@dataclass(frozen=True)
class HeadFit:
    """A last layer in closed form.

    Attributes
    ----------
    head : module or layer
        The layer that holds the weights.
    fit : Fit
        The linear model on the features: `fit.alpha` (sum scale), `fit.path`, `fit.certificate`, `fit.df`.
    task : {"regression", "classification"}
    classes : tuple of int, or None
        Labels, in the order of the outputs.
    weight, bias : arrays, shapes (outputs, p) and (outputs,)
        What was written into the layer, in float64.
    passes : int
        How often all batches were read and went through the network.
    """

    head: Any
    fit: Fit
    task: str
    classes: tuple[int, ...] | None
    weight: Array
    bias: Array
    passes: int

    @property
    def alpha(self) -> Array:
        """The chosen alpha of each target, on the sum scale; `fit.lambda_` is the same on the mean scale."""
        return self.fit.alpha

    def summary(self) -> str:
        """Return the summary of the linear model, and how often the network ran over the data."""
        times = "once" if self.passes == 1 else f"{self.passes} times"
        return f"{self.fit.summary()}\n\nThe network ran over all batches {times}."


def fit_head(
    source: FeatureSource, alpha: Any, *, codes: Array | None = None, **options: Any
) -> tuple[Fit, Array, Array]:
    """Return the fit of a source, and the layer's weight (units, p) and bias (units,).

    Parameters
    ----------
    source : FeatureSource
        Read anew in each pass for squared error, and once, into a temporary file, for another loss.
    alpha : float, array, str or rule
        As of `Ridge`. K-fold with a number deals the rows to folds by a fixed shuffle, those of each class
        apart if `codes` are given.
    codes : array of int, shape (n,), optional
        The class of each row.
    options
        As of `engine.fit_source`.
    """
    outputs = source.outputs
    outputs.check_scoring(getattr(alpha, "scoring", None))
    rows: FeatureSource | StoredFeatures = source
    if not outputs.squared:
        rows = StoredFeatures(source)
        codes = rows.codes
        _check_classes(rows)
    rule = _rule(alpha, codes)
    scoring = getattr(rule, "scoring", None)
    if outputs.classes is not None and scoring is not None and scoring not in OF_NUMBERS:
        rule = replace(rule, scoring=OfClasses(scoring))
    fit = fit_source(rows, rule, loss=outputs.loss, **options)
    weight, bias = outputs.layer(fit.coef, fit.intercept)
    return replace(fit, classes=outputs.classes), weight, bias


def _check_classes(rows: StoredFeatures) -> None:
    """Raise InputError unless each class has a row of positive weight: its logit has no minimum else."""
    classes = rows.outputs.classes or ()
    seen = np.isin(classes, rows.weighted_codes())
    if seen.sum() == 1:
        raise InputError(
            f"all rows of positive weight are of class {int(np.argmax(seen))}; a classifier needs at least 2 "
            "classes, numbered 0, 1, …."
        )
    if not seen.all():
        raise InputError(
            f"class {int(np.argmin(seen))} has no row of positive weight, but the classes are 0 … "
            f"{len(classes) - 1}, one for each output, and by log-loss its logit would fall without end. "
            "Number the classes from 0 without gaps, or use loss='squared', which gives such a class "
            "the weights 0."
        )


def folds_of(alpha: Any) -> int | None:
    """Return k if alpha is K-fold with a number of folds, for which rows or classes must be counted first."""
    rule = KFold() if isinstance(alpha, str) and alpha == "kfold" else alpha
    number = isinstance(rule, KFold) and isinstance(rule.cv, (int, np.integer))
    return int(rule.cv) if number and not isinstance(rule.cv, bool) else None


def _rule(alpha: Any, codes: Array | None) -> Any:
    k = folds_of(alpha)
    if k is None:
        return alpha
    rule = KFold() if isinstance(alpha, str) else alpha
    return replace(rule, cv=DealtFolds(k) if codes is None else StratifiedFolds.of(codes, k, 0))


def check_layer(weight_shape: tuple[int, ...], source: FeatureSource, name: str) -> None:
    """Raise InputError unless a layer's weight, as (outputs, inputs), fits the features and the outputs."""
    wanted = (source.outputs.units, source.n_features)
    if weight_shape != wanted:
        raise InputError(
            f"{name} takes {weight_shape[1]} feature(s) to {weight_shape[0]} output(s), but the backbone "
            f"gives {wanted[1]} feature(s) for {wanted[0]} output(s). Give a layer of that shape, or none."
        )


def intercept_wanted(fit_intercept: bool | None, has_bias: bool | None) -> bool:
    """Return whether the model has an intercept: as asked for, else as the layer has a bias.

    Raises
    ------
    InputError
        If an intercept is asked for that the layer cannot hold.
    """
    if fit_intercept and has_bias is False:
        raise InputError(
            "fit_intercept=True, but the layer has no bias to hold it. Give a layer with a bias, or leave "
            "out fit_intercept."
        )
    if fit_intercept is None:
        return has_bias is not False
    return bool(fit_intercept)


def check_fits_dtype(values: Iterable[Array], largest: float, dtype: str) -> None:
    """Raise InputError if weights overflow the number format of their layer."""
    most = max((float(np.abs(v).max(initial=0.0)) for v in values), default=0.0)
    if most > largest:
        raise InputError(
            f"a weight of {most:.3g} is too large for a layer in {dtype} (at most {largest:.3g}). Use a "
            "layer in float32, a larger alpha, or features of a larger scale."
        )
