"""Bad input ends with status 2 and one message on stderr that names the thing, the cause and the remedy.

Nothing is printed on stdout, no output file is left behind, and an old one stays as it was.
"""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import elltwo
from elltwo import files
from elltwo.interfaces.cli.main import cli

GOOD = "area,town,price\n50,Ulm,10\n60,Bonn,14\n75,Ulm,15\n90,Kiel,21\n110,Bonn,22\n125,Ulm,30\n"
WIDER = "area,town,price,w\n50,Ulm,10,{}\n60,Bonn,14,{}\n75,Ulm,15,{}\n90,Kiel,21,{}\n110,Bonn,22,{}\n"


def weights(*values):
    return WIDER.format(*values)


def junk(n, cell="{}"):
    return "a,price\n" + "".join(f"{cell.format(i)},{i % 7}\n" for i in range(n)) + "bad,1\n"


def many_levels(path):
    frame = pl.DataFrame({"price": np.arange(20_000.0), "code": np.arange(20_000)})
    frame.with_columns(pl.col("code").cast(pl.String)).write_parquet(path)


def corrupt_parquet(path):
    pl.DataFrame({"price": np.arange(500.0), "area": np.arange(500) % 7}).write_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes(len(whole) - 80) + whole[-40:])


def cut_parquet(path):
    pl.DataFrame({"price": np.arange(500.0), "area": np.arange(500) % 7}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:300])


