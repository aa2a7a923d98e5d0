"""The encoder: columns become features, policies for missing values, and what a new table may look like."""

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from elltwo.data import encode
from elltwo.data.encode import Column, Encoder
from elltwo.data.reading import Table
from elltwo.data.table import open_table
from elltwo.errors import InputError, ModelFileError

DAY = datetime.date(1970, 1, 11)
NOON = datetime.datetime(1970, 1, 11, 12)
UTC = datetime.UTC


def fitted(data, features=None, **options):
    table = open_table(data)
    return Encoder.fit(table, features or table.columns, **options)


def test_the_stored_values_of_every_type():
    table = pa.table(
        {
            "bool": pa.array([True, False]),
            "uint8": pa.array([200, 3], pa.uint8()),
            "int64": pa.array([-5, 7]),
            "half": pa.array([np.float16(0.5), np.float16(2)], pa.float16()),
            "float32": pa.array([0.25, 8.0], pa.float32()),
            "float64": pa.array([1e300, -1e-300]),
            "decimal": pa.array([decimal.Decimal("1.50"), decimal.Decimal("-2.25")]),
            "date32": pa.array([DAY, DAY], pa.date32()),
            "date64": pa.array([DAY, DAY], pa.date64()),
            "s": pa.array([NOON, NOON], pa.timestamp("s")),
            "ms": pa.array([NOON, NOON], pa.timestamp("ms")),
            "us": pa.array([NOON.replace(tzinfo=UTC)] * 2, pa.timestamp("us", "Europe/Berlin")),
            "ns": pa.array([NOON, NOON], pa.timestamp("ns")),
            "duration": pa.array([datetime.timedelta(days=2, hours=6)] * 2, pa.duration("ms")),
        }
    )
    encoder = fitted(table)
    expected = [
        [1, 200, -5, 0.5, 0.25, 1e300, 1.5, 10, 10, 10.5, 10.5, 10.5, 10.5, 2.25],
        [0, 3, 7, 2, 8, -1e-300, -2.25, 10, 10, 10.5, 10.5, 10.5, 10.5, 2.25],
    ]
    np.testing.assert_array_equal(encoder.transform(table), expected)
    assert encoder.feature_names == tuple(table.column_names)
    holes = pa.concat_tables(
        [table, pa.table([pa.nulls(1, f.type) for f in table.schema], schema=table.schema)]
    )
    dropped = fitted(holes, missing="drop").transform(holes)
    np.testing.assert_array_equal(dropped, [*expected, [np.nan] * 14])


TEXT = ["red", "blue", "", "red"]
STRINGS = {
    "string": pa.array(TEXT),
    "large_string": pa.array(TEXT, pa.large_string()),
    "string_view": pa.array(TEXT, pa.string_view()),
    "dictionary": pa.array(TEXT).dictionary_encode(),
    "dictionary with unused levels": pa.DictionaryArray.from_arrays(
        [2, 0, 3, 2], ["blue", "unused", "red", ""]
    ),
    "dictionary with a null level": pa.DictionaryArray.from_arrays([2, 0, 3, 2], ["blue", None, "red", ""]),
    "pandas": pd.Series(TEXT),
    "pandas category": pd.Series(TEXT, dtype="category"),
    "polars": pl.Series(TEXT),
    "polars enum": pl.Series(TEXT, dtype=pl.Enum(["red", "blue", ""])),
}


