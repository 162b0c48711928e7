"""What Prometheus is told of the record: names, bounded labels, counters that never fall, and how it is served."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ashat.cli.commands.metrics import page
from ashat.cli.terminal import serve_metrics
from ashat.cli.terminal.serve_metrics import CONNECTIONS, Exporter
from ashat.deployment import events as e
from ashat.deployment.state_machine import Stage
from ashat.errors import LedgerError, UsageError
from ashat.stats.deliveries import Entry, deliveries
from ashat.stats.exposition import LABELS_LIMIT, OTHER, Record, exposition
from tests.support.builders.deployments import CHECK, open_ledger, record
from tests.support.needs import requires_promtool
from tests.support.processes.deploy_cli import deploy, environment
from tests.unit.stats.test_stats import HOUR, T0, back, created, packaged, promoted, story

CUMULATIVE = ("counter", "histogram")


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def exposed(entries: list[Entry], summaries: list[dict[str, Any]] | None = None) -> bytes:
    return exposition(Record(deliveries(entries), summaries or [], [], None))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("metrics") / "home"
    with open_ledger(home) as ledger:
        for number, stage in enumerate(Stage):
            record(ledger, f"UPD-{number}", stage, at=datetime.now(UTC) - timedelta(hours=number))
        late = datetime.now(UTC) - timedelta(days=9)
        record(ledger, "UPD-late", Stage.AWAITING_APPROVAL, at=late, expires=late + HOUR)
    return home


def test_what_the_ledger_holds_is_counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(home))
    found = samples(page())

    def one(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert one("ashat_deploy_deployments_total", target="omega") == len(Stage) + 1
    assert one("ashat_deploy_deployments_ended_total", target="omega", result="completed") == 2
    assert one("ashat_deploy_deployments_ended_total", target="omega", result="rolled_back") == 1
    assert one("ashat_deploy_deployments_at_stage", stage="AwaitingApproval") == 1
    assert one("ashat_deploy_deployments_at_stage", stage="Expired") == 2  # the overdue one, too
    assert one("ashat_deploy_gates_open", target="omega") == 1
    assert one("ashat_deploy_gate_next_expiry_timestamp_seconds", target="omega") > datetime.now(UTC).timestamp()
    assert one("ashat_deploy_checks_total", check="modules", outcome="fail") == 1
    assert one("ashat_deploy_stage_duration_seconds_count", stage="promote") == 3
    assert one("ashat_deploy_approval_wait_seconds_count") == 4


@requires_promtool
def test_names_and_units_follow_the_conventions(home: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool
    printed = deploy(home, "metrics").stdout
    done = subprocess.run([promtool, "check", "metrics"], input=printed, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def answered(at: datetime, decision: str = "approve") -> e.ApprovalAnswered:
    return e.ApprovalAnswered(at=at, ordinal=1, decision=decision, accepted=True)  # type: ignore[arg-type]


STORY = story(
    "A",
    created(T0),
    packaged(T0),
    e.Pushed(at=T0 + HOUR, url="http://public"),
    e.VerificationStarted(at=T0 + HOUR),
    e.Verified(at=T0 + 2 * HOUR, evidence="e" * 64, outcome="failed", checks=(CHECK,)),
    e.VerificationStarted(at=T0 + 3 * HOUR),
    e.Verified(at=T0 + 9 * HOUR, evidence="e" * 64, outcome="passed", checks=(CHECK,)),
    e.GateOpened(at=T0 + 9 * HOUR, opening=1, expires=T0 + 99 * HOUR),
    answered(T0 + 10 * HOUR),
    answered(T0 + 11 * HOUR),
    e.Promoting(at=T0 + 11 * HOUR, operation="op"),
    promoted(T0 + 12 * HOUR),
    e.Distributed(at=T0 + 13 * HOUR, mainframes=()),
    e.RollbackStarted(at=T0 + 14 * HOUR),
    back(T0 + 15 * HOUR),
    e.RolledBack(at=T0 + 15 * HOUR),
)


def test_no_counter_and_no_bucket_ever_falls_as_the_record_grows() -> None:
    before: dict[Any, float] = {}
    for length in range(1, len(STORY) + 1):
        text = exposed(STORY[:length])
        kept = {family.name: family.type for family in text_string_to_metric_families(text.decode())}
        now = {
            key: value
            for key, value in samples(text).items()
            if any(key[0].startswith(name) and kind in CUMULATIVE for name, kind in kept.items())
        }
        assert {key: value for key, value in before.items() if now.get(key, 0) < value} == {}
        before = now
    ended = {dict(labels)["result"]: value for (name, labels), value in before.items() if name.endswith("ended_total")}
    assert {result for result, value in ended.items() if value} == {"completed", "rolled_back"}
    assert before["ashat_deploy_approval_wait_seconds_sum", ()] == 2 * 3600
    assert before["ashat_deploy_stage_duration_seconds_sum", (("stage", "verify"),)] == 3600


def test_a_ledger_of_any_names_makes_a_bounded_number_of_series() -> None:
    outcome = {"title": "t", "outcome": "pass", "seen": "s"}
    entries = [
        entry
        for n in range(500)
        for entry in story(
            f"U{n}",
            created(T0, f"target-{n:03}" + "x" * 1000),
            e.Verified(
                at=T0, evidence="e" * 64, outcome="passed", checks=(e.CheckOutcome(name=f"check-{n}", **outcome),)
            ),
        )
    ]
    found = samples(exposed(entries))
    assert len(found) < 1000
    targets = {dict(labels)["target"]: value for (name, labels), value in found.items() if name.endswith("nts_total")}
    assert (len(targets), targets[OTHER]) == (LABELS_LIMIT + 1, 500 - LABELS_LIMIT)
    assert max(map(len, targets)) <= 100
    hostile = samples(exposed(story("U", created(T0, 'a"}\n# HELP x\\'))))
    assert hostile["ashat_deploy_deployments_total", (("target", 'a"}\n# HELP x\\'),)] == 1


@contextmanager
def serving(read: Any) -> Iterator[Exporter]:
    with Exporter(("127.0.0.1", 0), read, "text/plain") as exporter:
        thread = threading.Thread(target=exporter.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield exporter
        finally:
            exporter.shutdown()
            thread.join()


def get(exporter: Exporter, path: str = "/metrics") -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{exporter.server_port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_is_served_at_one_path_and_read_once_for_many_who_ask() -> None:
    reads = []

    def read() -> bytes:
        reads.append(1)
        return b"a 1\n"

    with serving(read) as exporter:
        assert [get(exporter) for _ in range(5)] == [(200, b"a 1\n")] * 5
        assert len(reads) == 1
        assert get(exporter, "/")[0] == 404
        connection = http.client.HTTPConnection("127.0.0.1", exporter.server_port, timeout=10)
        connection.request("POST", "/metrics", b"x")
        assert connection.getresponse().status == 501
        connection.close()
        with pytest.raises(UsageError, match="Nothing can listen on"):
            Exporter(("127.0.0.1", exporter.server_port), read, "text/plain")


def test_a_ledger_that_does_not_answer_is_a_503_in_a_line() -> None:
    def read() -> bytes:
        raise LedgerError("The ledger does not answer.")

    with serving(read) as exporter:
        assert get(exporter) == (503, b"The ledger does not answer.\n")


def test_those_who_say_nothing_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda: b"a 1\n") as exporter:
        idle = [socket.create_connection(("127.0.0.1", exporter.server_port)) for _ in range(CONNECTIONS)]
        with pytest.raises((OSError, http.client.HTTPException)):
            get(exporter)  # one more than there may be
        for each in idle:
            each.close()
    monkeypatch.setattr(serve_metrics, "CONNECTION_SECONDS", 0.5)
    with serving(lambda: b"a 1\n") as exporter:
        slow = [socket.create_connection(("127.0.0.1", exporter.server_port)) for _ in range(3)]
        for each in slow[1:]:
            each.sendall(b"GET /met")
        for each in slow:
            each.settimeout(20)
            assert each.recv(1) == b""  # hung up on
            each.close()
        assert get(exporter) == (200, b"a 1\n")


def test_the_command_serves_until_it_is_told_to_stop_and_names_a_wrong_address(home: Path) -> None:
    words = [sys.executable, "-m", "ashat.cli", "metrics", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(words, env=environment(home), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[-1]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert b"ashat_deploy_gates_open" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    for wrong in ("9464", "host:", "127.0.0.1:99999", "127.0.0.1:x"):
        done = deploy(home, "metrics", "--listen", wrong)
        assert (done.returncode, "is no address: give HOST:PORT" in done.stderr) == (2, True)
