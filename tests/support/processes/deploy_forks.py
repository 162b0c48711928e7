"""`deploy`, and runs of its flows, as processes that start at once."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from ashat.cli.control_plane.state import read_password, read_state
from tests.support.processes.fork_server import Fork, ForkServer, command

IMPORTS = "tests.support.processes.deploy_imports"


def prefect_environment(home: Path) -> dict[str, str]:
    """What Prefect reads as it is imported, where the control plane of `home` is to be used."""
    state = read_state(home)
    assert state is not None
    return {
        "PREFECT_HOME": str(home.resolve() / "prefect"),
        "PREFECT_API_URL": state.api_url,
        "PREFECT_UI_URL": state.ui_url,
        "PREFECT_API_AUTH_STRING": read_password(home),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }


def fork_flow_runs(address: Path) -> dict[str, str]:
    """What has workers fork what they start, from a process that listens at `address`; what each run opens is counted
    in the directory `opened` beside that.
    """
    opened = address.resolve().with_name("opened")
    opened.mkdir(parents=True, exist_ok=True)
    counted = command(address, "tests.support.processes.counted_run", IMPORTS)
    return {"ASHAT_FLOW_COMMAND": f"{counted} {shlex.quote(str(opened))} ashat.cli.control_plane.engine"}


class Job:
    """A process that was forked, and what it wrote to the files `OUTPUT` and `OUTPUT.errors`."""

    def __init__(self, fork: Fork, output: Path) -> None:
        self.pid = fork.pid
        self.what = shlex.join(fork.args[1:])
        self._fork = fork
        self._output = output

    @property
    def output(self) -> str:
        """What it wrote so far, to stdout and then to stderr."""
        return self.stdout + self.stderr

    @property
    def stdout(self) -> str:
        """What it wrote so far to stdout."""
        return self._output.read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What it wrote so far to stderr."""
        return _errors(self._output).read_text("utf-8", "replace")

    def wait(self, seconds: float = 400) -> int:
        """Its exit code, -9 where it was killed.

        Raises:
            AssertionError: it did not end in time; the message holds what it wrote.
        """
        try:
            return self._fork.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.what} did not end in time:\n{self.output}") from None


class DeployForks:
    """Starts processes in `directory`, with `env` as their environment. Use it in a `with` block."""

    def __init__(self, directory: Path, env: Mapping[str, str], outputs: Path) -> None:
        outputs.mkdir()
        self._directory = directory
        self._env = dict(env)
        self._outputs = outputs
        self._count = 0
        self._forks = ForkServer(IMPORTS, env=env)

    def deploy(self, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Job:
        """Begin `deploy` with those words, with `env` added to its environment, given `stdin` to read."""
        return self._begin(["ashat.cli", *words], env, stdin)

    def flow(self, name: str, env: Mapping[str, str] | None = None, **parameters: Any) -> Job:
        """Begin a run of the flow `module:function`; its exit code is 0 where it did what it is for."""
        return self._begin(["tests.support.processes.run_flow", name, json.dumps(parameters)], env, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forks.close()

    def _begin(self, words: list[str], env: Mapping[str, str] | None, stdin: str) -> Job:
        self._count += 1
        output = self._outputs / f"{self._count}.txt"
        with TemporaryFile() as given, output.open("ab") as out, _errors(output).open("ab") as err:
            given.write(stdin.encode())
            given.seek(0)
            streams = (given, out, err)
            return Job(
                self._forks.start(words, env={**self._env, **(env or {})}, cwd=self._directory, streams=streams), output
            )


def _errors(output: Path) -> Path:
    return output.with_suffix(".errors")
