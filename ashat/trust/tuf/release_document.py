"""The release document: what the approvers sign, by way of the `production` role that names its hash.

It is the TUF target `production/<channel>/release.json`, canonical JSON (`ashat.common.canonical_json`). The bytes of
the release travel on their own; this says which they are.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator
from tuf.api.metadata import TargetFile

from ashat.common.canonical_json import DIGEST, canonical_json
from ashat.common.text import first_misfit
from ashat.errors import MalformedMetadataError, MixAndMatchError, UsageError

MAX_BYTES: Final = 64 * 1024
# The one channel that releases are approved for so far.
CHANNEL: Final = "stable"
_CHANNEL_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Digest = Annotated[str, Field(pattern=f"^{DIGEST.pattern}$")]
Ordinal = Annotated[int, Field(ge=1, le=2**53 - 1, strict=True)]


class LogEntry(BaseModel):
    """What the ledger's log was when the release was proposed: a checkpoint, signed, and the key that checks it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str = Field(min_length=1, max_length=8192)
    key: str = Field(min_length=1, max_length=1024)


class ReleaseDocument(BaseModel):
    """One approved release. `target` names the OMEGA that it is for; `release_seq` only ever rises there.

    `log` is the log that the approval stands in; `ashat.trust.release.known_log` reads it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    channel: str = Field(pattern=f"^{_CHANNEL_NAME.pattern}$")
    target: str = Field(min_length=1, max_length=100)
    update_id: str = Field(min_length=1, max_length=200)
    attempt: Ordinal
    release_seq: Ordinal
    bundle: Digest
    evidence: Digest
    provenance: Digest | None = None
    log: LogEntry | None = None
    expires: AwareDatetime

    @field_validator("expires", mode="before")
    @classmethod
    def _one_spelling(cls, value: object) -> object:
        if isinstance(value, str) and not _TIME.fullmatch(value):
            raise ValueError("a time is written as 2026-01-31T23:59:59Z")
        return value

    @field_validator("expires")
    @classmethod
    def _whole_seconds(cls, value: datetime) -> datetime:
        return value.astimezone(UTC).replace(microsecond=0)

    @field_serializer("expires")
    def _spell(self, value: datetime) -> str:
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def path(self) -> str:
        """Its TUF target path."""
        return target_path(self.channel)

    @property
    def target_file(self) -> TargetFile:
        """How production metadata names it: by its path, length and sha256."""
        return TargetFile.from_data(self.path, self.to_bytes(), ["sha256"])

    def require(self, **wanted: object) -> None:
        """Check that these of its fields have these values.

        Raises:
            MixAndMatchError: one has another; the message names it.
        """
        for field, value in wanted.items():
            if getattr(self, field) != value:
                raise MixAndMatchError(
                    f"What was signed is about another {field}: {getattr(self, field)}, not {value}."
                )

    def to_bytes(self) -> bytes:
        """Write it as canonical JSON; what has no value is left out."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_bytes(cls, content: bytes) -> ReleaseDocument:
        """Read `content`, strictly: its canonical spelling, every field known and of its shape.

        Raises:
            MalformedMetadataError: what is wrong with it, in one line.
        """
        if len(content) > MAX_BYTES:
            raise MalformedMetadataError(f"A release document has at most {MAX_BYTES} bytes; this has {len(content)}.")
        try:
            document = cls.model_validate_json(content)
        except ValidationError as error:
            why = first_misfit(error)
            raise MalformedMetadataError(f"This is no release document that this version can read: {why}.") from None
        if document.to_bytes() != content:
            raise MalformedMetadataError(
                "The release document is not in its canonical spelling; it was not made by us."
            )
        return document


def target_path(channel: str) -> str:
    """Name the TUF target path of a channel's release document.

    Raises:
        UsageError: no channel can have that name.
    """
    if not _CHANNEL_NAME.fullmatch(channel):
        raise UsageError(f"{channel[:80]!r} is no channel: use lower-case letters, digits and dashes, 63 at most.")
    return f"production/{channel}/release.json"
