"""The deployment's state machine, driven by random events, legal and not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ashat.deployment import events as e
from ashat.deployment.state_machine import BEFORE_APPROVAL, ENDED, Stage, State, apply, fold, refuse_rollback, start
from ashat.errors import SessionError
from ashat.protocol.messages import ReleaseSignature, Source

T0 = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C = ("a" * 64, "b" * 64, "c" * 64)
EVIDENCE = "e" * 64
SOURCE = Source(name="sample", commit="1" * 40)
PASSED = (e.CheckOutcome(name="health", title="Server Health", outcome="pass", seen="200"),)
MISSING = e.MainframeOutcome(id="m" * 12, name="berlin", result="missing")


def at(seconds: float = 0) -> datetime:
    return T0 + timedelta(seconds=seconds)


CREATED = e.Created(at=T0, by="kim", description="d", target="omega", public="public")
PACKAGED = e.Packaged(at=T0, bundle=A, files=1, size=1, source=SOURCE)
SWITCHING = e.PublicSwitching(at=T0, from_bundle=B)
PUSHED = e.Pushed(at=T0, url="http://public")
STARTED = e.VerificationStarted(at=T0, run="v")
VERIFIED = e.Verified(at=T0, evidence=EVIDENCE, outcome="passed", checks=PASSED)
OPENED = e.GateOpened(at=T0, opening=1, expires=at(100))
ASKED = e.ApprovalRequested(at=T0, ordinal=1, target_bundle=C)
APPROVED = e.ApprovalAnswered(at=at(1), ordinal=1, decision="approve", accepted=True, approver="lee", release_seq=7)
PROMOTING = e.Promoting(at=at(2), operation="op")
PROMOTED = e.Promoted(at=at(3), from_bundle=C, release_seq=7)
DISTRIBUTED = e.Distributed(at=at(4), mainframes=(MISSING,))
UP_TO_THE_GATE: list[Any] = [CREATED, PACKAGED, SWITCHING, PUSHED, STARTED, VERIFIED, OPENED, ASKED]
THE_WHOLE_WAY: list[Any] = [*UP_TO_THE_GATE, APPROVED, PROMOTING, PROMOTED, DISTRIBUTED]


def after(*events: Any) -> State:
    return fold("UPD-1", 1, list(events))


def test_the_whole_way_passes_every_stage() -> None:
    stages = [fold("UPD-1", 1, THE_WHOLE_WAY[: n + 1]).stage for n in range(len(THE_WHOLE_WAY))]
    assert list(dict.fromkeys(stages)) == [
        Stage.PLANNING,
        Stage.PUSHED,
        Stage.TESTING,
        Stage.AWAITING_APPROVAL,
        Stage.DEPLOYING,
        Stage.DISTRIBUTING,
        Stage.COMPLETED,
    ]


def test_a_completed_deployment_knows_what_it_replaced_and_who_is_missing() -> None:
    state = after(*THE_WHOLE_WAY)
    assert (state.public_ran[-1].bundle, state.omega_before, state.release_seq) == (B, C, 7)
    assert state.summary()["missing"] == ["berlin"]
    served = apply(state, e.MainframeServed(at=at(9), mainframe=MISSING.model_copy(update={"result": "running"})))
    assert served.summary()["missing"] == []
    assert (state.reach.nobody, served.reach.whole) == (state.reach.total == 1, True)


@pytest.mark.parametrize(
    ("events", "event", "says"),
    [
        ([], PACKAGED, "does not exist"),
        ([CREATED], CREATED, "already exists"),
        ([CREATED], SWITCHING, "not been packed"),
        ([CREATED, PACKAGED], PUSHED, "not been switched"),
        ([CREATED, PACKAGED, SWITCHING], PACKAGED.model_copy(update={"bundle": B}), "other content"),
        ([CREATED, PACKAGED, SWITCHING, PUSHED, STARTED], OPENED, "no evidence"),
        (UP_TO_THE_GATE[:-2], OPENED.model_copy(update={"opening": 2}), "next opening of its gate is 1"),
        (UP_TO_THE_GATE[:-1], APPROVED, "judged already or never asked"),
        (UP_TO_THE_GATE, ASKED, "the next asking about its release is number 2"),
        (UP_TO_THE_GATE, APPROVED.model_copy(update={"release_seq": None}), "its release_seq"),
        (UP_TO_THE_GATE, APPROVED.model_copy(update={"at": at(100)}), "could be approved until"),
        (UP_TO_THE_GATE, e.Expired(at=at(99)), "may be approved until"),
        (UP_TO_THE_GATE, PROMOTING, "needs it to be DeployingToOmega"),
        ([*UP_TO_THE_GATE, APPROVED], PROMOTED, "never sent"),
        ([*UP_TO_THE_GATE, APPROVED], e.Cancelled(at=at(2)), "only what awaits approval"),
        (THE_WHOLE_WAY, e.Cancelled(at=at(9)), "deploy rollback UPD-1"),
        (THE_WHOLE_WAY, e.RolledBack(at=at(9)), "not being rolled back"),
        ([CREATED], e.RollbackStarted(at=at(9)), "no server yet"),
    ],
)
def test_a_refusal_says_why(events: list[Any], event: Any, says: str) -> None:
    before = after(*events)
    with pytest.raises(SessionError, match=says):
        apply(before, event)


def test_verifying_again_closes_the_gate_that_was_open() -> None:
    again = apply(after(*UP_TO_THE_GATE), STARTED)
    assert (again.stage, again.gate, again.evidence) == (Stage.TESTING, None, None)
    with pytest.raises(SessionError):
        apply(again, APPROVED)


def test_a_refused_answer_is_used_up_and_the_next_asking_takes_a_reject() -> None:
    refused = APPROVED.model_copy(update={"accepted": False, "release_seq": None, "reason": "OMEGA moved on"})
    state = apply(after(*UP_TO_THE_GATE), refused)
    with pytest.raises(SessionError, match="judged already"):
        apply(state, APPROVED)
    state = apply(state, ASKED.model_copy(update={"ordinal": 2}))
    rejected = apply(
        state, e.ApprovalAnswered(at=at(5), ordinal=2, decision="reject", accepted=True, comment="not today")
    )
    assert (rejected.stage, rejected.reason, rejected.owes_public) == (Stage.REJECTED, "not today", True)


def test_a_decision_that_the_target_refused_is_asked_again_and_never_used() -> None:
    state = apply(after(*UP_TO_THE_GATE, APPROVED, PROMOTING), e.DecisionVoid(at=at(3), reason="OMEGA moved on"))
    assert (state.stage, state.decision, state.release_seq) == (Stage.AWAITING_APPROVAL, None, None)
    assert not state.reached_omega
    for event in (APPROVED, PROMOTING, PROMOTED):
        with pytest.raises(SessionError):
            apply(state, event)


def signature(name: str) -> ReleaseSignature:
    return ReleaseSignature(name=name, keyid=name.encode().hex().ljust(64, "0"), release="5" * 128)


def test_signatures_add_up_until_enough_have_signed_what_was_proposed() -> None:
    proposed = ASKED.model_copy(update={"proposal": "1" * 64})
    kim = APPROVED.model_copy(update={"release_seq": None, "signature": signature("kim"), "approver": "kim"})
    state = apply(after(*UP_TO_THE_GATE[:-1], proposed), kim)
    assert (state.stage, state.decision, state.release_seq) == (Stage.AWAITING_APPROVAL, None, None)
    with pytest.raises(SessionError, match="judged already"):
        apply(state, kim)
    again = apply(state, proposed.model_copy(update={"ordinal": 2}))
    assert again.gate is not None
    assert [one.name for one in again.gate.signatures] == ["kim"]
    with pytest.raises(SessionError, match="kim has signed 'UPD-1' already"):
        apply(again, kim.model_copy(update={"ordinal": 2}))
    lee = APPROVED.model_copy(update={"ordinal": 2, "signature": signature("lee")})
    approved = apply(again, lee)
    assert (approved.stage, approved.release_seq) == (Stage.DEPLOYING, 7)
    assert approved.gate is not None
    assert [one.name for one in approved.gate.signatures] == ["kim", "lee"]
    anew = apply(state, proposed.model_copy(update={"ordinal": 2, "proposal": "2" * 64}))
    assert anew.gate is not None
    assert anew.gate.signatures == (), "they are over something else"


def test_an_approval_without_a_number_or_with_a_signature_over_nothing_is_refused() -> None:
    with pytest.raises(SessionError, match="carries a signature, or the last its release_seq"):
        apply(after(*UP_TO_THE_GATE), APPROVED.model_copy(update={"release_seq": None}))
    with pytest.raises(SessionError, match="Nothing is proposed"):
        apply(after(*UP_TO_THE_GATE), APPROVED.model_copy(update={"signature": signature("kim")}))
    proposed_now = {"signature": signature("root"), "proposal": "3" * 64}
    approved = apply(after(*UP_TO_THE_GATE), APPROVED.model_copy(update=proposed_now))
    assert approved.gate is not None
    assert (approved.stage, approved.gate.proposal) == (Stage.DEPLOYING, "3" * 64)


def test_an_overdue_gate_is_shown_as_expired_before_anybody_records_it() -> None:
    state = after(*UP_TO_THE_GATE)
    assert state.stage_at(at(99)) is Stage.AWAITING_APPROVAL
    assert state.stage_at(at(100)) is Stage.EXPIRED
    assert apply(state, e.Expired(at=at(100))).stage is Stage.EXPIRED


def test_public_keeps_what_it_ran_first_when_the_switch_is_recorded_twice() -> None:
    state = after(CREATED, PACKAGED, SWITCHING, SWITCHING.model_copy(update={"from_bundle": A}))
    assert state.public_ran[-1].bundle == B
    other = apply(state, SWITCHING.model_copy(update={"from_bundle": C}))
    assert other.public_ran[-1].bundle == C


def test_a_failure_before_omega_owes_public_and_may_be_pushed_again() -> None:
    failed = apply(after(*UP_TO_THE_GATE), e.Failed(at=at(1), reason="r"))
    assert failed.owes_public
    assert failed.may_be_pushed_again
    restored = apply(failed, e.PublicRestored(at=at(2), to_bundle=B))
    with pytest.raises(SessionError, match="put back"):
        refuse_rollback(restored)


def test_a_rollback_can_be_taken_over_by_another_run() -> None:
    state = apply(after(*THE_WHOLE_WAY), e.RollbackStarted(at=at(5), run="dead"))
    state = apply(state, e.RollbackStarted(at=at(6), run="alive"))
    assert state.rollback_run == "alive"
    assert not state.may_be_pushed_again
    assert apply(state, e.RolledBack(at=at(7))).stage is Stage.ROLLED_BACK


def test_a_rolled_back_deployment_that_never_reached_omega_is_free_only_afterwards() -> None:
    failed = apply(after(*UP_TO_THE_GATE), e.Failed(at=at(1), reason="r"))
    rolling = apply(failed, e.RollbackStarted(at=at(2)))
    assert not rolling.may_be_pushed_again
    assert apply(rolling, e.RolledBack(at=at(3))).may_be_pushed_again


ROLLBACK_ASKED = e.ApprovalRequested(
    at=at(5),
    subject="rollback",
    ordinal=1,
    run="asking",
    expires=at(100),
    to_update="UPD-0",
    to_attempt=1,
    evidence=B,
    why="no rollback was signed",
    shown=C,
    proposal=A,
)


def signed_back(*names: str, ordinal: int = 1, **changes: Any) -> e.ApprovalAnswered:
    fields = {
        "decision": "approve",
        "accepted": True,
        "approver": names[0],
        "signature": signature(names[0]),
        **changes,
    }
    return e.ApprovalAnswered.model_validate({"at": at(6), "subject": "rollback", "ordinal": ordinal, **fields})


def test_a_rollback_is_asked_for_until_enough_have_signed() -> None:
    state = apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED)
    assert state.awaited(at(99)) == state.approvals["rollback"]
    assert state.awaited(at(100)) is None
    assert state.summary()["rollback_expires"] == at(100).isoformat()
    state = apply(state, signed_back("kim"))
    again = ROLLBACK_ASKED.model_copy(update={"ordinal": 2})
    with pytest.raises(SessionError, match="judged already or never asked"):
        apply(state, signed_back("lee"))
    state = apply(state, again)
    with pytest.raises(SessionError, match="kim has signed the rollback of 'UPD-1' already"):
        apply(state, signed_back("kim", ordinal=2))
    state = apply(state, signed_back("lee", ordinal=2, complete=True))
    gate = state.approvals["rollback"]
    assert ([one.name for one in gate.signatures], gate.decision, gate.decided_by) == (["kim", "lee"], "approve", "lee")
    assert state.awaited(at(7)) is None
    assert state.stage is Stage.COMPLETED, "nothing is rolled back by an answer"


def test_a_refused_answer_is_asked_again_and_another_proposal_needs_new_signatures() -> None:
    state = apply(apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED), signed_back("kim"))
    again = ROLLBACK_ASKED.model_copy(update={"ordinal": 2})
    state = apply(apply(state, again), signed_back("lee", ordinal=2, accepted=False, reason="moved on", signature=None))
    gate = state.approvals["rollback"]
    assert (gate.decision, gate.reason, len(gate.signatures)) == ("", "moved on", 1)
    other = apply(state, ROLLBACK_ASKED.model_copy(update={"ordinal": 3, "proposal": B}))
    assert other.approvals["rollback"].signatures == ()


def test_one_reject_ends_the_question_and_another_rollback_may_ask_anew() -> None:
    state = apply(apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED), signed_back("kim"))
    reject = signed_back("lee", decision="reject", signature=None)
    state = apply(state, reject)
    assert (state.approvals["rollback"].decision, state.approvals["rollback"].decided_by) == ("reject", "lee")
    with pytest.raises(SessionError, match="Nobody is asked"):
        apply(state, reject)
    state = apply(state, ROLLBACK_ASKED.model_copy(update={"ordinal": 2}))
    assert state.approvals["rollback"].signatures == ()


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (signed_back("kim", signature=None), "carries a signature"),
        (signed_back("kim", at=at(100)), "could be approved until"),
        (ROLLBACK_ASKED, "the next asking about its rollback is number 2"),
        (ROLLBACK_ASKED.model_copy(update={"ordinal": 3}), "the next asking about its rollback is number 2"),
    ],
)
def test_what_does_not_follow_on_the_question_is_refused(event: Any, told: str) -> None:
    with pytest.raises(SessionError, match=told):
        apply(apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED), event)


def test_nobody_is_asked_about_what_never_reached_omega_or_is_being_rolled_back() -> None:
    for state in (after(*UP_TO_THE_GATE), apply(after(*THE_WHOLE_WAY), e.RollbackStarted(at=at(5)))):
        with pytest.raises(SessionError):
            apply(state, ROLLBACK_ASKED)
    one_person = apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED.model_copy(update={"proposal": None}))
    with pytest.raises(SessionError, match="Nothing is proposed"):
        apply(one_person, signed_back("kim"))
    done = apply(one_person, signed_back("kim", proposal=B, complete=True))
    assert done.approvals["rollback"].proposal == B


def test_a_question_that_is_taken_back_takes_no_answer_and_is_put_anew() -> None:
    withdrawn = e.ApprovalWithdrawn(at=T0, ordinal=1, reason="omega is back")
    state = apply(after(*UP_TO_THE_GATE), withdrawn)
    gate = state.gate
    assert gate is not None
    assert (state.stage, gate.answered, gate.shown, gate.reason) == (
        Stage.AWAITING_APPROVAL,
        True,
        None,
        "omega is back",
    )
    for event in (APPROVED, withdrawn, APPROVED.model_copy(update={"decision": "reject", "release_seq": None})):
        with pytest.raises(SessionError):
            apply(state, event)
    again = apply(state, ASKED.model_copy(update={"ordinal": 2, "reason": gate.reason}))
    assert apply(again, APPROVED.model_copy(update={"ordinal": 2})).stage is Stage.DEPLOYING
    with pytest.raises(SessionError, match="waits for no answer"):
        apply(again, withdrawn)


def test_a_rollback_is_called_off_as_long_as_no_server_has_gone_back() -> None:
    stopped = e.RollbackStopped(at=at(8), reason="mend it instead")
    approved = apply(apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED), signed_back("kim", complete=True))
    rolling = apply(approved, e.RollbackStarted(at=at(7), run="r"))
    state = apply(rolling, stopped)
    assert (state.stage, state.rolling_back, state.rollback_run) == (Stage.COMPLETED, False, "")
    assert state.approvals.get("rollback") is None, "an approval of it counts no more"
    back = e.ServerRolledBack(at=at(8), server="omega", to_bundle=C)
    for refused, told in ((state, "is not being rolled back"), (apply(rolling, back), "can only be finished")):
        with pytest.raises(SessionError, match=told):
            apply(refused, stopped)
    assert apply(state, e.RollbackStarted(at=at(9))).rolling_back


def test_all_who_signed_have_decided_and_the_one_person_by_the_name_that_was_typed() -> None:
    asked = apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED)
    again = apply(apply(asked, signed_back("kim")), ROLLBACK_ASKED.model_copy(update={"ordinal": 2}))
    both = apply(again, signed_back("lee", ordinal=2, complete=True))
    assert both.approvals["rollback"].deciders == ("kim", "lee")
    alone = apply(after(*UP_TO_THE_GATE), APPROVED)
    assert alone.deciders == ("lee",)
    assert apply(alone, e.DecisionVoid(at=at(5), reason="moved on")).deciders == ()


def test_a_question_about_a_rollback_that_is_taken_back_is_over() -> None:
    asked = apply(after(*THE_WHOLE_WAY), ROLLBACK_ASKED)
    state = apply(asked, e.ApprovalWithdrawn(at=at(6), subject="rollback", ordinal=1, reason="omega runs another"))
    assert state.undecided("rollback") is None
    with pytest.raises(SessionError):
        apply(state, signed_back("kim"))
    assert apply(state, ROLLBACK_ASKED.model_copy(update={"ordinal": 2})).undecided("rollback") is not None


def test_what_an_earlier_version_wrote_about_a_rollback_reads_as_it_was() -> None:
    now = {"asked": ROLLBACK_ASKED, "answered": signed_back("kim", complete=True)}
    for kind, event in now.items():
        then = {**e.event_to_data(event), "kind": f"rollback_{kind}"}
        unknown_then = {"subject", "release_seq"} if kind == "answered" else {"subject", "why", "target_bundle"}
        earlier = {name: value for name, value in then.items() if name not in unknown_then}
        if kind == "asked":
            earlier["missing"] = event.why
        assert e.event_from_json(json.dumps(earlier)) == event
        assert event.name == f"rollback {kind}"


def test_a_question_about_a_release_is_about_that_release_until_its_gate_closes() -> None:
    other = {"to_update": "UPD-0", "to_attempt": 3, "evidence": B, "expires": at(900)}
    gate = apply(after(*UP_TO_THE_GATE[:-1]), ASKED.model_copy(update=other)).gate
    assert gate is not None
    assert (gate.update_id, gate.attempt, gate.evidence, gate.expires) == ("UPD-1", 1, EVIDENCE, at(100))


ANY = st.sampled_from([*THE_WHOLE_WAY, STARTED, e.Failed(at=T0, reason="r"), e.Cancelled(at=T0)])


@given(st.lists(ANY, max_size=20))
def test_whatever_is_refused_leaves_the_fold_of_the_rest(attempts: list[Any]) -> None:
    state, kept = start("UPD-1", 1), []
    for event in attempts:
        try:
            state = apply(state, event)
        except SessionError:
            continue
        kept.append(event)
    assert state == fold("UPD-1", 1, kept)
    assert state.version == len(kept)


digests = st.sampled_from([A, B, C])
maybe_digest = st.none() | digests
servers = st.sampled_from(["public", "omega", "mainframes"])


class Deployment(RuleBasedStateMachine):
    """Any event at any time: what the machine lets through must keep its promises."""

    def __init__(self) -> None:
        super().__init__()
        self.state = start("UPD-1", 1)
        self.history: list[Any] = []
        self.clock = 0.0
        self.judged: set[int] = set()
        self.sent_to_omega = False
        self.highest_seq = 0
        self.refusals: list[str] = []

    def offer(self, event: Any) -> bool:
        before, snapshot = self.state, repr(self.state)
        try:
            self.state = apply(before, event)
        except SessionError as refusal:
            assert self.state is before
            assert repr(before) == snapshot
            self.refusals.append(str(refusal))
            return False
        assert repr(before) == snapshot
        self.history.append(event)
        if before.stage in ENDED:
            rollback = (e.RollbackStarted, e.ServerRolledBack, e.RolledBack)
            about_it = getattr(event, "subject", "") == "rollback"
            assert about_it or isinstance(event, (*rollback, e.PublicRestored, e.MainframeServed))
            assert self.state.stage in (before.stage, Stage.ROLLED_BACK)
        return True

    @property
    def now(self) -> datetime:
        return at(self.clock)

    @property
    def asked(self) -> int:
        return self.state.askings.get("release", 0)

    @rule(seconds=st.integers(1, 60))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds

    @initialize(steps=st.integers(0, 12))
    def get_going(self, steps: int) -> None:
        way: list[Callable[[], object]] = [
            self.create,
            lambda: self.package(A),
            lambda: self.switch_public(B),
            self.push,
            self.start_verification,
            lambda: self.verify("passed"),
            lambda: self.open_gate(1, 60),
            lambda: self.ask(1, C),
            lambda: self.answer(0, "approve", True, True),
            self.promote,
            lambda: self.arrive(C),
            self.distribute,
        ]
        for step in way[:steps]:
            step()

    @rule()
    def create(self) -> None:
        self.offer(CREATED.model_copy(update={"at": self.now}))

    @rule(bundle=digests)
    def package(self, bundle: str) -> None:
        switched, before = self.state.switching, self.state.bundle
        if self.offer(e.Packaged(at=self.now, bundle=bundle, files=1, size=1, source=SOURCE)) and switched:
            assert bundle == before

    @rule(runs=maybe_digest)
    def switch_public(self, runs: str | None) -> None:
        self.offer(e.PublicSwitching(at=self.now, from_bundle=runs))

    @rule()
    def push(self) -> None:
        self.offer(e.Pushed(at=self.now, url="http://public"))

    @rule()
    def start_verification(self) -> None:
        self.offer(e.VerificationStarted(at=self.now))

    @rule(outcome=st.sampled_from(["passed", "attention", "failed"]))
    def verify(self, outcome: Any) -> None:
        self.offer(e.Verified(at=self.now, evidence=EVIDENCE, outcome=outcome, checks=PASSED))

    @rule(step=st.sampled_from([1, 1, 1, 0, 2]), lasts=st.integers(1, 120))
    def open_gate(self, step: int, lasts: int) -> None:
        opened = e.GateOpened(at=self.now, opening=self.state.openings + step, expires=at(self.clock + lasts))
        if self.offer(opened):
            assert step == 1

    @rule()
    def take_gate(self) -> None:
        self.offer(e.GateClaimed(at=self.now, run="r"))

    @rule(step=st.sampled_from([1, 1, 1, 0, 2]), runs=maybe_digest)
    def ask(self, step: int, runs: str | None) -> None:
        if self.offer(e.ApprovalRequested(at=self.now, ordinal=self.asked + step, target_bundle=runs)):
            assert step == 1

    @rule(
        back=st.sampled_from([0, 0, 0, 1]),
        decision=st.sampled_from(["approve", "approve", "reject"]),
        accepted=st.booleans(),
        numbered=st.sampled_from([True, True, False]),
    )
    def answer(self, back: int, decision: Any, accepted: bool, numbered: bool) -> None:
        gate, ordinal = self.state.gate, self.asked - back
        seq = self.highest_seq + 1 if numbered else None
        event = e.ApprovalAnswered(
            at=self.now, ordinal=ordinal, decision=decision, accepted=accepted, release_seq=seq if accepted else None
        )
        if not self.offer(event):
            return
        assert ordinal not in self.judged, "an answer is judged once"
        self.judged.add(ordinal)
        if not accepted:
            return
        assert gate is not None
        if decision == "approve":
            assert seq is not None
            assert self.now < gate.expires
            self.highest_seq = seq
            assert self.state.release_seq == seq
            assert self.state.omega_before == gate.target_bundle

    @rule(back=st.sampled_from([0, 0, 1]))
    def withdraw(self, back: int) -> None:
        ordinal = self.asked - back
        if self.offer(e.ApprovalWithdrawn(at=self.now, ordinal=ordinal, reason="the world has changed")):
            assert ordinal not in self.judged, "nobody has answered it"
            self.judged.add(ordinal)

    @rule()
    def void(self) -> None:
        if self.offer(e.DecisionVoid(at=self.now, reason="moved on")):
            self.sent_to_omega = False

    @rule()
    def promote(self) -> None:
        if self.offer(e.Promoting(at=self.now, operation="op")):
            self.sent_to_omega = True

    @rule(runs=maybe_digest)
    def arrive(self, runs: str | None) -> None:
        if self.offer(e.Promoted(at=self.now, from_bundle=runs, release_seq=self.highest_seq or 1)):
            assert self.sent_to_omega

    @rule()
    def distribute(self) -> None:
        self.offer(e.Distributed(at=self.now, mainframes=(MISSING,)))

    @rule(result=st.sampled_from(["running", "failed"]))
    def serve_late(self, result: Any) -> None:
        if self.offer(e.MainframeServed(at=self.now, mainframe=MISSING.model_copy(update={"result": result}))):
            assert [m.result for m in self.state.mainframes] == [result]

    @rule()
    def fail(self) -> None:
        self.offer(e.Failed(at=self.now, reason="r"))

    @rule()
    def cancel(self) -> None:
        before = self.state.stage
        if self.offer(e.Cancelled(at=self.now)):
            assert before in BEFORE_APPROVAL

    @rule()
    def expire(self) -> None:
        gate = self.state.gate
        if self.offer(e.Expired(at=self.now)):
            assert gate is not None
            assert self.now >= gate.expires

    @rule(to=maybe_digest)
    def restore_public(self, to: str | None) -> None:
        owed = self.state.owes_public
        if self.offer(e.PublicRestored(at=self.now, to_bundle=to)):
            assert owed
            assert not self.state.owes_public

    @rule()
    def start_rollback(self) -> None:
        if self.offer(e.RollbackStarted(at=self.now)):
            assert self.state.switching

    @rule(ordinal=st.integers(1, 3), proposal=maybe_digest)
    def ask_about_the_rollback(self, ordinal: int, proposal: str | None) -> None:
        changes = {"at": self.now, "ordinal": ordinal, "proposal": proposal}
        if self.offer(ROLLBACK_ASKED.model_copy(update=changes)):
            assert self.state.reached_omega
            assert not self.state.rolling_back

    @rule(
        name=st.sampled_from(["kim", "lee"]), ordinal=st.integers(1, 3), decision=st.sampled_from(["approve", "reject"])
    )
    def answer_about_the_rollback(self, name: str, ordinal: int, decision: str) -> None:
        gate = self.state.approvals.get("rollback")
        if self.offer(signed_back(name, at=self.now, ordinal=ordinal, decision=decision)):
            assert gate is not None
            assert not gate.decision
            keys = [one.keyid for one in self.state.approvals["rollback"].signatures]
            assert len(set(keys)) == len(keys)

    @rule(server=servers, to=maybe_digest)
    def roll_back_a_server(self, server: Any, to: str | None) -> None:
        if self.offer(e.ServerRolledBack(at=self.now, server=server, to_bundle=to)):
            assert self.state.rolling_back

    @rule()
    def roll_back(self) -> None:
        was = self.state.rolling_back
        if self.offer(e.RolledBack(at=self.now)):
            assert was
            assert self.state.stage is Stage.ROLLED_BACK

    @invariant()
    def the_version_counts_the_events(self) -> None:
        assert self.state.version == len(self.history)

    @invariant()
    def a_refusal_is_one_line(self) -> None:
        assert not any("\n" in refusal for refusal in self.refusals)

    @invariant()
    def the_state_is_the_fold(self) -> None:
        if self.history:
            assert fold("UPD-1", 1, self.history) == self.state

    @invariant()
    def nothing_is_promoted_without_an_accepted_approval(self) -> None:
        if self.state.reached_omega or self.state.stage in (Stage.DEPLOYING, Stage.DISTRIBUTING, Stage.COMPLETED):
            decision = self.state.decision
            assert decision is not None
            assert (decision.accepted, decision.decision) == (True, "approve")
            assert self.state.release_seq is not None

    @invariant()
    def what_reached_omega_is_never_pushed_again(self) -> None:
        assert self.state.reached_omega == self.sent_to_omega
        if self.sent_to_omega:
            assert not self.state.may_be_pushed_again

    @invariant()
    def whoever_awaits_an_answer_has_evidence_and_a_gate(self) -> None:
        if self.state.stage is Stage.AWAITING_APPROVAL:
            assert self.state.evidence is not None
            assert self.state.gate is not None
            assert self.state.gate.ordinal in (0, self.asked)
            assert self.state.outcome in ("passed", "attention")


Deployment.TestCase.settings = settings(max_examples=250, stateful_step_count=25, deadline=None)
TestDeployment = Deployment.TestCase


def test_what_came_of_the_migrate_step_is_kept_by_server_and_that_it_cannot_be_taken_back() -> None:
    events = [
        event.model_copy(update={e.Packaged: {"irreversible": True}}.get(type(event), {})) for event in THE_WHOLE_WAY
    ]
    events = [
        event.model_copy(update={"migrated": "done in 1.0 s"}) if isinstance(event, e.Pushed | e.Promoted) else event
        for event in events
    ]
    state = after(*events)
    assert state.irreversible
    assert state.migrated == {"public": "done in 1.0 s", "omega": "done in 1.0 s"}
    assert not after(*THE_WHOLE_WAY).irreversible
    assert after(*THE_WHOLE_WAY).migrated == {}


def test_public_may_be_restored_on_request_from_what_has_ended_only() -> None:
    asked = e.PublicRestored(at=at(9), to_bundle=B, asked=True)
    done = after(*THE_WHOLE_WAY)
    assert replace(apply(done, asked), version=done.version, updated_at=done.updated_at) == done
    with pytest.raises(SessionError, match="nothing to put back"):
        apply(after(*UP_TO_THE_GATE), asked)
    with pytest.raises(SessionError, match="nothing to put back"):
        apply(done, e.PublicRestored(at=at(9), to_bundle=B))
