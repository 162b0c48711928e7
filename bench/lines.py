"""How a bundle gets over slow and broken lines: what is sent twice where a line is cut, and how long latency and loss
take, beside rsync.

    python bench/lines.py [--json] [--megabytes 40] [--rate-mbit 1] [--cut-every 30] [--runs 3] [--no-latency]

The first part pushes a tree through a relay on loopback that lets so much through a second, both ways together, and
cuts every connection each so many seconds; what it let through is counted there. The second puts a node and an rsync
daemon into a network namespace of their own, behind a link that delays each packet by 100 ms and loses 2 % of them,
each way; it takes root and /dev/net/tun, and its figures are null where these are not.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import heapq
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ashat.bundle.pack import pack_directory
from ashat.client.http import Transport
from ashat.client.transfer import pull_bundle, push_bundle
from ashat.node.access.tokens import TokenFile
from ashat.node.store.store import Store
from ashat.protocol.messages import Scope

MB = 1024 * 1024
SEED = 11
DELAY_SECONDS, LOSS = 0.1, 0.02
CUT_RATIO, ON_PAR = 1.1, 1.0
_CHUNK = 4096
_BUFFER = 16 * 1024
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_NEAR, _FAR = "10.213.7.1", "10.213.7.2"


def main() -> int:
    """Measure, and print; return 1 if `--check` was given and a target was missed."""
    options = _options()
    base = Path(tempfile.mkdtemp(prefix="ashat-lines-"))
    try:
        if options.client:
            return _client(*options.client)
        found: dict[str, Any] = cut_line(base, options)
        found |= latency(base, options)
    finally:
        shutil.rmtree(base)
    if options.json:
        print(json.dumps(found, indent=2), flush=True)
    else:
        for name, value in found.items():
            print(f"{name:26} {value}")
    ratios = [found["latency_push_vs_rsync"], found["latency_pull_vs_rsync"]]
    reached = found["cut_done"] and found["cut_sent_ratio"] <= CUT_RATIO
    return 1 if options.check and not (reached and all(r is None or r <= ON_PAR for r in ratios)) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--megabytes", type=float, default=40, help="what goes over the line that is cut")
    parser.add_argument("--rate-mbit", type=float, default=1, help="how fast that line is")
    parser.add_argument("--cut-every", type=float, default=30, help="after how many seconds it is cut, again and again")
    parser.add_argument("--runs", type=int, default=3, help="how often latency is measured; medians are told")
    parser.add_argument("--no-latency", action="store_true", help="leave the second part out")
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_tree(root: Path, total: int) -> None:
    """Write a tree of `total` bytes that do not compress: a few large files, and many small ones."""
    draw = random.Random(SEED)
    root.mkdir()
    for number in range(100):
        (root / f"small{number:03d}").write_bytes(draw.randbytes(min(draw.randrange(500, 8000), total // 400)))
    left = total - sum(path.stat().st_size for path in root.iterdir())
    for number in range(4):
        (root / f"large{number}").write_bytes(draw.randbytes(left // 4))


# A line that is cut


class CutLine:
    """Relays TCP to `port`: `rate` bytes a second in all, every connection cut each `every` seconds."""

    def __init__(self, port: int, rate: float, every: float) -> None:
        self.passed = 0
        self.cuts = 0
        self._target = port
        self._rate = rate
        self._every = every
        self._due = time.monotonic()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> str:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0, limit=_BUFFER)
        self._cutting = asyncio.ensure_future(self._cut_again())
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _end(self) -> None:
        self._server.close()
        self._cutting.cancel()
        self._cut()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    async def _cut_again(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            self.cuts += 1
            self._cut()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._target, limit=_BUFFER)
        self._writers |= {writer, there}
        for one in (writer, there):
            one.transport.set_write_buffer_limits(0)
        await asyncio.gather(self._pass_on(reader, there, True), self._pass_on(there_reader, writer, False))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                now = time.monotonic()
                self._due = max(self._due, now) + len(data) / self._rate
                await asyncio.sleep(self._due - now)
                writer.write(data)
                await writer.drain()
                self.passed += len(data) if up else 0
        writer.close()


def cut_line(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Push a tree through a line that is cut; what went over it, in parts of what the tree has."""
    make_tree(base / "tree", int(options.megabytes * MB))
    packed = pack_directory(base / "tree")
    line_rate = options.rate_mbit * 1e6 / 8
    began = time.monotonic()
    with running_node(base / "node") as (url, token):
        line = CutLine(int(url.rpartition(":")[2]), line_rate, options.cut_every)
        with line as through, Transport(through, token=token) as transport:
            try:
                push_bundle(transport, packed)
                done = True
            except Exception as error:  # noqa: BLE001  whatever ends it, that is the result
                print(f"The push ended: {error}", file=sys.stderr)
                done = False
    total = sum(packed.manifest.objects.values())
    return {
        "cut_done": done,
        "cut_sent_ratio": round(line.passed / total, 3),
        "cuts": line.cuts,
        "cut_seconds": round(time.monotonic() - began, 1),
    }


# Latency and loss


@dataclass(frozen=True)
class Link:
    """Two network namespaces, and the address of the second as the first sees it."""

    near: str
    far: str


