"""Implement `deploy doctor`: what here, in the control plane and at the servers would keep a release from its way.

It asks and reads, and neither changes nor starts anything. All of it ends within `PLANE_SECONDS` and `SECONDS`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.output import Json
from ashat.cli.terminal.progress import waiting_for
from ashat.common import findings
from ashat.common.findings import Finding, Look, look_at_all, look_at_disk, look_at_private
from ashat.common.home import home
from ashat.errors import ControlPlaneError, LedgerError, NodeError, PolicyError, UsageError

if TYPE_CHECKING:
    from ashat.cli.control_plane.api import PrefectApi

PLANE_SECONDS = 15.0
SECONDS = 30.0


def doctor(as_json: Json = False) -> None:
    """Look for what is wrong here, in the control plane and at the servers, and say what to do. Exit code 1: something
    is wrong. Nothing is changed or started."""
    with waiting_for("looking here, at the control plane and at the servers"):
        found = examine()
    if as_json:
        output.show_json(findings.as_json(found))
    else:
        output.say("🩺 ASHAT Deploy: what was looked at")
        for line in findings.lines(found):
            output.say(f"  {line}")
    if findings.is_wrong(found):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Look at everything."""
    root = home()
    servers: list[dict[str, Any]] = []
    plane = look_at_all([Look("control plane", lambda: _look_at_plane(root, servers))], PLANE_SECONDS)
    return [*look_at_all(_looks_here(root), SECONDS), *plane, *look_at_all(_looks_there(root, servers), SECONDS)]


def _looks_here(root: Path) -> list[Look]:
    return [
        Look("version", _look_at_version),
        Look("settings", _look_at_settings),
        Look("home", lambda: _look_at_home(root)),
        Look("secrets", lambda: look_at_private("secrets", _secrets(root))),
        Look("disk", lambda: look_at_disk("disk", root)),
        Look("git", _look_at_git),
        Look("ledger", lambda: _look_at_ledger(root)),
    ]


def _looks_there(root: Path, servers: list[dict[str, Any]]) -> list[Look]:
    looks = [Look(str(server["block"]), partial(_look_at_server, server)) for server in servers]
    targets = [str(server["block"]) for server in servers if server.get("role") == "omega"] or ["omega"]
    return looks + [Look(f"root of {name}", partial(_look_at_root, root, name)) for name in targets]


def _look_at_version() -> Iterator[Finding]:
    from ashat import __version__
    from ashat.cli.control_plane.connect import require_prefect

    seen = f"ashat-deploy {__version__}, Python {platform.python_version()}"
    require_prefect()
    yield Finding("version", "ok", f"{seen}, Prefect {importlib.metadata.version('prefect')}")


def _look_at_settings() -> Iterator[Finding]:
    from pydantic import ValidationError

    from ashat.client.environment import for_others
    from ashat.settings import Settings

    try:
        Settings().passed_variables()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = f"ASHAT_{'_'.join(map(str, problem['loc']))}".upper()
            yield Finding("settings", "wrong", f"{name}: {problem['msg']}", f"correct {name}, or unset it")
    else:
        yield Finding("settings", "ok", "ASHAT_* can be read")
    for_others()
    yield Finding("settings", "ok", "the variables of proxies and certificates can be read")


def _look_at_home(root: Path) -> Iterator[Finding]:
    if not root.exists():
        yield Finding("home", "ok", f"{root} is not there yet; the first command that needs it makes it")
        return
    mode = stat.S_IMODE(root.stat().st_mode)
    if not root.is_dir():
        yield Finding("home", "wrong", f"{root} is no directory", "set ASHAT_HOME to one")
    elif not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("home", "wrong", f"{root} is not yours to use", "set ASHAT_HOME to a directory of yours")
    elif mode & 0o077:
        yield Finding("home", "warning", f"others may look into {root} (mode {mode:04o})", f"chmod 700 {root}")
    else:
        yield Finding("home", "ok", f"{root}, mode {mode:04o}")


def _secrets(root: Path) -> list[Path]:
    keys = [path for name in ("trust", "audit") for path in sorted((root / name).glob("**/*.pem"))]
    return [root / "control.password", root / "control.json", *keys]


def _look_at_git() -> Iterator[Finding]:
    found = shutil.which("git")
    if found is None:
        yield Finding("git", "wrong", "git is not there", "install git: a push says which commit it ships")
    else:
        yield Finding("git", "ok", found)


def _look_at_ledger(root: Path) -> Iterator[Finding]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    url = os.environ.get("ASHAT_LEDGER_URL") or f"sqlite:///{root / 'ledger.db'}"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        yield Finding("ledger", "wrong", "ASHAT_LEDGER_URL is no database's address", "see the guide: The ledger")
        return
    if parsed.get_backend_name() == "sqlite":
        yield from _look_at_sqlite(root, Path(parsed.database or ""))
    else:
        yield from _look_at_database(url, parsed.set(query={}).render_as_string(hide_password=True))


