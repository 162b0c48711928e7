"""Waves over real agents: who gets a release when, what stops it, who tries again; and kill -9 of OMEGA in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id
from ashat.errors import NodeConflictError, NodeUnreachableError
from ashat.protocol.fleet import RolloutState
from ashat.protocol.messages import Current, Offer, Role
from ashat.rollouts.policy import RolloutPolicy, WaveRule
from tests.node.test_mainframe import Install
from tests.support.processes.node import NodeProcess, push, tiny_app, tiny_bundle
from tests.support.processes.omega import eventually, promote, roll_back, running, ship, source

POLICY = RolloutPolicy(
    waves=(WaveRule(name="internal", label="ring=internal"), WaveRule(name="customers", rest=True)),
    soak_seconds=0,
    success_percent=50,
    failure_least=1,
    failure_percent=0,
)


@pytest.fixture
def omega(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as node:
        yield node


@pytest.fixture
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


def begin(client: NodeClient, current: Current, policy: RolloutPolicy = POLICY) -> RolloutState:
    wanted = Offer.model_validate(current, from_attributes=True)
    return client.begin_rollout(f"{current.update_id}.{current.release_seq}", wanted, policy)


def counted(client: NodeClient, rollout: str, wave: int, **wanted: int) -> RolloutState:
    """The rollout, once so many Mainframes of that wave stand as wanted."""

    def look() -> RolloutState | None:
        state = client.rollout(rollout)
        counts = state.waves[wave].counts._asdict()
        return state if all(counts[name] == count for name, count in wanted.items()) else None

    return eventually(look, f"wave {wave} of {rollout} with {wanted}")


def test_a_release_goes_out_in_waves_and_the_bad_one_stops_after_the_first(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        inside, *others = [
            stack.enter_context(Install(tmp_path / name, omega, picky=name == "ina")) for name in ("ina", "bob", "cyd")
        ]
        identity = licence_id(inside.key)
        assert client.label(identity, {"ring": "internal"}).labels == {"ring": "internal"}
        old = ship(client, source(tmp_path), "UPD-1")
        for each in (inside, *others):
            each.wait_until_runs(old)

        new = promote(client, push(client, source(tmp_path)), "UPD-2")
        rollout = begin(client, new).id
        assert [wave.counts.size for wave in client.rollout(rollout).waves] == [1, 2]
        client.open_waves(rollout, 0, "the first wave")
        inside.wait_until_runs(new)
        counted(client, rollout, 0, succeeded=1)
        for each in others:
            assert each.state().current.bundle == old.bundle
        client.open_waves(rollout, 1, "it went well")
        for each in others:
            each.wait_until_runs(new)
        counted(client, rollout, 1, succeeded=2)
        assert client.decide_rollout(rollout, "complete", "all of them").status == "completed"

        bad = promote(client, push(client, tiny_bundle(tmp_path / "bad", **{"not-here": ""})), "UPD-3")
        rollout = begin(client, bad).id
        client.open_waves(rollout, 0, "the first wave")
        stopped = counted(client, rollout, 0, failed=1)
        assert (stopped.status, stopped.waves[1].counts.waiting) == ("paused", 2)
        (group,) = client.rollout_failures(rollout)
        assert (group.count, group.names) == (1, ["ina"])
        with pytest.raises(NodeConflictError, match="is paused, so nothing can open a wave of it"):
            client.open_waves(rollout, 1, "although")
        for each in (inside, *others):
            assert each.state().current.bundle == new.bundle
        assert client.retry_rollout(rollout) == 1
        client.decide_rollout(rollout, "resume", "it may have been the machine")
        stopped = counted(client, rollout, 0, failed=1)
        assert client.rollout_members(rollout, ["failed"])[0].tries == 1


@pytest.mark.parametrize("point", ["rollout.began", "rollout.opened", "rollout.decided"])
def test_a_killed_omega_goes_on_where_it_was(point: str, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as omega, omega.client() as client:
        current = promote(client, push(client, source(tmp_path)), "UPD-1")
        omega.restart({"ASHAT_FAULT": point})

        def acts() -> str:
            rollout = begin(client, current, RolloutPolicy.all_at_once()).id
            if client.rollout(rollout).status == "running":
                client.open_waves(rollout, 0, "")
            client.decide_rollout(rollout, "complete", "nobody is there")
            return rollout

        with pytest.raises(NodeUnreachableError):
            acts()
        omega.wait_until_dead()
        omega.restart()
        state = client.rollout(acts())
        assert (state.status, state.waves[0].opened_at is not None) == ("completed", True)
        assert client.state().offer == state.offer


def versioned(version: str, *origins: str) -> dict[str, str]:
    named = f"installable_from = {list(origins)!r}\n".replace("'", '"') if origins else ""
    return {"raos.toml": f'[raos]\nname = "tiny"\nversion = "{version}"\n{named}'}


def test_a_release_is_never_tried_where_it_cannot_be_installed_from_what_runs(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    with Install(tmp_path / "behind", omega) as behind, Install(tmp_path / "new", omega, plain=True) as empty:
        empty.stop()
        old = ship(client, source(tmp_path, **versioned("1")), "UPD-1")
        behind.wait_until_runs(old)
        third = source(tmp_path, **versioned("3", "2"))

        # OMEGA names it, and offers it nothing.
        new = promote(client, push(client, third), "UPD-3")
        rollout = begin(client, new, RolloutPolicy.all_at_once()).id
        client.open_waves(rollout, 0, "all")
        assert client.rollout(rollout).counts.size == 1
        (group,) = client.rollout_failures(rollout)
        why = "3 is installed only from 2, and this Mainframe runs 1"
        assert (group.state, group.reason, group.names) == ("barred", why, ["behind"])
        assert why in next(one.waits for one in client.mainframes() if one.name == "behind")
        # One that runs nothing has nothing to come from.
        empty.start()
        counted(client, rollout, 0, succeeded=1)
        assert behind.state().current.bundle == old.bundle

        # Where OMEGA says nothing of waves, the Mainframe refuses by itself; nothing was switched.
        again = ship(client, source(tmp_path, **versioned("3.1", "2", "3")), "UPD-4")
        found = behind.wait_for("refused", "UPD-4", "is not tried: 3.1 is installed only from 2, 3", "runs 1")
        assert "keeps running" in found.detail
        state = behind.state()
        assert (state.current.bundle, state.release_seq) == (old.bundle, old.release_seq)
        empty.wait_until_runs(again)

        # The stepping stone is a release of its own; after it the way is free, and a rollback is no installation.
        stone = ship(client, source(tmp_path, **versioned("2")), "UPD-5")
        behind.wait_until_runs(stone)
        last = promote(client, push(client, third), "UPD-6")
        rollout = begin(client, last, RolloutPolicy.all_at_once()).id
        client.open_waves(rollout, 0, "all")
        behind.wait_until_runs(last)
        assert roll_back(client).status == "succeeded"
        behind.wait_until_runs(running(client))
        assert behind.state().current.bundle == stone.bundle
