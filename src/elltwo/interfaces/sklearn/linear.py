"""What the linear estimators share: checked arrays and tables, options, fitted attributes, prediction."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from elltwo.conventions import Form
from elltwo.data.exact import refuse_inexact_columns
from elltwo.data.memory import MemorySource
from elltwo.data.tensors import as_array, away
from elltwo.engine import fit_source, make_problem
from elltwo.errors import InputError, Status, name_some
from elltwo.folds import DealtFolds
from elltwo.inference import Inference, infer
from elltwo.problem import Problem
from elltwo.results import Fit, Path
from elltwo.selection import KFold
from elltwo.solvers.auto import leaves_one_out

Array = npt.NDArray[Any]

SPARSE = ("csr", "csc")
#: Parameters that are either True or False; anything else would be taken for True.
FLAGS = ("fit_intercept", "standardize", "alpha_per_target", "store_cv_results", "copy_X")
#: Parameters that are handed to the fit as they are.
OPTIONS = ("fit_intercept", "standardize", "penalty", "prior", "alpha_per_target", "alpha_scale", "tol")
#: Those of them that are part of the objective, with what they are where an estimator has them not.
OBJECTIVE = {"fit_intercept": True, "standardize": False, "penalty": None, "prior": None}


class LinearModel(BaseEstimator):  # type: ignore[misc]
    """An estimator of coefficients θ and an intercept b, from which everything it predicts follows."""

    # As scikit-learn's own splitters do: groups that are passed on are meant for the splitter.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}

    #: What the parameter `C` stands for, in estimators that have one.
    C_FORM: ClassVar[Form | None] = None

    weights_are: str
    coef_: Array
    intercept_: Any
    alpha_: Any
    fit_: Fit
    path_: Path

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def _rows(
        self,
        X: Any,
        y: Array,
        sample_weight: Any,
        groups: Any,
        target_names: tuple[str, ...] | None,
        offset: Any = None,
        *,
        weights_are: str | None = None,
    ) -> MemorySource:
        """Return validated X and y, with what goes along with each row, as a source.

        Whether X is finite is not looked at here: the pass over the rows notices it for free.
        """
        n = X.shape[0]
        return MemorySource(
            X,
            y,
            None if sample_weight is None else row_weights(sample_weight, n),
            weights_are=self.weights_are if weights_are is None else weights_are,
            feature_names=getattr(self, "feature_names_in_", None),
            target_names=target_names,
            keys=None if groups is None else _groups(groups, n),
            offset=offset,
        )

    def _numbers(self, X: Any, *y: Any, **options: Any) -> list[Any]:
        """Return [X] or [X, y] as scikit-learn validates them; columns that hold no numbers are named."""
        table, y = _whole_table(self._here(X)), tuple(as_array(values) for values in y)
        if y:
            _refuse_lost_digits(table)
        try:
            checked = validate_data(
                self, table, *y, accept_sparse=SPARSE, dtype="numeric", ensure_all_finite=False, **options
            )
            X, *rest = checked if y else (checked,)
            if X.dtype.kind == "O":
                X = X.astype(np.float64)
            if X.dtype.kind not in "fiub":
                raise InputError(f"X has dtype {X.dtype}; convert it to real numbers first.")
        except (TypeError, ValueError) as error:
            columns = _columns_without_numbers(table)
            if not columns:
                raise
            raise InputError(
                f"X has column(s) that do not hold numbers: {name_some(columns)}. Encode them "
                "(OneHotEncoder, OrdinalEncoder) or drop them; elltwo.fit encodes tables itself."
            ) from error
        return [X, *rest]

    def _here(self, X: Any) -> Any:
        """Return a tensor in the CPU's memory as an array, and anything but tensors as it is."""
        if away(X):
            raise InputError(
                f"X is a tensor on {X.device}, where {type(self).__name__} does not compute. Give X.cpu(); "
                "on the device compute Ridge and elltwo.torch.exact_head."
            )
        return as_array(X)

    def _alpha(self) -> Any:
        """Return alpha, or what `C` stands for if that was given instead."""
        C = getattr(self, "C", None)
        if C is None:
            return self.alpha
        if not (isinstance(self.alpha, str) and self.alpha == "loo"):
            raise InputError(f"C={C!r} and alpha={self.alpha!r} both set the penalty; give one of them.")
        if isinstance(C, (bool, np.bool_)) or not isinstance(C, (int, float, np.number)) or not C > 0:
            raise InputError(f"C={C!r} must be a number above 0 (infinity: no penalty).")
        if self.alpha_scale != "sum":
            raise InputError(
                f"C is on the sum scale, so alpha_scale={self.alpha_scale!r} does not go with it; give alpha."
            )
        assert self.C_FORM is not None
        return self.C_FORM.factor({}) * float(C) ** self.C_FORM.value

    def _rule(self, source: MemorySource | None = None, loss: Any = None) -> Any:
        """Return alpha, with the folds that an integer stands for.

        The name "loo", which is the default, gives way to "kfold" where the source has no leave-one-out.
        """
        alpha = self._alpha()
        by_name = isinstance(alpha, str) and alpha == "loo" and getattr(self, "solver", "auto") == "auto"
        if by_name and source is not None and not leaves_one_out(Problem(source, loss=loss)):
            alpha = "kfold"
        rule = KFold() if isinstance(alpha, str) and alpha == "kfold" else alpha
        if isinstance(rule, KFold) and isinstance(rule.cv, (int, np.integer)):
            return replace(rule, cv=self._folds(int(rule.cv)))
        return rule

    def _folds(self, k: int) -> Any:
        """Return k folds: consecutive parts, or rows dealt at random if `random_state` says so."""
        return k if self.random_state is None else DealtFolds(k, seed_of(self.random_state))

    def _options(self) -> dict[str, Any]:
        """Return the options that all fits share; an estimator without one of them has its default."""
        return {name: getattr(self, name) for name in OPTIONS if hasattr(self, name)}

    def _solver(self) -> Any:
        """Return the name of our solver."""
        return self.solver

    def _one_alpha(self) -> bool:
        alpha = self._alpha()
        return not getattr(self, "alpha_per_target", False) and (chooses(alpha) or np.ndim(alpha) == 0)

    def _solve(self, source: MemorySource, rule: Any, loss: Any) -> Fit:
        """Return the fit."""
        check_range(source, loss)
        limit = getattr(self, "max_iter", None)
        fit = fit_source(source, rule, loss=loss, solver=self._solver(), max_iter=limit, **self._options())
        if isinstance(self.alpha, str) and self.alpha == "loo" and fit.rule == "kfold":
            fit = replace(fit, status=(Status.LOO_UNAVAILABLE, *fit.status))
        return fit

    def _infer(self, source: MemorySource, **options: Any) -> Inference:
        """Return the inference of the fitted model on the rows it was fitted on."""
        fit = self.fit_
        objective: dict[str, Any] = {name: getattr(self, name, value) for name, value in OBJECTIVE.items()}
        problem = make_problem(source, loss=fit.loss, **objective)
        return infer(problem, fit.coef, fit.intercept, fit.alpha, **options)

    def _eta(self, X: Any) -> Array:
        """Return b + Xθ in the shape of `coef_`: (n,), or (n, rows of coef_)."""
        check_is_fitted(self)
        (X,) = self._numbers(X, reset=False)
        if sparse.issparse(X):
            X = X.tocsr()
        with np.errstate(invalid="ignore", over="ignore"):
            eta: Array = np.asarray(X @ self.coef_.T) + self.intercept_
        if not np.isfinite(eta).all():
            names = getattr(self, "feature_names_in_", None)
            raise MemorySource(X, np.zeros(X.shape[0]), feature_names=names).why_not_finite()
        return eta


