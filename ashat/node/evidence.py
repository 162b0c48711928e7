"""The evidence kept beside a release: what was seen of a bundle, for as long as the store holds the bundle.

    evidence/BUNDLE/DIGEST   a canonical JSON document, named by its sha256

The node holds what it is given and gives it back; it judges no evidence. The calls are those of `docs/node-api.md`,
"Evidence".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AwareDatetime

from ashat.canonical import canonical_json, is_digest
from ashat.durable import replace_file, sync_directory
from ashat.errors import EvidenceError, IntegrityError, NotStoredError
from ashat.node.store import Store, disk_errors
from ashat.node.transfer import Require, client_has, damage_is_ours, whole_body
from ashat.wire import Digest, Scope, Wire

EVIDENCE_LIMIT = 8 * 1024 * 1024
KEPT = 50


class StoredEvidence(Wire):
    """A document that is durable here; `at` is when it was last put."""

    evidence: Digest
    bytes: int
    at: AwareDatetime


class EvidenceList(Wire):
    """The evidence of one bundle, the newest first."""

    evidence: list[StoredEvidence]


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


def evidence_router(kept: EvidenceStore, require: Require) -> APIRouter:
    """The routes; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1/bundles/{bundle}/evidence", tags=["Evidence"])
    push, read = [Depends(require(Scope.PUSH))], [Depends(require(Scope.READ))]

    @router.put("/{evidence}", dependencies=push, status_code=201, openapi_extra=_JSON_BODY)
    async def put_evidence(bundle: Digest, evidence: Digest, request: Request, response: Response) -> StoredEvidence:
        """Keep evidence beside its bundle; when this answers it is durable."""
        raw = await whole_body(request, EVIDENCE_LIMIT)
        stored, new = await asyncio.to_thread(kept.put, bundle, evidence, raw)
        response.status_code = 201 if new else 200
        return stored

    @router.get("", dependencies=read)
    def list_evidence(bundle: Digest) -> EvidenceList:
        """The evidence that is kept beside a bundle."""
        return EvidenceList(evidence=kept.of(bundle))

    @router.get("/{evidence}", dependencies=read, response_class=Response)
    def one_evidence(bundle: Digest, evidence: Digest, request: Request) -> Response:
        """One document, word for word."""
        with damage_is_ours():
            raw = kept.read(bundle, evidence)
        headers = {"ETag": f'"{evidence}"', "Cache-Control": "private, immutable"}
        if client_has(request, evidence):
            return Response(status_code=304, headers=headers)
        return Response(raw, headers=headers, media_type="application/json")

    return router


_JSON_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


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
