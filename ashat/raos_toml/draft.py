"""A first raos.toml for a source tree, with the reason for each line; and what a raos.toml leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ashat.common.text import printable
from ashat.raos_toml.look import SourceTree
from ashat.raos_toml.recognise import Recognised
from ashat.raos_toml.schema import RaosToml

_P95_MS = 500


def draft(tree: SourceTree, found: Recognised) -> str:
    """Write a raos.toml for the program that was recognised; each line that is a guess says so."""
    name = found.name or tree.root.resolve().name
    version = (_quoted(found.version.value), found.version.why) if found.version else ('"0.1.0"', "a guess: set it")
    lines = [
        "# What this program promises: `deploy verify` holds the running release to every line.",
        f"# `deploy init` wrote it for {found.kind} ({printable(found.why)}). Read it, and promise more.",
        "",
        "[raos]",
        f"name = {_quoted(name)}",
        _with_reason(f"version = {version[0]}", version[1]),
        "",
        "[health]",
        _with_reason(f"path = {_quoted(found.health.value)}", found.health.why),
        *_expect(found),
        "",
        "[modules]",
        *_modules(found),
        "",
        *(["[api]", 'openapi = "/openapi.json"', ""] if found.openapi else []),
        *_database(found),
        *_migrate(found),
        "[performance]",
        f"paths = [{_quoted(found.health.value)}]",
        _with_reason(f"p95_ms = {_P95_MS}", "a guess: deploy evidence shows what was measured"),
    ]
    return "\n".join(lines) + "\n"


def gaps(raos: RaosToml, found: Recognised | None) -> list[str]:
    """List what the promises of `raos` leave out, in the order of the file, for the program that was recognised."""
    return [*_of_health(raos, found), *_of_modules(raos, found), *_of_answers(raos), *_of_database(raos, found)]


def _of_health(raos: RaosToml, found: Recognised | None) -> Iterator[str]:
    if found and raos.health.expect == "release" and not found.reports_bundle:
        yield (
            "[health] expects the release's version and bundle, but no file of the source mentions ASHAT_BUNDLE: "
            'report it, or set expect = "status"'
        )


def _of_modules(raos: RaosToml, found: Recognised | None) -> Iterator[str]:
    if found and not found.modules and raos.modules.none is None:
        yield '[modules] is to be reported, but the source has no Modules/: set none = "why"'


def _of_answers(raos: RaosToml) -> Iterator[str]:
    if not raos.endpoints and raos.api.openapi is None:
        yield "no [[endpoint]] is declared, and no [api] openapi: nothing that users ask for is looked at"
    if raos.performance is None:
        yield "[performance] is not declared: nothing is measured"


def _of_database(raos: RaosToml, found: Recognised | None) -> Iterator[str]:
    declared = raos.database
    if declared is None:
        yield "[database] is not declared: none is looked at" + (
            f", but {found.database}" if found and found.database else ""
        )
    elif declared.none is not None and found and found.database:
        yield f"[database] says that there is none, but {found.database}"
    elif (
        declared.none is None and found and found.migration and declared.migration not in (None, found.migration.value)
    ):
        yield f"[database] migration is {declared.migration}, but {found.migration.why} is the newest of the source"


def _expect(found: Recognised) -> list[str]:
    if found.reports_bundle:
        return []
    return [_with_reason('expect = "status"', "any 2xx; the node vouches for the release that answers")]


def _modules(found: Recognised) -> list[str]:
    if found.modules:
        return [_with_reason('report = "/modules"', "where the program reports what it loaded of Modules/")]
    return [f"none = {_quoted(f'no modules of RaOS are in {found.kind}')}"]


def _database(found: Recognised) -> list[str]:
    if not found.database:
        return ["[database]", f"none = {_quoted('nothing in the source shows a database')}", ""]
    lines = ["[database]"]
    lines.append(_with_reason(f"tables = {json.dumps(list(found.tables))}", f"{found.database}; add those that matter"))
    if found.migration:
        lines.append(_with_reason(f"migration = {_quoted(found.migration.value)}", found.migration.why))
    return [*lines, ""]


def _migrate(found: Recognised) -> list[str]:
    """Suggest the step, and leave it to people: their node may have something else migrate."""
    if not found.migrate:
        return []
    return [
        "# The node can migrate before it switches, while the release before goes on. The command must be on each",
        "# server, and what it does must suit both releases: add first, remove in a later one.",
        "# [migrate]",
        f"# command = {json.dumps(list(found.migrate))}",
        "# seconds = 600        # how long that may take",
        "# reversible = true    # false where the release before does not work with what it leaves",
        "",
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _with_reason(line: str, why: str) -> str:
    return f"{line}  # {printable(why)}"
