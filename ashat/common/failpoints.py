"""Named places where a process may be killed, to prove that being killed there loses nothing.

Nothing is armed in production use: a fault point then costs a look at the environment. For the tests:

`ASHAT_FAULT=NAME` kills the process with SIGKILL the first time it gets there, `ASHAT_FAULT=NAME:N` the Nth time.
`ASHAT_FAULT_DIR=DIR` kills whichever process is the first to get to a point that DIR holds a file for, by its name;
the file is removed, so that the next process passes.
`ASHAT_FAULT_LOG=FILE` appends the name of each point visited.
"""

from __future__ import annotations

import os
import signal
from typing import Final

FAULT_POINTS: Final = frozenset(
    {
        "push.attested",
        "push.packaged",
        "push.objects-sent",
        "push.manifest-acknowledged",
        "push.switch-recorded",
        "push.switched",
        "store.objects-staged",
        "store.objects-renamed",
        "store.manifest-written",
        "switch.intended",
        "switch.materialised",
        "switch.migrating",
        "switch.migrated",
        "switch.linked",
        "switch.app-started",
        "switch.traffic-recorded",
        "switch.snippet-written",
        "switch.proxy-reloaded",
        "switch.traffic-switched",
        "switch.recorded",
        "switch.taken-back",
        "verify.rehearsed-back",
        "verify.rehearsed-forward",
        "verify.evidence-kept",
        "verify.attested",
        "verify.recorded",
        "gate.opened",
        "gate.taken",
        "approval.asked",
        "approval.withdrawn",
        "approval.judged",
        "promote.objects-relayed",
        "log.sent",
        "promote.accepted",
        "promote.switched",
        "promote.recorded",
        "distribute.offered",
        "distribute.wave-opened",
        "distribute.recorded",
        "rollout.began",
        "rollout.opened",
        "rollout.decided",
        "rollout.stopped",
        "trust.begun",
        "trust.proven",
        "trust.planned",
        "trust.sent",
        "trust.kept",
        "trust.intended",
        "trust.installed",
        "trust.published",
        "trust.log-remembered",
        "trust.accepted",
        "mainframe.pulled",
        "mainframe.switched",
        "mainframe.reported",
        "cancel.recorded",
        "cancel.switched-back",
        "rollback.started",
        "rollback.omega-switched",
        "rollback.omega-recorded",
        "rollback.public-switched",
    }
)

_visits: dict[str, int] = {}


def fault_point(name: str) -> None:
    """Die here, if told to.

    Raises:
        LookupError: `name` is not listed, which is a mistake in the code.
    """
    if name not in FAULT_POINTS:
        raise LookupError(f"{name!r} is not listed in FAULT_POINTS")
    _visits[name] = _visits.get(name, 0) + 1
    if log := os.environ.get("ASHAT_FAULT_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")
    wanted, _, nth = os.environ.get("ASHAT_FAULT", "").partition(":")
    if (wanted == name and _visits[name] == int(nth or 1)) or _armed_for_one(name):
        os.kill(os.getpid(), signal.SIGKILL)


def _armed_for_one(name: str) -> bool:
    directory = os.environ.get("ASHAT_FAULT_DIR")
    if not directory:
        return False
    try:
        os.unlink(os.path.join(directory, name))
    except FileNotFoundError:
        return False
    return True
