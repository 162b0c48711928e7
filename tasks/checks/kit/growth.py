"""Compares what a release takes besides time under load with the one before: its start, its memory, its answers' bytes.

Pure, no I/O. A figure has grown where it exceeds the old one by more than is allowed and by more than anybody minds,
and where every start, and every look at the memory, of the new release exceeds every one of the old release, so that
one slow start is no finding. Of the answers' bytes, path by path, the medians are compared, and less is told as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from tasks.checks.kit.samples import Block, Sample

START_FLOOR_MS = 1000
MEMORY_FLOOR_BYTES = 32 * 1024 * 1024
SIZE_FLOOR_BYTES = 1024


@dataclass(frozen=True)
class Growth:
    """What grew, its old and its new value in the median, in the unit that its `what` is measured in."""

    what: str
    old: int
    new: int

    @property
    def percent(self) -> int:
        """How much more it is than before."""
        return round((self.new / max(self.old, 1) - 1) * 100)


def grown_start(new: Sequence[Block], old: Sequence[Block], percent: int) -> Growth | None:
    """Compare how long the program took to become healthy, in milliseconds."""
    ours, theirs = ([block.start_ms for block in blocks if block.start_ms is not None] for blocks in (new, old))
    return _grown("start", ours, theirs, percent, START_FLOOR_MS)


def grown_memory(new: Sequence[Block], old: Sequence[Block], percent: int) -> Growth | None:
    """Compare the resident memory after the load, in bytes."""
    ours, theirs = ([block.memory_bytes for block in blocks if block.memory_bytes] for blocks in (new, old))
    return _grown("memory", ours, theirs, percent, MEMORY_FLOOR_BYTES)


def changed_sizes(new: Sequence[Sample], old: Sequence[Sample], percent: int) -> Iterator[Growth]:
    """Compare the bytes of the answers, path by path; yield those that are more, or less by as great a factor."""
    ours, theirs = sizes_of(new), sizes_of(old)
    for path in sorted(ours.keys() & theirs.keys()):
        new_bytes, old_bytes = [median_low(ours[path])], [median_low(theirs[path])]
        larger = _grown(path, new_bytes, old_bytes, percent, SIZE_FLOOR_BYTES)
        smaller = _grown(path, old_bytes, new_bytes, percent, SIZE_FLOOR_BYTES)
        if larger:
            yield larger
        elif smaller:
            yield Growth(path, smaller.new, smaller.old)


def sizes_of(samples: Sequence[Sample]) -> Mapping[str, list[int]]:
    """Collect the bytes of the answers that went well, by path."""
    sizes: dict[str, list[int]] = {}
    for sample in samples:
        if not sample.error:
            sizes.setdefault(sample.path, []).append(sample.size)
    return sizes


def _grown(what: str, new: Sequence[int], old: Sequence[int], percent: int, floor: int) -> Growth | None:
    if not new or not old or min(new) <= max(old):
        return None
    growth = Growth(what, median_low(old), median_low(new))
    more = growth.new - growth.old
    return growth if more > floor and more * 100 > percent * growth.old else None
