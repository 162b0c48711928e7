"""How fast bytes move, against `rsync -a --fsync` with the same tree, on loopback, in the same run.

    python bench/transfer.py [--runs 5] [--size small] [--large-tree GB] [--json] [--check] [--directory DIR]

A run pushes a tree to a node, pushes it again, pushes it with two files changed, and pulls it as a Mainframe does,
each timed in a warm process from the call to the acknowledgment; rsync does the same with a daemon. What is timed is
preceded by a `sync` and a pause, every run gets fresh directories, and who goes first is drawn by lot. Nothing is
deleted before the end: on ext4 without a journal, creating files is slower for minutes after many were deleted.

At last one file of a larger tree is changed (`bench/one_change.py`): how long the switch takes then, and how much disk.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from one_change import clones, make_large_tree, program_user, switch_after_one_change

from ashat.bundle.pack import pack_directory
from ashat.bundle.stat_cache import StatCache
from ashat.client.http import Transport
from ashat.client.node import NodeClient
from ashat.client.transfer import missing, pull_bundle, push_bundle
from ashat.node.access.tokens import TokenFile
from ashat.node.store.store import Store
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Decision, Offer, OperationRequest, Scope

MB = 1024 * 1024
LICENCE = "RACORE-00000000-00000000-0000BE7C"
SEED = 941
CACHE_TRUST_SECONDS = 2.1


@dataclass(frozen=True)
class Size:
    """What a tree is made of; every module holds one large file and twenty small ones."""

    modules: int
    large_bytes: int = 2_200_000
    small_bytes: tuple[int, int] = (2_000, 30_000)
    large_tree_bytes: int = 1_000_000_000
    pause_seconds: float = 2.0


SIZES = {"full": Size(200), "small": Size(3, large_tree_bytes=40_000_000, pause_seconds=0.1)}

# What is promised, as (row, column, limit): seconds, a ratio to rsync, or MB.
TARGETS = (
    ("first push", "ratio", 0.5),
    ("Mainframe pull", "ratio", 0.4),
    ("unchanged push", "seconds", 0.5),
    ("two files changed", "seconds", 0.6),
    ("one of many files changed: switch", "seconds", 3),
    ("one of many files changed: disk of the push", "times", 1.1),
    ("one of many files changed: disk of the switch", "times", 1.1),
    ("memory: node, push", "mb", 64),
    ("memory: client, push", "mb", 64),
    ("memory: node, pull", "mb", 64),
    ("memory: client, pull", "mb", 64),
)


def main() -> int:
    """Measure, and print the results; return 1 if `--check` was given and a target was missed."""
    options = _options()
    size = SIZES[options.size]
    base = Path(tempfile.mkdtemp(prefix="ashat-bench-", dir=options.directory))
    try:
        files, total = make_tree(base / "tree", size)
        runs = [Run(base / "tree", base / f"run{number}", size, options.rsync).all() for number in range(options.runs)]
        large = one_change(base / "large", options.large_tree or size.large_tree_bytes)
        result = {"files": files, "bytes": total, "runs": len(runs), **summary(runs, large)}
        if options.json:
            print(json.dumps(result, indent=2), flush=True)
        else:
            print_table(result)
    finally:
        if not options.keep:
            shutil.rmtree(base)
    return 1 if options.check and not all(target["reached"] for target in result["targets"]) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="the tree: 479 MB, or 7 MB for a try")
    parser.add_argument(
        "--large-tree",
        type=lambda text: int(float(text) * 1e9),
        metavar="GB",
        help="the tree of which one file changes: 1 GB, or 0.04 of the small size",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--keep", action="store_true", help="delete nothing at the end")
    parser.add_argument("--directory", type=Path, help="where to work: about 2.5 GB for each run of the full size")
    options = parser.parse_args()
    options.rsync = shutil.which("rsync")
    if options.rsync is None:
        print("rsync is not installed: nothing to compare with, so no ratios.", file=sys.stderr)
    return options


def make_tree(root: Path, size: Size) -> tuple[int, int]:
    """Write the tree, the same each time; how many files and bytes it has."""
    draw = random.Random(SEED)
    low, high = size.small_bytes
    files = total = 0
    for module in range(size.modules):
        directory = root / "Modules" / f"Module{module:03d}"
        directory.mkdir(parents=True)
        small = [int(math.exp(draw.uniform(math.log(low), math.log(high)))) for _ in range(20)]
        for number, length in enumerate([size.large_bytes, *small]):
            (directory / f"file{number:02d}").write_bytes(draw.randbytes(length))
            files, total = files + 1, total + length
    time.sleep(CACHE_TRUST_SECONDS)
    return files, total


def change_two_files(root: Path) -> None:
    """Give two of the large files other bytes."""
    for module in ("Module000", "Module001"):
        (root / "Modules" / module / "file00").write_bytes(os.urandom(SIZES["full"].large_bytes))


class Run:
    """Everything once, in fresh directories below `directory`: seconds, and MB for memory, by row."""

    def __init__(self, source: Path, directory: Path, size: Size, rsync: str | None) -> None:
        self.source = source
        self.directory = directory
        self.size = size
        self.rsync = rsync
        self.found: dict[str, float] = {}

    def all(self) -> dict[str, float]:
        """Measure this program and rsync, in random order."""
        self.directory.mkdir()
        contestants = [self.ours, *([self.with_rsync] if self.rsync else [])]
        random.shuffle(contestants)
        for contestant in contestants:
            contestant()
        return self.found

    def ours(self) -> None:
        """Push, push again, push two changed files, switch, pull; one client process, one node."""
        directory, source, found = self.directory / "ours", self.source, self.found
        directory.mkdir()
        context = multiprocessing.get_context("spawn")
        with (
            running_node(directory / "node") as (url, token, pid),
            ProcessPoolExecutor(1, mp_context=context) as client,
        ):

            def call(function: Callable[..., Any], *words: Any) -> Any:
                return client.submit(function, *words).result()

            cache = directory / "digests.json"
            client_pid = call(warm_client, url, token)
            with self.peak_growth("push", pid, client_pid):
                found["full re-hash"], found["first push"] = call(timed_push, source, None)
            self.settle()
            call(timed_push, source, cache)
            found["unchanged push"] = call(timed_push, source, cache)[1]
            found["unchanged push, full re-hash"] = call(timed_push, source, None)[1]
            change_two_files(source)
            self.settle()
            found["two files changed"] = call(timed_push, source, cache)[1]
            bundle, steps = call(promote, source)
            found |= {f"switch: {name}": seconds for name, seconds in steps.items()}
            call(warm_mainframe, url)
            with self.peak_growth("pull", pid, client_pid):
                found["Mainframe pull"] = call(timed_pull, bundle, directory / "mainframe")

    def with_rsync(self) -> None:
        """Measure the same with rsync."""
        assert self.rsync is not None
        directory, source, found = self.directory / "rsync", self.source, self.found
        (directory / "up").mkdir(parents=True)
        with rsync_daemon(self.rsync, directory) as url:
            found["rsync first push"] = self.copy(f"{source}/", f"{url}/up/")
            found["rsync unchanged push"] = self.copy(f"{source}/", f"{url}/up/")
            found["rsync Mainframe pull"] = self.copy(f"{url}/up/", f"{directory}/down/")
            change_two_files(source)
            found["rsync two files changed"] = self.copy(f"{source}/", f"{url}/up/", "--checksum")

    def copy(self, start: str, end: str, *words: str) -> float:
        """Measure the seconds that rsync takes."""
        assert self.rsync is not None
        self.settle()
        began = time.monotonic()
        subprocess.run([self.rsync, "-a", "--fsync", *words, start, end], check=True)
        return time.monotonic() - began

    def settle(self) -> None:
        """Leave nothing unwritten of what came before, and let the disk come to rest."""
        os.sync()
        time.sleep(self.size.pause_seconds)

    @contextmanager
    def peak_growth(self, what: str, node_pid: int, client_pid: int) -> Iterator[None]:
        """How many MB each process grew over idle at most, during the block; nothing where /proc does not say."""
        self.settle()
        pids = {"node": node_pid, "client": client_pid}
        readable = Path("/proc/self/clear_refs").exists()
        if readable:
            for pid in pids.values():
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            idle = {name: _memory(pid, "VmRSS") for name, pid in pids.items()}
        yield
        if readable:
            self.found |= {f"memory: {name}, {what}": _memory(pid, "VmHWM") - idle[name] for name, pid in pids.items()}


# In the client's process


def warm_client(url: str, token: str) -> int:
    """Connect, like a client that made a request before; return the process's id."""
    global _transport, _node  # noqa: PLW0603
    _transport = Transport(url, token=token)
    _node = NodeClient(url, token=token)
    missing(_transport, ["0" * 64])
    return os.getpid()


