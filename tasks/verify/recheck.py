"""Run the checks once more, for an approver who believes no results but those of their own machine.

They run here, by the code that is installed here, against what Public runs; nothing is switched, and nothing recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ashat.deployment.restore import restore_target
from ashat.deployment.state_machine import State
from ashat.errors import SessionError
from ashat.verification.evidence import Evidence, EvidencedCheck
from ashat.verification.policy import Policy
from blocks.policy import VerificationPolicy, load_policy
from blocks.server import RaosServer
from tasks.checks import CheckResult, checks_for, run_check
from tasks.runtime.connections import connections
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.servers.public import public_lease
from tasks.verify.proofs import SelfTestResult, known_proofs, version_of
from tasks.verify.verdict import apply_policy, skipped
from tasks.verify.verification import context_of


@dataclass(frozen=True)
class Rechecked:
    """One check's result here and in the evidence; None for what only one of the two has."""

    title: str
    here: CheckResult | None
    recorded: EvidencedCheck | None

    @property
    def agrees(self) -> bool:
        """Whether both have the same outcome."""
        return self.here is not None and self.recorded is not None and self.here.outcome == self.recorded.outcome


def recheck(state: State, policy: Policy | None, server: RaosServer | None = None) -> list[CheckResult]:
    """Run every check against Public from here, under `policy` (None: the block of that name where this runs). Public
    is `server` (None: the block, too).

    The way back is not rehearsed, since that would switch Public: performance is held against its budget alone.

    Raises:
        SessionError: Public runs something else by now, or is in use for too long.
        NodeError: Public does not answer.
    """
    configured = load_policy(state.policy)
    held_to = (policy or configured.policy()).model_copy(update={"rehearses": False})
    block = VerificationPolicy.model_validate({**held_to.model_dump(), "credentials": configured.secrets()})
    # Not those that the record has: whoever can write there could have any check proved.
    proofs = known_proofs(None)
    with connections({state.public: server} if server else None) as opened:
        return _check_again(Deployment(opened, state), state, block, proofs)


def _check_again(
    d: Deployment, state: State, block: VerificationPolicy, proofs: Mapping[str, SelfTestResult]
) -> list[CheckResult]:
    policy = block.policy()
    with public_lease(d, "recheck"):
        current = d.public.state().current
        if current is None or current.bundle != state.bundle:
            runs = f"{current.update_id} ({current.bundle[:12]})" if current else "nothing"
            raise SessionError(
                f"{state.the_public} runs {runs} by now, and not '{state.update_id}': nothing can be checked "
                f"again there. deploy verify {state.update_id} brings it back, and asks anew."
            )
        context = context_of(d, state, restore_target(state, d.ledger.find), block)
        results = []
        for check in checks_for(context.raos):
            limited = replace(context, time_limit=policy.limit_of(check.name))
            result = skipped(check) if check.name in policy.skips else run_check(check, limited)
            found = apply_policy(check, replace(result, version=version_of(check)), policy, proofs.get(check.name))
            reporter().check(found)
            results.append(found)
    return results


def compare(results: Sequence[CheckResult], evidence: Evidence) -> list[Rechecked]:
    """Pair each check's result here with the one in the evidence: first those made here, then those only recorded."""
    here = {result.name for result in results}
    both = [Rechecked(result.title, result, evidence.check(result.name)) for result in results]
    return both + [Rechecked(check.title, None, check) for check in evidence.checks if check.name not in here]
