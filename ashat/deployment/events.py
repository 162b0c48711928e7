"""Define what can happen to a deployment: one type for each event, as the ledger keeps it.

An event is a fact that already happened, or an intent written down before its side effect so that a crash between
the two can be finished. `ashat.deployment.state_machine` says which event may follow which.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from ashat.common.trackers import MOST_TASKS
from ashat.protocol.messages import Digest, Moment, ReleaseSignature, Source

Text = Annotated[str, Field(max_length=4000)]
Title = Annotated[str, Field(max_length=100)]
TaskKey = Annotated[str, Field(max_length=64)]
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
    """Somebody began to push an update; `public_title` and `target_title` are what people called the servers then."""

    kind: Literal["created"] = "created"
    description: Text
    info: Text = ""
    target: str
    public: str
    target_title: Title = ""
    public_title: Title = ""
    run: str = ""


class Packaged(Event):
    """The tree was packed; its digest is known.

    `attestation` is the digest of the builder's signed statement; `commits` are the newest of those that it was packed
    from, each its id and its subject, the newest first. `irreversible`: its migrate step cannot be taken back.
    `tasks` are the keys of the tasks that it brings, as its tracker has them.
    `installable_from` are the versions from which it can be installed, None: from any.
    """

    kind: Literal["packaged"] = "packaged"
    bundle: Digest
    version: str = ""
    files: int
    size: int
    source: Source
    attestation: Digest | None = None
    commits: tuple[str, ...] = ()
    irreversible: bool = False
    installable_from: tuple[Text, ...] | None = None
    tasks: tuple[TaskKey, ...] = Field(default=(), max_length=MOST_TASKS)


class PublicSwitching(Event):
    """Intent: Public is about to run this update's bundle; `from_bundle` is what it runs until then.

    `baseline` is the digest of what that answered, and what its database held, just before; None: nothing noted it.
    """

    kind: Literal["public_switching"] = "public_switching"
    from_bundle: Digest | None
    from_update: str = ""
    from_attempt: int = 0
    baseline: Digest | None = None


class Pushed(Event):
    """Public runs the bundle; `migrated` says what came of its migrate step there, "": it has none."""

    kind: Literal["pushed"] = "pushed"
    url: str
    migrated: Text = ""


class VerificationStarted(Event):
    """The checks begin, under the verification policy of that name; `run` is the flow run."""

    kind: Literal["verification_started"] = "verification_started"
    run: str = ""
    policy: str = "default"


class Verified(Event):
    """The checks ended; the evidence is stored under its digest.

    `rolls_back` says whether Public is put back after a failure, as the policy has it. `attestation` is the digest of
    the verifier's signed statement, `sbom` that of what the release is built from.
    """

    kind: Literal["verified"] = "verified"
    evidence: Digest
    outcome: Literal["passed", "attention", "failed"]
    checks: tuple[CheckOutcome, ...]
    rolls_back: bool = True
    attestation: Digest | None = None
    sbom: Digest | None = None


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
    what they sign; None in the one-person mode. `obstacle` says why nobody can approve it as things are: until it is
    asked again, it can only be rejected. `rollout_policy` is the digest of the rollout policy that is shown ("": it
    could not be used), and `rollout_policy_name` what it is called; None where it has no part in this.
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
    obstacle: Text = ""
    rollout_policy: Digest | Literal[""] | None = None
    rollout_policy_name: Text = ""


class ApprovalWithdrawn(_ApprovalEvent):
    """The question was taken back before anybody answered, since what it says holds no more; `reason` says why not."""

    kind: Literal["withdrawn"] = "withdrawn"
    reason: Text = ""


class ApprovalAnswered(_ApprovalEvent):
    """An answer, judged once.

    `complete` says that enough have signed; of a release `release_seq` says so, the number that it got by then. In the
    one-person mode what is signed is proposed only then: `proposal` is its digest. An approval may say that it holds
    from `not_before` on, or why the release goes although a freeze or a closed window would hold it.
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
    not_before: Moment | None = None
    override_freeze: Text = ""

    @property
    def settles(self) -> bool:
        """Say whether this answer decides the request."""
        enough = self.release_seq is not None if self.subject == "release" else self.complete
        return self.accepted and (self.decision == "reject" or enough)


class DecisionVoid(Event):
    """An accepted approval came too late: the target moved on before it was used, or the evidence counts no more. The
    person is asked again, until `expires`; None: as long as before."""

    kind: Literal["decision_void"] = "decision_void"
    reason: Text
    expires: Moment | None = None


class WindowAwaited(Event):
    """The release may not go to the server yet, and `why`; `opens` is when it may, None: not within five years."""

    kind: Literal["window_awaited"] = "window_awaited"
    server: Literal["public", "omega"]
    why: Text
    opens: Moment | None = None


