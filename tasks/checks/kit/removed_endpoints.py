"""Finds the endpoints that the previous release answered, while the rehearsal ran it, and the new release does not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ashat.raos_toml.schema import Endpoint
from tasks.checks.kit import openapi
from tasks.checks.kit.answers import Observed, askable, observe
from tasks.checks.kit.assertions import NoCredentialError, ProgramClient
from tasks.checks.kit.base import CheckContext, Finding, OutOfTimeError, one_line
from tasks.checks.kit.baseline import as_declared
from tasks.checks.kit.http import NoAnswerError
from tasks.checks.kit.samples import AnsweredEndpoints

# In all: the program is kept from its users meanwhile.
SECONDS = 30.0
_HOW = "bring it back, or declare it in raos.toml with the status that it has now"


def note_answered(context: CheckContext) -> tuple[AnsweredEndpoints, Observed]:
    """Record which endpoints the previous release, which runs now, answers with the status that it declares itself.

    They are requested several times, with their credentials, as in the API check; all that was seen of them is
    returned, too. The operations of its OpenAPI document are recorded.
    """
    previous = context.previous_raos
    wanted = askable(previous) if previous else []
    operations: tuple[str, ...] = ()
    with ProgramClient(replace(context, deadline=time.monotonic() + SECONDS, time_limit=SECONDS)) as client:
        try:
            document, _ = openapi.read_document(client.web, previous.api.openapi if previous else None)
            operations = document.operations() if document else ()
        except OutOfTimeError:
            pass  # an endpoint that is not asked for want of time is counted
    seen = observe(context, wanted, SECONDS)
    answers = {each.key: each for each in seen.answers if each.failed < each.asked}
    answered = tuple(each for each in wanted if _key(each) in answers)
    noted = AnsweredEndpoints(answered, operations, seen.unasked, tuple(answers.values()))
    return noted, seen


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


def _no_longer(client: ProgramClient, endpoint: Endpoint) -> str:
    """Describe how an endpoint is no longer answered as before; "" where it is."""
    by = "by the release that ran before, and"
    which = f"{by} is gone" if 200 <= endpoint.status < 300 else f"with status {endpoint.status} {by} no longer is"
    try:
        status = client.ask(endpoint).status
    except (NoAnswerError, NoCredentialError) as error:
        return f"{which}: {client.hide(str(error))}"
    return "" if as_declared(endpoint.status, status) else f"{which}: status {status}"


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
