"""Brute force, slow and plain: what every fast path is compared with.

Everything here follows from the one objective

    Σᵢ wᵢ·½(yᵢ − b − xᵢᵀθ)²  +  (α/2)·(θ − θ₀)ᵀP(θ − θ₀)

by refitting, never by a shortcut formula. Arithmetic is `numpy.longdouble` (64-bit significand on
x86, at least float64 elsewhere) with Householder QR of the augmented rows, so that the oracle's own error is
far below that of a float64 solver; `solve_exact` does the same in 60 decimal digits and `ridge_exact` in
rational arithmetic.

Shapes: n rows, p features, T targets, A alphas; leading axes "…" are a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

UNIT = float(np.finfo(np.float64).eps) / 2
"""Unit roundoff u of float64."""

SAFETY = 100
"""Factor on a condition number's error bound: it covers the modest growth with n and p."""


@dataclass(frozen=True)
class Model:
    """Data and penalty of one ridge problem; the options are those of the objective.

    `penalty` are p multipliers or a positive definite p × p matrix P₀; with `standardize` the penalty is
    S·P₀·S, S the weighted population standard deviations. With `counts` a row of weight 3 is three
    observations.
    """

    X: Array
    y: Array
    weights: Array | None = None
    counts: bool = False
    penalty: Array | None = None
    prior: Array | None = None
    standardize: bool = False
    fit_intercept: bool = True

    @property
    def w(self) -> Array:
        """Weights, shape (n,); ones if there are none."""
        n = len(self.X)
        return np.ones(n) if self.weights is None else np.asarray(self.weights, dtype=np.float64)

    @property
    def observations(self) -> float:
        """Number of observations: Σw for counts, rows of positive weight otherwise."""
        return float(self.w.sum()) if self.counts else float(np.count_nonzero(self.w))

    def scales(self) -> Array:
        """Weighted population standard deviations; 1 for a constant column, which thus gets θⱼ = θ₀ⱼ."""
        X, w = _long(self.X), _long(self.w)
        mean = w @ X / w.sum()
        s = np.sqrt(w @ (X - mean) ** 2 / w.sum())
        constant = np.ptp(self.X[self.w > 0], axis=0) == 0
        return np.where(constant, 1, s)

    def penalty_root(self) -> Array:
        """B with BᵀB = P, shape (p, p)."""
        if self.penalty is None:
            B = np.eye(self.X.shape[1], dtype=np.longdouble)
        elif self.penalty.ndim == 1:
            B = np.diag(np.sqrt(_long(self.penalty)))
        else:
            B = _cholesky(_long(self.penalty)).T
        return B * self.scales() if self.standardize else B

    def penalty_matrix(self) -> Array:
        """P, shape (p, p)."""
        B = self.penalty_root()
        P: Array = B.T @ B
        return P

    def rows(self, index: Array) -> Model:
        """Return the same problem on some of the rows, with scaling refitted on these rows."""
        return replace(
            self,
            X=self.X[index],
            y=self.y[index],
            weights=None if self.weights is None else self.weights[index],
        )


def _long(a: Any) -> Array:
    return np.asarray(a, dtype=np.longdouble)


def least_squares(A: Array, B: Array) -> Array:
    """Minimise ‖AΘ − B‖ by Householder QR in long double; A (…, m, q) of full column rank, B (…, m, t)."""
    A = _long(A).copy()
    scale = np.sqrt((A**2).sum(axis=-2, keepdims=True))
    A /= scale
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    A = np.broadcast_to(A, batch + A.shape[-2:]).copy()
    B = np.broadcast_to(_long(B), batch + B.shape[-2:]).copy()
    q = A.shape[-1]
    for j in range(q):
        v = A[..., j:, j].copy()
        norm = np.sqrt((v**2).sum(axis=-1))
        v[..., 0] += np.where(v[..., 0] >= 0, norm, -norm)
        v /= np.sqrt((v**2).sum(axis=-1))[..., None]
        for M in (A, B):
            M[..., j:, :] -= 2 * v[..., None] * (v[..., None, :] @ M[..., j:, :])
    diagonal = np.abs(np.diagonal(A, axis1=-2, axis2=-1))
    if diagonal.min() < 8 * q * np.finfo(np.longdouble).eps:
        raise ArithmeticError("The oracle needs a full-rank augmented matrix.")
    theta = B[..., :q, :]
    for j in reversed(range(q)):
        theta[..., j, :] -= (A[..., j, None, j + 1 : q] @ theta[..., j + 1 :, :])[..., 0, :]
        theta[..., j, :] /= A[..., j, j, None]
    return theta / np.swapaxes(scale, -1, -2)


