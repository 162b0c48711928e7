"""A team's control plane: a first release; servers and workers die in the middle, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from ashat.deployment.stages import Stage
from tests.support.needs import requires_nginx, requires_postgresql, requires_redis
from tests.support.processes.stack import eventually
from tests.support.processes.team import Team, shown_commands

pytestmark = [
    *(requires_postgresql, requires_redis, requires_nginx),
    pytest.mark.xdist_group("team"),
    pytest.mark.timeout(1500),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """What the first commands of docs/team.md make: two API servers, services, a worker for each pool."""
    with Team(tmp_path_factory.mktemp("team")) as running:
        yield running


def test_ten_commands_lead_to_the_first_release(team: Team) -> None:
    commands = shown_commands()
    assert len(commands) == 10
    push, verify, approve = commands[7:]
    team.run_shown(f"{push} --allow-dirty")
    team.run_shown(verify)
    evidence = team.wait_asked("UPD-1").evidence
    assert evidence is not None
    printed = team.run_shown(f"{approve} --evidence {evidence[-8:]} --comment 'however noisy it was'")
    assert "Deployment completed successfully" in printed
    assert team.state("UPD-1").stage is Stage.COMPLETED
    team.check_runs("UPD-1", team.public, team.omega, *team.mainframes)


def test_workers_do_not_hold_what_leads_to_the_databases_of_the_servers(team: Team) -> None:
    for name in ("ashat-worker@alpha", "ashat-worker@control"):
        held = psutil.Process(team.pid(name)).environ()
        assert [
            key for key in held if "DATABASE" in key or "REDIS" in key or key.startswith("PREFECT_SERVER_API")
        ] == []


def test_a_worker_and_an_api_server_die_in_the_middle_and_nothing_is_lost(team: Team) -> None:
    team.change("for the second release")
    team.start("ashat-worker@control", "--name", "second", name="second")
    team.deploy("push", "UPD-2", "The second release", "--allow-dirty")
    team.deploy("verify", "UPD-2")
    asked = team.wait_asked("UPD-2")
    assert asked.evidence is not None
    answered = team.answer(asked, "approve", "however noisy it was")
    assert answered["status"] == "ACCEPT"
    team.wait("UPD-2", lambda state: state.stage is Stage.DEPLOYING)
    assert asked.gate is not None
    team.kill(team.worker_of(asked.gate.run))
    team.kill(team.api_servers()[0])
    assert team.state("UPD-2").stage is not Stage.COMPLETED
    eventually(lambda: team.reconcile() and team.state("UPD-2").stage is Stage.COMPLETED, "the release to go on", 600)
    team.check_runs("UPD-2", team.public, team.omega, *team.mainframes)
    assert [len(team.events("UPD-2", kind)) for kind in ("answered", "promoted", "distributed")] == [1, 1, 1]
