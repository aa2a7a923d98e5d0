"""Arithmetic in twice the working precision, on whole arrays: unevaluated sums hi + lo of two float64.

Error-free transformations of Dekker (1971) and Knuth; see Ogita, Rump and Oishi (2005), "Accurate sum
and dot product". About 106 bits: enough that a residual is exact for every practical purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return (s, e) with s = fl(a + b) and s + e = a + b exactly."""
    s = a + b
    shifted = s - a
    return s, (a - (s - shifted)) + (b - shifted)


def _split(a: Array) -> tuple[Array, Array]:
    """Return a as the sum of two numbers of 26 bits."""
    big = a * 134217729.0
    high = big - (big - a)
    return high, a - high


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Return (p, e) with p = fl(a·b) and p + e = a·b exactly."""
    p = a * b
    a1, a2 = _split(a)
    b1, b2 = _split(b)
    return p, a2 * b2 - (((p - a1 * b1) - a2 * b1) - a1 * b2)


@dataclass(frozen=True, eq=False)
class Extended:
    """An array of numbers hi + lo.

    Examples
    --------
    >>> ones = np.array([1e16, 1.0, -1e16])
    >>> float(ones.sum()), float(Extended.of(ones).sum(axis=0).value())
    (0.0, 1.0)
    """

    hi: Array
    lo: Array

    @classmethod
    def of(cls, values: Any) -> Self:
        """Return float64 values as they are."""
        hi = np.asarray(values, dtype=np.float64)
        return cls(hi, np.zeros_like(hi))

    @classmethod
    def product(cls, a: Any, b: Any) -> Self:
        """Return a·b elementwise, exactly."""
        return cls(*_two_product(np.asarray(a), np.asarray(b)))

    @classmethod
    def outer(cls, X: Array, r: Extended) -> Self:
        """Return x_ij·r_i, shape (m, p)."""
        product = Extended(r.hi[:, None], r.lo[:, None]).times(X)
        return cls(product.hi, product.lo)

    def times(self, other: Any) -> Extended:
        """Return self times float64 values, elementwise."""
        p, e = _two_product(self.hi, np.asarray(other))
        return Extended(*_two_sum(p, e + self.lo * other))

    def plus(self, other: Extended) -> Extended:
        """Return the elementwise sum."""
        s, e = _two_sum(self.hi, other.hi)
        return Extended(*_two_sum(s, e + self.lo + other.lo))

    def minus(self, other: Any) -> Extended:
        """Return the elementwise difference."""
        taken = other if isinstance(other, Extended) else Extended.of(other)
        return self.plus(Extended(-taken.hi, -taken.lo))

    def sum(self, axis: int) -> Extended:
        """Return the sum over an axis, by halves."""
        hi, lo = np.moveaxis(self.hi, axis, 0), np.moveaxis(self.lo, axis, 0)
        total = Extended(hi, lo)
        while len(total.hi) > 1:
            half = len(total.hi) // 2
            rest = Extended(total.hi[2 * half :], total.lo[2 * half :])
            total = Extended(total.hi[:half], total.lo[:half]).plus(
                Extended(total.hi[half : 2 * half], total.lo[half : 2 * half])
            )
            if len(rest.hi):
                total = Extended(np.concatenate([total.hi, rest.hi]), np.concatenate([total.lo, rest.lo]))
        return Extended(total.hi[0], total.lo[0])

    def value(self) -> Array:
        """Return the nearest float64 values."""
        return np.asarray(self.hi + self.lo)
