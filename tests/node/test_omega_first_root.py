"""With which root an OMEGA begins: the one that its machine pins, never one that somebody hands it, or none again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Root

from ashat.cli.trust.ceremonies import newest_keys
from ashat.client.http import Transport
from ashat.client.node import NodeClient
from ashat.errors import (
    MixAndMatchError,
    NodeConflictError,
    NodeUnreachableError,
    SignatureExpiredError,
    TrustError,
    UnsignedError,
)
from ashat.node.mainframe.offer_verifier import PATH
from ashat.protocol.messages import OperationRequest, Role, TrustMetadata, TrustState
from ashat.trust.authority.authority import Authority
from ashat.trust.authority.first_root import hand_over, ready
from ashat.trust.authority.pending_change import PendingChange
from ashat.trust.keys.files import OnlinePublicKeys
from ashat.trust.tuf.metadata import Lifetimes, parse
from ashat.trust.tuf.root_chain import PinnedRoot, root_digest
from ashat.trust.update_client.client import ReleaseClient
from ashat.trust.update_client.fetcher import RemoteRepository
from tasks.approval.signing import ensure_trust_root
from tests.support.builders.signers import People, refused
from tests.support.processes.node import NodeProcess, push, tiny_app
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import decide, licence, offer, perform, promotion, source

APPROVAL_SECONDS = 30 * 86400.0


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def omega_in(directory: Path, **settings: Any) -> NodeProcess:
    """An OMEGA that is not started yet."""
    settings = {"unsigned_releases": False, **settings}
    return NodeProcess(directory, role=Role.OMEGA, app=tiny_app(), settings=settings, start=False)


def own_keys(node: NodeProcess) -> TrustState:
    """What `ashat-node trust-keys` prints on OMEGA."""
    keys = ashat_node("trust-keys", "--data", node.data)
    keys.check_returncode()
    return TrustState(online=json.loads(keys.stdout))


def set_up(home: Path, people: People, online: dict[str, str], lifetimes: Lifetimes | None = None) -> Authority:
    """What the people set up for the OMEGA of those keys: kim and lee have signed it."""
    authority, keys = Authority(home), [key.public_key for key in people.keys]
    authority.init(keys, 2, online=OnlinePublicKeys.of(online), now=datetime.now(UTC), lifetimes=lifetimes)
    for key in people.keys[:2]:
        authority.sign(key)
    return authority


def renew(authority: Authority, people: People, omega: NodeClient) -> None:
    """A ceremony that changes nothing but versions."""
    pending = PendingChange(authority)
    pending.begin(
        pending.plan(omega.trust(), lambda roles: roles, now=datetime.now(UTC), approval_lifetime=APPROVAL_SECONDS)
    )
    for key in people.keys[:2]:
        pending.sign(key)
    pending.publish(omega, "omega")


def not_taken(client: NodeClient, given: TrustMetadata, *words: str) -> None:
    """See that OMEGA does not begin with that root."""
    with pytest.raises(NodeConflictError) as error:
        client.put_trust(given)
    assert error.value.body["error"] == "untrusted"
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def ship(client: NodeClient, people: People, directory: Path, update: str = "UPD-1") -> str:
    """Have OMEGA run and offer a bundle that two people signed."""
    wanted, _ = people.promotion(client, push(client, source(directory)), update)
    assert perform(client, wanted).status == "succeeded"
    offer(client)
    assert wanted.bundle is not None
    return wanted.bundle


def unsigned(client: NodeClient, directory: Path) -> OperationRequest:
    """A promotion that is in order but for that nobody signed it."""
    seen = client.state()
    runs = seen.current.bundle if seen.current else None
    return promotion(decide(push(client, source(directory)), expected=runs, seq=seen.release_seq + 1))


@pytest.fixture
def pinned(tmp_path: Path, home: Path, people: People) -> Iterator[tuple[NodeProcess, Authority]]:
    """An OMEGA that keeps no root, and pins the one that people set up for it."""
    file = tmp_path / "root.json"
    node = omega_in(tmp_path / "production", trust_root=str(file), unsigned_releases=True)
    authority = set_up(home, people, own_keys(node).online)
    shutil.copy(authority.directory / "root.json", file)
    with node:
        node.start()
        yield node, authority


def test_an_omega_that_pins_a_root_begins_with_no_other(
    pinned: tuple[NodeProcess, Authority], people: People, tmp_path: Path
) -> None:
    node, authority = pinned
    with node.client() as client:
        seen = client.trust()
        assert (seen.root, seen.pinned) == (None, root_digest(authority.read().root))
        thieves = People()
        not_taken(client, thieves.begin(client), "OMEGA takes no first root but its trust_root", "has another root")
        refused(client, unsigned(client, tmp_path), "trust_missing", "deploy trust publish, where that was made")
        # Whoever of them signs later changes nothing of what is pinned.
        authority.sign(people.keys[2])
        hand_over(authority, client, "omega")
        assert client.trust().pinned == seen.pinned
        ship(client, people, tmp_path)
        refused(client, unsigned(client, tmp_path), "unsigned")

        node.stop()
        shutil.rmtree(node.data / "trust")
        node.start()
        assert client.trust().root is None
        not_taken(client, thieves.begin(client), "no first root but its trust_root")
        refused(client, unsigned(client, tmp_path), "trust_missing")


def test_a_later_root_is_taken_that_the_pinned_one_leads_to_and_mainframes_follow(
    pinned: tuple[NodeProcess, Authority], people: People, tmp_path: Path
) -> None:
    node, authority = pinned
    first = authority.read().root.to_bytes()
    with node.client() as client:
        hand_over(authority, client, "omega")
        for _ in range(2):
            renew(authority, people, client)
        ship(client, people, tmp_path)
        node.stop()
        shutil.rmtree(node.data / "trust")
        node.start()

        pending, seen = PendingChange(authority), client.trust()
        assert (seen.root, seen.pinned) == (None, root_digest(parse(first, Root, "it")))
        pending.begin(pending.plan(seen, newest_keys(seen), now=datetime.now(UTC), approval_lifetime=APPROVAL_SECONDS))
        for key in people.keys[1:]:
            change = pending.sign(key)
        texts = {"root": change.root.to_bytes().decode(), "targets": change.targets.to_bytes().decode()}
        roots = [root.to_bytes().decode() for root in authority.roots()]
        for given in ([], roots[1:2], roots[2:3], roots, [*roots[1:3], texts["root"]]):
            not_taken(client, TrustMetadata(target="omega", roots=given, **texts), "does not follow version")
        pending.publish(client, "omega")
        assert authority.read().root.signed.version == 4
        ship(client, people, tmp_path, "UPD-2")
        node.restart()
        ship(client, people, tmp_path, "UPD-3")
        with Transport(node.url, licence=licence(client), name="OMEGA") as transport:
            asking = ReleaseClient(RemoteRepository(transport, PATH), tmp_path / "cache", root=first, target="omega")
            assert asking.latest_release("stable").update_id == "UPD-3"


def test_a_root_that_was_taken_before_another_was_pinned_lets_nothing_in(
    home: Path, people: People, tmp_path: Path
) -> None:
    thieves, file = People(), tmp_path / "root.json"
    with omega_in(tmp_path / "production") as node, node.client() as client:
        node.start()
        client.put_trust(thieves.begin(client))
        runs = ship(client, thieves, tmp_path)
        authority = set_up(home, people, client.trust().online)
        file.write_bytes(authority.read().root.to_bytes())
        node.stop()
        node.config.write_text(f"trust_root = {json.dumps(str(file))}\n{node.config.read_text()}")
        node.start()
        wanted, _ = thieves.promotion(client, push(client, source(tmp_path)), "UPD-2")
        refused(client, wanted, "untrusted", "does not follow from its trust_root", "start the node again")
        state = client.state()
        assert state.current is not None
        assert (state.current.bundle, state.offer and state.offer.bundle) == (runs, runs)
        assert "OMEGA takes nothing new: The root that OMEGA keeps does not follow" in node.log()
        with pytest.raises(MixAndMatchError, match="keeps another root, or other targets, than there are here"):
            ready(authority, client.trust(), "omega")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file"),
        (b"{}", "is no root.json"),
        (b" " * (1 << 21), "has more than 1048576 bytes"),
    ],
    ids=["no file", "no root", "too large"],
)
def test_a_pin_that_is_no_root_is_told_at_once(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "root.json"
    if content is not None:
        file.write_bytes(content)
    with omega_in(tmp_path / "production", trust_root=str(file)) as node:
        node.start(wait=False)
        assert node.wait_until_dead() == 2
        (line,) = [line for line in node.log().splitlines() if "trust_root" in line]
        assert line.startswith("ashat-node: trust_root")
        assert told in line


def test_deploy_proposes_no_root_of_its_own_where_one_is_pinned(
    pinned: tuple[NodeProcess, Authority], people: People, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node, authority = pinned
    with node.client() as client:
        monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "elsewhere"))
        with pytest.raises(TrustError, match="none was set up here: deploy trust publish, where that one was made"):
            ensure_trust_root(client, "omega")
        assert not Authority(tmp_path / "elsewhere").exists()
        set_up(tmp_path / "elsewhere", People(), client.trust().online)
        with pytest.raises(MixAndMatchError, match="the one here is another"):
            ensure_trust_root(client, "omega")
        assert client.trust().root is None
        monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
        assert ensure_trust_root(client, "omega").root == authority.read().root.to_bytes().decode()


def test_the_one_person_mode_goes_on_by_itself_where_none_is_pinned(home: Path, tmp_path: Path) -> None:
    with omega_in(tmp_path / "production") as node, node.client() as client:
        node.start()
        assert client.trust().pinned is None
        found = ensure_trust_root(client, "omega")
        assert found.root == Authority(home).read().root.to_bytes().decode()
        assert Authority(home).read().one_person


def test_what_people_signed_is_handed_over_once_and_only_when_enough_have(
    home: Path, people: People, tmp_path: Path
) -> None:
    with omega_in(tmp_path / "production") as node, node.client() as client:
        node.start()
        authority = Authority(home)
        keys = [key.public_key for key in people.keys]
        authority.init(keys, 2, online=OnlinePublicKeys.of(client.trust().online), now=datetime.now(UTC))
        authority.sign(people.keys[0])
        with pytest.raises(UnsignedError, match=r"signed by 1 of 2 needed \(kim\); missing: lee, noa"):
            hand_over(authority, client, "omega")
        authority.sign(people.keys[2])
        given = ready(authority, client.trust(), "omega")
        assert client.trust().root is None
        hand_over(authority, client, "omega")
        assert client.trust().root == given.root
        with pytest.raises(TrustError, match="omega keeps what is in force"):
            hand_over(authority, client, "omega")


LOST = {
    "the newest file": lambda trust: (trust / "repository" / "timestamp.json").unlink(),
    "the repository": lambda trust: shutil.rmtree(trust / "repository"),
    "all but a root": lambda trust: [
        path.unlink() for path in [*trust.rglob("*.json"), trust / "target"] if path.name != "1.root.json"
    ],
}


@pytest.mark.parametrize("lost", LOST)
def test_a_repository_that_is_not_whole_is_not_none(people: People, tmp_path: Path, lost: str) -> None:
    with omega_in(tmp_path / "production", unsigned_releases=True) as node, node.client() as client:
        node.start()
        client.put_trust(people.begin(client))
        runs = ship(client, people, tmp_path)
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-2")
        node.stop()
        shutil.copytree(node.data / "trust", tmp_path / "backup")
        LOST[lost](node.data / "trust")
        node.start()
        for request in (wanted, wanted.model_copy(update={"signed": None})):
            refused(client, request, "untrusted", "is not whole", "Restore it from a backup")
        with pytest.raises(NodeConflictError, match="is not whole"):
            client.trust()
        not_taken(client, People().begin_with(own_keys(node)), "is not whole")
        state = client.state()
        assert state.current is not None
        assert state.current.bundle == runs
        assert "Traceback" not in node.log()
        shutil.rmtree(node.data / "trust")
        shutil.copytree(tmp_path / "backup", node.data / "trust")
        assert perform(client, wanted).status == "succeeded"


def test_a_first_root_that_was_cut_short_is_ended_and_no_other_is_taken_instead(people: People, tmp_path: Path) -> None:
    with omega_in(tmp_path / "production", unsigned_releases=True) as node, node.client() as client:
        node.start({"ASHAT_FAULT": "trust.intended"})
        given = people.begin(client)
        with pytest.raises(NodeUnreachableError):
            client.put_trust(given)
        node.wait_until_dead()
        intent = node.data / "trust" / "given.json"
        kept = intent.read_text()
        intent.write_text("{")
        node.start()
        refused(client, unsigned(client, tmp_path), "untrusted", "is not whole")
        not_taken(client, People().begin_with(own_keys(node)), "is not whole")
        intent.write_text(kept)
        node.restart()
        assert client.trust().root == given.root
        refused(client, unsigned(client, tmp_path), "unsigned")


def test_what_is_approved_after_the_end_of_root_and_targets_is_refused_before_anything_happens(
    home: Path, people: People, tmp_path: Path
) -> None:
    with omega_in(tmp_path / "production") as node, node.client() as client:
        node.start()
        authority = set_up(home, people, client.trust().online, Lifetimes(root=12, targets=8))
        hand_over(authority, client, "omega")
        runs = ship(client, people, tmp_path)
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-2")
        for role in (authority.read().targets, authority.read().root):
            while not role.signed.is_expired():
                time.sleep(0.1)
            said = f"{role.signed.type} version 1 ended at"
            refused(client, wanted, "untrusted", "ended at", "deploy trust renew")
            with pytest.raises(SignatureExpiredError, match="until its holders renew it: deploy trust renew"):
                ensure_trust_root(client, "omega")
        assert said.startswith("root")
        current = client.state().current
        assert current is not None
        assert current.bundle == runs
        renew(authority, people, client)
        assert ensure_trust_root(client, "omega").root == authority.read().root.to_bytes().decode()
        again, _ = people.promotion(client, wanted.bundle or "", "UPD-2")
        assert perform(client, again).status == "succeeded"


def test_a_pinned_root_leads_step_by_step(home: Path, people: People) -> None:
    authority = set_up(home, people, {"snapshot": "1" * 64, "timestamp": "2" * 64})
    first = authority.read().root
    pin = PinnedRoot(first)
    assert pin.check(first) == []
    later = parse(first.to_bytes(), Root, "it")
    later.signed.version = 2
    with pytest.raises(UnsignedError):
        pin.check(later)
    with pytest.raises(TrustError, match="does not follow version 2"):
        PinnedRoot(later).check(first)
