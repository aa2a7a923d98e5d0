"""Newton's method for every loss: optima, folds, leave-one-out, df and criteria by their definitions.

The references are written from the formulas of the losses, in extended precision, and share no code with the
package: a dense Newton iteration for optima, explicit refits for folds, and dense matrices for the rest.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse, stats
from scipy.special import gammaln
from sklearn import metrics
from sklearn.model_selection import GroupKFold

from elltwo.data.base import Block
from elltwo.data.memory import MemorySource
from elltwo.engine import fit_source, make_problem
from elltwo.folds import TimeFolds
from elltwo.losses import (
    Binomial,
    Gamma,
    Huber,
    NegativeBinomial,
    Poisson,
    SquaredEpsilonInsensitive,
    SquaredHinge,
    Tweedie,
)
from elltwo.run import Run
from elltwo.selection import AIC, BIC, LOO, KFold
from elltwo.solvers.newton import NewtonSolver

Array = npt.NDArray[Any]
Rng = np.random.Generator
Long = np.longdouble


@dataclass(frozen=True)
class Family:
    """A loss, its derivatives and half deviance written out once more, and how to draw from it."""

    loss: Any
    derivatives: Callable[[Array, Array], tuple[Array, Array]]
    value: Callable[[Array, Array], Array]
    draw: Callable[[Rng, Array], Array]


def _logistic(e: Array) -> Array:
    return 1 / (1 + np.exp(-e))


def _ylog(y: Array, m: Array) -> Array:
    return np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / m), 0)


def _real(rng: Rng, e: Array) -> Array:
    return 3.0 + 2.0 * e + rng.standard_t(3, size=e.shape)


FAMILIES = {
    "binomial": Family(
        Binomial(),
        lambda y, e: (_logistic(e) - y, _logistic(e) * _logistic(-e)),
        lambda y, e: _ylog(y, _logistic(e)) + _ylog(1 - y, _logistic(-e)),
        lambda rng, e: (rng.uniform(size=e.shape) < _logistic(e)).astype(float),
    ),
    "proportions": Family(
        Binomial(),
        lambda y, e: (_logistic(e) - y, _logistic(e) * _logistic(-e)),
        lambda y, e: _ylog(y, _logistic(e)) + _ylog(1 - y, _logistic(-e)),
        lambda rng, e: rng.binomial(4, _logistic(e)) / 4,
    ),
    "poisson": Family(
        Poisson(),
        lambda y, e: (np.exp(e) - y, np.exp(e)),
        lambda y, e: _ylog(y, np.exp(e)) - y + np.exp(e),
        lambda rng, e: rng.poisson(np.exp(e + 0.5)).astype(float),
    ),
    "gamma": Family(
        Gamma(),
        lambda y, e: (1 - y * np.exp(-e), y * np.exp(-e)),
        lambda y, e: y * np.exp(-e) - 1 - np.log(y) + e,
        lambda rng, e: rng.gamma(2.0, np.exp(e) / 2),
    ),
    "tweedie": Family(
        Tweedie(1.5),
        lambda y, e: (np.exp(e / 2) - y * np.exp(-e / 2), (np.exp(e / 2) + y * np.exp(-e / 2)) / 2),
        lambda y, e: 2 * np.exp(e / 2) + 2 * y * np.exp(-e / 2) - 4 * np.sqrt(y),
        lambda rng, e: rng.gamma(2.0, np.exp(e) / 2) * (rng.uniform(size=e.shape) < 0.7),
    ),
    "negative-binomial": Family(
        NegativeBinomial(0.5),
        lambda y, e: (
            (np.exp(e) - y) / (1 + np.exp(e) / 2),
            np.exp(e) * (1 + y / 2) / (1 + np.exp(e) / 2) ** 2,
        ),
        lambda y, e: _ylog(y, np.exp(e)) - (y + 2) * np.log((1 + y / 2) / (1 + np.exp(e) / 2)),
        lambda rng, e: rng.poisson(np.exp(e + 0.5) * rng.gamma(2.0, 0.5, size=e.shape)).astype(float),
    ),
    "squared-hinge": Family(
        SquaredHinge(),
        lambda y, e: (-y * np.maximum(0, 1 - y * e), (y * e < 1).astype(e.dtype)),
        lambda y, e: np.maximum(0, 1 - y * e) ** 2 / 2,
        lambda rng, e: np.where(rng.uniform(size=e.shape) < _logistic(e), 1.0, -1.0),
    ),
    "tube": Family(
        SquaredEpsilonInsensitive(0.25),
        lambda y, e: (
            np.sign(e - y) * np.maximum(abs(e - y) - 0.25, 0),
            (abs(e - y) > 0.25).astype(e.dtype),
        ),
        lambda y, e: np.maximum(abs(e - y) - 0.25, 0) ** 2 / 2,
        _real,
    ),
    "huber": Family(
        Huber(1.25),
        lambda y, e: (np.clip(e - y, -1.25, 1.25), (abs(e - y) <= 1.25).astype(e.dtype)),
        lambda y, e: np.where(abs(e - y) <= 1.25, (e - y) ** 2 / 2, 1.25 * abs(e - y) - 1.25**2 / 2),
        _real,
    ),
}
SMOOTH = [name for name in FAMILIES if name not in ("squared-hinge", "tube", "huber")]


def _seeded(*names: Any) -> Rng:
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def _normal(n: int, p: int) -> Callable[[Rng], Array]:
    return lambda rng: rng.normal(size=(n, p))


def _repeated(rng: Rng) -> Array:
    X = rng.normal(size=(40, 3))
    return np.column_stack([X, X[:, 0]])


SHAPES: dict[str, Callable[[Rng], Array]] = {
    "tall": _normal(50, 4),
    "wide": _normal(14, 24),
    "square": _normal(12, 12),
    "one column": _normal(20, 1),
    "repeated column": _repeated,
    "constant column": lambda rng: np.column_stack([rng.normal(size=(30, 3)), np.full(30, 7.3)]),
    "badly scaled": lambda rng: rng.normal(size=(50, 7)) * 10.0 ** np.arange(-6, 7, 2),
    "shifted": lambda rng: 1e6 + rng.normal(size=(40, 3)),
    "levels": lambda rng: np.column_stack([rng.normal(size=24), np.eye(4)[np.arange(24) % 4]]),
}


def _scales(X: Array) -> Array:
    return np.where(np.ptp(X, axis=0) > 0, X.std(axis=0), 1.0)


VARIATIONS: dict[str, Callable[[Rng, Array], tuple[dict[str, Any], dict[str, Any]]]] = {
    "plain": lambda rng, X: ({}, {}),
    "precisions": lambda rng, X: (
        {"weights": np.where(np.arange(len(X)) % 7 == 3, 0.0, rng.uniform(0.2, 5.0, len(X)))},
        {},
    ),
    "counts": lambda rng, X: ({"weights": np.arange(len(X)) % 4, "weights_are": "frequency"}, {}),
    "offset": lambda rng, X: ({"offset": 0.5 * rng.normal(size=len(X))}, {}),
    "prior": lambda rng, X: ({}, {"prior": 0.3 * rng.normal(size=X.shape[1]) / _scales(X)}),
    "multipliers": lambda rng, X: (
        {},
        {"penalty": np.concatenate([[0.0], 10.0 ** rng.uniform(-1, 1, X.shape[1] - 1)])},
    ),
    "matrix": lambda rng, X: ({}, {"penalty": np.eye(X.shape[1]) + np.ones((X.shape[1], X.shape[1]))}),
    "standardised": lambda rng, X: ({}, {"standardize": True}),
    "no intercept": lambda rng, X: ({}, {"fit_intercept": False}),
    "everything": lambda rng, X: (
        {
            "weights": 1 + np.arange(len(X)) % 3,
            "weights_are": "frequency",
            "offset": 0.5 * rng.normal(size=len(X)),
        },
        {"standardize": True, "prior": 0.3 * rng.normal(size=X.shape[1]) / _scales(X)},
    ),
}


@dataclass(frozen=True)
class Case:
    """One problem, with all that its definition needs as dense arrays."""

    family: Family
    X: Array
    y: Array
    rows: dict[str, Any]
    options: dict[str, Any]

    @classmethod
    def of(cls, family: str, shape: str, variation: str) -> Case:
        rng = _seeded(family, shape, variation)
        X = SHAPES[shape](rng)
        eta = (X - X.mean(axis=0)) / _scales(X) @ rng.normal(size=X.shape[1]) / np.sqrt(X.shape[1])
        y = FAMILIES[family].draw(rng, eta)
        if family in ("binomial", "squared-hinge"):
            y[:2] = [FAMILIES[family].loss.null(0.0) * 0, 1.0] if family == "binomial" else [-1.0, 1.0]
        rows, options = VARIATIONS[variation](rng, X)
        return cls(FAMILIES[family], X, y, rows, options)

    @property
    def w(self) -> Array:
        return np.asarray(self.rows.get("weights", np.ones(len(self.y))), dtype=np.float64)

    @property
    def offset(self) -> Array:
        return np.asarray(self.rows.get("offset", np.zeros(len(self.y))))

    @property
    def intercept(self) -> bool:
        return bool(self.options.get("fit_intercept", True))

    @property
    def prior(self) -> Array:
        return np.asarray(self.options.get("prior", np.zeros(self.X.shape[1])))

    def mean(self, w: Array) -> Array:
        return np.asarray(np.average(self.X, axis=0, weights=w))

    def P(self, w: Array) -> Array:
        p = self.X.shape[1]
        penalty = self.options.get("penalty", np.ones(p))
        matrix = np.diag(penalty) if penalty.ndim == 1 else penalty
        if not self.options.get("standardize"):
            return np.asarray(matrix)
        s = np.sqrt(np.average((self.X - self.mean(w)) ** 2, axis=0, weights=w))
        s = np.where(np.ptp(self.X[w > 0], axis=0) > 0, s, 1.0)
        return np.asarray(matrix * s * s[:, None])

    def source(self, **changed: Any) -> MemorySource:
        return MemorySource(self.X, self.y, **(self.rows | changed))

    def fit(self, alpha: Any, solver: str = "auto", **options: Any) -> Any:
        return fit_source(
            self.source(), alpha, loss=self.family.loss, solver=solver, **(self.options | options)
        )

    def design(self, w: Array) -> tuple[Array, Array]:
        """Return centred rows with a column of ones where there is an intercept, and the bordered P."""
        p = self.X.shape[1]
        if not self.intercept:
            return self.X, self.P(w)
        mean = np.average(self.X.astype(Long), axis=0, weights=w.astype(Long))
        Z = np.where(np.ptp(self.X[w > 0], axis=0) > 0, self.X - mean, 0)
        P = np.zeros((p + 1, p + 1))
        P[:p, :p] = self.P(w)
        return np.column_stack([Z, np.ones(len(Z))]), P

    def optimum(self, alpha: float, w: Array | None = None) -> tuple[Array, float]:
        """Return θ and b in extended precision: steps halved until the objective falls."""
        w = self.w if w is None else w
        A, P = self.design(w)
        A, P, y, w = A.astype(Long), P.astype(Long), self.y.astype(Long), w.astype(Long)
        p = self.X.shape[1]
        t0 = np.zeros(A.shape[1], dtype=Long)
        t0[:p] = self.prior
        t = np.zeros(A.shape[1], dtype=Long)
        if self.intercept:
            t[p] = self.family.loss.null(np.average(self.y, weights=np.asarray(w, dtype=float)))
        used = w > 0

        def objective(t: Array) -> Any:
            value = self.family.value(y[used], (A @ t)[used] + self.offset[used])
            return w[used] @ value + alpha / 2 * (t - t0) @ P @ (t - t0)

        for _ in range(100):
            g, h = self.family.derivatives(y, A @ t + self.offset)
            step = _solve(A.T @ (A * (w * h)[:, None]) + alpha * P, A.T @ (w * g) + alpha * P @ (t - t0))
            size, now = Long(1), objective(t)
            while size > 1e-6 and not objective(t - size * step) <= now + 1e-12 * abs(now):
                size /= 2
            t = t - size * step
            if np.all(np.abs(step) <= 1e-16 * np.abs(t).max()):
                break
        theta = t[:p]
        if not self.intercept:
            return theta, 0.0
        mean = np.average(self.X.astype(Long), axis=0, weights=w)
        return theta, t[p] - mean @ theta

    def hessian(
        self, theta: Array, b: float, alpha: float, w: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Return centred rows with ones, H and αP at a model (float64)."""
        w = self.w if w is None else w
        A, P = self.design(w)
        A = A.astype(np.float64)
        _, h = self.family.derivatives(self.y, self.X @ theta + b + self.offset)
        return A, A.T @ (A * (w * h)[:, None]), alpha * P


