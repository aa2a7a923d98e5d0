"""Arrays in memory as a Source: dense NumPy of any dtype and order, and scipy sparse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.exact import digits_left, is_wide
from elltwo.data.weights import as_counts, check_weights, look_like_counts
from elltwo.errors import InputError

Array = npt.NDArray[Any]

#: Bytes of a block that has to be converted; a float64 array is handed out in larger views.
CONVERTED_BYTES = 1 << 23
VIEW_BYTES = 1 << 27


class MemorySource(BlockwiseSource):
    """Rows of arrays in memory; never copied as a whole, never written to.

    Parameters
    ----------
    X : array or scipy sparse matrix, shape (n, p)
        Features: any real dtype and memory order. Sparse rows become dense one block at a time.
    y : array, shape (n,) or (n, T)
        Targets.
    weights : array, shape (n,), optional
        Numbers ≥ 0 of any type.
    weights_are : {"analytic", "frequency"}
        "analytic": weights are precisions, and each row is one observation. "frequency": a row of weight 3
        stands for three equal observations; the weights are then whole numbers.
    feature_names, target_names : sequence of str, optional
        Names for messages and summaries; x0, x1, … and y otherwise.
    keys : array, shape (n,), optional
        Group or time value of each row.
    offset : array, shape (n,) or (n, T), optional
        Known part of η = b + Xθ + offset for each row.

    Raises
    ------
    InputError
        For shapes that do not match, no rows or columns, or weights that are negative, not
        finite, all zero, or frequencies that are not whole. Values that are not finite are noticed
        by the pass over the rows.

    Examples
    --------
    >>> source = MemorySource([[0, 1], [2, 3], [4, 6]], [1, 2, 3])
    >>> source.n_rows, source.n_features, next(source.blocks()).X.dtype
    (3, 2, dtype('float64'))
    """

    in_memory = True

    def __init__(
        self,
        X: Any,
        y: Any,
        weights: Any = None,
        *,
        weights_are: str = "analytic",
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] | None = None,
        keys: Any = None,
        offset: Any = None,
    ) -> None:
        self.X: Any = X if sparse.issparse(X) else np.asarray(X)
        if self.X.ndim != 2:
            raise InputError(f"X must be two-dimensional (rows, columns); got shape {self.X.shape}.")
        n, p = self.X.shape
        if n == 0 or p == 0:
            raise InputError(f"X has {n} row(s) and {p} column(s); at least one of each is needed.")
        if self.X.dtype.kind not in "fiub":
            raise InputError(f"X has dtype {self.X.dtype}; convert it to real numbers first.")
        if sparse.issparse(X):
            self.X = canonical_rows(X)
        target = np.asarray(y)
        if target.dtype.kind not in "fiub":
            raise InputError(f"y has dtype {target.dtype}; convert it to real numbers first.")
        #: Digits of the differences within a column of X or y that float64 keeps, see `elltwo.data.exact`.
        self.digits = digits_left(_columns_of(self.X)) if is_wide(self.X) else np.inf
        if is_wide(target):
            self.digits = min(self.digits, digits_left(target.reshape(len(target), -1).T))
        target = target.astype(np.float64, copy=False)
        self.y = target[:, None] if target.ndim == 1 else target
        if self.y.ndim != 2 or len(self.y) != n:
            raise InputError(f"X has {n} rows but y has shape {target.shape}; they must agree.")
        if not np.isfinite(self.y).all():
            bad = int(np.count_nonzero(~np.isfinite(self.y)))
            raise InputError(f"y contains {bad} value(s) that are NaN or inf; drop or repair those rows.")
        self.counts = as_counts(weights_are) and weights is not None
        self.weights = check_weights(weights, n, counts=self.counts)
        self.weighted = self.weights is not None
        self.whole_weights = look_like_counts(self.weights)
        self.n_rows: int | None = n
        self.n_features, self.n_targets = p, self.y.shape[1]
        self.feature_names = (
            tuple(feature_names) if feature_names is not None else tuple(f"x{j}" for j in range(p))
        )
        T = self.n_targets
        default = ("y",) if T == 1 else tuple(f"y{t}" for t in range(T))
        self.target_names = tuple(target_names) if target_names is not None else default
        self._keys = None if keys is None else np.asarray(keys)
        self.given_offset = None if offset is None else _check_offset(offset, self.y.shape)

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows: views of a float64 array, converted copies of anything else."""
        n, p = self.X.shape
        view = isinstance(self.X, np.ndarray) and self.X.dtype == np.float64
        step = max(1, (VIEW_BYTES if view else CONVERTED_BYTES) // (8 * p))
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            weights = None if self.weights is None else self.weights[rows]
            offset = None if self.given_offset is None else self.given_offset[rows]
            yield Block(self.dense(rows), self.y[rows], weights, start, offset)

    def row_blocks(self) -> Iterator[Block]:
        """Iterate over targets and weights alone, in one block, with X as it is: nothing becomes dense."""
        yield Block(self.X, self.y, self.weights, 0, self.given_offset)

    def dense(self, rows: Any) -> Array:
        """Return some rows (slice or indices) as float64, a view where possible."""
        part = self.X[rows]
        if sparse.issparse(part):
            part = part.toarray()
        return np.asarray(part, dtype=np.float64)

    def keys(self) -> Array | None:
        """Return the group or time values given at construction."""
        return self._keys


def _columns_of(X: Any) -> Iterator[Array]:
    """Iterate over the columns of X, or over the stored values of those of a sparse matrix."""
    if not sparse.issparse(X):
        return iter(X.T)
    by_columns = X.tocsc()
    return (by_columns.data[a:b] for a, b in pairwise(by_columns.indptr))


def canonical_rows(X: Any) -> Any:
    """Return a scipy sparse matrix or array as a CSR matrix in its one canonical form; X stays as it is.

    Entries that are stored in parts are summed, as `X.toarray()` does, so that what is computed from the
    stored values (squares above all) is what dense rows give. Indices are sorted, and 32 bits wide where
    that is enough.

    >>> twice = sparse.csr_matrix((np.ones(2), np.array([1, 1]), np.array([0, 2])), shape=(1, 3))
    >>> canonical_rows(twice).data, twice.data
    (array([2.]), array([1., 1.]))
    """
    rows = X.tocsr()
    # A new matrix over the same arrays: flags that were cached in X may be out of date.
    rows = sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=rows.shape, copy=False)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def _check_offset(offset: Any, shape: tuple[int, int]) -> Array:
    """Return the offset as float64 (n, T); raise InputError if it cannot be used."""
    values = np.asarray(offset)
    if values.dtype.kind not in "fiub":
        raise InputError(f"offset has dtype {values.dtype}; it must hold numbers.")
    values = values.astype(np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != shape[0] or values.shape[1] not in (1, shape[1]):
        raise InputError(f"offset has shape {np.shape(offset)}; one number per row is needed: ({shape[0]},).")
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise InputError(f"offset is NaN or infinite in row {row + 1:,}; give finite numbers.")
    return np.broadcast_to(values, shape)
