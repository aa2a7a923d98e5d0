"""Kernel ridge: minimise Σ wᵢ(yᵢ − b − f(xᵢ))² + α‖f‖²_H over functions f of a kernel's space and free b.

The minimiser is f = Σ aⱼ k(xⱼ, ·), with (K + αW⁻¹)a + b1 = y and, when b is free, 1ᵀa = 0. So the rows of K
are features whose coefficients are a, and what rules need follows from S(α) = α(Kw + αI)⁻¹, Kw = √W·K·√W, on
the complement of √w when b is free: √W·(y − ŷ) = S√W·y, and the leave-one-out divisors 1 − h are the diagonal
of S. Saunders, Gammerman and Vovk (1998), "Ridge regression learning algorithm in dual variables".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.weights import as_counts, check_weights, look_like_counts
from elltwo.errors import InputError
from elltwo.margins import mean_and_deviation
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate
from elltwo.solvers.base import (
    CHUNK,
    UNDETERMINED,
    Influence,
    Outcome,
    intercepts,
    leave_out_weight,
    rank_cutoff,
    target_slices,
)
from elltwo.solvers.certificate import dual_notes
from elltwo.solvers.kernel_dual import (
    dual_digits,
    dual_residual,
    dual_rounding,
    relative_residual,
    symmetric_product,
    symmetric_rows,
)
from elltwo.solvers.resolvent import Resolvent

Array = npt.NDArray[Any]

#: Most steps of refinement.
MOST_REFINEMENTS = 2


class KernelSource(BlockwiseSource):
    """Rows of the kernel matrix as features; their coefficients are the dual variables a.

    Parameters
    ----------
    lower : array, shape (n, n)
        K on and below the diagonal.
    y : array, shape (n, T)
    weights : array, shape (n,), optional
        Numbers ≥ 0.
    weights_are : {"analytic", "frequency"}
        As of `MemorySource`.
    centre : bool
        Whether b is free.
    target_names : tuple of str, optional
    keys : array, shape (n,), optional

    Raises
    ------
    InputError
        For weights that cannot be used.

    Examples
    --------
    >>> from elltwo.kernels import RBF
    >>> X = np.arange(4.0)[:, None]
    >>> source = KernelSource(RBF(1.0).lower(X), X**2, None, centre=True)
    >>> source.n_rows, source.n_features
    (4, 4)
    """

    in_memory = True

    def __init__(
        self,
        lower: Array,
        y: Array,
        weights: Any = None,
        *,
        weights_are: str = "analytic",
        centre: bool,
        target_names: tuple[str, ...] | None = None,
        keys: Array | None = None,
    ) -> None:
        self.lower, self.y = lower, y
        n, T = y.shape
        self.counts = as_counts(weights_are) and weights is not None
        self.weights = check_weights(weights, n, counts=self.counts)
        self.weighted = self.weights is not None
        self.whole_weights = look_like_counts(self.weights)
        self.w = np.ones(n) if self.weights is None else self.weights
        self.centre = centre
        self.whole = Resolvent(lower, self.w, np.flatnonzero(self.w > 0), centre)
        self.n_rows: int | None = n
        self.n_features, self.n_targets = n, T
        self.feature_names = tuple(f"k(row {j}, ·)" for j in range(n))
        self.target_names = target_names or (("y",) if T == 1 else tuple(f"y{t}" for t in range(T)))
        self._keys = keys

    def keys(self) -> Array | None:
        """Return the group or time values given at construction."""
        return self._keys

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows of K."""
        n = len(self.y)
        step = max(1, 4 * CHUNK // n)
        for i in range(0, n, step):
            rows = np.arange(i, min(n, i + step))
            weights = None if self.weights is None else self.weights[rows]
            yield Block(symmetric_rows(self.lower, rows), self.y[rows], weights, i)

    def dual(self, coef: Array, intercept: Array, alpha: Array) -> tuple[Array, Array]:  # noqa: ARG002
        """Return (a, b) of f = Σ aⱼ k(xⱼ, ·) + b for coefficients (…, n, T): themselves."""
        return coef, intercept

    def resolvent(self, index: Array) -> Resolvent:
        """Return (Kw + αI)⁻¹ on some rows of positive weight; that of all rows is made once."""
        if len(index) == len(self.whole.index):
            return self.whole
        return Resolvent(self.lower, self.w, index, self.centre)


@dataclass(frozen=True, eq=False)
class KernelRows:
    """Some rows of a `KernelSource` as a statistic."""

    source: KernelSource
    index: Array

    def merge(self, other: KernelRows) -> KernelRows:
        """Return both sets of rows."""
        return KernelRows(self.source, np.sort(np.concatenate([self.index, other.index])))

    @property
    def y(self) -> Array:
        """Targets, (m, T)."""
        return np.asarray(self.source.y[self.index])

    @property
    def w(self) -> Array:
        """Weights, (m,)."""
        return np.asarray(self.source.w[self.index])

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return int(np.count_nonzero(self.w))

    @property
    def observations(self) -> float:
        """Σw for frequencies, else `rows`."""
        return self.weight if self.source.counts else float(self.rows)

    @property
    def weight(self) -> float:
        """Σw."""
        return float(self.w.sum())

    @property
    def positive(self) -> Array:
        """The rows of positive weight."""
        return np.asarray(self.index[self.w > 0])

    @cached_property
    def x_mean(self) -> Array:
        """Weighted means of the columns of K over these rows, (n,)."""
        if self.weight == 0:
            return np.zeros(len(self.source.w))
        w = np.zeros((len(self.source.w), 1))
        w[self.index, 0] = self.w
        return symmetric_product(self.source.lower, w)[:, 0] / self.weight

    @cached_property
    def x_scale(self) -> Array:
        """Root mean square distance of these rows from their mean in the kernel's space, for every column."""
        total = float(self.w @ self.source.lower.diagonal()[self.index])
        if self.weight == 0 or total <= 0:
            return np.zeros(len(self.source.w))
        spread = total - float(self.w @ self.x_mean[self.index])
        noise = rank_cutoff(len(self.index), total, squared=True)
        return np.full(len(self.source.w), np.sqrt(spread / self.weight) if spread > noise else 0.0)

    @cached_property
    def _y(self) -> tuple[Array, Array]:
        return mean_and_deviation(self.y, self.w)

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets, (T,)."""
        return self._y[0]

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets, (T,)."""
        return self._y[1]

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ wᵢ(yᵢ − b − kᵢᵀa)² for a (A, n, T) and b (A, T), shape (A, T)."""
        left = self.y[:, None, :] - self.fitted(coef, intercept)
        return np.asarray(np.einsum("i,iat->at", self.w, left**2))

    def fitted(self, coef: Array, intercept: Array) -> Array:
        """Return b + Ka on these rows, shape (m, A, T)."""
        A, n, T = coef.shape
        image = symmetric_product(self.source.lower, coef.swapaxes(0, 1).reshape(n, A * T))
        return np.asarray(image.reshape(n, A, T)[self.index] + intercept)


@dataclass(frozen=True, eq=False)
class KernelState:
    """All alphas of kernel ridge on some rows, as the dual variables a, 0 on all other rows."""

    statistic: KernelRows
    centre: bool
    resolvent: Resolvent
    condition_limit: ClassVar[float] = np.inf
    n_free: ClassVar[int] = 0

    @cached_property
    def y(self) -> Array:
        """√w·(y − ȳ) of the rows of positive weight, (m, T)."""
        rows, index = self.statistic, self.resolvent.index
        return np.asarray(self._root * (rows.source.y[index] - (rows.y_mean if self.centre else 0.0)))

    @property
    def _root(self) -> Array:
        return self.resolvent.root[:, None]

    def coef(self, alphas: Array) -> Array:
        """Return a(α), shape (A, n, T)."""
        return self._spread(self._root * self.resolvent.solve(self.y, alphas))

    def coef_at(self, alpha: Array) -> Array:
        """Return a with an alpha of its own for each target, shape (n, T)."""
        return self._spread(self._root * self.resolvent.solve_each(self.y, alpha))

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return a of (K + α_t W⁻¹)a + b1 = rhs_t, 1ᵀa = 0 with an intercept, for rhs (n, T)."""
        inside = self._root * rhs[self.resolvent.index]
        return self._spread(self._root * self.resolvent.solve_each(inside, alpha))

    def _spread(self, a: Array) -> Array:
        """Return values (…, m, T) of the rows of positive weight among those of all rows, (…, n, T)."""
        out = np.zeros((*a.shape[:-2], len(self.statistic.source.w), a.shape[-1]))
        out[..., self.resolvent.index, :] = a
        return out

    def df(self, alphas: Array) -> Array:
        """Return Σ g/(g + α)."""
        g = self.spectrum()
        return np.asarray(np.sum(g / (g + alphas[:, None]), axis=1))

    def spectrum(self) -> Array:
        """Return the positive eigenvalues g of Kw, on the complement of √w with an intercept."""
        g = self.resolvent.g
        return np.asarray(g[g > 0])

    def condition(self, alpha: float) -> float:
        """Return (g_max + α)/(g_min + α)."""
        g = self.resolvent.g
        smallest = np.float64(g.min(initial=np.inf) + alpha) if len(g) else np.float64(alpha)
        with np.errstate(over="ignore"):
            return float((g.max(initial=0.0) + alpha) / smallest) if smallest > 0 else np.inf

    def deviance(self, alphas: Array) -> Array:
        """Return Σ w(y − ŷ)² over the rows, shape (A, T)."""
        return np.asarray(np.sum(self._residual(self.y, alphas) ** 2, axis=1))

    def restricted(self, alphas: Array) -> tuple[Array, Array]:
        """Return log det(I + Kw/α) on the complement, (A,), and yᵀSy, (A, T)."""
        ratio = self.spectrum() / np.where(alphas > 0, alphas, np.nan)[:, None]
        left = np.einsum("it,ait->at", self.y, self._residual(self.y, alphas))
        return np.sum(np.log1p(ratio), axis=1), left

    def _residual(self, y: Array, alphas: Array) -> Array:
        """Return Sy for y (m, T), shape (A, m, T)."""
        residual = self.resolvent.solve(y, alphas)
        residual *= alphas[:, None, None]
        if (idle := self._idle(alphas)).any():
            residual[idle] += self._beyond(y)
        return residual

    def _idle(self, alphas: Array) -> Array:
        """Return at which alphas the directions that the kernel does not see are left unfitted, (A,)."""
        return (alphas <= self.resolvent.floor) & (self.resolvent.unseen > 0)

    def _beyond(self, V: Array) -> Array:
        """Return the part of V (m, T) in directions that the kernel does not see."""
        N = self.resolvent.unseen_basis
        return np.asarray(N @ (N.T @ V))

    def influence(self, problem: Problem, alphas: Array) -> Iterator[Influence]:
        """Yield residuals and 1 − h of all rows, from S or, to have its limit at α → 0, from S/α.

        S/α is (Kw + αI)⁻¹, and has that limit if the kernel sees every direction.
        """
        rows, index = self.statistic, self.resolvent.index
        w, keep = rows.w, self.resolvent.diagonal(alphas)
        whole = self.resolvent.unseen == 0
        scale = 1.0 / np.maximum(alphas, np.finfo(np.float64).tiny) if whole else np.ones(len(alphas))
        if not whole:
            keep *= alphas
            if (idle := self._idle(alphas)).any():
                keep[:, idle] += np.sum(self.resolvent.unseen_basis**2, axis=1)[:, None]
            keep[keep < UNDETERMINED] = np.nan
        share = (leave_out_weight(problem, w)[index] / w[index])[:, None]
        every = np.ones((len(w), len(alphas)))
        every[index] = (1 - share) * scale + share * keep
        for targets in target_slices(self.y.shape[1], len(w) * len(alphas)):
            y = self.y[:, targets]
            inside = self.resolvent.solve(y, alphas) if whole else self._residual(y, alphas)
            residual = np.empty((len(w), len(alphas), y.shape[1]))
            residual[index] = (inside / self._root).swapaxes(0, 1)
            if len(index) < len(w):
                coef = self._spread(self._root * self.resolvent.solve(y, alphas))
                b = rows.y_mean[targets] - rows.x_mean @ coef if self.centre else np.zeros(1)
                residual[w == 0] = (rows.y[:, None, targets] - rows.fitted(coef, b))[w == 0]
            yield Influence(slice(0, len(w)), targets, residual, every, w)

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model at an alpha of its own for each target, refined, with its certificate.

        Residuals are those of the dual system, r = y − b − Ka − αa/w, on the kernel matrix itself.
        """
        rows, source, index = self.statistic, self.statistic.source, self.resolvent.index
        a = self.coef_at(alpha)
        size = np.linalg.norm(rows.y - (rows.y_mean if self.centre else 0.0), axis=0)
        best: tuple[float, Array, Array, Array] | None = None
        refinements = 0
        for step in range(MOST_REFINEMENTS + 1):
            b = intercepts(rows, a[None], self.centre)[0]
            residual, fitted = dual_residual(source.lower, source.y, source.w, alpha, a, b)
            idle = self._idle(alpha)
            if idle.any():  # then what the kernel does not see is not fitted
                unfitted = self._beyond(self._root * residual[index]) / self._root
                residual[index] -= np.where(idle, unfitted, 0.0)
            worst = relative_residual(residual, size)
            if best is not None and worst >= 0.5 * best[0]:
                break
            best, refinements = (worst, a, b, fitted), step
            a = a + self.solve(residual, alpha)
        assert best is not None
        worst, a, b, fitted = best
        condition = max(self.condition(float(v)) for v in alpha)
        certificate = Certificate(
            residual=worst,
            measured_on="rows",
            condition=float(np.sqrt(condition)),
            digits=dual_digits(worst, size, alpha, a, source.w, condition),
            refinements=refinements,
        )
        rss = np.asarray(source.w @ (source.y - fitted) ** 2)
        null = rows.weight * rows.y_scale**2 + (0.0 if self.centre else rows.weight * rows.y_mean**2)
        rounding = dual_rounding(size, a, float(self.resolvent.g.max(initial=0.0)))
        deficient = bool((alpha == 0).any()) and self.resolvent.unseen > 0
        notes = dual_notes(certificate, tol, rounding, deficient=deficient)
        return Outcome(a, b, rss, np.asarray(null), certificate, notes)


@dataclass(frozen=True)
class KernelSolver:
    """One factorisation of the kernel matrix serves every alpha; one more for each training set."""

    name: str = "exact"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[KernelRows]:
        """Return the rows of each atom."""
        source: Any = problem.source
        every = np.arange(source.n_rows)
        if labels is None:
            return [KernelRows(source, every)]
        # The labels of a row depend on its position only.
        label = np.asarray(labels(Block(np.zeros((len(every), 0)), source.y, source.weights, 0)))
        return [KernelRows(source, every[label == atom]) for atom in range(n_atoms)]

    def state(self, rows: KernelRows, form: QuadraticForm, centre: bool) -> KernelState:
        """Factorise; the factorisation of all rows is kept by the source."""
        if form.rotation is not None or np.any(form.d != 1):
            raise InputError("kernel ridge takes no penalty but the norm of the kernel's space.")
        return KernelState(rows, centre, rows.source.resolvent(rows.positive))
