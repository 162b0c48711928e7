"""What who keeps licences says of them to OMEGA, and how files of them are read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from ashat.common.identifiers import check_licence_key
from ashat.common.text import hidden_character
from ashat.errors import UsageError
from ashat.protocol.messages import Message, Moment

NAME_LENGTH: Final = 128
AT_ONCE: Final = 5000
FILE_LIMIT: Final = 4 * 1024 * 1024
_REFUSALS_SHOWN: Final = 10
LicenceStatus = Literal["active", "expired", "revoked"]


class LicenceRequest(Message):
    """A licence to keep; `old_protocol` is whether its install may ask by the old protocol, None: as before."""

    key: str
    name: str = Field(min_length=1, max_length=NAME_LENGTH)
    expires: Moment | None = None
    old_protocol: bool | None = None


class LicenceRequests(Message):
    """Licences to keep, all of them or none."""

    licences: list[LicenceRequest] = Field(min_length=1, max_length=AT_ONCE)


def _dated(value: object) -> object:
    """Refuse a number, which would count as seconds since 1970."""
    if isinstance(value, datetime) or value is None:
        return value
    if not isinstance(value, str) or not value[:4].isdigit() or value[4:5] != "-":
        raise ValueError("a time is written as 2026-11-30T12:00:00Z")
    return value


class LicenceTerm(Message):
    """When a licence ends from now on; None: never."""

    expires: Annotated[Moment | None, BeforeValidator(_dated)]


class LicenceState(Message):
    """A licence as OMEGA keeps it: everything but the key. `id` is the start of the sha256 of the key."""

    id: str
    name: str
    status: LicenceStatus
    created_at: Moment
    expires: Moment | None = None
    revoked_at: Moment | None = None
    old_protocol: bool = False


class LicenceKept(LicenceState):
    """A licence that OMEGA was told to keep; `new` says that it did not know it before."""

    new: bool


class LicenceRow(NamedTuple):
    """A line of a file of licences."""

    key: str
    name: str
    expires: datetime | None


def parse_expiry(text: str) -> datetime:
    """Read when a licence ends: the end of a day in UTC, or the time that `text` gives with its offset.

    Raises:
        UsageError: it is neither.
    """
    try:
        return datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
    except (ValueError, OverflowError):
        pass  # no day: perhaps a time
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # neither, which is said below
    raise UsageError(
        f"{text[:40]!r} is no day and no time; write 2027-12-31, or 2027-12-31T18:00:00Z with its offset from UTC."
    )


def check_licence_name(name: str) -> str:
    """Return the name of a licence without the spaces around it.

    Raises:
        UsageError: it is none.
    """
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable() or hidden_character(name):
        raise UsageError(f"A licence's name has 1 to {NAME_LENGTH} printable characters.")
    return name


def parse_licences(lines: Iterable[str]) -> list[LicenceRow]:
    """Read licences from lines of KEY,NAME[,EXPIRES], as CSV; empty lines, and a first one that names the columns, are
    left out.

    Raises:
        UsageError: lines are not of that form, two have the same key, or there are too many or none. It names every
            such line by its number, and never a key.
    """
    found: list[LicenceRow] = []
    refused: list[str] = []
    seen: dict[str, int] = {}
    for number, fields in _rows(lines):
        if len(found) + len(refused) >= AT_ONCE:
            raise UsageError(f"There are more than {AT_ONCE:,} licences; give them in several parts. Nothing was kept.")
        try:
            row = _row(fields)
            if (before := seen.setdefault(row.key, number)) != number:
                raise UsageError(f"it has the key of line {before}.")
            found.append(row)
        except UsageError as error:
            refused.append(f"Line {number}: {error}")
    if refused:
        more = f" And {len(refused) - _REFUSALS_SHOWN} more." if len(refused) > _REFUSALS_SHOWN else ""
        raise UsageError(f"{' '.join(refused[:_REFUSALS_SHOWN])}{more} Nothing was kept.")
    if not found:
        raise UsageError("There is no licence; give lines of KEY,NAME or KEY,NAME,EXPIRES.")
    return found


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, skipinitialspace=True)
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields) and not (reader.line_num == 1 and fields[0].lower() == "key"):
                yield reader.line_num, fields
    except csv.Error as error:
        raise UsageError(f"Line {reader.line_num} is no CSV: {error}. Nothing was kept.") from None


def _row(fields: list[str]) -> LicenceRow:
    if len(fields) not in (2, 3):
        raise UsageError(f"it has {len(fields)} fields; write KEY,NAME or KEY,NAME,EXPIRES.")
    expires = parse_expiry(fields[2]) if len(fields) == 3 and fields[2] else None
    return LicenceRow(check_licence_key(fields[0]), check_licence_name(fields[1]), expires)
