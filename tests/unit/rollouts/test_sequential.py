"""The sequential test: Wald's figures, its sizes, and how often it errs."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.rollouts.sequential import Sequential

TESTS = st.builds(
    lambda low, more, alpha, beta: Sequential(
        acceptable_per_mille=low, unacceptable_per_mille=low + more, alpha_per_mille=alpha, beta_per_mille=beta
    ),
    st.integers(1, 400),
    st.integers(1, 500),
    st.integers(1, 499),
    st.integers(1, 499),
)


def test_the_bounds_are_those_of_walds_formula() -> None:
    # By hand: ln(1/19) / ln(0.95/0.99) = 71.4; ln(5) / -ln(0.95/0.99) = 39.02; 2 ln(5) = 3.2 >= ln(19) = 2.9 > ln(5).
    test = Sequential()
    assert test.sizes() == (72, 40)
    assert [test.verdict(succeeded, 0) for succeeded in (71, 72)] == ["undecided", "good"]
    assert [test.verdict(0, failed) for failed in (1, 2)] == ["undecided", "bad"]
    assert test.verdict(72 + 39, 1) == "good"
    assert test.missing(72, 1) == 39


@given(TESTS, st.integers(0, 500), st.integers(0, 50))
def test_so_many_successes_as_are_missing_make_it_good_and_one_fewer_do_not(test, succeeded, failed) -> None:
    missing = test.missing(succeeded, failed)
    assert test.verdict(succeeded + missing, failed) == "good"
    if missing:
        assert test.verdict(succeeded + missing - 1, failed) != "good"


@given(TESTS)
def test_a_wave_of_the_test_makes_up_for_a_failure(test) -> None:
    first, step = test.sizes()
    assert test.verdict(first, 0) == "good"
    assert test.verdict(first + step, 1) == "good"


@pytest.mark.parametrize(("rate", "wrong", "bound"), [(0.01, "bad", 0.05), (0.05, "good", 0.05)])
def test_it_errs_about_as_seldom_as_asked(rate: float, wrong: str, bound: float) -> None:
    test, random, runs, errors = Sequential(), Random(1945), 4000, 0
    for _ in range(runs):
        succeeded = failed = 0
        while (verdict := test.verdict(succeeded, failed)) == "undecided":
            if random.random() < rate:
                failed += 1
            else:
                succeeded += 1
        errors += verdict == wrong
    # Wald, 3.3: alpha / (1 - beta) is never exceeded; four standard deviations of the simulation above it.
    assert errors / runs < bound / 0.95 + 4 * (bound * (1 - bound) / runs) ** 0.5
