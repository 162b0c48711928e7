"""Say what `deploy push`, `verify`, `approve`, `cancel` and `rollback` would do: by the record and the servers, which
are read and not changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import would
from ashat.common.identifiers import name_of_release
from ashat.errors import SessionError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.cli.terminal.prompts import Decided
    from ashat.deployment.state import ApprovalRequest, PreviousRelease
    from ashat.deployment.state_machine import State
    from tasks.push.package import Origin, PushRequest
    from tasks.push.route import Route
    from tasks.rollback.rollback import RollbackPlan
    from tasks.runtime.deployment import Deployment

_OVER = "Whether a check would pass was not looked at."


def plan_push(request: PushRequest, origin: Origin, route: Route) -> None:
    """Pack the tree, ask Public what it lacks of it, and say what would be sent and switched.

    Raises:
        BundleError: the tree cannot be pushed.
        NodeError: Public does not answer.
    """
    from ashat.client.transfer import missing
    from tasks.push.package import pack, refuse_barriers_in_a_circle
    from tasks.runtime.connections import this_run

    opened = this_run()
    public = opened.client(request.public)
    made = pack(origin)
    with made.packed:
        refuse_barriers_in_a_circle(opened.ledger, made.raos)
        manifest = made.packed.manifest
        public.check_role()
        objects = manifest.objects
        lacking = missing(public.transport, objects)
        current, closed = public.state().current, opened.server(request.public).calendar().closed(output.now())
    runs = name_of_release(current.bundle, current.update_id) if current else "nothing"
    commit = made.source.commit[:12] if made.source.commit else "no commit"
    dirty = ", with uncommitted changes" if made.source.dirty else ""
    waits = f"It would wait: {closed.words}" if closed and not request.override_freeze else ""
    would(
        f"push '{request.update_id}': {name_of_release(manifest.digest)}, version {made.raos.raos.version}",
        f"Packed: {len(manifest.files)} files, {output.size(manifest.size)}, from {commit}{dirty}",
        f"To: {route.words}",
        f"Sent: {len(lacking)} of {len(objects)} objects, {output.size(sum(objects[each] for each in lacking))}",
        f"Switched: {public.name} runs {runs} now",
        route.lacking,
        waits,
    )


def plan_verify(update_id: str, policy: str, *, fresh: bool) -> None:
    """Say which checks would be run on Public by which policy, and which answers would be kept."""
    ready(dry_run=True)

    from ashat.deployment.restore import restore_target
    from blocks.policy import load_policy
    from tasks.runtime.connections import connections
    from tasks.runtime.deployment import deployment
    from tasks.verify.policies import check_policy
    from tasks.verify.verification import answers_to_keep, context_of

    with connections():
        d = deployment(update_id)
        state = d.state
        block = load_policy(policy or state.policy)
        check_policy(block.policy())
        before = restore_target(state, d.ledger.find)
        context = context_of(d, state, before, block)
        planned = answers_to_keep(d, state, context, fresh=fresh, began=output.now())
        current = d.public.state().current
    skipped = [check.title for check in planned.checks if check.name in block.policy().skips]
    kept = [check.title for check in planned.checks if check.name in planned.kept]
    asked = [check.title for check in planned.checks if check.title not in (*skipped, *kept)]
    there = current is not None and current.bundle == state.bundle
    runs = name_of_release(current.bundle, current.update_id) if current else "nothing"
    would(
        f"verify '{update_id}' on {state.the_public} by the policy {block.policy().digest[:12]}",
        "" if there else f"Switch: {state.the_public} runs {runs} now",
        f"Rehearse the way back: to {name_of_release(before.bundle, before.update_id)}, and forward again",
        f"Run: {', '.join(asked) or 'no check'}",
        f"Keep the answers of: {', '.join(kept)}" if kept else "",
        f"Skip, as the policy says: {', '.join(skipped)}" if skipped else "",
        _OVER,
    )


def plan_cancel(state: State, newest: State) -> None:
    """Say what calling the update off would do; `newest` is its state then."""
    from ashat.deployment.restore import restore_target

    if state.rolling_back:
        would(f"call the rollback of '{state.update_id}' off", "No server would be changed.")
        return
    with open_ledger() as ledger:
        before = restore_target(state, ledger.find)
    back = name_of_release(before.bundle, before.update_id)
    owes = f"{state.the_public} would run again {back}, unless another update runs there by then"
    kept = "No server would be changed."
    would(f"cancel '{state.update_id}', which is {state.stage.value}", owes if newest.owes_public else kept)


def plan_rollback(update_id: str, reason: str) -> None:
    """Look at the servers, and say what each would run again.

    Raises:
        SessionError: nothing can be rolled back.
        NodeError: a server does not answer.
    """
    ready(dry_run=True)

    from ashat.deployment.restore import restore_target
    from tasks.rollback.rollback import look_back
    from tasks.rollback.signed_rollback import rollback_to_sign
    from tasks.runtime.connections import connections
    from tasks.runtime.deployment import deployment

    with connections():
        d = deployment(update_id)
        state, plan = d.state, look_back(d)
        before = restore_target(state, d.ledger.find)
        asks = "omega" in plan.servers and not state.rolling_back and rollback_to_sign(d, reason)
        steps = list(_put_back(d, state, plan, before))
    would(f"roll back '{update_id}'", f"First people would be asked: {asks.why}" if asks else "", *steps)


def _put_back(d: Deployment, state: State, plan: RollbackPlan, before: PreviousRelease) -> Iterator[str]:
    for place in plan.servers:
        if place in state.rolled_back:
            continue
        if place == "omega":
            previous = d.target.state().previous
            named = previous.update_id if previous and previous.bundle == state.omega_before else ""
            yield f"{state.the_target} would run again {name_of_release(state.omega_before, named)}"
        elif place == "mainframes":
            yield f"It would be offered to the {_mainframes(d)}"
        else:
            yield f"{state.the_public} would run again {name_of_release(before.bundle, before.update_id)}"
    for place, why in plan.kept.items():
        yield f"{place} would be left alone: {why}"


def plan_answer(state: State, request: ApprovalRequest | None, decided: Decided) -> None:
    """Show what is asked, say whether the answer that the command's words give would count, and what would come of it.

    Raises:
        SessionError: nobody is asked yet, or the answer would not count.
    """
    ready(dry_run=True)
    if request is None or request.shown is None:
        raise SessionError(
            f"The gate of '{state.update_id}' is not open: deploy approve {state.update_id} has it opened, which a dry "
            "run does not."
        )

    from ashat.cli.terminal.prompts import show_page
    from tasks.approval.request import form_text
    from tasks.runtime.connections import connections
    from tasks.runtime.deployment import deployment

    with connections():
        d = deployment(state.update_id, state.attempt)
        show_page(form_text(d.ledger, request))
        _refuse_answer(d, state, request, decided)
        about = f"'{state.update_id}'" if request.subject == "release" else f"the rollback of '{state.update_id}'"
        if decided.reject:
            would(f"reject {about}", *_after_a_rejection(state, request))
            return
        if request.subject == "rollback":
            would(f"approve {about}", f"{state.the_target} and its Mainframes would go back")
            return
        typed = "" if decided.evidence else "The end of the evidence, which approves, was not typed: --evidence TAIL"
        would(f"approve {about}", *_shipped(d, state, decided), typed)


def _refuse_answer(d: Deployment, state: State, request: ApprovalRequest, decided: Decided) -> None:
    """Refuse what would not count, as the gate would.

    Raises:
        SessionError: why.
    """
    from ashat.deployment.approval_rules import TAIL, Answer, refusal
    from tasks.approval.release import Release
    from tasks.approval.request import context_of_answer
    from tasks.rollback.approval import Rollback

    typed = decided.evidence or request.evidence[-TAIL:]
    answer = Answer(
        "reject" if decided.reject else "approve",
        typed,
        decided.by,
        decided.comment or decided.reason,
        not_before=decided.not_before,
        override_freeze=decided.override_freeze,
    )
    subject = Release() if request.subject == "release" else Rollback(state, request.why, request.reason)
    world, _ = context_of_answer(d, state, subject, answer)
    if why := refusal(state, request.subject, answer, world):
        raise SessionError(f"That answer would not count: {why}. Nothing was changed.")


def _after_a_rejection(state: State, request: ApprovalRequest) -> list[str]:
    if request.subject == "rollback":
        return [f"{state.the_target} would keep running it"]
    with open_ledger() as ledger:
        from ashat.deployment.restore import restore_target

        before = restore_target(state, ledger.find)
    return [f"{state.the_public} would run again {name_of_release(before.bundle, before.update_id)}"]


def _shipped(d: Deployment, state: State, decided: Decided) -> Iterator[str]:
    """Say when it would go to the target, and in which waves to how many Mainframes."""
    from ashat.rollouts.describe import planned_waves
    from tasks.approval.page import mainframes_served
    from tasks.approval.rollout_policy import policy_here
    from tasks.servers.windows import closed_now

    closed = closed_now(d, "omega")
    if decided.not_before:
        yield f"It would wait until {decided.not_before}"
    elif closed is not None and not decided.override_freeze:
        yield f"It would wait: {closed.words}"
    yield f"{state.the_target} would receive {name_of_release(state.bundle)} and run it"
    held, fleet = policy_here(), len(mainframes_served(d))
    yield f"It would be offered to the {_mainframes(d)}"
    if held.policy is not None and held.policy.stops:
        for number, wave in enumerate(planned_waves(held.policy, fleet), 1):
            size = "by label" if wave.mainframes is None else f"about {wave.mainframes}"
            yield f"  wave {number}, {wave.name}: {wave.takes} ({size})"


def _mainframes(d: Deployment) -> str:
    from tasks.approval.page import mainframes_served

    count = len(mainframes_served(d))
    return f"{count} Mainframe{'' if count == 1 else 's'} of {d.the_target}"
