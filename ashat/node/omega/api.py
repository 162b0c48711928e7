"""OMEGA's own calls of `docs/node-api.md`: the offer, the licences, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from ashat.common.identifiers import check_licence_key
from ashat.errors import UsageError
from ashat.node.api.declared import refused
from ashat.node.core.errors import ApiError
from ashat.node.omega.licences import LicenceStore, ReportLine
from ashat.node.omega.offers import Offers
from ashat.protocol.messages import LicenceRequest, Mainframe, Message, Offer, Scope

Require = Callable[[Scope], Callable[..., Any]]


class Mainframes(Message):
    """Every licensed install."""

    mainframes: list[Mainframe]


class Reports(Message):
    """What a Mainframe reported, newest first."""

    reports: list[ReportLine]


def omega_router(licences: LicenceStore, offers: Offers, require: Require) -> APIRouter:
    """Make the routes; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1", tags=["OMEGA"])
    read, promote, admin = ([Depends(require(scope))] for scope in (Scope.READ, Scope.PROMOTE, Scope.ADMIN))

    @router.put("/offer", dependencies=promote, responses=refused(409))
    def put_offer(offer: Offer) -> Offer:
        """Offer to Mainframes what OMEGA runs."""
        offers.put(offer)
        return offer

    @router.get("/mainframes", dependencies=read)
    def mainframes() -> Mainframes:
        """Every licensed install, and the last thing that it reported."""
        return Mainframes(mainframes=licences.mainframes())

    @router.get("/mainframes/{licence_id}/reports", dependencies=read, responses=refused(404))
    def reports(licence_id: str, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Reports:
        """The history of one install, newest first."""
        _known(licences, licence_id)
        return Reports(reports=licences.reports(licence_id, limit))

    @router.put(
        "/licences",
        dependencies=admin,
        status_code=201,
        responses={200: {"model": Mainframe, "description": "It was kept already"}},
    )
    def put_licence(wanted: LicenceRequest, response: Response) -> Mainframe:
        """Keep a licence, or renew one that is kept: 201 where it is new, else 200."""
        try:
            key = check_licence_key(wanted.key)
        except UsageError as error:
            raise ApiError(400, "bad_request", str(error)) from None
        licence, new = licences.upsert(key, wanted.name, wanted.expires)
        response.status_code = 201 if new else 200
        return _known(licences, licence.id)

    @router.post("/licences/{licence_id}/revoke", dependencies=admin, responses=refused(404))
    def revoke(licence_id: str) -> Mainframe:
        """Honour a licence no more, for good."""
        licences.revoke(licence_id)
        return _known(licences, licence_id)

    return router


def _known(licences: LicenceStore, licence_id: str) -> Mainframe:
    found = next((known for known in licences.mainframes() if known.id == licence_id), None)
    if found is None:
        raise ApiError(404, "not_found", f"There is no licence {licence_id[:40]!r} here; GET /v1/mainframes lists all.")
    return found
