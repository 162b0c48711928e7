"""Ask people in a flow run, and end it: its final Prefect state carries the name of the deployment's stage."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, ParamSpec

from prefect import Flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun, FailedRun, Pause
from prefect.flow_runs import suspend_flow_run
from prefect.states import Cancelled, Completed, Failed
from pydantic import ValidationError

from ashat.common.shortage import shortage
from ashat.deployment.aftermath import AND_THEN, goes_on
from ashat.deployment.moments import asks_first
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import Stage, State
from ashat.errors import AshatError, ConflictError
from tasks.approval.decided import decision_line
from tasks.approval.gate import form_that_asks
from tasks.approval.page import headline, page_key, verdict_lines
from tasks.approval.request import ask, form_text, judge, page_text
from tasks.approval.subject import Subject
from tasks.runtime.artifacts import publish_markdown
from tasks.runtime.connections import connections
from tasks.runtime.deployment import Deployment
from tasks.runtime.events import tell_moments
from tasks.runtime.flow_processes import note_process
from tasks.runtime.notify import notify
from tasks.runtime.one_line_log import log_errors_in_one_line
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now
from tasks.runtime.sleep import SLEEPS, sleep_until
from tasks.runtime.update_runs import label_run

P = ParamSpec("P")

NOT_DONE = "NotDone"
_LONGEST_SLEEP = timedelta(days=1)
_CALLED_OFF = {Stage.REJECTED, Stage.EXPIRED, Stage.CANCELLED}


def ending(state: State) -> PrefectState[Any]:
    """Make the Prefect state that stands for the deployment's stage; a release that a Mainframe did not take has its
    count in the name, and has failed where none took it."""
    message = f"{state.update_id}: {state.stage.value}" + (f": {state.reason}" if state.reason else "")
    if state.stage is Stage.COMPLETED and not state.reach.whole:
        kind = Failed if state.reach.nobody else Completed
        return kind(name=f"{state.stage.value}, {state.reach.short}", message=f"{message}: {state.reach.words}")
    if state.stage is Stage.FAILED:
        return Failed(name=state.stage.value, message=message)
    if state.stage in _CALLED_OFF:
        return Cancelled(name=state.stage.value, message=message)
    if state.window is not None:
        return Completed(name=SLEEPS, message=f"{state.update_id} {state.window_line}")
    return Completed(name=state.stage.value, message=message)


def report_refusals(body: Callable[P, PrefectState[Any]]) -> Callable[P, PrefectState[Any]]:
    """Wrap a flow's body, so that it ends NotDone with the error's one line where it was refused or a server did not
    answer.

    The deployment's stage is then what it was; the run can be run again. Ledger and servers are opened once in it, and
    the run is called by its update.
    """

    signature = inspect.signature(body)

    @functools.wraps(body)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> PrefectState[Any]:
        note_process()
        log_errors_in_one_line()
        label_run(str(signature.bind(*args, **kwargs).arguments.get("update_id", "")))
        try:
            with connections():
                try:
                    return body(*args, **kwargs)
                finally:  # also where it suspends
                    tell_moments()
        except AshatError as error:
            update_id = kwargs.get("update_id") or next(iter(args), "")
            return Failed(name=NOT_DONE, message=f"{error}{_what_goes_on(str(update_id))}", data=error)
        except (OSError, sqlite3.Error) as error:
            if (lack := shortage(error)) is None:
                raise
            return Failed(name=NOT_DONE, message=str(lack))

    return wrapped


def _what_goes_on(update_id: str) -> str:
    """Say what the control plane does by itself with an update of which a run was refused; "" where it does nothing."""
    try:
        with connections() as opened:
            state = opened.ledger.find(update_id) if update_id else None
    except AshatError:
        return ""
    line = goes_on(state, now()) if state is not None else ""
    return f"{AND_THEN}{line}" if line else ""


def run_here(flow: Flow[..., PrefectState[Any]], update_id: str, **parameters: Any) -> State:
    """Run a flow in this process, recorded in Prefect; the deployment's state when it has ended.

    Raises:
        AshatError: what the flow raised.
    """
    with connections() as opened:
        ended = flow(update_id=update_id, **parameters, return_state=True)
        found = ended.result(raise_on_failure=False)
        if isinstance(found, BaseException) and not isinstance(found, FailedRun | CancelledRun):
            raise found
        return opened.ledger.load(update_id)


def await_approval(d: Deployment, subject: Subject) -> State:
    """Ask people about `subject` until an answer settles it; the state then. Returns at once where it is settled.

    The run suspends for each asking, and is resumed with its answer from its first line.

    Raises:
        SessionError: nobody may be asked, or nobody answered in time.
    """
    resumed = resumed_pause_keys()
    while True:
        state = d.state
        settled = subject.settled(d, state, resumed)
        if settled is not None:
            return settled
        before, state = state, ask(d, state, subject, resumed_keys=resumed)
        request = state.approvals[subject.name]
        asked_now = state.version != before.version
        key = subject.key(request.ordinal)
        publish_markdown(page_key(d, subject), page_text(d.ledger, request), "What is to be decided")
        text = form_text(d.ledger, request)
        try:
            form = suspend_flow_run(
                wait_for_input=form_that_asks(text, verdict_lines(text), only_reject=bool(request.obstacle)),
                key=key,
                timeout=max(1, int((request.expires - now()).total_seconds())),
            )
        except Pause:  # the form is there, so that people can be told of it
            if asked_now:
                _tell_people(d, request, state.version)
            raise
        except ValidationError as error:
            reporter().say(f"An answer could not be read, so it is asked again: {error.errors()[0]['msg']}")
            resumed -= {key}
            continue
        resumed |= {key}
        try:
            state = judge(d, state, subject, form.answer())
        except ConflictError as error:
            reporter().say(f"This answer was not used: {error}")
            continue
        tell_moments()
        judged = state.approvals[subject.name]
        if judged.decision:
            reporter().say(decision_line(state, subject.name, form.comment))
        else:
            signed = ", ".join(signature.name for signature in judged.signatures)
            why = f"The answer does not count: {judged.reason}"
            reporter().say(why if judged.reason else f"Signed by {signed}; others must sign too.")


def sleep_while_closed(d: Deployment) -> NoReturn:
    """Let this run sleep until the server opens that the update waits for; where that is not in sight, for a day.
    `reconcile` wakes it where that server opens earlier."""
    window, at = d.state.window, now()
    opens = at if window is None else window.opens or at + _LONGEST_SLEEP
    sleep_until(max(opens, at), f"{d.update_id} {d.state.window_line}")


def _tell_people(d: Deployment, request: ApprovalRequest, version: int) -> None:
    """Tell people that they are asked by the event of that version, with the head of what the form shows; not again
    where they were told before."""
    if not asks_first(d.ledger.events(d.update_id, d.attempt)[:version]):
        return
    what = headline(form_text(d.ledger, request))
    if request.subject == "release":
        notify(f"{d.update_id} awaits approval", what)
    else:
        notify(f"{d.update_id}: may it be rolled back?", f"People are asked because {request.why}\n{what}")


def resumed_pause_keys() -> frozenset[str]:
    """List the keys of the askings that this run suspended for and was resumed from; a Retry forgets them.

    `empirical_policy.resuming` cannot be asked: the engine reads the run anew once it is Running, which clears it.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return frozenset((run.empirical_policy.pause_keys if run and run.empirical_policy else None) or ())
