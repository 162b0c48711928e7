"""Finds the errors and tracebacks in a program's log that the release before did not log.

What the program logs while the other checks ask for what is not there is for the record: the release before was not
asked that. Rule: `logged`, and `log-unseen` for what was not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ashat.protocol.probes import LoggedErrors
from tasks.checks.kit.base import Finding, one_line

Kinds = dict[tuple[str, str], tuple[str, int]]


def kinds_of(parts: Sequence[LoggedErrors]) -> Kinds:
    """Join the errors of some stretches of a log by their kind: the first text of each, and how many."""
    found: Kinds = {}
    for part in parts:
        for each in part.errors:
            text, count = found.get((each.kind, each.signature), (each.text, 0))
            found[each.kind, each.signature] = text, count + each.count
    return found


def log_findings(
    counted: Sequence[LoggedErrors], provoked: Sequence[LoggedErrors], before: LoggedErrors | None
) -> Iterator[Finding]:
    """Find what is in `counted`, the log while nothing odd was asked, and not in `before`; then what was `provoked`."""
    known = kinds_of([before]) if before else {}
    new = {kind: found for kind, found in kinds_of(counted).items() if kind not in known}
    told = before is not None and not before.detail
    since = "which the release before did not log" if told else "and nothing is known of the release before"
    for (kind, _), (text, count) in sorted(new.items(), key=lambda each: each[0][0] != "traceback"):
        what = "a traceback" if kind == "traceback" else "an error"
        often = "" if count == 1 else f" {count} times"
        yield Finding("medium", f"the program logged {what}{often}, {since}: {one_line(text)}", "logged", count=count)
    for (kind, signature), (text, count) in kinds_of(provoked).items():
        if (kind, signature) not in known and (kind, signature) not in new:
            asked = "while the other checks asked for what is not there"
            yield Finding("low", f"the program logged {count} errors {asked}: {one_line(text)}", "logged", count=count)
    parts = [*counted, *provoked]
    if out := sum(part.left_out for part in parts):
        yield Finding("medium", f"{out} errors of further kinds are in the program's log: read it", "logged", count=out)
    if unread := sum(part.unread for part in parts):
        text = f"{unread} bytes of the program's log were not read in time"
        yield Finding("low", text, "log-unseen", unseen=True)
    for why in {part.detail for part in parts if part.detail}:
        yield Finding("low", f"the program's log was not read: {one_line(why)}", "log-unseen", unseen=True)


def log_figures(parts: Sequence[LoggedErrors], prefix: str) -> dict[str, int]:
    """Return the figures of some stretches of a log, each named with `prefix`."""
    told = [part for part in parts if not part.detail]
    if not told:
        return {}
    errors = [each for part in told for each in part.errors]
    tracebacks = sum(each.count for each in errors if each.kind == "traceback")
    return {
        f"{prefix}log_errors": sum(part.count for part in told) - tracebacks,
        f"{prefix}log_tracebacks": tracebacks,
        f"{prefix}log_lines": sum(part.lines for part in told),
    }
