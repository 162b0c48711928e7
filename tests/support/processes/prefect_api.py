"""Prefect's API as tests ask it: its database on SQLite is busy now and then. It then says so with a 503, or says
nothing for the minute that SQLite waits for a lock."""

from __future__ import annotations

import time
from typing import Any

import httpx

BUSY_SECONDS = 180.0
SILENT_SECONDS = 150.0


def ask_prefect(api_url: str, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """What the API answers to one request, decoded; None where it answers nothing.

    Raises:
        httpx.HTTPStatusError: it refuses.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        response = httpx.request(
            method, f"{api_url}{path}", json=body, trust_env=False, timeout=SILENT_SECONDS, **options
        )
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    response.raise_for_status()
    return response.json() if response.content else None
