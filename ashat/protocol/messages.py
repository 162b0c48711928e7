"""What a node and its clients say to each other (`docs/node-api.md`), as types both sides share."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from ashat.common.numbers import LARGEST, in_utc
from ashat.common.text import require_visible
from ashat.protocol.origins import Artifact, Differences


def _of_the_calendar(moment: datetime) -> datetime:
    try:
        in_utc(moment)
    except ValueError as error:
        raise PydanticCustomError(OUT_OF_RANGE, "{why}", {"why": str(error)}) from None
    return moment


OUT_OF_RANGE = "out_of_range"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Moment = Annotated[AwareDatetime, AfterValidator(_of_the_calendar)]
# Shown on terminals and in logs.
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$"), AfterValidator(require_visible)]
FRAMES = "application/vnd.ashat.frames"
FRAME_HEADER = 40
OBJECT_LIMIT = 4 * 1024 * 1024
MIGRATE_SECONDS = 86_400
# The code of a refusal of what a release names, which the node's settings do not allow.
NOT_ALLOWED = "not_allowed"
REQUEST_LIMIT = 64 * 1024 * 1024


class Role(StrEnum):
    """What a node is."""

    PUBLIC = "public"
    OMEGA = "omega"
    MAINFRAME = "mainframe"


class Scope(StrEnum):
    """What a token may do."""

    READ = "read"
    PUSH = "push"
    PROMOTE = "promote"
    LICENCES = "licences"
    ADMIN = "admin"


class TokenRole(StrEnum):
    """What a person has to do with deployments; `ashat.node.access.tokens.SCOPES` says what that takes where."""

    DEV = "dev"
    OWNER = "owner"


class Message(BaseModel):
    """A message: unknown fields are ignored, so that old and new versions can talk."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Current(Message):
    """What a server runs, and since when."""

    bundle: Digest
    update_id: str
    attempt: int
    release_seq: int | None = None
    since: Moment


class Identity(Message):
    """Who a node is; open to anyone. `lost` counts the bundles that it needs and its store lacks; `time` is its own."""

    role: Role
    name: str
    node_version: str
    current: Current | None
    status: str
    lost: int = 0
    time: AwareDatetime | None = None


class TokenInfo(Message):
    """The token that asks, as the node keeps it; `opens` are its scopes and those that they include."""

    id: str
    name: str
    opens: tuple[Scope, ...]
    created: Moment
    expires: Moment | None = None


class MainframeStatus(Message):
    """How a Mainframe gets on with OMEGA; `last_contact` is when OMEGA last answered, `journal` what is wrong with its
    change log, `clock` how far the clock here is from its."""

    status: Literal["starting", "waiting", "pulling", "switching", "running", "failed", "refused", "unreachable"]
    detail: str = ""
    last_contact: Moment | None = None
    journal: str = ""
    clock: str = ""


# The longest that a lease may be asked for.
LEASE_SECONDS = 3600


class Lease(Message):
    """Who has the server."""

    holder: str
    who: str
    why: str
    since: Moment
    expires: Moment


class LeaseRequest(Message):
    """A wish to have the server for `ttl` seconds."""

    holder: Line = Field(min_length=1, max_length=128)
    who: Line = Field(max_length=128)
    why: Line = Field(max_length=256)
    ttl: float = Field(gt=0, le=LEASE_SECONDS)


class Decision(Message):
    """A person's approval of one release for one target, as OMEGA is shown it."""

    id: str = Field(min_length=1, max_length=128)
    decision: Literal["approve"]
    update_id: str
    attempt: int = Field(ge=1, le=LARGEST)
    bundle: Digest
    evidence: Digest
    target: str
    expected_current: Digest | None
    release_seq: int = Field(ge=1, le=LARGEST)
    approver: str
    at: Moment


class SignedRelease(Message):
    """What the approvers signed, byte for byte: a release document, what names it, the provenance that it names."""

    document: str = Field(max_length=64 * 1024)
    production: str = Field(max_length=1 << 20)
    provenance: str | None = Field(default=None, max_length=64 * 1024)


