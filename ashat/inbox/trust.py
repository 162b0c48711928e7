"""Find what waits for signatures in the trust roots of a home: a first root, a change of one, and one that ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import Root, Targets

from ashat.errors import KeyFileError, TrustError
from ashat.inbox.waiting import SOON, Waiting
from ashat.trust.authority.authority import Authority, AuthorityState
from ashat.trust.authority.key_change import Change
from ashat.trust.authority.pending_change import PendingChange
from ashat.trust.keys.files import load_public_key, name_of
from ashat.trust.tuf.metadata import PRODUCTION, Holders, Signatures, parse

_SIGN = "deploy trust sign --key FILE.pem"


def approvers_of(targets: bytes) -> tuple[dict[str, str], int]:
    """Read who approves by the targets metadata in `targets`: their key ids by their names, and how many it takes.

    Raises:
        TrustError: it names nobody, or cannot be read.
    """
    held = Holders.of(parse(targets, Targets, "The proposal's targets").signed, PRODUCTION)
    return {name_of(key): str(key.keyid) for key in held.keys}, held.threshold


def key_ids(home: Path, more: Iterable[Path] = ()) -> frozenset[str]:
    """Read the ids of the keys that a person has here: those in `trust/keys` of the home, and those in the files
    `more`, of each the public half that lies beside it.

    Raises:
        KeyFileError: a file of `more` is no key.
    """
    found = set()
    for path in sorted((home / "trust" / "keys").glob("*.pub")):
        try:
            found.add(str(load_public_key(path, path.stem).keyid))
        except KeyFileError:
            continue  # deploy doctor and deploy sign say what is wrong with it
    for path in more:
        found.add(str(load_public_key(path.with_suffix(".pub"), "key").keyid))
    return frozenset(found)


def waiting_for_trust(home: Path, now: datetime) -> Iterator[Waiting | str]:
    """Yield what waits for signatures or for its publication in the home, for each OMEGA that trust was set up for; a
    text says what could not be looked at."""
    for place in sorted((home / "trust" / "authority").glob("[!.]*")):
        authority = Authority(home, place.name)
        if not authority.exists():
            continue
        try:
            yield from _waiting_for(authority, place.name, now)
        except (TrustError, OSError) as error:
            yield f"the trust root of {place.name} could not be read: {error}"


def _waiting_for(authority: Authority, name: str, now: datetime) -> Iterator[Waiting]:
    state, pending = authority.read(), PendingChange(authority)
    ends = min(state.root.signed.expires, state.targets.signed.expires)
    option = "" if name == "omega" else f" --as {name}"
    if pending.exists():
        yield _change(pending.read(), state, name, option)
    elif not state.complete:
        counts = (state.root_signatures, state.targets_signatures)
        asking = Waiting("trust", name, "its first root is not signed by enough", None, ends, f"{_SIGN}{option}")
        yield _to_be_signed(asking, counts, state.root.signed)
    elif ends - now < SOON:
        how = f"deploy trust renew{option}"
        verb = "ended" if ends <= now else "ends"
        what = f"root or targets {verb} at {ends:%Y-%m-%d %H:%M} UTC; OMEGA takes nothing after that"
        signers = {} if state.one_person else _ids(Holders.of(state.root.signed, Root.type).keys)
        threshold = 0 if state.one_person else state.root_signatures.threshold
        yield Waiting("trust", name, what, ends - SOON, ends, how, signers=signers, needed=threshold)


def _change(change: Change, state: AuthorityState, name: str, option: str) -> Waiting:
    differences = "; ".join(change.differences(state.root.signed, state.targets.signed)) or "they hold for longer"
    ends, counts = state.root.signed.expires, tuple(change.counts(state.root.signed).values())
    if change.complete(state.root.signed):
        what = f"a change is signed by enough, and not published yet: {differences}"
        return Waiting("trust", name, what, change.planned, ends, f"deploy trust publish{option}")
    what = f"a change is to be signed: {differences}"
    asking = Waiting("trust", name, what, change.planned, ends, f"{_SIGN}{option}")
    return _to_be_signed(asking, counts, state.root.signed, change.root.signed)


def _to_be_signed(asking: Waiting, counts: Iterable[Signatures], *roots: Root) -> Waiting:
    """Add who still may sign, of all parts together; as many are needed as the part that lacks most. `roots` have the
    keys of them all."""
    lacking = [count for count in counts if not count.complete]
    missing = {person for count in lacking for person in count.missing}
    signed = {person for count in counts for person in count.signed} - missing
    known: dict[str, str] = {}
    for root in roots:
        known |= _ids(Holders.of(root, Root.type).keys) | _ids(Holders.of(root, Targets.type).keys)
    return replace(
        asking,
        signers={person: known.get(person, "") for person in sorted(missing)},
        signed=tuple(sorted(signed)),
        needed=max((count.wanted for count in lacking), default=0),
    )


def _ids(keys: Iterable[Key]) -> dict[str, str]:
    return {name_of(key): str(key.keyid) for key in keys}
