"""A flow that does nothing for as long as it is told, so that something runs while a control plane is ended."""

from __future__ import annotations

import time

from prefect import flow


@flow(name="nap")
def nap(seconds: float = 0.0) -> None:
    """Sleep."""
    time.sleep(seconds)
