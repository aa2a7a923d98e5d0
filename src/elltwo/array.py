"""The few dense-array primitives that NumPy lacks or does less well, in one place.

Everything above this module is written with plain NumPy expressions plus these. Each takes
and returns float64; none writes to its input unless its name says so (`add_…`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

Array = npt.NDArray[Any]

#: Unit roundoff of float64.
ROUNDOFF = float(np.finfo(np.float64).eps) / 2


def zeros_gram(p: int) -> Array:
    """Return a p × p array of zeros for `add_gram` (Fortran order, as BLAS wants it)."""
    return np.zeros((p, p), order="F")


def add_gram(total: Array, Z: Array) -> None:
    """Add ZᵀZ to the upper triangle of `total` in place, without a copy of a contiguous Z (m, p)."""
    if Z.flags.c_contiguous:
        blas.dsyrk(1.0, Z.T, beta=1.0, c=total, overwrite_c=1)
    else:
        blas.dsyrk(1.0, Z, beta=1.0, c=total, trans=1, overwrite_c=1)


def mirror_upper(gram: Array) -> Array:
    """Return the symmetric matrix whose upper triangle is given, in place of its argument."""
    below = np.tril_indices_from(gram, -1)
    gram[below] = gram.T[below]
    return gram


def cross_product(Z: Array, V: Array) -> Array:
    """Return ZᵀV, shape (p, T), for Z (m, p) and V (m, T).

    A thin V goes column by column: matrix-vector products run at memory speed, whereas
    matrix products with two or three columns do not.
    """
    if V.shape[1] > 8:
        return np.asarray(Z.T @ V)
    return np.stack([V[:, t] @ Z for t in range(V.shape[1])], axis=1)


def eigh_descending(symmetric: Array) -> tuple[Array, Array]:
    """Return eigenvalues (largest first) and matching eigenvectors of a symmetric matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    return values[::-1], vectors[:, ::-1]


def triangular_factor(rows: Array) -> Array:
    """Return the k × k upper triangular R of a QR factorisation of `rows` (m, k), with m < k padded by zeros."""
    m, k = rows.shape
    if m < k:
        rows = np.vstack([rows, np.zeros((k - m, k))])
    qr, _, _, _ = lapack.dgeqrf(rows)
    return np.triu(qr[:k])


def accurate_svd(matrix: Array) -> tuple[Array, Array, Array]:
    """Return (U, s, Vᵀ) of any matrix by one-sided Jacobi rotations, thin.

    Small singular values of a matrix with badly scaled columns keep their digits, which the usual
    bidiagonalisation loses (Drmač and Veselić, 2008, "New fast and accurate Jacobi SVD algorithm").
    """
    m, k = matrix.shape
    if m < k:
        left, s, right = accurate_svd(matrix.T)
        return right.T, s, left.T
    if k == 0:
        return np.zeros((m, 0)), np.zeros(0), np.zeros((0, 0))
    s, left, right, scale, _, info = lapack.dgejsv(matrix, joba=2, jobu=0, jobv=0, jobr=0, jobt=0, jobp=0)
    if info != 0:
        left, s, transposed = np.linalg.svd(matrix, full_matrices=False)
        return left, s, transposed
    return left, s * (scale[0] / scale[1]), right.T


def solve_upper(R: Array, rhs: Array, *, transposed: bool = False) -> Array:
    """Return R⁻¹ rhs (or R⁻ᵀ rhs) for upper triangular R without zeros on its diagonal."""
    solution, _ = lapack.dtrtrs(R, rhs, lower=0, trans=int(transposed))
    return np.asarray(solution)
