"""Verify an update on Public: rehearse its rollback, run the checks, record the evidence, and open the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed

from ashat import __version__
from ashat.bundle.manifest import Manifest
from ashat.common.canonical_json import digest_of
from ashat.common.failpoints import fault_point
from ashat.deployment.events import CheckOutcome, GateOpened, VerificationStarted, Verified
from ashat.deployment.restore import restore_target
from ashat.deployment.state import PreviousRelease
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeError, NodeRefusedError, NotConfiguredError, SessionError
from ashat.protocol.messages import Source
from ashat.raos_toml.load import raos_toml_of
from ashat.settings import Settings
from ashat.trust.release.machine_keys import machine_signer
from ashat.trust.release.provenance import Attestation, attest_evidence
from ashat.trust.tuf.metadata import VERIFIER
from ashat.verification.evidence import FORMAT, Evidence, EvidencedTarget
from ashat.verification.findings import OUTCOMES
from ashat.verification.policy import Policy
from blocks.policy import VerificationPolicy
from tasks.checks import all_checks, checks_for, run_check
from tasks.checks.kit.base import Check, CheckContext, CheckResult
from tasks.checks.kit.looks import take_look
from tasks.checks.performance import PerformanceCheck
from tasks.checks.runtime import RuntimeCheck
from tasks.checks.scan.lockfiles import declared_packages
from tasks.runtime.artifacts import escape, markdown_table, publish_markdown, publish_svg
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, run_id, whoami
from tasks.runtime.step import step
from tasks.servers.baseline import baseline_of, program_trust, promises_of
from tasks.servers.restore import runs_well
from tasks.verify.latency_plot import latency_svg
from tasks.verify.promises import taken_back, weakening
from tasks.verify.proofs import SELF_TEST, SelfTestResult, known_proofs, version_of
from tasks.verify.rehearsal import NAME as REHEARSAL
from tasks.verify.rehearsal import TITLE as REHEARSAL_TITLE
from tasks.verify.rehearsal import VERSION as REHEARSAL_VERSION
from tasks.verify.rehearsal import Rehearsed, rehearse, taken_over
from tasks.verify.sbom import sbom_of
from tasks.verify.verdict import ReusedResult, apply_policy, reusable, skipped, under_policy

_COMPARING = {"performance", "api", "runtime"}
MARKS = {"pass": "✅", "fail": "❌", "warn": "⚠️", "inconclusive": "⚠️"}


@dataclass(frozen=True)
class Report:
    """What a verification found. `kept` are the results reused from earlier evidence, by the check's name."""

    began: datetime
    results: tuple[CheckResult, ...]
    taken: Mapping[str, datetime]
    kept: Mapping[str, ReusedResult]
    rehearsed: Rehearsed
    policy: Policy
    proofs: Mapping[str, SelfTestResult]
    target: EvidencedTarget
    sbom: dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """Hold what a verification asks: its checks, in order, and which answers of `earlier` evidence are `kept`."""

    checks: list[Check]
    kept: Mapping[str, ReusedResult]
    earlier: Evidence | None
    proofs: Mapping[str, SelfTestResult]


def start_verification(d: Deployment, policy: str) -> State:
    """Record that the checks begin.

    Raises:
        SessionError: the deployment is not at a stage that can be verified.
    """
    return d.advance(lambda _: VerificationStarted(at=now(), by=whoami(), run=run_id(), policy=policy))


