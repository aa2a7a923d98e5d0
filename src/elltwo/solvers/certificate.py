"""From an optimum that an iteration reached to its outcome: expected digits, and every status, in one place.

What is left of an error when an iteration ends has two parts: the Newton step δ = −(H + αP)⁻¹g that was not
taken, and what rounding makes of the gradient g itself,

    g = Σ wᵢℓ'ᵢxᵢ + αPθ,      δg = Σ wᵢ(ℓ'ᵢδxᵢ + ℓ''ᵢ·δηᵢ·xᵢ) + …,

with |δx| ≤ u|x| and δη a rounding of the terms b, xⱼθⱼ and offset that η is the sum of. The same terms say
how far the float64 in memory may be from the decimals in a file. (H + αP)⁻¹ takes random δg back to the
coefficients (Chaitin-Chatelin and Frayssé, 1996, "Lectures on finite precision computations").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF
from elltwo.data.base import Block
from elltwo.errors import Status
from elltwo.losses import Loss
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem
from elltwo.results import Certificate
from elltwo.solvers.base import Outcome, targets_as_given
from elltwo.solvers.null import null_deviance

Array = npt.NDArray[Any]
#: (g (p, T), g_b (T,)) -> the Newton step (δθ, δb) at the optimum.
Solve = Callable[[Array, Array], tuple[Array, Array]]

#: A deviance below this share of the null deviance is that of classes that are told apart without an error.
SEPARATED = 1e-6
#: A residual above the tolerance is rounding if the step left is at most so many times what rounding does.
ROUNDED = 30.0
#: A step that would change η of a row by so much, at an optimum: it goes on for ever, by 1 each time.
GROWS = 0.5
#: From this κ̂² on, float64 does not tell the smallest direction of H + αP from one without curvature.
SINGULAR = 0.05 / ROUNDOFF
#: Fewer digits than this are told.
FEW_DIGITS = 6
#: A coefficient whose effect is below this share of the largest counts as 0.
ZERO = 1e-10
#: Elements of X that the effect of rounding is measured on, the fewest rows, and the number of probes.
SAMPLE, FEWEST, PROBES = 100_000, 32, 8
#: Rounding errors of one operation that a sum of many of them amounts to.
ROUNDINGS = 2.0
#: Features up to which dependent columns are told from nearly dependent ones.
MOST_COLUMNS = 1000


@dataclass(frozen=True, eq=False)
class Rounding:
    """How uncertain rounding leaves the gradient, on a sample of the rows.

    Attributes
    ----------
    X : array or sparse matrix, shape (m, p)
    rows : array, shape (m, T)
        Of wℓ' in every row, which moves all of the gradient.
    own, own_b : arrays, shapes (p, T) and (T,)
        Of the sums Σ wℓ'xⱼ and Σ wℓ' themselves, and of αPθ.
    scale : float
        From a random sum over the sample to one over all rows.
    """

    X: Any
    rows: Array
    own: Array
    own_b: Array
    scale: float

    @classmethod
    def of(cls, problem: Problem, rows: int, theta: Array, b: Array, pull: Array) -> Rounding:
        """Measure it at a model (θ (p, T), b (T,)) of the problem less its prior; `pull` is αPθ."""
        return cls.on(sample(problem), problem.loss, rows, theta, b, pull)

    @classmethod
    def on(cls, block: Block, loss: Loss, rows: int, theta: Array, b: Array, pull: Array) -> Rounding:
        """Measure it on some of so many rows."""
        X, unit = block.X, ROUNDINGS * ROUNDOFF
        w = np.ones((len(block.y), 1)) if block.weights is None else block.weights[:, None]
        known = 0.0 if block.offset is None else block.offset
        slope, curvature = loss.derivatives(block.y, np.asarray(X @ theta) + b + known)
        squares = X.multiply(X) if hasattr(X, "multiply") else X * X
        terms = 1.0 + np.sqrt(np.asarray(squares @ theta**2)) + np.abs(b) + np.abs(known)
        each = np.abs(slope) + curvature * terms
        if loss.link in ("logit", "softmax"):  # μ − y, of numbers near 1
            each = each + np.abs(block.y)
        scale = float(np.sqrt(max(1.0, rows / max(1.0, float(np.count_nonzero(w))))))
        own = scale * np.sqrt(np.asarray(squares.T @ (w * slope) ** 2)) + np.abs(pull)
        own_b = scale * np.linalg.norm(w * slope, axis=0)
        return cls(X, unit * w * each, unit * own, unit * own_b, scale)

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return a random change of the gradient, (p, T) and (T,)."""
        e = self.scale * self.rows * rng.standard_normal(self.rows.shape)
        g = np.asarray(self.X.T @ e) + self.own * rng.standard_normal(self.own.shape)
        return g, e.sum(axis=0) + self.own_b * rng.standard_normal(self.own_b.shape)

    def spread(self, solve: Solve, probes: int = PROBES) -> tuple[Array, Array]:
        """Return the root mean square change of θ (p, T) and b (T,)."""
        rng = np.random.default_rng(0)
        total, total_b = np.zeros_like(self.own), np.zeros_like(self.own_b)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(probes):
                d_theta, d_b = solve(*self.draw(rng))
                total += d_theta**2
                total_b += d_b**2
        return np.sqrt(total / probes), np.sqrt(total_b / probes)


