"""Quadratic models of the loss over rows: moments under the weights w·ℓ'', and the steps they imply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from elltwo.array import on_cores
from elltwo.data.base import Block
from elltwo.losses import Loss
from elltwo.moments import Moments, gather
from elltwo.penalties import QuadraticForm
from elltwo.solvers.base import UNDETERMINED
from elltwo.solvers.cholesky import Cholesky, CholeskySolver, NotPositiveDefinite
from elltwo.solvers.columns import Columns
from elltwo.solvers.coupled import coupled_quadratic
from elltwo.solvers.rowset import Book, Chunk
from elltwo.solvers.spectral import Spectral, SpectralSolver

Array = npt.NDArray[Any]

#: Features from which one alpha's trace is found without an eigendecomposition.
LARGE = 500
#: Rows per feature in a sample that a curvature is first taken from: it errs by about √(1/SAMPLE).
SAMPLE = 300
#: Share of the curvature by which models may differ that use the same.
NEAR = 0.03
#: Features from which one eigendecomposition for many alphas beats a Cholesky factorisation for each.
MANY_FEATURES, MANY_ALPHAS = 192, 12


class Quadratic(Protocol):
    """A quadratic model of the loss over some rows, for the columns of one model."""

    def step(self, g: Array, gb: Array, alpha: Array, weight: Array, constant: Array) -> tuple[Array, Array]:
        """Return the steps (δθ (p, C), δb (C,)) to the minimum of the model plus the penalty.

        The coefficients of `constant` features (p, C) stay.
        """
        ...

    def df(self, alpha: float) -> float:
        """Return tr[(H + αP)⁻¹H] over the slopes."""
        ...

    def condition(self, alpha: float) -> float:
        """Return κ̂² of H + αP, columns scaled."""
        ...

    def left_out(self, X: Array, y: Array, eta: Array, v: Array, alpha: float, loss: Loss) -> Array:
        """Return η (m, G) of rows from which the weight v (m,) has been taken away."""
        ...


@dataclass(frozen=True, eq=False)
class Curved:
    """A quadratic model of some rows: Moments under the weights h = w·ℓ'', as a ridge state.

    Attributes
    ----------
    moments : Moments
    form : QuadraticForm
    state : Cholesky or Spectral
    weight : float
        Σw of the rows it was measured on.
    """

    moments: Moments
    form: QuadraticForm
    state: Cholesky | Spectral
    weight: float
    centre: bool

    @classmethod
    def of(cls, moments: Moments, form: QuadraticForm, centre: bool, weight: float, n_alphas: int) -> Curved:
        """Return the model for so many alphas."""
        many = n_alphas >= MANY_ALPHAS and len(form.d) >= MANY_FEATURES
        solver: Any = SpectralSolver() if many else CholeskySolver()
        return cls(moments, form, solver.state(moments, form, centre), weight, centre)

    @cached_property
    def spectral(self) -> Spectral:
        """The diagonalised model."""
        made = self.state
        return (
            made
            if isinstance(made, Spectral)
            else SpectralSolver().state(self.moments, self.form, self.centre)
        )

    def _solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_c P)⁻¹ rhs_c, by an eigendecomposition where Cholesky finds the matrix singular."""
        try:
            return self.state.solve(rhs, alpha)
        except NotPositiveDefinite:
            return self.spectral.solve(rhs, alpha)

    def df(self, alpha: float) -> float:
        """Return tr[(H + αP)⁻¹H]."""
        if len(self.form.d) > LARGE and isinstance(self.state, Cholesky):
            try:
                return float(self.state.df(np.array([alpha]))[0])
            except NotPositiveDefinite:
                pass
        return float(self.spectral.df(np.array([alpha]))[0])

    def condition(self, alpha: float) -> float:
        """Return κ̂² of H + αP with its columns scaled, infinite if it is singular."""
        try:
            return Cholesky(self.moments, self.form, self.centre).condition(alpha)
        except NotPositiveDefinite:
            return float("inf")

    def left_out(self, X: Array, y: Array, eta: Array, v: Array, alpha: float, loss: Loss) -> Array:
        """Return η₋ᵢ = η + vℓ'a/(1 − vℓ''a) with a = x̃ᵀ(H + αP)⁻¹x̃; NaN where the row alone decides."""
        slope, curvature = loss.derivatives(y, eta)
        a = (v * self.spectral.leverage(X, alpha))[:, None]
        keep = 1.0 - curvature * a
        keep[keep < UNDETERMINED] = np.nan
        return np.asarray(eta + slope * a / keep)

    def step(self, g: Array, gb: Array, alpha: Array, weight: Array, constant: Array) -> tuple[Array, Array]:
        """Return the steps (δθ (p, C), δb (C,)) to the minimum, for training sets of these weights.

        The curvature of the data is taken to be proportional to the weight of the training set.
        """
        share = weight / self.weight
        mean = self.moments.x_mean if self.centre else np.zeros_like(self.moments.x_mean)
        rhs = np.where(constant, 0.0, -(g - np.multiply.outer(mean, gb)) / share)
        d_theta = np.where(constant, 0.0, self._solve(rhs, alpha / share))
        if not self.centre:
            return d_theta, np.zeros(len(gb))
        total = self.moments.weight * share
        d_b = -np.where(total > 0, gb / np.where(total > 0, total, 1.0), 0.0) - mean @ d_theta
        return d_theta, d_b


