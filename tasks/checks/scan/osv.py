"""Reads advisories in the OSV format: whether they affect a version of a package, how bad it is, what fixes it.

The format and the way versions are matched are those of https://ossf.github.io/osv-schema/ (`versions`, and `ranges`
of type SEMVER and ECOSYSTEM; GIT ranges say nothing of a version).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any

from cvss import CVSS2, CVSS3, CVSS4  # type: ignore[import-untyped]
from cvss.exceptions import CVSSError  # type: ignore[import-untyped]
from pydantic import BaseModel, BeforeValidator, ConfigDict

from ashat.errors import AshatError
from tasks.checks.kit.base import Finding, Severity, one_line
from tasks.checks.scan.packages import Package
from tasks.checks.scan.versions import parse_version, same_name

HIGH_FROM = Decimal("7.0")  # "high" begins there in CVSS 3 and 4 (section 5 of CVSS 3.1, 6 of 4.0)
# GitHub's words, which most records carry, and the synonyms that others use.
_WORDS: dict[str, Severity] = {
    "CRITICAL": "high",
    "HIGH": "high",
    "IMPORTANT": "high",
    "MODERATE": "medium",
    "MEDIUM": "medium",
    "LOW": "medium",
}


class AdvisoriesUnknownError(AshatError):
    """The advisories could not be had, so that nothing is known of the packages; the message says where and why."""


def _none_is_empty(value: Any) -> Any:
    return [] if value is None else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Event(_Part):
    """A turn of a range; one of the four is set."""

    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class Range(_Part):
    """Versions between events."""

    type: str = ""
    events: Annotated[list[Event], BeforeValidator(_none_is_empty)] = []


class Named(_Part):
    """A package as an advisory names it; a suffix such as `:11` of the ecosystem is a release of a distribution."""

    name: str = ""
    ecosystem: str = ""


class Score(_Part):
    """A severity, such as type `CVSS_V3` with its vector."""

    type: str = ""
    score: str = ""


class Affected(_Part):
    """What an advisory says of one package."""

    package: Named | None = None
    severity: Annotated[list[Score], BeforeValidator(_none_is_empty)] = []
    ranges: Annotated[list[Range], BeforeValidator(_none_is_empty)] = []
    versions: Annotated[list[str], BeforeValidator(_none_is_empty)] = []
    ecosystem_specific: Any = None
    database_specific: Any = None

    def concerns(self, package: Package) -> bool:
        """Tell whether the advisory names that package, in any version."""
        named = self.package
        return (
            named is not None
            and named.ecosystem == package.ecosystem
            and same_name(package.ecosystem, named.name, package.name)
        )


class Advisory(_Part):
    """One record."""

    id: str
    modified: str = ""
    withdrawn: str | None = None
    aliases: Annotated[list[str], BeforeValidator(_none_is_empty)] = []
    summary: str | None = None
    severity: Annotated[list[Score], BeforeValidator(_none_is_empty)] = []
    affected: Annotated[list[Affected], BeforeValidator(_none_is_empty)] = []
    database_specific: Any = None

    def affects(self, package: Package) -> bool:
        """Tell whether that version is affected; a withdrawn record affects nothing.

        Raises:
            ValueError: a version of the record cannot be read, so that nobody can tell.
        """
        if self.withdrawn:
            return False
        return any(_includes(each, package) for each in self.affected if each.concerns(package))

    def fixed_in(self, package: Package) -> str | None:
        """Find the lowest version above the package's own that is said to be fixed; None where there is none."""
        fixes = {
            event.fixed
            for each in self.affected
            if each.concerns(package)
            for versions in each.ranges
            if versions.type != "GIT"
            for event in versions.events
            if event.fixed
        }
        try:
            own = parse_version(package.ecosystem, package.version)
            later = [(version, text) for text in fixes if (version := parse_version(package.ecosystem, text)) > own]
        except ValueError:
            return None
        return min(later, key=lambda fix: fix[0])[1] if later else None


def _includes(affected: Affected, package: Package) -> bool:
    if package.version in affected.versions:
        return True
    return any(_in_range(each.events, package) for each in affected.ranges if each.type in ("SEMVER", "ECOSYSTEM"))


