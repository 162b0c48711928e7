"""Finds credentials in text, with detect-secrets' detectors.

Only the detectors are used, not its `scan`: that keeps global settings, wants files on disk, and runs each pattern
on each line. Here a pattern runs once over a whole text, several times faster. Left out are the detectors by entropy,
of IP addresses and of Artifactory (nearly all they report is none), and those of Cloudant, IBM Cloud and SoftLayer
(two thirds of the time, for services that nobody here uses). What is found is named, never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.keyword import DENYLIST, KeywordDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.private_key import PrivateKeyDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

_TOKENS: tuple[RegexBasedDetector, ...] = (
    AWSKeyDetector(),
    AzureStorageKeyDetector(),
    BasicAuthDetector(),
    DiscordBotTokenDetector(),
    GitHubTokenDetector(),
    GitLabTokenDetector(),
    JwtTokenDetector(),
    MailchimpDetector(),
    NpmDetector(),
    OpenAIDetector(),
    PrivateKeyDetector(),
    PypiTokenDetector(),
    SendGridDetector(),
    SlackDetector(),
    SquareOAuthDetector(),
    StripeDetector(),
    TelegramBotTokenDetector(),
    TwilioKeyDetector(),
)
# What these match is often an example or a name, so a person decides.
_UNSURE = (BasicAuthDetector, TwilioKeyDetector)
_PATTERNS = tuple((detector, pattern) for detector in _TOKENS for pattern in detector.denylist)
_KEYWORD = KeywordDetector()
_KEYWORD_NAME = re.compile("|".join(DENYLIST), re.IGNORECASE)
# A part of each of those names (key, pass, pwd, secret, contrase), in the form that `re` finds ten times faster.
KEYWORD_HINT = re.compile(
    "[kKpPsScC](?:[eE][yY]|[aA][sS][sS]|[wW][dD]|[eE][cC][rR][eE][tT]|[oO][nN][tT][rR][aA][sS][eE])"
)
_ASSIGNMENT_LIMIT = 2_000
_LINE_LIMIT = 2_048
_OVERLAP = 512


@dataclass(frozen=True)
class Secret:
    """A credential in a text: its kind and line. `sure` is False where it may well be an example or a mere name."""

    kind: str
    line: int
    sure: bool


def find_secrets(text: str, filename: str = "") -> list[Secret]:
    """Find the credentials in `text`, at most one of each kind and line, in order.

    `filename` tells how assignments are written there; lines over 2,000 characters are not searched for those.
    """
    found: set[Secret] = set()
    for first_line, segment in _segments(text):
        for detector, pattern in _PATTERNS:
            for match in pattern.finditer(segment):
                if any(detector.analyze_string(match.group())):
                    line = first_line + segment.count("\n", 0, match.start())
                    found.add(Secret(detector.secret_type, line, not isinstance(detector, _UNSURE)))
    known = {secret.line for secret in found}
    found |= {Secret(_KEYWORD.secret_type, line, False) for line in _assignments(text, filename) if line not in known}
    return sorted(found, key=lambda secret: (secret.line, secret.kind))


def _segments(text: str) -> Iterator[tuple[int, str]]:
    """Split `text` into pieces without a line over 2 KB, each with the number of its first line.

    Some patterns take time by the square of a line's length, and a stranger chooses the lines. Pieces of one line
    overlap by more than nearly any credential is long.
    """
    lines = text.split("\n")
    if max(map(len, lines)) <= _LINE_LIMIT:
        yield 1, text
        return
    for number, line in enumerate(lines, start=1):
        for start in range(0, max(1, len(line) - _OVERLAP), _LINE_LIMIT - _OVERLAP):
            yield number, line[start : start + _LINE_LIMIT]


def _assignments(text: str, filename: str) -> Iterator[int]:
    """Find the lines where a name such as `password` is given a value."""
    position, number = 0, 1
    while match := KEYWORD_HINT.search(text, position):
        start = text.rfind("\n", position, match.start()) + 1 or position
        end = text.find("\n", match.end())
        end = end if end >= 0 else len(text)
        number += text.count("\n", position, start)
        line = text[start:end] if end - start <= _ASSIGNMENT_LIMIT else ""
        if _KEYWORD_NAME.search(line) and _KEYWORD.analyze_line(filename=filename, line=line):
            yield number
        position, number = end + 1, number + 1
