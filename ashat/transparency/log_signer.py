"""The key that signs a log's checkpoints, and the last checkpoint that it signed: `<home>/audit/<log>/`.

The log is a ledger, or a node's journal of changes.

`key.pem` is an Ed25519 key of mode 0600, made when it is first needed; `key.vkey` is its verifier key, one line to be
handed to whoever is to check; `checkpoint` is the last that was signed, and `checkpoint.frontier` the tree there. A log
must never sign two checkpoints of which one does not continue the other (https://c2sp.org/tlog-checkpoint), so each is
held against the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from filelock import FileLock

from ashat.common.files import replace_file
from ashat.errors import CheckpointError
from ashat.transparency.checkpoint import Checkpoint, Signer, Verifier, open_checkpoint
from ashat.transparency.merkle import CompactRange

_LOG = re.compile(r"ashat-deploy/((?:ledger|node)-[0-9a-f]{16})")


class CheckedLog(Protocol):
    """A log whose entries are known to fit."""

    @property
    def size(self) -> int:
        """How many entries it has."""

    @property
    def root(self) -> bytes:
        """The root of the tree over them."""

    def require_extends(self, checkpoint: Checkpoint) -> None:
        """Check that it begins with the entries of `checkpoint`.

        Raises:
            AuditError: it does not.
        """


class LogSigner:
    """What is kept of the log called `origin` under `home`."""

    def __init__(self, home: Path, origin: str) -> None:
        """Nothing is read or written yet.

        Raises:
            CheckpointError: no log has that name.
        """
        named = _LOG.fullmatch(origin)
        if named is None:
            raise CheckpointError(
                f"{origin[:100]!r} is not the name of a ledger: deploy audit made no such checkpoint."
            )
        self.origin = origin
        self.directory = home / "audit" / named[1]

    @property
    def pem(self) -> Path:
        """The private key."""
        return self.directory / "key.pem"

    @property
    def vkey(self) -> Path:
        """Its verifier key."""
        return self.directory / "key.vkey"

    def verifier(self) -> Verifier | None:
        """Read the key that checks what is signed here; None where nothing ever was.

        Raises:
            CheckpointError: its file cannot be read, or holds something else.
        """
        text = _read(self.vkey)
        return Verifier.parse(text) if text is not None else None

    def last(self) -> Checkpoint | None:
        """Read the last checkpoint that was signed here; None where there is none.

        Raises:
            CheckpointError: it was altered, or the key is gone that signed it.
        """
        note, verifier = _read(self.directory / "checkpoint"), self.verifier()
        if note is None:
            return None
        if verifier is None:
            raise CheckpointError(f"{self.vkey} is missing: restore it, or remove {self.directory} to begin anew.")
        return open_checkpoint(note, [verifier])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from signing: read the log and `sign` it in here, so that checkpoints are signed in order.

        Raises:
            CheckpointError: the directory cannot be made or written.
        """
        try:
            for directory in (self.directory.parents[1], self.directory.parent, self.directory):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(self.directory / ".lock").acquire()
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be used: {error.strerror or error}.") from None
        with lock:
            yield

    def kept_tree(self, name: str, at: Checkpoint) -> CompactRange | None:
        """Read the tree of the log at a checkpoint, as `keep_tree` kept it; None where that is of another, or is
        none.

        Raises:
            CheckpointError: its file cannot be read.
        """
        try:
            found = CompactRange.parse(at.size, _read(self.directory / f"{name}.frontier") or "")
        except ValueError:
            return None
        return found if found.root() == at.root else None

    def keep_tree(self, name: str, tree: CompactRange) -> None:
        """Keep the tree from which the log is read on; a crash before costs no more than reading all of it.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            replace_file(self.directory / f"{name}.frontier", tree.text.encode())
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be used: {error.strerror or error}.") from None

    def sign(self, log: CheckedLog) -> str:
        """Sign a checkpoint of the log that was audited, which is the last one from now on.

        Raises:
            AuditError: the log does not continue the last one.
            CheckpointError: the key cannot be read, or others may read it.
        """
        last = self.last()
        if last is not None:
            log.require_extends(last)
        try:
            note = self._signer().sign(Checkpoint(self.origin, log.size, log.root).text)
            replace_file(self.directory / "checkpoint", note.encode())
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be used: {error.strerror or error}.") from None
        return note

    def sign_note(self, text: str) -> str:
        """Sign `text`, which is no checkpoint, as a note.

        Raises:
            CheckpointError: the key cannot be read, or others may read it.
        """
        if text.count("\n") != 2:
            raise ValueError("three lines could be taken for a checkpoint")
        try:
            return self._signer().sign(text)
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be used: {error.strerror or error}.") from None

    def _signer(self) -> Signer:
        if not self.pem.exists():
            if self.vkey.exists():
                raise CheckpointError(f"{self.pem} is missing: restore it, or remove {self.directory} to begin anew.")
            self._make()
        if self.pem.stat().st_mode & 0o077:
            raise CheckpointError(f"{self.pem} may be read by others: chmod 600 it, or remove {self.directory}.")
        try:
            key = load_pem_private_key(self.pem.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise CheckpointError(f"{self.pem} holds no Ed25519 key without a passphrase: restore it.")
        signer = Signer(self.origin, key)
        if self.verifier() != signer.verifier:
            replace_file(self.vkey, f"{signer.verifier.vkey}\n".encode())
        return signer

    def _make(self) -> None:
        made = Ed25519PrivateKey.generate()
        content = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace_file(self.pem, content, mode=0o600)


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
