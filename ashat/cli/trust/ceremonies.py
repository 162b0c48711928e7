"""What changes who signs, `deploy trust add-approver | remove-approver | rotate | machines | renew`, and how it ends
(docs/ceremonies.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.trust.setup import Target, authority_of, named_key, omega_client, say_change, say_counts
from ashat.errors import UsageError

if TYPE_CHECKING:
    from ashat.protocol.messages import TrustState
    from ashat.trust.authority.authority import Authority, AuthorityState
    from ashat.trust.tuf.metadata import Roles

Threshold = Annotated[int | None, typer.Option(help="How many it takes from then on; by default as many as before.")]


def add_approver(
    approvers: Annotated[list[str], typer.Argument(metavar="NAME=FILE.pub", help="Who approves from then on, too.")],
    threshold: Threshold = None,
    target: Target = "omega",
    dry_run: DryRun = False,
) -> None:
    """Let more people approve. In the one-person mode they take over from the key on this machine, which is then
    removed; by default it takes more than half of them."""
    from ashat.trust.authority.key_change import with_added
    from ashat.trust.tuf.metadata import Holders

    keys = [named_key("The approver", given) for given in approvers]
    alone = authority_of(target).read().one_person

    def rearrange(roles: Roles) -> Roles:
        if alone:
            return roles.held_by(Holders(keys, threshold or len(keys) // 2 + 1))
        return roles.held_by(with_added(roles.approvers, keys, threshold))

    _begin(target, rearrange, dry_run=dry_run)


def remove_approver(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who approves no more.")],
    threshold: Threshold = None,
    target: Target = "omega",
    dry_run: DryRun = False,
) -> None:
    """Let somebody approve no more, such as one whose key was lost or stolen."""
    from ashat.trust.authority.key_change import without

    _refuse_alone(target)
    _begin(target, lambda roles: roles.held_by(without(roles.approvers, name, threshold)), dry_run=dry_run)


def rotate(
    approver: Annotated[
        str | None, typer.Argument(metavar="NAME=FILE.pub", help="An approver, and their new public key.")
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="OMEGA's own keys, after ashat-node trust-keys --new there.")
    ] = False,
    target: Target = "omega",
    dry_run: DryRun = False,
) -> None:
    """Replace the key of one approver, or OMEGA's own keys."""
    if online == (approver is not None):
        raise UsageError("Which key? Give NAME=FILE.pub for an approver's, or --online for OMEGA's own.")
    if approver is None:
        _begin(target, None, dry_run=dry_run)
        return
    from ashat.trust.authority.key_change import with_key

    key = named_key("The approver", approver)
    _refuse_alone(target)
    _begin(target, lambda roles: roles.held_by(with_key(roles.approvers, key)), dry_run=dry_run)


def machines(
    builder: Annotated[
        list[str] | None,
        typer.Option("--builder", metavar="NAME=FILE.pub", help="One that may build; repeat it."),
    ] = None,
    verifier: Annotated[
        list[str] | None, typer.Option("--verifier", metavar="NAME=FILE.pub", help="One that may verify; repeat it.")
    ] = None,
    target: Target = "omega",
    dry_run: DryRun = False,
) -> None:
    """Say anew which machines may build, or which may verify, instead of those so far."""
    from dataclasses import replace

    builders, verifiers = (
        [named_key(option, given) for given in some or []]
        for option, some in (("--builder", builder), ("--verifier", verifier))
    )
    if not builders and not verifiers:
        raise UsageError("Which machines? Give --builder or --verifier NAME=FILE.pub, each as often as there are.")

    def rearrange(roles: Roles) -> Roles:
        return replace(roles, builders=builders or roles.builders, verifiers=verifiers or roles.verifiers)

    _begin(target, rearrange, dry_run=dry_run)


def renew(target: Target = "omega", dry_run: DryRun = False) -> None:
    """Let root and targets hold for as long again, from today on, with the same people and keys."""
    _begin(target, lambda roles: roles, dry_run=dry_run)


