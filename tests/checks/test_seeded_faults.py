"""The checks against a real node and a real program: each passes on the good release, and notices every bad one.

What is seeded is tried by `deploy verify --self-test` itself, once for each of some portions that workers share, and
held against what each fault is to show; with `-k` it tries the chosen faults alone.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle.manifest import Manifest
from ashat.cli.main import run
from ashat.ledger.ledger import Ledger
from tasks.checks import CheckResult, all_checks, run_check
from tasks.selftest import run as runner
from tasks.selftest.faults import catalogue
from tasks.selftest.faults.base import SeededFault
from tasks.selftest.faults.security import AWS_KEY
from tasks.selftest.faults.staging import Staging, staging
from tasks.selftest.run import TrialReleases
from tasks.verify.proofs import SELF_TEST, SelfTestResult, proofs_of

pytestmark = pytest.mark.timeout(1200)
CHECKS = {check.name: check for check in all_checks()}
# Which checks' faults are tried together; every other check's are one portion more.
PORTIONS = (("api",), ("security",), ("database",))
OTHERS = tuple(sorted({fault.check for fault in catalogue()} - {check for portion in PORTIONS for check in portion}))


@dataclass(frozen=True)
class Listed:
    """What `deploy verify --self-test` did with those faults: its exit status, its lines, and what it recorded."""

    faults: tuple[SeededFault, ...]
    status: int
    lines: list[str]
    proofs: Mapping[str, SelfTestResult]


class Tries:
    """A Public node with the sample on it, shared by every test here; `good` is the good release's directory."""

    def __init__(self, server: Staging, bench: TrialReleases) -> None:
        self.server = server
        self.bench = bench
        self.good = bench.good_tree
        self.previous: Manifest | None = None

    def run(self, tree: Path) -> str:
        """Have the node run `tree`; its digest."""
        return self.server.run(tree)

    def check(self, name: str, **changes: Any) -> CheckResult:
        """What one check says of what runs now."""
        return run_check(CHECKS[name], self.server.context(self.previous, **changes))


@pytest.fixture(scope="module")
def tries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tries]:
    directory = tmp_path_factory.mktemp("checks")
    with staging(directory) as server:
        yield Tries(server, TrialReleases(directory / "releases"))


@pytest.fixture(scope="module")
def good(tries: Tries) -> dict[str, CheckResult]:
    """What each check says of the good release."""
    results = {name: tries.bench.good(tries.server, check) for name, check in CHECKS.items()}
    assert tries.server.current is not None
    tries.previous = tries.server.client.manifest(tries.server.current)
    return results


@pytest.mark.parametrize("name", CHECKS)
def test_the_good_release_passes(good: dict[str, CheckResult], name: str) -> None:
    result = good[name]
    assert (result.outcome, [finding for finding in result.findings if finding.severity != "low"]) == ("pass", [])
    assert result.milliseconds > 0
    assert CheckResult.from_json(result.as_json()) == result


def _chosen(session: pytest.Session, portion: tuple[str, ...]) -> tuple[SeededFault, ...]:
    """The faults of that portion that this run of the tests is for."""
    names = {item.name for item in session.items if item.path == Path(__file__)}
    faults = tuple(fault for fault in catalogue() if fault.check in portion)
    chosen = tuple(fault for fault in faults if f"test_each_bad_release_is_caught[{_spelled(fault)}]" in names)
    return chosen or faults


def _spelled(fault: SeededFault) -> str:
    return f"{fault.check}: {fault.name}"


def _worker_of(portion: tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.xdist_group(f"seeded faults: {', '.join(portion)}")


@pytest.fixture(scope="module")
def listings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tuple[str, ...]], Listed]:
    """What the command lists, and what it records, of each portion of the faults; each is tried once."""

    @cache
    def listed(portion: tuple[str, ...]) -> Listed:
        home = tmp_path_factory.mktemp("self-test")
        chosen = _chosen(request.session, portion)
        shown = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
            patch.setenv("ASHAT_HOME", str(home))
            patch.delenv("ASHAT_LEDGER_URL", raising=False)
            patch.setattr(runner, "catalogue", lambda: chosen)
            status = run(["verify", "--self-test"])
        with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
            return Listed(chosen, status, shown.getvalue().splitlines(), proofs_of(ledger.newest(SELF_TEST)))

    return listed


@pytest.mark.parametrize(
    ("portion", "fault"),
    [
        pytest.param(portion, fault, id=_spelled(fault), marks=_worker_of(portion))
        for portion in (*PORTIONS, OTHERS)
        for fault in catalogue()
        if fault.check in portion
    ],
)
def test_each_bad_release_is_caught(
    listings: Callable[[tuple[str, ...]], Listed], portion: tuple[str, ...], fault: SeededFault
) -> None:
    listed = listings(portion)
    (line,) = [line for line in listed.lines if f" {fault.check}: {fault.name}: " in line]
    mark, _, seen = line.partition(f" {fault.check}: {fault.name}: ")
    assert re.search(fault.says, seen), line
    assert mark == "  ✅", line


