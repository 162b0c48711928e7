"""The nginx configurations that are shown to users, made to run in a directory of a test, without root's rights."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def write_nginx(directory: Path, shown: str, changes: Mapping[str, str], *, workers: int = 1) -> Path:
    """Write `directory`/nginx.conf: what is `shown`, with each key of `changes`, which has to be in it, replaced."""
    for old, new in changes.items():
        assert old in shown, old
        shown = shown.replace(old, new)
    paths = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in _KINDS)
    path = directory / "nginx.conf"
    path.write_text(
        f"pid {directory}/pid;\nerror_log stderr;\ndaemon off;\nworker_processes {workers};\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{paths}{shown}\n}}\n"
    )
    return path


def listens(port: int) -> bool:
    """Tell whether something takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
