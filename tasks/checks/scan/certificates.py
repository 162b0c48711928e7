"""Finds what is wrong with a certificate itself, whoever vouches for it: its key, hash, purpose, names, and time.

Rules: `certificate` for what clients refuse, `weak-certificate` for what can be broken, `certificate-expiry`. Sources:
NIST SP 800-131A for keys and hashes, RFC 5280 for purposes, RFC 9525 for names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tasks.checks.kit.base import Finding, Severity, one_line

RSA_BITS = 2048
CURVE_BITS = 224
# Apple's clients take none of a longer time, whoever signed it.
DAYS_LIMIT = 825
NAMES_SHOWN = 3
_PURPOSES = {
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
}
_BROKEN = ("md2", "md4", "md5", "sha1")


def inspect_certificate(
    place: str, host: str, certificate: x509.Certificate, now: datetime, soon: timedelta
) -> Iterator[Finding]:
    """Find what is wrong with the certificate that the server at `place` shows to who asks for `host`.

    Each finding has a remedy of its own. One that ends within `soon` is pointed out.
    """
    named = f"the certificate of {place}"
    found = [
        *_time(certificate, now, soon),
        *_key(certificate),
        *_hash(certificate),
        *_purpose(certificate),
        *_names(certificate, host),
    ]
    for severity, rule, text in found:
        yield Finding(severity, f"{named} {text}", rule, place)


def inspect_authorities(
    place: str, chain: Sequence[x509.Certificate], now: datetime, soon: timedelta
) -> Iterator[Finding]:
    """Find what is wrong with the certificates of authorities that the server sends besides its own.

    The hash of one that signed itself counts for nothing.
    """
    for certificate in chain:
        own = certificate.issuer == certificate.subject
        found = [*_time(certificate, now, soon), *_key(certificate), *(() if own else _hash(certificate))]
        for severity, rule, text in found:
            who = one_line(certificate.subject.rfc4514_string(), 80) or "nobody"
            yield Finding(severity, f"the authority {who} that {place} sends {text}", rule, place)


def names_of(certificate: x509.Certificate) -> list[str]:
    """List the hosts and addresses that the certificate is for."""
    listed = _extension(certificate, x509.SubjectAlternativeName)
    names = [str(item.value) for item in listed or () if isinstance(item, x509.DNSName | x509.IPAddress)]
    return [one_line(name, 60) for name in names]


_Found = Iterator[tuple[Severity, str, str]]
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _time(certificate: x509.Certificate, now: datetime, soon: timedelta) -> _Found:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends <= now:
        yield "high", "certificate", f"expired on {ends:%Y-%m-%d}: renew it"
    elif begins > now:
        yield "high", "certificate", f"is valid only from {begins:%Y-%m-%d} on"
    elif ends <= now + soon:
        yield "medium", "certificate-expiry", f"expires on {ends:%Y-%m-%d}, in {(ends - now).days} days: renew it"
    basic = _extension(certificate, x509.BasicConstraints)
    if (ends - begins).days > DAYS_LIMIT and not (basic is not None and basic.ca):
        days = (ends - begins).days
        text = f"is made for {days} days, and some clients take {DAYS_LIMIT} at most: have one made for a shorter time"
        yield "medium", "certificate-expiry", text


def _key(certificate: x509.Certificate) -> _Found:
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        yield (
            "high",
            "weak-certificate",
            f"has a key that cannot be read ({one_line(error, 80)}): have one made with P-256",
        )
        return
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS:
        text = f"has an RSA key of {key.key_size} bits, which can be broken: have one made with {RSA_BITS} at least"
        yield "high", "weak-certificate", text
    elif isinstance(key, rsa.RSAPublicKey) and key.public_numbers().e < 65537:
        text = f"has an RSA key with the exponent {key.public_numbers().e}: have one made with 65537"
        yield "medium", "weak-certificate", text
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < CURVE_BITS:
        text = f"has a key on the curve {key.curve.name} of {key.curve.key_size} bits: have one made with P-256"
        yield "high", "weak-certificate", text
    elif isinstance(key, dsa.DSAPublicKey):
        yield "high", "weak-certificate", "has a DSA key, which TLS 1.3 does not know: have one made with P-256"


def _hash(certificate: x509.Certificate) -> _Found:
    try:
        used = certificate.signature_hash_algorithm
        name = used.name if used is not None else ""
    except UnsupportedAlgorithm:
        name = f"algorithm {certificate.signature_algorithm_oid.dotted_string}"
        yield "high", "weak-certificate", f"is signed with the {name}, which is not known: have it signed with SHA-256"
        return
    if name.lower() in _BROKEN:
        text = f"is signed with {name.upper()}, with which others can be forged: have it signed with SHA-256"
        yield "high", "weak-certificate", text


def _purpose(certificate: x509.Certificate) -> _Found:
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended is not None and ExtendedKeyUsageOID.SERVER_AUTH not in extended:
        known = ", ".join(_PURPOSES.get(oid, oid.dotted_string) for oid in list(extended)[:NAMES_SHOWN])
        text = (
            f"is made for {known or 'nothing'}, not for a server: have one made with the extended key usage serverAuth"
        )
        yield "high", "certificate", text
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        elliptic = not isinstance(_public_key(certificate), rsa.RSAPublicKey)
        if elliptic or not usage.key_encipherment:
            text = "has a key that may not sign a handshake: have one made with the key usage digitalSignature"
            yield "high", "certificate", text
        else:
            text = "has a key that may only encipher, which TLS 1.3 does not use: add the key usage digitalSignature"
            yield "medium", "certificate", text
    basic = _extension(certificate, x509.BasicConstraints)
    if basic is not None and basic.ca and certificate.issuer != certificate.subject:
        text = "may sign other certificates (CA:TRUE), so whoever gets its key can be anybody: have one made without it"
        yield "medium", "certificate", text


def _names(certificate: x509.Certificate, host: str) -> _Found:
    names = names_of(certificate)
    if not names:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        only = (
            f", only the common name {one_line(common[0].value, 60)!r}, which clients no longer look at"
            if common
            else ""
        )
        yield "high", "certificate", f"names no host{only}: have one made with {host} as its subjectAltName"
        return
    if not any(_is_for(name, host) for name in names):
        shown = ", ".join(names[:NAMES_SHOWN])
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        yield "high", "certificate", f"is for {shown}{more}, not for {host}"


def _is_for(name: str, host: str) -> bool:
    """Tell whether that name stands for the host; `*` stands for one whole label, the first (RFC 9525, 6.3)."""
    try:
        return ip_address(name) == ip_address(host)
    except ValueError:
        pass  # a name is no address: it is compared below
    own, wanted = name.lower().rstrip("."), host.lower().rstrip(".")
    first, _, rest = own.partition(".")
    return own == wanted or (first == "*" and "." in rest and wanted.partition(".")[2] == rest)


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return None
