"""The calls of `docs/node-api.md` that a Mainframe makes with its licence."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import APIKeyHeader
from starlette.concurrency import run_in_threadpool

from ashat.common.identifiers import check_licence_key
from ashat.errors import UsageError
from ashat.node.api.bundles import DigestList, manifest_response, object_response, objects_response
from ashat.node.api.declared import DOCUMENT, OBJECT, OBJECTS, Responses, redirected, refused
from ashat.node.core.config import ObjectsConfig
from ashat.node.core.errors import ApiError
from ashat.node.logs.change_log_proofs import ChangeLogProofs
from ashat.node.omega.downloads import Downloads
from ashat.node.omega.fleet.awaited import awaited
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.licences import Licence
from ashat.node.omega.long_poll import Answer, OfferLongPoll
from ashat.node.omega.offers import Offers
from ashat.node.store.store import Store
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.messages import (
    AGENT_HEADER,
    CHANGE_LOG_HEADER,
    FOLLOWS,
    OBJECTS_AT,
    REDIRECTS_HEADER,
    RUN_HEADER,
    TRIES_HEADER,
    Count,
    Digest,
    ObjectsAt,
    Offer,
    SignedCheckpoint,
)
from ashat.protocol.object_address import object_address

WAIT_LIMIT = 30.0
PREFIX = "/v1/mainframe"
_TAG = "For a Mainframe"
_FOR_NOW = {"Cache-Control": "no-store"}
_AGENT, _RUN = AGENT_HEADER.lower(), RUN_HEADER.lower()
REDIRECTS = REDIRECTS_HEADER.lower()
_OBJECTS: Responses = {
    **OBJECTS,
    200: {"content": {**OBJECTS[200]["content"], OBJECTS_AT: {"schema": ObjectsAt.model_json_schema()}}},
    **refused(429),
}
_NO_OFFER: Responses = {
    204: {"description": "Nothing is offered"},
    304: {"description": "What is offered is what the caller knows"},
}
_licence = APIKeyHeader(
    name="Authorization", scheme_name="licence", auto_error=False, description="`Licence KEY`, of a licence kept here."
)


@dataclass
class MainframeDesk:
    """What a Mainframe asks in every rollout, whichever way its question came in."""

    fleet: Fleet
    offers: Offers
    proofs: ChangeLogProofs
    store: Store
    stopping: threading.Event
    objects: ObjectsConfig

    def __post_init__(self) -> None:
        self._poll = OfferLongPoll(self.offers, self.fleet, self.stopping)
        self.downloads, self.elsewhere = Downloads(self.objects.downloads), self.objects.redirect
        self.offered = OfferedObjects(self.offers, self.store)

    def check_licence(self, headers: Mapping[str, str], state: MutableMapping[str, Any]) -> Licence:
        """Find the licence that counts; see the function of that name."""
        return check_licence(self.fleet, headers, state)

    async def release(
        self,
        headers: Mapping[str, str],
        state: MutableMapping[str, Any],
        after: int | None,
        tries: int | None,
        wait: float,
    ) -> Response:
        """Answer what is offered to the Mainframe that asks with those headers, as the route says."""
        licence = self.check_licence(headers, state)
        told = await self._poll.offer_for(licence.id, after, tries, wait)
        if wait:
            self.check_licence(headers, state)
        return _release_response(told, headers.get("if-none-match", ""), after, self.proofs.size())

    def sends_elsewhere(self, headers: Mapping[str, str]) -> bool:
        """Tell whether who asks with those headers is told where objects are, instead of getting them here."""
        return bool(self.elsewhere) and headers.get(REDIRECTS, "").strip().lower() == FOLLOWS

    async def report(self, licence: Licence, report: MainframeReport) -> None:
        """Keep what the Mainframe with that licence reported; on return it is durable.

        Raises:
            ApiError: 404 for what OMEGA never ran.
        """
        self.offers.check_reported(report.release_seq, report.bundle)
        await awaited(self.fleet.mainframes.report(licence, report))


def offer_router(desk: MainframeDesk) -> APIRouter:
    """Make the routes for what is offered, what came of it, and OMEGA's change log."""
    router = APIRouter(prefix=PREFIX, tags=[_TAG])
    licensed = Depends(require_licence(desk.fleet))

    @router.get("/release", dependencies=[licensed], response_model=Offer, responses=_NO_OFFER)
    async def release(
        request: Request,
        after: Count | None = None,
        tries: Count | None = None,
        wait: Annotated[float, Query(ge=0, le=WAIT_LIMIT)] = 0,
    ) -> Response:
        """What is offered to this Mainframe. With `after`, a `release_seq` (0: none), it waits up to `wait` seconds for
        another, or until it is told more than `tries` times to try that one again."""
        return await desk.release(request.headers, request.scope["state"], after, tries, wait)

    @router.post("/report", status_code=204, responses=refused(404))
    async def report(report: MainframeReport, licence: Licence = licensed) -> None:
        """What this Mainframe made of an offer."""
        await desk.report(licence, report)

    @router.get("/journal", dependencies=[licensed], responses=refused(409))
    def changes(since: Count = 0) -> SignedCheckpoint:
        """A signed checkpoint of what was done to OMEGA, with proof that it continues the one of size `since`."""
        return desk.proofs.since(since)

    return router


