"""Squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.losses.base import IdentityLink, floats

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Gaussian(IdentityLink):
    """½·dev(y, η) = ½(y − η)², so that Σ wᵢ·½dev + (α/2)‖θ‖² is half of SSE + α‖θ‖².

    >>> loss = Gaussian()
    >>> loss.value(np.array([3.0]), np.array([1.0])), loss.gradient(np.array([3.0]), np.array([1.0]))
    (array([2.]), array([-2.]))
    """

    name: ClassVar[str] = "gaussian"
    dispersions: ClassVar[int] = 1

    def value(self, y: Array, eta: Array) -> Array:
        """Return ½(y − η)²."""
        g = self.gradient(y, eta)
        np.square(g, out=g)
        g *= 0.5
        return g

    def gradient(self, y: Array, eta: Array) -> Array:
        """Return d/dη = η − y."""
        y, eta, shape = floats(y, eta)
        return np.subtract(eta, y, out=np.empty(shape))

    def curvature(self, y: Array, eta: Array) -> Array:
        """Return d²/dη² = 1."""
        return np.ones(np.broadcast_shapes(np.shape(y), np.shape(eta)))

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return (η − y, 1)."""
        return self.gradient(y, eta), self.curvature(y, eta)

    def minus_two_loglik(self, deviance: Array, n: float) -> Array:
        """Return n·log(2π·RSS/n) + n, the variance at its maximum likelihood."""
        return np.asarray(n * np.log(2 * np.pi * deviance / n) + n)
