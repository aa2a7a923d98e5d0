"""Models to be solved together, one per column of a matrix, and the pass that measures their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.penalties import QuadraticForm
from elltwo.solvers.rowset import Book, Chunk

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Columns:
    """Models to be solved, one per column: α, target, and which atoms each is trained on.

    Attributes
    ----------
    alpha, target : arrays, shape (C,)
    member : array of bool, shape (n_atoms + 1, C)
    weight : array, shape (C,)
        Σw of the training rows.
    forms : sequence of QuadraticForm, one per column
    size : array, shape (p + 1, C)
        What a relative gradient is relative to: ‖z_j‖·‖ℓ'‖ at the null model, and √W·‖ℓ'‖ for b.
    mean : array, shape (p, C)
        Means of the features in the training rows.
    constant : array of bool, shape (p, C)
        The features whose coefficients are 0, see `constant_columns`.
    group : int
        Columns that are one model: the classes of a coupled loss, else 1. They follow each other.
    """

    alpha: Array
    target: Array
    member: Array
    weight: Array
    forms: Sequence[QuadraticForm]
    size: Array
    mean: Array
    constant: Array
    group: int = 1

    def of(self, models: Array) -> Array:
        """Return the columns of these models."""
        return np.asarray((models[:, None] * self.group + np.arange(self.group)).reshape(-1))

    def take(self, which: Array) -> Columns:
        """Return some of the columns."""
        return Columns(
            self.alpha[which],
            self.target[which],
            self.member[:, which],
            self.weight[which],
            [self.forms[c] for c in which],
            self.size[:, which],
            self.mean[:, which],
            self.constant[:, which],
            self.group,
        )

    def pull(self, theta: Array) -> Array:
        """Return αPθ for each column, shape (p, C)."""
        result = np.empty_like(theta)
        for form, inside in _by_form(self.forms):
            result[:, inside] = self.alpha[inside] * form.apply(theta[:, inside])
        return result


def _by_form(forms: Sequence[QuadraticForm]) -> list[tuple[QuadraticForm, Array]]:
    """Return each distinct form with the columns that it belongs to."""
    distinct = {id(form): form for form in forms}
    ids = np.array([id(form) for form in forms])
    return [(form, np.flatnonzero(ids == key)) for key, form in distinct.items()]


def gradients(book: Book, columns: Columns, theta: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return Σ wℓ'x (p, C), Σ wℓ' (C,) and Σ wℓ'² (C,) over each column's training rows, in one pass."""
    loss, C = book.problem.loss, len(columns.alpha)
    one_target = book.problem.source.n_targets == 1
    everyone = bool(columns.member[:-1].all())
    member = None if everyone else columns.member.astype(np.float64)

    def part(group: list[Chunk]) -> tuple[Array, Array, Array]:
        g, gb, squares = np.zeros((C, len(theta))), np.zeros(C), np.zeros(C)
        for chunk in group:
            eta = chunk.eta(theta, b, columns.target)
            if loss.coupled:
                classes = eta.reshape(len(eta), -1, columns.group)
                slope = loss.gradient(chunk.y[:, None, :], classes).reshape(eta.shape)
            else:
                slope = loss.gradient(chunk.y if one_target else chunk.y[:, columns.target], eta)
            weighted = _weighted(slope, chunk, member)
            g += weighted.T @ chunk.X
            gb += weighted.sum(axis=0)
            squares += np.einsum("ic,ic->c", weighted, slope)
        return g, gb, squares

    g, gb, squares = book.total(part, len(theta) + C)
    return g.T, gb, squares


def _weighted(slope: Array, chunk: Chunk, member: Array | None) -> Array:
    """Return w·ℓ' (m, C); rows that do not train a column are 0 in both, in place."""
    if member is not None:
        assert chunk.label is not None
        slope *= member[chunk.label]
    return slope if chunk.even else slope * chunk.w[:, None]


def objectives(book: Book, columns: Columns, theta: Array, b: Array) -> Array:
    """Return Σ w·½dev + (α/2)θᵀPθ for each column (C,); of a coupled loss, its columns' sum."""
    loss, C = book.problem.loss, len(columns.alpha)
    everyone = bool(columns.member[:-1].all())

    def part(group: list[Chunk]) -> tuple[Array]:
        total = np.zeros(C)
        for chunk in group:
            eta = chunk.eta(theta, b, columns.target)
            w = np.broadcast_to(chunk.w[:, None], eta.shape)
            if not everyone:
                assert chunk.label is not None
                w = w * columns.member[chunk.label]
            if loss.coupled:
                value = loss.value(chunk.y[:, None, :], eta.reshape(len(eta), -1, columns.group))
                total[:: columns.group] += np.einsum("im,im->m", w[:, :: columns.group], value)
            else:
                total += np.einsum("ic,ic->c", w, loss.value(chunk.y[:, columns.target], eta))
        return (total,)

    (total,) = book.total(part, len(theta) + C)
    return np.asarray(total + 0.5 * np.einsum("jc,jc->c", theta, columns.pull(theta)))
