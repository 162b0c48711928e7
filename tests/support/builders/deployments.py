"""Ledgers that hold deployments at every stage, written through the ledger itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from ashat.deployment import events as e
from ashat.deployment.state_machine import Stage, State
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Source
from tests.support.builders.evidence import evidence as evidence_of

LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHECK = e.CheckOutcome(name="health", title="Server health", outcome="pass", seen="8 of 8 looks healthy")
FAILING = e.CheckOutcome(name="modules", title="Module load", outcome="fail", seen="Chat does not load")
ENDINGS = (Stage.FAILED, Stage.REJECTED, Stage.EXPIRED, Stage.CANCELLED)


def digest(text: str) -> str:
    """A digest that stands for `text`."""
    return sha256(text.encode()).hexdigest()


def open_ledger(home: Path) -> Ledger:
    """The ledger of that home."""
    home.mkdir(parents=True, exist_ok=True)
    return Ledger.open(f"sqlite:///{home / 'ledger.db'}")


def record(
    ledger: Ledger,
    update_id: str,
    stage: Stage,
    *,
    description: str = "What it brings",
    at: datetime | None = None,
    expires: datetime | None = None,
    outcome: str = "passed",
    tasks: tuple[str, ...] = (),
) -> State:
    """Bring an update to `stage` the way there is; its events begin at `at` (default: now) and follow by a second."""
    writer = _Writer(ledger, at or datetime.now(UTC), expires, tasks)
    writer.create(update_id, description)
    if stage is Stage.CANCELLED:
        return writer.add(e.Cancelled, reason="not needed")
    if stage is Stage.PLANNING:
        return writer.state
    writer.push()
    if stage is Stage.PUSHED:
        return writer.state
    writer.verify("failed" if stage is Stage.FAILED else outcome)
    if stage in (Stage.FAILED, Stage.TESTING):
        return writer.state
    writer.open_gate()
    if stage is Stage.AWAITING_APPROVAL:
        return writer.state
    if stage is Stage.EXPIRED:
        return writer.add(e.Expired, at=writer.expires)
    if stage is Stage.REJECTED:
        return writer.answer("reject", None)
    writer.answer("approve", ledger.highest_release_seq("omega") + 1)
    return writer.ship(stage)


class _Writer:
    def __init__(self, ledger: Ledger, at: datetime, expires: datetime | None, tasks: tuple[str, ...]) -> None:
        self._ledger = ledger
        self._tasks = tasks
        self._at = at
        self.expires = expires or at + timedelta(days=7)
        self.state: State

    def add(self, kind: type[e.Event], *, at: datetime | None = None, **fields: object) -> State:
        self._at += timedelta(seconds=1)
        event = kind(at=at or self._at, by="kim@alpha", **fields)
        self.state = self._ledger.append(self.state, event)  # type: ignore[arg-type]
        return self.state

    def create(self, update_id: str, description: str) -> None:
        created = e.Created(at=self._at, by="kim@alpha", description=description, target="omega", public="public")
        self.state = self._ledger.create(update_id, created)

    def push(self) -> None:
        source = Source(name="raos", commit="c" * 40)
        self.add(
            e.Packaged,
            bundle=digest(self.state.update_id),
            version="9.4.1",
            files=2,
            size=3_000_000,
            source=source,
            tasks=self._tasks,
        )
        self.add(e.PublicSwitching, from_bundle=None)
        self.add(e.Pushed, url="http://127.0.0.1:1")

    def verify(self, outcome: str) -> None:
        self.add(e.VerificationStarted)
        failed = outcome == "failed"
        found = evidence_of(self.state.update_id, attempt=self.state.attempt, outcome=outcome)
        evidence = self._ledger.put_document("evidence", found.document())
        self.add(e.Verified, evidence=evidence, outcome=outcome, checks=(CHECK, FAILING) if failed else (CHECK,))

    def open_gate(self) -> None:
        self.add(e.GateOpened, opening=self.state.openings + 1, expires=self.expires)
        self.add(e.GateClaimed, run="00000000-0000-0000-0000-000000000000")
        shown = self._ledger.put_document("gate", {"markdown": f"# May {self.state.update_id} go to omega?"})
        self.add(e.ApprovalRequested, ordinal=self.state.askings.get("release", 0) + 1, target_bundle=None, shown=shown)

    def answer(self, decision: str, release_seq: int | None) -> State:
        return self.add(
            e.ApprovalAnswered,
            ordinal=self.state.askings["release"],
            decision=decision,
            accepted=True,
            approver="kim",
            comment="read it",
            release_seq=release_seq,
        )

    def ship(self, stage: Stage) -> State:
        if stage is Stage.AWAITING_WINDOW:
            opens = self._at + timedelta(days=1)
            return self.add(e.WindowAwaited, server="omega", why="no window is open", opens=opens)
        if stage is Stage.DEPLOYING:
            return self.state
        self.add(e.Promoting, operation="op-1")
        self.add(e.Promoted, from_bundle=None, release_seq=self.state.release_seq)
        if stage is Stage.DISTRIBUTING:
            return self.state
        acme = e.MainframeOutcome(id="a" * 12, name="acme", result="running")
        late = e.MainframeOutcome(id="b" * 12, name="bolt", result="missing", reason="not seen since Monday")
        self.add(e.Distributed, mainframes=(acme, late))
        if stage is Stage.ROLLED_BACK:
            self.add(e.RollbackStarted, reason="oops")
            self.add(e.RolledBack)
        return self.state
