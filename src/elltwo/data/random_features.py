"""Features computed from rows block by block, and random Fourier features of shift-invariant kernels.

A kernel k(x − z) is the Fourier transform of a probability density, so that with ω drawn from it

    k(x − z) = E cos ωᵀ(x − z) ≈ φ(x)ᵀφ(z),   φ(x) = √(2/D)·[cos ωⱼᵀx, sin ωⱼᵀx]   (D/2 frequencies)

Rahimi and Recht (2007), "Random features for large-scale kernel machines"; with cosine and sine of each
frequency the error is smaller than with a random phase (Sutherland and Schneider, 2015). Directions of
frequencies of isotropic kernels are orthogonal in groups of p, which makes it smaller still (Yu et al.,
2016, "Orthogonal random features").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource, Source
from elltwo.errors import InputError, did_you_mean

Array = npt.NDArray[Any]

#: Elements of a block of features: 32 MiB.
BLOCK = 1 << 22
#: Features of all rows that may be computed again and again, in elements.
CHEAP = 1 << 24
#: Kernels whose spectral density is known here.
FOURIER_KERNELS = ("rbf", "matern", "laplacian")


class MappedSource(BlockwiseSource):
    """The rows of a source with features φ(x) in place of x, computed when a block is read.

    Parameters
    ----------
    source : Source
    function : callable (m, p) -> (m, D)
        Row by row: what it makes of a row does not depend on the others.
    names : sequence of str
        Names of the D features.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> rows = MemorySource([[1.0], [2.0]], [0, 1])
    >>> source = MappedSource(rows, lambda X: np.hstack([X, X**2]), ["x", "x2"])
    >>> next(source.blocks()).X
    array([[1., 1.],
           [2., 4.]])
    """

    def __init__(self, source: Source, function: Callable[[Array], Array], names: Any) -> None:
        self.base, self.function = source, function
        self.feature_names = tuple(names)
        self.n_features = len(self.feature_names)
        self.n_rows, self.n_targets = source.n_rows, source.n_targets
        self.target_names, self.counts, self.weighted = source.target_names, source.counts, source.weighted
        self.in_memory = (
            source.in_memory and source.n_rows is not None and source.n_rows * self.n_features <= CHEAP
        )

    @property
    def whole_weights(self) -> bool:  # type: ignore[override]
        """Whether the weights look like frequencies."""
        return bool(getattr(self.base, "whole_weights", False))

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows from the first to the last."""
        step = max(16, BLOCK // self.n_features)
        for block in self.base.blocks():
            for i in range(0, len(block.y), step):
                part = slice(i, min(len(block.y), i + step))
                yield replace(
                    block,
                    X=self.function(np.asarray(block.X[part], dtype=np.float64)),
                    y=block.y[part],
                    weights=None if block.weights is None else block.weights[part],
                    start=block.start + i,
                    **({} if block.offset is None else {"offset": block.offset[part]}),
                )

    def keys(self) -> Array | None:
        """Return the group or time value of every row."""
        return self.base.keys()

    def why_not_finite(self) -> InputError:
        """Return the error of the source underneath: its columns are those that the user knows."""
        return self.base.why_not_finite()


@dataclass(frozen=True, eq=False)
class FourierMap:
    """φ(x) = √(2/D)·[cos ωⱼᵀx, sin ωⱼᵀx] for fixed frequencies.

    Attributes
    ----------
    frequencies : array, shape (p, D/2)
    """

    frequencies: Array

    @classmethod
    def draw(
        cls, kernel: str, n_inputs: int, n_features: int, rng: np.random.Generator, **parameters: float
    ) -> Self:
        """Draw the frequencies of a kernel for rows of `n_inputs` numbers.

        Parameters
        ----------
        kernel : str
            "rbf", "matern" or "laplacian".
        n_inputs, n_features : int
            p, and D, which must be even.
        rng : numpy.random.Generator
            Source of the random numbers.
        **parameters
            gamma (rbf, laplacian), or length_scale and nu (matern), positive numbers.

        Raises
        ------
        InputError
            For another kernel, or an odd number of features.

        Examples
        --------
        >>> X = np.array([[0.0, 1.0], [1.0, 1.0]])
        >>> map = FourierMap.draw("rbf", 2, 20_000, np.random.default_rng(0), gamma=0.5)
        >>> float(np.round(map(X)[0] @ map(X)[1], 2)), round(float(np.exp(-0.5)), 2)
        (0.61, 0.61)
        """
        if kernel not in FOURIER_KERNELS:
            raise InputError(
                f"random Fourier features exist for {', '.join(FOURIER_KERNELS)}, not for {kernel!r}."
                f"{did_you_mean(str(kernel), FOURIER_KERNELS)} Other kernels: KernelRidge(solver='nystrom')."
            )
        if isinstance(n_features, bool) or not isinstance(n_features, (int, np.integer)) or n_features < 2:
            raise InputError(f"n_features must be an even whole number of at least 2; got {n_features!r}.")
        if n_features % 2:
            raise InputError(
                f"n_features must be even, a cosine and a sine for each frequency; got {n_features}. "
                f"Use {n_features + 1}."
            )
        p, count = n_inputs, n_features // 2
        if kernel == "laplacian":
            return cls(parameters["gamma"] * rng.standard_cauchy((p, count)))
        length = np.sqrt(rng.chisquare(p, count))
        if kernel == "rbf":
            length *= np.sqrt(2 * parameters["gamma"])
        else:  # a multivariate t distribution with 2ν degrees of freedom
            nu = parameters["nu"]
            length *= np.sqrt(2 * nu / rng.chisquare(2 * nu, count)) / parameters["length_scale"]
        return cls(_directions(p, count, rng) * length)

    def __call__(self, X: Array) -> Array:
        """Return φ(x) for rows X (m, p), shape (m, D)."""
        half = self.frequencies.shape[1]
        out = np.empty((len(X), 2 * half))
        angle = np.asarray(X, dtype=np.float64) @ self.frequencies
        np.cos(angle, out=out[:, :half])
        np.sin(angle, out=out[:, half:])
        out *= np.sqrt(1 / half)
        return out

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        half = range(self.frequencies.shape[1])
        return (*(f"cos{j}" for j in half), *(f"sin{j}" for j in half))

    def source(self, source: Source) -> MappedSource:
        """Return a source with these features in place of its own, for any solver that streams.

        Examples
        --------
        >>> from elltwo.data.memory import MemorySource
        >>> from elltwo.engine import fit_source
        >>> X = np.linspace(0, 6, 200)[:, None]
        >>> map = FourierMap.draw("rbf", 1, 40, np.random.default_rng(0), gamma=1.0)
        >>> fit = fit_source(map.source(MemorySource(X, np.sin(X))), 1e-6)
        >>> bool(fit.r2 > 0.9999)
        True
        """
        return MappedSource(source, self, self.names)


def _directions(p: int, count: int, rng: np.random.Generator) -> Array:
    """Return unit vectors (p, count), uniform on the sphere and orthogonal in groups of p."""
    groups = []
    for _ in range(0, count, p):
        Q, R = np.linalg.qr(rng.standard_normal((p, p)))
        groups.append(Q * np.sign(R.diagonal()))
    return np.hstack(groups)[:, :count]
