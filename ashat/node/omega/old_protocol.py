"""The old protocol's record: which licences may speak it, and which version their installs say that they run.

Such an install checks no signature, and what it says nobody can check: it is UNVERIFIED wherever it is shown.
"""

from __future__ import annotations

import re
from datetime import timedelta

from ashat.node.core.db import now
from ashat.node.omega.fleet.licences import Licence
from ashat.node.omega.fleet.mainframes import MainframeStore
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.messages import Offer

UNVERIFIED = "UNVERIFIED: by the old protocol it says that it runs"
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}", re.ASCII)
_STEP = timedelta(seconds=5)


def version_numbers(text: str) -> tuple[int, ...] | None:
    """Read a dotted version, such as 9.4.1, so that versions compare by number: 9.10 is after 9.9, and 1.0 is 1.

    None where `text` is no such version: one to six numbers of at most nine digits, with dots between them.
    """
    if not _VERSION.fullmatch(text):
        return None
    numbers = [int(number) for number in text.split(".")]
    while numbers[1:] and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


class OldInstalls:
    """What the installs said last that the owner let speak the old protocol."""

    def __init__(self, mainframes: MainframeStore) -> None:
        self._mainframes = mainframes

    def says(self, licence: Licence, version: str, offer: Offer | None, offered: str) -> None:
        """Note which version the install runs, by its word: as a report, where that changes what it is known to have
        made of `offer`, whose version is `offered`."""
        known, at = self._mainframes.old_word(licence.id)
        if known != version or at is None or now() - at >= _STEP:
            self._mainframes.says_old(licence.id, version)
        if offer is None:
            return
        runs = version_numbers(version) == version_numbers(offered)
        ran = (offer.release_seq, offer.bundle, "running")
        last = next(iter(self._mainframes.reports(licence.id, 1)), None)
        known_to_run = last is not None and (last.release_seq, last.bundle, last.result) == ran
        if runs != known_to_run:
            report = MainframeReport(
                release_seq=offer.release_seq,
                bundle=offer.bundle,
                result="running" if runs else "failed",
                reason=f"{UNVERIFIED} {version}",
            )
            self._mainframes.report(licence, report).result()
