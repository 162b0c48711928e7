"""Installs that speak only the old protocol, served by a real OMEGA: a client of theirs is a few lines of httpx."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id, new_key
from ashat.node.omega.old_protocol import version_numbers
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Offer, Role
from ashat.rollouts.policy import RolloutPolicy, WaveRule
from tests.support.processes.node import NodeProcess, push, tiny_app
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import licence, mainframe, promote, revoke_licence, roll_back, ship, source

RAOS = '[raos]\nname = "RaCore"\nversion = "{}"\n'


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("omega"), role=Role.OMEGA, app=tiny_app()) as node:
        yield node


@pytest.fixture(scope="module")
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        tree = source(omega.directory, **{"raos.toml": RAOS.format("9.10.0"), "large": "0123456789" * 500_000})
        (tree / "run.sh").write_text("#!/bin/sh\n")
        (tree / "run.sh").chmod(0o755)
        (tree / "empty").mkdir()
        (tree / "also").symlink_to("run.sh")
        ship(found, tree, "UPD-1")
        yield found


def old_licence(client: NodeClient, name: str, expires: datetime | None = None) -> str:
    key = new_key()
    client.put_licence(LicenceRequest(key=key, name=name, expires=expires, old_protocol=True))
    return key


def ask(node: NodeProcess, path: str, headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
    return httpx.get(f"{node.url}/api/updates/{path}", params=query, headers=headers, trust_env=False, timeout=60)


def check(node: NodeProcess, version: str, key: str) -> dict[str, Any]:
    answer = ask(node, "check", version=version, license=key)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert set(found) == {"success", "update"}
    assert found["success"] is True
    return dict(found["update"])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("9.4.1", (9, 4, 1)), ("1.0", (1,)), ("0", (0,)), ("0.0.0", (0,)), ("10.0.0.5", (10, 0, 0, 5)), ("", None),
        ("1.", None), (".1", None), ("1..2", None), ("v1", None), ("1.0-rc1", None), ("-1", None),
        ("1.2.3.4.5.6.7", None), ("٣.1", None), ("9999999999", None), ("1\n", None), (" 1", None),
    ],
)  # fmt: skip
def test_dotted_versions_are_numbers(text: str, numbers: tuple[int, ...] | None) -> None:
    assert version_numbers(text) == numbers


def test_a_check_answers_as_it_did_and_compares_by_number(omega: NodeProcess, client: NodeClient) -> None:
    key = old_licence(client, "Miller")
    found = check(omega, "9.9.12", key)
    assert set(found) == {
        "currentVersion", "latestVersion", "updateAvailable", "changelog", "downloadUrl", "sizeBytes", "releasedAt",
    }  # fmt: skip
    assert (found["currentVersion"], found["latestVersion"], found["changelog"]) == ("9.9.12", "9.10.0", "UPD-1")
    assert datetime.fromisoformat(found["releasedAt"]) <= datetime.now(UTC)
    available = {version: check(omega, version, key)["updateAvailable"] for version in ("9.9", "9.10", "9.10.0", "10")}
    assert available == {"9.9": True, "9.10": False, "9.10.0": False, "10": False}
    archive = httpx.get(f"{omega.url}{found['downloadUrl']}", params={"license": key}, trust_env=False)
    assert len(archive.content) == found["sizeBytes"]


def test_the_archive_is_the_release_the_same_each_time_and_in_parts(omega: NodeProcess, client: NodeClient) -> None:
    key = old_licence(client, "Potter")
    whole = ask(omega, "download/9.10.0", license=key)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "application/zip")
    assert hashlib.sha256(whole.content).hexdigest() == whole.headers["x-checksum-sha256"]
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None
        named = archive.namelist()
        assert named == sorted(named)
        assert {"raos.toml", "app.py", "large", "run.sh", "also", "empty/"} <= set(named)
        assert archive.read("large") == b"0123456789" * 500_000
        assert archive.read("also") == archive.read("run.sh") == b"#!/bin/sh\n"
        modes = {name: archive.getinfo(name).external_attr >> 16 for name in ("run.sh", "large")}
        assert modes == {"run.sh": stat.S_IFREG | 0o755, "large": stat.S_IFREG | 0o644}
    for archives in (omega.data / "archives").iterdir():
        archives.unlink()
    again = ask(omega, "download/9.10", license=key)
    assert again.content == whole.content
    size, etag = len(whole.content), whole.headers["etag"]
    for asked, expected in (
        ("bytes=0-9", whole.content[:10]),
        ("bytes=100-", whole.content[100:]),
        ("bytes=-7", whole.content[-7:]),
    ):
        part = ask(omega, "download/9.10.0", {"Range": asked, "If-Range": etag}, license=key)
        assert (part.status_code, part.content) == (206, expected)
        assert part.headers["content-range"].endswith(f"/{size}")
    changed = ask(omega, "download/9.10.0", {"Range": "bytes=5-", "If-Range": '"of another archive"'}, license=key)
    assert (changed.status_code, len(changed.content)) == (200, size)
    beyond = ask(omega, "download/9.10.0", {"Range": f"bytes={size}-"}, license=key)
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert set(beyond.json()) == {"error"}


def test_whoever_has_no_licence_for_it_gets_nothing(omega: NodeProcess, client: NodeClient) -> None:
    revoked = old_licence(client, "Tanner")
    revoke_licence(client, licence_id(revoked))
    refused = {
        "none": "",
        "no key": "RACORE-1",
        "unknown": new_key(),
        "expired": old_licence(client, "Cooper", datetime.now(UTC) - timedelta(seconds=1)),
        "revoked": revoked,
        "not opted in": licence(client, "Baker"),
    }
    for what, key in refused.items():
        for path in ("check", "download/9.10.0"):
            answer = ask(omega, path, version="9.9", license=key)
            assert (what, path, answer.status_code, set(answer.json())) == (what, path, 403, {"error"})
            assert not key or key not in answer.text
    known = licence(client, "Smith")
    ashat_node("licence", "old-protocol", licence_id(known), "--allow", "--data", omega.data)
    assert check(omega, "1", known)["updateAvailable"]
    assert "UNVERIFIED" in ashat_node("licence", "list", "--data", omega.data).stdout
    ashat_node("licence", "old-protocol", licence_id(known), "--refuse", "--data", omega.data)
    assert ask(omega, "check", version="1", license=known).status_code == 403


@pytest.mark.parametrize("version", ["", "latest", "1.0-rc1", "1..2", "../../etc/passwd", "9" * 40, "1\x00"])
def test_a_version_that_is_none_is_refused(omega: NodeProcess, client: NodeClient, version: str) -> None:
    key = old_licence(client, "Weaver")
    answer = ask(omega, "check", version=version, license=key)
    assert (answer.status_code, set(answer.json())) == (400, {"error"})


def test_another_version_than_the_offered_one_is_not_served(omega: NodeProcess, client: NodeClient) -> None:
    key = old_licence(client, "Carver")
    assert ask(omega, "download/9.9.0", license=key).status_code == 404
    assert ask(omega, "download/newest", license=key).status_code == 400


def test_what_it_says_counts_unverified_and_changes_with_what_it_says(omega: NodeProcess, client: NodeClient) -> None:
    key = old_licence(client, "Dyer")
    check(omega, "9.9", key)
    silent = mainframe(client, key)
    assert (silent.result, silent.old_protocol, silent.last_seen is not None) == ("none", True, True)
    check(omega, "9.10", key)
    runs = mainframe(client, key)
    current = client.state().current
    assert current
    assert (runs.result, runs.release_seq, runs.bundle) == ("running", current.release_seq, current.bundle)
    assert runs.reason == "UNVERIFIED: by the old protocol it says that it runs 9.10"
    check(omega, "9.9", key)
    went_back = mainframe(client, key)
    assert (went_back.result, went_back.reason[:10]) == ("failed", "UNVERIFIED")
    check(omega, "9.9", key)
    told = client.mainframe_reports(licence_id(key))
    assert [report.result for report in told] == ["failed", "running"]


def test_no_log_has_the_key(omega: NodeProcess, client: NodeClient) -> None:
    key = old_licence(client, "Chandler")
    check(omega, "9.9", key)
    ask(omega, "download/9.10.0", license=key)
    ask(omega, f"download/{key}", license=key)
    secret = key.removeprefix("RACORE-")
    kept = [file for file in omega.directory.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
    assert kept == []
    assert secret not in omega.log()


def test_after_a_rollback_the_release_before_is_offered(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as node, node.client() as client:
        key = old_licence(client, "Sailor")
        assert ask(node, "check", version="1", license=key).status_code == 404
        for version in ("1.0", "2.0-rc1"):
            ship(client, source(node.directory, **{"raos.toml": RAOS.format(version)}))
        assert check(node, "1.0", key)["updateAvailable"]
        assert check(node, "2.0-rc1", key)["updateAvailable"] is False
        assert ask(node, "download/2.0-rc1", license=key).status_code == 200
        roll_back(client)
        assert check(node, "0.9", key)["latestVersion"] == "1.0"


def test_an_install_is_offered_a_release_in_its_wave_as_any_other(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as omega, omega.client() as client:
        keys = {name: old_licence(client, name) for name in ("Early", "Late")}
        client.label(licence_id(keys["Early"]), {"ring": "internal"})
        tree = source(tmp_path, **{"raos.toml": '[raos]\nname = "tiny"\nversion = "2.0"\n'})
        current = promote(client, push(client, tree), "UPD-2")
        policy = RolloutPolicy(
            waves=(WaveRule(name="internal", label="ring=internal"), WaveRule(name="rest", rest=True))
        )
        client.begin_rollout("r", Offer.model_validate(current, from_attributes=True), policy)

        def told(name: str) -> tuple[bool, int]:
            found = check(omega, "1.0", keys[name])
            return found["updateAvailable"], ask(omega, "download/2.0", license=keys[name]).status_code

        assert [told(name) for name in keys] == [(False, 404), (False, 404)]
        client.open_waves("r", 0, "the first")
        assert [told(name) for name in keys] == [(True, 200), (False, 404)]
        check(omega, "2.0", keys["Early"])
        assert [wave.counts.succeeded for wave in client.rollout("r").waves] == [1, 0]
        client.decide_rollout("r", "pause", "look")
        client.decide_rollout("r", "resume", "on")
        client.open_waves("r", 1, "the rest")
        assert told("Late") == (True, 200)
        assert client.rollout("r").waves[1].counts.failed == 0
