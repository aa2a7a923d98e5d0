"""Text that is meant as numbers or dates: what is read, what is refused, and that every remedy works."""

import datetime
import json
import re
import sqlite3
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import elltwo
from elltwo.data.opening import open_table
from elltwo.data.readings import settle
from elltwo.data.written import Reading, dates_in, tally
from elltwo.errors import InputError, UnseenLevelWarning

N = 40
X = np.arange(N) * 7 % N
Y = 2.0 * X + np.random.default_rng(0).normal(size=N)
DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(int(x)) for x in X]
SINCE_1970 = [(day - datetime.date(1970, 1, 1)).days for day in DAYS]


def fitted(values, **options):
    return elltwo.fit({"z": values, "y": Y}, "y", alpha=1.0, **options)


def as_numbers(values):
    """The coefficients and intercept of the fit on true numbers."""
    model = fitted(np.asarray(values, dtype=float))
    return model.coef[0, 0], model.intercept[0]


def german(v):
    return f"{v:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".")


# Each way to write v, and how a further value is written.
NUMBERS = {
    "percent": lambda v: f"{v:.1f}%",
    "percent after a space": lambda v: f"{v:.1f} %",
    "parentheses": lambda v: f"({v:.2f})" if v % 4 == 0 else f"-{v:.2f}",
    "trailing minus": lambda v: f"{v:.2f}-" if v % 3 == 0 else f"-{v:.2f}",
    "apostrophes": lambda v: f"{v * 1000:,.2f}".replace(",", "'"),
    "right quotes": lambda v: f"{v * 1000:,.2f}".replace(",", "’"),
    "thousands": lambda v: f"{v * 1000:,.2f}",
    "no-break spaces": lambda v: f"{v * 1000:,.2f}".replace(",", "\u00a0").replace(".", ","),
    "points between thousands": lambda v: german(v * 1000),
    "dollars": lambda v: f"${v:,.2f}",
    "dollars below zero": lambda v: f"-${v:,.2f}",
    "currency word": lambda v: f"{v:.2f} EUR",
    "currency word before": lambda v: f"CHF {v:.2f}",
    "crowns": lambda v: f"{v:.2f} kr.",
    "Unicode minus": lambda v: f"−{v:.1f}",
}
SCALE = {
    "parentheses": -1, "trailing minus": -1, "apostrophes": 1000, "right quotes": 1000, "thousands": 1000,
    "no-break spaces": 1000, "points between thousands": 1000, "dollars below zero": -1, "Unicode minus": -1,
}  # fmt: skip


@pytest.mark.parametrize("way", NUMBERS)
def test_numbers_in_disguise_are_refused_as_features_and_read_when_that_is_said(way):
    texts = [NUMBERS[way](v) for v in X]
    with pytest.raises(InputError, match=r"'z' is text.*read as numbers.*--parse z, parse=\['z'\]"):
        fitted(texts)
    model = fitted(texts, parse=["z"])
    assert model.feature_names == ("z",)
    np.testing.assert_allclose(
        (model.coef[0, 0], model.intercept[0]), as_numbers(SCALE.get(way, 1) * X), 1e-12
    )
    assert "read as numbers from text such as" in " ".join(model.summary().split())
    expected = model.intercept[0] + model.coef[0, 0] * SCALE.get(way, 1) * 9
    np.testing.assert_allclose(model.predict({"z": [NUMBERS[way](9)]}), expected)
    with pytest.raises(InputError, match=r"'z'.*row 2 now holds 'some'"):
        model.predict({"z": [NUMBERS[way](9), "some"]})


DATES = {
    "%d.%m.%Y": "d.m.Y", "%m/%d/%Y": "m/d/Y", "%d-%b-%Y": "d b Y", "%b %d, %Y": "b d Y", "%d %B %Y": "d b Y",
    "%Y/%b/%d": "Y b d", "%Y.%m.%d": "Y.m.d", "%A, %B %d, %Y": "b d Y", "%d%b%Y": "d b Y",
    "%d/%m/%Y %H:%M": "d/m/Y", "%m/%d/%Y %I:%M:%S %p": "m/d/Y", "%Y-W%V-%u": "Y w d",
}  # fmt: skip


