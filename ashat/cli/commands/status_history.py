"""`deploy status` and `deploy history`: what the ledger says. Neither needs Prefect."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.output import CHECK_MARKS, MAINFRAME_MARKS, MARKS, Json
from ashat.common.home import home
from ashat.common.numbers import in_utc
from ashat.deployment.stages import ENDED, Stage
from ashat.errors import UsageError
from ashat.ledger.opening import open_ledger
from ashat.ledger.summaries import glance, summaries

if TYPE_CHECKING:
    from ashat.deployment.state_machine import State

_LAST_ENDED = 5
_SINCE = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def status(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="One update, in full.")] = "",
    as_json: Json = False,
) -> None:
    """Show what is under way, what awaits approval, and what ended last."""
    if update_id:
        _status_of(update_id, as_json=as_json)
        return
    at = output.now()
    found, troubles = glance()
    under_way, waiting, ended = _sorted(found, at)
    plane = _control_plane()
    if as_json:
        shown = {"under_way": under_way, "awaiting_approval": waiting, "ended": ended[:_LAST_ENDED]}
        output.show_json({**shown, "troubles": troubles, "control_plane": plane})
        return
    output.say("📊 ASHAT Deployment Status")
    _section("Trouble, as reconcile saw it last", [_trouble_row(trouble, at) for trouble in troubles])
    if not (under_way or waiting or ended):
        output.say("  No deployments yet. Begin with: deploy push <id> <description>")
    _section("Under way", [_row(summary, at) for summary in under_way])
    _section("Awaiting approval", [_waiting_row(summary, at) for summary in waiting])
    _section("Ended last", [_row(summary, at) for summary in ended[:_LAST_ENDED]])
    output.say()
    output.say(f"Control plane: {plane['ui_url']}" if plane else "Control plane: not running (deploy up starts it)")


def history(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="One update: everything that happened to it.")] = "",
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage, such as Completed; may be repeated.")
    ] = None,
    since: Annotated[str, typer.Option(help="Only what changed since: 2026-11-30, or 12h, 7d, 2w ago.")] = "",
    search: Annotated[str, typer.Option(help="Only ids and descriptions that hold this text.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    as_json: Json = False,
) -> None:
    """List every deployment, the newest first; with an id, every event of that update."""
    if update_id:
        _history_of(update_id, as_json=as_json)
        return
    at = output.now()
    stages = {_stage(name) for name in stage or []}
    earliest = _moment(since, at) if since else None
    found = [
        summary
        for summary in (_as_of(summary, at) for summary in summaries())
        if (not stages or summary["stage"] in stages)
        and (earliest is None or _time(summary["updated_at"]) >= earliest)
        and search.casefold() in f"{summary['update_id']} {summary['description']}".casefold()
    ][:limit]
    if as_json:
        output.show_json({"deployments": found})
        return
    output.say("📜 Deployment History")
    if not found:
        output.say("  Nothing matches." if stages or earliest or search else "  No deployments yet.")
    for line in output.columns(_history_row(summary) for summary in found):
        output.say(line)


def _sorted(found: list[dict[str, Any]], at: datetime) -> tuple[list[dict[str, Any]], ...]:
    under_way: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []
    for summary in (_as_of(summary, at) for summary in found):
        if summary.get("rolling_back"):
            under_way.append(summary)
        elif summary["stage"] == Stage.AWAITING_APPROVAL or summary.get("rollback_expires"):
            waiting.append(summary)
        else:
            (ended if summary["stage"] in ENDED else under_way).append(summary)
    return under_way, waiting, ended


def _as_of(summary: dict[str, Any], at: datetime) -> dict[str, Any]:
    """Show an overdue gate in a summary as Expired, whether somebody recorded that or not."""
    if summary.get("rollback_expires") and at >= _time(summary["rollback_expires"]):
        return {**summary, "rollback_expires": None}
    if summary["stage"] == Stage.AWAITING_APPROVAL and summary["expires"] and at >= _time(summary["expires"]):
        return {**summary, "stage": Stage.EXPIRED.value, "status": Stage.EXPIRED.value}
    return summary


def _section(title: str, rows: list[tuple[str, ...]]) -> None:
    if rows:
        output.say()
        output.say(title)
    for line in output.columns(rows):
        output.say(line)


def _row(summary: dict[str, Any], at: datetime) -> tuple[str, ...]:
    stage = "rolling back" if summary.get("rolling_back") else summary["stage"]
    text = summary.get("stuck") or summary["reason"] or summary["description"]
    if summary.get("not_running") and summary["stage"] == Stage.COMPLETED:
        text = f"{summary['description']} ({', '.join(summary['not_running'])})"
    mark = _mark(summary) if not summary.get("rolling_back") else "⏪"
    return mark, _name(summary), f"{stage}{_of(summary)}", f"{output.span(at - _time(summary['updated_at']))} ago", text


def _trouble_row(trouble: dict[str, str], at: datetime) -> tuple[str, ...]:
    mark = "❌" if trouble["kind"] == "unreachable" else "⚠️"
    since = f"for {output.span(at - _time(trouble['since']))}"
    return mark, trouble["server"], trouble["kind"], since, trouble["what"]


def _mark(summary: dict[str, Any]) -> str:
    if summary["stage"] == Stage.COMPLETED and summary.get("not_running"):
        return "⚠️" if summary["mainframes_running"] else "❌"
    return MARKS.get(summary["stage"], "🔄")


def _of(summary: dict[str, Any]) -> str:
    """How many Mainframes run it, where some do not."""
    if summary["stage"] != Stage.COMPLETED or not summary.get("not_running"):
        return ""
    return f", {summary['mainframes_running']} of {summary['mainframes_total']}"


def _waiting_row(summary: dict[str, Any], at: datetime) -> tuple[str, ...]:
    rollback = summary.get("rollback_expires")
    left = output.span(_time(rollback or summary["expires"]) - at)
    mark = "⚠️" if summary.get("outcome") == "attention" else "⏳"
    how = f"deploy approve {summary['update_id']}"
    stage = "rollback" if rollback else summary["stage"]
    return mark, _name(summary), stage, f"closes in {left}", how, summary.get("stuck") or summary["description"]


def _history_row(summary: dict[str, Any]) -> tuple[str, ...]:
    return (
        _moment_of(_time(summary["updated_at"])),
        _mark(summary),
        _name(summary),
        summary["stage"] + _of(summary),
        (summary["bundle"] or "")[:12],
        summary["pushed_by"],
        summary["description"] + (f" ({summary['reason']})" if summary["reason"] else ""),
    )


def _name(summary: dict[str, Any]) -> str:
    attempt = summary["attempt"]
    return f"{summary['update_id']}#{attempt}" if attempt > 1 else str(summary["update_id"])


def _status_of(update_id: str, *, as_json: bool) -> None:
    with open_ledger() as ledger:
        state = ledger.load(update_id)
    if as_json:
        output.show_json(_detail(state))
        return
    stage = state.stage_at(output.now())
    output.say("📊 ASHAT Deployment Status")
    for line in output.columns(list(_facts(state, stage))):
        output.say(line)
    for check in state.checks:
        output.say(f"  {CHECK_MARKS[check.outcome]} {check.title}: {check.seen}")
    for mainframe in state.mainframes:
        reason = f": {mainframe.reason}" if mainframe.reason else ""
        output.say(f"  {MAINFRAME_MARKS[mainframe.result]} {mainframe.name} {mainframe.result}{reason}")


def _facts(state: State, stage: Stage) -> Iterator[tuple[str, str]]:
    yield "Update ID", state.update_id + (f" (attempt {state.attempt})" if state.attempt > 1 else "")
    yield "Stage", ("rolling back from " if state.rolling_back else "") + stage.value
    if stage is Stage.COMPLETED:
        yield "Mainframes", state.reach.words
    yield "Description", state.description
    if state.reason:
        yield "Reason", state.reason
    if state.stuck and state.next_run:
        yield "Stuck", f"{state.stuck} (tried again after {state.next_run:%Y-%m-%d %H:%M} UTC)"
    yield "Pushed by", state.pushed_by
    yield "Way", f"{state.public} → {state.target}"
    if state.bundle:
        commit = f", commit {state.source.commit[:12]}" if state.source and state.source.commit else ""
        yield "Bundle", f"{state.bundle} ({state.files} files, {output.size(state.size)}{commit})"
    if state.evidence:
        yield "Evidence", state.evidence
    if state.gate and stage is Stage.AWAITING_APPROVAL:
        yield "Gate", f"closes {state.gate.expires:%Y-%m-%d %H:%M} UTC: deploy approve {state.update_id}"
    rollback = state.undecided("rollback")
    if rollback and rollback.waits(output.now()):
        until = f"{rollback.expires:%Y-%m-%d %H:%M} UTC"
        yield "Rollback", f"waits for people until {until}: deploy approve {state.update_id}"
    if state.decision:
        how = "Approved" if state.decision.decision == "approve" else "Rejected"
        yield how, f"by {state.decision.approver or 'somebody'}, {_moment_of(state.decision.at)}"


def _detail(state: State) -> dict[str, Any]:
    summary = _as_of(state.summary(), output.now())
    return {
        **summary,
        "checks": [check.model_dump(mode="json") for check in state.checks],
        "mainframes": [mainframe.model_dump(mode="json") for mainframe in state.mainframes],
        "gate_run": state.gate.run if state.gate else None,
        "approved_by": state.decision.approver if state.decision else None,
    }


def _history_of(update_id: str, *, as_json: bool) -> None:
    from ashat.cli.commands.event_lines import what, who

    with open_ledger() as ledger:
        last = ledger.load(update_id)
        attempts = [(n, ledger.events(update_id, n)) for n in range(1, last.attempt + 1)]
    if as_json:
        listed = [
            {"attempt": n, **event.model_dump(mode="json"), "version": version}
            for n, events in attempts
            for version, event in enumerate(events, 1)
        ]
        output.show_json({"update_id": update_id, "events": listed})
        return
    output.say("📜 Deployment History")
    rows = [
        (_moment_of(event.at), f"#{n}", event.name, who(event), what(event, last.public, last.target))
        for n, events in attempts
        for event in events
    ]
    for line in output.columns(rows):
        output.say(line)


def _moment_of(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _control_plane() -> dict[str, str] | None:
    from ashat.cli.control_plane.state import is_up, read_state

    state = read_state(home())
    named = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if named and (state is None or named != state.api_url):
        return {"api_url": named, "ui_url": os.environ.get("PREFECT_UI_URL", "") or named.removesuffix("/api")}
    if state is None or not is_up(state):
        return None
    return {"api_url": state.api_url, "ui_url": state.ui_url}


def _stage(name: str) -> str:
    for stage in Stage:
        if stage.value.casefold() == name.casefold():
            return stage.value
    raise UsageError(f"There is no stage {name!r}; there are {', '.join(stage.value for stage in Stage)}.")


def _moment(text: str, at: datetime) -> datetime:
    relative = _SINCE.fullmatch(text.strip().lower())
    try:
        if relative:
            return at - timedelta(seconds=int(relative[1]) * _UNITS[relative[2]])
        moment = datetime.fromisoformat(text.strip())
        return in_utc(moment) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no time: give a date (2026-11-30, UTC) or an age (12h, 7d, 2w).") from None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
