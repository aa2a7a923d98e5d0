"""`RidgeCV` with scikit-learn's arguments, for code that already uses them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv

from elltwo.engine import fit_source, held_out
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.linear import WithInference
from elltwo.selection import LOO, SCORINGS, KFold, Metric, check_alphas

Array = npt.NDArray[Any]

#: scikit-learn's gcv_mode, as our solver.
GCV_MODES = {None: "auto", "auto": "auto", "svd": "orthogonal", "eigen": "spectral"}


class RidgeCV(WithInference):
    """Ridge regression over given alphas, with the arguments and attributes of scikit-learn's `RidgeCV`.

    `elltwo.Ridge` does more with fewer arguments; this class eases the move. With `cv=None` every
    row is left out in turn, exactly; otherwise by folds, with centring refitted in each.

    Parameters
    ----------
    alphas : float or sequence of float, default (0.1, 1.0, 10.0)
        Alphas to try, on the sum scale.
    fit_intercept : bool, default True
    scoring : str or callable, optional
        scikit-learn scorer. None: squared error for `cv=None`, R² averaged over folds otherwise.
    cv : int, splitter or iterable, optional
    gcv_mode : {None, "auto", "svd", "eigen"}, default None
        "svd" asks for the orthogonal solver, "eigen" for the spectral one.
    store_cv_results : bool, default False
        Keep `cv_results_`; only for `cv=None`.
    alpha_per_target : bool, default False
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is, as in `Ridge`.

    Attributes
    ----------
    coef_, intercept_, alpha_, path_, fit_
        As in `Ridge`.
    best_score_ : float, or array (T,) with an alpha per target
        Score at `alpha_`, larger is better. Without `scoring`, minus Σ wᵢeᵢ²/Σ wᵢ of the leave-one-out
        errors; scikit-learn divides by n where there are weights.
    cv_results_ : array, shape (n, A), or (n, T, A) if y has two dimensions
        Squared leave-one-out errors (scikit-learn's are times the weights), or with `scoring`
        leave-one-out predictions.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import RidgeCV
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> RidgeCV(alphas=[0.01, 1, 100]).fit(X, X @ [1.0, 2, 3, 4]).alpha_
    0.01
    """

    def __init__(
        self,
        alphas: Any = (0.1, 1.0, 10.0),
        *,
        fit_intercept: bool = True,
        scoring: Any = None,
        cv: Any = None,
        gcv_mode: str | None = None,
        store_cv_results: bool = False,
        alpha_per_target: bool = False,
        weights_are: str = "analytic",
    ) -> None:
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.scoring = scoring
        self.cv = cv
        self.gcv_mode = gcv_mode
        self.store_cv_results = store_cv_results
        self.alpha_per_target = alpha_per_target
        self.weights_are = weights_are

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model at the best of the alphas.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features: numbers of any type and memory order.
        y : array, shape (n,) or (n, T)
            Targets.
        sample_weight : array, shape (n,), optional
            Numbers ≥ 0; `weights_are` says what they are.
        groups : array, shape (n,), optional
            For splitters that need them.
        """
        if self.gcv_mode not in GCV_MODES:
            raise InputError(f"gcv_mode must be None, 'auto', 'svd' or 'eigen'; got {self.gcv_mode!r}.")
        if self.cv is not None and self.store_cv_results:
            raise InputError("store_cv_results needs leave-one-out: use cv=None, or store_cv_results=False.")
        source = self._source(X, y, sample_weight, groups)
        alphas = check_alphas(self.alphas)
        options: dict[str, Any] = {"fit_intercept": self.fit_intercept, "solver": GCV_MODES[self.gcv_mode]}
        rule: LOO | KFold
        if self.cv is None:
            rule = LOO(alphas=alphas, scoring=as_metric(self.scoring))
        else:
            cv = int(self.cv) if isinstance(self.cv, (int, np.integer)) else check_cv(self.cv)
            rule = KFold(
                cv=cv, alphas=alphas, scoring="r2" if self.scoring is None else as_metric(self.scoring)
            )
        fit = fit_source(source, rule, alpha_per_target=self.alpha_per_target, **options)
        if self.store_cv_results:
            self.cv_results_ = self._results(held_out(source, alphas, **options), source.y)
        score = fit.path.score
        assert score is not None
        columns = score.reshape(len(score), -1)
        targets = np.arange(columns.shape[1])
        best = -columns[fit.path.chosen[targets], targets]
        self.best_score_ = best if len(best) > 1 else float(best[0])
        return self._take(fit, one_alpha=not self.alpha_per_target)

    def _results(self, errors: Array, y: Array) -> Array:
        """Return squared errors, or predictions with a scorer, from errors (n, A, T): (n, A) or (n, T, A)."""
        values = errors**2 if self.scoring is None else y[:, None, :] - errors
        return values[:, :, 0] if self._one_dimensional else np.moveaxis(values, 1, 2)


class _Prediction(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor whose prediction is already known, so that any scorer can be asked about it."""

    def __init__(self, values: Any = None) -> None:
        self.values = values

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> Any:  # noqa: ARG002
        return self.values


def as_metric(scoring: Any) -> str | Metric | None:
    """Return our form of a scikit-learn scorer: a name we know, or a function of (y, prediction, weights)."""
    if scoring is None or (isinstance(scoring, str) and scoring in SCORINGS):
        return scoring
    scorer = get_scorer(scoring)

    def metric(y: Array, prediction: Array, weights: Array) -> float:
        shim = _Prediction(prediction)
        if np.all(weights == 1):
            return float(scorer(shim, np.zeros((len(y), 1)), y))
        return float(scorer(shim, np.zeros((len(y), 1)), y, sample_weight=weights))

    return metric
