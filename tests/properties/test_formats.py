"""One table in every form that is read: the same features, coefficients, predictions and refusals."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

import elltwo

Cells = dict[str, list[Any]]
ALPHA = 1.7
NAMES = [
    "x",
    "a b",
    "date",
    "order",
    "NA",
    "null",
    "select",
    "Größe",
    "a,b",
    'q"t',
    "a'b",
    "c;d",
    "1",
    "true",
]
NAMES += ["FALSE", "current_date", "rowid", "line\nbreak", "1.5", " sp", "c0", "data", "a=b"]


def numbers(rng: np.random.Generator, n: int) -> list[Any]:
    return (np.round(rng.normal(size=n), 3) + 0.0005).tolist()  # none is whole


def whole(rng: np.random.Generator, n: int) -> list[Any]:
    return rng.integers(-5, 50, n).tolist()


def booleans(rng: np.random.Generator, n: int) -> list[Any]:
    return [True, False, *(rng.random(n - 2) < 0.5).tolist()]


def days(rng: np.random.Generator, n: int) -> list[Any]:
    return [date(2024, 1, 1) + timedelta(int(day)) for day in rng.integers(0, 300, n)]


def german_days(rng: np.random.Generator, n: int) -> list[Any]:
    return [f"{day:%d.%m.%Y}" for day in days(rng, n)]


def labels(*names: str) -> Callable[[np.random.Generator, int], list[Any]]:
    return lambda rng, n: [*names, *rng.choice(names, n - len(names)).tolist()]


COLUMNS = [numbers, whole, booleans, days, german_days, labels("Yes", "No"), labels("yes", "no")]
COLUMNS += [
    labels("same"),
    labels("red", "Red", "RED ", "blue"),
    labels("007", "08", "10"),
    lambda _, n: [3] * n,
]


@st.composite
def tables(draw: st.DrawFn) -> Cells:
    """Some columns of random kinds with hostile names, the first perhaps with nulls, and a target."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    n = draw(st.integers(12, 24))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique_by=str.casefold))
    table = {name: draw(st.sampled_from(COLUMNS))(rng, n) for name in names}
    if draw(st.booleans()):
        table[names[0]] = [*table[names[0]][:-2], None, None]
    return table | {"target y": rng.normal(size=n).tolist()}


def forms(folder: Path, table: Cells) -> dict[str, Any]:
    """Return the table as frames, and as the paths of files written here."""
    frame = pl.DataFrame(table)
    arrow = frame.to_arrow()
    rows = list(zip(*table.values(), strict=True))
    pq.write_table(arrow, folder / "t.parquet")
    for path, delimiter, point in ((folder / "t.csv", ",", "."), (folder / "t.tsv", "\t", ",")):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(table)
            writer.writerows([[_field(value, point) for value in row] for row in rows])
    lines = [json.dumps(dict(zip(table, row, strict=True)), default=str) for row in rows]
    (folder / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with duckdb.connect(str(folder / "t.duckdb")) as database:
        database.register("seen", arrow)
        database.execute("CREATE TABLE t AS FROM seen")
    with closing(sqlite3.connect(folder / "t.sqlite")) as lite, lite:
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in table)
        lite.execute(f"CREATE TABLE t ({names})")
        plain = [[str(value) if isinstance(value, date) else value for value in row] for row in rows]
        lite.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(table))})", plain)
    files = {name: folder / f"t.{name}" for name in ("csv", "tsv", "parquet", "jsonl", "sqlite", "duckdb")}
    return {"polars": frame, "arrow": arrow, "pandas": frame.to_pandas(), **files}


def _field(value: Any, point: str) -> str:
    return "" if value is None else str(value).replace(".", point) if isinstance(value, float) else str(value)


def encoded(table: Cells) -> tuple[list[str], np.ndarray]:
    """Return the names and values that the features shall have, nulls as the mean of the others."""
    features: dict[str, list[Any]] = {}
    for name, values in list(table.items())[:-1]:
        present = [value for value in values if value is not None]
        if isinstance(present[0], str):
            for level in sorted(set(present)):
                features[f"{name}={level}"] = [None if v is None else float(v == level) for v in values]
        elif isinstance(present[0], date):
            features[name] = [None if v is None else (v - date(1970, 1, 1)).days for v in values]
        else:
            features[name] = values
    X = np.array(list(features.values()), float).T
    return list(features), np.where(np.isnan(X), np.nanmean(X, axis=0), X)


def ridge(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients and predictions of ridge regression with a free intercept."""
    Z = X - X.mean(axis=0)
    Z[:, np.ptp(X, axis=0) == 0] = 0.0
    coef = np.linalg.solve(Z.T @ Z + ALPHA * np.eye(X.shape[1]), Z.T @ (y - y.mean()))
    return coef, y.mean() + Z @ coef


def fitted(data: Any) -> elltwo.Fit | str:
    """Return the model of the data, or why there is none, without the name of a database in the remedy."""
    try:
        return elltwo.fit(data, "target y", alpha=ALPHA, standardize=False, missing="mean")
    except elltwo.InputError as error:
        return re.sub(r" on '[^']*::t'", "", str(error))


@settings(derandomize=True, deadline=None, database=None, max_examples=12)
@given(table=tables())
def test_every_form_of_a_table_gives_the_same_model_or_the_same_refusal(table):
    with tempfile.TemporaryDirectory() as folder:
        sources = forms(Path(folder), table)
        models = {form: fitted(data) for form, data in sources.items()}
        if any(isinstance(model, str) for model in models.values()):
            assert len(set(models.values())) == 1, models
            return
        names, X = encoded(table)
        coef, predictions = ridge(X, np.array(table["target y"]))
        for form, model in models.items():
            assert list(model.feature_names) == names, form
            np.testing.assert_allclose(np.ravel(model.coef), coef, rtol=1e-8, atol=1e-11, err_msg=form)
        for i, (form, data) in enumerate(sources.items()):
            # Each form is predicted by its own model and by that of the form before it.
            for other in (form, list(models)[i - 1]):
                found = np.ravel(models[other].predict(data))
                np.testing.assert_allclose(
                    found, predictions, rtol=1e-8, atol=1e-9, err_msg=f"{other} {form}"
                )
