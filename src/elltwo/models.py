"""What can be asked for: models, families and their parameters, and what the target turns out to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.data.classes import (
    MOST_LABELS,
    ClassTarget,
    Labels,
    balanced,
    find_class,
    find_labels,
    given_weights,
)
from elltwo.data.offsets import Offsets
from elltwo.data.table import TableSource
from elltwo.elasticnet import HALF, fit_elastic_net
from elltwo.engine import fit_source
from elltwo.errors import InputError, did_you_mean, name_some
from elltwo.kernel_fitting.tables import fit_kernel_source
from elltwo.losses import FAMILIES as DISTRIBUTIONS
from elltwo.losses import LOSSES, as_loss
from elltwo.results import Fit
from elltwo.selection.scoring import SCORING_LINKS

Array = npt.NDArray[Any]

#: Families that `fit` can fit; "auto" looks at the target.
FAMILIES: tuple[str, ...] = (*DISTRIBUTIONS, "huber", "auto")
CLASSES = ("binomial", "multinomial")
#: The family when none is named: "gaussian" for numbers, "binomial" for two labels.
USUAL = "usual"


@dataclass(frozen=True)
class Model:
    """What a model's name stands for: the loss of each family, and what fits it.

    Attributes
    ----------
    what : str
        The model in words.
    losses : mapping
        Names of families to names of losses; a family that is not among them is refused.
    rule : str
        The rule that chooses alpha unless another is asked for.
    fit : callable
        Fits a source: (source, alpha, loss=…, standardize=…, alpha_per_target=…, solver=…, tol=…) -> Fit.
    """

    what: str
    losses: Mapping[str, str]
    fit: Callable[..., Fit]
    rule: str = "loo"


def _elastic_net(l1_ratio: float) -> Callable[..., Fit]:
    """Return a function that fits with this share of the L1 penalty."""

    def fit(source: Any, alpha: Any, *, solver: str = "auto", **options: Any) -> Fit:
        if solver != "auto":
            raise InputError(
                f"solver '{solver}' (--solver) is for ridge; an L1 penalty has its own. Leave it out."
            )
        return fit_elastic_net(source, alpha, l1_ratio=l1_ratio, **options)[0]

    return fit


#: Families of an L1 penalty: all but that whose classes share a softmax.
_L1_FAMILIES = {family: family for family in FAMILIES if family not in ("auto", "multinomial")}
#: Every model that `fit` can fit, by name.
MODELS: dict[str, Model] = {
    "ridge": Model(
        "L2-regularised linear model of any family",
        {family: family for family in FAMILIES if family != "auto"},
        fit_source,
    ),
    "svm": Model(
        "linear support vector machine: squared hinge for classes, squared ε-insensitive for numbers",
        {
            "binomial": "squared-hinge",
            "multinomial": "squared-hinge",
            "gaussian": "squared-epsilon-insensitive",
        },
        fit_source,
    ),
    "elasticnet": Model(
        "linear model with L1 and L2 penalties in equal shares, of any family but multinomial",
        _L1_FAMILIES,
        _elastic_net(HALF),
        "kfold",
    ),
    "lasso": Model(
        "linear model with an L1 penalty, a short list of features, of any family but multinomial",
        _L1_FAMILIES,
        _elastic_net(1.0),
        "kfold",
    ),
    "kernel": Model(
        "functions of a kernel's space in place of linear ones, of any family",
        {family: family for family in FAMILIES if family != "auto"},
        fit_kernel_source,
    ),
}
_NO_MULTINOMIAL = (
    "model '{model}' has no family 'multinomial': its classes share one softmax, and an L1 penalty is solved "
    "for one target at a time. Fit each class against the rest, as family 'binomial' with a column that says "
    "whether a row is of the class, or use model='ridge' (--model ridge)."
)
#: Losses by name, with the parameters that they take.
_PARAMETERS = {loss.name: tuple(f.name for f in fields(loss)) for loss in LOSSES}
#: Which families a parameter is for, in words.
_WHERE = {
    "power": "family 'tweedie'",
    "dispersion": "family 'negative-binomial'",
    "epsilon": "family 'huber', and for model 'svm' of numbers",
}


# ------------------------------------------------------------------------------------ what is asked for


@dataclass(frozen=True)
class Wanted:
    """The model, the family and what goes with them, as the user asked for them."""

    model: str
    family: str
    parameters: dict[str, Any]
    class_weight: Any
    positive: Any
    offsets: Offsets

    def fit(self, source: Source, rule: Any, loss: Any, options: dict[str, Any]) -> Fit:
        """Fit a source with the model's own function."""
        if loss.name != "gaussian":
            options = {**options, "loss": loss}
        return MODELS[self.model].fit(source, rule, **options)


