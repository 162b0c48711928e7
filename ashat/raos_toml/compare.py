"""What a release asks less of itself than the one before: every promise of raos.toml that became weaker; and what its
verification policy asks less of it.

Pure: two files in, plain lines out. A promise that is only another one (a changed status, another schema) is told too,
since nobody but a person can say whether it asks for less.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ashat.common.text import cut, printable
from ashat.raos_toml.schema import (
    Allow,
    AppSection,
    DatabaseSection,
    MigrateSection,
    OwnCheck,
    PerformanceSection,
    RaosSection,
    RaosToml,
    Request,
)
from ashat.verification.policy import Policy, in_current_names

TEXT_LIMIT = 80
_WILD = "*?["
# Of a verification policy; whether more of it asks for less.
_NUMBERS = {
    "max_slower_percent": True,
    "max_growth_percent": True,
    "max_error_rate": True,
    "min_free_connections": False,
    "certificate_days": False,
    "allow_days": True,
}

_SHOWN = 5


def weakened(old: RaosToml, new: RaosToml, changed_files: Collection[str] = ()) -> list[str]:
    """One line for each promise of `old` that `new` does not keep in full, in the order of the file.

    `changed_files` are the paths whose content differs between the two bundles; a schema among them is told. Where a
    promise of the old version's number is one of the new version's, nothing is weaker.
    """
    compared = _Compared(changed_files, old.raos.version, new.raos.version)
    return [
        *_urgent(old.raos, new.raos),
        *_barrier(old.raos, new.raos),
        *_command("app", old.app, new.app),
        *_migrate(old.migrate, new.migrate),
        *_health(old, new),
        *_modules(old, new),
        *_openapi(old.api.openapi, new.api.openapi),
        *_requests("endpoint", old.endpoints, new.endpoints, compared),
        *_requests("check", old.checks, new.checks, compared),
        *_kept(old, new, compared),
        *_database(old.database, new.database),
        *_performance(old.performance, new.performance),
        *_security(old, new),
    ]


@dataclass(frozen=True)
class _Compared:
    """What two releases are compared by: the files that changed, and the versions that they have."""

    changed_files: Collection[str]
    old_version: str
    new_version: str

    def same(self, old: Any, new: Any) -> bool:
        """Tell whether two values are equal, or differ only as the versions do."""
        return _same(old, new) or _same(self._renumbered(old), new)

    def kept(self, text: str, texts: Collection[str]) -> bool:
        """Tell whether `text` is among `texts`, as it is or with the new version's number."""
        return text in texts or self._renumbered(text) in texts

    def _renumbered(self, value: Any) -> Any:
        if isinstance(value, str) and len(self.old_version) > 1:
            for spell in (str, re.escape):
                there = re.compile(rf"(?<![\d.]){re.escape(spell(self.old_version))}(?!\d|\.\d)")
                value = there.sub(lambda _, spell=spell: spell(self.new_version), value)  # type: ignore[misc]
        elif isinstance(value, list):
            return [self._renumbered(each) for each in value]
        elif isinstance(value, Mapping):
            return {key: self._renumbered(each) for key, each in value.items()}
        return value


def _barrier(old: RaosSection, new: RaosSection) -> Iterator[str]:
    if new.installable_from is not None and (old.installable_from, old.version) != (new.installable_from, new.version):
        named = ", ".join(_plain(each) for each in new.installable_from[:_SHOWN])
        more = " …" if len(new.installable_from) > _SHOWN else ""
        yield f"[raos] installable_from is {named}{more}: Mainframes that run another version are offered nothing"


def _urgent(old: RaosSection, new: RaosSection) -> Iterator[str]:
    if new.is_urgent and old != new:
        yield (
            f"[raos] urgent is {_plain(new.version)}: Mainframes whose owners let that override their own rules switch "
            "at once, outside of their windows and unasked"
        )


def _migrate(old: MigrateSection | None, new: MigrateSection | None) -> Iterator[str]:
    if old is not None and new is None:
        yield "[migrate] is dropped: nothing is migrated before the switch"
    if new is not None and not new.reversible and (old is None or old.reversible):
        yield "[migrate] reversible is false: the release before may not work with what its migrate step leaves"
    yield from _command("migrate", old, new)


def _command(
    table: str, old: AppSection | MigrateSection | None, new: AppSection | MigrateSection | None
) -> Iterator[str]:
    """Another command is told: only a person can say whether it does the same."""
    if old is not None and new is not None and old.command != new.command:
        yield f"[{table}] command is {_shown(new.command)} instead of {_shown(old.command)}"