@pytest.mark.parametrize("form", DATES)
def test_dates_in_disguise_are_refused_as_features_and_read_when_that_is_said(form):
    texts = [day.strftime(form) for day in DAYS]
    assert list(tally("date", texts).forms) == [DATES[form]]
    with pytest.raises(InputError, match=r"'z' is text.*read as dates.*--parse z"):
        fitted(texts)
    model = fitted(texts, parse=["z"])
    np.testing.assert_allclose((model.coef[0, 0], model.intercept[0]), as_numbers(SINCE_1970), rtol=1e-9)
    later = datetime.date(2025, 11, 30)
    np.testing.assert_allclose(
        model.predict({"z": [later.strftime(form)]}), model.predict({"z": [datetime.datetime(2025, 11, 30)]})
    )


def test_dates_are_what_pandas_reads():
    for text in (
        "2024-02-29T10:30:15.25Z",
        "29 Feb 2024 10:30 PM",
        "Feb 29, 2024 00:05",
        "2024-02-29 10:30+02:00",
    ):
        (found,) = dates_in(text).values()
        expected = pd.Timestamp(text)
        expected = expected if expected.tz is None else expected.tz_convert("UTC").tz_localize(None)
        assert found == expected.to_pydatetime(), text
    assert dates_in("2024-Q3") == {"Y q": datetime.datetime(2024, 7, 1)}
    for text in (
        "2024-13-01",
        "31/02/2024",
        "12:30",
        "May 5",
        "1.2.3",
        "20240131",
        "room 12",
        "2024-01-01 25:00",
    ):
        assert not dates_in(text), text


def test_a_reading_takes_what_all_its_forms_agree_on():
    assert tally("number", ["1,200", "950"]).doubt == "1,200"
    assert tally("number", ["1,200", "12,5"]).reading().value("1,200") == 1.2
    assert tally("number", ["1,200", "1,200,000"]).reading().value("1,200") == 1200
    assert tally("number", ["$950", "$20"]).reading().value("$1,200") is None
    assert tally("number", ["$950", "€20"]).reading() is None
    assert tally("number", ["12,-", "13,-"]).reading() is None
    assert tally("number", ["9007199254740993"]).reading() is None
    assert tally("date", ["03/04/2024"]).doubt == "03/04/2024"
    assert tally("date", ["03/04/2024", "25/04/2024"]).reading().value("03/04/2024").month == 4
    reading = tally("number", ["12.5%", "7%"]).reading()
    assert Reading.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading
    assert np.isnan(reading.value(" NA "))


def test_what_a_column_becomes_does_not_hang_on_where_it_comes_from(tmp_path):
    columns = {
        "iso": [day.isoformat() for day in DAYS],
        "comma": [f"{v},5" for v in X],
        "share": [f"{v}.5%" for v in X],
        "town": [("Ulm", "Bonn", "Kiel")[v % 3] for v in X],
        "code": [f"{v:05}" for v in X],
        "y": Y.tolist(),
    }
    frame = pd.DataFrame(columns)
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    with sqlite3.connect(tmp_path / "t.sqlite") as base:
        frame.to_sql("t", base, index=False)
    sources = [tmp_path / f"t.{end}" for end in ("tsv", "parquet", "jsonl", "sqlite")]
    sources += [frame, pl.DataFrame(columns), pa.table(columns)]
    models = [elltwo.fit(source, "y", alpha=1.0, parse=["share"]) for source in sources]
    names = models[0].feature_names
    assert names[:3] == ("iso", "comma", "share")
    assert len(names) == 3 + 3 + N
    for model in models:
        assert model.feature_names == names
        np.testing.assert_allclose(model.coef, models[0].coef, rtol=1e-10)
        for source in sources:
            np.testing.assert_allclose(model.predict(source), models[0].predict(frame), rtol=1e-9)
    for source in sources:
        with pytest.raises(InputError, match=r"'share' is text, such as '0.5%'"):
            elltwo.fit(source, "y", alpha=1.0)


