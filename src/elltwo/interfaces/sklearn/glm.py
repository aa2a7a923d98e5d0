"""Linear models of counts, amounts and proportions: `GLM`; and support vector regression: `LinearSVR`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from elltwo.conventions import Form
from elltwo.engine import make_problem
from elltwo.errors import InputError
from elltwo.inference import Inference
from elltwo.interfaces.sklearn.linear import LinearEstimator, check_range
from elltwo.losses import SquaredEpsilonInsensitive, as_loss
from elltwo.solvers.null import null_deviance
from elltwo.solvers.rowset import gather_rowsets

Array = npt.NDArray[Any]

#: Parameters of families.
PARAMETERS = ("power", "dispersion", "epsilon")


class GLM(LinearEstimator):
    """Generalised linear model with an L2 penalty, its weight chosen from the data.

    Minimises Σ wᵢ·½dev(yᵢ, ηᵢ) + (α/2)(θ − θ₀)ᵀP(θ − θ₀) with ηᵢ = b + xᵢᵀθ + offsetᵢ, where dev is the unit
    deviance of the family. The intercept b is never penalised. scikit-learn's `PoissonRegressor`,
    `GammaRegressor` and `TweedieRegressor(link="log")` minimise the same with α = alpha·Σw, when P = I and
    θ₀ = 0.

    Parameters
    ----------
    family : str or loss object, default "gaussian"
        "gaussian" (identity link), "binomial" (logit link, 0 ≤ y ≤ 1), "poisson", "gamma", "tweedie" or
        "negative-binomial" (log link); "huber" and "squared-epsilon-insensitive" (identity link) are robust
        losses rather than families. Or an object such as `elltwo.losses.Tweedie(1.6)`.
    alpha : float, array of shape (T,), str or rule, default "loo"
        A number is used as it is, an array gives one per target. "loo" (by one Newton step from the fit;
        exact for squared error), "kfold", "aic", "bic" or a rule object chooses it by the deviance of
        held-out rows; for the Gaussian also "gcv" and "reml".
    power : float, optional
        p of "tweedie", from 1 to 2: the variance is proportional to μ^p. 1.5 if None.
    dispersion : float, optional
        φ of "negative-binomial": the variance is μ + φμ². 1 if None.
    epsilon : float, optional
        ε of "huber" (1.35 if None) and "squared-epsilon-insensitive" (0.1), in units of y.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns, P = diag(sⱼ²). Coefficients are on the
        original scale all the same, and the data are not copied.
    penalty : array of shape (p,) or (p, p), or penalty object, optional
        Multipliers of the features (0 = unpenalised), or a Tikhonov matrix P.
    prior : array of shape (p,), optional
        θ₀, towards which the coefficients shrink.
    alpha_per_target : bool, default False
        Choose an alpha for each target rather than one for all.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of the mean deviance, so that α = λ·Σw; `alpha_` is on the sum scale.
    solver : str, default "auto"
        "auto" uses Newton's method on weighted moments; for the Gaussian, the solvers of `Ridge`.
    tol : float, default 1e-10
        Largest gradient that may be left at the optimum, relative to that of the model without features.
    random_state : int or RandomState, optional
        Seed for the folds of "kfold".

    Attributes
    ----------
    coef_, intercept_, alpha_, path_, fit_
        As in `Ridge`.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import GLM
    >>> rng = np.random.default_rng(0)
    >>> X, days = rng.normal(size=(300, 2)), rng.uniform(1, 30, size=300)
    >>> claims = rng.poisson(days * np.exp(X @ [0.5, -0.5] - 2))
    >>> model = GLM("poisson").fit(X, claims, exposure=days)
    >>> model.coef_.round(1)
    array([ 0.5, -0.5])
    >>> model.predict(X[:1], exposure=[10.0]) / model.predict(X[:1])
    array([10.])

    References
    ----------
    McCullagh and Nelder (1989), "Generalized linear models".
    """

    def __init__(
        self,
        family: Any = "gaussian",
        alpha: Any = "loo",
        *,
        power: float | None = None,
        dispersion: float | None = None,
        epsilon: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        prior: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        solver: str = "auto",
        tol: float = 1e-10,
        random_state: Any = None,
    ) -> None:
        self.family = family
        self.alpha = alpha
        self.power = power
        self.dispersion = dispersion
        self.epsilon = epsilon
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.prior = prior
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.solver = solver
        self.tol = tol
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = self.family in ("poisson", "gamma", "tweedie", "negative-binomial")
        return tags

    def _loss(self) -> Any:
        """Return the family as a loss that this class can fit."""
        given = {name: getattr(self, name) for name in PARAMETERS}
        loss = as_loss(self.family, **{name: value for name, value in given.items() if value is not None})
        if loss.coupled or loss.link == "margin":
            better = "LogisticRegression" if loss.coupled else "LinearSVC"
            raise InputError(f"family={self.family!r} is for classes; use {better}, which codes the labels.")
        return loss

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        offset: Any = None,
        exposure: Any = None,
        groups: Any = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array, sparse matrix or table (pandas, Polars, Arrow), shape (n, p)
            Features: numbers of any type and memory order.
        y : array, shape (n,) or (n, T)
            Targets, in the range of the family.
        sample_weight : array, shape (n,), optional
            Integers are counts (3 = three observations), real numbers are precisions. For proportions of
            successes these are the trials.
        offset : array, shape (n,) or (n, T), optional
            Known part of η, on the scale of the link.
        exposure : array, shape (n,), optional
            What the mean is proportional to, such as time at risk: log(exposure) is added to η. Positive,
            and only with a log link.
        groups : array, shape (n,), optional
            Group or time of each row, for splitters that need it.

        Raises
        ------
        InputError
            A ValueError that names the column or argument, the cause and the remedy.
        """
        loss = self._loss()
        known = _known_part(loss, offset, exposure)
        source = self._source(X, y, sample_weight, groups, offset=known)
        return self._take(self._solve(source, self._rule(), loss), one_alpha=self._one_alpha())

    def infer(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        offset: Any = None,
        exposure: Any = None,
        quasi: bool = False,
    ) -> Inference:
        """Return standard errors, intervals and predictions of the fitted model; see `elltwo.infer`.

        Parameters
        ----------
        X, y, sample_weight, offset, exposure
            The data of the fit.
        quasi : bool, default False
            Estimate the dispersion of families whose dispersion is 1, from Pearson's statistic.

        Raises
        ------
        InputError
            If these are not the data of the fit, or the loss has no likelihood.

        Examples
        --------
        >>> import numpy as np
        >>> from elltwo import GLM
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 2))
        >>> y = rng.poisson(np.exp(X[:, 0]))
        >>> model = GLM("poisson", alpha=1.0).fit(X, y)
        >>> model.infer(X, y).standard_errors("sandwich").coef.shape
        (2, 1)
        """
        check_is_fitted(self)
        known = _known_part(self.fit_.loss, offset, exposure)
        source = self._source(X, y, sample_weight, offset=known, reset=False)
        return self._infer(source, quasi=quasi)

    def predict(self, X: Any, *, offset: Any = None, exposure: Any = None) -> Array:
        """Predict the mean of y.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.
        offset : array, shape (n,) or (n, T), optional
            Known part of η; 0 if None, whatever it was in the fit.
        exposure : array, shape (n,), optional
            What the mean is proportional to; 1 if None, whatever it was in the fit.

        Returns
        -------
        array, shape (n,) or (n, T)

        Raises
        ------
        InputError
            If X holds NaN or infinity; the message names the columns.
        """
        eta = self._eta(X)
        known = _known_part(self.fit_.loss, offset, exposure)
        if known is not None:
            known = known[:, None] if known.ndim < eta.ndim else known
            known = known[:, 0] if known.ndim > eta.ndim and known.shape[1] == 1 else known
            if (
                known.ndim != eta.ndim
                or len(known) != len(eta)
                or known.shape[1:] not in (eta.shape[1:], (1,))
            ):
                raise InputError(f"the offset has shape {known.shape} for predictions of shape {eta.shape}.")
            eta = eta + known
        mean: Array = self.fit_.loss.mean(eta)
        return mean

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, *, offset: Any = None, exposure: Any = None
    ) -> float:
        """Return D², the share of the deviance explained: 1 − Σ w·dev(y, η) / Σ w·dev(y, η₀).

        η₀ is the best constant (plus the offset) for these rows. For the Gaussian this is R². Several targets
        are averaged. Where the constant leaves no deviance, the share is 1 if the model leaves none either,
        and else 0.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.
        y : array, shape (n,) or (n, T)
            Targets, in the range of the family.
        sample_weight : array, shape (n,), optional
            Weights of the deviances.
        offset, exposure : arrays, optional
            As in `fit`.

        Returns
        -------
        float
            At most 1; below 0 if the constant predicts better.
        """
        self._eta(X)
        X, y = self._numbers(X, y, reset=False, multi_output=True, y_numeric=True)
        fit = self.fit_
        known = _known_part(fit.loss, offset, exposure)
        source = self._rows(X, y, sample_weight, None, fit.target_names, known)
        if source.n_targets != fit.coef.shape[1]:
            raise InputError(f"y has {source.n_targets} target(s); the model has {fit.coef.shape[1]}.")
        check_range(source, fit.loss)
        problem = make_problem(
            source, fit_intercept=True, standardize=False, penalty=None, prior=None, loss=fit.loss
        )
        (rows,) = gather_rowsets(problem)
        left, null = (
            rows.deviance(fit.coef[None], fit.intercept[None])[0],
            null_deviance(problem, rows.y_mean),
        )
        # Without an offset, a target that is constant leaves only rounding.
        flat = null <= 0 if known is not None else rows.y_scale == 0
        share = np.where(flat, np.where(left > 0, 0.0, 1.0), 1 - left / np.where(flat, 1.0, null))
        return float(share.mean())


