"""What is signed, and by whom: TUF metadata planned, built, signed and counted. Nothing here touches a file.

Roles, after the TUF specification (section 2.1): `root` and `targets` are held offline, m of n; `targets` delegates
`production`, terminating, to the approvers, m of n; `snapshot` and `timestamp` are one key each, online. Who may build
and verify stands in `targets` too, as roles that are delegated no path (`ashat.trust.release.provenance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from ashat.common.clocks import skew
from ashat.errors import (
    ClockError,
    KeyPolicyError,
    MalformedMetadataError,
    MixAndMatchError,
    SignatureExpiredError,
    UnsignedError,
)
from ashat.trust.keys.files import OnlinePublicKeys, name_of
from ashat.trust.tuf.release_document import ReleaseDocument

METADATA_LIMIT: Final = 5_000_000  # as python-tuf fetches
PRODUCTION: Final = "production"
BUILDER: Final = "builder"
VERIFIER: Final = "verifier"
# An unknown field of root and targets is signed with the rest: the name of the OMEGA that they are of.
TARGET_FIELD: Final = "x-ashat-target"
# Likewise of the approval and of the timestamp: when it was signed, by the clock of whoever made it.
SIGNED_FIELD: Final = "x-ashat-signed"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
# A pattern matches segment by segment: `production/*` would not match a file within a channel.
PRODUCTION_PATHS: Final = ("production/*/release.json",)
_DAY: Final = 86400
_ECDSA: Final = {("ecdsa", "ecdsa-sha2-nistp256"), ("ecdsa", "ecdsa-sha2-nistp384")}

Kind = TypeVar("Kind", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, kw_only=True)
class Lifetimes:
    """For how many seconds what is signed now holds, by role. The last two are signed anew by OMEGA on its own."""

    root: float = 1095 * _DAY
    targets: float = 1095 * _DAY
    production: float = 90 * _DAY
    snapshot: float = 7 * _DAY
    timestamp: float = 1 * _DAY


@dataclass(frozen=True)
class Holders:
    """Those who hold a role, and how many of them must sign."""

    keys: Sequence[Key]
    threshold: int = 1

    @classmethod
    def of(cls, delegator: Root | Targets, role: str) -> Holders:
        """Read who holds a role from signed metadata, unchecked; see `check_delegation`.

        Raises:
            MalformedMetadataError: `delegator` delegates no such role, or names a key that it does not hold.
        """
        try:
            given = delegator.get_delegated_role(role)
            return cls([delegator.get_key(keyid) for keyid in given.keyids], given.threshold)
        except ValueError as error:
            raise MalformedMetadataError(f"The signed metadata has no complete role {role}: {error}.") from None


@dataclass(frozen=True)
class Roles:
    """Who holds each role of a trust root: people, OMEGA's own two keys, and machines."""

    root: Holders
    targets: Holders
    approvers: Holders
    snapshot: Key
    timestamp: Key
    builders: Sequence[Key] = ()
    verifiers: Sequence[Key] = ()

    @classmethod
    def of(cls, root: Root, targets: Targets) -> Roles:
        """Read who holds each role from signed metadata.

        Raises:
            MalformedMetadataError: a role is incomplete.
        """
        online = [Holders.of(root, role).keys for role in (Snapshot.type, Timestamp.type)]
        try:
            (snapshot,), (timestamp,) = online
        except ValueError:
            raise MalformedMetadataError(
                "OMEGA's own roles have one key each; the signed metadata has others."
            ) from None
        return cls(
            Holders.of(root, Root.type),
            Holders.of(root, Targets.type),
            Holders.of(targets, PRODUCTION),
            snapshot,
            timestamp,
            *(Holders.of(targets, role).keys if delegates(targets, role) else () for role in (BUILDER, VERIFIER)),
        )

    def held_by(self, people: Holders) -> Roles:
        """Replace the approvers by `people`, who hold root and targets too."""
        return replace(self, root=people, targets=people, approvers=people)

    def kept_current_by(self, online: OnlinePublicKeys) -> Roles:
        """Replace OMEGA's own keys by `online`."""
        return replace(self, snapshot=online.snapshot, timestamp=online.timestamp)


@dataclass(frozen=True)
class Signatures:
    """Who has signed and who has not, by name, and how many of them it takes."""

    threshold: int
    signed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def wanted(self) -> int:
        """How many more must sign."""
        return max(self.threshold - len(self.signed), 0)

    @property
    def complete(self) -> bool:
        """Whether enough have signed."""
        return self.wanted == 0

    def __str__(self) -> str:
        count = f"{len(self.signed)} of {self.threshold} needed"
        names = ", ".join(self.signed) or "nobody"
        return f"{count} ({names}); missing: {', '.join(self.missing) or 'nobody'}"


