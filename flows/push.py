"""Push ALPHA's tree to the Public Server, and let that run it."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState

from ashat.deployment.events import Failed
from ashat.deployment.state_machine import Stage, State
from ashat.errors import SwitchFailedError
from flows._forms import AllowDirty, Description, Info, NewUpdateId, PublicName, SourceName, TargetName
from flows._runs import ending, report_refusals
from tasks.push.package import (
    Origin,
    Package,
    PushRequest,
    begin,
    begun_by_this_run,
    check_free,
    must_push,
    package,
    source_tree,
)
from tasks.push.transfer import record_pushed, uncopied, upload
from tasks.runtime.artifacts import escape, markdown_table, publish_markdown
from tasks.runtime.deployment import Deployment, deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami
from tasks.servers.public import public_lease, put_public_back, switch_public
from tasks.servers.windows import hold

PLAN = ("Commit and Package", "Deploy to Public Server", "Verification Tests", "Await Approval")


@flow(name="push", flow_run_name="push {update_id}", description="Pack a source and let the Public Server run it.")
@report_refusals
def push(
    update_id: NewUpdateId,
    description: Description,
    info: Info = "",
    source: SourceName = "raos",
    public: PublicName = "public",
    target: TargetName = "omega",
    allow_dirty: AllowDirty = False,
) -> PrefectState[Any]:
    """Push from a Source block: for the UI, schedules and workers of the pool `alpha`.

    Args:
        update_id: A new id, such as UPD-2026-11.
        description: What the update brings, in a line.
        info: Anything else worth knowing.
        source: The name of the RaOS Source block to pack.
        public: The name of the Public Server's block.
        target: Where it goes once approved: the name of OMEGA's block.
        allow_dirty: Pack a tree that has uncommitted changes.
    """
    begun = begun_by_this_run(update_id)
    if begun is not None and not must_push(begun):
        return ending(begun)
    request = PushRequest(update_id, description, info, public, target, whoami())
    with source_tree(source, allow_dirty=allow_dirty) as origin:
        return ending(push_tree(request, origin))


@flow(name="push", flow_run_name="push {update_id}")
@report_refusals
def push_directory(update_id: str, request: PushRequest, origin: Origin) -> PrefectState[Any]:
    """Push from any directory: for the command line, in its own process."""
    return ending(push_tree(request, origin))


def push_tree(request: PushRequest, origin: Origin) -> State:
    """Pack a tree, bring it to Public, and let that run it."""
    check_free(request.update_id, resume=request.resume)
    reporter().step(1, PLAN[0])
    return deliver(request, package(origin))


def deliver(request: PushRequest, packed: Package) -> State:
    """Bring what was packed to Public, and let it run there."""
    with packed.packed:
        state = begin(request, packed)
        if state.stage is not Stage.PLANNING:
            return state
        _publish_plan(state)
        reporter().step(2, PLAN[1])
        d = deployment(state.update_id, state.attempt)
        upload(d, uncopied(packed.packed))
    return switch_once_open(d, request.override_freeze)


def switch_once_open(d: Deployment, override: str = "") -> State:
    """Let Public run what it was sent, unless it is closed, which is recorded: the update then waits, and a run of
    `switch` goes on once it opens. With the reason `override` it does not wait."""
    if hold(d, "public", override) is not None:
        return d.state
    try:
        with public_lease(d, "push") as holder:
            switch_public(d, holder)
    except SwitchFailedError as error:
        return _failed(d, error)
    return record_pushed(d)


def _failed(d: Deployment, error: SwitchFailedError) -> State:
    event = Failed(at=now(), by=whoami(), reason=str(error), output=error.output)
    d.advance(lambda newest: None if newest.ended else event)
    put_public_back(d)
    return d.state


def _publish_plan(state: State) -> None:
    steps = markdown_table(("step", ""), [(str(number), title) for number, title in enumerate(PLAN, 1)])
    commit = state.source.commit if state.source else None
    page = (
        f"# Deployment plan of {escape(state.update_id)}\n\n{escape(state.description)}\n\n{steps}\n\n"
        f"Bundle `{state.bundle}`: {state.files} files, {state.size} bytes, version {escape(state.bundle_version)}, "
        f"commit `{commit or 'none'}`."
    )
    publish_markdown(f"plan-{state.update_id}-{state.attempt}", page, "What will be done")