# What is wrong, the data (text of a CSV file, or a function that writes data.parquet), arguments after the
# data, and words that the message must hold: what is meant, the cause, the remedy.
FIT = [
    ("missing file", None, [], ["no file", "data.csv"]),
    ("empty file", "", [], ["data.csv", "empty", "Check"]),
    ("header only", "area,town,price\n", [], ["data.csv", "no rows", "Check"]),
    ("ragged, too many", GOOD + "70,Ulm,5,9\n", [], ["Line 8", "4 fields", "3", "end that line"]),
    ("ragged, too few", GOOD + "70,Ulm\n" + GOOD[16:], [], ["Line 8", "2 fields", "3", "end that line"]),
    ("constant target", "a,price\n1,5\n2,5\n3,5\n", [], ["'price'", "same value (5)", "Check the column"]),
    ("one row", "area,price\n50,10\n", [], ["row", "1"]),
    ("unknown target", GOOD, ["--target", "prise"], ["'prise'", "not a column", "Did you mean 'price'?"]),
    ("text target", GOOD, ["--target", "town"], ["'town'", "numbers", "'Ulm'", "--sql"]),
    ("missing values", GOOD + "NA,Ulm,3\n,Bonn,4\n", [], ["'area' (2 rows)", "--missing mean"]),
    ("missing target", GOOD + "5,Ulm,\n", [], ["'price' (1 row)", "--missing drop"]),
    ("infinite feature", GOOD + "inf,Ulm,3\n", [], ["'area' (1 row)", "infinite", "Correct"]),
    ("infinite target", GOOD + "5,Ulm,-inf\n", ["--missing", "mean"], ["'price' (1 row)", "infinite"]),
    (
        "nothing left",
        "a,price\n,1\n2,\n,3\n",
        ["--missing", "drop"],
        ["3 rows", "none is left", "--missing mean"],
    ),
    ("more folds than rows", GOOD, ["--folds", "9"], ["9 folds", "at least 9 rows", "6", "fewer folds"]),
    ("one fold", GOOD, ["--folds", "1"], ["folds", "at least 2"]),
    ("more folds than groups", GOOD, ["--group", "town"], ["roup", "5", "3"]),
    ("more folds than times", GOOD, ["--time", "town"], ["'town'", "orders the rows in time", "'Ulm'"]),
    ("negative weight", weights(1, 1, -2, 1, 1), ["--weights", "w"], ["'w'", "negative"]),
    ("missing weight", weights(1, 1, "", 1, 1), ["--weights", "w"], ["'w'", "missing"]),
    ("NaN weight", weights(1, 1, "nan", 1, 1), ["--weights", "w"], ["'w'", "missing"]),
    ("infinite weight", weights(1, 1, "inf", 1, 1), ["--weights", "w"], ["'w'", "infinite"]),
    ("zero weights", weights(0, 0, 0, 0, 0), ["--weights", "w"], ["'w'", "all zero", "positive"]),
    ("text weights", GOOD, ["--weights", "town"], ["'town'", "numbers", "weights"]),
    ("unknown weights", GOOD, ["--weights", "wait"], ["'wait'", "not a column", "'area'"]),
    ("negative alpha", GOOD, ["--alpha", "-1"], ["alpha", "-1", "not negative", "Use 0"]),
    ("NaN alpha", GOOD, ["--alpha", "nan"], ["alpha", "nan", "finite"]),
    ("infinite alpha", GOOD, ["--alpha", "inf"], ["alpha", "inf", "finite"]),
    ("alpha that is no number", GOOD, ["--alpha", "big"], ["--alpha", "'big'", "float"]),
    ("too many levels", many_levels, [], ["'code'", "5,000", "--drop code"]),
    ("repeated column", "area,area,price\n1,2,3\n2,3,5\n5,6,6\n", [], ["'area'", "several", "Rename"]),
    ("corrupt Parquet", corrupt_parquet, [], ["data.parquet", "cannot be read"]),
    ("truncated Parquet", cut_parquet, [], ["data.parquet", "cannot be read"]),
    ("unknown feature", GOOD, ["--features", "aera"], ["'aera'", "Did you mean 'area'?"]),
    ("unknown drop", GOOD, ["--drop", "twon"], ["'twon'", "Did you mean 'town'?"]),
    ("target as feature", GOOD, ["--features", "price"], ["'price'", "target", "Leave it out"]),
    ("no feature left", GOOD, ["--drop", "area,town"], ["No column", "left"]),
    ("broken query", GOOD, ["--sql", "SELEC 1"], ["query", "Correct"]),
    ("unknown rule", GOOD, ["--select", "looo"], ["--select", "'looo'", "'loo'"]),
    ("unknown solver", GOOD, ["--solver", "magic"], ["--solver", "'magic'", "'auto'"]),
    ("unknown option", GOOD, ["--folts", "3"], ["--folts", "--folds"]),
    ("alpha and select", GOOD, ["--alpha", "1", "--select", "gcv"], ["--alpha", "--select", "Leave out"]),
    ("alpha and folds", GOOD, ["--alpha", "1", "--folds", "3"], ["--alpha", "--folds", "Leave out"]),
    ("alpha and one-se", GOOD, ["--alpha", "1", "--one-se"], ["--alpha", "--one-se", "Leave out"]),
    ("alpha and seed", GOOD, ["--alpha", "1", "--seed", "2"], ["--alpha", "--seed", "Leave out"]),
    ("folds and loo", GOOD, ["--folds", "3", "--select", "loo"], ["--folds", "loo", "--select kfold"]),
    ("group and gcv", GOOD, ["--group", "town", "--select", "gcv"], ["--group", "gcv", "--select kfold"]),
    ("time and reml", GOOD, ["--time", "area", "--select", "reml"], ["--time", "reml", "--select kfold"]),
    ("seed and loo", GOOD, ["--seed", "1", "--select", "loo"], ["--seed", "loo", "--select kfold"]),
    ("group and time", GOOD, ["--group", "town", "--time", "area"], ["--group and --time", "Keep one"]),
    ("group and seed", GOOD, ["--group", "town", "--seed", "1"], ["--group and --seed", "Keep one"]),
    ("one-se and gcv", GOOD, ["--one-se", "--select", "gcv"], ["--one-se", "gcv", "loo or kfold"]),
    ("repeated target", GOOD, ["-t", "price", "-t", "price"], ["'price'", "more than once"]),
    ("target dropped", GOOD, ["--drop", "price"], ["'price' is the target", "--drop"]),
    ("empty features", GOOD, ["--features", ""], ["--features names no column"]),
    ("only a comma", GOOD, ["--features", ","], ["--features names no column"]),
    ("empty drop", GOOD, ["--drop", ""], ["--drop names no column"]),
    ("empty text", "a,c,price\n1,,2\n2,,3\n4,,4\n", [], ["'c' (3 rows)", "missing", "--drop"]),
    (
        "empty text, drop",
        "a,c,price\n1,,2\n2,,3\n4,,4\n",
        ["--missing", "drop"],
        ["'c' has no value", "--drop c"],
    ),
    (
        "dates of the US",
        "d,price\n01/02/2020,1\n02/25/2020,3\n03/04/2020,4\n",
        [],
        ["'d'", "'01/02/2020'", "--parse d", "strptime(data.d, '%m/%d/%Y')", "--drop d"],
    ),
    (
        "dates of which nobody knows the month",
        "d,price\n01/02/2020,1\n02/11/2020,3\n03/04/2020,4\n",
        [],
        ["'d'", "which is the month", "strptime(data.d, '%d/%m/%Y')", "strptime(data.d, '%m/%d/%Y')"],
    ),
    (
        "years of two digits",
        "d,price\n01.02.20,1\n25.02.20,3\n",
        [],
        ["'d'", "two digits", "strptime(data.d, '%d.%m.%y')"],
    ),
    (
        "nearly only dates",
        "d,price\n13/03/2024,1\n12/03/2024,3\n11/03/2024,2\nsoon,4\n",
        [],
        ["'d'", "'soon'", "TRY_STRPTIME(data.d, '%d/%m/%Y')"],
    ),
    (
        "a junk cell",
        junk(30),
        [],
        ["'a'", "'bad'", "31 different values", "TRY_CAST(data.a AS DOUBLE)", "--drop a"],
    ),
    ("a junk cell among many", junk(6000), [], ["'a'", "'bad'", "TRY_CAST"]),
    ("thousands separators", junk(30, '"$1,{:03}"'), [], ["'a'", "'bad'", "nearly all", "numbers"]),
    ("several files", GOOD, ["other.csv"], ["DATA", "quotes", "'data/*.csv'"]),
]