class LinearEstimator(MultiOutputMixin, RegressorMixin, LinearModel):  # type: ignore[misc]
    """A regressor: the targets are numbers, one column or several."""

    def _source(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any = None,
        *,
        offset: Any = None,
        reset: bool = True,
    ) -> MemorySource:
        """Validate parameters and training data and return the data as a source."""
        check_flags(self)
        names = target_names(y)
        X, y = self._numbers(X, y, reset=reset, multi_output=True, y_numeric=True)
        self._one_dimensional = y.ndim == 1
        return self._rows(X, y, sample_weight, groups, names, offset)

    def _take(self, fit: Fit, *, one_alpha: bool) -> Self:
        """Set the fitted attributes in scikit-learn's shapes."""
        one_target = fit.coef.shape[1] == 1
        self.fit_, self.path_ = fit, fit.path
        self.coef_ = fit.coef[:, 0] if one_target else np.ascontiguousarray(fit.coef.T)
        scalar = self._one_dimensional or not fit.fit_intercept
        self.intercept_ = fit.intercept[0] if scalar else fit.intercept
        self.alpha_ = float(fit.alpha[0]) if one_alpha or one_target else fit.alpha
        return self

    def predict(self, X: Any) -> Array:
        """Predict b + Xθ.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.

        Returns
        -------
        array, shape (n,) or (n, T)

        Raises
        ------
        InputError
            If X holds NaN or infinity; the message names the columns.
        """
        return self._eta(X)


