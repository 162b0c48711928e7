"""How a flow run ends: its final Prefect state carries the name of the deployment's stage."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from prefect import Flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun, FailedRun
from prefect.states import Cancelled, Completed, Failed

from ashat.deployment.state_machine import Stage, State
from ashat.errors import AshatError
from tasks.runtime.flow_processes import note_process
from tasks.runtime.ledger import ledger

P = ParamSpec("P")

NOT_DONE = "NotDone"
_CALLED_OFF = {Stage.REJECTED, Stage.EXPIRED, Stage.CANCELLED}


def ending(state: State) -> PrefectState[Any]:
    """The Prefect state that stands for the deployment's stage."""
    told = f"{state.update_id}: {state.stage.value}" + (f": {state.reason}" if state.reason else "")
    if state.stage is Stage.FAILED:
        return Failed(name=state.stage.value, message=told)
    if state.stage in _CALLED_OFF:
        return Cancelled(name=state.stage.value, message=told)
    return Completed(name=state.stage.value, message=told)


def report_refusals(body: Callable[P, PrefectState[Any]]) -> Callable[P, PrefectState[Any]]:
    """A flow's body, which ends NotDone with the error's one line where it was refused or a server did not answer.

    The deployment's stage is then what it was; the run can be run again.
    """

    @functools.wraps(body)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> PrefectState[Any]:
        note_process()
        try:
            return body(*args, **kwargs)
        except AshatError as error:
            return Failed(name=NOT_DONE, message=str(error), data=error)

    return wrapped


def run_here(flow: Flow[..., PrefectState[Any]], update_id: str, **parameters: Any) -> State:
    """Run a flow in this process, recorded in Prefect; the deployment's state when it has ended.

    Raises:
        AshatError: what the flow raised.
    """
    ended = flow(update_id=update_id, **parameters, return_state=True)
    found = ended.result(raise_on_failure=False)
    if isinstance(found, BaseException) and not isinstance(found, FailedRun | CancelledRun):
        raise found
    with ledger() as record:
        return record.load(update_id)


def resumed_pause_keys() -> frozenset[str]:
    """The keys of the askings that this run suspended for and was resumed from; a Retry forgets them.

    `empirical_policy.resuming` cannot be asked: the engine reads the run anew once it is Running, which clears it.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return frozenset((run.empirical_policy.pause_keys if run and run.empirical_policy else None) or ())
