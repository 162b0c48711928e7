"""Brings Prefect's database to the schema of the installed Prefect, and registers its own blocks; run as a module.

API servers that start at once would do both at once, and all but one would end with an error.
"""

from __future__ import annotations

import asyncio
import sys

from prefect.server.database import provide_database_interface
from prefect.server.database.alembic_commands import alembic_upgrade
from prefect.server.models.block_registration import run_block_auto_registration
from prefect.utilities.asyncutils import run_sync_in_worker_thread


def main() -> int:
    """Migrate the database that Prefect's settings name; 1, with the reason in a line, where that fails."""
    try:
        asyncio.run(_migrate())
    except Exception as error:  # noqa: BLE001  whatever it is, whoever started this says it to a person
        words = str(getattr(error, "orig", None) or error).strip().splitlines()
        sys.stderr.write(f"{type(error).__name__}: {words[0] if words else 'no reason was given'}\n")
        return 1
    return 0


async def _migrate() -> None:
    await run_sync_in_worker_thread(alembic_upgrade)
    async with await provide_database_interface().session() as session:
        await run_block_auto_registration(session=session)


if __name__ == "__main__":
    raise SystemExit(main())
