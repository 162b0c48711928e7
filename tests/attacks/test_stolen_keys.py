"""What a thief of OMEGA's storage, of its online keys, or of one approver's key can do: nothing but deny."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets, Timestamp

from ashat.errors import (
    AshatError,
    KeyPolicyError,
    MalformedMetadataError,
    MixAndMatchError,
    NodeAuthError,
    NodeFaultError,
    NodeRefusedError,
    NodeUnreachableError,
    NoReleaseError,
    OversizedError,
    RolledBackError,
    SignatureExpiredError,
    TrustError,
    UnsignedError,
)
from ashat.trust.tuf.metadata import Holders, build_snapshot, build_targets, build_timestamp
from ashat.trust.update_client.client import ReleaseClient
from tests.support.builders.trust_world import (
    Server,
    World,
    document,
    held_by,
    key_pair,
    mainframe,
    refused,
    reply,
    restore,
    saved,
    serving,
)


def test_a_mainframe_gets_what_was_approved_and_asks_little_when_nothing_is_new(
    world: World, server: Server, client: ReleaseClient
) -> None:
    refused(client, NoReleaseError, "Nothing was released on stable")
    first, second = document(1), document(2, channel="beta")
    world.publish(first)
    assert client.latest_release("stable") == first
    refused(client, NoReleaseError, channel="beta")
    world.publish(second, world.approvers[1], world.approvers[2])
    assert client.latest_release("beta") == second
    assert client.latest_release("stable") == first
    server.asked.clear()
    assert client.latest_release("stable") == first
    assert server.asked == ["/2.root.json", "/timestamp.json"]
    assert client.highest_release_seq("stable") == 1


def test_one_of_two_signatures_is_not_enough(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    alone = world.approve(document(2), world.approvers[0])
    with pytest.raises(UnsignedError, match=r"1 of 2 needed \(kim\); missing: lee, noa"):
        world.repository.publish(alone.to_bytes(), document(2).to_bytes(), world.online)
    world.sign_online(production=alone.to_bytes())
    refused(client, UnsignedError, "1/2 keys")


def test_a_signature_of_nobody_counts_for_nothing(world: World, client: ReleaseClient) -> None:
    stranger = world.approve(document(1), world.approvers[0], key_pair("kim"))
    with pytest.raises(UnsignedError, match="1 of 2"):
        world.repository.publish(stranger.to_bytes(), document(1).to_bytes(), world.online)
    world.sign_online(production=stranger.to_bytes())
    refused(client, UnsignedError)


def test_the_online_keys_sign_no_release(world: World, client: ReleaseClient) -> None:
    forged = world.approve(document(1), world.online.snapshot, world.online.timestamp)  # type: ignore[arg-type]
    world.sign_online(production=forged.to_bytes())
    refused(client, UnsignedError, "0/2 keys")


def test_a_removed_approver_signs_nothing_any_more(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    assert client.latest_release("stable").release_seq == 1
    kim, lee, noa = world.approvers
    root, targets = world.offline([lee, noa])
    again = world.approve(None, lee, noa)
    with pytest.raises(UnsignedError, match=r"1 of 2 needed \(lee\); missing: noa"):
        world.repository.install(world.online, root=root, targets=targets)
    world.repository.install(world.online, root=root, targets=targets, production=again.to_bytes())
    assert client.latest_release("stable").release_seq == 1
    stale = world.approve(document(2), kim, lee)
    with pytest.raises(UnsignedError, match="1 of 2"):
        world.repository.publish(stale.to_bytes(), document(2).to_bytes(), world.online)
    world.sign_online(production=stale.to_bytes())
    refused(client, UnsignedError, "1/2 keys")


def test_one_key_under_two_ids_is_one_key(world: World, client: ReleaseClient) -> None:
    twice = world.approvers[0]
    other = SSlibKey("another-id", "ed25519", "ed25519", dict(twice.public_key.keyval))
    targets: Metadata[Targets] = Metadata.from_bytes(world.offline(world.approvers)[1])
    assert targets.signed.delegations
    keys = {twice.public_key.keyid: twice.public_key, other.keyid: other}
    role = DelegatedRole("production", list(keys), 2, True, ["production/*/release.json"])
    targets.signed.delegations = Delegations(keys, {"production": role})
    targets.signatures.clear()
    for signer in world.held:
        targets.sign(signer, append=True)
    approved = world.approve(document(1), twice)
    signature = approved.signatures[twice.public_key.keyid].to_dict() | {"keyid": other.keyid}
    approved.signatures[other.keyid] = type(approved.signatures[twice.public_key.keyid]).from_dict(signature)
    with pytest.raises(KeyPolicyError, match="one and the same key"):
        world.repository.install(world.online, targets=targets.to_bytes(), production=approved.to_bytes())
    world.force("targets/" + approved.signed.targets[document(1).path].get_prefixed_paths()[0], document(1).to_bytes())
    world.sign_online(targets=targets.to_bytes(), production=approved.to_bytes())
    refused(client, KeyPolicyError, "one and the same key")


def test_what_was_there_before_does_not_come_back(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    old = saved(world)
    world.publish(document(2))
    assert client.latest_release("stable").release_seq == 2
    restore(world, old)
    refused(client, RolledBackError, "must be >=")


def test_a_snapshot_of_an_older_version_does_not_come_back(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    world.publish(document(2))
    client.latest_release("stable")
    state = world.repository.read()
    now = datetime.now(UTC)
    old = (2, (world.directory / "2.snapshot.json").read_bytes())
    timestamp = build_timestamp(state.timestamp, old, lifetime=999, now=now)
    timestamp.sign(world.online.timestamp)
    world.force("timestamp.json", timestamp.to_bytes())
    refused(client, RolledBackError, "New snapshot version must be >=")


@pytest.mark.parametrize("role", ["production", "targets"])
def test_signed_metadata_of_an_older_version_does_not_come_back(world: World, client: ReleaseClient, role: str) -> None:
    world.publish(document(1))
    root, targets = world.offline(world.approvers)
    world.repository.install(world.online, root=root, targets=targets)
    world.publish(document(2))
    client.latest_release("stable")
    world.sign_online(**{role: (world.directory / f"1.{role}.json").read_bytes()})
    refused(client, RolledBackError, f"{role}.json version")


def test_a_role_that_vanishes_from_the_snapshot_is_a_rollback(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    client.latest_release("stable")
    state = world.repository.read()
    files = {"targets": (1, state.raw["targets"])}
    now = datetime.now(UTC)
    snapshot = build_snapshot(state.snapshot, files, lifetime=999, now=now)
    snapshot.sign(world.online.snapshot)
    timestamp = build_timestamp(state.timestamp, (3, snapshot.to_bytes()), lifetime=999, now=now)
    timestamp.sign(world.online.timestamp)
    world.force("3.snapshot.json", snapshot.to_bytes())
    world.force("timestamp.json", timestamp.to_bytes())
    refused(client, RolledBackError, "without a file that was accepted")


def test_a_root_of_an_older_version_is_not_taken_as_the_next(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    world.force("2.root.json", (world.directory / "1.root.json").read_bytes())
    refused(client, MixAndMatchError, "Expected root version 2 instead got version 1")


def test_a_root_signed_by_too_few_of_the_holders_before_is_refused(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    mine = World(world.directory.parent / "mine")
    forged, _ = mine.offline(mine.approvers)
    with pytest.raises(UnsignedError, match=r"0 of 2 needed \(nobody\); missing: omar, ruth"):
        world.repository.install(world.online, root=forged)
    world.force("2.root.json", forged)
    refused(client, UnsignedError, "0/2 keys")


def test_a_withheld_update_is_noticed_when_the_timestamp_ends(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    state = world.repository.read()
    assert state.snapshot
    past = datetime.now(UTC) - timedelta(days=2)
    named = (state.snapshot.signed.version, state.raw["snapshot"])
    timestamp = build_timestamp(state.timestamp, named, lifetime=86400, now=past)
    timestamp.sign(world.online.timestamp)
    world.force("timestamp.json", timestamp.to_bytes())
    refused(client, SignatureExpiredError, "timestamp.json is expired")
    world.repository.renew(world.online)
    assert client.latest_release("stable").release_seq == 1


@pytest.mark.parametrize("role", ["production", "document"])
def test_an_approval_ends(world: World, client: ReleaseClient, role: str) -> None:
    past = datetime.now(UTC) - timedelta(days=9)
    late = document(1, expires=past) if role == "document" else document(1)
    lifetime = 99 * 86400 if role == "document" else 60
    metadata = world.approve(late, now=past, lifetime=lifetime)
    if role == "document":
        metadata.signed.expires = datetime.now(UTC) + timedelta(days=9)
        metadata.signatures.clear()
        for signer in world.approvers[:2]:
            metadata.sign(signer, append=True)
    with pytest.raises(SignatureExpiredError, match="anew"):
        world.repository.publish(metadata.to_bytes(), late.to_bytes(), world.online)
    world.force("targets/" + metadata.signed.targets[late.path].get_prefixed_paths()[0], late.to_bytes())
    world.sign_online(production=metadata.to_bytes())
    refused(client, SignatureExpiredError)


def test_files_that_were_not_published_together_do_not_mix(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    old = (world.directory / "2.snapshot.json").read_bytes()
    world.publish(document(2))
    world.force("3.snapshot.json", old)
    refused(client, MixAndMatchError)


def test_production_metadata_of_another_version_does_not_mix(world: World, client: ReleaseClient) -> None:
    world.publish(document(1))
    world.publish(document(2))
    world.force("2.production.json", (world.directory / "1.production.json").read_bytes())
    refused(client, MixAndMatchError)


def test_a_tampered_document_is_refused_by_all(world: World, client: ReleaseClient) -> None:
    made = document(1)
    approved = world.approve(made)
    other = document(1, bundle="f" * 64)
    with pytest.raises(MixAndMatchError, match="does not name this release"):
        world.repository.publish(approved.to_bytes(), other.to_bytes(), world.online)
    world.publish(made)
    next((world.directory / "targets/production/stable").iterdir()).write_bytes(other.to_bytes())
    refused(client, MixAndMatchError, "not the one that was signed")
    with pytest.raises(MixAndMatchError, match="not the release document that was signed"):
        world.repository.release("stable")


def test_approvers_hand_their_power_to_nobody_whom_a_mainframe_would_believe(
    world: World, client: ReleaseClient
) -> None:
    made = document(1)
    approved = world.approve(made)
    thief = held_by(Holders([key_pair("mallory").public_key]))
    approved.signed.delegations = build_targets(thief, lifetime=999, now=datetime.now(UTC)).signed.delegations
    approved.signatures.clear()
    for signer in world.approvers:
        approved.sign(signer, append=True)
    world.force("targets/" + made.target_file.get_prefixed_paths()[0], made.to_bytes())
    world.sign_online(production=approved.to_bytes())
    refused(client, MalformedMetadataError, "hands its power on")


def test_an_approval_is_for_one_omega_and_one_channel(world: World, client: ReleaseClient) -> None:
    other = document(1, target="omega-eu")
    approved = world.approve(other)
    with pytest.raises(MixAndMatchError, match="approved for omega-eu"):
        world.repository.publish(approved.to_bytes(), other.to_bytes(), world.online)
    world.force("targets/" + approved.signed.targets[other.path].get_prefixed_paths()[0], other.to_bytes())
    world.sign_online(production=approved.to_bytes())
    refused(client, MixAndMatchError, "approved for omega-eu")


def test_a_release_of_one_channel_is_not_served_as_that_of_another(world: World, client: ReleaseClient) -> None:
    """Whoever is on stable is not given what was approved for beta, though enough people signed it under that name."""
    beta = document(1, channel="beta")
    approved = world.approve(beta)
    named = approved.signed.targets.pop(beta.path)
    approved.signed.targets["production/stable/release.json"] = named
    approved.signatures.clear()
    for signer in world.approvers:
        approved.sign(signer, append=True)
    with pytest.raises(MixAndMatchError, match="does not name this release"):
        world.repository.publish(approved.to_bytes(), beta.to_bytes(), world.online)
    (digest,) = named.hashes.values()
    world.force(f"targets/production/stable/{digest}.release.json", beta.to_bytes())
    world.sign_online(production=approved.to_bytes())
    refused(client, MixAndMatchError, "is about another channel: beta, not stable")
    refused(client, NoReleaseError, channel="beta")


def _regions(tmp_path: Path, *, named: bool) -> tuple[World, World]:
    """Two OMEGAs of the same people, who hold root and targets of both."""
    here = World(tmp_path / "here", named=named)
    return here, World(tmp_path / "there", here.held, here.approvers, target="omega-eu", named=named)


@pytest.mark.parametrize("offline", [False, True], ids=["the approval", "root and targets, too"])
def test_an_approval_for_another_region_is_not_replayed(tmp_path: Path, offline: bool) -> None:
    """A thief of OMEGA's online keys serves what the same people signed for another OMEGA."""
    here, there = _regions(tmp_path, named=True)
    there.publish(document(1, target="omega-eu"))
    theirs = document(2, target="omega-eu")
    there.publish(theirs)
    if offline:
        for _ in range(2):
            root, targets = there.offline(there.approvers)
            there.repository.install(there.online, root=root, targets=targets)
        served = there.directory
        for name in ("1.root.json", "1.targets.json"):
            there.force(name, (here.directory / name).read_bytes())
    else:
        served, state = here.directory, there.repository.read()
        here.force(f"targets/{state.production.signed.targets[theirs.path].get_prefixed_paths()[0]}", theirs.to_bytes())  # type: ignore[union-attr]
        here.sign_online(production=state.raw["production"])
    with serving(served) as server, mainframe(server, here, tmp_path / "cache", target="") as client:
        refused(client, MixAndMatchError, "approved for omega-eu, and not for omega")
        assert not (tmp_path / "cache/accepted.json").exists()
    if offline:
        here.publish(document(1))
        with serving(here.directory) as server, mainframe(server, here, tmp_path / "cache", target="") as client:
            refused(client, UnsignedError)
            shutil.rmtree(tmp_path / "cache/metadata")
            assert client.latest_release("stable").target == "omega"


