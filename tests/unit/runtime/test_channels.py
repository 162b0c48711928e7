"""A channel by which nothing gets through is seen in `deploy status`, without its secrets, until it works again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from pydantic import Field, SecretStr

import flows.cancel as cancel
from ashat.cli.main import run
from ashat.deployment.state_machine import Stage
from ashat.ledger.summaries import glance, last_messages
from blocks.channels import KINDS
from flows.reconcile import repair_gate
from tasks.reconcile import reminders, repair
from tasks.runtime import notify as under_test
from tasks.runtime.connections import connections, this_run
from tasks.runtime.deployment import deployment
from tests.support.builders.deployments import LONG_AGO, record
from tests.support.fakes.bad_network import answering
from tests.support.processes.node import ROOT

VARIABLE: dict[str, Any] = {}
"""What Prefect's variable of channels holds."""
SECRET = "T0000-B0000-verysecret"


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, NotificationBlock]]:
    """The blocks that are loaded by their names, in a home of its own."""
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    VARIABLE.clear()
    found: dict[str, NotificationBlock] = {}

    def load(name: str, *_: Any) -> NotificationBlock:
        if name not in found:
            raise ValueError(f"Unable to find block document named {name}")
        return found[name]

    monkeypatch.setattr(Block, "load", load)
    monkeypatch.setattr(under_test.Variable, "get", lambda _: dict(VARIABLE))
    with connections():
        yield found


def webhook(url: str) -> NotificationBlock:
    return CustomWebhookNotificationBlock(name="pager", url=url, headers=None, cookies=None)


class Told(NotificationBlock):
    """A channel that keeps what it is told."""

    messages: list[str] = Field(default_factory=list)

    def notify(self, body: str, subject: str | None = None) -> None:  # type: ignore[override]
        self.messages.append(f"{subject}\n{body}")


def troubles() -> dict[str, str]:
    return {trouble["server"]: trouble["what"] for trouble in glance()[1] if trouble["kind"] == "channel"}


