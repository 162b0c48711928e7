"""Writes values as `[[kept]]` of raos.toml declares, and looks whether they can be read later, by another release."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ashat.raos_toml.schema import Kept, RaosToml, Request
from tasks.checks.kit.assertions import NoCredentialError, ProgramClient
from tasks.checks.kit.base import CheckContext, Finding, OutOfTimeError
from tasks.checks.kit.baseline import WrittenValue
from tasks.checks.kit.http import Answer, NoAnswerError

SECONDS = 20.0
_PLACE = "{value}"


@dataclass
class KeptValues:
    """The values that were written so far, and what is wrong with them. `reads` counts what was looked at."""

    written: list[WrittenValue] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    reads: int = 0

    def write(self, context: CheckContext, raos: RaosToml | None, by: str) -> None:
        """Write a value for each `[[kept]]` of the release that runs now, which is `raos` and called `by`."""
        with ProgramClient(_limited(context)) as client:
            for kept in raos.kept if raos else ():
                value = f"ashat-{secrets.token_hex(8)}"
                trouble, unseen = _ask(client, kept, value)
                if not trouble and not unseen:
                    self.written.append(WrittenValue(name=kept.name, value=value, by=by))
                text = f"{kept.name}: {by} took no value at {kept.method} {kept.path}: {trouble or unseen}"
                if trouble or unseen:
                    self.findings.append(Finding("low" if unseen else "high", client.hide(text), unseen=bool(unseen)))

    def read(self, context: CheckContext, raos: RaosToml | None, who: str) -> None:
        """Read every value that was written, of the `[[kept]]` of the release that runs now, called `who`."""
        by_name = {kept.name: kept for kept in raos.kept} if raos else {}
        with ProgramClient(_limited(context)) as client:
            for written in self.written:
                kept = by_name.get(written.name)
                if kept is not None:
                    self.reads += 1
                    self.findings += _missing(client, kept, written, who)
        undeclared = sorted({each.name for each in self.written if each.name not in by_name})
        for name in undeclared:
            text = f"{name}: whether {who} still has the value was not looked at: its raos.toml has no such [[kept]]"
            self.findings.append(Finding("low", text, unseen=True))


def _limited(context: CheckContext) -> CheckContext:
    return replace(context, deadline=min(context.deadline, time.monotonic() + SECONDS), time_limit=SECONDS)


def _ask(client: ProgramClient, kept: Kept, value: str) -> tuple[str, str]:
    """Write the value; return what is wrong, and why it was not tried."""
    body, path = _filled(kept.body, value), kept.path.replace(_PLACE, value)
    request = Request(name=kept.name, method=kept.method, path=path, body=body, auth=kept.auth)
    try:
        answer = client.ask(request)
    except NoCredentialError as error:
        return "", str(error)
    except (NoAnswerError, OutOfTimeError) as error:
        return str(error), ""
    return ("" if 200 <= answer.status < 300 else f"status {answer.status}"), ""


def _missing(client: ProgramClient, kept: Kept, written: WrittenValue, who: str) -> Iterator[Finding]:
    path = kept.read.replace(_PLACE, written.value)
    request = Request(name=kept.name, path=path, auth=kept.auth)
    try:
        answer = client.ask(request)
        trouble = "" if _holds(answer, written.value) else f"it is not in the answer, of status {answer.status}"
    except NoCredentialError as error:
        yield Finding("low", client.hide(f"{kept.name}: the value was not looked for: {error}"), unseen=True)
        return
    except (NoAnswerError, OutOfTimeError) as error:
        trouble = str(error)
    if trouble:
        text = f"{kept.name}: the value that {written.by} wrote is lost to {who} at GET {kept.read}: {trouble}"
        yield Finding("high", client.hide(text))


def _holds(answer: Answer, value: str) -> bool:
    try:
        return 200 <= answer.status < 300 and value.encode("ascii") in answer.content()
    except ValueError:
        return False


def _filled(body: Any, value: str) -> Any:
    if isinstance(body, str):
        return body.replace(_PLACE, value)
    if isinstance(body, dict):
        return {key: _filled(each, value) for key, each in body.items()}
    if isinstance(body, Sequence):
        return [_filled(each, value) for each in body]
    return body
