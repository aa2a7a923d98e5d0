"""Every part of the package passes the checks that are shipped for parts of others, and these checks bite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse

import elltwo
from elltwo.array import ROUNDOFF
from elltwo.data import encode, memory
from elltwo.data.base import Block, BlockwiseSource
from elltwo.data.encode import Encoder
from elltwo.data.memory import MemorySource
from elltwo.data.random_features import MappedSource
from elltwo.data.table import TableSource, open_table
from elltwo.data.tensors import TensorSource
from elltwo.errors import InputError
from elltwo.heads import Batch, FeatureSource, Outputs, StoredFeatures
from elltwo.interfaces.sklearn import ESTIMATORS, Ridge
from elltwo.kernel_fitting.features import FeaturesSolver
from elltwo.losses import LOSSES, Gaussian, Multinomial
from elltwo.moments import gather
from elltwo.penalties import PENALTIES, Diagonal, Identity, Matrix, QuadraticForm, Standardized
from elltwo.selection import RULES
from elltwo.solvers.auto import SOLVERS, WIDE_ORTHOGONAL
from elltwo.solvers.coordinate import CoordinateSolver
from elltwo.solvers.kernel import KernelSolver, KernelSource
from elltwo.solvers.proximal_state import ProximalSolver
from elltwo.solvers.spectral import SpectralSolver
from elltwo.testing import check_loss, check_penalty, check_solver, check_source
from elltwo.torch.head import TensorFeatures, to_host

Array = np.ndarray
ROOT = Path(__file__).parents[2]

# ---------------------------------------------------------------------------------- what is in the package


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: Any) -> None:
    check_loss(loss())


def tikhonov(p: int, rank: int) -> Array:
    root = np.random.default_rng(4).normal(size=(rank, p))
    return root.T @ root


# Penalties of every class for 4 features; a class without an example fails below.
EXAMPLES: dict[str, Any] = {
    "identity": Identity(),
    "diagonal": Diagonal.of([0.5, 3.0, 1e-8, 7.0]),
    "diagonal with free features": Diagonal.of([0, 1, 0, 2]),
    "diagonal of zeros": Diagonal.of([0, 0, 0, 0]),
    "matrix": Matrix.of(tikhonov(4, 6)),
    "matrix of low rank": Matrix.of(tikhonov(4, 2)),
    "matrix of zeros": Matrix.of(np.zeros((4, 4))),
    "standardised identity": Standardized(Identity()),
    "standardised diagonal": Standardized(Diagonal.of([0, 1, 2, 3])),
    "standardised matrix": Standardized(Matrix.of(tikhonov(4, 6))),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_penalties(name: str) -> None:
    check_penalty(EXAMPLES[name], 4)


def test_every_penalty_has_an_example() -> None:
    assert {type(penalty) for penalty in EXAMPLES.values()} == set(PENALTIES)


# Solvers without leave-one-out; their files in this folder compare them with the others.
WITHOUT_LOO = ("newton-cg", "gradient", "sgd")


@pytest.mark.parametrize(
    "solver", [*(s for s in SOLVERS if s.name not in WITHOUT_LOO), WIDE_ORTHOGONAL], ids=repr
)
def test_solvers(solver: Any) -> None:
    check_solver(solver)


@pytest.mark.parametrize("name", WITHOUT_LOO)
def test_solvers_without_leave_one_out_say_what_to_use(name: str) -> None:
    X = sparse.csr_matrix(REAL) if name == "newton-cg" else REAL
    with pytest.raises(InputError, match="kfold"):
        Ridge("loo", solver=name).fit(X, Y[:, 0])


N = 37
RNG = np.random.default_rng(8)
WHOLE = RNG.integers(-9, 10, size=(N, 4))
REAL = RNG.normal(size=(N, 4))
Y = RNG.normal(size=(N, 2))
PRECISIONS, COUNTS = RNG.uniform(0, 2, size=N), RNG.integers(0, 4, size=N)


def read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


DTYPES = [bool, *"bBhHiIlL", np.float16, np.float32, np.longdouble]
# (X as given, the same as float64), of every dtype and layout.
MATRICES: dict[str, tuple[Any, Array]] = {
    "C": (REAL, REAL),
    "F": (np.asfortranarray(REAL), REAL),
    "read-only": (read_only(REAL), REAL),
    "every other row": (np.repeat(REAL, 2, axis=0)[::2], REAL),
    "backwards": (REAL[::-1], REAL[::-1]),
    "some columns": (np.hstack([REAL, REAL])[:, 1::2], np.hstack([REAL, REAL])[:, 1::2]),
    "list": (REAL.tolist(), REAL),
    **{
        np.dtype(dtype).name: (WHOLE.astype(dtype), WHOLE.astype(dtype).astype(np.float64))
        for dtype in DTYPES
    },
    **{
        f"{kind} {layout}": (getattr(sparse, f"coo_{kind}")(WHOLE).asformat(layout), WHOLE.astype(np.float64))
        for kind in ("array", "matrix")
        for layout in ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
    },
    "sparse float32": (sparse.csr_array(REAL.astype(np.float32)), REAL.astype(np.float32).astype(np.float64)),
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that 37 rows make several, the last one shorter."""
    monkeypatch.setattr(memory, "VIEW_BYTES", 8 * 4 * 10)
    monkeypatch.setattr(memory, "CONVERTED_BYTES", 8 * 4 * 10)
    monkeypatch.setattr(encode, "_BLOCK_BYTES", 8 * 9 * 2)


