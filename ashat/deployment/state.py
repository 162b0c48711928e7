"""What is known of a deployment: the fold of its events, as `ashat.deployment.state_machine` makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ashat.deployment import events as e
from ashat.deployment.stages import ENDED, PUT_BACK, Stage
from ashat.protocol.messages import ReleaseSignature, Source

_STATUS = {
    Stage.PLANNING: "Pending",
    Stage.AWAITING_APPROVAL: "Pending",
    Stage.PUSHED: "InProgress",
    Stage.TESTING: "InProgress",
    Stage.DEPLOYING: "InProgress",
    Stage.DISTRIBUTING: "InProgress",
}


@dataclass(frozen=True)
class Gate:
    """The open question: which asking, until when, over what the target ran at that asking.

    `proposal` is the digest of what is signed, `signatures` are those that came so far.
    """

    opening: int
    expires: datetime
    run: str = ""
    ordinal: int = 0
    target_bundle: str | None = None
    shown: str | None = None
    proposal: str | None = None
    signatures: tuple[ReleaseSignature, ...] = ()
    reason: str = ""
    answered: bool = True


@dataclass(frozen=True)
class RollbackGate:
    """The question whether the target may go back to `to_update`, and what came of it: `decision` is "" until enough
    have signed, or one has rejected it.

    `proposal` is the digest of what is signed, `signatures` are those that came so far.
    """

    ordinal: int
    expires: datetime
    run: str
    to_update: str
    to_attempt: int
    evidence: str
    missing: str
    shown: str
    proposal: str | None = None
    signatures: tuple[ReleaseSignature, ...] = ()
    reason: str = ""
    answered: bool = False
    decision: str = ""
    decided_by: str = ""

    def waits(self, now: datetime) -> bool:
        """Whether it still may be answered."""
        return not self.decision and now < self.expires


class PreviousRelease(NamedTuple):
    """What Public ran at a moment: the bundle (None: nothing), and the update that brought it, if one of ours did."""

    bundle: str | None
    update_id: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class State:
    """Everything that is known of one attempt of one update. `version` counts its events.

    `public_ran` is what Public ran each time before it was switched to this update, the newest last. `built` is the
    digest of the builder's signed statement, `attested` that of the verifier's.
    """

    update_id: str
    attempt: int
    version: int = 0
    stage: Stage = Stage.PLANNING
    description: str = ""
    info: str = ""
    target: str = "omega"
    public: str = "public"
    run: str = ""
    pushed_by: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    bundle: str | None = None
    bundle_version: str = ""
    files: int = 0
    size: int = 0
    source: Source | None = None
    built: str | None = None
    switching: bool = False
    public_ran: tuple[PreviousRelease, ...] = ()
    public_url: str = ""
    policy: str = "default"
    evidence: str | None = None
    evidence_before: str | None = None
    verified_at: datetime | None = None
    attested: str | None = None
    outcome: str = ""
    checks: tuple[e.CheckOutcome, ...] = ()
    gate: Gate | None = None
    openings: int = 0
    askings: int = 0
    decision: e.ApprovalAnswered | None = None
    promoting: str | None = None
    omega_before: str | None = None
    release_seq: int | None = None
    mainframes: tuple[e.MainframeOutcome, ...] = ()
    reason: str = ""
    failed_at: Stage | None = None
    public_restored: bool = False
    keeps_public: bool = False
    run_verify: str = ""
    rolling_back: bool = False
    rollback_run: str = ""
    rolled_back: dict[str, e.ServerRolledBack] = field(default_factory=dict)
    rollback_gate: RollbackGate | None = None

    @property
    def status(self) -> str:
        """The status in the original's words: Pending, InProgress, Completed, Failed, ..."""
        return _STATUS.get(self.stage, self.stage.value)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.stage in ENDED

    @property
    def reached_omega(self) -> bool:
        """Whether the target was told to run it, and did not refuse: from then on its id is never reused."""
        return self.promoting is not None

    @property
    def may_be_pushed_again(self) -> bool:
        """Whether the id may be pushed as the next attempt."""
        return self.ended and not self.reached_omega and not self.rolling_back

    @property
    def owes_public(self) -> bool:
        """Whether Public may still run an update that came to nothing, and has to be put back."""
        owing = self.stage in PUT_BACK and self.switching and not self.public_restored
        return owing and not self.reached_omega and not self.keeps_public

    def overdue(self, now: datetime) -> bool:
        """Whether the gate is past its time, said or not."""
        return self.stage is Stage.AWAITING_APPROVAL and self.gate is not None and now >= self.gate.expires

    def rollback_waits(self, now: datetime) -> bool:
        """Whether people are asked by now whether the target may go back."""
        return self.rollback_gate is not None and not self.rolling_back and self.rollback_gate.waits(now)

    def stage_at(self, now: datetime) -> Stage:
        """The stage a reader is shown: an overdue gate is Expired at once."""
        return Stage.EXPIRED if self.overdue(now) else self.stage

    def summary(self) -> dict[str, Any]:
        """What a list of deployments shows, JSON-ready."""
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
            "target": self.target,
            "commit": self.source.commit if self.source else None,
            "release_seq": self.release_seq,
            "outcome": self.outcome,
            "rolling_back": self.rolling_back,
            "missing": [m.name for m in self.mainframes if m.result != "running"],
            "reason": self.reason,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "updated_at": self.updated_at.isoformat() if self.updated_at else None,
            "expires": self.gate.expires.isoformat() if self.gate else None,
            "rollback_expires": self._rollback_expires(),
        }

    def _rollback_expires(self) -> str | None:
        gate = self.rollback_gate
        return gate.expires.isoformat() if gate and not gate.decision and not self.rolling_back else None