class WindowOpened(Event):
    """The release may go to the server from now on."""

    kind: Literal["window_opened"] = "window_opened"
    server: Literal["public", "omega"]


class FreezeOverridden(Event):
    """Somebody lets the release go to the server, or to the Mainframes, although these are closed; `closed` says why,
    "" where that is not known."""

    kind: Literal["freeze_overridden"] = "freeze_overridden"
    server: Literal["public", "omega", "mainframes"]
    reason: Annotated[str, Field(min_length=1, max_length=4000)]
    closed: Text = ""


class Promoting(Event):
    """Intent: the target is about to be told to run the bundle. From here the id is never reused."""

    kind: Literal["promoting"] = "promoting"
    operation: str


class Promoted(Event):
    """The target runs the bundle; `from_update` is what brought the one before, "" where that is not known. `migrated`
    is as of `Pushed`."""

    kind: Literal["promoted"] = "promoted"
    from_bundle: Digest | None
    from_update: str = ""
    release_seq: int
    migrated: Text = ""


class RolloutBegan(Event):
    """The target knows in which wave each Mainframe gets the release; `waves` are their names with how many are in
    each, `policy` the digest of the rollout policy."""

    kind: Literal["rollout_began"] = "rollout_began"
    rollout: str
    policy: Digest
    waves: tuple[tuple[Text, int], ...]


class WaveOpened(Event):
    """The waves up to number `through`, from 0, are open."""

    kind: Literal["wave_opened"] = "wave_opened"
    through: int
    why: Text = ""


class RolloutStopped(Event):
    """Nobody else is offered the release until a person says so; the flow run `run` asks. `stops` counts how often the
    rollout had stopped on the target by then, so that an answer is carried out for this stop only."""

    kind: Literal["rollout_stopped"] = "rollout_stopped"
    ordinal: int
    why: Text
    run: str = ""
    stops: int = 0


class RolloutAnswered(Event):
    """A person said whether a rollout that stopped goes on, ends as it is, or is taken back everywhere."""

    kind: Literal["rollout_answered"] = "rollout_answered"
    ordinal: int
    decision: Literal["resume", "abort", "roll-back"]
    approver: Text = ""
    comment: Text = ""


class Distributed(Event):
    """Every active Mainframe reported or ran out of time, or the rollout was ended before (`ended_early`: why).

    `running` of `total` run it; `mainframes` names them, and of a large fleet the first of those that do not.
    """

    kind: Literal["distributed"] = "distributed"
    mainframes: tuple[MainframeOutcome, ...]
    running: int | None = None
    total: int | None = None
    ended_early: Text = ""


class MainframeServed(Event):
    """A Mainframe that was missing when the deployment completed has reported since."""

    kind: Literal["mainframe_served"] = "mainframe_served"
    mainframe: MainframeOutcome


class Failed(Event):
    """It ends here, for a reason that trying again would not mend; `output` is what the program wrote last that did not
    start."""

    kind: Literal["failed"] = "failed"
    reason: Text
    output: tuple[Text, ...] = ()


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
    """Public was put back to `to_bundle`, which `to_update` had brought ("": not known), or `kept` says why it was left
    alone; `asked`: because somebody asked for that, though it was not owed."""

    kind: Literal["public_restored"] = "public_restored"
    to_bundle: Digest | None
    to_update: str = ""
    kept: Text = ""
    asked: bool = False


class RollbackStarted(Event):
    """Intent: every server the update reached is about to be put back."""

    kind: Literal["rollback_started"] = "rollback_started"
    reason: Text = ""
    run: str = ""


class RollbackStopped(Event):
    """Somebody called the rollback off before any server had gone back."""

    kind: Literal["rollback_stopped"] = "rollback_stopped"
    reason: Text = ""


class ServerRolledBack(Event):
    """One server runs again what it ran before, which `to_update` had brought ("": not known), or `kept` says why it
    was left alone."""

    kind: Literal["server_rolled_back"] = "server_rolled_back"
    server: Literal["public", "omega", "mainframes"]
    to_bundle: Digest | None
    to_update: str = ""
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
    | ApprovalWithdrawn
    | ApprovalAnswered
    | DecisionVoid
    | WindowAwaited
    | WindowOpened
    | FreezeOverridden
    | Promoting
    | Promoted
    | RolloutBegan
    | WaveOpened
    | RolloutStopped
    | RolloutAnswered
    | Distributed
    | MainframeServed
    | Failed
    | Cancelled
    | Expired
    | RunDied
    | PublicRestored
    | RollbackStarted
    | RollbackStopped
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