def _health(old: RaosToml, new: RaosToml) -> Iterator[str]:
    before, after = old.health, new.health
    if before.path != after.path:
        yield f"[health] path is {_plain(after.path)} instead of {_plain(before.path)}"
    if before.ready and not after.ready:
        yield "[health] ready is dropped"
    elif before.ready and before.ready != after.ready:
        yield f"[health] ready is {_plain(after.ready or '')} instead of {_plain(before.ready)}"
    if (before.expect, after.expect) == ("release", "status"):
        yield "[health] expect is status instead of release: the program need not say which release it is"
    if after.settle_seconds < before.settle_seconds:
        yield f"[health] settle_seconds is {after.settle_seconds:g} instead of {before.settle_seconds:g}"
    if after.start_seconds > before.start_seconds:
        yield f"[health] start_seconds is {after.start_seconds:g} instead of {before.start_seconds:g}"


def _modules(old: RaosToml, new: RaosToml) -> Iterator[str]:
    if new.modules.none is not None:
        yield from _none("modules", old.modules.none, new.modules.none)
        return
    if old.modules.none is None and old.modules.report != new.modules.report:
        yield f"[modules] report is {_plain(new.modules.report)} instead of {_plain(old.modules.report)}"
    before, after = old.modules.load_ms, new.modules.load_ms
    if before is not None and after is None:
        yield "[modules] load_ms is dropped"
    elif before is not None and after is not None and after > before:
        yield f"[modules] load_ms is {after} instead of {before}"


def _none(table: str, before: str | None, after: str) -> Iterator[str]:
    if before is None:
        yield f"[{table}] none is new, so nothing of it is looked at: {_shown(after)}"
    elif before != after:
        yield f"[{table}] none is {_shown(after)} instead of {_shown(before)}"


def _openapi(before: str | None, after: str | None) -> Iterator[str]:
    if before and not after:
        yield "[api] openapi is dropped"
    elif before and after and before != after:
        yield f"[api] openapi is {_plain(after)} instead of {_plain(before)}"


def _requests(table: str, old: Sequence[Request], new: Sequence[Request], compared: _Compared) -> Iterator[str]:
    """Each old request is held against its namesake; one that was renamed, against what asks the same no less."""
    for before in old:
        namesake = next((each for each in new if each.name == before.name), None)
        lines = list(_weaker(before, namesake, compared)) if namesake else ["is dropped"]
        if lines and any(not list(_weaker(before, each, compared)) for each in new):
            continue
        yield from (f"[[{table}]] {_shown(before.name)} {line}" for line in lines)


def _kept(old: RaosToml, new: RaosToml, compared: _Compared) -> Iterator[str]:
    """Another way to write or read a value is told: only a person can say whether as much is looked at."""
    now = {each.name: each for each in new.kept}
    for before in old.kept:
        after = now.get(before.name)
        if after is None:
            yield f"[[kept]] {_shown(before.name)} is dropped"
        elif not compared.same(before.model_dump(), after.model_dump()):
            yield f"[[kept]] {_shown(before.name)} is written or read in another way"


def _weaker(old: Request, new: Request, compared: _Compared) -> Iterator[str]:
    if old.method != new.method or not compared.same(old.path, new.path):
        yield f"asks {new.method} {new.path} instead of {old.method} {old.path}"
    if not compared.same(old.body, new.body):
        yield "sends another body"
    if old.auth != new.auth:
        yield f"is asked {_as(new.auth)} instead of {_as(old.auth)}"
    if old.status != new.status:
        yield f"expects status {new.status} instead of {old.status}"
    yield from _weaker_answer(old, new, compared)
    if new.time_limit > old.time_limit:
        yield f"has a time_limit of {new.time_limit:g} s instead of {old.time_limit:g}"
    if isinstance(old, OwnCheck) and isinstance(new, OwnCheck) and (old.severity, new.severity) == ("high", "medium"):
        yield "only warns: its severity is medium instead of high"


def _weaker_answer(old: Request, new: Request, compared: _Compared) -> Iterator[str]:
    headers = {name.lower(): value for name, value in new.headers.items()}
    for name, value in old.headers.items():
        if name.lower() not in headers:
            yield f"no longer expects the header {name}"
        elif not compared.same(value, headers[name.lower()]):
            yield f"expects another {name}: {_shown(headers[name.lower()])} instead of {_shown(value)}"
    yield from (
        f"no longer expects {_shown(text)} in the answer"
        for text in old.contains
        if not compared.kept(text, new.contains)
    )
    yield from (f"no longer matches {_shown(each)}" for each in old.matches if not compared.kept(each, new.matches))
    if old.expected_json is not None:
        yield from _weaker_json(old.expected_json, new.expected_json, "json", compared)
    if old.answer_schema is None:
        return
    if new.answer_schema is None:
        yield "has no schema any more"
    elif not compared.same(old.answer_schema, new.answer_schema) or _is_changed(
        old.answer_schema, compared.changed_files
    ):
        yield "has another schema"


