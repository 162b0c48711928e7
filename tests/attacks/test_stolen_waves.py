"""A thief of OMEGA and its waves: they can hold back what was approved, or hand it out early; never go back."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id
from ashat.protocol.messages import Offer, OperationRequest
from ashat.rollouts.policy import RolloutPolicy, WaveRule
from tests.support.builders.signers import Customer, People, demanding_omega, install_root
from tests.support.processes.node import NodeProcess, push
from tests.support.processes.omega import eventually, offer, perform, running, source

WAVES = RolloutPolicy(
    waves=(WaveRule(name="internal", label="ring=internal"), WaveRule(name="customers", rest=True)), soak_seconds=0
)


class Fleet:
    """An OMEGA that demands signatures, with customers; `baker` is in the first wave."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.people = People()
        self.omega: NodeProcess = stack.enter_context(demanding_omega(directory / "production"))
        root = install_root(self.omega, self.people, directory / "root.json")
        self.customers = {
            name: stack.enter_context(Customer(directory / name, self.omega, trust_root=str(root)))
            for name in ("baker", "miller", "cooper")
        }
        with self.omega.client() as client:
            client.label(licence_id(self.customers["baker"].key), {"ring": "internal"})

    def promote(self, client: NodeClient, update: str) -> tuple[str, OperationRequest | None]:
        """Have OMEGA run a release that was signed; its bundle, and the rollback that was signed with it."""
        wanted, back = self.people.promotion(client, push(client, source(self.directory)), update)
        assert perform(client, wanted).status == "succeeded"
        assert wanted.bundle is not None
        return wanted.bundle, back

    def begin(self, client: NodeClient) -> str:
        """Begin to roll out what OMEGA runs, with no wave open."""
        current = running(client)
        return client.begin_rollout(current.update_id, Offer.model_validate(current, from_attributes=True), WAVES).id

    def steal(self, file: str, *changes: tuple[str, tuple[object, ...]]) -> None:
        """Have the thief write to OMEGA's own databases while it is down."""
        self.omega.stop()
        with closing(sqlite3.connect(self.omega.data / file)) as database:
            for statement, values in changes:
                assert database.execute(statement, values).rowcount > 0, statement
            database.commit()
        self.omega.start()

    def wait_until_run(self, bundle: str, *names: str) -> None:
        """Wait until these customers run that bundle."""
        for name in names:
            customer = self.customers[name]
            eventually(lambda customer=customer: customer.runs == bundle, f"{name} to run {bundle[:12]}", customer)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_an_old_release_that_is_offered_after_the_rollout_ended_is_refused(fleet: Fleet) -> None:
    with fleet.omega.client() as client:
        old, _ = fleet.promote(client, "UPD-1")
        offer(client)
        fleet.wait_until_run(old, *fleet.customers)
        new, _ = fleet.promote(client, "UPD-2")
        rollout = fleet.begin(client)
        client.open_waves(rollout, 1, "all")
        fleet.wait_until_run(new, *fleet.customers)
        client.decide_rollout(rollout, "complete", "all run it")

    renamed = "UPDATE offer SET release_seq = ?, bundle = ?, update_id = 'UPD-1'"
    fleet.steal("node.db", (renamed, (1, old)))
    fleet.customers["baker"].wait_for("failed", "an older release is refused")
    fleet.steal("node.db", (renamed, (3, old)))
    fleet.customers["miller"].wait_for("refused", "the approvers signed release_seq 2 last, and not this one")
    fleet.steal("fleet.db", ("UPDATE rollouts SET status = 'running', release_seq = 3, bundle = ?", (old,)))
    fleet.customers["cooper"].wait_for("refused", "the approvers signed release_seq 2 last, and not this one")
    assert {customer.runs for customer in fleet.customers.values()} == {new}


def test_a_machine_that_is_moved_between_waves_gets_what_was_signed_or_nothing(fleet: Fleet) -> None:
    baker, miller = fleet.customers["baker"], fleet.customers["miller"]
    moved = "UPDATE members SET wave = ? WHERE licence = ? AND rollout = ?"
    with fleet.omega.client() as client:
        old, _ = fleet.promote(client, "UPD-1")
        offer(client)
        fleet.wait_until_run(old, *fleet.customers)
        new, _ = fleet.promote(client, "UPD-2")
        rollout = fleet.begin(client)
        fleet.steal(
            "fleet.db", (moved, (1, licence_id(baker.key), rollout)), (moved, (0, licence_id(miller.key), rollout))
        )
        client.open_waves(rollout, 0, "the first wave")
        fleet.wait_until_run(new, "miller")
        time.sleep(1.0)  # some turns of the others
        assert (baker.runs, fleet.customers["cooper"].runs) == (old, old), "held back, and nothing else"
        with baker.client() as own:
            state = own.state()
        assert state.current is not None
        assert state.current.release_seq == 1


def test_a_release_that_was_paused_is_kept_alive_only_for_who_has_not_seen_its_rollback(fleet: Fleet) -> None:
    cooper = fleet.customers["cooper"]
    with fleet.omega.client() as client:
        old, _ = fleet.promote(client, "UPD-1")
        offer(client)
        fleet.wait_until_run(old, *fleet.customers)
        cooper.stop()
        bad, back = fleet.promote(client, "UPD-2")
        rollout = fleet.begin(client)
        client.open_waves(rollout, 0, "the first wave")
        fleet.wait_until_run(bad, "baker")
        client.decide_rollout(rollout, "pause", "it is bad")

        # It was approved: a thief of OMEGA can hand it out although people paused it, and nothing else.
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000+00:00", time.gmtime())
        fleet.steal(
            "fleet.db",
            ("UPDATE rollouts SET status = 'running' WHERE id = ?", (rollout,)),
            ("UPDATE waves SET opened_at = ? WHERE rollout = ?", (now, rollout)),
        )
        fleet.wait_until_run(bad, "miller")
        kept = fleet.directory / "kept"
        fleet.omega.stop()
        shutil.copytree(fleet.omega.data, kept)
        fleet.omega.start()
        assert back is not None
        assert perform(client, back).status == "succeeded"
        fleet.wait_until_run(old, "baker", "miller")

        # The thief brings back all of OMEGA as it was before the rollback.
        fleet.omega.stop()
        shutil.rmtree(fleet.omega.data)
        shutil.copytree(kept, fleet.omega.data)
        fleet.omega.start()
        for name in ("baker", "miller"):
            customer = fleet.customers[name]
            eventually(lambda customer=customer: refuses(customer), f"{name} to refuse", customer)
            assert customer.runs == old
        # Who refuses stops the rollout, as soon as OMEGA hears of it; the thief goes on.
        eventually(lambda: client.rollout(rollout).status == "paused", "the rollout to stop", fleet.omega)
        fleet.steal("fleet.db", ("UPDATE rollouts SET status = 'running' WHERE id = ?", (rollout,)))
        cooper.start()
        fleet.wait_until_run(bad, "cooper")


def refuses(customer: Customer) -> bool:
    """Whether it says that it does not take what is offered."""
    with customer.client() as client:
        agent = client.state().agent
    words = ("an older release is refused", "change log")
    return agent is not None and agent.status in ("failed", "refused") and any(word in agent.detail for word in words)
