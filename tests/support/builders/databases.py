"""Databases of a real server, dropped afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from tests.support import needs


@contextmanager
def new_postgresql_database() -> Iterator[sa.URL]:
    """Make an empty PostgreSQL database; the URL that leads to it."""
    name = f"ashat_test_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(needs.POSTGRESQL_ADMIN, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    try:
        yield sa.make_url(needs.POSTGRESQL_ADMIN).set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database {name} with (force)"))
        admin.dispose()
