"""A backup's file: what comes back is what went in, and what is damaged, newer or foreign is refused in a line."""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ashat.backup.backup_file import (
    HEADER_LIMIT,
    copy_sqlite,
    files_below,
    put_in_place,
    read_backup,
    staging_beside,
    write_backup,
)
from ashat.errors import BackupError, UsageError
from tests.unit.bundle.test_artifacts import member, tar_of


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    root = tmp_path / "staged"
    (root / "trust/keys").mkdir(parents=True)
    (root / "trust/keys/kim.pem").write_bytes(os.urandom(300_000))
    (root / "trust/keys/kim.pem").chmod(0o600)
    (root / "empty").touch()
    (root / "link").symlink_to("/etc/passwd")
    (root / ("a" * 120)).write_text("a long name")
    return root


@pytest.fixture
def written(staged: Path, tmp_path: Path) -> Path:
    write_backup(tmp_path / "a.backup", staged, "home", with_secrets=True, facts={"events": 3})
    return tmp_path / "a.backup"


def restored(source: Path, tmp_path: Path, name: str = "into") -> Path:
    into = tmp_path / name
    into.mkdir()
    read_backup(source, into, "home")
    return into


def test_what_is_read_is_what_was_written_with_its_permissions(staged: Path, written: Path, tmp_path: Path) -> None:
    assert written.stat().st_mode & 0o777 == 0o600
    into = restored(written, tmp_path)
    assert list(files_below(into)) == list(files_below(staged))
    assert len(list(files_below(into))) == 3
    for path in files_below(staged):
        assert (into / path).read_bytes() == (staged / path).read_bytes()
        assert (into / path).stat().st_mode == (staged / path).stat().st_mode
    assert not (into / "link").exists()


def test_no_backup_is_overwritten_and_nothing_is_left_beside_one(staged: Path, written: Path, tmp_path: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        write_backup(written, staged, "home", with_secrets=True, facts={})
    assert written.read_bytes() == before
    with pytest.raises(BackupError, match="cannot be written"):
        write_backup(tmp_path / "missing/a.backup", staged, "home", with_secrets=True, facts={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.backup", "staged"]


def damage(at: float) -> Callable[[bytes], bytes]:
    def damaged(raw: bytes) -> bytes:
        place = int(len(raw) * at)
        return raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :]

    return damaged


@pytest.mark.parametrize(
    "spoil",
    [
        damage(0.5),
        damage(0.9),
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:100],
        lambda raw: b"",
        lambda raw: b"no backup at all",
        lambda raw: gzip.compress(gzip.decompress(raw).replace(b"a long name", b"a lost name")),
        lambda raw: gzip.compress(gzip.decompress(raw).replace(b"backup.json", b"backap.json")),
        lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"size":300000', b'"size":300001')),
        lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"kind":"home"', b'"kind":"hone"')),
        lambda raw: gzip.compress(gzip.decompress(raw).replace(b"trust/keys/kim.pem", b"../../../../kim.pe")),
        lambda raw: gzip.compress(tar_of(member("backup.json", b" " * (HEADER_LIMIT + 1)))),
        lambda raw: gzip.compress(tar_of(member("backup.json", b"[" * 10_000))),
    ],
)
def test_a_damaged_backup_is_refused_in_a_line(spoil: Callable[[bytes], bytes], written: Path, tmp_path: Path) -> None:
    written.write_bytes(spoil(written.read_bytes()))
    with pytest.raises(BackupError) as raised:
        restored(written, tmp_path)
    assert re.fullmatch(r"\S+a\.backup is no backup that can be read \(.*\); nothing was changed\.", str(raised.value))
    assert not (tmp_path.parent / "kim.pe").exists()


def test_a_newer_or_another_backup_says_what_reads_it(written: Path, tmp_path: Path) -> None:
    raw = gzip.decompress(written.read_bytes())
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BackupError, match="is the backup of a home: deploy restore puts it back"):
        read_backup(written, into, "node")
    written.write_bytes(gzip.compress(raw.replace(b"ashat-backup/1", b"ashat-backup/2")))
    with pytest.raises(BackupError, match=r"by a newer version .* \(ashat-backup/2; this one reads ashat-backup/1"):
        read_backup(written, into, "home")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_backup(tmp_path / "nothing", into, "home")
    assert list(into.iterdir()) == []


def test_a_database_is_copied_as_it_is_at_one_moment_while_it_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    writing = sqlite3.connect(source)
    writing.execute("PRAGMA journal_mode=WAL")
    writing.execute("CREATE TABLE t (n)")
    writing.execute("INSERT INTO t VALUES (1)")
    writing.commit()
    writing.execute("INSERT INTO t VALUES (2)")  # not committed
    copy_sqlite(source, target)
    writing.commit()
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]
    assert target.stat().st_mode & 0o777 == 0o600
    (tmp_path / "odd.db").write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    with pytest.raises(BackupError, match=r"odd\.db (cannot be copied|is damaged)"):
        copy_sqlite(tmp_path / "odd.db", tmp_path / "c.db")


def test_what_was_staged_takes_an_empty_place_only(tmp_path: Path) -> None:
    target = tmp_path / "home"
    with staging_beside(target) as staged:
        (staged / "a").write_text("x")
        target.mkdir()
        put_in_place(staged, target)
    assert (target / "a").read_text() == "x"
    with staging_beside(target) as staged, pytest.raises(UsageError, match="is not empty"):
        put_in_place(staged, target)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
