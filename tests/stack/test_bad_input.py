"""What a user's mistake and a server's mood get: one clear line, the exit code, and nothing changed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ashat.deployment.state_machine import Stage
from ashat.protocol.messages import Scope
from tests.support.fakes.certificates import make_certificate
from tests.support.fakes.flaky_proxy import MoodyProxy
from tests.support.processes.node import ROOT, NodeProcess, free_port
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

# Without these capabilities, root may read no more than the permissions say.
_MORE = "-dac_override,-dac_read_search"
AS_ITS_OWNER = ("setpriv", "--bounding-set", _MORE, "--inh-caps", _MORE, "--") if os.geteuid() == 0 else ()


@pytest.fixture(autouse=True)
def nothing_changes(stack: Stack) -> Iterator[None]:
    """No mistake changes what any server runs, nor where the servers are."""
    before = stack.bundles()
    yield
    assert stack.bundles() == before


@pytest.fixture
def public_is_elsewhere(stack: Stack) -> Iterator[None]:
    """The test says that Public is somewhere else; afterwards it is where it is."""
    yield
    stack.configure("public", stack.public, Scope.PUSH)


def refused(done: subprocess.CompletedProcess[str], *telling: str, code: int = 1) -> None:
    """It ended with `code` and one line that says each of `telling`, and no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1 or code == 2, done.stderr
    for words in telling:
        assert words in done.stderr, done.stderr


