"""`deploy approve` of a rollback that waits for people: the way back which they sign, and what comes of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ashat.cli.commands.cancel_rollback import tell_rollback
from ashat.cli.commands.sign import inspected, signature_line
from ashat.cli.terminal import output
from ashat.cli.terminal.interrupts import when_interrupted
from ashat.cli.terminal.ledger import open_ledger
from ashat.cli.terminal.prompts import Decided, ask_answer, show_page
from ashat.deployment.stages import Stage
from ashat.errors import SessionError, UsageError

if TYPE_CHECKING:
    from ashat.cli.commands.given_public import GivenPublic
    from ashat.deployment.events import AnyEvent
    from ashat.deployment.state_machine import State

_ASKING_SECONDS = 60.0


def decide_rollback(
    state: State,
    decided: Decided,
    key: Path | None,
    passphrase_file: Path | None,
    *,
    recheck: bool,
    public: GivenPublic | None = None,
) -> None:
    """Show what would run again, take the answer and the signature, and watch the rollback that others may have to
    sign as well.

    Raises:
        UsageError: the checks are to be made again, which are about a release.
        SessionError: the answer does not count, or the rollback was not done.
    """
    from ashat.cli.control_plane.connect import ensure_control_plane
    from ashat.settings import Settings

    if recheck:
        raise UsageError("--recheck looks before a release is approved; this is about a rollback.")
    plane = ensure_control_plane(Settings(), output.note)

    from ashat.cli.control_plane.runs import warn_if_nobody_works
    from tasks.rollback.approval import answer_rollback, rollback_text

    warn_if_nobody_works("control")
    state = _asked(state)
    gate = state.rollback_gate
    assert gate is not None
    show_page(rollback_text(state))
    output.say(f"In a browser: {plane.run_url(gate.run)}")
    seen = inspected(state, public) if key is not None and not decided.reject else None
    answer = ask_answer(decided, gate.evidence, unclean=False)
    if answer is None:
        output.say(f"Nothing was decided: the rollback of '{state.update_id}' keeps waiting.")
        return
    if answer.decision == "approve" and key is not None and seen is not None:
        answer = replace(answer, signature=signature_line(seen, key, passphrase_file))
    answer_rollback(state, answer)
    with when_interrupted(f"Your answer is given, and it goes on without you: deploy status {state.update_id}."):
        _watch(state, gate.run, gate.ordinal)


def _asked(state: State) -> State:
    """The state once the question is put (again)."""
    deadline = time.monotonic() + _ASKING_SECONDS
    while state.rollback_gate is not None and state.rollback_gate.answered:
        if not state.rollback_waits(output.now()):
            raise SessionError(f"That rollback is decided by now: deploy status {state.update_id} shows how.")
        if time.monotonic() > deadline:
            raise SessionError(
                f"The run that asks about the rollback of '{state.update_id}' does not ask: see it in Prefect's UI, or "
                f"start it again (deploy rollback {state.update_id})."
            )
        time.sleep(0.3)
        with open_ledger() as ledger:
            state = ledger.load(state.update_id, state.attempt)
    return state


def _watch(state: State, run: str, asked: int) -> None:
    from ashat.cli.control_plane.follow import follow

    def settled(newest: State) -> bool:
        gate = newest.rollback_gate
        if gate is None or newest.rolling_back or gate.decision == "approve":
            return newest.stage is Stage.ROLLED_BACK
        return bool(gate.decision) or gate.answered or gate.ordinal > asked

    state = follow(state, run, show=_tell, done=settled)
    if state.stage is Stage.ROLLED_BACK:
        output.say(f"⏪ Deployment '{state.update_id}' rolled back successfully.")
    elif state.rollback_gate is not None and state.rollback_gate.decision == "reject":
        output.say(f"🛑 The rollback of '{state.update_id}' is rejected: {state.target} keeps running it.")
    else:
        output.say(f"Others must sign too: the rollback of '{state.update_id}' keeps waiting for them.")


def _tell(event: AnyEvent, state: State) -> None:
    """Say what an event means to the person who decided.

    Raises:
        SessionError: their answer does not count.
    """
    if event.kind == "rollback_answered" and not event.accepted:
        raise SessionError(
            f"Your answer does not count: {event.reason}. It is asked again: deploy approve {state.update_id}."
        )
    if event.kind == "rollback_answered" and event.decision == "approve":
        output.say(f"✍️ Signed by {event.approver}.")
    tell_rollback(event, state)
