"""Strangers at the control plane: another user of its machine, the page of another server, another name for it.

Each tries what would ship a release of theirs: read a block's token, give a deployment other pull steps, answer a gate.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from playwright.sync_api import Page
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from ashat.cli.control_plane.sign_in import write_sign_in
from ashat.cli.control_plane.state import MARKER, marker, read_password, read_state
from ashat.common.processes import with_variable
from ashat.deployment.state_machine import Stage
from ashat.protocol.messages import Scope
from tests.support.builders.trap import Trap
from tests.support.drivers.browser import PrefectUi, open_browser
from tests.support.fakes.bad_network import answering
from tests.support.needs import requires_chromium, requires_root
from tests.support.processes.another_user import as_nobody
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

LOCAL = ("file:", "data:", "blob:")
SHELL = [{"prefect.deployments.steps.run_shell_script": {"script": "touch /tmp/taken-over"}}]
SOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/control/workers/connect",
)


class Request(NamedTuple):
    """What a stranger sends, and what it is for."""

    what: str
    method: str
    path: str
    body: Any


class Target(NamedTuple):
    """A gate that waits, and what a stranger would send to the control plane that holds it."""

    stack: Stack
    port: int
    run: str
    deployment: str
    requests: list[Request]

    def assert_untouched(self) -> None:
        """The gate waits as before, and the deployment has the steps that it had."""
        assert self.stack.run(self.run)["state_name"] == "Suspended"
        assert self.stack.api("GET", f"/deployments/{self.deployment}")["pull_steps"] != SHELL


@pytest.fixture(scope="module")
def target(stack: Stack) -> Iterator[Target]:
    stack.change("what strangers would like to approve")
    stack.deploy("push", "STRANGE-1", "Waits", "--allow-dirty")
    stack.deploy("verify", "STRANGE-1")
    asked = stack.wait_asked("STRANGE-1")
    assert asked.gate is not None
    assert asked.evidence is not None
    state = read_state(stack.home)
    assert state is not None
    run, deployment = asked.gate.run, stack.deployment("verify/verify")
    answer = {"decision": "approve", "evidence_tail": asked.evidence[-8:], "approver": "stranger", "comment": ""}
    requests = [
        Request("read a block", "POST", "/block_documents/filter", {"include_secrets": True}),
        Request("edit a deployment", "PATCH", f"/deployments/{deployment}", {"pull_steps": SHELL}),
        Request("forge a resume", "POST", f"/flow_runs/{run}/resume", {"run_input": answer}),
        Request("cancel a run", "POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED"}, "force": True}),
    ]
    yield Target(stack, state.port, run, deployment, requests)
    stack.deploy("cancel", "STRANGE-1")


def test_whoever_has_the_password_could_do_all_of_it(target: Target) -> None:
    tokens = str(target.stack.api("POST", "/block_documents/filter", {"include_secrets": True}))
    assert target.stack.omega.token(Scope.ADMIN) in tokens
    target.stack.api("PATCH", f"/deployments/{target.deployment}", {"pull_steps": SHELL})
    assert target.stack.api("GET", f"/deployments/{target.deployment}")["pull_steps"] == SHELL
    target.stack.api("PATCH", f"/deployments/{target.deployment}", {"pull_steps": []})


def send(port: int, request: Request, headers: dict[str, str]) -> tuple[int, str]:
    """The status and the body of what the server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        given = {"Content-Type": "application/json", **headers}
        connection.request(request.method, f"/api{request.path}", json.dumps(request.body), given)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def basic(password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}


def try_everything(port: int, requests: list[Request], files: list[Path], pids: list[int]) -> dict[str, Any]:
    """What another user of the machine gets: of files, of the processes' environments, of the API."""
    read = {}
    for path in [*files, *(Path(f"/proc/{pid}/environ") for pid in pids)]:
        try:
            read[str(path)] = path.read_bytes()
        except PermissionError:
            continue
    words = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    strangers = ({}, basic("admin:"), basic("admin:admin"), {"Authorization": "Bearer admin"})
    answers = {(request.what, send(port, request, headers)[0]) for request in requests for headers in strangers}
    return {"read": read, "words": words, "answers": answers}


