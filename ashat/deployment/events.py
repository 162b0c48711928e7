"""Define what can happen to a deployment: one type for each event, as the ledger keeps it.

An event is a fact that already happened, or an intent written down before its side effect so that a crash between
the two can be finished. `ashat.deployment.state_machine` says which event may follow which.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from ashat.protocol.messages import Digest, Moment, ReleaseSignature, Source

Text = Annotated[str, Field(max_length=4000)]
Subject = Literal["release", "rollback"]


class Event(BaseModel):
    """The base of every event. `by` is who caused it, self-asserted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    at: Moment
    by: str = ""

    @property
    def name(self) -> str:
        """Name the event in words, such as `gate opened`."""
        return self.kind.replace("_", " ")


class CheckOutcome(BaseModel):
    """One check's result in a line, as the gate and `deploy status` show it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    outcome: Literal["pass", "fail", "warn", "inconclusive"]
    seen: str


class MainframeOutcome(BaseModel):
    """What became of an offer on one Mainframe; `missing` has not reported in time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    result: Literal["running", "failed", "missing"]
    reason: str = ""


class Created(Event):
    """Somebody began to push an update."""

    kind: Literal["created"] = "created"
    description: Text
    info: Text = ""
    target: str
    public: str
    run: str = ""


class Packaged(Event):
    """The tree was packed; its digest is known. `attestation` is the digest of the builder's signed statement."""

    kind: Literal["packaged"] = "packaged"
    bundle: Digest
    version: str = ""
    files: int
    size: int
    source: Source
    attestation: Digest | None = None


class PublicSwitching(Event):
    """Intent: Public is about to run this update's bundle; `from_bundle` is what it runs until then."""

    kind: Literal["public_switching"] = "public_switching"
    from_bundle: Digest | None
    from_update: str = ""
    from_attempt: int = 0


class Pushed(Event):
    """Public runs the bundle."""

    kind: Literal["pushed"] = "pushed"
    url: str


class VerificationStarted(Event):
    """The checks begin, under the verification policy of that name; `run` is the flow run."""

    kind: Literal["verification_started"] = "verification_started"
    run: str = ""
    policy: str = "default"


class Verified(Event):
    """The checks ended; the evidence is stored under its digest.

    `rolls_back` says whether Public is put back after a failure, as the policy has it. `attestation` is the digest of
    the verifier's signed statement.
    """

    kind: Literal["verified"] = "verified"
    evidence: Digest
    outcome: Literal["passed", "attention", "failed"]
    checks: tuple[CheckOutcome, ...]
    rolls_back: bool = True
    attestation: Digest | None = None


class GateOpened(Event):
    """A person is to be asked about exactly this evidence until `expires`."""

    kind: Literal["gate_opened"] = "gate_opened"
    opening: int
    expires: Moment


class GateClaimed(Event):
    """A flow run took charge of the gate, for the first time or from one that died."""

    kind: Literal["gate_taken"] = "gate_taken"
    run: str


