"""Seeded faults: a program that is too slow, or fails under load."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from tasks.checks.kit.base import CheckContext
from tasks.selftest.faults.base import Change, SeededFault, edited, faulty, promising_nothing, replace_text

_ENOUGH = 400
_PATIENT_MS = 5000


def _than_before(name: str, says: str, change: Change, *faults: str, error_rate: int = 0) -> SeededFault:
    """Make a release that keeps its budgets and is worse than the previous one, with enough requests to be sure."""

    def changed(tree: Path) -> None:
        change(tree)
        file = tree / "raos.toml"
        text = file.read_text(encoding="utf-8")
        for key, value in (("requests", _ENOUGH), ("p95_ms", _PATIENT_MS), ("error_rate", error_rate)):
            text, found = re.subn(rf"^{key} = \d+$", f"{key} = {value}", text, flags=re.MULTILINE)
            if not found:
                raise LookupError(f"raos.toml does not say {key}")
        file.write_text(text, encoding="utf-8")

    return SeededFault(name, "performance", says, changed, faults, against_before=True)


def _items_take(seconds: float) -> Change:
    start = "    def items(request: Request) -> Response:\n"
    slow = f"        __import__('time').sleep({seconds})\n"
    return edited("", "performance", "", "Modules/Market/__init__.py", start, start + slow).change


def _lenient(tree: Path) -> None:
    faulty("performance", "", "error-every=10").change(tree)
    replace_text(tree, "raos.toml", "error_rate = 0", "error_rate = 1000")


def _strictly(context: CheckContext) -> nullcontext[CheckContext]:
    return nullcontext(replace(context, policy=context.policy.model_copy(update={"max_error_rate": 10})))


FAULTS: tuple[SeededFault, ...] = (
    faulty("performance", r"p95 is \d+\.\d ms, 250 ms are allowed", "slow=300"),
    faulty("performance", r"of \d+ requests failed, 0 in 1000 are allowed; the last: .*: status 500", "error-every=10"),
    SeededFault("one path is slow", "performance", r"the slowest is /api/market/items at", _items_take(0.3)),
    _than_before(
        "slower than before, within the budgets",
        r"takes \d+ % longer than before: \d+\.\d+ ms in the median instead of \d+\.\d+ ms, .* 20 % are allowed",
        faulty("performance", "", "slower=300").change,
        "slower",
    ),
    _than_before(
        "one path is slower than before, within the budgets",
        r"takes \d+ % longer than before",
        _items_take(0.03),
    ),
    _than_before(
        "1 answer in 25 takes long, within the budgets",
        r"p99 is \d+\.\d+ ms instead of \d+\.\d+ ms, .* 50 % more are allowed",
        faulty("performance", "", "stall=25@200").change,
        "stall",
    ),
    _than_before(
        "fails more often than before, within the budgets",
        r"more requests fail than before: \d+ of \d+ instead of 0 of \d+",
        faulty("performance", "", "error-every=20").change,
        error_rate=100,
    ),
    SeededFault(
        "raos.toml allows more than the policy",
        "performance",
        r"of \d+ requests failed, 10 in 1000 are allowed",
        _lenient,
        ("error-every",),
        around=_strictly,
    ),
    *promising_nothing([("performance", r"raos\.toml has no \[performance\], so nothing was measured")]),
)
