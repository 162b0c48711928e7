"""Which migrations a database had, by the tables in which the tools that are known here keep their record."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

ROWS = 10_000

# What a row says: a version, and whether it was applied; None: it was taken back. False: it began and failed.
_Row = tuple[str, bool | None]


@dataclass(frozen=True)
class Tool:
    """A tool that migrates databases: its table, the columns that `read` takes, and the one that orders the rows ("":
    the versions order themselves)."""

    name: str
    table: str
    columns: tuple[str, ...]
    order: str
    read: Callable[[Sequence[Any]], _Row]


@dataclass(frozen=True)
class Record:
    """What a table says: `tool` and `table` are "" where none is known; `newest` is None where none was applied."""

    tool: str = ""
    table: str = ""
    applied: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    newest: str | None = None


def _version(row: Sequence[Any]) -> _Row:
    return str(row[0]), True


def _version_and_success(row: Sequence[Any]) -> _Row:
    return str(row[0]), bool(row[1])


def _goose(row: Sequence[Any]) -> _Row:
    return str(row[0]), True if row[1] else None


def _liquibase(row: Sequence[Any]) -> _Row:
    return str(row[0]).rpartition("/")[2], str(row[1]) != "FAILED"


def _prisma(row: Sequence[Any]) -> _Row:
    name, finished, taken_back = row
    return str(name), None if taken_back is not None else finished is not None


# Each as its own documentation or source has it; a table that two tools use is told apart by its columns.
TOOLS = (
    Tool("Django", "django_migrations", ("app", "name"), "id", lambda row: (f"{row[0]}.{row[1]}", True)),
    Tool("Flyway", "flyway_schema_history", ("script", "success"), "installed_rank", _version_and_success),
    Tool("Liquibase", "databasechangelog", ("filename", "exectype"), "orderexecuted", _liquibase),
    Tool("Prisma", "_prisma_migrations", ("migration_name", "finished_at", "rolled_back_at"), "started_at", _prisma),
    Tool("Knex", "knex_migrations", ("name",), "id", _version),
    Tool("goose", "goose_db_version", ("version_id", "is_applied"), "id", _goose),
    Tool("Laravel", "migrations", ("migration", "batch"), "id", _version),
    Tool("TypeORM", "migrations", ("timestamp", "name"), "id", _version),
    Tool("Sequelize", "SequelizeMeta", ("name",), "name", _version),
    Tool("sqlx", "_sqlx_migrations", ("version", "success"), "version", _version_and_success),
    Tool("golang-migrate", "schema_migrations", ("version", "dirty"), "", lambda row: (str(row[0]), not row[1])),
    Tool("schema_migrations", "schema_migrations", ("version",), "", _version),
    Tool("Alembic", "alembic_version", ("version_num",), "", _version),
    Tool("Entity Framework", "__EFMigrationsHistory", ("MigrationId",), "", _version),
)


def find_tool(tables: Mapping[str, str], columns_of: Callable[[str], set[str]]) -> tuple[Tool, str] | None:
    """Find the tool that keeps its record here, and its table as it is spelled here; None where none is known.

    `tables` gives each table by its name in lower case, `columns_of` the columns of one, in lower case.
    """
    for tool in TOOLS:
        there = tables.get(tool.table.lower())
        if there is not None and {column.lower() for column in tool.columns} <= columns_of(there):
            return tool, there
    return None


def read_record(
    connection: sa.Connection,
    rolled_back: Callable[[sa.Connection], AbstractContextManager[None]],
    tool: Tool,
    table: str,
) -> Record:
    """Read what the table says.

    Raises:
        SQLAlchemyError: it cannot be read.
    """
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in tool.columns]
    wanted = sa.select(*columns).select_from(sa.table(table)).limit(ROWS)
    if tool.order:
        wanted = wanted.order_by(sa.column(tool.order).desc())
    with rolled_back(connection):
        rows = [tool.read(row) for row in connection.execute(wanted).all() if row[0] is not None]
    last = dict(reversed(rows)) if tool.order else dict(rows)
    applied = [version for version, done in last.items() if done]
    if not tool.order:
        applied.sort(key=natural)
    return Record(
        tool.name,
        table,
        tuple(dict.fromkeys(applied)),
        tuple(version for version, done in last.items() if done is False),
        applied[-1] if applied else None,
    )


def natural(version: str) -> list[tuple[int, int | str]]:
    """Order versions as people count: 2 before 10."""
    return list(_parts(version))


def _parts(version: str) -> Iterator[tuple[int, int | str]]:
    for part in re.findall(r"[0-9]{1,1000}|[^0-9]+", version):
        yield (0, int(part)) if part.isascii() and part.isdigit() else (1, part)