class OperationRequest(Message):
    """A change of what runs. `signed` is what OMEGA demands once it keeps a trust root."""

    action: Literal["switch", "promote", "rollback"]
    bundle: Digest | None
    expected_current: Digest | None
    update_id: Line = Field(min_length=1, max_length=128)
    attempt: int = Field(ge=1, le=LARGEST)
    holder: Line | None = None
    decision: Decision | None = None
    signed: SignedRelease | None = None
    reason: str = Field(default="", max_length=1000)


class Step(Message):
    """A part of an operation and how long it took, in seconds."""

    name: str
    seconds: float


class ProgramLog(Message):
    """The end of what the program, or the hook, wrote, from the file `log`, without secrets that are known as such.

    `position` is how many bytes the file has up to there: what is written later comes after it.
    """

    log: str
    lines: list[str]
    position: int


# What goes of a program's output with the reason why it did not start.
OUTPUT_LINES = 20
OUTPUT_WIDTH = 160
Output = Annotated[
    tuple[Annotated[str, Field(max_length=OUTPUT_WIDTH)], ...], Field(default=(), max_length=OUTPUT_LINES)
]


# Why a step is skipped on the way back.
MIGRATED_BEFORE = "this release was migrated here before a later one was; what that one changed stays"


class Migration(Message):
    """The migrate step of the release that an operation brings: what it is, and what came of it here.

    `limit` is in seconds. It is `skipped` where the node is told to leave it out, or where a later release was migrated
    here since this one was, so that the change goes back; `detail` says that, or why it was not done.
    """

    status: Literal["running", "done", "failed", "timed-out", "interrupted", "skipped"]
    command: list[str]
    reversible: bool = True
    limit: float = Field(default=0, ge=0, le=MIGRATE_SECONDS)
    detail: str = ""
    began_at: Moment
    ended_at: Moment | None = None

    @property
    def words(self) -> str:
        """What came of it, for people."""
        took = f" in {(self.ended_at - self.began_at).total_seconds():.1f} s" if self.ended_at else ""
        how = f"{self.status.replace('-', ' ')}{took}{f': {self.detail}' if self.detail else ''}"
        return how if self.reversible or self.status == "skipped" else f"{how}; it says that it cannot be taken back"


class Operation(Message):
    """A change of what runs, as the node records it; `output` is the end of what failed it wrote: the program, or the
    migrate step. `migration` is None where the release has none, or where it runs already."""

    id: str
    action: Literal["switch", "promote", "rollback"]
    status: Literal["running", "succeeded", "failed"]
    from_: Digest | None = Field(alias="from")
    to: Digest | None
    update_id: str
    attempt: int
    release_seq: int | None = None
    reason: str = ""
    steps: list[Step] = []
    started_at: Moment
    ended_at: Moment | None = None
    switched_back: bool = False
    interrupted: bool = False
    migration: Migration | None = None
    output: Output = ()


class AppSlot(Message):
    """One of a node's two slots for its program: its port, what runs in it, and whether the proxy sends it the traffic.

    `kept_seconds` is for how long what runs there without the traffic is kept for the way back; None: it is not.
    """

    name: str
    port: int
    traffic: bool
    status: Literal["running", "backing-off", "stopped", "hook"]
    bundle: Digest | None = None
    pid: int | None = None
    kept_seconds: float | None = None


class App(Message):
    """The supervised program.

    `started_at` is of its latest start, `healthy_after_ms` how long after that it was first seen healthy (None: not
    yet, or not known), `failure` how it last ended by itself since it was started on purpose ("": it did not). `user`
    is whom it runs as, or its hook does ("": the node's own user, so that a release can do what the node can). Of a
    node with two `slots` all that is of what has the traffic.
    """

    status: Literal["running", "backing-off", "stopped", "hook"]
    healthy: bool
    pid: int | None = None
    restarts: int = 0
    started_at: Moment | None = None
    url: str | None = None
    healthy_after_ms: int | None = None
    failure: str = ""
    user: str = ""
    slots: tuple[AppSlot, ...] = ()


