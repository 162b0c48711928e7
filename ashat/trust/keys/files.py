"""Ed25519 keys as files: the private half a PKCS#8 PEM of mode 0600, encrypted where a person holds it, the public
half a SubjectPublicKeyInfo PEM (RFC 8410) beside it, named with `.pub` at its end. Public halves may be of ECDSA keys,
too: hardware and key services make those (`ashat.trust.keys.hardware`).

A passphrase never stands among a command's words, where every user of the machine could read it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from ashat.common.files import create_file, read_bounded
from ashat.errors import KeyFileError

PASSPHRASE_VARIABLE = "ASHAT_KEY_PASSPHRASE"  # noqa: S105  a name, no secret
# PKCS#8 as OpenSSL writes it stretches a passphrase with some thousand rounds of PBKDF2 only: its length must do it.
PASSPHRASE_LENGTH = 16
# An unknown field of a TUF key is signed with the rest and does not change its key id.
NAME_FIELD = "x-ashat-name"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_LIMIT = 16 * 1024
_SCHEMES = {SECP256R1: "ecdsa-sha2-nistp256", SECP384R1: "ecdsa-sha2-nistp384"}


def check_name(name: str) -> str:
    """Check that `name` can name a key: lower-case letters, digits, dot, dash, underscore; at most 63.

    Raises:
        KeyFileError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise KeyFileError(
            f"{name[:80]!r} cannot name a key: use lower-case letters, digits, '.', '-' and '_', 63 at most."
        )
    return name


def name_of(key: object) -> str:
    """Name a key as people do: by its name, or the beginning of its key id."""
    fields = getattr(key, "unrecognized_fields", {})
    name = fields.get(NAME_FIELD)
    return name if isinstance(name, str) and _NAME.fullmatch(name) else str(getattr(key, "keyid", ""))[:12]


def public_path(path: Path) -> Path:
    """Name the file of the public half of the key in `path`: `kim.pem` has `kim.pub` beside it."""
    return path.with_suffix(".pub")


def create_key(path: Path, name: str, passphrase: str | None) -> SSlibKey:
    """Make a key pair in `path` and beside it, durably; its public half. None as the passphrase leaves it unencrypted.

    Raises:
        KeyFileError: a file of that name is there, the passphrase is short, or nothing can be written.
    """
    check_name(name)
    if passphrase is not None:
        check_passphrase(passphrase)
    private = Ed25519PrivateKey.generate()
    guard: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        guard = BestAvailableEncryption(passphrase.encode())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, guard)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for file in (path, public_path(path)):
        if os.path.lexists(file):
            raise KeyFileError(f"{file} is there already, and a key is never overwritten; choose another name.")
    try:
        create_file(path, pem, mode=0o600)
        create_file(public_path(path), public, mode=0o644)
    except FileExistsError as error:
        raise KeyFileError(f"{error.filename2 or path} is there already; choose another name.") from None
    except OSError as error:
        raise KeyFileError(f"The key cannot be written to {path}: {error.strerror}.") from None
    return _named(private.public_key(), name)


def check_passphrase(passphrase: str) -> str:
    """Check that `passphrase` is long enough to guard a key.

    Raises:
        KeyFileError: it is not.
    """
    if len(passphrase) < PASSPHRASE_LENGTH:
        raise KeyFileError(f"The passphrase is short: give {PASSPHRASE_LENGTH} characters or more, such as five words.")
    return passphrase


def load_public_key(path: Path, name: str) -> SSlibKey:
    """Read the public key in `path`, called `name`.

    Raises:
        KeyFileError: it cannot be read, or holds no public key of a kind that is known here.
    """
    check_name(name)
    content = read_key(path)
    if b"PRIVATE KEY-----" in content:
        raise KeyFileError(f"{path} holds a private key: give the .pub file beside it, and let nobody have this one.")
    try:
        return public_key(content, name)
    except ValueError:
        raise KeyFileError(
            f"{path} holds no public key in PEM that can approve (Ed25519, or ECDSA on P-256 or P-384); "
            "deploy trust keygen makes one."
        ) from None