@requires_root
def test_another_user_of_the_machine_gets_nothing(target: Target) -> None:
    home = target.stack.home
    processes = with_variable(MARKER, marker(home))
    assert len(processes) >= 3
    state = read_state(home)
    assert state is not None
    write_sign_in(home, state)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {"control.password", "sign-in.html", "prefect.db"} <= {path.name for path in files}
    got = as_nobody(try_everything, target.port, target.requests, files, [process.pid for process in processes])
    assert got["read"] == {}
    assert read_password(home).encode() not in got["words"]
    assert got["answers"] == {(request.what, 401) for request in target.requests}
    for name in ("control.password", "sign-in.html"):
        assert (home / name).stat().st_mode & 0o777 == 0o600, name
    target.assert_untouched()


def hear(port: int, path: str, login: dict[str, str], origin: str | None = None) -> Any:
    """The first that the server says to whoever logs in like this."""
    with _socket(port, path, origin) as socket:
        socket.send(json.dumps({"type": "auth", **login}))
        return json.loads(socket.recv(timeout=60))


@pytest.mark.parametrize("path", SOCKETS)
def test_a_socket_without_the_password_hears_nothing(target: Target, path: str) -> None:
    for words in ({}, {"token": "admin:admin"}):
        with pytest.raises(WebSocketException):
            hear(target.port, path, words)


def test_a_socket_of_another_servers_page_is_not_opened(target: Target) -> None:
    own, other = f"http://127.0.0.1:{target.port}", "http://127.0.0.1:1"
    login = {"token": read_password(target.stack.home)}
    assert hear(target.port, "events/out", login, origin=own) == {"type": "auth_success"}
    with pytest.raises(WebSocketException), _socket(target.port, "events/out", origin=other):
        pass


def _socket(port: int, path: str, origin: str | None = None) -> Any:
    return connect(
        f"ws://127.0.0.1:{port}/api/{path}",
        origin=Origin(origin) if origin else None,
        subprotocols=[Subprotocol("prefect")],
        proxy=None,
        open_timeout=60,
    )


@pytest.mark.parametrize("host", ["evil.example", "localhost", "evil.example:4200", "127.0.0.1.evil.example", ""])
def test_by_another_name_it_answers_nobody(target: Target, host: str) -> None:
    password = basic(read_password(target.stack.home))
    for request in target.requests:
        status, said = send(target.port, request, {"Host": host, **password})
        assert (status, said) == (421, f"This server answers as 127.0.0.1:{target.port} only.")
    target.assert_untouched()


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "null"])
def test_to_the_page_of_another_server_it_answers_nothing(target: Target, origin: str) -> None:
    headers = {"Origin": origin.format(port=target.port), **basic(read_password(target.stack.home))}
    for request in target.requests:
        assert send(target.port, request, headers)[0] == 403
    target.assert_untouched()


def other_server() -> AbstractContextManager[str]:
    """The address of a server of a stranger, on this very machine; its page is empty."""
    return answering(200, b"<!doctype html><title>Win a prize</title>", {"Content-Type": "text/html"})


# A page's script can read an answer, or send blindly what a form could send.
FETCH = """async ([url, method, body, mode]) => {
  try {
    const headers = mode === "cors" ? {"Content-Type": "application/json"} : {};
    const options = {method, mode, body, headers, credentials: "include"};
    const answer = await fetch(url, options);
    return [answer.status, await answer.text()];
  } catch (error) { return ["refused", ""]; }
}"""
SOCKET = """url => new Promise(done => {
  const socket = new WebSocket(url, "prefect");
  socket.onopen = () => done("open");
  socket.onerror = () => done("refused");
})"""
FRAME = """url => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.onload = () => done(frame.contentWindow.length);
  frame.src = url;
  document.body.append(frame);
})"""


