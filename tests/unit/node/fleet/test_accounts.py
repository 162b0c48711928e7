"""How the benches of a fleet account for each Mainframe: what does not fit is named."""

from __future__ import annotations

import sqlalchemy as sa

from ashat.common.identifiers import new_key
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.tables import members, reports, waves
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.messages import Offer
from ashat.rollouts.policy import RolloutPolicy
from bench.fleet_kit import account

OFFER = Offer(release_seq=7, bundle="a" * 64, update_id="UPD-7", attempt=1)


def faults(fleet: Fleet, mainframes: int = 3) -> list[str]:
    return account(fleet.database, "r", OFFER.release_seq).faults(mainframes)


def test_one_too_few_one_twice_and_a_counter_that_lies_are_found(fleet: Fleet) -> None:
    kept = [licence for licence, _ in fleet.licences.keep_all([(new_key(), f"M{n}", None) for n in range(3)])]
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    runs = MainframeReport(release_seq=7, bundle="a" * 64, result="running")
    for licence in kept[:2]:
        fleet.mainframes.report(licence, runs).result(10)
    assert faults(fleet) == []
    assert faults(fleet, 4) == ["3 rows of 3 Mainframes, not of 4"]
    fleet.database.change(lambda to: to.execute(waves.update().values(succeeded=3)))
    assert "the counters say" in faults(fleet)[0]
    fleet.database.change(lambda to: to.execute(waves.update().values(succeeded=2)))
    again = sa.select(reports.c.licence, *(reports.c[name] for name in ("release_seq", "bundle", "result", "reason")))
    again = again.add_columns(reports.c.first_at, reports.c.last_at).where(reports.c.licence == kept[0].id)
    columns = ["licence", "release_seq", "bundle", "result", "reason", "first_at", "last_at"]
    fleet.database.change(lambda to: to.execute(reports.insert().from_select(columns, again)))
    assert faults(fleet) == ["3 reports of 2 Mainframes say that they run it, and 2 rows"]
    fleet.database.change(lambda to: to.execute(members.delete().where(members.c.licence == kept[2].id)))
    assert "2 rows of 2 Mainframes, not of 3" in faults(fleet)[0]
