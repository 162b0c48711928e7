"""Implement `deploy fleet`: the Mainframes of an OMEGA, what each runs, when it was seen, and how it is labelled."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.commands.ages import parse_age
from ashat.cli.control_plane.omega import Omega, open_omega
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import MAINFRAME_MARKS, Json
from ashat.errors import UsageError
from ashat.ledger.summaries import summaries
from ashat.rollouts.labels import matches, parse_label

if TYPE_CHECKING:
    from ashat.client.node import NodeClient
    from ashat.protocol.fleet import Mainframe

fleet_app = typer.Typer(help="The Licensed Mainframes of an OMEGA.", invoke_without_command=True)
_COLUMNS = ("id", "name", "status", "result", "version", "bundle", "release_seq", "last_seen", "labels", "told")
_WATCH_SECONDS = 2.0


@fleet_app.callback()
def fleet(
    context: typer.Context,
    label: Annotated[list[str] | None, typer.Option(help="Only those with this label, key=value; repeat it.")] = None,
    version: Annotated[str, typer.Option(help="Only those that run this update, or a bundle of this digest.")] = "",
    failed: Annotated[
        bool, typer.Option("--failed", help="Only those that did not take what they were offered.")
    ] = False,
    stale: Annotated[str, typer.Option(metavar="AGE", help="Only those not seen for that long: 30m, 12h, 7d.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 50,
    omega: Omega = "",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, with a line of names.")] = False,
) -> None:
    """List the Mainframes, those first that need somebody. Without --limit, 50."""
    if context.invoked_subcommand is not None:
        return
    wanted = [parse_label(text) for text in label or ()]
    age = parse_age(stale, "--stale") if stale else None
    with open_omega(omega) as node:
        found = node.mainframes()
    named = _updates()
    chosen = [
        one
        for one in found
        if all(matches(one.labels, f"{key}={value}") for key, value in wanted)
        and (not version or version in (named.get(one.bundle or "", ""), one.bundle))
        and (not failed or one.result == "failed")
        and (age is None or one.last_seen is None or output.now() - one.last_seen >= age)
    ]
    _tell(sorted(chosen, key=_needs)[:limit], len(chosen), len(found), named, as_json=as_json, as_csv=as_csv)


@fleet_app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")],
    omega: Omega = "",
    as_json: Json = False,
) -> None:
    """Show everything that OMEGA knows of one Mainframe, and what it reported."""
    with open_omega(omega) as node:
        one = find_mainframe(node, name)
        reports = node.mainframe_reports(one.id)
    named = _updates()
    if as_json:
        told = {**one.model_dump(mode="json"), "reports": [each.model_dump(mode="json") for each in reports]}
        output.show_json(told)
        return
    output.say(f"{MAINFRAME_MARKS.get(one.result, '⏳')} {one.name} ({one.id}): its licence is {one.status}")
    output.say(f"  {_runs(one, named)}, {_seen(one)}")
    if one.labels:
        output.say(f"  labels: {_labels(one.labels)}")
    if one.twin_at:
        output.say(f"  ⚠️ two machines used this licence, last at {one.twin_at:%Y-%m-%d %H:%M:%S} UTC")
    for words in filter(None, (one.reason, one.journal, one.waits)):
        output.say(f"  {words}")
    for line in output.columns(
        (str(each.release_seq), named.get(each.bundle, each.bundle[:12]), each.result, each.reason) for each in reports
    ):
        output.say(line)


@fleet_app.command()
def label(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")],
    labels: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Labels to give it; KEY- takes one away.")
    ],
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Give a Mainframe labels, by which a rollout policy may choose its wave. It keeps its others."""
    given = dict(parse_label(text) for text in labels if not text.endswith("-"))
    gone = {text[:-1] for text in labels if text.endswith("-")}
    with open_omega(omega, dry_run=dry_run) as node:
        one = find_mainframe(node, name)
        kept = {key: value for key, value in {**one.labels, **given}.items() if key not in gone}
        if dry_run:
            would(f"label {one.name}: {_labels(kept) or 'no labels'}; now: {_labels(one.labels) or 'no labels'}")
            return
        one = node.label(one.id, kept)
    output.say(f"{one.name}: {_labels(one.labels) or 'no labels'}")


