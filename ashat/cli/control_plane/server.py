"""Prefect's own server as the embedded control plane runs it: on this machine, with a password; run as a module."""

from __future__ import annotations

import os
import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from ashat.cli.control_plane.closed import Closed
from ashat.cli.control_plane.state import HOST


def main() -> None:
    """Serve at the port that the first argument names, until a signal ends it."""
    settings, port = get_current_settings().server, int(sys.argv[1])
    uvicorn.run(
        Closed(create_app(final=True), os.environ["PREFECT_SERVER_API_AUTH_STRING"], port),
        host=HOST,
        port=port,
        log_level=settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
    )


if __name__ == "__main__":
    main()
