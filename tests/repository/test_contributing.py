"""What CONTRIBUTING.md and docs/dependencies.md name is there, and what is there they name."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from scripts.dependencies import ROOT, bytes_on_disk, closure, direct_dependencies
from tests.repository.test_architecture import SHIPPED, contracts, sources

# Parts of FastAPI, HTTPX, jsonschema and pydantic that these say to import from there.
BROUGHT = {"anyio", "httpcore", "jsonschema-specifications", "pydantic-core", "starlette"}


def section(document: str, heading: str) -> str:
    text = (ROOT / document).read_text("utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_where_is_what_names_files_that_are_there() -> None:
    rows = [line for line in section("CONTRIBUTING.md", "Where is what").splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 12
    named = [re.findall(r"`([\w./-]+(?:/|\.py|\.md|\.toml))`", row) for row in rows]
    assert all(named), "each task names what to open"
    assert [path for paths in named for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_and_the_layers_name_every_package() -> None:
    house, layers = section("README.md", "The house"), section("docs/architecture.md", "The layers")
    for parent in ("ashat", "tasks"):
        rooms = {path.parent.name for path in (ROOT / parent).glob("*/__init__.py")}
        assert sorted(name for name in rooms if not re.search(rf"\b{name}\b", house)) == []
        assert sorted(name for name in rooms if not re.search(rf"\b{name}\b", layers)) == []
    shown = re.findall(r"^  (\w+)/ ", house, re.MULTILINE)
    assert [name for name in shown if not any((ROOT / parent / name).is_dir() for parent in ("ashat", "tasks"))] == []


@pytest.mark.parametrize(
    ("row", "contract"),
    [
        ("the command", "The floors of deploy"),
        ("the steps", "The floors of the tasks"),
        ("the node", "The floors of a node"),
        ("the library", "Arrows point down only"),
    ],
)
def test_the_documented_layers_are_those_of_the_contracts(row: str, contract: str) -> None:
    (cells,) = re.findall(
        rf"^\| {row} \| (?:.+: )?(.+) \|$", section("docs/architecture.md", "The layers"), re.MULTILINE
    )
    shown = [set(re.findall(r"`(?:ashat\.)?(\w+)`", layer)) for layer in cells.split(";")]
    layers = contracts()[contract]["layers"]
    if row == "the library":
        layers = layers[layers.index("ashat.node") + 1 :]  # those above have rows of their own
    assert shown == [set(re.findall(r"\w+", layer.replace("ashat.", ""))) for layer in layers]


def test_the_documented_dependencies_are_those_of_pyproject() -> None:
    declared = {group: {each.name for each in requirements} for group, requirements in direct_dependencies().items()}
    headings = {"base": "The base", "operator": "The extra `operator`"}
    others = {name for group, names in declared.items() if group not in headings for name in names}
    wanted = {heading: declared[group] for group, heading in headings.items()} | {"Other extras": others}
    for heading, names in wanted.items():
        rows = re.findall(r"^\| `([\w-]+)` \| (.+) \| (.+) \|$", section("docs/dependencies.md", heading), re.MULTILINE)
        assert [row[0] for row in rows] == sorted(names), heading
        assert all(len(words.split()) > 1 or words == "YAML" for row in rows for words in row[1:])


def test_what_the_code_imports_is_a_dependency_or_comes_with_one() -> None:
    distributions = packages_distributions()
    imported = {
        name.partition(".")[0]
        for path in sources(*SHIPPED)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    foreign = imported - set(SHIPPED) - set(sys.stdlib_module_names)
    direct = {canonicalize_name(each.name) for group in direct_dependencies().values() for each in group}
    found = {canonicalize_name(distributions[name][0]) for name in foreign if name in distributions}
    assert found - direct <= BROUGHT
    drivers = {"pymysql", "python-pkcs11"}  # SQLAlchemy and securesystemslib import these
    assert direct - found == drivers | {"whenever"}  # which Prefect imports: only its version is ours to say


def test_the_cost_of_a_dependency_is_counted_with_what_it_needs() -> None:
    groups = direct_dependencies()
    base, everything = closure(groups["base"]), closure(each for group in groups.values() for each in group)
    assert {"starlette", "httpcore"} <= base < everything
    assert "prefect" in everything - base
    assert bytes_on_disk("tenacity") > 50_000
