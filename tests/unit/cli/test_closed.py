"""What lets a request into the control plane's server, and how a browser is signed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ashat.cli.control_plane import sign_in
from ashat.cli.control_plane.closed import Closed, refuse_stranger
from ashat.cli.control_plane.state import ControlState, ensure_password

PASSWORD = "admin:</script><b>&\"'"
PAGE = {"Accept": "text/html,*/*"}
HOST = "http://127.0.0.1:4200"


class Client:
    """A browser that asks an application which passes everything on, and keeps its cookies."""

    def __init__(self) -> None:
        async def answer(request: Request) -> PlainTextResponse:
            return PlainTextResponse("passed on")

        app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
        self._app = Closed(app, PASSWORD, 4200)
        self.cookies = httpx.Cookies()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return anyio.run(self._ask, "GET", path, options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return anyio.run(self._ask, "POST", path, options)

    async def _ask(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        asking = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=asking, base_url=HOST, cookies=self.cookies) as client:
            answer = await client.request(method, path, **options)
            self.cookies = client.cookies
            return answer


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("host", "127.0.0.1:4200")], None),
        ([("host", "127.0.0.1:4200"), ("origin", "http://127.0.0.1:4200")], None),
        ([("host", "127.0.0.1")], 421),
        ([("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")], 421),
        ([("host", "127.0.0.1:4200@evil.example")], 421),
        ([("host", "127.0.0.1:4200 http://evil.example *")], 421),
        ([], 421),
        ([("host", "127.0.0.1:4200"), ("host", "evil.example")], 421),
        ([("host", "127.0.0.1.evil.example:4200")], 421),
        ([("host", "[::1]:4200")], 421),
        ([("host", "localhost:4200")], 421),
        ([("host", "127.0.0.1:4200"), ("origin", "http://127.0.0.1:4201")], 403),
        ([("host", "127.0.0.1:4200"), ("origin", "http://127.0.0.1:4200.evil.example")], 403),
        ([("host", "127.0.0.1:4200"), ("origin", "null")], 403),
        ([("host", "127.0.0.1:4200"), ("origin", "")], 403),
        ([("host", "127.0.0.1:4200"), ("origin", "http://127.0.0.1:4200"), ("origin", "http://evil.example")], 403),
    ],
)
def test_only_its_own_name_and_its_own_pages_are_let_in(headers: list[tuple[str, str]], status: int | None) -> None:
    refused = refuse_stranger(Headers(raw=[(n.encode(), v.encode()) for n, v in headers]), HOST)
    assert (refused and refused.status_code) == status


def test_a_page_is_shown_to_a_browser_that_signed_in(client: Client) -> None:
    asked = client.get("/runs/flow-run/1", headers=PAGE)
    assert asked.status_code == 401
    assert 'value="/runs/flow-run/1"' in asked.text
    wrong = client.post(sign_in.PATH, data={"password": "admin:", "to": "/"})
    assert (wrong.status_code, "not the password" in wrong.text, len(wrong.cookies)) == (401, True, 0)
    right = client.post(sign_in.PATH, data={"password": PASSWORD, "to": "/runs"}, headers={"Origin": "null"})
    assert right.status_code == 200
    assert right.headers["cache-control"] == "no-store"
    assert client.get("/runs", headers=PAGE).text == "passed on"
    assert PASSWORD not in "".join(value or "" for value in client.cookies.values())


def test_another_servers_cookie_or_an_older_password_signs_nobody_in(client: Client) -> None:
    for name, value in {
        "ashat-signed-in-4201": sign_in.mark(PASSWORD),
        "ashat-signed-in-4200": sign_in.mark("x"),
    }.items():
        client.cookies.set(name, value, domain="127.0.0.1")
    assert client.get("/runs", headers=PAGE).status_code == 401


def test_a_script_asks_as_before_and_its_answer_cannot_be_framed(client: Client) -> None:
    answer = client.get("/api/health")
    assert answer.text == "passed on"
    assert answer.headers["x-frame-options"] == "DENY"
    assert (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: ws://127.0.0.1:4200;"
        in answer.headers["content-security-policy"]
    )


def test_a_form_that_never_ends_is_refused(client: Client) -> None:
    assert client.post(sign_in.PATH, content=b"password=" + b"x" * 100_000).status_code == 413


@pytest.mark.parametrize(
    "to", ["//evil.example/x", "/\\evil.example/x", "https://evil.example/x", "\\\\evil.example/x"]
)
def test_who_signs_in_stays_on_this_server(client: Client, to: str) -> None:
    page = client.post(sign_in.PATH, data={"password": PASSWORD, "to": to}).text
    target = page.partition("location.replace(")[2]
    assert target.startswith('"/')
    assert not target.startswith(('"//', '"/\\'))


def test_no_text_ends_the_script_or_the_attribute_that_it_stands_in() -> None:
    assert "<b>" not in sign_in.signed_in(PASSWORD, "/</script><b>")
    for page in (sign_in.form(HOST, PASSWORD, '/"><b>'), sign_in.ask('/"><b>', "<b>")):
        assert "<b>" not in page


def test_the_page_that_signs_in_is_for_its_owner_only(tmp_path: Path) -> None:
    password = ensure_password(tmp_path)
    page = sign_in.write_sign_in(tmp_path, ControlState(port=4200), "/runs")
    assert page.stat().st_mode & 0o777 == 0o600
    assert password in page.read_text()
    assert f'action="{HOST}/sign-in"' in page.read_text()


def test_without_a_screen_no_browser_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert not sign_in.open_browser(tmp_path / "page.html")
