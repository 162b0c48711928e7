"""What a machine lacks is told in the same words, whoever refused: the system, SQLite, or SQLAlchemy above it."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from ashat.common.shortage import Kind, reason, shortage
from ashat.errors import AshatError


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def sqlite_failure(path: Path, statement: str) -> sqlite3.Error:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE things (thing TEXT)")
    connection.execute("PRAGMA max_page_count=2")
    connection.execute("PRAGMA query_only=ON" if statement == "readonly" else "SELECT 1")
    try:
        with connection:
            connection.execute("INSERT INTO things VALUES (?)", ("x" * 100_000,))
    except sqlite3.Error as error:
        return error
    finally:
        connection.close()
    raise AssertionError("SQLite took it")


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, Kind.FULL, "the disk is full"),
        (errno.EDQUOT, Kind.FULL, "the quota of the disk is used up"),
        (errno.EROFS, Kind.READ_ONLY, "the disk is read-only"),
        (errno.EMFILE, Kind.OPEN, "this process has as many files open as it may"),
        (errno.ENFILE, Kind.OPEN, "this machine has as many files open as it may"),
        (errno.EIO, Kind.FAILED, "the disk failed (Input/output error)"),
    ],
)
def test_what_the_system_refuses_is_named(number: int, kind: Kind, words: str) -> None:
    found = shortage(failure(number))
    assert found is not None
    assert (found.kind, found.words) == (kind, words)
    assert str(found)[:4] == words.capitalize()[:4]
    assert str(found).endswith(".")


def test_a_full_database_is_a_full_disk(tmp_path: Path) -> None:
    assert reason(sqlite_failure(tmp_path / "a.db", "")) == "the disk is full"
    assert reason(sqlite_failure(tmp_path / "b.db", "readonly")) == "the disk is read-only"


def test_what_sqlalchemy_and_our_errors_wrap_is_found(tmp_path: Path) -> None:
    error = sqlite_failure(tmp_path / "a.db", "")
    assert shortage(sa.exc.OperationalError("INSERT", {}, error)) is not None
    wrapped = AshatError("It does not go.")
    wrapped.__cause__ = error
    assert shortage(wrapped) is not None
    assert reason(wrapped) == "It does not go."


def test_other_failures_keep_their_own_words(tmp_path: Path) -> None:
    assert shortage(failure(errno.ENOENT)) is None
    assert shortage(sqlite3.IntegrityError("no")) is None
    assert reason(FileNotFoundError(errno.ENOENT, "No such file", "a")) == "No such file (a)"
    assert reason(ValueError("odd")) == "odd"
    assert reason(ValueError()) == "ValueError"


def test_the_disk_is_named_where_it_is_known(tmp_path: Path) -> None:
    found = shortage(failure(errno.ENOSPC), tmp_path)
    assert found is not None
    assert found.words == f"the disk of {tmp_path} is full"


def test_what_sqlite_does_not_say_is_only_told_where_the_disk_can_be_looked_at(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    assert (shortage(error), reason(error)) == (None, "disk I/O error")
    assert reason(error, tmp_path) == f"the disk of {tmp_path} failed (Input/output error)", "for it has room"
