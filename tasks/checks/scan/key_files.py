"""Finds files that hold private keys or credentials: by their content, and by what they are called."""

from __future__ import annotations

import re
import struct

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tasks.checks.scan.der_keys import holds_der_key, is_key_pair

DER_LIMIT = 10 * 1024
STORE_LIMIT = 4 * 1024 * 1024
_KEY_BAGS = tuple(bytes.fromhex("060b2a864886f70d010c0a01") + last for last in (b"\1", b"\2"))

_NAMED = re.compile(
    r"(^|/)(\.env(\.(?!(?:example|sample|template|dist|defaults?)$)[^/]*)?|\.envrc|\.git|\.svn|\.hg|\.netrc|_netrc|\.pgpass|\.htpasswd"
    r"|\.pypirc|\.git-credentials|\.s3cfg|\.boto|id_(rsa|dsa|ecdsa|ed25519)(_sk)?|[^/]*\.(kdbx?|ppk)"
    r"|\.aws/credentials|\.docker/config\.json|\.dockercfg|\.kube/config|\.vault-token|terraform\.tfstate(\.backup)?"
    r"|master\.key|credentials\.json|\.bash_history|\.psql_history|\.mysql_history)(/|$)",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(
    r"\.(example|sample|template|dist|tmpl|defaults?|d\.ts|[cm]?[jt]sx?|py|rb|md|html|snap)$", re.IGNORECASE
)
_ENVIRONMENT = re.compile(
    r"([\w.-]*[._-]env|\.?env|[\w-]*\.env\.[\w.-]+|env\.[\w-]+|\.flaskenv|[\w-]*\.?envrc)", re.IGNORECASE
)
NAME_LIMIT, PATH_LIMIT = 255, 1024


def named(path: str) -> bool:
    """Tell whether `path` is called as files are that hold credentials or history."""
    return bool(_NAMED.search(path[-PATH_LIMIT:]))


def environment_file(path: str) -> bool:
    """Tell whether `path` is called as files of environment variables are, with any prefix, and not as examples are."""
    name = re.split("[/!]", path[-NAME_LIMIT:])[-1]
    return bool(_ENVIRONMENT.fullmatch(name)) and not _EXAMPLE.search(name)


def key_in(content: bytes) -> str:
    """Name the key or store of keys that `content` is, "" where it is none or holds certificates only."""
    if content.startswith((b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")):
        return _java_store(content)
    if content.startswith(b"\x03\xd9\xa2\x9a"):
        return "a KeePass database"
    if content.startswith(b"\0\0\0\x02\0\0\0\x14") and 100 <= int.from_bytes(content[28:32], "big") <= 100_000:
        return "a Bouncy Castle keystore"
    if content[:1] == b"\x95" and len(content) > 100 and content[3:4] in (b"\x03", b"\x04"):
        return "an OpenPGP secret key"
    if content.startswith(b"== ed25519v1-secret: type0 =="):
        return "the secret key of a Tor service"
    if content.startswith((b"\5\1", b"\5\2")) and _is_keytab(content):
        return "a Kerberos keytab"
    if content[:1] == b"\x30" and len(content) <= STORE_LIMIT and (key := _der(content)):
        return key
    if is_key_pair(content):
        return "an Ed25519 key pair"
    return "a file with a private key in it (DER)" if holds_der_key(content) else ""


def _is_keytab(content: bytes) -> bool:
    """Tell whether content is a keytab by its first entry: its length, and a realm that is text."""
    length, parts, realm = int.from_bytes(content[2:6], "big"), content[6:8], int.from_bytes(content[8:10], "big")
    name = content[10 : 10 + realm]
    return 16 < length <= len(content) and parts[0] == 0 and 0 < realm < 256 and name.isascii() and len(name) == realm


def _java_store(content: bytes) -> str:
    """Walk a Java keystore to its first private or secret key; what cannot be walked may have one."""
    try:
        _, count = struct.unpack_from(">II", content, 4)
        position = 12
        for _ in range(min(count, 10_000)):
            tag, length = struct.unpack_from(">IH", content, position)
            if tag in (1, 3):
                return "a Java keystore with a private key"
            position += 6 + length + 8
            (length,) = struct.unpack_from(">H", content, position)
            position += 2 + length
            (length,) = struct.unpack_from(">I", content, position)
            position += 4 + length
    except struct.error:
        return "a Java keystore that cannot be read"
    return ""


def _der(content: bytes) -> str:
    if b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07" in content[:64] and b"\x02\x01\x03" in content[:8]:
        return _pkcs12(content)
    if len(content) > DER_LIMIT or (content[1:2] not in (b"\x82", b"\x81") and len(content) > 130):
        return ""
    try:
        load_der_private_key(content, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return "an encrypted private key (DER)"
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return "a private key (DER)"


def _pkcs12(content: bytes) -> str:
    """Look for the bags of private keys, which lie outside what is encrypted; no password is tried on a file.

    RFC 7292, 4.2: pkcs-12-keyBag and pkcs-12-pkcs8ShroudedKeyBag. A store of certificates only has neither.
    """
    return "a PKCS#12 store with a private key" if any(bag in content for bag in _KEY_BAGS) else ""