def _look_at_sqlite(root: Path, path: Path) -> Iterator[Finding]:
    from ashat.ledger.remembered import require_ledger, sqlite_address

    address = sqlite_address(root, path)
    if path.parent.exists() and not path.parent.is_dir():
        yield Finding("ledger", "wrong", f"{path.parent} is no directory", "set ASHAT_HOME or ASHAT_LEDGER_URL")
        return
    if not path.exists():
        require_ledger(root, address, origin="", events=0)
        yield Finding("ledger", "ok", f"none at {path} yet; the first update makes it")
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)) as connection:
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            origin, events = connection.execute("SELECT origin, size FROM log").fetchone()
    except (sqlite3.Error, TypeError, ValueError) as error:
        yield Finding("ledger", "wrong", f"{path} cannot be read: {error}", "restore it from a backup")
        return
    if state != "ok":
        yield Finding("ledger", "wrong", f"{path} is damaged: {state}", "restore it from a backup")
        return
    require_ledger(root, address, str(origin), int(events))
    yield Finding("ledger", "ok", f"{path}, {events} events; deploy audit verify looks at each")


class _NotThereError(LedgerError):
    """There is a database, and no ledger in it."""


def _look_at_database(url: str, shown: str) -> Iterator[Finding]:
    from ashat.ledger.database import open_engine

    def refuse() -> None:
        raise _NotThereError

    try:
        open_engine(url, before_making=refuse).dispose()
    except _NotThereError:
        yield Finding("ledger", "ok", f"{shown} answers, with no ledger yet; the first command makes it")
        return
    yield Finding("ledger", "ok", f"{shown} answers; deploy audit verify looks at the record")


def _look_at_plane(root: Path, servers: list[dict[str, Any]]) -> Iterator[Finding]:
    """Look at the control plane, and put what it knows of the servers into `servers`."""
    from ashat.cli.control_plane.api import known_api
    from ashat.cli.control_plane.connect import running_state

    api = known_api(root)
    unseen = Finding("servers, workers", "not looked at", "the control plane knows where they are")
    if api is None or (api.embedded and running_state(root) is None):
        todo = "deploy up starts it, as does any command that needs it"
        yield from (Finding("control plane", "warning", "it does not run", todo), unseen)
        return
    try:
        version = api.ask("GET", "/admin/version")
    except ControlPlaneError as error:
        todo = "deploy down, then deploy up" if api.embedded else "see PREFECT_API_URL and PREFECT_API_AUTH_STRING"
        yield from (Finding("control plane", "wrong", str(error), todo), unseen)
        return
    yield Finding("control plane", "ok", f"it answers at {api.url}, Prefect {version}")
    yield from _look_at_workers(api)
    yield from _look_at_channels(api)
    yield from _look_at_trackers(api)
    yield from _look_at_rollout_policy(api)
    servers += api.servers(secrets=True)
    for kind in ("public", "omega"):
        if not any(server.get("role") == kind for server in servers):
            yield Finding(f"{kind} server", "warning", "none is configured", f"deploy configure {kind} <url> <name>")


def _look_at_workers(api: PrefectApi) -> Iterator[Finding]:
    count = api.ask("POST", "/deployments/count", {})
    if not count:
        yield Finding("deployments", "wrong", "Prefect has none", "deploy up applies them")
    for pool in ("alpha", "control"):
        workers = api.workers(pool)
        if not workers:
            seen = "there is no such pool" if workers is None else "no worker polls it: what is started there waits"
            todo = "deploy up" if workers is None else f"deploy worker --pool {pool}, or deploy down and deploy up"
            yield Finding(f"pool {pool}", "wrong", seen, todo)
        else:
            yield Finding(f"pool {pool}", "ok", f"{workers} at work")


def _look_at_channels(api: PrefectApi) -> Iterator[Finding]:
    from ashat.common.channels import VARIABLE, channels_of

    kept = api.ask("GET", f"/variables/name/{VARIABLE}")
    added = kept.get("value") if isinstance(kept, dict) else None
    for channel in channels_of(os.environ.get("ASHAT_NOTIFY", ""), added):
        kind, _, name = channel.block.partition("/")
        if name and api.has_block(kind, name):
            seen = "its block is there; whether it is delivered is not looked at"
            yield Finding(f"channel {channel.block}", "ok", seen, f"deploy notify test {name}")
        else:
            todo = "make it in the UI under Blocks, or correct ASHAT_NOTIFY (type/name)"
            if channel.added:
                todo = f"deploy notify add makes it anew, deploy notify remove {name} forgets it"
            yield Finding(f"channel {channel.block}", "wrong", "there is no such block", todo)


