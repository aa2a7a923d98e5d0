"""Sparse rows with many features: Newton's method whose steps are solved by conjugate gradients.

Each product with the curvature needs one product with X and one with Xᵀ; columns are centred implicitly, so
that X stays sparse. The diagonal of the curvature is the preconditioner, which for columns like word counts,
whose sizes differ by orders of magnitude, is what makes conjugate gradients fast (Lin, Weng and Keerthi,
2008, "Trust region Newton method for large-scale logistic regression"). Steps are solved only as far as
the outer iteration can use (Eisenstat and Walker, 1996).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, Status
from elltwo.losses import FAMILIES, Loss
from elltwo.moments import drop_noise
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate
from elltwo.solvers.base import HeldOut, Outcome, column_size
from elltwo.solvers.newton import SEPARATED, refuse_absent
from elltwo.solvers.null import best_intercept, curvature_at, null_deviance, null_intercept

Array = npt.NDArray[Any]

#: Relative gradient at which the models of a path count as solved.
PATH_TOL = 1e-8
#: Most Newton steps for one alpha, and most conjugate gradient steps in each.
MOST_STEPS, MOST_INNER = 100, 500
#: Largest share of the gradient that an inner solve may leave; else it is the root of the relative gradient.
LOOSE = 0.1
#: Share of the fall that the slope promises which a step must bring (Armijo's condition).
ARMIJO = 1e-4
#: Random signs that the effective degrees of freedom are estimated from: enough for an error of about 1 %.
SIGNS = 1 << 17
#: Steps of Lanczos' process for the condition.
LANCZOS = 8


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Sparse rows as a statistic: X (n, p) in CSR, y (n, T), w (n,), offset (n, T) or None."""

    X: Any
    y: Array
    w: Array
    offset: Array | None
    counts: bool
    problem: Problem

    def merge(self, other: SparseRows) -> SparseRows:
        """Return both sets of rows, one after the other."""
        from scipy import sparse

        return SparseRows(
            sparse.vstack([self.X, other.X], format="csr"),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.w, other.w]),
            _joined(self.offset, other.offset),
            self.counts,
            self.problem,
        )

    def pick(self, which: Array) -> SparseRows:
        """Return some of the rows."""
        offset = None if self.offset is None else self.offset[which]
        return SparseRows(self.X[which], self.y[which], self.w[which], offset, self.counts, self.problem)

    @property
    def rows(self) -> int:
        """Rows of positive weight."""
        return int(np.count_nonzero(self.w))

    @property
    def observations(self) -> float:
        """Σw for counts, else `rows`."""
        return self.weight if self.counts else float(self.rows)

    @property
    def weight(self) -> float:
        """Σw."""
        return float(self.w.sum())

    @cached_property
    def squares(self) -> Any:
        """X with its entries squared, transposed, (p, n)."""
        return self.X.multiply(self.X).T.tocsr()

    @cached_property
    def transposed(self) -> Any:
        """Xᵀ in CSR, whose products gather instead of scatter."""
        return self.X.T.tocsr()

    @cached_property
    def x_mean(self) -> Array:
        """Weighted means of the features."""
        return np.asarray(self.transposed @ self.w) / self.weight

    @cached_property
    def x_scale(self) -> Array:
        """Weighted population standard deviations of the features.

        From the squares of the entries: a column of large entries without zeros loses digits in it, and
        sparse columns are not of that kind.
        """
        variance = np.asarray(self.squares @ self.w) / self.weight - self.x_mean**2
        return drop_noise(np.sqrt(np.maximum(variance, 0.0)), self.x_mean)

    @cached_property
    def y_mean(self) -> Array:
        """Weighted means of the targets."""
        return np.asarray(self.w @ self.y / self.weight)

    @cached_property
    def y_scale(self) -> Array:
        """Weighted population standard deviations of the targets."""
        return np.asarray(np.sqrt(self.w @ (self.y - self.y_mean) ** 2 / self.weight))

    def eta(self, theta: Array, b: Array) -> Array:
        """Return b + Xθ + offset for θ (p, T) and b (T,), shape (n, T)."""
        eta = np.asarray(self.X @ theta) + b
        return eta if self.offset is None else eta + self.offset

    def deviance(self, coef: Array, intercept: Array) -> Array:
        """Return Σ w·dev(y, b + Xθ + o) for θ (A, p, T), b (A, T): shape (A, T), (A, 1) for classes."""
        loss = self.problem.loss
        each = [loss.value(self.y, self.eta(theta, b)) for theta, b in zip(coef, intercept, strict=True)]
        return np.array([2 * np.atleast_1d(self.w @ value) for value in each])


