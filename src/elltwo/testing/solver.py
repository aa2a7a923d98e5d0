"""Conformance of a solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block
from elltwo.data.memory import MemorySource
from elltwo.penalties import Diagonal, Identity, Matrix, QuadraticForm, Standardized
from elltwo.problem import Problem
from elltwo.testing.comparing import ROUNDING, close, equal, read_only, require

Array = npt.NDArray[Any]


class _Pieces(MemorySource):
    """Rows handed out a few at a time and read-only, so that a solver has to merge and cannot write."""

    def blocks(self) -> Iterator[Block]:
        """Iterate over seven rows at a time."""
        for start in range(0, len(self.y), 7):
            rows = slice(start, start + 7)
            weights = None if self.weights is None else read_only(self.weights[rows])
            yield Block(read_only(self.dense(rows)), read_only(self.y[rows]), weights, start)


@dataclass(frozen=True)
class _Rows:
    """Rows as plain arrays, and what follows from them by definition: the independent side of the comparison.

    X (n, p), y (n, T) with the prior's part taken off, w (n,); `centre` says whether there is an intercept.
    """

    X: Array
    y: Array
    w: Array
    counts: bool
    centre: bool

    def mean(self, values: Array) -> Array:
        return np.asarray(self.w @ values / self.w.sum())

    def scale(self, values: Array) -> Array:
        return np.asarray(np.sqrt(self.w @ (values - self.mean(values)) ** 2 / self.w.sum()))

    def centred(self, values: Array) -> Array:
        return np.asarray(values - self.mean(values)) if self.centre else values

    @property
    def gram(self) -> Array:
        Z = self.centred(self.X)
        return np.asarray(Z.T @ (self.w[:, None] * Z))

    def solve(self, form: QuadraticForm, alpha: float) -> tuple[Array, Array]:
        """Return θ (p, T) and b (T,) by least squares on [√w·Z; √α·B], BᵀB = P."""
        root = np.sqrt(self.w)[:, None]
        rows = np.vstack([root * self.centred(self.X), np.sqrt(alpha) * form.root()])
        right = np.vstack([root * self.centred(self.y), np.zeros((len(rows) - len(self.y), self.y.shape[1]))])
        coef = np.linalg.lstsq(rows, right, rcond=None)[0]
        b = self.mean(self.y) - self.mean(self.X) @ coef if self.centre else np.zeros(self.y.shape[1])
        return coef, b

    def deviance(self, coef: Array, b: Array) -> Array:
        return np.asarray(self.w @ (self.y - self.X @ coef - b) ** 2)

    def held_out(self, form: QuadraticForm, alpha: float, i: int) -> Array:
        """Return yᵢ − ŷ₋ᵢ (T,), refitted without row i, or without one observation of it for counts."""
        left = self.w.copy()
        left[i] = max(left[i] - 1, 0.0) if self.counts else 0.0
        coef, b = replace(self, w=left).solve(form, alpha)
        return np.asarray(self.y[i] - self.X[i] @ coef - b)


def _problems() -> dict[str, Problem]:
    """Return small problems, one for each thing that a solver has to honour."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(23, 4)) * [1.0, 3.0, 0.5, 2.0] + [0.0, 10.0, 0.0, -1.0]
    y = np.column_stack([X @ [1.0, -0.5, 2.0, 0.0], np.zeros(23)]) + rng.normal(size=(23, 2))
    precisions, counts = rng.uniform(0.3, 3.0, size=23), np.arange(23) % 4
    precisions[5] = 0.0
    constant = np.column_stack([X, np.full(23, 7.0)])
    differences = np.diff(np.eye(4), axis=0)
    wide = rng.normal(size=(8, 11))
    one, both = y[:, 0], y
    return {
        "plain": Problem(_Pieces(X, one)),
        "two targets": Problem(_Pieces(X, both)),
        "no intercept": Problem(_Pieces(X, one), fit_intercept=False),
        "precisions": Problem(_Pieces(X, one, precisions)),
        "counts": Problem(_Pieces(X, one, counts, weights_are="frequency")),
        "multipliers": Problem(_Pieces(X, one), Diagonal.of([0.0, 1.0, 5.0, 0.2])),
        "full matrix": Problem(_Pieces(X, one), Matrix.of(differences.T @ differences + 0.1 * np.eye(4))),
        "standardised, constant column": Problem(_Pieces(constant, one), Standardized(Identity())),
        "prior": Problem(_Pieces(X, one), prior=np.array([1.0, -1.0, 0.5, 2.0])),
        "more features than rows": Problem(_Pieces(wide, wide[:, :2] + 1.0)),
        "everything": Problem(
            _Pieces(np.asfortranarray(X), both, counts, weights_are="frequency"),
            Standardized(Diagonal.of([0.0, 1.0, 5.0, 0.2])),
            prior=np.array([0.0, -1.0, 0.5, 2.0]),
        ),
    }


