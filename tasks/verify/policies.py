"""Check that a verification policy names only checks that there are."""

from __future__ import annotations

from ashat.verification.policy import Policy
from tasks.checks import refuse_unknown
from tasks.verify.rehearsal import NAME as REHEARSAL


def check_policy(policy: Policy) -> None:
    """Refuse a policy that names a check which is not there; the rehearsal counts as one among `warns`.

    Raises:
        PolicyError: it names another.
        CheckPackageError: a package's entry point `ashat.checks` is no check that can be used.
    """
    warns = [name for name in policy.warns if name != REHEARSAL]
    refuse_unknown(policy.model_copy(update={"warns": warns}))
