"""The rules of a Mainframe's owner: whether, and when, what OMEGA offers may be switched to.

What is offered is pulled at once in any case, so that a switch within a window takes seconds. Nothing that OMEGA says
overrides these rules; what the approvers signed as urgent does so only where the owner's settings say that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ashat.common.documents import STATE_LIMIT, load_json
from ashat.common.windows import Window
from ashat.errors import DocumentError
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database, from_text, to_text
from ashat.node.logs.change_log import append
from ashat.protocol.messages import Offer

log = logging.getLogger("ashat.node.mainframe")

OFFERED = "waiting_offer"
IMPORTED = "waiting_import"
_CONSENT = "consent"


@dataclass(frozen=True)
class WaitingOffer:
    """An offer that was pulled and is not switched to yet: since when it is here, and why it waits."""

    offer: Offer
    since: datetime
    why: str


class OwnRules:
    """What the settings, and the owner's word for one offer, allow."""

    def __init__(self, config: NodeConfig, database: Database, *, key: str = OFFERED) -> None:
        """Judge by the settings; the record has what waits under `key`: what OMEGA offers, or what was imported."""
        self._config = config
        self._key = key
        self._database = database
        self._windows = [Window.parse(text) for text in config.windows]

    @property
    def any(self) -> bool:
        """Whether there are rules at all."""
        return bool(self._config.install == "ask" or self._config.hold_days or self._windows)

    def why_wait(self, offer: Offer, at: datetime, urgent: Callable[[], bool]) -> str:
        """Say why `offer`, which is here, is not switched to at `at`; "" where it may be. It is noted either way.
        `urgent` tells whether the release is marked so, which counts only if the owner says that it does."""
        if not self.any:
            return ""
        if self._config.urgent == "override" and urgent():
            log.info("%s is urgent, and urgent = override: it waits for none of the own rules", offer.update_id)
            return ""
        since = self._first_seen(offer, at)
        why = self._why(offer, since, at)
        kept = {"offer": offer.model_dump(mode="json"), "since": to_text(since), "why": why}
        self._database.set_meta(self._key, json.dumps(kept))
        return why

    def done(self) -> None:
        """Forget what waited: it runs, or nothing is offered any more. One that failed has not begun to wait anew."""
        if self._database.get_meta(self._key):
            self._database.set_meta(self._key, "")

    def _first_seen(self, offer: Offer, at: datetime) -> datetime:
        known = waiting_offer(self._database, self._key)
        return min(known.since, at) if known and known.offer == offer else at

    def _why(self, offer: Offer, since: datetime, at: datetime) -> str:
        if self._config.install == "ask" and not consented(self._database, offer):
            return f"for whoever runs this machine to say: ashat-node install {offer.update_id}"
        if self._config.hold_days and at < (until := since + timedelta(days=self._config.hold_days)):
            return f"until {until:%Y-%m-%d %H:%M} UTC, since hold_days is {self._config.hold_days:g}"
        if self._windows and not any(window.holds(at) for window in self._windows):
            opens = min((found for window in self._windows if (found := window.next(at))), default=None)
            return f"for a window, the next from {opens:%Y-%m-%d %H:%M} UTC" if opens else "for a window; none comes"
        return ""


def waiting_offer(database: Database, key: str = OFFERED) -> WaitingOffer | None:
    """Read which offer waits, None where none does; with `IMPORTED` as `key`, which import."""
    try:
        found = load_json((database.get_meta(key) or "").encode(), limit=STATE_LIMIT)
        return WaitingOffer(Offer.model_validate(found["offer"]), from_text(found["since"]), str(found["why"]))
    except (DocumentError, KeyError, TypeError, ValueError):
        return None


def consent(database: Database, offer: Offer) -> None:
    """Keep the owner's word that `offer` may be installed, which is an entry of the change log."""
    with database.transaction() as connection:
        append(connection, "install-allowed", **offer.model_dump(mode="json"))
    database.set_meta(_CONSENT, _name(offer))


def consented(database: Database, offer: Offer) -> bool:
    """Tell whether the owner allowed that very offer."""
    return database.get_meta(_CONSENT) == _name(offer)


def _name(offer: Offer) -> str:
    return f"{offer.release_seq} {offer.bundle}"
