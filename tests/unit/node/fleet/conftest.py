from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.omega.fleet.database import FILE, FleetDatabase
from ashat.node.omega.fleet.fleet import Fleet
from tests.support.builders.databases import new_postgresql_database
from tests.support.needs import missing, required


@pytest.fixture(params=["sqlite", "postgresql"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """An empty fleet, which writes in groups."""
    with ExitStack() as stack:
        url: str | Path = tmp_path / FILE
        if request.param == "postgresql":
            if (why := missing("postgresql")) and "postgresql" not in required():
                pytest.skip(why)
            url = stack.enter_context(new_postgresql_database()).render_as_string(hide_password=False)
        record = Database(tmp_path / "node.db")
        stack.callback(record.close)
        change_log.begin(record)
        fleet = Fleet(FleetDatabase(url), record)
        stack.callback(fleet.close)
        fleet.database.start()
        yield fleet
