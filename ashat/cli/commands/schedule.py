"""Implement `deploy schedule`: when a source is released by itself, up to its gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json
from ashat.common.home import home
from ashat.common.identifiers import check_server_name
from ashat.errors import ControlPlaneError, NotConfiguredError, UsageError

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.schedules import CronSchedule, RRuleSchedule

    from ashat.cli.control_plane.api import PrefectApi

schedule_app = typer.Typer(no_args_is_help=True, help="Say when a source is released by itself, up to its gate.")

DEPLOYMENT = "release/release"
SHIPPED = "weeknights"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


@schedule_app.command("add", short_help="Add a schedule.")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of your own, such as fridays.")],
    source: Annotated[str, typer.Option(help="The source to release, as deploy configure source named it.")] = "raos",
    target: Annotated[str, typer.Option("--to", metavar="BLOCK", help="Where it goes once approved.")] = "omega",
    cron: Annotated[str, typer.Option(help="When, as cron has it: '0 2 * * 1-5'.")] = "",
    rrule: Annotated[str, typer.Option(help="When, by RFC 5545: 'FREQ=WEEKLY;BYDAY=FR;BYHOUR=20;BYMINUTE=0'.")] = "",
    timezone: Annotated[str, typer.Option(help="By which clock: Europe/Berlin.")] = "UTC",
    unanswered: Annotated[
        Literal["keep", "supersede"], typer.Option(help="What becomes of earlier releases that still wait.")
    ] = "keep",
    dry_run: DryRun = False,
) -> None:
    """Release a source by itself at these times, up to the gate. A slot that passes while no worker is there is not
    made up for: when one is back, one run stands for all that passed."""
    check_server_name(name)
    ready(dry_run=dry_run)
    made = _schedule(cron, rrule, timezone)

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    if any(schedule.get("slug") == name for schedule in _deployment(_api())["schedules"]):
        raise UsageError(f"There is a schedule {name!r} already: remove it first, or choose another name.")
    if dry_run:
        when = _words(made.model_dump(mode="json"))
        would(f"release {source} to {target} by the schedule {name}, up to its gate: {when}")
        return
    parameters = {"source": source, "target": target, "unanswered": unanswered}
    with get_client(sync_client=True) as client:
        wanted = DeploymentScheduleCreate(schedule=made, active=True, parameters=parameters, slug=name)
        client.create_deployment_schedules(client.read_deployment_by_name(DEPLOYMENT).id, [wanted])
    output.say(f"✅ {source} is released by the schedule {name}, up to its gate: deploy schedule list")


@schedule_app.command("list", short_help="Each schedule, and when it is due next.")
def list_schedules(as_json: Json = False) -> None:
    """List the schedules of releases, whether each is paused, and when it is due next."""
    api = _api()
    found = _deployment(api)
    due = _due(api, str(found["id"]))
    listed = [
        {
            "name": schedule.get("slug"),
            "id": schedule["id"],
            "active": bool(schedule.get("active")) and not found.get("paused"),
            "when": _words(schedule.get("schedule") or {}),
            "source": _parameter(schedule, found, "source"),
            "to": _parameter(schedule, found, "target"),
            "next": due.get(schedule["id"]) if schedule.get("active") else None,
        }
        for schedule in found["schedules"]
    ]
    if as_json:
        output.show_json({"schedules": listed})
        return
    output.say("🗓 Schedules of releases")
    if not listed:
        output.say("  None. Add one: deploy schedule add fridays --cron '0 20 * * 5'")
    for line in output.columns(_row(one) for one in listed):
        output.say(line)


@schedule_app.command("pause", short_help="Let a schedule rest.")
def pause(name: Name, dry_run: DryRun = False) -> None:
    """Let a schedule rest; runs of it that were planned are taken back."""
    if dry_run:
        _find(name, dry_run=True)
        would(f"let the schedule {name} rest, and take back the runs of it that are planned")
        return
    _switch(name, active=False)
    output.say(f"✅ The schedule {name} rests until deploy schedule resume {name}.")


@schedule_app.command("resume", short_help="Let a schedule go on.")
def resume(name: Name, dry_run: DryRun = False) -> None:
    """Let a schedule go on from its next slot."""
    if dry_run:
        _find(name, dry_run=True)
        would(f"let the schedule {name} go on from its next slot")
        return
    _switch(name, active=True)
    output.say(f"✅ The schedule {name} goes on: deploy schedule list shows when it is due next.")


@schedule_app.command("remove", short_help="Remove a schedule.")
def remove(name: Name, dry_run: DryRun = False) -> None:
    """Remove a schedule; runs of it that were planned are taken back."""
    if name == SHIPPED:
        raise UsageError(f"The schedule {name} comes with each deploy up: deploy schedule pause {name} lets it rest.")
    deployment, schedule = _find(name, dry_run=dry_run)
    if dry_run:
        would(f"remove the schedule {name}, and take back the runs of it that are planned")
        return

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.delete_deployment_schedule(deployment, schedule)
    output.say(f"✅ The schedule {name} is removed.")


def _schedule(cron: str, rrule: str, timezone: str) -> CronSchedule | RRuleSchedule:
    """Make a schedule of one of the two spellings.

    Raises:
        UsageError: both are given, or none, or it is none, or the time zone is unknown.
    """
    from prefect.client.schemas.schedules import CronSchedule, RRuleSchedule
    from pydantic import ValidationError

    if bool(cron) == bool(rrule):
        raise UsageError("When? Give --cron or --rrule, and not both.")
    if cron and len(cron.split()) != 5:
        raise UsageError("--cron takes five fields: minute, hour, day of the month, month, day of the week.")
    try:
        if cron:
            return CronSchedule(cron=cron, timezone=timezone)
        return RRuleSchedule(rrule=rrule, timezone=timezone)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"That is no schedule: {why}.") from None


def _api() -> PrefectApi:
    from ashat.cli.control_plane.api import known_api
    from ashat.cli.control_plane.connect import running_state

    api = known_api(home())
    if api is None or (api.embedded and running_state(home()) is None):
        raise ControlPlaneError("The control plane, which keeps the schedules, does not run: deploy up starts it.")
    return api


def _deployment(api: PrefectApi) -> dict[str, Any]:
    found = api.ask("GET", f"/deployments/name/{DEPLOYMENT}")
    if not isinstance(found, dict) or not isinstance(found.get("schedules"), list):
        raise ControlPlaneError("Prefect has no deployment release: deploy up applies it.")
    return found


def _due(api: PrefectApi, deployment: str) -> dict[str, str]:
    """Read when each schedule is due next, by its id: the first run that Prefect has planned for it."""
    wanted = {
        "flow_runs": {"deployment_id": {"any_": [deployment]}, "state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": 200,
    }
    found: dict[str, str] = {}
    for run in api.ask("POST", "/flow_runs/filter", wanted) or []:
        maker = run.get("created_by") or {}
        if maker.get("id") and run.get("expected_start_time"):
            found.setdefault(str(maker["id"]), str(run["expected_start_time"]))
    return found


def _find(name: str, *, dry_run: bool = False) -> tuple[UUID, UUID]:
    """Find a schedule by its name, or by its id; the ids of the deployment and of the schedule."""
    from uuid import UUID

    ready(dry_run=dry_run)
    deployment = _deployment(_api())
    for schedule in deployment["schedules"]:
        if name in (schedule.get("slug"), schedule["id"]):
            return UUID(deployment["id"]), UUID(schedule["id"])
    raise NotConfiguredError(f"There is no schedule {name!r}: deploy schedule list shows those that there are.")


def _switch(name: str, *, active: bool) -> None:
    deployment, schedule = _find(name)

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.update_deployment_schedule(deployment, schedule, active=active)


def _words(schedule: dict[str, Any]) -> str:
    what = schedule.get("cron") or schedule.get("rrule") or f"each {schedule.get('interval')} s"
    return f"{what} ({schedule.get('timezone') or 'UTC'})"


def _parameter(schedule: dict[str, Any], deployment: dict[str, Any], name: str) -> str:
    given = {**(deployment.get("parameters") or {}), **(schedule.get("parameters") or {})}
    return str(given.get(name) or {"source": "raos", "target": "omega"}[name])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    from datetime import datetime

    mark = "▶" if one["active"] else "⏸"
    due = "rests" if not one["active"] else "is planned soon"
    if one["next"]:
        at = datetime.fromisoformat(one["next"])
        due = f"next {at:%Y-%m-%d %H:%M} UTC, in {output.span(at - output.now())}"
    return mark, one["name"] or one["id"], f"{one['source']} → {one['to']}", due, one["when"]