def solve(model: Model, alpha: Any, w: Any = None, y: Any = None) -> tuple[Array, Array]:
    """Ridge by least squares on augmented rows; returns coefficients (…, p, T) and intercepts (…, T).

    A leading batch comes from `alpha` (…,) and `w` (…, n), which replaces the weights but not the
    scaling of the penalty; a weight of 0 removes the row. `y` replaces the targets.
    """
    w = _long(model.w if w is None else w)
    X, y = _long(model.X), _long(model.y if y is None else y)
    n, p = X.shape
    prior = _prior(model)
    alpha = _long(alpha)
    batch = np.broadcast_shapes(alpha.shape, w.shape[:-1])
    root_w = np.broadcast_to(np.sqrt(w), (*batch, n))[..., None]
    pad = int(model.fit_intercept)
    # With a free intercept the origin of the columns is arbitrary; near their mean least is rounded.
    origin = _long(np.mean(model.X, axis=0) * pad)
    top = np.concatenate([np.ones((n, pad)), X - origin], axis=1)
    root = (
        np.concatenate([np.zeros((p, pad)), model.penalty_root()], axis=1) * np.sqrt(alpha)[..., None, None]
    )
    A = np.concatenate([root_w * top, np.broadcast_to(root, (*batch, p, p + pad))], axis=-2)
    # Fitting y − Xθ₀ with penalty on the distance δ = θ − θ₀.
    shifted = y - ((X - origin) @ prior)[:, None]
    rhs = np.concatenate([root_w * shifted, np.zeros((*batch, p, y.shape[1]))], axis=-2)
    solution = least_squares(A, rhs)
    coef = solution[..., pad:, :] + _long(prior)[:, None]
    if not pad:
        return coef, np.zeros((*batch, y.shape[1]), dtype=np.longdouble)
    return coef, solution[..., 0, :] - origin @ coef


def solve_exact(model: Model, alpha: float, places: int = 60) -> tuple[Array, Array]:
    """Ridge by the normal equations in 60 digits or more, rounded once to long double: (p, T) and (T,)."""
    with mpmath.workdps(places):
        columns = [[mpmath.mpf(1)] * len(model.X)] * int(model.fit_intercept) + [_exact(c) for c in model.X.T]
        w, P, pad = _exact(model.w), model.penalty_matrix(), int(model.fit_intercept)
        weighted = [[u * v for u, v in zip(w, column, strict=True)] for column in columns]
        A = mpmath.matrix([[mpmath.fdot(u, v) for v in columns] for u in weighted])
        penalty = mpmath.matrix(len(columns), 1)
        B = mpmath.matrix([[mpmath.mpf(0)] * pad + _exact(row) for row in P])
        prior = mpmath.matrix([mpmath.mpf(0)] * pad + _exact(_prior(model)))
        for i in range(len(P)):
            penalty[i + pad] = mpmath.fdot(B[i, :], prior) * mpmath.mpf(float(alpha))
            for j in range(len(columns)):
                A[i + pad, j] += mpmath.mpf(float(alpha)) * B[i, j]
        solution = np.empty((len(columns), model.y.shape[1]), dtype=np.longdouble)
        for t in range(model.y.shape[1]):
            y = _exact(model.y[:, t])
            right = mpmath.matrix([mpmath.fdot(column, y) for column in weighted]) + penalty
            solution[:, t] = [_rounded(v) for v in mpmath.lu_solve(A, right)]
    return solution[pad:], solution[0] if pad else np.zeros(model.y.shape[1], dtype=np.longdouble)


def _prior(model: Model) -> Array:
    return np.zeros(model.X.shape[1]) if model.prior is None else model.prior