def _joined(first: Array | None, second: Array | None) -> Array | None:
    return None if first is None or second is None else np.concatenate([first, second])


@dataclass(frozen=True, eq=False)
class _Point:
    """Where the iteration is: θ (p, T), b (T,), η (n, T), and the gradient there."""

    theta: Array
    b: Array
    eta: Array
    g: Array
    gb: Array
    relative: float
    objective: float


@dataclass(frozen=True, eq=False)
class SparseState:
    """Models of one training set of sparse rows, solved from large alphas to small ones."""

    statistic: SparseRows
    form: QuadraticForm
    centre: bool
    known: dict[float, _Point] = field(default_factory=dict)
    condition_limit: float = np.inf

    @property
    def loss(self) -> Loss:
        """The loss."""
        return self.statistic.problem.loss

    @cached_property
    def mean(self) -> Array:
        """What the columns are centred at."""
        return self.statistic.x_mean if self.centre else np.zeros_like(self.statistic.x_mean)

    def _at_null(self, b: Array) -> tuple[Array, Array]:
        """Return Σ wℓ' (T,) and the matrix of Σ wℓ'' (T, T) without features."""
        rows = self.statistic
        eta = np.broadcast_to(b, rows.y.shape)
        return curvature_at(self.loss, rows.y, eta if rows.offset is None else eta + rows.offset, rows.w)

    @cached_property
    def null(self) -> Array:
        """Intercepts of the model without features: the best ones."""
        b = null_intercept(self.loss, self.statistic.y_mean, self.centre)
        exact = self.loss.name in FAMILIES and self.statistic.offset is None
        return b if exact or not self.centre else best_intercept(self.loss, b, self._at_null)

    @cached_property
    def size(self) -> tuple[Array, Array]:
        """What gradients are relative to: ‖z_j‖·‖ℓ'‖ (p, T) and √W·‖ℓ'‖ (T,) at the null model."""
        rows = self.statistic
        eta = np.broadcast_to(self.null, rows.y.shape)
        eta = eta if rows.offset is None else eta + rows.offset
        slope = np.sqrt(rows.w @ self.loss.gradient(rows.y, eta) ** 2)
        spread = column_size(rows, self.centre)
        spread = np.where(spread > 0, spread, np.inf)
        return np.sqrt(rows.weight) * np.outer(spread, slope), np.sqrt(rows.weight) * slope

    def _point(self, theta: Array, b: Array, alpha: Array) -> _Point:
        """Measure the gradient; b belongs to centred columns."""
        rows = self.statistic
        eta = rows.eta(theta, b - self.mean @ theta)
        slope = self.loss.gradient(rows.y, eta) * rows.w[:, None]
        gb = slope.sum(axis=0)
        g = np.asarray(rows.transposed @ slope) - np.outer(self.mean, gb) + alpha * self.form.apply(theta)
        gb = gb if self.centre else np.zeros_like(gb)
        size, size_b = self.size
        relative = max(
            float(np.max(np.abs(g) / size, initial=0.0)),
            float(np.max(np.abs(gb) / np.where(size_b > 0, size_b, np.inf))),
        )
        objective = float(np.sum(rows.w @ self.loss.value(rows.y, eta)))
        objective += 0.5 * float(np.sum(alpha * theta * self.form.apply(theta)))
        return _Point(theta, b, eta, g, gb, relative, objective)

    def _solve(self, start: _Point, alpha: Array, tol: float) -> tuple[_Point, int]:
        """Run Newton's method from a point at one alpha per target."""
        point = self._point(start.theta, start.b, alpha)
        idle = steps = 0
        while point.relative > tol and steps < MOST_STEPS and idle < 2:
            steps += 1
            curvature = _Curvature.at(self, point, alpha)
            loose = min(LOOSE, np.sqrt(point.relative))
            d_theta, d_b = curvature.solve(-point.g, -point.gb, loose)
            slope = float(np.sum(point.g * d_theta) + point.gb @ d_b)
            length, tried = 1.0, point
            for _ in range(30):
                tried = self._point(point.theta + length * d_theta, point.b + length * d_b, alpha)
                promised = ARMIJO * length * slope + 1e-13 * abs(point.objective)
                if tried.objective <= point.objective + promised:
                    break
                end = float(np.sum(tried.g * d_theta) + tried.gb @ d_b)
                length *= min(0.7, max(0.05, -slope / (-slope + max(end, 0.0))))
            idle = idle + 1 if tried.relative > 0.9 * point.relative and point.relative < 1e-9 else 0
            point = tried
        return point, steps

    def solve_path(self, alphas: Array) -> None:
        """Solve at these alphas, unless they are known, each from the nearest larger one."""
        T = self.statistic.y.shape[1]
        for alpha in sorted({float(a) for a in alphas} - set(self.known), reverse=True):
            above = [a for a in self.known if a >= alpha] or list(self.known)
            if above:
                start = self.known[min(above, key=lambda a: abs(a - alpha))]
            else:
                zero = np.zeros((len(self.mean), T))
                start = _Point(zero, self.null, zero, zero, zero, np.inf, np.inf)
            self.known[alpha], _ = self._solve(start, np.full(T, alpha), PATH_TOL)

    def solved(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T) and b (A, T)."""
        self.solve_path(alphas)
        points = [self.known[float(a)] for a in alphas]
        theta = np.stack([p.theta for p in points])
        return theta, np.stack([p.b for p in points]) - np.einsum("j,ajt->at", self.mean, theta)

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        return self.solved(alphas)[0]

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        self.solve_path(alpha)
        return np.stack([self.known[float(a)].theta[:, t] for t, a in enumerate(alpha)], axis=1)

    def df(self, alphas: Array) -> Array:
        """Return NaN: effective degrees of freedom are estimated for the chosen model only, see `outcome`."""
        estimated: dict[float, float] = getattr(self, "_df", {})
        return np.array([estimated.get(float(a), np.nan) for a in alphas])

    def deviance(self, alphas: Array) -> Array:
        """Return the deviance in sample."""
        return self.statistic.deviance(*self.solved(alphas))

    def spectrum(self) -> Array:
        """Return bounds of the squared singular values at the null model, for a grid of alphas.

        The diagonal of the curvature: its sum is that of the eigenvalues, and its largest element no larger
        than the largest of them.
        """
        rows = self.statistic
        c = float(self._at_null(self.null)[1].diagonal().mean() / rows.weight)
        diagonal = (c if c > 0 else 1.0) * rows.weight * (rows.x_scale**2 + (rows.x_mean - self.mean) ** 2)
        d = self.form.d
        return np.asarray(diagonal[(diagonal > 0) & (d > 0)] / d[(diagonal > 0) & (d > 0)])

    def condition(self, alpha: float) -> float:
        """Return the ratio of the largest to the smallest scaled curvature that conjugate gradients met."""
        self.solve_path(np.array([alpha]))
        point = self.known[float(alpha)]
        return _Curvature.at(self, point, np.full(len(point.b), alpha)).condition()

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_t P)⁻¹ rhs_t at the optimum."""
        theta = self.coef_at(alpha)
        b = np.array([self.known[float(a)].b[t] for t, a in enumerate(alpha)])
        curvature = _Curvature.at(self, self._point(theta, b, alpha), alpha)
        return curvature.solve(rhs, np.zeros(len(alpha)), 1e-10)[0]

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:  # noqa: ARG002
        """Refuse: leverages of so many features are not at hand."""
        raise InputError(
            f"leave-one-out needs every row's leverage, which {len(self.mean):,} sparse features make too "
            "costly. Use alpha='kfold', or give a number."
        )

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model at one alpha per target, solved to a relative gradient of `tol`, and measured."""
        rows = self.statistic
        theta = self.coef_at(alpha)
        b = np.array([self.known[float(a)].b[t] for t, a in enumerate(alpha)])
        point, steps = self._solve(self._point(theta, b, alpha), alpha, tol)
        curvature = _Curvature.at(self, point, alpha)
        d_theta, _ = curvature.solve(-point.g, -point.gb, 1e-2)
        effect = np.abs(point.theta) * rows.x_scale[:, None]
        real = effect > 1e-6 * effect.max(initial=0.0)
        worst = np.max(np.abs(d_theta[real] / point.theta[real]), initial=0.0)
        object.__setattr__(self, "_df", {float(a): curvature.df() for a in set(alpha.tolist())})
        certificate = Certificate(
            residual=point.relative,
            measured_on="rows",
            condition=float(np.sqrt(curvature.condition())),
            digits=float(np.clip(-np.log10(max(worst, 1e-16)), 0.0, 15.9)),
            refinements=steps,
        )
        b = point.b - self.mean @ point.theta
        null = null_deviance(rows.problem, rows.y_mean)
        restored = rows.problem.restore(point.theta, b)
        notes: tuple[Status, ...] = (Status.NOT_CONVERGED,) if point.relative > 1e-5 else ()
        deviance = rows.deviance(point.theta[None], b[None])[0]
        if rows.problem.prior is None and (deviance > (1 + 1e-6) * null).any():
            notes = (Status.NOT_CONVERGED,)  # nothing is worse than no features
        free = bool((alpha == 0).any() or (self.form.d == 0).any())
        if (
            not notes
            and self.loss.link in ("logit", "softmax")
            and free
            and (deviance < SEPARATED * null).any()
        ):
            notes = (Status.SEPARATED,)
        return Outcome(*restored, deviance, null, certificate, (*notes, Status.ESTIMATED_DF))


@dataclass(frozen=True, eq=False)
class _Curvature:
    """The operator H + αP at a point, for all targets, with its diagonal."""

    state: SparseState
    h: Array
    alpha: Array
    diagonal: Array
    diagonal_b: Array
    p: Array | None

    @classmethod
    def at(cls, state: SparseState, point: _Point, alpha: Array) -> _Curvature:
        rows, loss = state.statistic, state.loss
        p = loss.mean(point.eta) if loss.coupled else None
        h = rows.w[:, None] * loss.curvature(rows.y, point.eta)
        mean = state.mean[:, None]
        cross = np.asarray(rows.transposed @ h)
        diagonal = np.asarray(rows.squares @ h) - 2 * mean * cross + mean**2 * h.sum(axis=0)
        d = state.form.d if state.form.rotation is None else state.form.matrix().diagonal()
        diagonal = np.maximum(diagonal, 0.0) + alpha * d[:, None]
        diagonal = np.where(diagonal > 0, diagonal, 1.0)
        total = np.maximum(h.sum(axis=0), 0.0)
        return cls(state, h, alpha, diagonal, np.where(total > 0, total, 1.0), p)

    def apply(self, v: Array, vb: Array) -> tuple[Array, Array]:
        """Return the product with (v (p, T), vb (T,))."""
        rows, mean = self.state.statistic, self.state.mean
        u = np.asarray(rows.X @ v) + (vb - mean @ v)
        if self.p is None:
            u = self.h * u
        else:
            u = rows.w[:, None] * self.p * (u - np.sum(self.p * u, axis=1, keepdims=True))
        ub = u.sum(axis=0)
        result = np.asarray(rows.transposed @ u) - np.outer(mean, ub) + self.alpha * self.state.form.apply(v)
        return result, ub if self.state.centre else np.zeros_like(ub)

    def solve(self, g: Array, gb: Array, tol: float) -> tuple[Array, Array]:
        """Return (H + αP)⁻¹(g, gb) by conjugate gradients, to a share `tol` of the right side."""
        x, xb = np.zeros_like(g), np.zeros_like(gb)
        r, rb = g.copy(), gb.copy()
        z, zb = r / self.diagonal, rb / self.diagonal_b
        d, db = z.copy(), zb.copy()
        rho = self._dot(r, rb, z, zb)
        first = rho.copy()
        for _ in range(MOST_INNER):
            if np.all(rho <= tol**2 * first):
                break
            q, qb = self.apply(d, db)
            curvature = self._dot(d, db, q, qb)
            step = np.where(curvature > 0, rho / np.where(curvature > 0, curvature, 1.0), 0.0)
            x += step * d
            xb += step * db
            r -= step * q
            rb -= step * qb
            z, zb = r / self.diagonal, rb / self.diagonal_b
            new = self._dot(r, rb, z, zb)
            turn = np.where(rho > 0, new / np.where(rho > 0, rho, 1.0), 0.0)
            d, db, rho = z + turn * d, zb + turn * db, new
        return x, xb

    def _dot(self, a: Array, ab: Array, c: Array, cb: Array) -> Array:
        """Return the inner product for each target, or one for all classes."""
        each = np.einsum("jt,jt->t", a, c) + ab * cb
        return np.full_like(each, each.sum()) if self.p is not None else each

    def df(self) -> float:
        """Return an estimate of tr[(H + αP)⁻¹H] from random signs (Hutchinson, 1990), mean over targets."""
        rng = np.random.default_rng(0)
        shape = self.diagonal.shape
        total, signs_each = 0.0, self.diagonal.size
        probes = int(np.clip(SIGNS // signs_each, 2, 64))
        for _ in range(probes):
            signs = rng.choice([-1.0, 1.0], size=shape)
            inside, _ = self.solve(self.alpha * self.state.form.apply(signs), np.zeros(shape[1]), 1e-2)
            total += float(np.sum(signs * (signs - inside)))
        seen = np.count_nonzero(self.state.statistic.x_scale == 0) if self.state.centre else 0
        models = 1 if self.p is not None else shape[1]
        return (total / probes - (shape[1] * seen if self.alpha.min() == 0 else 0)) / models

    def condition(self) -> float:
        """Return an estimate of the condition of D⁻¹(H + αP) by a few steps of Lanczos' process."""
        rng = np.random.default_rng(0)
        root = np.sqrt(self.diagonal)
        v = rng.standard_normal(root.shape)
        v /= np.linalg.norm(v)
        last, beta = np.zeros_like(v), 0.0
        main: list[float] = []
        off: list[float] = []
        for _ in range(min(LANCZOS, v.size)):
            u = self.apply(v / root, np.zeros(v.shape[1]))[0] / root - beta * last
            main.append(float(np.sum(u * v)))
            u -= main[-1] * v
            beta = float(np.linalg.norm(u))
            if beta < 1e-10:
                break
            off.append(beta)
            last, v = v, u / beta
        k = len(main)
        values = np.linalg.eigvalsh(np.diag(main) + np.diag(off[: k - 1], 1) + np.diag(off[: k - 1], -1))
        return float(values[-1] / values[0]) if values[0] > 0 else float("inf")


@dataclass(frozen=True)
class NewtonCGSolver:
    """Newton's method with conjugate gradients, for sparse rows with many features."""

    name: str = "newton-cg"

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[SparseRows]:
        """Return the rows of each atom."""
        source: Any = problem.source
        n = source.n_rows
        w = np.ones(n) if source.weights is None else source.weights
        given = source.given_offset
        offset = given
        if problem.prior is not None:
            own = source.X @ problem.prior_column - problem.origin @ problem.prior_column
            offset = np.broadcast_to(own + (0.0 if given is None else given), source.y.shape)
        everything = SparseRows(source.X, source.y, w, offset, source.counts, problem)
        if labels is None:
            return [everything]
        label = np.concatenate([labels(block) for block in source.row_blocks()])
        return [everything.pick(label == atom) for atom in range(n_atoms)]

    def state(self, rows: SparseRows, form: QuadraticForm, centre: bool) -> SparseState:
        """Return a state whose models are solved when they are asked for."""
        refuse_absent(rows)
        return SparseState(rows, form, centre)
