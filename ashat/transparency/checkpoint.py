"""Signed checkpoints of a log, and the keys that sign them.

A checkpoint (https://c2sp.org/tlog-checkpoint) is a signed note (https://c2sp.org/signed-note) of three lines: the
log's origin, how many leaves its tree has, and the tree's root in base64. Signatures are Ed25519, the type 0x01. A
verifier key is one line, `<name>+<key id in hex>+<base64 of 0x01 and the public key>`, where the key id is the first
four bytes of SHA-256 over the name, a newline, 0x01 and the public key. Pure, no I/O.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ashat.errors import CheckpointError
from ashat.transparency.merkle import HASH_BYTES

_ED25519 = b"\x01"
_KEY_BYTES = 32
_ID_BYTES = 4
_DASH = "\u2014 "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
LONGEST_NOTE = 1_000_000


@dataclass(frozen=True)
class Checkpoint:
    """What a log was at a size. `extensions` are lines that others may have added; nothing here looks at them."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note's text, which is what is signed."""
        lines = (self.origin, str(self.size), _base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Parse the text of a note.

        Raises:
            CheckpointError: it is none.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):
            raise CheckpointError("A checkpoint has three lines or more, none of them empty: this is none.")
        origin, size, root, *extensions = lines
        if not _SIZE.fullmatch(size):
            raise CheckpointError("The second line of a checkpoint is a number without leading zeroes: this is none.")
        found = _bytes(root)
        if found is None or len(found) != HASH_BYTES:
            raise CheckpointError(f"The third line of a checkpoint is {HASH_BYTES} bytes in base64: this is none.")
        return cls(origin, int(size), found, tuple(extensions))


@dataclass(frozen=True)
class Verifier:
    """A public key and the name that it signs under."""

    name: str
    key: bytes

    @property
    def key_id(self) -> bytes:
        """What a signature names the key by."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as one line, to be handed on."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(_ED25519 + self.key)}"

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Parse a verifier key.

        Raises:
            CheckpointError: it is no verifier key for Ed25519.
        """
        parts = vkey.strip().split("+", 2)
        encoded = _bytes(parts[2]) if len(parts) == 3 else None
        if encoded is None or len(encoded) != 1 + _KEY_BYTES or encoded[:1] != _ED25519 or not is_key_name(parts[0]):
            raise CheckpointError(f"{vkey[:100]!r} is no verifier key: it is one line, NAME+ID+KEY, for Ed25519.")
        found = cls(parts[0], encoded[1:])
        if found.key_id.hex() != parts[1].lower():
            raise CheckpointError(f"The verifier key of {parts[0]!r} was altered: its id is not that of its key.")
        return found


@dataclass(frozen=True)
class Signer:
    """A private key and the name that it signs under."""

    name: str
    key: Ed25519PrivateKey

    @property
    def verifier(self) -> Verifier:
        """What checks its signatures."""
        return Verifier(self.name, self.key.public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """Make a note of `text`, with this one signature.

        Raises:
            ValueError: no note may hold that text, or no key have that name.
        """
        if not text.endswith("\n") or not _may_be_in_a_note(text) or not is_key_name(self.name):
            raise ValueError("a note ends in a newline and holds no other control character")
        signature = self.verifier.key_id + self.key.sign(text.encode())
        return f"{text}\n{_DASH}{self.name} {_base64(signature)}\n"


def open_note(note: str, verifiers: Sequence[Verifier]) -> str:
    """Open a signed note, and return its text.

    Signatures of keys that are not among `verifiers` are ignored, as the format asks.

    Raises:
        CheckpointError: it is no signed note, none of these keys signed it, or one of their signatures is false.
    """
    text, signatures = _split(note)
    good = False
    for name, key_id, signature in signatures:
        for verifier in verifiers:
            if (verifier.name, verifier.key_id) == (name, key_id):
                _check(verifier, signature, text)
                good = True
    if not good:
        wanted = ", ".join(f"{verifier.name}+{verifier.key_id.hex()}" for verifier in verifiers)
        found = ", ".join(f"{name}+{key_id.hex()}" for name, key_id, _ in signatures)
        raise CheckpointError(f"The checkpoint is signed by {found}, not by {wanted or 'a key that is known'}.")
    return text


def open_checkpoint(note: str, verifiers: Sequence[Verifier]) -> Checkpoint:
    """Open a checkpoint that one of `verifiers` signed.

    Raises:
        CheckpointError: it is no signed checkpoint, none of these keys signed it, or a signature is false.
    """
    return Checkpoint.parse(open_note(note, verifiers))


def open_signed(note: str, key: str) -> Checkpoint:
    """Read the checkpoint of a log that was signed by the log's own key, which comes beside it as one line.

    Raises:
        CheckpointError: it is no signed checkpoint, the key is none or did not sign it, or is another log's.
    """
    verifier = Verifier.parse(key)
    found = open_checkpoint(note, [verifier])
    if found.origin != verifier.name:
        raise CheckpointError(f"The key of the log {verifier.name} signed a checkpoint of another one, {found.origin}.")
    return found


def origin_of(note: str) -> str:
    """Read which log a checkpoint says it is of, before anything is known of its signature.

    Raises:
        CheckpointError: it is no signed checkpoint.
    """
    return Checkpoint.parse(_split(note)[0]).origin


def is_key_name(name: str) -> bool:
    """Tell whether a key may have that name."""
    return bool(name) and "+" not in name and not any(char.isspace() for char in name) and _may_be_in_a_note(name)


def _split(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Split a note into its text and its signatures: key name, key id and signature of each."""
    text, found, lines = note.rpartition("\n\n")
    if not found or not lines.endswith("\n") or not _may_be_in_a_note(note) or len(note) > LONGEST_NOTE:
        raise CheckpointError("This is no signed checkpoint: a text, an empty line, and lines with signatures.")
    return f"{text}\n", [_signature(line) for line in lines[:-1].split("\n")]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signature = _bytes(encoded)
    if not line.startswith(_DASH) or not is_key_name(name) or signature is None or len(signature) <= _ID_BYTES:
        raise CheckpointError("This is no signed checkpoint: a line below the text is no signature.")
    return name, signature[:_ID_BYTES], signature[_ID_BYTES:]


def _check(verifier: Verifier, signature: bytes, text: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(verifier.key).verify(signature, text.encode())
    except (InvalidSignature, ValueError):
        raise CheckpointError(
            f"The signature of {verifier.name} is false: the checkpoint was altered, or that key never signed it."
        ) from None


def _may_be_in_a_note(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return all(char >= " " or char == "\n" for char in text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes | None:
    """Decode base64; None where `text` is not the one spelling of anything."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _base64(data) == text else None
