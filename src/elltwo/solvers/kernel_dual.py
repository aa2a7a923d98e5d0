"""Kernel ridge at one alpha, (K + αW⁻¹)a + b1 = y with 1ᵀa = 0, without an eigendecomposition.

Conjugate gradients on Kw + αI, Kw = √W·K·√W, need n² per step; deflating the space of some of the rows (a
Nyström preconditioner) makes the steps few. Where they are not few, Cholesky takes over. Frangella, Tropp and
Udell (2023), "Randomized Nyström preconditioning".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, on_cores, own_threads
from elltwo.errors import InputError
from elltwo.solvers.base import rank_cutoff

Array = npt.NDArray[Any]

#: From so many rows, conjugate gradients are tried for one alpha.
MANY_ROWS = 2000
#: Rows whose space the preconditioner deflates.
DEFLATED = 400
#: Smallest eigenvalue of a preconditioner that may be held in single precision; its largest is 1.
SAFE_GAIN = 1e-4
#: Steps of conjugate gradients that cost as much as a Cholesky factorisation, and when to look ahead.
MOST_STEPS, LOOK = 200, 40
#: By how much a run of conjugate gradients reduces the residual with K held in single precision, and the
#: smallest α, in units of the rounding of that K, for which it does.
ROUGHLY, ROUGH_ALPHA = 1e-5, 16.0
#: Relative residual from where on the products that measure it have to be careful ones.
DELICATE = 1e-9
#: Targets up to which products take as long as reading K; BLAS's own threads would only be in the way.
FEW_TARGETS = 4
#: Rows and columns of a tile, and groups of tiles that are summed apart, whatever the number of cores.
TILE, GROUPS = 256, 4
#: Rows up to which the effective degrees of freedom of a Cholesky solution are computed.
DF_ROWS = 2000


def symmetric_product(lower: Array, V: Array) -> Array:
    """Return KV, shape (n, T), for K given by its part on and below the diagonal, C order.

    Products are as precise as K is held; the result is float64.
    """
    from scipy.linalg import blas

    single = lower.dtype == np.float32
    upper, V = lower.T, V.astype(lower.dtype, copy=False)  # Fortran order: BLAS takes it without a copy
    if V.shape[1] > FEW_TARGETS:
        symm = blas.ssymm if single else blas.dsymm
        return np.asarray(symm(1.0, upper, np.asfortranarray(V), lower=0), dtype=np.float64)
    symv = blas.ssymv if single else blas.dsymv
    columns = [symv(1.0, upper, V[:, t], lower=0) for t in range(V.shape[1])]
    return np.stack(columns, axis=1).astype(np.float64, copy=False)


def careful_product(lower: Array, V: Array) -> Array:
    """Return KV like `symmetric_product`, tile by tile and summed in long double.

    The rounding of sums of 256 products instead of n: residuals at the rounding level need that.
    """
    n = len(lower)

    def visit(group: int) -> Array:
        total = np.zeros(V.shape, dtype=np.longdouble)
        for i in range(group * TILE, n, GROUPS * TILE):
            here = slice(i, min(n, i + TILE))
            for j in range(0, i, TILE):
                tile, there = lower[here, j : j + TILE], slice(j, j + TILE)
                total[here] += tile @ V[there]
                total[there] += tile.T @ V[here]
            corner = np.tril(lower[here, here])
            total[here] += (corner + np.tril(corner, -1).T) @ V[here]
        return total

    with own_threads():
        total, *rest = on_cores(visit, range(GROUPS))
    for part in rest:
        total += part
    return total


def symmetric_rows(lower: Array, index: Array) -> Array:
    """Return whole rows of K, shape (m, n), from its part on and below the diagonal."""
    rows = np.empty((len(index), len(lower)))
    for r, i in enumerate(index):
        rows[r, : i + 1] = lower[i, : i + 1]
        rows[r, i:] = lower[i:, i]
    return rows


def dual_residual(lower: Array, y: Array, w: Array, alpha: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Return r = y − b − Ka − αa/w, 0 for rows without weight, and Ka + b, both of shape (n, T)."""
    fitted = careful_product(lower, a) + b
    positive = (w > 0)[:, None]
    safe = np.where(w > 0, w, 1.0)[:, None]
    residual = np.where(positive, y - fitted - alpha * a.astype(np.longdouble) / safe, 0.0)
    return residual.astype(np.float64), fitted.astype(np.float64)


def relative_residual(residual: Array, size: Array) -> float:
    """Return max over targets of ‖r‖/size."""
    norm = np.linalg.norm(residual, axis=0)
    return float(np.divide(norm, size, out=norm.copy(), where=size > 0).max())


