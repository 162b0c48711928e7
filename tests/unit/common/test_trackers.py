"""Keys of tasks are found where they stand for themselves, and what the variable of trackers holds is not trusted."""

from __future__ import annotations

import pytest

from ashat.common.trackers import MOST, Tracker, as_variable, is_task_key, keys_in, spelled, trackers_of

GITHUB = Tracker("raos-github-tracker/issues", "github", ("#", "GH-"))
JIRA = Tracker("raos-jira-tracker/work", "jira", ("PROJ-", "OPS-"))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("Fix the chat (#12), closes GH-13", ["#12", "#13"]),
        ("GH-12 is #12", ["#12"]),
        ("PROJ-7: say it louder; see OPS-3.", ["PROJ-7", "OPS-3"]),
        ("Merge branch 'PROJ-12-fix-login'", ["PROJ-12"]),
        ("other/repository#12 and https://example.com/page#12 and &#12;", []),
        ("XPROJ-7, PROJ-7a, PROJ-0, #0, #x, PROJ-, proj-7", []),
        ("#12345678901", []),
        ("#1\n#2\r\n#1", ["#1", "#2"]),
    ],
)
def test_keys_are_found_where_they_stand_for_themselves(text: str, keys: list[str]) -> None:
    assert sorted(keys_in(text, [GITHUB, JIRA])) == sorted(keys)


def test_a_key_is_spelled_as_its_tracker_does() -> None:
    assert [spelled(key, [GITHUB, JIRA]) for key in ("GH-12", "#12", "PROJ-12", "ABC-1")] == [
        *("#12", "#12", "PROJ-12", "ABC-1"),
    ]
    assert (JIRA.claims("PROJ-12"), JIRA.claims("PROJ-12 OPS-1"), JIRA.claims("see PROJ-12")) == ("PROJ-12", "", "")


@pytest.mark.parametrize("key", ["#12", "GH-12", "PROJ-12", "group/project#12", "a", "1", "x" * 64])
def test_what_may_be_a_key(key: str) -> None:
    assert is_task_key(key)


@pytest.mark.parametrize("key", ["", "#", "-1", "a b", "a\n", "x" * 65, "../x/", "Ärger-1", "\u202e1", "a;b"])
def test_what_may_not_be_one(key: str) -> None:
    assert not is_task_key(key)


def test_what_the_variable_holds_is_read_as_far_as_it_is_a_tracker() -> None:
    assert trackers_of(as_variable([GITHUB, JIRA])) == [GITHUB, JIRA]
    wrong = [
        *(None, 7, "x", {}, {"block": "x/y", "kind": "github"}, {"block": "x", "kind": "jira", "prefixes": ["X-"]}),
        *(
            {"block": "x/y", "kind": "pigeon", "prefixes": ["#"]},
            {"block": "x/y", "kind": "jira", "prefixes": [7, "("]},
        ),
    ]
    assert trackers_of({"trackers": wrong}) == []
    assert trackers_of(None) == trackers_of({"trackers": {}}) == []
    many = [{**as_variable([JIRA])["trackers"][0], "block": f"a/{number}"} for number in range(1000)]
    assert len(trackers_of({"trackers": many})) == MOST


def test_a_text_of_a_stranger_is_searched_in_linear_time() -> None:
    for text in ("PROJ-" * 200_000, "#" * 1_000_000, "PROJ-1" * 150_000, "#1" * 500_000):
        assert len(keys_in(text, [GITHUB, JIRA])) <= 1