def _exact(values: Any) -> list[Any]:
    """Long doubles as multiprecision numbers, without rounding."""
    high = np.asarray(values, dtype=np.float64)
    return [mpmath.mpf(float(h)) + mpmath.mpf(float(v - h)) for h, v in zip(high, _long(values), strict=True)]


def _rounded(value: Any) -> Any:
    high = float(value)
    return np.longdouble(high) + np.longdouble(float(value - high))


def predictions(model: Model, coef: Array, intercept: Array) -> Array:
    """b + Xθ, shape (…, n, T)."""
    fitted: Array = _long(model.X) @ coef + intercept[..., None, :]
    return fitted


def loo_residuals(model: Model, alphas: Array) -> Array:
    """Held-out residuals of n explicit refits, shape (n, A, T); the penalty (scaling) of all rows is kept.

    With counts one of the w observations of a row is left out; with precisions the whole row.
    """
    w = model.w
    residuals = []
    for i in range(len(w)):
        left = w.copy()
        left[i] = max(w[i] - 1, 0) if model.counts else 0.0
        coef, intercept = solve(model, alphas, np.broadcast_to(left, (len(alphas), len(w))))
        residuals.append(model.y[i] - predictions(model, coef, intercept)[..., i, :])
    return np.array(residuals)


def loo(model: Model, alphas: Array) -> Array:
    """Σ wᵢeᵢ²/Σw over explicit leave-one-out refits, shape (A, T)."""
    score: Array = np.einsum("i,iat->at", _long(model.w), loo_residuals(model, alphas) ** 2) / model.w.sum()
    return score


def kfold(model: Model, splits: Iterable[tuple[Array, Array]], alphas: Array) -> Array:
    """Σ w e²/Σ w pooled over the held-out rows of explicit refits, scaling refitted in each, shape (A, T)."""
    total, mass = np.zeros((len(alphas), model.y.shape[1]), dtype=np.longdouble), 0.0
    for train, test in splits:
        coef, intercept = solve(model.rows(train), alphas)
        e = model.y[test] - predictions(replace(model, X=model.X[test]), coef, intercept)
        total += np.einsum("i,ait->at", _long(model.w[test]), e**2)
        mass += model.w[test].sum()
    return total / mass


def hat_matrix(model: Model, alphas: Array) -> Array:
    """H(α) with ŷ = Hy for a prior mean of 0, by fitting every unit vector, shape (A, n, n)."""
    plain = replace(model, prior=None)
    coef, intercept = solve(plain, alphas, y=np.eye(len(model.X)))
    return predictions(plain, coef, intercept)


def effective_df(model: Model, alphas: Array) -> Array:
    """tr H without the intercept's 1, shape (A,)."""
    trace: Array = np.trace(hat_matrix(model, alphas), axis1=1, axis2=2)
    return trace - int(model.fit_intercept)


def rss(model: Model, alphas: Array) -> Array:
    """Weighted residual sum of squares, shape (A, T)."""
    e = model.y - predictions(model, *solve(model, alphas))
    total: Array = np.einsum("i,ait->at", _long(model.w), e**2)
    return total


def gcv(model: Model, alphas: Array) -> Array:
    """(RSS/Σw) / (1 − tr H/n)², shape (A, T)."""
    mean_df = (effective_df(model, alphas) + int(model.fit_intercept)) / model.observations
    return rss(model, alphas) / model.w.sum() / (1 - mean_df[:, None]) ** 2


def information(model: Model, alphas: Array, price: float) -> Array:
    """n·log(2π·RSS/n) + n + price·(df + intercept + variance), shape (A, T): price 2 is AIC, log n BIC."""
    n = model.observations
    parameters = effective_df(model, alphas) + int(model.fit_intercept) + 1
    return n * np.log(2 * np.pi * rss(model, alphas) / n) + n + price * parameters[:, None]


def aic(model: Model, alphas: Array) -> Array:
    """Akaike's criterion from the hat matrix, shape (A, T)."""
    return information(model, alphas, 2.0)


def bic(model: Model, alphas: Array) -> Array:
    """Schwarz's criterion from the hat matrix, shape (A, T)."""
    return information(model, alphas, math.log(model.observations))


