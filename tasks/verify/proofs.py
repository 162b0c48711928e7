"""Name the version of a check, and find the self-test which proved that this version catches what it claims to.

What the self-test of this very code proved is shipped with it (`tasks/verify/proofs.json`); a self-test on this
machine is kept in the ledger, and speaks louder.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ashat.verification.evidence import EvidencedSelfTest
from tasks import checks
from tasks.checks.kit.base import Check
from tasks.checks.plugins import package_of

SELF_TEST = "self-test"
SHIPPED = Path(__file__).with_name("proofs.json")
_FORMAT = "ashat-self-test/1"


@dataclass(frozen=True)
class SelfTestResult:
    """What a self-test made of one check at one version: the faults seeded, and the names of those that it missed."""

    version: str
    seeded: int
    missed: tuple[str, ...] = ()

    def as_evidence(self) -> EvidencedSelfTest:
        """As it stands in the evidence."""
        return EvidencedSelfTest(version=self.version, caught=self.seeded - len(self.missed), seeded=self.seeded)


def version_of(check: Check | type[Check]) -> str:
    """Name the version of a check: its own number, and the start of the digest of its code.

    The code of the built-in checks is all of their package: they share how they ask and judge. That of a check from
    another package is all of that, with the version under which it is installed.
    """
    kind = check if isinstance(check, type) else type(check)
    return code_version(kind.version, inspect.getsourcefile(kind) or "", package_of(kind))


def code_version(version: str, file: str, brought: str = "") -> str:
    """Join `version` to the start of the digest of `file`, or of its whole package if `brought` names one."""
    return f"{version}+{_code(file, brought)[:12]}"


@cache
def _code(file: str, brought: str) -> str:
    code = hashlib.sha256(brought.encode("utf-8"))
    for path in _files(Path(file), whole=bool(brought)):
        code.update(path.read_bytes() if path.is_file() else b"")
        code.update(b"\0")
    return code.hexdigest()


def _files(file: Path, *, whole: bool) -> list[Path]:
    package = Path(checks.__file__).parent
    if file.is_relative_to(package):
        return sorted(package.rglob("*.py"))
    root = file
    while whole and (root.parent / "__init__.py").is_file():
        root = root.parent
    return [file] if root == file else sorted(root.rglob("*.py"))


def known_proofs(own: Mapping[str, Any] | None) -> dict[str, SelfTestResult]:
    """Find the self-tests of this very code, by the check's name. `own` is the document of the last one made here."""
    made_here, shipped = proofs_of(own), proofs_of(json.loads(SHIPPED.read_text("utf-8")))
    found: dict[str, SelfTestResult] = {}
    for check in checks.built_in_checks():
        version = version_of(check)
        for proof in (made_here.get(check.name), shipped.get(check.name)):
            if proof is not None and proof.version == version:
                found.setdefault(check.name, proof)
    return found


def has_seeded_faults(check: Check) -> bool:
    """Say whether a self-test can prove a check: only those of this package have bad releases made for them."""
    return type(check) in {type(built_in) for built_in in checks.built_in_checks()}


def proofs_document(proofs: Mapping[str, SelfTestResult]) -> dict[str, Any]:
    """Write the document that the ledger keeps of a self-test."""
    listed = {
        name: {"version": proof.version, "seeded": proof.seeded, "missed": list(proof.missed)}
        for name, proof in proofs.items()
    }
    return {"format": _FORMAT, "checks": listed}


def proofs_of(document: Mapping[str, Any] | None) -> dict[str, SelfTestResult]:
    """Read what `proofs_document` wrote; nothing if there is none, or if this version does not know its format."""
    if document is None or document.get("format") != _FORMAT:
        return {}
    return {
        name: SelfTestResult(proof["version"], proof["seeded"], tuple(proof["missed"]))
        for name, proof in document["checks"].items()
    }
