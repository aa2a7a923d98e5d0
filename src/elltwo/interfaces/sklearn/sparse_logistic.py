"""`SparseLogisticRegression`: two classes, a short list of features."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from scipy import sparse

from elltwo.data.memory import MemorySource
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.classifiers import LogisticRegression, _LinearClassifier
from elltwo.interfaces.sklearn.elastic_net import check_l1, fit_l1
from elltwo.losses import Binomial
from elltwo.results import Fit

Array = npt.NDArray[Any]


class SparseLogisticRegression(_LinearClassifier):
    """Logistic regression with an L1 penalty, or a mixed one, its weight chosen from the data.

    Minimises Σ wᵢ·[log(1 + e^ηᵢ) − yᵢηᵢ] + α·[l1_ratio·Σ √dⱼ|θⱼ| + (1 − l1_ratio)/2·Σ dⱼθⱼ²] with
    ηᵢ = b + xᵢᵀθ and y = 1 for `classes_[1]`: the objective of scikit-learn's
    `LogisticRegression(C=1/α, l1_ratio=…, solver="saga")`. The intercept b is never penalised (liblinear
    penalises it), and dⱼ = 1 unless `penalty` or `standardize` say otherwise. There are two classes; for
    proportions, and for offsets, there is `ElasticNet(family="binomial")`.

    Parameters
    ----------
    alpha : float, str or rule, default "kfold"
        A number above 0 is used as it is. "kfold", "aic", "bic", "loo" or a rule object such as
        `KFold(scoring="roc_auc", one_se=True)` chooses it; without alphas the grid has 100 values down from
        the smallest alpha at which every penalised coefficient is 0. A rule without `scoring` compares the
        log-loss of held-out rows. K-fold with an integer keeps the shares of the classes in each fold. "loo"
        is approximate: one Newton step from the fit, the non-zero coefficients held.
    l1_ratio : float, default 1.0
        Share of the L1 penalty, from 0 (`LogisticRegression`) to 1.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns: dⱼ is multiplied by sⱼ². Coefficients are on the
        original scale all the same.
    penalty : array of shape (p,), optional
        Multipliers dⱼ of the features; 0 leaves one unpenalised.
    class_weight : dict or "balanced", optional
        Weight of the rows of each class, as in `LogisticRegression`.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of the mean loss, so that α = λ·Σw; `alpha_` is on the sum scale.
    max_iter : int, default 1000
        Newton steps per alpha, at most.
    tol : float, default 1e-10
        Largest violation of an optimality condition that counts as solved, relative to its size at the null
        model. If it is not reached, `fit_.status` says so.
    random_state : int or RandomState, optional
        With "kfold" (or `KFold` with an integer cv), rows are shuffled before they are dealt to folds.
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

    Attributes
    ----------
    classes_ : array, shape (2,)
        Labels in ascending order.
    coef_ : array, shape (1, p)
        Zeros are exact.
    sparse_coef_ : scipy sparse matrix, shape (1, p)
    intercept_ : array, shape (1,)
    alpha_ : float
        On the sum scale.
    dual_gap_ : float
        How much the objective may exceed its minimum, as a share of that of the null model.
    n_iter_ : int
        Newton steps at `alpha_`.
    path_, fit_, n_features_in_, feature_names_in_
        As in `LogisticRegression`.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import SparseLogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 20))
    >>> y = np.where(X[:, 0] - X[:, 1] + rng.logistic(size=300) > 0, "yes", "no")
    >>> model = SparseLogisticRegression(20.0).fit(X, y)
    >>> np.flatnonzero(model.coef_[0]), model.dual_gap_ < 1e-10
    (array([0, 1]), True)

    References
    ----------
    Park and Hastie (2007), "L1-regularization path algorithm for generalized linear models".
    """

    SCORINGS = LogisticRegression.SCORINGS

    def __init__(
        self,
        alpha: Any = "kfold",
        *,
        l1_ratio: float = 1.0,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        class_weight: Any = None,
        alpha_scale: str = "sum",
        max_iter: int = 1000,
        tol: float = 1e-10,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.class_weight = class_weight
        self.alpha_scale = alpha_scale
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.weights_are = weights_are

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    @property
    def sparse_coef_(self) -> Any:
        """Coefficients as a sparse matrix, shape (1, p)."""
        return sparse.csr_matrix(self.coef_)

    def _ratio(self) -> Any:
        return self.l1_ratio

    def _loss(self, K: int) -> Any:
        if K > 2:  # scikit-learn's words, then ours
            raise InputError(
                f"Only binary classification is supported. The type of the target is multiclass: y has {K} "
                "classes. Fit each against the rest (sklearn.multiclass.OneVsRestClassifier), or use "
                "LogisticRegression, whose penalty is L2."
            )
        return Binomial()

    def _targets(self, codes: Array, K: int) -> Array:
        """Return y = 0 or 1: whether a row is of the second class (n,)."""
        return (super()._targets(codes, K) + 1) / 2

    def _solve(self, source: MemorySource, rule: Any, loss: Any) -> Fit:
        check_l1(self)
        fit, gap, self.n_iter_ = fit_l1(self, source, rule, loss)
        self.dual_gap_ = float(gap[0])
        return fit

    predict_proba = LogisticRegression.predict_proba
    predict_log_proba = LogisticRegression.predict_log_proba
