"""The block of a rollout policy: a form that spells each policy, and one line for what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ashat.errors import NotConfiguredError, PolicyError
from ashat.rollouts.policy import RolloutPolicy as Policy
from ashat.rollouts.policy import policy_of
from ashat.rollouts.sequential import Sequential
from blocks import rollout_policy
from blocks.rollout_policy import RolloutPolicy, load_rollout_policy

POLICIES = st.fixed_dictionaries(
    {
        "waves": st.sampled_from(
            ["sequential", ["everyone: rest"], ["a: 5, then ask", "b: 7 %", "c: ring=internal", "d: rest"]]
        ),
        "sequential": st.builds(dict, acceptable_per_mille=st.integers(1, 49), alpha_per_mille=st.integers(1, 499)),
        "soak_seconds": st.integers(0, 1000),
        "on_failure": st.sampled_from(["pause", "ask", "roll-back-wave", "roll-back-all"]),
        "at_once": st.integers(0, 1000),
    }
)


@given(POLICIES)
def test_the_form_spells_every_policy(data: dict[str, Any]) -> None:
    policy = policy_of(data)
    assert RolloutPolicy.of(policy).policy() == policy


def test_the_form_begins_with_the_waves_and_explains_each_field() -> None:
    assert RolloutPolicy().policy() == Policy()
    fields = RolloutPolicy.model_json_schema()["properties"]
    order = sorted(fields, key=lambda name: fields[name]["position"])
    assert order[:3] == ["waves", "size_waves_by_a_test", "soak_seconds"]
    assert order[-4:] == list(Sequential.model_fields)
    assert all(field["title"] and field["description"].endswith(".") for field in fields.values())
    assert not any("$ref" in str(field) for field in fields.values()), "a form within the form"
    assert RolloutPolicy.get_description().endswith(".")
    assert 'RolloutPolicy.load("BLOCK_NAME")' in RolloutPolicy.get_code_example()


def loading(found: Callable[[str], RolloutPolicy]) -> Any:
    """A `load` as Prefect's, which finds what `found` returns or raises."""

    def load(_: type[RolloutPolicy], name: str) -> RolloutPolicy:
        return found(name)

    return classmethod(load)


def test_without_a_name_everybody_gets_it_at_once() -> None:
    assert load_rollout_policy("", 300.4) == Policy.all_at_once(300)


def test_a_name_that_nobody_configured_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> RolloutPolicy:
        raise ValueError(f"Unable to find block document named {name}")

    monkeypatch.setattr(RolloutPolicy, "load", loading(missing))
    with pytest.raises(NotConfiguredError, match="No rollout policy 'careful' is configured: deploy configure"):
        load_rollout_policy("careful", 300)


def test_waves_that_do_not_add_up_are_refused_when_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RolloutPolicy, "load", loading(lambda _: RolloutPolicy(waves=["a: 5", "b: 6"])))
    with pytest.raises(PolicyError, match="'careful' does not fit: waves: nobody takes the rest: the last wave, 'b'"):
        load_rollout_policy("careful", 300)


def test_a_block_that_another_client_saved_with_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(name: str) -> RolloutPolicy:
        try:
            return RolloutPolicy.model_validate({"success_percent": 900})
        except ValidationError as error:  # as Prefect's `Block.load` does
            raise RuntimeError(f"Unable to load {name}") from error

    monkeypatch.setattr(RolloutPolicy, "load", loading(wrong))
    with pytest.raises(NotConfiguredError, match=r"'careful' \(RaOS Rollout Policy\) does not fit: success_percent: "):
        rollout_policy.load_rollout_policy("careful", 300)
