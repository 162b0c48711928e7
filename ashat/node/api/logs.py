"""The calls of `docs/node-api.md` that read the access log, the change log, and what the program wrote."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from ashat.common.numbers import LARGEST
from ashat.node.api.auth import require
from ashat.node.api.declared import refused
from ashat.node.app_process.migrate import LOG
from ashat.node.app_process.output import ProgramOutput
from ashat.node.context import Context
from ashat.node.logs import change_log
from ashat.node.logs.access_log import DIRECTORY, read_access_log
from ashat.node.logs.change_log_audit import read_changes
from ashat.protocol.messages import AccessLogLine, Caller, Count, Message, ProgramLog, Scope, SignedCheckpoint
from ashat.protocol.probes import LoggedErrors

router = APIRouter(prefix="/v1/journal", tags=["The journal"])
program = APIRouter(prefix="/v1", tags=["What the program wrote"])
LINES_LIMIT = 1000
admin = [Depends(require(Scope.ADMIN))]


class Requests(Message):
    """What was asked of the node, newest first."""

    requests: list[AccessLogLine]


class Changes(Message):
    """What was done to the node, oldest first; `size` is how many entries the change log has."""

    origin: str
    size: int
    changes: list[dict[str, Any]]


@router.get("/changes", dependencies=admin)
def read(context: Context, after: Count = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Changes:
    """What was done to the node, behind the first `after` entries."""
    head = change_log.head(context.db)
    found = read_changes(context.db, after=after, limit=limit)
    shown = [{"number": change.number, "root": change.root, "entry": change.facts} for change in found]
    return Changes(origin=head.origin, size=head.size, changes=shown)


@router.get("/checkpoint", dependencies=[Depends(require(Scope.READ))], responses=refused(409))
def checkpoint(context: Context, since: Count = 0) -> SignedCheckpoint:
    """A checkpoint of what was done to the node, signed now, with proof that it continues the one of size `since`."""
    return context.proofs.since(since, again=True)


@router.get("/requests", dependencies=admin, response_model_exclude_defaults=True)
def requests(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    by: Caller = Caller.TOKENS,
    of: Annotated[str, Query(max_length=64)] = "",
) -> Requests:
    """What was asked of the node, newest first: by tokens, by licences or by strangers; `of` names one by its id."""
    return Requests(requests=read_access_log(context.config.data / DIRECTORY, by, limit=limit, of=of))


@program.get("/logs", dependencies=[Depends(require(Scope.PUSH))])
def program_log(
    context: Context,
    lines: Annotated[int, Query(ge=1, le=LINES_LIMIT)] = 100,
    after: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
    of: Literal["program", "migrate"] = "program",
) -> ProgramLog:
    """The last lines that the program or the hook wrote, or the migrate step; or those after the first `after` bytes of
    that log."""
    return ProgramOutput(context.config, LOG if of == "migrate" else context.program.log_name()).part(lines, after)


@program.get("/logs/errors", dependencies=[Depends(require(Scope.PUSH))])
def program_errors(context: Context, after: Annotated[int | None, Query(ge=0, le=LARGEST)] = None) -> LoggedErrors:
    """The errors and tracebacks that the program wrote since it was last started on purpose, or after the first `after`
    bytes of its log."""
    begins = context.program.log_begins()
    if begins is None:
        return LoggedErrors(detail="the node keeps no log of the program: it does not run it")
    return ProgramOutput(context.config, context.program.log_name()).errors(begins if after is None else after)