def refused(folder, arguments, words):
    """Run a command in the folder that must fail, and check how it does."""
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="elltwo")
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    message = " ".join(result.stderr.split())
    for word in words:
        assert word in message
    assert "Error: " in message
    assert "Traceback" not in message
    assert result.stdout == ""
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("old", [False, True], ids=["", "old file stays"])
@pytest.mark.parametrize(("data", "arguments", "words"), [c[1:] for c in FIT], ids=[c[0] for c in FIT])
def test_fit_refuses(folder, data, arguments, words, old):
    if old:
        (folder / "model.safetensors").write_bytes(b"an older model")
    name = "data.parquet" if callable(data) else "data.csv"
    if callable(data):
        data(folder / name)
    elif data is not None:
        (folder / name).write_text(data)
    target = [] if "--target" in arguments else ["--target", "price"]
    refused(folder, ["fit", name, *target, *arguments, "-o", "model.safetensors"], words)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("a,price\n1,2\n".encode("utf-16"), ["UTF-16", "UTF-8", "iconv"]),
        (b"ARROW1\0\0" + bytes(20), ["Feather", "CSV, Parquet or JSON lines"]),
        (b"PK\x03\x04" + bytes(20), ["Excel", "CSV, Parquet or JSON lines"]),
        (b"\x80\x04\x95" + bytes(20), ["pickle", "CSV, Parquet or JSON lines"]),
    ],
)
def test_other_formats_are_named(folder, start, words):
    (folder / "data.csv").write_bytes(start)
    refused(folder, ["fit", "data.csv", "--target", "price"], ["data.csv", *words])


def test_standard_input_and_an_empty_name_are_refused(folder):
    refused(folder, ["fit", "-", "--target", "y"], ["standard input", "Save it to a file"])
    refused(folder, ["fit", "/dev/stdin", "--target", "y"], ["standard input", "Save it to a file"])
    refused(folder, ["fit", "", "--target", "y"], ["empty", "Name a file"])


