"""What the documents say is so: their commands run, their tables are the code's, their links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from ashat import errors
from ashat.cli.main import app as deploy_app
from ashat.common.failpoints import FAULT_POINTS
from ashat.node.app import create_app
from ashat.node.cli.main import app as node_app
from ashat.node.context import open_node
from ashat.node.core.config import NodeConfig
from ashat.protocol.messages import NodeState, Operation, OperationRequest, Role
from ashat.raos_toml.schema import RaosToml
from ashat.settings import Settings
from tests.support.builders.transitions import transitions
from tests.support.drivers.doc_console import Block, Console, blocks, commands
from tests.support.processes import docs_stack

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDE, ARCHITECTURE, API = ROOT / "docs/guide.md", ROOT / "docs/architecture.md", ROOT / "docs/node-api.md"
# The examples are one story, and the guide looks at what they left.
STORY = [ROOT / "docs/examples.md", GUIDE]
SECTION_SECONDS = 1200
PACKAGES = ("ashat", "tasks", "flows", "blocks")


def _sections() -> list[tuple[Path, str]]:
    shown = [(document, block.section) for document in STORY for block in _blocks(document, "console")]
    return list(dict.fromkeys(shown))


def _blocks(document: Path, *languages: str) -> list[Block]:
    return [block for block in blocks(document.read_text("utf-8")) if block.language in languages]


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    home = tmp_path_factory.mktemp("home")
    with docs_stack.console(home) as session:
        yield session
        docs_stack.end(home)


@pytest.fixture(scope="module")
def forks(console: Console) -> Iterator[docs_stack.Forks]:
    with docs_stack.Forks(console.home) as prepared:
        yield prepared


_broken: list[str] = []


@pytest.mark.timeout(SECTION_SECONDS)
@pytest.mark.parametrize(("document", "section"), _sections(), ids=lambda value: getattr(value, "stem", value))
def test_the_commands_shown_print_what_is_shown(
    console: Console, forks: docs_stack.Forks, document: Path, section: str
) -> None:
    if _broken:
        pytest.fail(f"'{_broken[0]}' failed before, and this goes on from there", pytrace=False)
    _broken.append(section)
    for block in _blocks(document, "console"):
        if block.section == section:
            for command in commands(block):
                console.run(command)
                forks.prepare()
                if command.text.startswith("deploy push UPD-1 "):
                    docs_stack.soak_no_longer(console.home)
                if command.text.startswith("deploy approve UPD-1 "):
                    docs_stack.compare_no_more(console.home)
    _broken.clear()


def test_nothing_that_is_shown_as_run_is_left_out() -> None:
    others = [document for document in DOCUMENTS if document not in STORY and document.exists()]
    assert [document.name for document in others if _blocks(document, "console")] == []


# Commands that cannot run in a test (other machines, systemd): at least their words must be ones.


def _shell_lines(block: Block) -> Iterator[str]:
    text = "\n".join(block.lines).replace("\\\n", " ")
    for line in text.splitlines():
        yield line.removeprefix("ExecStart=") if block.language == "ini" else line


def _uses(document: Path) -> list[str]:
    """Every command of ours that a block or a span of code in `document` shows, without what is around it."""
    shown = [line for block in _blocks(document, "sh", "ini") for line in _shell_lines(block)]
    prose = re.sub(r"^ *```.*?^ *```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    shown += [span for span in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(deploy|ashat-node) [a-z]", span)]
    return [
        found[0]
        for line in shown
        for part in re.split(r"&&|\|\||;|\|", line.partition(" #")[0])
        if (found := re.search(r"(?:^|[\s/])(?:deploy|ashat-node|make|prefect) .*", part.partition(" > ")[0]))
    ]


@cache
def _programs() -> dict[str, Any]:
    return {"deploy": get_command(deploy_app), "ashat-node": get_command(node_app)}


def _wrong(use: str) -> str:
    """Find what is wrong with a command as it is shown; "" where nothing is."""
    words = shlex.split(use.strip().replace("…", " ").replace("<", "").replace(">", ""))
    program = words.pop(0).rpartition("/")[2]
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        return "" if words[0] in targets else f"make has no target {words[0]}"
    if program == "prefect":
        return _wrong_for_prefect(words)
    command = _programs()[program]
    path = program
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"{path} has no command {words[0]}"
        path += f" {words[0]}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    return next((f"{path} has no option {option}" for option in options if option not in known), "")


# Prefect's commands take seconds to start: one process prints the help of all that are shown.
_HELP = """
import json, sys
from prefect.cli import app
for path in json.loads(sys.argv[1]):
    sys.argv = ["prefect", *path, "--help"]
    try:
        app()
    except SystemExit as ended:
        print(f"\\0{ended.code or 0}\\0", end="", flush=True)
