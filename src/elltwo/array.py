"""The few dense-array primitives that NumPy lacks or does less well, in one place.

Everything above this module is written with plain NumPy expressions plus these. Each takes
and returns float64; none writes to its input. SciPy's LAPACK is loaded by the functions that need it:
importing it takes longer than many a fit that does not.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Unit roundoff of float64.
ROUNDOFF = float(np.finfo(np.float64).eps) / 2


def one_blas_thread() -> AbstractContextManager[Any]:
    """Return a context in which BLAS runs on one thread.

    For blocks that another thread decodes meanwhile: the products are small, and BLAS threads that spin
    while they wait for each other would take the decoder's core.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")  # type: ignore[no-any-return]


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
    """Return the k × k upper triangular R of a QR factorisation of `rows` (m, k), m < k padded by zeros."""
    m, k = rows.shape
    if m < k:
        rows = np.vstack([rows, np.zeros((k - m, k))])
    return np.asarray(np.linalg.qr(rows, mode="r"))


def accurate_svd(matrix: Array) -> tuple[Array, Array, Array]:
    """Return (U, s, Vᵀ) of any matrix by one-sided Jacobi rotations, thin.

    Small singular values of a matrix with badly scaled columns keep their digits, which the usual
    bidiagonalisation loses (Drmač and Veselić, 2008, "New fast and accurate Jacobi SVD algorithm").
    """
    m, k = matrix.shape
    if m < k:
        left, s, right = accurate_svd(matrix.T)
        return right.T, s, left.T
    from scipy.linalg import lapack

    if k == 0:
        return np.zeros((m, 0)), np.zeros(0), np.zeros((0, 0))
    s, left, right, scale, _, info = lapack.dgejsv(matrix, joba=2, jobu=0, jobv=0, jobr=0, jobt=0, jobp=0)
    if info != 0:
        left, s, transposed = np.linalg.svd(matrix, full_matrices=False)
        return left, s, transposed
    return left, s * (scale[0] / scale[1]), right.T


def solve_upper(R: Array, rhs: Array, *, transposed: bool = False) -> Array:
    """Return R⁻¹ rhs (or R⁻ᵀ rhs) for upper triangular R without zeros on its diagonal."""
    from scipy.linalg import lapack

    solution, _ = lapack.dtrtrs(R, rhs, lower=0, trans=int(transposed))
    return np.asarray(solution)
