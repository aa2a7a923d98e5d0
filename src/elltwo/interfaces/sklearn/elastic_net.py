"""`ElasticNet` and `Lasso`: sparse linear models with a certified path and an alpha that chooses itself."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from elltwo.data.memory import MemorySource
from elltwo.elasticnet import fit_elastic_net
from elltwo.engine import fit_source
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.linear import LinearEstimator
from elltwo.results import Fit

Array = npt.NDArray[Any]


class ElasticNet(LinearEstimator):
    """Linear regression with a mixed L1 and L2 penalty, its weight chosen from the data.

    Minimises ½Σ wᵢ(yᵢ − b − xᵢᵀθ)² + α·[l1_ratio·Σ √dⱼ|θⱼ| + (1 − l1_ratio)/2·Σ dⱼθⱼ²], on the **sum**
    scale: scikit-learn's `ElasticNet(alpha=a)` divides the squares by 2n, so that α = n·a (with weights,
    Σw·a); `alpha_scale="mean"` reads a as it stands there. The intercept b is never penalised, and dⱼ = 1
    unless `penalty` or `standardize` say otherwise.

    Parameters
    ----------
    alpha : float, array of shape (T,), str or rule, default "kfold"
        A number above 0 is used as it is, an array gives one per target. "kfold", "gcv", "aic", "bic", "loo"
        or a rule object chooses it; without alphas the grid has 100 values down from the smallest alpha at
        which every penalised coefficient is 0. "loo" is approximate here: it holds the set of non-zero
        coefficients when a row is left out.
    l1_ratio : float, default 0.5
        Share of the L1 penalty, from 0 (ridge; fitted as such) to 1 (lasso).
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns: dⱼ is multiplied by sⱼ². Coefficients are on the
        original scale all the same.
    penalty : array of shape (p,), optional
        Multipliers dⱼ of the features; 0 leaves one unpenalised.
    alpha_per_target : bool, default False
        Choose an alpha for each target rather than one for all.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads alpha as scikit-learn's, α = alpha·Σw; `alpha_` is on the sum scale.
    max_iter : int, default 1000
        Passes over all features per alpha, at most.
    tol : float, default 1e-10
        Duality gap, as a share of ½Σw(y − ȳ)², that counts as solved. If it is not reached, `fit_.status`
        says so.
    positive : bool, default False
        Not supported: True is refused.
    random_state : int or RandomState, optional
        With "kfold" (or `KFold` with an integer cv), rows are dealt to folds at random with this seed.

    Attributes
    ----------
    coef_ : array, shape (p,) or (T, p)
        Zeros are exact.
    sparse_coef_ : scipy sparse matrix, shape (1, p) or (T, p)
    intercept_ : float or array, shape (T,)
    alpha_ : float, or array (T,) with an alpha per target
        On the sum scale.
    dual_gap_ : float or array, shape (T,)
        How much the objective may exceed its minimum, as a share of ½Σw(y − ȳ)². 0 where it is ridge.
    n_iter_ : int
        Passes over all features at `alpha_`, of the target that took most.
    path_ : Path
        `alphas`, `coef`, `df` and `score` for every alpha tried.
    fit_ : Fit
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo.interfaces.sklearn.elastic_net import ElasticNet
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 20))
    >>> y = X[:, 0] - 2 * X[:, 1] + 0.1 * rng.normal(size=100)
    >>> model = ElasticNet(alpha=20.0, l1_ratio=0.9).fit(X, y)
    >>> np.flatnonzero(model.coef_), model.dual_gap_ < 1e-10
    (array([0, 1]), True)

    References
    ----------
    Zou and Hastie (2005), "Regularization and variable selection via the elastic net".
    """

    def __init__(
        self,
        alpha: Any = "kfold",
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        max_iter: int = 1000,
        tol: float = 1e-10,
        positive: bool = False,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.max_iter = max_iter
        self.tol = tol
        self.positive = positive
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            A sparse matrix with more features than rows, or very many, stays sparse.
        y : array, shape (n,) or (n, T)
            Targets; each is fitted by itself.
        sample_weight : array, shape (n,), optional
            Integers are counts (3 = three observations), real numbers are precisions.
        groups : array, shape (n,), optional
            Group or time of each row, for splitters that need it.

        Raises
        ------
        InputError
            A ValueError that names the column or argument, the cause and the remedy.
        """
        self._check()
        source = self._source(X, y, sample_weight, groups)
        ratio = float(self._ratio())
        fit, gap = self._ridge(source) if ratio == 0 else self._sparse(source, ratio)
        self.dual_gap_ = float(gap[0]) if len(gap) == 1 else gap
        return self._take(fit, one_alpha=self._one_alpha())

    @property
    def sparse_coef_(self) -> Any:
        """Coefficients as a sparse matrix, shape (1, p) or (T, p)."""
        return sparse.csr_matrix(self.coef_)

    def _ratio(self) -> Any:
        return self.l1_ratio

    def _check(self) -> None:
        ratio = self._ratio()
        number = isinstance(ratio, (int, float, np.number)) and not isinstance(ratio, (bool, np.bool_))
        if not number or not 0 <= ratio <= 1:
            raise InputError(f"l1_ratio must be a number from 0 (ridge) to 1 (lasso); got {ratio!r}.")
        if self.positive is not False:
            raise InputError(
                "positive=True is not supported: coefficients of either sign are fitted. Use "
                "sklearn.linear_model.ElasticNet(positive=True) for non-negative ones."
            )
        if not isinstance(self.max_iter, (int, np.integer)) or self.max_iter < 1:
            raise InputError(f"max_iter must be a whole number of at least 1; got {self.max_iter!r}.")
        if self.penalty is not None and np.ndim(self.penalty) != 1 and not hasattr(self.penalty, "form"):
            raise InputError(
                "penalty must hold one multiplier per feature (0 = unpenalised); use Ridge for a matrix."
            )

    def _ridge(self, source: MemorySource) -> tuple[Fit, Array]:
        self.n_iter_ = 1
        fit = fit_source(source, self._rule(), **self._options())
        return fit, np.zeros(source.n_targets)

    def _sparse(self, source: MemorySource, ratio: float) -> tuple[Fit, Array]:
        fit, extra = fit_elastic_net(
            source, self._rule(), l1_ratio=ratio, max_iter=int(self.max_iter), **self._options()
        )
        self.n_iter_ = extra.rounds
        return fit, extra.gap


class Lasso(ElasticNet):
    """Linear regression with an L1 penalty, its weight chosen from the data.

    Minimises ½Σ wᵢ(yᵢ − b − xᵢᵀθ)² + α·Σ √dⱼ|θⱼ|, on the **sum** scale: scikit-learn's `Lasso(alpha=a)`
    divides the squares by 2n and so has α = n·a. `alpha_scale="mean"` reads a as it stands there.

    Parameters, attributes and errors are those of `ElasticNet` with l1_ratio = 1.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo.interfaces.sklearn.elastic_net import Lasso
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 20))
    >>> y = X[:, 0] - 2 * X[:, 1] + 0.1 * rng.normal(size=100)
    >>> np.flatnonzero(Lasso(alpha=10.0).fit(X, y).coef_)
    array([0, 1])

    References
    ----------
    Tibshirani (1996), "Regression shrinkage and selection via the lasso".
    """

    def __init__(
        self,
        alpha: Any = "kfold",
        *,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        max_iter: int = 1000,
        tol: float = 1e-10,
        positive: bool = False,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.max_iter = max_iter
        self.tol = tol
        self.positive = positive
        self.random_state = random_state

    def _ratio(self) -> Any:
        return 1.0
