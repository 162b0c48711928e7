"""The first root and targets, handed over to an OMEGA that keeps none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import Metadata, Root, Targets

from ashat.errors import MixAndMatchError, NodeConflictError, NoReleaseError, UnsignedError
from ashat.protocol.messages import TrustMetadata, TrustState
from ashat.trust.tuf.metadata import parse
from ashat.trust.tuf.root_chain import roots_between

if TYPE_CHECKING:
    from ashat.client.node import NodeClient
    from ashat.trust.authority.authority import Authority


def first_trust(authority: Authority, seen: TrustState, target: str) -> TrustMetadata:
    """Make what an OMEGA that keeps no root, as it was `seen`, is given to begin with, as `target`.

    Raises:
        NotConfiguredError: nothing was set up here.
        UnsignedError: too few have signed what was.
        MixAndMatchError: OMEGA begins with another root only.
        TrustError: a file here is damaged.
    """
    held = authority.read()
    if not held.complete:
        raise UnsignedError(
            f"{target} keeps no trust root, and the one made for it here is signed by {held.root_signatures}: "
            "deploy trust status."
        )
    return TrustMetadata(
        target=target,
        root=held.root.to_bytes().decode(),
        roots=roots_between(seen, authority.roots()),
        targets=held.targets.to_bytes().decode(),
    )


def ready(authority: Authority, seen: TrustState, target: str) -> TrustMetadata:
    """Make the same as `first_trust`, and refuse where OMEGA keeps something already.

    Raises:
        NoReleaseError: it keeps what there is here, so there is nothing to hand over.
        MixAndMatchError: it keeps another root, or other targets, than there are here.
        TrustError: of other classes; see `first_trust`.
    """
    if seen.root is None:
        return first_trust(authority, seen, target)
    held = authority.read()
    if keeps(seen, held.root, held.targets):
        raise NoReleaseError(
            f"No change of who signs is under way here, and {target} keeps what is in force: deploy trust status."
        )
    raise MixAndMatchError(
        f"{target} keeps another root, or other targets, than there are here: bring trust/authority from where they "
        f"were changed last to {authority.directory}."
    )


def hand_over(authority: Authority, omega: NodeClient, target: str) -> None:
    """Give `omega`, which is `target` and keeps no root, the one that was set up here.

    Raises:
        TrustError: see `ready`; or OMEGA refuses it. Nothing was changed.
        NodeError: OMEGA does not answer.
    """
    try:
        omega.put_trust(ready(authority, omega.trust(), target))
    except NodeConflictError as error:
        raise MixAndMatchError(f"{target} does not take the root ({error}); nothing was changed.") from error


def keeps(seen: TrustState, root: Metadata[Root], targets: Metadata[Targets]) -> bool:
    """Tell whether OMEGA, which keeps what was `seen`, keeps this very root and these targets.

    Raises:
        MalformedMetadataError: what it keeps cannot be read.
    """
    if seen.root is None or seen.targets is None:
        return False
    kept_root = parse(seen.root.encode(), Root, "OMEGA's root.json").signed
    return (kept_root, parse(seen.targets.encode(), Targets, "OMEGA's targets.json").signed) == (
        root.signed,
        targets.signed,
    )
