"""Hold what the record knows of a rollout: a part of a deployment's state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RolloutRecord:
    """What the record knows of a rollout: its waves by name and size, how many of them are open, and, where it stopped,
    why, how often it had stopped on OMEGA by then, which run
    asks, and what a person answered."""

    id: str
    policy: str
    waves: tuple[tuple[str, int], ...]
    opened: int = 0
    ordinal: int = 0
    stopped: str = ""
    run: str = ""
    stops: int = 0
    answer: str = ""
    answered_by: str = ""
    comment: str = ""

    @property
    def waits(self) -> bool:
        """Say whether it stopped, and nobody has answered."""
        return bool(self.stopped) and not self.answer
