"""The corpus of small faults and of good variants that look bad: what is found, as docs/checks.md says."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.corpus import LEAST, measure, table
from scripts.dependencies import ROOT
from tests.corpus import cases


@pytest.fixture(scope="module")
def measured() -> dict[str, object]:
    return measure()


def test_faults_are_found_and_good_variants_are_left_alone(measured: dict[str, float]) -> None:
    assert measured["recall"] >= LEAST, measured["missed"]
    assert measured["precision"] >= LEAST, measured["missed"]


def test_every_kind_is_found_by_itself(measured: dict[str, dict[str, dict[str, int]]]) -> None:
    for kind, row in measured["kinds"].items():
        assert row["caught"] >= LEAST * row["faults"], kind
        assert row["false_alarms"] <= (1 - LEAST) * max(20, row["good"]), kind


def test_the_table_in_the_documentation_is_the_one_that_the_bench_prints(measured: dict[str, object]) -> None:
    assert "\n".join(table(measured)) in (ROOT / "docs/checks.md").read_text("utf-8")


def test_no_two_cases_have_one_name() -> None:
    names = Counter((case.kind, case.name, case.good) for case in cases())
    assert [name for name, count in names.items() if count > 1] == []
