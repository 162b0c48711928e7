"""`deploy verify --self-test`: what it shows, what it records, and what becomes of a check that misses its fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ashat.cli.main import run
from ashat.ledger.ledger import Ledger
from tasks.selftest import run as runner
from tasks.selftest.faults import catalogue
from tasks.selftest.faults.base import SeededFault
from tasks.verify.proofs import SELF_TEST, SelfTestResult, proofs_of

FEW = ("module-missing=Chat", ".env", "drop-table=orders")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ASHAT_LEDGER_URL", raising=False)
    return tmp_path / "home"


def recorded(home: Path) -> dict[str, SelfTestResult]:
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        return proofs_of(ledger.newest(SELF_TEST))


def few() -> tuple[SeededFault, ...]:
    found = tuple(fault for fault in catalogue() if any(word in fault.name for word in FEW))
    assert len(found) >= 2
    return found


def test_each_fault_is_listed_and_what_was_proved_is_recorded(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = few()
    monkeypatch.setattr(runner, "catalogue", lambda: faults)
    assert run(["verify", "--self-test"]) == 0
    shown = capsys.readouterr().out
    for fault in faults:
        assert f"✅ {fault.check}: {fault.name}: " in shown
    checks = {fault.check for fault in faults}
    assert f"✅ {len(faults)} of {len(faults)} seeded faults caught, by {len(checks)} checks" in shown
    proofs = recorded(home)
    assert proofs.keys() == checks
    assert sum(proof.seeded for proof in proofs.values()) == len(faults)
    assert not any(proof.missed for proof in proofs.values())


def test_a_check_that_misses_its_fault_is_untrusted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    harmless = SeededFault("nothing at all", "modules", "anything", lambda _: None)
    monkeypatch.setattr(runner, "catalogue", lambda: (harmless,))
    assert run(["verify", "--self-test", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["checks"]["modules"]["missed"] == ["nothing at all"]
    assert told.err.startswith("❌ Untrusted until mended: modules (nothing at all).")
    assert recorded(home)["modules"].missed == ("nothing at all",)


def test_it_tries_checks_not_updates(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "UPD-1", "--self-test"]) == 2
    assert run(["verify"]) == 2
    told = capsys.readouterr().err
    assert "--self-test tries the checks, not an update" in told
    assert "Say which update: deploy verify <id>." in told
