"""Name the channels by which people are told: those that somebody added, and those that the environment names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

VARIABLE = "ashat_channels"
"""The variable of Prefect that lists the channels which `deploy notify add` made, beside their blocks."""
MOST = 100


class Channel(NamedTuple):
    """A notification block, as type/name. One of `escalations_only` is told of nothing but escalations; one that was
    `added` stands in Prefect's variable, another in `ASHAT_NOTIFY`."""

    block: str
    escalations_only: bool = False
    added: bool = False

    def hears(self, *, escalation: bool) -> bool:
        """Say whether it is told of something that is an escalation or not."""
        return escalation or not self.escalations_only


def channels_of(named: str, added: object) -> list[Channel]:
    """List the channels that a setting names, separated by commas, then those of the variable; each once, and of the
    variable no more than 100: whoever reaches Prefect's API can write there."""
    found = {name: Channel(name) for part in named.split(",") if (name := part.strip())}
    for channel in added_channels(added):
        found.setdefault(channel.block, channel)
    return list(found.values())


def added_channels(value: object) -> list[Channel]:
    """Read the channels in the variable's value; what is no channel is left out."""
    listed = value.get("channels") if isinstance(value, dict) else None
    known = listed[:MOST] if isinstance(listed, list) else []
    return [
        Channel(one["block"], escalations_only=one.get("only") == "escalations", added=True)
        for one in known
        if isinstance(one, dict) and isinstance(one.get("block"), str) and "/" in one["block"]
    ]


def as_variable(channels: Iterable[Channel]) -> dict[str, Any]:
    """Spell the channels that were added as the variable's value."""
    return {
        "channels": [
            {"block": channel.block, "only": "escalations" if channel.escalations_only else ""}
            for channel in channels
            if channel.added
        ]
    }
