"""OMEGA's repository: what it takes in, in which order it writes, and what a crash between two files leaves."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashat.errors import (
    AshatError,
    MalformedMetadataError,
    MixAndMatchError,
    NoReleaseError,
    RolledBackError,
    TrustError,
    UnsignedError,
)
from ashat.trust.keys.files import create_key, load_signer
from ashat.trust.release.repository import OnlineKeys, Repository
from ashat.trust.tuf.metadata import Holders, build_production, build_targets
from tests.support.builders.trust_world import World, document, held_by, key_pair, mainframe, serving
from tests.support.processes.forks import FORKS

PUBLISH = """
import os, signal, sys
from pathlib import Path
from ashat.trust.release import repository
from ashat.trust.keys.files import load_signer
home, deaths = Path(sys.argv[1]), int(sys.argv[2])
written = repository.replace_file
def replace_file(path, content):
    global deaths
    if deaths == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    deaths -= 1
    written(path, content)
repository.replace_file = replace_file
online = repository.OnlineKeys(load_signer(home / "snapshot.pem"), load_signer(home / "timestamp.pem"))
held = repository.Repository(home / "repository", target="omega")
if sys.argv[3] == "publish":
    held.publish((home / "approval").read_bytes(), (home / "document").read_bytes(), online)
