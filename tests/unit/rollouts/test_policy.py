"""The rollout policy: what it may say, what is refused in a line, and its digest."""

from __future__ import annotations

from typing import Any

import pytest

from ashat.errors import PolicyError
from ashat.rollouts.policy import MAX_WAVES, RolloutPolicy, WaveRule, policy_of

REST = {"name": "rest", "rest": True}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"waves": []}, "there are no waves"),
        ({"waves": [{"name": "a", "count": 1}]}, "nobody takes the rest: the last wave, 'a', needs rest = true"),
        ({"waves": [REST, {"name": "b", "count": 1}, {"name": "c", "rest": True}]}, "the wave 'rest' takes the rest"),
        (
            {"waves": [{"name": "a", "percent": 60}, {"name": "b", "percent": 50}, REST]},
            "the waves add up to 110 %, which leaves nobody for 'rest'",
        ),
        ({"waves": [{"name": "a", "percent": 100}, REST]}, "the waves add up to 100 %"),
        ({"waves": [{"name": "rest", "count": 1}, REST]}, "two waves are called 'rest'"),
        (
            {"waves": [{"name": "a", "label": "r=1"}, {"name": "b", "label": "r=1"}, REST]},
            "two waves take r=1, and the second would be empty",
        ),
        (
            {"waves": [{"name": f"w{n}", "count": 1} for n in range(MAX_WAVES)] + [REST]},
            f"there are {MAX_WAVES + 1} waves, and {MAX_WAVES} is the most",
        ),
        ({"waves": [{"name": "a\x1b[2J", "count": 1}, REST]}, "holds U+001B"),
        ({"waves": [{"name": " ", "count": 1}, REST]}, "a wave's name has 1 to 40 characters"),
        ({"waves": [{"name": "n" * 41, "count": 1}, REST]}, "a wave's name has 1 to 40 characters"),
        ({"waves": [{"name": "a", "label": "ring=\x07"}, REST]}, "holds U+0007"),
        ({"waves": [{"name": "a", "label": "ring"}, REST]}, "has no '='"),
        ({"waves": [{"name": "a"}, REST]}, "exactly one of count, percent, label and rest; it has none of them"),
        ({"waves": [{"name": "a", "count": 1, "percent": 2}, REST]}, "it has count and percent"),
        ({"waves": [{"name": "a", "count": 0}, REST]}, "greater than or equal to 1"),
        ({"waves": [{"name": "a", "percent": 101}, REST]}, "less than or equal to 100"),
        ({"waves": [{"name": "a", "count": 1}, {**REST, "ask_after": True}]}, "nothing left to ask about"),
        ({"failure_percent": 101}, "less than or equal to 100"),
        ({"success_percent": 101}, "less than or equal to 100"),
        ({"success_percent": -1}, "greater than or equal to 0"),
        ({"failure_least": 0}, "greater than or equal to 1"),
        ({"soak_seconds": 10**400}, "less than or equal to 2592000"),
        ({"mainframe_seconds": 0}, "waits for nobody"),
        ({"on_failure": "shrug"}, "'pause', 'ask', 'roll-back-wave' or 'roll-back-all'"),
        ({"wavs": []}, "wavs: there is no such key. Known are soak_seconds,"),
        ({"x\x1b" * 1000: []}, "there is no such key"),
        ({"waves": "sequental"}, "waves: it is a list of waves, or the word sequential."),
        ({"waves": [{"name": "a", "cuont": 1}, REST]}, "waves.1.cuont: there is no such key. Known are name, count,"),
        ({"waves": ["a: 5", "b: 7 of them", "c: rest"]}, "waves.2: the wave 'b' takes a count such as 5"),
        ({"waves": ["a", "c: rest"]}, "waves.1: a wave is written as NAME: WHO, such as canary: 5; not 'a'"),
        ({"waves": ["a: ²", "c: rest"]}, "not '²'"),
        ({"waves": ["a: " + "9" * 5000, "c: rest"]}, "a wave is written as NAME: WHO"),
        ({"waves": ["a: 0", "c: rest"]}, "waves.1.count: Input should be greater than or equal to 1"),
        ({"waves": ["a: ring=in ternal", "c: rest"]}, "value cannot be 'in ternal'"),
        ({"sequential": {"acceptable_per_mille": 50}}, "must be below the unacceptable one"),
    ],
)
def test_a_policy_that_does_not_add_up_is_refused_in_a_line(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy_of(changes)
    assert why in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_what_happens_today_is_a_policy_that_nothing_stops() -> None:
    today = RolloutPolicy.all_at_once(mainframe_seconds=10**9)
    assert [rule.selector for rule in today.rules()] == ["the rest"]
    assert not today.stops
    assert RolloutPolicy().stops
    assert today.mainframe_seconds == 30 * 86400


def test_the_digest_is_of_what_it_says() -> None:
    assert RolloutPolicy().digest == RolloutPolicy.model_validate(RolloutPolicy().model_dump(mode="json")).digest
    assert RolloutPolicy().digest == "a3087419bd9ac663e542a4430019a415254d988114825038c59a25ca238dad75"
    assert RolloutPolicy(soak_seconds=601).digest != RolloutPolicy().digest


def test_a_sequential_policy_has_waves_of_its_own() -> None:
    rules = RolloutPolicy(waves="sequential").rules()
    assert len(rules) == MAX_WAVES
    assert [rule.count for rule in rules[:3]] == [72, 40, 40]
    assert rules[-1].rest


def test_a_wave_in_a_line_is_the_wave() -> None:
    lines = ["canary: 5", "internal: ring=internal, then ask", "a: b: 10 %", "everyone: rest"]
    policy = policy_of({"waves": lines})
    assert policy.rules() == (
        WaveRule(name="canary", count=5),
        WaveRule(name="internal", label="ring=internal", ask_after=True),
        WaveRule(name="a: b", percent=10),
        WaveRule(name="everyone", rest=True),
    )
    assert [rule.spelled for rule in policy.rules()] == lines
    assert policy_of({"waves": ["a:10%", "b:rest"]}).rules()[0].percent == 10


def test_waves_say_whom_they_take() -> None:
    said = [WaveRule.model_validate({"name": "w", **taken}).selector for taken in ({"count": 1}, {"count": 2})]
    assert said == ["1 Mainframe", "2 Mainframes"]
    assert WaveRule(name="w", percent=3).selector == "3 %"
    assert WaveRule(name="w", label="region=eu").selector == "region=eu"
