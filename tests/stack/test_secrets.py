"""No secret that a run uses is left behind: in no file, log, artifact or block preview, nor in the process list."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ashat.deployment.state_machine import Stage
from ashat.protocol.messages import Scope
from tests.support.processes.node import ROOT
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1500)]

PASSPHRASE = "correct horse battery staple"
PASSWORD = "Tr0ub4dor-and-3-more"
DSN = f"postgresql+psycopg://ashat:{PASSWORD}@127.0.0.1:1/nothing"
UNKNOWN = "ashat_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


def found_in(text: bytes, secrets: Mapping[str, str]) -> set[str]:
    """The names of the secrets that `text` holds."""
    return {name for name, secret in secrets.items() if secret.encode() in text}


def left_in_files(directory: Path, secrets: Mapping[str, str], allowed: Mapping[Path, str]) -> set[tuple[str, str]]:
    """Each file below `directory` that holds a secret, and which; `allowed` files may hold the one named.

    What the tests themselves give to commands to read (`tests/support/processes/fork_server.py`) is left out.
    """
    found = set()
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".given":
            names = found_in(path.read_bytes(), secrets) - {allowed.get(path, "")}
            found |= {(str(path.relative_to(directory)), name) for name in names}
    return found


@contextmanager
def watched(secrets: Mapping[str, str], found: set[str]) -> Iterator[set[str]]:
    """Meanwhile, `found` collects each secret that is seen among the words of any process; yields what programs ran."""
    stop, programs = threading.Event(), set[str]()

    def watch() -> None:
        while not stop.wait(0.05):
            for process in psutil.process_iter():
                try:
                    words = process.cmdline()
                except psutil.Error:
                    continue
                programs.update(Path(word).name for word in words[:3])
                found.update(found_in("\0".join(words).encode("utf-8", "replace"), secrets))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield programs
    finally:
        stop.set()
        thread.join()


def prefect_shows(stack: Stack) -> str:
    """What Prefect's API shows to anyone: logs, artifacts, runs with their parameters, and blocks without secrets."""
    said: list[Any] = []
    for what in ("logs", "artifacts", "flow_runs", "task_runs", "block_documents"):
        offset, page = 0, [None]
        while page:
            page = stack.api("POST", f"/{what}/filter", {"limit": 200, "offset": offset})
            said += page
            offset += len(page)
    return str(said)


@pytest.fixture
def operator(stack: Stack) -> Iterator[Stack]:
    """The stack, in order again afterwards."""
    yield stack
    stack.public.restart()
    stack.configure("public", stack.public, Scope.PUSH)
    stack.configure("omega", stack.omega, Scope.ADMIN)


def secrets_of(stack: Stack) -> tuple[dict[str, str], dict[Path, str]]:
    """Every secret of the stack by what it is, and the files that are there to hold one."""
    secrets = {"passphrase": PASSPHRASE, "password": PASSWORD, "unknown token": UNKNOWN}
    allowed = {}
    for node in stack.servers:
        secrets |= {f"{node.directory.name}'s {scope}": node.token(scope) for scope in Scope}
    for node in stack.mainframes:
        name = f"{node.directory.name}'s licence"
        secrets[name] = (node.directory / "licence").read_text()
        allowed[node.directory / "licence"] = name
    for path in stack.home.rglob("*.pem"):
        name = f"key {path.name} of {path.parent.name}"
        body = path.read_text().splitlines()[1:-1]
        secrets[name] = body[min(1, len(body) - 1)]  # the first line of an encrypted key is not its own
        allowed[path] = name
    return secrets, allowed


def fail_in_every_way(stack: Stack) -> str:
    """Commands that fail over a secret; what they said."""
    said = []
    for name, node in (("public", stack.public), ("omega", stack.omega)):
        done = stack.deploy("configure", name, node.url, name, "--token-stdin", stdin=UNKNOWN)
        said.append(done.stdout + done.stderr)
    stack.change("refused for its token")
    said.append(stack.deploy("push", "SECRET-0", "Refused", "--allow-dirty", check=False).stderr)
    assert "unknown here" in said[-1]
    stack.configure("public", stack.public, Scope.PUSH)
    stack.configure("omega", stack.omega, Scope.ADMIN)
    stack.public.restart({"ASHAT_NODE_DATABASE__DSN": DSN})
    stack.change("its database is not there")
    stack.deploy("push", "SECRET-1", "No database", "--allow-dirty")
    said.append(stack.deploy("verify", "SECRET-1", env={"ASHAT_DEBUG": "1"}, check=False).stderr)
    assert stack.state("SECRET-1").stage is Stage.FAILED
    stack.public.restart()
    made = stack.deploy("trust", "keygen", "keeper", env={"ASHAT_KEY_PASSPHRASE": PASSPHRASE})
    wrong = stack.deploy("trust", "keygen", "forgetter", env={"ASHAT_KEY_PASSPHRASE": PASSPHRASE[:9]}, check=False)
    assert wrong.returncode != 0
    return "".join([*said, made.stdout + made.stderr, wrong.stdout + wrong.stderr])


def test_nothing_that_a_run_leaves_behind_holds_a_secret(operator: Stack) -> None:
    stack, in_argv = operator, set[str]()
    secrets, _ = secrets_of(stack)
    with watched(secrets, in_argv) as programs:
        said = fail_in_every_way(stack)
        stack.ship("SECRET-2", "A release")
        stack.deploy("rollback", "SECRET-2")
    secrets, allowed = secrets_of(stack)
    directory = stack.home.parent
    assert len(secrets) > 20
    assert {"prefect", "raos.py", "serve"} & programs, programs
    assert in_argv == set()
    assert found_in(said.encode(), secrets) == set()
    shown = prefect_shows(stack)
    assert "SECRET-2" in shown
    assert found_in(shown.encode(), secrets) == set()
    assert left_in_files(directory, secrets, allowed) == set()
    ids = {"the update": "SECRET-2", "Public": stack.public.url}
    named = {name for name, _ in left_in_files(directory, ids, {})}
    assert {"home/ledger.db", "home/prefect/prefect.db"} <= {name.removesuffix("-wal") for name in named}


def test_the_search_finds_what_it_is_to_find(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"\xff Bearer " + UNKNOWN.encode() + b" \xff")
    (tmp_path / "key.pem").write_text(PASSPHRASE)
    secrets = {"token": UNKNOWN, "passphrase": PASSPHRASE}
    allowed = {tmp_path / "key.pem": "passphrase"}
    assert left_in_files(tmp_path, secrets, allowed) == {("deep/log", "token")}
    seen: set[str] = set()
    with watched(secrets, seen), psutil.Popen(["sleep", "0.5"], cwd=ROOT, env={"A": UNKNOWN}) as process:
        process.wait()
    assert seen == set()
    with watched(secrets, seen), psutil.Popen(["sh", "-c", f"sleep 0.5; : {UNKNOWN}"]) as process:
        process.wait()
    assert seen == {"token"}
