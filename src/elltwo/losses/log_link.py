"""Counts and amounts, with the log link: Poisson, Gamma, Tweedie and negative binomial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.losses.base import ETA_BOUND, MEND, SATURATED, FromDerivatives, MeanOnly, floats, refuse
from elltwo.losses.parameters import number

Array = npt.NDArray[Any]

#: A y below this counts as 0 in the value, where y·log y and its like are below it too.
NOTHING = 1e-100


class _LogLink(FromDerivatives):
    """μ = e^η. Where |η| > 300, the loss goes on along its tangent there.

    So value and gradient stay finite and monotone (a tangent that would fall below 0 ends there). The
    gradient keeps its value at the bound, which still points the right way, and the curvature too, so that
    a Newton step from there is bounded.
    """

    name: ClassVar[str]
    link: ClassVar[str] = "log"
    coupled: ClassVar[bool] = False

    def value(self, y: Array, eta: Array) -> Array:
        """Return ½dev(y, e^η)."""
        y, eta, _ = floats(y, eta)
        # Comparisons with NaN are false: a NaN goes through to the value.
        if eta.size == 0 or not (eta.max() > ETA_BOUND or eta.min() < -ETA_BOUND):
            out = self._value(y, eta)
        else:
            z = np.clip(eta, -ETA_BOUND, ETA_BOUND, out=np.empty(eta.shape))
            out = self._value(y, z)
            out += self.gradient(y, z) * (eta - z)
        return np.maximum(out, 0.0, out=out)

    def _value(self, y: Array, z: Array) -> Array:
        """Return ½dev(y, e^z), a new array, for |z| within the bound; rounding may leave it below 0."""
        raise NotImplementedError

    def mean(self, eta: Array) -> Array:
        """Return e^η, with η between ±300."""
        return clipped_exp(np.asarray(eta, dtype=np.float64), np.shape(eta))

    def link_of(self, mu: Array) -> Array:
        """Return log μ, for μ > 0."""
        return np.asarray(np.log(np.asarray(mu, dtype=np.float64)))

    def null(self, mean_y: Array) -> Array:
        """Return the log of the mean of y; a mean of 0 counts as 1e-12 (η = −27.6)."""
        return self.link_of(np.maximum(np.asarray(mean_y, dtype=np.float64), SATURATED))

    def check(self, y: Array, target: str, start: int = 0) -> None:
        """Raise InputError unless y is finite and ≥ 0."""
        y = np.asarray(y)
        need = f"{self.name} needs y ≥ 0 and finite. {MEND}, or use family='gaussian'"
        refuse(~((y >= 0) & (y < np.inf)), y, target, start, need)


def clipped_exp(eta: Array, shape: tuple[int, ...], factor: float = 1.0) -> Array:
    """Return exp(factor·η), |η| at most 300, as a new array."""
    e = np.clip(eta, -ETA_BOUND, ETA_BOUND, out=np.empty(shape))
    if factor != 1.0:
        e *= factor
    return np.exp(e, out=e)


def log_ratio(y: Array, z: Array) -> tuple[Array, Array, Array | None]:
    """Return y with 1 in place of 0, d = z − log of that as a new array, and where y is 0 (None: nowhere).

    Half-deviances are written as a power of y times a function of d that is 0 at d = 0. Differences of
    y·log y and μ would lose digits where y is large and the fit good.
    """
    zero = None
    if not (positive := y > NOTHING).all():
        zero = ~positive
        y = np.where(positive, y, 1.0)
    d = np.subtract(z, np.log(y), out=np.empty(np.broadcast_shapes(y.shape, z.shape)))
    return y, d, zero


def growth(d: Array, c: float) -> Array:
    """Return (e^(c·d) − 1)/c as a new array, which is d for c = 0 (the inverse of the Box-Cox transform)."""
    if c == 0.0:
        return d.copy()
    out = np.multiply(d, c, out=np.empty(d.shape))
    np.expm1(out, out=out)
    return np.divide(out, c, out=out)


def tweedie_value(y: Array, z: Array, power: float) -> Array:
    """Return y^(2−p)·[growth(d, 2−p) − growth(d, 1−p)] with d = z − log y, and e^((2−p)z)/(2−p) at y = 0."""
    c = 2.0 - power
    y, d, zero = log_ratio(y, z)
    out = growth(d, c)
    out -= d if c == 1.0 else growth(d, c - 1.0)
    if c:
        out *= y if c == 1.0 else y**c
        if zero is not None:
            np.copyto(out, clipped_exp(z, z.shape, c) / c, where=zero)
    return out


@dataclass(frozen=True)
class Poisson(_LogLink, MeanOnly):
    """Counts and rates: ½dev = y·log(y/μ) − y + μ with μ = e^η, variance μ.

    McCullagh and Nelder, Generalized Linear Models, 1989, section 2.3. Gradient μ − y, curvature μ.

    >>> loss = Poisson()
    >>> loss.value(np.array([0.0, 3.0]), np.log([2.0, 3.0])), loss.gradient(np.array([3.0]), np.zeros(1))
    (array([2., 0.]), array([-2.]))
    """

    name: ClassVar[str] = "poisson"

    def _value(self, y: Array, z: Array) -> Array:
        return tweedie_value(y, z, 1.0)

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return (μ − y, μ)."""
        y, eta, shape = floats(y, eta)
        mu = clipped_exp(eta, shape)
        return np.subtract(mu, y, out=np.empty(shape)), mu


