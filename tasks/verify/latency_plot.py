"""Draws what was measured as SVG text that stands by itself: no script, nothing fetched, no date in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import quantiles

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

_NEW, _OLD = "#0072b2", "#d55e00"
_POINTS = 400
_WIDE = 20
_SHORTEST_MS = 0.001
_LEFT, _RIGHT = 64, 704
_TOP, _BOTTOM = 12, 272
_FIRST_BOX, _BOX_STEP, _BOX_HALF = 302, 40, 13
_TICKS = 10
_LOG_TICKS = 12


@dataclass(frozen=True)
class _Axis:
    """The milliseconds from `low` to `high`, from the drawing's left to its right; on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, times: Sequence[float]) -> _Axis:
        low, high = (min(times), max(times)) if times else (0.5, 1.0)
        if high > _WIDE * max(low, _SHORTEST_MS):
            return cls(max(low, _SHORTEST_MS) / 1.2, high * 1.2, log=True)
        margin = (high - low) / 20 or 0.5
        return cls(low - margin, high + margin, log=False)

    def x(self, ms: float) -> float:
        """Place `ms` in the drawing, in its units."""
        low, high, at = self.low, self.high, ms
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(ms, _SHORTEST_MS))
        return round(_LEFT + (_RIGHT - _LEFT) * (at - low) / (high - low), 1)

    def ticks(self) -> list[float]:
        """Choose round figures that lie on the axis: 1, 2 and 5 times powers of ten, or multiples of one of them."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            round_figures = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
            found = [ms for ms in round_figures if self.low <= ms <= self.high]
            return found if len(found) <= _LOG_TICKS else [ms for ms in found if math.log10(ms).is_integer()]
        least = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(least))
        step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least)
        return [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def latency_svg(new: Sequence[int], old: Sequence[int]) -> str:
    """Draw both releases' times in microseconds: above, the share of requests answered by then; below, boxes.

    A box spans the middle half, with a line at the median; its whiskers span from 5 to 95 %. The same times give the
    same text. Either may be empty: then only the other is drawn. The text begins with `<svg`, so that it may stand in
    a page as well as in a file.
    """
    drawn = [
        (f"{name} ({len(times)} requests)", colour, sorted(us / 1000 for us in times))
        for name, times, colour in (("new release", new, _NEW), ("release before", old, _OLD))
        if times
    ]
    axis = _Axis.of([ms for _, _, times in drawn for ms in (times[0], times[-1])])
    return _template().render(
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
        floor=_FIRST_BOX + _BOX_STEP + _BOX_HALF + 11,
        shares=[(share, _height(share)) for share in range(0, 101, 20)],
        ticks=[(f"{ms:g}", axis.x(ms)) for ms in axis.ticks()],
        releases=[
            {"label": label, "colour": colour, "curve": _curve(times, axis), **_box(times, axis, row)}
            for row, (label, colour, times) in enumerate(drawn)
        ],
    )


@cache
def _template() -> Template:
    loader = PackageLoader("tasks.verify", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("latency.svg")


def _height(percent: float) -> float:
    return round(_BOTTOM - (_BOTTOM - _TOP) * percent / 102, 1)


def _curve(ordered: Sequence[float], axis: _Axis) -> str:
    """Draw the cumulative distribution as steps, as the data of an SVG path."""
    steps = "".join(f"H{axis.x(ms)}V{_height(percent)}" for ms, percent in _steps(ordered))
    return f"M{axis.x(ordered[0])} {_height(0)}{steps}"


def _steps(ordered: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield the cumulative distribution in percent: of a long series some points, evenly spread, and both ends."""
    count = len(ordered)
    points = min(count, _POINTS)
    for rank in sorted({round(step * (count - 1) / max(points - 1, 1)) for step in range(points)}):
        yield ordered[rank], 100 * (rank + 1) / count


def _box(ordered: Sequence[float], axis: _Axis, row: int) -> dict[str, float]:
    """Place the box of a release: its quartiles and median, its whiskers, and its middle, upper and lower edge."""
    twentieths = quantiles(ordered, n=20, method="inclusive") if len(ordered) > 1 else [ordered[0]] * 19
    names = {"low": 0, "first": 4, "median": 9, "third": 14, "high": 18}
    middle = _FIRST_BOX + row * _BOX_STEP
    edges = {"middle": middle, "upper": middle - _BOX_HALF, "lower": middle + _BOX_HALF}
    return {name: axis.x(twentieths[index]) for name, index in names.items()} | edges
