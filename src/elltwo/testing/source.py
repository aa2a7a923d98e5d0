"""Conformance of a source."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, Source
from elltwo.testing.comparing import equal, require

Array = npt.NDArray[Any]


def check_source(source: Source, X: Any = None, y: Any = None, weights: Any = None) -> None:
    """Check that a source keeps the contract of `elltwo.data.base.Source`.

    Blocks follow each other without gap, have the announced columns, are the same in every pass (also in
    one that is nested in another), and stay as they are once handed out; `fold`, `map`, `keys` and
    `n_rows` agree with them.

    Parameters
    ----------
    source : Source
        The source; it is read several times.
    X, y, weights : arrays, shapes (n, p), (n, T) and (n,), optional
        What the source holds, if that is known, to compare the blocks with.

    Raises
    ------
    AssertionError
        Naming what the source does otherwise.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> check_source(MemorySource([[1, 2], [3, 4]], [5, 6]), X=[[1, 2], [3, 4]], y=[[5], [6]])
    """
    parts = [*Source.__annotations__, "blocks", "keys", "fold", "map"]
    missing = [name for name in parts if not hasattr(source, name)]
    require(not missing, f"The source lacks {', '.join(missing)}.")
    _check_columns(source)
    handed_out, kept = [], []
    for block in source.blocks():
        handed_out.append(block)
        kept.append(_copy(block))
    require(kept, "blocks() yields no block; a source has at least one row.")
    _check_blocks(source, kept)
    _check_passes(source, handed_out, kept)
    _check_fold_and_map(source, kept)
    n = kept[-1].stop
    require(source.n_rows in (None, n), f"n_rows is {source.n_rows}, but the blocks have {n} rows.")
    _check_keys(source, n)
    for name, want in (("X", X), ("y", y), ("weights", weights)):
        if want is not None:
            parts = [getattr(block, name) for block in kept]
            require(parts[0] is not None, f"{name} is None in the blocks.")
            equal(f"{name} of all blocks", np.concatenate(parts), np.asarray(want, dtype=np.float64))


def _check_columns(source: Source) -> None:
    for count, names in (("n_features", "feature_names"), ("n_targets", "target_names")):
        number, given = getattr(source, count), getattr(source, names)
        require(
            isinstance(number, int) and number > 0, f"{count} must be a positive integer; it is {number!r}."
        )
        good = isinstance(given, tuple) and all(isinstance(name, str) for name in given)
        require(good, f"{names} is {given!r}; it must be a tuple of str.")
        require(len(given) == number, f"{names} has {len(given)} names, but {count} is {number}.")
    for flag in ("counts", "weighted", "in_memory"):
        require(isinstance(getattr(source, flag), bool), f"{flag} must be True or False.")


def _copy(block: Block) -> Block:
    require(isinstance(block, Block), f"blocks() yields {type(block).__name__}; it must yield Block.")
    weights = None if block.weights is None else np.array(block.weights)
    return Block(np.array(block.X), np.array(block.y), weights, block.start)


def _check_blocks(source: Source, blocks: list[Block]) -> None:
    position = 0
    for index, block in enumerate(blocks):
        here, m = f"block {index}", len(block.y)
        require(block.start == position, f"{here} starts at row {block.start}; {position} comes next.")
        require(m > 0, f"{here} has no rows; leave empty blocks out.")
        for name, array, columns in (("X", block.X, source.n_features), ("y", block.y, source.n_targets)):
            shape = f"{here}: {name} has shape {array.shape}; it must have {(m, columns)}."
            require(array.shape == (m, columns), shape)
        require(block.X.dtype in (np.float64, np.float32), f"{here}: X is {block.X.dtype}, not a float.")
        require(block.y.dtype == np.float64, f"{here}: y is {block.y.dtype}; it must be float64.")
        _check_weights(source, block, here)
        position = block.stop
    if blocks[0].weights is not None:
        total = sum(float(block.weights.sum()) for block in blocks if block.weights is not None)
        require(total > 0, "all weights are zero; the source must refuse such rows.")


def _check_weights(source: Source, block: Block, here: str) -> None:
    w = block.weights
    given = "None" if w is None else "given"
    require(
        (w is not None) == source.weighted, f"{here}: weighted is {source.weighted}, but weights are {given}."
    )
    require(source.weighted or not source.counts, "counts is True, but weighted is False.")
    if w is None:
        return
    good = w.shape == (len(block.y),) and w.dtype == np.float64
    require(good, f"{here}: weights must be float64 of shape (m,); they are {w.dtype} of shape {w.shape}.")
    require(np.isfinite(w).all() and (w >= 0).all(), f"{here}: weights must be finite and not negative.")
    require(not source.counts or (w == np.floor(w)).all(), f"{here}: counts must be whole numbers.")


def _check_passes(source: Source, handed_out: list[Block], kept: list[Block]) -> None:
    for block, copy in zip(handed_out, kept, strict=True):
        _same_block("a block changed after it was handed out (a buffer is used again?)", block, copy)
    seen = 0
    for block in source.blocks():
        seen += 1
        require(seen <= len(kept), f"a second pass has more than the first one's {len(kept)} blocks.")
        _same_block("a second pass differs", block, kept[seen - 1])
        _same_block("a pass begun inside another differs", next(source.blocks()), kept[0])
    require(seen == len(kept), f"a second pass ends after {seen} of {len(kept)} blocks.")


def _same_block(what: str, found: Block, want: Block) -> None:
    for name in ("start", "X", "y", "weights"):
        equal(f"{what}: {name} of the block at row {want.start}", getattr(found, name), getattr(want, name))


def _check_fold_and_map(source: Source, kept: list[Block]) -> None:
    # Joining lists is associative but not commutative: it shows the order, and that no block is left out.
    joined: list[Any] = source.fold(lambda block: [np.array(block.X)], operator.add)
    require(len(joined) == len(kept), f"fold sees {len(joined)} blocks; blocks() yields {len(kept)}.")
    mapped = list(source.map(lambda block: np.array(block.y)))
    require(len(mapped) == len(kept), f"map yields {len(mapped)} arrays for {len(kept)} blocks.")
    for block, X, y in zip(kept, joined, mapped, strict=True):
        equal(f"fold: X of the block at row {block.start}", X, block.X)
        equal(f"map: y of the block at row {block.start}", y, block.y)


def _check_keys(source: Source, n: int) -> None:
    keys = source.keys()
    if keys is None:
        return
    require(np.shape(keys) == (n,), f"keys() has shape {np.shape(keys)}; it must be ({n},): one per row.")
    require(keys.dtype.kind != "f" or not np.isnan(keys).any(), "keys() has NaN; every row needs a value.")
    equal("keys() called again", source.keys(), keys)
