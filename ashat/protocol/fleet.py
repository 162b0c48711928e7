"""What OMEGA, its Mainframes and who rolls releases out say of the fleet (`docs/node-api.md`)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from ashat.common.numbers import LARGEST
from ashat.protocol.licences import LicenceStatus
from ashat.protocol.messages import Digest, Line, Message, Moment, Offer, Output
from ashat.rollouts.decide import Rollout, Standing, WaveCounts
from ashat.rollouts.labels import MAX_LABELS
from ashat.rollouts.policy import MAX_WAVES, RolloutPolicy


class MainframeReport(Message):
    """What a Mainframe says it made of an offer, which may wait there for what `reason` says; `journal` is what it sees
    wrong with OMEGA's change log, `output` the end of what the program wrote that did not start."""

    release_seq: int = Field(ge=1, le=LARGEST)
    bundle: Digest
    result: Literal["running", "failed", "waiting"]
    reason: str = Field(default="", max_length=2000)
    journal: str = Field(default="", max_length=2000)
    output: Output = ()


class Mainframe(Message):
    """A licensed install, as OMEGA knows it, and what it last reported. `id` is the start of the sha256 of its key;
    with `old_protocol` it checks no signature, and what it says is not verified; `waits` says why an offer waits.
    `agent` is the version of the node there, "" where it does not say; `twin_at` is when two machines used the licence
    in turn, as far as OMEGA saw; `held` says which window or freeze of the fleet holds back what it is offered now."""

    id: str
    name: str
    status: LicenceStatus
    last_seen: Moment | None = None
    bundle: Digest | None = None
    release_seq: int | None = None
    result: Literal["running", "failed", "none"] = "none"
    reason: str = ""
    journal: str = ""
    old_protocol: bool = False
    waits: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    agent: str = ""
    twin_at: Moment | None = None
    held: str = ""


MemberState = Literal["waiting", "under_way", "succeeded", "failed", "unreachable", "accepted"]
RolloutStatus = Literal["running", "paused", "asked", "aborted", "completed", "superseded"]
RolloutAction = Literal["pause", "resume", "ask", "abort", "complete"]
Why = Annotated[Line, Field(max_length=500)]


class RolloutRequest(Message):
    """A release to roll out: the offer, and the policy (`ashat.rollouts.policy`) that says to whom and when. `override`
    says why no window and no freeze of the fleet holds it back; "": they do."""

    offer: Offer
    policy: RolloutPolicy
    override: Why = ""


class Wave(Message):
    """A wave of a rollout: when it was opened, None: not yet; when one of its Mainframes last began to run the release,
    and last answered in any way or was given up; how many stand how; and why it was opened. Who is `held` waits for a
    window, or for the end of a freeze, and is in no other number."""

    number: int
    name: str
    opened_at: Moment | None = None
    last_success_at: Moment | None = None
    last_answer_at: Moment | None = None
    waiting: int = 0
    under_way: int = 0
    succeeded: int = 0
    failed: int = 0
    unreachable: int = 0
    accepted: int = 0
    why: str = ""
    held: int = 0

    @property
    def counts(self) -> WaveCounts:
        """Return its counters, as the policy's rules take them."""
        names = ("waiting", "under_way", "succeeded", "failed", "unreachable", "accepted", "held")
        return WaveCounts(*(getattr(self, name) for name in names))


