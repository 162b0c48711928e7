"""Scoped bearer tokens, kept as hashes in a file that only the owner may read.

A token is 32 random bytes, so its plain sha256 cannot be searched and needs no salt. The file is
`{"tokens": [{"id", "name", "scopes", "sha256", "created", "expires"}]}` and is read again whenever it changes, so that
`ashat-node token add`, `rotate` and `revoke` work on a running node.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from ashat.common.files import read_bounded, replace_file
from ashat.errors import UsageError
from ashat.node.core.db import Database, now
from ashat.node.logs import change_log
from ashat.protocol.messages import Digest, Role, Scope, TokenRole

FILE_LIMIT = 1024 * 1024
PREFIX = "ashat_"
_NOTHING = (0, 0, 0)
_INCLUDES = {
    Scope.READ: {Scope.READ},
    Scope.PUSH: {Scope.READ, Scope.PUSH},
    Scope.PROMOTE: {Scope.READ, Scope.PROMOTE},
    Scope.LICENCES: {Scope.READ, Scope.LICENCES},
    Scope.ADMIN: set(Scope),
}
# What each has to do where: a dev pushes and verifies; an owner approves, rolls back and configures.
SCOPES: dict[TokenRole, dict[Role, tuple[Scope, ...]]] = {
    TokenRole.DEV: {Role.PUBLIC: (Scope.PUSH,), Role.OMEGA: (Scope.READ,), Role.MAINFRAME: (Scope.READ,)},
    TokenRole.OWNER: {
        Role.PUBLIC: (Scope.PUSH, Scope.ADMIN),
        Role.OMEGA: (Scope.PUSH, Scope.PROMOTE, Scope.ADMIN),
        Role.MAINFRAME: (Scope.READ, Scope.ADMIN),
    },
}


class Token(BaseModel):
    """A token as it is kept: everything but the token. It opens nothing from the instant `expires` on."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: Digest
    created: AwareDatetime
    expires: AwareDatetime | None = None

    def allows(self, scope: Scope) -> bool:
        """Tell whether one of its scopes is or includes `scope`."""
        return any(scope in _INCLUDES[own] for own in self.scopes)

    def expired(self, at: datetime) -> bool:
        """Tell whether the token opens nothing any more at that time."""
        return self.expires is not None and at >= self.expires


class _File(BaseModel):
    tokens: list[Token] = []


class TokenFile:
    """The tokens of one node. `follow` gets them before they count: at each look that finds the file changed, and
    before it is written."""

    def __init__(self, path: Path, follow: Callable[[list[Token]], None] | None = None) -> None:
        self.path = path
        self._follow = follow
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._tokens: list[Token] = []

    def identify(self, presented: str) -> Token | None:
        """Find the token that `presented` is, expired or not; None where it is none of ours. Takes as long for each."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for token in self.all():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def all(self) -> list[Token]:
        """List every token, oldest first; none where there is no file.

        Raises:
            UsageError: the file cannot be read, is not ours, or others may read it.
        """
        with self._lock:
            try:
                info = self.path.stat()
            except FileNotFoundError:
                if self._seen != _NOTHING and self._follow:
                    self._follow([])
                self._tokens, self._seen = [], _NOTHING
                return []
            seen = (info.st_mtime_ns, info.st_ino, info.st_size)
            if seen != self._seen:
                if os.name == "posix" and stat.S_IMODE(info.st_mode) & 0o077:
                    raise UsageError(f"Others can read the token file {self.path}; run: chmod 600 {self.path}")
                tokens = self._read()
                if self._follow:
                    self._follow(tokens)
                self._tokens, self._seen = tokens, seen
            return list(self._tokens)

    def add(self, name: str, scopes: Iterable[Scope], *, expires: datetime | None = None) -> tuple[Token, str]:
        """Make a token; return it as kept, and the token itself, which is nowhere else.

        Raises:
            UsageError: the file cannot be read or written, or `expires` has passed.
        """
        at = _whole_seconds(now())
        if expires is not None and expires <= at:
            raise UsageError(f"A token that ends {expires:%Y-%m-%d %H:%M} UTC would open nothing: that has passed.")
        token, secret = _made(name, tuple(scopes), at, expires)
        with self._exclusive():
            self._write([*self.all(), token])
        return token, secret

    def rotate(self, token_id: str, overlap: timedelta) -> tuple[Token, Token, str]:
        """Make a token in the place of another, which still opens for as long as `overlap`.

        The new one may do the same, for as long from now on as the old one from when it was made. Returned are the
        old one, the new one, and the new token itself, which is nowhere else.

        Raises:
            UsageError: there is none of that id, it has expired, or the file cannot be read or written.
        """
        with self._exclusive():
            tokens, at = self.all(), _whole_seconds(now())
            old = _of_id(tokens, token_id)
            if old.expired(at):
                raise UsageError(f"The token {token_id} has expired: revoke it, and make another with token add.")
            end = at + overlap
            kept = old.model_copy(update={"expires": min(end, old.expires) if old.expires else end})
            new, secret = _made(old.name, old.scopes, at, at + (old.expires - old.created) if old.expires else None)
            self._write([*(kept if token is old else token for token in tokens), new])
        return kept, new, secret

    def revoke(self, token_id: str) -> Token:
        """Forget the token with that id.

        Raises:
            UsageError: there is none, or the file cannot be read or written.
        """
        with self._exclusive():
            tokens = self.all()
            found = _of_id(tokens, token_id)
            self._write([token for token in tokens if token.id != token_id])
        return found

    def _exclusive(self) -> FileLock:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The token file {self.path} cannot be written: {error.strerror}.") from None
        return FileLock(f"{self.path}.lock", timeout=30, mode=0o600)

    def _read(self) -> list[Token]:
        try:
            return _File.model_validate_json(read_bounded(self.path, FILE_LIMIT)).tokens
        except OSError as error:
            raise UsageError(f"The token file {self.path} cannot be read: {error.strerror}.") from None
        except ValidationError:
            raise UsageError(
                f"{self.path} is no token file of ASHAT Deploy; move it away and run: ashat-node token add"
            ) from None

    def _write(self, tokens: list[Token]) -> None:
        if self._follow:
            self._follow(tokens)
        document = _File(tokens=tokens).model_dump(mode="json")
        try:
            replace_file(self.path, json.dumps(document, indent=1).encode() + b"\n", mode=0o600)
        except OSError as error:
            raise UsageError(f"The token file {self.path} cannot be written: {error.strerror}.") from None


def follow_in(database: Database) -> Callable[[list[Token]], None]:
    """Make what writes into the change log in `database` which tokens there are, for `TokenFile`."""

    def follow(tokens: list[Token]) -> None:
        facts = {token.id: token.model_dump(mode="json", exclude={"id", "sha256"}) for token in tokens}
        change_log.follow(database, "token", facts)

    return follow


def _of_id(tokens: list[Token], token_id: str) -> Token:
    found = next((token for token in tokens if token.id == token_id), None)
    if found is None:
        raise UsageError(f"There is no token {token_id[:40]!r}; see: ashat-node token list")
    return found


def _made(name: str, scopes: tuple[Scope, ...], at: datetime, expires: datetime | None) -> tuple[Token, str]:
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Token(id=secrets.token_hex(4), name=name, scopes=scopes, sha256=digest, created=at, expires=expires), secret


def _whole_seconds(time: datetime) -> datetime:
    return time.replace(microsecond=0)
