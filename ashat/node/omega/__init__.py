"""OMEGA's side of the node: decisions, licences, and what Mainframes are offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ashat.node.context import NodeContext
    from ashat.node.omega.fleet.fleet import Fleet


def install(app: FastAPI, context: NodeContext) -> None:
    """Make `context` an OMEGA: its rules, its calls, and its offer in the state."""
    # Here, so that `ashat-node licence` does not load the server.
    from ashat.node.api.auth import require
    from ashat.node.app_process.health import Repeated
    from ashat.node.logs import change_log
    from ashat.node.omega.api import omega_router
    from ashat.node.omega.api_carried import carried_router
    from ashat.node.omega.api_freezes import freezes_router
    from ashat.node.omega.api_licences import licences_router
    from ashat.node.omega.api_mainframe import MainframeDesk, offer_router, offered_bundle_router
    from ashat.node.omega.api_old_protocol import old_protocol_router
    from ashat.node.omega.api_rollouts import rollouts_router
    from ashat.node.omega.api_trust import mainframe_trust_router, trust_router
    from ashat.node.omega.authorization import SCHEMA, AuthorizationRule
    from ashat.node.omega.ledger_log import KeptLog
    from ashat.node.omega.mainframe_calls import MainframeCalls
    from ashat.node.omega.offers import Offers
    from ashat.node.omega.old_protocol import OldInstalls
    from ashat.node.omega.release_zip import ReleaseZips
    from ashat.node.omega.trust import RENEW_INTERVAL, OmegaTrust
    from ashat.trust.tuf.root_chain import PinnedRoot

    context.db.ensure(SCHEMA)
    config = context.config
    pinned = PinnedRoot.read(config.trust_root) if config.trust_root else None
    trust = OmegaTrust(config.data / "trust", unsigned_releases=config.unsigned_releases, pinned=pinned)
    kept = KeptLog(context.db)
    fleet = _open_fleet(context)
    context.operations.add_rule(AuthorizationRule(trust, kept))
    offers = Offers(context.db, trust, kept)
    context.offer = offers.effective
    trust.public_keys()
    if trust.keep_current():
        change_log.follow(context.db, "trust", trust.kept())
    context.services.append(Repeated(trust.keep_current, RENEW_INTERVAL, "trust"))
    app.include_router(omega_router(fleet, offers, require))
    app.include_router(licences_router(fleet, require))
    app.include_router(rollouts_router(fleet, offers, context.store, require))
    app.include_router(freezes_router(fleet, require))
    desk = MainframeDesk(fleet, offers, context.proofs, context.store, context.stopping, config.objects)
    app.include_router(offer_router(desk))
    app.include_router(offered_bundle_router(desk))
    context.around = lambda app: MainframeCalls(app, desk, trust)
    app.include_router(carried_router(config.name, fleet, offers, trust, kept, context.proofs, require))
    zips, old = ReleaseZips(config.data / "archives", context.store), OldInstalls(fleet.mainframes)
    app.include_router(old_protocol_router(fleet, old, offers, zips, desk.downloads))
    app.include_router(trust_router(trust, kept, context.db, require))
    app.include_router(mainframe_trust_router(trust, kept, fleet))


def _open_fleet(context: NodeContext) -> Fleet:
    """Open the fleet for as long as the node runs, and expose its figures."""
    from ashat.node.app_process.health import Repeated
    from ashat.node.omega.fleet.database import FILE, FleetDatabase
    from ashat.node.omega.fleet.figures import FleetFigures
    from ashat.node.omega.fleet.fleet import Fleet, fleet_address
    from ashat.node.omega.fleet.mainframes import FLUSH_SECONDS

    fleet = Fleet(FleetDatabase(fleet_address(context.config) or context.config.data / FILE), context.db)
    context.at_end.callback(fleet.close)
    context.metrics.registry.register(FleetFigures(fleet.database))
    context.services += [fleet.database, Repeated(fleet.mainframes.keep_seen, FLUSH_SECONDS, "seen")]
    return fleet
