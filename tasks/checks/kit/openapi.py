"""Reads a program's own OpenAPI document, and finds how an answer falls short of it.

Only the schema of an answer needs a library. `openapi-schema-validator` has what OpenAPI 3.0 adds to JSON Schema
(nullable, write-only) and the dialects of 3.1 and 3.2, is released several times a year, and needs nothing that the
operator's extra does not have already. `openapi-core` would do the whole, but brings a web framework's request and
response types with a dozen packages; plain `jsonschema` would leave the keywords of 3.0 to code of our own. Finding
the operation of a path is some forty lines, below.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from ashat.raos_toml.schema import Request
from tasks.checks.kit.answers import is_json
from tasks.checks.kit.assertions import ProgramClient
from tasks.checks.kit.base import Finding, one_line
from tasks.checks.kit.http import Answer, NoAnswerError, Web
from tasks.checks.kit.schema_sandbox import Dialect, SandboxError

USUAL = "/openapi.json"
DOCUMENT_LIMIT = 4 * 1024 * 1024
SECONDS = 5.0
PATHS_LIMIT = 10_000
SERVERS_LIMIT = 20
URL_LIMIT = 2048
PARAMETER = re.compile(r"\{[^{}]*\}")
_URI = "http://program.invalid"
_VERSION = re.compile(r"(3\.[012])\.\d+")
_REFERENCES_LIMIT = 20
_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace", "query")

Pointer = tuple[str, ...]


class UnreadableError(ValueError):
    """The document is no OpenAPI document of a known version, or a part of it is not what it must be."""


@dataclass(frozen=True)
class Document:
    """An OpenAPI document. `path` is where it was published, `version` its dialect."""

    path: str
    sha256: str
    version: Dialect
    contents: Mapping[str, Any]

    def as_input(self) -> dict[str, str]:
        """Return what the evidence keeps of the document."""
        return {"path": self.path, "sha256": self.sha256, "version": self.version}

    @property
    def uri(self) -> str:
        """The URI under which the schema sandbox knows the document."""
        return _URI + self.path

    def follow(self, pointer: Pointer) -> tuple[Pointer, Any]:
        """Follow each `$ref` on the way to `pointer`; return where that leads, and what is there.

        Raises:
            UnreadableError: nothing does, or a reference leads elsewhere or in a circle.
        """
        for _ in range(_REFERENCES_LIMIT):
            node, rest = self._walk(pointer)
            if node is None:
                raise UnreadableError(f"it has nothing at {_spelled(pointer)}")
            reference = node.get("$ref") if isinstance(node, dict) else None
            if reference is None:
                return pointer, node
            if not isinstance(reference, str) or not reference.startswith("#/"):
                raise UnreadableError(f"it refers to {one_line(reference, 80)}, which is not in it")
            parts = (unquote(part).replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/"))
            pointer = (*parts, *rest)
        raise UnreadableError(f"references lead in a circle at {_spelled(pointer)}")

    def find(self, path: str) -> Pointer | None:
        """Find the entry of `paths` for a path of the program, with the fewest templates; None: there is none."""
        bare = path.partition("?")[0]
        for prefix in self._prefixes:
            if not bare.startswith(prefix + "/"):
                continue
            for template in self._templates:
                if template.stands_for(bare[len(prefix) :]):
                    return ("paths", template.text)
        return None

    def operation_of(self, request: Request) -> str:
        """Name the operation that the request is one of, as `operations` does; "" where there is none."""
        item = self.find(request.path)
        return f"{request.method} {item[1]}" if item else ""

    def knows_type(self, request: Request, answer: Answer) -> bool:
        """Tell whether the document says that such an answer may have the media type that it has."""
        try:
            item = self.find(request.path)
            operation = _operation(self, item, request.method) if item else None
            response = _response(self, operation, answer.status) if operation else None
            described = _mapping(_mapping(self.follow(response)[1]).get("content")) if response else {}
        except UnreadableError:
            return False
        return _media(described, _content_type(answer)) is not None

    def operations(self) -> tuple[str, ...]:
        """List the document's operations, such as `GET /api/items/{item}`, in order."""
        found = []
        for path in _mapping(self.contents.get("paths")):
            try:
                item = _mapping(self.follow(("paths", path))[1])
            except UnreadableError:
                continue
            found += [f"{method.upper()} {path}" for method in _METHODS if method in item]
        return tuple(sorted(found))

    @cached_property
    def _templates(self) -> list[Template]:
        found = [Template(path) for path in _mapping(self.contents.get("paths"))]
        return sorted(found, key=lambda each: (each.text.count("{"), each.text))

    @cached_property
    def _prefixes(self) -> list[str]:
        """The paths of `servers`, the longest first; none counts too, for a program behind a proxy that strips it."""
        found = {""}
        servers = self.contents.get("servers")
        for server in servers[:SERVERS_LIMIT] if isinstance(servers, list) else []:
            try:
                found.add(urlsplit(_address(_mapping(server))).path.rstrip("/"))
            except ValueError:
                continue
        return sorted(found, key=len, reverse=True)

    def _walk(self, pointer: Pointer) -> tuple[Any, Pointer]:
        """Find what is at `pointer`, None for nothing; or the first reference on the way, and the rest of the way."""
        node: Any = self.contents
        for number, part in enumerate(pointer):
            if isinstance(node, dict) and "$ref" in node:
                return node, pointer[number:]
            node = node.get(part) if isinstance(node, dict) else None
        return node, ()


