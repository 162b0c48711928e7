"""What the bytes of a stranger cost: each reader with each of its bombs, in a process of its own.

    python bench/limits.py [--reader NAME] [--json]

A bomb has as many bytes as its reader takes. The child may map `limit_mb` more than it has when the bomb is ready
(RLIMIT_AS) and take four times `limit_s` seconds of processor; `peak_mb` is what it had beyond that at once, `seconds`
the processor's time. `ok` says that it returned a value or raised the reader's one error, within both limits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.readers import READERS, Reader  # noqa: E402

_MB = 1024 * 1024
_PATIENCE = 4


def main() -> int:
    """Measure, and print; return 1 if a limit was exceeded."""
    parser = argparse.ArgumentParser(description="What the bytes of a stranger cost.")
    parser.add_argument("--reader", default="", help="only the readers with this in their name")
    parser.add_argument("--json", action="store_true", help="print a list with an entry for each reader and bomb")
    options = parser.parse_args()
    rows = [row for reader in READERS if options.reader in reader.name for row in measured(reader)]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            print(
                f"{'ok' if row['ok'] else 'NO':3}{row['reader']:32}{row['bomb']:32}{row['input_bytes']:>10} B"
                f"{row['peak_mb']:8.1f} of {row['limit_mb']:3} MB{row['seconds']:8.2f} of {row['limit_s']:3} s"
                f"  {row['said']}"
            )
    return 0 if all(row["ok"] for row in rows) else 1


def measured(reader: Reader) -> Iterator[dict[str, Any]]:
    """Measure a reader with each of its bombs."""
    for name, bomb in reader.bombs.items():
        found = in_a_child(reader, bomb(reader.most))
        within = found["peak_mb"] <= reader.limit_mb and found["seconds"] <= reader.limit_s
        limits = {"limit_mb": reader.limit_mb, "limit_s": reader.limit_s}
        yield {"reader": reader.name, "bomb": name, **found, **limits, "ok": found["ok"] and within}


def in_a_child(reader: Reader, raw: bytes) -> dict[str, Any]:
    """Let a child of this process read `raw`; return what it took and whether it ended as it should."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sending, json.dumps(_bounded(reader, raw)).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if answer:
        found: dict[str, Any] = json.loads(answer)
        return found
    killed = signal.Signals(status).name if status else "nothing"
    return {
        "input_bytes": len(raw),
        "peak_mb": float(reader.limit_mb),
        "seconds": float(_PATIENCE * reader.limit_s),
        "said": f"it ended with {killed}",
        "ok": False,
    }


def _bounded(reader: Reader, raw: bytes) -> dict[str, Any]:
    before, mapped = _memory("VmRSS"), _memory("VmSize")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    room = mapped + reader.limit_mb * _MB
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (_PATIENCE * reader.limit_s, _PATIENCE * reader.limit_s + 1))
    signal.setitimer(signal.ITIMER_REAL, 20 * reader.limit_s)  # a child that hangs takes no processor
    began = time.process_time()
    ok, said = True, "read"
    try:
        reader.read(raw)
    except reader.refuses as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    except Exception as error:  # noqa: BLE001 - what a reader raises beside its own error is what is looked for
        ok, said = False, f"{type(error).__name__}, which is none of its own: {str(error)[:160]}"
    seconds = time.process_time() - began
    peak = (_memory("VmHWM") - before) / _MB
    return {
        "input_bytes": len(raw),
        "peak_mb": round(max(0.0, peak), 1),
        "seconds": round(seconds, 3),
        "said": said,
        "ok": ok,
    }


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1]) * 1024


if __name__ == "__main__":
    raise SystemExit(main())
