"""The programs in `examples/` as their READMEs say: push, verify, approve, a second version, and the way back."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from ashat.deployment.state_machine import State
from ashat.protocol.messages import Role, Scope
from ashat.raos_toml.draft import draft
from ashat.raos_toml.look import SourceTree
from ashat.raos_toml.recognise import recognise
from tests.support.builders.databases import new_postgresql_database
from tests.support.builders.examples import EXAMPLES, Example, replace
from tests.support.needs import requires_caddy, requires_postgresql, requires_registries
from tests.support.processes.node import NodeProcess
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("examples"), pytest.mark.timeout(600)]
OWN_LINES = 15


def new_version(tree: Path, *files: str) -> None:
    for file in ("raos.toml", *files):
        replace(tree / file, "1.0.0", "1.1.0", times=1)


def change_static(tree: Path) -> None:
    new_version(tree)
    replace(tree / "public/index.html", "<h1>Handbook</h1>", "<h1>Handbook of the workshop</h1>")


def change_express(tree: Path) -> None:
    new_version(tree, "package.json", "package-lock.json")
    replace(tree / "package-lock.json", "1.0.0", "1.1.0", times=1)  # npm has it twice
    replace(tree / "server.js", "fr: 'Bonjour'", "fr: 'Bonjour', it: 'Ciao'")


def change_fastapi(tree: Path) -> None:
    new_version(tree, "app/main.py")
    replace(tree / "raos.toml", 'migration = "0001"', 'migration = "0002"')
    replace(tree / "app/main.py", "    id: int\n", "    id: int\n    place: str | None\n")
    replace(
        tree / "app/tables.py", "    owner: Mapped[str]\n", "    owner: Mapped[str]\n    place: Mapped[str | None]\n"
    )
    (tree / "migrations/versions/0002_place.py").write_text(PLACE)


def change_django(tree: Path) -> None:
    new_version(tree, "workshop/__init__.py")
    replace(tree / "raos.toml", "notices.0001_initial", "notices.0002_until")
    replace(
        tree / "notices/models.py",
        "auto_now_add=True)\n",
        "auto_now_add=True)\n    until = models.DateField(null=True)\n",
    )
    replace(tree / "notices/templates/board.html", "<h1>Notice board</h1>", "<h1>Notice board of the workshop</h1>")
    (tree / "notices/migrations/0002_until.py").write_text(UNTIL)


PLACE = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("tools", sa.Column("place", sa.String))
"""
UNTIL = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notices", "0001_initial")]
    operations = [migrations.AddField("notice", "until", models.DateField(null=True))]
"""
STATIC = Example("static", change_static, "/", "<h1>Handbook</h1>", "<h1>Handbook of the workshop</h1>")
FASTAPI = Example("fastapi", change_fastapi, "/health", '"version":"1.0.0"', '"version":"1.1.0"')
DJANGO = Example("django", change_django, "/", "<h1>Notice board</h1>", "<h1>Notice board of the workshop</h1>")
EXPRESS = Example("express", change_express, "/greetings", '["en","de","fr"]', '["en","de","fr","it"]')


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("examples"), mainframes=0, omega=False, rehearses=True) as made:
        made.configure_policy(advisories="off")
        yield made


@contextmanager
def servers(stack: Stack, example: Example, directory: Path, *databases: sa.URL) -> Iterator[tuple[Path, NodeProcess]]:
    """Public and OMEGA for the example, of which `deploy` knows; the source tree, and OMEGA."""
    tree, server = directory / example.name, directory / "srv"
    example.copy(tree, server)
    public, omega = (example.settings(server, name) for name in (databases or (None, None)))
    signed = {"unsigned_releases": False}
    with (
        NodeProcess(directory / f"{example.name}-staging", **public) as staging,
        NodeProcess(directory / f"{example.name}-production", role=Role.OMEGA, settings=signed, **omega) as production,
    ):
        for kind, node, scope in (("public", staging, Scope.PUSH), ("omega", production, Scope.ADMIN)):
            name = f"{example.name}-{kind}"
            words = ("configure", kind, node.url, node.directory.name, "--as", name, "--token-stdin")
            stack.deploy(*words, stdin=node.token(scope))
        yield tree, production


def ship(stack: Stack, example: Example, tree: Path, update: str) -> State:
    names = ("--public", f"{example.name}-public", "--target", f"{example.name}-omega")
    stack.deploy("push", update, "An example", "--source", str(tree), *names)
    stack.deploy("verify", update)
    state = stack.wait_asked(update)
    assert state.evidence is not None
    checks = json.loads(stack.deploy("evidence", update, "--json").stdout)["checks"]
    unclean = {check["name"]: check["seen"] for check in checks if check["outcome"] != "pass"}
    unclean.pop("performance", None)  # on a busy machine it says, rightly, that it cannot tell
    assert not unclean
    stack.deploy("approve", update, "--evidence", state.evidence[-8:], "--comment", "read")
    return stack.state(update)


def goes_there_and_back(stack: Stack, example: Example, directory: Path, *databases: sa.URL) -> None:
    with servers(stack, example, directory, *databases) as (tree, omega), omega.client() as client:

        def page() -> str:
            url = client.state().app.url
            return httpx.get(f"{url}{example.page}", trust_env=False).text

        ship(stack, example, tree, f"{example.name}-1")
        assert example.before in page()
        example.change(tree)
        example.commit(tree, "The second version")
        ship(stack, example, tree, f"{example.name}-2")
        assert example.after in page()
        stack.deploy("rollback", f"{example.name}-2", "--reason", "the tour ends here")
        assert example.before in page()
        assert example.after not in page()


@pytest.mark.parametrize("name", ["static", "express", "fastapi", "django"])
def test_a_few_lines_stand_beside_what_init_wrote(name: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / name, tmp_path / "tree")
    (tmp_path / "tree/raos.toml").unlink()
    tree = SourceTree(tmp_path / "tree")
    found = recognise(tree)
    assert found
    written = draft(tree, found)
    own = (EXAMPLES / name / "raos.toml").read_text("utf-8")
    tomllib.loads(own)
    added = [line for line in own.splitlines() if line.strip() and line not in written.splitlines()]
    assert len(added) <= OWN_LINES, added


@requires_registries
@requires_caddy
def test_static_files_on_caddy(stack: Stack, tmp_path: Path) -> None:
    goes_there_and_back(stack, STATIC, tmp_path)


@requires_registries
def test_an_express_program_with_its_node_modules(stack: Stack, tmp_path: Path) -> None:
    goes_there_and_back(stack, EXPRESS, tmp_path)


@requires_registries
def test_a_fastapi_program_that_alembic_migrates(stack: Stack, tmp_path: Path) -> None:
    goes_there_and_back(stack, FASTAPI, tmp_path)


@requires_registries
@requires_postgresql
def test_a_django_site_on_postgresql(stack: Stack, tmp_path: Path) -> None:
    with new_postgresql_database() as staging, new_postgresql_database() as production:
        goes_there_and_back(stack, DJANGO, tmp_path, staging, production)