def read_document(web: Web, declared: str | None) -> tuple[Document | None, list[Finding]]:
    """Read the document that the program publishes at `declared`, or where many programs do.

    One that is declared must be there; without a word from raos.toml, a program that publishes none is left in peace.

    Raises:
        OutOfTimeError: the check's own time is over.
    """
    path = declared or USUAL
    try:
        answer = web.ask(path, seconds=SECONDS, limit=DOCUMENT_LIMIT)
        if answer.status != 200:
            raise UnreadableError(f"status {answer.status}")
        contents = answer.json()
        if declared is None and not ("openapi" in contents if isinstance(contents, dict) else False):
            return None, []
    except (NoAnswerError, ValueError) as error:
        text = f"the OpenAPI document that raos.toml promises at {path} cannot be read: {one_line(error)}"
        return None, [Finding("high", text)] if declared else []
    version = _mapping(contents).get("openapi")
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if found is None:
        text = f"{path} is no OpenAPI document of version 3.0, 3.1 or 3.2, but says {one_line(version, 40)!r}"
        return None, [Finding("high" if declared else "low", text)]
    if (count := len(_mapping(contents.get("paths")))) > PATHS_LIMIT:
        text = f"{path} describes {count} paths; at most {PATHS_LIMIT} are read"
        return None, [Finding("high" if declared else "low", text)]
    digest = hashlib.sha256(answer.body).hexdigest()
    return Document(path, digest, cast(Dialect, found[1]), contents), []


def validate(document: Document, client: ProgramClient, request: Request, answer: Answer) -> Iterator[Finding]:
    """Find how the answer falls short of the document: `high` where it breaks it, `medium` where that says nothing."""
    try:
        yield from _validate(document, client, request, answer)
    except (UnreadableError, SandboxError) as error:
        yield Finding("high", f"it cannot be held against {document.path}: {client.hide(str(error))}")


def _validate(document: Document, client: ProgramClient, request: Request, answer: Answer) -> Iterator[Finding]:
    item = document.find(request.path)
    if item is None:
        yield Finding("medium", f"{document.path} does not know this path")
        return
    operation = _operation(document, item, request.method)
    if operation is None:
        yield Finding("medium", f"{document.path} knows this path, but no {request.method} on it")
        return
    response = _response(document, operation, answer.status)
    if response is None:
        yield Finding("medium", f"{document.path} does not know status {answer.status} here")
        return
    place, described = document.follow(response)
    for name in _mapping(_mapping(described).get("headers")):
        header = _mapping(document.follow((*place, "headers", name))[1])
        if header.get("required") is True and name not in answer.headers:
            yield Finding("high", f"the header {one_line(name, 64)} is missing, which {document.path} requires")
    if request.method != "HEAD":
        yield from _content(document, client, (*place, "content"), answer)


