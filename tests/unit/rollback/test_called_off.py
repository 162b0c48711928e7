"""A rollback that failed is called off as long as nothing has gone back, and no run that follows begins it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ashat.deployment.events import RollbackStarted
from ashat.deployment.state_machine import Stage
from ashat.errors import NodeUnreachableError, SessionError
from ashat.ledger.ledger import now
from ashat.protocol.messages import Current
from tasks.rollback import rollback as under_test
from tasks.runtime.connections import connections, this_run
from tasks.runtime.deployment import Deployment, deployment
from tests.support.builders.deployments import record


class Omega:
    """An OMEGA that runs `bundle`, or does not answer where that is ""."""

    bundle: str | None = None

    def identity(self) -> Any:
        if self.bundle == "":
            raise NodeUnreachableError("it is down", server="production")
        current = Current(bundle=self.bundle, update_id="UPD-1", attempt=1, since=now()) if self.bundle else None
        return SimpleNamespace(current=current)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Deployment, Omega, set[str]]]:
    """A rollback that was begun, its OMEGA, and the flow runs that are alive."""
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    alive: set[str] = set()
    monkeypatch.setattr(under_test, "is_alive", alive.__contains__)
    omega = Omega()
    monkeypatch.setattr(Deployment, "target", property(lambda _: cast(Any, omega)))
    with connections():
        done = record(this_run().ledger, "UPD-1", Stage.COMPLETED)
        this_run().ledger.append(done, RollbackStarted(at=now(), run="first"))
        omega.bundle = done.bundle
        yield deployment("UPD-1"), omega, alive


@pytest.mark.parametrize("silent", [False, True])
def test_it_is_called_off_and_a_run_that_was_to_go_on_with_it_does_nothing(case: Any, silent: bool) -> None:
    d, omega, _ = case
    omega.bundle = "" if silent else omega.bundle
    assert not under_test.was_stopped(d.state)
    state = under_test.stop_rollback(d, "mend it instead", "kim")
    assert (state.stage, state.rolling_back) == (Stage.COMPLETED, False)
    assert under_test.was_stopped(d.state)
    with pytest.raises(SessionError, match="is not being rolled back"):
        under_test.stop_rollback(d, "", "")


def test_it_is_not_while_a_run_is_at_work_or_once_omega_has_gone_back(case: Any) -> None:
    d, omega, alive = case
    alive.add("first")
    with pytest.raises(SessionError, match="is at work"):
        under_test.stop_rollback(d, "", "")
    alive.clear()
    omega.bundle = d.state.omega_before
    with pytest.raises(SessionError, match="can only be finished"):
        under_test.stop_rollback(d, "", "")
    assert d.state.rolling_back
