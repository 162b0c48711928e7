"""Decide whether an answer to an approval request counts. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ashat.common.numbers import in_utc
from ashat.deployment.events import Subject
from ashat.deployment.state import ApprovalRequest, State
from ashat.verification.evidence import Evidence
from ashat.verification.policy import Policy

TAIL = 8


@dataclass(frozen=True)
class Answer:
    """Hold a person's answer as typed: `approver` is self-asserted, `evidence` is the end of the evidence's digest.

    `signature` is a line that `deploy sign` printed, "" where none is given. `not_before` is a time before which it is
    not to go, "" for at once; `override_freeze` says why it goes although the target is closed, "" where it does not.
    """

    decision: Literal["approve", "reject"]
    evidence: str
    approver: str = ""
    comment: str = ""
    signature: str = ""
    not_before: str = ""
    override_freeze: str = ""

    @property
    def starts(self) -> datetime | None:
        """Read the time before which it is not to go; None: at once.

        Raises:
            ValueError: it is no time.
        """
        if not self.not_before.strip():
            return None
        found = datetime.fromisoformat(self.not_before.strip())
        return in_utc(found if found.tzinfo else found.replace(tzinfo=UTC))


@dataclass(frozen=True)
class ApprovalContext:
    """Hold the facts by which an answer is judged.

    `target_missing` says why the target cannot be asked, if it cannot; `decay` why the evidence no longer counts, at
    the latest when it is to go.
    `rollout_policy` is the digest of the one that holds, "" where none can be used.
    """

    now: datetime
    target_bundle: str | None
    target_missing: str = ""
    decay: str = ""
    rollout_policy: str = ""


def refusal(state: State, subject: Subject, answer: Answer, world: ApprovalContext) -> str:
    """Say why `answer` does not count; "" if it does.

    A reject always counts while people are asked: it changes nothing that runs in production. An approval counts
    where the person typed the end of the evidence that is shown, and nothing moved since it was shown.
    """
    request = state.undecided(subject)
    if request is None:
        return f"the deployment is {state.stage.value} and awaits no approval of its {subject}"
    if world.now >= request.expires:
        return f"it could be answered until {request.expires:%Y-%m-%d %H:%M} UTC"
    if answer.decision == "reject":
        return ""
    if not names_evidence(answer.evidence, request.evidence):
        return f"the evidence typed is not the evidence shown: type its last {TAIL} characters"
    if needs_comment(state, subject) and not answer.comment.strip():
        return "a check did not pass cleanly: approving that needs a comment that says why"
    if why := _refuse_later(answer, subject) or world.target_missing:
        return why
    if world.decay:
        return f"{world.decay}: deploy verify {state.update_id}"
    if request.obstacle:
        return f"nobody could approve it when this was asked: {request.obstacle}"
    if world.target_bundle != (state.bundle if subject == "rollback" else request.target_bundle):
        return f"{state.the_target} runs something else than when this was asked: read the difference again"
    return _other_policy(request, world)


def _other_policy(request: ApprovalRequest, world: ApprovalContext) -> str:
    if request.rollout_policy in (None, world.rollout_policy):
        return ""
    return "the rollout policy is another one than when this was asked: read again who gets it when"


def _refuse_later(answer: Answer, subject: Subject) -> str:
    """Say why it cannot go when, or in spite of what, the answer says; "" if it can."""
    try:
        later = answer.starts is not None or bool(answer.override_freeze.strip())
    except (ValueError, OverflowError):
        return f"{answer.not_before[:40]!r} is no time; write it as 2026-12-01T02:00Z"
    if later and subject != "release":
        return f"a {subject} waits for no time, and no freeze holds it: approve it without"
    return ""


def names_evidence(typed: str, evidence: str) -> bool:
    """Say whether a person typed the end of the evidence: `TAIL` characters or more, as they stand anywhere."""
    end = re.sub(r"[\s`]", "", typed).lower()
    return len(end) >= TAIL and evidence.endswith(end)


def needs_comment(state: State, subject: Subject) -> bool:
    """Say whether an approval needs a comment, since a check of the release did not pass cleanly."""
    return subject == "release" and state.outcome == "attention"


def pushers(state: State, builder: str = "") -> frozenset[str]:
    """List the names of the person who pushed the update, in lower case: as they typed it, as git on their machine has
    it, and what `targets` calls the key of their machine (`builder`), which alone is more than their word."""
    names = {state.pushed_by, state.pushed_by.partition("@")[0], builder}
    if state.source is not None:
        name, _, address = state.source.who.partition("<")
        names |= {name.strip(), address.partition("@")[0]}
    return frozenset(name.casefold() for name in names if name)


def stale_reason(
    evidence: Evidence,
    *,
    now: datetime,
    policy: Policy,
    versions: Mapping[str, str],
    target_bundle: str | None,
    untrusted: Collection[str] = (),
) -> str:
    """Say why `evidence` is not enough to ship on any more; "" if it is.

    `policy` is the one that holds now, `versions` are the checks of this install by name, `target_bundle` is what the
    target runs now, `untrusted` are the checks that a self-test saw miss a fault. What the target ran while nobody
    could ask it cannot have changed since.
    """
    if evidence.policy_digest != policy.digest:
        return "the verification policy is another one by now"
    oldest = min((check.taken for check in evidence.checks), default=None)
    if oldest is None or (now - oldest).total_seconds() > policy.evidence_max_age:
        return f"the evidence is older than {_shown(policy.evidence_max_age)}"
    for check in evidence.checks:
        if check.name in versions and versions[check.name] != check.version:
            return f"the check {check.title} is another one than when it was run"
        if check.name in untrusted:
            return f"the check {check.title} is untrusted by now: a self-test saw it miss a seeded fault"
    absent = sorted(versions.keys() - {check.name for check in evidence.checks})
    if absent:
        return f"the check {absent[0]} is not in the evidence"
    target = evidence.target
    if target is not None and not target.unknown and target.bundle != target_bundle:
        return f"{target.name} runs something else than when this was verified"
    return ""


def _shown(seconds: int) -> str:
    return f"{seconds // 3600} hours" if seconds >= 7200 else f"{seconds} seconds"
