"""Implement `deploy approve`: show a person what is asked, take their answer, and tell what comes of it."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.commands.aftermath import told_what_goes_on
from ashat.cli.commands.cancel_rollback import say_rolled_back, tell_rollback
from ashat.cli.commands.dry_runs import plan_answer
from ashat.cli.commands.given_public import PublicCa, PublicToken, PublicUrl, given_public
from ashat.cli.commands.inspect import evidence_of
from ashat.cli.commands.recheck import recheck as check_again
from ashat.cli.commands.sign import OwnPolicy, Recheck, inspected, signature_line
from ashat.cli.commands.wait import NOT_EVERYWHERE
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import MAINFRAME_MARKS
from ashat.cli.terminal.prompts import Decided, ask_answer, show_page
from ashat.cli.trust.setup import PassphraseFile
from ashat.common.identifiers import name_of_release
from ashat.common.numbers import in_utc
from ashat.deployment.stages import Stage
from ashat.errors import ConflictError, NotConfiguredError, SessionError, UsageError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.approval_rules import Answer
    from ashat.deployment.events import AnyEvent, Subject
    from ashat.deployment.state import ApprovalRequest
    from ashat.deployment.state_machine import State

_OPENING_SECONDS = 60.0
_OF_THE_DAY = re.compile(r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]")
_REASON = 1000
At = Annotated[
    str, typer.Option("--at", metavar="TIME", help="Let it go then, not at once: 02:00, or 2026-12-01T02:00Z.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Give the answer, and do not watch what comes of it.")]
OverrideFreeze = Annotated[
    str,
    typer.Option(
        "--override-freeze",
        metavar="REASON",
        help="Let it go although a freeze or a closed window holds it.",
        show_default=False,
    ),
]


def approve(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that awaits approval.")],
    evidence: Annotated[str, typer.Option(metavar="TAIL", help="The last 8 characters of the evidence you read.")] = "",
    reject: Annotated[bool, typer.Option("--reject", help="Keep it out of production.")] = False,
    reason: Annotated[str, typer.Option(help="Why it is rejected.")] = "",
    comment: Annotated[str, typer.Option(help="Why; needed where a check is a warning.")] = "",
    by: Annotated[str, typer.Option(help="Who you are; recorded as you type it.", show_default="user@host")] = "",
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE.pem", help="Your private key, where people sign.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    at: At = "",
    override_freeze: OverrideFreeze = "",
    recheck: Recheck = False,
    policy: OwnPolicy = None,
    public: PublicUrl = "",
    public_token_stdin: PublicToken = False,
    public_ca: PublicCa = None,
    no_wait: NoWait = False,
    dry_run: DryRun = False,
) -> None:
    """Read the evidence, decide, and watch what was approved go to OMEGA and the Licensed Mainframes."""
    from ashat.deployment.approval_rules import needs_comment

    decided = Decided(evidence, reject, reason, comment, by, _not_before(at), given_reason(override_freeze))
    _refuse_words(decided, recheck=recheck, policy=policy, key=key, public=public, dry_run=dry_run)
    known = given_public(public, public_ca, token_stdin=public_token_stdin)
    given: list[Answer] = []
    with told_what_goes_on(update_id, lambda newest: _if_interrupted(newest, given)):
        with open_ledger() as ledger:
            state = ledger.load(update_id)
        if _needs_no_answer(state, decided, dry_run=dry_run):
            return
        request = state.awaited(output.now())
        if recheck and request is not None and request.subject != "release":
            raise UsageError(f"--recheck looks before a release is approved; this is about a {request.subject}.")
        state, request = _shown(state, request.subject if request else "release", reject=reject)
        seen = inspected(state, known) if key is not None and not reject else None
        rechecked = check_again(state, policy, known) if recheck else ""
        answer = ask_answer(decided, request.evidence, unclean=needs_comment(state, request.subject))
        if answer is None:
            output.say(f"Nothing was decided: {_about(request, update_id)} keeps waiting.")
            return
        if answer.decision == "approve":
            line = signature_line(seen, key, passphrase_file) if key is not None and seen is not None else ""
            answer = replace(answer, signature=line, comment=f"{answer.comment} {rechecked}".strip())
        _give(state, request, answer, given, watches=not no_wait)


def _needs_no_answer(state: State, decided: Decided, *, dry_run: bool) -> bool:
    """Do what asks nobody: a dry run, or letting go what waits for a window; say whether it was that."""
    if dry_run:
        _plan(state, decided)
    elif decided.override_freeze and state.stage is Stage.AWAITING_WINDOW:
        let_go(state, decided.override_freeze, decided.by)
    else:
        return False
    return True


def _plan(state: State, decided: Decided) -> None:
    """Say what the answer would do.

    Raises:
        SessionError: nobody is asked, or it would not count.
    """
    if decided.override_freeze and state.stage is Stage.AWAITING_WINDOW and state.window is not None:
        would(f"let '{state.update_id}' go to {state.the_target} now, although {state.window.why}")
        return
    request = state.awaited(output.now())
    refuse_decision(state, request.subject if request else "release", output.now())
    plan_answer(state, request, decided)


def _if_interrupted(state: State | None, given: list[Answer]) -> str:
    """Advise whoever interrupts, before or after their answer is `given`."""
    from ashat.deployment.aftermath import goes_on

    if state is None:
        return "You decided nothing."
    name = state.update_id
    if not given:
        waits = f": '{name}' keeps waiting (deploy approve {name})" if state.awaited(output.now()) else ""
        return f"You decided nothing{waits}."
    how = goes_on(state, output.now()) or f"deploy status {name} shows what comes of it."
    return f"Your answer was handed over, and is judged without you. {how}"


def _shown(state: State, subject: Subject, *, reject: bool) -> tuple[State, ApprovalRequest]:
    """Show the person what they are asked about `subject`, once its question is put: the state then, and the request.

    Raises:
        SessionError: nobody is asked.
        NotConfiguredError: it could not be done here; a rejection can.
    """
    refuse_decision(state, subject, output.now())
    plane = ready()

    from ashat.cli.control_plane.runs import warn_if_nobody_works
    from blocks.listing import is_configured
    from tasks.approval.request import form_text

    warn_if_nobody_works("control")
    if not reject and not is_configured(state.target):
        raise NotConfiguredError(_without_target(state, subject))
    state, request = _asked(state, subject)
    if request.obstacle and not reject:
        state, request = _asked_anew(state, request)
    with open_ledger() as ledger:
        show_page(form_text(ledger, request))
    output.say(f"In a browser: {plane.run_url(request.run)}")
    if not reject and subject == "release":
        evidence_of(state)
    return state, request


def _give(state: State, request: ApprovalRequest, answer: Answer, given: list[Answer], *, watches: bool) -> None:
    """Hand the answer over, unless the question was put anew meanwhile; if it `watches`, tell what comes of it."""
    from tasks.approval import gate

    with open_ledger() as ledger:
        newest = ledger.load(state.update_id, state.attempt)
    refuse_decision(newest, request.subject, output.now())
    if newest.approvals[request.subject].ordinal != request.ordinal:
        raise SessionError(
            f"'{state.update_id}' was asked again meanwhile. Read it anew: deploy approve {state.update_id}."
        )
    given.append(answer)
    gate.answer(request, answer, state.update_id)
    if not watches:
        output.say(f"Your answer is given. Whether it counts, and what comes of it: deploy wait {state.update_id}")
        return
    watch(state, request)


def _not_before(text: str) -> str:
    """Read when it is to go: a time of the day, today or tomorrow, or a date with a time; as RFC 3339, in UTC.

    Raises:
        UsageError: it is no time, or one that has passed.
    """
    if not text:
        return ""
    at = output.now()
    try:
        if _OF_THE_DAY.fullmatch(text):
            hour, minute = map(int, text.split(":"))
            moment = at.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (moment if moment > at else moment + timedelta(days=1)).isoformat()
        given = datetime.fromisoformat(text)
        moment = in_utc(given if given.tzinfo else given.replace(tzinfo=UTC))
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no time: --at 02:00, or --at 2026-12-01T02:00Z (UTC).") from None
    if moment <= at:
        raise UsageError(f"{text[:40]!r} has passed (it is {at:%Y-%m-%d %H:%M} UTC): leave --at away to let it go now.")
    return moment.isoformat()


def given_reason(text: str) -> str:
    """Read why a freeze is overridden; "" where it is not.

    Raises:
        UsageError: the reason is blank, or too long.
    """
    if text and not text.strip():
        raise UsageError("--override-freeze needs a reason: it is recorded, and stands in the receipt.")
    if len(text) > _REASON:
        raise UsageError(f"The reason has {len(text)} characters; {_REASON} are the most that are kept.")
    return text.strip()


def let_go(state: State, why: str, by: str) -> None:
    """Let what waits for a server that is closed go at once, and record why."""
    from ashat.deployment.events import FreezeOverridden

    ready()

    from tasks.runtime.run import whoami
    from tasks.runtime.sleep import wake

    assert state.window is not None
    event = FreezeOverridden(
        at=output.now(), by=by or whoami(), server=state.window.server, reason=why, closed=state.window.why
    )
    with open_ledger() as ledger:
        state = ledger.append(state, event)
    if state.gate is not None:
        wake(state.gate.run)
    output.say(f"🕑 '{state.update_id}' goes to {state.the_target} now, although {event.closed}: {why}")
    output.say(f"What comes of it: deploy wait {state.update_id}")


def _refuse_words(
    decided: Decided, *, recheck: bool, policy: Path | None, key: Path | None, public: str, dry_run: bool
) -> None:
    if public and (decided.reject or not (recheck or key)):
        raise UsageError("--public says where --recheck and --key look: give one of them.")
    if dry_run and (recheck or key):
        raise UsageError("A dry run signs nothing and looks at nothing anew: leave --key and --recheck away.")
    if decided.reject and (decided.not_before or decided.override_freeze):
        raise UsageError("--at and --override-freeze say when an approved release goes; a rejection ships nothing.")
    if decided.not_before and decided.override_freeze:
        raise UsageError("--at lets it wait, and --override-freeze lets it go at once: give one of them.")
    if decided.reason and not decided.reject:
        raise UsageError("--reason goes with --reject; say why you approve with --comment.")
    if decided.reject and recheck:
        raise UsageError("--recheck looks before an approval; a rejection needs none.")
    if policy is not None and not recheck:
        raise UsageError("--policy says what --recheck asks: give both.")


def refuse_decision(state: State, subject: Subject, at: datetime) -> None:
    """Refuse to decide on what does not await a decision.

    Raises:
        SessionError: the message says in which stage it is, and what to do about it.
    """
    request, name = state.undecided(subject), f"Deployment '{state.update_id}'"
    if subject != "release":
        if request is None or not request.waits(at):
            raise SessionError(f"That {subject} is decided by now: deploy status {state.update_id} shows how.")
        return
    stage = state.stage_at(at)
    if state.rolling_back:
        raise SessionError(f"{name} is being rolled back: deploy status {state.update_id} shows how far it is.")
    by = f" by {', '.join(state.deciders)}" if state.deciders else ""
    again = f"Push it again, as its next attempt: deploy push {state.update_id} <description>."
    words = {
        Stage.PLANNING: f"is still being pushed: finish that first (deploy push {state.update_id} … --resume).",
        Stage.PUSHED: f"is not verified yet: deploy verify {state.update_id}.",
        Stage.TESTING: f"is being verified: wait for that to end, or run it again (deploy verify {state.update_id}).",
        Stage.AWAITING_WINDOW: f"was approved{by} already, and {state.window_line}. To let it go now: deploy approve "
        f'{state.update_id} --override-freeze "REASON"; to call it off: deploy cancel {state.update_id}.',
        Stage.DEPLOYING: f"was approved{by} already, and is on its way: deploy status {state.update_id}.",
        Stage.DISTRIBUTING: f"was approved{by} already, and is on its way: deploy status {state.update_id}.",
        Stage.COMPLETED: f"was approved{by} already, and is completed.",
        Stage.FAILED: f"has failed ({state.reason}). " + ("Push a new id." if state.reached_omega else again),
        Stage.REJECTED: f"was rejected{by} ({state.reason}). {again}",
        Stage.EXPIRED: f"has expired: nobody answered in time. {again}",
        Stage.CANCELLED: f"was cancelled. {again}",
        Stage.ROLLED_BACK: "was rolled back: push a new id.",
    }
    if stage in (Stage.DEPLOYING, Stage.DISTRIBUTING) and state.stuck:
        raise SessionError(f"{name} was approved{by}, and does not get on: {state.stuck}")
    if stage in words:
        raise SessionError(f"{name} {words[stage]}")


def _without_target(state: State, subject: Subject) -> str:
    request = state.undecided(subject)
    kind = state.target if state.target == "omega" else f"omega <url> <name> --as {state.target}"
    until = f" until {request.expires:%Y-%m-%d %H:%M} UTC" if request else ""
    how = f"deploy configure {kind}" if " " in kind else f"deploy configure {kind} <url> <name>"
    return f"{state.target} is not configured: {how}. '{state.update_id}' keeps waiting{until}."


def _asked(state: State, subject: Subject) -> tuple[State, ApprovalRequest]:
    """Wait until the run has put the question (again), which takes a few seconds; the state, and the request.

    Raises:
        SessionError: it did not.
    """
    noted, run = False, _run_again(state, subject)
    deadline = time.monotonic() + _OPENING_SECONDS
    while (request := state.undecided(subject)) is None or not _is_put(request, state):
        if why := _why_not(run):
            raise SessionError(f"The gate of '{state.update_id}' does not open: {why}")
        if time.monotonic() > deadline:
            raise SessionError(
                f"Nobody puts the question about '{state.update_id}': try again when a worker is there, or see its run "
                "in Prefect's UI."
            )
        if not noted:
            output.note("The gate is being opened …")
            noted = True
        time.sleep(0.3)
        with open_ledger() as ledger:
            state = ledger.load(state.update_id, state.attempt)
        refuse_decision(state, subject, output.now())
    return state, request


def _asked_anew(state: State, request: ApprovalRequest) -> tuple[State, ApprovalRequest]:
    """Have a question put again that nobody could approve when it was put; the state then, and the request.

    Raises:
        SessionError: nobody can by now.
    """
    from tasks.approval.gate import put_anew, waits_for_answer
    from tasks.approval.request import withdraw

    output.note(f"It could not be approved when it was asked: {request.obstacle}. It is asked again now …")
    with open_ledger() as ledger:
        if waits_for_answer(request.run):
            with suppress(ConflictError):  # somebody else was quicker: an answer, or reconcile
                withdraw(ledger, state, request, "somebody wants to approve it")
        put_anew(request.run)
        state = ledger.load(state.update_id, state.attempt)
    state, request = _asked(state, request.subject)
    if request.obstacle:
        raise SessionError(
            f"'{state.update_id}' cannot be approved yet: {request.obstacle.rstrip('.')}. Once that is over, people "
            "are asked anew within a minute; until then it can only be rejected (--reject)."
        )
    return state, request


def _run_again(state: State, subject: Subject) -> str:
    """Start the run that opens the gate of a release at once, where those before died of something; its id, or "" where
    none did."""
    from tasks.approval.gate import follow_dead_run

    if subject != "release" or not state.deaths:
        return state.gate.run if state.gate else ""
    output.note(f"The gate did not open: {state.stuck}. It is tried again now.")
    return follow_dead_run(state, state.deaths[-1].run)


def _is_put(request: ApprovalRequest, state: State) -> bool:
    """Say whether the question is put, and not by a run that is known to have died."""
    dead = {death.run for death in state.deaths}
    return request.shown is not None and not request.answered and request.run not in dead


def _why_not(run: str) -> str:
    """Say of what the run died that had to open the gate; "" where it lives, or is not known."""
    from tasks.approval.gate import how_it_ended, is_alive

    return "" if not run or is_alive(run) else how_it_ended(run)[0]


def watch(state: State, request: ApprovalRequest) -> None:
    """Tell what comes of the answer to the request, until it is settled.

    Raises:
        SessionError: it ended as something else than completed, rolled back or rejected.
    """
    from ashat.cli.control_plane.follow import follow

    about = _about(request, state.update_id)

    def awaits_others(newest: State) -> bool:
        found = newest.undecided(request.subject)
        return found is not None and (found.answered or found.ordinal > request.ordinal)

    state = follow(
        state, request.run, show=_tell, done=lambda newest: _settled(newest, request) or awaits_others(newest)
    )
    if state.stage is Stage.AWAITING_WINDOW:
        output.say(f"🕑 '{state.update_id}' {state.window_line}.")
        output.say(f"Its evidence is looked at again by then. What comes of it: deploy wait {state.update_id}")
    elif awaits_others(state):
        output.say(f"Others must sign too: {about} keeps waiting for them.")
    elif request.subject == "rollback" and state.approvals["rollback"].decision == "reject":
        output.say(f"🛑 The rollback of '{state.update_id}' is rejected: {state.the_target} keeps running it.")
    elif request.subject == "rollback":
        say_rolled_back(state)
    elif state.stage is Stage.REJECTED:
        output.say(f"🛑 Deployment '{state.update_id}' rejected.")
    elif state.stage is Stage.COMPLETED:
        say_completed(state)
    else:
        for line in state.output:
            output.say(f"  │ {line}")
        why = f": {state.reason}" if state.reason else " by now."
        raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}{why}")


def say_completed(state: State) -> None:
    """Say that the deployment is completed, and on how many Mainframes.

    Raises:
        typer.Exit: not every active Mainframe runs it; the exit code says so, too.
    """
    if state.reach.whole:
        output.say(f"✅ Deployment completed successfully! {output.sentence(state.reach.words)}")
        return
    mark = "❌" if state.reach.nobody else "⚠️"
    output.say(f"{mark} {state.the_target} runs '{state.update_id}', and {state.reach.words}.")
    output.say(f"  OMEGA goes on offering it to the others; deploy status {state.update_id} shows who took it since.")
    raise typer.Exit(NOT_EVERYWHERE)


def _about(request: ApprovalRequest, update_id: str) -> str:
    return f"'{update_id}'" if request.subject == "release" else f"the {request.subject} of '{update_id}'"


def _settled(state: State, request: ApprovalRequest) -> bool:
    """Say whether nothing more comes of the answers to the request."""
    if request.subject == "rollback":
        return state.stage is Stage.ROLLED_BACK or state.approvals["rollback"].decision == "reject"
    return (state.ended and not state.owes_public) or state.stage is Stage.AWAITING_WINDOW


def _tell(event: AnyEvent, state: State) -> None:
    """Say what an event means to the person who decided.

    Raises:
        SessionError: their answer does not count, or came too late.
    """
    if event.kind == "answered" and not event.accepted:
        raise SessionError(
            f"Your answer does not count: {event.reason}. It is asked again: deploy approve {state.update_id}."
        )
    if event.kind == "withdrawn":
        raise SessionError(
            f"Your answer was not used: {event.reason}. It is asked again: deploy approve {state.update_id}."
        )
    if event.kind == "decision_void":
        raise SessionError(
            f"The approval came too late: {event.reason}. It is asked again: deploy approve {state.update_id}."
        )
    tell_rollback(event, state)
    for line in _lines(event, state):
        output.say(line)


def _lines(event: AnyEvent, state: State) -> list[str]:
    if event.kind == "answered" and event.decision == "approve" and event.release_seq is None:
        return [f"✍️ Signed by {event.approver}."]
    if event.kind == "answered" and event.decision == "approve":
        return [
            "🎉 ASHAT Deployment to OMEGA Approved!",
            f"Update ID: {state.update_id}",
            f"Approved by: {', '.join(state.deciders) or 'somebody who gave no name'}",
        ]
    if event.kind == "freeze_overridden":
        return [f"  ⚠️ {state.the_target} is closed, and it goes all the same: {event.reason}"]
    if event.kind == "promoting":
        return [f"  🔄 {state.the_target} receives bundle {(state.bundle or '')[:12]} and switches to it"]
    if event.kind == "promoted":
        runs = f"  ✅ {state.the_target} runs it (release {event.release_seq})"
        return [runs, "📤 Distributing to Licensed Mainframes"]
    if event.kind == "wave_opened" and state.rollout and len(state.rollout.waves) > 1:
        (name, size), waves = state.rollout.waves[event.through], len(state.rollout.waves)
        return [f"  🌊 Wave {event.through + 1} of {waves}, {name} ({size} Mainframes), is open"]
    if event.kind == "rollout_stopped":
        again = f"deploy rollout resume {state.update_id}, or abort"
        return [f"  ⏸️ Its rollout has stopped: {event.why}", f"  A person says whether it goes on: {again}"]
    if event.kind == "distributed":
        return [
            f"  {MAINFRAME_MARKS[m.result]} {m.name}: {m.result}" + (f" ({m.reason})" if m.reason else "")
            for m in event.mainframes
        ] or ["  No Mainframe is licensed."]
    if event.kind == "public_restored":
        again = f"runs again {name_of_release(event.to_bundle, event.to_update)}"
        return [f"  {state.the_public} {f'was left alone: {event.kept}' if event.kept else again}"]
    return []
