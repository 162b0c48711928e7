"""Requests the same several times, and compares what a release answers now with what it answered before.

What changes by itself must not alarm, so the values of an answer are not compared, but its status, its media type, and
the shape of its JSON: which keys are always there, and of which kind their values are. What varied before may vary
now. A `null` is taken for any kind, since a program that has just started may not know a value yet.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ashat.raos_toml.schema import Endpoint, RaosToml
from tasks.checks.kit.assertions import NoCredentialError, ProgramClient
from tasks.checks.kit.base import CheckContext, Finding, OutOfTimeError, one_line
from tasks.checks.kit.baseline import Baseline, SeenAnswers, as_declared
from tasks.checks.kit.http import Answer, NoAnswerError

ROUNDS = 6
# Of one answer; what takes longer than this twice is not requested a third time.
ANSWER_SECONDS = 5.0
_PATIENCE = 2
PLACES_LIMIT = 300
ALL_PLACES_LIMIT = 20_000
PLACE_LIMIT = 300
DEPTH_LIMIT = 8
ITEMS_LIMIT = 50
_PLACE_SHOWN = 100
# A key may hold what separates the keys of a place.
_ESCAPED = re.compile(r"[\\.\[]")
_DOT = re.compile(r"(?<!\\)(?:\\\\)*\.")


@dataclass
class Observed:
    """What was seen of each endpoint, in the order of the file."""

    answers: list[SeenAnswers] = field(default_factory=list)
    unasked: int = 0
    without_credential: list[str] = field(default_factory=list)


def askable(raos: RaosToml) -> list[Endpoint]:
    """List the declared endpoints that a further request does not change, each once: GET and HEAD, no body."""
    found: dict[tuple[str, ...], Endpoint] = {}
    for each in raos.endpoints:
        if each.method in ("GET", "HEAD") and each.body is None:
            found.setdefault((each.method, each.path, each.auth or ""), each)
    return list(found.values())


def observe(context: CheckContext, endpoints: Sequence[Endpoint], seconds: float, rounds: int = ROUNDS) -> Observed:
    """Request each of `endpoints` `rounds` times, one after the other in turn, for at most `seconds`.

    So each is requested once before any is a second time, and a failure of every second request shows.
    """
    limited = replace(context, deadline=min(context.deadline, time.monotonic() + seconds), time_limit=seconds)
    watched = [_Watched(endpoint) for endpoint in endpoints]
    with ProgramClient(limited) as client:
        try:
            for _ in range(rounds):
                for each in watched:
                    each.ask(client)
        except OutOfTimeError:
            pass  # what was not asked is counted, and a finding says it
        seen = [each.seen(client) for each in watched if each.asked]
    left = ALL_PLACES_LIMIT
    for number, each_seen in enumerate(seen):
        left -= len(each_seen.shape or ())
        if left < 0 and each_seen.shape:
            seen[number] = each_seen.model_copy(update={"shape": None})
    missing = [each.endpoint.auth or "" for each in watched if each.no_credential]
    unasked = sum(not each.asked and not each.no_credential for each in watched)
    return Observed(seen, unasked, sorted(set(missing)))


class _Watched:
    """One endpoint, and what it answered so far."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.asked = 0
        self.no_credential = False
        self._statuses: Counter[int] = Counter()
        self._trouble = ""
        self._types: list[str] = []
        self._sizes: list[int] = []
        self._shape = _Shape()
        self._not_json = ""

    def ask(self, client: ProgramClient) -> None:
        if self.no_credential or self._statuses[0] >= _PATIENCE:
            return
        limit = min(self.endpoint.time_limit, ANSWER_SECONDS)
        try:
            answer = client.ask(self.endpoint.model_copy(update={"time_limit": limit}))
        except NoCredentialError:
            self.no_credential = True
            return
        except NoAnswerError as error:
            self._statuses[0] += 1
            self._trouble = str(error)
        else:
            self._statuses[answer.status] += 1
            if as_declared(self.endpoint.status, answer.status):
                self._note(answer)
        self.asked += 1

    def _note(self, answer: Answer) -> None:
        media = media_type(answer)
        if media not in self._types:
            self._types.append(media)
        try:
            self._sizes.append(len(answer.content()))
        except ValueError:
            self._sizes.append(len(answer.body))
        if not is_json(media) or self.endpoint.method == "HEAD" or not answer.body:
            return
        try:
            self._shape.add(answer.json())
        except ValueError as error:
            self._not_json = str(error)

    def seen(self, client: ProgramClient) -> SeenAnswers:
        shape = self._shape.places() if self._shape.answers and not self._not_json else None
        hidden = {client.hide(place): kind for place, kind in shape.items()} if shape is not None else None
        return SeenAnswers(
            method=self.endpoint.method,
            path=self.endpoint.path,
            auth=self.endpoint.auth or "",
            declared=self.endpoint.status,
            statuses={status: count for status, count in sorted(self._statuses.items()) if count},
            trouble=one_line(client.hide(self._trouble)),
            types=sorted(one_line(client.hide(each), 80) for each in self._types),
            least_bytes=min(self._sizes, default=0),
            most_bytes=max(self._sizes, default=0),
            shape=hidden,
            not_json=one_line(client.hide(self._not_json)),
        )


