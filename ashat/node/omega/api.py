"""OMEGA's own calls of `docs/node-api.md`: the offer, the Mainframes, and what became of it on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BeforeValidator

from ashat.errors import UsageError
from ashat.node.api.declared import refused
from ashat.node.core.errors import ApiError
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.mainframes import ReportLine
from ashat.node.omega.offers import Offers
from ashat.protocol.fleet import Mainframe, MainframeLabels, MainframeThen
from ashat.protocol.messages import Message, Moment, Offer, Scope
from ashat.rollouts.labels import check_labels

Require = Callable[[Scope], Callable[..., Any]]


def _dated(text: object) -> object:
    """Refuse a number, which would count as seconds since 1970."""
    if not isinstance(text, str) or not text[:4].isdigit() or text[4:5] != "-":
        raise ValueError("a time is written as 2026-11-30T12:00:00Z")
    return text


Dated = Annotated[Moment, BeforeValidator(_dated)]


class Mainframes(Message):
    """Every licensed install."""

    mainframes: list[Mainframe]


class MainframesThen(Message):
    """What each licensed install ran at some time."""

    mainframes: list[MainframeThen]


class Reports(Message):
    """What a Mainframe reported, newest first."""

    reports: list[ReportLine]


def omega_router(fleet: Fleet, offers: Offers, require: Require) -> APIRouter:
    """Make the routes; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1", tags=["OMEGA"])
    read, promote = ([Depends(require(scope))] for scope in (Scope.READ, Scope.PROMOTE))

    @router.put("/offer", dependencies=promote, responses=refused(409))
    def put_offer(offer: Offer) -> Offer:
        """Offer to Mainframes what OMEGA runs."""
        offers.put(offer)
        return offer

    @router.get("/mainframes", dependencies=read)
    def mainframes() -> Mainframes:
        """Every licensed install, and the last thing that it reported."""
        held = fleet.freezes.held()
        found = fleet.mainframes.all()
        if held:
            found = [one.model_copy(update={"held": held.get(one.id, "")}) for one in found]
        return Mainframes(mainframes=found)

    @router.get("/mainframes/then", dependencies=read)
    def then(at: Dated) -> MainframesThen:
        """What each install had reported to run by the time `at`."""
        return MainframesThen(mainframes=fleet.mainframes.then(at))

    @router.get("/mainframes/{licence_id}/reports", dependencies=read, responses=refused(404))
    def reports(licence_id: str, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Reports:
        """The history of one install, newest first."""
        known_mainframe(fleet, licence_id)
        return Reports(reports=fleet.mainframes.reports(licence_id, limit))

    @router.put("/mainframes/{licence_id}/labels", dependencies=promote, responses=refused(404))
    def label(licence_id: str, given: MainframeLabels) -> Mainframe:
        """Give an install those labels, and no others."""
        known_mainframe(fleet, licence_id)
        try:
            labels = check_labels(given.labels)
        except UsageError as error:
            raise ApiError(400, "bad_request", str(error)) from None
        fleet.mainframes.label(licence_id, labels)
        return known_mainframe(fleet, licence_id)

    return router


def known_mainframe(fleet: Fleet, licence_id: str) -> Mainframe:
    """Find what OMEGA knows of the install with that licence.

    Raises:
        ApiError: 404.
    """
    found = fleet.mainframes.named(licence_id)
    if found is None:
        raise ApiError(404, "not_found", f"There is no licence {licence_id[:40]!r} here; GET /v1/mainframes lists all.")
    return found
