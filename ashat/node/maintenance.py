"""Maintains a node: looks at the program's health, cuts logs, signs the change log, drops what nobody needs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from ashat.node.app_process.health import Repeated
from ashat.node.app_process.slots import SlottedProgram
from ashat.node.context import NodeContext, Service
from ashat.node.operations import records
from ashat.protocol.messages import LostBundle

log = logging.getLogger("ashat.node")

GC_INTERVAL = 3600.0
INVENTORY_INTERVAL = 3600.0
LOST_INTERVAL = 2.0
EXPIRE_INTERVAL = 1.0
CHECKPOINT_INTERVAL = 60.0
_DAY = 86400.0


def services(context: NodeContext) -> Iterator[Service]:
    """List the services that every node has, in the order in which to start them."""
    yield context.operations
    yield Repeated(lambda: _look(context), context.config.app.health_interval, "health")
    if isinstance(context.program, SlottedProgram):
        yield Repeated(context.program.expire, EXPIRE_INTERVAL, "slots")
    yield Repeated(lambda: collect(context), GC_INTERVAL, "gc")
    yield Repeated(_Stocktaking(context).work, LOST_INTERVAL, "inventory", at_once=True)
    yield Repeated(context.proofs.sign, CHECKPOINT_INTERVAL, "journal")


def needed_bundles(context: NodeContext) -> set[str]:
    """List the bundles that the store must keep however old they are: what runs, what ran, what is about to, what is
    offered."""
    standing = records.standing(context.db)
    needed = {current.bundle for current in (standing.current, standing.previous) if current}
    left = records.unfinished(context.db)
    if left:
        needed |= {bundle for bundle in (left.operation.from_, left.operation.to) if bundle}
    offer = context.offer()
    if offer:
        needed.add(offer.bundle)
    return needed.union(*(named() for named in context.keep))


class _Stocktaking:
    """Looks at the start and each hour for what the store lacks of what the node needs, and often while it lacks
    something; what could not be run for want of it is run once it is there."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._looked: float | None = None

    def work(self) -> None:
        inventory, at = self._context.inventory, time.monotonic()
        lost, due = inventory.lost, self._looked is None or at - self._looked >= INVENTORY_INTERVAL
        if self._context.store.rebuild() or due:
            self._looked = at
            inventory.look()
        elif lost:
            inventory.look(restore=False)
        if _runs_without(lost) and not _runs_without(inventory.lost):
            self._context.operations.take_up()


def _runs_without(lost: Iterable[LostBundle]) -> bool:
    return any(one.why == "runs" for one in lost)


def _look(context: NodeContext) -> None:
    context.program.upkeep()
    context.reserve.restore()
    linked = context.releases.linked()
    context.health.look(
        context.program.url if linked else None,
        bundle=(context.program.bundle() or linked.bundle) if linked else None,
    )


def collect(context: NodeContext) -> None:
    """Drop from the store the bundles that are neither needed nor young."""
    swept = context.store.gc(needed_bundles(context), grace=context.config.keep_days * _DAY)
    if swept.bundles or swept.objects:
        log.info("dropped %d bundles and %d objects, %d bytes", swept.bundles, swept.objects, swept.bytes)