def media_type(answer: Answer) -> str:
    """Read the media type that an answer declares, in lower case and without parameters; "" where it declares none."""
    declared: str = answer.headers.get("Content-Type", "")
    return declared.partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    """Tell whether that is a media type of JSON: RFC 8259's own, one with the suffix of RFC 6839, or the old text."""
    return media in ("application/json", "text/json") or media.endswith("+json")


class _Shape:
    """What stands at each place of several JSON answers: `json.items[].id` is the `id` of each item."""

    def __init__(self) -> None:
        self.answers = 0
        self._kinds: dict[str, set[str]] = {}
        # How many objects or lists stood at a place, and how many of them had each place below.
        self._holders: Counter[tuple[str, bool]] = Counter()
        self._held: Counter[str] = Counter()

    def add(self, value: Any) -> None:
        self.answers += 1
        self._walk("json", value, DEPTH_LIMIT)

    def places(self) -> dict[str, str]:
        """Return the kind of what stands at each place, with a `?` where it was not there in all of them."""
        found = {}
        for place, kinds in self._kinds.items():
            always = place == "json" or self._held[place] == self._holders[_above(place)]
            found[place] = "|".join(sorted(kinds)) + ("" if always else "?")
        return found

    def _walk(self, place: str, value: Any, depth: int) -> None:
        if len(place) > PLACE_LIMIT or (place not in self._kinds and len(self._kinds) >= PLACES_LIMIT):
            return
        self._kinds.setdefault(place, set()).add(_kind(value))
        if depth == 0:
            return
        if isinstance(value, Mapping):
            self._holders[place, False] += 1
            for key, item in value.items():
                below = f"{place}.{_ESCAPED.sub(_escape, one_line(key, _PLACE_SHOWN))}"
                self._held[below] += 1
                self._walk(below, item, depth - 1)
        elif isinstance(value, list):
            self._holders[place, True] += 1
            self._held[f"{place}[]"] += bool(value)
            for item in value[:ITEMS_LIMIT]:
                self._walk(f"{place}[]", item, depth - 1)


def shape_of(*values: Any) -> dict[str, str]:
    """Describe what stands at each place of `values`: a kind, or several (`null|text`), and `?` if only at times."""
    shape = _Shape()
    for value in values:
        shape.add(value)
    return shape.places()


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "text" if isinstance(value, str) else "list" if isinstance(value, list) else "object"


def compare_answers(before: Baseline | None, now: Observed) -> Iterator[Finding]:
    """Find what the release before, which runs again, answers otherwise than before the new one came.

    Without `before` its answers can be compared with what it declares only.
    """
    known = {seen.key: seen for seen in before.answers} if before else {}
    for seen in now.answers:
        was = known.get(seen.key)
        yield from _failing(seen, was)
        if was is not None and was.failed < was.asked and seen.failed < seen.asked:
            yield from _changed(seen, was)
    if now.unasked:
        text = f"{now.unasked} endpoints of the release before were not requested: its answers took too long"
        yield Finding("low", text, unseen=True)
    for name in now.without_credential:
        text = f"what the release before answers with the credential {name} was not looked at: the policy has none"
        yield Finding("low", text, unseen=True)


