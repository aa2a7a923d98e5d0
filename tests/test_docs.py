"""The pages say what the code does: tables, numbers, examples and printed output are compared with it."""

import contextlib
import doctest
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib import pyplot as plt

from elltwo import diagnostics, fitting, folds, inference, kernels, losses, moments, run, selection
from elltwo.array import ROUNDOFF
from elltwo.comparing import contestants, results, rows, split, verdict
from elltwo.data import classes, encode, reading, sql
from elltwo.inference import stored
from elltwo.interfaces.cli.main import cli
from elltwo.kernel_fitting import task as kernel_task
from elltwo.kernel_fitting import width as kernel_width
from elltwo.solvers import (
    auto,
    block_tridiagonal,
    certificate,
    coordinate,
    coupled,
    curvature,
    first_order_state,
    gradient,
    joint,
    kernel_dual,
    loss_rows,
    proximal,
    proximal_state,
    resolvent,
)
from elltwo.solvers.cholesky import Cholesky

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Lines whose numbers depend on the machine's arithmetic: only their words are compared.
ROUGH = ("Condition", "Optimality", "Correct digits")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def page(name):
    """Return a page with every run of white space as one blank, since lines are wrapped."""
    return " ".join((DOCS / f"{name}.md").read_text(encoding="utf-8").split())