def check_solver(solver: Any) -> None:
    """Check a solver against dense least squares and explicit refits, on small problems of every kind.

    The problems have weights (analytic and frequencies), several targets, multipliers, a full penalty matrix,
    standardised and constant columns, a prior, no intercept, and more features than rows. Statistics of
    atoms of rows must merge to that of all rows; the state must give θ(α), df, RSS, solutions of
    (G + αP)x = r, the spectrum, a condition number that is not too small, and held-out errors that equal
    refits. Rows come in several read-only blocks.

    Parameters
    ----------
    solver : object
        With `name`, `gather(problem, labels, n_atoms)` and `state(statistic, form, centre)`, as described in
        `elltwo.solvers.base`.

    Raises
    ------
    AssertionError

    Examples
    --------
    >>> from elltwo.solvers.spectral import SpectralSolver
    >>> check_solver(SpectralSolver())
    """
    require(isinstance(solver.name, str) and solver.name, f"name is {solver.name!r}; it must be a text.")
    for name, problem in _problems().items():
        where = f"{solver.name}, {name}"
        rows = _rows(problem)
        whole = _check_statistics(solver, problem, rows, where)
        form = problem.form(rows.scale(rows.X))
        state = solver.state(whole, form, problem.fit_intercept)
        require(state.statistic is whole, f"{where}: state.statistic is not the statistic it was made from.")
        _check_state(state, rows, form, where)
        _check_influence(state, problem, rows, form, where)
    _check_condition(solver)
    _check_nan_is_noticed(solver)


def _rows(problem: Problem) -> _Rows:
    source: Any = problem.source
    prior = (source.X - problem.origin) @ problem.prior_column
    w = np.ones(len(source.y)) if source.weights is None else source.weights
    return _Rows(np.asarray(source.X), source.y - prior, w, source.counts, problem.fit_intercept)


def _check_statistics(solver: Any, problem: Problem, rows: _Rows, where: str) -> Any:
    """Check the statistics of all rows, of atoms merged (one of them empty), and of some rows."""
    (whole,) = solver.gather(problem)
    _check_statistic(whole, rows, f"{where}: gather")
    atoms = solver.gather(problem, lambda block: np.arange(block.start, block.stop) * 5 % 3, 4)
    require(len(atoms) == 4, f"{where}: gather returns {len(atoms)} statistics for 4 atoms.")
    require(atoms[3].weight == 0, f"{where}: an atom without rows has weight {atoms[3].weight}, not 0.")
    merged = atoms[3].merge(atoms[0]).merge(atoms[1].merge(atoms[2]))
    _check_statistic(merged, rows, f"{where}: atoms merged")
    some = np.arange(len(rows.y)) % 3 > 0
    picked = replace(rows, X=rows.X[some], y=rows.y[some], w=rows.w[some])
    (part,) = solver.gather(problem, lambda block: np.where(some[block.start : block.stop], 0, -1), 1)
    _check_statistic(part, picked, f"{where}: gather without the rows of negative label")
    return whole


def _check_statistic(statistic: Any, rows: _Rows, where: str) -> None:
    positive = int(np.count_nonzero(rows.w))
    require(
        statistic.rows == positive, f"{where}: rows is {statistic.rows}; {positive} have positive weight."
    )
    n = float(rows.w.sum()) if rows.counts else float(positive)
    close(f"{where}: observations", statistic.observations, n)
    close(f"{where}: weight", statistic.weight, float(rows.w.sum()))
    for name, values in (("x", rows.X), ("y", rows.y)):
        close(f"{where}: {name}_mean", getattr(statistic, f"{name}_mean"), rows.mean(values))
        close(f"{where}: {name}_scale", getattr(statistic, f"{name}_scale"), rows.scale(values))
    A, p, T = 3, rows.X.shape[1], rows.y.shape[1]
    coef = np.sin(np.arange(1.0, 1 + A * p * T)).reshape(A, p, T)
    b = np.cos(np.arange(float(A * T))).reshape(A, T)
    want = np.stack([rows.deviance(coef[a], b[a]) for a in range(A)])
    close(f"{where}: sse", statistic.deviance(coef, b), want)


#: Not in order, so that a solver that sorts them is found out.
_ALPHAS = np.array([5.0, 0.3, 80.0])


