"""Decides what a Mainframe does next about what OMEGA offers: rules only, no I/O.

`release_seq` counts what OMEGA accepted. A Mainframe never goes back along it, so a stolen or replayed answer cannot
make it install an old release; a rollback on OMEGA is a new number for an old bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ashat.protocol.messages import Offer

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Position:
    """What this Mainframe runs, and how the newest release that it accepted went.

    `accepted_seq` and `accepted_bundle` name that release (0 and None before the first); `failures` counts the
    attempts at it that failed, `interrupted` says that the last of them was undone because the node itself did not
    survive it.
    """

    current_bundle: str | None = None
    current_seq: int | None = None
    accepted_seq: int = 0
    accepted_bundle: str | None = None
    failures: int = 0
    last_failure: datetime | None = None
    interrupted: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Idle:
    """OMEGA offers nothing."""


@dataclass(frozen=True, slots=True)
class Install:
    """Pull the offer's bundle and switch to it; this is attempt number `attempt`, from 1."""

    offer: Offer
    attempt: int


@dataclass(frozen=True, slots=True)
class Running:
    """The offer runs here."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Failed:
    """The offer does not run here. `retry_in` is in how many seconds to try it again, None for never."""

    offer: Offer
    reason: str
    retry_in: float | None


Plan = Idle | Install | Running | Failed


def plan(
    offer: Offer | None, position: Position, *, failed_ago: float, retry_delay: float, just_started: bool = False
) -> Plan:
    """Decide what to do about `offer`, where the last failure was `failed_ago` seconds ago.

    A release that failed is tried `ATTEMPTS` times in all, `retry_delay` seconds after the first failure and twice as
    long after each next; each try costs the program a restart, so it then waits for another release. A node that has
    `just_started` tries once more at once, for its operator may have mended the cause, unless the release is what
    brought the node down.
    """
    if offer is None:
        return Idle()
    if offer.release_seq > position.accepted_seq:
        return Install(offer, attempt=1)
    if offer.release_seq < position.accepted_seq:
        return Failed(offer, _older(offer, position), retry_in=None)
    if offer.bundle != position.accepted_bundle:
        return Failed(offer, _ambiguous(offer, position), retry_in=None)
    if (position.current_bundle, position.current_seq) == (offer.bundle, offer.release_seq):
        return Running(offer)
    if position.last_failure is None or (just_started and not position.interrupted):
        return Install(offer, position.failures + 1)
    return _later(offer, position, failed_ago, retry_delay)


def _later(offer: Offer, position: Position, failed_ago: float, retry_delay: float) -> Plan:
    attempt = position.failures + 1
    if attempt > ATTEMPTS:
        reason = f"{position.reason} (tried {position.failures} times; restart the node to try again)"
        return Failed(offer, reason, retry_in=None)
    retry_in = retry_delay * 2 ** (position.failures - 1) - failed_ago
    return Install(offer, attempt) if retry_in <= 0 else Failed(offer, position.reason, retry_in)


def _older(offer: Offer, position: Position) -> str:
    return (
        f"OMEGA offers release_seq {offer.release_seq}, but {position.accepted_seq} was accepted here before; "
        "an older release is refused. Promote again or roll back on OMEGA to get a higher one."
    )


def _ambiguous(offer: Offer, position: Position) -> str:
    accepted = (position.accepted_bundle or "nothing")[:12]
    return (
        f"OMEGA offers bundle {offer.bundle[:12]} as release_seq {offer.release_seq}, under which {accepted} was "
        "accepted here; one number cannot name two releases. Promote again on OMEGA to get a higher one."
    )
