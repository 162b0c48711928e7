"""Tables: whatever is in them, no line is wider than the terminal, and nothing is lost."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.cli.terminal import output

CELL = st.text(st.sampled_from("ab-9 漢字é✅⚠\ufe0f\u0301\x1b\n"), max_size=60)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), max_size=4)))
def test_no_line_is_wider_than_it_may_be_and_nothing_is_lost(rows: list[list[str]]) -> None:
    lines = output.columns(rows, width=40)
    assert all(output.width_of(line) <= 40 for line in lines)
    shown = "".join("".join(lines).split())
    assert shown == "".join("".join(output.clean(cell) for row in rows for cell in row).split())


def test_a_row_that_fits_is_one_line_and_a_long_one_is_folded_below_itself() -> None:
    rows = [("✅", "UPD-1", "short"), ("❌", "UPD-2", "a reason of many words that is not to be cut off anywhere")]
    assert output.columns(rows, width=60) == [
        "  ✅  UPD-1  short",
        "  ❌  UPD-2  a reason of many words that is not to be cut",
        "             off anywhere",
    ]
    assert output.columns(rows, width=40)[1:] == [
        "  ❌  UPD-2",
        "      a reason of many words that is not",
        "      to be cut off anywhere",
    ]


@pytest.mark.parametrize(("columns", "width"), [("", 80), ("132", 132), ("12", 60), ("nonsense", 80)])
def test_the_width_is_that_of_columns_else_of_the_terminal_else_80(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: (_ for _ in ()).throw(OSError()))
    assert output.terminal_width() == width
