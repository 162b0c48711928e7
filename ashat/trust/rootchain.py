"""Roots that follow on each other, as the TUF specification (5.3) has it, and whose holders signed what."""

from __future__ import annotations

from collections.abc import Sequence

from tuf.api.metadata import Metadata, Root, Targets

from ashat.errors import MixAndMatchError, TrustError
from ashat.trust.metadata import verify


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
