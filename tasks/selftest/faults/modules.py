"""Seeded faults: modules that are not loaded as pushed."""

from __future__ import annotations

from tasks.selftest.faults.base import SeededFault, edited, faulty

FAULTS: tuple[SeededFault, ...] = (
    faulty("modules", r"module Market is failed: ImportError: No module named 'racore_market'", "module-fails=Market"),
    faulty("modules", r"module Chat was pushed, but is not loaded", "module-missing=Chat"),
    faulty("modules", r"module Stowaway is loaded, but was not pushed", "module-extra"),
    faulty("modules", r"module Auth was loaded from other bytes than were pushed", "module-tampered=Auth"),
    faulty("modules", r"module Auth was loaded from other bytes than were pushed", "module-flipped=Auth"),
    edited(
        "syntax error in a module",
        "modules",
        r"module Forum is failed: SyntaxError",
        "Modules/Forum/__init__.py",
        "def setup(",
        "def setup((",
    ),
    faulty("modules", r"module Chat took \d+ ms to load, over the 1000 ms of raos\.toml", "module-slow=Chat@1200"),
    faulty("modules", r"the module report cannot be read: /modules answers no module report", "bad-json=/modules"),
    faulty("modules", r"the module report cannot be read: /modules: answered more than \d+ bytes", "huge=/modules"),
)
