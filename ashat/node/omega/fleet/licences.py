"""Licences: their keys, when they count, and where they are kept.

A key holds 96 random bits, so it is kept as a plain sha256: there is nothing to guess offline, and a lookup by hash
tells a caller nothing through its timing. For the same reason there is no lock-out after wrong keys, which would only
hit the other Mainframes behind the same address.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ashat.common.identifiers import key_hash, licence_id
from ashat.node.core.db import from_text, now, to_text
from ashat.node.logs.change_log_audit import KeptLicence
from ashat.node.omega.fleet.database import FleetDatabase, next_number
from ashat.node.omega.fleet.outbox import note
from ashat.node.omega.fleet.rollouts import leave
from ashat.node.omega.fleet.tables import licences, mainframes
from ashat.protocol.licences import LicenceState, LicenceStatus

REMEMBERED = 200_000
_WITH_KEY = sa.select(licences).where(licences.c.key_hash == sa.bindparam("key_hash"))


def licence_status(*, expires: datetime | None, revoked_at: datetime | None, now: datetime) -> LicenceStatus:
    """Tell whether the licence counts at `now`. It expires at the very instant `expires`; revoked beats expired."""
    if revoked_at is not None:
        return "revoked"
    if expires is not None and now >= expires:
        return "expired"
    return "active"


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as OMEGA keeps it: everything but the key."""

    id: str
    name: str
    expires: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    old_protocol: bool = False

    @property
    def status(self) -> LicenceStatus:
        """Whether it counts now."""
        return licence_status(expires=self.expires, revoked_at=self.revoked_at, now=now())

    def told(self) -> LicenceState:
        """Say it as OMEGA does."""
        return LicenceState(
            id=self.id,
            name=self.name,
            status=self.status,
            created_at=self.created_at,
            expires=self.expires,
            revoked_at=self.revoked_at,
            old_protocol=self.old_protocol,
        )