def _in_range(events: Sequence[Event], package: Package) -> bool:
    """Evaluate a range by the schema: the last event at or below the version decides; limits bound the whole range."""

    def read(text: str) -> Any:
        return parse_version(package.ecosystem, text)

    own = read(package.version)
    limits = [event.limit for event in events if event.limit is not None]
    if limits and not any(limit == "*" or own < read(limit) for limit in limits):
        return False
    vulnerable = any(event.introduced == "0" for event in events)
    turns: list[tuple[Any, bool]] = []
    for event in events:
        if event.introduced is not None and event.introduced != "0" and own >= read(event.introduced):
            turns.append((read(event.introduced), True))
        if event.fixed is not None and own >= read(event.fixed):
            turns.append((read(event.fixed), False))
        if event.last_affected is not None and own > read(event.last_affected):
            turns.append((read(event.last_affected), False))
    return max(turns)[1] if turns else vulnerable


@dataclass(frozen=True)
class Rating:
    """How bad an advisory is; `words` say by whose judgement, "" where nobody judged."""

    severity: Severity
    words: str


UNRATED = Rating("high", "")


def rating(advisory: Advisory, package: Package) -> Rating:
    """Rate by CVSS where there is a vector (7.0 and above is high), else by the database's own word, else as high.

    What nobody has rated may be anything, and a package known to be malicious is as bad as it gets.
    """
    if advisory.id.startswith("MAL-"):
        return Rating("high", "malicious")
    concerned = [each for each in advisory.affected if each.concerns(package)]
    scores = [*advisory.severity, *(score for each in concerned for score in each.severity)]
    points = [value for score in scores if (value := _points(score)) is not None]
    if points:
        return Rating("high" if max(points) >= HIGH_FROM else "medium", f"CVSS {max(points)}")
    places = [advisory.database_specific, *(each.ecosystem_specific for each in concerned)]
    places += [each.database_specific for each in concerned]
    for place in places:
        word = str(place.get("severity", "")).upper() if isinstance(place, dict) else ""
        if word in _WORDS:
            return Rating(_WORDS[word], word.lower())
    return UNRATED


def _points(score: Score) -> Decimal | None:
    kinds = {"CVSS_V2": CVSS2, "CVSS_V3": CVSS3, "CVSS_V4": CVSS4}
    if score.type not in kinds:
        return None
    try:
        return Decimal(str(kinds[score.type](score.score).scores()[0]))
    except CVSSError:
        return None


def findings(
    found: dict[Package, list[Advisory]], places: dict[Package, str], development: Collection[Package] = ()
) -> Iterator[Finding]:
    """Make a finding for each vulnerability of each package. Rule: `vulnerable`, path: the package's name.

    What is declared for development only does not run, unless it is malicious: it is a warning.
    """
    for package, advisories in sorted(found.items()):
        for group in _same_vulnerability(advisories):
            finding = _finding(package, group, places.get(package, ""))
            if package in development and not any(each.id.startswith("MAL-") for each in group):
                text = f"{finding.text} (declared for development only)"
                finding = replace(finding, severity="medium", text=text)
            yield finding


def _finding(package: Package, group: Sequence[Advisory], place: str) -> Finding:
    ratings = [rating(each, package) for each in group]
    rated = [each for each in ratings if each != UNRATED] or [UNRATED]
    worst = next((each for each in rated if each.severity == "high"), rated[0])
    name = group[ratings.index(worst)].id
    others = sorted({one for each in group for one in (each.id, *each.aliases) if one.startswith("CVE-")} - {name})
    notes = ", ".join(one_line(note, 40) for note in (*others[:2], worst.words or "not rated by anybody"))
    summary = next((f": {one_line(each.summary, 100)}" for each in group if each.summary), "")
    fixes = [fix for each in group if (fix := each.fixed_in(package))]
    fixed = f"fixed in {one_line(fixes[0], 40)}" if fixes else "no fixed version is known"
    where = f" of {one_line(place, 80)}" if place else ""
    text = (
        f"{one_line(package.name, 80)} {one_line(package.version, 40)}{where} is vulnerable: "
        f"{one_line(name, 60)} ({notes}){summary}; {fixed}"
    )
    return Finding(worst.severity, text, "vulnerable", package.name)


def _same_vulnerability(advisories: Iterable[Advisory]) -> list[list[Advisory]]:
    """Group the records of one vulnerability: databases give it an id each, and name each other's as aliases."""
    groups: list[tuple[set[str], list[Advisory]]] = []
    for advisory in sorted(advisories, key=lambda each: each.id):
        ids, members = {advisory.id, *advisory.aliases}, [advisory]
        for group in [group for group in groups if group[0] & ids]:
            groups.remove(group)
            ids |= group[0]
            members = [*group[1], *members]
        groups.append((ids, members))
    return [members for _, members in groups]
