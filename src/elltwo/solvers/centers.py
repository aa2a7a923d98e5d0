"""Centres for Nyström: rows drawn uniformly, or in proportion to approximate ridge leverage scores.

The leverage ℓᵢ = wᵢφᵢᵀ(ΦᵀWΦ + αI)⁻¹φᵢ of a row says how much of the function's freedom at α depends on it; a
row of a rare kind has a large one, and uniform draws miss it. With J a uniform sketch of s of the n rows,
n/s·Φ_JᵀW_JΦ_J takes the place of ΦᵀWΦ, and by the Woodbury identity

    ℓᵢ ≈ wᵢ/α·(kᵢᵢ − k_iJ(K_JJ + αs/n·W_J⁻¹)⁻¹k_Ji),

exact when J is every row. Sampling by them: Alaoui and Mahoney (2015), "Fast randomized kernel ridge
regression with statistical guarantees"; this estimator: Rudi, Calandriello, Carratino and Rosasco (2018),
"On fast leverage score sampling and optimal learning", whose first level it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.data.memory import MemorySource
from elltwo.data.weights import weights_are
from elltwo.errors import InputError, did_you_mean

Array = npt.NDArray[Any]

#: Ways of choosing centres.
WAYS = ("uniform", "leverage")
#: Elements of a block of kernel values: 16 MiB.
BLOCK = 1 << 21
#: Sketches that leverage scores are the largest of.
SKETCHES = 3
#: Share of the centres that the effective degrees of freedom take up where no alpha says otherwise.
SHARE = 0.5


def count_rows(source: Source) -> int:
    """Return the number of rows, reading them if it is not known."""
    return source.n_rows if source.n_rows is not None else sum(len(b.y) for b in source.blocks())


def uniform_rows(source: Source, m: int, seed: int) -> Array:
    """Return m different row numbers, ascending, drawn uniformly.

    Raises
    ------
    InputError
        If there are fewer rows than centres.
    """
    n = count_rows(source)
    if m > n:
        raise InputError(f"n_centers = {m} is more than the {n} rows there are.")
    return np.sort(np.random.default_rng(seed).choice(n, m, replace=False))


def take_rows(source: Source, index: Array) -> MemorySource:
    """Return some rows (ascending numbers) as a source of their own, in one pass."""
    X, y, weights, offset = [], [], [], []
    for block in source.blocks():
        low, high = np.searchsorted(index, (block.start, block.stop))
        here = index[low:high] - block.start
        X.append(np.asarray(block.X[here], dtype=np.float64))
        y.append(block.y[here])
        if block.weights is not None:
            weights.append(block.weights[here])
        if block.offset is not None:
            offset.append(block.offset[here])
    w: Any = np.concatenate(weights) if weights else None
    if w is not None and not (w > 0).any():
        w = np.ones(len(index))  # rows that count nothing are as good centres as any
    keys = source.keys()
    return MemorySource(
        np.vstack(X),
        np.vstack(y),
        w,
        weights_are=weights_are(source),
        feature_names=source.feature_names,
        target_names=source.target_names,
        keys=None if keys is None else keys[index],
        offset=np.vstack(offset) if offset else None,
    )


def pick_centers(source: Source, m: int, seed: int) -> Array:
    """Return m different rows drawn uniformly, shape (m, p), in one pass.

    Raises
    ------
    InputError
        If there are fewer rows than centres.
    """
    return np.asarray(take_rows(source, uniform_rows(source, m, seed)).X)


def leverage_scores(source: Source, kernel: Any, sketch: MemorySource, alpha: float) -> Array:
    """Return the approximate ridge leverage score of every row, shape (n,), in one pass.

    Parameters
    ----------
    source : Source
        The rows, n of them.
    kernel : Kernel
        With its parameters as numbers.
    sketch : MemorySource
        Rows of `source` drawn uniformly, with their weights.
    alpha : float
        Positive, on the sum scale.

    Examples
    --------
    With every row in the sketch the scores are the diagonal of K(K + αI)⁻¹:

    >>> from elltwo.kernels import RBF
    >>> rows = MemorySource(np.arange(5.0)[:, None], np.zeros(5))
    >>> K = RBF(1.0)(rows.X)
    >>> found = leverage_scores(rows, RBF(1.0), rows, 0.5)
    >>> bool(np.allclose(found, np.diag(K @ np.linalg.inv(K + 0.5 * np.eye(5)))))
    True
    """
    from scipy.linalg import cholesky, solve_triangular

    n, X, w = count_rows(source), sketch.X, _weights(sketch)
    share = len(X) / n
    X, w = X[w > 0], w[w > 0]
    system = kernel(X)
    system[np.diag_indices(len(X))] += alpha * share / w
    root = cholesky(system, lower=True, overwrite_a=True)
    scores, step = np.empty(n), max(16, BLOCK // len(X))
    for block in source.blocks():
        for i in range(0, len(block.y), step):
            rows = np.asarray(block.X[i : i + step], dtype=np.float64)
            inside = solve_triangular(root, kernel(rows, X).T, lower=True, overwrite_b=True)
            outside = kernel.diagonal(rows) - np.einsum("ji,ji->i", inside, inside)
            own = 1.0 if block.weights is None else block.weights[i : i + step]
            start = block.start + i
            scores[start : start + len(rows)] = own * np.maximum(outside, 0.0) / alpha
    return np.minimum(scores, 1.0)


def leverage_centers(source: Source, kernel: Any, m: int, seed: int, alpha: float | None = None) -> Array:
    """Return m different rows drawn in proportion to their leverage scores, shape (m, p).

    The scores are the largest of those by three sketches: where a sketch holds one row of a rare kind, that
    row stands for n/s and makes the others of its kind look superfluous. They are taken at the penalty
    `alpha` (sum scale); without it, or at 0, at the one at which the first sketch says that the effective
    degrees of freedom are half the number of centres.

    Raises
    ------
    InputError
        If there are fewer rows than centres.
    """
    scores = np.zeros(0)
    for k in range(SKETCHES):
        sketch = take_rows(source, uniform_rows(source, m, seed + k))
        alpha = alpha or _alpha_of(sketch, kernel, source, SHARE * m)
        found = leverage_scores(source, kernel, sketch, alpha)
        scores = np.maximum(scores, found) if k else found
    rng = np.random.default_rng([seed, 1])
    # The m largest of log ℓ + Gumbel noise are a sample without replacement (Efraimidis and Spirakis, 2006).
    order = np.log(np.maximum(scores, np.finfo(float).tiny)) + rng.gumbel(size=len(scores))
    chosen = np.sort(np.argpartition(-order, m - 1)[:m])
    return np.asarray(take_rows(source, chosen).X)


def choose_centers(
    source: Source, kernel: Any, m: int, *, way: str, seed: int, alpha: float | None = None
) -> Array:
    """Return m rows as centres, shape (m, p), chosen in one of `WAYS`.

    Raises
    ------
    InputError
        For another way, or more centres than rows.
    """
    if way not in WAYS:
        raise InputError(
            f"centers must be 'uniform' or 'leverage'; got {way!r}.{did_you_mean(str(way), WAYS)}"
        )
    if way == "leverage":
        return leverage_centers(source, kernel, m, seed, alpha)
    return pick_centers(source, m, seed)


def _weights(rows: MemorySource) -> Array:
    return np.ones(len(rows.y)) if rows.weights is None else rows.weights


def _alpha_of(sketch: MemorySource, kernel: Any, source: Source, df: float) -> float:
    """Return the alpha at which Σ g/(g + α) = df, g the eigenvalues of the scaled-up sketch."""
    from scipy.optimize import brentq

    root = np.sqrt(_weights(sketch))
    K = kernel(sketch.X) * root * root[:, None] * (count_rows(source) / len(root))
    g = np.maximum(np.linalg.eigvalsh(K), 0.0)
    if g[-1] == 0:
        return 1.0

    def excess(t: float) -> float:
        return float(np.sum(g / (g + np.exp(t)))) - df

    low, high = np.log(g[-1]) - 34.0, np.log(g.sum() / df) + 1.0
    return float(np.exp(brentq(excess, low, high))) if excess(low) > 0 else float(np.exp(low))
