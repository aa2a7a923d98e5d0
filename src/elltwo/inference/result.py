"""`Inference`: standard errors, intervals and predictions of one fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.inference import prediction, text
from elltwo.inference.checks import KINDS, check_choice
from elltwo.inference.prediction import Predictions, around, quantile_of
from elltwo.losses import Loss

Array = npt.NDArray[Any]


class PerCoefficient(NamedTuple):
    """One quantity for every coefficient and for the intercepts: shapes (p, T, …) and (T, …)."""

    coef: Array
    intercept: Array


@dataclass(frozen=True, eq=False)
class Spread:
    """One kind of covariance: scale[s]·matrices[s] in the coordinates (x − centre, 1), for every s.

    `matrices` is None, and only the standard errors `known` are there, in a model file that was too large
    for them. Targets that share a matrix share its memory.
    """

    matrices: tuple[Array, ...] | None
    scale: Array
    known: PerCoefficient | None = None


@dataclass(frozen=True, eq=False)
class Inference:
    """How sure the coefficients of a penalised model are.

    S is the number of targets T, or 1 if the targets are the classes of one.

    Attributes
    ----------
    coef, intercept, alpha : arrays, shapes (p, T), (T,) and (T,)
        The model, and its penalty on the sum scale.
    df : array, shape (S,)
        Effective degrees of freedom tr(H⁻¹G), intercept not counted.
    residual_df : array, shape (S,)
        n − tr F with F = H⁻¹G, intercept counted: for squared error the exact expectation of RSS/σ² under the
        prior that the penalty stands for, and without a penalty (Wood, 2017, "Generalized Additive Models",
        section 6.10). n is
        Σw where weights are frequencies, else the number of rows of positive weight; for K classes (K − 1)·n.
    dispersion : array, shape (S,)
        φ: 1 where the family has none, Pearson's statistic Σ wᵢ(yᵢ − μᵢ)²/V(μᵢ) over `residual_df` where it
        is estimated (McCullagh and Nelder, 1989, section 8.3.6), or as given.
    estimated : bool
        Whether φ was estimated, so that intervals take Student's t with `residual_df` and not the normal.
    bias : PerCoefficient
        −H⁻¹·αP(θ − θ₀), shapes (p, T) and (T,): what the penalty takes away, to first order. It is computed
        at the estimate, which the penalty has already drawn to θ₀, and so is on the small side.
    n_observations : float
    loss : Loss
    fit_intercept : bool
    feature_names, target_names : tuple of str
    centres : tuple of arrays, shape (p,), one for each of the S
        Covariances are held about these means of the features: see `about_centre`.
    kind, level
        What the methods answer with unless they are told otherwise; see `reporting`.
    """

    coef: Array
    intercept: Array
    alpha: Array
    df: Array
    residual_df: Array
    dispersion: Array
    estimated: bool
    bias: PerCoefficient
    n_observations: float
    loss: Loss
    fit_intercept: bool
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    kind: str = "bayes"
    level: float = 0.95
    centres: tuple[Array, ...] = field(default=(), repr=False)
    _spreads: Mapping[str, Spread] = field(default_factory=dict, repr=False)

    def reporting(self, kind: str = "bayes", level: float = 0.95) -> Self:
        """Return the same, whose methods answer with this kind and level unless they are told otherwise.

        Raises
        ------
        InputError
            For a level that is not between 0 and 1, or a kind that does not exist.
        """
        self._spread(kind)
        quantile_of(level, self._degrees)
        return replace(self, kind=kind, level=float(level))

    def holding(self, spreads: Mapping[str, Spread]) -> Self:
        """Return the same with these covariances."""
        return replace(self, _spreads=dict(spreads))

    def covers(self, kind: str) -> bool:
        """Return whether the covariance of this kind is at hand."""
        return kind in self._spreads and self._spreads[kind].matrices is not None

    @property
    def classes(self) -> int:
        """Targets in one covariance matrix: K where they are classes of one model, else 1."""
        return len(self.intercept) if self.loss.coupled else 1

    @cached_property
    def _degrees(self) -> Array:
        """Degrees of freedom of Student's t for each target, infinite for the normal, shape (T,)."""
        degrees = self.residual_df if self.estimated else np.full(len(self.residual_df), np.inf)
        return np.repeat(degrees, self.classes)

    def _spread(self, kind: str | None) -> Spread:
        kind = self.kind if kind is None else kind
        check_choice("kind", kind, KINDS)
        if kind not in self._spreads:
            raise InputError(
                f"this model was loaded from a file, which keeps the kind '{self.kind}' only. Fit with "
                f"inference='{kind}' (--inference {kind}) to have the other."
            )
        return self._spreads[kind]

    def about_centre(self, s: int, kind: str | None) -> Array:
        """Return the covariance of the s-th matrix in the coordinates (x − centre, 1)."""
        spread = self._spread(kind)
        if spread.matrices is None:
            raise InputError(
                f"this model was loaded from a file, and the covariance of {len(self.coef):,} features was "
                "too large to be kept in it. Standard errors are there; for intervals of predictions, use "
                "fewer features, or the result of the fit itself."
            )
        return np.asarray(spread.scale[s] * spread.matrices[s])

    def covariance(self, kind: str | None = None) -> Array:
        """Return the covariance of the coefficients and, in the last row and column, the intercept.

        Parameters
        ----------
        kind : {"bayes", "model", "sandwich"}, optional
            As for `standard_errors`.

        Returns
        -------
        array, shape (T, q, q)
            q = p + 1 with an intercept and p without. For K classes one matrix for all of them, of shape
            (1, K·q, K·q), class after class.

        Raises
        ------
        InputError
            For a kind that does not exist.
        """
        p, out = len(self.coef), []
        for s, centre in enumerate(self.centres):
            V = self.about_centre(s, kind)
            if self.fit_intercept:
                back = np.eye(p + 1)
                back[p, :p] = -centre
                q, K = p + 1, self.classes
                V = np.einsum("ij,kjlm,nm->kiln", back, V.reshape(K, q, K, q), back, optimize=True)
                V = V.reshape(K * q, K * q)
            out.append((V + V.T) / 2)
        return np.stack(out)

    def standard_errors(self, kind: str | None = None) -> PerCoefficient:
        """Return the standard errors, shapes (p, T) and (T,); 0 for an intercept that is not fitted.

        NaN for a feature that is constant beside an intercept: its coefficient is 0, and no row tells of it.

        Parameters
        ----------
        kind : {"bayes", "model", "sandwich"}, optional
            "bayes" is the spread of the posterior: on average over the prior, it holds bias and variance.
            "model" and "sandwich" are the spread of the estimate around its own expectation, which the
            penalty has moved away from the truth by about `bias`: with more penalty they go to 0, and the
            bias does not. "sandwich" is White's HC0, without a correction for few rows. None stands for the
            attribute `kind`, which is "bayes" unless `reporting` or a fit was asked for another.

        Raises
        ------
        InputError
            For a kind that does not exist.
        """
        spread = self._spread(kind)
        if spread.known is not None:
            return spread.known
        assert spread.matrices is not None
        p, coef, intercept = len(self.coef), [], []
        for s, centre in enumerate(self.centres):
            V = self.about_centre(s, kind)
            q, K = p + self.fit_intercept, self.classes
            V = V.reshape(K, q, K, q)
            back = np.append(-centre, 1.0)
            for k in range(K):
                own = V[k, :, k, :]
                known = spread.matrices[s].diagonal()[k * q : k * q + p] > 0
                coef.append(np.where(known, np.sqrt(np.maximum(own.diagonal()[:p], 0.0)), np.nan))
                square = back @ own @ back if self.fit_intercept else 0.0
                intercept.append(np.sqrt(max(float(square), 0.0)))
        return PerCoefficient(np.stack(coef, axis=1), np.array(intercept))

    def intervals(self, level: float | None = None, kind: str | None = None) -> PerCoefficient:
        """Return estimate ± quantile·standard error, shapes (p, T, 2) and (T, 2).

        The quantile is Student's with `residual_df` where φ is estimated, else the normal's. With "bayes"
        they are credible intervals; their coverage is about the level on average over the coefficients
        (Marra and Wood, 2012, Scand. J. Stat. 39(1)), not for each. With "model" and "sandwich" they are
        confidence intervals for the expectation of the penalised estimate, and for the true coefficient
        only where `bias` is small beside the standard error.

        Parameters
        ----------
        level : float, optional
            Between 0 and 1. None stands for the attribute `level`, 0.95 unless another was asked for.
        kind : {"bayes", "model", "sandwich"}, optional
            As for `standard_errors`.

        Raises
        ------
        InputError
            For a level that is not between 0 and 1, or a kind that does not exist.
        """
        quantile = self.quantile(level)
        se = self.standard_errors(kind)
        return PerCoefficient(
            around(self.coef, quantile * se.coef), around(self.intercept, quantile * se.intercept)
        )

    def quantile(self, level: float | None = None) -> Array:
        """Return the two-sided quantile of each target, shape (T,): Student's, or the normal's."""
        return quantile_of(self.level if level is None else level, self._degrees)

    def p_values(self, kind: str | None = None) -> PerCoefficient:
        """Return two-sided tail probabilities of 0, shapes (p, T) and (T,), one parameter at a time.

        With "bayes" it is twice the posterior probability that the coefficient has the other sign: small
        where the sign is sure. It is no frequentist p-value unless α = 0.

        "model" and "sandwich" give Wald tests, which are offered for α = 0 alone. A penalty moves the
        estimates of correlated features by amounts that the test does not know: under the hypothesis that
        one coefficient is 0, its estimate is not centred at 0, and rejections are more or fewer than the
        level says. An unpenalised coefficient beside penalised ones is no exception.

        Parameters
        ----------
        kind : {"bayes", "model", "sandwich"}, optional
            As for `standard_errors`.

        Raises
        ------
        InputError
            For a kind that does not exist, and for "model" and "sandwich" with α > 0.
        """
        kind = self.kind if kind is None else kind
        check_choice("kind", kind, KINDS)
        if kind != "bayes" and (self.alpha > 0).any():
            raise InputError(
                f"p_values(kind='{kind}') is a test only without a penalty; here alpha is "
                f"{float(self.alpha.max()):.5g}, which moves the estimates by amounts that the test does not "
                "know. Use kind='bayes' (how sure the sign is), intervals(), or fit with alpha=0."
            )
        from scipy.special import ndtr, stdtr

        se, results = self.standard_errors(kind), []
        for value, error in zip((self.coef, self.intercept), se, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = np.where(value == 0, 0.0 * error, -np.abs(value) / error)
            tail = stdtr(self._degrees, distance) if self.estimated else ndtr(distance)
            results.append(np.asarray(2 * tail))
        return PerCoefficient(*results)

    def predict(
        self, X: Any, offset: Any = None, *, level: float | None = None, kind: str | None = None
    ) -> Predictions:
        """Return η = b + Xθ + offset with standard error and interval, and both on the response's scale.

        The variance of η is x̃ᵀVx̃ with V the covariance of the chosen kind. For squared error the interval
        for a new observation adds φ. For classes, whose η are known only up to a sum, the link is
        log(pₖ/(1 − pₖ)), its variance by the delta method; for two classes that is the binomial's own.

        Parameters
        ----------
        X : array or scipy sparse matrix, shape (m, p)
            Features on the scale that the model was fitted on.
        offset : array, shape (m,) or (m, T), optional
            Known part of η; None stands for 0, whatever the model was fitted with.
        level : float, optional
            As for `intervals`.
        kind : {"bayes", "model", "sandwich"}, optional
            As for `standard_errors`.

        Raises
        ------
        InputError
            For shapes that do not match, values that are not finite, or an unknown kind or level.
        """
        return prediction.predict(self, X, offset, level, kind)

    def as_table(self, level: float | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """Return one dictionary for every coefficient of every target, intercepts last.

        With `target`, `feature`, `coef`, `se`, `low`, `high` and `bias`; for the logit and log links also
        `ratio`, `ratio_low`, `ratio_high`: by what e^θ the odds, rate or mean is multiplied when the feature
        rises by one; for the intercept, what they are where all features are 0.

        Parameters
        ----------
        level, kind
            As for `intervals`, and so are the errors.
        """
        return text.table(self, level, kind)

    def summary(self, level: float | None = None, kind: str | None = None, *, most: int | None = 30) -> str:
        """Return coefficients, standard errors and intervals as text, ratios too for the logit and log links.

        Parameters
        ----------
        level, kind
            As for `intervals`, and so are the errors.
        most : int or None
            How many features of a target to list, those largest beside their standard errors; None lists all.
        """
        level = self.level if level is None else level
        return text.summary(self, level, self.kind if kind is None else kind, most)

    def mean_interval(
        self, X: Array, offset: Any = None, level: float | None = None, *, two_classes: bool = False
    ) -> Array:
        """Return the interval of the mean, on the response's scale, of rows that may lack values: (m, T, 2).

        Parameters
        ----------
        X : array, shape (m, p)
            Rows in which NaN stands for what is missing; their intervals are NaN.
        offset : array, shape (m,) or (m, T), optional
            Known part of η.
        level : float, optional
            As for `intervals`.
        two_classes : bool
            Give both probabilities of a binomial, shape (m, 2, 2), and not that of the event alone.
        """
        return prediction.mean_interval(self, X, offset, level, two_classes)

    def to_state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return (arrays, plain values) for a model file, see `elltwo.inference.stored`."""
        from elltwo.inference.stored import to_state

        return to_state(self)

    def meaning(self) -> str:
        """Say in a sentence or two what the standard errors and intervals of `kind` and `level` mean."""
        return text.meaning(self.kind, self.level, bool((self.alpha > 0).any()))
