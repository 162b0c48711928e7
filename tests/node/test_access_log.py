"""What a node writes down of every request: complete, bounded on disk, and without a secret."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from ashat.common import rotation
from ashat.errors import NodeAuthError
from ashat.node.access.tokens import TokenFile
from ashat.node.cli.main import main
from ashat.node.core.db import now
from ashat.node.logs.access_log import DIRECTORY, AccessLog, cleaned, read_access_log
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import AccessLogLine, Caller, OperationRequest, Role, Scope
from tests.support.processes.node import NodeProcess, push, tiny_bundle
from tests.support.processes.omega import revoke_licence

KEY = "RACORE-0123ABCD-0123ABCD-0123ABCD"
OTHER = "RACORE-FFFFABCD-0123ABCD-0123ABCD"
DIGEST = "a" * 64
PROMOTE = {"action": "promote", "bundle": DIGEST, "expected_current": None, "update_id": "UPD-1", "attempt": 1}


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("journal") / "omega", role=Role.OMEGA) as node:
        yield node


def lines(node: NodeProcess, asker: Caller) -> list[AccessLogLine]:
    return list(reversed(read_access_log(node.data / DIRECTORY, asker, limit=10_000)))


def said(line: AccessLogLine) -> tuple[str, str, str, int]:
    return line.token or line.licence, line.method, line.path, line.status


def test_every_request_is_written_down_before_it_is_answered(omega: NodeProcess, tmp_path: Path) -> None:
    ids = {token.scopes[0]: token.id for token in TokenFile(omega.data / "tokens.json").all()}
    with omega.client(Scope.PUSH) as client:
        bundle = push(client, tiny_bundle(tmp_path / "source", z="journal"))
    with omega.client(Scope.READ) as reader:
        assert reader.state().role is Role.OMEGA
        with pytest.raises(NodeAuthError):
            reader.start_operation("op:journal", OperationRequest.model_validate(PROMOTE))
    with omega.client() as admin:
        licence = admin.put_licence(LicenceRequest(key=KEY, name="A customer"))
    own = {"headers": {"Authorization": f"Licence {KEY}"}, "params": {"after": 0}}
    assert httpx.get(f"{omega.url}/v1/mainframe/release", **own).status_code == 204
    with omega.client() as admin:
        revoke_licence(admin, licence.id)
    assert httpx.get(f"{omega.url}/v1/mainframe/release", **own).status_code == 403
    httpx.get(f"{omega.url}/v1/state", headers={"Authorization": "Bearer wrong"})
    httpx.get(f"{omega.url}/nowhere?token=secret")
    omega.kill9()
    omega.start()

    known = lines(omega, Caller.TOKENS)
    asked = [said(line) for line in known]
    assert (ids[Scope.PUSH], "POST", "/v1/objects/missing", 200) in asked
    assert (ids[Scope.PUSH], "PUT", f"/v1/bundles/{bundle}", 201) in asked
    assert (ids[Scope.READ], "GET", "/v1/state", 200) in asked
    assert (ids[Scope.ADMIN], "PUT", "/v1/licences", 201) in asked
    refused = next(line for line in known if line.status == 403)
    assert said(refused) == (ids[Scope.READ], "PUT", "/v1/operations/op:journal", 403)
    assert refused.detail.startswith("This needs a token with the scope 'promote'")
    assert {line.client for line in known} == {"127.0.0.1"}
    sent = next(line for line in known if line.path == "/v1/objects")
    assert sent.received > 1000
    assert [said(line) for line in lines(omega, Caller.LICENCES)] == [
        (licence.id, "GET", "/v1/mainframe/release", 204),
        (licence.id, "GET", "/v1/mainframe/release", 403),
    ]
    strangers = [said(line) for line in lines(omega, Caller.ANONYMOUS)]
    assert strangers[-2:] == [("", "GET", "/v1/state", 401), ("", "GET", "/nowhere", 404)]


def test_no_token_and_no_key_is_written_down_even_where_it_was_put_by_mistake(omega: NodeProcess) -> None:
    admin, other = omega.token(), omega.token(Scope.READ)
    headers = {"Authorization": f"Bearer {admin}"}
    httpx.post(f"{omega.url}/v1/licences/{OTHER}/revoke", headers=headers)
    httpx.get(f"{omega.url}/v1/operations/{other}", headers=headers)
    httpx.get(f"{omega.url}/v1/{OTHER}/{other}", headers={"Authorization": f"Licence {OTHER}"})
    asked = [line.path for line in lines(omega, Caller.TOKENS)[-2:] + lines(omega, Caller.ANONYMOUS)[-1:]]
    assert asked == ["/v1/licences/-/revoke", "/v1/operations/-", "/v1/-/-"]
    kept = b"".join(path.read_bytes() for path in omega.directory.rglob("*") if path.is_file() and path != omega.config)
    for secret in (*(omega.token(scope) for scope in Scope), KEY, OTHER):
        assert secret.encode() not in kept


def test_an_admin_reads_it_over_the_api_and_by_the_command(
    omega: NodeProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with omega.client(Scope.READ) as client:
        mine = client.token().id
    headers = {"Authorization": f"Bearer {omega.token()}"}
    asked = httpx.get(f"{omega.url}/v1/journal/requests", params={"of": mine, "limit": 1}, headers=headers)
    (line,) = asked.json()["requests"]
    assert (line["path"], line["status"], line["token"]) == ("/v1/token", 200, mine)
    strangers = httpx.get(f"{omega.url}/v1/journal/requests?by=strangers", headers=headers).json()["requests"]
    assert strangers
    assert not any("token" in line for line in strangers)
    words = ["journal", "requests", "--data", str(omega.data), "--of", mine, "--limit", "1"]
    monkeypatch.setattr(sys, "argv", ["ashat-node", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert shown.split()[2:] == [mine, "127.0.0.1", "GET", "/v1/token", "200"]


def entry(path: str, status: int = 200, token: str = "") -> AccessLogLine:
    return cleaned(AccessLogLine(at=now(), method="GET", path=path, status=status, token=token))


def test_the_files_are_bounded_and_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "FILE_BYTES", 2000)
    written = AccessLog(tmp_path)
    for number in range(400):
        written.append(entry(f"/{number}", token="1f2e3d4c"))
        written.append(entry(f"/{number}", 401))
    written.close()
    for asker, files in ((Caller.TOKENS, 8), (Caller.ANONYMOUS, 2)):
        found = sorted(tmp_path.glob(f"{asker}.*"))
        assert len(found) == files
        assert all(path.stat().st_size <= 2000 for path in found)
        kept = [line.path for line in read_access_log(tmp_path, asker, limit=1000)]
        assert kept == [f"/{number}" for number in range(399, 399 - len(kept), -1)]
        assert [line.path for line in read_access_log(tmp_path, asker, limit=3)] == kept[:3]


def test_a_torn_line_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "tokens.jsonl").write_bytes(b'{"at": "2026-11-25T00:00:0')
    written = AccessLog(tmp_path)
    written.append(entry("/v1/state", token="1f2e3d4c"))
    written.close()
    assert [line.path for line in read_access_log(tmp_path, limit=10)] == ["/v1/state"]


def test_a_full_disk_stops_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tokens.jsonl").symlink_to("/dev/full")
    written = AccessLog(tmp_path)
    for _ in range(3):
        written.append(entry("/v1/state", token="1f2e3d4c"))
    written.close()
    assert [record.getMessage()[:32] for record in caplog.records] == ["requests are not written down: ["]


def test_a_log_that_its_program_keeps_open_is_cut_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "FILE_BYTES", 2000)
    path, copy = tmp_path / "app.log", tmp_path / "app.log.1"
    rotation.rotate_in_place(path)
    with path.open("ab", buffering=0) as program:
        program.write(b"a" * 2000)
        rotation.rotate_in_place(path)
        assert not copy.exists()
        program.write(b"b")
        rotation.rotate_in_place(path)
        program.write(b"c")
    assert (copy.read_bytes(), path.read_bytes()) == (b"a" * 1999 + b"b", b"c")


def test_a_log_is_cut_where_there_is_no_room_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rotation, "FILE_BYTES", 2000)
    path = tmp_path / "app.log"
    path.write_bytes(b"a" * 3000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        rotation.rotate_in_place(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(found.name, found.stat().st_size) for found in tmp_path.iterdir()] == [("app.log", 0)]
    assert [record.getMessage() for record in caplog.records] == [f"{path} is emptied without a copy: File too large"]


def test_a_log_is_cut_whatever_stands_in_the_way_of_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rotation, "FILE_BYTES", 2000)
    path = tmp_path / "app.log"
    path.write_bytes(b"a" * 9000)
    (tmp_path / "app.log.1").mkdir()
    rotation.rotate_in_place(path)
    assert path.stat().st_size == 0
    assert [record.getMessage()[: len(str(path)) + 26] for record in caplog.records] == [
        f"{path} is emptied without a copy"[: len(str(path)) + 26]
    ]
    rotation.rotate_in_place(tmp_path / "nothing" / "app.log")


def test_a_copy_holds_the_end_of_the_log_and_no_more_than_a_log_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "FILE_BYTES", 2000)
    path = tmp_path / "app.log"
    path.write_bytes(b"".join(b"%04d\n" % number for number in range(2000)))
    rotation.rotate_in_place(path)
    assert (tmp_path / "app.log.1").read_bytes().split() == [b"%04d" % number for number in range(1600, 2000)]


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path) -> None:
    written = rotation.RotatedFile(tmp_path / "lines", 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, before[1]))
    try:
        written.append(b"0123456789\n")
        written.append(b"0123456789\n")
        with pytest.raises(OSError, match="No space left"):
            written.append(b"0123456789\n")
        written.append(b"01\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    written.close()
    assert (tmp_path / "lines").read_bytes() == b"0123456789\n0123456789\n01\n"


def test_where_the_next_file_cannot_be_made_the_log_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "FILE_BYTES", 40)
    written = rotation.RotatedFile(tmp_path / "lines", 2)
    written.append(b"before\n" * 5)
    monkeypatch.setattr(rotation.RotatedFile, "_open", _refused)
    for number in range(9):
        written.append(b"%09d\n" % number)
    written.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]
    assert (tmp_path / "lines").read_bytes() == b"000000008\n"


def _refused(_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_the_node_failed_at_is_written_down_as_that(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public") as node:
        with closing(sqlite3.connect(node.data / "node.db")) as database, database:
            database.execute("DROP TABLE lease")
        headers = {"Authorization": f"Bearer {node.token(Scope.READ)}"}
        assert httpx.get(f"{node.url}/v1/state", headers=headers).json()["error"] == "internal"
        assert said(lines(node, Caller.TOKENS)[-1])[1:] == ("GET", "/v1/state", 500)