class RolloutState(Message):
    """A rollout as OMEGA knows it at its own time `at`; `version` is another one whenever something was decided, and
    `stops` counts how often it was paused, or people were asked. `override` says why no freeze holds it back."""

    id: str
    offer: Offer
    policy: RolloutPolicy
    status: RolloutStatus
    why: str = ""
    began_at: Moment
    changed_at: Moment
    version: int
    stops: int = 0
    override: str = ""
    at: Moment
    waves: list[Wave]

    @property
    def opened(self) -> list[Wave]:
        """Return the waves that are open, or were."""
        return [wave for wave in self.waves if wave.opened_at is not None]

    @property
    def counts(self) -> WaveCounts:
        """Return the counters of all waves together."""
        return WaveCounts(*(sum(each) for each in zip(*(wave.counts for wave in self.waves), strict=True)))

    def as_rollout(self) -> Rollout:
        """Put it into the words of `ashat.rollouts.decide`; at least one wave of it is open."""
        newest = self.opened[-1]
        assert newest.opened_at is not None
        standing: Standing = "asked" if self.status == "asked" else "running" if self.status == "running" else "paused"
        return Rollout(
            waves=[wave.counts for wave in self.opened],
            ahead=sum(wave.counts.size for wave in self.waves if wave.opened_at is None),
            opened_at=newest.opened_at,
            last_success_at=newest.last_success_at,
            standing=standing,
            last_answer_at=newest.last_answer_at,
        )


class RolloutMember(Message):
    """How a Mainframe stands in a rollout, and what it said."""

    id: str
    name: str
    wave: int
    state: MemberState
    reason: str = ""
    offered_at: Moment | None = None
    changed_at: Moment
    tries: int = 0


class FailureGroup(Message):
    """Mainframes of a rollout that failed or cannot be reached, for the same reason: how many, and some by name. On
    those that are `barred` the release cannot be installed; they are offered nothing, and in no wave."""

    state: Literal["failed", "unreachable", "accepted", "barred"]
    reason: str
    count: int
    names: list[str]


class RolloutStep(Message):
    """How many Mainframes of a rollout came to stand so, as they still do, in a span of time that begins `at`."""

    at: Moment
    succeeded: int = 0
    failed: int = 0
    unreachable: int = 0


# How a Mainframe says what became of a program that it ran: OMEGA counts by these words.
PROGRAM_ENDED: Final = "the program ended by itself"
PROGRAM_UNHEALTHY: Final = "the program is not healthy any more"


class GroupTroubles(Message):
    """How many Mainframes of a group ran its release, and with how many of these the program ended by itself, was not
    healthy any more, or one of the two; `refused` did not take the release at all, and are none of these."""

    size: int
    ran: int = 0
    ended: int = 0
    unhealthy: int = 0
    troubled: int = 0
    refused: int = 0


class CohortTroubles(Message):
    """What was reported since a rollout began: by the Mainframes of its open waves of its release (`cohort`), and by
    those of the others of what they run (`rest`)."""

    since: Moment
    cohort: GroupTroubles
    rest: GroupTroubles


class OpenWaves(Message):
    """Which waves to open: all up to that number, from 0."""

    through: int = Field(ge=0, le=MAX_WAVES)
    why: Why = ""


class RolloutWord(Message):
    """Why a rollout is paused, resumed, aborted, completed or tried again, and who says so."""

    why: Why = ""
    by: Why = ""


class Retried(Message):
    """How many Mainframes try again."""

    mainframes: int


class Override(Message):
    """Why a release goes to Mainframes that a window or a freeze holds, and who says so."""

    why: Annotated[Line, Field(min_length=1, max_length=500)]
    by: Why = ""


class FreezeRequest(Message):
    """A window or a freeze of the fleet to keep: its `time` and a note as `ashat.common.calendar` has them; for the
    whole fleet, for a label (`subject`: key=value), or for one Mainframe (`subject`: its licence's id)."""

    kind: Literal["window", "freeze"]
    scope: Literal["fleet", "label", "mainframe"]
    subject: str = Field(default="", max_length=160)
    time: Line = Field(max_length=600)
    by: Why = ""


class Freeze(FreezeRequest):
    """A window or a freeze of the fleet that OMEGA keeps, under its `id`."""

    id: str
    at: Moment


class MainframeLabels(Message):
    """The labels of a Mainframe: `key=value` as `ashat.rollouts.labels` has them."""

    labels: dict[str, str] = Field(max_length=MAX_LABELS)


class MainframeThen(Message):
    """What a Mainframe had reported to run by some time, since when; None: nothing."""

    id: str
    name: str
    bundle: Digest | None = None
    release_seq: int | None = None
    since: Moment | None = None