def reml(model: Model, alphas: Array) -> Array:
    """−2·restricted log-likelihood by determinants, up to a constant, shape (A, T).

    y − Xθ₀ ~ N(Fβ, σ²V), V = W⁻¹ + X_p P_p⁻¹ X_pᵀ/α, F = [1 X_u] the unpenalised columns, σ² profiled:
    log|V| + log|FᵀV⁻¹F| + (n − q)·log(rᵀV⁻¹r), r the generalised least-squares residual.
    """
    if model.counts:
        rows = np.repeat(np.arange(len(model.X)), model.w.astype(int))
        # The penalty must not change: scaling is weighted and so the same on repeated rows.
        return reml(replace(model, X=model.X[rows], y=model.y[rows], weights=None, counts=False), alphas)
    keep = model.w > 0
    P = model.penalty_matrix()
    penalised = np.diagonal(P) > 0
    root = _cholesky(P[np.ix_(penalised, penalised)])
    X, w = _long(model.X[keep]), _long(model.w[keep])
    prior = _prior(model)
    y = _long(model.y[keep]) - (X @ prior)[:, None]
    if model.fit_intercept:
        # The origin of the columns does not matter here; near their mean least is rounded.
        X = X - np.mean(X, axis=0)
    F = np.concatenate([np.ones((len(X), int(model.fit_intercept))), X[:, ~penalised]], axis=1)
    K = _forward(root, X[:, penalised].T)
    K = K.T @ K
    scores = []
    for alpha in alphas:
        L = _cholesky(np.diag(1 / w) + K / _long(alpha))
        free, target = _forward(L, F), _forward(L, y)
        restricted = 2 * np.log(np.diagonal(L)).sum()
        if F.shape[1]:
            scale = np.sqrt((free**2).sum(axis=0))
            M = _cholesky((free / scale).T @ (free / scale))
            restricted += 2 * np.log(np.diagonal(M)).sum() + 2 * np.log(scale).sum()
            target = target - free @ least_squares(free, target)
        scores.append(restricted + (len(X) - F.shape[1]) * np.log((target**2).sum(axis=0)))
    return np.array(scores)


def _cholesky(V: Array) -> Array:
    """Lower Cholesky factor in long double."""
    L = np.zeros_like(V)
    for j in range(len(V)):
        column = V[j:, j] - L[j:, :j] @ L[j, :j]
        L[j:, j] = column / np.sqrt(column[0])
    return L


def _forward(L: Array, B: Array) -> Array:
    """L⁻¹B in long double."""
    Z = B.copy()
    for j in range(len(L)):
        Z[j] = (B[j] - L[j, :j] @ Z[:j]) / L[j, j]
    return Z


CRITERIA = {"loo": loo, "gcv": gcv, "reml": reml, "aic": aic, "bic": bic}


def kkt_residual(model: Model, alpha: float, coef: Array, intercept: Array) -> float:
    """Backward error of the optimality condition, about u at a solution that is right to rounding.

    gⱼ = Σ w(y − b − Xθ)zⱼ − αP(θ − θ₀)ⱼ relative to dⱼ·(‖y − ȳ‖ + Σ dₖ|θₖ| + √α·Σ|Bθ₀|), where BᵀB = P and
    dⱼ² = ‖zⱼ‖² + αPⱼⱼ is the squared length of the j-th augmented column; and
    Σ w(y − b − Xθ) relative to Σ w(|y| + |b| + Σ|xⱼθⱼ|).
    """
    w, B, theta = _long(model.w), model.penalty_root(), _long(coef)
    prior = _prior(model)
    Z, y = _centred(model, model.X), _long(model.y)
    e = y - predictions(model, theta, _long(intercept))
    centred_e = _centred(model, y) - Z @ theta if model.fit_intercept else e
    g = Z.T @ (w[:, None] * centred_e) - _long(alpha) * B.T @ (B @ (theta - prior[:, None]))
    d = augmented_lengths(model, alpha)
    size = np.sqrt(w @ _centred(model, y) ** 2) + d @ np.abs(theta)
    size += np.sqrt(_long(alpha)) * np.abs(B @ prior).sum()
    worst = (np.abs(g) / np.where(d > 0, d, 1)[:, None] / size).max()
    if model.fit_intercept:
        terms = np.abs(y) + np.abs(_long(intercept)) + np.abs(_long(model.X)) @ np.abs(theta)
        worst = max(worst, (np.abs(w @ e) / (w @ terms)).max())
    return float(worst)