def dual_rounding(size: Array, a: Array, largest: float) -> float:
    """Return the relative residual that rounding leaves, for K with this largest eigenvalue."""
    norm = np.linalg.norm(a, axis=0) * largest
    return 64 * ROUNDOFF * (1 + float(np.divide(norm, size, out=norm.copy(), where=size > 0).max()))


def dual_digits(worst: float, size: Array, alpha: Array, a: Array, w: Array, condition: float) -> float:
    """Return the expected correct digits of a, relative to its norm, at most 15.9.

    ‖δa‖ ≤ max(w)·‖r‖/α, since no eigenvalue of K + αW⁻¹ is below α/max(w); rounding of K adds u·κ̂².
    """
    norm = np.linalg.norm(a, axis=0)
    bound = np.divide(
        worst * size * float(w.max()), alpha * norm, out=np.zeros(len(alpha)), where=alpha * norm > 0
    )
    loss = max(float(bound.max()) if np.all(alpha > 0) else worst * condition, ROUNDOFF * condition)
    return float(np.clip(-np.log10(max(loss, 1e-300)), 0.0, 15.9))


@dataclass(frozen=True)
class DualSolution:
    """(a, b) of (K + αW⁻¹)a + b1 = y at one alpha per target, and how it was found.

    Attributes
    ----------
    a, b : arrays, shapes (n, T) and (T,)
    fitted : array, shape (n, T)
        Ka + b.
    df : array, shape (T,)
        Effective degrees of freedom, intercept not counted; NaN where they were not computed.
    method : {"cg", "cholesky"}
    why : str
    steps : int
        Products with the kernel matrix.
    largest : float
        Estimate of the largest eigenvalue of Kw.
    """

    a: Array
    b: Array
    fitted: Array
    df: Array
    method: str
    why: str
    steps: int
    largest: float


@dataclass(frozen=True, eq=False)
class _System:
    """The operator c ↦ M·√W·K·√W·M·c, M the projection on the complement of √w when b is free; a = √w∘c."""

    lower: Array
    root: Array
    unit: Array | None

    def project(self, V: Array) -> Array:
        return V if self.unit is None else V - np.outer(self.unit, self.unit @ V)

    def apply(self, V: Array) -> Array:
        column = self.root[:, None]
        return self.project(column * symmetric_product(self.lower, column * self.project(V)))

    def rough(self) -> _System:
        """Return the operator with K held in single precision, at half the memory traffic."""
        n = len(self.lower)
        lower = np.empty((n, n), dtype=np.float32)

        def fill(i: int) -> None:
            lower[i : i + TILE, : i + TILE] = self.lower[i : i + TILE, : i + TILE]

        with own_threads():
            on_cores(fill, range(0, n, TILE))
        return replace(self, lower=lower)

    def residual(self, rhs: Array, c: Array, alpha: Array) -> Array:
        """Return rhs − Ac − αc with sums that round less."""
        column = self.root[:, None]
        image = column * careful_product(self.lower, column * self.project(c))
        if self.unit is not None:
            image = image - self.unit[:, None] * (self.unit @ image)
        return np.asarray(rhs - image - alpha * c.astype(np.longdouble), dtype=np.float64)


def solve_dual(
    lower: Array,
    y: Array,
    w: Array | None,
    alpha: Array,
    *,
    centre: bool,
    method: str = "auto",
    tol: float = 2e-15,
    seed: int = 0,
) -> DualSolution:
    """Solve kernel ridge at one positive alpha per target without an eigendecomposition.

    Parameters
    ----------
    lower : array, shape (n, n)
        K on and below the diagonal.
    y : array, shape (n, T)
        Targets.
    w : array, shape (n,), or None
        Weights.
    alpha : array, shape (T,)
        Positive, on the sum scale.
    centre : bool
        Whether b is free.
    method : {"auto", "cg", "cholesky"}
        "auto" takes conjugate gradients for 2,000 rows or more, unless they would need as long as Cholesky.
    tol : float
        ‖y − b − (K + αW⁻¹)a‖/‖y‖ at which conjugate gradients stop.
    seed : int
        For the rows whose space the preconditioner deflates.

    Raises
    ------
    InputError
        If K + αW⁻¹ is not positive definite, or "cg" was asked for and does not converge.
    """
    n = len(lower)
    weights = np.ones(n) if w is None else w
    index = np.flatnonzero(weights > 0)
    if len(index) < n:
        part = solve_dual(
            lower[np.ix_(index, index)], y[index], weights[index], alpha,
            centre=centre, method=method, tol=tol, seed=seed,
        )  # fmt: skip
        a = np.zeros_like(y)
        a[index] = part.a
        fitted = symmetric_product(lower, a) + part.b
        return DualSolution(a, part.b, fitted, part.df, part.method, part.why, part.steps, part.largest)
    root = np.sqrt(weights)
    unit = root / np.linalg.norm(root) if centre else None
    system = _System(lower, root, unit)
    rhs = system.project(root[:, None] * y)
    if method == "cg" or (method == "auto" and n >= MANY_ROWS):
        import scipy.linalg  # noqa: F401 - whose BLAS has to be still as well

        with own_threads() if len(alpha) <= FEW_TARGETS else nullcontext():
            forced = method == "cg"
            found, steps, largest = _conjugate_gradients(system, rhs, alpha, tol, seed, forced=forced)
        if found is not None:
            why = "asked for" if method == "cg" else "one alpha: few products with K, no factorisation"
            df = np.full(len(alpha), np.nan)
            return _finished(system, found, y, alpha, df, ("cg", why, steps, largest))
        if method == "cg":
            raise InputError(
                f"conjugate gradients did not reach tol in {steps} steps at alpha = {alpha.min():g}. "
                "Use solver='cholesky' or 'exact', or a larger alpha or tol."
            )
        why = f"conjugate gradients were still far off after {steps} steps"
    else:
        why, steps, largest = ("asked for" if method == "cholesky" else "one alpha, few rows"), 0, 0.0
    found, df, top = _cholesky(system, rhs, alpha)
    return _finished(system, found, y, alpha, df, ("cholesky", why, steps, max(largest, top)))


