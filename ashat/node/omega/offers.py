"""The offer to Mainframes: the rules, and where it is kept."""

from __future__ import annotations

import logging
import sqlite3
from datetime import datetime

from ashat.common.failpoints import fault_point
from ashat.errors import TrustError
from ashat.node.core.db import Database, from_text, now, to_text
from ashat.node.core.errors import ApiError
from ashat.node.logs import change_log
from ashat.node.omega.ledger_log import KeptLog
from ashat.node.omega.trust import OmegaTrust
from ashat.node.operations import records
from ashat.protocol.messages import Current, Offer, OperationRequest

log = logging.getLogger("ashat.node.omega")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS offer (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    release_seq INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    update_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    offered_at TEXT NOT NULL
) STRICT;
"""
_BROUGHT = "SELECT request FROM operations WHERE status = 'succeeded' AND release_seq = ? AND to_bundle = ?"
_ENDED = (
    "SELECT max(ended_at) AS ended_at FROM operations WHERE status = 'succeeded' AND release_seq = ? AND to_bundle = ?"
)
_RAN = "SELECT 1 FROM operations WHERE status = 'succeeded' AND release_seq = ? AND to_bundle = ?"


def effective_offer(put: Offer | None, current: Current | None, *, rolled_back: bool) -> Offer | None:
    """Decide what Mainframes are offered, from the offer that was last `put` and what OMEGA runs.

    A promotion is not offered before somebody says so: until then Mainframes stay with the offer before. A rollback
    (`rolled_back`: it brought `current`) is offered by itself as soon as it is done, because what it replaced must
    not spread further; where nothing was ever offered there is nothing to take back.
    """
    if put is None or current is None or not rolled_back or current.release_seq is None:
        return put
    return put if put.release_seq >= current.release_seq else offer_of(current)


def offer_of(current: Current) -> Offer | None:
    """Make the offer of what OMEGA runs; None where that came without a `release_seq`."""
    if current.release_seq is None:
        return None
    return Offer(
        release_seq=current.release_seq, bundle=current.bundle, update_id=current.update_id, attempt=current.attempt
    )


def why_not_offered(offer: Offer, current: Current | None) -> str | None:
    """Say why `offer` cannot be put while OMEGA runs `current`; None where it can."""
    if current is None:
        return "OMEGA runs nothing yet, so there is nothing to offer. Promote a release first."
    running = offer_of(current)
    if running is None:
        return f"OMEGA runs {current.bundle[:12]}, which was not promoted. Promote a release first."
    if offer != running:
        return (
            f"OMEGA runs {current.bundle[:12]} of {current.update_id}/{current.attempt} as release_seq "
            f"{running.release_seq}, not {offer.bundle[:12]} of {offer.update_id}/{offer.attempt} as "
            f"{offer.release_seq}. Only what OMEGA runs can be offered."
        )
    return None


class Offers:
    """The offer of one OMEGA, kept in the node's record."""

    def __init__(self, database: Database, trust: OmegaTrust, log: KeptLog) -> None:
        self._database = database
        self._trust = trust
        self._log = log
        self._let_out: Offer | None = None
        self._known: tuple[int, Offer | None] | None = None
        self._ran: set[tuple[int, str]] = set()
        database.ensure(_SCHEMA)

    def effective(self) -> Offer | None:
        """Return what Mainframes are offered now. What the approvers signed for that is published first."""
        touched = self._database.touched()
        if self._known is None or self._known[0] != touched:
            self._known = (touched, self._effective())
        return self._known[1]

    def known(self) -> tuple[Offer | None] | None:
        """Return what `effective` would, where that takes no look at the record; None where it does."""
        known = self._known
        return (known[1],) if known is not None and known[0] == self._database.touched() else None

    def _effective(self) -> Offer | None:
        with self._database.snapshot() as connection:
            put, offer = _look(connection)
        if offer in (put, self._let_out):
            return offer
        # Which log Mainframes are shown with it is written down, as with any other.
        with self._database.transaction() as connection:
            put, offer = _look(connection)
            if offer is None or offer == put:
                return put
            try:
                self._publish(connection, offer)
            except TrustError as error:
                log.warning("what OMEGA went back to cannot be offered: %s", error)
                return put
        self._let_out = offer
        return offer

    def check(self, offer: Offer) -> None:
        """Refuse to offer what OMEGA does not run.

        Raises:
            ApiError: 409 `expected_current`.
        """
        with self._database.snapshot() as connection:
            _check_runs(offer, records.read_standing(connection).current)

    def is_return(self, offer: Offer) -> bool:
        """Tell whether OMEGA runs what `offer` names because it was rolled back to that."""
        with self._database.snapshot() as connection:
            standing = records.read_standing(connection)
        current = standing.current
        return standing.brought_by == "rollback" and current is not None and offer_of(current) == offer

    def put(self, offer: Offer) -> None:
        """Offer from now on what OMEGA runs, durably.

        Raises:
            ApiError: 409 `busy` while a change is under way, `expected_current` where OMEGA runs something else,
                `untrusted` where what was signed no longer counts.
        """
        with self._database.transaction() as connection:
            running = connection.execute("SELECT * FROM operations WHERE status = 'running'").fetchone()
            if running:
                operation = records.to_operation(running)
                raise ApiError(
                    409,
                    "busy",
                    f"The operation {operation.id!r} is under way; wait for it to end.",
                    operation=operation.model_dump(mode="json", by_alias=True),
                )
            _check_runs(offer, records.read_standing(connection).current)
            try:
                self._publish(connection, offer)
            except TrustError as error:
                raise ApiError(409, "untrusted", f"This cannot be offered to Mainframes: {error}") from None
            fault_point("trust.published")
            if _read(connection) != offer:
                change_log.append(connection, "offered", **offer.model_dump(mode="json"))
            connection.execute(
                "INSERT OR REPLACE INTO offer (only, release_seq, bundle, update_id, attempt, offered_at) "
                "VALUES (1, ?, ?, ?, ?, ?)",
                (offer.release_seq, offer.bundle, offer.update_id, offer.attempt, to_text(now())),
            )

    def _publish(self, connection: sqlite3.Connection, offer: Offer) -> None:
        """Let Mainframes have what was signed for `offer`, if anything was, and note the log that they are shown."""
        if not self._trust.begun():
            return
        brought = connection.execute(_BROUGHT, (offer.release_seq, offer.bundle)).fetchone()
        signed = OperationRequest.model_validate_json(brought["request"]).signed if brought else None
        # What was promoted before OMEGA kept a root was offered then, too; Mainframes take nothing unsigned anew.
        if signed is not None:
            self._log.publish(connection, self._trust.publish(signed))

    def released_at(self, offer: Offer) -> datetime:
        """Tell when OMEGA itself began to run what `offer` names."""
        row = self._database.one(_ENDED, (offer.release_seq, offer.bundle))
        assert row is not None
        return from_text(row["ended_at"])

    def check_reported(self, release_seq: int, bundle: str) -> None:
        """Refuse a report about what OMEGA never ran, so never offered.

        Raises:
            ApiError: 404.
        """
        if (release_seq, bundle) in self._ran:
            return
        if not self._database.one(_RAN, (release_seq, bundle)):
            raise ApiError(404, "not_found", f"OMEGA never ran {bundle[:12]} as release_seq {release_seq}.")
        self._ran.add((release_seq, bundle))


def _check_runs(offer: Offer, current: Current | None) -> None:
    if reason := why_not_offered(offer, current):
        known = current.model_dump(mode="json") if current else None
        raise ApiError(409, "expected_current", reason, current=known)


def _look(connection: sqlite3.Connection) -> tuple[Offer | None, Offer | None]:
    """The offer that was put last, and what is to be offered."""
    standing, put = records.read_standing(connection), _read(connection)
    return put, effective_offer(put, standing.current, rolled_back=standing.brought_by == "rollback")


def _read(connection: sqlite3.Connection) -> Offer | None:
    row = connection.execute("SELECT release_seq, bundle, update_id, attempt FROM offer").fetchone()
    return Offer(**dict(row)) if row else None
