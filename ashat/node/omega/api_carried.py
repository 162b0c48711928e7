"""The calls of `docs/node-api.md` for releases that people carry to a Mainframe by hand, and for what comes back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from ashat.errors import TrustError
from ashat.node.api.declared import refused
from ashat.node.core.db import now
from ashat.node.core.errors import ApiError
from ashat.node.logs.change_log_proofs import ChangeLogProofs
from ashat.node.omega.api import Require, known_mainframe
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.ledger_log import KeptLog
from ashat.node.omega.offers import Offers
from ashat.node.omega.trust import OmegaTrust
from ashat.protocol.carried import CarriedReport, OmegaWord
from ashat.protocol.fleet import Mainframe, MainframeReport
from ashat.protocol.messages import Scope
from ashat.trust.release.repository import Repository
from ashat.trust.tuf.release_document import ReleaseDocument

_REASON_LENGTH = 2000
_FRESH = 0.95  # of the time for which OMEGA says that its files are the newest is left to whoever carries them


def carried_router(
    name: str,
    fleet: Fleet,
    offers: Offers,
    trust: OmegaTrust,
    kept: KeptLog,
    proofs: ChangeLogProofs,
    require: Require,
) -> APIRouter:
    """Make the routes of the OMEGA called `name`; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1/mainframes", tags=["OMEGA"])
    read, promote = ([Depends(require(scope))] for scope in (Scope.READ, Scope.PROMOTE))

    @router.get("/{licence_id}/word", dependencies=read, responses=refused(404, 409))
    def word(licence_id: str) -> OmegaWord:
        """What that Mainframe would be told over the wire about what is offered now, to be carried there by hand."""
        found = known_mainframe(fleet, licence_id)
        offer = offers.effective()
        if offer is None:
            raise ApiError(404, "not_found", "OMEGA offers nothing yet, so there is nothing to carry.")
        checkpoint, changes = proofs.whole()
        return OmegaWord(
            omega=name,
            mainframe=found.id,
            name=found.name,
            at=now(),
            offer=offer,
            runs=found.bundle if found.result == "running" else None,
            log=b"".join(kept.leaves()).hex(),
            changes=b"".join(changes).hex(),
            checkpoint=checkpoint,
            **_signed(trust),
        )

    @router.post("/{licence_id}/carried-report", dependencies=promote, responses=refused(404, 409))
    def report(licence_id: str, given: CarriedReport) -> Mainframe:
        """What a Mainframe made of a release that was carried to it, as its licence key authenticates."""
        known, keyed = known_mainframe(fleet, licence_id), fleet.licences.keyed(licence_id)
        if keyed is None or given.mainframe != licence_id or not given.is_by(keyed[1]):
            raise ApiError(409, "untrusted", f"{known.name} did not write this report, or it was altered since.")
        offers.check_reported(given.report.release_seq, given.report.bundle)
        if (known.release_seq or 0) > given.report.release_seq:
            raise ApiError(
                409, "report_superseded", f"{known.name} has reported about release_seq {known.release_seq} since."
            )
        fleet.mainframes.report(keyed[0], _marked(given), seen=False).result()
        return known_mainframe(fleet, licence_id)

    return router


def _signed(trust: OmegaTrust) -> dict[str, Any]:
    """The files that were signed, and until when OMEGA says that they are the newest."""
    try:
        trust.renew(share=_FRESH)
        return {"trust": served_files(trust.repository) if trust.begun() else {}, "expires": trust.state().expires}
    except TrustError as error:
        raise ApiError(409, "untrusted", str(error)) from None


def _marked(given: CarriedReport) -> MainframeReport:
    """The report, with how it came in its reason."""
    told, carried = given.report, f"carried by hand, written {given.written_at:%Y-%m-%d %H:%M} UTC"
    return told.model_copy(update={"reason": f"{carried}: {told.reason}"[:_REASON_LENGTH] if told.reason else carried})


def served_files(repository: Repository) -> dict[str, str]:
    """Read, by its name, every file that a Mainframe may fetch to see what was released last, whatever root it knows.

    Raises:
        TrustError: the repository is not whole.
    """
    held = repository.read()
    assert held.snapshot is not None
    versions = {role: meta.version for role, meta in held.snapshot.signed.meta.items()}
    names = {path.name for path in repository.directory.glob("*.root.json")}
    names |= {"timestamp.json", f"{held.snapshot.signed.version}.snapshot.json"}
    names |= {f"{version}.{role}" for role, version in versions.items()}
    files = {name: _text(repository, name) for name in sorted(names)}
    for target in held.production.signed.targets.values() if held.production else ():
        name = f"targets/{target.get_prefixed_paths()[0]}"
        files[name] = _text(repository, name)
        digest = ReleaseDocument.from_bytes(files[name].encode()).provenance
        if digest is not None:
            name = f"targets/provenance/{digest}.json"
            files[name] = _text(repository, name)
    return files


def _text(repository: Repository, name: str) -> str:
    try:
        return (repository.directory / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrustError(f"{repository.directory / name} cannot be read: {error}.") from None