def offered_bundle_router(desk: MainframeDesk) -> APIRouter:
    """Make the routes for the bytes of the offered bundle."""
    licensed = Depends(require_licence(desk.fleet))
    router = APIRouter(prefix=PREFIX, tags=[_TAG], dependencies=[licensed])
    offered, store = desk.offered, desk.store

    @router.get("/bundles/{digest}", response_class=Response, responses=DOCUMENT | refused(429))
    async def bundle(digest: Digest, request: Request) -> Response:
        """The offered bundle's manifest."""
        offered.check_bundle(digest)
        return await desk.downloads.counted(
            request.scope["state"]["licence"], lambda: run_in_threadpool(manifest_response, store, digest, request)
        )

    @router.post("/objects/fetch", response_class=Response, responses=_OBJECTS)
    async def fetch(asked: DigestList, request: Request) -> Response:
        """Objects of the offered bundle, as frames, in order; or where they are, to who follows (`Ashat-Redirects`)."""
        await run_in_threadpool(offered.check_objects, asked.digests)
        if desk.sends_elsewhere(request.headers):
            at = ObjectsAt(address=desk.elsewhere)
            return Response(at.model_dump_json(), media_type=OBJECTS_AT, headers=_FOR_NOW)
        licence = request.scope["state"]["licence"]
        return await desk.downloads.counted(licence, lambda: objects_response(store, asked.digests, request))

    @router.get("/objects/{digest:object}", response_class=Response, responses=OBJECT | redirected() | refused(429))
    async def one_object(digest: Digest, request: Request) -> Response:
        """One object of the offered bundle; or where it is, to who follows (`Ashat-Redirects`)."""
        await run_in_threadpool(offered.check_objects, [digest])
        if desk.sends_elsewhere(request.headers):
            return Response(status_code=307, headers=_FOR_NOW | {"Location": object_address(desk.elsewhere, digest)})
        return await desk.downloads.counted(
            request.scope["state"]["licence"], lambda: run_in_threadpool(object_response, store, digest, request)
        )

    return router


def require_licence(fleet: Fleet) -> Callable[..., Awaitable[Licence]]:
    """Make a dependency that is the licence which asks; raises as `check_licence` does."""

    async def licensed(request: Request, _: Annotated[str | None, Depends(_licence)] = None) -> Licence:
        return check_licence(fleet, request.headers, request.scope["state"])

    return licensed


def check_licence(fleet: Fleet, headers: Mapping[str, str], state: MutableMapping[str, Any]) -> Licence:
    """Find the licence that a request with those headers comes with, if it counts, and note it in its `state`.

    Its Mainframe is noted as seen either way.

    Raises:
        ApiError: 401 `unauthenticated` without a licence that is kept here; 403 `licence_expired`, `licence_revoked`.
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "licence":
        raise _unauthenticated("This call needs a licence: send 'Authorization: Licence KEY'.")
    try:
        licence = fleet.licences.find(check_licence_key(key.strip()))
    except UsageError as error:
        raise _unauthenticated(str(error)) from None
    if licence is None:
        raise _unauthenticated("OMEGA does not know this licence key. Check it, or ask for a licence.")
    state["licence"] = licence.id
    fleet.mainframes.seen(licence, headers.get(_AGENT, ""), headers.get(_RUN, ""))
    if licence.status == "revoked":
        raise ApiError(
            403, "licence_revoked", f"The licence {licence.id} ({licence.name}) was revoked. Ask for another."
        )
    if licence.status == "expired":
        raise ApiError(
            403,
            "licence_expired",
            f"The licence {licence.id} ({licence.name}) expired at {licence.expires:%Y-%m-%d %H:%M:%S} UTC. Renew it.",
        )
    return licence


class OfferedObjects:
    """What Mainframes may have: the offered bundle's manifest and objects. The last manifest is remembered."""

    def __init__(self, offers: Offers, store: Store) -> None:
        self._offers = offers
        self._store = store
        self._lock = threading.Lock()
        self._of: str | None = None
        self._objects: frozenset[str] = frozenset()

    def check_bundle(self, digest: str) -> None:
        """Refuse any other bundle than the offered one.

        Raises:
            ApiError: 404.
        """
        offer = self._offers.effective()
        if offer is None or digest != offer.bundle:
            raise _not_offered("bundle", digest)

    def check_objects(self, digests: list[str]) -> None:
        """Refuse objects that are not all part of the offered bundle.

        Raises:
            ApiError: 404, naming the first that is not.
        """
        objects = self._allowed()
        outside = next((digest for digest in digests if digest not in objects), None)
        if outside is not None:
            raise _not_offered("object", outside)

    def effective_bundle(self) -> str | None:
        """Return the digest of the offered bundle, None: nothing is offered."""
        offer = self._offers.effective()
        return offer.bundle if offer else None

    def _allowed(self) -> frozenset[str]:
        offer = self._offers.effective()
        if offer is None:
            return frozenset()
        with self._lock:
            if self._of != offer.bundle:
                self._objects = frozenset(self._store.manifest(offer.bundle).objects)
                self._of = offer.bundle
            return self._objects


def _release_response(told: Answer, known: str, after: int | None, log_size: int) -> Response:
    """Answer what is offered, unless it has the ETag `known`, and how many entries the change log has."""
    headers = {CHANGE_LOG_HEADER: str(log_size)}
    if told.tries:
        headers[TRIES_HEADER] = str(told.tries)
    offer = told.offer
    if offer is None:
        return Response(status_code=304 if after and not told.news else 204, headers=headers)
    headers["ETag"] = f'"{offer.release_seq}"'
    if not told.news or headers["ETag"] in known:
        return Response(status_code=304, headers=headers)
    return Response(_offer_json(offer), headers=headers, media_type="application/json")


@lru_cache(8)
def _offer_json(offer: Offer) -> bytes:
    return offer.model_dump_json().encode()


def _unauthenticated(detail: str) -> ApiError:
    return ApiError(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Licence"})


def _not_offered(kind: str, digest: str) -> ApiError:
    return ApiError(404, "not_found", f"The {kind} {digest} is not part of what is offered; ask again what is offered.")
