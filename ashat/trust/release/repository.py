"""A directory of TUF metadata as OMEGA serves it: consistent snapshots, `timestamp.json` last.

    N.root.json  N.targets.json  N.production.json  N.snapshot.json  timestamp.json
    targets/production/<channel>/<sha256>.release.json

Every change is planned first (a list of files), then written in order, each durably and at once. Only the last, the
timestamp, makes the others current: a crash before it leaves the old repository, with files that nobody asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from securesystemslib.signer import Signer
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from ashat.common.files import make_directory, replace_file
from ashat.errors import (
    MalformedMetadataError,
    MixAndMatchError,
    NoReleaseError,
    RolledBackError,
    SignatureExpiredError,
    TrustError,
)
from ashat.trust.release.release import Release, verify_approval, verify_release
from ashat.trust.tuf.metadata import (
    PRODUCTION,
    Kind,
    Lifetimes,
    build_snapshot,
    build_timestamp,
    check_target,
    parse,
    sign,
    verify,
)
from ashat.trust.tuf.release_document import ReleaseDocument, target_path
from ashat.trust.tuf.root_chain import check_chain

_ROOT_FILE = re.compile(r"([1-9][0-9]*)\.root\.json")
_LOCK_SECONDS = 30

Write = tuple[str, bytes]


@dataclass(frozen=True)
class OnlineKeys:
    """What OMEGA signs with on its own: that these files are the current ones, never what is in them."""

    snapshot: Signer
    timestamp: Signer


@dataclass(frozen=True)
class State:
    """What a repository holds: the raw bytes of the current file of each role, by role; and parsed."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    production: Metadata[Targets] | None
    snapshot: Metadata[Snapshot] | None
    timestamp: Metadata[Timestamp] | None
    raw: dict[str, bytes] = field(repr=False)


