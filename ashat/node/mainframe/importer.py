"""Installs what was carried to a Mainframe by hand: every check of the wire, and the owner's rules, hold for it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, Protocol

from ashat.bundle.manifest import MANIFEST_LIMIT
from ashat.client.transfer import Progress, RequireRoom
from ashat.common.failpoints import fault_point
from ashat.common.identifiers import key_hash, licence_id
from ashat.errors import AshatError, CarriedFileError, LicenceError, StoreError, TrustError
from ashat.node.app_process.commands import is_urgent
from ashat.node.context import NodeContext
from ashat.node.core.db import now
from ashat.node.core.errors import ApiError
from ashat.node.mainframe.barrier import barrier
from ashat.node.mainframe.carried import check_addressee, check_change_log, check_signed, check_unexpired, take_bundle
from ashat.node.mainframe.imports import Import, Imports, Status
from ashat.node.mainframe.offer_verifier import OfferVerifier
from ashat.node.mainframe.omega_client import read_licence
from ashat.node.mainframe.omega_witness import OmegaWitness
from ashat.node.mainframe.own_rules import IMPORTED, OwnRules
from ashat.node.mainframe.plan import Failed, Install, Position, Running, plan
from ashat.node.operations import records
from ashat.protocol.carried import CarriedFile, CarriedReport
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.messages import Offer

log = logging.getLogger("ashat.node.mainframe")

LICENCE = "licence"
_WORDS = 1000


class Switch(Protocol):
    """Switches to what an offer brought, and waits for the end; `refused` is told why the node does not even begin."""

    def __call__(self, offer: Offer, attempt: int, running: str | None, refused: Callable[[str], None]) -> object:
        """Raise ApiError where the node cannot switch now."""
        ...


class Importer:
    """Takes up the import, for the agent's thread: `switch` is how that switches, `position` what it knows of what
    runs, `witness` what it remembers of OMEGA's change log, and
    `room` how it looks for room on the disk."""

    def __init__(
        self,
        context: NodeContext,
        *,
        switch: Switch,
        position: Callable[[], Position],
        witness: OmegaWitness,
        room: RequireRoom,
        progress: Progress,
    ) -> None:
        self._context = context
        self._imports = Imports(context.config.data, context.db)
        self._verifier = OfferVerifier(context.config)
        self._rules = OwnRules(context.config, context.db, key=IMPORTED)
        self._switch = switch
        self._position = position
        self._witness = witness
        self._room = room
        self._progress = progress

    def note_licence(self) -> None:
        """Note in the record which licence this Mainframe has, so that `ashat-node import` can say whose a file is."""
        try:
            known = licence_id(read_licence(self._context.config))
        except LicenceError:
            known = ""
        with suppress(sqlite3.Error):  # a full disk keeps nobody from asking
            self._context.db.set_meta(LICENCE, known)

    def handed_over(self) -> str:
        """Name the import that was handed over and not looked at yet; "" where there is none."""
        found = self._imports.pending()
        return found.id if found is not None and found.status == "handed-over" else ""

    def keeps(self) -> list[str]:
        """List the bundle that was imported and is still to be switched to."""
        found = self._imports.pending()
        return [found.offer.bundle] if found is not None and found.offer is not None else []

    def take(self) -> bool:
        """Take up the import, if there is one; tell whether anything was switched. What is wrong with it ends it.

        Raises:
            ApiError: the node cannot switch now.
            sqlite3.Error: the record cannot be written; the import is taken up again.
        """
        found = self._imports.pending()
        if found is None:
            return False
        try:
            found = found if found.taken else self._take_in(found)
            return self._go_on(found)
        except (CarriedFileError, TrustError) as error:
            self._end(found, "refused", str(error))
        except (AshatError, OSError) as error:
            self._end(found, "failed", str(error))
        except (ApiError, sqlite3.Error):
            raise
        except Exception:
            if self._context.stopping.is_set():
                raise
            log.exception("the import of %s failed unexpectedly", found.file)
            self._end(found, "failed", "It could not be dealt with; the node's log says why.")
        return False

    def _take_in(self, found: Import) -> Import:
        """Verify the file, and take all of it into the store; the import then needs the file no more."""
        with self._opened(found) as carried:
            word = carried.word
            check_addressee(word, licence_id(read_licence(self._context.config)))
            self._check_newer(found, word.offer)
            self._witness.refuse_doubted()
            check_change_log(self._witness.witness, word)
            signed = check_signed(self._verifier, word, self._context.config.import_days)
            moved = take_bundle(carried, self._context.store, self._room, self._progress)
            log.info(
                "%s brought %s: %d objects, %d bytes",
                found.file,
                word.offer.update_id,
                moved.objects_sent,
                moved.bytes_sent,
            )
            fault_point("mainframe.pulled")
            expires = signed.expires if signed is not None else None
            return self._imports.keep(
                found.model_copy(
                    update={"offer": word.offer, "taken": True, "expires": expires, "status": "installing"}
                )
            )

    @contextmanager
    def _opened(self, found: Import) -> Iterator[CarriedFile]:
        try:
            with self._imports.path(found.id).open("rb") as file:
                yield CarriedFile(file, found.file, manifest_limit=MANIFEST_LIMIT)
        except FileNotFoundError:
            raise CarriedFileError(f"The copy of {found.file} is not here any more; import it again.") from None

    def _check_newer(self, found: Import, offer: Offer) -> None:
        accepted = self._position().accepted_seq
        if offer.release_seq < accepted:
            raise CarriedFileError(
                f"{found.file} holds release_seq {offer.release_seq}, and {accepted} was accepted here before: an "
                "older release is refused. Have what OMEGA offers now exported."
            )

    def _go_on(self, found: Import) -> bool:
        """Do what is to be done next about what the file brought."""
        offer, position = found.offer, self._position()
        assert offer is not None
        same = position.accepted_seq == offer.release_seq
        failures = position.failures if same else 0
        if found.failures is None:
            found = self._imports.keep(found.model_copy(update={"failures": failures}))
        elif same and failures > found.failures:
            output = records.output_of_release(self._context.db, offer.release_seq)
            self._end(found, "failed", position.reason, output)
            return False
        match plan(offer, position, failed_ago=float("inf"), retry_delay=0.0, just_started=True):
            case Running():
                self._end(found, "running", "")
            case Failed(_, reason, _):
                self._end(found, "refused", reason)
            case Install(_, attempt):
                return self._install(found, offer, attempt, position.current_bundle)
            case _:
                raise AssertionError("an offer is always dealt with")
        return False

    def _install(self, found: Import, offer: Offer, attempt: int, running: str | None) -> bool:
        check_unexpired(offer, found.expires, now())
        if self._context.store.missing(self._context.store.manifest(offer.bundle).objects):
            raise StoreError(f"What {found.file} brought is not here any more; import it again.")
        if why := barrier(self._context, offer.bundle, running):
            self._end(found, "refused", f"it is not tried: {why}")
            return False
        if why := self._rules.why_wait(offer, now(), lambda: is_urgent(self._context.store, offer.bundle)):
            self._wait(found, offer, why)
            return False
        found = self._imports.keep(found.model_copy(update={"status": "installing"}))
        self._switch(offer, attempt, running, lambda why: self._end(found, "refused", why))
        return True

    def _wait(self, found: Import, offer: Offer, why: str) -> None:
        detail = f"{offer.update_id} is here and waits {why}"
        if (found.status, found.detail) != ("waiting", detail):
            log.info("%s.", detail)
            report = self._signed(found, "waiting", detail, ())
            self._imports.keep(found.model_copy(update={"status": "waiting", "detail": detail, "report": report}))

    def _end(self, found: Import, status: Status, detail: str, output: Sequence[str] = ()) -> None:
        """Note how it ended, with the report that goes back to OMEGA."""
        found = self._imports.last() or found
        self._rules.done()
        detail = detail[:_WORDS]
        (log.info if status == "running" else log.warning)(
            "the import of %s: %s", found.file, detail if status != "running" else "it runs here"
        )
        result: Literal["running", "failed"] = "running" if status == "running" else "failed"
        reason = f"refused: {detail}" if status == "refused" else detail
        report = self._signed(found, result, reason, output)
        self._imports.keep(found.model_copy(update={"status": status, "detail": detail, "report": report}))

    def _signed(
        self, found: Import, result: Literal["running", "failed", "waiting"], reason: str, output: Sequence[str]
    ) -> CarriedReport | None:
        """Write the report; None about a file that was never verified, of which nothing is known."""
        if found.offer is None:
            return None
        try:
            key = read_licence(self._context.config)
        except LicenceError as error:
            log.warning("the import of %s cannot be reported: %s", found.file, error)
            return None
        report = MainframeReport(
            release_seq=found.offer.release_seq,
            bundle=found.offer.bundle,
            result=result,
            reason=reason[:_WORDS],
            output=tuple(output) if self._context.config.app.report_output else (),
        )
        return CarriedReport.write(key_hash(key), licence_id(key), now(), report)
