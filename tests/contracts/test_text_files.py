"""Text files and queries are data: names as the header has them, values as they are written, one SELECT."""

import csv
import sqlite3
from contextlib import closing

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import elltwo
from elltwo import files
from elltwo.data.opening import open_table
from elltwo.errors import InputError
from elltwo.interfaces.cli.main import cli

RNG = np.random.default_rng(8)
N = 24
HOSTILE = (
    "NA", "null", "NaN", "", " x ", "X", "x", "1", "2.5", "select", 'a "b"', "it's", "two\nlines", "# c",
    "a,b", "ü",
)  # fmt: skip


def read(path, **options):
    table = open_table(path, **options)
    return {
        name: [value for batch in table.batches([name]) for value in batch.column(0).to_pylist()]
        for name in table.columns
    }


def written(path, text, **options):
    path.write_text(text, encoding="utf-8", newline="")
    return read(path, **options)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_have_the_names_of_the_header_whatever_they_are(tmp_path, delimiter, end):
    values = {name: RNG.normal(size=N).tolist() for name in HOSTILE}
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerows([values, *zip(*values.values(), strict=True)])
    assert read(tmp_path / "t.csv") == values


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2\n3,4\n5,6\n", ["1", "2"]),
        ("name,town\nAnna,Ulm\n", ["name", "town"]),
        ("\n \na,b\n1,2\n", ["a", "b"]),
        ("#a,b\n1,2\n", ["#a", "b"]),
    ],
)
def test_the_first_line_that_is_not_blank_is_the_header(tmp_path, text, names):
    assert list(written(tmp_path / "t.csv", text)) == names


def test_columns_of_a_csv_file_are_found_by_name_in_another_order(tmp_path):
    y = RNG.normal(size=N)
    a, b = RNG.normal(size=(2, N))
    pd.DataFrame({"NA": a, "null": b, "y": y}).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"null": b, "NA": a}).to_csv(tmp_path / "new.csv", index=False)
    fitted = elltwo.fit(str(tmp_path / "train.csv"), "y", alpha=1.0)
    twin = elltwo.fit({"NA": a, "null": b, "y": y}, "y", alpha=1.0)
    assert fitted.feature_names == ("NA", "null")
    np.testing.assert_allclose(fitted.predict(str(tmp_path / "new.csv")), twin.predict({"NA": a, "null": b}))


def test_names_that_differ_in_capital_letters_are_refused_in_a_query_only(tmp_path):
    assert written(tmp_path / "t.csv", "x,X\n1,2\n") == {"x": [1], "X": [2]}
    with pytest.raises(InputError, match=r"'x' and 'X' .* capital letters"):
        read(tmp_path / "t.csv", sql="FROM data")
    for keys in ('"a": 1, "A": 2', '"a": 1, "": 2'):
        (tmp_path / "t.jsonl").write_text(f"{{{keys}}}\n")
        with pytest.raises(InputError, match="cannot all be columns"):
            read(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\nyes,t\nno,f\n", {"a": ["yes", "no"], "b": ["t", "f"]}),
        ("a,b,c\nTrue,true,TRUE\nFalse,false,FALSE\n", {c: [True, False] for c in "abc"}),
        ("a,b\ntrue,1\nyes,0\n", {"a": ["true", "yes"], "b": [1, 0]}),
        ("a,b\n007,1.10\n7,2\n", {"a": ["007", "7"], "b": [1.1, 2.0]}),
        ("a\tb\n1,5\tx\n2,25\ty\n", {"a": [1.5, 2.25], "b": ["x", "y"]}),
        ("a\tb\n1,500\tx\n2,250\ty\n", {"a": ["1,500", "2,250"], "b": ["x", "y"]}),
        ("a,b;c\n2,5;1\n3,0;2\n", {"a,b": [2.5, 3.0], "c": [1, 2]}),
        ('a,b\n"x \\"y, z",1\n"w",2\n', {"a": ['x "y, z', "w"], "b": [1, 2]}),
        ("a,b\n'x, y',1\n'w',2\n", {"a": ["x, y", "w"], "b": [1, 2]}),
        ("a,b\n'x',1\nit's,2\n", {"a": ["'x'", "it's"], "b": [1, 2]}),
        ("a,b\r\n1,2\n3,4\r\n", {"a": [1, 3], "b": [2, 4]}),
        ("a,b\n1,2\r\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
        ("a,b\r1,2\r3,4\r", {"a": [1, 3], "b": [2, 4]}),
    ],
)
def test_values_of_a_csv_file_are_what_is_written(tmp_path, text, expected):
    assert written(tmp_path / "t.csv", text) == expected


