"""Decides what a node does when it starts, by what it finds: rules only, no I/O.

    an operation under way   its undoing had begun   taken up before   then
    no                       -                       -                 hold: run `current` of the record
    yes                      yes                     -                 undo: put back what ran, as had been decided
    yes                      no                      3 times or more   undo: the node itself does not survive it
    yes                      no                      less              resume: every step can be done again

Where the link and the record disagree, the record wins: each action below sets the link.
"""

from __future__ import annotations

from dataclasses import dataclass

from ashat.node.operations.records import Unfinished
from ashat.protocol.messages import Operation

RESUMES = 3


@dataclass(frozen=True, slots=True)
class Hold:
    """Run what the record says; nothing was under way."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Do the operation's steps, those done already being quick."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Undo:
    """Put back what ran before; `reason` is why the operation failed."""

    operation: Operation
    reason: str
    interrupted: bool


def plan(left: Unfinished | None) -> Hold | Resume | Undo:
    """Decide what to do about the operation that an earlier process of the node left."""
    if left is None:
        return Hold()
    if left.undoing:
        return Undo(left.operation, left.operation.reason, left.operation.interrupted)
    if left.resumed >= RESUMES:
        return Undo(left.operation, f"the node was stopped {left.resumed + 1} times while it switched", True)
    return Resume(left.operation)
