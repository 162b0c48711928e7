"""Each way in which the rollback rehearsal must fail, on a real node: what it says, and that it stops there."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ashat.errors import AshatError
from tasks.checks.kit.base import CheckResult
from tasks.selftest.faults.base import replace_text
from tasks.selftest.faults.staging import Staging, quick_sample, staging
from tasks.servers.baseline import take_baseline
from tasks.verify.rehearsal import back_and_forth


class Rehearsals:
    """A node on which `new` replaces `old`, each changed as a test wants it."""

    def __init__(self, server: Staging, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.good = quick_sample(directory / "good")

    def rehearse(
        self,
        after_back: Callable[[Path], None] = lambda _: None,
        *,
        old_faults: str = "",
        breaks: str = "",
        old: Callable[[Path], None] = lambda _: None,
        new: Callable[[Path], None] = lambda _: None,
        before: Callable[[Path], None] = lambda _: None,
        noted: bool = True,
    ) -> CheckResult:
        """What the rehearsal says. `after_back` is given the running release's directory once Public went back;
        `breaks` is the way, `back` or `forward`, that does not work. `old` and `new` change the trees, `before` the
        database that the old release runs on; what that answers before the new one came is `noted`."""
        self.server.forget_the_database()
        previous = self.server.run(self._tree("old", old_faults, old))
        before(self.server.data / "app-data" / "raos.db")
        baseline = take_baseline(self.server.context()) if noted else None
        bundle = self.server.run(self._tree("new", "", new))

        def go(way: str, digest: str) -> int:
            if way == breaks:
                raise AshatError("the server is on strike")
            self.server.switch(digest)
            if way == "back":
                after_back((self.server.data / "current").resolve())
            return 7

        context = self.server.context(self.server.client.manifest(previous), baseline=baseline)
        _, result, trees = back_and_forth(context, lambda: go("back", previous), lambda: go("forward", bundle))
        assert [tree.expected == tree.found for tree in trees] == [True] * len(trees)
        return result

    def _tree(self, name: str, faults: str, change: Callable[[Path], None]) -> Path:
        """A release that is new each time, which leaves performance alone."""
        tree = self.directory / name
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(self.good, tree)
        (tree / "note.txt").write_text(f"{name} {os.urandom(8).hex()}\n", encoding="utf-8")
        promises = (tree / "raos.toml").read_text("utf-8")
        begins = promises.index("[performance]")
        ends = promises.find("\n[", begins)
        (tree / "raos.toml").write_text(promises[:begins] + (promises[ends:] if ends > 0 else ""), encoding="utf-8")
        change(tree)
        if faults:
            (tree / "faults.toml").write_text(f'faults = ["{faults}"]\n', encoding="utf-8")
        return tree


@pytest.fixture(scope="module")
def rehearsals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsals]:
    directory = tmp_path_factory.mktemp("rehearsals")
    with staging(directory, {"ASHAT_NODE_DATABASE__TIMEOUT": "10"}) as server:
        yield Rehearsals(server, directory)


def test_a_way_back_that_works_passes(rehearsals: Rehearsals) -> None:
    result = rehearsals.rehearse()
    assert (result.outcome, result.findings) == ("pass", ())
    assert result.series == {"back_ms": [7], "forward_ms": [7]}
    assert result.figures["files_compared"] > 40
    assert (result.figures["endpoints_compared"], result.figures["requests_compared"]) == (6, 36)
    assert result.figures["tables_counted"] == 8
    assert "6 of its endpoints in 36 requests" in result.seen


def said(result: CheckResult) -> list[tuple[str, str]]:
    """The findings that fail or warn."""
    return [(finding.severity, finding.text) for finding in result.findings if finding.severity != "low"]


def test_what_was_not_noted_before_is_not_said_to_be_as_before(rehearsals: Rehearsals) -> None:
    result = rehearsals.rehearse(noted=False)
    assert (result.outcome, [finding.unseen for finding in result.findings]) == ("pass", [True, True])
    assert "answer as it declares" in result.seen


def migrating(*statements: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        (tree / "migrations" / "0004_more.sql").write_text(";\n".join(statements) + ";\n", encoding="utf-8")

    return change


def with_rows(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO accounts VALUES ('kim', x'00', x'00', '2026-01-01')")
        connection.execute("INSERT INTO threads (board, title, author, created_at) VALUES ('help', 'a', 'kim', 'x')")
        connection.execute("INSERT INTO messages (room, author, text, sent_at) VALUES ('lobby', 'kim', 'hi', 'x')")


def test_a_migration_that_breaks_the_release_before_fails_though_it_is_healthy(rehearsals: Rehearsals) -> None:
    result = rehearsals.rehearse(new=migrating("ALTER TABLE threads RENAME TO topics"), before=with_rows)
    assert result.outcome == "fail"
    assert result.seen.startswith(
        "GET /api/forum/boards was answered before the new release came; back on the release before, "
        "6 of 6 requests fail, status 500"
    )
    assert ("medium", "the table threads is gone since the new release came, with its 1 rows") in said(result)


def test_half_of_the_requests_that_fail_are_seen(rehearsals: Rehearsals) -> None:
    def left(release: Path) -> None:
        (rehearsals.server.data / "app-data" / "left").touch()

    def half(tree: Path) -> None:
        replace_text(
            tree,
            "Modules/Chat/__init__.py",
            "    def rooms(request: Request) -> Response:\n",
            "    asked = iter(range(10**6))\n\n"
            "    def rooms(request: Request) -> Response:\n"
            "        if (kernel.database.path.parent / 'left').exists() and next(asked) % 2:\n"
            "            raise ValueError('half')\n",
        )

    result = rehearsals.rehearse(left, old=half)
    assert result.outcome == "fail"
    assert "back on the release before, 3 of 6 requests fail, status 500" in result.seen


def test_what_a_migration_deletes_is_named(rehearsals: Rehearsals) -> None:
    lossy = migrating("DELETE FROM messages", "UPDATE accounts SET created_at = ''", "CREATE TABLE more (id INTEGER)")
    result = rehearsals.rehearse(new=lossy, before=with_rows)
    assert result.outcome == "warn"
    assert said(result) == [
        ("medium", "the column accounts.created_at lost 1 of its 1 values since the new release came"),
        ("medium", "the table messages lost 1 of its 1 rows since the new release came"),
    ]


def test_what_the_release_before_deletes_on_the_way_back_is_named(rehearsals: Rehearsals) -> None:
    def empty(_: Path) -> None:
        with closing(sqlite3.connect(rehearsals.server.data / "app-data" / "raos.db")) as connection, connection:
            connection.execute("DELETE FROM messages")
            connection.execute("DROP TABLE posts")

    result = rehearsals.rehearse(empty, before=with_rows)
    assert result.outcome == "fail"
    assert said(result) == [
        ("high", "the table posts is gone on the way back"),
        ("medium", "the table messages lost 1 of its 1 rows on the way back"),
    ]


def test_a_release_before_that_is_alive_and_never_ready_fails(rehearsals: Rehearsals) -> None:
    result = rehearsals.rehearse(old_faults="not-ready")
    assert result.outcome == "fail"
    assert "/ready does not say within 5 s" in result.seen


def test_what_the_program_wrote_beside_its_files_is_told_and_does_not_fail(rehearsals: Rehearsals) -> None:
    def write(release: Path) -> None:
        release.chmod(0o755)
        (release / "log.txt").write_text("hello", encoding="utf-8")

    result = rehearsals.rehearse(write)
    assert result.outcome == "pass"
    assert [(finding.severity, finding.text) for finding in result.findings] == [
        ("low", "the program wrote log.txt beside its release's files")
    ]


def test_a_file_that_is_not_the_releases_own_fails(rehearsals: Rehearsals) -> None:
    def tamper(release: Path) -> None:
        note = release / "note.txt"
        note.chmod(0o644)
        note.unlink()
        note.write_text("something else\n", encoding="utf-8")

    result = rehearsals.rehearse(tamper)
    assert result.outcome == "fail"
    assert "are not its own: note.txt differs" in result.seen


@pytest.mark.parametrize(
    ("way", "says"),
    [("back", "failed: the server is on strike"), ("forward", "going forward again failed: the server is on strike")],
)
def test_a_switch_that_fails_fails_the_rehearsal(rehearsals: Rehearsals, way: str, says: str) -> None:
    result = rehearsals.rehearse(breaks=way)
    assert result.outcome == "fail"
    assert says in result.seen


@pytest.mark.parametrize(
    ("fault", "says"),
    [("unhealthy-after=30", "is not healthy after the switch"), ("wrong-version=9.4.0", "an old process answers")],
)
def test_a_release_before_that_is_not_itself_fails(rehearsals: Rehearsals, fault: str, says: str) -> None:
    def until_unhealthy(_: Path) -> None:
        if fault.startswith("unhealthy"):
            rehearsals.server.wait_until_unhealthy()

    result = rehearsals.rehearse(until_unhealthy, old_faults=fault)
    assert result.outcome == "fail"
    assert says in result.seen


KEPT = """
[[kept]]
name = "a message"
path = "/api/chat/rooms/lobby/messages"
body = { text = "{value}" }
read = "/api/chat/rooms/lobby/messages"
"""


def keeping(then: Callable[[Path], None] = lambda _: None) -> Callable[[Path], None]:
    """A release that takes a message of anybody, and declares that it keeps it."""

    def change(tree: Path) -> None:
        replace_text(tree, "Modules/Chat/__init__.py", 'kernel.service("accounts").who(request)', '"kim"')
        file = tree / "raos.toml"
        file.write_text(file.read_text("utf-8") + KEPT, encoding="utf-8")
        then(tree)

    return change


def test_values_that_are_written_survive_back_and_forward(rehearsals: Rehearsals) -> None:
    result = rehearsals.rehearse(old=keeping(), new=keeping(), before=with_rows)
    assert (result.outcome, result.findings) == ("pass", ())
    assert (result.figures["values_written"], result.figures["values_read"]) == (3, 8)
    assert "3 written values were read again, 8 times in all" in result.seen


def test_a_value_that_a_migration_loses_fails(rehearsals: Rehearsals) -> None:
    lossy = keeping(migrating("UPDATE messages SET text = 'gone'"))
    result = rehearsals.rehearse(old=keeping(), new=lossy, before=with_rows)
    assert result.outcome == "fail"
    lost = "a message: the value that the release before wrote is lost to the new release at GET /api/chat/rooms"
    assert result.seen.startswith(lost)


def test_a_value_that_only_the_new_release_can_read_fails(rehearsals: Rehearsals) -> None:
    def elsewhere(tree: Path) -> None:
        replace_text(tree, "Modules/Chat/__init__.py", "row = (room, author,", "row = ('new-' + room, author,")
        replace_text(
            tree, "Modules/Chat/__init__.py", "(room, _after(request), PAGE)", "('new-' + room, _after(request), PAGE)"
        )
        migrating("UPDATE messages SET room = 'new-' || room")(tree)

    result = rehearsals.rehearse(old=keeping(), new=keeping(elsewhere), before=with_rows)
    said_of = [text.partition(" at GET")[0] for severity, text in said(result) if severity == "high"]
    assert "a message: the value that the new release wrote is lost to the release before" in said_of
    assert "a message: the value that the release before wrote is lost to the release before" in said_of


def test_a_release_before_that_declares_no_value_is_said_not_to_be_looked_at(rehearsals: Rehearsals) -> None:
    result = rehearsals.rehearse(new=keeping(), before=with_rows)
    assert result.outcome == "pass"
    (found,) = result.findings
    assert (found.unseen, "its raos.toml has no such [[kept]]" in found.text) == (True, True)
