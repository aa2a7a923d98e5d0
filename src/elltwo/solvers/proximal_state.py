"""The state and solver of proximal Newton: what rules and results ask of an L1 path of any loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.solvers.base import UNDETERMINED, HeldOut, Outcome, leave_out_weight
from elltwo.solvers.certificate import SINGULAR, Reached, Rounding, certified, dependent
from elltwo.solvers.coordinate import check_form, check_l1_ratio, l1_grid
from elltwo.solvers.duality import feasible_slopes, has_conjugate, loss_gap
from elltwo.solvers.loss_rows import LossRows, gather_loss_rows
from elltwo.solvers.proximal import LossPoint, ProximalPath
from elltwo.solvers.quadratic_model import curvature_moments

Array = npt.NDArray[Any]

#: Relative residual to which the models of a path are solved; the chosen one is solved to what is asked for.
PATH_TOL = 1e-8
#: Rows at a time for which what they would be without each is found.
ROWS = 1 << 13


@dataclass(frozen=True, eq=False)
class Solved:
    """A solved model, as far as it is kept: the coefficients that are not 0."""

    features: Array
    values: Array
    b: float
    residual: float
    steps: int


@dataclass(frozen=True, eq=False)
class Curved:
    """The loss's quadratic model on the unpenalised and the active features: H = G + λ₂D.

    Attributes
    ----------
    features : array, shape (k,)
    mean : array, shape (k,)
        Means of the features under h = wℓ″.
    gram, H : arrays, shape (k, k)
    total : float
        Σh.
    """

    features: Array
    mean: Array
    gram: Array
    H: Array
    total: float

    @cached_property
    def inverse(self) -> Array:
        """H⁻¹, on the range of H; columns scaled before it is found."""
        size = np.sqrt(np.where(self.H.diagonal() > 0, self.H.diagonal(), 1.0))
        return np.asarray(
            np.linalg.pinv(self.H / size / size[:, None], hermitian=True) / size / size[:, None]
        )

    @cached_property
    def condition(self) -> float:
        """κ̂² of H with its columns scaled."""
        size = np.sqrt(np.where(self.H.diagonal() > 0, self.H.diagonal(), 1.0))
        values = np.linalg.eigvalsh(self.H / size / size[:, None])
        if len(values) == 0:
            return 1.0
        return float(values[-1] / values[0]) if values[0] > 0 else np.inf


@dataclass(frozen=True, eq=False)
class ProximalState:
    """Models at any alpha, kept once they have been solved.

    Attributes
    ----------
    statistic : LossRows
    form : QuadraticForm
    centre : bool
        Whether there is an intercept.
    l1_ratio, tol : float
    max_rounds : int
        Newton steps per alpha and working set, at most.
    """

    statistic: LossRows
    form: QuadraticForm
    centre: bool
    l1_ratio: float
    tol: float
    max_rounds: int
    condition_limit: float = np.inf
    _known: dict[tuple[int, float], Solved] = field(default_factory=dict, repr=False)

    @cached_property
    def paths(self) -> list[ProximalPath]:
        """One path for each target."""
        tol = max(self.tol, PATH_TOL)
        return [
            ProximalPath(self.statistic, t, self.form.d, self.centre, self.l1_ratio, tol, self.max_rounds)
            for t in range(self.n_targets)
        ]

    @property
    def n_targets(self) -> int:
        """T."""
        return int(self.statistic.y.shape[1])

    @cached_property
    def free(self) -> Array:
        """The features that are not penalised and vary."""
        return np.flatnonzero((self.form.d == 0) & (self.statistic.x_scale > 0))

    @cached_property
    def unresolved(self) -> int:
        """Unpenalised directions that the data do not determine; their coefficients are 0."""
        made = (
            [self._curved(t, np.inf, path.null) for t, path in enumerate(self.paths)]
            if len(self.free)
            else []
        )
        ranks = [np.linalg.matrix_rank(c.gram / _size(c.gram), hermitian=True) for c in made]
        return len(self.free) - int(min(ranks, default=len(self.free)))

    def points(self, target: int, alphas: Array) -> list[Solved]:
        """Return the models of a target at each alpha, solving those that are missing downwards."""
        if np.any(alphas <= 0):
            raise InputError(
                "alpha must be above 0 for an L1 penalty; without any penalty, fit a GLM with alpha=0."
            )
        missing = sorted({float(a) for a in alphas if (target, float(a)) not in self._known}, reverse=True)
        if missing:
            path = self.paths[target]
            path.start(path.largest, path.null)
            above = [a for t, a in self._known if t == target and a > missing[0]]
            if above:
                path.start(min(above), self._point(target, min(above)))
            with self.statistic.calm():
                for alpha, point in zip(missing, path.points(np.array(missing)), strict=True):
                    self._known[target, alpha] = _solved(point)
        return [self._known[target, float(a)] for a in alphas]

    def _point(self, target: int, alpha: float) -> LossPoint:
        """Return a solved model with what the rows say there."""
        (known,) = self.points(target, np.array([alpha]))
        theta = np.zeros(len(self.form.d))
        theta[known.features] = known.values
        return replace(self.paths[target].at(theta, known.b), residual=known.residual, steps=known.steps)

    def solved(self, alphas: Array) -> tuple[Array, Array]:
        """Return θ (A, p, T), exact zeros included, and b (A, T)."""
        coef = np.zeros((len(alphas), len(self.form.d), self.n_targets))
        b = np.zeros((len(alphas), self.n_targets))
        origin = self.statistic.origin
        for t in range(self.n_targets):
            for a, known in enumerate(self.points(t, alphas)):
                coef[a, known.features, t] = known.values
                b[a, t] = known.b - origin[known.features] @ known.values
        return coef, b

    def coef(self, alphas: Array) -> Array:
        """Return θ(α), shape (A, p, T)."""
        return self.solved(alphas)[0]

    def coef_at(self, alpha: Array) -> Array:
        """Return θ with an alpha of its own for each target, shape (p, T)."""
        return np.stack([self.coef(alpha[[t]])[0, :, t] for t in range(len(alpha))], axis=1)

    def deviance(self, alphas: Array) -> Array:
        """Return the deviance in sample, shape (A, T)."""
        return self.statistic.deviance(*self.solved(alphas))

    @property
    def largest_alpha(self) -> float:
        """α_max: from here on every penalised coefficient is 0, for all targets.

        max |Σ wᵢx̃ᵢⱼℓ′ᵢ|/(l1_ratio·√dⱼ) at the model of the intercept and the unpenalised features.
        """
        return max(path.largest for path in self.paths)

    def grid(self) -> Array:
        """Return the automatic grid, ascending to α_max; see `elltwo.solvers.coordinate.l1_grid`."""
        return l1_grid(self.largest_alpha, self.statistic.rows, len(self.form.d))

    def gap(self, alphas: Array) -> Array:
        """Return the duality gap as a share of half the null deviance, shape (A, T): the certificate.

        The objective exceeds its minimum by no more than that. NaN for a loss whose conjugate is not known,
        infinite where no dual point is at hand.
        """
        return np.array([[self._gap(t, float(a)) for t in range(self.n_targets)] for a in alphas])

    def _gap(self, target: int, alpha: float) -> float:
        path, rows = self.paths[target], self.statistic
        if not has_conjugate(path.loss):
            return float("nan")
        inside = np.flatnonzero(rows.w)
        point = self._point(target, alpha)
        y, w, eta = path.y[inside], rows.w[inside], point.eta[inside]
        fixed = _dense(rows.X[:, self.free])[inside] - path.mean[self.free]
        if self.centre:
            fixed = np.column_stack([np.ones(len(w)), fixed])
        slope, curvature = path.loss.derivatives(y, eta)
        v = feasible_slopes(fixed, w, slope, curvature)
        held = np.flatnonzero((self.form.d > 0) & path.varies)
        if v is None:
            return float("inf")

        def correlation(v: Array) -> Array:
            score = np.zeros(len(rows.w))
            score[inside] = w * v
            return np.asarray(path.mean * score.sum() - rows.X.T @ score)[held]

        l1, l2 = path.weights(alpha, self.form.d[held])
        gap = loss_gap(path.loss, y, eta, w, v, correlation, point.theta[held], l1, l2)
        null = float(w @ path.loss.value(y, path.bare.eta[inside]))
        return gap / null if null > 0 else 0.0

    def rounds(self, target: int, alpha: float) -> int:
        """Return the Newton steps that one model took."""
        return self.points(target, np.array([alpha]))[0].steps

    def converged(self, alphas: Array) -> Array:
        """Return whether the optimality residual is at most that of a path, shape (A, T)."""
        each = [[known.residual for known in self.points(t, alphas)] for t in range(self.n_targets)]
        return np.asarray(max(self.tol, PATH_TOL) >= np.array(each).T)

    def _curved(self, target: int, alpha: float, point: LossPoint | None = None) -> Curved:
        """Return the quadratic model at a solution."""
        point = self._point(target, alpha) if point is None else point
        features = np.union1d(self.free, np.flatnonzero(point.theta))
        gram, mean, total = curvature_moments(self.statistic.columns(features), point.curvature, self.centre)
        H, d = gram.copy(), self.form.d[features]
        H.flat[:: len(H) + 1] += alpha * (1 - self.l1_ratio) * d if self.l1_ratio < 1 and d.any() else 0.0
        return Curved(features, mean, gram, H, total)

    def df_of(self, target: int, alpha: float) -> float:
        """Return the degrees of freedom of one target at one alpha, without the intercept.

        tr G(G + λ₂D)⁻¹ over unpenalised and active features, G their Gram matrix under wℓ″. For the lasso
        that is their number.
        """
        if self.l1_ratio == 1:
            (known,) = self.points(target, np.array([alpha]))
            active = np.count_nonzero(self.form.d[known.features] > 0)
            return float(active + len(self.free) - self.unresolved)
        curved = self._curved(target, alpha)
        return float(np.sum(curved.inverse * curved.gram))

    def df_each(self, alphas: Array) -> Array:
        """Return the degrees of freedom of each target, shape (A, T)."""
        return np.array([[self.df_of(t, float(a)) for t in range(self.n_targets)] for a in alphas])

    def df(self, alphas: Array) -> Array:
        """Return the mean over targets of `df_each`, shape (A,)."""
        return np.asarray(self.df_each(alphas).mean(axis=1))

    def df_at(self, alpha: Array) -> Array:
        """Return the degrees of freedom with an alpha of its own for each target, shape (T,)."""
        return np.array([self.df_of(t, float(a)) for t, a in enumerate(alpha)])

    def condition(self, alpha: float) -> float:
        """Return κ̂² of H on the unpenalised and active features, columns scaled; the worst of all targets."""
        return max(self._curved(t, float(alpha)).condition for t in range(self.n_targets))

    def solve(self, rhs: Array, alpha: Array) -> Array:
        """Return H⁻¹rhs on the unpenalised and active features, 0 elsewhere; rhs (p, T), alpha (T,)."""
        out = np.zeros_like(rhs)
        for t, a in enumerate(alpha):
            curved = self._curved(t, float(a))
            out[curved.features, t] = curved.inverse @ rhs[curved.features, t]
        return out

    def influence(self, problem: Problem, alphas: Array) -> Iterator[HeldOut]:
        """Yield η without each row, approximately: as if the active set and the signs were to stay.

        With a = x̃ᵀH⁻¹x̃ + 1/Σh and v the weight that is left out, η₋ᵢ = η + vℓ′a/(1 − vℓ″a) (Rad and Maleki,
        2020, "A scalable estimate of the out-of-sample prediction error").
        """
        rows, T = self.statistic, self.n_targets
        models = [[self._curved(t, float(a)) for t in range(T)] for a in alphas]
        coef, b = self.solved(alphas)
        b = b + np.einsum("j,ajt->at", rows.origin, coef)
        for start in range(0, len(rows.w), ROWS):
            part = slice(start, min(len(rows.w), start + ROWS))
            X, y, w = _dense(rows.X[part]), rows.y[part], rows.w[part]
            offset = 0.0 if rows.offset is None else rows.offset[part]
            v = leave_out_weight(problem, w)[:, None]
            eta = np.empty((len(w), len(alphas), T))
            for a in range(len(alphas)):
                at = X @ coef[a] + b[a] + offset
                leverage = np.stack([self._leverage(model, X) for model in models[a]], axis=1)
                slope, curvature = problem.loss.derivatives(y, at)
                keep = 1.0 - v * curvature * leverage
                keep[keep < UNDETERMINED] = np.nan
                eta[:, a] = at + v * slope * leverage / keep
            yield HeldOut(part, slice(0, T), w, y, eta, problem.loss)

    def _leverage(self, model: Curved, X: Array) -> Array:
        """Return x̃ᵀH⁻¹x̃ + 1/Σh of rows."""
        Z = X[:, model.features] - model.mean
        own = 1.0 / model.total if self.centre and model.total > 0 else 0.0
        return np.asarray(own + np.einsum("ij,ij->i", Z @ model.inverse, Z))

    def outcome(self, alpha: Array, tol: float) -> Outcome:
        """Return the model with an alpha of its own for each target, solved to `tol`, and its certificate."""
        problem, rows = self.statistic.problem, self.statistic
        found = [self._final(t, float(a), tol) for t, a in enumerate(alpha)]
        models = [
            self._curved(t, float(a), point) for (t, a), point in zip(enumerate(alpha), found, strict=True)
        ]
        theta = np.stack([point.theta for point in found], axis=1)
        b = np.array([point.b for point in found]) - rows.origin @ theta

        def newton(g: Array, gb: Array) -> tuple[Array, Array]:
            """Return the step on the unpenalised and the active features, signs held."""
            step, step_b = np.zeros_like(g), np.zeros_like(gb)
            for t, model in enumerate(models):
                mean = model.mean + rows.origin[model.features] * self.centre
                inside = -model.inverse @ (g[model.features, t] - mean * gb[t] * self.centre)
                step[model.features, t] = inside
                if self.centre:
                    step_b[t] = -(gb[t] / model.total if model.total > 0 else 0.0) - mean @ inside
            return step, step_b

        gradient = [
            self._gradient(t, float(a), point) for (t, a), point in zip(enumerate(alpha), found, strict=True)
        ]
        g, gb = np.stack([own for own, _ in gradient], axis=1), np.array([slope for _, slope in gradient])
        l1, l2 = alpha * self.l1_ratio * np.sqrt(self.form.d)[:, None], alpha * (1 - self.l1_ratio)
        pull = l1 * np.sign(theta) + l2 * self.form.apply(theta)
        rounding = Rounding.of(problem, rows.rows, theta, b, pull)
        condition = max(model.condition for model in models) if self.unresolved == 0 else np.inf
        reached = Reached(
            theta=theta,
            b=b,
            step=newton(g, gb),
            noise=rounding.spread(newton),
            residual=max(point.residual for point in found),
            condition=condition,
            deviance=rows.deviance(theta[None], b[None])[0],
            passes=max(point.steps for point in found),
            known=condition < SINGULAR or (self.unresolved > 0 and dependent(problem, rows, self.free)),
            deficient=self.unresolved > 0,
            gap=max(self._gap(t, float(a)) for t, a in enumerate(alpha)),
            idle=max(
                path.idle(point, float(a)) for path, point, a in zip(self.paths, found, alpha, strict=True)
            ),
        )
        return certified(reached, problem, rows, self.form, alpha, tol)

    def _gradient(self, target: int, alpha: float, point: LossPoint) -> tuple[Array, float]:
        """Return the gradient on the unpenalised and the active features, 0 elsewhere, and Σ wℓ′."""
        path = self.paths[target]
        slope = float(point.score.sum()) if self.centre else 0.0
        l1, l2 = path.weights(alpha, self.form.d)
        g = -path.correlation(point) + l1 * np.sign(point.theta) + l2 * point.theta
        g[(point.theta == 0) & (self.form.d > 0)] = 0.0
        return g + (path.mean + self.statistic.origin * self.centre) * slope, slope

    def _final(self, target: int, alpha: float, tol: float) -> LossPoint:
        """Return one target's model, solved to `tol`."""
        path, point = self.paths[target], self._point(target, alpha)
        if point.residual > tol:
            path.start(alpha, point)
            better = path.move(alpha, tol)
            if better.residual < point.residual:
                point = replace(better, steps=point.steps + better.steps)
                self._known[target, alpha] = _solved(point)
        return point


