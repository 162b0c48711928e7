"""What a check's answer counts for: under the policy, under the self-test, and after it was given."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from datetime import datetime, timedelta

import pytest

from ashat.raos_toml.schema import OwnCheck
from ashat.verification.evidence import Evidence
from ashat.verification.policy import Policy
from tasks.checks.database import DatabaseCheck
from tasks.checks.health import HealthCheck
from tasks.checks.kit.base import CheckResult, Finding
from tasks.checks.release_defined import PREFIX, own_check
from tasks.selftest.faults import catalogue
from tasks.verify.promises import weakening
from tasks.verify.proofs import (
    SHIPPED,
    SelfTestResult,
    code_version,
    known_proofs,
    proofs_document,
    proofs_of,
    version_of,
)
from tasks.verify.verdict import apply_policy, reusable, skipped, under_policy
from tests.unit.deployment.test_approval_rules import AT, OLD, evidence

CHECK = HealthCheck()
MINE = version_of(CHECK)
PROVED = SelfTestResult(MINE, 8)


def told(outcome: str, severity: str = "") -> CheckResult:
    findings = [Finding(severity, "something", "rule", "path")] if severity else []  # type: ignore[arg-type]
    return CheckResult("health", "Server health", outcome, "seen", tuple(findings), version=MINE)  # type: ignore[arg-type]


def test_an_answer_counts_as_it_is_under_the_built_in_policy() -> None:
    for result in (told("pass"), told("warn", "medium"), told("fail", "high"), told("inconclusive")):
        assert apply_policy(CHECK, result, Policy(), PROVED) == result


def test_the_policy_says_what_blocks_and_what_only_warns() -> None:
    assert apply_policy(CHECK, told("warn", "medium"), Policy(blocks_from="medium"), PROVED).outcome == "fail"
    lenient = apply_policy(CHECK, told("fail", "high"), Policy(warns=["health"]), None)
    assert (lenient.outcome, lenient.seen) == ("warn", "seen (under the policy this only warns)")
    assert apply_policy(CHECK, told("fail", "high"), Policy(warns=["security"]), None).outcome == "fail"


def test_a_check_that_missed_a_seeded_fault_cannot_pass() -> None:
    missed = SelfTestResult(MINE, 5, ("flapping=3",))
    found = apply_policy(CHECK, told("pass"), Policy(), missed)
    assert found.outcome == "fail"
    assert found.seen == "untrusted, the self-test saw it miss 1 of 5 seeded faults, such as 'flapping=3': seen"
    assert apply_policy(CHECK, told("pass"), Policy(warns=["health"]), missed).outcome == "fail", (
        "whatever the policy says"
    )


def test_the_policy_may_let_the_rehearsal_only_warn() -> None:
    failed = CheckResult("rehearsal", "Rollback rehearsal", "fail", "no way back")
    assert under_policy(failed, Policy()).outcome == "fail"
    assert under_policy(failed, Policy(warns=["rehearsal"])).outcome == "warn"


def test_promises_taken_back_are_one_warning() -> None:
    assert weakening([], "omega") is None
    found = weakening(["[health] ready is dropped", "[database] is dropped"], "omega")
    assert found is not None
    assert (found.outcome, len(found.findings)) == ("warn", 2)
    assert found.seen == "not all that the release on omega promised is kept: [health] ready is dropped, and 1 more"


def test_only_a_check_that_is_proved_passes_unless_the_policy_says_otherwise() -> None:
    assert apply_policy(CHECK, told("pass"), Policy(), None).outcome == "warn"
    assert apply_policy(CHECK, told("pass"), Policy(requires_self_test=False), None).outcome == "pass"
    assert apply_policy(CHECK, told("fail", "high"), Policy(), None).outcome == "fail"
    theirs = own_check(OwnCheck(name="mine", path="/"))
    answer = CheckResult(theirs.name, theirs.title, "pass", "well")
    assert apply_policy(theirs, answer, Policy(), None) == answer, "nobody can have seeded faults for it"


def test_what_is_shipped_proves_this_very_code() -> None:
    """After a change of a check: deploy verify --self-test --json > tasks/verify/proofs.json"""
    seeded = Counter(fault.check for fault in catalogue())
    shipped = proofs_of(json.loads(SHIPPED.read_text("utf-8")))
    assert {name: proof.seeded for name, proof in shipped.items()} == seeded
    assert not any(proof.missed for proof in shipped.values())
    built_in = {name: proof for name, proof in shipped.items() if not name.startswith(PREFIX)}
    assert known_proofs(None) == built_in, "what a release brings itself needs no proof"


def test_a_self_test_made_here_comes_first() -> None:
    missed = proofs_document({"health": SelfTestResult(MINE, 9, ("flapping=3",))})
    assert known_proofs(missed)["health"].missed == ("flapping=3",)
    old = proofs_document({"health": SelfTestResult("1+0ld", 9, ("flapping=3",))})
    assert known_proofs(old)["health"].missed == (), "that was other code"


def test_what_is_not_run_marks_the_gate() -> None:
    assert skipped(CHECK).outcome == "inconclusive"


def test_what_a_self_test_proved_is_kept_and_read() -> None:
    proofs = {"health": SelfTestResult(MINE, 5, ("flapping=3",)), "api": SelfTestResult("1+c0de", 8)}
    assert proofs_of(proofs_document(proofs)) == proofs
    assert proofs_of(None) == {}
    assert proofs_of({"format": "ashat-self-test/9", "checks": {}}) == {}
    assert (proofs["health"].as_evidence().caught, proofs["health"].as_evidence().seeded) == (4, 5)


def test_the_version_of_a_check_changes_with_its_code() -> None:
    assert version_of(CHECK) == version_of(HealthCheck)
    assert version_of(CHECK).partition("+")[2] == version_of(DatabaseCheck()).partition("+")[2]
    assert code_version("1", __file__) != code_version("1", str(inspect.getsourcefile(HealthCheck)))


def passed(**changes: object) -> Evidence:
    check = evidence().checks[0].model_dump(mode="json")
    return evidence(checks=[{**check, "version": MINE, **changes}])


def keep(
    found: Evidence,
    *,
    at: datetime = AT,
    previous: str | None = None,
    policy: Policy | None = None,
    proofs: dict[str, SelfTestResult] | None = None,
) -> set[str]:
    bundle = "2" * 64
    checks = [CHECK, DatabaseCheck()]
    kept = reusable(found, checks, proofs or {}, bundle=bundle, previous=previous, policy=policy or Policy(), at=at)
    return set(kept)


def test_a_pass_that_is_still_good_is_taken_over() -> None:
    found = passed()
    (kept,) = reusable(found, [CHECK], {}, bundle="2" * 64, previous=None, policy=Policy(), at=AT).values()
    assert (kept.result.outcome, kept.taken, kept.evidence) == ("pass", AT - timedelta(hours=1), found.digest)
    first = "9" * 64
    (again,) = reusable(
        passed(reused_from=first), [CHECK], {}, bundle="2" * 64, previous=None, policy=Policy(), at=AT
    ).values()
    assert again.evidence == first, "the evidence that it was first taken for"


@pytest.mark.parametrize("outcome", ["fail", "warn", "inconclusive"])
def test_what_did_not_pass_is_asked_again(outcome: str) -> None:
    assert keep(passed(outcome=outcome)) == set()


def test_what_is_stale_is_asked_again() -> None:
    assert keep(passed()) == {"health"}
    assert keep(passed(version="1+0ther")) == set(), "the check's code changed"
    assert keep(passed(), at=AT + timedelta(days=2)) == set(), "it would run out soon"
    assert keep(passed(), previous=OLD) == set(), "it was compared with another release"
    assert keep(passed(), policy=Policy(time_limit=9)) == set(), "the policy changed"
    other = Evidence.read({**passed().document(), "bundle": "4" * 64})
    assert keep(other) == set(), "it is about another bundle"


def test_a_pass_of_a_check_that_missed_a_fault_since_is_asked_again() -> None:
    assert keep(passed(), proofs={"health": PROVED}) == {"health"}
    assert keep(passed(), proofs={"health": SelfTestResult(MINE, 8, ("flapping=3",))}) == set()
