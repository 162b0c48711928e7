"""A thief with OMEGA's storage and online keys, for as long as they like: they withhold, until the approval ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
from tuf.api.metadata import Metadata, Targets

from ashat.errors import NodeRefusedError, RolledBackError, SignatureExpiredError
from ashat.node.omega.online_keys import OnlineKeyFiles
from ashat.node.omega.trust import OmegaTrust
from ashat.protocol.messages import TrustMetadata
from ashat.trust.release.repository import OnlineKeys
from ashat.trust.tuf.metadata import PRODUCTION, build_production, build_snapshot, build_timestamp, parse
from ashat.trust.update_client.client import ReleaseClient
from tests.support.builders.signers import Customer, People, demanding_omega, install_root
from tests.support.builders.trust_world import Server, World, document, key_pair, mainframe, refused, restore, saved
from tests.support.processes.node import push
from tests.support.processes.omega import offer, perform, source

BRIEF = 5.0


def wait_for_the_end(production: Metadata[Targets]) -> None:
    """Until what was approved has ended."""
    while not production.signed.is_expired():
        time.sleep(0.1)


def test_however_often_a_thief_signs_anew_what_is_withheld_is_noticed_when_the_approval_ends(
    world: World, server: Server, client: ReleaseClient, tmp_path: Path
) -> None:
    made = document(1)
    approved = world.approve(made, lifetime=BRIEF)
    world.repository.publish(approved.to_bytes(), made.to_bytes(), world.online)
    before = saved(world)
    world.publish(document(2))
    restore(world, before)
    taken = []

    def freeze() -> NoReturn:
        while True:
            world.sign_online()  # another snapshot and another timestamp, by the true keys
            taken.append(datetime.now(UTC))
            assert client.latest_release("stable") == made
            time.sleep(0.2)

    with pytest.raises(SignatureExpiredError, match="production is expired"):
        freeze()
    assert datetime.now(UTC) >= approved.signed.expires
    assert len(taken) > 1, "it is taken for as long as it holds"
    assert taken[-2] < approved.signed.expires
    assert client.highest_release_seq("stable") == 1
    with mainframe(server, world, tmp_path / "fresh") as fresh:
        refused(fresh, SignatureExpiredError, "production is expired")


def test_a_mainframe_says_that_the_approval_ended_and_keeps_running_what_runs(tmp_path: Path) -> None:
    people = People()
    with demanding_omega(tmp_path / "production") as omega, omega.client() as client:
        root = install_root(omega, people, tmp_path / "root.json")
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
        assert perform(client, wanted).status == "succeeded"
        offer(client)
        with Customer(tmp_path / "baker", omega, trust_root=str(root)) as baker:
            baker.wait_for("running")
            held = client.trust().production
            assert held is not None
            # The same release again, approved for a few seconds; then the thief comes.
            brief = build_production(parse(held.encode(), Targets, "it"), None, lifetime=BRIEF, now=datetime.now(UTC))
            for key in people.keys[:2]:
                brief.sign(key, append=True)
            client.put_trust(TrustMetadata(target="omega", production=brief.to_bytes().decode()))
            wait_for_the_end(brief)
            stolen = OmegaTrust(omega.data / "trust").repository
            stolen.renew(OnlineKeyFiles(omega.data / "trust" / "keys").newest())
            baker.restart()
            baker.wait_for("refused", "runs here, and OMEGA is not believed", "production is expired")
            assert baker.runs == wanted.bundle
            later, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-2")
            assert perform(client, later).status == "succeeded"
            offer(client)
            baker.wait_for("running", "release_seq 2")
            assert baker.runs == later.bundle


def test_versions_that_a_thief_raised_count_no_more_once_the_online_keys_are_others(
    world: World, client: ReleaseClient
) -> None:
    """A snapshot that promises a version of `production` which nobody ever signs."""
    world.publish(document(1))
    assert client.latest_release("stable").release_seq == 1
    honest, state = saved(world), world.repository.read()
    assert state.snapshot
    now, promised = datetime.now(UTC), {"targets": (1, state.raw["targets"]), PRODUCTION: (2**31, b"{}")}
    snapshot = build_snapshot(state.snapshot, promised, lifetime=999, now=now)
    snapshot.sign(world.online.snapshot)
    version = snapshot.signed.version
    timestamp = build_timestamp(state.timestamp, (version, snapshot.to_bytes()), lifetime=999, now=now)
    timestamp.sign(world.online.timestamp)
    world.force(f"{version}.snapshot.json", snapshot.to_bytes())
    world.force("timestamp.json", timestamp.to_bytes())
    refused(client, NodeRefusedError)
    restore(world, honest)
    world.publish(document(2))
    world.publish(document(3))
    refused(client, RolledBackError)
    world.online = OnlineKeys(key_pair("snapshot"), key_pair("timestamp"))
    root, targets = world.offline(world.approvers)
    world.repository.install(world.online, root=root, targets=targets)
    assert client.latest_release("stable").release_seq == 3
