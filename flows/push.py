"""From ALPHA's tree to the Public Server, which runs it when this is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState

from ashat.deployment.events import Failed
from ashat.deployment.state_machine import Stage, State
from ashat.errors import SwitchFailedError
from blocks.source import load_source
from flows._runs import ending, report_refusals, run_here
from tasks.push.package import Origin, Package, Request, begin, begun_by_this_run, check_free, must_push, package
from tasks.push.transfer import record_pushed, uncopied, upload
from tasks.runtime.artifacts import escape, markdown_table, publish_markdown
from tasks.runtime.ledger import ledger, now, whoami
from tasks.runtime.reporting import reporter
from tasks.servers.public import public_lease, put_public_back, switch_public

PLAN = ("Commit and Package", "Deploy to Public Server", "Verification Tests", "Await Approval")


@flow(name="push", flow_run_name="push {update_id}", description="Pack a source and let the Public Server run it.")
@report_refusals
def push(
    update_id: str,
    description: str,
    info: str = "",
    source: str = "raos",
    public: str = "public",
    target: str = "omega",
    allow_dirty: bool = False,
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
    request = Request(update_id, description, info, public, target, whoami())
    return ending(push_source(request, source, allow_dirty=allow_dirty))


@flow(name="push", flow_run_name="push {update_id}")
@report_refusals
def _push_directory(update_id: str, request: Request, origin: Origin) -> PrefectState[Any]:
    return ending(push_tree(request, origin))


def push_directory(
    update_id: str,
    description: str,
    info: str = "",
    *,
    directory: Path,
    ref: str = "",
    allow_dirty: bool = False,
    public: str = "public",
    target: str = "omega",
    by: str = "",
    resume: bool = False,
) -> State:
    """Push from any directory: for the command line, in its own process. `resume` goes on with an interrupted push.

    Raises:
        AshatError: what is wrong with the source, the id or a server.
    """
    request = Request(update_id, description, info, public, target, by or whoami(), resume)
    origin = Origin(directory.absolute().name, directory, ref, allow_dirty)
    return run_here(_push_directory, update_id, request=request, origin=origin)


def push_source(request: Request, source: str, *, allow_dirty: bool) -> State:
    """Push what the Source block `source` names."""
    begun = begun_by_this_run(request.update_id)
    if begun is not None and not must_push(begun):
        return begun
    with source_tree(source, allow_dirty=allow_dirty) as origin:
        return push_tree(request, origin)


@contextmanager
def source_tree(source: str, *, allow_dirty: bool) -> Iterator[Origin]:
    """Where the tree is that the Source block `source` names; a clone goes away with the block of code."""
    block = load_source(source)
    with block.checkout() as tree:
        yield Origin(source, tree, "" if block.remote else block.ref, allow_dirty)


def push_tree(request: Request, origin: Origin) -> State:
    """Pack, upload, and let Public run it; the part that every kind of push shares."""
    check_free(request.update_id, resume=request.resume)
    reporter().step(1, PLAN[0])
    packed = package(origin)
    return deliver(request, packed)


def deliver(request: Request, packed: Package) -> State:
    """Bring what was packed to Public and let it run there."""
    with packed.packed:
        state = begin(request, packed)
        if state.stage is not Stage.PLANNING:
            return state
        _publish_plan(state)
        reporter().step(2, PLAN[1])
        upload(state.public, uncopied(packed.packed))
    try:
        with public_lease(state, "push") as holder:
            switch_public(state.update_id, state.attempt, holder)
    except SwitchFailedError as error:
        return _failed(state, str(error))
    return record_pushed(state.update_id, state.attempt)


def _failed(state: State, reason: str) -> State:
    with ledger() as record:
        record.advance(
            state.update_id,
            state.attempt,
            lambda newest: None if newest.ended else Failed(at=now(), by=whoami(), reason=reason),
        )
    put_public_back(state.update_id, state.attempt)
    with ledger() as record:
        return record.load(state.update_id, state.attempt)


def _publish_plan(state: State) -> None:
    steps = markdown_table(("step", ""), [(str(number), title) for number, title in enumerate(PLAN, 1)])
    commit = state.source.commit if state.source else None
    page = (
        f"# Deployment plan of {escape(state.update_id)}\n\n{escape(state.description)}\n\n{steps}\n\n"
        f"Bundle `{state.bundle}`: {state.files} files, {state.size} bytes, version {escape(state.bundle_version)}, "
        f"commit `{commit or 'none'}`."
    )
    publish_markdown(f"plan-{state.update_id}-{state.attempt}", page, "What will be done")