def check_holders(role: str, keys: Sequence[Key], threshold: int) -> None:
    """Check that a threshold means that many different keys.

    Raises:
        KeyPolicyError: one public key under two key ids or names, a key that is neither Ed25519 nor ECDSA on P-256 or
            P-384, or a threshold that is below one or above the number of keys.
    """
    seen: dict[str, str] = {}
    for key in keys:
        public, name = _public(role, key), name_of(key)
        if public in seen:
            raise KeyPolicyError(
                f"{role}: {seen[public]} and {name} are one and the same key; each person has their own."
            )
        if name in seen.values():
            raise KeyPolicyError(f"{role}: two keys are called {name}; give each its own name.")
        seen[public] = name
    if not 1 <= threshold <= len(seen):
        raise KeyPolicyError(f"{role}: {threshold} of {len(seen)} keys cannot be: the threshold is 1 to {len(seen)}.")


def check_machines(approvers: Sequence[Key], builders: Sequence[Key], verifiers: Sequence[Key]) -> None:
    """Check that no key of a machine, which lies there open, is also an approver's, or does what another role does.

    Raises:
        KeyPolicyError: one is; or see `check_holders`.
    """
    known = {_public(PRODUCTION, key): name_of(key) for key in approvers}
    for role, keys in ((BUILDER, builders), (VERIFIER, verifiers)):
        if keys:
            check_holders(role, keys, 1)
        for key in keys:
            public = _public(role, key)
            if public in known:
                raise KeyPolicyError(f"{role}: {name_of(key)} has the key of {known[public]}; give each its own.")
            known[public] = name_of(key)


def check_delegation(delegator: Root | Targets, role: str) -> None:
    """Apply `check_holders` to a role of signed metadata: whoever signed it may have counted one key twice.

    Raises:
        KeyPolicyError: see there.
        MalformedMetadataError: `delegator` delegates no such role, or names a key that it does not hold.
    """
    held = Holders.of(delegator, role)
    check_holders(role, held.keys, held.threshold)


def delegates(targets: Targets, role: str) -> bool:
    """Tell whether `targets` names anybody for that role."""
    return targets.delegations is not None and role in (targets.delegations.roles or {})


def holders_of(targets: Targets, role: str) -> tuple[str, ...]:
    """List the names of those whom `targets` names for that role."""
    if not delegates(targets, role):
        return ()
    return tuple(sorted(name_of(targets.get_key(keyid)) for keyid in targets.get_delegated_role(role).keyids))


def target_of(signed: Root | Targets) -> str:
    """Read the name of the OMEGA that signed metadata is of; "" where it says none, as before it was written there.

    Raises:
        MalformedMetadataError: it is no name.
    """
    name = signed.unrecognized_fields.get(TARGET_FIELD, "")
    if not isinstance(name, str):
        raise MalformedMetadataError(f"The signed metadata has no name in {TARGET_FIELD}.")
    return name


def require_clock(now: datetime, *held: Targets | Timestamp) -> None:
    """Check that the clock that says `now` is not behind the time at which any of these says that it was signed; those
    of versions before that was written say nothing.

    Raises:
        ClockError: it is, by more than clocks may differ.
        MalformedMetadataError: what is there is no time.
    """
    for signed in held:
        text = signed.unrecognized_fields.get(SIGNED_FIELD)
        if text is None:
            continue
        try:
            at = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
        except (ValueError, TypeError):
            raise MalformedMetadataError(f"The signed metadata has no time in {SIGNED_FIELD}.") from None
        words = skew(at, f"the time at which {signed.type} version {signed.version} was signed", now)
        if words and at > now:
            raise ClockError(
                f"{words[0].upper()}{words[1:]}, so it cannot tell what has ended: set the clock that is wrong, here "
                "or where that was signed."
            )


def check_target(signed: Root | Targets, target: str) -> None:
    """Check that signed metadata is of the OMEGA called `target` ("" for any), where it says of which it is.

    Raises:
        MixAndMatchError: it is another's.
        MalformedMetadataError: see `target_of`.
    """
    name = target_of(signed)
    if target and name and name != target:
        raise MixAndMatchError(f"What was signed as {signed.type} is for {name[:80]}, and this is {target}.")


