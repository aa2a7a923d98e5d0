"""What the regressors of any family share: the loss, offsets and exposures, prediction and score."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.engine import make_problem
from elltwo.errors import InputError
from elltwo.interfaces.sklearn.linear import LinearEstimator, check_range
from elltwo.losses import as_loss
from elltwo.solvers.loss_rows import gather_loss_rows
from elltwo.solvers.null import null_deviance

Array = npt.NDArray[Any]

#: Parameters of families.
PARAMETERS = ("power", "dispersion", "epsilon")
#: Families whose targets are not below 0.
POSITIVE = ("poisson", "gamma", "tweedie", "negative-binomial")


class FamilyEstimator(LinearEstimator):
    """A regressor with the parameters `family`, `power`, `dispersion` and `epsilon`."""

    family: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = self.family in POSITIVE
        return tags

    def _loss(self) -> Any:
        """Return the family as a loss that this class can fit."""
        given = {name: getattr(self, name) for name in PARAMETERS}
        loss = as_loss(self.family, **{name: value for name, value in given.items() if value is not None})
        if loss.coupled or loss.link == "margin":
            better = "LogisticRegression" if loss.coupled else "LinearSVC"
            raise InputError(f"family={self.family!r} is for classes; use {better}, which codes the labels.")
        return loss

    def predict(self, X: Any, *, offset: Any = None, exposure: Any = None) -> Array:
        """Predict the mean of y.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.
        offset : array, shape (n,) or (n, T), optional
            Known part of η; 0 if None, whatever it was in the fit.
        exposure : array, shape (n,), optional
            What the mean is proportional to; 1 if None, whatever it was in the fit.

        Returns
        -------
        array, shape (n,) or (n, T)

        Raises
        ------
        InputError
            If X holds NaN or infinity; the message names the columns.
        """
        eta = self._eta(X)
        known = known_part(self.fit_.loss, offset, exposure)
        if known is not None:
            known = known[:, None] if known.ndim < eta.ndim else known
            known = known[:, 0] if known.ndim > eta.ndim and known.shape[1] == 1 else known
            if (
                known.ndim != eta.ndim
                or len(known) != len(eta)
                or known.shape[1:] not in (eta.shape[1:], (1,))
            ):
                raise InputError(f"the offset has shape {known.shape} for predictions of shape {eta.shape}.")
            eta = eta + known
        mean: Array = self.fit_.loss.mean(eta)
        return mean

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, *, offset: Any = None, exposure: Any = None
    ) -> float:
        """Return D², the share of the deviance explained: 1 − Σ w·dev(y, η) / Σ w·dev(y, η₀).

        η₀ is the best constant (plus the offset) for these rows. For the Gaussian this is R². Several targets
        are averaged. Where the constant leaves no deviance, the share is 1 if the model leaves none either,
        and else 0.

        Parameters
        ----------
        X : array, sparse matrix or table, shape (n, p)
            Features; the columns of a table must be those of the fit, in the same order.
        y : array, shape (n,) or (n, T)
            Targets, in the range of the family.
        sample_weight : array, shape (n,), optional
            Weights of the deviances.
        offset, exposure : arrays, optional
            As in `fit`.

        Returns
        -------
        float
            At most 1; below 0 if the constant predicts better.
        """
        self._eta(X)
        X, y = self._numbers(X, y, reset=False, multi_output=True, y_numeric=True)
        fit = self.fit_
        known = known_part(fit.loss, offset, exposure)
        # The share is the same whatever the weights are.
        source = self._rows(X, y, sample_weight, None, fit.target_names, known, weights_are="analytic")
        if source.n_targets != fit.coef.shape[1]:
            raise InputError(f"y has {source.n_targets} target(s); the model has {fit.coef.shape[1]}.")
        check_range(source, fit.loss)
        problem = make_problem(
            source, fit_intercept=True, standardize=False, penalty=None, prior=None, loss=fit.loss
        )
        (rows,) = gather_loss_rows(problem)
        left, null = (
            rows.deviance(fit.coef[None], fit.intercept[None])[0],
            null_deviance(problem, rows.y_mean),
        )
        # Without an offset, a target that is constant leaves only rounding.
        flat = null <= 0 if known is not None else rows.y_scale == 0
        share = np.where(flat, np.where(left > 0, 0.0, 1.0), 1 - left / np.where(flat, 1.0, null))
        return float(share.mean())


def known_part(loss: Any, offset: Any, exposure: Any) -> Array | None:
    """Return offset + log(exposure), shape (n,) or (n, T), or None without either."""
    known = None if offset is None else _as_numbers("offset", offset)
    if exposure is None:
        return known
    if loss.link != "log":
        raise InputError(
            f"exposure needs a log link, where it multiplies the mean; {loss.name} has the link "
            f"'{loss.link}'. Use offset, on the scale of the link."
        )
    factor = _as_numbers("exposure", exposure)
    bad = ~((factor > 0) & (factor < np.inf))
    if factor.ndim != 1 or bad.any():
        what = (
            f"shape {factor.shape}"
            if factor.ndim != 1
            else f"the value {factor[bad][0]:g} in row {bad.argmax() + 1:,}"
        )
        raise InputError(f"exposure has {what}; it must be one finite number above 0 for each row.")
    logs: Array = np.log(factor)
    if known is None:
        return logs
    if len(known) != len(logs):
        raise InputError(f"offset has {len(known)} rows and exposure {len(logs)}; they must agree.")
    return known + (logs if known.ndim == 1 else logs[:, None])


def _as_numbers(name: str, values: Any) -> Array:
    """Return float64 numbers of one or two dimensions."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must hold numbers.") from None
    if numbers.ndim not in (1, 2):
        raise InputError(f"{name} has shape {numbers.shape}; one number per row is needed.")
    return numbers