class WithInference(LinearEstimator):
    """A regressor by squared error, which says how sure its coefficients are."""

    def infer(self, X: Any, y: Any, sample_weight: Any = None) -> Inference:
        """Return standard errors, intervals and predictions of the fitted model; see `elltwo.infer`.

        Parameters
        ----------
        X, y, sample_weight
            The data of the fit.

        Raises
        ------
        InputError
            If these are not the data of the fit, or nothing is left over to estimate the noise from.

        Examples
        --------
        >>> import numpy as np
        >>> from elltwo import Ridge
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> y = X[:, 0] + np.random.default_rng(1).normal(size=200)
        >>> Ridge().fit(X, y).infer(X, y).intervals(0.9).coef[:, 0].round(1)
        array([[ 0.8,  1. ],
               [-0.1,  0.2]])
        """
        check_is_fitted(self)
        return self._infer(self._source(X, y, sample_weight, reset=False))


def check_flags(estimator: Any) -> None:
    """Raise InputError unless every switch of an estimator is True or False."""
    for name in FLAGS:
        value = getattr(estimator, name, False)
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(f"{name} must be True or False; got {value!r}.")


def refuse_positive(estimator: Any) -> None:
    """Raise InputError for `positive=True`, which scikit-learn's estimator of the same name can do."""
    if estimator.positive is not False:
        raise InputError(
            "positive=True is not supported: coefficients of either sign are fitted. Use "
            f"sklearn.linear_model.{type(estimator).__name__}(positive=True) for non-negative ones."
        )


def check_range(source: MemorySource, loss: Any) -> None:
    """Raise InputError, naming the target, if y has values that the loss is not made for."""
    if loss.coupled:
        loss.check(source.y, " ".join(source.target_names))
        return
    for t, name in enumerate(source.target_names):
        loss.check(source.y[:, t], name)


def _whole_table(X: Any) -> Any:
    """Return an Arrow record batch as a table, whose names scikit-learn reads; anything else as it is."""
    arrow = sys.modules.get("pyarrow")
    return arrow.Table.from_batches([X]) if arrow is not None and isinstance(X, arrow.RecordBatch) else X


def _columns_without_numbers(X: Any) -> list[str]:
    """Return the names of a table's columns that hold neither numbers nor booleans."""
    import narwhals as nw

    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        return []
    return [name for name, kind in frame.schema.items() if not (kind.is_numeric() or kind == nw.Boolean)]


def _refuse_lost_digits(X: Any) -> None:
    """Raise InputError if a column's own type has digits that scikit-learn's common dtype would lose."""
    if isinstance(X, np.ndarray):
        if X.dtype.kind == "O" and X.ndim == 2:
            refuse_inexact_columns(X.T, (f"x{j}" for j in range(X.shape[1])))
        return
    import narwhals as nw

    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        wide = (nw.Int64, nw.UInt64, nw.Int128, nw.UInt128, nw.Decimal, nw.Object)
        names = [name for name, kind in frame.schema.items() if kind in wide]
        refuse_inexact_columns((frame[name].drop_nulls().to_numpy() for name in names), names)


def target_names(y: Any) -> tuple[str, ...] | None:
    """Return the column names of a table, or the name of a series, if they are text."""
    names = getattr(y, "column_names", getattr(y, "columns", None))
    if names is None:
        names = [getattr(y, "name", None)]
    return tuple(names) if all(isinstance(name, str) and name for name in names) else None


def row_weights(sample_weight: Any, n: int) -> Array:
    """Return the weights as an array (n,)."""
    weights = np.asarray(as_array(sample_weight))
    if weights.ndim == 0:
        weights = np.full(n, weights)
    if weights.dtype.kind == "O":
        try:
            weights = weights.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError("sample_weight holds values that are not numbers.") from None
    if weights.dtype.kind not in "fiub":
        raise InputError(f"sample_weight has dtype {weights.dtype}; it must hold real numbers.")
    if weights.shape != (n,):
        raise InputError(f"sample_weight has shape {weights.shape}; one weight per row is needed: ({n},).")
    return weights


def _groups(groups: Any, n: int) -> Array:
    """Return the group of each row as an array (n,)."""
    values = np.asarray(groups)
    if values.shape != (n,):
        raise InputError(f"groups has shape {values.shape}; one value per row is needed: ({n},).")
    return values


def chooses(alpha: Any) -> bool:
    """Return whether alpha is a rule or its name rather than a number or numbers."""
    return isinstance(alpha, str) or hasattr(alpha, "criterion")


def seed_of(random_state: Any) -> int:
    """Return a seed for an integer ≥ 0 or a RandomState."""
    if isinstance(random_state, (int, np.integer)) and random_state >= 0:
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    raise InputError(f"random_state must be None, an integer ≥ 0 or a RandomState; got {random_state!r}.")