def _finished(
    system: _System, c: Array, y: Array, alpha: Array, df: Array, how: tuple[str, str, int, float]
) -> DualSolution:
    """Return the solution in terms of a, with b from the mean of what is left: wᵀ(y − b − Ka) = α·1ᵀa = 0."""
    a = system.root[:, None] * c
    fitted = symmetric_product(system.lower, a)
    b = np.zeros(y.shape[1])
    if system.unit is not None:
        w = system.root**2
        b = (w @ (y - fitted)) / w.sum() - alpha * a.sum(axis=0) / w.sum()
    return DualSolution(a, b, fitted + b, df, *how)


def _conjugate_gradients(
    system: _System, rhs: Array, alpha: Array, tol: float, seed: int, *, forced: bool
) -> tuple[Array | None, int, float]:
    """Return (c, products with K, largest eigenvalue), c None if convergence would take too long.

    The residual is measured anew when the recursion says that it is small, and the rest is solved for: the
    recursion's own residual falls below what rounding allows.
    """
    precondition, largest = _deflation(system, alpha, seed)
    size = np.linalg.norm(rhs, axis=0)
    size = np.where(size > 0, size, 1.0)
    rounding = ROUGH_ALPHA * float(np.finfo(np.float32).eps) * largest
    operator = system.rough() if alpha.min() > rounding else system
    c, residual = np.zeros_like(rhs), rhs
    steps, most, before, level = 0, MOST_STEPS * (20 if forced else 1), np.inf, 1.0
    while True:
        if level <= tol or level > 0.5 * before:
            # Rounding level: no further round makes it smaller. Otherwise it has not converged.
            rounding = 64 * ROUNDOFF * (1 + float((np.linalg.norm(c, axis=0) / size).max()) * largest)
            if level <= max(tol, rounding):
                return c, steps, largest
            if operator is system:
                return None, steps, largest
            operator = system
        goal = max(0.5 * tol, 0.0 if operator is system else ROUGHLY * level)
        ends = (goal, tol)
        change, taken = _round(operator, residual, alpha, size, precondition, ends, most - steps, forced)
        steps += taken
        if change is None:
            return None, steps, largest
        c, before = c + change, level
        if goal < DELICATE:
            residual = system.residual(rhs, c, alpha)
        else:
            residual = rhs - system.apply(c) - alpha * c
        steps += 1
        level = float((np.linalg.norm(residual, axis=0) / size).max())


def _round(
    system: _System,
    rhs: Array,
    alpha: Array,
    size: Array,
    precondition: Callable[[Array], Array],
    ends: tuple[float, float],
    most: int,
    forced: bool,
) -> tuple[Array | None, int]:
    """Return one run of preconditioned conjugate gradients on all targets at once, and its steps.

    `ends` are the relative residual at which to stop, and the one that all runs together are to reach.
    """
    c, r = np.zeros_like(rhs), rhs.copy()
    z = precondition(r)
    p, rz = z, np.einsum("it,it->t", r, z)
    first = float((np.linalg.norm(r, axis=0) / size).max())
    for step in range(1, most + 1):
        q = system.apply(p) + alpha * p
        curve = np.einsum("it,it->t", p, q)
        rate = np.divide(rz, curve, out=np.zeros_like(rz), where=curve > 0)
        c += rate * p
        r -= rate * q
        level = float((np.linalg.norm(r, axis=0) / size).max())
        if level <= ends[0]:
            return c, step
        if step == LOOK and not forced and level > 0:
            pace = np.log(first / level) / step
            if pace <= 0 or np.log(first / ends[1]) / pace > most:
                return None, step
        z = precondition(r)
        again = np.einsum("it,it->t", r, z)
        p = z + np.divide(again, rz, out=np.zeros_like(rz), where=rz > 0) * p
        rz = again
    return None, most


