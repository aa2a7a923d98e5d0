"""What the linear estimators share: validation of arrays and tables, fitted attributes, prediction."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from elltwo.data.memory import MemorySource
from elltwo.errors import InputError
from elltwo.results import Fit, Path

Array = npt.NDArray[Any]

SPARSE = ("csr", "csc")


class LinearEstimator(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor whose prediction is b + Xθ."""

    coef_: Array
    intercept_: Any
    alpha_: Any
    fit_: Fit
    path_: Path

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _source(self, X: Any, y: Any, sample_weight: Any, groups: Any = None, *, reset: bool = True) -> MemorySource:
        """Validate training data and return them as a source.

        Whether X is finite is not looked at here: the pass over the rows notices it for free.
        """
        X, y = validate_data(
            self,
            X,
            y,
            reset=reset,
            accept_sparse=SPARSE,
            dtype="numeric",
            ensure_all_finite=False,
            multi_output=True,
            y_numeric=True,
        )
        names = getattr(self, "feature_names_in_", None)
        weights = None if sample_weight is None else _weights(sample_weight, X.shape[0])
        self._one_dimensional = y.ndim == 1
        return MemorySource(X, y, weights, feature_names=names, keys=groups)

    def _take(self, fit: Fit, *, one_alpha: bool) -> Self:
        """Set the fitted attributes in scikit-learn's shapes."""
        self.fit_, self.path_ = fit, fit.path
        self.coef_ = fit.coef[:, 0] if fit.coef.shape[1] == 1 else np.ascontiguousarray(fit.coef.T)
        scalar = self._one_dimensional or not fit.fit_intercept
        self.intercept_ = float(fit.intercept[0]) if scalar else fit.intercept
        self.alpha_ = float(fit.alpha[0]) if one_alpha else fit.alpha
        return self

    def predict(self, X: Any) -> Array:
        """Predict b + Xθ.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)

        Returns
        -------
        array, shape (n,) or (n, T)
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, accept_sparse=SPARSE, dtype="numeric")
        if sparse.issparse(X):
            X = X.tocsr()
        return np.asarray(X @ self.coef_.T) + self.intercept_


def _weights(sample_weight: Any, n: int) -> Array:
    """Return the weights as an array (n,), with their dtype: integers are counts."""
    weights = np.asarray(sample_weight)
    if weights.ndim == 0:
        weights = np.full(n, weights)
    if weights.dtype.kind not in "fiub":
        try:
            weights = weights.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError(f"sample_weight has dtype {weights.dtype}; it must hold numbers.") from None
    return weights
