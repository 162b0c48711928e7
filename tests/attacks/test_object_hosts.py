"""OMEGA sends Mainframes to another host for objects: that host learns nothing, and nothing of it is believed."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.client import elsewhere as module
from ashat.client.elsewhere import Elsewhere, Part
from ashat.client.fetching import fetch_part
from ashat.client.http import Transport
from ashat.client.transfer import TransferReport, pull_bundle
from ashat.node.mainframe.omega_client import PREFIX
from ashat.node.store.store import Store
from ashat.protocol.frames import frame_header
from ashat.protocol.messages import Role
from tests.node.test_mainframe import Install
from tests.support.fakes import object_host as hosts
from tests.support.fakes.object_host import Misbehaviour, ObjectHost, object_host, saying
from tests.support.processes.node import NodeProcess, tiny_app
from tests.support.processes.omega import licence, ship, source

KEPT_FROM_IT = {"host", "accept", "accept-encoding", "connection", "user-agent", "range"}
WHERE = "objects come from OMEGA itself"


class Redirecting:
    """An OMEGA that sends Mainframes to a host, the key of one, and what it offers."""

    def __init__(self, node: NodeProcess, host: ObjectHost, key: str, bundle: str) -> None:
        self.node, self.host, self.key, self.bundle = node, host, key, bundle

    def pull(self, store: Store, elsewhere: Elsewhere) -> TransferReport:
        with Transport(self.node.url, licence=self.key) as transport:
            return pull_bundle(transport, self.bundle, store, prefix=PREFIX, elsewhere=elsewhere)


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redirecting]:
    directory = tmp_path_factory.mktemp("redirecting")
    with object_host(directory / "omega" / "data" / "store") as host:
        settings = {"objects": {"redirect": host.url + "/{digest}"}}
        with (
            NodeProcess(directory / "omega", role=Role.OMEGA, app=tiny_app(), settings=settings) as node,
            node.client() as client,
        ):
            host.store = node.data / "store"
            release = source(directory, **{f"f{number}": f"{number}" * number for number in range(1, 40)})
            (release / "large").write_bytes(os.urandom(6 << 20))
            bundle = ship(client, release).bundle
            yield Redirecting(node, host, licence(client, "miller"), bundle)


@pytest.fixture
def elsewhere(omega: Redirecting) -> Iterator[Elsewhere]:
    made = Elsewhere(omega.node.url, None)
    yield made
    made.close()


def objects_of(omega: Redirecting) -> dict[str, int]:
    with omega.node.client() as client:
        return dict(client.manifest(omega.bundle).objects)


def test_every_object_comes_from_there_and_no_licence_goes_there(
    omega: Redirecting, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    omega.host.reset()
    with Store(tmp_path / "store") as store:
        omega.pull(store, elsewhere)
        assert store.has_bundle(omega.bundle)
    assert sorted(path.strip("/") for path, _ in omega.host.requests) == sorted(objects_of(omega))
    for path, headers in omega.host.requests:
        assert {name.lower() for name in headers} <= KEPT_FROM_IT, headers
        assert omega.key not in f"{path} {headers}"
        assert "RACORE" not in f"{path} {headers}"


BAD: dict[str, Misbehaviour] = {
    "404": saying(404),
    "500": saying(500, b"<html>"),
    "403 in words": saying(403, b"no"),
    "a page": saying(200, b"<html>welcome</html>"),
    "nothing": saying(204),
    "on to another host": saying(302, Location="http://127.0.0.1:9/x"),
    "on to a file": saying(307, Location="file:///etc/passwd"),
    "compressed": saying(200, b"x", Content_Encoding="gzip"),
    "a length of a terabyte": saying(200, b"x", Content_Length="1099511627776"),
    "other bytes": hosts.other_bytes,
    "cut": hosts.cut,
    "endless": hosts.endless,
    "dripping": hosts.dripping,
    "silent": hosts.silent,
    "rubbish": hosts.rubbish,
}


@pytest.mark.parametrize("how", BAD)
def test_whatever_goes_wrong_there_the_release_comes_from_omega_and_it_is_said_once(
    omega: Redirecting,
    elsewhere: Elsewhere,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.7)
    omega.host.reset(BAD[how])
    began = time.monotonic()
    with Store(tmp_path / "store") as store, caplog.at_level(logging.INFO):
        omega.pull(store, elsewhere)
        assert store.has_bundle(omega.bundle)
        assert not store.missing(objects_of(omega))
    said = [record for record in caplog.records if WHERE in record.getMessage()]
    assert len(said) == 1, caplog.text
    assert "127.0.0.1" in said[0].getMessage()
    assert time.monotonic() - began < 15
    assert len(omega.host.requests) <= 12  # it is left alone soon
    assert not elsewhere.follows()


def test_one_object_that_is_not_there_yet_comes_from_omega_and_the_rest_from_there(
    omega: Redirecting, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    lost = hashlib.sha256(b"7777777").hexdigest()
    omega.host.reset(hosts.only_for(lost, saying(404)))
    with Store(tmp_path / "store") as store:
        omega.pull(store, elsewhere)
        assert store.has_bundle(omega.bundle)
    assert len(omega.host.requests) == len(objects_of(omega))
    assert elsewhere.follows()


@pytest.mark.parametrize("how", ["well", "ignores the range", "other bytes", "404"])
def test_the_rest_of_an_object_that_was_cut_is_asked_for_there_too(
    omega: Redirecting, elsewhere: Elsewhere, how: str
) -> None:
    omega.host.reset({"ignores the range": hosts.whole, "other bytes": hosts.other_bytes, "404": saying(404)}.get(how))
    digest, size = max(objects_of(omega).items(), key=lambda one: one[1])
    fed: list[bytes] = []
    with Transport(omega.node.url, licence=omega.key) as transport:
        part = Part([(digest, size)], PREFIX, begun=1000)
        fetch_part(transport, part, fed.extend, lambda _: None, elsewhere)
    content = (omega.host.store / "objects" / digest[:2] / digest[2:]).read_bytes()
    assert (b"".join(fed) == content[1000:]) == (how != "other bytes")
    assert [headers.get("Range") for _, headers in omega.host.requests] == ["bytes=1000-"]


def test_a_beginning_whose_rest_is_wrong_there_is_forgotten_and_the_object_comes_whole(
    omega: Redirecting, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    digest, size = max(objects_of(omega).items(), key=lambda one: one[1])
    content = (omega.host.store / "objects" / digest[:2] / digest[2:]).read_bytes()
    omega.host.reset(hosts.only_for(digest, hosts.other_bytes))
    with Store(tmp_path / "store") as store:
        with store.receive() as incoming:
            incoming.feed([frame_header(digest, size), content[: 1 << 20]])
        assert store.beginnings([digest]) == {digest: 1 << 20}
        omega.pull(store, elsewhere)
        assert store.has_bundle(omega.bundle)


@pytest.mark.parametrize(
    ("own", "address", "why"),
    [
        ("http://127.0.0.1:1", "file:///etc/{digest}", "names one host"),
        ("http://127.0.0.1:1", "ftp://127.0.0.1/{digest}", "begins with https://"),
        ("http://127.0.0.1:1", "http://169.254.169.254/{digest}", "of the link alone"),
        ("http://127.0.0.1:1", "http://[fe80::1]/{digest}", "of the link alone"),
        ("http://127.0.0.1:1", "http://[::ffff:169.254.169.254]/{digest}", "of the link alone"),
        ("http://127.0.0.1:1", "http://[64:ff9b::a9fe:a9fe]/{digest}", "of the link alone"),
        ("http://127.0.0.1:1", "http://0.0.0.0/{digest}", "of the link alone"),
        ("https://127.0.0.1:1", "http://127.0.0.1:{port}/{digest}", "begins with https://"),
        ("http://10.1.1.1", "http://127.0.0.1:{port}/{digest}", "nearer than OMEGA"),
        ("http://10.1.1.1", "http://localhost:{port}/{digest}", "no address to which OMEGA may send"),
        ("http://1.1.1.1", "http://10.1.1.1/{digest}", "nearer than OMEGA"),
        ("http://127.0.0.1:1", "http://me:secret@127.0.0.1:{port}/{digest}", "no user"),
        ("http://127.0.0.1:1", "http://{digest}.example/", "names one host"),
        ("http://127.0.0.1:1", "http://127.0.0.1:{port}/x", "lacks {digest}"),
        ("http://127.0.0.1:1", "http://127.0.0.1:{port}/{digest}\r\nX: y", "none that a URL cannot have"),
        ("http://127.0.0.1:1", "http://127.0.0.1:99999/{digest}", "names one host"),
    ],
)
def test_where_omega_may_not_send_a_mainframe_it_does_not_go(
    omega: Redirecting, own: str, address: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    omega.host.reset()
    made = Elsewhere(own, None)
    batch = list(objects_of(omega).items())[:2]
    port = omega.host.url.rpartition(":")[2]
    with caplog.at_level(logging.WARNING):
        left = made.move(address.replace("{port}", port), Part(batch), lambda _: None, lambda _: None)
    assert left == batch
    assert omega.host.requests == []
    assert not made.follows()
    assert why in caplog.text
    assert "secret" not in caplog.text


def test_a_mainframe_installs_from_there_and_from_omega_once_that_is_broken(omega: Redirecting, tmp_path: Path) -> None:
    omega.host.reset()
    with omega.node.client() as client:
        current = client.state().current
        assert current
        with Install(tmp_path / "baker", omega.node) as baker:
            baker.wait_until_runs(current)
            assert len(omega.host.requests) == len(objects_of(omega))
            assert all({name.lower() for name in headers} <= KEPT_FROM_IT for _, headers in omega.host.requests)
            assert WHERE not in baker.log()
        omega.host.reset(hosts.other_bytes)
        with Install(tmp_path / "smith", omega.node) as smith:
            smith.wait_until_runs(current)
            assert smith.log().count(WHERE) == 1
