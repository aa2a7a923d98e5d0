"""The alphas themselves: checking them, the automatic grid, the choice on it, and its refinement."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial

from elltwo.errors import InputError
from elltwo.selection.criteria import Scores
from elltwo.solvers.base import State

Array = npt.NDArray[Any]


def check_alphas(alphas: Any, *, positive: bool = False) -> Array:
    """Return alphas as a float64 vector.

    Raises
    ------
    InputError
        For alphas that are negative, NaN or infinite, or none at all.
    """
    try:
        given = np.asarray(alphas)
        if given.dtype.kind in "USO" and any(isinstance(value, str) for value in given.ravel()):
            raise TypeError  # NumPy would read "2" as a number
        values = np.atleast_1d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):
        raise InputError(
            f"alpha must be a number ≥ 0, an array of numbers or a rule; got {alphas!r}."
        ) from None
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"alpha must be a number or a vector of numbers; got shape {values.shape}.")
    bad = values[~(np.isfinite(values) & (values >= 0))]
    if len(bad):
        raise InputError(f"alpha must be finite and not negative; got {bad[0]:g}. Use 0 for no penalty.")
    if positive and not values.all():
        raise InputError("alpha = 0 has no restricted likelihood; REML needs positive alphas.")
    return values


#: Points per decade of the automatic grid.
PER_DECADE = 6


def spectrum_grid(state: State) -> Array:
    """Return the automatic grid: from next to no shrinkage to next to no effect.

    From 10⁻³ of the smallest squared singular value (but not below 10⁻¹⁰ of the largest), where df is
    within a thousandth of its maximum, to 100·Σs², where df is below 0.01; six alphas per decade.
    """
    g = state.spectrum()
    if len(g) == 0:
        return np.array([1.0])
    low = max(1e-3 * float(g.min()), 1e-10 * float(g.max()))
    decades = np.log10(100 * float(g.sum()) / low)
    return np.asarray(low * 10 ** np.linspace(0, decades, int(np.ceil(PER_DECADE * decades)) + 1))


def best_index(value: Array, se: Array | None, alphas: Array, one_se: bool) -> int:
    """Return the index of the smallest score (largest alpha among ties), or the one-standard-error choice."""
    value = np.where(np.isnan(value), np.inf, value)
    if not (value < np.inf).any():
        raise InputError(
            "the criterion is not defined at any alpha tried: there are no more rows than effective "
            "parameters, or some rows determine an unpenalised coefficient by themselves, or the target "
            "does not vary. Penalise every feature, or give a number as alpha."
        )
    lowest = value.min()
    slack = 1e-12 * abs(lowest) if np.isfinite(lowest) else 0.0
    at_best = np.flatnonzero(value <= lowest + slack)
    best = int(at_best[np.argmax(alphas[at_best])])
    if not one_se or se is None:
        return best
    within = np.flatnonzero(value <= lowest + se[best])
    return int(within[np.argmax(alphas[within])])


#: Points that the criterion is interpolated through.
NEAREST = 11


def _curve(alphas: Array, value: Array, index: int) -> Polynomial | None:
    """Return the polynomial in log α through the nearest points of the grid, None if they are not finite.

    The criterion is analytic in t = log α in the strip |Im t| < π, so the polynomial through the eleven
    nearest points of a uniform grid with spacing h errs by O((h/π)¹¹): about 1e-10 at six points per decade.
    """
    first = max(0, min(index - NEAREST // 2, len(alphas) - NEAREST))
    t, v = np.log(alphas[first : first + NEAREST]), value[first : first + NEAREST]
    return Polynomial.fit(t, v, len(t) - 1) if np.isfinite(v).all() else None


def refine(alphas: Array, value: Array, index: int) -> float:
    """Return the minimiser of the criterion near a grid point, between its neighbours.

    Six significant digits are kept: more would be rounding noise, since the criterion is flat there.
    """
    if index in (0, len(alphas) - 1) or (curve := _curve(alphas, value, index)) is None:
        return float(alphas[index])
    low, high = np.log(alphas[index - 1]), np.log(alphas[index + 1])
    flat = curve.deriv().roots()
    inside = flat[(np.abs(flat.imag) < 1e-9) & (flat.real > low) & (flat.real < high)].real
    if len(inside) == 0:
        return float(alphas[index])
    return float(f"{np.exp(inside[np.argmin(curve(inside))]):.6g}")


def interpolated(alphas: Array, scores: Scores, at: Array) -> Scores:
    """Return the scores at alphas between the points of a grid, without another pass over the rows."""
    nearest = [int(np.argmin(np.abs(np.log(alphas / a)))) for a in at]

    def through(values: Array) -> Array:
        curves = [[_curve(alphas, column, i) for column in values.T] for i in nearest]
        return np.array(
            [
                [values[i, t] if c is None else c(np.log(a)) for t, c in enumerate(row)]
                for a, i, row in zip(at, nearest, curves, strict=True)
            ]
        )

    return Scores(through(scores.value), None if scores.se is None else through(scores.se))