def run_checks(d: Deployment, holder: str, block: VerificationPolicy, *, fresh: bool = False) -> Report:
    """Rehearse the rollback, then run every check against Public: side by side, but those that disturb others alone.

    Answers of earlier evidence that are still good are taken over, unless `fresh`.
    """
    began, policy, state = now(), block.policy(), d.state
    before = restore_target(state, d.ledger.find)
    target = _look_at_target(d)
    context = context_of(d, state, before, block)
    planned = answers_to_keep(d, state, context, fresh=fresh, began=began)
    checks, kept, earlier, proofs = planned.checks, planned.kept, planned.earlier, planned.proofs
    watched = not {RuntimeCheck.name} & {*kept, *policy.skips}
    context = replace(context, first=take_look(context.public, context.manifest) if watched else None)
    rehearsed = _rehearse(state, context, before, holder, earlier if kept.keys() >= _COMPARING else None)
    started = take_look(context.public, None) if watched else None
    context = replace(context, rehearsal=rehearsed.rehearsal, started=started)
    found = _run([check for check in checks if check.name not in kept], context, proofs)
    taken = dict.fromkeys(found, now())
    for name, answer in kept.items():
        found[name] = _reported(answer.result)
        taken[name] = answer.taken
    results = tuple(found[check.name] for check in checks)
    if rehearsed.result is not None:
        results = (*results, rehearsed.result)
        taken[rehearsed.result.name] = rehearsed.at
    if loosens := _loosening(d, target, context):
        results = (*results, _reported(loosens))
        taken[loosens.name] = now()
    sbom = sbom_of(context.raos.raos.name, context.raos.raos.version, context.manifest, declared_packages(context))
    return Report(began, results, taken, kept, rehearsed, policy, proofs, target, sbom)


def answers_to_keep(d: Deployment, state: State, context: CheckContext, *, fresh: bool, began: datetime) -> Planned:
    """Plan which checks are run in a verification that `began` then, and which earlier answers are good still."""
    earlier = Evidence.read(d.ledger.document(state.evidence_before)) if state.evidence_before else None
    proofs, checks = known_proofs(d.ledger.newest(SELF_TEST)), checks_for(context.raos)
    previous = context.previous.digest if context.previous else None
    seen = d.public.state().current
    if fresh or earlier is None or seen is None or seen.since > datetime.fromisoformat(earlier.ended):
        return Planned(checks, {}, earlier, proofs)
    kept = reusable(earlier, checks, proofs, bundle=context.bundle, previous=previous, policy=context.policy, at=began)
    return Planned(checks, kept, earlier, proofs)


def _rehearse(
    state: State, context: CheckContext, before: PreviousRelease, holder: str, earlier: Evidence | None
) -> Rehearsed:
    """Rehearse the rollback, or reuse the rehearsal of `earlier` evidence, if that is given."""
    if not context.policy.rehearses:
        return Rehearsed(context.previous.digest if context.previous else None, now())

    @task(name="rehearse-rollback", description=REHEARSAL_TITLE, cache_policy=NO_CACHE, persist_result=False)
    def back_and_forward() -> Rehearsed:
        with reporter().doing(REHEARSAL_TITLE):
            return rehearse(state, context, before, holder)

    rehearsed = (taken_over(earlier) if earlier else None) or back_and_forward()
    if rehearsed.result is None:
        return rehearsed
    result = rehearsed.result
    if result.outcome != "fail" or runs_well(context.public, context.bundle):  # else no policy makes it a warning
        result = under_policy(result, context.policy)
    return replace(rehearsed, result=_reported(result))


def _run(checks: list[Check], context: CheckContext, proofs: Mapping[str, SelfTestResult]) -> dict[str, CheckResult]:
    policy = context.policy
    wanted = [check for check in checks if check.name not in policy.skips]
    found = {check.name: _reported(skipped(check)) for check in checks if check.name in policy.skips}
    together = {_submit(check, context): check for check in wanted if not check.alone}
    for future in as_completed(list(together)):
        check = together[future]
        found[check.name] = _reported(apply_policy(check, future.result(), policy, proofs.get(check.name)))
    for check in sorted(wanted, key=lambda check: check.last):
        if check.alone:
            found[check.name] = _reported(
                apply_policy(check, _submit(check, context).result(), policy, proofs.get(check.name))
            )
    return found


@step("record-evidence", description="Keep the evidence under its digest, and write down how the checks ended.")
def record_evidence(d: Deployment, report: Report) -> State:
    """Keep the evidence in the ledger, and record the outcome; once."""
    state = d.state
    if state.stage is not Stage.TESTING:
        raise SessionError(f"Deployment '{d.update_id}' is {state.stage.value} by now: these checks came too late.")
    evidence, sbom = evidence_of(state, report), d.ledger.put_document("sbom", report.sbom)
    digest = d.ledger.put_document("evidence", evidence.document())
    fault_point("verify.evidence-kept")
    attestation = d.ledger.put_document("attestation", _attested(evidence))
    fault_point("verify.attested")
    results = report.results
    outcomes = tuple(CheckOutcome(name=r.name, title=r.title, outcome=r.outcome, seen=r.seen) for r in results)
    event = Verified(
        at=now(),
        by=whoami(),
        evidence=digest,
        outcome=outcome_of(results),
        checks=outcomes,
        rolls_back=report.policy.rolls_back,
        attestation=attestation,
        sbom=sbom,
    )
    state = d.advance(lambda newest: event if newest.evidence != digest else None)
    fault_point("verify.recorded")
    return state


