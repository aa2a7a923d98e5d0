"""Columns so small that their squares underflow: the same problem in units that float64 can square.

With x′ⱼ = uⱼxⱼ and θ′ⱼ = θⱼ/uⱼ the linear predictor is the same, and so is a penalty on standardised columns.
uⱼ is a power of two, so that nothing is rounded on the way there or back.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource, Source
from elltwo.data.memory import MemorySource
from elltwo.penalties import Diagonal, Standardized
from elltwo.problem import Problem
from elltwo.results import Fit

Array = npt.NDArray[Any]

#: Sizes of columns below which squares, and products of squares, may underflow.
TINY = 1e-100
#: Largest power of two that a column is multiplied by, so that its inverse is no subnormal number.
MOST = 1000


class OutOfReachError(Exception):
    """Columns whose squares underflow; `unit` (p,) brings them to about 1."""

    def __init__(self, unit: Array) -> None:
        super().__init__("columns whose squares underflow")
        self.unit = unit


def look_for_tiny(problem: Problem, mean: Array, scale: Array, *, unpenalised: bool) -> None:
    """Raise OutOfReachError if columns of these means and deviations (p,) are too small to be squared.

    Only those that the penalty holds by the size of their standardised coefficients, or not at all: beside a
    penalty on its own coefficient, what such a column explains is nothing, whose square may underflow.
    """
    held = np.ones(len(mean), dtype=bool)
    if unpenalised or isinstance(problem.penalty, Standardized):
        held[:] = False
    elif isinstance(problem.penalty, Diagonal):
        held = np.asarray(problem.penalty.multipliers) > 0
    tiny = np.flatnonzero(~held & (np.maximum(scale, np.abs(mean)) < TINY))
    if len(tiny) == 0:
        return
    size = _largest(problem.source, tiny)
    unit = np.ones(len(mean))
    unit[tiny] = np.where(size > 0, np.ldexp(1.0, np.minimum(-np.frexp(size)[1], MOST)), 1.0)
    if np.any(unit > 1):
        raise OutOfReachError(unit)


def _largest(source: Source, columns: Array) -> Array:
    """Return the largest magnitude in these columns, in rows of positive weight.

    Of rows that are not in memory, the first block is looked at.
    """
    X: Any = getattr(source, "X", None)
    if hasattr(X, "tocsc"):
        weights = getattr(source, "weights", None)
        rows: Any = slice(None) if weights is None else np.flatnonzero(np.asarray(weights) > 0)
        return np.asarray(abs(X[rows][:, columns]).max(axis=0).toarray()).ravel().astype(np.float64)
    size = np.zeros(len(columns))
    for block in source.blocks():
        seen: Any = slice(None) if block.weights is None else block.weights > 0
        size = np.maximum(size, np.abs(block.X[seen][:, columns]).max(axis=0, initial=0.0))
        if not source.in_memory:
            break
    return size


def scaled(problem: Problem, unit: Array) -> Problem:
    """Return the problem with its columns multiplied by `unit` (p,)."""
    source: Any
    if isinstance(problem.source, MemorySource):
        source, X = copy(problem.source), problem.source.X
        if hasattr(X, "tocsc"):
            source.X = X.astype(np.float64)
            source.X.data = source.X.data * unit[source.X.indices]
        else:
            source.X = X * unit
    else:
        source = _Scaled(problem.source, unit)
    prior = None if problem.prior is None else problem.prior / unit
    centre = None if problem.centre is None else problem.centre * unit
    return replace(problem, source=source, prior=prior, centre=centre)


def unscaled(fit: Fit, unit: Array) -> Fit:
    """Return the fit of a scaled problem as that of the problem itself."""
    path, u = fit.path, unit[:, None]

    def back(models: tuple[Array, Array]) -> tuple[Array, Array]:
        return models[0] * u, models[1]

    solve = path.solve
    return replace(
        fit,
        coef=fit.coef * u,
        feature_means=fit.feature_means / unit,
        feature_scales=fit.feature_scales / unit,
        path=replace(
            path,
            solved=None if path.solved is None else back(path.solved),
            solve=None if solve is None else lambda alphas: back(solve(alphas)),
        ),
    )


class _Scaled(BlockwiseSource):
    """A source whose columns are multiplied by a unit, block by block."""

    def __init__(self, source: Any, unit: Array) -> None:
        self._source, self._unit = source, unit

    def __getattr__(self, name: str) -> Any:
        if name == "tensor_blocks" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._source, name)

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows, multiplied."""
        for block in self._source.blocks():
            yield replace(block, X=block.X * self._unit)
