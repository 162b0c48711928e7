"""The calls of `docs/node-api.md` about whose signatures OMEGA demands, and the log that they signed for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from ashat.errors import TrustError
from ashat.node.api.declared import answered, refused
from ashat.node.core.db import Database
from ashat.node.core.errors import ApiError
from ashat.node.logs import change_log
from ashat.node.omega.api import Require
from ashat.node.omega.api_mainframe import require_licence
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.ledger_log import KeptLog
from ashat.node.omega.trust import OmegaTrust
from ashat.protocol.messages import Count, LogLeaves, LogProof, LogState, Scope, TrustMetadata, TrustState


def trust_router(trust: OmegaTrust, kept: KeptLog, database: Database, require: Require) -> APIRouter:
    """Make the routes for operators; `require(scope)` is the dependency that refuses who may not.

    The change log in `database` says what is kept.
    """
    router = APIRouter(prefix="/v1", tags=["Trust"])
    read, promote = ([Depends(require(scope))] for scope in (Scope.READ, Scope.PROMOTE))

    @router.get("/trust", dependencies=read, responses=refused(409))
    def state() -> TrustState:
        """Whose signatures OMEGA demands, and what they signed last."""
        try:
            return trust.state().model_copy(update={"log": kept.state()})
        except TrustError as error:
            raise ApiError(409, "untrusted", str(error)) from None

    @router.put("/trust", dependencies=promote, responses=refused(409))
    def install(given: TrustMetadata) -> TrustState:
        """Keep a first root and targets, or later versions, signed by who holds them."""
        try:
            trust.install(given)
        except TrustError as error:
            raise ApiError(409, "untrusted", str(error)) from None
        change_log.follow(database, "trust", trust.kept())
        return state()

    @router.put("/log", dependencies=promote, responses=refused(409))
    def extend(given: LogLeaves) -> LogState:
        """Keep the log that a signed release names, before that is promoted."""
        if not trust.demands():
            raise ApiError(409, "trust_missing", "OMEGA keeps no trust root, so it cannot know whose log counts.")
        document = trust.read_signed(given.signed)
        return kept.extend(document, given.first, [bytes.fromhex(leaf) for leaf in given.leaves])

    return router


def mainframe_trust_router(trust: OmegaTrust, kept: KeptLog, fleet: Fleet) -> APIRouter:
    """Make the routes of the TUF repository and of proofs from the log, for whoever has a licence that counts."""
    licensed = Depends(require_licence(fleet))
    router = APIRouter(prefix="/v1/mainframe", tags=["For a Mainframe"], dependencies=[licensed])

    @router.get("/log/consistency", responses=refused(404))
    def consistency(
        earlier: Annotated[Count, Query(alias="from")], size: Annotated[Count, Query(alias="to")]
    ) -> LogProof:
        """What proves that the log of `to` events begins with that of `from`."""
        return LogProof(proof=[node.hex() for node in kept.proof(earlier, size)])

    @router.get("/trust/{name:path}", response_class=Response, responses=answered("application/json") | refused(404))
    async def file(name: str) -> Response:
        """A file of OMEGA's TUF repository, by its name there."""
        return Response(trust.file(name), media_type="application/json")

    return router
