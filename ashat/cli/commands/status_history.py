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
from ashat.deployment.stages import ENDED, NO_WAY_BACK, Stage
from ashat.errors import UsageError
from ashat.ledger.opening import open_ledger
from ashat.ledger.summaries import glance, summaries

if TYPE_CHECKING:
    from ashat.deployment.state_machine import State

_LAST_ENDED = 5
_LOOKS_WITHIN = timedelta(minutes=5)
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
    found, troubles = glance(_LAST_ENDED)
    under_way, waiting, ended = _sorted(found, at)
    plane = control_plane()
    if as_json:
        shown = {"under_way": under_way, "awaiting_approval": waiting, "ended": ended[:_LAST_ENDED]}
        output.show_json({**shown, "troubles": troubles, "control_plane": plane})
        return
    output.say("📊 ASHAT Deployment Status")
    _section("Trouble, as it was seen last", [_trouble_row(trouble, at) for trouble in troubles])
    if not (under_way or waiting or ended):
        output.say("  No deployments yet. Begin with: deploy push <id> <description>")
    _section("Under way", [_row(summary, at) for summary in under_way])
    _section("Awaiting approval", [_waiting_row(summary, at) for summary in waiting])
    _section("Ended last", [_row(summary, at) for summary in ended[:_LAST_ENDED]])
    output.say()
    output.say(f"Control plane: {_plane_words(plane, at)}")


