"""What every solver provides: a mergeable `Statistic` of the rows, and a `State` that serves all alphas.

    Solver.gather(problem, …) → [Statistic]      one per atom of rows; merge gives any training set
    Statistic.state(form, centre) → State        the α-free work, done once
    State.coef(alphas), .df(alphas), …           cheap for every α

Symbols: Z are the rows centred at the weighted means (or not, without an intercept), G = ZᵀWZ,
c = ZᵀWy, and P the penalty matrix; θ(α) = (G + αP)⁻¹c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.errors import Status
from elltwo.losses import Loss
from elltwo.margins import drop_noise
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate

Array = npt.NDArray[Any]

#: Elements of the largest temporary array in a pass over rows.
CHUNK = 1 << 20
#: Where 1 − h is below this, it is rounding noise and there is no leave-one-out prediction of the row.
UNDETERMINED = 1e-10


class Weighted:
    """How many rows with weights w stand for; `counts` says that they are frequencies."""

    w: Array
    counts: bool

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return int(np.count_nonzero(self.w))

    @property
    def observations(self) -> float:
        """Σw for frequencies, else `rows`."""
        return self.weight if self.counts else float(self.rows)

    @property
    def weight(self) -> float:
        """Σw."""
        return float(self.w.sum())


class Statistic(Protocol):
    """A mergeable summary of rows, enough to fit on them and to score a model on them."""

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        ...

    @property
    def observations(self) -> float:
        """Σw for frequencies, else `rows`."""
        ...

    @property
    def weight(self) -> float:
        """Σw."""
        ...

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features, (p,)."""
        ...

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets, (T,)."""
        ...

    @property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features, (p,)."""
        ...

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets, (T,)."""
        ...

    def merge(self, other: Self) -> Self:
        """Return the statistic of both sets of rows."""
        ...

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return the weighted squared error (A, T) of models θ (A, p, T), b (A, T) on these rows."""
        ...


@dataclass(frozen=True)
class Influence:
    """Residuals and their leave-one-out divisors for some rows, targets and every alpha.

    Attributes
    ----------
    rows, targets : slice
        Which rows of the source and which targets.
    residual : array, shape (m, A, t)
        y − ŷ at each alpha, up to a factor per row and alpha that `keep` shares.
    keep : array, shape (m, A)
        1 − h, with h the row's leverage (of one unit of weight if weights are frequencies), up to the same
        factor. NaN below UNDETERMINED: the row alone determines a coefficient that nothing else holds.
    weights : array, shape (m,)
    """

    rows: slice
    targets: slice
    residual: Array
    keep: Array
    weights: Array

    def deviance(self) -> Array:
        """Return (y − ŷ₋ᵢ)², shape (m, A, t); overwrites `residual`."""
        error = self.residual
        error /= self.keep[:, :, None]
        error *= error
        return error

    def prediction(self, y: Array) -> Array:
        """Return ŷ₋ᵢ for the rows' targets y (m, t), shape (m, A, t)."""
        return np.asarray(y[:, None, :] - self.residual / self.keep[:, :, None])


@dataclass(frozen=True)
class HeldOut:
    """What a row's η would be without it, for some rows and every alpha.

    Attributes
    ----------
    rows, targets : slice
        Which rows of the source, and which scores: all targets, or the one score of classes.
    weights : array, shape (m,)
    y : array, shape (m, T)
    eta : array, shape (m, A, T)
        η₋ᵢ; NaN where the row alone determines a coefficient.
    loss : Loss
    """

    rows: slice
    targets: slice
    weights: Array
    y: Array
    eta: Array
    loss: Loss

    def deviance(self) -> Array:
        """Return dev(yᵢ, η₋ᵢ), shape (m, A, T), or (m, A, 1) for classes."""
        value = 2 * self.loss.value(self.y[:, None, :], self.eta)
        return np.asarray(value[:, :, None] if self.loss.coupled else value)

    def prediction(self, y: Array) -> Array:  # noqa: ARG002
        """Return η₋ᵢ."""
        return self.eta


