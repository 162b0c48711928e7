"""The calls of `docs/node-api.md` about windows and freezes of the fleet."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from ashat.errors import UsageError
from ashat.node.api.declared import refused
from ashat.node.core.errors import ApiError
from ashat.node.logs.change_log import who
from ashat.node.omega.api import Require
from ashat.node.omega.fleet.fleet import Fleet
from ashat.protocol.fleet import Freeze, FreezeRequest
from ashat.protocol.messages import Message, Scope
from ashat.rollouts.labels import parse_label

Identity = Annotated[str, Path(max_length=12, pattern=r"^[0-9a-f]+$")]


class Freezes(Message):
    """The windows and freezes of the fleet."""

    freezes: list[Freeze]


def freezes_router(fleet: Fleet, require: Require) -> APIRouter:
    """Make the routes; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1/freezes", tags=["OMEGA"])
    read, promote = ([Depends(require(scope))] for scope in (Scope.READ, Scope.PROMOTE))

    @router.get("", dependencies=read)
    def freezes() -> Freezes:
        """The windows and freezes of the fleet, in the order in which they were added."""
        return Freezes(freezes=fleet.freezes.all())

    @router.post("", dependencies=promote, responses=refused(404, 409))
    def add(wanted: FreezeRequest) -> Freeze:
        """Hold back what is offered in some time, or but for some time. The same again changes nothing."""
        try:
            if wanted.scope == "label":
                parse_label(wanted.subject)
            elif wanted.scope == "fleet" and wanted.subject:
                raise UsageError("A window or a freeze of the whole fleet has no subject.")
            added = fleet.freezes.add(wanted, wanted.by or who())
        except UsageError as error:
            raise ApiError(400, "bad_request", str(error)) from None
        fleet.relay()
        return added

    @router.delete("/{freeze}", dependencies=promote, status_code=204, responses=refused(404))
    def remove(freeze: Identity) -> None:
        """Forget a window or a freeze."""
        fleet.freezes.remove(freeze, who())
        fleet.relay()

    return router
