"""Bytes to Public, and from Public to the target. Asking again is how an upload goes on after a cut."""

from __future__ import annotations

from prefect.utilities.annotations import quote

from ashat.bundle.pack import Packed
from ashat.client.transfer import TransferReport
from ashat.common.failpoints import fault_point
from ashat.deployment.events import Pushed
from ashat.deployment.state_machine import Stage, State
from ashat.errors import SessionError
from blocks.server import load_server
from tasks.runtime.artifacts import ByteProgress
from tasks.runtime.ledger import ledger, now, whoami
from tasks.runtime.step import step


@step("upload", description="Send the Public Server what it lacks of the bundle, then the manifest.")
def upload(server: str, packed: Packed) -> TransferReport:
    """Bring a bundle to a server; when this returns, every byte is durable there.

    Raises:
        SourceChangedError: a file changed since it was packed.
        NodeError: the server does not take it, or is another kind of server than it was configured as.
    """
    with load_server(server).client() as node, ByteProgress(f"upload-{packed.manifest.digest[:12]}") as progress:
        report = node.push_bundle(packed, progress=progress)
    fault_point("push.manifest-acknowledged")
    return report


@step("record-push", description="Write down that the Public Server runs the update.")
def record_pushed(update_id: str, attempt: int) -> State:
    """Write down that Public runs the update; once."""
    with ledger() as record:
        state = record.load(update_id, attempt)
        url = load_server(state.public).url
        return record.advance(
            update_id,
            attempt,
            lambda newest: Pushed(at=now(), by=whoami(), url=url) if newest.stage is Stage.PLANNING else None,
        )


@step("relay", description="Bring the verified bytes from the Public Server to the target.")
def relay(update_id: str, attempt: int) -> TransferReport:
    """Bring the bundle that was verified on Public to the target, byte for byte; nothing is rebuilt.

    Raises:
        NodeError: one of the two servers does not play along, or is another kind than it was configured as.
        IntegrityError: Public sent bytes that do not match their digest.
    """
    with ledger() as record:
        state = record.load(update_id, attempt)
    if state.bundle is None:
        raise SessionError(f"Deployment '{update_id}' has no bundle.")
    with (
        load_server(state.public).client() as public,
        load_server(state.target).client() as target,
        ByteProgress(f"promote-{state.bundle[:12]}") as progress,
    ):
        report = public.relay_bundle(target, state.bundle, progress=progress)
    fault_point("promote.objects-relayed")
    return report


def uncopied(packed: Packed) -> Packed:
    """`packed` for a task's parameter, so that Prefect does not walk through every file of it."""
    return quote(packed)  # type: ignore[return-value]  # Prefect unwraps it before the task sees it
