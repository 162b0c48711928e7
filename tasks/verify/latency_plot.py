"""Pictures of what was measured, as SVG text that stands by itself: no script, nothing fetched, no date in it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEW, _OLD = "#0072b2", "#d55e00"
_POINTS = 400
_WIDE = 20
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ashat",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
}


def latency_svg(new: Sequence[int], old: Sequence[int]) -> str:
    """Both releases' times in microseconds: above, the share of requests answered by then; below, boxes.

    A box spans the middle half, with a line at the median; its whiskers span from 5 to 95 %. The same times give the
    same text. Either may be empty: then only the other is drawn. The text begins with `<svg`, so that it may stand in
    a page as well as in a file.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = [
        (f"{name} ({len(times)} requests)", sorted(us / 1000 for us in times), colour)
        for name, times, colour in (("new release", new, _NEW), ("release before", old, _OLD))
        if times
    ]
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        curves, boxes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_curves(curves, drawn)
        _draw_boxes(boxes, drawn)
        page = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Title": "How long answers took, new release and release before"}
        figure.savefig(page, format="svg", metadata=metadata)
    text = page.getvalue()
    return text[text.index("<svg") :]


def _draw_curves(axes: Axes, drawn: Sequence[tuple[str, list[float], str]]) -> None:
    for label, times, colour in drawn:
        x, y = _steps(times)
        axes.step(x, y, where="post", color=colour, label=label)
    axes.set_ylabel("answered by then, %")
    axes.set_ylim(0, 102)
    if drawn:
        axes.legend(loc="lower right", frameon=False)
    else:
        axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center")


def _draw_boxes(axes: Axes, drawn: Sequence[tuple[str, list[float], str]]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for row, (_, times, colour) in enumerate(reversed(drawn)):
        parts = axes.boxplot(
            [times], positions=[row], widths=0.6, orientation="horizontal", whis=(5, 95), showfliers=False
        )
        for line in (line for lines in parts.values() for line in lines):
            line.set_color(colour)
    axes.set_yticks([])
    axes.set_ylim(-0.6, max(len(drawn), 1) - 0.4)
    axes.set_xlabel("milliseconds")
    everything = [ms for _, times, _ in drawn for ms in times]
    if everything and max(everything) > _WIDE * max(min(everything), 0.001):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _steps(ordered: Sequence[float]) -> tuple[list[float], list[float]]:
    """The cumulative distribution in percent; of a long series some points, evenly spread, and always both ends."""
    count = len(ordered)
    ranks = sorted({round(step * (count - 1) / (_POINTS - 1)) for step in range(_POINTS)} if count > 1 else {0})
    x = [ordered[0], *(ordered[rank] for rank in ranks)]
    y = [0.0, *(100 * (rank + 1) / count for rank in ranks)]
    return x, y
