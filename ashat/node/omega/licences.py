"""Licence keys: how they are made, known again, and when they count. Rules only, no I/O.

A key holds 96 random bits, so it is kept as a plain sha256: there is nothing to guess offline, and a lookup by hash
tells a caller nothing through its timing. For the same reason there is no lock-out after wrong keys, which would only
hit the other Mainframes behind the same address.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Literal

ID_LENGTH = 12
LicenceStatus = Literal["active", "expired", "revoked"]


def new_key() -> str:
    """A fresh key, `RACORE-XXXXXXXX-XXXXXXXX-XXXXXXXX`, from the system's random source."""
    groups = (secrets.token_hex(4).upper() for _ in range(3))
    return "-".join(("RACORE", *groups))


def key_hash(key: str) -> str:
    """What OMEGA keeps of `key`: its sha256 as 64 lower-case hex digits."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def licence_id(key: str) -> str:
    """The name by which people speak of the licence: the first 12 digits of `key_hash(key)`."""
    return key_hash(key)[:ID_LENGTH]


def licence_status(*, expires: datetime | None, revoked_at: datetime | None, now: datetime) -> LicenceStatus:
    """Whether the licence counts at `now`. It expires at the very instant `expires`; revoked beats expired."""
    if revoked_at is not None:
        return "revoked"
    if expires is not None and now >= expires:
        return "expired"
    return "active"