class Repository:
    """The repository in `directory`. `target` is OMEGA's name: documents for another are refused ("" takes any)."""

    def __init__(self, directory: Path, *, target: str = "", lifetimes: Lifetimes | None = None) -> None:
        self.directory = directory
        self.target = target
        self.lifetimes = lifetimes or Lifetimes()

    def exists(self) -> bool:
        """Tell whether it was ever made."""
        return (self.directory / "timestamp.json").exists()

    def read(self) -> State:
        """Read what it holds now.

        Raises:
            TrustError: it is not there, or a file is missing or damaged.
        """
        root_raw = self._read(f"{self._root_version()}.root.json")
        root = parse(root_raw, Root, "root.json")
        raw = {Root.type: root_raw, Timestamp.type: self._read("timestamp.json")}
        timestamp = parse(raw[Timestamp.type], Timestamp, "timestamp.json")
        raw[Snapshot.type] = self._read(f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
        snapshot = parse(raw[Snapshot.type], Snapshot, "snapshot.json")
        held: dict[str, Metadata[Targets]] = {}
        for role in (Targets.type, PRODUCTION):
            if meta := snapshot.signed.meta.get(f"{role}.json"):
                raw[role] = self._read(f"{meta.version}.{role}.json")
                held[role] = parse(raw[role], Targets, f"{role}.json")
        if Targets.type not in held:
            raise MalformedMetadataError(f"The snapshot in {self.directory} names no targets.json; restore it.")
        return State(root, held[Targets.type], held.get(PRODUCTION), snapshot, timestamp, raw)

    def release(self, channel: str, state: State | None = None) -> ReleaseDocument:
        """Read the release document that a channel has now.

        Raises:
            NoReleaseError: it has none.
            TrustError: the repository cannot be read, or the document is not the one that was signed.
        """
        state = state or self.read()
        found = state.production.signed.targets.get(target_path(channel)) if state.production else None
        if found is None:
            raise NoReleaseError(f"Nothing was released on {channel} yet.")
        return _document(found, self._read(_target_file(found)))

    def highest_release_seq(self, state: State | None = None) -> int:
        """Read the highest `release_seq` of all channels; 0 where nothing was released.

        Raises:
            TrustError: see `release`.
        """
        state = state or self.read()
        files = state.production.signed.targets.values() if state.production else ()
        return max((_document(found, self._read(_target_file(found))).release_seq for found in files), default=0)

    def publish(
        self, production: bytes, document: bytes, online: OnlineKeys, *, now: datetime | None = None
    ) -> ReleaseDocument:
        """Make a signed release the current one of its channel. Publishing what is held already changes nothing, also
        where the approvers have signed it anew since.

        `production` is the approvers' metadata as they signed it (`build_production`, `sign`), `document` the bytes of
        the release document that it names.

        Raises:
            UnsignedError: too few approvers signed; it names who did and who is missing.
            RolledBackError: its version is not above the one held, or its `release_seq` not above the highest.
            MixAndMatchError: the two do not belong together, it changes more than one channel, or is for another OMEGA.
            SignatureExpiredError: it has expired, or the root or targets that are held have.
            MalformedMetadataError, KeyPolicyError: see `parse`, `check_delegation`, `ReleaseDocument.from_bytes`.
        """
        now = now or datetime.now(UTC)
        with self._exclusive():
            state = self.read()
            parsed = ReleaseDocument.from_bytes(document)
            if self._held_release(parsed.channel, state) != parsed:
                self._write(self.plan_publish(state, production, parsed, online, now))
        return parsed

    def plan_publish(
        self, state: State, production: bytes, document: ReleaseDocument, online: OnlineKeys, now: datetime
    ) -> list[Write]:
        """Plan what `publish` writes, in this order; it raises as that does, and writes nothing."""
        signed = parse(production, Targets, "The approval")
        verify_release(
            Release(document, signed),
            targets=state.targets.signed,
            roots=[state.root.signed],
            target=self.target,
            now=now,
            minimum_release_seq=self.highest_release_seq(state) + 1,
            proven=False,
        )
        _follows_production(signed, state)
        before = state.production.signed.targets if state.production else {}
        if _others(before, document.path) != _others(signed.signed.targets, document.path):
            raise MixAndMatchError(f"What was signed changes more than {document.channel}; sign one release at a time.")
        body: list[Write] = [(_target_file(document.target_file), document.to_bytes())]
        return [*body, *self._plan(state, online, now, production=production)]

    def install(
        self,
        online: OnlineKeys,
        *,
        root: bytes | None = None,
        targets: bytes | None = None,
        production: bytes | None = None,
        now: datetime | None = None,
    ) -> None:
        """Make the repository of a first root and targets, or take in later versions of what is signed offline.

        Each root follows the one before by exactly one version. `production` may be signed anew without a new release,
        to hold for longer or because the approvers changed.

        Raises:
            UnsignedError: too few signed one of them, or what is held is not signed by the approvers that come.
            RolledBackError: a version that does not follow.
            TrustError: others; see `publish`.
        """
        now = now or datetime.now(UTC)
        with self._exclusive():
            state = self.read() if self.exists() else None
            self._write(self.plan_install(state, online, root=root, targets=targets, production=production, now=now))

    def plan_install(
        self,
        state: State | None,
        online: OnlineKeys,
        *,
        root: bytes | None,
        targets: bytes | None,
        production: bytes | None,
        now: datetime,
    ) -> list[Write]:
        """Plan what `install` writes, in this order; it raises as that does, and writes nothing."""
        if state is None and (root is None or targets is None):
            raise NoReleaseError(f"There is no repository in {self.directory}: it begins with a root and targets.")
        new_root = self._check_root(state, root, now)
        new_targets = self._check_targets(state, new_root, targets, now)
        raw = dict(state.raw) if state else {}
        raw |= {role: data for role, data in ((Root.type, root), (Targets.type, targets)) if data is not None}
        old = (state.production, state.snapshot, state.timestamp) if state else (None, None, None)
        merged = State(new_root, new_targets, *old, raw)
        if production is not None and production != raw.get(PRODUCTION):
            signed = parse(production, Targets, "The approval")
            verify_approval(signed, new_targets.signed, now)
            _follows_production(signed, merged)
            if signed.signed.targets != (old[0].signed.targets if old[0] else {}):
                raise MixAndMatchError("What was signed anew changes a release; publish that as one.")
        elif merged.production:
            verify(new_targets.signed, PRODUCTION, merged.production)
        return self._plan(merged, online, now, root=root, targets=targets, production=production)

    def renew(self, online: OnlineKeys, *, now: datetime | None = None) -> datetime:
        """Sign the timestamp anew, and the snapshot where half of its time is over; return until when that holds.

        Raises:
            TrustError: see `read`, or a key that the root does not know.
        """
        now = now or datetime.now(UTC)
        with self._exclusive():
            state = self.read()
            assert state.snapshot is not None
            left = state.snapshot.signed.expires - now
            if left > timedelta(seconds=self.lifetimes.snapshot / 2):
                self._write([self._plan_timestamp(state, online, now, state.snapshot, state.raw[Snapshot.type])])
            else:
                self._write(self._plan(state, online, now))
            renewed = self.read().timestamp
            assert renewed is not None
            return renewed.signed.expires

    def _held_release(self, channel: str, state: State) -> ReleaseDocument | None:
        try:
            return self.release(channel, state)
        except NoReleaseError:
            return None

    def _check_root(self, state: State | None, data: bytes | None, now: datetime) -> Metadata[Root]:
        # The same again finishes what a crash cut short after the root was written.
        if state and data in (None, state.raw[Root.type]):
            return state.root
        assert data is not None
        root = parse(data, Root, "The root")
        check_target(root.signed, self.target)
        if state:
            check_chain([state.root, root])
        verify(root.signed, Root.type, root)
        _current("root", root, now)
        return root

    def _check_targets(
        self, state: State | None, root: Metadata[Root], data: bytes | None, now: datetime
    ) -> Metadata[Targets]:
        targets = state.targets if state else None
        if data is not None and not (state and data == state.raw[Targets.type]):
            fresh = parse(data, Targets, "The targets")
            check_target(fresh.signed, self.target)
            if targets:
                _follows("targets", fresh.signed.version, targets.signed.version)
            _current("targets", fresh, now)
            targets = fresh
        assert targets is not None
        verify(root.signed, Targets.type, targets)
        return targets

    def _plan(
        self,
        state: State,
        online: OnlineKeys,
        now: datetime,
        *,
        root: bytes | None = None,
        targets: bytes | None = None,
        production: bytes | None = None,
    ) -> list[Write]:
        """Plan the files of the roles given, and the snapshot and timestamp that make them current."""
        writes: list[Write] = []
        # The root goes first: whoever reads an old timestamp with a new root still finds everything it names.
        if root is not None:
            writes.append((f"{state.root.signed.version}.root.json", root))
        files: dict[str, tuple[int, bytes]] = {}
        for role, fresh in ((Targets.type, targets), (PRODUCTION, production)):
            data = state.raw.get(role) if fresh is None else fresh
            if data is None:
                continue
            version = parse(data, Targets, role).signed.version
            files[role] = (version, data)
            if fresh is not None:
                writes.append((f"{version}.{role}.json", fresh))
        snapshot = build_snapshot(state.snapshot, files, lifetime=self.lifetimes.snapshot, now=now)
        sign(state.root.signed, Snapshot.type, snapshot, online.snapshot)
        data = snapshot.to_bytes()
        writes.append((f"{snapshot.signed.version}.snapshot.json", data))
        return [*writes, self._plan_timestamp(state, online, now, snapshot, data)]

    def _plan_timestamp(
        self, state: State, online: OnlineKeys, now: datetime, snapshot: Metadata[Snapshot], data: bytes
    ) -> Write:
        named = (snapshot.signed.version, data)
        timestamp = build_timestamp(state.timestamp, named, lifetime=self.lifetimes.timestamp, now=now)
        sign(state.root.signed, Timestamp.type, timestamp, online.timestamp)
        return "timestamp.json", timestamp.to_bytes()

    def _write(self, writes: list[Write]) -> None:
        for name, content in writes:
            path = self.directory / name
            try:
                make_directory(path.parent)
                replace_file(path, content)
            except OSError as error:
                raise TrustError(f"{path} cannot be written: {error.strerror}; what was published stands.") from error

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            raise NoReleaseError(f"There is no {name} in {self.directory}; was the repository made?") from None
        except OSError as error:
            raise TrustError(f"{self.directory / name} cannot be read: {error.strerror}.") from error

    def _root_version(self) -> int:
        names = self.directory.iterdir() if self.directory.is_dir() else ()
        found = [int(match[1]) for path in names if (match := _ROOT_FILE.fullmatch(path.name))]
        if not found:
            raise NoReleaseError(f"There is no repository in {self.directory}.")
        return max(found)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.directory / ".lock", timeout=_LOCK_SECONDS, mode=0o600):
                yield
        except Timeout:
            raise TrustError(f"Another process is publishing in {self.directory}; try again.") from None


