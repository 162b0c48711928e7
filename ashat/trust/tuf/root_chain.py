"""The root that OMEGA's machine was given by hand (`trust_root`): its first root is that one, or follows from it.

Without one OMEGA takes the first root that it is handed, so whoever may promote there could hand over their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from tuf.api.metadata import Metadata, Root, Targets

from ashat.errors import MalformedMetadataError, MixAndMatchError, RolledBackError, TrustError, UsageError
from ashat.protocol.messages import TrustState
from ashat.trust.tuf.metadata import parse, verify

_LIMIT: Final = 1 << 20


def root_digest(root: Metadata[Root]) -> str:
    """The sha256 of what is signed as a root, whoever has signed it so far."""
    return sha256(root.signed_bytes).hexdigest()


class PinnedRoot:
    """The one root that an OMEGA may begin with."""

    def __init__(self, root: Metadata[Root]) -> None:
        self._root = root

    @classmethod
    def read(cls, path: Path) -> PinnedRoot:
        """The root in that file. Who has signed it does not matter: that it lies there is what counts.

        Raises:
            UsageError: it cannot be read, or is no root.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"trust_root {path} cannot be read: {error.strerror}.") from None
        try:
            if len(content) > _LIMIT:
                raise MalformedMetadataError(f"it has {len(content)} bytes.")
            return cls(parse(content, Root, "it"))
        except MalformedMetadataError as error:
            raise UsageError(f"trust_root {path} is no root.json: {error}") from None

    @property
    def digest(self) -> str:
        """Which root it is, as `root_digest` has it."""
        return root_digest(self._root)

    @property
    def version(self) -> int:
        """Its version."""
        return self._root.signed.version

    def demand(self, root: Metadata[Root], between: Sequence[Metadata[Root]] = ()) -> list[Metadata[Root]]:
        """See that `root` is the one that is pinned, or follows from it by way of those `between`, each signed by
        enough of those who held the one before; those that lead there.

        Raises:
            MixAndMatchError: it is another.
            RolledBackError: it came before, or one of those between is missing.
            UnsignedError: too few signed one of them.
        """
        held = self._root.signed
        if root.signed.version == held.version:
            if root.signed != held:
                raise MixAndMatchError(
                    f"trust_root has another root of version {held.version} ({self.digest[:12]}, and not "
                    f"{root_digest(root)[:12]})."
                )
            return []
        for step in (*between, root):
            if step.signed.version != held.version + 1:
                raise RolledBackError(
                    f"root version {step.signed.version} does not follow version {held.version}, to which trust_root "
                    "leads."
                )
            verify(held, Root.type, step)
            verify(step.signed, Root.type, step)
            held = step.signed
        return list(between)


def roots_between(seen: TrustState, roots: Sequence[Metadata[Root]]) -> list[str]:
    """Those of `roots`, oldest first, that lead an OMEGA as it was `seen` from the root that it pins to the last of
    them, which is given to it; none where it pins none.

    Raises:
        MixAndMatchError: it pins one that none of them is.
    """
    if seen.pinned is None:
        return []
    digests = [root_digest(root) for root in roots]
    if seen.pinned not in digests:
        raise MixAndMatchError(
            f"OMEGA takes no first root but its trust_root ({seen.pinned[:12]}), and the one here is another "
            f"({digests[-1][:12]}): bring trust/authority from where that was made; or, if the one here is right, put "
            "its root.json in the place of trust_root on OMEGA's machine."
        )
    return [root.to_bytes().decode() for root in roots[digests.index(seen.pinned) + 1 : -1]]


def check_follows(earlier: Metadata[Root], later: Metadata[Root]) -> None:
    """See that the root `later` is the next version after `earlier`, signed by the holders of both.

    Raises:
        MixAndMatchError: it is another version.
        UnsignedError: too few of the holders of one of them signed it.
        KeyPolicyError, MalformedMetadataError: one of them is no good; see `check_delegation`.
    """
    if later.signed.version != earlier.signed.version + 1:
        raise MixAndMatchError(
            f"Root version {later.signed.version} does not follow on version {earlier.signed.version}."
        )
    verify(earlier.signed, Root.type, later)
    verify(later.signed, Root.type, later)


def delegator_of(roots: Sequence[Metadata[Root]], targets: Metadata[Targets]) -> Metadata[Root]:
    """The newest of `roots`, which are trusted, whose holders of the role signed `targets`.

    Raises:
        UnsignedError: none; it names who is missing by the oldest.
        KeyPolicyError, MalformedMetadataError: that root is no good; see `check_delegation`.
    """
    for root in reversed(roots[1:]):
        try:
            verify(root.signed, Targets.type, targets)
        except TrustError:
            continue
        return root
    verify(roots[0].signed, Targets.type, targets)
    return roots[0]
