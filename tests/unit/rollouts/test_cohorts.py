"""Cohorts: each Mainframe is in one wave, the same wherever it is worked out, whoever else comes and goes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.errors import PolicyError
from ashat.rollouts.cohorts import RANKS, assign, expected_sizes, place, rank, require_members, wave_sizes
from ashat.rollouts.policy import RolloutPolicy, WaveRule

LABELS = st.dictionaries(st.sampled_from(["ring", "region"]), st.sampled_from(["internal", "eu", "us"]), max_size=2)
FLEETS = st.dictionaries(st.text(min_size=1, max_size=8), LABELS, max_size=40)
WAVES = st.lists(
    st.one_of(
        st.builds(dict, count=st.integers(1, 12)),
        st.builds(dict, percent=st.integers(1, 30)),
        st.builds(dict, label=st.sampled_from(["ring=internal", "region=eu", "region=us"])),
    ),
    max_size=3,
    unique_by=lambda rule: rule.get("label", object()),
)
POLICIES = WAVES.map(
    lambda rules: RolloutPolicy.model_validate(
        {"waves": [*({"name": f"w{n}", **rule} for n, rule in enumerate(rules)), {"name": "rest", "rest": True}]}
    )
)


def by_count(policy: RolloutPolicy, index: int) -> bool:
    return policy.rules()[index].count is not None


@given(POLICIES, FLEETS, st.randoms())
def test_everybody_is_in_one_wave_in_whatever_order_they_are_named(policy, fleet, random) -> None:
    assigned = assign(policy, "UPD-1/1", fleet)
    assert assigned.keys() == fleet.keys()
    assert set(assigned.values()) <= set(range(len(policy.rules())))
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert assign(policy, "UPD-1/1", {name: fleet[name] for name in shuffled}) == assigned
    sizes = wave_sizes(policy, assigned)
    assert sum(sizes) == len(fleet)
    for rule, size in zip(policy.rules(), sizes, strict=True):
        assert rule.count is None or size <= rule.count


@given(POLICIES, FLEETS, FLEETS)
def test_who_comes_moves_nobody_who_is_in_a_wave_by_label_or_percent(policy, fleet, others) -> None:
    before, after = assign(policy, "r", fleet), assign(policy, "r", {**others, **fleet})
    for name, index in before.items():
        assert after[name] == index or by_count(policy, index)


@given(POLICIES, FLEETS, FLEETS)
def test_who_goes_moves_nobody_but_into_the_places_by_count(policy, fleet, others) -> None:
    before, after = assign(policy, "r", {**others, **fleet}), assign(policy, "r", fleet)
    for name, index in after.items():
        assert before[name] == index or by_count(policy, index)


@given(POLICIES, FLEETS, st.text(min_size=1, max_size=8), LABELS)
def test_a_late_joiner_is_where_it_would_be_without_the_waves_by_count(policy, fleet, name, labels) -> None:
    placed = place(policy, "r", name, labels)
    assert not by_count(policy, placed)
    assigned = assign(policy, "r", {**fleet, name: labels})[name]
    assert assigned == placed or by_count(policy, assigned)


def test_a_share_of_the_fleet_is_what_chance_gives() -> None:
    fleet: dict[str, dict[str, str]] = {f"mainframe-{n}": {} for n in range(20_000)}
    policy = RolloutPolicy(
        waves=(
            WaveRule(name="a", percent=1),
            WaveRule(name="b", percent=10),
            WaveRule(name="c", percent=50),
            WaveRule(name="d", rest=True),
        )
    )
    sizes = wave_sizes(policy, assign(policy, "UPD-1/1", fleet))
    for size, expected, share in zip(sizes, expected_sizes(policy, 20_000), (1, 10, 50, 39), strict=True):
        assert expected == share * 200
        assert abs(size - expected) < 5 * math.sqrt(20_000 * share / 100 * (1 - share / 100))


def test_two_rollouts_begin_with_different_mainframes() -> None:
    policy, fleet = RolloutPolicy(), {f"m{n}": {} for n in range(1000)}
    canaries = [{name for name, index in assign(policy, r, fleet).items() if index == 0} for r in ("one", "two")]
    assert [len(each) for each in canaries] == [5, 5]
    assert canaries[0] != canaries[1]


def test_the_rank_is_the_same_on_any_machine() -> None:
    # echo -n '7:UPD-1/1m1' | sha256sum
    assert rank("UPD-1/1", "m1") == int("46ee50325ec5938c", 16) >> 1
    assert rank("UPD-1/1", "m1") != rank("UPD-1/", "1m1")
    assert 0 <= rank("", "") < RANKS == 2**63


@pytest.mark.parametrize(
    ("waves", "sizes", "why"),
    [
        (
            [{"name": "eu", "label": "region=eu"}],
            [0, 9],
            "'eu' would be empty: no Mainframe that is left has the label",
        ),
        ([{"name": "a", "count": 9}], [9, 0], "'rest' would be empty: earlier waves take the whole fleet of 9"),
        ([{"name": "a", "count": 9}], [0, 0], "There are no Mainframes"),
    ],
)
def test_a_wave_that_nobody_is_in_is_named(waves, sizes, why) -> None:
    policy = RolloutPolicy.model_validate({"waves": [*waves, {"name": "rest", "rest": True}]})
    with pytest.raises(PolicyError, match=why):
        require_members(policy, sizes)


def test_a_share_may_be_empty_and_so_may_the_fleet_of_one_wave() -> None:
    require_members(RolloutPolicy(), [5, 0, 3])
    require_members(RolloutPolicy.all_at_once(), [0])
    require_members(RolloutPolicy(waves="sequential"), [3, *[0] * 19])
