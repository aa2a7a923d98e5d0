"""`RidgeCV` with scikit-learn's arguments, for code that already uses them."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing

from elltwo.engine import fit_source, held_out
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.linear import WithInference
from elltwo.interfaces.sklearn.ridge import Ridge
from elltwo.selection import LOO, OF_NUMBERS, HeldRows, KFold, Scoring, UndefinedScore, check_alphas

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
        scikit-learn scorer: a name, or a function of (estimator, X, y), which gets held-out rows of X and y
        as they were given, all targets at once unless `alpha_per_target`, and the model of the other rows.
        With `cv=None` there is a model for each row, so the estimator predicts the X that it comes with, and
        scorers that rank or correlate are refused. Folds where the score is NaN are left out, and
        `fit_.status` says so. None: squared error for `cv=None`, R² averaged over folds otherwise.
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
            rule = LOO(alphas=alphas, scoring=self._scoring(X, y, sample_weight))
        else:
            cv = int(self.cv) if isinstance(self.cv, (int, np.integer)) else check_cv(self.cv)
            rule = KFold(cv=cv, alphas=alphas, scoring=self._scoring(X, y, sample_weight) or "r2")
        each = self.alpha_per_target
        try:
            fit = fit_source(source, rule, alpha_per_target=each, **options)
        except UndefinedScore:
            if self.scoring is not None:
                raise
            # scikit-learn's R² of several rows of one value is 0 or 1, and NaN of one row alone.
            by_convention = _Scorer(get_scorer("r2"), self, X, y, sample_weight is not None)
            rule = KFold(cv=cv, alphas=alphas, scoring=by_convention)
            fit = fit_source(source, rule, alpha_per_target=each, **options)
        if self.store_cv_results:
            self.cv_results_ = self._results(held_out(source, alphas, **options), source.y)
        score = fit.path.score
        assert score is not None
        columns = score.reshape(len(score), -1)
        targets = np.arange(columns.shape[1])
        best = -columns[fit.path.chosen[targets], targets]
        self.best_score_ = best if len(best) > 1 else float(best[0])
        return self._take(fit, one_alpha=not self.alpha_per_target)

    def _scoring(self, X: Any, y: Any, sample_weight: Any) -> str | Scoring | None:
        """Return our name of the scoring if there is one, else the scorer with the rows that it will see."""
        if self.scoring is None or (isinstance(self.scoring, str) and self.scoring in OF_NUMBERS):
            return self.scoring
        return _Scorer(get_scorer(self.scoring), self, X, y, sample_weight is not None)

    def _results(self, errors: Array, y: Array) -> Array:
        """Return squared errors, or predictions with a scorer, from errors (n, A, T): (n, A) or (n, T, A)."""
        values = errors**2 if self.scoring is None else y[:, None, :] - errors
        return values[:, :, 0] if self._one_dimensional else np.moveaxis(values, 1, 2)


class _EachRow(Ridge):
    """The models that left out a row each: they predict those rows, and no others."""

    def predict(self, X: Any) -> Array:
        """Return what each of the rows is predicted without it."""
        if X is not self.rows_ and not _equal(X, self.rows_):
            raise InputError(
                "the scorer asks for predictions of other rows than its X, and with cv=None each row has a "
                "model of its own. Use cv=5, which has one model for each fold."
            )
        predictions: Array = self.predictions_
        return predictions


def _equal(X: Any, rows: Any) -> bool:
    """Return whether these are the same rows in another object."""
    if not hasattr(X, "shape") or hasattr(X, "tocsr") or hasattr(rows, "tocsr"):
        return False
    return np.array_equal(np.asarray(X), np.asarray(rows))


@dataclass(frozen=True)
class _Scorer(Scoring):
    """A scikit-learn scorer of (estimator, X, y), with X and y as they were given to `RidgeCV`."""

    scorer: Any
    owner: RidgeCV
    X: Any
    y: Any
    weighted: bool

    def of(self, held: HeldRows) -> Array:
        """Return the scores (A, 1), or (A, T) with an alpha per target."""
        X, y = _safe_indexing(self.X, held.rows), _safe_indexing(self.y, held.rows)
        columns: list[Any] = [slice(None)]
        if self.owner.alpha_per_target and held.y.shape[1] > 1:
            columns, y = list(range(held.y.shape[1])), np.asarray(y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # NaN says it, and a status tells
            return np.array(
                [
                    [
                        self.scorer(
                            self._model(held, a, t, X),
                            X,
                            y if len(columns) == 1 else y[:, t],
                            **self._weights(held),
                        )
                        for t in columns
                    ]
                    for a in range(len(held.alphas))
                ],
                dtype=np.float64,
            )

    def _model(self, held: HeldRows, a: int, t: Any, X: Any) -> Ridge:
        """Return the model of the other rows at alpha number a, of the target t or of all."""
        kind = _EachRow if held.models is None else Ridge
        model = kind(float(held.alphas[a]), fit_intercept=self.owner.fit_intercept)
        model.alpha_, model.n_features_in_ = model.alpha, self.owner.n_features_in_
        if hasattr(self.owner, "feature_names_in_"):
            model.feature_names_in_ = self.owner.feature_names_in_
        target = 0 if self.owner._one_dimensional else t
        if held.models is None:
            model.rows_, model.predictions_ = X, held.eta[:, a, target]
            return model
        coef, intercept = (part[a] for part in held.models)
        model.coef_, model.intercept_ = coef[:, target].T, intercept[target]
        return model

    def _weights(self, held: HeldRows) -> dict[str, Array]:
        """Return the weights of the rows, if there are some and the scorer takes them."""
        function = getattr(self.scorer, "_score_func", self.scorer)
        takes = self.weighted and "sample_weight" in inspect.signature(function).parameters
        return {"sample_weight": held.weights} if takes else {}
