"""Errors and tracebacks are found in a program's log, whatever language it is in, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ashat.node.app_process.logged_errors import KINDS, find_errors

PYTHON = """Traceback (most recent call last):
  File "/srv/app.py", line 3, in <module>
    main()
    ~~~~^^
ValueError: no such item: 'a-{0}'
"""
CHAINED = (
    PYTHON
    + "\nDuring handling of the above exception, another exception occurred:\n\n"
    + PYTHON.replace("ValueError", "app.errors.OrderError")
)
NODE = "TypeError: Cannot read properties of undefined (reading 'x')\n    at Layer.handle (/a.js:95:5)\n    at next\n"
ONE_LINE = {
    "panic: runtime error: index out of range [3]": "traceback",
    "thread 'main' panicked at src/main.rs:4:5:": "traceback",
    "2026/11/30 08:00:00 [error] 7#7: *1 open() failed": "error",
    '{"level":50,"msg":"lost"}': "error",
    'time=08:00 level=error msg="lost"': "error",
    "ERROR:app:gone": "error",
}
JAVA = (
    "java.lang.IllegalStateException: closed\n\tat org.example.A.b(A.java:12)\n\tat org.example.C.d(C.java:1)\n"
    "Caused by: java.io.IOException: gone\n\tat org.example.E.f(E.java:3)\n\t... 2 more\n"
)
GOOD = """INFO:     127.0.0.1:50412 - "GET /errors HTTP/1.1" 200 OK
2026-11-30 08:00:01 [info] 0 errors, error rate 0.0
127.0.0.1 - - [30/Nov/2026:08:00:00 +0000] "GET /ERROR/500 HTTP/1.1" 200 12
{"level":30,"msg":"no error here"}
level=info msg="an error was not seen"
ERROR_LOG=/var/log/x
    at midnight the cache is emptied
"""


def kinds(tmp_path: Path, text: str, since: int = 0) -> list[tuple[str, str, int]]:
    log = tmp_path / "app.log"
    log.write_text(text, encoding="utf-8")
    return [(each.kind, each.text, each.count) for each in find_errors(log, since, str).errors]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PYTHON, [("traceback", "ValueError: no such item: 'a-{0}'", 1)]),
        (PYTHON.format(1) + PYTHON.format(22), [("traceback", "ValueError: no such item: 'a-1'", 2)]),
        (
            CHAINED,
            [
                ("traceback", "ValueError: no such item: 'a-{0}'", 1),
                ("traceback", "app.errors.OrderError: no such item: 'a-{0}'", 1),
            ],
        ),
        (NODE, [("traceback", "TypeError: Cannot read properties of undefined (reading 'x')", 1)]),
        (JAVA, [("traceback", "java.lang.IllegalStateException: closed", 1)]),
        *((f"{line}\n", [(kind, line, 1)]) for line, kind in ONE_LINE.items()),
        (GOOD, []),
    ],
)
def test_each_language_is_understood(tmp_path: Path, text: str, expected: list[tuple[str, str, int]]) -> None:
    assert kinds(tmp_path, text) == expected


def test_only_what_came_after_counts_unless_the_log_was_cut_since(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(PYTHON + GOOD)
    assert find_errors(log, len(PYTHON), str).count == 0
    assert find_errors(log, 10_000_000, str).count == 1
    assert find_errors(log, 0, str).position == len(PYTHON + GOOD)
    assert find_errors(tmp_path / "none", 0, str).count == 0


def test_many_kinds_are_counted_and_the_first_listed(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    words = [f"{first}{second}{third}" for first in "ghijklm" for second in "ghijklm" for third in "ghijklm"]
    log.write_text("".join(f"ERROR {word}\n" for word in words))
    found = find_errors(log, 0, lambda line: line.replace("ggg", "***"))
    assert (len(found.errors), found.left_out, found.count) == (KINDS, len(words) - KINDS, len(words))
    assert found.errors[0].text == "ERROR ***"