def build_root(roles: Roles, *, lifetime: float, now: datetime, version: int = 1, target: str = "") -> Metadata[Root]:
    """Build root metadata of the OMEGA called `target` ("" names none), to be signed by the holders of the root, and
    from version 2 on by those of the version before too.

    Raises:
        KeyPolicyError: see `check_holders`.
    """
    made = Root(
        version=version, expires=_end(now, lifetime), consistent_snapshot=True, unrecognized_fields=_named(target)
    )
    parts = {
        Root.type: roles.root,
        Targets.type: roles.targets,
        Snapshot.type: Holders([roles.snapshot]),
        Timestamp.type: Holders([roles.timestamp]),
    }
    for role, holders in parts.items():
        check_holders(role, holders.keys, holders.threshold)
        for key in holders.keys:
            made.add_key(key, role)
        made.roles[role].threshold = holders.threshold
    return Metadata(made)


def build_targets(
    roles: Roles, *, lifetime: float, now: datetime, version: int = 1, target: str = ""
) -> Metadata[Targets]:
    """Build top-level targets metadata of the OMEGA called `target` ("" names none), to be signed by the holders of
    `targets`. It names no file, only who approves, and the builders and verifiers of whom any one must have signed a
    release's provenance (none: nobody has to).

    Raises:
        KeyPolicyError: see `check_holders`; or one key is to do what is kept apart.
    """
    approvers, machines = roles.approvers, {BUILDER: roles.builders, VERIFIER: roles.verifiers}
    check_holders(PRODUCTION, approvers.keys, approvers.threshold)
    check_machines(approvers.keys, roles.builders, roles.verifiers)
    people = [key.keyid for key in approvers.keys]
    delegated = {
        PRODUCTION: DelegatedRole(
            PRODUCTION, people, approvers.threshold, terminating=True, paths=list(PRODUCTION_PATHS)
        )
    } | {
        name: DelegatedRole(name, [key.keyid for key in keys], 1, terminating=False, paths=[])
        for name, keys in machines.items()
        if keys
    }
    keys = (*approvers.keys, *roles.builders, *roles.verifiers)
    delegations = Delegations({key.keyid: key for key in keys}, delegated)
    return Metadata(
        Targets(
            version=version,
            expires=_end(now, lifetime),
            delegations=delegations,
            unrecognized_fields=_named(target),
        )
    )


def build_production(
    current: Metadata[Targets] | None, document: ReleaseDocument | None, *, lifetime: float, now: datetime
) -> Metadata[Targets]:
    """Build the next version of the approvers' metadata: as `current`, with `document` as its channel's release.

    Without a document it is the same release, held for longer. It ends no later than the document does. The bytes that
    approvers sign depend on `now`: make them once, and hand the same to each.
    """
    files = dict(current.signed.targets) if current else {}
    end = _end(now, lifetime)
    if document:
        files[document.path] = document.target_file
        end = min(end, document.expires)
    version = current.signed.version + 1 if current else 1
    return Metadata(Targets(version=version, expires=end, targets=files, unrecognized_fields=_signed(now)))


def build_snapshot(
    current: Metadata[Snapshot] | None, files: Mapping[str, tuple[int, bytes]], *, lifetime: float, now: datetime
) -> Metadata[Snapshot]:
    """Build the next snapshot: `files` by role, each its version and its bytes, whose length and hash it pins."""
    meta = {f"{role}.json": MetaFile.from_data(version, data, ["sha256"]) for role, (version, data) in files.items()}
    version = current.signed.version + 1 if current else 1
    return Metadata(Snapshot(version=version, expires=_end(now, lifetime), meta=meta))


def build_timestamp(
    current: Metadata[Timestamp] | None, snapshot: tuple[int, bytes], *, lifetime: float, now: datetime
) -> Metadata[Timestamp]:
    """Build the next timestamp, for the snapshot of that version and those bytes."""
    meta = MetaFile.from_data(snapshot[0], snapshot[1], ["sha256"])
    version = current.signed.version + 1 if current else 1
    end = _end(now, lifetime)
    return Metadata(Timestamp(version=version, expires=end, snapshot_meta=meta, unrecognized_fields=_signed(now)))


def parse(content: bytes, kind: type[Kind], what: str) -> Metadata[Kind]:
    """Parse metadata of that kind, not verified. `what` is what the error calls it.

    Raises:
        MalformedMetadataError: it is not, or has more bytes than such a file may have.
    """
    if len(content) > METADATA_LIMIT:
        raise MalformedMetadataError(
            f"{what} has {len(content)} bytes; TUF metadata has at most {METADATA_LIMIT} here."
        )
    try:
        metadata: Metadata[Kind] = Metadata.from_bytes(content)
    except RepositoryError:
        raise MalformedMetadataError(f"{what} is no TUF metadata that this version can read.") from None
    if not isinstance(metadata.signed, kind):
        raise MalformedMetadataError(f"{what} is TUF metadata of the kind {metadata.signed.type}, not {kind.type}.")
    return metadata


