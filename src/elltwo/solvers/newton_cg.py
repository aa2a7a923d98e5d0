"""Newton's method whose steps are solved by conjugate gradients: many sparse features, many classes.

Each product with the curvature needs one product with X and one with Xᵀ, and no matrix of the coefficients is
made. The diagonal of the curvature is the preconditioner, which for columns like word counts, whose sizes
differ by orders of magnitude, is what makes conjugate gradients fast (Lin, Weng and Keerthi, 2008, "Trust
region Newton method for large-scale logistic regression"). Steps are solved only as far as the outer
iteration can use (Eisenstat and Walker, 1996).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, Status
from elltwo.losses import FAMILIES, Loss
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import HeldOut, Outcome, column_size, constant_columns
from elltwo.solvers.certificate import SINGULAR, Reached, Rounding, certified
from elltwo.solvers.dense_rows import DenseRows
from elltwo.solvers.descent import SMALLEST
from elltwo.solvers.newton import refuse_absent
from elltwo.solvers.null import best_intercept, null_intercept
from elltwo.solvers.row_products import Curvature
from elltwo.solvers.rowset import gather_rowsets
from elltwo.solvers.sparse_rows import SparseRows, gather_sparse

Array = npt.NDArray[Any]

#: Relative gradient at which the models of a path count as solved.
PATH_TOL = 1e-8
#: Most Newton steps for one alpha, and most conjugate gradient steps in each.
MOST_STEPS, MOST_INNER = 100, 500
#: Largest share of the gradient that an inner solve may leave; else it is the root of the relative gradient,
#: or what is left to do.
LOOSE = 0.1
#: Relative gradient from which the diagonal of the curvature, a preconditioner, is as good as the last.
SETTLED = 1e-2
#: Share of the fall that the slope promises which a step must bring (Armijo's condition).
ARMIJO = 1e-4
#: Random signs that the effective degrees of freedom are estimated from: enough for an error of about 1 %;
#: and what their solves may leave.
SIGNS, TRACE_TOL = 1 << 15, 1e-2
#: What the solves for the step that is left, and for directions without curvature, may leave; the share of
#: the diagonal below which a curvature is 0, and of a random vector's square that lies in its direction; and
#: probes of what rounding does.
STEP_TOL, NULL_TOL, FLAT, LOST, FEW_PROBES = 1e-3, 1e-9, 1e-13, 1e-10, 2
#: Columns of random signs that are solved for together, which cost little more than one.
TOGETHER = 2


@dataclass(frozen=True, eq=False)
class _Point:
    """Where the iteration is: θ (p, T), b (T,), and the gradient there."""

    theta: Array
    b: Array
    g: Array
    gb: Array
    relative: float
    objective: float


@dataclass(frozen=True, eq=False)
class ConjugateState:
    """Models of one training set, solved from large alphas to small ones, or from those of all rows."""

    statistic: SparseRows | DenseRows
    form: QuadraticForm
    centre: bool
    start: ConjugateState | None = None
    known: dict[float, _Point] = field(default_factory=dict)
    condition_limit: float = np.inf
    max_steps: int = MOST_STEPS

    @property
    def loss(self) -> Loss:
        """The loss."""
        return self.statistic.problem.loss

    @cached_property
    def mean(self) -> Array:
        """What the columns are centred at."""
        return self.statistic.x_mean if self.centre else np.zeros_like(self.statistic.x_mean)

    @cached_property
    def constant(self) -> Array:
        """The features whose coefficients are 0, (p,)."""
        return constant_columns(self.statistic, self.form, self.centre)

    @cached_property
    def null(self) -> Array:
        """Intercepts of the model without features: the best ones."""
        rows = self.statistic
        b = null_intercept(self.loss, rows.y_mean, self.centre)
        exact = self.loss.name in FAMILIES and not rows.shifted
        return b if exact or not self.centre else best_intercept(self.loss, b, rows.at_null)

    @cached_property
    def size(self) -> tuple[Array, Array]:
        """Sizes ‖z_j‖ (p,) of the columns, infinite for those that are 0, and ‖ℓ'‖ (T,) at the null model."""
        rows = self.statistic
        spread = np.sqrt(rows.weight) * column_size(rows, self.centre)
        zero = np.zeros((len(self.mean), len(self.null)))
        slope = np.sqrt(rows.slopes(zero, self.null, self.mean).squares)
        return np.where(spread > 0, spread, np.inf), np.where(slope > 0, slope, 1.0)

    def _point(self, theta: Array, b: Array, alpha: Array) -> _Point:
        """Measure the gradient; b belongs to centred columns.

        It is relative to ‖z_j‖·‖ℓ'‖ at the null model or here, whichever is smaller, as in `descent`: where
        the null model is wrong by many orders of magnitude, its gradient is no measure.
        """
        found = self.statistic.slopes(theta, b, self.mean)
        g = np.where(self.constant[:, None], 0.0, found.g + alpha * self.form.apply(theta))
        gb = found.gb if self.centre else np.zeros_like(found.gb)
        spread, null = self.size
        slope = null * np.clip(np.sqrt(found.squares) / null, SMALLEST, 1.0)
        relative = max(
            float(np.max(np.abs(g) / np.outer(spread, slope), initial=0.0)),
            float(np.max(np.abs(gb) / (np.sqrt(self.statistic.weight) * slope))),
        )
        objective = found.value + 0.5 * float(np.sum(alpha * theta * self.form.apply(theta)))
        return _Point(theta, b, g, gb, relative, objective)

    def _solve(self, theta: Array, b: Array, alpha: Array, tol: float) -> tuple[_Point, int]:
        """Run Newton's method from a point at one alpha per target."""
        point = self._point(theta, b, alpha)
        idle = steps = 0
        near: _Hessian | None = None
        while point.relative > tol and steps < self.max_steps and idle < 2:
            steps += 1
            curvature = _Hessian.at(self, point, alpha, near)
            near = curvature if point.relative < SETTLED else None
            loose = max(min(LOOSE, np.sqrt(point.relative)), 0.1 * tol / point.relative)
            d_theta, d_b = self._apart(*curvature.solve(-point.g, -point.gb, loose))
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

    def _apart(self, v: Array, vb: Array) -> tuple[Array, Array]:
        """Return (v, vb) less what classes have in common: it changes no probability, and stays at 0."""
        return (v - v.mean(axis=1, keepdims=True), vb - vb.mean()) if self.loss.coupled else (v, vb)

    def solve_path(self, alphas: Array) -> None:
        """Solve at these alphas, unless they are known, each from the nearest larger one.

        A training set begins where the models of all rows are.
        """
        T = len(self.null)
        with self.statistic.calm():
            for alpha in sorted({float(a) for a in alphas} - set(self.known), reverse=True):
                begin = self._begin(alpha)
                self.known[alpha], _ = self._solve(*begin, np.full(T, alpha), PATH_TOL)

    def _begin(self, alpha: float) -> tuple[Array, Array]:
        """Return θ and b of a model near the one at alpha."""
        if self.start is not None:
            self.start.solve_path(np.array([alpha]))
            point = self.start.known[alpha]
            b = point.b + (self.mean - self.start.mean) @ point.theta
            return np.where(self.constant[:, None], 0.0, point.theta), b
        near = [a for a in self.known if a >= alpha] or list(self.known)
        if near:
            point = self.known[min(near, key=lambda a: abs(a - alpha))]
            return point.theta, point.b
        return np.zeros((len(self.mean), len(self.null))), self.null

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
        c = float(rows.at_null(self.null)[1].diagonal().mean() / rows.weight)
        diagonal = (c if c > 0 else 1.0) * rows.weight * (rows.x_scale**2 + (rows.x_mean - self.mean) ** 2)
        d = self.form.d
        return np.asarray(diagonal[(diagonal > 0) & (d > 0)] / d[(diagonal > 0) & (d > 0)])

    def condition(self, alpha: float) -> float:
        """Return the ratio of the largest to the smallest scaled curvature that conjugate gradients met."""
        self.solve_path(np.array([alpha]))
        point = self.known[float(alpha)]
        return _Hessian.at(self, point, np.full(len(point.b), alpha)).condition()

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return (H + α_t P)⁻¹ rhs_t at the optimum."""
        theta = self.coef_at(alpha)
        b = np.array([self.known[float(a)].b[t] for t, a in enumerate(alpha)])
        curvature = _Hessian.at(self, self._point(theta, b, alpha), alpha)
        return curvature.solve(rhs, np.zeros(len(alpha)), 1e-10)[0]

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:  # noqa: ARG002
        """Refuse: leverages of so many features are not at hand."""
        raise InputError(
            f"leave-one-out needs every row's leverage, which {self._coefficients()} make too costly. Use "
            "'kfold' (alpha='kfold', --select kfold), or give a number."
        )

    def _coefficients(self) -> str:
        """Say how many coefficients there are."""
        p, T = len(self.mean), len(self.null)
        return f"{T} classes of {p:,} features" if self.loss.coupled else f"{p:,} features"

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model at one alpha per target, solved to a relative gradient of `tol`, and measured."""
        with self.statistic.calm():
            return self._outcome(alpha, tol)

    def _outcome(self, alpha: Array, tol: float) -> Outcome:
        rows = self.statistic
        theta = self.coef_at(alpha)
        b = np.array([self.known[float(a)].b[t] for t, a in enumerate(alpha)])
        point, steps = self._solve(theta, b, alpha, tol)
        curvature = _Hessian.at(self, point, alpha)
        object.__setattr__(self, "_df", dict.fromkeys(alpha.tolist(), curvature.df()))
        condition = curvature.condition()
        held = bool((alpha > 0).all() and (self.form.d > 0).all())
        deficient = not held and curvature.undetermined()
        g, gb = self._apart(point.g, point.gb)
        step, step_b = curvature.solve(-g, -gb, STEP_TOL)
        (more, more_b), left = curvature.missed(g, gb, (step, step_b))
        b = point.b - self.mean @ point.theta

        def newton(g: Array, gb: Array) -> tuple[Array, Array]:
            g, gb = self._apart(g - np.multiply.outer(self.mean, gb), gb * self.centre)
            d_theta, d_b = curvature.solve(-g, -gb, TRACE_TOL)
            return d_theta, d_b - self.mean @ d_theta

        pull = alpha * self.form.apply(point.theta)
        rounding = Rounding.of(rows.problem, rows.rows, point.theta, b, pull)
        noise, noise_b = rounding.spread(newton, FEW_PROBES)
        reached = Reached(
            theta=point.theta,
            b=b,
            step=(step, step_b - self.mean @ step),
            noise=(noise + more, noise_b + more_b + np.abs(self.mean) @ more),
            residual=point.relative,
            condition=np.inf if deficient else condition,
            deviance=rows.deviance(point.theta[None], b[None])[0],
            passes=steps,
            known=condition < SINGULAR and left < 1.0 and not deficient,
            deficient=deficient,
        )
        made = certified(reached, rows.problem, rows, self.form, alpha, tol)
        return replace(made, notes=(*made.notes, Status.ESTIMATED_DF))


