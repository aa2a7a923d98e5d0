"""`Ridge`: scikit-learn's calls and shapes, with an alpha that chooses itself and a certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from elltwo.data.tensors import TensorSource, away, times
from elltwo.data.weights import meaning
from elltwo.engine import fit_moments
from elltwo.errors import InputError, Status
from elltwo.interfaces.sklearn.linear import WithInference, check_flags, chooses, refuse_positive
from elltwo.losses import Gaussian
from elltwo.moments import Moments, gather
from elltwo.selection import KFold

#: scikit-learn's solvers of ridge regression that ours have other names for.
SOLVER_NAMES = {
    "svd": "orthogonal",
    "sparse_cg": "newton-cg",
    "lsqr": "newton-cg",
    "lbfgs": "gradient",
    "sag": "sgd",
    "saga": "sgd",
}


@dataclass(frozen=True)
class _Batches:
    """What `partial_fit` remembers: names of targets, moments by fold, the number of batches; of weights what
    they were, and whether those of all batches looked like frequencies.
    """

    target_names: tuple[str, ...]
    weights: str = "none"
    whole_weights: bool = True
    atoms: tuple[Moments, ...] = ()
    count: int = 0

    def add(self, moments: Moments, source: Any, folds: int) -> Self:
        """Return the memory with one batch more, in fold `count` mod `folds`."""
        weights = meaning(source)
        if "none" not in (weights, self.weights) and weights != self.weights:
            raise InputError(
                f"weights_are is now {weights!r}, but weights of earlier batches were {self.weights!r}, and "
                "a model has one kind. Set it back, or start afresh with a new estimator."
            )
        targets, known = moments.cross.shape[1], len(self.target_names)
        if targets != known:
            raise InputError(f"y has {targets} target(s), but earlier batches had {known}.")
        atoms, slot = list(self.atoms), self.count % folds
        if slot < len(atoms):
            atoms[slot] = atoms[slot].merge(moments)
        else:
            atoms.append(moments)
        kind = self.weights if weights == "none" else weights
        whole = self.whole_weights and (source.whole_weights or not source.weighted)
        return replace(self, weights=kind, whole_weights=whole, atoms=tuple(atoms), count=self.count + 1)


class Ridge(WithInference):
    """Linear regression with an L2 penalty, its weight chosen from the data.

    Minimises Σ wᵢ(yᵢ − b − xᵢᵀθ)² + α(θ − θ₀)ᵀP(θ − θ₀), the objective of scikit-learn's `Ridge` when
    P = I and θ₀ = 0. The intercept b is never penalised. The arguments of scikit-learn's `Ridge` are taken,
    with other defaults of `alpha` and `tol`; `positive=True` is refused.

    Parameters
    ----------
    alpha : float, array of shape (T,), str or rule, default "loo"
        A number is used as it is, an array gives one per target. "loo", "gcv", "kfold", "reml", "aic",
        "bic" or a rule object such as `LOO(alphas=…)` chooses it; without alphas the grid comes from the
        data's spectrum and the optimum is refined between its points.
    fit_intercept : bool, default True
    standardize : bool, default False
        Penalise the coefficients of standardised columns, P = diag(sⱼ²). Coefficients are on the
        original scale all the same, and the data are not copied.
    penalty : array of shape (p,) or (p, p), or penalty object, optional
        Multipliers of the features (0 = unpenalised), or a Tikhonov matrix P.
    prior : array of shape (p,), optional
        θ₀, towards which the coefficients shrink.
    alpha_per_target : bool, default False
        Choose an alpha for each target rather than one for all.
    alpha_scale : {"sum", "mean"}, default "sum"
        "mean" reads α as the λ of MSE + λ‖θ‖², so that α = λ·Σw; `alpha_` is on the sum scale.
    copy_X : bool, default True
        As in scikit-learn. X is never written to, so that False changes nothing.
    max_iter : int, optional
        Most passes of "gradient", epochs of "sgd" or Newton steps of "newton-cg", for each alpha; None is the
        solver's own limit. The others do not iterate. `fit_.status` says when a limit was reached.
    solver : str, default "auto"
        "spectral", "cholesky", "orthogonal" or "dual", which factorise; "newton-cg" (conjugate gradients),
        "gradient" (L-BFGS) or "sgd", which have no leave-one-out. scikit-learn's "svd" stands for
        "orthogonal", "sparse_cg" and "lsqr" for "newton-cg", "lbfgs" for "gradient", "sag" and "saga" for
        "sgd"; "newton" and "newton-dual" are for other losses, but solve this one too.
    tol : float, default 1e-10
        Largest relative error that iterative refinement leaves, or relative gradient of an iterative solver.
    positive : bool, default False
        Not supported: True is refused.
    random_state : int or RandomState, optional
        With `alpha="kfold"` (or `KFold` with an integer cv), rows are dealt to folds at random with this
        seed instead of in consecutive parts. Nothing else depends on it: where random numbers are used
        ("sgd", estimates of df and of the certificate), their seeds are fixed.
    weights_are : {"analytic", "frequency"}, default "analytic"
        What `sample_weight` is. "analytic": a row of weight w is one observation of w times the precision
        (1/variance), and leave-one-out leaves it out whole. "frequency": a row of weight w stands for w equal
        observations, so that n = Σw and leave-one-out leaves out one of them; the weights are whole numbers.

    Attributes
    ----------
    coef_ : array, shape (p,) or (T, p)
    intercept_ : float or array, shape (T,)
    alpha_ : float, or array (T,) with an alpha per target
        On the sum scale.
    path_ : Path
        `alphas`, `coef`, `df` and `score` for every alpha tried.
    n_iter_ : int
        Passes, epochs or Newton steps at `alpha_` of a solver that iterates; of the others the steps of
        iterative refinement. At least 1.
    fit_ : Fit
        `summary()`, `certificate`, `status`, `solver`, `df`, `save(path)`.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import Ridge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 3))
    >>> y = X @ [1.0, 2.0, 3.0] + 5 + 0.1 * rng.normal(size=100)
    >>> Ridge().fit(X, y).coef_.round(1)
    array([1., 2., 3.])
    >>> Ridge(alpha=10.0).fit(X, y).fit_.certificate.digits > 12
    True

    References
    ----------
    Hoerl and Kennard (1970), "Ridge regression: biased estimation for nonorthogonal problems".
    """

    def __init__(
        self,
        alpha: Any = "loo",
        *,
        fit_intercept: bool = True,
        standardize: bool = False,
        penalty: Any = None,
        prior: Any = None,
        alpha_per_target: bool = False,
        alpha_scale: str = "sum",
        copy_X: bool = True,
        max_iter: int | None = None,
        solver: str = "auto",
        tol: float = 1e-10,
        positive: bool = False,
        random_state: Any = None,
        weights_are: str = "analytic",
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.penalty = penalty
        self.prior = prior
        self.alpha_per_target = alpha_per_target
        self.alpha_scale = alpha_scale
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.solver = solver
        self.tol = tol
        self.positive = positive
        self.random_state = random_state
        self.weights_are = weights_are

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array, sparse matrix, tensor or table (pandas, Polars, Arrow), shape (n, p)
            Features: numbers of any type and memory order. Products of a PyTorch tensor on a GPU are made
            there, in float64.
        y : array or tensor, shape (n,) or (n, T)
            Targets.
        sample_weight : array or tensor, shape (n,), optional
            Numbers ≥ 0; `weights_are` says what they are.
        groups : array, shape (n,), optional
            Group or time of each row, for splitters that need it.

        Raises
        ------
        InputError
            A ValueError that names the column or argument, the cause and the remedy.
        """
        refuse_positive(self)
        source = self._source(X, y, sample_weight, groups)
        self._forget()
        loss = Gaussian()
        return self._take(self._solve(source, self._rule(source, loss), loss), one_alpha=self._one_alpha())

    @property
    def n_iter_(self) -> int:
        """Passes or steps at the alpha that was chosen, at least 1."""
        return max(1, self.fit_.certificate.refinements)

    def _solver(self) -> Any:
        return SOLVER_NAMES.get(self.solver, self.solver) if isinstance(self.solver, str) else self.solver

    def _source(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any = None,
        *,
        offset: Any = None,
        reset: bool = True,
    ) -> Any:
        """Return validated training data as a source; a tensor on a device as one that stays there."""
        if not away(X):
            return super()._source(X, y, sample_weight, groups, offset=offset, reset=reset)
        check_flags(self)
        if groups is not None:
            raise InputError("groups go with arrays; X is a tensor on a device. Give X.cpu() for them.")
        source = TensorSource(X, y, sample_weight, weights_are=self.weights_are)
        if reset:
            self.__dict__.pop("feature_names_in_", None)
            self.n_features_in_ = source.n_features
        self._check_width(X)
        self._one_dimensional = len(y.shape) == 1
        return source

    def _check_width(self, X: Any) -> None:
        """Raise InputError unless a tensor has the features of the fit."""
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise InputError(f"X has shape {tuple(X.shape)}; the model has {self.n_features_in_} features.")

    def _eta(self, X: Any) -> Any:
        """Return b + Xθ; of a tensor on a device, with the product made there."""
        if not away(X):
            return super()._eta(X)
        check_is_fitted(self)
        self._check_width(X)
        eta = times(X, self.fit_.coef) + self.fit_.intercept
        if not np.isfinite(eta).all():
            raise TensorSource(X, np.zeros(len(X))).why_not_finite()
        return eta[:, 0] if self.coef_.ndim == 1 else eta

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add a batch of rows; the coefficients are those of one fit on all batches so far.

        Moments of the batches are merged, so nothing is approximate. Alpha is chosen anew by what
        moments allow: a number, GCV, REML, AIC, BIC, or K-fold with batch i in fold i mod k. LOO needs
        the rows, so GCV stands in for it and `fit_.status` says so. The first call after `fit` starts
        afresh. One row alone chooses no alpha: it is kept, and the model is fitted once there are two.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (m, p)
            Features of the batch.
        y : array, shape (m,) or (m, T)
            Targets of the batch.
        sample_weight : array, shape (m,), optional
            Numbers ≥ 0; `weights_are` says what they are.

        Raises
        ------
        InputError
            If the batch, or an option, cannot be used; the estimator is then as it was before the call.

        Examples
        --------
        >>> import numpy as np
        >>> from elltwo import Ridge
        >>> X = np.random.default_rng(0).normal(size=(90, 3))
        >>> model = Ridge("gcv")
        >>> for batch in np.split(X, 3):
        ...     model = model.partial_fit(batch, batch @ [1.0, 2.0, 3.0])
        >>> model.fit_.n_rows
        90
        """
        before = self.__dict__.copy()
        try:
            return self._add(X, y, sample_weight)
        except Exception:
            self.__dict__ = before
            raise

    def _add(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Merge a batch into a copy of the moments and fit."""
        refuse_positive(self)
        if self.solver not in ("auto", "spectral"):
            raise InputError(
                f"partial_fit keeps only moments, which 'spectral' solves; solver={self.solver!r} needs rows."
            )
        folds = self._folds_of_batches()
        before: _Batches | None = getattr(self, "_batches", None)
        source = self._source(X, y, sample_weight, reset=before is None)
        with np.errstate(invalid="ignore", over="ignore"):
            (moments,) = gather(source.blocks(), counts=source.counts)
        if not (np.isfinite(moments.x_scale).all() and np.isfinite(moments.y_scale).all()):
            raise source.why_not_finite()
        batches = (before or _Batches(source.target_names)).add(moments, source, folds)
        self._batches = batches
        if sum(atom.rows for atom in batches.atoms) < 2 and chooses(self.alpha):
            return self
        fit = fit_moments(
            batches.atoms,
            self.alpha,
            feature_names=source.feature_names,
            target_names=batches.target_names,
            weights=batches.weights,
            **self._options(),
        )
        if batches.weights == "analytic" and batches.whole_weights:
            fit = replace(fit, status=(*fit.status, Status.WHOLE_WEIGHTS))
        return self._take(fit, one_alpha=self._one_alpha())

    def _folds_of_batches(self) -> int:
        """Return the number of folds that batches are dealt to, 1 for rules without folds."""
        rule = KFold() if isinstance(self.alpha, str) and self.alpha == "kfold" else self.alpha
        if not isinstance(rule, KFold):
            return 1
        if not isinstance(rule.cv, (int, np.integer)) or rule.cv < 2:
            raise InputError(
                "partial_fit puts batch i in fold i mod k, so KFold(cv=…) must be an integer above 1; "
                f"got {rule.cv!r}."
            )
        if self.random_state is not None:
            raise InputError("partial_fit puts batch i in fold i mod k; random_state must be None for that.")
        return int(rule.cv)

    def _forget(self) -> None:
        """Drop the moments of earlier batches."""
        self.__dict__.pop("_batches", None)
