"""How many Mainframes one OMEGA serves in a wave, how fast, and at what cost.

    python bench/fleet.py [--mainframes 1000 [3000 ...]] [--json]
    python bench/fleet.py --idle 15000                     # long polls that nothing comes of
    python bench/fleet.py --mainframes 100000 --spread 240  # short polls, each at a moment of its own

Simulated agents (`bench/fleet_agents.py`) speak the real protocol over real sockets, each on a connection of its own:
a long poll, the files of the TUF repository, the manifest, an object, the report. They check no signature: what that
costs a Mainframe is measured apart. One OMEGA serves them on the same machine. A control plane opens the wave and
watches its counters, as the `approve` flow does; its processor time is counted. `p99_ms` is of all requests but the
polls, from the first byte sent to the last received. Of several sizes a line is fitted through what each took of
OMEGA's processor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fleet_agents import Done, Work, simulate  # noqa: E402
from fleet_kit import account, license_fleet  # noqa: E402

from ashat.client.node import NodeClient  # noqa: E402
from ashat.common.identifiers import new_key  # noqa: E402
from ashat.errors import NodeUnreachableError  # noqa: E402
from ashat.node.connections import raise_descriptor_limit  # noqa: E402
from ashat.node.omega.fleet.database import FILE, FleetDatabase  # noqa: E402
from ashat.protocol.messages import Offer  # noqa: E402
from ashat.rollouts.policy import RolloutPolicy  # noqa: E402
from tests.support.builders.signers import People, demanding_omega, install_root  # noqa: E402
from tests.support.builders.trust_world import World, document, mainframe, serving  # noqa: E402
from tests.support.processes.node import NodeProcess, push, tiny_bundle  # noqa: E402
from tests.support.processes.omega import perform, running  # noqa: E402

LIMITS = {"seconds": 25.0, "p99_ms": 300.0, "omega_mb": 400.0, "omega_ms_a_mainframe": 1.5}
SPREAD_LIMITS = {"seconds": 300.0}
IDLE_LIMITS = {"omega_share_of_a_core": 0.1}
ROLLOUT = "UPD-1.1.1"
_LOOK_SECONDS = 0.5
_GIVE_UP_SECONDS = 900.0
_SETTLE_SECONDS = 120.0
_AT_REST = 0.4


def main() -> int:
    """Print the figures, or one JSON object a line; 1 where one is over its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mainframes", type=int, nargs="+", default=[1000])
    parser.add_argument("--processes", type=int, default=1, help="of simulated agents")
    parser.add_argument("--spread", type=float, default=0.0, help="by short polls, spread over so many seconds")
    parser.add_argument("--idle", type=int, default=0, help="only hold so many long polls")
    parser.add_argument("--idle-seconds", type=float, default=90.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    raise_descriptor_limit()
    results = []
    for size in [options.idle] if options.idle else options.mainframes:
        with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
            if options.idle:
                result = hold(Path(directory), size, options.processes, options.idle_seconds)
            else:
                result = measure(Path(directory), size, options.processes, options.spread)
        results.append(result)
        _show(result, as_json=options.json)
    if len(results) > 1:
        _show(fit(results), as_json=options.json)
    return 0 if all(result["whole"] and all(result["reached"].values()) for result in results) else 1


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result), flush=True)
    else:
        print("\n".join(f"{name:22}{value}" for name, value in result.items()), end="\n\n", flush=True)


