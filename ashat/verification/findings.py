"""Groups what checks found by kind: what fails, what warns, what was not looked at, what is for the record.

The command, the page and the gate all say it from here, so that they say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

Section = Literal["fails", "warns", "not looked at", "for the record"]
SECTIONS: tuple[Section, ...] = ("fails", "warns", "not looked at", "for the record")
OUTCOMES = {"fail": "failed", "warn": "warned", "inconclusive": "could not tell", "pass": "passed"}
"""The outcomes of a check, the worst first, in words."""


class Found(Protocol):
    """A finding, as a check makes it or as evidence keeps it. It stands for `count` of its kind."""

    @property
    def severity(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def unseen(self) -> bool: ...
    @property
    def count(self) -> int: ...


class Judged(Protocol):
    """A check with its outcome and its findings."""

    @property
    def outcome(self) -> str: ...
    @property
    def findings(self) -> Sequence[Found]: ...


_Found = TypeVar("_Found", bound=Found)
_Judged = TypeVar("_Judged", bound=Judged)


@dataclass(frozen=True)
class Kind:
    """The findings of one rule in one section; `count` is how many there were, also where fewer are kept."""

    section: Section
    rule: str
    findings: tuple[Found, ...]

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(finding.count for finding in self.findings)

    @property
    def words(self) -> str:
        """The count and the kind."""
        return f"{self.count} {self.rule or ('finding' if self.count == 1 else 'findings')}"


def section_of(finding: Found) -> Section:
    """Name the section of a finding: what was not looked at is neither good nor bad."""
    if finding.unseen:
        return "not looked at"
    return "fails" if finding.severity == "high" else "warns" if finding.severity == "medium" else "for the record"


def by_kind(findings: Iterable[Found]) -> list[Kind]:
    """Group findings by section and rule, the sections in their order, the rules as they first appear."""
    groups: dict[tuple[Section, str], list[Found]] = {}
    for finding in findings:
        groups.setdefault((section_of(finding), finding.rule), []).append(finding)
    kinds = [Kind(section, rule, tuple(group)) for (section, rule), group in groups.items()]
    return sorted(kinds, key=lambda kind: SECTIONS.index(kind.section))


def by_section(findings: Iterable[Found]) -> list[tuple[Section, str, list[Found]]]:
    """List each section that has findings, with the counts of its kinds in words, and its findings, kind by kind."""
    kinds = by_kind(findings)
    return [
        (section, counted(here), [finding for kind in here for finding in kind.findings])
        for section in SECTIONS
        if (here := [kind for kind in kinds if kind.section == section])
    ]


def counted(kinds: Iterable[Kind]) -> str:
    """Count kinds in words, such as `2 secret, 12 unpinned`."""
    return ", ".join(kind.words for kind in kinds)


def worst_first(checks: Iterable[_Judged]) -> list[_Judged]:
    """Sort checks by outcome: those that failed, that warned, that could not tell, that passed."""
    order = list(OUTCOMES)
    return sorted(checks, key=lambda check: order.index(check.outcome))


def headline(checks: Sequence[Judged]) -> str:
    """Sum up a verification in a line: how many checks ended how, and what was not looked at."""
    outcomes = [check.outcome for check in checks]
    ends = ", ".join(f"{outcomes.count(key)} {word}" for key, word in OUTCOMES.items() if key in outcomes)
    unseen = [
        kind
        for kind in by_kind(finding for check in checks for finding in check.findings)
        if kind.section == "not looked at"
    ]
    rest = f"; not looked at: {counted(unseen)}" if unseen else ""
    return f"{len(outcomes)} check{'' if len(outcomes) == 1 else 's'}: {ends or 'none'}{rest}"
