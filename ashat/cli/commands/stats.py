"""`deploy stats`: the four figures of software delivery by DORA's definitions, from the record. None needs Prefect."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.commands.stats_words import duration, in_words, percent
from ashat.cli.commands.status_history import since_when
from ashat.cli.terminal import output
from ashat.cli.terminal.output import Json
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashat.stats.deliveries import Delivery
    from ashat.stats.dora import Figures

_WEEK = 7 * 86400.0


def stats(
    since: Annotated[str, typer.Option(help="Only what reached production since: 2026-11-30, or 12h, 7d, 26w.")] = "",
    source: Annotated[str, typer.Option(help="Only what was packed from this source.")] = "",
    target: Annotated[str, typer.Option(help="Only what went to this target, such as omega.")] = "",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page with plots that can be read anywhere.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show deployment frequency, lead time, change failure rate and time to restore, by month and by source."""
    from ashat.stats.deliveries import KINDS, Entry, deliveries
    from ashat.stats.dora import deployed, figures, grouped, month_of

    at = output.now()
    earliest = since_when(since, at) if since else None
    with open_ledger() as ledger:
        found = deliveries(Entry(*row) for row in ledger.parsed(KINDS))
    chosen = deployed((one for one in found if target in ("", one.target)), since=earliest, source=source)
    shown = {
        "since": earliest,
        "source": source or None,
        "target": target or None,
        "at": at,
        "per_week": per_week(chosen, earliest, at),
        "all": asdict(figures(chosen)),
        "months": {month: asdict(figures(group)) for month, group in _months(grouped(chosen, month_of)).items()},
        "sources": {name: asdict(figures(group)) for name, group in grouped(chosen, lambda one: one.source).items()},
    }
    if html is not None:
        from ashat.cli.commands.html_pages import write_page
        from ashat.cli.commands.stats_page import stats_page

        write_page(html, lambda: stats_page(shown))
    if as_json:
        output.show_json(shown)
    elif html is not None:
        output.say(f"📄 {html}: {len(chosen)} deployments to production")
    else:
        _say(shown, figures(chosen))


def per_week(chosen: Sequence[Delivery], since: datetime | None, at: datetime) -> float | None:
    """How many deployments a week there were from `since`, or from the first of them, until `at`; None where that is
    less than a week, or there was none."""
    first = since or (chosen[0].reached if chosen else None)
    weeks = (at - first).total_seconds() / _WEEK if first else 0
    return len(chosen) / weeks if chosen and weeks >= 1 else None


def _months(found: dict[str, list[Delivery]]) -> dict[str, list[Delivery]]:
    """Add the months in between in which nothing was deployed."""
    if not found:
        return {}
    year, month = map(int, min(found).split("-"))
    listed = {}
    while (name := f"{year:04}-{month:02}") <= max(found):
        listed[name] = found.get(name, [])
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return listed


def _say(shown: dict[str, Any], whole: Figures) -> None:
    output.say(
        "📈 Deployments to production" + (f" since {shown['since']:%Y-%m-%d %H:%M} UTC" if shown["since"] else "")
    )
    if not whole.deployments:
        output.say("  None. What the figures would be is not known.")
        return
    pace = shown["per_week"]
    rows = [
        (
            "Deployment frequency",
            f"{whole.deployments} in all, {f'{pace:.1f} a week' if pace else 'by week not known'}",
        ),
        ("Lead time, from the commit", in_words(whole.lead)),
        ("Lead time, from the push", in_words(whole.from_push)),
        ("Change failure rate", f"{percent(whole.rate)} ({whole.failures} of {whole.deployments})"),
        ("Time to restore", in_words(whole.recovery) + _unrecovered(whole.unrecovered)),
    ]
    for line in output.columns(rows):
        output.say(line)
    for title, part in (("month", "months"), ("source", "sources")):
        output.say()
        heading = (title, "deployed", "lead time", "failed", "restored in")
        for line in output.columns([heading, *(_row(name, group) for name, group in shown[part].items())]):
            output.say(line)
    output.say()
    output.say(
        "Times are medians. Failed: did not become healthy, or was rolled back. A hotfix looks like any release."
    )


def _row(name: str, group: dict[str, Any]) -> tuple[str, ...]:
    return (
        name or "(no name)",
        str(group["deployments"]),
        duration(group["lead"]["median"]),
        percent(group["rate"]),
        duration(group["recovery"]["median"]),
    )


def _unrecovered(count: int) -> str:
    return f"; {count} not restored yet" if count else ""