def open_gate(d: Deployment) -> State:
    """Record that the gate is open for a person's decision, until its time is over; once an evidence."""
    expires = now() + timedelta(seconds=Settings().gate_timeout)

    def opened(state: State) -> GateOpened | None:
        if state.stage is not Stage.TESTING:
            return None
        return GateOpened(at=now(), by=whoami(), opening=state.openings + 1, expires=expires)

    state = d.advance(opened)
    fault_point("gate.opened")
    return state


def outcome_of(results: tuple[CheckResult, ...]) -> Literal["passed", "attention", "failed"]:
    """Sum up the checks' results: one failure fails, anything unclear asks for a person's attention."""
    outcomes = {result.outcome for result in results}
    if not results or "fail" in outcomes:
        return "failed"
    return "passed" if outcomes == {"pass"} else "attention"


def evidence_of(state: State, report: Report) -> Evidence:
    """Write the evidence document of a verification of `state`."""
    reused = {name: kept.evidence for name, kept in report.kept.items()}
    if report.rehearsed.result is not None and report.rehearsed.reused:
        reused[report.rehearsed.result.name] = report.rehearsed.reused
    checks = [
        {
            **result.as_json(),
            "at": report.taken[result.name].isoformat(),
            "reused_from": reused.get(result.name),
        }
        for result in report.results
    ]
    run = {result.name for result in report.results}
    proofs = {name: proof.as_evidence() for name, proof in report.proofs.items() if name in run}
    return Evidence.read(
        {
            "format": FORMAT,
            "tool": __version__,
            "update_id": state.update_id,
            "attempt": state.attempt,
            "bundle": state.bundle,
            "version": state.bundle_version,
            "source": _evidenced(state.source) if state.source else None,
            "public": {"name": state.the_public, "url": state.public_url, "ran_before": report.rehearsed.previous},
            "target": report.target.model_dump(mode="json"),
            "policy": report.policy.model_dump(mode="json"),
            "policy_digest": report.policy.digest,
            "rehearsal": report.rehearsed.as_evidence(),
            "self_test": {name: proof.model_dump(mode="json") for name, proof in proofs.items()} or None,
            "began": report.began.isoformat(),
            "ended": now().isoformat(),
            "outcome": outcome_of(report.results),
            "checks": checks,
            "sbom": digest_of(report.sbom),
            **({"tasks": list(state.tasks)} if state.tasks else {}),
        }
    )


def current_versions(policy: Policy) -> dict[str, str]:
    """List the versions of this install's checks by name, and the rehearsal's if the policy wants one."""
    versions = {check.name: version_of(check) for check in all_checks()}
    return versions | ({REHEARSAL: REHEARSAL_VERSION} if policy.rehearses else {})


def publish_checks(state: State) -> None:
    """Leave the table of the checks with the flow run."""
    checks = sorted(state.checks, key=lambda check: list(OUTCOMES).index(check.outcome))
    rows = [(f"{MARKS[c.outcome]} {c.outcome}", escape(c.title), escape(c.seen)) for c in checks]
    page = (
        f"# Verification of {escape(state.update_id)}\n\n"
        f"Outcome: **{state.outcome}**. Evidence: `{state.evidence}`.\n\n"
        + markdown_table(("result", "check", "seen"), rows)
    )
    publish_markdown(f"verification-{state.update_id}-{state.attempt}", page, "What each check saw")


def publish_latencies(state: State, report: Report) -> None:
    """Leave a drawing of both releases' latencies with the flow run, if performance was compared."""
    series = next((result.series for result in report.results if result.name == PerformanceCheck.name), {})
    if series.get("new_us") and series.get("old_us"):
        publish_svg(
            f"latency-{state.update_id}-{state.attempt}",
            latency_svg(series["new_us"], series["old_us"]),
            "How long both releases' answers took",
        )