def warm_mainframe(url: str) -> None:
    """Become a Mainframe of the node: its licence instead of the token."""
    global _transport  # noqa: PLW0603
    _node.put_licence(LicenceRequest(key=LICENCE, name="bench"))
    _transport = Transport(url, licence=LICENCE)
    _transport.request("GET", "/v1/mainframe/release")


def timed_push(source: Path, cache: Path | None) -> tuple[float, float]:
    """Measure the seconds to pack, and to pack and push up to the manifest's acknowledgment."""
    began = time.monotonic()
    with pack_directory(source, cache=StatCache(cache) if cache else None) as packed:
        packed_at = time.monotonic()
        push_bundle(_transport, packed)
    return packed_at - began, time.monotonic() - began


def timed_pull(bundle: str, directory: Path) -> float:
    """Measure the seconds from the request for the manifest until the bundle is durable in a store of its own."""
    with Store(directory) as store:
        began = time.monotonic()
        pull_bundle(_transport, bundle, store, prefix="/v1/mainframe")
        return time.monotonic() - began


def promote(source: Path) -> tuple[str, dict[str, float]]:
    """Let OMEGA run and offer the bundle; its digest, and how many seconds each step of the switch took."""
    bundle = pack_directory(source).manifest.digest
    decision = Decision(
        id="bench",
        decision="approve",
        update_id="bench",
        attempt=1,
        bundle=bundle,
        evidence="0" * 64,
        target="bench",
        expected_current=None,
        release_seq=1,
        approver="bench",
        at=datetime.now(UTC),
    )
    request = OperationRequest(
        action="promote", bundle=bundle, expected_current=None, update_id="bench", attempt=1, decision=decision
    )
    _node.start_operation("bench", request)
    operation = _node.wait_operation("bench", timeout=120)
    if operation.status != "succeeded":
        raise SystemExit(f"The switch failed: {operation.reason}")
    _node.put_offer(Offer(release_seq=1, bundle=bundle, update_id="bench", attempt=1))
    return bundle, {step.name: step.seconds for step in operation.steps}


