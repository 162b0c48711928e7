"""Each tracker is told by its vendor's API, once, and whatever it answers is one line without its token."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from ashat.common.trackers import MOST, MOST_TASKS, TaskComment
from ashat.errors import TaskRefusedError, TrackerBusyError, TrackerError, UsageError
from blocks import tracker_http
from blocks.tracker_kinds import MADE, Given, make_tracker, secrets_of
from blocks.trackers import Tracker
from tests.support.fakes.tracker_server import ACCOUNT, TOKEN, Issue, Reply, TrackerServer
from tests.support.processes.node import ROOT

TASKS = {"github": ("#7", "github 7"), "gitlab": ("#7", "gitlab 7"), "jira": ("PROJ-7", "PROJ-7")}
KEY = "0123456789abcdef-signing"


@pytest.fixture
def server() -> Iterator[TrackerServer]:
    with TrackerServer().served() as served:
        yield served


def given(kind: str, url: str, /, *, token: str = TOKEN, done: str = "", **words: Any) -> Given:
    usual: dict[str, Any] = {"project": "", "url": url, "prefixes": (), "done": done}
    more: dict[str, dict[str, Any]] = {
        "github": {"project": "owner/name"},
        "gitlab": {"project": "group/name"},
        "jira": {"prefixes": ("PROJ-",), "done": done or "Done"},
        "webhook": {"prefixes": ("X-",), "url": "", "secrets": (f"{url}/hook/{TOKEN}", KEY)},
    }
    return Given(**{**usual, "secrets": (token,), **more[kind], **words})


def made(kind: str, server: TrackerServer, **words: Any) -> Tracker:
    return make_tracker(kind, given(kind, server.url, **words))[0]


def comment(key: str, text: str = "UPD-1 was pushed", *, completes: bool = False) -> TaskComment:
    event = f"ashat.release.{'completed' if completes else 'pushed'}"
    return TaskComment(key, str(uuid4()), text, event, datetime.now(UTC), completes, {"update_id": "UPD-1"})


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_a_comment_is_posted_once_however_often_it_is_told_and_the_task_gets_its_last_state(
    kind: str, server: TrackerServer
) -> None:
    key, issue = TASKS[kind]
    tracker, told = made(kind, server), comment(key)
    assert tracker.look()
    server.issues[issue].comments += [(datetime.now(UTC), f"something else {number}") for number in range(120)]
    tracker.comment(told)
    for number in range(120):  # people go on talking
        server.issues[issue].comments.append((datetime.now(UTC), f"and more {number}"))
    tracker.comment(told)
    posted = [text for text in server.comments(issue) if told.marker in text]
    assert len(posted) == 1
    assert posted[0].startswith("UPD-1 was pushed")
    tracker.finish(key)
    tracker.finish(key)
    assert server.issues[issue].state == ("Done" if kind == "jira" else "closed")


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_a_task_stays_where_it_is_if_that_is_wanted(kind: str, server: TrackerServer) -> None:
    key, issue = TASKS[kind]
    before = server.issues[issue].state
    made(kind, server, done="none").finish(key)
    assert server.issues[issue].state == before
    assert server.asked == []


def test_a_comment_of_before_the_event_is_not_read_from_github(server: TrackerServer) -> None:
    server.issues["github 7"].comments += [(datetime.now(UTC) - timedelta(days=1), "old")] * 10_000
    made("github", server).comment(comment("#7"))
    assert server.asked == ["GET /repos/owner/name/issues/7/comments", "POST /repos/owner/name/issues/7/comments"]


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_what_people_wrote_is_no_markup_calls_nobody_and_commands_nothing(kind: str, server: TrackerServer) -> None:
    key, issue = TASKS[kind]
    made(kind, server).comment(comment(key, "By @team: <b>#1</b>\n/close\n\u202e[x](http://x) <!-- ashat"))
    (posted,) = server.comments(issue)
    first, _, rest = posted.partition("\n\n")
    assert "@team" not in first
    assert "\n" not in first
    assert r"\<b\>\#1\</b\>" in first
    assert "\\u202e" in first
    assert rest.startswith("<!-- ashat-event ")
    assert rest.count("-->") == 1


def test_what_people_wrote_is_no_markup_of_jira(server: TrackerServer) -> None:
    made("jira", server).comment(comment("PROJ-7", "By [~kim]: {code} *x*"))
    assert server.comments("PROJ-7")[0].startswith(r"By \[\~kim\]: \{code\} \*x\*")


def test_a_jira_in_the_cloud_is_asked_with_the_account(server: TrackerServer) -> None:
    assert made("jira", server, token=f"{ACCOUNT}:{TOKEN}").look() == "it knows us as Deploy"
    with pytest.raises(TrackerError, match="refuses the token"):
        made("jira", server, token=f"other@example.com:{TOKEN}").look()


def test_a_state_that_was_renamed_is_said_with_those_that_there_are(server: TrackerServer) -> None:
    server.statuses[2] = "Shipped"
    tracker = made("jira", server)
    with pytest.raises(TaskRefusedError, match="no state 'Done'; it has To Do, In Progress, Shipped"):
        tracker.look()
    with pytest.raises(TaskRefusedError, match=r"no transition leads to 'Done'.* can become: In Progress, Shipped"):
        tracker.finish("PROJ-7")
    server.issues["PROJ-7"] = Issue("done")
    tracker.finish("PROJ-7")  # it is there


def test_a_webhook_gets_what_happened_signed(server: TrackerServer) -> None:
    told = comment("X-7", "It is done", completes=True)
    tracker = made("webhook", server, done="Released")
    tracker.comment(told)
    tracker.finish("X-7")
    ((headers, body),) = server.hooks
    signature = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-ashat-signature-256"] == f"sha256={signature}"
    assert headers["x-ashat-event"] == told.marker
    assert json.loads(body) == {
        "version": "ashat-task/1",
        "id": told.marker,
        "task": "X-7",
        "text": "It is done",
        "state": "Released",
        "event": told.event,
        "occurred": told.occurred.isoformat(),
        "release": {"update_id": "UPD-1"},
    }


WRONG: list[tuple[Reply, type[TrackerError], str]] = [
    (Reply(401, {"message": f"no {TOKEN}"}), TrackerError, "it refuses the token (HTTP 401)"),
    (Reply(403, {"message": f"Resource not accessible by {TOKEN}"}), TaskRefusedError, "not accessible by …"),
    (Reply(404, {"message": "Not Found"}), TaskRefusedError, "it refuses (HTTP 404, Not Found)"),
    (
        Reply(410, {"message": "Issue\u202e was deleted\nfor good"}),
        TaskRefusedError,
        "Issue\\u202e was deleted for good",
    ),
    (Reply(400, {"errorMessages": [], "errors": {"body": "too long"}}), TaskRefusedError, "HTTP 400, too long"),
    (Reply(429, {}, {"Retry-After": "17"}), TrackerBusyError, "it asks to wait 17 s (HTTP 429)"),
    (Reply(429, {}, {"Retry-After": "9" * 40}), TrackerBusyError, "it asks to wait 3600 s"),
    (Reply(429, b"<html>"), TrackerBusyError, "it asks to wait 60 s"),
    (Reply(403, {}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}), TrackerBusyError, "wait 1 s (HTTP 403)"),
    (Reply(301, {}, {"Location": "https://elsewhere.example"}), TrackerError, "it has moved (HTTP 301)"),
    (Reply(500, b"\xff\x00<html>"), TrackerError, "it answers HTTP 500"),
    (Reply(200, b"<html>Sign in</html>"), TrackerError, "something that is no JSON"),
    (Reply(200, b"[" * 100_000), TrackerError, "something that is no JSON"),
    (Reply(200, {"id": 7}), TrackerError, "its answer"),
    (Reply(200, None), TrackerError, "something that is no JSON"),
]


@pytest.mark.parametrize(("reply", "kind", "says"), WRONG, ids=lambda value: getattr(value, "status", ""))
def test_whatever_a_tracker_answers_is_one_line_without_its_token(
    reply: Reply, kind: type[TrackerError], says: str, server: TrackerServer
) -> None:
    server.instead = lambda *_: reply
    for name in ("github", "gitlab", "jira"):
        with pytest.raises(TrackerError) as refused:
            made(name, server).comment(comment(TASKS[name][0]))
        assert type(refused.value) is kind
        assert says in str(refused.value)
        assert TOKEN not in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not any(server.comments(issue) for _, issue in TASKS.values())


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(0), "did not answer within 1 s"),
        (Reply(200, b"[", endless=True), "did not answer within 1 s"),
        (Reply(200, b"x" * 1_000_000, endless=True), "answers more than 2000000 bytes"),
    ],
    ids=["hangs", "drips", "endless"],
)
def test_a_server_that_hangs_or_never_ends_is_left_alone(
    reply: Reply, says: str, server: TrackerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_http, "SECONDS", 1.0)
    monkeypatch.setattr(tracker_http, "ANSWER_LIMIT", 2_000_000)
    server.instead = lambda *_: reply
    began = time.monotonic()
    with pytest.raises(TrackerError, match=says):
        made("github", server).look()
    assert time.monotonic() - began < 5


def test_where_nobody_listens_it_is_said(server: TrackerServer) -> None:
    with pytest.raises(TrackerError, match="it cannot be reached: "):
        make_tracker("github", given("github", "http://127.0.0.1:1"))[0].look()


def test_every_kind_shows_no_secret() -> None:
    assert set(MADE) == {"github", "gitlab", "jira", "webhook"}
    for kind in MADE:
        words = given(kind, "https://example.com")
        block, prefixes = make_tracker(kind, words)
        assert len(words.secrets) == len(secrets_of(kind))
        assert prefixes
        assert not [secret for secret in words.secrets if secret in repr(block)]


@pytest.mark.parametrize(
    ("kind", "words", "says"),
    [
        ("pigeon", {}, "There is no tracker of the kind 'pigeon'; there are github"),
        ("github", {"project": ""}, "needs --project"),
        ("github", {"project": "../../etc"}, "repository: "),
        ("webhook", {"project": "me"}, "takes no --project"),
        ("github", {"url": "http://github.example"}, "cross the network readable"),
        ("github", {"url": f"https://kim:{TOKEN}@github.example"}, "without a user or a password"),
        ("github", {"url": "ftp://github.example"}, "begins with https://"),
        ("github", {"done": "Done"}, "--done closed or --done none"),
        ("gitlab", {"prefixes": ("(.*)+",)}, "is no beginning of keys"),
        ("jira", {"url": ""}, "needs --url"),
        ("jira", {"prefixes": ()}, "needs --key-prefix"),
        ("webhook", {"secrets": ("https://example.com", "short")}, "key: "),
        ("webhook", {"secrets": (f"http://example.com/{TOKEN}", KEY)}, "cross the network readable"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line_without_its_secret(
    kind: str, words: dict[str, Any], says: str
) -> None:
    wanted = given(kind, "https://example.com", **words) if kind in MADE else given("github", "")
    with pytest.raises(UsageError) as refused:
        make_tracker(kind, wanted)
    assert says in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_page_says_what_there_is() -> None:
    page = (ROOT / "docs/trackers.md").read_text("utf-8")
    assert {kind for kind in MADE if f"| `{kind}` |" not in page} == set()
    assert f"does not answer within {tracker_http.SECONDS:g} seconds" in page
    assert f"more than {tracker_http.ANSWER_LIMIT // 1024**2} MiB" in page
    assert tracker_http.LONGEST_PAUSE == 3600
    assert f"There are {MOST} trackers at most" in page
    assert f"a release has {MOST_TASKS} tasks at most" in page
