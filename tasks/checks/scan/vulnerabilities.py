"""Looks up the known vulnerabilities of what a bundle declares, where the verification policy says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ashat.verification.policy import Policy
from tasks.checks.kit.base import Finding
from tasks.checks.scan.osv import AdvisoriesUnknownError, Advisory, findings
from tasks.checks.scan.osv_api import SECONDS as OSV_SECONDS
from tasks.checks.scan.osv_api import ask_osv, shown
from tasks.checks.scan.osv_offline import SECONDS as FILE_SECONDS
from tasks.checks.scan.osv_offline import read_copy
from tasks.checks.scan.packages import Declared, Package


@dataclass
class LookUp:
    """What a look-up found. `source` names the database; `unknown` says why nothing is known, "" where all is."""

    source: str
    packages: int
    findings: list[Finding] = field(default_factory=list)
    unknown: str = ""

    @property
    def counted(self) -> str:
        """The number of packages in words."""
        return f"{self.packages} package" + ("" if self.packages == 1 else "s")

    @property
    def looked_up(self) -> bool:
        """Whether packages were looked up."""
        return bool(self.packages) and not self.unknown and self.source != "off"


def look_up(declared: Declared, policy: Policy, left: float, now: datetime) -> LookUp:
    """Look up every declared package, in at most half of the `left` seconds; without packages, nobody is asked."""
    packages = sorted(declared.packages)
    source = {"osv": shown(policy.osv_url), "file": policy.osv_file}.get(policy.advisories, "off")
    result = LookUp(source, len(packages))
    if policy.advisories == "off":
        text = "known vulnerabilities were not looked up: the verification policy says so (advisories = off)"
        result.findings.append(Finding("low", text))
    elif packages:
        try:
            found = _found(packages, policy, left / 2, now, result)
            result.findings += findings(found, declared.packages, declared.development)
        except AdvisoriesUnknownError as error:
            result.unknown = f"known vulnerabilities of {result.counted} could not be looked up: {error}"
            result.findings.append(Finding("low", result.unknown))
    return result


def _found(
    packages: Sequence[Package], policy: Policy, seconds: float, now: datetime, result: LookUp
) -> dict[Package, list[Advisory]]:
    if policy.advisories == "osv":
        return ask_osv(policy.osv_url, packages, min(seconds, OSV_SECONDS))
    copy = read_copy(policy.osv_file, packages, min(seconds, FILE_SECONDS))
    ends = copy.modified.date().isoformat() if copy.modified else "an unknown day"
    result.source = f"{policy.osv_file}, {copy.records} records to {ends}"
    if copy.stale(now):
        text = (
            f"the advisories in {policy.osv_file} end on {ends}: what became known since is missing; fetch newer ones"
        )
        result.findings.append(Finding("medium", text, "advisories", policy.osv_file))
    return copy.found
