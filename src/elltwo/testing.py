"""Conformance checks for a source, loss, penalty or solver of your own.

Each check raises AssertionError, which says what was found where and what the contract asks for. The
package's own parts pass the same checks. What they compare with is written here anew, in plain dense NumPy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Block, Source
from elltwo.data.memory import MemorySource
from elltwo.errors import InputError
from elltwo.penalties import Diagonal, Identity, Matrix, Penalty, QuadraticForm, Standardized
from elltwo.problem import Problem

__all__ = ["check_loss", "check_penalty", "check_solver", "check_source"]

Array = npt.NDArray[Any]

#: Relative error that rounding may leave in the small, well-conditioned problems of these checks.
ROUNDING = 1e-9


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _close(what: str, found: Any, want: Any, tolerance: float = ROUNDING) -> None:
    """Require equal shapes, and errors below `tolerance` times the largest wanted value."""
    found, want = np.asarray(found), np.asarray(want)
    _require(found.shape == want.shape, f"{what} has shape {found.shape}; it must have {want.shape}.")
    error = np.abs(found - want)
    allowed = tolerance * max(1.0, float(np.abs(want).max(initial=0.0)))
    bad = np.argwhere(~(error <= allowed))
    if len(bad):
        at = tuple(bad[0].tolist())
        where = f" at {list(at)}" if at else ""
        raise AssertionError(
            f"{what}{where} is {found[at]:.9g}; it must be {want[at]:.9g} (error {error[at]:.1e}, "
            f"allowed {allowed:.1e}; {len(bad)} of {want.size} value(s) are off)."
        )


def _equal(what: str, found: Any, want: Any) -> None:
    """Require the same shape and the same values, NaN where NaN is wanted."""
    if found is None or want is None:
        _require(found is want, f"{what} is {found!r}; it must be {want!r}.")
        return
    found, want = np.asarray(found), np.asarray(want)
    _require(found.shape == want.shape, f"{what} has shape {found.shape}; it must have {want.shape}.")
    nan = want.dtype.kind == "f" and found.dtype.kind == "f"
    _require(np.array_equal(found, want, equal_nan=nan), f"{what} differs: {found!r} instead of {want!r}.")


# ------------------------------------------------------------------------------------------------- sources


def check_source(source: Source, X: Any = None, y: Any = None, weights: Any = None) -> None:
    """Check that a source keeps the contract of `elltwo.data.base.Source`.

    Blocks follow each other without gap, have the announced columns, are the same in every pass (also in
    one that is nested in another), and stay as they are once handed out; `fold`, `map`, `keys` and
    `n_rows` agree with them.

    Parameters
    ----------
    source : Source
        The source; it is read several times.
    X, y, weights : arrays, shapes (n, p), (n, T) and (n,), optional
        What the source holds, if that is known, to compare the blocks with.

    Raises
    ------
    AssertionError
        Naming what the source does otherwise.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> check_source(MemorySource([[1, 2], [3, 4]], [5, 6]), X=[[1, 2], [3, 4]], y=[[5], [6]])
    """
    parts = [*Source.__annotations__, "blocks", "keys", "fold", "map"]
    missing = [name for name in parts if not hasattr(source, name)]
    _require(not missing, f"The source lacks {', '.join(missing)}.")
    _check_columns(source)
    handed_out, kept = [], []
    for block in source.blocks():
        handed_out.append(block)
        kept.append(_copy(block))
    _require(kept, "blocks() yields no block; a source has at least one row.")
    _check_blocks(source, kept)
    _check_passes(source, handed_out, kept)
    _check_fold_and_map(source, kept)
    n = kept[-1].stop
    _require(source.n_rows in (None, n), f"n_rows is {source.n_rows}, but the blocks have {n} rows.")
    _check_keys(source, n)
    for name, want in (("X", X), ("y", y), ("weights", weights)):
        if want is not None:
            parts = [getattr(block, name) for block in kept]
            _require(parts[0] is not None, f"{name} is None in the blocks.")
            _equal(f"{name} of all blocks", np.concatenate(parts), np.asarray(want, dtype=np.float64))


def _check_columns(source: Source) -> None:
    for count, names in (("n_features", "feature_names"), ("n_targets", "target_names")):
        number, given = getattr(source, count), getattr(source, names)
        _require(
            isinstance(number, int) and number > 0, f"{count} must be a positive integer; it is {number!r}."
        )
        good = isinstance(given, tuple) and all(isinstance(name, str) for name in given)
        _require(good, f"{names} is {given!r}; it must be a tuple of str.")
        _require(len(given) == number, f"{names} has {len(given)} names, but {count} is {number}.")
    for flag in ("counts", "weighted", "in_memory"):
        _require(isinstance(getattr(source, flag), bool), f"{flag} must be True or False.")


def _copy(block: Block) -> Block:
    _require(isinstance(block, Block), f"blocks() yields {type(block).__name__}; it must yield Block.")
    weights = None if block.weights is None else np.array(block.weights)
    return Block(np.array(block.X), np.array(block.y), weights, block.start)


def _check_blocks(source: Source, blocks: list[Block]) -> None:
    position = 0
    for index, block in enumerate(blocks):
        here, m = f"block {index}", len(block.y)
        _require(block.start == position, f"{here} starts at row {block.start}; {position} comes next.")
        _require(m > 0, f"{here} has no rows; leave empty blocks out.")
        for name, array, columns in (("X", block.X, source.n_features), ("y", block.y, source.n_targets)):
            shape = f"{here}: {name} has shape {array.shape}; it must have {(m, columns)}."
            _require(array.shape == (m, columns), shape)
        _require(block.X.dtype in (np.float64, np.float32), f"{here}: X is {block.X.dtype}, not a float.")
        _require(block.y.dtype == np.float64, f"{here}: y is {block.y.dtype}; it must be float64.")
        _check_weights(source, block, here)
        position = block.stop
    if blocks[0].weights is not None:
        total = sum(float(block.weights.sum()) for block in blocks if block.weights is not None)
        _require(total > 0, "all weights are zero; the source must refuse such rows.")


def _check_weights(source: Source, block: Block, here: str) -> None:
    w = block.weights
    given = "None" if w is None else "given"
    _require(
        (w is not None) == source.weighted, f"{here}: weighted is {source.weighted}, but weights are {given}."
    )
    _require(source.weighted or not source.counts, "counts is True, but weighted is False.")
    if w is None:
        return
    good = w.shape == (len(block.y),) and w.dtype == np.float64
    _require(good, f"{here}: weights must be float64 of shape (m,); they are {w.dtype} of shape {w.shape}.")
    _require(np.isfinite(w).all() and (w >= 0).all(), f"{here}: weights must be finite and not negative.")
    _require(not source.counts or (w == np.floor(w)).all(), f"{here}: counts must be whole numbers.")


def _check_passes(source: Source, handed_out: list[Block], kept: list[Block]) -> None:
    for block, copy in zip(handed_out, kept, strict=True):
        _same_block("a block changed after it was handed out (a buffer is used again?)", block, copy)
    seen = 0
    for block in source.blocks():
        seen += 1
        _require(seen <= len(kept), f"a second pass has more than the first one's {len(kept)} blocks.")
        _same_block("a second pass differs", block, kept[seen - 1])
        _same_block("a pass begun inside another differs", next(source.blocks()), kept[0])
    _require(seen == len(kept), f"a second pass ends after {seen} of {len(kept)} blocks.")


def _same_block(what: str, found: Block, want: Block) -> None:
    for name in ("start", "X", "y", "weights"):
        _equal(f"{what}: {name} of the block at row {want.start}", getattr(found, name), getattr(want, name))


def _check_fold_and_map(source: Source, kept: list[Block]) -> None:
    # Joining lists is associative but not commutative: it shows the order, and that no block is left out.
    joined: list[Any] = source.fold(lambda block: [np.array(block.X)], operator.add)
    _require(len(joined) == len(kept), f"fold sees {len(joined)} blocks; blocks() yields {len(kept)}.")
    mapped = list(source.map(lambda block: np.array(block.y)))
    _require(len(mapped) == len(kept), f"map yields {len(mapped)} arrays for {len(kept)} blocks.")
    for block, X, y in zip(kept, joined, mapped, strict=True):
        _equal(f"fold: X of the block at row {block.start}", X, block.X)
        _equal(f"map: y of the block at row {block.start}", y, block.y)


def _check_keys(source: Source, n: int) -> None:
    keys = source.keys()
    if keys is None:
        return
    _require(np.shape(keys) == (n,), f"keys() has shape {np.shape(keys)}; it must be ({n},): one per row.")
    _require(keys.dtype.kind != "f" or not np.isnan(keys).any(), "keys() has NaN; every row needs a value.")
    _equal("keys() called again", source.keys(), keys)


# -------------------------------------------------------------------------------------------------- losses


def check_loss(loss: Any, y: Any = (-2.0, 0.0, 1.0, 3.5), eta: Any = None) -> None:
    """Check a loss: ½·dev(y, η) with its first and second derivative in η.

    The gradient is the derivative of the value, the curvature that of the gradient (central differences of
    fourth order); the value is never negative and 0 at its smallest, and the curvature is not negative.

    Parameters
    ----------
    loss : object
        With `name`, `value(y, eta)`, `gradient(y, eta)` and `curvature(y, eta)`.
    y : array, shape (k,)
        Targets that the loss is made for.
    eta : array, shape (e,), optional
        Where to look; from −2.9 to 3.1 by default. Leave out points where a derivative jumps.

    Raises
    ------
    AssertionError

    Examples
    --------
    A loss with a wrong sign is found out:

    >>> from elltwo.losses import Gaussian
    >>> class Mistaken(Gaussian):
    ...     def gradient(self, y, eta):
    ...         return y - eta
    >>> check_loss(Gaussian())
    >>> try:
    ...     check_loss(Mistaken())
    ... except AssertionError as error:
    ...     print(str(error)[:45])
    gradient at [0, 0] is 0.9; it must be -0.9 (e
    """
    _require(isinstance(loss.name, str) and loss.name, f"name is {loss.name!r}; it must be a text.")
    eta = np.linspace(-2.9, 3.1, 13) if eta is None else np.asarray(eta, dtype=np.float64)
    Y, E = (_read_only(a) for a in np.meshgrid(np.asarray(y, dtype=np.float64), eta, indexing="ij"))
    value, gradient, curvature = loss.value(Y, E), loss.gradient(Y, E), loss.curvature(Y, E)
    for name, found in (("value", value), ("gradient", gradient), ("curvature", curvature)):
        shape = np.shape(found)
        _require(shape == E.shape, f"{name} has shape {shape} for y and eta of shape {E.shape}.")
        _require(np.isfinite(found).all(), f"{name} is not finite for some of y = {np.unique(Y)}.")
        _equal(f"{name} of one target alone", getattr(loss, name)(Y[:, 0], E[:, 0]), found[:, 0])
    _close("gradient", gradient, _slope(lambda at: loss.value(Y, at), E), 1e-8)
    _close("curvature", curvature, _slope(lambda at: loss.gradient(Y, at), E), 1e-8)
    _require((value >= 0).all(), f"value is {value.min():g} somewhere; half a deviance is never negative.")
    _require((curvature >= 0).all(), f"curvature is {curvature.min():g} somewhere; the loss must be convex.")
    lowest = loss.value(Y[:, 0], _minimiser(loss, Y[:, 0]))
    _close("value at its smallest", lowest, np.zeros(len(Y)), 1e-9)


def _read_only(array: Array) -> Array:
    array = np.array(array)
    array.flags.writeable = False
    return array


def _slope(function: Callable[[Array], Array], at: Array, step: float = 1e-3) -> Array:
    """Return the derivative by central differences of fourth order."""
    near = function(at + step) - function(at - step)
    far = function(at + 2 * step) - function(at - 2 * step)
    return np.asarray((8 * near - far) / (12 * step))


def _minimiser(loss: Any, y: Array, reach: float = 60.0) -> Any:
    """Return where the gradient changes its sign within ±reach, or the end towards which the loss falls."""
    low, high = np.full(len(y), -reach), np.full(len(y), reach)
    for _ in range(80):
        middle = (low + high) / 2
        rises = loss.gradient(y, middle) > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    return (low + high) / 2


# ----------------------------------------------------------------------------------------------- penalties


def check_penalty(penalty: Penalty, p: int) -> None:
    """Check a penalty for p features: (α/2)·θᵀPθ with P made for the scales of the columns.

    For equal scales, very unequal ones and a constant column (scale 0), P is symmetric and positive
    semi-definite, and the form's `d`, `rotation`, `apply`, `matrix` and `root` describe the same P.
    A number of features is either refused by `check`, or served.

    Parameters
    ----------
    penalty : Penalty
        With `form(scales)` and `check(p)`.
    p : int
        A number of features that the penalty fits.

    Raises
    ------
    AssertionError

    Examples
    --------
    A penalty on the differences between neighbouring coefficients:

    >>> import numpy as np
    >>> from elltwo.penalties import Matrix
    >>> class Smooth:
    ...     def form(self, scales):
    ...         D = np.diff(np.eye(len(scales)), axis=0)
    ...         return Matrix.of(D.T @ D).form(scales)
    ...     def check(self, p):
    ...         pass
    >>> check_penalty(Smooth(), p=4)
    """
    try:
        penalty.check(p)
    except InputError as error:
        raise AssertionError(f"check({p}) refuses the {p} features it was given: {error}") from error
    scales = {
        "equal scales": np.ones(p),
        "unequal scales": 10.0 ** np.linspace(-6, 6, p),
        "a constant column": np.r_[np.zeros(1), np.linspace(1, 2, p - 1)],
    }
    for name, s in scales.items():
        _check_form(penalty, _read_only(s), f"form for {name}")
    for other in (p - 1, p + 1):
        _check_refusal(penalty, other)


def _check_form(penalty: Penalty, scales: Array, where: str) -> None:
    p = len(scales)
    form = penalty.form(scales)
    _require(isinstance(form, QuadraticForm), f"{where}: {type(form).__name__} is not a QuadraticForm.")
    _require(form.d.shape == (p,), f"{where}: d has shape {form.d.shape}; it must be ({p},).")
    good = np.isfinite(form.d).all() and (form.d >= 0).all()
    _require(good, f"{where}: d must be finite and ≥ 0; it is {form.d}.")
    if form.rotation is not None:
        _close(f"{where}: rotationᵀ·rotation", form.rotation.T @ form.rotation, np.eye(p))
    P, B = form.matrix(), form.root()
    size = max(float(np.abs(P).max()), np.finfo(np.float64).tiny)
    _close(f"{where}: matrix()/max against its transpose", P / size, P.T / size)
    smallest = float(np.linalg.eigvalsh(P / size)[0])
    _require(smallest >= -ROUNDING, f"{where}: matrix() has the negative eigenvalue {smallest * size:g}.")
    _close(f"{where}: root()ᵀ·root()/max", B.T @ B / size, P / size)
    rank = int(np.count_nonzero(form.d))
    _require(len(B) == rank, f"{where}: root() has {len(B)} rows; one per positive d is {rank}.")
    theta = _read_only(np.cos(np.arange(3.0 * p)).reshape(p, 3))
    _close(f"{where}: apply(θ)/max, θ (p, T)", form.apply(theta) / size, P @ theta / size)
    _close(f"{where}: apply(θ)/max, θ (p,)", form.apply(theta[:, 0]) / size, P @ theta[:, 0] / size)
    _equal(f"{where}: d, asked for again", penalty.form(scales).d, form.d)


def _check_refusal(penalty: Penalty, p: int) -> None:
    try:
        penalty.check(p)
    except InputError:
        return
    found = penalty.form(np.ones(p)).d.shape
    message = (
        f"check({p}) accepts {p} features, but form gives d of shape {found}; check must raise InputError."
    )
    _require(found == (p,), message)


# ------------------------------------------------------------------------------------------------- solvers


class _Pieces(MemorySource):
    """Rows handed out a few at a time and read-only, so that a solver has to merge and cannot write."""

    def blocks(self) -> Iterator[Block]:
        """Iterate over seven rows at a time."""
        for start in range(0, len(self.y), 7):
            rows = slice(start, start + 7)
            weights = None if self.weights is None else _read_only(self.weights[rows])
            yield Block(_read_only(self.dense(rows)), _read_only(self.y[rows]), weights, start)


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

    def sse(self, coef: Array, b: Array) -> Array:
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
        "counts": Problem(_Pieces(X, one, counts)),
        "multipliers": Problem(_Pieces(X, one), Diagonal.of([0.0, 1.0, 5.0, 0.2])),
        "full matrix": Problem(_Pieces(X, one), Matrix.of(differences.T @ differences + 0.1 * np.eye(4))),
        "standardised, constant column": Problem(_Pieces(constant, one), Standardized(Identity())),
        "prior": Problem(_Pieces(X, one), prior=np.array([1.0, -1.0, 0.5, 2.0])),
        "more features than rows": Problem(_Pieces(wide, wide[:, :2] + 1.0)),
        "everything": Problem(
            _Pieces(np.asfortranarray(X), both, counts),
            Standardized(Diagonal.of([0.0, 1.0, 5.0, 0.2])),
            prior=np.array([0.0, -1.0, 0.5, 2.0]),
        ),
    }


def check_solver(solver: Any) -> None:
    """Check a solver against dense least squares and explicit refits, on small problems of every kind.

    The problems have weights (precisions and counts), several targets, multipliers, a full penalty matrix,
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
    _require(isinstance(solver.name, str) and solver.name, f"name is {solver.name!r}; it must be a text.")
    for name, problem in _problems().items():
        where = f"{solver.name}, {name}"
        rows = _rows(problem)
        whole = _check_statistics(solver, problem, rows, where)
        form = problem.form(rows.scale(rows.X))
        state = solver.state(whole, form, problem.fit_intercept)
        _require(state.statistic is whole, f"{where}: state.statistic is not the statistic it was made from.")
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
    _require(len(atoms) == 4, f"{where}: gather returns {len(atoms)} statistics for 4 atoms.")
    _require(atoms[3].weight == 0, f"{where}: an atom without rows has weight {atoms[3].weight}, not 0.")
    merged = atoms[3].merge(atoms[0]).merge(atoms[1].merge(atoms[2]))
    _check_statistic(merged, rows, f"{where}: atoms merged")
    some = np.arange(len(rows.y)) % 3 > 0
    picked = replace(rows, X=rows.X[some], y=rows.y[some], w=rows.w[some])
    (part,) = solver.gather(problem, lambda block: np.where(some[block.start : block.stop], 0, -1), 1)
    _check_statistic(part, picked, f"{where}: gather without the rows of negative label")
    return whole


def _check_statistic(statistic: Any, rows: _Rows, where: str) -> None:
    positive = int(np.count_nonzero(rows.w))
    _require(
        statistic.rows == positive, f"{where}: rows is {statistic.rows}; {positive} have positive weight."
    )
    n = float(rows.w.sum()) if rows.counts else float(positive)
    _close(f"{where}: observations", statistic.observations, n)
    _close(f"{where}: weight", statistic.weight, float(rows.w.sum()))
    for name, values in (("x", rows.X), ("y", rows.y)):
        _close(f"{where}: {name}_mean", getattr(statistic, f"{name}_mean"), rows.mean(values))
        _close(f"{where}: {name}_scale", getattr(statistic, f"{name}_scale"), rows.scale(values))
    A, p, T = 3, rows.X.shape[1], rows.y.shape[1]
    coef = np.sin(np.arange(1.0, 1 + A * p * T)).reshape(A, p, T)
    b = np.cos(np.arange(float(A * T))).reshape(A, T)
    want = np.stack([rows.sse(coef[a], b[a]) for a in range(A)])
    _close(f"{where}: sse", statistic.sse(coef, b), want)


#: Not in order, so that a solver that sorts them is found out.
_ALPHAS = np.array([5.0, 0.3, 80.0])


def _check_state(state: Any, rows: _Rows, form: QuadraticForm, where: str) -> None:
    P, G, T = form.matrix(), rows.gram, rows.y.shape[1]
    fits = [rows.solve(form, a) for a in _ALPHAS]
    _close(f"{where}: coef", state.coef(_ALPHAS), np.stack([coef for coef, _ in fits]))
    own = _ALPHAS[:T]
    want = np.column_stack([rows.solve(form, a)[0][:, t] for t, a in enumerate(own)])
    _close(f"{where}: coef_at", state.coef_at(own), want)
    df = [np.trace(np.linalg.solve(G + a * P, G)) for a in _ALPHAS]
    _close(f"{where}: df", state.df(_ALPHAS), np.array(df))
    rss = np.stack([rows.sse(coef, b) for coef, b in fits])
    _close(f"{where}: rss", state.rss(_ALPHAS), rss)
    right = np.sin(np.arange(1.0, 1 + len(G) * T)).reshape(-1, T)
    right[np.diagonal(G) == 0] = 0.0  # a constant column has no gradient
    want = np.column_stack([np.linalg.solve(G + a * P, right[:, t]) for t, a in enumerate(own)])
    _close(f"{where}: solve", state.solve(right, own), want)
    _check_spectrum(state.spectrum(), G, P, where)
    limit = state.condition_limit
    _require(limit > 0, f"{where}: condition_limit is {limit}; it must be positive.")


def _check_spectrum(found: Array, G: Array, P: Array, where: str) -> None:
    """Compare with the positive μ of Gx = μPx, x conjugate to the unpenalised directions."""
    d, Q = np.linalg.eigh(P)
    free, held = Q[:, d <= ROUNDING * d.max()], Q[:, d > ROUNDING * d.max()]
    through = np.linalg.lstsq(free.T @ G @ free, free.T @ G @ held, rcond=None)[0]
    reduced = held.T @ G @ held - held.T @ G @ free @ through
    root = np.sqrt(d[d > ROUNDING * d.max()])
    want = np.linalg.eigvalsh(reduced / root / root[:, None])
    want = want[want > 1e-10 * want.max()]
    _close(f"{where}: spectrum, sorted", np.sort(found), np.sort(want))


def _check_influence(state: Any, problem: Problem, rows: _Rows, form: QuadraticForm, where: str) -> None:
    n, T = rows.y.shape
    errors, seen = np.full((n, len(_ALPHAS), T), np.nan), np.zeros((n, T), dtype=np.int64)
    for part in state.influence(problem, _ALPHAS):
        keep = part.keep
        _require((keep > 0).all(), f"{where}: influence has keep = {keep.min():g}; it must be positive.")
        errors[part.rows, :, part.targets] = part.residual / keep[:, :, None]
        seen[part.rows, part.targets] += 1
        _equal(f"{where}: weights of influence", part.weights, rows.w[part.rows])
    times = f"{seen.min()} to {seen.max()} times"
    _require((seen == 1).all(), f"{where}: influence gives rows {times}; each row and target must come once.")
    want = np.stack([[rows.held_out(form, a, i) for a in _ALPHAS] for i in range(n)])
    _close(f"{where}: residual/keep against refits without the row", errors, want, 1e-8)


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
        _require(found >= truth / 10, f"{message}: digits that are not there would be promised.")
        _require(found <= truth * 1000, f"{message}: the estimate is of no use.")


def _check_nan_is_noticed(solver: Any) -> None:
    X, y = np.random.default_rng(2).normal(size=(20, 3)), np.arange(20.0)
    for row in (0, 19):
        spoilt = X.copy()
        spoilt[row, 1] = np.nan
        with np.errstate(invalid="ignore"):
            (statistic,) = solver.gather(Problem(_Pieces(spoilt, y)))
        noticed = not np.isfinite(statistic.x_scale).all()
        _require(
            noticed, f"{solver.name}: NaN in row {row} leaves x_scale finite, so no fit would notice it."
        )
