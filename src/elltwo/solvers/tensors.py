"""Products of rows that lie on a device (a GPU): their moments, and what each would be predicted without it.

A source whose rows are tensors has `tensor_blocks()`: blocks whose X is a float64 tensor (m, p) on any
device, and whose y and weights are arrays. The products are made where X is, and only sums come to the host.
Of a tensor nothing but its own methods is used, so that no framework is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, Source
from elltwo.moments import Moments
from elltwo.problem import Problem
from elltwo.solvers.base import CHUNK, UNDETERMINED, Influence, leave_out_weight, target_slices

if TYPE_CHECKING:
    from elltwo.solvers.spectral import Spectral

Array = npt.NDArray[Any]


def on_device(source: Source) -> bool:
    """Return whether a source hands out its rows as tensors too."""
    return hasattr(source, "tensor_blocks")


def host(values: Any) -> Array:
    """Return an array as it is, and a tensor of any device as an array."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.detach().cpu().numpy())


def gather_tensors(
    problem: Problem, labels: Callable[[Any], Array] | None = None, n_atoms: int = 1
) -> list[Moments]:
    """Return the moments of each atom of rows in one pass, as `moments.gather` does for arrays.

    Each block is centred at its own means before it is squared, and merged (Chan, Golub and LeVeque, 1983).
    """
    source: Any = problem.source
    atoms: list[Moments | None] = [None] * n_atoms
    empty = None
    for block in source.tensor_blocks():
        empty = block if empty is None else empty
        for atom, rows in _by_atom(block, labels):
            w = None if block.weights is None else block.weights[rows]
            if w is None or w.any():
                new = _moments(_rows(block.X, rows), block.y[rows], w, source.counts)
                known = atoms[atom]
                atoms[atom] = new if known is None else known.merge(new)
    if empty is None:
        return []
    p, T = empty.X.shape[1], empty.y.shape[1]
    nothing = Moments.of(np.zeros((1, p)), np.zeros((1, T)), np.zeros(1))
    found = [nothing if atom is None else _on_host(atom) for atom in atoms]
    if problem.prior is None:
        return found
    return [atom.less(problem.prior_column, problem.origin) for atom in found]


def _by_atom(block: Block, labels: Callable[[Any], Array] | None) -> Iterable[tuple[int, Any]]:
    """Return the rows of each atom that a block has rows of; a negative label leaves the row out."""
    if labels is None:
        return [(0, slice(None))]
    label = labels(block)
    order = np.argsort(label, kind="stable")
    atoms, starts = np.unique(label[order], return_index=True)
    ends = [*starts.tolist(), len(label)]
    return [(int(k), order[a:b]) for k, (a, b) in zip(atoms, pairwise(ends), strict=True) if k >= 0]


def _rows(X: Any, rows: Any) -> Any:
    return X if isinstance(rows, slice) else X[rows.tolist()]


def _moments(X: Any, y: Array, w: Array | None, counts: bool) -> Moments:
    """Return moments whose arrays are tensors beside X."""
    y = X.new_tensor(y)
    if w is None:
        rows, W = len(y), float(len(y))
        x_mean, y_mean = X.mean(0), y.mean(0)
        x_mean = x_mean + (X - x_mean).mean(0)  # what rounding left in the mean of a constant column
        Z, e = X - x_mean, y - y_mean
    else:
        rows, W = int(np.count_nonzero(w)), float(w.sum())
        share, root = X.new_tensor(w / W), X.new_tensor(np.sqrt(w))[:, None]
        x_mean, y_mean = share @ X, share @ y
        x_mean = x_mean + share @ (X - x_mean)
        Z, e = (X - x_mean) * root, (y - y_mean) * root
    observations = W if counts else float(rows)
    return Moments(rows, observations, W, x_mean, y_mean, Z.T @ Z, Z.T @ e, (e * e).sum(0))


def _on_host(moments: Moments) -> Moments:
    return replace(
        moments,
        x_mean=host(moments.x_mean),
        y_mean=host(moments.y_mean),
        gram=host(moments.gram),
        cross=host(moments.cross),
        yy=host(moments.yy),
    )


def left_out(state: Spectral, problem: Problem, alphas: Array) -> Iterator[Influence]:
    """Yield what `Spectral.influence` does, as tensors where the rows are: a pass over them."""
    from_source: Any = problem.source
    shrink = state._shrink(alphas)
    A, k = shrink.shape
    share = 1.0 / state.statistic.weight if state.centre else 0.0
    step = max(16, CHUNK // max(k, A))
    fixed: tuple[Any, ...] = ()
    for block in from_source.tensor_blocks():
        if not fixed:
            x_mean, y_mean = (
                mean if state.centre else np.zeros_like(mean)
                for mean in (state.statistic.x_mean, state.statistic.y_mean)
            )
            fixed = tuple(block.X.new_tensor(a) for a in (x_mean, y_mean, state.basis, shrink, state.cross))
        x_mean, y_mean, basis, weight, cross = fixed
        y = _less_prior(problem, block)
        for start in range(0, len(block.y), step):
            part = slice(start, min(len(block.y), start + step))
            w = np.ones(part.stop - start) if block.weights is None else block.weights[part]
            coordinates = (block.X[part] - x_mean) @ basis
            leverage = (coordinates * coordinates) @ weight.T + share
            keep = 1.0 - leverage * block.X.new_tensor(leave_out_weight(problem, w))[:, None]
            keep[keep < UNDETERMINED] = np.nan
            rows = slice(block.start + part.start, block.start + part.stop)
            for targets in target_slices(y.shape[1], k * A):
                reduced = weight.T[:, :, None] * cross[:, None, targets]
                fitted = (coordinates @ reduced.reshape(k, -1)).reshape(len(w), A, -1)
                residual = (y[part, targets] - y_mean[targets])[:, None, :] - fitted
                yield Influence(rows, targets, residual, keep, block.X.new_tensor(w))


def _less_prior(problem: Problem, block: Block) -> Any:
    """Return y − (X − origin)θ₀ as a tensor beside X."""
    X: Any = block.X
    y = X.new_tensor(block.y)
    if problem.prior is None:
        return y
    return y - (X - X.new_tensor(problem.origin)) @ X.new_tensor(problem.prior_column)
