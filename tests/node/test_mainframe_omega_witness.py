"""A Mainframe remembers what OMEGA's journal of changes was, and takes nothing from an OMEGA that wrote it anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ashat.common.identifiers import new_key
from ashat.node.cli.forget import forget_change_log
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database
from ashat.node.logs.change_log_audit import read_changes
from ashat.node.mainframe.omega_client import OmegaClient
from ashat.node.mainframe.omega_witness import OmegaWitness, WitnessStatus
from ashat.protocol.messages import CHANGE_LOG_HEADER, Offer, Role, Scope
from ashat.transparency.witness import Witness
from tasks.servers.drift import doubts
from tests.support.builders.signers import Customer
from tests.support.builders.tampered_change_log import done, forget, told
from tests.support.fakes.bad_network import answering
from tests.support.processes.node import NodeProcess, tiny_app
from tests.support.processes.node_cli import Run, runner
from tests.support.processes.omega import eventually, licence, mainframe, ship, source

ashat_node = pytest.fixture(runner)
REWRITTEN = "omega: its journal of changes was rewritten or forked: its first "


def kinds(data: Path) -> list[str]:
    with closing(Database(data / "node.db")) as database:
        return [change.facts["kind"] for change in read_changes(database)]


def test_a_mainframe_takes_nothing_from_an_omega_that_wrote_its_journal_anew(tmp_path: Path, ashat_node: Run) -> None:
    with (
        NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as omega,
        Customer(tmp_path / "acme", omega, unsigned_releases=True) as acme,
        omega.client() as client,
    ):
        witness = Witness.of_changes(acme.data, "omega")
        first = ship(client, source(tmp_path))
        acme.wait_for("running", "runs here")
        assert witness.size() > 0
        assert kinds(acme.data).count("omega-journal-remembered") == 1
        before = witness.size()
        licence(client, "another")
        eventually(lambda: witness.size() > before, "the journal is followed", acme)

        omega.stop()
        with closing(Database(omega.data / "node.db")) as database:
            forget(database)
            done(database, *"abcdefghijklmnopqrstuvwxyz")
        omega.start()
        acme.wait_for("refused", "runs here, and OMEGA is not believed", REWRITTEN)
        with acme.client() as mine:
            agent = mine.state().agent
        assert agent is not None
        assert agent.journal.startswith(REWRITTEN)
        eventually(lambda: mainframe(client, acme.key).journal.startswith(REWRITTEN), "it is reported", acme)
        with omega.client(Scope.READ) as reader:
            assert [told[:14] for told in doubts(reader)] == ["acme reports: "]
        code, listed, _ = ashat_node("licence", "list", "--data", omega.data)
        assert (code, f"it reports: {REWRITTEN}" in listed) == (0, True)

        second = ship(client, source(tmp_path), "UPD-2")
        acme.wait_for("refused", "UPD-2/1", "is refused", REWRITTEN, "What runs here keeps running.")
        acme.restart()
        acme.wait_for("refused", "UPD-2/1", REWRITTEN)
        assert acme.runs == first.bundle
        found = eventually(lambda: mainframe(client, acme.key), "a report", acme)
        assert (found.result, found.reason.startswith("refused: omega: its journal")) == ("failed", True)
        assert "omega-journal-doubted" in kinds(acme.data)

        assert ashat_node("forget-journal", "--data", acme.data) == (
            0,
            "Forgotten. The journal that OMEGA shows next is remembered as it comes: nothing vouches for it.\n",
            "",
        )
        acme.wait_for("running", "UPD-2/1")
        assert acme.runs == second.bundle
        eventually(lambda: mainframe(client, acme.key).journal == "", "nothing is wrong any more", acme)
        assert kinds(acme.data).count("omega-journal-forgotten") == 1
        code, _, why = ashat_node("forget-journal", "--data", omega.data)
        assert (code, "remembers no OMEGA's journal of changes: nothing was changed" in why) == (2, True)


class Played:
    """What a Mainframe sees of an OMEGA that answers what it is told to."""

    def __init__(self, directory: Path) -> None:
        (directory / "data").mkdir()
        self.data = directory / "data"
        self.database = Database(self.data / "node.db")
        self.database.set_meta("role", Role.MAINFRAME)
        self.watch = OmegaWitness(self.data, self.database)
        self.key = directory / "licence"
        self.key.write_text(new_key())
        self.key.chmod(0o600)

    def look(self, **said: str) -> WitnessStatus:
        """After an answer with these bodies by path; `size` is what the header says."""
        identity = {"role": "omega", "name": "o", "node_version": "1", "current": None, "status": "idle"}
        offered = Offer(release_seq=1, bundle="a" * 64, update_id="UPD-1", attempt=1).model_dump_json()
        headers = {CHANGE_LOG_HEADER: said.pop("size")} if "size" in said else {}
        bodies = {"/v1/identity": json.dumps(identity), "/v1/mainframe/release": offered}
        bodies |= {f"/v1/mainframe/journal?since={path[1:]}": body for path, body in said.items()}
        with answering(200, b"nothing", headers, bodies={path: body.encode() for path, body in bodies.items()}) as url:
            link = OmegaClient(NodeConfig(role=Role.MAINFRAME, data=self.data, omega=url, license_file=self.key))
            link.open()
            try:
                link.ask(None, 0)
                return self.watch.look(link)
            finally:
                link.close()


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    made = Played(tmp_path)
    yield made
    made.database.close()


@contextmanager
def journal(directory: Path) -> Iterator[Database]:
    directory.mkdir()
    with closing(Database(directory / "node.db")) as database:
        yield database


def test_an_omega_that_shows_no_journal_is_tolerated_and_told_of_once_it_did(played: Played, tmp_path: Path) -> None:
    assert played.look() == WitnessStatus()
    assert played.look(size="many") == WitnessStatus()
    with journal(tmp_path / "omega") as omega:
        done(omega, *"ab")
        assert played.look(size="3", s0=told(omega).model_dump_json()) == WitnessStatus()
    # The same size again is not asked about.
    assert played.look(size="3") == WitnessStatus()
    standing = played.look()
    assert standing.words.startswith("OMEGA shows its journal of changes no more, which it did before")
    assert not standing.refuses
    assert played.look(size="3") == WitnessStatus()


@pytest.mark.parametrize("again", ["abcd", "a"])
def test_what_does_not_continue_it_is_kept_and_holds_until_it_is_given_up(
    played: Played, tmp_path: Path, again: str
) -> None:
    with journal(tmp_path / "omega") as omega:
        done(omega, *"ab")
        honest = told(omega)
        played.look(size="3", s0=honest.model_dump_json())
        forget(omega)
        done(omega, *again)
        forged = told(omega, 3)
        standing = played.look(size=str(len(again) + 1), s3=forged.model_dump_json())
    assert standing.refuses
    assert "its journal of changes was " in standing.words
    assert "ashat-node forget-journal on this Mainframe begins anew" in standing.words
    # What was signed both times is kept, and the honest one again mends nothing.
    kept = json.loads((played.data / "witnessed/omega.doubt.json").read_bytes())
    assert kept["told"]["checkpoint"] == forged.checkpoint
    assert json.loads((played.data / "witnessed/omega.json").read_bytes())["checkpoint"] == honest.checkpoint
    assert played.look(size="3") == standing
    assert played.look() == standing
    forget_change_log(played.data)
    assert played.look() == WitnessStatus()
    assert not any((played.data / "witnessed").iterdir())


def test_what_is_damaged_here_or_cannot_be_read_there_is_not_believed(played: Played, tmp_path: Path) -> None:
    with journal(tmp_path / "omega") as omega:
        done(omega, *"ab")
        honest = told(omega)
        altered = honest.model_copy(update={"checkpoint": honest.checkpoint.replace("\n3\n", "\n4\n")})
        standing = played.look(size="3", s0=altered.model_dump_json())
        assert standing.refuses
        assert not (played.data / "witnessed").exists()
        played.look(size="3", s0=honest.model_dump_json())
    (played.data / "witnessed/omega.json").write_text("{}")
    standing = played.look(size="3")
    assert standing.refuses
    assert "it holds something else; ashat-node forget-journal" in standing.words
    (played.data / "witnessed/omega.doubt.json").write_text("[]")
    assert "cannot be read; ashat-node forget-journal" in played.look(size="3").words
