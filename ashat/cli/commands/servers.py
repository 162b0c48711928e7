"""Implement `deploy servers`: what each configured server runs now, and each Mainframe as its OMEGA knows it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.output import MAINFRAME_MARKS, Json
from ashat.cli.terminal.progress import waiting_for
from ashat.common.clocks import skew
from ashat.common.identifiers import name_of_release
from ashat.errors import AshatError
from ashat.ledger.summaries import summaries

if TYPE_CHECKING:
    from ashat.client.node import NodeClient
    from ashat.protocol.fleet import Mainframe
    from ashat.protocol.messages import Identity
    from blocks.listing import ServerBlock

_ANSWER_SECONDS = 10.0
_SHOWN = 40
_ASKED_MORE = 40


def servers(as_json: Json = False) -> None:
    """List the configured servers and the Mainframes: what each runs, or why it does not answer."""
    ready()

    from blocks.listing import configured_servers

    found = configured_servers()
    with waiting_for("asking the servers"), ThreadPoolExecutor(max_workers=8) as pool:
        rows = list(pool.map(_look, found))
        fleets = list(pool.map(_fleet, (row for row in rows if row["role"] == "omega" and row["answers"])))
    if as_json:
        output.show_json({"servers": rows, "mainframes": [one for fleet in fleets for one in fleet["mainframes"]]})
        return
    output.say("🖥️ Configured Servers")
    for line in output.columns(_rows(rows)):
        output.say(line)
    for fleet in fleets:
        _say_fleet(fleet)
    for row in rows:
        _say_troubles(row)


def anonymous(role: str, address: str, name: str, authority: str | None) -> NodeClient:
    """Make a client without a token: who a node is, it tells anyone."""
    from ashat.client.http import Timeouts
    from ashat.client.node import NodeClient
    from ashat.protocol.messages import Role
    from ashat.settings import Settings

    settings = Settings()
    return NodeClient(
        address,
        ca=authority,
        name=name,
        expect_role=Role(role),
        timeouts=Timeouts(settings.connect_timeout, min(settings.read_timeout, _ANSWER_SECONDS)),
    )


def runs_now(identity: Identity) -> str:
    """Say what a server runs, and how its program is."""
    current = identity.current
    if current is None:
        return "runs nothing yet"
    attempt = f"#{current.attempt}" if current.attempt > 1 else ""
    return f"runs {current.update_id}{attempt} (bundle {current.bundle[:12]}, {identity.status})"


def _look(server: ServerBlock) -> dict[str, Any]:
    """Ask a configured server what it runs; its token is neither needed nor loaded."""
    row: dict[str, Any] = {"block": server.block, "role": server.role, "name": server.title, "url": server.url}
    try:
        with anonymous(server.role, server.url, server.title, server.ca) as node:
            identity = node.check_role()
    except AshatError as error:
        return {**row, "answers": False, "status": None, "current": None, "error": str(error)}
    current = identity.current.model_dump(mode="json") if identity.current else None
    return {
        **row,
        "answers": True,
        "status": identity.status,
        "current": current,
        "runs": runs_now(identity),
        "lost": identity.lost,
        "clock": skew(identity.time, f"that of {server.title}") if identity.time else "",
        "time": identity.time,
        "error": None,
    }


def _fleet(row: dict[str, Any]) -> dict[str, Any]:
    """Ask an OMEGA for its Mainframes, with its token; `error` says why it does not list them."""
    from blocks.server import load_server

    block = str(row["block"])
    at = row["time"] or output.now()
    try:
        named = _updates(block)
        with load_server(block).client() as node:
            found = node.mainframes()
            ran = {one.id: _ran(node, one) for one in _did_not_take(found)[:_ASKED_MORE]}
    except AshatError as error:
        return {"name": row["name"], "mainframes": [], "error": str(error)}
    shown = [_mainframe(block, one, named, ran.get(one.id, ""), at) for one in found]
    return {"name": row["name"], "mainframes": shown, "error": ""}


def _did_not_take(found: list[Mainframe]) -> list[Mainframe]:
    return [one for one in found if one.result == "failed" and one.status == "active"]


def _ran(node: NodeClient, one: Mainframe) -> str:
    """Find the bundle that a Mainframe reported to run before it failed to take another; "" where it never did."""
    return next((report.bundle for report in node.mainframe_reports(one.id) if report.result == "running"), "")


def _updates(block: str) -> dict[str, str]:
    """List the update that brought each bundle to that OMEGA, as the record has it; the newest, where several did."""
    found = [s for s in summaries() if s["target"] == block and s["release_seq"] and s["bundle"]]
    return {str(s["bundle"]): str(s["update_id"]) for s in sorted(found, key=lambda s: int(s["release_seq"]))}


def _mainframe(block: str, one: Mainframe, named: dict[str, str], ran: str, at: datetime) -> dict[str, Any]:
    reported = name_of_release(one.bundle, named.get(one.bundle or "", ""))
    told = {
        "none": "has reported nothing yet",
        "running": f"runs {reported}",
        "failed": f"did not take {reported}",
    }[one.result]
    if ran:
        told += f"; the last it reported to run is {name_of_release(ran, named.get(ran, ''))}"
    if one.old_protocol and not one.reason:
        told += "; UNVERIFIED: it asks by the old protocol"
    if one.waits:
        told += f"; {one.waits}"
    reason = "".join(f": {why}" for why in (one.reason, one.journal) if why)
    seen = f"seen {output.span(at - one.last_seen)} ago" if one.last_seen else "never seen"
    return {"omega": block, **one.model_dump(mode="json"), "seen": seen, "told": told + reason}


def _rows(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    yield "ALPHA (localhost)", "", "", "this machine"
    for row in rows:
        kind = str(row["role"]).upper()
        shown = kind if row["block"] == row["role"] else f"{kind} ({row['block']})"
        yield shown, row["name"], row["url"], f"✅ {row['runs']}" if row["answers"] else f"❌ {row['error']}"
    for kind in ("public", "omega"):
        if not any(row["role"] == kind for row in rows):
            yield kind.upper(), "", "", f"not configured: deploy configure {kind} <url> <name>"


def _say_fleet(fleet: dict[str, Any]) -> None:
    """List the Mainframes of an OMEGA; of many, those first that do not run what they were offered."""
    output.say()
    if fleet["error"]:
        output.say(f"Mainframes of {fleet['name']}: not listed, {fleet['error']}")
        return
    found = sorted(fleet["mainframes"], key=lambda one: (one["result"] == "running", one["name"]))
    output.say(f"Mainframes of {fleet['name']}" + ("" if found else ": none is licensed"))
    for line in output.columns(_mainframe_row(one) for one in found[:_SHOWN]):
        output.say(line)
    if len(found) > _SHOWN:
        output.say(f"  … and {len(found) - _SHOWN} more: deploy servers --json lists all.")


def _mainframe_row(one: dict[str, Any]) -> tuple[str, str, str, str]:
    if one["status"] != "active":
        return "🚫", one["name"], one["seen"], f"its licence is {one['status']}; {one['told']}"
    return MAINFRAME_MARKS.get(one["result"], "⏳"), one["name"], one["seen"], one["told"]


def _say_troubles(row: dict[str, Any]) -> None:
    if row.get("lost"):
        output.say(f"⚠️ {row['name']}: its store lost what it needs: deploy heal {row['block']}")
    if row.get("clock"):
        output.say(f"⚠️ {row['clock'][0].upper()}{row['clock'][1:]}: one of the two is wrong.")
    if row["role"] == "omega":
        _say_who_approves(row)


def _say_who_approves(row: dict[str, Any]) -> None:
    from ashat.settings import Settings
    from ashat.trust.authority.authority import one_person_line

    if line := one_person_line(Settings().home, str(row["block"])):
        output.say(f"⚠️ Approvals for {row['name']}: {line}")
