"""Say before an approval whether the target could be rolled back from what is approved, and how."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ashat.deployment.state_machine import State
from ashat.protocol.messages import NodeState, TrustState
from tasks.approval.signing import could_be_signed, presigns_rollback, propose
from tasks.runtime.deployment import Deployment


class WayBack(NamedTuple):
    """How the target could be rolled back: by what is `signed` with the approval, once people were `asked` then, or
    `never`; `why` says so in a clause."""

    kind: Literal["signed", "asked", "never"]
    why: str


def way_back(d: Deployment, state: State, seen: NodeState, trust: TrustState) -> WayBack:
    """Look whether the target, which is as `seen` and keeps `trust`, could be rolled back once it runs the update."""
    current = seen.current
    if current is None:
        return WayBack("never", f"{d.the_target} runs nothing yet, so there is nothing to go back to")
    ran = current.update_id
    if any(lost.why == "runs" and lost.bundle == current.bundle for lost in seen.store.lost):
        return WayBack("never", f"the store of {d.the_target} lost parts of {ran}: deploy heal {d.target_name} first")
    known = d.ledger.find(ran, current.attempt)
    if known is None or known.evidence is None or known.bundle != current.bundle:
        return WayBack("never", f"the record has no evidence of {ran}, which {d.the_target} runs now")
    if why := could_be_signed(d.ledger, known, trust):
        return WayBack("never", f"nobody could sign that {ran} runs again: {why}")
    if not presigns_rollback("release", state):
        return WayBack("asked", "the policy has it that people are asked about a rollback then")
    if propose(d.ledger, state, seen, trust, presigned=True).rollback is None:
        return WayBack(
            "asked", f"{ran} is not what was signed last for {d.the_target}, so people are asked about it then"
        )
    return WayBack("signed", f"the rollback to {ran} is signed together with this approval")
