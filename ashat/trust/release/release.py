"""A release as approvers sign it, and the one check of whether it counts.

OMEGA, a Mainframe, an approver's machine, the audit and whoever holds a receipt each know in their own way whose
signatures to demand: they bring the targets, and the roots under which these are signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root, Targets

from ashat.errors import MalformedMetadataError, MixAndMatchError, RolledBackError, SignatureExpiredError
from ashat.protocol.messages import SignedRelease
from ashat.trust.release.provenance import VerifiedProvenance, check_digest, verify_provenance
from ashat.trust.tuf.metadata import PRODUCTION, Signatures, parse, require_clock, require_unexpired, target_of, verify
from ashat.trust.tuf.release_document import ReleaseDocument


@dataclass(frozen=True)
class Release:
    """A release document, the production metadata that names it, and the provenance that the document names (None
    where it names none, or where it is not here)."""

    document: ReleaseDocument
    production: Metadata[Targets]
    provenance: str | None = None

    @classmethod
    def read(cls, document: bytes, production: bytes, provenance: str | None = None) -> Release:
        """Parse the parts of a release, unverified.

        Raises:
            MalformedMetadataError: one of them is none that this version can read.
        """
        return cls(ReleaseDocument.from_bytes(document), parse(production, Targets, "The approval"), provenance)

    @classmethod
    def of(cls, signed: SignedRelease) -> Release:
        """Parse what a message holds; see `read`."""
        return cls.read(signed.document.encode(), signed.production.encode(), signed.provenance)

    @property
    def names_only_its_document(self) -> bool:
        """Whether the production metadata names this document and nothing else, and hands its power on to nobody."""
        signed, document = self.production.signed, self.document
        return signed.delegations is None and signed.targets == {document.path: document.target_file}

    def signed(self, signatures: Sequence[tuple[str, str]]) -> SignedRelease:
        """Put `signatures`, of key id and hexadecimal, into the place of any there are; always the same bytes."""
        given = {keyid: Signature(keyid, text) for keyid, text in sorted(signatures)}
        return SignedRelease(
            document=self.document.to_bytes().decode(),
            production=Metadata(self.production.signed, given).to_bytes().decode(),
            provenance=self.provenance,
        )


@dataclass(frozen=True)
class VerifiedRelease:
    """Who signed a release, and where it comes from: None where nobody is named who may build it, or none was asked."""

    signatures: Signatures
    provenance: VerifiedProvenance | None


def verify_release(
    release: Release,
    *,
    targets: Targets,
    roots: Sequence[Root] = (),
    target: str = "",
    now: datetime | None = None,
    minimum_release_seq: int = 1,
    proven: bool = True,
) -> VerifiedRelease:
    """Check that enough of the approvers whom `targets` names signed `release`, for this OMEGA.

    `targets` and `roots` are trusted already. The release is for the OMEGA that they name, and for `target` ("" for
    any). Without `now` no end is asked for; unless `proven`, no provenance.

    Raises:
        UnsignedError: too few approvers signed; it names who did and who is missing.
        MixAndMatchError: what they signed names another document, or is for another OMEGA.
        SignatureExpiredError: the root, the targets, the approval or the document has ended.
        RolledBackError: its `release_seq` is below `minimum_release_seq`.
        UnprovenError: nobody who may build or verify signed its provenance, or that is another than was approved.
        MalformedMetadataError, KeyPolicyError: see `check_delegation`, `verify_provenance`.
    """
    document = release.document
    held: list[Root | Targets] = [*roots, targets]
    if now is not None:
        require_unexpired(now, *held)
    signatures = verify_approval(release.production, targets, now)
    if release.production.signed.targets.get(document.path) != document.target_file:
        raise MixAndMatchError(f"What was signed does not name this release of {document.update_id}.")
    for name in (target, *(target_of(signed) for signed in held)):
        if name not in ("", document.target):
            raise MixAndMatchError(f"This release was approved for {document.target}, and not for {name[:80]}.")
    if now is not None and document.expires <= now:
        raise SignatureExpiredError(
            f"The approval of {document.update_id} ended at {document.expires:%Y-%m-%d %H:%M}Z; approve it anew."
        )
    if document.release_seq < minimum_release_seq:
        raise RolledBackError(
            f"{document.update_id} has the release_seq {document.release_seq}, and {minimum_release_seq} is the lowest "
            "to accept here: old content goes out again under a new, higher one."
        )
    if not proven:
        return VerifiedRelease(signatures, None)
    check_digest(document, release.provenance)
    return VerifiedRelease(signatures, verify_provenance(targets, document, release.provenance))


def verify_approval(production: Metadata[Targets], targets: Targets, now: datetime | None = None) -> Signatures:
    """Check that enough approvers signed `production`, and that it hands their power on to nobody.

    Raises:
        UnsignedError: too few did.
        MalformedMetadataError: it delegates.
        SignatureExpiredError: it has ended by `now`.
        ClockError: it was signed after `now`.
        KeyPolicyError: see `check_delegation`.
    """
    signatures = verify(targets, PRODUCTION, production)
    if production.signed.delegations is not None:
        raise MalformedMetadataError("The approval hands its power on to others, which is not allowed.")
    if now is not None:
        require_clock(now, production.signed)
    if now is not None and production.signed.is_expired(now):
        raise SignatureExpiredError(
            f"production is expired: the approval ended at {production.signed.expires:%Y-%m-%d %H:%M}Z; sign it anew."
        )
    return signatures