@contextmanager
def moody_server(status: int, body: str, headers: dict[str, str] | None = None) -> Iterator[str]:
    """A server that answers everything alike; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("command", ["verify", "approve", "rollback", "cancel", "evidence"])
def test_an_unknown_id(stack: Stack, command: str) -> None:
    refused(stack.deploy(command, "NEVER-PUSHED", check=False), "No deployment 'NEVER-PUSHED'", "deploy history")


@pytest.mark.parametrize(
    ("update_id", "telling"),
    [
        ("a/b", "'/'"),
        ("a b", "' '"),
        ("a\nb", "U+000A"),
        ("\x1b[31m", "U+001B"),
        ("", "empty"),
        ("..", "first a letter or digit"),
        ("x" * 200, "at most 64"),
    ],
)
def test_an_id_that_is_none(stack: Stack, update_id: str, telling: str) -> None:
    refused(stack.deploy("push", update_id, "d", check=False), telling, code=2)


def test_an_id_in_use_says_how_to_go_on(stack: Stack) -> None:
    done = stack.deploy("push", "UPD-0", "again", check=False)
    refused(done, "Deployment session 'UPD-0' already exists", "push under a new id")


def test_a_source_that_cannot_be_packed(stack: Stack, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "raos.toml").write_text('[raos]\nname = "RaOS"\nversion = "1"\n')
    (linked / "away").symlink_to("/etc/passwd")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "raos.toml").write_text('[raos]\nname = "RaOS"\nversion = "1"\n\n[helth]\n')
    for directory, telling, code in (
        (empty, "no file to ship", 1),
        (tmp_path / "missing", "does not exist", 2),
        (linked, "away", 1),
        (wrong, "helth", 1),
    ):
        done = stack.deploy("push", "BAD-1", "d", "--source", str(directory), check=False)
        refused(done, telling, code=code)
    refused(stack.deploy("push", "BAD-1", "d", "--ref", "no-such-branch", check=False), "no-such-branch", code=2)
    refused(stack.deploy("verify", "BAD-1", check=False), "No deployment 'BAD-1'")


def test_what_raos_toml_gets_wrong_is_named_with_file_line_and_key(stack: Stack, tmp_path: Path) -> None:
    endpoint = '[[endpoint]]\nname = "a"\npath = "/a"\n'
    for number, (wrong, telling) in enumerate(
        (
            (
                '[health]\nreddy = "/ready"\n',
                "line 6: there is no key 'reddy' in health; did you mean 'ready'?",
            ),
            (
                '[health]\nstart_seconds = "8"\n',
                "line 6: health.start_seconds: input should be a valid number",
            ),
            (
                f'{endpoint}schema = "schemas/gone.json"\n',
                "line 8: endpoint[1].schema: the bundle has no file 'schemas/gone.json'; add it",
            ),
        )
    ):
        tree = tmp_path / str(number)
        tree.mkdir()
        (tree / "raos.toml").write_text(f'[raos]\nname = "RaOS"\nversion = "1"\n\n{wrong}')
        done = stack.deploy("push", "BAD-TOML", "d", "--source", str(tree), check=False)
        refused(done, f"raos.toml, {telling}")
    refused(stack.deploy("verify", "BAD-TOML", check=False), "No deployment 'BAD-TOML'")


def test_a_dirty_tree_needs_a_word(stack: Stack) -> None:
    stack.change("uncommitted")
    told = ("has uncommitted changes", "1 changed: Modules/Chat/__init__.py. ", "--ref HEAD", "--allow-dirty")
    refused(stack.deploy("push", "BAD-2", "d", check=False), *told)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=stack.source, capture_output=True, text=True, check=True)
    (stack.source / ".git/info/exclude").write_text("build/\n")
    (stack.source / "build").mkdir()
    (stack.source / "build" / "out").touch()
    try:
        told = (f"against its commit {head.stdout[:12]}: 1 changed: ", "1 not in it: build/out. ")
        refused(stack.deploy("push", "BAD-2", "d", check=False), *told)
    finally:
        shutil.rmtree(stack.source / "build")


def test_the_home_is_not_shipped(stack: Stack) -> None:
    for source in (stack.home, stack.home.parent):
        done = stack.deploy("push", "BAD-2", "d", "--allow-dirty", "--source", str(source), check=False)
        refused(done, "ASHAT_HOME", "is in the tree")


def test_a_bare_repository_needs_a_ref(stack: Stack, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", "--bare", str(stack.source), str(tmp_path / "bare.git")], check=True)
    done = stack.deploy("push", "BAD-2", "d", "--allow-dirty", "--source", str(tmp_path / "bare.git"), check=False)
    refused(done, "is no work tree of its repository", "--ref")


def test_what_cannot_be_read_is_not_pushed(stack: Stack, tmp_path: Path) -> None:
    """In a process that reads what its owner may read, also where that is root."""
    for name in ("raos.toml", "Modules/secret", "Modules/closed/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    program = (
        "import os, pathlib, sys\n"
        "from ashat.cli.main import run\n"
        "for name in ('raos.toml', 'Modules/secret', 'Modules/closed'):\n"
        "    path = pathlib.Path(name)\n"
        "    mode = path.stat().st_mode\n"
        "    path.chmod(0)\n"
        "    print(run(['push', 'BAD-3', 'd']), flush=True)\n"
        "    path.chmod(mode)\n"
    )
    done = subprocess.run(
        [*AS_ITS_OWNER, sys.executable, "-c", program],
        cwd=tmp_path,
        env={**stack.environment, "PYTHONPATH": str(ROOT), "ASHAT_RETRIES": "0"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["1"] * 3
    assert done.stderr.splitlines() == [
        "❌ 'raos.toml' cannot be read; its permissions do not allow it.",
        "❌ 'Modules/secret' cannot be read; its permissions do not allow it.",
        "❌ The directory 'Modules/closed/' cannot be read; check its permissions.",
    ]
    assert not stack.ran("BAD-3")


@pytest.mark.usefixtures("public_is_elsewhere")
@pytest.mark.parametrize(
    ("status", "body", "telling"),
    [
        (500, '{"error": "internal", "detail": "it broke"}', "moody: it broke"),
        (507, '{"error": "disk_full", "detail": "no space is left"}', "moody: no space is left"),
        (200, "<html>a portal</html>", "moody answers, but not as an ASHAT node does; check the address"),
    ],
)
def test_a_server_that_will_not(stack: Stack, status: int, body: str, telling: str) -> None:
    with moody_server(status, body) as url:
        configured = stack.deploy("configure", "public", url, "moody", "--token-stdin", stdin="ashat_x")
        assert "✅ Server configured successfully" in configured.stdout
        update_id = f"BAD-{status}"
        done = stack.deploy("push", update_id, "d", "--allow-dirty", check=False, env={"ASHAT_RETRIES": "1"})
    refused(done, telling)
    assert stack.state(update_id).stage is Stage.PLANNING
    assert "cancelled" in stack.deploy("cancel", update_id).stdout


@pytest.mark.usefixtures("public_is_elsewhere")
def test_a_server_that_is_not_there(stack: Stack) -> None:
    told = stack.deploy("configure", "public", f"127.0.0.1:{free_port()}", "nobody", "--token-stdin", stdin="ashat_x")
    assert "Answers: no" in told.stdout
    done = stack.deploy("push", "BAD-4", "d", "--allow-dirty", check=False, env={"ASHAT_RETRIES": "1"})
    refused(done, "nobody: Connection refused; is the node running at")
    stack.configure("public", stack.public, Scope.PUSH)
    pushed = stack.deploy("push", "BAD-4", "d", "--allow-dirty", "--resume")
    assert pushed.stderr == ""
    assert stack.state("BAD-4").stage is Stage.PUSHED
    stack.deploy("cancel", "BAD-4")


@pytest.mark.usefixtures("public_is_elsewhere")
def test_a_server_that_says_nothing_is_given_up(stack: Stack) -> None:
    impatient = {"ASHAT_READ_TIMEOUT": "0.5", "ASHAT_RETRIES": "1"}
    silence = "silent: it did not answer in time"
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ("configure", "public", address, "silent", "--token-stdin")
        assert f"Answers: no: {silence}" in stack.deploy(*words, stdin="ashat_x", env=impatient).stdout
        listed = stack.deploy("servers", env={**impatient, "COLUMNS": "200"}).stdout
        (line,) = [line for line in listed.splitlines() if address in line]
        assert f"❌ {silence}" in line
        refused(stack.deploy("push", "BAD-10", "d", "--allow-dirty", check=False, env=impatient), silence)
    assert time.monotonic() - began < 60, "the answer is not waited for as long as by default"


@pytest.mark.usefixtures("public_is_elsewhere")
def test_a_token_does_not_cross_a_network_readable(stack: Stack) -> None:
    quick = {"ASHAT_CONNECT_TIMEOUT": "0.2"}
    words = ("configure", "public", "http://192.0.2.7:80", "far", "--token-stdin")
    assert "will not be sent" in stack.deploy(*words, stdin="ashat_x", env=quick).stderr
    done = stack.deploy("push", "BAD-12", "d", "--allow-dirty", check=False, env=quick)
    refused(done, "far is plain http on another machine", "Use https, or allow it with --insecure-http.", code=2)
    assert "ashat_x" not in done.stdout + done.stderr


@pytest.mark.usefixtures("public_is_elsewhere")
def test_a_server_of_another_role(stack: Stack) -> None:
    words = ("configure", "public", stack.omega.url, "swapped", "--token-stdin")
    refused(stack.deploy(*words, stdin=stack.omega.token(), check=False), "omega, not public")
    assert "swapped" not in stack.deploy("servers").stdout


@pytest.mark.usefixtures("public_is_elsewhere")
def test_a_server_that_became_another_is_sent_nothing(stack: Stack) -> None:
    token = stack.omega.token(Scope.ADMIN)
    with MoodyProxy(stack.public.port) as proxy:
        stack.deploy("configure", "public", proxy.url, "swapped", "--token-stdin", stdin=token)
        proxy.pass_on_to(stack.omega.port)
        before = len(proxy.asked)
        done = stack.deploy("push", "BAD-9", "d", "--allow-dirty", check=False)
    refused(done, "swapped at", "is a server of the role omega, not public")
    assert {asked.path for asked in proxy.asked[before:]} == {"/v1/identity"}
    assert stack.state("BAD-9").stage is Stage.PLANNING


@pytest.mark.usefixtures("public_is_elsewhere")
@pytest.mark.parametrize(
    ("token", "telling", "at_once"),
    [
        ("ashat_made-up", "token", "staging: The token is missing or unknown here"),
        (None, "push", "⚠️ The token of staging opens read only, nothing can be pushed or verified there"),
    ],
)
def test_a_token_that_does_not_open(stack: Stack, token: str | None, telling: str, at_once: str) -> None:
    words = ("configure", "public", stack.public.url, "staging", "--token-stdin")
    assert at_once in stack.deploy(*words, stdin=token or stack.public.token(Scope.READ)).stderr
    done = stack.deploy("push", "BAD-5", "d", "--allow-dirty", check=False)
    refused(done, telling)
    assert "ashat_" not in done.stderr
    assert stack.state("BAD-5").stage is Stage.PLANNING
    stack.deploy("cancel", "BAD-5")


@pytest.mark.usefixtures("public_is_elsewhere")
def test_a_certificate_that_nobody_trusts(stack: Stack, tmp_path: Path) -> None:
    tls = make_certificate(tmp_path / "tls")
    with NodeProcess(tmp_path / "tls-public", tls=tls) as node:
        words = ("configure", "public", node.url, "sealed", "--token-stdin")
        told = stack.deploy(*words, stdin=node.token(Scope.PUSH))
        assert "--ca" in told.stdout + told.stderr
        done = stack.deploy("push", "BAD-11", "d", "--allow-dirty", check=False)
        refused(done, "sealed: its TLS certificate is not trusted", "give its authority with --ca FILE")
        trusted = stack.deploy(*words, "--ca", str(tls[2]), stdin=node.token(Scope.PUSH))
        assert "✅ Server configured successfully" in trusted.stdout
        assert "--ca" not in trusted.stdout + trusted.stderr


def test_the_gate_refuses_what_it_should(stack: Stack) -> None:
    stack.change("the gate's refusals")
    stack.deploy("push", "BAD-6", "d", "--allow-dirty")
    refused(stack.deploy("approve", "BAD-6", "--evidence", "00000000", check=False), "deploy verify BAD-6")
    stack.deploy("verify", "BAD-6")
    first = stack.wait_asked("BAD-6").evidence
    assert first is not None
    refused(stack.deploy("approve", "BAD-6", "--evidence", "00000000", check=False), "last 8 characters")
    refused(stack.deploy("approve", "BAD-6", check=False), "--evidence", code=2)
    stack.deploy("cancel", "BAD-6")
    stack.deploy("push", "BAD-6", "once more", "--allow-dirty")
    assert stack.state("BAD-6").attempt == 2
    refused(stack.deploy("approve", "BAD-6", "--evidence", first[-8:], check=False), "deploy verify BAD-6")
    stack.deploy("cancel", "BAD-6")


def test_a_rollback_of_what_no_longer_runs(stack: Stack) -> None:
    stack.change("pushed over")
    stack.deploy("push", "BAD-7", "first", "--allow-dirty")
    stack.change("pushed over it")
    stack.deploy("push", "BAD-8", "second", "--allow-dirty")
    refused(stack.deploy("rollback", "BAD-7", check=False), "no longer runs anywhere", "BAD-8")
    kept = stack.deploy("cancel", "BAD-7")
    assert "cancelled" in kept.stdout
    stack.deploy("cancel", "BAD-8")


def test_a_first_release_has_nothing_to_go_back_to(stack: Stack) -> None:
    refused(stack.deploy("rollback", "UPD-0", check=False), "nothing")
