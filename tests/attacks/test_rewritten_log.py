"""The log rewritten, cut off or forked between two releases: whoever saw it before refuses what stands in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ashat.cli.commands.inspect import check_log
from ashat.errors import AuditError, LedgerError, LogError, OversizedError, TrustError
from ashat.transparency.checkpoint import Checkpoint, Signer
from ashat.trust.release.known_log import open_log
from ashat.trust.tuf.release_document import LogEntry
from ashat.trust.update_client.client import ReleaseClient
from tests.support.builders.tampered_log import SignedLedger
from tests.support.builders.trust_world import Server, World, document, reply


@pytest.fixture
def log(tmp_path: Path) -> SignedLedger:
    return SignedLedger(tmp_path / "ledger", updates=3)


def path_of(earlier: int, size: int) -> str:
    return f"/log/consistency?from={earlier}&to={size}"


def prove(server: Server, log: SignedLedger, earlier: int, size: int | None = None) -> None:
    """Let OMEGA answer with what `log` can show."""
    size = size or log.size
    body = json.dumps({"proof": [node.hex() for node in log.proof(earlier, size)]}).encode()
    server.answers[path_of(earlier, size)] = lambda handler: reply(handler, 200, body)


def refused(client: ReleaseClient, told: str, kind: type[TrustError] = LogError) -> None:
    accepted = client.highest_release_seq("stable")
    with pytest.raises(kind) as error:
        client.latest_release("stable")
    assert type(error.value) is kind
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert client.highest_release_seq("stable") == accepted


def test_a_log_that_goes_on_is_followed_and_asked_for_once(
    world: World, server: Server, client: ReleaseClient, log: SignedLedger, tmp_path: Path
) -> None:
    first = log.size
    world.publish(document(1, log=log.entry()))
    assert client.latest_release("stable").release_seq == 1
    assert not any("log" in path for path in server.asked)
    world.publish(document(2, log=log.grow()))
    prove(server, log, first)
    assert client.latest_release("stable").release_seq == 2
    assert server.asked.count(path_of(first, log.size)) == 1
    server.asked.clear()
    assert client.latest_release("stable").release_seq == 2
    world.publish(document(3, log=log.entry()))
    assert client.latest_release("stable").release_seq == 3
    assert not any("log" in path for path in server.asked)
    remembered = LogEntry.model_validate_json((tmp_path / "cache/log.json").read_bytes())
    assert open_log(remembered).size == log.size


def test_a_log_is_first_seen_by_a_mainframe_of_before(world: World, client: ReleaseClient, log: SignedLedger) -> None:
    world.publish(document(1))
    assert client.latest_release("stable").log is None
    world.publish(document(2, log=log.entry()))
    assert client.latest_release("stable").release_seq == 2
    world.publish(document(3))
    refused(client, "signed without the log")


def test_a_rewritten_log_is_refused_however_omega_helps(
    world: World, server: Server, client: ReleaseClient, log: SignedLedger, tmp_path: Path
) -> None:
    first = log.size
    world.publish(document(1, log=log.entry()))
    client.latest_release("stable")
    forged = log.rewritten(tmp_path / "forged")
    forged.grow()
    world.publish(document(2, log=forged.entry()))
    refused(client, "OMEGA does not show that the log goes on")
    prove(server, forged, first)
    refused(client, "rewritten or forked")
    server.answers[path_of(first, forged.size)] = lambda handler: reply(handler, 200, b'{"proof": []}')
    refused(client, "rewritten or forked")
    honest = document(3, log=log.grow())
    prove(server, log, first)
    world.publish(honest)
    assert client.latest_release("stable").release_seq == 3


def test_a_fork_is_refused_at_the_same_size_and_beyond(
    world: World, server: Server, client: ReleaseClient, log: SignedLedger, tmp_path: Path
) -> None:
    fork = log.rewritten(tmp_path / "fork")
    world.publish(document(1, log=log.entry()))
    client.latest_release("stable")
    assert fork.size == log.size
    world.publish(document(2, log=fork.entry()))
    refused(client, "The log was rewritten or forked: its first")
    fork.grow()
    world.publish(document(3, log=fork.entry()))
    prove(server, fork, log.size)
    refused(client, "rewritten or forked")


def test_a_log_that_was_cut_off_is_refused(
    world: World, client: ReleaseClient, log: SignedLedger, tmp_path: Path
) -> None:
    world.publish(document(1, log=log.entry()))
    client.latest_release("stable")
    shorter = log.truncated(tmp_path / "shorter", 9)
    world.publish(document(2, log=shorter.entry()))
    refused(client, f"was cut: it had {log.size} events, and has 9")


def test_another_ledger_is_another_log(world: World, client: ReleaseClient, log: SignedLedger, tmp_path: Path) -> None:
    world.publish(document(1, log=log.entry()))
    client.latest_release("stable")
    world.publish(document(2, log=SignedLedger(tmp_path / "other", updates=9).entry()))
    refused(client, "The log is another one")


def test_another_key_for_the_same_log_is_for_the_approvers_to_name(
    world: World, client: ReleaseClient, log: SignedLedger
) -> None:
    world.publish(document(1, log=log.entry()))
    client.latest_release("stable")
    found = open_log(log.entry())
    signer = Signer(found.origin, Ed25519PrivateKey.generate())
    entry = LogEntry(checkpoint=signer.sign(found.text), key=signer.verifier.vkey)
    world.publish(document(2, log=entry))
    assert client.latest_release("stable").release_seq == 2


def test_a_checkpoint_that_its_key_did_not_sign_is_refused(
    world: World, client: ReleaseClient, log: SignedLedger
) -> None:
    entry = log.entry()
    found = open_log(entry)
    stranger = Signer(found.origin, Ed25519PrivateKey.generate())
    elsewhere = Signer("ashat-deploy/elsewhere", Ed25519PrivateKey.generate())
    forgeries = [
        (LogEntry(checkpoint=stranger.sign(found.text), key=entry.key), "not by"),
        (LogEntry(checkpoint="no note", key=entry.key), "no signed checkpoint"),
        (LogEntry(checkpoint=entry.checkpoint, key="no key"), "no verifier key"),
        (LogEntry(checkpoint=elsewhere.sign(found.text), key=elsewhere.verifier.vkey), "of another one"),
        (LogEntry(checkpoint=elsewhere.sign("text\n"), key=elsewhere.verifier.vkey), "three lines"),
    ]
    for seq, (forged, told) in enumerate(forgeries, 1):
        world.publish(document(seq, log=forged))
        refused(client, told)


def test_an_answer_that_is_no_proof_is_told_as_such(
    world: World, server: Server, client: ReleaseClient, log: SignedLedger
) -> None:
    first = log.size
    world.publish(document(1, log=log.entry()))
    client.latest_release("stable")
    world.publish(document(2, log=log.grow()))
    place = path_of(first, log.size)
    for body in (b"[]", b'{"proof": ["0"]}', b"\xff"):
        server.answers[place] = lambda handler, body=body: reply(handler, 200, body)  # type: ignore[misc]
        refused(client, "no proof that this version can read")
    server.answers[place] = lambda handler: reply(handler, 200, b" " * 100_000)
    refused(client, "cut off", OversizedError)


def test_what_is_remembered_is_not_lost_in_silence(
    world: World, client: ReleaseClient, log: SignedLedger, tmp_path: Path
) -> None:
    world.publish(document(1, log=log.entry()))
    client.latest_release("stable")
    memory = tmp_path / "cache/log.json"
    assert memory.stat().st_mode & 0o777 == 0o600
    memory.write_text("{")
    refused(client, "it holds something else; ashat-node forget-log gives that up")


def test_an_empty_log_goes_on_as_any(world: World, server: Server, client: ReleaseClient, tmp_path: Path) -> None:
    log = SignedLedger(tmp_path / "fresh")
    empty = log.entry()
    assert open_log(empty) == Checkpoint(open_log(empty).origin, 0, open_log(empty).root)
    world.publish(document(1, log=empty))
    client.latest_release("stable")
    world.publish(document(2, log=log.grow()))
    assert client.latest_release("stable").release_seq == 2


def test_an_approver_signs_for_no_log_but_the_one_they_know(
    log: SignedLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(ledger: SignedLedger) -> None:
        monkeypatch.setenv("ASHAT_LEDGER_URL", ledger.url)

    def fails(entry: LogEntry, told: str) -> None:
        with pytest.raises((AuditError, LedgerError), match=told):
            check_log(entry)

    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "approver"))
    earlier = log.entry()
    shorter, forged = log.truncated(tmp_path / "shorter", 9), log.rewritten(tmp_path / "forged")
    reads(log)
    check_log(earlier)
    check_log(log.grow())
    check_log(earlier)
    check_log(None)
    fails(forged.entry(), "are not those that it had")
    fails(SignedLedger(tmp_path / "other", updates=3).entry(), "is of another log")
    for ledger in (forged, shorter):
        reads(ledger)
        fails(ledger.entry(), "of the ledger are missing: ")
    forged.grow()
    reads(forged)
    fails(forged.entry(), "are not those that it had")
