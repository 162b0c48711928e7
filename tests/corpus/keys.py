"""Files that are keys or hold them, whatever they are called; certificates and public keys, which are none."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from tests.corpus.case import Case, fault, good, letters
from tests.corpus.hiding import NOISE, PEM, zipped

KIND = "keys and their stores"
_KEY = ec.generate_private_key(ec.SECP256R1())
_ED = ed25519.Ed25519PrivateKey.generate()
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "raos.example")])
_NOW = datetime.now(UTC)
_CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(_NAME)
    .issuer_name(_NAME)
    .public_key(_KEY.public_key())
    .serial_number(1)
    .not_valid_before(_NOW)
    .not_valid_after(_NOW + timedelta(days=1))
    .sign(_KEY, hashes.SHA256())
)
_DER = _CERTIFICATE.public_bytes(Encoding.DER)
_PASSWORD = BestAvailableEncryption(b"a password that nobody tries")


def java_store(*entries: bytes, magic: bytes = b"\xfe\xed\xfe\xed") -> bytes:
    """Make a Java keystore of `entries`."""
    return magic + struct.pack(">II", 2, len(entries)) + b"".join(entries) + NOISE[:20]


def _trusted(alias: bytes) -> bytes:
    return (
        struct.pack(">IH", 2, len(alias))
        + alias
        + bytes(8)
        + struct.pack(">H", 5)
        + b"X.509"
        + struct.pack(">I", len(_DER))
        + _DER
    )


def _private(alias: bytes) -> bytes:
    return struct.pack(">IH", 1, len(alias)) + alias + bytes(8) + struct.pack(">I", 200) + NOISE[:200]


def _pem(label: str, seed: str) -> str:
    lines = "\n".join(letters(f"{seed}{number}", 64) for number in range(6))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


FAULTS: dict[str, tuple[str, bytes | str]] = {
    "a PEM key by another name": ("data/blob.txt", PEM),
    "a PEM key within a text": ("docs/setup.md", f"Put this into the file:\n\n{PEM}\nand restart.\n"),
    "an OpenSSH key": ("deploy", _ED.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())),
    "an elliptic key": ("a.txt", _KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())),
    "an Ed25519 key": ("a.txt", _ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
    "an encrypted key": ("a.txt", _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _PASSWORD)),
    "an OpenPGP key": ("a.asc", _pem("PGP PRIVATE" + " KEY BLOCK", "pgp")),
    "a PuTTY key": (
        "a.txt",
        "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: a\nPublic-Lines: 1\nAAAA\nPrivate-Lines: 1\n"
        + letters("ppk", 48)
        + "\n",
    ),
    "a DER key": ("data.bin", _KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
    "a DER key of the older form": (
        "data.bin",
        _KEY.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    ),
    "an encrypted DER key": ("data.bin", _KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, _PASSWORD)),
    "a DER key of Ed25519": ("a.dat", _ED.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
    "a PKCS#12 store": ("a.dat", pkcs12.serialize_key_and_certificates(b"a", _KEY, _CERTIFICATE, None, _PASSWORD)),
    "a PKCS#12 store without a password": (
        "a.pfx",
        pkcs12.serialize_key_and_certificates(b"a", _KEY, _CERTIFICATE, None, NoEncryption()),
    ),
    "a Java keystore": ("store.bin", java_store(_trusted(b"ca"), _private(b"raos"))),
    "a Java keystore of the other kind": ("store.bin", java_store(_private(b"raos"), magic=b"\xce\xce\xce\xce")),
    "a keystore in a jar": ("app.jar", zipped({"keystore.jks": java_store(_private(b"raos"))})),
    "a DER key in a zip": (
        "a.zip",
        zipped({"k": _KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())}),
    ),
    "a KeePass database": ("a.bin", b"\x03\xd9\xa2\x9a\x67\xfb\x4b\xb5" + NOISE),
    "a JSON Web Key": (
        "jwk.json",
        '{"kty":"EC","crv":"P-256","x":"'
        + letters("x", 43)
        + '","y":"'
        + letters("y", 43)
        + '","d":"'
        + letters("d", 43)
        + '"}\n',
    ),
    "a WireGuard key": ("wg0.conf", "[Interface]\nPrivateKey = " + letters("wg", 43) + "=\nAddress = 10.0.0.1/24\n"),
    "an age key": (
        "keys.txt",
        "# created: 2026\nAGE-SECRET-KEY-1" + letters("age", 58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L") + "\n",
    ),
    "an environment file": ("web/.env", "COLOUR=blue\n"),
    "an environment file for production": (".env.production", "COLOUR=blue\n"),
    "an environment file with a prefix": ("config/prod.env", f"SMTP_PASSWORD={letters('smtp', 14)}\n"),
    "an environment file the other way round": ("env.production", f"API_SECRET={letters('apisecret', 32)}\n"),
    "Flask's environment": (".flaskenv", f"SECRET_KEY={letters('flask', 32)}\n"),
    "passwords of PostgreSQL": (".pgpass", "db:5432:raos:raos:x\n"),
    "npm's registry token": (".npmrc", f"//registry.npmjs.org/:_authToken={letters('npmrc', 36)}\n"),
    "git's credentials": (".git-credentials", "https://x:y@git.raos.net\n"),
    "AWS's credentials": ("home/.aws/credentials", "[default]\n"),
    "Terraform's state": ("terraform.tfstate", "{}\n"),
    "a passwords file": (".htpasswd", "admin:{SHA}x\n"),
    "Rails' master key": ("config/master.key", letters("rails", 32, "0123456789abcdef") + "\n"),
}
GOOD: dict[str, tuple[str, bytes | str]] = {
    "a certificate": ("ca.pem", _CERTIFICATE.public_bytes(Encoding.PEM)),
    "a certificate in DER": ("ca.der", _DER),
    "a public key": ("key.pem", _KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    "a public key of SSH": ("id_ed25519.pub", _ED.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
    "Java's certificates": ("cacerts", java_store(_trusted(b"one"), _trusted(b"two"))),
    "a key in documentation": ("docs/a.md", "-----BEGIN PRIVATE" + " KEY-----\n...\n-----END PRIVATE" + " KEY-----\n"),
    "words about keys": (
        "docs/b.md",
        "A key begins with `-----BEGIN RSA PRIVATE" + " KEY-----` and ends with `-----END`.\n",
    ),
    "a parser of keys": (
        "pem.py",
        "BEGIN = '-----BEGIN PRIVATE" + " KEY-----'\nEND = '-----END PRIVATE" + " KEY-----'\n",
    ),
    "an example of an environment": (".env.example", "DB_PASSWORD=changeme\n"),
    "a template of an environment": ("prod.env.template", "DB_PASSWORD=\n"),
    "a module about environments": ("src/env.py", "def env(name): return os.environ[name]\n"),
    "types of an environment": ("src/env.d.ts", "interface ImportMetaEnv { readonly VITE_API: string }\n"),
    "an environment without secrets": ("config/prod.env", "COLOUR=blue\nPORT=8000\nDEBUG=false\n"),
    "settings of npm": (".npmrc", "package-lock=false\nfund=false\n"),
    "npm's token from the environment": (".npmrc", "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n"),
    "a public JSON Web Key": (
        "jwks.json",
        '{"keys":[{"kty":"EC","crv":"P-256","x":"' + letters("jx", 43) + '","y":"' + letters("jy", 43) + '"}]}\n',
    ),
    "a peer of WireGuard": ("wg0.conf", "[Peer]\nPublicKey = " + letters("wgp", 43) + "=\n"),
    "a list of packages": ("credentials.md", "How we keep credentials: in the vault.\n"),
}
CASES: tuple[Case, ...] = (
    *(fault(KIND, name, {path: content}) for name, (path, content) in FAULTS.items()),
    *(good(KIND, name, {path: content}) for name, (path, content) in GOOD.items()),
)
