"""The one change of a trust root that is being signed here, and how it comes into force.

It is one file beside the root that it follows on, `next.json`: made at once, signed by one person after the other on
whichever machine it is carried to, given to OMEGA, and only then put in the place of what it replaces. Killed anywhere,
publishing it again ends that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Snapshot, Targets

from ashat.common.failpoints import fault_point
from ashat.common.files import create_file, read_bounded, replace_file, sync_directory
from ashat.errors import MixAndMatchError, NodeConflictError, NoReleaseError, TrustError, UnsignedError, UsageError
from ashat.protocol.messages import NodeState, TrustMetadata, TrustState
from ashat.trust.authority.authority import UNATTENDED, Authority
from ashat.trust.authority.first_root import first_trust, keeps
from ashat.trust.authority.key_change import MAX_BYTES, Change
from ashat.trust.keys.files import OnlinePublicKeys, load_signer, public_path
from ashat.trust.tuf.metadata import Lifetimes, Roles, parse
from ashat.trust.tuf.root_chain import roots_between

if TYPE_CHECKING:
    from ashat.client.node import NodeClient


class PendingChange:
    """The change of `authority` that is being signed, if there is one."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    @property
    def path(self) -> Path:
        """The file that it is, and that is carried to who signs elsewhere."""
        return self._authority.directory / "next.json"

    def exists(self) -> bool:
        """Tell whether there is one."""
        return self.path.exists()

    def refuse_second(self) -> None:
        """Check that there is none.

        Raises:
            UsageError: there is one.
        """
        if self.exists():
            raise UsageError(
                "Another change is being signed (deploy trust status): end it with deploy trust sign and deploy trust "
                "publish, or give it up with deploy trust abandon."
            )

    def plan(
        self,
        seen: TrustState,
        rearrange: Callable[[Roles], Roles],
        *,
        now: datetime,
        approval_lifetime: float,
    ) -> Change:
        """Plan the change after which the roles are held as `rearrange` says, where OMEGA keeps what was `seen`; it is
        not begun.

        Raises:
            UsageError: another change is being signed.
            UnsignedError: too few have signed what is in force here.
            MixAndMatchError: OMEGA keeps something else than what is in force here.
            KeyPolicyError: the roles would protect less than they say.
        """
        self.refuse_second()
        held = self._authority.read()
        if not held.complete:
            raise UnsignedError(f"Before anything changes, enough must sign what is: root {held.root_signatures}.")
        if seen.root is not None and not keeps(seen, held.root, held.targets):
            raise MixAndMatchError(
                "OMEGA keeps another root, or other targets, than there are here: bring root.json and targets.json of "
                f"where they were changed last to {self._authority.directory}."
            )
        roles = Roles.of(held.root.signed, held.targets.signed)
        changed = rearrange(roles)
        attended = not held.one_person or changed.approvers != roles.approvers
        lifetimes = replace(Lifetimes() if attended else UNATTENDED, production=approval_lifetime)
        production = seen.production.encode() if seen.production is not None else None
        return Change.plan(
            held.root,
            held.targets,
            production,
            changed,
            lifetimes=lifetimes,
            now=now,
            target=self._authority.directory.name,
        )

    def begin(self, change: Change) -> None:
        """Let `change` be signed from now on. In the one-person mode the keys that lie here sign it at once.

        Raises:
            UsageError: there is one already.
            TrustError: it does not follow on what is in force here, or cannot be written; nothing was begun.
        """
        self.refuse_second()
        held = self._authority.read()
        change.check(held.root.signed, held.targets.signed)
        if held.one_person:
            for key in self._authority.embedded_keys():
                change.sign(held.root.signed, load_signer(key))
        try:
            create_file(self.path, change.to_bytes(), mode=0o644)
        except FileExistsError:
            self.refuse_second()
        except OSError as error:
            raise TrustError(f"{self.path} cannot be written: {error.strerror}; nothing was begun.") from error
        fault_point("trust.planned")

    def read(self) -> Change:
        """Read the change, which follows on what is in force here.

        Raises:
            NoReleaseError: there is none.
            TrustError: it cannot be read, or does not follow.
        """
        try:
            change = Change.from_bytes(read_bounded(self.path, MAX_BYTES))
        except FileNotFoundError:
            raise NoReleaseError("No change of who signs is under way here: deploy trust status.") from None
        except OSError as error:
            raise TrustError(f"{self.path} cannot be read: {error.strerror}.") from error
        held = self._authority.read()
        if not change.taken(held.root.signed):
            change.check(held.root.signed, held.targets.signed)
        return change

    def sign(self, signer: Signer) -> Change:
        """Add the signatures of one key; again changes nothing.

        Raises:
            UnsignedError: the key signs nothing of it.
            TrustError: see `read`; or it cannot be written.
        """
        change, root = self.read(), self._authority.read().root.signed
        if not change.sign(root, signer):
            names = sorted({name for found in change.counts(root).values() for name in found.signed + found.missing})
            raise UnsignedError(f"This key signs nothing of the change: that is for {', '.join(names)}.")
        try:
            replace_file(self.path, change.to_bytes())
        except OSError as error:
            raise TrustError(f"{self.path} cannot be written: {error.strerror}; nothing was signed.") from error
        return change

    def abandon(self, seen: TrustState | None) -> None:
        """Give it up. `seen` is what OMEGA keeps; without, only what too few have signed is given up.

        Raises:
            NoReleaseError: there is none.
            TrustError: OMEGA keeps it already, or may keep it; or it cannot be removed.
        """
        if not self.exists():
            raise NoReleaseError("No change of who signs is under way here, so there is nothing to give up.")
        if self.may_be_out():
            if seen is None:
                raise TrustError("Enough have signed the change, so OMEGA may keep it already, and has to be asked.")
            if self._is_kept(seen):
                raise TrustError("OMEGA keeps the change already; end it here, too: deploy trust publish")
        try:
            self.path.unlink(missing_ok=True)
            sync_directory(self.path.parent)
        except OSError as error:
            raise TrustError(f"{self.path} cannot be removed: {error.strerror}.") from error

    def may_be_out(self) -> bool:
        """Tell whether OMEGA may keep it already: only what enough have signed gets there."""
        try:
            return self.read().complete(self._authority.read().root.signed)
        except TrustError:
            # Nobody could ever publish what does not follow, or cannot be read.
            return False

    def ready(self, omega: NodeClient, target: str, *, in_flight: bool = False) -> TrustState:
        """Check that the change can be published; return what `omega`, which is `target`, keeps now. Nothing is
        changed.

        Raises:
            As `publish`.
        """
        change, held = self.read(), self._authority.read()
        for part, found in change.counts(held.root.signed).items():
            if not found.complete:
                raise UnsignedError(f"{part} is signed by {found}.")
        seen = omega.trust()
        if not self._is_kept(seen):
            if seen.root is None:
                self._first(change, seen, target)
            if not in_flight and change.targets.signed.delegations != held.targets.signed.delegations:
                _refuse_in_flight(omega.state(), target)
            _refuse_stale(change, seen)
        return seen

    def publish(self, omega: NodeClient, target: str, *, in_flight: bool = False) -> None:
        """Give the change to `omega`, which is `target`, and put it in force here; again ends what was cut short.

        Unless `in_flight`, not while a release is between OMEGA and the Mainframes: who signed it may count no more.

        Raises:
            NoReleaseError: there is none.
            UnsignedError: too few have signed.
            MixAndMatchError: something was released since it was planned, or OMEGA keeps, or begins with, another root.
            TrustError: of other classes; OMEGA refuses it, or a file cannot be written.
            NodeError: OMEGA does not answer.
        """
        seen, change = self.ready(omega, target, in_flight=in_flight), self.read()
        try:
            if not self._is_kept(seen):
                for given in self._first(change, seen, target) if seen.root is None else [_given(change, target)]:
                    omega.put_trust(given)
        except NodeConflictError as error:
            raise MixAndMatchError(
                f"{target} does not take the change ({error}); nothing was changed. If it can no longer follow: deploy "
                "trust abandon, and plan it again."
            ) from error
        fault_point("trust.sent")
        self._keep(change)

    def _first(self, change: Change, seen: TrustState, target: str) -> list[TrustMetadata]:
        """Make what an OMEGA that keeps no root is given, one after the other."""
        given = _given(change, target)
        # One that lost its keys can do nothing with the root that names them, and begins with this change.
        if _names_keys_of(self._authority.read().root.signed, seen):
            return [first_trust(self._authority, seen, target), given]
        roots = roots_between(seen, [*self._authority.roots(), change.root])
        return [given.model_copy(update={"roots": roots})]

    def _is_kept(self, seen: TrustState) -> bool:
        """Tell whether OMEGA keeps the change; signatures are not compared, as more may have signed elsewhere."""
        change = self.read()
        return keeps(seen, change.root, change.targets)

    def _keep(self, change: Change) -> None:
        """Put the change in force here. The root goes first: by it a next try sees that this change is the one in
        force."""
        directory, held = self._authority.directory, self._authority.read()
        try:
            self._authority.keep_roots(held.root, change.root)
            replace_file(directory / "root.json", change.root.to_bytes())
            replace_file(directory / "targets.json", change.targets.to_bytes())
            fault_point("trust.kept")
            if not self._authority.approves_alone(change.targets.signed):
                for key in self._authority.embedded_keys():
                    public_path(key).unlink(missing_ok=True)
                    key.unlink()
                sync_directory(directory / "keys")
            self.path.unlink()
            sync_directory(directory)
        except OSError as error:
            raise TrustError(
                f"OMEGA keeps the change, and {directory} cannot be written: {error.strerror}. Mend that, then: deploy "
                "trust publish"
            ) from error


