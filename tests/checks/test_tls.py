"""What is wrong with a server's TLS, each fault on a real server, each with its own remedy; and what is good."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tasks.checks.scan import hello
from tasks.checks.scan.certificates import inspect_certificate
from tasks.checks.scan.tls import inspect_tls
from tasks.selftest.faults.certificates import Identity, make_identity
from tasks.selftest.faults.tls_proxy import tls_in_front_of, trusting

NOW = datetime.now(UTC) + timedelta(hours=1)  # after each of these certificates begins
SOON = timedelta(days=14)
NOWHERE = "http://127.0.0.1:9"
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("-newkey", "rsa:2048")
SAN = "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
LEAF = f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n{SAN}"
LAX = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
AUTHORITY = "configure its authority"


def openssl(*words: str, directory: Path) -> None:
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True, timeout=60)


def with_text(place: Path, text: str) -> str:
    place.write_text(text, encoding="utf-8")
    return place.name


@dataclass
class Authority:
    """An authority below `directory`, made with openssl; `name` is the stem of its files."""

    directory: Path
    name: str = "ca"

    def make(self, key: tuple[str, ...] = EC) -> Authority:
        given = ("req", "-x509", *key, "-nodes", "-keyout", f"{self.name}.key", "-out", f"{self.name}.pem")
        openssl(*given, "-days", "90", "-subj", f"/CN=test {self.name}", directory=self.directory)
        return self

    def sign(
        self,
        name: str = "leaf",
        extensions: str = LEAF,
        *,
        key: tuple[str, ...] = EC,
        days: int = 60,
        md: str = "sha256",
        options: tuple[str, ...] = (),
    ) -> Identity:
        """Make a key, and a certificate of it with those extensions that this authority signs."""
        place = self.directory
        request = ("req", *key, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=127.0.0.1")
        openssl(*request, directory=place)
        file = with_text(place / f"{name}.ext", extensions)
        signing = ("x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key")
        made = ("-CAcreateserial", "-days", str(days), f"-{md}", "-extfile", file, "-out", f"{name}.pem")
        openssl(*signing, *made, *options, directory=place)
        return Identity(place / f"{name}.pem", place / f"{name}.key", place / f"{self.name}.pem")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).make()


def looked(
    identity: Identity, *, trusted: bool = True, host: str = "127.0.0.1", **served: Any
) -> list[tuple[str, str]]:
    """What fails or warns of a server with that certificate, without where it is."""
    with tls_in_front_of(NOWHERE, identity, host=host, **{"ciphers": "DEFAULT:@SECLEVEL=0", **served}) as url:
        port = url.rpartition(":")[2]
        found = list(inspect_tls(url, trusting(identity.authority) if trusted else None, NOW, SOON))
    place = f"{host}:{port}"
    return [(each.severity, each.text.replace(place, "HERE")) for each in found if each.severity != "low"]


GOOD = {
    "P-256": {},
    "RSA 2048": {"key": RSA, "extensions": LEAF.replace("digitalSignature", "digitalSignature,keyEncipherment")},
    "P-384 and SHA-384": {"key": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"), "md": "sha384"},
    "Ed25519": {"key": ("-newkey", "ed25519")},
    "no usages": {"extensions": SAN},
    "client and server": {"extensions": LEAF.replace("serverAuth", "clientAuth,serverAuth")},
    "825 days": {"days": 825},
}


@pytest.mark.parametrize("made", GOOD.values(), ids=GOOD.keys())
def test_a_good_certificate_has_nothing_wrong(authority: Authority, made: dict[str, Any]) -> None:
    assert looked(authority.sign(**made)) == []


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "RSA 1024": ({"key": ("-newkey", "rsa:1024")}, "high", "has an RSA key of 1024 bits"),
    "SHA-1": ({"md": "sha1"}, "high", "is signed with SHA1, with which others can be forged"),
    "client only": (
        {"extensions": LEAF.replace("serverAuth", "clientAuth")},
        "high",
        "is made for clientAuth, not for a server",
    ),
    "any purpose, which OpenSSL does not take for a server's": (
        {"extensions": LEAF.replace("serverAuth", "anyExtendedKeyUsage")},
        "high",
        "is made for anyExtendedKeyUsage, not for a server",
    ),
    "no signing": (
        {"extensions": LEAF.replace("digitalSignature", "keyAgreement")},
        "high",
        "has a key that may not sign a handshake",
    ),
    "only enciphers": (
        {"key": RSA, "extensions": LEAF.replace("digitalSignature", "keyEncipherment")},
        "medium",
        "has a key that may only encipher",
    ),
    "common name only": (
        {"extensions": LEAF.replace(SAN, "")},
        "high",
        "names no host, only the common name '127.0.0.1'",
    ),
    "another name": (
        {"extensions": LEAF.replace(SAN, "subjectAltName=DNS:elsewhere.example\n")},
        "high",
        "is for elsewhere.example, not for 127.0.0.1",
    ),
    "an address as a name": (
        {"extensions": LEAF.replace(SAN, "subjectAltName=DNS:raos.example,IP:127.0.0.2\n")},
        "high",
        "is for raos.example, 127.0.0.2, not for 127.0.0.1",
    ),
    "ends soon": ({"days": 5}, "medium", "in 4 days: renew it"),
    "very long": ({"days": 3650}, "medium", "is made for 3650 days"),
    "an authority's": (
        {"extensions": LEAF.replace("CA:FALSE", "CA:TRUE")},
        "medium",
        "may sign other certificates (CA:TRUE)",
    ),
}


@pytest.mark.parametrize(("made", "severity", "says"), BAD.values(), ids=BAD.keys())
def test_a_bad_certificate_is_named_with_its_own_remedy(
    authority: Authority, made: dict[str, Any], severity: str, says: str
) -> None:
    ((grave, text),) = looked(authority.sign(**made))
    assert grave == severity
    assert f"the certificate of HERE {says}" in text or says in text
    assert AUTHORITY not in text


def test_a_key_with_which_no_handshake_comes_about_is_named_too(authority: Authority) -> None:
    for key, says in (
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime192v1"), "curve secp192r1 of 192 bits"),
        (("-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"), "exponent 3"),
    ):
        made = x509.load_pem_x509_certificate(authority.sign("odd", key=key).certificate.read_bytes())
        (found,) = inspect_certificate("HERE", "127.0.0.1", made, NOW, SOON)
        assert says in found.text


def test_a_name_stands_for_a_host_as_rfc_9525_says(authority: Authority) -> None:
    names = "subjectAltName=DNS:*.raos.example,DNS:RaOS.example,DNS:*.com\n"
    made = x509.load_pem_x509_certificate(authority.sign("named", names).certificate.read_bytes())
    for host, good in (
        ("a.raos.example", True),
        ("A.RaOS.example.", True),
        ("raos.example", True),
        ("a.b.raos.example", False),
        ("other.com", False),
        ("127.0.0.1", False),
    ):
        assert (list(inspect_certificate("HERE", host, made, NOW, SOON)) == []) is good, host


def test_a_certificate_signed_with_md5_is_named(tmp_path: Path) -> None:
    identity = Authority(tmp_path).make(RSA).sign(md="md5")
    ((severity, text),) = looked(identity)
    assert (severity, "is signed with MD5" in text, AUTHORITY in text) == ("high", True, False)


def test_a_certificate_out_of_its_time_is_named_whoever_signed_it(authority: Authority) -> None:
    day = timedelta(days=1)

    gone = make_identity(authority.directory / "gone", ends=NOW - day)
    early = make_identity(authority.directory / "early", begins=NOW + day)
    for trusted in (True, False):
        found = looked(gone, trusted=trusted)
        assert any(f"expired on {NOW - day:%Y-%m-%d}" in text for _, text in found)
    ((_, text),) = looked(early)
    assert "is valid only from" in text


def test_one_that_signed_itself_an_unknown_authority_and_a_missing_link_differ(tmp_path: Path) -> None:
    given = ("req", "-x509", *EC, "-nodes", "-keyout", "own.key", "-out", "own.pem", "-days", "60")
    openssl(*given, "-subj", "/CN=own", "-addext", SAN.strip(), directory=tmp_path)
    itself = Identity(tmp_path / "own.pem", tmp_path / "own.key", tmp_path / "own.pem")
    ((_, text),) = looked(itself, trusted=False)
    assert "(it signed itself)" in text
    assert looked(itself) == [], "it is trusted where it is configured"
    root = Authority(tmp_path, "root").make()
    root.sign("middle", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
    leaf = Authority(tmp_path, "middle").sign("below")
    missing = Identity(leaf.certificate, leaf.key, root.directory / "root.pem")
    ((_, text),) = looked(missing)
    assert "neither known here nor sent" in text
    assert "have the server send the whole chain" in text
    whole = tmp_path / "whole.pem"
    whole.write_bytes(leaf.certificate.read_bytes() + (tmp_path / "middle.pem").read_bytes())
    complete = Identity(whole, leaf.key, root.directory / "root.pem")
    assert looked(complete) == []
    ((_, text),) = looked(complete, trusted=False)
    assert f"(the authority CN=test root is not known here): {AUTHORITY}" in text


def test_what_authorities_between_are_made_with_is_looked_at(tmp_path: Path) -> None:
    root = Authority(tmp_path, "root").make()
    root.sign("middle", "basicConstraints=critical,CA:TRUE\n", key=("-newkey", "rsa:1024"), md="sha1", days=5)
    leaf = Authority(tmp_path, "middle").sign("below", days=4)
    whole = tmp_path / "whole.pem"
    whole.write_bytes(leaf.certificate.read_bytes() + (tmp_path / "middle.pem").read_bytes())
    texts = [text for _, text in looked(Identity(whole, leaf.key, tmp_path / "root.pem"))]
    for said in ("RSA key of 1024 bits", "is signed with SHA1", "in 4 days: renew it"):
        assert any(text.startswith("the authority CN=127.0.0.1 that HERE sends") and said in text for text in texts), (
            said
        )


def test_old_protocols_and_weak_ciphers_are_named(authority: Authority) -> None:
    good = authority.sign()
    old = {"oldest": ssl.TLSVersion.TLSv1, "ciphers": "ALL:@SECLEVEL=0"}
    ((severity, text),) = [each for each in looked(good, **old) if "still takes" in each[1]]
    assert (severity, "TLS 1.0 and TLS 1.1" in text) == ("medium", True)
    found = looked(good, ciphers=LAX)
    assert [(severity, "no encryption (NULL) and no certificate (anonymous)" in text) for severity, text in found] == [
        ("high", True)
    ]
    only = looked(good, newest=ssl.TLSVersion.TLSv1_2, ciphers="eNULL:@SECLEVEL=0")
    assert [(severity, "takes only ciphers with no encryption" in text) for severity, text in only] == [("high", True)]


def test_an_rsa_key_exchange_is_for_the_record(authority: Authority) -> None:
    identity = authority.sign(key=RSA, extensions=LEAF.replace("digitalSignature", "digitalSignature,keyEncipherment"))
    assert looked(identity, ciphers="ALL:!aNULL:!eNULL:@SECLEVEL=0") == []
    with tls_in_front_of(NOWHERE, identity, ciphers="kRSA:ECDHE:@SECLEVEL=0") as url:
        texts = [each.text for each in inspect_tls(url, trusting(identity.authority), NOW, SOON)]
    assert any("without forward secrecy" in text for text in texts)


@contextmanager
def scripted(answer: bytes | None) -> Iterator[int]:
    """The port of a server that answers each greeting with those bytes; None: with nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    if answer is None:
                        done.wait(1)
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def server_hello(version: int, suite: int) -> bytes:
    body = struct.pack(">H", version) + bytes(32) + b"\x04abcd" + struct.pack(">HB", suite, 0)
    message = b"\x02" + struct.pack(">I", len(body))[1:] + body
    return struct.pack(">BHH", 22, version, len(message)) + message


ALERT = struct.pack(">BHHBB", 21, 0x0303, 2, 2, 40)
TRIPLE = 0x000A


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (server_hello(hello.TLS_1_2, TRIPLE), True),
        (server_hello(hello.TLS_1_0, TRIPLE), False),
        (server_hello(hello.TLS_1_2, 0x009C), False),
        (server_hello(hello.TLS_1_2, TRIPLE)[:40], False),
        (ALERT, False),
        (b"", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000, False),
        (struct.pack(">BHH", 22, 0x0303, 65535) + b"\x02" * 40_000, False),
    ],
)
def test_only_a_server_hello_with_what_was_offered_is_a_yes(answer: bytes, taken: bool) -> None:
    with scripted(answer) as port:
        assert hello.takes("127.0.0.1", port, hello.TLS_1_2, (TRIPLE,), 3) is taken


def test_a_server_that_does_not_answer_is_not_said_to_refuse() -> None:
    with scripted(None) as port, pytest.raises(TimeoutError):
        hello.takes("127.0.0.1", port, hello.TLS_1_2, (TRIPLE,), 0.3)