def test_targets_of_another_region_are_not_taken(tmp_path: Path) -> None:
    here, there = _regions(tmp_path, named=True)
    there.publish(document(1, target="omega-eu"))
    root, targets = there.offline(there.approvers)
    before = saved(here)
    with pytest.raises(MixAndMatchError, match="signed as targets is for omega-eu, and this is omega"):
        here.repository.install(here.online, targets=targets)
    with pytest.raises(MixAndMatchError, match="signed as root is for omega-eu, and this is omega"):
        here.repository.install(here.online, root=root)
    assert saved(here).items() >= before.items()
    here.publish(document(1))
    here.sign_online(targets=targets)
    with serving(here.directory) as server, mainframe(server, here, tmp_path / "cache", target="") as client:
        refused(client, MixAndMatchError, "approved for omega, and not for omega-eu")


def test_a_root_from_before_is_of_the_omega_of_the_first_release(tmp_path: Path) -> None:
    here, there = _regions(tmp_path, named=False)
    here.publish(document(1))
    there.publish(document(1, target="omega-eu"))
    theirs = document(2, target="omega-eu")
    there.publish(theirs)
    accepted = tmp_path / "cache/accepted.json"
    with serving(here.directory) as server, mainframe(server, here, tmp_path / "cache", target="") as client:
        assert client.latest_release("stable").target == "omega"
        rows = json.loads(accepted.read_bytes())
        assert rows["stable"].pop("target") == "omega"
        # As it was written before: what is accepted again is remembered from then on.
        accepted.write_text(json.dumps(rows))
        assert client.highest_release_seq("stable") == 1
        assert client.latest_release("stable").target == "omega"
        kept = accepted.read_bytes()
        assert json.loads(kept)["stable"]["target"] == "omega"
        state = there.repository.read()
        here.force(f"targets/{state.production.signed.targets[theirs.path].get_prefixed_paths()[0]}", theirs.to_bytes())  # type: ignore[union-attr]
        here.sign_online(production=state.raw["production"])
        refused(client, MixAndMatchError, "approved for omega-eu, and not for omega")
        assert accepted.read_bytes() == kept