def fit(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit a line through what OMEGA's processor took, and one through the control plane's, by the number of Mainframes:
    linear is what has a small rest, flat what has a small slope."""
    sizes = [result["mainframes"] for result in results]
    told: dict[str, Any] = {}
    for name in ("omega_cpu_s", "control_plane_s"):
        values = [result[name] for result in results]
        line = statistics.linear_regression(sizes, values)
        told[f"{name}_fit"] = f"{line.intercept:.3f} s + {1000 * line.slope:.4f} ms a Mainframe"
        told[f"{name}_r2"] = round(statistics.correlation(sizes, values) ** 2, 4) if len(set(values)) > 1 else None
    return told


def measure(directory: Path, mainframes: int, processes: int, spread: float) -> dict[str, Any]:
    """Measure one wave that is everybody, from its opening to its end."""
    with _ready_omega(directory, mainframes) as (omega, client, work, keys):
        with _agents(work._replace(spread=spread), keys, processes) as (ready, futures):
            result: dict[str, Any] = {"mainframes": mainframes}
            result |= _roll_out(omega, client, ready, _GIVE_UP_SECONDS)
            done = [future.result(_GIVE_UP_SECONDS) for future in futures]
        result |= _accounted(client, omega, mainframes)
    times = [each for one in done for each in one.milliseconds]
    result["p99_ms"] = round(statistics.quantiles(times, n=100)[98], 1)
    result["median_ms"] = round(statistics.median(times), 1)
    result |= _of_agents(done)
    result["signature_checks_ms"] = round(_signature_checks_ms(), 1)
    result["whole"] = result["completed"] == mainframes and result["missing"] == result["failed"] == 0
    limits = SPREAD_LIMITS if spread else LIMITS
    result["reached"] = {name: result[name] <= limit for name, limit in limits.items()}
    return result


def hold(directory: Path, mainframes: int, processes: int, seconds: float) -> dict[str, Any]:
    """Measure what long polls cost that nothing comes of, once all are held."""
    with (
        _ready_omega(directory, mainframes) as (omega, _, work, keys),
        _agents(work._replace(ends=seconds + _SETTLE_SECONDS), keys, processes) as (ready, futures),
    ):
        ready.wait(600)
        _settle(omega)
        spent, began = _processor_seconds(omega.pid), time.monotonic()
        time.sleep(seconds)
        used, passed = _processor_seconds(omega.pid) - spent, time.monotonic() - began
        held, memory = _connections(omega), round(_memory_mb(omega.pid))
        done = [future.result(seconds + _SETTLE_SECONDS + 60) for future in futures]
    share = round(used / passed, 3)
    result: dict[str, Any] = {
        "idle": mainframes,
        "held": held,
        "seconds": round(passed, 1),
        "omega_share_of_a_core": share,
    }
    result |= {"omega_mb": memory, **_of_agents(done), "whole": held >= mainframes}
    result["reached"] = {name: result[name] <= limit for name, limit in IDLE_LIMITS.items()}
    return result


@contextmanager
def _ready_omega(directory: Path, mainframes: int) -> Iterator[tuple[NodeProcess, NodeClient, Work, list[str]]]:
    """Start an OMEGA with that many licences and a rollout whose wave is not open yet."""
    people, keys = People(), [new_key() for _ in range(mainframes)]
    with demanding_omega(directory / "omega") as omega:
        install_root(omega, people, directory / "root.json")
        with omega.client() as client:
            bundle = push(client, tiny_bundle(directory / "program"))
            request, _ = people.promotion(client, bundle, "UPD-1")
            perform(client, request)
            license_fleet(omega.data, None, keys)
            offer = Offer.model_validate(running(client), from_attributes=True)
            client.begin_rollout(ROLLOUT, offer, RolloutPolicy.all_at_once(int(_GIVE_UP_SECONDS)))
            digest = next(iter(next(iter(client.manifest(bundle).by_path.values())).objects()))[0]
            yield omega, client, Work(omega.port, 0, [], bundle, digest), keys


@contextmanager
def _agents(work: Work, keys: list[str], processes: int) -> Iterator[tuple[Any, list[Future[Done]]]]:
    """Start the agents; the barrier is passed once each has asked."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool, context.Manager() as manager:
        ready = manager.Barrier(processes + 1)
        size = -(-len(keys) // processes)
        starts = range(0, len(keys), size)
        yield (
            ready,
            [
                pool.submit(simulate, work._replace(first=start, keys=keys[start : start + size]), ready)
                for start in starts
            ],
        )


def _roll_out(omega: NodeProcess, client: NodeClient, ready: Any, give_up: float) -> dict[str, Any]:
    """Open the wave and watch its counters until everybody has answered."""
    ready.wait(600)
    _settle(omega)
    spent, began, own = _processor_seconds(omega.pid), time.monotonic(), time.process_time()
    client.open_waves(ROLLOUT, 0, "the bench")
    state, missed = None, 0
    while (state is None or state.counts.open) and time.monotonic() - began < give_up:
        time.sleep(_LOOK_SECONDS)
        try:
            state = client.rollout(ROLLOUT)
        except NodeUnreachableError:
            missed += 1
    assert state is not None
    client.decide_rollout(ROLLOUT, "complete", "the bench")
    seconds = time.monotonic() - began
    used, size = _processor_seconds(omega.pid) - spent, state.counts.size
    return {
        "seconds": round(seconds, 2),
        "control_plane_s": round(time.process_time() - own, 3),
        "looks_missed": missed,
        "omega_mb": round(_memory_mb(omega.pid)),
        "omega_cpu_s": round(used, 2),
        "omega_ms_a_mainframe": round(1000 * used / max(size, 1), 2),
    }


def _settle(omega: NodeProcess) -> None:
    """Wait until OMEGA has done what the agents asked of it when they came."""
    ends = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < ends:
        spent = _processor_seconds(omega.pid)
        time.sleep(2)
        if _processor_seconds(omega.pid) - spent < _AT_REST:
            return


def _accounted(client: NodeClient, omega: NodeProcess, mainframes: int) -> dict[str, Any]:
    """Count how each Mainframe ended, from the rows one by one, and hold the wave's counters against that.

    Raises:
        AssertionError: a Mainframe is in the rollout twice or not at all, its report was not kept once, or the counters
            say something else than the rows.
    """
    rollout = client.rollout(ROLLOUT)
    database = FleetDatabase(omega.data / FILE)
    faults = account(database, ROLLOUT, rollout.offer.release_seq).faults(mainframes)
    database.close()
    assert not faults, "; ".join(faults)
    counts = rollout.counts
    missing = mainframes - counts.succeeded - counts.failed
    return {"completed": counts.succeeded, "failed": counts.failed, "missing": missing}


def _of_agents(done: list[Done]) -> dict[str, Any]:
    seen: Counter[str] = Counter()
    for one in done:
        seen.update(one.seen)
    return {"agents_cpu_s": round(sum(one.processor for one in done), 2), "seen": dict(seen)}


def _connections(omega: NodeProcess) -> int:
    """Count the connections that OMEGA holds, by the system's own table."""
    port = f":{omega.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(port) and fields[3] == "01" for fields in lines)


def _signature_checks_ms() -> float:
    """Measure the processor milliseconds of a Mainframe's check of signatures, once the first release is known."""
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
        world = World(Path(directory) / "repository")
        world.publish(document(1))
        with serving(world.directory) as server, mainframe(server, world, Path(directory) / "cache") as client:
            client.latest_release("stable")
            taken = []
            for _ in range(20):
                before = time.thread_time()
                client.latest_release("stable")
                taken.append((time.thread_time() - before) * 1000)
    return statistics.median(taken)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