def test_a_boolean_column_that_turns_into_words_later_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("elltwo.data.sql.WHOLE_BYTES", 0)
    with pytest.raises(InputError, match="'new' holds true and false at first, and then yes"):
        written(tmp_path / "t.csv", "new,y\n" + "true,1\nfalse,2\n" * 11_000 + "yes,3\n")


@pytest.mark.parametrize("target", ["yes", "boolean"])
def test_a_csv_file_and_its_frame_give_the_same_model_and_take_each_others_rows(tmp_path, target):
    event = RNG.random(N) < 0.5
    frame = pd.DataFrame(
        {
            "x": RNG.normal(size=N),
            "smokes": np.where(RNG.random(N) < 0.5, "Yes", "No"),
            "new": RNG.random(N) < 0.5,
            "paid": np.where(event, "yes", "no") if target == "yes" else event,
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    path = str(tmp_path / "t.csv")
    ours, twin = (elltwo.fit(data, "paid", family="binomial", alpha=1.0) for data in (path, frame))
    assert ours.feature_names == twin.feature_names == ("x", "smokes=No", "smokes=Yes", "new")
    assert ours.classes == twin.classes == (("no", "yes") if target == "yes" else (False, True))
    np.testing.assert_allclose(ours.coef, twin.coef, rtol=1e-9)
    for fitted in (ours, twin):
        np.testing.assert_array_equal(fitted.predict(path), fitted.predict(frame))


KEPT = 'version,key,active,note\n1.1,NA,yes,"a, ""b"""\n1.10,ab,no,\n2.0,007,True,x y\n'


def test_kept_columns_are_written_as_they_were(tmp_path):
    elltwo.fit({"x": [1.0, 2, 3, 4], "y": [1.0, 2.1, 2.9, 4.2]}, "y").save(tmp_path / "m.safetensors")
    lines = zip("x123", KEPT.splitlines(), strict=True)
    (tmp_path / "new.csv").write_text("".join(f"{a},{b}\n" for a, b in lines))
    arguments = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "new.csv"), "--keep"]
    result = CliRunner().invoke(cli, [*arguments, "version,key,active,note"])
    assert result.exit_code == 0, result.output
    assert [line.rpartition(",")[0] for line in result.stdout.splitlines()] == KEPT.splitlines()
    CliRunner().invoke(cli, [*arguments, "x,version", "-o", str(tmp_path / "out.csv")])
    kept = pd.read_csv(tmp_path / "out.csv", dtype=str)
    assert kept[["x", "version"]].values.tolist() == [["1", "1.1"], ["2", "1.10"], ["3", "2.0"]]


# --------------------------------------------------------------------------------- several files, index


@pytest.mark.parametrize(("first", "second"), [("jan", "feb"), ("feb", "jan")])
def test_a_column_that_is_text_in_one_file_is_text_in_all(tmp_path, first, second):
    codes = {first: ["00501", "10001"], second: ["10001", "94105"]}
    for name, found in codes.items():
        (tmp_path / f"{name}.csv").write_text(f"zip,x\n{found[0]},1\n{found[1]},2\n")
    found = [code for name in sorted(codes) for code in codes[name]]
    assert read(tmp_path / "*.csv") == {"zip": found, "x": [1, 2, 1, 2]}
    assert read(tmp_path / "*.csv", sql="SELECT zip FROM data ORDER BY zip") == {"zip": sorted(found)}
    (tmp_path / "third.csv").write_text("zip,x\n,5\n,6\n")  # an empty part has no say
    assert read(tmp_path / "*.csv")["zip"] == [*found, None, None]