@dataclass(frozen=True, eq=False)
class Reached:
    """An optimum as a solver left it, of the problem less its prior, and what the solver knows of it.

    Attributes
    ----------
    theta, b : arrays, shapes (p, T) and (T,)
    step, noise : pairs of arrays like (θ, b)
        The Newton step from there, not taken; and what rounding moves (θ, b) by, root mean square.
    residual : float
        Largest violation of an optimality condition, relative.
    condition : float
        κ̂² of H + αP, columns scaled; infinite if it is singular.
    deviance : array, shape (S,)
    passes : int
    known : bool
        Whether float64 tells the smallest direction of what the step was solved with from 0.
    deficient : bool
        Whether the rows leave some direction of the coefficients undetermined, and so does the penalty.
    gap : float, optional
        Duality gap.
    idle : float
        With an L1 penalty, the largest violation of a coefficient that is 0.
    """

    theta: Array
    b: Array
    step: tuple[Array, Array]
    noise: tuple[Array, Array]
    residual: float
    condition: float
    deviance: Array
    passes: int
    known: bool
    deficient: bool
    gap: float | None = None
    idle: float = 0.0


def certified(
    reached: Reached, problem: Problem, statistic: Any, form: QuadraticForm, alpha: Array, tol: float
) -> Outcome:
    """Return the outcome of an optimum: the model, its certificate, and what its reader should know."""
    null = null_deviance(problem, targets_as_given(problem, statistic)[0])
    free = bool((alpha == 0).any() or (form.d == 0).any())
    loss = problem.loss
    best = np.ones(1, dtype=bool) if not problem.fit_intercept else has_intercept(loss, statistic.y_mean)
    certificate, notes = judged(
        reached,
        statistic,
        loss,
        tol,
        separable=free and bool((reached.deviance < SEPARATED * null).any()),
        without_best=not best.all(),
        grows=lambda: free and _grows(problem, statistic, reached.step),
        worse=problem.prior is None and bool((reached.deviance > (1 + 1e-6) * null).any()),
    )
    theta, b = problem.restore(reached.theta, reached.b)
    return Outcome(theta, b, reached.deviance, null, certificate, notes)


