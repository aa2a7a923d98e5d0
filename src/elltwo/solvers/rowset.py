"""Rows as a statistic by name: which atoms of the rows belong to a training or a test set.

A loss other than squared error has no moments that hold all there is to know, so a set of rows is a set of
labels, and what a solver needs of the rows it reads in a pass. Means and variances come along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import on_cores, one_blas_thread, own_threads
from elltwo.data.base import Block
from elltwo.data.memory import MemorySource
from elltwo.margins import Margins
from elltwo.problem import Problem

Array = npt.NDArray[Any]

#: Elements of X and η together in a chunk of rows: few enough for a core's cache, and enough that threads do
#: not wait for each other between them.
CHUNK = 1 << 17
#: Features from which BLAS's own threads are worth having in an iteration.
MANY_FEATURES = 1500
#: Elements of X below which one core is enough.
SMALL = 1 << 18
#: Chunks of a sample, at least, so that it sees rows from everywhere.
SAMPLE_CHUNKS = 32
#: Groups of chunks that are summed apart, whatever the number of cores, so that sums do not depend on it.
GROUPS = 8


@dataclass(frozen=True)
class Chunk:
    """Some rows: features (m, p), targets (m, T), weights (m,), offset (m, T) or None, atoms (m,) or None.

    `even` says that all weights are 1.
    """

    X: Array
    y: Array
    w: Array
    offset: Array | None
    label: Array | None
    start: int
    even: bool

    def training(self, member: Array) -> Array:
        """Return the weights (m,), 0 for rows of atoms that are no members (n_atoms + 1,)."""
        return self.w if self.label is None else self.w * member[self.label]

    def eta(self, theta: Array, intercept: Array, target: Array) -> Array:
        """Return b + Xθ + offset for columns θ (p, C) and b (C,) of these targets (C,), shape (m, C)."""
        eta = self.X @ theta
        eta += intercept
        if self.offset is not None:
            eta += self.offset[:, target]
        return eta


@dataclass(frozen=True, eq=False)
class Book:
    """Where the rows are, and which atom each belongs to.

    Attributes
    ----------
    problem : Problem
    labels : callable block -> int array (m,), or None
        The atom of each row; None: all rows are atom 0.
    n_atoms : int
    """

    problem: Problem
    labels: Callable[[Any], Array] | None
    n_atoms: int

    def label(self, block: Any) -> Array | None:
        """Return the atom of each row of a block, None if all rows are atom 0."""
        return None if self.labels is None else self.labels(block)

    def groups(self, width: int, rows: int | None = None) -> Iterator[list[list[Chunk]]]:
        """Yield, block by block, groups of chunks of about CHUNK/width rows; a group is work for one core.

        With `rows`, only every k-th chunk, so that about so many rows are seen if all rows are many more.
        """
        step = max(64, CHUNK // max(1, width))
        if rows is not None:
            step = min(step, max(64, rows // SAMPLE_CHUNKS))
        n = self.problem.source.n_rows
        every = 1 if rows is None or n is None else max(1, n // rows)
        for block in self.problem.blocks():
            label = self.label(block)
            cuts = range(0, len(block.y), step)
            chunks = [_cut(block, label, i, step) for i in cuts[:: min(every, max(1, len(cuts) // GROUPS))]]
            size = -(-len(chunks) // GROUPS)
            yield [chunks[i : i + size] for i in range(0, len(chunks), size)]

    def cores(self) -> AbstractContextManager[None]:
        """Return the context of a pass: on all cores, unless the rows are so few that one is done sooner."""
        return one_blas_thread() if self.small else own_threads()

    @property
    def small(self) -> bool:
        """Whether one core is enough."""
        source = self.problem.source
        return source.n_rows is not None and source.n_rows * source.n_features < SMALL

    def calm(self) -> AbstractContextManager[None]:
        """Return the context of a whole iteration, in which passes and factorisations take turns.

        BLAS's own threads keep their cores busy for a while after each product, at the cost of the passes;
        only for factorisations of large matrices are they worth that.
        """
        import scipy.linalg  # noqa: F401 - whose BLAS is another one, and has to be still as well

        return nullcontext() if self.problem.source.n_features > MANY_FEATURES else self.cores()

    def total(self, function: Callable[[list[Chunk]], Any], width: int, rows: int | None = None) -> Any:
        """Return the sum over all groups of `function(group)`, a tuple of arrays; groups run on all cores.

        With `rows`, over a sample of about so many rows.
        """
        total: list[Any] | None = None
        with self.cores():
            for groups in self.groups(width, rows):
                for part in on_cores(function, groups):
                    if total is None:
                        total = list(part)
                    else:
                        for kept, more in zip(total, part, strict=True):
                            kept += more
        return total


@lru_cache(maxsize=4)
def _ones(m: int) -> Array:
    """Return the weights of m rows without weights; chunks of the same length share them."""
    ones = np.ones(m)
    ones.flags.writeable = False
    return ones


def _cut(block: Block, label: Array | None, start: int, step: int) -> Chunk:
    rows = slice(start, start + step)
    y = block.y[rows]
    w = _ones(len(y)) if block.weights is None else block.weights[rows]
    offset = None if block.offset is None else block.offset[rows]
    own = None if label is None else label[rows]
    return Chunk(block.X[rows], y, w, offset, own, block.start + start, block.weights is None)


@dataclass(frozen=True, eq=False)
class RowSet:
    """The rows of some atoms, with the means and variances of their columns."""

    book: Book
    atoms: tuple[int, ...]
    margins: Margins

    def merge(self, other: RowSet) -> RowSet:
        """Return the rows of both."""
        return RowSet(self.book, self.atoms + other.atoms, self.margins.merge(other.margins))

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return self.margins.rows

    @property
    def observations(self) -> float:
        """Σw for frequencies, else `rows`."""
        return self.margins.observations

    @property
    def weight(self) -> float:
        """Σw."""
        return self.margins.weight

    @property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return self.margins.x_mean

    @property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return self.margins.y_mean

    @property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features."""
        return self.margins.x_scale

    @property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return self.margins.y_scale

    @property
    def member(self) -> Array:
        """Whether each atom belongs, shape (n_atoms + 1,); the last, label −1, belongs nowhere."""
        inside = np.zeros(self.book.n_atoms + 1, dtype=bool)
        inside[list(self.atoms)] = True
        return inside

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ w·dev(y, b + Xθ + o) for θ (A, p, T), b (A, T): (A, T), or (A, 1) for classes."""
        (A, p, T), loss = coef.shape, self.book.problem.loss
        theta, b = coef.swapaxes(0, 1).reshape(p, A * T), intercept.reshape(A * T)
        target = np.tile(np.arange(T), A)
        member = self.member

        def part(group: list[Chunk]) -> tuple[Array]:
            total = np.zeros((A, self.book.problem.n_scores))
            for chunk in group:
                mine = self._own(chunk, member)
                if mine is not None:
                    eta = mine.eta(theta, b, target).reshape(-1, A, T)
                    value = loss.value(mine.y[:, None, :], eta)
                    value = value[:, :, None] if loss.coupled else value
                    total += 2 * np.einsum("i,ias->as", mine.w, value)
            return (total,)

        found = self.book.total(part, p + A * T)
        return np.asarray(found[0])

    def sampled(self, rows: int) -> Book:
        """Return about so many of these rows, in memory, the prior in their offset."""
        problem = self.book.problem
        groups = (group for part in self.book.groups(problem.source.n_features, rows) for group in part)
        few = self._joined(chunk for group in groups for chunk in group)
        source = MemorySource(few.X, few.y, None if few.even else few.w, offset=few.offset)
        return Book(Problem(source, problem.penalty, None, problem.fit_intercept, problem.loss), None, 1)

    def collected(self) -> Chunk:
        """Return all of these rows, in their order; where they are one block, as they lie in memory."""
        blocks = ((block, self.book.label(block)) for block in self.book.problem.blocks())
        return self._joined(_cut(block, label, 0, len(block.y)) for block, label in blocks)

    @property
    def kept(self) -> Array:
        """Whether each row of the source belongs to these, shape (n,)."""
        whole = np.zeros(1, dtype=int)
        labels = ((block, self.book.label(block)) for block in self.book.problem.blocks())
        each = (np.broadcast_to(whole, len(b.y)) if label is None else label for b, label in labels)
        return np.asarray(self.member[np.concatenate(list(each))])

    def _joined(self, chunks: Iterable[Chunk]) -> Chunk:
        """Return those rows of the chunks that belong to this set as one chunk."""
        member = self.member
        parts = [own for chunk in chunks if (own := self._own(chunk, member)) is not None]
        if len(parts) == 1:
            return parts[0]
        X, y, w = (np.concatenate(each) for each in zip(*((c.X, c.y, c.w) for c in parts), strict=True))
        known = [c.offset for c in parts if c.offset is not None]
        offset = np.concatenate(known) if known else None
        return Chunk(X, y, w, offset, None, 0, all(c.even for c in parts))

    def _own(self, chunk: Chunk, member: Array) -> Chunk | None:
        """Return the chunk's rows that belong to this set, None if there are none."""
        if chunk.label is None:
            return chunk
        inside = member[chunk.label]
        if not inside.any():
            return None
        if inside.all():
            return chunk
        offset = None if chunk.offset is None else chunk.offset[inside]
        w = chunk.w[inside]
        return Chunk(chunk.X[inside], chunk.y[inside], w, offset, None, chunk.start, chunk.even)


def gather_rowsets(problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[RowSet]:
    """Return the set of rows of each atom."""
    book = Book(problem, labels, n_atoms)
    p, T, counts = problem.source.n_features, problem.source.n_targets, problem.source.counts
    nothing = Margins.of(np.zeros((0, p)), np.zeros((0, T)), counts=counts)

    def part(group: list[Chunk]) -> list[Margins]:
        found = [nothing] * n_atoms
        for chunk in group:
            atoms = np.zeros(1, dtype=int) if chunk.label is None else np.unique(chunk.label)
            for k in atoms[atoms >= 0]:
                rows = slice(None) if len(atoms) == 1 else chunk.label == k
                w = None if chunk.even else chunk.w[rows]
                found[k] = found[k].merge(Margins.of(chunk.X[rows], chunk.y[rows], w, counts=counts))
        return found

    with book.cores():
        every = [found for groups in book.groups(p) for found in on_cores(part, groups)]
    merged = [reduce(Margins.merge, of_atom) for of_atom in zip(*every, strict=True)]
    return [RowSet(book, (k,), margins) for k, margins in enumerate(merged)]