def test_plain_numbers_as_text():
    assert fitted([str(v / 4) for v in X]).feature_names == ("z",)
    assert len(fitted([f"{v:03}" for v in X]).feature_names) == N
    assert len(fitted([str(v % 5) for v in X]).feature_names) == 5
    assert fitted([str(v % 5) for v in X], parse="z").feature_names == ("z",)
    with pytest.raises(InputError, match=r"whole numbers.*may be numbers, or names"):
        fitted([str(v) for v in X])
    assert len(fitted(pd.Categorical([str(v) for v in X])).feature_names) == N
    twice = {"z": [str(v) for v in X] * 2, "y": [*Y, *Y]}
    model = elltwo.fit(twice, "y", alpha=1.0)
    assert len(model.feature_names) == N
    assert "used as categories" in model.summary()


# What is refused, and options under which what the message proposes can be fitted.
DOUBTFUL = {
    "one odd value": [*map(str, X[:-1]), "?"],
    "one odd value among marked ones": [*(f"{v}.5%" for v in X[:-1]), "some"],
    "one odd decimal comma": [*(f"{v},25" for v in X[:-1]), "n.b."],
    "whole numbers": [str(v) for v in X],
    "thousand or decimal": [f"{v + 1},200" for v in X],
    "thousand or decimal, below zero": [f"(${v + 1},200)" if v % 2 else f"${v + 1},200" for v in X],
    "percent": [f"{v}.5%" for v in X],
    "day or month": [f"{v % 12 + 1:02}/{v % 7 + 1:02}/2024" for v in X],
    "certain dates": [day.strftime("%d.%m.%Y") for day in DAYS],
    "dates with month names": [day.strftime("%d-%b-%Y") for day in DAYS],
    "two digits of a year": [day.strftime("%d.%m.%y") for day in DAYS],
    "one odd date": [*(day.strftime("%d/%m/%Y %H:%M") for day in DAYS[:-1]), "soon"],
    "many levels": [f"row {v}" for v in range(N)],
}


NAMED = [(case, name) for case in DOUBTFUL for name in ("z", "order")]
NAMED += [(case, name) for case in ("one odd value", "day or month") for name in ("end", 'a "b"', "Straße 1")]


@pytest.mark.parametrize(("case", "name"), NAMED)
def test_every_remedy_of_a_message_works_where_it_is_printed(case, name, tmp_path, monkeypatch):
    if case == "many levels":
        monkeypatch.setattr("elltwo.data.readings.MOST_LEVELS", 30)
    frame = pd.DataFrame({name: DOUBTFUL[case], "y": Y})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    data = [frame, tmp_path / "t.parquet", *([tmp_path / "t.csv"] if case != "whole numbers" else [])]
    for source in data:
        with pytest.raises(InputError) as error:
            elltwo.fit(source, "y", alpha=1.0)
        message = str(error.value)
        assert f"'{name}'" in message
        queries = re.findall(r'"(SELECT .*? FROM data)"', message)
        assert queries or case == "many levels"
        for query in queries:
            kept = elltwo.fit(source, "y", alpha=1.0, sql=query, missing="mean")
            names = "as text" in message or ("names" in message and "||" in query)
            assert kept.feature_names == (name,) or (names and len(kept.feature_names) == N), query
        assert len(queries) >= (2 if case in ("day or month", "thousand or decimal", "whole numbers") else 0)
        for option in re.findall(r"(parse|drop)=\[", message):
            extra = {option: [name]} if option == "parse" else {option: [name], "features": None}
            table = frame.assign(other=X) if option == "drop" else source
            assert name in message
            elltwo.fit(table, "y", alpha=1.0, **extra)


def test_queries_give_the_values_that_are_meant():
    frame = pd.DataFrame({"z": DOUBTFUL["thousand or decimal, below zero"], "y": Y})
    with pytest.raises(InputError) as error:
        elltwo.fit(frame, "y", alpha=1.0)
    point, comma = re.findall(r'"(SELECT .*? FROM data)"', str(error.value))
    sign = np.where(X % 2, -1, 1)
    for query, size in ((point, (X + 1) * 1000 + 200), (comma, X + 1.2)):
        values = next(open_table(frame, sql=query).batches(["z"])).column(0).to_numpy()
        np.testing.assert_allclose(values, sign * size)


# ------------------------------------------------------------------------------------ roles


