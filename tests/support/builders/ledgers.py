"""Ledgers for tests of the log: filled, rewritten, worked on by other processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ashat.common.canonical_json import canonical_json
from ashat.deployment import events as e
from ashat.deployment.state_machine import State
from ashat.ledger.leaf import leaf_of
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Source
from ashat.transparency.merkle import CompactRange, leaf_hash
from tests.support.processes.forks import FORKS

ROOT = Path(__file__).resolve().parents[3]
T0 = datetime(2026, 1, 1, tzinfo=UTC)
FAR = datetime(2100, 1, 1, tzinfo=UTC)
CREATED = e.Created(at=T0, by="kim", description="A description — 描述 🚀", target="omega", public="public")
EVIDENCE = {"evidence": "what the checks saw", "id": "e"}
SHOWN = {"markdown": "What changes: everything."}


def fill(askings: int, evidence: str = "e" * 64, shown: str | None = None) -> list[Any]:
    """The events that follow the first, up to the gate, and as many further askings."""
    return [
        e.Packaged(at=T0, bundle="a" * 64, files=1, size=1, source=Source(name="sample")),
        e.PublicSwitching(at=T0, from_bundle=None),
        e.Pushed(at=T0, url="http://public"),
        e.VerificationStarted(at=T0),
        e.Verified(at=T0, evidence=evidence, outcome="passed", checks=()),
        e.GateOpened(at=T0, opening=1, expires=FAR),
        *(e.ApprovalRequested(at=T0, ordinal=n, target_bundle=None, shown=shown) for n in range(1, askings + 2)),
    ]


def begin(ledger: Ledger, update_id: str, events: list[Any]) -> State:
    """An update with these events after its first; its state."""
    state = ledger.create(update_id, CREATED)
    for event in events:
        state = ledger.append(state, event)
    return state


def honest(ledger: Ledger, update_id: str, askings: int = 0) -> State:
    """An update at its gate whose documents are kept."""
    evidence, shown = ledger.put_document("evidence", EVIDENCE), ledger.put_document("gate", SHOWN)
    return begin(ledger, update_id, fill(askings, evidence, shown))


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A connection past the ledger, in a transaction that is kept."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def execute(url: str, statement: str, **values: Any) -> None:
    """One statement past the ledger; it has to change something."""
    with connected(url) as connection:
        assert connection.execute(sa.text(statement), values).rowcount != 0


def rewrite(url: str, seq: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Alter an event as somebody would who knows how the log is made: every root after it is computed anew."""
    with connected(url) as connection:
        rows = connection.execute(sa.text("select * from events order by seq")).mappings().all()
        tree = CompactRange()
        for row in rows:
            body = row["body"]
            if row["seq"] == seq:
                event = json.loads(body)
                change(event)
                body = canonical_json(event).decode()
            tree.append(leaf_hash(leaf_of(row["update_id"], row["attempt"], row["version"], body)))
            connection.execute(
                sa.text("update events set body = :body, root = :root where seq = :seq"),
                {"body": body, "root": tree.root().hex(), "seq": row["seq"]},
            )
        frontier = " ".join(node.hex() for node in tree.nodes)
        connection.execute(sa.text("update log set frontier = :frontier"), {"frontier": frontier})


class Worker:
    """A process of `tests.support.processes.ledger_worker`: what it is told through `stdin`, what it says."""

    def __init__(self, *words: str) -> None:
        given, stdin = os.pipe()
        stdout, out = os.pipe()
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)
        with os.fdopen(given, "rb") as reads, os.fdopen(out, "wb") as writes, open(os.devnull, "wb") as nothing:
            streams = (reads, writes, nothing)
            self.process = FORKS.start(["tests.support.processes.ledger_worker", *words], streams=streams)

    def end(self) -> str:
        """What it says until its end."""
        with self.stdin, self.stdout:
            text = self.stdout.read()
        self.process.wait(180)
        return text.strip()


def race(*workers: Worker) -> list[str]:
    """Start them in the same moment once all are ready; what each printed last."""
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return [worker.end() for worker in workers]
