"""The house rules that a machine can hold: who imports whom, how long things are, what shipped code may not contain."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

from ashat.common.failpoints import FAULT_POINTS
from scripts.measure import ROOT, functions_of, measure

SHIPPED = ("ashat", "blocks", "tasks", "flows")
MANY_PARAMETERS = (
    11  # so many functions may have more than scripts/measure.py allows: most are commands with their options
)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplemented(Error)?)\b")


@cache
def sources(*places: str) -> list[Path]:
    return sorted(path for place in places for path in (ROOT / place).rglob("*.py"))


def contracts() -> dict[str, dict[str, list[str]]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    return {contract["name"]: contract for contract in settings["contracts"]}


def packages() -> list[Path]:
    return sorted({path.parent for path in sources(*SHIPPED, "tests")})


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*SHIPPED, cache_dir=None)


def cycles(arrows: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room_of(module: str) -> str:
    """The package that a module is in; a module beside packages, such as ashat.node.serve, is a room of its own."""
    package = ROOT.joinpath(*module.split("."))
    if package.is_dir():
        return module
    beside = any((path / "__init__.py").is_file() for path in package.parent.iterdir())
    return module if beside else module.rpartition(".")[0]


def test_every_package_of_the_library_is_on_a_floor() -> None:
    layers = contracts()["Arrows point down only"]["layers"]
    assert layers[:4] == ["ashat.cli", "flows", "tasks", "blocks"]
    named = [name for layer in layers[4:] for name in re.findall(r"[\w.]+", layer)]
    rooms = imports().find_children("ashat") - {"ashat.cli"}
    assert sorted(named) == sorted(rooms)


def test_every_module_is_in_a_package_that_says_what_is_in_it() -> None:
    bare = [
        str(package.relative_to(ROOT))
        for package in packages()
        if not (package / "__init__.py").is_file()
        or not ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8")))
    ]
    assert not bare, "give each an __init__.py with a docstring:\n" + "\n".join(bare)
    loose = [path.name for path in (ROOT / "ashat").glob("*.py")]
    assert sorted(loose) == ["__init__.py", "errors.py", "settings.py"], "put it into the package of its subject"


def test_no_two_files_and_no_two_packages_import_each_other() -> None:
    graph = imports()
    files = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert not cycles(files)
    rooms: dict[str, set[str]] = {}
    for module, imported in files.items():
        rooms.setdefault(room_of(module), set()).update(room_of(name) for name in imported)
    assert len(rooms) > 40
    assert not cycles({room: imported - {room} for room, imported in rooms.items()})


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


def test_files_functions_and_lists_of_parameters_stay_short() -> None:
    found = measure(*SHIPPED)
    assert found.files > 200
    assert not found.long_files, "\n".join(found.long_files)
    assert not found.long_functions, "\n".join(found.long_functions)
    assert len(found.many_parameters) <= MANY_PARAMETERS, "\n".join(found.many_parameters)
    assert (found.median, found.p90) <= (8, 21)


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
                reason = text[node.body[0].lineno - 1].partition("#")[2].strip()
                if not reason:
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not silent, "say why nothing is to be done, in a comment beside the pass:\n" + "\n".join(silent)


def test_the_readme_of_the_package_index_and_the_version_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {project['version']}" in changelog


def test_the_tests_that_documents_name_are_there() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")]
    named = {match for text in texts for match in re.findall(r"`((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?`", text)}
    assert len(named) > 30
    for module, name in named:
        defined = {function.name for function in functions_of(ast.parse((ROOT / "tests" / module).read_text("utf-8")))}
        assert not name or name in defined, f"{module}::{name}"
