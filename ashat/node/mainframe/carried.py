"""OMEGA as a file that was carried here by hand: it is asked as OMEGA is over the wire, and believed as little.

The signatures go through the same `OfferVerifier`, the bytes into the same store. What a Mainframe asks OMEGA for and
cannot be foreseen, the proofs that logs continue what is remembered here, is made of the hashes of all entries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import parse_qs

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from ashat.bundle.manifest import Manifest
from ashat.client.transfer import BATCH_OBJECTS, Lack, Progress, RequireRoom, TransferReport, room_for
from ashat.errors import (
    AuditError,
    CarriedFileError,
    NodeRefusedError,
    SignatureExpiredError,
    TrustError,
    UnsignedError,
)
from ashat.node.mainframe.offer_verifier import OfferVerifier
from ashat.node.store.store import Store
from ashat.protocol.carried import CarriedFile, OmegaWord
from ashat.protocol.frames import frame_header
from ashat.protocol.messages import LogProof, Offer, SignedCheckpoint
from ashat.transparency.merkle import HASH_BYTES, consistency_proof
from ashat.transparency.witness import Witness
from ashat.trust.tuf.release_document import ReleaseDocument

_PLACE = "carried"
_LOG = "log/"


class CarriedRepository:
    """OMEGA's TUF repository, and the ledger's log, as a file holds them."""

    def __init__(self, word: OmegaWord) -> None:
        self._word = word

    def file(self, name: str) -> str:
        """Return the address of a file of the repository; with "" of the repository itself."""
        return f"{_PLACE}/{name}"

    def consistency(self, earlier: int, size: int) -> str:
        """Return the address of the proof that the log of `size` events begins with that of `earlier`."""
        return f"{_PLACE}/{_LOG}from={earlier}&to={size}"

    def fetcher(self) -> FetcherInterface:
        """Make what fetches from it."""
        return _CarriedFetcher(self._word)


class _CarriedFetcher(FetcherInterface):
    def __init__(self, word: OmegaWord) -> None:
        self._word = word

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(f"{_PLACE}/")
        if name.startswith(_LOG):
            asked = {key: int(values[0]) for key, values in parse_qs(name.removeprefix(_LOG)).items()}
            return iter([self._proof(asked["from"], asked["to"])])
        if name not in self._word.trust:
            raise DownloadHTTPError(f"The file holds no {name[:80]}.", 404)
        return iter([self._word.trust[name].encode()])

    def _proof(self, earlier: int, size: int) -> bytes:
        leaves = _hashes(self._word.log)
        if not 0 <= earlier <= size <= len(leaves):
            refusal = NodeRefusedError(f"The file holds {len(leaves)} events, and no proof from {earlier} to {size}.")
            raise DownloadHTTPError(str(refusal), 404) from refusal
        proof = consistency_proof(leaves[:size], earlier)
        return LogProof(proof=[node.hex() for node in proof]).model_dump_json().encode()


def _hashes(text: str) -> list[bytes]:
    raw = bytes.fromhex(text)
    return [raw[start : start + HASH_BYTES] for start in range(0, len(raw), HASH_BYTES)]


def check_addressee(word: OmegaWord, licence: str) -> None:
    """See that the file was written for the Mainframe whose licence has the id `licence`: nobody signs that, it keeps
    people from a mistake.

    Raises:
        CarriedFileError: it is for another one.
    """
    if word.mainframe != licence:
        raise CarriedFileError(
            f"The file is for {word.name} (licence {word.mainframe}), and this Mainframe has the licence {licence}: it "
            "was carried to the wrong one. Nothing was changed."
        )


def check_signed(verifier: OfferVerifier, word: OmegaWord, import_days: float) -> ReleaseDocument | None:
    """See that the approvers signed what the file offers; see `OfferVerifier.check`. OMEGA's word that it is the newest
    may have ended no longer ago than `import_days`.

    Raises:
        TrustError: they did not, or what OMEGA signed with it for a day has ended since.
    """
    if not word.trust and not verifier.trusts_anyone():
        raise UnsignedError(f"The file brings {word.offer.update_id} from an OMEGA without a root: nobody signed it.")
    try:
        return verifier.check(CarriedRepository(word), word.offer, grace=timedelta(days=import_days))
    except SignatureExpiredError as error:
        raise SignatureExpiredError(
            f"{error} The file was exported at {word.at:%Y-%m-%d %H:%M} UTC: have it exported anew."
        ) from None


def check_change_log(witness: Witness, word: OmegaWord) -> None:
    """See that the change log of the OMEGA that wrote the file continues the one remembered here, if any is; what is
    remembered is never less than before.

    Raises:
        TrustError: it does not: the file is another OMEGA's, or that one's log was rewritten.
    """
    try:
        known = witness.size() if witness.path.exists() else 0
        leaves = _hashes(word.changes)
        if word.checkpoint is None or not 0 < known <= len(leaves):
            return
        proof = consistency_proof(leaves, known)
        witness.judge(
            SignedCheckpoint(
                checkpoint=word.checkpoint.checkpoint,
                key=word.checkpoint.key,
                proof=tuple(node.hex() for node in proof),
            )
        )
    except AuditError as error:
        raise TrustError(f"{error} The file is refused.") from None


def check_unexpired(offer: Offer, expires: datetime | None, at: datetime) -> None:
    """See that the approval of what waited here has not ended meanwhile.

    Raises:
        SignatureExpiredError: it has.
    """
    if expires is not None and expires <= at:
        raise SignatureExpiredError(
            f"The approval of {offer.update_id} ended at {expires:%Y-%m-%d %H:%M}Z, while it waited here."
        )


def take_bundle(carried: CarriedFile, store: Store, room: RequireRoom, progress: Progress) -> TransferReport:
    """Take the release's manifest and objects into `store`, if there is `room`; on return it is durable here.

    Raises:
        CarriedFileError: the file was cut or altered, or leaves out what is not here.
        StoreError: the store cannot take it, such as StoreFullError.
        AshatError: the manifest breaks a rule.
        OSError: the file cannot be read.
    """
    began, bundle = time.monotonic(), carried.word.offer.bundle
    raw = carried.manifest()
    manifest = read_manifest(raw, bundle)
    lack = Lack(store.missing(manifest.objects), {})
    _check_left_out(carried, manifest, store, lack)
    if lack.digests:
        room(room_for(manifest, lack.digests))
    store.claim(bundle, lack.digests)
    try:
        sent = _take_objects(carried, manifest, store, set(lack.digests), progress)
        store.put_manifest(raw, bundle)
    except CarriedFileError:
        store.abandon(bundle)
        raise
    return TransferReport(
        bundle=bundle,
        files=len(manifest.files),
        bytes_total=manifest.size,
        bytes_sent=sent,
        objects_sent=len(lack.digests),
        seconds=time.monotonic() - began,
    )


def read_manifest(raw: bytes, bundle: str) -> Manifest:
    """Read a manifest, and see that it is that of the bundle.

    Raises:
        CarriedFileError: it is another's.
        ManifestError: it breaks a bundle rule.
    """
    manifest = Manifest.parse(raw, windows_names=False)
    if manifest.digest != bundle:
        raise CarriedFileError(f"The file holds another manifest than {bundle[:12]}: it was altered.")
    return manifest


def _check_left_out(carried: CarriedFile, manifest: Manifest, store: Store, lack: Lack) -> None:
    """See that what the file leaves out is here."""
    base = carried.contents.left_out
    if base is None:
        return
    if not store.has_bundle(base):
        raise CarriedFileError(
            f"The file holds only what differs from {base[:12]}, which is not here: have the whole release exported, "
            "without --from."
        )
    left_out = store.manifest(base).objects.keys() & manifest.objects.keys()
    if lost := left_out & set(lack.digests):
        raise CarriedFileError(
            f"The file leaves out what {base[:12]} has, and {len(lost)} objects of that are lost here: have the whole "
            "release exported, without --from."
        )


def _take_objects(carried: CarriedFile, manifest: Manifest, store: Store, lacking: set[str], progress: Progress) -> int:
    """Stage what is lacking here of the file's objects; count its bytes."""
    sizes, taken = manifest.objects, 0
    total = sum(sizes[digest] for digest in lacking)
    objects = carried.objects(sizes)
    ended = False
    while not ended:
        with store.receive() as incoming:
            while incoming.received < BATCH_OBJECTS:
                digest, content = next(objects, ("", b""))
                if not digest:
                    ended = True
                    break
                if digest in lacking:
                    incoming.feed([frame_header(digest, len(content)) + content])
                    taken += len(content)
                progress(taken, total)
            incoming.finish()
    return taken
