"""The search of a bundle's files: what is remembered, what comes first, what ran out of time, and large files."""

from __future__ import annotations

import gzip
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ashat.bundle.manifest import Manifest
from ashat.verification.policy import Policy
from tasks.checks import CheckContext, run_check
from tasks.checks.kit.base import OutOfTimeError
from tasks.checks.scan import containers, search
from tasks.checks.scan.containers import Opening, members
from tasks.checks.scan.search import Scan, examine, more_seconds, search_for_secrets
from tasks.checks.scan.searched import Searched
from tasks.checks.security import SecurityCheck
from tests.corpus.case import context_of
from tests.corpus.hiding import LINE, NOISE, tarred, zipped
from tests.corpus.tokens import TOKENS

FILES: dict[str, bytes | str] = {"a.py": "x = 1\n", "b.py": "y = 2\n", "c.yml": LINE}


@pytest.fixture
def memory(tmp_path: Path) -> Searched:
    return Searched(tmp_path / "searched.db", "rules-1")


def searched(context: CheckContext, memory: Searched) -> tuple[int, int, list[str]]:
    scan = search_for_secrets(context, memory)
    return scan.files, scan.before, [each.path for each in scan.findings if each.severity != "low"]


def test_what_had_nothing_is_not_searched_again_and_what_had_something_is(memory: Searched) -> None:
    assert searched(context_of(FILES), memory) == (4, 0, ["c.yml"])
    assert searched(context_of(FILES), memory) == (1, 3, ["c.yml"])
    changed = {**FILES, "a.py": f"x = '{TOKENS['GitHub token']}'\n", "moved/b.py": FILES["b.py"]}
    assert searched(context_of(changed), memory) == (2, 2, ["a.py", "c.yml"])


def test_other_rules_search_everything_anew(memory: Searched, tmp_path: Path) -> None:
    searched(context_of(FILES), memory)
    assert searched(context_of(FILES), Searched(tmp_path / "searched.db", "rules-2"))[:2] == (4, 0)
    assert searched(context_of(FILES), Searched(tmp_path / "searched.db", "rules-2"))[:2] == (1, 3)


@pytest.mark.parametrize("broken", [b"no database", b"SQLite format 3\0" + NOISE])
def test_a_broken_memory_is_none(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "searched.db").write_bytes(broken)
    for _ in range(2):
        assert searched(context_of(FILES), Searched(tmp_path / "searched.db", "rules-1")) == (4, 0, ["c.yml"])


def test_a_search_that_runs_out_of_time_goes_on_where_it_was(memory: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([1.0] * 4 + [0.0] * 100)

    def time_left(context: CheckContext) -> float:
        if not (seconds := next(left)):
            raise OutOfTimeError("over")
        return seconds

    monkeypatch.setattr(search, "_time_left", time_left)
    first = search_for_secrets(context_of({f"{n}.py": f"x = {n}\n" for n in range(9)}), memory)
    monkeypatch.setattr(search, "_time_left", lambda context: 60.0)
    again = search_for_secrets(context_of({f"{n}.py": f"x = {n}\n" for n in range(9)}), memory)
    assert first.late == 10 - first.files > 0
    assert (again.files, again.before, again.late) == (first.late, first.files, 0)


def test_out_of_time_is_inconclusive_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Scan(files=3, before=4, late=5, late_bytes=2_000_000)
    monkeypatch.setattr("tasks.checks.security.search_for_secrets", lambda context: scan)
    context = replace(context_of(FILES), policy=Policy(advisories="off"))
    monkeypatch.setattr("tasks.checks.security._connection_to_the_node", lambda *_: ())
    monkeypatch.setattr("tasks.checks.security.loose_modes", lambda _: ())
    monkeypatch.setattr("tasks.checks.security.shown_by_the_program", lambda _: ())
    monkeypatch.setattr(type(context.public), "tree", lambda _: None, raising=False)
    result = run_check(SecurityCheck(), context)
    assert result.outcome == "inconclusive"
    assert "5 of 12 files (2.0 MB) not searched" in result.seen
    assert "time_limits.security" in result.seen


def test_the_limit_grows_with_the_bundle_unless_the_policy_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    good = SecurityCheck().result("pass", "seen")
    monkeypatch.setattr(SecurityCheck, "run", lambda _, context: asked.append(context.time_limit) or good)
    monkeypatch.setattr(SecurityCheck, "more_seconds", lambda *_: 30.0)
    run_check(SecurityCheck(), context_of(FILES))
    run_check(SecurityCheck(), replace(context_of(FILES), policy=Policy(time_limits={"security": 7}), time_limit=7))
    assert asked == [90.0, 7]
    files = [replace(context_of(FILES).manifest.files[0], path=f"{number}") for number in range(65_000)]
    assert 30 < more_seconds(Manifest.from_files(files)) < 40


def test_a_file_too_large_to_be_held_is_searched_part_by_part(
    memory: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "HELD_LIMIT", 1_000)
    files = {"a.log": "nothing\n" * 500 + LINE + "nothing\n" * 500, "b.gz": gzip.compress(NOISE) + b""}
    scan = search_for_secrets(context_of(files), memory)
    found = {(each.severity, each.rule, each.path) for each in scan.findings}
    assert found == {("high", "secret", "a.log"), ("medium", "unsearched", "b.gz")}
    assert "a.log, line 501: GitHub Token" in next(each.text for each in scan.findings if each.path == "a.log")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("many.zip", zipped({f"{n}": "x" for n in range(40)}), "files inside"),
        ("large.gz", gzip.compress(bytes(300_000)), "MB of it, unpacked"),
        ("deep.zip", zipped({"a.zip": zipped({"b.zip": zipped({"c.zip": zipped({"d": "x"})})})}), "deep"),
        ("cut.tgz", tarred({"a": NOISE * 4}, "w:gz")[:-3_000], "it ends before its end"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + NOISE, "a 7z archive, which is not opened"),
    ],
)
def test_what_was_not_opened_is_named(name: str, content: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MEMBER_LIMIT", 100_000)
    monkeypatch.setattr(containers, "DEPTH_LIMIT", 3)
    monkeypatch.setattr(containers, "MEMBERS_LIMIT", 30)
    opening = Opening(members=30)
    for _ in members(content, opening, name):
        pass
    assert why in " ".join(opening.unopened.values())
    assert all(place.startswith(name) for place in opening.unopened)


def test_an_encrypted_member_is_named() -> None:
    content = bytearray(zipped({"a.txt": "x", "b.txt": LINE}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + offset] |= 1
    opening = Opening()
    assert [place for place, _ in members(bytes(content), opening, "a.zip")] == ["a.zip!b.txt"]
    assert opening.unopened == {"a.zip!a.txt": "it is encrypted"}


def test_a_place_inside_is_said_with_its_line() -> None:
    content = zipped({"conf/a.yml": "one\ntwo\n" + LINE})
    found = examine("app.jar", content, lambda: 60.0)
    assert [(place, secret.line, secret.kind) for place, secret in found.secrets] == [
        ("app.jar!conf/a.yml", 3, "GitHub Token")
    ]


def test_ten_thousand_files_are_remembered_quickly(memory: Searched) -> None:
    digests = [f"{number:064x}" for number in range(10_000)]
    began = time.process_time()
    memory.remember(digests)
    assert memory.clean([*digests, "f" * 64]) == set(digests)
    assert time.process_time() - began < 5
