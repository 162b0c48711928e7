"""The Mainframe's side: which release to run, by the signatures of those who may say so.

The workflow is python-tuf's (`tuf.ngclient.Updater`); what is added is a lock, since it may be used by one process at
a time; a lowest `release_seq`, since a client that never saw the newest metadata would take an old release that has
not expired; a look for one key under two names, and for which OMEGA it is; and errors that say whose fault it is.

A cache directory holds `metadata/` (python-tuf's), `documents/`, `accepted.json`, `log.json` and `lock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from filelock import FileLock, Timeout
from pydantic import ValidationError
from tuf.api import exceptions as tuf
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig

from ashat.common.canonical_json import canonical_json
from ashat.common.documents import STATE_LIMIT, read_json
from ashat.common.files import make_directory, replace_file
from ashat.errors import (
    AshatError,
    LogError,
    MalformedMetadataError,
    MixAndMatchError,
    NodeError,
    NodeRefusedError,
    NoReleaseError,
    OversizedError,
    RolledBackError,
    SignatureExpiredError,
    TrustError,
    UnsignedError,
)
from ashat.protocol.messages import LogProof
from ashat.trust.release.known_log import PROOF_LIMIT, follow_log, log_witness
from ashat.trust.release.provenance import MAX_BYTES as PROVENANCE_BYTES
from ashat.trust.release.provenance import demands_provenance, verify_provenance
from ashat.trust.release.release import Release, verify_release
from ashat.trust.tuf.metadata import PRODUCTION, check_delegation, parse, require_clock, target_of
from ashat.trust.tuf.release_document import MAX_BYTES, ReleaseDocument, target_path
from ashat.trust.update_client.fetcher import ServedRepository

LOCK_SECONDS: Final = 30.0
_NONE: Final = timedelta()
# Bytes; a repository of ours is far below each. How many files one update can be made to fetch is bounded too.
LIMITS: Final = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=32,
    root_max_length=512_000,
    timestamp_max_length=16_384,
    snapshot_max_length=2_000_000,
    targets_max_length=5_000_000,
)


class _Accepted(NamedTuple):
    """The release of a channel that was accepted; `target` is "" where it was before that was kept."""

    release_seq: int
    document: str
    target: str


_ONLINE_ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)


@contextmanager
def open_updater(
    remote: ServedRepository,
    metadata: Path,
    *,
    root: bytes,
    targets_url: str | None = None,
    documents: Path | None = None,
    lock: Path | None = None,
    grace: timedelta = _NONE,
) -> Iterator[Updater]:
    """Open an updater over the cache directory `metadata`, which begins at `root`; nobody else uses that meanwhile.

    Errors of python-tuf within the `with` block become ours. It takes what ended no longer ago than `grace`.

    Raises:
        NodeError: OMEGA text no, or nothing.
        TrustError: of the class that says what is wrong with what it sent.
    """
    try:
        make_directory(metadata, mode=0o700)
        with FileLock(lock or metadata / "lock", timeout=LOCK_SECONDS, mode=0o600), translated():
            updater = Updater(
                str(metadata),
                remote.file(""),
                target_dir=str(documents) if documents else None,
                target_base_url=targets_url,
                fetcher=remote.fetcher(),
                config=LIMITS,
                bootstrap=root,
            )
            # The time by which an updater judges what has ended (python-tuf 7: TrustedMetadataSet.reference_time).
            updater._trusted_set.reference_time -= grace
            yield updater
    except Timeout:
        raise TrustError(f"Another process is updating {metadata}; try again.") from None
    except OSError as error:
        raise TrustError(f"What is trusted cannot be kept in {metadata}: {error.strerror or error}.") from error


class ReleaseClient:
    """Asks OMEGA's repository which release is approved, and believes signatures only.

    `root` is the root metadata that came with the installer, `minimum_release_seq` the lowest that it may run.
    Documents for another OMEGA than the root is of are refused; `target` is its name, where that is known from
    elsewhere. Where nothing tells it, it is that of the first release that is accepted. What OMEGA says daily, that its
    files are the newest, may have ended no longer ago than `grace`; what people sign may not have ended at all.
    """

    def __init__(
        self,
        remote: ServedRepository,
        cache: Path,
        *,
        root: bytes,
        minimum_release_seq: int = 0,
        target: str = "",
        grace: timedelta = _NONE,
    ) -> None:
        self._remote = remote
        self._cache = cache
        self._root = root
        self._minimum = minimum_release_seq
        self._target = target
        self._grace = grace

    def latest_release(self, channel: str, *, now: datetime | None = None) -> ReleaseDocument:
        """Find the release that the approvers want `channel` to run; it is never below one that was accepted before.

        python-tuf judges by the clock what ends, `now` is for what is judged here.

        Raises:
            NodeError: OMEGA text no, or nothing.
            NoReleaseError: nothing was released on that channel yet.
            SignatureExpiredError: nobody renewed what was signed, or somebody withholds it.
            ClockError: the clock here is behind what is served, so it cannot tell.
            RolledBackError: it is older than what was accepted, or than the installer allows.
            UnprovenError: nobody who may build or verify signed where it comes from.
            LogError: the log that it stands in does not continue the one that was seen before.
            UnsignedError, MixAndMatchError, OversizedError, MalformedMetadataError, KeyPolicyError: what OMEGA serves
                is not what the approvers signed.
            TrustError: the cache is in use, or cannot be written.
        """
        path, at = target_path(channel), now or datetime.now(UTC)
        metadata, documents = self._cache / "metadata", self._cache / "documents"
        with self._updater(metadata, documents) as updater:
            updater.refresh()
            require_clock(at, parse((metadata / "timestamp.json").read_bytes(), Timestamp, "timestamp.json").signed)
            root, targets = _trusted(metadata)
            content = _download(updater, path, documents, _released(metadata))
            if content is None:
                raise NoReleaseError(f"Nothing was released on {channel} yet.")
            release = Release.read(content, (metadata / f"{PRODUCTION}.json").read_bytes())
            document = release.document
            document.require(channel=channel)
            verify_release(
                release,
                targets=targets,
                roots=[root],
                target=self._known_target(),
                now=at,
                minimum_release_seq=self.highest_release_seq(channel),
                proven=False,
            )
            if not self._accepted_before(document):
                self._prove(document, targets, documents)
            follow_log(log_witness(self._cache), document, self._proof)
            self._accept(document)
        return document

    def _updater(self, metadata: Path, documents: Path) -> AbstractContextManager[Updater]:
        return open_updater(
            self._remote,
            metadata,
            root=self._root,
            targets_url=self._remote.file("targets"),
            documents=documents,
            lock=self._cache / "lock",
            grace=self._grace,
        )

    def highest_release_seq(self, channel: str) -> int:
        """Read the highest `release_seq` that was ever accepted on `channel`, or that the installer asks for.

        Raises:
            TrustError: the record cannot be read.
        """
        return max(self._minimum, known.release_seq if (known := self._accepted().get(channel)) else 0)

    def _known_target(self) -> str:
        """Name the OMEGA of this Mainframe, as far as it is known: approvers may sign for several, with the same
        keys."""
        accepted = next((entry.target for entry in self._accepted().values() if entry.target), "")
        return self._target or target_of(parse(self._root, Root, "The root given").signed) or accepted

    def _accepted_before(self, document: ReleaseDocument) -> bool:
        """Tell whether this very release was accepted last on its channel: it stays so, whoever may build since.

        Raises:
            MixAndMatchError: another one was, under the same number.
        """
        known = self._accepted().get(document.channel)
        if known is None or known.release_seq != document.release_seq:
            return False
        if known.document != _digest(document):
            raise MixAndMatchError(
                f"OMEGA offers two different releases with release_seq {document.release_seq} on {document.channel}; "
                "the approvers must say which, with a higher one."
            )
        return True

    def _prove(self, document: ReleaseDocument, targets: Targets, documents: Path) -> None:
        """Fetch the provenance, where `targets` demands one, and verify it."""
        fetched = demands_provenance(targets) and document.provenance is not None
        verify_provenance(
            targets, document, self._provenance(document.provenance or "", documents) if fetched else None
        )

    def _provenance(self, digest: str, documents: Path) -> bytes | None:
        kept = documents / f"{digest}.provenance.json"
        if kept.exists():
            return kept.read_bytes()
        address = self._remote.file(f"targets/provenance/{digest}.json")
        try:
            content = self._remote.fetcher().download_bytes(address, PROVENANCE_BYTES)
        except tuf.DownloadHTTPError as error:
            if error.status_code == 404:
                return None
            raise
        if sha256(content).hexdigest() == digest:
            replace_file(kept, content, mode=0o600)
        return content

    def _proof(self, earlier: int, size: int) -> list[bytes]:
        """Fetch OMEGA's proof that the log of `size` events begins with that of `earlier`."""
        try:
            answer = self._remote.fetcher().download_bytes(self._remote.consistency(earlier, size), PROOF_LIMIT)
            return [bytes.fromhex(node) for node in LogProof.model_validate_json(answer).proof]
        except tuf.DownloadHTTPError as error:
            if isinstance(error.__cause__, NodeRefusedError):
                raise LogError(f"OMEGA does not show that the log goes on from what was seen here: {error}") from error
            raise
        except ValidationError:
            raise LogError("OMEGA answers with no proof that this version can read; are both up to date?") from None

    def _accept(self, document: ReleaseDocument) -> None:
        """Remember it before anybody acts on it: python-tuf's cache may be lost with the power, this is not."""
        accepted = self._accepted()
        entry = _Accepted(document.release_seq, _digest(document), document.target)
        if accepted.get(document.channel) == entry:
            return
        accepted[document.channel] = entry
        content = {name: row._asdict() for name, row in accepted.items()}
        replace_file(self._cache / "accepted.json", canonical_json(content), mode=0o600)

    def _accepted(self) -> dict[str, _Accepted]:
        path = self._cache / "accepted.json"
        try:
            content = read_json(path, limit=STATE_LIMIT)
            return {
                name: _Accepted(int(row["release_seq"]), str(row["document"]), str(row.get("target", "")))
                for name, row in content.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrustError(
                f"{path} cannot be read ({error}): without it an old release could come back. Restore it from a "
                "backup, or remove it and set the minimum release_seq."
            ) from None


@contextmanager
def translated() -> Iterator[None]:
    """Translate errors of python-tuf into ours.

    Raises:
        NodeError: OMEGA text no, or nothing.
        TrustError: of the class that says what is wrong with what it sent.
    """
    try:
        yield
    except tuf.DownloadError as error:
        raise _download_error(error) from error
    except tuf.RepositoryError as error:
        raise _trust_error(error) from error


def _download_error(error: tuf.DownloadError) -> AshatError:
    if isinstance(error.__cause__, NodeError):
        return error.__cause__
    if isinstance(error, tuf.DownloadLengthMismatchError):
        return OversizedError(f"OMEGA sends more than such a file may have, and was cut off: {error}.")
    return TrustError(f"A file of OMEGA's repository could not be fetched: {str(error).rstrip('.')}; try again.")


def _trust_error(error: tuf.RepositoryError) -> TrustError:
    text = str(error).rstrip(".")
    if isinstance(error, tuf.UnsignedMetadataError):
        return UnsignedError(f"OMEGA serves what too few of the holders signed: {text}.")
    if isinstance(error, tuf.ExpiredMetadataError):
        return SignatureExpiredError(
            f"OMEGA serves what has ended ({text}): it was not renewed, newer files are withheld, or the clock here is "
            "wrong. What runs keeps running."
        )
    # python-tuf has one class for "older than before" and "another than was promised"; its words tell them apart.
    if isinstance(error, tuf.BadVersionNumberError):
        if "must be >=" in text or ".json version" in text:
            return RolledBackError(f"OMEGA serves what is older than what was accepted here: {text}.")
        return MixAndMatchError(f"OMEGA serves files that were not published together: {text}.")
    if isinstance(error, tuf.LengthOrHashMismatchError):
        return MixAndMatchError(f"OMEGA serves a file that is not the one that was signed: {text}.")
    if "missing info for" in text:
        return RolledBackError(f"OMEGA serves a snapshot without a file that was accepted here: {text}.")
    if isinstance(error, DeserializationError):
        return MalformedMetadataError(f"OMEGA serves what is no TUF metadata: {text}.")
    return MalformedMetadataError(f"OMEGA's repository does not hold together: {text}.")


def _trusted(metadata: Path) -> tuple[Root, Targets]:
    """Read what python-tuf just verified and kept; refuse one key under two names, which it would count as two."""
    root = parse((metadata / "root.json").read_bytes(), Root, "root.json").signed
    for role in _ONLINE_ROLES:
        check_delegation(root, role)
    targets = parse((metadata / "targets.json").read_bytes(), Targets, "targets.json").signed
    for name in targets.delegations.roles or {} if targets.delegations else {}:
        check_delegation(targets, name)
    return root, targets


def _released(metadata: Path) -> bool:
    """Tell whether the approvers ever signed anything: until then the role that they hold is in no snapshot."""
    snapshot = parse((metadata / "snapshot.json").read_bytes(), Snapshot, "snapshot.json")
    return f"{PRODUCTION}.json" in snapshot.signed.meta


def _download(updater: Updater, path: str, documents: Path, released: bool) -> bytes | None:
    """Fetch the bytes of the target, verified; None where no metadata names it."""
    found: TargetFile | None = updater.get_targetinfo(path) if released else None
    if found is None:
        return None
    if found.length > MAX_BYTES:
        raise OversizedError(f"{path} has {found.length} bytes; a release document has at most {MAX_BYTES}.")
    make_directory(documents, mode=0o700)
    content = Path(updater.find_cached_target(found) or updater.download_target(found)).read_bytes()
    found.verify_length_and_hashes(content)
    return content


def _digest(document: ReleaseDocument) -> str:
    return sha256(document.to_bytes()).hexdigest()
