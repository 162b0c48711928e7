"""Makes room for a release on the disk of a Mainframe: what is not needed goes before anything is refused."""

from __future__ import annotations

import logging

from ashat.errors import AshatError, StoreFullError
from ashat.node.context import NodeContext
from ashat.node.maintenance import needed_bundles
from ashat.protocol.messages import RoomRequest

log = logging.getLogger("ashat.node.mainframe")


class RoomMaker:
    """Looks for room before the first byte of a release comes."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    def require(self, need: RoomRequest) -> None:
        """Refuse what does not fit once all is let go that neither runs, nor ran before, nor is about to.

        Raises:
            StoreFullError: it does not fit; the message has both figures.
            OSError: the disk cannot be looked at.
        """
        try:
            self._context.room.require(need)
        except StoreFullError:
            self._let_go(need.bundle)
            self._context.room.require(need)

    def _let_go(self, bundle: str) -> None:
        self._context.operations.let_go(bundle)
        try:
            swept = self._context.store.gc(needed_bundles(self._context) | {bundle}, grace=0.0)
        except AshatError as error:  # of a damaged manifest; then nothing was removed
            log.warning("the store cannot be cleared: %s", error)
            return
        if swept.bundles or swept.objects:
            gone = f"{swept.bundles} bundles and {swept.objects} objects, {swept.bytes} bytes"
            log.info("for want of room, what was not needed was let go: %s", gone)
