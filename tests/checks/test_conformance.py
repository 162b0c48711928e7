"""What HTTP and JSON ask of every answer, and what the release before answered; and what only looks like a fault."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from ashat.raos_toml.load import load_raos_toml
from tasks.checks import CheckResult, run_check
from tasks.checks.api import ApiCheck
from tasks.checks.kit.removed_endpoints import note_answered
from tasks.checks.kit.samples import Rehearsal
from tests.support.fakes.scripted_program import LEAST, Reply, context_of, replying

A = '[[endpoint]]\nname = "a"\npath = "/a"\n'
JSON = {"Content-Type": "application/json"}


def typed(media: str, body: bytes, **more: Any) -> Reply:
    return Reply(body, headers={"Content-Type": media, **more.pop("headers", {})}, **more)


def api(replies: dict[str, Reply], toml: str = A, before: dict[str, Reply] | None = None) -> CheckResult:
    """The API check of a program that answers so, where the release before answered as `before` says."""
    rehearsal = Rehearsal()
    if before is not None:
        with replying(before) as program:
            raos = load_raos_toml((LEAST + toml).encode("utf-8"))
            rehearsal = Rehearsal(answered=note_answered(context_of(program, "", previous_raos=raos))[0])
    with replying(replies) as program:
        return run_check(ApiCheck(), context_of(program, toml, rehearsal=rehearsal))


def told(result: CheckResult) -> list[tuple[str, str]]:
    return [(each.severity, each.text) for each in result.findings if each.severity != "low"]


NO_JSON = [
    (b'{"a": NaN}', "NaN is no JSON"),
    (b"[-Infinity]", "-Infinity is no JSON"),
    (b'{"a": 1, "b": 2, "a": 3}', "an object has the key 'a' twice"),
    (b'[{"x": {"y": 1, "y": 1}}]', "an object has the key 'y' twice"),
    (b"\xef\xbb\xbf{}", "BOM"),
    (b"{} trailing", "Extra data"),
    (b"{}\x00", "Extra data"),
    (b"{'a': 1}", "no valid JSON"),
    (b"", "no valid JSON"),
    (b"<html></html>", "no valid JSON"),
    ('["\u00e9"]'.encode("latin-1"), "not UTF-8 at byte 2"),
    ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
    (b'["\\ud800"]', "half a character"),
]


@pytest.mark.parametrize(("body", "says"), NO_JSON)
def test_an_answer_that_says_it_is_json_and_is_none_fails(body: bytes, says: str) -> None:
    for media in ("application/json", "application/problem+json; charset=utf-8"):
        result = api({"GET /a": typed(media, body)})
        assert result.outcome == "fail"
        assert says in result.seen


CHUNKED = b"2\r\n{}\r\n0\r\n\r\n"
GOOD = [
    typed("application/json", b' {"a": 1}\n'),
    typed("application/json; charset=UTF-8", '["\u00e9"]'.encode()),
    typed('application/json;charset="utf8"', b"[]"),
    typed("application/json; charset=iso-8859-1", b'["ascii"]'),
    typed("application/vnd.api+json", b'{"data": []}'),
    typed("APPLICATION/Problem+JSON", b'{"title": "x"}'),
    typed("application/x-ndjson", b"{}\n{}\n"),
    typed("application/json-seq", b"\x1e{}\n"),
    typed("text/html; charset=iso-8859-1", b"<p>\xe9</p>"),
    typed("text/plain", b"\xe9"),
    typed("application/octet-stream", b"NaN"),
    typed("application/json", gzip.compress(b'{"a": 1}'), headers={"Content-Encoding": "gzip"}),
    typed("application/json", zlib.compress(b'{"a": 1}'), headers={"Content-Encoding": "deflate"}),
    typed("application/json", CHUNKED, headers={"Transfer-Encoding": "chunked"}),
]


@pytest.mark.parametrize("reply", GOOD)
def test_what_only_looks_like_a_fault_passes(reply: Reply) -> None:
    result = api({"GET /a": reply}, before={"GET /a": reply})
    assert (result.outcome, told(result)) == ("pass", [])


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (204, Reply(b"", 204, JSON)),
        (304, Reply(b"", 304, JSON)),
        (302, Reply(b"", 302, {"Location": "/b", "Content-Type": "text/html"})),
        (401, Reply(b"", 401, JSON)),
        (404, typed("application/problem+json", b'{"title": "no"}', status=404)),
    ],
)
def test_an_answer_without_content_need_be_no_json(status: int, reply: Reply) -> None:
    result = api({"GET /a": reply}, f"{A}status = {status}\n")
    assert (result.outcome, told(result)) == ("pass", [])


def test_a_charset_that_is_not_the_answers_own_is_pointed_out() -> None:
    result = api({"GET /a": typed("application/json; charset=iso-8859-1", '["\u00e9"]'.encode())})
    assert (result.outcome, "its Content-Type says charset=iso-8859-1" in result.seen) == ("warn", True)
    result = api({"GET /a": typed("text/html; charset=utf-8", b"\xe9")})
    assert (result.outcome, "not utf-8 at byte 0" in result.seen) == ("warn", True)


def test_what_is_compressed_is_decompressed_within_the_limit() -> None:
    packed = {"Content-Encoding": "gzip"}
    for body, says in (
        (gzip.compress(b" " * 2_000_000), "more than 1048576 bytes once it is decompressed"),
        (b"{}", "no valid gzip"),
        (gzip.compress(b"{}")[:-9], "gzip that is cut off"),
        (gzip.compress(b"{"), "no valid JSON"),
    ):
        result = api({"GET /a": typed("application/json", body, headers=packed)})
        assert (result.outcome, says in result.seen) == ("fail", True), result.seen


OLD = {"GET /a": typed("application/json", json.dumps({"a": "x" * 1000}).encode())}
CHANGED: list[tuple[Reply, str, str]] = [
    (typed("text/html", b"x" * 1000), "high", "its type is text/html; the release before answered application/json"),
    (Reply(b"x" * 1000), "high", "its type is no type; the release before answered application/json"),
    (typed("application/json", b"{}"), "medium", "the answer has 2 bytes; that of the release before had 1009"),
    (typed("application/json", b'"%s"' % (b"x" * 20_000)), "medium", "the answer has 20002 bytes; that of the"),
]


@pytest.mark.parametrize(("reply", "severity", "says"), CHANGED)
def test_a_type_or_size_unlike_that_of_the_release_before_is_told(reply: Reply, severity: str, says: str) -> None:
    (found,) = told(api({"GET /a": reply}, before=OLD))
    assert found[0] == severity
    assert f"a (GET /a): {says}" in found[1]


def test_an_empty_answer_that_was_none_fails_and_a_declared_type_does_not() -> None:
    page = {"GET /a": typed("text/html", b"<p>" * 10)}
    assert told(api({"GET /a": typed("text/html", b"")}, before=page)) == [
        ("high", "a (GET /a): the answer is empty; that of the release before had 30 bytes")
    ]
    declared = A + 'headers = { Content-Type = "text/plain" }\n'
    with_type = {"GET /a": typed("text/plain", b"p" * 30)}
    assert api(with_type, declared, before=with_type).outcome == "pass"
    document = {"openapi": "3.1.0", "paths": {"/a": {"get": {"responses": {"200": {"content": {"text/plain": {}}}}}}}}
    result = api({**with_type, "GET /openapi.json": Reply(document)}, before=page)
    assert (result.outcome, told(result)) == ("pass", [])
    assert told(api(with_type, before=page))[0][0] == "medium"
    assert (
        api({"GET /a": typed("application/hal+json", b'{"a": 1}')}, before={"GET /a": Reply({"a": 1})}).outcome
        == "pass"
    )


def test_an_answer_that_grows_or_shrinks_a_little_is_no_matter() -> None:
    for was, now in ((b"x" * 90, b"x"), (b"x" * 1000, b"x" * 101), (b"x" * 50, b"x" * 900), (b"x" * 500, b"x" * 4999)):
        result = api({"GET /a": typed("text/plain", now)}, before={"GET /a": typed("text/plain", was)})
        assert result.outcome == "pass"


HEADS: list[tuple[Reply, str]] = [
    (Reply({}, 404), "status 404; GET answers 200"),
    (Reply({}, 500), "status 500; GET answers 200"),
    (typed("text/html", b"{}"), "its type is text/html; that of GET is application/json"),
    (Reply({}, headers={"Content-Length": "0"}), "its Content-Length is 0; GET answers 2 bytes"),
    (Reply({}, to_head=True), "a body follows its headers, which the next answer on the connection is mistaken for"),
]


@pytest.mark.parametrize(("head", "says"), HEADS)
def test_head_is_answered_as_get(head: Reply, says: str) -> None:
    assert told(api({"GET /a": Reply({}), "HEAD /a": head})) == [("medium", f"HEAD /a: {says}")]


def test_a_program_that_refuses_head_or_does_not_know_a_length_passes() -> None:
    for head in (
        Reply({}, 405, {"Allow": "GET"}),
        Reply({}, 501),
        typed("application/json", b"", headers={"Transfer-Encoding": "chunked"}),
    ):
        result = api({"GET /a": Reply({}), "HEAD /a": head})
        assert (result.outcome, told(result)) == ("pass", [])
    assert "1 paths answer GET and refuse HEAD: /a" in [
        each.text for each in api({"GET /a": Reply({}), "HEAD /a": Reply({}, 405)}).findings
    ]


def test_what_is_documented_and_not_declared_is_listed() -> None:
    paths: dict[str, Any] = {"/a": {"get": {}}, "/items/{id}": {"get": {}, "delete": {}}, "/more": {"post": {}}}
    document = {"openapi": "3.1.0", "paths": paths}
    old = {"openapi": "3.1.0", "paths": {path: paths[path] for path in ("/a", "/items/{id}")}}
    toml = A + '[[endpoint]]\nname = "item"\npath = "/items/7?full=1"\n'
    replies = {"GET /a": Reply({}), "GET /items/7?full=1": Reply({})}
    result = api({**replies, "GET /openapi.json": Reply(document)}, toml, {**replies, "GET /openapi.json": Reply(old)})
    assert [each.text for each in result.findings if each.unseen] == [
        "1 operations of /openapi.json are new and not declared in raos.toml, so nobody asked them: POST /more",
        "1 operations of /openapi.json are not declared in raos.toml, so nobody asked them: DELETE /items/{id}",
    ]
