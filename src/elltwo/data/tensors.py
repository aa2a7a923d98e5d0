"""Tensors of PyTorch as rows: those in the CPU's memory as arrays, those on a device as a source there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.weights import as_counts, check_weights, look_like_counts
from elltwo.errors import InputError

Array = npt.NDArray[Any]

#: Devices without float64 (Apple's GPU): products of their rows are made on the CPU.
WITHOUT_FLOAT64 = ("mps",)
#: Devices whose tensors are computed with as arrays.
HOST = ("cpu", *WITHOUT_FLOAT64)
#: Bytes of a block in float64.
BLOCK_BYTES = 1 << 28


def is_tensor(values: Any) -> bool:
    """Return whether this is a PyTorch tensor; PyTorch is not imported for the answer."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def away(values: Any) -> bool:
    """Return whether this is a tensor on a device of its own, such as a GPU."""
    return is_tensor(values) and values.device.type not in HOST


def as_array(values: Any) -> Any:
    """Return a tensor as an array, without a copy where it is in the CPU's memory; anything else as it is.

    Gradients are left behind; bfloat16, which NumPy has not, becomes float32.

    Examples
    --------
    >>> import torch
    >>> as_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    if not is_tensor(values):
        return values
    values = values.detach().cpu()
    wide = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return wide.resolve_conj().resolve_neg().numpy()


class TensorSource(BlockwiseSource):
    """Rows of a tensor on a device, whose products are made there; never copied as a whole.

    Parameters
    ----------
    X : tensor, shape (n, p)
        Features: any real dtype, device and layout in memory.
    y : tensor or array, shape (n,) or (n, T)
        Targets.
    weights : tensor or array, shape (n,), optional
        Numbers ≥ 0.
    weights_are : {"analytic", "frequency"}
        As of `MemorySource`.

    Raises
    ------
    InputError
        As of `MemorySource`.

    Examples
    --------
    >>> import torch
    >>> source = TensorSource(torch.tensor([[0, 1], [2, 3], [4, 6]]), [1, 2, 3])
    >>> next(source.tensor_blocks()).X.dtype
    torch.float64
    """

    #: Reading the rows here means bringing them from the device.
    in_memory = False
    few_passes = True

    def __init__(self, X: Any, y: Any, weights: Any = None, *, weights_are: str = "analytic") -> None:
        if X.ndim != 2:
            raise InputError(f"X must be two-dimensional (rows, columns); got shape {tuple(X.shape)}.")
        n, p = X.shape
        if n == 0 or p == 0:
            raise InputError(f"X has {n} row(s) and {p} column(s); at least one of each is needed.")
        if X.is_complex():
            raise InputError(f"X has dtype {X.dtype}; convert it to real numbers first.")
        target = np.asarray(as_array(y), dtype=np.float64)
        self.X, self.y = X.detach(), target[:, None] if target.ndim == 1 else target
        if self.y.ndim != 2 or len(self.y) != n:
            raise InputError(f"X has {n} rows but y has shape {target.shape}; they must agree.")
        if not np.isfinite(self.y).all():
            bad = int(np.count_nonzero(~np.isfinite(self.y)))
            raise InputError(f"y contains {bad} value(s) that are NaN or inf; drop or repair those rows.")
        self.counts = as_counts(weights_are) and weights is not None
        self.weights = check_weights(as_array(weights), n, counts=self.counts)
        self.weighted = self.weights is not None
        self.whole_weights = look_like_counts(self.weights)
        self.n_rows: int | None = n
        self.n_features, self.n_targets = p, self.y.shape[1]
        self.feature_names = tuple(f"x{j}" for j in range(p))
        T = self.n_targets
        self.target_names = ("y",) if T == 1 else tuple(f"y{t}" for t in range(T))

    def tensor_blocks(self) -> Iterator[Block]:
        """Iterate over the rows, features as float64 tensors on their device."""
        step = max(1, BLOCK_BYTES // (8 * self.n_features))
        for start in range(0, len(self.y), step):
            rows = slice(start, min(len(self.y), start + step))
            weights = None if self.weights is None else self.weights[rows]
            yield Block(self.X[rows].double(), self.y[rows], weights, start)

    def blocks(self) -> Iterator[Block]:
        """Iterate over the rows, brought here as float64 arrays."""
        for block in self.tensor_blocks():
            yield Block(as_array(block.X), block.y, block.weights, block.start)

    def keys(self) -> None:
        """Return None: rows of tensors have no groups."""


def times(X: Any, coef: Array) -> Array:
    """Return X·coef in float64 for a tensor X (m, p) and coef (p, T), made on X's device and brought here."""
    rows = X.detach().double()
    return np.asarray(as_array(rows @ rows.new_tensor(coef)))