@pytest.mark.parametrize("kind", STRINGS)
def test_text_is_one_hot_of_all_levels(kind):
    values = STRINGS[kind]
    table = pd.DataFrame({"c": values}) if isinstance(values, pd.Series) else None
    table = pl.DataFrame({"c": values}) if isinstance(values, pl.Series) else table
    table = pa.table({"c": values}) if table is None else table
    encoder = fitted(table)
    assert encoder.feature_names == ("c=", "c=blue", "c=red")
    np.testing.assert_array_equal(encoder.transform(table), [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_numeric_categories_are_categories():
    table = pd.DataFrame({"zip": pd.Categorical([10, 20, 10])})
    encoder = fitted(table)
    assert encoder.feature_names == ("zip=10", "zip=20")
    np.testing.assert_array_equal(encoder.transform(table), [[1, 0], [0, 1], [1, 0]])


class Unread(Table):
    """A table that must not be read."""

    def batches(self, columns):
        raise AssertionError("the table was read")


@pytest.mark.parametrize("missing", ["error", "drop"])
def test_numbers_need_no_pass(missing):
    schema = pa.schema({"a": pa.int8(), "b": pa.bool_(), "c": pa.date32()})
    assert Encoder.fit(Unread("t", schema, None), ["c", "a"], missing=missing).feature_names == ("c", "a")


def test_constant_columns_are_kept():
    np.testing.assert_array_equal(
        fitted({"a": [2.0, 2.0], "b": ["u", "u"]}).transform({"a": [1], "b": ["u"]}), [[1, 1]]
    )


def test_unseen_levels_are_zeros_and_counted(monkeypatch):
    encoder = fitted({"c": ["u", "v"], "x": [1, 2]})
    table = open_table({"x": [1, 2, 3, 4, 5], "c": ["w", "u", "z", "w", None]})
    with pytest.raises(InputError, match=r"'c' \(1 row\)"):
        list(encoder.blocks(table))
    monkeypatch.setattr(encode, "_BLOCK_BYTES", 8 * 3)
    encoder = fitted({"c": ["u", "v"], "x": [1, 2]}, missing="drop")
    blocks = list(encoder.blocks(table))
    assert [len(X) for X, _ in blocks] == [4, 1]
    nan = np.nan
    np.testing.assert_array_equal(
        np.concatenate([X for X, _ in blocks]), [[0, 0, 1], [1, 0, 2], [0, 0, 3], [0, 0, 4], [nan, nan, 5]]
    )
    unseen = sum((u for _, u in blocks), start=type(blocks[0][1])())
    assert unseen == {("c", "w"): 2, ("c", "z"): 1}


def test_weighted_means_are_imputed_in_training_and_prediction():
    training = {"a": [1.0, None, 4.0, np.nan], "c": ["u", "v", None, "u"], "b": [True, None, False, True]}
    training |= {"w": [1.0, 2.0, 3.0, 4.0]}
    encoder = fitted(training, ["a", "c", "b"], missing="mean", weights="w")
    a, u, v, b = (1 + 12) / 4, 5 / 7, 2 / 7, 5 / 8
    np.testing.assert_allclose(encoder.means, [a, u, v, b], rtol=1e-15)
    np.testing.assert_allclose(
        encoder.transform(training), [[1, 1, 0, 1], [a, 0, 1, b], [4, u, v, 0], [a, 1, 0, 1]], rtol=1e-15
    )
    alone = encoder.transform({"a": [None], "c": [None], "b": [None]})
    np.testing.assert_allclose(alone, [[a, u, v, b]], rtol=1e-15)
    np.testing.assert_allclose(fitted(training, ["a"], missing="mean").means, [2.5])


def test_encoders_survive_json():
    encoder = fitted({"a": [1.0, None, 1 / 3], "c": ["u", "é", None], "d": [DAY, None, DAY]}, missing="mean")
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    table = {"a": [None], "c": ["é"], "d": [DAY]}
    np.testing.assert_array_equal(again.transform(table), encoder.transform(table))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"missing": "error"},
        {"missing": "guess", "columns": []},
        {"missing": "error", "columns": [{"name": "a"}]},
        {"missing": "error", "columns": [{"name": "a", "kind": "code", "levels": [], "means": []}]},
        {"missing": "error", "columns": [{"name": "a", "kind": "number", "levels": [], "means": ["x"]}]},
        {"missing": "error", "columns": 3},
    ],
)
def test_foreign_descriptions_are_refused(state):
    with pytest.raises(ModelFileError, match="cannot be read"):
        Encoder.from_dict(state)


