"""Makes a check of each `[[check]]` that a release declares in its raos.toml; the report lists it beside the others."""

from __future__ import annotations

from ashat.raos_toml.schema import OwnCheck, RaosToml
from tasks.checks.kit.assertions import ProgramClient
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding

PREFIX = "own-"


def own_checks(raos: RaosToml) -> list[Check]:
    """Make the checks that `raos` declares, in the order of the file."""
    return [own_check(declared) for declared in raos.checks]


def own_check(declared: OwnCheck) -> Check:
    """Make the check that sends the declared request once; what is wrong with the answer has the declared severity."""

    class Own(Check):
        """One request whose answer the release itself declares."""

        name = PREFIX + declared.name
        title = declared.title or declared.name
        order = 200

        def run(self, context: CheckContext) -> CheckResult:
            """Send the request, and compare the answer with what is declared."""
            place = f"{declared.method} {declared.path}"
            with ProgramClient(context) as client:
                checked = client.check(declared)
            findings = [Finding(declared.severity, f"{place}: {trouble}") for trouble in checked.troubles]
            us = checked.answer.us if checked.answer else 0
            inputs = {"request": place, "severity": declared.severity, "credential": declared.auth or ""}
            good = f"{place} answers as declared, in {us / 1000:.0f} ms"
            return self.conclude(good, findings, inputs=inputs, figures={"took_us": us} if us else {})

    return Own()
