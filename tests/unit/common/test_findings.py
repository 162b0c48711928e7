"""Looks at an installation end in time, whatever they meet, and their sum is what was seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.common import findings
from ashat.common.findings import Finding, Look, is_wrong, look_at_all, look_at_disk, look_at_private
from ashat.errors import UsageError


def test_one_look_that_hangs_or_fails_keeps_nobody_from_the_others() -> None:
    hangs = threading.Event()

    def hang() -> Iterator[Finding]:
        yield Finding("way", "ok", "begun")
        hangs.wait()

    def fail() -> Iterator[Finding]:
        raise ValueError("odd")
        yield

    def refuse() -> Iterator[Finding]:
        raise UsageError("It is refused. Do this.")
        yield

    def lack() -> Iterator[Finding]:
        Path("/does/not/exist").read_bytes()
        yield

    began = time.monotonic()
    looks = [Look("hangs", hang), Look("fails", fail), Look("refuses", refuse), Look("lacks", lack)]
    found = look_at_all([*looks, Look("last", lambda: [Finding("last", "ok", "fine")])], 0.3)
    took = time.monotonic() - began
    hangs.set()
    assert took < 60
    assert [(f.what, f.verdict, f.seen) for f in found] == [
        ("way", "ok", "begun"),
        ("hangs", "wrong", "the look at it did not end within 0.3 s"),
        ("fails", "wrong", "looking at it failed: ValueError: odd"),
        ("refuses", "wrong", "It is refused. Do this."),
        ("lacks", "wrong", "it cannot be looked at: No such file or directory (/does/not/exist)"),
        ("last", "ok", "fine"),
    ]


def test_the_sum_counts_each_verdict_and_only_wrong_is_wrong() -> None:
    found = [Finding("a", "ok", "1"), Finding("b", "warning", "2", "do"), Finding("c", "not looked at", "3")]
    assert not is_wrong(found)
    assert list(findings.lines(found)) == [
        "✅ a: 1",
        "⚠️ b: 2",
        "   → do",
        "➖ c: 3",
        "1 ok, 1 warning, 1 not looked at",
    ]
    assert findings.as_json(found)["counts"] == {"ok": 1, "warning": 1, "wrong": 0, "not looked at": 1}
    assert is_wrong([*found, Finding("d", "wrong", "4")])


def test_files_that_others_may_use_are_named_and_those_that_are_not_there_are_not(tmp_path: Path) -> None:
    open_, closed = tmp_path / "open", tmp_path / "closed"
    open_.touch(mode=0o640)
    open_.chmod(0o640)
    closed.touch(mode=0o600)
    found = list(look_at_private("keys", [open_, closed, tmp_path / "absent"]))
    assert [(f.verdict, f.seen) for f in found] == [
        ("wrong", f"others may use {open_} (mode 0640)"),
        ("ok", "1 closed to others"),
    ]
    assert found[0].todo.startswith(f"chmod 600 {open_}")
    assert list(look_at_private("keys", [tmp_path / "absent"])) == []


@pytest.mark.parametrize(("least", "low", "verdict"), [(0, 0, "ok"), (0, 1 << 62, "warning"), (1 << 62, 0, "wrong")])
def test_the_disk_is_judged_by_its_room_also_of_what_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, low: int, verdict: str
) -> None:
    monkeypatch.setattr(findings, "LEAST_BYTES", least)
    monkeypatch.setattr(findings, "LOW_BYTES", low)
    (found,) = look_at_disk("disk", tmp_path / "a" / "b")
    assert (found.verdict, found.seen.endswith(str(tmp_path))) == (verdict, True)
