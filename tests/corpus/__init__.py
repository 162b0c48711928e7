"""Small faults that the security check must find, and good variants that look bad, grouped by kind.

`CASES` has them all: a module of this package for each group of kinds, with a tuple `CASES` of its own, is found by
itself. `bench/corpus.py` counts what is caught; tests/checks/test_corpus.py holds it to its figures.
"""

from __future__ import annotations

import importlib
import pkgutil

from tests.corpus.case import Case


def cases() -> tuple[Case, ...]:
    """Collect the cases of every module of this package."""
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    return tuple(case for module in modules for case in getattr(module, "CASES", ()))