@dataclass(frozen=True)
class Outcome:
    """The chosen model, as right as it can be made, and how right that is.

    Attributes
    ----------
    coef, intercept : arrays, shapes (p, T) and (T,)
    deviance, null_deviance : arrays, shape (S,)
        Σ w·dev in sample of the model, and of the intercept alone.
    certificate : Certificate
    notes : tuple of Status
    """

    coef: Array
    intercept: Array
    deviance: Array
    null_deviance: Array
    certificate: Certificate
    notes: tuple[Status, ...] = ()


class State(Protocol):
    """The α-free work, done; everything here takes all alphas at once."""

    @property
    def condition_limit(self) -> float:
        """Largest κ̂² for which this factorisation still gives coefficients worth refining."""
        ...

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        ...

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target (T,), shape (p, T)."""
        ...

    def df(self, alphas: Array) -> Array:
        """Return Σ g/(g + αd), shape (A,): effective degrees of freedom without the intercept."""
        ...

    def deviance(self, alphas: Array) -> Array:
        """Return the weighted residual sum of squares in sample, shape (A, T)."""
        ...

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (G + α_t P)⁻¹ rhs_t for rhs (p, T) and alpha (T,)."""
        ...

    @property
    def statistic(self) -> Any:
        """The statistic it was made from."""
        ...

    def spectrum(self) -> Array:
        """Return the positive squared singular values of the penalised part, for a grid of alphas."""
        ...

    def condition(self, alpha: float) -> float:
        """Return an estimate of κ̂², the condition number of G + αP."""
        ...

    def influence(self, problem: Problem, alphas: Array) -> Iterator[Influence | HeldOut]:
        """Yield what every row would be predicted without it."""
        ...


def intercepts(statistic: Statistic, coef: Array, centre: bool) -> Array:
    """Return b = ȳ − x̄ᵀθ for θ of shape (A, p, T), or zeros without an intercept; shape (A, T)."""
    if not centre:
        return np.zeros((coef.shape[0], coef.shape[2]))
    return np.asarray(statistic.y_mean - np.einsum("j,ajt->at", statistic.x_mean, coef))


def constant_columns(statistic: Statistic, form: QuadraticForm, centre: bool) -> Array:
    """Return the columns (p,) whose coefficients are 0, or the prior's, because nothing tells them.

    Constant ones, beside an intercept. A penalty matrix may tell them by other coefficients, as that of a
    spline does where there are no rows.
    """
    return np.asarray((statistic.x_scale == 0) & (centre and form.rotation is None))


def column_size(statistic: Statistic, centre: bool) -> Array:
    """Return the root mean square of the columns (p,), about their means with an intercept."""
    return statistic.x_scale if centre else np.sqrt(statistic.x_scale**2 + statistic.x_mean**2)


def models(state: State, alphas: Array, centre: bool) -> tuple[Array, Array]:
    """Return θ (A, p, T) and b (A, T) of a state: its own b, or the one that squared error implies."""
    if hasattr(state, "solved"):
        solved: tuple[Array, Array] = state.solved(alphas)
        return solved
    coef = state.coef(alphas)
    return coef, intercepts(state.statistic, coef, centre)


def df_each(state: State, alphas: Array) -> Array:
    """Return effective degrees of freedom (A, S): each target's own, or (A, 1) where all have the same."""
    own: Array = state.df_each(alphas) if hasattr(state, "df_each") else state.df(alphas)[:, None]
    return own


def df_at(state: State, alpha: Array) -> Array:
    """Return effective degrees of freedom with an alpha of its own for each target, shape (T,)."""
    if hasattr(state, "df_at"):
        own: Array = state.df_at(alpha)
        return own
    unique, index = np.unique(alpha, return_inverse=True)
    each = df_each(state, unique)
    return np.broadcast_to(each, (len(unique), len(alpha)))[index, np.arange(len(alpha))]


def targets_as_given(problem: Problem, statistic: Statistic) -> tuple[Array, Array]:
    """Return means and standard deviations (T,) of y itself, from a statistic of y − (X − origin)θ₀.

    The squared error of the model θ = −θ₀ with its best intercept is the spread of y.
    """
    if problem.prior is None or not problem.squared:
        return statistic.y_mean, statistic.y_scale
    prior = np.broadcast_to(problem.prior_column, (len(problem.prior), len(statistic.y_mean)))
    centred = statistic.y_mean + statistic.x_mean @ prior
    spread = statistic.deviance(-prior[None], centred[None])[0] / statistic.weight
    mean = centred - problem.origin @ prior
    return mean, drop_noise(np.sqrt(spread), mean)


