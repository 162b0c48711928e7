"""Choose the release that Public is put back to. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ashat.deployment.stages import PUT_BACK, Stage
from ashat.deployment.state import PreviousRelease, State

_CAME_TO_NOTHING = PUT_BACK | {Stage.ROLLED_BACK}


def restore_target(state: State, find: Callable[[str, int], State | None]) -> PreviousRelease:
    """Choose what Public should run once `state`'s update is gone from it.

    That is what it ran before, unless that update has come to nothing since (cancelled, rejected, expired, failed,
    rolled back): then what ran before that one, and so on. `find` looks an attempt up in the ledger. Where everything
    came to nothing, it is what ran just before.
    """
    return _alive(state, find, {(state.update_id, state.attempt)}) or (
        state.public_ran[-1] if state.public_ran else PreviousRelease(None)
    )


def _alive(
    state: State, find: Callable[[str, int], State | None], seen: set[tuple[str, int]]
) -> PreviousRelease | None:
    for before in reversed(state.public_ran):
        key = (before.update_id, before.attempt)
        if key in seen:
            continue
        ran = find(*key) if before.update_id else None
        if ran is None or ran.stage not in _CAME_TO_NOTHING:
            return before
        earlier = _alive(ran, find, seen | {key})
        if earlier is not None:
            return earlier
    return None