def judged(
    reached: Reached,
    statistic: Any,
    loss: Loss,
    tol: float,
    *,
    separable: bool = False,
    without_best: bool = False,
    grows: Callable[[], bool] = lambda: False,
    worse: bool = False,
    measured_on: str = "rows",
) -> tuple[Certificate, tuple[Status, ...]]:
    """Return the certificate of an optimum and its statuses, which mean the same in every solver.

    | status | means |
    |---|---|
    | SEPARATED | classes, a coefficient without penalty, and next to nothing of the null deviance is left |
    | UNBOUNDED | log or logit: no row has an event, or none has not (`without_best` intercept); or at the
      optimum a coefficient without penalty goes on changing η of a row by about 1 in each step |
    | NOT_CONVERGED | what is left is above `tol` by more than rounding explains, or the fit is `worse` than
      no features |
    | RANK_DEFICIENT | directions that neither rows nor penalty determine |
    | LOST_DIGITS | fewer than 6 digits |
    | MOMENTS_ONLY | the residual was measured on moments |
    """
    digits = digits_of(reached, statistic, loss)
    notes: tuple[Status, ...] = ()
    if loss.link in ("logit", "softmax") and separable:
        notes, digits = (Status.SEPARATED,), 0.0
    elif without_best:
        notes, digits = (Status.UNBOUNDED,), 0.0
    elif worse or not converged(reached, tol):  # nothing is worse than no features, unless the prior is
        notes, digits = (Status.NOT_CONVERGED,), 0.0 if worse else min(digits, _digits(reached.residual))
    elif loss.link in ("logit", "softmax", "log") and grows():
        notes, digits = (Status.UNBOUNDED,), 0.0
    elif reached.deficient:
        notes = (Status.RANK_DEFICIENT,)
    certificate = Certificate(
        residual=reached.residual,
        measured_on=measured_on,
        condition=float(np.sqrt(reached.condition)),
        digits=digits,
        refinements=reached.passes,
        gap=reached.gap,
    )
    return certificate, (*notes, *told(certificate))


def told(certificate: Certificate) -> tuple[Status, ...]:
    """Return what a certificate by itself has to be told of: few digits, and moments in place of rows."""
    few = (Status.LOST_DIGITS,) if certificate.digits < FEW_DIGITS else ()
    return few + ((Status.MOMENTS_ONLY,) if certificate.measured_on == "moments" else ())


def dual_notes(
    certificate: Certificate, tol: float, rounding: float, *, deficient: bool = False
) -> tuple[Status, ...]:
    """Return the statuses of a kernel model, from the residual of its dual system, known to `rounding`.

    They mean what they mean in `judged`.
    """
    notes: tuple[Status, ...] = (Status.RANK_DEFICIENT,) if deficient else ()
    if not certificate.residual <= max(tol, rounding):
        notes = (Status.NOT_CONVERGED,)
    return (*notes, *told(certificate))


def converged(reached: Reached, tol: float) -> bool:
    """Return whether the residual, or the duality gap, is what was asked for, or what is left is rounding."""
    if reached.residual <= tol or (reached.gap is not None and reached.gap <= tol):
        return True
    if reached.idle > tol:
        return False
    pairs = zip(reached.step, reached.noise, (reached.theta, reached.b), strict=True)
    return all(bool(np.all(np.abs(d) <= ROUNDED * (noise + ROUNDOFF * np.abs(x)))) for d, noise, x in pairs)


def digits_of(reached: Reached, statistic: Any, loss: Loss) -> float:
    """Return the expected correct decimal digits of the worst coefficient, at most 15.9.

    Coefficients whose effect |θⱼ|·rms(xⱼ) is below 1e-10 of their target's largest count as 0, and so does an
    intercept below 1e-10 of the terms that make it up.
    """
    if not reached.known:
        return 0.0
    theta, b = reached.theta, reached.b
    error, error_b = (
        np.abs(d) + noise + ROUNDOFF * np.abs(x)
        for d, noise, x in zip(reached.step, reached.noise, (theta, b), strict=True)
    )
    effect = np.abs(theta) * np.hypot(statistic.x_scale, statistic.x_mean)[:, None]
    largest = effect.max(initial=0.0) if loss.coupled else effect.max(axis=0, initial=0.0)
    real = effect > ZERO * largest
    terms = np.abs(statistic.x_mean) @ np.abs(theta) + statistic.x_scale @ np.abs(theta)
    real_b = (np.abs(b) > ZERO * terms) & (b != 0)
    worst = max((error[real] / np.abs(theta[real])).max(initial=0.0), 0.0)
    worst = max(worst, float((error_b[real_b] / np.abs(b[real_b])).max(initial=0.0)))
    return _digits(worst) if np.isfinite(worst) else 0.0


def _digits(error: float) -> float:
    """Return −log₁₀ of a relative error, within 0 and 15.9."""
    return float(np.clip(-np.log10(max(error, 1e-300)), 0.0, 15.9)) + 0.0


