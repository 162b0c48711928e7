"""What machines that die and a network that loses do to rollouts: they are late, and nothing else.

    python bench/chaos.py [--mainframes 200] [--seed 1] [--json]

A whole stack runs as processes: a control plane with its `approve` flow, Public, and an OMEGA whose fleet is in a
PostgreSQL of its own (in SQLite where that cannot be started here: `database` says which). The Mainframes are simulated
(`bench/chaos_agents.py`): they speak the real protocol over real sockets through a proxy that delays, loses and cuts.
Three releases go from a push to the end of their rollouts:

1. one to everybody, so that there is something to go back to;
2. one in three waves. While they are under way a tenth of the Mainframes is killed and started again in each, OMEGA is
   killed with SIGKILL, so is the control plane with all its flow runs, and so is the database; each is started again.
   The rollout must complete, and each Mainframe be accounted for exactly once: by its row, by its one report, by the
   counters of the waves, and by what its own disk says that it runs;
3. one that breaks 30 % of the Mainframes, under a threshold of 5 % that rolls all back, through the same network. No
   more may break than the forecast that the gate shows says for that rate at most, nobody may be offered it in a wave
   that was not open, and nobody may keep it.

`broken` lists the promises that did not hold; where it is not empty the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chaos_agents import Crowd  # noqa: E402
from fleet_kit import account, license_fleet  # noqa: E402

from ashat.common.identifiers import licence_id  # noqa: E402
from ashat.deployment.state_machine import Stage, State  # noqa: E402
from ashat.errors import NodeError  # noqa: E402
from ashat.node.omega.fleet.barred import running  # noqa: E402
from ashat.node.omega.fleet.database import FILE, FleetDatabase  # noqa: E402
from ashat.protocol.fleet import RolloutState  # noqa: E402
from ashat.protocol.messages import Role  # noqa: E402
from ashat.rollouts.forecast import forecast  # noqa: E402
from ashat.rollouts.policy import RolloutPolicy  # noqa: E402
from tests.support.processes.fragile_stack import FragileStack  # noqa: E402
from tests.support.processes.node import NodeProcess, to_toml  # noqa: E402
from tests.support.processes.postgresql import OwnPostgresql, lacking  # noqa: E402
from tests.support.processes.stack import eventually  # noqa: E402

RATE = 30
FIRST, SECOND, BAD = "CHAOS-1", "CHAOS-2", "CHAOS-3"
WAVES = ["canary: 10", "early: 25 %", "everyone: rest"]
COMMON: dict[str, Any] = {"waves": WAVES, "soak_seconds": 2, "mainframe_seconds": 120}
GOOD_POLICY = {**COMMON, "success_percent": 90, "at_once": 40}
BAD_POLICY = {**COMMON, "success_percent": 50, "failure_percent": 5, "at_once": 20, "on_failure": "roll-back-all"}
_DOWN_SECONDS = 2.0
_KILL_SECONDS = 12.0
_GIVE_UP_SECONDS = 600.0


class ChaosStack(FragileStack):
    """A stack without Mainframes of its own, whose control plane goes on by itself with what died, and whose OMEGA
    keeps the fleet in the database at `url`; "": in a file."""

    def __init__(self, directory: Path, url: str) -> None:
        super().__init__(directory, mainframes=0)
        self._reconciles = True
        self._dsn = directory / "dsn"
        self._dsn.touch(0o600)
        self._dsn.write_text(url)

    @property
    def environment(self) -> dict[str, str]:
        """As any fragile stack's; it looks every few seconds for what died."""
        return {**super().environment, "ASHAT_RECONCILE_SECONDS": "5"}

    def _node(self, name: str, role: Role, **options: Any) -> NodeProcess:
        if role is Role.OMEGA and self._dsn.stat().st_size:
            options["settings"] = {**options.get("settings", {}), "fleet_dsn_file": str(self._dsn)}
        return super()._node(name, role, **options)

    @property
    def fleet(self) -> str | Path:
        """Where OMEGA's fleet is."""
        url = self._dsn.read_text()
        return url or self.omega.data / FILE


