"""Prefect's own server, with a password and behind our guard; run as a module.

The embedded control plane runs one on this machine. A team runs several without services, behind a proxy.
"""

from __future__ import annotations

import argparse
import os

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from ashat.cli.control_plane.closed import Closed
from ashat.cli.control_plane.state import HOST
from ashat.cli.control_plane.vouched import Vouched


def main() -> None:
    """Serve at the port that the first argument names, until a signal ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--public", action="append", default=[], help="a proxy's address; services run elsewhere then")
    options = parser.parse_args()
    settings = get_current_settings().server
    password, secret = os.environ["PREFECT_SERVER_API_AUTH_STRING"], os.environ.pop("ASHAT_PROXY_SECRET", "")
    app = create_app(final=True, webserver_only=bool(options.public))
    guarded = Closed(app, password, options.port, public=options.public)
    uvicorn.run(
        Vouched(guarded, password, secret) if options.public else guarded,
        host=options.host,
        port=options.port,
        log_level=settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
    )


if __name__ == "__main__":
    main()
