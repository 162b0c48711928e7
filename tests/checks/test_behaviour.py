"""What a program gives away when it is asked wrongly, or from elsewhere: the security check on small servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from ashat.raos_toml.load import load_raos_toml
from tasks.checks.kit.http import Answer
from tasks.checks.scan.behaviour import STRANGER, shown_by_behaviour

RAOS = load_raos_toml(
    b"""
[raos]
name = "a"
version = "1"
[[endpoint]]
name = "home"
path = "/"
[[endpoint]]
name = "order"
method = "POST"
path = "/orders"
body = { item = "a" }
"""
)
# Method, path and headers of a request: status, headers and body of the answer.
Behaviour = Callable[[str, str, Mapping[str, str]], tuple[int, dict[str, str], str]]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def __getattr__(self, name: str) -> Any:
            if not name.startswith("do_"):
                raise AttributeError(name)
            return self.answer

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, text = behaviour(self.command, self.path, self.headers)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def found(behaviour: Behaviour) -> set[tuple[str, str, str]]:
    """Rule, severity and path of what is found."""
    with serving(behaviour) as url, httpx.Client(base_url=url, trust_env=False) as client:

        def ask(path: str, method: str, headers: Mapping[str, str], content: bytes | None) -> Answer | None:
            answer = client.request(method, path, headers=dict(headers), content=content)
            return Answer(answer.status_code, answer.headers, answer.content, 0)

        secrets = lambda body: ["a key"] if b"hunter2" in body else []  # noqa: E731
        told = list(shown_by_behaviour(ask, RAOS, ["/"], "/absent", "127.0.0.1", secrets))
    return {(each.rule, each.severity, each.path) for each in told}


def well(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
    if method not in ("GET", "HEAD", "POST", "OPTIONS"):
        return 405, {}, "no such method"
    return (200 if path == "/" else 404 if method == "GET" else 400), {}, "<h1>A page</h1>"


def when(
    condition: Callable[[str, str, Mapping[str, str]], bool], answer: tuple[int, dict[str, str], str]
) -> Behaviour:
    return lambda method, path, headers: answer if condition(method, path, headers) else well(method, path, headers)


def test_a_program_that_answers_as_it_should_gives_nothing_away() -> None:
    assert found(well) == set()


TRACES = {
    "Python": 'Traceback (most recent call last):\n  File "/srv/app.py", line 3, in view\n',
    "Django": "<p>You&#39;re seeing</p> File &quot;/srv/app.py&quot;, line 3, in view",
    "Java": "java.lang.NullPointerException\n\tat com.shop.Order.find(Order.java:42)\n",
    "Kotlin": "\tat com.shop.OrderKt.find(Order.kt:42)\n",
    ".NET": "   at Shop.Orders.Find(Int32 id) in /src/Orders.cs:line 42\n",
    "Node": "TypeError: x\n    at Object.find (/srv/app/order.js:12:7)\n",
    "Node, without a name": "Error\n    at /srv/app/order.js:12:7\n",
    "PHP": "Fatal error: x\nStack trace:\n#0 /srv/index.php(3): f()\n",
    "Ruby": "app/models/order.rb:12:in `find'\n",
    "Go": "panic: x\n\ngoroutine 7 [running]:\n",
}
DEBUGGERS = {
    "Django": "You're seeing this error because you have <code>DEBUG = True</code> in your settings",
    "Werkzeug": "<title>TypeError // Werkzeug Debugger</title>",
    "Laravel": "<title>Whoops! There was an error.</title>",
    "ASP.NET": "<h1>An unhandled exception occurred while processing the request.</h1>",
}
# What reads like a trace, and is a text for people.
HARMLESS = [
    "Please look at /help/contact:12:30 for our hours.",
    "We meet at noon (see Order.java for details).",
    "Stack trace collection is off. #0 of our goals is privacy.",
    "Not found. Go back to line 12, in the menu.",
]


@pytest.mark.parametrize("text", TRACES.values(), ids=list(TRACES))
def test_a_traceback_on_an_error_page_is_a_warning(text: str) -> None:
    assert found(when(lambda method, path, _: path == "/absent", (404, {}, text))) == {
        ("error-page", "medium", "/absent")
    }


@pytest.mark.parametrize("text", DEBUGGERS.values(), ids=list(DEBUGGERS))
def test_a_debugger_fails(text: str) -> None:
    assert ("error-page", "high", "/") in found(when(lambda method, path, _: method == "ASHAT", (500, {}, text)))


@pytest.mark.parametrize("text", HARMLESS)
def test_a_text_for_people_is_no_traceback(text: str) -> None:
    assert found(when(lambda method, path, _: path == "/absent", (404, {}, text))) == set()


def test_half_of_a_json_and_odd_parameters_are_tried() -> None:
    assert found(when(lambda method, path, _: path == "/orders", (500, {}, TRACES["Java"]))) == {
        ("error-page", "medium", "/orders")
    }
    assert found(when(lambda method, path, _: "%ff" in path, (500, {}, "hunter2"))) == {
        ("error-page", "high", "/?%ff[]=%00")
    }


@pytest.mark.parametrize(
    ("allowed", "credentials", "told"),
    [(None, "true", True), ("null", "true", True), (None, "", False), ("*", "", False), ("https://a.b", "true", False)],
)
def test_an_origin_that_nobody_knows_reads_nothing(allowed: str | None, credentials: str, told: bool) -> None:
    def reflecting(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
        status, _, text = well(method, path, headers)
        origin = headers.get("Origin")
        more = {"Access-Control-Allow-Origin": allowed or origin, "Access-Control-Allow-Credentials": credentials}
        return status, {name: value for name, value in more.items() if origin and value}, text

    assert found(reflecting) == ({("origin", "high", "/")} if told else set())


@pytest.mark.parametrize(
    "answer",
    [(302, {"Location": f"https://{STRANGER}/login"}, ""), (200, {}, f'<a href="https://{STRANGER}/reset">')],
    ids=["a redirect", "a link"],
)
def test_a_host_that_comes_back_is_a_warning(answer: tuple[int, dict[str, str], str]) -> None:
    assert found(when(lambda method, path, headers: headers["Host"] == STRANGER, answer)) == {("host", "medium", "/")}
    quoted = (400, {}, f"//{STRANGER} is not served here")
    assert found(when(lambda method, path, headers: headers["Host"] == STRANGER, quoted)) == set()


@pytest.mark.parametrize(
    ("to", "told"),
    [("https://elsewhere.example/", True), ("/login", False), ("http://127.0.0.1/x", False), ("http://[", True)],
)
def test_a_redirect_to_another_host_is_a_warning(to: str, told: bool) -> None:
    behaviour = when(lambda method, path, _: path == "/" and method == "GET", (302, {"Location": to}, ""))
    assert found(behaviour) == ({("redirect", "medium", "/")} if told else set())


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_a_method_that_breaks_it_is_a_warning(method: str) -> None:
    assert found(when(lambda asked, path, _: asked == method, (500, {}, ""))) == {("method", "medium", "/")}
    assert found(when(lambda asked, path, _: asked == method, (501, {}, ""))) == set()
