"""What schemathesis has to know of a node beyond its OpenAPI document: `SCHEMATHESIS_HOOKS` names this module."""

from __future__ import annotations

from typing import Any

import schemathesis

from ashat.protocol.messages import FRAMES


@schemathesis.serializer(FRAMES)
def frames(_: Any, value: Any) -> bytes:
    """Send as frames whatever it makes up."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(_: Any, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Wait for no news for longer than a test has."""
    if str((case.query or {}).get("wait", "")).partition(".")[0] in map(str, range(1, 61)):
        case.query["wait"] = 0.1
