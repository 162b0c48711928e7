"""What a release asks less of itself: every loosening has its line, and nothing else has one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.errors import BundleError
from ashat.raos_toml.compare import weakened, weakened_policy
from ashat.raos_toml.load import load_commands, load_raos_toml
from ashat.raos_toml.schema import RaosToml
from ashat.rollouts.barriers import Release
from ashat.verification.policy import Policy

OLD = """
[raos]
name = "RaOS"
version = "1"

[health]
ready = "/ready"
start_seconds = 10
settle_seconds = 5

[modules]
load_ms = 500

[api]
openapi = "/openapi.json"

[[endpoint]]
name = "items"
path = "/items"
headers = { X-One = "1", X-Two = "2" }
contains = ["one", "two"]
matches = ['a+', 'b+']
json = { total = 2, page = { size = 10, items = [1, 2] } }
schema = "schemas/items.json"
auth = "staff"
time_limit = 3

[[endpoint]]
name = "stranger"
path = "/me"
status = 401
schema = { type = "object" }

[[check]]
name = "payments"
path = "/pay"
contains = "ready"

[database]
tables = ["accounts", "orders"]
migration = "0003"
migrations = "m/*.sql"
latency_ms = 200

[performance]
paths = ["/items", "/me"]
requests = 300
concurrency = 4
p95_ms = 250
error_rate = 1
slower_percent = 20

[security]
headers = ["X-Frame-Options", "Referrer-Policy"]

