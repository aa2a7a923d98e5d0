"""The elastic net for any smooth convex loss: proximal Newton on a working set.

    minimise Σᵢ wᵢ·½dev(yᵢ, b + xᵢᵀθ) + α·[l1_ratio·Σⱼ √dⱼ|θⱼ| + (1 − l1_ratio)/2·Σⱼ dⱼθⱼ²]

Each step replaces the loss by its quadratic model at the present η: weighted least squares with weights
wᵢ·ℓ″ᵢ and targets ηᵢ − ℓ′ᵢ/ℓ″ᵢ, whose elastic net `elltwo.solvers.working_set` solves exactly; a line search
on the objective guards the step (Lee, Sun and Saunders, 2014, "Proximal Newton-type methods"). Only features
that the sequential strong rule lets through take part (Tibshirani et al., 2012); a pass over all features
then finds those it missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.solvers.coordinate import (
    GRID,
    SPAN_TALL,
    SPAN_WIDE,
    CoordinateSolver,
    Reduced,
    SparseRows,
    kkt_residual,
    reduce_rows,
    reduce_sparse,
)
from elltwo.solvers.dual import Rows
from elltwo.solvers.working_set import PathRunner, Point

Array = npt.NDArray[Any]

#: Curvatures below this share of the largest count as that much: the quadratic model then has a minimum.
LEAST_CURVATURE = 1e-10
#: Newton steps per working set, halvings per step, and working sets per alpha, at most.
STEPS, HALVINGS, SETS = 100, 40, 50
#: Share of the predicted decrease that a step must bring; changes of the objective below this are rounding.
ARMIJO, FLAT = 1e-4, 1e-13


@dataclass(frozen=True)
class GlmPath:
    """A path of sparse generalised linear models.

    Attributes
    ----------
    alphas : array, shape (A,)
        On the sum scale, in the order asked for.
    coef : array, shape (A, p)
    intercept : array, shape (A,)
    kkt : array, shape (A,)
        Optimality residual, the certificate: the largest violation of the optimality conditions over all
        features and the intercept, as a share of ‖√w·x̃ⱼ‖·‖√w·ℓ′‖ with ℓ′ at the model without features.
    steps : array of int, shape (A,)
        Newton steps.
    """

    alphas: Array
    coef: Array
    intercept: Array
    kkt: Array
    steps: Array


def glm_path(
    X: Any,
    y: Array,
    w: Array | None = None,
    *,
    loss: Any,
    d: Array | None = None,
    alphas: Array | None = None,
    l1_ratio: float = 1.0,
    centre: bool = True,
    tol: float = 1e-10,
) -> GlmPath:
    """Fit a path of elastic nets with any loss of `elltwo.losses` that is smooth and not coupled.

    Parameters
    ----------
    X : array or scipy sparse matrix, shape (n, p)
        Features; a sparse matrix stays sparse.
    y : array, shape (n,)
        Target, in the range of the loss.
    w : array, shape (n,), optional
        Row weights; None stands for 1.
    loss : Loss
        Half the unit deviance, convex in η.
    d : array, shape (p,), optional
        Diagonal of the penalty, 0 = unpenalised; None stands for 1.
    alphas : array, shape (A,), optional
        On the sum scale, above 0. None stands for 100 alphas from α_max, where every penalised coefficient
        is 0, down to 10⁻³ of it (10⁻² if n < p).
    l1_ratio : float
        Above 0 and at most 1.
    centre : bool
        Whether to fit an intercept.
    tol : float
        Optimality residual (see `GlmPath.kkt`) to stop at.

    Raises
    ------
    InputError
        For a coupled loss, an l1_ratio out of range or alphas that are not above 0.

    Examples
    --------
    >>> from elltwo.losses import Binomial
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 10))
    >>> y = (X[:, 0] + rng.logistic(size=200) > 0).astype(float)
    >>> path = glm_path(X, y, loss=Binomial(), alphas=np.array([20.0, 5.0]))
    >>> np.flatnonzero(path.coef[0]), bool(path.kkt.max() < 1e-10)
    (array([0]), True)
    """
    fit = _Fit.of(X, y, w, loss, d, l1_ratio, centre, tol)
    if alphas is None:
        n, p = X.shape
        alphas = fit.largest * np.geomspace(1.0, SPAN_WIDE if n < p else SPAN_TALL, GRID)
    asked = np.asarray(alphas, dtype=np.float64)
    if asked.ndim != 1 or not np.all(np.isfinite(asked) & (asked > 0)):
        raise InputError("alphas must be a vector of finite numbers above 0 for an L1 penalty.")
    order = np.argsort(-asked, kind="stable")
    A, p = len(asked), X.shape[1]
    coef, intercept, kkt, steps = np.zeros((A, p)), np.zeros(A), np.zeros(A), np.zeros(A, dtype=int)
    now, before = fit.start, fit.largest
    for a in order:
        now, residual, taken = fit.at(float(asked[a]), before, now)
        before = float(asked[a])
        coef[a], intercept[a], kkt[a], steps[a] = now.theta, now.b, residual, taken
    return GlmPath(asked, coef, intercept, kkt, steps)


@dataclass(frozen=True, eq=False)
class _Model:
    """θ (p,), b, and what the rows say there: η, wℓ′ and wℓ″ (n,)."""

    theta: Array
    b: float
    eta: Array
    score: Array
    curvature: Array


@dataclass(frozen=True, eq=False)
class _Fit:
    """The problem, its null model and the scales that residuals are measured by."""

    X: Any
    y: Array
    w: Array
    loss: Any
    d: Array
    l1_ratio: float
    centre: bool
    tol: float
    x_mean: Array
    size: Array
    start: _Model
    largest: float

    @classmethod
    def of(
        cls,
        X: Any,
        y: Array,
        w: Array | None,
        loss: Any,
        d: Array | None,
        l1_ratio: float,
        centre: bool,
        tol: float,
    ) -> _Fit:
        """Check the parts and fit the model of the unpenalised features alone."""
        CoordinateSolver(l1_ratio)
        if loss.coupled:
            raise InputError(f"the loss '{loss.name}' couples its classes; fit one class against the rest.")
        if hasattr(X, "tocsc"):
            X = X.tocsc().astype(np.float64)
        else:
            X = np.asarray(X, dtype=np.float64)
        n, p = X.shape
        y = np.asarray(y, dtype=np.float64)
        w = np.ones(n) if w is None else np.asarray(w, dtype=np.float64)
        d = np.ones(p) if d is None else np.asarray(d, dtype=np.float64)
        if y.shape != (n,) or w.shape != (n,) or d.shape != (p,):
            raise InputError(
                f"X has shape {(n, p)}, but y {y.shape}, w {w.shape} and d {d.shape}; they must be "
                f"({n},), ({n},) and ({p},)."
            )
        loss.check(y, "y")
        whole: Any = (
            SparseRows(X, y[:, None], w, False) if hasattr(X, "tocsc") else Rows(X, y[:, None], w, False)
        )
        mean = whole.x_mean if centre else np.zeros(p)
        spread = np.sqrt(w.sum() * (whole.x_scale**2 + (0.0 if centre else whole.x_mean**2)))
        b = float(np.asarray(loss.null(np.array([w @ y / w.sum()])))[0]) if centre else 0.0
        eta = np.full(n, b)
        slope, _ = loss.derivatives(y, eta)
        size = np.append(spread, np.sqrt(w.sum())) * float(np.sqrt(w @ slope**2))
        fit = cls(X, y, w, loss, d, float(l1_ratio), centre, tol, mean, size, None, 0.0)  # type: ignore[arg-type]
        null = fit._model(np.zeros(p), b, eta)
        free = np.flatnonzero((d == 0) & (spread > 0))
        if len(free) or centre:
            null, _ = fit._newton(null, free, 0.0)
        held = d > 0
        steep = np.abs(fit._correlation(null))[held & (spread > 0)] / np.sqrt(d[held & (spread > 0)])
        return cls(
            X,
            y,
            w,
            loss,
            d,
            float(l1_ratio),
            centre,
            tol,
            mean,
            size,
            null,
            float(steep.max(initial=0.0)) / l1_ratio,
        )

    def _model(self, theta: Array, b: float, eta: Array) -> _Model:
        slope, bend = self.loss.derivatives(self.y, eta)
        return _Model(theta, b, eta, self.w * slope, self.w * bend)

    def _correlation(self, model: _Model) -> Array:
        """Return −Zᵀ(wℓ′), shape (p,): minus the gradient of the loss, with columns centred."""
        return np.asarray(self.x_mean * model.score.sum() - self.X.T @ model.score)

    def _residual(self, model: _Model, alpha: float) -> Array:
        """Return the relative violation of each feature's optimality condition and of the intercept's."""
        c = self._correlation(model)
        each = kkt_residual(c[:, None], model.theta[:, None], self.d, np.array([alpha]), self.l1_ratio)[:, 0]
        own = model.score.sum() if self.centre else 0.0
        violation = np.abs(np.append(each, own))
        return np.where(self.size > 0, violation / np.where(self.size > 0, self.size, 1.0), 0.0)

    def _objective(self, theta: Array, eta: Array, alpha: float) -> float:
        penalty = (
            self.l1_ratio * np.sqrt(self.d) @ np.abs(theta) + (1 - self.l1_ratio) / 2 * self.d @ theta**2
        )
        with np.errstate(over="ignore"):
            return float(self.w @ self.loss.value(self.y, eta) + alpha * penalty)

    def at(self, alpha: float, before: float, model: _Model) -> tuple[_Model, float, int]:
        """Return the solution at alpha, started from that at the alpha before, its residual and the steps."""
        c = np.abs(self._correlation(model))
        strong = c >= np.sqrt(self.d) * self.l1_ratio * (2 * alpha - before)
        chosen = np.flatnonzero((strong | (model.theta != 0) | (self.d == 0)) & (self.size[:-1] > 0))
        total = 0
        for _ in range(SETS):
            model, steps = self._newton(model, chosen, alpha)
            total += steps
            residual = self._residual(model, alpha)
            missed = np.setdiff1d(np.flatnonzero(residual[:-1] > self.tol), chosen)
            if len(missed) == 0:
                break
            chosen = np.sort(np.concatenate([chosen, missed]))
        return model, float(residual.max()), total

    def _newton(self, model: _Model, chosen: Array, alpha: float) -> tuple[_Model, int]:
        """Return the solution on these features and the number of steps taken."""
        columns = self.X[:, chosen]
        inside = np.append(chosen, len(self.d))
        best = np.inf
        stalled = 0
        for step in range(STEPS):
            worst = float(self._residual_on(model, columns, chosen, alpha)[inside].max())
            if worst <= self.tol / 10:
                return model, step
            stalled = stalled + 1 if worst > 0.5 * best else 0
            best = min(best, worst)
            if stalled >= 8 and worst <= self.tol:
                return model, step
            theta, b = self._step(model, columns, chosen, alpha)
            better = self._search(model, theta, b, columns, chosen, alpha)
            if better is None:
                return model, step
            model = better
        return model, STEPS

    def _residual_on(self, model: _Model, columns: Any, chosen: Array, alpha: float) -> Array:
        """Return the violations of these features (and the intercept); zero for the others."""
        out = np.zeros(len(self.size))
        c = self.x_mean[chosen] * model.score.sum() - columns.T @ model.score
        each = kkt_residual(
            np.asarray(c)[:, None],
            model.theta[chosen][:, None],
            self.d[chosen],
            np.array([alpha]),
            self.l1_ratio,
        )[:, 0]
        out[chosen] = np.abs(each)
        out[-1] = abs(model.score.sum()) if self.centre else 0.0
        return np.where(self.size > 0, out / np.where(self.size > 0, self.size, 1.0), 0.0)

    def _step(self, model: _Model, columns: Any, chosen: Array, alpha: float) -> tuple[Array, float]:
        """Return the minimiser (θ of these features, b) of the quadratic model."""
        bend = np.maximum(model.curvature, LEAST_CURVATURE * model.curvature.max() * (self.w > 0))
        rows_used = bend > 0
        target = model.eta - np.where(rows_used, model.score / np.where(rows_used, bend, 1.0), 0.0)
        d = self.d[chosen]
        rows: Any
        reduced: Reduced
        if hasattr(columns, "tocsc"):
            rows = SparseRows(columns, target[:, None], bend, False)
            reduced = reduce_sparse(rows, d, self.centre)
        else:
            rows = Rows(columns, target[:, None], bend, False)
            reduced = reduce_rows(rows, d, self.centre)
        if len(reduced.held) and alpha > 0:
            runner = PathRunner(reduced.design, 0, reduced.design.cross[:, 0], self.l1_ratio, 1000)
            u = model.theta[chosen][reduced.held] * reduced.root
            some = np.flatnonzero(u)
            runner.start(alpha, Point(some, u[some], np.sign(u[some]), 0.0, 0.0, 0, True))
            point = runner.solve(alpha)
            theta = reduced.expand(point.features, point.values, 0)
        else:
            theta = reduced.expand(np.zeros(0, dtype=np.int64), np.zeros(0), 0)
        b = float(rows.y_mean[0] - rows.x_mean @ theta) if self.centre else 0.0
        return theta, b

    def _search(
        self, model: _Model, theta: Array, b: float, columns: Any, chosen: Array, alpha: float
    ) -> _Model | None:
        """Return the model at the first of 1, ½, ¼ … of the step that lowers the objective, or None."""
        here = self._objective(model.theta, model.eta, alpha)
        full = np.zeros_like(model.theta)
        full[chosen] = theta
        eta = np.asarray(columns @ theta) + b
        penalty = alpha * self.l1_ratio * np.sqrt(self.d) @ (np.abs(full) - np.abs(model.theta)) + alpha * (
            1 - self.l1_ratio
        ) / 2 * self.d @ (full**2 - model.theta**2)
        decrease = min(float(model.score @ (eta - model.eta) + penalty), 0.0)
        worst = self._residual_on(model, columns, chosen, alpha).max()
        t = 1.0
        for _ in range(HALVINGS):
            new = full if t == 1 else model.theta + t * (full - model.theta)
            at = eta if t == 1 else model.eta + t * (eta - model.eta)
            value = self._objective(new, at, alpha)
            if value <= here + FLAT * abs(here):
                found = self._model(new, b if t == 1 else model.b + t * (b - model.b), at)
                if value <= here + ARMIJO * t * decrease < here:
                    return found
                # The objective's rounding may hide what the step brings; the residual shows it.
                if self._residual_on(found, columns, chosen, alpha).max() < worst:
                    return found
            t /= 2
        return None
