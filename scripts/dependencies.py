"""Prints what each direct dependency costs: megabytes on disk, what it alone brings with it, and the time to import it.

    python scripts/dependencies.py [--runs 5] [NAME ...]

"own" is the distribution's files; "alone" adds every distribution that nothing else of ours needs, which is what its
removal would save, and "brings" counts those. An import is timed in a fresh interpreter whose files are cached, less
the start of the interpreter, in the median of `--runs`. docs/dependencies.md says what each is for.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# What is imported where that is not the distribution's name, or where the package alone loads next to nothing.
IMPORTED = {
    "pydantic-settings": "pydantic_settings",
    "python-pkcs11": "pkcs11",
    "pyyaml": "yaml",
    "scipy": "scipy.stats",
    "securesystemslib": "securesystemslib.signer",
    "tuf": "tuf.api.metadata",
}


def direct_dependencies() -> dict[str, list[Requirement]]:
    """Read what pyproject.toml asks for: the base under "base", and each extra under its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"base": project["dependencies"], **project["optional-dependencies"]}
    return {group: [Requirement(text) for text in texts] for group, texts in groups.items()}


def closure(roots: Iterable[Requirement]) -> set[str]:
    """Name every installed distribution that `roots` need, themselves included."""
    found: set[tuple[str, str]] = set()
    left = [(canonicalize_name(root.name), extra) for root in roots for extra in ("", *root.extras)]
    while left:
        name, extra = item = left.pop()
        if item in found or not (installed := _installed(name)):
            continue
        found.add(item)
        for text in installed.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                left += [(canonicalize_name(needed.name), wanted) for wanted in ("", *needed.extras)]
    return {name for name, _ in found}


def bytes_on_disk(name: str) -> int:
    """Add up the files of a distribution, without the bytecode that this machine compiled."""
    installed = _installed(name)
    files = [Path(str(file.locate())) for file in (installed.files if installed else None) or ()]
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())


def import_ms(module: str, runs: int) -> float | None:
    """Time the import of `module` in fresh interpreters: the median in milliseconds, or None where it fails."""
    return _median_ms(f"import {module}", runs)


def _median_ms(statement: str, runs: int) -> float | None:
    times = []
    for _ in range(runs + 1):  # the first one fills the cache of files
        began = time.perf_counter()
        if subprocess.run([sys.executable, "-c", statement], capture_output=True, check=False).returncode:
            return None
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _rows(only: set[str], runs: int) -> Iterator[str]:
    groups = direct_dependencies()
    everything = [requirement for group in groups.values() for requirement in group]
    whole = closure(everything)
    start = _median_ms("pass", runs) or 0.0
    for group, requirements in groups.items():
        for requirement in requirements:
            name = canonicalize_name(requirement.name)
            if only and name not in only:
                continue
            alone = whole - closure([other for other in everything if other is not requirement])
            taken = import_ms(IMPORTED.get(name, name.replace("-", "_")), runs)
            ms = "fails" if taken is None else f"{max(taken - start, 0):.0f}"
            mb = sum(map(bytes_on_disk, alone)) / 1e6
            yield f"{name:<28}{group:<10}{bytes_on_disk(name) / 1e6:>8.1f}{mb:>9.1f}{len(alone):>8}{ms:>11}"
    for name, names in (("the base", closure(groups["base"])), ("with every extra", whole)):
        yield f"{name}: {len(names)} distributions, {sum(map(bytes_on_disk, names)) / 1e6:.0f} MB"


def main() -> None:
    """Print a row for each direct dependency, or for those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="Only these.")
    parser.add_argument("--runs", type=int, default=5, help="How often each import is timed.")
    options = parser.parse_args()
    print(f"{'distribution':<28}{'in':<10}{'own MB':>8}{'alone MB':>9}{'brings':>8}{'import ms':>11}")
    for row in _rows({canonicalize_name(name) for name in options.names}, options.runs):
        print(row)


if __name__ == "__main__":
    main()