LISTS = pa.array([[1], [2]])
TRAINING = {
    "unknown policy": (
        {"a": [1]},
        {"missing": "zero"},
        "missing='zero' is not a policy.*'error', 'mean', 'drop'",
    ),
    "unknown feature": ({"area": [1]}, {"features": ["aera"]}, "feature 'aera' is not a column.*'area'"),
    "nested": ({"a": LISTS}, {}, r"'a' holds list<.*> values, which cannot be a feature.*--drop a"),
    "binary": ({"a": [b"x"]}, {}, "'a' holds binary values"),
    "no value for the mean": ({"a": [1.0, 2], "b": [None, np.nan]}, {"missing": "mean"}, "'b' has no value"),
    "level named like a column": ({"a": ["u"], "a=u": [1.0]}, {}, "'a=u'.*Rename"),
    "weights of the mean": (
        {"a": [1.0, None], "w": [1.0, -1.0]},
        {"features": ["a"], "missing": "mean", "weights": "w"},
        "'w' must be finite and not negative: 1 negative, first in row 2",
    ),
}


@pytest.mark.parametrize("case", TRAINING)
def test_tables_that_cannot_be_fitted(case):
    data, options, message = TRAINING[case]
    with pytest.raises(InputError, match=message):
        fitted(data, **options)