def has_intercept(loss: Loss, y_mean: Array) -> Array:
    """Return for which targets there is a best intercept: some row has an event, and some has not, (T,).

    >>> from elltwo.losses import Binomial
    >>> has_intercept(Binomial(), np.array([0.0, 0.5, 1.0]))
    array([False,  True, False])
    """
    if loss.link not in ("logit", "log"):
        return np.ones(len(y_mean), dtype=bool)
    inside = y_mean > 0 if loss.link == "log" else (y_mean > 0) & (1 - y_mean > 8 * ROUNDOFF)
    return np.asarray(inside)


def _grows(problem: Problem, statistic: Any, step: tuple[Array, Array]) -> bool:
    """Return whether a step would change η of some row by GROWS; a pass, if means and spreads leave it open.

    No row is farther from the mean than √n standard deviations.
    """
    d_theta, d_b = step
    level = np.abs(d_b + statistic.x_mean @ d_theta)
    most = level + np.sqrt(statistic.rows) * (statistic.x_scale @ np.abs(d_theta))
    if not np.isfinite(most).all():
        return True
    if (most < GROWS).all():
        return False
    return any(bool((np.abs(X @ d_theta + d_b) > GROWS).any()) for X in _features(problem))


def _features(problem: Problem) -> Iterator[Any]:
    """Yield the features of all rows, sparse ones as they are."""
    X: Any = getattr(problem.source, "X", None)
    if hasattr(X, "tocsr"):
        yield X
        return
    for block in problem.source.blocks():
        yield block.X


def sample(problem: Problem, fewest: int = FEWEST) -> Block:
    """Return evenly spaced rows of the first block, about SAMPLE elements, less the prior; sparse ones so."""
    source: Any = problem.source
    X: Any = getattr(source, "X", None)
    if not hasattr(X, "tocsr"):
        block = next(problem.blocks())
        return _every(block, max(1, len(block.y) // max(fewest, SAMPLE // block.X.shape[1])))
    each = 1 + X.nnz // X.shape[0]
    whole = Block(X, source.y, source.weights, 0, source.given_offset)
    few = _every(whole, max(1, len(source.y) // max(fewest, SAMPLE // each)))
    rows, offset = few.X.astype(np.float64), few.offset
    if problem.prior is not None:
        own = rows @ problem.prior_column - problem.origin @ problem.prior_column
        offset = own if offset is None else offset + own
    if problem.squared and offset is not None:
        return Block(rows, few.y - offset, few.weights, 0)
    return Block(rows, few.y, few.weights, 0, offset)


def _every(block: Block, step: int) -> Block:
    weights = None if block.weights is None else block.weights[::step]
    offset = None if block.offset is None else block.offset[::step]
    return Block(block.X[::step], block.y[::step], weights, block.start, offset)


def dependent(problem: Problem, statistic: Any, features: Array) -> bool:
    """Return whether some columns are combinations of others, and all the rest are far from that.

    Squares cannot tell these from columns that are nearly so, whose coefficients are lost; singular values of
    a sample of the rows can.
    """
    p = len(features)
    if p > MOST_COLUMNS:
        return False
    X = sample(problem, 2 * p).X[:, features]
    X = X.toarray() if hasattr(X, "toarray") else X
    mean, scale = statistic.x_mean[features], statistic.x_scale[features]
    Z = X - mean if problem.fit_intercept else X
    size = np.linalg.norm(Z, axis=0)
    Z = Z[:, size > 0] / size[size > 0]
    if not Z.size:
        return True
    far = float(np.max(np.abs(mean) / np.where(scale > 0, scale, np.inf), initial=0.0))
    values = np.linalg.svd(Z, compute_uv=False)
    # What is left of a column that is the rounded sum of others, whose size is no more than a few roundings.
    noise = 4 * np.sqrt(Z.shape[1]) * ROUNDOFF * (1 + far * problem.fit_intercept)
    share = values / values[0]
    return bool((share <= noise).any() or len(values) < Z.shape[1]) and not bool(
        ((share > noise) & (share < 1 / np.sqrt(SINGULAR))).any()
    )
