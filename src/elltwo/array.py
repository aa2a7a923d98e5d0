"""The few dense-array primitives that NumPy lacks or does less well, in one place.

Everything above this module is written with plain NumPy expressions plus these. Each takes
and returns float64; none writes to its input. SciPy's LAPACK is loaded by the functions that need it:
importing it takes longer than many a fit that does not.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")

#: Unit roundoff of float64.
ROUNDOFF = float(np.finfo(np.float64).eps) / 2


def one_blas_thread() -> AbstractContextManager[Any]:
    """Return a context in which BLAS runs on one thread.

    For blocks that another thread decodes meanwhile: the products are small, and BLAS threads that spin
    while they wait for each other would take the decoder's core.
    """
    return _blas().limit(limits=1)  # type: ignore[no-any-return]


#: The threads that `on_cores` may use here: none outside `own_threads`.
_POOL: contextvars.ContextVar[ThreadPoolExecutor | None] = contextvars.ContextVar("elltwo_pool", default=None)


@contextmanager
def own_threads() -> Iterator[None]:
    """Within this context `on_cores` takes the threads that BLAS had, and BLAS has one in each.

    For passes that mix products with elementwise work, which BLAS's own threads would not share; while
    they wait for the next product, they keep a core busy for milliseconds.
    """
    if _POOL.get() is not None:
        yield
        return
    blas = _blas()
    threads = min((library["num_threads"] for library in blas.info()), default=1)
    if threads < 2:
        yield
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool, blas.limit(limits=1):
        token = _POOL.set(pool)
        try:
            yield
        finally:
            _POOL.reset(token)


def _blas() -> Any:
    """Return threadpoolctl's handle on NumPy's BLAS, and on SciPy's once that is loaded."""
    return _libraries("scipy.linalg" in sys.modules)


@cache
def _libraries(scipy: bool) -> Any:  # noqa: ARG001
    """Look for the libraries that are loaded, once: that takes longer than a small product."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def on_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return [function(item) for item in items], on the threads of `own_threads`; the order is kept."""
    items, pool = list(items), _POOL.get()
    if pool is None or len(items) < 2:
        return [function(item) for item in items]
    # A copy of the context each: NumPy keeps its error state there, and a context runs in one thread.
    jobs = [pool.submit(contextvars.copy_context().run, _alone, function, item) for item in items]
    return [job.result() for job in jobs]


def _alone(function: Callable[[Item], Result], item: Item) -> Result:
    """Return function(item); `on_cores` inside it takes no other thread, which might wait for this one."""
    _POOL.set(None)
    return function(item)


def cross_product(Z: Array, V: Array) -> Array:
    """Return ZᵀV, shape (p, T), for Z (m, p) and V (m, T).

    A thin V goes column by column: matrix-vector products run at memory speed, whereas
    matrix products with two or three columns do not.
    """
    if not 0 < V.shape[1] <= 8:
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


def pivoted_factor(rows: Array) -> tuple[Array, Array]:
    """Return (R, order) of a QR of rows[:, order], the largest column that is left coming first.

    Rows go in by size, largest first, so that those of any size keep their digits (Cox and Higham, 1998,
    "Stability of Householder QR factorization for weighted least squares problems").
    """
    from scipy.linalg import qr

    by_size = np.argsort(-np.abs(rows).max(axis=1, initial=0.0), kind="stable")
    R, order = qr(rows[by_size], mode="r", pivoting=True, check_finite=False)
    return np.asarray(R[: rows.shape[1]]), np.asarray(order)


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

    if R.size == 0:
        return np.zeros_like(rhs)
    solution, _ = lapack.dtrtrs(R, rhs, lower=0, trans=int(transposed))
    return np.asarray(solution)
