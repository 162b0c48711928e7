"""A Mainframe's own look at whether a release can be installed on what it runs, whatever OMEGA says."""

from __future__ import annotations

from ashat.errors import AshatError
from ashat.node.app_process.commands import CANNOT_BE_READ, why_barred
from ashat.node.context import NodeContext

_RAN = "SELECT 1 FROM operations WHERE status = 'succeeded' AND to_bundle = ? LIMIT 1"


def barrier(context: NodeContext, bundle: str, running: str | None) -> str:
    """Say why `bundle`, which is here, cannot be installed on the bundle `running`; "" where it can, and where it ran
    here before: to go back to that is no installation."""
    if context.db.one(_RAN, (bundle,)):
        return ""
    try:
        return why_barred(context.store, bundle, running)
    except AshatError as error:
        return f"{CANNOT_BE_READ}: {str(error).rstrip('.')}"
