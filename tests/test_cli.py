"""Each command as a user types it: what it prints, what it writes, how it ends."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import elltwo
from elltwo import conventions, selection
from elltwo.data import delimited, sql
from elltwo.data.encode import MISSING
from elltwo.interfaces.cli import convert as convert_command
from elltwo.interfaces.cli import fit as fit_command
from elltwo.interfaces.cli import progress as progress_bar
from elltwo.interfaces.cli.main import COMMANDS, cli
from elltwo.interfaces.cli.progress import progress
from elltwo.interfaces.cli.shared import Commands, UserError
from elltwo.kernel_fitting import task as kernel_task
from elltwo.solvers.auto import SOLVERS

DIABETES = str(Path(elltwo.__file__).parent / "data" / "diabetes.csv")
PROGRAM = [sys.executable, "-c", "from elltwo.interfaces.cli.main import main; main()"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(elltwo.__file__).parents[1])}


def run(*arguments):
    """Run a command that must succeed and return its result."""
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="elltwo")
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def houses(tmp_path):
    """A small table with numbers, a text column, ids, weights, groups and dates."""
    rng = np.random.default_rng(3)
    n = 80
    area, town = rng.uniform(40, 160, n).round(1), rng.choice(["Bonn", "Kiel", "Ulm"], n)
    price = 3.0 * area + 40 * (town == "Ulm") + rng.normal(0, 15, n)
    frame = pl.DataFrame(
        {
            "id": np.arange(n),
            "area": area,
            "rooms": rng.integers(1, 6, n),
            "town": town,
            "price": price.round(2),
            "rent": (price / 20 + rng.normal(0, 1, n)).round(2),
            "copies": rng.integers(1, 4, n),
            "trust": rng.uniform(0.5, 2, n).round(3),
            "owner": rng.integers(0, 12, n),
        }
    )
    path = tmp_path / "houses.csv"
    frame.write_csv(path)
    return path


FEATURES = ["--features", "area,rooms", "--features", "town"]


# ------------------------------------------------------------------------------------------- fit


def test_the_shipped_data_are_the_published_ones():
    from sklearn.datasets import load_diabetes

    published = load_diabetes(scaled=False)
    ours = pl.read_csv(DIABETES, infer_schema_length=None)
    assert ours.columns == [*published.feature_names, "progression"]
    assert np.array_equal(ours.drop("progression").to_numpy(), published.data)
    assert np.array_equal(ours["progression"].to_numpy(), published.target)


def test_fit_prints_a_summary_and_writes_a_model(tmp_path):
    model = tmp_path / "model.safetensors"
    result = run("fit", DIABETES, "--target", "progression", "-o", model)
    text = " ".join(result.stdout.split())
    for words in ("regression of progression", "442 used, 0 dropped", "leave-one-out", "inside the grid"):
        assert words in text
    assert f"Model written to {model}" in result.stderr
    assert elltwo.load(model).rule == "loo"
    assert "\x1b" not in text


def test_without_output_the_summary_says_how_to_save():
    result = run("fit", DIABETES, "--target", "progression")
    assert "-o model.safetensors saves it" in result.stderr


def test_json_is_the_summary_of_the_same_fit(tmp_path):
    model = tmp_path / "model.safetensors"
    shown = json.loads(run("fit", DIABETES, "-t", "progression", "--json", "-o", model).stdout)
    assert shown == elltwo.load(model).to_dict()
    ours = shown["targets"][0]
    coef = {row["feature"]: row["coef"] for row in ours["coefficients"]}

    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    table = pl.read_csv(DIABETES, infer_schema_length=None)
    X, y = table.drop("progression").to_numpy(), table["progression"].to_numpy()
    scaler = StandardScaler().fit(X)
    theirs = Ridge(ours["alpha"]).fit(scaler.transform(X), y).coef_ / scaler.scale_
    assert [coef[name] for name in table.columns[:-1]] == pytest.approx(theirs, rel=1e-8)


# For each option: arguments, and the same request to the library.
REQUESTS = [
    ([], {}),
    (["--select", "gcv"], {"select": "gcv"}),
    (["--select", "reml"], {"select": "reml"}),
    (["--select", "aic"], {"select": "aic"}),
    (["--select", "bic"], {"select": "bic"}),
    (["--select", "kfold"], {"select": "kfold"}),
    (["--folds", "3"], {"select": "kfold", "folds": 3}),
    (["--seed", "7"], {"select": "kfold", "seed": 7}),
    (["--select", "kfold", "--group", "owner", "--folds", "4"], {"group": "owner", "folds": 4}),
    (["--time", "id"], {"time": "id"}),
    (["--one-se"], {"one_se": True}),
    (["--select", "kfold", "--one-se"], {"select": "kfold", "one_se": True}),
    (["--alpha", "12.5"], {"alpha": 12.5}),
    (["--alpha", "0"], {"alpha": 0.0}),
    (["--no-standardize"], {"standardize": False}),
    (["--weights", "copies"], {"weights": "copies"}),
    (
        ["--weights", "copies", "--weights-are", "frequency"],
        {"weights": "copies", "weights_are": "frequency"},
    ),
    (["--weights", "trust"], {"weights": "trust"}),
    (["--alpha", "3", "--solver", "orthogonal"], {"alpha": 3.0, "solver": "orthogonal"}),
    (["--sql", "SELECT * FROM data WHERE area > 60"], {"sql": "SELECT * FROM data WHERE area > 60"}),
]


@pytest.mark.parametrize(("arguments", "keywords"), REQUESTS, ids=[" ".join(a) for a, _ in REQUESTS])
def test_every_option_reaches_the_fit(houses, arguments, keywords):
    shown = json.loads(run("fit", houses, "--target", "price", *FEATURES, *arguments, "--json").stdout)
    asked = elltwo.fit(str(houses), "price", features=["area", "rooms", "town"], **keywords).to_dict()
    assert shown["rule_text"] == asked["rule_text"]
    assert shown["solver"] == asked["solver"]
    for name in ("alpha", "df", "r2", "intercept"):
        assert shown["targets"][0][name] == pytest.approx(asked["targets"][0][name], rel=1e-6)


def test_every_option_changes_the_fit(houses):
    shown = [
        run("fit", houses, "--target", "price", *FEATURES, *arguments, "--json").stdout
        for arguments, _ in REQUESTS
        if "orthogonal" not in arguments
    ]
    seen = {json.dumps([json.loads(s)["rule_text"], json.loads(s)["targets"]]) for s in shown}
    assert len(seen) == len(shown)


def test_features_drop_and_missing(tmp_path, houses):
    def columns(*arguments):
        shown = json.loads(run("fit", houses, "--target", "price", *arguments, "--json").stdout)
        return [column["name"] for column in shown["columns"]]

    assert columns("--features", "area,town") == ["area", "town"]
    assert columns("--features", "area", "--features", "town") == ["area", "town"]
    everything = ["area", "rooms", "town", "rent", "copies", "owner"]
    assert columns("--drop", "id, trust") == everything
    rest = ["area", "rooms", "town", "rent", "trust"]
    assert columns("--drop", "id", "--weights", "copies", "--group", "owner") == rest
    holes = tmp_path / "holes.csv"
    holes.write_text('a,"b, net",y\n1,2,3\n,4,5\n5,7,8\n6,1,4\n2,2,2\n')
    for policy, rows, dropped in (("drop", 4, 1), ("mean", 5, 0)):
        options = ["--features", 'a,"b, net"', "--missing", policy, "--json"]
        shown = json.loads(run("fit", holes, "--target", "y", *options).stdout)
        assert (shown["rows"], shown["rows_dropped"]) == (rows, dropped)


def test_several_targets(houses, tmp_path):
    model, out = tmp_path / "m.safetensors", tmp_path / "out.csv"
    result = run("fit", houses, "--target", "price", "--target", "rent", *FEATURES, "-o", model)
    assert "regression of price, rent" in result.stdout
    run("predict", model, houses, "-o", out)
    assert pl.read_csv(out).columns == ["predicted_price", "predicted_rent"]


def test_a_query_a_database_and_a_pattern_are_data(houses, tmp_path):
    import duckdb

    database = tmp_path / "shop.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute(f"CREATE TABLE orders AS FROM '{houses}'")
    wanted = run("fit", houses, "--target", "price", *FEATURES, "--alpha", "2", "--json").stdout
    for data in (
        [f"{database}::orders"],
        [database],
        [database, "--sql", "FROM orders"],
        [f"FROM '{houses}'"],
        ["--sql", f"FROM '{houses}'"],
        [tmp_path / "house*.csv"],
    ):
        shown = json.loads(run("fit", *data, "--target", "price", *FEATURES, "--alpha", "2", "--json").stdout)
        assert shown["targets"][0]["intercept"] == pytest.approx(
            json.loads(wanted)["targets"][0]["intercept"], rel=1e-10
        )


# --------------------------------------------------------------------------------------- predict


@pytest.fixture
def model(houses, tmp_path):
    path = tmp_path / "model.safetensors"
    run("fit", houses, "--target", "price", *FEATURES, "-o", path)
    return path


def test_predictions_are_the_librarys_in_every_format(model, houses, tmp_path):
    expected = elltwo.load(model).predict(str(houses))
    for name in ("out.csv", "out.parquet", "OUT.CSV"):
        result = run("predict", model, houses, "--keep", "id,town", "-o", tmp_path / name)
        read = pl.read_parquet if name.endswith("parquet") else pl.read_csv
        frame = read(tmp_path / name)
        assert frame.columns == ["id", "town", "predicted_price"]
        assert frame["id"].to_list() == list(range(80))
        assert frame["town"].to_list() == pl.read_csv(houses)["town"].to_list()
        assert np.array_equal(frame["predicted_price"].to_numpy(), expected)
        assert f"80 predictions written to {tmp_path / name}" in result.stderr
    printed = list(csv.reader(io.StringIO(run("predict", model, houses).stdout)))
    assert printed[0] == ["predicted_price"]
    assert np.array_equal([float(row[0]) for row in printed[1:]], expected)


def test_long_tables_are_predicted_in_chunks_in_order(model, tmp_path, monkeypatch):
    from elltwo.data import encode, reading
    from elltwo.interfaces.cli import predict

    monkeypatch.setattr(predict, "CHUNK_ROWS", 700)
    monkeypatch.setattr(encode, "block_rows", lambda width: 300)
    monkeypatch.setattr(reading, "BATCH_ROWS", 1000)
    rng = np.random.default_rng(0)
    n = 5000
    frame = pl.DataFrame(
        {
            "note": [f"row {i}" for i in range(n)],
            "town": rng.choice(["Ulm", "Kiel"], n),
            "rooms": rng.integers(1, 6, n),
            "area": rng.uniform(40, 160, n),
        }
    )
    frame.write_parquet(tmp_path / "long.parquet", row_group_size=1100)
    expected = elltwo.load(model).predict(frame)
    for name in ("out.parquet", "out.csv"):
        run("predict", model, tmp_path / "long.parquet", "--keep", "note", "-o", tmp_path / name)
        out = pl.read_parquet(tmp_path / name) if "parquet" in name else pl.read_csv(tmp_path / name)
        assert out["note"].to_list() == frame["note"].to_list()
        assert np.allclose(out["predicted_price"].to_numpy(), expected, rtol=1e-13, atol=0)


def test_unseen_values_and_missing_ones_are_reported(houses, tmp_path):
    model, new, out = tmp_path / "m.safetensors", tmp_path / "new.csv", tmp_path / "out.csv"
    run("fit", houses, "--target", "price", *FEATURES, "--missing", "drop", "-o", model)
    new.write_text("town,rooms,area\nUlm,2,50\nRome,2,50\nOslo,2,50\nRome,3,60\nBonn,,60\n")
    result = run("predict", model, new, "-o", out)
    told = "Column 'town' holds values that training did not see, in 3 of the rows: 'Rome', 'Oslo'"
    assert told in result.stderr
    assert "1 of the rows lack a value and have an empty prediction" in result.stderr
    predicted = pl.read_csv(out)["predicted_price"].to_list()
    assert predicted[4] is None
    assert predicted[1] == predicted[2]
    assert predicted[0] != predicted[1]


def test_a_model_of_arrays_predicts_a_table_by_feature_names(tmp_path):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(1)
    frame = pandas.DataFrame(rng.normal(size=(30, 2)), columns=["a", "b"])
    estimator = elltwo.Ridge(1.0).fit(frame, frame["a"] - frame["b"])
    estimator.fit_.save(tmp_path / "m.safetensors")
    frame[["b", "a"]].to_csv(tmp_path / "new.csv", index=False)
    run("predict", tmp_path / "m.safetensors", tmp_path / "new.csv", "-o", tmp_path / "out.csv")
    (predicted,) = pl.read_csv(tmp_path / "out.csv").get_columns()
    assert np.allclose(predicted.to_numpy(), estimator.predict(frame), rtol=1e-12)


@pytest.mark.parametrize(
    "error", [duckdb.InterruptException("Interrupted!"), RuntimeError("Query interrupted")]
)
def test_an_interrupt_inside_duckdb_ends_quietly(houses, monkeypatch, error):
    with pytest.raises(KeyboardInterrupt), sql.explained("'t.csv'"):
        raise error

    def interrupted(*_):
        raise error

    monkeypatch.setattr(delimited, "csv_table", interrupted)
    result = CliRunner().invoke(cli, ["fit", str(houses), "--target", "price"])
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Error" not in result.stderr


def test_dates_lists_and_categories_can_be_kept(model, houses, tmp_path):
    frame = pl.read_csv(houses).with_columns(
        day=pl.date(2024, 1, 1) + pl.duration(days="id"),
        kind=pl.col("town").cast(pl.Categorical),
        tags=pl.concat_list("rooms", "owner"),
    )
    frame.write_parquet(tmp_path / "rich.parquet")
    keep = ["--keep", "day,kind"]
    run("predict", model, tmp_path / "rich.parquet", *keep, "-o", tmp_path / "out.csv")
    assert pl.read_csv(tmp_path / "out.csv", try_parse_dates=True)["day"].equals(frame["day"])
    run("predict", model, tmp_path / "rich.parquet", *keep, "--keep", "tags", "-o", tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet")["tags"].to_list() == frame["tags"].to_list()


def test_two_runs_write_the_same_bytes(model, houses, tmp_path):
    for name in ("a.parquet", "b.parquet"):
        run("predict", model, houses, "-o", tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


# ---------------------------------------------------------------------------- show, convert, demo


def test_show_prints_what_fit_printed(houses, tmp_path):
    model = tmp_path / "model.safetensors"
    fitted = run("fit", houses, "--target", "price", *FEATURES, "-o", model)
    assert run("show", model).stdout == fitted.stdout
    as_json = run("fit", houses, "--target", "price", *FEATURES, "--json", "-o", model)
    assert run("show", model, "--json").stdout == as_json.stdout


def test_show_all_lists_every_feature(tmp_path):
    rng = np.random.default_rng(0)
    wide = pl.DataFrame(rng.normal(size=(60, 41)), schema=[f"c{j}" for j in range(41)])
    wide.write_csv(tmp_path / "wide.csv")
    model = tmp_path / "m.safetensors"
    printed = run("fit", tmp_path / "wide.csv", "--target", "c40", "-o", model).stdout
    assert "and 10 more features" in printed
    assert run("show", model).stdout == printed
    everything = run("show", model, "--all").stdout
    assert all(re.search(rf"^c{j} ", everything, re.MULTILINE) for j in range(40))


def test_convert_prints_one_number():
    result = run("convert", "1.0", "--from", "sklearn", "--to", "mean", "--n", "1000")
    assert result.stdout == "0.001\n"
    arguments = ["0.5", "--from", "C", "--to", "glmnet", "--n", "100", "--loss", "logistic"]
    assert float(run("convert", *arguments).stdout) == 1 / 0.5 / 100
    keras = run("convert", "6", "--from", "sum", "--to", "keras", "--n", "2", "--n-targets", "3")
    assert float(keras.stdout) == 1.0
    glmnet = run("convert", "6", "--from", "sum", "--to", "glmnet", "--n", "2", "--y-std", "5", "--explain")
    assert float(glmnet.stdout.splitlines()[0]) == 15.0
    assert "minimises" in glmnet.stdout


def test_convert_lists_every_dialect():
    listed = run("convert", "--list").stdout
    for dialect in conventions.DIALECTS:
        assert re.search(rf"^{dialect.name} ", listed, re.MULTILINE)


def test_demo_runs_fit_summary_and_predict():
    result = run("demo")
    words = (
        "$ elltwo fit diabetes.csv",
        "Ridge (L2) regression",
        "$ elltwo predict",
        "predicted_progression",
    )
    for word in words:
        assert word in result.stdout
    assert not Path("diabetes.csv").exists()


def test_demo_leaves_its_files_where_it_is_told_to(tmp_path):
    run("demo", "--folder", tmp_path)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["diabetes.csv", "diabetes.safetensors", "predictions.csv"]
    assert pl.read_csv(tmp_path / "predictions.csv").height == 442


# -------------------------------------------------------------------------------- the program


def test_the_choices_are_those_of_the_library():
    assert set(fit_command.RULES) == {rule.name for rule in selection.RULES}
    assert fit_command.MISSING == MISSING
    assert set(fit_command.SOLVERS) == {*(solver.name for solver in SOLVERS), *kernel_task.SOLVERS}
    assert tuple(d.name for d in conventions.DIALECTS) == convert_command.DIALECTS
    assert convert_command.LOSSES == conventions.LOSS_NAMES


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_and_option_has_help(command):
    text = run(command.name, "--help").stdout
    assert command.short_help
    assert all(option.help for option in command.params if option.param_type_name == "option")
    assert command.name == "demo" or "Examples:\n    elltwo" in text


def test_version():
    assert run("--version").stdout == f"elltwo, version {elltwo.__version__}\n"


def test_the_package_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "elltwo", "convert", "1", "--from", "sum", "--to", "mean", "--n", "4"],
        capture_output=True,
        encoding="utf-8",
        env=ENVIRONMENT,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.25\n", "")


def test_the_program_runs_as_a_process(tmp_path):
    done = subprocess.run(
        [*PROGRAM, "fit", DIABETES, "--target", "progression", "--json"],
        capture_output=True,
        encoding="utf-8",
        env=ENVIRONMENT,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"] == 442
    assert done.stderr == "\nThe model was not saved; -o model.safetensors saves it.\n"


def test_a_reader_that_leaves_early_is_no_error(model, tmp_path):
    rows = "".join(f"{i % 90},3,Ulm\n" for i in range(40_000))
    (tmp_path / "long.csv").write_text("area,rooms,town\n" + rows)
    program = subprocess.Popen(
        [*PROGRAM, "predict", str(model), str(tmp_path / "long.csv")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert program.stdout.readline() == b"predicted_price\n"
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    program.wait()


def test_a_terminal_without_greek_letters_shows_question_marks(tmp_path):
    done = subprocess.run(
        [*PROGRAM, "fit", DIABETES, "--target", "progression", "--alpha", "1"],
        capture_output=True,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "cp1252"},
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert b"? = 1 (sum scale)" in done.stdout


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (elltwo.InputError("Column 'x' is odd. Mend it."), 2, "Error: Column 'x' is odd. Mend it.\n"),
        (elltwo.ModelFileError("Bad file. Copy it."), 2, "Error: Bad file. Copy it.\n"),
        (elltwo.MissingPackageError("Needs x. Install x."), 2, "Error: Needs x. Install x.\n"),
        (MemoryError("8 GB"), 2, "Error: Not enough memory: 8 GB."),
        (OSError(5, "Input/output error"), 2, "Error: [Errno 5] Input/output error."),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_how_the_program_ends(raised, status, message):
    group = Commands("elltwo")

    @group.command()
    def fail():
        raise raised

    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == status
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.output
    assert UserError.exit_code == 2


def test_memory_that_does_not_suffice_is_told_without_a_traceback(tmp_path):
    """2 rows of 8,000 features are little; the 8,000 x 8,000 matrix that is asked for is 512 MB."""
    code = (
        "import resource, numpy as np, elltwo\n"
        "rng = np.random.default_rng(0)\n"
        "X, y = rng.normal(size=(2, 8000)), np.arange(2.0)\n"
        "elltwo.Ridge(1.0).fit(X[:, :5], y)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)\n"
        "try:\n"
        "    elltwo.Ridge(1.0, solver='cholesky').fit(X, y)\n"
        "except elltwo.OutOfMemoryError as error:\n"
        "    assert isinstance(error, MemoryError) and isinstance(error, elltwo.ElltwoError)\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path
    )
    assert done.stdout.startswith("Not enough memory: Unable to allocate"), done.stderr
    assert "(8000, 8000)" in done.stdout


def test_a_program_that_is_told_to_stop_leaves_no_half_written_file(tmp_path):
    code = (
        "import signal, sys\n"
        "from elltwo.interfaces.cli import main\n"
        "from elltwo.files import replacing\n"
        "@main.cli.command()\n"
        "def wait():\n"
        "    with replacing('out.csv') as file:\n"
        "        file.write(b'half'); file.flush(); print('ready', flush=True); signal.pause()\n"
        "sys.argv = ['elltwo', 'wait']\n"
        "main.main()\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=ENVIRONMENT, cwd=tmp_path
    )
    assert program.stdout.readline() == b"ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    program.send_signal(signal.SIGTERM)
    program.stdout.close()
    assert program.wait(timeout=600) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- progress


def test_progress_is_silent_without_a_terminal():
    with progress("Fitting") as report:
        assert report is None


def test_progress_draws_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress_bar, "PATIENCE", float("inf"))
    with progress("Fitting") as report:
        report(10, 100)
        assert screen.getvalue() == ""  # short work stays silent
        monkeypatch.setattr(progress_bar, "PATIENCE", 0.0)
        report(50, None)
        report(5, 100)
    assert "Fitting, pass 2" in screen.getvalue()
