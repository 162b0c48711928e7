"""How fast a team's control plane takes an approval to OMEGA, and whether it loses or doubles a release.

    python bench/team.py [--approvals 3] [--releases 20] [--listed 10000] [--requests 10000] [--json]

PostgreSQL and Redis are real, and so are nginx, three API servers, the services, four workers, a Public Server, an
OMEGA and a Mainframe, all on this machine (`tests/support/processes/team.py` starts what docs/team.md shows).

- `approve_to_switch_s`: from the moment in which Prefect accepts a gate's answer until OMEGA runs the bundle; median.
- `status_s`: `deploy status` as a whole process with a ledger of 10,000 releases on PostgreSQL; median. A hundredth of
  them is written through the ledger; their rows in the list, all that this reads, are repeated under other ids.
- `lost`, `doubled`: so many of the releases that were all asked for at once, of four workers by three API servers, have
  no gate that waits; or have an event, or a gate's run, twice that there may be once.
- `bluegreen_requests`, `bluegreen_failed`: as `bench/bluegreen.py` has them.

What was not to be measured is null.

A figure that is over its limit ends it with 1; one that is null does not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ashat.ledger.copying import dump_ledger, load_ledger  # noqa: E402
from ashat.ledger.ledger import Ledger  # noqa: E402
from bench.bluegreen import REQUESTS, measure_bluegreen  # noqa: E402
from bench.cli import _environment, _measure, _memory, fill  # noqa: E402
from tests.support.builders.databases import new_postgresql_database  # noqa: E402
from tests.support.needs import missing  # noqa: E402
from tests.support.processes.stack import copy_sample, eventually  # noqa: E402
from tests.support.processes.team import Team  # noqa: E402

LIMITS = {"approve_to_switch_s": 6.0, "status_s": 0.4, "lost": 0, "doubled": 0, "bluegreen_failed": 0}
_ONCE = ("created", "packaged", "pushed", "verified", "gate_opened")
_API_SERVERS = 3
_REPEATED = 100
_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 3600.0


def main() -> int:
    """Print the figures, or one JSON object; 1 where one is over its limit, 2 where something is missing here."""
    options = _options()
    if lacking := [why for need in ("postgresql", "redis", "nginx") if (why := missing(need))]:
        print(f"Nothing was measured: {'; '.join(lacking)}", file=sys.stderr)
        return 2
    result: dict[str, Any] = {"approve_to_switch_s": None, "status_s": None, "lost": None, "doubled": None}
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
        if options.listed:
            result["status_s"] = _status(Path(directory), options.listed, options.runs)
        if options.approvals or options.releases:
            result |= _with_a_team(Path(directory) / "team", options.approvals, options.releases)
    result |= {"bluegreen_requests": None, "bluegreen_failed": None}
    if options.requests:
        switched = measure_bluegreen(options.requests)
        result |= {name: switched[name] for name in ("bluegreen_requests", "bluegreen_failed")}
    within = {name: None if result[name] is None else result[name] <= limit for name, limit in LIMITS.items()}
    print(json.dumps({**result, "reached": within}, indent=2) if options.json else _table(result, options))
    return 1 if False in within.values() else 0


def _with_a_team(directory: Path, approvals: int, releases: int) -> dict[str, Any]:
    directory.mkdir()
    os.environ.setdefault("ASHAT_TEST_HOMES", str(directory))
    found: dict[str, Any] = {}
    with Team(directory, api_servers=_API_SERVERS) as team:
        if approvals:
            times = [_approval(team, number) for number in range(1, approvals + 1)]
            found["approve_to_switch_s"] = round(statistics.median(times), 2)
            found["approve_to_switch_all_s"] = [round(seconds, 2) for seconds in times]
        if releases:
            team.start("ashat-worker@alpha", "--name", "alpha-2", name="alpha-2")
            team.start("ashat-worker@control", "--name", "control-2", name="control-2")
            found |= _at_once(team, directory / "sources", releases)
    return found


def _approval(team: Team, number: int) -> float:
    """Measure one approval: the seconds from its answer until OMEGA runs what was approved."""
    update_id = f"UPD-{number}"
    team.change(f"for {update_id}")
    team.deploy("push", update_id, "A release", "--allow-dirty")
    team.deploy("verify", update_id)
    state = team.wait_asked(update_id)
    with team.omega.client() as omega:
        answered = team.answer(state, "approve", "however noisy it was")
        began = time.perf_counter()
        if answered["status"] != "ACCEPT":
            raise SystemExit(f"Prefect took no answer: {answered}")
        while (current := omega.identity().current) is None or current.bundle != state.bundle:
            if time.perf_counter() - began > _PATIENCE_SECONDS:
                raise SystemExit(f"OMEGA did not run {update_id} within an hour.")
            time.sleep(_LOOK_SECONDS)
        seconds = time.perf_counter() - began
    team.wait(update_id, lambda newest: newest.ended, seconds=_PATIENCE_SECONDS)
    return seconds


def _at_once(team: Team, sources: Path, releases: int) -> dict[str, Any]:
    """Ask for all releases at once, each of a source of its own, and count those that have no gate or two."""
    names = [f"S-{number}" for number in range(1, releases + 1)]
    for name in names:
        copy_sample(sources / name)
        module = sources / name / "Modules" / "Chat" / "__init__.py"
        module.write_text(f"{module.read_text()}\n# of {name}\n")
        team.deploy("configure", "source", name.lower(), str(sources / name))
    began = time.perf_counter()
    runs = {
        name: team.start_run(
            "release/release", update_id=name, description="One of many", source=name.lower(), allow_dirty=True
        )
        for name in names
    }
    for run in runs.values():
        team.wait_ended(run, _PATIENCE_SECONDS)
    eventually(lambda: all(_waits(team, name) for name in names), "every gate to be asked", _PATIENCE_SECONDS / 6)
    seconds = time.perf_counter() - began
    with Ledger.open(team.ledger_url) as ledger:
        kinds = {
            name: Counter(str(event.kind) for event in ledger.events(name, 1)) for name in names if ledger.find(name)
        }
        twice = {name for name, seen in kinds.items() if any(seen[kind] > 1 for kind in _ONCE) or ledger.find(name, 2)}
    gates = Counter(run["name"] for run in team.suspended())
    twice |= {name for name in names if gates[f"approve {name}"] > 1}
    lost = [name for name in names if name not in kinds or gates[f"approve {name}"] < 1]
    return {"lost": len(lost), "doubled": len(twice), "releases": releases, "releases_s": round(seconds, 1)}


def _waits(team: Team, update_id: str) -> bool:
    if not team.ran(update_id):
        return False
    gate = team.state(update_id).gate
    return gate is not None and bool(gate.run) and team.run(gate.run)["state_name"] == "Suspended"


def _status(directory: Path, listed: int, runs: int) -> float:
    """Measure `deploy status` with so many releases in a ledger on PostgreSQL."""
    with ExitStack() as closing:
        url = closing.enter_context(new_postgresql_database()).render_as_string(hide_password=False)
        quick = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="ashat-bench-", dir=_memory())))
        fill(quick, max(listed // _REPEATED, 1))
        dump_ledger(f"sqlite:///{quick / 'ledger.db'}", directory / "ledger.jsonl")
        load_ledger(url, directory / "ledger.jsonl")
        _repeat(url)
        environment = _environment(directory / "home") | {"ASHAT_LEDGER_URL": url}
        return round(statistics.median(wall for wall, _ in _measure(("status",), environment, runs)), 3)


def _repeat(url: str) -> None:
    """Have each row of the list `_REPEATED` times, under ids of their own."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO sessions SELECT update_id || '-' || n, attempt, version, stage, target, pushed_by, "
            "NULL, NULL, created_at, updated_at, replace(summary, update_id, update_id || '-' || n) "
            f"FROM sessions, generate_series(1, {_REPEATED - 1}) n WHERE stage = 'Completed'"
        )
    engine.dispose()


def _table(result: dict[str, Any], options: argparse.Namespace) -> str:
    def line(words: str, name: str) -> str:
        value, limit = result[name], LIMITS[name]
        if value is None:
            return f"{words:<62} not measured"
        return f"{words:<62} {value:>7} (limit {limit}{'' if value <= limit else ', NOT reached'})"

    lines = [
        line("from the answer at the gate to OMEGA's switch, seconds", "approve_to_switch_s"),
        line(f"deploy status with {options.listed} releases on PostgreSQL, seconds", "status_s"),
        line(f"of {options.releases} releases at once: lost", "lost"),
        line(f"of {options.releases} releases at once: doubled", "doubled"),
        line(f"of {options.requests} requests during blue-green switches: failed", "bluegreen_failed"),
    ]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--approvals", type=int, default=3, help="how many are measured; 0: none")
    parser.add_argument("--releases", type=int, default=20, help="how many at once; 0: none")
    parser.add_argument("--listed", type=int, default=10_000, help="how many deploy status has to do with; 0: skip it")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="while a node with two slots switches; 0: none")
    parser.add_argument("--runs", type=int, default=15, help="of deploy status")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
