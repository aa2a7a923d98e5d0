"""Frozen results: `Path` (every alpha), `Certificate` (how right), `Fit` (the chosen model).

Shapes: p features, T targets, A alphas. Every alpha is on the sum scale of the objective

    Σᵢ wᵢ·½(yᵢ − b − xᵢᵀθ)²  +  (α/2)·(θ − θ₀)ᵀP(θ − θ₀).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, ModelFileError, Status, did_you_mean, name_some
from elltwo.losses import loss_from_dict, loss_to_dict

Array = npt.NDArray[Any]


class TableEncoder(Protocol):
    """What a `Fit` needs from the encoder that turned its table into numbers."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded features, in the order of the coefficients."""
        ...

    def transform(self, data: Any) -> Array:
        """Encode a table in memory, shape (n, p)."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as plain JSON values."""
        ...


class Uncertainty(Protocol):
    """What a `Fit` needs from its inference; `elltwo.Inference` is one."""

    def mean_interval(self, X: Array, offset: Any, level: float | None, *, two_classes: bool) -> Array:
        """Return the interval of the mean of encoded rows, (m, T, 2), or of both of two classes (m, 2, 2)."""
        ...

    def to_state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return arrays and plain JSON values."""
        ...


@dataclass(frozen=True)
class Certificate:
    """How right the coefficients are, and how that is known.

    Attributes
    ----------
    residual : float
        Largest relative optimality residual: with g = Zᵀw(y − b − Zθ) − αP(θ − θ₀) and Z the
        centred columns, max over j of |gⱼ| / (‖zⱼ‖·‖y − ȳ‖). Zero at the exact optimum.
    measured_on : {"rows", "moments"}
        Whether g was computed from the data themselves or from the accumulated moments.
    condition : float
        Estimate of κ̂ = sqrt((s_max² + α)/(s_min² + α)), the condition number of the
        augmented, column-scaled least-squares problem that was solved.
    digits : float
        Expected correct decimal digits of the worst coefficient (intercept included), given
        that numbers other than integers were rounded to float64 before we saw them. At most 15.9.
    refinements : int
        Steps of iterative refinement that were taken, Newton steps, or passes over the rows of a first-order
        method.
    gap : float or None
        With an L1 penalty, how much the objective may exceed its minimum at most, as a share of half the null
        deviance: the duality gap, the largest over targets. NaN for a loss without a known conjugate.
    """

    residual: float
    measured_on: str
    condition: float
    digits: float
    refinements: int
    gap: float | None = None


@dataclass(frozen=True)
class Path:
    """All alphas that were tried, with their effective degrees of freedom and scores.

    Attributes
    ----------
    alphas : array, shape (A,)
        On the sum scale, in the order given. The automatic grid ascends and includes the refined optimum.
    effective_df : array, shape (A,), or None
        `df`, where it has been computed.
    score : array, shape (A,) or (A, T), or None
        The rule's criterion, smaller is better; None when alpha was given.
    score_se : array like `score`, or None
        Standard error of the score, where the rule has one.
    chosen : array of int, shape (T,)
        Index of the chosen alpha for each target.
    solved : pair of arrays (A, p, T) and (A, T), or None
        Coefficients and intercepts at every alpha, where they have been computed.
    solve : callable (A,) -> pair of arrays, or None
        Computes them when they are asked for, which for a long path of many features is not before.
    """

    alphas: Array
    effective_df: Array | None
    score: Array | None
    score_se: Array | None
    chosen: Array
    solved: tuple[Array, Array] | None = field(repr=False, default=None)
    solve: Callable[[Array], tuple[Array, Array]] | None = field(repr=False, default=None)
    count: Callable[[Array], Array] | None = field(repr=False, default=None)

    @cached_property
    def df(self) -> Array:
        """Effective degrees of freedom at every alpha, intercept not counted, (A,): Σ s²/(s² + α) for ridge.

        For other losses a pass over the rows per alpha, when it is first asked for; NaN in a path that was
        saved or pickled before.
        """
        if self.effective_df is not None:
            return self.effective_df
        return np.full(len(self.alphas), np.nan) if self.count is None else self.count(self.alphas)

    @property
    def known_df(self) -> Array:
        """`df` as far as it has been computed: NaN else."""
        if self.effective_df is not None or "df" in self.__dict__:
            return self.df
        return np.full(len(self.alphas), np.nan)

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        if self.solved is not None:
            return self.solved
        if self.solve is None:
            raise InputError(
                "This path was loaded from a file, which keeps alphas, df and scores but not the "
                "coefficients of every alpha. Fit again to get them."
            )
        return self.solve(self.alphas)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what would bring the factorisation, and perhaps the data, along."""
        return {**self.__dict__, "solve": None, "count": None, "effective_df": self.known_df}

    @property
    def coef(self) -> Array:
        """Coefficients for every alpha, shape (A, p) for one target or (A, p, T)."""
        coef = self._solved[0]
        return coef[:, :, 0] if coef.shape[2] == 1 else coef

    @property
    def intercept(self) -> Array:
        """Intercepts for every alpha, shape (A,) for one target or (A, T)."""
        intercept = self._solved[1]
        return intercept[:, 0] if intercept.shape[1] == 1 else intercept


