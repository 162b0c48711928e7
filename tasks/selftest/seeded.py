"""What a seeded fault is: a bad release made from a good one, the check that must fail, and what it must say."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tasks.checks.interface import CheckContext

Change = Callable[[Path], None]
Around = Callable[[CheckContext], AbstractContextManager[CheckContext]]


@dataclass(frozen=True)
class Seeded:
    """One bad release. `says` is a pattern for the failing check's `seen`; `faults` are RaOS's own that it uses.

    A `late` one shows itself only when /health has been asked a few times more; one `against_before` only where the
    good release ran before, and the rehearsal measured both. `around` makes what no bundle shows: while its block
    lasts, the check is given what it gives (a server with a bad certificate, a policy).
    """

    name: str
    check: str
    says: str
    change: Change
    faults: tuple[str, ...] = ()
    late: bool = False
    against_before: bool = False
    around: Around = nullcontext


def told(check: str, says: str, *faults: str, late: bool = False) -> Seeded:
    """A release that tells itself to misbehave, by its faults.toml."""

    def change(tree: Path) -> None:
        listed = ", ".join(f'"{fault}"' for fault in faults)
        (tree / "faults.toml").write_text(f"faults = [{listed}]\n", encoding="utf-8")

    names = tuple(fault.partition("=")[0] for fault in faults)
    return Seeded(" ".join(faults), check, says, change, names, late)


def edited(name: str, check: str, says: str, path: str, old: str, new: str) -> Seeded:
    """A release with one text replaced in one of its files."""

    def change(tree: Path) -> None:
        file = tree / path
        text = file.read_text(encoding="utf-8")
        if old not in text:
            raise LookupError(f"{path} does not hold {old!r}")
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    return Seeded(name, check, says, change)


def added(name: str, says: str, path: str, content: str | bytes) -> Seeded:
    """A release with a file that should not be in it."""

    def change(tree: Path) -> None:
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    return Seeded(name, "security", says, change)
