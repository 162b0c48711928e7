"""OMEGA's own keys, by which it says what is current: pairs that follow each other, of which its root names one.

keys/snapshot.pem, keys/timestamp.pem       the first pair
keys/snapshot.N.pem, keys/timestamp.N.pem   the Nth, made beside those before, for a root that will name it
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Snapshot, Timestamp

from ashat.common.files import make_directory, sync_directory
from ashat.errors import KeyFileError, TrustError
from ashat.trust.keys.files import create_key, load_signer, public_hex, public_path
from ashat.trust.release.repository import OnlineKeys

log = logging.getLogger("ashat.node.omega")
_ROLES: Final = (Snapshot.type, Timestamp.type)
_FILE = re.compile(r"(?:snapshot|timestamp)(?:\.([1-9][0-9]{0,8}))?\.pem")


class OnlineKeyFiles:
    """The pairs in `directory`. Other processes may make more meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loaded: dict[Path, CryptoSigner] = {}

    def newest(self) -> OnlineKeys:
        """Return the pair that was made last; the first is made where there is none.

        Raises:
            KeyFileError: it cannot be read or written.
        """
        pairs = self._pairs()
        return pairs[max(pairs)] if pairs else self._make(1)

    def make(self) -> OnlineKeys:
        """Make a pair beside those that are there; nothing is signed with it before a root names it.

        Raises:
            KeyFileError: it cannot be written.
        """
        return self._make(max(self._taken(), default=0) + 1)

    def named_by(self, root: Root) -> OnlineKeys:
        """Return the pair that `root` names, else the newest.

        Raises:
            KeyFileError: it cannot be read.
        """
        used = self._used(root)
        return self.newest() if used is None else self._pairs()[used]

    def remove_before(self, root: Root) -> None:
        """Remove the pairs that came before the one that `root` names: who stole them can do nothing any more.

        Raises:
            TrustError: they cannot be removed.
        """
        used = self._used(root)
        old = [ordinal for ordinal in self._taken() if used is not None and ordinal < used]
        try:
            for path in (self._path(role, ordinal) for ordinal in old for role in _ROLES):
                public_path(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                self._loaded.pop(path, None)
            if old:
                sync_directory(self._directory)
        except OSError as error:
            raise TrustError(f"An old key in {self._directory} cannot be removed: {error.strerror}.") from error

    def _used(self, root: Root) -> int | None:
        for ordinal, pair in reversed(self._pairs().items()):
            keys = {Snapshot.type: pair.snapshot, Timestamp.type: pair.timestamp}
            if all(key.public_key.keyid in root.roles[role].keyids for role, key in keys.items()):
                return ordinal
        return None

    def _pairs(self) -> dict[int, OnlineKeys]:
        """Load those that are whole (a crash may leave one half) and can be used. One that cannot, such as one that
        another user made, must not keep OMEGA from signing with the pair that counts."""
        found: dict[int, OnlineKeys] = {}
        unusable: KeyFileError | None = None
        for ordinal in self._taken():
            if not all(self._path(role, ordinal).exists() for role in _ROLES):
                continue
            try:
                found[ordinal] = self._pair(ordinal)
            except KeyFileError as error:
                log.warning("a pair of OMEGA's own keys cannot be used: %s", error)
                unusable = error
        if unusable is not None and not found:
            raise unusable
        return found

    def _pair(self, ordinal: int) -> OnlineKeys:
        snapshot, timestamp = (self._load(self._path(role, ordinal)) for role in _ROLES)
        return OnlineKeys(snapshot, timestamp)

    def _load(self, path: Path) -> CryptoSigner:
        if path not in self._loaded:
            self._loaded[path] = load_signer(path)
        return self._loaded[path]

    def _make(self, ordinal: int) -> OnlineKeys:
        try:
            make_directory(self._directory, mode=0o700)
        except OSError as error:
            raise TrustError(f"{self._directory} cannot be made: {error.strerror}.") from error
        for role in _ROLES:
            path = self._path(role, ordinal)
            if not path.exists():
                create_key(path, role, None)
        return self._pair(ordinal)

    def _taken(self) -> list[int]:
        names = [path.name for path in self._directory.iterdir()] if self._directory.is_dir() else []
        return sorted({int(match[1] or 1) for name in names if (match := _FILE.fullmatch(name))})

    def _path(self, role: str, ordinal: int) -> Path:
        return self._directory / (f"{role}.pem" if ordinal == 1 else f"{role}.{ordinal}.pem")


def public_keys(pair: OnlineKeys) -> dict[str, str]:
    """Return the public halves by role, in hexadecimal."""
    halves = {Snapshot.type: pair.snapshot, Timestamp.type: pair.timestamp}
    return {role: public_hex(signer) for role, signer in halves.items()}
