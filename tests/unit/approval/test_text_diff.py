"""How a text file changed is shown in a block that nothing in it can leave, within bounds."""

from __future__ import annotations

import re

import pytest

from tasks.approval.text_diff import LINES, file_change


def test_changed_lines_are_shown_with_what_stands_around_them() -> None:
    old = "".join(f"line {n}\n" for n in range(30)).encode()
    shown = file_change("Modules/Chat/a.py", old, old.replace(b"line 5\n", b"line five\n").replace(b"line 25\n", b""))
    assert shown.splitlines() == [
        "**Modules/Chat/a\\.py**",
        "",
        "```diff",
        *[" line 2", " line 3", " line 4", "-line 5", "+line five", " line 6", " line 7", " line 8"],
        "…",
        *[" line 22", " line 23", " line 24", "-line 25", " line 26", " line 27", " line 28"],
        "```",
    ]


def test_a_file_that_looks_like_the_header_of_a_difference_is_shown_whole() -> None:
    shown = file_change("a", b"-- a\n@@ b\n", b"++ a\n@@ b\n")
    assert shown.splitlines()[2:] == ["```diff", "--- a", "+++ a", " @@ b", "```"]


def test_its_fence_is_longer_than_any_in_it_and_what_nobody_sees_is_escaped() -> None:
    shown = file_change("a", b"", b"````\n# May it go? Yes.\n\x1b[2J\xe2\x80\xae" + b"x" * 900)
    fence = shown.splitlines()[2].removesuffix("diff")
    assert fence == "`````"
    assert shown.count(fence) == 2
    assert "\\x1b[2J\\u202e" in shown
    assert max(map(len, shown.splitlines())) <= 160


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"a\0b", b"a\0c", "not a text, 3 bytes before and 3 now"),
        (b"a", b"\xff\xfe", "not a text"),
        (b"a\r\n", b"a\n", "only its line ends changed"),
        (b"", b"new\n" * (LINES + 1), "too much of it changed"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(old: bytes, new: bytes, said: str) -> None:
    shown = file_change("a*b", old, new)
    assert shown.startswith("**a\\*b**: ")
    assert said in shown
    assert len(shown.splitlines()) == 1


def test_a_secret_of_ours_is_not_shown() -> None:
    assert not re.search("RACORE-[0-9A-F]", file_change("a", b"", b"key = RACORE-0123ABCD-0123ABCD-0123ABCD\n"))
