"""The house rules that a machine can hold: who imports whom, how long things are, what shipped code may not contain."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ashat.faults import FAULT_POINTS

ROOT = Path(__file__).parent.parent
SHIPPED = ("ashat", "blocks", "tasks", "flows")
FILE_LINES = 420
FUNCTION_LINES = 50
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplemented(Error)?)\b")


@cache
def sources(*places: str) -> list[Path]:
    return sorted(path for place in places for path in (ROOT / place).rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def library_modules() -> set[str]:
    found = {path.stem if path.suffix else path.name for path in (ROOT / "ashat").iterdir() if _is_module(path)}
    return {f"ashat.{name}" for name in found - {"__init__", "cli"}}


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def contracts() -> dict[str, dict[str, list[str]]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    return {contract["name"]: contract for contract in settings["contracts"]}


def test_every_module_of_the_library_is_in_the_contracts() -> None:
    layers = contracts()["Arrows point down only"]["layers"]
    assert layers[:-1] == ["ashat.cli", "flows", "tasks", "blocks"]
    assert set(re.findall(r"[\w.]+", layers[-1])) == library_modules()
    assert set(contracts()["The library never imports Prefect, nor what does"]["source_modules"]) == library_modules()


def test_imports_keep_the_contracts() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_base_install_never_loads_prefect() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("ashat")
        if path.relative_to(ROOT).parts[1] != "cli" and path.name != "__main__.py"
    ]
    code = (
        "import importlib, sys\n"
        "class Closed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('prefect', 'psycopg', 'hypothesis', 'pytest', 'playwright'):\n"
        "            raise ImportError(f'{name} is not in the base install')\n"
        "sys.meta_path.insert(0, Closed())\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in sources(*SHIPPED, "examples", "bench"):
        text, where = path.read_text("utf-8"), path.relative_to(ROOT)
        lines = text.count("\n")
        if lines > FILE_LINES:
            long.append(f"{where}: {lines} lines")
        for function in functions(ast.parse(text)):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            length = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > FUNCTION_LINES:
                long.append(f"{where}:{function.lineno}: {function.name} has {length} lines")
    assert not long, "\n".join(long)


def test_nothing_shipped_is_unfinished() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources(*SHIPPED, "examples")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not found, "\n".join(found)


def test_every_public_thing_says_what_it_does() -> None:
    bare = []
    for path in sources(*SHIPPED):
        tree = ast.parse(path.read_text("utf-8"))
        if path.name != "__init__.py" and ast.get_docstring(tree) is None:
            bare.append(str(path.relative_to(ROOT)))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and ast.get_docstring(node) is None:
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert not bare, "\n".join(bare)


def test_every_fault_point_is_placed_and_every_place_is_listed() -> None:
    placed: set[str] = set()
    for path in sources(*SHIPPED):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "fault_point":
                assert len(node.args) == 1, f"{path}:{node.lineno}"
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: a fault point is named where it stands"
                placed.add(str(name.value))
    assert placed == FAULT_POINTS


def test_no_exception_is_swallowed_in_silence() -> None:
    silent = []
    for path in sources(*SHIPPED):
        text = path.read_text("utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(text))):
            if isinstance(node, ast.ExceptHandler) and [type(part) for part in node.body] == [ast.Pass]:
                told = text[node.body[0].lineno - 1].partition("#")[2].strip()
                if not told:
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not silent, "say why nothing is to be done, in a comment beside the pass:\n" + "\n".join(silent)


def test_the_readme_of_the_package_index_and_the_version_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {project['version']}" in changelog


def test_the_tests_that_documents_name_are_there() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")]
    named = {match for text in texts for match in re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text)}
    assert len(named) > 30
    for module, name in named:
        defined = {function.name for function in functions(ast.parse((ROOT / "tests" / module).read_text("utf-8")))}
        assert not name or name in defined, f"{module}::{name}"
