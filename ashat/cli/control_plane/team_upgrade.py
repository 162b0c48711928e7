"""Bring a team's two databases to this version, one process at a time, or say in a line why that cannot be."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ashat import __version__
from ashat.cli.control_plane.prefect_schema import installed_chain, read_stamp, schema_fault
from ashat.cli.control_plane.team import DATABASE
from ashat.cli.control_plane.versions import installed_version
from ashat.common.processes import python_module
from ashat.common.text import last_line
from ashat.errors import ControlPlaneError
from ashat.ledger.ledger import Ledger
from ashat.settings import Settings

# In the ledger: the versions of ASHAT Deploy and Prefect that the databases were brought to last.
INSTALLED: Final = "installed"
_WHAT = "Prefect's database"
_LOCK: Final = 4_127_302
_SECONDS = 3600.0


def upgrade_databases(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """Bring the ledger and Prefect's database to this version; yield a line for each.

    Raises:
        LedgerError: the ledger does not open, or a newer version wrote it.
        ControlPlaneError: Prefect's database does not answer, or is of a newer Prefect, or its migration failed.
    """
    with Ledger.configured(migrate=True) as ledger:
        chain, wrote = installed_chain("postgresql"), _wrote(ledger)
        yield f"✅ The ledger is ready for ASHAT Deploy {__version__}."
        with _alone(environment[DATABASE]):
            found = read_stamp(environment[DATABASE])
            if found is not None and not (len(found) == 1 and found[0] in chain.known):
                raise ControlPlaneError(schema_fault(found, chain, what=_WHAT, wrote=wrote, upgrade=""))
            done = found == [chain.head] and ledger.newest(INSTALLED) == _versions()
            if not done:
                _migrate(settings, environment)
                ledger.put_newest(INSTALLED, _versions())
        did = "has it already" if done else "has it now"
        yield f"✅ Prefect's database: schema {chain.head} of Prefect {chain.version}; it {did}."


def require_schemas(environment: Mapping[str, str], upgrade: str) -> None:
    """Check that both databases have this version's schema.

    Raises:
        LedgerError: the ledger does not open, or another version's.
        ControlPlaneError: Prefect's database does not answer, or is another version's.
    """
    with Ledger.configured() as ledger:
        wrote = _wrote(ledger)
    chain = installed_chain("postgresql")
    if fault := schema_fault(read_stamp(environment[DATABASE]), chain, what=_WHAT, wrote=wrote, upgrade=upgrade):
        raise ControlPlaneError(fault)


def _versions() -> dict[str, str]:
    return {"ashat": __version__, "prefect": installed_version()}


def _wrote(ledger: Ledger) -> str:
    return str((ledger.newest(INSTALLED) or {}).get("prefect", ""))


def _migrate(settings: Settings, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        python_module("ashat.cli.control_plane.prefect_migration"),
        env=dict(environment),
        cwd=settings.ensure_home(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        reason = last_line(done.stderr, "no reason was given.")
        raise ControlPlaneError(f"{_WHAT} was not migrated: {reason}")


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Keep others from migrating the database at `url` meanwhile; wait for one that does."""
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": 10},
        poolclass=sa.NullPool,
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
            yield
    except DBAPIError as error:
        words = str(error.orig).strip().splitlines() or ["no reason was given"]
        raise ControlPlaneError(f"{_WHAT} does not answer: {words[0].rstrip('.')}.") from None
