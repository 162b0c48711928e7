"""docs/rollouts.md says what the code does: its tables, its example, its figures."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ashat.raos_toml.schema import RaosSection
from ashat.rollouts.cohorts import assign, expected_sizes, wave_sizes
from ashat.rollouts.decide import needed
from ashat.rollouts.forecast import forecast
from ashat.rollouts.labels import MAX_LABELS, MAX_LENGTH
from ashat.rollouts.policy import MAX_SECONDS, MAX_WAVES, RolloutPolicy, policy_of
from ashat.rollouts.sequential import Sequential

TEXT = (Path(__file__).resolve().parents[2] / "docs/rollouts.md").read_text("utf-8")
FLAT = " ".join(TEXT.split())
ROWS = re.findall(r"^\| `(\w+)` \| (.+?) \| ", TEXT, re.MULTILINE)


def test_the_tables_have_the_keys_and_defaults_of_the_policy() -> None:
    told = dict(ROWS)
    assert told.keys() == RolloutPolicy.model_fields.keys() | Sequential.model_fields.keys()
    waves = told.pop("waves")
    assert re.findall(r"`([^`]+)`", waves) == [rule.spelled for rule in RolloutPolicy().rules()]
    assert told.pop("sequential") == "below"
    defaults = {**RolloutPolicy().model_dump(), **Sequential().model_dump()}
    assert {name: default.strip("`") for name, default in told.items()} == {name: str(defaults[name]) for name in told}


def test_the_example_is_a_policy_and_so_is_each_wave_of_the_table() -> None:
    example, promised = re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)
    assert policy_of(tomllib.loads(example)).rules()[1].ask_after
    assert RaosSection.model_validate(tomllib.loads(promised)["raos"]).installable_from == ["9.4.0", "9.4.1"]
    lines = re.findall(r"^\| `(\w+: .+?)` \|", TEXT, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        taken = [line] if line.endswith("rest") else [line, "the others: rest"]
        assert policy_of({"waves": taken}).rules()[0].spelled == line


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {MAX_WAVES} waves" in FLAT
    assert f"up to {MAX_LENGTH} letters" in FLAT
    assert f"a Mainframe has at most {MAX_LABELS}." in FLAT
    assert MAX_SECONDS == 30 * 86400
    assert FLAT.count("at most 30 days") == 2


def test_what_is_said_of_a_sequential_test() -> None:
    test = Sequential()
    assert f"By these defaults {test.sizes()[0]} Mainframes" in FLAT
    assert f"each failure takes {test.sizes()[1]} more" in FLAT
    assert [test.verdict(0, failed) for failed in (1, 2)] == ["undecided", "bad"]
    assert f"After {MAX_WAVES - 1} waves that cannot tell" in FLAT


def test_five_canaries_let_a_bad_release_pass_one_time_in_three() -> None:
    policy = policy_of({"waves": ["canary: 5", "everyone: rest"], "at_once": 1, "failure_percent": 0})
    assert needed(RolloutPolicy(), 5) == 5
    canaries = policy_of({"waves": ["canary: 5", "everyone: rest"], "failure_least": 10**6})
    (found,) = forecast(canaries, [5, 0], [20])
    assert 30 <= 100 - found.stops <= 36
    assert forecast(policy, [5, 995], [20])[0].stops == 100


def test_shares_lie_one_after_the_other() -> None:
    fleet: dict[str, dict[str, str]] = {f"m{n}": {} for n in range(3000)}
    policy = policy_of({"waves": ["a: 10 %", "b: 20 %", "c: rest"]})
    found = wave_sizes(policy, assign(policy, "r", fleet))
    for size, expected in zip(found, expected_sizes(policy, 3000), strict=True):
        assert abs(size - expected) < 130


@pytest.mark.parametrize("heading", re.findall(r"^## (.+)$", TEXT, re.MULTILINE))
def test_the_contents_name_each_part(heading: str) -> None:
    anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    assert f"[{heading}](#{anchor})" in TEXT
