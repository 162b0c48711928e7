"""Leave artifacts in Prefect for people: the plan, the checks, the difference, the servers, the progress."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings

from ashat.common.text import printable
from tasks.runtime.reporting import reporter

_EVERY_SECONDS = 1.0
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~])")


class ByteProgress:
    """Report how many bytes have arrived, and show that in a progress artifact at most once a second."""

    def __init__(self, key: str) -> None:
        self._key = artifact_key(key)
        self._artifact: UUID | None = None
        self._shown = 0.0

    def __enter__(self) -> ByteProgress:
        if FlowRunContext.get() is not None:
            created = create_progress_artifact(progress=0.0, key=self._key, description="Bytes sent")
            self._artifact = created if isinstance(created, UUID) else None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._show(100.0)

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` bytes have arrived."""
        reporter().moved(done, total)
        if time.monotonic() - self._shown >= _EVERY_SECONDS and total:
            self._shown = time.monotonic()
            self._show(100.0 * done / total)

    def _show(self, percent: float) -> None:
        if self._artifact is not None:
            update_progress_artifact(self._artifact, progress=percent)


def artifact_key(text: str) -> str:
    """Make an artifact's key of `text`: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-") or "artifact"


def artifact_url(key: str) -> str:
    """Name the page on which Prefect shows the newest artifact of that key; "" if no UI is known."""
    ui = get_current_settings().ui_url
    return f"{ui}/artifacts/key/{key}" if ui else ""


def escape(text: str) -> str:
    """Escape `text` for Markdown, which then shows it in one line; nothing is markup, HTML or hidden in it."""
    flat = " ".join(printable(text).split())
    return _MARKDOWN.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def markdown_table(columns: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table; callers escape the cells that hold others' text."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def publish_markdown(key: str, markdown: str, description: str) -> None:
    """Leave a Markdown page with the flow run; outside any, do nothing."""
    if FlowRunContext.get() is not None:
        create_markdown_artifact(markdown=markdown, key=artifact_key(key), description=description)


def publish_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Leave a table with the flow run; outside any, do nothing."""
    if FlowRunContext.get() is not None:
        create_table_artifact(table=rows, key=artifact_key(key), description=description)


def publish_svg(key: str, svg: str, description: str) -> None:
    """Leave a drawing with the flow run, as a page that loads nothing; outside any, do nothing."""
    if FlowRunContext.get() is not None:
        create_image_artifact(image_url=svg_url(svg), key=artifact_key(key), description=description)


def svg_url(svg: str) -> str:
    """Write a drawing as a data URL, which holds all of it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
