"""`raos.toml`, at the root of every bundle: what the program promises, and what `deploy verify` holds it to.

    [raos]         name, version, urgent, installable_from (versions)
    [app]          command
    [migrate]      command, seconds, reversible
    [health]       path, ready, expect ("release" or "status"), start_seconds, settle_seconds
    [modules]      report (path), load_ms; or none (why there are none)
    [api]          openapi (path)
    [[endpoint]]   name, method, path, auth, body, status, headers, contains, matches, json, schema, time_limit (s)
    [[check]]      the same, and title, severity: a check of the release's own
    [[kept]]       name, method, path, body, read, auth: a value that must survive the rollback rehearsal
    [database]     tables, migration, migrations, latency_ms; or none (why there is none)
    [performance]  paths, requests, concurrency, p95_ms, error_rate (failed requests per thousand), slower_percent
    [security]     headers, [[security.allow]] rule, path, reason, until (a date, the last day it counts)

Only `[raos]` must be there. A key that is not named here is refused, with its line.
"""

from __future__ import annotations

import difflib
import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ashat.bundle.manifest import Manifest
from ashat.common.documents import load_toml
from ashat.common.text import cut
from ashat.errors import BundleError, DocumentError
from ashat.raos_toml.schema import (
    Allow,
    ApiSection,
    AppSection,
    Commands,
    DatabaseSection,
    Endpoint,
    HealthSection,
    Kept,
    MigrateSection,
    ModulesSection,
    OwnCheck,
    PerformanceSection,
    RaosSection,
    RaosToml,
    Section,
    SecuritySection,
)

NAME = "raos.toml"
SIZE_LIMIT = 256 * 1024
_KEY_SHOWN = 80

Location = tuple[int | str, ...]
_Model = TypeVar("_Model", bound=BaseModel)


def load_raos_toml(raw: bytes, source: str = NAME) -> RaosToml:
    """What `raw` says.

    Raises:
        BundleError: it is no TOML, or a key is unknown, missing or wrong; one line, with `source`, line and key.
    """
    loaded, text = _load(RaosToml, raw, source)
    for table, named in (("endpoint", loaded.endpoints), ("check", loaded.checks), ("kept", loaded.kept)):
        names = [each.name for each in named]
        for index, name in enumerate(names):
            if name in names[:index]:
                twin = _line_of(text, (table, index, "name"))
                raise BundleError(
                    f"{source}, line {twin}: another {table} is named {name!r} already; give this one its own."
                )
    return loaded


def load_commands(raw: bytes, source: str = NAME) -> Commands:
    """What a node runs of the release whose file is `raw`; it takes no notice of the other tables.

    Raises:
        BundleError: as `load_raos_toml`, of these tables.
    """
    return _load(Commands, raw, source)[0]


