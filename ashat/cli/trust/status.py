"""`deploy trust status`: for each OMEGA who approves, who has signed that, and whether OMEGA keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.output import Json
from ashat.cli.trust.setup import authority_of, say_change, say_counts, say_machines, say_signed
from ashat.errors import AshatError, NotConfiguredError

if TYPE_CHECKING:
    from ashat.protocol.messages import TrustState
    from ashat.trust.authority.authority import AuthorityState
    from ashat.trust.authority.key_change import Change

_SOON = timedelta(days=30)


@dataclass(frozen=True)
class Omega:
    """What an OMEGA says that it keeps; or why it was not asked, or does not say. `root_version` is 0 where it keeps no
    root, `ours` whether it keeps what is set up here, `pins_ours` whether what it begins with leads there."""

    why: str = ""
    root_version: int = 0
    ours: bool = False
    pinned: str | None = None
    pins_ours: bool = False
    approvers: str = ""


def status(
    target: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Only for that OMEGA; by default for each that is known here.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show for each OMEGA who approves, who has signed that, until when it holds, and whether OMEGA was handed it.
    Nothing is started for it: where the control plane does not run, OMEGA is not asked."""
    found = _ask([target] if target else _set_up(), every=not target)
    if not any(authority_of(name).exists() or not omega.why for name, omega in found.items()):
        raise NotConfiguredError("Trust is not set up here; run: deploy trust init")
    if as_json:
        shown = {name: _json(name, omega) for name, omega in found.items()}
        output.show_json(shown[target] if target else {"targets": shown})
        return
    for name, omega in found.items():
        _say(name, omega)


def _say(name: str, omega: Omega) -> None:
    from ashat.trust.authority.authority import ONE_PERSON
    from ashat.trust.authority.pending_change import PendingChange

    authority = authority_of(name)
    output.say(f"{name}:")
    if not authority.exists():
        output.say("  Nothing is set up here.")
        _say_omega(omega, None)
        return
    state, pending = authority.read(), PendingChange(authority)
    if state.one_person:
        for line in ONE_PERSON:
            output.say(f"  {line}")
    else:
        names = ", ".join(state.approvers.missing)
        output.say(f"  {state.approvers.threshold} of {len(state.approvers.missing)} approve each release: {names}.")
    say_machines(state.machines)
    say_signed(state)
    for role, end in (("root", state.root.signed.expires), ("targets", state.targets.signed.expires)):
        output.say(f"  {role:<8} holds until {end:%Y-%m-%d}")
        if end - output.now() < _SOON:
            left = f"ends in {output.span(end - output.now())}" if end > output.now() else "has ended"
            output.warn(f"{name}: {role} {left}; OMEGA takes nothing after the end: deploy trust renew")
    _say_omega(omega, state)
    if pending.exists():
        say_change(pending.read(), state)
        say_counts(pending.read(), state)


def _say_omega(omega: Omega, held: AuthorityState | None) -> None:
    """Say whether OMEGA was handed what is `held` here, and whether it pins a root."""
    if omega.why:
        output.say(f"  OMEGA was not asked what it keeps: {omega.why}")
        return
    if omega.ours:
        output.say(f"  OMEGA    was handed it, and keeps root version {omega.root_version}")
    elif omega.root_version:
        output.say(f"  OMEGA    keeps root version {omega.root_version}, by which {omega.approvers}")
        if held is not None:
            output.warn("OMEGA keeps another root, or other targets, than there are here.")
    elif held is None:
        output.say("  OMEGA    keeps no root")
    else:
        how = "deploy trust publish" if held.complete else "it is signed by too few"
        output.say(f"  OMEGA    was not handed it yet: {how}")
    if omega.pinned is None:
        left = "" if omega.root_version else ", and takes the first root that it is given"
        output.say(f"  OMEGA    pins no root (trust_root){left}")
    else:
        which = "this root" if omega.pins_ours else f"another root ({omega.pinned[:12]}), and begins with no other"
        output.say(f"  OMEGA    pins {which} (trust_root)")


def _set_up() -> list[str]:
    """List the OMEGAs for which something was set up here."""
    places = authority_of().directory.parent.glob("*/root.json")
    return sorted(place.parent.name for place in places if not place.parent.name.startswith("."))