def test_two_channels_are_not_changed_by_one_approval(world: World) -> None:
    beta, stable = document(1, channel="beta"), document(2)
    approved = world.approve(stable)
    approved.signed.targets |= world.approve(beta).signed.targets
    approved.signatures.clear()
    for signer in world.approvers:
        approved.sign(signer, append=True)
    with pytest.raises(MixAndMatchError, match="changes more than stable"):
        world.repository.publish(approved.to_bytes(), stable.to_bytes(), world.online)


def test_an_old_release_does_not_come_to_a_fresh_mainframe(world: World, server: Server, tmp_path: Path) -> None:
    world.publish(document(4))
    with mainframe(server, world, tmp_path / "fresh", minimum_release_seq=5) as fresh:
        refused(fresh, RolledBackError, "release_seq 4, and 5 is the lowest to accept here")
        world.publish(document(5))
        assert fresh.latest_release("stable").release_seq == 5


def test_the_highest_release_seq_outlives_the_cache_of_tuf(world: World, server: Server, tmp_path: Path) -> None:
    world.publish(document(1))
    old = saved(world)
    world.publish(document(2))
    with mainframe(server, world, tmp_path / "cache") as client:
        client.latest_release("stable")
        for path in (tmp_path / "cache/metadata").glob("*.json"):
            path.unlink()
        restore(world, old)
        world.repository.renew(world.online)
        refused(client, RolledBackError, "release_seq 1, and 2 is the lowest to accept here")
        (tmp_path / "cache/accepted.json").write_text("{")
        refused(client, TrustError, "accepted.json cannot be read")


