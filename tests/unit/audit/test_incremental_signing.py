"""A log that is signed again: only what came since is read, and what was signed before is what that continues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ashat.audit.auditor import Auditor
from ashat.audit.sign import audit_log, sign_log, sign_on
from ashat.errors import AuditError
from ashat.ledger.ledger import Ledger
from ashat.transparency.merkle import CompactRange, leaf_hash
from tests.support.builders.ledgers import execute, rewrite
from tests.support.builders.tampered_log import SignedLedger


@pytest.fixture
def log(tmp_path: Path) -> SignedLedger:
    return SignedLedger(tmp_path / "ledger", updates=2)


def sign(log: SignedLedger, home: Path) -> tuple[str, int]:
    """The checkpoint, and how many events were read for it."""
    with Ledger.open(log.url) as ledger:
        signed = sign_on(ledger, home)
    return signed.note, len(signed.hashes)


def kept(home: Path) -> Path:
    (found,) = home.glob("audit/*/checkpoint.frontier")
    return found


def test_what_was_signed_is_not_read_again_and_the_checkpoint_is_the_same(log: SignedLedger, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, read = sign(log, home)
    assert read == log.size
    assert sign(log, home) == (first, 0)
    before = log.size
    log.grow()
    note, read = sign(log, home)
    assert read == log.size - before
    with Ledger.open(log.url) as ledger:
        assert sign_log(ledger, home).note == note
    log.grow()
    with Ledger.open(log.url) as ledger:
        everything = sign_log(ledger, home)
    assert sign(log, home) == (everything.note, 0)


@pytest.mark.parametrize("spoiled", [None, b"", b"x", b"00" * 32, b"\xff"])
def test_without_the_tree_of_the_last_checkpoint_all_of_it_is_read(
    log: SignedLedger, tmp_path: Path, spoiled: bytes | None
) -> None:
    note, read = sign(log, tmp_path / "home")
    if spoiled is None:
        kept(tmp_path / "home").unlink()
    elif spoiled == b"\xff":
        kept(tmp_path / "home").write_bytes(b"".join(leaf.hex().encode() + b" " for leaf in log.leaves))
    else:
        kept(tmp_path / "home").write_bytes(spoiled)
    assert sign(log, tmp_path / "home") == (note, read)
    assert sign(log, tmp_path / "home") == (note, 0)


@pytest.mark.parametrize("grows", [False, True], ids=["nothing since", "events since"])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda log: rewrite(log.url, 3, lambda event: event.update(by="noa")), "are not those that it had"),
        (lambda log: execute(log.url, "delete from events where seq >= 9"), "is missing"),
        (lambda log: execute(log.url, "update events set root = '00' where seq = 15"), "are not those that it had"),
    ],
    ids=["rewritten", "cut off", "altered at its end"],
)
def test_a_log_that_does_not_go_on_from_what_was_signed_is_not_signed(
    log: SignedLedger, tmp_path: Path, harm: Callable[[SignedLedger], None], told: str, grows: bool
) -> None:
    sign(log, tmp_path / "home")
    assert log.size == 16
    harm(log)
    if grows:
        with Ledger.open(log.url) as ledger:
            ledger.create("UPD-9", ledger.events("UPD-1", 1)[0])  # type: ignore[arg-type]
    with pytest.raises(AuditError, match=told):
        sign(log, tmp_path / "home")


def test_an_event_that_is_altered_after_it_was_signed_for_is_in_no_checkpoint(
    log: SignedLedger, tmp_path: Path
) -> None:
    note, _ = sign(log, tmp_path / "home")
    honest = log.leaves
    execute(log.url, "update events set body = replace(body, 'kim', 'eve') where seq = 0")
    assert sign(log, tmp_path / "home")[0] == note, "it is of the events as they were"
    with Ledger.open(log.url) as ledger:
        assert leaf_hash(next(ledger.records()).leaf) != honest[0]
        with pytest.raises(AuditError, match=r"Event 1 .* does not fit"):
            sign_log(ledger, tmp_path / "home")


def test_a_log_is_read_from_any_tree_that_it_began_with(log: SignedLedger) -> None:
    leaves = log.leaves
    with Ledger.open(log.url) as ledger:
        whole = audit_log(ledger, Auditor(appended=log.size))
        for size in range(log.size + 1):
            tree = CompactRange()
            for leaf in leaves[:size]:
                tree.append(leaf)
            part = audit_log(ledger, Auditor(appended=log.size, documents=False, stories=False, begun=tree))
            assert (part.root, part.size, part.hashes) == (whole.root, whole.size, leaves[size:])
            assert [record.seq for record in ledger.records(first=size)] == list(range(size, log.size))
