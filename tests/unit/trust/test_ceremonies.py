"""Who signs what changes: people come, go and get other keys, and Mainframes follow from the root they came with."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Targets

from ashat.cli.trust.ceremonies import newest_keys
from ashat.client.http import Transport
from ashat.errors import (
    KeyFileError,
    KeyPolicyError,
    MixAndMatchError,
    NodeConflictError,
    NoReleaseError,
    RolledBackError,
    SignatureExpiredError,
    TrustError,
    UnsignedError,
    UsageError,
)
from ashat.node.omega.online_keys import OnlineKeyFiles, public_keys
from ashat.node.omega.trust import OmegaTrust
from ashat.protocol.messages import TrustMetadata
from ashat.trust.authority.authority import Authority
from ashat.trust.authority.key_change import Change, with_added, with_key, without
from ashat.trust.authority.pending_change import PendingChange
from ashat.trust.keys.files import OnlinePublicKeys, create_key
from ashat.trust.release.repository import OnlineKeys, Repository
from ashat.trust.tuf.metadata import PRODUCTION, Holders, Lifetimes, Roles, parse
from ashat.trust.update_client.client import ReleaseClient
from ashat.trust.update_client.fetcher import RemoteRepository
from tests.support.builders.ceremonies import Place, place
from tests.support.builders.signers import People
from tests.support.builders.trust_world import World, document, key_pair, mainframe, serving
from tests.support.processes.node import push
from tests.support.processes.omega import decide, perform, promotion, source

FAST_FORWARDED = 2**31
Rearrange = Callable[[Roles], Roles]


def adding(*keys: CryptoSigner, threshold: int | None = None) -> Rearrange:
    publics = [key.public_key for key in keys]
    return lambda roles: roles.held_by(with_added(roles.approvers, publics, threshold))


def removing(name: str, threshold: int | None = None) -> Rearrange:
    return lambda roles: roles.held_by(without(roles.approvers, name, threshold))


def as_it_is(roles: Roles) -> Roles:
    return roles


def taking_over(people: People) -> Rearrange:
    return lambda roles: roles.held_by(Holders([key.public_key for key in people.keys], 2))


def sign_online(forged: Path, online: OnlineKeys, production: bytes) -> None:
    """Make `production` current there with the online keys, unchecked."""
    repository = Repository(forged)
    for name, content in repository._plan(repository.read(), online, datetime.now(UTC), production=production):
        (forged / name).write_bytes(content)


def fast_forward(forged: Path, online: OnlineKeys) -> None:
    """Let what is current there have such high versions that nothing honest ever follows."""
    state = Repository(forged).read()
    assert state.snapshot
    assert state.timestamp
    snapshot, timestamp = Metadata(state.snapshot.signed), Metadata(state.timestamp.signed)
    snapshot.signed.version = timestamp.signed.version = FAST_FORWARDED
    snapshot.sign(online.snapshot)
    timestamp.signed.snapshot_meta = MetaFile.from_data(FAST_FORWARDED, snapshot.to_bytes(), ["sha256"])
    timestamp.sign(online.timestamp)
    (forged / f"{FAST_FORWARDED}.snapshot.json").write_bytes(snapshot.to_bytes())
    (forged / "timestamp.json").write_bytes(timestamp.to_bytes())


@contextmanager
def asking_a_thief(here: Place, forged: Path, cache: str = "cache") -> Iterator[ReleaseClient]:
    """The Mainframe of `here`, led astray to somebody who serves `forged`."""
    with serving(forged) as server, Transport(server.url, name="OMEGA") as transport:
        yield ReleaseClient(RemoteRepository(transport), here.directory / cache, root=here.root, target="omega")


def test_an_approver_is_added_and_counts_like_the_others(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    mia = key_pair("mia")
    with place(tmp_path, people) as here:
        here.release("UPD-1", kim, lee)
        assert here.seen().update_id == "UPD-1"
        change = here.plan(adding(mia))
        held = here.authority.read()
        assert change.production is None, "kim and lee are still enough"
        assert change.differences(held.root.signed, held.targets.signed)[:2] == [
            f"mia signs, too ({mia.public_key.keyid[:12]})",
            "it takes 2 of 4, instead of 2 of 3",
        ]
        with pytest.raises(UsageError, match="Another change is being signed"):
            here.plan(as_it_is)
        here.pending.sign(mia)
        here.pending.sign(noa)
        counts = here.pending.read().counts(held.root.signed)
        assert {part: found.signed for part, found in counts.items()} == {
            "root, by those who hold it now": ("noa",),
            "root, by those who then do": ("mia", "noa"),
            "targets": ("mia", "noa"),
        }
        with pytest.raises(UnsignedError, match=r"who hold it now is signed by 1 of 2 needed \(noa\)"):
            here.pending.publish(here.omega, "omega")
        here.pending.sign(kim)
        here.pending.publish(here.omega, "omega")
        assert not here.pending.exists()
        assert here.authority.read().approvers.missing == ("kim", "lee", "mia", "noa")
        assert here.seen().update_id == "UPD-1"
        here.release("UPD-2", mia, noa)
        assert here.seen().update_id == here.seen("a new one").update_id == "UPD-2"


def test_whoever_was_removed_signs_nothing_any_more(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    with place(tmp_path, people) as here:
        here.release("UPD-1", kim, lee)
        before = here.omega.trust()
        bundle = push(here.omega, source(tmp_path))
        state = here.omega.state()
        assert state.current
        decision = decide(bundle, expected=state.current.bundle, seq=2, update="UPD-2")
        stale = people.propose(before, decision)
        signed = stale.signed_release([stale.sign(kim), stale.sign(lee)])

        change = here.plan(removing("kim"))
        held = here.authority.read()
        assert change.production is not None
        told = change.differences(held.root.signed, held.targets.signed)
        assert f"kim signs no more ({kim.public_key.keyid[:12]})" in told
        assert any("last approval is signed anew" in line for line in told)
        with pytest.raises(UnsignedError, match="signs nothing of the change"):
            here.pending.sign(key_pair("eve"))
        here.pending.sign(lee)
        here.pending.sign(noa)
        here.pending.publish(here.omega, "omega")

        with pytest.raises(NodeConflictError, match=r"1 of 2 needed \(lee\); missing: noa"):
            here.omega.start_operation("late", promotion(decision, signed=signed))
        assert here.seen().update_id == here.seen("a new one").update_id == "UPD-1"
        # Whoever has OMEGA's disk and its keys can serve it, and no Mainframe takes it.
        forged = tmp_path / "forged"
        shutil.copytree(here.node.data / "trust" / "repository", forged)
        late = parse(signed.production.encode(), Targets, "it")
        late.signed.version += 1
        late.signatures.clear()
        for signer in (kim, lee):
            late.sign(signer, append=True)
        sign_online(forged, OnlineKeyFiles(here.node.data / "trust" / "keys").newest(), production=late.to_bytes())
        with asking_a_thief(here, forged, "astray") as client, pytest.raises(UnsignedError, match="1/2 keys"):
            client.latest_release("stable")
        here.release("UPD-3", lee, noa)
        assert here.seen().update_id == "UPD-3"


def test_a_person_gets_another_key(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    new = key_pair("kim")
    with place(tmp_path, people) as here:
        here.change(lambda roles: roles.held_by(with_key(roles.approvers, new.public_key)), lee, noa)
        with pytest.raises(UnsignedError, match="may not sign production"):
            here.promotion("UPD-1", kim, lee)
        people.keys[0] = new
        here.release("UPD-1", new, lee)
        assert here.seen().update_id == "UPD-1"
        with pytest.raises(KeyPolicyError, match="approves already; give kim's new one"):
            here.plan(lambda roles: roles.held_by(with_key(roles.approvers, new.public_key)))


def test_what_thieves_of_the_online_keys_did_ends_with_new_keys(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    with place(tmp_path, people) as here:
        here.release("UPD-1", kim, lee)
        assert here.seen().update_id == "UPD-1"
        with pytest.raises(UsageError, match="OMEGA has no new keys of its own"):
            here.plan(newest_keys(here.omega.trust()))
        stolen = OnlineKeyFiles(here.node.data / "trust" / "keys").newest()
        forged = tmp_path / "forged"
        shutil.copytree(here.node.data / "trust" / "repository", forged)
        fast_forward(forged, stolen)
        with asking_a_thief(here, forged) as client:
            assert client.latest_release("stable").update_id == "UPD-1"
        with pytest.raises(RolledBackError):
            here.seen()

        here.new_online_keys()
        assert here.omega.trust().online != public_keys(stolen)
        here.release("UPD-2", kim, lee)
        here.change(newest_keys(here.omega.trust()), kim, noa)
        assert here.seen().update_id == "UPD-2", "the Mainframe is back"
        names = sorted(path.name for path in (here.node.data / "trust" / "keys").glob("*.pem"))
        assert names == ["snapshot.2.pem", "timestamp.2.pem"]
        with asking_a_thief(here, forged) as client, pytest.raises(UnsignedError):
            client.latest_release("stable")
        here.release("UPD-3", lee, noa)
        here.node.restart()
        assert here.seen().update_id == "UPD-3"


def test_an_omega_that_lost_its_trust_goes_on_with_new_keys(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    with place(tmp_path, people) as here:
        here.release("UPD-1", kim, lee)
        assert here.seen().update_id == "UPD-1"
        here.node.stop()
        shutil.rmtree(here.node.data / "trust")
        here.node.start()
        assert here.omega.trust().root is None
        here.change(newest_keys(here.omega.trust()), lee, noa)
        here.release("UPD-2", kim, noa)
        assert here.seen().update_id == here.seen("a new one").update_id == "UPD-2"


def test_a_root_is_renewed_step_by_step_and_no_step_is_left_out(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    with place(tmp_path, people) as here:
        here.release("UPD-1", kim, lee)
        for _ in range(2):
            here.change(as_it_is, lee, noa)
        assert here.seen().update_id == "UPD-1"
        held = here.authority.read()
        assert (held.root.signed.version, held.targets.signed.version) == (3, 3)
        plan = here.pending.plan(here.omega.trust(), as_it_is, now=datetime.now(UTC), approval_lifetime=99)
        plan.root.signed.version += 1
        for signer in (kim, lee):
            plan.root.sign(signer, append=True)
        with pytest.raises(RolledBackError, match="deploy trust abandon"):
            here.pending.begin(plan)
        given = TrustMetadata(target="omega", root=plan.root.to_bytes().decode())
        with pytest.raises(NodeConflictError, match="root version 5 does not follow version 3"):
            here.omega.put_trust(given)
        # On OMEGA's disk it helps nobody either: a Mainframe asks for the next, and believes no other.
        (here.node.data / "trust" / "repository" / "5.root.json").write_bytes(plan.root.to_bytes())
        assert here.seen("a new one").update_id == "UPD-1"
        kept = json.loads((tmp_path / "a new one" / "metadata" / "root.json").read_text())
        assert kept["signed"]["version"] == 3


def test_one_person_renews_alone_and_hands_over_to_people(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    with place(tmp_path, None) as here:
        embedded = here.authority.embedded_approver()
        here.release("UPD-1", embedded)
        ends = here.authority.read().root.signed.expires
        assert ends > datetime.now(UTC) + timedelta(days=3640)
        here.change(as_it_is)
        held = here.authority.read()
        assert held.one_person
        assert held.root.signed.version == 2
        assert held.root.signed.expires >= ends
        here.new_online_keys()
        here.change(newest_keys(here.omega.trust()))
        assert here.seen().update_id == "UPD-1"

        change = here.plan(taking_over(people))
        assert change.production is not None
        assert change.root.signed.expires < datetime.now(UTC) + timedelta(days=1100), "people look after their root"
        assert here.authority.read().one_person, "nothing has changed yet"
        here.pending.sign(lee)
        here.pending.sign(noa)
        here.pending.publish(here.omega, "omega")
        held = here.authority.read()
        assert not held.one_person
        assert list((here.authority.directory / "keys").iterdir()) == [], "no key lies open any more"
        assert here.seen().update_id == here.seen("a new one").update_id == "UPD-1"
        assert held.machines == {"builder": ("alpha",), "verifier": ("control",)}, "these stay"
        people.machines, here.people = here.people.machines, people
        with pytest.raises(UnsignedError):
            here.promotion("UPD-2", embedded)
        here.release("UPD-2", kim, lee)
        assert here.seen().update_id == "UPD-2"


def test_who_approves_alone_is_said_by_what_is_in_force(tmp_path: Path) -> None:
    with place(tmp_path, None) as here:
        change = here.pending.plan(
            here.omega.trust(), taking_over(People()), now=datetime.now(UTC), approval_lifetime=99
        )
        assert here.authority.approves_alone(here.authority.read().targets.signed)
        assert not here.authority.approves_alone(change.targets.signed), "though the key still lies here"


def test_a_change_is_given_up_until_omega_has_it(tmp_path: Path) -> None:
    people = People()
    kim, lee, noa = people.keys
    with place(tmp_path, people) as here:
        with pytest.raises(NoReleaseError, match="nothing to give up"):
            here.pending.abandon(None)
        here.plan(as_it_is)
        here.pending.sign(kim)
        here.pending.abandon(None)
        assert not here.pending.exists()

        here.release("UPD-1", kim, lee)
        here.plan(removing("kim"))
        for signer in (lee, noa):
            here.pending.sign(signer)
        with pytest.raises(TrustError, match="has to be asked"):
            here.pending.abandon(None)
        here.release("UPD-2", kim, lee)
        with pytest.raises(MixAndMatchError, match="Something was released since"):
            here.pending.publish(here.omega, "omega")
        here.pending.abandon(here.omega.trust())

        perform(here.omega, here.promotion("UPD-3", kim, lee))
        here.plan(removing("kim"))
        for signer in (lee, noa):
            here.pending.sign(signer)
        with pytest.raises(TrustError, match="A release is on its way from omega"):
            here.pending.publish(here.omega, "omega")
        kept = here.pending.path.read_bytes()
        here.pending.publish(here.omega, "omega", in_flight=True)
        assert here.seen().update_id == "UPD-2"
        here.pending.path.write_bytes(kept)
        with pytest.raises(TrustError, match="keeps the change already"):
            here.pending.abandon(here.omega.trust())
        here.pending.publish(here.omega, "omega")
        assert not here.pending.exists()


def test_a_change_that_would_do_more_than_it_says_is_not_signed(tmp_path: Path) -> None:
    people = People()
    kim, lee, _ = people.keys
    mallory = key_pair("mallory")
    with place(tmp_path, people) as here:
        here.release("UPD-1", kim, lee)
        here.plan(removing("kim"))
        honest = here.pending.path.read_bytes()
        held = here.authority.read()
        change = Change.from_bytes(honest)
        assert change.production is not None

        def refused(kind: type[TrustError], words: str) -> None:
            here.pending.path.write_bytes(change.to_bytes())
            with pytest.raises(kind, match=words):
                here.pending.sign(lee)

        (name,) = change.production.signed.targets
        change.production.signed.targets[name].length += 1
        refused(MixAndMatchError, "would release something else")
        change = Change.from_bytes(honest)
        assert change.targets.signed.delegations
        assert change.targets.signed.delegations.roles
        role = change.targets.signed.delegations.roles[PRODUCTION]
        role.paths = ["*"]
        refused(MixAndMatchError, "holds more than who signs what")
        change = Change.from_bytes(honest)
        assert change.replaces
        change.replaces.signatures.clear()
        refused(UnsignedError, "0 of 2 needed")
        change = Change.from_bytes(honest)
        change.root.signed.add_key(mallory.public_key, Root.type)
        told = change.differences(held.root.signed, held.targets.signed)
        assert any(line.startswith("root: mallory signs, too") for line in told), "whoever signs reads of it"
        here.pending.path.write_bytes(b'{"format": "ashat-change/2"}')
        with pytest.raises(TrustError, match="another version's format"):
            here.pending.sign(lee)
        here.pending.path.write_bytes(b"[]")
        with pytest.raises(TrustError, match="not as this version writes it"):
            here.pending.sign(lee)
        here.pending.abandon(None)


def test_who_would_be_too_few_is_said_before_anything_is_planned(tmp_path: Path) -> None:
    keys = [key_pair(name).public_key for name in ("kim", "lee")]
    both = Holders(keys, 2)
    with pytest.raises(KeyPolicyError, match="without kim there are 1: give --threshold"):
        without(both, "kim", None)
    assert without(both, "kim", 1).threshold == 1
    with pytest.raises(KeyPolicyError, match="Nobody who approves is called 'eve': they are kim, lee"):
        without(both, "eve", None)
    with pytest.raises(KeyPolicyError, match="Nobody who approves is called 'eve'"):
        with_key(both, key_pair("eve").public_key)


def test_after_a_lost_root_a_new_one_begins_where_the_old_one_ended(tmp_path: Path) -> None:
    old = World(tmp_path / "old")
    old.publish(document(7))
    with serving(old.directory) as server, mainframe(server, old, tmp_path / "cache") as client:
        assert client.latest_release("stable").release_seq == 7
    new = World(tmp_path / "new", approvers=old.approvers)
    with serving(new.directory) as server, mainframe(server, new, tmp_path / "cache") as client:
        new.publish(document(7, update_id="UPD-other"))
        with pytest.raises(MixAndMatchError):
            client.latest_release("stable")
        new.publish(document(8))
        assert client.latest_release("stable").release_seq == 8


def test_what_has_ended_is_renewed_all_the_same(tmp_path: Path) -> None:
    people = People()
    trust, authority = OmegaTrust(tmp_path / "omega"), Authority(tmp_path / "home")
    publics = [key.public_key for key in people.keys]
    brief = Lifetimes(root=5, targets=5)  # long enough to install them on a busy machine
    authority.init(publics, 2, online=OnlinePublicKeys.of(trust.public_keys()), now=datetime.now(UTC), lifetimes=brief)
    for key in people.keys:
        held = authority.sign(key)
    root, targets = held.root.to_bytes(), held.targets.to_bytes().decode()
    trust.install(TrustMetadata(target="omega", root=root.decode(), targets=targets))
    while not held.root.signed.is_expired():
        time.sleep(0.1)
    with serving(trust.repository.directory) as server, Transport(server.url, name="OMEGA") as transport:
        client = ReleaseClient(RemoteRepository(transport), tmp_path / "cache", root=root)
        with pytest.raises(SignatureExpiredError):
            client.latest_release("stable")
        pending = PendingChange(authority)
        pending.begin(pending.plan(trust.state(), as_it_is, now=datetime.now(UTC), approval_lifetime=99))
        for key in people.keys[1:]:
            change = pending.sign(key)
        texts = [part.to_bytes().decode() for part in (change.root, change.targets)]
        trust.install(TrustMetadata(target="omega", root=texts[0], targets=texts[1]))
        with pytest.raises(NoReleaseError):
            client.latest_release("stable")


def test_a_machine_that_builds_is_replaced(tmp_path: Path) -> None:
    people = People(machines=True)
    kim, lee, _ = people.keys
    with place(tmp_path, people) as here:
        stolen, new = people.machines[0], key_pair("alpha")
        here.plan(lambda roles: replace(roles, builders=[new.public_key]))
        held = here.authority.read()
        told = here.pending.read().differences(held.root.signed, held.targets.signed)
        assert told[0] == f"what is built: alpha signs by another key from then on ({new.public_key.keyid[:12]})"
        for signer in (kim, lee):
            here.pending.sign(signer)
        here.pending.publish(here.omega, "omega")
        with pytest.raises(NodeConflictError, match=stolen.public_key.keyid[:12]):
            here.release("UPD-1", kim, lee)
        people.machines[0] = new
        here.release("UPD-1", kim, lee)
        assert here.seen().update_id == "UPD-1"


def test_half_a_pair_of_online_keys_is_none(tmp_path: Path) -> None:
    files = OnlineKeyFiles(tmp_path / "keys")
    create_key(tmp_path / "snapshot.pem", "snapshot", None)
    (tmp_path / "keys").mkdir()
    (tmp_path / "snapshot.pem").rename(tmp_path / "keys" / "snapshot.pem")
    first = files.newest()
    assert public_keys(first) == public_keys(OnlineKeyFiles(tmp_path / "keys").newest())
    second = files.make()
    assert public_keys(files.newest()) == public_keys(second)
    (tmp_path / "keys" / "timestamp.2.pem").unlink()
    assert public_keys(OnlineKeyFiles(tmp_path / "keys").newest()) == public_keys(first)
    third = files.make()
    assert (tmp_path / "keys" / "snapshot.3.pem").exists()
    assert public_keys(files.newest()) == public_keys(third)
    (tmp_path / "keys" / "snapshot.3.pem").write_text("another user's")
    assert public_keys(OnlineKeyFiles(tmp_path / "keys").newest()) == public_keys(first), "it must go on signing"
    (tmp_path / "keys" / "timestamp.pem").chmod(0o644)
    with pytest.raises(KeyFileError):
        OnlineKeyFiles(tmp_path / "keys").newest()
