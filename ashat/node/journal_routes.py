"""The calls of `docs/node-api.md` about what was asked of a node, and what was done to it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from ashat.node.auth import require
from ashat.node.context import Context
from ashat.node.journal import DIRECTORY, read_journal
from ashat.wire import Asker, JournalLine, Scope, Wire

router = APIRouter(prefix="/v1/journal", tags=["The journal"])
admin = [Depends(require(Scope.ADMIN))]


class Requests(Wire):
    """What was asked of the node, newest first."""

    requests: list[JournalLine]


@router.get("/requests", dependencies=admin, response_model_exclude_defaults=True)
def requests(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    by: Asker = Asker.TOKENS,
    of: Annotated[str, Query(max_length=64)] = "",
) -> Requests:
    """What was asked of the node, newest first: by tokens, by licences or by strangers; `of` names one by its id."""
    return Requests(requests=read_journal(context.config.data / DIRECTORY, by, limit=limit, of=of))
