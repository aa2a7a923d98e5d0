"""Fresh random problems of every shape that matters, and the variations of the objective.

`SHAPES` × `VARIATIONS` drives the tests of rules and solvers; each entry is built anew from its
name's seed, so nothing is shared between tests. A third factor, as the solver, is dealt over that
product by `dealt`: every two of the three factors meet in all their combinations, all three do not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.memory import MemorySource
from oracles import Model

Array = npt.NDArray[Any]
Rng = np.random.Generator


def _spread(X: Array) -> Array:
    """Standard deviations, 1 for a constant column."""
    return np.where(np.ptp(X, axis=0) > 0, X.std(axis=0), 1.0)


def _response(rng: Rng, X: Array, targets: int = 1) -> Array:
    """A noisy linear response on the scale of 1, whatever the columns' units."""
    Z = (X - X.mean(axis=0)) / _spread(X)
    return 3.0 + Z @ rng.normal(size=(X.shape[1], targets)) + rng.normal(size=(len(X), targets))


def _normal(n: int, p: int, targets: int = 1) -> Callable[[Rng], tuple[Array, Array]]:
    def build(rng: Rng) -> tuple[Array, Array]:
        X = rng.normal(size=(n, p))
        return X, _response(rng, X, targets)

    return build


def _rank_deficient(rng: Rng) -> tuple[Array, Array]:
    """Small integers, so that the linear dependence is exact in float64."""
    base = rng.integers(-5, 6, size=(30, 4)).astype(np.float64)
    X = np.column_stack([base, base[:, 0] + base[:, 1], base[:, 1] - base[:, 2], base[:, 3]])
    return X, _response(rng, X)


def _badly_scaled(rng: Rng) -> tuple[Array, Array]:
    X = rng.normal(size=(30, 7)) * 10.0 ** np.arange(-6, 7, 2)
    return X, _response(rng, X)


def _one_hot_and_constant(rng: Rng) -> tuple[Array, Array]:
    levels = np.eye(4)[np.arange(24) % 4]
    X = np.column_stack([rng.normal(size=24), levels, np.full(24, 7.3)])
    return X, _response(rng, X)


def _offset(rng: Rng) -> tuple[Array, Array]:
    X = 1e6 + rng.normal(size=(25, 4))
    return X, _response(rng, X)


def _wide_badly_scaled(rng: Rng) -> tuple[Array, Array]:
    X = rng.normal(size=(10, 14)) * 10.0 ** np.linspace(-6, 6, 14).round()
    return X, _response(rng, X)


def _wide_offset(rng: Rng) -> tuple[Array, Array]:
    X = 1e6 + rng.normal(size=(9, 12))
    return X, _response(rng, X)


def _singleton_level(rng: Rng) -> tuple[Array, Array]:
    """A level that is seen in one row only, whose leverage tends to 1."""
    X = rng.normal(size=(25, 4))
    X[:, 1] = np.arange(25) == 7
    return X, _response(rng, X)


def _near_collinear(rng: Rng) -> tuple[Array, Array]:
    X = rng.normal(size=(30, 4))
    X[:, 3] = X[:, 0] + 1e-4 * rng.normal(size=30)
    return X, _response(rng, X)


_BUILDERS: dict[str, Callable[[Rng], tuple[Array, Array]]] = {
    "tall": _normal(40, 5),
    "wide": _normal(12, 20),
    "square": _normal(10, 10),
    "one_more_row_than_columns": _normal(8, 7),
    "multi_target": _normal(25, 6, targets=3),
    "wide_multi_target": _normal(9, 14, targets=2),
    "one_column": _normal(15, 1),
    "three_by_four": _normal(3, 4),
    "four_by_ten": _normal(4, 10),
    "rank_deficient": _rank_deficient,
    "badly_scaled": _badly_scaled,
    "one_hot_and_constant": _one_hot_and_constant,
    "offset": _offset,
    "near_collinear": _near_collinear,
    "wide_badly_scaled": _wide_badly_scaled,
    "wide_offset": _wide_offset,
    "singleton_level": _singleton_level,
}

SHAPES = tuple(_BUILDERS)


