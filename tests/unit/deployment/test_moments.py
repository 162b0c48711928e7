"""Each moment is told as one event, whose name and fields docs/events.md has, and whose id is the same each time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from ashat.deployment import events as e
from ashat.deployment.moments import (
    EVENTS,
    KeyPayload,
    ReleasePayload,
    ServerPayload,
    Told,
    moment_id,
    reminder_of,
    told_of,
    told_of_trouble,
)
from ashat.deployment.state import State
from ashat.deployment.state_machine import Stage, fold
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import ReleaseSignature
from tests.support.builders.deployments import LONG_AGO, record
from tests.support.processes.node import ROOT

EVENTS_PAGE = (ROOT / "docs/events.md").read_text("utf-8")
RUN = "00000000-0000-0000-0000-000000000000"
LOG = "ashat-deploy/ledger-0123456789abcdef"
SIGNATURE = ReleaseSignature(name="kim", keyid="a" * 64, release="ab" * 32)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger whose updates went every way there is."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('told') / 'ledger.db'}") as opened:
        go_every_way(opened)
        yield opened


def told_in(ledger: Ledger, update_id: str) -> list[Told]:
    """What is told of everything that happened to an update, in its order."""
    happened = ledger.events(update_id, 1)
    found = []
    for count in range(1, len(happened) + 1):
        told = told_of(LOG, count, happened[:count], fold(update_id, 1, happened[:count]))
        found += [told] if told else []
    return found


def add(ledger: Ledger, update_id: str, *events: e.AnyEvent) -> State:
    for event in events:
        state = ledger.append(ledger.load(update_id), event)
    return state


def at(seconds: float) -> datetime:
    return LONG_AGO + timedelta(minutes=5, seconds=seconds)


def asked(ordinal: int, subject: e.Subject = "release", **fields: object) -> e.ApprovalRequested:
    about = {"expires": at(9000), "to_update": "UPD-0", "to_attempt": 1, "evidence": "e" * 64}
    more = about if subject == "rollback" else {}
    return e.ApprovalRequested.model_validate(
        {"at": at(ordinal), "subject": subject, "ordinal": ordinal, "run": RUN, "proposal": "c" * 64, **more, **fields}
    )


def answered(ordinal: int, subject: e.Subject = "release", **fields: object) -> e.ApprovalAnswered:
    given = {"decision": "approve", "accepted": True, "approver": "kim", **fields}
    return e.ApprovalAnswered.model_validate({"at": at(ordinal), "subject": subject, "ordinal": ordinal, **given})


def go_every_way(ledger: Ledger) -> None:
    for stage in (Stage.COMPLETED, Stage.FAILED, Stage.REJECTED, Stage.EXPIRED, Stage.CANCELLED, Stage.ROLLED_BACK):
        record(ledger, f"UPD-{stage.value}", stage, at=LONG_AGO)
    acme = e.MainframeOutcome(id="b" * 12, name="bolt", result="running")
    add(ledger, "UPD-Completed", e.MainframeServed(at=at(1), mainframe=acme))
    record(ledger, "UPD-people", Stage.AWAITING_APPROVAL, at=LONG_AGO)
    add(
        ledger,
        "UPD-people",
        e.RunDied(at=at(1), run=RUN, reason="no disk"),
        asked(2, reason="OMEGA runs something else"),
        answered(2, accepted=False, reason="the evidence is too old"),
        asked(3),
        answered(3, signature=SIGNATURE),
        asked(4),
        answered(4, release_seq=90, signature=SIGNATURE.model_copy(update={"keyid": "b" * 64})),
        e.DecisionVoid(at=at(5), reason="OMEGA moved on"),
        asked(5),
    )
    add(
        ledger,
        "UPD-Completed",
        asked(1, "rollback", why="its signed rollback is gone"),
        answered(1, "rollback", accepted=False, reason="no signature"),
        asked(2, "rollback"),
        answered(2, "rollback", signature=SIGNATURE),
        asked(3, "rollback"),
        answered(3, "rollback", decision="reject"),
        asked(4, "rollback"),
        answered(4, "rollback", complete=True, signature=SIGNATURE),
        e.RollbackStarted(at=at(5), reason="oops"),
        e.RollbackStopped(at=at(6), reason="no need"),
    )

    record(ledger, "UPD-window", Stage.AWAITING_WINDOW, at=LONG_AGO)
    add(
        ledger,
        "UPD-window",
        e.WindowOpened(at=at(1), server="omega"),
        e.WindowAwaited(at=at(2), server="omega", why="a freeze holds"),
        e.FreezeOverridden(at=at(3), server="omega", reason="customers wait", closed="a freeze holds"),
    )
    record(ledger, "UPD-waves", Stage.DISTRIBUTING, at=LONG_AGO)
    add(
        ledger,
        "UPD-waves",
        e.RolloutBegan(at=at(1), rollout="r" * 8, policy="a" * 64, waves=(("first", 1), ("rest", 9))),
        e.WaveOpened(at=at(2), through=0),
        e.RolloutStopped(at=at(3), ordinal=1, why="1 of 1 failed", run=RUN),
        e.RolloutAnswered(at=at(4), ordinal=1, decision="resume", approver="kim"),
        e.RolloutStopped(at=at(5), ordinal=2, why="2 of 2 failed", run=RUN),
        e.RolloutAnswered(at=at(6), ordinal=2, decision="abort", approver="kim"),
    )


def everything(ledger: Ledger) -> list[Told]:
    """Every event that can be told."""
    updates = ("Completed", "Failed", "Rejected", "Expired", "Cancelled", "RolledBack", "people", "waves", "window")
    found = [told for update in updates for told in told_in(ledger, f"UPD-{update}")]
    people = ledger.load("UPD-people")
    assert people.gate is not None
    found += [reminder_of(people, people.gate, level, at(7)) for level in ("reminder", "escalation")]
    return found + list(of_servers())


def of_servers() -> Iterator[Told]:
    for kind in ("unreachable", "drift", "doubt", "certificate"):
        trouble = {"server": "omega", "name": "production", "kind": kind, "what": "…", "since": LONG_AGO.isoformat()}
        ends = {"until": at(1).isoformat(), "how": "renew it"} if kind == "certificate" else {}
        yield told_of_trouble({**trouble, **ends})
        yield told_of_trouble({**trouble, **ends}, over=at(2))


def test_every_event_is_told_as_its_schema_says_and_the_page_lists_them(ledger: Ledger) -> None:
    found = everything(ledger)
    assert {told.event for told in found} == EVENTS
    kinds: dict[str, type[BaseModel]] = {"release": ReleasePayload, "server": ServerPayload, "key": KeyPayload}
    schemas = {name: jsonschema.Draft202012Validator(kind.model_json_schema()) for name, kind in kinds.items()}
    for told in found:
        about = told.event.split(".")[1]
        assert type(told.payload) is kinds[about]
        schemas[about].validate(told.payload.model_dump(mode="json"))
    assert set(re.findall(r"^\| `(ashat\.[\w.-]+)` \|", EVENTS_PAGE, re.MULTILINE)) == EVENTS
    with pytest.raises(ValidationError, match="no event is called"):
        Told.model_validate({**found[0].model_dump(), "event": "ashat.release.unheard-of"})


@pytest.mark.parametrize(
    ("heading", "model"), [("release", ReleasePayload), ("server", ServerPayload), ("key", KeyPayload)]
)
def test_the_fields_on_the_page_are_those_of_the_model(heading: str, model: type[BaseModel]) -> None:
    table = EVENTS_PAGE.partition(f"`ashat.{heading}.*`:\n")[2].partition("\n\n`ashat")[0].partition("\n## ")[0]
    shown = [
        name for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    shown += re.findall(r"^\| `(version)`", table, re.MULTILINE)
    assert set(shown) == set(model.model_fields)


def test_what_is_told_again_has_the_same_id_and_no_two_have_one(ledger: Ledger) -> None:
    found = everything(ledger)
    again = [told for update in ("UPD-Completed", "UPD-people") for told in told_in(ledger, update)]
    assert {told.id for told in again} <= {told.id for told in found}
    in_one_log = told_in(ledger, "UPD-Completed")
    assert len({told.id for told in in_one_log}) == len(in_one_log)
    assert moment_id(LOG, 1) != moment_id("another log", 1)


def test_an_event_says_who_why_and_where_the_form_is(ledger: Ledger) -> None:
    names = names_of(told_in(ledger, "UPD-people"))
    assert names[:3] == ["pushed", "verified", "approval-wanted"]
    assert names.count("approval-wanted") == 1
    wanted = told_in(ledger, "UPD-people")[2]
    assert isinstance(wanted.payload, ReleasePayload)
    assert (wanted.payload.run, wanted.payload.subject) == (RUN, "release")
    assert wanted.payload.expires is not None
    linked = wanted.linked("http://ui/run").payload
    assert isinstance(linked, ReleasePayload)
    assert linked.link == "http://ui/run"
    rejected = told_in(ledger, "UPD-Rejected")[-1].payload
    assert isinstance(rejected, ReleasePayload)
    assert (rejected.by, rejected.reason) == ("kim", "read it")
    completed = next(told for told in told_in(ledger, "UPD-Completed") if told.event.endswith("completed")).payload
    assert isinstance(completed, ReleasePayload)
    assert completed.mainframes is not None
    assert (completed.mainframes.running, completed.mainframes.missing) == (1, 1)
    paused = next(told for told in told_in(ledger, "UPD-waves") if told.event.endswith("paused"))
    assert isinstance(paused.payload, ReleasePayload)
    assert (paused.run, paused.payload.reason) == (RUN, "1 of 1 failed")
    failed = told_in(ledger, "UPD-Failed")[-1].payload
    assert isinstance(failed, ReleasePayload)
    assert failed.reason == "Verification failed: Module load"


def names_of(found: Sequence[Told]) -> list[str]:
    return [told.event.rpartition(".")[2] for told in found]


def test_texts_of_strangers_are_cut(ledger: Ledger) -> None:
    record(ledger, "UPD-long", Stage.PUSHED, at=datetime.now(UTC), description="x" * 4000)
    (told,) = told_in(ledger, "UPD-long")
    assert isinstance(told.payload, ReleasePayload)
    assert len(told.payload.description) == 1000
