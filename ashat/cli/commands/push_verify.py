"""`deploy push` and `deploy verify`: what ALPHA does, in this very process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.commands.aftermath import told_what_goes_on
from ashat.cli.commands.approve import OverrideFreeze, given_reason
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun
from ashat.common.identifiers import name_of_release
from ashat.deployment.stages import Stage
from ashat.errors import SessionError, UsageError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.state_machine import State
    from tasks.push.package import Origin, PushRequest
    from tasks.push.route import Route

_TEXT_LIMIT = 4000

Tasks = Annotated[
    list[str] | None, typer.Option("--task", metavar="KEY", help="A task that it brings, such as PROJ-12; repeat it.")
]


def push(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="A new id, such as UPD-2026-11.")],
    description: Annotated[str, typer.Argument(metavar="DESCRIPTION", help="What the update brings, in a line.")],
    info: Annotated[str, typer.Argument(metavar="INFO", help="Anything else worth knowing.")] = "",
    source: Annotated[
        Path, typer.Option(help="The directory, archive, wheel or OCI layout to push.", show_default="here")
    ] = Path(),
    ref: Annotated[str, typer.Option(help="Push this commit, branch or tag; or this image of an OCI layout.")] = "",
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit tracked changes first, under id and description.")
    ] = False,
    allow_dirty: Annotated[bool, typer.Option("--allow-dirty", help="Push uncommitted changes as they are.")] = False,
    digest: Annotated[str, typer.Option(help="The sha256 that the archive, wheel or image must have.")] = "",
    subdirectory: Annotated[str, typer.Option(help="The part of the archive, wheel or image to push.")] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a push of this id that was interrupted.")
    ] = False,
    override_freeze: OverrideFreeze = "",
    task: Tasks = None,
    public: Annotated[str, typer.Option(help="The Public Server to push to.")] = "public",
    target: Annotated[str, typer.Option(help="Where it goes once it is approved.")] = "omega",
    dry_run: DryRun = False,
) -> None:
    """Pack a source tree, bring it to the Public Server, and let that run it."""

    _check_names(update_id, public, target)
    _check_words(description, info)
    override = given_reason(override_freeze)
    wanted = _artifact_digest(source, digest, subdirectory, ref if commit else None)
    _refuse_to_commit(commit=commit, dry_run=dry_run)
    ready(dry_run=dry_run)

    from tasks.push.package import Origin, PushRequest, check_free
    from tasks.push.route import find_route
    from tasks.push.tracked import check_keys
    from tasks.runtime.connections import connections
    from tasks.runtime.run import whoami

    tasks = check_keys(task or ())
    with connections():
        check_free(update_id, resume=resume)
        route = find_route(public, target)
        directory = source.resolve()
        if commit:
            _commit(directory, f"{update_id}: {description}")
        origin = Origin(directory.name, directory, ref, allow_dirty, subdirectory, wanted)
        request = PushRequest(update_id, description, info, public, target, whoami(), resume, override, tasks)
        _push(request, origin, route, dry_run=dry_run)


def _tell_pushed(state: State) -> None:
    if state.ended:
        raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}: {state.reason}")
    if state.window is not None:
        output.say(f"🕑 '{state.update_id}' was sent, and {state.window_line}.")
        output.say(f'To let it go now: deploy push {state.update_id} … --resume --override-freeze "REASON"')
        return
    output.say(f"✅ {state.the_public} runs {name_of_release(state.bundle, state.update_id)}: {state.public_url}")
    output.say(f"Next: deploy verify {state.update_id}")


def verify(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that was pushed.")] = "",
    policy: Annotated[
        str, typer.Option(help="The RaOS Verification Policy block.", show_default="its last one, or default")
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run every check again, also those whose answers are still good.")
    ] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Try the checks themselves, on bad releases made on purpose.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --self-test: end with one JSON object.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Run every check on the Public Server; what passes them awaits approval."""
    if self_test:
        from ashat.cli.commands.selftest import self_test as try_checks

        if update_id or dry_run:
            raise UsageError("--self-test tries the checks, not an update: leave the id and --dry-run away.")
        try_checks(as_json=as_json)
        return
    if not update_id:
        raise UsageError("Say which update: deploy verify <id>.")
    _refuse_not_to_verify(update_id)
    if dry_run:
        from ashat.cli.commands.dry_runs import plan_verify

        plan_verify(update_id, policy, fresh=fresh)
        return
    ready()

    from ashat.cli.control_plane.runs import warn_if_nobody_works
    from flows._runs import run_here
    from flows.verify import verify as verify_flow

    warn_if_nobody_works("control")
    with _watched(update_id):
        output.say("🔍 ASHAT Deployment Verification")
        output.say(f"Update ID: {update_id}")
        state = run_here(verify_flow, update_id, policy=policy, fresh=fresh)
    _tell_verified(state)


