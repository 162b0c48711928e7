"""Loads `Modules/NAME/`: each file is read once, hashed, and run from the bytes that were hashed."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from kernel import Kernel, ModuleState


def module_digest(files: Mapping[str, bytes]) -> str:
    """The identity of a module: sha256 of the canonical JSON of `[[path, sha256 of the file], ...]`.

    Paths are those of the bundle (`Modules/NAME/...`), sorted; canonical means UTF-8 and no spaces.
    """
    pairs = [[path, hashlib.sha256(files[path]).hexdigest()] for path in sorted(files)]
    return hashlib.sha256(json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).encode("utf-8")).hexdigest()


def _files(root: Path) -> Iterator[Path]:
    """List the files below `root`, but no symbolic links: a module is its own bytes."""
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def load_modules(kernel: Kernel) -> None:
    """Load every module, in the order of their names; one that fails is reported and the others go on."""
    for path in sorted((kernel.release / "Modules").iterdir()):
        if (
            path.is_dir()
            and not path.is_symlink()
            and any(_files(path))
            and path.name != kernel.faults.text("module-missing")
        ):
            kernel.modules.append(_load(kernel, path.name))
    if kernel.faults.has("module-extra"):
        kernel.modules.append(ModuleState("Stowaway", "0.0.1", "loaded", "0" * 64, 0))


def _load(kernel: Kernel, name: str) -> ModuleState:
    started = time.monotonic()
    root = kernel.release / "Modules" / name
    contents = {path: path.read_bytes() for path in _files(root)}
    files = {path.relative_to(kernel.release).as_posix(): data for path, data in contents.items()}
    if name == kernel.faults.text("module-tampered"):
        files[min(files)] += b"\n"
    state = ModuleState(name, "", "loaded", module_digest(files), 0)
    sys.meta_path.insert(0, _SnapshotFinder(f"Modules.{name}", root, contents))
    try:
        time.sleep(kernel.faults.seconds_to_load(name))
        if name == kernel.faults.text("module-fails"):
            raise ImportError(f"No module named 'racore_{name.lower()}'")
        module = importlib.import_module(f"Modules.{name}")
        module.setup(kernel)
        state.version = str(module.VERSION)
    except Exception as error:  # noqa: BLE001 - whatever a module raises is that module's failure, and reported so
        state.status, state.error = "failed", f"{type(error).__name__}: {error}"
        print(f"raos: module {name} failed: {state.error}", file=sys.stderr)
    state.load_ms = round((time.monotonic() - started) * 1000)
    return state


class _SnapshotFinder(MetaPathFinder):
    """Imports one package from bytes already in memory, so that the digest reported is of the code that runs."""

    def __init__(self, package: str, root: Path, contents: Mapping[Path, bytes]) -> None:
        self._package = package
        self._root = root
        self._contents = contents

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of `fullname`, if it is the package or inside it."""
        if fullname != self._package and not fullname.startswith(self._package + "."):
            return None
        place = self._root.joinpath(*fullname.split(".")[2:])
        for file, is_package in ((place / "__init__.py", True), (place.with_suffix(".py"), False)):
            if file in self._contents:
                loader = _SnapshotLoader(fullname, str(file), self._contents)
                return importlib.util.spec_from_file_location(
                    fullname, file, loader=loader, submodule_search_locations=[str(place)] if is_package else None
                )
        return None


class _SnapshotLoader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, contents: Mapping[Path, bytes]) -> None:
        super().__init__(fullname, path)
        self._contents = contents

    def get_data(self, path: str) -> bytes:
        """The snapshot's bytes; what is not in it does not exist."""
        try:
            return self._contents[Path(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Nothing: without a file's time, compiled leftovers are not used."""
        raise OSError(f"{path} is run from memory")
