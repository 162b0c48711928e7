"""The seeded faults, one file a check: what each check must catch before its pass counts."""

from __future__ import annotations

import importlib
import pkgutil

from tasks.selftest.seeded import Seeded


def catalogue() -> tuple[Seeded, ...]:
    """Every seeded fault of this package, file by file.

    Raises:
        ImportError: a file of the package cannot be loaded.
    """
    files = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(fault for name in files for fault in importlib.import_module(f"{__name__}.{name}").FAULTS)