@dataclass(frozen=True)
class Found:
    """The family of the target, why it was taken if that was not said, and its classes if it has any."""

    family: str
    reason: str
    labels: Labels | None = None
    classes: ClassTarget | None = None


def named_model(model: Any) -> str:
    """Return the name of a model; InputError, with the models there are, if it is none."""
    if model not in MODELS:
        known = "; ".join(f"'{name}' ({m.what})" for name, m in MODELS.items())
        raise InputError(
            f"model {model!r} is not available.{did_you_mean(str(model), MODELS)} Available: {known}."
        )
    return str(model)


def named_family(family: Any, model: str) -> str:
    """Return the family; without one it is `USUAL`, and for a support vector machine "auto"."""
    if family is None:
        return "auto" if model == "svm" else USUAL
    if family == "auto":
        return "auto"
    if family not in FAMILIES:
        if family in ("squared-hinge", "squared-epsilon-insensitive"):
            raise InputError(
                f"family '{family}' is a loss of the support vector machine: use model='svm' instead."
            )
        try:
            as_loss(str(family))
        except InputError as error:
            hint = str(error).partition(" Did you mean ")[2].partition("?")[0]
            hint = f" Did you mean {hint}?" if hint else did_you_mean(str(family), FAMILIES)
        raise InputError(f"family {family!r} is not available.{hint} Available: {', '.join(FAMILIES)}.")
    known = MODELS[model].losses
    if family == "multinomial" and model in ("elasticnet", "lasso"):
        raise InputError(_NO_MULTINOMIAL.format(model=model))
    if family not in known:
        raise InputError(
            f"model '{model}' has no family '{family}'; its families are {name_some(known)}. Use one of "
            "them, or model='ridge'."
        )
    return str(family)


def loss_of(wanted: Wanted, found: Found, targets: Sequence[str]) -> Any:
    """Return the loss of the model and family with its parameters; refuse parameters that it has not."""
    name = MODELS[wanted.model].losses[found.family]
    given = {key: value for key, value in wanted.parameters.items() if value is not None}
    for key in given:
        if key not in _PARAMETERS[name]:
            raise InputError(
                f"{key} (--{key}) is for {_WHERE[key]}; the family is '{found.family}' and the model "
                f"'{wanted.model}'. Leave it out, or ask for the other."
            )
    if "epsilon" in _PARAMETERS[name] and "epsilon" not in given:
        what = {
            "huber": "larger errors count in proportion to their size; 1.35 times the usual error is common",
            "squared-epsilon-insensitive": "smaller errors count nothing; 0 gives the ridge regression",
        }[name]
        raise InputError(
            f"epsilon (--epsilon) is missing. It is in units of the target {name_some(targets)}: {what}."
        )
    return as_loss(name, **given)


# ------------------------------------------------------------------------------------ what the target is


def look(table: Any, targets: list[str], wanted: Wanted) -> Found:
    """Return the family of the targets and, for classes, their labels and how these become numbers."""
    family, reason = wanted.family, ""
    for name in targets:
        _refuse_empty_target(table, name)
    if family == USUAL:
        family, reason = _usual_family(table, targets)
    if family not in (*CLASSES, "auto"):
        _refuse_class_options(wanted, f"the family is '{family}'")
        for name in targets:
            if table.kinds[name] not in ("number", "boolean"):
                _refuse_labels(table, name, family)
        return Found(family, "")
    if len(targets) > 1:
        return _look_at_several(table, targets, wanted, reason)
    labels = find_labels(table, targets[0])
    if family == "auto":
        family, reason = _family_of(labels)
    if family not in CLASSES:
        _refuse_class_options(wanted, reason)
        return Found(family, reason, labels)
    if family == "multinomial" and family not in MODELS[wanted.model].losses:
        raise InputError(f"{_NO_MULTINOMIAL.format(model=wanted.model)} Here {reason}.")
    if family not in MODELS[wanted.model].losses:
        raise InputError(
            f"model '{wanted.model}' is not for classes, and {reason}. Name another family or model."
        )
    return Found(family, reason, labels, _class_target(labels, family, wanted))


