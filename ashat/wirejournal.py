"""What a node says of its journals (`docs/node-api.md`): what was asked of it, and what was done to it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, Field

from ashat.wire import Digest, Wire

# The header with which OMEGA tells Mainframes how many entries its journal of changes has.
JOURNAL_HEADER = "Ashat-Journal"


class Asker(StrEnum):
    """Who asks a node."""

    TOKENS = "tokens"
    LICENCES = "licences"
    STRANGERS = "strangers"


class JournalLine(Wire):
    """A request as a node wrote it down: the id of its token or licence, "" of neither; `ms` until it was answered.

    `status` is 499 where the caller left before the answer; `detail` is the line with which it was refused.
    """

    at: AwareDatetime
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


class SignedCheckpoint(Wire):
    """A signed checkpoint (https://c2sp.org/tlog-checkpoint) of a node's journal of changes, and its verifier key.

    `proof` are the hashes, in hexadecimal, that prove that it continues an earlier one (RFC 9162, section 2.1.4).
    """

    checkpoint: str = Field(max_length=10_000)
    key: str = Field(max_length=500)
    proof: tuple[Digest, ...] = Field(default=(), max_length=200)