def test_columns_that_have_to_be_numbers_are_read_without_being_named():
    frame = pd.DataFrame({"x": X, "y": [f"{v:.3f} €" for v in Y], "w": [f"{1 + v % 3},0" for v in X]})
    right = pd.DataFrame({"x": X, "y": Y.round(3), "w": 1.0 + X % 3})
    got = elltwo.fit(frame, "y", weights="w", alpha=1.0, family="gaussian")
    np.testing.assert_allclose(got.coef, elltwo.fit(right, "y", weights="w", alpha=1.0).coef, rtol=1e-12)
    rates = frame.assign(y=X, e=[f"{v + 1}%" for v in X])
    got = elltwo.fit(rates.drop(columns="w"), "y", family="poisson", exposure="e", alpha=1.0)
    right = elltwo.fit({"x": X, "y": X, "e": X + 1.0}, "y", family="poisson", exposure="e", alpha=1.0)
    np.testing.assert_allclose(got.coef, right.coef, rtol=1e-8)
    np.testing.assert_allclose(got.predict({"x": [3], "e": ["4%"]}), right.predict({"x": [3], "e": [4.0]}))


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y", "%d-%b-%Y", "%Y-W%V-%u"])
def test_times_as_text_are_in_the_order_of_time(form):
    frame = pd.DataFrame({"a": Y, "y": Y**2, "when": DAYS})
    right = elltwo.fit(frame, "y", time="when", folds=3)
    text = frame.assign(when=[day.strftime(form) for day in DAYS])
    assert elltwo.fit(text, "y", time="when", folds=3).r2_cv == pytest.approx(right.r2_cv, rel=1e-12)


@pytest.mark.parametrize("texts", [["Monday", "Tuesday"] * 20, DOUBTFUL["day or month"]])
def test_times_that_are_not_certain_are_refused(texts):
    with pytest.raises(InputError, match="'when'"):
        elltwo.fit({"a": Y, "y": Y**2, "when": texts}, "y", time="when")