def test_the_index_links_every_page():
    linked = set(re.findall(r"\]\(([a-z-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in DOCS.glob("*.md")} - {"index.md"}


def test_the_table_of_solvers_is_the_one_that_is_used():
    rows = "\n".join(f"| {c.when} | `{c.solver.name}` | {c.why} |" for c in auto.AUTO)
    text = (DOCS / "solvers.md").read_text(encoding="utf-8")
    assert f"| when | solver | why |\n|---|---|---|\n{rows}\n\n" in text


def test_every_solver_and_rule_has_a_line():
    for solver in auto.SOLVERS:
        assert f"| `{solver.name}` | " in page("solvers")
    for rule in selection.RULES:
        assert f'| `"{rule.name}"`, `{rule.__name__}` | ' in page("selection")


def short(value):
    """Write a limit as the pages do: 1e-11."""
    return re.sub(r"e([+-])0", r"e\1", f"{value:.0e}").replace("+", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("solvers", f"at most {auto.FEW_ROWS} rows"),
        ("solvers", f"fit in {auto.DUAL_BYTES >> 30} GiB"),
        ("solvers", f"an order above {auto.MOST_ORDER:,} are not diagonalised"),
        (
            "solvers",
            f"{short(run.PATH_LOSS)}; {short(run.CHEAP_LOSS)} if n·p² ≤ {short(run.CHEAP_WORK)}",
        ),
        ("solvers", f"| on disk | at the given or the chosen alpha | {short(run.STREAM_LOSS)} |"),
        ("solvers", f"u·κ̂² > {short(Cholesky.condition_limit * ROUNDOFF)} at the chosen alpha"),
        ("selection", f"With more than {run.REFINED_TARGETS} targets"),
        ("selection", {6: "six"}[selection.grid.PER_DECADE] + " per decade"),
        ("selection", f"up to {auto.FEW_ROWS} rows"),
        ("certificate", f"n·p·T ≤ {diagnostics.EXTENDED_SIZE:,}"),
        ("certificate", f"factor of {1 / diagnostics.SHRINKS_BY:g}, or after {diagnostics.MOST_STEPS}."),
        ("certificate", f"over {diagnostics.PROBES} random probes"),
        ("certificate", {1 << 22: "2²² (4 million) numbers"}[run.CHEAP_REREAD]),
        ("objective", f"{moments.NOISE / ROUNDOFF:g}·u·|x̄ⱼ|"),
        ("glm", f"a sample of {curvature.SAMPLE} rows per feature"),
        (
            "glm",
            f"to a relative gradient of {short(joint.PATH_TOL)}, those of folds to {short(joint.FOLD_TOL)}",
        ),
        ("glm", f"more than {auto.SPARSE_FEATURES:,} features (`newton-cg`)"),
        ("glm", f"beyond η = ±{losses.base.ETA_BOUND:g}"),
        ("glm", f"less than {short(certificate.SEPARATED)} of the null deviance"),
        ("glm", f"order K·(p + 1), and the limit is {coupled.MOST_ORDER:,}"),
        ("solvers", f"order K·(p + 1), at most {coupled.MOST_ORDER:,}"),
        ("solvers", f"more than {auto.SPARSE_FEATURES:,} sparse features"),
        ("tables", f"take up to {fitting.KEPT_BYTES >> 20} MB is kept"),
        ("tables", f"labels, up to {classes.MOST_LABELS:,} different ones"),
        ("kernels", f"up to {kernel_task.MOST_DIAGONALISED:,} rows"),
        ("kernels", f"up to {kernel_task.MOST_HELD:,} rows"),
        (
            "kernels",
            f"Of more than {kernel_width.TUNE_ROWS:,} rows ({kernel_width.TUNE_LOSS_ROWS} for other losses)",
        ),
        (
            "kernels",
            "({} to {:,}; other losses {} to {})".format(
                *kernel_task.SQUARED_CENTERS, *kernel_task.LOSS_CENTERS
            ),
        ),
        ("kernels", f"{kernel_task.MOST_NEWTON:,} rows and then turns to"),
        ("kernels", f'under "auto" below {kernel_dual.MANY_ROWS:,} rows'),
        ("kernels", f"for Cholesky above {kernel_dual.DF_ROWS:,} rows"),
        ("kernels", f"Below {resolvent.MANY_ROWS:,} rows that is an eigendecomposition"),
        ("kernels", f"from {resolvent.MANY_ROWS:,} rows one block-tridiagonal form"),
        ("kernels", f"block tridiagonal (blocks of {block_tridiagonal.BAND})"),
        (
            "kernels",
            f"factors of {kernel_width.TUNE_FACTOR:g} to "
            f"{kernel_width.TUNE_FACTOR**kernel_width.TUNE_STEPS:g} either way",
        ),
        ("elastic-net", f"The grid has {coordinate.GRID} alphas"),
        ("elastic-net", f"or more than {coordinate.MANY_FEATURES:,}"),
        ("elastic-net", f"With more than {proximal.FEW} features"),
        ("elastic-net", f"to a relative residual of {short(proximal_state.PATH_TOL)}"),
        ("elastic-net", f"more than {loss_rows.FAR:.0f} standard deviations from 0"),
        ("inference", f"up to {inference.MOST_BYTES >> 30} GiB in all"),
        ("inference", f"up to {inference.MOST_JOINT:,} coefficients together"),
        ("inference", f"takes at most {stored.MOST_STORED >> 20} MB"),
        ("gradient", f"up to order {first_order_state.MOST_ORDER:,}"),
        ("compare", f"each of {split.FOLDS} outer folds"),
        ("compare", f"has {split.INNER_FOLDS} folds"),
        ("compare", f"at most {rows.MOST_ELEMENTS:,} encoded numbers"),
        ("compare", f"beyond the {1 - results.ERROR_RATE:.0%} limit".replace("%", " %")),
        ("compare", f"is below {verdict.NEGLIGIBLE:.0%}".replace("%", " %")),
        ("tables", f"More than {reading.MOST_LEVELS:,} different text values"),
        ("tables", f"files up to {sql.WHOLE_BYTES >> 20} MB"),
    ],
    ids=lambda value: value[:30],
)
def test_the_numbers_are_those_of_the_code(name, words):
    assert words in page(name)


def test_every_loss_kernel_scoring_and_family_has_a_line():
    for loss in losses.LOSSES:
        assert f"| `{loss.__name__}` | `{loss.name}`" in page("glm")
    for kernel in kernels.KERNELS:
        assert f'| `"{kernel.name}"`' in page("kernels")
    for scoring in selection.SCORINGS:
        assert f'`"{scoring}"`' in page("selection")
    for family in fitting.FAMILIES:
        assert f'`"{family}"`' in page("tables")
    for contestant in contestants.CONTESTANTS:
        assert f"`{contestant.key}`" in page("compare")
    for kind in inference.KINDS:
        assert f'| `"{kind}"`' in page("inference")
    for method in gradient.METHODS:
        assert f'| `"{method}"` | ' in page("gradient")


def test_the_policies_for_missing_values_are_listed():
    assert all(f'| `"{policy}"`' in page("tables") for policy in encode.MISSING)
    assert folds.DealtFolds().n_splits == folds.TimeFolds().n_splits == 5


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_the_examples_of_the_pages_run(path):
    assert doctest.testfile(str(path), module_relative=False, encoding="utf-8").failed == 0


# ------------------------------------------------------------------------------------ the README


def steps():
    """Return (language, code, what the README prints below it) for each block of code."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    following = [*blocks[1:], ("", "")]
    return [
        (language, code, printed if other == "text" else None)
        for (language, code), (other, printed) in zip(blocks, following, strict=True)
        if language != "text"
    ]


def shell(code):
    """Return what the commands of elltwo, and head, in a block print."""
    printed = []
    for line in code.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program == "elltwo":
            result = CliRunner().invoke(cli, arguments, prog_name="elltwo")
            assert result.exit_code == 0, result.output
            printed.append(result.stdout)
        elif program == "head":
            lines = Path(arguments[1]).read_text(encoding="utf-8").splitlines()
            printed.append("\n".join(lines[: int(arguments[0].removeprefix("-"))]) + "\n")
    return "".join(printed)


def python(code, names):
    """Return what a block of Python prints; later blocks see its names."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, names)
    return out.getvalue()


def timeless(line):
    """Return a line of a table without the seconds in its last column, and the width that they give it."""
    line = re.sub(r" +(\d+(\.\d\d)? s|Time)$", " #", line)
    return re.sub(r"^-{5,}$", "-----", line)


def assert_same(told, printed):
    """Compare line by line: the words alike, the numbers to four digits; […] stands for lines left out."""
    told, printed = told.splitlines(), printed.splitlines()
    if "[…]" in told:
        cut = told.index("[…]")
        rest = len(told) - cut - 1
        told = told[:cut] + told[cut + 1 :]
        printed = printed[:cut] + printed[-rest:]
    assert len(told) == len(printed), "\n".join(printed)
    for line, real in zip(map(timeless, told), map(timeless, printed), strict=True):
        assert NUMBER.sub("#", line) == NUMBER.sub("#", real)
        if not line.startswith(ROUGH):
            numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (line, real)]
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)


def test_the_readme_prints_what_the_program_prints(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "src" / "elltwo" / "data", tmp_path / "src" / "elltwo" / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names, compared = {}, 0
    for language, code, told in steps():
        printed = shell(code) if language == "sh" else python(code, names)
        if told is not None:
            assert_same(told, printed)
            compared += 1
    plt.close("all")
    assert compared == README.count("```text\n") == 10