def _usual_family(table: Any, targets: list[str]) -> tuple[str, str]:
    """Return the family that is taken when none is named, and why where it is not "gaussian"."""
    kinds = {table.kinds[name] for name in targets}
    if kinds == {"boolean"}:
        named = f"target '{targets[0]}' holds" if len(targets) == 1 else "the targets hold"
        return "binomial", f"{named} True and False"
    if "boolean" in kinds:
        name = next(name for name in targets if table.kinds[name] == "boolean")
        raise InputError(
            f"The target '{name}' holds True and False, and others hold numbers. Fit it alone, or say what "
            "all of them are: family='gaussian' (--family gaussian) takes it for 0 and 1."
        )
    if kinds == {"string"} and len(targets) == 1 and len(find_labels(table, targets[0]).counts) == 2:
        return "binomial", f"target '{targets[0]}' holds two labels"
    return "gaussian", ""


def _refuse_empty_target(table: Any, name: str) -> None:
    """Refuse a target without a value in any row."""
    if table.kinds[name] != "other" and not table.has_value(name):
        raise InputError(
            f"The target '{name}' has no value in any row, so there is nothing to learn from. Name another "
            "column, or check that the right data were given."
        )


def _look_at_several(table: Any, targets: list[str], wanted: Wanted, reason: str) -> Found:
    """Several targets are numbers: labels of several columns would make several models."""
    texts = [name for name in targets if table.kinds[name] not in ("number", "boolean")]
    if wanted.family == "multinomial" or texts or (wanted.model == "svm" and wanted.family == "binomial"):
        raise InputError(
            f"Labels are told apart for one target at a time, and {len(targets)} were given. Fit one model "
            "for each."
        )
    family = {"auto": "gaussian", USUAL: "binomial"}.get(wanted.family, wanted.family)
    reason = "there are several targets, all numbers" if wanted.family == "auto" else reason
    _refuse_class_options(wanted, "there are several targets")
    return Found(family, reason)


def _family_of(labels: Labels) -> tuple[str, str]:
    """Return the family that "auto" takes for a column, and why."""
    column, count = labels.column, len(labels.counts)
    if labels.kind in ("string", "boolean", "date"):
        if count == 2 or labels.kind == "boolean":
            return "binomial", f"target '{column}' holds two labels"
        many = f"{count:,}" if labels.complete else f"more than {MOST_LABELS:,}"
        return "multinomial", f"target '{column}' holds {many} labels"
    if set(labels.values) == {0, 1}:
        return "binomial", f"target '{column}' holds 0 and 1 alone"
    return "gaussian", f"target '{column}' holds numbers"


def _refuse_labels(table: Any, name: str, family: str) -> None:
    """Refuse a target that is not numbers for a family of numbers, and say which family it may be."""
    count = 0 if table.kinds[name] == "other" else len(find_labels(table, name).counts)
    hint = ""
    if count == 2:
        hint = "To predict which of its two labels, use family='binomial' (--family binomial). "
    elif 2 < count <= MOST_LABELS:
        hint = f"To tell its {count} labels apart, use family='multinomial' (--family multinomial). "
    raise InputError(
        f"The target '{name}' must hold numbers for the family '{family}' and holds "
        f"{table.schema.field(name).type} values, such as {table.example(name)!r}. {hint}Otherwise "
        "name another column, or convert it with a query (--sql, sql=)."
    )


def _refuse_class_options(wanted: Wanted, why: str) -> None:
    for name, option, value in (
        ("positive", "--positive", wanted.positive),
        ("class_weight", "--class-weight", wanted.class_weight),
    ):
        if value is not None:
            raise InputError(
                f"{name} ({option}) is for targets that hold labels (family 'binomial' or 'multinomial'), "
                f"and {why}. Leave it out."
            )


