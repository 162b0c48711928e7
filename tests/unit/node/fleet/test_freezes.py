"""Windows and freezes of the fleet: who is held, what a wave makes of that, and who goes all the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from ashat.common.identifiers import new_key
from ashat.errors import UsageError
from ashat.node.core.db import now
from ashat.node.core.errors import ApiError
from ashat.node.logs.change_log_audit import read_changes
from ashat.node.omega.fleet import freezes as module
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.licences import Licence
from ashat.node.omega.fleet.rollouts import RolloutStore
from ashat.protocol.fleet import FreezeRequest, MainframeReport
from ashat.protocol.messages import Offer
from ashat.rollouts.decide import decide
from ashat.rollouts.policy import RolloutPolicy, WaveRule

OFFER = Offer(release_seq=1, bundle="a" * 64, update_id="UPD-1", attempt=1)
ALWAYS = "FREQ=DAILY P1D UTC the year ends"
POLICY = RolloutPolicy(
    waves=(WaveRule(name="everyone", rest=True),), soak_seconds=0, success_percent=50, mainframe_seconds=60
)


def licensed(fleet: Fleet, **labels: str) -> Licence:
    ((licence, _),) = fleet.licences.keep_all([(new_key(), "acme", None)])
    if labels:
        fleet.mainframes.label(licence.id, labels)
    return licence


def freeze(scope: str, subject: str = "", time: str = ALWAYS, kind: str = "freeze") -> FreezeRequest:
    return FreezeRequest.model_validate({"kind": kind, "scope": scope, "subject": subject, "time": time})


def offered(fleet: Fleet, licence: Licence) -> bool:
    return fleet.rollouts.offer_to(licence.id, OFFER).result(10) is not None


def counts(fleet: Fleet) -> list[tuple[int, int, int, int]]:
    """Of each wave how many wait, are under way, run it, and are held."""
    waves = fleet.rollouts.state("r").waves
    return [(wave.waiting, wave.under_way, wave.succeeded, wave.held) for wave in waves]


def test_who_is_held_by_all_by_label_and_by_itself(fleet: Fleet) -> None:
    canary, bank, other = licensed(fleet, ring="canary"), licensed(fleet, ring="bank"), licensed(fleet)
    assert fleet.freezes.held() == {}
    by_label = fleet.freezes.add(freeze("label", "ring=bank"), "kim")
    assert list(fleet.freezes.held()) == [bank.id]
    assert fleet.freezes.held()[bank.id].startswith("a freeze holds: the year ends; it does not open")
    assert fleet.freezes.add(freeze("label", "ring=bank"), "kim") == by_label, "the same again changes nothing"
    own = fleet.freezes.add(freeze("mainframe", other.id), "kim")
    assert set(fleet.freezes.held()) == {bank.id, other.id}
    whole = fleet.freezes.add(freeze("fleet"), "kim")
    assert set(fleet.freezes.held()) == {canary.id, bank.id, other.id}
    for one in (whole, own, by_label):
        fleet.freezes.remove(one.id, "kim")
    assert fleet.freezes.held() == {}
    fleet.relay()
    kinds = [change.facts["kind"] for change in read_changes(fleet.record)]
    assert (kinds.count("freeze-added"), kinds.count("freeze-removed")) == (3, 3)


def test_windows_of_several_scopes_are_all_open_and_a_freeze_wins(fleet: Fleet) -> None:
    canary, other = licensed(fleet, ring="canary"), licensed(fleet)
    soon = f"{now() + timedelta(days=1):%Y-%m-%dT%H:%M} PT1H UTC"
    fleet.freezes.add(freeze("fleet", time=soon, kind="window"), "kim")
    assert set(fleet.freezes.held()) == {canary.id, other.id}
    assert "no window is open; it opens at" in fleet.freezes.held()[other.id]
    fleet.freezes.add(freeze("label", "ring=canary", "FREQ=DAILY P1D UTC", "window"), "kim")
    assert set(fleet.freezes.held()) == {other.id}
    fleet.freezes.add(freeze("mainframe", canary.id), "kim")
    assert set(fleet.freezes.held()) == {canary.id, other.id}


def test_who_is_held_is_offered_nothing_is_counted_apart_and_is_not_given_up(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, held = licensed(fleet), licensed(fleet)
    one = fleet.freezes.add(freeze("mainframe", held.id), "kim")
    fleet.rollouts.begin("r", OFFER, POLICY, "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    assert (offered(fleet, free), offered(fleet, held)) == (True, False)
    assert counts(fleet) == [(0, 1, 0, 1)]
    assert fleet.rollouts.state("r").counts.open == 1, "nobody waits for who is held"
    fleet.mainframes.report(free, MainframeReport(release_seq=1, bundle="a" * 64, result="running")).result(10)
    later(monkeypatch, hours=2)
    assert counts(fleet) == [(0, 0, 1, 1)], "its time is not over, since it did not begin"
    fleet.freezes.remove(one.id, "kim")
    assert counts(fleet) == [(1, 0, 1, 0)], "it is waited for from now on"
    assert offered(fleet, held)
    assert counts(fleet) == [(0, 1, 1, 0)]


def later(monkeypatch: pytest.MonkeyPatch, **by: float) -> None:
    from ashat.node.omega.fleet import rollouts

    at = now() + timedelta(**by)
    for each in (module, rollouts):
        monkeypatch.setattr(each, "now", lambda: at)


def test_who_never_asks_once_it_is_held_no_more_is_given_up_after_the_grace(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = licensed(fleet)
    one = fleet.freezes.add(freeze("mainframe", held.id), "kim")
    fleet.rollouts.begin("r", OFFER, POLICY, "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    assert counts(fleet) == [(0, 0, 0, 1)]
    fleet.freezes.remove(one.id, "kim")
    assert counts(fleet) == [(1, 0, 0, 0)]
    later(monkeypatch, seconds=module.GRACE.total_seconds() + 61)
    assert fleet.rollouts.state("r").waves[0].unreachable == 1


SOAKS = POLICY.model_copy(update={"soak_seconds": 86_400, "success_percent": 90})


def decided(fleet: Fleet) -> str:
    """What follows for the rollout, in a word."""
    state = fleet.rollouts.state("r")
    return type(decide(state.policy, state.as_rollout(), module.now())).__name__


def partly_held(fleet: Fleet, time: str = ALWAYS) -> tuple[Licence, str]:
    """A rollout of which one Mainframe runs it, and one is held: that, and the freeze's id."""
    free, held = licensed(fleet), licensed(fleet)
    one = fleet.freezes.add(freeze("mainframe", held.id, time), "kim")
    fleet.rollouts.begin("r", OFFER, SOAKS, "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    assert (offered(fleet, free), offered(fleet, held)) == (True, False)
    fleet.mainframes.report(free, MainframeReport(release_seq=1, bundle="a" * 64, result="running")).result(10)
    assert counts(fleet) == [(0, 0, 1, 1)]
    return held, one.id


@pytest.mark.parametrize("lets_go", ["removed", "overridden", "a window is added", "killed once it was removed"])
def test_a_wave_whose_time_is_over_has_it_again_once_those_are_let_go_that_it_did_not_wait_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, lets_go: str
) -> None:
    held, one = partly_held(fleet)
    if lets_go == "a window is added":
        fleet.freezes.add(freeze("fleet", time="2024-02-01 P1D UTC", kind="window"), "kim")
        fleet.freezes.remove(one, "kim")
        assert set(fleet.freezes.held()) > {held.id}
    later(monkeypatch, hours=2)
    assert decided(fleet) == "Wait", "it soaks"
    if lets_go == "overridden":
        fleet.freezes.override("r", "customers cannot sign in", "kim")
    elif lets_go == "a window is added":
        fleet.freezes.add(freeze("mainframe", held.id, "FREQ=DAILY P1D UTC", "window"), "kim")
    else:
        fleet.freezes.remove(one, "kim")
    if lets_go.startswith("killed"):
        started_anew(fleet)
    assert counts(fleet) == [(1, 0, 1, 0)]
    assert decided(fleet) == "Wait", "it is waited for, and nobody is asked"
    assert offered(fleet, held)
    later(monkeypatch, hours=2, seconds=module.GRACE.total_seconds() + 61)
    assert decided(fleet) == "Pause", "its time is limited all the same"


