"""`KernelLogisticRegression`: class probabilities from functions of a kernel's space."""

from __future__ import annotations

from typing import Any, Self

import numpy.typing as npt

from elltwo.interfaces.sklearn.classifiers import LogisticRegression, _LinearClassifier
from elltwo.interfaces.sklearn.kernel_model import KernelModel
from elltwo.interfaces.sklearn.linear import check_range
from elltwo.losses import Binomial, Multinomial
from elltwo.results import Fit

Array = npt.NDArray[Any]


class KernelLogisticRegression(KernelModel, _LinearClassifier):
    """Logistic regression in the function space of a kernel, its penalty chosen from the data.

    Minimises Σ wᵢ·logloss(yᵢ, ηᵢ) + (α/2)‖f‖²_H with ηᵢ = b + f(xᵢ), over functions f of the kernel's space
    and an intercept b that is free and never penalised. Two classes have logloss = log(1 + e^η) − yη with
    y = 1 for `classes_[1]`; K > 2 classes have a function each and logloss = −log softmax(η)ₖ for class k.
    With the linear kernel this is `LogisticRegression`. The minimiser is f = Σ aⱼ k(xⱼ, ·), found by the
    Newton's method of every other family in the kernel matrix's own coordinates.

    Parameters
    ----------
    alpha : float, str or rule, default "loo"
        On the sum scale, C = 1/α. A number is used as it is; "loo" (approximate leave-one-out: one Newton
        step from the fit), "kfold", "aic", "bic" or a rule such as `KFold(scoring="roc_auc")` chooses it.
    C : float, optional
        Inverse strength, C = 1/α. Instead of alpha.
    kernel : str, kernel object or callable, default "rbf"
        As in `KernelRidge`.
    gamma : float, None, "scale", "median", list or "tune", default "scale"
        Of "rbf", "laplacian" and "polynomial", as in `KernelRidge`; "scale" is 1/(p·var X).
    degree : int, default 3
        Of "polynomial".
    coef0 : float, default 1
        Of "polynomial"; at least 0.
    kernel_params : dict, optional
        More parameters of a named kernel, or keyword arguments of a function.
    fit_intercept : bool, default True
    standardize : bool, default False
        Give the kernel (x − mean)/sd of every column in place of x.
    class_weight : dict or "balanced", optional
        Weight of the rows of each class, as in `LogisticRegression`.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of the mean loss, so that α = λ·Σw; `alpha_` is on the sum scale.
    solver : {"auto", "exact", "nystrom"}, default "auto"
        "exact": functions of all rows; a step of Newton's method costs n³, for each alpha. "nystrom":
        functions of `n_centers` of the rows, an approximation, for rows by the million. "auto": "exact" up
        to 1,000 rows.
    n_centers : int, optional
        Of "nystrom"; 5·√n, at least 200 and at most 500, if None.
    centers : {"uniform", "leverage"}, default "uniform"
        How they are drawn, as in `KernelRidge`.
    tol : float, optional
        Largest gradient that may be left at the optimum, relative to that of the model without features:
        1e-10 if None.
    random_state : int or RandomState, optional
        Seed of the centres; with K-fold and an integer cv, rows are shuffled before they are dealt to folds.
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

    Attributes
    ----------
    classes_ : array, shape (K,)
        Labels in ascending order.
    dual_coef_ : array, shape (n, 1) for two classes, else (n, K)
        a of f = Σ aⱼ k(xⱼ, ·); one row per centre for "nystrom".
    intercept_ : array, shape (1,) or (K,)
    X_fit_ : array, shape (n, p)
        The training rows (the kernel matrix if it is precomputed), or the centres; standardised if asked for.
    alpha_ : float
        On the sum scale.
    kernel_ : kernel object
        With all its parameters as numbers.
    path_ : Path
        `alphas`, `coef` (dual), `df` and `score` for every alpha tried.
    fit_ : KernelFit
        `summary()`, `certificate`, `status`, `solver`, `df`, `save(path)`.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import KernelLogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, size=(120, 2))
    >>> y = np.where((X**2).sum(axis=1) > 0.6, "outside", "inside")
    >>> model = KernelLogisticRegression(C=100).fit(X, y)
    >>> model.predict([[0.0, 0.1], [0.9, -0.9]])
    array(['inside', 'outside'], dtype='<U7')
    >>> model.predict_proba([[0.0, 0.1]]).round(1)
    array([[1., 0.]])

    References
    ----------
    Zhu and Hastie (2005), "Kernel logistic regression and the import vector machine".
    """

    SCORINGS = LogisticRegression.SCORINGS
    C_FORM = LogisticRegression.C_FORM
    GAMMA = "scale"

    def __init__(
        self,
        alpha: Any = "loo",
        *,
        C: float | None = None,
        kernel: Any = "rbf",
        gamma: Any = "scale",
        degree: Any = 3,
        coef0: Any = 1,
        kernel_params: Any = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        class_weight: Any = None,
        alpha_scale: str = "sum",
        solver: str = "auto",
        n_centers: int | None = None,
        centers: str = "uniform",
        tol: float | None = None,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.kernel_params = kernel_params
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.class_weight = class_weight
        self.alpha_scale = alpha_scale
        self.solver = solver
        self.n_centers = n_centers
        self.centers = centers
        self.tol = tol
        self.random_state = random_state
        self.weights_are = weights_are

    def _loss(self, K: int) -> Any:
        return Binomial() if K == 2 else Multinomial()

    def _targets(self, codes: Array, K: int) -> Array:
        """Return y = 0 or 1: whether a row is of the second of two classes (n,), or of each class (n, K)."""
        return (super()._targets(codes, K) + 1) / 2

    def _solve(self, source: Any, rule: Any, loss: Any) -> Fit:
        check_range(source, loss)
        return self._fit_kernel(source, rule, loss)

    def _take(self, fit: Fit) -> Self:
        """Set the fitted attributes that classifiers have."""
        self.fit_, self.path_ = fit, fit.path  # type: ignore[assignment]
        self.intercept_ = fit.intercept
        self.alpha_ = float(fit.alpha[0])
        return self

    predict_proba = LogisticRegression.predict_proba
    predict_log_proba = LogisticRegression.predict_log_proba