def latency(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure push and pull over the link, as parts of what rsync takes there."""
    keys = ("latency_push_vs_rsync", "latency_pull_vs_rsync")
    rsync = shutil.which("rsync")
    if options.no_latency or rsync is None or os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        return dict.fromkeys(keys)
    tree = base / "small"
    make_tree(tree, 3 * MB)
    found: dict[str, list[float]] = {name: [] for name in ("push", "pull", "rsync push", "rsync pull")}
    with lossy_link() as link:
        for number in range(options.runs):
            directory = base / f"run{number}"
            directory.mkdir()
            for measure in random.sample((measure_ours, measure_rsync), 2):
                for name, seconds in measure(link, tree, directory).items():
                    found[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {keys[0]: medians["push"] / medians["rsync push"], keys[1]: medians["pull"] / medians["rsync pull"]}
    seconds = {f"latency_{name.replace(' ', '_')}_seconds": round(value, 1) for name, value in medians.items()}
    return {name: round(value, 2) for name, value in ratios.items()} | seconds


def measure_ours(link: Link, tree: Path, directory: Path) -> dict[str, float]:
    """Push to a node on the far side, and pull it back; seconds."""
    with running_node(directory / "node", _inside(link.far), host=_FAR) as (url, token):
        seconds = {}
        for name, target in (("push", tree), ("pull", directory / "pulled")):
            words = [sys.executable, __file__, "--client", name, url, str(tree), str(target)]
            environment = {**os.environ, "ASHAT_BENCH_TOKEN": token}
            ended = subprocess.run([*_inside(link.near), *words], env=environment, check=True, capture_output=True)
            seconds[name] = float(ended.stdout)
    return seconds


def measure_rsync(link: Link, tree: Path, directory: Path) -> dict[str, float]:
    """Do the same with rsync's daemon."""
    (directory / "up").mkdir()
    config = directory / "rsyncd.conf"
    config.write_text(
        f"port = 8730\naddress = {_FAR}\nuse chroot = no\nuid = 0\ngid = 0\n[all]\npath = {directory}\nread only = no\n"
    )
    daemon = [*_inside(link.far), "rsync", "--daemon", "--no-detach", f"--config={config}"]
    process = subprocess.Popen(daemon)
    url = f"rsync://{_FAR}:8730/all"
    seconds = {}
    try:
        time.sleep(1)
        for name, start, end in (
            ("rsync push", f"{tree}/", f"{url}/up/"),
            ("rsync pull", f"{url}/up/", f"{directory}/down/"),
        ):
            began = time.monotonic()
            subprocess.run([*_inside(link.near), "rsync", "-a", "--fsync", start, end], check=True)
            seconds[name] = time.monotonic() - began
    finally:
        process.terminate()
        process.wait(30)
    return seconds


def _client(action: str, url: str, tree: str, target: str) -> int:
    """Push `tree`, or pull its bundle into `target`; print the seconds."""
    packed = pack_directory(Path(tree))
    began = time.monotonic()
    with Transport(url, token=os.environ["ASHAT_BENCH_TOKEN"], insecure_http=True) as transport:
        if action == "push":
            push_bundle(transport, packed)
        else:
            with Store(Path(target)) as store:
                began = time.monotonic()
                pull_bundle(transport, packed.manifest.digest, store)
    print(time.monotonic() - began)
    return 0


@contextmanager
def lossy_link() -> Iterator[Link]:
    """Make two network namespaces with a link between them that delays and loses packets."""
    link = Link(f"ashat-near-{os.getpid()}", f"ashat-far-{os.getpid()}")
    with ExitStack() as closing:
        tuns = []
        for namespace, address, peer in ((link.near, _NEAR, _FAR), (link.far, _FAR, _NEAR)):
            _ip("netns", "add", namespace)
            closing.callback(_ip, "netns", "del", namespace)
            device = f"asht{len(tuns)}p{os.getpid() % 100_000}"
            tun = os.open("/dev/net/tun", os.O_RDWR)
            closing.callback(os.close, tun)
            fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
            _ip("link", "set", device, "netns", namespace)
            _ip("-n", namespace, "addr", "add", address, "peer", peer, "dev", device)
            for name in (device, "lo"):
                _ip("-n", namespace, "link", "set", name, "up")
            tuns.append(tun)
        carrier = multiprocessing.get_context("fork").Process(target=_carry, args=tuns)
        carrier.start()
        closing.callback(carrier.join)
        closing.callback(carrier.terminate)
        yield link


def _carry(one: int, other: int) -> None:
    """Carry packets between the two devices until SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    draw, number = random.Random(SEED), 0
    waiting: list[tuple[float, int, int, bytes]] = []
    while True:
        wait = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
        for tun in select.select([one, other], [], [], wait)[0]:
            packet = os.read(tun, 65536)
            if draw.random() >= LOSS:
                number += 1
                target = other if tun == one else one
                heapq.heappush(waiting, (time.monotonic() + DELAY_SECONDS, number, target, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(waiting)
            with suppress(OSError):
                os.write(target, packet)


def _inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def running_node(
    directory: Path, inside: list[str] | None = None, host: str = "127.0.0.1"
) -> Iterator[tuple[str, str]]:
    """Run a Public node as a process; yield its URL and a token."""
    directory.mkdir(mode=0o700)
    token = TokenFile(directory / "tokens.json").add("bench", [Scope.ADMIN])[1]
    words = [sys.executable, "-P", "-m", "ashat.node", "serve", "--role", "public", "--host", host, "--port", "0"]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([*(inside or []), *words, "--data", directory], stdout=log, stderr=log)
    try:
        address = directory / "node.json"
        deadline = time.monotonic() + 60
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The node did not start: {(directory / 'log').read_text()[-500:]}")
            time.sleep(0.05)
        time.sleep(1)
        yield json.loads(address.read_bytes())["url"], token
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
