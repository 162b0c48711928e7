"""Make the block of a tracker out of what an operator gives, and keep the list of those that were made.

The list is a variable of Prefect, as that of the channels is: a push reads from it which keys there are, without the
blocks, which hold the secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from prefect.variables import Variable
from pydantic import SecretStr, ValidationError

from ashat.common.trackers import MOST, PREFIX, VARIABLE, as_variable, trackers_of
from ashat.common.trackers import Tracker as Listed
from ashat.errors import UsageError
from blocks.find import delete_block
from blocks.tracker_http import usable_url
from blocks.trackers import GITHUB, GITLAB, GitHubTracker, GitLabTracker, JiraTracker, Tracker, WebhookTracker

STAYS = "none"


class Given(NamedTuple):
    """What an operator gives for a tracker: where it is (`url`), which `project` or repository, what its keys begin
    with, the state that a task gets once it is completed ("": the usual), and its secrets."""

    project: str
    url: str
    prefixes: tuple[str, ...]
    done: str
    secrets: tuple[str, ...]


class Kind(NamedTuple):
    """A kind of tracker: what its secrets are called, which words it `needs` and `takes`, what its keys usually begin
    with, and how its block is made."""

    secrets: tuple[str, ...]
    needs: frozenset[str]
    takes: frozenset[str]
    prefixes: tuple[str, ...]
    make: Callable[[Given], Tracker]


def secrets_of(kind: str) -> tuple[str, ...]:
    """Name the secrets that a tracker of that kind has, in the order in which they are asked for."""
    return _kind(kind).secrets


def make_tracker(kind: str, given: Given) -> tuple[Tracker, tuple[str, ...]]:
    """Make the block of a tracker, and say what its keys begin with; nothing is kept.

    Raises:
        UsageError: the kind is unknown, a word is missing or makes no sense for it.
    """
    found = _kind(kind)
    words = {
        "--project": given.project,
        "--url": given.url,
        "--key-prefix": given.prefixes,
    }
    present = {word for word, value in words.items() if value}
    if missing := sorted(found.needs - present):
        raise UsageError(f"A tracker of the kind {kind} needs {' and '.join(missing)}.")
    if unknown := sorted(present - found.needs - found.takes):
        raise UsageError(f"A tracker of the kind {kind} takes no {' and no '.join(unknown)}.")
    prefixes = given.prefixes or found.prefixes
    for prefix in prefixes:
        if not PREFIX.fullmatch(prefix):
            raise UsageError(f"{prefix[:40]!r} is no beginning of keys: give one such as '#', GH- or PROJ-.")
    try:
        return found.make(given), prefixes
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"That is no tracker of the kind {kind}: {field}: {first['msg']}.") from None
    except ValueError as error:
        raise UsageError(f"That is no tracker of the kind {kind}: {error}.") from None


def save_tracker(block: Tracker, kind: str, name: str, prefixes: tuple[str, ...]) -> Listed:
    """Keep the block under that name, in the place of one that was there, and list it; the tracker.

    Raises:
        UsageError: another tracker has keys that begin so, or there are as many as there may be.
    """
    tracker = Listed(f"{block.get_block_type_slug()}/{name}", kind, prefixes)
    others = [one for one in trackers_of(Variable.get(VARIABLE)) if one.block != tracker.block]
    for one in others:
        if shared := [prefix for prefix in prefixes if prefix in one.prefixes]:
            raise UsageError(
                f"Keys that begin with {shared[0]} are those of {one.block}: give this one others, by --key-prefix."
            )
    if len(others) >= MOST:
        raise UsageError(f"There are {MOST} trackers, as many as there may be: remove one, by deploy tracker remove.")
    block.save(name, overwrite=True)
    Variable.set(VARIABLE, as_variable([*others, tracker]), overwrite=True)
    return tracker


def remove_tracker(tracker: Listed) -> None:
    """Take a tracker from the list, and delete its block."""
    others = [one for one in trackers_of(Variable.get(VARIABLE)) if one.block != tracker.block]
    Variable.set(VARIABLE, as_variable(others), overwrite=True)
    delete_block(tracker.block)


def _kind(name: str) -> Kind:
    if name not in MADE:
        raise UsageError(f"There is no tracker of the kind {name!r}; there are {', '.join(sorted(MADE))}.")
    return MADE[name]


def _closes(given: Given) -> Literal["closed", ""]:
    """Read the last state of a tracker that has only one.

    Raises:
        ValueError: it is another.
    """
    if given.done not in ("", "closed", STAYS):
        raise ValueError(f"its issues are closed, or stay as they are: --done closed or --done {STAYS}")
    return "" if given.done == STAYS else "closed"


def _state(given: Given) -> str:
    return "" if given.done == STAYS else given.done


def _jira(given: Given) -> Tracker:
    """Take an e-mail address and its API token, as the cloud's are used, or a personal access token alone."""
    account, _, token = given.secrets[0].rpartition(":")
    return JiraTracker(url=given.url, account=account, token=SecretStr(token), done=_state(given))


def _webhook(given: Given) -> Tracker:
    address, key = (SecretStr(secret) for secret in given.secrets)
    usable_url(given.secrets[0])
    return WebhookTracker(address=address, key=key, done=_state(given))


_PROJECT, _URL, _PREFIX = "--project", "--url", "--key-prefix"

MADE: dict[str, Kind] = {
    "github": Kind(
        ("token",),
        frozenset({_PROJECT}),
        frozenset({_URL, _PREFIX}),
        ("#", "GH-"),
        lambda given: GitHubTracker(
            repository=given.project, token=SecretStr(given.secrets[0]), url=given.url or GITHUB, done=_closes(given)
        ),
    ),
    "gitlab": Kind(
        ("token",),
        frozenset({_PROJECT}),
        frozenset({_URL, _PREFIX}),
        ("#",),
        lambda given: GitLabTracker(
            project=given.project, token=SecretStr(given.secrets[0]), url=given.url or GITLAB, done=_closes(given)
        ),
    ),
    "jira": Kind(
        ("token, in the cloud EMAIL:TOKEN",),
        frozenset({_URL, _PREFIX}),
        frozenset(),
        (),
        _jira,
    ),
    "webhook": Kind(("address", "signing key"), frozenset({_PREFIX}), frozenset(), (), _webhook),
}
