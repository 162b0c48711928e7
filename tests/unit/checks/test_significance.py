"""The p values of the performance check against those that SciPy computed, which are kept in tests/data."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tasks.checks.kit.significance import fisher, mann_whitney, student

KNOWN = json.loads((Path(__file__).resolve().parents[2] / "data/scipy_reference.json").read_text("utf-8"))


def close(value: float) -> object:
    """`value` to ten digits; below 1e-12, where nothing depends on the digits, only its size."""
    return pytest.approx(value, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("case", KNOWN["mann_whitney"], ids=lambda case: f"{len(case['new'])}-{len(case['old'])}")
def test_mann_and_whitney_s_test_is_scipys(case: dict[str, list[float]]) -> None:
    new, old = case["new"], case["old"]
    p, delta = mann_whitney(new, old)
    assert p == close(case["p"])
    assert (delta + 1) / 2 * len(new) * len(old) == close(case["u"])


def test_student_s_distribution_is_scipys() -> None:
    assert [student(case["t"], case["freedom"]) for case in KNOWN["student"]] == [
        close(c["p"]) for c in KNOWN["student"]
    ]


def test_fisher_s_exact_test_is_scipys() -> None:
    assert [fisher(*case["table"]) for case in KNOWN["fisher"]] == [close(case["p"]) for case in KNOWN["fisher"]]


def test_as_many_requests_as_raos_toml_allows_take_no_time_that_matters() -> None:
    began = time.process_time()
    assert 0.4 < fisher(10_000, 40_000, 10_000, 40_000) < 0.6
    assert 0.4 < mann_whitney(range(1, 80_001, 2), range(0, 80_000, 2))[0] < 0.6
    assert 0.4 < mann_whitney(range(39_993, 40_009, 2), range(0, 80_000, 2))[0] < 0.6
    assert time.process_time() - began < 10
