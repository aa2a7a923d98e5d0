"""One table in every kind of storage gives the blocks of one NumPy reference; bad tables are refused."""

import csv
import datetime
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elltwo.data import encode
from elltwo.data.base import Source
from elltwo.data.encode import Encoder, choose_features
from elltwo.data.table import TableSource, open_table
from elltwo.engine import fit_source
from elltwo.errors import InputError

N = 200
COLOURS = ("blue", "green", "red")
FEATURES = ("size", "rooms", "sold", "new", "colour=blue", "colour=green", "colour=red")


def columns():
    rng = np.random.default_rng(3)
    days = [
        datetime.date(2020, 1, 1) + datetime.timedelta(days=int(d)) for d in rng.integers(-20_000, 900, N)
    ]
    return {
        "size": rng.lognormal(4, 0.5, N).tolist(),
        "rooms": rng.integers(1, 9, N).tolist(),
        "sold": days,
        "new": (rng.random(N) < 0.3).tolist(),
        "colour": [COLOURS[i] for i in rng.integers(0, 3, N)],
        "rent": rng.normal(800, 90, N).tolist(),
        "precision": rng.uniform(0.5, 2, N).tolist(),
        "count": rng.integers(0, 4, N).tolist(),
        "school": [f"s{i}" for i in rng.integers(0, 12, N)],
    }


def reference():
    c = columns()
    epoch = datetime.date(1970, 1, 1)
    X = np.column_stack(
        [
            c["size"],
            c["rooms"],
            [(day - epoch).days for day in c["sold"]],
            c["new"],
            *([value == colour for value in c["colour"]] for colour in COLOURS),
        ]
    ).astype(float)
    return X, np.array(c["rent"])[:, None]


def rows(c):
    return list(zip(*c.values(), strict=True))


def write_csv(path, c, **options):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerow(c)
        writer.writerows(rows(c))


def write_json(path, c):
    lines = [json.dumps(dict(zip(c, row, strict=True)), default=str) for row in rows(c)]
    path.write_text("\n".join(lines) + "\n")


