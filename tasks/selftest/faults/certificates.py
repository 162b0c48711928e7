"""Makes a certificate authority, and certificates for this machine that it signs, good or bad."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

HERE = ("localhost", "127.0.0.1")
VALID = timedelta(days=90)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate, its key, and the authority that signed it, as PEM files."""

    certificate: Path
    key: Path
    authority: Path


def make_identity(
    directory: Path,
    *,
    names: Sequence[str] = HERE,
    begins: datetime | None = None,
    ends: datetime | None = None,
    rsa_bits: int = 0,
    purposes: Sequence[x509.ObjectIdentifier] = (),
) -> Identity:
    """Write a certificate for `names` (hosts and addresses) into `directory`, with an authority of its own.

    It is valid from a day ago for 90 days, unless `begins` and `ends` say otherwise; the authority is always valid. Its
    key is of P-256, or RSA of `rsa_bits`; it is for any purpose, or for `purposes`. Without names it has a common name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    begins = begins or (min(now, ends) if ends else now) - _DAY
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
    authority_name, name = _name("ASHAT self-test authority"), _name("ASHAT self-test server")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now - _DAY, now + VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    unsigned = (
        _builder(name, authority_name, key.public_key(), begins, ends or now + VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
    )
    if names:
        listed = x509.SubjectAlternativeName([_alternative(each) for each in names])
        unsigned = unsigned.add_extension(listed, critical=False)
    if purposes:
        unsigned = unsigned.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    certificate = unsigned.sign(authority_key, hashes.SHA256())
    made = Identity(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.touch(mode=0o600)
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
