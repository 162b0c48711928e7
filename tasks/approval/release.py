"""Ask about a release: may the update go to the target?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import takewhile
from typing import ClassVar

from ashat.bundle.git import COMMITS
from ashat.deployment.approval_rules import needs_comment, stale_reason
from ashat.deployment.events import Expired
from ashat.deployment.events import Subject as SubjectName
from ashat.deployment.stages import NO_WAY_BACK
from ashat.deployment.state_machine import BEFORE_APPROVAL, Stage, State
from ashat.errors import SessionError, TrustError
from ashat.protocol.messages import NodeState, Source
from ashat.protocol.origins import compared_in_words
from ashat.raos_toml.compare import weakened_policy
from ashat.verification.evidence import Evidence, EvidencedCheck
from ashat.verification.findings import by_kind, headline, worst_first
from blocks.policy import load_policy
from tasks.approval.blast_radius import blast_radius
from tasks.approval.page import Compared, compare, if_shown, in_words, mainframes_served
from tasks.approval.subject import Page, Subject
from tasks.approval.way_back import way_back
from tasks.runtime.artifacts import escape
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now, whoami
from tasks.servers.baseline import promises_of
from tasks.servers.windows import closed_now
from tasks.verify.promises import taken_back
from tasks.verify.proofs import SELF_TEST, known_proofs
from tasks.verify.verdict import untrusted
from tasks.verify.verification import MARKS, current_versions

_FINDINGS_SHOWN = 3
_COMMITS_SHOWN = 8


class Release(Subject):
    """Ask whether an update that was verified may go to its target."""

    name: ClassVar[SubjectName] = "release"
    prefix: ClassVar[str] = "gate"
    asked_early: ClassVar[bool] = True
    rolls_out: ClassVar[bool] = True

    def settled(self, d: Deployment, state: State, resumed_keys: frozenset[str]) -> State | None:
        """Return the state once it does not await approval any more; a gate that is past its time is closed."""
        if state.stage in BEFORE_APPROVAL - {Stage.AWAITING_APPROVAL}:
            raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}: nothing awaits approval.")
        if state.overdue(now()):
            return d.ledger.append(state, Expired(at=now(), by=whoami()))
        return None if state.stage is Stage.AWAITING_APPROVAL else state

    def stale_reason(self, d: Deployment, state: State, target_bundle: str | None, at: datetime | None = None) -> str:
        """Say why its evidence no longer counts; see `approval_rules.stale_reason`."""
        if state.evidence is None:
            return ""
        evidence = Evidence.read(d.ledger.document(state.evidence))
        proofs = known_proofs(d.ledger.newest(SELF_TEST))
        policy = load_policy(state.policy).policy()
        return stale_reason(
            evidence,
            now=max(at or now(), now()),
            policy=policy,
            versions=current_versions(policy),
            target_bundle=target_bundle,
            untrusted=untrusted(proofs),
        )

    def page(self, d: Deployment, state: State, seen: NodeState | None) -> Page:
        """Tell what the update brings, what it changes on the target, and what the checks saw."""
        warnings = [*_ancestry(d, state, seen), *_policy(d, state, seen)] if seen else []
        compared = _changes(d, state, seen)
        fleet = mainframes_served(d) if seen else None
        return Page(
            title=f"May {escape(state.update_id)} go to {escape(state.the_target)}?",
            verdict=_verdict(d, state),
            size=compared.size,
            facts=_facts(d, state, seen, None if fleet is None else len(fleet)),
            changes=[*warnings, *_commits(d, state, seen), *compared.changes],
            texts=compared.texts,
            checks=_checks(d, state),
            blast_radius=blast_radius(d.update_id, fleet) if fleet is not None else [],
        )


def _verdict(d: Deployment, state: State) -> str:
    """Say in a line how the checks ended, and whether approving takes a comment."""
    if state.evidence is None:
        return "Nothing was verified."
    line = escape(headline(Evidence.read(d.ledger.document(state.evidence)).checks))
    if state.irreversible:
        line += f"; ⚠️ **{NO_WAY_BACK}**"
    if needs_comment(state, "release"):
        return f"⚠️ **Not clean:** {line}. Approving needs a comment that says why."
    return f"✅ **Verified:** {line}."


def _facts(d: Deployment, state: State, seen: NodeState | None, fleet: int | None) -> list[str]:
    source, target = state.source, escape(state.the_target)
    origin = "from a tree without a git commit"
    if source and source.commit:
        compared = escape(compared_in_words(source.dirty, source.differences))
        origin = f"from commit `{source.commit[:12]}`" + (f"**{compared}**" if source.dirty else compared)
    if source and source.artifact:
        origin = (
            f"from the artifact {escape(source.artifact.name)} ({source.artifact.kind}), `{source.artifact.digest}`"
        )
    served = f"; how many Mainframes, {target} does not say" if fleet is None else f" and {in_words(fleet)}"
    lines = [f"**{escape(state.description)}**", ""] if state.description.strip() else []
    lines += [escape(state.info), ""] if state.info.strip() else []
    return [
        *lines,
        f"- Pushed by {escape(state.pushed_by)}, {origin}",
        f"- Version {escape(state.bundle_version)}, bundle `{(state.bundle or '')[:12]}`",
        *([f"- Tasks: {escape(', '.join(state.tasks))}"] if state.tasks else []),
        f"- Will reach {target}{served}",
        *(_way_back(d, state, seen) if seen else []),
        *_closed(d, state),
    ]


def _closed(d: Deployment, state: State) -> list[str]:
    """Tell that it would not go at once, where the target is closed."""
    closed = closed_now(d, "omega")
    if closed is None:
        return []
    when = f"goes at {closed.opens:%Y-%m-%d %H:%M} UTC by itself" if closed.opens else "waits: no opening is in sight"
    return [
        f"- 🕑 **{escape(state.the_target)} is closed:** {escape(closed.why)}. What is approved now {when}, if the "
        "evidence still counts then"
    ]


def _way_back(d: Deployment, state: State, seen: NodeState) -> list[str]:
    """Tell how a target that is as `seen` could be rolled back from it."""
    try:
        found = way_back(d, state, seen, d.target.trust())
    except TrustError as error:
        return [f"- ⚠️ **Whether it could be rolled back is not known:** {escape(str(error))}"]
    why = escape(found.why)
    if found.kind == "never":
        return [f"- ⚠️ **{escape(d.the_target)} could not be rolled back from it:** {why}"]
    return [f"- A rollback waits for people: {why}" if found.kind == "asked" else f"- {why[0].upper()}{why[1:]}"]


def _checks(d: Deployment, state: State) -> list[str]:
    """Tell what the checks saw, the worst first: each kind of finding with its count and its first few."""
    lines = ["## Checks", ""]
    if needs_comment(state, "release"):
        lines += ["> ⚠️ **Not every check passed cleanly.** Approving needs a comment that says why.", ""]
    if state.evidence is None:
        return lines
    evidence = Evidence.read(d.ledger.document(state.evidence))
    return [*lines, f"**{escape(headline(evidence.checks))}**", "", *_seen(evidence.checks)]


def _seen(checks: Sequence[EvidencedCheck]) -> Iterator[str]:
    for check in worst_first(checks):
        yield f"- {MARKS[check.outcome]} **{escape(check.title)}**: {escape(check.seen)}"
        for kind in by_kind(check.findings):
            if kind.section == "for the record":
                continue
            yield f"    - {kind.section}: {escape(kind.words)}"
            yield from (f"        - {escape(finding.text)}" for finding in kind.findings[:_FINDINGS_SHOWN])
            if rest := kind.count - sum(finding.count for finding in kind.findings[:_FINDINGS_SHOWN]):
                yield f"        - … and {rest} more, which `deploy evidence` lists"


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
        return [f"{escape(state.the_target)} runs nothing yet: everything is new.", ""]
    running = d.ledger.find(seen.current.update_id, seen.current.attempt)
    lost = may_be_undone(state.source, running.source if running else None)
    if not lost:
        return []
    runs = f"{escape(state.the_target)} runs {escape(seen.current.update_id)}"
    return [f"> ⚠️ **{runs}, {lost}: what it brought may be undone. Read the removed and changed files below.**", ""]


def may_be_undone(ours: Source | None, theirs: Source | None) -> str:
    """Say why a release from `ours` may lack something of what runs, which is from `theirs`, in words that follow the
    name of that; "" where nothing speaks for it."""
    commit = theirs.commit if theirs else None
    builds_on = ours.builds_on(commit) if ours and commit else False
    if builds_on is None:
        return (
            "and nobody can tell whether this commit builds on its commit, since the clone that was pushed lacks a "
            "part of the history (git fetch --unshallow)"
        )
    if not builds_on:
        return "whose commit is not known to be an ancestor of this one"
    return "which has files that are in no commit" if theirs and theirs.dirty else ""


def _commits(d: Deployment, state: State, seen: NodeState | None) -> list[str]:
    """List the commits since that which the target runs, as far as the push recorded them."""
    current = seen.current if seen else None
    ran = d.ledger.find(current.update_id, current.attempt) if current else None
    theirs = ran.source.commit if ran and ran.source else None
    new = list(takewhile(lambda line: theirs is None or not line.startswith(theirs), state.commits))
    if not new:
        return []
    shown = new[:_COMMITS_SHOWN]
    lines = [f"- `{line[:12]}` {escape(line.partition(' ')[2])}" for line in shown]
    if len(new) > len(shown) or len(new) == COMMITS:
        lines.append("- … and what these build on")
    return [f"Commit{'' if len(new) == 1 else 's'}, the newest first:", "", *lines, ""]


def _changes(d: Deployment, state: State, seen: NodeState | None) -> Compared:
    """Compare with what the target runs, and tell which of its promises the release takes back."""
    if seen is None:
        return Compared("What would change is not known: nobody can ask the target.", [], [])
    current = seen.current

    def comparing() -> Compared:
        new = d.public.manifest(state.bundle or "")
        if current is None:
            return compare(None, (d.public, new), state.the_target, "")
        old = d.target.manifest(current.bundle)
        lost = taken_back(promises_of(d.target, old), promises_of(d.public, new), old, new)
        return compare((d.target, old), (d.public, new), state.the_target, current.update_id, _loosened(lost))

    return if_shown(comparing, d.public_name, d.target_name)


def _loosened(lines: list[str]) -> list[str]:
    if not lines:
        return []
    items = [f"> - {escape(line)}" for line in lines]
    return ["> ⚠️ **This release loosens what it is held to:**", ">", *items, ""]
