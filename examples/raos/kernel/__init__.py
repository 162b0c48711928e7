"""What the modules of RaOS stand on: routes, the database, and each other's services."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel.database import Database
from kernel.faults import Faults
from kernel.web import HttpError, Request, Response, Router, json_response


@dataclass
class ModuleState:
    """A module as it was loaded. `digest` is defined in `kernel.modules.module_digest`."""

    name: str
    version: str
    status: str
    digest: str
    load_ms: int
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The module's entry in the report."""
        return {
            "name": self.name,
            "version": self.version,
            "status": self.status,
            "digest": self.digest,
            "load_ms": self.load_ms,
            "error": self.error,
        }


@dataclass
class Kernel:
    """The running program. Modules add routes to `router` and may `provide` services to other modules."""

    name: str
    version: str
    bundle: str | None
    release: Path
    database: Database
    faults: Faults
    router: Router = field(default_factory=Router)
    modules: list[ModuleState] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _services: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.router.add("GET", "/health", self.health)
        self.router.add("GET", "/ready", self.ready)
        self.router.add("GET", "/modules", self.report)

    def provide(self, name: str, service: Any) -> None:
        """Offer `service` to other modules."""
        self._services[name] = service

    def service(self, name: str) -> Any:
        """What another module offers.

        Raises:
            HttpError: 503, when the module that offers it did not load.
        """
        if name not in self._services:
            raise HttpError(503, f"{name} is not available")
        return self._services[name]

    def health(self, request: Request) -> Response:
        """200 while the database answers; 503 otherwise."""
        seeded = "a seeded fault says so" if self.faults.at_health(self.database) else None
        trouble = self.database.trouble() or seeded
        failed = [module.name for module in self.modules if module.status != "loaded"]
        status = "failing" if trouble else "degraded" if failed else "ok"
        answer = {
            "status": status,
            "version": self.version,
            "bundle": self.bundle,
            "uptime_ms": round((time.monotonic() - self.started) * 1000),
            "modules_failed": failed,
            "detail": trouble or "",
        }
        return json_response(answer, status=503 if trouble else 200)

    def ready(self, request: Request) -> Response:
        """200 while every module can serve; 503 otherwise."""
        failed = [module.name for module in self.modules if module.status != "loaded"]
        seeded = "a seeded fault says so" if self.faults.at_ready() else None
        trouble = self.database.trouble() or (f"failed to load: {', '.join(failed)}" if failed else None) or seeded
        return json_response({"ready": not trouble, "detail": trouble or ""}, status=503 if trouble else 200)

    def report(self, request: Request) -> Response:
        """Every module: what was loaded, from which bytes, and what went wrong."""
        return json_response({"modules": [module.as_json() for module in self.modules]})
