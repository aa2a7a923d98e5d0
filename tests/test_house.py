"""The house rules: what importing costs, what is public, and that the pages and the project file agree."""

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import elltwo

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAIN = "from elltwo.interfaces.cli.main import main; main()"
# Packages whose module has another name.
IMPORTED = {"scikit-learn": "sklearn", "import-linter": "importlinter", "pytest-xdist": "xdist"}


def name(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group()


CORE = [name(requirement) for requirement in PROJECT["project"]["dependencies"]]
OTHER = [
    name(requirement)
    for group in (
        *PROJECT["project"]["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    )
    for requirement in group
]
BUILD = [name(requirement) for requirement in PROJECT["build-system"]["requires"]]


def python(code, *arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        timeout=600,
    )


def loaded_by(code, *arguments):
    """Return the top-level names in sys.modules after running some code."""
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    run = python(report + code, *arguments)
    assert run.returncode == 0, run.stderr
    return {module.split(".")[0] for module in run.stderr.split()}


def test_importing_elltwo_loads_no_other_package():
    ours = {IMPORTED.get(package, package) for package in CORE + OTHER}
    assert "elltwo" in (loaded := loaded_by("import elltwo"))
    assert not ours & loaded


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["convert", "--help"]], ids=" ".join)
def test_help_loads_no_numerics(arguments):
    assert not {"numpy", "scipy", "sklearn", "pandas", "duckdb", "pyarrow"} & loaded_by(MAIN, *arguments)


@pytest.mark.parametrize("public", [entry for entry in elltwo.__all__ if entry != "__version__"])
def test_public_names_resolve_and_are_documented(public):
    thing = getattr(elltwo, public)
    assert thing.__name__ == public
    assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert public in dir(elltwo)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Rigde'"):
        _ = elltwo.Rigde


def test_type_checkers_see_the_names_that_are_loaded_lazily():
    tree = ast.parse(Path(elltwo.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(seen) == set(elltwo.__all__) - {"__version__"}
    for public, module in seen.items():
        assert getattr(import_module(module), public) is getattr(elltwo, public)


def test_one_version():
    assert PROJECT["project"]["version"] == elltwo.__version__


@pytest.mark.parametrize("package", sorted({*CORE, *OTHER, *BUILD}))
def test_every_dependency_has_a_reason(package):
    lines = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").splitlines()
    first_cells = [line.split("|")[1] for line in lines if line.startswith("| ")]
    assert any(package in re.split(r"[,\s]+", cell) for cell in first_cells)


def test_pinned_versions_are_of_packages_that_are_used():
    pins = [
        line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
    ]
    assert {name(pin) for pin in pins} == set(CORE + OTHER)


def test_the_layers_are_documented_as_they_are_checked():
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    layers = [re.sub("[()]", "", layer) for layer in contract["layers"]]  # parentheses: may be absent
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "\n".join(f"    {layer}" for layer in layers) in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def project_files():
    """Return the files of the project, without what tools leave behind."""
    parts = [ROOT / part for part in ("src", "tests", "docs", "benchmarks", ".ci")]
    inside = [path for part in parts for path in part.rglob("*") if "__pycache__" not in path.parts]
    return [path for path in (*inside, *ROOT.glob("*")) if path.is_file()]


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(rb"(?<![\w.])(/(home|root|Users|tmp|work|opt|mnt|srv|media)/\w|[A-Z]:\\\\?Users)")
    found = {str(path.relative_to(ROOT)): place.search(path.read_bytes()) for path in project_files()}
    assert {path: match.group() for path, match in found.items() if match} == {}


@pytest.fixture
def clone(tmp_path):
    """Return a folder with the data that the README names."""
    shutil.copytree(ROOT / "src" / "elltwo" / "data", tmp_path / "src" / "elltwo" / "data")
    return tmp_path


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(clone):
    run = python("\n".join(blocks("python")), cwd=clone)
    assert run.returncode == 0, run.stderr


def test_the_commands_of_the_readme_run(clone):
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("elltwo ")]
    assert commands
    for command in commands:
        run = python(MAIN, *shlex.split(command, comments=True)[1:], cwd=clone)
        assert run.returncode == 0, f"{command}\n{run.stderr}"