def main() -> int:
    """Print what happened, or one JSON object; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mainframes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of whatever chance decides, but for when it happens")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as name, ExitStack() as stack:
        os.environ.setdefault("ASHAT_TEST_HOMES", name)
        why = lacking()
        database = None if why else stack.enter_context(OwnPostgresql())
        bench = Bench(Path(name), options.mainframes, options.seed, database)
        result = {"mainframes": options.mainframes, "database": "PostgreSQL" if database else f"SQLite: {why}"}
        result |= stack.enter_context(bench.running()).measure()
    print(json.dumps(result) if options.json else "\n".join(f"{name:24}{value}" for name, value in result.items()))
    return 1 if result["broken"] else 0


class Bench:
    """The three releases over one stack and one crowd of Mainframes."""

    def __init__(self, directory: Path, mainframes: int, seed: int, database: OwnPostgresql | None) -> None:
        draw = random.Random(seed)
        self._keys = [f"RACORE-{'-'.join(f'{draw.getrandbits(32):08X}' for _ in range(3))}" for _ in range(mainframes)]
        self._seed, self._database, self._directory = seed, database, directory
        self._tenth = -(-mainframes // 10)
        self._bad_keys = frozenset(draw.sample(self._keys, round(mainframes * RATE / 100)))
        self.broken: list[str] = []
        self._killed = {"omega": 0, "control_plane": 0, "database": 0}

    @contextmanager
    def running(self) -> Iterator[Bench]:
        """Start everything."""
        url = self._database.url if self._database else ""
        with ChaosStack(self._directory, url) as self.stack:
            self.stack.omega.stop()
            license_fleet(self.stack.omega.data, self.stack.omega.config if url else None, self._keys)
            self.stack.omega.start()
            with Crowd(self._keys, self.stack.omega.port, self._seed) as self.crowd:
                yield self

    def measure(self) -> dict[str, Any]:
        """Let the three releases go out."""
        began = time.monotonic()
        self._approve(FIRST, None)
        first = self._end(FIRST, Stage.COMPLETED)
        second, bundle = self._through_chaos()
        bad = self._bad_release(bundle)
        seen = self.crowd.seen()
        network = self.crowd.network.seen
        return {
            "seconds": round(time.monotonic() - began, 1),
            "first": self._table(FIRST, first),
            "chaos": second,
            "bad": bad,
            "mainframes_killed": sum(self.crowd.killed.values()),
            "mainframes_killed_distinct": len(self.crowd.killed),
            "killed": self._killed,
            "network": dict(network),
            "unheard": dict(seen.most_common()),
            "broken": self.broken,
        }

    # The releases

    def _through_chaos(self) -> tuple[dict[str, Any], str]:
        """Kill what there is while a release goes out; what came of it, and its bundle."""
        began = time.monotonic()
        self._approve(SECOND, GOOD_POLICY)
        kills = []
        for wave, disturb in enumerate((self._kill_omega, self._kill_control_plane, self._kill_database)):
            self._wait_in_wave(SECOND, wave)
            kills.append(self.crowd.kill_at_random(self._tenth, _KILL_SECONDS))
            disturb()
        state = self._end(SECOND, Stage.COMPLETED)
        for each in kills:
            each.result(60)
        told = {**self._table(SECOND, state), "seconds": round(time.monotonic() - began, 1)}
        return told, str(state.bundle)

    def _bad_release(self, before: str) -> dict[str, Any]:
        """Let one go out that breaks many; `before` is the bundle that runs."""
        began = time.monotonic()
        self.crowd.broken = (BAD, self._bad_keys)
        self._approve(BAD, BAD_POLICY)
        kill = self.crowd.kill_at_random(self._tenth, _KILL_SECONDS)
        state = self._end(BAD, Stage.ROLLED_BACK)
        kill.result(60)
        bundle = str(state.bundle)
        seen = self._rollout(BAD)
        sizes = [wave.counts.size for wave in seen.waves]
        (wanted,) = forecast(RolloutPolicy.model_validate(BAD_POLICY), sizes, (RATE,))
        broke = sum(BAD in each.disk.failed for each in self.crowd.mainframes.values())
        touched = seen.counts.size - seen.counts.waiting
        self._hold("more broke than was forecast", broke <= wanted.at_most)
        opened = sum(wave.counts.size for wave in seen.opened)
        self._hold("it was offered in a wave that was not open", touched <= opened)
        self._wait_for("somebody keeps the bad release", lambda: self.crowd.running(bundle) == 0)
        self._wait_for("not all run what ran before", lambda: self.crowd.running(before) == len(self._keys))
        return {
            "broke": broke,
            "touched": touched,
            "waves_opened": len(seen.opened),
            "forecast_at_most": wanted.at_most,
            "forecast_expected": wanted.expected,
            "without_waves": wanted.unstopped,
            "stopped_because": state.rollback_reason,
            "keep_it": self.crowd.running(bundle),
            "run_what_ran_before": self.crowd.running(before),
            "seconds": round(time.monotonic() - began, 1),
        }

    def _approve(self, update: str, policy: dict[str, Any] | None) -> None:
        """Push, verify, and say yes; what follows happens by itself."""
        if policy is not None:
            file = self._directory / "rollout.toml"
            file.write_text(to_toml(policy))
            self.stack.deploy("configure", "rollout-policy", "default", str(file))
        self.stack.change(update)
        self.stack.deploy("push", update, "Through chaos", "--allow-dirty")
        self.stack.deploy("verify", update)
        accepted = self.stack.answer(self.stack.wait_asked(update), "approve", "it was noisy")
        assert accepted["status"] == "ACCEPT", accepted

    def _end(self, update: str, stage: Stage) -> State:
        state = self.stack.wait(update, lambda state: state.ended, _GIVE_UP_SECONDS)
        self._hold(f"{update} is {state.stage}, not {stage}", state.stage is stage)
        return state

    # What dies

    def _kill_omega(self) -> None:
        self.stack.omega.kill9()
        time.sleep(_DOWN_SECONDS)
        self.stack.omega.start()
        self._killed["omega"] += 1

    def _kill_control_plane(self) -> None:
        self.stack.kill_control_plane()
        self.stack.deploy("up", "--detach")
        self._killed["control_plane"] += 1

    def _kill_database(self) -> None:
        if self._database is None:
            return self._kill_omega()
        self._database.kill()
        time.sleep(_DOWN_SECONDS)
        self._database.start()
        self._killed["database"] += 1
        return None

    def _wait_in_wave(self, update: str, wave: int) -> None:
        """Wait until some of a wave run the release and others do not yet."""

        def look() -> bool:
            counts = self._rollout(update).waves[wave].counts
            return bool(counts.succeeded and counts.open)

        eventually(look, f"the middle of wave {wave} of {update}", _GIVE_UP_SECONDS)

    # What holds

    def _table(self, update: str, state: State) -> dict[str, Any]:
        """Account for each Mainframe of a rollout, and hold that against what the Mainframes themselves know."""
        seen = self._rollout(update)
        database = FleetDatabase(self.stack.fleet)
        found = account(database, seen.id, seen.offer.release_seq)
        with database.reading() as connection:
            ran = running(connection)
        database.close()
        for fault in found.faults(len(self._keys)):
            self._hold(f"{update}: {fault}", False)
        mainframes = self.crowd.mainframes
        truth = {licence_id(key): each.disk.position.current_bundle for key, each in mainframes.items()}
        wrong = sum(truth[one] != bundle for one, bundle in ran.items()) + len(truth.keys() - ran.keys())
        doubled = sum(each.disk.switches[seen.offer.release_seq] > 1 for each in mainframes.values())
        self._hold(f"{update}: {wrong} Mainframes run something else than the table says", not wrong)
        self._hold(f"{update}: {doubled} Mainframes switched to it twice", not doubled)
        reach = (state.reach.running, state.reach.total)
        self._hold(f"{update}: the record says {reach}", reach == (len(self._keys), len(self._keys)))
        told = {"completed": found.states["succeeded"], "missing": len(self._keys) - found.distinct, "doubled": doubled}
        return {**told, "states": dict(found.states), "wrong": wrong, "rollout": seen.status}

    def _rollout(self, update: str) -> RolloutState:
        """Read the rollout of an update, as soon as OMEGA has it and answers."""

        def look() -> RolloutState | None:
            try:
                with self.stack.omega.client() as client:
                    return next((each for each in client.rollouts(10) if each.offer.update_id == update), None)
            except NodeError:
                return None

        found: RolloutState = eventually(look, f"the rollout of {update}", _GIVE_UP_SECONDS)
        return found

    def _hold(self, broken: str, holds: bool) -> None:
        if not holds:
            self.broken.append(broken)

    def _wait_for(self, broken: str, holds: Callable[[], bool], seconds: float = 120) -> None:
        ends = time.monotonic() + seconds
        while not holds() and time.monotonic() < ends:
            time.sleep(0.5)
        self._hold(broken, holds())


if __name__ == "__main__":
    raise SystemExit(main())
