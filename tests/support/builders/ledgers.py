"""Ledgers for tests of the log: filled, of the first schema, worked on by other processes."""

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
_TYPES = {"sqlite": "INTEGER PRIMARY KEY", "postgresql": "BIGSERIAL PRIMARY KEY"}


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


def first_schema(url: str, size: int) -> list[tuple[str, int, int, str]]:
    """Make a ledger of the first schema, as 0.1.0 before the log wrote it, with `size` events of three updates."""
    rows: list[tuple[str, int, int, str]] = []
    story = [CREATED, *fill(size)]
    for number in range(size):
        body = canonical_json(story[number // 3].model_dump(mode="json")).decode()
        rows.append((f"UPD-{number % 3}", 1, number // 3 + 1, body))
    with connected(url) as connection:
        key = _TYPES[connection.dialect.name]
        for statement in (
            "CREATE TABLE ashat_meta (key VARCHAR(64) PRIMARY KEY, value VARCHAR(255) NOT NULL)",
            f"CREATE TABLE events (id {key}, update_id VARCHAR(64) NOT NULL, attempt INTEGER NOT NULL, "
            "version INTEGER NOT NULL, kind VARCHAR(64) NOT NULL, at VARCHAR(40) NOT NULL, body TEXT NOT NULL, "
            "CONSTRAINT uq_events_version UNIQUE (update_id, attempt, version))",
            "CREATE TABLE documents (digest VARCHAR(64) PRIMARY KEY, kind VARCHAR(64) NOT NULL, body TEXT NOT NULL)",
            "CREATE TABLE sessions (update_id VARCHAR(64), attempt INTEGER, version INTEGER NOT NULL, "
            "stage VARCHAR(32) NOT NULL, target VARCHAR(64) NOT NULL, pushed_by VARCHAR(255) NOT NULL, "
            "release_seq INTEGER, rollback_seq INTEGER, created_at VARCHAR(40) NOT NULL, "
            "updated_at VARCHAR(40) NOT NULL, summary TEXT NOT NULL, PRIMARY KEY (update_id, attempt), "
            "CONSTRAINT uq_sessions_release_seq UNIQUE (target, release_seq))",
            "INSERT INTO ashat_meta VALUES ('schema', '1')",
        ):
            connection.exec_driver_sql(statement)
        for update_id, attempt, version, body in rows:
            connection.execute(
                sa.text(
                    "INSERT INTO events (update_id, attempt, version, kind, at, body) VALUES (:u, :a, :v, :k, '', :b)"
                ),
                {"u": update_id, "a": attempt, "v": version, "k": story[version - 1].kind, "b": body},
            )
        for update_id, version in {row[0]: row[2] for row in rows}.items():
            connection.execute(
                sa.text("INSERT INTO sessions VALUES (:u, 1, :v, '', 'omega', '', null, null, '', '', '{}')"),
                {"u": update_id, "v": version},
            )
    return rows


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
