"""A command that ends early says by the record what goes on without it, in its one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from ashat.cli.commands.aftermath import told_what_goes_on
from ashat.cli.terminal.interrupts import StoppedError
from ashat.deployment.events import RollbackStarted
from ashat.deployment.state_machine import Stage
from ashat.errors import SessionError, UsageError
from tests.support.builders.deployments import open_ledger, record


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    with open_ledger(tmp_path / "home") as ledger:
        for stage in (Stage.PUSHED, Stage.DEPLOYING):
            record(ledger, f"UPD-{stage.value}", stage)
        done = record(ledger, "UPD-back", Stage.COMPLETED)
        ledger.append(done, RollbackStarted(at=done.updated_at or done.created_at, reason="oops"))  # type: ignore[arg-type]
    return tmp_path / "home"


def ended_with(error: BaseException, update_id: str) -> BaseException:
    """What a command ends with that ended with `error` while it worked on the update."""
    try:
        with told_what_goes_on(update_id):
            raise error
    except BaseException as ended:  # noqa: BLE001  whatever it became
        return ended


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_ends_with_130_and_what_is_true_at_that_moment(error: BaseException) -> None:
    for update_id, told in (
        ("UPD-new", "Nothing of it is recorded yet"),
        ("UPD-Pushed", "deploy verify UPD-Pushed checks it"),
        ("UPD-DeployingToOmega", "deploy rollback UPD-DeployingToOmega stops it"),
    ):
        stopped = ended_with(error, update_id)
        assert isinstance(stopped, StoppedError)
        assert stopped.exit_code == 130
        assert str(stopped).startswith("Interrupted. ")
        assert told in str(stopped)


@pytest.mark.usefixtures("home")
def test_a_failure_is_told_with_what_goes_on_and_a_mistake_in_the_words_is_not() -> None:
    failed = ended_with(SessionError("production lacks objects."), "UPD-back")
    assert str(failed) == "production lacks objects."
    assert "deploy cancel UPD-back calls it off" in failed.__notes__[0]
    for update_id, error in (
        ("UPD-Pushed", SessionError("no")),
        ("UPD-new", SessionError("no")),
        ("UPD-back", UsageError("no")),
        ("UPD-back", StoppedError("no")),
    ):
        assert not hasattr(ended_with(error, update_id), "__notes__")
