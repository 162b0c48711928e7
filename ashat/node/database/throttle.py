"""Looks at the program's database one at a time, each for at most the configured time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ashat.common.files import open_files_as
from ashat.errors import UsageError
from ashat.node.core.config import DatabaseConfig
from ashat.protocol.probes import DatabaseProbe, DatabaseProbeRequest

if TYPE_CHECKING:
    from ashat.node.database.probe import Look

log = logging.getLogger("ashat.node")


class DatabaseLook:
    """Looks at one database, once at a time, for at most the configured time."""

    def __init__(self, config: DatabaseConfig, owner: tuple[int, int] | None = None) -> None:
        """`owner` is the program's user and group, as whom a SQLite database and what lies beside it are opened: the
        program can put anything there."""
        self._config = config
        self._owner = owner
        self._turn = threading.Lock()

    def __call__(
        self, request: DatabaseProbeRequest, app_data: Path, ports: Callable[[], frozenset[int]] = frozenset
    ) -> DatabaseProbe:
        """Look at what is there. Whatever goes wrong is in `detail`, without anything of the DSN.

        `ports` lists those from which the program has connections, where its sessions are asked for.
        """
        held = ports() if request.sessions else frozenset()
        ends = time.monotonic() + self._config.timeout
        try:
            dsn = self._config.read_dsn()
        except UsageError as error:
            return DatabaseProbe(ok=False, detail=str(error))
        if dsn is None:
            return DatabaseProbe(ok=False, detail="this node has no [database] dsn, so its operator must set one first")
        # With it comes SQLAlchemy, without which a node that has no database starts sooner.
        from ashat.node.database.probe import Look

        if not self._turn.acquire(timeout=self._config.timeout):
            return DatabaseProbe(ok=False, detail="the look before this one has not come back yet")
        found: Future[DatabaseProbe] = Future()
        look = Look(dsn.get_secret_value().replace("{data}", str(app_data)), self._config.timeout, held)
        threading.Thread(target=self._run, args=(found, look, request), name="database", daemon=True).start()
        try:
            return found.result(max(ends - time.monotonic(), 0.0))
        except TimeoutError:
            look.give_up()
            return DatabaseProbe(ok=False, detail=f"the database did not answer within {self._config.timeout:g} s")

    def _run(self, found: Future[DatabaseProbe], look: Look, request: DatabaseProbeRequest) -> None:
        try:
            if self._owner is not None and look.is_a_file:
                import_module("sqlalchemy.dialects.sqlite")  # while this thread can still read what is ours
                open_files_as(*self._owner)
            found.set_result(look.run(request))
        except Exception as error:  # noqa: BLE001 - a driver is anybody's code; its traceback may hold the password
            log.error("the look at the database broke: %s", type(error).__name__)  # noqa: TRY400
            found.set_result(DatabaseProbe(ok=False, detail=f"the look itself broke: {type(error).__name__}"))
        finally:
            self._turn.release()
