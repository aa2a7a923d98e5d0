"""Losses: half the unit deviance as a function of η = b + Xθ + offset, with gradient and curvature in η."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from elltwo.errors import InputError, ModelFileError, did_you_mean, name_some
from elltwo.losses.base import Loss
from elltwo.losses.binomial import Binomial
from elltwo.losses.gaussian import Gaussian
from elltwo.losses.log_link import Gamma, NegativeBinomial, Poisson, Tweedie
from elltwo.losses.margin import SquaredHinge
from elltwo.losses.multinomial import Multinomial
from elltwo.losses.robust import Huber, SquaredEpsilonInsensitive

__all__ = [
    "FAMILIES",
    "LOSSES",
    "Binomial",
    "Gamma",
    "Gaussian",
    "Huber",
    "Loss",
    "Multinomial",
    "NegativeBinomial",
    "Poisson",
    "SquaredEpsilonInsensitive",
    "SquaredHinge",
    "Tweedie",
    "as_loss",
    "loss_from_dict",
    "loss_to_dict",
]

#: Every loss of the package.
LOSSES: tuple[type[Any], ...] = (
    Gaussian,
    Binomial,
    Multinomial,
    Poisson,
    Gamma,
    Tweedie,
    NegativeBinomial,
    SquaredHinge,
    SquaredEpsilonInsensitive,
    Huber,
)

#: Families of generalised linear models by name: the losses that are the deviance of a distribution, whose
#: η gives a mean. Hinge, tube and Huber are not; their parameter is in units of y and has no fit-all default.
FAMILIES: dict[str, type[Any]] = {
    loss.name: loss for loss in LOSSES if loss not in (SquaredHinge, SquaredEpsilonInsensitive, Huber)
}

_BY_NAME = {loss.name: loss for loss in LOSSES}

# What others call the same; used for hints only.
_CALLED = {
    "normal": "gaussian",
    "squared-error": "gaussian",
    "least-squares": "gaussian",
    "ols": "gaussian",
    "logistic": "binomial",
    "logit": "binomial",
    "bernoulli": "binomial",
    "log-loss": "binomial",
    "softmax": "multinomial",
    "categorical": "multinomial",
    "negbin": "negative-binomial",
    "nb": "negative-binomial",
    "nb2": "negative-binomial",
    "hinge": "squared-hinge",
    "svm": "squared-hinge",
    "svr": "squared-epsilon-insensitive",
}


def as_loss(family: Any, **parameters: Any) -> Any:
    """Return the loss of this name and these parameters; a loss object is returned as it is.

    Parameters
    ----------
    family : str or Loss
        A name of `LOSSES`, or an object with the methods of `Loss`.
    **parameters
        Of the loss: `power` (tweedie), `dispersion` (negative-binomial), `epsilon` (huber and
        squared-epsilon-insensitive).

    Raises
    ------
    InputError
        If the name or a parameter is not known, or a parameter is out of range or given beside an object.

    Examples
    --------
    >>> as_loss("tweedie", power=1.2)
    Tweedie(power=1.2)
    >>> as_loss("posson")
    Traceback (most recent call last):
        ...
    elltwo.errors.InputError: family='posson' is not known. Did you mean 'poisson'? Known: 'gaussian', ...
    """
    if not isinstance(family, str):
        if isinstance(family, type) or not all(callable(getattr(family, m, None)) for m in _METHODS):
            raise InputError(
                f"family must be a name or a loss object; got {family!r}. Known names: "
                f"{name_some(_BY_NAME, len(_BY_NAME))}."
            )
        if parameters:
            raise InputError(
                f"family is an object, {family!r}, so {name_some(parameters)} cannot be given beside it; "
                "give the object its parameters."
            )
        return family
    if family not in _BY_NAME:
        folded = family.casefold().replace("_", "-").replace(" ", "-")
        called = _CALLED.get(folded, folded if folded in _BY_NAME else None)
        hint = f" Did you mean '{called}'?" if called else did_you_mean(family, _BY_NAME)
        raise InputError(
            f"family={family!r} is not known.{hint} Known: {name_some(_BY_NAME, len(_BY_NAME))}."
        )
    known = [field.name for field in fields(_BY_NAME[family])]
    for name in parameters:
        if name not in known:
            takes = f"its parameters are {name_some(known)}" if known else "it takes none"
            raise InputError(
                f"family '{family}' has no parameter '{name}'; {takes}.{did_you_mean(name, known)}"
            )
    return _BY_NAME[family](**parameters)


_METHODS = ("value", "gradient", "curvature", "derivatives", "mean", "link_of", "check", "null")


def loss_to_dict(loss: Any) -> dict[str, Any]:
    """Return a loss of the package as plain JSON: its name and parameters.

    Raises
    ------
    InputError
        If the loss is not one of `LOSSES`: its code could not be found again.

    Examples
    --------
    >>> loss_to_dict(NegativeBinomial(0.5))
    {'name': 'negative-binomial', 'dispersion': 0.5}
    """
    if type(loss) not in LOSSES:
        raise InputError(
            f"{type(loss).__name__} is not a loss of elltwo, so a model file cannot name it; "
            f"only {name_some(_BY_NAME, len(_BY_NAME))} can be saved."
        )
    return {"name": loss.name, **{field.name: getattr(loss, field.name) for field in fields(loss)}}


def loss_from_dict(saved: Any) -> Any:
    """Return the loss that `loss_to_dict` wrote.

    Raises
    ------
    ModelFileError
        If it is of another form, or its name or a parameter is unknown, missing or out of range.

    Examples
    --------
    >>> loss_from_dict({"name": "tweedie", "power": 1.5})
    Tweedie(power=1.5)
    """
    if not isinstance(saved, dict) or not isinstance(saved.get("name"), str):
        raise ModelFileError(f"the loss in the model file is {saved!r}; it must be an object with a name.")
    name = saved["name"]
    if name not in _BY_NAME:
        raise ModelFileError(
            f"the model file has the loss '{name}', which this version of elltwo does not know; "
            "it may be newer. Update elltwo."
        )
    given = {key: value for key, value in saved.items() if key != "name"}
    if missing := {field.name for field in fields(_BY_NAME[name])} - set(given):
        raise ModelFileError(f"the loss '{name}' in the model file lacks {name_some(sorted(missing))}.")
    try:
        return as_loss(name, **given)
    except (InputError, TypeError) as error:
        raise ModelFileError(f"the loss in the model file cannot be used: {error}") from None
