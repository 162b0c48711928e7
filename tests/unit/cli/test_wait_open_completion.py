"""`deploy wait`, `deploy open` and shell completion: by the ledger, quickly, without Prefect."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ashat.cli.commands import completion
from ashat.cli.main import app, run
from ashat.deployment.events import RollbackStarted, VerificationStarted
from ashat.deployment.state_machine import Stage
from tests.support.builders.deployments import open_ledger, record
from tests.support.fakes.answering_server import answering
from tests.support.processes.deploy_cli import deploy, environment
from tests.support.processes.node import ROOT
from tests.support.processes.node_cli import ashat_node

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose ledger holds an update at each stage, and one whose gate is past its time."""
    home = tmp_path_factory.mktemp("waiting") / "home"
    now = datetime.now(UTC)
    with open_ledger(home) as ledger:
        for stage in Stage:
            closed = now - timedelta(minutes=59) if stage is Stage.EXPIRED else None
            record(ledger, f"UPD-{stage.value}", stage, at=now - timedelta(hours=1), expires=closed)
        record(ledger, "UPD-overdue", Stage.AWAITING_APPROVAL, at=now - timedelta(days=9), expires=now)
        rolling = record(ledger, "UPD-rolling", Stage.COMPLETED, at=now - timedelta(minutes=9))
        ledger.append(rolling, RollbackStarted(at=now, by="kim", reason="oops"))
    return home


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "ASHAT_LEDGER_URL", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASHAT_HOME", str(home))


@pytest.mark.parametrize(
    ("update", "goal", "code", "says"),
    [
        ("UPD-Completed", "end", 3, "Deployment 'UPD-Completed' is Completed, and 1 of 2 Mainframes run it"),
        ("UPD-Completed", "decision", 0, "is approved, and Completed by now"),
        ("UPD-Completed", "completed", 0, "is Completed"),
        ("UPD-Completed", "approval", 1, "(approval) does not come any more"),
        ("UPD-Distributing", "decision", 0, "is approved, and Distributing by now"),
        ("UPD-Distributing", "end", 4, "after 0 s. 'UPD-Distributing' is approved and Distributing"),
        ("UPD-AwaitingApproval", "approval", 0, "deploy approve UPD-AwaitingApproval"),
        ("UPD-AwaitingApproval", "AwaitingApproval", 0, "is AwaitingApproval"),
        ("UPD-AwaitingApproval", "decision", 4, "after 0 s. It waits for a person: deploy approve"),
        ("UPD-Testing", "approval", 4, "still Testing after 0 s. The checks have passed"),
        ("UPD-Failed", "end", 1, "is Failed"),
        ("UPD-Failed", "Completed", 1, "(Completed) does not come any more"),
        ("UPD-Rejected", "decision", 1, "is Rejected"),
        ("UPD-Cancelled", "end", 1, "is Cancelled"),
        ("UPD-overdue", "approval", 1, "is Expired"),
        ("UPD-overdue", "end", 1, "is Expired"),
        ("UPD-rolling", "end", 4, "is still"),
        ("UPD-none", "end", 1, "No deployment 'UPD-none' is known"),
        ("UPD-Failed", "soon", 2, "Nothing can be waited for as 'soon'"),
    ],
)
def test_wait_ends_with_the_code_of_what_became_of_it(
    capsys: pytest.CaptureFixture[str], update: str, goal: str, code: int, says: str
) -> None:
    assert run(["wait", update, "--for", goal, "--timeout", "0"]) == code
    told = capsys.readouterr()
    assert says in told.out + told.err


def test_wait_sees_what_happens_meanwhile(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_ledger(home) as ledger:
        state = record(ledger, "UPD-later", Stage.PUSHED, at=datetime.now(UTC) - timedelta(minutes=1))

    def verify() -> None:
        time.sleep(0.3)
        with open_ledger(home) as ledger:
            ledger.append(state, VerificationStarted(at=datetime.now(UTC), by="kim", policy="default"))

    thread = threading.Thread(target=verify)
    thread.start()
    assert run(["wait", "UPD-later", "--for", "Testing", "--timeout", "60"]) == 0
    thread.join()
    told = capsys.readouterr()
    assert told.err == "UPD-later is Pushed …\n"
    assert told.out == "Deployment 'UPD-later' is Testing\n"


def test_open_prints_the_address_of_the_run_that_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["open", "UPD-AwaitingApproval"]) == 1
    assert "does not run: deploy up starts it" in capsys.readouterr().err
    with answering({"/api/flow_runs/filter": [{"id": "1234-run"}]}) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        assert run(["open", "UPD-AwaitingApproval", "--link"]) == 0
        asks = capsys.readouterr().out
        assert run(["open", "UPD-Pushed"]) == 0
        pushed = capsys.readouterr().out
    assert asks.startswith(f"{url}/")
    assert "1234-run" not in asks
    assert pushed.startswith(f"{url}/")
    assert pushed.endswith("1234-run\n")
    with answering({"/api/flow_runs/filter": []}) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        assert run(["open", "UPD-Pushed"]) == 1
    assert "Prefect has no run of 'UPD-Pushed'" in capsys.readouterr().err
    assert run(["open", "UPD-Pushed", "--evidence"]) == 1
    assert "has no evidence yet" in capsys.readouterr().err


