"""The checks that a release must pass, one file each. A file that holds a `kit.base.Check` is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from ashat.errors import PolicyError
from ashat.raos_toml.schema import RaosToml
from ashat.verification.policy import Policy
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding, run_check

__all__ = [
    "Check",
    "CheckContext",
    "CheckResult",
    "Finding",
    "all_checks",
    "built_in_checks",
    "checks_for",
    "refuse_unknown",
    "run_check",
]


def built_in_checks() -> list[Check]:
    """List the checks of this package, in the order of reports.

    Raises:
        ImportError: a file of the package cannot be loaded; a check that is not there must not go unnoticed.
    """
    found: dict[str, Check] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            continue
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Check) and value is not Check:
                found[value.name] = value()
    return sorted(found.values(), key=_place)


def all_checks() -> list[Check]:
    """List the checks of this package and of the packages installed beside it, in the order of reports.

    Raises:
        CheckPackageError: a package's entry point `ashat.checks` is no check that can be used.
        ImportError: a file of this package cannot be loaded.
    """
    from tasks.checks.plugins import packaged_checks

    checks = built_in_checks()
    return sorted([*checks, *packaged_checks({check.name for check in checks})], key=_place)


def checks_for(raos: RaosToml) -> list[Check]:
    """List the checks that a release must pass: all checks, then those that its own raos.toml declares.

    Raises:
        CheckPackageError: a package's entry point `ashat.checks` is no check that can be used.
        ImportError: a file of this package cannot be loaded.
    """
    from tasks.checks.release_defined import own_checks

    return [*all_checks(), *own_checks(raos)]


def refuse_unknown(policy: Policy) -> None:
    """Refuse a policy that names a check which cannot exist: a misspelt name would change nothing.

    A release's own checks, `own-` and a word, are known only when it is verified.

    Raises:
        PolicyError: it names another.
        CheckPackageError: a package's entry point `ashat.checks` is no check that can be used.
    """
    from tasks.checks.release_defined import PREFIX

    known = [check.name for check in all_checks()]
    for key in ("warns", "skips", "time_limits"):
        for name in getattr(policy, key):
            if name not in known and not name.startswith(PREFIX):
                raise PolicyError(
                    f"The policy names a check {name!r} in {key}, and there is none: known here are "
                    f"{', '.join(known)}, and {PREFIX}NAME for a release's own."
                )


def _place(check: Check) -> tuple[int, str]:
    return check.order, check.name
