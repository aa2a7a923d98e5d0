"""`KernelRidge`: scikit-learn's call and shapes, with a free intercept, rules for alpha and a certificate."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from elltwo.interfaces.sklearn.kernel_model import KernelModel
from elltwo.interfaces.sklearn.linear import LinearEstimator, chooses
from elltwo.losses import Gaussian

Array = npt.NDArray[Any]


class KernelRidge(KernelModel, LinearEstimator):
    """Ridge regression in the function space of a kernel, its alpha given or chosen from the data.

    Minimises Σ wᵢ(yᵢ − b − f(xᵢ))² + α‖f‖²_H. The intercept b is free and never penalised; with
    `fit_intercept=False` the numbers are those of scikit-learn's `KernelRidge`, which has no intercept.

    Parameters
    ----------
    alpha : float, array of shape (T,), str or rule, default 1.0
        A number is used as it is, an array gives one per target. "loo", "gcv", "kfold", "reml", "aic",
        "bic" or a rule object such as `LOO(alphas=…)` chooses it, all alphas from one factorisation.
    kernel : str, kernel object or callable, default "linear"
        "linear", "polynomial" (or "poly"), "rbf", "laplacian", "matern", "precomputed"; an object such as
        `RBF(gamma=0.1)`; or a function (X, Z) -> matrix of all k(x, z). (Scikit-learn calls a function with
        two rows at a time; that would be slow, and is refused by the shape it returns.)
    gamma : float, "scale", "median", list or "tune", optional
        Of "rbf", "laplacian" and "polynomial". None is 1/p, "scale" 1/(p·var X), "median" 1/(2·median
        distance²). A list is chosen from, together with alpha and by the same rule; "tune" searches: factors
        of 4 to 64 either way from "median", then log γ is refined about the best. Each value tried costs
        one factorisation.
    degree : int, default 3
        Of "polynomial".
    coef0 : float, default 1
        Of "polynomial"; at least 0.
    kernel_params : dict, optional
        More parameters of a named kernel (`length_scale` and `nu` of "matern", of which `length_scale` may be
        a list or "tune" too) or keyword arguments of a function.
    fit_intercept : bool, default True
    standardize : bool, default False
        Give the kernel (x − mean)/sd of every column in place of x.
    alpha_per_target : bool, default False
        Choose an alpha for each target rather than one for all.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of MSE + λ‖f‖², so that α = λ·Σw; `alpha_` is on the sum scale.
    solver : {"auto", "exact", "cg", "cholesky", "nystrom"}, default "auto"
        "exact": one factorisation, for rules (up to 20,000 rows). "cg": conjugate gradients, for one
        alpha. "cholesky": one factorisation. "auto": "exact" for a rule, "cg" for one alpha and 2,000
        rows or more unless it would need as long as "cholesky", and "nystrom" where there are too many rows
        for these. "nystrom": f lives on `n_centers` of the rows, an approximation, for rows by the million
        and for any rule.
    n_centers : int, optional
        Of "nystrom"; 5·√n, at least 100 and at most 2,000, if None.
    centers : {"uniform", "leverage"}, default "uniform"
        How "nystrom" draws them: every row alike, or in proportion to approximate ridge leverage scores,
        which finds rows of rare kinds at the cost of three more passes.
    tol : float, optional
        Relative residual at which conjugate gradients stop: 2e-15 for "cg", 1e-10 for "nystrom".
    random_state : int or RandomState, optional
        Seed of the centres and of the preconditioner (0 if None). With K-fold and an integer cv, rows are
        dealt to folds at random with this seed instead of in consecutive parts.
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

    Attributes
    ----------
    dual_coef_ : array, shape (n,) or (n, T)
        a of f = Σ aⱼ k(xⱼ, ·); one per centre for "nystrom".
    intercept_ : float or array, shape (T,)
    X_fit_ : array, shape (n, p)
        The training rows (the kernel matrix if it is precomputed), or the centres; standardised if asked for.
    alpha_ : float, or array (T,) with an alpha per target
        On the sum scale.
    kernel_ : kernel object
        With all its parameters as numbers.
    path_ : Path
        `alphas`, `coef` (dual), `df` and `score` for every alpha tried.
    fit_ : KernelFit
        `summary()`, `certificate`, `status`, `solver`, `df`, `r2`.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo.interfaces.sklearn.kernel_ridge import KernelRidge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-3, 3, size=(200, 1))
    >>> y = np.sin(X[:, 0]) + 5 + 0.1 * rng.normal(size=200)
    >>> model = KernelRidge("loo", kernel="rbf", gamma="tune").fit(X, y)
    >>> model.predict([[0.0], [np.pi / 2]]).round(1)
    array([5., 6.])
    >>> KernelRidge(1.0, kernel="rbf").fit(X, y).fit_.certificate.residual < 1e-12
    True

    References
    ----------
    Saunders, Gammerman and Vovk (1998), "Ridge regression learning algorithm in dual variables".
    """

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        kernel: Any = "linear",
        gamma: Any = None,
        degree: Any = 3,
        coef0: Any = 1,
        kernel_params: Any = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        solver: str = "auto",
        n_centers: int | None = None,
        centers: str = "uniform",
        tol: float | None = None,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.kernel_params = kernel_params
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.solver = solver
        self.n_centers = n_centers
        self.centers = centers
        self.tol = tol
        self.random_state = random_state
        self.weights_are = weights_are

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array or table, shape (n, p)
            Features; the n × n kernel matrix if it is precomputed.
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
        source = self._source(X, y, sample_weight, groups)
        fit = self._fit_kernel(source, self._rule(), Gaussian())
        flat = self._one_dimensional
        self.dual_coef_ = self.dual_coef_[:, 0] if flat else self.dual_coef_
        self.intercept_ = fit.intercept[0] if flat or not self.fit_intercept else fit.intercept
        one = not self.alpha_per_target and (chooses(self.alpha) or np.ndim(self.alpha) == 0)
        self.alpha_ = float(fit.alpha[0]) if one or len(fit.alpha) == 1 else fit.alpha
        return self

    def predict(self, X: Any) -> Array:
        """Predict b + Σ aⱼ k(xⱼ, x), a block of rows at a time.

        Parameters
        ----------
        X : array or table, shape (m, p)
            Features; for a precomputed kernel the m × n matrix of k(x, training row).

        Returns
        -------
        array, shape (m,) or (m, T)

        Raises
        ------
        InputError
            If X holds NaN or infinity; the message names the columns.
        """
        eta = self._eta(X)
        return eta[:, 0] if self._one_dimensional else eta
