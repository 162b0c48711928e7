"""The calls of the old protocol, by which installs of RaCore asked for updates before releases were signed.

`GET /api/updates/check?version=V&license=K` and `GET /api/updates/download/{version}?license=K` answer as they did;
every refusal is `{"error": …}`. Only a licence that the owner let do so is served: such an install checks nothing but
that the archive has the sha256 which this very OMEGA names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from ashat.common.identifiers import check_licence_key
from ashat.errors import BundleError, UsageError
from ashat.node.api.bundles import byte_range
from ashat.node.api.declared import Responses
from ashat.node.core.errors import REFUSALS, ApiError
from ashat.node.omega.downloads import Downloads
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.licences import Licence
from ashat.node.omega.offers import Offers
from ashat.node.omega.old_protocol import OldInstalls, version_numbers
from ashat.node.omega.release_zip import ReleaseZip, ReleaseZips
from ashat.node.store.store import Store
from ashat.protocol.messages import Message, Moment, Offer
from ashat.raos_toml.load import raos_toml_of

_CHUNK = 256 * 1024
_ZIP = "application/zip"
_NAMES = {400: "A version or a parameter is wrong", 403: "The licence is not served here", 404: "It is not offered"}
_NAMES[429] = REFUSALS[429]
_REFUSED = {"application/json": {"schema": {"type": "object", "required": ["error"]}}}


class Update(Message):
    """What is offered, against the version that the install said it runs. `sizeBytes` are the archive's bytes."""

    currentVersion: str  # the old protocol spells its keys so
    latestVersion: str
    updateAvailable: bool
    changelog: str
    downloadUrl: str
    sizeBytes: int
    releasedAt: Moment


class Checked(Message):
    """The answer to a check."""

    success: bool
    update: Update


def old_protocol_router(
    fleet: Fleet, installs: OldInstalls, offers: Offers, zips: ReleaseZips, downloads: Downloads
) -> APIRouter:
    """Make the two routes."""
    router, store = APIRouter(prefix="/api/updates", tags=["The old protocol"]), zips.store

    @router.get("/check", response_model=Checked, responses=_refusals(400, 403, 404))
    async def check(request: Request, version: Asked = "", license: Asked = "") -> Response:  # noqa: A002
        """What is offered, and whether it is newer than `version`."""
        licence = await run_in_threadpool(_served, fleet, license, request)
        if isinstance(licence, JSONResponse):
            return licence
        offer, latest = await run_in_threadpool(_offered, offers, store)
        if version_numbers(version) is None and version != latest:
            return _refused(400, "version is no dotted version, such as 9.4.1")
        await run_in_threadpool(installs.says, licence, version, offer, latest)
        if offer is None:
            return _refused(404, "no version is offered")
        available = _newer(latest, version) and await _may_have(fleet, licence, offer)
        archive = await zips.of(offer.bundle)
        update = Update(
            currentVersion=version,
            latestVersion=latest,
            updateAvailable=available,
            changelog=offer.update_id,
            downloadUrl=f"/api/updates/download/{quote(latest, safe='')}",
            sizeBytes=archive.size,
            releasedAt=await run_in_threadpool(offers.released_at, offer),
        )
        return Response(Checked(success=True, update=update).model_dump_json(), media_type="application/json")

    @router.get("/download/{version}", response_class=Response, responses=_ARCHIVE | _refusals(400, 403, 404, 416, 429))
    async def download(request: Request, version: str, license: Asked = "") -> Response:  # noqa: A002
        """The offered release as a ZIP file, whose sha256 is in X-Checksum-SHA256; `Range` asks for a part."""
        licence = await run_in_threadpool(_served, fleet, license, request)
        if isinstance(licence, JSONResponse):
            return licence
        offer, latest = await run_in_threadpool(_offered, offers, store)
        numbers = version_numbers(version)
        if numbers is None and version != latest:
            return _refused(400, "version is no dotted version, such as 9.4.1")
        if offer is None or (version != latest and numbers != version_numbers(latest)):
            return _refused(404, "this version is not offered; check for updates again")
        if not await _may_have(fleet, licence, offer):
            return _refused(404, "this version is not offered to this install yet; check for updates again later")
        return await _counted(downloads, licence, partial(_packed, zips, offer.bundle, latest, request))

    return router


Asked = Annotated[str, Query(max_length=200)]


def _served(fleet: Fleet, key: str, request: Request) -> Licence | JSONResponse:
    """The licence with `key`, if it is served here; else the refusal, without the key."""
    try:
        licence = fleet.licences.find(check_licence_key(key.strip().upper()))
    except UsageError:
        return _refused(403, "the license is not valid")
    if licence is None:
        return _refused(403, "the license is not valid")
    request.state.licence = licence.id
    fleet.mainframes.seen(licence)
    if licence.status != "active":
        return _refused(403, f"the license is {licence.status}")
    if not licence.old_protocol:
        return _refused(403, "the license is not for this protocol: update with ashat-node, or ask its owner")
    return licence


async def _may_have(fleet: Fleet, licence: Licence, offer: Offer) -> bool:
    """Tell whether the install's wave is open, as that of any other Mainframe."""
    return await asyncio.wrap_future(fleet.rollouts.offer_to(licence.id, offer)) is not None


def _offered(offers: Offers, store: Store) -> tuple[Offer | None, str]:
    """What is offered, and its version; nothing where it names none."""
    offer = offers.effective()
    if offer is None:
        return None, ""
    manifest = store.manifest(offer.bundle)

    def read(path: str) -> bytes:
        return b"".join(store.read(digest) for digest, _ in manifest.by_path[path].objects())

    try:
        return offer, raos_toml_of(manifest, read).raos.version
    except BundleError:
        return None, ""


async def _counted(downloads: Downloads, licence: Licence, make: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await downloads.counted(licence.id, make)
    except ApiError as error:
        return JSONResponse({"error": error.detail}, error.status, error.headers)


def _newer(latest: str, version: str) -> bool:
    """Whether to update: by number, and where the newest is no dotted version, whenever it is another one."""
    numbers, known = version_numbers(latest), version_numbers(version)
    return latest != version if numbers is None or known is None else numbers > known


async def _packed(zips: ReleaseZips, bundle: str, version: str, request: Request) -> Response:
    return _archive(await zips.of(bundle), version, request)


def _archive(archive: ReleaseZip, version: str, request: Request) -> Response:
    headers = {
        "ETag": f'"{archive.sha256}"',
        "X-Checksum-SHA256": archive.sha256,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''RaCore-{quote(version, safe='')}.zip",
    }
    try:
        asked = byte_range(request, archive.sha256, archive.size)
    except ApiError as error:
        return JSONResponse({"error": error.detail}, error.status, error.headers)
    first, last = asked or (0, archive.size - 1)
    if asked:
        headers["Content-Range"] = f"bytes {first}-{last}/{archive.size}"
    headers["Content-Length"] = str(last + 1 - first)
    file = archive.path.open("rb")
    file.seek(first)

    def part() -> Iterator[bytes]:
        left = last + 1 - first
        with file:
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk

    return StreamingResponse(part(), 206 if asked else 200, headers, _ZIP)


def _refused(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status)


def _refusals(*statuses: int) -> Responses:
    names = {**_NAMES, 416: "It has no such bytes"}
    return {status: {"description": names[status], "content": _REFUSED} for status in statuses}


def _bytes(description: str) -> dict[str, Any]:
    return {"description": description, "content": {_ZIP: {"schema": {"type": "string", "format": "binary"}}}}


_ARCHIVE: Responses = {200: _bytes("The archive"), 206: _bytes("The part of it that was asked for")}
