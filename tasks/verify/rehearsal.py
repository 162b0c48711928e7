"""The rollback rehearsal: on Public, back to what ran before and forward again, under the same load in turn.

It proves that the way back works while nothing depends on it yet, measures how long it takes, and leaves the
performance check two releases measured on the same host within the same minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ashat.bundle.manifest import Listing, Manifest
from ashat.client.node import NodeClient, none_if_not_found
from ashat.common.canonical_json import digest_of
from ashat.common.failpoints import fault_point
from ashat.deployment.state import PreviousRelease
from ashat.deployment.state_machine import State
from ashat.errors import AshatError
from ashat.protocol.messages import OperationRequest
from ashat.raos_toml.schema import RaosToml
from ashat.verification.evidence import ComparedTree, Evidence, EvidencedRehearsal
from tasks.checks.kit.base import TEXT_LIMIT, CheckContext, CheckResult, Finding, gravest, one_line, summed_up
from tasks.checks.kit.http import Web
from tasks.checks.kit.looks import Look, has_database, take_look
from tasks.checks.kit.samples import AnsweredEndpoints, Block, Rehearsal, Which
from tasks.checks.performance import blocks_needed, limits_of, measure_block
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now
from tasks.servers.public import change
from tasks.servers.restore import told_what_runs
from tasks.verify import before_and_after
from tasks.verify.before_and_after import Comparison
from tasks.verify.proofs import code_version

NAME = "rehearsal"
TITLE = "Rollback rehearsal"
VERSION = code_version(code_version("4", __file__), before_and_after.__file__)


class RehearsalError(AshatError):
    """A release did not stand as it should after a switch of the rehearsal."""


@dataclass
class _Course:
    """What came of the rehearsal so far; filled step by step, so that what was measured outlives a failure."""

    blocks: list[Block] = field(default_factory=list)
    compared: Comparison = field(default_factory=Comparison)
    back_ms: list[int] = field(default_factory=list)
    forward_ms: list[int] = field(default_factory=list)
    trees: list[ComparedTree] = field(default_factory=list)
    beside: set[str] = field(default_factory=set)
    before: Look | None = None

    def saw(self, seen: tuple[ComparedTree, list[str]]) -> None:
        """Note a tree that was compared, and what lay beside its files."""
        self.trees.append(seen[0])
        self.beside.update(seen[1])

    @property
    def files_compared(self) -> int:
        """How many files were compared, over all switches."""
        return sum(tree.files for tree in self.trees)

    def rehearsal(self) -> Rehearsal:
        """What the checks are given of it."""
        made = tuple(self.blocks), self.compared.answered, tuple(self.back_ms), tuple(self.forward_ms)
        return Rehearsal(*made, self.before)


@dataclass(frozen=True)
class Rehearsed:
    """What the rehearsal was, for the checks and for the evidence.

    `previous` is the bundle that ran before, None where none did. `result` is None where the policy wants none.
    `reused` is the digest of the evidence that it was taken over from, None where it was made now.
    """

    previous: str | None
    at: datetime
    rehearsal: Rehearsal = field(default_factory=Rehearsal)
    result: CheckResult | None = None
    trees: tuple[ComparedTree, ...] = ()
    reused: str | None = None

    def as_evidence(self) -> dict[str, Any] | None:
        """As it stands in the evidence: None where there was none, or none was walked."""
        if self.result is None or self.previous is None or (self.result.outcome == "warn" and not self.trees):
            return None
        made = EvidencedRehearsal(
            outcome="fail" if self.result.outcome == "fail" else "pass",
            detail=self.result.seen,
            back_ms=list(self.rehearsal.back_ms),
            forward_ms=list(self.rehearsal.forward_ms),
            trees=list(self.trees),
        )
        return made.model_dump(mode="json")


def rehearse(state: State, context: CheckContext, before: PreviousRelease, holder: str) -> Rehearsed:
    """Go back to `before` and forward again: once; twice where performance is measured, and four times in doubt.

    Public runs `state`'s bundle when it begins and, unless a switch failed, when it ends. Every switch names what it
    expects to run, so that a rehearsal that was killed is taken up by verifying again.
    """
    at = now()

    def back() -> int:
        came_from = before.update_id or state.update_id, before.attempt or state.attempt
        took = _switch(context.public, _request(came_from, state.bundle, before.bundle, holder, "rehearsal: back"))
        reporter().say(f"  rehearsed: back to what ran before in {took / 1000:.1f} s")
        return took

    def forward() -> int:
        of_this = state.update_id, state.attempt
        took = _switch(context.public, _request(of_this, before.bundle, state.bundle, holder, "rehearsal: forward"))
        reporter().say(f"  rehearsed: forward again in {took / 1000:.1f} s")
        return took

    previous = context.previous.digest if context.previous else None
    step = context.raos.migrate
    if context.previous is not None and step is not None and not step.reversible:
        return Rehearsed(previous, at, result=_not_walked(context))
    rehearsal, result, trees = back_and_forth(context, back, forward)
    return Rehearsed(previous, at, rehearsal, told_what_runs(context.public, state.bundle, result), trees)


def _not_walked(context: CheckContext) -> CheckResult:
    """Say that a release whose migrate step cannot be taken back has no way back to walk."""
    text = (
        "not walked: by [migrate] reversible = false the release before may not work with what the migrate step leaves,"
        " so a rollback takes the database from a backup"
    )
    course = _Course()
    course.compared.findings.append(Finding("medium", text))
    return _result(text, time.monotonic(), context, course)


def back_and_forth(
    context: CheckContext, back: Callable[[], int], forward: Callable[[], int]
) -> tuple[Rehearsal, CheckResult, tuple[ComparedTree, ...]]:
    """The rehearsal's course, and the trees that were compared in it.

    `back` and `forward` switch the server and return how long that took, in milliseconds.
    """
    began, course = time.monotonic(), _Course()
    if context.previous is None:
        ran = "this very bundle" if context.same_before else "nothing"
        text = f"{ran} ran here before, so there is nothing to go back to"
        return Rehearsal(), _result(text, began, context, course), ()
    found = course.compared.findings
    try:
        course.compared.begin(context)
        while len(course.forward_ms) < _rounds(context, course):
            _load(context, "new", course)
            _go_back(context, context.previous, back, course)
            _go_forward(context, forward, course)
    except AshatError as error:
        text = one_line(error)
        found.insert(0, Finding("high", text))
        return course.rehearsal(), _result(text, began, context, course), tuple(course.trees)
    took = f"back in {max(course.back_ms) / 1000:.1f} s and forward in {max(course.forward_ms) / 1000:.1f} s"
    told = course.compared.told(context)
    text = f"{took}, healthy each time; {course.files_compared} files compared{f'; {told}' if told else ''}"
    for path in sorted(course.beside):
        found.append(Finding("low", f"the program wrote {one_line(path)} beside its release's files"))
    return course.rehearsal(), _result(text, began, context, course), tuple(course.trees)


def _rounds(context: CheckContext, course: _Course) -> int:
    budget = context.raos.performance
    return blocks_needed(course.rehearsal(), budget, limits_of(budget, context.policy)) if budget else 1


def taken_over(earlier: Evidence) -> Rehearsed | None:
    """The rehearsal of earlier evidence, if it passed at this version of it."""
    check = earlier.check(NAME)
    if check is None or check.outcome != "pass" or check.version != VERSION:
        return None
    made = earlier.rehearsal
    rehearsal = Rehearsal((), AnsweredEndpoints(), tuple(made.back_ms), tuple(made.forward_ms)) if made else Rehearsal()
    return Rehearsed(
        earlier.public.ran_before,
        check.taken,
        rehearsal,
        CheckResult.from_json(check.result()),
        tuple(made.trees) if made else (),
        check.reused_from or earlier.digest,
    )


def _go_back(context: CheckContext, previous: Manifest, back: Callable[[], int], course: _Course) -> None:
    try:
        course.back_ms.append(back())
    except AshatError as error:
        raise RehearsalError(f"going back to {previous.digest[:12]} failed: {error}") from None
    fault_point("verify.rehearsed-back")
    course.saw(_see_whole(context.public, "old", previous, context.previous_raos))
    if len(course.back_ms) == 1:
        course.compared.went_back(context)
    _load(context, "old", course)
    seen_files = course.before.release if course.before else None
    look = take_look(context.public, None if seen_files else previous, database=has_database(context.raos))
    course.before = replace(look, release=look.release or seen_files)


def _go_forward(context: CheckContext, forward: Callable[[], int], course: _Course) -> None:
    try:
        course.forward_ms.append(forward())
    except AshatError as error:
        raise RehearsalError(f"going forward again failed: {error}") from None
    fault_point("verify.rehearsed-forward")
    course.saw(_see_whole(context.public, "new", context.manifest, context.raos))
    if len(course.forward_ms) == 1:
        course.compared.went_forward(context)


def _request(
    update: tuple[str, int], leaving: str | None, bundle: str | None, holder: str, reason: str
) -> OperationRequest:
    return OperationRequest(
        action="switch",
        bundle=bundle,
        expected_current=leaving,
        update_id=update[0],
        attempt=update[1],
        holder=holder,
        reason=reason,
    )


def _switch(public: NodeClient, request: OperationRequest) -> int:
    """How long the node took from the request until the release was healthy, in milliseconds."""
    done = change(public, request)
    assert done.ended_at is not None
    return round((done.ended_at - done.started_at).total_seconds() * 1000)


def _see_whole(
    public: NodeClient, which: Which, manifest: Manifest, raos: RaosToml | None
) -> tuple[ComparedTree, list[str]]:
    """Compare what lies on Public's disk with the manifest, file by file, and ask how it is; with what lies beside."""
    short = manifest.digest[:12]
    tree = public.tree()
    wanted, found = manifest.listing, tree.listing
    odd = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
    if tree.bundle != manifest.digest or odd:
        what = one_line(odd[0]) if odd else "its manifest"
        raise RehearsalError(f"after the switch to {short} the files on {public.name} are not its own: {what} differs")
    probe = public.probe_health()
    if not probe.healthy:
        raise RehearsalError(f"{short} is not healthy after the switch: {one_line(probe.detail) or probe.status}")
    told = probe.version is not None or (raos is not None and raos.health.expect == "release")
    if raos is not None and told and probe.version != raos.raos.version:
        raise RehearsalError(f"after the switch to {short} an old process answers, of version {probe.version}")
    digest = _tree_digest(found)  # of what was expected, too, since nothing is odd
    compared = ComparedTree(release=which, files=len(manifest.files), expected=digest, found=digest)
    return compared, tree.extra


