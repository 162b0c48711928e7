"""Runs a command of the operator's to its end, within a time: the hook, or what has the proxy read its settings."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ashat.common.processes import kill_group, last_words, start, wait_ended
from ashat.common.rotation import rotate_in_place
from ashat.common.shortage import reason
from ashat.errors import AshatError

_WORDS = 300
_KILLED_SECONDS = 5.0


class CommandError(AshatError):
    """The command cannot be run, failed, or took too long."""


@dataclass(frozen=True)
class BoundedCommand:
    """A command whose output is appended to `log`. `name` is what messages call it ("the hook"), `setting` is the one
    that gives it its time; `options` are further ones of `subprocess.Popen`."""

    name: str
    command: Sequence[str]
    log: Path
    setting: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, environment: Mapping[str, str], seconds: float) -> None:
        """Run it; after `seconds` it is killed with what it started in its session, as far as this user may.

        Raises:
            CommandError: it cannot be run, took longer, or ended with another status than 0.
        """
        rotate_in_place(self.log)
        began = self.log.stat().st_size if self.log.exists() else 0
        try:
            process = start(self.command, self.log, env=environment, cwd=self.log.parent, **self.options)
        except OSError as error:
            raise CommandError(f"{self.name} {self.command[0]!r} cannot be run: {reason(error)}") from error
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CommandError(f"{self.name} took longer than {seconds:g} s and {self._end(process)}") from None
        if code != 0:
            words = last_words(self.log, began)[:_WORDS]
            raise CommandError(f"{self.name} ended with exit code {code}{words and f': {words}'}")

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """Kill it and what it started in its session; say what came of that."""
        kill_group(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_SECONDS)
        deadline = time.monotonic() + _KILLED_SECONDS  # what is killed may take a while to end
        members = [other for other in psutil.process_iter(["username"]) if _is_in_session(other.pid, process.pid)]
        left = [other for other in members if not _killed(other, deadline)]
        if not left:
            return f"was killed; {self.setting} gives it more time"
        named = ", ".join(f"pid {other.pid} of the user {other.info['username']}" for other in left)
        return f"still runs, because this node cannot end {named}"


def _is_in_session(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def _killed(process: psutil.Process, deadline: float) -> bool:
    """Kill it and wait until `deadline`; False where this user may not, or it has not ended."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
    return wait_ended(process, max(deadline - time.monotonic(), 0))
