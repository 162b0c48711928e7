"""How passwords are hashed: scrypt with 16 MiB, as OWASP's password storage sheet asks at least."""

from __future__ import annotations

import hashlib
import hmac


def hash_password(password: str, salt: bytes) -> bytes:
    """32 bytes that stand for `password`."""
    return hashlib.scrypt(password.encode("utf-8"), salt=salt, n=1 << 14, r=8, p=5, dklen=32)


def matches(password: str, salt: bytes, expected: bytes) -> bool:
    """Whether `password` hashes to `expected`; takes as long where there is no such account."""
    return hmac.compare_digest(hash_password(password, salt), expected)