def _document(found: TargetFile, content: bytes) -> ReleaseDocument:
    try:
        found.verify_length_and_hashes(content)
    except LengthOrHashMismatchError:
        raise MixAndMatchError(f"{found.path} is not the release document that was signed.") from None
    document = ReleaseDocument.from_bytes(content)
    if document.path != found.path:
        raise MixAndMatchError(f"{found.path} holds the release document of the channel {document.channel}.")
    return document


def _target_file(found: TargetFile) -> str:
    return f"targets/{found.get_prefixed_paths()[0]}"


def _others(files: dict[str, TargetFile], path: str) -> dict[str, TargetFile]:
    return {name: found for name, found in files.items() if name != path}


def _follows_production(signed: Metadata[Targets], state: State) -> None:
    if state.production:
        _follows(PRODUCTION, signed.signed.version, state.production.signed.version)


def _follows(role: str, version: int, held: int) -> None:
    if version <= held:
        raise RolledBackError(
            f"{role} version {version} does not follow version {held}, which is held; sign a later one."
        )


def _current(what: str, metadata: Metadata[Kind], now: datetime) -> None:
    if metadata.signed.is_expired(now):
        raise SignatureExpiredError(f"The {what} ended at {metadata.signed.expires:%Y-%m-%d %H:%M}Z; sign it anew.")
