"""Uncertainty of L2-penalised generalised linear models: standard errors, intervals, predictions.

At the optimum of Σ wᵢ·½dev(yᵢ, ηᵢ) + (α/2)(θ − θ₀)ᵀP(θ − θ₀), with x̃ = (x, 1) the row with the intercept's
column, P̃ = P with a zero row and column for the intercept, and φ the dispersion:

    G = Σ wᵢ·hᵢ·x̃ᵢx̃ᵢᵀ         the information of the rows, hᵢ = ℓ''(yᵢ, ηᵢ)
    H = G + αP̃                 the Hessian of the objective
    M = Σ wᵢ²·ℓ'ᵢ²·x̃ᵢx̃ᵢᵀ       the spread of the scores (Σ wᵢ·ℓ'ᵢ²·x̃ᵢx̃ᵢᵀ where weights are counts)

    "bayes"      φ·H⁻¹           covariance of the posterior, under the prior θ ~ N(θ₀, φ(αP)⁻¹)
    "model"      φ·H⁻¹GH⁻¹       covariance of the estimate over samples of y, if the model holds
    "sandwich"   H⁻¹MH⁻¹         the same without trust in the model's variances

One pass over the rows gathers G, M, the score and Pearson's statistic; only matrices of p + 1 columns are
kept. Everything is computed about the (weighted) means of the features, so that large means cost no digits.

See Wood (2017), "Generalized Additive Models", 2nd ed., section 6.10, for the first two, and White (1982),
"Maximum likelihood estimation of misspecified models", Econometrica 50(1), for the third.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, solve_upper
from elltwo.data.base import Block
from elltwo.errors import InputError, did_you_mean, name_some
from elltwo.losses import FAMILIES, LOSSES, Loss
from elltwo.moments import Moments
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.summary import printable

Array = npt.NDArray[Any]

#: What a standard error can mean.
KINDS = ("bayes", "model", "sandwich")
#: Which curvature is the information: that of the rows as they are, or its expectation.
INFORMATION = ("observed", "expected")
#: Parameters of a multinomial model, classes times features, up to which their joint covariance is made.
MOST_JOINT = 2000
#: Bytes of covariances and what they are made from that may be held at once; about six matrices a target.
MOST_BYTES, MATRICES = 8 << 30, 6
#: Elements of the largest temporary array in the pass over the rows.
CHUNK = 1 << 20
#: Condition number of the column-scaled Hessian beyond which its inverse has no digits left.
MOST_CONDITION = 1e-2 / ROUNDOFF
#: A share of n below which residual degrees of freedom are rounding.
SATURATED = 1e-6
#: Newton's next step may be this share of a standard error, or change η by this share, at what counts as
#: the optimum.
NEAR, NEAR_ETA = 0.1, 1e-8

_NO_LIKELIHOOD = {loss.name for loss in LOSSES} - set(FAMILIES)
_RATIOS = {"binomial": "Odds ratio", "poisson": "Rate ratio", "negative-binomial": "Rate ratio"}
_MEANING = {
    "bayes": "Bayesian: posterior under the penalty as a prior",
    "model": "frequentist, if the model holds; the penalty's bias is not in them",
    "sandwich": "frequentist, robust (sandwich); the penalty's bias is not in them",
}


class PerCoefficient(NamedTuple):
    """One quantity for every coefficient and for the intercepts: shapes (p, T, …) and (T, …)."""

    coef: Array
    intercept: Array


@dataclass(frozen=True)
class Predictions:
    """Predictions for m rows and T targets, with their uncertainty.

    Attributes
    ----------
    link, link_se : arrays, shape (m, T)
        η and its standard error. For classes, the log-odds of each class against all others.
    link_interval : array, shape (m, T, 2)
    mean : array, shape (m, T)
        The expected response.
    mean_interval : array, shape (m, T, 2)
        `link_interval` carried to the response: the link is monotone, so the level stays.
    new_interval : array, shape (m, T, 2), or None
        For squared error, the interval for a new observation of weight 1; None for other losses.
    level : float
    """

    link: Array
    link_se: Array
    link_interval: Array
    mean: Array
    mean_interval: Array
    new_interval: Array | None
    level: float


@dataclass(frozen=True, eq=False)
class _Rows:
    """What one pass over the rows has to say on the parameters of one target, or of all classes together.

    In the coordinates z = (x − centre, 1), for classes one set after the other.
    """

    centre: Array
    gram: Array
    meat: Array
    score: Array
    pearson: float
    size: float


@dataclass(frozen=True, eq=False)
class _Inverse:
    """H⁻¹ and H⁻¹GH⁻¹ about the centre, with tr H⁻¹G and tr (H⁻¹G)²."""

    inverse: Array
    model: Array
    trace: float
    trace_squared: float


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
        n − 2·tr F + tr F² with F = H⁻¹G, intercept counted: for squared error the exact expectation of
        RSS/σ² but for bias (Hastie and Tibshirani, 1990, "Generalized Additive Models", section 3.5). n is
        Σw where weights are counts, else the number of rows of positive weight; for K classes (K − 1)·n.
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
    _centres: tuple[Array, ...] = field(repr=False)
    _inverses: tuple[_Inverse, ...] = field(repr=False)
    _sandwiches: tuple[Array, ...] = field(repr=False)

    @property
    def _classes(self) -> int:
        """Targets in one covariance matrix."""
        return len(self.intercept) if self.loss.coupled else 1

    @cached_property
    def _degrees(self) -> Array:
        """Degrees of freedom of Student's t for each target, infinite for the normal, shape (T,)."""
        degrees = self.residual_df if self.estimated else np.full(len(self.residual_df), np.inf)
        return np.repeat(degrees, self._classes)

    def _about_centre(self, s: int, kind: str) -> Array:
        """Return the covariance of the s-th matrix in the coordinates (x − centre, 1)."""
        if kind == "sandwich":
            return self._sandwiches[s]
        part = self._inverses[s]
        return np.asarray(self.dispersion[s] * (part.inverse if kind == "bayes" else part.model))

    def covariance(self, kind: str = "bayes") -> Array:
        """Return the covariance of the coefficients and, in the last row and column, the intercept.

        Parameters
        ----------
        kind : {"bayes", "model", "sandwich"}
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
        _check_choice("kind", kind, KINDS)
        p, out = len(self.coef), []
        for s, centre in enumerate(self._centres):
            V = self._about_centre(s, kind)
            if self.fit_intercept:
                back = np.eye(p + 1)
                back[p, :p] = -centre
                q, K = p + 1, self._classes
                V = np.einsum("ij,kjlm,nm->kiln", back, V.reshape(K, q, K, q), back, optimize=True)
                V = V.reshape(K * q, K * q)
            out.append((V + V.T) / 2)
        return np.stack(out)

    def standard_errors(self, kind: str = "bayes") -> PerCoefficient:
        """Return the standard errors, shapes (p, T) and (T,); 0 for an intercept that is not fitted.

        Parameters
        ----------
        kind : {"bayes", "model", "sandwich"}
            "bayes" is the spread of the posterior: on average over the prior, it holds bias and variance.
            "model" and "sandwich" are the spread of the estimate around its own expectation, which the
            penalty has moved away from the truth by about `bias`: with more penalty they go to 0, and the
            bias does not. "sandwich" is White's HC0, without a correction for few rows.

        Raises
        ------
        InputError
            For a kind that does not exist.
        """
        _check_choice("kind", kind, KINDS)
        p, coef, intercept = len(self.coef), [], []
        for s, centre in enumerate(self._centres):
            V = self._about_centre(s, kind)
            q, K = p + self.fit_intercept, self._classes
            V = V.reshape(K, q, K, q)
            back = np.append(-centre, 1.0)
            for k in range(K):
                own = V[k, :, k, :]
                coef.append(np.sqrt(np.maximum(own.diagonal()[:p], 0.0)))
                square = back @ own @ back if self.fit_intercept else 0.0
                intercept.append(np.sqrt(max(float(square), 0.0)))
        return PerCoefficient(np.stack(coef, axis=1), np.array(intercept))

    def intervals(self, level: float = 0.95, kind: str = "bayes") -> PerCoefficient:
        """Return estimate ± quantile·standard error, shapes (p, T, 2) and (T, 2).

        The quantile is Student's with `residual_df` where φ is estimated, else the normal's. With "bayes"
        they are credible intervals; their coverage is about the level on average over the coefficients
        (Marra and Wood, 2012, Scand. J. Stat. 39(1)), not for each. With "model" and "sandwich" they are
        confidence intervals for the expectation of the penalised estimate, and for the true coefficient
        only where `bias` is small beside the standard error.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        kind : {"bayes", "model", "sandwich"}
            As for `standard_errors`.

        Raises
        ------
        InputError
            For a level that is not between 0 and 1, or a kind that does not exist.
        """
        quantile = _quantile(level, self._degrees)
        se = self.standard_errors(kind)
        return PerCoefficient(
            _around(self.coef, quantile * se.coef), _around(self.intercept, quantile * se.intercept)
        )

    def p_values(self, kind: str = "bayes") -> PerCoefficient:
        """Return two-sided tail probabilities of 0, shapes (p, T) and (T,), one parameter at a time.

        With "bayes" it is twice the posterior probability that the coefficient has the other sign: small
        where the sign is sure. It is no frequentist p-value unless α = 0.

        "model" and "sandwich" give Wald tests, which are offered for α = 0 alone. A penalty moves the
        estimates of correlated features by amounts that the test does not know: under the hypothesis that
        one coefficient is 0, its estimate is not centred at 0, and rejections are more or fewer than the
        level says. An unpenalised coefficient beside penalised ones is no exception.

        Parameters
        ----------
        kind : {"bayes", "model", "sandwich"}
            As for `standard_errors`.

        Raises
        ------
        InputError
            For a kind that does not exist, and for "model" and "sandwich" with α > 0.
        """
        _check_choice("kind", kind, KINDS)
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
                distance = np.where(value == 0, 0.0, -np.abs(value) / error)
            tail = stdtr(self._degrees, distance) if self.estimated else ndtr(distance)
            results.append(np.asarray(2 * tail))
        return PerCoefficient(*results)

    def predict(self, X: Any, offset: Any = None, *, level: float = 0.95, kind: str = "bayes") -> Predictions:
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
        level : float
            Between 0 and 1.
        kind : {"bayes", "model", "sandwich"}
            As for `standard_errors`.

        Raises
        ------
        InputError
            For shapes that do not match, values that are not finite, or an unknown kind or level.
        """
        _check_choice("kind", kind, KINDS)
        quantile = _quantile(level, self._degrees)
        (p, T), parts = self.coef.shape, []
        if np.ndim(X) != 2 or np.shape(X)[1] != p:
            raise InputError(f"X has shape {np.shape(X)}; this model needs (m, {p}): one column per feature.")
        add = _check_offset(offset, np.shape(X)[0], T)
        rows = X.tocsr() if hasattr(X, "tocsr") else np.asarray(X)
        if rows.dtype.kind not in "fiub":
            raise InputError(f"X has dtype {rows.dtype}; convert it to real numbers first.")
        covariances = [self._about_centre(s, kind) for s in range(len(self._centres))]
        step = max(1, CHUNK // ((p + 1) * self._classes))
        for start in range(0, max(1, rows.shape[0]), step):
            part = rows[start : start + step]
            dense = np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)
            if not np.isfinite(dense).all():
                bad = np.flatnonzero(~np.isfinite(dense).all(axis=0))
                names = name_some([self.feature_names[j] for j in bad])
                raise InputError(f"X contains NaN or infinity in column(s) {names}; impute or drop them.")
            parts.append(self._link(dense, add[start : start + step], covariances))
        link, se = (np.concatenate(which) for which in zip(*parts, strict=True))
        eta = rows @ self.coef + self.intercept + add
        interval = _around(link, quantile * se)
        mean = self.loss.mean(eta)
        mean_interval = _expit(interval) if self.loss.coupled else self.loss.mean(interval)
        new = None
        if self.loss.name == "gaussian":
            new = _around(eta, quantile * np.sqrt(se**2 + self.dispersion))
        return Predictions(link, se, interval, np.asarray(mean), np.asarray(mean_interval), new, level)

    def _link(self, X: Array, offset: Array, covariances: list[Array]) -> tuple[Array, Array]:
        """Return the linear predictor, or classes' log-odds, and its standard error for dense rows."""
        m, K = len(X), self._classes
        link = X @ self.coef + self.intercept + offset
        variance = np.empty_like(link)
        if self.loss.coupled:
            # log(pₖ/(1 − pₖ)) = ηₖ − log Σ exp(ηₗ) over l ≠ k, with derivatives 1 and −exp(ηₗ)/Σ exp(ηₗ).
            others = np.where(np.eye(K, dtype=bool), -np.inf, link[:, None, :])
            top = others.max(axis=2, keepdims=True)
            share = np.exp(others - top)
            total = share.sum(axis=2, keepdims=True)
            slope = np.eye(K) - share / total
            link = link - (top + np.log(total))[:, :, 0]
        for s, (centre, V) in enumerate(zip(self._centres, covariances, strict=True)):
            Z = X - centre
            Z = np.column_stack([Z, np.ones(m)]) if self.fit_intercept else Z
            q = Z.shape[1]
            if self.loss.coupled:
                half = (Z @ V.reshape(K, q, K * q)).reshape(K, m, K, q)
                quadratic = np.einsum("kmlj,mj->kml", half, Z)
                variance = np.einsum("mck,kml,mcl->mc", slope, quadratic, slope, optimize=True)
            else:
                variance[:, s] = np.einsum("ij,ij->i", Z @ V, Z)
        return link, np.sqrt(np.maximum(variance, 0.0))

    def as_table(self, level: float = 0.95, kind: str = "bayes") -> list[dict[str, Any]]:
        """Return one dictionary for every coefficient of every target, intercepts last.

        With `target`, `feature`, `coef`, `se`, `low`, `high` and `bias`; for the logit and log links also
        `ratio`, `ratio_low`, `ratio_high`: by what e^θ the odds, rate or mean is multiplied when the feature
        rises by one; for the intercept, what they are where all features are 0.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        kind : {"bayes", "model", "sandwich"}
            As for `standard_errors`.

        Raises
        ------
        InputError
            For a level that is not between 0 and 1, or a kind that does not exist.
        """
        se, interval = self.standard_errors(kind), self.intervals(level, kind)
        rows: list[dict[str, Any]] = []
        for t, target in enumerate(self.target_names):
            names = [*self.feature_names, *["(intercept)"] * self.fit_intercept]
            columns = {
                "coef": np.append(self.coef[:, t], self.intercept[t]),
                "se": np.append(se.coef[:, t], se.intercept[t]),
                "low": np.append(interval.coef[:, t, 0], interval.intercept[t, 0]),
                "high": np.append(interval.coef[:, t, 1], interval.intercept[t, 1]),
                "bias": np.append(self.bias.coef[:, t], self.bias.intercept[t]),
            }
            if self.loss.link in ("logit", "log"):
                with np.errstate(over="ignore"):
                    columns |= {
                        "ratio": np.exp(columns["coef"]),
                        "ratio_low": np.exp(columns["low"]),
                        "ratio_high": np.exp(columns["high"]),
                    }
            for j, name in enumerate(names):
                rows.append(
                    {"target": target, "feature": name, **{k: float(v[j]) for k, v in columns.items()}}
                )
        return rows

    def summary(self, level: float = 0.95, kind: str = "bayes", *, most: int | None = 30) -> str:
        """Return coefficients, standard errors and intervals as text, ratios too for the logit and log links.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        kind : {"bayes", "model", "sandwich"}
            As for `standard_errors`.
        most : int or None
            How many features of a target to list, those largest beside their standard errors; None lists all.

        Raises
        ------
        InputError
            For a level that is not between 0 and 1, or a kind that does not exist.
        """
        rows = self.as_table(level, kind)
        percent = f"{100 * level:.6g} %"
        each = len(rows) // len(self.target_names)
        parts = []
        for t, target in enumerate(self.target_names):
            s = 0 if self.loss.coupled else t
            phi = "estimated" if self.estimated else "known"
            lines = [
                f"{printable(target, 36)}: {self.loss.name}, {self.loss.link} link, α = {self.alpha[t]:.5g} "
                "(sum scale)",
                f"Standard errors   {_MEANING[kind]}",
                f"Dispersion        {self.dispersion[s]:.5g} ({phi})",
                f"Effective df      {self.df[s]:.2f} of {len(self.coef) * max(1, self._classes - 1):,}"
                + " + intercept" * self.fit_intercept
                + f"; residual df {max(self.residual_df[s], 0.0):,.2f}",
                "",
            ]
            own = rows[t * each : (t + 1) * each]
            lines += _text_table(own, len(self.coef), percent, _RATIOS.get(self.loss.name, "Ratio"), most)
            parts.append("\n".join(lines))
        return "\n\n".join(parts)


