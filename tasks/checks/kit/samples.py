"""What the rollback rehearsal measured, for the checks that follow: both releases under the same load, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ashat.raos_toml.schema import Endpoint
from tasks.checks.kit.baseline import SeenAnswers
from tasks.checks.kit.looks import Look

Which = Literal["new", "old"]


@dataclass(frozen=True)
class Sample:
    """One request under load: how long it took in microseconds, what was wrong with it ("" if nothing), and how many
    bytes the answer's body had."""

    path: str
    us: int
    error: str
    size: int = 0


@dataclass(frozen=True)
class Block:
    """The answers of one release to one stretch of load, in the order in which they ended; the warm-up is left out.

    `busy_per_mille` is what share of this host's processors others took right before. `start_ms` is how long the
    program took to become healthy, `memory_bytes` what was resident of it after the load, as its node saw it. Each may
    be unknown.
    """

    release: Which
    samples: tuple[Sample, ...]
    busy_per_mille: int | None = None
    start_ms: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class AnsweredEndpoints:
    """The endpoints that the old release answered with the status that it declares, and how many it was not asked for.

    `operations` are those of its OpenAPI document, such as `GET /api/items/{item}`. `answers` say what the answers to
    `endpoints` were like.
    """

    endpoints: tuple[Endpoint, ...] = ()
    operations: tuple[str, ...] = ()
    unasked: int = 0
    answers: tuple[SeenAnswers, ...] = ()


@dataclass(frozen=True)
class Rehearsal:
    """Forward, back, and forward again: the blocks in the order in which they ran (new, old, new, old, ...).

    `answered` is what the old release answered, `before` what its node saw of it; `back_ms` and `forward_ms` are how
    long each switch took until the release was healthy. With no release before, there is no old block.
    """

    blocks: tuple[Block, ...] = ()
    answered: AnsweredEndpoints = field(default_factory=AnsweredEndpoints)
    back_ms: tuple[int, ...] = ()
    forward_ms: tuple[int, ...] = ()
    before: Look | None = None

    def of(self, release: Which) -> Iterator[Block]:
        """Select the blocks of one of the two releases."""
        return (block for block in self.blocks if block.release == release)
