"""The calls of `docs/node-api.md` about licences: to keep some, to renew one, to revoke one, to list them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from fastapi import APIRouter, Depends, Response

from ashat.common.identifiers import check_licence_key
from ashat.errors import UsageError
from ashat.node.api.declared import refused
from ashat.node.core.errors import ApiError
from ashat.node.omega.api import Require, known_mainframe
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.licences import Licence
from ashat.protocol.fleet import Mainframe
from ashat.protocol.licences import (
    LicenceKept,
    LicenceRequest,
    LicenceRequests,
    LicenceState,
    LicenceTerm,
    check_licence_name,
)
from ashat.protocol.messages import Message, Scope


class Licences(Message):
    """Every licence."""

    licences: list[LicenceState]


class LicencesKept(Message):
    """What OMEGA was told to keep, in that order."""

    licences: list[LicenceKept]


def licences_router(fleet: Fleet, require: Require) -> APIRouter:
    """Make the routes; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1/licences", tags=["OMEGA"])
    read, keep = ([Depends(require(scope))] for scope in (Scope.READ, Scope.LICENCES))
    store = fleet.licences

    @router.get("", dependencies=read)
    def licences() -> Licences:
        """Every licence, by name; never a key."""
        return Licences(licences=[licence.told() for licence in store.all()])

    @router.put(
        "",
        dependencies=keep,
        status_code=201,
        responses={200: {"model": Mainframe, "description": "It was kept already"}},
    )
    def put_licence(wanted: LicenceRequest, response: Response) -> Mainframe:
        """Keep a licence, or renew one that is kept: 201 where it is new, else 200."""
        ((licence, new),) = _keep(fleet, [wanted])
        response.status_code = 201 if new else 200
        return known_mainframe(fleet, licence.id)

    @router.post("", dependencies=keep)
    def put_licences(wanted: LicenceRequests) -> LicencesKept:
        """Keep licences, or renew those that are kept: all of them or none."""
        kept = _keep(fleet, wanted.licences)
        return LicencesKept(licences=[LicenceKept(**dict(licence.told()), new=new) for licence, new in kept])

    @router.post("/{licence_id}/renew", dependencies=keep, responses=refused(404, 409))
    def renew(licence_id: str, term: LicenceTerm) -> LicenceState:
        """Have a licence end at another time, or never."""
        found = store.renew(licence_id, term.expires)
        if found is None:
            raise _unknown(licence_id)
        if found.status == "revoked":
            raise ApiError(409, "licence_revoked", f"The licence {found.id} was revoked for good. Make another.")
        return found.told()

    @router.post("/{licence_id}/revoke", dependencies=keep, responses=refused(404))
    def revoke(licence_id: str) -> Mainframe:
        """Honour a licence no more, for good: nothing is offered to it from now on."""
        if store.revoke(licence_id) is None:
            raise _unknown(licence_id)
        return known_mainframe(fleet, licence_id)

    return router


def _keep(fleet: Fleet, wanted: Iterable[LicenceRequest]) -> list[tuple[Licence, bool]]:
    """Keep all of `wanted`.

    Raises:
        ApiError: 400 where a key or a name is none, or two have the same key; nothing was kept.
    """
    rows: dict[str, tuple[str, str, datetime | None]] = {}
    old: dict[str, bool] = {}
    for number, each in enumerate(wanted, 1):
        try:
            key, name = check_licence_key(each.key), check_licence_name(each.name)
        except UsageError as error:
            raise ApiError(400, "bad_request", f"Licence {number}: {error}") from None
        if key in rows:
            raise ApiError(400, "bad_request", f"Licence {number} has the key of one before it. Nothing was kept.")
        rows[key] = (key, name, each.expires)
        if each.old_protocol is not None:
            old[key] = each.old_protocol
    return fleet.licences.keep_all(list(rows.values()), old)


def _unknown(licence_id: str) -> ApiError:
    return ApiError(404, "not_found", f"There is no licence {licence_id[:40]!r} here; GET /v1/licences lists all.")
