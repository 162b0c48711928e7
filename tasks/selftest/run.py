"""Runs the self-test: each check on the good sample, which it must pass, and on each of its seeded faults."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ashat.bundle.manifest import Manifest
from ashat.errors import AshatError
from ashat.raos_toml.load import load_raos_toml
from tasks.checks import all_checks, run_check
from tasks.checks.kit.base import Check, CheckResult
from tasks.checks.kit.samples import Rehearsal
from tasks.checks.release_defined import own_checks
from tasks.selftest.faults import catalogue
from tasks.selftest.faults.base import SeededFault
from tasks.selftest.faults.staging import Staging, StagingError, quick_sample, staging
from tasks.verify.proofs import SelfTestResult, version_of
from tasks.verify.rehearsal import back_and_forth

_COMPARING = {"api", "performance"}


@dataclass(frozen=True)
class Trial:
    """The result of a check on one release: with a seeded fault, or the good one where `fault` is None."""

    check: str
    fault: SeededFault | None
    result: CheckResult

    @property
    def name(self) -> str:
        """The fault in words."""
        return self.fault.name if self.fault else "the good release"

    @property
    def caught(self) -> bool:
        """Whether the result is the one required: the fault's own outcome and reason, a pass of the good release."""
        if self.fault is None:
            return self.result.outcome == "pass"
        return self.result.outcome == self.fault.expects and re.search(self.fault.says, self.result.seen) is not None


def self_test(report: Callable[[Trial], None] = lambda _: None) -> dict[str, SelfTestResult]:
    """Run every built-in check on the good sample and on its seeded faults; return the results by the check's name.

    `report` is called with each trial as it ends.

    Raises:
        AshatError: the self-test's own server does not run here.
    """
    with tempfile.TemporaryDirectory(prefix="ashat-self-test-") as name:
        directory = Path(name)
        releases = TrialReleases(directory / "releases")
        with staging(directory) as server:
            trials = list(_trials(releases, server, report))
    return _proofs(trials, (*all_checks(), *releases.own_checks))


def _proofs(trials: Iterable[Trial], checks: Iterable[Check]) -> dict[str, SelfTestResult]:
    found: dict[str, SelfTestResult] = {}
    versions = {check.name: version_of(check) for check in checks}
    for trial in trials:
        before = found.get(trial.check, SelfTestResult(versions[trial.check], 0))
        missed = () if trial.caught else (trial.name,)
        seeded = before.seeded + (trial.fault is not None)
        found[trial.check] = SelfTestResult(before.version, seeded, before.missed + missed)
    return found


def _trials(releases: TrialReleases, server: Staging, report: Callable[[Trial], None]) -> Iterable[Trial]:
    checks = {check.name: check for check in (*all_checks(), *releases.own_checks)}
    faults = catalogue()
    seeded = {fault.check for fault in faults}
    for name in (name for name in checks if name in seeded):
        trial = Trial(name, None, releases.good(server, checks[name]))
        report(trial)
        yield trial
    for fault in faults:
        trial = Trial(fault.check, fault, releases.try_fault(server, checks[fault.check], fault))
        report(trial)
        yield trial


class TrialReleases:
    """The good release, in `good_tree`, and the bad ones made of it, below `directory`, for checks to be tried on.

    `own_checks` are those that the good release brings itself.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self.good_tree = quick_sample(directory / "good")
        self.own_checks = own_checks(load_raos_toml((self.good_tree / "raos.toml").read_bytes()))

    def good(self, server: Staging, check: Check) -> CheckResult:
        """Run the check on the good release."""
        server.run(self.good_tree)
        return run_check(check, server.context())

    def try_fault(self, server: Staging, check: Check, fault: SeededFault) -> CheckResult:
        """Run the check on a release with that fault.

        Where the server itself refuses the release, the check did not catch it, and the result says so.
        """
        tree = self._directory / "bad"
        shutil.copytree(self.good_tree, tree)
        try:
            fault.change(tree)
            return self._checked(server, check, fault, tree)
        except AshatError as error:
            return check.inconclusive(f"could not be tried: {error}")
        finally:
            shutil.rmtree(tree)

    def _checked(self, server: Staging, check: Check, fault: SeededFault, tree: Path) -> CheckResult:
        previous = server.client.manifest(server.run(self.good_tree)) if fault.against_before else None
        if fault.check == "database":
            server.forget_the_database()
        server.run(tree)
        changes: dict[str, object] = {}
        if previous is not None and fault.check in _COMPARING:
            changes["rehearsal"] = _rehearsed(server, previous)
        if fault.late:
            server.wait_until_unhealthy()
        try:
            with fault.around(server.context(previous, **changes)) as context:
                return run_check(check, context)
        finally:
            if fault.check == "database":
                server.forget_the_database()


def _rehearsed(server: Staging, previous: Manifest) -> Rehearsal:
    """Measure new and old in turn under the same load, for the release that runs now."""
    new = server.current

    def switch(bundle: str | None) -> int:
        began = time.monotonic()
        server.switch(bundle)
        return round((time.monotonic() - began) * 1000)

    rehearsal, result, _ = back_and_forth(
        server.context(previous), lambda: switch(previous.digest), lambda: switch(new)
    )
    if result.outcome != "pass":
        raise StagingError(f"The rehearsal of the self-test failed: {result.seen}")
    return rehearsal
