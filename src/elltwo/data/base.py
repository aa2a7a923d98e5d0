"""The Source contract: where rows live, and where code runs over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, name_some

Array = npt.NDArray[Any]
S = TypeVar("S")


@dataclass(frozen=True)
class Block:
    """Some consecutive rows of a source.

    Attributes
    ----------
    X : array, shape (m, p)
        Features, float64 or float32, C or Fortran order; never written to by a reader.
    y : array, shape (m, T), float64
        Targets.
    weights : array, shape (m,), float64, or None
        Row weights; None means that every row has weight 1.
    start : int
        Position of the block's first row among the rows of the source.
    offset : array, shape (m, T), float64, or None
        Known part of η for each row and target.
    """

    X: Array
    y: Array
    weights: Array | None
    start: int
    offset: Array | None = None

    @property
    def stop(self) -> int:
        """Position just after the block's last row."""
        return self.start + len(self.y)


@runtime_checkable
class Source(Protocol):
    """Rows that can be read again and again, block by block, in the same order.

    Attributes
    ----------
    n_rows : int or None
        Number of rows, or None while it is not known without reading them.
    n_features, n_targets : int
        p and T.
    feature_names, target_names : tuple of str
        Names of the columns.
    counts : bool
        True when the weights are frequencies: a row of weight 3 stands for three observations. False: a
        weight is a precision, and each row is one observation.
    weighted : bool
        Whether the rows have weights.
    in_memory : bool
        True when another pass over the rows costs only memory traffic.
    """

    n_rows: int | None
    n_features: int
    n_targets: int
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    counts: bool
    weighted: bool
    in_memory: bool

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows from the first to the last."""
        ...

    def keys(self) -> Array | None:
        """Return the group or time value of every row, shape (n,), or None without such a column."""
        ...

    def why_not_finite(self) -> InputError:
        """Return the error that names the columns with NaN or inf, once a pass has met with some."""
        ...

    def fold(self, statistic: Callable[[Block], S], merge: Callable[[S, S], S]) -> S:
        """Return merge(…merge(statistic(b₁), statistic(b₂))…) over all blocks."""
        ...

    def map(self, function: Callable[[Block], Array]) -> Iterator[Array]:
        """Yield function(block) for each block in row order."""
        ...


class BlockwiseSource:
    """What any source can do that runs code here, one block after the other."""

    feature_names: tuple[str, ...]
    #: Whether all weights are whole and some above 1, as frequencies are; known after a pass over the rows.
    whole_weights: bool = False

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows from the first to the last."""
        raise NotImplementedError

    def why_not_finite(self) -> InputError:
        """Return the error that names the columns with NaN or inf, or says that squares overflow."""
        bad = np.zeros(len(self.feature_names), dtype=np.int64)
        for block in self.blocks():
            bad += np.count_nonzero(~np.isfinite(block.X), axis=0)
        columns = np.flatnonzero(bad)
        if len(columns) == 0:
            return InputError(
                "X or y holds values so large that their squares overflow; rescale the columns."
            )
        names = name_some([self.feature_names[j] for j in columns])
        return InputError(
            f"X contains NaN or infinity: {int(bad.sum())} value(s) in column(s) {names}. "
            "Impute or drop them first; for tables, elltwo.fit(…, missing='mean' or 'drop') does it."
        )

    def fold(self, statistic: Callable[[Block], S], merge: Callable[[S, S], S]) -> S:
        """Return the merged statistic of all blocks."""
        blocks = self.blocks()
        total = statistic(next(blocks))
        for block in blocks:
            total = merge(total, statistic(block))
        return total

    def map(self, function: Callable[[Block], Array]) -> Iterator[Array]:
        """Yield function(block) for each block in row order."""
        return map(function, self.blocks())
