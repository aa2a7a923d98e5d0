"""What other tools mean by their λ: one table, and `convert` between any two of them.

Every tool minimises some loss plus some penalty, and scales each of them in its own way. Each
entry of `DIALECTS` states that objective and the α that gives the same coefficients in ours,

    Σᵢ wᵢ·½·dev(yᵢ, ηᵢ)  +  (α/2)·‖θ‖²        (Gaussian: the same as SSE + α‖θ‖²)

A conversion always goes from → sum → to. Symbols: n rows (with weights, their sum), T targets,
½dev half the unit deviance: ½(y − η)² for "gaussian", logloss = log(1 + e^η) − yη with y in
{0, 1} for "logistic", and e^η − yη (plus a constant) for "poisson".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, did_you_mean

Array = npt.NDArray[np.float64]

LOSS_NAMES = ("gaussian", "logistic", "poisson")
_ALIASES = {"binomial": "logistic"}


@dataclass(frozen=True)
class Form:
    """One objective, and the α on the sum scale that has the same optimum.

    α = constant · n^n · T^n_targets · y_std^y_std · λ^value, with the powers stored here.

    Attributes
    ----------
    objective : str
        What is minimised.
    constant : float
        Number in front.
    n, n_targets, y_std : int
        Powers of the number of rows, of targets, and of the target's standard deviation.
    value : {1, -1}
        Power of the tool's own parameter; -1 for an inverse strength such as C.
    """

    objective: str
    constant: float = 1.0
    n: int = 0
    n_targets: int = 0
    y_std: int = 0
    value: int = 1

    def needs(self) -> tuple[str, ...]:
        """Return the names of the quantities that the factor depends on."""
        return tuple(name for name in ("n", "n_targets", "y_std") if getattr(self, name))

    def formula(self, parameter: str) -> str:
        """Return α in terms of the tool's parameter.

        >>> Form("", constant=2.0, n=1, y_std=-1).formula("λ")
        'α = 2·n·λ/y_std'
        """
        powers = {"n": self.n, "T": self.n_targets, parameter: self.value, "y_std": self.y_std}
        over = [name for name, power in powers.items() if power < 0]
        times = [name for name, power in powers.items() if power > 0]
        if self.constant > 1:
            times.insert(0, f"{self.constant:g}")
        if self.constant < 1:
            over.append(f"{1 / self.constant:g}")
        return "α = " + "/".join(["·".join(times) or "1", *over])

    def factor(self, quantities: Mapping[str, float]) -> float:
        """Return the α of λ = 1."""
        powers = (quantities[name] ** getattr(self, name) for name in self.needs())
        return float(np.prod([self.constant, *powers]))


@dataclass(frozen=True)
class Dialect:
    """How one tool, or one textbook form, writes its L2 penalty.

    Attributes
    ----------
    name : str
        Name for `convert`.
    tool : str
        What to call, with the settings that the conversion assumes.
    parameter : str
        The tool's name for its strength.
    forms : mapping of str to Form
        The objective for each loss that the tool has.
    instead : mapping of str to str
        For a loss that the tool lacks, what to use.
    """

    name: str
    tool: str
    parameter: str
    forms: Mapping[str, Form]
    instead: Mapping[str, str] = field(default_factory=dict)

    def form(self, loss: str) -> Form:
        """Return the form for a loss; raises InputError where there is none."""
        if loss not in self.forms:
            raise InputError(
                f"'{self.name}' ({self.tool}) has no parameter for loss='{loss}'. {self.instead[loss]}"
            )
        return self.forms[loss]


_HALF_DEVIANCE = {"gaussian": "½Σ(y − η)²", "logistic": "Σ logloss", "poisson": "Σ(e^η − yη)"}
_DEVIANCE = {"gaussian": "Σ(y − η)²", "logistic": "2·Σ logloss", "poisson": "2·Σ(e^η − yη)"}


def _forms(objective: str, *losses: str, **powers: Any) -> dict[str, Form]:
    """Return the same objective for several losses (all of them if none is named)."""
    return {
        loss: Form(objective.format(half=_HALF_DEVIANCE[loss], dev=_DEVIANCE[loss]), **powers)
        for loss in losses or LOSS_NAMES
    }


DIALECTS: tuple[Dialect, ...] = (
    Dialect("sum", "elltwo's own alpha", "α", _forms("{half} + (α/2)·‖θ‖²")),
    Dialect(
        "mean",
        "MSE (mean deviance) and the whole penalty; elltwo's λ",
        "λ",
        _forms("{dev}/n + λ·‖θ‖²", n=1),
    ),
    Dialect(
        "half-mean",
        "half the MSE (half the mean deviance) and half the penalty",
        "λ",
        _forms("{half}/n + (λ/2)·‖θ‖²", n=1),
    ),
    Dialect(
        "sklearn",
        "scikit-learn Ridge(alpha), PoissonRegressor(alpha)",
        "alpha",
        _forms("{dev} + alpha·‖θ‖²", "gaussian") | _forms("{half}/n + (alpha/2)·‖θ‖²", "poisson", n=1),
        {"logistic": "scikit-learn's LogisticRegression has C = 1/α: use 'C'."},
    ),
    Dialect(
        "C",
        "scikit-learn LogisticRegression(C)",
        "C",
        _forms("C·{half} + ½·‖θ‖²", "logistic", value=-1),
        {
            "gaussian": "scikit-learn's Ridge has alpha: use 'sklearn'.",
            "poisson": "scikit-learn's PoissonRegressor has alpha: use 'sklearn'.",
        },
    ),
    Dialect(
        "sklearn-elasticnet",
        "scikit-learn ElasticNet(alpha, l1_ratio=0)",
        "alpha",
        _forms("{half}/n + (alpha/2)·‖θ‖²", "gaussian", n=1),
        {
            "logistic": "scikit-learn's LogisticRegression has C = 1/α: use 'C'.",
            "poisson": "scikit-learn's PoissonRegressor has alpha: use 'sklearn'.",
        },
    ),
    Dialect(
        "glmnet",
        "R glmnet(alpha = 0, lambda, standardize = FALSE)",
        "λ",
        _forms("{half}/n + (λ/(2·y_std))·‖θ‖²", "gaussian", n=1, y_std=-1)
        | _forms("{half}/n + (λ/2)·‖θ‖²", "logistic", "poisson", n=1),
    ),
    Dialect(
        "statsmodels",
        "statsmodels OLS, WLS, GLM .fit_regularized(alpha, L1_wt=0)",
        "alpha",
        _forms("{half}/n + (alpha/2)·‖θ‖²", n=1),
    ),
    Dialect(
        "spark",
        "Spark LinearRegression, LogisticRegression (regParam, standardization=False)",
        "regParam",
        _forms("{half}/n + (regParam/(2·y_std))·‖θ‖²", "gaussian", n=1, y_std=-1)
        | _forms("{half}/n + (regParam/2)·‖θ‖²", "logistic", n=1),
        {
            "poisson": "Spark's GeneralizedLinearRegression divides by the sum of its working weights, "
            "which is Σy for a log link with intercept: use 'half-mean' with n=Σy."
        },
    ),
    Dialect(
        "keras",
        "Keras kernel_regularizer=l2(l2), mean loss",
        "l2",
        _forms("{dev}/(n·T) + l2·‖θ‖²", "gaussian", n=1, n_targets=1)
        | _forms("{half}/(n·T) + l2·‖θ‖²", "logistic", "poisson", constant=2, n=1, n_targets=1),
    ),
    Dialect(
        "torch",
        "PyTorch SGD or Adam (weight_decay), mean loss",
        "weight_decay",
        _forms("{dev}/(n·T) + (weight_decay/2)·‖θ‖²", "gaussian", constant=0.5, n=1, n_targets=1)
        | _forms("{half}/(n·T) + (weight_decay/2)·‖θ‖²", "logistic", "poisson", n=1, n_targets=1),
    ),
)

_DIALECT = {dialect.name: dialect for dialect in DIALECTS}
_MEANING = {
    "n": "the number of rows (with weights, their sum)",
    "y_std": "the target's population standard deviation, np.std(y)",
}


@overload
def convert(
    value: float,
    *,
    from_: str,
    to: str,
    n: float | None = ...,
    loss: str = ...,
    y_std: float | None = ...,
    n_targets: int = ...,
) -> float: ...
@overload
def convert(
    value: Sequence[float] | npt.NDArray[Any],
    *,
    from_: str,
    to: str,
    n: float | None = ...,
    loss: str = ...,
    y_std: float | None = ...,
    n_targets: int = ...,
) -> Array: ...
def convert(
    value: npt.ArrayLike,
    *,
    from_: str,
    to: str,
    n: float | None = None,
    loss: str = "gaussian",
    y_std: float | None = None,
    n_targets: int = 1,
) -> float | Array:
    """Convert a regularisation strength from one tool's meaning to another's.

    With the result, tool `to` has the same optimal coefficients as tool `from_` has with `value`.
    The conversion goes through our sum scale, Σ wᵢ·½·dev(yᵢ, ηᵢ) + (α/2)·‖θ‖²: each entry of
    `DIALECTS` states its objective and its α, for example α = n·λ for the mean form MSE + λ‖θ‖²
    and α = 1/C for scikit-learn's LogisticRegression.

    Parameters
    ----------
    value : float or array of any shape
        The strength in dialect `from_`, ≥ 0. Infinity is allowed: α = 0 and C = ∞ are the same.
    from_, to : str
        Names of dialects: "sum", "mean", "half-mean", "sklearn", "C", "sklearn-elasticnet",
        "glmnet", "statsmodels", "spark", "keras" or "torch".
    n : float, optional
        Number of training rows; with weights, the sum of the weights for tools that divide by
        it. Keras, PyTorch and statsmodels' GLM divide by the rows also when there are weights.
        Required where a dialect divides its loss by n.
    loss : {"gaussian", "logistic", "poisson"}
        "binomial" is another name of "logistic".
    y_std : float, optional
        Population standard deviation (divisor n) of the target, in the target's units. Required
        for "glmnet" and "spark" with the Gaussian loss, which divide the target by it.
    n_targets : int
        Number of outputs T, over which the mean losses of Keras and PyTorch also average.

    Returns
    -------
    float or array of float64, shape of `value`

    Raises
    ------
    InputError
        An unknown dialect or loss, a loss that a dialect does not have, a negative or NaN value,
        or a missing or impossible n, y_std or n_targets.

    Examples
    --------
    >>> convert(1.0, from_="sklearn", to="mean", n=500)
    0.002
    >>> convert(0.5, from_="C", to="glmnet", n=100, loss="logistic")
    0.02
    >>> convert([0.1, 0.2], from_="torch", to="sum", n=100)
    array([ 5., 10.])
    """
    loss = _known_loss(loss)
    forms = {name: _known_dialect(name, key).form(loss) for key, name in (("from_", from_), ("to", to))}
    values = _checked_value(value, from_)
    quantities = _checked_quantities(forms, {"n": n, "n_targets": n_targets, "y_std": y_std})
    with np.errstate(divide="ignore", over="ignore"):
        alpha = values ** forms[from_].value * forms[from_].factor(quantities)
        converted = (alpha / forms[to].factor(quantities)) ** forms[to].value
    return converted if converted.ndim else float(converted)


def _known_loss(loss: str) -> str:
    name = _ALIASES.get(loss, loss)
    if name not in LOSS_NAMES:
        hint = did_you_mean(str(loss), [*LOSS_NAMES, *_ALIASES])
        raise InputError(f"loss={loss!r} is not known.{hint} Known losses: {', '.join(LOSS_NAMES)}.")
    return name


def _known_dialect(name: str, argument: str) -> Dialect:
    if name not in _DIALECT:
        hint = did_you_mean(str(name), _DIALECT)
        known = ", ".join(_DIALECT)
        raise InputError(f"{argument}={name!r} is not a dialect.{hint} Known dialects: {known}.")
    return _DIALECT[name]


def _checked_value(value: npt.ArrayLike, from_: str) -> Array:
    try:
        values = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"value={value!r} is not a number or an array of numbers.") from error
    bad = ~(values >= 0)
    if bad.any():
        position = ", ".join(str(i) for i in np.argwhere(bad)[0])
        name = f"value[{position}]" if position else "value"
        parameter = _DIALECT[from_].parameter
        raise InputError(f"{name} is {values[bad][0]:g}; the {parameter} of '{from_}' must be at least 0.")
    return values


def _checked_quantities(forms: Mapping[str, Form], given: Mapping[str, float | None]) -> dict[str, float]:
    for dialect, form in forms.items():
        for name in form.needs():
            if given[name] is None:
                formula = form.formula(_DIALECT[dialect].parameter)
                raise InputError(f"'{dialect}' needs {name}, {_MEANING[name]}: {formula}. Pass {name}.")
    return {name: _positive(name, value) for name, value in given.items() if value is not None}


def _positive(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r} is not a number.") from error
    if not 0 < number < np.inf:
        raise InputError(f"{name} is {number:g}; it must be a finite number above 0.")
    if name == "n_targets" and number % 1:
        raise InputError(f"n_targets is {number:g}; it must be a whole number of outputs.")
    return number
