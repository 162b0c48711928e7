"""Finds credentials in content of any kind, by Kingfisher's rules, by ours, and by names that values are given to.

What the rules run over are the readings of the content (`decoding`): text, escapes, encodings. Kingfisher runs in this
process, asks nobody, and takes time by the length of the content only. Comments in a release that ask to be ignored are
not heeded, nor is what a path is called. What is found is named, never shown.
"""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kingfisher_sdk import DetectionPolicy, Finding, Rules, Scanner

from ashat.common.documents import load_json
from ashat.errors import DocumentError
from tasks.checks.scan.assignments import assigned_secrets, basic_credentials, hashed_passwords
from tasks.checks.scan.containers import Opening, members
from tasks.checks.scan.decoding import DECODED_LIMIT, RUN_LIMIT, Reading, readings
from tasks.checks.scan.key_files import key_in
from tasks.checks.scan.placed_passwords import placed_passwords
from tasks.checks.scan.published import is_published
from tasks.checks.scan.token_rules import TOKEN_RULES, as_document

TEXT_LIMIT = 1024 * 1024
OVERLAP = 64 * 1024
SECONDS = 60.0
MEMBERS_LIMIT = 1_000
BY_NAME = "a password or key by its name"

# What these match is often an example or a name, or is meant to be public, so a person decides.
_UNSURE = re.compile(
    r"generic-credential-uri|gcp-api-key|gcp-gemini|curl-auth|jwt|kubernetes-secret|discord-client|test-api-token"
)
# Names of accounts and keys for browsers open nothing by themselves.
_PUBLIC = re.compile(
    r"(?:client|access|account|application|app|key|token|tenant|user-api)-id$|-pub(?:lic)?-|(?<!webhook)-url$|-host\.?\d?$|-name\.?\d?$"
    r"|client-side|browser-api-token|project-api-key$|polymarket-address|sdk-key|username|-repository$|domain"
)
_URI = re.compile(
    r"//[^/@\s]*@(?:localhost|127\.|0\.0\.0\.0|\[::1\]|[\w.-]*example\b|host\b|hostname\b|server\b|domain\b|(?:\w+\.)?(?:foo|bar)\b)"
)
_WEAK = re.compile(
    r"(?:my|your|the|db|some)?[-_]?(?:pass(?:w(?:or)?d)?|pw|pwd|secret|token|p4ss\w*|p%40ss\w*|pass\w{0,3}|he%2f%2fo)\d{0,3}|[\W_x]*"
    r"|.*(?:[{<$*]|%s|%\(|\.\.\.|\\$|example|changeme|[,(]).*|.{1,4}",
    re.IGNORECASE,
)
# Brackets end a credential as blanks do, but not every rule knows that.
_APART = bytes.maketrans(b"<>()[]{}|,*", b" " * 11)
_JWT = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.")
_BODY = re.compile(r"[A-Za-z0-9+/]{40}")
_EXAMPLE_NAMES = re.compile(
    rb"John Doe|Jane Doe|1234567890|some.{1,4}payload|foo.{1,5}bar|hello.{1,5}world|example\.com|user123", re.IGNORECASE
)


_SPELLED = {
    "api": "API",
    "aws": "AWS",
    "cicd": "CI/CD",
    "gcp": "Google Cloud",
    "github": "GitHub",
    "gitlab": "GitLab",
    "jwt": "JSON Web Token",
    "npm": "npm",
    "openai": "OpenAI",
    "pat": "Token",
    "pypi": "PyPI",
    "sdk": "SDK",
}


@dataclass(frozen=True, order=True)
class Secret:
    """A credential in some content: its kind and line, and how it was hidden there, "" where it was not.

    `sure` is False where it may well be an example or a mere name, `usual` True where it is as those of tests are.
    """

    line: int
    kind: str
    sure: bool
    how: str = ""
    usual: bool = False

    @property
    def shown(self) -> str:
        """The kind and how it was hidden, in words."""
        return f"{self.kind}, in {self.how}" if self.how else self.kind


def find_secrets(content: bytes, *, seconds: float = SECONDS) -> list[Secret]:
    """Find the credentials in `content`, at most one of each kind and line, in order.

    Content over 1 MiB is searched piece by piece; the pieces overlap.

    Raises:
        TimeoutError: it took longer than `seconds`.
    """
    found: dict[tuple[int, str], Secret] = {}
    until = time.monotonic() + seconds
    for first, piece in _pieces(content):
        for reading in readings(piece):
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"a search for credentials took longer than {seconds:g} s")
            for each in (*_in_text(reading, left), *_in_file(reading, left)):
                secret = replace(each, line=each.line + first)
                known = found.setdefault((secret.line, secret.kind), secret)
                if secret.sure > known.sure or (secret.sure == known.sure and known.usual > secret.usual):
                    found[secret.line, secret.kind] = secret
    sure = {secret.line for secret in found.values() if secret.sure}
    return sorted(secret for secret in found.values() if secret.sure or secret.line not in sure)