@dataclass(frozen=True, eq=False)
class _Hessian:
    """The operator H + αP at a point, for all targets, with its diagonal."""

    state: ConjugateState
    rows: Curvature
    alpha: Array
    diagonal: Array
    diagonal_b: Array
    lengths: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def at(cls, state: ConjugateState, point: _Point, alpha: Array, near: _Hessian | None = None) -> _Hessian:
        rows = state.statistic.curvature(
            point.theta, point.b, state.mean, None if near is None else near.rows
        )
        d = state.form.d if state.form.rotation is None else state.form.matrix().diagonal()
        diagonal = np.maximum(rows.diagonal, 0.0) + alpha * d[:, None]
        diagonal = np.where(diagonal > 0, diagonal, 1.0)
        total = np.maximum(rows.total, 0.0)
        return cls(state, rows, alpha, diagonal, np.where(total > 0, total, 1.0))

    def apply(self, v: Array, vb: Array) -> tuple[Array, Array]:
        """Return the product with (v (p, T), vb (T,))."""
        varies = ~self.state.constant[:, None]
        result, ub = self.rows.apply(v * varies, vb)
        result = result * varies + self.alpha * self.state.form.apply(v)
        return result, ub if self.state.centre else np.zeros_like(ub)

    def solve(
        self, g: Array, gb: Array, tol: float, lengths: list[tuple[float, float]] | None = None
    ) -> tuple[Array, Array]:
        """Return (H + αP)⁻¹(g, gb) by conjugate gradients, to a share `tol` of the right side.

        `lengths` takes, for the first column, how far each step went and how much of it the next one keeps.
        """
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
            if lengths is not None and step[0] > 0:
                lengths.append((float(step[0]), float(turn[0])))
            d, db, rho = z + turn * d, zb + turn * db, new
        return x, xb

    def missed(self, g: Array, gb: Array, step: tuple[Array, Array]) -> tuple[tuple[Array, Array], float]:
        """Return what a step for a gradient may lack of the Newton step, and the share of it that is left.

        What conjugate gradients leave, r, is worth ‖r‖/λ in the norm of the diagonal, λ the smallest scaled
        curvature that they met.
        """
        q, qb = self.apply(*step)
        r, rb = g + q, gb + qb
        size = np.sqrt(self._dot(g, gb, g / self.diagonal, gb / self.diagonal_b))
        left = np.sqrt(self._dot(r, rb, r / self.diagonal, rb / self.diagonal_b))
        more = left / self.extremes()[0]
        share = float(np.max(left / np.where(size > 0, size, 1.0)))
        return (more / np.sqrt(self.diagonal), more / np.sqrt(self.diagonal_b)), share

    def undetermined(self) -> bool:
        """Return whether the rows leave a direction of unpenalised coefficients undetermined.

        A random v is found again from (H + αP)v, but for its part z in such directions, whose curvature is 0.
        """
        state, rng = self.state, np.random.default_rng(1)
        penalised = self.alpha * (state.form.d[:, None] if state.form.rotation is None else 1.0) > 0
        idle = penalised | (column_size(state.statistic, state.centre) == 0)[:, None]
        v = np.where(idle, 0.0, rng.standard_normal(self.diagonal.shape) / np.sqrt(self.diagonal))
        v, nothing = state._apart(v, np.zeros(v.shape[1]))
        found, b = self.solve(*state._apart(*self.apply(v, nothing)), NULL_TOL)
        z, zb = state._apart(v - found, -b)
        bend = self._dot(z, zb, *self.apply(z, zb))
        size, whole = (
            self._dot(u, ub, self.diagonal * u, self.diagonal_b * ub) for u, ub in ((z, zb), (v, nothing))
        )
        return bool(((bend <= FLAT * size) & (size > LOST * whole)).any())

    def _dot(self, a: Array, ab: Array, c: Array, cb: Array) -> Array:
        """Return the inner product for each target, or one for all classes."""
        each = np.einsum("jt,jt->t", a, c) + ab * cb
        return np.full_like(each, each.sum()) if self.state.loss.coupled else each

    def df(self) -> float:
        """Return an estimate of tr[(H + αP)⁻¹H] from random signs (Hutchinson, 1990), mean over targets.

        With P = LLᵀ it is p − tr[αLᵀ(H + αP)⁻¹L], of a symmetric matrix between 0 and 1, whatever the units
        of the features. Directions that are neither seen nor penalised count 0, and so does what all classes
        have in common, which is taken off the signs: it would make most of the estimate's variance.
        """
        rng = np.random.default_rng(0)
        (p, T), form, coupled = self.diagonal.shape, self.state.form, self.state.loss.coupled
        apart = T - int(coupled)
        basis = form.d[:, None] ** 0.5 if form.rotation is None else form.rotation * form.d**0.5
        total, probes = 0.0, TOGETHER * int(np.clip(SIGNS // (TOGETHER * p * T), 1, 16))
        together = TOGETHER if T == 1 else 1
        for _ in range(probes // together):
            signs, _ = self.state._apart(rng.choice([-1.0, 1.0], size=(p, T * together)), np.zeros(1))
            held = basis * signs if form.rotation is None else basis @ signs
            own = None if self.lengths else self.lengths
            inside, _ = self.solve(self.alpha * held, np.zeros(T * together), TRACE_TOL, own)
            total += p * apart * together - float(np.sum(held * inside))
        free = (form.d == 0) | (self.alpha.min() == 0)
        blind = apart * float(np.count_nonzero(self.state.constant & free))
        return float((total / probes - blind) / (1 if coupled else T))

    def condition(self) -> float:
        """Return an estimate of the condition of D⁻¹(H + αP)."""
        low, high = self.extremes()
        return high / low if low > 0 else float("inf")

    def extremes(self) -> tuple[float, float]:
        """Return estimates of the extreme eigenvalues of D⁻¹(H + αP), from steps of conjugate gradients.

        They are those of Lanczos' process, whose matrix has eigenvalues within the range (Golub and Van Loan,
        2013, section 11.3); the first solve of `df`, or one for a random right side.
        """
        if not self.lengths:
            rng = np.random.default_rng(0)
            right = rng.standard_normal(self.diagonal.shape)
            self.solve(right, np.zeros(right.shape[1]), TRACE_TOL, self.lengths)
        if not self.lengths:
            return 1.0, 1.0
        step, turn = np.array(self.lengths).T
        main = 1 / step + np.append(0.0, turn[:-1] / step[:-1])
        off = np.sqrt(turn[:-1]) / step[:-1]
        values = np.linalg.eigvalsh(np.diag(main) + np.diag(off, 1) + np.diag(off, -1))
        return float(values[0]), float(values[-1])


@dataclass(frozen=True)
class NewtonCGSolver:
    """Newton's method with conjugate gradients, for sparse rows with many features and for many classes."""

    max_steps: int = MOST_STEPS
    name: str = "newton-cg"

    def gather(
        self, problem: Problem, labels: Any = None, n_atoms: int = 1
    ) -> list[SparseRows] | list[DenseRows]:
        """Return the rows of each atom: sparse ones themselves, dense ones by name."""
        if hasattr(getattr(problem.source, "X", None), "tocsr"):
            return gather_sparse(problem, labels, n_atoms)
        found = gather_rowsets(problem, labels, n_atoms)
        return [DenseRows(rows.book, rows.atoms, rows.margins) for rows in found]

    def state(self, rows: SparseRows | DenseRows, form: QuadraticForm, centre: bool) -> ConjugateState:
        """Return a state whose models are solved when they are asked for."""
        refuse_absent(rows)
        return ConjugateState(rows, form, centre, max_steps=self.max_steps)

    def states(
        self,
        sets: Sequence[SparseRows | DenseRows],
        forms: Sequence[QuadraticForm],
        centre: bool,
        start: ConjugateState,
    ) -> list[ConjugateState]:
        """Return states of training sets, beginning at the solutions of all rows."""
        for rows in sets:
            refuse_absent(rows)
        return [
            ConjugateState(rows, form, centre, start, max_steps=self.max_steps)
            for rows, form in zip(sets, forms, strict=True)
        ]
