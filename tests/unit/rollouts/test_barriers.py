"""Barriers: stepping stones in order, circles refused, dead ends named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.errors import PolicyError
from ashat.rollouts.barriers import DeadEnd, Release, path, refuse_circle, why_barred


def release(version: str, *origins: str) -> Release:
    return Release(version, frozenset(origins) if origins else None)


KNOWN = [
    release("1.0"),
    release("1.1"),
    release("2.0", "1.1", "1.2"),
    release("2.1", "2.0"),
    release("2.2", "2.0", "2.1"),
    release("3.0", "2.1", "2.2"),
]


@pytest.mark.parametrize(
    ("current", "to", "steps"),
    [
        ("1.0", "1.1", ["1.1"]),
        ("1.0", "3.0", ["1.1", "2.0", "2.2", "3.0"]),
        ("1.2", "3.0", ["2.0", "2.2", "3.0"]),
        ("2.1", "3.0", ["3.0"]),
        ("2.0", "3.0", ["2.2", "3.0"]),
        ("3.0", "3.0", []),
        (None, "1.0", ["1.0"]),
        (None, "2.0", ["1.1", "2.0"]),
        # Nothing is known of it, so it begins with what is installed from anything.
        ("0.1", "2.1", ["1.1", "2.0", "2.1"]),
    ],
)
def test_a_mainframe_is_led_over_the_stepping_stones(current, to, steps) -> None:
    assert path(KNOWN, current, to) == steps


@pytest.mark.parametrize(
    ("known", "current", "to", "why"),
    [
        (
            KNOWN[2:],
            "1.0",
            "3.0",
            "From 1.0 no path leads to 3.0: 2.0 is installed only from 1.1, 1.2. Not known here: 1.1, 1.2.",
        ),
        (KNOWN, "3.0", "1.1", "The release 1.1 is older than 3.0: that way is a rollback."),
        (KNOWN, "1.0", "4.0", "The release 4.0 is not known here."),
        (
            [Release("2.0", frozenset())],
            "1.0",
            "2.0",
            "From 1.0 no path leads to 2.0: 2.0 is installed only from no version.",
        ),
        (
            [release("2.0", "1.9")],
            None,
            "2.0",
            "Onto a Mainframe that runs nothing no path leads to 2.0: "
            "2.0 is installed only from 1.9. Not known here: 1.9.",
        ),
        (
            [release("2.0", "1\x1b[2J")],
            "1.0",
            "2.0",
            "From 1.0 no path leads to 2.0: 2.0 is installed only from 1\\x1b[2J. Not known here: 1\\x1b[2J.",
        ),
    ],
)
def test_a_dead_end_is_named(known, current, to, why) -> None:
    assert path(known, current, to) == DeadEnd(why)


def test_barriers_in_a_circle_are_refused_in_a_line() -> None:
    circle = [release("a", "c"), release("b", "a"), release("c", "b")]
    with pytest.raises(PolicyError, match=r"lead in a circle: (a|b|c) -> (a|b|c) -> (a|b|c) -> (a|b|c)\. Change"):
        path([*KNOWN, *circle], "1.0", "3.0")
    with pytest.raises(PolicyError, match="a -> a"):
        refuse_circle([release("a", "a")])
    many = [release(f"v{n}", f"v{(n + 1) % 500}") for n in range(500)]
    with pytest.raises(PolicyError, match="…") as refused:
        refuse_circle(many)
    assert len(str(refused.value)) < 200


@given(
    st.lists(st.frozensets(st.integers(0, 11), max_size=3) | st.none(), min_size=1, max_size=12),
    st.none() | st.integers(0, 12),
    st.integers(0, 12),
)
def test_each_step_can_be_installed_from_the_one_before_and_a_dead_end_has_none(origins, current, to) -> None:
    # Each release is installed from earlier ones, so that there is no circle.
    known = [
        Release(str(n), None if each is None else frozenset(str(o) for o in each if o < n))
        for n, each in enumerate(origins)
    ]
    runs, goal = None if current is None else str(current), str(to)
    by_version = {each.version: each for each in known}
    newer = known[current + 1 :] if current is not None and current < len(known) else known
    reached, before = {runs}, set[str | None]()
    while reached != before:
        before = set(reached)
        reached |= {each.version for each in newer if each.origins is None or each.origins & reached}
    found = path(known, runs, goal)
    if isinstance(found, DeadEnd):
        assert goal not in reached
        return
    for version in found:
        allowed = by_version[version].origins
        assert allowed is None or runs in allowed
        runs = version
    assert runs == goal


@pytest.mark.parametrize(
    ("origins", "current", "why"),
    [
        ((), "1.0", ""),
        (("1.0",), "1.0", ""),
        (("1.0",), "2.0", ""),
        (("1.0",), "0.9", "2.0 is installed only from 1.0, and this Mainframe runs 0.9"),
        (("1.0",), "", "2.0 is installed only from 1.0, and this Mainframe runs a release that names no version"),
        ("abcdefg", "1.0", "2.0 is installed only from a, b, c, d, e …, and this Mainframe runs 1.0"),
    ],
)
def test_a_release_that_cannot_be_installed_says_from_what_it_can(origins, current, why) -> None:
    assert why_barred(Release("2.0", frozenset(origins) if origins else None), current) == why


def test_why_it_cannot_is_a_short_line_whatever_versions_are_called() -> None:
    evil = ["\u202e\n" + "x" * 128] * 1 + [f"{n}" * 120 for n in range(90)]
    why = why_barred(Release("y" * 5000, frozenset(evil)), "\x1b[31m")
    assert len(why) <= 500
    assert why.isprintable()