def test_fit_refuses_a_missing_argument(folder):
    refused(folder, ["fit", "--target", "price"], ["DATA is missing", "file", "--sql"])
    refused(folder, ["fit", "data.csv"], ["--target"])


# ---------------------------------------------------------------------------------------- predict

NEW = "area,town\n55,Ulm\n65,Bonn\n"
PREDICT = [
    ("missing file", None, [], ["no file", "new.csv"]),
    ("empty file", "", [], ["new.csv", "empty"]),
    ("header only", "area,town\n", [], ["new.csv", "no rows"]),
    (
        "missing column",
        "aera,town\n5,Ulm\n",
        [],
        ["new.csv", "lacks 'area'", "Its columns are 'aera', 'town'"],
    ),
    ("number became text", "area,town\nlarge,Ulm\n", [], ["'area'", "number", "'large'", "--sql"]),
    (
        "missing values",
        NEW + ",Ulm\n",
        [],
        ["'area' (1 row)", "missing", "Fill them, or fit the model again", "--missing mean"],
    ),
    ("infinite value", NEW + "inf,Ulm\n", [], ["'area' (1 row)", "infinite"]),
    ("unknown column to keep", NEW, ["--keep", "twon"], ["'twon'", "Did you mean 'town'?"]),
    (
        "kept twice",
        "area,town,predicted_price\n5,Ulm,1\n",
        ["--keep", "predicted_price"],
        ["'predicted_price'", "--keep"],
    ),
    ("several files", NEW, ["other.csv"], ["DATA", "quotes"]),
]


@pytest.fixture
def model(folder):
    (folder / "houses.csv").write_text(GOOD)
    fitted = elltwo.fit("houses.csv", "price")
    fitted.save("model.safetensors")
    return "model.safetensors"


@pytest.mark.parametrize("output", [None, "out.csv", "out.parquet"])
@pytest.mark.parametrize(
    ("data", "arguments", "words"), [c[1:] for c in PREDICT], ids=[c[0] for c in PREDICT]
)
def test_predict_refuses(folder, model, data, arguments, words, output):
    if data is not None:
        (folder / "new.csv").write_text(data)
    if output is not None:
        (folder / output).write_bytes(b"older predictions")
    where = [] if output is None else ["-o", output]
    refused(folder, ["predict", model, "new.csv", *arguments, *where], words)


def test_a_late_bad_row_leaves_no_predictions(folder, model):
    rows = "".join(f"{i % 90},Ulm\n" for i in range(300_000))
    (folder / "new.csv").write_text("area,town\n" + rows + ",Ulm\n")
    refused(folder, ["predict", model, "new.csv", "-o", "out.csv"], ["'area' (1 row)", "missing"])


@pytest.mark.parametrize("command", [["show"], ["predict"]], ids=str)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no model file", "spelling"]),
        (b"", ["empty", "fit the model again"]),
        (GOOD.encode(), ["not a model file", "elltwo fit"]),
        ("cut", ["truncated or damaged", "Copy it again"]),
    ],
)
def test_bad_model_files_are_refused(folder, model, command, content, words):
    whole = Path(model).read_bytes()
    Path(model).unlink()
    if content is not None:
        Path("bad.safetensors").write_bytes(whole[:-20] if content == "cut" else content)
    data = ["houses.csv"] if command == ["predict"] else []
    refused(folder, [*command, "bad.safetensors", *data], ["bad.safetensors", *words])


