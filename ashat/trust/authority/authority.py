"""The trust root of an installation, under `ASHAT_HOME/trust`: who approves, signed by whom, and OMEGA's public keys.

authority/OMEGA/{root.json,targets.json,keys/*.pem}   made by init, all at once; OMEGA is the name it is configured as
authority/OMEGA/roots/N.root.json                     every root since the first ceremony, by its version
authority/OMEGA/next.json                             a change of these that is being signed (`pending_change`)
keys/NAME.pem, keys/NAME.pub                          people's keys made here
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from securesystemslib.signer import Key, Signer, SSlibKey
from tuf.api.metadata import Metadata, Root, Targets

from ashat.common.files import make_directory, replace_file, sync_directory
from ashat.errors import NotConfiguredError, TrustError, UnsignedError, UsageError
from ashat.trust.keys.files import OnlinePublicKeys, create_key, load_signer
from ashat.trust.release.machine_keys import machine_public_key
from ashat.trust.tuf.metadata import (
    BUILDER,
    PRODUCTION,
    VERIFIER,
    Holders,
    Kind,
    Lifetimes,
    Roles,
    Signatures,
    build_root,
    build_targets,
    check_delegation,
    check_holders,
    holders_of,
    parse,
    sign,
    sign_once,
    signatures_of,
)

# Nobody looks after a root that was made by itself, so it must not end while its installation is in use.
UNATTENDED: Final = Lifetimes(root=3650 * 86400, targets=3650 * 86400)
# What the one key that approves in one-person mode is called, as its file is.
ALONE: Final = "approver"
ONE_PERSON: Final = (
    "One-person mode: one key, on this machine and without a passphrase, approves.",
    "It protects from whoever has only OMEGA's storage, a Mainframe's connection, or an old release.",
    "It does not protect from whoever can read ASHAT_HOME here: they can approve anything.",
    "It does not show who approved either, and nobody has to agree with them.",
    "For approvals by people with their own keys: deploy trust keygen, then deploy trust add-approver.",
)


def one_person_line(home: Path, target: str = "omega") -> str:
    """Say in a line that `target` is in the one-person mode, wherever its approvals are shown, also where nothing is
    set up yet; "" where people sign. `ONE_PERSON` explains it where it is decided.

    Raises:
        TrustError: what was set up cannot be read.
    """
    authority = Authority(home, target)
    people = authority.exists() and not authority.read().one_person
    return "" if people else f"{ONE_PERSON[0]} deploy trust status says more."


def kept_roots(home: Path) -> dict[str, list[bytes]]:
    """Read the roots that are kept under `home` of each OMEGA, by its name, oldest first: those that follow on each
    other, up to the one in force; none where too few of the holders signed it yet.

    Raises:
        TrustError: what was set up cannot be read.
    """
    found = {}
    for place in sorted((home / "trust" / "authority").glob("[!.]*")):
        authority = Authority(home, place.name)
        if authority.exists() and authority.read().complete:
            found[place.name] = [root.to_bytes() for root in _unbroken(authority.roots())]
    return found


def _unbroken(roots: Sequence[Metadata[Root]]) -> Sequence[Metadata[Root]]:
    """Select the last of `roots` and those before it without a gap between."""
    first = len(roots) - 1
    while first > 0 and roots[first - 1].signed.version == roots[first].signed.version - 1:
        first -= 1
    return roots[first:]


@dataclass(frozen=True)
class AuthorityState:
    """What was set up, and who has signed it so far."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    root_signatures: Signatures
    targets_signatures: Signatures
    approvers: Signatures
    machines: Mapping[str, tuple[str, ...]]
    """Who may build and who may verify, by role; none where nobody is named."""
    one_person: bool
    """Whether the one key that approves lies here, open."""

    @property
    def complete(self) -> bool:
        """Whether a repository can begin with it."""
        return self.root_signatures.complete and self.targets_signatures.complete


