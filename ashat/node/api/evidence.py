"""The routes of the evidence that a node keeps beside a release (`docs/node-api.md`, "Evidence")."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from ashat.node.api.bundles import Require, client_has, damage_is_ours, whole_body
from ashat.node.store.evidence import EvidenceStore, StoredEvidence
from ashat.protocol.messages import Digest, Scope, Wire

EVIDENCE_LIMIT = 8 * 1024 * 1024


class EvidenceList(Wire):
    """The evidence of one bundle, the newest first."""

    evidence: list[StoredEvidence]


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