[[security.allow]]
rule = "secret"
path = "tests/*"
reason = "keys of the tests"
until = 2026-12-31
"""
ENDPOINT = '[[endpoint]] "items" '
DATABASE = OLD[OLD.index("[database]") : OLD.index("[performance]")]
PERFORMANCE = OLD[OLD.index("[performance]") : OLD.index("[security]")]
CHECK = OLD[OLD.index("[[check]]") : OLD.index("[database]")]
ALLOW = '\n[[security.allow]]\nrule = "{rule}"\npath = "{path}"\nreason = "for a good reason"\nuntil = {until}\n'

LOOSER: list[tuple[str, str, str]] = [
    ('ready = "/ready"\n', "", "[health] ready is dropped"),
    ('ready = "/ready"', 'ready = "/up"', "[health] ready is /up instead of /ready"),
    ('ready = "/ready"', 'path = "/"\nready = "/ready"', "[health] path is / instead of /health"),
    ("load_ms = 500", 'report = "/mods"\nload_ms = 500', "[modules] report is /mods instead of /modules"),
    ('openapi = "/openapi.json"', 'openapi = "/v1.json"', "[api] openapi is /v1.json instead of /openapi.json"),
    ("settle_seconds = 5", "settle_seconds = 4", "[health] settle_seconds is 4 instead of 5"),
    ("settle_seconds = 5\n", "", "[health] settle_seconds is 3 instead of 5"),
    ("start_seconds = 10", "start_seconds = 20", "[health] start_seconds is 20 instead of 10"),
    ("load_ms = 500\n", "", "[modules] load_ms is dropped"),
    ("load_ms = 500", 'none = "one file"', '[modules] none is new, so nothing of it is looked at: "one file"'),
    (
        DATABASE,
        '[database]\nnone = "all in memory"\n',
        '[database] none is new, so nothing of it is looked at: "all in memory"',
    ),
    (
        'ready = "/ready"',
        'expect = "status"\nready = "/ready"',
        "[health] expect is status instead of release: the program need not say which release it is",
    ),
    ("load_ms = 500", "load_ms = 501", "[modules] load_ms is 501 instead of 500"),
    ('[api]\nopenapi = "/openapi.json"\n', "", "[api] openapi is dropped"),
    ('path = "/items"\nheaders', 'path = "/all"\nheaders', ENDPOINT + "asks GET /all instead of GET /items"),
    ('path = "/items"\n', 'path = "/items"\nmethod = "HEAD"\n', ENDPOINT + "asks HEAD /items instead of GET /items"),
    ('path = "/items"\n', 'path = "/items"\nbody = { a = 1 }\n', ENDPOINT + "sends another body"),
    ('auth = "staff"\n', "", ENDPOINT + "is asked by nobody in particular instead of as 'staff'"),
    ('path = "/items"\n', 'path = "/items"\nstatus = 204\n', ENDPOINT + "expects status 204 instead of 200"),
    (', X-Two = "2"', "", ENDPOINT + "no longer expects the header X-Two"),
    ('X-Two = "2"', 'X-Two = "3"', ENDPOINT + 'expects another X-Two: "3" instead of "2"'),
    ('contains = ["one", "two"]', 'contains = "two"', ENDPOINT + 'no longer expects "one" in the answer'),
    ("matches = ['a+', 'b+']", "matches = ['a*', 'b+']", ENDPOINT + 'no longer matches "a+"'),
    ("total = 2, ", "", ENDPOINT + "no longer expects json.total"),
    ("size = 10, ", "", ENDPOINT + "no longer expects json.page.size"),
    ("total = 2", "total = true", ENDPOINT + "expects json.total to be true instead of 2"),
    ("items = [1, 2]", "items = [1]", ENDPOINT + "expects json.page.items to be [1] instead of [1, 2]"),
    ("json = { total = 2, page = { size = 10, items = [1, 2] } }\n", "", ENDPOINT + "no longer expects json"),
    ('schema = "schemas/items.json"\n', "", ENDPOINT + "has no schema any more"),
    ('"schemas/items.json"', '"schemas/other.json"', ENDPOINT + "has another schema"),
    ('{ type = "object" }', "{}", '[[endpoint]] "stranger" has another schema'),
    ("time_limit = 3", "time_limit = 4", ENDPOINT + "has a time_limit of 4 s instead of 3"),
    ("time_limit = 3\n", "", ENDPOINT + "has a time_limit of 5 s instead of 3"),
    ("status = 401", "status = 200", '[[endpoint]] "stranger" expects status 200 instead of 401'),
    ('name = "stranger"\npath = "/me"', 'name = "guest"\npath = "/you"', '[[endpoint]] "stranger" is dropped'),
    (CHECK, "", '[[check]] "payments" is dropped'),
    ('contains = "ready"\n', "", '[[check]] "payments" no longer expects "ready" in the answer'),
    (
        'name = "payments"\n',
        'name = "payments"\nseverity = "medium"\n',
        '[[check]] "payments" only warns: its severity is medium instead of high',
    ),
    (DATABASE, "", "[database] is dropped: nothing of the database is looked at"),
    ('tables = ["accounts", "orders"]', "tables = []", '[database] tables no longer names "accounts", "orders"'),
    ('migration = "0003"\n', "", "[database] migration is dropped"),
    ('migrations = "m/*.sql"\n', "", "[database] migrations is dropped"),
    ('"m/*.sql"', '"m/0*.sql"', '[database] migrations is "m/0*.sql" instead of "m/*.sql"'),
    ("latency_ms = 200", "latency_ms = 201", "[database] latency_ms is 201 instead of 200"),
    (PERFORMANCE, "", "[performance] is dropped: nothing is measured"),
    ('paths = ["/items", "/me"]', 'paths = ["/items"]', "[performance] paths no longer names /me"),
    ("requests = 300", "requests = 299", "[performance] requests is 299 instead of 300"),
    ("concurrency = 4", "concurrency = 3", "[performance] concurrency is 3 instead of 4"),
    ("p95_ms = 250", "p95_ms = 251", "[performance] p95_ms is 251 instead of 250"),
    ("error_rate = 1", "error_rate = 2", "[performance] error_rate is 2 instead of 1"),
    ("slower_percent = 20", "slower_percent = 30", "[performance] slower_percent is 30 instead of 20"),
    ('"X-Frame-Options", ', "", "[security] headers no longer names X-Frame-Options"),
    (
        "until = 2026-12-31",
        "until = 2027-01-01",
        "[[security.allow]] lets secret at tests/* pass until 2027-01-01 instead of 2026-12-31",
    ),
    (
        'path = "tests/*"',
        'path = "*"',
        "[[security.allow]] lets secret at * pass until 2026-12-31, which was not allowed before",
    ),
    (
        "until = 2026-12-31\n",
        "until = 2026-12-31\n" + ALLOW.format(rule="header", path="CSP", until="2026-01-31"),
        "[[security.allow]] lets header at CSP pass until 2026-01-31, which was not allowed before",
    ),
]

NOT_LOOSER: list[tuple[str, str]] = [
    ('name = "items"', 'name = "All the items"'),
    ('"X-Frame-Options", "Referrer-Policy"', '"referrer-policy", "x-frame-options", "X-More"'),
    ('{ X-One = "1", X-Two = "2" }', '{ x-two = "2", X-One = "1" }'),
    ('migration = "0003"', 'migration = "0004"'),
    ("until = 2026-12-31", "until = 2026-06-30"),
    (
        "until = 2026-12-31\n",
        "until = 2026-12-31\n" + ALLOW.format(rule="secret", path="tests/key.py", until="2026-12-31"),
    ),
    ("[database]", '[[check]]\nname = "more"\npath = "/more"\nseverity = "medium"\n\n[database]'),
]


def read(text: str) -> RaosToml:
    return load_raos_toml(text.encode("utf-8"))


@pytest.mark.parametrize("table", ["modules", "database"])
def test_what_is_not_there_is_told_when_it_is_new_or_has_another_reason(table: str) -> None:
    least = '[raos]\nname = "RaOS"\nversion = "1"\n'
    none = read(f'{least}[{table}]\nnone = "for a reason"\n')
    assert weakened(none, none) == []
    assert weakened(none, read(least)) == []
    assert weakened(read(least), none) == [f'[{table}] none is new, so nothing of it is looked at: "for a reason"']
    other = read(f'{least}[{table}]\nnone = "for another"\n')
    assert weakened(none, other) == [f'[{table}] none is "for another" instead of "for a reason"']


def changed(old: str, new: str) -> RaosToml:
    assert old in OLD
    return read(OLD.replace(old, new, 1))


@pytest.mark.parametrize(("old", "new", "line"), LOOSER, ids=[line for *_, line in LOOSER])
def test_a_loosening_has_its_line(old: str, new: str, line: str) -> None:
    assert weakened(read(OLD), changed(old, new)) == [line]


@pytest.mark.parametrize(("old", "new"), NOT_LOOSER)
def test_what_asks_no_less_has_none(old: str, new: str) -> None:
    assert weakened(read(OLD), changed(old, new)) == []


VERSIONED = """
[raos]
name = "RaOS"
version = "9.4.1"

