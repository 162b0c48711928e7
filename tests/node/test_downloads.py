"""OMEGA serves so many downloads at once: another Mainframe waits for its turn, which is no failure."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from ashat.client.node import NodeClient
from ashat.protocol.messages import Role
from tests.node.test_mainframe import Install
from tests.node.test_old_protocol import RAOS, ask, old_licence
from tests.support.processes.node import NodeProcess, tiny_app
from tests.support.processes.omega import eventually, licence, mainframe, ship, source

LARGE = 24 << 20


def hold(node: NodeProcess, key: str, digests: list[str]) -> socket.socket:
    """Ask for objects, and take none of the answer but its first bytes."""
    body = json.dumps({"digests": digests})
    connection = socket.create_connection(("127.0.0.1", node.port))
    connection.settimeout(60)
    head = f"Host: o\r\nAuthorization: Licence {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(f"POST /v1/mainframe/objects/fetch HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
    return connection


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(64).split()[1])


def large_objects(client: NodeClient, bundle: str) -> list[str]:
    manifest = client.manifest(bundle)
    return [digest for digest, _ in manifest.by_path["large"].objects()]


def test_a_mainframe_waits_for_its_turn_and_then_runs_the_release(tmp_path: Path) -> None:
    settings = {"objects": {"downloads": 1}}
    with (
        NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app(), settings=settings) as omega,
        omega.client() as client,
    ):
        release = source(tmp_path, **{"raos.toml": RAOS.format("9.10.0")})
        (release / "large").write_bytes(os.urandom(LARGE))
        current = ship(client, release)
        large, key = large_objects(client, current.bundle), licence(client, "slow")
        first = hold(omega, key, large)
        others = [hold(omega, key, large) for _ in range(7)]
        try:
            assert [status_of(one) for one in (first, *others)] == [200] * 8
            with hold(omega, key, large) as ninth:
                assert status_of(ninth) == 429
            old = old_licence(client, "old")
            later = ask(omega, "download/9.10.0", license=old)
            assert (later.status_code, later.json().keys()) == (503, {"error"})
            assert 5 <= int(later.headers["Retry-After"]) <= 15
            with Install(tmp_path / "baker", omega) as baker:
                seen = baker.wait_for("waiting", "waits for its turn")
                assert seen.last_contact
                assert "503" not in seen.detail
                known = mainframe(client, baker.key)
                assert (known.result, known.last_seen is not None) == ("none", True)
                for one in (first, *others):
                    one.close()
                baker.wait_until_runs(current)
                log = baker.log()
                assert log.count("waits for its turn") == 1, log
                assert "WARNING" not in log.partition("waits for its turn")[2].partition("is here")[0]
                told = eventually(lambda: mainframe(client, baker.key), "a report", baker)
                assert told.result == "running"
            assert ask(omega, "download/9.10.0", license=old).status_code == 200
        finally:
            for one in (first, *others):
                one.close()
        text = omega.log()
        assert "Traceback" not in text
