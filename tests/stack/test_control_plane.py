"""The embedded control plane, for real: started once, supervised, killed, started again, and gone without a trace.

The tests of the running control plane follow one another on one home, because a first start takes seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ashat.cli.control_plane.children import child_environment
from ashat.cli.control_plane.connect import running_state
from ashat.cli.control_plane.state import (
    MARKER,
    ControlState,
    end_processes,
    ensure_password,
    is_up,
    marker,
    read_password,
    read_state,
    write_state,
)
from ashat.common.processes import ProcessRef, with_variable
from ashat.settings import Settings
from tests.support.builders.trap import Trap
from tests.support.processes.deploy_cli import deploy, environment
from tests.support.processes.prefect_api import ask_prefect

NAPS = Path(__file__).parents[1] / "support" / "processes" / "naps.yaml"
FLOWS = {"push", "verify", "approve", "rollback", "cancel", "release", "reconcile", "switch"}
SECRET = "not-for-workers"
SECRETS = {"OWN_CHECK_KEY": "for-workers", "ASHAT_OMEGA_TOKEN": SECRET, "ASHAT_KEY_PASSPHRASE": SECRET}
SECRETS |= {"AWS_SECRET_ACCESS_KEY": SECRET, "PGPASSWORD": SECRET}
ROOT = Path(__file__).parents[2]
# As it is installed: its directory is not the one that it is run in.
DEPLOY = [str(Path(sys.executable).with_name("deploy"))]
GUESSED = {"PREFECT_API_AUTH_STRING": "admin:guessed"}
SERVER = "ashat.cli.control_plane.server"
RECONCILER = "ashat.cli.control_plane.reconciler"
WORKER = ("ashat.cli.control_plane.worker", "control")

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Trap:
    return Trap(tmp_path_factory.mktemp("pushed") / "raos")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, trap: Trap) -> Iterator[Path]:
    """A home whose control plane two people started in the same moment, in a directory that is a trap."""
    home = tmp_path_factory.mktemp("plane") / "home"
    command = [*DEPLOY, "up", "--detach", "--prefect-file", str(NAPS)]
    own = {"ASHAT_PASS_ENVIRONMENT": "OWN_CHECK_KEY, NOT_SET", "ASHAT_RECONCILE_SECONDS": "5"}
    env = environment(home, SECRETS | own)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = [subprocess.Popen(command, cwd=trap.directory, env=env, **streams) for _ in range(2)]
    try:
        outputs = [process.communicate(timeout=400)[0].decode() for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert all(state(home).ui_url in output for output in outputs)
        yield home
    finally:
        deploy(home, "down")


def state(home: Path) -> ControlState:
    found = running_state(home)
    assert found is not None
    return found


def api(home: Path, method: str, path: str, body: Any = None) -> Any:
    return ask_prefect(home, method, path, body)


def until(holds: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return found


def start_run(home: Path, deployment: str, **parameters: Any) -> str:
    found = api(home, "GET", f"/deployments/name/{deployment}")
    run = api(home, "POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
    return str(run["id"])


def wait_run(home: Path, run: str, name: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = api(home, "GET", f"/flow_runs/{run}")
        return found if found["state_name"] == name else None

    found: dict[str, Any] = until(ended, f"run {run} {name}")
    return found


def workers(home: Path, pool: str) -> list[str]:
    return [worker["name"] for worker in api(home, "POST", f"/work_pools/{pool}/workers/filter", {})]


def ours(home: Path) -> list[psutil.Process]:
    """Every process that the control plane of `home` started, the supervisor apart."""
    return with_variable(MARKER, marker(home))


def part(home: Path, *words: str) -> int:
    """The pid of the process that the supervisor of `home` started with `words` in its command line."""
    supervisor = state(home).supervisor
    assert supervisor is not None
    found = [p.pid for p in psutil.Process(supervisor.pid).children() if set(words) <= set(p.cmdline())]
    assert len(found) == 1, found
    return found[0]


def test_two_who_start_it_at_once_start_one(home: Path) -> None:
    words = [process.cmdline() for process in ours(home)]
    assert sum(SERVER in line for line in words) == 1
    assert sum("worker" in " ".join(line) for line in words) == 2


def test_its_service_looks_again_and_again_each_time_in_place_of_the_look_before(home: Path) -> None:
    quiet = {"flows": {"name": {"any_": ["reconcile"]}}, "flow_runs": {"state": {"name": {"any_": ["NothingToDo"]}}}}

    def looks() -> set[str]:
        return {run["id"] for run in api(home, "POST", "/flow_runs/filter", quiet)}

    first = until(looks, "a look of reconcile")
    os.kill(part(home, RECONCILER), signal.SIGKILL)  # as any other part it is started again
    second = until(lambda: (found := looks()) and not found & first and found, "a look in place of the first")
    assert len(second) <= 2, "the one before is deleted just after a look ends"
    assert "(reconcile looked " in deploy(home, "status").stdout


def test_it_keeps_to_its_home_and_to_this_machine(home: Path) -> None:
    for path in (
        home,
        home / "control.json",
        home / "control.lock",
        home / "control.log",
        home / "control.password",
        home / "prefect" / "prefect.db",
    ):
        assert path.stat().st_mode & 0o077 == 0, path
    server = psutil.Process(part(home, SERVER))
    listening = [c.laddr.ip for c in server.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


def test_its_processes_inherit_what_is_on_the_list_and_no_secret(home: Path) -> None:
    supervisor = state(home).supervisor
    assert supervisor is not None
    for process in [psutil.Process(supervisor.pid), *ours(home)]:
        variables = process.environ()
        assert SECRET not in variables.values()
        assert "PYTHONDONTWRITEBYTECODE" not in variables
        assert (variables["OWN_CHECK_KEY"], variables["PYTHONPATH"]) == ("for-workers", str(ROOT))
        assert variables["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("name", ["ASHAT_KEY_PASSPHRASE", "ASHAT_OMEGA_EU_TOKEN", "ASHAT_TOKEN"])
def test_a_secret_of_ours_cannot_be_put_on_the_list(tmp_path: Path, name: str) -> None:
    done = deploy(tmp_path, "up", "--detach", env={"ASHAT_PASS_ENVIRONMENT": f"PATH,{name}"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"ASHAT_PASS_ENVIRONMENT names {name}, which one command reads and no worker needs." in done.stderr


def test_pools_queue_blocks_and_deployments_are_there(home: Path) -> None:
    pools = {pool["name"]: pool for pool in api(home, "POST", "/work_pools/filter", {})}
    assert {name: pools[name]["type"] for name in ("alpha", "control")} == {"alpha": "process", "control": "process"}
    assert api(home, "GET", "/work_pools/control/queues/omega")["concurrency_limit"] == 1
    for pool in ("alpha", "control"):
        there = api(home, "POST", f"/work_pools/{pool}/workers/filter", {})
        assert [worker["status"] for worker in there] == ["ONLINE"]
    blocks = {kind["slug"] for kind in api(home, "POST", "/block_types/filter", {})}
    assert {"raos-server", "raos-source"} <= blocks
    nap = api(home, "GET", "/deployments/name/nap/nap")
    assert nap["entrypoint"] == "tests.support.processes.naps.nap"
    assert nap["work_queue_name"] == "omega"
    assert [(s["slug"], s["active"]) for s in nap["schedules"]] == [("nightly", False)]


def test_a_second_up_says_where_the_first_one_is(home: Path) -> None:
    before = state(home)
    for words in (("up",), ("up", "--detach")):
        done = deploy(home, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert before.ui_url in done.stdout
    assert state(home) == before
    assert before.ui_url in deploy(home, "status").stdout


def test_ui_opens_the_browser_signed_in_or_says_the_password(home: Path, tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$*" > {opened}\n')
    browser.chmod(0o755)
    password, address = read_password(home), state(home).ui_url
    done = deploy(home, "ui", env={"BROWSER": str(browser)})
    assert (done.returncode, password in done.stdout) == (0, False)
    assert address in done.stdout
    assert (
        until(lambda: opened.exists() and opened.read_text(), "the browser") == f"{(home / 'sign-in.html').as_uri()}\n"
    )
    none = dict.fromkeys(("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"), "")
    for words, env in ((("ui",), none), (("ui", "--password"), {"BROWSER": str(browser)})):
        done = deploy(home, *words, env=env)
        assert done.stdout == f"Prefect's UI  {address}\nPassword      {password}\n"


def test_a_flow_run_finds_its_code_and_its_settings(home: Path) -> None:
    wait_run(home, start_run(home, "nap/nap", seconds=0), "Completed")


def test_nothing_is_taken_from_the_directory_that_it_was_started_in(home: Path, trap: Trap) -> None:
    env = environment(home)
    for word in ("status", "servers", "history"):
        done = subprocess.run([*DEPLOY, word], cwd=trap.directory, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    everything = [p for p in ours(home) if p.pid != os.getpid()]
    assert everything
    assert not [p for p in everything if Path(p.cwd()) == trap.directory]
    assert trap.sprung() == []


def test_the_traps_spring(trap: Trap) -> None:
    seen = {**os.environ, "PYTHONPATH": ""}
    for module in ("platform", "tasks"):
        subprocess.run([sys.executable, "-c", f"import {module}"], cwd=trap.directory, env=seen, check=True)
    subprocess.run([sys.executable, "-P", "-m", "prefect", "version"], cwd=trap.directory, env=seen, check=False)
    sprung = trap.sprung()
    for path in trap.directory.glob("sprung-*"):
        path.unlink()
    assert {"sprung-platform", "sprung-tasks", "sprung-prefect-settings"} <= set(sprung), sprung


def test_a_worker_that_dies_is_started_again(home: Path) -> None:
    before = part(home, *WORKER)
    os.kill(before, signal.SIGKILL)
    wait_run(home, start_run(home, "nap/nap", seconds=0), "Completed")
    assert part(home, *WORKER) != before
    assert "worker-control ended; starting it again" in (home / "control.log").read_text()


def test_another_home_may_use_it_as_a_server_of_its_own(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    named = {"PREFECT_API_URL": state(home).api_url}
    for wrong, words in (({}, "PREFECT_API_AUTH_STRING is not set"), (GUESSED, "PREFECT_API_AUTH_STRING is wrong")):
        for command in ("up", "servers"):
            done = deploy(other, command, env={**named, **wrong})
            assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
            assert words in done.stderr
    named["PREFECT_API_AUTH_STRING"] = read_password(home)
    done = deploy(other, "up", env=named)
    assert (done.returncode, done.stderr) == (0, "")
    assert state(home).api_url in done.stdout
    assert {d["name"] for d in api(home, "POST", "/deployments/filter", {})} == FLOWS | {"nap"}
    assert "not configured" in deploy(other, "servers", env=named).stdout
    worker = subprocess.Popen(
        [sys.executable, "-m", "ashat.cli", "worker", "--pool", "alpha", "--name", "elsewhere"],
        env=environment(other, named),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: "elsewhere" in workers(home, "alpha"), "the worker from elsewhere")
    finally:
        worker.terminate()
        worker.wait(120)
    assert deploy(other, "down").stdout == "The control plane is not running.\n"
    assert not (other / "control.json").exists()


def test_each_deployment_is_as_it_should_be(home: Path) -> None:
    found = {d["name"]: d for d in api(home, "POST", "/deployments/filter", {}) if d["name"] in FLOWS}
    seen = {
        name: (d["entrypoint"], d["work_pool_name"], d["work_queue_name"], set(d["tags"]), d["concurrency_limit"])
        for name, d in found.items()
    }
    assert seen == {
        "push": ("flows.push.push", "alpha", "default", {"ashat", "alpha"}, None),
        "verify": ("flows.verify.verify", "control", "default", {"ashat", "public"}, None),
        "approve": ("flows.approve.approve", "control", "omega", {"ashat", "gate", "omega"}, None),
        "rollback": ("flows.rollback.rollback", "control", "omega", {"ashat", "omega"}, None),
        "cancel": ("flows.cancel.cancel", "control", "default", {"ashat", "public"}, None),
        "release": ("flows.release.release", "alpha", "default", {"ashat", "alpha"}, None),
        "switch": ("flows.switch.switch", "control", "default", {"ashat", "public"}, None),
        "reconcile": ("flows.reconcile.reconcile", "control", "default", {"ashat", "control"}, None),
    }
    assert all(d["description"].endswith(".") and "\n" not in d["description"] for d in found.values())
    schedules = {name: [(s["schedule"], s["active"]) for s in d["schedules"]] for name, d in found.items()}
    ((nightly, active),) = schedules.pop("release")
    assert (nightly["cron"], nightly["timezone"], active) == ("0 2 * * 1-5", "UTC", False)
    ((often, active),) = schedules.pop("reconcile")
    assert (often["interval"], active) == (60.0, True), "it was prepared as a server of another home's"
    assert not any(schedules.values())


def test_each_form_is_typed_titled_described_and_ordered(home: Path) -> None:
    ordered = {}
    for found in api(home, "POST", "/deployments/filter", {}):
        if found["name"] not in FLOWS:
            continue
        form = found["parameter_openapi_schema"]
        fields = form["properties"]
        for name, field in fields.items():
            assert field["type"] in ("string", "boolean", "integer"), (found["name"], name)
            assert field["title"][0].isupper(), (found["name"], name)
            assert "`" not in field["description"], "one of Prefect's UIs shows these as they are"
            assert field["description"].endswith("."), (found["name"], name)
            assert ("default" in field) is (name not in form.get("required", [])), (found["name"], name)
        ordered[found["name"]] = sorted(fields, key=lambda name: fields[name]["position"])
        assert sorted(field["position"] for field in fields.values()) == list(range(len(fields)))
        assert found["enforce_parameter_schema"] is True
    assert ordered == {
        "push": ["update_id", "description", "info", "source", "public", "target", "allow_dirty"],
        "verify": ["update_id", "attempt", "policy", "fresh"],
        "approve": ["update_id", "attempt"],
        "rollback": ["update_id", "attempt", "reason", "by"],
        "cancel": ["update_id", "attempt", "reason", "by"],
        "release": [
            *("update_id", "description", "unanswered", "allow_dirty", "info", "source", "public", "target", "policy"),
        ],
        "switch": ["update_id", "attempt"],
        "reconcile": [],
    }


def tamper(home: Path, name: str, mark: Path) -> dict[str, Any]:
    """Change all that the API lets change of what a deployment runs, to what would leave `mark`; what it was."""
    found: dict[str, Any] = api(home, "GET", f"/deployments/name/{name}")
    (mark.parent / "tests").mkdir(parents=True)
    for file in ("evil.py", "tests/__init__.py", "sitecustomize.py"):
        (mark.parent / file).write_text(f"open({str(mark)!r}, 'w').close()\n")
    changes = {
        "pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {mark}"}}],
        "job_variables": {
            "command": f"touch {mark}",
            "env": {"PYTHONPATH": str(mark.parent), "PREFECT__FLOW_ENTRYPOINT": "evil.flow"},
            "working_dir": str(mark.parent),
        },
        "path": str(mark.parent),
        "entrypoint": f"{mark.parent / 'evil.py'}:flow",
    }
    api(home, "PATCH", f"/deployments/{found['id']}", changes)
    changed = api(home, "GET", f"/deployments/name/{name}")
    assert {key: changed[key] for key in changes} == changes
    return found


def test_a_worker_runs_its_own_flow_whatever_the_server_says_of_it(home: Path, tmp_path: Path) -> None:
    mark = tmp_path / "evil" / "mark"
    tamper(home, "nap/nap", mark)
    wait_run(home, start_run(home, "nap/nap", seconds=0), "Completed")
    assert not mark.exists()
    flow = api(home, "GET", "/flows/name/nap")
    unknown = {"name": "unknown", "flow_id": flow["id"], "work_pool_name": "control", "entrypoint": "evil.flow"}
    api(home, "POST", "/deployments/", unknown)
    ended = wait_run(home, start_run(home, "nap/unknown"), "Crashed")
    assert "This installation has no deployment 'unknown'" in ended["state"]["message"]


def test_killed_at_once_it_starts_again_where_it_was(home: Path) -> None:
    run = start_run(home, "nap/nap", seconds=300)
    wait_run(home, run, "Running")
    before = state(home)
    assert before.supervisor is not None
    everything = [psutil.Process(before.supervisor.pid), *ours(home)]
    assert any("control_plane.engine" in " ".join(process.cmdline()) for process in everything)
    for process in everything:
        process.kill()
    psutil.wait_procs(everything, timeout=60)
    assert running_state(home) is None

    done = deploy(home, "servers", timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "Starting the control plane (deploy down stops it) …\n"
    after = state(home)
    assert after.api_url == before.api_url
    assert after.supervisor != before.supervisor
    assert wait_run(home, run, "Crashed")["state"]["message"] == "It ended with the control plane."
    looked = start_run(home, "reconcile/reconcile")
    until(lambda: api(home, "GET", f"/flow_runs/{looked}")["state_type"] == "COMPLETED", "a look that ends well")


def test_what_a_person_changed_in_the_ui_outlives_a_restart_and_down_leaves_nothing(home: Path, tmp_path: Path) -> None:
    release = api(home, "GET", "/deployments/name/release/release")
    schedule = f"/deployments/{release['id']}/schedules/{release['schedules'][0]['id']}"
    api(home, "PATCH", schedule, {"active": True})
    planned = {
        "deployments": {"id": {"any_": [release["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    until(lambda: api(home, "POST", "/flow_runs/count", planned), "the release that Prefect's scheduler plans")
    own = {"schedule": {"cron": "0 20 * * 5", "timezone": "Europe/Berlin"}, "active": True}
    named = {"schedule": {"cron": "0 4 * * 6"}, "active": False, "slug": "mine", "parameters": {"source": "other"}}
    api(home, "POST", f"/deployments/{release['id']}/schedules", [own, named])

    tampered = {name: tamper(home, name, tmp_path / name / "mark") for name in ("push/push", "verify/verify")}
    deployments = {**tampered, "release/release": release}

    supervisor = state(home).supervisor
    assert supervisor is not None
    done = deploy(home, "down")
    assert (done.returncode, done.stdout, done.stderr) == (0, "🛑 The control plane is stopped.\n", "")
    assert ours(home) == []
    assert supervisor.process() is None
    assert deploy(home, "down").stdout == "The control plane is not running.\n"
    assert "not running" in deploy(home, "status").stdout

    assert deploy(home, "up", "--detach", timeout=400).returncode == 0
    again = api(home, "GET", "/deployments/name/release/release")
    kept = {(s["slug"], s["schedule"]["cron"], s["active"]) for s in again["schedules"]}
    theirs = {(None, "0 20 * * 5", True), ("mine", "0 4 * * 6", False)}
    assert kept == {("weeknights", "0 2 * * 1-5", True), *theirs}
    assert len(again["schedules"]) == 3
    assert {s["slug"]: s["parameters"] for s in again["schedules"]}["mine"] == {"source": "other"}
    for name, before in deployments.items():
        after = api(home, "GET", f"/deployments/name/{name}")
        for field in before.keys() - {"updated", "status", "last_polled", "schedules"}:
            assert after[field] == before[field], (name, field)


def test_a_file_that_cannot_be_applied_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    home, bad = tmp_path / "home", tmp_path / "bad.yaml"
    bad.write_text("deployments:\n  - name: x\n    entrypoint: nowhere.b\n")
    done = deploy(home, "up", "--detach", "--prefect-file", str(bad))
    assert done.returncode == 1
    assert "bad.yaml: the deployment 'x' cannot be loaded: No module named 'nowhere'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert ours(home) == []
    assert running_state(home) is None


def test_what_an_earlier_control_plane_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    mine = child_environment(Settings(home=tmp_path), ControlState(port=1))
    theirs = child_environment(Settings(home=tmp_path / "other"), ControlState(port=1))
    command = [sys.executable, "-c", deaf]
    orphan, stranger = (subprocess.Popen(command, env=env, stdout=subprocess.PIPE) for env in (mine, theirs))
    try:
        assert orphan.stdout is not None
        assert orphan.stdout.readline() == b"deaf\n"
        assert end_processes(tmp_path, grace=0.3) == 1
        assert not psutil.pid_exists(orphan.pid)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(30)


def test_the_password_is_kept_unless_others_could_read_it(tmp_path: Path) -> None:
    kept = ensure_password(tmp_path)
    assert kept.startswith("admin:")
    assert len(kept) > 40
    assert ensure_password(tmp_path) == kept == read_password(tmp_path)
    (tmp_path / "control.password").chmod(0o640)
    other = ensure_password(tmp_path)
    assert other != kept
    assert (tmp_path / "control.password").stat().st_mode & 0o777 == 0o600
    (tmp_path / "control.password").write_bytes(b"\xff")
    assert len(ensure_password(tmp_path)) == len(kept)


def test_a_supervisor_whose_pid_was_given_to_somebody_else_is_not_up(tmp_path: Path) -> None:
    this = ProcessRef.of(os.getpid())
    assert this is not None
    write_state(tmp_path, ControlState(port=1, ready=True, supervisor=ProcessRef(this.pid, this.created - 3600)))
    assert running_state(tmp_path) is None


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"port": "x"}', '{"port": 1, "ready": true, "supervisor": 3}'])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, broken: str) -> None:
    (tmp_path / "control.json").write_text(broken)
    assert read_state(tmp_path) is None


def test_the_state_survives_being_written(tmp_path: Path) -> None:
    this = ProcessRef.of(os.getpid())
    state = ControlState(port=4242, ready=True, supervisor=this)
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert is_up(state)
    assert not is_up(ControlState(port=1))
    assert (tmp_path / "control.json").stat().st_mode & 0o777 == 0o600


def test_paths_and_tokens_on_the_way_to_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASHAT_OMEGA_EU_TOKEN", SECRET)
    monkeypatch.setenv("PREFECT_PROFILE", "theirs")
    settings = Settings(home=Path("home"), ledger_url="sqlite:///mine.db")
    env = child_environment(settings, ControlState(port=1))
    assert env["ASHAT_HOME"] == str(tmp_path / "home")
    assert env["ASHAT_LEDGER_URL"] == f"sqlite:///{tmp_path / 'mine.db'}"
    assert env["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert SECRET not in env.values()
    assert "PREFECT_PROFILE" not in env