class _ApprovalEvent(Event):
    """The base of what happens to an approval request; `subject` is what people are asked about.

    An earlier version wrote those about a rollback under kinds of their own, `rollback_asked` and `rollback_answered`.
    """

    subject: Subject = "release"
    ordinal: int

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_kind(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("kind") not in ("rollback_asked", "rollback_answered"):
            return data
        fields = {{"missing": "why"}.get(name, name): value for name, value in data.items()}
        return {**fields, "kind": data["kind"].removeprefix("rollback_"), "subject": "rollback"}

    @property
    def name(self) -> str:
        """Name the event in words, such as `gate opened`."""
        return self.kind if self.subject == "release" else f"{self.subject} {self.kind}"


class ApprovalRequested(_ApprovalEvent):
    """People are asked whether `subject` may happen, for the `ordinal`-th time; `reason` says why they are asked again.

    `to_update` and `to_attempt` are what would run by it, `evidence` is that of its verification, and `expires` when it
    ends: of a release, GateOpened has said so, and that holds. `why` says why people are asked at all, `run` is the
    flow run that waits. `shown` is the digest of the document that holds what a person is shown, `proposal` that of
    what they sign; None in the one-person mode.
    """

    kind: Literal["asked", "rollback_asked"] = "asked"
    run: str = ""
    expires: Moment | None = None
    target_bundle: Digest | None = None
    to_update: str = ""
    to_attempt: int = 0
    evidence: Digest | None = None
    why: Text = ""
    shown: Digest | None = None
    proposal: Digest | None = None
    reason: Text = ""


class ApprovalAnswered(_ApprovalEvent):
    """An answer, judged once.

    `complete` says that enough have signed; of a release `release_seq` says so, the number that it got by then. In the
    one-person mode what is signed is proposed only then: `proposal` is its digest.
    """

    kind: Literal["answered", "rollback_answered"] = "answered"
    decision: Literal["approve", "reject"]
    accepted: bool
    approver: Text = ""
    comment: Text = ""
    reason: Text = ""
    complete: bool = False
    release_seq: int | None = None
    proposal: Digest | None = None
    signature: ReleaseSignature | None = None

    @property
    def settles(self) -> bool:
        """Say whether this answer decides the request."""
        enough = self.release_seq is not None if self.subject == "release" else self.complete
        return self.accepted and (self.decision == "reject" or enough)


class DecisionVoid(Event):
    """An accepted approval came too late: the target moved on before it was used. The person is asked again."""

    kind: Literal["decision_void"] = "decision_void"
    reason: Text


class Promoting(Event):
    """Intent: the target is about to be told to run the bundle. From here the id is never reused."""

    kind: Literal["promoting"] = "promoting"
    operation: str


class Promoted(Event):
    """The target runs the bundle."""

    kind: Literal["promoted"] = "promoted"
    from_bundle: Digest | None
    release_seq: int


class Distributed(Event):
    """Every active Mainframe reported or ran out of time."""

    kind: Literal["distributed"] = "distributed"
    mainframes: tuple[MainframeOutcome, ...]


class MainframeServed(Event):
    """A Mainframe that was missing when the deployment completed has reported since."""

    kind: Literal["mainframe_served"] = "mainframe_served"
    mainframe: MainframeOutcome


class Failed(Event):
    """It ends here, for a reason that trying again would not mend."""

    kind: Literal["failed"] = "failed"
    reason: Text


class Cancelled(Event):
    """Somebody called it off before approval."""

    kind: Literal["cancelled"] = "cancelled"
    reason: Text = ""


class Expired(Event):
    """Nobody answered in time."""

    kind: Literal["expired"] = "expired"


class RunDied(Event):
    """The flow run that had to bring it on ended without that; `reason` is why, by that run's last words. One that
    `crashed` had no last words: something ended its process."""

    kind: Literal["run_died"] = "run_died"
    run: str
    reason: Text = ""
    crashed: bool = False


class PublicRestored(Event):
    """Public was put back, or `kept` says why it was left alone."""

    kind: Literal["public_restored"] = "public_restored"
    to_bundle: Digest | None
    kept: Text = ""


class RollbackStarted(Event):
    """Intent: every server the update reached is about to be put back."""

    kind: Literal["rollback_started"] = "rollback_started"
    reason: Text = ""
    run: str = ""


class ServerRolledBack(Event):
    """One server runs again what it ran before, or `kept` says why it was left alone."""

    kind: Literal["server_rolled_back"] = "server_rolled_back"
    server: Literal["public", "omega", "mainframes"]
    to_bundle: Digest | None
    release_seq: int | None = None
    kept: Text = ""


class RolledBack(Event):
    """Every server is back."""

    kind: Literal["rolled_back"] = "rolled_back"


AnyEvent = Annotated[
    Created
    | Packaged
    | PublicSwitching
    | Pushed
    | VerificationStarted
    | Verified
    | GateOpened
    | GateClaimed
    | ApprovalRequested
    | ApprovalAnswered
    | DecisionVoid
    | Promoting
    | Promoted
    | Distributed
    | MainframeServed
    | Failed
    | Cancelled
    | Expired
    | RunDied
    | PublicRestored
    | RollbackStarted
    | ServerRolledBack
    | RolledBack,
    Field(discriminator="kind"),
]

_adapter: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


def event_from_json(raw: str) -> AnyEvent:
    """Read the event that the JSON text `raw` spells.

    Raises:
        pydantic.ValidationError: a newer version wrote it, or somebody else did.
    """
    return _adapter.validate_json(raw)


def event_to_data(event: AnyEvent) -> dict[str, Any]:
    """Spell the event as JSON-ready data, times as RFC 3339."""
    return event.model_dump(mode="json")
