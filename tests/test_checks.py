"""The six checks against a real node and a real program: each passes on the good release and fails on every bad one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle import Manifest
from tasks.checks import CheckResult, all_checks, run_check
from tasks.selftest.faults import catalogue
from tasks.selftest.faults.security import AWS_KEY
from tasks.selftest.run import Bench, Tried
from tasks.selftest.seeded import Seeded
from tasks.selftest.staging import Staging, staging

CHECKS = {check.name: check for check in all_checks()}


class Tries:
    """A Public node with the sample on it, shared by every test here; `good` is the good release's directory."""

    def __init__(self, server: Staging, bench: Bench) -> None:
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
        yield Tries(server, Bench(directory / "releases"))


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


@pytest.mark.parametrize("fault", catalogue(), ids=lambda fault: f"{fault.check}: {fault.name}")
def test_each_bad_release_is_caught(tries: Tries, good: dict[str, CheckResult], fault: Seeded) -> None:
    assert good[fault.check].outcome == "pass"
    result = tries.bench.try_fault(tries.server, CHECKS[fault.check], fault)
    assert result.outcome == "fail", result.seen
    assert re.search(fault.says, result.seen), result.seen
    assert Tried(fault.check, fault, result).caught
    assert "\n" not in result.seen


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


def test_what_is_not_searched_is_counted(tries: Tries, good: dict[str, CheckResult], tmp_path: Path) -> None:
    tree = tmp_path / "release"
    shutil.copytree(tries.good, tree)
    (tree / "picture.bin").write_bytes(b"\0" * 1000)
    (tree / "large.txt").write_bytes(b"x" * (5 * 1024 * 1024))
    tries.run(tree)
    result = tries.check("security")
    assert result.outcome == "pass"
    assert "2 files of 5.2 MB (1 binary, 1 over 1 MB) not searched" in result.seen
    assert result.figures["files_not_searched"] == 2
    assert result.figures["bytes_not_searched"] == 1000 + 5 * 1024 * 1024


def test_a_new_executable_is_a_warning(tries: Tries, good: dict[str, CheckResult], tmp_path: Path) -> None:
    tree = tmp_path / "release"
    shutil.copytree(tries.good, tree)
    (tree / "tool.sh").write_text("echo\n", encoding="utf-8")
    (tree / "tool.sh").chmod(0o755)
    tries.run(tree)
    result = tries.check("security")
    assert (result.outcome, result.seen) == ("warn", "tool.sh is executable and was not before: is it meant to be?")


def test_a_bundle_too_large_to_search_is_a_warning(
    tries: Tries, good: dict[str, CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries.run(tries.good)
    monkeypatch.setattr("tasks.checks.files.TOTAL_LIMIT", 0)
    result = tries.check("security")
    assert result.outcome == "warn"
    assert "beyond 128 MB in all" in result.seen