def _text(metadata: Metadata[Root] | Metadata[Targets]) -> str:
    return metadata.to_bytes().decode()


def _given(change: Change, target: str) -> TrustMetadata:
    production = _text(change.production) if change.production else None
    return TrustMetadata(target=target, root=_text(change.root), targets=_text(change.targets), production=production)


def _names_keys_of(root: Root, seen: TrustState) -> bool:
    own = OnlinePublicKeys.of(seen.online)
    return own.snapshot.keyid in root.roles[Snapshot.type].keyids


def _refuse_in_flight(state: NodeState, target: str) -> None:
    offered = state.offer.release_seq if state.offer else 0
    running = state.current.release_seq if state.current else None
    busy = state.operation is not None and state.operation.status == "running"
    if busy or (running or 0) > offered:
        raise TrustError(
            f"A release is on its way from {target} to the Mainframes, and who signed it may count no more then: wait "
            "until it is there (deploy status), then: deploy trust publish. With --in-flight it may need approval anew."
        )


def _refuse_stale(change: Change, seen: TrustState) -> None:
    if change.production is None or change.replaces is None or seen.production is None:
        return
    held = parse(seen.production.encode(), Targets, "OMEGA's production.json").signed.version
    if held != change.replaces.signed.version:
        raise MixAndMatchError(
            "Something was released since the change was planned, so that the approval which it signs anew is not the "
            "last one: deploy trust abandon, and plan it again."
        )