@fleet_app.command()
def at(
    moment: Annotated[str, typer.Argument(metavar="TIME", help="Such as 2026-11-30T12:00:00Z.")],
    omega: Omega = "",
    as_json: Json = False,
) -> None:
    """Show which release each Mainframe had reported to run at a time, from what OMEGA kept."""
    when = _moment(moment)
    with open_omega(omega) as node:
        found = node.fleet_at(when)
    named = _updates()
    if as_json:
        output.show_json({"at": when, "mainframes": [each.model_dump(mode="json") for each in found]})
        return
    for line in output.columns(
        (each.name, named.get(each.bundle, each.bundle[:12]) if each.bundle else "had reported nothing to run")
        for each in found
    ):
        output.say(line)


@fleet_app.command()
def watch(
    omega: Omega = "", rounds: Annotated[int, typer.Option(min=0, help="Stop after so many looks; 0: never.")] = 0
) -> None:
    """Show every two seconds how many Mainframes run what; a line whenever that has changed. Ctrl-C ends it."""
    shown, looks, named = "", 0, _updates()
    with open_omega(omega, tells=True) as node:
        while True:
            line = _counted(node.mainframes(), named)
            if line != shown:
                output.say(f"{output.now():%H:%M:%S}  {line}")
                shown = line
            looks += 1
            if rounds and looks >= rounds:
                return
            time.sleep(_WATCH_SECONDS)


def find_mainframe(node: NodeClient, name: str) -> Mainframe:
    """Find the Mainframe with that name, or id.

    Raises:
        UsageError: there is none, or several have that name.
    """
    found = [one for one in node.mainframes() if name in (one.id, one.name)]
    if not found:
        raise UsageError(f"{node.name} has no Mainframe {name!r}: deploy fleet lists them.")
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise UsageError(f"{node.name} has {len(found)} Mainframes called {name!r}; say which by its id: {ids}.")
    return found[0]


def _tell(
    shown: list[Mainframe], chosen: int, total: int, named: dict[str, str], *, as_json: bool, as_csv: bool
) -> None:
    if as_json:
        output.show_json(
            {"mainframes": [one.model_dump(mode="json") for one in shown], "matching": chosen, "all": total}
        )
        return
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_record(one, named) for one in shown)
        return
    if not total:
        output.say("No Mainframe is licensed: deploy licences create, or ashat-node licence add on OMEGA's machine.")
    for line in output.columns(
        (MAINFRAME_MARKS.get(one.result, "⏳"), one.name, _seen(one), _runs(one, named), _labels(one.labels))
        for one in shown
    ):
        output.say(line)
    if total:
        more = f", the first {len(shown)} shown" if len(shown) < chosen else ""
        output.say(f"{chosen} of {total} Mainframes{more}")


def _record(one: Mainframe, named: dict[str, str]) -> tuple[object, ...]:
    seen = one.last_seen.isoformat() if one.last_seen else ""
    told = "; ".join(filter(None, (one.reason, one.journal, one.waits)))
    update = named.get(one.bundle or "", "")
    return (
        one.id,
        one.name,
        one.status,
        one.result,
        update,
        one.bundle,
        one.release_seq,
        seen,
        _labels(one.labels),
        told,
    )


def _needs(one: Mainframe) -> tuple[int, str]:
    """Sort those first that failed, then those that said nothing."""
    return {"failed": 0, "none": 1}.get(one.result, 2), one.name


def _runs(one: Mainframe, named: dict[str, str]) -> str:
    if one.bundle is None:
        return "has reported nothing" + (f"; offered nothing now: {one.held}" if one.held else "")
    what = named.get(one.bundle, one.bundle[:12])
    held = f"; offered nothing now: {one.held}" if one.held else ""
    unverified = "UNVERIFIED: " if one.old_protocol else ""
    why = f": {one.reason}" if one.reason else ""
    return f"{unverified}{'runs' if one.result == 'running' else 'did not take'} {what}{why}{held}"


def _seen(one: Mainframe) -> str:
    return f"seen {output.span(output.now() - one.last_seen)} ago" if one.last_seen else "never seen"


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _counted(found: list[Mainframe], named: dict[str, str]) -> str:
    counts: dict[str, int] = {}
    for one in found:
        what = f"{one.result} {named.get(one.bundle, one.bundle[:12])}" if one.bundle else "silent"
        counts[what] = counts.get(what, 0) + 1
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _updates() -> dict[str, str]:
    """List the update that brought each bundle, as the record has it; the newest, where several did."""
    found = [one for one in summaries() if one["release_seq"] and one["bundle"]]
    return {str(one["bundle"]): str(one["update_id"]) for one in sorted(found, key=lambda one: int(one["release_seq"]))}


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{text[:40]!r} is no time; write it as 2026-11-30T12:00:00Z.") from None
