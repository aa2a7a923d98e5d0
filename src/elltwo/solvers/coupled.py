"""The quadratic model of a coupled loss (multinomial): the K classes of a row share their curvature.

With the class probabilities p of a row, its curvature in η is w·(diag(p) − ppᵀ), and in the coefficients of
all classes a matrix of K × K blocks Hₖₗ = Σ w·pₖ(δₖₗ − pₗ)·x̃x̃ᵀ, with x̃ = (1, x − x̄). It does not see what all
classes have in common, in which the symmetric form is free: a gauge Σ c·11ᵀ in that direction makes the
matrix definite and changes no step, since gradients have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.losses import Loss
from elltwo.penalties import QuadraticForm
from elltwo.solvers.columns import Columns
from elltwo.solvers.rowset import Book, Chunk

Array = npt.NDArray[Any]

#: Largest order K·(p + 1) of the matrix that is factorised.
MOST_ORDER = 6000


@dataclass(frozen=True, eq=False)
class Coupled:
    """The curvature of all classes as one matrix.

    Attributes
    ----------
    H : array, shape (K, p + 1, K, p + 1)
        Blocks Hₖₗ; without an intercept the first coordinate is 0.
    form : QuadraticForm
    mean : array, shape (p,)
        What the rows are centred at.
    weight : float
        Σw of the rows.
    """

    H: Array
    form: QuadraticForm
    mean: Array
    weight: float
    centre: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "_solver", lru_cache(maxsize=2)(self._factorise))

    @property
    def classes(self) -> int:
        """K."""
        return int(self.H.shape[0])

    def _matrix(self, alpha: float) -> tuple[Array, Array]:
        """Return H + αP with the gauge, and the diagonal it is scaled by."""
        K, q = self.H.shape[:2]
        matrix = self.H.copy()
        typical = np.einsum("kjkj->j", self.H) / K
        P = self.form.matrix()
        everyone = np.arange(q)
        for k in range(K):
            matrix[k, 1:, k, 1:] += alpha * P
            for other in range(K):
                matrix[k, everyone, other, everyone] += typical
        flat = matrix.reshape(K * q, K * q)
        scale = np.sqrt(np.where(flat.diagonal() > 0, flat.diagonal(), 1.0))
        return flat / scale / scale[:, None], scale

    def _factorise(self, alpha: float) -> Callable[[Array], Array]:
        """Return the function right ↦ (H + αP)⁻¹·right on the range of the matrix."""
        from scipy.linalg import cho_factor, cho_solve

        matrix, scale = self._matrix(alpha)
        empty = matrix.diagonal() == 0
        matrix[empty, empty] = 1.0
        columns = np.where(empty, 0.0, 1.0 / scale)
        try:
            factor = cho_factor(matrix, lower=True)
        except np.linalg.LinAlgError:
            inverse = np.linalg.pinv(matrix, rcond=1e-13, hermitian=True)
            return lambda right: (columns * (inverse @ (columns * right.T).T).T).T
        return lambda right: (columns * cho_solve(factor, (columns * right.T).T).T).T

    def solver(self, alpha: float) -> Callable[[Array], Array]:
        """Return right ↦ (H + αP)⁻¹·right for vectors or matrices of K(p + 1) rows; the last few are kept."""
        made: Callable[[Array], Array] = self._solver(float(alpha))  # type: ignore[attr-defined]
        return made

    def step(self, g: Array, gb: Array, alpha: Array, weight: Array, constant: Array) -> tuple[Array, Array]:
        """Return the steps to the minimum for models of K columns each."""
        K = self.classes
        d_theta, d_b = np.empty_like(g), np.empty_like(gb)
        for first in range(0, len(gb), K):
            own = slice(first, first + K)
            share = float(weight[first] / self.weight)
            slopes = np.where(constant[:, own], 0.0, g[:, own] - np.multiply.outer(self.mean, gb[own]))
            right = np.vstack([gb[own] if self.centre else np.zeros(K), slopes]).T.reshape(-1)
            moved = -self.solver(float(alpha[first]) / share)(right).reshape(K, -1).T / share
            d_theta[:, own] = np.where(constant[:, own], 0.0, moved[1:])
            d_b[own] = moved[0] - self.mean @ d_theta[:, own] if self.centre else 0.0
        return d_theta, d_b

    def df(self, alpha: float) -> float:
        """Return tr[(H + αP)⁻¹H] less the K − 1 intercepts that can be told apart."""
        size = self.H.shape[0] * self.H.shape[1]
        trace = float(np.trace(self.solver(alpha)(self.H.reshape(size, size))))
        return trace - (self.classes - 1) * self.centre

    def condition(self, alpha: float) -> float:
        """Return the condition of the scaled matrix, infinite if it is singular."""
        matrix = self._matrix(alpha)[0]
        real = matrix.diagonal() > 0  # without an intercept, its coordinates are empty
        values = np.linalg.eigvalsh(matrix[np.ix_(real, real)])
        return float(values[-1] / values[0]) if values[0] > 0 else float("inf")

    def left_out(self, X: Array, y: Array, eta: Array, v: Array, alpha: float, loss: Loss) -> Array:
        """Return η₋ᵢ = η + A(I − vVA)⁻¹vg with A = X̃ᵢH⁻¹X̃ᵢᵀ (K, K), V = diag(p) − ppᵀ and g the gradient."""
        K, q = self.H.shape[:2]
        rows = np.hstack([np.full((len(X), 1), float(self.centre)), X - self.mean])
        S = self.solver(alpha)(np.eye(K * q)).reshape(K, q, K, q)
        A = np.empty((len(X), K, K))
        for k in range(K):
            for other in range(k + 1):
                A[:, k, other] = A[:, other, k] = np.sum((rows @ S[k, :, other]) * rows, axis=1)
        p = loss.mean(eta)
        V = -np.einsum("mk,ml->mkl", p, p)
        V[:, np.arange(K), np.arange(K)] += p
        rest = np.eye(K) - v[:, None, None] * (V @ A)
        pulled = np.linalg.solve(rest, (v[:, None] * loss.gradient(y, eta))[:, :, None])
        return np.asarray(eta + (A @ pulled)[:, :, 0])


def coupled_quadratic(
    book: Book, columns: Columns, theta: Array, b: Array, centre: bool, rows: int | None
) -> Coupled:
    """Return the curvature of one model of K columns at (θ, b), on its training rows or a sample of them."""
    K, p = len(b), len(theta)
    if K * (p + 1) > MOST_ORDER:
        raise InputError(
            f"{K} classes of {p:,} features need a matrix of order {K * (p + 1):,}, and the limit is "
            f"{MOST_ORDER:,}. Use solver='auto' or 'newton-cg', which makes none."
        )
    loss, member = book.problem.loss, columns.member[:, 0]
    everyone = bool(member[:-1].all())
    mean, varies = columns.mean[:, 0] if centre else np.zeros(p), ~columns.constant[:, 0]

    def part(group: list[Chunk]) -> tuple[Array, Array]:
        H, total = np.zeros((K, p + 1, K, p + 1)), np.zeros(1)
        for chunk in group:
            w = chunk.w
            if not everyone:
                assert chunk.label is not None
                w = w * member[chunk.label]
            P = loss.mean(chunk.eta(theta, b, columns.target))
            Z = np.hstack([np.full((len(w), 1), float(centre)), (chunk.X - mean) * varies])
            for k in range(K):
                for other in range(k + 1):
                    # The product of a matrix with its own transpose is half the work of any other.
                    rest = 1 - P[:, k] if k == other else P[:, other]
                    half = Z * np.sqrt(w * P[:, k] * rest)[:, None]
                    H[k, :, other] += half.T @ half if k == other else -(half.T @ half)
            total += w.sum()
        return H, total

    H, total = book.total(part, K * (p + 1), rows)
    for k in range(K):
        for other in range(k):
            H[other, :, k] = H[k, :, other].T
    return Coupled(H, columns.forms[0], mean, float(total[0]), centre)
