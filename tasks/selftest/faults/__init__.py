"""The seeded faults, one file a check: what each check must catch before its pass counts."""

from __future__ import annotations

import importlib
import pkgutil

from tasks.selftest.faults.base import SeededFault


def catalogue() -> tuple[SeededFault, ...]:
    """List the seeded faults of this package, file by file; files that only help to make faults have no `FAULTS`.

    Raises:
        ImportError: a file of the package cannot be loaded.
    """
    files = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in files]
    return tuple(fault for module in modules for fault in getattr(module, "FAULTS", ()))