def test_times_with_and_without_a_zone_do_not_mix():
    times = pd.date_range("2024-01-01", periods=N, freq="6h")
    local = times.tz_localize("Europe/Berlin")
    naive, zoned = (elltwo.fit(pd.DataFrame({"t": t, "y": Y}), "y", alpha=1.0) for t in (times, local))
    for model, other, own in ((naive, local, times), (zoned, times, local)):
        with pytest.raises(InputError, match="zone") as error:
            model.predict(pd.DataFrame({"t": other}))
        query = re.search(r'"(SELECT .*? FROM data)"', str(error.value))[1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = open_table(pd.DataFrame({"t": other}), sql=query)
            np.testing.assert_allclose(model.predict(table), model.predict(pd.DataFrame({"t": own})))
    with pytest.raises(InputError, match=r"'t' held dates.*row 1 now holds '2024-01-01T10:00Z'"):
        naive.predict({"t": ["2024-01-01T10:00Z"]})
    for model in (naive, zoned):
        assert model.encoder.from_dict(model.encoder.to_dict()) == model.encoder


def test_levels_are_known_by_value_and_unseen_ones_told():
    model = elltwo.fit(
        pd.DataFrame({"c": pd.Categorical([1, 2, 3] * 10), "y": [1.0, 5, 9] * 10}), "y", alpha=0.1
    )
    assert model.feature_names == ("c=1", "c=2", "c=3")
    right = model.predict({"c": ["1", "2", "3"]})
    for values in ([1, 2, 3], [1.0, 2.0, 3.0], ["1.0", "2", "3.00"], pd.Categorical([1.0, 2.0, 3.0])):
        np.testing.assert_array_equal(model.predict(pd.DataFrame({"c": values})), right)
    with pytest.warns(UnseenLevelWarning, match=r"'c'.*did not see, in 2 of the rows: '4', '1\.5'"):
        model.predict({"c": ["1", "4", "1.5"]})
    flags = elltwo.fit({"c": ["True", "False", "True"] * 4, "y": [1.0, 2, 1] * 4}, "y", alpha=0.1)
    np.testing.assert_array_equal(
        flags.predict({"c": [True, False]}), flags.predict({"c": ["true", "FALSE"]})
    )
    version = elltwo.fit({"c": ["1.1", "1.10", "2"] * 4, "y": [1.0, 2, 3] * 4}, "y", alpha=0.1)
    with pytest.warns(UnseenLevelWarning, match=r"'1\.100'"):
        version.predict({"c": ["1.100"]})


def test_sparse_columns_of_pandas_are_taken():
    frame = pd.get_dummies(pd.Series(list("abc") * 10), sparse=True)
    y = np.tile([1.0, 5.0, 9.0], 10)
    got = elltwo.fit(frame.assign(y=y), "y", alpha=1.0)
    right = elltwo.fit(frame.sparse.to_dense().assign(y=y), "y", alpha=1.0)
    np.testing.assert_array_equal(got.coef, right.coef)


def test_an_empty_text_among_the_numbers_of_sqlite_is_missing(tmp_path):
    with sqlite3.connect(tmp_path / "t.sqlite") as base:
        base.execute("create table t (gain INTEGER, y REAL)")
        base.executemany("insert into t values (?, ?)", [("" if i == 5 else i, 2.0 * i) for i in range(N)])
    table = open_table(tmp_path / "t.sqlite")
    assert table.kinds["gain"] == "number"
    gain = next(table.batches(["gain"])).column(0)
    assert gain.null_count == 1
    assert gain.to_pylist()[5] is None


# ------------------------------------------------------------------------------------ notes and families


def test_row_numbers_and_keys_are_noted():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "row": rng.permutation(N) + 1,
            "zero": np.arange(N),
            "customer_id": rng.permutation(N) * 17 + 5000,
            "name": [f"n{v}" for v in X],
            "spread": rng.permutation(N) * 3,
            "size": np.arange(N) % 9,
        }
    )
    model = elltwo.fit(frame.assign(y=Y), "y", alpha=1.0)
    noted = {re.match("Column '(.*?)'", note)[1]: note for note in model.quality["notes"]}
    assert set(noted) == {"row", "zero", "customer_id", "name"}
    assert "counts the rows from 1" in noted["row"]
    assert "drop=['row']" in noted["row"]
    assert "likely a key" in noted["customer_id"]
    assert "likely a key" in noted["name"]
    assert "counts the rows from 0" in " ".join(model.summary().split())


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True]])
def test_two_labels_are_told_apart_without_a_family_and_that_is_said(labels):
    table = {"x": X, "paid": [labels[int(v + 5 * (-1) ** v > 20)] for v in X]}
    model = elltwo.fit(table, "paid", alpha=1.0)
    right = elltwo.fit(table, "paid", alpha=1.0, family="binomial")
    assert model.loss.name == "binomial"
    assert model.classes == tuple(labels)
    np.testing.assert_array_equal(model.coef, right.coef)
    assert model.quality["family_reason"].startswith("binomial, because target 'paid' holds")
    assert elltwo.fit({"x": X, "y": [int(v > 20) for v in X]}, "y", alpha=1.0).loss.name == "gaussian"


def test_booleans_among_several_targets():
    flags = {"a": X > 20, "b": X % 2 == 0, "x": Y}
    assert elltwo.fit(flags, ["a", "b"], alpha=1.0).loss.name == "binomial"
    with pytest.raises(InputError, match="'a' holds True and False, and others hold numbers"):
        elltwo.fit(flags | {"b": Y**2}, ["a", "b"], alpha=1.0)
    assert elltwo.fit(flags | {"b": Y**2}, ["a", "b"], alpha=1.0, family="gaussian").loss.name == "gaussian"


@pytest.mark.parametrize("missing", ["error", "mean", "drop"])
def test_a_target_without_a_value_is_named(missing):
    for values in ([None] * 3, [np.nan] * 3, pa.array([None] * 3, pa.string())):
        with pytest.raises(InputError, match="The target 'y' has no value in any row"):
            elltwo.fit({"a": [1.0, 2, 3], "y": values}, "y", alpha=1.0, missing=missing)


def test_settling_is_one_pass_and_keeps_the_levels():
    table = open_table({"z": ["b", "a", "b"], "y": [1.0, 2.0, 3.0]})
    settled = settle(table, ["z"])
    assert settled.levels(["z"]) == {"z": {"a": 1, "b": 2}}
    with pytest.raises(InputError, match=r"'z'.*parse"):
        settle(table, ["z"], parse=["z"])
    with pytest.raises(InputError, match=r"'y' is to be read.*plays no part"):
        settle(table, ["z"], parse=["y"])