@pytest.mark.parametrize(
    "portion",
    [pytest.param(portion, id=", ".join(portion), marks=_worker_of(portion)) for portion in (*PORTIONS, OTHERS)],
)
def test_the_self_test_ends_well_and_records_what_it_proved(
    listings: Callable[[tuple[str, ...]], Listed], portion: tuple[str, ...]
) -> None:
    listed = listings(portion)
    checks = {fault.check for fault in listed.faults}
    for check in checks:
        assert any(line.startswith(f"  ✅ {check}: the good release: ") for line in listed.lines)
    count = len(listed.faults)
    assert listed.lines[-1] == f"✅ {count} of {count} seeded faults caught, by {len(checks)} checks"
    assert (listed.status, len(listed.lines)) == (0, 2 + count + len(checks))
    assert {name: (proof.seeded, proof.missed) for name, proof in listed.proofs.items()} == {
        check: (sum(fault.check == check for fault in listed.faults), ()) for check in checks
    }


def test_a_release_that_is_not_the_one_pushed_fails(tries: Tries, good: dict[str, CheckResult]) -> None:
    running = tries.run(tries.good)
    other = "0" * 64
    result = tries.check("health", bundle=other)
    assert result.outcome == "fail"
    assert any(f"the server runs {running[:12]}, not {other[:12]}" in each.text for each in result.findings)
    assert any("reports bundle" in each.text for each in result.findings)


def test_a_program_that_does_not_answer_fails_every_check_that_asks_it(
    tries: Tries, good: dict[str, CheckResult]
) -> None:
    tries.run(tries.good)
    for name in ("health", "api", "performance", "security"):
        result = tries.check(name, app_url="http://127.0.0.1:9")
        assert result.outcome == "fail", name


def test_nothing_declared_is_inconclusive_not_a_pass(
    tries: Tries, good: dict[str, CheckResult], tmp_path: Path
) -> None:
    tree = tmp_path / "release"
    shutil.copytree(tries.good, tree)
    (tree / "raos.toml").write_text('[raos]\nname = "RaOS"\nversion = "9.4.1"\n', encoding="utf-8")
    tries.run(tree)
    assert {name: tries.check(name).outcome for name in ("api", "database", "performance")} == dict.fromkeys(
        ("api", "database", "performance"), "inconclusive"
    )


def allowing(tree: Path, until: datetime) -> None:
    (tree / "Modules" / "Market" / "aws.txt").write_text(f"id: {AWS_KEY}\n", encoding="utf-8")
    with open(tree / "raos.toml", "a", encoding="utf-8") as file:
        file.write('\n[[security.allow]]\nrule = "secret"\npath = "Modules/Market/*"\n')
        file.write(f'reason = "a revoked key, kept for a test"\nuntil = {until:%Y-%m-%d}\n')


@pytest.mark.parametrize(("days", "outcome"), [(30, "pass"), (-1, "fail")])
def test_an_allowed_finding_passes_until_its_day(
    tries: Tries, good: dict[str, CheckResult], tmp_path: Path, days: int, outcome: str
) -> None:
    tree = tmp_path / "release"
    shutil.copytree(tries.good, tree)
    allowing(tree, datetime.now(UTC) + timedelta(days=days))
    tries.run(tree)
    result = tries.check("security")
    assert result.outcome == outcome, result.seen
    assert AWS_KEY not in str(result.as_json())


def test_binaries_and_large_files_are_searched(tries: Tries, good: dict[str, CheckResult], tmp_path: Path) -> None:
    tree = tmp_path / "release"
    shutil.copytree(tries.good, tree)
    (tree / "picture.bin").write_bytes(b"\0" * 1000)
    (tree / "large.bin").write_bytes(b"x\0" * (5 * 512 * 1024) + AWS_KEY.encode() + b"\n")
    tries.run(tree)
    result = tries.check("security")
    assert (result.outcome, result.figures["files_not_searched"]) == ("fail", 0)
    assert "large.bin, line 1: AWS Access Key" in result.seen


@pytest.mark.parametrize("allows", [False, True])
def test_what_cannot_be_opened_is_a_warning_that_can_be_allowed(
    tries: Tries, good: dict[str, CheckResult], tmp_path: Path, allows: bool
) -> None:
    tree = tmp_path / "release"
    shutil.copytree(tries.good, tree)
    (tree / "data.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    if allows:
        with open(tree / "raos.toml", "a", encoding="utf-8") as file:
            file.write('\n[[security.allow]]\nrule = "unsearched"\npath = "data.7z"\nreason = "a sample, looked at"\n')
            file.write(f"until = {datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}\n")
    tries.run(tree)
    result = tries.check("security")
    assert result.outcome == ("pass" if allows else "warn"), result.seen
    assert result.figures["not_opened"] == 1
    assert any("data.7z was not opened: a 7z archive" in each.text for each in result.findings)


def test_a_new_executable_is_a_warning(tries: Tries, good: dict[str, CheckResult], tmp_path: Path) -> None:
    tree = tmp_path / "release"
    shutil.copytree(tries.good, tree)
    (tree / "tool.sh").write_text("echo\n", encoding="utf-8")
    (tree / "tool.sh").chmod(0o755)
    tries.run(tree)
    result = tries.check("security")
    assert (result.outcome, result.seen) == ("warn", "tool.sh is executable and was not before: is it meant to be?")


def test_a_search_that_runs_out_of_time_is_inconclusive_and_names_the_key(
    tries: Tries, good: dict[str, CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries.run(tries.good)
    monkeypatch.setattr("tasks.checks.scan.search.RESERVED_SECONDS", 10_000.0)
    monkeypatch.setattr("tasks.checks.scan.search.SHARE", 1.0)
    result = tries.check("security")
    assert result.outcome == "inconclusive"
    assert "not searched: verify again (what was searched is remembered)" in result.seen
    assert "time_limits.security in the policy" in result.seen
