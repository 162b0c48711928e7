"""Rollouts as OMEGA keeps them: who may have a release when, what is counted, and what stops it by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import timedelta

import pytest

from ashat.common.identifiers import new_key
from ashat.node.core.db import now
from ashat.node.core.errors import ApiError
from ashat.node.logs.change_log_audit import read_changes
from ashat.node.omega.fleet import rollouts as module
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.licences import Licence
from ashat.node.omega.fleet.progress import STEPS
from ashat.node.omega.fleet.together import Told, tell
from ashat.protocol.fleet import PROGRAM_ENDED, PROGRAM_UNHEALTHY, GroupTroubles, MainframeReport
from ashat.protocol.messages import Offer
from ashat.rollouts.policy import RolloutPolicy, WaveRule

OFFER = Offer(release_seq=7, bundle="a" * 64, update_id="UPD-7", attempt=1)
NEXT = Offer(release_seq=8, bundle="b" * 64, update_id="UPD-8", attempt=1)
TWO_WAVES = RolloutPolicy(
    waves=(WaveRule(name="canary", count=3), WaveRule(name="rest", rest=True)),
    soak_seconds=0,
    failure_least=2,
    success_percent=50,
)
LABELLED = TWO_WAVES.model_copy(update={"waves": (WaveRule(name="x", label="a=b"), WaveRule(name="y", rest=True))})
Members = Callable[..., list[Licence]]


@pytest.fixture
def members(fleet: Fleet) -> Members:
    def make(count: int, **labels: str) -> list[Licence]:
        made = [kept for kept, _ in fleet.licences.keep_all([(new_key(), f"M{n}", None) for n in range(count)])]
        for each in made:
            if labels:
                fleet.mainframes.label(each.id, labels)
        return made

    return make


def told(fleet: Fleet, licences: list[Licence], offer: Offer = OFFER) -> list[Licence]:
    """Who of them is offered it now, all of whom ask at once."""
    asked: list[tuple[Licence, Future[Told]]] = [(each, tell(fleet.database, each.id, offer)) for each in licences]
    wait([future for _, future in asked])
    return [each for each, future in asked if future.result().tries is not None]


def say(fleet: Fleet, licence: Licence, result: str, reason: str = "", offer: Offer = OFFER) -> None:
    report = MainframeReport.model_validate(
        {"release_seq": offer.release_seq, "bundle": offer.bundle, "result": result, "reason": reason}
    )
    fleet.mainframes.report(licence, report).result()


def counts(fleet: Fleet, identity: str = "r") -> list[tuple[int, ...]]:
    return [tuple(wave.counts)[:-1] for wave in fleet.rollouts.state(identity).waves]


def counted_anew(fleet: Fleet, identity: str = "r") -> list[tuple[int, ...]]:
    """The counters as the members themselves have them."""
    names = ("waiting", "under_way", "succeeded", "failed", "unreachable", "accepted")
    found = Counter((each.wave, each.state) for each in fleet.rollouts.members(identity, (), None, 10_000))
    return [tuple(found[wave.number, name] for name in names) for wave in fleet.rollouts.state(identity).waves]


def test_a_wave_has_it_when_it_is_open_and_the_counters_are_those_of_the_members(
    fleet: Fleet, members: Members
) -> None:
    fleet_of = members(10)
    fleet.rollouts.begin("r", OFFER, TWO_WAVES, "kim")
    assert told(fleet, fleet_of) == []
    fleet.rollouts.open("r", 0, "it begins", "kim")
    canaries = told(fleet, fleet_of)
    assert len(canaries) == 3
    assert counts(fleet) == [(0, 3, 0, 0, 0, 0), (7, 0, 0, 0, 0, 0)]
    say(fleet, canaries[0], "running")
    say(fleet, canaries[1], "failed", "it does not start")
    assert told(fleet, canaries) == canaries, "whoever had it is told the same again"
    fleet.rollouts.open("r", 1, "the canaries run it", "kim")
    assert len(told(fleet, fleet_of)) == 10
    assert counts(fleet) == counted_anew(fleet) == [(0, 1, 1, 1, 0, 0), (0, 7, 0, 0, 0, 0)]
    say(fleet, canaries[1], "running")
    assert counts(fleet)[0] == (0, 1, 2, 0, 0, 0)
    fleet.relay()
    kinds = [change.facts["kind"] for change in read_changes(fleet.record)]
    assert kinds[-3:] == ["rollout-began", "wave-opened", "wave-opened"]


def test_what_is_aborted_is_offered_only_to_who_runs_it(fleet: Fleet, members: Members) -> None:
    runs, asked, failed, late = members(4)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    assert told(fleet, [runs, asked, failed]) == [runs, asked, failed]
    say(fleet, runs, "running")
    say(fleet, failed, "failed", "it does not start")
    say(fleet, asked, "waiting", "UPD-7 is here and waits for whoever runs this machine")
    assert next(one for one in fleet.mainframes.all() if one.id == asked.id).waits
    fleet.rollouts.set("r", "aborted", "the customers complain", "kim")
    assert counts(fleet) == counted_anew(fleet) == [(2, 0, 1, 1, 0, 0)]
    assert next(one for one in fleet.mainframes.all() if one.id == asked.id).waits == ""
    assert told(fleet, [runs, asked, failed, late]) == [runs]
    assert [fleet.rollouts.offer_to(one.id, OFFER).result() is None for one in (runs, asked)] == [False, True]
    say(fleet, asked, "running")
    assert told(fleet, [runs, asked]) == [runs, asked], "it was in the middle of it"
    assert counts(fleet) == counted_anew(fleet) == [(1, 0, 2, 1, 0, 0)]


def test_who_waits_for_an_owner_takes_nobody_s_place_and_gets_nothing_that_failures_stopped(
    fleet: Fleet, members: Members
) -> None:
    fleet_of = members(8)
    policy = RolloutPolicy.all_at_once().model_copy(
        update={"at_once": 2, "failure_least": 1, "failure_percent": 0, "success_percent": 0}
    )
    fleet.rollouts.begin("r", OFFER, policy, "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    asked = told(fleet, fleet_of)
    assert len(asked) == 2
    for each in asked:
        say(fleet, each, "waiting", "UPD-7 is here and waits for whoever runs this machine")
    more = [each for each in told(fleet, fleet_of) if each not in asked]
    assert len(more) == 2, "others need not wait for their owners"
    left = next(each for each in fleet_of if each not in (*asked, *more))
    assert fleet.rollouts.offer_to(left.id, OFFER).result() is None, "these are in the middle of it"
    say(fleet, more[0], "failed", "it does not start")
    assert fleet.rollouts.state("r").status == "paused"
    assert counts(fleet) == counted_anew(fleet) == [(6, 1, 0, 1, 0, 0)]
    assert told(fleet, fleet_of) == [each for each in fleet_of if each in more]
    fleet.rollouts.set("r", "running", "it was the machine", "kim")
    assert len(told(fleet, asked)) == 1, "they are asked again, in their turn"


def test_it_stops_by_itself_with_the_failure_that_is_one_too_many(fleet: Fleet, members: Members) -> None:
    fleet_of = members(12)
    fleet.rollouts.begin("r", OFFER, TWO_WAVES, "kim")
    fleet.rollouts.open("r", 1, "both at once", "kim")
    first = told(fleet, fleet_of[:4])
    for each in first[:2]:
        say(fleet, each, "failed", "it does not start")
    stopped = fleet.rollouts.state("r")
    waves = {member.id: member.wave for member in fleet.rollouts.members("r", (), None, 100)}
    if waves[first[0].id] != waves[first[1].id]:
        say(fleet, next(each for each in first[2:] if waves[each.id] == 1), "failed", "it does not start")
        stopped = fleet.rollouts.state("r")
    assert stopped.status == "paused"
    assert "failed" in stopped.why
    assert told(fleet, fleet_of[4:]) == []
    (group,) = fleet.rollouts.failures("r")
    assert (group.state, group.reason) == ("failed", "it does not start")
    assert group.count == len(fleet.rollouts.members("r", ["failed"], None, 100))

    fleet.rollouts.set("r", "running", "the customers know", "kim")
    assert fleet.rollouts.state("r").counts.accepted == group.count
    assert len(told(fleet, fleet_of)) == 12, "resumed, it goes on"
    assert counts(fleet) == counted_anew(fleet)


def test_who_failed_tries_again_when_told_and_nobody_else(fleet: Fleet, members: Members) -> None:
    one, other = members(2)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.open("r", 0, "", "kim")
    assert told(fleet, [one, other]) == [one, other]
    say(fleet, one, "failed", "no room")
    say(fleet, other, "running")
    assert fleet.rollouts.retry("r", "kim") == 1
    assert fleet.rollouts.offer_to(one.id, OFFER).result() == 1
    assert fleet.rollouts.offer_to(other.id, OFFER).result() == 0
    assert counts(fleet) == counted_anew(fleet) == [(0, 1, 1, 0, 0, 0)]


def test_what_many_report_in_one_moment_is_counted_as_if_each_were_alone(fleet: Fleet, members: Members) -> None:
    fleet_of = members(40)
    fleet.rollouts.begin("r", OFFER, TWO_WAVES.model_copy(update={"failure_least": 30}), "kim")
    fleet.rollouts.open("r", 1, "all at once", "kim")
    assert len(told(fleet, fleet_of + fleet_of)) == 80, "who asks twice in one moment is told twice, and counted once"
    newcomer = members(1)[0]
    results = ["failed" if number % 5 == 0 else "running" for number in range(40)]
    said = [
        MainframeReport.model_validate({"release_seq": 7, "bundle": OFFER.bundle, "result": result, "reason": result})
        for result in results
    ]
    reports = [*zip(fleet_of, said, strict=True), *zip(fleet_of, said, strict=True), (newcomer, said[1])]
    wait([fleet.mainframes.report(licence, report) for licence, report in reports])
    assert counts(fleet) == counted_anew(fleet)
    state = fleet.rollouts.state("r").counts
    assert (state.succeeded, state.failed, state.open) == (33, 8, 0)
    assert [line.times for licence in fleet_of for line in fleet.mainframes.reports(licence.id)] == [2] * 40


def test_what_a_mainframe_is_told_stays_until_something_is_decided_but_where_it_hangs_on_others(
    fleet: Fleet, members: Members
) -> None:
    one, other = members(2)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once().model_copy(update={"at_once": 1}), "kim")
    assert tell(fleet.database, one.id, OFFER).result() == Told(None, stays=True)
    fleet.rollouts.open("r", 0, "", "kim")
    assert tell(fleet.database, one.id, OFFER).result() == Told(0, stays=True)
    assert tell(fleet.database, other.id, OFFER).result() == Told(None, stays=False)


def test_at_once_bounds_how_many_are_under_way(fleet: Fleet, members: Members) -> None:
    fleet_of = members(9)
    policy = RolloutPolicy.all_at_once().model_copy(update={"at_once": 4})
    fleet.rollouts.begin("r", OFFER, policy, "kim")
    fleet.rollouts.open("r", 0, "", "kim")
    first = told(fleet, fleet_of)
    assert len(first) == 4
    say(fleet, first[0], "running")
    assert len(told(fleet, fleet_of)) == 5


def test_whose_time_is_over_is_unreachable_until_it_answers(
    fleet: Fleet, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, gone = members(2)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(60), "kim")
    fleet.rollouts.open("r", 0, "", "kim")
    assert told(fleet, [here]) == [here]
    monkeypatch.setattr(module, "now", lambda: now() + timedelta(seconds=61))
    assert counts(fleet) == [(0, 0, 0, 0, 2, 0)]
    say(fleet, here, "running")
    assert counts(fleet) == counted_anew(fleet) == [(0, 0, 1, 0, 1, 0)]
    assert [group.names for group in fleet.rollouts.failures("r")] == [[gone.name]]


def test_who_comes_later_gets_its_place_by_its_label(fleet: Fleet, members: Members) -> None:
    members(3, ring="internal")
    members(3)
    policy = TWO_WAVES.model_copy(update={"waves": (WaveRule(name="in", label="ring=internal"), TWO_WAVES.rules()[1])})
    fleet.rollouts.begin("r", OFFER, policy, "kim")
    fleet.rollouts.open("r", 0, "", "kim")
    (late,), (other,) = members(1, ring="internal"), members(1)
    assert told(fleet, [late, other]) == [late]
    assert counts(fleet) == counted_anew(fleet) == [(3, 1, 0, 0, 0, 0), (4, 0, 0, 0, 0, 0)]


def test_a_licence_that_does_not_count_is_in_no_wave(fleet: Fleet, members: Members) -> None:
    gone, _ = members(2)
    fleet.licences.revoke(gone.id)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    assert fleet.rollouts.state("r").counts.size == 1


def test_a_later_release_ends_the_rollout_of_the_earlier_one(fleet: Fleet, members: Members) -> None:
    (one,) = members(1)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.begin("s", NEXT, RolloutPolicy.all_at_once(), "kim")
    assert [(each.id, each.status) for each in fleet.rollouts.all(5)] == [("s", "running"), ("r", "superseded")]
    assert told(fleet, [one]) == []
    with pytest.raises(ApiError, match=r"^The rollout r is superseded"):
        fleet.rollouts.open("r", 0, "", "kim")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("r", NEXT, TWO_WAVES), "There is a rollout r of another release"),
        (("s", OFFER, TWO_WAVES), "The release 7 is rolled out as r already"),
        (("r", OFFER, RolloutPolicy.all_at_once()), "The release 7 is rolled out as r already"),
        (
            (
                "s",
                NEXT,
                TWO_WAVES.model_copy(update={"waves": (WaveRule(name="x", label="a=b"), TWO_WAVES.rules()[1])}),
            ),
            "The wave 'x' would be empty",
        ),
    ],
)
def test_what_cannot_begin_changes_nothing(
    fleet: Fleet, members: Members, wrong: tuple[str, Offer, RolloutPolicy], why: str
) -> None:
    members(5)
    fleet.rollouts.begin("r", OFFER, TWO_WAVES, "kim")
    before = fleet.rollouts.all(5)[0].model_dump(exclude={"at"})
    with pytest.raises(ApiError, match=why):
        fleet.rollouts.begin(*wrong, "kim")
    assert [each.model_dump(exclude={"at"}) for each in fleet.rollouts.all(5)] == [before]


def test_what_is_not_there_or_has_ended_is_said(fleet: Fleet, members: Members) -> None:
    members(5)
    fleet.rollouts.begin("r", OFFER, TWO_WAVES, "kim")
    with pytest.raises(ApiError, match="has no wave 9; the last is 1"):
        fleet.rollouts.open("r", 9, "", "kim")
    fleet.rollouts.set("r", "aborted", "no more", "kim")
    fleet.rollouts.set("r", "aborted", "no more", "kim")
    for act in (lambda: fleet.rollouts.set("r", "running", "", "kim"), lambda: fleet.rollouts.retry("r", "kim")):
        with pytest.raises(ApiError, match="The rollout r is aborted"):
            act()
    for act in (lambda: fleet.rollouts.state("x"), lambda: fleet.rollouts.retry("x", "kim")):
        with pytest.raises(ApiError, match="There is no rollout 'x' here"):
            act()


def test_a_revoked_licence_is_offered_nothing_and_not_waited_for(fleet: Fleet, members: Members) -> None:
    made = members(6)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.open("r", 0, "all", "kim")
    offered, waits, ran, failed = made[:4]
    assert told(fleet, [offered, ran, failed]) == [offered, ran, failed]
    say(fleet, ran, "running")
    say(fleet, failed, "failed", "no room")
    for each in (offered, waits, ran, failed):
        assert fleet.licences.revoke(each.id) is not None
    (wave,) = fleet.rollouts.state("r").waves
    assert (wave.counts.size, wave.waiting, wave.under_way, wave.succeeded, wave.failed) == (4, 2, 0, 1, 1)
    assert told(fleet, [offered, waits]) == []
    assert fleet.rollouts.state("r").counts.size == 4
    assert told(fleet, made[4:]) == made[4:]


def test_progress_counts_when_each_came_to_stand_as_it_does(fleet: Fleet, members: Members) -> None:
    made = members(5)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    assert fleet.rollouts.progress("r") == []
    fleet.rollouts.open("r", 0, "all", "kim")
    told(fleet, made)
    for each, result in zip(made[:4], ("running", "running", "failed", "failed"), strict=True):
        say(fleet, each, result)
    fleet.rollouts.set("r", "paused", "look", "kim")
    fleet.rollouts.set("r", "running", "on", "kim")

    def total() -> tuple[int, int, int]:
        steps = fleet.rollouts.progress("r")
        assert [step.at for step in steps] == sorted(step.at for step in steps)
        assert len(steps) <= STEPS
        return (
            sum(step.succeeded for step in steps),
            sum(step.failed for step in steps),
            sum(step.unreachable for step in steps),
        )

    assert total() == (2, 2, 0), "accepted ones failed, too"
    for days in (0.01, 1, 20, 300, 3000):
        earlier = (now() - timedelta(days=days)).isoformat(timespec="microseconds")
        change = module.members.update().where(module.members.c.licence == made[0].id).values(changed_at=earlier)
        fleet.database.change(lambda connection, change=change: connection.execute(change))
        assert total() == (2, 2, 0)
        assert fleet.rollouts.progress("r")[0].at <= now() - timedelta(days=days)


def test_the_cohort_s_troubles_are_counted_beside_the_rest_s(fleet: Fleet, members: Members) -> None:
    made = members(10)
    fleet.rollouts.begin("before", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.open("before", 0, "all", "kim")
    told(fleet, made)
    for each in made[:9]:
        say(fleet, each, "running")
    fleet.rollouts.begin("r", NEXT, TWO_WAVES, "kim")
    nothing = fleet.rollouts.troubles("r")
    assert (nothing.cohort.size, nothing.rest.size, nothing.rest.troubled) == (0, 10, 0)

    fleet.rollouts.open("r", 0, "canaries", "kim")
    wave = {each.id: each.wave for each in fleet.rollouts.members("r", (), None, 100)}
    cohort = [each for each in made if wave[each.id] == 0]
    rest = [each for each in made[:9] if wave[each.id] == 1]
    told(fleet, made, NEXT)
    say(fleet, cohort[0], "running", offer=NEXT)
    say(fleet, cohort[0], "failed", f"it runs here, and {PROGRAM_ENDED} twice", NEXT)
    say(fleet, cohort[0], "failed", f"it held at first, but {PROGRAM_UNHEALTHY}: 500", NEXT)
    say(fleet, cohort[0], "running", offer=NEXT)
    say(fleet, cohort[1], "failed", "no room", NEXT)
    say(fleet, rest[0], "failed", f"it runs here, and {PROGRAM_UNHEALTHY}: %_")
    say(fleet, rest[0], "running")
    seen = fleet.rollouts.troubles("r")
    assert seen.cohort == GroupTroubles(size=3, ran=1, ended=1, unhealthy=1, troubled=1, refused=1)
    ran = len([each for each in rest if each in made[:9]])
    assert seen.rest == GroupTroubles(size=7, ran=ran, ended=0, unhealthy=1, troubled=1, refused=0)
    fleet.licences.revoke(rest[0].id)
    assert fleet.rollouts.troubles("r").rest.troubled == 0
    with pytest.raises(ApiError, match="no rollout"):
        fleet.rollouts.troubles("nothing")


def test_who_runs_what_it_cannot_be_installed_on_is_named_and_offered_nothing(fleet: Fleet, members: Members) -> None:
    made = members(5)
    old = OFFER.model_copy(update={"bundle": "0" * 64})
    for each in made[:3]:
        say(fleet, each, "running", offer=old)
    say(fleet, made[0], "failed", "later", offer=OFFER)  # it still runs the old one
    say(fleet, made[3], "running")
    assert fleet.rollouts.running() == {old.bundle, OFFER.bundle}
    fleet.rollouts.begin("r", NEXT, RolloutPolicy.all_at_once(), "kim", {old.bundle: "only from 2.0", "c" * 64: "x"})
    fleet.rollouts.open("r", 0, "all", "kim")
    assert fleet.rollouts.state("r").counts.size == 2
    assert told(fleet, made, NEXT) == made[3:]
    say(fleet, made[3], "failed", "no room", NEXT)
    groups = fleet.rollouts.failures("r")
    assert [(each.state, each.reason, each.count) for each in groups] == [
        ("failed", "no room", 1),
        ("barred", "only from 2.0", 3),
    ]
    waits = {each.id: each.waits for each in fleet.mainframes.all()}
    assert waits[made[1].id] == "the newest release is not offered: only from 2.0"
    assert waits[made[3].id] == waits[made[4].id] == ""

    say(fleet, made[1], "running")
    fleet.licences.revoke(made[2].id)
    assert told(fleet, made, NEXT) == [made[1], *made[3:]]
    assert fleet.rollouts.state("r").counts.size == 3
    assert [each.count for each in fleet.rollouts.failures("r") if each.state == "barred"] == [1]
    assert counts(fleet) == counted_anew(fleet)


def test_those_that_failed_may_try_again_once_it_is_complete_until_a_later_one_goes_out(
    fleet: Fleet, members: Members
) -> None:
    made = members(3)
    fleet.rollouts.begin("r", OFFER, RolloutPolicy.all_at_once(), "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    assert fleet.rollouts.state("r").waves[0].why == "it begins"
    told(fleet, made)
    say(fleet, made[0], "running")
    say(fleet, made[1], "failed", "no room")
    say(fleet, made[2], "failed", "no room")
    fleet.rollouts.set("r", "completed", "all have answered", "kim")
    assert fleet.rollouts.retry("r", "kim") == 2
    assert fleet.rollouts.state("r").status == "completed"
    assert [fleet.rollouts.offer_to(each.id, OFFER).result() for each in made] == [0, 1, 1]
    say(fleet, made[1], "running")
    assert fleet.rollouts.state("r").counts.succeeded == 2
    say(fleet, made[2], "failed", "no room")
    fleet.rollouts.begin("later", NEXT, RolloutPolicy.all_at_once(), "kim")
    with pytest.raises(ApiError, match="later is rolled out since"):
        fleet.rollouts.retry("r", "kim")
    fleet.rollouts.set("later", "aborted", "no", "kim")
    with pytest.raises(ApiError, match="later is aborted"):
        fleet.rollouts.retry("later", "kim")
