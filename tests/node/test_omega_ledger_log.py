"""OMEGA keeps the log that the approvers signed for and refuses another; a Mainframe does, whatever OMEGA says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.client.http import Transport
from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id
from ashat.errors import NodeAuthError, NodeConflictError, NodeRefusedError
from ashat.protocol.messages import LogLeaves, LogState, OperationRequest, Scope, SignedRelease
from ashat.trust.release.known_log import open_log
from ashat.trust.tuf.release_document import LogEntry, ReleaseDocument
from tests.support.builders.signers import Customer, People, demanding_omega, install_root
from tests.support.builders.tampered_log import SignedLedger
from tests.support.processes.node import NodeProcess, push
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually, offer, perform, running, source


@pytest.fixture
def omega(tmp_path: Path) -> Iterator[NodeProcess]:
    with demanding_omega(tmp_path / "production") as node:
        yield node


@pytest.fixture
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def root(omega: NodeProcess, people: People, tmp_path: Path) -> Path:
    """The root that the people made, as an installer brings it; OMEGA keeps it by then."""
    return install_root(omega, people, tmp_path / "root.json")


@pytest.fixture
def log(tmp_path: Path) -> SignedLedger:
    return SignedLedger(tmp_path / "ledger", updates=2)


class Shipping:
    """Ships tiny programs to OMEGA that stand in a log."""

    def __init__(self, client: NodeClient, people: People, directory: Path) -> None:
        self.client = client
        self._people = people
        self._directory = directory
        self._bundle = ""

    def wanted(self, entry: LogEntry | None) -> OperationRequest:
        """A promotion that two people signed."""
        self._bundle = push(self.client, source(self._directory))
        return self.signed(self._bundle, entry)

    def signed(self, bundle: str, entry: LogEntry | None) -> OperationRequest:
        """A promotion of that bundle that two people signed."""
        return self._people.promotion(self.client, bundle, "UPD-1", log=entry)[0]

    def ship(self, log: SignedLedger) -> str:
        """Promote one, and offer it; its bundle."""
        wanted = self.wanted(log.entry())
        keep(self.client, wanted, log)
        assert perform(self.client, wanted).status == "succeeded"
        offer(self.client)
        return self._bundle


def keep(client: NodeClient, wanted: OperationRequest, log: SignedLedger, first: int | None = None) -> LogState:
    """Send the log that `wanted` was signed for, from `first` on, else what OMEGA lacks."""
    kept = client.trust().log
    assert kept is not None
    assert wanted.signed is not None
    start = kept.size if first is None else first
    leaves = [leaf.hex() for leaf in log.leaves[start:]]
    return client.put_log(LogLeaves(signed=wanted.signed, first=start, leaves=leaves))


def refused(client: NodeClient, wanted: OperationRequest, code: str, *words: str) -> None:
    """See that OMEGA refuses it, and that nothing changed."""
    before = client.state()
    with pytest.raises(NodeConflictError) as error:
        client.start_operation(f"refused-{id(wanted)}", wanted)
    assert error.value.body["error"] == code
    assert all(word in str(error.value) for word in words), str(error.value)
    assert client.state().operation == before.operation


def not_kept(client: NodeClient, wanted: OperationRequest, log: SignedLedger, code: str, *words: str) -> None:
    """See that OMEGA keeps nothing of that log."""
    before = client.trust().log
    with pytest.raises(NodeConflictError) as error:
        keep(client, wanted, log)
    assert error.value.body["error"] == code
    assert all(word in str(error.value) for word in words), str(error.value)
    assert client.trust().log == before


def test_the_log_goes_to_omega_and_from_there_to_a_mainframe(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, log: SignedLedger, tmp_path: Path
) -> None:
    shipping = Shipping(client, people, tmp_path)
    assert client.trust().log == LogState()
    wanted = shipping.wanted(log.entry())
    refused(client, wanted, "log_missing", "OMEGA keeps 0 events", f"signed for {log.size}")
    first = keep(client, wanted, log)
    assert first == LogState(origin=open_log(log.entry()).origin, size=log.size, root=open_log(log.entry()).root.hex())
    assert keep(client, wanted, log, 0) == first
    assert perform(client, wanted).status == "succeeded"
    offer(client)
    with Customer(tmp_path / "baker", omega, trust_root=str(root)) as baker:
        baker.wait_for("running")
        assert baker.runs == wanted.bundle
        log.grow()
        second = shipping.ship(log)
        baker.wait_for("running", "release_seq 2")
        assert baker.runs == second
        remembered = LogEntry.model_validate_json((baker.data / "trust/log.json").read_bytes())
        assert open_log(remembered).size == log.size
        with omega.client(Scope.READ) as reader, pytest.raises(NodeAuthError):
            reader.transport.request("GET", "/v1/mainframe/log/consistency?from=0&to=1")
        with Transport(omega.url, licence=baker.key) as customer, pytest.raises(NodeRefusedError, match="no proof"):
            customer.request("GET", f"/v1/mainframe/log/consistency?from=0&to={log.size + 1}")


def test_omega_keeps_what_was_signed_for_and_nothing_else(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, log: SignedLedger, tmp_path: Path
) -> None:
    shipping = Shipping(client, people, tmp_path)
    wanted = shipping.wanted(log.entry())
    signed = wanted.signed
    assert signed is not None
    leaves = [leaf.hex() for leaf in log.leaves]

    def fails(code: str, given: LogLeaves) -> None:
        with pytest.raises(NodeConflictError) as error:
            client.put_log(given)
        assert error.value.body["error"] == code
        assert client.trust().log == LogState()

    fails("log_missing", LogLeaves(signed=signed, first=0, leaves=leaves[:-1]))
    fails("log_missing", LogLeaves(signed=signed, first=1, leaves=leaves[1:]))
    fails("log_forked", LogLeaves(signed=signed, first=0, leaves=[*leaves[:-1], "0" * 64]))
    fails("log_forked", LogLeaves(signed=signed, first=0, leaves=[leaves[1], leaves[0], *leaves[2:]]))
    alone = people.promotion(client, wanted.bundle or "", "UPD-1", people.keys[0], log=log.entry())[0].signed
    assert alone is not None
    fails("untrusted", LogLeaves(signed=alone, first=0, leaves=leaves))
    none = shipping.signed(wanted.bundle or "", None).signed
    assert none is not None
    fails("log_missing", LogLeaves(signed=none, first=0, leaves=leaves))
    entry = log.entry()
    false = shipping.signed(wanted.bundle or "", LogEntry(checkpoint=entry.checkpoint, key="no key")).signed
    assert false is not None
    fails("untrusted", LogLeaves(signed=false, first=0, leaves=leaves))
    with omega.client(Scope.PUSH) as pusher, pytest.raises(NodeAuthError):
        pusher.put_log(LogLeaves(signed=signed, first=0, leaves=leaves))
    given = client.put_log(LogLeaves(signed=signed, first=0, leaves=[*leaves, "0" * 64]))
    assert given.size == log.size, "what nobody signed for is not kept"
    omega.kill9()
    omega.start()
    assert client.trust().log == given


def test_without_a_root_nobody_can_say_which_log_counts(client: NodeClient, log: SignedLedger) -> None:
    unsigned = LogLeaves(signed=SignedRelease(document="{}", production="{}"), first=0)
    with pytest.raises(NodeConflictError) as error:
        client.put_log(unsigned)
    assert error.value.body["error"] == "trust_missing"


def test_omega_refuses_a_log_that_was_rewritten_cut_off_or_forked(
    client: NodeClient, people: People, root: Path, log: SignedLedger, tmp_path: Path
) -> None:
    shipping = Shipping(client, people, tmp_path)
    earlier = log.truncated(tmp_path / "earlier", 9)
    shipping.ship(log)
    kept = client.trust().log
    bundle = push(client, source(tmp_path))

    forked = log.rewritten(tmp_path / "forked")
    wanted = shipping.signed(bundle, forked.entry())
    not_kept(client, wanted, forked, "log_forked", "its first 16 events are not those that are kept")
    refused(client, wanted, "log_forked", "rewritten, cut off or forked")
    forked.grow()
    wanted = shipping.signed(bundle, forked.entry())
    not_kept(client, wanted, forked, "log_forked", "do not begin with the 16 that are kept")
    refused(client, wanted, "log_missing", "send them first")

    wanted = shipping.signed(bundle, earlier.entry())
    refused(client, wanted, "log_forked", "it has 9 events, and releases with 16 were offered already")
    earlier.grow()
    wanted = shipping.signed(bundle, earlier.entry())
    not_kept(client, wanted, earlier, "log_forked")

    other = SignedLedger(tmp_path / "other", updates=3)
    wanted = shipping.signed(bundle, other.entry())
    not_kept(client, wanted, other, "log_forked", "is kept")
    refused(client, wanted, "log_forked")

    refused(client, shipping.signed(bundle, None), "log_missing", "signed without the log")
    assert client.trust().log == kept
    log.grow()
    shipping.ship(log)


def test_the_way_back_stands_in_the_log_of_the_release(
    client: NodeClient, people: People, root: Path, log: SignedLedger, tmp_path: Path
) -> None:
    shipping = Shipping(client, people, tmp_path)
    first = shipping.ship(log)
    log.grow()
    bundle = push(client, source(tmp_path))
    second, back = people.promotion(client, bundle, "UPD-2", log=log.entry())
    keep(client, second, log)
    assert perform(client, second).status == "succeeded"
    offer(client)
    assert back is not None
    log.grow()
    assert perform(client, back).status == "succeeded"
    assert running(client).bundle == first
    offered = ReleaseDocument.from_bytes(client.trust().documents["stable"].encode())
    assert offered.log == ReleaseDocument.from_bytes((second.signed or back.signed).document.encode()).log  # type: ignore[union-attr]
    shipping.ship(log)


def test_a_way_back_that_omega_offers_by_itself_shows_its_log_too(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, log: SignedLedger, tmp_path: Path
) -> None:
    """Else what a Mainframe refuses as cut off, since it saw more of the log, could still be let in."""
    shipping = Shipping(client, people, tmp_path)
    first = shipping.ship(log)
    from_a_backup = log.grow()
    log.grow()
    second, back = people.promotion(client, push(client, source(tmp_path)), "UPD-2", log=log.entry())
    keep(client, second, log)
    assert back is not None
    with Customer(tmp_path / "baker", omega, trust_root=str(root)) as baker:
        baker.wait_for("running")
        for request in (second, back):
            assert perform(client, request).status == "succeeded"
        baker.wait_for("running", "release_seq 3")
        assert baker.runs == first
        remembered = LogEntry.model_validate_json((baker.data / "trust/log.json").read_bytes())
        assert open_log(remembered).size == log.size
        wanted = shipping.signed(push(client, source(tmp_path)), from_a_backup)
        refused(client, wanted, "log_forked", f"and releases with {log.size} were offered already")
        log.grow()
        third = shipping.ship(log)
        eventually(lambda: baker.runs == third, "the next release", baker)


def test_a_mainframe_does_not_follow_a_stolen_omega_into_another_log(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, log: SignedLedger, tmp_path: Path
) -> None:
    """The thief has OMEGA, its own keys, the ledger and its key, and approvers who were shown a forged ledger."""
    shipping = Shipping(client, people, tmp_path)
    honest = shipping.ship(log)
    with Customer(tmp_path / "baker", omega, trust_root=str(root)) as baker:
        baker.wait_for("running")
        omega.stop()
        told = ashat_node("forget-log", "--data", str(omega.data))
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.startswith("Forgotten.")
        omega.start()
        forged = log.rewritten(tmp_path / "forged")
        forged.grow()
        bundle = shipping.ship(forged)
        baker.wait_for("refused", "The log was rewritten or forked", "What runs here keeps running.")
        assert baker.runs == honest

        def reported() -> bool:
            (known,) = [found for found in client.mainframes() if found.id == licence_id(baker.key)]
            return known.result == "failed" and known.reason.startswith("refused: The log was rewritten or forked")

        eventually(reported, "its report", baker)

        told = ashat_node("forget-log", "--config", str(baker.config))
        assert told.returncode == 0, told.stderr
        baker.wait_for("running")
        assert baker.runs == bundle, "what its operator gave up on purpose is not asked for any more"
        (baker.data / "trust/log.json").unlink()
        told = ashat_node("forget-log", "--data", str(baker.data))
        assert (told.returncode, told.stdout) == (2, "")
        assert told.stderr == "ashat-node: This node knows of no log: nothing was changed.\n"
    told = ashat_node("forget-log", "--data", str(tmp_path))
    assert (told.returncode, told.stdout) == (2, "")
    assert "There is no node in" in told.stderr
