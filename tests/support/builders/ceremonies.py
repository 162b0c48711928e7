"""An OMEGA, the people who sign for it, and a Mainframe that looks at what they signed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import Signer

from ashat.client.http import Transport
from ashat.client.node import NodeClient
from ashat.node.mainframe.offer_verifier import PATH
from ashat.protocol.messages import OperationRequest, Role, TrustMetadata
from ashat.trust.authority.authority import Authority
from ashat.trust.authority.key_change import Change
from ashat.trust.authority.pending_change import PendingChange
from ashat.trust.keys.files import OnlinePublicKeys
from ashat.trust.tuf.metadata import Roles
from ashat.trust.tuf.release_document import ReleaseDocument
from ashat.trust.update_client.client import ReleaseClient
from ashat.trust.update_client.fetcher import RemoteRepository
from tests.support.builders.signers import People
from tests.support.processes.node import NodeProcess, push, tiny_app
from tests.support.processes.omega import licence, offer, perform, source

APPROVAL_SECONDS = 30 * 86400.0


class Place:
    """One OMEGA below `directory` and its authority. Without `people` the one-person mode is set up."""

    def __init__(self, directory: Path, node: NodeProcess, omega: NodeClient, people: People | None) -> None:
        self.directory = directory
        self.node = node
        self.omega = omega
        self.people = people or People(machines=True)
        self.authority = Authority(directory / "home")
        self.pending = PendingChange(self.authority)
        online = OnlinePublicKeys.of(omega.trust().online)
        keys = [key.public_key for key in people.keys] if people else []
        machines = [key.public_key for key in self.people.machines]
        self.authority.init(
            keys,
            2 if people else 1,
            online=online,
            now=datetime.now(UTC),
            builders=machines[:1],
            verifiers=machines[1:],
        )
        for key in people.keys[:2] if people else []:
            self.authority.sign(key)
        held = self.authority.read()
        self.root = held.root.to_bytes()
        omega.put_trust(
            TrustMetadata(target="omega", root=self.root.decode(), targets=held.targets.to_bytes().decode())
        )
        self._licence = licence(omega)

    def plan(self, rearrange: Callable[[Roles], Roles]) -> Change:
        """A change of who holds what, begun."""
        change = self.pending.plan(
            self.omega.trust(), rearrange, now=datetime.now(UTC), approval_lifetime=APPROVAL_SECONDS
        )
        self.pending.begin(change)
        return change

    def change(self, rearrange: Callable[[Roles], Roles], *signers: Signer) -> None:
        """A change, signed by `signers` and put in force."""
        self.plan(rearrange)
        for signer in signers:
            self.pending.sign(signer)
        self.pending.publish(self.omega, "omega")

    def promotion(self, update: str, *signers: Signer) -> OperationRequest:
        """The promotion of a new bundle, as `signers` signed it."""
        bundle = push(self.omega, source(self.directory))
        return self.people.promotion(self.omega, bundle, update, *signers)[0]

    def release(self, update: str, *signers: Signer) -> None:
        """Have OMEGA run and offer a new bundle that `signers` signed."""
        operation = perform(self.omega, self.promotion(update, *signers))
        assert operation.status == "succeeded", operation
        offer(self.omega)

    @contextmanager
    def mainframe(self, cache: str = "cache") -> Iterator[ReleaseClient]:
        """A Mainframe's look, from the first root on; it remembers by `cache`."""
        with Transport(self.node.url, licence=self._licence, name="OMEGA") as transport:
            yield ReleaseClient(
                RemoteRepository(transport, PATH), self.directory / cache, root=self.root, target="omega"
            )

    def seen(self, cache: str = "cache") -> ReleaseDocument:
        """What that Mainframe would run."""
        with self.mainframe(cache) as client:
            return client.latest_release("stable")

    def new_online_keys(self) -> None:
        """What an operator types on OMEGA."""
        words = [sys.executable, "-m", "ashat.node", "trust-keys", "--new", "--data", str(self.node.data)]
        subprocess.run(words, check=True, capture_output=True, timeout=60)


@contextmanager
def place(directory: Path, people: People | None) -> Iterator[Place]:
    """An OMEGA whose trust is set up."""
    settings = {"unsigned_releases": False}
    with (
        NodeProcess(directory / "production", role=Role.OMEGA, app=tiny_app(), settings=settings) as node,
        node.client() as omega,
    ):
        yield Place(directory, node, omega, people)
