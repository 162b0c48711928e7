"""Verifies that the approvers signed what OMEGA offers, and believes nothing that OMEGA says."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import Root

from ashat.common.failpoints import fault_point
from ashat.common.files import read_bounded
from ashat.errors import NodeRefusedError, RolledBackError, TrustError, UnsignedError
from ashat.node.core.config import NodeConfig
from ashat.protocol.messages import Offer
from ashat.trust.tuf.metadata import parse
from ashat.trust.tuf.release_document import ReleaseDocument
from ashat.trust.update_client.client import ReleaseClient
from ashat.trust.update_client.fetcher import ServedRepository

PATH: Final = "v1/mainframe/trust"
LOG_PATH: Final = "v1/mainframe/log"
LOOK_INTERVAL: Final = 3600.0
_LIMIT = 1 << 20


class OfferVerifier:
    """Judges offers by the root that came with the installer (`trust_root`). For one thread."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._cache = config.data / "trust"
        self._looked = -LOOK_INTERVAL

    def check(
        self, served: ServedRepository, offer: Offer, *, grace: timedelta = timedelta()
    ) -> ReleaseDocument | None:
        """See that the approvers signed exactly this offer; return what they signed, None where nobody has to sign.
        OMEGA's word that it is the newest may have ended no longer ago than `grace`.

        Raises:
            UnsignedError: they did not, or there is no root here to know them by.
            MixAndMatchError: under this number they signed something else.
            RolledBackError: they signed a later one since.
            TrustError: of other classes; see `ReleaseClient.latest_release`.
            NodeError: OMEGA said no, or nothing.
        """
        if self.trusts_anyone():
            return None
        signed = self._latest(served, grace)
        if signed.release_seq < offer.release_seq:
            raise UnsignedError(f"the approvers signed release_seq {signed.release_seq} last, and not this one.")
        if signed.release_seq > offer.release_seq:
            raise RolledBackError(f"the approvers signed a later one since, {signed.release_seq}: this is an old one.")
        signed.require(bundle=offer.bundle, update_id=offer.update_id, attempt=offer.attempt)
        fault_point("trust.accepted")
        return signed

    def look(self, served: ServedRepository) -> None:
        """See now and then that OMEGA still serves what is current: else somebody withholds what is newer.

        Raises:
            TrustError: it does not.
            NodeError: OMEGA said no, or nothing.
        """
        if self.trusts_anyone() or time.monotonic() - self._looked < LOOK_INTERVAL:
            return
        self._latest(served)

    def lack(self) -> str:
        """Say what keeps any offer from being verified here, whatever OMEGA serves; "" where nothing does."""
        if self.trusts_anyone():
            return ""
        try:
            parse(self._root(), Root, str(self._config.trust_root))
        except TrustError as error:
            return f"No release can be installed: {error}"
        return ""

    def trusts_anyone(self) -> bool:
        """Tell whether this Mainframe takes whatever OMEGA offers, signed or not."""
        return self._config.trust_root is None and self._config.unsigned_releases

    def _latest(self, served: ServedRepository, grace: timedelta = timedelta()) -> ReleaseDocument:
        client = ReleaseClient(
            served,
            self._cache,
            root=self._root(),
            minimum_release_seq=self._config.minimum_release_seq,
            grace=grace,
        )
        try:
            found = client.latest_release(self._config.channel)
        except NodeRefusedError as error:
            raise UnsignedError(f"OMEGA serves no signed releases: {error}") from error
        self._looked = time.monotonic()
        return found

    def _root(self) -> bytes:
        path: Path | None = self._config.trust_root
        if path is None:
            raise UnsignedError(
                "this Mainframe has no root to know the approvers by: set trust_root to the root.json that their "
                "deploy trust init made (or unsigned_releases, to take whatever OMEGA's node offers)."
            )
        try:
            return read_bounded(path, _LIMIT)
        except OSError as error:
            raise TrustError(
                f"trust_root {path} cannot be read ({error.strerror}): put there the root.json that the approvers' "
                "deploy trust init made."
            ) from None
