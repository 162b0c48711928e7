"""The record of each migration tool that is known, as the tool itself would have left it, and what is made of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from pydantic import SecretStr

from ashat.node.core.config import DatabaseConfig
from ashat.node.database.throttle import DatabaseLook
from ashat.protocol.probes import DatabaseProbe, DatabaseProbeRequest
from ashat.raos_toml.schema import DatabaseSection
from tasks.checks.database import database_findings

# A tool, what it left of two migrations that ended, what it leaves of a third that began and failed ("": nothing), and
# the files of the first two and of one that was never applied.
KNOWN = [
    (
        "Django",
        "CREATE TABLE django_migrations (id INTEGER PRIMARY KEY, app TEXT, name TEXT, applied TEXT);"
        "INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial', ''), (2, 'auth', '0001_initial', '')",
        "",
        ("shop/migrations/0001_initial.py", "lib/auth/migrations/0001_initial.py", "chat/migrations/0001_initial.py"),
    ),
    (
        "Flyway",
        "CREATE TABLE flyway_schema_history (installed_rank INTEGER, version TEXT, script TEXT, success INTEGER);"
        "INSERT INTO flyway_schema_history VALUES (1, '1', 'V1__init.sql', 1), (2, '1.1', 'V1_1__more.sql', 1)",
        "INSERT INTO flyway_schema_history VALUES (3, '2', 'V2__bad.sql', 0)",
        ("db/V1__init.sql", "db/V1_1__more.sql", "db/V1_2__new.sql"),
    ),
    (
        "Liquibase",
        "CREATE TABLE DATABASECHANGELOG (ID TEXT, AUTHOR TEXT, FILENAME TEXT, ORDEREXECUTED INTEGER, EXECTYPE TEXT);"
        "INSERT INTO DATABASECHANGELOG VALUES ('a', 'x', 'db/one.xml', 1, 'EXECUTED'),"
        " ('b', 'x', 'db/two.xml', 2, 'RERAN')",
        "INSERT INTO DATABASECHANGELOG VALUES ('c', 'x', 'db/bad.xml', 3, 'FAILED')",
        ("db/one.xml", "db/two.xml", "db/three.xml"),
    ),
    (
        "Prisma",
        "CREATE TABLE _prisma_migrations (migration_name TEXT, started_at INTEGER, finished_at INTEGER, rolled_back_at"
        " INTEGER); INSERT INTO _prisma_migrations VALUES ('1_init', 1, 1, NULL), ('2_more', 2, 2, NULL),"
        " ('3_new', 3, NULL, 3)",
        "INSERT INTO _prisma_migrations VALUES ('4_bad', 4, NULL, NULL)",
        ("prisma/1_init/migration.sql", "prisma/2_more/migration.sql", "prisma/3_new/migration.sql"),
    ),
    (
        "Knex",
        "CREATE TABLE knex_migrations (id INTEGER, name TEXT);"
        "INSERT INTO knex_migrations VALUES (1, '1_a.js'), (2, '2_b.js')",
        "",
        ("m/1_a.js", "m/2_b.js", "m/3_c.js"),
    ),
    (
        "goose",
        "CREATE TABLE goose_db_version (id INTEGER, version_id INTEGER, is_applied INTEGER);"
        "INSERT INTO goose_db_version VALUES (1, 0, 1), (2, 1, 1), (3, 2, 1), (4, 3, 1), (5, 3, 0)",
        "",
        ("m/00001_a.sql", "m/00002_b.go", "m/00003_c.sql"),
    ),
    (
        "Laravel",
        "CREATE TABLE migrations (id INTEGER, migration TEXT, batch INTEGER); INSERT INTO migrations"
        " VALUES (1, '2014_10_12_000000_users', 1), (2, '2015_01_01_000000_more', 1)",
        "",
        ("m/2014_10_12_000000_users.php", "m/2015_01_01_000000_more.php", "m/2016_01_01_000000_new.php"),
    ),
    (
        "TypeORM",
        "CREATE TABLE migrations (id INTEGER, timestamp INTEGER, name TEXT);"
        "INSERT INTO migrations VALUES (1, 1600000000000, 'Init1600000000000'),"
        " (2, 1700000000000, 'More1700000000000')",
        "",
        ("m/1600000000000-Init.ts", "m/1700000000000-More.ts", "m/1800000000000-New.ts"),
    ),
    (
        "Sequelize",
        "CREATE TABLE SequelizeMeta (name TEXT); INSERT INTO SequelizeMeta VALUES ('1-a.js'), ('2-b.js')",
        "",
        ("m/1-a.js", "m/2-b.js", "m/3-c.js"),
    ),
    (
        "sqlx",
        "CREATE TABLE _sqlx_migrations (version INTEGER, description TEXT, success INTEGER);"
        "INSERT INTO _sqlx_migrations VALUES (1, 'a', 1), (2, 'b', 1)",
        "INSERT INTO _sqlx_migrations VALUES (4, 'bad', 0)",
        ("m/0001_a.sql", "m/0002_b.sql", "m/0003_c.sql"),
    ),
    (
        "golang-migrate",
        "CREATE TABLE schema_migrations (version INTEGER, dirty INTEGER); INSERT INTO schema_migrations VALUES (2, 0)",
        "UPDATE schema_migrations SET dirty = 1",
        ("m/000001_a.up.sql", "m/000002_b.up.sql", "m/000003_c.up.sql"),
    ),
    (
        "schema_migrations",
        "CREATE TABLE schema_migrations (version TEXT); INSERT INTO schema_migrations VALUES ('0001'), ('0002')",
        "",
        ("m/0001_a.sql", "m/0002.sql", "m/0003_c.sql"),
    ),
    (
        "Entity Framework",
        "CREATE TABLE __EFMigrationsHistory (MigrationId TEXT, ProductVersion TEXT);"
        "INSERT INTO __EFMigrationsHistory VALUES ('20200101_A', '8'), ('20210101_B', '8')",
        "",
        ("m/20200101_A.cs", "m/20210101_B.cs", "m/20220101_C.cs"),
    ),
]  # fmt: skip


def look(directory: Path, *statements: str) -> DatabaseProbe:
    with sqlite3.connect(directory / "rows.db") as database:
        for statement in statements:
            database.executescript(statement)
    database.close()
    config = DatabaseConfig(dsn=SecretStr(f"sqlite:///{directory}/rows.db"), timeout=10)
    return DatabaseLook(config)(DatabaseProbeRequest(), directory)


def found(probe: DatabaseProbe, *files: str, **wanted: object) -> list[tuple[str, str]]:
    promised = DatabaseSection.model_validate(wanted)
    return [(finding.severity, finding.text) for finding in database_findings(promised, probe, files, 3)][:-1]


@pytest.mark.parametrize(("tool", "ended", "failing", "files"), KNOWN, ids=[tool for tool, *_ in KNOWN])
def test_each_tools_record_is_read(
    tmp_path: Path, tool: str, ended: str, failing: str, files: tuple[str, str, str]
) -> None:
    probe = look(tmp_path, ended)
    assert (probe.ok, probe.migrations_by, probe.failed_migrations) == (True, tool, [])
    assert found(probe, *files[:2]) == []
    ((severity, text),) = found(probe, *files)
    assert (severity, text) == ("high", f"1 of 3 migrations were not applied: {files[2]}; migrate it")
    if failing:
        probe = look(tmp_path, failing)
        assert len(probe.failed_migrations) == 1
        assert ("high", "1 migrations began and failed") in [(s, t.partition(":")[0]) for s, t in found(probe)]


def test_what_is_not_known_is_not_said_to_be_missing(tmp_path: Path) -> None:
    probe = look(tmp_path, "CREATE TABLE my_own_log (step TEXT)")
    assert (probe.migrations_by, probe.tables) == ("", 1)
    ((severity, text),) = found(probe, "m/1.sql", "m/2.sql")
    assert (severity, text.startswith("whether 2 migrations were applied cannot be told")) == ("medium", True)
    ((severity, text),) = found(probe, migration="2")
    assert (severity, text.startswith("whether migration 2 was applied cannot be told")) == ("medium", True)


def test_an_empty_database_is_not_migrated(tmp_path: Path) -> None:
    probe = look(tmp_path)
    assert probe.tables == 0
    assert [severity for severity, _ in found(probe, "m/1.sql", migration="1")] == ["high", "high"]


def test_a_table_of_that_name_that_is_another_is_not_taken_for_a_record(tmp_path: Path) -> None:
    probe = look(tmp_path, "CREATE TABLE migrations (bird TEXT, from_where TEXT)")
    assert (probe.migrations_in, probe.migrations) == ("", [])
