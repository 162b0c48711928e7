"""Compare what a release promises in its raos.toml with what the release before it promised."""

from __future__ import annotations

from ashat.bundle.manifest import Manifest, diff
from ashat.raos_toml import compare as weaker
from ashat.raos_toml.schema import RaosToml
from tasks.checks.kit.base import CheckResult, Finding
from tasks.verify.proofs import code_version

NAME = "loosened"
TITLE = "Promises"
VERSION = code_version("1", weaker.__file__)


def taken_back(
    before: RaosToml | None, promised: RaosToml | None, old: Manifest | None, new: Manifest | None
) -> list[str]:
    """List each promise of the release `old` that the release `new` does not keep, a line each."""
    if before is None or promised is None or old is None or new is None:
        return []
    found = diff(old, new)
    return weaker.weakened(before, promised, [*found.changed, *found.removed])


def weakening(lines: list[str], against: str) -> CheckResult | None:
    """Warn that a release promises less than what runs on `against`, or something else; None without `lines`.

    A release that could loosen its own checks unseen would pass whatever it liked.
    """
    if not lines:
        return None
    more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    return CheckResult(
        NAME,
        TITLE,
        "warn",
        f"not all that the release on {against} promised is kept: {lines[0]}{more}",
        tuple(Finding("medium", line) for line in lines),
        inputs={"against": against},
        version=VERSION,
    )