def quadratics(
    book: Book,
    columns: Columns,
    theta: Array,
    b: Array,
    centre: bool,
    *,
    n_alphas: int = 1,
    sample: bool = False,
) -> list[Quadratic]:
    """Return the quadratic model of each model at (θ, b); see `curvatures` for `sample`."""
    rows = SAMPLE * len(theta) if sample else None
    if columns.group > 1:
        return [
            coupled_quadratic(book, columns.take(at), theta[:, at], b[at], centre, rows)
            for at in np.arange(len(b)).reshape(-1, columns.group)
        ]
    measured = curvatures(book, columns, theta, b, sample=sample)
    return [
        Curved.of(moments, form, centre, weight, n_alphas)
        for (moments, weight), form in zip(measured, columns.forms, strict=True)
    ]


def curvatures(
    book: Book, columns: Columns, theta: Array, b: Array, *, sample: bool = False
) -> list[tuple[Moments, float]]:
    """Return for each column the moments of its rows under the weights w·ℓ''(y, η), and Σw of these rows.

    With `sample`, chunks of rows spread over the whole are enough: SAMPLE·p rows.
    """
    return [_curvature(book, columns, theta, b, c, sample) for c in range(len(columns.alpha))]


def _curvature(
    book: Book, columns: Columns, theta: Array, b: Array, c: int, sample: bool
) -> tuple[Moments, float]:
    loss, member = book.problem.loss, columns.member[:, c]
    everyone = bool(member[:-1].all())
    target = columns.target[c : c + 1]
    weights: list[float] = []

    def blocks(group: list[Chunk]) -> Iterator[Block]:
        for chunk in group:
            w = chunk.w
            if not everyone:
                assert chunk.label is not None
                w = w * member[chunk.label]
            eta = chunk.eta(theta[:, c : c + 1], b[c : c + 1], target)
            weights.append(float(w.sum()))
            yield Block(chunk.X, np.zeros((len(w), 0)), loss.curvature(chunk.y[:, target], eta)[:, 0] * w, 0)

    moments = merged(book, blocks, len(theta), SAMPLE * len(theta) if sample else None)
    return moments, sum(sorted(weights))


def nearby(book: Book, columns: Columns, theta: Array, b: Array) -> Array:
    """Return for each model one whose curvature will do for it too, shape (M,), along a path of alphas.

    Models of the same target and training rows, in the order of their alphas, are cut into stretches over
    which Σ w|Δℓ''| adds up to the share NEAR of Σ wℓ''; the middle one of a stretch serves all of it.
    """
    G, C = columns.group, len(b)
    M = C // G
    first = np.arange(M) * G
    order = np.lexsort((columns.alpha[first], columns.target[first]))
    loss, every = book.problem.loss, columns.of(order)
    part_of = columns.take(every)

    def part(group: list[Chunk]) -> tuple[Array, Array]:
        apart, total = np.zeros(M), np.zeros(M)
        for chunk in group:
            eta = chunk.eta(theta[:, every], b[every], part_of.target).reshape(len(chunk.w), M, G)
            y = chunk.y[:, None, :] if loss.coupled else chunk.y[:, part_of.target][:, :, None]
            h = loss.curvature(y, eta)
            total += np.einsum("i,img->m", chunk.w, h)
            apart[1:] += np.einsum("i,img->m", chunk.w, np.abs(np.diff(h, axis=1)))
        return apart, total

    apart, total = book.total(part, len(theta) + C)
    share = np.divide(apart, total, out=np.full(M, np.inf), where=total > 0)
    new = np.diff(columns.target[first[order]], prepend=-1) != 0
    serves = np.empty(M, dtype=int)
    begin = 0
    for i in range(1, M + 1):
        if i == M or new[i] or share[begin + 1 : i + 1].sum() > NEAR:
            serves[order[begin:i]] = order[(begin + i - 1) // 2]
            begin = i
    return serves


def merged(book: Book, blocks: Any, p: int, rows: int | None) -> Moments:
    """Return the moments of `blocks(group)` over all groups of chunks, or over about so many rows."""
    total: Moments | None = None
    with book.cores():
        for groups in book.groups(p, rows):
            for (part,) in on_cores(lambda group: gather(blocks(group)), groups):
                total = part if total is None else total.merge(part)
    assert total is not None
    return total
