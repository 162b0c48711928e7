"""Seeded faults: a program that does on its server what no release says."""

from __future__ import annotations

from tasks.selftest.faults.base import SeededFault, faulty

FAULTS: tuple[SeededFault, ...] = (
    faulty(
        "runtime",
        r"1 path was not as in the manifest: Modules/Market/__init__\.py",
        "writes-own-code=Modules/Market/__init__.py",
    ),
    faulty("runtime", r"1 path was missing that the manifest names: kernel/web\.py", "deletes-own-file=kernel/web.py"),
    faulty("runtime", r"1 path was not of the mode that it should have: raos\.py", "loose-mode=raos.py@0750"),
    faulty(
        "runtime",
        r"1 path was written beside the release's files: Modules/plugin\.py",
        "writes-beside=Modules/plugin.py",
        expects="warn",
    ),
    faulty(
        "runtime",
        r"the program takes connections at (0\.0\.0\.0|::), port 18391, besides the address",
        "opens-port=18391",
        expects="warn",
    ),
    faulty(
        "runtime",
        r"the program logged a traceback \d+ times, .*: LookupError: a seeded fault",
        "logs-traceback=3",
        expects="warn",
    ),
    faulty("runtime", r"threads grew by \d+ over \d+ requests, in each of 5 bursts", "leaks-threads=5", expects="warn"),
    faulty("runtime", r"open files grew by \d+ over \d+ requests", "leaks-files=5", expects="warn"),
    faulty("runtime", r"memory grew by \d+ MiB over \d+ requests", "leaks-memory=64", expects="warn"),
    faulty("runtime", r"the program ended and was restarted during the verification: .* on signal 9", "crash-after=2"),
    faulty("runtime", r"1 of 2 requests over 1 s of light load failed; .*: status 503", "status=/api/core/status@503"),
)