def _weaker_json(old: Any, new: Any, where: str, compared: _Compared) -> Iterator[str]:
    if compared.same(old, new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in new:
                yield from _weaker_json(value, new[key], f"{where}.{key}", compared)
            else:
                yield f"no longer expects {_plain(f'{where}.{key}')}"
    elif new is None:
        yield f"no longer expects {_plain(where)}"
    else:
        yield f"expects {_plain(where)} to be {_shown(new)} instead of {_shown(old)}"


def _database(old: DatabaseSection | None, new: DatabaseSection | None) -> Iterator[str]:
    if new is not None and new.none is not None:
        yield from _none("database", old.none if old else None, new.none)
        return
    if old is None or old.none is not None:
        return
    if new is None:
        yield "[database] is dropped: nothing of the database is looked at"
        return
    dropped = [name for name in old.tables if name not in new.tables]
    if dropped:
        yield f"[database] tables no longer names {', '.join(map(_shown, dropped))}"
    if old.migration and not new.migration:
        yield "[database] migration is dropped"
    if old.migrations and old.migrations != new.migrations:
        now = f"is {_shown(new.migrations)} instead of {_shown(old.migrations)}" if new.migrations else "is dropped"
        yield f"[database] migrations {now}"
    if new.latency_ms > old.latency_ms:
        yield f"[database] latency_ms is {new.latency_ms} instead of {old.latency_ms}"


def _performance(old: PerformanceSection | None, new: PerformanceSection | None) -> Iterator[str]:
    if old is None:
        return
    if new is None:
        yield "[performance] is dropped: nothing is measured"
        return
    dropped = [path for path in old.paths if path not in new.paths]
    if dropped:
        yield f"[performance] paths no longer names {', '.join(map(_plain, dropped))}"
    for key, more_is_weaker in (
        ("requests", False),
        ("concurrency", False),
        ("p95_ms", True),
        ("error_rate", True),
        ("slower_percent", True),
    ):
        before, after = getattr(old, key), getattr(new, key)
        if after > before if more_is_weaker else after < before:
            yield f"[performance] {key} is {after} instead of {before}"


def _security(old: RaosToml, new: RaosToml) -> Iterator[str]:
    kept = {name.lower() for name in new.security.headers}
    for name in old.security.headers:
        if name.lower() not in kept:
            yield f"[security] headers no longer names {name}"
    for entry in new.security.allow:
        if not any(_covers(before, entry) for before in old.security.allow):
            known = [each.until for each in old.security.allow if (each.rule, each.path) == (entry.rule, entry.path)]
            until = f"until {entry.until.isoformat()}"
            what = f"{until} instead of {max(known).isoformat()}" if known else f"{until}, which was not allowed before"
            yield f"[[security.allow]] lets {entry.rule} at {_plain(entry.path)} pass {what}"


def _covers(before: Allow, entry: Allow) -> bool:
    """Whether `before` let pass all that `entry` lets pass, and as long."""
    wild = any(char in entry.path for char in _WILD)
    same = before.path == entry.path or (not wild and fnmatchcase(entry.path, before.path))
    return before.rule == entry.rule and same and entry.until <= before.until


def _is_changed(schema: str | Mapping[str, Any], changed_files: Collection[str]) -> bool:
    return isinstance(schema, str) and schema in changed_files


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, of the same type: 1, 1.0 and true are three."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _as(auth: str | None) -> str:
    return f"as {auth!r}" if auth else "by nobody in particular"


def _shown(value: Any) -> str:
    return _plain(json.dumps(value, ensure_ascii=False))


def _plain(text: str) -> str:
    flat = " ".join(printable(text).split())
    return cut(flat, TEXT_LIMIT)


def weakened_policy(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each way in which the verification policy `new` asks less than `old`, both as evidence has them.

    A key that a policy of another version lacks is as built in.
    """
    usual = Policy().model_dump(mode="json")
    before, after = ({**usual, **in_current_names(policy)} for policy in (old, new))
    lines = [
        f"{key}: {name}"
        for key in ("skips", "warns")
        for name in sorted(set(after[key]) - set(before[key]) - set(before["skips"]))
    ]
    if before["blocks_from"] == "medium" and after["blocks_from"] != "medium":
        lines.append(f"blocks_from is {after['blocks_from']} instead of medium")
    if before["advisories"] != "off" and after["advisories"] == "off":
        lines.append("advisories are off")
    lines += [
        f"{key} is off" for key in ("rehearses", "four_eyes", "requires_self_test") if before[key] and not after[key]
    ]
    if after["presign_rollback"] and not before["presign_rollback"]:
        lines.append("presign_rollback is on: a rollback needs no decision of its own")
    for key, more_is_weaker in _NUMBERS.items():
        if after[key] > before[key] if more_is_weaker else after[key] < before[key]:
            lines.append(f"{key} is {after[key]} instead of {before[key]}")
    return lines
