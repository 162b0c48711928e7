"""How many Mainframes run a release, in words."""

from __future__ import annotations

import pytest

from ashat.deployment.events import MainframeOutcome
from ashat.deployment.reach import Reach


def outcomes(running: int, failed: int, missing: int = 0) -> list[MainframeOutcome]:
    made = [MainframeOutcome(id=f"r{n}", name=f"R{n}", result="running") for n in range(running)]
    made += [MainframeOutcome(id=f"f{n}", name=f"F{n}", result="failed", reason="full") for n in range(failed)]
    return [*made, *(MainframeOutcome(id=f"m{n}", name=f"M{n}", result="missing") for n in range(missing))]


@pytest.mark.parametrize(
    ("found", "words", "whole", "nobody"),
    [
        (outcomes(0, 0), "no Mainframe is licensed", True, False),
        (outcomes(1, 0), "1 of 1 Mainframe runs it", True, False),
        (outcomes(2, 0), "2 of 2 Mainframes run it", True, False),
        (outcomes(1, 1), "1 of 2 Mainframes run it: F0 failed (full)", False, False),
        (outcomes(0, 1, 1), "0 of 2 Mainframes run it: F0 failed (full), M0 missing", False, True),
        (
            outcomes(1, 9),
            "1 of 10 Mainframes run it: F0 failed (full), F1 failed (full), F2 failed (full), and 6 more",
            False,
            False,
        ),
    ],
)
def test_the_words_count_and_name_the_others(
    found: list[MainframeOutcome], words: str, whole: bool, nobody: bool
) -> None:
    reach = Reach.of(found)
    assert (reach.words, reach.whole, reach.nobody) == (words, whole, nobody)
