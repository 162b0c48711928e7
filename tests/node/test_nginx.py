"""The nginx that deploy/nginx shows, in front of a node: bundles go up and come down through it, by TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ashat.client.node import NodeClient
from ashat.protocol.messages import Scope
from tests.support.fakes.certificates import make_certificate
from tests.support.needs import requires_nginx
from tests.support.processes.nginx import listens, write_nginx
from tests.support.processes.node import ROOT, NodeProcess, free_port, push, switch, tiny_app, tiny_bundle

pytestmark = requires_nginx
CONFIGURATION = (ROOT / "deploy/nginx/ashat-node.conf").read_text("utf-8")


def configured(directory: Path, node_port: int, port: int) -> tuple[Path, Path]:
    """The configuration as it is shown, with the ports and files of this test; its authority."""
    certificate, key, authority = make_certificate(directory / "tls")
    changes = {
        "127.0.0.1:8470": f"127.0.0.1:{node_port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "    listen [::]:443 ssl;\n": "",
        "/etc/ssl/ashat/omega.pem": str(certificate),
        "/etc/ssl/private/ashat/omega.key": str(key),
    }
    return write_nginx(directory, CONFIGURATION, changes), authority


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, str, Path]]:
    """A node, the address of the nginx before it, and the authority of that."""
    directory = tmp_path_factory.mktemp("nginx")
    with NodeProcess(directory / "public", app=tiny_app()) as node:
        port = free_port()
        path, authority = configured(directory, node.port, port)
        program = str(shutil.which("nginx"))
        tested = subprocess.run([program, "-t", "-c", str(path)], capture_output=True, text=True)
        assert tested.returncode == 0, tested.stderr
        assert "[warn]" not in tested.stderr.replace('the "user" directive', "")
        with (directory / "log").open("wb") as log, subprocess.Popen([program, "-c", str(path)], stderr=log) as nginx:
            deadline = time.monotonic() + 20
            while not listens(port):
                assert nginx.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            try:
                yield node, f"https://127.0.0.1:{port}", authority
            finally:
                nginx.terminate()
                nginx.wait(20)


def test_a_release_goes_through_it_both_ways(front: tuple[NodeProcess, str, Path], tmp_path: Path) -> None:
    node, url, authority = front
    source = tiny_bundle(tmp_path / "source", big="x" * (9 << 20), **{f"f{n}": "y" * n for n in range(300)})
    with NodeClient(url, token=node.token(), name="public", ca=authority) as client:
        bundle = push(client, source)
        assert switch(client, bundle, expected=None).status == "succeeded"
        assert client.identity().current.bundle == bundle  # type: ignore[union-attr]
        manifest = client.manifest(bundle)
        assert len(client.file_bytes(manifest, "big")) == 9 << 20


def test_what_is_too_large_ends_at_nginx_and_old_protocols_are_refused(front: tuple[NodeProcess, str, Path]) -> None:
    node, url, authority = front
    headers = {"Authorization": f"Bearer {node.token(Scope.PUSH)}"}
    with httpx.Client(verify=ssl.create_default_context(cafile=authority), trust_env=False, headers=headers) as client:
        assert client.post(f"{url}/v1/objects", content=bytes(65 << 20), timeout=60).status_code == 413
        answer = client.get(f"{url}/v1/state")
        assert "server" in answer.headers
        assert answer.headers["server"] == "nginx"
    done = subprocess.run(
        ["openssl", "s_client", "-connect", url.removeprefix("https://"), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        input="",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