def _deflation(system: _System, alpha: Array, seed: int) -> tuple[Callable[[Array], Array], float]:
    """Return r ↦ (F·Fᵀ + (δ + α)I)⁻¹r up to a factor, and the largest eigenvalue of F·Fᵀ.

    F·Fᵀ is the Nyström approximation of Kw from some of its rows, δ the mean eigenvalue of the rest.
    """
    n = len(system.lower)
    m = min(DEFLATED, max(1, n // 4))
    chosen = np.sort(np.random.default_rng(seed).choice(n, m, replace=False))
    rows = symmetric_rows(system.lower, chosen) * system.root[chosen, None] * system.root
    values, vectors = np.linalg.eigh(rows[:, chosen])
    keep = values > rank_cutoff(m, float(values[-1]), squared=True)
    parts = [slice(i, i + 4 * TILE) for i in range(0, n, 4 * TILE)]
    F = _product(rows.T, vectors[:, keep] / np.sqrt(values[keep]), parts) if keep.any() else np.zeros((n, 1))
    total = float(system.root**2 @ system.lower.diagonal())
    F = system.project(F)
    gram = np.sum(on_cores(lambda part: F[part].T @ F[part], parts), axis=0)
    spectrum, turn = np.linalg.eigh(gram)
    some = spectrum > rank_cutoff(n, float(spectrum[-1]), squared=True)
    V = _product(F, turn[:, some] / np.sqrt(spectrum[some]), parts)
    spectrum = spectrum[some]
    rest = max(total - float(spectrum.sum()), 0.0) / max(1, n - len(spectrum))
    gain = (rest + alpha) / (spectrum[:, None] + alpha) - 1.0
    # In single precision, at half the memory traffic, unless rounding could make the operator indefinite.
    coarse = gain.min(initial=0.0) > SAFE_GAIN - 1.0
    dtype = np.float32 if coarse else np.float64
    V, gain = V.astype(dtype), gain.astype(dtype)

    def precondition(r: Array) -> Array:
        return np.asarray(r + V @ (gain * (V.T @ r.astype(dtype))))

    return precondition, float(spectrum.max(initial=0.0)) + rest


def _product(left: Array, right: Array, parts: list[slice]) -> Array:
    """Return left @ right, parts of its rows on all cores."""
    return np.concatenate(on_cores(lambda part: left[part] @ right, parts))


def _cholesky(system: _System, rhs: Array, alpha: Array) -> tuple[Array, Array, float]:
    """Return (c, df, a bound on the largest eigenvalue), with one factorisation per distinct alpha.

    With v = √w/‖√w‖ and A = Kw + αI, the inverse on the complement of v is A⁻¹ − A⁻¹v·vᵀA⁻¹/(vᵀA⁻¹v).
    """
    from scipy.linalg import lapack

    n, root = len(system.lower), system.root
    c, df = np.empty_like(rhs), np.full(rhs.shape[1], np.nan)
    largest = float(root**2 @ system.lower.diagonal())
    for a in np.unique(alpha):
        A = system.lower.copy()
        if np.any(root != 1.0):
            A *= root
            A *= root[:, None]
        A[np.diag_indices(n)] += a
        upper, info = lapack.dpotrf(A.T, lower=0, clean=0, overwrite_a=1)
        if info != 0:
            raise InputError(
                f"the kernel matrix plus alpha = {a:g} is not positive definite: alpha is at the rounding "
                "level, or this is no kernel. Use solver='exact', which can tell, or a larger alpha."
            )
        v, t = system.unit, alpha == a
        along = None if v is None else lapack.dpotrs(upper, v[:, None], lower=0)[0]

        def inverse(b: Array, upper: Any = upper, v: Any = v, along: Any = along) -> Array:
            x = lapack.dpotrs(upper, np.asfortranarray(b), lower=0)[0]
            return np.asarray(x if v is None else x - along * ((v @ x) / (v @ along)))

        c[:, t] = inverse(rhs[:, t])
        c[:, t] += inverse(system.residual(rhs[:, t], c[:, t], alpha[t]))
        if n <= DF_ROWS:
            diagonal = lapack.dpotri(upper, lower=0, overwrite_c=1)[0].diagonal().sum()
            lost = 0.0 if v is None or along is None else float((along**2).sum() / (v @ along)[0])
            df[t] = n - (v is not None) - a * (diagonal - lost)
    return c, df, largest
