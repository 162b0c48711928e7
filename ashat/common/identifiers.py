"""What people may name things: update ids, server names, licence keys."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata

from ashat.errors import UsageError

UPDATE_ID_LENGTH = 64
LICENCE_ID_LENGTH = 12
_UPDATE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SERVER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LICENCE = re.compile(r"RACORE(-[0-9A-F]{8}){3}")


def check_update_id(text: str) -> str:
    """Return `text` if it can be an update id: 1 to 64 of letters, digits, `.`, `_`, `-`, the first a letter or digit.

    Raises:
        UsageError: it cannot; the message says why.
    """
    if not text:
        raise UsageError("An update id cannot be empty. Use letters, digits, '.', '_' and '-', such as UPD-2026-11.")
    if len(text) > UPDATE_ID_LENGTH:
        raise UsageError(f"An update id has at most {UPDATE_ID_LENGTH} characters; this one has {len(text)}.")
    if not _UPDATE_ID.fullmatch(text):
        bad = next(c for i, c in enumerate(text) if not _UPDATE_ID.fullmatch(text[i] if i == 0 else "a" + text[i]))
        shown = repr(bad) if bad.isprintable() else f"U+{ord(bad):04X} {unicodedata.name(bad, 'control character')}"
        raise UsageError(
            f"An update id cannot hold {shown} there. Use letters, digits, '.', '_' and '-', "
            "the first a letter or digit, such as UPD-2026-11."
        )
    return text


def check_server_name(text: str) -> str:
    """Return `text` if it can name a server's block: lower-case letters, digits and dashes.

    Raises:
        UsageError: it cannot.
    """
    if not _SERVER_NAME.fullmatch(text):
        raise UsageError(f"{text!r} cannot name a server: use lower-case letters, digits and '-', such as omega-eu.")
    return text


def name_of_server(block: str, title: str) -> str:
    """Name the server that is configured as `block` as people do: by the title that they typed, and by the block's name
    beside it where they chose one; a server without a title by its block."""
    if not title or title == block:
        return block
    return title if block in ("public", "omega") else f"{title} ({block})"


def name_of_release(bundle: str | None, update_id: str = "") -> str:
    """Name what a server runs: the update that brought it, where that is known, and the start of its digest."""
    if not bundle:
        return "nothing"
    digest = f"bundle {bundle[:12]}"
    return f"{update_id} ({digest})" if update_id else digest


def new_key() -> str:
    """Make a fresh licence key, `RACORE-XXXXXXXX-XXXXXXXX-XXXXXXXX`, from the system's random source."""
    groups = (secrets.token_hex(4).upper() for _ in range(3))
    return "-".join(("RACORE", *groups))


def check_licence_key(text: str) -> str:
    """Return `text` if it has the form RACORE-XXXXXXXX-XXXXXXXX-XXXXXXXX (upper-case hex).

    Raises:
        UsageError: it has not. The key itself is not repeated in the message.
    """
    if not _LICENCE.fullmatch(text):
        raise UsageError("A licence key has the form RACORE-XXXXXXXX-XXXXXXXX-XXXXXXXX, with X from 0-9 and A-F.")
    return text


def key_hash(key: str) -> str:
    """Hash the licence key `key` into what OMEGA keeps: its sha256 as 64 lower-case hex digits."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def licence_id(key: str) -> str:
    """Name the licence with `key` as people speak of it: the first 12 digits of `key_hash(key)`."""
    return key_hash(key)[:LICENCE_ID_LENGTH]
