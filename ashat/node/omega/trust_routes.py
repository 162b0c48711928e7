"""The calls of `docs/node-api.md` about whose signatures OMEGA demands: for operators, and for Mainframes."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from ashat.errors import TrustError
from ashat.node import changes
from ashat.node.api_errors import ApiError
from ashat.node.db import Database
from ashat.node.omega.mainframes import check_licence
from ashat.node.omega.register import Register
from ashat.node.omega.routes import Require
from ashat.node.omega.trust import OmegaTrust
from ashat.wire import Scope, TrustMetadata, TrustState


def trust_router(trust: OmegaTrust, database: Database, require: Require) -> APIRouter:
    """The routes for operators; `require(scope)` is the dependency that refuses who may not.

    The journal of changes in `database` says what is kept.
    """
    router = APIRouter(prefix="/v1", tags=["Trust"])
    read, promote = ([Depends(require(scope))] for scope in (Scope.READ, Scope.PROMOTE))

    @router.get("/trust", dependencies=read)
    def state() -> TrustState:
        """Whose signatures OMEGA demands, and what they signed last."""
        return trust.state()

    @router.put("/trust", dependencies=promote)
    def install(given: TrustMetadata) -> TrustState:
        """Keep a first root and targets, or later versions, signed by who holds them."""
        try:
            trust.install(given)
        except TrustError as error:
            raise ApiError(409, "untrusted", str(error)) from None
        changes.follow(database, "trust", trust.kept())
        return trust.state()

    return router


def mainframe_trust_router(trust: OmegaTrust, register: Register) -> APIRouter:
    """The TUF repository, for whoever has a licence that counts."""
    router = APIRouter(prefix="/v1/mainframe", tags=["For a Mainframe"])

    def licensed(request: Request) -> None:
        check_licence(register, request)

    @router.get("/trust/{name:path}", dependencies=[Depends(licensed)], response_class=Response)
    def file(name: str) -> Response:
        """A file of OMEGA's TUF repository, by its name there."""
        return Response(trust.file(name), media_type="application/json")

    return router