def _look_at_trackers(api: PrefectApi) -> Iterator[Finding]:
    from ashat.common.trackers import VARIABLE, trackers_of

    kept = api.ask("GET", f"/variables/name/{VARIABLE}")
    for tracker in trackers_of(kept.get("value") if isinstance(kept, dict) else None):
        kind, _, name = tracker.block.partition("/")
        if api.has_block(kind, name):
            seen = "its block is there; whether it answers is not looked at"
            yield Finding(f"tracker {tracker.block}", "ok", seen, f"deploy tracker test {name}")
        else:
            todo = f"deploy tracker add makes it anew, deploy tracker remove {name} forgets it"
            yield Finding(f"tracker {tracker.block}", "wrong", "there is no such block", todo)


def _look_at_rollout_policy(api: PrefectApi) -> Iterator[Finding]:
    from ashat.rollouts.policy import policy_of_form

    name = os.environ.get("ASHAT_ROLLOUT_POLICY", "")
    if not name:
        return
    what, make = f"rollout policy {name}", f"deploy configure rollout-policy {name} FILE"
    block = api.block("raos-rollout-policy", name)
    if block is None:
        yield Finding(what, "wrong", "there is no such block", f"{make}, or correct ASHAT_ROLLOUT_POLICY")
        return
    try:
        policy = policy_of_form(block)
    except PolicyError as error:
        yield Finding(what, "wrong", str(error), f"change it in the UI under Blocks, or {make}")
        return
    waves = "a sequential test" if policy.waves == "sequential" else "; ".join(wave.spelled for wave in policy.rules())
    yield Finding(what, "ok", waves)


def _look_at_server(server: dict[str, Any]) -> Iterator[Finding]:
    from ashat.client.probe import look_at_server
    from ashat.protocol.messages import Role

    what, insecure = str(server["block"]), bool(server.get("insecure_http"))
    role = Role.OMEGA if server.get("role") == "omega" else Role.PUBLIC
    url, ca = str(server.get("url", "")), server.get("ca") or None
    answers = True
    for finding in look_at_server(what, url, role, ca=ca, insecure_http=insecure):
        answers = answers and finding.what not in (f"{what}, address", f"{what}, TLS, role, version, clock")
        answers = answers and not (finding.what == f"{what}, role" and finding.verdict == "wrong")
        yield finding
    if answers:
        yield from _look_at_token(what, url, role.value, ca, server.get("token"), insecure=insecure)
    else:
        yield Finding(f"{what}, token", "not looked at", "it is shown to nobody who is not the right server")


def _look_at_token(
    what: str, url: str, role: str, ca: str | None, token: object, *, insecure: bool
) -> Iterator[Finding]:
    from ashat.client.node import NodeClient, none_if_not_found
    from ashat.client.probe import QUICK, SOON

    name, again = f"{what}, token", f"ashat-node token add there, then deploy configure {role} again"
    if not isinstance(token, str) or not token:
        yield Finding(name, "wrong", "none is kept here", again)
        return
    try:
        with NodeClient(url, token=token, ca=ca, insecure_http=insecure, name=what, timeouts=QUICK) as node:
            info = none_if_not_found(node.token)
    except (NodeError, UsageError) as error:
        yield Finding(name, "wrong", str(error).removeprefix(f"{what}: "), again)
        return
    if info is None:
        yield Finding(name, "not looked at", "a node of this version does not say what it opens")
        return
    opens = ", ".join(info.opens)
    lacks = [scope for scope in (("push", "promote") if role == "omega" else ("push",)) if scope not in info.opens]
    if lacks:
        yield Finding(name, "warning", f"it opens {opens}, and not {', '.join(lacks)}: a dev's", "an owner's does")
    elif info.expires and info.expires - datetime.now(UTC) <= SOON:
        seen = f"it expires at {info.expires:%Y-%m-%d %H:%M} UTC"
        yield Finding(name, "warning", seen, f"ashat-node token rotate {info.id} there, then deploy configure")
    else:
        yield Finding(name, "ok", f"{info.id} opens {opens}")


def _look_at_root(root: Path, target: str) -> Iterator[Finding]:
    from ashat.client.probe import SOON
    from ashat.trust.authority.authority import Authority

    what, authority = f"root of {target}", Authority(root, target)
    if not authority.exists():
        seen = "nobody is named yet who approves: the first gate sets up the one-person mode, unless OMEGA pins a root"
        yield Finding(what, "warning", seen, "deploy trust init, before the first Mainframe is installed")
        return
    state, now = authority.read(), datetime.now(UTC)
    if not state.complete:
        yield Finding(what, "wrong", "too few have signed it", "deploy trust status says who is missing")
    for signed in (state.root.signed, state.targets.signed):
        seen = f"{signed.type} version {signed.version} ends at {signed.expires:%Y-%m-%d %H:%M} UTC"
        if signed.expires - now <= SOON:
            yield Finding(what, "wrong" if signed.expires <= now else "warning", seen, "deploy trust renew")
        else:
            yield Finding(what, "ok", seen)
