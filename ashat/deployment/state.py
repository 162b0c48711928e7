"""Hold what is known of a deployment: the fold of its events, as `ashat.deployment.state_machine` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from ashat.common.identifiers import name_of_server
from ashat.deployment import events as e
from ashat.deployment.reach import Reach
from ashat.deployment.rollout_record import RolloutRecord
from ashat.deployment.stages import ENDED, PUT_BACK, Stage
from ashat.protocol.messages import ReleaseSignature, Source

_DEATHS, _CRASHES = 2, 5
_FIRST_PAUSE = 60.0
_LONGEST_PAUSE = 3600.0
_STATUS = {
    Stage.PLANNING: "Pending",
    Stage.AWAITING_APPROVAL: "Pending",
    Stage.AWAITING_WINDOW: "Pending",
    Stage.PUSHED: "InProgress",
    Stage.TESTING: "InProgress",
    Stage.DEPLOYING: "InProgress",
    Stage.DISTRIBUTING: "InProgress",
}


@dataclass(frozen=True)
class ApprovalRequest:
    """Ask people whether `subject` may happen to an update; `decision` is "" until enough have signed, or one has
    rejected it.

    `update_id` and `attempt` are what would run by it, `evidence` is that of its verification. `ordinal` counts the
    askings, `reason` says why people are asked again, and `why` why they are asked at all. `target_bundle` is what the
    target ran by then. `proposal` is the digest of what is signed, `signatures` are those that came so far. `obstacle`
    says why nobody can approve it as things were when it was put. `since` is when people were first to be asked.
    `not_before` is the latest time before which one of those who approved does not want it to go, `override_freeze` why
    one of them lets it go although the target is closed.
    `rollout_policy` is the digest of the rollout policy that was shown ("": none could be used; None: it has no part in
    this), `rollout_policy_name` is what it is called.
    """

    subject: e.Subject
    expires: datetime
    update_id: str
    attempt: int
    evidence: str
    run: str = ""
    ordinal: int = 0
    why: str = ""
    target_bundle: str | None = None
    shown: str | None = None
    proposal: str | None = None
    signatures: tuple[ReleaseSignature, ...] = ()
    reason: str = ""
    obstacle: str = ""
    answered: bool = True
    decision: Literal["", "approve", "reject"] = ""
    decided_by: str = ""
    since: datetime | None = None
    not_before: datetime | None = None
    override_freeze: str = ""
    rollout_policy: str | None = None
    rollout_policy_name: str = ""

    @property
    def deciders(self) -> tuple[str, ...]:
        """Name who decided: everybody who signed, or whoever gave the one answer, as it names them: the key of the
        one-person mode signs for whatever name was typed."""
        if self.decision == "approve" and len(self.signatures) > 1:
            return tuple(signature.name for signature in self.signatures)
        return (self.decided_by,) if self.decided_by.strip() else ()

    def waits(self, now: datetime) -> bool:
        """Say whether it still may be answered."""
        return not self.decision and now < self.expires

    def summary(self) -> dict[str, Any]:
        """Summarise it for a list of what waits for people, JSON-ready."""
        return {
            "subject": self.subject,
            "update_id": self.update_id,
            "attempt": self.attempt,
            "since": self.since.isoformat() if self.since else None,
            "expires": self.expires.isoformat(),
            "evidence": self.evidence,
            "run": self.run,
            "ordinal": self.ordinal,
            "why": self.why,
            "obstacle": self.obstacle,
            "proposal": self.proposal,
            "signed": [signature.name for signature in self.signatures],
        }


class PreviousRelease(NamedTuple):
    """Name what Public ran at a moment: the bundle (None: nothing), and the update that brought it, if one of ours
    did."""

    bundle: str | None
    update_id: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class State:
    """Hold everything that is known of one attempt of one update. `version` counts its events.

    `public_ran` is what Public ran each time before it was switched to this update, the newest last; `baselines` are
    the digests of what was noted of each then, by its bundle. `built` is the digest of the builder's signed statement,
    `attested` that of the verifier's. `deciders` are all who signed the release, or who decided alone. `deaths` are the
    flow runs that died since anything went on. `irreversible` says that its migrate step cannot be
    taken back, `migrated` what came of that on each server, by the server's name. `window` says which server it waits
    for that is closed by a window or a freeze, `held` that Public was, and `overridden` where somebody let it go all
    the same.
    """

    update_id: str
    attempt: int
    version: int = 0
    stage: Stage = Stage.PLANNING
    description: str = ""
    info: str = ""
    target: str = "omega"
    public: str = "public"
    target_title: str = ""
    public_title: str = ""
    run: str = ""
    pushed_by: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    bundle: str | None = None
    bundle_version: str = ""
    files: int = 0
    size: int = 0
    source: Source | None = None
    commits: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    built: str | None = None
    irreversible: bool = False
    migrated: Mapping[str, str] = field(default_factory=dict)
    switching: bool = False
    public_ran: tuple[PreviousRelease, ...] = ()
    baselines: tuple[tuple[str, str], ...] = ()
    public_url: str = ""
    policy: str = "default"
    evidence: str | None = None
    evidence_before: str | None = None
    verified_at: datetime | None = None
    attested: str | None = None
    outcome: str = ""
    checks: tuple[e.CheckOutcome, ...] = ()
    approvals: Mapping[e.Subject, ApprovalRequest] = field(default_factory=dict)
    openings: int = 0
    askings: Mapping[e.Subject, int] = field(default_factory=dict)
    decision: e.ApprovalAnswered | None = None
    deciders: tuple[str, ...] = ()
    promoting: str | None = None
    omega_before: str | None = None
    release_seq: int | None = None
    rollout: RolloutRecord | None = None
    mainframes: tuple[e.MainframeOutcome, ...] = ()
    mainframes_counted: tuple[int, int] | None = None
    reason: str = ""
    output: tuple[str, ...] = ()
    failed_at: Stage | None = None
    public_restored: bool = False
    keeps_public: bool = False
    run_verify: str = ""
    rolling_back: bool = False
    rollback_run: str = ""
    rollback_reason: str = ""
    rolled_back: dict[str, e.ServerRolledBack] = field(default_factory=dict)
    deaths: tuple[e.RunDied, ...] = ()
    window: e.WindowAwaited | None = None
    held: bool = False
    overridden: Mapping[str, e.FreezeOverridden] = field(default_factory=dict)

    @property
    def the_public(self) -> str:
        """Name Public as people did when this was pushed."""
        return name_of_server(self.public, self.public_title)

    @property
    def the_target(self) -> str:
        """Name the target as people did when this was pushed."""
        return name_of_server(self.target, self.target_title)

    @property
    def gate(self) -> ApprovalRequest | None:
        """Find the request to let the update into production; None if none was made since it was verified last."""
        return self.approvals.get("release")

    @property
    def status(self) -> str:
        """Name the status in the original's words: Pending, InProgress, Completed, Failed, ..."""
        return _STATUS.get(self.stage, self.stage.value)

    @property
    def ended(self) -> bool:
        """Say whether nothing more happens by itself."""
        return self.stage in ENDED

    @property
    def reached_omega(self) -> bool:
        """Say whether the target was told to run it, and did not refuse: from then on its id is never reused."""
        return self.promoting is not None

    @property
    def may_be_pushed_again(self) -> bool:
        """Say whether the id may be pushed as the next attempt."""
        return self.ended and not self.reached_omega and not self.rolling_back

    @property
    def owes_public(self) -> bool:
        """Say whether Public may still run an update that came to nothing, and has to be put back."""
        owing = self.stage in PUT_BACK and self.switching and not self.public_restored
        return owing and not self.reached_omega and not self.keeps_public

    @property
    def same_deaths(self) -> int:
        """Count the runs that died last, one after the other, of the same reason."""
        return len(list(takewhile(lambda death: death.reason == self.deaths[-1].reason, reversed(self.deaths))))

    @property
    def next_run(self) -> datetime | None:
        """Say when another run may follow those that died; None where none did.

        One may follow at once; after two that died of the same reason (five that crashed, which says nothing of the
        next) the next waits a minute, and twice as long each time, up to an hour.
        """
        if not self.deaths:
            return None
        last, endured = self.deaths[-1], _CRASHES if self.deaths[-1].crashed else _DEATHS
        over = self.same_deaths - endured
        pause = min(_FIRST_PAUSE * 2 ** min(over, 10), _LONGEST_PAUSE) if over >= 0 else 0
        return last.at + timedelta(seconds=pause)

    def too_early(self, at: datetime) -> bool:
        """Say whether another run must wait at that time; never for longer than the longest pause, which only a clock
        that was set back since would ask for."""
        wait = self.next_run - at if self.next_run else timedelta()
        return timedelta() < wait <= timedelta(seconds=_LONGEST_PAUSE)

    @property
    def stuck(self) -> str:
        """Tell of what the runs died that had to bring it on; "" where none did."""
        if not self.deaths or (self.ended and not self.rolling_back):
            return ""
        times = f"{self.same_deaths} runs" if self.same_deaths > 1 else "a run"
        return f"{times} died of it: {self.deaths[-1].reason or 'no reason is known'}"

    @property
    def sent(self) -> bool:
        """Say whether Public has every byte of it and was closed when it was to run it: the control plane goes on with
        it by itself."""
        return self.held and self.stage is Stage.PLANNING

    def overdue(self, now: datetime) -> bool:
        """Say whether the gate is past its time, recorded or not."""
        return self.stage is Stage.AWAITING_APPROVAL and self.gate is not None and now >= self.gate.expires

    def undecided(self, subject: e.Subject) -> ApprovalRequest | None:
        """Find the request about `subject` that no answer and no other event has settled; None if there is none."""
        found = self.approvals.get(subject)
        settled = self.stage is not Stage.AWAITING_APPROVAL if subject == "release" else self.rolling_back
        return None if found is None or found.decision or settled else found

    def awaited(self, now: datetime) -> ApprovalRequest | None:
        """Find the request that people may answer now: about a rollback first, if there are two."""
        found = (self.undecided(subject) for subject in ("rollback", "release"))
        return next((request for request in found if request and request.waits(now)), None)

    def with_request(self, request: ApprovalRequest) -> State:
        """Make `request` the one about its subject; the new state."""
        return replace(self, approvals={**self.approvals, request.subject: request})

    def without_gate(self) -> State:
        """Drop the request about the release; the new state."""
        return self.without_request("release")

    def without_request(self, subject: e.Subject) -> State:
        """Drop the request about `subject`; the new state."""
        return replace(self, approvals={key: one for key, one in self.approvals.items() if key != subject})

    def stage_at(self, now: datetime) -> Stage:
        """Name the stage that a reader is shown: an overdue gate is Expired at once."""
        return Stage.EXPIRED if self.overdue(now) else self.stage

    @property
    def reach(self) -> Reach:
        """How many Mainframes run it, once it was distributed."""
        return Reach.of(self.mainframes, self.mainframes_counted)

    @property
    def rollout_line(self) -> str:
        """Say how far its rollout is, while it is under way; "" where it is not, or has one wave and goes on."""
        if self.rollout is None or self.stage is not Stage.DISTRIBUTING:
            return ""
        if self.rollout.waits:
            return f"stopped: {self.rollout.stopped}"
        waves = len(self.rollout.waves)
        return f"wave {self.rollout.opened} of {waves}" if waves > 1 else ""

    @property
    def window_line(self) -> str:
        """Say which server it waits for that is closed, why, and until when; "" where it waits for none."""
        if self.window is None or self.ended:
            return ""
        server = self.the_public if self.window.server == "public" else self.the_target
        opens = self.window.opens
        until = f"it goes on by itself at {opens:%Y-%m-%d %H:%M} UTC" if opens else "no opening is in sight"
        return f"waits for {server}: {self.window.why}; {until}"

    def summary(self) -> dict[str, Any]:
        """Summarise the deployment for a list, JSON-ready."""
        rollback, gate = self.undecided("rollback"), self.undecided("release")
        return {
            "update_id": self.update_id,
            "attempt": self.attempt,
            "stage": self.stage.value,
            "status": self.status,
            "description": self.description,
            "info": self.info,
            "bundle": self.bundle,
            "version": self.bundle_version,
            "evidence": self.evidence,
            "pushed_by": self.pushed_by,
            "public": self.public,
            "public_name": self.the_public,
            "target": self.target,
            "target_name": self.the_target,
            "commit": self.source.commit if self.source else None,
            "tasks": list(self.tasks),
            "release_seq": self.release_seq,
            "outcome": self.outcome,
            "rolling_back": self.rolling_back,
            "missing": [m.name for m in self.mainframes if m.result != "running"],
            "mainframes_running": self.reach.running,
            "mainframes_total": self.reach.total,
            "not_running": list(self.reach.others),
            "window": self.window_line,
            "window_opens": self.window.opens.isoformat() if self.window and self.window.opens else None,
            "rollout": self.rollout_line,
            "rollout_run": self.rollout.run if self.rollout_line and self.rollout and self.rollout.waits else "",
            "reason": self.reason,
            "stuck": self.stuck,
            "obstacle": gate.obstacle if gate else "",
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "updated_at": self.updated_at.isoformat() if self.updated_at else None,
            "expires": self.gate.expires.isoformat() if self.gate else None,
            "rollback_expires": rollback.expires.isoformat() if rollback else None,
            "requests": [request.summary() for request in (rollback, gate) if request],
        }