@pytest.mark.parametrize("name", MATRICES)
def test_memory_source(name: str, small_blocks: None) -> None:
    given, dense = MATRICES[name]
    source = MemorySource(given, Y, PRECISIONS, keys=np.arange(N) % 5)
    check_source(source, dense, Y, PRECISIONS)
    assert len(list(source.blocks())) == 4
    np.testing.assert_array_equal(source.keys(), np.arange(N) % 5)


@pytest.mark.parametrize("weights", [None, PRECISIONS, COUNTS, COUNTS.astype(np.uint8), COUNTS > 0])
@pytest.mark.parametrize("y", [Y[:, 0], Y, np.asfortranarray(Y), Y.astype(np.float32), WHOLE[:, 0], Y > 0])
def test_memory_source_of_every_target_and_weight(y: Array, weights: Any) -> None:
    for weights_are in ("analytic", "frequency")[: 1 if weights is PRECISIONS else 2]:
        source = MemorySource(REAL, y, weights, weights_are=weights_are)
        check_source(source, REAL, y.reshape(N, -1), weights)
        assert source.counts == (weights is not None and weights_are == "frequency")


FRAME = {
    "size": REAL[:, 0].tolist(),
    "rooms": WHOLE[:, 1].tolist(),
    "new": (WHOLE[:, 2] > 0).tolist(),
    "town": [("Bonn", "Jena", "Ulm")[i % 3] for i in range(N)],
    "rent": Y[:, 0].tolist(),
    "price": Y[:, 1].tolist(),
    "precision": PRECISIONS.tolist(),
    "count": COUNTS.tolist(),
    "school": [f"s{i % 5}" for i in range(N)],
}
ENCODED = np.column_stack(
    [REAL[:, 0], WHOLE[:, 1], WHOLE[:, 2] > 0, *(np.arange(N) % 3 == k for k in range(3))]
).astype(np.float64)

TABLES: dict[str, Callable[[Path], Any]] = {
    "dict": lambda folder: FRAME,
    "pandas": lambda folder: pd.DataFrame(FRAME),
    "polars": lambda folder: pl.DataFrame(FRAME),
    "arrow": lambda folder: pa.table(FRAME),
    "csv": lambda folder: pd.DataFrame(FRAME).to_csv(folder / "t.csv", index=False) or folder / "t.csv",
    "parquet": lambda folder: pd.DataFrame(FRAME).to_parquet(folder / "t.parquet") or folder / "t.parquet",
    "sql": lambda folder: (
        pd.DataFrame(FRAME).to_parquet(folder / "t.parquet") or f"SELECT * FROM '{folder / 't.parquet'}'"
    ),
}
FEATURES = ["size", "rooms", "new", "town"]


