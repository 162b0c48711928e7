"""A program's health over https, with a certificate of a private authority."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ashat.errors import UsageError
from ashat.node.app_process.health import check_health
from ashat.node.core.config import AppConfig, NodeConfig
from ashat.node.serve import _check_tls
from ashat.protocol.messages import Role
from tests.support.fakes.bad_network import make_certificate


@pytest.fixture
def program(tmp_path: Path) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_it_is_well_where_its_authority_is_known(program: str, tmp_path: Path) -> None:
    seen = check_health(program, AppConfig(ca_file=tmp_path / "cert.pem"))
    assert (seen.healthy, seen.detail) == (True, "")


def test_it_is_not_trusted_without_it(program: str) -> None:
    seen = check_health(program, AppConfig())
    assert not seen.healthy
    assert "its TLS certificate is not trusted" in seen.detail


def test_an_authority_that_cannot_be_used_is_named(program: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    seen = check_health(program, AppConfig(ca_file=missing))
    assert not seen.healthy
    assert str(missing) in seen.detail
    settings = AppConfig(ca_file=missing)
    with pytest.raises(UsageError, match=str(missing)):
        _check_tls(NodeConfig(role=Role.PUBLIC, data=tmp_path / "data", app=settings))


def test_a_relative_path_is_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('role = "public"\ndata = "data"\n[app]\nca_file = "ca.pem"\n')
    assert NodeConfig.load(file).app.ca_file == tmp_path / "ca.pem"
