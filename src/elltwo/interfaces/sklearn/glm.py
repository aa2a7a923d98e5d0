"""Linear models of counts, amounts and proportions: `GLM`; and support vector regression: `LinearSVR`."""

from __future__ import annotations

from typing import Any, Self

import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from elltwo.conventions import Form
from elltwo.inference import Inference
from elltwo.interfaces.sklearn.family import FamilyEstimator, known_part
from elltwo.interfaces.sklearn.linear import LinearEstimator
from elltwo.losses import SquaredEpsilonInsensitive

Array = npt.NDArray[Any]


class GLM(FamilyEstimator):
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
        "auto", "newton", "newton-dual", "newton-cg", "gradient" or "sgd", of which the last three have no
        leave-one-out; for the Gaussian "spectral", "cholesky", "orthogonal" and "dual" too. "auto" takes one
        of Newton's methods; for the Gaussian, what it takes for `Ridge`.
    tol : float, default 1e-10
        Largest gradient that may be left at the optimum, relative to that of the model without features.
    random_state : int or RandomState, optional
        Seed for the folds of "kfold".
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

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
        weights_are: str = "analytic",
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
        self.weights_are = weights_are

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
            Numbers ≥ 0; `weights_are` says what they are. For proportions of
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
        known = known_part(loss, offset, exposure)
        source = self._source(X, y, sample_weight, groups, offset=known)
        return self._take(self._solve(source, self._rule(source, loss), loss), one_alpha=self._one_alpha())

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
        known = known_part(self.fit_.loss, offset, exposure)
        source = self._source(X, y, sample_weight, offset=known, reset=False)
        return self._infer(source, quasi=quasi)


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
    solver : {"auto", "newton", "newton-dual", "newton-cg", "gradient", "sgd"}, default "auto"
        "auto" takes one of the three Newton's methods; the last three have no leave-one-out.
    tol : float, default 1e-10
        Largest gradient that may be left at the optimum, relative to that of the model without features.
    random_state : int or RandomState, optional
        Seed for the folds of "kfold".
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

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
        weights_are: str = "analytic",
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
        self.weights_are = weights_are

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array, sparse matrix or table (pandas, Polars, Arrow), shape (n, p)
            Features: numbers of any type and memory order.
        y : array, shape (n,) or (n, T)
            Targets.
        sample_weight : array, shape (n,), optional
            Numbers ≥ 0; `weights_are` says what they are.
        groups : array, shape (n,), optional
            Group or time of each row, for splitters that need it.

        Raises
        ------
        InputError
            A ValueError that names the column or argument, the cause and the remedy.
        """
        loss = SquaredEpsilonInsensitive(self.epsilon)
        source = self._source(X, y, sample_weight, groups)
        return self._take(self._solve(source, self._rule(source, loss), loss), one_alpha=self._one_alpha())
