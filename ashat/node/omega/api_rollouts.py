"""The calls of `docs/node-api.md` about rollouts: to begin one, to open its waves, to stop it, to see how it goes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from ashat.errors import AshatError
from ashat.node.api.declared import refused
from ashat.node.app_process.commands import why_barred
from ashat.node.logs.change_log import who
from ashat.node.omega.api import Require
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.offers import Offers
from ashat.node.store.store import Store
from ashat.protocol.fleet import (
    CohortTroubles,
    FailureGroup,
    MemberState,
    OpenWaves,
    Override,
    Retried,
    RolloutAction,
    RolloutMember,
    RolloutRequest,
    RolloutState,
    RolloutStatus,
    RolloutStep,
    RolloutWord,
)
from ashat.protocol.messages import Message, Offer, Scope

Name = Annotated[str, Path(max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_ACTIONS: dict[RolloutAction, RolloutStatus] = {
    "pause": "paused",
    "resume": "running",
    "ask": "asked",
    "abort": "aborted",
    "complete": "completed",
}


class Rollouts(Message):
    """The newest rollouts."""

    rollouts: list[RolloutState]


class Members(Message):
    """Mainframes of a rollout."""

    members: list[RolloutMember]


class Failures(Message):
    """Who failed or was not reached, by what they said, the largest groups first."""

    failures: list[FailureGroup]


class Steps(Message):
    """How many Mainframes of a rollout came to stand so, span by span, the oldest first."""

    steps: list[RolloutStep]


def rollouts_router(fleet: Fleet, offers: Offers, bundles: Store, require: Require) -> APIRouter:
    """Make the routes; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1/rollouts", tags=["OMEGA"])
    read, promote = ([Depends(require(scope))] for scope in (Scope.READ, Scope.PROMOTE))
    store = fleet.rollouts

    @router.put("/{rollout}", dependencies=promote, responses=refused(404, 409))
    def begin(rollout: Name, wanted: RolloutRequest) -> RolloutState:
        """Begin to roll out what OMEGA runs. No Mainframe is offered it before its wave is opened."""
        offers.check(wanted.offer)
        store.begin(rollout, wanted.offer, wanted.policy, who(), _barred(fleet, offers, bundles, wanted.offer))
        if wanted.override:
            fleet.freezes.override(rollout, wanted.override, who())
        offers.put(wanted.offer)
        fleet.relay()
        return store.state(rollout)

    @router.get("", dependencies=read)
    def rollouts(limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> Rollouts:
        """The newest rollouts."""
        return Rollouts(rollouts=store.all(limit))

    @router.get("/{rollout}", dependencies=read, responses=refused(404))
    def one(rollout: Name) -> RolloutState:
        """A rollout and its waves, with how many Mainframes stand how."""
        return store.state(rollout)

    _add_looks(router, fleet, read)
    _add_decisions(router, fleet, promote)
    return router


def _add_looks(router: APIRouter, fleet: Fleet, read: list[Any]) -> None:
    store = fleet.rollouts

    @router.get("/{rollout}/members", dependencies=read, responses=refused(404))
    def members(
        rollout: Name,
        state: Annotated[list[MemberState] | None, Query()] = None,
        wave: Annotated[int | None, Query(ge=0, le=100)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> Members:
        """Mainframes of a rollout, those whose state changed last first."""
        store.state(rollout)
        return Members(members=store.members(rollout, state or (), wave, limit))

    @router.get("/{rollout}/failures", dependencies=read, responses=refused(404))
    def failures(rollout: Name) -> Failures:
        """Who failed or was not reached, by what they said."""
        store.state(rollout)
        return Failures(failures=store.failures(rollout))

    @router.get("/{rollout}/progress", dependencies=read, responses=refused(404))
    def progress(rollout: Name) -> Steps:
        """When its Mainframes came to run it, failed, or were given up."""
        store.state(rollout)
        return Steps(steps=store.progress(rollout))

    @router.get("/{rollout}/cohorts", dependencies=read, responses=refused(404))
    def cohorts(rollout: Name) -> CohortTroubles:
        """What was reported by those who have its release, and by those who have it not."""
        return store.troubles(rollout)


def _add_decisions(router: APIRouter, fleet: Fleet, promote: list[Any]) -> None:
    store = fleet.rollouts

    @router.post("/{rollout}/open", dependencies=promote, responses=refused(404, 409))
    def open_waves(rollout: Name, wanted: OpenWaves) -> RolloutState:
        """Open waves: their Mainframes are offered the release from now on."""
        store.open(rollout, wanted.through, wanted.why, who())
        fleet.relay()
        return store.state(rollout)

    @router.post("/{rollout}/override-freeze", dependencies=promote, responses=refused(404, 409))
    def override(rollout: Name, word: Override) -> RolloutState:
        """Let the release go to the Mainframes that a window or a freeze holds, too, in the waves that are open."""
        fleet.freezes.override(rollout, word.why, word.by or who())
        fleet.relay()
        return store.state(rollout)

    @router.post("/{rollout}/retry", dependencies=promote, responses=refused(404, 409))
    def retry(rollout: Name, word: RolloutWord) -> Retried:
        """Have those try again that failed, or were not reached."""
        count = store.retry(rollout, word.by or who())
        fleet.relay()
        return Retried(mainframes=count)

    @router.post("/{rollout}/{action}", dependencies=promote, responses=refused(404, 409))
    def decide(rollout: Name, action: RolloutAction, word: RolloutWord) -> RolloutState:
        """Pause a rollout, resume it, have people asked, abort it, or call it complete."""
        store.set(rollout, _ACTIONS[action], word.why, word.by or who())
        fleet.relay()
        return store.state(rollout)


def _barred(fleet: Fleet, offers: Offers, bundles: Store, offer: Offer) -> dict[str, str]:
    """On which of the bundles that run a release cannot be installed; on none where it is a return to it."""
    if offers.is_return(offer):
        return {}
    known = ((bundle, _why_barred(bundles, offer.bundle, bundle)) for bundle in fleet.rollouts.running())
    return {bundle: why for bundle, why in known if why}


def _why_barred(store: Store, bundle: str, running: str) -> str:
    """Say why a bundle cannot be installed on another; "" where it can, or where what runs is not stored here any more:
    then the Mainframe itself looks."""
    if not store.has_bundle(running):
        return ""
    try:
        return why_barred(store, bundle, running)
    except AshatError:
        return ""
