"""Send a bundle to Public, and from Public to the target. An upload that was cut goes on when it is asked again."""

from __future__ import annotations

from prefect.utilities.annotations import quote

from ashat.bundle.pack import Packed
from ashat.client.transfer import TransferReport
from ashat.common.failpoints import fault_point
from ashat.deployment.events import Pushed
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeError, NotConfiguredError, SessionError
from tasks.runtime.artifacts import ByteProgress
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami
from tasks.runtime.step import step


@step("upload", description="Send the Public Server what it lacks of the bundle, then the manifest.")
def upload(d: Deployment, packed: Packed) -> TransferReport:
    """Send a bundle to Public; when this returns, every byte is durable there.

    Raises:
        SourceChangedError: a file changed since it was packed.
        NodeError: the server does not take it, or is another kind of server than it was configured as.
    """
    with ByteProgress(f"upload-{packed.manifest.digest[:12]}") as progress:
        report = d.public.push_bundle(packed, progress=progress)
    fault_point("push.manifest-acknowledged")
    return report


@step("record-push", description="Write down that the Public Server runs the update.")
def record_pushed(d: Deployment) -> State:
    """Record that Public runs the update; once."""
    step = d.public.migrated(d.state.bundle)
    words = step.words if step else ""
    if words:
        reporter().say(f"{d.the_public}: its migrate step: {words}")
    event = Pushed(at=now(), by=whoami(), url=d.public.url, migrated=words)
    return d.advance(lambda newest: event if newest.stage is Stage.PLANNING else None)


@step("relay", description="Bring the verified bytes from the Public Server to the target.")
def relay(d: Deployment) -> TransferReport:
    """Copy the bundle that was verified on Public to the target, byte for byte; nothing is rebuilt.

    Raises:
        NodeError: one of the two servers does not play along, or is another kind than it was configured as.
        IntegrityError: Public sent bytes that do not match their digest.
    """
    bundle = d.state.bundle
    if bundle is None:
        raise SessionError(f"Deployment '{d.update_id}' has no bundle.")
    with ByteProgress(f"promote-{bundle[:12]}") as progress:
        report = d.public.relay_bundle(d.target, bundle, progress=progress)
    fault_point("promote.objects-relayed")
    return report


@step("drop-staged", description="Have the Public Server drop what came of an update that was called off.")
def drop_staged(d: Deployment) -> None:
    """Have Public drop what it was sent of a bundle that never came whole; a Public that does not answer drops it
    after a day by itself."""
    bundle = d.state.bundle
    if bundle is None:
        return
    try:
        d.public.abandon(bundle)
    except (NodeError, NotConfiguredError) as error:
        reporter().say(f"{d.state.the_public} keeps what it was sent for a day: {error}")


def uncopied(packed: Packed) -> Packed:
    """Quote `packed` as a task's parameter, so that Prefect does not walk through every file of it."""
    return quote(packed)  # type: ignore[return-value]  # Prefect unwraps it before the task sees it
