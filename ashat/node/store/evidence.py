"""The evidence kept beside a release: what was seen of a bundle, for as long as the store holds the bundle.

    evidence/BUNDLE/DIGEST   a canonical JSON document, named by its sha256

The node holds what it is given and gives it back; it judges no evidence. The calls are those of `docs/node-api.md`,
"Evidence".
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime

from ashat.common.canonical_json import canonical_json, is_digest
from ashat.common.files import replace_file, sync_directory
from ashat.errors import EvidenceError, IntegrityError, NotStoredError
from ashat.node.store.store import Store, disk_errors
from ashat.protocol.messages import Digest, Wire

KEPT = 50


class StoredEvidence(Wire):
    """A document that is durable here; `at` is when it was last put."""

    evidence: Digest
    bytes: int
    at: AwareDatetime


class EvidenceStore:
    """The evidence of the bundles of `store`, in directory `root`; any thread may ask."""

    def __init__(self, root: Path, store: Store) -> None:
        """Open it, or make it; what a crash left half-written is removed.

        Raises:
            StoreError: the directory cannot be used.
        """
        self._root = root
        self._store = store
        self._lock = threading.Lock()
        with disk_errors(root):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in root.glob("*/.*"):
                path.unlink()

    def put(self, bundle: str, digest: str, raw: bytes) -> tuple[StoredEvidence, bool]:
        """Keep the document `raw` beside `bundle`, durable on return; of one bundle the newest `KEPT` stay.

        Returns what is kept, and whether it is new here.

        Raises:
            NotStoredError: the bundle is not here.
            IntegrityError: `raw` is not what `digest` names.
            EvidenceError: it is no canonical JSON document about this bundle.
            StoreFullError: the disk is full; nothing is kept.
        """
        if hashlib.sha256(raw).hexdigest() != digest:
            raise IntegrityError(f"The evidence received is not the one that {digest} names.", digest=digest)
        _check_is_about(bundle, raw)
        directory, path = self._root / bundle, self._root / bundle / digest
        with self._lock, disk_errors(self._root):
            self._check_bundle(bundle)
            new = not path.exists()
            if new:
                directory.mkdir(mode=0o700, exist_ok=True)
                sync_directory(self._root)
            if new or path.read_bytes() != raw:
                replace_file(path, raw, mode=0o600)
            else:
                os.utime(path)
            self._drop_oldest(bundle, spare=digest)
            return _stored(path), new

    def of(self, bundle: str) -> list[StoredEvidence]:
        """What is kept beside `bundle`, the newest first.

        Raises:
            NotStoredError: the bundle is not here.
        """
        with self._lock:
            self._check_bundle(bundle)
            return [_stored(path) for path in self._newest_first(bundle)]

    def read(self, bundle: str, digest: str) -> bytes:
        """One document, verified.

        Raises:
            NotStoredError: the bundle or the document is not here.
            IntegrityError: the disk returned other bytes than were stored.
        """
        with self._lock:
            self._check_bundle(bundle)
            try:
                raw = (self._root / bundle / digest).read_bytes()
            except FileNotFoundError:
                raise NotStoredError(f"There is no evidence {digest} of the bundle {bundle} here.") from None
        if hashlib.sha256(raw).hexdigest() != digest:
            raise IntegrityError(f"The stored evidence {digest} is damaged; put it again.", digest=digest)
        return raw

    def sweep(self) -> int:
        """Remove the evidence of the bundles that the store dropped; of how many."""
        gone = 0
        for name in os.listdir(self._root):
            with self._lock:
                if is_digest(name) and not self._store.has_bundle(name):
                    shutil.rmtree(self._root / name)
                    gone += 1
        return gone

    def _check_bundle(self, bundle: str) -> None:
        if not self._store.has_bundle(bundle):
            raise NotStoredError(f"There is no bundle {bundle} here.")

    def _newest_first(self, bundle: str) -> list[Path]:
        try:
            paths = [path for path in (self._root / bundle).iterdir() if is_digest(path.name)]
        except FileNotFoundError:
            return []
        return sorted(paths, key=lambda path: (-path.stat().st_mtime_ns, path.name))

    def _drop_oldest(self, bundle: str, *, spare: str) -> None:
        others = [path for path in self._newest_first(bundle) if path.name != spare]
        for path in others[KEPT - 1 :]:
            path.unlink()


def _check_is_about(bundle: str, raw: bytes) -> None:
    try:
        document = json.loads(raw)
        canonical = canonical_json(document) == raw
    except (ValueError, RecursionError):
        canonical = False
    if not canonical or not isinstance(document, dict):
        raise EvidenceError("The evidence is no document in canonical JSON.")
    if document.get("bundle") != bundle:
        raise EvidenceError(f"The evidence is not about the bundle {bundle}: it is kept beside what it is about.")


def _stored(path: Path) -> StoredEvidence:
    found = path.stat()
    return StoredEvidence(
        evidence=path.name, bytes=found.st_size, at=datetime.fromtimestamp(found.st_mtime_ns // 10**9, UTC)
    )
