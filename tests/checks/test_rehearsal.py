"""Each way in which the rollback rehearsal must fail, on a real node: what it says, and that it stops there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ashat.errors import AshatError
from tasks.checks.kit.base import CheckResult
from tasks.selftest.faults.staging import Staging, quick_sample, staging
from tasks.verify.rehearsal import back_and_forth


class Rehearsals:
    """A node on which `new` replaces `old`, each changed as a test wants it."""

    def __init__(self, server: Staging, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.good = quick_sample(directory / "good")

    def rehearse(
        self, after_back: Callable[[Path], None] = lambda _: None, *, old_faults: str = "", breaks: str = ""
    ) -> CheckResult:
        """What the rehearsal says. `after_back` is given the running release's directory once Public went back;
        `breaks` is the way, `back` or `forward`, that does not work."""
        previous = self.server.run(self._tree("old", old_faults))
        bundle = self.server.run(self._tree("new", ""))

        def go(way: str, digest: str) -> int:
            if way == breaks:
                raise AshatError("the server is on strike")
            self.server.switch(digest)
            if way == "back":
                after_back((self.server.data / "current").resolve())
            return 7

        context = self.server.context(self.server.client.manifest(previous))
        _, result, trees = back_and_forth(context, lambda: go("back", previous), lambda: go("forward", bundle))
        assert [tree.expected == tree.found for tree in trees] == [True] * len(trees)
        return result

    def _tree(self, name: str, faults: str) -> Path:
        """A release that is new each time, which leaves performance alone."""
        tree = self.directory / name
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(self.good, tree)
        (tree / "note.txt").write_text(f"{name} {os.urandom(8).hex()}\n", encoding="utf-8")
        promises = (tree / "raos.toml").read_text("utf-8")
        begins = promises.index("[performance]")
        ends = promises.find("\n[", begins)
        (tree / "raos.toml").write_text(promises[:begins] + (promises[ends:] if ends > 0 else ""), encoding="utf-8")
        if faults:
            (tree / "faults.toml").write_text(f'faults = ["{faults}"]\n', encoding="utf-8")
        return tree


@pytest.fixture(scope="module")
def rehearsals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsals]:
    directory = tmp_path_factory.mktemp("rehearsals")
    with staging(directory) as server:
        yield Rehearsals(server, directory)


def test_a_way_back_that_works_passes(rehearsals: Rehearsals) -> None:
    result = rehearsals.rehearse()
    assert (result.outcome, result.findings) == ("pass", ())
    assert result.series == {"back_ms": [7], "forward_ms": [7]}
    assert result.figures["files_compared"] > 40


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
    [("unhealthy-after=3", "is not healthy after the switch"), ("wrong-version=9.4.0", "an old process answers")],
)
def test_a_release_before_that_is_not_itself_fails(rehearsals: Rehearsals, fault: str, says: str) -> None:
    def until_unhealthy(_: Path) -> None:
        if fault.startswith("unhealthy"):
            rehearsals.server.wait_until_unhealthy()

    result = rehearsals.rehearse(until_unhealthy, old_faults=fault)
    assert result.outcome == "fail"
    assert says in result.seen