def _ask(names: Sequence[str], *, every: bool) -> dict[str, Omega]:
    """Ask the OMEGAs of those names what they keep; with `every`, also those that are configured."""
    from ashat.cli.control_plane.connect import ensure_control_plane, external_control_plane, running_state
    from ashat.settings import Settings

    settings = Settings()
    if external_control_plane(settings.home) is None and running_state(settings.home) is None:
        return dict.fromkeys(names, Omega("the control plane does not run here."))
    try:
        ensure_control_plane(settings)

        from blocks.listing import configured_servers

        configured = [server.block for server in configured_servers() if server.role == "omega"]
    except AshatError as error:
        return dict.fromkeys(names, Omega(str(error)))
    wanted = sorted({*names, *configured}) if every else names
    return {name: _look(name) if name in configured else Omega("none is configured here.") for name in wanted}


def _look(name: str) -> Omega:
    from blocks.server import load_server

    try:
        with load_server(name).client() as client:
            return omega_as(client.trust(), name)
    except AshatError as error:
        return Omega(str(error))


def omega_as(seen: TrustState, name: str) -> Omega:
    """Compare what an OMEGA keeps with what is set up here for it.

    Raises:
        TrustError: either cannot be read.
    """
    from tuf.api.metadata import Metadata, Root, Targets

    from ashat.trust.authority.first_root import keeps
    from ashat.trust.tuf.metadata import PRODUCTION, parse, signatures_of
    from ashat.trust.tuf.root_chain import root_digest

    authority = authority_of(name)
    roots = authority.roots() if authority.exists() else []
    pins_ours = seen.pinned in [root_digest(root) for root in roots]
    if seen.root is None or seen.targets is None:
        return Omega(pinned=seen.pinned, pins_ours=pins_ours)
    targets = parse(seen.targets.encode(), Targets, "OMEGA's targets.json").signed
    people = signatures_of(targets, PRODUCTION, Metadata(targets))
    return Omega(
        root_version=parse(seen.root.encode(), Root, "OMEGA's root.json").signed.version,
        ours=bool(roots) and keeps(seen, roots[-1], authority.read().targets),
        pinned=seen.pinned,
        pins_ours=pins_ours,
        approvers=f"{people.threshold} of {len(people.missing)} approve: {', '.join(people.missing)}",
    )


def _json(name: str, omega: Omega) -> dict[str, object]:
    from ashat.trust.authority.pending_change import PendingChange

    authority = authority_of(name)
    asked = not omega.why
    seen: dict[str, object] = {
        "asked": asked,
        "why": omega.why,
        "root_version": omega.root_version or None,
        "handed_over": omega.ours if asked else None,
        "pinned": omega.pinned,
        "pins_this": omega.pins_ours if asked else None,
    }
    if not authority.exists():
        return {"mode": None, "omega": seen}
    state, pending = authority.read(), PendingChange(authority)
    change = pending.read() if pending.exists() else None
    return {**_json_state(state), "change": _json_change(change, state) if change else None, "omega": seen}


def _json_state(state: AuthorityState) -> dict[str, object]:
    roles = (("root", state.root, state.root_signatures), ("targets", state.targets, state.targets_signatures))
    return {
        "mode": "one-person" if state.one_person else "approvers",
        "approvers": list(state.approvers.missing),
        "threshold": state.approvers.threshold,
        "builders": list(state.machines["builder"]),
        "verifiers": list(state.machines["verifier"]),
        "complete": state.complete,
        "roles": {
            name: {
                "version": metadata.signed.version,
                "expires": metadata.signed.expires,
                "threshold": found.threshold,
                "signed": list(found.signed),
                "missing": list(found.missing),
            }
            for name, metadata, found in roles
        },
    }


def _json_change(change: Change, held: AuthorityState) -> dict[str, object]:
    counts = change.counts(held.root.signed)
    return {
        "version": change.root.signed.version,
        "differences": change.differences(held.root.signed, held.targets.signed),
        "complete": change.complete(held.root.signed),
        "parts": {
            part: {"threshold": found.threshold, "signed": list(found.signed), "missing": list(found.missing)}
            for part, found in counts.items()
        },
    }
