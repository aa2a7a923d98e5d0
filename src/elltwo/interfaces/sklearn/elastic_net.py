"""`ElasticNet` and `Lasso`: sparse models of any family with a certified path and an alpha by itself."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from elltwo.data.memory import MemorySource
from elltwo.elasticnet import fit_elastic_net
from elltwo.engine import fit_source
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.family import FamilyEstimator, known_part
from elltwo.interfaces.sklearn.linear import check_range, refuse_positive
from elltwo.results import Fit

Array = npt.NDArray[Any]


class ElasticNet(FamilyEstimator):
    """Generalised linear model with a mixed L1 and L2 penalty, its weight chosen from the data.

    Minimises Σ wᵢ·½dev(yᵢ, ηᵢ)/Σ wᵢ + alpha·[l1_ratio·Σ √dⱼ|θⱼ| + (1 − l1_ratio)/2·Σ dⱼθⱼ²] with
    ηᵢ = b + xᵢᵀθ + offsetᵢ, where dev is the unit deviance of the family, by default (yᵢ − ηᵢ)². That is the
    objective of scikit-learn's `ElasticNet`: half a **mean** of squares, so that alpha is 1/Σw of the
    package's α, which stands beside a sum. With `alpha_scale="sum"` alpha is that α. The intercept b is never
    penalised, and dⱼ = 1 unless `penalty` or `standardize` say otherwise. For labels of classes there is
    `SparseLogisticRegression`.

    Parameters
    ----------
    alpha : float, array of shape (T,), str or rule, default "kfold"
        A number above 0 is used as it is, an array gives one per target; its scale is `alpha_scale`. "kfold",
        "gcv", "aic", "bic", "loo" or a rule object chooses it. The alphas of a rule have the same scale;
        without them the grid has 100 values down from the smallest at which every penalised coefficient is 0.
        "loo" is approximate here: it holds the set of non-zero
        coefficients when a row is left out.
    l1_ratio : float, default 0.5
        Share of the L1 penalty, from 0 (ridge; fitted as such) to 1 (lasso).
    family : str or loss object, default "gaussian"
        As in `GLM`: "gaussian", "binomial" (proportions, 0 ≤ y ≤ 1), "poisson", "gamma", "tweedie",
        "negative-binomial", "huber" or "squared-epsilon-insensitive".
    power, dispersion, epsilon : float, optional
        Parameters of the family, as in `GLM`.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns: dⱼ is multiplied by sⱼ². Coefficients are on the
        original scale all the same.
    penalty : array of shape (p,), optional
        Multipliers dⱼ of the features; 0 leaves one unpenalised.
    alpha_per_target : bool, default False
        Choose an alpha for each target rather than one for all.
    alpha_scale : {"mean", "sum"}, default "mean"
        "mean" reads alpha as scikit-learn's `ElasticNet` does, beside half the mean of the squares; "sum"
        reads it as α = Σw·alpha, beside half their sum, as `Ridge` and tables do. `alpha_`, `path_` and
        `fit_` are on the sum scale with either.
    copy_X : bool, default True
        As in scikit-learn. X is never written to, so that False changes nothing.
    max_iter : int, default 1000
        Passes over all features per alpha, at most; for other families than the Gaussian, Newton steps.
    tol : float, default 1e-10
        What counts as solved: the duality gap, as a share of ½Σw(y − ȳ)²; for other families the largest
        violation of an optimality condition, relative to its size at the null model. If neither is reached,
        `fit_.status` says so.
    positive : bool, default False
        Not supported: True is refused.
    random_state : int or RandomState, optional
        With "kfold" (or `KFold` with an integer cv), rows are dealt to folds at random with this seed.
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

    Attributes
    ----------
    coef_ : array, shape (p,) or (T, p)
        Zeros are exact.
    sparse_coef_ : scipy sparse matrix, shape (1, p) or (T, p)
    intercept_ : float or array, shape (T,)
    alpha_ : float, or array (T,) with an alpha per target
        On the sum scale: with one alpha given, Σw times it. `alpha_scale="sum"` reads it back.
    dual_gap_ : float or array, shape (T,)
        How much the objective may exceed its minimum, as a share of half the null deviance, which for the
        Gaussian is ½Σw(y − ȳ)². 0 where it is ridge; NaN for a loss of your own, whose conjugate is not
        known (`fit_.certificate.residual` is then the certificate).
    n_iter_ : int
        Passes over all features (or Newton steps) at `alpha_`, of the target that took most.
    path_ : Path
        `alphas`, `coef`, `df` and `score` for every alpha tried.
    fit_ : Fit
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import ElasticNet
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 20))
    >>> y = X[:, 0] - 2 * X[:, 1] + 0.1 * rng.normal(size=100)
    >>> model = ElasticNet(alpha=0.2, l1_ratio=0.9).fit(X, y)
    >>> np.flatnonzero(model.coef_), model.dual_gap_ < 1e-10, model.alpha_
    (array([0, 1]), True, 20.0)
    >>> visits = rng.poisson(np.exp(0.5 * X[:, 0] + 1))
    >>> np.flatnonzero(ElasticNet(0.8, family="poisson", l1_ratio=0.9).fit(X, visits).coef_)
    array([0])

    References
    ----------
    Zou and Hastie (2005), "Regularization and variable selection via the elastic net".
    """

    def __init__(
        self,
        alpha: Any = "kfold",
        *,
        l1_ratio: float = 0.5,
        family: Any = "gaussian",
        power: float | None = None,
        dispersion: float | None = None,
        epsilon: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "mean",
        copy_X: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-10,
        positive: bool = False,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.family = family
        self.power = power
        self.dispersion = dispersion
        self.epsilon = epsilon
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.positive = positive
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
        X : array, sparse matrix or table, shape (n, p)
            A sparse matrix with more features than rows, or very many, stays sparse; any does with another
            family than the Gaussian.
        y : array, shape (n,) or (n, T)
            Targets, in the range of the family; each is fitted by itself.
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
        check_l1(self)
        refuse_positive(self)
        loss = self._loss()
        source = self._source(X, y, sample_weight, groups, offset=known_part(loss, offset, exposure))
        check_range(source, loss)
        fit, gap, self.n_iter_ = fit_l1(self, source, self._rule(), loss)
        self.dual_gap_ = float(gap[0]) if len(gap) == 1 else gap
        return self._take(fit, one_alpha=self._one_alpha())

    @property
    def sparse_coef_(self) -> Any:
        """Coefficients as a sparse matrix, shape (1, p) or (T, p)."""
        return sparse.csr_matrix(self.coef_)

    def _ratio(self) -> Any:
        return self.l1_ratio


class Lasso(ElasticNet):
    """Generalised linear model with an L1 penalty, its weight chosen from the data.

    Minimises Σ wᵢ·½dev(yᵢ, ηᵢ)/Σ wᵢ + alpha·Σ √dⱼ|θⱼ|, dev being the squared error unless `family` says
    otherwise: the objective of scikit-learn's `Lasso`. With `alpha_scale="sum"` alpha is the package's α,
    which stands beside a sum and is Σw times as large.

    Parameters, attributes and errors are those of `ElasticNet` with l1_ratio = 1.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import Lasso
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 20))
    >>> y = X[:, 0] - 2 * X[:, 1] + 0.1 * rng.normal(size=100)
    >>> np.flatnonzero(Lasso(alpha=0.1).fit(X, y).coef_)
    array([0, 1])

    References
    ----------
    Tibshirani (1996), "Regression shrinkage and selection via the lasso".
    """

    def __init__(
        self,
        alpha: Any = "kfold",
        *,
        family: Any = "gaussian",
        power: float | None = None,
        dispersion: float | None = None,
        epsilon: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "mean",
        copy_X: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-10,
        positive: bool = False,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.family = family
        self.power = power
        self.dispersion = dispersion
        self.epsilon = epsilon
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.positive = positive
        self.random_state = random_state
        self.weights_are = weights_are

    def _ratio(self) -> Any:
        return 1.0


def check_l1(estimator: Any) -> None:
    """Raise InputError unless the options of an estimator with an L1 penalty can be used."""
    ratio = estimator._ratio()
    number = isinstance(ratio, (int, float, np.number)) and not isinstance(ratio, (bool, np.bool_))
    if not number or not 0 <= ratio <= 1:
        raise InputError(f"l1_ratio must be a number from 0 (ridge) to 1 (lasso); got {ratio!r}.")
    if not isinstance(estimator.max_iter, (int, np.integer)) or estimator.max_iter < 1:
        raise InputError(f"max_iter must be a whole number of at least 1; got {estimator.max_iter!r}.")
    penalty = estimator.penalty
    if penalty is not None and np.ndim(penalty) != 1 and not hasattr(penalty, "form"):
        raise InputError(
            "penalty must hold one multiplier per feature (0 = unpenalised); use Ridge for a matrix."
        )


def fit_l1(estimator: Any, source: MemorySource, rule: Any, loss: Any) -> tuple[Fit, Array, int]:
    """Return the fit, its duality gaps (T,) and its rounds; without an L1 part, the fit of ridge."""
    ratio, options = float(estimator._ratio()), estimator._options()
    if ratio == 0:
        return fit_source(source, rule, loss=loss, **options), np.zeros(source.n_targets), 1
    fit, solved = fit_elastic_net(
        source, rule, l1_ratio=ratio, max_iter=int(estimator.max_iter), loss=loss, **options
    )
    return fit, solved.gap, solved.rounds