def _in_file(reading: Reading, seconds: float) -> Iterator[Secret]:
    """Find the credentials in a file that was decoded from text: a key, or an archive, which is opened once."""
    if reading.whole:
        return
    if key := key_in(reading.text):
        yield Secret(reading.line, key, True, reading.how)
    for _, inner in members(reading.text, Opening(left=DECODED_LIMIT, members=MEMBERS_LIMIT)):
        for each in readings(inner, RUN_LIMIT):
            how = f"an archive in {reading.how}"
            yield from _in_text(replace(each, line=reading.line, how=how, whole=False), seconds)


def _pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Split content into pieces that overlap, each with the number of lines before it."""
    if len(content) <= TEXT_LIMIT:
        yield 0, content
        return
    lines = 0
    for start in range(0, len(content) - OVERLAP, TEXT_LIMIT - OVERLAP):
        piece = content[start : start + TEXT_LIMIT]
        yield lines, piece
        lines += piece.count(b"\n", 0, TEXT_LIMIT - OVERLAP)


def _in_text(reading: Reading, seconds: float) -> Iterator[Secret]:
    """Find the credentials in one reading: those with a form of their own first."""
    text, lines = reading.text, set()
    for form in (text,) if reading.again else (text, text.translate(_APART)):
        for finding in scanner().scan(form, timeout=min(seconds, SECONDS)):
            kind, sure = judged(finding)
            if kind:
                line = int(finding.location["line"]) if reading.whole else reading.line
                lines.add(line)
                yield Secret(line, kind, sure, reading.how)
    for kind, find in () if reading.again else _WITHOUT_FORM:
        for place in find(text):
            line = _place(reading, text, place.position)
            if line not in lines:
                yield Secret(line, kind, False, reading.how, place.usual)


_WITHOUT_FORM = (
    (BY_NAME, assigned_secrets),
    ("a password by its place", placed_passwords),
    ("the hash of a password", hashed_passwords),
    ("a name and password for HTTP", basic_credentials),
)


def _place(reading: Reading, text: bytes, position: int) -> int:
    return text.count(b"\n", 0, position) + 1 if reading.whole else reading.line


@cache
def scanner() -> Scanner:
    """Compile the rules, once a process; Kingfisher keeps what it compiled in the user's cache directory."""
    with tempfile.TemporaryDirectory(prefix="ashat-rules-") as directory:
        own = Path(directory) / "rules.yml"
        own.write_text(as_document(), encoding="utf-8")
        rules = Rules([own], confidence="medium")
    return Scanner(
        rules, policy=DetectionPolicy(inline_ignores=False, markup_context=False, base64_max_depth=0), base64=False
    )


@cache
def _names() -> dict[str, str]:
    """Give each rule of the catalogue a short name, made of its identifier; ours have theirs."""
    own = {f"ashat.{number}": rule.name for number, rule in enumerate(TOKEN_RULES)}
    return {each["id"]: own.get(each["id"]) or _short(each["id"]) for each in scanner().rules.metadata()}


def _short(identifier: str) -> str:
    words = re.sub(r"\.\d+$", "", identifier.rpartition("/")[2].removeprefix("betterleaks.")).split("-")
    return " ".join(_SPELLED.get(word) or word.capitalize() for word in words)


def judged(finding: Finding) -> tuple[str, bool]:
    """Name what `finding` is, "" where it is no credential, and say whether it is sure to be one."""
    rule = finding.rule_id
    if not finding.visible or _PUBLIC.search(rule) or is_published(finding.secret):
        return "", False
    if "private-key" in rule or _names()[rule] == "Private Key":
        return (_names()[rule], True) if _has_body(finding.secret) else ("", False)
    if "credential-uri" in rule or ("connection-string" in rule and "mongo" in rule):
        return _of_address(finding)
    if "jwt" in rule:
        return _of_web_token(finding)
    sure = not _UNSURE.search(rule) and (finding.confidence == "high" or rule.startswith("veles."))
    return _names()[rule], sure


def _has_body(key: str) -> bool:
    """Tell whether a key follows the first line of a PEM file, and not code about keys, or an example cut short."""
    body = re.sub(r"\\[nr]|[\s\"'+,\\]", "", key.partition("KEY")[2].partition("-----")[2])
    return "Proc-Type" in body or bool(_BODY.search(body))


def _of_address(finding: Finding) -> tuple[str, bool]:
    uri = finding.captures.get("uri") or finding.secret
    password = finding.captures.get("password") or uri.rpartition("@")[0].rpartition(":")[2]
    if _URI.search(uri) or _WEAK.fullmatch(password):
        return "", False
    return "a password in an address", False


def _of_web_token(finding: Finding) -> tuple[str, bool]:
    """Judge a JSON Web Token by what it says: one that expired, or that is public or an example, opens nothing."""
    match = _JWT.search(finding.secret)
    payload = match[1] if match else ""
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        claims = load_json(raw, limit=64 * 1024)
    except (binascii.Error, ValueError, DocumentError):
        return "", False
    if not isinstance(claims, dict) or _EXAMPLE_NAMES.search(raw) or claims.get("role") == "anon":
        return "", False
    ends = claims.get("exp")
    if isinstance(ends, int) and ends < time.time():
        return "", False
    return "JSON Web Token", isinstance(ends, int) or {"iss", "aud", "role"} <= claims.keys() or claims.get(
        "role"
    ) == "service_role"