@pytest.mark.parametrize("name", TABLES)
def test_table_source(name: str, tmp_path: Path, small_blocks: None) -> None:
    table = open_table(TABLES[name](tmp_path))
    encoder = Encoder.fit(table, FEATURES)
    for weights, values in (("precision", PRECISIONS), ("count", COUNTS)):
        source = TableSource(table, encoder, ["rent", "price"], weights=weights, key="school")
        check_source(source, ENCODED, Y, values)
        assert len(list(source.blocks())) > 2
    check_source(TableSource(table, encoder, "rent"), ENCODED, Y[:, :1])


@pytest.mark.parametrize("missing", ["mean", "drop"])
def test_table_source_with_missing_values(missing: str, small_blocks: None) -> None:
    size = [None if i % 9 == 4 else value for i, value in enumerate(FRAME["size"])]
    rent = [None if i == 20 else value for i, value in enumerate(FRAME["rent"])]
    table = open_table({**FRAME, "size": size, "rent": rent})
    encoder = Encoder.fit(table, FEATURES, missing=missing)
    source = TableSource(table, encoder, "rent", weights="count", key="school")
    kept = (np.arange(N) != 20) & ((np.arange(N) % 9 != 4) | (missing == "mean"))
    X = ENCODED.copy()
    X[np.arange(N) % 9 == 4, 0] = np.mean([value for value in size if value is not None])
    blocks = np.concatenate([block.X for block in source.blocks()])
    np.testing.assert_allclose(blocks, X[kept], rtol=1e-15)
    check_source(source, blocks, Y[kept, :1], COUNTS[kept])


# -------------------------------------------------------------------------- what is forgotten is found out


def classes() -> list[type]:
    """Return every public class that is defined in the package, protocols left out."""
    found = []
    for module in pkgutil.walk_packages(elltwo.__path__, "elltwo."):
        if module.name == "elltwo.__main__":
            continue
        for name, thing in vars(importlib.import_module(module.name)).items():
            own = inspect.isclass(thing) and thing.__module__ == module.name
            if own and not name.startswith("_") and not getattr(thing, "_is_protocol", False):
                found.append(thing)
    return found


CLASSES = classes()


def that_have(*methods: str) -> set[type]:
    return {c for c in CLASSES if all(callable(getattr(c, method, None)) for method in methods)}


TUPLES = {
    "LOSSES": (LOSSES, that_have("value", "gradient", "curvature")),
    "PENALTIES": (PENALTIES, that_have("form", "check")),
    "SOLVERS": (
        (
            *(type(solver) for solver in SOLVERS),
            KernelSolver,
            FeaturesSolver,
            CoordinateSolver,
            ProximalSolver,
        ),
        that_have("gather", "state"),
    ),
    "RULES": (RULES, that_have("plan", "criterion")),
    "ESTIMATORS": (ESTIMATORS, that_have("fit", "predict", "get_params")),
}


@pytest.mark.parametrize("name", TUPLES)
def test_tuple_names_every_class_of_its_kind_once(name: str) -> None:
    listed, defined = TUPLES[name]
    assert len(set(listed)) == len(listed)
    assert set(listed) == defined


def test_features_computed_block_by_block_are_a_source() -> None:
    source = MappedSource(MemorySource(REAL, Y, PRECISIONS), lambda X: X**2, list("abcd"))
    check_source(source, REAL**2, Y, PRECISIONS)


def test_rows_of_a_kernel_matrix_are_a_source() -> None:
    check_source(KernelSource(REAL @ REAL.T, Y, PRECISIONS, centre=False), REAL @ REAL.T, Y, PRECISIONS)