_transport: Transport
_node: NodeClient


# Around it


def one_change(directory: Path, size: int) -> dict[str, float]:
    """Change one file of a tree of so many bytes on a node of its own; {} where nothing can be shared here."""
    directory.mkdir()
    for place in (directory, directory.parent):
        place.chmod(0o711)
    user = program_user(directory)
    if not user and not clones(directory):
        print("Nothing can be shared: no clones here, and no other user who could run a program here.", file=sys.stderr)
        return {}
    make_large_tree(directory / "tree", size)
    time.sleep(CACHE_TRUST_SECONDS)
    settings = {"ASHAT_NODE_APP__USER": user} if user else {}
    with running_node(directory / "node", settings) as (url, token, _), NodeClient(url, token=token) as node:
        cache, data = directory / "digests.json", directory / "node"
        return switch_after_one_change(node, directory / "tree", cache, data, lambda: time.sleep(1))


@contextmanager
def running_node(directory: Path, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[str, str, int]]:
    """Run an OMEGA node as a process, with more `settings`; yield its URL, a token for everything, its process id."""
    directory.mkdir(mode=0o700)
    token = TokenFile(directory / "tokens.json").add("bench", [Scope.ADMIN])[1]
    words = [
        sys.executable,
        "-m",
        "ashat.node",
        "serve",
        "--role",
        "omega",
        "--name",
        "bench",
        "--port",
        "0",
        "--unsigned-releases",
    ]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            [*words, "--data", directory], stdout=log, stderr=log, env={**os.environ, **settings}
        )
    try:
        address = directory / "node.json"
        _wait_for(address.exists, process, directory / "log")
        url = json.loads(address.read_bytes())["url"]
        port = int(url.rpartition(":")[2])
        _wait_for(lambda: _listens(port), process, directory / "log")
        yield url, token, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def rsync_daemon(rsync: str, directory: Path) -> Iterator[str]:
    """Run an rsync daemon that serves `directory`; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.getuid() == 0 else ""
    config = directory / "rsyncd.conf"
    config.write_text(
        f"port = {port}\naddress = 127.0.0.1\nuse chroot = no\n{user}[all]\npath = {directory}\nread only = no\n"
    )
    process = subprocess.Popen([rsync, "--daemon", "--no-detach", f"--config={config}"])
    try:
        _wait_for(lambda: _listens(port), process, config)
        yield f"rsync://127.0.0.1:{port}/all"
    finally:
        process.terminate()
        process.wait(30)


def _memory(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) / 1024


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} did not come up; see {log}:\n{log.read_text('utf-8', 'replace')}")
        time.sleep(0.02)


# What came of it


def summary(runs: list[dict[str, float]], large: Mapping[str, float]) -> dict[str, Any]:
    """Compute medians by row, the ratios to rsync (medians of each run's own), and which targets were reached; `large`
    is what came of one change."""
    rows: dict[str, dict[str, float]] = {}
    for name in runs[0]:
        if name.startswith("rsync "):
            continue
        values = [run[name] for run in runs]
        unit = "mb" if name.startswith("memory") else "seconds"
        rows[name] = {unit: statistics.median(values), "min": min(values), "max": max(values)}
        if f"rsync {name}" in runs[0]:
            rows[name]["rsync"] = statistics.median(run[f"rsync {name}"] for run in runs)
            rows[name]["ratio"] = statistics.median(run[name] / run[f"rsync {name}"] for run in runs)
    for name, value in large.items():
        unit = "times" if name.startswith("disk") else "seconds"
        rows[f"one of many files changed: {name}"] = {unit: value, "min": value, "max": value}
    targets = [
        {
            "row": row,
            "column": column,
            "limit": limit,
            "value": rows[row][column],
            "reached": rows[row][column] <= limit,
        }
        for row, column, limit in TARGETS
        if column in rows.get(row, {})
    ]
    return {"rows": rows, "targets": targets}


def print_table(result: dict[str, Any]) -> None:
    """Print the results as a table."""
    print(f"{result['files']} files, {result['bytes'] / 1e6:.0f} MB, {result['runs']} runs, medians\n")
    print(f"{'':46}{'median':>9}{'min':>9}{'max':>9}{'rsync':>9}{'ratio':>8}")
    for name, row in result["rows"].items():
        units = {"mb": "MB", "seconds": "s", "times": "x"}
        column = next(column for column in units if column in row)
        value, unit = row[column], units[column]
        compared = f"{row['rsync']:7.2f} s{row['ratio']:8.2f}" if "ratio" in row else ""
        print(f"{name:46}{value:6.2f} {unit:2}{row['min']:9.2f}{row['max']:9.2f}{compared}")
    print()
    for target in result["targets"]:
        verdict = "reached" if target["reached"] else "MISSED"
        print(f"{verdict:8} {target['row']}: {target['column']} {target['value']:.2f}, at most {target['limit']}")


if __name__ == "__main__":
    sys.exit(main())
