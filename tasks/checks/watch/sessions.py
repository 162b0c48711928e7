"""Finds at which database, and as which user, a program has sessions, as its node saw them by their sockets.

Rule: `session`, and `session-unseen` where the node could not tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ashat.protocol.probes import DatabaseProbe, DatabaseSessions
from tasks.checks.kit.base import Finding, one_line

MORE = 5


def session_findings(now: DatabaseProbe | None, before: DatabaseProbe | None) -> Iterator[Finding]:
    """Find sessions in another database than the one that was looked at, of another user than before, and many more."""
    if now is None or now.dialect == "sqlite" or now.connect_ms is None:
        return
    if now.sessions is None:
        text = "its node tells nothing of the program's sessions in the database: update it"
        yield Finding("medium", text, "session-unseen", unseen=True)
        return
    if not now.sessions:
        text = "no session of the program was seen at the database's server: it keeps none, they came through a pool or"
        text += " a local socket, or the DSN's user may not see them (PostgreSQL: pg_monitor; MariaDB: PROCESS)"
        yield Finding("low", text, "session-unseen", unseen=True)
    known = {each.user for each in before.sessions or ()} if before else set[str]()
    for each in now.sessions:
        who = f"{each.count} sessions of the program are of user {one_line(each.user, 60)}"
        where = f"in database {one_line(each.database, 60)}"
        if not each.same_database:
            text = f"{who} {where}, which is not the one that its node looks at: whether that is migrated is not known"
            yield Finding("medium", text, "session", count=each.count)
        elif known and each.user not in known:
            text = f"{who}, as whom the release before had none"
            yield Finding("medium", text, "session", count=each.count)
        else:
            yield Finding("low", f"{who} {where}", "session", count=each.count)
    held, held_before = held_by(now.sessions), held_by(before.sessions or ()) if before else 0
    if held_before and held > max(2 * held_before, held_before + MORE):
        text = (
            f"the program holds {held} sessions in the database after the load, the release before held {held_before}"
        )
        yield Finding("medium", text, "session")


def held_by(sessions: Sequence[DatabaseSessions]) -> int:
    """Count the sessions of all users and databases."""
    return sum(each.count for each in sessions)


def session_figures(probe: DatabaseProbe | None, prefix: str) -> dict[str, int]:
    """Return the figures of one look, each named with `prefix`; none where nothing is known."""
    return {f"{prefix}sessions": held_by(probe.sessions)} if probe and probe.sessions is not None else {}
