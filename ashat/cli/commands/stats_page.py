"""Write the figures of delivery as one page that stands by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ashat.cli.commands.html_pages import WIDTH, render
from ashat.cli.commands.stats_words import UNKNOWN, duration, percent

_HEIGHT, _TOP, _LEFT, _LABELS = 180, 16, 8, 22
_BAR_SHARE = 0.7
_LABELLED = 14


@dataclass(frozen=True)
class Bar:
    """A month in a plot: where its bar stands and how high it is, in the drawing's units; `height` is None where the
    figure is not known. `part` is the height of the part that is marked."""

    x: float
    width: float
    height: float | None
    part: float
    label: str
    said: str


@dataclass(frozen=True)
class Plot:
    """One figure by month; `top` says what the highest bar stands for."""

    title: str
    bars: tuple[Bar, ...]
    top: str


def stats_page(shown: Mapping[str, Any]) -> str:
    """Write the page of what `deploy stats --json` shows."""
    return render("stats.html", shown=shown, plots=_plots(shown["months"]))


def _plots(months: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    rows = list(months.items())
    return [
        _plot("Deployments, and how many of them failed", rows, lambda m: m["deployments"], _whole, _failed),
        _plot("Lead time from the commit, median", rows, lambda m: m["lead"]["median"], duration),
        _plot("Change failure rate", rows, lambda m: m["rate"], percent),
        _plot("Time to restore, median", rows, lambda m: m["recovery"]["median"], duration),
    ]


def _plot(
    title: str,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    of: Callable[[Mapping[str, Any]], float | None],
    words: Callable[[Any], str],
    part_of: Callable[[Mapping[str, Any]], float] = lambda _: 0,
) -> Plot:
    values = [of(month) for _, month in rows]
    highest = max((value for value in values if value is not None), default=0)
    step = (WIDTH - 2 * _LEFT) / max(len(rows), 1)
    scale = (_HEIGHT - _TOP - _LABELS) / highest if highest else 0.0
    every = -(-len(rows) // _LABELLED) or 1
    bars = (
        Bar(
            x=round(_LEFT + step * number + step * (1 - _BAR_SHARE) / 2, 1),
            width=round(step * _BAR_SHARE, 1),
            height=None if value is None else round(value * scale, 1),
            part=round(part_of(month) * scale, 1),
            label=name if number % every == 0 else "",
            said=f"{name}: {words(value) if value is not None else UNKNOWN}",
        )
        for number, ((name, month), value) in enumerate(zip(rows, values, strict=True))
    )
    return Plot(title, tuple(bars), words(highest) if highest else "")


def _whole(number: float) -> str:
    return f"{number:.0f}"


def _failed(month: Mapping[str, Any]) -> float:
    return float(month["failures"])