def _solve(H: Array, g: Array) -> Array:
    """Return H⁻¹g with the columns scaled, refined in extended precision."""
    scale = np.sqrt(np.where(H.diagonal() > 0, H.diagonal(), 1))
    scaled = H / scale / scale[:, None]
    inverse = np.linalg.pinv(scaled.astype(np.float64), rcond=1e-14, hermitian=True)
    right, x = g / scale, np.zeros_like(g)
    for _ in range(6):
        x = x + inverse @ (right - scaled @ x).astype(np.float64)
    return np.asarray(x / scale)


class Pieces(MemorySource):
    """Rows that come a few at a time and cannot be asked for at random, as from a file."""

    in_memory = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.X.flags.writeable = False

    def blocks(self) -> Iterator[Block]:
        for block in super().blocks():
            for i in range(0, len(block.y), 7):
                at = slice(i, i + 7)
                weights = None if block.weights is None else block.weights[at]
                offset = None if block.offset is None else block.offset[at]
                yield Block(block.X[at], block.y[at], weights, block.start + i, offset)


ALPHAS = np.array([0.3, 2.0, 30.0])


def _some(cases: Sequence[Any], family: str, other: str, count: int) -> list[Any]:
    """Return a few of the cases, others for each family and variation or shape: all have their turn."""
    names = (*VARIATIONS, *SHAPES)
    first = list(FAMILIES).index(family) + count * names.index(other)
    return [cases[(first + i) % len(cases)] for i in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_optimum(family: str, shape: str) -> None:
    """θ and b agree with a dense Newton iteration in extended precision, whatever the variation."""
    for variation, alpha in zip(_some(tuple(VARIATIONS), family, shape, 2), (0.05, 3.0), strict=False):
        if (shape, variation) == ("shifted", "no intercept"):
            continue  # the columns are then parallel to 1e-6, and 1e-7 is more than float64 can hold
        case = Case.of(family, shape, variation)
        fit = case.fit(alpha)
        theta, b = case.optimum(alpha)
        mean = case.mean(case.w) if case.intercept else np.zeros(len(theta))
        size = np.sqrt(case.w @ (case.X - mean) ** 2 / case.w.sum())
        largest = np.max(np.abs(theta) * size)
        note = f"{variation}, alpha={alpha}, {fit.solver}, {fit.certificate}, {fit.status}"
        assert np.all(np.abs(fit.coef[:, 0] - theta) * size <= 1e-7 * largest), note
        at_mean = fit.intercept[0] + mean @ fit.coef[:, 0] - b - mean @ theta
        assert abs(at_mean) <= 1e-7 * (abs(b + mean @ theta) + largest), note
        assert fit.certificate.residual < 1e-7, note
        w, y, eta = case.w, case.y, case.X @ theta + b + case.offset
        used = w > 0
        deviance = 2 * w[used] @ case.family.value(y[used].astype(Long), eta[used])
        assert abs(fit.deviance[0] - deviance) <= 1e-6 * fit.null_deviance[0] + 1e-12, note


@pytest.mark.parametrize("family", SMOOTH)
def test_optimum_against_mpmath(family: str) -> None:
    """Five rows and two columns in 40 digits."""
    rng = _seeded("mpmath", family)
    X = rng.normal(size=(6, 2))
    y = FAMILIES[family].draw(rng, X[:, 0])
    y[:2] = [1.0, 0.0] if family in ("binomial", "proportions") else [1.0, 2.0]
    fit = fit_source(MemorySource(X, y), 0.5, loss=FAMILIES[family].loss)
    mp = mpmath.mp.clone()
    mp.dps = 40
    exp, loss = mp.exp, FAMILIES[family].loss

    def slope(yi: Any, e: Any) -> Any:
        if family in ("binomial", "proportions"):
            return 1 / (1 + exp(-e)) - yi
        if family == "gamma":
            return 1 - yi * exp(-e)
        if family == "negative-binomial":
            return (exp(e) - yi) / (1 + loss.dispersion * exp(e))
        power = {"poisson": 1, "tweedie": mp.mpf(1.5)}[family]
        return exp((2 - power) * e) - yi * exp((1 - power) * e)

    rows = [(mp.mpf(a), mp.mpf(c), mp.mpf(t)) for (a, c), t in zip(X.tolist(), y.tolist(), strict=True)]

    def gradient(u: Any, v: Any, b: Any) -> list[Any]:
        pulls = [slope(t, b + a * u + c * v) for a, c, t in rows]
        each = [sum(g * row[j] for g, row in zip(pulls, rows, strict=True)) for j in (0, 1)]
        return [each[0] + u / 2, each[1] + v / 2, sum(pulls)]

    start = [*fit.coef[:, 0].tolist(), float(fit.intercept[0])]
    exact = [float(x) for x in mp.findroot(gradient, start)]
    assert np.allclose([*fit.coef[:, 0], fit.intercept[0]], exact, rtol=0, atol=1e-9 * np.abs(exact).max())


@pytest.mark.parametrize("classes", [2, 4])
def test_multinomial(classes: int) -> None:
    """The symmetric form's gradient vanishes, coefficients sum to 0 over classes, sparse equals dense."""
    rng = _seeded("multinomial", classes)
    for n, p in ((80, 4), (15, 25)):
        X = rng.normal(size=(n, p))
        y = np.eye(classes)[rng.integers(0, classes, n)]
        w, offset = 1 + np.arange(n) % 3, 0.3 * rng.normal(size=(n, classes))
        fit = fit_source(MemorySource(X, y, w, offset=offset), 0.7, loss="multinomial", standardize=True)
        eta = X @ fit.coef + fit.intercept + offset
        p_hat = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
        s = np.sqrt(np.average((X - np.average(X, axis=0, weights=w)) ** 2, axis=0, weights=w))
        pull = (p_hat - y) * w[:, None]
        assert (
            np.abs(X.T @ pull + 0.7 * s[:, None] ** 2 * fit.coef).max()
            < 1e-7 * np.abs(X.T @ (w[:, None] * y)).max()
        )
        assert np.abs(pull.sum(axis=0)).max() < 1e-7 * w.sum()
        assert np.abs(fit.coef.sum(axis=1)).max() < 1e-8 * np.abs(fit.coef).max()
        own = fit_source(
            MemorySource(sparse.csr_matrix(X), y, w, offset=offset),
            0.7,
            loss="multinomial",
            standardize=True,
            solver="newton-cg",
        )
        assert np.allclose(own.coef, fit.coef, rtol=0, atol=1e-7 * np.abs(fit.coef).max())


_FOLD_CASES = (("tall", "consecutive"), ("wide", "consecutive"), ("levels", "groups"), ("tall", "time"))
FOLDS: dict[str, Any] = {
    "consecutive": 4,
    "groups": GroupKFold(4),
    "time": TimeFolds(3),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variation", VARIATIONS)
def test_folds_are_refits(family: str, variation: str) -> None:
    """K-fold scores are those of explicit refits, scaled anew in each training set, for any splitter."""
    for shape, splitter in _some(_FOLD_CASES, family, variation, 1):
        alphas = np.array([0.5, 8.0] if splitter == "groups" else [2.0])
        case = Case.of(family, shape, variation)
        n = len(case.y)
        keys = np.arange(n) * 7 % 12 if splitter == "groups" else np.arange(n) * 5 % n
        cv = FOLDS[splitter]
        source = case.source(keys=keys)
        fit = fit_source(source, KFold(cv, alphas=alphas), loss=case.family.loss, **case.options)
        if splitter == "consecutive":
            parts = np.array_split(np.arange(n), 4)
            pairs = [(np.setdiff1d(np.arange(n), part), part) for part in parts]
        else:
            pairs = list(cv.split(np.zeros((n, 1)), None, keys))
        total, weight = np.zeros(len(alphas)), 0.0
        for train, test in pairs:
            w = np.zeros(n)
            w[train] = case.w[train]
            for a, alpha in enumerate(alphas):
                theta, b = case.optimum(alpha, w)
                eta = case.X[test] @ theta + b + case.offset[test]
                total[a] += 2 * case.w[test] @ case.family.value(case.y[test].astype(Long), eta)
            weight += case.w[test].sum()
        want = total / weight
        assert np.allclose(fit.path.score, want.astype(float), rtol=1e-6, atol=0), (shape, splitter)
        assert np.isclose(fit.cv_deviance[0], fit.path.score[fit.path.chosen[0]])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variation", VARIATIONS)
def test_leave_one_out_is_one_newton_step(family: str, variation: str) -> None:
    """LOO and df by their dense definitions: a Newton step without the row, the trace of the hat matrix."""
    for shape in _some(("tall", "wide", "levels"), family, variation, 1):
        case = Case.of(family, shape, variation)
        fit = case.fit(LOO(alphas=ALPHAS))
        v = np.minimum(case.w, 1.0) if variation in ("counts", "everything") else case.w
        for a, alpha in enumerate(ALPHAS):
            theta, b = (np.asarray(x, dtype=np.float64) for x in case.optimum(float(alpha)))
            A, H, pull = case.hessian(theta, b, float(alpha))
            eta = case.X @ theta + b + case.offset
            g, h = case.family.derivatives(case.y, eta)
            left_out = eta.copy()
            for i in range(len(A)):
                without = H - v[i] * h[i] * np.outer(A[i], A[i]) + pull
                left_out[i] += A[i] @ np.linalg.lstsq(without, v[i] * g[i] * A[i], rcond=1e-13)[0]
            used = case.w > 0
            each = 2 * case.family.value(case.y[used], left_out[used])
            want = case.w[used] @ each / case.w.sum()
            assert np.isclose(fit.path.score[a], want, rtol=1e-6, atol=0), (shape, alpha)
            df = np.trace(np.linalg.lstsq(H + pull, H, rcond=1e-13)[0]) - case.intercept
            assert np.isclose(fit.path.df[a], df, rtol=1e-6, atol=1e-9), (shape, alpha)


@pytest.mark.parametrize("family", SMOOTH)
def test_leave_one_out_is_near_refits(family: str) -> None:
    """The approximation is within 2 % of what refits without each row give."""
    case = Case.of(family, "tall", "plain")
    score = case.fit(LOO(alphas=[3.0])).path.score[0]
    exact = 0.0
    for i in range(len(case.y)):
        w = case.w.copy()
        w[i] = 0.0
        theta, b = case.optimum(3.0, w)
        exact += 2 * float(
            case.family.value(case.y[i : i + 1].astype(Long), case.X[i : i + 1] @ theta + b)[0]
        )
    assert np.isclose(score, exact / len(case.y), rtol=0.02)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_squared_error_through_newton_is_ridge(variation: str) -> None:
    """Newton's method on squared error is exact, leave-one-out included."""
    case = Case.of("huber", "tall", variation)
    problem = make_problem(
        case.source(),
        **({"fit_intercept": True, "standardize": False, "penalty": None, "prior": None} | case.options),
    )
    rule = LOO(alphas=ALPHAS)
    run = Run(problem, rule, None, None, False, "sum", 1e-10, "newton")
    fit = run.fit(NewtonSolver(), "asked for")
    ridge = fit_source(case.source(), rule, **case.options)
    assert np.allclose(fit.path.score, ridge.path.score, rtol=1e-9)
    assert np.allclose(fit.path.df, ridge.path.df, rtol=1e-9)
    assert np.allclose(fit.coef, ridge.coef, rtol=0, atol=1e-9 * np.abs(ridge.coef).max())
    assert np.allclose(fit.intercept, ridge.intercept, rtol=1e-9)
    assert np.allclose(fit.deviance, ridge.deviance, rtol=1e-9)


def test_multinomial_leave_one_out_and_df() -> None:
    """Dense definitions with the matrix of all classes; two classes are binomial at twice the penalty."""
    rng = _seeded("multinomial leave one out")
    n, p, K, alpha = 40, 3, 3, 1.5
    X, y = rng.normal(size=(n, p)), np.eye(K)[rng.integers(0, K, n)]
    w = rng.uniform(0.5, 2.0, n)
    fit = fit_source(MemorySource(X, y, w), LOO(alphas=[alpha]), loss="multinomial")
    A = np.column_stack([X, np.ones(n)])
    eta = X @ fit.coef + fit.intercept
    P = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    own = [np.kron(np.diag(q) - np.outer(q, q), np.outer(a, a)) for q, a in zip(P, A, strict=True)]
    H = np.einsum("i,ijk->jk", w, own)
    pull = alpha * np.kron(np.eye(K), np.diag([1.0] * p + [0.0]))
    total = 0.0
    for i in range(n):
        X_i = np.kron(np.eye(K), A[i])
        step = np.linalg.pinv(H - w[i] * own[i] + pull, rcond=1e-12) @ (X_i.T @ (w[i] * (P[i] - y[i])))
        left = eta[i] + X_i @ step
        total += 2 * w[i] * (np.log(np.exp(left).sum()) - left @ y[i])
    assert np.isclose(fit.path.score[0], total / w.sum(), rtol=1e-7)
    trace = np.trace(np.linalg.pinv(H + pull, rcond=1e-12) @ H)
    assert np.isclose(fit.df[0], trace - (K - 1), rtol=1e-7)
    y2 = (rng.uniform(size=n) < 0.5).astype(float)
    both = fit_source(
        MemorySource(X, np.column_stack([1 - y2, y2])), LOO(alphas=[0.5, 2.0]), loss="multinomial"
    )
    one = fit_source(MemorySource(X, y2), LOO(alphas=[0.25, 1.0]), loss="binomial")
    assert np.allclose(both.path.score, one.path.score, rtol=1e-7)
    assert np.allclose(both.path.df, one.path.df, rtol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_rows_by_other_ways(family: str) -> None:
    """Streamed = in memory, sparse = dense, counts = repeated rows, columns in another order."""
    for variation in _some(("everything", "matrix", "no intercept", "counts"), family, "plain", 1):
        case = Case.of(family, "tall", variation)
        loss, options = case.family.loss, case.options
        rule = KFold(3, alphas=ALPHAS)
        fit = case.fit(rule)

        def same(other: Any, columns: Any = slice(None), fit: Any = fit, note: str = variation) -> None:
            size = np.abs(fit.coef).max()
            assert np.allclose(other.coef, fit.coef[columns], rtol=0, atol=1e-6 * size), note
            assert np.allclose(
                other.intercept, fit.intercept, rtol=0, atol=1e-6 * (size + abs(fit.intercept[0]))
            )
            assert np.allclose(other.deviance, fit.deviance, rtol=1e-6), note
            assert np.allclose(other.null_deviance, fit.null_deviance, rtol=1e-6), note
            assert np.allclose(other.target_means, fit.target_means, rtol=1e-9), note
            assert np.allclose(other.target_scales, fit.target_scales, rtol=1e-9), note

        pieces = Pieces(case.X.copy(), case.y, **case.rows)
        streamed = fit_source(pieces, rule, loss=loss, **options)
        same(streamed)
        assert np.allclose(streamed.path.score, fit.path.score, rtol=1e-7)
        loo = case.fit(LOO(alphas=ALPHAS))
        streamed = fit_source(
            Pieces(case.X.copy(), case.y, **case.rows), LOO(alphas=ALPHAS), loss=loss, **options
        )
        assert np.allclose(streamed.path.score, loo.path.score, rtol=1e-7)
        compressed = MemorySource(sparse.csr_matrix(case.X), case.y, **case.rows)
        thin = fit_source(compressed, rule, loss=loss, solver="newton-cg", **options)
        same(thin)
        assert np.allclose(thin.path.score, fit.path.score, rtol=1e-5)
        same(fit_source(compressed, rule, loss=loss, **options))
        order = np.arange(case.X.shape[1])[::-1]
        turned = dict(options)
        for name in ("prior", "penalty"):
            if name in turned:
                turned[name] = (
                    turned[name][np.ix_(order, order)] if turned[name].ndim == 2 else turned[name][order]
                )
        same(
            fit_source(MemorySource(case.X[:, order], case.y, **case.rows), rule, loss=loss, **turned), order
        )
        if variation in ("counts", "everything"):
            again = np.repeat(np.arange(len(case.y)), case.rows["weights"])
            rows = {k: v[again] for k, v in case.rows.items() if k not in ("weights", "weights_are")}
            repeated = fit_source(
                MemorySource(case.X[again], case.y[again], **rows), 2.0, loss=loss, **options
            )
            same(repeated, fit=case.fit(2.0))
            assert np.isclose(repeated.df[0], case.fit(2.0).df[0], rtol=1e-7)


@pytest.mark.parametrize("rule", [AIC, BIC])
def test_information_criteria(rule: Any) -> None:
    """Differences between alphas are those of −2·log likelihood + price·(df + parameters), by SciPy."""
    rng = _seeded("criteria")
    X = rng.normal(size=(60, 3))
    eta, w = X @ [0.6, -0.4, 0.0], 1 + np.arange(60) % 3
    n = w.sum()
    trials = np.full(60, 5)
    cases = {
        "poisson": (rng.poisson(np.exp(eta)).astype(float), w),
        "binomial": (rng.binomial(trials, _logistic(eta)) / 5, trials),
        "gamma": (rng.gamma(2.0, np.exp(eta) / 2), w),
    }
    for loss, (y, weights) in cases.items():
        source = MemorySource(X, y, weights, weights_are="frequency")
        fit = fit_source(source, rule(alphas=ALPHAS), loss=loss)
        total = n if loss != "binomial" else trials.sum()
        want = []
        for a in range(len(ALPHAS)):
            mean = X @ fit.path.coef[a] + fit.path.intercept[a]
            if loss == "poisson":
                loglik = weights @ stats.poisson.logpmf(y, np.exp(mean))
            elif loss == "binomial":
                loglik = stats.binom.logpmf((5 * y).round(), trials, _logistic(mean)).sum()
            else:
                grid = np.exp(np.linspace(-3, 4, 20001))
                gap = weights @ (y * np.exp(-mean) - 1 - np.log(y) + mean)
                profile = n * (grid * np.log(grid) - grid - gammaln(grid)) - grid * gap
                shape = grid[np.argmax(profile)]
                loglik = weights @ stats.gamma.logpdf(y, shape, scale=np.exp(mean) / shape)
            price = 2.0 if rule is AIC else np.log(total)
            want.append(-2 * loglik + price * (fit.path.df[a] + 1 + (loss == "gamma")))
        assert np.allclose(np.diff(fit.path.score), np.diff(want), atol=1e-5), loss


SCORES = ("accuracy", "neg_log_loss", "neg_brier_score", "roc_auc")


def _score(scoring: str, truth: Array, guess: Array, proba: Array, score: Array, weight: Array) -> float:
    """Return what scikit-learn says; the Brier score of two classes is that of the second one alone."""
    if scoring == "accuracy":
        return float(metrics.accuracy_score(truth, guess, sample_weight=weight))
    if scoring == "neg_log_loss":
        return -float(metrics.log_loss(truth, proba, sample_weight=weight))
    K = proba.shape[1]
    if scoring == "neg_brier_score":
        squares = ((np.eye(K)[truth] - proba) ** 2).sum(axis=1)
        return -float(np.average(squares, weights=weight)) / (2 if K == 2 else 1)
    if K == 2:
        return float(metrics.roc_auc_score(truth, score, sample_weight=weight))
    return float(
        np.mean([metrics.roc_auc_score(truth == k, score[:, k], sample_weight=weight) for k in range(K)])
    )


@pytest.mark.parametrize("scoring", SCORES)
@pytest.mark.parametrize("loss", ["binomial", "multinomial"])
def test_scores_of_classes(loss: str, scoring: str) -> None:
    """Minus the mean over folds of what scikit-learn's metrics give, weights included."""
    rng = _seeded("scores", loss)
    n = 90
    X, w = rng.normal(size=(n, 3)), rng.uniform(0.5, 2.0, n)
    K = 3 if loss == "multinomial" else 2
    label = np.clip(np.round(1 + X[:, 0] + 0.7 * rng.normal(size=n)), 0, K - 1).astype(int)
    y = np.eye(K)[label] if K == 3 else label.astype(float)
    fit = fit_source(MemorySource(X, y, w), KFold(3, alphas=ALPHAS, scoring=scoring), loss=loss)
    want = []
    for alpha in ALPHAS:
        each = []
        for test in np.array_split(np.arange(n), 3):
            train = np.setdiff1d(np.arange(n), test)
            own = fit_source(MemorySource(X[train], y[train], w[train]), alpha, loss=loss)
            eta, truth, weight = X[test] @ own.coef + own.intercept, label[test], w[test]
            if K == 3:
                proba = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
                score, guess = proba, proba.argmax(axis=1)
            else:
                proba = np.column_stack([_logistic(-eta), _logistic(eta)])
                score, guess = eta[:, 0], (eta[:, 0] > 0).astype(int)
            each.append(_score(scoring, truth, guess, proba, score, weight))
        want.append(-np.mean(each))
    assert np.allclose(fit.path.score, want, rtol=1e-6)


@pytest.mark.parametrize("family", ["binomial", "poisson", "gamma"])
def test_rules_and_their_options(family: str) -> None:
    """one_se takes a larger alpha; alpha_scale='mean' is α/Σw; alphas per target are those of each alone."""
    rng = _seeded("options", family)
    X = rng.normal(size=(80, 4))
    y = FAMILIES[family].draw(rng, np.column_stack([X[:, 0], 0.05 * X[:, 1]]))
    w, loss = 1 + np.arange(80) % 2, FAMILIES[family].loss
    for rule in (LOO, lambda **k: KFold(4, **k)):
        best = fit_source(MemorySource(X, y[:, 0], w), rule(), loss=loss)
        careful = fit_source(MemorySource(X, y[:, 0], w), rule(one_se=True), loss=loss)
        assert careful.alpha[0] > best.alpha[0]
        each = [fit_source(MemorySource(X, y[:, t], w), rule(alphas=ALPHAS), loss=loss) for t in (0, 1)]
        both = fit_source(MemorySource(X, y, w), rule(alphas=ALPHAS), loss=loss, alpha_per_target=True)
        assert np.allclose(both.path.score, np.column_stack([f.path.score for f in each]), rtol=1e-7)
        assert np.allclose(both.alpha, [f.alpha[0] for f in each])
        assert np.allclose(both.coef, np.column_stack([f.coef for f in each]), rtol=0, atol=1e-7)
    scaled = fit_source(MemorySource(X, y, w), 0.03, loss=loss, alpha_scale="mean")
    plain = fit_source(MemorySource(X, y, w), 0.03 * w.sum(), loss=loss)
    assert np.allclose(scaled.coef, plain.coef, rtol=0, atol=1e-9)
    given = fit_source(MemorySource(X, y, w), np.array([0.5, 20.0]), loss=loss)
    for t, alpha in enumerate((0.5, 20.0)):
        own = fit_source(MemorySource(X, y[:, t], w), alpha, loss=loss)
        assert np.allclose(given.coef[:, t], own.coef[:, 0], rtol=0, atol=1e-7)
        assert np.isclose(given.deviance[t], own.deviance[0], rtol=1e-9)
