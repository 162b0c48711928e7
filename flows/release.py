"""Push a source, verify it and open the gate in one run: for schedules and one-click runs."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.runtime import flow_run
from prefect.states import Completed

from ashat.deployment.state_machine import Stage, State
from flows._forms import (
    AllowDirty,
    Description,
    Info,
    NewUpdateId,
    PolicyName,
    PublicName,
    SourceName,
    TargetName,
    Unanswered,
)
from flows._runs import ending, report_refusals, sleep_while_closed
from flows.cancel import cancel_update
from flows.push import deliver, switch_once_open
from flows.verify import verify_update
from tasks.push.package import PushRequest, begun_by_this_run, check_free, must_push, package, source_tree
from tasks.runtime.connections import this_run
from tasks.runtime.deployment import deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami
from tasks.runtime.slots import MISSED, stood_for
from tasks.runtime.update_runs import label_run


def _name() -> str:
    """Call the run by its update, or by its source until the update has an id."""
    given = flow_run.parameters
    return f"release {given.get('update_id') or 'of ' + str(given.get('source'))}"


@flow(
    name="release",
    flow_run_name=_name,
    description="Push a source, verify it, and open the gate.",
)
@report_refusals
def release(
    update_id: NewUpdateId = "",
    description: Description = "",
    unanswered: Unanswered = "keep",
    allow_dirty: AllowDirty = False,
    info: Info = "",
    source: SourceName = "raos",
    public: PublicName = "public",
    target: TargetName = "omega",
    policy: PolicyName = "",
) -> PrefectState[Any]:
    """Release a source up to the gate; where nothing changed since the last release of it, say so and end. Of the slots
    of a schedule that passed while no worker was there, one run stands for all; the others end as Missed.

    Args:
        update_id: A new id; empty: made of the source, the date and the bundle.
        description: What the update brings, in a line.
        unanswered: What becomes of earlier releases of this source that still wait at their gates. keep: they go on
            waiting, beside this one. supersede: they are cancelled, once this one is verified and waits at its gate.
        allow_dirty: Pack a tree that has uncommitted changes.
        info: Anything else worth knowing.
        source: The name of the RaOS Source block to pack.
        public: The name of the Public Server's block.
        target: Where it goes once approved: the name of OMEGA's block.
        policy: The RaOS Verification Policy block; empty: the one called default.
    """
    state = begun_by_this_run(update_id)
    if state is None and (began := stood_for()):
        return Completed(name=MISSED, message=f"The run of {began:%Y-%m-%d %H:%M:%S} UTC stands for this slot.")
    if state is not None and state.sent:
        state = switch_once_open(deployment(state.update_id, state.attempt))
    elif state is None or must_push(state):
        with source_tree(source, allow_dirty=allow_dirty) as origin:
            packed = package(origin)
            digest = packed.packed.manifest.digest
            if state is None and not update_id and (unchanged := _unchanged(source, target, digest)):
                packed.packed.close()
                return _nothing_to_do(unchanged)
            name = update_id or (state.update_id if state else _free_name(source, digest))
            check_free(name, resume=False)
            label_run(name)
            request = PushRequest(name, description or f"Scheduled release of {source}", info, public, target, whoami())
            state = deliver(request, packed)
    label_run(state.update_id)
    state = _verify_once_pushed(state, policy)
    if unanswered == "supersede":
        _supersede(state, source, target)
    return ending(state)


def _verify_once_pushed(state: State, policy: str) -> State:
    """Verify what Public runs; while Public is closed, this run sleeps, and begins anew once it opens."""
    d = deployment(state.update_id, state.attempt)
    if state.window is not None:
        sleep_while_closed(d)
    return verify_update(d, policy=policy) if state.stage in (Stage.PUSHED, Stage.TESTING) else state


def _nothing_to_do(unchanged: str) -> PrefectState[Any]:
    return Completed(name="Unchanged", message=f"Nothing changed since {unchanged}: there is nothing to release.")


def _unchanged(source: str, target: str, digest: str) -> str:
    """Find the update that carried these very bytes and is on its way, or completed last; its id, or ""."""
    ledger = this_run().ledger
    for summary in ledger.summaries():
        state = ledger.find(summary["update_id"], summary["attempt"])
        if state is None or state.target != target or state.source is None or state.source.name != source:
            continue
        if state.bundle == digest and (not state.ended or state.stage is Stage.COMPLETED):
            return state.update_id
        if state.stage is Stage.COMPLETED:
            return ""
    return ""


def _free_name(source: str, digest: str) -> str:
    """Make an id of the source, the date and the bundle; where it is taken for good, as by a tree that was reverted and
    is released again the same day, the next that ends in a number."""
    name = f"{source}-{now():%Y%m%d}-{digest[:8]}"
    ledger, number, wanted = this_run().ledger, 1, name
    while (last := ledger.find(wanted)) is not None and last.ended and not last.may_be_pushed_again:
        number += 1
        wanted = f"{name}-{number}"
    return wanted


def _supersede(newest: State, source: str, target: str) -> None:
    """Cancel the gates that are still open from earlier releases of the source, once the newest has its own."""
    update_id = newest.update_id
    if newest.stage is not Stage.AWAITING_APPROVAL:
        return
    for summary in this_run().ledger.summaries(stages=(Stage.AWAITING_APPROVAL.value,)):
        d = deployment(summary["update_id"], summary["attempt"])
        state = d.state
        same = state.source is not None and state.source.name == source and state.target == target
        if same and state.update_id != update_id:
            reporter().say(f"{state.update_id} was never answered: superseded by {update_id}")
            cancel_update(d, reason=f"superseded by {update_id}")