def test_an_empty_file_of_several_leaves_numbers_numbers(tmp_path):
    (tmp_path / "1.csv").write_text("a,x\n,1\n,2\n")
    (tmp_path / "2.csv").write_text("a,x\n7,3\n8,4\n")
    assert read(tmp_path / "*.csv") == {"a": [None, None, 7, 8], "x": [1, 2, 3, 4]}


@pytest.mark.parametrize("named", [None, "id"])
def test_an_index_of_pandas_is_no_feature_unless_it_is_named(tmp_path, named):
    frame = pd.DataFrame({"x": RNG.normal(size=N), "y": RNG.normal(size=N)})
    frame = frame.sample(frac=1, random_state=2).rename_axis(named)
    path, column = tmp_path / "t.parquet", named or "__index_level_0__"
    frame.to_parquet(path)
    frame.to_parquet(tmp_path / "t2.parquet")
    tables = [str(path), str(tmp_path / "*.parquet"), pq.read_table(path), pa.Table.from_pandas(frame)]
    tables += [] if named else [pl.read_parquet(path), f"SELECT * FROM '{path}'"]
    for table in tables:
        fitted = elltwo.fit(table, "y", alpha=1.0)
        assert fitted.feature_names == ("x",)
    assert elltwo.fit(str(path), "y", features=["x", column], alpha=1.0).feature_names == ("x", column)


# --------------------------------------------------------------------------------------------- queries


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("x,y\n" + "".join(f"{i},{2 * i + i % 3}\n" for i in range(20)))
    with closing(sqlite3.connect("d.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE data (x, y)")
        connection.executemany("INSERT INTO data VALUES (?, ?)", [(i, 2 * i + i % 3) for i in range(20)])
    with duckdb.connect("d.duckdb") as connection:
        connection.execute("CREATE TABLE data AS FROM 'd.csv'")
    return tmp_path


STORES = ["d.csv", "d.sqlite", "d.duckdb"]
FORBIDDEN = [
    "COPY (SELECT 42) TO 'written.csv'",
    "ATTACH 'made.duckdb' AS z",
    "CREATE TABLE z AS SELECT 1 AS x",
    "INSERT INTO data VALUES (1, 2)",
    "DELETE FROM data",
    "PRAGMA version",
    "PRAGMA journal_mode = WAL",
    "EXPORT DATABASE 'exported'",
    "INSTALL httpfs",
    "SET threads = 1",
    "VACUUM INTO 'vacuumed.db'",
    "WITH t AS (COPY (SELECT 42) TO 'written.csv') SELECT 1 AS x, 2 AS y",
    "WITH t AS (INSERT INTO data VALUES (1, 2) RETURNING *) SELECT * FROM t",
    "SELECT * FROM query('COPY (SELECT 42) TO ''written.csv''')",
    "SELECT * FROM enable_logging(storage := 'file', storage_path := 'logs')",
    "SELECT load_extension('x.so') AS x, 1 AS y",
]


@pytest.mark.parametrize("query", FORBIDDEN)
@pytest.mark.parametrize("data", [*STORES, None])
def test_a_query_that_does_more_than_read_is_refused(folder, data, query):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for text in (query, f"SELECT * FROM data; {query}; SELECT * FROM data"):
        with pytest.raises(InputError):
            open_table(text) if data is None else open_table(data, sql=text)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_query_of_several_statements_is_told_to_be_one_select(folder):
    for data in STORES:
        with pytest.raises(InputError, match="one SELECT"):
            open_table(data, sql="SELECT * FROM data; COPY (SELECT 42) TO 'written.csv'")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.parquet", "s3://bucket/x.csv", "hf://datasets/a/b.csv"]
)
def test_a_query_reads_no_url(folder, url):
    with pytest.raises(InputError, match=f"{url}.*only files of this machine are read. Download it"):
        open_table(f"SELECT * FROM '{url}'")


