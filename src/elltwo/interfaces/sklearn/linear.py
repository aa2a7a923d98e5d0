"""What the linear estimators share: validation of arrays and tables, fitted attributes, prediction."""

from __future__ import annotations

import sys
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from elltwo.data.memory import MemorySource
from elltwo.errors import InputError, name_some
from elltwo.results import Fit, Path

Array = npt.NDArray[Any]

SPARSE = ("csr", "csc")
#: Parameters that are either True or False; anything else would be taken for True.
FLAGS = ("fit_intercept", "standardize", "alpha_per_target", "store_cv_results")


class LinearEstimator(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor whose prediction is b + Xθ."""

    # As scikit-learn's own splitters do: groups that are passed on are meant for the splitter.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}

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

    def _source(
        self, X: Any, y: Any, sample_weight: Any, groups: Any = None, *, reset: bool = True
    ) -> MemorySource:
        """Validate parameters and training data and return the data as a source.

        Whether X is finite is not looked at here: the pass over the rows notices it for free.
        """
        _check_flags(self)
        target_names = _target_names(y)
        X, y = self._numbers(X, y, reset=reset, multi_output=True, y_numeric=True)
        self._one_dimensional = y.ndim == 1
        return MemorySource(
            X,
            y,
            None if sample_weight is None else _weights(sample_weight, X.shape[0]),
            feature_names=getattr(self, "feature_names_in_", None),
            target_names=target_names,
            keys=None if groups is None else _groups(groups, X.shape[0]),
        )

    def _numbers(self, X: Any, *y: Any, **options: Any) -> list[Any]:
        """Return [X] or [X, y] as scikit-learn validates them; columns that hold no numbers are named."""
        table = _whole_table(X)
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

    def _take(self, fit: Fit, *, one_alpha: bool) -> Self:
        """Set the fitted attributes in scikit-learn's shapes."""
        one_target = fit.coef.shape[1] == 1
        self.fit_, self.path_ = fit, fit.path
        self.coef_ = fit.coef[:, 0] if one_target else np.ascontiguousarray(fit.coef.T)
        scalar = self._one_dimensional or not fit.fit_intercept
        self.intercept_ = float(fit.intercept[0]) if scalar else fit.intercept
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
        check_is_fitted(self)
        (X,) = self._numbers(X, reset=False)
        if sparse.issparse(X):
            X = X.tocsr()
        with np.errstate(invalid="ignore", over="ignore"):
            prediction: Array = np.asarray(X @ self.coef_.T) + self.intercept_
        if not np.isfinite(prediction).all():
            names = getattr(self, "feature_names_in_", None)
            raise MemorySource(X, np.zeros(X.shape[0]), feature_names=names).why_not_finite()
        return prediction


def _check_flags(estimator: Any) -> None:
    for name in FLAGS:
        value = getattr(estimator, name, False)
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(f"{name} must be True or False; got {value!r}.")


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


def _target_names(y: Any) -> tuple[str, ...] | None:
    """Return the column names of a table, or the name of a series, if they are text."""
    names = getattr(y, "column_names", getattr(y, "columns", None))
    if names is None:
        names = [getattr(y, "name", None)]
    return tuple(names) if all(isinstance(name, str) and name for name in names) else None


def _weights(sample_weight: Any, n: int) -> Array:
    """Return the weights as an array (n,), with their dtype: integers are counts."""
    weights = np.asarray(sample_weight)
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
