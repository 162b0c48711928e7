"""What approvers are asked to sign: a release, and its rollback; and their signatures, put together.

Both are whole versions of the `production` metadata, the rollback following the release: who approves a release also
approves the return to what it replaces, for as long as nothing else was published since. What it replaces comes with it
as it was signed, so that an approver's machine can see that the rollback leads there and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from securesystemslib.signer import Signature, Signer
from tuf.api.metadata import Metadata, Targets

from ashat.errors import MalformedMetadataError, MixAndMatchError, UnsignedError
from ashat.protocol.messages import ReleaseSignature, SignedRelease
from ashat.trust.keys.files import name_of
from ashat.trust.release.release import Release
from ashat.trust.tuf.metadata import (
    PRODUCTION,
    Signatures,
    build_production,
    parse,
    require_clock,
    sign,
    signatures_of,
    verify,
)
from ashat.trust.tuf.release_document import ReleaseDocument

_FORMAT = "ashat-proposal/1"
# A number that jumps further than this would use up those that are left, and end the channel for good.
_SEQ_JUMP = 1 << 20
_CLOCKS_DIFFER = timedelta(days=1)
# Ed25519 signatures have 64 bytes, ECDSA ones on P-384 at most 104.
_LINE = re.compile(r"ashat-signature-1:([0-9a-f]{64}):([0-9a-f]{16,208}):([0-9a-f]{16,208}|)")


@dataclass(frozen=True)
class Proposal:
    """`targets` are those that OMEGA keeps: they say who approves, and how many of them it takes. `replaced` is None
    where nothing was signed yet."""

    targets: Metadata[Targets]
    release: Release
    rollback: Release | None
    replaced: Release | None = None

    @classmethod
    def make(
        cls,
        targets: bytes,
        production: bytes | None,
        documents: tuple[ReleaseDocument, ReleaseDocument | None],
        *,
        lifetime: float,
        now: datetime,
        provenances: Mapping[str, str] = MappingProxyType({}),
        replaced: ReleaseDocument | None = None,
    ) -> Proposal:
        """Propose what follows on `production`, which OMEGA keeps (None: nothing was released there yet).

        `documents` are the release and the rollback from it (None: none is to be signed). `provenances` holds those
        that they name, by their digest; `replaced` is the document that `production` names.

        Raises:
            MalformedMetadataError: what OMEGA keeps cannot be read.
        """
        release, rollback = documents
        current = parse(production, Targets, "OMEGA's production.json") if production is not None else None
        next_ = build_production(current, release, lifetime=lifetime, now=now)
        back = build_production(next_, rollback, lifetime=lifetime, now=now) if rollback else None
        return cls(
            parse(targets, Targets, "OMEGA's targets.json"),
            Release(release, next_, provenances.get(release.provenance or "")),
            Release(rollback, back, provenances.get(rollback.provenance or "")) if rollback and back else None,
            Release(replaced, current) if replaced and current else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Write it as the ledger keeps it."""
        drafts = {"release": self.release, "rollback": self.rollback}
        return {
            "format": _FORMAT,
            "targets": self.targets.to_bytes().decode(),
            **{name: draft.signed(()).model_dump() if draft else None for name, draft in drafts.items()},
            "replaced": {
                "document": self.replaced.document.to_bytes().decode(),
                "production": self.replaced.production.to_bytes().decode(),
            }
            if self.replaced
            else None,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Proposal:
        """Read what `to_json` wrote.

        Raises:
            MalformedMetadataError: it did not.
        """
        try:
            if content["format"] != _FORMAT:
                raise MalformedMetadataError(f"A proposal of the format {content['format']!r} is from another version.")
            rollback = "rollback" if "rollback" in content else "way_back"  # as an earlier version wrote it
            release, returns, last = (
                Release.read(part["document"].encode(), part["production"].encode(), part.get("provenance"))
                if (part := content.get(name))
                else None
                for name in ("release", rollback, "replaced")
            )
            if release is None:
                raise KeyError("release")
            return cls(parse(content["targets"].encode(), Targets, "targets.json"), release, returns, last)
        except (KeyError, TypeError, AttributeError):
            raise MalformedMetadataError("What was proposed is not as this version writes it.") from None

    def check(self, *, lifetime: float, now: datetime) -> None:
        """Check that it is what follows on the release that the approvers signed last, and the return to that and to
        nothing else; for no longer than `lifetime` seconds.

        Raises:
            UnsignedError: too few approvers signed what it says that it replaces.
            MixAndMatchError: it is something else.
            ClockError: it says that it was made at a time that has not come here.
        """
        number, version = 0, 0
        if self.replaced is not None:
            verify(self.targets.signed, PRODUCTION, self.replaced.production)
            number, version = self.replaced.document.release_seq, self.replaced.production.signed.version
            if not self.replaced.names_only_its_document:
                raise MixAndMatchError("What is said to be replaced is not what was signed last; nothing was signed.")
        release = self.release.document
        if not number < release.release_seq <= number + _SEQ_JUMP:
            raise MixAndMatchError(
                f"What is proposed has the release_seq {release.release_seq}, and {number} was signed last: so large a "
                "step would end the channel; nothing was signed."
            )
        if self.rollback is not None:
            self._check_rollback(self.rollback.document)
        latest = now + timedelta(seconds=lifetime) + _CLOCKS_DIFFER
        for step, draft in enumerate((draft for draft in (self.release, self.rollback) if draft), 1):
            signed = draft.production.signed
            require_clock(now, signed)
            if signed.version != version + step:
                raise MixAndMatchError("What is proposed does not follow on what was signed last; nothing was signed.")
            if not draft.names_only_its_document:
                raise MixAndMatchError("What is proposed would release more than it says; nothing was signed.")
            if max(signed.expires, draft.document.expires) > latest:
                raise MixAndMatchError(
                    f"What is proposed would hold until {draft.document.expires:%Y-%m-%d}, which is longer than "
                    "ASHAT_APPROVAL_LIFETIME here; nothing was signed."
                )

    def check_form(self) -> None:
        """Check that each part names its document and nothing else, and that the rollback leads to what was signed
        last, as far as the proposal says what that was.

        Raises:
            MixAndMatchError: it is something else.
        """
        for part in (self.release, self.rollback, self.replaced):
            if part is not None and not part.names_only_its_document:
                raise MixAndMatchError(f"What was signed would release more than {part.document.update_id}.")
        if self.rollback is not None and self.replaced is not None:
            self._check_rollback(self.rollback.document)

    def _check_rollback(self, back: ReleaseDocument) -> None:
        release, last = self.release.document, self.replaced.document if self.replaced else None
        if last is None:
            raise MixAndMatchError("A rollback is proposed to what nobody ever signed; nothing was signed.")
        fresh = {"release_seq": release.release_seq + 1, "expires": release.expires, "log": release.log}
        if (last.channel, last.target) != (release.channel, release.target) or back != last.model_copy(update=fresh):
            raise MixAndMatchError(
                f"The rollback that is proposed, to {back.update_id} (bundle {back.bundle[:12]}), is not the return to "
                f"{last.update_id} (bundle {last.bundle[:12]}), which was signed last; nothing was signed."
            )

    def sign(self, signer: Signer) -> ReleaseSignature:
        """Sign each part as one approver.

        Raises:
            UnsignedError: the key is no approver's, or does not sign.
        """
        keyid = signer.public_key.keyid
        made = [self._sign(draft, signer) for draft in (self.release, self.rollback) if draft]
        key = self.targets.signed.get_key(keyid)
        return ReleaseSignature(
            name=name_of(key), keyid=keyid, release=made[0], rollback=made[1] if len(made) > 1 else None
        )

    def read(self, line: str) -> ReleaseSignature:
        """Read and verify the signatures that `spell` made a line of.

        Raises:
            UnsignedError: they are no approver's, or not over this.
        """
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise UnsignedError("the signature is not one that deploy sign printed: give its whole line")
        keyid, release, rollback = match.groups()
        drafts = [(self.release, release), (self.rollback, rollback)]
        for draft, text in drafts:
            if (draft is None) != (not text):
                raise UnsignedError("the signature is over something else than what is proposed now: sign it anew")
            if draft is not None and not self._count(draft, [(keyid, text)]).signed:
                raise UnsignedError(f"the signature by the key {keyid[:12]} is no approver's, or not over this release")
        name = name_of(self.targets.signed.get_key(keyid))
        return ReleaseSignature(name=name, keyid=keyid, release=release, rollback=rollback or None)

    def count(self, signatures: Sequence[ReleaseSignature]) -> Signatures:
        """Count who has signed the release, and whether that is enough."""
        return self._count(self.release, [(one.keyid, one.release) for one in signatures])

    def signed_release(self, signatures: Sequence[ReleaseSignature]) -> SignedRelease:
        """Put the signatures to the release."""
        return self.release.signed([(one.keyid, one.release) for one in signatures])

    def signed_rollback(self, signatures: Sequence[ReleaseSignature]) -> SignedRelease | None:
        """Put the signatures to the rollback; None where none was proposed."""
        given = [(one.keyid, one.rollback) for one in signatures if one.rollback]
        return self.rollback.signed(given) if self.rollback else None

    def _sign(self, draft: Release, signer: Signer) -> str:
        metadata: Metadata[Targets] = Metadata(draft.production.signed)
        sign(self.targets.signed, PRODUCTION, metadata, signer)
        return str(metadata.signatures[signer.public_key.keyid].signature)

    def _count(self, draft: Release, signatures: Sequence[tuple[str, str]]) -> Signatures:
        given = {keyid: Signature(keyid, text) for keyid, text in signatures}
        return signatures_of(self.targets.signed, PRODUCTION, Metadata(draft.production.signed, given))


def spell(signature: ReleaseSignature) -> str:
    """Write a signature as one line that can be pasted: the key id and the signatures, in hexadecimal."""
    return f"ashat-signature-1:{signature.keyid}:{signature.release}:{signature.rollback or ''}"
