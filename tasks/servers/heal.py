"""Bring back what a server's store lost of what it runs, by digest, from another server that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ashat.client.node import NodeClient
from ashat.errors import AshatError, SessionError
from ashat.protocol.messages import LostBundle, NodeState

Say = Callable[[str], None]


def heal(server: NodeClient, sources: Iterable[NodeClient], say: Say) -> int:
    """Copy to `server` each bundle that its store lost, from the first of `sources` that holds it; how many there were.

    Raises:
        SessionError: nobody holds one of them, or a server did not play along; the message says why.
        NodeError: `server` does not answer.
    """
    state, sources = server.state(), list(sources)
    for lost in state.store.lost:
        named = f"{_update(state, lost)} (bundle {lost.bundle[:12]}), which {lost.why} there"
        say(f"{server.name} lost {_what(lost)} of {named}")
        source = _from_one_of(sources, server, lost.bundle, named)
        say(f"{source.name} had it: every byte is back on {server.name}, verified by its digest")
    return len(state.store.lost)


def _from_one_of(sources: list[NodeClient], server: NodeClient, bundle: str, named: str) -> NodeClient:
    reasons = []
    for source in sources:
        try:
            source.relay_bundle(server, bundle)
        except AshatError as error:
            reasons.append(str(error))
        else:
            return source
    raise SessionError(
        f"Nobody has {named}: {' '.join(reasons) or 'no other server is configured.'} Push the same tree again "
        "(deploy push)."
    )


def _update(state: NodeState, lost: LostBundle) -> str:
    known = (release for release in (state.current, state.previous) if release and release.bundle == lost.bundle)
    return next((release.update_id for release in known), "a release")


def _what(lost: LostBundle) -> str:
    return "all" if lost.objects is None else f"{lost.objects} objects"
