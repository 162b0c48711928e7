"""Sends a request that raos.toml declares, and compares the answer with all that is declared of it.

The API check and a release's own checks use the same rules, which are here. A credential goes into the Authorization
header and nowhere else: no finding shows it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from ashat.errors import AshatError
from ashat.raos_toml.schema import Request
from tasks.checks.kit.base import CheckContext, one_line
from tasks.checks.kit.http import Answer, NoAnswerError, Web
from tasks.checks.kit.schema_sandbox import Breach, SandboxError, SchemaSandbox, bundle_reader

HIDDEN = "[hidden]"
_LEAST_HIDDEN = 4


class NoCredentialError(AshatError):
    """A credential that a request names is not there, or cannot be sent."""


class CheckedResponse(NamedTuple):
    """An answer (None: there was none), and what is wrong with it, in words; nothing where it is as declared."""

    troubles: list[str]
    answer: Answer | None


class ProgramClient:
    """Sends declared requests to the program that `context` names. A context manager, not for several threads."""

    def __init__(self, context: CheckContext) -> None:
        self._credentials = context.credentials
        self._left = context.left
        self.hide = hiding(context.credentials.values())
        self.web = Web(context)
        self.sandbox = SchemaSandbox(bundle_reader(context.manifest, context.source))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.web)
        self._stack.enter_context(self.sandbox)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self, request: Request) -> CheckedResponse:
        """Send the request, and compare the answer with what it declares.

        Raises:
            OutOfTimeError: the check's own time is over.
        """
        try:
            answer = self.ask(request)
        except (NoAnswerError, NoCredentialError) as error:
            return CheckedResponse([self.hide(str(error))], None)
        return CheckedResponse(list(self._troubles(request, answer)), answer)

    def ask(self, request: Request) -> Answer:
        """Send the request; return the answer, whatever it is.

        Raises:
            NoAnswerError: none came within the limits.
            NoCredentialError: the credential that `request` names is not there.
            OutOfTimeError: the check's own time is over.
        """
        return self.web.ask(
            request.path,
            method=request.method,
            body=request.body,
            seconds=request.time_limit,
            headers=self.authorization(request.auth),
        )

    def breaches(self, schema: str, answer: Answer, **dialect: Any) -> Iterator[str]:
        """Describe how the JSON of an answer breaks the schema at `schema`, a URI that the sandbox knows."""
        breaches, more = self.sandbox.validate(schema, answer.content().decode("utf-8"), **dialect)
        yield from (self._breach(breach) for breach in breaches)
        if more:
            yield f"the schema is broken in {more} more places at least"

    def authorization(self, name: str | None) -> dict[str, str]:
        """Make the header that sends the credential of that name; none where no name is given.

        Raises:
            NoCredentialError: it is not there, or cannot be sent.
        """
        if name is None:
            return {}
        value = self._credentials.get(name)
        if value is None:
            raise NoCredentialError(
                f"there is no credential {name!r}: set it in the block RaOS Verification Policy, field Credentials"
            )
        if not (value and value.isascii() and value.isprintable() and value == value.strip()):
            raise NoCredentialError(
                f"the credential {name!r} cannot be sent in a header: set it to plain ASCII text on one line, in the "
                "block RaOS Verification Policy, field Credentials"
            )
        return {"Authorization": value}

    def _troubles(self, request: Request, answer: Answer) -> Iterator[str]:
        if answer.status != request.status:
            place = answer.headers.get("Location")
            to = f", a redirect to {one_line(self.hide(place), 100)}" if place else ""
            yield f"status {answer.status}{to} instead of {request.status}"
            return
        yield from self._headers(request, answer)
        try:
            yield from self._words(request, answer)
            yield from self._json(request, answer)
        except ValueError as error:
            yield f"the answer is {self.hide(str(error))}"

    def _headers(self, request: Request, answer: Answer) -> Iterator[str]:
        for name, value in request.headers.items():
            if name not in answer.headers:
                yield f"the header {name} is missing"
            elif answer.headers[name].strip() != value:
                yield f"{name} is {one_line(self.hide(answer.headers[name]), 100)!r} instead of {value!r}"

    def _words(self, request: Request, answer: Answer) -> Iterator[str]:
        if not request.contains and not request.matches:
            return
        text = answer.text()
        yield from (f"the answer does not hold {wanted!r}" for wanted in request.contains if wanted not in text)
        for pattern in request.matches:
            self._left()
            shown = one_line(pattern, 100)
            try:
                if not self.sandbox.found(pattern, text):
                    yield f"the answer does not match '{shown}'"
            except SandboxError as error:
                yield f"the expression '{shown}' cannot be held against the answer: {error}"

    def _json(self, request: Request, answer: Answer) -> Iterator[str]:
        if request.expected_json is None and request.answer_schema is None:
            return
        actual = answer.json()
        if request.expected_json is not None:
            yield from differences(request.expected_json, actual, shown=self._shown)
        if request.answer_schema is not None:
            self._left()
            try:
                yield from self.breaches(self.sandbox.schema(request.answer_schema), answer)
            except SandboxError as error:
                yield f"its schema cannot be held against the answer: {error}"

    def _breach(self, breach: Breach) -> str:
        value = one_line(self.hide(breach.value), 80)
        rest = one_line(self.hide(breach.rest), 160)
        return f"{one_line(self.hide(breach.where), 120)} breaks the schema: {value}{' ' if value else ''}{rest}"

    def _shown(self, value: Any) -> str:
        return one_line(self.hide(json.dumps(value, ensure_ascii=False)), 80)


def differences(
    expected: Any, actual: Any, where: str = "json", *, shown: Callable[[Any], str] = json.dumps
) -> Iterator[str]:
    """Describe how `actual` falls short of `expected`: objects may hold more, all else is equal and of one type."""
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            yield f"{where} is {shown(actual)} instead of an object"
            return
        for key, value in expected.items():
            if key in actual:
                yield from differences(value, actual[key], f"{where}.{key}", shown=shown)
            else:
                yield f"{where}.{key} is missing"
    elif not _equal(expected, actual):
        yield f"{where} is {shown(actual)} instead of {shown(expected)}"


def _equal(expected: Any, actual: Any) -> bool:
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(_equal, expected, actual))
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(_equal(value, actual[key]) for key, value in expected.items())
    return isinstance(expected, bool) == isinstance(actual, bool) and bool(expected == actual)


def hiding(secrets: Iterable[str]) -> Callable[[str], str]:
    """Make a function that takes `secrets`, values of the Authorization header, out of a text.

    It finds them whole, without their scheme, as Basic credentials decoded, and as JSON, Python or a URL write them.
    """
    forms: set[str] = set()
    for secret in secrets:
        parts = {secret, secret.partition(" ")[2].strip(), *_basic(secret)}
        for part in parts:
            forms |= {part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]}
            forms |= {repr(part)[1:-1], quote(part, safe=""), quote(part)}
    ordered = sorted((form for form in forms if len(form) >= _LEAST_HIDDEN), key=len, reverse=True)

    def hide(text: str) -> str:
        for form in ordered:
            text = text.replace(form, HIDDEN)
        return text

    return hide


def _basic(secret: str) -> Iterator[str]:
    scheme, _, encoded = secret.partition(" ")
    if scheme.lower() != "basic":
        return
    try:
        pair = base64.b64decode(encoded, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return
    yield pair
    yield pair.partition(":")[2]
