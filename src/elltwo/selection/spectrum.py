"""Rules that read only the spectrum: GCV, AIC, BIC, REML. No folds, no second pass over the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.errors import InputError
from elltwo.selection.criteria import Context, Criterion, Scores
from elltwo.solvers.base import df_each

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _SpectrumRule:
    """A rule that reads only the spectrum: no folds, no second pass, no standard error."""

    alphas: Any = None
    one_se: ClassVar[bool] = False

    def plan(self, source: Source) -> None:
        """Need no folds."""

    def _mse_and_dof(self, context: Context, alphas: Array) -> tuple[Array, Array, float]:
        """Return RSS or deviance (A, S), df with the intercept (A, S) or (A, 1), and n."""
        n = context.statistic.observations
        df = df_each(context.state, alphas) + context.problem.fit_intercept
        if np.isnan(df).all():
            raise InputError(
                "this rule needs the effective degrees of freedom, which are only estimated for so many "
                "sparse features. Use 'kfold', or give a number as alpha."
            )
        return context.state.deviance(alphas), df, n


@dataclass(frozen=True)
class GCV(_SpectrumRule):
    """Generalised cross-validation: leave-one-out with every leverage replaced by their mean.

    GCV(α) = (RSS/Σw) / (1 − (df + 1)/n)²   (df alone without an intercept), in units of y².
    Golub, Heath and Wahba (1979).

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo import GCV, Ridge
    >>> X = np.random.default_rng(0).normal(size=(50, 3))
    >>> model = Ridge(GCV(alphas=[0.1, 1, 10])).fit(X, X @ [1, 2, 3])
    >>> model.path_.score.shape
    (3,)
    """

    name: ClassVar[str] = "gcv"

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ GCV."""

        def score(alphas: Array) -> Scores:
            rss, df, n = self._mse_and_dof(context, alphas)
            room = 1 - df / n
            with np.errstate(divide="ignore"):
                value = (rss / context.statistic.weight) / np.where(room > 0, room, np.nan) ** 2
            return Scores(value)

        return score

    def describe(self) -> str:
        """Return the rule in words."""
        return "generalised cross-validation"


class _Information(_SpectrumRule):
    """−2·log likelihood + price·(df + parameters besides the slopes), up to a constant of the data.

    For squared error that is n·log(2π·RSS/n) + n + price·(df + 2): df, the intercept and the error variance.
    For the other families see `elltwo.losses`: the deviance itself where nothing but the mean is unknown.
    """

    name: ClassVar[str]

    def _price(self, n: float) -> float:
        raise NotImplementedError

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ the information criterion."""
        loss: Any = context.problem.loss
        if not hasattr(loss, "minus_two_loglik"):
            raise InputError(
                f"'{self.name}' needs a likelihood, which {loss.name} loss has not; use 'loo' or 'kfold'."
            )

        def score(alphas: Array) -> Scores:
            deviance, df, n = self._mse_and_dof(context, alphas)
            with np.errstate(divide="ignore"):  # a perfect fit is infinitely good
                likelihood = loss.minus_two_loglik(deviance, n)
            return Scores(likelihood + self._price(n) * (df + loss.dispersions))

        return score


@dataclass(frozen=True)
class AIC(_Information):
    """Akaike's information criterion with effective degrees of freedom.

    AIC(α) = n·log(2π·RSS/n) + n + 2·(df + 2), the 2 for the intercept and the error variance.

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.
    """

    name: ClassVar[str] = "aic"

    def _price(self, n: float) -> float:  # noqa: ARG002
        return 2.0

    def describe(self) -> str:
        """Return the rule in words."""
        return "Akaike's information criterion"


@dataclass(frozen=True)
class BIC(_Information):
    """Bayesian (Schwarz) information criterion with effective degrees of freedom.

    BIC(α) = n·log(2π·RSS/n) + n + log(n)·(df + 2), the 2 for the intercept and the error variance.

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale; the automatic grid if None.
    """

    name: ClassVar[str] = "bic"

    def _price(self, n: float) -> float:
        return float(np.log(n))

    def describe(self) -> str:
        """Return the rule in words."""
        return "Bayesian information criterion"


@dataclass(frozen=True)
class REML(_SpectrumRule):
    """Restricted maximum likelihood of y ~ N(1b + X_free·u + Xθ, σ²I), θ ~ N(θ₀, (σ²/α)·P⁻¹).

    −2ℓ(α) = Σ log(1 + s²/α) + m·log[RSS₀ + Σ ỹ²·α/(s² + α)] up to a constant, with m = n less the
    intercept and the unpenalised features, and σ² profiled out (Patterson and Thompson, 1971).

    Parameters
    ----------
    alphas : sequence of float, optional
        Alphas to try, sum scale, positive; the automatic grid if None.
    """

    name: ClassVar[str] = "reml"

    def criterion(self, context: Context) -> Criterion:
        """Return α ↦ −2ℓ(α)."""
        state: Any = context.state
        if not hasattr(state, "restricted"):
            raise InputError("solver 'cholesky' has no spectrum, which REML needs; use 'auto' or 'spectral'.")
        dof = context.statistic.observations - context.problem.fit_intercept - state.n_free

        def score(alphas: Array) -> Scores:
            logdet, left = state.restricted(alphas)
            with np.errstate(divide="ignore"):  # a perfect fit is infinitely good
                return Scores(logdet[:, None] + dof * np.log(left))

        return score

    def describe(self) -> str:
        """Return the rule in words."""
        return "restricted maximum likelihood"
