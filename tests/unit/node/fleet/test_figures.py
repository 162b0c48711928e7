"""The fleet's figures: true, with bounded labels, and there to be scraped when the database is not."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ashat.common.identifiers import new_key
from ashat.errors import FleetDatabaseError
from ashat.node.omega.fleet.figures import OTHER, RELEASES, FleetFigures
from ashat.node.omega.fleet.fleet import Fleet
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.messages import Offer
from ashat.rollouts.policy import RolloutPolicy, WaveRule


def scraped(fleet: Fleet) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(FleetFigures(fleet.database))
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_mainframes_are_counted_by_release_and_result_with_bounded_labels(fleet: Fleet) -> None:
    assert scraped(fleet)["ashat_omega_fleet_up"] == 1
    made = [kept for kept, _ in fleet.licences.keep_all([(new_key(), f"M{n}", None) for n in range(30)])]
    for number, each in enumerate(made[:25]):
        seq = min(number // 2, 11) + 1
        result = "failed" if number % 2 else "running"
        report = MainframeReport.model_validate({"release_seq": seq, "bundle": f"{seq:064x}", "result": result})
        fleet.mainframes.report(each, report).result()
    evil = 'evil"} 1\n# \u202e'
    offer = Offer(release_seq=12, bundle=f"{12:064x}", update_id=evil, attempt=1)
    policy = RolloutPolicy(waves=(WaveRule(name="canary", count=3), WaveRule(name="rest", rest=True)))
    fleet.rollouts.begin("r", offer, policy, "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    fleet.licences.revoke(made[0].id)

    found = scraped(fleet)
    mainframes = {name: value for name, value in found.items() if name.startswith("ashat_omega_mainframes")}
    assert sum(mainframes.values()) == 29
    assert mainframes['ashat_omega_mainframes{result="none",version="none"}'] == 5
    assert mainframes['ashat_omega_mainframes{result="failed",version="other"}'] == 2
    assert mainframes['ashat_omega_mainframes{result="running",version="other"}'] == 1
    assert len({name.partition("version=")[2] for name in mainframes}) == RELEASES + 2
    assert OTHER in str(mainframes)
    assert not any("\u202e" in name or "\n" in name for name in found)
    assert [value for name, value in found.items() if 'status="running"' in name] == [1]
    assert found['ashat_omega_licences{status="revoked"}'] == 1
    members = {name: value for name, value in found.items() if name.startswith("ashat_omega_rollout_mainframes")}
    assert len(members) == 2 * 6
    assert sum(members.values()) == fleet.rollouts.state("r").counts.size


def test_a_database_that_does_not_answer_is_one_figure(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FleetDatabaseError("it is away")

    monkeypatch.setattr(fleet.database, "reading", fail)
    assert scraped(fleet) == {"ashat_omega_fleet_up": 0.0}