def test_two_releases_with_one_release_seq_are_refused(world: World, server: Server, tmp_path: Path) -> None:
    twin = World(tmp_path / "twin", world.held, world.approvers, world.online)
    world.publish(document(1))
    twin.publish(document(1, bundle="e" * 64))
    twin.root = world.root
    with mainframe(server, world, tmp_path / "cache") as client, serving(twin.directory) as other:
        client.latest_release("stable")
        for path in (tmp_path / "cache/metadata").glob("*.json"):
            path.unlink()
        with mainframe(other, twin, tmp_path / "cache") as again:
            refused(again, MixAndMatchError, "two different releases")


def _endless(handler: BaseHTTPRequestHandler, status: int = 200) -> None:
    handler.send_response(status)
    handler.end_headers()
    handler.close_connection = True
    try:
        for _ in range(4096):
            handler.wfile.write(b"[" * 65536)
    except OSError:
        return
    handler.server.read_to_the_end = True  # type: ignore[attr-defined]


def test_endless_data_is_cut_off(world: World, server: Server, client: ReleaseClient) -> None:
    world.publish(document(1))
    server.answers["/timestamp.json"] = _endless
    refused(client, OversizedError, "cut off")
    server.answers.clear()
    server.answers["/2.root.json"] = partial(_endless, status=404)
    assert client.latest_release("stable").release_seq == 1
    assert not hasattr(server._server, "read_to_the_end")