def half(c, which):
    return {name: values[: N // 2] if which == 0 else values[N // 2 :] for name, values in c.items()}


def as_csv(folder):
    write_csv(folder / "t.csv", columns())
    return folder / "t.csv"


def as_semicolon_csv(folder):
    write_csv(folder / "t.csv", columns(), delimiter=";")
    return str(folder / "t.csv")


def as_gzipped_csv(folder):
    pd.DataFrame(columns()).to_csv(folder / "t.csv.gz", index=False)
    return folder / "t.csv.gz"


def as_parquet(folder):
    pq.write_table(pa.table(columns()), folder / "t.parquet")
    return folder / "t.parquet"


def as_parquet_of_many_row_groups(folder):
    pq.write_table(pa.table(columns()), folder / "t.parquet", row_group_size=7)
    return folder / "t.parquet"


def as_json_lines(folder):
    write_json(folder / "t.jsonl", columns())
    return folder / "t.jsonl"


def as_csv_glob(folder):
    for which in (0, 1):
        write_csv(folder / f"part{which}.csv", half(columns(), which))
    return folder / "part*.csv"


def as_parquet_glob(folder):
    for which in (0, 1):
        pq.write_table(pa.table(half(columns(), which)), folder / f"part{which}.parquet")
    return str(folder / "*.parquet")


def as_json_glob(folder):
    for which in (0, 1):
        write_json(folder / f"part{which}.jsonl", half(columns(), which))
    return str(folder / "part?.jsonl")


def as_query(folder):
    return f"SELECT * FROM '{as_parquet(folder)}';"


def as_duckdb_file(folder):
    table = pa.table(columns())
    with duckdb.connect(str(folder / "t.duckdb")) as connection:
        connection.register("given", table)
        connection.execute("CREATE TABLE houses AS FROM given")
    return folder / "t.duckdb"


def as_duckdb_view(folder):
    path = as_duckdb_file(folder)
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE VIEW seen AS FROM houses")
    return f"{path}::seen"


def as_sqlite_file(folder):
    c = columns() | {"sold": [str(day) for day in columns()["sold"]]}
    with closing(sqlite3.connect(folder / "t.db")) as connection, connection:
        connection.execute(f"CREATE TABLE houses ({', '.join(c)})")
        connection.executemany(f"INSERT INTO houses VALUES ({', '.join('?' * len(c))})", rows(c))
    return folder / "t.db"


def as_pandas(folder):
    return pd.DataFrame(columns(), index=range(5, N + 5))


def as_pandas_categorical(folder):
    return pd.DataFrame(columns()).astype({"colour": "category"})


def as_polars(folder):
    return pl.DataFrame(columns())


def as_polars_categorical(folder):
    return pl.DataFrame(columns()).with_columns(pl.col("colour").cast(pl.Categorical))


def as_polars_lazy(folder):
    return pl.LazyFrame(columns())


def as_arrow(folder):
    return pa.table(columns())


def as_arrow_in_chunks(folder):
    table = pa.table(columns())
    return pa.concat_tables([table.slice(at, 33) for at in range(0, N, 33)])


def as_arrow_reader(folder):
    return pa.table(columns()).to_reader(17)


def as_relation(folder):
    return duckdb.connect().sql(as_query(folder).rstrip(";"))


STORES = (
    as_csv,
    as_semicolon_csv,
    as_gzipped_csv,
    as_parquet,
    as_parquet_of_many_row_groups,
    as_json_lines,
    as_csv_glob,
    as_parquet_glob,
    as_json_glob,
    as_query,
    as_duckdb_file,
    as_duckdb_view,
    as_sqlite_file,
    as_pandas,
    as_pandas_categorical,
    as_polars,
    as_polars_categorical,
    as_polars_lazy,
    as_arrow,
    as_arrow_in_chunks,
    as_arrow_reader,
    as_relation,
)


@pytest.fixture(params=STORES, ids=lambda store: store.__name__)
def data(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few dozen rows, so that 200 rows make many of them."""
    monkeypatch.setattr(encode, "_BLOCK_BYTES", 8 * 8 * 6)


def source_of(
    data, target="rent", features=("size", "rooms", "sold", "new", "colour"), missing="error", **roles
):
    table = open_table(data)
    return TableSource(table, Encoder.fit(table, features, missing=missing), target, **roles)


def joined(source):
    blocks = list(source.blocks())
    assert [block.start for block in blocks] == np.cumsum([0, *(len(b.y) for b in blocks)])[:-1].tolist()
    assert all(block.X.dtype == block.y.dtype == np.float64 for block in blocks)
    assert all(block.X.flags.f_contiguous for block in blocks)
    weights = None if blocks[0].weights is None else np.concatenate([block.weights for block in blocks])
    return np.concatenate([b.X for b in blocks]), np.concatenate([b.y for b in blocks]), weights


def test_every_store_gives_the_reference(data, small_blocks):
    source = source_of(data)
    assert isinstance(source, Source)
    assert source.feature_names == FEATURES
    assert (source.n_features, source.n_targets, source.target_names) == (7, 1, ("rent",))
    X, y = reference()
    for _ in range(2):
        got_X, got_y, weights = joined(source)
        np.testing.assert_array_equal(got_X, X)
        np.testing.assert_array_equal(got_y, y)
        assert weights is None
    assert (source.n_rows, source.rows_dropped) == (N, 0)


def test_every_store_gives_kinds_weights_and_keys(data, small_blocks):
    kinds = open_table(data).kinds if not isinstance(data, pa.RecordBatchReader) else None
    if kinds is None:
        data = data.read_all()
        kinds = open_table(data).kinds
    expected = dict.fromkeys(columns(), "number") | {"sold": "date", "colour": "string", "school": "string"}
    # SQLite has no booleans: it stores them as 0 and 1.
    assert kinds in (expected, expected | {"new": "boolean"})
    c = columns()
    precise = source_of(data, weights="precision", key="school")
    assert not precise.counts
    np.testing.assert_array_equal(joined(precise)[2], c["precision"])
    np.testing.assert_array_equal(precise.keys(), np.unique(c["school"], return_inverse=True)[1])
    counted = source_of(data, weights="count", weights_are="frequency", key="rooms")
    assert counted.counts
    np.testing.assert_array_equal(joined(counted)[2], c["count"])
    np.testing.assert_array_equal(counted.keys(), c["rooms"])
    np.testing.assert_array_equal(source_of(data, key="sold").keys(), reference()[0][:, 2])


@pytest.mark.parametrize(
    "store", [as_csv, as_csv_glob, as_parquet, as_parquet_glob, as_json_lines, as_json_glob]
)
def test_sql_on_files(store, tmp_path):
    table = open_table(store(tmp_path), sql="SELECT rent, size * 2 AS twice FROM data WHERE rooms > 4")
    c = columns()
    keep = np.array(c["rooms"]) > 4
    X, y, _ = joined(TableSource(table, Encoder.fit(table, ["twice"]), "rent"))
    np.testing.assert_array_equal(y[:, 0], np.array(c["rent"])[keep])
    np.testing.assert_array_equal(X[:, 0], 2 * np.array(c["size"])[keep])


@pytest.mark.parametrize("store", [as_pandas, as_polars, as_arrow, as_relation])
def test_sql_on_objects(store, tmp_path):
    table = open_table(store(tmp_path), sql="FROM data SELECT rent LIMIT 3")
    np.testing.assert_array_equal(
        joined(TableSource(table, Encoder((), "error"), "rent"))[1], reference()[1][:3]
    )


@pytest.mark.parametrize("store", [as_duckdb_file, as_sqlite_file])
def test_sql_on_databases(store, tmp_path):
    table = open_table(store(tmp_path), sql="SELECT rent FROM houses WHERE colour = 'red';")
    red = np.array(columns()["colour"]) == "red"
    np.testing.assert_array_equal(
        joined(TableSource(table, Encoder((), "error"), "rent"))[1], reference()[1][red]
    )


def test_sqlite_columns_with_the_names_of_values_keep_names_and_types(tmp_path):
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection, connection:
        connection.execute('CREATE TABLE t ("true" REAL, "FALSE" TEXT, rent REAL)')
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [(7.5, "a", 1.0), (8.5, None, 2.0)])
    for sql in (None, "SELECT * FROM t", "WITH u AS (SELECT 1) SELECT t.* FROM t, u -- all"):
        table = open_table(tmp_path / "t.db", sql=sql)
        assert table.kinds == {"true": "number", "FALSE": "string", "rent": "number"}
        assert [table.example(name) for name in table.columns] == [7.5, "a", 1.0]


def test_a_random_query_gives_the_same_rows_on_every_pass():
    source = source_of("SELECT random() AS x, random() AS y FROM range(1000)", "y", ["x"])
    first, second = joined(source), joined(source)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_temporary_files_go_with_their_table(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table = open_table("SELECT 1 AS x")
    assert len(list(tmp_path.iterdir())) == 1
    del table
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no rows"):
        open_table("SELECT 1 AS x WHERE false")
    with pytest.raises(InputError, match="nowhere"):
        open_table("SELECT * FROM nowhere")
    assert not list(tmp_path.iterdir())


def test_a_query_sees_none_of_our_variables():
    with pytest.raises(InputError, match="data"):
        open_table("SELECT * FROM data")


def test_order_is_kept_over_many_batches(tmp_path):
    n = 300_000
    pq.write_table(
        pa.table({"x": np.arange(n), "y": np.ones(n)}), tmp_path / "t.parquet", row_group_size=40_000
    )
    duckdb.connect().execute(f"COPY (FROM '{tmp_path}/t.parquet') TO '{tmp_path}/t.csv'")
    for name in ("t.parquet", "t.csv"):
        X, _, _ = joined(source_of(tmp_path / name, "y", ["x"]))
        np.testing.assert_array_equal(X[:, 0], np.arange(n))


def test_a_row_group_larger_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("elltwo.data.parquet.PIECE_BYTES", 1000)
    X, y, _ = joined(source_of(as_parquet(tmp_path)))
    np.testing.assert_array_equal(X, reference()[0])
    np.testing.assert_array_equal(y, reference()[1])


def test_a_reader_may_stop_early(tmp_path, small_blocks):
    source = source_of(as_parquet_of_many_row_groups(tmp_path))
    blocks = source.blocks()
    next(blocks)
    blocks.close()
    np.testing.assert_array_equal(joined(source)[0], reference()[0])


def test_several_targets_and_progress(tmp_path, small_blocks):
    told = []
    source = source_of(as_csv(tmp_path), ["rent", "new"], ["size"], progress=lambda *at: told.append(at))
    _, y, _ = joined(source)
    np.testing.assert_array_equal(y, np.column_stack([reference()[1][:, 0], columns()["new"]]))
    assert told == sorted(told)
    assert told[-1] == (N, None)
    assert source_of(as_parquet(tmp_path)).n_rows == N


def test_fold_and_map_reach_every_row(tmp_path, small_blocks):
    source = source_of(as_parquet(tmp_path))
    assert source.fold(lambda block: len(block.y), lambda a, b: a + b) == N
    assert sum(len(part) for part in source.map(lambda block: block.y)) == N


HOLES = {
    "a": [1.0, None, 3.0, float("nan"), 5.0, 6.0],
    "c": ["u", "v", None, "u", "u", "v"],
    "y": [1.0, 2.0, 3.0, 4.0, None, 6.0],
    "w": [1.0, 2.0, 1.0, 1.0, 1.0, 3.0],
    "g": ["p", "q", "r", "p", "q", "r"],
}


def test_missing_drop(small_blocks):
    source = source_of(HOLES, "y", ["a", "c"], missing="drop", weights="w", key="g")
    X, y, w = joined(source)
    np.testing.assert_array_equal(X, [[1, 1, 0], [6, 0, 1]])
    np.testing.assert_array_equal(y, [[1], [6]])
    np.testing.assert_array_equal(w, [1, 3])
    np.testing.assert_array_equal(source.keys(), [0, 2])
    assert (source.n_rows, source.rows_dropped) == (2, 4)


def test_missing_mean_drops_rows_without_a_target():
    source = source_of(HOLES, "y", ["a", "c"], missing="mean", key="g")
    X, y, _ = joined(source)
    third = (1 + 3 + 5 + 6) / 4
    np.testing.assert_allclose(
        X, [[1, 1, 0], [third, 0, 1], [3, 0.6, 0.4], [third, 1, 0], [6, 0, 1]], rtol=1e-15
    )
    np.testing.assert_array_equal(y[:, 0], [1, 2, 3, 4, 6])
    np.testing.assert_array_equal(source.keys(), [0, 1, 2, 0, 2])
    assert source.rows_dropped == 1


def test_integers_with_holes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n1,2\nNA,4\n5,6\n")
    X, _, _ = joined(source_of(path, "y", ["x"], missing="drop"))
    np.testing.assert_array_equal(X, [[1], [5]])


def test_a_fraction_after_many_integers_is_not_rounded(tmp_path, monkeypatch):
    monkeypatch.setattr("elltwo.data.sql.WHOLE_BYTES", 0)
    lines = [f"{i % 7},1" for i in range(30_000)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *lines, "0.5,1"]))
    (tmp_path / "t.jsonl").write_text('{"x": 1, "y": 1}\n' * 30_000 + '{"x": 0.5, "y": 1}\n')
    for name in ("t.csv", "t.jsonl"):
        X, _, _ = joined(source_of(tmp_path / name, "y", ["x"]))
        assert X[-1, 0] == 0.5
        with pytest.raises(InputError, match=r"1 not whole.*first in row 30,001"):
            joined(source_of(tmp_path / name, "y", ["y"], weights="x", weights_are="frequency"))


def test_text_after_many_numbers_names_line_and_column(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "1,1\n" * 30_000 + "oops,1\n")
    with pytest.raises(InputError, match=r"target 'x' must hold numbers.*such as"):
        source_of(path, "x", ["y"])
    monkeypatch.setattr("elltwo.data.sql.WHOLE_BYTES", 0)
    with pytest.raises(InputError, match=r"line 30002.*column \"x\".*oops"):
        joined(source_of(path, "y", ["x"]))


def text(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_text(content, encoding=encoding)
    return path


def corrupt_parquet(folder):
    path = as_parquet(folder)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    return path


def truncated_parquet(folder):
    path = as_parquet(folder)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def empty_database(folder):
    duckdb.connect(str(folder / "t.duckdb")).close()
    return folder / "t.duckdb"


def two_tables(folder):
    path = as_duckdb_file(folder)
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE streets AS SELECT 1 AS x")
    return path


def unlike_parts(folder):
    text(folder, "p1.csv", "x,y\n1,2\n")
    text(folder, "p2.csv", "x,z\n1,2\n")
    return folder / "p*.csv"


DIALECTS = {
    "decimal comma": "x;y\n2,5;1\n3,5;2\n",
    "decimal point": "x;y\n2.5;1\n3.5;2\n",
    "tabs": "x\ty\n2.5\t1\n3.5\t2\n",
    "byte order mark": "\ufeffx,y\n2.5,1\n3.5,2\n",
    "Windows line ends": "x,y\r\n2.5,1\r\n3.5,2\r\n",
    "quotes": '"it\'s ""x""",y,x\n"a, b\nc",1,2.5\n"d;",2,3.5\n',
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_of_csv(dialect, tmp_path):
    path = tmp_path / "it's [1].csv"
    path.write_text(DIALECTS[dialect], encoding="utf-8", newline="")
    for sql in (None, "FROM data"):
        table = open_table(path, sql=sql)
        X, y, _ = joined(TableSource(table, Encoder.fit(table, ["x"]), "y"))
        np.testing.assert_array_equal(X, [[2.5], [3.5]])
        np.testing.assert_array_equal(y, [[1], [2]])


UNREADABLE = {
    "near name": (lambda d: (as_csv(d), d / "tt.csv")[1], r"no file '.*tt.csv'. Did you mean 't.csv'"),
    "no folder": (lambda d: d / "none" / "t.csv", "folder '.*none' does not exist"),
    "a folder": (lambda d: d, r"is a folder.*\*\.parquet"),
    "glob of nothing": (lambda d: d / "*.csv", "No file matches"),
    "empty": (lambda d: text(d, "t.csv", ""), "is empty"),
    "blank lines": (lambda d: text(d, "t.csv", "\n\n"), "blank lines only"),
    "header only": (lambda d: text(d, "t.csv", "x,y\n"), "column names but no rows"),
    "short row": (lambda d: text(d, "t.csv", "x,y,z\n1,2,3\n4,5\n6,7,8\n"), r"Line 3 of .* has 2 fields.* 3"),
    "short last row": (
        lambda d: text(d, "t.csv", "x,y\n" + "1,2\n" * 40_000 + "1"),
        "Line 40002 of .* has 1 field",
    ),
    "other encoding": (lambda d: text(d, "t.csv", "x,y\nü,2\n", "latin-1"), "not utf-8 encoded"),
    "long row": (lambda d: text(d, "t.csv", "x,y\n1,2\n4,5,6\n6,7\n"), r"Line 3 of .* has 3 fields.* 2"),
    "lines above": (lambda d: text(d, "t.csv", "Rents\n\nx,y\n1,2\n4,5\n"), "remove lines above"),
    "short header": (lambda d: text(d, "t.csv", "x,y\n1,2,3\n4,5,6\n"), "Line 2 of .* has 3 fields"),
    "repeated name": (lambda d: text(d, "t.csv", "x,x,y\n1,2,3\n"), "several columns named 'x'"),
    "broken JSON": (lambda d: text(d, "t.jsonl", '{"x": 1}\n{"x": }\n'), r"Line 2 of .*t.jsonl"),
    "JSON without objects": (lambda d: text(d, "t.jsonl", "1\n2\n"), "one JSON object per line"),
    "corrupt Parquet": (
        lambda d: text(d, "t.parquet", "this is no Parquet file"),
        "cannot be read as Parquet",
    ),
    "truncated Parquet": (truncated_parquet, "cannot be read as Parquet"),
    "no tables": (empty_database, "has no tables"),
    "several tables": (two_tables, "several tables.*'houses', 'streets'.*::houses"),
    "other table": (lambda d: f"{two_tables(d)}::street", "no table 'street'. Did you mean 'streets'"),
    "table of a CSV": (lambda d: f"{as_csv(d)}::houses", "not a DuckDB or SQLite database"),
    "unlike parts": (unlike_parts, "differ in the columns 'y', 'z'"),
    "repeats in a query": (lambda d: "SELECT 1 AS x, 2 AS x", "several columns named 'x'"),
    "wrong query": (lambda d: "SELECT x FROM", "syntax error"),
    "array": (lambda d: np.ones((3, 2)), "not a table with named columns.*elltwo.Ridge"),
    "repeats in pandas": (lambda d: pd.DataFrame([[1, 2]], columns=["x", "x"]), "several columns named 'x'"),
    "mixed pandas": (lambda d: pd.DataFrame({"x": [1, "a"]}), "cannot be read as a table.*column x"),
    "no rows": (lambda d: pl.DataFrame({"x": []}), "no rows"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable(case, tmp_path):
    make, message = UNREADABLE[case]
    data = make(tmp_path)
    with pytest.raises(InputError, match=message):
        joined(source_of(data, "y", ["x"]))


def test_parquet_that_is_corrupt_inside(tmp_path):
    source = source_of(corrupt_parquet(tmp_path), features=["size"])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        joined(source)


def test_sqlite_that_is_corrupt(tmp_path):
    path = tmp_path / "t.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(200))
    with pytest.raises(InputError, match=r"SQLite database .* cannot be read"):
        open_table(path)


def with_column(name, values):
    table = {"x": [1.0, 2.0, 3.0], "t": ["a", "b", "a"], "y": [1.0, 2.0, 4.0]}
    return table | {name: values}


ROLES = {
    "unknown target": ("x", [1.0, 2, 3], {"target": "yy"}, "target 'yy' is not a column.* Did you mean 'y'"),
    "text target": ("y", ["cheap", "dear", "dear"], {}, "target 'y' must hold numbers.*'cheap'"),
    "missing target": (
        "y",
        [1.0, None, float("nan")],
        {},
        r"missing values in 'y' \(2 rows\).*rows without a target",
    ),
    "infinite target": (
        "y",
        [1.0, float("inf"), 3.0],
        {"missing": "drop"},
        r"infinite values in 'y' \(1 row\)",
    ),
    "missing feature": (
        "x",
        [None, 2.0, float("nan")],
        {},
        r"'x' \(2 rows\).*--missing mean.*--missing drop",
    ),
    "missing text": ("t", ["a", None, "b"], {}, r"missing values in 't' \(1 row\)"),
    "infinite feature": (
        "x",
        [1.0, -float("inf"), 3.0],
        {"missing": "mean"},
        r"infinite values in 'x' \(1 row\)",
    ),
    "nothing left": ("x", [1.0, None, None], {"missing": "drop", "dropped": True}, "none is left"),
    "unknown weights": ("x", [1.0, 2, 3], {"weights": "ww"}, "weights column 'ww' is not a column"),
    "text weights": ("x", [1.0, 2, 3], {"weights": "t"}, "weights column 't' must hold numbers"),
    "negative weights": ("w", [1.0, -2.0, -3.0], {"weights": "w"}, "2 negative, first in row 2"),
    "NaN weights": ("w", [1.0, None, 3.0], {"weights": "w"}, r"1 missing \(or NaN\), first in row 2"),
    "infinite weights": ("w", [float("inf"), 1.0, 3.0], {"weights": "w"}, "1 infinite, first in row 1"),
    "all-zero weights": ("w", [0.0, 0.0, 0.0], {"weights": "w"}, "'w' are all zero"),
    "unknown group": ("x", [1.0, 2, 3], {"key": "tt"}, "group or time column 'tt' is not a column"),
    "missing group": ("g", ["a", None, None], {"key": "g"}, "'g' has 2 missing values"),
    "missing time": ("g", [1.0, None, 2.0], {"key": "g"}, "'g' has 1 missing values"),
    "nested group": ("g", [[1], [2], [3]], {"key": "g"}, "'g' is nested"),
}


@pytest.mark.parametrize("case", ROLES)
def test_refused_values(case):
    name, values, roles, message = ROLES[case]
    table = with_column(name, values)
    roles = dict(roles)
    if roles.pop("dropped", False):
        table["x"], table["y"] = [1.0, None, None], [None, 1.0, 2.0]

    def use(target="y", **options):
        source = source_of(table, target, ["x", "t"], **options)
        source.keys()
        joined(source)
        fit_source(source, 1.0)  # what is missing under "error" is noticed by the moments

    with pytest.raises(InputError, match=message):
        use(**roles)


def test_huge_finite_values_are_fine():
    X, _, _ = joined(source_of({"x": [1e308, 1e308, 1e308], "y": [1.0, 2.0, 3.0]}, "y", ["x"]))
    np.testing.assert_array_equal(X, np.full((3, 1), 1e308))


def test_nothing_is_loaded_by_import_elltwo():
    code = "import elltwo, sys; assert not {'duckdb', 'pyarrow', 'narwhals'} & set(sys.modules)"
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_choosing_features():
    table = open_table(columns())
    chosen = choose_features(table, target="rent", weights="count", key="school")
    assert chosen == ("size", "rooms", "sold", "new", "colour", "precision")
    assert choose_features(table, target="rent", features=["new", "size"], drop="size") == ("new",)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"target": "rnet"}, "Did you mean 'rent'"),
        ({"features": ["sise"]}, "feature 'sise' is not a column.*Did you mean 'size'"),
        ({"drop": ["romms"]}, "column to drop 'romms' is not a column.*Did you mean 'rooms'"),
        ({"weights": "cuont"}, "weights 'cuont' is not a column.*Did you mean 'count'"),
        ({"key": "scool"}, "group or time column 'scool' is not a column.*Did you mean 'school'"),
        ({"features": ["rent"]}, "'rent' is the target, so it cannot be a feature"),
        ({"features": ["size", "size"]}, "name 'size' more than once"),
        ({"features": ["size"], "drop": ["size"]}, "No column of .* is left"),
    ],
)
def test_features_that_cannot_be_chosen(roles, message):
    with pytest.raises(InputError, match=message):
        choose_features(open_table(columns()), **({"target": "rent"} | roles))
