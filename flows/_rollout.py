"""Ask a person in a flow run whether a rollout that stopped goes on: the run suspends, and no process waits."""

from __future__ import annotations

from typing import Literal

from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from ashat.client.node import none_if_not_found
from ashat.protocol.fleet import RolloutState
from flows._runs import resumed_pause_keys
from tasks.promote.distribute import record_answer, record_stop
from tasks.promote.rollout_page import write_page
from tasks.runtime.deployment import Deployment
from tasks.runtime.notify import notify
from tasks.runtime.reporting import reporter

ANSWER_SECONDS = 30 * 86400


class RolloutForm(RunInput):
    """Ask for what a person decides of a rollout that stopped."""

    decision: Literal["resume", "abort", "roll-back"] = Field(
        title="Decision",
        description="resume: it goes on, and those that failed are accepted as they are. abort: nobody else gets it. "
        "roll-back: it is taken back everywhere.",
    )
    approver: str = Field(default="", title="Who you are", description="Recorded as you type it.", max_length=200)
    comment: str = Field(default="", title="Comment", description="Why.", max_length=500)


def ask_whether_it_goes_on(d: Deployment, why: str) -> None:
    """Suspend until a person says whether the rollout goes on, and record that. An answer is judged once: what the
    record has already is not asked again.

    A Retry in the UI forgets the answers that a run was resumed with, so it asks under a new key.
    """
    found = d.state.rollout
    if found is None:
        return
    mine = _key(found.ordinal) in resumed_pause_keys()
    seen = d.target.rollout(found.id)
    state = record_stop(d, seen, why, again=not mine)
    if state.rolling_back or state.rollout is None or not state.rollout.waits:
        return
    if not mine:
        notify(f"{d.update_id}: its rollout has stopped", why)
    form = suspend_flow_run(
        wait_for_input=RolloutForm.with_initial_data(description=_page(d, seen)),
        key=_key(state.rollout.ordinal),
        timeout=ANSWER_SECONDS,
    )
    record_answer(d, form.decision, form.approver, form.comment)
    reporter().say(f"{d.update_id}: {form.approver or 'somebody'} said {form.decision} of its rollout")


def _key(ordinal: int) -> str:
    return f"rollout-{ordinal}"


def _page(d: Deployment, seen: RolloutState) -> str:
    compared = none_if_not_found(lambda: d.target.rollout_troubles(seen.id))
    return write_page(seen, d.target.rollout_failures(seen.id), compared)
