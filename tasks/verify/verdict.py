"""What an answer counts for: under the policy, under the self-test, and after it was given. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ashat.verification.evidence import Evidence, EvidencedCheck
from ashat.verification.policy import Policy
from tasks.checks.kit.base import Check, CheckResult
from tasks.verify.proofs import SelfTestResult, has_seeded_faults, version_of


@dataclass(frozen=True)
class ReusedResult:
    """An answer that is taken over from earlier evidence, and when it was given."""

    result: CheckResult
    taken: datetime
    evidence: str


def apply_policy(check: Check, result: CheckResult, policy: Policy, proof: SelfTestResult | None) -> CheckResult:
    """`result` as it counts: a check that missed a seeded fault cannot pass, and the policy says what only warns.

    `proof` is what a self-test made of the check at this version, None where there was none. No policy lets a check
    pass that missed a fault.
    """
    result = _blocked(result, policy)
    if proof is not None and proof.missed:
        missed = f"{len(proof.missed)} of {proof.seeded} seeded faults, such as {proof.missed[0]!r}"
        return replace(result, outcome="fail", seen=f"untrusted, the self-test saw it miss {missed}: {result.seen}")
    if policy.requires_self_test and proof is None and result.outcome == "pass" and has_seeded_faults(check):
        seen = f"not proved by a self-test of this version (deploy verify --self-test): {result.seen}"
        result = replace(result, outcome="warn", seen=seen)
    return under_policy(result, policy)


def under_policy(result: CheckResult, policy: Policy) -> CheckResult:
    """`result`, as a failure where it warns and the policy lets nothing of that severity pass; as a warning where it
    failed and the policy says that it only warns."""
    result = _blocked(result, policy)
    if result.outcome == "fail" and result.name in policy.warns:
        result = replace(result, outcome="warn", seen=f"{result.seen} (under the policy this only warns)")
    return result


def _blocked(result: CheckResult, policy: Policy) -> CheckResult:
    warns = result.outcome == "warn" and any(policy.blocks(f.severity) for f in result.findings if f.severity != "low")
    return replace(result, outcome="fail") if warns else result


def skipped(check: Check) -> CheckResult:
    """What stands in the report for a check that the policy has not run."""
    return CheckResult(
        check.name, check.title, "inconclusive", "not run: the policy skips it", version=version_of(check)
    )


def reusable(
    earlier: Evidence,
    checks: Sequence[Check],
    proofs: Mapping[str, SelfTestResult],
    *,
    bundle: str,
    previous: str | None,
    policy: Policy,
    at: datetime,
) -> Mapping[str, ReusedResult]:
    """The passes of `earlier` that are still good, by the check's name.

    They are of the same bundle, release before, policy and code, young enough not to run out at once, and of checks
    that no self-test saw miss a fault since. Whoever asks has seen that Public ran nothing else since.
    """
    if earlier.bundle != bundle or earlier.policy_digest != policy.digest or earlier.public.ran_before != previous:
        return {}
    kept = {}
    for check in checks:
        found = earlier.check(check.name)
        if found is not None and check.name not in untrusted(proofs) and _good(found, check, policy, at):
            kept[check.name] = ReusedResult(
                CheckResult.from_json(found.result()), found.taken, found.reused_from or earlier.digest
            )
    return kept


def untrusted(proofs: Mapping[str, SelfTestResult]) -> frozenset[str]:
    """The names of the checks that a self-test saw miss a fault that was seeded for them."""
    return frozenset(name for name, proof in proofs.items() if proof.missed)


def _good(found: EvidencedCheck, check: Check, policy: Policy, at: datetime) -> bool:
    young = (at - found.taken).total_seconds() < policy.evidence_max_age / 2
    return young and found.outcome == "pass" and found.version == version_of(check)
