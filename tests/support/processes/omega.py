"""What tests do with an OMEGA: decide, promote, roll back, offer, licence."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ashat.bundle.pack import pack_directory
from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id, new_key
from ashat.protocol.fleet import Mainframe
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Current, Decision, Offer, Operation, OperationRequest
from tests.support.processes.node import NodeProcess, push, tiny_bundle

_names = itertools.count(1)
_Found = TypeVar("_Found")


def decide(bundle: str, *, expected: str | None, seq: int, update: str = "UPD-1", **changes: Any) -> Decision:
    """An approval of `bundle` for an OMEGA that runs `expected`; `changes` replace its fields."""
    fields = {
        "id": f"decision-{next(_names)}",
        "decision": "approve",
        "update_id": update,
        "attempt": 1,
        "bundle": bundle,
        "evidence": "e" * 64,
        "target": "omega",
        "expected_current": expected,
        "release_seq": seq,
        "approver": "kim",
        "at": datetime.now(UTC),
    }
    return Decision.model_validate({**fields, **changes})


def promotion(decision: Decision, /, **changes: Any) -> OperationRequest:
    """The promotion that `decision` is for; `changes` replace its fields."""
    fields = {
        "action": "promote",
        "bundle": decision.bundle,
        "expected_current": decision.expected_current,
        "update_id": decision.update_id,
        "attempt": decision.attempt,
        "decision": decision,
    }
    return OperationRequest.model_validate({**fields, **changes})


def revoke_licence(client: NodeClient, identity: str) -> Mainframe:
    """Have OMEGA honour the licence with that id no more."""
    return Mainframe.model_validate(client.transport.json("POST", f"/v1/licences/{identity}/revoke"))


def perform(client: NodeClient, request: OperationRequest, operation_id: str = "") -> Operation:
    """Have the node carry it out, and wait for its end."""
    identity = operation_id or f"op-{next(_names)}"
    client.start_operation(identity, request)
    return client.wait_operation(identity, timeout=180)


def promote(client: NodeClient, bundle: str, update: str = "UPD-1") -> Current:
    """Have OMEGA run `bundle`, under a sound decision."""
    state = client.state()
    expected = state.current.bundle if state.current else None
    decision = decide(bundle, expected=expected, seq=state.release_seq + 1, update=update)
    assert perform(client, promotion(decision)).status == "succeeded"
    return running(client)


def roll_back(client: NodeClient) -> Operation:
    """Have OMEGA run what it ran before."""
    state = client.state()
    assert state.current
    assert state.previous
    request = OperationRequest(
        action="rollback",
        bundle=state.previous.bundle,
        expected_current=state.current.bundle,
        update_id=state.previous.update_id,
        attempt=state.previous.attempt,
    )
    return perform(client, request)


def offer(client: NodeClient) -> Offer:
    """Have OMEGA offer what it runs."""
    current = running(client)
    return client.put_offer(Offer.model_validate(current, from_attributes=True))


def ship(client: NodeClient, source: Path, update: str = "UPD-1") -> Current:
    """Push, promote and offer a directory."""
    promote(client, push(client, source), update)
    offer(client)
    return running(client)


def running(client: NodeClient) -> Current:
    """What the node runs, which must be something."""
    current = client.state().current
    assert current
    return current


def licence(client: NodeClient, name: str = "Baker", expires: datetime | None = None) -> str:
    """A licence that OMEGA knows; its key."""
    key = new_key()
    client.put_licence(LicenceRequest(key=key, name=name, expires=expires))
    return key


def mainframe(client: NodeClient, key: str) -> Mainframe:
    """What OMEGA knows of the Mainframe with that key."""
    return next(known for known in client.mainframes() if known.id == licence_id(key))


def source(directory: Path, behaviour: str = "", **files: str) -> Path:
    """A tiny program of its own: no two directories make the same bundle."""
    return tiny_bundle(
        directory / f"source-{next(_names)}", behaviour, mark=str(directory) + str(next(_names)), **files
    )


def digest_of(directory: Path) -> str:
    """The bundle that the directory makes."""
    with pack_directory(directory) as packed:
        return packed.manifest.digest


def eventually(
    look: Callable[[], _Found | None], what: str, node: NodeProcess | None = None, seconds: float = 90
) -> _Found:
    """What `look` finds once it finds anything; an assertion error with the node's log after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds:g} s\n{node.log() if node else ''}"
        time.sleep(0.05)
    return found
