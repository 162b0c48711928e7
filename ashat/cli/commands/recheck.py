"""`deploy approve --recheck`: what the checks say on the approver's own machine, beside what the evidence says."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ashat.cli.commands.inspect import evidence_of
from ashat.cli.terminal import output
from ashat.cli.terminal.output import CHECK_MARKS
from ashat.errors import SessionError

if TYPE_CHECKING:
    from ashat.cli.commands.given_public import GivenPublic
    from ashat.deployment.state_machine import State
    from ashat.verification.evidence import Evidence
    from ashat.verification.policy import Policy
    from tasks.verify.recheck import Rechecked


def recheck(state: State, policy_file: Path | None, public: GivenPublic | None) -> str:
    """Run the checks from here and show where they differ from the evidence; a line for the decision's comment.
    `public` is None where Public is believed to be where Prefect says.

    Raises:
        SessionError: a check fails here that blocks, or Public cannot be checked.
        UsageError: the policy cannot be read.
    """
    from ashat.cli.commands.policies import read_policy
    from ashat.cli.terminal.progress import TerminalReporter
    from tasks.runtime.reporting import use_reporter
    from tasks.verify.recheck import compare
    from tasks.verify.recheck import recheck as run_again

    evidence = evidence_of(state)
    policy = read_policy(policy_file) if policy_file is not None else None
    _warn_of_policy(evidence, policy)
    where = f", of {state.the_public} at {public.url}" if public else ""
    output.say(f"The checks again, from {socket.gethostname()}{where}:")
    with closing(TerminalReporter()) as reporter, use_reporter(reporter):
        results = run_again(state, policy, public.server(state.public) if public else None)
    compared = compare(results, evidence)
    differing = [each for each in compared if each.here is not None and not each.agrees]
    for each in compared:
        _compare(each)
    failing = [result.title for result in results if result.outcome == "fail"]
    if failing:
        raise SessionError(
            f"Checked again here, '{state.update_id}' fails: {', '.join(failing)}. Nothing was signed or approved: "
            f"find out why the evidence says otherwise, or keep it out: deploy approve {state.update_id} --reject."
        )
    found = f"{len(differing)} of {len(results)} differ" if differing else f"all {len(results)} as recorded"
    output.say(f"Checked again here: {found}.")
    return f"[rechecked on {socket.gethostname()}: {found}]"


def _warn_of_policy(evidence: Evidence, policy: Policy | None) -> None:
    from ashat.raos_toml.compare import weakened_policy
    from ashat.verification.policy import Policy

    usual = policy or Policy()
    than = "your policy" if policy else "the built-in policy"
    for line in weakened_policy(usual.model_dump(mode="json"), evidence.policy):
        output.warn(f"It was verified under a policy that asks less than {than}: {line}")


def _compare(each: Rechecked) -> None:
    here, recorded = each.here, each.recorded
    if here is None:
        output.note(f"{each.title}: in the evidence, and not repeated here.")
        return
    if recorded is None:
        output.warn(f"{each.title}: {here.outcome} here, and not in the evidence.")
        return
    if recorded.version != here.version:
        output.warn(f"{each.title}: the evidence is by another version of this check than is installed here.")
    if not each.agrees:
        output.warn(
            f"{each.title}: {here.outcome} here; the evidence says {CHECK_MARKS[recorded.outcome]} {recorded.seen}"
        )
