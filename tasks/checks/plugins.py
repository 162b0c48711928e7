"""Loads checks of other packages: those installed beside this one with an entry point in the group `ashat.checks`.

A check that should be there and is not must not go unnoticed, so an entry point that is wrong stops a verification.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

from ashat.errors import AshatError
from tasks.checks.kit.base import Check, one_line
from tasks.checks.release_defined import PREFIX

GROUP = "ashat.checks"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")


class CheckPackageError(AshatError):
    """A package promises a check that cannot be used."""


def packaged_checks(taken: Collection[str]) -> list[Check]:
    """Load the checks of installed packages; `taken` are the names that they may not have.

    Raises:
        CheckPackageError: an entry point cannot be loaded, is no check, or has a name that is taken.
    """
    owners: dict[str, str] = {}
    checks: list[Check] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda each: (_package(each), each.name)):
        check, package = _loaded(entry), _package(entry)
        if not _NAME.fullmatch(check.name) or check.name.startswith(PREFIX):
            raise _refusal(
                entry, f"names its check {one_line(check.name, 64)!r}: take a-z, 0-9 and -, and no {PREFIX} before it"
            )
        if check.name in taken or check.name in owners:
            owner = owners.get(check.name, "ashat-deploy")
            raise _refusal(entry, f"names its check {check.name!r}, as {owner} does: give it another name")
        owners[check.name] = package
        checks.append(check)
    return checks


def package_of(kind: type[Check]) -> str:
    """Name the installed package that a check is from, with its version; "" for our own and those of raos.toml."""
    top = kind.__module__.partition(".")[0]
    return next((_package(each) for each in entry_points(group=GROUP) if each.module.partition(".")[0] == top), "")


def _loaded(entry: EntryPoint) -> Check:
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is anybody's module
        raise _refusal(entry, f"cannot be loaded ({type(error).__name__}: {one_line(error, 200)}): mend it") from None
    if not (inspect.isclass(found) and issubclass(found, Check)) or inspect.isabstract(found):
        raise _refusal(entry, "is no check: let it name a subclass of tasks.checks.Check that has a run()")
    try:
        if not (isinstance(found.name, str) and isinstance(found.title, str)):
            raise TypeError("its name and title must be texts")
        return found()
    except Exception as error:  # noqa: BLE001 - it is anybody's class
        raise _refusal(entry, f"cannot be made ({type(error).__name__}: {one_line(error, 200)}): mend it") from None


def _refusal(entry: EntryPoint, what: str) -> CheckPackageError:
    return CheckPackageError(
        f"The package {_package(entry)} has an entry point {entry.name!r} ({one_line(entry.value, 100)}) that {what}, "
        "or uninstall the package."
    )


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "?"
