"""Let Public run an update that it was sent while no window of it was open, or a freeze held."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState

from flows._forms import LAST, Attempt, UpdateId
from flows._runs import ending, report_refusals
from flows.push import switch_once_open
from tasks.runtime.deployment import deployment


@flow(
    name="switch",
    flow_run_name="switch {update_id}",
    description="Let the Public Server run an update that it was sent while it was closed.",
)
@report_refusals
def switch(update_id: UpdateId, attempt: Attempt = LAST) -> PrefectState[Any]:
    """Go on with a push that waited for Public; every byte of it is there already.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; 0: the last one.
    """
    d = deployment(update_id, attempt)
    return ending(switch_once_open(d) if d.state.sent else d.state)
