"""Show in Prefect how a rollout goes: a progress bar, and a table of its waves and of what failed."""

from __future__ import annotations

from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

from ashat.protocol.fleet import FailureGroup, RolloutState
from ashat.rollouts.decide import progress
from tasks.runtime.artifacts import artifact_key, escape, markdown_table, publish_markdown

COLUMNS = ("", "wave", "Mainframes", "run it", "failed", "unreachable", "under way", "waiting", "since (UTC)")


class RolloutPage:
    """Publish the page of one update's rollout whenever something of it has changed."""

    def __init__(self, update_id: str) -> None:
        self._key = artifact_key(f"{update_id}-rollout")
        self._shown: object = None
        self._progress: UUID | None = None

    def show(self, seen: RolloutState) -> None:
        """Bring the page up to date with what OMEGA says."""
        now = (seen.status, seen.version, seen.counts)
        if now == self._shown or FlowRunContext.get() is None:
            return
        self._shown = now
        settled = seen.counts.size - seen.counts.open
        percent = 100.0 * settled / seen.counts.size if seen.counts.size else 100.0
        if self._progress is None:
            made = create_progress_artifact(progress=percent, key=f"{self._key}-progress", description="Mainframes")
            self._progress = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(self._progress, progress=percent)
        publish_markdown(self._key, write_page(seen, []), "How far each wave is")


def write_page(seen: RolloutState, failures: list[FailureGroup]) -> str:
    """Write a rollout as Markdown: where it stands, its waves, and the failures by what they said."""
    lines = [f"## {escape(seen.offer.update_id)}: {seen.status}", "", f"- {progress(seen.counts)}"]
    if seen.why:
        lines.append(f"- {escape(seen.why)}")
    rows = [
        (
            str(wave.number + 1),
            escape(wave.name),
            f"{wave.counts.size:,}",
            f"{wave.succeeded:,}",
            f"{wave.failed + wave.accepted:,}",
            f"{wave.unreachable:,}",
            f"{wave.under_way:,}",
            f"{wave.waiting:,}",
            f"{wave.opened_at:%Y-%m-%d %H:%M:%S}" if wave.opened_at else "not open",
        )
        for wave in seen.waves
    ]
    lines += ["", *markdown_table(COLUMNS, rows).splitlines()]
    if failures:
        told = [
            (f"{each.count:,}", escape(each.reason or each.state), escape(", ".join(each.names))) for each in failures
        ]
        lines += ["", *markdown_table(("Mainframes", "say", "such as"), told).splitlines()]
    return "\n".join(lines)
