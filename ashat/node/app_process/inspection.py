"""What the machine knows of a program's processes, whatever the program says of itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from ashat.protocol.probes import Listening, ProcessProbe

SECONDS = 2.0
LISTED = 200


@dataclass(frozen=True)
class _Held:
    """What one process holds, and where it listens."""

    threads: int
    files: int
    memory: int
    listens: frozenset[tuple[str, int, Literal["tcp", "udp"]]]


def inspect(processes: Iterable[psutil.Process], url: str | None) -> ProcessProbe:
    """Count what `processes` hold, and whether one of them takes the connections to the address `url`.

    It takes `SECONDS` at most; those processes that it does not come to, like those that this user may not look into,
    are counted as unseen.
    """
    ends = time.monotonic() + SECONDS
    seen: list[_Held] = []
    unseen = 0
    for process in processes:
        try:
            held = _held(process) if time.monotonic() < ends else None
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, OSError):
            held = None
        unseen += held is None
        seen += [held] if held else []
    listening = sorted({address for held in seen for address in held.listens})
    return ProcessProbe(
        answers=_answers(url, {port for _, port, protocol in listening if protocol == "tcp"}, unseen),
        processes=len(seen) + unseen,
        threads=sum(held.threads for held in seen),
        open_files=sum(held.files for held in seen),
        memory_bytes=sum(held.memory for held in seen),
        unseen=unseen,
        listening=[Listening(host=host, port=port, protocol=how) for host, port, how in listening[:LISTED]],
    )


def client_ports(processes: Iterable[psutil.Process]) -> frozenset[int]:
    """Collect the ports from which `processes` have TCP connections; it takes `SECONDS` at most, and leaves out what
    this user may not look into."""
    ends, ports = time.monotonic() + SECONDS, set[int]()
    for process in processes:
        if time.monotonic() > ends:
            break
        with suppress(psutil.Error, OSError):
            ports |= {each.laddr.port for each in process.net_connections("tcp") if each.raddr}
    return frozenset(ports)


def _held(process: psutil.Process) -> _Held:
    with process.oneshot():
        threads, files, memory = process.num_threads(), process.num_fds(), process.memory_info().rss
    connections = process.net_connections("inet")
    listens = frozenset((each.laddr.ip, each.laddr.port, _protocol(each.type)) for each in connections if _waits(each))
    return _Held(threads, files, memory, listens)


def _protocol(kind: socket.SocketKind) -> Literal["tcp", "udp"]:
    return "udp" if kind == socket.SOCK_DGRAM else "tcp"


def _waits(connection: Any) -> bool:
    """Tell whether anybody may write to that socket: it listens, or takes datagrams from wherever they come."""
    if connection.type == socket.SOCK_DGRAM:
        return bool(connection.laddr) and not connection.raddr
    return bool(connection.status == psutil.CONN_LISTEN)


def _answers(url: str | None, ports: set[int], unseen: int) -> bool | None:
    parts = urlsplit(url or "")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    if port in ports:
        return True
    return None if unseen or port is None else False
