"""Nyström kernel ridge: functions f = Σ aⱼ k(cⱼ, ·) over m centres cⱼ, for rows by the million.

With K_mm = Q·diag(λ)·Qᵀ and R = Q·diag(λ)^{-½}, the features F = K_nm·R have f = F·β, a = R·β and
‖f‖²_H = ‖β‖²: ridge on m features that are computed block by block, for any rule. For one alpha and many
centres, conjugate gradients on FᵀWF + αI evaluate the kernel anew in each step and hold one m × m matrix;
the preconditioner is the same matrix of a sample of eight rows for each centre (the centres alone do for
large alphas only). Rudi, Carratino and Rosasco (2017), "FALKON: an optimal large scale kernel method".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.data.base import Source
from elltwo.data.random_features import MappedSource
from elltwo.errors import InputError, Status
from elltwo.results import Certificate
from elltwo.solvers.base import rank_cutoff
from elltwo.solvers.centers import count_rows, take_rows, uniform_rows
from elltwo.solvers.certificate import dual_notes
from elltwo.solvers.kernel_dual import dual_rounding

Array = npt.NDArray[Any]

#: Centres from which one alpha is solved by conjugate gradients rather than on the moments of the features.
MANY_CENTERS = 2000
#: Elements of a block of kernel values: 16 MiB.
BLOCK = 1 << 21
#: Rows of the preconditioner's sample for each centre.
SAMPLED = 8
#: Most passes over the rows.
MOST_STEPS = 200


@dataclass(frozen=True, eq=False)
class NystromMap:
    """x ↦ k(x, centres)·R, whose inner products are those of the kernel's projection on the centres.

    Attributes
    ----------
    kernel : Kernel
    centers : array, shape (m, p)
    root : array, shape (m, r)
        R; directions of K_mm at the rounding level are left out.
    spectrum : array, shape (r,)
        λ, ascending.
    """

    kernel: Any
    centers: Array
    root: Array
    spectrum: Array

    @classmethod
    def of(cls, kernel: Any, centers: Array) -> Self:
        """Return the map for centres (m, p).

        Raises
        ------
        InputError
            If the kernel is 0 at all centres, or has a negative eigenvalue.
        """
        values, vectors = np.linalg.eigh(kernel.lower(centers))
        floor = rank_cutoff(len(centers), float(values[-1]), squared=True)
        keep = values > floor
        if not keep.any() or values[0] < -1e3 * floor:
            raise InputError(
                f"the kernel matrix of the centres has eigenvalues from {values[0]:.3g} to {values[-1]:.3g}; "
                "it must be positive semi-definite and not 0. Use a proper kernel."
            )
        return cls(kernel, centers, vectors[:, keep] / np.sqrt(values[keep]), values[keep])

    def __call__(self, X: Array) -> Array:
        """Return the features of rows X (m, p), shape (m, r)."""
        return np.asarray(self.kernel(X, self.centers) @ self.root)

    def source(self, source: Source) -> MappedSource:
        """Return a source with these features in place of its own."""
        return MappedSource(source, self, [f"direction {j}" for j in range(self.root.shape[1])])

    def dual(self, coef: Array) -> Array:
        """Return a = Rβ for β of shape (…, r, T)."""
        return np.asarray(self.root @ coef)


@dataclass(frozen=True)
class NystromSolution:
    """β (r, T) and b (T,) at one alpha per target, with rss and null_rss (T,), and how right they are."""

    coef: Array
    intercept: Array
    rss: Array
    null_rss: Array
    rows: int
    weight: float
    certificate: Certificate
    notes: tuple[Status, ...]
    steps: int


@dataclass(frozen=True, eq=False)
class _Normal:
    """The centred normal equations (FcᵀWFc + αI)β = FcᵀWy, by passes over the rows."""

    source: Source
    map: NystromMap
    centre: bool
    shift: Array

    def passes(self, function: Callable[[Array, Array, Array], None]) -> None:
        """Call function(K_b, y_b − shift, w_b) for blocks of rows."""
        step = max(16, BLOCK // len(self.map.centers))
        for block in self.source.blocks():
            for i in range(0, len(block.y), step):
                part = slice(i, i + step)
                y = block.y[part] - (0.0 if block.offset is None else block.offset[part]) - self.shift
                w = np.ones(len(y)) if block.weights is None else block.weights[part]
                X = np.asarray(block.X[part], dtype=np.float64)
                function(self.map.kernel(X, self.map.centers), y, w)


def solve_nystrom(
    source: Source, map: NystromMap, alpha: Array, *, centre: bool, tol: float = 1e-10
) -> NystromSolution:
    """Solve Nyström kernel ridge at one positive alpha per target by preconditioned conjugate gradients.

    Parameters
    ----------
    source : Source
        The rows x, streamed once for each step.
    map : NystromMap
        Kernel and centres.
    alpha : array, shape (T,)
        Positive, on the sum scale.
    centre : bool
        Whether b is free.
    tol : float
        Relative residual of the normal equations at which to stop.

    Raises
    ------
    InputError
        If 200 steps do not get there, or an alpha is not positive.
    """
    if np.any(alpha <= 0):
        raise InputError("the Nyström solver needs a positive alpha.")
    m, r = map.root.shape
    T = source.n_targets
    first = next(iter(source.blocks()))
    shift = first.y[:4096].mean(axis=0) if centre else np.zeros(T)
    normal = _Normal(source, map, centre, shift)
    k_sum, cross, y_sum, yy = np.zeros(m), np.zeros((m, T)), np.zeros(T), np.zeros(T)
    weight, rows = 0.0, 0

    def gather(K: Array, y: Array, w: Array) -> None:
        nonlocal k_sum, cross, y_sum, yy, weight, rows
        wy = w[:, None] * y
        k_sum += w @ K
        cross += K.T @ wy
        y_sum += wy.sum(axis=0)
        yy += np.einsum("it,it->t", wy, y)
        weight += float(w.sum())
        rows += int(np.count_nonzero(w))

    normal.passes(gather)
    if not np.isfinite(k_sum).all():
        raise source.why_not_finite()
    x_mean = map.root.T @ k_sum / weight if centre else np.zeros(r)
    y_mean = y_sum / weight if centre else np.zeros(T)
    rhs = map.root.T @ cross - np.outer(x_mean, weight * y_mean)
    null = yy - weight * y_mean**2
    rss = np.zeros(T)

    def apply(V: Array, measured: bool = False) -> Array:
        """Return FcᵀWFc·V, and add up the squared errors of the model V on the way if wanted."""
        dual, mean = map.root @ V, x_mean @ V
        total, level = np.zeros((m, V.shape[1])), np.zeros(V.shape[1])

        def add(K: Array, y: Array, w: Array) -> None:
            nonlocal total, level, rss
            fitted = K @ dual - mean
            wf = w[:, None] * fitted
            total += K.T @ wf
            level += wf.sum(axis=0)
            if measured:
                error = y - y_mean - fitted
                rss = rss + np.einsum("i,it,it->t", w, error, error)

        normal.passes(add)
        return np.asarray(map.root.T @ total - np.outer(x_mean, level))

    precondition = _sample_preconditioner(source, map, alpha, centre)
    size = np.linalg.norm(rhs, axis=0)
    size = np.where(size > 0, size, 1.0)
    coef, residual = np.zeros((r, T)), rhs.copy()
    z = precondition(residual)
    p, rz, steps = z, np.einsum("it,it->t", residual, z), 0
    while float((np.linalg.norm(residual, axis=0) / size).max()) > tol:
        if steps == MOST_STEPS:
            raise InputError(
                f"the Nyström solver did not reach tol = {tol:g} in {MOST_STEPS} passes; raise alpha or tol."
            )
        q = apply(p) + alpha * p
        curve = np.einsum("it,it->t", p, q)
        rate = np.divide(rz, curve, out=np.zeros(T), where=curve > 0)
        coef += rate * p
        residual -= rate * q
        z = precondition(residual)
        again = np.einsum("it,it->t", residual, z)
        p = z + np.divide(again, rz, out=np.zeros(T), where=rz > 0) * p
        rz, steps = again, steps + 1
    residual = rhs - apply(coef, measured=True) - alpha * coef
    worst = float((np.linalg.norm(residual, axis=0) / size).max())
    # ‖FᵀWF‖ is near W/m times the largest eigenvalue of K_mm; no eigenvalue of the sum is below alpha.
    condition = float((weight / m * map.spectrum[-1] + alpha.max()) / alpha.min())
    norm = np.linalg.norm(coef, axis=0)
    some = norm > 0
    left = np.linalg.norm(residual, axis=0)[some] / (alpha[some] * norm[some])
    digits = float(np.clip(-np.log10(max(left.max(initial=0.0), ROUNDOFF * condition)), 0.0, 15.9))
    certificate = Certificate(worst, "rows", float(np.sqrt(condition)), digits, 0)
    rounding = dual_rounding(size, coef, weight / m * float(map.spectrum[-1]))
    return NystromSolution(
        coef=coef,
        intercept=shift + y_mean - x_mean @ coef if centre else np.zeros(T),
        rss=rss,
        null_rss=null,
        rows=rows,
        weight=weight,
        certificate=certificate,
        notes=dual_notes(certificate, tol, rounding),
        steps=steps,
    )


def _sample_preconditioner(
    source: Source, map: NystromMap, alpha: Array, centre: bool
) -> Callable[[Array], Array]:
    """Return r ↦ (n/s·F_sᵀW_sF_s + αI)⁻¹r with F_s the (centred) features of a sample of s rows."""
    from scipy.linalg import cho_factor, cho_solve

    n, (m, r) = count_rows(source), map.root.shape
    sample = take_rows(source, uniform_rows(source, min(n, SAMPLED * m), 1))
    X, w = sample.X, np.ones(len(sample.y)) if sample.weights is None else sample.weights
    gram, total, weight = np.zeros((m, m)), np.zeros(m), float(w.sum())
    step = max(16, BLOCK // m)
    for i in range(0, len(X), step):
        K = map.kernel(X[i : i + step], map.centers)
        part = w[i : i + step]
        total += part @ K
        K *= np.sqrt(part)[:, None]
        gram += K.T @ K
    if centre and weight > 0:
        gram -= np.outer(total, total / weight)
    gram = (n / len(X)) * (map.root.T @ gram @ map.root)
    factors = {}
    for a in np.unique(alpha):
        shifted = gram.copy()
        shifted[np.diag_indices(r)] += a
        factors[a] = cho_factor(shifted, overwrite_a=True)

    def precondition(r: Array) -> Array:
        out = np.empty_like(r)
        for a, factor in factors.items():
            out[:, alpha == a] = cho_solve(factor, r[:, alpha == a])
        return out

    return precondition