def context_of(d: Deployment, state: State, before: PreviousRelease, block: VerificationPolicy) -> CheckContext:
    """Gather what the checks of `state` may look at on Public, which ran `before` before it.

    Raises:
        SessionError: it has no bundle, or Public does not say where its program answers.
    """
    if state.bundle is None:
        raise SessionError(f"Deployment '{state.update_id}' has no bundle.")
    public = d.public
    manifest = _held(d, state.bundle, f"'{state.update_id}'")
    seen = public.state()
    if seen.app.url is None:
        raise SessionError(
            f"{public.name} does not say where its program answers: set [app] url in its node.toml, then verify again."
        )
    compared = before.bundle if before.bundle != state.bundle else None
    previous = _held(d, compared, f"'{before.update_id}', which ran before,") if compared else None
    return CheckContext(
        public=public,
        app_url=seen.app.url,
        manifest=manifest,
        previous=previous,
        previous_raos=promises_of(public, previous) if previous else None,
        same_before=before.bundle == state.bundle,
        baseline=baseline_of(d, state, before) if previous else None,
        raos=raos_toml_of(manifest, lambda path: public.file_bytes(manifest, path)),
        bundle=state.bundle,
        source=lambda path: public.file_bytes(manifest, path),
        policy=block.policy(),
        credentials=block.secrets(),
        tls=program_trust(d.public_server) if seen.app.url.startswith("https:") else None,
    )


def _evidenced(source: Source) -> dict[str, Any]:
    """What the evidence says of where the tree came from."""
    left_out = {"contains", "differences", "history_cut", "committed"} | (set() if source.artifact else {"artifact"})
    return source.model_dump(mode="json", exclude=left_out)


def _held(d: Deployment, bundle: str, named: str) -> Manifest:
    """Fetch a manifest that Public has to hold.

    Raises:
        SessionError: Public does not hold it.
    """
    try:
        return d.public.manifest(bundle)
    except NodeRefusedError as error:
        if error.status != 404:
            raise
        raise SessionError(
            f"{d.the_public} lost the bundle of {named} {bundle[:12]}: deploy heal {d.public_name} brings it back, or "
            "push the same tree again. Then verify again."
        ) from None


def _loosening(d: Deployment, target: EvidencedTarget, context: CheckContext) -> CheckResult | None:
    """Warn that the release promises less than what the target runs, or, if the target does not answer, than what ran
    before on Public."""
    new = context.manifest
    if target.bundle is not None and target.bundle != new.digest:
        try:
            old = d.target.manifest(target.bundle)
            return weakening(taken_back(promises_of(d.target, old), context.raos, old, new), target.name)
        except NodeError as error:
            target = target.model_copy(update={"unknown": str(error)})
    if not target.unknown:
        return None
    return weakening(taken_back(context.previous_raos, context.raos, context.previous, new), d.the_public)


def _look_at_target(d: Deployment) -> EvidencedTarget:
    try:
        current = d.target.state().current
    except (NodeError, NotConfiguredError) as error:
        return EvidencedTarget(name=d.the_target, bundle=None, unknown=str(error))
    return EvidencedTarget(name=d.the_target, bundle=current.bundle if current else None, unknown="")


def _attested(evidence: Evidence) -> Attestation:
    return attest_evidence(
        machine_signer(Settings().ensure_home(), VERIFIER),
        bundle=evidence.bundle,
        evidence=evidence.digest,
        outcome=evidence.outcome,
        policy=evidence.policy_digest,
    )


def _submit(check: Check, context: CheckContext) -> PrefectFuture[CheckResult]:
    @task(name=f"check-{check.name}", description=check.title, cache_policy=NO_CACHE, persist_result=False)
    def verify() -> CheckResult:
        limited = replace(context, time_limit=context.policy.limit_of(check.name))
        with reporter().doing(check.title):
            return replace(run_check(check, limited), version=version_of(check))

    return verify.submit()


def _reported(result: CheckResult) -> CheckResult:
    reporter().check(result)
    return result