def history(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="One update: everything that happened to it.")] = "",
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage, such as Completed; may be repeated.")
    ] = None,
    since: Annotated[str, typer.Option(help="Only what changed since: 2026-11-30, or 12h, 7d, 2w ago.")] = "",
    search: Annotated[str, typer.Option(help="Only ids, descriptions and tasks that hold this text.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    as_json: Json = False,
) -> None:
    """List every deployment, the newest first; with an id, every event of that update."""
    if update_id:
        _history_of(update_id, as_json=as_json)
        return
    at = output.now()
    stages = {_stage(name) for name in stage or []}
    earliest = since_when(since, at) if since else None
    found = [
        summary
        for summary in (as_of(summary, at) for summary in summaries())
        if (not stages or summary["stage"] in stages)
        and (earliest is None or _time(summary["updated_at"]) >= earliest)
        and search.casefold() in " ".join(_searched(summary)).casefold()
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
    for summary in (as_of(summary, at) for summary in found):
        if summary.get("rolling_back"):
            under_way.append(summary)
        elif summary["stage"] == Stage.AWAITING_APPROVAL or summary.get("rollback_expires"):
            waiting.append(summary)
        else:
            (ended if summary["stage"] in ENDED else under_way).append(summary)
    return under_way, waiting, ended


def as_of(summary: dict[str, Any], at: datetime) -> dict[str, Any]:
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
    text = (
        summary.get("stuck")
        or summary.get("window")
        or summary.get("rollout")
        or summary["reason"]
        or summary["description"]
    )
    if summary.get("not_running") and summary["stage"] == Stage.COMPLETED:
        text = f"{summary['description']} ({', '.join(summary['not_running'])})"
    mark = _mark(summary) if not summary.get("rolling_back") else "⏪"
    return mark, _name(summary), f"{stage}{_of(summary)}", f"{output.span(at - _time(summary['updated_at']))} ago", text


def _trouble_row(trouble: dict[str, str], at: datetime) -> tuple[str, ...]:
    mark = "❌" if trouble["kind"] == "unreachable" else "⚠️"
    since = f"for {output.span(at - _time(trouble['since']))}"
    return mark, trouble.get("name") or trouble["server"], trouble["kind"], since, trouble["what"]


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
    return (
        mark,
        _name(summary),
        stage,
        f"closes in {left}",
        how,
        summary.get("stuck") or _cannot_be(summary) or summary["description"],
    )


def _cannot_be(summary: dict[str, Any]) -> str:
    why = summary.get("obstacle")
    return f"cannot be approved yet: {why}" if why else ""


def _searched(summary: dict[str, Any]) -> list[str]:
    return [summary["update_id"], summary["description"], *summary.get("tasks", ())]


def _history_row(summary: dict[str, Any]) -> tuple[str, ...]:
    tasks = f" [{', '.join(summary['tasks'])}]" if summary.get("tasks") else ""
    return (
        _moment_of(_time(summary["updated_at"])),
        _mark(summary),
        _name(summary),
        summary["stage"] + _of(summary),
        summary["pushed_by"],
        summary["description"] + tasks + (f" ({summary['reason']})" if summary["reason"] else ""),
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
    for line in state.output:
        output.say(f"  │ {line}")
    for check in state.checks:
        output.say(f"  {CHECK_MARKS[check.outcome]} {check.title}: {check.seen}")
    for mainframe in state.mainframes:
        reason = f": {mainframe.reason}" if mainframe.reason else ""
        output.say(f"  {MAINFRAME_MARKS[mainframe.result]} {mainframe.name} {mainframe.result}{reason}")


def _obstacles(state: State) -> Iterator[tuple[str, str]]:
    if state.window_line:
        yield "Window", state.window_line
    for server, event in state.overridden.items():
        name = {"public": state.the_public, "omega": state.the_target}.get(server, "Mainframes")
        yield "Freeze", f"of {name}, overridden by {event.by}: {event.reason}"
    if state.rollout_line:
        yield "Rollout", state.rollout_line
    if state.stuck and state.next_run:
        yield "Stuck", f"{state.stuck} (tried again after {state.next_run:%Y-%m-%d %H:%M} UTC)"


def _facts(state: State, stage: Stage) -> Iterator[tuple[str, str]]:
    yield "Update ID", state.update_id + (f" (attempt {state.attempt})" if state.attempt > 1 else "")
    yield "Stage", ("rolling back from " if state.rolling_back else "") + stage.value
    if stage is Stage.COMPLETED:
        yield "Mainframes", state.reach.words
    yield "Description", state.description
    if state.tasks:
        yield "Tasks", ", ".join(state.tasks)
    if state.reason:
        yield "Reason", state.reason
    yield from _obstacles(state)
    yield "Pushed by", state.pushed_by
    yield "Way", f"{state.the_public} → {state.the_target}"
    if state.bundle:
        commit = f", {state.source.in_short}" if state.source and state.source.in_short else ""
        yield "Bundle", f"{state.bundle} ({state.files} files, {output.size(state.size)}{commit})"
    yield from _migrated(state)
    if state.evidence:
        yield "Evidence", state.evidence
    if state.gate and stage is Stage.AWAITING_APPROVAL:
        yield "Gate", f"closes {state.gate.expires:%Y-%m-%d %H:%M} UTC: deploy approve {state.update_id}"
        if state.gate.obstacle:
            yield "Approval", f"not possible yet: {state.gate.obstacle}"
    rollback = state.undecided("rollback")
    if rollback and rollback.waits(output.now()):
        until = f"{rollback.expires:%Y-%m-%d %H:%M} UTC"
        yield "Rollback", f"waits for people until {until}: deploy approve {state.update_id}"
    if state.decision:
        how = "Approved" if state.decision.decision == "approve" else "Rejected"
        yield how, f"by {', '.join(state.deciders) or 'somebody'}, {_moment_of(state.decision.at)}"


def _migrated(state: State) -> Iterator[tuple[str, str]]:
    for server, words in state.migrated.items():
        yield "Migrated", f"{server}: {words}"
    if state.irreversible:
        yield "Way back", NO_WAY_BACK


def _detail(state: State) -> dict[str, Any]:
    summary = as_of(state.summary(), output.now())
    return {
        **summary,
        "checks": [check.model_dump(mode="json") for check in state.checks],
        "mainframes": [mainframe.model_dump(mode="json") for mainframe in state.mainframes],
        "output": list(state.output),
        "migrated": dict(state.migrated),
        "irreversible": state.irreversible,
        "public_url": state.public_url,
        "files": state.files,
        "size": state.size,
        "decision": state.decision.decision if state.decision else None,
        "decided_at": state.decision.at.isoformat() if state.decision else None,
        "gate_run": state.gate.run if state.gate else None,
        "approved_by": ", ".join(state.deciders) if state.decision else None,
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
        (_moment_of(event.at), f"#{n}", event.name, who(event), what(event, last.the_public, last.the_target))
        for n, events in attempts
        for event in events
    ]
    for line in output.columns(rows):
        output.say(line)


def _moment_of(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def control_plane() -> dict[str, str] | None:
    """Say where the control plane is that is used here, and when `reconcile` looked last where this home knows; None
    where none runs."""
    from ashat.cli.control_plane.state import is_up, last_look, read_state

    state = read_state(home())
    named = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if named and (state is None or named != state.api_url):
        return {"api_url": named, "ui_url": os.environ.get("PREFECT_UI_URL", "") or named.removesuffix("/api")}
    if state is None or not is_up(state):
        return None
    looked = last_look(home())
    return {
        "api_url": state.api_url,
        "ui_url": state.ui_url,
        **({"looked_at": looked.isoformat(timespec="seconds")} if looked else {}),
    }


def _plane_words(plane: dict[str, str] | None, at: datetime) -> str:
    """Say where the control plane is, and when its service `reconcile` looked last, where this home knows."""
    if plane is None:
        return "not running (deploy up starts it)"
    if "looked_at" not in plane:
        return plane["ui_url"]
    ago = at - _time(plane["looked_at"])
    if ago <= _LOOKS_WITHIN:
        return f"{plane['ui_url']} (reconcile looked {output.span(ago)} ago)"
    log = home() / "logs" / "reconcile.log"
    return f"{plane['ui_url']} (⚠️ reconcile has not looked for {output.span(ago)}: see {log})"


def _stage(name: str) -> str:
    for stage in Stage:
        if stage.value.casefold() == name.casefold():
            return stage.value
    raise UsageError(f"There is no stage {name!r}; there are {', '.join(stage.value for stage in Stage)}.")


def since_when(text: str, at: datetime) -> datetime:
    """Read a date, a time, or an age before `at`, such as 7d.

    Raises:
        UsageError: it is none of these.
    """
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
