"""How many of the active Mainframes run a release, and in which words that is said everywhere. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashat.deployment.events import MainframeOutcome

_NAMED = 3


@dataclass(frozen=True)
class Reach:
    """What became of a release on the Mainframes that were active when it was offered."""

    running: int
    total: int
    others: tuple[str, ...] = ()
    """Of each Mainframe that does not run it: its name, what became of it, and why."""

    @classmethod
    def of(cls, outcomes: Iterable[MainframeOutcome], counted: tuple[int, int] | None = None) -> Reach:
        """Count `outcomes`; `counted` are how many run it, of how many, where not each is among them."""
        found = list(outcomes)
        others = [m for m in found if m.result != "running"]
        told = (f"{m.name} {m.result}" + (f" ({m.reason})" if m.reason else "") for m in others)
        running, total = counted or (len(found) - len(others), len(found))
        return cls(running, total, tuple(told))

    @property
    def whole(self) -> bool:
        """Whether each of them runs it; true where there is none."""
        return self.running == self.total

    @property
    def nobody(self) -> bool:
        """Whether there are Mainframes, and none of them runs it."""
        return self.total > 0 and self.running == 0

    @property
    def short(self) -> str:
        """Such as "1 of 2"; "" where there is no Mainframe."""
        return f"{self.running} of {self.total}" if self.total else ""

    @property
    def words(self) -> str:
        """A clause, such as "1 of 2 Mainframes run it: Berlin failed (the disk is full)"."""
        if not self.total:
            return "no Mainframe is licensed"
        behind = max(self.total - self.running, len(self.others))
        more = f", and {behind - _NAMED} more" if behind > _NAMED else ""
        why = f": {', '.join(self.others[:_NAMED])}{more}" if self.others else ""
        return f"{self.short} Mainframe{'s' if self.total > 1 else ''} run{'' if self.total > 1 else 's'} it{why}"
