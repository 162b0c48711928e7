"""The child process of `schema_sandbox`: matches texts by patterns and JSON by schemas, and may die of either.

Run as a program. A line of standard input is a request, a line of standard output the reply, both JSON. Each request
has so many seconds of processor time; then the kernel ends the process, whatever it is in the middle of. Nothing is
fetched: the reply names the documents that a schema refers to, and the parent sends each as another request.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

MEMORY_LIMIT = 1024**3
RECURSION_LIMIT = 4000
ERRORS_LIMIT = 50
ERRORS_SHOWN = 3
_DATA = frozenset(("const", "enum", "default", "example", "examples"))


class NoSchemaError(Exception):
    """A document is no JSON Schema; the message says why."""


class SchemaWorker:
    """The documents that the parent sent, and the requests that can be made about them."""

    def __init__(self) -> None:
        self._documents: dict[str, Any] = {}
        self._missing: list[str] = []

    def reply(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out a request; the reply has its result, the `missing` URIs, or the `trouble` that prevented it."""
        self._missing = []
        try:
            return getattr(self, f"_{request['do']}")(request)  # type: ignore[no-any-return]
        except RecursionError:
            return {"trouble": "it refers to itself without end, or is nested too deeply"}
        except MemoryError:
            return {"trouble": f"it takes more than {MEMORY_LIMIT} bytes of memory"}
        except Exception as error:  # noqa: BLE001 - a schema is anybody's, and breaks the library in ways of its own
            if self._missing:
                return {"missing": self._missing}
            return {"trouble": _reason(error)}

    def _learn(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._documents[request["uri"]] = request["document"]
        return {}

    def _match(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"found": bool(re.search(request["pattern"], request["text"]))}

    def _check(self, request: Mapping[str, Any]) -> dict[str, Any]:
        uri = request["uri"]
        schema = self._documents[uri]
        checker = _json_schema(schema)
        checker.check_schema(schema)
        for reference, place in _references(schema, self._registry().resolver(uri)):
            place.lookup(reference)
        return {}

    def _validate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        uri, _, fragment = request["schema"].partition("#")
        dialect = request["dialect"]
        checker = _json_schema(self._documents[uri]) if dialect == "json-schema" else _openapi(dialect)
        checker.check_schema(self._registry().resolver().lookup(f"{uri}#{fragment}").contents)
        validator = checker(
            {"$ref": request["schema"]}, registry=self._registry(), format_checker=checker.FORMAT_CHECKER
        )
        errors = list(islice(validator.iter_errors(json.loads(request["json"])), ERRORS_LIMIT))
        return {"errors": [_described(error) for error in errors[:ERRORS_SHOWN]], "more": len(errors[ERRORS_SHOWN:])}

    def _registry(self) -> Any:
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
        from referencing import Registry, Resource
        from referencing.jsonschema import DRAFT202012

        resources = {
            uri: Resource.from_contents(document, default_specification=DRAFT202012)
            for uri, document in self._documents.items()
        }
        known: Any = Registry(retrieve=self._ask_for)  # type: ignore[call-arg]
        return REGISTRY.combine(known.with_resources(resources.items()))

    def _ask_for(self, uri: str) -> Any:
        from referencing.exceptions import NoSuchResource

        self._missing.append(uri)
        raise NoSuchResource(ref=uri)  # type: ignore[call-arg]


def _json_schema(schema: Any) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for

    if not isinstance(schema, dict | bool):
        raise NoSchemaError("a JSON Schema is an object")
    dialect = schema.get("$schema") if isinstance(schema, dict) else None
    nothing: Any = None
    checker = validator_for({"$schema": dialect}, default=nothing) if dialect else Draft202012Validator
    if checker is None:
        raise NoSchemaError(f"its $schema {dialect!r} is no dialect that is known; leave it out for 2020-12")
    return checker


def _openapi(dialect: str) -> Any:
    import openapi_schema_validator as oas

    return {"3.0": oas.OAS30ReadValidator, "3.1": oas.OAS31Validator, "3.2": oas.OAS32Validator}[dialect]


def _references(schema: Any, resolver: Any) -> Iterator[tuple[str, Any]]:
    """Yield each `$ref` with the resolver of the place where it stands."""
    from referencing.jsonschema import DRAFT202012

    if isinstance(schema, dict):
        if isinstance(schema.get("$id"), str):
            resolver = resolver.in_subresource(DRAFT202012.create_resource(schema))
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"], resolver
    below = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, value in below:
        if key not in _DATA:
            yield from _references(value, resolver)


def _described(error: Any) -> list[str]:
    """Describe a breach: where it is, the value there as JSON, and how; whole, as the parent hides what is secret."""
    from jsonschema.exceptions import best_match

    error = best_match([error])
    where = "json" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    shown = repr(error.instance)
    value = json.dumps(error.instance, ensure_ascii=False) if error.message.startswith(shown) else ""
    rest = error.message[len(shown) :] if value else error.message
    return [where, value, rest.strip()]


def _reason(error: Exception) -> str:
    """Say what is wrong with a schema in words of the schema: those of the checked text may be secret."""
    from jsonschema.exceptions import SchemaError, UnknownType
    from referencing.exceptions import Unresolvable

    if isinstance(error, SchemaError):
        where = "".join(f"/{part}" for part in error.absolute_path)
        return f"{where + ': ' if where else ''}{error.message}"
    if isinstance(error, UnknownType):
        return f"it names a type {error.type!r}, which there is not"
    if isinstance(error, Unresolvable):
        return f"it refers to {error.ref}, which is not there"
    if isinstance(error, NoSchemaError):
        return str(error)
    return f"it breaks the library that reads it ({type(error).__name__})"


def _import_for(task: str) -> None:
    """Import what a request needs before its time begins: with some packages beside it, jsonschema takes seconds."""
    if task in ("check", "validate"):
        import jsonschema.validators  # noqa: F401
        import openapi_schema_validator  # noqa: F401


def main() -> None:
    """Reply to requests until standard input ends."""
    with suppress(ValueError, OSError):  # not every system lets a process bound itself
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    sys.setrecursionlimit(RECURSION_LIMIT)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGVTALRM})
    worker = SchemaWorker()
    for line in sys.stdin:
        request = json.loads(line)
        _import_for(request["do"])
        signal.setitimer(signal.ITIMER_VIRTUAL, request["seconds"])
        reply = worker.reply(request)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        print(json.dumps(reply), flush=True)  # noqa: T201 - standard output is what the parent reads


if __name__ == "__main__":
    main()