def infer(
    problem: Problem,
    coef: Any,
    intercept: Any,
    alpha: Any,
    *,
    quasi: bool = False,
    dispersion: float | None = None,
    information: str = "observed",
) -> Inference:
    """Return standard errors, intervals and predictions of a fitted model, from one pass over its rows.

    Parameters
    ----------
    problem : Problem
        The objective that was minimised.
    coef, intercept : arrays, shapes (p, T) or (p,), and (T,) or a number
        Its minimum, on the original scale of the features.
    alpha : float or array, shape (T,)
        The penalty, on the sum scale.
    quasi : bool
        Estimate φ also for the binomial, multinomial, Poisson and negative binomial, which have φ = 1. It
        says nothing for single 0/1 observations: it is for proportions of trials, and for counts.
    dispersion : float, optional
        A known φ > 0.
    information : {"observed", "expected"}
        Whether h is the curvature of the loss at y, or its expectation over y, which is the curvature at
        y = μ. They differ for the Gamma, Tweedie and negative binomial, whose log link is not canonical:
        there R's glm and statsmodels' IRLS report the expected.

    Returns
    -------
    Inference

    Raises
    ------
    InputError
        If the loss is no likelihood; if shapes do not match; if (coef, intercept) is not the minimum at this
        alpha; if some coefficients are not determined; if nothing is left over to estimate φ from; for more
        than 2000 coefficients of classes, whose joint covariance is not made; or if the matrices of p × p
        for each target would take more than 8 GiB.

    Notes
    -----
    The penalised estimate is biased: its expectation differs from the truth by −H⁻¹αP(θ − θ₀), of which
    `Inference.bias` is an estimate. No interval is wider for it, save that "bayes" counts it on average over
    the prior. alpha is taken as given: that it was chosen on the same rows is not in the uncertainty.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> from elltwo.losses import Poisson
    >>> X, y = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([2.0, 4.0, 5.0, 7.0])
    >>> problem = Problem(MemorySource(X, y), loss=Poisson())
    >>> result = infer(problem, np.log([2.0]), np.log(3.0), 0.0)
    >>> result.standard_errors("model").coef.round(4), round(float((1 / 6 + 1 / 12) ** 0.5), 4)
    (array([[0.5]]), 0.5)
    >>> print(result.summary())  # doctest: +ELLIPSIS
    y: poisson, log link, α = 0 (sum scale)
    ...
    """
    loss = problem.loss
    _check_loss(loss)
    _check_choice("information", information, INFORMATION)
    theta, b, alphas = _check_model(problem, coef, intercept, alpha)
    _check_memory(problem)
    if dispersion is not None:
        if quasi:
            raise InputError("give quasi=True or a dispersion, not both: quasi estimates it.")
        if not 0 < dispersion < np.inf:
            raise InputError(f"dispersion must be a finite number > 0; got {dispersion!r}.")
    # A family says how many parameters besides the mean it has; one that does not say is taken to have φ.
    estimated = dispersion is None and (quasi or getattr(loss, "dispersions", 1) > 0)
    own = problem.reduce(theta, b)
    gather = _gather_joint if loss.coupled else _gather_targets
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # what is not finite is looked for at the end of the pass
        gathered, scales, n = gather(problem, *own, information, estimated)
    form = problem.form(scales)
    if loss.coupled:
        inverses = [_invert_joint(problem, gathered[0], form, float(alphas[0]), theta.shape[1])]
        n *= theta.shape[1] - 1
    else:
        inverses = _invert_targets(problem, gathered, form, alphas)
    per = theta.shape[1] // len(gathered)
    residual_df = np.array([n - 2 * f.trace + f.trace_squared for f in inverses])
    if dispersion is not None:
        phi = np.full(len(gathered), float(dispersion))
    elif estimated:
        if (residual_df <= SATURATED * n).any():
            raise InputError(
                "there are as many effective parameters as observations, so nothing is left over to estimate "
                "the dispersion from. Raise alpha, or give dispersion=."
            )
        phi = np.array([r.pearson for r in gathered]) / residual_df
    else:
        phi = np.ones(len(gathered))
    bias = []
    for s, (rows, found) in enumerate(zip(gathered, inverses, strict=True)):
        pull = alphas[s] * form.apply(own[0][:, s * per : (s + 1) * per])
        if problem.fit_intercept:
            pull = np.vstack([pull, np.zeros(per)])
        pull = pull.T.ravel()
        _check_minimum(rows, found, pull, float(phi[s]), float(alphas[s]))
        bias.append((-found.inverse @ pull).reshape(per, -1).T)
    stacked = np.hstack(bias)
    p = len(theta)
    moved = (
        stacked[p] - np.hstack([r.centre @ part[:p] for r, part in zip(gathered, bias, strict=True)])
        if problem.fit_intercept
        else np.zeros(theta.shape[1])
    )
    free = problem.fit_intercept * max(1, per - 1)
    return Inference(
        coef=theta,
        intercept=b,
        alpha=alphas,
        df=np.array([f.trace - free for f in inverses]),
        residual_df=residual_df,
        dispersion=phi,
        estimated=estimated,
        bias=PerCoefficient(stacked[:p], moved),
        n_observations=n / max(1, per - 1),
        loss=loss,
        fit_intercept=problem.fit_intercept,
        feature_names=tuple(problem.source.feature_names),
        target_names=tuple(problem.source.target_names),
        _centres=tuple(r.centre for r in gathered),
        _inverses=tuple(inverses),
        _sandwiches=tuple(f.inverse @ r.meat @ f.inverse for r, f in zip(gathered, inverses, strict=True)),
    )