def test_a_million_levels(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,y\n" + "".join(f"row{i},1\n" for i in range(1_000_000)))
    with pytest.raises(InputError, match=r"'id' has more than 5,000 different.*--drop id"):
        fitted(path)


MODEL = {"a": [1.0, 2.0], "c": ["u", "v"], "d": [DAY, DAY], "b": [True, False]}
CHANGED = {
    "lost column": ({"A": [1]}, "lacks 'a'.*fitted on. Did you mean 'A'"),
    "number became text": (
        {"a": ["1", "two"]},
        "'a' held numbers.*row 2 now holds 'two'",
    ),
    "number became date": ({"a": [DAY, DAY]}, "'a' held number values.*date32"),
    "date became text": ({"d": ["11.1.1970", "x"]}, "'d' held dates.*row 1 now holds '11.1.1970'"),
    "date became number": ({"d": [1.0, 2.0]}, "'d' held date values.*double"),
    "text became date": ({"c": [DAY, DAY]}, "'c' held text.*date32"),
    "boolean became text": ({"b": ["yes", "no"]}, "'b' held boolean values.*'yes'"),
    "missing": ({"a": [None, np.nan], "c": ["u", None]}, r"missing values in 'a' \(2 rows\), 'c' \(1 row\)"),
    "infinite": ({"a": [1.0, np.inf]}, r"infinite values in 'a' \(1 row\)"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_new_tables_that_do_not_fit(case):
    change, message = CHANGED[case]
    encoder = fitted(MODEL)
    new = MODEL | change
    if "A" in change:
        del new["a"]
        new["A"] = [1, 2]
    with pytest.raises(InputError, match=message):
        encoder.transform(new)


def test_new_tables_that_do_fit():
    encoder = fitted(MODEL)
    expected = encoder.transform(MODEL)
    noon = datetime.datetime(1970, 1, 11)
    new = {
        "b": [1, 0],
        "extra": [[1], [2]],
        "d": [noon, noon],
        "c": ["u", "v"],
        "a": pa.array([1, 2], pa.uint8()),
    }
    np.testing.assert_array_equal(encoder.transform(new), expected)


def test_integers_where_text_was_are_text(tmp_path):
    encoder = fitted({"c": ["007", "7", "A"]})
    np.testing.assert_array_equal(encoder.transform({"c": [7]}), [[0, 1, 0]])
    (tmp_path / "1.csv").write_text("c\n007\n")
    (tmp_path / "2.csv").write_text("c\n7\n")
    (tmp_path / "1.jsonl").write_text('{"c": 7}\n')
    np.testing.assert_array_equal(encoder.transform(tmp_path / "1.csv"), [[1, 0, 0]])
    np.testing.assert_array_equal(encoder.transform(tmp_path / "*.csv"), [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(encoder.transform(tmp_path / "1.jsonl"), [[0, 1, 0]])


def test_only_iso_dates_are_recognised_in_text_files(tmp_path):
    kinds = {
        "2024-12-31": "date",
        "2024-12-31T10:00:00": "date",
        "2024-12-31 10:00:00.5": "date",
        "2024-12-31T10:00:00Z": "date",
        "31/12/2024": "string",
        "12/31/2024": "string",
        "31.12.24": "string",
        "24-12-31": "string",
    }
    for text, kind in kinds.items():
        (tmp_path / "t.csv").write_text(f"d,x\n{text},1\n{text},2\n")
        (tmp_path / "t.jsonl").write_text(json.dumps({"d": text}) + "\n")
        assert open_table(tmp_path / "t.csv").kinds["d"] == kind, text
        assert open_table(tmp_path / "t.jsonl").kinds["d"] == kind, text


def test_text_that_holds_some_numbers_stays_text(tmp_path):
    (tmp_path / "t.csv").write_text("c\n" + "".join(f"{i}\n" for i in range(20)) + "A1\nA2\nA3\n")
    assert len(fitted(tmp_path / "t.csv").feature_names) == 23
    (tmp_path / "t.csv").write_text("c\n" + "".join(f"{i}\n" for i in range(15)) + "A1\n")
    assert len(fitted(tmp_path / "t.csv").feature_names) == 16
    assert len(fitted({"c": [*map(str, range(30)), "A"]}).feature_names) == 31


def test_the_index_of_pandas_is_not_a_column():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=pd.Index([5, 6, 9], name="id"))
    assert open_table(frame).columns == ("a",)
    assert open_table(frame.reset_index(drop=True)[lambda f: f.a > 1]).columns == ("a",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 2}, "target must be the name of a column.*got 2"),
        ({"target": []}, "target is an empty list"),
        ({"target": ["y", "y"]}, "target names 'y' more than once"),
        ({"target": "y", "features": []}, "features is an empty list"),
        ({"target": "y", "drop": ["y"]}, "'y' is the target"),
        ({"target": "y", "drop": 3}, "drop must be the name"),
    ],
)
def test_roles_that_make_no_sense(arguments, message):
    with pytest.raises(InputError, match=message):
        encode.choose_features(open_table({"x": [1.0], "y": [2.0]}), **arguments)


def test_an_empty_text_column_is_missing_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("a,c\n,u\n,v\n")
    encoder = fitted({"a": [1.0, 3.0], "c": ["u", "v"]}, missing="mean")
    np.testing.assert_array_equal(encoder.transform(tmp_path / "t.csv"), [[2, 1, 0], [2, 0, 1]])


def test_parts_agree_on_kinds(tmp_path):
    (tmp_path / "1.csv").write_text("a,y\n,1\n,2\n")
    (tmp_path / "2.csv").write_text("y,a\n3.5,7\n")
    encoder = Encoder((Column("a", "number"), Column("y", "number")), "drop")
    table = open_table(tmp_path / "*.csv")
    assert table.kinds == {"a": "number", "y": "number"}
    nan = np.nan
    np.testing.assert_array_equal(encoder.transform(table), [[nan, 1], [nan, 2], [7, 3.5]])
    (tmp_path / "3.csv").write_text("a,y\n2020-01-01,1\n")
    with pytest.raises(InputError, match=r"'a' holds date32.*3\.csv' and int64"):
        open_table(tmp_path / "*.csv")
    (tmp_path / "3.csv").write_text("a,y\nmuch,1\n")
    with pytest.raises(InputError, match="'a' held numbers"):
        encoder.transform(tmp_path / "*.csv")


def test_inputs_are_not_written_to():
    values = np.array([1.0, np.nan, 3.0])
    values.flags.writeable = False
    table = pa.table({"a": pa.array(values)})
    np.testing.assert_array_equal(fitted(table, missing="mean").transform(table), [[1], [2], [3]])
    np.testing.assert_array_equal(values, [1, np.nan, 3])