def _tree_digest(listing: Listing) -> str:
    return digest_of(sorted([path, content, mode] for path, (content, mode) in listing.items()))


def _load(context: CheckContext, which: Which, course: _Course) -> None:
    budget = context.raos.performance
    if budget is None:
        return
    with Web(context) as web:
        block = measure_block(web, which, budget, context.policy)
    start_ms, seen = context.public.state().app.healthy_after_ms, none_if_not_found(context.public.probe_process)
    course.blocks.append(replace(block, start_ms=start_ms, memory_bytes=(seen.memory_bytes or None) if seen else None))


def _result(good: str, began: float, context: CheckContext, course: _Course) -> CheckResult:
    previous = context.previous
    outcome, seen, findings = summed_up(good, gravest(course.compared.findings))
    return CheckResult(
        NAME,
        TITLE,
        outcome,
        one_line(seen, 2 * TEXT_LIMIT),
        tuple(findings),
        inputs={
            "from": context.bundle,
            "back_to": previous.digest if previous else None,
            "noted_before": context.baseline.at if context.baseline else None,
        },
        figures={"files_compared": course.files_compared, **course.compared.figures()},
        series={"back_ms": course.back_ms, "forward_ms": course.forward_ms},
        milliseconds=round((time.monotonic() - began) * 1000),
        version=VERSION,
    )