_PATH_ARRAYS = {
    "alphas": "alphas",
    "effective_df": "known_df",
    "score": "score",
    "score_se": "score_se",
    "chosen": "chosen",
}
_ARRAYS = (
    "coef", "intercept", "alpha", "df", "feature_means", "feature_scales", "target_means", "target_scales",
    "deviance", "null_deviance", "cv_deviance",
)  # fmt: skip
_PLAIN = (
    "rule", "rule_text", "solver", "solver_reason", "objective", "n_rows", "rows_dropped", "n_observations",
    "sum_weights", "weights", "feature_names", "target_names", "standardize", "fit_intercept", "model",
)  # fmt: skip
#: What weights are called in files of earlier versions.
_OLD_WEIGHTS = {"precisions": "analytic", "counts": "frequency"}


#: Kinds of prediction.
KINDS = ("response", "probability", "link")


def _squeezed(values: Array) -> Array:
    """Return shape (n,) for one target."""
    return values[:, 0] if values.shape[1] == 1 else values


def _one_type(classes: tuple[Any, ...]) -> bool:
    return len({type(label) for label in classes}) == 1


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: infinity and NaN as text."""
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _number(value: Any) -> Any:
    return float(value) if value in ("inf", "nan") else value


def plus_offset(eta: Array, offset: Any) -> Array:
    """Return η (n, T) plus a known part of it, shape (n,) or (n, T), if there is one."""
    if offset is None:
        return eta
    known = np.asarray(offset, dtype=np.float64)
    known = known[:, None] if known.ndim == 1 else known
    if known.ndim != 2 or known.shape[0] != len(eta) or known.shape[1] not in (1, eta.shape[1]):
        raise InputError(f"offset has shape {np.shape(offset)}; one number per row is needed: ({len(eta)},).")
    return np.asarray(eta + known)


@dataclass(frozen=True)
class Fit:
    """A fitted L2-regularised model that knows its names, its alpha and how right it is.

    Attributes
    ----------
    coef : array, shape (p, T)
        Coefficients on the original scale of the features.
    intercept : array, shape (T,)
    alpha : array, shape (T,)
        Penalty on the sum scale. `lambda_` is the same on the mean scale.
    df : array, shape (T,)
        Effective degrees of freedom at `alpha`, intercept not counted.
    rule, rule_text : str
        Name of the rule that chose alpha ("fixed" when it was given) and one line of detail.
    path : Path
    certificate : Certificate
    status : tuple of Status
        What the reader should know; empty when there is nothing to say.
    solver, solver_reason : str
        Which solver was used, and why.
    objective : str
        The minimised objective in words.
    n_rows, rows_dropped : int
        Rows used, and rows left out by the missing-value policy.
    n_observations, sum_weights : float
        Observations (the sum of weights if they are frequencies, else rows of positive weight), Σw.
    weights : {"none", "analytic", "frequency"}
        What the weights of the rows are: precisions of one observation each, or how many observations a row
        stands for.
    weights_column : str or None
        The column of a table that held them.
    feature_names, target_names : tuple of str
    feature_means, feature_scales : array, shape (p,)
        Weighted means and weighted population standard deviations of the features.
    target_means, target_scales : array, shape (T,)
    standardize, fit_intercept : bool
    deviance : array, shape (S,)
        Σ w·dev in sample, for squared error the weighted residual sum of squares. S is the number of
        targets, or 1 where the targets are classes.
    null_deviance : array, shape (S,)
        The same of the model without features.
    cv_deviance : array, shape (S,), or None
        Weighted mean deviance (squared error) of held-out rows at alpha (LOO and K-fold only).
    loss : Loss
        Half the unit deviance that was minimised.
    model : str
        The kind of model in words, by its penalty.
    classes : tuple or None
        Labels of the classes, for a model that tells classes apart.
    encoder : TableEncoder or None
        Turns tables into features; None for a model fitted on arrays.
    quality : mapping or None
        What a fit of a table found out about the target and, for classes, about its predictions of the
        training rows, as plain JSON values: see `elltwo.quality`. None where there is nothing to say.
    inference : Inference or None
        Standard errors and intervals, if the fit of a table was asked for them.
    """

    coef: Array
    intercept: Array
    alpha: Array
    df: Array
    rule: str
    rule_text: str
    path: Path
    certificate: Certificate
    status: tuple[Status, ...]
    solver: str
    solver_reason: str
    objective: str
    n_rows: int
    rows_dropped: int
    n_observations: float
    sum_weights: float
    weights: str
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    feature_means: Array
    feature_scales: Array
    target_means: Array
    target_scales: Array
    standardize: bool
    fit_intercept: bool
    deviance: Array
    null_deviance: Array
    cv_deviance: Array | None
    loss: Any
    model: str = "Ridge (L2)"
    weights_column: str | None = None
    classes: tuple[Any, ...] | None = None
    encoder: TableEncoder | None = None
    quality: Mapping[str, Any] | None = None
    inference: Any = None

    @property
    def lambda_(self) -> Array:
        """Penalty on the mean scale, λ = α/Σw, as in MSE + λ‖θ‖²."""
        return self.alpha / self.sum_weights

    @property
    def r2(self) -> Array:
        """Share of the deviance (squared error: of the target's variance) explained in sample, shape (S,)."""
        return self._explained(self.deviance)

    @property
    def r2_cv(self) -> Array | None:
        """Share explained in held-out rows (LOO, K-fold), shape (S,), or None for other rules."""
        return None if self.cv_deviance is None else self._explained(self.cv_deviance * self.sum_weights)

    def _explained(self, deviance: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.null_deviance > 0, 1 - deviance / self.null_deviance, np.nan)

    def predict(self, data: Any, kind: str = "response", *, offset: Any = None) -> Array:
        """Predict a table (encoded by name) or an array of shape (n, p).

        Parameters
        ----------
        data : table or array
            New rows. A model with an offset or exposure column finds it in the table.
        kind : {"response", "probability", "link"}
            "response": what the target column would hold: the label of the most probable class, or the
            expected value (for a log link e^η). "probability": of each class, shape (n, K), in the order of
            `classes`. "link": the linear predictor η = b + Xθ + offset.
        offset : array, shape (n,) or (n, T), optional
            Known part of η, for a model that was fitted on arrays.

        Returns
        -------
        array
            Shape (n,) for one target or classes, (n, T) otherwise; (n, K) for "probability". A row that
            lacks a value is NaN where the encoder lets it pass, and None where labels are asked for.

        Raises
        ------
        InputError
            If the data do not fit the model, or it has no probabilities.
        """
        X, known = self._encoded(data, offset)
        return self.predictions(self.decision(X, offset=known), kind)

    def _encoded(self, data: Any, offset: Any) -> tuple[Any, Any]:
        """Return the features and the offset of new rows."""
        if self.encoder is None:
            return data, offset
        both = getattr(self.encoder, "transform_with_offset", None)
        if both is not None and offset is not None:
            raise InputError("offset is read from the table by this model. Leave offset= out.")
        return (self.encoder.transform(data), offset) if both is None else both(data)

    def predict_interval(self, data: Any, level: float | None = None, *, offset: Any = None) -> Array:
        """Return the interval of the mean of each row, on the response's scale; of classes, of probabilities.

        The level, and what the interval means under a penalty, are those of the attribute `inference`.

        Parameters
        ----------
        data : table or array
            New rows, as for `predict`.
        level : float, optional
            Between 0 and 1; that of the fit if None.
        offset : array, shape (n,) or (n, T), optional
            Known part of η, for a model that was fitted on arrays.

        Returns
        -------
        array
            Lower and upper bound: shape (n, 2) for one target, else (n, T, 2); (n, K, 2) for classes. A row
            that lacks a value is NaN where the encoder lets it pass.

        Raises
        ------
        InputError
            If the data do not fit the model, or it was fitted without `inference`.
        """
        X, known = self._encoded(data, offset)
        interval = self.interval(X, level, offset=known)
        return interval[:, 0] if interval.shape[1] == 1 else interval

    def interval(self, X: Any, level: float | None = None, *, offset: Any = None) -> Array:
        """Return what `predict_interval` does, (n, T, 2) or (n, K, 2), for features X of shape (n, p)."""
        if self.inference is None:
            raise InputError(
                "This model has no standard errors, so its predictions have no intervals. Fit with "
                "inference='bayes' (--inference bayes), 'model' or 'sandwich'."
            )
        uncertain: Uncertainty = self.inference
        two = self.classes is not None and self.coef.shape[1] == 1
        return uncertain.mean_interval(np.asarray(X, dtype=np.float64), offset, level, two_classes=two)

    def predict_proba(self, data: Any, *, offset: Any = None) -> Array:
        """Return the probability of each class, shape (n, K): `predict` of the kind "probability"."""
        return self.predict(data, "probability", offset=offset)

    def predictions(self, eta: Array, kind: str = "response") -> Array:
        """Return what `predict` returns for linear predictors η of shape (n, T)."""
        if kind not in KINDS:
            raise InputError(
                f"kind={kind!r} is not known.{did_you_mean(str(kind), KINDS)} Use one of {name_some(KINDS)}."
            )
        if kind == "probability":
            return self._probabilities(eta)
        if kind == "link":
            return _squeezed(eta)
        if self.classes is None:
            return _squeezed(eta if self.loss.link == "identity" else self.loss.mean(eta))
        best = (eta[:, 0] > 0).astype(np.intp) if eta.shape[1] == 1 else eta.argmax(axis=1)
        missing = np.isnan(eta).any(axis=1)
        labels: Array = np.empty(len(self.classes), dtype=object)
        labels[:] = self.classes
        chosen: Array = labels[best]
        if missing.any():
            chosen[missing] = None
            return chosen
        return np.array(self.classes)[best] if _one_type(self.classes) else chosen

    def _probabilities(self, eta: Array) -> Array:
        if self.classes is None:
            raise InputError(
                f"This {self.loss.name} model tells no classes apart, so it has no probabilities of them. "
                "Use kind='response' for the expected value."
            )
        if self.loss.link not in ("logit", "softmax"):
            raise InputError(
                f"The {self.loss.name} loss gives margins, not probabilities. Use kind='link' for the "
                "margins, or fit with family='binomial' or 'multinomial' and model='ridge'."
            )
        if eta.shape[1] > 1:
            return np.asarray(self.loss.mean(eta))
        return np.concatenate([self.loss.mean(-eta), self.loss.mean(eta)], axis=1)

    def decision(self, X: Any, *, offset: Any = None) -> Array:
        """Return η = b + Xθ + offset, shape (n, T), for features X of shape (n, p), dense or sparse."""
        p = self.coef.shape[0]
        if getattr(X, "ndim", 2) != 2 or np.shape(X)[1] != p:
            raise InputError(f"X has shape {np.shape(X)}; this model needs (n, {p}): one column per feature.")
        return plus_offset(np.asarray(X @ self.coef) + self.intercept, offset)

    def with_encoder(self, encoder: TableEncoder, rows_dropped: int) -> Self:
        """Return the same fit that also knows how to encode tables."""
        return replace(self, encoder=encoder, rows_dropped=rows_dropped)

    def to_dict(self) -> Mapping[str, Any]:
        """Return everything the summary shows as plain JSON values."""
        from elltwo.summary import as_dict

        return as_dict(self)

    def summary(self) -> str:
        """Return the summary table as text."""
        from elltwo.summary import as_text

        return as_text(self)

    def to_state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return (arrays, plain JSON values), from which `from_state` makes the same fit."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"path.{name}": getattr(self.path, now) for name, now in _PATH_ARRAYS.items()}
        metadata: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        metadata["status"] = [status.name for status in self.status]
        metadata["certificate"] = {
            name: _plain(value) for name, value in dataclasses.asdict(self.certificate).items()
        }
        metadata["weights_column"] = self.weights_column
        metadata["loss"] = loss_to_dict(self.loss)
        metadata["classes"] = None if self.classes is None else list(self.classes)
        metadata["quality"] = None if self.quality is None else dict(self.quality)
        metadata["encoder"] = None if self.encoder is None else self.encoder.to_dict()
        own: tuple[dict[str, Any], Any] = ({}, None) if self.inference is None else self.inference.to_state()
        arrays, metadata["inference"] = arrays | own[0], own[1]
        return {name: np.asarray(a) for name, a in arrays.items() if a is not None}, metadata

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, Array], metadata: Mapping[str, Any], encoder: TableEncoder | None
    ) -> Self:
        """Return the fit that `to_state` described.

        Raises
        ------
        ModelFileError
            If something is missing or does not fit together.
        """
        try:
            path = Path(**{name: arrays.get(f"path.{name}") for name in _PATH_ARRAYS})  # type: ignore[arg-type]
            certificate = {k: _number(v) for k, v in metadata["certificate"].items()}
            plain = {name: metadata[name] for name in _PLAIN}
            plain |= {name: tuple(plain[name]) for name in ("feature_names", "target_names")}
            plain["weights"] = _OLD_WEIGHTS.get(plain["weights"], plain["weights"])
            fit = cls(
                **plain,
                **{name: arrays.get(name) for name in _ARRAYS},  # type: ignore[arg-type]
                **cls._own_state(arrays, metadata),
                path=path,
                weights_column=metadata.get("weights_column"),
                loss=loss_from_dict(metadata["loss"]),
                classes=None if metadata["classes"] is None else tuple(metadata["classes"]),
                certificate=Certificate(**certificate),
                status=tuple(Status[name] for name in metadata["status"]),
                encoder=encoder,
                quality=metadata["quality"],
            )
            T = len(fit.target_names)
            if fit.coef.shape != (fit._terms, T) or fit.intercept.shape != (T,):
                raise ValueError("the coefficients do not match the names")
            if not (np.isfinite(fit.coef).all() and np.isfinite(fit.intercept).all()):
                raise ValueError("the coefficients are not finite")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(
                f"This model file cannot be read: {error}. Fit the model again, or get an undamaged copy."
            ) from error
        return fit

    @classmethod
    def _own_state(cls, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Return what a kind of fit has beyond the attributes of every fit."""
        return {}

    def basis(self) -> Mapping[str, Any] | None:
        """Return what the coefficients belong to as plain JSON values; None where that is the features."""
        return None

    @property
    def _terms(self) -> int:
        """Number of coefficients of a target."""
        return len(self.feature_names)

    def save(self, path: Any) -> None:
        """Write the model to a safetensors file, atomically; `elltwo.load` reads it back."""
        from elltwo.modelfile import write

        write(path, *self.to_state())
