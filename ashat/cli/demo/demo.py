"""`deploy demo`: the whole path on this machine, with the commands that an operator types.

Everything is real and its own: a control plane, Public, OMEGA and two Mainframes on free ports, each running the sample
program, in a directory that goes away with them. Nothing of the user's settings is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ashat.bundle.pack import pack_directory
from ashat.cli.commands.approve import watch
from ashat.cli.control_plane import connect
from ashat.cli.control_plane.state import read_password
from ashat.cli.demo.nodes import (
    MARKER,
    SETTINGS,
    DemoError,
    EndedBySignal,
    ended_by_signals,
    ignore_signals,
    refuse_differences,
)
from ashat.cli.terminal import output
from ashat.client.local_node import LocalNode, end_nodes, make_node, sample_directory
from ashat.common.processes import end, python_module, with_variable
from ashat.common.text import last_line
from ashat.deployment.stages import Stage
from ashat.deployment.state_machine import State
from ashat.errors import AshatError, SessionError, UsageError
from ashat.ledger.opening import open_ledger
from ashat.protocol.messages import Role
from ashat.settings import Settings
from ashat.trust.authority.authority import Authority

FIRST, SECOND = "DEMO-1", "DEMO-2"
SOAK_SECONDS = 2
_PAGE = Path("Modules", "Content", "pages", "welcome.html")
_POLL_SECONDS = 0.5
_END_SECONDS = 20.0


def demo_command(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nobody: type the evidence at the gate, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the files; the processes end in any case.")] = False,
    home: Annotated[Path | None, typer.Option(help="A new directory for the files.", show_default="temporary")] = None,
) -> int:
    """Show the whole path on this machine: ALPHA, Public, OMEGA and two Mainframes, for real.

    `context.obj` runs the words of a `deploy` command, and returns its exit code.
    """
    began = time.monotonic()
    directory = _directory(home)
    try:
        with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout), ended_by_signals():
            demo = _Demo(directory, context.obj, yes=yes, keep=keep)
            result = demo.run()
    except EndedBySignal as ended:
        output.note("The demonstration was ended; everything it started has ended too.")
        return 128 + ended.number
    if as_json:
        output.write(json.dumps({**result, "seconds": round(time.monotonic() - began, 1)}, ensure_ascii=False))
    if not demo.proven:
        output.note(f"❌ {SECOND} is {result['stage']}: it did not reach every server. deploy demo begins anew.")
    return 0 if demo.proven else 1


class _Demo:
    """One demonstration in `directory`. `run` ends everything it started, however it ends.

    Where it fails, its files are kept, which say why. `proven` says that every server had the second release, file by
    file.
    """

    def __init__(self, directory: Path, deploy: Callable[[list[str]], int], *, yes: bool, keep: bool) -> None:
        self._directory = directory
        self._source = directory / "raos"
        self._run_deploy = deploy
        self._yes = yes
        self._keep = keep
        self._run = uuid.uuid4().hex
        self._nodes: list[LocalNode] = []
        self.proven = False

    def run(self) -> dict[str, Any]:
        """Ship two releases; return how the second ended, as `--json` prints it."""
        _own_environment(self._directory / "alpha", self._run)
        try:
            self._set_up()
            _announce(f"First a release for everybody to run, {FIRST}; nobody is asked about this one.")
            self._ship_unattended(FIRST, "The sample as it is", change=False)
            _announce("Now a change: one page of the module Content.")
            self._change()
            if self._yes:
                state = self._ship_unattended(SECOND, "Another welcome", change=True)
            else:
                state = self._ship_with_a_person(SECOND, "Another welcome")
            return self._outcome(state)
        except AshatError:
            self._keep = True
            raise
        finally:
            self._clean_up()

    def _set_up(self) -> None:
        output.say(f"🧪 The whole path, for real, on this machine. Its files are in {self._directory}")
        _make_source(self._source)
        omega = make_node(self._directory / "production", Role.OMEGA, SETTINGS)
        self._nodes = [make_node(self._directory / "staging", Role.PUBLIC, SETTINGS), omega]
        # What an installer would bring: the first approval makes it, in the one-person mode.
        trusting = {**SETTINGS, "ASHAT_NODE_TRUST_ROOT": str(Authority(Settings().home).directory / "root.json")}
        for name in ("mainframe-berlin", "mainframe-osaka"):
            self._nodes.append(make_node(self._directory / name, Role.MAINFRAME, trusting, omega=omega))
        for node in self._nodes:
            node.serve()
        output.say("Starting the control plane, a Public Server, OMEGA and two Licensed Mainframes …")
        self._deploy("up", "--detach")
        for node in self._nodes:
            node.wait_until_up()
        for kind, node in (("public", self._nodes[0]), ("omega", omega)):
            variable = f"ASHAT_{kind.upper()}_TOKEN"
            os.environ[variable] = node.token
            try:
                self._deploy("configure", kind, node.url, node.name)
            finally:
                del os.environ[variable]
        policy = self._directory / "policy.toml"
        policy.write_text(f"soak_seconds = {SOAK_SECONDS}\n", encoding="utf-8")
        self._deploy("configure", "policy", "default", str(policy))

    def _ship_unattended(self, update_id: str, description: str, *, change: bool) -> State:
        self._push_and_verify(update_id, description, change=change)
        evidence = self._state(update_id).evidence or ""
        _announce(
            f"🤖 Unattended: the demonstration itself types {evidence[-8:]}, the end of the evidence, and approves."
        )
        words = ("--by", "deploy demo", "--comment", "unattended demonstration")
        self._deploy("approve", update_id, "--evidence", evidence[-8:], *words)
        return self._state(update_id)

    def _ship_with_a_person(self, update_id: str, description: str) -> State:
        self._push_and_verify(update_id, description, change=True)
        waiting = self._wait_for_an_answer(update_id)
        try:
            watch(waiting, waiting.approvals["release"])
        except SessionError as error:
            output.note(f"❌ {error}")
        return self._state(update_id)

    def _push_and_verify(self, update_id: str, description: str, *, change: bool) -> None:
        commit = ("--commit",) if change else ()
        self._deploy("push", update_id, description, "--source", str(self._source), *commit)
        self._deploy("verify", update_id)

    def _wait_for_an_answer(self, update_id: str) -> State:
        """Tell a person how to answer, wait until one did, and return the state just before."""
        waiting, shown = self._state(update_id), 0
        while waiting.stage is Stage.AWAITING_APPROVAL:
            gate = waiting.gate
            if gate is not None and gate.run and gate.shown and not gate.answered and gate.ordinal > shown:
                shown = gate.ordinal
                if gate.reason:
                    _announce(f"⚠️ It is asked again: {gate.reason}")
                self._tell_how(update_id, gate.run)
            time.sleep(_POLL_SECONDS)
            newest = self._state(update_id)
            if newest.stage is not Stage.AWAITING_APPROVAL:
                break
            waiting = newest
        return waiting

    def _tell_how(self, update_id: str, run: str) -> None:
        plane = connect.ensure_control_plane(Settings())
        command = f"ASHAT_HOME={shlex.quote(str(Settings().home))} {_deploy_command()} approve {update_id}"
        _announce(f"✋ OMEGA still runs {FIRST}. {update_id} waits for you to decide:")
        output.say(f"   in a browser           {plane.run_url(run)} (Resume shows the evidence, and asks)")
        output.say(f"   in another terminal    {command}")
        output.say(f"   the browser's password {read_password(Settings().home)} (or deploy ui, with that ASHAT_HOME)")
        output.say("   Ctrl-C ends the demonstration.")

    def _outcome(self, state: State) -> dict[str, Any]:
        if state.stage is Stage.COMPLETED:
            self._prove(state)
        self._show_servers()
        if not self._yes:
            state = self._look_around(state)
        return self._result(state)

    def _prove(self, state: State) -> None:
        runs = {node.name: _bundle_of(node) for node in self._nodes}
        behind = [name for name, bundle in runs.items() if bundle != state.bundle]
        if behind:
            raise DemoError(f"{', '.join(behind)} does not run {state.update_id}: its files say why.")
        with pack_directory(self._source) as packed:
            refuse_differences(packed.manifest, self._nodes)
            files = len(packed.manifest.files)
        self.proven = True
        _announce(f"🔎 {files} files, compared one by one: the source, {', '.join(runs)} are equal.")

    def _show_servers(self) -> None:
        rows = []
        for node in self._nodes:
            with node.client() as client:
                current = client.identity().current
            runs = f"{current.update_id} (bundle {current.bundle[:12]})" if current else "nothing"
            rows.append((node.role.upper(), node.name, node.url, runs))
        _announce("🖥️ Where every server stands")
        for line in output.columns(rows):
            output.say(line)

    def _look_around(self, state: State) -> State:
        if not output.interactive():
            return state
        if state.stage is Stage.COMPLETED and typer.confirm("Roll it back, to see the way back?", default=False):
            self._deploy("rollback", state.update_id, "--reason", "to see the way back")
            self._show_servers()
        typer.prompt("Everything is still up. Enter ends it", default="", show_default=False)
        return self._state(state.update_id)

    def _result(self, state: State) -> dict[str, Any]:
        servers = {
            node.name: {"role": str(node.role), "url": node.url, "bundle": _bundle_of(node)} for node in self._nodes
        }
        return {
            "update_id": state.update_id,
            "stage": str(state.stage),
            "bundle": state.bundle,
            "servers": servers,
            "evidence": state.evidence,
        }

    def _change(self) -> None:
        page = self._source / _PAGE
        text = page.read_text("utf-8")
        page.write_text(text.rstrip("\n") + f"\n<p>Shipped {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC.</p>\n", "utf-8")

    def _deploy(self, *words: str) -> None:
        _announce(f"$ deploy {shlex.join(words)}")
        code = self._run_deploy(list(words))
        if code:
            raise DemoError(f"deploy {words[0]} ended with {code}; the line above says why.")

    def _state(self, update_id: str) -> State:
        with open_ledger() as ledger:
            return ledger.load(update_id)

    def _clean_up(self) -> None:
        ignore_signals()
        with contextlib.suppress(output.PipeClosedError, OSError):
            _announce("Cleaning up …")
        try:
            connect.stop(Settings())
        finally:
            end_nodes(self._nodes)
            end(with_variable(MARKER, self._run), _END_SECONDS)
            if not self._keep:
                shutil.rmtree(self._directory, ignore_errors=True)
        if self._keep:
            output.say(f"The files are kept: {self._directory}")


def _announce(line: str) -> None:
    output.say()
    output.say(line)


def _directory(home: Path | None) -> Path:
    if home is None:
        return Path(tempfile.mkdtemp(prefix="ashat-demo-"))
    try:
        if home.exists() and any(home.iterdir()):
            raise UsageError(f"{home} is not empty: give the demonstration a directory of its own.")
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{home} cannot be used: {error.strerror}.") from None
    return home.resolve()


def _own_environment(home: Path, mark: str) -> None:
    """Drop the user's settings from the environment of this process and of all it starts, and mark that environment."""

    for name in [name for name in os.environ if name.startswith(("ASHAT_", "PREFECT_", "RAOS_"))]:
        if not name.startswith("ASHAT_TEST_") and name != "ASHAT_DEBUG":
            del os.environ[name]
    os.environ.update({"ASHAT_HOME": str(home), MARKER: mark})


def _make_source(to: Path) -> None:
    """Copy the sample to `to`, as a git repository with one commit.

    Raises:
        LocalNodeError: the sample is missing.
        DemoError: git is.
    """

    shutil.copytree(sample_directory(), to, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    own = ("user.name=ALPHA", "user.email=alpha@localhost", "commit.gpgsign=false", "core.hooksPath=/dev/null")
    for words in (
        ["init", "--quiet", "--template="],
        *(["config", *setting.split("=", 1)] for setting in own),
        ["add", "."],
        ["commit", "--quiet", "--message", "The sample"],
    ):
        try:
            done = subprocess.run(["git", "-C", str(to), *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise DemoError("git is not installed; the demonstration needs it.") from None
        if done.returncode:
            raise DemoError(f"git {words[0]} failed: {last_line(done.stderr, 'it gave no reason.')}")


def _bundle_of(node: LocalNode) -> str | None:
    with node.client() as client:
        current = client.identity().current
    return current.bundle if current else None


def _deploy_command() -> str:
    beside = Path(sys.executable).with_name("deploy")
    return shlex.quote(str(beside)) if beside.exists() else shlex.join(python_module("ashat.cli"))