def _load(model: type[_Model], raw: bytes, source: str) -> tuple[_Model, str]:
    if len(raw) > SIZE_LIMIT:
        raise BundleError(f"{source} has {len(raw)} bytes; at most {SIZE_LIMIT} are read.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BundleError(f"{source}, line {line}: the file is not UTF-8; save it as UTF-8.") from None
    try:
        document = load_toml(text, limit=SIZE_LIMIT)
    except DocumentError as error:
        raise BundleError(_syntax_error(source, text, error)) from None
    try:
        return model.model_validate(document), text
    except ValidationError as error:
        raise BundleError(_describe(source, text, error)) from None


def raos_toml_of(manifest: Manifest, read: Callable[[str], bytes]) -> RaosToml:
    """The `raos.toml` of a bundle; `read` gives the bytes of a path of it.

    Raises:
        BundleError: the bundle has none, or it is wrong, or it names a file that the bundle does not have.
    """
    entry = manifest.by_path.get(NAME)
    if entry is None and (link := manifest.file_at(NAME)):
        raise BundleError(f"{NAME} is a symbolic link; put the file itself, {link.path!r}, in its place.")
    if entry is None:
        raise BundleError(
            f"The source has no {NAME} at its root: add one with [raos] name and version "
            "(examples/raos/raos.toml is a full one), so that the release can be verified."
        )
    if entry.size > SIZE_LIMIT:
        raise BundleError(f"{NAME} has {entry.size} bytes; at most {SIZE_LIMIT} are read.")
    raw = read(NAME)
    raos = load_raos_toml(raw)
    for location, path in schema_files(raos):
        if path not in manifest.by_path:
            if link := manifest.file_at(path):
                told = f"{path!r} is reached over a symbolic link; name the file itself, {link.path!r}."
                raise BundleError(f"{place_of(raw, location)}: {told}")
            found = next(
                (each for each in manifest.by_path if posixpath.basename(each) == posixpath.basename(path)), ""
            )
            hint = f"did you mean {found!r}?" if found else "add it, or correct the path."
            raise BundleError(f"{place_of(raw, location)}: the bundle has no file {path!r}; {hint}")
    pattern = raos.database.migrations if raos.database else None
    if pattern and not fnmatch.filter(manifest.by_path, pattern):
        place = place_of(raw, ("database", "migrations"))
        raise BundleError(f"{place}: no file of the bundle is named like {pattern!r}; correct it, or leave it out.")
    return raos


def declared_schemas(raos: RaosToml) -> Iterator[tuple[Location, str | Mapping[str, Any]]]:
    """Every JSON Schema that `raos` declares, a table or the path of a file, and where it stands."""
    for table, requests in (("endpoint", raos.endpoints), ("check", raos.checks)):
        for index, request in enumerate(requests):
            if request.answer_schema is not None:
                yield (table, index, "schema"), request.answer_schema


def schema_files(raos: RaosToml) -> Iterator[tuple[Location, str]]:
    """The paths among them."""
    return ((place, schema) for place, schema in declared_schemas(raos) if isinstance(schema, str))


def place_of(raw: bytes, location: Location, source: str = NAME) -> str:
    """File, line and key of a place, as refusals begin: `raos.toml, line 12: endpoint[2].schema`."""
    line = _line_of(raw.decode("utf-8"), location)
    return f"{source}{f', line {line}' if line else ''}: {_spell(location)}"


def _syntax_error(source: str, text: str, error: DocumentError) -> str:
    found = re.fullmatch(r"(.*?) ?\(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
    if not found:
        return f"{source} is not TOML that can be read: {error}."
    line = int(found[2]) if found[2] else max(1, len(text.splitlines()))
    return f"{source}, line {line}: this is not TOML: {found[1][:1].lower()}{found[1][1:]}."


def _describe(source: str, text: str, error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")  # a misspelt key is also a missing one
    first = problems[0]
    location = tuple(first["loc"])
    where = _spell(location)
    if first["type"] == "extra_forbidden":
        place = f" in {_spell(location[:-1])}" if location[:-1] else ""
        message = f"there is no key {cut(str(location[-1]), _KEY_SHOWN)!r}{place}{_suggestion(location)}"
    elif first["type"] == "missing":
        message = f"{where} is missing; add it"
    else:
        reason = first["msg"].removeprefix("Value error, ")
        found = f"; this is {_KINDS.get(type(first['input']), 'something else')}" if "_type" in first["type"] else ""
        message = f"{where}: {reason[:1].lower()}{reason[1:]}{found}"
    line = _line_of(text, location)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{source}{f', line {line}' if line else ''}: {message}{'' if message[-1] == '?' else '.'}{more}"


_KINDS = {
    str: "a text",
    bool: "a truth value",
    int: "a whole number",
    float: "a number with a fraction",
    list: "a list",
    dict: "a table",
    date: "a date",
}


def _spell(location: Location) -> str:
    spelled = ""
    for part in location:
        if isinstance(part, int):
            spelled += f"[{part + 1}]"
        elif part != "[key]":
            shown = cut(part, _KEY_SHOWN)
            spelled += f".{shown}" if spelled else shown
    return spelled


_MODELS: Mapping[str, type[Section]] = MappingProxyType(
    {
        "raos": RaosSection,
        "app": AppSection,
        "migrate": MigrateSection,
        "health": HealthSection,
        "modules": ModulesSection,
        "api": ApiSection,
        "endpoint": Endpoint,
        "check": OwnCheck,
        "kept": Kept,
        "database": DatabaseSection,
        "performance": PerformanceSection,
        "security": SecuritySection,
        "security.allow": Allow,
    }
)


def _suggestion(location: Location) -> str:
    table = ".".join(part for part in location[:-1] if isinstance(part, str))
    model = _MODELS.get(table, RaosToml)
    keys = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(keys)}"


_HEADER = re.compile(r"^\s*(\[\[?)([^\[\]]++)\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def _line_of(text: str, location: Location) -> int | None:
    """The line of the longest beginning of `location` that has one: TOML's parser tells no positions."""
    best: tuple[int, int | None] = (0, None)
    for place, line in _places(text):
        depth = len(place)
        if depth > best[0] and location[:depth] == place:
            best = (depth, line)
    return best[1]


def _places(text: str) -> Iterator[tuple[Location, int]]:
    """Where each table and each key begins, as far as a line by line reading tells."""
    table: Location = ()
    counts: dict[tuple[str, ...], int] = {}
    inside = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = "" if inside in line else inside
            continue
        if header := _HEADER.match(line):
            names = tuple(_bare(part) for part in _PART.findall(header[2]))
            if header[1] == "[[":
                counts[names] = counts.get(names, 0) + 1
            table = _with_indexes(names, counts)
            yield table, number
        elif key := _KEY.match(line):
            path = table
            for part in _PART.findall(key[1]):
                path = (*path, _bare(part))
                yield path, number
            inside = next((quote for quote in ('"""', "'''") if line.count(quote) % 2), "")


def _with_indexes(names: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> Location:
    path: Location = ()
    for depth, name in enumerate(names, start=1):
        path = (*path, name)
        if names[:depth] in counts:
            path = (*path, counts[names[:depth]] - 1)
    return path


def _bare(part: str) -> str:
    return part[1:-1] if part[0] in "\"'" else part
