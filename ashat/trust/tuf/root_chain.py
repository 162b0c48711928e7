"""Chains of roots: each version is signed by the holders of the one before and by its own.

A chain begins at a root that is trusted for another reason. On OMEGA's machine that is the one given by hand
(`trust_root`, `PinnedRoot`); without it OMEGA takes the first root that it is handed, so whoever may promote there
hand over their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

from tuf.api.metadata import Metadata, Root, Targets

from ashat.common.files import read_bounded
from ashat.errors import MalformedMetadataError, MixAndMatchError, RolledBackError, TrustError, UsageError
from ashat.protocol.messages import TrustState
from ashat.trust.tuf.metadata import parse, verify

_LIMIT: Final = 1 << 20


def root_digest(root: Metadata[Root]) -> str:
    """Compute the sha256 of the signed part of a root, whoever has signed it so far."""
    return sha256(root.signed_bytes).hexdigest()


def check_chain(roots: Sequence[Metadata[Root]]) -> None:
    """Check that each of `roots` is the version after the one before it, signed by enough holders of both.

    Raises:
        RolledBackError: a version is missing or comes twice.
        UnsignedError: too few of the holders signed one of them.
        KeyPolicyError, MalformedMetadataError: one of them is no good; see `check_delegation`.
    """
    for earlier, later in pairwise(roots):
        if later.signed.version != earlier.signed.version + 1:
            raise RolledBackError(
                f"root version {later.signed.version} does not follow version {earlier.signed.version}, which is held."
            )
        verify(earlier.signed, Root.type, later)
        verify(later.signed, Root.type, later)


class PinnedRoot:
    """The one root that an OMEGA may begin with."""

    def __init__(self, root: Metadata[Root]) -> None:
        self._root = root

    @classmethod
    def read(cls, path: Path) -> PinnedRoot:
        """Read the root in that file. Who has signed it does not matter: that it lies there is what counts.

        Raises:
            UsageError: it cannot be read, or is no root.
        """
        try:
            content = read_bounded(path, _LIMIT)
        except OSError as error:
            raise UsageError(f"trust_root {path} cannot be read: {error.strerror}.") from None
        try:
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

    def check(self, root: Metadata[Root], between: Sequence[Metadata[Root]] = ()) -> list[Metadata[Root]]:
        """Check that `root` is the pinned one, or follows from it by way of `between`; return those that lead there.

        Raises:
            MixAndMatchError: it is another of the same version.
            TrustError: it does not follow; see `check_chain`.
        """
        if root.signed.version != self.version:
            check_chain([self._root, *between, root])
            return list(between)
        if root.signed != self._root.signed:
            raise MixAndMatchError(
                f"trust_root has another root of version {self.version} ({self.digest[:12]}, and not "
                f"{root_digest(root)[:12]})."
            )
        return []


def roots_between(seen: TrustState, roots: Sequence[Metadata[Root]]) -> list[str]:
    """Select those of `roots`, oldest first, that lead an OMEGA as it was `seen` from the root that it pins to the last
    of them, which is given to it; none where it pins none.

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


def delegator_of(roots: Sequence[Metadata[Root]], targets: Metadata[Targets]) -> Metadata[Root]:
    """Find the newest of `roots`, which are trusted, whose holders of the role signed `targets`.

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