class Offer(Message):
    """What OMEGA offers to Mainframes."""

    release_seq: int = Field(ge=1, le=LARGEST)
    bundle: Digest
    update_id: str
    attempt: int = Field(ge=1, le=LARGEST)


class TrustMetadata(Message):
    """What was signed offline, for OMEGA to keep: its first root and targets, or later versions of them. The first root
    fixes `target`, whose releases are approved here; `roots`, oldest first, are those between it and the one pinned."""

    target: Line = Field(min_length=1, max_length=100)
    root: str | None = Field(default=None, max_length=1 << 20)
    roots: list[Annotated[str, Field(max_length=1 << 20)]] = Field(default=[], max_length=256)
    targets: str | None = Field(default=None, max_length=1 << 20)
    production: str | None = Field(default=None, max_length=1 << 20)


class LogState(Message):
    """What OMEGA keeps of the ledger's log: how many events, and the root over them in hexadecimal; "" before any."""

    origin: str = ""
    size: int = Field(default=0, ge=0)
    root: str = ""


class LogLeaves(Message):
    """The log goes on: the hashes of its events from the one at `first` (counted from 0) on, for OMEGA to keep. These
    and what it keeps have to reach as far as the checkpoint that `signed` names."""

    signed: SignedRelease
    first: int = Field(ge=0, le=LARGEST)
    leaves: list[Digest] = []


class LogProof(Message):
    """A consistency proof between two sizes of the log, as RFC 9162, section 2.1.4, defines it."""

    proof: list[Digest]


class TrustState(Message):
    """Whose signatures OMEGA demands: TUF metadata as it was signed, None for what it does not keep yet.

    `online` are the public halves of its own Ed25519 keys by role, in hexadecimal, `documents` the release documents by
    channel. `log` is None from a node that keeps none. `pinned` is the sha256 of what is signed as its `trust_root`.
    """

    target: str = ""
    online: dict[str, str]
    root: str | None = None
    targets: str | None = None
    production: str | None = None
    documents: dict[str, str] = {}
    expires: Moment | None = None
    log: LogState | None = None
    pinned: str | None = None


class RoomRequest(Message):
    """What a bundle takes: so many `objects` of so many `bytes` are lacking, its release is `files` in `directories`
    with `size` bytes in all."""

    bundle: Digest
    objects: int = Field(ge=0, le=LARGEST, strict=True)
    bytes: int = Field(ge=0, le=LARGEST, strict=True)
    files: int = Field(ge=0, le=LARGEST, strict=True)
    directories: int = Field(ge=0, le=LARGEST, strict=True)
    size: int = Field(ge=0, le=LARGEST, strict=True)


class LostBundle(Message):
    """A bundle that the node needs and its store lacks; `objects` are missing of it, None: its manifest is, too."""

    bundle: Digest
    why: Literal["runs", "ran before"]
    objects: int | None = None


class RestoredBundle(Message):
    """A bundle of which the store had lost `objects`, which the node restored from the release directory."""

    bundle: Digest
    objects: int
    at: AwareDatetime


class StoreState(Message):
    """How much the content store holds, what is free on its disk, what it lost, and what was restored last."""

    objects: int
    bytes: int
    free_bytes: int
    lost: tuple[LostBundle, ...] = ()
    restored: RestoredBundle | None = None


class NodeState(Message):
    """Everything a node says about itself to who may read."""

    role: Role
    name: str
    node_version: str
    time: datetime
    current: Current | None
    previous: Current | None
    release_seq: int
    lease: Lease | None
    operation: Operation | None
    app: App
    offer: Offer | None
    agent: MainframeStatus | None = None
    store: StoreState


class TreeFile(Message):
    """A file of the running release, as it lies on disk."""

    sha256: Digest
    mode: int
    size: int


class Tree(Message):
    """The running release hashed as it lies on disk; `links` are its symbolic links' targets, `directories` those that
    the manifest names as empty, and `extra` the paths that it does not name."""

    bundle: Digest | None
    files: dict[str, TreeFile]
    links: dict[str, str] = {}
    directories: list[str] = []
    extra: list[str] = []

    @property
    def listing(self) -> dict[str, tuple[str, int | str]]:
        """Everything of the manifest that is there, by its path, as `Manifest.listing` has it."""
        return {
            **{path: (file.sha256, file.mode) for path, file in self.files.items()},
            **{path: ("link", target) for path, target in self.links.items()},
            **{f"{path}/": ("directory", "") for path in self.directories},
        }


