"""Who answered a gate: only the proxy that has the secret says it, and what people type cannot say it."""

from __future__ import annotations

import base64
import json
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ashat.cli.control_plane.closed import Closed
from ashat.cli.control_plane.vouched import Vouched

PASSWORD, SECRET = "admin:right", "a secret of forty characters, as it is made"
PEOPLE, MACHINES = "https://deploy.example.com", "https://prefect.example.com"
ANSWER = "/api/flow_runs/0a1b/resume"
VOUCHING = {"X-Ashat-User": "kim@example.com", "X-Ashat-Proxy": SECRET}


def ask(
    method: str, path: str, *, secret: str = SECRET, headers: Any = None, body: Any = None, at: str = PEOPLE
) -> httpx.Response:
    """What Prefect would be asked, as the guard passes it on; or the guard's own answer."""

    async def told(request: Request) -> JSONResponse:
        return JSONResponse(
            {"body": (await request.body()).decode(), "authorization": request.headers.get("authorization", "")}
        )

    app = Starlette(routes=[Route("/{path:path}", told, methods=["GET", "POST"])])
    guarded = Vouched(Closed(app, PASSWORD, 4200, public=[MACHINES, PEOPLE]), PASSWORD, secret)

    async def asking() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url=at) as client:
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            return await client.request(method, path, headers=headers, content=content)

    return anyio.run(asking)


def approver(typed: Any, headers: Any = None) -> Any:
    """The name that Prefect gets with an answer."""
    form = {"decision": "approve", "evidence": "12345678", "approver": typed, "comment": ""}
    passed = ask("POST", ANSWER, headers=headers, body={"run_input": form})
    assert passed.status_code == 200, passed.text
    return json.loads(passed.json()["body"])["run_input"]["approver"]


def test_the_proxys_word_is_marked_and_the_typed_name_stands_beside_it() -> None:
    assert approver("", VOUCHING) == "kim@example.com (the proxy's word)"
    assert approver("kim@example.com", VOUCHING) == "kim@example.com (the proxy's word)"
    assert approver("Kim (night shift)", VOUCHING) == "kim@example.com (the proxy's word; typed: Kim night shift)"
    assert len(approver("k" * 200, {**VOUCHING, "X-Ashat-User": "u" * 100})) <= 200


@pytest.mark.parametrize(
    "typed",
    [
        "owner@example.com (the proxy's word)",
        "owner@example.com (The PROXY's word; typed: x",
        "owner@example.com （the proxy's word）",
        "owner@example.com (the ｐｒｏｘｙ's word)",
    ],
)
def test_what_is_typed_cannot_carry_the_mark(typed: str) -> None:
    assert approver(typed) == "owner@example.com"
    assert approver(typed, VOUCHING) == "kim@example.com (the proxy's word; typed: owner@example.com)"


def test_other_names_stay_as_they_were_typed() -> None:
    for typed in ("kim", "Kim (night shift)", "김", "", None, 3):
        assert approver(typed) == typed


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Ashat-User": "owner@example.com"},
        {"X-Ashat-User": "owner@example.com", "X-Ashat-Proxy": "guessed"},
        {"X-Ashat-User": "owner@example.com", "X-Ashat-Proxy": ""},
        [("X-Ashat-User", "owner@example.com"), ("X-Ashat-Proxy", SECRET), ("X-Ashat-Proxy", SECRET)],
        [("X-Ashat-User", "kim@example.com"), ("X-Ashat-User", "owner@example.com"), ("X-Ashat-Proxy", SECRET)],
        {"X-Ashat-Proxy": SECRET},
        {**VOUCHING, "X-Ashat-User": "u" * 101},
        {**VOUCHING, "X-Ashat-User": "kim (the proxy's word)"},
    ],
)
def test_a_forged_or_unusable_name_is_refused(headers: Any) -> None:
    for method, path in (("POST", ANSWER), ("GET", "/api/flow_runs/x"), ("GET", "/")):
        assert ask(method, path, headers=headers, body={} if method == "POST" else None).status_code == 403


def test_without_a_secret_nobody_is_believed() -> None:
    for shown in ("", SECRET):
        headers = {"X-Ashat-User": "owner@example.com", "X-Ashat-Proxy": shown}
        assert ask("POST", ANSWER, secret="", headers=headers, body={}).status_code == 403


def test_the_mark_does_not_come_in_by_the_store_of_a_runs_inputs() -> None:
    value = json.dumps({"decision": "approve", "approver": "owner (the proxy's word)"})
    passed = ask("POST", "/api/flow_runs/0a1b/input", body={"key": "gate-0-response", "value": value})
    assert "proxy" not in passed.json()["body"]


def test_who_is_vouched_for_shows_the_api_its_password_and_needs_none() -> None:
    wanted = f"Basic {base64.b64encode(PASSWORD.encode()).decode()}"
    passed = ask("GET", "/api/admin/version", headers={**VOUCHING, "Authorization": "Basic cHJveHk6cHJveHk="})
    assert passed.json()["authorization"] == wanted
    assert ask("GET", "/api/admin/version").json()["authorization"] == ""
    page = {"Accept": "text/html"}
    let_in = ask("GET", "/runs", headers={**VOUCHING, **page})
    assert (let_in.status_code, PASSWORD in let_in.text) == (200, False)
    assert "secure" in let_in.headers["set-cookie"].lower()
    assert ask("GET", "/runs", headers=page).status_code == 401


def test_what_is_no_answer_passes_as_it_is_and_one_that_is_too_large_does_not() -> None:
    for body in (b"", b"{", b"[1]", b'{"run_input": 3}', b'{"run_input": {"name": "x (proxy)"}}'):
        assert ask("POST", ANSWER, headers=VOUCHING, body=body).json()["body"] == body.decode()
    assert ask("POST", ANSWER, headers=VOUCHING, body=b" " * (1 << 19)).status_code == 413


def test_another_name_or_the_page_of_another_server_is_refused_for_all_that_the_proxy_says() -> None:
    assert ask("GET", "/api/x", headers=VOUCHING, at="https://evil.example").status_code == 421
    foreign = {**VOUCHING, "Origin": "https://evil.example"}
    assert ask("POST", ANSWER, headers=foreign, body={}).status_code == 403
    assert ask("GET", "/api/x", at=MACHINES).status_code == 200


def test_a_probe_of_an_address_without_a_name_gets_a_sign_of_life_and_no_more() -> None:
    for method, path, status in (
        *(("GET", "/api/health", 200), ("GET", "/api/ready", 200)),
        *(("GET", "/api/flow_runs/x", 421), ("POST", "/api/health", 421), ("GET", "/api/health/x", 421)),
    ):
        assert ask(method, path, at="http://10.1.2.3:4200").status_code == status, path