class Authority:
    """The trust root under `home` of the OMEGA that is configured as `target`."""

    def __init__(self, home: Path, target: str = "omega") -> None:
        self._home = home
        self.directory = home / "trust" / "authority" / target
        self.people = home / "trust" / "keys"

    def exists(self) -> bool:
        """Tell whether it was set up."""
        return (self.directory / "root.json").exists()

    def refuse_second(self) -> None:
        """Check that it was not set up yet.

        Raises:
            UsageError: it was.
        """
        if self.exists():
            raise UsageError(f"Trust is set up already, in {self.directory}; deploy trust status shows how.")

    def init(
        self,
        approvers: Sequence[SSlibKey],
        threshold: int,
        *,
        online: OnlinePublicKeys,
        now: datetime,
        lifetimes: Lifetimes | None = None,
        builders: Sequence[Key] = (),
        verifiers: Sequence[Key] = (),
    ) -> AuthorityState:
        """Set it up, for the OMEGA whose own keys are `online`. Without approvers one is made here, and everything is
        signed at once (one-person mode); else the approvers hold root and targets too, and each has yet to `sign`.

        Any one of `builders`, and of `verifiers`, must have signed the provenance of each release; where none is given,
        none is demanded, but in the one-person mode one by this machine.

        Raises:
            UsageError: it was set up already.
            KeyPolicyError: see `check_holders`.
            TrustError: it cannot be written; nothing was set up.
        """
        self.refuse_second()
        if approvers:
            check_holders(PRODUCTION, approvers, threshold)
        elif not builders and not verifiers:
            builders, verifiers = ([machine_public_key(self._home, role, role)] for role in (BUILDER, VERIFIER))
        staging = self.directory.with_name(f".{self.directory.name}.{secrets.token_hex(8)}")
        try:
            make_directory(staging / "keys", mode=0o700)
            people = Holders(approvers, threshold) if approvers else None
            roles = _roles(staging / "keys", people, online, (builders, verifiers))
            self._write(staging, roles, lifetimes or (Lifetimes() if approvers else UNATTENDED), now)
            # A rename onto a directory that is not empty fails: of two who set it up at once, one does.
            os.rename(staging, self.directory)
            sync_directory(self.directory.parent)
        except OSError as error:
            raise TrustError(f"Trust cannot be set up in {self.directory}: {error.strerror}.") from error
        return self.read()

    def read(self) -> AuthorityState:
        """Read what was set up.

        Raises:
            NotConfiguredError: nothing.
            TrustError: a file is damaged.
        """
        try:
            raw = {name: (self.directory / name).read_bytes() for name in ("root.json", "targets.json")}
        except FileNotFoundError:
            raise NotConfiguredError("Trust is not set up here; run: deploy trust init") from None
        except OSError as error:
            raise TrustError(f"{self.directory} cannot be read: {error.strerror}.") from error
        root = parse(raw["root.json"], Root, "root.json")
        targets = parse(raw["targets.json"], Targets, "targets.json")
        return AuthorityState(
            root,
            targets,
            signatures_of(root.signed, Root.type, root),
            signatures_of(root.signed, Targets.type, targets),
            signatures_of(targets.signed, PRODUCTION, Metadata(targets.signed)),
            {role: holders_of(targets.signed, role) for role in (BUILDER, VERIFIER)},
            self.approves_alone(targets.signed),
        )

    def roots(self) -> list[Metadata[Root]]:
        """Read every root that is kept here up to the one in force, oldest first.

        Raises:
            NotConfiguredError: nothing was set up.
            TrustError: a file is damaged.
        """
        current = self.read().root
        try:
            kept = [
                parse(path.read_bytes(), Root, f"roots/{path.name}")
                for path in (self.directory / "roots").glob("*.root.json")
            ]
        except OSError as error:
            raise TrustError(f"{self.directory / 'roots'} cannot be read: {error.strerror}.") from error
        version = current.signed.version
        earlier = {root.signed.version: root for root in kept if root.signed.version < version}
        return [*(earlier[number] for number in sorted(earlier)), current]

    def keep_roots(self, *roots: Metadata[Root]) -> None:
        """Keep each root for those who still begin at an earlier one; again changes nothing.

        Raises:
            OSError: it cannot be written.
        """
        make_directory(self.directory / "roots")
        for root in roots:
            replace_file(self.directory / "roots" / f"{root.signed.version}.root.json", root.to_bytes())

    def approves_alone(self, targets: Targets) -> bool:
        """Tell whether by `targets` the one key that approves is the one that lies here, open.

        Raises:
            MalformedMetadataError: `targets` say nothing of who approves.
            KeyFileError: that key cannot be read.
        """
        key = self.alone_key
        if not key.exists():
            return False
        check_delegation(targets, PRODUCTION)
        return targets.get_delegated_role(PRODUCTION).keyids == [load_signer(key).public_key.keyid]

    def sign(self, signer: Signer) -> AuthorityState:
        """Add the signature of one holder to root and targets; signing again changes nothing.

        Raises:
            UnsignedError: the key holds neither.
            TrustError: a file is damaged or cannot be written.
        """
        state = self.read()
        held = [
            self._sign(state, Root.type, state.root, signer),
            self._sign(state, Targets.type, state.targets, signer),
        ]
        if not any(held):
            raise UnsignedError(f"This key signs neither root nor targets: {state.root_signatures}.")
        return self.read()

    def _sign(self, state: AuthorityState, role: str, metadata: Metadata[Kind], signer: Signer) -> bool:
        if not sign_once(state.root.signed, role, metadata, signer):
            return False
        try:
            replace_file(self.directory / f"{role}.json", metadata.to_bytes())
        except OSError as error:
            raise TrustError(f"{role}.json cannot be written: {error.strerror}.") from error
        return True

    def embedded_approver(self) -> Signer:
        """Load the one key that approves in one-person mode.

        Raises:
            KeyFileError: it is not there, since people approve with their own, or it cannot be used.
        """
        return load_signer(self.alone_key)

    @property
    def alone_key(self) -> Path:
        """The file of the one key that approves in one-person mode; where people sign, there is none."""
        return self.directory / "keys" / f"{ALONE}.pem"

    def embedded_keys(self) -> list[Path]:
        """List the files of the keys that sign by themselves in one-person mode; none where people sign."""
        return sorted((self.directory / "keys").glob("*.pem"))

    def _write(self, place: Path, roles: Roles, lifetimes: Lifetimes, now: datetime) -> None:
        """Write root and targets into `place`, signed by the keys that lie there."""
        target = self.directory.name
        root = build_root(roles, lifetime=lifetimes.root, now=now, target=target)
        targets = build_targets(roles, lifetime=lifetimes.targets, now=now, target=target)
        if (place / "keys" / "root.pem").exists():
            sign(root.signed, Root.type, root, load_signer(place / "keys" / "root.pem"))
            sign(root.signed, Targets.type, targets, load_signer(place / "keys" / "targets.pem"))
        replace_file(place / "targets.json", targets.to_bytes())
        replace_file(place / "root.json", root.to_bytes())


def _roles(
    keys: Path, people: Holders | None, online: OnlinePublicKeys, machines: tuple[Sequence[Key], Sequence[Key]]
) -> Roles:
    """Have `people` hold what is held offline; without them a key of its own for each role, made in `keys`."""
    if people is not None:
        return Roles(people, people, people, online.snapshot, online.timestamp, *machines)
    root, targets, approvers = (
        Holders([create_key(keys / f"{name}.pem", name, None)]) for name in ("root", "targets", ALONE)
    )
    return Roles(root, targets, approvers, online.snapshot, online.timestamp, *machines)