# The header with which OMEGA tells Mainframes how many entries its change log has.
CHANGE_LOG_HEADER = "Ashat-Journal"
# The header with which OMEGA tells a Mainframe how often it was told to try the offered release again.
TRIES_HEADER = "Ashat-Tries"
# The headers with which a Mainframe says of which version its node is, and which run of it asks.
AGENT_HEADER, RUN_HEADER = "Ashat-Agent", "Ashat-Run"
# The header with which a Mainframe says that it goes elsewhere for objects where OMEGA says so; its only value.
REDIRECTS_HEADER, FOLLOWS = "Ashat-Redirects", "follow"
# What answers such a Mainframe, instead of frames.
OBJECTS_AT = "application/vnd.ashat.objects-at+json"


class ObjectsAt(Message):
    """Where objects are, beside OMEGA: an address with the digest left open (`ashat.protocol.object_address`)."""

    address: Annotated[str, Field(max_length=500)]


class Caller(StrEnum):
    """Who asks a node."""

    TOKENS = "tokens"
    LICENCES = "licences"
    ANONYMOUS = "strangers"


class AccessLogLine(Message):
    """A request as a node wrote it down: the id of its token or licence, "" of neither; `ms` until it was answered.

    `status` is 499 where the caller left before the answer; `detail` is the line with which it was refused.
    """

    at: Moment
    method: str
    path: str
    status: int
    token: str = ""
    licence: str = ""
    client: str = ""
    ms: int = 0
    received: int = 0
    sent: int = 0
    detail: str = ""


class SignedCheckpoint(Message):
    """A signed checkpoint (https://c2sp.org/tlog-checkpoint) of a log, and its verifier key.

    `proof` are the hashes, in hexadecimal, that prove that it continues an earlier one (RFC 9162, section 2.1.4).
    """

    checkpoint: str = Field(max_length=10_000)
    key: str = Field(max_length=1024)
    proof: tuple[Digest, ...] = Field(default=(), max_length=200)


class Source(BaseModel):
    """Where the tree came from. `commit` is None outside git; `name` is the Source block's or the directory's.

    `dirty` says that files differ from those of the commit, and `differences` which; None where an earlier version
    asked git alone, which leaves out what is ignored or hidden from it.
    `contains` are the commits of other deployments, known when this one was packed, that are ancestors of `commit`;
    with `history_cut` there may be more, since the repository was a shallow clone.
    `artifact` is what the tree was unpacked from, None where it lay there or is a commit's. `committed` is when
    `commit` was made, as its committer's clock had it; None where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    commit: str | None = None
    branch: str | None = None
    dirty: bool = False
    differences: Differences | None = None
    who: str = ""
    contains: tuple[str, ...] = ()
    history_cut: bool = False
    artifact: Artifact | None = None
    committed: Moment | None = None

    @property
    def in_short(self) -> str:
        """Name the artifact, or the commit and whether (of how many files) there are changes beside it; "" where there
        is neither."""
        if self.artifact is not None:
            return str(self.artifact)
        if self.commit is None:
            return ""
        count = f" ({self.differences.count})" if self.differences else ""
        return f"commit {self.commit[:12]}" + (f", with uncommitted changes{count}" if self.dirty else "")

    def builds_on(self, commit: str) -> bool | None:
        """Tell whether the tree builds on the `commit` of another deployment; None where that cannot be told."""
        if commit == self.commit or commit in self.contains:
            return True
        return None if self.history_cut else False


class ReleaseSignature(BaseModel):
    """One approver's signatures in hexadecimal: over the release, and over its rollback if one was proposed.

    An earlier version called the second `way_back`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    keyid: Digest
    release: str = Field(pattern=r"^[0-9a-f]{16,208}$")
    rollback: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{16,208}$", validation_alias=AliasChoices("rollback", "way_back")
    )