[[endpoint]]
name = "core"
path = "/v9.4.1/status"
headers = { X-Version = "9.4.1", X-Other = "19.4.1" }
contains = ["RaOS 9.4.1", "lib 9.4.10"]
matches = ['version 9\\.4\\.1\\b']
json = { version = "9.4.1", parts = ["core 9.4.1"], total = 2 }
"""


def test_a_number_that_changed_with_the_version_has_no_line() -> None:
    newer = VERSIONED.replace("9.4.1", "9.5.0").replace("19.5.0", "19.4.1").replace("9.5.00", "9.4.10")
    newer = newer.replace("9\\.4\\.1", "9\\.5\\.0")
    old = load_raos_toml(VERSIONED.encode())
    assert weakened(old, load_raos_toml(newer.encode())) == []
    for part, other in (('X-Version = "9.5.0', 'X-Version = "9.9'), ("RaOS 9.5.0", "RaOS"), ("total = 2", "total = 3")):
        assert part in newer
        assert len(weakened(old, load_raos_toml(newer.replace(part, other).encode()))) == 1, part
    assert weakened(old, load_raos_toml(newer.replace('version = "9.5.0"\n', 'version = "9.4.1"\n').encode()))


def test_a_schema_whose_file_changed_is_told() -> None:
    assert weakened(read(OLD), read(OLD), {"schemas/items.json"}) == [ENDPOINT + "has another schema"]
    assert weakened(read(OLD), read(OLD), {"schemas/other.json"}) == []


def test_several_are_told_in_the_order_of_the_file() -> None:
    least = read('[raos]\nname = "RaOS"\nversion = "2"\n')
    lines = weakened(read(OLD), least)
    tables = ["[health]", "[health]", "[health]", "[modules]", "[api]", "[[endpoint]]", "[[endpoint]]", "[[check]]"]
    tables += ["[database]", "[performance]", "[security]", "[security]"]
    assert [line.split()[0] for line in lines] == tables
    assert weakened(least, read(OLD[: OLD.index("[[security.allow]]")])) == []


def test_what_a_release_writes_stays_on_its_line() -> None:
    text = OLD.replace('"one", "two"', '"one\\n\\u202E# two", "two"')
    (line,) = weakened(read(text), read(text.replace('"one\\n\\u202E# two", ', "")))
    assert line == ENDPOINT + r'no longer expects "one\n\u202e# two" in the answer'
    long = OLD.replace('"one"', '"' + "x" * 5000 + '"')
    (line,) = weakened(read(long), changed('"one", ', ""))
    assert len(line) < 200


WORDS = st.sampled_from(["a", "b", "c", "d"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=5,
)


@st.composite
def requests(draw: st.DrawFn, names: list[str], own: bool) -> list[dict[str, Any]]:
    found = []
    for name in names:
        request: dict[str, Any] = {
            "name": name,
            "method": draw(st.sampled_from(["GET", "POST"])),
            "path": "/" + draw(WORDS),
            "status": draw(st.sampled_from([200, 404])),
            "headers": draw(st.dictionaries(st.sampled_from(["X-A", "X-B"]), WORDS)),
            "contains": draw(st.lists(WORDS, max_size=3)),
            "matches": draw(st.lists(WORDS, max_size=2)),
            "time_limit": draw(st.integers(1, 9)),
        }
        for key, values in (
            ("json", JSON),
            ("schema", st.just("s.json") | st.just({})),
            ("auth", WORDS),
            ("body", JSON),
        ):
            if draw(st.booleans()):
                request[key] = draw(values)
        if own:
            request["severity"] = draw(st.sampled_from(["high", "medium"]))
        found.append(request)
    return found


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    small = st.integers(1, 9)
    file: dict[str, Any] = {
        "raos": {"name": "RaOS", "version": "1"},
        "health": {"settle_seconds": draw(small), "start_seconds": draw(small)},
        "modules": {},
        "api": {},
        "endpoint": draw(requests(draw(st.lists(WORDS, unique=True, max_size=3)), own=False)),
        "check": draw(requests(draw(st.lists(WORDS, unique=True, max_size=2)), own=True)),
        "security": {
            "headers": draw(st.lists(st.sampled_from(["X-A", "X-B"]), unique=True)),
            "allow": [
                {"rule": rule, "path": path, "reason": "for a reason", "until": date(2026, 1, day)}
                for rule, path, day in draw(st.lists(st.tuples(WORDS, st.sampled_from("a*"), small), max_size=3))
            ],
        },
    }
    if draw(st.booleans()):
        file["health"]["ready"] = "/ready"
    if draw(st.booleans()):
        file["modules"]["load_ms"] = draw(small)
    if draw(st.booleans()):
        file["api"]["openapi"] = "/o"
    if draw(st.booleans()):
        file["database"] = {"tables": draw(st.lists(WORDS, unique=True)), "latency_ms": draw(small)}
        if draw(st.booleans()):
            file["database"]["migration"] = "1"
        if draw(st.booleans()):
            file["database"]["migrations"] = "m/*"
    if draw(st.booleans()):
        file["performance"] = {
            "paths": ["/" + word for word in draw(st.lists(WORDS, unique=True, min_size=1))],
            "requests": 20 + draw(small),
            "concurrency": 1 + draw(small),
            "p95_ms": 1 + draw(small),
            "error_rate": draw(small),
            "slower_percent": 5 + draw(small),
        }
    return file


def _request(where: str, change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def apply(file: dict[str, Any]) -> None:
        for request in file[where]:
            change(request)

    return apply


def _stricter_json(request: dict[str, Any]) -> None:
    if request.get("json") is None:
        request["json"] = {"new": 1}
    elif isinstance(request["json"], dict):
        request["json"]["new"] = {"deep": [1]}


def _table(
    name: str, table: dict[str, Any], change: Callable[[dict[str, Any]], Any]
) -> Callable[[dict[str, Any]], None]:
    def apply(file: dict[str, Any]) -> None:
        if name in file:
            change(file[name])
        else:
            file[name] = copy.deepcopy(table)

    return apply


def _append(table: dict[str, Any], key: str) -> None:
    table.setdefault(key, []).append("new")


def _sooner(file: dict[str, Any]) -> None:
    for entry in file["security"]["allow"]:
        entry["until"] -= timedelta(days=1)


BUDGETS = {"paths": ["/new"], "p95_ms": 1}
STRICTER: dict[str, Callable[[dict[str, Any]], None]] = {
    "settle": lambda file: file["health"].update(settle_seconds=file["health"]["settle_seconds"] + 1),
    "start": lambda file: file["health"].update(start_seconds=file["health"]["start_seconds"] / 2),
    "ready": lambda file: file["health"].setdefault("ready", "/ready"),
    "load": lambda file: file["modules"].update(load_ms=1),
    "openapi": lambda file: file["api"].setdefault("openapi", "/o"),
    "endpoint": lambda file: file["endpoint"].append({"name": "new", "path": "/new"}),
    "check": lambda file: file["check"].append({"name": "new", "path": "/new"}),
    "contains": _request("endpoint", lambda request: _append(request, "contains")),
    "matches": _request("check", lambda request: _append(request, "matches")),
    "headers": _request("endpoint", lambda request: request.setdefault("headers", {}).update({"X-New": "1"})),
    "json": _request("endpoint", _stricter_json),
    "schema": _request("check", lambda request: request.setdefault("schema", "new.json")),
    "time_limit": _request("endpoint", lambda request: request.update(time_limit=0.5)),
    "severity": _request("check", lambda request: request.update(severity="high")),
    "tables": _table("database", {}, lambda table: _append(table, "tables")),
    "migration": _table("database", {}, lambda table: table.update(migration="2")),
    "migrations": _table("database", {}, lambda table: table.setdefault("migrations", "m/*")),
    "latency": _table("database", {}, lambda table: table.update(latency_ms=1)),
    "paths": _table("performance", BUDGETS, lambda table: table["paths"].append("/new")),
    "requests": _table("performance", BUDGETS, lambda table: table.update(requests=100)),
    "concurrency": _table("performance", BUDGETS, lambda table: table.update(concurrency=32)),
    "p95": _table("performance", BUDGETS, lambda table: table.update(p95_ms=1)),
    "errors": _table("performance", BUDGETS, lambda table: table.update(error_rate=0)),
    "slower": _table("performance", BUDGETS, lambda table: table.update(slower_percent=5)),
    "required": lambda file: file["security"]["headers"].append("X-New"),
    "allow": lambda file: file["security"]["allow"].clear(),
    "sooner": _sooner,
}


@given(files())
def test_a_file_is_never_looser_than_itself(file: dict[str, Any]) -> None:
    assert weakened(RaosToml.model_validate(file), RaosToml.model_validate(copy.deepcopy(file))) == []


@given(files(), st.lists(st.sampled_from(sorted(STRICTER)), unique=True, min_size=1))
def test_tightening_has_no_line_and_undoing_it_has(file: dict[str, Any], names: list[str]) -> None:
    stricter = copy.deepcopy(file)
    for name in names:
        STRICTER[name](stricter)
    old, new = RaosToml.model_validate(file), RaosToml.model_validate(stricter)
    assert weakened(old, new) == []
    always = {"settle", "start", "endpoint", "check", "required"}
    if always & set(names):
        assert weakened(new, old)


def test_the_sample_is_read() -> None:
    sample = read((Path(__file__).parents[3] / "examples" / "raos" / "raos.toml").read_text(encoding="utf-8"))
    assert weakened(sample, sample) == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {}, []),
        ({}, {"warns": ["api"], "skips": ["database"]}, ["skips: database", "warns: api"]),
        ({"skips": ["api"]}, {"warns": ["api"]}, []),
        ({"warns": ["api"]}, {"skips": ["api"]}, ["skips: api"]),
        ({"blocks_from": "medium"}, {}, ["blocks_from is high instead of medium"]),
        ({}, {"advisories": "off"}, ["advisories are off"]),
        ({"advisories": "off"}, {"advisories": "file"}, []),
        ({"four_eyes": True}, {}, ["four_eyes is off"]),
        ({"max_slower_percent": 20}, {}, ["max_slower_percent is 1000 instead of 20"]),
        ({}, {"max_error_rate": 1, "min_free_connections": 4, "certificate_days": 15, "allow_days": 30}, []),
        (
            {"max_error_rate": 1},
            {"min_free_connections": 2, "certificate_days": 7, "allow_days": 400},
            [
                "max_error_rate is 1000 instead of 1",
                "min_free_connections is 2 instead of 3",
                "certificate_days is 7 instead of 14",
                "allow_days is 400 instead of 366",
            ],
        ),
        ({}, {"four_eyes": True}, []),
        ({}, {"rehearses": False, "requires_self_test": False}, ["rehearses is off", "requires_self_test is off"]),
    ],
)
def test_what_a_policy_asks_less_has_a_line(before: dict[str, Any], after: dict[str, Any], told: list[str]) -> None:
    old, new = (Policy.model_validate(given).model_dump(mode="json") for given in (before, after))
    assert weakened_policy(old, new) == told
    if not old["four_eyes"]:
        old.pop("four_eyes")
    assert weakened_policy(old, new) == told, "a policy from before a key was known"


def test_what_a_node_runs_of_the_release_is_told_when_it_is_another() -> None:
    def release(text: str) -> RaosToml:
        return load_raos_toml(f"[raos]\nname = 'a'\nversion = '1'\n{text}".encode())

    plain = release("")
    first = release("[app]\ncommand = ['a']\n[migrate]\ncommand = ['m']")
    other = release("[app]\ncommand = ['b']\n[migrate]\ncommand = ['n']\nreversible = false")
    gone = "[migrate] reversible is false: the release before may not work with what its migrate step leaves"
    assert weakened(plain, first) == weakened(first, first) == weakened(other, other) == []
    assert weakened(plain, other) == [gone]
    assert weakened(first, other) == [
        '[app] command is ["b"] instead of ["a"]',
        gone,
        '[migrate] command is ["n"] instead of ["m"]',
    ]
    assert weakened(other, plain) == ["[migrate] is dropped: nothing is migrated before the switch"]


KEPT = '[[kept]]\nname = "note"\npath = "/notes"\nbody = { text = "{value}" }\nread = "/notes"\n'


def test_a_kept_value_that_is_dropped_or_kept_otherwise_is_told() -> None:
    plain = load_raos_toml(OLD.encode())
    old = load_raos_toml((OLD + KEPT).encode())
    assert weakened(old, plain) == ['[[kept]] "note" is dropped']
    other = load_raos_toml((OLD + KEPT.replace('read = "/notes"', 'read = "/empty"')).encode())
    assert weakened(old, other) == ['[[kept]] "note" is written or read in another way']
    assert weakened(plain, old) == weakened(old, old) == []


def test_a_kept_value_has_a_place_where_it_is_written() -> None:
    load_raos_toml(
        (OLD + KEPT.replace('body = { text = "{value}" }', 'method = "PUT"').replace("/notes", "/n/{value}")).encode()
    )
    with pytest.raises(BundleError, match=r"neither body nor path holds \{value\}"):
        load_raos_toml((OLD + KEPT.replace("{value}", "x")).encode())
    with pytest.raises(BundleError, match="another kept is named 'note' already"):
        load_raos_toml((OLD + KEPT + KEPT).encode())


def test_an_urgent_release_is_told_and_a_mark_of_another_version_is_not() -> None:
    def release(version: str, urgent: str) -> RaosToml:
        return load_raos_toml(f'[raos]\nname = "RaOS"\nversion = "{version}"\nurgent = "{urgent}"\n'.encode())

    (line,) = weakened(release("1", "0"), release("2", "2"))
    assert line.startswith("[raos] urgent is 2: Mainframes whose owners let that override")
    assert weakened(release("2", "2"), release("3", "2")) == []
    assert weakened(release("2", "2"), release("2", "2")) == []


@pytest.mark.parametrize(
    ("said", "urgent"),
    [
        ('[raos]\nversion = "2"\nurgent = "2"', True),
        ('[raos]\nversion = "2"\nurgent = "1"', False),
        ('[raos]\nversion = "2"', False),
        ('raos = "2"', False),
        ("[raos]\nversion = 2\nurgent = 2\nother = true", False),
        ("", False),
    ],
)
def test_a_node_reads_no_more_of_the_mark_than_whether_it_is_of_this_version(said: str, urgent: bool) -> None:
    assert load_commands(said.encode()).is_urgent is urgent


def test_from_which_versions_it_can_be_installed_is_read_and_told() -> None:
    def text(version: str, origins: str) -> bytes:
        return f'[raos]\nname = "RaOS"\nversion = "{version}"\n{origins}\n'.encode()

    old, new = load_raos_toml(text("1", "")), load_raos_toml(text("2", 'installable_from = ["1", "1.5"]'))
    (line,) = weakened(old, new)
    assert line == "[raos] installable_from is 1, 1.5: Mainframes that run another version are offered nothing"
    assert weakened(new, new) == []
    assert weakened(new, old) == []
    for bad, why in (("[]", "installable_from"), ('["2"]', "this version itself"), ("2", "list"), ('[""]', "1 to 128")):
        with pytest.raises(BundleError, match=why):
            load_raos_toml(text("2", f"installable_from = {bad}"))
    assert load_commands(text("2", 'installable_from = ["1"]')).release == Release("2", frozenset({"1"}))
    assert load_commands(text("2", "")).release == Release("2")
    assert load_commands(b"").release == Release("")
    for bad in ("[]", '"1"', "[1]", str([str(n) for n in range(101)]).replace("'", '"')):
        with pytest.raises(ValueError, match="no list of versions"):
            load_commands(text("2", f"installable_from = {bad}")).release  # noqa: B018
