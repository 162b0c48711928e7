"""The program that a node runs, in the three ways that an operator can choose: supervised, by a hook, or not at all."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime

from ashat.common.rotation import rotate_in_place
from ashat.errors import AshatError
from ashat.node.app_process.bounded_command import BoundedCommand, CommandError
from ashat.node.app_process.output import ProgramOutput
from ashat.node.app_process.user import ProgramUser
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database
from ashat.node.store.releases import Release
from ashat.protocol.messages import App
from ashat.protocol.probes import ProcessProbe

log = logging.getLogger("ashat.node")

_PATIENCE = 10
_HOOKED = "hooked"


class ProgramError(AshatError):
    """The program could not be started, or the hook failed."""


class Program:
    """The program that a switch starts and ends. This one is none: the node only keeps `current` up to date."""

    @property
    def url(self) -> str | None:
        """Where the program answers; None where nothing can be asked."""
        return None

    def restart(self, release: Release | None, previous: str | None, *, patient: bool = False) -> None:
        """End what runs and run `release` (None: nothing). `previous` is the bundle that ran. `patient` gives a hook
        more time, as on the way back, where nothing else is left to do.

        Raises:
            ProgramError: it cannot be started.
        """

    def adopt(self, release: Release | None) -> bool:
        """Tell whether the program runs from this very directory already, or nothing does (None); if so, look after
        it from now on."""
        return True

    def failure(self) -> str | None:
        """Tell how the program ended since it was last started on purpose; None while it did not."""
        return None

    def output(self, bundle: str | None) -> tuple[str, ...]:
        """Return the last lines that it, or its hook, wrote since it was last started on purpose as `bundle`; none
        where another runs."""
        return ()

    def log_begins(self) -> int | None:
        """Return how many bytes its log had when it was last started on purpose; None where the node keeps no log of
        it."""
        return None

    def log_name(self) -> str:
        """Return the name of the log that it, or its hook, writes; "" for the usual one."""
        return ""

    def slot(self, name: str) -> Program | None:
        """Return the program of the slot with that name; None where this node has no such slot."""
        return None

    def bundle(self) -> str | None:
        """Return the bundle that it was started as; None where nothing runs, or the node does not run it."""
        release = self.release()
        return release.bundle if release else None

    def release(self) -> Release | None:
        """Return the release that it was started as; None where nothing runs, or the node does not run it."""
        return None

    def bundles(self) -> set[str]:
        """List what runs, in any slot."""
        return set()

    def state(self) -> App:
        """Return what is known of the program without asking it."""
        return App(status="stopped", healthy=False)

    def inspect(self) -> ProcessProbe:
        """Look at the program's processes now."""
        return ProcessProbe(detail="the node does not run the program itself")

    def client_ports(self) -> frozenset[int]:
        """Return the ports from which its processes have connections to others; none where the node runs no program."""
        return frozenset()

    def note_healthy(self, started_at: datetime | None) -> None:
        """Note that the program was seen healthy, whose latest start was `started_at` when it was asked."""

    def upkeep(self) -> None:
        """Do what has to be done now and then, such as cutting logs."""

    def close(self) -> None:
        """Let go of the program as the node ends."""


class HookedProgram(Program):
    """Something else runs the program, such as systemd; the operator's hook has it start again."""

    def __init__(self, config: NodeConfig, db: Database, user: ProgramUser | None) -> None:
        self._config = config
        self._db = db
        self._user = user
        self._output = ProgramOutput(config)
        self._hooked: tuple[str | None, int] = (None, 0)

    @property
    def url(self) -> str | None:
        """The address in the settings."""
        return self._config.app.url

    def restart(self, release: Release | None, previous: str | None, *, patient: bool = False) -> None:
        """Run the hook; its output goes to `hook.log`.

        Raises:
            ProgramError: it failed, or took too long (its process group is then killed, as far as this user may).
        """
        app = self._config.app
        self._db.set_meta(_HOOKED, "unknown")
        environment = program_environment(
            self._config,
            {
                "ASHAT_RELEASE": str(release.path) if release else "",
                "ASHAT_BUNDLE": release.bundle if release else "",
                "ASHAT_PREVIOUS": previous or "",
                "ASHAT_CURRENT": str(self._config.data / "current"),
            },
            self._user,
        )
        run_as = self._user.popen_options() if self._user else {}
        rotate_in_place(self._output.path)
        self._hooked = (release.bundle if release else None, self._output.size())
        hook = BoundedCommand("the hook", app.hook, self._output.path, "app.hook_timeout", run_as)
        try:
            hook.run(environment, app.hook_timeout * (_PATIENCE if patient else 1))
        except CommandError as error:
            raise ProgramError(str(error)) from error.__cause__
        self._db.set_meta(_HOOKED, release.path.name if release else "")

    def adopt(self, release: Release | None) -> bool:
        """Tell whether the hook was last run, to its end, for this directory; None: for nothing, or never."""
        return (self._db.get_meta(_HOOKED) or "") == (release.path.name if release else "")

    def output(self, bundle: str | None) -> tuple[str, ...]:
        """Return the last lines that the hook wrote since it was last called for `bundle`."""
        called_for, began = self._hooked
        return self._output.last(began) if bundle and called_for == bundle else ()

    def state(self) -> App:
        """Return that a hook runs the program: nothing more is known."""
        return App(status="hook", healthy=False, url=self.url, user=self._user.name if self._user else "")


def program_environment(config: NodeConfig, own: Mapping[str, str], user: ProgramUser | None) -> dict[str, str]:
    """Make the program's environment: the node's without any `ASHAT_*` (some are secret), ours, the operator's.

    A `user` of its own gets little of the node's.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ASHAT_")}
    if user is not None:
        inherited = user.environment(inherited)
    return {**inherited, "PYTHONDONTWRITEBYTECODE": "1", **own, **config.app.env}


def launch(
    config: NodeConfig, user: ProgramUser | None, release: Release, command: Sequence[str], port: int
) -> tuple[list[str], dict[str, str]]:
    """Fill in `command` and the environment, for a program of `release` that is to answer at `port`."""
    values = {"{port}": str(port), "{release}": str(release.path), "{data}": str(config.app_data)}
    own = {
        "ASHAT_BUNDLE": release.bundle,
        "ASHAT_RELEASE": str(release.path),
        "RAOS_PORT": str(port),
        "RAOS_DATA": str(config.app_data),
    }
    environment = program_environment(config, own, user)
    return [_fill(word, values) for word in command], {key: _fill(word, values) for key, word in environment.items()}


def _fill(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
