"""Look at what ends by itself on a server: its certificate, the token for it, and who approves there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from tuf.api.metadata import Root, Targets

from ashat.client.node import NodeClient, none_if_not_found
from ashat.client.probe import SOON, certificate_end
from ashat.errors import NodeAuthError, NodeRefusedError
from ashat.trust.tuf.metadata import parse
from tasks.runtime.run import now

EndingKind = Literal["certificate", "token", "root", "targets", "approval"]


class Ending(NamedTuple):
    """What ends within a month, or has ended: what it is, when, and what to do about it."""

    kind: EndingKind
    ends: datetime
    how: str

    @property
    def words(self) -> str:
        """Say so of its server."""
        verb = "ended" if self.ends <= now() else "ends"
        what = {"token": "the token for it", "approval": "the approval of what it offers"}
        return f"{what.get(self.kind, f'its {self.kind}')} {verb} at {self.ends:%Y-%m-%d %H:%M} UTC"


def endings(server: str, node: NodeClient) -> list[Ending]:
    """List what ends within a month on the server that is configured as `server`; only what its token opens is looked
    at.

    Raises:
        NodeError: it does not answer.
        TrustError: what it keeps of who approves cannot be read.
    """
    return [found for found in (*_certificate(node), *_token(server, node), *_trust(node)) if found.ends - now() < SOON]


def _certificate(node: NodeClient) -> Iterator[Ending]:
    with node.transport.answer("GET", "/v1/identity") as response:
        ends = certificate_end(response)
    if ends is not None:
        yield Ending("certificate", ends, "renew it there, and restart the node")


def _token(server: str, node: NodeClient) -> Iterator[Ending]:
    try:
        info = none_if_not_found(node.token)
    except NodeAuthError:
        return  # what that is called stands elsewhere: the first thing that it is used for fails
    if info is not None and info.expires is not None:
        how = f"ashat-node token rotate {info.id} there, then deploy configure ({server})"
        yield Ending("token", info.expires, how)


def _trust(node: NodeClient) -> Iterator[Ending]:
    try:
        trust = none_if_not_found(node.trust)
    except (NodeAuthError, NodeRefusedError):
        return  # a Public Server keeps none, and a dev's token does not open it
    if trust is None:
        return
    if trust.root is not None:
        yield Ending("root", parse(trust.root.encode(), Root, "its root").signed.expires, "deploy trust renew")
    if trust.targets is not None:
        ends = parse(trust.targets.encode(), Targets, "its targets").signed.expires
        yield Ending("targets", ends, "deploy trust renew")
    if trust.production is not None:
        ends = parse(trust.production.encode(), Targets, "its approval").signed.expires
        yield Ending("approval", ends, "approve a release anew, such as the same bundle under a new id")