def test_show_and_demo_refuse(folder, model):
    refused(folder, ["show", model, "--json", "--all"], ["--all", "--json"])
    refused(folder, ["demo", "--folder", "nowhere"], ["--folder", "nowhere", "Create it"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["1", "--from", "sum", "--to", "mean"], ["needs --n", "number of rows", "Pass --n."]),
        (
            ["1", "--from", "sum", "--to", "glmnet", "--n", "5"],
            ["needs --y-std", "standard deviation", "Pass --y-std."],
        ),
        (["1", "--from", "sum", "--to", "mean", "--n", "0"], ["--n is 0", "above 0"]),
        (["nan", "--from", "sum", "--to", "mean", "--n", "5"], ["nan", "at least 0"]),
        (["1", "--from", "C", "--to", "mean", "--n", "5"], ["C", "gaussian", "sklearn"]),
        (["1", "--from", "glmet", "--to", "mean"], ["--from", "glmet", "'glmnet'"]),
        (["one", "--from", "sum", "--to", "mean"], ["VALUE", "one"]),
    ],
)
def test_convert_refuses(folder, arguments, words):
    refused(folder, ["convert", *arguments], words)


# ---------------------------------------------------------------------------------------- outputs


def test_outputs_that_cannot_be_written_are_refused_before_any_work(folder, model, monkeypatch):
    import elltwo.fitting

    def never(*args, **kwargs):
        raise AssertionError("work was done first")

    monkeypatch.setattr(elltwo.fitting, "fit", never)
    monkeypatch.setattr(elltwo.fitting, "load", never)
    (folder / "models").mkdir()
    (folder / "plain").symlink_to("houses.csv")
    fit, predict = ["fit", "houses.csv", "--target", "price", "-o"], ["predict", model, "houses.csv", "-o"]
    (folder / "models").rmdir()
    refused(folder, [*fit, "modells/m.safetensors"], ["'modells'", "does not exist", "Create it"])
    refused(folder, [*predict, "outt/p.csv"], ["'outt'", "does not exist", "Create it"])
    refused(folder, [*fit, "houses.csv"], ["--output 'houses.csv'", "replace the input", "another name"])
    refused(folder, [*fit, "plain"], ["replace the input 'houses.csv'"])
    refused(folder, [*predict, "houses.csv"], ["replace the input"])
    refused(folder, [*predict, "./houses.csv"], ["replace the input"])
    refused(folder, [*predict, "p.xlsx"], ["'p.xlsx'", ".csv or .parquet"])
    refused(folder, [*predict, "predictions"], ["'predictions'", ".csv or .parquet"])


def test_a_folder_is_no_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("houses.csv").write_text(GOOD)
    Path("models").mkdir()
    result = CliRunner().invoke(cli, ["fit", "houses.csv", "--target", "price", "-o", "models"])
    assert result.exit_code == 2
    assert "'models': it is a folder" in result.stderr
    assert list(Path("models").iterdir()) == []


class Full:
    """A file on a disk that is full."""

    def __init__(self, path, mode):
        self._file = open(path, mode)  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("old", [False, True], ids=["", "old file stays"])
@pytest.mark.parametrize("output", ["new.safetensors", "out.csv", "out.parquet"])
def test_a_full_disk_is_said_and_changes_nothing(folder, model, monkeypatch, step, old, output):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if old:
        (folder / output).write_bytes(b"an older file")
    command = (
        ["fit", "houses.csv", "--target", "price"] if "safe" in output else ["predict", model, "houses.csv"]
    )
    if step == "write":
        monkeypatch.setattr(files, "open", Full, raising=False)
    else:
        monkeypatch.setattr(os, step, full)
    kept = "old file is unchanged" if old else "No file was left behind"
    refused(folder, [*command, "-o", output], [f"'{output}'", "No space left", "Free some space", kept])


def test_a_file_that_the_system_does_not_let_grow_is_said_and_removed(folder, model):
    rows = "".join(f"{i % 90},Ulm\n" for i in range(50_000))
    (folder / "new.csv").write_text("area,town\n" + rows)
    (folder / "out.csv").write_bytes(b"older predictions")
    program = "from elltwo.interfaces.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, "predict", model, "new.csv", "-o", "out.csv"],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(Path(elltwo.__file__).parents[1])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Cannot write 'out.csv': File too large.")
    assert "The old file is unchanged" in done.stderr
    assert (folder / "out.csv").read_bytes() == b"older predictions"
    assert sorted(p.name for p in folder.iterdir()) == [
        "houses.csv",
        "model.safetensors",
        "new.csv",
        "out.csv",
    ]