# ------------------------------------------------------------------------------ the pass over the rows


def _chunks(problem: Problem, width: int) -> Iterator[tuple[Block, Array]]:
    """Yield the rows in pieces of about CHUNK / width rows, with their weights."""
    for block in problem.blocks():
        step = max(4 * block.X.shape[1], CHUNK // width, 16)
        for i in range(0, len(block.y), step):
            rows = slice(i, min(i + step, len(block.y)))
            w = np.ones(rows.stop - i) if block.weights is None else block.weights[rows]
            offset = None if block.offset is None else block.offset[rows]
            yield Block(block.X[rows], block.y[rows], w, block.start + i, offset), w


def _add(total: Moments | None, X: Array, weights: Array) -> Moments:
    """Return the moments of X under these weights, added to those so far."""
    part = Moments.of(X, np.zeros((len(X), 1)), weights)
    return part if total is None else total.merge(part)


def _gather_targets(
    problem: Problem, theta: Array, b: Array, information: str, pearson: bool
) -> tuple[list[_Rows], Array, float]:
    """Return what the rows say on each target, the features' standard deviations, and n."""
    loss, counts, (p, T) = problem.loss, problem.source.counts, theta.shape
    plain: Moments | None = None
    info: list[Moments | None] = [None] * T
    meat: list[Moments | None] = [None] * T
    score, total = np.zeros((p, T)), np.zeros(T)
    chi, size = np.zeros(T), np.zeros(T)
    n = 0.0
    for block, w in _chunks(problem, p + T):
        n += float(w.sum()) if counts else float(np.count_nonzero(w))
        eta = block.X @ theta + b
        eta = eta if block.offset is None else eta + block.offset
        slope, h = loss.derivatives(block.y, eta)
        if not problem.squared and (pearson or information == "expected"):
            expected = loss.curvature(loss.mean(eta), eta)
            h = expected if information == "expected" else h
        else:
            expected = h
        if pearson:
            # (y − μ)²/V(μ) = ℓ'²/E[ℓ''], because ℓ' = (μ − y)·μ'/V and E[ℓ''] = μ'²/V, μ' = dμ/dη.
            chi += w @ (slope**2 / expected)
        size += w @ (h * eta**2)
        weighted = slope * w[:, None]
        score += block.X.T @ weighted
        total += weighted.sum(axis=0)
        spread = weighted * (slope if counts else weighted)
        plain = _add(plain, block.X, w)
        for t in range(T):
            if not problem.squared:
                info[t] = _add(info[t], block.X, w * h[:, t])
            meat[t] = _add(meat[t], block.X, spread[:, t])
    assert plain is not None
    if not (np.isfinite(plain.gram).all() and np.isfinite(score).all()):
        raise problem.source.why_not_finite()
    rows = []
    shared = _information(plain, problem.fit_intercept) if problem.squared else None
    for t in range(T):
        own, spread_of = info[t] or plain, meat[t]
        assert spread_of is not None
        gram = shared if shared is not None else _information(own, problem.fit_intercept)
        if problem.fit_intercept:
            varies = np.append(own.x_scale > 0, True)
            away = np.append(spread_of.x_mean - own.x_mean, 1.0)
            M = spread_of.weight * np.outer(away, away)
            M[:p, :p] += spread_of.gram
            g = np.append(score[:, t] - own.x_mean * total[t], total[t])
            M, g = M * varies * varies[:, None], g * varies
            centre = own.x_mean
        else:
            M, g, centre = spread_of.about(False)[0], score[:, t], np.zeros(p)
        rows.append(_Rows(centre, gram, M, g, float(chi[t]), float(size[t])))
    return rows, plain.x_scale, n


def _information(moments: Moments, centre: bool) -> Array:
    """Return Σ w·h·zzᵀ for z = (x − x̄, 1), which is block diagonal, or for z = x."""
    gram = moments.about(centre)[0]
    if not centre:
        return gram
    G = np.zeros((len(gram) + 1, len(gram) + 1))
    G[:-1, :-1], G[-1, -1] = gram, moments.weight
    return G


def _gather_joint(
    problem: Problem,
    theta: Array,
    b: Array,
    information: str,  # noqa: ARG001 - the softmax is canonical: observed and expected are one
    pearson: bool,
) -> tuple[list[_Rows], Array, float]:
    """Return what the rows say on all classes together, the features' standard deviations, and n."""
    loss, counts, (p, K) = problem.loss, problem.source.counts, theta.shape
    q = p + problem.fit_intercept
    centre = problem.origin.astype(np.float64) if problem.fit_intercept else np.zeros(p)
    plain: Moments | None = None
    gram, meat = np.zeros((K, q, K, q)), np.zeros((K, q, K, q))
    score, chi, size, n = np.zeros((K, q)), 0.0, 0.0, 0.0
    for block, w in _chunks(problem, K * q):
        n += float(w.sum()) if counts else float(np.count_nonzero(w))
        eta = block.X @ theta + b
        eta = eta if block.offset is None else eta + block.offset
        slope, mean = loss.gradient(block.y, eta), loss.mean(eta)
        if pearson:
            chi += float(w @ np.sum(slope**2 / mean, axis=1))
        size += float(w @ np.sum(mean * eta**2, axis=1))
        plain = _add(plain, block.X, w)
        Z = block.X - centre
        Z = np.column_stack([Z, np.ones(len(Z))]) if problem.fit_intercept else Z
        score += (slope * w[:, None]).T @ Z
        v = w if counts else w * w
        for k in range(K):  # the classes from k on; the others follow from symmetry
            h = -mean[:, [k]] * mean[:, k:]
            h[:, 0] += mean[:, k]
            for weights, into in ((h * w[:, None], gram), (slope[:, [k]] * slope[:, k:] * v[:, None], meat)):
                many = (weights[:, :, None] * Z[:, None, :]).reshape(len(Z), -1)
                into[k, :, k:, :] += (Z.T @ many).reshape(q, K - k, q)
    assert plain is not None
    if not (np.isfinite(plain.gram).all() and np.isfinite(score).all()):
        raise problem.source.why_not_finite()
    for k in range(K):
        for other in range(k):
            gram[k, :, other, :] = gram[other, :, k, :].T
            meat[k, :, other, :] = meat[other, :, k, :].T
    flat = (K * q, K * q)
    return [_Rows(centre, gram.reshape(flat), meat.reshape(flat), score.ravel(), chi, size)], plain.x_scale, n


# --------------------------------------------------------------------------------------- the inverses


def _invert_targets(
    problem: Problem, gathered: list[_Rows], form: QuadraticForm, alphas: Array
) -> list[_Inverse]:
    """Return the inverse for each target; one is made for targets that share Gram and alpha."""
    P = _penalty(problem, form)
    made: dict[tuple[int, float], _Inverse] = {}
    result = []
    for rows, alpha in zip(gathered, alphas.tolist(), strict=True):
        key = (id(rows.gram), alpha)
        if key not in made:
            E = _inverse_root(rows.gram + alpha * P, problem, alpha)
            made[key] = _shrunk(E, rows.gram, E)
        result.append(made[key])
    return result


def _invert_joint(problem: Problem, rows: _Rows, form: QuadraticForm, alpha: float, K: int) -> _Inverse:
    """Return the inverse for K classes, whose information says nothing on what they have in common.

    θₖ = Σₐ Cₖₐ·uₐ + s, with C orthonormal contrasts (CᵀC = I, Cᵀ1 = 0), parts the Hessian into G + αP̃ for
    the contrasts and αP̃ for the common part s/√K. Where s is not penalised it is fixed (Σₖ bₖ = 0).
    """
    P, q = _penalty(problem, form), len(rows.gram) // K
    C = np.linalg.qr(np.column_stack([np.ones(K), np.eye(K)[:, : K - 1]]))[0][:, 1:]
    S = np.kron(C, np.eye(q))
    G = S.T @ rows.gram @ S
    G = (G + G.T) / 2
    E = _inverse_root(G + alpha * np.kron(np.eye(K - 1), P), problem, alpha)
    found = _shrunk(E, G, S @ E)
    strength = alpha * form.d
    known = np.where(strength > 0, 1.0 / np.where(strength > 0, strength, 1.0), 0.0)
    common = QuadraticForm(known, form.rotation).matrix()
    if problem.fit_intercept:  # b is fixed, and so b + centreᵀs moves with s
        L = np.vstack([np.eye(len(known)), rows.centre])
        common = L @ common @ L.T
    inverse = found.inverse + np.kron(np.full((K, K), 1.0 / K), common)
    return _Inverse(inverse, found.model, found.trace, found.trace_squared)


def _penalty(problem: Problem, form: QuadraticForm) -> Array:
    """Return P̃: P with a zero row and column for the intercept, if there is one."""
    P = form.matrix()
    return np.pad(P, (0, 1)) if problem.fit_intercept else P


def _shrunk(E: Array, gram: Array, out: Array) -> _Inverse:
    """Return H⁻¹ = EEᵀ and what follows from it; `out` is E in the coordinates of the result."""
    F = E.T @ gram @ E
    return _Inverse(out @ out.T, out @ F @ out.T, float(np.trace(F)), float(np.sum(F * F)))


def _inverse_root(H: Array, problem: Problem, alpha: float) -> Array:
    """Return E with EEᵀ = H⁻¹, by a Cholesky factorisation of H with its columns scaled to diagonal 1."""
    size = np.sqrt(np.maximum(H.diagonal(), 0.0))
    scale = np.where(size > 0, size, 1.0)
    scaled = H / scale / scale[:, None]
    try:
        upper = np.linalg.cholesky(scaled).T
        root = solve_upper(upper, np.eye(len(H)))
        inverse = root @ root.T
        condition = np.abs(scaled).sum(axis=0).max() * np.abs(inverse).sum(axis=0).max()
        if condition < MOST_CONDITION:
            return np.asarray(root / scale[:, None])
    except np.linalg.LinAlgError:
        pass
    vector = np.abs(np.linalg.eigh(scaled)[1][:, 0])
    q = problem.source.n_features + problem.fit_intercept
    involved = np.unique(np.flatnonzero(vector > 0.1 * vector.max()) % q)
    names = [*problem.source.feature_names, "(intercept)"]
    raise InputError(
        f"at alpha={alpha:.5g} the rows do not determine every coefficient, so there is no standard error: "
        f"see {name_some([names[j] for j in involved])}, constant or a combination of other columns. Drop "
        "columns, or raise alpha."
    )


# ----------------------------------------------------------------------------------------- the checks


def _check_loss(loss: Loss) -> None:
    if loss.name in _NO_LIKELIHOOD or loss.link == "margin":
        raise InputError(
            f"the loss '{loss.name}' is not the deviance of a distribution, so its curvature says nothing on "
            f"how sure the coefficients are. Use one of {name_some(FAMILIES, len(FAMILIES))}, or a bootstrap."
        )


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise InputError(f"{name}={value!r} is not known; use one of {name_some(known)}.{hint}")


def _check_model(problem: Problem, coef: Any, intercept: Any, alpha: Any) -> tuple[Array, Array, Array]:
    """Return θ (p, T), b (T,) and α (T,) as float64, or raise InputError."""
    p, T = problem.source.n_features, problem.source.n_targets
    try:
        theta, b, alphas = (np.array(v, dtype=np.float64) for v in (coef, intercept, alpha))
    except (TypeError, ValueError):
        raise InputError("coef, intercept and alpha must be numbers.") from None
    theta = theta[:, None] if theta.ndim == 1 and T == 1 else theta
    if theta.shape != (p, T):
        raise InputError(f"coef has shape {theta.shape}; {p} features and {T} target(s) need ({p}, {T}).")
    if b.ndim > 1 or b.size not in (1, T) or (b.size == 1 and T > 1 and b.any()):
        raise InputError(f"intercept has shape {b.shape}; it must be ({T},), one per target.")
    if alphas.ndim > 1 or alphas.size not in (1, T):
        raise InputError(f"alpha has shape {alphas.shape}; give one number, or one per target: ({T},).")
    b, alphas = (np.broadcast_to(v, (T,)).copy() for v in (b, alphas))
    if not (np.isfinite(theta).all() and np.isfinite(b).all()):
        raise InputError("coef and intercept must be finite.")
    if not (np.isfinite(alphas).all() and (alphas >= 0).all()):
        raise InputError("alpha must be finite and ≥ 0, on the sum scale.")
    if not problem.fit_intercept and b.any():
        raise InputError("the problem has no intercept, but the intercept given is not 0.")
    if problem.loss.coupled and (alphas != alphas[0]).any():
        raise InputError("the classes of one target share one alpha; give one number.")
    return theta, b, alphas


def _check_minimum(rows: _Rows, found: _Inverse, pull: Array, phi: float, alpha: float) -> None:
    """Raise InputError if Newton's next step is not small beside the standard errors, nor rounding of η.

    gᵀH⁻¹g/φ is the square of the step's size in standard errors.
    """
    gradient = rows.score + pull
    step = float(gradient @ found.inverse @ gradient)
    if step > NEAR**2 * phi + NEAR_ETA**2 * rows.size:
        away = np.sqrt(step / phi) if phi > 0 else np.inf
        raise InputError(
            f"coef and intercept do not minimise this problem at alpha={alpha:.5g}: they are {away:.3g} "
            "standard errors away from where they would be. Pass the rows, penalty and alpha that they were "
            "fitted with (alpha on the sum scale), or solve more precisely."
        )


def _check_memory(problem: Problem) -> None:
    p, T = problem.source.n_features, problem.source.n_targets
    if problem.loss.coupled and T * p > MOST_JOINT:
        raise InputError(
            f"the joint covariance of {T} classes and {p} features has {T * p:,} rows; at most "
            f"{MOST_JOINT:,} are made. Use fewer features, or one class against the rest (family='binomial')."
        )
    needed = 8 * MATRICES * p * p * T
    if not problem.loss.coupled and needed > MOST_BYTES:
        raise InputError(
            f"covariances of {p:,} features for {T:,} target(s) need about {needed / 2**30:.0f} GiB; the "
            f"limit is {MOST_BYTES / 2**30:.0f} GiB. Use fewer features, or fewer targets at a time."
        )


def _check_offset(offset: Any, m: int, T: int) -> Array:
    """Return the offset with shape (m, T), zeros for None, or raise InputError."""
    if offset is None:
        return np.zeros((m, T))
    try:
        values = np.asarray(offset, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("offset must hold numbers.") from None
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != m or values.shape[1] not in (1, T):
        raise InputError(f"offset has shape {np.shape(offset)}; one number per row is needed: ({m},).")
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise InputError(f"offset is NaN or infinite in row {row + 1:,}; give finite numbers.")
    return np.broadcast_to(values, (m, T))


# ------------------------------------------------------------------------------------------ small parts


def _quantile(level: Any, degrees: Array) -> Array:
    """Return the two-sided quantile of Student's t, or of the normal for infinite degrees of freedom."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise InputError(f"level must be a number between 0 and 1, such as 0.95; got {level!r}.")
    from scipy.special import ndtri, stdtrit

    finite = np.isfinite(degrees)
    tail = (1 - float(level)) / 2
    student = stdtrit(np.where(finite, degrees, 1.0), tail)
    return np.asarray(-np.where(finite, student, ndtri(tail)))


def _around(middle: Array, half: Array) -> Array:
    """Return middle ± half along a new last axis."""
    return np.stack([middle - half, middle + half], axis=-1)


def _expit(eta: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * eta)))


def _text_table(rows: list[dict[str, Any]], p: int, percent: str, ratio: str, most: int | None) -> list[str]:
    """Return the lines of one target's table: features in their order, the intercept below."""
    listed = list(range(p))
    if most is not None and p > most:
        strength = [-abs(rows[j]["coef"]) / (rows[j]["se"] or np.inf) for j in listed]
        listed = sorted(np.argsort(strength, kind="stable")[:most].tolist())
    shown = [rows[j] for j in listed] + rows[p:]
    columns = [["Feature", *(printable(r["feature"], 28) for r in shown)]]
    heads = {"coef": "Coefficient", "se": "Std. error", "low": f"{percent} from", "high": "to"}
    if "ratio" in rows[0]:
        heads |= {"ratio": ratio, "ratio_low": "from", "ratio_high": "to"}
    for key, head in heads.items():
        columns.append([head, *(_short(r[key]) for r in shown)])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *rest]))
    lines.insert(1, "-" * len(lines[0]))
    if len(listed) < p:
        lines.append(f"… and {p - len(listed):,} more features, smaller beside their standard errors.")
    return lines


def _short(value: float) -> str:
    """Return four significant digits, with trailing zeros so that columns can be compared."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    decimals = 3 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{max(decimals, 0)}f}" if -5 < decimals < 9 else f"{value:.3e}"
