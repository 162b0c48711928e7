"""Finds the endpoints that the previous release answered, while the rehearsal ran it, and the new release does not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ashat.raos_toml.schema import Endpoint, RaosToml
from tasks.checks.kit import openapi
from tasks.checks.kit.assertions import NoCredentialError, ProgramClient
from tasks.checks.kit.base import CheckContext, Finding, OutOfTimeError, one_line
from tasks.checks.kit.http import NoAnswerError
from tasks.checks.kit.samples import AnsweredEndpoints

# In all, and for each: the program is kept from its users meanwhile.
SECONDS = 30.0
ANSWER_SECONDS = 5.0
_HOW = "bring it back, or declare it in raos.toml with the status that it has now"


def askable(raos: RaosToml) -> list[Endpoint]:
    """List the declared endpoints that a further request does not change, each once: GET and HEAD, no body."""
    found: dict[tuple[str, ...], Endpoint] = {}
    for each in raos.endpoints:
        if each.method in ("GET", "HEAD") and each.body is None:
            found.setdefault(_key(each), each)
    return list(found.values())


def note_answered(context: CheckContext) -> AnsweredEndpoints:
    """Record which endpoints the previous release, which runs now, answers with the status that it declares itself.

    They are requested with their credentials, as in the API check. The operations of its OpenAPI document are recorded
    too.
    """
    previous = context.previous_raos
    limited = replace(context, deadline=time.monotonic() + SECONDS, time_limit=SECONDS)
    wanted = askable(previous) if previous else []
    answered: list[Endpoint] = []
    operations: tuple[str, ...] = ()
    asked = 0
    with ProgramClient(limited) as client:
        try:
            document, _ = openapi.read_document(client.web, previous.api.openapi if previous else None)
            operations = document.operations() if document else ()
            for endpoint in wanted:
                if _noted(client, endpoint):
                    answered.append(endpoint)
                asked += 1
        except OutOfTimeError:
            pass  # what was not asked is counted, and a finding says it
    return AnsweredEndpoints(tuple(answered), operations, len(wanted) - asked)


def removed_endpoints(
    client: ProgramClient, context: CheckContext, document: openapi.Document | None
) -> Iterator[Finding]:
    """Find the endpoints that the previous release answered, and this one neither answers so nor declares itself.

    Then find the operations that have gone from the OpenAPI document.

    Raises:
        OutOfTimeError: the check's own time is over.
    """
    before = context.rehearsal.answered
    known = list(context.raos.endpoints)
    declared = {_key(each) for each in known}
    for endpoint in before.endpoints:
        if _key(endpoint) in declared:
            continue
        trouble = _no_longer(client, endpoint)
        if trouble:
            known.append(endpoint)
            yield Finding("high", f"{label(endpoint)} was answered {trouble}; {_HOW}")
    if before.unasked:
        text = f"{before.unasked} endpoints of the release before were not asked: its answers took over {SECONDS:g} s"
        yield Finding("low", text)
    if document is not None:
        yield from _undocumented(context, document, known)
    elif before.operations:
        count = len(before.operations)
        text = f"the release that ran before published an OpenAPI document with {count} operations, this one none"
        yield Finding("medium", f"{text}: bring it back, or look whether anybody needs it")


def asked_again(context: CheckContext) -> int:
    """Count the endpoints of the previous release that are requested once more."""
    declared = {_key(each) for each in context.raos.endpoints}
    return sum(_key(each) not in declared for each in context.rehearsal.answered.endpoints)


def label(endpoint: Endpoint) -> str:
    """Name an endpoint in a finding."""
    return f"{endpoint.method} {endpoint.path}" + (f" as {endpoint.auth}" if endpoint.auth else "")


def _key(endpoint: Endpoint) -> tuple[str, ...]:
    return endpoint.method, endpoint.path, endpoint.auth or ""


def _as_declared(endpoint: Endpoint, status: int) -> bool:
    """Tell whether that status is the one declared; any 2xx is as good as another."""
    return status == endpoint.status or (_good(status) and _good(endpoint.status))


def _good(status: int) -> bool:
    return 200 <= status < 300


def _noted(client: ProgramClient, endpoint: Endpoint) -> bool:
    limited = endpoint.model_copy(update={"time_limit": min(endpoint.time_limit, ANSWER_SECONDS)})
    try:
        return _as_declared(endpoint, client.ask(limited).status)
    except (NoAnswerError, NoCredentialError):
        return False


def _no_longer(client: ProgramClient, endpoint: Endpoint) -> str:
    """Describe how an endpoint is no longer answered as before; "" where it is."""
    by = "by the release that ran before, and"
    which = f"{by} is gone" if _good(endpoint.status) else f"with status {endpoint.status} {by} no longer is"
    try:
        status = client.ask(endpoint).status
    except (NoAnswerError, NoCredentialError) as error:
        return f"{which}: {client.hide(str(error))}"
    return "" if _as_declared(endpoint, status) else f"{which}: status {status}"


def _undocumented(context: CheckContext, document: openapi.Document, known: Sequence[Endpoint]) -> Iterator[Finding]:
    now = {openapi.PARAMETER.sub("{}", each) for each in document.operations()}
    for operation in context.rehearsal.answered.operations:
        context.left()
        if openapi.PARAMETER.sub("{}", operation) in now:
            continue
        method, _, path = operation.partition(" ")
        template = openapi.Template(path)
        if not any(each.method == method and template.stands_for(each.path.partition("?")[0]) for each in known):
            shown = one_line(operation, 120)
            text = f"{shown} stood in the OpenAPI document of the release that ran before, not in {document.path}"
            yield Finding("medium", f"{text}: {_HOW}")