@pytest.mark.parametrize("killed", [False, True])
def test_it_has_its_time_again_also_where_the_freeze_ends_by_itself(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    begins = now() - timedelta(minutes=1)
    held, _ = partly_held(fleet, f"{begins:%Y-%m-%dT%H:%M} PT3H UTC")
    later(monkeypatch, hours=2)
    assert counts(fleet) == [(0, 0, 1, 1)]
    if killed:
        started_anew(fleet)
    later(monkeypatch, hours=4)
    assert decided(fleet) == "Wait"
    assert counts(fleet) == [(1, 0, 1, 0)]
    assert offered(fleet, held)
    later(monkeypatch, hours=4, seconds=30)
    assert decided(fleet) == "Wait"
    later(monkeypatch, hours=4, seconds=61)
    assert decided(fleet) == "Pause"


def started_anew(fleet: Fleet) -> None:
    """Forget what only the process knew."""
    fleet.freezes = module.FreezeStore(fleet.database)
    fleet.rollouts = RolloutStore(fleet.database, fleet.freezes)


def test_what_was_offered_before_a_freeze_goes_on_and_an_override_goes_to_all(fleet: Fleet) -> None:
    early, late = licensed(fleet), licensed(fleet)
    fleet.rollouts.begin("r", OFFER, POLICY, "kim")
    fleet.rollouts.open("r", 0, "it begins", "kim")
    assert offered(fleet, early)
    fleet.freezes.add(freeze("fleet"), "kim")
    assert (offered(fleet, early), offered(fleet, late)) == (True, False)
    fleet.freezes.override("r", "customers cannot sign in", "kim")
    assert fleet.rollouts.state("r").override == "customers cannot sign in"
    assert counts(fleet) == [(1, 1, 0, 0)]
    assert offered(fleet, late)
    fleet.relay()
    assert "freeze-overridden" in [change.facts["kind"] for change in read_changes(fleet.record)]
    with pytest.raises(ApiError, match="There is no rollout"):
        fleet.freezes.override("x", "why", "kim")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: freeze("fleet", time="2026-12-20 P2W"), UsageError, "is no freeze"),
        (lambda: freeze("fleet", time="9999-12-31 P1W UTC"), UsageError, "is in no year"),
        (lambda: freeze("mainframe", "a" * 12), ApiError, "There is no licence"),
    ],
)
def test_what_is_no_freeze_changes_nothing(
    fleet: Fleet, make: Callable[[], FreezeRequest], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fleet.freezes.add(make(), "kim")
    assert fleet.freezes.all() == []
    with pytest.raises(ApiError, match="There is no freeze"):
        fleet.freezes.remove("abc", "kim")
