"""Why a TLS connection fails is said by its cause, and each cause has an advice of its own that is true."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from ashat.client import tls_causes
from ashat.client.http import Timeouts, Transport
from ashat.errors import NodeRefusedError, NodeUntrustedError
from ashat.node.app_process.health import ProgramSilentError, ask
from tasks.selftest.faults.certificates import make_identity
from tests.support.fakes.bad_network import answering, make_certificate

DAY = timedelta(days=1)
NOT_CA = "does not help"


@contextmanager
def over_tls(certificate: Path, key: Path) -> Iterator[str]:
    """The URL of a server that shows that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def told(url: str, ca: Path | None = None) -> str:
    with (
        Transport(url, ca=ca, name="staging", timeouts=Timeouts(5, 5)) as transport,
        pytest.raises(NodeUntrustedError) as error,
    ):
        transport.request("GET", "/")
    assert not error.value.transient
    return str(error.value)


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-9 * DAY, -DAY, "has expired, by the clock here"),
        (DAY, 9 * DAY, "is not valid yet, by the clock here"),
    ],
)
def test_a_certificate_out_of_its_time(tmp_path: Path, begins: timedelta, ends: timedelta, said: str) -> None:
    now = datetime.now(UTC)
    made = make_identity(tmp_path, begins=now + begins, ends=now + ends)
    with over_tls(made.certificate, made.key) as url:
        line = told(url, made.authority)
    assert said in line
    assert "give its authority" not in line


def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    made = make_identity(tmp_path, names=("omega.example",))
    with over_tls(made.certificate, made.key) as url:
        for address, name in ((url, "127.0.0.1"), (url.replace("127.0.0.1", "localhost"), "localhost")):
            line = told(address, made.authority)
            assert f"is not for the name {name}" in line
            assert NOT_CA in line


def test_a_certificate_for_another_purpose_needs_no_other_authority(tmp_path: Path) -> None:
    made = make_identity(tmp_path, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    with over_tls(made.certificate, made.key) as url:
        line = told(url, made.authority)
    assert "is made for another purpose than a server's" in line
    assert NOT_CA in line


def test_each_cause_of_a_failed_handshake_has_words_of_its_own() -> None:
    def refused(code: int) -> str:
        error = ssl.SSLCertVerificationError()
        error.verify_code = code
        return tls_causes.distrust(error)

    causes = [refused(code) for code in (7, 23, 25, 26, 32, 34, 47, 66, 67, 68)]
    assert all(causes)
    assert len(set(causes)) == len(causes)
    assert refused(20) == "", "that depends on what was asked for"
    for reason, says in (("TLSV1_ALERT_PROTOCOL_VERSION", "TLS 1.2 or 1.3"), ("NO_SHARED_CIPHER", "no cipher")):
        failed = ssl.SSLError()
        failed.reason = reason
        assert says in tls_causes.no_handshake(failed)


def test_an_authority_that_is_unknown_or_another_than_the_one_given(tmp_path: Path) -> None:
    made, other = make_identity(tmp_path / "one"), make_identity(tmp_path / "other")
    with over_tls(made.certificate, made.key) as url:
        assert "give its authority with --ca FILE" in told(url)
        line = told(url, other.authority)
    assert "another authority than that of --ca FILE signed it" in line


def test_a_certificate_that_signed_itself(tmp_path: Path) -> None:
    with over_tls(*make_certificate(tmp_path)) as url:
        assert "it signed itself" in told(url)


def test_https_to_a_port_of_plain_http_and_the_reverse(tmp_path: Path) -> None:
    with answering(200) as url:
        line = told(url.replace("http", "https"))
        assert "does not speak https on that port" in line
        assert url in line
    made = make_identity(tmp_path)
    with over_tls(made.certificate, made.key) as url:
        assert f"it speaks https on that port, not http: its address is {url}" in told(url.replace("https", "http"))


@pytest.mark.parametrize(
    "words", [b"400 The plain HTTP request was sent to HTTPS port", b"Client sent an HTTP request to an HTTPS server."]
)
def test_a_proxy_that_says_in_words_that_its_port_takes_https(words: bytes) -> None:
    with (
        answering(400, words) as url,
        Transport(url, name="staging") as transport,
        pytest.raises(NodeRefusedError, match=r"it speaks https on that port, not http: its address is https://"),
    ):
        transport.request("GET", "/")


def test_a_mainframe_and_a_program_are_told_of_the_setting_that_is_theirs(tmp_path: Path) -> None:
    made = make_identity(tmp_path)
    with over_tls(made.certificate, made.key) as url:
        with Transport(url, name="OMEGA") as transport:
            transport.authority = "ca_file in node.toml"
            with pytest.raises(NodeUntrustedError, match=r"give its authority with ca_file in node\.toml"):
                transport.request("GET", "/")
        with pytest.raises(ProgramSilentError, match=r"give its authority with ca_file under \[app\]"):
            ask(url, timeout=5, limit=1000)
