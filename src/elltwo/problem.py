"""The objective, and the one place that checks whether its parts fit together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, Source
from elltwo.errors import InputError
from elltwo.losses import Gaussian
from elltwo.penalties import Diagonal, Identity, Penalty, QuadraticForm, Standardized

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """Minimise Σ wᵢ·½(yᵢ − b − xᵢᵀθ)² + (α/2)(θ − θ₀)ᵀP(θ − θ₀) over θ and, if wanted, b.

    Attributes
    ----------
    source : Source
    penalty : Penalty
    prior : array, shape (p,), or None
        θ₀; None stands for 0.
    fit_intercept : bool
        Whether b is free (never penalised) or 0.
    loss : Gaussian
    centre : array, shape (p,), or None
        The origin; None stands for the means of the first rows.
    """

    source: Source
    penalty: Penalty = field(default_factory=Identity)
    prior: Array | None = None
    fit_intercept: bool = True
    loss: Gaussian = field(default_factory=Gaussian)
    centre: Array | None = None

    def __post_init__(self) -> None:
        p = self.source.n_features
        self.penalty.check(p)
        if self.prior is not None:
            if self.prior.shape != (p,):
                raise InputError(f"prior has shape {self.prior.shape} for {p} features; it must be ({p},).")
            if not np.isfinite(self.prior).all():
                raise InputError("prior must be finite.")

    @property
    def prior_column(self) -> Array:
        """θ₀ as a column, shape (p, 1)."""
        return np.zeros((self.source.n_features, 1)) if self.prior is None else self.prior[:, None]

    @cached_property
    def origin(self) -> Array:
        """Point near the rows, shape (p,): taken off X before Xθ₀, so that large means cost no digits."""
        if self.centre is not None:
            return self.centre
        first = (
            next(self.source.blocks()).X[:4096]
            if self.fit_intercept
            else np.zeros((1, self.source.n_features))
        )
        return np.asarray(first.mean(axis=0))

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows with y − (X − origin)θ₀ in place of y, so that the rest shrinks towards 0."""
        for block in self.source.blocks():
            if self.prior is None:
                yield block
            else:
                yield replace(block, y=block.y - (block.X - self.origin) @ self.prior_column)

    def restore(self, coef: Array, intercept: Array) -> tuple[Array, Array]:
        """Return (θ, b) for y from those for y − (X − origin)θ₀; shapes (…, p, T) and (…, T)."""
        if self.prior is None:
            return coef, intercept
        return coef + self.prior_column, intercept - self.origin @ self.prior_column

    def reduce(self, coef: Array, intercept: Array) -> tuple[Array, Array]:
        """Undo `restore`."""
        if self.prior is None:
            return coef, intercept
        return coef - self.prior_column, intercept + self.origin @ self.prior_column

    def form(self, scales: Array) -> QuadraticForm:
        """Return the penalty matrix for columns of these standard deviations."""
        return self.penalty.form(scales)

    def objective(self) -> str:
        """Return the minimised objective in words."""
        standardized = isinstance(self.penalty, Standardized)
        shape = self.penalty.base if isinstance(self.penalty, Standardized) else self.penalty
        what = "coefficients" if self.prior is None else "(coefficients - prior)"
        what = f"standardised {what}" if standardized else what
        if isinstance(shape, Identity):
            term = f"sum of squared {what}"
        else:
            kind = "multipliers" if isinstance(shape, Diagonal) else "matrix"
            term = f"the penalty {kind}'s quadratic form in the {what}"
        errors = (
            "sum of squared errors" if self.source.weighted is False else "weighted sum of squared errors"
        )
        rest = "intercept not penalised" if self.fit_intercept else "no intercept"
        return f"{errors} + alpha * {term}; {rest}"
