"""Trackers of tasks: GitHub Issues, GitLab, Jira, and whatever takes a signed webhook.

Each posts a comment on a task and moves it to the state that it gets once a release is completed. What the API is
asked is what its vendor documents: https://docs.github.com/rest/issues, https://docs.gitlab.com/api/notes,
https://developer.atlassian.com/cloud/jira/platform/rest/v2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import quote

from prefect.blocks.core import Block
from pydantic import AfterValidator, Field, SecretStr

from ashat.common.text import cut, printable
from ashat.common.trackers import TaskComment
from ashat.errors import TaskRefusedError, TrackerError
from blocks.tracker_http import TrackerApi, usable_url

GITHUB = "https://api.github.com"
GITLAB = "https://gitlab.com"
_PAGE = 50
_PAGES = 4
_CLOCKS = timedelta(hours=1)
_MARKDOWN = re.compile(r"([\\`*_\[\]<>~#|!&])")
_WIKI = re.compile(r"([\\{}\[\]~!|*_^+])")
_NUMBER = re.compile(r"[0-9]{1,10}\Z")

Address = Annotated[str, AfterValidator(usable_url)]


class Tracker(Block):
    """What the flows ask of a tracker."""

    @abstractmethod
    def comment(self, comment: TaskComment) -> None:
        """Post the comment, unless one with its marker is there; a webhook gets it each time.

        Raises:
            TrackerError: it was not posted, and why; a TaskRefusedError for this task alone.
        """

    @abstractmethod
    def finish(self, key: str) -> None:
        """Move the task to its last state, where one is set. Raises as `comment`."""

    @abstractmethod
    def look(self) -> str:
        """Ask the tracker whether it knows us, and its last state where that can be known; what it said, in a line.
        Raises as `comment`."""


class GitHubTracker(Tracker):
    """
    The issues of a repository on GitHub.

    Example:
        ```python
        from blocks.trackers import GitHubTracker

        GitHubTracker.load("BLOCK_NAME").look()
        ```
    """

    _block_type_name = "RaOS GitHub Tracker"
    _block_type_slug = "raos-github-tracker"
    _description = "The issues of a repository on GitHub, which hear of a release that brings them."

    repository: str = Field(
        title="Repository", pattern=r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", description="As owner/name."
    )
    url: Address = Field(default=GITHUB, title="API", description="Of a GitHub of your own: https://HOST/api/v3.")
    token: SecretStr = Field(title="Token", description="One that may read and write issues.")
    done: Literal["closed", ""] = Field(
        default="closed", title="State when completed", description="closed, or empty: it stays as it is."
    )

    def comment(self, comment: TaskComment) -> None:
        """Post the comment, unless it is there. Raises as `Tracker.comment`."""
        path = f"{self._issue(comment.key)}/comments"
        since = (comment.occurred - _CLOCKS).strftime("%Y-%m-%dT%H:%M:%SZ")
        api = self._api()
        pages = (api.get(path, since=since, per_page=_PAGE, page=page) for page in range(1, _PAGES + 1))
        if not _has_marker(pages, comment.marker):
            _require(api.send("POST", path, {"body": _in_markdown(comment)}), "id")

    def finish(self, key: str) -> None:
        """Close the issue, where that is wanted. Raises as `Tracker.comment`."""
        if self.done:
            _require(self._api().send("PATCH", self._issue(key), {"state": self.done}), "id")

    def look(self) -> str:
        """Ask for the repository. Raises as `Tracker.comment`."""
        found = _require(self._api().get(f"/repos/{self.repository}"), "full_name")
        return f"the repository {_short(found['full_name'])} is there"

    def _issue(self, key: str) -> str:
        return f"/repos/{self.repository}/issues/{_number(key)}"

    def _api(self) -> TrackerApi:
        token = self.token.get_secret_value()
        headers = {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"}
        return TrackerApi(self.url, headers, (token,))


class GitLabTracker(Tracker):
    """
    The issues of a project on GitLab.

    Example:
        ```python
        from blocks.trackers import GitLabTracker

        GitLabTracker.load("BLOCK_NAME").look()
        ```
    """

    _block_type_name = "RaOS GitLab Tracker"
    _block_type_slug = "raos-gitlab-tracker"
    _description = "The issues of a project on GitLab, which hear of a release that brings them."

    project: str = Field(
        title="Project",
        pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$",
        description="As group/name, or its number.",
    )
    url: Address = Field(default=GITLAB, title="Address", description="Of a GitLab of your own: its own.")
    token: SecretStr = Field(title="Token", description="An access token with the scope api.")
    done: Literal["closed", ""] = Field(
        default="closed", title="State when completed", description="closed, or empty: it stays as it is."
    )

    def comment(self, comment: TaskComment) -> None:
        """Post the note, unless it is there. Raises as `Tracker.comment`."""
        path = f"{self._issue(comment.key)}/notes"
        api = self._api()
        order = {"sort": "desc", "order_by": "created_at"}
        pages = (api.get(path, per_page=_PAGE, page=page, **order) for page in range(1, _PAGES + 1))
        if not _has_marker(pages, comment.marker):
            _require(api.send("POST", path, {"body": _in_markdown(comment)}), "id")

    def finish(self, key: str) -> None:
        """Close the issue, where that is wanted. Raises as `Tracker.comment`."""
        if self.done:
            _require(self._api().send("PUT", self._issue(key), {"state_event": "close"}), "id")

    def look(self) -> str:
        """Ask for the project. Raises as `Tracker.comment`."""
        found = _require(self._api().get(self._project()), "path_with_namespace")
        return f"the project {_short(found['path_with_namespace'])} is there"

    def _project(self) -> str:
        return f"/api/v4/projects/{quote(self.project, safe='')}"

    def _issue(self, key: str) -> str:
        return f"{self._project()}/issues/{_number(key)}"

    def _api(self) -> TrackerApi:
        token = self.token.get_secret_value()
        return TrackerApi(self.url, {"PRIVATE-TOKEN": token}, (token,))


class JiraTracker(Tracker):
    """
    The work items of a Jira, in the cloud or of one's own.

    Example:
        ```python
        from blocks.trackers import JiraTracker

        JiraTracker.load("BLOCK_NAME").look()
        ```
    """

    _block_type_name = "RaOS Jira Tracker"
    _block_type_slug = "raos-jira-tracker"
    _description = "The work items of a Jira, which hear of a release that brings them."

    url: Address = Field(title="Address", description="Such as https://example.atlassian.net.")
    account: str = Field(
        default="",
        title="Account",
        pattern=r"^[^:\s]*$",
        description="In the cloud: the e-mail address whose API token it is. Empty: a personal access token.",
    )
    token: SecretStr = Field(title="Token", description="The API token, or the personal access token.")
    done: str = Field(
        default="",
        title="State when completed",
        max_length=100,
        description="The status, such as Done; empty: it stays as it is.",
    )

    def comment(self, comment: TaskComment) -> None:
        """Post the comment, unless it is there. Raises as `Tracker.comment`."""
        path = f"{self._issue(comment.key)}/comment"
        api = self._api()
        starts = range(0, _PAGE * _PAGES, _PAGE)
        answers = (api.get(path, orderBy="-created", maxResults=_PAGE, startAt=start) for start in starts)
        pages = (_require(answer, "comments")["comments"] for answer in answers)
        if not _has_marker(pages, comment.marker):
            text = _WIKI.sub(r"\\\1", printable(comment.text))
            _require(api.send("POST", path, {"body": f"{text}\n\n(ashat-event {comment.marker})"}), "id")

    def finish(self, key: str) -> None:
        """Take the transition that leads to the last state, unless the task is there. Raises as `Tracker.comment`."""
        if not self.done:
            return
        api = self._api()
        found = _require(api.get(self._issue(key), fields="status"), "fields")["fields"]
        if _name(found.get("status") if isinstance(found, dict) else None).casefold() == self.done.casefold():
            return
        path = f"{self._issue(key)}/transitions"
        listed = [one for one in _list(_require(api.get(path), "transitions")["transitions"]) if isinstance(one, dict)]
        leads = [
            one for one in listed if self.done.casefold() in (_name(one.get("to")).casefold(), _name(one).casefold())
        ]
        if not leads:
            known = ", ".join(dict.fromkeys(_short(_name(one.get("to"))) for one in listed)) or "none"
            raise TaskRefusedError(
                f"no transition leads to {self.done!r}; from where it is, it can become: {cut(known, 200)}. "
                "Was the state renamed? deploy tracker add says another one",
                404,
            )
        api.send("POST", path, {"transition": {"id": str(leads[0].get("id", ""))[:40]}})

    def look(self) -> str:
        """Ask who we are, and whether the last state is one. Raises as `Tracker.comment`."""
        api = self._api()
        me = _require(api.get("/rest/api/2/myself"), "displayName")
        if self.done:
            names = [_name(one) for one in _list(api.get("/rest/api/2/status"))]
            if self.done.casefold() not in (name.casefold() for name in names):
                known = cut(", ".join(dict.fromkeys(map(_short, names))), 200)
                raise TaskRefusedError(f"it has no state {self.done!r}; it has {known or 'none'}", 404)
        return f"it knows us as {_short(me['displayName'])}"

    def _issue(self, key: str) -> str:
        return f"/rest/api/2/issue/{quote(key, safe='')}"

    def _api(self) -> TrackerApi:
        token = self.token.get_secret_value()
        basic = base64.b64encode(f"{self.account}:{token}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}" if self.account else f"Bearer {token}"}
        return TrackerApi(self.url, headers, (token, basic))


class WebhookTracker(Tracker):
    """
    Whatever takes a POST of JSON, signed by HMAC-SHA-256 in the header X-Ashat-Signature-256.

    Example:
        ```python
        from blocks.trackers import WebhookTracker

        WebhookTracker.load("BLOCK_NAME").look()
        ```
    """

    _block_type_name = "RaOS Webhook Tracker"
    _block_type_slug = "raos-webhook-tracker"
    _description = "What takes a signed POST at each stage of a release that brings its tasks."

    address: SecretStr = Field(title="Address", description="It gets a POST of JSON.")
    key: SecretStr = Field(title="Signing key", description="The HMAC's key, 16 characters at least.", min_length=16)
    done: str = Field(default="", title="State when completed", max_length=100, description="Sent as state.")

    def comment(self, comment: TaskComment) -> None:
        """Post what happened; its id says whether it is known. Raises as `Tracker.comment`."""
        self._post(comment.marker, {"task": comment.key, "text": comment.text, **self._more(comment)})

    def finish(self, key: str) -> None:
        """Do nothing: the state was posted with what happened."""

    def look(self) -> str:
        """Post the event `ashat.test`. Raises as `Tracker.comment`."""
        self._post("test", {"event": "ashat.test"})
        return "it took a signed POST"

    def _more(self, comment: TaskComment) -> dict[str, Any]:
        state = self.done if comment.completes and self.done else None
        occurred = comment.occurred.isoformat()
        return {"event": comment.event, "occurred": occurred, "state": state, "release": dict(comment.payload)}

    def _post(self, marker: str, what: dict[str, Any]) -> None:
        address, key = self.address.get_secret_value(), self.key.get_secret_value()
        body = json.dumps({"version": "ashat-task/1", "id": marker, **what}, ensure_ascii=False).encode()
        signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-Ashat-Event": marker,
            "X-Ashat-Signature-256": f"sha256={signature}",
        }
        TrackerApi(usable_url(address), headers, (address, key)).ask("POST", "", content=body)


def _has_marker(pages: Iterable[object], marker: str) -> bool:
    """Say whether a comment has the marker; the pages end with the first that is not full."""
    for page in pages:
        comments = _list(page)
        if any(marker in text for text in _bodies(comments)):
            return True
        if len(comments) < _PAGE:
            return False
    return False


def _bodies(comments: list[Any]) -> Iterator[str]:
    for comment in comments:
        body = comment.get("body") if isinstance(comment, dict) else None
        if isinstance(body, str):
            yield body


def _in_markdown(comment: TaskComment) -> str:
    """Write it such that nothing in it is markup, or calls somebody; the marker is not seen."""
    text = _MARKDOWN.sub(r"\\\1", printable(comment.text)).replace("@", "@<!-- -->")
    return f"{text}\n\n<!-- ashat-event {comment.marker} -->"


def _require(answer: object, field: str) -> dict[str, Any]:
    """Return an answer that has that field.

    Raises:
        TrackerError: it has none, as one of something else.
    """
    if not isinstance(answer, dict) or field not in answer:
        raise TrackerError(f"its answer has no {field}: is that the address of its API?")
    return answer


def _list(answer: object) -> list[Any]:
    if not isinstance(answer, list):
        raise TrackerError("its answer is no list: is that the address of its API?")
    return answer


def _name(found: object) -> str:
    name = found.get("name") if isinstance(found, dict) else None
    return name if isinstance(name, str) else ""


def _short(text: object) -> str:
    return cut(printable(str(text)), 60)


def _number(key: str) -> str:
    found = _NUMBER.search(key)
    if found is None:
        raise TaskRefusedError(f"{key} has no number", 404)
    return found[0]
