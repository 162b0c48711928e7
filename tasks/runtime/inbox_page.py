"""Keep one page in Prefect current that lists what waits for a person, with a link to each form."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.utilities.urls import url_for

from ashat.inbox.gather import gather
from ashat.inbox.waiting import Inbox, Waiting
from ashat.ledger.summaries import troubles_in, with_requests
from ashat.settings import Settings
from tasks.runtime.artifacts import escape, markdown_table
from tasks.runtime.connections import this_run
from tasks.runtime.run import now

INBOX_KEY = "inbox"
_TITLE = "What waits for a person"
_TIME = "%Y-%m-%d %H:%M UTC"


def publish_inbox() -> None:
    """Write the page `inbox` anew, in the place of what it said before: Prefect keeps one of it, and no history."""
    ledger, at = this_run().ledger, now()
    summaries = with_requests(ledger.summaries())
    found = gather(Settings().ensure_home(), summaries, troubles_in(ledger), ledger.document, at)
    page = inbox_markdown(found, at)
    with get_client(sync_client=True) as client:
        kept = client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[INBOX_KEY]))
        )
        if kept:
            client.update_artifact(kept[0].latest_id, ArtifactUpdate(data=page, description=_TITLE))
        else:
            client.create_artifact(ArtifactCreate(key=INBOX_KEY, type="markdown", data=page, description=_TITLE))


def inbox_markdown(found: Inbox, at: datetime) -> str:
    """Write the page: what waits, how old that is, and what was not looked at."""
    lines = [f"# {_TITLE}", "", f"As of {at:{_TIME}}. `deploy inbox` lists the same.", ""]
    if found.waiting:
        columns = ("what", "about", "since", "until", "who can answer", "how")
        lines.append(markdown_table(columns, (tuple(_cells(one)) for one in found.waiting)))
    else:
        lines.append("Nothing waits.")
    unseen = [f"- {escape(line)}" for line in found.not_looked_at]
    if unseen:
        lines += ["", "Not looked at:", "", *unseen]
    return "\n".join(lines)


def _cells(one: Waiting) -> Iterator[str]:
    yield escape(one.what)
    yield f"**{escape(one.about)}**"
    yield f"{one.since:{_TIME}}" if one.since else "not recorded"
    yield f"{one.until:{_TIME}}" if one.until else "no end"
    yield escape(one.who)
    page = url_for("flow-run", obj_id=UUID(one.run)) if one.run else None
    yield (f"[the form]({page}), or " if page else "") + f"`{one.how}`"
