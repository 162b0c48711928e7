"""The words of `deploy`: what is refused as words, in one line that says what to write instead."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ashat.bundle.pack import pack_directory
from ashat.cli.main import run
from ashat.cli.terminal import output
from ashat.cli.terminal.progress import TerminalReporter, waiting_for
from ashat.errors import LedgerError, UsageError
from ashat.protocol.messages import Lease
from tasks.runtime.reporting import LogReporter
from tests.support.processes.deploy_cli import ROOT, deploy, environment
from tests.support.processes.forks import FORKS
from tests.support.processes.stack import eventually

COMMANDS = (
    "push",
    "verify",
    "approve",
    "rollback",
    "cancel",
    "status",
    "inbox",
    "history",
    "wait",
    "open",
    "export",
    "import-report",
    "servers",
    "logs",
    "doctor",
    "completion",
    "heal",
    "notify",
    "schedule",
    "configure",
    "trust",
    "audit",
    "up",
    "down",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize("words", [(), ("help",), ("--help",), ("-h",)])
def test_help_names_every_command(home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert run(list(words)) == 0
    told = capsys.readouterr().out
    assert all(command in told for command in COMMANDS)


@pytest.mark.parametrize("words", [("help", "push"), ("push", "--help"), ("help", "configure", "omega")])
def test_help_explains_a_command(home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert run(list(words)) == 0
    assert "Usage: deploy " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("bogus", "bogus"),
        ("stauts", "'status'"),
        ("help bogus", "bogus"),
        ("push", "deploy push --help"),
        ("push UPD-1", "DESCRIPTION"),
        ("push UPD-1 text --nope", "--nope"),
        ("push UPD/1 text", "'/'"),
        ("push UPD%201 text", "' '"),
        ("push UPD%0a1 text", "U+000A"),
        (f"push {'U' * 200} text", "200"),
        ("push UPD-1 %20", "deploy push <id> <description>"),
        (f"push UPD-1 {'x' * 4001}", "4001"),
        ("push UPD-1 text --source nowhere", "nowhere"),
        ("push UPD-1 text --ref HEAD --commit", "--commit"),
        ("push UPD-1 text --public Not!", "Not!"),
        ("approve UPD-1 --reason why", "--reject"),
        ("history --stage nope", "AwaitingApproval"),
        ("history --since yesterday", "2026-11-30"),
        ("history --since 999999w", "no time"),
        ("history --since 0001-01-01T00:00:00+14:00", "no time"),
        ("history --limit 0", "--limit"),
        ("worker --pool nope", "alpha or control"),
        ("configure", "deploy configure --help"),
        ("configure mainframe http://127.0.0.1:1 acme", "'mainframe'"),
        ("configure alpha http://127.0.0.1:1 mine", "'alpha'"),
        ("configure public ftp://staging name", "ftp://staging"),
        ("configure public http://user:pass@staging name", "token is given apart"),
        ("configure public http://127.0.0.1:1 name --as Staging", "Staging"),
        ("configure public http://127.0.0.1:1 name --as omega", "--as"),
        ("configure public http://127.0.0.1:1 name --ca nowhere.pem", "nowhere.pem"),
        ("configure public http://127.0.0.1:1 %20", "1 to 100"),
        ("configure source raos nowhere", "nowhere"),
        ("configure source raos https://user:secret@example.com/x.git", "credential helper"),
        ("configure source Raos .", "Raos"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    meant = [word.replace("%20", " ").replace("%0a", "\n") for word in words.split()]
    assert run(meant) == UsageError.exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert told in shown.err
    assert "secret" not in shown.err
    assert not (home / "control.json").exists(), "nothing may be started for words that are wrong"


@pytest.mark.parametrize("command", ["verify", "approve", "rollback", "cancel", "status", "history", "evidence"])
def test_an_unknown_id_is_refused_before_anything_is_started(
    home: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run([command, "NOPE"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "❌ No deployment 'NOPE' is known. deploy history lists them.\n"
    assert not (home / "control.json").exists()


def test_without_prefect_a_command_that_needs_it_says_so_in_a_line(home: Path) -> None:
    script = "import sys; sys.modules['prefect'] = None; from ashat.cli.main import run; sys.exit(run(sys.argv[1:]))"

    def base(*words: str) -> subprocess.CompletedProcess[str]:
        return FORKS.run(["-c", script, *words], env=environment(home))

    for words in (("up",), ("servers",), ("push", "UPD-1", "text"), ("worker", "--pool", "alpha")):
        done = base(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert done.stderr.endswith("pip install 'ashat-deploy[operator]'.\n")
        assert len(done.stderr.splitlines()) == 1
    for words in (("status",), ("history",), ("help",), ("down",)):
        assert base(*words).returncode == 0, words


@pytest.mark.parametrize("foreign", ["tasks/__init__.py", "flows.py", "blocks/__init__.py"])
def test_a_package_that_stands_before_one_of_ours_is_named(home: Path, tmp_path: Path, foreign: str) -> None:
    file = tmp_path / "other" / foreign
    file.parent.mkdir(parents=True)
    file.write_text("raise SystemExit('it was imported')\n")
    home.mkdir()
    path = {"PYTHONPATH": f"{tmp_path / 'other'}{os.pathsep}{ROOT}"}
    for words in (("up",), ("servers",), ("worker", "--pool", "alpha")):
        done = deploy(home, *words, env=path, anew=True)
        assert (done.returncode, done.stdout) == (1, ""), words
        place = file.parent if file.name == "__init__.py" else file
        assert f"{place} stands before the package {foreign.split('/')[0].removesuffix('.py')} of this" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_prefect_server_that_does_not_answer_is_named(home: Path) -> None:
    home.mkdir()
    done = deploy(home, "servers", env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "http://127.0.0.1:9/api" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (home / "control.json").exists()


def test_what_nobody_expected_is_one_line_and_the_traceback_on_demand(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("a part is\nmissing")

    monkeypatch.setattr("ashat.cli.commands.status_history.glance", broken)
    assert run(["status"]) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "LookupError: a part is missing" in told
    assert "ASHAT_DEBUG=1" in told
    monkeypatch.setenv("ASHAT_DEBUG", "1")
    assert run(["status"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_all_that_is_wrong_with_a_tree_is_a_line_for_each_kind_and_no_name_makes_another(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "raos.toml").touch()
    os.mkfifo(tree / "pipe")
    (tree / "out\n✅ done").symlink_to("../elsewhere")
    (tree / "away").symlink_to("/etc")

    def packing(*_: object, **__: object) -> None:
        pack_directory(tree)

    monkeypatch.setattr("ashat.cli.commands.status_history.glance", packing)
    assert run(["status"]) == 1
    first, *kinds = capsys.readouterr().err.splitlines()
    assert first == "❌ The tree holds 4 paths that a bundle cannot hold:"
    assert sorted(line.split(";")[0] for line in kinds) == [
        "  1 devices, pipes or sockets",
        "  1 names with a control character",
        "  1 symbolic links that lead out of the tree",
        "  1 symbolic links to an absolute path",
    ]


def test_ctrl_c_ends_with_130(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ashat.cli.commands.status_history.glance", interrupted)
    assert run(["status"]) == 130


def test_an_error_of_ours_keeps_its_words(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise LedgerError("The ledger \x1b[31mis away.")

    monkeypatch.setattr("ashat.cli.commands.status_history.glance", refused)
    assert run(["status"]) == 1
    assert capsys.readouterr().err == "❌ The ledger \\x1b[31mis away.\n"


def test_progress_without_a_terminal_is_a_line_a_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter()
    for done in range(0, 8_000_001, 100_000):
        reporter.moved(done, 8_000_000)
    reporter.close()
    assert capsys.readouterr().out.splitlines() == [
        "  0 B of 8.0 MB",
        "  2.0 MB of 8.0 MB",
        "  4.0 MB of 8.0 MB",
        "  6.0 MB of 8.0 MB",
        "  8.0 MB of 8.0 MB",
    ]


def test_silence_is_broken_by_what_is_being_done_and_only_silence(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    def heard() -> list[str]:
        told.extend(capsys.readouterr().out.splitlines())
        return told

    with closing(TerminalReporter(silence=0.05, pause=0.05)) as reporter, reporter.doing("Pack the \x1b[2Jtree"):
        eventually(lambda: len(heard()) >= 2, "a line, and another one")
        with reporter.doing("Wait for others"):
            eventually(lambda: "Wait for others" in "".join(heard()), "the innermost")
    assert all(re.fullmatch(r"  … (Pack the \\x1b\[2Jtree|Wait for others): \d+ s so far", line) for line in heard())

    with closing(TerminalReporter()) as reporter, reporter.doing("What is done at once"):
        reporter.say("  done")
    assert capsys.readouterr().out == "  done\n"


def test_a_server_that_is_waited_for_is_named_beside_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    def heard() -> list[str]:
        told.extend(capsys.readouterr().err.splitlines())
        return told

    with waiting_for("asking production", silence=0.05, pause=0.05):
        eventually(lambda: len(heard()) >= 2, "a line, and another one")
    assert all(re.fullmatch(r"  … asking production: \d+ s so far", line) for line in heard())
    with waiting_for("asking staging"):
        pass
    assert capsys.readouterr() == ("", "")


def test_every_step_of_a_flow_says_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.runtime import step

    said: list[str] = []

    class Listening(LogReporter):
        def doing(self, what: str) -> AbstractContextManager[None]:
            said.append(what)
            return nullcontext()

    monkeypatch.setattr("tasks.runtime.reporting._watching", [Listening()])
    made = step.step("add", description="Add one: to a number.")(lambda number: number + 1)
    assert (made.fn(1), said) == (2, ["Add one"])


def test_waiting_for_a_server_is_said_once_for_each_that_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    since = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
    reporter = TerminalReporter()
    for holder in ("UPD-7/1", "UPD-7/1", "UPD-8/1"):
        reporter.waiting(Lease(holder=holder, who="kim", why="verify", since=since, expires=since))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0] == "⏳ Waiting for UPD-7/1 (kim: verify, since 12:00:00 UTC)"


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (479_000_000, "479 MB"), (2_500_000_000, "2.5 GB")],
)
def test_sizes_are_told_in_units(number: int, told: str) -> None:
    assert output.size(number) == told


def test_columns_line_up_whatever_the_script() -> None:
    assert output.columns([("a", "漢字", "x"), ("bbb", "c", "y")]) == ["  a    漢字  x", "  bbb  c     y"]


def test_a_ctrl_c_that_no_command_meets_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ashat.raos_toml.look.SourceTree", interrupted)
    assert run(["init"]) == 130
    assert capsys.readouterr().err == "❌ Interrupted.\n"
