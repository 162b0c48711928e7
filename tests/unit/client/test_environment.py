"""The environment's proxies and authorities are read as others read them, and what is wrong is one line."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import httpx
import pytest

from ashat.cli.control_plane.children import proxy_settings
from ashat.client.environment import default_trust, is_excepted, proxy_of
from ashat.client.http import Timeouts, Transport
from ashat.errors import NodeError, UsageError
from tests.support.fakes.bad_network import answering
from tests.support.fakes.stranger import OK, saying, stranger

PROXY = "http://proxy.example:3128"
ODD_NO_PROXY = "fd00::/8,[::1],[2001:db8::1]:8080,10.0.0.0/8,*.example.com,host:8080,.dot.example"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("no_proxy", "url", "excepted"),
    [
        ("*", "https://omega.example", True),
        ("omega.example", "https://omega.example:8443", True),
        ("omega.example", "https://a.omega.example", True),
        ("omega.example", "https://notomega.example", False),
        (".omega.example", "https://a.omega.example", True),
        ("*.omega.example", "https://a.omega.example", True),
        ("OMEGA.example.", "https://omega.EXAMPLE", True),
        ("omega.example:8443", "https://omega.example:8443", True),
        ("omega.example:8443", "https://omega.example", False),
        ("omega.example:443", "https://omega.example", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.1.2.3", "http://10.1.2.3:80", True),
        ("10.1.2.3:8080", "http://10.1.2.3", False),
        ("10.0.0.0/8", "http://[::ffff:10.1.2.3]", True),
        ("fd00::/8", "http://[fd12::1]", True),
        ("fd00::/8", "http://[fe80::1]", False),
        ("[fd00::]/8", "http://[fd12::1]", True),
        ("fd12::1", "http://[fd12::1]:80", True),
        ("[fd12::1]", "http://[fd12::1]", True),
        ("[fd12::1]:8080", "http://[fd12::1]:8080", True),
        ("[fd12::1]:8080", "http://[fd12::1]", False),
        ("all://[fd00::]/8", "http://[fd12::1]", True),
        ("https://omega.example", "http://omega.example", False),
        ("a, omega.example b", "http://omega.example", True),
        ("10.0.0.0/99,[,]:x,::::,/,:,http://", "http://10.1.2.3", False),
        ("", "http://omega.example", False),
    ],
)
def test_what_is_excepted(monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, excepted: bool) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert is_excepted(httpx.URL(url), no_proxy) is excepted
    assert (proxy_of(httpx.URL(url)) is None) is excepted
    told = proxy_settings("")  # means the same to us, and httpx can read it
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert is_excepted(httpx.URL(url), told["NO_PROXY"]) is excepted
    httpx.Client().close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:8470", "http://localhost", "https://[::1]:1", "http://127.8.9.1"])
def test_loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    assert proxy_of(httpx.URL(url)) is None


@pytest.mark.parametrize(
    ("names", "url", "proxy"),
    [
        ({"HTTPS_PROXY": PROXY}, "https://omega.example", PROXY),
        ({"HTTPS_PROXY": PROXY}, "http://omega.example", None),
        ({"HTTP_PROXY": "proxy.example:3128"}, "http://omega.example", PROXY),
        ({"ALL_PROXY": "socks5://p:1"}, "http://omega.example", "socks5://p:1"),
        ({"ALL_PROXY": "socks5h://p:1", "https_proxy": PROXY}, "https://omega.example", PROXY),
        ({}, "https://omega.example", None),
    ],
)
def test_which_proxy(monkeypatch: pytest.MonkeyPatch, names: dict[str, str], url: str, proxy: str | None) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(httpx.URL(url)) == proxy


@pytest.mark.parametrize(
    "value", ["http://", "ftp://x", "socks4://x:1", "http://x:99999", "http://[", "::", "socks5:// x"]
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_no_proxy_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"^{name} holds no proxy's URL") as error:
        Transport("https://omega.example")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=name):
        proxy_settings("")


def test_certificates_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("no certificate")
    for name, value in [
        ("SSL_CERT_FILE", tmp_path / "missing"),
        ("SSL_CERT_FILE", tmp_path / "empty"),
        ("SSL_CERT_FILE", tmp_path),
        ("SSL_CERT_DIR", tmp_path / "missing"),
        ("SSL_CERT_DIR", tmp_path / "empty"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, str(value))
            for use in (default_trust, lambda: Transport("https://omega.example"), lambda: proxy_settings("")):
                with pytest.raises(UsageError, match=f"^{name} names .*{value.name}") as error:
                    use()
                assert "\n" not in str(error.value)


def test_others_reach_loopback_and_what_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_settings("http://10.1.2.3:4200/api") == {}
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", ODD_NO_PROXY)
    told = proxy_settings("http://10.1.2.3:4200/api")
    assert "10.1.2.3" in told["NO_PROXY"].split(",")
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with answering(200, b"{}") as url:
        assert httpx.get(url).status_code == 200


def test_a_proxy_is_asked_for_what_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with stranger(saying(OK + b"Content-Length: 2\r\n\r\n{}")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        with Transport("http://omega.example:8470") as transport:
            assert transport.json("GET", "/v1/identity") == {}


def test_a_socks_proxy_is_asked_for_what_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def socks(connection: socket.socket, _: threading.Event) -> None:
        connection.recv(100)
        connection.sendall(b"\x05\x00")
        asked.append(connection.recv(1000))
        connection.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        connection.recv(10000)
        connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")

    with stranger(socks, reads=False) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.replace("http://", "socks5://"))
        with Transport("http://omega.example:8470", timeouts=Timeouts(read=10)) as transport:
            assert transport.json("GET", "/v1/identity") == {}
    assert b"omega.example" in asked[0]


def test_a_proxy_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for dead in ("http://127.0.0.1:9", "socks5://127.0.0.1:9"):
        monkeypatch.setenv("ALL_PROXY", dead)
        with Transport("http://omega.example") as transport, pytest.raises(NodeError) as error:
            transport.request("GET", "/")
        assert "\n" not in str(error.value)
