"""Bind an approval to the rollout policy that people were shown: that one is used, or they are asked anew."""

from __future__ import annotations

from typing import NamedTuple

from ashat.deployment.state import ApprovalRequest, State
from ashat.errors import NotConfiguredError, PolicyError
from ashat.ledger.ledger import Ledger
from ashat.rollouts.policy import RolloutPolicy
from ashat.settings import Settings
from blocks.rollout_policy import load_rollout_policy


class HeldPolicy(NamedTuple):
    """Hold the rollout policy of that name ("": the one called `default`, or none); None where it cannot be used."""

    name: str
    policy: RolloutPolicy | None

    @property
    def digest(self) -> str:
        """Name it by its content; "" where it cannot be used."""
        return self.policy.digest if self.policy is not None else ""


def policy_here() -> HeldPolicy:
    """Load the rollout policy that holds by the settings of this process."""
    settings = Settings()
    return _load(settings.rollout_policy, settings.mainframe_timeout)


def policy_asked_by(ledger: Ledger, request: ApprovalRequest) -> HeldPolicy:
    """Load what the policy is by now that a question was put by, whatever this process's settings name."""
    asked, seconds = policy_of(ledger, request), Settings().mainframe_timeout
    if asked is not None and not asked.stops:
        seconds = asked.mainframe_seconds
    return _load(request.rollout_policy_name, seconds)


def policy_of(ledger: Ledger, request: ApprovalRequest) -> RolloutPolicy | None:
    """Read the rollout policy that a question showed, from the record; None where it showed none."""
    if not request.rollout_policy:
        return None
    return RolloutPolicy.model_validate(ledger.document(request.rollout_policy))


def approved_policy(ledger: Ledger, state: State) -> RolloutPolicy | None:
    """Read the rollout policy that people approved; None where they were shown none, as by an earlier version."""
    request = state.approvals.get("release")
    return policy_of(ledger, request) if request is not None else None


def keep(ledger: Ledger, held: HeldPolicy) -> str:
    """Keep the policy in the record under its digest, which is returned; "" where there is none."""
    if held.policy is None:
        return ""
    return ledger.put_document("rollout-policy", held.policy.model_dump(mode="json"))


def why_void(state: State) -> str:
    """Say why an approval is void by the rollout policy that holds here by now; "" where it is not."""
    request = state.approvals.get("release")
    if request is None or request.rollout_policy in (None, policy_here().digest):
        return ""
    return "the rollout policy is another one than when it was approved"


def _load(name: str, mainframe_seconds: float) -> HeldPolicy:
    try:
        return HeldPolicy(name, load_rollout_policy(name, mainframe_seconds))
    except (NotConfiguredError, PolicyError):
        return HeldPolicy(name, None)
