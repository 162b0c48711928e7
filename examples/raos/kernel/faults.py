"""How RaOS is told to misbehave, so that a bad release can be made on purpose. See README.md.

Faults come from `faults.toml` in the release (`faults = ["slow=300", ...]`) and from `RAOS_FAULT=slow=300,...`.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from kernel.database import Database
    from kernel.web import Response, _Handler

KNOWN = {
    "crash-at-start": "exits with status 3 before it listens",
    "crash-after": "SECONDS after it listens, dies by SIGKILL",
    "slow-start": "SECONDS pass before it listens",
    "crash-on-health": "dies by SIGKILL when /health is asked for the Nth time",
    "crash-once": "the same, unless it did in the last minute",
    "unhealthy-after": "/health answers 503 once it has answered N times",
    "flapping": "every Nth answer of /health is 503",
    "not-ready": "/ready answers 503",
    "unready-after": "/ready answers 503 once it has answered N times",
    "wrong-version": "reports VERSION",
    "wrong-bundle": "reports a bundle that is not its own",
    "module-fails": "module NAME raises as it loads",
    "module-missing": "module NAME is neither loaded nor reported",
    "module-extra": "reports a module that no file backs",
    "module-tampered": "module NAME reports the digest of other bytes",
    "module-flipped": "a bit of module NAME flips on the disk before it is loaded",
    "module-slow": "NAME@MILLISECONDS: that module takes so much longer to load",
    "slow": "every answer under /api/ takes MILLISECONDS more",
    "slower": "every answer costs PERCENT more of the processor",
    "stall": "N@MILLISECONDS: every Nth answer under /api/ takes that much more",
    "error-every": "every Nth answer under /api/ is 500",
    "status": "PATH@STATUS: that path answers that status",
    "empty": "PATH answers {}",
    "bad-json": "PATH answers JSON that is cut off",
    "bad-charset": "PATH answers bytes that are not UTF-8",
    "hang": "PATH never answers",
    "drip": "PATH answers a byte a second",
    "drip-headers": "PATH sends its headers a byte a second",
    "huge": "PATH answers 1 GB",
    "redirect": "PATH redirects to itself",
    "no-header": "leaves the security header NAME out",
    "exposed": "serves the files and listings of its own release directory",
    "listing": "PATH lists a directory",
    "serves": "PATH, such as /.env, shows what such a file holds",
    "loose-mode": "FILE@MODE: changes the mode of one of its own files",
    "writes-own-code": "FILE: adds a line to one of its own files once it listens",
    "writes-beside": "FILE: writes that file into its own release directory",
    "deletes-own-file": "FILE: deletes one of its own files once it listens",
    "opens-port": "PORT: takes connections there, too, at each address of the host",
    "logs-traceback": "every Nth answer under /api/ writes a traceback into the log",
    "leaks-threads": "every Nth answer under /api/ leaves a thread behind",
    "leaks-files": "every Nth answer under /api/ leaves a file open",
    "leaks-memory": "every answer under /api/ keeps KIB of memory",
    "leak": "PATH shows a credential",
    "cookie": "PATH sets a session cookie that scripts can read",
    "database-locked": "holds the database's write lock",
    "database-gone": "moves the database file away when /health is asked for the Nth time",
    "database-damaged": "overwrites the database's first page when /health is asked for the Nth time",
    "database-read-only": "marks the database as one that may only be read",
    "drop-table": "drops table NAME",
    "unreadable-table": "puts a view of nothing in the place of table NAME",
    "skip-migration": "does not apply migration VERSION",
}
GIGABYTE = 1_000_000_000
FILES = {
    "/.env": b"COLOUR=blue\n",
    "/.git/HEAD": b"ref: refs/heads/main\n",
    "/.git/config": b"[core]\n\tbare = false\n",
}


class Faults:
    """The faults asked for. With none, every method leaves things as they are."""

    def __init__(self, wanted: list[str]) -> None:
        self._values: dict[str, str] = {}
        self._held: list[object] = []
        self._requests = itertools.count(1)
        self._answers = {name: itertools.count(1) for name in KNOWN}
        self._health = itertools.count(1)
        self._ready = itertools.count(1)
        for item in wanted:
            name, _, value = item.partition("=")
            if name not in KNOWN:
                sys.exit(f"raos: there is no fault {name!r}; known are {', '.join(sorted(KNOWN))}.")
            self._values[name] = value

    @classmethod
    def read(cls, release: Path, environment: str) -> Faults:
        """The faults of `faults.toml`, if the release holds one, and those of `environment`."""
        wanted = [item for item in environment.split(",") if item]
        file = release / "faults.toml"
        if file.exists():
            wanted = list(tomllib.loads(file.read_text(encoding="utf-8"))["faults"]) + wanted
        return cls(wanted)

    def has(self, name: str) -> bool:
        """Whether fault `name` is asked for."""
        return name in self._values

    def text(self, name: str) -> str | None:
        """The value of fault `name`, None where it is not asked for."""
        return self._values.get(name)

    def at_start(self, release: Path) -> None:
        """What goes wrong before the program listens; `release` is its directory."""
        if self.has("crash-at-start"):
            print("raos: a seeded fault: the licence core did not initialise", file=sys.stderr)
            sys.exit(3)
        time.sleep(float(self._values.get("slow-start", 0)))
        if self.has("loose-mode"):
            name, _, mode = self._values["loose-mode"].partition("@")
            (release / name).chmod(int(mode, 8))
        if self.has("module-flipped"):
            _flip_a_bit(release / "Modules" / self._values["module-flipped"] / "__init__.py")

    def while_running(self, database: Database, release: Path) -> None:
        """What goes wrong once it listens; `release` is its directory."""
        self._tamper(release)
        if self.has("opens-port"):
            self._held.append(socket.create_server(("", int(self._values["opens-port"]))))
        if self.has("crash-after"):
            seconds = float(self._values["crash-after"])
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        if self.has("drop-table"):
            with database.session() as connection:
                connection.execute(f'DROP TABLE IF EXISTS "{self._values["drop-table"]}"')
        if self.has("unreadable-table"):
            name = self._values["unreadable-table"]
            with database.session() as connection:
                connection.execute(f'ALTER TABLE "{name}" RENAME TO "{name}_kept"')
                connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM "{name}_lost"')
        if self.has("database-read-only"):
            _make_read_only(database.path)
        if self.has("database-locked"):
            self._lock = sqlite3.connect(database.path, isolation_level=None, check_same_thread=False)
            self._lock.execute("BEGIN IMMEDIATE")

    def _tamper(self, release: Path) -> None:
        """Change the release's own files."""
        if self.has("writes-own-code"):
            with open(release / self._values["writes-own-code"], "a", encoding="utf-8") as file:
                file.write("# added by the program itself\n")
        if self.has("writes-beside"):
            (release / self._values["writes-beside"]).write_text("written by the program itself\n", encoding="utf-8")
        if self.has("deletes-own-file"):
            (release / self._values["deletes-own-file"]).unlink(missing_ok=True)

    def at_health(self, database: Database) -> bool:
        """What goes wrong as /health is asked; whether it is to answer 503 now."""
        asked = next(self._health)
        if asked == self._number("crash-on-health"):
            os.kill(os.getpid(), signal.SIGKILL)
        if asked == self._number("crash-once") and _first_in_a_minute(database.path.with_name("crashed")):
            os.kill(os.getpid(), signal.SIGKILL)
        if asked == self._number("database-gone"):
            database.path.rename(database.path.with_suffix(".gone"))
        if asked == self._number("database-damaged"):
            with open(database.path, "r+b") as file:
                file.write(b"\0" * 4096)
        if self.has("unhealthy-after") and asked > self._number("unhealthy-after"):
            return True
        return self.has("flapping") and asked % self._number("flapping") == 0

    def at_ready(self) -> bool:
        """Whether /ready is to answer 503 now."""
        asked = next(self._ready)
        return self.has("not-ready") or (self.has("unready-after") and asked > self._number("unready-after"))

    def seconds_to_load(self, module: str) -> float:
        """How much longer a module takes to load."""
        name, _, milliseconds = self._values.get("module-slow", "").partition("@")
        return int(milliseconds) / 1000 if name == module else 0.0

    def _number(self, name: str) -> int:
        return int(self._values.get(name, 0))

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The security headers that are left."""
        missing = self._values.get("no-header", "").lower()
        return {name: value for name, value in headers.items() if name.lower() != missing}

    def change(self, method: str, path: str, response: Response) -> Response:
        """`response`, or what a fault makes of it."""
        if path.startswith("/api/"):
            self._leak()
            time.sleep(float(self._values.get("slow", 0)) / 1000)
            every, _, milliseconds = self._values.get("stall", "").partition("@")
            if every and next(self._answers["stall"]) % int(every) == 0:
                time.sleep(int(milliseconds) / 1000)
            if self.has("error-every") and next(self._requests) % int(self._values["error-every"]) == 0:
                return _with(response, b'{"error":"internal error"}', status=500)
        wanted, _, status = self._values.get("status", "").partition("@")
        if wanted and path == wanted:
            return _with(response, b'{"error":"seeded"}', status=int(status))
        if path == self._values.get("empty"):
            return _with(response, b"{}")
        if path == self._values.get("bad-json"):
            return _with(response, response.body[:-2])
        if path == self._values.get("bad-charset"):
            return _with(response, b'{"name":"\xff\xfe"}')
        return self._given_away(method, path, response)

    def _leak(self) -> None:
        """Hold on to what a request took, or write down that something went wrong."""
        for name in ("logs-traceback", "leaks-threads", "leaks-files"):
            if self.has(name) and next(self._answers[name]) % self._number(name) == 0:
                if name == "logs-traceback":
                    _log_a_traceback()
                elif name == "leaks-threads":
                    threading.Thread(target=threading.Event().wait, args=(600,), daemon=True).start()
                else:
                    self._held.append(open(os.devnull, "rb"))  # noqa: SIM115  # that is the fault
        if self.has("leaks-memory"):
            self._held.append(b"\1" * (1024 * self._number("leaks-memory")))

    def _given_away(self, method: str, path: str, response: Response) -> Response:
        if path == self._values.get("leak"):
            return _with(response, response.body + b'\n{"aws_access_key_id":"' + _credential() + b'"}')
        if path == self._values.get("cookie"):
            return _with(response, response.body, headers={**response.headers, "Set-Cookie": "session=seeded; Path=/"})
        if method == "GET" and response.status in (403, 404):
            if path == self._values.get("serves"):
                return _with(response, FILES[path], status=200, headers={"Content-Type": "text/plain"})
            if path == self._values.get("listing"):
                return _listing(path, ["seeded.txt"])
            if self.has("exposed"):
                return _exposed(path) or response
        return response

    def dawdle(self, seconds: float) -> None:
        """Use up the processor for as many percent more of `seconds`, the processor time that a request needs."""
        end = time.thread_time() + seconds * self._number("slower") / 100
        while time.thread_time() < end:
            pass

    def misbehave(self, handler: _Handler, response: Response) -> bool:
        """Answer in a way no HTTP library would; True if that was done."""
        path = urlsplit(handler.path).path
        at = {name for name in ("hang", "drip", "drip-headers", "huge", "redirect") if self._values.get(name) == path}
        if not at:
            return False
        handler.close_connection = True
        if "hang" in at:
            threading.Event().wait(120)
        elif "redirect" in at:
            handler.send(_with(response, b"", status=302, headers={"Location": handler.path}))
        elif "huge" in at:
            _raw(handler, f"HTTP/1.1 200 OK\r\nContent-Length: {GIGABYTE}\r\n\r\n".encode())
            block = b" " * 65536
            for _ in range(GIGABYTE // len(block)):
                _raw(handler, block)
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3600\r\n"
            slow = head * 10 if "drip-headers" in at else b" " * 3600
            if "drip" in at:
                _raw(handler, head + b"\r\n")
            for byte in slow:
                _raw(handler, bytes([byte]))
                time.sleep(1)
        return True


def _log_a_traceback() -> None:
    try:
        raise LookupError("a seeded fault")
    except LookupError:
        traceback.print_exc()


def _first_in_a_minute(mark: Path) -> bool:
    first = not mark.exists() or time.time() - mark.stat().st_mtime > 60
    mark.touch()
    return first


def _flip_a_bit(file: Path) -> None:
    """Flip a bit of the file's first letter, a capital in its docstring: it still loads. Once flipped, it stays."""
    content = bytearray(file.read_bytes())
    if content[3:4].isupper():
        content[3] ^= 0x20
        file.write_bytes(content)