def test_open_writes_the_evidence_for_its_owner_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = home.resolve() / "pages" / "UPD-Rejected-1.html"
    assert run(["open", "UPD-Rejected", "--evidence"]) == 0
    assert capsys.readouterr().out == f"{page.as_uri()}\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "UPD-Rejected" in page.read_text("utf-8")


def test_open_calls_the_browser_where_there_is_one(home: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    with answering({"/api/flow_runs/filter": [{"id": "1234-run"}]}) as url:
        env = {"BROWSER": f"{browser} %s", "PREFECT_API_URL": f"{url}/api"}
        shown = deploy(home, "open", "UPD-Pushed", env=env)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert (tmp_path / "opened").read_text() == shown.stdout.partition(" ")[0]
        assert shown.stdout.endswith("1234-run opens in the browser.\n")
    page = deploy(home, "open", "UPD-Rejected", "--evidence", env=env)
    assert page.stdout.endswith(".html opens in the browser.\n")
    assert (tmp_path / "opened").read_text().endswith("/pages/UPD-Rejected-1.html")


def completed(home: Path, shell: str, line: str, **more: str) -> list[str]:
    """What a shell of that kind is told to offer for `line`, by a process of its own."""
    words = line.split(" ")
    asked = {
        **more,
        "_DEPLOY_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = deploy(home, env=asked)
    assert done.stderr == ""
    return done.stdout.split()


def test_ids_servers_keys_and_words_are_completed(home: Path) -> None:
    (home / "trust" / "keys").mkdir(parents=True, exist_ok=True)
    (home / "trust" / "keys" / "kim.pem").touch()
    assert completed(home, "bash", "deploy doc") == ["doctor"]
    assert completed(home, "bash", "deploy approve UPD-AwaitingA") == ["UPD-AwaitingApproval"]
    assert set(completed(home, "bash", "deploy history ")) >= {"UPD-Completed", "UPD-overdue"}
    assert completed(home, "bash", "deploy sign UPD-1 --key ") == [str(home / "trust" / "keys" / "kim.pem")]
    assert completed(home, "bash", "deploy worker --pool ") == ["alpha", "control"]
    assert completed(home, "bash", "deploy heal ") == []


def test_every_id_server_and_key_is_completed_of_whatever_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_DEPLOY_COMPLETE", "complete_bash")
    parameters = list(below("deploy", completion.prepare(get_command(app))))
    named = {
        path for path, parameter in parameters if parameter.metavar in ("ID", "SERVER") or "--key" in parameter.opts
    }
    completes = {path for path, parameter in parameters if parameter._custom_shell_complete is not None}
    assert len(named) > 12
    assert named - completes == set()


def below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Each parameter of a command, and of those below it, with the words that lead there."""
    for parameter in command.params:
        yield f"{path} {parameter.name}", parameter
    for name, one in getattr(command, "commands", {}).items():
        yield from below(f"{path} {name}", one)


def test_servers_are_completed_where_prefect_answers(home: Path) -> None:
    documents = [{"name": name, "data": {"role": name.partition("-")[0]}} for name in ("public", "omega", "omega-eu")]
    with answering({"/api/block_types/slug/raos-server/block_documents": documents}) as url:
        api = {"PREFECT_API_URL": f"{url}/api"}
        assert completed(home, "bash", "deploy heal ", **api) == ["public", "omega", "omega-eu"]
        assert completed(home, "bash", "deploy push X Y --target ", **api) == ["omega", "omega-eu"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script_and_its_answers(home: Path, capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert run(["completion", shell]) == 0
    assert "_DEPLOY_COMPLETE" in capsys.readouterr().out
    assert "UPD-Rejected" in " ".join(completed(home, shell, "deploy history UPD-Rej"))


def test_completion_in_a_real_shell_and_without_prefect(home: Path, tmp_path: Path) -> None:
    assert shutil.which("bash")
    program = tmp_path / "deploy"
    program.write_text(f'#!/bin/sh\nexec python3 -X importtime -m ashat.cli "$@" 2>> {tmp_path}/imports\n')
    program.chmod(0o755)
    script = (
        'eval "$(deploy completion bash)"; COMP_WORDS=(deploy status UPD-Ro); COMP_CWORD=2; _deploy_completion deploy'
    )
    env = environment(home) | {"PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shown = subprocess.run(
        ["bash", "-c", f'{script}; echo "${{COMPREPLY[@]}}"'],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert shown.stdout.strip() == "UPD-RolledBack"
    imported = (tmp_path / "imports").read_text()
    assert "ashat.ledger" in imported
    assert not any(line.endswith(("| prefect", "| sqlalchemy")) for line in imported.splitlines())


def test_the_nodes_commands_are_completed_too(home: Path) -> None:
    assert "_ASHAT_NODE_COMPLETE" in ashat_node("completion", "zsh").stdout
    asked = {"_ASHAT_NODE_COMPLETE": "complete_bash", "COMP_WORDS": "ashat-node lic", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("ashat-node")
    done = subprocess.run(
        [program], env=environment(home, asked), capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout.split(), done.stderr) == (["licence"], "")
    assert ashat_node("completion", "tcsh").returncode == 2


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"]) == 2
    assert "use bash, zsh, fish" in capsys.readouterr().err
