"""Implement `deploy rollout`: how a release goes out to the Mainframes, and a person's word on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.control_plane.omega import Omega, open_omega
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json
from ashat.errors import SessionError, UsageError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.client.node import NodeClient
    from ashat.deployment.rollout_record import RolloutRecord
    from ashat.protocol.fleet import RolloutState

rollout_app = typer.Typer(no_args_is_help=True, help="How a release goes out to the Mainframes, wave after wave.")
Update = Annotated[str, typer.Argument(metavar="ID", help="The update that goes out.")]
Why = Annotated[str, typer.Option("--why", help="Why; it is recorded.", show_default=False)]
By = Annotated[str, typer.Option(help="Who you are; recorded as you type it.", show_default="user@host")]
_NAMED = 10
MARKS = {"running": "🔄", "paused": "⏸️", "asked": "❓", "completed": "✅", "aborted": "🛑", "superseded": "➡️"}


@rollout_app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest.")] = 10,
    omega: Omega = "",
    as_json: Json = False,
) -> None:
    """List the newest rollouts of an OMEGA."""
    with open_omega(omega) as node:
        found = node.rollouts(limit)
    if as_json:
        output.show_json({"rollouts": [each.model_dump(mode="json") for each in found]})
        return
    if not found:
        output.say("No release was rolled out yet.")
    for line in output.columns(
        (f"{MARKS[each.status]} {each.status}", each.offer.update_id, _progress(each), each.why) for each in found
    ):
        output.say(line)


@rollout_app.command()
def show(update_id: Update, omega: Omega = "", as_json: Json = False) -> None:
    """Show how far each wave is, and what the Mainframes said that did not take the release."""
    from ashat.protocol.rollout_table import FAILURE_COLUMNS, WAVE_COLUMNS, failure_rows, wave_rows

    with open_omega(omega, update_id) as node:
        found = _find(node, update_id)
        failures = node.rollout_failures(found.id)
    if as_json:
        told = {**found.model_dump(mode="json"), "failures": [each.model_dump(mode="json") for each in failures]}
        output.show_json(told)
        return
    output.say(f"{MARKS[found.status]} {found.offer.update_id} is {found.status}: {_progress(found)}")
    if found.why:
        output.say(f"  {found.why}")
    for line in output.columns([WAVE_COLUMNS, *wave_rows(found)]):
        output.say(line)
    if failures:
        output.say("Did not take it")
        for line in output.columns([FAILURE_COLUMNS, *failure_rows(failures)]):
            output.say(line)


@rollout_app.command()
def pause(update_id: Update, why: Why = "", by: By = "", omega: Omega = "", dry_run: DryRun = False) -> None:
    """Offer the release to nobody else for now. Who was offered it goes on; a form in Prefect asks what follows."""
    with open_omega(omega, update_id, dry_run=dry_run) as node:
        found = _find(node, update_id)
        if dry_run:
            _refuse_ended(found)
            would(f"pause the rollout of '{update_id}' on {node.name}, which is {found.status}", _progress(found))
            return
        node.decide_rollout(found.id, "pause", why or "a person paused it", by or _whoami())
    output.say(f"⏸️ The rollout of '{update_id}' is paused: deploy rollout resume {update_id} lets it go on.")


@rollout_app.command()
def resume(update_id: Update, why: Why = "", by: By = "", dry_run: DryRun = False) -> None:
    """Let a rollout that stopped go on. Those that failed are accepted as they are; only further ones stop it again."""
    if dry_run:
        would(f"let the rollout of '{update_id}' go on", _stopped(update_id))
        return
    _answer(update_id, "resume", why, by)
    output.say(f"▶️ The rollout of '{update_id}' goes on.")


@rollout_app.command()
def abort(update_id: Update, why: Why = "", by: By = "", dry_run: DryRun = False) -> None:
    """End a rollout that stopped: nobody else gets the release, and who runs it keeps it."""
    if dry_run:
        would(f"end the rollout of '{update_id}' as it is", _stopped(update_id))
        return
    _answer(update_id, "abort", why, by)
    output.say(f"🛑 The rollout of '{update_id}' ends as it is; deploy rollback {update_id} takes it back everywhere.")


@rollout_app.command("retry-failed")
def retry_failed(update_id: Update, by: By = "", omega: Omega = "", dry_run: DryRun = False) -> None:
    """Have those Mainframes try again that failed, or were not reached; nobody else is touched."""
    with open_omega(omega, update_id, dry_run=dry_run) as node:
        found = _find(node, update_id)
        if dry_run:
            failed = [each for each in node.rollout_failures(found.id) if each.state != "barred"]
            said = (f"{each.count} {each.state}: {each.reason}" for each in failed)
            would(f"have {sum(each.count for each in failed)} Mainframes try '{update_id}' again", *said)
            return
        count = node.retry_rollout(found.id, by or _whoami())
    when = "now" if found.status in ("running", "completed") else f"once it goes on: deploy rollout resume {update_id}"
    output.say(f"🔁 {count} Mainframe{'' if count == 1 else 's'} may try again, {when}.")


@rollout_app.command()
def compare(update_id: Update, omega: Omega = "", as_json: Json = False) -> None:
    """Compare those who have the release with the rest: do their programs end, or fall ill, more often?"""
    from tasks.promote.compare import COMPARED_COLUMNS, compare_troubles, compared_rows, conclusion

    with open_omega(omega, update_id) as node:
        found = _find(node, update_id)
        seen = node.rollout_troubles(found.id)
    compared = compare_troubles(seen)
    said = conclusion(seen, compared)
    if as_json:
        told = {each.what: each.found._asdict() for each in compared}
        output.show_json({**seen.model_dump(mode="json"), "compared": told, "conclusion": said})
        return
    since = f"{seen.since:%Y-%m-%d %H:%M:%S} UTC"
    output.say(f"⚖️ {update_id} beside what the rest runs, by what Mainframes reported since {since}")
    for line in output.columns([COMPARED_COLUMNS, *compared_rows(compared)]):
        output.say(line)
    output.say(said)
    if found.status in ("running", "paused", "asked"):
        output.say(f"Widen it, once it has stopped: deploy rollout resume {update_id}.")
        output.say(f"Take it back: deploy rollback {update_id}.")


@rollout_app.command()
def report(
    update_id: Update,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the page to this file.", show_default="ID-rollout.html"),
    ] = None,
    omega: Omega = "",
) -> None:
    """Write a rollout as one page that can be read anywhere: its curve and waves, what failed, and who decided what."""
    from ashat.cli.commands.html_pages import write_page
    from ashat.cli.commands.rollout_report import rollout_report

    with open_omega(omega, update_id) as node:
        found = _find(node, update_id)
        steps, failures = node.rollout_progress(found.id), node.rollout_failures(found.id)
        name = node.name
    with open_ledger() as ledger:
        events = ledger.events(update_id, found.offer.attempt) if ledger.find(update_id, found.offer.attempt) else []
    file = html or Path(f"{update_id}-rollout.html")
    write_page(file, lambda: rollout_report(found, steps, failures, events, omega=name))
    output.say(f"📄 {file}: the rollout of {update_id}, which is {found.status}: {_progress(found)}")


@rollout_app.command("override-freeze")
def override_freeze(
    update_id: Update,
    why: Annotated[str, typer.Option("--why", help="Why; it is recorded.", show_default=False)],
    by: By = "",
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Let the release go to the Mainframes that a window or a freeze holds, too, in the waves that are open."""
    if not why.strip():
        raise UsageError("--why needs a reason: it is recorded, and stands in the receipt.")
    with open_omega(omega, update_id, dry_run=dry_run) as node:
        found = _find(node, update_id)
        if dry_run:
            _refuse_ended(found)
            held = [f"{one.name}: {one.held}" for one in node.mainframes() if one.held and one.status == "active"]
            would(f"offer '{update_id}' to those that are held, too, of the waves that are open", *held[:_NAMED])
            return
        node.override_freezes(found.id, why.strip(), by or _whoami())
    _record_override(update_id, why.strip(), by or _whoami())
    output.say(f"⚠️ '{update_id}' goes to the Mainframes that were held, too: {why.strip()}")