def publish(
    target: Target = "omega",
    in_flight: Annotated[
        bool, typer.Option("--in-flight", help="Also while a release is between OMEGA and the Mainframes.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Give OMEGA what enough have signed: the change that is under way, which is put in force here, too; or, where it
    keeps none, the first root. Again ends what was cut short."""
    from ashat.trust.authority.pending_change import PendingChange

    authority = authority_of(target)
    pending, held = PendingChange(authority), authority.read()
    if not pending.exists():
        _hand_over(target, authority, held, dry_run=dry_run)
    elif dry_run:
        with omega_client(target, dry_run=True) as omega:
            pending.ready(omega, target, in_flight=in_flight)
        say_change(pending.read(), held)
        output.say(f"{target} would be given it. Nothing was changed.")
        return
    else:
        pending.read()
        with omega_client(target) as omega:
            pending.publish(omega, target, in_flight=in_flight)
    if not dry_run:
        _say_in_force(target)


def _hand_over(target: str, authority: Authority, held: AuthorityState, *, dry_run: bool) -> None:
    """Give OMEGA its first root and targets, which enough have signed."""
    from ashat.errors import UnsignedError
    from ashat.trust.authority.first_root import hand_over, ready

    if not held.complete:
        raise UnsignedError(f"The root is signed by {held.root_signatures}: deploy trust sign --key FILE.pem.")
    with omega_client(target, dry_run=dry_run) as omega:
        if not dry_run:
            hand_over(authority, omega, target)
            return
        seen = omega.trust()
        ready(authority, seen, target)
    output.say(
        f"{target} keeps no root, and would be given version {held.root.signed.version} of the one made for it here:"
    )
    names = ", ".join(held.approvers.missing)
    output.say(f"  {held.approvers.threshold} of {len(held.approvers.missing)} approve each release: {names}.")
    output.say(
        "  It is what OMEGA's trust_root leads to."
        if seen.pinned
        else "  OMEGA has no trust_root, so it would take any other root as well."
    )
    output.say("Nothing was changed.")


def abandon(target: Target = "omega", dry_run: DryRun = False) -> None:
    """Give up the change that is being signed. What was signed of it elsewhere ends there: destroy the copies."""
    from ashat.trust.authority.pending_change import PendingChange

    pending = PendingChange(authority_of(target))
    if dry_run:
        out = "Enough have signed it: OMEGA would be asked first whether it keeps it already."
        would("give up the change that is being signed", *([out] if pending.may_be_out() else []))
        return
    if pending.exists() and pending.may_be_out():
        with omega_client(target) as omega:
            pending.abandon(omega.trust())
        output.warn(
            "Enough had signed it: who has a copy can still give it to OMEGA, until another change takes place."
        )
    else:
        pending.abandon(None)
    output.say("✅ The change is given up; what was in force before still is.")


def _begin(target: str, rearrange: Callable[[Roles], Roles] | None, *, dry_run: bool) -> None:
    """Plan a change and let it be signed; without `rearrange` OMEGA's own keys become its newest."""
    from ashat.settings import Settings
    from ashat.trust.authority.pending_change import PendingChange

    authority = authority_of(target)
    held, pending = authority.read(), PendingChange(authority)
    pending.refuse_second()
    with omega_client(target, dry_run=dry_run) as omega:
        seen = omega.trust()
        change = pending.plan(
            seen,
            rearrange or newest_keys(seen),
            now=output.now(),
            approval_lifetime=Settings().approval_lifetime,
        )
        if dry_run:
            say_change(change, held)
            for part, found in change.counts(held.root.signed).items():
                names = ", ".join(found.missing)
                output.say(f"  {part}: to be signed by {found.threshold} of {names}")
            if held.one_person:
                output.say(
                    "  What keys on this machine can sign, they sign at once; what is complete is published then."
                )
            output.say("Nothing was changed.")
            return
        pending.begin(change)
        say_change(change, held)
        if not change.complete(held.root.signed):
            say_counts(change, held)
            return
        pending.publish(omega, target)
    _say_in_force(target)


def newest_keys(seen: TrustState) -> Callable[[Roles], Roles]:
    """Make a change of the roles by which OMEGA's newest keys are its own.

    Raises:
        UsageError: it has none that are newer.
        KeyFileError: they cannot be used.
    """
    from ashat.trust.keys.files import OnlinePublicKeys

    keys = OnlinePublicKeys.of(seen.online)

    def rearrange(roles: Roles) -> Roles:
        if (keys.snapshot.keyid, keys.timestamp.keyid) == (roles.snapshot.keyid, roles.timestamp.keyid):
            raise UsageError("OMEGA has no new keys of its own: make them there with ashat-node trust-keys --new")
        return roles.kept_current_by(keys)

    return rearrange


def _refuse_alone(target: str) -> None:
    if authority_of(target).read().one_person:
        raise UsageError(
            "One key on this machine approves (one-person mode): people take over with deploy trust add-approver."
        )


def _say_in_force(target: str) -> None:
    state = authority_of(target).read()
    output.say(f"✅ {target} keeps root version {state.root.signed.version}, and it is in force here.")
    names = ", ".join(state.approvers.missing)
    output.say(f"  {state.approvers.threshold} of {len(state.approvers.missing)} approve each release: {names}.")
