"""A first raos.toml for trees of each kind, and what one leaves out."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from ashat.errors import UsageError
from ashat.raos_toml.draft import draft, gaps
from ashat.raos_toml.load import load_raos_toml
from ashat.raos_toml.look import ENTRIES, SourceTree
from ashat.raos_toml.recognise import Recognised, recognise
from ashat.raos_toml.schema import RaosToml
from tests.support.processes.deploy_cli import deploy


def jar(attributes: str, *entries: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\n{attributes}\r\n")
        for entry in entries:
            file.writestr(entry, b"")
    return content.getvalue()


DJANGO = {
    "manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')",
    "shop/settings.py": "INSTALLED_APPS = []",
    "shop/wsgi.py": "",
    "shop/urls.py": "urlpatterns = [path('staff/', admin.site.urls)]",
}
FASTAPI = {
    "pyproject.toml": '[project]\nname = "orders"\nversion = "2.1"\ndependencies = [\n  "psycopg",\n]\n',
    "app/main.py": "app = FastAPI(\n)\n@app.get('/healthz')\ndef health(): ...\n",
}
REVISIONS = {
    "alembic.ini": "",
    "app/versions/1.py": "revision: str = 'aaa'\ndown_revision = None\n",
    "app/versions/2.py": "revision = 'bbb'\ndown_revision: str = 'aaa'\n",
}
NODE = {
    "package.json": '{"name": "chat", "version": "3.0.0", "scripts": {"start": "x"}, "dependencies": {"knex": "1"}}'
}
DOTNET = {
    "Shop.runtimeconfig.json": '{"runtimeOptions": {"framework": {"name": "Microsoft.AspNetCore.App"}}}',
    "Shop.dll": "",
    "Shop.deps.json": '{"libraries": {"Shop/4.5.6": {}, "Microsoft.EntityFrameworkCore/8.0.0": {}}}',
}
SPRING = jar(
    "Main-Class: a.B\r\nImplementation-Title: shop\r\nImplementation-Version: 1.\r\n 2",
    "BOOT-INF/lib/spring-boot-actuator-3.jar",
)
FLYWAY: dict[str, str | bytes] = {"a.jar": jar("Main-Class: a.B", "lib/flyway-core-9.jar", "lib/postgresql-42.jar")}
KINDS: list[tuple[dict[str, str | bytes], str, str, str]] = [
    (DJANGO, "a Django site", "/staff/login/", "0.1.0"),
    (DJANGO | {"shop/urls.py": "path('up/', up)"}, "a Django site", "/up/", "0.1.0"),
    (FASTAPI, "a FastAPI program", "/healthz", "2.1"),
    ({"main.py": "api = FastAPI()"}, "a FastAPI program", "/openapi.json", "0.1.0"),
    ({"site.py": "app = Flask(__name__)\n@app.route('/ping')\n"}, "a Flask program", "/ping", "0.1.0"),
    (NODE | {"src/index.ts": "router.get('/health', check)"}, "a Node program", "/health", "3.0.0"),
    ({"shop.jar": SPRING}, "a jar", "/actuator/health", "1.2"),
    ({"shop.jar": jar("Main-Class: a.B")}, "a jar", "/", "0.1.0"),
    (DOTNET, "a .NET program", "/", "4.5.6"),
    ({"index.html": "<h1>"}, "static files", "/", "0.1.0"),
]  # fmt: skip


def made(directory: Path, files: dict[str, str | bytes]) -> SourceTree:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return SourceTree(directory)


def drafted(tree: SourceTree) -> tuple[Recognised, RaosToml]:
    found = recognise(tree)
    assert found
    return found, load_raos_toml(draft(tree, found).encode())


@pytest.mark.parametrize(("files", "kind", "health", "version"), KINDS, ids=[f"{k}, {h}" for _, k, h, _ in KINDS])
def test_each_kind_of_program_is_known_and_gets_promises_that_are_read(
    tmp_path: Path, files: dict[str, str | bytes], kind: str, health: str, version: str
) -> None:
    tree = made(tmp_path, files)
    found, raos = drafted(tree)
    assert (found.kind, raos.health.path, raos.health.expect, raos.raos.version) == (kind, health, "status", version)
    assert raos.modules.none
    assert raos.performance
    settings = [line for line in draft(tree, found).splitlines() if line and not line.startswith("#")]
    assert len(settings) <= 18
    assert [gap for gap in gaps(raos, found) if "[[endpoint]]" not in gap] == []


@pytest.mark.parametrize(
    ("files", "none", "tables", "migration"),
    [
        ({"index.html": ""}, True, [], None),
        (DJANGO, False, ["django_migrations"], None),
        (FASTAPI, False, [], None),
        (FASTAPI | REVISIONS, False, ["alembic_version"], "bbb"),
        (FASTAPI | REVISIONS | {"app/versions/3.py": "revision = 'ccc'"}, False, ["alembic_version"], None),
        (NODE, False, ["knex_migrations"], None),
        (DOTNET, False, ["__EFMigrationsHistory"], None),
        (FLYWAY, False, ["flyway_schema_history"], None),
    ],
)  # fmt: skip
def test_a_database_is_declared_where_one_shows(
    tmp_path: Path, files: dict[str, str | bytes], none: bool, tables: list[str], migration: str | None
) -> None:
    database = drafted(made(tmp_path, files))[1].database
    assert database
    assert (database.none is not None, database.tables, database.migration) == (none, tables, migration)


def test_what_a_program_has_of_raos_is_promised(tmp_path: Path) -> None:
    known = {"main.py": "app = FastAPI()\nBUNDLE = os.environ['ASHAT_BUNDLE']", "Modules/Chat/a.py": ""}
    raos = drafted(made(tmp_path, known))[1]
    assert (raos.health.expect, raos.modules.none, raos.api.openapi) == ("release", None, "/openapi.json")


@pytest.mark.parametrize(
    ("text", "files", "said"),
    [
        ("", NODE, "no file of the source mentions ASHAT_BUNDLE: report it, or set expect"),
        ("", NODE, '[modules] is to be reported, but the source has no Modules/: set none = "why"'),
        ("", NODE, "no [[endpoint]] is declared, and no [api] openapi"),
        ("", NODE, "[performance] is not declared: nothing is measured"),
        ("", NODE, "[database] is not declared: none is looked at, but package.json needs knex"),
        ("", {"index.html": ""}, "[database] is not declared: none is looked at"),
        ('[database]\nnone = "we keep no data"\n', NODE, "says that there is none, but package.json needs knex"),
        ('[database]\nmigration = "aaa"\n', FASTAPI | REVISIONS, "is aaa, but app/versions/2.py is the newest"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(tmp_path: Path, text: str, files: dict[str, str | bytes], said: str) -> None:
    raos = load_raos_toml(f'[raos]\nname = "a"\nversion = "1"\n{text}'.encode())
    assert [gap for gap in gaps(raos, recognise(made(tmp_path, files))) if said in gap]


def test_what_others_wrote_is_not_taken_for_the_program(tmp_path: Path) -> None:
    foreign = {f"{place}/main.py": "app = FastAPI()" for place in ("node_modules/x", ".git", "env/lib", "tests")}
    assert recognise(made(tmp_path, foreign | {"env/pyvenv.cfg": ""})) is None


@pytest.mark.parametrize(
    "files",
    [
        {"package.json": '{"scripts": {"start": 1}, "name": 7, "version": [], "dependencies": "x"}'},
        {"package.json": "[" * 10_000, "index.html": ""},
        {"a.jar": b"PK\x03\x04 no jar", "index.html": ""},
        {"x\n[evil]\ny = '\\'\t/main.py": "app = FastAPI()"},
        {"pyproject.toml": "[project]\nname = 3\n", "main.py": "app = FastAPI()"},
        {"pyproject.toml": "tool = 1\nproject = 2\n", "main.py": "app = FastAPI()"},
        {"main.py": "app = FastAPI()\n" + "x" * 10_000_000, "index.html": ""},
        {"a.deps.json": "{}", "a.dll": "", "a.runtimeconfig.json": "Microsoft.AspNetCore.App"},
    ],
)
def test_odd_trees_get_promises_that_are_read(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    assert drafted(made(tmp_path, files))[1].raos.name


def test_a_look_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(ENTRIES + 10):
        (tmp_path / "many" / f"{number}.txt").touch()
    os.symlink(tmp_path, tmp_path / "loop")
    assert len(SourceTree(tmp_path).paths) <= ENTRIES
    with pytest.raises(UsageError, match="is not a directory that can be read"):
        SourceTree(tmp_path / "absent")


def test_the_command_writes_once_and_then_says_what_is_left_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    made(tree, {"package.json": json.dumps({"scripts": {"start": "node ."}})})

    def init(*words: str) -> tuple[int, str]:
        done = deploy(tmp_path / "home", "init", *words, cwd=tree)
        return done.returncode, done.stdout + done.stderr

    code, said = init()
    assert (code, "is written, for a Node program" in said) == (0, True)
    assert '[app] command = ["npm", "start"]' in said
    code, said = init()
    assert (code, "is there already: deploy init --check" in said) == (2, True)
    code, said = init("--check")
    assert (code, "⚠️ no [[endpoint]] is declared" in said) == (1, True)
    with (tree / "raos.toml").open("a") as file:
        file.write('[[endpoint]]\nname = "home"\npath = "/"\n')
    code, said = init("--check")
    assert (code, "leaves nothing out that deploy looks for" in said) == (0, True)
    code, said = init("--source", "absent")
    assert (code, "is not a directory that can be read" in said) == (2, True)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("files", "command"),
    [
        (DJANGO, ["python3", "manage.py", "migrate", "--noinput"]),
        (FASTAPI | REVISIONS, ["alembic", "upgrade", "head"]),
        (FASTAPI | {"api/alembic.ini": ""}, ["alembic", "-c", "api/alembic.ini", "upgrade", "head"]),
        (
            {"site.py": "app = Flask(__name__)", "requirements.txt": "Flask-Migrate==4", "migrations/alembic.ini": ""},
            ["flask", "--app", "site:app", "db", "upgrade"],
        ),
        (NODE, ["npx", "knex", "migrate:latest"]),
        (
            {"package.json": '{"scripts": {"start": "x", "db:migrate": "y"}, "dependencies": {"knex": "1"}}'},
            ["npm", "run", "db:migrate"],
        ),
        ({"package.json": '{"scripts": {"start": "x"}, "dependencies": {"@prisma/client": "6"}}'}, None),
        ({"index.html": "<h1>"}, []),
    ],
)  # fmt: skip
def test_a_migrate_step_is_suggested_where_the_tool_is_known(
    tmp_path: Path, files: dict[str, str | bytes], command: list[str] | None
) -> None:
    tree = made(tmp_path, files)
    found = recognise(tree)
    assert found is not None
    text = draft(tree, found)
    assert load_raos_toml(text.encode()).migrate is None
    lines = [line.removeprefix("# ") for line in text.partition("# [migrate]\n")[2].splitlines()[:3]]
    step = (
        load_raos_toml("\n".join(['[raos]\nname = "a"\nversion = "1"\n[migrate]', *lines]).encode()).migrate
        if lines
        else None
    )
    assert (step.command if step else []) == (["npx", "prisma", "migrate", "deploy"] if command is None else command)
