"""Finds private keys in DER within other content, such as a program that has one compiled in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

CANDIDATES_LIMIT = 200
DER_LIMIT = 10 * 1024
PAIR_BYTES = 64

# Each begins with its version, an INTEGER of one byte.
_VERSION = b"\2\1"
# What follows the first header of a key: PKCS#8 (RFC 5208) of RSA, EC, Ed25519 and X25519; PKCS#1; SEC1 (RFC 5915).
_BEGINNINGS = (
    bytes.fromhex("020100300d06092a864886f70d010101"),
    bytes.fromhex("020100301306072a8648ce3d0201"),
    bytes.fromhex("020100301006072a8648ce3d0201"),
    bytes.fromhex("020100300506032b65"),
    bytes.fromhex("0201000282010100"),
    bytes.fromhex("0201000282018100"),
    bytes.fromhex("0201000282020100"),
    bytes.fromhex("02010002818100"),
    bytes.fromhex("0201010420"),
    bytes.fromhex("0201010430"),
    bytes.fromhex("0201010442"),
)


def holds_der_key(content: bytes) -> bool:
    """Tell whether `content` has a private key in DER anywhere, which can be read."""
    for position in islice(_candidates(content), CANDIDATES_LIMIT):
        for header in (4, 3, 2):
            if (der := _der_at(content, position - header, header)) and _is_key(der):
                return True
    return False


def _candidates(content: bytes) -> Iterator[int]:
    position = content.find(_VERSION)
    while position >= 0:
        if content.startswith(_BEGINNINGS, position):
            yield position
        position = content.find(_VERSION, position + 1)


def _der_at(content: bytes, start: int, header: int) -> bytes:
    """Cut the sequence that begins at `start` and has a header of `header` bytes; b"" where there is none."""
    if start < 0 or content[start] != 0x30:
        return b""
    length, extra = content[start + 1], header - 2
    if extra:
        if length != 0x80 + extra:
            return b""
        length = int.from_bytes(content[start + 2 : start + header], "big")
    return content[start : start + header + length] if length < DER_LIMIT else b""


def _is_key(der: bytes) -> bool:
    try:
        load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def is_key_pair(content: bytes) -> bool:
    """Tell whether 64 bytes are an Ed25519 private key and its public one, as Solana and libsodium keep them."""
    if len(content) != PAIR_BYTES:
        return False
    public = Ed25519PrivateKey.from_private_bytes(content[:32]).public_key()
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw) == content[32:]