def _record_override(update_id: str, why: str, by: str) -> None:
    """Write the override down in the record, too, where that knows the update."""
    from ashat.deployment.events import FreezeOverridden

    event = FreezeOverridden(at=output.now(), by=by, server="mainframes", reason=why)
    with open_ledger() as ledger:
        state = ledger.find(update_id)
        if state is not None:
            ledger.append(state, event)


def _answer(update_id: str, decision: str, why: str, by: str) -> None:
    """Hand the answer to the run that waits for it.

    Raises:
        SessionError: the rollout did not stop, or no run asks yet.
    """
    rollout = _waiting(update_id)
    ready()

    from tasks.approval.gate import answer_run

    given = {"decision": decision, "approver": by or _whoami(), "comment": why}
    answer_run(rollout.run, given, f"the rollout of '{update_id}'")


def _waiting(update_id: str) -> RolloutRecord:
    """Read the rollout by the record, which waits for an answer.

    Raises:
        SessionError: it does not.
    """
    with open_ledger() as ledger:
        state = ledger.load(update_id)
    if state.rollout is None or not state.rollout.waits:
        raise SessionError(
            f"The rollout of '{update_id}' does not wait for an answer: deploy rollout show {update_id}. Where it was "
            "paused just now, it does so within seconds."
        )
    return state.rollout


def _stopped(update_id: str) -> str:
    return f"It has stopped: {_waiting(update_id).stopped}"


def _refuse_ended(found: RolloutState) -> None:
    """Refuse what only a rollout takes that goes on, as its OMEGA would.

    Raises:
        SessionError: it has ended.
    """
    if found.status in ("completed", "aborted", "superseded"):
        raise SessionError(f"The rollout of '{found.offer.update_id}' is {found.status}: nothing of it goes on.")


def _find(node: NodeClient, update_id: str) -> RolloutState:
    found = next((each for each in node.rollouts(1000) if each.offer.update_id == update_id), None)
    if found is None:
        raise UsageError(f"{node.name} has no rollout of '{update_id}': deploy rollout list shows what it has.")
    return found


def _progress(found: RolloutState) -> str:
    from ashat.rollouts.decide import progress

    waves = f"wave {len(found.opened)} of {len(found.waves)}: " if len(found.waves) > 1 else ""
    return waves + progress(found.counts)


def _whoami() -> str:
    from tasks.runtime.run import whoami

    return whoami()
