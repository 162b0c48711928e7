"""The ledger's schema: what the migrations make, and what is said of another, a half migrated or a newer one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

from ashat.errors import LedgerError, LedgerTooNewError
from ashat.ledger import schema
from ashat.ledger.database import migrate_shared_ledger
from ashat.ledger.ledger import Ledger
from ashat.ledger.tables import metadata
from tests.support.builders.ledgers import ROOT, begin
from tests.support.needs import requires_postgresql

NEXT = '''
"""Add a table.

Revision ID: 0003
"""
import time
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True))
    time.sleep({seconds})
    {then}
'''
OPEN = """
import sys, pathlib
from ashat.ledger import schema
from ashat.ledger.database import migrate_shared_ledger
schema.SCHEMA_VERSION, schema.MIGRATIONS = 3, pathlib.Path(sys.argv[2])
from ashat.ledger.ledger import Ledger
with Ledger.open(sys.argv[1], migrate=True) as ledger:
    print(ledger.load("UPD-1").version)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=requires_postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with a ledger of one update."""
    made = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        made = str(request.getfixturevalue("postgresql_url"))
    with Ledger.open(made) as ledger:
        begin(ledger, "UPD-1", [])
    return made


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def tables(url: str) -> set[str]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    found = set(sa.inspect(engine).get_table_names())
    engine.dispose()
    return found


def next_version(directory: Path, *, seconds: float = 0, then: str = "pass") -> Path:
    """Migrations of a next version, which adds a table."""
    versions = directory / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0002_ledger.py").write_text((schema.MIGRATIONS / "versions/0002_ledger.py").read_text())
    (versions / "0003_next.py").write_text(NEXT.format(seconds=seconds, then=then))
    return versions.parent


def upgraded(monkeypatch: pytest.MonkeyPatch, migrations: Path) -> None:
    """Be the next version."""
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)


def said(url: str, *, migrate: bool = False) -> str:
    """The line that is said where the ledger does not open."""
    with pytest.raises(LedgerError) as told:
        Ledger.open(url, migrate=migrate)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_the_migrations_make_the_tables_that_the_code_knows() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        for path in sorted((schema.MIGRATIONS / "versions").glob("[0-9]*.py")):
            made: dict[str, object] = {}
            exec(compile(path.read_text(), str(path), "exec"), made)
            with Operations.context(context):
                made["upgrade"]()  # type: ignore[operator]
            assert made["revision"] == path.name[:4]
        assert int(str(made["revision"])) == schema.SCHEMA_VERSION
        assert compare_metadata(context, metadata) == []


def test_what_is_made_at_once_has_the_schema_of_the_migrations(url: str) -> None:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == f"{schema.SCHEMA_VERSION:04}"
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.parametrize("stamped", [True, False], ids=["by Alembic", "before Alembic"])
def test_an_older_one_is_migrated_and_then_newer_than_the_old_version(
    url: str, stamped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stamped:
        execute(url, "DROP TABLE alembic_version")
        Ledger.open(url).close()
    with monkeypatch.context() as newer:
        upgraded(newer, next_version(tmp_path))
        if url.startswith("postgresql"):
            assert "has schema 2, and this version of ASHAT Deploy needs 3: deploy up, or for a" in said(url)
            assert "notes" not in tables(url)
        with Ledger.open(url, migrate=True) as ledger:
            assert ledger.load("UPD-1").version == 1
        Ledger.open(url).close()
    assert "notes" in tables(url)
    assert "written by a newer version of ASHAT Deploy (schema 3; this one reads 2). Upgrade" in said(url)
    with pytest.raises(LedgerTooNewError):
        Ledger.open(url, migrate=True)


def test_deploy_up_migrates_one_that_is_there_and_makes_none(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgraded(monkeypatch, next_version(tmp_path))
    migrate_shared_ledger(url)
    assert ("notes" in tables(url)) is url.startswith("postgresql")
    execute(url, *(f"DROP TABLE {name}" for name in tables(url)))
    migrate_shared_ledger(url)
    assert tables(url) == set()


def test_a_migration_that_fails_changes_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tables(url)
    with monkeypatch.context() as newer:
        upgraded(newer, next_version(tmp_path, then='op.execute("SELECT no_such_function()")'))
        assert "does not open" in said(url, migrate=True)
    assert tables(url) == before
    with Ledger.open(url) as ledger:
        assert ledger.load("UPD-1").version == 1


def test_two_that_migrate_at_once_take_turns(url: str, tmp_path: Path) -> None:
    migrations = next_version(tmp_path, seconds=0.5)
    command = [sys.executable, "-c", OPEN, url, str(migrations)]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert ended == [("1\n", "")] * 2


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["DELETE FROM alembic_version"], "it names schema 2 and none"),
        (["UPDATE alembic_version SET version_num = '0001'"], "it names schema 2 and 0001"),
        (["INSERT INTO alembic_version VALUES ('0003')"], "it names schema 2 and"),
        (["DELETE FROM ashat_meta WHERE key = 'schema'"], "nothing names its schema"),
        (["UPDATE ashat_meta SET value = 'two' WHERE key = 'schema'"], "nothing names its schema"),
        (["DROP TABLE ashat_meta"], "the table that names its schema is missing"),
        (["DROP TABLE sessions"], "it has no table sessions"),
    ],
)
def test_a_half_migrated_one_is_refused_and_left_alone(url: str, statements: list[str], words: str) -> None:
    execute(url, *statements)
    before = tables(url)
    for migrate in (False, True):
        line = said(url, migrate=migrate)
        assert "is half migrated" in line
        assert words in line
        assert "Restore it from a backup; nothing was changed." in line
    assert tables(url) == before
