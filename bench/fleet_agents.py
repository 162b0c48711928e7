"""Simulated Mainframes, thousands in one process: one socket each and one epoll for all, so that they cost little.

They speak what a Mainframe speaks, with the headers that its client sends, and check the answers' statuses and lengths;
they check no signature and run nothing.
"""

from __future__ import annotations

import errno
import heapq
import json
import random
import select
import socket
import time
from collections import Counter
from typing import Any, NamedTuple

from fleet_kit import content_length, head_of, report_of

from ashat.node.connections import raise_descriptor_limit

POLL_SECONDS = 30.0
FILES = ("timestamp.json", "1.snapshot.json", "1.production.json", "1.targets.json")
_CONNECTING = 200


class Work(NamedTuple):
    """What one process of agents does. `poll` is the seconds of a long poll; with `spread` they ask by short polls
    instead, each at a moment of its own within so many seconds, and again after as many. `ends`: they only poll, for so
    many seconds."""

    port: int
    first: int
    keys: list[str]
    bundle: str = ""
    digest: str = ""
    poll: float = POLL_SECONDS
    spread: float = 0.0
    ends: float = 0.0
    give_up: float = 900.0


class Done(NamedTuple):
    """What came of it: the milliseconds that each request took but for the polls, how many agents came to the end, what
    else was seen, and the seconds of processor that it took."""

    milliseconds: list[float]
    finished: int
    seen: dict[str, int]
    processor: float


def simulate(work: Work, ready: Any) -> Done:
    """Be those Mainframes; `ready` is a barrier that is passed once all of them have asked."""
    raise_descriptor_limit()
    before = time.process_time()
    crowd = _Crowd(work)
    if not work.spread:
        crowd.connect_all()
        crowd.serve(until=lambda: crowd.asking == len(work.keys), seconds=120)
    ready.wait(600)
    crowd.begin()
    crowd.serve(until=lambda: crowd.finished == len(work.keys), seconds=work.ends or work.give_up)
    crowd.close()
    return Done(crowd.milliseconds, crowd.finished, dict(crowd.seen), time.process_time() - before)


class _Agent:
    """One Mainframe, and how far it is: `step` counts the requests of an update."""

    __slots__ = ("began", "head", "number", "received", "socket", "step")

    def __init__(self, number: int, head: bytes) -> None:
        self.number, self.head = number, head
        self.socket: socket.socket | None = None
        self.received = b""
        self.step = -1
        self.began = 0.0


