"""Compare how often a cohort fails with how often the rest of the fleet does, as A/B asks: do the two differ?

What is compared is what Mainframes report: that the program ended by itself, or is not healthy any more. What programs
write to their logs stays on the Mainframes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ashat.errors import UsageError
from ashat.protocol.fleet import CohortTroubles, GroupTroubles
from tasks.checks.kit.significance import fisher

Verdict = Literal["differ", "no difference shown", "too few"]

_EXACT_UP_TO = 1_000  # failures; beyond, where many are expected in both, the normal approximation does
_EXPECTED_LEAST = 10


class Outcome(NamedTuple):
    """Count the Mainframes of a group that were looked at, and those of them that failed."""

    failed: int
    size: int


class Comparison(NamedTuple):
    """Hold whether two groups differ.

    `p_value` is how likely so large a difference is in either direction where both fail alike; `shows_from` is how many
    failures in the cohort would differ from the rest's as counted, None where not even all of them would.
    """

    verdict: Verdict
    p_value: float
    shows_from: int | None
    text: str


def compare_cohorts(cohort: Outcome, rest: Outcome, significance_per_mille: int = 10) -> Comparison:
    """Compare the share of failures in a cohort with that in the rest, by Fisher's exact test on both sides.

    Raises:
        UsageError: a group has fewer members than failures.
    """
    for name, group in (("cohort", cohort), ("rest", rest)):
        if not 0 <= group.failed <= group.size:
            raise UsageError(f"The {name} has {group.failed} failures among {group.size} Mainframes.")
    level = significance_per_mille / 1000
    p_value, shows_from = _two_sided(cohort, rest), _shows_from(cohort.size, rest, level)
    said = f"{_share(cohort)} of the cohort and {_share(rest)} of the rest"
    if p_value <= level:
        worse = cohort.failed * rest.size > rest.failed * cohort.size
        more = "more" if worse else "less"
        text = f"The cohort fails {more} often: {said} failed. By chance that is seen {_by_chance(p_value)}."
        return Comparison("differ", p_value, shows_from, text)
    if shows_from is None:
        text = f"Too few to tell: {said} failed, and if all of the cohort had, it could still be chance."
        return Comparison("too few", p_value, None, text)
    text = f"No difference is shown: {said} failed. {shows_from} failures in the cohort would have shown one."
    return Comparison("no difference shown", p_value, shows_from, text)


class Compared(NamedTuple):
    """Hold one line of a comparison: what is compared, and how the two groups stand."""

    what: str
    cohort: Outcome
    rest: Outcome
    found: Comparison


COMPARED_COLUMNS = ("", "with the release", "the rest", "")


def compare_troubles(seen: CohortTroubles) -> list[Compared]:
    """Compare what a rollout's cohort and the rest reported; the first line is about any trouble, and says the most."""
    kinds = (
        ("any trouble", "troubled"),
        ("the program ended by itself", "ended"),
        ("it was not healthy any more", "unhealthy"),
    )
    found = []
    for what, field in kinds:
        cohort, rest = (_outcome(group, field) for group in (seen.cohort, seen.rest))
        found.append(Compared(what, cohort, rest, compare_cohorts(cohort, rest)))
    return found


def compared_rows(compared: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Write a row for each line of a comparison, below `COMPARED_COLUMNS`."""
    return [(each.what, _share(each.cohort), _share(each.rest), each.found.verdict) for each in compared]


def conclusion(seen: CohortTroubles, compared: Sequence[Compared]) -> str:
    """Say in a line or two whether the release differs from what the rest runs."""
    said = compared[0].found.text
    if not seen.rest.ran:
        said = "There is no rest to compare with: every Mainframe that runs anything has the release."
    if seen.cohort.refused:
        count = seen.cohort.refused
        said += f" {count} more did not take it at all, which the rest could not."
    return said


def _outcome(group: GroupTroubles, field: str) -> Outcome:
    failed = getattr(group, field)
    return Outcome(failed, max(group.ran, failed))


def _share(group: Outcome) -> str:
    return f"{group.failed} of {group.size}"


def _by_chance(p_value: float) -> str:
    return f"once in {round(1 / p_value):,} times" if p_value > 1e-6 else "less than once in a million times"


def _two_sided(cohort: Outcome, rest: Outcome) -> float:
    """Compute how likely a difference so large is, in either direction: twice the smaller side, at most 1."""
    return min(1.0, 2 * min(_more_often(cohort, rest), _more_often(rest, cohort)))


def _more_often(group: Outcome, other: Outcome) -> float:
    """Compute how likely it is that a group fails so often or more often, where both fail alike."""
    failed, both = group.failed + other.failed, group.size + other.size
    if not group.size or not other.size:
        return 1.0
    share = failed / both
    fewest = min(group.size, other.size) * min(share, 1 - share)
    if failed <= _EXACT_UP_TO or fewest < _EXPECTED_LEAST:
        return fisher(group.failed, group.size, other.failed, other.size)
    variance = group.size * other.size * share * (1 - share) / (both - 1)
    return math.erfc((group.failed - group.size * share - 0.5) / math.sqrt(2 * variance)) / 2


def _shows_from(size: int, rest: Outcome, level: float) -> int | None:
    """Find the fewest failures above the rest's share, among `size` Mainframes, that would differ from the rest."""
    fewest, most = size * rest.failed // max(1, rest.size), size
    if not size or not rest.size or _two_sided(Outcome(size, size), rest) > level:
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        if _two_sided(Outcome(middle, size), rest) <= level and middle * rest.size > rest.failed * size:
            most = middle
        else:
            fewest = middle + 1
    return most
