"""Losses: half the unit deviance as a function of η = b + Xθ, with gradient and curvature in η."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Gaussian:
    """½·dev(y, η) = ½(y − η)², so that Σ wᵢ·½dev + (α/2)‖θ‖² is half of SSE + α‖θ‖².

    >>> loss = Gaussian()
    >>> loss.value(np.array([3.0]), np.array([1.0])), loss.gradient(np.array([3.0]), np.array([1.0]))
    (array([2.]), array([-2.]))
    """

    name: ClassVar[str] = "gaussian"

    def value(self, y: Array, eta: Array) -> Array:
        """Return ½(y − η)²."""
        return 0.5 * (y - eta) ** 2

    def gradient(self, y: Array, eta: Array) -> Array:
        """Return d/dη = η − y."""
        return eta - y

    def curvature(self, y: Array, eta: Array) -> Array:
        """Return d²/dη² = 1."""
        return np.ones(np.broadcast_shapes(np.shape(y), np.shape(eta)))


#: Every loss of the package.
LOSSES = (Gaussian,)
