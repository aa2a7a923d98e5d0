"""Conformance of a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.testing.comparing import close, equal, read_only, require

Array = npt.NDArray[Any]


def check_loss(loss: Any, y: Any = (-2.0, 0.0, 1.0, 3.5), eta: Any = None) -> None:
    """Check a loss: ½·dev(y, η) with its first and second derivative in η.

    The gradient is the derivative of the value, the curvature that of the gradient (central differences of
    fourth order); the value is never negative and 0 at its smallest, and the curvature is not negative.

    Parameters
    ----------
    loss : object
        With `name`, `value(y, eta)`, `gradient(y, eta)` and `curvature(y, eta)`.
    y : array, shape (k,)
        Targets that the loss is made for.
    eta : array, shape (e,), optional
        Where to look; from −2.9 to 3.1 by default. Leave out points where a derivative jumps.

    Raises
    ------
    AssertionError

    Examples
    --------
    A loss with a wrong sign is found out:

    >>> from elltwo.losses import Gaussian
    >>> class Mistaken(Gaussian):
    ...     def gradient(self, y, eta):
    ...         return y - eta
    >>> check_loss(Gaussian())
    >>> try:
    ...     check_loss(Mistaken())
    ... except AssertionError as error:
    ...     print(str(error)[:45])
    gradient at [0, 0] is 0.9; it must be -0.9 (e
    """
    require(isinstance(loss.name, str) and loss.name, f"name is {loss.name!r}; it must be a text.")
    eta = np.linspace(-2.9, 3.1, 13) if eta is None else np.asarray(eta, dtype=np.float64)
    Y, E = (read_only(a) for a in np.meshgrid(np.asarray(y, dtype=np.float64), eta, indexing="ij"))
    value, gradient, curvature = loss.value(Y, E), loss.gradient(Y, E), loss.curvature(Y, E)
    for name, found in (("value", value), ("gradient", gradient), ("curvature", curvature)):
        shape = np.shape(found)
        require(shape == E.shape, f"{name} has shape {shape} for y and eta of shape {E.shape}.")
        require(np.isfinite(found).all(), f"{name} is not finite for some of y = {np.unique(Y)}.")
        equal(f"{name} of one target alone", getattr(loss, name)(Y[:, 0], E[:, 0]), found[:, 0])
    close("gradient", gradient, _slope(lambda at: loss.value(Y, at), E), 1e-8)
    close("curvature", curvature, _slope(lambda at: loss.gradient(Y, at), E), 1e-8)
    require((value >= 0).all(), f"value is {value.min():g} somewhere; half a deviance is never negative.")
    require((curvature >= 0).all(), f"curvature is {curvature.min():g} somewhere; the loss must be convex.")
    lowest = loss.value(Y[:, 0], _minimiser(loss, Y[:, 0]))
    close("value at its smallest", lowest, np.zeros(len(Y)), 1e-9)


def _slope(function: Callable[[Array], Array], at: Array, step: float = 1e-3) -> Array:
    """Return the derivative by central differences of fourth order."""
    near = function(at + step) - function(at - step)
    far = function(at + 2 * step) - function(at - 2 * step)
    return np.asarray((8 * near - far) / (12 * step))


def _minimiser(loss: Any, y: Array, reach: float = 60.0) -> Any:
    """Return where the gradient changes its sign within ±reach, or the end towards which the loss falls."""
    low, high = np.full(len(y), -reach), np.full(len(y), reach)
    for _ in range(80):
        middle = (low + high) / 2
        rises = loss.gradient(y, middle) > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    return (low + high) / 2
