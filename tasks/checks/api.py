"""Checks that each endpoint answers as raos.toml and the program's own OpenAPI document say, and that no endpoint of
the previous release is gone without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ashat.raos_toml.schema import Endpoint
from tasks.checks.kit import openapi, removed_endpoints
from tasks.checks.kit.assertions import ProgramClient
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding, OutOfTimeError, gravest
from tasks.checks.kit.conformance import Heads, changed_since, json_findings, undeclared
from tasks.checks.kit.http import BODY_LIMIT, Answer


class ApiCheck(Check):
    """Asks every declared endpoint once. Redirects are answers, not followed."""

    name = "api"
    title = "API endpoints"
    order = 30
    version = "4"

    def run(self, context: CheckContext) -> CheckResult:
        """Request the endpoints in the order of the file; a wrong answer does not end the round."""
        endpoints = context.raos.endpoints
        with ProgramClient(context) as client:
            round_ = _Round(client, context)
            round_.run()
        inputs = {
            "endpoints": [f"{each.method} {each.path}" for each in endpoints],
            "credentials": sorted({each.auth for each in endpoints if each.auth}),
            "openapi": round_.document.as_input() if round_.document else {},
            "answered_before": sorted(removed_endpoints.label(each) for each in context.rehearsal.answered.endpoints),
            "body_limit": BODY_LIMIT,
        }
        if not endpoints and all(finding.unseen for finding in round_.findings):
            none = "raos.toml declares no [[endpoint]], so none was asked"
            return self.inconclusive(none, gravest(round_.findings), inputs=inputs)
        by_document = f", and as {round_.document.path} says" if round_.document else ""
        slowest = round_.slowest_us
        good = (
            f"{len(endpoints)} of {len(endpoints)} endpoints answer as declared{by_document}, "
            f"the slowest in {slowest / 1000:.0f} ms"
        )
        figures = {
            "endpoints": len(endpoints),
            "wrong": round_.wrong,
            "held_against_openapi": round_.documented,
            "asked_with_head": round_.heads.asked,
            "asked_again": removed_endpoints.asked_again(context),
            "operations_before": len(context.rehearsal.answered.operations),
            "slowest_us": slowest,
        }
        return self.conclude(good, gravest(round_.findings), inputs=inputs, figures=figures)


class _Round:
    """One request to each endpoint, and what was found."""

    def __init__(self, client: ProgramClient, context: CheckContext) -> None:
        self._client = client
        self._context = context
        self.document: openapi.Document | None = None
        self.findings: list[Finding] = []
        self.wrong = 0
        self.documented = 0
        self.slowest_us = 0
        self.heads = Heads(client, context)
        self._before = {seen.key: seen for seen in context.rehearsal.answered.answers}

    def run(self) -> None:
        endpoints = self._context.raos.endpoints
        asked = 0
        try:
            self.document, found = openapi.read_document(self._client.web, self._context.raos.api.openapi)
            self.findings += found
            for endpoint in endpoints:
                self._ask(endpoint)
                asked += 1
            self.findings += removed_endpoints.removed_endpoints(self._client, self._context, self.document)
            if self.document is not None:
                declared = [self.document.operation_of(each) for each in endpoints]
                operations = self.document.operations()
                self.findings += undeclared(self._context, operations, declared, self.document.path)
            self.findings += self.heads.findings()
        except OutOfTimeError as error:
            left = len(endpoints) - asked
            what = f"{left} endpoints were not asked" if left else "not all that answered before was asked again"
            late = left or not self.heads.asked
            told = what if late else "not all that answers GET was asked with HEAD"
            self.findings.append(Finding("high" if late else "low", f"{told}: {error}", unseen=not late))

    def _ask(self, endpoint: Endpoint) -> None:
        place = f"{endpoint.name} ({endpoint.method} {endpoint.path})"
        checked = self._client.check(endpoint)
        self.findings += [Finding("high", f"{place}: {trouble}") for trouble in checked.troubles]
        self.wrong += bool(checked.troubles)
        if checked.answer is None:
            return
        self.slowest_us = max(self.slowest_us, checked.answer.us)
        if checked.answer.status != endpoint.status:
            return
        found = list(self._of_answer(endpoint, checked.answer)) if not checked.troubles else []
        whole = not any(each.severity == "high" for each in found)
        if self.document is not None and whole:
            self.documented += 1
            found += openapi.validate(self.document, self._client, endpoint, checked.answer)
        self.findings += [replace(each, text=f"{place}: {each.text}") for each in found]
        if endpoint.method == "GET" and endpoint.body is None and not checked.troubles:
            self.heads.note(endpoint, checked.answer)

    def _of_answer(self, endpoint: Endpoint, answer: Answer) -> Iterator[Finding]:
        """Find what is wrong with an answer that is as declared."""
        try:
            for each in json_findings(answer, endpoint.method):
                yield replace(each, text=self._client.hide(each.text))
            was = self._before.get((endpoint.method, endpoint.path, endpoint.auth or ""))
            if was is not None:
                headers = {name.lower() for name in endpoint.headers}
                known = self.document is not None and self.document.knows_type(endpoint, answer)
                yield from changed_since(was, answer, endpoint, type_declared="content-type" in headers or known)
        except ValueError as error:
            yield Finding("medium", f"the answer is {self._client.hide(str(error))}")