def _operation(document: Document, item: Pointer, method: str) -> Pointer | None:
    place, operations = document.follow(item)
    for name in (method.lower(), "get") if method == "HEAD" else (method.lower(),):
        if name in _mapping(operations):
            return (*place, name)
    return None


def _response(document: Document, operation: Pointer, status: int) -> Pointer | None:
    place, described = document.follow(operation)
    responses = _mapping(_mapping(described).get("responses"))
    for name in (str(status), f"{status // 100}XX", f"{status // 100}xx", "default"):
        if name in responses:
            return (*place, "responses", name)
    return None


def _content(document: Document, client: ProgramClient, place: Pointer, answer: Answer) -> Iterator[Finding]:
    described = _mapping(_mapping(document.follow(place[:-1])[1]).get("content"))
    if not described:
        return
    content_type = _content_type(answer)
    media = _media(described, content_type)
    if media is None:
        shown = one_line(client.hide(content_type), 60) or "an answer without a type"
        yield Finding("medium", f"{document.path} knows {one_line(', '.join(described), 80)} here, not {shown}")
        return
    if "schema" not in _mapping(described[media]) or not is_json(content_type.lower()):
        return
    try:
        answer.json()
    except ValueError as error:
        yield Finding("high", f"the answer is {error}")
        return
    client.sandbox.learn(document.uri, document.contents)
    schema = f"{document.uri}#{_fragment((*place, media, 'schema'))}"
    for breach in client.breaches(schema, answer, dialect=document.version):
        yield Finding("high", f"{breach} (of {document.path})")


def _content_type(answer: Answer) -> str:
    declared: str = answer.headers.get("Content-Type", "")
    return declared.partition(";")[0].strip()


def _media(described: Mapping[str, Any], content_type: str) -> str | None:
    """Find the key of `described`, a response's `content`, that stands for that media type."""
    lowered = content_type.lower()
    known = {name.partition(";")[0].strip().lower(): name for name in described}
    return next((known[each] for each in (lowered, f"{lowered.partition('/')[0]}/*", "*/*") if each in known), None)


class Template:
    """A path of the document, such as `/items/{item}`, in which each parameter stands for some letters but a slash.

    A pattern of `re` for `/{a}{b}{c}…` takes time by a power of the path's length. This takes time by its length.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # No path holds a NUL.
        self._names = [name.split("\0") for name in PARAMETER.sub("\0", text).split("/")]

    def stands_for(self, path: str) -> bool:
        """Tell whether the whole of `path` can be it."""
        names = path.split("/")
        return len(names) == len(self._names) and all(map(_fits, self._names, names))


def _fits(literals: Sequence[str], name: str) -> bool:
    """Tell whether `name` is `literals` with some letters between each two: the earliest place of each will do."""
    first, last = literals[0], literals[-1]
    if len(literals) == 1:
        return name == first
    if not (name.startswith(first) and name.endswith(last)):
        return False
    position = len(first)
    for literal in literals[1:-1]:
        position = name.find(literal, position + 1)
        if position < 0:
            return False
        position += len(literal)
    return position < len(name) - len(last)


def _address(server: Mapping[str, Any]) -> str:
    """Put the defaults of a server's variables into its URL, each once; what is longer than any URL is cut."""
    variables = _mapping(server.get("variables"))

    def default(parameter: re.Match[str]) -> str:
        variable = variables.get(parameter[0][1:-1])
        return str(_mapping(variable).get("default", ""))[:URL_LIMIT] if variable is not None else parameter[0]

    return PARAMETER.sub(default, str(server.get("url", ""))[:URL_LIMIT])


def _fragment(pointer: Pointer) -> str:
    return "".join("/" + quote(part.replace("~", "~0").replace("/", "~1"), safe="~") for part in pointer)


def _spelled(pointer: Pointer) -> str:
    return one_line("/" + "/".join(part.replace("/", "~1") for part in pointer), 120)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