"""


@cache
def _prefect_helps(*more: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    """The help of each of Prefect's commands that a document shows, and of `more`."""
    shown = [shlex.split(use.strip()) for document in DOCUMENTS for use in _uses(document) if "prefect" in use]
    paths = sorted({_prefect_path(words[1:]) for words in shown if words[0] == "prefect"} | {*more})
    command = [sys.executable, "-c", _HELP, json.dumps(paths)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout.split("\0")
    assert printed[1::2] == ["0"] * len(paths), printed
    return dict(zip(paths, printed[::2], strict=False))


def _prefect_path(words: Sequence[str]) -> tuple[str, ...]:
    path = tuple(word for word in words[:3] if re.fullmatch(r"[a-z][a-z-]+", word))
    if path[0] == "deploy":
        return path[:1]
    return path if path[:2] == ("deployment", "schedule") else path[:2]


def _wrong_for_prefect(words: Sequence[str]) -> str:
    path = _prefect_path(words)
    helps = _prefect_helps()
    text = helps[path] if path in helps else _prefect_helps(path)[path]
    return next((f"prefect {' '.join(path)} has no {w}" for w in words if w.startswith("-") and w not in text), "")


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.exists()], ids=lambda document: document.stem)
def test_every_command_that_is_only_shown_has_words_that_exist(document: Path) -> None:
    wrong = {use.strip(): mistake for use in _uses(document) if (mistake := _wrong(use))}
    assert wrong == {}


def test_the_check_of_shown_commands_notices_mistakes() -> None:
    assert _wrong("deploy pusch UPD-1") == "deploy has no command pusch"
    assert _wrong("deploy configure public URL NAME --tokken X") == "deploy configure public has no option --tokken"
    assert (
        _wrong("/opt/bin/ashat-node token add --data X --name=alpha --for Y")
        == "ashat-node token add has no option --for"
    )
    assert _wrong("make tests") == "make has no target tests"
    assert "has no --limits" in _wrong("prefect work-queue create omega --pool control --limits 1")


@pytest.mark.parametrize("block", _blocks(GUIDE, "toml"), ids=lambda block: f"line-{block.line}")
def test_settings_that_are_shown_are_a_nodes(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('role = "public"\ndata = "."\n' + "\n".join(block.lines), "utf-8")
    assert tomllib.loads(file.read_text("utf-8"))
    NodeConfig.load(file)


# Tables are the code's.


def _rows(document: Path, section: str) -> list[list[str]]:
    """The cells of every table row in `section`, headings and rulers apart."""
    text = document.read_text("utf-8")
    inside = re.search(rf"^#+ {re.escape(section)}$(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert inside, f"{document.name} has no section {section!r}"
    rows = [line for line in inside[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows if "`" in row]


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_of_settings_is_the_settings() -> None:
    rows = _rows(GUIDE, "Settings")
    listed = {name: row[1] for row in rows for name in _code(row[0])}
    fields = {f"ASHAT_{name.upper()}": field for name, field in Settings.model_fields.items()}
    assert fields.keys() <= listed.keys()
    figures = {name: field.default for name, field in fields.items() if isinstance(field.default, int | float)}
    assert {name: float(listed[name]) for name in figures} == figures


def test_every_variable_that_the_code_reads_is_in_a_document() -> None:
    read = {
        name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"\bASHAT_[A-Z]+(?:_[A-Z]+)*\b", path.read_text("utf-8"))
    }
    marks = {
        "ASHAT_TEST_RUN",
        "ASHAT_CONTROL_PLANE",
        "ASHAT_CONTROL_PLANE_SERVER",
        "ASHAT_NODE_INSTANCE",
        "ASHAT_NODE",
    }
    text = "\n".join(document.read_text("utf-8") for document in DOCUMENTS if document.exists())
    assert sorted(name for name in read - marks if name not in text and not name.startswith("ASHAT_NODE_")) == []


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        key = f"{prefix}{field.alias or name}"
        if inner:
            yield from _keys(inner, f"{key}.")
        else:
            yield key


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)


def test_the_table_of_raos_toml_is_the_model() -> None:
    listed = {key for row in _rows(GUIDE, "What a release promises: raos.toml") for key in _code(row[0])}
    assert listed == set(_keys(RaosToml))


def test_troubleshooting_knows_every_error_and_quotes_what_it_says() -> None:
    rows = [row for row in _rows(GUIDE, "Troubleshooting") if row[0].endswith("Error`")]
    named = {name for row in rows for name in _code(row[0])}
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.AshatError) and value is not errors.AshatError
    }
    assert named == classes
    texts = list(_texts(*PACKAGES))
    quoted = [part.strip(" '(") for row in rows for span in _code(row[1]) for part in span.split("…")]
    assert [part for part in quoted if len(part) > 5 and not any(part in text for text in texts)] == []


