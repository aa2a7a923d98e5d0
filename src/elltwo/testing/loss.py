"""Conformance of a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.testing.comparing import close, read_only, require

Array = npt.NDArray[Any]

LINKS = ("identity", "logit", "log", "softmax", "margin")

# Targets of which a loss is checked at those that it accepts.
TARGETS = (-2.0, -1.0, 0.0, 0.3, 1.0, 3.5)
CLASS_TARGETS = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.2, 0.5, 0.3), (0.25, 0.75, 0.0))
# Differences of −2, −1, 0, 0.3 and 1 from these keep clear of where the package's own losses have kinks.
ETAS = np.linspace(-2.93, 3.07, 13)
CLASS_ETAS = ((0.0, 0.0, 0.0), (0.4, -1.3, 2.2), (-2.9, 0.1, 0.3), (3.1, 2.5, -0.7), (1.0, -2.0, 0.5))


def check_loss(loss: Any, y: Any = None, eta: Any = None) -> None:
    """Check a loss: ½·dev(y, η) with its derivatives in η, its link, and what it says to unfit targets.

    - The gradient is the derivative of the value, and the curvature that of the gradient (central differences
      of fourth order); `derivatives` returns both, as arrays of its own that may be written to.
    - The value is never negative, 0 at its smallest, and convex.
    - y and η broadcast; neither is written to.
    - `link_of` undoes `mean`, the gradient is 0 at link_of(y) where that is finite, and `null` gives the mean
      back and is finite at the smallest and largest target.
    - `check` accepts the targets, and raises InputError naming the target and the row of a NaN or inf.

    Parameters
    ----------
    loss : Loss
        An object with what `elltwo.losses.Loss` lists.
    y : array, shape (k,), or (k, K) for a coupled loss, optional
        Targets that the loss is made for; by default some usual ones, those that `check` accepts.
    eta : array, shape (e,), or (e, K) for a coupled loss, optional
        Where to look; from −2.93 to 3.07 by default. Leave out points where a derivative jumps.

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
    ...     print(str(error)[:47])
    gradient at [0, 0] is 0.93; it must be -0.93 (e
    """
    require(isinstance(loss.name, str) and loss.name, f"name is {loss.name!r}; it must be a text.")
    require(loss.link in LINKS, f"link is {loss.link!r}; it must be one of {', '.join(LINKS)}.")
    require(loss.coupled in (True, False), f"coupled is {loss.coupled!r}; it must be True or False.")
    width = 1 if loss.coupled else 0
    y = _accepted(loss, CLASS_TARGETS if loss.coupled else TARGETS) if y is None else np.asarray(y, float)
    default = CLASS_ETAS if loss.coupled else ETAS
    eta = np.asarray(default if eta is None else eta, dtype=np.float64)
    for what, given in (("y", y), ("eta", eta)):
        require(given.ndim == 1 + width, f"{what} has shape {given.shape}; it must have {1 + width} axes.")
    k, e = len(y), len(eta)
    Y = read_only(np.broadcast_to(y[:, None], (k, e, *y.shape[1:])))
    E = read_only(np.broadcast_to(eta[None], (k, e, *eta.shape[1:])))
    value = _check_derivatives(loss, Y, E)
    _check_broadcasting(loss, y, eta, value)
    _check_link(loss, y, eta)
    _check_refusals(loss, y)


def _accepted(loss: Any, candidates: Any) -> Array:
    """Return the candidates that the loss accepts as targets."""
    fit = []
    for candidate in np.asarray(candidates):
        try:
            loss.check(candidate[None], "y")
        except InputError:
            continue
        fit.append(candidate)
    require(fit, f"check refuses all of y = {np.asarray(candidates).tolist()}; pass y.")
    return np.asarray(fit)


def _check_derivatives(loss: Any, Y: Array, E: Array) -> Array:
    """Check value, gradient and curvature against each other; return the value."""
    value, gradient, curvature = loss.value(Y, E), loss.gradient(Y, E), loss.curvature(Y, E)
    rows = E.shape[:2]
    for name, found, want in (
        ("value", value, rows),
        ("gradient", gradient, E.shape),
        ("curvature", curvature, E.shape),
    ):
        shape = np.shape(found)
        require(shape == want, f"{name} has shape {shape} for y and eta of shape {E.shape}; want {want}.")
        require(np.isfinite(found).all(), f"{name} is not finite for some of y = {np.unique(Y)}.")
        close(f"{name} of one eta alone", getattr(loss, name)(Y[:, 0], E[:, 0]), found[:, 0])
    if loss.coupled:
        along = np.eye(E.shape[-1])
        slopes = [_slope(lambda at: loss.value(Y, at), E, axis) for axis in along]
        close("gradient", gradient, np.stack(slopes, axis=-1), 1e-8)
        hessian = np.stack([_slope(lambda at: loss.gradient(Y, at), E, axis) for axis in along], axis=-1)
        close("curvature", curvature, np.diagonal(hessian, axis1=-2, axis2=-1), 1e-8)
        least = float(np.linalg.eigvalsh((hessian + np.swapaxes(hessian, -1, -2)) / 2).min())
        require(least > -1e-8, f"the Hessian has the eigenvalue {least:g}; the loss must be convex.")
    else:
        close("gradient", gradient, _slope(lambda at: loss.value(Y, at), E), 1e-8)
        close("curvature", curvature, _slope(lambda at: loss.gradient(Y, at), E), 1e-8)
    both = loss.derivatives(Y, E)
    require(len(both) == 2, f"derivatives returns {len(both)} things; they must be gradient and curvature.")
    for name, found, want in (("gradient", both[0], gradient), ("curvature", both[1], curvature)):
        close(f"{name} of derivatives", found, want)
        writeable = isinstance(found, np.ndarray) and found.flags.writeable
        require(writeable, f"the {name} of derivatives cannot be written to; return an array of its own.")
    require(not np.shares_memory(*both), "derivatives returns the same memory twice; return two arrays.")
    require((value >= 0).all(), f"value is {value.min():g} somewhere; half a deviance is never negative.")
    require((curvature >= 0).all(), f"curvature is {curvature.min():g} somewhere; the loss must be convex.")
    y = Y[:, 0]
    best = loss.link_of(np.maximum(y, 1e-30)) if loss.coupled else _minimiser(loss, y)
    close("value at its smallest", loss.value(y, best), np.zeros(len(y)), 1e-9)
    return np.asarray(value)


def _check_broadcasting(loss: Any, y: Array, eta: Array, value: Array) -> None:
    """Check y of shape (m, 1, T) against η of shape (m, A, T): m targets at A places."""
    y, eta = y[:, None], np.broadcast_to(eta, (len(y), *eta.shape))
    if not loss.coupled:
        y, eta = y[..., None], eta[..., None]
        value = value[..., None]
    Y, E = read_only(y), read_only(eta)
    full = read_only(np.broadcast_to(y, eta.shape))
    close("value of y (m, 1, T) at eta (m, A, T)", loss.value(Y, E), value)
    for name in ("gradient", "curvature"):
        found = getattr(loss, name)(Y, E)
        close(f"{name} of y (m, 1, T) at eta (m, A, T)", found, getattr(loss, name)(full, E))


def _check_link(loss: Any, y: Array, eta: Array) -> None:
    """Check that link and mean undo each other, and where the model without features lies."""
    mu = loss.mean(read_only(eta))
    close("mean at link_of(mean)", loss.mean(loss.link_of(read_only(mu))), mu)
    if not loss.coupled:
        close("link_of(mean)", loss.link_of(read_only(mu)), eta)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.asarray(loss.link_of(read_only(y)))
    inside = np.isfinite(at).all(axis=-1) if loss.coupled else np.isfinite(at)
    if loss.link != "margin" and inside.any():
        slope = loss.gradient(y[inside], at[inside])
        close("gradient at link_of(y)", slope, np.zeros(slope.shape))
        middle = y[inside].mean(axis=0, keepdims=True)
        close("mean at null of a mean", loss.mean(loss.null(read_only(middle))), middle)
    for what, given in (("mean", y.mean(axis=0)), ("smallest", y.min(axis=0)), ("largest", y.max(axis=0))):
        if loss.coupled:
            given = y.mean(axis=0) if what == "mean" else y[np.argmax(y[:, 0 if what == "largest" else -1])]
        null = np.asarray(loss.null(read_only(np.atleast_1d(given))))
        require(np.isfinite(null).all(), f"null of the {what} y is {null}; it must be finite.")
        require(
            null.shape == np.shape(np.atleast_1d(given)), f"null has shape {null.shape}, unlike the mean."
        )


def _check_refusals(loss: Any, y: Array) -> None:
    """Check that the targets are accepted, and that what is no number is refused with its place."""
    try:
        loss.check(read_only(y), "visits")
    except InputError as error:
        raise AssertionError(f"check refuses the targets y = {y.tolist()}: {error}") from None
    for fault in (np.nan, np.inf):
        column = np.resize(y, (20, *y.shape[1:]))
        column[16] = fault
        for start in (0, 300):
            try:
                loss.check(read_only(column), "visits", start)
            except InputError as error:
                told = str(error)
            else:
                raise AssertionError(f"check accepts {fault} as a target; it must raise InputError.")
            for part in ("'visits'", f"row {start + 17}"):
                require(part in told, f"check with start={start} says {told!r}; it must name {part}.")


def _slope(
    function: Callable[[Array], Array], at: Array, direction: Array | float = 1.0, step: float = 1e-3
) -> Array:
    """Return the derivative along a direction by central differences of fourth order."""
    move = step * np.asarray(direction)
    near = function(at + move) - function(at - move)
    far = function(at + 2 * move) - function(at - 2 * move)
    return np.asarray((8 * near - far) / (12 * step))


def _minimiser(loss: Any, y: Array, reach: float = 290.0) -> Any:
    """Return where the gradient changes its sign within ±reach, or the end towards which the loss falls."""
    low, high = np.full(len(y), -reach), np.full(len(y), reach)
    for _ in range(80):
        middle = (low + high) / 2
        rises = loss.gradient(y, middle) > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    return (low + high) / 2
