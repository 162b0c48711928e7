"""Evidence as a verification leaves it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from ashat.verification.evidence import FORMAT, Evidence
from ashat.verification.policy import Policy

BEGAN = datetime(2026, 11, 24, 3, 47, 45, tzinfo=UTC)


def digest(text: str) -> str:
    """A digest that stands for `text`."""
    return sha256(text.encode()).hexdigest()


def check(name: str, title: str, outcome: str = "pass", seen: str = "as it should be", **more: Any) -> dict[str, Any]:
    """One check's answer as evidence has it."""
    return {
        "name": name,
        "title": title,
        "version": "2+0123456789ab",
        "outcome": outcome,
        "seen": seen,
        "findings": [],
        "inputs": {},
        "figures": {},
        "series": {},
        "milliseconds": 1234,
        "at": BEGAN.isoformat(),
        "reused_from": None,
        **more,
    }


def finding(severity: str, text: str, rule: str = "", path: str = "") -> dict[str, str]:
    """One finding as evidence has it."""
    return {"severity": severity, "text": text, "rule": rule, "path": path}


def latencies(seed: int, factor: float, count: int = 300) -> list[int]:
    """As many microseconds, spread as a real server's are; the same each time."""
    source = random.Random(seed)
    return [round(source.lognormvariate(8.2, 0.35) * factor) for _ in range(count)]


def six_checks() -> list[dict[str, Any]]:
    """What six checks may say of a release that is fit, and not spotless."""
    slow = {"new_us": latencies(1, 1.04), "old_us": latencies(2, 1.0), "new_path": [0] * 300}
    late = {"p50_us": 3652, "p95_us": 6480, "errors": 0, "error_per_mille": 3}
    return [
        check("health", "Server health", seen="8 of 8 looks healthy", figures={"startup_ms": 320, "restarts": 0}),
        check("modules", "Module load", seen="6 of 6 modules loaded", reused_from=digest("earlier evidence")),
        check("api", "API endpoints", seen="7 of 7 endpoints answer", inputs={"paths": ["/", "/forum"], "n": 2}),
        check("database", "Database", "inconclusive", "the pool could not be asked"),
        check("performance", "Performance", seen="p95 6.5 ms of 400 ms allowed", figures=late, series=slow),
        check(
            "security",
            "Security scan",
            "warn",
            "no Content-Security-Policy (and 1 more)",
            findings=[
                finding("medium", "no Content-Security-Policy on /", "header", "/"),
                finding("low", "an executable that was not there before", "executable", "kernel/faults.py"),
            ],
        ),
    ]


def evidence(update_id: str = "UPD-1", **changed: Any) -> Evidence:
    """Evidence of the second format; `changed` replaces fields of it."""
    policy = Policy(warns=["security"], time_limits={"performance": 90}).model_dump(mode="json")
    tree = {"files": 22, "expected": digest("tree"), "found": digest("tree")}
    document = {
        "format": FORMAT,
        "tool": "0.1.0",
        "update_id": update_id,
        "attempt": 1,
        "bundle": digest(update_id),
        "version": "9.4.1",
        "source": {"name": "raos", "commit": "c" * 40, "branch": "main", "dirty": False, "who": "kim@alpha"},
        "public": {"name": "public", "url": "http://127.0.0.1:8470", "ran_before": digest("before")},
        "target": {"name": "omega", "bundle": digest("before"), "unknown": ""},
        "policy": policy,
        "policy_digest": Policy.model_validate(policy).digest,
        "rehearsal": {
            "outcome": "pass",
            "detail": "back in 1.4 s and forward in 1.6 s; 44 files compared",
            "back_ms": [1400, 1310],
            "forward_ms": [1600, 1580],
            "trees": [{"release": "old", **tree}, {"release": "new", **tree}],
        },
        "self_test": {"health": {"version": "2+0123456789ab", "caught": 4, "seeded": 4}},
        "began": BEGAN.isoformat(),
        "ended": (BEGAN + timedelta(seconds=21)).isoformat(),
        "outcome": "attention",
        "checks": six_checks(),
    }
    return Evidence.read(document | changed)
