"""Keep in a Prefect block how a release reaches the fleet, so that an operator can change it in the UI."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import BaseModel, Field

from ashat.errors import NotConfiguredError, PolicyError
from ashat.rollouts import policy as rules
from ashat.rollouts.policy import Limits
from ashat.rollouts.sequential import Sequential
from blocks.find import find_block

DEFAULT = "default"


class _Waves(BaseModel):
    """Hold the fields that the form begins with."""

    waves: list[str] = Field(
        default=[rule.spelled for rule in rules.RolloutPolicy().rules()],
        title="Waves",
        description="In order, each as a name and whom it takes, such as canary: 5, or early: 10 %, or internal: "
        "ring=internal. The last takes the rest. After one that ends in ', then ask' people say whether it goes on.",
    )
    size_waves_by_a_test: bool = Field(
        default=False,
        title="Size waves by a sequential test",
        description="Instead of the waves above: as many Mainframes as it takes to tell a good release from a bad one.",
    )


class RolloutPolicy(Block, Sequential, Limits, _Waves):
    """
    Who gets a release when, what has to go well before the next wave, and what stops it.

    Example:
        Load a stored policy and see its waves:
        ```python
        from blocks.rollout_policy import RolloutPolicy

        print(RolloutPolicy.load("BLOCK_NAME").policy().rules())
        ```
    """

    _block_type_name = "RaOS Rollout Policy"
    _block_type_slug = "raos-rollout-policy"
    _description = "In which waves a release reaches the Mainframes, when the next one opens, and what stops it."

    def policy(self) -> rules.RolloutPolicy:
        """Return the policy that the form spells.

        Raises:
            PolicyError: the waves do not add up, or another value does not fit; one line.
        """
        fields = {**_Waves.model_fields, **Limits.model_fields, **Sequential.model_fields}
        return rules.policy_of_form({name: getattr(self, name) for name in fields})

    @classmethod
    def of(cls, policy: rules.RolloutPolicy) -> RolloutPolicy:
        """Return the block that spells `policy`."""
        sequential = policy.waves == "sequential"
        waves = {} if sequential else {"waves": [rule.spelled for rule in policy.rules()]}
        limits = {name: getattr(policy, name) for name in Limits.model_fields}
        return cls.model_validate(
            {**limits, **policy.sequential.model_dump(), **waves, "size_waves_by_a_test": sequential}
        )


def load_rollout_policy(name: str, mainframe_seconds: float) -> rules.RolloutPolicy:
    """Load the rollout policy of that name; where none is named, the one called `default`, and where there is none,
    everybody gets a release at once, and has so many seconds.

    Raises:
        NotConfiguredError: there is none of that name.
        PolicyError: it does not add up.
    """
    try:
        found = find_block(RolloutPolicy, name or DEFAULT)
        if found is not None:
            return found.policy()
    except PolicyError as error:
        raise PolicyError(
            f"The rollout policy '{name or DEFAULT}' does not fit: {error} Change the block in Prefect's UI."
        ) from None
    if not name:
        return rules.RolloutPolicy.all_at_once(round(mainframe_seconds))
    raise NotConfiguredError(
        f"No rollout policy '{name}' is configured: deploy configure rollout-policy {name} FILE, or make a block RaOS "
        "Rollout Policy of that name in Prefect's UI. Or leave ASHAT_ROLLOUT_POLICY empty."
    )
