"""Change the code in small, wrong ways, one at a time, and see whether the tests notice.

    python tests/tools/mutants.py                   every change of mutants.toml
    python tests/tools/mutants.py ridge/ digits     those whose name contains one of these words
    python tests/tools/mutants.py --jobs 4

Each change of `mutants.toml` replaces one piece of text, which must stand exactly once in its file, in a
copy of the project; then the named tests run there. A change that no test notices is printed as SURVIVED,
with what it replaced. The exit status is 1 if one survived that is not declared to be equivalent. This
takes a while, so it is no part of the normal run. The named tests must pass without the change, which is
tried first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which tests that have not ended count as having noticed: the change made them hang.
PATIENCE = 900
#: Exit statuses of pytest.
PASSED, FAILED, NOTHING_RAN = 0, 1, 5


@dataclass(frozen=True)
class Mutant:
    """One wrong change: `old` becomes `new` in `file`, and `tests` (arguments of pytest) should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    #: Why no test can notice; empty where one has to.
    equivalent: str = ""

    def apply(self, project: Path) -> None:
        """Make the change in a copy of the project."""
        path = project / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise SystemExit(
                f"{self.name}: the text to replace stands {text.count(self.old)} times in {self.file}."
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def read(path: Path) -> list[Mutant]:
    """Return the changes of a file, whose tables are named by the changes."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Mutant(name, **{**entry, "tests": tuple(entry["tests"])}) for name, entry in entries.items()]


def copied(folder: Path) -> Path:
    """Return a copy of what the tests need."""
    for name in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
    return folder


def run(project: Path, tests: Sequence[str]) -> int:
    """Return pytest's exit status for these tests."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": str(project / "src")}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return FAILED
    if done.returncode not in (PASSED, FAILED):
        # An error while a module is imported or collected is noticed too; a wrong argument is not.
        return FAILED if b"error" in done.stdout and done.returncode != NOTHING_RAN else done.returncode
    return done.returncode


def noticed(mutant: Mutant) -> bool:
    """Return whether the tests of a change fail with it."""
    with tempfile.TemporaryDirectory() as folder:
        project = copied(Path(folder))
        mutant.apply(project)
        return run(project, mutant.tests) != PASSED


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the changes and print what became of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only changes whose name contains one of these")
    parser.add_argument("--jobs", type=int, default=2, help="changes tried at once")
    options = parser.parse_args(arguments)
    chosen = [
        mutant
        for mutant in read(Path(__file__).with_name("mutants.toml"))
        if not options.words or any(word in mutant.name for word in options.words)
    ]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        project = copied(Path(folder))
        groups = sorted({mutant.tests for mutant in chosen})
        for tests, status in zip(groups, pool.map(lambda tests: run(project, tests), groups), strict=True):
            if status != PASSED:
                raise SystemExit(f"These tests do not pass as the code stands: {' '.join(tests)}")
        survived = 0
        for mutant, seen in zip(chosen, pool.map(noticed, chosen), strict=True):
            survived += not seen and not mutant.equivalent
            word = "noticed" if seen else "equivalent" if mutant.equivalent else "SURVIVED"
            print(f"{word:10}  {mutant.name}", flush=True)
            if word == "SURVIVED":
                print(f"            {mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
    counted = sum(not mutant.equivalent for mutant in chosen)
    print(f"{counted - survived} of {counted} changes were noticed.")
    return int(survived > 0)


if __name__ == "__main__":
    raise SystemExit(main())
