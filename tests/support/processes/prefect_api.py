"""Prefect's API as tests ask it: its database on SQLite is busy now and then. It then says so with a 503, or says
nothing for the minute that SQLite waits for a lock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from ashat.cli.control_plane.state import read_password, read_state

BUSY_SECONDS = 180.0
SILENT_SECONDS = 150.0


def ask_prefect(home: Path, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """What the API of the control plane of `home` answers to one request, decoded; None where it answers nothing.

    Raises:
        httpx.HTTPStatusError: it refuses.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    state = read_state(home)
    assert state is not None
    user, _, password = read_password(home).partition(":")
    while True:
        response = httpx.request(
            method,
            f"{state.api_url}{path}",
            json=body,
            auth=(user, password),
            trust_env=False,
            timeout=SILENT_SECONDS,
            **options,
        )
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    response.raise_for_status()
    return response.json() if response.content else None
