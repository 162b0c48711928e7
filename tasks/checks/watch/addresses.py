"""Finds the addresses at which a program takes connections besides its own, new against the release before.

Rule: `address`, and `process-unseen` for what the node could not look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from ashat.protocol.probes import Listening, ProcessProbe
from tasks.checks.kit.base import Finding, one_line
from tasks.checks.kit.looks import Look

EPHEMERAL = 32768  # from here on the system chooses: ip_local_port_range of Linux, proc_sys_net(5)
_OWN = "its own port"


class _Place(NamedTuple):
    """An address without what differs from start to start; `port` is in words where the system chose it."""

    host: str
    port: str
    protocol: str

    def __str__(self) -> str:
        return f"{self.host}, {self.port}, {self.protocol}"


def address_findings(now: Look, before: Look | None) -> Iterator[Finding]:
    """Find the addresses of now that the release before did not have; what is on loopback is for the record."""
    process = now.process
    if process is None:
        text = "its node tells nothing of processes and addresses: update it"
        yield Finding("medium", text, "process-unseen", unseen=True)
        return
    if process.bundle is None:
        why = one_line(process.detail) or "no reason given"
        text = f"addresses, processes, threads, files and memory of the program were not looked at: {why}"
        yield Finding("low", text, "process-unseen", unseen=True)
        return
    if process.unseen:
        text = f"the node may not look into {process.unseen} of the program's {process.processes} processes"
        yield Finding("low", text, "process-unseen", unseen=True, count=process.unseen)
    known = places(before) if before and before.process and before.process.bundle else None
    for place, count in sorted(places(now).items()):
        if known is None and place.port != _OWN:
            yield _finding(place, "besides the address that it is asked at; is that meant to be?")
        elif known is not None and count > known[place]:
            yield _finding(place, "where the release before took none; is that meant to be?")


def places(look: Look) -> Counter[_Place]:
    """List where a program takes connections, and datagrams at ports that somebody chose."""
    parts = urlsplit((look.app.url if look.app else None) or "")
    own = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    listening = look.process.listening if look.process else []
    named = [_place(each, own) for each in listening if each.protocol == "tcp" or each.port < EPHEMERAL]
    return Counter(named)


def _place(each: Listening, own: int | None) -> _Place:
    port = "a port of the system's choice" if each.port >= EPHEMERAL else f"port {each.port}"
    return _Place(each.host, _OWN if each.port == own and each.protocol == "tcp" else port, each.protocol)


def is_public(host: str) -> bool:
    """Tell whether others than this machine may reach that address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_loopback


def _finding(place: _Place, how: str) -> Finding:
    what = "connections" if place.protocol == "tcp" else "datagrams"
    severity = "medium" if is_public(place.host) else "low"
    text = f"the program takes {what} at {one_line(place.host, 60)}, {place.port}, {how}"
    return Finding("medium" if severity == "medium" else "low", text, "address", str(place))


def address_figures(look: Look, prefix: str) -> dict[str, int]:
    """Return the figures of one look, each named with `prefix`; none where the node told nothing."""
    probe: ProcessProbe | None = look.process
    if probe is None or probe.bundle is None:
        return {}
    return {
        f"{prefix}addresses": len(probe.listening),
        f"{prefix}addresses_public": sum(is_public(each.host) for each in probe.listening),
        f"{prefix}processes": probe.processes,
        f"{prefix}threads": probe.threads,
        f"{prefix}open_files": probe.open_files,
        f"{prefix}memory_kib": probe.memory_bytes // 1024,
    }
