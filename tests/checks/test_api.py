"""The API check and a release's own checks: patterns, schemas, credentials, OpenAPI, and endpoints that are gone."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ashat.raos_toml.load import load_raos_toml
from tasks.checks import CheckResult, checks_for, run_check
from tasks.checks.api import ApiCheck
from tasks.checks.kit.assertions import HIDDEN, differences, hiding
from tasks.checks.kit.base import KIND_LIMIT
from tasks.checks.kit.openapi import Document, UnreadableError
from tasks.checks.kit.removed_endpoints import label, note_answered
from tasks.checks.kit.samples import Rehearsal
from tasks.checks.kit.schema_sandbox import SandboxError, SchemaSandbox
from tests.checks.test_sample import SAMPLE
from tests.support.fakes.scripted_program import LEAST, Program, Reply, context_of, replying

SECRET = "Bearer t0ps3cret-value"
A = '[[endpoint]]\nname = "a"\npath = "/a"\n'


def api(replies: dict[str, Reply], toml: str, files: dict[str, str] | None = None, **more: Any) -> CheckResult:
    with replying(replies) as program:
        return run_check(ApiCheck(), context_of(program, toml, files, **more))


def texts(result: CheckResult, severity: str = "high") -> list[str]:
    return [finding.text for finding in result.findings if finding.severity == severity]


def test_a_pattern_is_found_anywhere_in_the_text() -> None:
    replies = {"GET /a": Reply(b"one\ntwo 22\n")}
    assert api(replies, A + r"matches = ['two \d+', '(?m)^one$']").outcome == "pass"
    assert texts(api(replies, A + r"matches = ['two \d+', 'three']")) == [
        "a (GET /a): the answer does not match 'three'"
    ]


def test_a_pattern_that_never_ends_is_ended_and_the_others_are_still_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.checks.kit.schema_sandbox.SECONDS", 0.2)
    started = time.monotonic()
    result = api({"GET /a": Reply(b"a" * 5000 + b"b")}, A + "matches = ['^(a+)+$', 'c', 'b$']")
    assert time.monotonic() - started < 30
    assert texts(result) == [
        "a (GET /a): the expression '^(a+)+$' cannot be held against the answer: "
        "it takes more than 0.2 s on this answer: simplify it",
        "a (GET /a): the answer does not match 'c'",
    ]


SCHEMA = """
[endpoint.schema]
type = "object"
required = ["id"]
[endpoint.schema.properties]
id = { type = "integer", minimum = 1 }
at = { type = "string", format = "date-time" }
"""


HELD: list[tuple[Any, str]] = [
    ({"id": 1, "more": True}, ""),
    ({"id": "1"}, "json.id breaks the schema: \"1\" is not of type 'integer'"),
    ({}, "json breaks the schema: 'id' is a required property"),
    ([1], "json breaks the schema: [1] is not of type 'object'"),
    ({"id": 0}, "json.id breaks the schema: 0 is less than the minimum of 1"),
    ({"id": 1, "at": "May"}, "json.at breaks the schema: \"May\" is not a 'date-time'"),
    (b"{", "the answer is no valid JSON"),
    (b'{"id": "\xff"}', "the answer is not UTF-8 at byte 8"),
]


def test_an_answer_is_held_against_a_schema_in_the_file() -> None:
    replies = {f"GET /{number}": Reply(body) for number, (body, _) in enumerate(HELD)}
    toml = "".join(f'[[endpoint]]\nname = "{n}"\npath = "/{n}"\n{SCHEMA}' for n in range(len(HELD)))
    found = texts(api(replies, toml))
    assert len(found) == len(HELD) - 1
    for number, (_, said) in enumerate(HELD):
        told = [text for text in found if text.startswith(f"{number} (GET /{number}): {said}")]
        assert bool(told) == bool(said), (number, found)


def test_a_schema_of_the_bundle_may_refer_to_its_neighbours() -> None:
    files = {
        "schemas/list.json": '{"type": "array", "items": {"$ref": "parts/item.json#/$defs/item"}}',
        "schemas/parts/item.json": '{"$defs": {"item": {"$ref": "../word.json"}}}',
        "schemas/word.json": '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}',
    }
    toml = A + 'schema = "schemas/list.json"\n'
    assert api({"GET /a": Reply(["x"])}, toml, files).outcome == "pass"
    result = api({"GET /a": Reply(["x", 2])}, toml, files)
    assert texts(result) == ["a (GET /a): json[1] breaks the schema: 2 is not of type 'string'"]


def test_a_schema_elsewhere_is_never_fetched() -> None:
    with replying({"GET /s.json": Reply({"type": "object"}), "GET /a": Reply({})}) as program:
        toml = A + f'schema = {{ "$ref" = "{program.url}/s.json" }}\n'
        result = run_check(ApiCheck(), context_of(program, toml))
        assert [what for what, _ in program.asked] == ["GET /openapi.json", "GET /a"]
    assert f"it refers to {program.url}/s.json, and nothing is fetched" in texts(result)[0]


def test_patterns_take_no_more_time_than_the_check_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.checks.kit.schema_sandbox.SECONDS", 0.4)
    endless = ", ".join(f"'^(a+)+${number}'" for number in range(50))
    with replying({"GET /a": Reply(b"a" * 5000 + b"b")}) as program:
        began = time.monotonic()
        result = run_check(ApiCheck(), context_of(program, f"{A}matches = [{endless}]\n", time_limit=2))
        assert time.monotonic() - began < 4
    assert (result.outcome, "endpoints were not asked: it did not end within its 2 s" in result.seen) == ("fail", True)


def test_a_hundred_mistakes_are_told_in_a_few_lines() -> None:
    result = api({"GET /a": Reply([{"x": "y" * 1000}] * 100)}, A + 'schema = { items = { type = "integer" } }\n')
    assert len(result.findings) == 4
    assert all(len(text) < 400 for text in texts(result))
    assert "more places" in texts(result)[-1]


HOSTILE: list[tuple[dict[str, Any], Any]] = [
    ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 60 + "b"}),
    ({"additionalProperties": False, "patternProperties": {"^(a+)+$": True}}, {"a" * 60 + "b": 1}),
    ({"uniqueItems": True}, [{"n": n} for n in range(20_000)]),
    ({"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 10} for n in range(12)} | {"d12": {}}}, {}),
    ({"$ref": "#"}, {}),
]


@pytest.mark.parametrize(("schema", "instance"), HOSTILE, ids=["pattern", "names", "unique", "tree", "circle"])
def test_a_schema_that_never_ends_costs_no_more_than_the_limit(
    schema: dict[str, Any], instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.checks.kit.schema_sandbox.SECONDS", 0.3)
    schema = {**schema, "$ref": "#/$defs/d0"} if "$defs" in schema else schema
    with SchemaSandbox(lambda path: b"") as sandbox:
        with pytest.raises(SandboxError, match=r"takes more than 0\.3 s|without end"):
            sandbox.validate(sandbox.schema(schema), json.dumps(instance))
        assert sandbox.validate(sandbox.schema({"type": "object"}), "{}") == ([], 0)


def test_a_credential_is_sent_and_never_told() -> None:
    token = SECRET.partition(" ")[2]
    replies = {
        "GET /a": Reply({"you": "ECHO", "id": "ECHO"}, echoes=True, headers={"X-Who": "ECHO"}),
        "GET /b": Reply(b"", 302, {"Location": f"/login?token={token}"}),
    }
    toml = (
        A + 'auth = "staff"\nheaders = { X-Who = "me" }\njson = { you = "me" }\n'
        'schema = { properties = { id = { enum = ["kim"] } } }\n'
        '[[endpoint]]\nname = "b"\npath = "/b"\nauth = "staff"\n'
    )
    with replying(replies) as program:
        context = context_of(program, toml, credentials={"staff": SECRET, "other": "x"})
        result = run_check(ApiCheck(), context)
        assert [sent for what, sent in program.asked] == [None, SECRET, SECRET]
    assert texts(result) == [
        f"a (GET /a): X-Who is '{HIDDEN}' instead of 'me'",
        f'a (GET /a): json.you is "{HIDDEN}" instead of "me"',
        f"a (GET /a): json.id breaks the schema: \"{HIDDEN}\" is not one of ['kim']",
        f"b (GET /b): status 302, a redirect to /login?token={HIDDEN} instead of 200",
    ]
    assert token not in json.dumps(result.as_json()) + repr(context)
    assert result.inputs["credentials"] == ["staff"]


@pytest.mark.parametrize("length", [40, 700, 3000])
def test_a_credential_is_hidden_before_anything_is_cut(length: int) -> None:
    token = "eyJ" + "".join(chr(ord("a") + n % 26) for n in range(length))
    body = {"a": "ECHO", "b": "ECHO", "c": "ECHO", "d": {"ECHO": 1}}
    toml = A + 'auth = "staff"\njson = { d = 1 }\nschema = { type = "array", properties = { d = false } }\n'
    document = {"openapi": "3.1.0", "paths": {"/a": {"get": {"responses": {"200": {"content": {"text/plain": {}}}}}}}}
    replies = {"GET /a": Reply(body, echoes=True), "GET /openapi.json": Reply(document)}
    for headers in ({}, {"Content-Type": "x/ECHO"}):
        replies["GET /a"] = Reply(body, echoes=True, headers=headers)
        result = api(replies, toml, credentials={"staff": f"Bearer {token}"})
        assert len(result.findings) == 4
        assert "eyJ" not in json.dumps(result.as_json()).replace(HIDDEN, "")


def test_the_gravest_findings_come_first_and_the_rest_of_their_kind_is_counted() -> None:
    toml = "".join(f'[[endpoint]]\nname = "{n}"\npath = "/{n}"\n' for n in range(60))
    replies = {f"GET /{n}": Reply({}, 500 if n == 59 else 200) for n in range(60)}
    result = api({"GET /openapi.json": Reply({"openapi": "3.1.0"}), **replies}, toml)
    assert texts(result) == ["59 (GET /59): status 500 instead of 200"]
    assert len(result.findings) == KIND_LIMIT + 2
    assert (result.findings[-1].text, result.findings[-1].count) == ("9 more are left out here", 9)


@pytest.mark.parametrize("value", [None, "", "Bearer a\nX-Evil: 1", "Bearer é", " Bearer a "])
def test_a_credential_that_is_missing_or_no_header_says_where_it_is_set(value: str | None) -> None:
    credentials = {} if value is None else {"staff": value}
    with replying({"GET /a": Reply({})}) as program:
        result = run_check(ApiCheck(), context_of(program, A + 'auth = "staff"\n', credentials=credentials))
        assert ("GET /a", None) not in program.asked
    assert result.outcome == "fail"
    assert re.search(r"credential 'staff'.*block RaOS Verification Policy, field Credentials$", result.seen)
    assert not value or value.strip() not in result.seen


def test_what_is_hidden_is_hidden_in_every_form() -> None:
    basic = "Basic " + base64.b64encode(b"kim:correct horse").decode()
    hide = hiding([SECRET, basic, 'Key a"b\\c%d', "ab"])
    shown = hide(
        f"{SECRET} {SECRET.partition(' ')[2]} {basic} kim:correct horse correct%20horse "
        + json.dumps('a"b\\c%d')
        + " a%22b%5Cc%25d ab"
    )
    for part in ("t0ps3cret", "correct", basic.partition(" ")[2], "b\\", "%5C"):
        assert part not in shown
    assert shown.endswith(" ab")


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "x", "version": "1"},
    "servers": [{"url": "https://example.com/{base}/", "variables": {"base": {"default": "v1"}}}],
    "paths": {
        "/items/{id}": {
            "parameters": [],
            "get": {
                "responses": {
                    "200": {
                        "description": "",
                        "headers": {"X-Rate": {"required": True}},
                        "content": {"application/json; charset=utf-8": {"schema": {"$ref": "#/components/schemas/It"}}},
                    },
                    "4XX": {"$ref": "#/components/responses/No"},
                }
            },
        },
        "/items/all": {"get": {"responses": {"default": {"description": "", "content": {"text/*": {}}}}}},
        "/alias": {"$ref": "#/paths/~1items~1%7Bid%7D"},
        "/broken": {"get": {"responses": {"200": {"$ref": "#/components/responses/Gone"}}}},
        "/circle": {"$ref": "#/paths/~1circle"},
        "/away": {"get": {"responses": {"200": {"$ref": "https://example.com/x.json#/y"}}}},
    },
    "components": {
        "schemas": {"It": {"type": "object", "properties": {"id": {"type": ["integer", "null"]}}}},
        "responses": {
            "No": {
                "description": "",
                "content": {"application/problem+json": {"schema": {"required": ["title"], "type": "object"}}},
            }
        },
    },
}
RATE = {"X-Rate": "1"}


PROBLEM = {"Content-Type": "application/problem+json"}
DOCUMENTED: list[tuple[str, Reply, str, str]] = [
    ("/v1/items/1?full=1", Reply({"id": None}, headers=RATE), "", ""),
    ("/items/2", Reply({"id": 7}, headers=RATE), "", ""),
    ("/v1/alias", Reply({"id": 7}, headers=RATE), "", ""),
    ("/v1/items/all", Reply(b"all", headers={"Content-Type": "text/plain; charset=utf-8"}), "", ""),
    ("/v1/items/3", Reply({"id": "7"}, headers=RATE), "high", 'json.id breaks the schema: "7" is not of type'),
    ("/v1/items/4", Reply({"id": 7}), "high", "the header X-Rate is missing, which /openapi.json requires"),
    ("/v1/items/5", Reply({"id": 7}, 201), "medium", "/openapi.json does not know status 201 here"),
    ("/v1/items/6", Reply(b"<p>", headers={**RATE, "Content-Type": "text/html"}), "medium", "here, not text/html"),
    ("/v1/items/7", Reply(b"{", 404, PROBLEM), "high", "the answer is no valid JSON"),
    ("/v1/items/8", Reply(b"{}", 404, PROBLEM), "high", "json breaks the schema: 'title' is a required property"),
    ("/v1/items", Reply({}), "medium", "/openapi.json does not know this path"),
    ("/v1/items/a/b", Reply({}), "medium", "/openapi.json does not know this path"),
    ("/v1/broken", Reply({}), "high", "it has nothing at /components/responses/Gone"),
    ("/v1/circle", Reply({}), "high", "references lead in a circle"),
    ("/v1/away", Reply({}), "high", "it refers to https://example.com/x.json#/y, which is not in it"),
]


@pytest.fixture(scope="module")
def documented() -> CheckResult:
    toml = "".join(
        f'[[endpoint]]\nname = "{path}"\npath = "{path}"\nstatus = {reply.status}\n' for path, reply, *_ in DOCUMENTED
    )
    replies = {f"GET {path}": reply for path, reply, *_ in DOCUMENTED}
    return api({"GET /openapi.json": Reply(DOCUMENT), **replies}, toml)


@pytest.mark.parametrize(("path", "severity", "said"), [(path, *rest) for path, _, *rest in DOCUMENTED])
def test_an_answer_is_held_against_the_openapi_document(
    documented: CheckResult, path: str, severity: str, said: str
) -> None:
    found = [finding for finding in documented.findings if finding.text.startswith(f"{path} (")]
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(said in finding.text for finding in found)
    assert documented.inputs["openapi"]["version"] == "3.1"


def test_openapi_3_0_has_nullable_and_write_only() -> None:
    thing = {
        "type": "object",
        "required": ["id", "password"],
        "properties": {
            "id": {"type": "integer", "nullable": True, "minimum": 0, "exclusiveMinimum": True},
            "password": {"type": "string", "writeOnly": True},
        },
    }
    answer = {"200": {"description": "", "content": {"application/json": {"schema": thing}}}}
    document = {"openapi": "3.0.3", "paths": {"/{n}": {"get": {"responses": answer}}}}
    bodies = [{"id": None}, {"id": 1}, {"id": 0}, {"id": "1"}, {"id": 1, "password": "x"}]
    replies = {f"GET /{n}": Reply(body) for n, body in enumerate(bodies)}
    toml = "".join(f'[[endpoint]]\nname = "{n}"\npath = "/{n}"\n' for n in range(len(bodies)))
    found = texts(api({"GET /openapi.json": Reply(document), **replies}, toml))
    assert [text[0] for text in found] == ["2", "3", "4"]


def test_a_method_that_the_document_does_not_know_is_told_and_head_counts_as_get() -> None:
    toml = A.replace("path", 'method = "HEAD"\npath') + A.replace('"a"', '"b"').replace("path", 'method = "POST"\npath')
    document = {"openapi": "3.1.1", "paths": {"/a": {"get": {"responses": {"200": {"description": ""}}}}}}
    result = api({"GET /openapi.json": Reply(document), "HEAD /a": Reply({}), "POST /a": Reply({})}, toml)
    assert texts(result, "medium") == ["b (POST /a): /openapi.json knows this path, but no POST on it"]
    assert result.outcome == "warn"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply({}, 404), "cannot be read: status 404"),
        (Reply(b"openapi: 3.1.0"), "cannot be read: no valid JSON"),
        (Reply({"swagger": "2.0"}), "is no OpenAPI document of version 3.0, 3.1 or 3.2"),
        (Reply({"openapi": "4.0.0"}), "but says '4.0.0'"),
        (Reply([1]), "is no OpenAPI document"),
    ],
)
def test_a_document_that_is_promised_must_be_there_and_one_that_is_not_need_not(reply: Reply, said: str) -> None:
    replies = {"GET /docs": reply, "GET /openapi.json": reply, "GET /a": Reply({})}
    result = api(replies, '[api]\nopenapi = "/docs"\n' + A)
    assert result.outcome == "fail"
    assert said in result.seen
    quiet = api(replies, A)
    assert (quiet.outcome, quiet.inputs["openapi"]) == ("pass", {})
    assert len(quiet.findings) == (said == "but says '4.0.0'")


def test_the_longest_match_with_the_fewest_templates_is_taken() -> None:
    paths: dict[str, Any] = {key: {} for key in ("/{a}/{b}", "/x/{b}", "/x/y", "/f.json", "/r/{a}.{b}")}
    document = Document("/openapi.json", "", "3.1", {"paths": paths})
    found = {path: document.find(path) for path in ("/x/y", "/x/z", "/q/z", "/fxjson", "/r/1.2", "/q/", "/")}
    assert found["/x/y"] == ("paths", "/x/y")
    assert found["/x/z"] == ("paths", "/x/{b}")
    assert found["/q/z"] == ("paths", "/{a}/{b}")
    assert found["/r/1.2"] == ("paths", "/r/{a}.{b}")
    assert found["/fxjson"] is None
    assert found["/q/"] is None
    assert found["/"] is None
    with pytest.raises(UnreadableError, match="nothing at /paths/~1nowhere"):
        document.follow(("paths", "/nowhere"))


BEFORE = (
    A
    + '[[endpoint]]\nname = "b"\npath = "/b"\n'
    + '[[endpoint]]\nname = "c"\npath = "/c?x=1"\n'
    + '[[endpoint]]\nname = "stranger"\npath = "/me"\nstatus = 401\n'
    + '[[endpoint]]\nname = "staff"\npath = "/me"\nauth = "staff"\n'
    + '[[endpoint]]\nname = "boss"\npath = "/me"\nauth = "boss"\n'
    + '[[endpoint]]\nname = "head"\npath = "/still"\nmethod = "HEAD"\n'
    + '[[endpoint]]\nname = "order"\npath = "/orders"\nmethod = "POST"\nstatus = 201\n'
    + '[[endpoint]]\nname = "broken before"\npath = "/broken"\n'
)
PLAIN = {"GET /a": Reply({}), "GET /b": Reply({}), "GET /c?x=1": Reply({}, 200), "HEAD /still": Reply(b"")}
GONE = "by the release that ran before, and"


@contextmanager
def guarded(replies: dict[str, Reply], me: dict[str | None, int]) -> Iterator[Program]:
    """A program that answers GET /me by who asks: the status for each Authorization header."""
    with replying(replies) as program:
        program.by_header["GET /me"] = me
        yield program


def test_what_the_release_before_answers_is_noted_with_credentials_and_refusals() -> None:
    before = load_raos_toml((LEAST + BEFORE).encode("utf-8"))
    with guarded({**PLAIN, "GET /broken": Reply({}, 500)}, {None: 401, SECRET: 200}) as program:
        noted, _ = note_answered(context_of(program, "", previous_raos=before, credentials={"staff": SECRET}))
        assert "POST /orders" not in [what for what, _ in program.asked], "that might change something"
    assert [label(each) for each in noted.endpoints] == [
        "GET /a",
        "GET /b",
        "GET /c?x=1",
        "GET /me",
        "GET /me as staff",
        "HEAD /still",
    ]
    assert noted.unasked == 0


def test_an_endpoint_that_the_release_before_answered_and_this_one_does_not_is_named() -> None:
    credentials = {"staff": SECRET}
    before = load_raos_toml((LEAST + BEFORE).encode("utf-8"))
    with guarded(PLAIN, {None: 401, SECRET: 200}) as program:
        noted, _ = note_answered(context_of(program, "", previous_raos=before, credentials=credentials))
    toml = '[[endpoint]]\nname = "b"\npath = "/b"\nstatus = 410\n'
    now = {"GET /b": Reply({}, 410), "GET /c?x=1": Reply({}, 203), "HEAD /still": Reply(b"", 500)}
    for me, said in (
        ({None: 401, SECRET: 200}, []),
        ({None: 404, SECRET: 404}, ["GET /me was answered with status 401", "GET /me as staff was answered"]),
        ({None: 200, SECRET: 200}, ["GET /me was answered with status 401"]),
    ):
        with guarded(now, me) as program:
            rehearsal = Rehearsal(answered=noted)
            result = run_check(ApiCheck(), context_of(program, toml, rehearsal=rehearsal, credentials=credentials))
        told = [text.partition(f" {GONE}")[0] for text in texts(result)]
        assert told == ["GET /a was answered", *said, "HEAD /still was answered"]
        assert result.figures["asked_again"] == 5
    assert texts(result)[1].partition(";")[0] == f"GET /me was answered with status 401 {GONE} no longer is: status 200"
    assert texts(result)[0].endswith(
        f"{GONE} is gone: status 404; bring it back, or declare it in raos.toml with the status that it has now"
    )


def test_a_release_before_that_answers_slowly_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.checks.kit.removed_endpoints.SECONDS", 0.0)
    before = load_raos_toml((LEAST + A).encode("utf-8"))
    with replying({"GET /a": Reply({})}) as program:
        noted, _ = note_answered(context_of(program, "", previous_raos=before))
        assert noted.unasked == 1
        result = run_check(ApiCheck(), context_of(program, A, rehearsal=Rehearsal(answered=noted)))
    assert result.outcome == "pass"
    assert any("1 endpoints of the release before were not asked" in text for text in texts(result, "low"))


def test_operations_that_have_gone_from_the_openapi_document_are_named() -> None:
    paths = {
        "/a": {"get": {}, "summary": "no method"},
        "/items/{id}": {"get": {}, "delete": {}},
        "/old/{x}": {"get": {}},
        "/retired/{x}": {"get": {}},
    }
    old = {"openapi": "3.1.0", "paths": paths}
    new = {"openapi": "3.1.0", "paths": {"/a": {"get": {}}, "/items/{item}": {"get": {}}}}
    toml = A + '[[endpoint]]\nname = "retired"\npath = "/retired/1"\nstatus = 410\n'
    with replying({"GET /openapi.json": Reply(old)}) as program:
        noted, _ = note_answered(context_of(program, ""))
    assert len(noted.operations) == 5
    rehearsal = Rehearsal(answered=noted)
    replies = {"GET /a": Reply({}), "GET /retired/1": Reply({}, 410), "GET /openapi.json": Reply(new)}
    with replying(replies) as program:
        result = run_check(ApiCheck(), context_of(program, toml, rehearsal=rehearsal))
    stood = "stood in the OpenAPI document of the release that ran before, not in /openapi.json"
    assert [text.partition(":")[0] for text in texts(result, "medium") if "stood in" in text] == [
        f"DELETE /items/{{id}} {stood}",
        f"GET /old/{{x}} {stood}",
    ]
    assert result.figures["operations_before"] == 5
    with replying({**replies, "GET /openapi.json": Reply({}, 404)}) as program:
        result = run_check(ApiCheck(), context_of(program, toml, rehearsal=rehearsal))
    assert "published an OpenAPI document with 5 operations, this one none" in result.seen


def test_lists_are_compared_by_type_and_value_all_the_way_down() -> None:
    assert list(differences([True], [1])) == ["json is [1] instead of [true]"]
    assert list(differences([{"a": 1}], [{"a": 1, "b": 2}])) != []
    assert list(differences([[1, "x"]], [[1, "x"]])) == []


OWN = """
[[check]]
name = "payments"
title = "Payments are taken"
path = "/pay"
contains = "ready"

