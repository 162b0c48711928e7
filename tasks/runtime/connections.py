"""Open the ledger, and one client a server, once a run, and keep them to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cached_property

from ashat.client.node import NodeClient
from ashat.errors import AshatError, NodeUnreachableError
from ashat.ledger.ledger import Ledger
from ashat.ledger.opening import open_ledger
from ashat.settings import Settings
from blocks.server import RaosServer, load_server

_KNOCK_SECONDS = 20.0
_open: ContextVar[Connections | None] = ContextVar("connections", default=None)


class Connections:
    """The ledger and the servers of a run, each opened when it is first asked for. Ledger and clients may be used by
    many threads."""

    def __init__(self, servers: Mapping[str, RaosServer] | None = None) -> None:
        """Ask `servers` by their names, whatever blocks are configured under these."""
        self._closing = ExitStack()
        self._servers = dict(servers or {})
        self._clients: dict[str, NodeClient] = {}
        self._silent: dict[str, str] = {}

    @cached_property
    def ledger(self) -> Ledger:
        """Open the ledger that the settings name.

        Raises:
            LedgerError: it does not open, or a newer version wrote it.
        """
        return self._closing.enter_context(open_ledger())

    def server(self, name: str) -> RaosServer:
        """Load the server block of that name.

        Raises:
            NotConfiguredError: there is none.
        """
        if name not in self._servers:
            self._servers[name] = load_server(name)
        return self._servers[name]

    def client(self, name: str) -> NodeClient:
        """Connect to the server of that name; only `close` closes the client.

        Raises:
            NotConfiguredError: there is no such server.
            NodeUnreachableError: it said nothing when this run knocked.
        """
        if name in self._silent:
            silent = NodeUnreachableError(self._silent[name])
            silent.transient = False
            raise silent
        if name not in self._clients:
            self._clients[name] = self._closing.enter_context(self.server(name).client())
        return self._clients[name]

    def knock(self, name: str) -> None:
        """Ask a server who it is, with little patience. Where it lets that pass in silence, this run asks it nothing
        more: a server that hangs would have each question and each retry wait for `read_timeout` anew."""
        settings = Settings()
        quick = settings.model_copy(update={"read_timeout": min(settings.read_timeout, _KNOCK_SECONDS)})
        began = time.monotonic()
        try:
            with self.server(name).client(quick) as client:
                client.identity()
        except NodeUnreachableError as error:
            if time.monotonic() - began >= min(quick.connect_timeout, quick.read_timeout):
                self._silent[name] = str(error)
        except AshatError:
            return  # whoever asks it for something is told why

    def close(self) -> None:
        """Close the ledger and every client."""
        self._closing.close()


@contextmanager
def connections(servers: Mapping[str, RaosServer] | None = None) -> Iterator[Connections]:
    """Use the connections of the run that this code is part of. If it is part of none, or `servers` are given, begin
    new ones, and close them with the `with` block.

    A task sees those of its flow: Prefect runs it in the flow's context, also in another thread.
    """
    shared = _open.get()
    if shared is not None and servers is None:
        yield shared
        return
    opened = Connections(servers)
    token = _open.set(opened)
    try:
        yield opened
    finally:
        _open.reset(token)
        opened.close()


def this_run() -> Connections:
    """Return the connections of the run that this code is part of.

    Raises:
        LookupError: it is part of none: what runs has to be within `connections()`.
    """
    opened = _open.get()
    if opened is None:
        raise LookupError("no run is under way whose connections could be used")
    return opened
