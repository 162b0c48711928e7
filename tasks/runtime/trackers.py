"""Read which trackers there are, from the variable of Prefect that lists them beside their blocks."""

from __future__ import annotations

from prefect.variables import Variable

from ashat.common.text import cut, printable
from ashat.common.trackers import VARIABLE, Tracker, trackers_of
from tasks.runtime.in_time import in_time
from tasks.runtime.reporting import reporter

SECONDS = 10.0


def known_trackers() -> list[Tracker]:
    """List the trackers; where Prefect does not say, a line says so, and none are known."""
    try:
        return trackers_of(in_time(SECONDS, lambda: Variable.get(VARIABLE), "trackers"))
    except Exception as error:  # noqa: BLE001  a deployment goes on, whoever hears of it
        why = cut(printable(" ".join(str(error).split())), 200)
        reporter().say(f"⚠️ Which trackers there are could not be read: {why or type(error).__name__}")
        return []