def generator(name: str) -> Rng:
    """Random generator whose seed follows from the name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def shape(name: str) -> Model:
    """Build the plain problem of that shape."""
    X, y = _BUILDERS[name](generator(name))
    return Model(X, y)


def _weighted(model: Model, rng: Rng) -> Model:
    weights = rng.uniform(0.2, 5.0, size=len(model.X))
    weights[1::9] = 0.0 if len(weights) > 9 else 0.5
    return replace(model, weights=weights)


def _counted(model: Model, rng: Rng) -> Model:
    counts = 1 + np.arange(len(model.X)) % 3
    counts[1::9] = 0 if len(counts) > 9 else 2
    return replace(model, weights=counts, counts=True)


def _penalised(model: Model, rng: Rng) -> Model:
    """Multipliers from 0.1 to 10, and no penalty on the first column."""
    multipliers = 10.0 ** rng.uniform(-1, 1, size=model.X.shape[1])
    multipliers[0] = 0.0
    return replace(model, penalty=multipliers)


def _tikhonov(model: Model, rng: Rng) -> Model:
    """A full penalty matrix: squared first differences of neighbours plus a small ridge."""
    p = model.X.shape[1]
    differences = np.diff(np.eye(p), axis=0)
    return replace(model, penalty=differences.T @ differences + 0.25 * np.eye(p))


def _with_prior(model: Model, rng: Rng) -> Model:
    prior = rng.normal(size=model.X.shape[1]) / _spread(model.X)
    return replace(model, prior=np.where(np.ptp(model.X, axis=0) > 0, prior, 0.0))


_VARIATIONS: dict[str, Callable[[Model, Rng], Model]] = {
    "plain": lambda model, rng: model,
    "weighted": _weighted,
    "counted": _counted,
    "standardised": lambda model, rng: replace(model, standardize=True),
    "penalised": _penalised,
    "tikhonov": _tikhonov,
    "prior": _with_prior,
    "no_intercept": lambda model, rng: replace(model, fit_intercept=False),
    "everything": lambda model, rng: replace(
        _with_prior(_penalised(_weighted(model, rng), rng), rng), standardize=True
    ),
}

VARIATIONS = tuple(_VARIATIONS)


def dealt(first: Sequence[Any], second: Sequence[Any], third: Sequence[Any]) -> list[tuple[Any, Any, Any]]:
    """Every combination of the first two factors, each with one value of the third.

    Every value of the third meets every value of a factor that is at least as long.
    """
    return [(a, b, third[(i + j) % len(third)]) for i, a in enumerate(first) for j, b in enumerate(second)]


def problem(shape_name: str, variation: str) -> Model:
    """Build the problem of that shape with that variation of the objective."""
    return _VARIATIONS[variation](shape(shape_name), generator(f"{shape_name}-{variation}"))


def largest_alpha(model: Model) -> float:
    """max over penalised columns of ‖zⱼ‖²/Pⱼⱼ: an α that shrinks the strongest direction markedly."""
    P = np.diagonal(model.penalty_matrix()).astype(np.float64)
    w = model.w
    Z = model.X - w @ model.X / w.sum() if model.fit_intercept else model.X
    ratio = (w @ Z**2)[P > 0] / P[P > 0]
    return float(ratio.max(initial=0.0)) or 1.0


def alphas_for(model: Model, low: float = -7, high: float = 2, count: int = 7) -> Array:
    """Alphas from 10^low to 10^high times `largest_alpha`, ascending."""
    return largest_alpha(model) * np.logspace(low, high, count)


def source(model: Model) -> MemorySource:
    """The problem's rows for `fit_source`."""
    return MemorySource(model.X, model.y, model.weights, weights_are=weights_kind(model.weights))


def weights_kind(weights: Any) -> str:
    """What weights are in these tests: whole types are frequencies, others analytic."""
    return "frequency" if weights is not None and np.asarray(weights).dtype.kind in "iu" else "analytic"


def options(model: Model) -> dict[str, Any]:
    """The problem's options for `fit_source` and `Ridge`."""
    return {
        "fit_intercept": model.fit_intercept,
        "standardize": model.standardize,
        "penalty": model.penalty,
        "prior": model.prior,
    }