def test_what_does_not_get_through_is_shown_until_it_does(
    blocks: dict[str, NotificationBlock], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASHAT_NOTIFY", "slack-webhook/ops, custom-webhook/pager, email/nobody")
    blocks["slack-webhook/ops"] = SlackWebhook(url=SecretStr(f"json://127.0.0.1:1/{SECRET}"))
    with answering(404, b"no such hook") as gone, answering(200) as works:
        blocks["custom-webhook/pager"] = webhook(f"{gone}/{SECRET}?t={SECRET}")
        under_test.notify("UPD-1: Expired", "nobody answered in time")
        seen = troubles()
        assert set(seen) == {"slack-webhook/ops", "custom-webhook/pager", "email/nobody"}
        assert "404" in seen["custom-webhook/pager"]
        assert "Unable to find block document" in seen["email/nobody"]
        assert all("did not get through" in what for what in seen.values())
        assert SECRET not in str(seen)
        assert run(["status"]) == 0
        shown = capsys.readouterr().out
        assert "slack-webhook/ops" in shown
        assert SECRET not in shown

        blocks["custom-webhook/pager"] = webhook(works)
        under_test.notify("UPD-1: Expired", "nobody answered in time")
        assert set(troubles()) == {"slack-webhook/ops", "email/nobody"}


def test_reconcile_looks_at_the_blocks_before_there_is_something_to_tell(
    blocks: dict[str, NotificationBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASHAT_NOTIFY", "slack-webhook/misspelt")
    under_test.look_at_channels()
    assert "no message can be sent" in troubles()["slack-webhook/misspelt"]
    monkeypatch.setenv("ASHAT_NOTIFY", "")
    under_test.look_at_channels()
    assert troubles() == {}
    assert blocks == {}


def test_a_gate_that_nobody_answered_and_one_that_was_called_off_are_told_of_with_the_reason(
    blocks: dict[str, NotificationBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASHAT_NOTIFY", "told/people")
    blocks["told/people"] = people = Told()
    ledger = this_run().ledger
    for module in (cancel, repair):  # no Prefect runs here whose runs could be closed
        monkeypatch.setattr(module, "close_gate_run", lambda *_: None)
    monkeypatch.setattr(cancel, "put_public_back", lambda *_: None)
    monkeypatch.setattr(cancel, "drop_staged", lambda *_: None)
    for name in ("UPD-late", "UPD-off"):
        record(ledger, name, Stage.AWAITING_APPROVAL, at=LONG_AGO, expires=LONG_AGO + timedelta(hours=1))
    assert repair_gate(deployment("UPD-late")) == ["UPD-late: nobody answered in time, it is Expired"]
    assert people.messages == ["UPD-late: Expired\nnobody answered in time"]
    off = deployment("UPD-off")
    cancel.cancel_update(off, reason="superseded by UPD-late")
    assert people.messages[1:] == ["UPD-off: Cancelled\nsuperseded by UPD-late"]
    under_test.notify_end(record(ledger, "UPD-on", Stage.COMPLETED))
    assert people.messages[2].endswith("\nWhat it brings\nApproved by kim")


def test_channels_that_were_added_hear_beside_those_of_the_setting_and_some_of_escalations_alone(
    blocks: dict[str, NotificationBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASHAT_NOTIFY", "told/named, told/twice")
    names = ("named", "twice", "added", "boss")
    heard = {name: Told() for name in names}
    blocks.update({f"told/{name}": channel for name, channel in heard.items()})
    listed: list[Any] = [{"block": "told/added", "only": ""}, {"block": "told/twice"}, "nonsense", {"block": 7}]
    VARIABLE["channels"] = [*listed, {"block": "told/boss", "only": "escalations"}]
    under_test.notify("UPD-1 awaits approval", "What it brings")
    assert [len(heard[name].messages) for name in names] == [1, 1, 1, 0]
    under_test.notify("UPD-1: nobody answers", "it ends soon", escalation=True)
    assert [len(heard[name].messages) for name in names] == [2, 2, 2, 1]
    last = last_messages()
    assert set(last) == {f"told/{name}" for name in names}
    assert {kept["why"] for kept in last.values()} == {""}
    VARIABLE["channels"] = listed
    blocks.pop("told/added")
    under_test.look_at_channels()
    assert set(troubles()) == {"told/added"}


def test_a_channel_that_hangs_holds_up_no_other_and_nothing_else(
    blocks: dict[str, NotificationBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(NotificationBlock):
        def notify(self, body: str, subject: str | None = None) -> None:  # type: ignore[override]
            released.wait(60)

    released = threading.Event()
    monkeypatch.setattr(under_test, "SECONDS", 0.5)
    names = [f"told/slow-{number}" for number in range(8)]
    monkeypatch.setenv("ASHAT_NOTIFY", ",".join([*names, "told/quick"]))
    quick = Told()
    blocks.update({name: Hanging() for name in names} | {"told/quick": quick})
    began = time.monotonic()
    try:
        under_test.notify("UPD-1: Completed", "What it brings")
    finally:
        released.set()
    assert time.monotonic() - began < 4  # one after the other, they would take as long
    assert len(quick.messages) == 1
    assert set(troubles()) == set(names)
    assert "did not end within 0.5 s" in troubles()[names[0]]


def test_where_prefect_does_not_say_which_channels_were_added_those_of_the_setting_are_told(
    blocks: dict[str, NotificationBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: str) -> None:
        raise RuntimeError("Prefect is gone")

    monkeypatch.setattr(under_test.Variable, "get", refuses)
    monkeypatch.setenv("ASHAT_NOTIFY", "told/named")
    blocks["told/named"] = named = Told()
    under_test.notify("UPD-1: Completed", "What it brings")
    assert len(named.messages) == 1


def test_who_does_not_answer_is_reminded_once_and_it_is_escalated_once_whatever_restarts(
    blocks: dict[str, NotificationBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    for name in ("ASHAT_REMIND_AFTER", "ASHAT_ESCALATE_BEFORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(reminders, "tell", told.extend)
    monkeypatch.setenv("ASHAT_NOTIFY", "told/people")
    VARIABLE["channels"] = [{"block": "told/boss", "only": "escalations"}]
    blocks.update({"told/people": (people := Told()), "told/boss": (boss := Told())})
    began = datetime.now(UTC) - timedelta(hours=30)
    record(this_run().ledger, "UPD-slow", Stage.AWAITING_APPROVAL, at=began, expires=began + timedelta(days=7))
    record(this_run().ledger, "UPD-new", Stage.AWAITING_APPROVAL)

    def later(hours: float) -> list[str]:
        clock = began + timedelta(hours=hours)
        monkeypatch.setattr(reminders, "now", lambda: clock)
        with connections():  # as after a restart: nothing but the ledger is remembered
            return reminders.remind(deployment("UPD-slow"))

    assert reminders.remind(deployment("UPD-new")) == []
    assert later(23) == []
    assert later(25) == ["UPD-slow: people were told again that its release waits (reminder)"]
    assert (later(26), len(people.messages), boss.messages) == ([], 1, [])
    assert people.messages[0].startswith("UPD-slow still awaits approval\nmay it go to omega? What it brings\n")
    assert "whoever operates the control plane: deploy approve UPD-slow" in people.messages[0]
    assert later(6 * 24 + 1) == ["UPD-slow: people were told again that its release waits (escalation)"]
    assert (later(6 * 24 + 2), len(people.messages), len(boss.messages)) == ([], 2, 1)
    assert boss.messages[0].startswith("UPD-slow: nobody answers, and it closes soon\n")
    assert later(8 * 24) == []  # it has closed
    assert [event.event.rpartition(".")[2] for event in told] == ["approval-reminder", "approval-escalation"]
    assert [event.payload.before for event in told] == [143 * 3600, 23 * 3600]


def test_the_guide_says_when_a_channel_that_hangs_is_left_alone() -> None:
    guide = (ROOT / "docs/guide.md").read_text("utf-8")
    assert f"one that hangs is left alone after {under_test.SECONDS:g} seconds" in guide
    assert {kind for kind in KINDS if f"`{kind}`" not in guide} == set()