def unexplained(problem: Problem, statistic: Statistic) -> Array:
    """Return which targets the model without features leaves something of, (T,).

    Where nothing is left every alpha fits exactly: a constant target with an intercept, or one of zeros
    without, if squared error is minimised. A known offset, or the prior's, varies from row to row.
    """
    varies = np.asarray(statistic.y_scale) > 0
    if problem.squared:
        return varies if problem.fit_intercept else varies | (np.asarray(statistic.y_mean) != 0)
    known = not problem.fit_intercept or problem.prior is not None
    if varies.all() or known or next(problem.source.blocks()).offset is not None:
        return np.ones_like(varies)
    return varies


def varying(statistic: Statistic) -> Array:
    """Return the positions of the targets that vary; of all if none does."""
    varies = np.asarray(statistic.y_scale) > 0
    return np.flatnonzero(varies if varies.any() else np.ones_like(varies))


def target_slices(n_targets: int, per_target: int) -> Iterator[slice]:
    """Yield slices over the targets so that `per_target` elements each stay below the chunk size."""
    step = max(1, CHUNK * 4 // max(1, per_target))
    for start in range(0, n_targets, step):
        yield slice(start, min(n_targets, start + step))


def row_chunks(problem: Problem, width: int) -> Iterator[tuple[slice, Array, Array, Array | None]]:
    """Yield (rows, X, y, weights) in chunks of about CHUNK / width rows that stay in cache."""
    step = max(16, CHUNK // 2 // max(1, width))
    for block in problem.blocks():
        for i in range(0, len(block.y), step):
            part = slice(i, min(len(block.y), i + step))
            rows = slice(block.start + part.start, block.start + part.stop)
            yield rows, block.X[part], block.y[part], None if block.weights is None else block.weights[part]


def leave_out_weight(problem: Problem, weights: Array) -> Array:
    """Return the weight that leaving a row out removes: one unit for frequencies, else all its weight."""
    return np.minimum(weights, 1.0) if problem.source.counts else weights


@dataclass(frozen=True)
class Split:
    """Features split by the penalty: unpenalised `free` ones and penalised ones with d > 0.

    In the coordinates of the rotated penalty, θ = Q·[u; D^{-½}v] and θᵀPθ = ‖v‖².
    """

    form: QuadraticForm
    free: Array
    held: Array

    @classmethod
    def of(cls, form: QuadraticForm) -> Self:
        """Split by whether d is zero."""
        return cls(form, np.flatnonzero(form.d == 0), np.flatnonzero(form.d > 0))

    @property
    def root(self) -> Array:
        """Square roots of the positive d."""
        return np.sqrt(self.form.d[self.held])

    def rotate(self, rows: Array) -> Array:
        """Return rows in the penalty's own coordinates."""
        return rows if self.form.rotation is None else rows @ self.form.rotation

    def level(self, sizes: Array) -> Array:
        """Return the size that each free coordinate's column would have without cancellation, shape (q,).

        A penalty matrix may leave free just what centring removes (splines that sum to one): the column is
        then rounding noise at this level, and must not be taken for a feature.
        """
        if self.form.rotation is None:
            return sizes[self.free]
        return np.asarray(np.sqrt(sizes**2 @ self.form.rotation[:, self.free] ** 2))

    def basis(self, own: Array, through: Array, vectors: Array) -> Array:
        """Return the p × k matrix of simultaneously diagonal directions.

        `own` (q, k₀) spans the free coordinates, `vectors` (r, k₁) the penalised ones, and
        `through` (q, r) says how the free ones give way: u = −through·v.
        """
        k0, k1 = own.shape[1], vectors.shape[1]
        basis = np.zeros((len(self.form.d), k0 + k1))
        basis[self.free, :k0] = own
        held = vectors / self.root[:, None]
        basis[self.held, k0:] = held
        if len(self.free):
            basis[self.free, k0:] = -through @ held
        return basis if self.form.rotation is None else self.form.rotation @ basis


def rank_cutoff(size: int, largest: float, *, squared: bool) -> float:
    """Return the level below which a (squared) singular value is rounding noise."""
    relative = size * 2 * ROUNDOFF
    return largest * relative if squared else largest * relative**2
