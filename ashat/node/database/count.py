"""Counts the rows of a database's tables, and the values in their columns, within limits of number and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from ashat.node.database.dialects import Dialect
from ashat.protocol.probes import CountedTable, DatabaseCount

TABLES_LIMIT = 200
COLUMNS_LIMIT = 100
NAMES_LIMIT = 2_000
NAME_LIMIT = 200
_REASONS_LIMIT = 50
_OUT_OF_TIME = "the time for counting was over"


@dataclass
class TableCount:
    """Counts over an open connection until `ends`, on `time.monotonic()`. `why` says why a statement was refused.

    Each table is read once, by one statement.
    """

    connection: sa.Connection
    kind: Dialect
    ends: float
    why: Callable[[SQLAlchemyError], str]

    def count(self, tables: Mapping[str, Any]) -> DatabaseCount:
        """Count `tables`, in their order; what is not counted is named with the reason."""
        counted: list[CountedTable] = []
        uncounted: dict[str, str] = {}
        short = {name: table for name, table in tables.items() if len(name) <= NAME_LIMIT}
        for name, table in short.items():
            left = self.ends - time.monotonic()
            if len(counted) + len(uncounted) >= TABLES_LIMIT:
                uncounted[name] = f"only {TABLES_LIMIT} tables are counted"
            elif left <= 0:
                uncounted[name] = _OUT_OF_TIME
            else:
                try:
                    counted.append(self._table(name, table, left))
                except SQLAlchemyError as error:
                    uncounted[name] = _OUT_OF_TIME if time.monotonic() >= self.ends else self.why(error)
        return DatabaseCount(
            names=list(short)[:NAMES_LIMIT],
            tables=counted,
            uncounted=dict(list(uncounted.items())[:_REASONS_LIMIT]),
            more_uncounted=max(len(uncounted) - _REASONS_LIMIT, 0) + len(tables) - len(short),
        )

    def _table(self, name: str, table: Any, seconds: float) -> CountedTable:
        with self.kind.counting(self.connection, seconds):
            found = sa.inspect(self.connection).get_columns(table.name, schema=table.schema)
            columns = [column for column in found if len(column["name"]) <= NAME_LIMIT][:COLUMNS_LIMIT]
            values = [_values(column) for column in columns]
            asked = [value for value in values if value is not None]
            row = self.connection.execute(sa.select(sa.func.count(), *asked).select_from(table)).one()
        rows, counts = int(row[0]), iter(row[1:])
        filled = {
            column["name"]: rows if value is None else int(next(counts))
            for column, value in zip(columns, values, strict=True)
        }
        return CountedTable(name=name, rows=rows, columns=filled)


def _values(column: Any) -> Any:
    """What counts a column's values; None where each row has one."""
    named: sa.ColumnClause[Any] = sa.column(column["name"])
    kind = column["type"]
    if isinstance(kind, sa.String) and not isinstance(kind, sa.Enum):
        return sa.func.count(sa.func.nullif(named, ""))
    return sa.func.count(named) if column.get("nullable", True) else None
