"""Ask about a release: may the update go to the target?"""

from __future__ import annotations

from typing import ClassVar

from ashat.bundle.manifest import diff
from ashat.deployment.approval_rules import needs_comment, stale_reason
from ashat.deployment.events import Expired
from ashat.deployment.events import Subject as SubjectName
from ashat.deployment.state_machine import BEFORE_APPROVAL, Stage, State
from ashat.errors import SessionError
from ashat.protocol.messages import NodeState
from ashat.raos_toml.compare import weakened_policy
from ashat.verification.evidence import Evidence
from blocks.policy import load_policy
from tasks.approval.page import difference, if_shown, reach, running
from tasks.approval.subject import Page, Subject
from tasks.runtime.artifacts import escape
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now, whoami
from tasks.verify.promises import promises_of, taken_back
from tasks.verify.proofs import SELF_TEST, known_proofs
from tasks.verify.verdict import untrusted
from tasks.verify.verification import MARKS, current_versions


class Release(Subject):
    """Ask whether an update that was verified may go to its target."""

    name: ClassVar[SubjectName] = "release"
    prefix: ClassVar[str] = "gate"
    asked_early: ClassVar[bool] = True

    def settled(self, d: Deployment, state: State, resumed_keys: frozenset[str]) -> State | None:
        """Return the state once it does not await approval any more; a gate that is past its time is closed."""
        if state.stage in BEFORE_APPROVAL - {Stage.AWAITING_APPROVAL}:
            raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}: nothing awaits approval.")
        if state.overdue(now()):
            return d.ledger.append(state, Expired(at=now(), by=whoami()))
        return None if state.stage is Stage.AWAITING_APPROVAL else state

    def stale_reason(self, d: Deployment, state: State, target_bundle: str | None) -> str:
        """Say why its evidence no longer counts; see `approval_rules.stale_reason`."""
        if state.evidence is None:
            return ""
        evidence = Evidence.read(d.ledger.document(state.evidence))
        proofs = known_proofs(d.ledger.newest(SELF_TEST))
        policy = load_policy(state.policy).policy()
        return stale_reason(
            evidence,
            now=now(),
            policy=policy,
            versions=current_versions(policy),
            target_bundle=target_bundle,
            untrusted=untrusted(proofs),
        )

    def page(self, d: Deployment, state: State, seen: NodeState | None) -> Page:
        """Tell what the update brings, what it changes on the target, and what the checks saw."""
        return Page(
            f"May {escape(state.update_id)} go to {escape(state.target)}?",
            _facts(d, state, seen),
            [*_ancestry(d, state, seen), *_policy(d, state, seen), *_changes(d, state, running(seen))] if seen else [],
            _checks(state),
        )


def _facts(d: Deployment, state: State, seen: NodeState | None) -> list[str]:
    source, target = state.source, escape(state.target)
    origin = "from a tree outside git"
    if source and source.commit:
        origin = f"from commit `{source.commit[:12]}`" + (" **with uncommitted changes**" if source.dirty else "")
    served = f"{target} and {reach(d)}" if seen else f"{target}; how many Mainframes, it does not say"
    lines = [f"**{escape(state.description)}**", ""] if state.description.strip() else []
    lines += [escape(state.info), ""] if state.info.strip() else []
    return [
        *lines,
        f"- Pushed by {escape(state.pushed_by)}, {origin}",
        f"- Version {escape(state.bundle_version)}, bundle `{(state.bundle or '')[:12]}`",
        f"- Will reach {served}",
    ]


def _checks(state: State) -> list[str]:
    lines = ["## Checks", ""]
    if needs_comment(state, "release"):
        lines += ["> ⚠️ **Not every check passed cleanly.** Approving needs a comment that says why.", ""]
    return lines + [f"- {MARKS[c.outcome]} **{escape(c.title)}**: {escape(c.seen)}" for c in state.checks]


def _policy(d: Deployment, state: State, seen: NodeState) -> list[str]:
    """Tell what the verification policy asks less than when what the target runs was verified."""
    current = seen.current
    ran = d.ledger.find(current.update_id, current.attempt) if current else None
    if ran is None or ran.evidence is None or state.evidence is None:
        return []
    before, ours = (d.ledger.document(evidence).get("policy") for evidence in (ran.evidence, state.evidence))
    lines = weakened_policy(before, ours) if before and ours else []
    if not lines:
        return []
    items = [f"> - {escape(line)}" for line in lines]
    return ["> ⚠️ **The verification policy asks less than when that was verified:**", ">", *items, ""]


def _ancestry(d: Deployment, state: State, seen: NodeState) -> list[str]:
    if seen.current is None:
        return [f"{escape(state.target)} runs nothing yet: everything is new.", ""]
    current = seen.current
    running = d.ledger.find(current.update_id, current.attempt)
    theirs = running.source.commit if running and running.source else None
    ours = state.source
    if theirs and ours and (theirs == ours.commit or theirs in ours.contains):
        return []
    return [
        f"> ⚠️ **{escape(state.target)} runs {escape(current.update_id)}, whose commit is not known to be an ancestor "
        "of this one: what it brought may be undone. Read the removed and changed files below.**",
        "",
    ]


def _changes(d: Deployment, state: State, target_bundle: str | None) -> list[str]:
    """Tell the difference against what the target runs, and which of its promises the release takes back."""
    return if_shown(lambda: _compared(d, state, target_bundle), d.public_name, d.target_name)


def _compared(d: Deployment, state: State, target_bundle: str | None) -> list[str]:
    if state.bundle is None:
        return ["Nothing was packed."]
    new = d.public.manifest(state.bundle)
    promised = promises_of(d.public, new)
    if target_bundle is None:
        return [difference(diff(None, new))]
    old = d.target.manifest(target_bundle)
    before = promises_of(d.target, old)
    return [*_loosened(taken_back(before, promised, old, new)), difference(diff(old, new))]


def _loosened(lines: list[str]) -> list[str]:
    if not lines:
        return []
    items = [f"> - {escape(line)}" for line in lines]
    return ["> ⚠️ **This release loosens what it is held to:**", ">", *items, ""]
