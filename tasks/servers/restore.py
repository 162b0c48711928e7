"""Bring Public back to a release that was approved, when what runs there came to nothing and cannot be put back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ashat.client.node import NodeClient
from ashat.common.identifiers import name_of_release
from ashat.deployment.events import PublicRestored
from ashat.deployment.restore import restore_target
from ashat.deployment.stages import Stage
from ashat.deployment.state import PreviousRelease
from ashat.deployment.state_machine import State
from ashat.errors import AshatError, NodeRefusedError, SessionError, SwitchFailedError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Current, OperationRequest
from tasks.checks.kit.base import CheckResult, Finding, one_line
from tasks.runtime.connections import this_run
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami
from tasks.servers.public import STUCK, change, public_lease, settled

_APPROVED = (Stage.COMPLETED, Stage.DISTRIBUTING)


@dataclass(frozen=True)
class Restored:
    """What Public runs now; `before` is what ran, and `changed` whether that was another or was not well."""

    runs: PreviousRelease
    before: str
    changed: bool


def restore_public(public: str, update_id: str = "", reason: str = "") -> Restored:
    """Let the Public Server of that name run `update_id`'s release, "": the last that was approved, under its lease.

    Raises:
        SessionError: an update is under way there, or there is nothing to bring it back to; nothing was changed.
        SwitchFailedError: the release did not become healthy; the message says what runs.
        NodeError: a server does not answer.
    """
    opened = this_run()
    client, ledger = opened.client(public), opened.ledger
    found, target, recorded = _chosen(client, ledger, public, update_id)
    with public_lease(Deployment(opened, recorded), "restore") as holder:
        found = _standing(client, ledger, public)
        _refuse_under_way(found, target)
        if _is_well(client, found, target):
            return Restored(target, found.name, changed=False)
        if target.bundle is not None:
            _bring(client, ledger, target)
        _switch(client, found, target, holder, reason)
    _record(ledger, found.update or recorded, target)
    return Restored(target, found.name, changed=True)


def plan_restore(public: str, update_id: str = "") -> Restored:
    """Say what `restore_public` would let Public run, from what runs there now; raises as that does."""
    opened = this_run()
    client = opened.client(public)
    found, target, _ = _chosen(client, opened.ledger, public, update_id)
    return Restored(target, found.name, changed=not _is_well(client, found, target))


@dataclass(frozen=True)
class _Standing:
    """What Public runs, and the update of ours that brought it; None where none did."""

    current: Current | None
    update: State | None

    @property
    def bundle(self) -> str | None:
        return self.current.bundle if self.current else None

    @property
    def name(self) -> str:
        return name_of_release(self.bundle, self.current.update_id if self.current else "")


def _chosen(
    client: NodeClient, ledger: Ledger, public: str, update_id: str
) -> tuple[_Standing, PreviousRelease, State]:
    """Look at what runs, choose what Public is brought back to, and find the update under whose lease that is done."""
    found = _standing(client, ledger, public)
    target = _target(ledger, public, update_id, found.update)
    recorded = found.update or (ledger.load(target.update_id, target.attempt) if target.update_id else None)
    if recorded is None:
        raise SessionError(f"Nothing was pushed to {client.name} yet: deploy push.")
    _refuse_under_way(found, target)
    return found, target, recorded


def _is_well(client: NodeClient, found: _Standing, target: PreviousRelease) -> bool:
    return found.bundle == target.bundle and (target.bundle is None or client.probe_health().healthy)


def _standing(client: NodeClient, ledger: Ledger, public: str) -> _Standing:
    current = settled(client).current
    update = ledger.find(current.update_id, current.attempt) if current else None
    ours = update is not None and current is not None and (update.public, update.bundle) == (public, current.bundle)
    return _Standing(current, update if ours else None)


def _target(ledger: Ledger, public: str, update_id: str, on_public: State | None) -> PreviousRelease:
    if update_id:
        state = ledger.load(update_id)
        if state.stage not in _APPROVED or state.public != public:
            raise SessionError(
                f"Deployment '{update_id}' is {state.stage.value}, on {state.the_public}: {public} is brought back "
                "only to a release that was approved after it ran there; deploy history lists them."
            )
        return PreviousRelease(state.bundle, state.update_id, state.attempt)
    stages = tuple(stage.value for stage in _APPROVED)
    for summary in sorted(ledger.summaries(stages=stages), key=lambda each: each["release_seq"] or 0, reverse=True):
        if summary["public"] == public and not summary["rolling_back"]:
            return PreviousRelease(summary["bundle"], summary["update_id"], summary["attempt"])
    if on_public is None:
        raise SessionError(f"No release was approved yet that ran on {public}: push one (deploy push).")
    return restore_target(on_public, ledger.find)


def _refuse_under_way(found: _Standing, target: PreviousRelease) -> None:
    state = found.update
    if state is None or (state.update_id, state.attempt) == (target.update_id, target.attempt):
        return
    if state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' is being rolled back; wait for that: deploy status.")
    if not state.ended:
        raise SessionError(
            f"Deployment '{state.update_id}' runs on {state.the_public} and is {state.stage.value}; nothing was "
            f"changed. To give it up and put Public back: deploy cancel {state.update_id}."
        )


def _bring(client: NodeClient, ledger: Ledger, target: PreviousRelease) -> None:
    """See that Public has the bundle, or copy it from the server that it was approved for."""
    assert target.bundle is not None
    try:
        client.manifest(target.bundle)
        return
    except NodeRefusedError as error:
        if error.status != 404:
            raise
    named, state = name_of_release(target.bundle, target.update_id), ledger.find(target.update_id, target.attempt)
    try:
        if state is None:
            raise SessionError("nobody knows which server it was approved for")
        omega = this_run().client(state.target)
        omega.relay_bundle(client, target.bundle)
    except AshatError as error:
        raise SessionError(
            f"{client.name} does not have {named} any more, and it cannot be had: {error} Push its tree again under a "
            "new id (deploy push)."
        ) from None
    reporter().say(f"{omega.name} had {named}: every byte is on {client.name} again")


def _switch(client: NodeClient, found: _Standing, target: PreviousRelease, holder: str, reason: str) -> None:
    by = found.current
    request = OperationRequest(
        action="switch",
        bundle=target.bundle,
        expected_current=found.bundle,
        update_id=target.update_id or (by.update_id if by else "restore"),
        attempt=target.attempt or (by.attempt if by else 1),
        holder=holder,
        reason=f"restore{f': {reason}' if reason else ''}"[:1000],
    )
    try:
        change(client, request)
    except SwitchFailedError as error:
        raise SwitchFailedError(
            f"{error} {runs_now(client)} Name another release that was approved (deploy public restore ID), or push "
            "a fix.",
            error.output,
        ) from None


def _record(ledger: Ledger, state: State, target: PreviousRelease) -> None:
    event = PublicRestored(
        at=now(), by=whoami(), to_bundle=target.bundle, to_update=target.update_id, asked=not state.owes_public
    )
    ledger.advance(state.update_id, state.attempt, lambda _: event)


def told_what_runs(client: NodeClient, bundle: str | None, result: CheckResult) -> CheckResult:
    """Add to a rehearsal of `bundle` that failed what the server runs since, and what to do."""
    if result.outcome != "fail":
        return result
    shut = "" if runs_well(client, bundle) else "The gate stays shut. "
    told = Finding("high", one_line(f"{runs_now(client)} {shut}{STUCK}", 600))
    return replace(result, findings=(*result.findings, told))


def runs_well(client: NodeClient, bundle: str | None) -> bool:
    """Tell whether the server runs `bundle` and is healthy; False where it does not answer."""
    try:
        current = client.state().current
        return current is not None and current.bundle == bundle and client.probe_health().healthy
    except AshatError:
        return False


def runs_now(client: NodeClient) -> str:
    """Say in a sentence what the server runs, and how that is; never raises because it does not answer."""
    try:
        current, probe = client.state().current, client.probe_health()
    except AshatError as error:
        return f"What {client.name} runs now cannot be told: {error}"
    if current is None:
        return f"{client.name} runs nothing now."
    how = "and is healthy" if probe.healthy else f"and is not well: {probe.detail or probe.status}"
    return f"{client.name} runs {name_of_release(current.bundle, current.update_id)} now, {how}."
