"""A process that works on a ledger, to race with another or to be killed in the middle.

`race URL UPDATE WHO` waits for a line on stdin, then cancels the update; it prints `won` or what it was told.
`open URL` waits for a line, then opens the ledger. `approve URL UPDATE` waits for a line, then answers the gate with
the next release_seq that it read before waiting. `ask URL UPDATE TIMES` waits for a line, then asks that often.
`hammer URL UPDATE` appends until it is killed, a dot for each event.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from ashat.deployment.events import ApprovalAnswered, ApprovalRequested, Cancelled
from ashat.errors import AshatError
from ashat.ledger.ledger import Ledger, now


def race(url: str, update_id: str, who: str) -> None:
    """Cancel what was read before the start signal."""
    with Ledger.open(url) as ledger:
        state = ledger.load(update_id)
        _wait()
        ledger.append(state, Cancelled(at=now(), by=who))


def approve(url: str, update_id: str) -> None:
    """Accept an approval under the release_seq that was free before the start signal."""
    with Ledger.open(url) as ledger:
        state = ledger.load(update_id)
        seq = ledger.highest_release_seq("omega") + 1
        _wait()
        answer = ApprovalAnswered(at=now(), ordinal=1, decision="approve", accepted=True, release_seq=seq)
        ledger.append(state, answer)


def open_ledger(url: str) -> None:
    """Open it, with everybody else."""
    _wait()
    Ledger.open(url).close()


def ask(url: str, update_id: str, times: str) -> None:
    """Ask so often, as quickly as it goes."""
    with Ledger.open(url) as ledger:
        state = ledger.load(update_id)
        _wait()
        for _ in range(int(times)):
            state = ledger.append(
                state, ApprovalRequested(at=now(), ordinal=state.askings["release"] + 1, target_bundle=None)
            )


def hammer(url: str, update_id: str) -> None:
    """Ask again and again."""
    with Ledger.open(url) as ledger:
        state = ledger.load(update_id)
        while True:
            state = ledger.append(
                state, ApprovalRequested(at=now(), ordinal=state.askings["release"] + 1, target_bundle=None)
            )
            print(".", end="", flush=True)


def _wait() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


COMMANDS: dict[str, Callable[..., None]] = {
    "race": race,
    "approve": approve,
    "open": open_ledger,
    "ask": ask,
    "hammer": hammer,
}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except AshatError as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print("won")
