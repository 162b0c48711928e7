"""Where OMEGA says that objects are, beside itself: an address with the digest left open.

`{digest}` stands for the object's digest. `{head}` and `{tail}` stand for its first two digits and for the others,
which is how a node's store names its files.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from ashat.errors import UsageError

ADDRESS_LIMIT: Final = 500
_OPEN: Final = re.compile(r"\{[^{}]*\}")
_KNOWN: Final = {"{digest}", "{head}", "{tail}"}
_WRITABLE: Final = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z{}~]+")


def check_object_address(text: str, *, plain_http: bool, is_open: bool = True) -> str:
    """Check that `text` is such an address, by https, or where `plain_http` allows it by http; with `is_open` a digest
    can be filled in.

    Raises:
        UsageError: it is not.
    """
    if len(text) > ADDRESS_LIMIT or not _WRITABLE.fullmatch(text):
        raise UsageError(
            f"An address of objects has at most {ADDRESS_LIMIT} characters, and none that a URL cannot have."
        )
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or "{" in parts.netloc or "}" in parts.netloc:
        raise UsageError("An address of objects names one host, such as https://cdn.example.com/{digest}.")
    if parts.scheme != "https" and not (plain_http and parts.scheme == "http"):
        raise UsageError(f"An address of objects begins with https://, not with {parts.scheme[:20]}://.")
    if "@" in parts.netloc or parts.fragment or "#" in text:
        raise UsageError("An address of objects holds no user, no password and no fragment.")
    found = set(_OPEN.findall(text))
    if found - _KNOWN or "{" in _OPEN.sub("", text) or "}" in _OPEN.sub("", text):
        raise UsageError("An address of objects leaves open {digest}, or {head} and {tail}, and nothing else.")
    if is_open and "{digest}" not in found and not {"{head}", "{tail}"} <= found:
        raise UsageError("An address of objects lacks {digest}: put it where the object's digest belongs.")
    return text


def object_address(address: str, digest: str) -> str:
    """Fill a digest into an address that is checked."""
    return address.replace("{digest}", digest).replace("{head}", digest[:2]).replace("{tail}", digest[2:])