[[check]]
name = "greeting"
path = "/hello"
severity = "medium"
matches = '^Hello, \\w+!$'
"""


def test_a_releases_own_checks_stand_after_the_others_and_weigh_as_declared() -> None:
    with replying({"GET /pay": Reply(b"ready"), "GET /hello": Reply(b"Hello!")}) as program:
        context = context_of(program, OWN)
        own = checks_for(context.raos)[-2:]
        results = [run_check(check, context) for check in own]
    assert [(check.name, check.title) for check in own] == [
        ("own-payments", "Payments are taken"),
        ("own-greeting", "greeting"),
    ]
    assert [result.outcome for result in results] == ["pass", "warn"]
    assert results[0].seen.startswith("GET /pay answers as declared, in ")
    assert results[1].seen == r"GET /hello: the answer does not match '^Hello, \w+!$'"
    with replying({}) as program:
        failed = run_check(own[0], context_of(program, OWN))
    assert (failed.outcome, failed.seen) == ("fail", "GET /pay: status 404 instead of 200")


def test_the_sample_documents_every_route_that_it_has() -> None:
    document = json.loads((SAMPLE / "Modules" / "Core" / "openapi.json").read_text(encoding="utf-8"))
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(SAMPLE).rglob("*.py")))
    routes = set(re.findall(r'router\.add\("([A-Z]+)", "([^"]+)"', code))
    written = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert routes == written