def _failing(seen: SeenAnswers, was: SeenAnswers | None) -> Iterator[Finding]:
    if not seen.failed:
        return
    how = f"{seen.failed} of {seen.asked} requests fail, {_failures(seen)}"
    if was is None:
        told = f"instead of the {seen.declared} that it declares; what it answered before the new one came is not known"
        yield Finding("high", f"{seen.label}: back on the release before, {how} {told}")
    elif was.failed and not _worse(seen, was):
        text = f"{seen.label}: back on the release before, {how}, as {was.failed} of {was.asked} did before, too"
        yield Finding("medium", f"{text}: the way back leads to a release that fails")
    else:
        answered = "was answered" if not was.failed else f"failed {was.failed} times of {was.asked}"
        text = f"{seen.label} {answered} before the new release came; back on the release before, {how}"
        yield Finding("high", f"{text}: what the new release left behind, such as its migrations, breaks it")


def _worse(seen: SeenAnswers, was: SeenAnswers) -> bool:
    """Tell whether it fails otherwise than before, or more than twice as often."""
    new = set(seen.failures) - set(was.failures)
    return bool(new) or seen.failed * was.asked > 2 * was.failed * seen.asked


def _failures(seen: SeenAnswers) -> str:
    told = [f"status {status}" if status else seen.trouble or "no answer" for status in seen.failures]
    return " and ".join(told)


def _changed(seen: SeenAnswers, was: SeenAnswers) -> Iterator[Finding]:
    since = "back on the release before"
    if was.types and seen.types and not set(was.types) & set(seen.types):
        types = f"{' or '.join(map(_type, seen.types))} instead of {' or '.join(map(_type, was.types))}"
        yield Finding("medium", f"{seen.label}: {since}, its answer is of the type {types}")
    if was.shape is not None and seen.not_json:
        yield Finding("high", f"{seen.label}: {since}, its answer is {seen.not_json}; it was JSON")
    elif was.least_bytes and not seen.most_bytes and seen.method != "HEAD":
        yield Finding("medium", f"{seen.label}: {since}, its answer is empty; it had {was.least_bytes} bytes")
    elif was.shape is not None and seen.shape is not None:
        for trouble in shape_differences(was.shape, seen.shape):
            yield Finding("medium", f"{seen.label}: {since}, {trouble}")


def _type(media: str) -> str:
    return media or "none"


def shape_differences(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Describe what stood in every answer and stands in none, and what has another kind; the outermost of each."""
    whole = len(now) < PLACES_LIMIT
    for place, kinds in was.items():
        above, item = _above(place)
        if place in now:
            yield from _kinds_differ(place, _set(kinds), _set(now[place]))
        elif kinds.endswith("?") or above not in now or not whole:
            continue
        elif item and "list" in _set(now[above]):
            yield f"{above} is an empty list; it was not before"
        elif not item and "object" in _set(now[above]):
            yield f"{place} is missing"


def _kinds_differ(place: str, was: set[str], now: set[str]) -> Iterable[str]:
    if was & now or "null" in was | now:
        return ()
    return (f"{place} is {_article(now)} instead of {_article(was)}",)


def _article(kinds: set[str]) -> str:
    return " or ".join(f"{'an' if kind == 'object' else 'a'} {kind}" for kind in sorted(kinds))


def _set(kinds: str) -> set[str]:
    return set(kinds.removesuffix("?").split("|"))


def _escape(character: re.Match[str]) -> str:
    return f"\\{character[0]}"


def _above(place: str) -> tuple[str, bool]:
    """The place that holds this one, and whether this is an item of a list there."""
    if place.endswith("[]") and not place.endswith("\\[]"):
        return place[:-2], True
    dots = [dot.end() - 1 for dot in _DOT.finditer(place)]
    return place[: dots[-1]] if dots else "", False
