"""A Mainframe's connection to OMEGA: its licence, and the calls of `docs/node-api.md` that it opens."""

from __future__ import annotations

import secrets

from ashat import __version__
from ashat.client.elsewhere import Elsewhere
from ashat.client.http import Transport
from ashat.client.node import NodeClient, none_if_not_found
from ashat.client.pace import Pace
from ashat.client.transfer import BundleStore, Progress, RequireRoom, TransferReport, pull_bundle
from ashat.common.clocks import skew
from ashat.common.identifiers import check_licence_key
from ashat.common.numbers import read_count, read_date
from ashat.errors import LicenceError, UsageError
from ashat.node.core.config import NodeConfig, read_secret
from ashat.node.mainframe.offer_verifier import LOG_PATH, PATH, OfferVerifier
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.messages import (
    AGENT_HEADER,
    CHANGE_LOG_HEADER,
    RUN_HEADER,
    TRIES_HEADER,
    Offer,
    Role,
    SignedCheckpoint,
)
from ashat.trust.update_client.fetcher import RemoteRepository

PREFIX = "/v1/mainframe"
NAME = "OMEGA"
_AUTHORITY = "ca_file in node.toml"
# Seconds beyond the wait that was asked for, after which an answer that does not come is given up.
_GRACE = 30.0


class OmegaClient:
    """The connection of one thread, which any may close. The licence file, which may be replaced meanwhile, is read at
    each `open`.

    Every method that asks raises `NodeError`, of the class that says whose fault it is.
    """

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._signed = OfferVerifier(config)
        self._pace = Pace(config.max_download_rate) if config.max_download_rate else None
        self._elsewhere = Elsewhere(config.omega, config.ca_file, self._pace)
        self._licence = ""
        self._run = secrets.token_hex(8)
        self._transport: Transport | None = None
        self.change_log_size: int | None = None
        """How many entries OMEGA's change log has, by its last answer to `ask`; None where it does not say."""

        self.tries: int | None = None
        """How often OMEGA told this Mainframe to try what it offers again, by its last answer to `ask`."""

        self.try_again = False
        """Whether OMEGA told it so in its last answer."""

        self.clock = ""
        """How far the clock here is from OMEGA's, in words, by its last answer to `ask`; "" where it is not far."""

    def open(self) -> None:
        """Be ready to ask with the licence that is in the file now.

        Raises:
            LicenceError: the file is missing, open to others, or holds no licence key.
            WrongRoleError: what answers is no OMEGA; the licence was not sent to it.
            UsageError: OMEGA's address or its CA file cannot be used.
        """
        licence = read_licence(self._config)
        if self._transport is not None and licence == self._licence:
            return
        self.close()
        self._check_role()
        self._transport, self._licence = self._connect(licence), licence

    def ask(self, after: int | None, wait: float) -> tuple[bool, Offer | None]:
        """Ask OMEGA what it offers, and whether that is news. With `after`, a `release_seq` (0: none), OMEGA answers
        as soon as it offers another, and after `wait` seconds in any case."""
        params: dict[str, float] = {} if after is None else {"after": after, "wait": wait}
        if after is not None and self.tries is not None:
            params["tries"] = self.tries
        who = {AGENT_HEADER: __version__, RUN_HEADER: self._run}
        answer = self._open.request("GET", f"{PREFIX}/release", params=params, headers=who, timeout=wait + _GRACE)
        self.change_log_size = read_count(answer.headers.get(CHANGE_LOG_HEADER, ""))
        told = read_count(answer.headers.get(TRIES_HEADER, "")) or 0
        self.try_again, self.tries = self.tries is not None and told > self.tries, told
        at = read_date(answer.headers.get("Date", ""))
        self.clock = skew(at, "OMEGA's") if at is not None else ""
        if answer.status_code == 304:
            return False, None
        if answer.status_code == 204:
            return after != 0, None
        return True, self._open.read(Offer, answer.content)

    def checkpoint(self, since: int) -> SignedCheckpoint | None:
        """Ask OMEGA for a checkpoint of its change log, with proof that it continues the one of size `since`; None
        where it shows none."""

        def ask() -> SignedCheckpoint:
            answer = self._open.request("GET", f"{PREFIX}/journal", params={"since": since})
            return self._open.read(SignedCheckpoint, answer.content)

        return none_if_not_found(ask)

    def check(self, offer: Offer) -> None:
        """See that the approvers signed what is offered; see `OfferVerifier.check`.

        Raises:
            TrustError: they did not.
        """
        self._signed.check(self._repository, offer)

    def lack(self) -> str:
        """Say what keeps any offer from being verified here; see `OfferVerifier.lack`."""
        return self._signed.lack()

    def look(self) -> None:
        """See now and then that what OMEGA serves is current; see `OfferVerifier.look`.

        Raises:
            TrustError: it is not.
        """
        self._signed.look(self._repository)

    def pull(self, offer: Offer, store: BundleStore, room: RequireRoom, progress: Progress) -> TransferReport:
        """Fetch what `store` lacks of the offered bundle, if there is `room`; on return it is durable here.

        Raises:
            IntegrityError: OMEGA sent other bytes than the bundle names.
            StoreError: the store cannot take it.
        """
        return pull_bundle(
            self._open, offer.bundle, store, prefix=PREFIX, progress=progress, room=room, elsewhere=self._elsewhere
        )

    def report(self, report: MainframeReport) -> None:
        """Tell OMEGA what came of an offer."""
        self._open.request("POST", f"{PREFIX}/report", json=report.model_dump(mode="json"))

    def close(self) -> None:
        """Forget the connection and the licence."""
        if self._transport is not None:
            self._transport.close()
        self._transport, self._licence = None, ""
        self._elsewhere.close()

    @property
    def _repository(self) -> RemoteRepository:
        return RemoteRepository(self._open, PATH, LOG_PATH)

    @property
    def _open(self) -> Transport:
        if self._transport is None:
            raise RuntimeError("the link is not open")
        return self._transport

    def _connect(self, licence: str) -> Transport:
        transport = Transport(
            self._config.omega,
            licence=licence,
            ca=self._config.ca_file,
            insecure_http=self._config.insecure_http,
            name=NAME,
        )
        transport.authority, transport.pace = _AUTHORITY, self._pace
        return transport

    def _check_role(self) -> None:
        config = self._config
        with NodeClient(
            config.omega, ca=config.ca_file, insecure_http=config.insecure_http, name=NAME, expect_role=Role.OMEGA
        ) as stranger:
            stranger.transport.authority = _AUTHORITY
            stranger.check_role()


def read_licence(config: NodeConfig) -> str:
    """Read the licence key that is in its file now.

    Raises:
        LicenceError: the file is missing, open to others, or holds no licence key.
    """
    if config.license_file is None:
        raise LicenceError("There is no licence file; set 'license_file'.")
    try:
        return check_licence_key(read_secret(config.license_file, "license_file"))
    except UsageError as error:
        raise LicenceError(f"The licence in {config.license_file} cannot be used: {error}") from None
