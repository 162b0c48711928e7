"""What people can be asked to approve about an update: a release, or its rollback. A further subject is one more class.

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
    """What one subject says of itself to the person who decides, as lines of Markdown."""

    title: str
    facts: list[str]
    changes: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)


class Subject(ABC):
    """What people are asked about. `name` is how the ledger calls it; `prefix` begins the names under which Prefect
    keeps its answers and its pages; `why` says why people are asked at all."""

    name: ClassVar[SubjectName]
    prefix: ClassVar[str]
    why: str = ""

    def key(self, ordinal: int) -> str:
        """The key under which a run suspends for an asking; Prefect keeps the answer under it."""
        return f"{self.prefix}-{ordinal}"

    @abstractmethod
    def settled(self, d: Deployment, state: State, resumed_keys: frozenset[str]) -> State | None:
        """The state in which nobody has to be asked any more; None where somebody has.

        `resumed_keys` are those of the askings with whose answers this run was resumed.

        Raises:
            SessionError: nobody may be asked.
        """

    @abstractmethod
    def update(self, state: State) -> State:
        """The update that would run once it is approved."""

    @abstractmethod
    def expires(self, state: State) -> datetime:
        """Until when an asking that is put now may be answered."""

    @abstractmethod
    def refuse_to_ask(self, state: State, missing: str) -> None:
        """See that people may be asked though it cannot be approved yet, as `missing` says.

        Raises:
            SessionError: they may not.
        """

    @abstractmethod
    def stale_reason(self, d: Deployment, state: State, target_bundle: str | None) -> str:
        """Why the evidence no longer counts on a target that runs `target_bundle`; "" where it does."""

    @abstractmethod
    def page(self, d: Deployment, state: State, seen: NodeState | None) -> Page:
        """What the person is shown of it, over a target that is as `seen`."""
