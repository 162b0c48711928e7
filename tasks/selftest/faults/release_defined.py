"""Seeded faults: what a release's own `[[check]]` is there for."""

from __future__ import annotations

from tasks.selftest.faults.base import SeededFault, edited, faulty

FAULTS: tuple[SeededFault, ...] = (
    edited(
        "visitors are not greeted",
        "own-greeting",
        r"GET /: the answer does not hold 'Welcome to RaOS'",
        "Modules/Content/pages/welcome.html",
        "Welcome to RaOS",
        "It works!",
    ),
    faulty("own-greeting", r"GET /: no whole answer within 5 s", "hang=/"),
    faulty(
        "own-boards",
        r"GET /api/forum/boards: the answer does not match",
        "empty=/api/forum/boards",
        expects="warn",
    ),
)
