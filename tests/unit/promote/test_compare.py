"""A cohort beside the rest: whether they differ, whether a difference could be seen at all, and how sure that is."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.errors import UsageError
from ashat.protocol.fleet import CohortTroubles, GroupTroubles
from tasks.checks.kit.significance import fisher
from tasks.promote.compare import Outcome, compare_cohorts, compare_troubles, compared_rows, conclusion

GROUPS = st.integers(0, 12).flatmap(lambda size: st.builds(Outcome, st.integers(0, size), st.just(size)))


def by_enumeration(cohort: Outcome, rest: Outcome) -> Fraction:
    """Twice the smaller tail of the hypergeometric distribution, in fractions."""
    failed, both = cohort.failed + rest.failed, cohort.size + rest.size
    likely = {
        k: Fraction(comb(cohort.size, k) * comb(rest.size, failed - k), comb(both, failed))
        for k in range(max(0, failed - rest.size), min(failed, cohort.size) + 1)
    }
    above = sum(each for k, each in likely.items() if k >= cohort.failed)
    below = sum(each for k, each in likely.items() if k <= cohort.failed)
    return min(Fraction(1), 2 * min(above, below))


@given(GROUPS, GROUPS)
def test_it_is_fishers_exact_test_on_both_sides(cohort: Outcome, rest: Outcome) -> None:
    found = compare_cohorts(cohort, rest, significance_per_mille=50)
    exact = by_enumeration(cohort, rest)
    assert found.p_value == pytest.approx(float(exact))
    assert (found.verdict == "differ") == (exact <= Fraction(50, 1000))
    if found.verdict == "too few":
        assert found.shows_from is None
    if found.shows_from is not None:
        fewer = Outcome(found.shows_from - 1, cohort.size)
        assert by_enumeration(Outcome(found.shows_from, cohort.size), rest) <= Fraction(50, 1000)
        assert fewer.failed * rest.size <= rest.failed * cohort.size or by_enumeration(fewer, rest) > Fraction(50, 1000)


@pytest.mark.parametrize(
    ("cohort", "rest", "verdict", "text"),
    [
        (
            (3, 5),
            (0, 500),
            "differ",
            "The cohort fails more often: 3 of 5 of the cohort and 0 of 500 of the rest failed.",
        ),
        ((0, 500), (9, 90), "differ", "The cohort fails less often: 0 of 500 of the cohort and 9 of 90"),
        ((1, 5), (0, 500), "no difference shown", "2 failures in the cohort would have shown one."),
        ((1, 1), (0, 20), "too few", "Too few to tell: 1 of 1 of the cohort and 0 of 20"),
        ((0, 0), (0, 0), "too few", "Too few to tell: 0 of 0"),
    ],
)
def test_what_is_said_of_two_groups(cohort, rest, verdict, text) -> None:
    found = compare_cohorts(Outcome(*cohort), Outcome(*rest))
    assert found.verdict == verdict
    assert text in found.text


@pytest.mark.parametrize("failed", [1_000, 1_040, 1_090])
def test_of_many_the_approximation_says_what_the_exact_test_says(failed: int) -> None:
    cohort, rest = Outcome(failed, 20_000), Outcome(4_000, 80_000)
    exact = 2 * min(fisher(*cohort, *rest), fisher(*rest, *cohort))
    assert compare_cohorts(cohort, rest).p_value == pytest.approx(min(1, exact), rel=0.1)


def test_more_failures_than_members_are_refused() -> None:
    with pytest.raises(UsageError, match="The rest has 6 failures among 5 Mainframes"):
        compare_cohorts(Outcome(1, 5), Outcome(6, 5))


def troubles(cohort: GroupTroubles, rest: GroupTroubles) -> CohortTroubles:
    return CohortTroubles(since=datetime(2026, 11, 30, tzinfo=UTC), cohort=cohort, rest=rest)


def test_what_mainframes_reported_is_compared_or_too_few_to_tell() -> None:
    few = troubles(GroupTroubles(size=1, ran=1, ended=1, troubled=1), GroupTroubles(size=1, ran=1))
    assert [each.found.verdict for each in compare_troubles(few)] == ["too few"] * 3
    assert conclusion(few, compare_troubles(few)).startswith("Too few to tell: 1 of 1")

    bad = troubles(
        GroupTroubles(size=60, ran=50, ended=9, unhealthy=4, troubled=12, refused=10),
        GroupTroubles(size=900, ran=900, ended=5, unhealthy=30, troubled=35),
    )
    compared = compare_troubles(bad)
    assert [each.found.verdict for each in compared] == ["differ", "differ", "no difference shown"]
    said = conclusion(bad, compared)
    assert said.startswith("The cohort fails more often: 12 of 50 of the cohort and 35 of 900 of the rest failed.")
    assert said.endswith("10 more did not take it at all, which the rest could not.")
    assert compared_rows(compared)[0] == ("any trouble", "12 of 50", "35 of 900", "differ")

    alone = troubles(GroupTroubles(size=5, ran=5), GroupTroubles(size=0))
    assert "no rest to compare with" in conclusion(alone, compare_troubles(alone))
