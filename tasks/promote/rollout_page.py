"""Show in Prefect how a rollout goes: a progress bar, and a table of its waves and of what failed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

from ashat.protocol.fleet import CohortTroubles, FailureGroup, RolloutState
from ashat.protocol.rollout_table import FAILURE_COLUMNS, WAVE_COLUMNS, failure_rows, wave_rows
from ashat.rollouts.decide import progress
from tasks.promote.compare import COMPARED_COLUMNS, compare_troubles, compared_rows, conclusion
from tasks.runtime.artifacts import artifact_key, escape, markdown_table, publish_markdown


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


def write_page(seen: RolloutState, failures: list[FailureGroup], troubles: CohortTroubles | None = None) -> str:
    """Write a rollout as Markdown: where it stands, its waves, the failures by what they said, and whether those who
    have it report more `troubles` than the rest."""
    lines = [f"## {escape(seen.offer.update_id)}: {seen.status}", "", f"- {progress(seen.counts)}"]
    if seen.why:
        lines.append(f"- {escape(seen.why)}")
    lines += ["", *_table(WAVE_COLUMNS, wave_rows(seen))]
    if failures:
        lines += ["", *_table(FAILURE_COLUMNS, failure_rows(failures))]
    if troubles is not None and troubles.cohort.ran and troubles.rest.size:
        compared = compare_troubles(troubles)
        lines += ["", "**With the release beside the rest**", "", *_table(COMPARED_COLUMNS, compared_rows(compared))]
        lines += ["", escape(conclusion(troubles, compared))]
    return "\n".join(lines)


def _table(columns: tuple[str, ...], rows: Sequence[Sequence[str]]) -> list[str]:
    return markdown_table(columns, [[escape(cell) for cell in row] for row in rows]).splitlines()
