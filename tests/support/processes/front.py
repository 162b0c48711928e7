"""Real proxies before a node with two slots, configured as `examples/bluegreen` shows it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.support.processes.nginx import listens, write_nginx
from tests.support.processes.node import ROOT, free_port

_SHOWN = ROOT / "examples" / "bluegreen"
_FILES = {
    "nginx": ("nginx.conf", "raos.conf"),
    "caddy": ("Caddyfile", "raos.caddy"),
    "haproxy": ("haproxy.cfg", "raos.cfg"),
}
_SECONDS = 20.0


class Front:
    """nginx, Caddy or HAProxy in `directory`, on a free port. Use it in a `with` block, which ends it.

    It is to be started after the node has written its snippet: `start`.
    """

    def __init__(self, directory: Path, kind: str = "nginx") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.kind = kind
        self.port = free_port()
        self.admin = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        shown, name = _FILES[kind]
        self.snippet = directory / name
        self.path = directory / shown
        self._write((_SHOWN / shown).read_text("utf-8").replace(f"/var/lib/ashat/traffic/{name}", str(self.snippet)))
        self._process: subprocess.Popen[bytes] | None = None

    def slots(self, **more: Any) -> dict[str, Any]:
        """The `[slots]` table of the node behind it."""
        ports = [free_port(), free_port()]
        table = {"ports": ports, "proxy": self.kind, "snippet": str(self.snippet), "reload": self.reload_command()}
        return {**table, "url": self.url, "reload_timeout": 20, "drain": 1, "warm": 60, **more}

    def reload_command(self) -> list[str]:
        """What has it read the snippet."""
        if self.kind == "nginx":
            return [program("nginx"), "-c", str(self.path), "-s", "reload"]
        if self.kind == "caddy":
            where = f"127.0.0.1:{self.admin}"
            return [
                program("caddy"),
                "reload",
                "--config",
                str(self.path),
                "--adapter",
                "caddyfile",
                "--address",
                where,
            ]
        return ["sh", "-c", f"kill -USR2 $(cat {self.directory / 'pid'})"]

    def check_command(self) -> list[str]:
        """What has its own parser read all of it."""
        if self.kind == "nginx":
            return [program("nginx"), "-t", "-c", str(self.path)]
        if self.kind == "caddy":
            return [program("caddy"), "validate", "--config", str(self.path), "--adapter", "caddyfile"]
        return [program("haproxy"), "-c", "-f", str(self.path), "-f", str(self.snippet)]

    def start(self) -> None:
        """Start it, once the snippet is there, and wait until it listens."""
        deadline = time.monotonic() + _SECONDS
        while not self.snippet.exists():
            assert time.monotonic() < deadline, "the node has not written the snippet"
            time.sleep(0.02)
        command = {
            "nginx": [program("nginx"), "-c", str(self.path)],
            "caddy": [program("caddy"), "run", "--config", str(self.path), "--adapter", "caddyfile"],
            "haproxy": [
                program("haproxy"),
                "-W",
                "-p",
                str(self.directory / "pid"),
                "-f",
                str(self.path),
                "-f",
                str(self.snippet),
            ],
        }[self.kind]
        home = {"HOME": str(self.directory), "PATH": "/usr/sbin:/usr/bin:/bin"}
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=home)
        while not listens(self.port):
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        """What it wrote."""
        return (self.directory / "log").read_text("utf-8", "replace")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write(self, text: str) -> None:
        """Write the example for this port and directory, and without the rights of root."""
        if self.kind == "nginx":
            write_nginx(self.directory, text, {"listen 80;": f"listen 127.0.0.1:{self.port};"}, workers=2)
            return
        if self.kind == "caddy":
            site = text.replace("http://raos.example.com:80", f"http://127.0.0.1:{self.port}")
            text = f"{{\n\tadmin 127.0.0.1:{self.admin}\n\tauto_https off\n}}\n{site}"
        else:
            text = text.replace("bind :80", f"bind 127.0.0.1:{self.port}")
        self.path.write_text(text)


def program(name: str) -> str:
    """Where that proxy's program is."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin:/bin")
    assert found is not None
    return found