def _texts(*packages: str) -> Iterator[str]:
    """Every text in the code, with … for what is filled in."""
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    yield "".join(str(part) for part in parts)


def test_the_table_of_crashes_names_every_fault_point() -> None:
    rows = _rows(ARCHITECTURE, "What a crash leaves")
    assert sorted(name for row in rows for name in _code(row[0])) == sorted(FAULT_POINTS)


def test_the_states_drawn_are_those_of_the_machine() -> None:
    drawing = next(b.lines for b in _blocks(ARCHITECTURE, "mermaid") if b.lines[0].strip() == "stateDiagram-v2")
    assert _drawn(drawing) == {(before.value, after.value) for before, after in transitions()}


def _drawn(lines: tuple[str, ...]) -> set[tuple[str, str]]:
    arrows: list[tuple[str, str]] = []
    members: dict[str, set[str]] = {}
    inside = ""
    for line in lines:
        if opened := re.fullmatch(r"\s*state (\w+) \{", line):
            inside = opened[1]
            members[inside] = set()
        elif line.strip() == "}":
            inside = ""
        elif arrow := re.fullmatch(r"\s*(\w+) --> (\w+)(?:: .*)?", line):
            arrows.append((arrow[1], arrow[2]))
            if inside:
                members[inside] |= set(arrow.groups())
    return {(before, after) for start, after in arrows for before in members.get(start, {start})}


# The node's API.


def _documented() -> set[tuple[str, str]]:
    text = API.read_text("utf-8")
    return {
        (method, path.partition("?")[0])
        for span in re.findall(r"`([^`\n]+)`", text)
        for method, path in re.findall(r"\b(GET|PUT|POST|DELETE) (/[\w{}/.-]+)", span)
    }


@pytest.mark.parametrize("role", [Role.PUBLIC, Role.OMEGA], ids=str)
def test_the_api_that_is_served_is_documented_and_the_other_way_round(role: Role, tmp_path: Path) -> None:
    with open_node(NodeConfig(role=role, data=tmp_path)) as context:
        paths = create_app(context).openapi()["paths"]
    served = {(method.upper(), re.sub(r"\{\w+\}", "{}", path)) for path, methods in paths.items() for method in methods}
    documented = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in _documented()}
    assert served - documented == set()
    if role is Role.OMEGA:
        assert documented - served == set()


def test_every_refusal_of_a_node_is_documented_with_its_status() -> None:
    documented = {
        (int(status), code)
        for row in _rows(API, "Errors")
        for status in re.findall(r"\d{3}", row[0])
        for code in re.findall(r"`([a-z_]+)`", re.sub(r"\(.*?\)", "", row[1]))
    }
    refused = {
        (status, code)
        for path in (ROOT / "ashat/node").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for status, code in _refusals(node)
    }
    assert refused, "no refusal was found in the code"
    assert refused - documented == set()
    assert {code for _, code in documented} - set(_texts("ashat/node", "ashat/common")) == set()


def _refusals(node: ast.AST) -> Iterator[tuple[int, str]]:
    """The status and code of `ApiError(...)`, or of a row of the table of errors that have one."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError":
        given = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
    elif isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[0], ast.Name):
        given = [element.value for element in node.elts[1:] if isinstance(element, ast.Constant)]
    else:
        return
    match given:
        case [int(status), str(code)] if 400 <= status < 600:
            yield status, code


@pytest.mark.parametrize(
    ("number", "model"), [(0, NodeState), (1, OperationRequest), (2, Operation)], ids=lambda value: str(value)
)
def test_the_documents_that_are_shown_have_the_fields_of_the_model(number: int, model: type[BaseModel]) -> None:
    shown = json.loads("\n".join(_blocks(API, "json")[number].lines))
    assert shown.keys() == {field.alias or name for name, field in model.model_fields.items()}


# Links lead somewhere.


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    plain = re.sub(r"`|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@cache
def _anchors(document: Path) -> set[str]:
    outside = re.sub(r"^ *```.*?^ *```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", outside, re.MULTILINE)}


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.exists()], ids=lambda document: document.stem)
def test_links_lead_somewhere(document: Path) -> None:
    dead = []
    text = document.read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)
    assert dead == []
