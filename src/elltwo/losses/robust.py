"""Real targets by other than squared error: the support vector machine's tube, and Huber's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.losses.base import FromDerivatives, IdentityLink, floats
from elltwo.losses.parameters import number

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SquaredEpsilonInsensitive(FromDerivatives, IdentityLink):
    """Support vector regression: ½max(0, |η − y| − ε)², nothing for errors up to ε.

    The gradient is η − y beyond ±ε, less ε in size; the curvature 1 there and 0 inside (Ho and Lin, J. Mach.
    Learn. Res. 13, 2012; where the curvature jumps, at |η − y| = ε, it is 0).

    Parameters
    ----------
    epsilon : float
        ε ≥ 0, in units of y.

    Raises
    ------
    InputError
        If epsilon is negative or not finite.

    Examples
    --------
    >>> SquaredEpsilonInsensitive(0.5).value(np.array([1.0, 1.0]), np.array([1.4, 3.5]))
    array([0., 2.])
    """

    name: ClassVar[str] = "squared-epsilon-insensitive"
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        what = "a finite number ≥ 0, in units of the target"
        value = number("epsilon", self.epsilon, what, lambda e: 0 <= e < np.inf)
        object.__setattr__(self, "epsilon", value)

    def value(self, y: Array, eta: Array) -> Array:
        """Return ½max(0, |η − y| − ε)²."""
        g, _ = self._beyond(y, eta)
        np.square(g, out=g)
        g *= 0.5
        return g

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return the part of η − y beyond ±ε, and 1 where there is one."""
        g, h = self._beyond(y, eta)
        return g, np.not_equal(g, 0.0, out=h, casting="unsafe")

    def _beyond(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return the part of r = η − y beyond ±ε, and the part within."""
        y, eta, shape = floats(y, eta)
        r = np.subtract(eta, y, out=np.empty(shape))
        within = np.clip(r, -self.epsilon, self.epsilon, out=np.empty(shape))
        r -= within
        return r, within


@dataclass(frozen=True)
class Huber(FromDerivatives, IdentityLink):
    """Robust regression: ½r² for |r| ≤ ε and ε|r| − ½ε² beyond, with r = η − y.

    Outliers pull with the force ε, however far they are (Huber, Ann. Math. Stat. 35(1), 1964). Gradient r
    cut off at ±ε, curvature 1 up to |r| = ε and 0 beyond. At ε = 1.35 standard deviations of the errors
    the estimate is 95 % as efficient as squared error if the errors are normal.

    Parameters
    ----------
    epsilon : float
        ε > 0, in units of y: no scale is estimated.

    Raises
    ------
    InputError
        If epsilon is not positive and finite.

    Examples
    --------
    >>> Huber(2.0).value(np.array([0.0, 0.0]), np.array([1.0, 5.0]))
    array([0.5, 8. ])
    """

    name: ClassVar[str] = "huber"
    epsilon: float = 1.35

    def __post_init__(self) -> None:
        what = "a finite number > 0, in units of the target"
        value = number("epsilon", self.epsilon, what, lambda e: 0 < e < np.inf)
        object.__setattr__(self, "epsilon", value)

    def value(self, y: Array, eta: Array) -> Array:
        """Return ½r² for |r| ≤ ε and ε|r| − ½ε² beyond."""
        r, g = self._cut(y, eta)
        r -= 0.5 * g
        r *= g  # g(r − g/2), which is r²/2 inside and ε|r| − ε²/2 outside
        return r

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return r cut off at ±ε, and 1 where nothing was cut."""
        r, g = self._cut(y, eta)
        return g, np.equal(r, g, out=r, casting="unsafe")

    def _cut(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return r = η − y, and r cut off at ±ε."""
        y, eta, shape = floats(y, eta)
        r = np.subtract(eta, y, out=np.empty(shape))
        return r, np.clip(r, -self.epsilon, self.epsilon, out=np.empty(shape))
