"""The gate's judgement, and the Markdown that a person is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ashat.deployment.approval_rules import Answer, ApprovalContext, pushers, refusal, stale_reason
from ashat.deployment.events import RolloutBegan
from ashat.deployment.rollout_rules import began
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import Stage, State
from ashat.errors import SessionError
from ashat.protocol.messages import Source
from ashat.verification.evidence import Evidence
from ashat.verification.policy import Policy
from tasks.runtime.artifacts import artifact_key, escape

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVIDENCE = "0" * 56 + "abcd1234"
OLD = "1" * 64
ASKED = ApprovalRequest(
    "release", AT + timedelta(days=1), "UPD-1", 1, EVIDENCE, run="run", ordinal=1, target_bundle=OLD, answered=False
)
WAITING = State(
    update_id="UPD-1",
    attempt=1,
    version=9,
    stage=Stage.AWAITING_APPROVAL,
    bundle="2" * 64,
    evidence=EVIDENCE,
    outcome="passed",
    verified_at=AT - timedelta(hours=1),
    approvals={"release": ASKED},
    askings={"release": 1},
)
SHUT = WAITING.with_request(replace(ASKED, obstacle="omega does not answer", target_bundle=None))
BOUND = WAITING.with_request(replace(ASKED, rollout_policy="4" * 64))
WORLD = ApprovalContext(now=AT, target_bundle=OLD)
YES = Answer("approve", "abcd1234", "kim")


def test_who_pushed_is_known_by_every_name_that_was_told() -> None:
    source = Source(name="raos", who="Kim Park <kim.park@example.com>")
    pushed = replace(WAITING, pushed_by="kim@alpha", source=source)
    assert pushers(pushed, "Alpha") == {"kim", "kim@alpha", "kim park", "kim.park", "alpha"}
    assert pushers(replace(WAITING, pushed_by="", source=None)) == frozenset()


def test_an_approval_with_the_right_tail_counts() -> None:
    assert refusal(WAITING, "release", YES, WORLD) == ""
    for typed in (" ABCD1234 ", EVIDENCE, EVIDENCE[-9:], f"`{EVIDENCE[:32]}` `{EVIDENCE[32:]}`"):
        assert refusal(WAITING, "release", replace(YES, evidence=typed), WORLD) == ""


@pytest.mark.parametrize(
    ("state", "answer", "world", "telling"),
    [
        (WAITING, replace(YES, evidence="abcd1235"), WORLD, "last 8 characters"),
        (WAITING, replace(YES, evidence=""), WORLD, "last 8 characters"),
        (WAITING, replace(YES, evidence=EVIDENCE[-7:]), WORLD, "last 8 characters"),
        (WAITING, replace(YES, evidence=f"1{EVIDENCE}"), WORLD, "last 8 characters"),
        (WAITING, replace(YES, evidence=EVIDENCE[:8]), WORLD, "last 8 characters"),
        (WAITING, YES, replace(WORLD, target_bundle="3" * 64), "runs something else"),
        (WAITING, YES, replace(WORLD, target_bundle=None), "runs something else"),
        (SHUT, YES, WORLD, "nobody could approve it when this was asked: omega does not answer"),
        (WAITING, YES, replace(WORLD, target_missing="No server 'omega' is configured"), "No server 'omega'"),
        (WAITING, YES, replace(WORLD, now=AT + timedelta(days=2)), "could be answered until"),
        (BOUND, YES, replace(WORLD, rollout_policy="5" * 64), "the rollout policy is another one than when this was"),
        (BOUND, YES, WORLD, "the rollout policy is another one than when this was"),
        (WAITING, YES, replace(WORLD, decay="the policy changed"), "the policy changed: deploy verify UPD-1"),
        (replace(WAITING, outcome="attention"), YES, WORLD, "needs a comment"),
        (replace(WAITING, stage=Stage.DEPLOYING), YES, WORLD, "awaits no approval"),
        (replace(WAITING, stage=Stage.CANCELLED), replace(YES, decision="reject"), WORLD, "awaits no approval"),
    ],
)
def test_an_answer_that_does_not_count_is_refused_with_its_reason(
    state: State, answer: Answer, world: ApprovalContext, telling: str
) -> None:
    assert telling in refusal(state, "release", answer, world)


def test_an_approval_counts_for_the_rollout_policy_that_was_shown() -> None:
    assert refusal(BOUND, "release", YES, replace(WORLD, rollout_policy="4" * 64)) == ""
    none = WAITING.with_request(replace(ASKED, rollout_policy=""))
    assert refusal(none, "release", YES, WORLD) == ""
    assert "another one" in refusal(none, "release", YES, replace(WORLD, rollout_policy="4" * 64))
    assert refusal(BOUND, "release", replace(YES, decision="reject"), WORLD) == ""


def test_a_rollout_begins_by_the_policy_that_was_approved_and_no_other() -> None:
    def begun(policy: str) -> State:
        event = RolloutBegan(at=AT, rollout="UPD-1.1.1", policy=policy, waves=(("all", 1),))
        return began(replace(BOUND, stage=Stage.DISTRIBUTING), event)

    assert begun("4" * 64).rollout is not None
    with pytest.raises(SessionError, match="by another policy than the one that was approved: somebody else began"):
        begun("5" * 64)


def test_attention_is_approved_with_a_comment() -> None:
    assert (
        refusal(replace(WAITING, outcome="attention"), "release", replace(YES, comment="known, harmless"), WORLD) == ""
    )


def test_a_reject_counts_whatever_was_typed_and_wherever_the_target_is() -> None:
    no = Answer("reject", "", "kim")
    assert refusal(WAITING, "release", no, replace(WORLD, target_bundle="3" * 64, target_missing="gone")) == ""


def evidence(**changes: Any) -> Evidence:
    """Evidence taken an hour ago under the built-in policy, while the target ran `OLD`."""
    check = {
        "name": "health", "title": "Server health", "version": "2+c0de", "outcome": "pass", "seen": "well",
        "findings": [], "inputs": {}, "figures": {}, "series": {}, "milliseconds": 5,
        "at": (AT - timedelta(hours=1)).isoformat(), "reused_from": None,
    }  # fmt: skip
    document = {
        "format": "ashat-evidence/2", "tool": "0.1.0", "update_id": "UPD-1", "attempt": 1, "bundle": "2" * 64,
        "version": "9.4.1", "source": None, "public": {"name": "public", "url": "http://x", "ran_before": None},
        "target": {"name": "omega", "bundle": OLD, "unknown": ""}, "policy": Policy().model_dump(mode="json"),
        "policy_digest": Policy().digest, "rehearsal": None, "self_test": None,
        "began": AT.isoformat(), "ended": AT.isoformat(), "outcome": "passed", "checks": [check],
    }  # fmt: skip
    return Evidence.read({**document, **changes})


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({}, ""),
        ({"now": AT + timedelta(days=3)}, "older than 72 hours"),
        ({"policy": Policy(warns=["security"])}, "the verification policy is another one"),
        ({"versions": {"health": "2+0ther"}}, "the check Server health is another one than when it was run"),
        ({"versions": {"health": "2+c0de", "seventh": "1+c0de"}}, "the check seventh is not in the evidence"),
        ({"target_bundle": "3" * 64}, "omega runs something else than when this was verified"),
        ({"target_bundle": None}, "omega runs something else than when this was verified"),
        ({"untrusted": ["health"]}, "the check Server health is untrusted by now: a self-test saw it miss"),
        ({"untrusted": ["security"]}, ""),
    ],
)
def test_evidence_decays(changes: dict[str, Any], telling: str) -> None:
    world = {"now": AT, "policy": Policy(), "versions": {"health": "2+c0de"}, "target_bundle": OLD}
    found = stale_reason(evidence(), **{**world, **changes})
    assert telling in found
    assert bool(found) == bool(telling)


def test_what_nobody_could_see_does_not_decay() -> None:
    unseen = evidence(target={"name": "omega", "bundle": None, "unknown": "no server of that name is configured"})
    assert stale_reason(unseen, now=AT, policy=Policy(), versions={}, target_bundle="3" * 64) == ""


def test_text_of_a_release_cannot_become_markup() -> None:
    hostile = "**bold** <script>alert(1)</script> [x](http://e.example) | a |\n# head `code` {{ jinja }}"
    shown = escape(hostile)
    assert "<" not in shown
    assert "\n" not in shown
    for mark in "*[]|#`{}":
        assert all(shown[index - 1] == "\\" for index, char in enumerate(shown) if char == mark), mark


def test_artifact_keys_are_what_prefect_takes() -> None:
    assert artifact_key("plan-UPD_1.2-3") == "plan-upd-1-2-3"
    assert artifact_key("…") == "artifact"