def test_an_extension_is_neither_loaded_nor_fetched(folder):
    with pytest.raises(InputError, match="extension 'spatial', and none is loaded here"):
        open_table("SELECT * FROM st_read('x.shp')")


ENDS = ["", ";", " ; ;\n", " -- all", "; -- all", " /* all */ ;", "\n-- all; of it\n"]


@pytest.mark.parametrize("end", ENDS)
def test_comments_and_semicolons_may_end_a_query(folder, end):
    expected = {"x": list(range(20))}
    for data in STORES:
        assert read(data, sql=f"SELECT x FROM data{end}") == expected
    assert read(f"SELECT x FROM 'd.csv'{end}") == expected


@pytest.mark.parametrize("query", ["", " ", ";", "-- nothing", "/* SELECT 1 */"])
def test_a_query_of_nothing_is_refused(folder, query):
    for data in STORES:
        with pytest.raises(InputError, match="SELECT"):
            open_table(data, sql=query)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_times_of_day_are_refused_and_the_query_told_makes_them_hours(tmp_path, suffix):
    path, table = tmp_path / f"t.{suffix}", pa.table({"t": ["10:00", "9:30", "23:15"], "y": [1, 2, 4]})
    with duckdb.connect() as connection:
        connection.register("source", table)
        connection.execute("CREATE TABLE t AS FROM source")
        connection.execute(f"COPY t TO '{path}'" + (" (FORMAT json)" if suffix == "jsonl" else ""))
    with pytest.raises(InputError, match="times of day") as told:
        elltwo.fit(path, "y", alpha=1.0)
    query = str(told.value).split('with --sql (sql=) "')[1].split('",')[0]
    assert read(path, sql=query)["t"] == [10.0, 9.5, 23.25]


def test_what_looks_like_the_end_inside_a_text_is_kept(folder):
    for data in STORES:
        assert read(data, sql="SELECT '; -- /* ' AS x FROM data LIMIT 1 -- ;") == {"x": ["; -- /* "]}


# ------------------------------------------------------------------------------------- names of files


@pytest.mark.parametrize("name", ["~nosuchuser/d.csv", "d\udcff.csv", "d\0.csv"])
def test_names_that_no_file_can_have_are_refused(folder, name):
    fitted = elltwo.fit("d.csv", "y", alpha=1.0)
    for use in (lambda: elltwo.fit(name, "y"), lambda: elltwo.load(name), lambda: fitted.save(name)):
        with pytest.raises(InputError):
            use()


def test_a_home_folder_may_be_named_by_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    fitted = elltwo.fit("~/d.csv", "y", alpha=1.0)
    fitted.save("~/m.safetensors")
    np.testing.assert_array_equal(elltwo.load("~/m.safetensors").coef, fitted.coef)


def test_a_temporary_file_of_a_killed_process_is_removed_by_the_next_write(folder):
    """One that is in use, and what only looks alike, stay."""
    stale, other = folder / ".elltwo-0123456789abcdef.tmp", folder / ".elltwo-notes.tmp"
    for content in (b"", b"half a model"):
        stale.write_bytes(content)
        other.write_bytes(b"mine")
        with files.replacing(folder / "a") as outer:
            assert not stale.exists()
            with files.replacing(folder / "b") as inner:
                inner.write(b"inner")
            outer.write(b"outer")
        assert ((folder / "a").read_bytes(), (folder / "b").read_bytes()) == (b"outer", b"inner")
        assert [path.name for path in folder.glob(".elltwo-*")] == [other.name]


def test_a_long_query_is_no_file_name(folder):
    assert read("SELECT x FROM 'd.csv' WHERE x IN (" + ", ".join(map(str, range(400))) + ")")["x"][-1] == 19