@requires_chromium
def test_a_page_of_another_server_in_the_operators_browser_gets_nothing(target: Target) -> None:
    api = f"http://127.0.0.1:{target.port}/api"
    with open_browser() as page, other_server() as elsewhere:
        ui = PrefectUi(page, target.stack.home)
        ui.show_run(target.run, "Suspended")
        assert _stored(page) == read_password(target.stack.home)
        page.goto(elsewhere)
        assert _stored(page) is None
        for request in target.requests:
            for mode in ("cors", "no-cors"):
                method = request.method if mode == "cors" else "POST"
                words = [f"{api}{request.path}", method, json.dumps(request.body), mode]
                assert page.evaluate(FETCH, words) in (["refused", ""], [0, ""]), request.what
        for path in SOCKETS:
            assert page.evaluate(SOCKET, f"{api.replace('http', 'ws')}/{path}") == "refused"
        page.evaluate(FRAME, f"http://127.0.0.1:{target.port}/runs/flow-run/{target.run}")
        assert all("chrome-error" in frame.url for frame in page.frames[1:])
        target.assert_untouched()


@requires_chromium
def test_its_pages_tell_no_other_server_what_is_done_on_them(target: Target) -> None:
    with open_browser() as page:
        others: list[str] = []
        page.on("request", lambda request: others.append(request.url))
        PrefectUi(page, target.stack.home)
        for ui in ("runs", "v2/runs"):
            page.goto(f"http://127.0.0.1:{target.port}/{ui}/flow-run/{target.run}")
            page.get_by_text("Suspended").first.wait_for()
        assert [url for url in others if not url.startswith((f"http://127.0.0.1:{target.port}/", *LOCAL))] == []


@requires_chromium
def test_a_name_that_somebody_turns_into_this_machine_shows_no_page(target: Target) -> None:
    with open_browser("--host-resolver-rules=MAP evil.example 127.0.0.1") as page:
        answer = page.goto(f"http://evil.example:{target.port}/")
        assert answer is not None
        assert answer.status == 421
        assert page.inner_text("body") == f"This server answers as 127.0.0.1:{target.port} only."


@requires_chromium
def test_a_browser_that_is_not_signed_in_is_asked_for_the_password_once(target: Target) -> None:
    with open_browser() as page:
        page.goto(f"http://127.0.0.1:{target.port}/runs/flow-run/{target.run}")
        for password in ("admin:guessed", read_password(target.stack.home)):
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Sign in").click()
            if password == "admin:guessed":
                page.get_by_text("That is not the password.").wait_for()
        page.get_by_role("button", name="Resume").wait_for()
        page.reload()
        page.get_by_role("button", name="Resume").wait_for()


@pytest.mark.parametrize("form", [b"", b"password=admin%3Aguessed&to=%2F", b"password=" + b"x" * 5000])
def test_nobody_signs_in_without_the_password(target: Target, form: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    connection.request("POST", "/sign-in", form, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    assert answer.status == (413 if len(form) > 4096 else 401)
    assert b"localStorage" not in answer.read()
    connection.close()


def _stored(page: Page) -> str | None:
    kept = page.evaluate("localStorage.getItem('prefect-password')")
    return base64.b64decode(kept).decode() if kept else None


def test_no_process_but_the_server_knows_what_the_server_asks_for(target: Target) -> None:
    kept = "PREFECT_SERVER_API_AUTH_STRING"
    servers = [p for p in with_variable(MARKER, marker(target.stack.home)) if kept in psutil.Process(p.pid).environ()]
    assert len(servers) == 1
    assert "ashat.cli.control_plane.server" in servers[0].cmdline()


def test_a_push_takes_nothing_from_the_directory_that_it_is_typed_in(stack: Stack, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "typed-here")
    stack.change("pushed from a directory that is a trap")
    words = ["push", "TRAP-1", "From a trap", "--source", str(stack.source), "--allow-dirty"]
    command = [str(Path(sys.executable).with_name("deploy")), *words]
    done = subprocess.run(
        command, cwd=trap.directory, env=stack.environment, capture_output=True, text=True, timeout=480, check=False
    )
    assert (done.returncode, trap.sprung()) == (0, []), done.stderr
    assert stack.state("TRAP-1").stage is Stage.PUSHED
    stack.deploy("cancel", "TRAP-1")
