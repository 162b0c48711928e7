"""A release's own checks: each `[[check]]` of raos.toml as a check that stands in the report beside the others."""

from __future__ import annotations

from ashat.raos_toml.schema import OwnCheck, RaosToml
from tasks.checks.kit.assertions import ProgramClient
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding

PREFIX = "own-"


def own_checks(raos: RaosToml) -> list[Check]:
    """The checks that `raos` declares, in the order of the file."""
    return [own_check(declared) for declared in raos.checks]


def own_check(declared: OwnCheck) -> Check:
    """The check that asks what `declared` says, once. What is wrong with the answer has the severity declared."""

    class Own(Check):
        """One request that the release itself holds itself to."""

        name = PREFIX + declared.name
        title = declared.title or declared.name
        order = 200

        def run(self, context: CheckContext) -> CheckResult:
            """Ask, and hold the answer against what is declared."""
            place = f"{declared.method} {declared.path}"
            with ProgramClient(context) as asking:
                held = asking.check(declared)
            findings = [Finding(declared.severity, f"{place}: {trouble}") for trouble in held.troubles]
            us = held.answer.us if held.answer else 0
            inputs = {"request": place, "severity": declared.severity, "credential": declared.auth or ""}
            good = f"{place} answers as declared, in {us / 1000:.0f} ms"
            return self.conclude(good, findings, inputs=inputs, figures={"took_us": us} if us else {})

    return Own()
