"""What is compared of two releases' answers: what failed, their types, and the shape of their JSON; never values."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.checks.kit import answers
from tasks.checks.kit.answers import Observed, compare_answers, shape_differences, shape_of
from tasks.checks.kit.baseline import Baseline, BaselineError, SeenAnswers

DIFFERENT: list[tuple[list[Any], list[Any], list[str]]] = [
    ([{"id": 1, "at": "08:00"}], [{"id": 2, "at": "09:00"}], []),
    ([{"id": 1}], [{"id": "1"}], ["json.id is a text instead of a number"]),
    ([{"id": 1}], [{}], ["json.id is missing"]),
    ([{"id": 1}, {}], [{}], []),
    ([{"id": 1}], [{"id": None}], []),
    ([{"id": None}], [{"id": 1, "more": True}], []),
    ([{"n": 1}], [{"n": 1.5}], []),
    ([{"n": 1}], [{"n": True}], ["json.n is a boolean instead of a number"]),
    ([[1, 2]], [[]], ["json is an empty list; it was not before"]),
    ([[1], []], [[]], []),
    ([{"a": [{"b": 1}, {"c": 2}]}], [{"a": [{"c": 1}]}], []),
    ([{"a": [{"b": 1, "c": 2}]}], [{"a": [{"c": 1}]}], ["json.a[].b is missing"]),
    ([{"a": {"b": {"c": 1}}}], [{"a": {}}], ["json.a.b is missing"]),
    ([{"a": {}}], [{"a": []}], ["json.a is a list instead of an object"]),
    ([{"a.b": 1, "[]": 1}], [{"a": {"b": 1}}], ["json.a\\.b is missing", "json.\\[] is missing"]),
    (["text"], [{}], ["json is an object instead of a text"]),
]


@pytest.mark.parametrize(("was", "now", "told"), DIFFERENT)
def test_shapes_differ_by_what_always_stood_there(was: list[Any], now: list[Any], told: list[str]) -> None:
    assert list(shape_differences(shape_of(*was), shape_of(*now))) == told


def test_a_shape_is_bounded_and_what_was_not_looked_at_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PLACES_LIMIT", 5)
    wide = {str(number): number for number in range(100)}
    assert len(shape_of(wide)) == 5
    assert list(shape_differences(shape_of({"z": 1}), shape_of(wide))) == []
    deep: Any = 1
    for _ in range(50):
        deep = {"a": deep}
    assert len(shape_of(deep)) <= 5


def seen(statuses: dict[int, int], **more: Any) -> SeenAnswers:
    return SeenAnswers(**{"method": "GET", "path": "/a", "declared": 200, "statuses": statuses, **more})


def told(was: SeenAnswers | None, now: SeenAnswers) -> list[str]:
    before = Baseline(bundle="0" * 64, at="now", answers=[was] if was else [])
    return [each.severity for each in compare_answers(before, Observed([now]))]


@pytest.mark.parametrize(
    ("was", "now", "severities"),
    [
        ({200: 6}, {200: 6}, []),
        ({200: 6}, {201: 6}, []),
        ({200: 6}, {200: 5, 500: 1}, ["high"]),
        ({200: 6}, {200: 3, 0: 2}, ["high"]),
        ({200: 3, 500: 3}, {200: 3, 500: 3}, ["medium"]),
        ({200: 3, 500: 3}, {200: 1, 500: 5}, ["medium"]),
        ({200: 5, 500: 1}, {500: 6}, ["high"]),
        ({404: 6}, {404: 6}, ["medium"]),
        ({404: 6}, {500: 6}, ["high"]),
        ({500: 6}, {200: 6}, []),
        (None, {500: 6}, ["high"]),
        (None, {200: 6}, []),
    ],
)
def test_what_fails_is_held_against_how_often_it_failed_before(
    was: dict[int, int] | None, now: dict[int, int], severities: list[str]
) -> None:
    assert told(seen(was) if was else None, seen(now)) == severities


def test_types_and_contents_are_compared_and_sizes_may_differ() -> None:
    page = seen({200: 6}, types=["text/html"], least_bytes=10, most_bytes=20)
    assert told(page, page.model_copy(update={"least_bytes": 400, "most_bytes": 500})) == []
    assert told(page, page.model_copy(update={"types": ["text/plain"]})) == ["medium"]
    assert told(page, page.model_copy(update={"least_bytes": 0, "most_bytes": 0})) == ["medium"]
    json = seen({200: 6}, types=["application/json"], least_bytes=2, most_bytes=2, shape={"json": "object"})
    assert told(json, json.model_copy(update={"shape": None, "not_json": "no valid JSON (x)"})) == ["high"]


def test_a_baseline_is_read_as_it_was_kept_and_another_is_refused() -> None:
    noted = Baseline(bundle="0" * 64, at="now", answers=[seen({200: 6}, shape={"json": "object"})])
    assert Baseline.read(noted.document()) == noted
    for document in ({}, {"format": "ashat-baseline/2"}, {**noted.document(), "answers": 1}):
        with pytest.raises(BaselineError):
            Baseline.read(document)
