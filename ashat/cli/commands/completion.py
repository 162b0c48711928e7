"""Implement `deploy completion`: what a shell needs to complete commands, options, and ids, servers and keys.

What is completed is read from the ledger, the files, and Prefect's API where it runs; Prefect is not imported, and
whatever fails completes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

import typer

from ashat.cli.terminal import output
from ashat.common.home import home
from ashat.common.shell_completion import SHELLS, is_asked, script
from ashat.deployment.stages import Stage
from ashat.errors import AshatError

_SERVERS_SECONDS = 1.0

Words = Callable[[], Iterable[str]]


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print what makes a shell complete the words of deploy, ids and servers too; for bash, in ~/.bashrc:
    eval "$(deploy completion bash)"."""
    output.write(script("deploy", shell))


def prepare(command: Any) -> Any:
    """Where a shell asks, let a command, and all below it, complete what its parameters stand for; the command."""
    if is_asked("deploy"):
        _attach(command)
    return command


def _attach(command: Any) -> None:
    for parameter in command.params:
        if words := _words_of(parameter):
            # What Typer's `autocompletion` sets, which would have to stand at every parameter of every command.
            parameter._custom_shell_complete = _completer(words)
    for below in getattr(command, "commands", {}).values():
        _attach(below)


def _words_of(parameter: Any) -> Words | None:
    """Find what a parameter completes to, by its name in the code or its option; None: what Typer knows."""
    by_name: dict[str, Words] = {"update_id": _updates, "server": _servers, "shell": lambda: SHELLS}
    by_option: dict[str, Words] = {
        "--target": partial(_servers, "omega"),
        "--public": partial(_servers, "public"),
        "--omega": partial(_servers, "omega"),
        "--as": _servers,
        "--on": _servers,
        "--key": _keys,
        "--pool": lambda: ("alpha", "control"),
        "--stage": lambda: [stage.value for stage in Stage],
        "--for": lambda: ["approval", "decision", "end", *(stage.value for stage in Stage)],
    }
    named = by_name.get(parameter.name) if parameter.param_type_name == "argument" else None
    return named or next((by_option[option] for option in parameter.opts if option in by_option), None)


def _completer(words: Words) -> Callable[[Any, Any, str], list[str]]:
    def complete(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
        with contextlib.suppress(AshatError, OSError, ValueError):
            return [word for word in words() if word.startswith(incomplete)]
        return []

    return complete


def _updates() -> list[str]:
    from ashat.ledger.summaries import summaries

    return list(dict.fromkeys(str(summary["update_id"]) for summary in summaries()))


def _servers(role: str = "") -> list[str]:
    from ashat.cli.control_plane.api import known_api

    api = known_api(home())
    found = api.servers(seconds=_SERVERS_SECONDS) if api else []
    return [server["block"] for server in found if not role or server.get("role") == role]


def _keys() -> list[str]:
    return [str(path) for path in sorted((home() / "trust" / "keys").glob("*.pem"))]
