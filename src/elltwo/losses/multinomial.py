"""Classes, with the symmetric softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.losses.base import SATURATED, FromDerivatives, MeanOnly, floats, refuse
from elltwo.losses.binomial import negative_entropy

Array = npt.NDArray[Any]

#: Up to this many classes the maximum over classes goes column by column, which NumPy does faster.
FEW = 16
#: How far the class proportions of a row may be from 1 in sum.
SUM_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Multinomial(FromDerivatives, MeanOnly):
    """Multinomial logistic regression: ½dev = Σₖ yₖ·log(yₖ/pₖ) with p = softmax(η), over the last axis.

    y holds one column per class: one-hot, or the proportions of the classes. Every class has its own η
    (the symmetric form of Friedman, Hastie and Tibshirani, J. Stat. Softw. 33(1), 2010, section 4); the
    penalty makes the coefficients unique, and η is reported with Σₖ ηₖ = 0 where it has to be chosen.
    Gradient pₖ − yₖ, Hessian diag(p) − ppᵀ, of which `curvature` is the diagonal.

    >>> loss = Multinomial()
    >>> y, eta = np.array([[0.0, 1.0, 0.0]]), np.log([[0.25, 0.5, 0.25]])
    >>> loss.value(y, eta).round(4), loss.gradient(y, eta)
    (array([0.6931]), array([[ 0.25, -0.5 ,  0.25]]))
    """

    name: ClassVar[str] = "multinomial"
    link: ClassVar[str] = "softmax"
    coupled: ClassVar[bool] = True

    def value(self, y: Array, eta: Array) -> Array:
        """Return Σₖ yₖ·log(yₖ/pₖ), of one axis less than η."""
        y, eta, shape = floats(y, eta)
        e, top = _shifted_exp(eta, eta.shape)
        log_sum = np.log(_sum(e))
        # With z = η − max η: Σ yₖ·(log Σe^z − zₖ), whose terms are all ≥ 0, so that none cancels.
        loss = log_sum[..., None] + top
        loss = np.subtract(loss, eta, out=np.empty(shape))
        loss *= y
        if np.any((y > 0) & (y < 1)):
            loss += negative_entropy(y)
        out = _sum(loss)
        return np.maximum(out, 0.0, out=out)

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Return (p − y, p(1−p))."""
        y, eta, shape = floats(y, eta)
        p = self._softmax(eta, shape)
        h = np.subtract(1.0, p, out=np.empty(shape))
        h *= p
        p -= y
        return p, h

    def mean(self, eta: Array) -> Array:
        """Return the class probabilities p = softmax(η)."""
        return self._softmax(np.asarray(eta, dtype=np.float64), np.shape(eta))

    def link_of(self, mu: Array) -> Array:
        """Return log p − the mean of log p, for p > 0."""
        eta = np.log(np.asarray(mu, dtype=np.float64))
        return np.asarray(eta - eta.mean(axis=-1, keepdims=True))

    def check(self, y: Array, target: str, start: int = 0) -> None:
        """Raise InputError unless every row has at least two columns, all ≥ 0, that sum to 1."""
        y = np.asarray(y)
        if y.ndim < 2 or y.shape[-1] < 2:
            raise InputError(
                f"target '{target}' has shape {y.shape}; multinomial needs one column for each of two or "
                "more classes. Code the classes as one-hot columns."
            )
        remedy = "Code the class of a row as one-hot, or divide the counts of the classes by their sum"
        refuse(~((y >= 0) & (y <= 1)), y, target, start, f"multinomial needs 0 ≤ y ≤ 1. {remedy}")
        total = y.sum(axis=-1)
        off = np.abs(total - 1.0) > SUM_TOLERANCE
        if off.any():
            at = tuple(np.argwhere(off)[0].tolist())
            raise InputError(
                f"target '{target}' has class proportions that sum to {total[at]:.6g} in row "
                f"{start + at[0] + 1:,}; multinomial needs a sum of 1. {remedy}."
            )

    def null(self, mean_y: Array) -> Array:
        """Return log of the class shares with Σₖ ηₖ = 0; a class without rows counts as a share of 1e-12."""
        return self.link_of(np.maximum(np.asarray(mean_y, dtype=np.float64), SATURATED))

    @staticmethod
    def _softmax(eta: Array, shape: tuple[int, ...]) -> Array:
        e, _ = _shifted_exp(eta, shape)
        e /= _sum(e)[..., None]
        return e


def _shifted_exp(eta: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return exp(η − max η), a new array of this shape, and max η with a last axis of 1."""
    if eta.shape[-1] > FEW:
        top = eta.max(axis=-1, keepdims=True)
    else:
        top = eta[..., :1].copy()
        for k in range(1, eta.shape[-1]):
            np.maximum(top, eta[..., k : k + 1], out=top)
    e = np.subtract(eta, top, out=np.empty(shape))
    return np.exp(e, out=e), top


def _sum(a: Array) -> Array:
    """Return the sum over the last axis; the product with ones is several times faster than `sum`."""
    return np.asarray(a @ np.ones(a.shape[-1]))
