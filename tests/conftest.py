"""What every test can count on: needs that are met or skipped with a reason, and no process left behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from hypothesis import settings

from ashat.trust.update_client.client import ReleaseClient
from scripts import retest
from tests.support import durations, needs
from tests.support.builders.databases import new_postgresql_database
from tests.support.builders.trust_world import Server, World, mainframe, serving
from tests.support.processes import leftovers, node_cli
from tests.support.processes.forks import FORKS
from tests.support.processes.fragile_stack import FragileStack
from tests.support.processes.stack import Stack

# The same examples each time; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))

_SHOWN_BYTES = 32
_found = pytest.StashKey[list[str]]()
_of_the_group = pytest.StashKey[ExitStack]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help="Record how long each group of tests takes.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_of_the_group] = ExitStack()
    config.addinivalue_line("markers", "needs(name, ...): what must be here, such as postgresql")
    if not _is_worker(config):
        _leave_the_home_alone()
        signal.signal(signal.SIGTERM, _interrupt)
        _take_interrupts()
        if config.getoption("record_durations"):
            config.pluginmanager.register(durations.Recorder())


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a case of many bytes by its argument: archives hold the time at which each worker made them, and workers
    that collect different names run nothing."""
    return argname if isinstance(val, bytes) and len(val) > _SHOWN_BYTES else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a module on one worker unless it says otherwise, so that its fixtures are made once.

    The group that took longest, when that was recorded, comes first, so that no worker is left alone with one at the
    end; a group is never interrupted by another.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(durations.group_of(item)))
    place = {group: number for number, group in enumerate(durations.order_groups(items))}
    items.sort(key=lambda item: place[durations.group_of(item)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.group = durations.group_of(item)  # type: ignore[attr-defined]
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for need in marker.args:
            reason = needs.missing(need)
            if reason and need in needs.required():
                pytest.fail(f"ASHAT_TEST_REQUIRE names {need}, but {reason}", pytrace=False)
            if reason:
                pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """End what a group shared as soon as its last test is done: a control plane costs processor as long as it is up."""
    try:
        return (yield)
    finally:
        if nextitem is None or durations.group_of(nextitem) != durations.group_of(item):
            item.config.stash[_of_the_group].close()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fail the run if it left a process behind, and end that process, also when the run is interrupted."""
    try:
        return (yield)
    finally:
        FORKS.close()
        if not _is_worker(session.config):
            _end_leftovers(session)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_found, [])
    if found:
        terminalreporter.section("processes left behind", red=True)
        for line in found:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A control plane, Public, OMEGA and two Mainframes that run a first release, UPD-0.

    Shared by the modules of the xdist group "stack", with which it ends; each leaves the servers configured and in
    order.
    """
    running = pytestconfig.stash[_of_the_group].enter_context(Stack(tmp_path_factory.mktemp("stack")))
    running.ship("UPD-0", "What runs before")
    return running


@pytest.fixture(scope="session")
def fragile(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> FragileStack:
    """A control plane, Public, OMEGA and one Mainframe that run nothing yet and can be told to die somewhere.

    Shared by the modules of the xdist group "fragile", with which it ends.
    """
    return pytestconfig.stash[_of_the_group].enter_context(FragileStack(tmp_path_factory.mktemp("fragile")))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """People with keys, and the repository of an OMEGA for which they sign."""
    return World(tmp_path / "repository")


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """Serves the repository of `world`; a thief may let it serve something else."""
    with serving(world.directory) as running:
        yield running


@pytest.fixture
def client(world: World, server: Server, tmp_path: Path) -> Iterator[ReleaseClient]:
    """A Mainframe's look at what `server` serves."""
    with mainframe(server, world, tmp_path / "cache") as asking:
        yield asking


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that any user can reach, as `tmp_path` cannot be."""
    directory = Path(tempfile.mkdtemp(prefix="ashat-place-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database, dropped afterwards; needs `requires_postgresql`."""
    with new_postgresql_database() as url:
        yield url.render_as_string(hide_password=False)


def _end_leftovers(session: pytest.Session) -> None:
    homes = Path(os.environ["ASHAT_TEST_HOMES"])
    below = [homes, *_temporary_directory(session.config)]
    found = leftovers.wait_for_leftovers(os.environ[leftovers.VARIABLE], below)
    shutil.rmtree(homes, ignore_errors=True)
    session.config.stash[_found] = [leftovers.describe(process) for process in found]
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    retest.keep_end(session.config, int(session.exitstatus), left_behind=len(found))
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _interrupt(*_: object) -> NoReturn:
    """End the run as Ctrl-C does, so that what it started ends with it."""
    raise KeyboardInterrupt


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _temporary_directory(config: pytest.Config) -> list[Path]:
    factory: pytest.TempPathFactory | None = getattr(config, "_tmp_path_factory", None)
    return [factory.getbasetemp()] if factory else []


def _leave_the_home_alone() -> None:
    """No test reads or writes the files of whoever runs it, nor their settings; workers inherit this."""
    for name in [name for name in os.environ if name.startswith(("ASHAT_", "PREFECT_"))]:
        if not name.startswith("ASHAT_TEST_"):
            del os.environ[name]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile the same modules
    homes = tempfile.mkdtemp(prefix="ashat-test-")
    os.environ[leftovers.VARIABLE] = uuid.uuid4().hex
    os.environ["ASHAT_TEST_HOMES"] = homes
    os.environ["ASHAT_HOME"] = os.path.join(homes, "ashat")
    os.environ["PREFECT_HOME"] = os.path.join(homes, "prefect")


def _take_interrupts() -> None:
    """Do not ignore SIGINT, as what a shell starts in the background does, and what that starts: some tests send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> node_cli.Run:
    """`ashat-node` with those words: its exit code, and what it wrote."""
    return node_cli.runner(monkeypatch, capsys)
