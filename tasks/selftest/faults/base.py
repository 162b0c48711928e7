"""Seeded faults: a bad release made from a good one, the check that must notice, and what it must say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tasks.checks.kit.base import CheckContext, Outcome

Change = Callable[[Path], None]
Around = Callable[[CheckContext], AbstractContextManager[CheckContext]]


@dataclass(frozen=True)
class SeededFault:
    """One bad release. `says` is a pattern for what the check sees; `faults` are RaOS's own that it uses.

    `expects` is the outcome that catches it: a failure, unless a person is to decide. A `late` one shows itself only
    when /health has been asked a few times more; one `against_before` only where the good release ran before, and, for
    the checks that compare, the rehearsal measured both. `around` makes a fault that no bundle can hold, such as a bad
    certificate: it is a context manager that gives the check another context.
    """

    name: str
    check: str
    says: str
    change: Change
    faults: tuple[str, ...] = ()
    late: bool = False
    against_before: bool = False
    around: Around = nullcontext
    expects: Outcome = "fail"


def faulty(check: str, says: str, *faults: str, late: bool = False, expects: Outcome = "fail") -> SeededFault:
    """Make a release that switches on some of RaOS's own faults, by its faults.toml."""

    def change(tree: Path) -> None:
        listed = ", ".join(f'"{fault}"' for fault in faults)
        (tree / "faults.toml").write_text(f"faults = [{listed}]\n", encoding="utf-8")

    names = tuple(fault.partition("=")[0] for fault in faults)
    return SeededFault(" ".join(faults), check, says, change, names, late, expects=expects)


def edited(name: str, check: str, says: str, path: str, old: str, new: str) -> SeededFault:
    """Make a release with one text replaced in one of its files."""
    return SeededFault(name, check, says, lambda tree: replace_text(tree, path, old, new))


def replace_text(tree: Path, path: str, old: str, new: str) -> None:
    """Replace one text in one file of a release.

    Raises:
        LookupError: the file does not hold it.
    """
    file = tree / path
    text = file.read_text(encoding="utf-8")
    if old not in text:
        raise LookupError(f"{path} does not hold {old!r}")
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def promising_nothing(checks: Iterable[tuple[str, str]]) -> tuple[SeededFault, ...]:
    """Make a release whose raos.toml has only its name and version, for each check and what it must say of that."""

    def change(tree: Path) -> None:
        file = tree / "raos.toml"
        head, _, _ = file.read_text(encoding="utf-8").partition("\n[health]")
        file.write_text(head, encoding="utf-8")

    return tuple(
        SeededFault(f"no promise of {name}", name, says, change, expects="inconclusive") for name, says in checks
    )


def added(name: str, says: str, path: str, content: str | bytes) -> SeededFault:
    """Make a release with a file that should not be in it."""

    def change(tree: Path) -> None:
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    return SeededFault(name, "security", says, change)
