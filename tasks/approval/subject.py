"""Describe what people can be asked to approve: a release, or its rollback. A further subject is one more class.

How a request is asked, judged and signed is the same for all (`tasks.approval.request`, `tasks.approval.signing`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from ashat.deployment.events import Subject as SubjectName
from ashat.deployment.state import State
from ashat.protocol.messages import NodeState
from tasks.runtime.deployment import Deployment


@dataclass(frozen=True)
class Page:
    """Hold what one subject says of itself to the person who decides, as Markdown.

    `verdict` and `size` are a line each: what the evidence says, and how much changes where. `texts` are blocks that
    show how files differ, of which as many are shown as there is room for. `blast_radius` says how many Mainframes a
    bad one would break.
    """

    title: str
    verdict: str
    size: str
    facts: list[str]
    changes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    blast_radius: list[str] = field(default_factory=list)


class Subject(ABC):
    """Describe what people are asked about. `name` is how the ledger calls it; `prefix` begins the names under which
    Prefect keeps its answers and its pages; `why` says why people are asked at all. `asked_early` says that they may
    read what awaits them, and reject it, before the target can be reached; `rolls_out` that what is approved goes out
    by the rollout policy, to which the approval is bound."""

    name: ClassVar[SubjectName]
    prefix: ClassVar[str]
    asked_early: ClassVar[bool]
    rolls_out: ClassVar[bool] = False
    why: str = ""

    def key(self, ordinal: int) -> str:
        """Name the key under which a run suspends for an asking; Prefect keeps the answer under it."""
        return f"{self.prefix}-{ordinal}"

    @abstractmethod
    def settled(self, d: Deployment, state: State, resumed_keys: frozenset[str]) -> State | None:
        """Return the state if nobody has to be asked any more; None if somebody has.

        `resumed_keys` are those of the askings with whose answers this run was resumed.

        Raises:
            SessionError: nobody may be asked.
        """

    @abstractmethod
    def page(self, d: Deployment, state: State, seen: NodeState | None) -> Page:
        """Write what the person is shown of it, over a target that is as `seen`."""

    def update(self, state: State) -> State:
        """Return the update that would run once it is approved."""
        return state

    def stale_reason(self, d: Deployment, state: State, target_bundle: str | None, at: datetime | None = None) -> str:
        """Say why the evidence no longer counts, at that time (None: now), on a target that runs `target_bundle`; "" if
        it does."""
        return ""
