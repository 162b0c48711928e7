"""What ends within a month on a server is seen a month ahead: its certificate, the token for it, who approves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.ledger.summaries import glance
from ashat.protocol.messages import Role, Scope
from tasks.runtime.connections import connections
from tasks.servers import drift
from tasks.servers.endings import endings
from tests.support.builders.signers import People, demanding_omega
from tests.support.fakes.bad_network import make_certificate
from tests.support.needs import requires_openssl
from tests.support.processes.node import NodeProcess
from tests.support.processes.node_cli import ashat_node


@pytest.fixture
def omega(tmp_path: Path) -> Iterator[NodeProcess]:
    with demanding_omega(tmp_path / "omega") as node:
        yield node


@requires_openssl
def test_a_certificate_that_ends_in_two_days_is_named_with_its_end(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with (
        NodeProcess(tmp_path / "public", role=Role.PUBLIC, tls=(certificate, key, certificate)) as node,
        node.client(Scope.PUSH) as client,
    ):
        (found,) = endings("public", client)
    assert found.kind == "certificate"
    assert timedelta(days=1) < found.ends - datetime.now(UTC) < timedelta(days=3)
    assert found.words == f"its certificate ends at {found.ends:%Y-%m-%d %H:%M} UTC"


def test_a_token_that_expires_and_a_root_that_ends_are_named_and_what_holds_for_longer_is_not(
    omega: NodeProcess, tmp_path: Path
) -> None:
    with omega.client(Scope.ADMIN) as client:
        assert endings("omega", client) == []
        people = People()
        client.put_trust(people.begin(client))
        assert endings("omega", client) == []
    day = f"{datetime.now(UTC) + timedelta(days=10):%Y-%m-%d}"
    added = ashat_node("token", "add", "--role", "owner", "--expires", day, "--data", omega.data)
    with NodeClient(omega.url, token=added.stdout.strip(), name="omega") as client:
        (found,) = endings("omega", client)
    assert (found.kind, "deploy configure" in found.how) == ("token", True)
    with NodeClient(omega.url, name="omega") as stranger:
        assert endings("omega", stranger) == []


def test_what_ends_is_noted_told_once_and_over_when_it_was_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    told: list[str] = []
    sent: list[str] = []
    monkeypatch.setattr(drift, "tell", lambda events: told.extend(event.event for event in events))
    monkeypatch.setattr(drift, "notify", lambda subject, *_: sent.append(subject))
    ends = datetime.now(UTC) + timedelta(days=10)
    soon = drift.Trouble("omega", "production", "certificate", "its certificate ends", ends.isoformat(), "renew it")
    assert not soon.wrong_now
    with connections():
        drift.note_troubles([soon])
        drift.note_troubles([soon])
        (noted,) = glance()[1]
        assert (noted["until"], noted["how"]) == (ends.isoformat(), "renew it")
        drift.note_troubles([])
    assert told == ["ashat.key.ending", "ashat.key.renewed"]
    assert sent == ["production: about to lose its certificate", "production: no longer about to lose its certificate"]
