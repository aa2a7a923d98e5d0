"""Penalty shapes: the matrix P of (α/2)·θᵀPθ, as P = Q·diag(d)·Qᵀ.

Standardisation is a shape, not a copy of the data: penalising the coefficients of
standardised columns is P = diag(sⱼ²) on the columns as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class QuadraticForm:
    """P = Q·diag(d)·Qᵀ with d ≥ 0; `rotation` None stands for Q = I.

    Attributes
    ----------
    d : array, shape (p,)
    rotation : array, shape (p, p), orthogonal, or None
    """

    d: Array
    rotation: Array | None = None

    def apply(self, theta: Array) -> Array:
        """Return Pθ for θ of shape (p,) or (p, T)."""
        d = self.d if theta.ndim == 1 else self.d[:, None]
        return d * theta if self.rotation is None else self.rotation @ (d * (self.rotation.T @ theta))

    def matrix(self) -> Array:
        """Return P as a dense p × p array."""
        return np.diag(self.d) if self.rotation is None else (self.rotation * self.d) @ self.rotation.T

    def root(self) -> Array:
        """Return a q × p array B with BᵀB = P, one row per positive d."""
        keep = np.flatnonzero(self.d > 0)
        basis = np.eye(len(self.d)) if self.rotation is None else self.rotation
        return np.sqrt(self.d[keep])[:, None] * basis.T[keep]


def as_numbers(values: Any, name: str) -> Array:
    """Return values as a float64 array, or raise InputError naming the argument."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must hold numbers; got {values!r}.") from None


class Penalty(Protocol):
    """A penalty shape, made concrete by the scales of the columns."""

    def form(self, scales: Array) -> QuadraticForm:
        """Return P for columns of these standard deviations, shape (p,)."""
        ...

    def check(self, p: int) -> None:
        """Raise InputError unless the penalty fits p features."""
        ...


@dataclass(frozen=True)
class Identity:
    """P = I: every coefficient is penalised alike."""

    def form(self, scales: Array) -> QuadraticForm:
        """Return the identity of the right size."""
        return QuadraticForm(np.ones(len(scales)))

    def check(self, p: int) -> None:
        """Accept any number of features."""


@dataclass(frozen=True)
class Diagonal:
    """P = diag(m): one multiplier per feature; 0 leaves a feature unpenalised.

    >>> Diagonal.of([1, 0, 2]).form(np.ones(3)).d
    array([1., 0., 2.])
    """

    multipliers: tuple[float, ...]

    @classmethod
    def of(cls, multipliers: Any) -> Self:
        """Return the penalty for a sequence of p multipliers."""
        m = as_numbers(multipliers, "penalty")
        if m.ndim != 1 or not np.all(np.isfinite(m)) or np.any(m < 0):
            raise InputError("penalty: multipliers must be a vector of finite numbers ≥ 0 (0 = unpenalised).")
        return cls(tuple(m.tolist()))

    def form(self, scales: Array) -> QuadraticForm:  # noqa: ARG002
        """Return diag(m)."""
        return QuadraticForm(np.asarray(self.multipliers))

    def check(self, p: int) -> None:
        """Raise InputError unless there is one multiplier per feature."""
        if len(self.multipliers) != p:
            raise InputError(
                f"penalty has {len(self.multipliers)} multipliers for {p} features; give one per feature."
            )


@dataclass(frozen=True, eq=False)
class Matrix:
    """P = any symmetric positive semi-definite p × p matrix (a Tikhonov matrix is P = ΓᵀΓ)."""

    values: Array

    @classmethod
    def of(cls, matrix: Any) -> Self:
        """Return the penalty for a p × p matrix, checked to be symmetric and positive semi-definite."""
        P = as_numbers(matrix, "penalty")
        if P.ndim != 2 or P.shape[0] != P.shape[1] or not np.all(np.isfinite(P)):
            raise InputError("penalty: a matrix must be square and finite.")
        size = float(np.abs(P).max(initial=0.0))
        if not np.allclose(P, P.T, rtol=0, atol=1e-10 * size):
            raise InputError(
                "penalty: the matrix is not symmetric; pass (P + P.T) / 2 if that is what you mean."
            )
        if np.linalg.eigvalsh(P)[0] < -1e-10 * size * len(P):
            raise InputError(
                "penalty: the matrix has a negative eigenvalue, so the objective has no minimum."
            )
        return cls((P + P.T) / 2)

    def form(self, scales: Array) -> QuadraticForm:  # noqa: ARG002
        """Return P by its eigendecomposition; eigenvalues at rounding level count as 0."""
        d, Q = np.linalg.eigh(self.values)
        cutoff = len(d) * np.finfo(np.float64).eps * max(float(d[-1]), 0.0)
        return QuadraticForm(np.where(d > cutoff, d, 0.0), Q)

    def check(self, p: int) -> None:
        """Raise InputError unless the matrix is p × p."""
        if len(self.values) != p:
            raise InputError(f"penalty is a {len(self.values)} × {len(self.values)} matrix for {p} features.")


@dataclass(frozen=True)
class Standardized:
    """P = S·P₀·S with S = diag(sⱼ): the penalty `base` on the coefficients of standardised columns.

    A constant column has sⱼ = 0 and cannot be standardised; it keeps scale 1, and so coefficient 0.

    >>> Standardized(Identity()).form(np.array([2.0, 3.0])).d
    array([4., 9.])
    """

    base: Identity | Diagonal | Matrix

    def form(self, scales: Array) -> QuadraticForm:
        """Return S·P₀·S."""
        s = np.where(scales > 0, scales, 1.0)
        inner = self.base.form(scales)
        if inner.rotation is None:
            return QuadraticForm(inner.d * s**2)
        return Matrix(s[:, None] * inner.matrix() * s).form(scales)

    def check(self, p: int) -> None:
        """Check the base penalty."""
        self.base.check(p)


#: Every penalty shape of the package.
PENALTIES = (Identity, Diagonal, Matrix, Standardized)


def as_penalty(penalty: Any, *, standardize: bool) -> Penalty:
    """Return the penalty object for None, a vector of multipliers, a p × p matrix or a penalty object."""
    if penalty is None:
        base: Any = Identity()
    elif isinstance(penalty, PENALTIES):
        base = penalty
    elif np.ndim(penalty) == 1:
        base = Diagonal.of(penalty)
    elif np.ndim(penalty) == 2:
        base = Matrix.of(penalty)
    else:
        raise InputError(
            "penalty must be None, one multiplier per feature, a p × p matrix or a penalty object; "
            f"got {type(penalty).__name__}."
        )
    return Standardized(base) if standardize and not isinstance(base, Standardized) else base
