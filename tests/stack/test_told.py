"""What happens is told to Prefect as events, once each, and to people by the channels that were added."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ashat.deployment.moments import ReleasePayload
from tests.support.processes.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


class Hooks:
    """A server that webhooks are sent to: `told` has each message; below `/500` it fails."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    @contextmanager
    def served(self) -> Iterator[Hooks]:
        """Serve until the `with` block ends."""
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(500 if "/500" in self.path else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def subjects(self, path: str) -> list[str]:
        """What the messages to a path are about."""
        return [message["subject"] for where, message in self.told if where == path]


def channels(stack: Stack) -> dict[str, dict[str, Any]]:
    """What `deploy notify list` says of each channel."""
    listed = json.loads(stack.deploy("notify", "list", "--json").stdout)["channels"]
    return {channel["channel"]: channel for channel in listed}


def told(stack: Stack, update_id: str) -> list[dict[str, Any]]:
    """The events of an update that Prefect has, the oldest first."""
    wanted = {"event": {"prefix": ["ashat.release."]}, "resource": {"id": [f"ashat.release.{update_id}.1"]}}
    found = stack.api("POST", "/events/filter", {"filter": {**wanted, "order": "ASC"}, "limit": 50})
    return list(found["events"])


def fired(stack: Stack, automation: str) -> int:
    """How often an automation was triggered."""
    wanted = {"event": {"name": ["prefect.automation.triggered"]}}
    wanted["resource"] = {"id": [f"prefect.automation.{automation}"]}
    return len(stack.api("POST", "/events/filter", {"filter": wanted, "limit": 50})["events"])


def inbox_page(stack: Stack) -> str:
    """What the page of what waits says now."""
    wanted = {"artifacts": {"key": {"any_": ["inbox"]}}}
    (page,) = stack.api("POST", "/artifacts/latest/filter", wanted)
    return str(page["data"])


def test_each_moment_is_one_event_however_often_it_is_told_and_starts_an_automation_once(stack: Stack) -> None:
    when = {"expect": ["ashat.release.completed"], "match": {"prefect.resource.id": "ashat.release.UPD-told.1"}}
    trigger = {"type": "event", **when, "posture": "Reactive", "threshold": 1, "within": 0}
    automation = stack.api(
        "POST", "/automations/", {"name": "told", "trigger": trigger, "actions": [{"type": "do-nothing"}]}
    )["id"]
    stack.change("UPD-told")
    stack.deploy("push", "UPD-told", "To be | told of", "--allow-dirty")
    stack.deploy("verify", "UPD-told")
    state = stack.wait_asked("UPD-told")
    assert state.gate is not None
    assert state.evidence is not None
    stack.reconcile()
    page = inbox_page(stack)
    assert r"To be \| told of" in page
    assert f"[the form]({stack.ui_url}/runs/flow-run/{state.gate.run})" in page
    stack.deploy("approve", "UPD-told", "--evidence", state.evidence[-8:], "--comment", "as it is")

    expected = ["pushed", "verified", "approval-wanted", "approved", "promoted", "wave-opened", "completed"]
    events = eventually(
        lambda: found if len(found := told(stack, "UPD-told")) == len(expected) else None, "all of it to be told"
    )
    assert [event["event"] for event in events] == [f"ashat.release.{name}" for name in expected]
    for event in events:
        ReleasePayload.model_validate(event["payload"])
    wanted = events[2]
    assert wanted["payload"]["link"] == f"{stack.ui_url}/runs/flow-run/{state.gate.run}"
    assert [one["prefect.resource.id"] for one in wanted["related"]] == [f"prefect.flow-run.{state.gate.run}"]
    assert events[3]["payload"]["reason"] == "as it is"
    assert events[6]["payload"]["mainframes"]["running"] == len(stack.mainframes)
    eventually(lambda: fired(stack, automation) == 1, "the automation to be started")

    kept = stack.api("GET", "/variables/name/ashat_told")["value"]
    stack.api("PATCH", "/variables/name/ashat_told", {"value": {**kept, "events": 0}})
    stack.reconcile()
    assert stack.api("GET", "/variables/name/ashat_told")["value"]["events"] >= kept["events"]
    assert [event["id"] for event in told(stack, "UPD-told")] == [event["id"] for event in events]
    assert fired(stack, automation) == 1
    assert "UPD-told" not in inbox_page(stack)


def test_a_channel_is_told_from_the_moment_it_is_added_and_one_that_fails_is_seen_and_fails_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    with Hooks().served() as hooks:
        for name, path in (("good", "/good-5ecret"), ("bad", "/500-5ecret"), ("boss", "/boss-5ecret")):
            more = ["--escalations-only"] if name == "boss" else []
            told = stack.deploy("notify", "add", "webhook", name, "--secrets", "-", *more, stdin=hooks.url + path)
            assert "5ecret" not in told.stdout + told.stderr
        stack.deploy("notify", "test", "boss")
        assert stack.deploy("notify", "test", "bad", check=False).returncode == 1
        state = stack.ship("UPD-channels", "To be told of")
        assert state.ended
        eventually(lambda: len(hooks.subjects("/good-5ecret")) == 2, "a worker to tell of the end")
        assert hooks.subjects("/good-5ecret")[0] == "UPD-channels awaits approval"
        assert hooks.subjects("/good-5ecret")[1].startswith("UPD-channels: Completed")
        assert hooks.subjects("/boss-5ecret") == ["A test of ASHAT Deploy"]
        gate = stack.state("UPD-channels").gate
        assert gate is not None
        body = next(message["body"] for _, message in hooks.told if "awaits" in message["subject"])
        assert body.endswith(f"{stack.ui_url}/runs/flow-run/{gate.run}")
        assert "\nTo be told of\n" in body
        assert f"type {(gate.evidence or '')[-8:]}" in body
        assert "Pushed by " in body
        assert "Licensed Mainframes" in body
        eventually(lambda: channels(stack)["custom-webhook/good"]["last_got_through"], "that to be noted")
        listed = channels(stack)  # once nobody listens there any more, the bad one's reason is another
    assert listed["custom-webhook/bad"]["last_got_through"] is False
    assert "500" in listed["custom-webhook/bad"]["why"]
    assert listed["custom-webhook/boss"]["hears"] == "escalations"
    seen = stack.deploy("status").stdout + stack.deploy("notify", "list").stdout + str(listed)
    assert "custom-webhook/bad" in seen
    assert "5ecret" not in seen

    private = tmp_path / "secret"
    private.write_text(f"{hooks.url}/good-5ecret\n")
    private.chmod(0o644)
    refused = stack.deploy("notify", "add", "webhook", "file", "--secrets", str(private), check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "chmod 600" in refused.stderr
    for words in (("slack", "x"), ("sms", "x"), ("pigeon", "x"), ("webhook", "No Name")):
        refused = stack.deploy("notify", "add", *words, "--secrets", "-", stdin="5ecret", check=False)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "5ecret" not in refused.stderr
    for name in ("good", "bad", "boss"):
        stack.deploy("notify", "remove", name)
    assert channels(stack) == {}
    assert "custom-webhook" not in stack.deploy("status").stdout
    assert stack.deploy("notify", "test", "good", check=False).returncode == 1
