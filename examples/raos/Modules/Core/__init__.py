"""Core: what this server is and how it fares."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

from kernel import Kernel
from kernel.web import Request, Response, json_response

VERSION = "4.2.0"


def setup(kernel: Kernel) -> None:
    """Read the description of the API, and add Core's routes."""
    document = json.loads((Path(__file__).parent / "openapi.json").read_text(encoding="utf-8"))
    document["info"]["version"] = kernel.version

    def status(request: Request) -> Response:
        trouble = kernel.database.trouble()
        answer = {
            "name": kernel.name,
            "version": kernel.version,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "uptime_seconds": int(time.monotonic() - kernel.started),
            "modules": len([module for module in kernel.modules if module.status == "loaded"]),
            "database": trouble or "ok",
        }
        return json_response(answer, status=503 if trouble else 200)

    def openapi(request: Request) -> Response:
        return json_response(document)

    kernel.router.add("GET", "/api/core/status", status)
    kernel.router.add("GET", "/openapi.json", openapi)
