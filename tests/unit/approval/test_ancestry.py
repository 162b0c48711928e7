"""Whether a release may undo what runs: said from what is known of the two commits, and of the files beside them."""

from __future__ import annotations

import pytest

from ashat.protocol.messages import Source
from ashat.protocol.origins import Differences, DifferingFiles, compared_in_words
from tasks.approval.release import may_be_undone

THEIRS = Source(name="raos", commit="a" * 40)
OURS = Source(name="raos", commit="b" * 40)
UNKNOWN = "whose commit is not known to be an ancestor of this one"
UNCOMMITTED = "which has files that are in no commit"


def changed(source: Source, **values: object) -> Source:
    return source.model_copy(update=values)


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (changed(OURS, contains=("a" * 40,)), THEIRS, ""),
        (changed(OURS, contains=("a" * 40,), history_cut=True), THEIRS, ""),
        (THEIRS, THEIRS, ""),
        (changed(THEIRS, dirty=True), THEIRS, ""),
        (THEIRS, changed(THEIRS, dirty=True), UNCOMMITTED),
        (changed(OURS, contains=("a" * 40,)), changed(THEIRS, dirty=True), UNCOMMITTED),
        (OURS, THEIRS, UNKNOWN),
        (OURS, changed(THEIRS, commit=None), UNKNOWN),
        (changed(OURS, commit=None), changed(THEIRS, commit=None), UNKNOWN),
        (None, THEIRS, UNKNOWN),
        (OURS, None, UNKNOWN),
        (changed(OURS, history_cut=True), changed(THEIRS, commit=None), UNKNOWN),
    ],
)
def test_what_may_be_undone_is_said_as_far_as_it_is_known(
    ours: Source | None, theirs: Source | None, told: str
) -> None:
    assert may_be_undone(ours, theirs) == told


def test_from_a_shallow_clone_nobody_can_tell() -> None:
    told = may_be_undone(changed(OURS, history_cut=True), THEIRS)
    assert told.startswith("and nobody can tell whether this commit builds on its commit")
    assert "git fetch --unshallow" in told


def test_in_short_a_commit_is_named_with_whether_there_are_changes_beside_it() -> None:
    two = Differences(changed=DifferingFiles(count=2, names=("a", "b")))
    assert OURS.in_short == "commit bbbbbbbbbbbb"
    assert changed(OURS, commit=None, dirty=True).in_short == ""
    assert changed(OURS, dirty=True).in_short == "commit bbbbbbbbbbbb, with uncommitted changes"
    assert changed(OURS, dirty=True, differences=two).in_short == "commit bbbbbbbbbbbb, with uncommitted changes (2)"


@pytest.mark.parametrize(
    ("dirty", "differences", "told"),
    [
        (False, None, ", not compared file by file"),
        (True, None, ", with uncommitted changes"),
        (False, Differences(), ", file by file"),
        (False, Differences(converted=2), ", file by file (2 as its attributes have them checked out)"),
        (
            False,
            Differences(converted=1, directories=3),
            ", file by file (1 as its attributes have them checked out; besides, 3 empty directories, which git does "
            "not keep)",
        ),
        (
            True,
            Differences(missing=DifferingFiles(count=1, names=("a",))),
            ", but 1 file is not as it has it (1 missing: a)",
        ),
    ],
)
def test_how_files_are_those_of_a_commit_is_said_as_it_was_looked_at(
    dirty: bool, differences: Differences | None, told: str
) -> None:
    assert compared_in_words(dirty, differences) == told