def public_key(pem: bytes, name: str) -> SSlibKey:
    """Parse the PEM text of a public key, called `name`.

    Raises:
        ValueError: it spells none of a kind that can approve.
    """
    key = load_pem_public_key(pem)
    if isinstance(key, Ed25519PublicKey):
        return _named(key, name)
    if isinstance(key, EllipticCurvePublicKey) and type(key.curve) in _SCHEMES:
        return _named(key, name, _SCHEMES[type(key.curve)])
    raise ValueError("another kind of key")


@dataclass(frozen=True)
class OnlinePublicKeys:
    """The public halves of the keys with which OMEGA says what is current."""

    snapshot: SSlibKey
    timestamp: SSlibKey

    @classmethod
    def of(cls, spelled: Mapping[str, str]) -> OnlinePublicKeys:
        """Read them as OMEGA's node tells them: the 32 bytes of each in hexadecimal, by role.

        Raises:
            KeyFileError: they are no such keys.
        """
        try:
            keys = {role: _from_hex(spelled[role], role) for role in ("snapshot", "timestamp")}
        except (KeyError, ValueError):
            raise KeyFileError("OMEGA tells no Ed25519 keys of its own that this version can read.") from None
        return cls(**keys)


def public_hex(signer: Signer) -> str:
    """Spell the public half as TUF does: the 32 bytes of an Ed25519 key in hexadecimal, a key of ECDSA in PEM."""
    return str(signer.public_key.keyval["public"])


def public_pem(signer: CryptoSigner) -> str:
    """Spell the public half as a `.pub` file does."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex(signer)))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def load_signer(path: Path, passphrase: Callable[[], str] | None = None) -> CryptoSigner:
    """Load what signs with the key in `path`. `passphrase` is called only where one is needed.

    Raises:
        KeyFileError: the file cannot be read, its group or others may read it, it holds no Ed25519 key, or the
            passphrase is not the right one or not given.
    """
    refuse_open(path)
    content = read_key(path)
    secret: bytes | None = None
    if content.lstrip().startswith(_ENCRYPTED):
        if passphrase is None:
            raise KeyFileError(f"The key {path} has a passphrase: give it in {PASSPHRASE_VARIABLE} or by a file.")
        secret = passphrase().encode()
    try:
        private = load_pem_private_key(content, secret)
    except ValueError:
        wrong = "is not opened by that passphrase" if secret is not None else "is no PKCS#8 key in PEM"
        raise KeyFileError(f"The key {path} {wrong}; nothing was signed.") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds no Ed25519 key; deploy trust keygen makes one.")
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))


def given_passphrase(file: Path | None) -> str | None:
    """Read the passphrase from the first line of `file`, or else from the environment; None where neither has one.

    Raises:
        KeyFileError: the file cannot be read, is empty, or others may read it.
    """
    if file is None:
        return os.environ.get(PASSPHRASE_VARIABLE) or None
    refuse_open(file)
    try:
        text = read_key(file).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        text = []
    if not text or not text[0]:
        raise KeyFileError(f"{file} holds no passphrase on its first line.")
    return text[0]


def _from_hex(text: str, name: str) -> SSlibKey:
    return _named(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)), name)


def _named(key: Ed25519PublicKey | EllipticCurvePublicKey, name: str, scheme: str | None = None) -> SSlibKey:
    made = SSlibKey.from_crypto(key, scheme=scheme)
    made.unrecognized_fields[NAME_FIELD] = name
    return made


def refuse_open(path: Path) -> None:
    """Check that nobody but its owner can read `path`.

    Raises:
        KeyFileError: somebody can, or it is not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}.") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(f"Others can read {path}; take it from them: chmod 600 {path}")


def read_key(path: Path) -> bytes:
    """Read the key file `path`.

    Raises:
        KeyFileError: it cannot be read, or is too large to be one.
    """
    try:
        return read_bounded(path, _LIMIT)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}.") from None