def _check_state(state: Any, rows: _Rows, form: QuadraticForm, where: str) -> None:
    P, G, T = form.matrix(), rows.gram, rows.y.shape[1]
    fits = [rows.solve(form, a) for a in _ALPHAS]
    close(f"{where}: coef", state.coef(_ALPHAS), np.stack([coef for coef, _ in fits]))
    own = _ALPHAS[:T]
    want = np.column_stack([rows.solve(form, a)[0][:, t] for t, a in enumerate(own)])
    close(f"{where}: coef_at", state.coef_at(own), want)
    df = [np.trace(np.linalg.solve(G + a * P, G)) for a in _ALPHAS]
    close(f"{where}: df", state.df(_ALPHAS), np.array(df))
    rss = np.stack([rows.deviance(coef, b) for coef, b in fits])
    close(f"{where}: rss", state.deviance(_ALPHAS), rss)
    right = np.sin(np.arange(1.0, 1 + len(G) * T)).reshape(-1, T)
    right[np.diagonal(G) == 0] = 0.0  # a constant column has no gradient
    want = np.column_stack([np.linalg.solve(G + a * P, right[:, t]) for t, a in enumerate(own)])
    close(f"{where}: solve", state.solve(right, own), want)
    _check_spectrum(state.spectrum(), G, P, where)
    limit = state.condition_limit
    require(limit > 0, f"{where}: condition_limit is {limit}; it must be positive.")


def _check_spectrum(found: Array, G: Array, P: Array, where: str) -> None:
    """Compare with the positive μ of Gx = μPx, x conjugate to the unpenalised directions."""
    d, Q = np.linalg.eigh(P)
    free, held = Q[:, d <= ROUNDING * d.max()], Q[:, d > ROUNDING * d.max()]
    through = np.linalg.lstsq(free.T @ G @ free, free.T @ G @ held, rcond=None)[0]
    reduced = held.T @ G @ held - held.T @ G @ free @ through
    root = np.sqrt(d[d > ROUNDING * d.max()])
    want = np.linalg.eigvalsh(reduced / root / root[:, None])
    want = want[want > 1e-10 * want.max()]
    close(f"{where}: spectrum, sorted", np.sort(found), np.sort(want))


def _check_influence(state: Any, problem: Problem, rows: _Rows, form: QuadraticForm, where: str) -> None:
    n, T = rows.y.shape
    errors, seen = np.full((n, len(_ALPHAS), T), np.nan), np.zeros((n, T), dtype=np.int64)
    for part in state.influence(problem, _ALPHAS):
        keep = getattr(part, "keep", np.ones(1))
        require((keep > 0).all(), f"{where}: influence has keep = {keep.min():g}; it must be positive.")
        y = rows.y[part.rows, part.targets]
        errors[part.rows, :, part.targets] = y[:, None, :] - part.prediction(y)
        seen[part.rows, part.targets] += 1
        equal(f"{where}: weights of influence", part.weights, rows.w[part.rows])
    times = f"{seen.min()} to {seen.max()} times"
    require((seen == 1).all(), f"{where}: influence gives rows {times}; each row and target must come once.")
    want = np.stack([[rows.held_out(form, a, i) for a in _ALPHAS] for i in range(n)])
    close(f"{where}: residual/keep against refits without the row", errors, want, 1e-8)


def _check_condition(solver: Any) -> None:
    """κ̂² of nearly dependent columns is at least a tenth of the true one, and not absurdly large."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 3))
    X[:, 2] = X[:, 0] + 1e-3 * X[:, 2]
    problem = Problem(_Pieces(X, X.sum(axis=1)))
    (statistic,) = solver.gather(problem)
    state = solver.state(statistic, problem.form(statistic.x_scale), True)
    for alpha in (1e-4, 1.0, 1e6):
        A = _rows(problem).gram + alpha * np.eye(3)
        scale = np.sqrt(np.diagonal(A))
        truth = float(np.linalg.cond(A / scale / scale[:, None]))
        found = float(state.condition(alpha))
        message = (
            f"{solver.name}: condition({alpha:g}) is {found:.3g}; that of the scaled G + αP is {truth:.3g}"
        )
        require(found >= truth / 10, f"{message}: digits that are not there would be promised.")
        require(found <= truth * 1000, f"{message}: the estimate is of no use.")


def _check_nan_is_noticed(solver: Any) -> None:
    X, y = np.random.default_rng(2).normal(size=(20, 3)), np.arange(20.0)
    for row in (0, 19):
        spoilt = X.copy()
        spoilt[row, 1] = np.nan
        with np.errstate(invalid="ignore"):
            (statistic,) = solver.gather(Problem(_Pieces(spoilt, y)))
        noticed = not np.isfinite(statistic.x_scale).all()
        require(noticed, f"{solver.name}: NaN in row {row} leaves x_scale finite, so no fit would notice it.")
