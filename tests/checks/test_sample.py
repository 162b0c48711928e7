"""The sample program, run by itself: its API, its manners, and what it reports of itself."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle.manifest import FileEntry, Manifest
from tasks.checks.modules import module_digest
from tasks.selftest.faults import catalogue

SAMPLE = Path(__file__).parents[2] / "examples" / "raos"
BUNDLE = "ab" * 32
STARTED = re.compile(r"raos: \S+ on http://127\.0\.0\.1:(\d+), ")


@dataclass
class Program:
    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, body=content, headers=headers or {})
            response = connection.getresponse()
            raw = response.read()
            is_json = (response.getheader("Content-Type") or "").startswith("application/json")
            return response.status, json.loads(raw) if is_json and raw else raw
        finally:
            connection.close()


@contextmanager
def running(data: Path, *, release: Path = SAMPLE, faults: str = "") -> Iterator[Program]:
    environment = {**os.environ, "RAOS_DATA": str(data), "RAOS_FAULT": faults, "ASHAT_BUNDLE": BUNDLE}
    words = [sys.executable, str(release / "raos.py"), "--port", "0"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, cwd=data.parent) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            while line and not STARTED.match(line):
                line = process.stderr.readline()
            found = STARTED.match(line)
            assert found, f"it did not start: {process.wait(60)}"
            yield Program(process, int(found[1]))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(tmp_path_factory.mktemp("raos") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def kim(program: Program) -> dict[str, str]:
    account = {"name": "kim", "password": "correct horse"}
    assert program.ask("POST", "/api/auth/register", account) == (201, {"name": "kim"})
    status, answer = program.ask("POST", "/api/auth/login", account)
    assert status == 200
    return {"Authorization": f"Bearer {answer['token']}"}


def manifest_of(tree: Path) -> Manifest:
    files = [path for path in tree.rglob("*") if path.is_file()]
    contents = {path.relative_to(tree).as_posix(): path.read_bytes() for path in files}
    return Manifest.from_files(
        FileEntry(path, len(data), 0o644, hashlib.sha256(data).hexdigest()) for path, data in contents.items()
    )


def test_health_names_the_version_and_the_bundle(program: Program) -> None:
    status, answer = program.ask("GET", "/health")
    assert status == 200
    assert (answer["status"], answer["version"], answer["bundle"]) == ("ok", "9.4.1", BUNDLE)


def test_module_digests_follow_from_the_manifest_alone(program: Program) -> None:
    status, answer = program.ask("GET", "/modules")
    assert status == 200
    expected = {name: module_digest(files) for name, files in manifest_of(SAMPLE).modules.items() if name}
    assert {module["name"]: module["digest"] for module in answer["modules"]} == expected
    assert all(module["status"] == "loaded" and module["version"] for module in answer["modules"])
    assert len(expected) == 6


def test_a_visitor_sees_the_pages(program: Program) -> None:
    status, page = program.ask("GET", "/")
    assert status == 200
    assert b"Welcome to RaOS" in page
    assert b"RaOS 9.4.1" in page
    assert program.ask("GET", "/pages/rules")[0] == 200
    assert program.ask("GET", "/pages/_layout")[0] == 404
    assert program.ask("GET", "/api/content/pages")[1] == {"pages": ["rules", "welcome"]}


def test_an_account_can_log_in(program: Program, kim: dict[str, str]) -> None:
    assert program.ask("GET", "/api/auth/me", headers=kim) == (200, {"name": "kim"})
    assert program.ask("GET", "/api/auth/me", headers={"Authorization": "Bearer x"})[0] == 401
    assert program.ask("POST", "/api/auth/login", {"name": "kim", "password": "wrong horse"})[0] == 401
    assert program.ask("POST", "/api/auth/login", {"name": "nobody", "password": "wrong horse"})[0] == 401
    assert program.ask("POST", "/api/auth/register", {"name": "kim", "password": "another one"})[0] == 409
    assert program.ask("POST", "/api/auth/register", {"name": "Kim!", "password": "another one"})[0] == 400
    assert program.ask("POST", "/api/auth/register", {"name": "lee", "password": "short"})[0] == 400


def test_what_is_said_in_a_room_is_read_there(program: Program, kim: dict[str, str]) -> None:
    path = "/api/chat/rooms/trade/messages"
    assert program.ask("POST", path, {"text": "two lanterns"})[0] == 401
    status, answer = program.ask("POST", path, {"text": "two lanterns"}, kim)
    assert status == 201
    messages = program.ask("GET", path)[1]["messages"]
    assert [(message["author"], message["text"]) for message in messages] == [("kim", "two lanterns")]
    assert program.ask("GET", f"{path}?after={answer['id']}")[1]["messages"] == []
    assert program.ask("GET", f"{path}?after=x")[0] == 400
    assert program.ask("GET", "/api/chat/rooms/attic/messages")[0] == 404


def test_an_order_takes_from_the_stock(program: Program, kim: dict[str, str]) -> None:
    before = program.ask("GET", "/api/market/items/guild-banner")[1]["stock"]
    assert program.ask("POST", "/api/market/orders", {"item": "guild-banner", "amount": 3}, kim)[0] == 201
    assert program.ask("GET", "/api/market/items/guild-banner")[1]["stock"] == before - 3
    assert program.ask("POST", "/api/market/orders", {"item": "guild-banner", "amount": -3}, kim)[0] == 400
    assert program.ask("POST", "/api/market/orders", {"item": "no-such-item"}, kim)[0] == 409
    assert len(program.ask("GET", "/api/market/items")[1]["items"]) == 4


def test_a_thread_is_counted_on_its_board(program: Program, kim: dict[str, str]) -> None:
    path = "/api/forum/boards/help/threads"
    assert program.ask("POST", path, {"title": "How?", "text": "Like so."}, kim)[0] == 201
    assert [thread["title"] for thread in program.ask("GET", path)[1]["threads"]] == ["How?"]
    boards = program.ask("GET", "/api/forum/boards")[1]["boards"]
    assert {board["name"]: board["threads"] for board in boards} == {"announcements": 0, "help": 1, "guilds": 0}


def test_bad_requests_are_refused_in_json(program: Program) -> None:
    assert program.ask("GET", "/nowhere") == (404, {"error": "not found"})
    assert program.ask("DELETE", "/health")[0] == 405
    assert program.ask("POST", "/api/auth/login", b"{")[0] == 400
    assert program.ask("POST", "/api/auth/login", b"[1]")[0] == 400
    assert program.ask("POST", "/api/auth/login", b" " * 65537)[0] == 413
    assert program.ask("POST", "/api/auth/login", headers={"Content-Length": "x"})[0] == 413
    assert program.ask("POST", "/api/auth/login", b"0", {"Transfer-Encoding": "chunked"})[0] == 411


def test_a_head_request_has_no_body(program: Program) -> None:
    assert program.ask("HEAD", "/health") == (200, b"")


def test_it_writes_nothing_into_its_release(tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(SAMPLE, release)
    before = manifest_of(release).digest
    with running(tmp_path / "data", release=release) as program:
        for path in ("/", "/health", "/modules", "/api/market/items", "/nowhere"):
            program.ask("GET", path)
    assert manifest_of(release).digest == before
    assert not list(release.rglob("__pycache__"))


def test_it_runs_the_bytes_it_reports_not_compiled_leftovers(tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(SAMPLE, release)
    module = release / "Modules" / "Forum" / "__init__.py"
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(module.parent)], check=True)
    stamps = module.stat()
    module.write_bytes(module.read_bytes().replace(b'"2.1.3"', b'"2.1.4"'))
    os.utime(module, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    with running(tmp_path / "data", release=release) as program:
        versions = {each["name"]: each["version"] for each in program.ask("GET", "/modules")[1]["modules"]}
    assert versions["Forum"] == "2.1.4"


def test_it_refuses_to_keep_its_data_inside_the_release(tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(SAMPLE, release)
    words = [sys.executable, str(release / "raos.py"), "--port", "0", "--data", str(release / "data")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    assert "inside the release" in done.stderr
    assert not (release / "data").exists()


def test_sigterm_ends_it_at_once_even_with_a_client_connected(tmp_path: Path) -> None:
    with running(tmp_path / "data") as program:
        connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=60)
        connection.request("GET", "/health")
        connection.getresponse().read()
        started = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(60) == 0
        assert time.monotonic() - started < 15
        connection.close()


def test_the_release_before_runs_on_a_newer_database(tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(SAMPLE, older)
    (older / "migrations" / "0003_market.sql").unlink()
    shutil.rmtree(older / "Modules" / "Market")
    with running(tmp_path / "data"):
        pass
    with running(tmp_path / "data", release=older) as program:
        assert program.ask("GET", "/health")[0] == 200
        assert len(program.ask("GET", "/modules")[1]["modules"]) == 5


def test_a_module_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    with running(tmp_path / "data", faults="module-fails=Auth") as program:
        modules = {each["name"]: each for each in program.ask("GET", "/modules")[1]["modules"]}
        assert modules["Auth"]["status"] == "failed"
        assert modules["Auth"]["error"] == "ImportError: No module named 'racore_auth'"
        assert program.ask("GET", "/health")[1]["status"] == "degraded"
        assert program.ask("GET", "/api/chat/rooms")[0] == 200
        assert program.ask("POST", "/api/chat/rooms/lobby/messages", {"text": "x"}) == (
            503,
            {"error": "accounts is not available"},
        )


def test_a_misspelt_fault_is_not_taken_for_a_good_release(tmp_path: Path) -> None:
    environment = {**os.environ, "RAOS_FAULT": "slwo=300", "RAOS_DATA": str(tmp_path)}
    words = [sys.executable, str(SAMPLE / "raos.py"), "--port", "0"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert "there is no fault 'slwo'" in done.stderr


def test_each_fault_is_documented_and_seeded_somewhere() -> None:
    faults = (SAMPLE / "kernel" / "faults.py").read_text(encoding="utf-8")
    known = set(re.findall(r'^    "([a-z-]+)": "', faults, re.MULTILINE))
    documented = set(re.findall(r"`([a-z-]+)(?:=[A-Z@]+)?`", (SAMPLE / "README.md").read_text(encoding="utf-8")))
    assert known <= documented
    seeded = {name for fault in catalogue() for name in fault.faults}
    assert known - seeded == {"crash-at-start"}


@pytest.mark.parametrize(("fault", "code"), [("crash-at-start", 3), ("crash-after=0.2", -signal.SIGKILL)])
def test_it_crashes_when_told_to(tmp_path: Path, fault: str, code: int) -> None:
    environment = {**os.environ, "RAOS_FAULT": fault, "RAOS_DATA": str(tmp_path)}
    words = [sys.executable, str(SAMPLE / "raos.py"), "--port", "0"]
    assert subprocess.run(words, env=environment, capture_output=True, timeout=90).returncode == code
