"""Compare the versions of an install with those of the control plane that it uses."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

# The Prefect variable that holds the version whose deployments were applied last.
APPLIED = "ashat_deployments"


@dataclass(frozen=True)
class Versions:
    """A version of ASHAT Deploy and one of Prefect; "" where none is known."""

    ashat: str
    prefect: str


def installed_version() -> str:
    """Read the version of the installed Prefect."""
    return importlib.metadata.version("prefect")


def applied_version(value: object) -> str:
    """Read the version of ASHAT Deploy from what the variable `APPLIED` holds; "" where it holds none."""
    return value.partition("+")[0] if isinstance(value, str) else ""


def version_difference(own: Versions, there: Versions) -> str:
    """Say in a line how an install differs from the control plane's versions, and what to do; "" where it does not."""
    if there.ashat and there.ashat != own.ashat:
        newer = _key(there.ashat) > _key(own.ashat)
        todo = "upgrade this install" if newer else "upgrade the API servers, then deploy up applies this version's"
        return f"This is ASHAT Deploy {own.ashat}, and the control plane's deployments are of {there.ashat}: {todo}."
    if there.prefect and there.prefect != own.prefect:
        newer = _key(there.prefect) > _key(own.prefect)
        todo = "upgrade this install" if newer else "upgrade the API servers first"
        return f"This install has Prefect {own.prefect}, and the control plane's server has {there.prefect}: {todo}."
    return ""


def _key(version: str) -> tuple[int, ...]:
    """Order versions by the numbers that they begin with."""
    numbers: list[int] = []
    for part in version.split("+")[0].split("."):
        digits = part[: next((n for n, c in enumerate(part) if not (c.isascii() and c.isdigit())), len(part))]
        if not digits or len(digits) > 9:
            break
        numbers.append(int(digits))
    return tuple(numbers)