def test_features_of_a_network_are_a_source() -> None:
    tensor, rows = torch.tensor(REAL), (slice(0, 3), slice(3, None))
    columns = Y.reshape(len(REAL), -1)
    arrays = [Batch(REAL[part], columns[part], PRECISIONS[part]) for part in rows]
    held = [Batch(tensor[part], columns[part], PRECISIONS[part]) for part in rows]
    outputs = Outputs("regression", columns.shape[1], Gaussian())
    check_source(FeatureSource(lambda: iter(arrays), outputs, arrays[0]), REAL, columns, PRECISIONS)
    check_source(
        TensorFeatures(lambda: iter(held), outputs, held[0], host=to_host), REAL, columns, PRECISIONS
    )
    check_source(TensorSource(tensor, columns, PRECISIONS), REAL, columns, PRECISIONS)


def test_stored_features_are_a_source() -> None:
    labels = np.arange(len(REAL)) % 3
    batch = Batch(REAL, labels, PRECISIONS)
    source = FeatureSource(lambda: iter([batch]), Outputs("classification", 3, Multinomial()), batch)
    check_source(StoredFeatures(source), REAL, labels[:, None] == np.arange(3), PRECISIONS)


def test_every_source_is_checked_above() -> None:
    checked = {BlockwiseSource, MemorySource, TableSource, KernelSource, MappedSource}
    of_networks = {FeatureSource, StoredFeatures, TensorFeatures, TensorSource}
    assert that_have("blocks", "fold", "map") == checked | of_networks


@pytest.mark.parametrize("part", [*RULES, *ESTIMATORS])
def test_rules_and_estimators_are_public(part: type) -> None:
    assert part.__name__ in elltwo.__all__
    assert getattr(elltwo, part.__name__) is part


@pytest.mark.parametrize("part", sorted(set().union(*(c for _, c in TUPLES.values())), key=repr))
def test_every_part_and_its_methods_are_documented(part: type) -> None:
    assert vars(part)["__doc__"], part
    for name, method in inspect.getmembers(part, callable):
        if not name.startswith("_") and getattr(method, "__module__", "").startswith("elltwo."):
            assert method.__doc__, f"{part.__name__}.{name}"


@pytest.mark.parametrize(
    "name", [*(c.__name__ for c in (*LOSSES, *RULES, *ESTIMATORS)), *(solver.name for solver in SOLVERS)]
)
def test_every_part_that_is_chosen_by_name_is_in_the_pages(name: str) -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.search(rf"\b{name}\b", text)


# ----------------------------------------------------------------------------------------- the checks bite


