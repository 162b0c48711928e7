"""Where nodes, and the commands that need no Prefect, start: one process that has imported the base install."""

from __future__ import annotations

from tests.support.processes.fork_server import ForkServer

# The last five are what uvicorn imports once it serves.
FORKS = ForkServer(
    *(f"ashat.{package}.*" for package in ("audit", "client", "ledger", "node", "receipts", "trust")),
    "ashat.cli.main",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.dialects.postgresql",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "anyio._backends._asyncio",
)
