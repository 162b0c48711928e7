"""Whether a verification policy can be held to: what it names has to be there."""

from __future__ import annotations

from ashat.verification.policy import Policy
from tasks.checks import refuse_unknown
from tasks.verify.rehearsal import NAME as REHEARSAL


def check_policy(policy: Policy) -> None:
    """Make sure that a policy names only checks that there are; the rehearsal may only warn, too.

    Raises:
        PolicyError: it names another.
        CheckPackageError: a package's entry point `ashat.checks` is no check that can be used.
    """
    warns = [name for name in policy.warns if name != REHEARSAL]
    refuse_unknown(policy.model_copy(update={"warns": warns}))
