"""What a Mainframe makes of the logs in a file that was carried to it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError

from ashat.errors import NodeRefusedError, SignatureExpiredError, TrustError
from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.logs.change_log_proofs import ChangeLogProofs
from ashat.node.mainframe.carried import CarriedRepository, check_change_log, check_unexpired
from ashat.protocol.carried import OmegaWord
from ashat.protocol.messages import Offer
from ashat.transparency.merkle import consistency_holds, leaf_hash, root_of
from ashat.transparency.witness import Witness

OFFER = Offer(release_seq=3, bundle="b" * 64, update_id="UPD-1", attempt=1)
LEAVES = [leaf_hash(str(number).encode()) for number in range(20)]


def word(**changes: object) -> OmegaWord:
    fields = {"omega": "omega", "mainframe": "1" * 12, "name": "acme", "at": datetime.now(UTC), "offer": OFFER}
    return OmegaWord.model_validate(fields | changes)


def fetched(said: OmegaWord, address: str) -> bytes:
    return CarriedRepository(said).fetcher().download_bytes(address, 16_384)


def test_any_proof_of_the_ledgers_log_is_made_of_its_hashes() -> None:
    said = word(log=b"".join(LEAVES).hex())
    served = CarriedRepository(said)
    for earlier, size in ((1, 2), (7, 19), (13, 20), (20, 20), (0, 5)):
        answer = json.loads(fetched(said, served.consistency(earlier, size)))
        proof = [bytes.fromhex(node) for node in answer["proof"]]
        if earlier:
            assert consistency_holds(earlier, size, proof, root_of(LEAVES[:earlier]), root_of(LEAVES[:size]))
        else:
            assert proof == []
    for earlier, size in ((19, 21), (5, 4)):
        with pytest.raises(DownloadHTTPError) as refused:
            fetched(said, served.consistency(earlier, size))
        assert isinstance(refused.value.__cause__, NodeRefusedError)


def test_what_the_file_lacks_of_the_repository_is_not_there() -> None:
    said = word(trust={"timestamp.json": "{}"})
    assert fetched(said, CarriedRepository(said).file("timestamp.json")) == b"{}"
    with pytest.raises(DownloadHTTPError) as refused:
        fetched(said, CarriedRepository(said).file("2.root.json"))
    assert refused.value.status_code == 404


def test_what_waited_longer_than_its_approval_holds_is_refused() -> None:
    now = datetime.now(UTC)
    check_unexpired(OFFER, None, now)
    with pytest.raises(SignatureExpiredError, match="while it waited here"):
        check_unexpired(OFFER, now, now)


class Omega:
    """The change log of one OMEGA, in `directory`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.database = Database(directory / "node.db")
        change_log.begin(self.database)
        self.proofs = ChangeLogProofs(self.database, directory)

    def grow(self) -> None:
        with self.database.transaction() as connection:
            change_log.append(connection, "offered", update_id="UPD-1")

    def word(self) -> OmegaWord:
        checkpoint, leaves = self.proofs.whole()
        return word(checkpoint=checkpoint, changes=b"".join(leaves).hex())


@pytest.fixture
def omega(tmp_path: Path) -> Omega:
    return Omega(tmp_path / "omega")


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness.of_changes(tmp_path / "mainframe", "omega")


def test_a_change_log_that_continues_the_one_remembered_is_remembered(omega: Omega, witness: Witness) -> None:
    check_change_log(witness, omega.word())
    assert witness.known() is None, "nobody vouches for the first that comes in a file"
    witness.judge(omega.proofs.since(0))
    before, early = witness.size(), omega.word()
    for _ in range(5):
        omega.grow()
    check_change_log(witness, omega.word())
    assert witness.size() == before + 5
    check_change_log(witness, early)
    check_change_log(witness, word())
    assert witness.size() == before + 5, "a file that was exported before changes nothing"


def test_another_change_log_or_one_that_was_rewritten_is_refused(
    omega: Omega, witness: Witness, tmp_path: Path
) -> None:
    omega.grow()
    witness.judge(omega.proofs.since(0))
    size, known = witness.size(), witness.known()
    other = Omega(tmp_path / "other")
    for _ in range(5):
        omega.grow()
        other.grow()
    real, forged = omega.word(), other.word()
    for said in (forged, real.model_copy(update={"changes": forged.changes})):
        with pytest.raises(TrustError, match="The file is refused"):
            check_change_log(witness, said)
    assert (witness.size(), witness.known()) == (size, known)
