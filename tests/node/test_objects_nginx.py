"""The nginx that deploy/nginx shows for objects, beside OMEGA: Mainframes get the bytes from it, by TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ashat.client.elsewhere import Elsewhere, Part
from ashat.client.fetching import fetch_part
from ashat.client.http import Transport
from ashat.node.mainframe.omega_client import PREFIX
from ashat.protocol.messages import Role
from tests.node.test_mainframe import Install
from tests.support.fakes.certificates import make_certificate
from tests.support.needs import requires_nginx
from tests.support.processes.nginx import listens, write_nginx
from tests.support.processes.node import ROOT, NodeProcess, free_port, tiny_app
from tests.support.processes.omega import licence, ship, source

pytestmark = requires_nginx
SHOWN = (ROOT / "deploy/nginx/ashat-objects.conf").read_text("utf-8")
SEEN = (
    "$request_method $uri $status [$http_authorization$http_cookie$http_ashat_agent$http_ashat_redirects] $http_range"
)


@contextmanager
def objects_by_nginx(directory: Path, objects: Path) -> Iterator[tuple[str, Path]]:
    """The address of an nginx as shown, over a directory of objects; its authority. It writes `directory`/seen."""
    port = free_port()
    directory.mkdir()
    certificate, key, authority = make_certificate(directory / "tls")
    log = f"log_format seen '{SEEN}';\nserver {{\n    access_log {directory}/seen seen;"
    changes = {
        "server {": log,
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "    listen [::]:443 ssl;\n": "",
        "/etc/ssl/ashat/objects.pem": str(certificate),
        "/etc/ssl/private/ashat/objects.key": str(key),
        "alias                    /srv/ashat-objects/": f"alias                    {objects}/",
    }
    path = write_nginx(directory, SHOWN, changes)
    if os.geteuid() == 0:  # else its workers become somebody who may not read a test's directory
        path.write_text("user root;\n" + path.read_text())
    program = str(shutil.which("nginx"))
    with (directory / "log").open("wb") as errors, subprocess.Popen([program, "-c", str(path)], stderr=errors) as nginx:
        deadline = time.monotonic() + 20
        while not listens(port):
            assert nginx.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            yield f"https://127.0.0.1:{port}", authority
        finally:
            nginx.terminate()
            nginx.wait(20)


def test_a_release_comes_from_nginx_to_who_follows_and_from_omega_to_who_does_not(tmp_path: Path) -> None:
    objects = tmp_path / "copy"
    with objects_by_nginx(tmp_path / "nginx", objects) as (url, authority):
        settings = {"objects": {"redirect": url + "/{digest}"}}
        with (
            NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app(), settings=settings) as omega,
            omega.client() as client,
        ):
            release = source(tmp_path, **{f"f{number}": f"{number}" * number for number in range(1, 30)})
            (release / "large").write_bytes(os.urandom(6 << 20))
            current = ship(client, release)
            shutil.copytree(omega.data / "store" / "objects", objects)
            digests = dict(client.manifest(current.bundle).objects)
            with Install(tmp_path / "baker", omega, ca_file=str(authority)) as baker:
                baker.wait_until_runs(current)
                assert "objects come from OMEGA itself" not in baker.log()
            seen = (tmp_path / "nginx" / "seen").read_text().splitlines()
            assert sorted(seen) == sorted(f"GET /{digest} 200 [----] -" for digest in digests)

            digest, size = max(digests.items(), key=lambda one: one[1])
            content = (objects / digest[:2] / digest[2:]).read_bytes()
            key, rest = licence(client, "miller"), bytearray()
            elsewhere = Elsewhere(omega.url, authority)
            with Transport(omega.url, licence=key) as transport:
                part = Part([(digest, size)], PREFIX, begun=70_000)
                fetch_part(transport, part, lambda chunks: rest.extend(b"".join(chunks)), lambda _: None, elsewhere)
            elsewhere.close()
            assert rest == content[70_000:]
            assert (tmp_path / "nginx" / "seen").read_text().splitlines()[
                -1
            ] == f"GET /{digest} 206 [----] bytes=70000-"

            headers = {"Authorization": f"Licence {key}"}
            with httpx.Client(base_url=f"{omega.url}{PREFIX}", headers=headers, trust_env=False) as earlier:
                whole = earlier.get(f"/objects/{digest}")
                assert (whole.status_code, whole.content) == (200, content)
                part_of = earlier.get(f"/objects/{digest}", headers={"Range": "bytes=5-"})
                assert (part_of.status_code, part_of.content) == (206, content[5:])
                assert len(earlier.post("/objects/fetch", json={"digests": [digest]}).content) == size + 40
                sent = earlier.get(f"/objects/{digest}", headers={"Ashat-Redirects": "follow"})
                assert (sent.status_code, sent.headers["Location"]) == (307, f"{url}/{digest}")
                other = earlier.get(f"/objects/{'0' * 64}", headers={"Ashat-Redirects": "follow"})
                assert other.status_code == 404
            with httpx.Client(base_url=url, verify=False, trust_env=False) as stranger:
                paths = (
                    "/",
                    "/ab/",
                    f"/{digest[:2]}/",
                    f"/{digest[:2]}/../{digest}x",
                    "/%2e%2e/node.toml",
                    "/" + "0" * 64,
                )
                assert {stranger.get(path).status_code for path in paths} <= {400, 404}
                assert "immutable" in stranger.get(f"/{digest}").headers["Cache-Control"]
