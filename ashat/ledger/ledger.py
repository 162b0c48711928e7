"""Keep the append-only record of what happened. A deployment's state is the fold of its events.

Two tables hold the record: `events`, `UNIQUE(update_id, attempt, version)`, which makes an append a compare-and-swap,
and `documents` (evidence, by digest). Over all updates the events are the leaves of a Merkle tree, in the order in
which they were appended (`ashat.ledger.database` says how that order is kept). `sessions` is only an index over the
newest state, written in the same transaction as the event, so that a list of a thousand deployments needs no fold. Its
`UNIQUE(target, release_seq)` keeps two approvals of different updates from getting the same number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError

from ashat.common.canonical_json import canonical_json, digest_of
from ashat.deployment.events import AnyEvent, Created, event_from_json, event_to_data
from ashat.deployment.state_machine import State, apply, fold, start
from ashat.errors import ConflictError, LedgerError, LedgerTooNewError, UnknownUpdateError, UpdateExistsError
from ashat.ledger.database import address_of, append_leaf, first_line, open_engine
from ashat.ledger.index import index_row, summary_from_json
from ashat.ledger.leaf import LogRow, Record, leaf_of
from ashat.ledger.remembered import LEDGER_NAME, remember_ledger, require_ledger
from ashat.ledger.tables import documents, events, log, meta, sessions
from ashat.settings import Settings

_CONFLICT_RETRIES = 20
_STREAMED = 500


def now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


class Ledger:
    """The record at one database address. Thread-safe; close it or use it as a context manager."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, *, before_making: Callable[[], None] = lambda: None, migrate: bool = False) -> Ledger:
        """Open the ledger at `url` (SQLAlchemy's form; SQLite or PostgreSQL); its tables are made if there are none.

        `before_making` is called where there is no ledger, before anything is made, and may refuse. An older schema is
        brought to this version's: in SQLite, or where it is told to `migrate`.

        Raises:
            LedgerTooNewError: a newer version of this program wrote it.
            LedgerError: the address is wrong, the database does not answer, or has a schema that cannot be used.
        """
        return cls(open_engine(url, before_making, migrate=migrate))

    @classmethod
    def configured(cls, *, migrate: bool = False) -> Ledger:
        """Open the ledger that the settings name, if it is the one that this home knows there; `migrate` as in `open`.

        Raises:
            LedgerError: it does not open, a newer version wrote it, or the one that was there is gone, cut or another.
        """
        settings = Settings()
        if not settings.ledger_url:
            settings.ensure_home()
        address = address_of(settings.effective_ledger_url, settings.home)
        ledger = cls.open(
            settings.effective_ledger_url,
            before_making=lambda: require_ledger(settings.home, address, origin="", events=0),
            migrate=migrate,
        )
        if address:
            try:
                origin, events = ledger.log_head()
                require_ledger(settings.home, address, origin, events)
                remember_ledger(settings.home, address, origin)
            except BaseException:
                ledger.close()
                raise
        return ledger

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self, update_id: str, event: Created, *, attempt: int | None = None) -> State:
        """Begin `update_id`: attempt 1, or the next where the last one may be pushed again.

        `attempt` names the attempt that the caller expects to begin, if it matters.

        Raises:
            UpdateExistsError: the id is in use; the message says how to go on.
        """
        last = self.find(update_id)
        if last is not None and not last.may_be_pushed_again:
            raise UpdateExistsError(how_to_go_on(last))
        following = last.attempt + 1 if last else 1
        if attempt is not None and attempt != following:
            raise ConflictError(f"Deployment '{update_id}' is at attempt {following - 1} by now.")
        try:
            return self.append(start(update_id, following), event)
        except ConflictError:
            raise UpdateExistsError(
                f"Deployment session '{update_id}' already exists: somebody began it just now."
            ) from None

    def append(self, state: State, event: AnyEvent) -> State:
        """Add `event` after exactly `state`, and return the new state.

        Raises:
            SessionError: the state does not allow the event. Nothing is written.
            ConflictError: somebody else appended first. Nothing is written; the message says what they did.
            LedgerError: the database failed.
        """
        following = apply(state, event)
        body = canonical_json(event_to_data(event)).decode()
        try:
            leaf = leaf_of(state.update_id, state.attempt, following.version, body)
            with self._engine.begin() as connection:
                seq, root = append_leaf(connection, leaf)
                connection.execute(
                    events.insert().values(
                        update_id=state.update_id,
                        attempt=state.attempt,
                        version=following.version,
                        kind=event.kind,
                        at=event.at.isoformat(),
                        body=body,
                        seq=seq,
                        root=root,
                    )
                )
                _index(connection, following)
        except IntegrityError:
            raise ConflictError(self._what_happened(state)) from None
        except DBAPIError as error:
            raise LedgerError(f"The ledger was not written: {first_line(error, self._engine.url)}") from None
        return following

    def advance(self, update_id: str, attempt: int, decide: Callable[[State], AnyEvent | None]) -> State:
        """Append what `decide` makes of the newest state, asking again whenever somebody else was first.

        `decide` returns None where there is nothing to add. It must be free of side effects.

        Raises:
            SessionError: the newest state does not allow the event.
        """
        for _ in range(_CONFLICT_RETRIES):
            state = self.load(update_id, attempt)
            event = decide(state)
            if event is None:
                return state
            try:
                return self.append(state, event)
            except ConflictError:
                continue
        raise ConflictError(f"Deployment '{update_id}' is being changed too often by others; try again.")

    def find(self, update_id: str, attempt: int | None = None) -> State | None:
        """Fold the state of an attempt (default: the last); None if there is none."""
        with self._read() as connection:
            if attempt is None:
                attempt = connection.execute(
                    sa.select(sa.func.max(events.c.attempt)).where(events.c.update_id == update_id)
                ).scalar()
            if attempt is None:
                return None
            rows = connection.execute(_of(update_id, attempt)).all()
        return fold(update_id, attempt, [_event(row.body) for row in rows]) if rows else None

    def load(self, update_id: str, attempt: int | None = None) -> State:
        """Fold the state of an attempt (default: the last).

        Raises:
            UnknownUpdateError: there is none.
        """
        state = self.find(update_id, attempt)
        if state is None:
            which = f"'{update_id}'" if attempt is None else f"'{update_id}' attempt {attempt}"
            raise UnknownUpdateError(f"No deployment {which} is known. deploy history lists them.")
        return state

    def events(self, update_id: str, attempt: int, *, after: int = 0) -> list[AnyEvent]:
        """List what happened to an attempt after its version `after`, in order: everything, if that is 0."""
        with self._read() as connection:
            rows = connection.execute(_of(update_id, attempt).where(events.c.version > after)).all()
        return [_event(row.body) for row in rows]

    def log_head(self) -> tuple[str, int]:
        """Read the log's name, and how many events were ever appended.

        Raises:
            LedgerError: the row that says so is gone, or says no such thing.
        """
        head = self.log_row()
        return head.origin, head.size

    def log_row(self) -> LogRow:
        """Read the row of the log: its name, how many events were ever appended, and the frontier of its tree.

        Raises:
            LedgerError: it is gone, or was altered.
        """
        with self._read() as connection:
            found = connection.execute(sa.select(log.c.origin, log.c.size, log.c.frontier)).all()
        row = LogRow._make(found[0]) if len(found) == 1 else None
        if row is None or not isinstance(row.size, int) or not LEDGER_NAME.fullmatch(str(row.origin)):
            raise LedgerError("The ledger's log was altered: the row that names it is gone. Restore the database.")
        return row

    def records(self, limit: int | None = None, *, first: int = 0) -> Iterator[Record]:
        """Read the events of all updates in the order in which they were appended, from the place `first` on: `limit`
        of them, or all."""
        columns = (events.c[name] for name in Record._fields)
        with self._read() as connection:
            streaming = connection.execution_options(yield_per=_STREAMED)
            found = sa.select(*columns).where(events.c.seq >= first).order_by(events.c.seq).limit(limit)
            for row in streaming.execute(found):
                yield Record._make(row)

    def parsed(self, kinds: Sequence[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Read the events of those kinds, of all updates, in the order in which they were appended: the update, the
        attempt and the event's JSON. Whoever sums up thousands of updates needs no states."""
        with self._read() as connection:
            found = sa.select(events.c.update_id, events.c.attempt, events.c.body).where(events.c.kind.in_(kinds))
            streaming = connection.execution_options(yield_per=_STREAMED)
            for row in streaming.execute(found.order_by(events.c.seq)):
                yield row.update_id, row.attempt, json.loads(row.body)

    def summaries(
        self,
        *,
        stages: tuple[str, ...] = (),
        text: str = "",
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """List `State.summary()` of every attempt, the newest first.

        `text` is looked for in ids and descriptions.
        """
        query = sa.select(sessions.c.summary).order_by(sessions.c.updated_at.desc(), sessions.c.update_id)
        if stages:
            query = query.where(sessions.c.stage.in_(stages))
        if limit is not None and not text:
            query = query.limit(limit)
        with self._read() as connection:
            found = [summary_from_json(row.summary) for row in connection.execute(query)]
        if text:
            found = [s for s in found if text.casefold() in f"{s['update_id']} {s['description']}".casefold()][:limit]
        return found

    def listed(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Read the rows behind `summaries` by update id and attempt, as `index_row` makes them."""
        with self._read() as connection:
            rows = connection.execute(sa.select(sessions)).mappings().all()
        return {(row["update_id"], row["attempt"]): dict(row) for row in rows}

    def highest_release_seq(self, target: str) -> int:
        """Find the highest `release_seq` that was ever given out for `target`; 0 if none was."""
        highest = (sa.func.max(sessions.c.release_seq), sa.func.max(sessions.c.rollback_seq))
        with self._read() as connection:
            approved, rolled_back = connection.execute(sa.select(*highest).where(sessions.c.target == target)).one()
        return max(approved or 0, rolled_back or 0)

    def put_document(self, kind: str, document: dict[str, Any]) -> str:
        """Keep a document; its digest, which is that of its canonical JSON. Keeping it twice is keeping it once."""
        digest, body = digest_of(document), canonical_json(document).decode()
        try:
            with self._engine.begin() as connection:
                known = connection.execute(sa.select(documents.c.digest).where(documents.c.digest == digest)).first()
                if known is None:
                    connection.execute(documents.insert().values(digest=digest, kind=kind, body=body))
        except IntegrityError:
            pass  # another process kept the same bytes in the same moment
        except DBAPIError as error:
            raise LedgerError(f"The ledger was not written: {first_line(error, self._engine.url)}") from None
        return digest

    def check_columns(self) -> None:
        """Check that the columns beside each event's body, which the tree does not cover, are what the body says.

        Raises:
            LedgerError: one is not; the message names the event.
        """
        columns = (events.c.seq, events.c.kind, events.c.at, events.c.body)
        with self._read() as connection:
            streaming = connection.execution_options(yield_per=_STREAMED)
            for seq, kind, at, body in streaming.execute(sa.select(*columns).order_by(events.c.seq)):
                event = _event(body)
                if (kind, at) != (json.loads(body)["kind"], event.at.isoformat()):
                    raise LedgerError(f"The kind or the time beside event {seq + 1} is not what the event says.")

    def document_digests(self) -> list[str]:
        """List the digests of all documents.

        Raises:
            LedgerError: one that was kept as the newest of its name is not there, or not of that name.
        """
        named = sa.select(meta.c.key, documents.c.kind).join_from(
            meta, documents, documents.c.digest == meta.c.value, isouter=True
        )
        with self._read() as connection:
            for key, kind in connection.execute(named.where(meta.c.key != "schema")):
                if key != f"newest:{kind}":
                    raise LedgerError(f"The document that the ledger keeps as its {key} is missing, or is another.")
            return list(connection.execute(sa.select(documents.c.digest)).scalars())

    def check_storage(self) -> str:
        """Have the database check its own pages and indexes; return why it cannot, empty where it did.

        Raises:
            LedgerError: they are damaged.
        """
        if self._engine.dialect.name != "sqlite":
            return "PostgreSQL's own pages and indexes: pg_amcheck does that"
        with self._read() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if found != "ok":
            raise LedgerError(f"The ledger's file is damaged: {str(found).splitlines()[-1]}. Restore it from a backup.")
        return ""

    def document_text(self, digest: str) -> str | None:
        """Read the document of that digest as it lies in the database, unchecked; None if there is none."""
        with self._read() as connection:
            query = sa.select(documents.c.body).where(documents.c.digest == digest)
            found: str | None = connection.execute(query).scalar()
        return found

    def document(self, digest: str) -> dict[str, Any]:
        """Read the document of that digest.

        Raises:
            LedgerError: there is none, or its bytes no longer match the digest.
        """
        body = self.document_text(digest)
        if body is None:
            raise LedgerError(f"The ledger holds no document {digest[:12]}….")
        try:
            document: dict[str, Any] = json.loads(body)
            altered = digest_of(document) != digest
        except ValueError:
            altered = True
        if altered:
            raise LedgerError(f"Document {digest[:12]}… in the ledger was altered: its digest does not match.")
        return document

    def put_newest(self, name: str, document: dict[str, Any]) -> str:
        """Keep a document as the newest of its `name`; its digest."""
        digest, key = self.put_document(name, document), f"newest:{name}"
        try:
            with self._engine.begin() as connection:
                connection.execute(meta.delete().where(meta.c.key == key))
                connection.execute(meta.insert().values(key=key, value=digest))
        except IntegrityError:
            raise ConflictError(f"Another {name} was recorded in the same moment; do it again.") from None
        except DBAPIError as error:
            raise LedgerError(f"The ledger was not written: {first_line(error, self._engine.url)}") from None
        return digest

    def newest(self, name: str) -> dict[str, Any] | None:
        """Read the document last kept by `put_newest` under that name; None if there was none."""
        with self._read() as connection:
            digest = connection.execute(sa.select(meta.c.value).where(meta.c.key == f"newest:{name}")).scalar()
        return self.document(digest) if digest else None

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise LedgerError(f"The ledger does not answer: {first_line(error, self._engine.url)}") from None

    def _what_happened(self, seen: State) -> str:
        happened = self.events(seen.update_id, seen.attempt)
        if len(happened) <= seen.version:
            return (
                f"Another approval for {seen.target} was accepted in the same moment. Nothing of yours was applied: "
                f"look at deploy status, then answer again."
            )
        first, newest = happened[seen.version], fold(seen.update_id, seen.attempt, happened)
        who = f" by {first.by}" if first.by else ""
        return (
            f"Deployment '{seen.update_id}' moved on: {first.name}{who}; "
            f"it is {newest.stage.value} now. Nothing of yours was applied."
        )


def _of(update_id: str, attempt: int) -> sa.Select[tuple[str]]:
    return (
        sa.select(events.c.body)
        .where(events.c.update_id == update_id, events.c.attempt == attempt)
        .order_by(events.c.version)
    )


def _event(body: str) -> AnyEvent:
    try:
        return event_from_json(body)
    except ValidationError as error:
        raise LedgerTooNewError(
            "The ledger holds an event that this version does not know "
            f"({error.errors()[0]['msg']}). Upgrade this install; nothing was changed."
        ) from None


def _index(connection: sa.Connection, state: State) -> None:
    values = index_row(state)
    where = (sessions.c.update_id == state.update_id) & (sessions.c.attempt == state.attempt)
    if state.version == 1:
        connection.execute(sessions.insert().values(**values))
    else:
        connection.execute(sessions.update().where(where).values(**values))


def how_to_go_on(state: State) -> str:
    """Say why the id of `state` cannot be pushed now, and what can be done instead, in a line."""
    exists = f"Deployment session '{state.update_id}' already exists ({state.stage.value})."
    if state.reached_omega:
        return f"{exists} It reached {state.the_target}, so its id is never used again: push under a new id."
    step = {
        "Planning": "go on with it under the same content: deploy push, or call it off",
        "Pushed": f"go on with deploy verify {state.update_id}, or call it off",
        "Testing": f"go on with deploy verify {state.update_id}, or call it off",
        "AwaitingApproval": f"go on with deploy approve {state.update_id}, or call it off",
    }.get(state.stage.value, "choose another id, or call it off")
    return f"{exists} To continue, {step}: deploy cancel {state.update_id}."
