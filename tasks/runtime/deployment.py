"""Give a flow the deployment that it works on: the record, and the two servers between which it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ashat.client.node import NodeClient
from ashat.deployment.events import AnyEvent
from ashat.deployment.state_machine import State
from ashat.ledger.ledger import Ledger
from blocks.server import RaosServer
from tasks.runtime.connections import Connections, this_run


class Deployment:
    """One attempt of an update, with the connections of the run that works on it."""

    def __init__(self, connections: Connections, state: State) -> None:
        self.update_id = state.update_id
        self.attempt = state.attempt
        self.public_name = state.public
        self.target_name = state.target
        self.the_public = state.the_public
        self.the_target = state.the_target
        self._connections = connections

    @property
    def ledger(self) -> Ledger:
        """The record of all deployments."""
        return self._connections.ledger

    @property
    def state(self) -> State:
        """The newest state, read from the ledger at each call: what others appended meanwhile counts."""
        return self.ledger.load(self.update_id, self.attempt)

    @property
    def public(self) -> NodeClient:
        """The Public Server that it is pushed to.

        Raises:
            NotConfiguredError: there is no such server.
        """
        return self._connections.client(self.public_name)

    @property
    def public_server(self) -> RaosServer:
        """The block that says where Public is."""
        return self._connections.server(self.public_name)

    @property
    def target(self) -> NodeClient:
        """The server that it goes to once it is approved.

        Raises:
            NotConfiguredError: there is no such server.
        """
        return self._connections.client(self.target_name)

    def server(self, which: Literal["public", "omega"]) -> RaosServer:
        """Find the block of Public, or of the target.

        Raises:
            NotConfiguredError: there is no such server.
        """
        return self._connections.server(self.public_name if which == "public" else self.target_name)

    def advance(self, decide: Callable[[State], AnyEvent | None]) -> State:
        """Append what `decide` makes of the newest state; see `Ledger.advance`."""
        return self.ledger.advance(self.update_id, self.attempt, decide)


def deployment(update_id: str, attempt: int | None = None) -> Deployment:
    """Find an attempt of an update (None or 0: the last), with the connections of the run that this code is part of.

    Raises:
        UnknownUpdateError: there is none.
    """
    opened = this_run()
    return Deployment(opened, opened.ledger.load(update_id, attempt or None))
