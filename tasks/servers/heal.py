"""Bring back what a server's store lost of what it runs, by digest, from another server that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ashat.client.node import NodeClient
from ashat.client.transfer import missing
from ashat.errors import AshatError, NodeFaultError, NodeRefusedError, SessionError
from ashat.protocol.messages import LostBundle, NodeState

Say = Callable[[str], None]


def heal(server: NodeClient, sources: Iterable[NodeClient], say: Say) -> int:
    """Copy to `server` each bundle that its store lost, from the first of `sources` that holds it; how many there were.

    Raises:
        SessionError: nobody holds one of them, or a server did not play along; the message says why.
        NodeError: `server` does not answer.
    """
    sources, all_lost = list(sources), find_lost(server)
    for lost in all_lost:
        say(f"{server.name} lost {lost.words}")
        source = _from_one_of(sources, server, lost)
        say(f"{source.name} had it: every byte is back on {server.name}, verified by its digest")
    return len(all_lost)


@dataclass(frozen=True)
class Lost:
    """A bundle of which `server` lost parts: how it is `named`, and `what` of it."""

    bundle: str
    named: str
    what: str

    @property
    def words(self) -> str:
        """Say what was lost."""
        return f"{self.what} of {self.named}"


def find_lost(server: NodeClient) -> list[Lost]:
    """Ask now what the server's store lacks of what it runs and of what it ran before."""
    state = server.state()
    return [
        Lost(each.bundle, f"{_update(state, each)} (bundle {each.bundle[:12]}), which {each.why} there", _what(each))
        for each in _look(server, state)
    ]


def _look(server: NodeClient, state: NodeState) -> Iterator[LostBundle]:
    releases: dict[str, Literal["runs", "ran before"]] = {}
    if state.current:
        releases[state.current.bundle] = "runs"
    if state.previous:
        releases.setdefault(state.previous.bundle, "ran before")
    for bundle, why in releases.items():
        try:
            absent = len(missing(server.transport, server.manifest(bundle).objects))
        except (NodeRefusedError, NodeFaultError) as error:
            if error.status not in (404, 500):  # it is not there, or it is damaged
                raise
            yield LostBundle(bundle=bundle, why=why)
        else:
            if absent:
                yield LostBundle(bundle=bundle, why=why, objects=absent)


def _from_one_of(sources: list[NodeClient], server: NodeClient, lost: Lost) -> NodeClient:
    reasons = []
    for source in sources:
        try:
            source.relay_bundle(server, lost.bundle)
        except AshatError as error:
            reasons.append(str(error))
        else:
            return source
    raise SessionError(
        f"Nobody has {lost.named}: {' '.join(reasons) or 'no other server is configured.'} Push the same tree again "
        "(deploy push)."
    )


def _update(state: NodeState, lost: LostBundle) -> str:
    known = (release for release in (state.current, state.previous) if release and release.bundle == lost.bundle)
    return next((release.update_id for release in known), "a release")


def _what(lost: LostBundle) -> str:
    return "all" if lost.objects is None else f"{lost.objects} objects"
