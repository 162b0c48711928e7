"""Simulated Mainframes that are killed and started again, behind a network that delays, loses and cuts.

Each speaks the real protocol over real sockets, and does by the agent's own rules (`ashat.node.mainframe.plan`) what
OMEGA offers: it reads the files of the TUF repository, the manifest and an object, checks these two against their
digests, takes its time to switch, and reports. It checks no signature and runs no program. What a real one has on its
disk outlives a kill here, and nothing else does.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Self, TypeVar

from fleet_kit import content_length, head_of, report_of

from ashat.bundle.manifest import Manifest
from ashat.common.numbers import read_retry_after
from ashat.errors import AshatError
from ashat.node.mainframe.plan import Failed, Install, Position, Running, plan
from ashat.protocol.messages import TRIES_HEADER, Offer

POLL_SECONDS = 10.0
RETRY_SECONDS = 20.0
BREAKS = "the program ended by itself with exit code 1"
_GRACE = 10.0
_LONGEST_PAUSE = 4.0
_CHUNK = 16384
_CUT_REPORT = 0.15
T = TypeVar("T")


class Trouble(NamedTuple):
    """What the network does to each piece of what passes, in seconds and as probabilities: it is late by up to `delay`;
    it is `lost`, so that it comes `again` later, as TCP sends it anew; the connection is `cut` in the middle of it, and
    both ends see a reset. A new connection is `mute` as often: nothing ever comes of it."""

    delay: float = 0.06
    lost: float = 0.03
    again: float = 0.8
    cut: float = 0.012
    mute: float = 0.01


class BadNetwork:
    """A proxy on loopback in front of a port. `seen` counts what it did."""

    def __init__(self, port: int, draw: random.Random, trouble: Trouble | None = None) -> None:
        self._target = port
        self._draw = draw
        self._trouble = trouble or Trouble()
        self.seen: Counter[str] = Counter()
        self.port = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        """Listen no more, and end whatever connection is left."""
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen["connections"] += 1
        if self._draw.random() < self._trouble.mute:
            self.seen["mute"] += 1
            with suppress(OSError):
                await reader.read(-1)  # until the Mainframe has had enough
            writer.transport.abort()
            return
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", self._target, limit=_CHUNK)
        except OSError:
            self.seen["refused"] += 1
            writer.transport.abort()
            return
        both = (writer, back)
        await asyncio.gather(self._pass_on(reader, back, both), self._pass_on(onward, writer, both))

    async def _pass_on(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, both: tuple[asyncio.StreamWriter, ...]
    ) -> None:
        try:
            while data := await source.read(_CHUNK):
                self.seen["pieces"] += 1
                # Where it is a report, the cut falls more often: what was heard, and not answered, is what may double.
                cut = _CUT_REPORT if b"POST /v1/mainframe/report" in data else self._trouble.cut
                if self._draw.random() < cut:
                    self.seen["cut"] += 1
                    to.write(data if cut == _CUT_REPORT else data[: len(data) // 2])
                    with suppress(OSError):
                        await to.drain()
                    await asyncio.sleep(self._draw.uniform(0, self._trouble.delay))
                    break
                if self._draw.random() < self._trouble.lost:
                    self.seen["lost"] += 1
                    await asyncio.sleep(self._trouble.again)
                await asyncio.sleep(self._draw.uniform(0, self._trouble.delay))
                to.write(data)
                await to.drain()
        except OSError:
            pass
        for each in both:
            each.transport.abort()


class UnheardError(Exception):
    """OMEGA did not answer, or not what was asked: the Mainframe asks again after so many seconds."""

    def __init__(self, what: str, seconds: float = 0.0) -> None:
        super().__init__(what)
        self.seconds = seconds


@dataclass
class Disk:
    """What outlives a kill: where the Mainframe stands, how often it switched to each release, and which updates did
    not run here."""

    position: Position = field(default_factory=Position)
    switches: Counter[int] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)


class Mainframe:
    """One Mainframe; on a release of which `breaks` is true its program does not start."""

    def __init__(self, key: str, port: int, draw: random.Random, breaks: Callable[[Offer], bool]) -> None:
        self.key, self.disk, self.breaks = key, Disk(), breaks
        self._port, self._draw, self._head = port, draw, head_of(key)
        self._writer: asyncio.StreamWriter | None = None
        self.seen: Counter[str] = Counter()
        self._forget()

    def _forget(self) -> None:
        """Lose what is only in memory."""
        self._known: int | None = None
        self._tries: int | None = None
        self._offer: Offer | None = None
        self._reported: dict[str, Any] | None = None
        self._just_started = True
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def live(self) -> None:
        """Ask OMEGA and do what it offers, until killed."""
        failures = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(POLL_SECONDS + _GRACE):
                        asked = await self._ask_release()
                    await self._turn(asked)
                    failures = 0
                except (OSError, EOFError, TimeoutError, AshatError, UnheardError) as error:
                    self.seen[type(error).__name__ if not isinstance(error, UnheardError) else str(error)] += 1
                    failures += 1
                    self._forget()
                    self._just_started = False
                    pause = min(0.25 * 2.0 ** min(failures, 10), _LONGEST_PAUSE) * self._draw.uniform(0.5, 1.25)
                    await asyncio.sleep(max(pause, getattr(error, "seconds", 0.0)))
        finally:
            self._forget()

    async def _ask_release(self) -> bool:
        """Ask what is offered; whether a person had those who failed try again."""
        after = "" if self._known is None else f"?after={self._known}&wait={POLL_SECONDS}"
        if after and self._tries is not None:
            after += f"&tries={self._tries}"
        status, headers, content = await self._ask("GET", f"release{after}")
        if status not in (200, 204, 304):
            raise UnheardError(f"release: {status}", _retry_after(headers))
        told = int(headers.get(TRIES_HEADER.lower(), 0))
        again, self._tries = self._tries is not None and told > self._tries, told
        if status == 200:
            self._offer = Offer.model_validate_json(content)
        elif status == 204 and self._known != 0:
            self._offer = None
        self._known = self._offer.release_seq if self._offer else 0
        return again

    async def _turn(self, again: bool) -> None:
        position = self.disk.position
        ago = (datetime.now(UTC) - position.last_failure).total_seconds() if position.last_failure else 0.0
        just_started, self._just_started = self._just_started, False
        match plan(
            self._offer,
            position,
            failed_ago=ago,
            retry_delay=RETRY_SECONDS,
            just_started=(just_started and position.failures < 3) or again,
        ):
            case Running(offer):
                await self._report(offer, "running")
            case Failed(offer, reason, _):
                await self._report(offer, "failed", reason)
            case Install(offer, _):
                async with asyncio.timeout(60):
                    await self._pull(offer)
                await self._switch(offer)
                self._known = None

    async def _pull(self, offer: Offer) -> None:
        """Read what a Mainframe reads of a release, and hold the bytes against their digests."""
        newest = json.loads(await self._get("trust/timestamp.json"))["signed"]["meta"]["snapshot.json"]["version"]
        meta = json.loads(await self._get(f"trust/{newest}.snapshot.json"))["signed"]["meta"]
        for name in ("targets.json", "production.json"):
            await self._get(f"trust/{meta[name]['version']}.{name}")
        manifest = Manifest.parse(await self._get(f"bundles/{offer.bundle}"))
        if manifest.digest != offer.bundle:
            raise UnheardError("another manifest than the one that was asked for")
        digest = min(manifest.objects)
        if sha256(await self._get(f"objects/{digest}")).hexdigest() != digest:
            raise UnheardError("another object than the one that was asked for")

    async def _switch(self, offer: Offer) -> None:
        """Switch, which takes a while; a kill meanwhile leaves what ran before."""
        disk = self.disk
        if disk.position.accepted_seq != offer.release_seq:
            disk.position = replace(
                disk.position,
                accepted_seq=offer.release_seq,
                accepted_bundle=offer.bundle,
                failures=0,
                last_failure=None,
                reason="",
            )
        if disk.position.current_bundle != offer.bundle:
            await asyncio.sleep(self._draw.uniform(0.3, 3.0))
        if self.breaks(offer):
            failed = {"failures": disk.position.failures + 1, "last_failure": datetime.now(UTC), "reason": BREAKS}
            disk.position = replace(disk.position, **failed)  # type: ignore[arg-type]
            disk.failed.add(offer.update_id)
            return
        disk.switches[offer.release_seq] += 1
        disk.position = replace(disk.position, current_bundle=offer.bundle, current_seq=offer.release_seq)

    async def _report(self, offer: Offer, result: str, reason: str = "") -> None:
        told = report_of(offer.model_dump(), result, reason)
        if told == self._reported:
            return
        async with asyncio.timeout(_GRACE):
            status, headers, _ = await self._ask("POST", "report", json.dumps(told).encode())
        if status != 204:
            raise UnheardError(f"report: {status}", _retry_after(headers))
        self._reported = told

    async def _get(self, path: str) -> bytes:
        status, headers, content = await self._ask("GET", path)
        if status != 200:
            raise UnheardError(f"{path.partition('/')[0]}: {status}", _retry_after(headers))
        return content

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"{method} /v1/mainframe/{path} HTTP/1.1\r\n".encode() + self._head
        if body is not None:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        self._writer.write(head + b"\r\n" + (body or b""))
        answer = await self._reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        if "transfer-encoding" in headers:
            raise UnheardError("an answer of no known length")
        return int(answer[9:12]), headers, await self._reader.readexactly(content_length(answer))


class Crowd:
    """Mainframes behind a bad network, in a thread of their own. Use it in a `with` block."""

    def __init__(self, keys: list[str], port: int, seed: int) -> None:
        self._keys, self._draw = keys, random.Random(seed)
        self.network = BadNetwork(port, self._draw)
        self.broken: tuple[str, frozenset[str]] = ("", frozenset())
        """The update that breaks Mainframes, and the keys of those."""
        self.mainframes: dict[str, Mainframe] = {}
        self.killed: Counter[str] = Counter()
        self._alive: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crowd", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._begin()).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end()).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def kill_at_random(self, count: int, seconds: float) -> Future[None]:
        """Kill so many Mainframes that were not killed yet since the last time, at random moments within so many
        seconds, and start each again a moment later."""
        return self._do(self._kill(count, seconds))

    def running(self, bundle: str) -> int:
        """Count who runs it, by what is on their disks."""
        return sum(each.disk.position.current_bundle == bundle for each in self.mainframes.values())

    def seen(self) -> Counter[str]:
        """Count what kept them from being heard."""
        return sum((each.seen for each in self.mainframes.values()), Counter())

    def _do(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _begin(self) -> None:
        await self.network.start()
        for key in self._keys:
            self.mainframes[key] = Mainframe(key, self.network.port, self._draw, partial(self._breaks, key))
            self._start(key)

    def _breaks(self, key: str, offer: Offer) -> bool:
        update, keys = self.broken
        return offer.update_id == update and key in keys

    def _start(self, key: str) -> None:
        self._alive[key] = self._loop.create_task(self.mainframes[key].live())

    async def _kill(self, count: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        victims = self._draw.sample(self._keys, count)
        for number, key in enumerate(victims):
            left = max(until - time.monotonic(), 0.0)
            await asyncio.sleep(self._draw.uniform(0, 2 * left / (count - number)))
            self._alive[key].cancel()
            with suppress(asyncio.CancelledError):
                await self._alive[key]
            self.killed[key] += 1
            self._loop.call_later(self._draw.uniform(0.2, 5.0), self._start, key)

    async def _end(self) -> None:
        for task in self._alive.values():
            task.cancel()
        ended = await asyncio.gather(*self._alive.values(), return_exceptions=True)
        await self.network.end()
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error


def _retry_after(headers: dict[str, str]) -> float:
    return read_retry_after(headers.get("retry-after", ""), RETRY_SECONDS) or 0.0
