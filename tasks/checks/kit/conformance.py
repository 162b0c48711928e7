"""Finds how an answer falls short of what HTTP and JSON ask of every answer, and of what the release before answered.

JSON is RFC 8259, in UTF-8 and with each key once; HEAD is RFC 9110, section 9.3.2: what GET answers, without a body.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from urllib.parse import urlsplit

import httpx

from ashat.raos_toml.schema import Endpoint
from tasks.checks.kit.answers import is_json, media_type
from tasks.checks.kit.assertions import NoCredentialError, ProgramClient
from tasks.checks.kit.base import CheckContext, Finding, Severity, one_line
from tasks.checks.kit.baseline import SeenAnswers
from tasks.checks.kit.http import Answer, NoAnswerError

TIMES = 10
LEAST_BEFORE = 100
LEAST_NOW = 1_000
HEADS_LIMIT = 100
HEAD_SECONDS = 3.0
_NO_CONTENT = (204, 205, 304)
_NO_HEAD = (405, 501)
_SHOWN = 20
_UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")


def json_findings(answer: Answer, method: str) -> Iterator[Finding]:
    """Find what is wrong with an answer that says it is JSON, or that it is text in a charset."""
    media = media_type(answer)
    if method == "HEAD" or answer.status in _NO_CONTENT:
        return
    if is_json(media):
        if not answer.body and not 200 <= answer.status < 300:
            yield Finding("low", f"its answer of the type {media} is empty, which is no JSON")
            return
        try:
            answer.json()
        except ValueError as error:
            yield Finding("high", f"the answer is {error}, and its type is {one_line(media, 60)}")
            return
        charset = _charset(answer)
        if charset and charset not in _UTF_8 and not answer.content().isascii():
            said = f"its Content-Type says charset={one_line(charset, 40)}"
            yield Finding(
                "medium", f"{said}, but JSON is UTF-8, and so is the answer: who heeds it reads other letters"
            )
    elif media.startswith("text/") and _charset(answer):
        try:
            answer.text()
        except ValueError as error:
            yield Finding("medium", f"the answer is {one_line(error)}, though its Content-Type says so")


def changed_since(was: SeenAnswers, answer: Answer, endpoint: Endpoint, *, type_declared: bool) -> Iterator[Finding]:
    """Find how the answer's type and size differ from those of the release before; nothing where that is declared.

    A type is declared by a header of raos.toml, or by the OpenAPI document.
    """
    if answer.status in _NO_CONTENT:
        return
    media, before = media_type(answer), set(was.types)
    if before and media not in before and not type_declared and (answer.body or endpoint.method == "HEAD"):
        known = " or ".join(sorted(each or "none" for each in before))
        shown = one_line(media, 60) or "no type"
        json_before = any(map(is_json, before))
        yield Finding(
            _severity(json_before, is_json(media)), f"its type is {shown}; the release before answered {known}"
        )
    if endpoint.method == "HEAD" or not was.types:
        return
    now = len(answer.content())
    if was.least_bytes and not now:
        yield Finding("high", f"the answer is empty; that of the release before had {was.least_bytes} bytes")
    elif was.least_bytes >= LEAST_BEFORE and now * TIMES <= was.least_bytes:
        yield Finding("medium", f"the answer has {now} bytes; that of the release before had {was.least_bytes}")
    elif now >= LEAST_NOW and now >= TIMES * was.most_bytes > 0:
        yield Finding("medium", f"the answer has {now} bytes; that of the release before had {was.most_bytes}")


def _severity(was_json: bool, is_json_now: bool) -> Severity:
    if was_json != is_json_now:
        return "high"
    return "low" if was_json else "medium"


class Heads:
    """Asks with HEAD what was asked with GET, for `HEADS_LIMIT` endpoints at most."""

    def __init__(self, client: ProgramClient, context: CheckContext) -> None:
        self._client = client
        self._context = context
        self._wanted: list[tuple[Endpoint, Answer]] = []
        self._refusing: list[str] = []
        self.asked = 0

    def note(self, endpoint: Endpoint, answer: Answer) -> None:
        """Have that endpoint asked later; GET answered `answer`."""
        self._wanted.append((endpoint, answer))

    def findings(self) -> Iterator[Finding]:
        """Ask, and find where HEAD does not answer as GET did.

        Raises:
            OutOfTimeError: the check's own time is over.
        """
        for endpoint, answer in self._wanted[:HEADS_LIMIT]:
            self._context.left()
            for text in self._differences(endpoint, answer):
                yield Finding("medium", f"HEAD {endpoint.path}: {text}")
        if self._refusing:
            text = f"{len(self._refusing)} paths answer GET and refuse HEAD: {', '.join(self._refusing[:_SHOWN])}"
            yield Finding("low", text, count=len(self._refusing))
        if (left := len(self._wanted) - HEADS_LIMIT) > 0:
            yield Finding("low", f"{left} paths that answer GET were not asked with HEAD", unseen=True, count=left)

    def _differences(self, endpoint: Endpoint, answer: Answer) -> Iterator[str]:
        self.asked += 1
        try:
            head = self._client.ask(endpoint.model_copy(update={"method": "HEAD", "time_limit": HEAD_SECONDS}))
        except NoCredentialError:
            return
        except NoAnswerError as error:
            yield f"{self._client.hide(str(error))}; GET answers"
            return
        if head.status in _NO_HEAD and answer.status not in _NO_HEAD:
            self._refusing.append(one_line(endpoint.path, 80))
            return
        if head.status != answer.status:
            yield f"status {head.status}; GET answers {answer.status}"
            return
        if media_type(head) != media_type(answer):
            types = one_line(media_type(head), 60) or "no type", one_line(media_type(answer), 60) or "no type"
            yield f"its type is {types[0]}; that of GET is {types[1]}"
        yield from self._length(endpoint, head, answer)
        if self._has_body(endpoint):
            yield "a body follows its headers, which the next answer on the connection is mistaken for"

    def _length(self, endpoint: Endpoint, head: Answer, answer: Answer) -> Iterator[str]:
        said = head.headers.get("Content-Length")
        if said is None or said == str(len(answer.body)) or "Content-Encoding" in head.headers:
            return
        try:
            again = len(self._client.ask(endpoint).body)
        except (NoAnswerError, NoCredentialError):
            return
        if again == len(answer.body):
            yield f"its Content-Length is {one_line(said, 20)}; GET answers {again} bytes"

    def _has_body(self, endpoint: Endpoint) -> bool:
        try:
            headers = self._client.authorization(endpoint.auth)
            return head_has_body(self._context, endpoint.path, headers)
        except (OSError, http.client.HTTPException, ValueError):
            return False


def head_has_body(context: CheckContext, path: str, headers: Mapping[str, str]) -> bool:
    """Tell whether anything follows the headers of an answer to HEAD; within `HEAD_SECONDS`.

    HTTP libraries do not read it, so this is asked over a connection of its own.

    Raises:
        OSError, http.client.HTTPException: there was no answer.
    """
    url = urlsplit(context.app_url)
    seconds = min(HEAD_SECONDS, context.left())
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        tls = context.tls or httpx.create_ssl_context()
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=seconds, context=tls)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=seconds)
    with closing(connection):
        connection.connect()
        held = connection.sock
        watch = threading.Timer(seconds, held.shutdown, (socket.SHUT_RDWR,))
        watch.start()
        try:
            sent = {**headers, "Connection": "close", "Accept-Encoding": "identity"}
            connection.request("HEAD", url.path.rstrip("/") + path, headers=sent)
            with closing(connection.getresponse()) as response:
                held.settimeout(min(seconds, 0.5))
                return bool(response.fp.read(1))
        finally:
            watch.cancel()


def undeclared(context: CheckContext, operations: tuple[str, ...], declared: list[str], path: str) -> Iterator[Finding]:
    """List what the OpenAPI document at `path` says that the program answers, and raos.toml does not declare.

    What is new since the release before comes first.
    """
    left = [each for each in operations if each not in declared]
    before = set(context.rehearsal.answered.operations)
    new = [each for each in left if each not in before] if before else []
    old = [each for each in left if each not in new]
    for found, said in ((new, "are new and not declared in raos.toml"), (old, "are not declared in raos.toml")):
        if found:
            names = ", ".join(one_line(each, 80) for each in found[:_SHOWN])
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            text = f"{len(found)} operations of {path} {said}, so nobody asked them: {names}{more}"
            yield Finding("low", text, unseen=True, count=len(found))


def _charset(answer: Answer) -> str:
    return (httpx.Response(200, headers=answer.headers).charset_encoding or "").lower()
