"""Linear classifiers: `LogisticRegression`, `LinearSVC` and `RidgeClassifier`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import ClassifierMixin
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.multiclass import check_classification_targets, is_multilabel
from sklearn.utils.validation import check_is_fitted

from elltwo.conventions import DIALECTS, Form
from elltwo.data.memory import MemorySource
from elltwo.data.tensors import as_array
from elltwo.data.weights import as_counts, check_weights, refuse_class_weight
from elltwo.errors import InputError, did_you_mean, name_some
from elltwo.inference import Inference
from elltwo.interfaces.sklearn.linear import (
    LinearModel,
    check_flags,
    chooses,
    row_weights,
    seed_of,
    target_names,
)
from elltwo.losses import Binomial, Gaussian, Multinomial, SquaredHinge
from elltwo.results import Fit
from elltwo.selection import OF_NUMBERS, KFold, OfClasses

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ClassFolds:
    """Folds by any splitter, which sees the classes; each training set must hold all of them.

    Parameters
    ----------
    splitter : splitter or iterable of (train, test)
    codes : array of int, shape (n,)
        The class of each row.
    names : sequence of str
        What the classes are called.
    counted : array of bool, shape (n,)
        Rows of positive weight.
    """

    splitter: Any
    codes: Array
    names: tuple[str, ...]
    counted: Array

    @property
    def n_splits(self) -> Any:
        """The number of folds, or None if the splitter does not tell."""
        return getattr(self.splitter, "n_splits", None)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Array, Array]]:  # noqa: ARG002
        """Yield (train, test) indices (scikit-learn's splitter interface)."""
        n = len(self.codes)
        for k, (train, test) in enumerate(self._pairs(X, groups)):
            try:
                rows = np.arange(n)[train]
            except IndexError:
                raise InputError(
                    f"cv: fold {k} must hold row positions from 0 to {n - 1}, or a mask of {n} booleans."
                ) from None
            held = np.bincount(self.codes[rows][self.counted[rows]], minlength=len(self.names))
            if (held == 0).any():
                missing = name_some([self.names[c] for c in np.flatnonzero(held == 0)])
                raise InputError(
                    f"cv: the training rows of fold {k} lack the class {missing}. Use fewer folds, "
                    "StratifiedKFold or another splitter, or alpha='loo'."
                )
            yield train, test

    def _pairs(self, X: Any, groups: Any) -> Iterator[tuple[Array, Array]]:
        """Yield what the splitter says; proportions of classes are those of the rows that count."""
        if isinstance(self.splitter, StratifiedKFold):
            rows = np.flatnonzero(self.counted)
            largest = int(np.bincount(self.codes[rows]).max())
            if largest < self.splitter.n_splits:
                raise InputError(
                    f"{self.splitter.n_splits} folds that keep the shares of the classes need as many rows "
                    f"of some class; the largest class has {largest}. Use fewer folds, or alpha='loo'."
                )
            pairs = self.splitter.split(rows[:, None], self.codes[rows])
            yield from ((rows[train], rows[test]) for train, test in pairs)
        elif hasattr(self.splitter, "split") and not isinstance(self.splitter, str):
            yield from self.splitter.split(X, self.codes, groups)
        else:
            yield from _pairs(self.splitter)


class _LinearClassifier(ClassifierMixin, LinearModel):  # type: ignore[misc]
    """A classifier whose classes are told apart by b + Xθ."""

    #: Scorings with a meaning for the predictions of the loss.
    SCORINGS: ClassVar[tuple[str, ...]]
    #: Whether y may have a column of 0 and 1 for each of several labels.
    MANY_LABELS: ClassVar[bool] = False

    classes_: Array
    class_weight: Any

    def _loss(self, K: int) -> Any:
        """Return the loss for K classes."""
        raise NotImplementedError

    def _targets(self, codes: Array, K: int) -> Array:
        """Return y = ±1: whether a row is of the second of two classes (n,), or of each class (n, K)."""
        member = codes[:, None] == np.arange(K)
        return np.where(member[:, 1] if K == 2 else member, 1.0, -1.0)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array, sparse matrix or table (pandas, Polars, Arrow), shape (n, p)
            Features: numbers of any type and memory order.
        y : array, shape (n,)
            Class labels: text, numbers or booleans, none missing; arrays of objects may hold them.
        sample_weight : array, shape (n,), optional
            Numbers ≥ 0; `weights_are` says what they are. Rows of weight 0 are rows left out.
        groups : array, shape (n,), optional
            Group or time of each row, for splitters that need it.

        Raises
        ------
        InputError
            A ValueError that names the column or argument, the cause and the remedy; also if y holds only
            one class.
        """
        source, classes, codes, counted = self._class_source(X, y, sample_weight, groups)
        K, labels = len(classes), tuple(str(label) for label in classes.tolist())
        loss = self._loss(K)
        fit = self._solve(source, self._class_rule(source, loss, codes, labels, counted), loss)
        self.classes_ = classes
        return self._take(replace(fit, classes=None if codes is None else tuple(classes.tolist())))

    def _class_source(
        self, X: Any, y: Any, sample_weight: Any, groups: Any = None, *, reset: bool = True
    ) -> tuple[MemorySource, Array, Array | None, Array]:
        """Return the rows as a source, the classes, the class of each row, and which rows count.

        With several labels per row the classes are the numbers of the labels, and rows have no class.
        """
        check_flags(self)
        names, y = target_names(y), _plain_labels(y)
        many = y is not None and is_multilabel(y)
        if many and not self.MANY_LABELS:
            raise InputError(
                f"y has {np.shape(y)[1]} columns of labels, and {type(self).__name__} tells one label a row. "
                "Fit a model for each (sklearn.multioutput.MultiOutputClassifier), or use RidgeClassifier."
            )
        y = y.toarray() if many and sparse.issparse(y) else y
        X, y = self._numbers(X, y, reset=reset, multi_output=many)
        given = None if sample_weight is None else row_weights(sample_weight, X.shape[0])
        counts = as_counts(self.weights_are)
        refuse_class_weight(weighted=given is not None, counts=counts, class_weight=self.class_weight)
        weights = check_weights(given, X.shape[0], counts=counts)
        counted = np.ones(X.shape[0], dtype=bool) if weights is None else weights > 0
        if many:
            if self.class_weight is not None:
                raise InputError(
                    "class_weight weighs the rows of a class, and here rows have several labels. Give "
                    "sample_weight."
                )
            source = self._rows(X, np.where(y > 0, 1.0, -1.0), given, groups, names)
            return source, np.arange(y.shape[1]), None, counted
        classes, codes = _coded(y, counted)
        K = len(classes)
        if self.class_weight is not None:
            base = np.ones(len(codes)) if weights is None else weights
            given = base * _class_weights(self.class_weight, classes, codes, base)[codes]
        labels = tuple(str(label) for label in classes.tolist())
        source = self._rows(
            X,
            self._targets(codes, K),
            given,
            groups,
            names if K == 2 else labels,
            weights_are=None if self.class_weight is None else "analytic",
        )
        source.whole_weights = source.whole_weights and self.class_weight is None
        return source, classes, codes, counted

    def _folds(self, k: int) -> Any:
        """Return k folds; `_class_rule` has them keep the proportions of the classes."""
        return k

    def _class_folds(self, k: int) -> Any:
        """Return k folds with the classes in the same proportions in each."""
        if self.random_state is None:
            return StratifiedKFold(k)
        return StratifiedKFold(k, shuffle=True, random_state=seed_of(self.random_state))

    def _class_rule(
        self, source: MemorySource, loss: Any, codes: Array | None, labels: tuple[str, ...], counted: Array
    ) -> Any:
        """Return alpha, or the rule that chooses it, with folds and a scoring that know the classes."""
        rule, known = self._rule(source, loss), self.SCORINGS
        scoring = getattr(rule, "scoring", None)
        if isinstance(scoring, str) and scoring not in known:
            raise InputError(
                f"scoring={scoring!r} has no meaning for {type(self).__name__}."
                f"{did_you_mean(scoring, known)} Choose from {name_some(known, len(known))}, or None for the "
                "loss itself."
            )
        if scoring is not None and scoring not in OF_NUMBERS:
            rule = replace(rule, scoring=OfClasses(scoring, exclusive=codes is not None))
        if not isinstance(rule, KFold):
            return rule
        number = isinstance(rule.cv, (int, np.integer))
        if codes is None:
            return replace(rule, cv=LinearModel._folds(self, int(rule.cv))) if number else rule
        splitter = self._class_folds(int(rule.cv)) if number else rule.cv
        return replace(rule, cv=ClassFolds(splitter, codes, labels, counted))

    def _take(self, fit: Fit) -> Self:
        """Set the fitted attributes: a row of `coef_` for two classes, else a row per class."""
        self.fit_, self.path_ = fit, fit.path
        self.coef_ = np.ascontiguousarray(fit.coef.T)
        self.intercept_ = fit.intercept
        one_alpha = self._one_alpha() or len(fit.alpha) == 1
        self.alpha_ = float(fit.alpha[0]) if one_alpha else fit.alpha
        return self

    def decision_function(self, X: Any) -> Array:
        """Return b + Xθ.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.

        Returns
        -------
        array, shape (n,) for two classes, where numbers above 0 speak for `classes_[1]`, else (n, K)
        """
        eta = self._eta(X)
        return eta[:, 0] if eta.shape[1] == 1 else eta

    def predict(self, X: Any) -> Array:
        """Predict the class of each row.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.

        Returns
        -------
        array, shape (n,)
            Labels from `classes_`; of several labels per row 0 or 1 for each, (n, L).

        Raises
        ------
        InputError
            If X holds NaN or infinity; the message names the columns.
        """
        check_is_fitted(self)
        eta = self.decision_function(X)
        if eta.ndim == 2 and self.fit_.classes is None:
            return np.asarray((eta > 0).astype(int))
        return np.asarray(self.classes_[(eta > 0).astype(int) if eta.ndim == 1 else eta.argmax(axis=1)])


class LogisticRegression(_LinearClassifier):
    """Logistic regression with an L2 penalty, its weight chosen from the data.

    Minimises Σ wᵢ·logloss(yᵢ, ηᵢ) + (α/2)(θ − θ₀)ᵀP(θ − θ₀) with ηᵢ = b + xᵢᵀθ, the objective of
    scikit-learn's `LogisticRegression(C=1/α)` when P = I and θ₀ = 0. The intercept is never penalised. Two
    classes have logloss = log(1 + e^η) − yη with y = 1 for `classes_[1]`; K > 2 classes have one η each and
    logloss = −log softmax(η)ₖ for class k (multinomial, not one against the rest), where the intercepts
    sum to 0.

    Parameters
    ----------
    alpha : float, str or rule, default "loo"
        A number is used as it is. "loo" (leave-one-out by one Newton step from the fit), "kfold", "aic",
        "bic" or a rule object such as `KFold(scoring="roc_auc")` chooses it; without alphas the grid comes
        from the data and the optimum is refined between its points. A rule without `scoring` compares the
        log-loss of held-out rows. K-fold with an integer keeps the shares of the classes in each fold.
    C : float, optional
        scikit-learn's inverse strength: C = 1/α, infinity for no penalty. Instead of alpha.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns, P = diag(sⱼ²). Coefficients are on the
        original scale all the same, and the data are not copied.
    penalty : array of shape (p,) or (p, p), or penalty object, optional
        Multipliers of the features (0 = unpenalised), or a Tikhonov matrix P.
    prior : array of shape (p,), optional
        θ₀, towards which the coefficients (of every class, if there are more than two) shrink.
    class_weight : dict or "balanced", optional
        Weight of the rows of each class, times `sample_weight`; a class without an entry has weight 1.
        "balanced" gives all classes the same total weight, and Σw is what it was. The product is a precision:
        frequencies as `sample_weight` are refused beside it.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of the mean loss, so that α = λ·Σw; `alpha_` is on the sum scale.
    solver : {"auto", "newton", "newton-dual", "newton-cg", "gradient", "sgd"}, default "auto"
        "auto" takes one of the three Newton's methods; the last three have no leave-one-out.
    tol : float, default 1e-10
        Largest gradient that may be left at the optimum, relative to that of the model without features.
    random_state : int or RandomState, optional
        With `alpha="kfold"` (or `KFold` with an integer cv), rows are shuffled before they are dealt to
        folds. Nothing else depends on it: other random numbers have fixed seeds.
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

    Attributes
    ----------
    classes_ : array, shape (K,)
        Labels in ascending order.
    coef_ : array, shape (1, p) for two classes, else (K, p)
    intercept_ : array, shape (1,) or (K,)
    alpha_ : float
        On the sum scale.
    path_ : Path
        `alphas`, `coef`, `df` and `score` for every alpha tried.
    fit_ : Fit
        `summary()`, `certificate`, `status`, `solver`, `df`, `save(path)`.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 3))
    >>> y = np.where(X[:, 0] - X[:, 1] + rng.logistic(size=200) > 0, "yes", "no")
    >>> model = LogisticRegression().fit(X, y)
    >>> model.predict(X[:3])
    array(['yes', 'yes', 'no'], dtype='<U3')
    >>> bool(np.allclose(model.coef_, LogisticRegression(C=1 / model.alpha_).fit(X, y).coef_))
    True

    References
    ----------
    le Cessie and van Houwelingen (1992), "Ridge estimators in logistic regression".
    Friedman, Hastie and Tibshirani (2010), J. Stat. Softw. 33(1), section 4: the symmetric multinomial form.
    """

    SCORINGS = ("accuracy", "neg_brier_score", "neg_log_loss", "roc_auc")
    C_FORM = next(dialect for dialect in DIALECTS if dialect.name == "C").form("logistic")

    def __init__(
        self,
        alpha: Any = "loo",
        *,
        C: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        prior: Any = None,
        class_weight: Any = None,
        alpha_scale: str = "sum",
        solver: str = "auto",
        tol: float = 1e-10,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.C = C
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.prior = prior
        self.class_weight = class_weight
        self.alpha_scale = alpha_scale
        self.solver = solver
        self.tol = tol
        self.random_state = random_state
        self.weights_are = weights_are

    def _loss(self, K: int) -> Any:
        return Binomial() if K == 2 else Multinomial()

    def _targets(self, codes: Array, K: int) -> Array:
        """Return y = 0 or 1: whether a row is of the second of two classes (n,), or of each class (n, K)."""
        return (super()._targets(codes, K) + 1) / 2

    def _alpha(self) -> Any:
        alpha = super()._alpha()
        if not chooses(alpha) and np.ndim(alpha) > 0:
            raise InputError(f"alpha={alpha!r}: the classes share one alpha; give one number or a rule.")
        return alpha

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, by the model.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.

        Returns
        -------
        array, shape (n, K)
            In the order of `classes_`; rows sum to 1.
        """
        eta, loss = self._eta(X), self.fit_.loss
        p: Array = loss.mean(eta if loss.coupled else eta * [-1.0, 1.0])
        return p

    def infer(self, X: Any, y: Any, sample_weight: Any = None) -> Inference:
        """Return standard errors, intervals and predictions of the fitted model; see `elltwo.infer`.

        Parameters
        ----------
        X, y, sample_weight
            The data of the fit.

        Raises
        ------
        InputError
            If these are not the data of the fit.

        Examples
        --------
        >>> import numpy as np
        >>> from elltwo import LogisticRegression
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = X[:, 0] > 0.5
        >>> LogisticRegression(1.0).fit(X, y).infer(X, y).intervals(0.9).coef.shape
        (2, 1, 2)
        """
        check_is_fitted(self)
        source, classes, _, _ = self._class_source(X, y, sample_weight, reset=False)
        if not np.array_equal(classes, self.classes_):
            raise InputError(f"y has the classes {classes.tolist()}; the fit had {self.classes_.tolist()}.")
        return self._infer(source)

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`, accurate also where a probability underflows.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.

        Returns
        -------
        array, shape (n, K)
        """
        eta, loss = self._eta(X), self.fit_.loss
        if loss.coupled:
            return -np.asarray(loss.value(np.eye(eta.shape[1]), eta[:, None, :]))
        return -np.asarray(loss.value(np.array([0.0, 1.0]), eta))


class LinearSVC(_LinearClassifier):
    """Linear support vector machine with the squared hinge, its penalty chosen from the data.

    Minimises Σ wᵢ·½max(0, 1 − yᵢηᵢ)² + (α/2)(θ − θ₀)ᵀP(θ − θ₀) with y = ±1 and ηᵢ = b + xᵢᵀθ; with more than
    two classes, each class against the rest. This is the objective of scikit-learn's `LinearSVC(C)`,
    ½‖θ‖² + C·Σ max(0, 1 − yη)², with C = 1/(2α), P = I and θ₀ = 0, but for the intercept: liblinear penalises
    it (as the coefficient of a constant column `intercept_scaling`), here it is free.

    Margins are no probabilities, so there is no `predict_proba`; `LogisticRegression` has one.

    Parameters
    ----------
    alpha : float, array of shape (K,), str or rule, default "loo"
        As in `LogisticRegression`, but "aic" and "bic", which need a likelihood. A rule without `scoring`
        compares the squared hinge of held-out rows. An array gives a number to each class against the rest.
    C : float, optional
        scikit-learn's inverse strength: C = 1/(2α), infinity for no penalty. Instead of alpha.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns.
    penalty : array of shape (p,) or (p, p), or penalty object, optional
        Multipliers of the features (0 = unpenalised), or a Tikhonov matrix P.
    prior : array of shape (p,), optional
        θ₀, towards which the coefficients of every class shrink.
    class_weight : dict or "balanced", optional
        Weight of the rows of each class, as in `LogisticRegression`.
    alpha_per_target : bool, default False
        With more than two classes, choose an alpha for each class against the rest.
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
    classes_, coef_, intercept_, path_, fit_
        As in `LogisticRegression`.
    alpha_ : float, or array (K,) with an alpha per class
        On the sum scale.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import LinearSVC
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = LinearSVC(C=1e6).fit(X, ["low", "low", "high", "high"])
    >>> model.coef_.round(3), model.classes_[1]
    (array([[-2.]]), np.str_('low'))

    References
    ----------
    Chang, Hsieh and Lin (2008), "Coordinate descent method for large-scale L2-loss linear support vector
    machines", J. Mach. Learn. Res. 9.
    """

    SCORINGS = ("accuracy", "roc_auc")
    C_FORM = Form("C·Σ max(0, 1 − yη)² + ½·‖θ‖²", constant=0.5, value=-1)

    def __init__(
        self,
        alpha: Any = "loo",
        *,
        C: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        prior: Any = None,
        class_weight: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        solver: str = "auto",
        tol: float = 1e-10,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.C = C
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.prior = prior
        self.class_weight = class_weight
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.solver = solver
        self.tol = tol
        self.random_state = random_state
        self.weights_are = weights_are

    def _loss(self, K: int) -> Any:  # noqa: ARG002
        return SquaredHinge()


class RidgeClassifier(_LinearClassifier):
    """Classes by ridge regression of y = ±1: the closed form, and every rule exact.

    Minimises Σ wᵢ(yᵢ − b − xᵢᵀθ)² + α(θ − θ₀)ᵀP(θ − θ₀), the objective of scikit-learn's `RidgeClassifier`
    when P = I and θ₀ = 0. More than two classes are each told from the rest. y may also be an indicator
    matrix (n, L) of 0 and 1, for rows that have several labels at once.

    Parameters
    ----------
    alpha : float, array of shape (K,), str or rule, default "loo"
        As in `Ridge`. A rule without `scoring` compares the squared errors of held-out rows. Accuracy is that
        of the predicted classes; of several labels, the share of rows of which all are right.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns.
    penalty : array of shape (p,) or (p, p), or penalty object, optional
        Multipliers of the features (0 = unpenalised), or a Tikhonov matrix P.
    prior : array of shape (p,), optional
        θ₀, towards which the coefficients of every class shrink.
    class_weight : dict or "balanced", optional
        Weight of the rows of each class, as in `LogisticRegression`.
    alpha_per_target : bool, default False
        With more than two classes, choose an alpha for each class against the rest.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of MSE + λ‖θ‖², so that α = λ·Σw; `alpha_` is on the sum scale.
    solver : str, default "auto"
        "spectral", "cholesky", "orthogonal", "dual", or one of those of `LogisticRegression`, with our names.
    tol : float, default 1e-10
        Largest relative error that iterative refinement leaves.
    random_state : int or RandomState, optional
        Seed for the folds of "kfold".
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

    Attributes
    ----------
    classes_, coef_, intercept_, path_, fit_
        As in `LogisticRegression`.
    alpha_ : float, or array (K,) with an alpha per class
        On the sum scale.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import RidgeClassifier
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> RidgeClassifier().fit(X, X[:, 0] > X[:, 1]).score(X, X[:, 0] > X[:, 1]) > 0.9
    True
    """

    SCORINGS = ("accuracy", "roc_auc", *OF_NUMBERS)
    MANY_LABELS = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def __init__(
        self,
        alpha: Any = "loo",
        *,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        prior: Any = None,
        class_weight: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        solver: str = "auto",
        tol: float = 1e-10,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.prior = prior
        self.class_weight = class_weight
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.solver = solver
        self.tol = tol
        self.random_state = random_state
        self.weights_are = weights_are

    def _loss(self, K: int) -> Any:  # noqa: ARG002
        return Gaussian()


def _pairs(folds: Any) -> list[tuple[Array, Array]]:
    """Return the (train, test) indices of an iterable of them."""
    try:
        return [(np.asarray(train), np.asarray(test)) for train, test in folds]
    except (TypeError, ValueError):
        raise InputError(
            f"cv must be an integer, a splitter or an iterable of (train, test) indices; got {folds!r}."
        ) from None


def _plain_labels(y: Any) -> Any:
    """Return objects that are all booleans or all numbers in an array of such; refuse missing labels."""
    values = None if y is None or sparse.issparse(y) else np.asarray(as_array(y))
    if values is None or values.dtype.kind != "O" or values.ndim > 2:
        return y
    flat = values.ravel().tolist()
    missing = [i for i, value in enumerate(flat) if _is_missing(value)]
    if missing:
        row = missing[0] // (values.size // len(values))
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise InputError(
            f"y lacks a label in row {row:,} ({flat[missing[0]]!r}){more}: labels must not be missing. Leave "
            "out such rows, or give them a label of their own."
        )
    for kinds, dtype in (((bool, np.bool_), np.bool_), ((int, float, np.integer, np.floating), None)):
        if all(isinstance(value, kinds) and (dtype or not isinstance(value, bool)) for value in flat):
            return np.array(flat, dtype=dtype).reshape(values.shape)
    return y


def _is_missing(value: Any) -> bool:
    """Return whether an object stands for no value: None, NaN, pandas' NA and NaT."""
    absent = value is None or type(value).__name__ in ("NAType", "NaTType")
    return absent or (isinstance(value, (float, np.floating)) and bool(np.isnan(value)))


def _coded(y: Array, counted: Array) -> tuple[Array, Array]:
    """Return the classes (K,) of the rows that count, in order, and the class of each row (n,).

    Rows that do not count and are of no such class are given to the first.
    """
    try:
        check_classification_targets(y)
        labels, codes = np.unique(y, return_inverse=True)
    except TypeError as error:
        raise InputError(
            f"y holds labels that cannot be put in order ({error}). Use labels of one type, without None."
        ) from error
    present = np.bincount(codes[counted], minlength=len(labels)) > 0
    classes = labels[present]
    if len(classes) < 2:
        where = "" if counted.all() else " in the rows of positive weight"
        raise InputError(
            f"y holds only one class, {classes.tolist()[0]!r}{where}; a classifier needs at least 2 classes."
        )
    return classes, np.maximum(np.cumsum(present) - 1, 0)[codes]


def _class_weights(class_weight: Any, classes: Array, codes: Array, weights: Array) -> Array:
    """Return the weight of each class, shape (K,)."""
    labels = classes.tolist()
    if isinstance(class_weight, str) and class_weight == "balanced":
        return np.asarray(weights.sum() / (len(labels) * np.bincount(codes, weights, minlength=len(labels))))
    if not isinstance(class_weight, dict):
        raise InputError(f"class_weight must be None, 'balanced' or a dict; got {class_weight!r}.")
    strangers = [label for label in class_weight if label not in labels]
    without = [label for label in labels if label not in class_weight]
    # A subset of the rows may lack a class; a misspelt label leaves a class without its weight.
    if strangers and without:
        raise InputError(
            f"class_weight names {name_some(map(str, strangers))}, which is no class of y, and leaves out "
            f"{name_some(map(str, without))}.{did_you_mean(str(strangers[0]), map(str, labels))}"
        )
    for label, weight in class_weight.items():
        number = isinstance(weight, (int, float, np.number)) and not isinstance(weight, bool)
        if not number or not 0 < weight < np.inf:
            raise InputError(
                f"class_weight of {label!r} is {weight!r}; it must be a number above 0. "
                "To do without a class, leave out its rows."
            )
    return np.array([float(class_weight.get(label, 1.0)) for label in labels])
