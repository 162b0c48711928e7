"""A program that is the whole of a bundle, quick to start, and badly behaved where the file `behaviour` says so.

Words of `behaviour`: `crash` (ends at start), `sick` (health answers 500), `mute` (never answers), `liar` (says it is
another bundle), `dies` (ends soon after it was healthy), `stubborn` (ignores SIGTERM), `child` (leaves a child
behind), `scribble` (writes into its own release), `huge` and `drip` (answers without end, fast and slowly). Those about
answers may also stand in the file `behaviour` of its data directory, from when on they count. What stands
in the file `says` it prints first.
"""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

RELEASE = pathlib.Path(__file__).parent
WORDS = (RELEASE / "behaviour").read_text().split()
LATER = pathlib.Path(os.environ["RAOS_DATA"], "behaviour")
MODULES = [{"name": "Core", "version": "1", "status": "ok"}]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        words = [*WORDS, *(LATER.read_text().split() if LATER.exists() else [])]
        while "mute" in words:
            time.sleep(1)
        if "huge" in words or "drip" in words:
            self._endless(0.0 if "huge" in words else 0.05)
            return
        bundle = "0" * 64 if "liar" in words else os.environ["ASHAT_BUNDLE"]
        health = {"status": "ok", "version": "1.0", "bundle": bundle, "pid": os.getpid()}
        body = json.dumps(MODULES if self.path == "/modules" else health).encode()
        self.send_response(500 if "sick" in words else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if "dies" in words:
            threading.Timer(0.1, os._exit, (3,)).start()

    def _endless(self, pause: float) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(100_000):
            try:
                self.wfile.write(b"1\r\n \r\n" if pause else b"10000\r\n" + b" " * 65536 + b"\r\n")
            except OSError:
                return
            time.sleep(pause)

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    if (RELEASE / "says").exists():
        print((RELEASE / "says").read_text(), end="", flush=True)
    if "crash" in WORDS:
        sys.exit("told to crash")
    if "stubborn" in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in WORDS:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    if "scribble" in WORDS:
        for path in RELEASE.iterdir():
            with open(path, "ab") as file:
                file.write(b"scribble")
        (RELEASE / "extra.txt").write_text("mine")
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["RAOS_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