class LicenceStore:
    """OMEGA's register of licences. Safe to use from many threads and from several processes at once.

    Those that were asked for are remembered until they change, whoever changes them.
    """

    def __init__(self, database: FleetDatabase, changed: Callable[[], None]) -> None:
        """Keep licences in `database`; `changed` is called after each change."""
        self._database = database
        self._changed = changed
        self._remembering = threading.Lock()
        self._remembered: dict[str, Licence] = {}
        self._seen: object = None
        self._version = -1

    def upsert(self, key: str, name: str, expires: datetime | None) -> tuple[Licence, bool]:
        """Keep the licence with `key`, or renew the one that is kept already; True where it is new.

        A revoked licence takes the new name and date and stays revoked.
        """
        return self.keep_all([(key, name, expires)])[0]

    def keep_all(
        self, wanted: Sequence[tuple[str, str, datetime | None]], old_protocol: Mapping[str, bool] | None = None
    ) -> list[tuple[Licence, bool]]:
        """Do `upsert` for each of `wanted`, and `let_speak_old` for each whose key is in `old_protocol`: all of them
        or, if that fails, none."""

        def keep(connection: sa.Connection) -> list[tuple[Licence, bool]]:
            new = [_keep(connection, *each) for each in wanted]
            for key, old in (old_protocol or {}).items():
                _let_speak_old(connection, licence_id(key), old=old)
            return [
                (_licence(_row(connection, licence_id(key))), is_new)
                for (key, _, _), is_new in zip(wanted, new, strict=True)
            ]

        kept = self._database.change(keep)
        self._changed()
        return kept

    def renew(self, licence: str, expires: datetime | None) -> Licence | None:
        """Have the licence end at another time; None where there is no such id. A revoked one stays as it is."""

        def renew(connection: sa.Connection) -> Licence | None:
            row = _row(connection, licence)
            if row is None:
                return None
            until = to_text(expires) if expires else None
            if row.revoked_at is None and row.expires != until:
                _update(connection, licence, expires=until)
                note(connection, "licence-kept", id=row.id, name=row.name, expires=until)
            return _licence(_row(connection, licence))

        renewed = self._database.change(renew)
        self._changed()
        return renewed

    def revoke(self, licence: str) -> Licence | None:
        """Revoke the licence for good; None where there is no such id. To revoke it again changes nothing.

        Its Mainframe is offered nothing from then on, and rollouts that are under way do not wait for it any more.
        """

        def revoke(connection: sa.Connection) -> Licence | None:
            row = _row(connection, licence)
            if row is not None and row.revoked_at is None:
                _update(connection, licence, revoked_at=to_text(now()))
                note(connection, "licence-revoked", id=row.id, name=row.name)
                leave(connection, licence)
            return _licence(_row(connection, licence)) if row is not None else None

        revoked = self._database.change(revoke)
        self._changed()
        return revoked

    def let_speak_old(self, licence: str, *, old: bool) -> None:
        """Let the install with that licence ask by the old protocol, or no more."""

        self._database.change(lambda connection: _let_speak_old(connection, licence, old=old))
        self._changed()

    def all(self) -> list[Licence]:
        """List every licence, by name."""
        return [_licence(row) for row in self._database.read(sa.select(licences).order_by("name", "id"))]

    def kept(self) -> dict[str, KeptLicence]:
        """Read of every licence, by its id, what the change log tells of it too."""
        columns = sa.select(licences.c.id, licences.c.created_at, licences.c.expires, licences.c.revoked_at)
        return {
            row.id: KeptLicence(row.created_at, row.expires, row.revoked_at) for row in self._database.read(columns)
        }

    def named(self, licence: str) -> Licence | None:
        """Find the licence with that id."""
        rows = self._database.read(sa.select(licences).where(licences.c.id == licence))
        return _licence(rows[0]) if rows else None

    def keyed(self, licence: str) -> tuple[Licence, str] | None:
        """Find the licence of that id, whatever its status, and the sha256 of its key in hexadecimal."""
        rows = self._database.read(sa.select(licences).where(licences.c.id == licence))
        return (_licence(rows[0]), str(rows[0].key_hash)) if rows else None

    def find(self, key: str) -> Licence | None:
        """Find the licence with `key`, whatever its status."""
        wanted = key_hash(key)
        with self._remembering:
            self._forget_changed()
            known = self._remembered.get(wanted)
        if known is not None:
            return known
        rows = self._database.read(_WITH_KEY, {"key_hash": wanted})
        if not rows:
            return None
        found = _licence(rows[0])
        with self._remembering:
            if rows[0].version <= self._version and len(self._remembered) < REMEMBERED:
                self._remembered[wanted] = found
        return found

    def _forget_changed(self) -> None:
        """Forget which licences somebody changed since the last look."""
        seen = self._database.touched()
        if seen == self._seen:
            return
        newest = self._database.glance("licences_version")
        if self._version < 0:
            self._version = newest
        elif newest > self._version:
            changed = sa.select(licences.c.key_hash, licences.c.version).where(licences.c.version > self._version)
            for row in self._database.read(changed):
                self._remembered.pop(row.key_hash, None)
                self._version = max(self._version, row.version)
        self._seen = seen


def _keep(connection: sa.Connection, key: str, name: str, expires: datetime | None) -> bool:
    """Keep a licence, or renew it; tell whether it is new."""
    identity, until = licence_id(key), to_text(expires) if expires else None
    known = _row(connection, identity)
    if known is None:
        version = next_number(connection, "licences_version")
        row = {"id": identity, "key_hash": key_hash(key), "name": name, "created_at": to_text(now())}
        connection.execute(licences.insert().values(**row, expires=until, version=version))
        connection.execute(mainframes.insert().values(licence=identity))
    elif (known.name, known.expires) != (name, until):
        _update(connection, identity, name=name, expires=until)
    if known is None or (known.name, known.expires) != (name, until):
        note(connection, "licence-kept", id=identity, name=name, expires=until)
    return known is None


def _let_speak_old(connection: sa.Connection, licence: str, *, old: bool) -> None:
    row = _row(connection, licence)
    if row is not None and row.old_protocol != old:
        _update(connection, licence, old_protocol=old)
        note(connection, "licence-old-protocol", id=licence, allowed=old)


def _update(connection: sa.Connection, licence: str, **values: object) -> None:
    version = next_number(connection, "licences_version")
    connection.execute(licences.update().where(licences.c.id == licence).values(**values, version=version))


def _row(connection: sa.Connection, licence: str) -> Any:
    return connection.execute(sa.select(licences).where(licences.c.id == licence)).one_or_none()


def _licence(row: Any) -> Licence:
    return Licence(
        id=row.id,
        name=row.name,
        expires=from_text(row.expires) if row.expires else None,
        revoked_at=from_text(row.revoked_at) if row.revoked_at else None,
        created_at=from_text(row.created_at),
        old_protocol=bool(row.old_protocol),
    )
