"""Why a question is put again is said as the world is when it is put."""

from __future__ import annotations

import pytest

from tasks.approval.request import World, _still_true


@pytest.mark.parametrize(
    ("reason", "obstacle", "said"),
    [
        (
            "since then, production does not answer: x",
            "",
            "what stood in the way is over: production does not answer: x",
        ),
        ("since then, production does not answer: x", "it does not", "since then, production does not answer: x"),
        ("the policy is another one", "", "the policy is another one"),
        ("", "", ""),
    ],
)
def test_what_came_in_between_and_is_over_is_said_to_be_over(reason: str, obstacle: str, said: str) -> None:
    assert _still_true(reason, World(None, obstacle, None)) == said
