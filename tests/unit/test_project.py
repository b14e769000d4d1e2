"""What holds of the project as a whole: sizes of modules and functions, what importing costs, the version."""

import ast
import fnmatch
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import blockwright
from tests.support.command import UNMEASURED

SOURCE = Path(blockwright.__file__).parent
ROOT = SOURCE.parents[1]
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 60
DOES_IO = {
    "asyncio",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "time",
}
HEAVY = {"asyncio", "click", "ctypes", "http", "isal", "rich", "sqlite3", "ssl", "tomllib", "urllib"}
"""What `import blockwright` must not bring along."""


def loaded_by(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **UNMEASURED}, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def functions(tree: ast.AST):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imported(tree: ast.AST) -> set[str]:
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_is_small_and_says_what_it_knows(module):
    text = module.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= MAX_MODULE_LINES
    assert ast.get_docstring(tree), "no docstring"
    long = [node.name for node in functions(tree) if (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES]
    assert not long, f"functions of {MAX_FUNCTION_LINES} lines or more: {long}"


def test_modules_are_small_in_the_middle():
    lengths = sorted(module.read_text().count("\n") for module in MODULES)
    assert lengths[len(lengths) // 2] < 200


def test_plans_do_no_io():
    plans = [module for module in MODULES if module.name.startswith("plan")]
    assert plans
    found = {str(module): imported(ast.parse(module.read_text())) & DOES_IO for module in plans}
    assert not {module: names for module, names in found.items() if names}


def test_importing_the_package_imports_nothing_heavy():
    assert not loaded_by("import blockwright") & HEAVY


def test_what_is_heavy_would_be_seen():
    assert "ssl" in loaded_by("import blockwright, ssl") & HEAVY


def test_no_directory_of_tests_is_passed_over(pytestconfig: pytest.Config):
    """By default pytest does not look into `build`, `dist` or `venv`, and says nothing."""
    left_out = pytestconfig.getini("norecursedirs")
    below = (path.parent.relative_to(ROOT).parts for path in (ROOT / "tests").rglob("test_*.py"))
    names = {name for parts in below for name in parts}
    assert {"unit", "interop", "build"} <= names
    assert [name for name in sorted(names) if any(fnmatch.fnmatch(name, each) for each in left_out)] == []


def test_test_modules_have_names_of_their_own():
    seen: dict[str, Path] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        assert path.name not in seen, f"{path} and {seen[path.name]} have the same name"
        seen[path.name] = path


def test_version():
    done = subprocess.run(
        [sys.executable, "-m", "blockwright", "--version"], capture_output=True, text=True, check=True
    )
    assert blockwright.__version__ in done.stdout


def test_installed_version_is_the_source_s():
    try:
        installed = importlib.metadata.version("blockwright")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("running from the source, not installed")
    assert installed == blockwright.__version__