def _make_read_only(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as file:
        file.seek(18)  # the version needed to write the file: SQLite only reads those that it does not know
        file.write(b"\x03")


def _raw(handler: _Handler, data: bytes) -> None:
    handler.wfile.write(data)
    handler.wfile.flush()


def _with(
    response: Response, body: bytes, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    return type(response)(body, status or response.status, headers if headers is not None else response.headers)


def _credential() -> bytes:
    return b"AKIA" + b"".join((b"Q3EG", b"RSHW", b"7RTB", b"X2MN"))  # in pieces, so that no scanner finds it here


def _listing(path: str, names: list[str]) -> Response:
    from kernel.web import Response

    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
    page = f"<title>Index of {path}</title><h1>Index of {path}</h1><ul>{links}</ul>"
    return Response(page.encode("utf-8"), 200, {"Content-Type": "text/html; charset=utf-8"})


def _exposed(path: str) -> Response | None:
    from kernel.web import Response

    root = Path(__file__).resolve().parent.parent
    place = (root / path.lstrip("/")).resolve()
    if place != root and root not in place.parents:
        return None
    if place.is_dir():
        return _listing(path, sorted(item.name for item in place.iterdir()))
    if place.is_file():
        return Response(place.read_bytes(), 200, {"Content-Type": "text/plain; charset=utf-8"})
    return None