else:
    held.install(online, root=(home / "root").read_bytes(), targets=(home / "targets").read_bytes())
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With online keys as files, so that another process can publish."""
    for name in ("snapshot", "timestamp"):
        create_key(tmp_path / f"{name}.pem", name, None)
    online = OnlineKeys(load_signer(tmp_path / "snapshot.pem"), load_signer(tmp_path / "timestamp.pem"))
    return World(tmp_path / "repository", online=online)


def _run(home: Path, deaths: int, what: str) -> int:
    return FORKS.run(["-c", PUBLISH, str(home), str(deaths), what], timeout=180).returncode


def test_a_crash_between_two_files_leaves_the_old_release_and_the_next_try_ends_it(
    world: World, tmp_path: Path
) -> None:
    world.publish(document(1))
    second = document(2)
    (tmp_path / "approval").write_bytes(world.approve(second).to_bytes())
    (tmp_path / "document").write_bytes(second.to_bytes())
    with serving(world.directory) as server:
        for deaths in range(4):
            assert _run(tmp_path, deaths, "publish") == -signal.SIGKILL
            with mainframe(server, world, tmp_path / f"cache-{deaths}") as client:
                assert client.latest_release("stable").release_seq == 1
            assert world.repository.release("stable").release_seq == 1
        assert _run(tmp_path, 4, "publish") == 0
        with mainframe(server, world, tmp_path / "cache-0") as client:
            assert client.latest_release("stable") == second
    files = {path: path.read_bytes() for path in world.directory.rglob("*") if path.is_file()}
    assert _run(tmp_path, 0, "publish") == 0
    assert {path: path.read_bytes() for path in world.directory.rglob("*") if path.is_file()} == files


def test_a_crash_while_the_root_changes_is_ended_by_the_next_try(world: World, tmp_path: Path) -> None:
    world.publish(document(1))
    root, targets = world.offline(world.approvers)
    (tmp_path / "root").write_bytes(root)
    (tmp_path / "targets").write_bytes(targets)
    with serving(world.directory) as server:
        for deaths in range(4):
            assert _run(tmp_path, deaths, "install") == -signal.SIGKILL
            with mainframe(server, world, tmp_path / "cache") as client:
                assert client.latest_release("stable").release_seq == 1
        assert _run(tmp_path, 4, "install") == 0
        with mainframe(server, world, tmp_path / "cache") as client:
            assert client.latest_release("stable").release_seq == 1
    assert world.repository.read().targets.signed.version == 2


def test_the_plan_writes_what_is_asked_for_first_and_the_timestamp_last(world: World) -> None:
    made = document(1)
    approved = world.approve(made)
    state = world.repository.read()
    writes = world.repository.plan_publish(state, approved.to_bytes(), made, world.online, datetime.now(UTC))
    digest = approved.signed.targets[made.path].hashes["sha256"]
    assert [name for name, _ in writes] == [
        f"targets/production/stable/{digest}.release.json",
        "1.production.json",
        "2.snapshot.json",
        "timestamp.json",
    ]
    assert world.repository.read() == state


def test_a_version_or_a_release_seq_that_is_not_above_is_refused(world: World) -> None:
    first = world.approve(document(3))
    made = document(3)
    world.repository.publish(first.to_bytes(), made.to_bytes(), world.online)
    again = build_production(None, document(4), lifetime=999, now=datetime.now(UTC))
    for approver in world.approvers:
        again.sign(approver, append=True)
    with pytest.raises(RolledBackError, match="production version 1 does not follow version 1"):
        world.repository.publish(again.to_bytes(), document(4).to_bytes(), world.online)
    for seq, channel in ((3, "stable"), (2, "beta")):
        low = document(seq, channel=channel, update_id="UPD-9")
        with pytest.raises(RolledBackError, match=f"UPD-9 has the release_seq {seq}, and 4 is the lowest to accept"):
            world.repository.publish(world.approve(low).to_bytes(), low.to_bytes(), world.online)
    assert world.repository.highest_release_seq() == 3
    assert world.repository.release("stable").update_id == "UPD-3"
    with pytest.raises(NoReleaseError, match="released on beta yet"):
        world.repository.release("beta")


def test_approvers_hand_their_power_to_nobody(world: World) -> None:
    made = document(1)
    approved = world.approve(made)
    mine = held_by(Holders([key_pair("mallory").public_key]))
    approved.signed.delegations = build_targets(mine, lifetime=999, now=datetime.now(UTC)).signed.delegations
    approved.signatures.clear()
    for approver in world.approvers:
        approved.sign(approver, append=True)
    with pytest.raises(MalformedMetadataError, match="hands its power on"):
        world.repository.publish(approved.to_bytes(), made.to_bytes(), world.online)


def test_an_approval_is_renewed_without_a_new_release(world: World) -> None:
    world.publish(document(1))
    later = datetime.now(UTC) + timedelta(days=20)
    longer = world.approve(None, now=later)
    world.repository.install(world.online, production=longer.to_bytes(), now=later)
    world.repository.install(world.online, production=longer.to_bytes(), now=later)
    assert world.repository.read().production == longer
    sneaked = world.approve(document(2))
    with pytest.raises(MixAndMatchError, match="changes a release"):
        world.repository.install(world.online, production=sneaked.to_bytes(), now=later)


def test_the_timestamp_is_renewed_often_and_the_snapshot_seldom(world: World) -> None:
    world.publish(document(1))
    before = world.repository.read()
    assert before.snapshot
    assert before.timestamp
    end = world.repository.renew(world.online)
    assert end > datetime.now(UTC) + timedelta(hours=23)
    after = world.repository.read()
    assert after.timestamp
    assert after.timestamp.signed.version == before.timestamp.signed.version + 1
    assert after.snapshot == before.snapshot
    world.repository.renew(world.online, now=datetime.now(UTC) + timedelta(days=4))
    last = world.repository.read()
    assert last.snapshot
    assert last.snapshot.signed.version == before.snapshot.signed.version + 1


def test_a_key_that_the_root_does_not_know_signs_no_timestamp(world: World) -> None:
    stolen = OnlineKeys(key_pair("snapshot"), key_pair("timestamp"))
    with pytest.raises(UnsignedError, match="may not sign timestamp"):
        world.repository.renew(stolen)


def test_a_directory_that_is_no_repository_is_told_as_such(world: World, tmp_path: Path) -> None:
    empty = Repository(tmp_path / "empty")
    assert not empty.exists()
    for ask in (empty.read, empty.highest_release_seq, lambda: empty.install(world.online)):
        with pytest.raises(NoReleaseError):
            ask()
    (world.directory / "1.targets.json").unlink()
    with pytest.raises(NoReleaseError, match=r"no 1\.targets\.json"):
        world.repository.read()
    (world.directory / "1.targets.json").mkdir()
    with pytest.raises(TrustError, match="cannot be read"):
        world.repository.read()


def test_of_two_who_publish_at_once_one_succeeds(world: World) -> None:
    ends: list[AshatError | int] = []
    start = threading.Barrier(2)
    documents = {seq: document(seq) for seq in (1, 2)}
    approved = {seq: world.approve(made).to_bytes() for seq, made in documents.items()}

    def publish(seq: int) -> None:
        made = documents[seq]
        start.wait()
        try:
            ends.append(Repository(world.directory).publish(approved[seq], made.to_bytes(), world.online).release_seq)
        except AshatError as error:
            ends.append(error)

    threads = [threading.Thread(target=publish, args=(seq,)) for seq in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(end).__name__ for end in ends) == ["RolledBackError", "int"]
