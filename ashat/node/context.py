"""What the parts of one running node share, and where the parts of one role plug in.

`open_node` builds it; a route gets it with `Context` as the type of a parameter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from fastapi import Depends, FastAPI
from filelock import FileLock, Timeout
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from ashat.common.shortage import reason
from ashat.errors import UsageError
from ashat.node.access.tokens import TokenFile, follow_in
from ashat.node.app_process.health import Health
from ashat.node.app_process.migrate import MigrationProcess
from ashat.node.app_process.process import HookedProgram, Program
from ashat.node.app_process.slots import SlottedProgram
from ashat.node.app_process.supervisor import SupervisedProgram
from ashat.node.app_process.user import ProgramUser, keep_apart, program_user
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import RECORD_FILE, Database
from ashat.node.core.metrics import Metrics
from ashat.node.logs import change_log
from ashat.node.logs.access_log import DIRECTORY, AccessLog
from ashat.node.logs.change_log_proofs import ChangeLogProofs
from ashat.node.operations import lease, records
from ashat.node.operations.migrations import Migrations
from ashat.node.operations.operations import Operations
from ashat.node.operations.switcher import Switcher
from ashat.node.store.inventory import Inventory
from ashat.node.store.releases import Releases
from ashat.node.store.reserve import Reserve
from ashat.node.store.room import Room
from ashat.node.store.store import Store
from ashat.protocol.messages import MainframeStatus, Offer

LOCK_FILE = "node.lock"


class Service(Protocol):
    """Something that works in the background while the node serves, in a thread from its start on."""

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, None before the start."""

    def start(self) -> None:
        """Begin; return at once."""

    def stop(self) -> None:
        """End, within a few seconds."""


def _nothing_offered() -> Offer | None:
    return None


def _nothing_around(app: FastAPI) -> ASGIApp:
    return app


def _no_agent() -> MainframeStatus | None:
    return None


@dataclass
class NodeContext:
    """One running node.

    A role's part (`ashat.node.omega.install`, `ashat.node.mainframe.agent.install`) adds its routes to the application
    and here: rules with `operations.add_rule`, `services` that run while the node serves, `offer` and `agent` for the
    state's fields of those names, `around` what answers some requests past the application, `keep` functions naming
    bundles that the store must not drop, and `at_end` what is closed when all else has ended. `stopping` is set as soon
    as the node was told to stop: who waits, stops waiting. `leaves_program` says that its program goes on then.
    """

    config: NodeConfig
    db: Database
    store: Store
    tokens: TokenFile
    access_log: AccessLog
    proofs: ChangeLogProofs
    metrics: Metrics
    releases: Releases
    program: Program
    health: Health
    operations: Operations
    stopping: threading.Event
    reserve: Reserve
    inventory: Inventory
    room: Room
    at_end: ExitStack
    leaves_program: bool = False
    services: list[Service] = field(default_factory=list)
    offer: Callable[[], Offer | None] = _nothing_offered
    agent: Callable[[], MainframeStatus | None] = _no_agent
    around: Callable[[FastAPI], ASGIApp] = _nothing_around
    keep: list[Callable[[], Iterable[str]]] = field(default_factory=list)

    def ended_threads(self) -> list[str]:
        """List the services whose thread has ended, although the node was not told to stop."""
        threads = [service.thread for service in self.services if service.thread is not None]
        ended = [thread.name for thread in threads if thread.ident is not None and not thread.is_alive()]
        return [] if self.stopping.is_set() else ended


@contextmanager
def open_node(config: NodeConfig) -> Iterator[NodeContext]:
    """Open the node whose data is in `config.data`, for this process alone, until the block ends; nothing runs yet.

    Raises:
        UsageError: another process has it, it is another role's, or the directory cannot be used.
        AshatError: the record or the store cannot be opened.
    """
    with ExitStack() as stack:
        _lock(stack, config)
        user = program_user(config)
        if user is not None:
            keep_apart(config, user)
        reserve = Reserve(config.data / "reserve")
        db = reserve.spend(lambda: Database(config.data / RECORD_FILE, spend=reserve.spend))
        stack.callback(db.close)
        _check_owner(config, db)
        reserve.spend(lambda: lease.resume(db))
        change_log.begin(db)
        access_log = AccessLog(config.data / DIRECTORY)
        stack.callback(access_log.close)
        names = config.windows_names
        store = stack.enter_context(reserve.spend(lambda: Store(config.data / "store", windows_names=names)))
        releases = Releases(config.data, store, read_only=user is not None)
        room = Room(store, releases)
        program = reserve.spend(lambda: _program(config, db, user, reserve))
        health, metrics = Health(config.app, program), Metrics()
        stopping = threading.Event()
        migrations = Migrations(config, db, MigrationProcess(config, db, user, stopping))
        switcher = Switcher(config, db, releases, program, health, migrations, reserve)
        reserve.restore()  # before anything is asked of the node
        yield NodeContext(
            config=config,
            db=db,
            store=store,
            tokens=TokenFile(config.tokens_path, follow_in(db)),
            access_log=access_log,
            proofs=ChangeLogProofs(db, config.data),
            metrics=metrics,
            releases=releases,
            program=program,
            health=health,
            operations=Operations(config, db, store, switcher, metrics),
            stopping=stopping,
            reserve=reserve,
            at_end=stack.enter_context(ExitStack()),
            room=room,
            inventory=Inventory(store, releases, room, lambda: records.needed(db)),
        )


def _lock(stack: ExitStack, config: NodeConfig) -> None:
    try:
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(FileLock(config.data / LOCK_FILE, timeout=0, mode=0o600, thread_local=False))
    except Timeout:
        raise UsageError(
            f"Another node runs on {config.data}; stop it first, or give this one a --data of its own."
        ) from None
    except OSError as error:
        raise UsageError(f"The data directory {config.data} cannot be used: {reason(error)}.") from None


def _check_owner(config: NodeConfig, db: Database) -> None:
    owner = db.get_meta("role")
    if owner is None:
        db.set_meta("role", config.role)
    elif owner != config.role:
        raise UsageError(
            f"{config.data} holds the data of a node of the role {owner}; give the {config.role} a --data of its own."
        )


def context_of(connection: HTTPConnection) -> NodeContext:
    """Return the node that serves this request."""
    context: NodeContext = connection.app.state.context
    return context


Context = Annotated[NodeContext, Depends(context_of)]


def _program(config: NodeConfig, db: Database, user: ProgramUser | None, reserve: Reserve) -> Program:
    if config.slots.ports:
        return SlottedProgram(config, db, user, reserve.spend)
    if config.app.supervises:
        return SupervisedProgram(config, db, user)
    return HookedProgram(config, db, user) if config.app.hook else Program()
