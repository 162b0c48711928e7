"""How many requests fail while a node with two slots behind nginx switches to a new release, and switches back.

    python bench/bluegreen.py [--proxy nginx] [--requests 10000] [--connections 8] [--json]

nginx (or Caddy, or HAProxy) stands before a node as `examples/bluegreen` shows it. Half of the connections are kept
alive, the other half of the requests open one of their own. For as long as it takes to ask as often as wanted, the
node switches to a release that it has not run before and back to the one that is kept warm; all requests meanwhile
count. For comparison, the same load then asks a node that runs its program in place, for one switch there and back.

A request has failed that was not answered with 200 and a whole body. One on a connection that was kept alive and that
nginx closed before a byte of the answer came is sent once more, as RFC 9112 (9.3.1) lets clients do, and counts by what
comes then: `bluegreen_reconnects`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ashat.client.node import NodeClient  # noqa: E402
from ashat.protocol.messages import Operation  # noqa: E402
from tests.support.drivers.load import Counted, Load  # noqa: E402
from tests.support.processes.front import Front  # noqa: E402
from tests.support.processes.node import NodeProcess, push, switch, tiny_app, tiny_bundle  # noqa: E402

REQUESTS = 10_000
CONNECTIONS = 8
_CYCLES = 200


def main() -> int:
    """Print the figures, or one JSON object; 1 where a request failed that asked the node with two slots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", choices=("nginx", "caddy", "haproxy"), default="nginx")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure_bluegreen(options.requests, options.connections, options.proxy)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value}")
    return 1 if figures["bluegreen_failed"] else 0


def measure_bluegreen(requests: int = REQUESTS, connections: int = CONNECTIONS, proxy: str = "nginx") -> dict[str, Any]:
    """Measure both nodes; times are medians in seconds, of operations as the node records them."""
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as name:
        slotted = _slotted(Path(name) / "slots", proxy, requests, connections)
        return {"bluegreen_proxy": proxy, **slotted, **_in_place(Path(name) / "in-place", connections)}


def _slotted(directory: Path, proxy: str, requests: int, connections: int) -> dict[str, Any]:
    with Front(directory / proxy, proxy) as front:
        node = NodeProcess(directory / "public", app=tiny_app(), settings={"slots": front.slots()})
        with node, node.client() as client:
            front.start()
            began = time.monotonic()
            counted, there, back = _under_load(
                directory, client, front.url, connections, lambda asked: asked >= requests
            )
            seconds = time.monotonic() - began
    return {
        "bluegreen_requests": counted.requests,
        "bluegreen_failed": counted.failed,
        "bluegreen_failures": counted.reasons,
        "bluegreen_reconnects": counted.reconnects,
        "bluegreen_connections": connections,
        "bluegreen_switches": len(there) + len(back),
        "bluegreen_requests_per_second": round(counted.requests / seconds),
        "bluegreen_switch_seconds": statistics.median(map(_seconds, there)),
        "bluegreen_back_seconds": statistics.median(map(_seconds, back)),
    }


def _in_place(directory: Path, connections: int) -> dict[str, Any]:
    """What the same load sees of a node without slots: that failures are seen where there are any."""
    with NodeProcess(directory / "public", app=tiny_app()) as node, node.client() as client:
        counted, _, _ = _under_load(directory, client, "", connections, lambda _: True)
    return {"in_place_requests": counted.requests, "in_place_failed": counted.failed}


def _under_load(
    directory: Path, client: NodeClient, url: str, connections: int, enough: Callable[[int], bool]
) -> tuple[Counted, list[Operation], list[Operation]]:
    """Switch there and back under load until there were `enough` requests; without a `url`, of the program itself."""
    old = push(client, tiny_bundle(directory / "old", note="old"))
    _succeeded(switch(client, old, expected=None))
    there, back = [], []
    with Load(url or client.state().app.url or "", connections) as load:
        load.wait_for(connections)
        for number in range(_CYCLES):
            new = push(client, tiny_bundle(directory / f"new-{number}", note=str(number)))
            there.append(_succeeded(switch(client, new, expected=old)))
            back.append(_succeeded(switch(client, old, expected=new)))
            if enough(load.counted.requests):
                break
    return load.counted, there, back


def _succeeded(operation: Operation) -> Operation:
    if operation.status != "succeeded":
        raise SystemExit(f"a switch failed: {operation.reason}")
    return operation


def _seconds(operation: Operation) -> float:
    assert operation.ended_at is not None
    return round((operation.ended_at - operation.started_at).total_seconds(), 2)


if __name__ == "__main__":
    raise SystemExit(main())
