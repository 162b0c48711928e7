"""How many Mainframes one OMEGA serves in a wave, how fast, and at what cost.

    python bench/fleet.py [--mainframes 1000] [--jitter 12] [--json]

Simulated agents speak the real protocol over real sockets, each on a connection of its own: a long poll, the five files
of the TUF repository, the manifest, an object, the report. They check no signature: what that costs a Mainframe is
measured apart. One OMEGA serves them on the same machine. A control plane opens the wave and watches its counters, as
the `approve` flow does; its processor time is counted. `p99_ms` is of all requests but the polls, from the first byte
sent to the last received.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ashat.client.node import NodeClient  # noqa: E402
from ashat.common.identifiers import new_key  # noqa: E402
from ashat.node.connections import raise_descriptor_limit  # noqa: E402
from ashat.node.core.db import RECORD_FILE, Database  # noqa: E402
from ashat.node.omega.fleet.fleet import open_fleet  # noqa: E402
from ashat.protocol.messages import Offer  # noqa: E402
from ashat.rollouts.policy import RolloutPolicy  # noqa: E402
from tests.support.builders.signers import People, demanding_omega, install_root  # noqa: E402
from tests.support.builders.trust_world import World, document, mainframe, serving  # noqa: E402
from tests.support.processes.node import NodeProcess, push, tiny_bundle  # noqa: E402
from tests.support.processes.omega import perform, running  # noqa: E402

LIMITS = {"seconds": 25.0, "p99_ms": 300.0, "omega_mb": 400.0, "omega_ms_a_mainframe": 1.5}
ROLLOUT = "UPD-1.1.1"
_FILES = ("timestamp.json", "1.snapshot.json", "1.production.json", "1.targets.json")
_POLL_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_GIVE_UP_SECONDS = 900.0


def main() -> int:
    """Print the figures, or one JSON object; 1 where one is over its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mainframes", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2, help="of simulated agents")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
        result = measure(Path(directory), options.mainframes, options.processes)
    result["signature_checks_ms"] = round(_signature_checks_ms(), 1)
    result["reached"] = {name: result[name] <= limit for name, limit in LIMITS.items()}
    whole = result["completed"] == options.mainframes and result["missing"] == result["failed"] == 0
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:22}{value}")
    return 0 if whole and all(result["reached"].values()) else 1


def measure(directory: Path, mainframes: int, processes: int) -> dict[str, Any]:
    """Measure one wave that is everybody, from its opening to its end."""
    people, keys = People(), [new_key() for _ in range(mainframes)]
    with demanding_omega(directory / "omega") as omega:
        install_root(omega, people, directory / "root.json")
        with omega.client() as client:
            bundle = push(client, tiny_bundle(directory / "program"))
            request, _ = people.promotion(client, bundle, "UPD-1")
            perform(client, request)
            _license(omega, keys)
            offer = Offer.model_validate(running(client), from_attributes=True)
            client.begin_rollout(ROLLOUT, offer, RolloutPolicy.all_at_once(int(_GIVE_UP_SECONDS)))
            wanted = next(iter(client.manifest(bundle).by_path.values())).objects()
            shares = [keys[number::processes] for number in range(processes)]
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, mp_context=context) as pool, context.Manager() as manager:
                ready = manager.Barrier(processes + 1)
                digest = next(iter(wanted))[0]
                futures = [pool.submit(simulate, omega.port, share, bundle, digest, ready) for share in shares]
                ready.wait(300)
                time.sleep(2)  # every agent has asked by then
                result = _roll_out(omega, client)
                times = [each for future in futures for each in future.result(_GIVE_UP_SECONDS)]
            _account_for(client, mainframes, result)
    result["p99_ms"] = round(statistics.quantiles(times, n=100)[98] * 1000, 1)
    result["median_ms"] = round(statistics.median(times) * 1000, 1)
    return {"mainframes": mainframes, **result}


def _license(omega: NodeProcess, keys: list[str]) -> None:
    database = Database(omega.data / RECORD_FILE)
    with open_fleet(database, omega.data, None) as fleet:
        fleet.licences.keep_all([(key, f"mainframe-{number:06}", None) for number, key in enumerate(keys)])
    database.close()