def signatures_of(delegator: Root | Targets, role: str, metadata: Metadata[Kind]) -> Signatures:
    """Count which of the role's holders have signed exactly these bytes.

    Raises:
        KeyPolicyError, MalformedMetadataError: the delegation is no good; see `check_delegation`.
    """
    check_delegation(delegator, role)
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    signed, missing = (
        tuple(sorted(name_of(key) for key in keys.values())) for keys in (result.signed, result.unsigned)
    )
    return Signatures(result.threshold, signed, missing)


def verify(delegator: Root | Targets, role: str, metadata: Metadata[Kind]) -> Signatures:
    """Check that enough of the role's holders have signed exactly these bytes.

    Raises:
        UnsignedError: there are not; it names who has signed and who is missing.
        KeyPolicyError, MalformedMetadataError: the delegation is no good; see `check_delegation`.
    """
    found = signatures_of(delegator, role, metadata)
    if not found.complete:
        raise UnsignedError(f"{role} version {metadata.signed.version} is signed by {found}.")
    return found


def require_unexpired(now: datetime, *held: Root | Targets) -> None:
    """Check that the root and targets that are held have not ended: what is approved by them counts no more then.

    Raises:
        SignatureExpiredError: one has.
    """
    for ended in (signed for signed in held if signed.is_expired(now)):
        raise SignatureExpiredError(
            f"{ended.type} version {ended.version} ended at {ended.expires:%Y-%m-%d %H:%M}Z, and nothing that is "
            "approved counts until its holders renew it: deploy trust renew."
        )


def sign(delegator: Root | Targets, role: str, metadata: Metadata[Kind], signer: Signer) -> Signatures:
    """Add the signature of one of the role's holders to `metadata`; return who has signed then.

    Raises:
        UnsignedError: the key is no holder's, has signed already, or does not sign.
        KeyPolicyError, MalformedMetadataError: the delegation is no good; see `check_delegation`.
    """
    before = signatures_of(delegator, role, metadata)
    keyid = signer.public_key.keyid
    if keyid not in delegator.get_delegated_role(role).keyids:
        names = ", ".join(sorted(before.signed + before.missing))
        raise UnsignedError(f"The key {keyid[:12]} may not sign {role}: that is for {names}.")
    name = name_of(delegator.get_key(keyid))
    if name in before.signed:
        raise UnsignedError(f"{name} has signed {role} version {metadata.signed.version} already: {before}.")
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:
        raise UnsignedError(f"{name} could not sign {role}: {error}.") from error
    return signatures_of(delegator, role, metadata)


def sign_once(delegator: Root | Targets, role: str, metadata: Metadata[Kind], signer: Signer) -> bool:
    """Add the signature of a key where it holds the role and has not signed yet; return whether it holds the role.

    Raises:
        UnsignedError: the key does not sign.
        KeyPolicyError, MalformedMetadataError: the delegation is no good; see `check_delegation`.
    """
    keyid = signer.public_key.keyid
    if keyid not in delegator.get_delegated_role(role).keyids:
        return False
    # A signature that does not verify is none, and is replaced.
    if name_of(delegator.get_key(keyid)) not in signatures_of(delegator, role, metadata).signed:
        sign(delegator, role, metadata, signer)
    return True


def _public(role: str, key: Key) -> str:
    """Spell the public key so that each key has one spelling."""
    public = key.keyval.get("public")
    if isinstance(public, str):
        if (key.keytype, key.scheme) == ("ed25519", "ed25519"):
            return public.lower()  # hexadecimal has two spellings of each key
        if (key.keytype, key.scheme) in _ECDSA:
            with suppress(ValueError):
                return _point(load_pem_public_key(public.encode())).hex()
    raise KeyPolicyError(
        f"{role}: {name_of(key)} is neither an Ed25519 key nor one of ECDSA on P-256 or P-384, and no other kind is "
        "known here."
    )


def _point(key: object) -> bytes:
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("no key on an elliptic curve")
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _named(target: str) -> dict[str, Any]:
    return {TARGET_FIELD: target} if target else {}


def _signed(now: datetime) -> dict[str, Any]:
    return {SIGNED_FIELD: now.astimezone(UTC).strftime(_TIME)}


def _end(now: datetime, lifetime: float) -> datetime:
    return now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=lifetime)
