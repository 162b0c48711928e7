"""The picture of both releases' times: whole, the same each time, and harmless wherever it is shown."""

from __future__ import annotations

import random
import re
from xml.etree import ElementTree

import pytest

from tasks.verify.latency_plot import latency_svg

SVG = "{http://www.w3.org/2000/svg}"
DRAW = random.Random(1)
NEW = [round(DRAW.lognormvariate(7.5, 0.3)) for _ in range(300)]
OLD = [round(DRAW.lognormvariate(7.3, 0.3)) for _ in range(250)]


def words(svg: str) -> str:
    return " ".join("".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))


def test_both_releases_are_drawn_and_named() -> None:
    svg = latency_svg(NEW, OLD)
    said = words(svg)
    assert "new release (300 requests)" in said
    assert "release before (250 requests)" in said
    assert "milliseconds" in said
    assert svg.startswith("<svg")
    assert "#0072b2" in svg
    assert "#d55e00" in svg


def test_the_same_figures_make_the_same_text() -> None:
    assert latency_svg(NEW, OLD) == latency_svg(NEW, OLD)
    assert latency_svg(NEW, OLD) != latency_svg(OLD, NEW)


def test_it_stands_by_itself() -> None:
    svg = latency_svg(NEW, OLD)
    assert "<script" not in svg
    outside = set(re.findall(r'(?:href|src)="([^"]+)"', svg))
    assert all(target.startswith("#") for target in outside), outside
    assert "<image" not in svg
    assert not re.search(r"\b20\d\d-\d\d-\d\d", svg)


@pytest.mark.parametrize("times", [NEW, [1500], [0, 0, 0], [7] * 40, [100, 10_000_000]])
def test_a_release_without_one_before_is_drawn_alone(times: list[int]) -> None:
    said = words(latency_svg(times, []))
    assert f"new release ({len(times)} requests)" in said
    assert "release before" not in said


def test_nothing_measured_is_said() -> None:
    assert "nothing was measured" in words(latency_svg([], []))


def test_many_figures_make_no_large_picture() -> None:
    many = [round(DRAW.lognormvariate(9, 1)) for _ in range(20_000)]
    assert len(latency_svg(many, many)) < 150_000