def _solved(point: LossPoint) -> Solved:
    features = np.flatnonzero(point.theta)
    return Solved(features, point.theta[features], point.b, point.residual, point.steps)


def _dense(X: Any) -> Array:
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X)


def _size(gram: Array) -> Array:
    """Return what scales a Gram matrix to a unit diagonal."""
    size = np.sqrt(np.where(gram.diagonal() > 0, gram.diagonal(), 1.0))
    return np.outer(size, size)


@dataclass(frozen=True)
class ProximalSolver:
    """Elastic net of any loss that is not coupled, by proximal Newton; the rows are held in memory.

    Parameters
    ----------
    l1_ratio : float
        Share of the L1 penalty, above 0 and at most 1 (the lasso).
    tol : float
        Optimality residual at which the chosen model counts as solved: the largest violation of a condition,
        as a share of ‖√w·x̃ⱼ‖·‖√w·ℓ′‖ with ℓ′ at the model without features. Models of the path are solved to
        1e-8, if that is larger.
    max_rounds : int
        Newton steps per alpha and working set, at most.
    """

    l1_ratio: float = 0.5
    tol: float = 1e-10
    max_rounds: int = 1000
    name: str = "proximal"

    def __post_init__(self) -> None:
        """Refuse an l1_ratio outside its range."""
        check_l1_ratio(self.l1_ratio)

    def gather(self, problem: Problem, labels: Any = None, n_atoms: int = 1) -> list[LossRows]:
        """Return the rows of each atom."""
        if problem.prior is not None:
            raise InputError(
                "prior: an L1 penalty shrinks towards 0; give X @ prior as an offset for another centre."
            )
        if problem.loss.coupled:
            raise InputError(
                f"the loss '{problem.loss.name}' couples its classes, and an L1 penalty is not available for "
                "it. Fit each class against the rest with the binomial loss, or use an L2 penalty (ridge)."
            )
        return gather_loss_rows(problem, labels, n_atoms)

    def state(self, statistic: LossRows, form: QuadraticForm, centre: bool) -> ProximalState:
        """Return a state whose models are solved when they are asked for."""
        check_form(form)
        return ProximalState(statistic, form, centre, float(self.l1_ratio), self.tol, self.max_rounds)