def _dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    try:
        for _ in range(200):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        return


def test_data_that_drips_is_given_up(world: World, server: Server, tmp_path: Path) -> None:
    world.publish(document(1))
    server.answers["/timestamp.json"] = _dripping
    with mainframe(server, world, tmp_path / "cache", file_seconds=0.5) as client:
        start = time.monotonic()
        refused(client, TrustError, "too slowly")
        assert time.monotonic() - start < 20


def test_a_redirect_is_not_followed(world: World, server: Server, client: ReleaseClient) -> None:
    world.publish(document(1))
    server.answers["/timestamp.json"] = lambda handler: reply(handler, 302, b"", Location="/elsewhere.json")
    refused(client, NodeRefusedError, "redirects")
    assert "/elsewhere.json" not in server.asked


@pytest.mark.parametrize(
    ("status", "kind"), [(403, NodeAuthError), (404, NodeRefusedError), (500, NodeFaultError)], ids=str
)
def test_what_the_server_says_is_told_as_such(
    server: Server, client: ReleaseClient, status: int, kind: type[AshatError]
) -> None:
    server.answers["/timestamp.json"] = lambda handler: reply(handler, status, b'{"detail": "Said so."}')
    refused(client, kind, "OMEGA: Said so.")


def test_a_cut_connection_is_told_as_such(server: Server, client: ReleaseClient) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.close_connection = True

    server.answers["/timestamp.json"] = cut
    refused(client, NodeUnreachableError, "the connection was cut")


def test_what_is_no_metadata_is_told_as_such(world: World, server: Server, client: ReleaseClient) -> None:
    world.force("timestamp.json", b"<html>")
    refused(client, MalformedMetadataError, "no TUF metadata")
    world.force("timestamp.json", world.root)
    refused(client, MalformedMetadataError, "Expected 'timestamp', got 'root'")


def test_a_timestamp_that_was_changed_is_not_signed(world: World, client: ReleaseClient) -> None:
    timestamp: Metadata[Timestamp] = Metadata.from_bytes((world.directory / "timestamp.json").read_bytes())
    timestamp.signed.version = 9
    world.force("timestamp.json", timestamp.to_bytes())
    refused(client, UnsignedError, "timestamp was signed by 0/1 keys")