@dataclass(frozen=True)
class Gamma(_LogLink):
    """Positive amounts: ½dev = y/μ − 1 − log(y/μ) with μ = e^η, variance proportional to μ².

    McCullagh and Nelder, Generalized Linear Models, 1989, section 8.3. With u = y/μ the gradient is 1 − u
    and the curvature u.

    >>> loss = Gamma()
    >>> loss.gradient(np.array([1.0, 4.0]), np.log([2.0, 2.0])), loss.mean(np.zeros(1))
    (array([ 0.5, -1. ]), array([1.]))
    """

    name: ClassVar[str] = "gamma"
    dispersions: ClassVar[int] = 1

    def _value(self, y: Array, z: Array) -> Array:
        return tweedie_value(y, z, 2.0)

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return (1 − y/μ, y/μ)."""
        y, eta, shape = floats(y, eta)
        u = clipped_exp(eta, shape, -1.0)
        u *= y
        return np.subtract(1.0, u, out=np.empty(shape)), u

    def check(self, y: Array, target: str, start: int = 0) -> None:
        """Raise InputError unless y is finite and > 0."""
        _check_positive(self.name, y, target, start)

    def minus_two_loglik(self, deviance: Array, n: float) -> Array:
        """Return −2·log likelihood up to 2Σ log y, with the shape ν at its maximum: log ν − ψ(ν) = D/(2n).

        −2ℓ = −2n·(ν·log ν − ν − log Γ(ν)) + ν·D (McCullagh and Nelder, 1989, section 8.3.6).
        """
        from scipy.special import digamma, gammaln, polygamma

        gap = np.maximum(np.asarray(deviance, dtype=np.float64) / (2 * n), 1e-12)
        shape = (3 - gap + np.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
        for _ in range(20):  # Newton in ν, from a start that is within 2 % (Minka, 2002)
            slope = 1 / shape - polygamma(1, shape)
            shape = np.maximum(shape - (np.log(shape) - digamma(shape) - gap) / slope, shape / 10)
        entropy = shape * np.log(shape) - shape - gammaln(shape)
        return np.asarray(-2 * n * entropy + shape * deviance)


@dataclass(frozen=True)
class Tweedie(_LogLink):
    """Amounts with many zeros (claims, rainfall), variance proportional to μ^p, 1 ≤ p ≤ 2, with μ = e^η.

        ½dev = y^(2−p)/((1−p)(2−p)) − y·μ^(1−p)/(1−p) + μ^(2−p)/(2−p)

    Gradient μ^(2−p) − y·μ^(1−p), curvature (2−p)·μ^(2−p) + (p−1)·y·μ^(1−p). Power 1 is `Poisson` and
    power 2 `Gamma` (Jørgensen, J. R. Stat. Soc. B 49(2), 1987; Dunn and Smyth, Generalized Linear Models
    With Examples in R, 2018, section 12.2).

    Parameters
    ----------
    power : float
        p. For 1 < p < 2 the target may be 0; power 2 needs y > 0.

    Raises
    ------
    InputError
        If the power is not from 1 to 2.

    Examples
    --------
    >>> loss = Tweedie(1.5)
    >>> loss.value(np.array([0.0, 4.0]), np.log([4.0, 4.0])), loss.gradient(np.array([1.0]), np.log([4.0]))
    (array([4., 0.]), array([1.5]))
    """

    name: ClassVar[str] = "tweedie"
    power: float = 1.5

    def __post_init__(self) -> None:
        value = number("power", self.power, "a number from 1 (Poisson) to 2 (Gamma)", lambda p: 1 <= p <= 2)
        object.__setattr__(self, "power", value)

    def _value(self, y: Array, z: Array) -> Array:
        return tweedie_value(y, z, self.power)

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return (μ^(2−p) − y·μ^(1−p), (2−p)·μ^(2−p) + (p−1)·y·μ^(1−p))."""
        p = self.power
        if p in (1.0, 2.0):
            return (Poisson() if p == 1.0 else Gamma()).derivatives(y, eta)
        y, eta, shape = floats(y, eta)
        # The root e^(η/2) serves both powers of the usual p = 1.5; others take a second exponential.
        g = clipped_exp(eta, shape, 2.0 - p)
        h = np.divide(1.0, g, out=np.empty(shape)) if p == 1.5 else clipped_exp(eta, shape, 1.0 - p)
        h *= y
        part = (2.0 - p) * g
        g -= h
        h *= p - 1.0
        h += part
        return g, h

    def check(self, y: Array, target: str, start: int = 0) -> None:
        """Raise InputError unless y is finite and ≥ 0; > 0 for power 2."""
        if self.power == 2.0:
            _check_positive("tweedie of power 2", y, target, start)
        else:
            super().check(y, target, start)


