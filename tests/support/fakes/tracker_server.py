"""A server that speaks what GitHub, GitLab and Jira document of their issues' API, and takes signed webhooks.

https://docs.github.com/rest/issues/comments, https://docs.gitlab.com/api/notes,
https://developer.atlassian.com/cloud/jira/platform/rest/v2. It keeps issues, their comments and states, refuses whoever
has not the token, and can be told to answer otherwise.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

TOKEN = "a-token-that-nobody-else-has"
ACCOUNT = "deploy@example.com"
_BASIC = "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


@dataclass
class Issue:
    """One issue: its comments, each with when it was posted, and its state."""

    state: str
    comments: list[tuple[datetime, str]] = field(default_factory=list)


@dataclass
class Reply:
    """An answer: its status, its JSON or its bytes, and its headers. `endless` goes on with those bytes for ever."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False


class TrackerServer:
    """The issues by their keys, each request as method and path, and what answers instead, where that is set."""

    def __init__(self) -> None:
        self.url = ""
        self.issues = {key: Issue("opened" if key == "gitlab 7" else "open") for key in ("github 7", "gitlab 7")}
        self.issues["PROJ-7"] = Issue("To Do")
        self.statuses = ["To Do", "In Progress", "Done"]
        self.asked: list[str] = []
        self.hooks: list[tuple[dict[str, str], bytes]] = []
        self.instead: Callable[[str, str], Reply | None] = lambda method, path: None
        self.after_comment: Callable[[], None] = lambda: None
        self.hangs = threading.Event()
        self._lock = threading.Lock()

    def comments(self, key: str) -> list[str]:
        """What was posted on an issue, the oldest first."""
        return [text for _, text in self.issues[key].comments]

    @contextmanager
    def served(self) -> Iterator[TrackerServer]:
        """Serve until the `with` block ends."""
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            try:
                yield self
            finally:
                self.hangs.set()
                server.shutdown()
                thread.join()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        """Answer a request as the tracker does whose path it is."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        with self._lock:
            self.asked.append(f"{method} {parts.path}")
        if (reply := self.instead(method, parts.path)) is not None:
            return reply
        given = json.loads(body) if body else {}
        for pattern, needed, act in self._routes():
            if found := re.fullmatch(pattern, parts.path):
                if needed and headers.get(needed[0].lower()) not in needed[1:]:
                    return Reply(401, {"message": f"Bad credentials: {headers.get(needed[0].lower())}"})
                return act(self, method, [unquote(one) for one in found.groups()], query, given)
        if parts.path.startswith("/hook"):
            self.hooks.append((headers, body))
            return Reply(202)
        return Reply(404, {"message": "Not Found"})

    @staticmethod
    def _routes() -> list[tuple[str, tuple[str, ...], Any]]:
        github = ("Authorization", f"Bearer {TOKEN}")
        gitlab = ("PRIVATE-TOKEN", TOKEN)
        jira = ("Authorization", f"Bearer {TOKEN}", _BASIC)
        return [
            (r"/repos/(owner/name)", github, _repository),
            (r"/repos/owner/name/issues/(\d+)/comments", github, _github_comments),
            (r"/repos/owner/name/issues/(\d+)", github, _github_issue),
            (r"/api/v4/projects/(group%2Fname)", gitlab, _project),
            (r"/api/v4/projects/group%2Fname/issues/(\d+)/notes", gitlab, _gitlab_notes),
            (r"/api/v4/projects/group%2Fname/issues/(\d+)", gitlab, _gitlab_issue),
            (r"/rest/api/2/myself", jira, lambda *_: Reply(200, {"displayName": "Deploy"})),
            (r"/rest/api/2/status", jira, _jira_statuses),
            (r"/rest/api/2/issue/([^/]+)/comment", jira, _jira_comments),
            (r"/rest/api/2/issue/([^/]+)/transitions", jira, _jira_transitions),
            (r"/rest/api/2/issue/([^/]+)", jira, _jira_issue),
        ]

    def add(self, issue: Issue, text: str) -> Reply:
        """Keep a comment."""
        with self._lock:
            issue.comments.append((datetime.now(UTC), text))
            number = len(issue.comments)
        self.after_comment()
        return Reply(201, {"id": number, "body": text})


def _repository(server: TrackerServer, method: str, names: list[str], *_: Any) -> Reply:
    return Reply(200, {"full_name": names[0]})


def _project(server: TrackerServer, method: str, names: list[str], *_: Any) -> Reply:
    return Reply(200, {"path_with_namespace": names[0]})


def _github_comments(server: TrackerServer, method: str, names: list[str], query: dict[str, str], given: Any) -> Reply:
    issue = server.issues.get(f"github {names[0]}")
    if issue is None:
        return Reply(404, {"message": "Not Found"})
    if method == "POST":
        return server.add(issue, given["body"])
    since = datetime.fromisoformat(query["since"])
    size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
    found = [{"id": n, "body": text} for n, (at, text) in enumerate(issue.comments) if at >= since]
    return Reply(200, found[size * (page - 1) : size * page])


def _github_issue(server: TrackerServer, method: str, names: list[str], query: dict[str, str], given: Any) -> Reply:
    issue = server.issues.get(f"github {names[0]}")
    if issue is None:
        return Reply(404, {"message": "Not Found"})
    if method == "PATCH":
        if given.get("state") not in ("open", "closed"):
            return Reply(422, {"message": "Validation Failed"})
        issue.state = given["state"]
    return Reply(200, {"id": 1, "state": issue.state})


def _gitlab_notes(server: TrackerServer, method: str, names: list[str], query: dict[str, str], given: Any) -> Reply:
    issue = server.issues.get(f"gitlab {names[0]}")
    if issue is None:
        return Reply(404, {"message": "404 Not found"})
    if method == "POST":
        return server.add(issue, given["body"])
    size, page = int(query.get("per_page", 20)), int(query.get("page", 1))
    found = [{"id": n, "body": text} for n, (_, text) in enumerate(issue.comments)]
    found = found[::-1] if query.get("sort", "desc") == "desc" else found
    return Reply(200, found[size * (page - 1) : size * page])


def _gitlab_issue(server: TrackerServer, method: str, names: list[str], query: dict[str, str], given: Any) -> Reply:
    issue = server.issues.get(f"gitlab {names[0]}")
    if issue is None:
        return Reply(404, {"message": "404 Not found"})
    if method == "PUT":
        if given.get("state_event") not in ("close", "reopen"):
            return Reply(400, {"error": "state_event does not have a valid value"})
        issue.state = "closed" if given["state_event"] == "close" else "opened"
    return Reply(200, {"id": 1, "state": issue.state})


def _jira_missing() -> Reply:
    return Reply(404, {"errorMessages": ["Issue does not exist or you do not have permission to see it."]})


def _jira_statuses(server: TrackerServer, *_: Any) -> Reply:
    return Reply(200, [{"id": str(n), "name": name} for n, name in enumerate(server.statuses)])


def _jira_comments(server: TrackerServer, method: str, names: list[str], query: dict[str, str], given: Any) -> Reply:
    issue = server.issues.get(names[0])
    if issue is None:
        return _jira_missing()
    if method == "POST":
        return server.add(issue, given["body"])
    start, size = int(query.get("startAt", 0)), int(query.get("maxResults", 50))
    found = [{"id": str(n), "body": text} for n, (_, text) in enumerate(issue.comments)]
    found = found[::-1] if query.get("orderBy") == "-created" else found
    return Reply(200, {"startAt": start, "total": len(found), "comments": found[start : start + size]})


def _jira_issue(server: TrackerServer, method: str, names: list[str], *_: Any) -> Reply:
    issue = server.issues.get(names[0])
    return Reply(200, {"fields": {"status": {"name": issue.state}}}) if issue else _jira_missing()


def _jira_transitions(server: TrackerServer, method: str, names: list[str], query: dict[str, str], given: Any) -> Reply:
    issue = server.issues.get(names[0])
    if issue is None:
        return _jira_missing()
    leads = {str(10 + n): name for n, name in enumerate(server.statuses) if name != issue.state}
    if method == "GET":
        return Reply(
            200,
            {"transitions": [{"id": key, "name": f"To {name}", "to": {"name": name}} for key, name in leads.items()]},
        )
    if given["transition"]["id"] not in leads:
        return Reply(400, {"errorMessages": ["It seems that you have tried to perform an illegal workflow operation."]})
    issue.state = leads[given["transition"]["id"]]
    return Reply(204)


def _handler(server: TrackerServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            reply = server.answer(self.command, self.path, headers, body)
            with suppress(ConnectionError):  # whoever asked has had enough
                self._write(reply)

        do_POST = do_PATCH = do_PUT = do_GET

        def _write(self, reply: Reply) -> None:
            if reply.status == 0:  # never answers
                server.hangs.wait(60)
                return
            content = (
                reply.body
                if isinstance(reply.body, bytes)
                else b""
                if reply.body is None
                else json.dumps(reply.body).encode()
            )
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if not reply.endless:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            while reply.endless and not server.hangs.is_set():
                self.wfile.write(content)
                time.sleep(0.001 if len(content) > 100 else 0.1)

        def log_message(self, *_: object) -> None:
            return

    return Handler