class _Crowd:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._epoll = select.epoll()
        self._of: dict[int, _Agent] = {}
        self._later: list[tuple[float, int, _Agent]] = []
        self._agents = [_Agent(work.first + number, head_of(key)) for number, key in enumerate(work.keys)]
        poll = 0 if work.spread else work.poll
        self._ask = f"GET /v1/mainframe/release?after=0&wait={poll} HTTP/1.1\r\n".encode()
        self._fetches = [f"GET /v1/mainframe/trust/{name} HTTP/1.1\r\n".encode() for name in FILES]
        self._fetches += [
            f"GET /v1/mainframe/bundles/{work.bundle} HTTP/1.1\r\n".encode(),
            f"GET /v1/mainframe/objects/{work.digest} HTTP/1.1\r\n".encode(),
        ]
        self._report = b""
        self.asking = self.finished = 0
        self.milliseconds: list[float] = []
        self.seen: Counter[str] = Counter()

    def connect_all(self) -> None:
        for number, agent in enumerate(self._agents):
            self._connect(agent)
            self._send_poll(agent)
            if number % _CONNECTING == 0:
                self._turn(0.02)

    def begin(self) -> None:
        """By short polls: have each ask in a moment of its own."""
        if self._work.spread:
            now = time.monotonic()
            draw = random.Random(self._work.first)
            for agent in self._agents:
                heapq.heappush(self._later, (now + draw.uniform(0, self._work.spread), agent.number, agent))

    def serve(self, until: Any, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not until() and (now := time.monotonic()) < ends:
            while self._later and self._later[0][0] <= now:
                agent = heapq.heappop(self._later)[2]
                if self._connect(agent):
                    self._send_poll(agent)
            self._turn(min(0.1, max(self._later[0][0] - now, 0)) if self._later else 0.1)

    def close(self) -> None:
        for agent in list(self._of.values()):
            self._drop(agent)
        self._epoll.close()

    def _turn(self, seconds: float) -> None:
        for number, _ in self._epoll.poll(seconds, 512):
            agent = self._of.get(number)
            if agent is not None:
                self._read(agent)

    def _connect(self, agent: _Agent) -> bool:
        made = socket.socket()
        number = agent.number
        made.bind((f"127.{1 + number // 60_000}.{number // 250 % 240}.{1 + number % 250}", 0))
        try:
            made.connect(("127.0.0.1", self._work.port))  # on loopback it takes no time
        except OSError as error:
            made.close()
            self.seen[f"no connection: {errno.errorcode.get(error.errno or 0, '?')}"] += 1
            self._again(agent, 1.0)
            return False
        made.setblocking(False)
        agent.socket, agent.received, agent.step = made, b"", -1
        self._of[made.fileno()] = agent
        self._epoll.register(made.fileno(), select.EPOLLIN)
        return True

    def _again(self, agent: _Agent, seconds: float) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, agent.number, agent))

    def _drop(self, agent: _Agent) -> None:
        if agent.socket is not None:
            del self._of[agent.socket.fileno()]
            agent.socket.close()
            agent.socket = None

    def _send_poll(self, agent: _Agent) -> None:
        self.asking += agent.step == -1
        agent.step = 0
        self._send(agent, self._ask + agent.head + b"\r\n")

    def _send(self, agent: _Agent, request: bytes) -> None:
        assert agent.socket is not None
        agent.began = time.perf_counter()
        try:
            agent.socket.send(request)
        except OSError:
            self._lost(agent)

    def _lost(self, agent: _Agent) -> None:
        self.seen["a connection was lost"] += 1
        self._drop(agent)
        self._again(agent, 1.0)

    def _read(self, agent: _Agent) -> None:
        assert agent.socket is not None
        try:
            data = agent.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(agent)
            return
        received = agent.received + data if agent.received else data
        end = received.find(b"\r\n\r\n")
        if end < 0 or len(received) < end + 4 + content_length(received[:end]):
            agent.received = received
            return
        agent.received = b""
        self._answered(agent, int(received[9:12]), received[end + 4 :])

    def _answered(self, agent: _Agent, status: int, content: bytes) -> None:
        if agent.step == 0:
            self.seen[f"poll {status}"] += 1
            if status == 200 and not self._work.ends:
                self._report = self._report or self._said(content)
                agent.step = 1
                self._send(agent, self._fetches[0] + agent.head + b"\r\n")
            elif self._work.spread:
                self._drop(agent)
                self._again(agent, self._work.spread)
            else:
                self._send_poll(agent)
            return
        self.milliseconds.append((time.perf_counter() - agent.began) * 1000)
        if status != (204 if agent.step > len(self._fetches) else 200):
            self.seen[f"request {agent.step}: {status}"] += 1
            self._drop(agent)
            self._again(agent, 5.0)
        elif agent.step < len(self._fetches):
            agent.step += 1
            self._send(agent, self._fetches[agent.step - 1] + agent.head + b"\r\n")
        elif agent.step == len(self._fetches):
            agent.step += 1
            head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(self._report)
            self._send(agent, b"POST /v1/mainframe/report HTTP/1.1\r\n" + agent.head + head + self._report)
        else:
            self.finished += 1
            self._drop(agent)

    def _said(self, offer: bytes) -> bytes:
        return json.dumps(report_of(json.loads(offer), "running")).encode()
