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
from elltwo.losses import FAMILIES, Gaussian, Loss
from elltwo.penalties import Diagonal, Identity, Penalty, QuadraticForm, Standardized

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """Minimise Σ wᵢ·½dev(yᵢ, ηᵢ) + (α/2)(θ − θ₀)ᵀP(θ − θ₀), ηᵢ = b + xᵢᵀθ + oᵢ, over θ and, if wanted, b.

    Attributes
    ----------
    source : Source
    penalty : Penalty
    prior : array, shape (p,), or None
        θ₀; None stands for 0.
    fit_intercept : bool
        Whether b is free (never penalised) or 0.
    loss : Loss
        Half the unit deviance.
    centre : array, shape (p,), or None
        The origin; None stands for the means of the first rows.
    """

    source: Source
    penalty: Penalty = field(default_factory=Identity)
    prior: Array | None = None
    fit_intercept: bool = True
    loss: Loss = field(default_factory=Gaussian)
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
        """Iterate over the rows, (X − origin)θ₀ part of the offset, so that the rest shrinks towards 0.

        For squared error an offset o means that y − o is fitted, and y − o is what the block then holds.
        """
        for block in self.source.blocks():
            offset = block.offset
            if self.prior is not None:
                own = (block.X - self.origin) @ self.prior_column
                offset = own if offset is None else offset + own
            if offset is None:
                yield block
            elif self.squared:
                yield replace(block, y=block.y - offset, offset=None)
            else:
                yield replace(block, offset=np.broadcast_to(offset, block.y.shape))

    @property
    def squared(self) -> bool:
        """Whether the loss is squared error, for which moments hold all there is to know."""
        return isinstance(self.loss, Gaussian)

    @property
    def n_scores(self) -> int:
        """Deviances that can be told apart: one per target, or one in all if the targets are classes."""
        return 1 if self.loss.coupled else self.source.n_targets

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
        kind = "deviance" if self.loss.name in FAMILIES else "loss"
        errors = "sum of squared errors" if self.squared else f"{self.loss.name} {kind}"
        errors = f"weighted {errors}" if self.source.weighted else errors
        rest = "intercept not penalised" if self.fit_intercept else "no intercept"
        return f"{errors} + alpha * {term}; {rest}"