class LinearSVR(LinearEstimator):
    """Linear support vector regression with the squared ε-insensitive loss, its penalty chosen from the data.

    Minimises Σ wᵢ·½max(0, |yᵢ − ηᵢ| − ε)² + (α/2)(θ − θ₀)ᵀP(θ − θ₀) with ηᵢ = b + xᵢᵀθ. This is the objective
    of scikit-learn's `LinearSVR(loss="squared_epsilon_insensitive")`, ½‖θ‖² + C·Σ max(0, |y − η| − ε)², with
    C = 1/(2α), P = I and θ₀ = 0, but for the intercept: liblinear penalises it, here it is free. With ε = 0
    it is `Ridge`.

    Parameters
    ----------
    alpha : float, array of shape (T,), str or rule, default "loo"
        A number is used as it is, an array gives one per target; "loo", "kfold" or a rule object chooses it
        by the loss of held-out rows.
    C : float, optional
        scikit-learn's inverse strength: C = 1/(2α), infinity for no penalty. Instead of alpha.
    epsilon : float, default 0.0
        ε ≥ 0, in units of y: errors up to ε cost nothing.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns.
    penalty : array of shape (p,) or (p, p), or penalty object, optional
        Multipliers of the features (0 = unpenalised), or a Tikhonov matrix P.
    prior : array of shape (p,), optional
        θ₀, towards which the coefficients shrink.
    alpha_per_target : bool, default False
        Choose an alpha for each target rather than one for all.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of the mean loss, so that α = λ·Σw; `alpha_` is on the sum scale.
    solver : {"auto"}, default "auto"
        Newton's method on weighted moments.
    tol : float, default 1e-10
        Largest gradient that may be left at the optimum, relative to that of the model without features.
    random_state : int or RandomState, optional
        Seed for the folds of "kfold".

    Attributes
    ----------
    coef_, intercept_, alpha_, path_, fit_
        As in `Ridge`.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import LinearSVR
    >>> X = np.arange(6.0)[:, None]
    >>> LinearSVR(C=1e6, epsilon=0.5).fit(X, 2 * X[:, 0] + [0.5, -0.5, 0.5, -0.5, 0.5, -0.5]).coef_.round(3)
    array([2.])

    References
    ----------
    Ho and Lin (2012), "Large-scale linear support vector regression", J. Mach. Learn. Res. 13.
    """

    C_FORM = Form("C·Σ max(0, |y − η| − ε)² + ½·‖θ‖²", constant=0.5, value=-1)

    def __init__(
        self,
        alpha: Any = "loo",
        *,
        C: float | None = None,
        epsilon: float = 0.0,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        prior: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        solver: str = "auto",
        tol: float = 1e-10,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.C = C
        self.epsilon = epsilon
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.prior = prior
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.solver = solver
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array, sparse matrix or table (pandas, Polars, Arrow), shape (n, p)
            Features: numbers of any type and memory order.
        y : array, shape (n,) or (n, T)
            Targets.
        sample_weight : array, shape (n,), optional
            Integers are counts (3 = three observations), real numbers are precisions.
        groups : array, shape (n,), optional
            Group or time of each row, for splitters that need it.

        Raises
        ------
        InputError
            A ValueError that names the column or argument, the cause and the remedy.
        """
        loss = SquaredEpsilonInsensitive(self.epsilon)
        source = self._source(X, y, sample_weight, groups)
        return self._take(self._solve(source, self._rule(), loss), one_alpha=self._one_alpha())


def _known_part(loss: Any, offset: Any, exposure: Any) -> Array | None:
    """Return offset + log(exposure), shape (n,) or (n, T), or None without either."""
    known = None if offset is None else _as_numbers("offset", offset)
    if exposure is None:
        return known
    if loss.link != "log":
        raise InputError(
            f"exposure needs a log link, where it multiplies the mean; {loss.name} has the link "
            f"'{loss.link}'. Use offset, on the scale of the link."
        )
    factor = _as_numbers("exposure", exposure)
    bad = ~((factor > 0) & (factor < np.inf))
    if factor.ndim != 1 or bad.any():
        what = (
            f"shape {factor.shape}"
            if factor.ndim != 1
            else f"the value {factor[bad][0]:g} in row {bad.argmax() + 1:,}"
        )
        raise InputError(f"exposure has {what}; it must be one finite number above 0 for each row.")
    logs: Array = np.log(factor)
    if known is None:
        return logs
    if len(known) != len(logs):
        raise InputError(f"offset has {len(known)} rows and exposure {len(logs)}; they must agree.")
    return known + (logs if known.ndim == 1 else logs[:, None])


def _as_numbers(name: str, values: Any) -> Array:
    """Return float64 numbers of one or two dimensions."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must hold numbers.") from None
    if numbers.ndim not in (1, 2):
        raise InputError(f"{name} has shape {numbers.shape}; one number per row is needed.")
    return numbers
