"""Every setting of a node as a table, from the settings themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ashat.node.config import AppConfig, DatabaseConfig, NodeConfig

_TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", NodeConfig),
    ("app.", AppConfig),
    ("database.", DatabaseConfig),
)


def settings_table() -> Iterator[str]:
    """The lines of a Markdown table: name, default, what it is."""
    yield "| setting | default | |"
    yield "|---|---|---|"
    for prefix, model in _TABLES:
        for name, info in model.model_fields.items():
            if info.description:
                yield f"| `{prefix}{name}` | {_default(info.default)} | {info.description} |"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
