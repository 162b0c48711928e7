"""A ledger on PostgreSQL, copied and brought back with the commands that the guide shows, is the same record."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from ashat.deployment.stages import Stage
from ashat.ledger.ledger import Ledger
from tests.support.builders.deployments import record
from tests.support.drivers.doc_console import blocks
from tests.support.needs import requires_postgresql
from tests.support.processes.node import ROOT

SHOWN = "postgresql://ashat@db.example.com/ashat"


def shown(program: str) -> str:
    """The one command of the guide that begins with that program."""
    lines = [line for block in blocks((ROOT / "docs/guide.md").read_text("utf-8")) for line in block.lines]
    (line,) = [line for line in lines if line.startswith(f"{program} ")]
    return line


def plain(url: str) -> str:
    """The address as PostgreSQL's own programs take it."""
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@requires_postgresql
@pytest.mark.skipif(not shutil.which("pg_dump"), reason="there is no pg_dump on the PATH")
def test_a_dump_that_is_restored_is_the_same_record(postgresql_url: str, tmp_path: Path) -> None:
    with Ledger.open(postgresql_url) as ledger:
        for stage in (Stage.COMPLETED, Stage.AWAITING_APPROVAL, Stage.FAILED):
            record(ledger, f"UPD-{stage.value}", stage)
        before, head = ledger.summaries(), ledger.log_head()
    dump = shown("pg_dump").replace(SHOWN, plain(postgresql_url))
    subprocess.run(shlex.split(dump), cwd=tmp_path, check=True)
    engine = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    restore = shown("pg_restore").replace(SHOWN, plain(postgresql_url))
    done = subprocess.run(shlex.split(restore), cwd=tmp_path, capture_output=True, text=True, check=False)
    with Ledger.open(postgresql_url) as ledger:
        assert (ledger.summaries(), ledger.log_head()) == (before, head), done.stderr
        record(ledger, "UPD-next", Stage.PUSHED)
