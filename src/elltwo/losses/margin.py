"""Two classes by their margin: the squared hinge of the linear support vector machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.losses.base import FromDerivatives, floats, refuse

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SquaredHinge(FromDerivatives):
    """Support vector classification: ½max(0, 1 − yη)² with y = ±1.

    Rows on the right side by a margin of 1 or more cost nothing. Gradient −y·max(0, 1 − yη), curvature 1
    inside the margin and 0 outside (Chang, Hsieh and Lin, J. Mach. Learn. Res. 9, 2008; where the curvature
    jumps, at yη = 1, it is 0). η is a score, not a probability.

    >>> loss = SquaredHinge()
    >>> loss.value(np.array([1.0, -1.0]), np.array([3.0, 1.0]))
    array([0., 2.])
    """

    name: ClassVar[str] = "squared-hinge"
    link: ClassVar[str] = "margin"
    coupled: ClassVar[bool] = False

    def value(self, y: Array, eta: Array) -> Array:
        """Return ½max(0, 1 − yη)²."""
        short = self._shortfall(*floats(y, eta))
        np.square(short, out=short)
        short *= 0.5
        return short

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return (−y·max(0, 1 − yη), 1 where yη < 1 and 0 elsewhere)."""
        y, eta, shape = floats(y, eta)
        g = self._shortfall(y, eta, shape)
        h = np.greater(g, 0.0, out=np.empty(shape), casting="unsafe")
        g *= -y
        return g, h

    def mean(self, eta: Array) -> Array:
        """Return η."""
        return np.array(eta, dtype=np.float64)

    def link_of(self, mu: Array) -> Array:
        """Return μ."""
        return np.array(mu, dtype=np.float64)

    def check(self, y: Array, target: str, start: int = 0) -> None:
        """Raise InputError unless y is −1 or 1."""
        y = np.asarray(y)
        need = "squared-hinge needs y = −1 or 1. Code the two classes as −1 and 1"
        refuse((y != 1) & (y != -1), y, target, start, need)

    def null(self, mean_y: Array) -> Array:
        """Return the mean of y, which minimises the loss among constants."""
        return np.array(mean_y, dtype=np.float64)

    @staticmethod
    def _shortfall(y: Array, eta: Array, shape: tuple[int, ...]) -> Array:
        """Return max(0, 1 − yη)."""
        short = np.multiply(y, eta, out=np.empty(shape))
        np.subtract(1.0, short, out=short)
        return np.maximum(short, 0.0, out=short)