def _class_target(labels: Labels, family: str, wanted: Wanted) -> ClassTarget | None:
    """Return how the labels become numbers; None where a binomial target holds proportions."""
    column, numeric = labels.column, labels.kind == "number"
    low = -1.0 if wanted.model == "svm" else 0.0
    if family == "binomial" and numeric and labels.fractions and wanted.model != "svm":
        _refuse_class_options(wanted, f"target '{column}' holds proportions")
        return None
    if numeric and labels.fractions:
        fraction = next(value for value in labels.values if isinstance(value, float))
        raise InputError(
            f"The target '{column}' holds numbers with fractions, such as {fraction:g}, and labels of "
            "classes are text, booleans, dates or whole numbers. Use a family of numbers, such as 'gaussian'."
        )
    if not labels.complete:
        raise InputError(
            f"The target '{column}' has more than {MOST_LABELS:,} different values, too many to be labels of "
            "classes. Name another column, use a family of numbers, or group the labels with a query (--sql, "
            "sql=)."
        )
    if len(labels.counts) == 1:
        raise InputError(
            f"The target '{column}' has one label only, {labels.listed()}, so there are no classes to tell "
            "apart. Check the column, or the rows that were selected."
        )
    if family == "multinomial":
        if wanted.positive is not None:
            raise InputError(
                "positive (--positive) is for family 'binomial': of several classes none is the event."
            )
        return ClassTarget(column, labels.values, low, each=True)
    if len(labels.counts) > 2:
        raise InputError(
            f"The target '{column}' has {len(labels.counts):,} labels, and binomial needs two: "
            f"{labels.listed()}. Use family='multinomial' (--family multinomial), mend labels that mean the "
            "same, or group them with a query (--sql, sql=)."
        )
    classes = labels.values
    if wanted.positive is not None and find_class(wanted.positive, classes, "positive (--positive)") == 0:
        classes = classes[::-1]
    return ClassTarget(column, classes, low)


def weighted(
    found: Found, target: ClassTarget, class_weight: Any, source: TableSource, *, free: bool
) -> ClassTarget:
    """Return the classes with their weights; "balanced" reads the rows if their weights or gaps matter."""
    classes = target.classes
    if isinstance(class_weight, Mapping):
        return replace(target, weights=given_weights(class_weight, classes))
    if class_weight != "balanced":
        raise InputError(
            "class_weight (--class-weight) must be 'balanced' or a weight for each label; got "
            f"{class_weight!r}."
        )
    if free and not source.weighted and found.labels is not None:
        rows = np.array([found.labels.counts[label] for label in classes], dtype=np.float64)
    else:
        rows = np.zeros(len(classes))
        for block in source.blocks():
            rows += np.bincount(target.codes(block.y), block.weights, minlength=len(classes))
    refuse_empty(rows, target)
    return replace(target, weights=balanced(rows))


def refuse_empty(rows: Array, target: ClassTarget) -> None:
    """Refuse a class without rows, or of no weight; `rows` has shape (K,)."""
    if not rows.all():
        label = target.classes[int(np.argmin(rows))]
        raise InputError(
            f"No row of the label {label!r} of target '{target.column}' is left, once rows without a value "
            "or of weight 0 are left out. Use --missing mean (missing='mean'), or leave out the emptiest "
            "columns (--drop)."
        )


def check_offsets(offsets: Offsets, loss: Any, found: Found) -> None:
    """Refuse an exposure without a log link, and an offset that all classes would share."""
    if offsets.exposure is not None and loss.link != "log":
        logs = ", ".join(f"'{name}'" for name, family in DISTRIBUTIONS.items() if family.link == "log")
        raise InputError(
            f"exposure (--exposure) needs a family with the log link ({logs}), in which it multiplies the "
            f"expected value; '{loss.name}' has the {loss.link} link. Use another family, or a column as "
            "offset (--offset)."
        )
    if offsets.offset is not None and found.classes is not None and found.classes.each:
        raise InputError(
            "offset (--offset) would be the same for every class and so change nothing. Leave it out, or use "
            "family='binomial'."
        )


def check_scoring(scoring: Any, loss: Any) -> None:
    """Refuse a scoring of classes for numbers, and the other way round."""
    if not isinstance(scoring, str):
        return
    links = SCORING_LINKS.get(scoring)
    if links is None or loss.link in links:
        return
    fits = [name for name, known in SCORING_LINKS.items() if loss.link in known]
    raise InputError(
        f"scoring '{scoring}' (--scoring) does not fit the {loss.name} loss. Use one of "
        f"{name_some(fits, len(fits))}, or leave it out to score by the deviance."
    )