class Changed(MemorySource):
    """A good source, of three blocks of three rows, whose behaviour is changed by one function."""

    def __init__(self, change: Callable[[Block, int], Block | None], **attributes: Any) -> None:
        X = np.arange(18.0).reshape(9, 2)
        super().__init__(X, X[:, 0], np.arange(1, 10), weights_are="frequency", keys=np.arange(9) // 2)
        self.change, self.passes = change, 0
        self.__dict__.update(attributes)

    def blocks(self) -> Iterator[Block]:
        self.passes += 1
        for start in range(0, 9, 3):
            rows = slice(start, start + 3)
            assert self.weights is not None
            block = self.change(
                Block(self.X[rows].copy(), self.y[rows], self.weights[rows], start), self.passes
            )
            if block is not None:
                yield block


BUFFER = np.zeros((3, 2))


def reused(block: Block, _: int) -> Block:
    BUFFER[:] = block.X
    return replace(block, X=BUFFER)


def as_it_is(block: Block, _: int = 0) -> Block:
    return block


BAD_SOURCES: dict[str, tuple[Any, str]] = {
    "a gap": (Changed(lambda b, _: None if b.start == 3 else b), "starts at row 6; 3 comes next"),
    "reused buffer": (Changed(reused), "changed after it was handed out"),
    "second pass differs": (Changed(lambda b, i: replace(b, y=b.y * min(i, 2))), "second pass differs: y"),
    "second pass shorter": (Changed(lambda b, i: None if i > 1 and b.start == 6 else b), "second pass ends"),
    "second pass empty": (Changed(lambda b, i: None if i > 1 else b), "second pass ends after 0 of 3"),
    "no rows": (Changed(lambda b, _: None), "no block"),
    "empty block": (Changed(lambda b, _: Block(b.X[:0], b.y[:0], b.y[:0, 0], b.start)), "has no rows"),
    "integer X": (Changed(lambda b, _: replace(b, X=b.X.astype(int))), "X is int64"),
    "one-dimensional y": (Changed(lambda b, _: replace(b, y=b.y[:, 0])), r"y has shape \(3,\)"),
    "float32 y": (Changed(lambda b, _: replace(b, y=b.y.astype(np.float32))), "y is float32"),
    "too many columns": (Changed(lambda b, _: replace(b, X=np.hstack([b.X, b.X]))), r"X has shape \(3, 4\)"),
    "negative weight": (Changed(lambda b, _: replace(b, weights=-b.weights)), "not negative"),
    "fractional counts": (Changed(lambda b, _: replace(b, weights=b.weights / 2)), "whole numbers"),
    "zero weights": (Changed(lambda b, _: replace(b, weights=0 * b.weights)), "all weights are zero"),
    "weights left out": (Changed(lambda b, _: replace(b, weights=None)), "weights are None"),
    "other block class": (Changed(lambda b, _: SimpleNamespace(**vars(b))), "SimpleNamespace"),
    "wrong n_rows": (Changed(as_it_is, n_rows=8), "n_rows is 8"),
    "few names": (Changed(as_it_is, feature_names=("a",)), "1 names"),
    "names as list": (Changed(as_it_is, feature_names=["a", "b"]), "tuple of str"),
    "no features": (Changed(as_it_is, n_features=0), "positive integer"),
    "counts as text": (Changed(as_it_is, counts="yes"), "counts must be True or False"),
    "short keys": (Changed(as_it_is, _keys=np.arange(8)), r"must be \(9,\)"),
    "NaN among keys": (Changed(as_it_is, _keys=np.full(9, np.nan)), "NaN"),
    "fold without merging": (
        Changed(as_it_is, fold=lambda f, merge: f(next(MemorySource.blocks(RIGHT)))),
        "fold",
    ),
    "map in another order": (Changed(as_it_is, map=lambda f: [f(b) for b in RIGHT.blocks()][::-1]), "map"),
}
RIGHT = Changed(as_it_is)


def test_the_source_that_the_bad_ones_are_made_of_is_good() -> None:
    check_source(RIGHT, RIGHT.X, RIGHT.y, RIGHT.weights)


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_bad_source_is_found_out(name: str) -> None:
    source, message = BAD_SOURCES[name]
    with pytest.raises(AssertionError, match=message):
        check_source(source)


@pytest.mark.parametrize("attribute", ["X", "y", "weights"])
def test_source_that_holds_other_numbers_is_found_out(attribute: str) -> None:
    want = getattr(RIGHT, attribute).copy()
    want.flat[5] += 1
    with pytest.raises(AssertionError, match=f"{attribute} of all blocks"):
        check_source(RIGHT, **{attribute: want})


def test_object_that_is_no_source_is_told_what_it_lacks() -> None:
    with pytest.raises(AssertionError, match=r"lacks n_rows.*map"):
        check_source([1, 2, 3])


BAD_LOSSES: dict[str, tuple[dict[str, Any], str]] = {
    "wrong gradient": ({"gradient": lambda self, y, eta: 2 * (eta - y)}, "gradient"),
    "wrong curvature": ({"curvature": lambda self, y, eta: 2 + 0 * eta}, "curvature"),
    "not convex": (
        {
            "value": lambda self, y, eta: 5 - (y - eta) ** 2 / 2 + 50,
            "gradient": lambda self, y, eta: y - eta,
            "curvature": lambda self, y, eta: -1 + 0 * eta,
        },
        "convex",
    ),
    "below zero": ({"value": lambda self, y, eta: (y - eta) ** 2 / 2 - 1}, "never negative"),
    "never zero": ({"value": lambda self, y, eta: (y - eta) ** 2 / 2 + 1}, "at its smallest"),
    "summed": ({"value": lambda self, y, eta: ((y - eta) ** 2 / 2).sum()}, "shape"),
    "not finite": (
        {"curvature": lambda self, y, eta: np.full(eta.shape, np.nan)},
        "finite",
    ),
    "no name": ({"name": ""}, "name"),
    "unknown link": ({"link": "probit"}, "link is 'probit'"),
    "coupled or not": ({"coupled": "yes"}, "coupled"),
    "derivatives disagree": (
        {"derivatives": lambda self, y, eta: (eta - y, 0.5 + 0 * eta)},
        "curvature of derivatives",
    ),
    "derivatives in reverse": (
        {"derivatives": lambda self, y, eta: (1 + 0 * eta, eta - y)},
        "gradient of derivatives",
    ),
    "derivatives are views": (
        {"derivatives": lambda self, y, eta: (eta - y, np.broadcast_to(1.0, eta.shape))},
        "written to",
    ),
    "derivatives share": (
        {
            "value": lambda self, y, eta: np.exp(eta - y),
            "gradient": lambda self, y, eta: np.exp(eta - y),
            "curvature": lambda self, y, eta: np.exp(eta - y),
            "derivatives": lambda self, y, eta: (np.exp(eta - y),) * 2,
        },
        "same memory",
    ),
    "does not broadcast": (
        {"curvature": lambda self, y, eta: np.ones(np.shape(y))},
        r"curvature of y \(m, 1, T\)",
    ),
    "mean without link": ({"mean": lambda self, eta: eta + 1}, "mean"),
    "minimum elsewhere": (
        {"mean": lambda self, eta: eta + 1, "link_of": lambda self, mu: mu - 1},
        r"gradient at link_of\(y\)",
    ),
    "null elsewhere": ({"null": lambda self, mean_y: mean_y + 1}, "mean at null"),
    "null without bounds": (
        {"null": lambda self, mean_y: np.where(mean_y < 3.4, mean_y, np.inf)},
        "null of the largest",
    ),
    "null of another shape": ({"null": lambda self, mean_y: np.asarray(mean_y).sum()[None, None]}, "null"),
    "accepts NaN": ({"check": lambda self, y, target, start=0: None}, "accepts nan"),
    "accepts nothing": ({"check": lambda self, y, target, start=0: refuse(1)}, "refuses all"),
    "says no place": ({"check": lambda self, y, target, start=0: np.isfinite(y).all() or refuse(1)}, "name"),
}


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_bad_loss_is_found_out(name: str) -> None:
    changes, message = BAD_LOSSES[name]
    with pytest.raises(AssertionError, match=message):
        check_loss(type("Bad", (Gaussian,), changes)())


class LogCosh:
    """log cosh(y − η), between squared and absolute error: a loss that shares no code with the package."""

    name = "log-cosh"
    link = "identity"
    coupled = False

    def value(self, y: Array, eta: Array) -> Array:
        return np.logaddexp(eta - y, y - eta) - np.log(2)

    def gradient(self, y: Array, eta: Array) -> Array:
        return np.tanh(eta - y)

    def curvature(self, y: Array, eta: Array) -> Array:
        return 1 - np.tanh(eta - y) ** 2

    def derivatives(self, y: Array, eta: Array) -> tuple[Array, Array]:
        return self.gradient(y, eta), self.curvature(y, eta)

    def mean(self, eta: Array) -> Array:
        return eta

    link_of = null = mean

    def check(self, y: Array, target: str, start: int = 0) -> None:
        if not np.isfinite(y).all():
            row = start + int(np.argmin(np.isfinite(y))) + 1
            raise InputError(f"target '{target}' is not finite in row {row}; log-cosh needs numbers.")


def test_losses_of_others_pass() -> None:
    check_loss(LogCosh())
    check_loss(LogCosh(), y=[0.0, 7.0], eta=[-1.0, 2.0, 6.0])


class Mistaken(Multinomial):
    """Softmax with the curvature of K separate logistic models with another mean."""

    def curvature(self, y: Array, eta: Array) -> Array:
        p = self.mean(eta) / 2
        return p * (1 - p) + 0 * y


def test_bad_coupled_loss_is_found_out() -> None:
    with pytest.raises(AssertionError, match="curvature at"):
        check_loss(Mistaken())
    with pytest.raises(AssertionError, match="2 axes"):
        check_loss(Multinomial(), y=[0.0, 1.0])


class Given:
    """A penalty that answers with a given form."""

    def __init__(self, form: Callable[[Array], Any], check: Callable[[int], None] = lambda p: None) -> None:
        self.form, self.check = form, check


class Disagreeing(QuadraticForm):
    def apply(self, theta: Array) -> Array:
        return 2 * super().apply(theta)


class Rootless(QuadraticForm):
    def root(self) -> Array:
        return np.diag(np.sqrt(self.d))


class Halved(QuadraticForm):
    def root(self) -> Array:
        return super().root() / 2


def refuse(p: int) -> None:
    raise InputError("no")


def write(scales: Array) -> QuadraticForm:
    scales *= 2
    return QuadraticForm(scales)


BAD_PENALTIES: dict[str, tuple[Given, str]] = {
    "negative": (Given(lambda s: QuadraticForm(-np.ones(len(s)))), "d must be finite and ≥ 0"),
    "not finite": (
        Given(lambda s: QuadraticForm(1 / np.maximum(s, 1e-300) ** 2)),
        "d must be finite and ≥ 0",
    ),
    "not a rotation": (Given(lambda s: QuadraticForm(s, 2 * np.eye(len(s)))), "rotation"),
    "not square": (Given(lambda s: QuadraticForm(s[1:])), r"d has shape \(3,\)"),
    "no form": (Given(lambda s: np.diag(s)), "ndarray is not a QuadraticForm"),
    "apply disagrees": (Given(lambda s: Disagreeing(s)), "apply"),
    "root has zero rows": (Given(lambda s: Rootless(s)), "one per positive d is 3"),
    "root disagrees": (Given(lambda s: Halved(s)), "root"),
    "random": (Given(lambda s: QuadraticForm(RNG.uniform(size=len(s)))), "asked for again"),
    "accepts what it cannot": (Given(lambda s: QuadraticForm(np.ones(4))), "must raise InputError"),
    "refuses all": (Given(lambda s: QuadraticForm(np.ones(4)), refuse), "refuses the 4 features"),
}


@pytest.mark.parametrize("name", BAD_PENALTIES)
def test_bad_penalty_is_found_out(name: str) -> None:
    penalty, message = BAD_PENALTIES[name]
    with pytest.raises(AssertionError, match=message), np.errstate(all="ignore"):
        check_penalty(penalty, 4)


def test_penalty_that_writes_to_the_scales_is_found_out() -> None:
    with pytest.raises(ValueError, match="read-only"):
        check_penalty(Given(write), 4)


class Mutant(SpectralSolver):
    """The spectral solver with something wrong: in what it gathers, or in its state."""

    def __init__(self, gathers: Any = None, **wrong: Any) -> None:
        super().__init__("mutant")
        self.__dict__.update(gathers=gathers, wrong=wrong)

    def gather(self, problem: Any, labels: Any = None, n_atoms: int = 1) -> Any:
        gathers = self.__dict__["gathers"] or super().gather
        return gathers(problem, labels, n_atoms)

    def state(self, moments: Any, form: Any, centre: bool) -> Any:
        return Wrapped(super().state(moments, form, centre), self.__dict__["wrong"])


class Wrapped:
    """A good state with some of its attributes replaced; functions get the good state first."""

    def __init__(self, good: Any, wrong: dict[str, Any]) -> None:
        self.good, self.wrong = good, wrong

    def __getattr__(self, name: str) -> Any:
        if name not in self.wrong:
            return getattr(self.good, name)
        wrong = self.wrong[name]
        return (lambda *arguments: wrong(self.good, *arguments)) if callable(wrong) else wrong


def gathered(change: Callable[[Block], Block], *, counts: bool = True) -> Any:
    """Gather blocks that were changed on the way."""
    return lambda problem, labels, k: gather(
        map(change, problem.blocks()), counts=counts and problem.source.counts, labels=labels, n_atoms=k
    )


def without_prior(problem: Any, labels: Any, k: int) -> Any:
    return gather(problem.source.blocks(), counts=problem.source.counts, labels=labels, n_atoms=k)


def without_atoms(problem: Any, labels: Any, k: int) -> Any:
    return gather(problem.blocks(), counts=problem.source.counts)


def with_negative_labels(problem: Any, labels: Any, k: int) -> Any:
    kept = labels and (lambda block: np.maximum(labels(block), 0))
    return gather(problem.blocks(), counts=problem.source.counts, labels=kept, n_atoms=k)


def influence(change: Callable[[Any], Any]) -> Mutant:
    """Change the parts of the influence, and leave those out that become None."""

    def parts(good: Any, problem: Any, alphas: Array) -> Iterator[Any]:
        return (new for part in good.influence(problem, alphas) if (new := change(part)) is not None)

    return Mutant(influence=parts)


def twice(block: Block) -> Block:
    weights = None if block.weights is None else np.tile(block.weights, 2)
    return replace(block, X=np.tile(block.X, (2, 1)), y=np.tile(block.y, (2, 1)), weights=weights)


BAD_SOLVERS: dict[str, tuple[Mutant, str]] = {
    "no prior": (Mutant(without_prior), "prior: gather: y_mean"),
    "no weights": (Mutant(gathered(lambda b: replace(b, weights=None))), "precisions: gather: rows"),
    "counts as precisions": (Mutant(gathered(as_it_is, counts=False)), "counts: gather: observations"),
    "rows twice": (Mutant(gathered(twice)), "rows is 46"),
    "no atoms": (Mutant(without_atoms), "1 statistics for 4 atoms"),
    "negative labels kept": (Mutant(with_negative_labels), "negative label"),
    "NaN as zero": (Mutant(gathered(lambda b: replace(b, X=np.nan_to_num(b.X)))), "NaN in row 0"),
    "sorts the alphas": (Mutant(coef=lambda s, a: s.coef(np.sort(a))), "coef"),
    "one alpha for all": (Mutant(coef_at=lambda s, a: s.coef_at(0 * a + a[0])), "two targets: coef_at"),
    "counts the intercept": (Mutant(df=lambda s, a: s.df(a) + 1), "df"),
    "mean squares": (Mutant(deviance=lambda s, a: s.deviance(a) / s.statistic.weight), "rss"),
    "solves twice": (Mutant(solve=lambda s, r, a: 2 * s.solve(r, a)), "solve"),
    "singular values": (Mutant(spectrum=lambda s: np.sqrt(s.spectrum())), "spectrum"),
    "own statistic": (Mutant(statistic="mine"), "state.statistic"),
    "condition, not squared": (Mutant(condition=lambda s, a: np.sqrt(s.condition(a))), "promised"),
    "condition that knows nothing": (Mutant(condition=lambda s, a: np.inf), "of no use"),
    "no condition limit": (Mutant(condition_limit=0.0), "condition_limit"),
    "leverages a little off": (influence(lambda p: replace(p, keep=p.keep + 1e-6)), "refits without the row"),
    "rows missed": (influence(lambda p: p if p.rows.start > 0 else None), "once"),
    "no room left": (influence(lambda p: replace(p, keep=0 * p.keep)), "must be positive"),
    "weights forgotten": (influence(lambda p: replace(p, weights=0 * p.weights + 1)), "weights of influence"),
}


def test_the_solver_that_the_bad_ones_are_made_of_is_good() -> None:
    check_solver(Mutant())


@pytest.mark.parametrize("name", BAD_SOLVERS)
def test_bad_solver_is_found_out(name: str) -> None:
    solver, message = BAD_SOLVERS[name]
    with pytest.raises(AssertionError, match=message):
        check_solver(solver)


def test_solver_that_writes_to_the_rows_is_found_out() -> None:
    def centre(block: Block) -> Block:
        block.X[:] -= block.X.mean(axis=0)
        return block

    with pytest.raises(ValueError, match="read-only"):
        check_solver(Mutant(gathered(centre)))


def test_error_of_rounding_size_is_no_error() -> None:
    check_solver(Mutant(coef=lambda s, a: s.coef(a) * (1 + 1e3 * ROUNDOFF)))