def _roll_out(omega: NodeProcess, client: NodeClient) -> dict[str, Any]:
    """Open the wave and watch its counters until everybody has answered."""
    spent, began, own = _processor_seconds(omega.pid), time.monotonic(), time.process_time()
    client.open_waves(ROLLOUT, 0, "the bench")
    while (state := client.rollout(ROLLOUT)).counts.open and time.monotonic() - began < _GIVE_UP_SECONDS:
        time.sleep(_LOOK_SECONDS)
    client.decide_rollout(ROLLOUT, "complete", "the bench")
    seconds = time.monotonic() - began
    used, size = _processor_seconds(omega.pid) - spent, state.counts.size
    return {
        "seconds": round(seconds, 2),
        "control_plane_s": round(time.process_time() - own, 3),
        "omega_mb": round(_memory_mb(omega.pid)),
        "omega_cpu_s": round(used, 2),
        "omega_ms_a_mainframe": round(1000 * used / max(size, 1), 2),
    }


def _account_for(client: NodeClient, mainframes: int, result: dict[str, Any]) -> None:
    """Count how each Mainframe ended, from the members one by one, not from the counters."""
    members = client.rollout_members(ROLLOUT, limit=10_000)
    counts = client.rollout(ROLLOUT).counts
    result["completed"], result["failed"] = counts.succeeded, counts.failed
    result["missing"] = mainframes - counts.succeeded - counts.failed
    if mainframes <= len(members):
        assert len({member.id for member in members}) == mainframes
        assert sum(member.state == "succeeded" for member in members) == counts.succeeded


def simulate(port: int, keys: list[str], bundle: str, digest: str, ready: Any) -> list[float]:
    """Be the Mainframes with those licences; return the seconds that each request took, but for the polls."""
    raise_descriptor_limit()
    return asyncio.run(_simulate(port, keys, bundle, digest, ready))


async def _simulate(port: int, keys: list[str], bundle: str, digest: str, ready: Any) -> list[float]:
    times: list[float] = []
    agents = [_Agent(port, number, key, times) for number, key in enumerate(keys)]
    for start in range(0, len(agents), 200):
        await asyncio.gather(*(agent.connect() for agent in agents[start : start + 200]))
    done = [asyncio.create_task(agent.update(bundle, digest)) for agent in agents]
    await asyncio.sleep(1)
    await asyncio.to_thread(ready.wait, 300)
    await asyncio.gather(*done)
    return times


class _Agent:
    """One Mainframe: a connection of its own, from an address of its own."""

    def __init__(self, port: int, number: int, key: str, times: list[float]) -> None:
        self._port = port
        self._address = f"127.{1 + number // 60_000}.{number // 250 % 240}.{1 + number % 250}"
        self._head = f"Host: 127.0.0.1\r\nAuthorization: Licence {key}\r\n"
        self._times = times

    async def connect(self) -> None:
        """Connect, and show the licence."""
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._address, 0), limit=1 << 20
        )

    async def update(self, bundle: str, digest: str) -> None:
        """Wait for the release, fetch what a Mainframe fetches, and report that it runs."""
        status, offer = 0, b""
        while status != 200:
            status, offer = await self._ask("GET", f"/v1/mainframe/release?after=0&wait={_POLL_SECONDS}", timed=False)
        wanted = json.loads(offer)
        for name in _FILES:
            await self._ask("GET", f"/v1/mainframe/trust/{name}")
        await self._ask("GET", f"/v1/mainframe/bundles/{bundle}")
        await self._ask("GET", f"/v1/mainframe/objects/{digest}")
        body = json.dumps({"release_seq": wanted["release_seq"], "bundle": bundle, "result": "running"})
        status, _ = await self._ask("POST", "/v1/mainframe/report", body)
        assert status == 204, status
        self._writer.close()

    async def _ask(self, method: str, path: str, body: str = "", *, timed: bool = True) -> tuple[int, bytes]:
        began = time.perf_counter()
        sent = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{sent}\r\n{body}".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        content = await self._reader.readexactly(length) if length else b""
        if timed:
            self._times.append(time.perf_counter() - began)
        return int(head[9:12]), content


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
