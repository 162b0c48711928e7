"""What the gate says of a bad release: whom it reaches when, and how many it breaks."""

from __future__ import annotations

import pytest

from ashat.errors import NotConfiguredError
from ashat.rollouts.policy import RolloutPolicy, policy_of
from tasks.approval import blast_radius

AT_ONCE = RolloutPolicy.all_at_once(300)
CAREFUL = policy_of({"waves": ["a|b: 5", "everyone: rest"], "at_once": 10})
FLEET: dict[str, dict[str, str]] = {f"m{number}": {} for number in range(1000)}
HEADER = "| defects | broken | in 95 % at most | without waves | it stops | mostly in |"


def test_without_a_policy_everybody_is_offered_it_and_nothing_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blast_radius, "load_rollout_policy", lambda _name, seconds: RolloutPolicy.all_at_once(seconds))
    lines = blast_radius.blast_radius("UPD-1", FLEET)
    assert lines[:4] == ["## If it is bad", "", "- Every Mainframe is offered it at once: nothing stops it.", ""]
    assert lines[4] == HEADER
    assert [line.split(" | ")[0] for line in lines[6:]] == ["| 1 %", "| 5 %", "| 20 %"]
    assert all(line.endswith("| never |  |") for line in lines[6:])


def test_waves_that_are_opened_are_shown_with_what_stops_them() -> None:
    lines = blast_radius.write(CAREFUL, "careful", "UPD-1", FLEET, at_once=AT_ONCE)
    assert "- The rollout policy careful holds" in lines
    assert "| 1 | a\\|b | 5 Mainframes | 5 |" in lines
    assert "| 2 | everyone | the rest | 995 |" in lines
    assert any(line.startswith("- It stops when") for line in lines)
    assert HEADER in lines
    assert "nothing stops it" not in "\n".join(lines)


def test_without_mainframes_there_is_nothing_to_break() -> None:
    lines = blast_radius.write(AT_ONCE, "", "UPD-1", {}, at_once=AT_ONCE)
    assert lines[2:] == ["- There is no Mainframe that it could break."]


def test_a_policy_that_cannot_be_read_is_said_and_does_not_stop_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, mainframe_seconds: float) -> RolloutPolicy:
        if name:
            raise NotConfiguredError(f"No rollout policy '{name}' is configured.")
        return RolloutPolicy.all_at_once(round(mainframe_seconds))

    monkeypatch.setenv("ASHAT_ROLLOUT_POLICY", "gone")
    monkeypatch.setattr(blast_radius, "load_rollout_policy", load)
    assert "**Which waves it reaches is not known:** No rollout policy 'gone'" in "\n".join(
        blast_radius.blast_radius("UPD-1", {"m": {}})
    )


def test_waves_by_label_are_counted_and_one_that_would_be_empty_is_said_before_the_yes() -> None:
    policy = policy_of({"waves": ["in: ring=internal", "everyone: rest"]})
    labelled = {**FLEET, "m1": {"ring": "internal"}, "m2": {"ring": "internal"}}
    lines = blast_radius.write(policy, "careful", "UPD-1", labelled, at_once=AT_ONCE)
    assert "| 1 | in | ring=internal | 2 |" in lines
    assert not [line for line in lines if "cannot begin" in line]
    (warning,) = [
        line
        for line in blast_radius.write(policy, "careful", "UPD-1", FLEET, at_once=AT_ONCE)
        if "**Its rollout cannot begin:**" in line
    ]
    assert "would be empty" in warning