@dataclass(frozen=True)
class NegativeBinomial(_LogLink, MeanOnly):
    """Counts that vary more than Poisson: variance μ + φμ² with μ = e^η and a given dispersion φ > 0.

        ½dev = y·log(y/μ) − (y + 1/φ)·log((1 + φy)/(1 + φμ))

    Gradient (μ − y)/(1 + φμ), curvature μ(1 + φy)/(1 + φμ)² (Hilbe, Negative Binomial Regression, 2011,
    section 8.3: the NB2 model, whose `alpha` is φ).

    Parameters
    ----------
    dispersion : float
        φ > 0. Towards 0 the loss becomes `Poisson`.

    Raises
    ------
    InputError
        If the dispersion is not positive and finite.

    Examples
    --------
    >>> loss = NegativeBinomial(0.5)
    >>> loss.value(np.array([2.0]), np.log([2.0])), loss.gradient(np.array([1.0]), np.log([2.0]))
    (array([0.]), array([0.5]))
    """

    name: ClassVar[str] = "negative-binomial"
    dispersion: float = 1.0

    def __post_init__(self) -> None:
        # The reciprocal of a number below 1e-307 is infinite; 1e-100 is Poisson to the last digit by far.
        what = "a number from 1e-100 to 1e100 (near 0 it is Poisson)"
        value = number("dispersion", self.dispersion, what, lambda k: 1e-100 <= k <= 1e100)
        object.__setattr__(self, "dispersion", value)

    def _value(self, y: Array, z: Array) -> Array:
        k = self.dispersion
        ys, d, zero = log_ratio(y, z)
        mu = clipped_exp(z, d.shape)
        more = np.expm1(d)
        more *= ys
        if zero is not None:
            np.copyto(more, mu, where=zero)
            np.copyto(d, 0.0, where=zero)
        # With μ − y = more: log((1 + φμ)/(1 + φy)) as log1p of something ≥ 0, the greater over the smaller.
        np.minimum(mu, y, out=mu)
        mu *= k
        mu += 1.0
        out = np.abs(more)
        out *= k
        out /= mu
        np.log1p(out, out=out)
        np.copysign(out, more, out=out)
        out *= y + 1.0 / k
        d *= ys
        out -= d
        return out

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return ((μ − y)/(1 + φμ), μ(1 + φy)/(1 + φμ)²)."""
        y, eta, shape = floats(y, eta)
        k = self.dispersion
        mu = clipped_exp(eta, shape)
        s = np.multiply(mu, k, out=np.empty(shape))
        s += 1.0
        np.divide(1.0, s, out=s)
        g = np.subtract(mu, y, out=np.empty(shape))
        g *= s
        mu *= s
        mu *= s
        mu *= 1.0 + k * y
        return g, mu


def _check_positive(name: str, y: Array, target: str, start: int) -> None:
    y = np.asarray(y)
    remedy = f"{MEND}, or use family='tweedie', which takes zeros"
    refuse(~((y > 0) & (y < np.inf)), y, target, start, f"{name} needs y > 0 and finite. {remedy}")