def _push(request: PushRequest, origin: Origin, route: Route, *, dry_run: bool) -> None:
    if dry_run:
        from ashat.cli.commands.dry_runs import plan_push

        plan_push(request, origin, route)
        return
    from flows._runs import run_here
    from flows.push import PLAN, push_directory

    with _watched(request.update_id):
        output.say("🚀 ASHAT Deployment Workflow Initiated")
        output.say(f"Update ID: {request.update_id}")
        output.say(f"Target: {route.words}")
        if route.lacking:
            output.warn(route.lacking)
        output.say(f"📋 Deployment Plan: {len(PLAN)} steps")
        for number, title in enumerate(PLAN, 1):
            output.say(f"  {number}. {title}")
        state = run_here(push_directory, request.update_id, request=request, origin=origin)
    _tell_pushed(state)


@contextmanager
def _watched(update_id: str) -> Iterator[None]:
    """Show on the terminal what a flow in this process does, and at an early end what goes on of the update."""
    from ashat.cli.terminal.progress import TerminalReporter
    from tasks.runtime.reporting import use_reporter

    with closing(TerminalReporter()) as reporter, told_what_goes_on(update_id), use_reporter(reporter):
        yield


def _tell_verified(state: State) -> None:
    update_id = state.update_id
    if state.stage is Stage.FAILED:
        output.say("❌ Verification FAILED!")
        output.say(f"Next: mend it, and push it again as {update_id}: deploy push {update_id} <description>")
        raise SessionError(f"{state.reason}. deploy evidence {update_id} shows what was seen.")
    output.say("✅ Verification PASSED!")
    output.say(f"Evidence: {state.evidence}")
    if state.outcome == "attention":
        output.say("⚠️ A check did not pass cleanly: approving needs a comment that says why.")
    output.say(f"Next: deploy approve {update_id}")


def _refuse_to_commit(*, commit: bool, dry_run: bool) -> None:
    if commit and dry_run:
        raise UsageError("A dry run commits nothing: give --dry-run with --allow-dirty, to see what would be packed.")


def _check_names(update_id: str, *servers: str) -> None:
    from ashat.common.identifiers import check_server_name, check_update_id

    check_update_id(update_id)
    for block in servers:
        check_server_name(block)


def _check_words(description: str, info: str) -> None:
    if not description.strip():
        raise UsageError("Say in a line what the update brings: deploy push <id> <description>.")
    for name, text in (("description", description), ("info", info)):
        if len(text) > _TEXT_LIMIT:
            raise UsageError(f"The {name} has {len(text)} characters; {_TEXT_LIMIT} are the most that are kept.")


def _artifact_digest(source: Path, digest: str, subdirectory: str, committed_ref: str | None) -> str:
    """The sha256 that the artifact `source` must have ("": any); `committed_ref` is --ref beside --commit, else None.

    Raises:
        UsageError: there is no such source, or the options are for another kind of it.
    """
    from ashat.bundle.artifacts.pack import is_artifact, parse_digest

    if committed_ref:
        raise UsageError("--commit commits the directory, and --ref pushes a commit that is there: give one of them.")
    if not source.exists():
        raise UsageError(f"The source {source} does not exist.")
    if is_artifact(source):
        if committed_ref is not None:
            raise UsageError(f"--commit commits the files of a directory; {source} is an artifact.")
        return parse_digest(digest)
    if not source.is_dir():
        raise UsageError(f"The source {source} is neither a directory nor a file.")
    if digest or subdirectory:
        raise UsageError(f"--digest and --subdirectory are for an archive, a wheel or an image; {source} is none.")
    return ""


def _commit(source: Path, message: str) -> None:
    from ashat.bundle.git import commit_tracked, git_info

    if git_info(source) is None:
        raise UsageError(f"{source} is in no git repository: there is nothing to commit to.")
    commit, new = commit_tracked(source, message)
    output.say(f"Committed as {commit[:12]}" if new else f"Nothing to commit: git sees no change since {commit[:12]}")


def _refuse_not_to_verify(update_id: str) -> None:
    from ashat.deployment.state_machine import BEFORE_APPROVAL

    with open_ledger() as ledger:
        stage = ledger.load(update_id).stage
    if stage is Stage.PLANNING:
        raise SessionError(
            f"Deployment '{update_id}' has not reached Public yet. Finish its push first: "
            f"deploy push {update_id} <description> --resume."
        )
    if stage not in BEFORE_APPROVAL:
        raise SessionError(
            f"Deployment '{update_id}' is {stage}: only what was pushed and is not decided yet can be verified."
        )
