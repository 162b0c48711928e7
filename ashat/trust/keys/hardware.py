"""Keys that never leave a hardware token or a key service: what lies here is a reference, and they are asked to sign.

A reference is canonical JSON in a file of mode 0600, `{"format", "public", "uri"}`. The addresses are those of
securesystemslib's signers: `hsm:` is PKCS#11, such as a YubiKey (`hsm:2?label=...`), `gcpkms:`, `awskms:` and
`azurekms:` are key services. Each needs the library that securesystemslib names for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from securesystemslib.signer import HSMSigner, Key, SecretsHandler, Signature, Signer, SSlibKey

from ashat.common.canonical_json import canonical_json
from ashat.common.documents import STATE_LIMIT, load_json
from ashat.common.files import create_file
from ashat.errors import KeyFileError
from ashat.trust.keys.files import (
    check_name,
    load_public_key,
    load_signer,
    public_key,
    public_path,
    read_key,
    refuse_open,
)

SCHEMES: Final = ("hsm", "gcpkms", "awskms", "azurekms")
_FORMAT: Final = "ashat-key-reference/1"
_TRIAL: Final = b"ashat: does this key sign?"


def create_reference(path: Path, name: str, uri: str, public: Path | None, pin: Callable[[], str]) -> SSlibKey:
    """Keep in `path` where the key called `name` is, and its public half beside it; it has to sign something first.

    The public half is read from the token, or from the PEM file `public`, which a key service hands out.

    Raises:
        KeyFileError: it does not sign, its public half is another's or cannot be had, or a file is there already.
    """
    check_name(name)
    scheme = _check_uri(uri)
    if public is None and scheme != HSMSigner.SCHEME:
        raise KeyFileError(f"The public half of {uri} is needed: give it, in PEM, with --public FILE.")
    with _translated(uri):
        pem = read_key(public) if public else _from_token(uri, pin)
        key = load_public_key(public, name) if public else public_key(pem, name)
        signer = _signer(uri, key, pin)
        key.verify_signature(signer.sign(_TRIAL), _TRIAL)
    reference = {"format": _FORMAT, "uri": uri, "public": pem.decode()}
    try:
        create_file(path, canonical_json(reference), mode=0o600)
        create_file(public_path(path), pem, mode=0o644)
    except FileExistsError as error:
        raise KeyFileError(f"{error.filename2 or path} is there already; choose another name.") from None
    except OSError as error:
        raise KeyFileError(f"The key cannot be kept in {path}: {error.strerror}.") from None
    return key


def signer_in(path: Path, secret: Callable[[], str]) -> Signer:
    """Load what signs with the key that the file `path` holds or refers to. `secret`, its passphrase or PIN, is asked
    for only where one is needed.

    Raises:
        KeyFileError: see `load_signer`; or the reference is damaged.
    """
    refuse_open(path)
    content = read_key(path)
    if not content.lstrip().startswith(b"{"):
        return load_signer(path, secret)
    try:
        reference = load_json(content, limit=STATE_LIMIT)
        if reference["format"] != _FORMAT:
            raise KeyFileError(f"{path} refers to a key in a format of another version, {reference['format']!r}.")
        uri, key = str(reference["uri"]), public_key(reference["public"].encode(), "key")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KeyFileError(f"{path} refers to no key as this version writes it.") from None
    _check_uri(uri)
    with _translated(uri):
        return _signer(uri, key, secret)


class _Elsewhere(Signer):
    """A signer whose failures are one line, whatever its library raises."""

    def __init__(self, uri: str, signer: Signer) -> None:
        self._uri = uri
        self._signer = signer

    @property
    def public_key(self) -> Key:
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> _Elsewhere:
        return cls(priv_key_uri, Signer.from_priv_key_uri(priv_key_uri, public_key, secrets_handler))

    def sign(self, payload: bytes) -> Signature:
        with _translated(self._uri):
            return self._signer.sign(payload)


def _signer(uri: str, key: SSlibKey, secret: Callable[[], str]) -> Signer:
    return _Elsewhere.from_priv_key_uri(uri, key, lambda _: secret())


def _from_token(uri: str, pin: Callable[[], str]) -> bytes:
    parts = urlsplit(uri)
    number = int(parts.path) if parts.path else None
    _, found = HSMSigner.import_(number, dict(parse_qsl(parts.query)).get("label"), lambda _: pin())
    return str(found.keyval["public"]).encode()


def _check_uri(uri: str) -> str:
    scheme = uri.partition(":")[0]
    if scheme not in SCHEMES or ":" not in uri:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise KeyFileError(f"{uri[:80]!r} is no key's address; it begins with one of {known}.")
    return scheme


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Translate the errors of each library, of which some say nothing but their name.

    Raises:
        KeyFileError: instead.
    """
    try:
        yield
    except KeyFileError:
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise KeyFileError(f"The key {uri} cannot be used: {why.rstrip('.')}; nothing was signed.") from error