def augmented_lengths(model: Model, alpha: float) -> Array:
    """dⱼ = sqrt(‖zⱼ‖² + αPⱼ), the length of the j-th column of [√w·Z; √α·P^½], shape (p,)."""
    P = np.diagonal(model.penalty_matrix())
    lengths: Array = np.sqrt(_long(model.w) @ _centred(model, model.X) ** 2 + _long(alpha) * P)
    return lengths


def _centred(model: Model, a: Array) -> Array:
    a, w = _long(a), _long(model.w)
    return a - w @ a / w.sum() if model.fit_intercept else a


def condition(model: Model, alpha: float) -> float:
    """κ of the augmented rows [√w·Z; √α·P^½] with columns scaled to length 1; errors grow with it."""
    Z = np.sqrt(_long(model.w))[:, None] * _centred(model, model.X)
    A = np.concatenate([Z, np.sqrt(_long(alpha)) * model.penalty_root()])
    length = np.sqrt((A**2).sum(axis=0))
    s = np.linalg.svd((A[:, length > 0] / length[length > 0]).astype(np.float64), compute_uv=False)
    return float(s[0] / s[-1])


def tolerance(model: Model, alpha: float, floor: float) -> float:
    """max(floor, SAFETY·u·κ): the forward error of a backward-stable least-squares fit."""
    return max(floor, SAFETY * UNIT * condition(model, alpha))


def coefficient_error(model: Model, alpha: float, coef: Array, reference: Array) -> float:
    """max |θⱼ − θⱼ*|·dⱼ / max |θⱼ*|·dⱼ with dⱼ the length of the j-th augmented column: free of units."""
    d = augmented_lengths(model, alpha)[:, None]
    scale = (np.abs(reference) * d).max()
    return float((np.abs(coef - reference) * d).max() / scale) if scale > 0 else float(np.abs(coef).max())


def intercept_error(model: Model, coef: Array, intercept: Array, reference: Array) -> float:
    """max |b − b*| / (|ȳ| + Σ|x̄ⱼθⱼ| + sd y): the intercept's error relative to the terms that make it up."""
    w = _long(model.w)
    mean_x, mean_y = w @ _long(model.X) / w.sum(), w @ _long(model.y) / w.sum()
    spread = np.sqrt(w @ (_long(model.y) - mean_y) ** 2 / w.sum())
    terms = np.abs(mean_y) + np.abs(mean_x) @ np.abs(coef) + spread
    return float((np.abs(intercept - reference) / np.where(terms > 0, terms, 1)).max())


def ridge_exact(
    columns: Sequence[Sequence[Fraction]],
    y: Sequence[Fraction],
    alpha: Fraction = Fraction(0),
    fit_intercept: bool = True,
) -> list[Fraction]:
    """Solve the normal equations in rational arithmetic, without any rounding; intercept first."""
    n = len(y)
    A = [[Fraction(1)] * n] * int(fit_intercept) + [list(c) for c in columns]
    q = len(A)
    M = [[_dot(a, b) for b in A] + [_dot(a, y)] for a in A]
    for j in range(int(fit_intercept), q):
        M[j][j] += alpha
    for j in range(q):
        pivot = next(i for i in range(j, q) if M[i][j])
        M[j], M[pivot] = M[pivot], M[j]
        M[j] = [v / M[j][j] for v in M[j]]
        for i in range(q):
            if i != j:
                M[i] = [a - M[i][j] * b for a, b in zip(M[i], M[j], strict=True)]
    return [row[q] for row in M]


def _dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((u * v for u, v in zip(a, b, strict=True)), Fraction(0))


def correct_digits(values: Iterable[float], exact: Iterable[Fraction], cap: float = 15.0) -> float:
    """Correct digits −log₁₀(|b − b*|/|b*|) of the worst value, at most `cap`."""
    digits = cap
    for value, truth in zip(values, exact, strict=True):
        error = abs((Fraction(float(value)) - truth) / truth)
        digits = min(digits, cap if error == 0 else -math.log10(error))
    return digits
